//! Serving callers: an idle connection at once, or a place in the queue.

use std::time::Duration;

use crate::clock::{Now, Stamp, nanos};
use crate::config::Reuse;
use crate::core::Core;
use crate::core::connect::RETRY_PAUSE;
use crate::core::effects::{Answer, Effects, Upkeep};
use crate::core::endpoint::EndpointCore;
use crate::core::entry::{Entry, Grant, Lease, State};
use crate::core::list::Links;
use crate::core::situation::Waited;
use crate::core::slab::Token;
use crate::core::waiters::{Manner, Terms, Waiter};
use crate::error::{ConnectFailure, Counts, Situation};
use crate::observe::CloseReason;
use crate::sync::{Arc, Caller};

/// What a checkout off the fast path comes to.
#[derive(Debug)]
pub(crate) enum Outcome<T> {
    Granted(Grant<T>),
    /// A place in the queue, and how many are before it.
    Queued(Token, usize),
    Refused(Refusal),
}

/// Why a checkout is turned away at once.
#[derive(Debug)]
pub(crate) enum Refusal {
    Closed,
    Saturated(Counts),
    /// An attempt failed so lately that another is not worth its while; how long ago it was.
    Failed(Arc<ConnectFailure>, Duration, Counts),
}

/// What a waiter that looks again finds.
#[derive(Debug)]
pub(crate) enum LookAgain<T> {
    /// Its answer is in its mailbox.
    Answered,
    Granted(Grant<T>),
    /// Nothing yet. It keeps its place and its time of arrival.
    Waiting,
    /// Its deadline has passed; it has left the queue.
    Expired(Box<Situation>, Option<(Arc<ConnectFailure>, Duration)>),
}

impl<T, W: Clone + PartialEq> Core<T, W> {
    /// The fast path: an idle connection about which there is nothing to think.
    ///
    /// Newcomers may overtake waiters here (barging): a waiter that waits too long is handed its
    /// connection by [`checkin`](Core::checkin), and nothing is idle for newcomers then.
    #[inline(always)]
    pub(crate) fn checkout(
        &mut self,
        endpoint: u32,
        wall: Stamp,
        caller: Caller,
    ) -> Option<Grant<T>> {
        let place = self.endpoints.at(endpoint);
        let index = match self.limits.reuse {
            Reuse::Newest => place.idle.back()?,
            Reuse::Oldest => place.idle.front()?,
        };
        let idle_for = wall.apart(self.entries.at(index).since);
        // With this one gone, `min_idle` would ask for another, if it could be opened, or somebody
        // who starves for room among the idle ones has some.
        let is_short =
            place.idle.len() <= place.caps.min_idle && place.total() < place.caps.max_per_endpoint;
        let is_missed = is_short || !self.budget.starved.is_empty();
        if idle_for >= place.care_after || is_missed {
            return None;
        }
        self.lend(endpoint, index, idle_for, wall, caller)
    }

    /// Takes an idle connection out of the pool.
    #[inline(always)]
    fn lend(
        &mut self,
        endpoint: u32,
        index: u32,
        idle_for: u64,
        wall: Stamp,
        caller: Caller,
    ) -> Option<Grant<T>> {
        let place = self.endpoints.at_mut(endpoint);
        place.idle.remove(&mut self.entries, index);
        place.least_idle = place.least_idle.min(place.idle.len());
        self.budget.idle.remove(&mut self.entries, index);
        let (token, entry) = self.entries.token_and(index);
        debug_assert!(entry.doomed.is_none() && !entry.retire && entry.endpoint == endpoint);
        let lease = Self::note_checkout(place, entry, token, Some(idle_for), wall, caller);
        entry.conn.take().map(|conn| Grant { conn, lease })
    }

    /// Grants a connection that is on its way from elsewhere than the idle ones.
    pub(crate) fn grant(&mut self, index: u32, conn: T, caller: Caller, now: Now) -> Grant<T> {
        let (token, entry) = self.entries.token_and(index);
        let place = self.endpoints.at_mut(entry.endpoint);
        let lease = Self::note_checkout(place, entry, token, None, now.wall, caller);
        Grant { conn, lease }
    }

