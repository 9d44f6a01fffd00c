//! Names, settings, peers and users that are wrong: each ends in time, with a clear error, and
//! nothing is lost. Those that need a process of their own are in `tests/process`.

use std::io::{Read, Write};
use std::time::Duration;

use crossbeam_channel::bounded;
use warmline::{
    Address, BoxError, Builder, CloseReason, Connector, ErrorKind, Failure, Opening, Phase, Plan,
    Pool, PooledConn, Reset, Socket, SocketOptions, TcpConnector, TcpKeepalive, UnixConnector,
};

use crate::support::faults::{BlackHole, Refusing};
use crate::support::lab::{Act, Lab, Method};
use crate::support::server::Server;
use crate::support::{SOON, ask, assert_empty, eventually, tcp, watchdog};

#[test]
fn an_address_that_makes_no_sense_is_refused_at_once_and_named() {
    let _watchdog = watchdog();
    let pool = Pool::tcp();
    for (name, why) in [
        ("", "the port is missing"),
        ("localhost", "the port is missing"),
        ("localhost:http", "the port is not a number"),
        ("localhost:65536", "the port is not a number"),
        ("http://localhost:80", "no host name"),
        ("a b:80", "no host name"),
        (":80", "the host is empty"),
        (".:80", "the host is empty"),
        ("localhost:0", "port 0"),
        ("127.0.0.1:0", "port 0"),
        ("[::1]:0", "port 0"),
    ] {
        for error in [
            pool.get(name).unwrap_err(),
            pool.try_get(name).unwrap_err(),
            pool.endpoint(name).unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Config, "{name}");
            let text = error.to_string();
            assert!(text.contains(why) && text.contains(name), "{name}: {text}");
        }
    }
    let port_zero = "127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap();
    assert_eq!(pool.get(&port_zero).unwrap_err().kind(), ErrorKind::Config);
    assert_empty(&pool.stats());
}

#[test]
fn a_socket_path_that_makes_no_sense_is_refused_and_one_without_a_server_fails() {
    let _watchdog = watchdog();
    let pool = Pool::builder(UnixConnector::new()).build().unwrap();
    assert_eq!(pool.get("").unwrap_err().kind(), ErrorKind::Config);
    assert_eq!(pool.get(&*"x".repeat(200)).unwrap_err().kind(), ErrorKind::Config);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nobody.sock");
    assert_eq!(pool.get(&path).unwrap_err().kind(), ErrorKind::Connect);
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    eventually("it is refused", || {
        pool.get(&path).is_err_and(|error| error.failure() == Some(Failure::Refused))
    });
    assert_empty(&pool.stats());
}

#[test]
fn a_refused_connect_fails_at_once() {
    let _watchdog = watchdog();
    let refusing = Refusing::new();
    let pool = tcp().checkout_timeout(Duration::from_secs(3600)).build().unwrap();
    let error = pool.get(&refusing.name()).unwrap_err();
    assert_eq!((error.kind(), error.failure()), (ErrorKind::Connect, Some(Failure::Refused)));
    let endpoint = pool.endpoint(&refusing.name()).unwrap();
    eventually("warming says so", || {
        let error = endpoint.warm(2, SOON).unwrap_err();
        (error.kind(), error.failure()) == (ErrorKind::Connect, Some(Failure::Refused))
    });
    assert_empty(&pool.stats());
}

#[test]
fn a_connect_into_a_black_hole_ends_at_the_connect_time_out() {
    let _watchdog = watchdog();
    let hole = BlackHole::new();
    let pool = tcp().connect_timeout(Duration::from_millis(100)).build().unwrap();
    let error = pool.get_timeout(&hole.name(), Duration::from_secs(3600)).unwrap_err();
    assert_eq!((error.kind(), error.failure()), (ErrorKind::Connect, Some(Failure::Timeout)));
    assert_eq!(error.phase(), Some(Phase::Connect));
    assert!(error.waited() >= Some(Duration::from_millis(90)), "timers count whole milliseconds");
    assert_empty(&pool.stats());
}

