//! What all threads of the run write to: what was seen, and what should never have been.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::faults::Faults;
use crate::protocol::Mishap;

/// By so much a call may exceed its time: the machine may be busy with other things.
pub(crate) const SLACK: Duration = Duration::from_secs(5);
/// Broken invariants that are told in full.
const MOST_TOLD: u64 = 50;
/// As many of what is odd.
const MOST_ODD: u64 = 5;

pub(crate) struct Board {
    pub(crate) began: Instant,
    pub(crate) seed: u64,
    /// The load has ended: no more faults either.
    pub(crate) is_over: AtomicBool,
    pub(crate) exchanges: AtomicU64,
    pub(crate) errors: AtomicU64,
    /// Those of this process.
    pub(crate) faults: Faults,
    cross_talk: AtomicU64,
    broken: AtomicU64,
    odd: AtomicU64,
}

impl Board {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            began: Instant::now(),
            seed,
            is_over: AtomicBool::new(false),
            exchanges: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            faults: Faults::default(),
            cross_talk: AtomicU64::new(0),
            broken: AtomicU64::new(0),
            odd: AtomicU64::new(0),
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::SeqCst)
    }

    /// An invariant is broken: said at once.
    pub(crate) fn note_broken(&self, what: &str) {
        if self.broken.fetch_add(1, Ordering::SeqCst) < MOST_TOLD {
            println!("BROKEN at {:.3} s: {what}", self.began.elapsed().as_secs_f64());
        }
    }

    /// Nothing that must not be, but worth a look.
    pub(crate) fn note_odd(&self, what: &str) {
        if self.odd.fetch_add(1, Ordering::SeqCst) < MOST_ODD {
            println!("ODD at {:.3} s: {what}", self.began.elapsed().as_secs_f64());
        }
    }

    pub(crate) fn check(&self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.note_broken(&what());
        }
    }

    pub(crate) fn note_cross_talk(&self, mishap: &Mishap) {
        self.cross_talk.fetch_add(1, Ordering::SeqCst);
        self.note_broken(&mishap.to_string());
    }

    pub(crate) fn cross_talk(&self) -> u64 {
        self.cross_talk.load(Ordering::SeqCst)
    }

    pub(crate) fn broken(&self) -> u64 {
        self.broken.load(Ordering::SeqCst)
    }
}

/// Calls `condition` until it holds, for `time` at the most; returns whether it did.
pub(crate) fn eventually(time: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + time;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() > until {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
