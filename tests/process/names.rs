//! Names by the million: what is known of one that is not used any more takes no room, and those
//! that hang take four threads.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use socket2::SockRef;
use warmline::{
    Deadline, ErrorKind, Failure, Phase, Pool, PooledConn, Resolved, Resolver, TcpConnector,
};

use crate::support::faults::Refusing;
use crate::support::resolver::{Answer, Script};
use crate::support::server::{Crowd, Server};
use crate::support::{SOON, ask, assert_balanced, assert_empty, eventually, say, tcp, watchdog};
use crate::{alone, assert_passed, is_child, run_child};

/// The names of this process's threads that begin with this.
fn threads_of(what: &str) -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    // A thread may end between the two reads.
    let name = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("comm")).ok();
    let names = tasks.filter_map(|task| name(task.unwrap()));
    let mut names: Vec<_> = names.filter(|name| name.starts_with(what)).collect();
    names.sort();
    names
}

/// A figure from what the system tells about this process, or one of its threads.
fn status(of: &str, figure: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/self/{of}status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(figure)).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Memory that is neither a file's nor shared.
fn memory_kib() -> u64 {
    status("", "RssAnon:")
}

#[test]
fn however_many_names_hang_four_threads_look_them_up_and_end_when_there_are_no_more() {
    alone(
        "names::however_many_names_hang_four_threads_look_them_up_and_end_when_there_are_no_more",
        || {
            let _watchdog = watchdog();
            let server = Server::echo();
            let script = Script::always(Answer::at(server.address()).late());
            let builder = tcp().name("fish").resolver(&script.resolver());
            let pool = builder.connect_timeout(Duration::from_secs(3600)).build().unwrap();
            let began = Instant::now();
            let ask_for = |number| pool.request(&format!("host{number}.test:80")).unwrap();
            let requests: Vec<_> = (0..40).map(ask_for).collect();
            eventually("as many hang as may", || script.hanging() >= 4);
            assert_eq!(pool.stats().connecting(), 40);
            // Those that have hung for five seconds are given up, and others begun in their place.
            if began.elapsed() < Duration::from_secs(4) {
                let threads = threads_of("fish-dns");
                assert_eq!((script.count(), threads.len()), (4, 4), "{threads:?}");
            }
            eventually("each has its answer", || {
                script.release();
                requests.iter().all(|request| !request.receiver().is_empty())
            });
            drop(requests);
            assert_eq!((script.count(), pool.stats().idle()), (40, 40));
            eventually("the threads have ended", || threads_of("fish-dns").is_empty());
        },
    );
}

#[test]
fn the_last_handle_does_not_wait_for_names_that_hang() {
    alone("names::the_last_handle_does_not_wait_for_names_that_hang", || {
        let _watchdog = watchdog();
        let script = Script::always(Answer::here().late());
        let pool = tcp().name("fish").resolver(&script.resolver()).build().unwrap();
        let ask_for = |number| pool.request(&format!("host{number}.test:80")).unwrap();
        let requests: Vec<_> = (0..8).map(ask_for).collect();
        eventually("as many hang as may", || script.hanging() == 4);
        drop(pool);
        assert_eq!(script.hanging(), 4, "they hang still");
        for request in requests {
            let error = request.receiver().recv().unwrap().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Closed);
        }
        eventually("event loop and reaper have ended", || {
            threads_of("fish-").len() == threads_of("fish-dns").len()
        });
        eventually("all threads have ended", || {
            script.release();
            threads_of("fish-").is_empty()
        });
    });
}

#[test]
fn a_name_that_was_looked_up_leaves_nobody_awake() {
    alone("names::a_name_that_was_looked_up_leaves_nobody_awake", || {
        let _watchdog = watchdog();
        let server = Server::echo();
        let script = Script::always(Answer::at(server.address()));
        let pool = tcp().name("fish").resolver(&script.resolver()).build().unwrap();
        ask(&mut pool.get("db.test:80").unwrap()).unwrap();
        eventually("the thread that looked it up has ended", || {
            threads_of("fish-") == ["fish-loop\n", "fish-reaper\n"]
        });
        let sleeps = || {
            let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
            let count = |task: std::fs::DirEntry| {
                let comm = std::fs::read_to_string(task.path().join("comm")).unwrap();
                let task = format!("task/{}/", task.file_name().to_str().unwrap());
                comm.starts_with("fish-").then(|| status(&task, "voluntary_ctxt_switches:"))
            };
            tasks.filter_map(count).collect::<Vec<_>>()
        };
        // Ten seconds after the connect: its deadline is long over.
        let before = sleeps();
        std::thread::sleep(Duration::from_secs(3));
        assert_eq!(sleeps(), before, "not once in three seconds");
        assert_eq!((pool.stats().idle(), script.count()), (1, 1));
    });
}