#[test]
fn a_caller_who_waits_for_a_black_hole_keeps_the_shorter_deadline() {
    let _watchdog = watchdog();
    let hole = BlackHole::new();
    let pool = tcp().connect_timeout(Duration::from_secs(3)).build().unwrap();
    let error = pool.get_timeout(&hole.name(), Duration::from_millis(50)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert_eq!(pool.stats().connecting(), 1, "the attempt goes on for the next");
    eventually("and ends at its own deadline", || pool.stats().total() == 0);
    assert_empty(&pool.stats());
}

/// What `build` says to these settings.
fn refusal(settings: impl FnOnce(Builder<TcpConnector>) -> Builder<TcpConnector>) -> String {
    let error = settings(tcp()).build().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    error.to_string()
}

#[test]
fn zero_and_absurd_limits_are_refused_by_name() {
    let absurd = usize::MAX;
    for (name, text) in [
        ("max_total(0)", refusal(|it| it.max_total(0))),
        ("max_total(", refusal(|it| it.max_total(absurd))),
        ("max_per_endpoint(0)", refusal(|it| it.max_per_endpoint(0))),
        ("max_per_endpoint(", refusal(|it| it.max_per_endpoint(absurd))),
        ("max_idle(", refusal(|it| it.max_idle(absurd))),
        ("max_idle_per_endpoint(", refusal(|it| it.max_idle_per_endpoint(absurd))),
        ("min_idle(", refusal(|it| it.min_idle(absurd))),
        ("max_connecting(0)", refusal(|it| it.max_connecting(0))),
        ("max_waiting(", refusal(|it| it.max_waiting(absurd))),
        ("max_uses(0)", refusal(|it| it.max_uses(0))),
        ("idle_timeout(0ns)", refusal(|it| it.idle_timeout(Duration::ZERO))),
        ("max_lifetime(0ns)", refusal(|it| it.max_lifetime(Duration::ZERO))),
        ("checkout_timeout(0ns)", refusal(|it| it.checkout_timeout(Duration::ZERO))),
        ("connect_timeout(0ns)", refusal(|it| it.connect_timeout(Duration::ZERO))),
        ("check_timeout(0ns)", refusal(|it| it.check_timeout(Duration::ZERO))),
        ("settle_timeout(0ns)", refusal(|it| it.settle_timeout(Duration::ZERO))),
        ("name", refusal(|it| it.name(""))),
        ("name", refusal(|it| it.name("a\0b"))),
    ] {
        assert!(text.starts_with(name), "{name}: {text}");
    }
}

#[test]
fn time_outs_without_an_end_are_no_trouble() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let ages = Duration::MAX;
    let builder = tcp().checkout_timeout(ages).connect_timeout(ages).idle_timeout(ages);
    let builder = builder.max_lifetime(ages).fair_after(ages).probe_after(ages);
    let pool = builder.build().unwrap();
    ask(&mut pool.get(&server.name()).unwrap()).unwrap();
    ask(&mut pool.get_timeout(&server.name(), ages).unwrap()).unwrap();
    assert_eq!(server.accepted(), 1);
}

#[test]
fn no_time_to_wait_means_now_or_never() {
    let _watchdog = watchdog();
    let lab = Lab::new(|method, _| if method == Method::Open { Act::Hang } else { Act::Go });
    let bench = lab.bench();
    let pool = Pool::builder(lab).build().unwrap();
    let error = pool.get_timeout("a", Duration::ZERO).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    bench.release();
    eventually("what it asked for is there", || pool.stats().idle() == 1);
    assert_eq!(pool.get_timeout("a", Duration::ZERO).unwrap().number, 0);
}

#[test]
fn socket_options_that_make_no_sense_are_refused_when_an_endpoint_is_first_named() {
    let new = TcpConnector::new;
    let bad = [
        ("read_timeout(0ns)", new().read_timeout(Duration::ZERO)),
        ("write_timeout(0ns)", new().write_timeout(Duration::ZERO)),
        ("user_timeout(0ns)", new().user_timeout(Duration::ZERO)),
        ("recv_buffer(0)", new().recv_buffer(0)),
        ("send_buffer(", new().send_buffer(usize::MAX)),
        ("keepalive idle", new().keepalive(TcpKeepalive::default().idle(Duration::ZERO))),
        ("keepalive interval", new().keepalive(TcpKeepalive::default().interval(Duration::MAX))),
        ("keepalive count(0)", new().keepalive(TcpKeepalive::default().count(0))),
    ];
    for (name, connector) in bad {
        let error = Pool::builder(connector).build().unwrap().get("127.0.0.1:1").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{name}");
        assert!(error.to_string().starts_with(name), "{error}");
    }
}

