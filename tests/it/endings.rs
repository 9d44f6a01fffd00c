//! How a pool ends, and what it still owes to whom.

use std::time::Duration;

use crossbeam_channel::bounded;
use warmline::{CloseReason, Deadline, ErrorKind, Pool, PooledConn};

use crate::support::faults::BlackHole;
use crate::support::lab::{Act, Lab, Method};
use crate::support::server::Server;
use crate::support::{Diary, SOON, ask, assert_empty, eventually, tcp, watchdog};

const LONG: Duration = Duration::from_secs(3600);

#[test]
fn closing_wakes_everybody_who_waits_at_once() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let pool = tcp().max_per_endpoint(1).build().unwrap();
    let held = pool.get(&server.name()).unwrap();
    std::thread::scope(|scope| {
        let waiting: Vec<_> =
            (0..8).map(|_| scope.spawn(|| pool.get_timeout(&server.name(), LONG))).collect();
        eventually("they wait", || pool.stats().waiting() == 8);
        pool.close();
        for waiting in waiting {
            assert_eq!(waiting.join().unwrap().unwrap_err().kind(), ErrorKind::Closed);
        }
    });
    assert_eq!(pool.stats().in_use(), 1);
    drop(held);
    assert_empty(&pool.stats());
}

#[test]
fn a_closed_pool_closes_idle_ones_now_and_those_in_use_when_they_come_back() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let diary = Diary::default();
    let pool = tcp().observer(diary.clone()).build().unwrap();
    let endpoint = pool.endpoint(&server.name()).unwrap();
    let mut held = endpoint.get().unwrap();
    drop(endpoint.get().unwrap());
    pool.close();
    pool.close();
    assert_eq!((pool.stats().idle(), pool.stats().in_use()), (0, 1));
    eventually("the server sees it", || server.open() == 1);
    assert_eq!(pool.get(&server.name()).unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(endpoint.get().unwrap_err().kind(), ErrorKind::Closed);
    assert!(endpoint.try_get().is_none());
    assert_eq!(pool.endpoint(&server.name()).unwrap_err().kind(), ErrorKind::Closed);
    ask(&mut held).expect("who has one may finish");
    drop(held);
    assert_eq!(diary.reasons(), [CloseReason::PoolClosed; 2]);
    assert_empty(&pool.stats());
    eventually("the server sees it", || server.open() == 0);
}

#[test]
fn a_guard_may_outlive_its_pool() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let diary = Diary::default();
    let pool = tcp().observer(diary.clone()).build().unwrap();
    let mut held = pool.get(&server.name()).unwrap();
    let kept = pool.get(&server.name()).unwrap();
    drop(pool.get(&server.name()).unwrap());
    drop(pool);
    eventually("the idle one is closed", || server.open() == 2);
    ask(&mut held).unwrap();
    assert!(PooledConn::age(&held) > Duration::ZERO);
    let mut kept = PooledConn::detach(kept);
    drop(held);
    eventually("so is the one in use", || server.open() == 1);
    std::io::Write::write_all(&mut kept, b"mine").unwrap();
    assert_eq!(diary.reasons(), [CloseReason::PoolClosed; 2]);
}

#[test]
fn any_handle_keeps_the_pool_and_the_last_one_ends_it() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let pool = Pool::tcp();
    let endpoint = pool.endpoint(&server.name()).unwrap();
    let (other, also) = (pool.clone(), endpoint.clone());
    drop((pool, endpoint, other));
    ask(&mut also.get().unwrap()).unwrap();
    drop(also.pool());
    ask(&mut also.get().unwrap()).unwrap();
    assert_eq!((server.accepted(), server.open()), (1, 1));
    drop(also);
    eventually("it is closed", || server.open() == 0);
}

#[test]
fn the_last_handle_may_go_while_guards_are_out_on_many_threads() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let pool = Pool::tcp();
    let (out, all_out) = bounded(8);
    let (go, gone) = bounded::<()>(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            let (mut conn, out, gone) = (pool.get(&server.name()).unwrap(), out.clone(), &gone);
            scope.spawn(move || {
                out.send(()).unwrap();
                let _pool_is_gone = gone.recv();
                ask(&mut conn).unwrap();
            });
        }
        all_out.iter().take(8).for_each(drop);
        drop(pool);
        drop(go);
    });
    eventually("every connection is closed", || server.open() == 0);
    assert_eq!(server.accepted(), 8);
}

#[test]
fn draining_waits_for_those_in_use() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let pool = Pool::tcp();
    let mut held = pool.get(&server.name()).unwrap();
    std::thread::scope(|scope| {
        let drain = scope.spawn(|| pool.drain(Deadline::after(SOON)));
        eventually("the pool is closed", || {
            pool.get(&server.name()).is_err_and(|error| error.kind() == ErrorKind::Closed)
        });
        assert!(!drain.is_finished());
        ask(&mut held).unwrap();
        drop(held);
        drain.join().unwrap().unwrap();
    });
    assert_empty(&pool.stats());
    eventually("the server sees it", || server.open() == 0);
    pool.drain(Deadline::after(Duration::ZERO)).expect("nothing is left to wait for");
}

