//! Requests that are dropped, whenever that is: nothing is lost, and nobody waits for them.

use std::io::{Read, Write};
use std::time::Duration;

use crossbeam_channel::{RecvError, RecvTimeoutError, TryRecvError};
use warmline::{
    BoxError, Connector, Deadline, Endpoint, ErrorKind, One, Opening, Pool, PooledConn,
};

use crate::support::lab::{Act, Bench, Lab, Method};
use crate::support::server::Server;
use crate::support::{SOON, ask, assert_balanced, assert_empty, eventually, tcp, watchdog};

/// An endpoint that may have so many connections.
fn endpoint(most: usize) -> Endpoint<Lab> {
    let pool = Pool::builder(Lab::sound()).max_per_endpoint(most).build().unwrap();
    pool.endpoint("a").unwrap()
}

/// Opens nothing, and remembers nothing: for crowds.
struct Bare;

impl Connector for Bare {
    type Key = One;
    type Conn = ();

    fn open(&self, _: &One, _: &mut Opening) -> Result<(), BoxError> {
        Ok(())
    }
}

fn bare(most: usize) -> Endpoint<Bare> {
    Pool::builder(Bare).max_per_endpoint(most).build().unwrap().only().unwrap()
}

/// One whose connections are not opened before the bench says so.
fn endpoint_that_hangs() -> (Endpoint<Lab>, Bench) {
    let lab = Lab::new(|method, _| if method == Method::Open { Act::Hang } else { Act::Go });
    let bench = lab.bench();
    (Pool::builder(lab).connect_timeout(SOON).build().unwrap().endpoint("a").unwrap(), bench)
}

/// All that the endpoint may have is there to be had.
#[track_caller]
fn assert_all_home<C: Connector>(endpoint: &Endpoint<C>, most: usize) {
    let stats = endpoint.stats();
    assert_eq!((stats.in_use(), stats.waiting()), (0, 0), "{stats}");
    assert_balanced(&stats);
    let all: Vec<_> = (0..most).map(|_| endpoint.get_timeout(SOON).unwrap()).collect();
    assert_eq!((endpoint.stats().in_use(), endpoint.stats().total()), (most, most));
    drop(all);
}

#[test]
fn dropped_before_the_connect_ends_it_leaves_the_connection_to_the_next() {
    let _watchdog = watchdog();
    let (endpoint, bench) = endpoint_that_hangs();
    let request = endpoint.request().unwrap();
    eventually("it is being opened", || bench.calls(Method::Open) == 1);
    drop(request);
    assert_eq!((endpoint.stats().waiting(), endpoint.stats().connecting()), (0, 1));
    bench.release();
    eventually("it is kept", || endpoint.stats().idle() == 1);
    let next = endpoint.request().unwrap();
    assert_eq!(next.receiver().try_recv().unwrap().unwrap().number, 0);
    assert_eq!((bench.born(), endpoint.stats().checkouts()), (1, 1));
}

#[test]
fn dropped_in_the_queue_it_leaves_its_place_to_whoever_is_behind() {
    let _watchdog = watchdog();
    let endpoint = endpoint(1);
    let mut held = endpoint.get().unwrap();
    for dropped in 0..3 {
        let mut requests: Vec<_> = (0..3).map(|_| endpoint.request().unwrap()).collect();
        drop(requests.remove(dropped));
        assert_eq!(endpoint.stats().waiting(), 2);
        for request in requests {
            assert!(request.receiver().is_empty());
            drop(held);
            held = request.receiver().try_recv().expect("the next in the queue").unwrap();
        }
    }
    let last = endpoint.request().unwrap();
    drop(last);
    drop(held);
    assert_eq!((endpoint.stats().idle(), endpoint.stats().waiting()), (1, 0));
}

