//! Networks that die without a word: no farewell can come, and still every connection ends in time;
//! and when the network is back, so is the pool.
//!
//! Each test runs in a child with a network of its own, from which cables lead to others, one for
//! each way to die: namespaces, and pairs of virtual cards.

mod heartbeats;

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use warmline::{Builder, CloseReason, ErrorKind, Pool, PooledConn, TcpConnector, TcpKeepalive};

use crate::support::server::Server;
use crate::support::{Diary, SOON, ask, assert_balanced, both_ways, eventually, say, watchdog};
use crate::{assert_passed, is_child, run_child};

/// How a network dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Death {
    /// The link of this machine is taken down: there is no way to the peer any more.
    LinkDown,
    /// The cable is pulled out at the other end.
    Unplugged,
    /// All looks well, and what is sent arrives nowhere, as behind a firewall that forgot.
    Silence,
}

/// A cable, and the network at its other end.
struct Cable {
    death: Death,
    /// What its card here is called, and where it leads. Addresses for documentation: they are
    /// nobody's.
    near: String,
    address: IpAddr,
    far: File,
}

impl Cable {
    /// Lays it from the network of this process to a new one.
    fn lay(death: Death) -> Self {
        // Whoever has left first says so, and keeps the new network until it is held here.
        let mut holder = Command::new("unshare");
        holder.args(["-n", "sh", "-c", "echo here; read until_told"]);
        let mut holder = holder.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut here = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut here).unwrap();
        assert_eq!(here, "here\n");
        let far = File::open(format!("/proc/{}/ns/net", holder.id())).unwrap();
        let (near, number) = (format!("{death:?}"), death as u8);
        ip(&format!("link add {near} type veth peer name far netns {}", holder.id()));
        drop(holder.stdin.take());
        holder.wait().unwrap();
        let address = Ipv4Addr::new(192, 0, 2, 4 * number + 2);
        ip(&format!("addr add 192.0.2.{}/30 dev {near}", 4 * number + 1));
        ip(&format!("link set {near} up"));
        let cable = Self { death, near, address: address.into(), far };
        cable.over_there(|| {
            ip(&format!("addr add {address}/30 dev far"));
            ip("link set far up");
        });
        cable
    }

    /// Runs this on a thread that is in the network at the other end, as are sockets it makes and
    /// threads and programs it starts.
    fn over_there<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let there = scope.spawn(|| {
                let network = Some(LinkNameSpaceType::Network);
                move_into_link_name_space(self.far.as_fd(), network).unwrap();
                body()
            });
            there.join().unwrap()
        })
    }

    fn echo(&self) -> Server {
        self.over_there(|| Server::echo_at(self.address))
    }

    fn die(&self) {
        let Self { near, address, .. } = self;
        match self.death {
            Death::LinkDown => ip(&format!("link set {near} down")),
            Death::Unplugged => self.over_there(|| ip("link set far down")),
            Death::Silence => {
                // A card that nobody has.
                let nobody = "lladdr 02:00:00:00:00:01 nud permanent";
                ip(&format!("neigh replace {address} dev {near} {nobody}"));
            }
        }
    }

    fn heal(&self) {
        let Self { near, address, .. } = self;
        match self.death {
            Death::LinkDown => ip(&format!("link set {near} up")),
            Death::Unplugged => self.over_there(|| ip("link set far up")),
            Death::Silence => ip(&format!("neigh del {address} dev {near}")),
        }
    }
}