    /// From here on the connection is in use.
    #[inline(always)]
    fn note_checkout(
        place: &mut EndpointCore<W>,
        entry: &mut Entry<T>,
        token: Token,
        idle_for: Option<u64>,
        wall: Stamp,
        caller: Caller,
    ) -> Lease {
        let (epoch, born, uses) = (entry.epoch, entry.born, entry.uses);
        entry.state = State::InUse;
        entry.uses = uses.saturating_add(1);
        entry.since = wall;
        (entry.site, entry.thread) = (Some(caller.site), caller.thread);
        place.in_use += 1;
        place.since_sum = place.since_sum.wrapping_add(wall.as_nanos());
        place.most_in_use = place.most_in_use.max(place.in_use);
        place.checkouts += 1;
        place.last_used = wall;
        if uses == 0 {
            place.fresh += 1;
            (place.kept_pause, place.kept_after) = (Duration::ZERO, None);
        }
        Lease::new(token, (epoch, uses, born), idle_for)
    }

    /// The checkout of a caller that does not wait: an idle connection or nothing.
    pub(crate) fn try_checkout(
        &mut self,
        endpoint: u32,
        caller: Caller,
        now: Now,
        fx: &mut Effects<T, W>,
    ) -> Option<Grant<T>> {
        if self.is_closed {
            return None;
        }
        self.watch_for_leaks(endpoint, now, fx);
        let demand = self.endpoints.at(endpoint).waiters.len() + 1;
        let found = self.take_ready(endpoint, demand, caller, now, fx);
        self.rebalance(endpoint, now, fx);
        found
    }

    /// The checkout of a caller that waits if it must.
    pub(crate) fn checkout_or_wait(
        &mut self,
        endpoint: u32,
        now: Now,
        terms: Terms,
        mailbox: &W,
        fx: &mut Effects<T, W>,
    ) -> Outcome<T> {
        if self.is_closed {
            return Outcome::Refused(Refusal::Closed);
        }
        let place = self.endpoints.at_mut(endpoint);
        place.kept = true;
        place.asked_at = now.mono;
        place.last_used = now.wall;
        place.demand.note(place.used_by(now.wall), place.checkouts, now.mono);
        self.watch_for_leaks(endpoint, now, fx);
        let demand = self.endpoints.at(endpoint).waiters.len() + 1;
        let outcome = match self.take_ready(endpoint, demand, terms.caller, now, fx) {
            Some(grant) => Outcome::Granted(grant),
            None => self.queue(endpoint, now, terms, mailbox),
        };
        self.rebalance(endpoint, now, fx);
        outcome
    }

    /// A place in the queue, unless waiting there makes no sense.
    fn queue(&mut self, endpoint: u32, now: Now, terms: Terms, mailbox: &W) -> Outcome<T> {
        let Terms { asked_at, deadline, manner, caller } = terms;
        let place = self.endpoints.at_mut(endpoint);
        if let (Some((failure, at)), Some(retry_at)) = (&place.failure, place.retry_at) {
            // Where others wait on, room was made for the next attempt.
            let is_alone = place.waiters.is_empty();
            let is_hopeless = place.live() + place.promising() == 0 && is_alone;
            let (is_impatient, age) = (manner != Manner::Patient, now.mono.since(*at));
            let is_fresh = retry_at > now.mono && age < RETRY_PAUSE;
            if self.limits.fail_fast && !self.is_paused && is_fresh && is_hopeless && is_impatient {
                let failure = Arc::clone(failure);
                self.tally(endpoint, |counters| counters.refused += 1);
                let counts = self.counts(endpoint);
                return Outcome::Refused(Refusal::Failed(failure, age, counts));
            }
        }
        // Whoever was there before keeps its place.
        if asked_at.is_none() && place.waiters.len() >= place.caps.max_waiting {
            self.tally(endpoint, |counters| counters.refused += 1);
            return Outcome::Refused(Refusal::Saturated(self.counts(endpoint)));
        }
        let arrival = place.arrival();
        place.waits += u64::from(asked_at.is_none());
        let token = self.waiters.insert(Waiter {
            mailbox: mailbox.clone(),
            endpoint,
            arrived: asked_at.unwrap_or(now.mono),
            deadline,
            manner,
            caller,
            arrival,
            told: false,
            links: Links::NONE,
        });
        self.line_up(endpoint, token.index, asked_at.is_some());
        Outcome::Queued(token, arrival.ahead as usize)
    }

    /// Puts a waiter into its queue: at the end, but for one that was there before.
    fn line_up(&mut self, endpoint: u32, index: u32, was_there: bool) {
        let arrived = self.waiters.at(index).arrived;
        let place = self.endpoints.at_mut(endpoint);
        let is_younger = |other: &u32| self.waiters.at(*other).arrived > arrived;
        let next =
            if was_there { place.waiters.iter(&self.waiters).find(is_younger) } else { None };
        match next {
            Some(next) => place.waiters.insert_before(&mut self.waiters, next, index),
            None => place.waiters.push_back(&mut self.waiters, index),
        }
        self.budget.waiting += 1;
        if place.starved_since.is_some_and(|since| since > arrived) {
            place.starved_since = Some(arrived);
        }
    }