#[test]
fn dropped_in_front_of_a_blocked_caller_it_lets_that_one_be_served() {
    let _watchdog = watchdog();
    let endpoint = endpoint(1);
    let held = endpoint.get().unwrap();
    let request = endpoint.request().unwrap();
    std::thread::scope(|scope| {
        let blocked = scope.spawn(|| endpoint.get_timeout(SOON).map(|item| item.number));
        eventually("both wait", || endpoint.stats().waiting() == 2);
        drop(request);
        drop(held);
        assert_eq!(blocked.join().unwrap().unwrap(), 0);
    });
    assert_all_home(&endpoint, 1);
}

#[test]
fn what_had_arrived_and_was_not_received_goes_back() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let pool = tcp().max_per_endpoint(1).build().unwrap();
    for _ in 0..50 {
        let request = pool.request(&server.name()).unwrap();
        eventually("it arrives", || !request.receiver().is_empty());
        assert_eq!((pool.stats().in_use(), pool.stats().idle()), (1, 0));
        drop(request);
        assert_eq!((pool.stats().in_use(), pool.stats().idle()), (0, 1));
    }
    server.assert_accepted(1);
    ask(&mut pool.get(&server.name()).unwrap()).unwrap();
    assert_balanced(&pool.stats());
}

#[test]
fn what_had_arrived_goes_to_the_next_in_the_queue() {
    let _watchdog = watchdog();
    let endpoint = endpoint(1);
    let held = endpoint.get().unwrap();
    let requests = [(); 4].map(|()| endpoint.request().unwrap());
    drop(held);
    for request in requests {
        let arrived = !request.receiver().is_empty();
        assert!(arrived, "the one before it was dropped");
        drop(request);
    }
    assert_all_home(&endpoint, 1);
}

#[test]
fn what_was_received_is_its_users_whatever_becomes_of_the_request() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let pool = tcp().build().unwrap();
    let request = pool.request(&server.name()).unwrap();
    let mut conn = request.receiver().recv_timeout(SOON).unwrap().unwrap();
    drop(request);
    ask(&mut conn).unwrap();
    assert_eq!(pool.stats().in_use(), 1);
}

#[test]
fn a_receiver_that_was_kept_is_empty_and_disconnected_once_the_request_is_dropped() {
    let _watchdog = watchdog();
    let endpoint = endpoint(1);
    let held = endpoint.get().unwrap();
    let (queued, next) = (endpoint.request().unwrap(), endpoint.request().unwrap());
    let receivers = [queued.receiver().clone(), next.receiver().clone()];
    drop(queued);
    assert_eq!(receivers[0].try_recv().unwrap_err(), TryRecvError::Disconnected);
    drop(held);
    assert!(!receivers[1].is_empty(), "it has arrived");
    drop(next);
    assert_eq!(receivers[1].try_recv().unwrap_err(), TryRecvError::Disconnected);
    assert_all_home(&endpoint, 1);
}

#[test]
fn what_a_clone_of_the_receiver_received_stays_with_its_user() {
    let _watchdog = watchdog();
    let endpoint = endpoint(1);
    let request = endpoint.request().unwrap();
    let receiver = request.receiver().clone();
    let item = receiver.recv_timeout(SOON).unwrap().unwrap();
    // Whoever sent it may not have let go of the channel yet.
    let over = request.receiver().recv_timeout(SOON);
    assert_eq!(over.unwrap_err(), RecvTimeoutError::Disconnected);
    drop(request);
    assert_eq!((item.number, endpoint.stats().in_use()), (0, 1));
    drop(item);
    assert_all_home(&endpoint, 1);
}

