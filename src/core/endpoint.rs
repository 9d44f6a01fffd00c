//! What the pool knows of one endpoint.

use std::time::Duration;

use crate::clock::Stamp;
use crate::config::{Caps, EndpointLimits};
use crate::core::demand::Demand;
use crate::core::entry::STACK;
use crate::core::learned::Learned;
use crate::core::list::{Linked, Links, List};
use crate::core::situation::LastLook;
use crate::core::stats::Counters;
use crate::core::waiters::Arrival;
use crate::error::{ConnectFailure, Failure};
use crate::sync::Arc;

/// The queue of endpoints that wait for room under the pool's limits.
pub(crate) const STARVED: usize = 0;
/// The list of endpoints where nothing happened when they were last looked at.
pub(crate) const VACANT: usize = 1;

/// So many connections at the least may wait to be closed before no more are opened.
pub(crate) const MOST_CLOSING: usize = 16;

#[derive(Debug)]
pub(crate) struct EndpointCore<W> {
    pub(crate) caps: Caps,
    /// What they follow from beside the limits of the pool, if there is that: it must not be
    /// forgotten.
    pub(crate) own_limits: Option<Box<EndpointLimits>>,
    /// It has more connections than its limits allow, which were lowered, or has some while the
    /// pool has more than its own allow: those that come back end.
    pub(crate) is_over: bool,
    /// Idle connections, newest at the back.
    pub(crate) idle: List<STACK>,
    /// Idle for so long, in nanoseconds, one is not handed out without more thought.
    pub(crate) care_after: u64,
    /// Callers that wait, oldest at the front.
    pub(crate) waiters: List<0>,
    /// How many of the waiters were told to look again. While one is neither told nor past its
    /// deadline, told ≥ idle.
    pub(crate) told: usize,
    pub(crate) in_use: usize,
    /// Attempts to connect, in the order they began.
    pub(crate) attempts: List<STACK>,
    /// When the last one began; nothing once it has ended.
    pub(crate) begun_at: Option<Stamp>,
    /// How many attempts were called off and have not ended.
    pub(crate) called_off: usize,
    /// How many idle connections wait for another in their place before they retire.
    pub(crate) succeeding: usize,
    /// How many are to be opened in the place of some that were in use when they were to retire;
    /// until an attempt fails.
    pub(crate) heirs: usize,
    /// The least that were idle at a time since surplus was last looked for.
    pub(crate) least_idle: usize,
    pub(crate) checking: usize,
    /// How many of them are out for proof that nobody waits for.
    pub(crate) routine: usize,
    /// Idle connections have turned out dead, or hang when they are asked: who waits need not wait
    /// for proof of the others.
    pub(crate) is_suspect: bool,
    /// Until when the proof that somebody waits for may take.
    pub(crate) patient_until: Option<Stamp>,
    /// How many were asked since its server answered, because another that was asked did not.
    pub(crate) in_vain: u32,
    /// When the reaper last let connections stay that were idle for too long, but are to be kept.
    pub(crate) spared_at: Stamp,
    /// Of attempts and checks, how many never returned but keep their permits.
    pub(crate) stuck_connects: usize,
    pub(crate) stuck_checks: usize,
    /// How many attempts were abandoned and have not returned.
    pub(crate) abandoned: usize,
    /// How many connections have left the pool, and their connector is not done with closing them.
    pub(crate) closing: usize,
    pub(crate) epoch: u32,
    /// Its attempts begin in the event loop, which keeps their deadlines.
    pub(crate) begins_in_loop: bool,
    /// What is known of how long its server lets connections be idle.
    pub(crate) learned: Box<Learned>,
    /// What follows from that, in nanoseconds, if it is less than the idle time-out.
    pub(crate) idle_limit: Option<u64>,
    /// Its idle connections are sent heartbeats.
    pub(crate) has_beats: bool,
    /// `min_idle` is kept up: there is a handle, or it was used of late.
    pub(crate) kept: bool,
    /// How many connections a call of `warm` wants open.
    pub(crate) warm_target: usize,
    /// Who waits for the count of open connections to change.
    pub(crate) watchers: Vec<W>,
    /// The last failed attempt since the last success, and when it ended.
    pub(crate) failure: Option<(Arc<ConnectFailure>, Stamp)>,
    /// Until when no more would be handed over, for what was handed to those who had waited for long,
    /// were none of it owed.
    pub(crate) paused_until: Stamp,
    /// No attempt is begun before this.
    pub(crate) retry_at: Option<Stamp>,
    /// How long to wait at the most after a failure where nobody waits, and until when that is.
    pub(crate) quiet_pause: Duration,
    pub(crate) quiet_until: Stamp,
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
    /// When somebody last came who might have to wait.
    pub(crate) asked_at: Stamp,
    /// When a connection was last checked out or asked for. Wall clock.
    pub(crate) last_used: Stamp,
    /// Since when it waits for room under the pool's limits, in the queue of starved endpoints.
    pub(crate) starved_since: Option<Stamp>,
    pub(crate) starved: Links,
    /// It is in the list of endpoints where nothing happens.
    pub(crate) is_vacant: bool,
    pub(crate) vacant: Links,
    pub(crate) checkouts: u64,
    /// Of these, how many were given a connection that nobody had used before.
    pub(crate) fresh: u64,
    /// For how long, in nanoseconds, connections were in use that are so no more.
    pub(crate) used: u64,
    /// When those went out that are in use: the sum, in nanoseconds of the wall clock, modulo 2⁶⁴.
    pub(crate) since_sum: u64,
    /// Callers that had to wait, and for how long those did that do so no more, in nanoseconds.
    pub(crate) waits: u64,
    pub(crate) waited: u64,
    /// How many connections the load needs.
    pub(crate) demand: Box<Demand>,
    /// The reaper looks for what is out too long.
    pub(crate) is_leak_watched: bool,
    /// How many checkouts there had been at its last look for that.
    pub(crate) leak_checkouts: u64,
    /// What was seen when somebody last gave up here.
    pub(crate) last_look: Option<Box<LastLook>>,
    /// The most that were in use at a time.
    pub(crate) most_in_use: usize,
    /// Of everything off the fast path; elsewhere, so that what the fast path touches stays small.
    pub(crate) counters: Box<Counters>,
}