#[test]
fn a_local_address_that_is_not_ours_is_a_local_failure() {
    let _watchdog = watchdog();
    let server = Server::echo();
    // Reserved for documentation: no machine has it. Nothing is sent.
    let foreign: std::net::IpAddr = "192.0.2.1".parse().unwrap();
    let pool = Pool::builder(TcpConnector::new().local_address(foreign)).build().unwrap();
    let error = pool.get(&server.name()).unwrap_err();
    assert_eq!((error.kind(), error.failure()), (ErrorKind::Connect, Some(Failure::Local)));
    assert_empty(&pool.stats());
}

#[test]
fn two_explicit_settings_that_conflict_are_both_named() {
    for (text, small, large) in [
        (refusal(|it| it.max_per_endpoint(6).max_total(5)), "max_per_endpoint(6)", "max_total(5)"),
        (refusal(|it| it.max_idle(6).max_total(5)), "max_idle(6)", "max_total(5)"),
        (refusal(|it| it.min_idle(6).max_idle(5)), "min_idle(6)", "max_idle(5)"),
        (refusal(|it| it.min_idle(6).max_total(5)), "min_idle(6)", "max_total(5)"),
        (
            refusal(|it| it.max_idle_per_endpoint(6).max_per_endpoint(5)),
            "max_idle_per_endpoint(6)",
            "max_per_endpoint(5)",
        ),
    ] {
        assert!(text.contains(small) && text.contains(large), "{text}");
    }
    tcp().max_total(5).build().expect("what was not set follows what was");
    tcp().max_per_endpoint(2000).build().expect("in both directions");
}

/// A login that the server must answer, and messages that end with ".".
struct Framing;

struct Framed {
    socket: Socket,
    is_whole: bool,
}

impl Framed {
    fn request(&mut self) {
        self.is_whole = false;
        self.socket.write_all(b"<?>.").unwrap();
    }

    fn read(&mut self, count: usize) {
        let mut bytes = vec![0; count];
        self.socket.read_exact(&mut bytes).unwrap();
        self.is_whole = bytes.ends_with(b".");
    }
}

impl Connector for Framing {
    type Key = Address;
    type Conn = Framed;

    fn plan(&self, key: &Address) -> Plan {
        Plan::addrs([key.ip().unwrap()]).options(SocketOptions::new().read_timeout(SOON))
    }

    fn open(&self, _: &Address, opening: &mut Opening) -> Result<Framed, BoxError> {
        let mut socket = opening.take_socket()?;
        socket.read_exact(&mut [0; 2])?;
        Ok(Framed { socket, is_whole: true })
    }

    fn socket<'c>(&self, conn: &'c mut Framed) -> Option<&'c mut Socket> {
        Some(&mut conn.socket)
    }

    fn reset(&self, conn: &mut Framed) -> Reset {
        if conn.is_whole { Reset::Ready } else { Reset::Close }
    }
}

#[test]
fn a_server_that_accepts_and_says_nothing_costs_a_login_its_deadline_and_no_more() {
    let _watchdog = watchdog();
    let server = Server::scripted(|peer| peer.stay_silent());
    let builder = Pool::builder(Framing).connect_timeout(Duration::from_millis(80));
    let pool = builder.build().unwrap();
    let error = pool.get_timeout(&server.name(), SOON).unwrap_err();
    assert_eq!((error.kind(), error.failure()), (ErrorKind::Connect, Some(Failure::Timeout)));
    assert_eq!(error.phase(), Some(Phase::Open));
    eventually("its socket is closed", || server.accepted() > 0 && server.open() == 0);
    assert_empty(&pool.stats());
    assert_eq!(pool.stats().abandoned(), 0, "it was interrupted, not abandoned");
}

#[test]
fn a_server_that_never_answers_costs_a_user_the_read_time_out() {
    let _watchdog = watchdog();
    let server = Server::scripted(|peer| peer.stay_silent());
    let connector = TcpConnector::new().read_timeout(Duration::from_millis(30));
    let pool = Pool::builder(connector).build().unwrap();
    ask(&mut pool.get(&server.name()).unwrap()).unwrap_err();
    eventually("the connection is closed", || server.open() == 0);
    assert_empty(&pool.stats());
}

/// A server that sends "<1>." in two halves, the second when it is told to; then it echoes.
fn in_halves(greeting: &'static [u8]) -> (Server, crossbeam_channel::Sender<()>) {
    let (tell, told) = bounded::<()>(8);
    let server = Server::scripted(move |peer| {
        peer.write_all(greeting)?;
        peer.take(4)?;
        peer.write_all(b"<1")?;
        if peer.number() == 0 {
            peer.wait(&told)?;
        }
        peer.write_all(b">.")?;
        peer.echo()
    });
    (server, tell)
}

