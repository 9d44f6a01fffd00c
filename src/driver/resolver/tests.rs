//! Those who wait for a name learn what became of it, whatever that is.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::connector::{Resolved, TcpConnector};
use crate::core::Token;
use crate::error::{ConnectFailure, Failure};
use crate::pool::Pool;
use crate::sync::{self, Receiver, Sender, bounded};

const SOON: Duration = Duration::from_secs(20);

fn key(pool: u64) -> Key {
    (pool, Token::default())
}

fn addr() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// Asks for a name; where its addresses arrive.
fn ask(resolver: &Resolver, name: &str, by: &LookUps) -> Receiver<Outcome> {
    ask_as(key(1), resolver, name, by)
}

fn ask_as(key: Key, resolver: &Resolver, name: &str, by: &LookUps) -> Receiver<Outcome> {
    let (told, answers) = bounded(1);
    resolver.ask(name, key, Box::new(move |outcome| told.send(outcome).unwrap()), by);
    answers
}

/// What is known in the end.
fn asked(resolver: &Resolver, name: &str, by: &LookUps) -> Result<Vec<SocketAddr>, Arc<Cause>> {
    let outcome = ask(resolver, name, by).recv_timeout(SOON).unwrap();
    outcome.map(|addrs| addrs.to_vec())
}

fn failure(resolver: &Resolver) -> Arc<Cause> {
    let by = LookUps::new("test");
    let cause = asked(resolver, "db", &by).unwrap_err();
    by.stop();
    cause
}

#[test]
fn a_name_is_looked_up_once_and_remembered_for_clones_too() {
    let count = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&count);
    let resolver = Resolver::new(move |name: &str| {
        assert_eq!(name, "db");
        counted.fetch_add(1, Ordering::Relaxed);
        Ok(Resolved::new([addr()]))
    });
    let by = LookUps::new("test");
    assert!(resolver.find("db", &by).is_none());
    for _ in 0..3 {
        assert_eq!(asked(&resolver.clone(), "db", &by).unwrap(), [addr()]);
    }
    assert!(matches!(resolver.find("db", &by), Some(Ok(_))));
    assert_eq!(count.load(Ordering::Relaxed), 1);
    resolver.clear();
    assert_eq!(asked(&resolver, "db", &by).unwrap(), [addr()]);
    assert_eq!(count.load(Ordering::Relaxed), 2);
    by.stop();
}

#[test]
fn what_is_known_costs_no_thread_even_where_nothing_may_block() {
    let resolver = Resolver::new(|_: &str| Ok(Resolved::new([addr()])));
    let by = LookUps::new("test");
    asked(&resolver, "db", &by).unwrap();
    by.stop();
    let idle = LookUps::new("test");
    let _as_the_loop = sync::working_for(sync::EVERY_POOL);
    assert!(matches!(resolver.find("db", &idle), Some(Ok(_))));
    assert!(ask(&resolver, "db", &idle).try_recv().unwrap().is_ok());
    assert!(format!("{idle:?}").contains("started: 0"), "{idle:?}");
}

#[test]
fn all_who_ask_while_it_is_looked_up_get_the_one_answer() {
    let (answer, answers) = bounded::<()>(0);
    let resolver = Resolver::new(move |_: &str| {
        answers.recv_timeout(SOON)?;
        Ok(Resolved::new([addr()]))
    });
    let by = LookUps::new("test");
    let waiting: Vec<_> = (0..5).map(|_| ask(&resolver, "db", &by)).collect();
    assert!(waiting.iter().all(Receiver::is_empty));
    answer.send_timeout((), SOON).unwrap();
    for answers in waiting {
        assert!(answers.recv_timeout(SOON).unwrap().is_ok());
    }
    by.stop();
}

