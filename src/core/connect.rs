//! Opening more: when, and for whom.

use std::time::Duration;

use crate::clock::{Now, Stamp};
use crate::core::Core;
use crate::core::effects::{Action, Effects};
use crate::core::entry::{Attempt, Entry, State};
use crate::core::list::Links;
use crate::core::timers::{Due, Timer};
use crate::observe::CloseReason;

/// No attempt to an endpoint begins sooner than this after one has failed, or later than twice
/// this while somebody waits.
pub(crate) const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// Whoever came no longer ago may come again.
const ASKED_OF_LATE: Duration = Duration::from_secs(1);
/// With nobody waiting the pause doubles, up to this.
pub(crate) const QUIET_RETRY_PAUSE: Duration = Duration::from_millis(800);
/// Of the starved, so many are looked at for whether they still want anything: those that come
/// first are those that hold up others.
const MOST_LOOKED_AT: usize = 16;

impl<T, W: Clone + PartialEq> Core<T, W> {
    /// Begins as many attempts as the endpoint's waiters, `min_idle` and `warm` ask for and the
    /// limits allow.
    pub(crate) fn pump(&mut self, endpoint: u32, now: Now, fx: &mut Effects<T, W>) {
        if !self.is_staffed {
            return;
        }
        while self.wants_connect(endpoint) && self.begin_connect(endpoint, now, fx) {}
        if !self.wants_connect(endpoint) {
            self.no_longer_starved(endpoint);
        }
    }

    /// How many connections waiters need beyond those that are idle or on their way.
    pub(crate) fn unserved(&self, endpoint: u32) -> usize {
        let place = self.endpoints.at(endpoint);
        self.servable(endpoint).saturating_sub(place.hoped_for())
    }

    /// Attempts under way, and checks and settles whose result can serve a waiter, are never more
    /// than the waiters and what is to be kept ready.
    pub(crate) fn wants_connect(&self, endpoint: u32) -> bool {
        if self.unserved(endpoint) > 0 {
            return true;
        }
        let place = self.endpoints.at(endpoint);
        let is_short = place.coming() + place.routine < self.servable(endpoint) + place.kept_idle();
        let has_none = place.is_cold() && place.open() == 0;
        let has_no_heir = place.promising() < place.succeeding + place.heirs;
        has_none || (self.has_idle_room() && (is_short || has_no_heir || place.is_cold()))
    }

    /// What is opened to be kept must find room among the idle ones, or it would be closed and
    /// opened for ever.
    pub(crate) fn has_idle_room(&self) -> bool {
        self.budget.idle.len() + self.budget.attempts.len() < self.limits.max_idle
    }

    /// Begins one attempt, unless something is in its way; whatever that is, its end is a
    /// transition that pumps again.
    fn begin_connect(&mut self, endpoint: u32, now: Now, fx: &mut Effects<T, W>) -> bool {
        let is_unserved = self.unserved(endpoint) > 0;
        let place = self.endpoints.at(endpoint);
        if let Some(at) = place.retry_at {
            if at > now.mono {
                self.retry_later(endpoint, at, now, fx);
                return false;
            }
        }
        if place.is_pausing(now.mono) {
            if let Some(at) = place.kept_after.filter(|at| *at > now.mono) {
                self.set_retry_timer(endpoint, at, fx);
            }
            return false;
        }
        if !place.has_room_to_connect() {
            return false;
        }
        if self.keeps_pace(endpoint, now, fx) {
            return false;
        }
        let is_full = self.budget.attempts.len() >= self.limits.max_connecting_total;
        if is_full || (!is_unserved && !self.has_idle_room()) {
            self.starve(endpoint, now.mono);
            return false;
        }
        if !self.budget.permits.is_available() && is_unserved {
            if let Some(spare) = self.spare() {
                self.end(spare, None, CloseReason::MadeRoom, fx);
            }
        }
        let Some(permit) = self.budget.permits.take() else {
            if is_unserved || self.endpoints.at(endpoint).warm_target > 0 {
                self.starve(endpoint, now.mono);
            }
            return false;
        };
        let place = self.endpoints.at(endpoint);
        let begins_in_loop = place.begins_in_loop;
        let deadline = now.mono.plus(self.limits.connect_timeout);
        let token = self.entries.insert(Entry {
            conn: None,
            state: State::Connecting(Attempt::Queued),
            endpoint,
            epoch: place.epoch,
            born: now.mono,
            since: Stamp::ZERO,
            site: None,
            thread: 0,
            rank: 0,
            proved: Stamp::ZERO,
            heard: Stamp::ZERO,
            uses: 0,
            doomed: None,
            retire: false,
            is_unasked: false,
            is_routine: false,
            awaits_successor: false,
            timer: Due::NEVER,
            retires_at: Due::new(Some(deadline)),
            stack: Links::NONE,
            used: Links::NONE,
            permit,
        });
        self.begin_attempt(token.index, now);
        if !begins_in_loop {
            self.set_timer(token.index, Some(deadline), fx);
        }
        fx.act(Action::Connect { endpoint, token, deadline });
        true
    }

    /// Sets the endpoint's timer for its next attempt: soon where somebody waits or has come of
    /// late, and ever later for connections that are only to be kept ready.
    fn retry_later(&mut self, endpoint: u32, at: Stamp, now: Now, fx: &mut Effects<T, W>) {
        let place = self.endpoints.at(endpoint);
        let is_waited_for = !place.waiters.is_empty() || place.warm_target > 0;
        let is_asked = is_waited_for || now.mono.since(place.asked_at) < ASKED_OF_LATE;
        let at = if is_asked { at } else { place.quiet_until.max(at) };
        self.set_retry_timer(endpoint, at, fx);
    }