#[test]
fn draining_gives_up_at_its_deadline_and_says_how_many_are_out() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let pool = Pool::tcp();
    let held = [pool.get(&server.name()).unwrap(), pool.get(&server.name()).unwrap()];
    let error = pool.drain(Deadline::after(Duration::from_millis(20))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().contains("2 in use"), "{error}");
    drop(held);
    assert_empty(&pool.stats());
    pool.drain(Deadline::after(SOON)).unwrap();
}

#[test]
fn draining_waits_until_every_close_has_run() {
    let _watchdog = watchdog();
    let lab = Lab::new(|method, _| if method == Method::Close { Act::Hang } else { Act::Go });
    let bench = lab.bench();
    let pool = Pool::builder(lab).build().unwrap();
    drop([pool.get("a").unwrap(), pool.get("b").unwrap()]);
    let error = pool.drain(Deadline::after(Duration::from_millis(50))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    bench.release();
    pool.drain(Deadline::after(SOON)).unwrap();
    assert_eq!((bench.alive(), bench.calls(Method::Close)), (0, 2));
}

#[test]
fn draining_does_not_wait_for_a_connect_that_hangs() {
    let _watchdog = watchdog();
    let hole = BlackHole::new();
    let pool = tcp().connect_timeout(LONG).build().unwrap();
    pool.get_timeout(&hole.name(), Duration::from_millis(10)).unwrap_err();
    assert_eq!(pool.stats().connecting(), 1);
    pool.drain(Deadline::after(SOON)).expect("it is called off, hours before its deadline");
    assert_empty(&pool.stats());
}

#[test]
fn what_is_opened_while_the_pool_closes_is_closed_again() {
    let _watchdog = watchdog();
    let lab = Lab::new(|method, _| if method == Method::Open { Act::Hang } else { Act::Go });
    let bench = lab.bench();
    let pool = Pool::builder(lab).build().unwrap();
    bench.watch_over(&pool);
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| pool.get_timeout("a", LONG).map(drop));
        eventually("it is being opened", || bench.calls(Method::Open) == 1);
        pool.close();
        assert_eq!(waits.join().unwrap().unwrap_err().kind(), ErrorKind::Closed);
    });
    bench.release();
    pool.drain(Deadline::after(SOON)).unwrap();
    assert_eq!((bench.born(), bench.alive()), (1, 0));
    assert_empty(&pool.stats());
    bench.let_go();
}

#[test]
fn closing_from_many_threads_in_the_middle_of_everything_loses_nothing() {
    let _watchdog = watchdog();
    for _ in 0..20 {
        let lab = Lab::sound();
        let bench = lab.bench();
        let pool = Pool::builder(lab).max_per_endpoint(3).build().unwrap();
        std::thread::scope(|scope| {
            for number in 0..8 {
                let pool = &pool;
                scope.spawn(move || {
                    for round in 0.. {
                        match pool.get_timeout("a", LONG) {
                            Ok(conn) if round % 7 == number => PooledConn::discard(conn),
                            Ok(conn) => drop(conn),
                            Err(error) => {
                                assert_eq!(error.kind(), ErrorKind::Closed);
                                return;
                            }
                        }
                    }
                });
            }
            eventually("they work", || pool.stats().checkouts() > 200);
            scope.spawn(|| pool.close());
            pool.close();
        });
        pool.drain(Deadline::after(SOON)).unwrap();
        assert_eq!(bench.alive(), 0, "every connection was closed");
        assert_empty(&pool.stats());
    }
}

#[test]
fn a_pool_that_was_never_used_ends_without_having_begun() {
    let _watchdog = watchdog();
    drop(Pool::tcp());
    let pool = Pool::tcp();
    pool.drain(Deadline::after(SOON)).unwrap();
    assert_eq!(pool.get("127.0.0.1:1").unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn dropping_the_last_handle_does_not_wait_for_closes_that_hang() {
    let _watchdog = watchdog();
    // The reaper is at work on expired connections, sooner or later, when the handle goes.
    for _ in 0..5 {
        let lab = Lab::new(|method, _| if method == Method::Close { Act::Hang } else { Act::Go });
        let bench = lab.bench();
        let builder = Pool::builder(lab).max_per_endpoint(100).max_connecting(100);
        let pool = builder.idle_timeout(Duration::from_millis(10)).build().unwrap();
        let endpoint = pool.endpoint("a").unwrap();
        drop(pool);
        endpoint.warm(100, SOON).unwrap();
        while endpoint.stats().idle() == 100 {
            std::thread::yield_now();
        }
        drop(endpoint);
        bench.release();
        eventually("all are closed in the end", || bench.alive() == 0);
    }
}
