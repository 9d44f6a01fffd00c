//! What r2d2 promises to programs, kept under its names: a program that changes its `use` line
//! finds settings, defaults, order and hooks as they were.

use std::error::Error as StdError;
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;
use warmline::r2d2::{
    Builder, Error, ManageConnection, NopConnectionCustomizer, NopEventHandler, Pool,
    PooledConnection, State,
};
use warmline::{CloseReason, ErrorKind};

use super::managers::{Call, Item, Script, Told};
use crate::support::lab::Act;
use crate::support::{SOON, assert_balanced, eventually, watchdog};

const BRIEF: Duration = Duration::from_millis(50);
const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn a_pool_with_the_default_settings_is_r2d2s_default_pool() {
    let _watchdog = watchdog();
    let script = Script::sound();
    let pool = Pool::new(script.clone()).unwrap();
    assert_eq!((pool.max_size(), pool.min_idle()), (10, None));
    assert!(pool.test_on_check_out());
    assert_eq!(pool.max_lifetime(), Some(30 * MINUTE));
    assert_eq!(pool.idle_timeout(), Some(10 * MINUTE));
    assert_eq!(pool.connection_timeout(), MINUTE / 2);
    let State { connections, idle_connections, .. } = pool.state();
    assert_eq!((connections, idle_connections), (10, 10));
    assert_eq!((script.alive(), script.born()), (10, 10));
}

#[test]
fn a_pool_says_its_settings_as_they_were_set() {
    let _watchdog = watchdog();
    let pool = Builder::new()
        .max_size(7)
        .min_idle(Some(3))
        .test_on_check_out(false)
        .max_lifetime(Some(MINUTE))
        .idle_timeout(Some(2 * MINUTE))
        .connection_timeout(3 * MINUTE)
        .build(Script::sound())
        .unwrap();
    assert_eq!((pool.max_size(), pool.min_idle()), (7, Some(3)));
    assert!(!pool.test_on_check_out());
    assert_eq!((pool.max_lifetime(), pool.idle_timeout()), (Some(MINUTE), Some(2 * MINUTE)));
    assert_eq!(pool.connection_timeout(), 3 * MINUTE);
    let second = pool.clone();
    assert_eq!((second.max_size(), second.connection_timeout()), (7, 3 * MINUTE));
    let unlimited = Builder::default().max_lifetime(None).idle_timeout(None).min_idle(None);
    let unlimited = unlimited.max_size(1).build(Script::sound()).unwrap();
    assert_eq!((unlimited.max_lifetime(), unlimited.idle_timeout()), (None, None));
    assert_eq!(unlimited.min_idle(), None);
    let none_ready = Pool::builder().min_idle(Some(0)).build(Script::sound()).unwrap();
    assert_eq!(none_ready.min_idle(), Some(0));
}

#[test]
fn a_pool_that_is_to_have_all_connections_ready_says_as_many_as_were_named() {
    let pool = Pool::builder().max_size(3).min_idle(Some(3)).build(Script::sound()).unwrap();
    assert_eq!(pool.min_idle(), Some(3));
}

#[test]
fn a_built_pool_has_as_many_connections_as_are_to_be_ready() {
    let _watchdog = watchdog();
    for (max_size, min_idle, ready) in [(5, None, 5), (5, Some(2), 2), (5, Some(0), 0)] {
        let script = Script::sound();
        let builder = script.builder().max_size(max_size).min_idle(min_idle);
        let pool = builder.build(script.clone()).unwrap();
        let state = pool.state();
        assert_eq!((state.connections, state.idle_connections), (ready, ready), "{min_idle:?}");
        assert_eq!(script.born(), ready as usize, "no more than that");
    }
}

#[test]
fn a_pool_built_unchecked_is_there_before_its_connections_are() {
    let _watchdog = watchdog();
    let script = Script::always(Call::Connect, Act::Hang);
    let pool = script.builder().max_size(2).build_unchecked(script.clone());
    assert_eq!((pool.state().connections, pool.try_get().is_none()), (0, true));
    eventually("they begin to be opened nevertheless", || script.hanging() == 2);
    script.release();
    eventually("and are there", || pool.state().idle_connections == 2);
}

