//! Decides, and does nothing else: no thread, lock, socket, clock, log line or callback.
//!
//! Every transition takes the time and the state, changes the state, and returns what is to be
//! done as data ([`Effects`]): *answers*, which whoever holds the lock sends before releasing it,
//! and *actions*, for after. No connection is ever dropped in here.
//!
//! ```text
//!             pump                       finish_connect            checkout
//!   (permit) ──────▶ connecting ─────────────────────────▶ idle ◀──────────▶ in use
//!                        │                                 ▲  │     checkin    │
//!                        │              finish_upkeep      │  ▼                │
//!                        │            checking ────────────┘ begin_check       │ settle
//!                        ▼               ▲ └──────────────────────────────────◀┘
//!                    closed(reason)  ◀───┴── from every state, with the permit given back
//! ```
//!
//! Which file does what: `checkout` serves callers, `checkin` takes connections back, `connect`
//! decides when to open more, `pace` how fast, `attempt` what comes of it; `lifetime` lets them
//! retire, `leaks` notices those that do not come back, `proof` sees that idle ones work, `learned`
//! knows how long servers let them be idle, `pausing` holds everything back, `limits` changes what
//! there may be, `upkeep` keeps time and ends things, `vacancy` knows which endpoints can be
//! forgotten, `situation` why somebody waits, and `demand` how many connections the load needs.

mod attempt;
mod budget;
mod checkin;
mod checkout;
mod connect;
mod demand;
mod effects;
mod endpoint;
mod entry;
mod leaks;
mod learned;
mod lifetime;
mod limits;
mod list;
mod pace;
mod pausing;
mod permits;
mod proof;
mod situation;
mod slab;
#[cfg(any(test, warmline_sim))]
mod sound;
mod stats;
#[cfg(test)]
mod tests;
mod timers;
mod upkeep;
mod vacancy;
mod waiters;

pub use self::stats::Stats;

pub(crate) use self::checkin::Notice;
pub(crate) use self::checkout::{LookAgain, Outcome, Refusal};
pub(crate) use self::connect::RETRY_PAUSE;
pub(crate) use self::demand::Load;
pub(crate) use self::effects::{Action, Answer, Closing, Effects, End, Upkeep};
pub(crate) use self::entry::{Grant, Lease};
pub(crate) use self::situation::Sight;
pub(crate) use self::slab::{Cut, Slab, Token};
pub(crate) use self::vacancy::Fate;
pub(crate) use self::waiters::{Manner, Terms};

use std::time::Duration;

use crate::clock::{Now, Stamp, nanos};
use crate::config::Limits;
use crate::core::budget::Budget;
use crate::core::endpoint::EndpointCore;
use crate::core::entry::{Attempt, Entry, State};
use crate::core::leaks::LeakWatch;
use crate::core::situation::LastLook;
use crate::core::stats::Counters;
use crate::core::timers::{Due, Timer, Timers};
use crate::core::waiters::Waiter;
use crate::error::Counts;
use crate::observe::CloseReason;

/// Of 2⁶⁴.
const GOLDEN_SECTION: u64 = 0x9e37_79b9_7f4a_7c15;

/// The state of a pool, and every transition of it.
///
/// Generic over what a connection is (`T`) and where answers go (`W`). Endpoints are named by
/// their place; it is the caller's duty not to name one that was forgotten.
#[derive(Debug)]
pub(crate) struct Core<T, W> {
    limits: Limits,
    endpoints: Slab<EndpointCore<W>>,
    entries: Slab<Entry<T>>,
    waiters: Slab<Waiter<W>>,
    budget: Budget,
    timers: Timers,
    /// Who waits for the last connection to end.
    drainers: Vec<W>,
    is_closed: bool,
    /// Somebody is there who opens connections: none is asked for before.
    is_staffed: bool,
    /// The time by which it decided last, if that was not a late one, and the latest.
    #[cfg(warmline_sim)]
    decided_at: Option<Now>,
    #[cfg(warmline_sim)]
    latest: Now,
    is_paused: bool,
    leaks: LeakWatch,
    /// When the reaper last looked.
    reaped_at: Now,
    /// What was seen when somebody last gave up while the pool as a whole was full.
    last_look: Option<Box<LastLook>>,
    /// When surplus was last looked for.
    decayed_at: Stamp,
    /// How many connections have come back.
    returns: u64,
    /// State of the generator that makes pauses differ.
    random: u64,
    /// Where in its range the last of what is spread evenly lies, in parts of 2⁶⁴.
    phase: u64,
    /// What happened at all endpoints, also those that are forgotten; of what the fast path counts,
    /// only at those.
    totals: Counters,
}

