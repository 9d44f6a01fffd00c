//! Runs scripts in simulations, many or one.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use warmline::sim::net::{Manners, Place, set_host};
use warmline::sim::{self, Config, Failure, survey};

use crate::kit::address;
use crate::play::{expect_nothing_left, play};
use crate::script::{Pace, Script};

/// What many simulations came to.
#[derive(Debug, Default)]
pub struct Tally {
    pub played: AtomicU64,
    pub checkouts: AtomicU64,
    pub errors: AtomicU64,
    pub faults: AtomicU64,
    pub connected: AtomicU64,
    /// Of virtual time, in milliseconds.
    pub millis: AtomicU64,
}

/// A script that failed, and how.
#[derive(Clone, Debug)]
pub struct Failed {
    pub script: Script,
    pub failure: Failure,
}

/// Plays one script after the other on this thread, until there is none or one fails.
pub fn play_all(
    scripts: impl FnMut() -> Option<Script> + 'static,
    tally: &Arc<Tally>,
    is_traced: bool,
) -> Result<(), Box<Failed>> {
    let current = Arc::new(Mutex::new(None));
    let scripts = Rc::new(RefCell::new(scripts));
    let next = {
        let current = Arc::clone(&current);
        move || {
            let script = (scripts.borrow_mut())()?;
            let mut config = Config::new(script.seed);
            let Pace { stays, rushes, lags, changes } = script.pace;
            (config.stays, config.rushes, config.lags) = (stays, rushes, lags);
            config.changes = changes;
            config.is_traced = is_traced;
            *current.lock() = Some(script);
            Some(config)
        }
    };
    let body = {
        let (current, tally) = (Arc::clone(&current), Arc::clone(tally));
        move |_| {
            let script = current.lock().clone().expect("set before it is run");
            let began = sim::now();
            let played = play(&script);
            let survey = survey();
            tally.played.fetch_add(1, Ordering::Relaxed);
            tally.checkouts.fetch_add(played.checkouts, Ordering::Relaxed);
            tally.errors.fetch_add(played.errors, Ordering::Relaxed);
            tally.faults.fetch_add(survey.faults, Ordering::Relaxed);
            tally.connected.fetch_add(survey.connected, Ordering::Relaxed);
            tally.millis.fetch_add((survey.now - began) / 1_000_000, Ordering::Relaxed);
        }
    };
    sim::run(next, body).map_err(|failure| {
        let script = current.lock().clone().expect("one was run");
        Box::new(Failed { script, failure })
    })
}

/// Runs this body in a simulation, once, where the first host is calm.
///
/// # Errors
///
/// How it failed.
pub fn simulate(body: impl Fn() + Send + Sync + 'static) -> Result<(), Failure> {
    let mut once = Some(Config::new(1));
    sim::run(
        move || once.take(),
        move |_| {
            set_host(Place::Address(address(0)), Manners::calm());
            body();
        },
    )
}

/// The same, and nothing may be left at its end.
///
/// # Panics
///
/// If it fails.
pub fn simulate_well(body: impl Fn() + Send + Sync + 'static) {
    let played = simulate(move || {
        body();
        expect_nothing_left();
    });
    if let Err(failure) = played {
        panic!("{:#?}", failure.why);
    }
}

/// Plays one script; `None` if all was well.
pub fn play_one(script: &Script, is_traced: bool) -> Option<Box<Failed>> {
    let mut once = Some(script.clone());
    play_all(move || once.take(), &Arc::default(), is_traced).err()
}
