//! Pools that share a driver: each works as if it had one of its own.

use std::time::Duration;

use warmline::{CloseReason, Deadline, Driver, ErrorKind, Pool, PooledConn, UnixConnector};

use crate::support::faults::BlackHole;
use crate::support::foreign::{Foreign, Show};
use crate::support::lab::{Act, Lab, Method};
use crate::support::server::{Peer, Server};
use crate::support::{
    Diary, SOON, ask, assert_balanced, assert_empty, await_loop, eventually, tcp, watchdog,
};

const LONG: Duration = Duration::from_secs(3600);

#[test]
fn pools_of_different_connectors_each_work_and_each_learn_of_their_own_deaths() {
    let _watchdog = watchdog();
    let driver = Driver::new();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let (remote_server, local_server) = (Server::echo(), Server::unix(&path, Peer::echo));
    let remote = tcp().driver(&driver).build().unwrap();
    let portable = tcp().driver(&driver).portable_watch(true).build().unwrap();
    let local = Pool::builder(UnixConnector::new()).driver(&driver).build().unwrap();
    let foreign = Pool::builder(Foreign::always(Show::Number)).driver(&driver).build().unwrap();
    let lab = Pool::builder(Lab::sound()).driver(&driver).build().unwrap();
    for _ in 0..3 {
        ask(&mut remote.get(&remote_server.name()).unwrap()).unwrap();
        ask(&mut portable.get(&remote_server.name()).unwrap()).unwrap();
        ask(&mut local.get(&path).unwrap()).unwrap();
        ask(&mut foreign.get(&remote_server.name()).unwrap()).unwrap();
        assert_eq!(lab.get("a").unwrap().number, 0);
    }
    // All of them have their first connection in the same place; each hears of its own.
    assert_eq!((remote_server.accepted(), local_server.accepted()), (3, 1));
    local_server.hang_up();
    eventually("the local one is closed", || local.stats().idle() == 0);
    await_loop(&driver);
    let idle = [remote.stats().idle(), portable.stats().idle(), foreign.stats().idle()];
    assert_eq!((idle, lab.stats().idle()), ([1; 3], 1));
    remote_server.hang_up();
    eventually("each has closed its own", || {
        let all = [remote.stats(), portable.stats(), foreign.stats()];
        all.iter().all(|stats| stats.closed_for(CloseReason::PeerClosed) == 1)
    });
    assert_eq!(lab.stats().idle(), 1);
}

#[test]
fn openings_that_hang_in_one_pool_delay_no_other() {
    let _watchdog = watchdog();
    let driver = Driver::new();
    let hanging = Lab::new(|method, _| if method == Method::Open { Act::Hang } else { Act::Go });
    let bench = hanging.bench();
    let builder = Pool::builder(hanging).driver(&driver).connect_timeout(LONG);
    let hanging = builder.build().unwrap();
    let (server, lab) = (Server::echo(), Lab::sound());
    let plain = tcp().driver(&driver).build().unwrap();
    let lab = Pool::builder(lab).driver(&driver).build().unwrap();
    std::thread::scope(|scope| {
        for name in ["a", "b", "c"] {
            for _ in 0..16 {
                let hanging = &hanging;
                scope.spawn(move || hanging.get_timeout(name, LONG).map(drop).unwrap_err());
            }
        }
        // No endpoint has more threads than it leaves of the pool's 32: 16, 8 and 4 if they come one
        // after the other, 8 each if they come together.
        eventually("they hang", || bench.calls(Method::Open) >= 3 * 8);
        ask(&mut plain.get(&server.name()).unwrap()).unwrap();
        drop(lab.get("a").unwrap());
        assert_eq!(bench.born(), 0, "they hang still");
        hanging.close();
    });
    bench.release();
    hanging.drain(Deadline::after(SOON)).unwrap();
    assert_eq!(bench.alive(), 0);
}