impl<T, W: Clone + PartialEq> Core<T, W> {
    pub(crate) fn new(limits: Limits, seed: u64) -> Self {
        Self {
            budget: Budget { keeps_some: limits.min_idle > 0, ..Budget::new(limits.max_total) },
            limits,
            endpoints: Slab::new(),
            // Of two pools that follow each other, tokens differ in their generations, too.
            entries: Slab::starting_at(seed as u32),
            waiters: Slab::new(),
            timers: Timers::new(),
            drainers: Vec::new(),
            is_closed: false,
            is_staffed: false,
            #[cfg(warmline_sim)]
            decided_at: None,
            #[cfg(warmline_sim)]
            latest: Now::default(),
            is_paused: false,
            leaks: LeakWatch::new(),
            reaped_at: Now::default(),
            last_look: None,
            decayed_at: Stamp::ZERO,
            returns: 0,
            random: seed | 1,
            // Seeds differ in their low bits; what begins at the same time must not keep step.
            phase: seed.wrapping_mul(GOLDEN_SECTION),
            totals: Counters::default(),
        }
    }

    pub(crate) fn add_endpoint(&mut self, wall: Stamp) -> u32 {
        let endpoint = self.endpoints.insert(EndpointCore::new(self.limits.caps(), wall)).index;
        self.note_care(endpoint);
        self.note_vacancy(endpoint);
        endpoint
    }

    /// The event loop keeps the deadlines of an endpoint's attempts, as long as it has them. The
    /// reaper need not be woken for each then, nor look when most have long succeeded.
    pub(crate) fn leave_deadlines_to_loop(&mut self, endpoint: u32) {
        self.endpoints.at_mut(endpoint).begins_in_loop = true;
    }

