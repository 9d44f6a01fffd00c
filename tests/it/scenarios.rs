//! What befalls a pool in its life, from the trouble that users of other pools have had: capacity,
//! and waiting for it. Each has a beginning, a fault, and what must hold whatever comes.

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_channel::bounded;
use warmline::{
    BoxError, CloseReason, Connector, Deadline, ErrorKind, Failure, Opening, Phase, Pool,
    PooledConn,
};

use crate::support::lab::{Act, Lab, Method};
use crate::support::server::Server;
use crate::support::{SOON, ask, assert_balanced, assert_empty, eventually, tcp, watchdog};

const LONG: Duration = Duration::from_secs(3600);

/// Connections that are numbers, each another.
#[derive(Default)]
struct Numbers(AtomicUsize);

impl Connector for Numbers {
    type Key = String;
    type Conn = usize;

    fn open(&self, _: &String, _: &mut Opening) -> Result<usize, BoxError> {
        Ok(self.0.fetch_add(1, Ordering::SeqCst))
    }
}

#[test]
fn twenty_callers_with_room_for_four_are_all_served_by_exactly_four() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let pool = tcp().max_per_endpoint(4).build().unwrap();
    let endpoint = pool.endpoint(&server.name()).unwrap();
    let (keep, kept) = bounded::<()>(0);
    std::thread::scope(|scope| {
        for _ in 0..20 {
            let (endpoint, kept) = (&endpoint, kept.clone());
            scope.spawn(move || {
                let mut conn = endpoint.get_timeout(SOON).unwrap();
                let _released = kept.recv();
                ask(&mut conn).unwrap();
            });
        }
        eventually("four have one, and sixteen wait", || {
            (endpoint.stats().in_use(), endpoint.stats().waiting()) == (4, 16)
        });
        server.assert_accepted(4);
        drop(keep);
    });
    let stats = endpoint.stats();
    assert_eq!((stats.checkouts(), stats.opened(), stats.idle()), (20, 4, 4));
    assert_eq!((stats.closed(), stats.timed_out(), server.accepted()), (0, 0, 4));
}

#[test]
fn no_connection_is_ever_with_two_threads_at_once() {
    const THREADS: usize = 50;
    const ROUNDS: usize = 300;
    let _watchdog = watchdog();
    let pool = Pool::builder(Numbers::default()).max_per_endpoint(8).build().unwrap();
    let endpoint = pool.endpoint("a").unwrap();
    let taken: Vec<_> = (0..THREADS * ROUNDS).map(|_| AtomicBool::new(false)).collect();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (endpoint, taken) = (&endpoint, &taken);
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    let conn = endpoint.get_timeout(SOON).unwrap();
                    let is_taken = taken.get(*conn).unwrap();
                    assert!(!is_taken.swap(true, Ordering::SeqCst), "{} is out", *conn);
                    std::thread::yield_now();
                    assert!(is_taken.swap(false, Ordering::SeqCst), "{} was out", *conn);
                    if (thread + round) % 50 == 0 {
                        PooledConn::discard(conn);
                    }
                }
            });
        }
    });
    assert_eq!(endpoint.stats().checkouts(), (THREADS * ROUNDS) as u64);
    assert_balanced(&endpoint.stats());
}

#[test]
fn a_connection_that_its_user_forgot_is_seen_in_the_counts_and_keeps_no_pool_from_its_end() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let pool = tcp().max_per_endpoint(2).build().unwrap();
    let endpoint = pool.endpoint(&server.name()).unwrap();
    std::mem::forget(endpoint.get().unwrap());
    for _ in 0..3 {
        ask(&mut endpoint.get().unwrap()).expect("there is room for another");
    }
    let held = endpoint.get().unwrap();
    let error = endpoint.get_timeout(Duration::from_millis(10)).unwrap_err();
    assert!(error.to_string().contains("2/2: 2 in use"), "{error}");
    drop(held);
    let error = pool.drain(Deadline::after(Duration::from_millis(10))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().contains("1 in use"), "{error}");
    assert_eq!((pool.stats().idle(), pool.stats().in_use()), (0, 1));
    drop((pool, endpoint)); // does not wait for it
    eventually("the server has nothing but that", || server.open() == 1);
}

