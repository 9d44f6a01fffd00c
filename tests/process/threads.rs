//! The threads of a pool: as few as can be, named, asleep, and gone in the end.

use std::cell::RefCell;
use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::time::Duration;

use warmline::{Deadline, Driver, EndpointLimits, Pool, PooledConn};

use crate::alone;
use crate::support::faults::BlackHole;
use crate::support::lab::{Act, Lab, Method};
use crate::support::server::Server;
use crate::support::{Diary, SOON, ask, eventually, tcp, watchdog};

/// The names of this process's threads that begin with the name of a pool.
fn threads_of(pool: &str) -> Vec<String> {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    // A thread may end between the two reads.
    let name = |task: fs::DirEntry| fs::read_to_string(task.path().join("comm")).ok();
    let mut names: Vec<_> = tasks.filter_map(|task| name(task.unwrap())).collect();
    names.iter_mut().for_each(|name| name.truncate(name.trim_end().len()));
    names.retain(|name| name.starts_with(&format!("{pool}-")));
    names.sort();
    names
}

/// How often the thread of that name has gone to sleep of its own will.
fn sleeps_of(name: &str) -> u64 {
    let is_it = |path: &std::path::Path| {
        fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim_end() == name)
    };
    let tasks = fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap().path());
    let task = tasks.into_iter().find(|task| is_it(task)).expect("the thread is there");
    let status = fs::read_to_string(task.join("status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    line.unwrap().trim().parse().unwrap()
}

/// Waits until the thread has come to rest.
fn await_rest(name: &str) -> u64 {
    let pool = name.split('-').next().unwrap();
    eventually("it has its name", || threads_of(pool).iter().any(|thread| thread == name));
    let mut before = sleeps_of(name);
    eventually("it comes to rest", || {
        std::thread::sleep(Duration::from_millis(30));
        let now = sleeps_of(name);
        std::mem::replace(&mut before, now) == now
    });
    before
}

#[test]
fn a_pool_has_no_thread_before_its_first_connect_and_named_ones_after_it() {
    alone("threads::a_pool_has_no_thread_before_its_first_connect_and_named_ones_after_it", || {
        let _watchdog = watchdog();
        let server = Server::echo();
        let pool = tcp().name("fish").observer(Diary::default()).build().unwrap();
        let endpoint = pool.endpoint(&server.name()).unwrap();
        assert!(endpoint.try_get().is_none());
        let _counts = pool.stats();
        pool.evict_all();
        assert_eq!(threads_of("fish"), [""; 0], "plain memory so far");
        ask(&mut endpoint.get().unwrap()).unwrap();
        // Threads take their names themselves, once they run.
        let all = ["fish-loop", "fish-observer", "fish-reaper"];
        eventually("three threads, and none of the crew", || threads_of("fish") == all);
    });
}

#[test]
fn the_last_handle_takes_the_threads_with_it_though_guards_are_out() {
    alone("threads::the_last_handle_takes_the_threads_with_it_though_guards_are_out", || {
        let _watchdog = watchdog();
        let server = Server::echo();
        for _ in 0..20 {
            let pool = tcp().name("fish").observer(Diary::default()).build().unwrap();
            let endpoint = pool.endpoint(&server.name()).unwrap();
            let mut held = endpoint.get().unwrap();
            drop(pool);
            eventually("the reaper has its name", || {
                threads_of("fish").contains(&"fish-reaper".to_owned())
            });
            drop(endpoint);
            eventually("all threads have ended", || threads_of("fish").is_empty());
            ask(&mut held).unwrap();
        }
    });
}

#[test]
fn draining_ends_the_crew_and_dropping_the_handle_the_rest() {
    alone("threads::draining_ends_the_crew_and_dropping_the_handle_the_rest", || {
        let _watchdog = watchdog();
        let pool = Pool::builder(Lab::sound()).name("fish").build().unwrap();
        let held: Vec<_> = (0..8).map(|_| pool.get_timeout("a", SOON).unwrap()).collect();
        drop(held);
        pool.drain(Deadline::after(SOON)).unwrap();
        eventually("the crew is gone", || {
            !threads_of("fish").iter().any(|name| name.starts_with("fish-crew"))
        });
        drop(pool);
        eventually("so is the reaper", || threads_of("fish").is_empty());
    });
}

#[test]
fn hanging_connects_do_not_keep_the_threads_of_a_dropped_pool() {
    alone("threads::hanging_connects_do_not_keep_the_threads_of_a_dropped_pool", || {
        let _watchdog = watchdog();
        let hole = BlackHole::new();
        let brief = Duration::from_millis(300);
        let pool = tcp().name("fish").connect_timeout(brief).build().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let nothing = pool.get_timeout(&hole.name(), Duration::from_millis(20));
                    nothing.unwrap_err();
                });
            }
        });
        drop(pool);
        eventually("all threads have ended", || threads_of("fish").is_empty());
    });
}