#[test]
fn no_more_connections_are_out_than_the_pool_may_have() {
    let _watchdog = watchdog();
    let script = Script::sound();
    let pool = script.builder().max_size(3).min_idle(Some(0)).build(script.clone()).unwrap();
    let conns: Vec<_> = (0..3).map(|_| pool.get().unwrap()).collect();
    let mut numbers: Vec<_> = conns.iter().map(|conn| conn.number).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [0, 1, 2], "each has its own");
    assert!(pool.try_get().is_none());
    assert_eq!(pool.get_timeout(BRIEF).unwrap_err().kind(), ErrorKind::Timeout);
    let state = pool.state();
    assert_eq!((state.connections, state.idle_connections, script.born()), (3, 0, 3));
    drop(conns);
    assert_eq!(pool.state().idle_connections, 3, "all come back to stay");
}

#[test]
fn a_try_takes_what_is_idle_and_opens_nothing() {
    let _watchdog = watchdog();
    let script = Script::sound();
    let pool = script.builder().max_size(2).min_idle(Some(0)).build(script.clone()).unwrap();
    assert!(pool.try_get().is_none());
    assert_eq!((script.calls(Call::Connect), pool.stats().connecting()), (0, 0));
    let number = pool.get().unwrap().number;
    let conn = pool.try_get().unwrap();
    assert_eq!(conn.number, number);
    assert!(pool.try_get().is_none());
    drop(conn);
    assert!(pool.try_get().is_some());
}

#[test]
fn the_connection_used_last_goes_out_first_so_that_the_others_can_expire() {
    let _watchdog = watchdog();
    let pool = Pool::builder().max_size(3).build(Script::sound()).unwrap();
    let (one, two, three) = (pool.get().unwrap(), pool.get().unwrap(), pool.get().unwrap());
    let last = two.number;
    drop((one, three));
    drop(two);
    for _ in 0..5 {
        assert_eq!(pool.get().unwrap().number, last);
    }
}

#[test]
fn a_caller_waits_until_a_connection_comes_back() {
    let _watchdog = watchdog();
    let pool = Pool::builder().max_size(1).build(Script::sound()).unwrap();
    let held = pool.get_timeout(SOON).unwrap();
    let number = held.number;
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| pool.get_timeout(SOON).unwrap().number);
        eventually("it waits", || pool.stats().waiting() == 1);
        drop(held);
        assert_eq!(waits.join().unwrap(), number);
    });
}

#[test]
fn a_caller_waits_as_long_as_the_pool_says_and_no_longer() {
    let _watchdog = watchdog();
    let builder = Pool::builder().max_size(1).connection_timeout(2 * BRIEF);
    let pool = builder.build(Script::sound()).unwrap();
    let _held = pool.get().unwrap();
    let began = Instant::now();
    let error = pool.get().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(began.elapsed() >= BRIEF, "not before: {error}");
    let error = pool.get_timeout(Duration::ZERO).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "now or never");
}

#[test]
fn who_cannot_be_served_is_told_what_the_manager_said() {
    let _watchdog = watchdog();
    let script = Script::always(Call::Connect, Act::Fail);
    let error = script.builder().connection_timeout(20 * BRIEF).build(script.clone()).unwrap_err();
    assert!(error.to_string().contains("Connect was told to fail"), "{error}");
    let lazy = script.builder().connection_timeout(20 * BRIEF).build_unchecked(script.clone());
    let error = lazy.get().unwrap_err();
    assert!(error.to_string().contains("Connect was told to fail"), "{error}");
}

#[test]
fn handles_guards_and_errors_go_where_r2d2s_may() {
    fn everywhere<T: Send + Sync + 'static>() {}
    fn sent<T: Send + 'static>() {}
    fn error<T: StdError + Send + Sync + 'static>() {}

    everywhere::<Pool<Script>>();
    everywhere::<PooledConnection<Script>>();
    everywhere::<NopEventHandler>();
    everywhere::<NopConnectionCustomizer>();
    sent::<Builder<Script>>();
    error::<Error>();
    let pool = Pool::builder().max_size(1).build(Script::sound()).unwrap();
    let conn = pool.get().unwrap();
    let moved = std::thread::spawn(move || conn.number);
    assert_eq!(moved.join().unwrap(), 0);
    assert!(pool.get_timeout(SOON).is_ok(), "it came back from there");
}

