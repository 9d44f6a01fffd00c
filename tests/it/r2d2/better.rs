//! What gets better for a program that changes r2d2 for this crate: each of these fails with r2d2.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use crossbeam_channel::{bounded, unbounded};
use parking_lot::Mutex;
use warmline::r2d2::{self, CustomizeConnection, ManageConnection, Pool, PooledConnection};
use warmline::{CloseReason, Config, Deadline, Driver, ErrorKind, Failure};

use super::managers::{Call, Item, Script, Trouble, threads};
use crate::support::lab::Act;
use crate::support::{SOON, assert_balanced, assert_empty, eventually, say, watchdog};

const BRIEF: Duration = Duration::from_millis(50);
const LONG: Duration = Duration::from_secs(3600);

/// Tests at every checkout, as r2d2 does.
fn tested(config: Config) -> Config {
    config.check_after(Duration::ZERO).check_interval(None)
}

/// Tests what was idle for a while, and nothing meanwhile.
fn tested_late(config: Config) -> Config {
    config.check_after(BRIEF).check_interval(None)
}

#[test]
fn a_callers_deadline_holds_though_the_test_of_a_connection_hangs() {
    let _watchdog = watchdog();
    let script = Script::always(Call::IsValid, Act::Hang);
    let builder = script.builder().max_size(1).connection_timeout(BRIEF);
    let builder = builder.configure(|config| tested(config).check_timeout(LONG));
    let pool = builder.build_unchecked(script.clone());
    eventually("it is open", || pool.state().idle_connections == 1);
    for _ in 0..3 {
        assert_eq!(pool.get().unwrap_err().kind(), ErrorKind::Timeout);
    }
    assert!(pool.try_get().is_none());
    assert_eq!((script.hanging(), script.calls(Call::IsValid)), (1, 1));
    script.release();
    assert_eq!(pool.get_timeout(SOON).unwrap().number, 0, "it was sound after all");
}

#[test]
fn a_test_that_hangs_costs_its_connection_and_no_room() {
    let _watchdog = watchdog();
    let script = Script::once(Call::IsValid, Act::Hang);
    let builder = script.builder().max_size(1).connection_timeout(SOON);
    let builder = builder.configure(|config| tested(config).check_timeout(BRIEF));
    let pool = builder.build(script.clone()).unwrap();
    assert_eq!(pool.get().unwrap().number, 1, "another was opened in its place");
    assert_eq!(pool.stats().closed_for(CloseReason::TooLate), 1);
    assert_eq!(script.hanging(), 1, "only its thread stays behind");
    script.release();
    eventually("what it had is dropped", || script.alive() == 1);
    assert_balanced(&pool.stats());
}