#[test]
fn a_thread_that_panics_with_the_only_connection_leaves_its_room_to_who_waits() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let pool = tcp().max_per_endpoint(1).build().unwrap();
    let endpoint = pool.endpoint(&server.name()).unwrap();
    let mut held = endpoint.get().unwrap();
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| {
            let mut conn = endpoint.get_timeout(SOON)?;
            assert!(!PooledConn::is_reused(&conn), "the other is in the middle of an exchange");
            ask(&mut conn)
        });
        eventually("one waits", || endpoint.stats().waiting() == 1);
        let panics = scope.spawn(move || {
            held.write_all(b"pi").unwrap();
            std::panic::panic_any("in the middle of an exchange");
        });
        panics.join().unwrap_err();
        waits.join().unwrap().unwrap();
    });
    assert_eq!(endpoint.stats().closed_for(CloseReason::Panicked), 1);
    assert_eq!((endpoint.stats().idle(), server.accepted()), (1, 2));
}

#[test]
fn what_is_kept_ready_is_ready_again_after_an_eviction() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let pool = tcp().min_idle(5).build().unwrap();
    let endpoint = pool.endpoint(&server.name()).unwrap();
    for generation in 1..=4 {
        eventually("five are ready, all of them new", || {
            let stats = endpoint.stats();
            (stats.idle(), stats.connecting(), stats.opened()) == (5, 0, 5 * generation)
        });
        endpoint.evict();
    }
    eventually("the old ones are gone", || server.open() == 5 && server.accepted() == 25);
    let stats = endpoint.stats();
    assert_eq!((stats.closed_for(CloseReason::Evicted), stats.checkouts()), (20, 0));
    assert_balanced(&stats);
}

#[test]
fn checkouts_and_evictions_at_the_same_time_neither_fail_nor_open_more_than_allowed() {
    let _watchdog = watchdog();
    let pool = Pool::builder(Numbers::default()).max_per_endpoint(2).build().unwrap();
    let endpoint = pool.endpoint("a").unwrap();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..3_000 {
                    drop(endpoint.get_timeout(SOON).unwrap());
                    endpoint.evict();
                    assert!(endpoint.stats().total() <= 2, "{}", endpoint.stats());
                }
            });
        }
    });
    assert_eq!((endpoint.stats().checkouts(), endpoint.stats().connects_failed()), (6_000, 0));
    assert_balanced(&endpoint.stats());
    pool.drain(Deadline::after(SOON)).unwrap();
    assert_empty(&pool.stats());
}

#[test]
fn no_more_connections_are_ever_opened_than_there_are_callers() {
    let _watchdog = watchdog();
    let pool = Pool::builder(Numbers::default()).max_per_endpoint(32).build().unwrap();
    let endpoint = pool.endpoint("a").unwrap();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..2_000 {
                    drop(endpoint.get_timeout(SOON).unwrap());
                }
            });
        }
    });
    assert_eq!((endpoint.stats().checkouts(), endpoint.stats().closed()), (16_000, 0));
    eventually("nothing is under way", || endpoint.stats().connecting() == 0);
    assert!(endpoint.stats().opened() <= 8, "{}", endpoint.stats());
}

#[test]
fn while_nothing_can_be_opened_who_waits_gets_what_comes_back() {
    let _watchdog = watchdog();
    let lab = Lab::new(|method, before| match (method, before) {
        (Method::Open, 1..) => Act::Fail,
        _ => Act::Go,
    });
    let pool = Pool::builder(lab).build().unwrap();
    let endpoint = pool.endpoint("a").unwrap();
    let held = endpoint.get().unwrap();
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| endpoint.get_timeout(SOON).map(|conn| conn.number));
        eventually("attempts fail", || endpoint.stats().connects_failed() >= 2);
        assert_eq!(endpoint.stats().waiting(), 1, "which is no reason to give up");
        drop(held);
        assert_eq!(waits.join().unwrap().unwrap(), 0);
    });
    assert_eq!((endpoint.stats().timed_out(), endpoint.stats().refused()), (0, 0));
}