#[test]
fn whatever_has_r2d2s_name_can_be_shown() {
    let _watchdog = watchdog();
    let script = Script::sound();
    let builder = script.builder().max_size(3);
    let text = format!("{builder:?}");
    for part in ["max_size: 3", "connection_timeout: 30s", "connection_customizer: Script"] {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
    let pool = builder.build(script.clone()).unwrap();
    let text = format!("{pool:?}");
    for part in ["Pool", "connections: 3", "idle_connections: 3"] {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
    let conn = pool.get().unwrap();
    assert_eq!(format!("{conn:?}"), format!("Item {}", conn.number), "as the connection itself");
    let text = format!("{:?}", pool.state());
    assert!(text.contains("connections: 3") && text.contains("idle_connections: 2"), "{text}");
}

#[test]
fn the_last_handle_ends_the_pool_and_a_guard_may_outlive_it() {
    let _watchdog = watchdog();
    let script = Script::sound();
    let pool = script.builder().max_size(3).build(script.clone()).unwrap();
    let mut conn = pool.get().unwrap();
    let second = pool.clone();
    drop(pool);
    assert!(second.get().is_ok(), "there is a handle left");
    drop(second);
    eventually("what was idle is closed", || script.alive() == 1);
    conn.notes.push(1);
    drop(conn);
    eventually("and the last", || script.alive() == 0);
    assert_eq!(script.calls(Call::OnRelease), 3, "each was released");
    eventually("each was told", || {
        script.told().iter().filter(|told| matches!(told, Told::Closed(_))).count() == 3
    });
}

#[test]
fn connections_that_nobody_needs_expire_but_for_those_kept_ready() {
    let _watchdog = watchdog();
    let script = Script::sound();
    let builder = script.builder().max_size(5).min_idle(Some(1)).idle_timeout(Some(BRIEF));
    let pool = builder.build(script.clone()).unwrap();
    let held: Vec<_> = (0..5).map(|_| pool.get().unwrap()).collect();
    assert_eq!(pool.state().connections, 5);
    drop(held);
    eventually("four are closed", || script.alive() == 1);
    assert_eq!(pool.stats().closed_for(CloseReason::IdleTimeout), 4);
    assert_eq!((pool.state().connections, script.born()), (1, 5), "none is opened for them");
    assert_balanced(&pool.stats());
}

#[test]
fn old_connections_are_replaced_and_one_in_use_ends_when_it_comes_back() {
    let _watchdog = watchdog();
    let script = Script::sound();
    let builder = script.builder().max_size(3).max_lifetime(Some(4 * BRIEF));
    let pool = builder.build(script.clone()).unwrap();
    let held = pool.get().unwrap();
    let number = held.number;
    eventually("those beside it are replaced", || script.born() >= 5);
    assert_eq!(held.number, number);
    eventually("its time is over", || pool.stats().use_time() < MINUTE && script.born() >= 8);
    drop(held);
    eventually("it is closed", || {
        script.told().contains(&Told::Closed(script.told()[0].id().unwrap()))
            && pool.stats().closed_for(CloseReason::MaxLifetime) >= 5
    });
    assert_balanced(&pool.stats());
}

#[test]
fn some_are_kept_ready_beside_those_in_use() {
    let _watchdog = watchdog();
    let script = Script::sound();
    let builder = script.builder().max_size(5).min_idle(Some(2));
    let pool = builder.build(script.clone()).unwrap();
    let held: Vec<_> = (0..3).map(|_| pool.get().unwrap()).collect();
    eventually("two are ready again", || pool.state().idle_connections == 2);
    assert_eq!(pool.state().connections, 5);
    drop(held);
    assert_eq!((pool.state().connections, pool.state().idle_connections), (5, 5));
    assert_eq!(script.born(), 5);
}

#[test]
fn a_connection_that_has_broken_is_closed_and_given_to_nobody() {
    let _watchdog = watchdog();
    let script = Script::once(Call::HasBroken, Act::Fail);
    let pool = script.builder().max_size(1).build(script.clone()).unwrap();
    drop(pool.get().unwrap());
    assert_eq!(pool.get().unwrap().number, 1);
    assert_eq!(pool.get().unwrap().number, 1, "this one is sound");
    eventually("the other is dropped", || script.alive() == 1);
    assert_eq!(pool.stats().closed_for(CloseReason::NotOpen), 1);
}

#[test]
fn a_connection_that_fails_its_test_is_given_to_nobody() {
    let _watchdog = watchdog();
    let script = Script::once(Call::IsValid, Act::Fail);
    let builder = script.builder().max_size(1);
    let builder = builder.configure(|config| config.check_after(Duration::ZERO));
    let pool = builder.build(script.clone()).unwrap();
    assert_eq!(pool.get().unwrap().number, 1);
    assert_eq!(pool.stats().closed_for(CloseReason::CheckFailed), 1);
    assert_eq!(script.errors(), ["IsValid was told to fail"]);
}

#[test]
fn without_tests_none_is_made_however_long_a_connection_was_idle() {
    let _watchdog = watchdog();
    let script = Script::always(Call::IsValid, Act::Fail);
    let builder = script.builder().max_size(1).test_on_check_out(false);
    let brief = Duration::from_millis(1);
    let builder = builder.configure(|config| config.check_after(brief).check_interval(brief));
    let pool = builder.build(script.clone()).unwrap();
    for _ in 0..5 {
        std::thread::sleep(10 * brief);
        assert_eq!(pool.get().unwrap().number, 0);
    }
    assert_eq!((script.calls(Call::IsValid), pool.stats().checks()), (0, 0));
}

#[test]
fn while_one_connection_is_tested_others_are_to_be_had() {
    let _watchdog = watchdog();
    let script = Script::new(|call, before| match (call, before) {
        (Call::IsValid, 0) => Act::Hang,
        _ => Act::Go,
    });
    let builder = script.builder().max_size(2);
    let builder = builder.configure(|config| config.check_after(BRIEF));
    let pool = builder.connection_timeout(SOON).build(script.clone()).unwrap();
    std::thread::sleep(2 * BRIEF);
    std::thread::scope(|scope| {
        scope.spawn(|| pool.get().unwrap());
        eventually("the first is being tested", || script.hanging() == 1);
        drop(pool.get().expect("the second is free"));
        script.release();
    });
    assert_eq!((pool.state().idle_connections, script.born()), (2, 2));
}

#[test]
fn a_test_that_hangs_keeps_nobody_from_another_connection() {
    let _watchdog = watchdog();
    let script = Script::once(Call::IsValid, Act::Hang);
    let builder = script.builder().max_size(2).configure(|config| {
        let config = config.check_after(BRIEF).check_interval(None);
        config.check_timeout(Duration::from_secs(3600))
    });
    let pool = builder.build(script.clone()).unwrap();
    std::thread::sleep(2 * BRIEF);
    drop(pool.get_timeout(BRIEF)); // in vain, or with the second
    assert_eq!(script.hanging(), 1);
    drop(pool.get_timeout(SOON).expect("the second is idle, and sound"));
    script.release();
}

#[test]
fn a_connection_is_its_users_alone_however_many_threads_there_are() {
    let _watchdog = watchdog();
    let script = Script::sound();
    let pool = script.builder().max_size(3).build(script.clone()).unwrap();
    script.watch_over(&pool);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let pool = pool.clone();
            scope.spawn(move || {
                for _ in 0..200 {
                    let mut conn = pool.get().unwrap();
                    conn.notes.push(thread);
                    std::thread::yield_now();
                    assert_eq!(conn.notes, [thread]);
                    conn.notes.clear();
                }
            });
        }
    });
    assert_eq!((pool.state().connections, pool.state().idle_connections), (3, 3));
    assert_eq!(pool.stats().checkouts(), 1600);
    let (out, back) = (script.calls(Call::HandleCheckout), script.calls(Call::HandleCheckin));
    assert_eq!((out, back), (1600, 1600));
    script.let_go();
}

#[test]
fn a_manager_that_hides_what_it_needs_is_connected_to_as_it_wants() {
    /// As many wrap another: with a setup of their own.
    struct Wrapped<M>(M, u32);

    impl<M: ManageConnection<Connection = Item>> ManageConnection for Wrapped<M> {
        type Connection = Item;
        type Error = M::Error;
        fn connect(&self) -> Result<Item, M::Error> {
            let mut item = self.0.connect()?;
            item.notes.push(self.1);
            Ok(item)
        }
        fn is_valid(&self, item: &mut Item) -> Result<(), M::Error> {
            self.0.is_valid(item)
        }
        fn has_broken(&self, item: &mut Item) -> bool {
            self.0.has_broken(item)
        }
    }

    let _watchdog = watchdog();
    let (send, sent) = bounded(1);
    let pool = Pool::builder().max_size(1).build(Wrapped(Script::sound(), 5)).unwrap();
    std::thread::spawn(move || send.send(pool.get().unwrap().notes.clone()));
    assert_eq!(sent.recv_timeout(SOON).unwrap(), [5]);
}