#[test]
fn a_callers_deadline_holds_though_connecting_hangs() {
    let _watchdog = watchdog();
    let script = Script::always(Call::Connect, Act::Hang);
    let builder = || script.builder().max_size(1).connection_timeout(BRIEF);
    let error = builder().build(script.clone()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    let pool = builder().build_unchecked(script.clone());
    assert_eq!(pool.get().unwrap_err().kind(), ErrorKind::Timeout);
    script.release();
    drop(pool.get_timeout(SOON).unwrap());
    assert_eq!(pool.state().connections, 1);
    eventually("the first pool's is dropped", || script.alive() == 1);
}

#[test]
fn a_pool_that_cannot_be_built_says_so_when_its_time_is_over_or_at_once_for_who_wants_that() {
    let _watchdog = watchdog();
    let script = Script::always(Call::Connect, Act::Fail);
    let builder = || script.builder().max_size(2);
    let error = builder().connection_timeout(20 * BRIEF).build(script.clone()).unwrap_err();
    assert_eq!(error.failure(), Some(Failure::Other));
    assert!(error.waited() >= Some(3 * BRIEF), "{error}");
    assert!(script.calls(Call::Connect) >= 2, "it was tried more than once");
    let at_once = builder().connection_timeout(LONG).configure(|config| config.fail_fast(true));
    assert_eq!(at_once.build(script.clone()).unwrap_err().kind(), ErrorKind::Connect);
}

#[test]
fn a_pool_that_has_none_of_its_connections_in_time_is_a_time_out() {
    let _watchdog = watchdog();
    let script = Script::always(Call::Connect, Act::Fail);
    let error = script.builder().connection_timeout(20 * BRIEF).build(script.clone()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
}

#[test]
fn a_pool_that_gets_some_of_its_connections_is_not_built() {
    let _watchdog = watchdog();
    let script = Script::new(|call, before| match call {
        Call::Connect if before >= 3 => Act::Fail,
        _ => Act::Go,
    });
    let error = script.builder().max_size(5).connection_timeout(20 * BRIEF).build(script.clone());
    let error = error.unwrap_err();
    assert_eq!((error.kind(), error.failure()), (ErrorKind::Timeout, Some(Failure::Other)));
    eventually("those it had are closed", || script.alive() == 0);
    assert_eq!(script.calls(Call::OnRelease), 3);
}

#[test]
fn a_connect_that_hangs_costs_no_room() {
    let _watchdog = watchdog();
    let script = Script::once(Call::Connect, Act::Hang);
    let builder = script.builder().max_size(1).connection_timeout(SOON);
    let builder = builder.configure(|config| config.connect_timeout(BRIEF));
    let pool = builder.build(script.clone()).unwrap();
    drop(pool.get().unwrap());
    assert_eq!((pool.stats().abandoned(), script.hanging()), (1, 1));
    script.release();
    eventually("what comes too late is dropped", || (script.alive(), script.born()) == (1, 2));
    eventually("and released", || script.calls(Call::OnRelease) == 1);
    assert_balanced(&pool.stats());
}

#[test]
fn a_panic_anywhere_costs_no_room_for_ever() {
    let _watchdog = watchdog();
    for call in Call::ALL {
        // What handles errors is called when there are some, what releases when something ends.
        let script = Script::new(move |called, before| match (called, before) {
            _ if called == call && before == 0 => Act::Panic,
            (Call::IsValid | Call::Connect, 0) if call == Call::HandleError => Act::Fail,
            (Call::HasBroken, 1) => Act::Fail,
            _ => Act::Go,
        });
        let builder = script.builder().max_size(1).connection_timeout(SOON).configure(tested);
        let pool = builder.build(script.clone()).unwrap();
        script.watch_over(&pool);
        for _ in 0..5 {
            let conn = pool.get().unwrap_or_else(|error| panic!("{call:?}: {error:#}"));
            pool.get_timeout(Duration::ZERO).unwrap_err();
            drop(conn);
        }
        assert!(script.calls(call) > 0, "{call:?} was not called");
        eventually("it is whole again", || pool.stats().idle() == 1);
        eventually("nothing lives on", || script.alive() == 1);
        assert_balanced(&pool.stats());
        script.let_go();
    }
}

#[test]
fn a_connection_whose_user_panicked_is_given_to_nobody() {
    let _watchdog = watchdog();
    let script = Script::sound();
    let pool = script.builder().max_size(1).build(script.clone()).unwrap();
    let mut conn = pool.get().unwrap();
    let user = std::thread::spawn(move || {
        conn.notes.push(1); // the first half of something
        std::panic::panic_any("a user was told to panic");
    });
    user.join().unwrap_err();
    let conn = pool.get_timeout(SOON).unwrap();
    assert_eq!((conn.number, conn.notes.len()), (1, 0));
    assert_eq!(pool.stats().closed_for(CloseReason::Panicked), 1);
    assert_eq!(script.calls(Call::HasBroken), 0, "there was nothing to ask");
    eventually("it is released", || script.calls(Call::OnRelease) == 1);
}

#[test]
fn a_connection_in_steady_use_is_not_tested() {
    let _watchdog = watchdog();
    let script = Script::sound();
    let builder = script.builder().max_size(1).configure(|config| config.check_after(LONG));
    let pool = builder.build(script.clone()).unwrap();
    for _ in 0..100 {
        drop(pool.get().unwrap());
    }
    assert_eq!((script.calls(Call::IsValid), script.calls(Call::HasBroken)), (0, 100));
}

#[test]
fn a_connection_is_tested_at_every_checkout_for_who_wants_that() {
    let _watchdog = watchdog();
    let script = Script::sound();
    let pool = script.builder().max_size(1).configure(tested).build(script.clone()).unwrap();
    for count in 1..=20 {
        drop(pool.get().unwrap());
        assert_eq!(script.calls(Call::IsValid), count);
    }
}

#[test]
fn a_connection_is_tested_once_it_was_idle_for_long_enough() {
    let _watchdog = watchdog();
    let script = Script::sound();
    let builder = script.builder().max_size(1).configure(tested_late);
    let pool = builder.build(script.clone()).unwrap();
    for count in 1..=3 {
        std::thread::sleep(2 * BRIEF);
        drop(pool.get().unwrap());
        assert_eq!(script.calls(Call::IsValid), count);
    }
}

#[test]
fn a_program_that_only_tries_now_and_then_gets_what_is_idle_once_it_is_tested() {
    let _watchdog = watchdog();
    let script = Script::sound();
    let builder = script.builder().max_size(1).configure(tested_late);
    let pool = builder.build(script.clone()).unwrap();
    for count in 1..=3 {
        std::thread::sleep(2 * BRIEF);
        drop(pool.try_get().expect("one is idle"));
        assert_eq!((script.calls(Call::IsValid), script.born()), (count, 1));
    }
}

#[test]
fn who_tries_finds_what_is_idle_however_soon_its_test_is_over() {
    let _watchdog = watchdog();
    let script = Script::sound();
    let pool = script.builder().max_size(1).configure(tested).build(script.clone()).unwrap();
    let found = (0..1000).filter(|_| pool.try_get().is_some()).count();
    assert_eq!((found, script.born()), (1000, 1));
}

#[test]
fn idle_connections_are_tested_before_anybody_needs_them() {
    let _watchdog = watchdog();
    let script = Script::once(Call::IsValid, Act::Fail);
    let builder = script.builder().max_size(2);
    let builder = builder.configure(|config| config.check_interval(BRIEF));
    let pool = builder.build(script.clone()).unwrap();
    eventually("one fails, and is replaced", || script.born() == 3 && script.alive() == 2);
    eventually("and its successor is tested", || script.calls(Call::IsValid) >= 6);
    assert_eq!(pool.stats().closed_for(CloseReason::CheckFailed), 1);
    assert_eq!(pool.stats().checkouts(), 0);
}

#[test]
fn a_closed_pool_turns_callers_away_at_once_and_waits_for_those_who_have_something() {
    let _watchdog = watchdog();
    let script = Script::sound();
    let pool = script.builder().max_size(2).build(script.clone()).unwrap();
    let held = pool.get().unwrap();
    std::thread::scope(|scope| {
        let _second = pool.get().unwrap();
        let waits = scope.spawn(|| pool.get_timeout(LONG).map(drop).unwrap_err().kind());
        eventually("somebody waits", || pool.stats().waiting() == 1);
        pool.close();
        assert_eq!(waits.join().unwrap(), ErrorKind::Closed);
    });
    assert_eq!(pool.get().unwrap_err().kind(), ErrorKind::Closed);
    assert!(pool.try_get().is_none());
    let error = pool.drain(Deadline::after(BRIEF)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "one is out");
    assert_eq!(script.alive(), 1);
    drop(held);
    pool.drain(Deadline::after(SOON)).unwrap();
    assert_eq!((script.alive(), script.calls(Call::OnRelease)), (0, 2));
    assert_empty(&pool.stats());
}

#[test]
fn a_connection_can_be_thrown_away() {
    let _watchdog = watchdog();
    let script = Script::sound();
    let pool = script.builder().max_size(1).build(script.clone()).unwrap();
    PooledConnection::discard(pool.get().unwrap());
    assert_eq!(pool.get_timeout(SOON).unwrap().number, 1);
    assert_eq!(pool.stats().closed_for(CloseReason::Discarded), 1);
    eventually("it is released", || script.calls(Call::OnRelease) == 1);
    let (out, back) = (script.calls(Call::HandleCheckout), script.calls(Call::HandleCheckin));
    assert_eq!((out, back), (2, 2));
}

#[test]
fn a_connection_can_be_kept_for_good_and_makes_room() {
    let _watchdog = watchdog();
    let script = Script::sound();
    let pool = script.builder().max_size(1).build(script.clone()).unwrap();
    let item: Item = PooledConnection::detach(pool.get().unwrap());
    assert_eq!(pool.get_timeout(SOON).unwrap().number, 1);
    pool.drain(Deadline::after(SOON)).unwrap();
    drop(pool);
    assert_eq!((item.number, script.alive()), (0, 1));
    assert_eq!((script.calls(Call::OnRelease), script.calls(Call::HandleCheckin)), (1, 2));
}

#[test]
fn who_came_first_is_served_first() {
    let _watchdog = watchdog();
    let builder = Pool::builder().max_size(1).connection_timeout(SOON);
    let builder = builder.configure(|config| config.fair_after(Duration::ZERO));
    let pool = builder.build(Script::sound()).unwrap();
    let held = pool.get().unwrap();
    let (tell, told) = unbounded();
    std::thread::scope(|scope| {
        for caller in 0..6 {
            let (pool, tell) = (&pool, tell.clone());
            scope.spawn(move || {
                let _conn = pool.get().unwrap();
                tell.send(caller).unwrap();
            });
            eventually("it waits", || pool.stats().waiting() == caller + 1);
        }
        drop(held);
    });
    assert_eq!(told.try_iter().collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
}

#[test]
fn a_server_that_comes_back_is_found_before_anybody_gives_up() {
    let _watchdog = watchdog();
    // After so many failures r2d2 would pause for longer than a caller waits.
    let script = Script::new(|call, before| match call {
        Call::Connect if before < 20 => Act::Fail,
        _ => Act::Go,
    });
    let pool = script.builder().max_size(4).build_unchecked(script.clone());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| drop(pool.get().expect("it is back within the 30 s of the default")));
        }
    });
    assert!(script.calls(Call::Connect) <= 20 + 4, "and was not rushed meanwhile");
    assert_eq!(pool.stats().timed_out(), 0);
}

