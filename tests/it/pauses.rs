//! A pool that hands out nothing for a while, and may be told anything by anybody from anywhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use warmline::{Closed, Connected, Deadline, ErrorKind, Observer, Pool, PooledConn, TcpConnector};

use crate::support::faults::Refusing;
use crate::support::lab::{Act, Lab, Method};
use crate::support::server::Server;
use crate::support::{SOON, ask, assert_balanced, assert_empty, eventually, tcp, watchdog};

const LONG: Duration = Duration::from_secs(3600);
const BRIEF: Duration = Duration::from_millis(20);

#[test]
fn callers_who_come_while_a_pool_is_paused_are_all_served_when_it_resumes() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let pool = tcp().max_per_endpoint(2).build().unwrap();
    let endpoint = pool.endpoint(&server.name()).unwrap();
    drop(endpoint.get().unwrap());
    assert!(!pool.is_paused());
    pool.pause();
    assert!(pool.is_paused());
    std::thread::scope(|scope| {
        let waiting: Vec<_> =
            (0..10).map(|_| scope.spawn(|| ask(&mut endpoint.get_timeout(SOON)?))).collect();
        eventually("they wait", || endpoint.stats().waiting() == 10);
        assert_eq!((endpoint.stats().idle(), endpoint.stats().checkouts()), (1, 1));
        assert!(endpoint.try_get().is_none(), "what is idle stays");
        pool.resume();
        waiting.into_iter().for_each(|caller| caller.join().unwrap().unwrap());
    });
    assert!(!pool.is_paused() && server.accepted() <= 2);
    assert_eq!((endpoint.stats().checkouts(), endpoint.stats().timed_out()), (11, 0));
    assert_balanced(&endpoint.stats());
}

#[test]
fn a_pause_takes_from_the_time_of_who_waits_and_the_error_says_so() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let pool = Pool::tcp();
    let endpoint = pool.endpoint(&server.name()).unwrap();
    drop(endpoint.get().unwrap());
    pool.pause();
    for _ in 0..3 {
        let error = endpoint.get_timeout(BRIEF).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert!(error.to_string().contains("paused"), "{error}");
        assert!(error.waited() >= Some(BRIEF), "{error}");
    }
    assert_eq!((endpoint.stats().timed_out(), endpoint.stats().waiting()), (3, 0));
    pool.resume();
    assert!(endpoint.try_get().is_some(), "what was idle still is");
    let error = pool.get_timeout(&Refusing::new().name(), SOON).unwrap_err();
    assert!(!error.to_string().contains("paused"), "{error}");
}

#[test]
fn what_comes_back_to_a_paused_pool_stays_until_it_resumes_and_goes_to_the_oldest() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let pool = tcp().max_per_endpoint(1).fair_after(Duration::ZERO).build().unwrap();
    let endpoint = pool.endpoint(&server.name()).unwrap();
    let mut held = endpoint.get().unwrap();
    let older = endpoint.request().unwrap();
    pool.pause();
    let younger = endpoint.request().unwrap();
    ask(&mut held).expect("what is in use may be used on");
    drop(held);
    assert_eq!((endpoint.stats().idle(), endpoint.stats().waiting()), (1, 2));
    assert!(older.receiver().is_empty() && younger.receiver().is_empty());
    pool.resume();
    drop(older.receiver().recv_timeout(SOON).unwrap().unwrap());
    drop(younger.receiver().recv_timeout(SOON).unwrap().unwrap());
    assert_eq!(server.accepted(), 1);
}

#[test]
fn after_a_pause_with_an_eviction_nobody_gets_what_was_opened_before_it() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let pool = tcp().min_idle(2).build().unwrap();
    let endpoint = pool.endpoint(&server.name()).unwrap();
    eventually("two are ready", || endpoint.stats().idle() == 2);
    let held = endpoint.get().unwrap();
    pool.pause();
    let waits = endpoint.request().unwrap();
    pool.evict_all();
    drop(held);
    eventually("new ones are ready though it is paused", || {
        let stats = endpoint.stats();
        stats.idle() == 2 && stats.closed() == stats.opened() - 2
    });
    assert!(waits.receiver().is_empty());
    let before = endpoint.stats().closed();
    pool.resume();
    let conn = waits.receiver().recv_timeout(SOON).unwrap().unwrap();
    assert!(!PooledConn::is_reused(&conn));
    assert_eq!(endpoint.stats().closed(), before);
}

