//! What a pool tells when it is asked: its report, who has connections, who waited for long.

use std::cmp::Reverse;
use std::panic::Location;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crossbeam_channel::{Sender, unbounded};
use warmline::{
    BoxError, CheckedIn, CheckedOut, CloseReason, Closed, Connected, Connector, Endpoint, Error,
    ErrorKind, Observer, Opening, Pool, PooledConn, Repeat, TcpConnector, Verdict, Wait,
};

use crate::support::causes::{BRIEF, held_by_users, joined, site};
use crate::support::faults::Refusing;
use crate::support::lab::{Act, Lab, Method};
use crate::support::server::Server;
use crate::support::{SOON, ask, eventually, tcp, watchdog};

type Conn = PooledConn<TcpConnector>;

#[track_caller]
fn assert_says(report: &str, parts: &[&str]) {
    for part in parts {
        assert!(report.contains(part), "{part} is not in: {report}");
    }
    assert!(report.lines().count() <= 120, "{report}");
}

/// The row of an endpoint, counted from the top.
fn row(report: &str, endpoint: &str) -> usize {
    let table = report.lines().skip_while(|line| !line.starts_with("endpoint "));
    table.take_while(|line| !line.is_empty()).position(|line| line.starts_with(endpoint)).unwrap()
}

#[test]
fn a_report_names_what_is_wrong_with_each_endpoint_and_lists_those_in_trouble_first() {
    let _watchdog = watchdog();
    let (fine, full, down) = (Server::echo(), Server::echo(), Refusing::new());
    let pool = tcp().max_per_endpoint(2).fail_fast(false).build().unwrap();
    for _ in 0..10 {
        ask(&mut pool.get_timeout(&fine.name(), SOON).unwrap()).unwrap();
    }
    held_by_users(&pool, &full.name(), 2, |line| {
        let waits = [pool.request(&full.name()).unwrap(), pool.request(&full.name()).unwrap()];
        let refused = pool.request(&down.name()).unwrap();
        eventually("it is refused", || pool.stats().connects_failed() > 0);
        let is_said = || pool.report().to_string().contains("slow users");
        eventually("they have waited for long enough", is_said);
        let report = pool.report().to_string();
        let slow = format!("{}: 2 wait, the first for", full.name());
        let gone = format!("{}: 1 waits, the first for", down.name());
        let parts = [&*slow, "slow users", &*gone, "server down", line, "thread user-0"];
        assert_says(&report, &parts);
        assert_says(&report, &["onnection refused", "3 endpoints", "errors of late"]);
        let rows = [full.name(), down.name(), fine.name()].map(|name| row(&report, &name));
        assert_eq!(rows, [1, 2, 3], "{report}");
        drop((waits, refused));
    });
}

#[test]
fn a_report_shows_what_was_learned_and_what_the_load_needs_beside_the_settings() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let pool = tcp().max_per_endpoint(1).build().unwrap();
    let endpoint = pool.endpoint(&server.name()).unwrap();
    endpoint.note_idle_limit(Duration::from_secs(7));
    let conn = endpoint.get_timeout(SOON).unwrap();
    std::thread::sleep(4 * BRIEF); // less is not said to be a load
    drop(conn);
    let report = pool.report().to_string();
    let line = |setting: &str| {
        let found = report.lines().find(|line| line.starts_with(setting));
        found.unwrap_or_else(|| panic!("{setting} is not in: {report}")).to_owned()
    };
    assert_says(&line("max_per_endpoint "), &["1 in use at most, at", "the load needs "]);
    let learned = format!("at {}, as its server closes sooner", server.name());
    assert_says(&line("idle_timeout "), &["90s", &learned]);
    assert_says(&report, &["the load of late needs", "max_per_endpoint is 1"]);
}

