//! Giving a connection back: who gets it next, and what is never given to anybody.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use crossbeam_channel::bounded;
use warmline::{
    Address, BoxError, CloseReason, Connector, Opening, Plan, Pool, PooledConn, Reset, Socket,
    TcpConnector,
};

use crate::support::lab::{Act, Lab, Method};
use crate::support::server::Server;
use crate::support::{Diary, SOON, ask, assert_balanced, eventually, tcp, watchdog};

/// What becomes of a connection to an echo server after `usage`.
fn fate(usage: impl FnOnce(PooledConn<TcpConnector>)) -> Vec<CloseReason> {
    let server = Server::echo();
    let diary = Diary::default();
    let pool = tcp().observer(diary.clone()).build().unwrap();
    usage(pool.get(&server.name()).unwrap());
    let stats = pool.stats();
    assert_eq!(stats.idle() + usize::try_from(stats.closed()).unwrap(), 1, "{stats}");
    let reasons = diary.reasons();
    for &reason in &reasons {
        assert_eq!(stats.closed_for(reason), 1);
        eventually("the server sees its end", || server.open() == 0);
    }
    ask(&mut pool.get(&server.name()).unwrap()).unwrap();
    reasons
}

#[test]
fn a_request_without_its_answer_is_not_left_for_the_next_user() {
    let _watchdog = watchdog();
    let fate = fate(|mut conn| conn.write_all(b"ping").unwrap());
    assert_eq!(fate, [CloseReason::Unfinished]);
}

#[test]
fn an_exchange_that_ended_leaves_the_connection_open() {
    let _watchdog = watchdog();
    assert_eq!(fate(|mut conn| ask(&mut conn).unwrap()), []);
    assert_eq!(fate(drop), [], "as does none at all");
}

#[test]
fn a_connection_whose_read_or_write_failed_is_closed() {
    let _watchdog = watchdog();
    let fate = fate(|mut conn| {
        conn.set_read_timeout(Duration::from_millis(5)).unwrap();
        conn.read_exact(&mut [0]).unwrap_err();
    });
    assert_eq!(fate, [CloseReason::Failed], "a time-out counts: the answer may still come");
}

#[test]
fn a_connection_that_its_user_shut_down_is_closed() {
    let _watchdog = watchdog();
    let fate = fate(|mut conn| conn.shutdown(Shutdown::Write).unwrap());
    assert_eq!(fate, [CloseReason::Discarded]);
}

#[test]
fn a_discarded_connection_is_closed() {
    let _watchdog = watchdog();
    assert_eq!(fate(PooledConn::discard), [CloseReason::Discarded]);
}

#[test]
fn a_panic_while_a_connection_is_held_closes_it() {
    let _watchdog = watchdog();
    let fate = fate(|conn| {
        let caught = catch_unwind(AssertUnwindSafe(move || {
            let _held = conn;
            std::panic::panic_any("in the middle of an exchange");
        }));
        caught.unwrap_err();
    });
    assert_eq!(fate, [CloseReason::Panicked]);
}

#[test]
fn a_layer_that_knows_the_message_has_ended_may_say_so() {
    let _watchdog = watchdog();
    // Written last, and complete: a farewell that has no answer, say.
    let fate = fate(|mut conn| {
        ask(&mut conn).unwrap();
        conn.set_complete();
    });
    assert_eq!(fate, []);
}

#[test]
fn a_peer_that_closed_while_a_connection_was_held_is_noticed_on_return() {
    let _watchdog = watchdog();
    let server = Server::scripted(|peer| peer.take(4).map(drop));
    let diary = Diary::default();
    let pool = tcp().observer(diary.clone()).build().unwrap();
    let mut conn = pool.get(&server.name()).unwrap();
    conn.write_all(b"ping").unwrap();
    assert_eq!(conn.read(&mut [0; 4]).unwrap(), 0);
    drop(conn);
    assert_eq!(diary.reasons(), [CloseReason::PeerClosed]);
}

#[test]
fn bytes_nobody_asked_for_close_the_connection_on_return() {
    let _watchdog = watchdog();
    let server = Server::scripted(|peer| {
        peer.take(4)?;
        peer.write_all(b"pingand more")?;
        peer.stay_silent()
    });
    let diary = Diary::default();
    let pool = tcp().observer(diary.clone()).build().unwrap();
    let mut conn = pool.get(&server.name()).unwrap();
    ask(&mut conn).unwrap();
    drop(conn);
    assert_eq!(diary.reasons(), [CloseReason::StrayBytes]);
    assert_eq!(pool.stats().total(), 0);
}

#[test]
fn what_was_done_through_a_borrowed_descriptor_counts() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let diary = Diary::default();
    let pool = tcp().observer(diary.clone()).build().unwrap();
    let conn = pool.get(&server.name()).unwrap();
    rustix::net::send(&conn, b"ping", rustix::net::SendFlags::empty()).unwrap();
    let mut byte = [0; 1];
    rustix::net::recv(&conn, &mut byte[..], rustix::net::RecvFlags::PEEK).unwrap();
    drop(conn);
    assert_eq!(diary.reasons(), [CloseReason::StrayBytes], "an answer is there that none read");
}

#[test]
fn protocols_without_answers_may_be_one_way() {
    let _watchdog = watchdog();
    let server = Server::scripted(|peer| peer.stay_silent());
    let pool = Pool::builder(TcpConnector::new().one_way(true)).build().unwrap();
    for _ in 0..5 {
        pool.get(&server.name()).unwrap().write_all(b"measured: 5\n").unwrap();
    }
    assert_eq!((pool.stats().idle(), pool.stats().closed()), (1, 0));
    server.assert_accepted(1);
}