#[test]
fn a_pool_that_is_closed_while_it_is_paused_answers_all_who_wait() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let pool = Pool::tcp();
    let endpoint = pool.endpoint(&server.name()).unwrap();
    drop(endpoint.get().unwrap());
    pool.pause();
    std::thread::scope(|scope| {
        let waiting: Vec<_> =
            (0..8).map(|_| scope.spawn(|| endpoint.get_timeout(LONG).map(drop))).collect();
        eventually("they wait", || endpoint.stats().waiting() == 8);
        pool.drain(Deadline::after(SOON)).unwrap();
        for caller in waiting {
            assert_eq!(caller.join().unwrap().unwrap_err().kind(), ErrorKind::Closed);
        }
    });
    pool.resume();
    assert_eq!(endpoint.get().unwrap_err().kind(), ErrorKind::Closed);
    assert_empty(&pool.stats());
}

#[test]
fn a_paused_pool_does_not_end_the_wait_of_who_waits_for_a_server_that_is_down() {
    let _watchdog = watchdog();
    let lab = Lab::new(|method, before| match (method, before) {
        (Method::Open, 0..6) => Act::Fail,
        _ => Act::Go,
    });
    let pool = Pool::builder(lab).fail_fast(false).build().unwrap();
    let endpoint = pool.endpoint("a").unwrap();
    let waits = endpoint.request().unwrap();
    eventually("an attempt fails", || endpoint.stats().connects_failed() >= 1);
    pool.pause();
    pool.resume();
    drop(waits.receiver().recv_timeout(SOON).unwrap().expect("it is probed on"));
    assert_eq!((endpoint.stats().connects_failed(), endpoint.stats().opened()), (6, 1));
}

#[test]
fn pauses_from_many_threads_do_not_add_up_and_lose_nobody_who_waits() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let pool = tcp().max_per_endpoint(3).build().unwrap();
    let endpoint = pool.endpoint(&server.name()).unwrap();
    std::thread::scope(|scope| {
        let callers: Vec<_> = (0..6)
            .map(|_| {
                scope.spawn(|| {
                    for _ in 0..100 {
                        ask(&mut endpoint.get_timeout(SOON).unwrap()).unwrap();
                    }
                })
            })
            .collect();
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..100 {
                    pool.pause();
                    std::thread::yield_now();
                    pool.resume();
                    pool.resume();
                }
            });
        }
        callers.into_iter().for_each(|caller| caller.join().unwrap());
    });
    assert!(!pool.is_paused());
    assert_eq!((endpoint.stats().checkouts(), endpoint.stats().waiting()), (600, 0));
    assert_balanced(&endpoint.stats());
}

/// A pool that its own connector or observer can reach, until it is taken away.
type Own<C> = Arc<Mutex<Option<Pool<C>>>>;

/// All that can be told to a pool at once, but its end.
fn tell_everything<C: warmline::Connector>(own: &Own<C>) {
    let Some(pool) = own.lock().clone() else { return };
    pool.pause();
    let _maybe_resumed_by_another_thread = pool.is_paused();
    pool.evict_all();
    pool.resume();
}

#[test]
fn a_connector_may_pause_resume_and_evict_in_any_of_its_methods() {
    let _watchdog = watchdog();
    for told_in in Method::ALL {
        let own = Own::<Lab>::default();
        let lab = Lab::new({
            let own = Arc::clone(&own);
            move |method, _| {
                if method == told_in {
                    tell_everything(&own);
                }
                match method {
                    Method::HasCheck | Method::Reset => Act::Later,
                    _ => Act::Go,
                }
            }
        });
        let bench = lab.bench();
        let builder = Pool::builder(lab).check_after(Duration::ZERO).fail_fast(false);
        let pool = builder.max_per_endpoint(2).checkout_timeout(BRIEF).build().unwrap();
        *own.lock() = Some(pool.clone());
        for _ in 0..10 {
            // Where each call of a method evicts what it was called for, none can be had.
            let _both = (pool.get("a"), pool.get("a"));
            drop(pool.try_get("a"));
        }
        own.lock().take();
        eventually("it works on", || pool.get_timeout("a", SOON).is_ok());
        pool.drain(Deadline::after(SOON)).unwrap();
        assert_empty(&pool.stats());
        assert_eq!(bench.alive(), 0, "{told_in:?}");
    }
}

