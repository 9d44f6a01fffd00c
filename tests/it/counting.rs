//! Counts fit each other at any moment, whatever happens, and say what happened.

use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use warmline::{CloseReason, Endpoint, PooledConn, Stats, TcpConnector};

use crate::support::causes::BRIEF;
use crate::support::faults::Refusing;
use crate::support::server::Server;
use crate::support::{SOON, ask, assert_balanced, assert_empty, eventually, tcp, watchdog};

/// An echo that hangs up on every third connection after a few exchanges.
fn unreliable() -> Server {
    Server::scripted(|peer| {
        if peer.number() % 3 > 0 {
            return peer.echo();
        }
        for _ in 0..20 {
            let request = peer.take(4)?;
            peer.write_all(&request)?;
        }
        peer.reset()
    })
}

/// What holds at any moment, and since an earlier one.
#[track_caller]
fn assert_fits(stats: &Stats, earlier: &Stats, limit: usize) {
    assert_balanced(stats);
    assert!(stats.total() <= limit && stats.most_in_use() >= stats.in_use(), "{stats}");
    assert!(stats.most_in_use() <= limit, "{stats}");
    let fresh = stats.checkouts() - stats.reused();
    assert!(fresh <= stats.opened(), "a connection is new once: {stats}");
    assert!(stats.checkouts() >= stats.in_use() as u64, "{stats}");
    let by_reason = CloseReason::ALL.iter().map(|&reason| stats.closed_for(reason));
    assert_eq!(by_reason.sum::<u64>(), stats.closed(), "{stats}");
    let grows = |count: fn(&Stats) -> u64| assert!(count(stats) >= count(earlier), "{stats}");
    [Stats::checkouts, Stats::reused, Stats::opened, Stats::closed, Stats::detached]
        .into_iter()
        .for_each(grows);
    [Stats::waits, Stats::timed_out, Stats::refused, Stats::connects_failed]
        .into_iter()
        .for_each(grows);
    let lasts = |time: fn(&Stats) -> Duration| assert!(time(stats) >= time(earlier), "{stats}");
    [Stats::use_time, Stats::wait_time, Stats::connect_time].into_iter().for_each(lasts);
}

/// Uses connections in every way until it is told to stop. Returns how many it was given.
fn work(endpoint: &Endpoint<TcpConnector>, seed: usize, is_over: &AtomicBool) -> u64 {
    let mut given = 0;
    for turn in seed.. {
        if is_over.load(Ordering::SeqCst) {
            break;
        }
        let conn = match turn % 7 {
            0 => endpoint.try_get(),
            1 => endpoint.get_timeout(Duration::from_micros(50)).ok(),
            2 => {
                let request = endpoint.request().unwrap();
                request.receiver().recv_timeout(SOON).unwrap().ok()
            }
            _ => endpoint.get_timeout(SOON).ok(),
        };
        let Some(mut conn) = conn else { continue };
        given += 1;
        let _hung_up = ask(&mut conn);
        match turn % 31 {
            0 => PooledConn::discard(conn),
            1 => drop(PooledConn::detach(conn)),
            2 => endpoint.evict(),
            _ => drop(conn),
        }
    }
    given
}

#[test]
fn at_any_moment_every_connection_is_counted_once_while_eight_threads_work_and_faults_happen() {
    let _watchdog = watchdog();
    let (server, down) = (unreliable(), Refusing::new());
    let pool = tcp().max_per_endpoint(4).max_total(5).build().unwrap();
    let endpoint = pool.endpoint(&server.name()).unwrap();
    let (is_over, given) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for seed in 0..8 {
            let (endpoint, is_over, given) = (&endpoint, &is_over, &given);
            scope.spawn(move || {
                given.fetch_add(work(endpoint, seed, is_over), Ordering::SeqCst);
            });
        }
        scope.spawn(|| {
            while !is_over.load(Ordering::SeqCst) {
                let _refused = pool.get_timeout(&down.name(), BRIEF);
            }
        });
        let (mut all, mut one) = (pool.stats(), endpoint.stats());
        let mut samples = 0;
        while samples < 2_000 || all.checkouts() < 5_000 || all.closed() < 50 {
            let (now, here) = (pool.stats(), endpoint.stats());
            assert_fits(&now, &all, 5);
            assert_fits(&here, &one, 4);
            (all, one) = (now, here);
            samples += 1;
            std::thread::yield_now();
        }
        is_over.store(true, Ordering::SeqCst);
    });
    let stats = endpoint.stats();
    assert_eq!(stats.checkouts(), given.load(Ordering::SeqCst), "{stats}");
    assert_eq!(stats.in_use(), 0, "{stats}");
    pool.close();
    eventually("all are gone", || pool.stats().total() == 0);
    assert_empty(&pool.stats());
}

#[test]
fn the_time_of_uses_and_waits_adds_up_to_what_they_took_at_least() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let pool = tcp().max_per_endpoint(1).build().unwrap();
    drop(pool.get_timeout(&server.name(), SOON).unwrap());
    let before = pool.stats();
    let rounds: u32 = 3;
    for _ in 0..rounds {
        let held = pool.get_timeout(&server.name(), SOON).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| drop(pool.get_timeout(&server.name(), SOON).unwrap()));
            }
            eventually("both wait", || pool.stats().waiting() == 2);
            std::thread::sleep(BRIEF);
            drop(held);
        });
    }
    let stats = pool.stats();
    assert_eq!(stats.waits() - before.waits(), u64::from(2 * rounds));
    assert_eq!(stats.checkouts() - before.checkouts(), u64::from(3 * rounds));
    assert_eq!((stats.reused(), stats.most_in_use()), (stats.checkouts() - 1, 1));
    // Uses are timed by a clock that ticks every few milliseconds: 20 are more than enough.
    let ticks = Duration::from_millis(20);
    let (used, waited) = (stats.use_time() - before.use_time(), stats.wait_time());
    assert!(used >= (BRIEF - ticks) * rounds, "{used:?}");
    assert!(waited - before.wait_time() >= 2 * BRIEF * rounds, "{waited:?}");
    assert!(stats.connect_time() > Duration::ZERO);
}

#[test]
fn callers_that_leave_empty_handed_are_counted_by_how_they_left() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let pool = tcp().max_per_endpoint(1).max_waiting(2).build().unwrap();
    let held = pool.get_timeout(&server.name(), SOON).unwrap();
    for _ in 0..3 {
        pool.get_timeout(&server.name(), Duration::ZERO).unwrap_err();
    }
    assert!(pool.try_get(&server.name()).unwrap().is_none());
    let requests = [(); 2].map(|()| pool.request(&server.name()).unwrap());
    pool.get_timeout(&server.name(), SOON).unwrap_err();
    let stats = pool.stats();
    assert_eq!((stats.timed_out(), stats.refused(), stats.waiting()), (3, 1, 2), "{stats}");
    drop(requests);
    drop(held);
    let stats = pool.stats();
    assert_eq!((stats.checkouts(), stats.reused(), stats.waiting()), (1, 0, 0), "{stats}");
    // The first waited for its connect, then three in vain, and two requests that were given up.
    assert_eq!(stats.waits(), 6, "{stats}");
    let hits = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            drop(pool.get_timeout(&server.name(), SOON).unwrap());
            hits.fetch_add(1, Ordering::SeqCst);
        });
    });
    assert_eq!(pool.stats().reused(), hits.into_inner() as u64);
}
