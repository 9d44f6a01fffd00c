//! Recounts everything from scratch. Tests call it after every transition.

use std::collections::BTreeSet;

use crate::clock::Now;
use crate::core::Core;
use crate::core::budget::MOST_ABANDONED;
use crate::core::endpoint::EndpointCore;
use crate::core::entry::{Attempt, Entry, State};
use crate::core::timers::Timer;
use crate::error::Phase;

impl<T, W: Clone + PartialEq> Core<T, W> {
    /// # Panics
    ///
    /// If anything is not as it must be between two transitions.
    pub(crate) fn assert_sound(&self, now: Now) {
        self.assert_consistent();
        for endpoint in self.endpoints.indexes() {
            self.assert_told(endpoint, now);
            self.assert_progress(endpoint, now);
        }
        self.assert_timers(now);
        self.assert_starved(now);
    }

    /// What must be so at any time.
    ///
    /// # Panics
    ///
    /// As [`assert_sound`](Core::assert_sound).
    pub(crate) fn assert_consistent(&self) {
        for index in self.entries.indexes() {
            self.assert_entry(index);
        }
        for endpoint in self.endpoints.indexes() {
            self.assert_counts(endpoint);
            self.assert_idle(endpoint);
            self.assert_waiters(endpoint);
        }
        self.assert_budget();
        if self.is_closed {
            assert_eq!(self.waiters.len(), 0, "somebody waits at a closed pool");
            assert!(self.budget.idle.is_empty(), "a closed pool keeps a connection");
        }
    }

    /// In a simulation: after each transition. Threads read the time before they have the lock;
    /// where one came by it late, what hangs on the time is not looked at.
    #[cfg(warmline_sim)]
    pub(crate) fn assert_sound_among_threads(&self) {
        match self.decided_at {
            Some(now) if crate::sim::starved() == 0 => self.assert_sound(now),
            _ => self.assert_consistent(),
        }
    }

    /// Notes the time by which a transition decides; none if it is older than the last.
    #[cfg(warmline_sim)]
    pub(crate) fn decided_by(&mut self, now: Now) {
        let is_late = self.latest.mono > now.mono || self.latest.wall > now.wall;
        self.decided_at = (!is_late).then_some(now);
        if !is_late {
            self.latest = now;
        }
    }

    /// One entry by itself: what it holds, and that its time will come.
    fn assert_entry(&self, index: u32) {
        let entry = self.entries.at(index);
        let at = (index, entry.state);
        let is_idle = entry.state == State::Idle;
        assert_eq!(entry.conn.is_some(), is_idle, "{at:?}: only idle ones hold a connection");
        let place = self.endpoints.at(entry.endpoint);
        if is_idle {
            assert!(entry.doomed.is_none() && !entry.retire, "{at:?}, but known to be of no use");
            assert_eq!(entry.epoch, place.epoch, "{at:?}, but evicted");
        }
        let has_term =
            entry.retires_at.at().is_some() || self.proof_interval(entry.endpoint).is_some();
        let is_timed = match entry.state {
            State::Idle => has_term,
            State::InUse => has_term && !entry.retire,
            State::Connecting(attempt) => {
                let is_in_loop = match attempt {
                    Attempt::Queued => entry.timer.at().is_none(),
                    // Among threads, also one whose thread is about to say that it has failed.
                    Attempt::Running { phase: Phase::Queue | Phase::Resolve, .. } => {
                        cfg!(warmline_sim)
                    }
                    Attempt::Running { phase, .. } => phase == Phase::Connect,
                    _ => false,
                };
                attempt != Attempt::Stuck && !(place.begins_in_loop && is_in_loop)
            }
            // One that still waits for a thread at its deadline is refused when a thread comes.
            State::Checking(attempt) => matches!(attempt, Attempt::Running { .. }),
        };
        assert!(entry.timer.at().is_some() || !is_timed, "{at:?}: nothing would ever end it");
    }

    fn count(&self, endpoint: u32, is_counted: impl Fn(&Entry<T>) -> bool) -> usize {
        let mine = self.entries.iter().filter(|entry| entry.endpoint == endpoint);
        mine.filter(|entry| is_counted(entry)).count()
    }

