//! The simulation itself: it does the same again, finds what is planted, and makes it small.

#![cfg(warmline_sim)]

use std::time::Duration;

use simulation::kit::address;
use simulation::play::expect_nothing_left;
use simulation::run::{Failed, play_one, simulate};
use simulation::script::{Act, End, Happening, Host, Kind, Reach, Script};
use simulation::shrink::{shrink, shrink_failing};
use warmline::sim;
use warmline::sim::net::{Accepts, Manners, Place, set_host};
use warmline::{Pool, TcpConnector};

/// A script of few words that fails: its host answers everybody else's question.
fn lying() -> Script {
    let mut script = Script::of(11);
    script.kind = Kind::Plain;
    script.is_calm = false;
    script.happenings.clear();
    script.hosts.truncate(1);
    script.hosts[0] =
        Host { reach: Reach::Address, manners: Manners { lies: 300, ..Manners::calm() } };
    let exchange =
        Act::Exchange { host: 0, timeout: None, frames: 3, hold: Duration::ZERO, end: End::Return };
    script.settings.checkout_timeout = Duration::from_secs(1);
    script.callers = vec![vec![exchange; 8]; 4];
    script
}

fn first_of(failed: &Failed) -> &str {
    failed.failure.why.first().map_or("", |why| why.as_str())
}

#[test]
fn a_seed_that_fails_fails_again_in_the_same_way_line_by_line() {
    let [first, second] = [(); 2].map(|()| play_one(&lying(), true).expect("it fails"));
    assert!(first.failure.lines.len() > 20, "{:?}", first.failure.lines);
    assert_eq!(first.failure.lines, second.failure.lines);
    assert_eq!(first.failure.why, second.failure.why);
}

#[test]
fn an_answer_to_somebody_else_is_noticed() {
    let failed = play_one(&lying(), false).expect("it fails");
    assert!(first_of(&failed).contains("another's answer"), "{}", first_of(&failed));
}

#[test]
fn a_script_that_fails_is_made_as_small_as_can_be() {
    let (small, _) = shrink_failing(&lying());
    let acts: usize = small.callers.iter().map(Vec::len).sum();
    assert_eq!((small.callers.len(), acts), (1, 1), "{:?}", small.callers);
    assert!(play_one(&small, false).is_some());
}

#[test]
fn what_the_failure_needs_is_kept() {
    let mut script = lying();
    let panics =
        Act::Exchange { host: 0, timeout: None, frames: 1, hold: Duration::ZERO, end: End::Panic };
    script.callers[2].push(panics);
    script.happenings = vec![(Duration::ZERO, Happening::EvictAll); 5];
    let ends_in_panic = |act: &Act| matches!(act, Act::Exchange { end: End::Panic, .. });
    let (small, _) = shrink(&script, |script| script.callers.iter().flatten().any(ends_in_panic));
    assert_eq!(small.callers.concat().len(), 1);
    assert!(small.happenings.is_empty());
}

/// Why a simulation of this body fails.
fn why(body: impl Fn() + Send + Sync + 'static) -> String {
    simulate(body).map_or_else(|failure| failure.why.join("; "), |()| "nothing".to_owned())
}

fn pool() -> Pool<TcpConnector> {
    Pool::builder(TcpConnector::new()).build().expect("the settings make sense")
}

#[test]
fn a_connection_that_is_forgotten_is_noticed() {
    let why = why(|| {
        std::mem::forget(pool().get(&address(0)).expect("a calm host"));
        expect_nothing_left();
    });
    assert!(why.contains("1 descriptors are open"), "{why}");
}

#[test]
fn a_pool_that_is_forgotten_is_noticed_by_its_threads() {
    let why = why(|| {
        let pool = pool();
        drop(pool.get(&address(0)).expect("a calm host"));
        std::mem::forget(pool);
    });
    assert!(why.contains("threads of pools never ended"), "{why}");
}

#[test]
fn a_wait_that_nothing_can_end_is_noticed() {
    let why = why(|| sim::join(sim::spawn("parked", || sim::wait_for_ever())));
    assert!(why.contains("deadlock"), "{why}");
}

#[test]
fn a_panic_is_noticed_though_somebody_catches_it() {
    let why = why(|| {
        let caught = std::panic::catch_unwind(|| panic!("a bug"));
        assert!(caught.is_err());
    });
    assert!(why.contains("a bug"), "{why}");
}

#[test]
fn time_passes_only_when_nobody_can_run_and_then_at_once() {
    let why = why(|| {
        let before = sim::now();
        sim::sleep(Duration::from_secs(3_600));
        let passed = Duration::from_nanos(sim::now() - before);
        assert!(passed >= Duration::from_secs(3_600));
        assert!(passed < Duration::from_secs(3_601), "{passed:?}");
        assert_eq!(sim::starved(), 0);
    });
    assert_eq!(why, "nothing");
}

#[test]
fn a_host_that_does_not_answer_is_given_up_at_the_deadline() {
    let why = why(|| {
        let silent = Manners { accepts: Accepts::Silent, ..Manners::calm() };
        set_host(Place::Address(address(0)), silent);
        let before = sim::now();
        let builder = Pool::builder(TcpConnector::new()).connect_timeout(Duration::from_secs(2));
        let pool = builder.build().expect("the settings make sense");
        let error = pool.get(&address(0)).expect_err("nobody is there");
        let waited = Duration::from_nanos(sim::now() - before);
        assert!(waited.as_millis().abs_diff(2_000) < 10, "{waited:?}: {error}");
    });
    assert_eq!(why, "nothing");
}