#[test]
fn a_report_counts_why_connections_were_closed_and_what_errors_there_were() {
    let _watchdog = watchdog();
    let (server, down) = (Server::echo(), Refusing::new());
    let pool = Pool::tcp();
    for _ in 0..3 {
        PooledConn::discard(pool.get_timeout(&server.name(), SOON).unwrap());
    }
    drop(pool.get_timeout(&server.name(), SOON).unwrap());
    pool.evict_all();
    eventually("all are refused", || {
        pool.get_timeout(&down.name(), SOON).unwrap_err();
        pool.stats().connects_failed() >= 3
    });
    let stats = pool.stats();
    assert_eq!((stats.closed_for(CloseReason::Discarded), stats.closed()), (3, 4));
    let failed = stats.connects_failed();
    let errors = format!("  {failed} at {}, the last", down.name());
    // Whoever waited for an attempt hears of its end before the report does.
    eventually("it is noted", || pool.report().to_string().contains(&errors));
    let report = pool.report().to_string();
    assert_says(&report, &["closed: 3 discarded by its user, 1 evicted"]);
    assert_says(&report, &["connect failed after", "onnection refused"]);
}

#[test]
fn a_report_of_a_thousand_endpoints_in_trouble_fits_on_a_page() {
    let _watchdog = watchdog();
    let pool = Pool::builder(Lab::sound()).max_total(2_000).build().unwrap();
    let take = |number: usize| pool.get_timeout(&*format!("endpoint-{number}"), SOON).unwrap();
    let held: Vec<_> = (0..1_000).map(take).collect();
    pool.pause();
    for number in 0..100 {
        pool.get_timeout(&*format!("endpoint-{number}"), Duration::ZERO).unwrap_err();
    }
    let waits: Vec<_> =
        (0..1_000).map(|number| pool.request(&*format!("endpoint-{number}")).unwrap()).collect();
    let report = pool.report().to_string();
    assert_says(&report, &["1000 endpoints", "and 980 others", "  1000 at tests", "paused"]);
    assert_eq!(pool.holders().len(), 1_000);
    drop((waits, held));
}

#[test]
fn no_more_than_all_had_to_wait() {
    let _watchdog = watchdog();
    let pool = Pool::builder(Lab::sound()).build().unwrap();
    drop(pool.get_timeout("a", SOON).unwrap());
    pool.pause();
    let _waiting = [(); 10].map(|()| pool.request("a").unwrap());
    let report = pool.report().to_string();
    let (before, _) = report.split_once(" % had to wait").unwrap();
    let percent: f64 = before.rsplit(' ').next().unwrap().parse().unwrap();
    assert!(percent <= 100.0, "{report}");
}

#[test]
fn a_pause_of_the_whole_pool_is_told_once() {
    let _watchdog = watchdog();
    let pool = Pool::builder(Lab::sound()).build().unwrap();
    pool.pause();
    let names = ["a", "b", "c", "d"];
    let _waiting = names.map(|name| pool.request(name).unwrap());
    let report = pool.report().to_string();
    assert_eq!(report.matches(Verdict::Paused.advice()).count(), 1, "{report}");
}

#[test]
fn a_pool_reports_before_its_first_use_while_it_is_paused_and_when_it_is_closed() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let pool = tcp().name("orders").build().unwrap();
    let unused = pool.report().to_string();
    assert_says(&unused, &["pool \"orders\"", "0 endpoints", "to do: nothing", "max_total"]);
    assert!(pool.holders().is_empty() && pool.recent_waits().is_empty());
    drop(pool.get_timeout(&server.name(), SOON).unwrap());
    pool.pause();
    assert_says(&pool.report().to_string(), &["to do:\n  - paused: resume it", "1 idle"]);
    pool.resume();
    assert_says(&pool.report().to_string(), &["to do: nothing"]);
    pool.close();
    assert_says(&pool.report().to_string(), &["the pool is closed", "1 the pool was closed"]);
}

#[test]
fn whoever_has_connections_may_ask_while_others_work() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let pool = tcp().max_per_endpoint(4).build().unwrap();
    let own = pool.get_timeout(&server.name(), SOON).unwrap();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while !is_over.load(Ordering::SeqCst) {
                    ask(&mut pool.get_timeout(&server.name(), SOON).unwrap()).unwrap();
                }
            });
        }
        for _ in 0..200 {
            let report = pool.report();
            assert_says(&report.to_string(), &[&server.name(), "in use, by line of the program"]);
            assert!(report.lock_held() < SOON);
            let holders = pool.holders();
            assert!((1..=4).contains(&holders.len()), "{holders:?}");
            assert!(holders.iter().all(|holder| holder.endpoint() == server.name()));
            assert!(pool.recent_waits().len() <= 64);
        }
        is_over.store(true, Ordering::SeqCst);
    });
    drop(own);
    assert!(pool.holders().is_empty());
}

