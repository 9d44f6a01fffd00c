//! Getting a connection: which one, when, and in what order.

use std::io::{Read, Write};
use std::time::Duration;

use crossbeam_channel::{bounded, unbounded};
use warmline::{CloseReason, Error, ErrorKind, Phase, Pool, PooledConn, Reuse, TcpConnector};

use crate::support::faults::BlackHole;
use crate::support::lab::{Act, Lab, Method};
use crate::support::server::Server;
use crate::support::{SOON, ask, assert_balanced, assert_empty, eventually, tcp, watchdog};

#[test]
fn a_connection_that_came_back_is_reused_and_knows_its_past() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let pool = Pool::tcp();
    let mut conn = pool.get(&server.name()).unwrap();
    assert!(!PooledConn::is_reused(&conn));
    ask(&mut conn).unwrap();
    let exchange = PooledConn::exchange(&mut conn);
    assert_eq!((exchange.written(), exchange.read()), (Some(4), Some(4)));
    let age = PooledConn::age(&conn);
    drop(conn);

    let mut conn = pool.get(&server.name()).unwrap();
    assert!(PooledConn::is_reused(&conn));
    assert!(PooledConn::age(&conn) > age, "it is the same connection, and older");
    let exchange = PooledConn::exchange(&mut conn);
    assert!(exchange.is_reused() && exchange.ended().is_none() && !exchange.is_stale());
    assert_eq!((exchange.written(), exchange.read()), (Some(0), Some(0)), "counted anew");
    assert_eq!(PooledConn::endpoint(&conn).ip(), Some(server.address()));
    ask(&mut conn).unwrap();
    drop(conn);

    assert_eq!(server.accepted(), 1);
    let stats = pool.stats();
    assert_eq!((stats.checkouts(), stats.opened(), stats.idle()), (2, 1, 1));
}

fn order_of_reuse(reuse: Reuse) -> (Vec<usize>, Vec<usize>) {
    let pool = Pool::builder(Lab::sound()).reuse(reuse).build().unwrap();
    let endpoint = pool.endpoint("a").unwrap();
    let held: Vec<_> = (0..3).map(|_| endpoint.get().unwrap()).collect();
    let returned = held.iter().map(|item| item.number).collect();
    held.into_iter().for_each(drop);
    let again: Vec<_> = (0..3).map(|_| endpoint.try_get().unwrap()).collect();
    (returned, again.iter().map(|item| item.number).collect())
}

#[test]
fn the_connection_used_last_goes_out_first_unless_the_oldest_is_asked_for() {
    let _watchdog = watchdog();
    let (mut returned, again) = order_of_reuse(Reuse::Newest);
    returned.reverse();
    assert_eq!(again, returned);
    let (returned, again) = order_of_reuse(Reuse::Oldest);
    assert_eq!(again, returned);
}

#[test]
fn try_get_takes_what_is_idle_and_never_connects() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let pool = Pool::tcp();
    assert!(pool.try_get(&server.name()).unwrap().is_none());
    let endpoint = pool.endpoint(&server.name()).unwrap();
    assert!(endpoint.try_get().is_none());
    assert_eq!((pool.stats().opened(), server.accepted()), (0, 0));
    drop(pool.get(&server.name()).unwrap());
    let held = endpoint.try_get().expect("one is idle");
    assert!(endpoint.try_get().is_none(), "it is out");
    drop(held);
    assert!(pool.try_get(&server.name()).unwrap().is_some());
    server.assert_accepted(1);
}

#[test]
fn under_saturation_callers_are_served_in_the_order_they_came() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let pool = tcp().max_per_endpoint(1).fair_after(Duration::ZERO).build().unwrap();
    let endpoint = pool.endpoint(&server.name()).unwrap();
    let held = endpoint.get().unwrap();
    let (served, order) = unbounded();
    std::thread::scope(|scope| {
        for number in 0..20 {
            let (endpoint, served) = (&endpoint, served.clone());
            scope.spawn(move || {
                let mut conn = endpoint.get_timeout(SOON).unwrap();
                served.send(number).unwrap();
                ask(&mut conn).unwrap();
            });
            eventually("the next in the queue", || endpoint.stats().waiting() == number + 1);
        }
        drop(held);
    });
    assert_eq!(order.try_iter().collect::<Vec<_>>(), (0..20).collect::<Vec<_>>());
    assert_eq!(server.accepted(), 1);
    assert_eq!((pool.stats().idle(), pool.stats().waiting()), (1, 0));
}