/// What becomes of names that are used once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Unresolved,
    Refused,
    Connected,
}

impl Fate {
    const ALL: [Self; 3] = [Self::Unresolved, Self::Refused, Self::Connected];
}

/// Where names of that fate lead, as long as it is there.
struct Place {
    resolver: Resolver,
    port: u16,
    crowd: Crowd,
    _refusing: Refusing,
}

impl Place {
    fn of(fate: Fate) -> Self {
        let (refusing, crowd) = (Refusing::new(), Crowd::new());
        let port = match fate {
            Fate::Unresolved => 80,
            Fate::Refused => refusing.address().port(),
            Fate::Connected => crowd.name().rsplit_once(':').unwrap().1.parse().unwrap(),
        };
        // Counts nothing, and remembers nothing.
        let resolver = Resolver::new(move |_: &str| match fate {
            Fate::Unresolved => Err("no such name".into()),
            _ => Ok(Resolved::new([SocketAddr::from((Ipv4Addr::LOCALHOST, 0))])),
        });
        Self { resolver, port, crowd, _refusing: refusing }
    }
}

/// Uses each of so many names once.
fn visit(pool: &Pool<TcpConnector>, fate: Fate, place: &Place, numbers: Range<u32>) {
    for number in numbers {
        let name = format!("one-of-many-tenants-{number:0>200}.test:{}", place.port);
        match (pool.get_timeout(&name, SOON), fate) {
            (Ok(conn), Fate::Connected) => {
                // By a reset, which leaves no port behind that is not free for a minute.
                SockRef::from(&*conn).set_linger(Some(Duration::ZERO)).unwrap();
                PooledConn::discard(conn);
            }
            (Err(error), Fate::Unresolved) if error.failure() == Some(Failure::Dns) => {}
            (Err(error), Fate::Refused) if error.failure() == Some(Failure::Refused) => {}
            (result, _) => panic!("{number} was to be {fate:?}: {:?}", result.map(drop)),
        }
        if number % 100 == 0 {
            place.crowd.hang_up();
        }
    }
}

/// Uses so many names, one after the other, and checks that nothing is left of them.
fn use_up(fate: Fate, count: u32) {
    const AT_A_TIME: u32 = 50_000;
    let place = Place::of(fate);
    let pool = tcp().resolver(&place.resolver).build().unwrap();
    // What the allocator keeps depends on how many names there were at a time: more, where the
    // machine is fast. It is as much after this as ever.
    let warm_up = count / 3;
    let began = Instant::now();
    let visit_all = |numbers: Range<u32>| {
        for first in numbers.clone().step_by(AT_A_TIME as usize) {
            let _watchdog = watchdog();
            visit(&pool, fate, &place, first..numbers.end.min(first + AT_A_TIME));
        }
    };
    visit_all(0..warm_up);
    let before = settled_kib(&pool, None);
    visit_all(warm_up..count);
    let _watchdog = watchdog();
    let after = settled_kib(&pool, Some(before + GROWTH_KIB));
    let stats = pool.stats();
    let took = began.elapsed();
    say(&format!("{fate:?}: {before} KiB after {warm_up}, {after} KiB after {count}; {took:.0?}"));
    assert!(after <= before + GROWTH_KIB, "{fate:?}: {before} KiB became {after} KiB");
    let is_connected = fate == Fate::Connected;
    assert_eq!(stats.opened() > 0, is_connected);
    let made = stats.opened() + stats.connects_failed();
    assert_eq!(made, u64::from(count), "each name came to something, once: {stats}");
    assert_balanced(&stats);
    pool.drain(Deadline::after(SOON)).unwrap();
    assert_empty(&pool.stats());
}

/// What memory may grow by after the first third: endpoints, labels, keys and names of 20,000 take
/// 28 MiB, and of a million, 26 bytes left behind by each would show. A failure is remembered for a
/// moment, so thousands are there at a time; in pieces of what they had the allocator keeps 10 MiB.
const GROWTH_KIB: u64 = 16 * 1024;