/// Asks its own pool for all it knows, whatever it is told.
#[derive(Clone)]
struct Curious(Arc<OnceLock<Pool<TcpConnector>>>, Sender<&'static str>);

impl Curious {
    fn ask(&self, what: &'static str) {
        let Some(pool) = self.0.get() else { return };
        let _all = (pool.holders(), pool.recent_waits(), pool.stats());
        assert_says(&pool.report().to_string(), &["1 endpoint"]);
        let _nobody_reads = self.1.send(what);
    }
}

impl Observer for Curious {
    fn connected(&self, _: &Connected) {
        self.ask("connected");
    }

    fn checked_out(&self, _: &CheckedOut) {
        self.ask("checked out");
    }

    fn checked_in(&self, _: &CheckedIn) {
        self.ask("checked in");
    }

    fn closed(&self, _: &Closed) {
        self.ask("closed");
    }
}

#[test]
fn an_observer_may_ask_for_a_report() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let (say, said) = unbounded();
    let curious = Curious(Arc::default(), say);
    let pool = tcp().observer(curious.clone()).build().unwrap();
    curious.0.set(pool.clone()).unwrap();
    let [one, other] = [(); 2].map(|()| pool.get_timeout(&server.name(), SOON).unwrap());
    PooledConn::discard(one); // told on this thread
    drop(other);
    server.assert_accepted(2);
    server.hang_up(); // told on another
    let mut words: Vec<_> = (0..8).map(|_| said.recv_timeout(SOON).unwrap()).collect();
    words.sort_unstable();
    let expected = ["checked in", "checked out", "closed", "connected"].map(|what| [what; 2]);
    assert_eq!(words, expected.concat());
}

/// The lines and threads that have connections, those first that have had them for longest.
fn lines(pool: &Pool<TcpConnector>) -> Vec<(u32, Option<String>)> {
    let line = |site: &Location<'_>| {
        assert!(site.file().ends_with("reporting.rs"), "{site}");
        site.line()
    };
    let holders = pool.holders();
    assert!(holders.is_sorted_by_key(|holder| Reverse(holder.held())), "{holders:?}");
    let lines = holders.iter().map(|it| (line(it.site()), it.thread().map(str::to_owned)));
    lines.collect()
}

#[test]
fn a_connection_is_known_by_the_line_that_asked_for_it_however_it_asked() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let pool = tcp().build().unwrap();
    let (name, endpoint) = (server.name(), pool.endpoint(&server.name()).unwrap());
    let only = |conn: Conn| {
        let found = lines(&pool);
        assert_eq!(found.len(), 1);
        drop(conn);
        assert!(pool.holders().is_empty(), "it came back");
        found[0].0
    };
    assert_eq!(only(pool.get(&name).unwrap()), line!());
    assert_eq!(only(pool.get_timeout(&name, SOON).unwrap()), line!());
    assert_eq!(only(pool.try_get(&name).unwrap().unwrap()), line!());
    assert_eq!(only(endpoint.get().unwrap()), line!());
    assert_eq!(only(endpoint.get_timeout(SOON).unwrap()), line!());
    assert_eq!(only(endpoint.try_get().unwrap()), line!());
    let request = pool.request(&name).unwrap();
    let asked = line!() - 1;
    assert_eq!(only(request.receiver().recv().unwrap().unwrap()), asked);
    let request = endpoint.request().unwrap();
    let asked = line!() - 1;
    assert_eq!(only(request.receiver().recv().unwrap().unwrap()), asked);
    for repeat in [Repeat::IfUnwritten, Repeat::Always] {
        let seen = endpoint.run(repeat, |_| Ok::<_, Error>(lines(&pool)));
        assert_eq!(seen.unwrap()[0].0, line!() - 1);
    }
    assert!(pool.holders().is_empty());
}