#[test]
fn of_several_threads_at_one_receiver_one_gets_the_answer_and_all_the_end() {
    let _watchdog = watchdog();
    let endpoint = endpoint(1);
    for is_dropped in [false, true] {
        let held = endpoint.get().unwrap();
        let request = endpoint.request().unwrap();
        let ends: Vec<_> = std::thread::scope(|scope| {
            let wait = || {
                let receiver = request.receiver().clone();
                scope.spawn(move || receiver.recv().map(|answer| answer.unwrap().number))
            };
            let threads: Vec<_> = (0..4).map(|_| wait()).collect();
            if is_dropped {
                drop(request);
                drop(held);
            } else {
                drop(held);
                threads.iter().for_each(|it| eventually("it ends", || it.is_finished()));
                drop(request);
            }
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let received = ends.iter().filter(|end| **end == Ok(0)).count();
        assert_eq!(received, usize::from(!is_dropped));
        assert_eq!(ends.iter().filter(|end| **end == Err(RecvError)).count(), 4 - received);
        assert_all_home(&endpoint, 1);
    }
}

#[test]
fn dropped_at_the_moment_of_its_answer_it_loses_nothing() {
    let _watchdog = watchdog();
    let endpoint = bare(1);
    let both = std::sync::Barrier::new(3);
    std::thread::scope(|scope| {
        for _ in 0..1_000 {
            let held = endpoint.get_timeout(SOON).unwrap();
            let request = endpoint.request().unwrap();
            let receiver = request.receiver().clone();
            let both = &both;
            let returns = scope.spawn(move || {
                both.wait();
                drop(held);
            });
            let receives = scope.spawn(move || {
                both.wait();
                drop(receiver.recv().map(Result::unwrap)); // or it was given up before
            });
            both.wait();
            drop(request);
            returns.join().unwrap();
            receives.join().unwrap();
            let stats = endpoint.stats();
            assert_eq!((stats.idle(), stats.in_use(), stats.waiting()), (1, 0, 0), "{stats}");
        }
    });
    let stats = endpoint.stats();
    assert_eq!((stats.opened(), stats.closed()), (1, 0));
    assert_all_home(&endpoint, 1);
}

/// Does with one request what a hasty user might.
fn dabble(endpoint: &Endpoint<Bare>, round: usize) {
    let request = endpoint.request().unwrap();
    match round % 5 {
        0 => {}
        1 => std::thread::yield_now(),
        2 => drop(request.receiver().try_recv()),
        3 => {
            let conn = request.receiver().recv_timeout(SOON).unwrap().unwrap();
            if round % 10 == 3 {
                PooledConn::discard(conn);
            }
        }
        _ => {
            let receiver = request.receiver().clone();
            drop(request);
            assert!(receiver.try_recv().is_err(), "it was given up");
        }
    }
}

#[test]
fn in_a_crowd_that_asks_and_gives_up_every_connection_comes_home() {
    let _watchdog = watchdog();
    for most in [1, 3] {
        let endpoint = bare(most);
        std::thread::scope(|scope| {
            for number in 0..4 {
                let endpoint = &endpoint;
                scope.spawn(move || (0..2_000).for_each(|at| dabble(endpoint, at + number)));
            }
            for number in 0..4 {
                let endpoint = &endpoint;
                scope.spawn(move || {
                    for round in 0..2_000 {
                        let conn = endpoint.get_timeout(SOON).unwrap();
                        if (round + number) % 100 == 0 {
                            PooledConn::discard(conn);
                        }
                    }
                });
            }
        });
        eventually("no attempt is left", || endpoint.stats().connecting() == 0);
        assert_all_home(&endpoint, most);
        endpoint.pool().drain(Deadline::after(SOON)).unwrap();
        assert_empty(&endpoint.pool().stats());
    }
}

#[test]
fn a_pool_that_is_closed_amid_requests_answers_all_of_them() {
    let _watchdog = watchdog();
    for _ in 0..50 {
        let endpoint = bare(2);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for round in 0.. {
                        let answer = endpoint.request().and_then(|request| {
                            let giver_up = (round % 3 == 0).then(|| request.receiver().try_recv());
                            let waits = || request.receiver().recv_timeout(SOON);
                            giver_up.map_or_else(|| waits().unwrap().map(drop), |_| Ok(()))
                        });
                        if let Err(error) = answer {
                            assert_eq!(error.kind(), ErrorKind::Closed);
                            return;
                        }
                    }
                });
            }
            eventually("they work", || endpoint.stats().checkouts() > 50);
            endpoint.pool().close();
        });
        endpoint.pool().drain(Deadline::after(SOON)).unwrap();
        assert_empty(&endpoint.pool().stats());
    }
}