#[test]
fn a_caller_too_many_is_turned_away_at_once() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let pool = tcp().max_per_endpoint(1).max_waiting(1).build().unwrap();
    let endpoint = pool.endpoint(&server.name()).unwrap();
    let held = endpoint.get().unwrap();
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| endpoint.get_timeout(SOON).map(drop));
        eventually("one waits", || endpoint.stats().waiting() == 1);
        // With an hour to wait, only a refusal at once lets this test end.
        let error = endpoint.get_timeout(Duration::from_secs(3600)).unwrap_err();
        assert_eq!((error.kind(), error.phase()), (ErrorKind::Saturated, Some(Phase::Queue)));
        assert_eq!(endpoint.stats().refused(), 1);
        drop(held);
        waits.join().unwrap().expect("who waited already is served");
    });
}

#[test]
fn a_caller_that_is_given_a_dead_connection_keeps_its_place_in_a_queue_that_is_full_by_then() {
    let _watchdog = watchdog();
    let ((looks, looked), (go, may_go)) = (bounded(1), bounded(1));
    let lab = Lab::new(move |method, _| match (method, std::thread::current().name()) {
        // The first that it is given is found dead, once the test says so.
        (Method::IsOpen, Some("the caller")) => {
            let _nobody_waits = looks.try_send(());
            may_go.recv().map_or(Act::Go, |()| Act::Fail)
        }
        _ => Act::Go,
    });
    // Told that one is back, it takes it from where idle ones are, which are looked at.
    let builder = Pool::builder(lab).max_per_endpoint(1).max_waiting(1).fair_after(SOON);
    let endpoint = builder.build().unwrap().endpoint("a").unwrap();
    let held = endpoint.get().unwrap();
    let (keep, kept) = bounded::<()>(0);
    std::thread::scope(|scope| {
        let (endpoint, go, keep) = (&endpoint, go, keep); // dropped by a panic as well
        let caller = std::thread::Builder::new().name("the caller".to_owned());
        let caller = caller.spawn_scoped(scope, move || {
            let conn = endpoint.get_timeout(SOON)?;
            let _released = kept.recv();
            Ok::<_, Error>(conn.number)
        });
        eventually("it waits", || endpoint.stats().waiting() == 1);
        drop(held);
        looked.recv_timeout(SOON).expect("it looks at what it was given");
        let next = endpoint.request().unwrap();
        assert_eq!(endpoint.stats().waiting(), 1, "the queue is full");
        go.send(()).unwrap();
        drop(go);
        eventually("another is opened", || endpoint.stats().opened() == 2);
        assert!(next.receiver().is_empty(), "it is not its turn");
        drop(keep);
        assert_eq!(caller.unwrap().join().unwrap().expect("it is not turned away"), 1);
        assert_eq!(next.receiver().recv_timeout(SOON).unwrap().unwrap().number, 1);
    });
    assert_eq!(endpoint.stats().closed_for(CloseReason::NotOpen), 1);
    assert_eq!((endpoint.stats().opened(), endpoint.stats().refused()), (2, 0));
}

#[test]
fn a_checkout_that_times_out_loses_neither_connection_nor_room() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let pool = tcp().max_per_endpoint(2).build().unwrap();
    let endpoint = pool.endpoint(&server.name()).unwrap();
    let held = [endpoint.get().unwrap(), endpoint.get().unwrap()];
    for _ in 0..3 {
        let error = endpoint.get_timeout(Duration::from_millis(5)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert!(error.waited() >= Some(Duration::from_millis(5)));
    }
    assert_eq!((endpoint.stats().waiting(), endpoint.stats().timed_out()), (0, 3));
    drop(held);
    let stats = endpoint.stats();
    assert_eq!((stats.idle(), stats.total()), (2, 2));
    assert_balanced(&stats);
    let _both = [endpoint.try_get().unwrap(), endpoint.try_get().unwrap()];
}

