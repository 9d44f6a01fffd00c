//! A snapshot of the counts.

use std::time::Duration;

use crate::core::endpoint::EndpointCore;
use crate::error::Counts;
use crate::observe::CloseReason;

/// What happened at an endpoint since it was made.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counters {
    /// These are counted in the endpoint itself, and put in here when somebody asks.
    pub(crate) uses: Uses,
    pub(crate) opened: u64,
    pub(crate) failed: u64,
    pub(crate) timed_out: u64,
    pub(crate) refused: u64,
    pub(crate) detached: u64,
    pub(crate) called_off: u64,
    /// How long the attempts took that succeeded, in nanoseconds.
    pub(crate) connecting_for: u64,
    pub(crate) checks: u64,
    pub(crate) suspected: u64,
    pub(crate) closed: [u64; CloseReason::COUNT],
}

impl Counters {
    pub(crate) fn note_closed(&mut self, reason: CloseReason) {
        if let Some(count) = self.closed.get_mut(reason.index()) {
            *count += 1;
        }
    }

    /// Adds what an endpoint itself has counted.
    pub(crate) fn add_uses<W>(&mut self, place: &EndpointCore<W>) {
        let uses = &mut self.uses;
        uses.checkouts += place.checkouts;
        uses.fresh += place.fresh;
        uses.used += place.used;
        uses.waits += place.waits;
        uses.waited += place.waited;
        uses.most_in_use = uses.most_in_use.max(place.most_in_use);
    }
}

/// What callers did.
#[derive(Clone, Debug, Default)]
pub(crate) struct Uses {
    pub(crate) checkouts: u64,
    pub(crate) fresh: u64,
    pub(crate) used: u64,
    pub(crate) waits: u64,
    pub(crate) waited: u64,
    pub(crate) most_in_use: usize,
}

/// A snapshot of a pool's, or an endpoint's, counts.
///
/// Taken under one lock, so the numbers fit each other:
/// `opened = closed + detached + idle + in_use + checking`, always.
///
/// ```
/// let pool = warmline::Pool::tcp();
/// let stats = pool.stats();
/// assert_eq!((stats.total(), stats.idle(), stats.opened()), (0, 0, 0));
/// println!("{stats}");
/// ```
#[derive(Clone, Debug, Default)]
pub struct Stats {
    pub(crate) counts: Counts,
    pub(crate) counters: Counters,
    pub(crate) idle_limit: Option<Duration>,
    pub(crate) events_dropped: u64,
}

impl Stats {
    /// Connections in the pool, ready to be handed out.
    #[must_use]
    pub const fn idle(&self) -> usize {
        self.counts.idle
    }

    /// Connections out with callers.
    #[must_use]
    pub const fn in_use(&self) -> usize {
        self.counts.in_use
    }

    /// Connections being opened.
    #[must_use]
    pub const fn connecting(&self) -> usize {
        self.counts.connecting
    }

    /// Connections out for a check, or being settled.
    #[must_use]
    pub const fn checking(&self) -> usize {
        self.counts.checking
    }

    /// All of them together: what counts against the limits.
    #[must_use]
    pub const fn total(&self) -> usize {
        self.counts.total()
    }

    /// Callers that wait: blocked checkouts, and requests.
    #[must_use]
    pub const fn waiting(&self) -> usize {
        self.counts.waiting
    }

    /// Calls of the connector that did not return by their deadline and no longer count.
    #[must_use]
    pub const fn abandoned(&self) -> usize {
        self.counts.abandoned
    }

    /// Nothing goes out: the pool is [paused](crate::Pool::pause).
    #[must_use]
    pub const fn is_paused(&self) -> bool {
        self.counts.is_paused
    }

    /// Checkouts that were given a connection, so far.
    #[must_use]
    pub const fn checkouts(&self) -> u64 {
        self.counters.uses.checkouts
    }

    /// Of these checkouts, how many were given a connection that had been used before.
    #[must_use]
    pub const fn reused(&self) -> u64 {
        self.counters.uses.checkouts - self.counters.uses.fresh
    }

    /// The most connections that were in use at a time. Of a pool: at any one endpoint.
    #[must_use]
    pub const fn most_in_use(&self) -> usize {
        self.counters.uses.most_in_use
    }