#[test]
fn options_that_a_user_changed_are_put_back() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let connector = TcpConnector::new().read_timeout(Duration::from_secs(7)).write_timeout(None);
    let pool = Pool::builder(connector).build().unwrap();
    let mut conn = pool.get(&server.name()).unwrap();
    conn.set_read_timeout(None).unwrap();
    conn.set_write_timeout(Duration::from_millis(20)).unwrap();
    conn.set_nodelay(false).unwrap();
    assert!(!rustix::net::sockopt::tcp_nodelay(&conn).unwrap());
    drop(conn);
    let conn = pool.get(&server.name()).unwrap();
    assert!(PooledConn::is_reused(&conn));
    let socket = socket2::SockRef::from(&conn);
    assert_eq!(socket.read_timeout().unwrap(), Some(Duration::from_secs(7)));
    assert_eq!(socket.write_timeout().unwrap(), None);
    assert!(socket.tcp_nodelay().unwrap());
}

#[test]
fn detaching_frees_the_room_at_once_and_keeps_the_connection() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let pool = tcp().max_per_endpoint(1).build().unwrap();
    let mut kept = PooledConn::detach(pool.get(&server.name()).unwrap());
    let stats = pool.stats();
    assert_eq!((stats.total(), stats.detached(), stats.closed()), (0, 1, 0));
    ask(&mut pool.get(&server.name()).unwrap()).unwrap();
    pool.close();
    kept.write_all(b"pong").unwrap();
    kept.read_exact(&mut [0; 4]).unwrap();
    assert_balanced(&pool.stats());
}

#[test]
fn freed_room_goes_to_whoever_waits_whatever_freed_it() {
    let _watchdog = watchdog();
    type Free = fn(PooledConn<TcpConnector>);
    let ways: [(&str, Free); 4] = [
        ("return", drop),
        ("discard", PooledConn::discard),
        ("detach", |conn| drop(PooledConn::detach(conn))),
        ("unfinished", |mut conn| conn.write_all(b"x").unwrap()),
    ];
    let server = Server::echo();
    for (way, free) in ways {
        let pool = tcp().max_per_endpoint(1).build().unwrap();
        let endpoint = pool.endpoint(&server.name()).unwrap();
        let held = endpoint.get().unwrap();
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| endpoint.get_timeout(SOON).map(|mut conn| ask(&mut conn)));
            eventually("one waits", || endpoint.stats().waiting() == 1);
            free(held);
            waits.join().unwrap().expect(way).expect(way);
        });
        assert_balanced(&pool.stats());
    }
}

#[test]
fn a_connection_is_used_as_often_as_allowed_and_no_more() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let diary = Diary::default();
    let pool = tcp().max_uses(3).observer(diary.clone()).build().unwrap();
    for _ in 0..6 {
        ask(&mut pool.get(&server.name()).unwrap()).unwrap();
    }
    assert_eq!(server.accepted(), 2);
    assert_eq!(diary.reasons(), [CloseReason::MaxUses, CloseReason::MaxUses]);
}

#[test]
fn more_idle_than_allowed_are_closed() {
    let _watchdog = watchdog();
    let (one, two) = (Server::echo(), Server::echo());
    let pool = tcp().max_idle(3).max_idle_per_endpoint(2).build().unwrap();
    let held: Vec<_> = (0..4).map(|_| pool.get(&one.name()).unwrap()).collect();
    drop(held);
    assert_eq!(pool.endpoint(&one.name()).unwrap().stats().idle(), 2);
    let held: Vec<_> = (0..2).map(|_| pool.get(&two.name()).unwrap()).collect();
    drop(held);
    let stats = pool.stats();
    assert_eq!((stats.idle(), stats.closed_for(CloseReason::Surplus)), (3, 3));
    assert_eq!(pool.endpoint(&two.name()).unwrap().stats().idle(), 2, "the older ones went");
}

#[test]
fn a_return_never_waits_for_a_slow_close() {
    let _watchdog = watchdog();
    let lab = Lab::new(|method, _| if method == Method::Close { Act::Hang } else { Act::Go });
    let bench = lab.bench();
    let pool = Pool::builder(lab).build().unwrap();
    let (done, is_done) = bounded(1);
    PooledConn::discard(pool.get("a").unwrap());
    done.send(()).unwrap();
    eventually("it is being closed", || bench.calls(Method::Close) == 1);
    assert!(is_done.try_recv().is_ok(), "the discard came back while the close hangs");
    assert_eq!(pool.stats().total(), 0, "and its room is free");
    drop(pool.get("a").unwrap());
    bench.release();
}

/// Judges connections by what its socket counted.
struct Counting;

impl Connector for Counting {
    type Key = Address;
    type Conn = Socket;

    fn plan(&self, key: &Address) -> Plan {
        Plan::addrs([key.ip().unwrap()])
    }

    fn open(&self, _: &Address, opening: &mut Opening) -> Result<Socket, BoxError> {
        opening.take_socket()
    }

    fn socket<'c>(&self, conn: &'c mut Socket) -> Option<&'c mut Socket> {
        Some(conn)
    }

    fn reset(&self, conn: &mut Socket) -> Reset {
        if conn.bytes_read() == 4 { Reset::Close } else { Reset::Ready }
    }
}

#[test]
fn what_a_socket_counted_since_its_checkout_is_there_for_reset_to_judge_by() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let pool = Pool::builder(Counting).build().unwrap();
    ask(&mut pool.get(&server.name()).unwrap()).unwrap();
    assert_eq!(pool.stats().closed_for(CloseReason::ResetRefused), 1);
}