#[test]
fn a_connect_that_nobody_waits_for_any_more_is_kept_for_the_next() {
    let _watchdog = watchdog();
    let lab = Lab::new(|method, _| if method == Method::Open { Act::Hang } else { Act::Go });
    let bench = lab.bench();
    let pool = Pool::builder(lab).build().unwrap();
    let error = pool.get_timeout("a", Duration::from_millis(20)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert_eq!(pool.stats().connecting(), 1);
    bench.release();
    eventually("it becomes idle", || pool.stats().idle() == 1);
    assert!(pool.try_get("a").unwrap().is_some());
}

#[test]
fn a_limit_holds_whatever_the_crowd() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let pool = tcp().max_per_endpoint(4).checkout_timeout(SOON).build().unwrap();
    let endpoint = pool.endpoint(&server.name()).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                for _ in 0..100 {
                    ask(&mut endpoint.get().unwrap()).unwrap();
                    assert!(endpoint.stats().total() <= 4);
                }
            });
        }
    });
    let stats = endpoint.stats();
    assert!(server.accepted() <= 4, "nothing was closed, so this is how many there were at once");
    assert_eq!((stats.checkouts(), stats.in_use(), stats.closed()), (1600, 0, 0));
    assert_balanced(&stats);
}

#[test]
fn one_address_that_hangs_delays_nobody_else() {
    let _watchdog = watchdog();
    let (hole, server) = (BlackHole::new(), Server::echo());
    let pool = tcp().connect_timeout(SOON).max_connecting(4).build().unwrap();
    std::thread::scope(|scope| {
        let stuck: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| pool.get_timeout(&hole.name(), Duration::from_secs(50))))
            .collect();
        eventually("they hang", || pool.stats().connecting() == 4 && pool.stats().waiting() == 8);
        for _ in 0..20 {
            ask(&mut pool.get(&server.name()).unwrap()).unwrap();
        }
        assert_eq!(pool.stats().connecting(), 4, "they hang still");
        pool.close();
        for stuck in stuck {
            assert_eq!(stuck.join().unwrap().unwrap_err().kind(), ErrorKind::Closed);
        }
    });
}

#[test]
fn one_login_that_hangs_does_not_keep_its_endpoint_from_others() {
    let _watchdog = watchdog();
    let lab = Lab::new(|method, before| match (method, before) {
        (Method::Open, 0) => Act::Hang,
        _ => Act::Go,
    });
    let bench = lab.bench();
    let pool = Pool::builder(lab).connect_timeout(SOON).build().unwrap();
    let endpoint = pool.endpoint("a").unwrap();
    std::thread::scope(|scope| {
        // The attempt of the first hangs; that of the second serves both.
        let first = scope.spawn(|| endpoint.get_timeout(SOON).map(drop));
        eventually("it hangs", || bench.calls(Method::Open) == 1);
        drop(endpoint.get_timeout(SOON).unwrap());
        first.join().unwrap().unwrap();
    });
    assert_eq!(endpoint.stats().connecting(), 1);
    bench.release();
}

#[test]
fn at_the_limit_of_the_pool_the_least_recently_used_idle_one_makes_room() {
    let _watchdog = watchdog();
    let servers = [Server::echo(), Server::echo(), Server::echo()];
    let pool = tcp().max_total(2).build().unwrap();
    let [first, second, third] = &servers;
    drop(pool.get(&first.name()).unwrap());
    drop(pool.get(&second.name()).unwrap());
    ask(&mut pool.get(&third.name()).unwrap()).unwrap();
    assert_eq!(pool.stats().closed_for(CloseReason::MadeRoom), 1);
    assert!(pool.try_get(&first.name()).unwrap().is_none(), "the oldest went");
    assert!(pool.try_get(&second.name()).unwrap().is_some());
    eventually("its server notices", || first.open() == 0);
    assert_eq!(pool.stats().total(), 2);
}