/// A pool of which `count` connections are being closed and never are, before [`Bench::release`].
///
/// [`Bench::release`]: crate::support::lab::Bench::release
fn closing_for_ever(driver: &Driver, count: usize) -> (Pool<Lab>, crate::support::lab::Bench) {
    let lab = Lab::new(|method, _| if method == Method::Close { Act::Hang } else { Act::Go });
    let bench = lab.bench();
    let pool = Pool::builder(lab).driver(driver).build().unwrap();
    for _ in 0..count {
        PooledConn::discard(pool.get_timeout("a", SOON).unwrap());
    }
    let at_once = count.min(7);
    eventually("they hang", || bench.calls(Method::Close) >= at_once);
    (pool, bench)
}

fn assert_closes(driver: &Driver) {
    let lab = Lab::sound();
    let bench = lab.bench();
    let pool = Pool::builder(lab).driver(driver).build().unwrap();
    PooledConn::discard(pool.get("a").unwrap());
    eventually("it is closed", || bench.alive() == 0);
    drop(pool.get("a").unwrap());
    pool.drain(Deadline::after(SOON)).unwrap();
    assert_empty(&pool.stats());
}

#[test]
fn a_close_that_hangs_in_one_pool_delays_no_other() {
    let _watchdog = watchdog();
    let driver = Driver::new();
    let (pool, bench) = closing_for_ever(&driver, 1);
    assert_closes(&driver);
    assert_eq!(bench.alive(), 1, "it hangs still");
    bench.release();
    pool.drain(Deadline::after(SOON)).unwrap();
}

#[test]
fn however_many_closes_hang_in_one_pool_others_can_close() {
    let _watchdog = watchdog();
    let driver = Driver::new();
    let (pool, bench) = closing_for_ever(&driver, 20);
    assert_closes(&driver);
    assert_eq!(bench.alive(), 20, "they hang still");
    bench.release();
    pool.drain(Deadline::after(SOON)).unwrap();
}

#[test]
fn the_end_of_one_pool_is_none_of_the_others() {
    let _watchdog = watchdog();
    let driver = Driver::new();
    let (server, hole) = (Server::echo(), BlackHole::new());
    let diary = Diary::default();
    let builder = tcp().driver(&driver).observer(diary.clone()).connect_timeout(LONG);
    let ending = builder.build().unwrap();
    let lasting = tcp().driver(&driver).build().unwrap();
    ask(&mut lasting.get(&server.name()).unwrap()).unwrap();
    let mut held = ending.get(&server.name()).unwrap();
    ask(&mut held).unwrap();
    drop(ending.get(&server.name()).unwrap());
    ending.get_timeout(&hole.name(), Duration::from_millis(10)).unwrap_err();
    drop(ending);
    eventually("its idle one is closed", || server.open() == 2);
    eventually("its attempt has ended", || hole.besieged_by().unwrap_or_default() == 0);
    ask(&mut held).expect("who has one may finish");
    drop(held);
    eventually("so is the one in use", || server.open() == 1);
    assert_eq!(diary.reasons(), [CloseReason::PoolClosed; 2]);

    assert!(PooledConn::is_reused(&lasting.get(&server.name()).unwrap()));
    server.hang_up();
    eventually("deaths are noticed", || lasting.stats().closed_for(CloseReason::PeerClosed) == 1);
    ask(&mut lasting.get(&server.name()).unwrap()).expect("connects are made");
}

#[test]
fn pools_come_and_go_on_one_driver() {
    let _watchdog = watchdog();
    let driver = Driver::new();
    let server = Server::echo();
    let lasting = tcp().driver(&driver).build().unwrap();
    ask(&mut lasting.get(&server.name()).unwrap()).unwrap();
    for _ in 0..300 {
        let pool = tcp().driver(&driver).build().unwrap();
        ask(&mut pool.get(&server.name()).unwrap()).unwrap();
    }
    eventually("those that are gone keep nothing open", || server.open() == 1);
    assert_eq!((server.accepted(), lasting.stats().idle()), (301, 1));
    drop(driver);
    ask(&mut lasting.get(&server.name()).unwrap()).unwrap();
    server.hang_up();
    eventually("a pool holds its driver", || lasting.stats().idle() == 0);
}

