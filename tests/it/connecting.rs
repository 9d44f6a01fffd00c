//! Sockets are connected many at once, each to its own deadline, and can be called off.

use std::net::IpAddr;
use std::time::Duration;

use warmline::{
    Address, BoxError, CloseReason, Connector, Deadline, ErrorKind, Failure, Opening, Phase, Plan,
    Pool, PooledConn, Socket, SocketOptions, TcpConnector, UnixConnector,
};

use crate::support::faults::{BlackHole, Refusing, UnixHole};
use crate::support::server::{Crowd, Peer, Server};
use crate::support::{SOON, ask, assert_balanced, assert_empty, eventually, tcp, watchdog};

const LONG: Duration = Duration::from_secs(3600);

#[test]
fn hundreds_connect_at_once_while_hundreds_of_others_hang() {
    let _watchdog = watchdog();
    let (hole, crowd) = (BlackHole::new(), Crowd::new());
    let builder = tcp().max_total(400).max_per_endpoint(200).max_idle(400).max_connecting(400);
    let pool = builder.connect_timeout(LONG).build().unwrap();
    let (good, bad) = (pool.endpoint(&crowd.name()).unwrap(), pool.endpoint(&hole.name()).unwrap());
    std::thread::scope(|scope| {
        let hang = scope.spawn(|| bad.warm(200, LONG));
        eventually("they hang", || bad.stats().connecting() == 200);
        assert_eq!(good.warm(200, SOON).unwrap(), 200);
        assert_eq!((bad.stats().connecting(), bad.stats().connects_failed()), (200, 0));
        pool.close();
        assert_eq!(hang.join().unwrap().unwrap_err().kind(), ErrorKind::Closed);
    });
    pool.drain(Deadline::after(SOON)).unwrap();
    assert_empty(&pool.stats());
    assert_eq!(hole.besieged_by().unwrap_or_default(), 0);
}

#[test]
fn a_crowd_of_callers_is_served_while_others_wait_for_what_hangs() {
    let _watchdog = watchdog();
    let (hole, server) = (BlackHole::new(), Server::echo());
    let builder = tcp().max_per_endpoint(100).max_connecting(64).connect_timeout(LONG);
    let pool = builder.build().unwrap();
    std::thread::scope(|scope| {
        let hang: Vec<_> =
            (0..60).map(|_| scope.spawn(|| pool.get_timeout(&hole.name(), LONG))).collect();
        eventually("they hang", || pool.stats().connecting() == 60);
        let served: Vec<_> =
            (0..100).map(|_| scope.spawn(|| pool.get_timeout(&server.name(), SOON))).collect();
        let mut held: Vec<_> =
            served.into_iter().map(|thread| thread.join().unwrap().unwrap()).collect();
        held.iter_mut().for_each(|conn| ask(conn).unwrap());
        assert_eq!((pool.stats().in_use(), pool.stats().connecting()), (100, 60));
        pool.close();
        for thread in hang {
            assert_eq!(thread.join().unwrap().unwrap_err().kind(), ErrorKind::Closed);
        }
    });
    pool.drain(Deadline::after(SOON)).unwrap();
    assert_empty(&pool.stats());
}

#[test]
fn an_endpoint_that_hangs_leaves_room_to_connect_for_others_however_much_it_may_have() {
    let _watchdog = watchdog();
    let (hole, server) = (BlackHole::new(), Server::echo());
    let builder = tcp().max_per_endpoint(100).max_connecting(100).connect_timeout(LONG);
    let pool = builder.build().unwrap();
    std::thread::scope(|scope| {
        let hangs = pool.endpoint(&hole.name()).unwrap();
        scope.spawn(move || hangs.warm(100, LONG).unwrap_err());
        eventually("they hang", || pool.stats().connecting() == 100);
        let served = pool.get_timeout(&server.name(), SOON);
        pool.close();
        ask(&mut served.unwrap()).unwrap();
    });
}