    /// For how long connections were in use, all uses together that have ended. Divided by their
    /// number it is the mean use; divided by the time it took, how many were in use on average.
    ///
    /// Taken from a clock that ticks every few milliseconds: right for many uses, not for one.
    #[must_use]
    pub const fn use_time(&self) -> Duration {
        Duration::from_nanos(self.counters.uses.used)
    }

    /// Callers that had to wait so far, whatever became of it.
    #[must_use]
    pub const fn waits(&self) -> u64 {
        self.counters.uses.waits
    }

    /// For how long they did, all together that do so no more.
    #[must_use]
    pub const fn wait_time(&self) -> Duration {
        Duration::from_nanos(self.counters.uses.waited)
    }

    /// How long it took to open connections, all together that were opened.
    #[must_use]
    pub const fn connect_time(&self) -> Duration {
        Duration::from_nanos(self.counters.connecting_for)
    }

    /// Checks, heartbeats and settlings that have ended so far, well or not.
    #[must_use]
    pub const fn checks(&self) -> u64 {
        self.counters.checks
    }

    /// Connections that were suspected to be leaked so far: see
    /// [`leak_warning`](crate::Builder::leak_warning).
    #[must_use]
    pub const fn leaks_suspected(&self) -> u64 {
        self.counters.suspected
    }

    /// Connections opened so far. Those that came too late for anybody are among them, and among
    /// those closed.
    #[must_use]
    pub const fn opened(&self) -> u64 {
        self.counters.opened
    }

    /// Attempts to connect that failed so far.
    #[must_use]
    pub const fn connects_failed(&self) -> u64 {
        self.counters.failed
    }

    /// Attempts to connect that were called off so far: nobody waited for them any more, and their
    /// room under the limits was needed.
    #[must_use]
    pub const fn connects_called_off(&self) -> u64 {
        self.counters.called_off
    }

    /// Checkouts that met their deadline so far.
    #[must_use]
    pub const fn timed_out(&self) -> u64 {
        self.counters.timed_out
    }

    /// Checkouts turned away at once so far: too many waited, or an attempt had just failed.
    #[must_use]
    pub const fn refused(&self) -> u64 {
        self.counters.refused
    }

    /// Connections that users kept for themselves so far.
    #[must_use]
    pub const fn detached(&self) -> u64 {
        self.counters.detached
    }

    /// Connections closed so far.
    #[must_use]
    pub fn closed(&self) -> u64 {
        self.counters.closed.iter().sum()
    }

    /// Connections closed so far for this reason.
    #[must_use]
    pub fn closed_for(&self, reason: CloseReason) -> u64 {
        self.counters.closed.get(reason.index()).copied().unwrap_or(0)
    }

    /// For how long connections of an endpoint may be idle before they are closed, where that is
    /// less than [`idle_timeout`](crate::Builder::idle_timeout): because its server closes those
    /// that are idle for longer, as the pool has learned or was
    /// [told](crate::Endpoint::note_idle_limit). Always `None` for a whole pool.
    #[must_use]
    pub const fn idle_limit(&self) -> Option<Duration> {
        self.idle_limit
    }

    /// Events that the [`Observer`](crate::Observer) was too slow for. Counted per pool.
    #[must_use]
    pub const fn events_dropped(&self) -> u64 {
        self.events_dropped
    }
}

impl std::fmt::Display for Stats {
    /// One line: the state, then what happened so far.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.counts)?;
        if let Some(limit) = self.idle_limit {
            write!(f, "; idle for {limit:.1?} at the most")?;
        }
        write!(
            f,
            "; so far {} checkouts, {} opened, {} closed, {} failed to connect, {} timed out",
            self.checkouts(),
            self.opened(),
            self.closed(),
            self.connects_failed(),
            self.timed_out()
        )?;
        if self.connects_called_off() > 0 {
            write!(f, ", {} called off", self.connects_called_off())?;
        }
        let closed = CloseReason::ALL.iter().filter(|&&reason| self.closed_for(reason) > 0);
        for (at, &reason) in closed.enumerate() {
            let lead = if at == 0 { "; closed:" } else { "," };
            write!(f, "{lead} {} {reason}", self.closed_for(reason))?;
        }
        Ok(())
    }
}