#[test]
fn each_observer_is_told_of_its_own_pool() {
    let _watchdog = watchdog();
    let driver = Driver::new();
    let (one, two) = (Server::echo(), Server::echo());
    let diaries = [Diary::default(), Diary::default()];
    let [first, second] = diaries
        .each_ref()
        .map(|diary| tcp().driver(&driver).observer(diary.clone()).build().unwrap());
    for _ in 0..10 {
        PooledConn::discard(first.get(&one.name()).unwrap());
        ask(&mut second.get(&two.name()).unwrap()).unwrap();
    }
    ask(&mut first.get(&one.name()).unwrap()).unwrap();
    one.hang_up();
    two.hang_up();
    diaries[0].reasons_of(11);
    assert_eq!(diaries[1].reasons_of(1), [CloseReason::PeerClosed]);
    let counts = diaries.each_ref().map(|diary| (diary.connected().len(), diary.closed().len()));
    assert_eq!(counts, [(11, 11), (1, 1)]);
    assert!(diaries[0].closed().iter().all(|event| event.endpoint() == one.name()));
    assert!(diaries[1].closed().iter().all(|event| event.endpoint() == two.name()));
    assert_balanced(&first.stats());
}

#[test]
fn time_runs_in_every_pool_of_a_driver() {
    let _watchdog = watchdog();
    let driver = Driver::new();
    let server = Server::echo();
    let brief = Duration::from_millis(30);
    let pools: Vec<_> = (0..5)
        .map(|n| {
            // One that never has anything due, between others.
            let idle_timeout = if n == 2 { LONG } else { brief };
            tcp().driver(&driver).idle_timeout(idle_timeout).build().unwrap()
        })
        .collect();
    for pool in &pools {
        drop(pool.get(&server.name()).unwrap());
    }
    eventually("four have ended", || {
        pools.iter().filter(|pool| pool.stats().idle() == 0).count() == 4
    });
    assert_eq!((pools[2].stats().idle(), pools[2].stats().closed()), (1, 0));
}

#[test]
fn a_closed_pool_leaves_a_driver_for_the_next() {
    let _watchdog = watchdog();
    let driver = Driver::new();
    let server = Server::echo();
    let closed = tcp().driver(&driver).build().unwrap();
    drop(closed.get(&server.name()).unwrap());
    closed.drain(Deadline::after(SOON)).unwrap();
    assert_eq!(closed.get(&server.name()).unwrap_err().kind(), ErrorKind::Closed);
    let next = tcp().driver(&driver).build().unwrap();
    ask(&mut next.get(&server.name()).unwrap()).unwrap();
}

/// Another pool on this driver opens, checks, settles and closes.
fn assert_works(driver: &Driver) {
    let lab = Lab::new(|method, _| match method {
        Method::Reset | Method::HasCheck => Act::Later,
        _ => Act::Go,
    });
    let bench = lab.bench();
    let builder = Pool::builder(lab).driver(driver).check_after(Duration::from_millis(1));
    let pool = builder.checkout_timeout(SOON).build().unwrap();
    for name in ["a", "b"] {
        drop(pool.get(name).unwrap());
        eventually("it is settled", || pool.stats().checking() == 0);
        let checked = bench.calls(Method::Check);
        eventually("it is checked", || {
            drop(pool.get(name).unwrap());
            bench.calls(Method::Check) > checked
        });
    }
    assert!(bench.calls(Method::Settle) >= 2);
    eventually("all are settled", || pool.stats().checking() == 0);
    pool.evict_all();
    eventually("they are closed", || bench.alive() == 0);
    pool.drain(Deadline::after(SOON)).unwrap();
    assert_balanced(&pool.stats());
}