impl<W> EndpointCore<W> {
    pub(crate) fn new(caps: Caps, wall: Stamp) -> Self {
        Self {
            caps,
            own_limits: None,
            is_over: false,
            idle: List::new(),
            care_after: 0,
            waiters: List::new(),
            told: 0,
            in_use: 0,
            attempts: List::new(),
            begun_at: None,
            called_off: 0,
            succeeding: 0,
            heirs: 0,
            least_idle: 0,
            checking: 0,
            routine: 0,
            is_suspect: false,
            patient_until: None,
            in_vain: 0,
            spared_at: Stamp::ZERO,
            stuck_connects: 0,
            stuck_checks: 0,
            abandoned: 0,
            closing: 0,
            epoch: 0,
            begins_in_loop: false,
            learned: Box::default(),
            idle_limit: None,
            has_beats: false,
            kept: true,
            warm_target: 0,
            watchers: Vec::new(),
            failure: None,
            paused_until: Stamp::ZERO,
            retry_at: None,
            quiet_pause: Duration::ZERO,
            quiet_until: Stamp::ZERO,
            kept_pause: Duration::ZERO,
            kept_after: None,
            retry_timer: None,
            gave_at: None,
            mean_connect: 0,
            asked_at: Stamp::ZERO,
            last_used: wall,
            starved_since: None,
            starved: Links::NONE,
            is_vacant: false,
            vacant: Links::NONE,
            checkouts: 0,
            fresh: 0,
            used: 0,
            since_sum: 0,
            waits: 0,
            waited: 0,
            demand: Box::default(),
            is_leak_watched: false,
            leak_checkouts: 0,
            last_look: None,
            most_in_use: 0,
            counters: Box::default(),
        }
    }

    /// How often a connection was in use and is so no more.
    pub(crate) fn returns(&self) -> u64 {
        self.checkouts - self.in_use as u64
    }

    /// A connection was in use for so long, from this moment on, and is so no more.
    #[inline(always)]
    pub(crate) fn note_use(&mut self, used: u64, since: Stamp) {
        // A clock that is set from 1970 makes it a long time, of many too long a time.
        self.used = self.used.saturating_add(used);
        self.since_sum = self.since_sum.wrapping_sub(since.as_nanos());
    }

    /// For how long, in nanoseconds, connections were in use, also those that still are.
    pub(crate) fn used_by(&self, wall: Stamp) -> u64 {
        let by_now = (self.in_use as u64).wrapping_mul(wall.as_nanos());
        // A clock that was set back makes it less than nothing.
        let so_far = by_now.wrapping_sub(self.since_sum);
        let so_far = if so_far > u64::MAX / 2 { 0 } else { so_far };
        self.used.saturating_add(so_far)
    }

    /// What somebody finds who begins to wait now.
    pub(crate) fn arrival(&self) -> Arrival {
        Arrival {
            ahead: self.waiters.len() as u32,
            checkouts: self.checkouts,
            returns: self.returns(),
            used: self.used,
            opened: self.counters.opened,
            failed: self.counters.failed,
        }
    }