/// Memory, once endpoints that are remembered for a moment are forgotten.
fn settled_kib(pool: &Pool<TcpConnector>, bound: Option<u64>) -> u64 {
    let began = Instant::now();
    let patience = Duration::from_secs(if bound.is_some() { 15 } else { 3 });
    loop {
        std::thread::sleep(Duration::from_millis(100));
        let now = memory_kib();
        let is_enough = bound.is_some_and(|bound| now <= bound);
        if is_enough || began.elapsed() > patience {
            assert_eq!(pool.stats().total(), 0, "{}", pool.stats());
            return now;
        }
    }
}

/// As `alone`, but that the child's figures are heard here, and its threads share an arena.
fn alone_and_aloud(name: &str, body: impl FnOnce()) {
    if is_child(name) {
        return alone(name, body);
    }
    let program = std::env::current_exe().unwrap();
    let mut command = Command::new(program);
    command.env("MALLOC_ARENA_MAX", "1").stderr(Stdio::inherit());
    assert_passed(&run_child(&mut command, name));
}

#[test]
fn names_that_are_used_once_leave_nothing_behind_whatever_became_of_them() {
    alone_and_aloud(
        "names::names_that_are_used_once_leave_nothing_behind_whatever_became_of_them",
        || Fate::ALL.into_iter().for_each(|fate| use_up(fate, 30_000)),
    );
}

#[test]
#[ignore = "takes a minute; .ci/deep runs it"]
fn a_million_names_that_do_not_resolve_leave_nothing_behind() {
    alone_and_aloud("names::a_million_names_that_do_not_resolve_leave_nothing_behind", || {
        use_up(Fate::Unresolved, 1_000_000);
    });
}

#[test]
#[ignore = "takes a minute or two; .ci/deep runs it"]
fn a_million_names_where_nobody_listens_leave_nothing_behind() {
    alone_and_aloud("names::a_million_names_where_nobody_listens_leave_nothing_behind", || {
        use_up(Fate::Refused, 1_000_000);
    });
}

#[test]
#[ignore = "takes a minute or two; .ci/deep runs it"]
fn a_million_names_with_a_connection_each_leave_nothing_behind() {
    alone_and_aloud("names::a_million_names_with_a_connection_each_leave_nothing_behind", || {
        use_up(Fate::Connected, 1_000_000);
    });
}

/// A command that runs another where IPv4 has a loopback and IPv6 none, if this machine lets us.
fn without_v6() -> Option<Command> {
    let script =
        "ip link set lo up && echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6 && exec \"$@\"";
    for flags in ["-rn", "-n"] {
        let mut command = Command::new("unshare");
        command.args([flags, "sh", "-c", script, "sh"]);
        let mut trial = Command::new("unshare");
        trial.args([flags, "sh", "-c", script, "sh", "true"]);
        if trial.output().is_ok_and(|output| output.status.success()) {
            command.arg(std::env::current_exe().unwrap());
            return Some(command);
        }
    }
    None
}

#[test]
fn an_address_of_a_family_that_this_machine_lacks_is_unreachable_and_passed_over() {
    const NAME: &str =
        "names::an_address_of_a_family_that_this_machine_lacks_is_unreachable_and_passed_over";
    if !is_child(NAME) {
        let Some(mut command) = without_v6() else {
            return say(&format!("skipped: {NAME}; it needs unshare, ip and user namespaces"));
        };
        return assert_passed(&run_child(&mut command, NAME));
    }
    let _watchdog = watchdog();
    let server = Server::echo();
    let script = Script::of("v6.test", [Answer::ip(Ipv6Addr::LOCALHOST)]);
    let both = ["::1".parse().unwrap(), "127.0.0.1".parse().unwrap()];
    let both: Vec<_> = both.map(|ip| SocketAddr::new(ip, 0)).into();
    script.say("both.test", [Answer::At(both)]);
    let pool = tcp().resolver(&script.resolver()).build().unwrap();
    let port = server.address().port();
    ask(&mut pool.get(&format!("both.test:{port}")).unwrap()).unwrap();
    let error = pool.get(&format!("v6.test:{port}")).unwrap_err();
    assert_eq!(error.phase(), Some(Phase::Connect), "{error}");
    assert_eq!(error.failure(), Some(Failure::Unreachable), "{error}");
}