#[test]
fn a_connector_may_close_its_pool_in_any_of_its_methods() {
    let _watchdog = watchdog();
    for told_in in Method::ALL {
        let own = Own::<Lab>::default();
        let lab = Lab::new({
            let own = Arc::clone(&own);
            move |method, before| {
                let pool = own.lock().clone().filter(|_| (method, before) == (told_in, 2));
                if let Some(pool) = pool {
                    pool.pause();
                    pool.close();
                    pool.resume();
                    // On a thread of the pool refused at once; on a caller's its own one is out.
                    drop(pool.drain(Deadline::after(BRIEF)));
                }
                match method {
                    Method::HasCheck | Method::Reset => Act::Later,
                    _ => Act::Go,
                }
            }
        });
        let bench = lab.bench();
        let pool = Pool::builder(lab).check_after(Duration::ZERO).build().unwrap();
        *own.lock() = Some(pool.clone());
        for number in 0..10 {
            let name = format!("endpoint {number}"); // each is planned, and opened
            drop((pool.get_timeout(&name, SOON), pool.get_timeout(&name, SOON)));
        }
        own.lock().take();
        pool.drain(Deadline::after(SOON)).unwrap();
        assert_empty(&pool.stats());
        assert_eq!(bench.alive(), 0, "{told_in:?}");
    }
}

/// Tells its pool everything at each event; its end, too, at the last.
#[derive(Clone, Default)]
struct Meddler {
    own: Own<TcpConnector>,
    heard: Arc<AtomicUsize>,
    ends: bool,
}

impl Meddler {
    fn meddle(&self) {
        self.heard.fetch_add(1, Ordering::SeqCst);
        tell_everything(&self.own);
        let pool = self.own.lock().clone().filter(|_| self.ends);
        if let Some(pool) = pool {
            drop(pool.drain(Deadline::after(BRIEF)));
        }
    }
}

impl Observer for Meddler {
    fn connected(&self, _: &Connected) {
        self.meddle();
    }

    fn closed(&self, _: &Closed) {
        self.meddle();
    }
}

#[test]
fn an_observer_may_tell_its_pool_everything_and_end_it() {
    let _watchdog = watchdog();
    let server = Server::echo();
    for ends in [false, true] {
        let meddler = Meddler { ends, ..Meddler::default() };
        let pool = tcp().observer(meddler.clone()).build().unwrap();
        *meddler.own.lock() = Some(pool.clone());
        for _ in 0..10 {
            let served = pool.get_timeout(&server.name(), SOON).map(|mut conn| ask(&mut conn));
            if let Err(error) = served {
                assert!(ends && error.kind() == ErrorKind::Closed, "{error}");
            }
        }
        eventually("it has heard", || meddler.heard.load(Ordering::SeqCst) >= 2);
        meddler.own.lock().take();
        pool.drain(Deadline::after(SOON)).unwrap();
        assert_empty(&pool.stats());
    }
    eventually("the server has none", || server.open() == 0);
}

#[test]
fn whoever_drops_a_guard_may_pause_and_end_its_pool_right_before_and_after() {
    let _watchdog = watchdog();
    let server = Server::echo();
    for verb in 0..4 {
        let pool = Pool::tcp();
        let (one, two) = (pool.get(&server.name()).unwrap(), pool.get(&server.name()).unwrap());
        let tell = || match verb {
            0 => pool.pause(),
            1 => pool.evict_all(),
            2 => pool.close(),
            _ => drop(pool.drain(Deadline::after(Duration::ZERO))),
        };
        tell();
        drop(one);
        tell();
        drop(two);
        pool.resume();
        let is_over = pool.get(&server.name()).is_err();
        assert_eq!(is_over, verb >= 2);
        pool.drain(Deadline::after(SOON)).unwrap();
        assert_empty(&pool.stats());
    }
}