#[test]
fn connections_are_opened_side_by_side() {
    /// Connects once all are at it.
    struct Together(Barrier);

    impl ManageConnection for Together {
        type Connection = ();
        type Error = io::Error;
        fn connect(&self) -> io::Result<()> {
            self.0.wait();
            Ok(())
        }
        fn is_valid(&self, (): &mut ()) -> io::Result<()> {
            Ok(())
        }
        fn has_broken(&self, (): &mut ()) -> bool {
            false
        }
    }

    let _watchdog = watchdog();
    let pool = Pool::builder().max_size(10).build(Together(Barrier::new(10))).unwrap();
    assert_eq!(pool.state().connections, 10);
}

#[test]
fn many_pools_need_no_more_threads_than_one() {
    let _watchdog = watchdog();
    if threads("").is_none() {
        return say("skipped: the system does not tell which threads there are");
    }
    let driver = Driver::named("lynx").unwrap();
    let pools: Vec<_> = (0..20)
        .map(|_| Pool::builder().max_size(1).driver(&driver).build(Script::sound()).unwrap())
        .collect();
    for pool in &pools {
        drop(pool.get().unwrap());
    }
    let names = threads("lynx").unwrap();
    assert!((1..=6).contains(&names.len()), "20 pools of r2d2 have 60: {names:?}");
    drop((pools, driver));
    eventually("none is left", || threads("lynx").unwrap().is_empty());
}