#[test]
fn however_many_settles_hang_in_one_pool_all_else_goes_on() {
    let _watchdog = watchdog();
    let (driver, many) = (Driver::new(), 90);
    let lab = Lab::new(|method, before| match (method, before) {
        (Method::Reset, 0..90) => Act::Later,
        (Method::Settle, _) => Act::Hang,
        _ => Act::Go,
    });
    let bench = lab.bench();
    let builder = Pool::builder(lab).driver(&driver).settle_timeout(LONG);
    let builder = builder.max_total(200).max_per_endpoint(many).max_idle(200);
    let pool = builder.checkout_timeout(SOON).build().unwrap();
    let held: Vec<_> = (0..many).map(|_| pool.get("a").unwrap()).collect();
    drop(held);
    eventually("they hang", || bench.calls(Method::Settle) >= 8);
    assert_eq!(pool.stats().checking(), many);
    assert_works(&driver);
    // So does another endpoint of the same pool, as long as it need not settle.
    drop(pool.get("b").unwrap());
    PooledConn::discard(pool.get("b").unwrap());
    eventually("it is closed", || bench.alive() == many);
    assert_eq!(pool.stats().checking(), many, "they hang still");
    bench.release();
    eventually("all are settled", || pool.stats().idle() > 0 && pool.stats().checking() == 0);
    pool.drain(Deadline::after(SOON)).unwrap();
    assert_eq!(bench.alive(), 0);
}

#[test]
fn settles_that_are_given_up_leave_threads_for_those_of_other_pools() {
    let _watchdog = watchdog();
    let driver = Driver::new();
    let lab = Lab::new(|method, _| match method {
        Method::Reset => Act::Later,
        Method::Settle => Act::Hang,
        _ => Act::Go,
    });
    let bench = lab.bench();
    let builder = Pool::builder(lab).driver(&driver).settle_timeout(Duration::from_millis(20));
    let pool = builder.max_per_endpoint(90).max_total(90).checkout_timeout(SOON).build().unwrap();
    let held: Vec<_> = (0..90).map(|_| pool.get("a").unwrap()).collect();
    drop(held);
    eventually("as many as may be are given up", || pool.stats().abandoned() == 16);
    assert_works(&driver);
    // Those that had no thread in time have been closed, and not kept for one.
    eventually("the rest is closed", || bench.alive() <= 16 + 32);
    bench.release();
    pool.drain(Deadline::after(SOON)).unwrap();
    eventually("all are closed", || bench.alive() == 0);
}

#[test]
fn a_pool_with_many_endpoints_that_hang_leaves_threads_for_a_second_pool_and_a_third() {
    let _watchdog = watchdog();
    let driver = Driver::new();
    let hanging = || {
        let lab = Lab::new(|method, _| if method == Method::Open { Act::Hang } else { Act::Go });
        let bench = lab.bench();
        let builder = Pool::builder(lab).driver(&driver).connect_timeout(LONG);
        (builder.max_total(1000).build().unwrap(), bench)
    };
    let (hanging, benches): (Vec<_>, Vec<_>) = (0..2).map(|_| hanging()).unzip();
    let names: Vec<_> = (0..20).map(|number| number.to_string()).collect();
    std::thread::scope(|scope| {
        for (pool, bench) in hanging.iter().zip(&benches) {
            assert_works(&driver);
            for name in names.iter().flat_map(|name| [name; 8]) {
                scope.spawn(move || pool.get_timeout(name, LONG).map(drop).unwrap_err());
            }
            eventually("all wait", || pool.stats().waiting() == 20 * 8);
            eventually("they hang", || bench.calls(Method::Open) >= 4);
        }
        assert_works(&driver);
        assert_eq!(benches.iter().map(|bench| bench.born()).sum::<usize>(), 0, "they hang still");
        hanging.iter().for_each(Pool::close);
    });
    benches.iter().for_each(|bench| bench.release());
    for pool in hanging {
        pool.drain(Deadline::after(SOON)).unwrap();
    }
    assert!(benches.iter().all(|bench| bench.alive() == 0));
}