#[test]
fn more_endpoints_than_connections_all_make_progress() {
    let _watchdog = watchdog();
    let servers: Vec<_> = (0..6).map(|_| Server::echo()).collect();
    let pool = tcp().max_total(2).checkout_timeout(SOON).build().unwrap();
    std::thread::scope(|scope| {
        for server in &servers {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..10 {
                        ask(&mut pool.get(&server.name()).unwrap()).unwrap();
                        assert!(pool.stats().total() <= 2);
                    }
                });
            }
        }
    });
    let stats = pool.stats();
    assert_eq!((stats.checkouts(), stats.timed_out(), stats.in_use()), (120, 0, 0));
    assert_balanced(&stats);
    pool.close();
    assert_empty(&pool.stats());
}

#[test]
fn warming_opens_ahead_of_need_up_to_the_limits() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let pool = tcp().max_per_endpoint(5).build().unwrap();
    let endpoint = pool.endpoint(&server.name()).unwrap();
    assert_eq!(endpoint.warm(3, SOON).unwrap(), 3);
    assert_eq!((endpoint.stats().idle(), endpoint.stats().connecting()), (3, 0));
    assert_eq!(endpoint.warm(2, SOON).unwrap(), 2, "what is open already counts");
    assert_eq!(endpoint.warm(50, SOON).unwrap(), 5, "more than the limit is the limit");
    drop(endpoint.get().unwrap());
    assert_eq!(endpoint.stats().opened(), 5);
    server.assert_accepted(5);
    pool.close();
    assert_eq!(endpoint.warm(1, SOON).unwrap_err().kind(), ErrorKind::Closed);
}

/// A server that greets whoever connects; the greeting is there before the user is.
fn assert_greeted(pool: &Pool<TcpConnector>, server: &Server) {
    let mut conn = pool.get_timeout(&server.name(), SOON).unwrap();
    let mut greeting = [0; 5];
    conn.read_exact(&mut greeting).unwrap();
    assert_eq!(&greeting, b"hello");
    assert_eq!(pool.stats().closed_for(CloseReason::StrayBytes), 0);
    server.assert_accepted(1);
}

fn greeting() -> Server {
    Server::scripted(|peer| {
        peer.write_all(b"hello")?;
        peer.echo()
    })
}

#[test]
fn the_greeting_of_a_server_that_speaks_first_is_not_taken_for_stray_bytes() {
    let _watchdog = watchdog();
    let server = greeting();
    let pool = tcp().probe_after(Duration::ZERO).build().unwrap();
    assert_greeted(&pool, &server);
}

#[test]
fn a_connection_opened_ahead_of_need_keeps_its_greeting_for_its_first_user() {
    let _watchdog = watchdog();
    let server = greeting();
    let pool = tcp().probe_after(Duration::from_millis(20)).build().unwrap();
    assert_eq!(pool.endpoint(&server.name()).unwrap().warm(1, SOON).unwrap(), 1);
    // Longer than what makes the pool look at it once more.
    std::thread::sleep(Duration::from_millis(60));
    assert_greeted(&pool, &server);
}

#[test]
fn warming_waits_for_room_that_others_have() {
    let _watchdog = watchdog();
    let (a, b) = (Server::echo(), Server::echo());
    let pool = tcp().max_total(1).build().unwrap();
    let held = pool.get(&a.name()).unwrap();
    let endpoint = pool.endpoint(&b.name()).unwrap();
    std::thread::scope(|scope| {
        let warming = scope.spawn(|| endpoint.warm(1, SOON));
        assert_eq!(endpoint.stats().connecting(), 0);
        PooledConn::discard(held);
        assert_eq!(warming.join().unwrap().unwrap(), 1);
    });
    let error = pool.endpoint(&a.name()).unwrap().warm(1, Duration::from_millis(5)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "the room is taken: {error}");
}