#[test]
fn who_asks_the_pool_that_waits_for_him_is_told_so() {
    #[derive(Debug, Default)]
    struct Greedy(Mutex<Option<Pool<Script>>>, Mutex<Option<ErrorKind>>, AtomicUsize);

    impl CustomizeConnection<Item, Trouble> for &'static Greedy {
        fn on_acquire(&self, _: &mut Item) -> Result<(), Trouble> {
            self.2.fetch_add(1, Ordering::SeqCst);
            let pool = self.0.lock().take();
            if let Some(pool) = pool {
                *self.1.lock() = pool.get_timeout(LONG).err().map(|error| error.kind());
            }
            Ok(())
        }
    }

    let _watchdog = watchdog();
    let greedy: &'static Greedy = Box::leak(Box::default());
    let script = Script::sound();
    let builder = Pool::builder().max_size(1).min_idle(Some(0));
    let pool = builder.connection_customizer(Box::new(greedy)).build(script).unwrap();
    *greedy.0.lock() = Some(pool.clone());
    drop(pool.get_timeout(SOON).unwrap());
    assert_eq!(*greedy.1.lock(), Some(ErrorKind::Rejected));
    assert_eq!(greedy.2.load(Ordering::SeqCst), 1);
}

#[test]
fn an_r2d2_manager_is_a_connector_like_any_other() {
    let _watchdog = watchdog();
    let script = Script::once(Call::HasBroken, Act::Fail);
    let endpoint = r2d2::of(script.clone()).unwrap();
    assert_eq!(endpoint.get().unwrap().number, 0);
    assert_eq!(endpoint.get().unwrap().number, 1, "the first had broken");
    let request = endpoint.request().unwrap();
    assert_eq!(request.receiver().recv_timeout(SOON).unwrap().unwrap().number, 1);
    let failing = r2d2::of(Script::always(Call::Connect, Act::Fail)).unwrap();
    let error = failing.get().unwrap_err();
    assert_eq!((error.kind(), error.failure()), (ErrorKind::Connect, Some(Failure::Other)));
    assert_eq!(script.calls(Call::HandleAcquire), 0, "it has no handlers");
}

#[test]
fn a_handler_that_takes_its_time_holds_up_nobody_else() {
    let _watchdog = watchdog();
    let script = Script::once(Call::HandleRelease, Act::Hang);
    let pool = script.builder().max_size(1).build(script.clone()).unwrap();
    PooledConnection::discard(pool.get().unwrap());
    eventually("it is at it", || script.hanging() == 1);
    for _ in 0..10 {
        drop(pool.get_timeout(SOON).unwrap());
    }
    let (tell, told) = bounded(1);
    let dropped = Arc::new(pool);
    std::thread::spawn(move || {
        drop(dropped);
        tell.send(()).unwrap();
    });
    told.recv_timeout(SOON).expect("the end of the pool does not wait for it");
    script.release();
    eventually("all are released", || script.alive() == 0);
}