    /// A request is not wanted any more. Returns where its answer was to go, to be dropped off the
    /// lock; nothing if it was answered.
    pub(crate) fn cancel_request(
        &mut self,
        token: Token,
        now: Now,
        fx: &mut Effects<T, W>,
    ) -> Option<W> {
        let request = self.remove_waiter(token, false, now.mono)?;
        self.rebalance(request.endpoint, now, fx);
        Some(request.mailbox)
    }

    /// A waiter woke: because it was told to, or because its deadline has passed.
    pub(crate) fn look_again(
        &mut self,
        token: Token,
        now: Now,
        fx: &mut Effects<T, W>,
    ) -> LookAgain<T> {
        let Some(waiter) = self.waiters.get_mut(token) else { return LookAgain::Answered };
        let (endpoint, has_expired) = (waiter.endpoint, waiter.has_expired(now.mono));
        let caller = waiter.caller;
        let was_told = std::mem::take(&mut waiter.told);
        let place = self.endpoints.at_mut(endpoint);
        place.told -= usize::from(was_told);
        let demand = place.waiters.len();
        let found = self.take_ready(endpoint, demand, caller, now, fx);
        let result = match found {
            Some(grant) => {
                self.remove_waiter(token, true, now.mono);
                LookAgain::Granted(grant)
            }
            None if has_expired => {
                let gone = self.remove_waiter(token, false, now.mono);
                let wait = gone.as_ref().map(Waited::of);
                let situation = wait.map(|wait| self.situation(&wait, now)).unwrap_or_default();
                self.tally(endpoint, |counters| counters.timed_out += 1);
                LookAgain::Expired(Box::new(situation), self.last_failure(endpoint, now.mono))
            }
            None => LookAgain::Waiting,
        };
        // What it was told of may be gone, and what was in the way of a connect may be, too.
        self.rebalance(endpoint, now, fx);
        result
    }

    /// An idle connection that may be handed out; the caller rebalances when it has found its place
    /// in the queue, or left it.
    ///
    /// Those that were idle for too long, by a clock that counts on while the machine sleeps, are
    /// closed on the way; if all that are left need a check, one is sent off to be checked, as long
    /// as that serves somebody (`demand`).
    fn take_ready(
        &mut self,
        endpoint: u32,
        demand: usize,
        caller: Caller,
        now: Now,
        fx: &mut Effects<T, W>,
    ) -> Option<Grant<T>> {
        if self.is_paused {
            return None;
        }
        let idle_timeout = self.limits.idle_timeout.map_or(u64::MAX, nanos);
        let proof_after = self.proof_after(endpoint);
        loop {
            let place = self.endpoints.at(endpoint);
            let index = match self.limits.reuse {
                Reuse::Newest => place.idle.back()?,
                Reuse::Oldest => place.idle.front()?,
            };
            let idle_for = now.wall.apart(self.entries.at(index).since);
            // What is kept may be older, if the reaper has been here meanwhile, or is about to be.
            let is_too_old = if place.kept_idle() > 0 {
                idle_for.min(now.wall.apart(place.spared_at)) >= idle_timeout.saturating_mul(2)
            } else {
                idle_for >= idle_timeout
            };
            if is_too_old || self.is_beyond_limit(index, now.wall) {
                self.end(index, None, CloseReason::IdleTimeout, fx);
            } else if self.unproved_for(index, now.wall) >= proof_after {
                // The newest is at the back in either order of reuse.
                let newest = place.idle.back().unwrap_or(index);
                if self.unproved_for(newest, now.wall) < proof_after {
                    let newest_for = now.wall.apart(self.entries.at(newest).since);
                    return self.lend(endpoint, newest, newest_for, now.wall, caller);
                }
                if place.counted_on() < demand {
                    if place.returning() >= demand {
                        // In place of one that does not come back: this one has its own time.
                        let place = self.endpoints.at_mut(endpoint);
                        place.is_suspect = false;
                        place.in_vain += 1;
                    }
                    let has_check = self.limits.check_after.is_some();
                    let upkeep = if has_check { Upkeep::Check } else { Upkeep::Beat };
                    self.begin_proof(newest, upkeep, now, fx);
                    self.be_patient(endpoint, now, fx);
                }
                return None;
            } else {
                return self.lend(endpoint, index, idle_for, now.wall, caller);
            }
        }
    }