#[test]
fn calls_that_never_return_cost_their_threads_until_they_do() {
    alone("threads::calls_that_never_return_cost_their_threads_until_they_do", || {
        let _watchdog = watchdog();
        let lab = Lab::new(|method, _| if method == Method::Open { Act::Hang } else { Act::Go });
        let bench = lab.bench();
        let builder = Pool::builder(lab).name("fish");
        let pool = builder.connect_timeout(Duration::from_millis(20)).build().unwrap();
        eventually("some are abandoned", || {
            drop(pool.get_timeout("a", Duration::from_millis(30)));
            pool.stats().abandoned() >= 5
        });
        let count = |pool: &str| threads_of(pool).len();
        assert!(count("fish") <= bench.calls(Method::Open) + 3, "{:?}", threads_of("fish"));
        drop(pool);
        bench.release();
        eventually("all threads have ended", || threads_of("fish").is_empty());
        assert_eq!(bench.alive(), 0, "and what they opened was closed");
    });
}

#[test]
fn returns_and_checkouts_never_wake_the_reaper() {
    alone("threads::returns_and_checkouts_never_wake_the_reaper", || {
        let _watchdog = watchdog();
        let server = Server::echo();
        // Within it the reaper looks once more, at the time when the connects would be too late.
        let pool = tcp().name("fish").connect_timeout(SOON).build().unwrap();
        let endpoint = pool.endpoint(&server.name()).unwrap();
        drop([endpoint.get().unwrap(), endpoint.get().unwrap()]);
        let before = await_rest("fish-reaper");
        for _ in 0..20_000 {
            let mut conn = endpoint.get().unwrap();
            assert!(PooledConn::is_reused(&conn));
            conn.flush().unwrap();
        }
        assert_eq!(sleeps_of("fish-reaper"), before);
        assert_eq!(endpoint.stats().checkouts(), 20_002);
    });
}

#[test]
fn with_nothing_due_nobody_wakes_up() {
    alone("threads::with_nothing_due_nobody_wakes_up", || {
        let _watchdog = watchdog();
        let server = Server::echo();
        // Within it the reaper looks once more, at the time when the connects would be too late.
        let pool = tcp().name("fish").connect_timeout(SOON).build().unwrap();
        ask(&mut pool.get(&server.name()).unwrap()).unwrap();
        let before = await_rest("fish-reaper");
        std::thread::sleep(Duration::from_secs(2));
        assert_eq!(sleeps_of("fish-reaper"), before, "not once in two seconds");
        ask(&mut pool.get(&server.name()).unwrap()).unwrap();
        assert_eq!(threads_of("fish"), ["fish-loop", "fish-reaper"], "an idle one needs no crew");
    });
}

#[test]
fn endpoints_with_limits_of_their_own_that_nobody_uses_wake_nobody() {
    alone("threads::endpoints_with_limits_of_their_own_that_nobody_uses_wake_nobody", || {
        let _watchdog = watchdog();
        let servers: Vec<_> = (0..100).map(|_| Server::echo()).collect();
        let brief = Duration::from_millis(300);
        let builder = tcp().name("fish").max_idle(100).idle_timeout(brief);
        let pool = builder.connect_timeout(Duration::from_secs(1)).build().unwrap();
        for server in &servers {
            let endpoint = pool.endpoint(&server.name()).unwrap();
            endpoint.set_limits(EndpointLimits::new().max_per_endpoint(4)).unwrap();
            ask(&mut endpoint.get().unwrap()).unwrap();
        }
        eventually("no connection is left", || pool.stats().total() == 0);
        // The reaper looks once more, at the time when the connects would have been too late.
        std::thread::sleep(Duration::from_millis(1_500));
        let before = await_rest("fish-reaper");
        std::thread::sleep(Duration::from_secs(3));
        assert_eq!(sleeps_of("fish-reaper"), before, "not once in three seconds");
        assert_eq!(pool.stats().opened(), 100);
    });
}