/// Runs the program ip with these words.
#[track_caller]
fn ip(words: &str) {
    let output = Command::new("ip").args(words.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "ip {words}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A command that runs this program in a network of its own; what is missing, if there is none.
fn with_own_network() -> Result<Command, &'static str> {
    let is_missing = |program: &&str| Command::new(program).arg("-V").output().is_err();
    if let Some(missing) = ["unshare", "ip"].into_iter().find(is_missing) {
        let is_required = std::env::var("WARMLINE_REQUIRE_SERVERS").is_ok_and(|it| it == "1");
        assert!(!is_required, "{missing} is not installed: apt-get install util-linux iproute2");
        return Err("the programs unshare and ip: apt-get install util-linux iproute2");
    }
    let inside = |flags: &str, script: &str| {
        let mut command = Command::new("unshare");
        command.args([flags, "sh", "-c", script, "sh"]);
        command
    };
    const TRIAL: &str = "ip link add near type veth peer name far && unshare -n true";
    for flags in ["-rn", "-n"] {
        if inside(flags, TRIAL).output().is_ok_and(|output| output.status.success()) {
            let mut command = inside(flags, "ip link set lo up && exec \"$@\"");
            command.arg(std::env::current_exe().unwrap());
            return Ok(command);
        }
    }
    Err("a kernel with virtual cards (veth), and root or user namespaces \
         (sysctl kernel.unprivileged_userns_clone=1)")
}

/// Runs `body` in a child with a network of its own, if this machine has such: at once for each way
/// to die.
fn in_own_network(name: &str, body: impl Fn(&Cable) + Sync) {
    let name = format!("dead_networks::{name}");
    if is_child(&name) {
        let _watchdog = watchdog();
        return std::thread::scope(|scope| {
            for death in [Death::LinkDown, Death::Unplugged, Death::Silence] {
                let cable = Cable::lay(death);
                let (body, thread) = (&body, std::thread::Builder::new());
                // Named for what it says when it fails.
                let thread = thread.name(format!("{death:?}"));
                thread.spawn_scoped(scope, move || body(&cable)).unwrap();
            }
        });
    }
    match with_own_network() {
        Ok(mut command) => assert_passed(&run_child(&mut command, &name)),
        Err(missing) => say(&format!("skipped: {name}; it needs {missing}")),
    }
}

/// Gives up after three seconds; it counts in whole ones.
fn keepalive() -> TcpKeepalive {
    let second = Duration::from_secs(1);
    TcpKeepalive::default().idle(second).interval(second).count(2)
}

/// Reads and writes that end by nothing but the end of the connection.
fn patient() -> TcpConnector {
    TcpConnector::new().read_timeout(None).write_timeout(None)
}

/// Neither keepalive nor the user time-out ends anything within an hour.
fn unsuspecting() -> TcpConnector {
    patient().keepalive(None).user_timeout(Duration::from_secs(3600))
}

fn way(is_portable: bool) -> &'static str {
    if is_portable { "portably" } else { "natively" }
}

both_ways! {
    keepalive_ends_idle_connections_that_no_packet_reaches_any_more,
}

fn keepalive_ends_idle_connections_that_no_packet_reaches_any_more(is_portable: bool) {
    let test = "keepalive_ends_idle_connections_that_no_packet_reaches_any_more";
    in_own_network(&format!("{}::{test}", way(is_portable)), |cable| {
        let server = cable.echo();
        let diary = Diary::default();
        let builder = Pool::builder(patient().keepalive(keepalive())).observer(diary.clone());
        let pool = builder.portable_watch(is_portable).build().unwrap();
        let endpoint = pool.endpoint(&server.name()).unwrap();
        assert_eq!(endpoint.warm(5, SOON).unwrap(), 5);
        ask(&mut endpoint.get().unwrap()).unwrap();
        cable.die();
        assert_eq!(diary.reasons_of(5), [CloseReason::PeerClosed; 5]);
        let stats = endpoint.stats();
        assert_eq!((stats.total(), stats.checkouts()), (0, 1));
        cable.heal();
        eventually("it works again", || endpoint.get().is_ok_and(|mut it| ask(&mut it).is_ok()));
        assert_balanced(&endpoint.stats());
    });
}

/// How reads and writes end on a connection whose peer has vanished.
const VANISHED: [io::ErrorKind; 3] =
    [io::ErrorKind::TimedOut, io::ErrorKind::HostUnreachable, io::ErrorKind::NetworkUnreachable];

/// What comes of `usage` on a connection whose network has died, in every way; in the end it is
/// closed, and one that is opened when the network is back works.
fn assert_ends(
    name: &str,
    connector: &TcpConnector,
    usage: impl Fn(&mut PooledConn<TcpConnector>) -> io::Result<()> + Sync,
) {
    in_own_network(name, |cable| {
        let server = cable.echo();
        let diary = Diary::default();
        let builder = Pool::builder(connector.clone()).observer(diary.clone());
        let endpoint = builder.build().unwrap().endpoint(&server.name()).unwrap();
        let mut conn = endpoint.get().unwrap();
        ask(&mut conn).unwrap();
        cable.die();
        let began = Instant::now();
        let error = usage(&mut conn).unwrap_err();
        assert!(VANISHED.contains(&error.kind()), "{error:?}");
        assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
        drop(conn);
        assert_eq!(diary.reasons(), [CloseReason::Failed]);
        cable.heal();
        eventually("it works again", || endpoint.get().is_ok_and(|mut it| ask(&mut it).is_ok()));
        assert_balanced(&endpoint.stats());
    });
}

