//! What the pool knows of one endpoint.

use std::time::Duration;

use crate::clock::Stamp;
use crate::core::entry::STACK;
use crate::core::slab::{Linked, Links, List};
use crate::core::stats::Counters;
use crate::error::ConnectFailure;
use crate::sync::Arc;

#[derive(Debug)]
pub(crate) struct EndpointCore<W> {
    /// Idle connections, newest at the back.
    pub(crate) idle: List<STACK>,
    /// Blocked checkouts, oldest at the front.
    pub(crate) waiters: List<0>,
    /// How many of the waiters were told to look again. While one is neither told nor past its
    /// deadline, told ≥ idle.
    pub(crate) told: usize,
    pub(crate) in_use: usize,
    pub(crate) connecting: usize,
    pub(crate) checking: usize,
    /// Of those, how many never returned but keep their permits.
    pub(crate) stuck_connects: usize,
    pub(crate) stuck_checks: usize,
    /// How many attempts were abandoned and have not returned.
    pub(crate) abandoned: usize,
    pub(crate) epoch: u32,
    /// Its attempts begin in the event loop, which keeps their deadlines.
    pub(crate) begins_in_loop: bool,
    /// `min_idle` is kept up: there is a handle, or it was used of late.
    pub(crate) kept: bool,
    /// How many connections a call of `warm` wants open.
    pub(crate) warm_target: usize,
    /// Who waits for the count of open connections to change.
    pub(crate) watchers: Vec<W>,
    /// The last failed attempt since the last success, and when it ended.
    pub(crate) failure: Option<(Arc<ConnectFailure>, Stamp)>,
    /// No attempt is begun before this.
    pub(crate) retry_at: Option<Stamp>,
    /// How long to wait after a failure while nobody waits.
    pub(crate) quiet_pause: Duration,
    /// How long nothing is opened only to be kept, after one that was has died unused.
    pub(crate) kept_pause: Duration,
    /// Until when that is.
    pub(crate) kept_after: Option<Stamp>,
    /// The timer for the next attempt.
    pub(crate) retry_timer: Option<Stamp>,
    /// When it last closed a connection, wanted here too, for another endpoint.
    pub(crate) gave_at: Option<Stamp>,
    /// Mean time to connect, in nanoseconds; 0: not known.
    pub(crate) mean_connect: u64,
    /// When a connection was last checked out or asked for. Wall clock.
    pub(crate) last_used: Stamp,
    /// Since when it waits for room under the pool's limits, in the queue of starved endpoints.
    pub(crate) starved_since: Option<Stamp>,
    pub(crate) starved: Links,
    pub(crate) checkouts: u64,
    /// Of everything off the fast path; elsewhere, so that what the fast path touches stays small.
    pub(crate) counters: Box<Counters>,
}

impl<W> EndpointCore<W> {
    pub(crate) fn new(wall: Stamp) -> Self {
        Self {
            idle: List::new(),
            waiters: List::new(),
            told: 0,
            in_use: 0,
            connecting: 0,
            checking: 0,
            stuck_connects: 0,
            stuck_checks: 0,
            abandoned: 0,
            epoch: 0,
            begins_in_loop: false,
            kept: true,
            warm_target: 0,
            watchers: Vec::new(),
            failure: None,
            retry_at: None,
            quiet_pause: Duration::ZERO,
            kept_pause: Duration::ZERO,
            kept_after: None,
            retry_timer: None,
            gave_at: None,
            mean_connect: 0,
            last_used: wall,
            starved_since: None,
            starved: Links::NONE,
            checkouts: 0,
            counters: Box::default(),
        }
    }

    pub(crate) fn stuck(&self) -> usize {
        self.stuck_connects + self.stuck_checks
    }

    pub(crate) fn total(&self) -> usize {
        self.idle.len() + self.in_use + self.connecting + self.checking
    }

    /// What can serve a waiter, now or soon.
    pub(crate) fn coming(&self) -> usize {
        self.idle.len() + self.connecting + self.checking - self.stuck()
    }

    /// Connections that exist: idle, in use or being checked.
    pub(crate) fn open(&self) -> usize {
        self.idle.len() + self.in_use + self.checking
    }

    /// Nothing at all happens here, nor is about to, and there is nothing to remember: it could be
    /// forgotten.
    pub(crate) fn is_unused(&self, mono: Stamp) -> bool {
        self.total() == 0
            && self.waiters.is_empty()
            && self.watchers.is_empty()
            && self.abandoned == 0
            && self.retry_timer.is_none()
            && self.retry_at.is_none_or(|at| at <= mono)
    }

    /// Nobody waits, and it is not yet time for what is only to be kept ready.
    pub(crate) fn is_pausing(&self, mono: Stamp) -> bool {
        let failed = self.retry_timer.filter(|_| self.failure.is_some());
        let died = self.kept_after.filter(|_| self.warm_target == 0);
        self.waiters.is_empty() && failed.into_iter().chain(died).any(|at| at > mono)
    }

    /// How much time passes at least between two connections given to other endpoints.
    pub(crate) fn giving_pause(&self) -> Duration {
        Duration::from_millis(10).max(Duration::from_nanos(self.mean_connect))
    }

    pub(crate) fn note_connect(&mut self, took: Duration) {
        let took = crate::clock::nanos(took);
        self.mean_connect = match self.mean_connect {
            0 => took.max(1),
            mean => mean - mean / 8 + took / 8,
        };
    }
}

impl<W> Linked<0> for EndpointCore<W> {
    fn links(&self) -> &Links {
        &self.starved
    }
    fn links_mut(&mut self) -> &mut Links {
        &mut self.starved
    }
}