#[test]
fn each_of_many_that_hang_ends_at_its_deadline_and_says_so() {
    let _watchdog = watchdog();
    let holes = [BlackHole::new(), BlackHole::new()];
    let builder = tcp().max_per_endpoint(60).max_connecting(60);
    let pool = builder.connect_timeout(Duration::from_millis(200)).build().unwrap();
    std::thread::scope(|scope| {
        for number in 0..60 {
            let (pool, hole) = (&pool, &holes[number % 2]);
            scope.spawn(move || {
                let error = pool.get_timeout(&hole.name(), LONG).unwrap_err();
                let what = (error.kind(), error.failure(), error.phase());
                let expected = (ErrorKind::Connect, Some(Failure::Timeout), Some(Phase::Connect));
                assert_eq!(what, expected);
                assert!(error.to_string().contains("no answer by the deadline"), "{error}");
            });
        }
    });
    eventually("none is left", || pool.stats().connecting() == 0);
    assert_empty(&pool.stats());
    assert_eq!(pool.stats().abandoned(), 0, "no thread hangs on them");
    assert_eq!(holes.iter().filter_map(BlackHole::besieged_by).sum::<usize>(), 0);
}

#[test]
fn a_connect_that_outlives_its_caller_becomes_idle() {
    let _watchdog = watchdog();
    let hole = BlackHole::new();
    let pool = tcp().connect_timeout(LONG).build().unwrap();
    let error = pool.get_timeout(&hole.name(), Duration::from_millis(30)).unwrap_err();
    assert_eq!((error.kind(), pool.stats().connecting()), (ErrorKind::Timeout, 1));
    let _crowd = hole.open();
    // When the system tries again, after a second or three.
    eventually("it becomes idle", || pool.stats().idle() == 1);
    assert!(pool.try_get(&hole.name()).unwrap().is_some());
    assert_eq!((pool.stats().opened(), pool.stats().closed()), (1, 0));
}

#[test]
fn closing_the_pool_calls_off_what_is_being_connected() {
    let _watchdog = watchdog();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let (hole, _unix_hole) = (BlackHole::new(), UnixHole::new(&path));
    let remote = tcp().connect_timeout(LONG).build().unwrap();
    let local = Pool::builder(UnixConnector::new()).connect_timeout(LONG).build().unwrap();
    std::thread::scope(|scope| {
        let waiting: Vec<_> = (0..20)
            .map(|n| {
                let (remote, local, hole, path) = (&remote, &local, &hole, &path);
                scope.spawn(move || match n % 2 {
                    0 => remote.get_timeout(&hole.name(), LONG).map(drop),
                    _ => local.get_timeout(path, LONG).map(drop),
                })
            })
            .collect();
        eventually("all hang", || {
            remote.stats().connecting() == 10 && local.stats().connecting() == 10
        });
        remote.close();
        local.close();
        for thread in waiting {
            assert_eq!(thread.join().unwrap().unwrap_err().kind(), ErrorKind::Closed);
        }
    });
    remote.drain(Deadline::after(SOON)).unwrap();
    local.drain(Deadline::after(SOON)).unwrap();
    assert_empty(&remote.stats());
    assert_empty(&local.stats());
    assert_eq!(remote.stats().abandoned(), 0);
    assert_eq!(hole.besieged_by().unwrap_or_default(), 0, "no socket is left behind");
}

#[test]
fn a_unix_listener_whose_backlog_is_full_is_asked_again_until_there_is_room() {
    let _watchdog = watchdog();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let hole = UnixHole::new(&path);
    let pool = Pool::builder(UnixConnector::new()).connect_timeout(LONG).build().unwrap();
    std::thread::scope(|scope| {
        let waits: Vec<_> =
            (0..5).map(|_| scope.spawn(|| pool.get_timeout(&path, SOON).map(drop))).collect();
        eventually("all wait", || pool.stats().connecting() == 5);
        let crowd = hole.open();
        for thread in waits {
            thread.join().unwrap().unwrap();
        }
        eventually("whatever was begun is there", || pool.stats().connecting() == 0);
        assert_eq!(pool.stats().connects_failed(), 0);
        drop(crowd);
    });
    assert_balanced(&pool.stats());
}

