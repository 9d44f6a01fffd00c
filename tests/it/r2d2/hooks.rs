//! What r2d2 calls beside a manager, called here as there: customizer, error handler, event
//! handler; and what users keep with a connection.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use warmline::Failure;
use warmline::r2d2::event::{
    AcquireEvent, CheckinEvent, CheckoutEvent, HandleEvent, ReleaseEvent, TimeoutEvent,
};
use warmline::r2d2::{
    CustomizeConnection, Extensions, LoggingErrorHandler, ManageConnection, NopErrorHandler, Pool,
    PooledConnection,
};

use super::managers::{Call, Item, Script, Told, Trouble};
use crate::support::lab::Act;
use crate::support::{SOON, eventually, watchdog};

const BRIEF: Duration = Duration::from_millis(50);

#[test]
fn the_customizer_sees_a_connection_before_anybody_and_after_everybody() {
    #[derive(Debug)]
    struct Customizer(Mutex<Vec<usize>>);

    impl CustomizeConnection<Item, Trouble> for &'static Customizer {
        fn on_acquire(&self, item: &mut Item) -> Result<(), Trouble> {
            item.notes.push(7);
            Ok(())
        }
        fn on_release(&self, item: Item) {
            assert_eq!(item.notes, [7, 8], "as its last user left it");
            self.0.lock().push(item.number);
        }
    }

    let _watchdog = watchdog();
    let customizer: &'static Customizer = Box::leak(Box::new(Customizer(Mutex::default())));
    let script = Script::always(Call::HasBroken, Act::Fail);
    let builder = Pool::builder().max_size(1).connection_customizer(Box::new(customizer));
    let pool = builder.build(script.clone()).unwrap();
    for number in 0..3 {
        let mut conn = pool.get().unwrap();
        assert_eq!((conn.number, &*conn.notes), (number, &[7][..]));
        assert_eq!(customizer.0.lock().len(), number, "nothing is released before its time");
        conn.notes.push(8);
        drop(conn);
        eventually("it is released", || customizer.0.lock().len() == number + 1);
    }
    assert_eq!(*customizer.0.lock(), [0, 1, 2]);
}

#[test]
fn a_connection_that_the_customizer_refuses_is_dropped_and_another_takes_its_place() {
    let _watchdog = watchdog();
    let script = Script::new(|call, before| match call {
        Call::OnAcquire if before < 2 => Act::Fail,
        _ => Act::Go,
    });
    let pool = script.builder().max_size(1).build(script.clone()).unwrap();
    assert_eq!(pool.get().unwrap().number, 2);
    assert_eq!(script.errors(), ["OnAcquire was told to fail"; 2]);
    assert_eq!((script.alive(), script.born()), (1, 3));
    assert_eq!(script.calls(Call::OnRelease), 0, "it never was in the pool");
    assert_eq!(script.told().iter().filter(|told| matches!(told, Told::Opened(_))).count(), 1);
}

/// Connections whose end panics, whatever it was that went wrong before.
struct Brittle;

impl Drop for Brittle {
    fn drop(&mut self) {
        std::panic::panic_any("a connection was told to panic when it is dropped");
    }
}

struct Brittles;

impl ManageConnection for Brittles {
    type Connection = Brittle;
    type Error = fmt::Error;
    fn connect(&self) -> Result<Brittle, fmt::Error> {
        Ok(Brittle)
    }
    fn is_valid(&self, _: &mut Brittle) -> Result<(), fmt::Error> {
        Ok(())
    }
    fn has_broken(&self, _: &mut Brittle) -> bool {
        false
    }
}