#[test]
fn who_withdraws_is_let_go_of_and_not_told() {
    let (answer, answers) = bounded::<()>(0);
    let resolver = Resolver::new(move |_: &str| {
        answers.recv_timeout(SOON)?;
        Ok(Resolved::new([addr()]))
    });
    let by = LookUps::new("test");
    let waiting = ask(&resolver, "db", &by);
    let other = ask_as(key(2), &resolver, "db", &by);
    resolver.withdraw(key(3), &by);
    assert!(waiting.is_empty());
    resolver.withdraw(key(1), &by);
    assert!(waiting.recv().is_err(), "whoever waited was dropped");
    answer.send_timeout((), SOON).unwrap();
    assert!(other.recv_timeout(SOON).unwrap().is_ok());
    by.stop();
}

/// A resolver that hangs with names that begin so, says which names it was asked for, and has
/// four look-ups that hang.
struct Hanging {
    resolver: Resolver,
    by: LookUps,
    asked: Receiver<String>,
    /// Lets one of those that hang return, each time.
    gate: Sender<()>,
    waiting: Vec<Receiver<Outcome>>,
}

impl Hanging {
    fn new() -> Self {
        let (asked_for, asked) = bounded(10_000);
        let (gate, gated) = bounded(0);
        let resolver = Resolver::new(move |name: &str| {
            asked_for.send(name.to_owned())?;
            if name.starts_with("hangs") {
                gated.recv_timeout(SOON)?;
            }
            Ok(Resolved::new([addr()]))
        });
        let by = LookUps::new("test");
        let ask = |number| ask_as(key(number), &resolver, &format!("hangs-{number}"), &by);
        let waiting = (1..=4).map(ask).collect();
        (0..4).for_each(|_| drop(asked.recv_timeout(SOON).unwrap()));
        Self { resolver, by, asked, gate, waiting }
    }

    /// Look-ups that are in the queue or have a thread: each has a handle to the resolver.
    fn under_way(&self) -> usize {
        Arc::strong_count(&self.resolver.cache) - 1
    }

    fn end(self) {
        drop(self.gate);
        for waiting in self.waiting {
            assert!(waiting.recv_timeout(SOON).is_ok());
        }
        self.by.stop();
    }
}

#[test]
fn names_that_are_given_up_before_their_turn_are_forgotten_and_never_looked_up() {
    let hanging = Hanging::new();
    let ask =
        |number| ask_as(key(number), &hanging.resolver, &format!("{number}.dead"), &hanging.by);
    let dead: Vec<_> = (101..=400).map(|number| (number, ask(number))).collect();
    assert_eq!((hanging.resolver.cache.lock().len(), hanging.under_way()), (304, 304));
    for (number, waiting) in dead {
        hanging.resolver.withdraw(key(number), &hanging.by);
        assert!(waiting.recv().is_err(), "it was told");
    }
    assert_eq!((hanging.resolver.cache.lock().len(), hanging.under_way()), (4, 4));
    let new = ask_as(key(5), &hanging.resolver, "db", &hanging.by);
    assert!(new.is_empty() && hanging.asked.is_empty());
    hanging.gate.send_timeout((), SOON).unwrap();
    assert!(new.recv_timeout(SOON).unwrap().is_ok(), "one thread is enough");
    assert_eq!(hanging.asked.try_iter().collect::<Vec<_>>(), ["db"]);
    hanging.end();
}

#[test]
#[cfg(unix)] // elsewhere the clock's own zero is when the test began
fn those_that_hang_are_replaced_when_another_asks_for_a_name_that_waits_for_its_turn() {
    let hanging = Hanging::new();
    let first = ask_as(key(5), &hanging.resolver, "db", &hanging.by);
    hanging.by.pretend_all_hang();
    assert!(first.is_empty());
    let second = ask_as(key(6), &hanging.resolver, "db", &hanging.by);
    for waiting in [first, second] {
        assert!(waiting.recv_timeout(SOON).unwrap().is_ok());
    }
    assert_eq!(hanging.asked.try_iter().collect::<Vec<_>>(), ["db"]);
    hanging.end();
}