    fn assert_counts(&self, endpoint: u32) {
        use State::{Checking, Connecting, Idle, InUse};
        let place = self.endpoints.at(endpoint);
        let counted = [
            self.count(endpoint, |entry| entry.state == Idle),
            self.count(endpoint, |entry| entry.state == InUse),
            self.count(endpoint, |entry| matches!(entry.state, Connecting(_))),
            self.count(endpoint, |entry| matches!(entry.state, Checking(_))),
            self.count(endpoint, |entry| {
                matches!(entry.state, Connecting(Attempt::Stuck) | Checking(Attempt::Stuck))
            }),
            self.count(endpoint, |entry| entry.state == Connecting(Attempt::CalledOff)),
        ];
        let [idle, in_use, connecting] = [place.idle.len(), place.in_use, place.connecting()];
        let noted = [idle, in_use, connecting, place.checking, place.stuck(), place.called_off];
        let names = "idle, in use, connecting, checking, stuck, called off";
        assert_eq!(noted, counted, "{names} at {endpoint}");
        let caps = &place.caps;
        let is_within = place.total() <= caps.max_per_endpoint;
        assert!(is_within || place.is_over, "max_per_endpoint at {endpoint}");
        assert!(idle == 0 || is_within, "idle beyond max_per_endpoint at {endpoint}");
        assert!(idle <= caps.max_idle_per_endpoint, "max_idle_per_endpoint at {endpoint}");
        assert!(
            !place.is_unused() || place.is_vacant || place.own_limits.is_some(),
            "{endpoint} would never be forgotten"
        );
        let out = self.entries.iter().filter(|it| it.endpoint == endpoint && it.state == InUse);
        let sum = out.fold(0_u64, |sum, entry| sum.wrapping_add(entry.since.as_nanos()));
        assert_eq!(place.since_sum, sum, "since when connections are out at {endpoint}");
        let routine = self.count(endpoint, |entry| entry.is_routine);
        assert_eq!(place.routine, routine, "routine at {endpoint}");
        let waiting = self.count(endpoint, |entry| entry.awaits_successor);
        assert_eq!(place.succeeding, waiting, "successors at {endpoint}");
        assert!(!place.watchers.is_empty() || place.warm_target == 0, "warm for nobody");
        let counters = &place.counters;
        let gone = counters.closed.iter().sum::<u64>() + counters.detached;
        assert_eq!(counters.opened, gone + place.open() as u64, "what was opened at {endpoint}");
    }

    /// Each idle connection is in its endpoint's stack and in the order of use, once.
    fn assert_idle(&self, endpoint: u32) {
        let place = self.endpoints.at(endpoint);
        let stack: Vec<u32> = place.idle.iter(&self.entries).collect();
        let is_mine = |index: &u32| self.entries.at(*index).endpoint == endpoint;
        let used: Vec<u32> = self.budget.idle.iter(&self.entries).filter(is_mine).collect();
        assert_eq!(stack, used, "the stack of {endpoint} and the order of use");
        for &index in &stack {
            assert_eq!(self.entries.at(index).state, State::Idle, "entry {index} is in a stack");
        }
        let once: BTreeSet<u32> = stack.iter().copied().collect();
        assert_eq!((once.len(), stack.len()), (stack.len(), place.idle.len()), "listed once");
        assert_eq!(place.idle.back(), stack.last().copied(), "the end of the stack");
    }

    /// The queue.
    fn assert_waiters(&self, endpoint: u32) {
        let place = self.endpoints.at(endpoint);
        let queue: Vec<u32> = place.waiters.iter(&self.waiters).collect();
        assert_eq!(queue.len(), place.waiters.len(), "length of the queue of {endpoint}");
        let waiters: Vec<_> = queue.iter().map(|&index| self.waiters.at(index)).collect();
        assert!(waiters.iter().all(|waiter| waiter.endpoint == endpoint), "in its own queue");
        // Threads read the time before they have the lock, and may come by it in another order.
        let is_in_order = cfg!(warmline_sim) || waiters.is_sorted_by_key(|waiter| waiter.arrived);
        assert!(is_in_order, "oldest first at {endpoint}");
        let told = waiters.iter().filter(|waiter| waiter.told).count();
        assert_eq!(place.told, told, "told at {endpoint}");
    }

    /// The promise of telling.
    fn assert_told(&self, endpoint: u32, now: Now) {
        let place = self.endpoints.at(endpoint);
        let waiters = || place.waiters.iter(&self.waiters).map(|index| self.waiters.at(index));
        let told = place.told;
        let is_left_out = waiters().any(|w| !w.told && !w.has_expired(now.mono));
        let tellable = self.tellable(endpoint, now.wall);
        assert!(
            !is_left_out || told >= tellable,
            "at {endpoint} {tellable} could look, {told} waiters are told, and one is not"
        );
    }

    fn missing(&self, place: &EndpointCore<W>) -> usize {
        place.waiters.len().saturating_sub(place.hoped_for())
    }

    fn is_free_to_begin(&self, place: &EndpointCore<W>, now: Now) -> bool {
        // With its timer set it begins when the reaper looks, be it late.
        place.retry_at.is_none_or(|at| at <= now.mono)
            && place.retry_timer.is_none()
            && place.has_room_to_connect()
    }

    /// No wake-up is lost: where a waiter has nothing on its way, something is in the way whose
    /// end will be noticed, or somebody was told to look and will find out.
    fn assert_progress(&self, endpoint: u32, now: Now) {
        let place = self.endpoints.at(endpoint);
        let mut waiters = place.waiters.iter(&self.waiters);
        // One past its deadline is about to look, or leave, by itself.
        let is_anybody_left = waiters.any(|at| !self.waiters.at(at).has_expired(now.mono));
        if self.is_paused || self.missing(place) == 0 || !is_anybody_left {
            return;
        }
        let is_in_the_way = place.retry_timer.is_some()
            || place.starved_since.is_some()
            || !place.has_room_to_connect();
        assert!(
            is_in_the_way || place.told > 0,
            "at {endpoint} {} wait, nothing comes and nothing is in the way: {:?}",
            place.waiters.len(),
            (now.mono, self.counts(endpoint))
        );
    }