    /// The next attempt must wait for the last; its timer is set.
    fn keeps_pace(&mut self, endpoint: u32, now: Now, fx: &mut Effects<T, W>) -> bool {
        let place = self.endpoints.at(endpoint);
        let Some(at) = place.paced_until().filter(|at| *at > now.mono) else { return false };
        self.set_retry_timer(endpoint, at, fx);
        true
    }

    pub(crate) fn set_retry_timer(&mut self, endpoint: u32, at: Stamp, fx: &mut Effects<T, W>) {
        let place = self.endpoints.at_mut(endpoint);
        match place.retry_timer {
            Some(set) if set <= at => return,
            Some(set) => self.timers.cancel(set, Timer::Endpoint(endpoint)),
            None => {}
        }
        place.retry_timer = Some(at);
        self.timers.set(at, Timer::Endpoint(endpoint));
        self.look_by(at, fx);
    }

    /// A connection died that nobody had used yet: a server that accepts only to hang up, perhaps.
    /// Callers may try again at once; what is opened only to be kept ready comes ever more slowly.
    pub(crate) fn pause_keeping(&mut self, endpoint: u32, now: Now) {
        let place = self.endpoints.at_mut(endpoint);
        if place.kept_after.is_none_or(|at| at <= now.mono) {
            place.kept_pause = (place.kept_pause * 2).clamp(RETRY_PAUSE, QUIET_RETRY_PAUSE);
            place.kept_after = Some(now.mono.plus(place.kept_pause));
        }
    }

    /// The least recently used idle connection of an endpoint where nobody waits.
    pub(crate) fn spare(&self) -> Option<u32> {
        self.budget.idle.iter(&self.entries).find(|&index| {
            let place = self.endpoints.at(self.entries.at(index).endpoint);
            place.waiters.is_empty() && !place.is_about_to_be_found()
        })
    }

    /// Queues an endpoint for room under the limits of the pool.
    pub(crate) fn starve(&mut self, endpoint: u32, mono: Stamp) {
        let place = self.endpoints.at_mut(endpoint);
        if place.starved_since.is_some() {
            return;
        }
        let oldest = place.waiters.front().map(|index| self.waiters.at(index).arrived);
        place.starved_since = Some(oldest.unwrap_or(mono));
        self.budget.starved.push_back(&mut self.endpoints, endpoint);
    }

    pub(crate) fn no_longer_starved(&mut self, endpoint: u32) {
        if self.endpoints.at_mut(endpoint).starved_since.take().is_some() {
            self.budget.starved.remove(&mut self.endpoints, endpoint);
        }
    }

    /// Gives room to the starved, one attempt each in turn; with `against`, only to those who have
    /// waited longer than anybody at that endpoint.
    pub(crate) fn serve_starved(&mut self, against: Option<u32>, now: Now, fx: &mut Effects<T, W>) {
        while let Some(starved) = self.first_in_need(against, now.mono) {
            if let Some(own) = against {
                let oldest = self.oldest_waiter(own, now.mono);
                let since = self.endpoints.at(starved).starved_since;
                let is_older = oldest.is_some_and(|(_, arrived)| Some(arrived) <= since);
                // Who only wants connections kept ready comes after all who wait.
                let is_nearer = is_older || self.unserved(starved) == 0;
                if is_nearer && self.unserved(own) > 0 {
                    return;
                }
            }
            self.no_longer_starved(starved);
            if !self.begin_connect(starved, now, fx) {
                debug_assert!(false, "bug: nothing was in its way");
                return;
            }
            let wants_more = self.wants_connect(starved) && !self.keeps_pace(starved, now, fx);
            if wants_more && self.may_begin(starved, now.mono) {
                self.starve(starved, now.mono); // behind the others
            }
        }
    }

    /// Takes endpoints out of the queue where nobody waits and nothing more is wanted: as long as
    /// it is not empty, returns are slower everywhere.
    pub(crate) fn dismiss_satisfied(&mut self) {
        let satisfied = |core: &Self| {
            let mut starved = core.budget.starved.iter(&core.endpoints).take(MOST_LOOKED_AT);
            starved.find(|&at| core.endpoints.at(at).waiters.is_empty() && !core.wants_connect(at))
        };
        while let Some(at) = satisfied(self) {
            self.no_longer_starved(at);
        }
    }

    /// The starved endpoint that has waited longest and could begin an attempt now: one where
    /// somebody waits, before one that only wants connections kept ready.
    fn first_in_need(&self, except: Option<u32>, mono: Stamp) -> Option<u32> {
        if self.budget.starved.is_empty()
            || self.budget.attempts.len() >= self.limits.max_connecting_total
        {
            return None;
        }
        let is_free = self.budget.permits.is_available();
        let has_room = is_free || self.spare().is_some();
        if !has_room {
            return None; // not worth a walk through all of them
        }
        let could_begin = |at: &u32| Some(*at) != except && self.may_begin(*at, mono);
        let starved = || self.budget.starved.iter(&self.endpoints).filter(could_begin);
        let in_need = starved().find(|&at| self.unserved(at) > 0);
        let may_keep = is_free && self.has_idle_room();
        in_need.or_else(|| starved().find(|&at| may_keep && self.wants_connect(at)))
    }

    /// Nothing but the limits of the pool is in the way of another attempt.
    pub(crate) fn may_begin(&self, endpoint: u32, mono: Stamp) -> bool {
        let place = self.endpoints.at(endpoint);
        place.retry_at.is_none_or(|at| at <= mono)
            && place.paced_until().is_none_or(|at| at <= mono)
            && !place.is_pausing(mono)
            && place.has_room_to_connect()
    }
}