    /// Keeps the promise: while a waiter is neither told nor past its deadline, as many are told as
    /// are [tellable](Core::tellable). Stops at a request, which cannot look by itself: true if
    /// something was done for it, and whatever is idle has changed.
    pub(crate) fn tell(&mut self, endpoint: u32, now: Now, fx: &mut Effects<T, W>) -> bool {
        let to_tell = self.tellable(endpoint, now.wall);
        let place = self.endpoints.at_mut(endpoint);
        let mut next = place.waiters.front();
        while place.told < to_tell {
            let Some(index) = next else { return false };
            next = place.waiters.next(&self.waiters, index);
            let waiter = self.waiters.at_mut(index);
            if waiter.manner == Manner::Request {
                let request = self.waiters.token(index);
                self.look_for(request, endpoint, now, fx);
                return true;
            }
            if !waiter.told && !waiter.has_expired(now.mono) {
                waiter.told = true;
                place.told += 1;
                fx.hints.push(waiter.mailbox.clone());
            }
        }
        false
    }

    /// Does for a waiter what it does itself when it is told: takes what is idle, or has it checked.
    /// True if it was served.
    pub(crate) fn look_for(
        &mut self,
        waiter: Token,
        endpoint: u32,
        now: Now,
        fx: &mut Effects<T, W>,
    ) -> bool {
        let demand = self.endpoints.at(endpoint).waiters.len();
        let caller = self.waiters.at(waiter.index).caller;
        let found = self.take_ready(endpoint, demand, caller, now, fx);
        let has_found = found.is_some();
        if let Some(grant) = found {
            self.answer(waiter, Answer::Granted(grant), now, fx);
        }
        has_found
    }

    /// How many waiters would find something to do if they looked: one for each idle connection.
    /// If all of those need a check first, only as many as have no check under way for them.
    pub(crate) fn tellable(&self, endpoint: u32, wall: Stamp) -> usize {
        let place = self.endpoints.at(endpoint);
        let Some(newest) = place.idle.back().filter(|_| !self.is_paused) else { return 0 };
        if self.unproved_for(newest, wall) < self.proof_after(endpoint) {
            return place.idle.len();
        }
        place.idle.len().min(place.waiters.len().saturating_sub(place.counted_on()))
    }

    /// The oldest waiter that can be served: its deadline has not passed, and when it came.
    pub(crate) fn oldest_waiter(&self, endpoint: u32, mono: Stamp) -> Option<(Token, Stamp)> {
        if self.is_paused {
            return None;
        }
        let mut waiters = self.endpoints.at(endpoint).waiters.iter(&self.waiters);
        let index = waiters.find(|&index| !self.waiters.at(index).has_expired(mono))?;
        Some((self.waiters.token(index), self.waiters.at(index).arrived))
    }

    /// It is to be handed what comes, and not to look for itself.
    pub(crate) fn is_request(&self, waiter: Token) -> bool {
        self.waiters.get(waiter).is_some_and(|waiter| waiter.manner == Manner::Request)
    }

    /// Answers a waiter, which thereby leaves the queue.
    pub(crate) fn answer(
        &mut self,
        waiter: Token,
        answer: Answer<T>,
        now: Now,
        fx: &mut Effects<T, W>,
    ) {
        match self.remove_waiter(waiter, true, now.mono) {
            Some(waiter) => fx.answers.push((waiter.mailbox, answer)),
            None => debug_assert!(false, "bug: answered a waiter that had left"),
        }
    }

    /// Takes a waiter out of the queue that was answered or found what it wanted, or else gave up.
    fn remove_waiter(&mut self, token: Token, is_served: bool, mono: Stamp) -> Option<Waiter<W>> {
        let endpoint = self.waiters.get(token)?.endpoint;
        let place = self.endpoints.at_mut(endpoint);
        place.waiters.remove(&mut self.waiters, token.index);
        self.budget.waiting -= 1;
        let waiter = self.waiters.remove(token)?;
        place.told -= usize::from(waiter.told);
        place.waited += nanos(mono.since(waiter.arrived));
        if place.starved_since.is_some() {
            match place.waiters.front() {
                None => self.no_longer_starved(endpoint),
                // It has had its turn, however it came by it: now it goes behind the others.
                Some(_) if is_served => {
                    self.no_longer_starved(endpoint);
                    self.starve(endpoint, waiter.arrived);
                }
                // It keeps its place; who waits there is younger.
                Some(next) => place.starved_since = Some(self.waiters.at(next).arrived),
            }
        }
        Some(waiter)
    }
}