#[test]
fn time_spent_waiting_is_not_spent_computing() {
    alone("threads::time_spent_waiting_is_not_spent_computing", || {
        let _watchdog = watchdog();
        let lab = Lab::new(|method, before| match (method, before) {
            (Method::HasCheck, _) => Act::Later,
            (Method::Open, 1) => Act::Hang,
            _ => Act::Go,
        });
        let bench = lab.bench();
        let builder = Pool::builder(lab).check_after(Duration::ZERO).fair_after(SOON);
        let pool = builder.connect_timeout(SOON).build().unwrap();
        let held = pool.get_timeout("a", SOON).unwrap();
        let cpu = || {
            let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
            Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap())
        };
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| pool.get_timeout("a", Duration::from_secs(2)).map(drop));
            eventually("the second hangs", || bench.calls(Method::Open) == 2);
            let before = cpu();
            drop(held);
            let _served_or_not = waits.join().unwrap();
            let spent = cpu() - before;
            assert!(spent < Duration::from_secs(1), "{spent:?} of CPU for one wait");
        });
        bench.release();
    });
}

#[test]
fn a_hundred_idle_connections_make_no_wake_up_in_ten_seconds() {
    alone("threads::a_hundred_idle_connections_make_no_wake_up_in_ten_seconds", || {
        let _watchdog = watchdog();
        let servers: Vec<_> = (0..10).map(|_| Server::echo()).collect();
        let pool = tcp().name("fish").observer(Diary::default()).build().unwrap();
        let endpoints = servers.iter().map(|server| pool.endpoint(&server.name()).unwrap());
        let endpoints: Vec<_> = endpoints.collect();
        for endpoint in &endpoints {
            let held: Vec<_> = (0..10).map(|_| endpoint.get().unwrap()).collect();
            held.into_iter().for_each(|mut conn| ask(&mut conn).unwrap());
        }
        assert_eq!(pool.stats().idle(), 100);
        let all = ["fish-loop", "fish-observer", "fish-reaper"];
        // The reaper looks once more, at the time when the connects would have been too late.
        std::thread::sleep(Duration::from_millis(3_200));
        let before = all.map(await_rest);
        std::thread::sleep(Duration::from_secs(10));
        assert_eq!(all.map(sleeps_of), before, "not once in ten seconds: {all:?}");
        assert_eq!(threads_of("fish"), all, "and nobody came to help");
        assert_eq!(pool.stats().idle(), 100);
    });
}

#[test]
fn exchanges_do_not_wake_the_event_loop() {
    alone("threads::exchanges_do_not_wake_the_event_loop", || {
        let _watchdog = watchdog();
        let server = Server::echo();
        for is_portable in [false, true] {
            let pool = tcp().name("fish").portable_watch(is_portable).build().unwrap();
            let endpoint = pool.endpoint(&server.name()).unwrap();
            ask(&mut endpoint.get().unwrap()).unwrap();
            let before = await_rest("fish-loop");
            let mut held = endpoint.get().unwrap();
            for _ in 0..2_000 {
                ask(&mut held).unwrap();
            }
            drop(held);
            for _ in 0..2_000 {
                ask(&mut endpoint.get().unwrap()).unwrap();
            }
            let woken = sleeps_of("fish-loop") - before;
            assert!(woken <= 4, "{woken} times in 4,000 exchanges, portably: {is_portable}");
            assert_eq!(endpoint.stats().opened(), 1);
        }
    });
}

#[test]
fn a_thousand_pools_on_one_driver_have_as_many_threads_as_one() {
    alone("threads::a_thousand_pools_on_one_driver_have_as_many_threads_as_one", || {
        let _watchdog = watchdog();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let name = listener.local_addr().unwrap().to_string();
        let driver = Driver::named("fish").unwrap();
        let accepted = RefCell::new(Vec::new());
        let pool = || {
            let pool = tcp().driver(&driver).observer(Diary::default()).build().unwrap();
            drop(pool.get(&name).unwrap());
            accepted.borrow_mut().push(listener.accept().unwrap());
            pool
        };
        let all = ["fish-loop", "fish-observer", "fish-reaper"];
        let first = pool();
        eventually("three threads", || threads_of("fish") == all);
        let mut pools: Vec<_> = (1..1_000).map(|_| pool()).collect();
        assert_eq!(threads_of("fish"), all);
        assert!(pools.iter().all(|pool| pool.stats().idle() == 1));
        pools.truncate(1);
        drop(first);
        drop(driver);
        assert_eq!(threads_of("fish"), all, "as long as one pool has it");
        drop(pools);
        eventually("all threads have ended", || threads_of("fish").is_empty());
    });
}