/// A program's own way to its connections.
#[track_caller]
fn passed_on(endpoint: &Endpoint<TcpConnector>) -> Conn {
    endpoint.get_timeout(SOON).unwrap()
}

fn kept_to_itself(endpoint: &Endpoint<TcpConnector>) -> (Conn, u32) {
    (endpoint.get_timeout(SOON).unwrap(), line!())
}

#[test]
fn a_programs_own_function_is_seen_through_if_it_tracks_its_caller() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let pool = tcp().build().unwrap();
    let endpoint = pool.endpoint(&server.name()).unwrap();
    let conn = passed_on(&endpoint);
    assert_eq!(lines(&pool)[0].0, line!() - 1);
    drop(conn);
    let (conn, line) = kept_to_itself(&endpoint);
    assert_eq!(lines(&pool)[0].0, line);
    drop(conn);
}

#[test]
fn holders_are_told_oldest_first_with_the_threads_that_asked_wherever_the_guards_are_now() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let pool = tcp().build().unwrap();
    let mut held = Vec::new();
    for name in ["first", "second", "third"] {
        let thread = std::thread::Builder::new().name(name.to_owned());
        let take = || pool.get_timeout(&server.name(), SOON).unwrap();
        std::thread::scope(|scope| {
            held.push(joined(thread.spawn_scoped(scope, take).unwrap()));
        });
        // The clock has ticked: the next is younger.
        eventually("it ages", || pool.holders().iter().all(|it| it.held() > Duration::ZERO));
    }
    let line = line!() - 7;
    let expected = ["first", "second", "third"].map(|name| (line, Some(name.to_owned())));
    assert_eq!(lines(&pool), expected);
    let holders = pool.holders();
    assert!(holders.iter().all(|holder| holder.has_thread_ended()), "{holders:?}");
    let text = holders[0].to_string();
    assert_says(&text, &[&server.name(), &site(file!(), line), "thread first, which has ended"]);
    // Given back out of order, and on another thread.
    drop(held.remove(1));
    assert_eq!(lines(&pool), [expected[0].clone(), expected[2].clone()]);
    drop(held);
    assert!(pool.holders().is_empty());
}

#[test]
fn what_was_detached_or_closed_is_nobodys_any_more() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let pool = tcp().build().unwrap();
    let [one, other] = [(); 2].map(|()| pool.get_timeout(&server.name(), SOON).unwrap());
    let socket = PooledConn::detach(one);
    assert_eq!(pool.holders().len(), 1);
    PooledConn::discard(other);
    assert!(pool.holders().is_empty());
    drop(socket);
}

#[test]
fn an_answer_that_nobody_receives_is_held_by_the_line_of_its_request() {
    let _watchdog = watchdog();
    let pool = Pool::builder(Lab::sound()).build().unwrap();
    let request = pool.request("a").unwrap();
    let line = line!() - 1;
    eventually("it is answered", || !request.receiver().is_empty());
    let holders = pool.holders();
    assert_eq!((holders.len(), holders[0].site().line()), (1, line));
    drop(request);
    assert!(pool.holders().is_empty());
}

fn vain(wait: &Wait) -> bool {
    wait.error() == Some(ErrorKind::Timeout)
}

#[test]
fn waits_in_vain_are_remembered_however_short_and_only_the_latest_64() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let pool = tcp().max_per_endpoint(1).build().unwrap();
    held_by_users(&pool, &server.name(), 1, |_| {
        for round in 0..70_u64 {
            let wait = Duration::from_micros(10 * round);
            pool.get_timeout(&server.name(), wait).unwrap_err();
        }
        let waits = pool.recent_waits();
        assert_eq!(waits.len(), 64);
        assert!(waits.iter().all(|wait| vain(wait) && wait.site().line() == line!() - 4));
        assert!(waits.is_sorted_by_key(Wait::at), "the newest last");
        let newest = waits.last().unwrap();
        assert!(newest.waited() >= Duration::from_micros(690), "{newest}");
        assert_eq!((newest.ahead(), newest.verdict()), (Some(0), Some(Verdict::Undersized)));
        assert_eq!((newest.endpoint(), newest.thread()), (&*server.name(), me()));
        assert!(!newest.to_string().contains('\n'));
    });
}