#[test]
fn a_name_is_looked_up_anew_when_nothing_answers_there_though_nobody_asks() {
    let (asked_for, asked) = bounded(100);
    let resolver = Resolver::new(move |_: &str| {
        asked_for.send(())?;
        Ok(Resolved::new([addr()]))
    });
    let resolver = resolver.negative_ttl(Duration::ZERO);
    let by = LookUps::new("test");
    self::asked(&resolver, "db", &by).unwrap();
    asked.recv_timeout(SOON).unwrap();
    resolver.doubt("db", &by);
    asked.recv_timeout(SOON).unwrap();
    assert!(matches!(resolver.find("db", &by), Some(Ok(_))), "the old answer is used meanwhile");
    by.stop();
}

#[test]
fn a_failure_a_panic_and_no_address_at_all_are_failures_of_the_name() {
    let cause = failure(&Resolver::new(|_: &str| Err("no such name".into())));
    assert_eq!((cause.error.to_string().as_str(), cause.is_local), ("no such name", false));
    let cause = failure(&Resolver::new(|_: &str| panic!("out of order")));
    assert_eq!(cause.error.to_string(), "the resolver panicked: out of order");
    let cause = failure(&Resolver::new(|_: &str| Ok(Resolved::new([]))));
    assert_eq!(
        (cause.error.to_string().as_str(), cause.is_local),
        ("\"db\" has no address", false)
    );
}

#[test]
fn the_users_own_error_is_there_by_its_type_for_all_who_meet_a_remembered_failure() {
    #[derive(Debug, PartialEq)]
    struct OnHoliday(u32);
    impl fmt::Display for OnHoliday {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("on holiday")
        }
    }
    impl StdError for OnHoliday {}
    let days = AtomicUsize::new(0);
    let resolver = Resolver::new(move |_: &str| {
        Err(OnHoliday(days.fetch_add(1, Ordering::Relaxed) as u32).into())
    });
    let resolver = resolver.negative_ttl(Duration::from_secs(3_600));
    for _ in 0..2 {
        let pool = Pool::builder(TcpConnector::new()).resolver(&resolver).build().unwrap();
        let error = pool.get("db.test:80").unwrap_err();
        let failure = error.source().unwrap();
        let own = failure.source().unwrap().downcast_ref::<OnHoliday>();
        assert_eq!((error.failure(), own), (Some(Failure::Dns), Some(&OnHoliday(0))));
        assert!(failure.downcast_ref::<ConnectFailure>().is_some());
    }
}

#[test]
fn what_this_process_has_run_out_of_says_nothing_about_the_name() {
    let resolver =
        Resolver::new(|_: &str| Err(std::io::Error::from(std::io::ErrorKind::OutOfMemory).into()));
    let cause = failure(&resolver);
    let (error, took) = (Arc::clone(&cause.error), Duration::ZERO);
    assert!(cause.is_local);
    let failure = ConnectFailure::unresolved(error, cause.is_local_or_shortage(), took);
    assert_eq!((failure.failure, failure.is_shortage), (Failure::Local, true));
}

#[test]
fn after_the_end_of_the_driver_who_asks_learns_that_nobody_looks_it_up() {
    let resolver = Resolver::new(|_: &str| Ok(Resolved::new([addr()])));
    let by = LookUps::new("test");
    by.stop();
    let cause = ask(&resolver, "db", &by).try_recv().unwrap().unwrap_err();
    assert_eq!(cause.error.to_string(), "no thread came free to look it up");
    assert!(cause.is_local);
    // Another driver can do it: nothing was remembered.
    let by = LookUps::new("test");
    assert_eq!(asked(&resolver, "db", &by).unwrap(), [addr()]);
    by.stop();
}

#[test]
fn one_who_panics_when_told_keeps_no_other_from_being_told() {
    let (answer, answers) = bounded::<()>(0);
    let resolver = Resolver::new(move |_: &str| {
        answers.recv_timeout(SOON)?;
        Ok(Resolved::new([addr()]))
    });
    let by = LookUps::new("test");
    resolver.ask("db", key(2), Box::new(|_| panic!("out of order")), &by);
    let waiting = ask(&resolver, "db", &by);
    answer.send_timeout((), SOON).unwrap();
    assert!(waiting.recv_timeout(SOON).unwrap().is_ok());
    by.stop();
}