    /// From now on connections can be opened. The reaper looks next, and sees to what is wanted.
    pub(crate) fn begin(&mut self) {
        self.is_staffed = true;
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// True while anybody waits: a return must then bring the precise time.
    pub(crate) fn is_waiting(&self) -> bool {
        self.budget.waiting > 0
    }

    /// Nothing is open there, and the last attempt failed.
    pub(crate) fn is_out(&self, endpoint: u32) -> bool {
        self.endpoints.at(endpoint).is_out()
    }

    pub(crate) fn counts(&self, endpoint: u32) -> Counts {
        let place = self.endpoints.at(endpoint);
        Counts {
            idle: place.idle.len(),
            in_use: place.in_use,
            connecting: place.connecting(),
            checking: place.checking,
            waiting: place.waiters.len(),
            limit: place.caps.max_per_endpoint,
            pool: (self.budget.permits.taken(), self.budget.permits.most()),
            abandoned: place.abandoned,
            stuck: place.stuck(),
            closing: if place.has_many_to_close() { place.closing } else { 0 },
            is_paused: self.is_paused,
        }
    }

    #[cfg(test)]
    pub(crate) fn told(&self, endpoint: u32) -> usize {
        self.endpoints.at(endpoint).told
    }

    pub(crate) fn stats(&self, endpoint: u32) -> Stats {
        let place = self.endpoints.at(endpoint);
        let mut counters = Counters::clone(&place.counters);
        counters.add_uses(place);
        let idle_limit = place.idle_limit.map(Duration::from_nanos);
        Stats { counts: self.counts(endpoint), counters, idle_limit, events_dropped: 0 }
    }

    pub(crate) fn stats_of_all(&self) -> Stats {
        let taken = self.budget.permits.taken();
        let most = self.budget.permits.most();
        let is_paused = self.is_paused;
        let mut counts =
            Counts { limit: most, pool: (taken, most), is_paused, ..Counts::default() };
        let mut counters = self.totals.clone();
        for place in self.endpoints.iter() {
            counts.idle += place.idle.len();
            counts.in_use += place.in_use;
            counts.connecting += place.connecting();
            counts.checking += place.checking;
            counts.waiting += place.waiters.len();
            counts.abandoned += place.abandoned;
            counts.stuck += place.stuck();
            counters.add_uses(place);
        }
        Stats { counts, counters, idle_limit: None, events_dropped: 0 }
    }

    /// Takes an entry out of whatever state it is in, and gives its permit back. Returns what it
    /// held, which is a connection only if it was idle, its endpoint, and when it was born.
    fn take_out(&mut self, index: u32) -> (Option<T>, u32, Stamp) {
        self.end_routine(index);
        let token = self.entries.token(index);
        let entry = self.entries.at(index);
        let (state, endpoint, timer) = (entry.state, entry.endpoint, entry.timer.at());
        let place = self.endpoints.at_mut(endpoint);
        match state {
            State::Idle => {
                place.idle.remove(&mut self.entries, index);
                self.budget.idle.remove(&mut self.entries, index);
            }
            State::InUse => place.in_use -= 1,
            State::Connecting(attempt) => {
                place.stuck_connects -= usize::from(attempt == Attempt::Stuck);
                let was_called_off = usize::from(attempt == Attempt::CalledOff);
                place.called_off -= was_called_off;
                self.budget.called_off -= was_called_off;
                self.end_attempt(index);
            }
            State::Checking(attempt) => {
                place.checking -= 1;
                place.stuck_checks -= usize::from(attempt == Attempt::Stuck);
            }
        }
        if let Some(at) = timer {
            self.timers.cancel(at, Timer::Entry(index));
        }
        let entry = self.entries.remove(token).expect("bug: the entry was there a moment ago");
        self.endpoints.at_mut(endpoint).succeeding -= usize::from(entry.awaits_successor);
        self.budget.permits.give_back(entry.permit);
        self.note_vacancy(entry.endpoint);
        (entry.conn, entry.endpoint, entry.born)
    }

    /// Ends a connection: `conn`, or the one the idle entry holds.
    fn end(&mut self, index: u32, conn: Option<T>, reason: CloseReason, fx: &mut Effects<T, W>) {
        let end = self.end_of(index, reason);
        let (held, endpoint, _) = self.take_out(index);
        self.tally(endpoint, |counters| counters.note_closed(reason));
        if let Some(conn) = conn.or(held) {
            fx.act(Action::Close(Closing { conn, endpoint, end, is_told: false }));
        }
    }

    /// Counts what happened off the fast path.
    fn tally(&mut self, endpoint: u32, note: impl Fn(&mut Counters)) {
        note(&mut self.endpoints.at_mut(endpoint).counters);
        note(&mut self.totals);
    }

    /// A connection that nobody can be given was opened all the same.
    fn turn_away(
        &mut self,
        token: Token,
        endpoint: u32,
        conn: T,
        reason: CloseReason,
        now: Now,
        fx: &mut Effects<T, W>,
    ) {
        self.tally(endpoint, |counters| {
            counters.opened += 1;
            counters.note_closed(reason);
        });
        let end = End { token, reason, born: now.mono, uses: 0 };
        fx.act(Action::Close(Closing { conn, endpoint, end, is_told: false }));
    }

    fn end_of(&self, index: u32, reason: CloseReason) -> End {
        let (token, entry) = (self.entries.token(index), self.entries.at(index));
        End { token, reason, born: entry.born, uses: entry.uses }
    }

    /// Sets or clears an entry's timer.
    fn set_timer(&mut self, index: u32, at: Option<Stamp>, fx: &mut Effects<T, W>) {
        self.clear_timer(index);
        if let Some(at) = at {
            self.entries.at_mut(index).timer = Due::new(Some(at));
            self.timers.set(at, Timer::Entry(index));
            self.look_by(at, fx);
        }
    }

    fn clear_timer(&mut self, index: u32) {
        if let Some(before) = self.entries.at_mut(index).timer.take() {
            self.timers.cancel(before, Timer::Entry(index));
        }
    }

    /// The reaper must look at `at` at the latest.
    pub(crate) fn look_by(&mut self, at: Stamp, fx: &mut Effects<T, W>) {
        if at < self.timers.look_at {
            self.timers.look_at = at;
            fx.act(Action::WakeReaper);
        }
    }

    /// Ends every transition off the fast path at `endpoint`: whatever came free goes to whoever
    /// waited longest for it, there or elsewhere, and whoever should look again is told.
    fn rebalance(&mut self, endpoint: u32, now: Now, fx: &mut Effects<T, W>) {
        #[cfg(warmline_sim)]
        self.decided_by(now);
        self.note_vacancy(endpoint);
        let is_exceeded = self.budget.permits.is_exceeded();
        let place = self.endpoints.at_mut(endpoint);
        place.is_over &= is_exceeded || place.total() > place.caps.max_per_endpoint;
        if self.is_closed {
            if self.entries.len() == 0 {
                fx.hints.extend(self.drainers.iter().cloned());
            }
            return;
        }
        self.mind_returning(endpoint, now, fx);
        loop {
            self.serve_starved(Some(endpoint), now, fx);
            self.pump(endpoint, now, fx);
            self.serve_starved(None, now, fx);
            self.make_way(now, fx);
            self.dismiss_satisfied();
            if !self.tell(endpoint, now, fx) {
                break; // else a request has taken what was idle, and more may be needed
            }
        }
        let watchers = &self.endpoints.at(endpoint).watchers;
        fx.hints.extend(watchers.iter().cloned());
    }

    /// Some time from `least` on and before `most`.
    fn between(&mut self, least: Duration, most: Duration) -> Duration {
        least + Duration::from_nanos(self.random_below(nanos(most.saturating_sub(least))))
    }

    /// A number below `bound`: however many are asked for, they lie evenly (each is a golden section
    /// from the last, round and round).
    fn spread(&mut self, bound: u64) -> u64 {
        self.phase = self.phase.wrapping_add(GOLDEN_SECTION);
        ((u128::from(self.phase) * u128::from(bound)) >> 64) as u64
    }

    /// A number below `bound`, from a xorshift generator: spreading needs no better one.
    fn random_below(&mut self, bound: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        if bound == 0 { 0 } else { self.random % bound }
    }
}