fn me() -> Option<String> {
    std::thread::current().name().map(str::to_owned)
}

#[test]
fn waits_of_those_who_were_served_are_remembered_if_they_were_long_and_requests_among_them() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let pool = tcp().max_per_endpoint(1).build().unwrap();
    let held = pool.get_timeout(&server.name(), SOON).unwrap();
    let request = pool.request(&server.name()).unwrap();
    let asked = line!() - 1;
    std::thread::scope(|scope| {
        let second = scope.spawn(|| drop(pool.get_timeout(&server.name(), SOON).unwrap()));
        eventually("the second waits", || pool.stats().waiting() == 2);
        let third = scope.spawn(|| drop(pool.get_timeout(&server.name(), SOON).unwrap()));
        eventually("all wait", || pool.stats().waiting() == 3);
        std::thread::sleep(BRIEF); // a wait of 10 ms and more
        drop(held);
        drop(request.receiver().recv_timeout(SOON).unwrap().unwrap());
        joined(second);
        joined(third);
    });
    // The first connection had to be opened, which may have taken long as well.
    let waits = pool.recent_waits();
    let waits = waits.get(waits.len() - 3..).unwrap();
    assert!(waits.iter().all(|wait| wait.error().is_none() && wait.verdict().is_none()));
    assert!(waits.iter().all(|wait| wait.waited() >= BRIEF && wait.endpoint() == server.name()));
    let mut ahead: Vec<_> = waits.iter().map(Wait::ahead).collect();
    ahead.sort_unstable();
    assert_eq!(ahead, [None, Some(1), Some(2)], "a request is told from its line alone");
    let own = waits.iter().find(|wait| wait.ahead().is_none()).unwrap();
    assert_eq!((own.site().line(), own.thread()), (asked, me()));
    assert!(waits.iter().all(|wait| wait.to_string().contains("for one that came back")));
}

#[test]
fn what_is_remembered_of_waits_was_long_or_in_vain() {
    let _watchdog = watchdog();
    let pool = Pool::builder(Lab::sound()).max_per_endpoint(2).build().unwrap();
    let hurry = Duration::from_micros(50);
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                for _ in 0..500 {
                    drop(pool.get_timeout("a", hurry));
                    drop(pool.get_timeout("a", SOON).unwrap());
                }
            });
        }
    });
    let waits = pool.recent_waits();
    let is_long = |wait: &Wait| wait.waited() >= Duration::from_millis(10);
    assert!(waits.iter().all(|wait| is_long(wait) || wait.error().is_some()), "{waits:?}");
}

#[test]
fn an_attempt_that_never_returns_is_among_the_errors_of_late() {
    let _watchdog = watchdog();
    let lab = Lab::new(|method, _| if method == Method::Open { Act::Hang } else { Act::Go });
    let bench = lab.bench();
    let pool = Pool::builder(lab).connect_timeout(BRIEF).build().unwrap();
    pool.get_timeout("a", SOON).unwrap_err();
    let is_told = || pool.report().to_string().contains("did not end by its deadline");
    eventually("it is given up, and told of", is_told);
    bench.release();
}

/// Refuses each time with other words.
struct Talkative(AtomicU64);

impl Connector for Talkative {
    type Key = String;
    type Conn = ();

    fn open(&self, _: &String, _: &mut Opening) -> Result<(), BoxError> {
        Err(format!("refusal {}", self.0.fetch_add(1, Ordering::SeqCst)).into())
    }
}

#[test]
fn an_error_that_comes_again_and_again_is_told_in_its_latest_words() {
    let _watchdog = watchdog();
    let connector = Talkative(AtomicU64::new(0));
    let pool = Pool::builder(connector).fail_fast(false).build().unwrap();
    let _waits = pool.request("a").unwrap(); // has it tried without end
    let is_renewed = || {
        let report = pool.report().to_string();
        report.contains("open failed") && !report.contains("refusal 0")
    };
    eventually("later words are told", is_renewed);
}