#[test]
fn keepalive_ends_a_read_that_waits_for_what_will_never_come() {
    let name = "keepalive_ends_a_read_that_waits_for_what_will_never_come";
    assert_ends(name, &patient().keepalive(keepalive()), |conn| conn.read_exact(&mut [0]));
}

#[test]
fn the_user_time_out_ends_an_exchange_whose_request_arrives_nowhere() {
    let name = "the_user_time_out_ends_an_exchange_whose_request_arrives_nowhere";
    let connector = patient().keepalive(None).user_timeout(Duration::from_secs(2));
    assert_ends(name, &connector, ask);
}

#[test]
fn the_user_time_out_ends_a_write_that_nobody_takes() {
    let name = "the_user_time_out_ends_a_write_that_nobody_takes";
    let connector = patient().keepalive(None).user_timeout(Duration::from_secs(2));
    // More than the system takes in advance.
    let connector = connector.send_buffer(64 * 1024);
    assert_ends(name, &connector, |conn| conn.write_all(&[0; 4 << 20]));
}

/// Kept ready beside a network that comes and goes.
fn kept_ready(connector: TcpConnector) -> Builder<TcpConnector> {
    Pool::builder(connector).min_idle(2).connect_timeout(Duration::from_millis(500))
}

#[test]
fn while_the_network_is_dead_callers_keep_their_deadlines_and_other_servers_are_reached() {
    let name =
        "while_the_network_is_dead_callers_keep_their_deadlines_and_other_servers_are_reached";
    in_own_network(name, |cable| {
        let (server, other) = (cable.echo(), Server::echo());
        let pool = kept_ready(patient().keepalive(keepalive())).build().unwrap();
        let far = pool.endpoint(&server.name()).unwrap();
        eventually("two are ready", || far.stats().idle() == 2);
        cable.die();
        eventually("what was idle has ended", || far.stats().idle() == 0);
        for _ in 0..3 {
            let began = Instant::now();
            let error = far.get_timeout(Duration::from_millis(200)).unwrap_err();
            let kind = error.kind();
            assert!([ErrorKind::Timeout, ErrorKind::Connect].contains(&kind), "{error}");
            assert!(began.elapsed() < SOON / 2, "{:?}", began.elapsed());
            ask(&mut pool.get(&other.name()).unwrap()).unwrap();
        }
        assert_eq!(pool.stats().in_use(), 0);
        cable.heal();
    });
}

#[test]
fn when_the_network_is_back_the_pool_is_full_again_without_any_traffic() {
    let name = "when_the_network_is_back_the_pool_is_full_again_without_any_traffic";
    in_own_network(name, |cable| {
        let server = cable.echo();
        let pool = kept_ready(patient().keepalive(keepalive())).build().unwrap();
        let far = pool.endpoint(&server.name()).unwrap();
        eventually("two are ready", || far.stats().idle() == 2);
        cable.die();
        eventually("attempts fail as well", || {
            far.stats().idle() == 0 && far.stats().connects_failed() >= 2
        });
        cable.heal();
        eventually("two are ready again", || far.stats().idle() == 2);
        assert_eq!((far.stats().checkouts(), far.stats().opened()), (0, 4));
        ask(&mut far.get().unwrap()).unwrap();
        assert_balanced(&far.stats());
    });
}

#[test]
fn a_network_that_dies_for_a_moment_ends_nothing() {
    in_own_network("a_network_that_dies_for_a_moment_ends_nothing", |cable| {
        let server = cable.echo();
        let pool = Pool::builder(unsuspecting()).build().unwrap();
        let mut conn = pool.get(&server.name()).unwrap();
        ask(&mut conn).unwrap();
        cable.die();
        conn.write_all(b"ping").unwrap();
        std::thread::sleep(Duration::from_millis(100));
        cable.heal();
        let mut answer = [0; 4];
        conn.read_exact(&mut answer).expect("it is only late");
        assert_eq!(&answer, b"ping");
        drop(conn);
        assert_eq!((pool.stats().idle(), server.accepted()), (1, 1));
    });
}
