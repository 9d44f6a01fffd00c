//! What must hold of an exchange that the pool may repeat.

use std::time::Duration;

use warmline::sim::violation;
use warmline::{Error, ErrorKind, Exchange};

use crate::stopwatch::Stopwatch;

/// Threads are not quite at the same time.
const SLACK: Duration = Duration::from_millis(2);
/// So often an exchange may break in the middle.
const MOST_BROKEN: u32 = 4;

/// One call of [`run`](warmline::Endpoint::run), as its exchanges saw it.
pub struct Told {
    stopwatch: Stopwatch,
    /// How long its exchanges took, together.
    in_hand: Duration,
    exchange: Stopwatch,
    has_written: bool,
    broken: u32,
}

impl Told {
    pub fn begin() -> Self {
        let stopwatch = Stopwatch::start();
        Self {
            stopwatch,
            in_hand: Duration::ZERO,
            exchange: stopwatch,
            has_written: false,
            broken: 0,
        }
    }

    pub fn exchange_begins(&mut self, always: bool) {
        self.exchange = Stopwatch::start();
        if !always && self.has_written {
            violation("an exchange was repeated that the peer may have seen");
        }
    }

    pub fn exchange_ends(&mut self, happened: Exchange, is_well: bool) {
        self.in_hand += self.exchange.elapsed();
        self.has_written = happened.written() != Some(0);
        self.broken += u32::from(!is_well && !happened.is_stale() && happened.written().is_some());
        if self.broken > MOST_BROKEN {
            violation(format!("an exchange broke {} times, and is done again", self.broken));
        }
    }

    /// All checkouts together took no longer than one may; with patience, none ended sooner.
    pub fn ends(self, limit: Duration, refusal: Option<&Error>) {
        let took = self.stopwatch.elapsed() - self.in_hand;
        let waited = self.stopwatch.took().saturating_sub(self.in_hand);
        if self.stopwatch.had_threads() && waited > limit + SLACK {
            violation(format!("waited {waited:?} of {limit:?} for the checkouts of a run"));
        }
        let is_early = took < limit;
        if is_early && refusal.is_some_and(|error| error.kind() == ErrorKind::Connect) {
            violation(format!("not patient: {waited:?} of {limit:?}: {refusal:?}"));
        }
    }
}
