//! How fast connections are opened, and which attempts are called off.
//!
//! A burst of callers that some connections are about to serve must not open one for each: while an
//! endpoint has any, attempts begin one after the other. What nobody waits for any more is left to
//! finish, as long as its room is not needed: if it was closed when done, it would be opened again
//! for the next burst, for ever.

use std::time::Duration;

use crate::clock::{Now, Stamp};
use crate::core::Core;
use crate::core::attempt::INTERRUPT_GRACE;
use crate::core::effects::{Action, Effects};
use crate::core::endpoint::EndpointCore;
use crate::core::entry::{Attempt, State};
use crate::core::slab::Token;
use crate::error::Phase;

/// While connections are there, attempts begin no faster than this, unless they end sooner.
const LEAST_PACE: Duration = Duration::from_millis(5);

impl<W> EndpointCore<W> {
    /// Until when no further attempt is begun: there are some that come back to those who wait, and
    /// the last attempt has just begun.
    pub(crate) fn paced_until(&self) -> Option<Stamp> {
        let is_used = self.in_use > 0 || !self.waiters.is_empty();
        let begun_at = self.begun_at.filter(|_| is_used && self.live() > 0 && !self.is_cold())?;
        let half_the_mean = Duration::from_nanos(self.mean_connect / 2);
        Some(begun_at.plus(half_the_mean.max(LEAST_PACE)))
    }

    /// A call of `warm` wants more: it has said how many, and no burst is to be waited for.
    pub(crate) fn is_cold(&self) -> bool {
        self.live() + self.promising() < self.warm_target
    }

    /// More is on its way than anybody waits for.
    fn has_surplus(&self) -> bool {
        self.promising() > self.succeeding + self.heirs
            && self.coming() > self.waiters.len() + self.kept_idle()
            && self.live() + self.promising() > self.warm_target
    }
}

impl<T, W: Clone + PartialEq> Core<T, W> {
    /// Notes that an attempt has begun.
    pub(crate) fn begin_attempt(&mut self, index: u32, now: Now) {
        let endpoint = self.entries.at(index).endpoint;
        let place = self.endpoints.at_mut(endpoint);
        place.attempts.push_back(&mut self.entries, index);
        place.begun_at = Some(now.mono);
        self.budget.attempts.push_back(&mut self.entries, index);
    }

    /// Notes that it has ended. What becomes of its entry is the caller's to say.
    pub(crate) fn end_attempt(&mut self, index: u32) {
        let endpoint = self.entries.at(index).endpoint;
        let place = self.endpoints.at_mut(endpoint);
        if place.attempts.back() == Some(index) {
            place.begun_at = None;
        }
        place.attempts.remove(&mut self.entries, index);
        self.budget.attempts.remove(&mut self.entries, index);
    }

    /// True as long as this attempt would be of use to anybody: somebody waits for whom nothing
    /// comes sooner, or it is to be kept ready.
    pub(crate) fn is_wanted(&self, token: Token) -> bool {
        let is_promising = |index: u32| match self.entries.at(index).state {
            State::Connecting(attempt) => !attempt.is_lost(),
            _ => false,
        };
        let Some(entry) = self.entries.get(token).filter(|_| is_promising(token.index)) else {
            return false;
        };
        let place = self.endpoints.at(entry.endpoint);
        let older = place.attempts.iter(&self.entries).take_while(|&index| index != token.index);
        let ahead = older.filter(|&index| is_promising(index)).count();
        let ready = place.hoped_for() - place.promising();
        !self.is_closed
            && (ready + ahead < place.waiters.len() + place.kept_idle()
                || ahead < place.succeeding + place.heirs
                || place.live() + ahead < place.warm_target)
    }

    /// Where somebody waits for room under the pool's limits: calls off attempts that nobody waits
    /// for, one for each endpoint that starves.
    pub(crate) fn make_way(&mut self, now: Now, fx: &mut Effects<T, W>) {
        while !self.budget.starved.is_empty() {
            let Some(index) = self.unwanted() else { return };
            // Those that are being called off suffice for as many.
            let enough = self.budget.called_off;
            if self.in_need(now.mono).nth(enough).is_none() {
                return;
            }
            if self.call_off(index, now, fx) {
                self.serve_starved(None, now, fx);
            }
        }
    }

    /// The endpoints that starve where somebody waits and nothing else is in the way.
    fn in_need(&self, mono: Stamp) -> impl Iterator<Item = u32> + '_ {
        let starved = self.budget.starved.iter(&self.endpoints);
        starved.filter(move |&at| self.unserved(at) > 0 && self.may_begin(at, mono))
    }

    /// The youngest attempt of the endpoint that has had one too many for longest.
    pub(crate) fn unwanted(&self) -> Option<u32> {
        let mut attempts = self.budget.attempts.iter(&self.entries);
        attempts.find_map(|oldest| {
            let place = self.endpoints.at(self.entries.at(oldest).endpoint);
            if !place.has_surplus() {
                return None;
            }
            let theirs = place.attempts.iter(&self.entries);
            let is_unwanted = |index| !self.is_wanted(self.entries.token(index));
            theirs.filter(|&index| self.can_call_off(index) && is_unwanted(index)).last()
        })
    }

    /// It ends when it is told to, or waits for somebody else.
    fn can_call_off(&self, index: u32) -> bool {
        matches!(
            self.entries.at(index).state,
            State::Connecting(
                Attempt::Queued
                    | Attempt::Resolving
                    | Attempt::Running { interruptible: true, .. }
                    | Attempt::Running { phase: Phase::Connect, .. }
            )
        )
    }

    /// Calls an attempt off; true if it has ended thereby, and its room is free.
    fn call_off(&mut self, index: u32, now: Now, fx: &mut Effects<T, W>) -> bool {
        let token = self.entries.token(index);
        let entry = self.entries.at_mut(index);
        let state = std::mem::replace(&mut entry.state, State::Connecting(Attempt::CalledOff));
        let endpoint = entry.endpoint;
        let place = self.endpoints.at_mut(endpoint);
        place.called_off += 1;
        self.budget.called_off += 1;
        self.tally(endpoint, |counters| counters.called_off += 1);
        if matches!(state, State::Connecting(Attempt::Queued | Attempt::Resolving)) {
            self.take_out(index);
            fx.act(Action::Withdraw(token));
            return true;
        }
        self.set_timer(index, Some(now.mono.plus(INTERRUPT_GRACE)), fx);
        fx.act(Action::Interrupt(token));
        false
    }
}