fn tcp_halves(
    probe_after: Duration,
) -> (Server, crossbeam_channel::Sender<()>, Pool<TcpConnector>) {
    let (server, tell) = in_halves(b"");
    let pool = tcp().probe_after(probe_after).build().unwrap();
    (server, tell, pool)
}

/// Asks, and reads the first half of the answer, or less of it.
fn read_some(conn: &mut PooledConn<TcpConnector>, buffer: &mut [u8]) {
    conn.write_all(b"<?>.").unwrap();
    assert!(conn.read(buffer).unwrap() <= 2);
}

/// Returns once `count` bytes are there that nobody has read.
fn await_unread(conn: &PooledConn<TcpConnector>, count: usize) {
    let flags = rustix::net::RecvFlags::PEEK | rustix::net::RecvFlags::DONTWAIT;
    eventually("the rest is in the kernel", || {
        let mut bytes = [0; 8];
        rustix::net::recv(conn, &mut bytes[..], flags).is_ok_and(|(_, here)| here >= count)
    });
}

#[test]
fn half_an_answer_left_in_the_kernel_closes_the_connection_on_return() {
    let _watchdog = watchdog();
    let (server, tell, pool) = tcp_halves(Duration::from_secs(3600));
    tell.send(()).unwrap();
    let mut conn = pool.get(&server.name()).unwrap();
    read_some(&mut conn, &mut [0; 1]);
    await_unread(&conn, 3);
    drop(conn);
    assert_eq!(pool.stats().closed_for(CloseReason::StrayBytes), 1);
    assert_empty(&pool.stats());
}

#[test]
fn the_rest_of_an_answer_after_a_short_read_closes_the_connection_on_return() {
    let _watchdog = watchdog();
    let (server, tell, pool) = tcp_halves(Duration::from_secs(3600));
    let mut conn = pool.get(&server.name()).unwrap();
    read_some(&mut conn, &mut [0; 64]);
    tell.send(()).unwrap();
    await_unread(&conn, 2);
    drop(conn);
    assert_eq!(pool.stats().closed_for(CloseReason::StrayBytes), 1);
    assert_empty(&pool.stats());
}

#[test]
fn the_rest_of_an_answer_that_comes_while_idle_is_found_before_the_next_checkout() {
    let _watchdog = watchdog();
    let (server, tell, pool) = tcp_halves(Duration::ZERO);
    let mut conn = pool.get(&server.name()).unwrap();
    read_some(&mut conn, &mut [0; 64]);
    drop(conn);
    assert_eq!(pool.stats().idle(), 1, "nothing speaks against it yet");
    tell.send(()).unwrap();
    // Each look takes it out and puts it back, until the bytes are there.
    eventually("it is found out", || {
        drop(pool.try_get(&server.name()).unwrap());
        pool.stats().closed_for(CloseReason::StrayBytes) == 1
    });
    assert!(!PooledConn::is_reused(&pool.get(&server.name()).unwrap()));
}

#[test]
fn what_arrives_between_return_and_an_early_checkout_is_the_documented_gap() {
    let _watchdog = watchdog();
    let (server, tell, pool) = tcp_halves(Duration::from_secs(3600));
    let mut conn = pool.get(&server.name()).unwrap();
    read_some(&mut conn, &mut [0; 64]);
    drop(conn);
    tell.send(()).unwrap();
    let mut next = pool.get(&server.name()).unwrap();
    next.read_exact(&mut [0; 2]).expect("no pool can see what arrives later");
    let page = include_str!("../../src/connector/socket.rs");
    assert!(page.contains("What no pool can see is an answer that arrives later"));
}

#[test]
fn a_connector_that_frames_its_messages_closes_half_read_ones_by_reset() {
    let _watchdog = watchdog();
    let (server, tell) = in_halves(b"OK");
    let builder = Pool::builder(Framing).probe_after(Duration::from_secs(3600));
    let pool = builder.build().unwrap();
    let mut conn = pool.get(&server.name()).unwrap();
    conn.request();
    conn.read(2);
    drop(conn);
    assert_eq!(pool.stats().closed_for(CloseReason::ResetRefused), 1);
    drop(tell);

    let mut conn = pool.get(&server.name()).unwrap();
    conn.request();
    conn.read(4);
    drop(conn);
    assert!(PooledConn::is_reused(&pool.get(&server.name()).unwrap()), "a whole one is fine");
}