    pub(crate) fn stuck(&self) -> usize {
        self.stuck_connects + self.stuck_checks
    }

    pub(crate) fn total(&self) -> usize {
        self.idle.len() + self.in_use + self.connecting() + self.checking
    }

    pub(crate) fn connecting(&self) -> usize {
        self.attempts.len()
    }

    /// Attempts that may yet bring a connection.
    pub(crate) fn promising(&self) -> usize {
        self.connecting() - self.stuck_connects - self.called_off
    }

    /// Checks and settles that may yet bring a connection back, for somebody to wait for. Not so
    /// those of routine: if the server is gone, it would be a long wait.
    pub(crate) fn returning(&self) -> usize {
        self.checking - self.stuck_checks - self.routine
    }

    /// Of those, how many waiters need not look for another: none any more where they take too long,
    /// and nothing is being opened in their place.
    pub(crate) fn counted_on(&self) -> usize {
        if self.is_suspect && self.promising() == 0 { 0 } else { self.returning() }
    }

    /// What can serve a waiter, now or soon.
    pub(crate) fn coming(&self) -> usize {
        self.idle.len() + self.promising() + self.returning()
    }

    /// The same, as long as there is hope for those that are idle.
    pub(crate) fn hoped_for(&self) -> usize {
        if self.is_suspect { self.promising() } else { self.coming() }
    }

    /// What is to be idle here, beyond what waiters need.
    pub(crate) fn kept_idle(&self) -> usize {
        if self.kept { self.caps.min_idle } else { 0 }
    }

    /// Connections that are there and come back: idle, in use, or out for a check that may end.
    pub(crate) fn live(&self) -> usize {
        self.idle.len() + self.in_use + self.checking - self.stuck_checks
    }

    /// The connection that was idle longest, if more are than its limits allow.
    pub(crate) fn surplus(&self) -> Option<u32> {
        let is_over = self.idle.len() > self.caps.max_idle_per_endpoint
            || self.total() > self.caps.max_per_endpoint;
        self.idle.front().filter(|_| is_over)
    }

    /// Its own limits allow another attempt.
    pub(crate) fn has_room_to_connect(&self) -> bool {
        let is_probed = self.is_out() && self.promising() > 0;
        self.connecting() < self.caps.max_connecting
            && self.total() < self.caps.max_per_endpoint
            && !is_probed
            && !self.has_many_to_close()
    }

    /// Its connector closes connections so slowly that the server would have more and more.
    pub(crate) fn has_many_to_close(&self) -> bool {
        self.closing >= self.caps.max_per_endpoint.max(MOST_CLOSING)
    }

    /// The last attempt failed, though not for what this process is short of, and nothing is there
    /// that would prove its server alive: attempts are made one at a time, to see whether it is.
    pub(crate) fn is_out(&self) -> bool {
        let has_failed =
            |(failure, _): &(Arc<ConnectFailure>, _)| failure.failure != Failure::Local;
        self.failure.as_ref().is_some_and(has_failed) && self.live() == 0
    }

    /// Connections that exist: idle, in use or being checked.
    pub(crate) fn open(&self) -> usize {
        self.idle.len() + self.in_use + self.checking
    }

    /// The one connection that somebody asked to have opened ahead of need is there, and he was told
    /// and is about to look. Nobody waits here for anything more.
    pub(crate) fn is_about_to_be_found(&self) -> bool {
        !self.watchers.is_empty() && self.open() == 1 && self.warm_target == 1
    }

    /// Nothing at all happens here, nor is about to.
    pub(crate) fn is_unused(&self) -> bool {
        self.total() == 0
            && self.waiters.is_empty()
            && self.watchers.is_empty()
            && self.abandoned == 0
            && self.closing == 0
            && self.retry_timer.is_none()
    }

    /// Nobody waits, and it is not yet time for what is only to be kept ready.
    pub(crate) fn is_pausing(&self, mono: Stamp) -> bool {
        let failed = self.retry_timer.filter(|_| self.failure.is_some());
        let is_asked = !self.waiters.is_empty() || self.warm_target > 0;
        !is_asked && failed.into_iter().chain(self.kept_after).any(|at| at > mono)
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

impl<W> Linked<STARVED> for EndpointCore<W> {
    fn links(&self) -> &Links {
        &self.starved
    }
    fn links_mut(&mut self) -> &mut Links {
        &mut self.starved
    }
}

impl<W> Linked<VACANT> for EndpointCore<W> {
    fn links(&self) -> &Links {
        &self.vacant
    }
    fn links_mut(&mut self) -> &mut Links {
        &mut self.vacant
    }
}