    /// The queue of starved endpoints, and that none starves while there is room.
    fn assert_starved(&self, now: Now) {
        let starved: Vec<u32> = self.budget.starved.iter(&self.endpoints).collect();
        assert_eq!(starved.len(), self.budget.starved.len(), "length of the queue of starved");
        let noted = self.endpoints.indexes();
        let noted: BTreeSet<u32> =
            noted.filter(|&at| self.endpoints.at(at).starved_since.is_some()).collect();
        assert_eq!(starved.iter().copied().collect::<BTreeSet<_>>(), noted, "who is starved");
        for &at in &starved {
            let place = self.endpoints.at(at);
            // Those who wait may be served by what comes, for the moment.
            let has_reason = !place.waiters.is_empty() || self.wants_connect(at);
            assert!(has_reason, "{at} starves and nobody there wants anything");
        }
        if self.budget.attempts.len() >= self.limits.max_connecting_total {
            return;
        }
        let is_ready = |at: &&u32| {
            let place = self.endpoints.at(**at);
            !self.is_paused
                && self.missing(place) > 0
                && place.told == 0
                && self.is_free_to_begin(place, now)
        };
        let is_free = self.budget.permits.is_available();
        let may_keep = |at: &&u32| {
            let place = self.endpoints.at(**at);
            let is_free_to_begin = self.is_free_to_begin(place, now) && !place.is_pausing(now.mono);
            is_free_to_begin && self.wants_connect(**at)
        };
        let kept = starved.iter().find(may_keep).filter(|_| is_free && self.has_idle_room());
        assert_eq!(kept, None, "starves for what is to be kept ready while there is room");
        let Some(&ready) = starved.iter().find(is_ready) else { return };
        assert!(!is_free, "{ready} starves while there is room");
        let is_left = self.budget.called_off == 0 && self.unwanted().is_some();
        assert!(!is_left, "{ready} starves while an attempt goes on that nobody wants");
        for index in self.budget.idle.iter(&self.entries) {
            let theirs = self.entries.at(index).endpoint;
            let place = self.endpoints.at(theirs);
            let is_wanted = !place.waiters.is_empty() || place.is_about_to_be_found();
            assert!(is_wanted, "{ready} starves while {theirs} keeps one idle that nobody wants");
        }
    }

    fn assert_budget(&self) {
        let (budget, limits) = (&self.budget, &self.limits);
        let sum = |of: fn(&EndpointCore<W>) -> usize| self.endpoints.iter().map(of).sum::<usize>();
        assert_eq!(budget.permits.taken(), self.entries.len(), "an entry owns one permit");
        assert_eq!(budget.idle.len(), sum(|place| place.idle.len()), "idle");
        assert_eq!(budget.attempts.len(), sum(EndpointCore::connecting), "connecting");
        assert_eq!(budget.routine, sum(|place| place.routine), "routine");
        assert_eq!(budget.called_off, sum(|place| place.called_off), "called off");
        assert_eq!(budget.abandoned, sum(|place| place.abandoned), "abandoned");
        assert_eq!(budget.waiting, sum(|place| place.waiters.len()), "waiting");
        assert_eq!(budget.waiting, self.waiters.len(), "waiters and queues");
        assert_eq!(budget.permits.most(), limits.max_total, "permits");
        if self.entries.len() > limits.max_total {
            assert!(budget.idle.is_empty(), "one is idle beyond max_total");
            let is_noted = |place: &EndpointCore<W>| place.is_over || place.total() == 0;
            assert!(self.endpoints.iter().all(is_noted), "more than max_total for ever");
        }
        assert!(budget.idle.len() <= limits.max_idle, "max_idle");
        assert!(budget.abandoned <= MOST_ABANDONED, "abandoned: {}", budget.abandoned);
        let stats = self.stats_of_all();
        let held = stats.idle() + stats.in_use() + stats.checking();
        assert_eq!(stats.opened(), stats.closed() + stats.detached() + held as u64, "the sum");
        let parts = self.endpoints.iter().map(|place| place.counters.opened).sum::<u64>();
        assert!(parts <= stats.opened(), "the parts are more than the whole");
    }

    /// Each timer that is noted is set, no other is, and the reaper looks in time for all.
    fn assert_timers(&self, now: Now) {
        let mut set = 0;
        for index in self.entries.indexes() {
            if let Some(at) = self.entries.at(index).timer.at() {
                assert!(self.timers.contains(at, Timer::Entry(index)), "timer of entry {index}");
                set += 1;
            }
        }
        for endpoint in self.endpoints.indexes() {
            if let Some(at) = self.endpoints.at(endpoint).retry_timer {
                let is_set = self.timers.contains(at, Timer::Endpoint(endpoint));
                assert!(is_set, "timer of endpoint {endpoint}");
                set += 1;
            }
        }
        assert_eq!(self.timers.len(), set, "timers that belong to nobody");
        if let Some(next) = self.timers.next() {
            assert!(self.timers.look_at <= next.max(now.mono), "the reaper would look too late");
        }
    }
}