#[test]
fn what_a_customizer_refuses_may_panic_when_it_is_dropped() {
    #[derive(Debug)]
    struct Refuses(Act);

    impl CustomizeConnection<Brittle, fmt::Error> for Refuses {
        fn on_acquire(&self, _: &mut Brittle) -> Result<(), fmt::Error> {
            match self.0 {
                Act::Panic => std::panic::panic_any("a customizer was told to panic"),
                _ => Err(fmt::Error),
            }
        }
    }

    let _watchdog = watchdog();
    let words = fmt::Error.to_string();
    for (act, failure, words) in [
        (Act::Panic, Failure::Panic, "a customizer was told to panic"),
        (Act::Fail, Failure::Other, &*words),
    ] {
        let builder = Pool::builder().max_size(1).connection_customizer(Box::new(Refuses(act)));
        let pool = builder.build_unchecked(Brittles);
        eventually("an attempt has failed", || pool.stats().connects_failed() > 0);
        let error = pool.get_timeout(BRIEF).err().expect("all are refused");
        assert_eq!(error.failure(), Some(failure), "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[test]
fn the_error_handler_is_given_each_error_itself() {
    let _watchdog = watchdog();
    let script = Script::new(|call, before| match (call, before) {
        (Call::Connect | Call::OnAcquire | Call::IsValid, 0) => Act::Fail,
        _ => Act::Go,
    });
    let builder = script.builder().max_size(1);
    let builder = builder.configure(|config| config.check_after(Duration::ZERO));
    let pool = builder.build(script.clone()).unwrap();
    drop(pool.get().unwrap());
    eventually("it has heard of all", || script.errors().len() == 3);
    let words = ["Connect", "OnAcquire", "IsValid"].map(|call| format!("{call} was told to fail"));
    assert_eq!(script.errors(), words);
    for builder in [
        Pool::builder().error_handler(Box::new(NopErrorHandler)),
        Pool::builder().error_handler(Box::new(LoggingErrorHandler)),
    ] {
        let script = Script::once(Call::Connect, Act::Fail);
        drop(builder.max_size(1).build(script).unwrap().get().unwrap());
    }
}

#[test]
fn the_events_of_a_connection_come_in_the_order_of_its_life() {
    let _watchdog = watchdog();
    let script = Script::always(Call::HasBroken, Act::Fail);
    let builder = script.builder().max_size(1).connection_timeout(SOON);
    let pool = builder.build(script.clone()).unwrap();
    let conn = pool.get().unwrap();
    let patience = Duration::from_millis(12);
    pool.get_timeout(patience).unwrap_err();
    drop(conn);
    let _second = pool.get().unwrap();
    eventually("all are told", || script.told().len() == 7);
    let told = script.told();
    let first = told[0].id().unwrap();
    let second = told.iter().filter_map(|told| told.id()).find(|&id| id != first).unwrap();
    assert!(first < second, "numbers go up");
    let of = |id| told.iter().filter(|told| told.id() == Some(id)).copied().collect::<Vec<_>>();
    let whole = [Told::Opened(first), Told::Out(first), Told::Back(first), Told::Closed(first)];
    assert_eq!(of(first), whole);
    assert_eq!(
        of(second),
        whole.map(|told| match told {
            Told::Opened(_) => Told::Opened(second),
            _ => Told::Out(second),
        })[..2]
    );
    assert_eq!(told[2], Told::InVain(patience), "between out and back");
}

#[test]
fn no_two_connections_of_a_process_have_the_same_number() {
    let _watchdog = watchdog();
    let scripts = [Script::sound(), Script::sound(), Script::sound()];
    let pools = scripts
        .each_ref()
        .map(|script| script.builder().max_size(4).build(script.clone()).unwrap());
    let mut ids: Vec<_> = scripts.iter().flat_map(Script::told).filter_map(Told::id).collect();
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!((count, ids.len()), (12, 12));
    drop(pools);
}

#[test]
fn events_tell_how_long_it_took() {
    #[derive(Clone, Debug, Default)]
    struct Times(Arc<Mutex<Vec<(&'static str, Duration)>>>);

    impl HandleEvent for Times {
        fn handle_acquire(&self, event: AcquireEvent) {
            let _number = event.connection_id();
        }
        fn handle_checkout(&self, event: CheckoutEvent) {
            self.0.lock().push(("out", event.duration()));
        }
        fn handle_checkin(&self, event: CheckinEvent) {
            self.0.lock().push(("back", event.duration()));
        }
        fn handle_release(&self, event: ReleaseEvent) {
            self.0.lock().push(("closed", event.age()));
        }
        fn handle_timeout(&self, event: TimeoutEvent) {
            self.0.lock().push(("in vain", event.timeout()));
        }
    }

    let _watchdog = watchdog();
    let (times, script) = (Times::default(), Script::always(Call::HasBroken, Act::Fail));
    let began = Instant::now();
    let builder = Pool::builder().max_size(1).event_handler(Box::new(times.clone()));
    let pool = builder.build(script).unwrap();
    let asked = Instant::now();
    let conn = pool.get().unwrap();
    let has_it = asked.elapsed();
    pool.get_timeout(BRIEF).unwrap_err();
    drop(conn);
    let gave_it_back = asked.elapsed();
    eventually("it is closed", || times.0.lock().iter().any(|(what, _)| *what == "closed"));
    let was_closed = began.elapsed();
    let told = times.0.lock().clone();
    let tick = Duration::from_millis(1);
    let time = |which| told.iter().find(|(what, _)| *what == which).unwrap().1;
    assert!(time("out") <= has_it + tick, "{told:?}");
    assert_eq!(time("in vain"), BRIEF);
    assert!(time("back") <= gave_it_back + tick && time("back") >= BRIEF / 2, "{told:?}");
    assert!(time("closed") <= was_closed + tick && time("closed") >= time("back"), "{told:?}");
}

#[test]
fn what_is_kept_with_a_connection_comes_and_goes_with_it() {
    let _watchdog = watchdog();
    let pool = Pool::builder().max_size(2).build(Script::sound()).unwrap();
    let (mut one, mut two) = (pool.get().unwrap(), pool.get().unwrap());
    assert!(PooledConnection::extensions(&one).get::<u32>().is_none());
    PooledConnection::extensions_mut(&mut one).insert(1_u32);
    PooledConnection::extensions_mut(&mut two).insert(2_u32);
    PooledConnection::extensions_mut(&mut two).insert("another type");
    drop(one);
    let mut one = pool.get().unwrap();
    assert_eq!(PooledConnection::extensions(&one).get(), Some(&1_u32));
    assert_eq!(PooledConnection::extensions(&two).get(), Some(&2_u32));
    let extensions: &mut Extensions = PooledConnection::extensions_mut(&mut one);
    assert_eq!((extensions.remove::<u32>(), extensions.get::<u32>()), (Some(1), None));
    PooledConnection::discard(two);
    let fresh = pool.get().unwrap();
    assert!(PooledConnection::extensions(&fresh).get::<u32>().is_none());
}