#[test]
fn a_crowd_that_waits_for_one_server_makes_nobody_wait_for_another() {
    let _watchdog = watchdog();
    let (crowded, quiet) = (Server::echo(), Server::echo());
    let pool = tcp().max_per_endpoint(2).build().unwrap();
    let [crowded, quiet] = [&crowded, &quiet].map(|it| pool.endpoint(&it.name()).unwrap());
    drop(quiet.get().unwrap());
    let held = [crowded.get().unwrap(), crowded.get().unwrap()];
    let waiting: Vec<_> = (0..200).map(|_| crowded.request().unwrap()).collect();
    for _ in 0..100 {
        let mut conn = quiet.try_get().expect("what is idle is to be had at once");
        ask(&mut conn).unwrap();
    }
    assert_eq!((crowded.stats().waiting(), quiet.stats().opened()), (200, 1));
    drop((held, waiting));
    assert_eq!((crowded.stats().waiting(), crowded.stats().idle()), (0, 2));
}

#[test]
fn callers_who_each_hold_one_and_want_another_are_told_in_time_and_told_why() {
    const CALLERS: usize = 4;
    let _watchdog = watchdog();
    let server = Server::echo();
    let pool = tcp().max_per_endpoint(CALLERS).build().unwrap();
    let endpoint = pool.endpoint(&server.name()).unwrap();
    let together = Barrier::new(CALLERS);
    std::thread::scope(|scope| {
        for _ in 0..CALLERS {
            scope.spawn(|| {
                let first = endpoint.get_timeout(SOON).unwrap();
                together.wait();
                let error = endpoint.get_timeout(Duration::from_millis(50)).unwrap_err();
                let told = (error.kind(), error.phase());
                assert_eq!(told, (ErrorKind::Timeout, Some(Phase::Queue)));
                assert!(error.to_string().contains("4/4: 4 in use, 0 idle"), "{error}");
                together.wait();
                drop(first);
                ask(&mut endpoint.get_timeout(SOON).unwrap()).unwrap();
            });
        }
    });
    assert_eq!((endpoint.stats().timed_out(), endpoint.stats().idle()), (4, 4));
    assert_eq!(server.accepted(), CALLERS);
}

#[test]
fn with_room_for_one_more_than_they_hold_callers_who_want_two_are_all_served() {
    const CALLERS: usize = 4;
    let _watchdog = watchdog();
    let server = Server::echo();
    // As many as each holds while it waits, and one.
    let pool = tcp().max_per_endpoint(CALLERS + 1).checkout_timeout(LONG).build().unwrap();
    let endpoint = pool.endpoint(&server.name()).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..CALLERS {
            scope.spawn(|| {
                for _ in 0..100 {
                    let (mut first, mut second) =
                        (endpoint.get().unwrap(), endpoint.get().unwrap());
                    ask(&mut first).and_then(|()| ask(&mut second)).unwrap();
                }
            });
        }
    });
    assert_eq!((endpoint.stats().checkouts(), endpoint.stats().in_use()), (800, 0));
}

#[test]
fn who_waits_through_a_failure_gets_an_error_of_its_own_wait_and_not_of_another_day() {
    let _watchdog = watchdog();
    // The second attempt fails; the others do not.
    let lab = Lab::new(|method, before| match (method, before) {
        (Method::Open, 1) => Act::Fail,
        _ => Act::Go,
    });
    let pool = Pool::builder(lab).max_per_endpoint(2).build().unwrap();
    let endpoint = pool.endpoint("a").unwrap();
    let first = endpoint.get().unwrap();
    let second = endpoint.get_timeout(SOON).expect("the attempt after the one that failed");
    assert_eq!(endpoint.stats().connects_failed(), 1);
    let error = endpoint.get_timeout(Duration::from_millis(10)).unwrap_err();
    assert_eq!((error.kind(), error.failure()), (ErrorKind::Timeout, None::<Failure>));
    assert!(!error.to_string().contains("told to fail"), "it is over: {error}");
    let numbers = BTreeSet::from([first.number, second.number]);
    assert_eq!(numbers, BTreeSet::from([0, 1]));
    drop((first, second));
    pool.close();
    eventually("all are closed", || pool.stats().total() == 0);
    assert_empty(&pool.stats());
}
