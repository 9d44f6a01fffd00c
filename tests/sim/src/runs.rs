//! What must hold of an exchange that the pool may repeat.

use std::time::Duration;

use warmline::sim::{now, starved, survey, violation};
use warmline::{Error, ErrorKind, Exchange};

/// Threads are not quite at the same time.
const SLACK: Duration = Duration::from_millis(2);
/// So often an exchange may break in the middle.
const MOST_BROKEN: u32 = 4;

/// One call of [`run`](warmline::Endpoint::run), as its exchanges saw it.
pub struct Told {
    began: u64,
    starved: u64,
    /// Threads that could not be started, so far.
    refused: u64,
    /// How long its exchanges took, together.
    in_hand: u64,
    since: u64,
    has_written: bool,
    broken: u32,
}

impl Told {
    pub fn begin() -> Self {
        let (began, starved, refused) = (now(), starved(), survey().refused_threads);
        Self { began, starved, refused, in_hand: 0, since: 0, has_written: false, broken: 0 }
    }

    pub fn exchange_begins(&mut self, always: bool) {
        self.since = now();
        if !always && self.has_written {
            violation("an exchange was repeated that the peer may have seen");
        }
    }

    pub fn exchange_ends(&mut self, happened: Exchange, is_well: bool) {
        self.in_hand += now() - self.since;
        self.has_written = happened.written() != Some(0);
        self.broken += u32::from(!is_well && !happened.is_stale() && happened.written().is_some());
        if self.broken > MOST_BROKEN {
            violation(format!("an exchange broke {} times, and is done again", self.broken));
        }
    }

    /// All checkouts together took no longer than one may; with patience, none ended sooner.
    pub fn ends(self, limit: Duration, refusal: Option<&Error>) {
        let took = now() - self.began - self.in_hand;
        let waited = Duration::from_nanos(took.saturating_sub(starved() - self.starved));
        // With no thread to be had, a caller closes connections itself, which may take its time.
        let had_threads = survey().refused_threads == self.refused;
        if had_threads && waited > limit + SLACK {
            violation(format!("waited {waited:?} of {limit:?} for the checkouts of a run"));
        }
        let is_early = Duration::from_nanos(took) < limit;
        if is_early && refusal.is_some_and(|error| error.kind() == ErrorKind::Connect) {
            violation(format!("not patient: {waited:?} of {limit:?}: {refusal:?}"));
        }
    }
}