#[test]
fn a_unix_listener_whose_backlog_stays_full_is_named_as_the_cause() {
    let _watchdog = watchdog();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let _hole = UnixHole::new(&path);
    let builder = Pool::builder(UnixConnector::new()).connect_timeout(Duration::from_millis(60));
    let pool = builder.build().unwrap();
    let error = pool.get_timeout(&path, LONG).unwrap_err();
    assert_eq!((error.kind(), error.failure()), (ErrorKind::Connect, Some(Failure::Timeout)));
    let text = error.to_string();
    assert!(text.contains("the listener's backlog was full until the deadline"), "{text}");
    assert_empty(&pool.stats());
}

#[test]
fn a_server_that_resets_as_soon_as_it_accepts_costs_an_error_and_nothing_else() {
    let _watchdog = watchdog();
    let server = Server::scripted(Peer::reset);
    let pool = tcp().build().unwrap();
    for _ in 0..30 {
        match pool.get_timeout(&server.name(), SOON) {
            Ok(mut conn) => drop(ask(&mut conn).unwrap_err()),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Connect);
                assert!(error.to_string().to_lowercase().contains("reset"), "{error}");
            }
        }
        assert_balanced(&pool.stats());
    }
    eventually("nothing is left", || pool.stats().total() == 0);
    assert_empty(&pool.stats());
}

#[test]
fn a_refused_connection_names_the_cause_and_the_endpoint() {
    let _watchdog = watchdog();
    let refusing = Refusing::new();
    let text = tcp().build().unwrap().get(&refusing.name()).unwrap_err().to_string();
    assert!(text.contains("Connection refused") && text.contains(&refusing.name()), "{text}");
}

/// Connects from an address that depends on where to: to one server from none of ours.
struct From(Address);

impl Connector for From {
    type Key = Address;
    type Conn = Socket;

    fn plan(&self, key: &Address) -> Plan {
        // Reserved for documentation: no machine has it. Nothing is sent.
        let foreign: Option<IpAddr> = (*key == self.0).then(|| [192, 0, 2, 1].into());
        Plan::addrs([key.ip().unwrap()]).options(SocketOptions::new().local_address(foreign))
    }

    fn open(&self, _: &Address, opening: &mut Opening) -> Result<Socket, BoxError> {
        opening.take_socket()
    }

    fn socket<'c>(&self, conn: &'c mut Socket) -> Option<&'c mut Socket> {
        Some(conn)
    }
}

#[test]
fn a_local_address_that_is_not_ours_is_said_and_costs_other_endpoints_nothing() {
    let _watchdog = watchdog();
    let (good, bad) = (Server::echo(), Server::echo());
    let pool = Pool::builder(From(bad.address().try_into().unwrap())).build().unwrap();
    let mut held: Vec<_> = (0..5).map(|_| pool.get(&good.name()).unwrap()).collect();
    held.iter_mut().for_each(|conn| ask(conn).unwrap());
    drop(held);
    let error = pool.get_timeout(&bad.name(), SOON).unwrap_err();
    assert_eq!((error.kind(), error.failure()), (ErrorKind::Connect, Some(Failure::Local)));
    assert!(error.to_string().contains("Cannot assign requested address"), "{error}");
    // Nothing that could be closed here would help.
    let stats = pool.endpoint(&good.name()).unwrap().stats();
    assert_eq!((stats.idle(), stats.closed_for(CloseReason::MadeRoom)), (5, 0));
}

#[test]
fn a_local_address_of_the_other_family_is_an_error_and_not_the_end_of_the_loop() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let v6: IpAddr = std::net::Ipv6Addr::LOCALHOST.into();
    let pool = Pool::builder(TcpConnector::new().local_address(v6)).build().unwrap();
    let error = pool.get_timeout(&server.name(), SOON).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect, "{error}");
    assert_empty(&pool.stats());
}

#[test]
fn a_connection_that_came_by_the_loop_blocks_like_any_other() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let pool = tcp().build().unwrap();
    let conn = pool.get(&server.name()).unwrap();
    assert!(!socket2::SockRef::from(&conn).nonblocking().unwrap());
    assert!(!PooledConn::is_reused(&conn));
}