#[test]
fn a_request_that_is_forgotten_keeps_a_place_in_the_queue_and_the_end_of_the_pool_from_nobody() {
    let _watchdog = watchdog();
    let endpoint = endpoint(1);
    let held = endpoint.get().unwrap();
    let request = endpoint.request().unwrap();
    std::mem::forget(request);
    assert_eq!(endpoint.stats().waiting(), 1);
    let pool = endpoint.pool();
    std::thread::scope(|scope| {
        let drains = scope.spawn(|| pool.drain(Deadline::after(SOON)));
        eventually("it is answered", || pool.stats().waiting() == 0);
        drop(held);
        drains.join().unwrap().expect("nothing is out");
    });
    assert_empty(&pool.stats());
}

#[test]
fn a_connection_that_arrived_for_a_forgotten_request_is_in_use_until_somebody_receives_it() {
    let _watchdog = watchdog();
    let endpoint = endpoint(1);
    drop(endpoint.get().unwrap());
    let request = endpoint.request().unwrap();
    let receiver = request.receiver().clone();
    std::mem::forget(request);
    let error = endpoint.pool().drain(Deadline::after(Duration::from_millis(10))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().contains("1 in use"), "{error}");
    drop(receiver.try_recv().unwrap().unwrap());
    endpoint.pool().drain(Deadline::after(SOON)).unwrap();
}

#[test]
fn a_connection_that_arrived_for_nobody_is_as_new_to_who_gets_it_first() {
    let _watchdog = watchdog();
    let server = Server::scripted(|peer| {
        peer.write_all(b"220 hello")?;
        peer.echo()
    });
    let pool = tcp().build().unwrap();
    let request = pool.request(&server.name()).unwrap();
    eventually("it has arrived", || !request.receiver().is_empty());
    drop(request);
    assert_eq!((pool.stats().idle(), pool.stats().checkouts()), (1, 0));
    let mut conn = pool.get(&server.name()).unwrap();
    // Whoever is first reads the greeting.
    assert!(!PooledConn::is_reused(&conn));
    let mut greeting = [0; 9];
    conn.read_exact(&mut greeting).unwrap();
    assert_eq!(&greeting, b"220 hello");
    ask(&mut conn).unwrap();
}

#[test]
fn a_request_that_is_dropped_by_a_panic_gives_back_what_had_arrived() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let pool = tcp().build().unwrap();
    let request = pool.request(&server.name()).unwrap();
    eventually("it has arrived", || !request.receiver().is_empty());
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _unwinding = request;
        std::panic::panic_any("as the test says");
    }));
    assert!(caught.is_err());
    assert_eq!((pool.stats().idle(), pool.stats().closed()), (1, 0));
}

#[test]
fn a_greeting_that_comes_after_that_is_left_for_who_gets_the_connection() {
    let _watchdog = watchdog();
    let (greet, told) = crossbeam_channel::unbounded();
    let server = Server::scripted(move |peer| {
        peer.wait(&told)?;
        peer.write_all(b"220 hello")?;
        peer.stay_silent()
    });
    let pool = tcp().portable_watch(true).build().unwrap();
    let request = pool.request(&server.name()).unwrap();
    eventually("it has arrived", || !request.receiver().is_empty());
    drop(request);
    greet.send(()).unwrap();
    let mut conn = pool.get(&server.name()).unwrap();
    let mut greeting = [0; 9];
    conn.read_exact(&mut greeting).unwrap();
    assert_eq!((&greeting, pool.stats().opened()), (b"220 hello", 1));
}
