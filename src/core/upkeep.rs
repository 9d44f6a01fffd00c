//! Keeping time, and ending things on request.

use std::time::Duration;

use crate::clock::{Now, Stamp, nanos};
use crate::config::Reuse;
use crate::core::Core;
use crate::core::effects::{Action, Answer, Effects};
use crate::core::entry::{Attempt, State};
use crate::core::slab::Token;
use crate::core::timers::{Due, Timer};
use crate::error::{ConnectFailure, Phase};
use crate::observe::CloseReason;
use crate::sync::Arc;

/// Connections that one look of the reaper ends at the most, so that the lock is not held long.
const MOST_PER_LOOK: usize = 128;

impl<T, W: Clone + PartialEq> Core<T, W> {
    /// The reaper looks: ends what is due, refills, and says when to look again.
    ///
    /// `is_held` tells of an endpoint whether anybody has a handle on it.
    pub(crate) fn reap(
        &mut self,
        now: Now,
        is_held: impl Fn(u32) -> bool,
        fx: &mut Effects<T, W>,
    ) -> Stamp {
        self.forgive_jump(now);
        self.timers.look_at = Stamp::ZERO; // it looks at this moment; nobody need wake it
        self.note_kept(now, is_held);
        let mut work = 0;
        while work < MOST_PER_LOOK {
            let Some(timer) = self.timers.pop(now.mono) else { break };
            work += 1;
            match timer {
                Timer::Entry(index) => self.entry_due(index, now, fx),
                Timer::Endpoint(endpoint) => {
                    self.endpoints.at_mut(endpoint).retry_timer = None;
                    self.lose_patience(endpoint, now, fx);
                    self.rebalance(endpoint, now, fx);
                }
            }
        }
        let mut idle_due = Stamp::MAX;
        if let Some(idle_timeout) = self.limits.idle_timeout {
            idle_due = self.end_too_old(nanos(idle_timeout), &mut work, now, fx);
            if self.entries.len() > 0 {
                // What is in use now may come back and be forgotten.
                idle_due = idle_due.min(now.mono.plus(idle_timeout));
            }
        }
        let (ended, limit_due) =
            self.end_before_servers(MOST_PER_LOOK.saturating_sub(work), now, fx);
        work += ended;
        if self.limits.reuse == Reuse::Oldest {
            self.decay(now, fx);
        }
        self.look_for_leaks(now, fx);
        self.refill(now, fx);
        self.dismiss_satisfied();
        let next = if work >= MOST_PER_LOOK {
            now.mono
        } else {
            let leak_due = self.leaks.next();
            idle_due.min(limit_due).min(leak_due).min(self.timers.next().unwrap_or(Stamp::MAX))
        };
        self.timers.look_at = next;
        next
    }

    /// Ends what was idle for too long, but for what is to be kept. Returns when the next may be.
    fn end_too_old(
        &mut self,
        limit: u64,
        work: &mut usize,
        now: Now,
        fx: &mut Effects<T, W>,
    ) -> Stamp {
        let age = |core: &Self, index| now.wall.apart(core.entries.at(index).since);
        let too_old: Vec<Token> = {
            let idle = self.budget.idle.iter(&self.entries);
            let too_old = idle.take_while(|&index| age(self, index) >= limit);
            too_old.map(|index| self.entries.token(index)).collect()
        };
        for token in too_old {
            // The end of one may have been that of others.
            let Some(entry) = self.entries.get(token).filter(|entry| entry.state == State::Idle)
            else {
                continue;
            };
            let endpoint = entry.endpoint;
            let age = age(self, token.index);
            let place = self.endpoints.at_mut(endpoint);
            // Spared a while ago, it may be so again; if that is long ago, the machine has slept. The
            // oldest comes first, and decides for the others.
            let was_awake = age.min(now.wall.apart(place.spared_at)) < limit.saturating_mul(2);
            if place.idle.len() <= place.kept_idle() && was_awake {
                place.spared_at = now.wall;
            } else if *work < MOST_PER_LOOK {
                *work += 1;
                self.end(token.index, None, CloseReason::IdleTimeout, fx);
                self.rebalance(endpoint, now, fx);
            }
        }
        let mut younger = self.budget.idle.iter(&self.entries);
        let next = younger.find(|&index| age(self, index) < limit);
        next.map_or(Stamp::MAX, |index| {
            let left = (limit - age(self, index)).max(1_000_000);
            now.mono.plus(Duration::from_nanos(left))
        })
    }

    fn entry_due(&mut self, index: u32, now: Now, fx: &mut Effects<T, W>) {
        let entry = self.entries.at_mut(index);
        entry.timer = Due::NEVER;
        let is_past = entry.retires_at.has_come(now.mono);
        match entry.state {
            State::InUse | State::Idle if !is_past => self.proof_due(index, now, fx),
            State::InUse | State::Idle => self.retire(index, now, fx),
            State::Connecting(_) | State::Checking(_) => self.overdue(index, now, fx),
        }
    }

    /// Notes where `min_idle` is to be kept up: where somebody holds a handle, or asked of late.
    fn note_kept(&mut self, now: Now, is_held: impl Fn(u32) -> bool) {
        if !self.budget.keeps_some {
            return;
        }
        let limit = self.limits.idle_timeout.map_or(u64::MAX, nanos);
        let endpoints: Vec<u32> = self.endpoints.indexes().collect();
        for endpoint in endpoints {
            let place = self.endpoints.at_mut(endpoint);
            place.kept = is_held(endpoint) || now.wall.apart(place.last_used) < limit;
        }
    }

    /// Brings endpoints up to `min_idle`.
    fn refill(&mut self, now: Now, fx: &mut Effects<T, W>) {
        if !self.budget.keeps_some || self.is_closed {
            return;
        }
        let endpoints: Vec<u32> = self.endpoints.indexes().collect();
        for endpoint in endpoints {
            self.pump(endpoint, now, fx);
        }
        self.make_way(now, fx);
    }

    /// This endpoint is to have idle connections kept ready, as long as it is used.
    pub(crate) fn keeps(&self, endpoint: u32) -> bool {
        self.endpoints.at(endpoint).caps.min_idle > 0
    }

    /// Some endpoint is to have idle connections kept ready.
    pub(crate) fn keeps_some(&self) -> bool {
        self.budget.keeps_some
    }

    /// A handle was made: from now on `min_idle` is kept up.
    pub(crate) fn keep(&mut self, endpoint: u32, now: Now, fx: &mut Effects<T, W>) {
        if self.is_closed {
            return;
        }
        let place = self.endpoints.at_mut(endpoint);
        place.kept = true;
        place.last_used = now.wall;
        self.rebalance(endpoint, now, fx);
    }

    /// Ends all connections of an endpoint: idle ones now, the others when they come back.
    /// Returns the new epoch.
    pub(crate) fn evict(&mut self, endpoint: u32, now: Now, fx: &mut Effects<T, W>) -> u32 {
        let place = self.endpoints.at_mut(endpoint);
        place.epoch = place.epoch.wrapping_add(1);
        place.heirs = 0;
        let epoch = place.epoch;
        self.end_idle(endpoint, CloseReason::Evicted, fx);
        self.rebalance(endpoint, now, fx);
        epoch
    }

    fn end_idle(&mut self, endpoint: u32, reason: CloseReason, fx: &mut Effects<T, W>) {
        while let Some(index) = self.endpoints.at(endpoint).idle.front() {
            self.end(index, None, reason, fx);
        }
    }

    /// No more checkouts. Waiters get their answer at once, idle connections end, attempts are
    /// called off; connections in use end when they come back. Does nothing the second time.
    pub(crate) fn close(&mut self, now: Now, fx: &mut Effects<T, W>) {
        if self.is_closed {
            return;
        }
        self.is_closed = true;
        self.is_paused = false; // nobody is held back any more
        let endpoints: Vec<u32> = self.endpoints.indexes().collect();
        for endpoint in endpoints {
            let place = self.endpoints.at_mut(endpoint);
            place.epoch = place.epoch.wrapping_add(1);
            place.warm_target = 0;
            fx.hints.extend(place.watchers.iter().cloned());
            if let Some((failure, _)) = place.failure.take() {
                fx.act(Action::Forget(failure));
            }
            if let Some(at) = place.retry_timer.take() {
                self.timers.cancel(at, Timer::Endpoint(endpoint));
            }
            while let Some(index) = self.endpoints.at(endpoint).waiters.front() {
                let waiter = self.waiters.token(index);
                self.answer(waiter, Answer::Closed, now, fx);
            }
            self.no_longer_starved(endpoint);
            self.end_idle(endpoint, CloseReason::PoolClosed, fx);
            self.note_vacancy(endpoint);
        }
        let entries: Vec<u32> = self.entries.indexes().collect();
        for index in entries {
            match self.entries.at(index).state {
                State::Connecting(Attempt::Queued | Attempt::Resolving) => {
                    let token = self.entries.token(index);
                    self.take_out(index);
                    fx.act(Action::Withdraw(token));
                }
                // It comes back refused, and the connection with it.
                State::Checking(Attempt::Queued) => {
                    fx.act(Action::Withdraw(self.entries.token(index)));
                }
                // What they have is closed when they return.
                State::Connecting(
                    Attempt::Running { interruptible: true, .. }
                    | Attempt::Running { phase: Phase::Connect, .. },
                )
                | State::Checking(Attempt::Running { interruptible: true, .. }) => {
                    self.overdue_now(index, now, fx);
                }
                _ => {}
            }
        }
        if self.entries.len() == 0 {
            fx.hints.extend(self.drainers.iter().cloned());
        }
    }

    fn overdue_now(&mut self, index: u32, now: Now, fx: &mut Effects<T, W>) {
        self.set_timer(index, None, fx);
        self.overdue(index, now, fx);
    }

    /// `warm` begins: how many connections it wants open, and who is to be told of each change.
    pub(crate) fn warm(
        &mut self,
        endpoint: u32,
        wanted: usize,
        mailbox: &W,
        now: Now,
        fx: &mut Effects<T, W>,
    ) -> usize {
        let wanted = wanted.min(self.most_warm(endpoint));
        if self.is_closed {
            return wanted;
        }
        let place = self.endpoints.at_mut(endpoint);
        place.kept = true;
        place.last_used = now.wall;
        place.warm_target = place.warm_target.max(wanted);
        place.watchers.push(mailbox.clone());
        self.rebalance(endpoint, now, fx);
        wanted
    }

    /// As many as there may be, and may be idle.
    pub(crate) fn most_warm(&self, endpoint: u32) -> usize {
        let caps = self.endpoints.at(endpoint).caps;
        caps.max_per_endpoint.min(caps.max_idle_per_endpoint).min(self.limits.max_idle)
    }

    /// How far it is: connections open, and whether more are on their way.
    pub(crate) fn warmth(&self, endpoint: u32) -> (usize, bool) {
        let place = self.endpoints.at(endpoint);
        // With none open, being queued for room is as good as being on the way.
        let is_queued = place.open() == 0 && place.starved_since.is_some();
        (place.open(), place.promising() > 0 || is_queued)
    }

    /// `warm` ends: what was begun for it alone is wanted no more.
    pub(crate) fn cool(&mut self, endpoint: u32, mailbox: &W, now: Now, fx: &mut Effects<T, W>) {
        let place = self.endpoints.at_mut(endpoint);
        if let Some(at) = place.watchers.iter().position(|watcher| watcher == mailbox) {
            place.watchers.swap_remove(at);
        }
        if place.watchers.is_empty() {
            place.warm_target = 0;
        }
        self.rebalance(endpoint, now, fx);
    }

    /// The last failure of an endpoint, for an error.
    pub(crate) fn last_failure(
        &self,
        endpoint: u32,
        mono: Stamp,
    ) -> Option<(Arc<ConnectFailure>, Duration)> {
        let (failure, at) = self.endpoints.at(endpoint).failure.as_ref()?;
        Some((Arc::clone(failure), mono.since(*at)))
    }

    /// A connection that has left the pool goes to its connector, to be closed.
    pub(crate) fn begin_closing(&mut self, endpoint: u32) {
        self.endpoints.at_mut(endpoint).closing += 1;
    }

    /// The connector is done with one.
    pub(crate) fn has_closed(&mut self, endpoint: u32, now: Now, fx: &mut Effects<T, W>) {
        let place = self.endpoints.at_mut(endpoint);
        let had_many = place.has_many_to_close();
        place.closing -= 1;
        if had_many || place.closing == 0 {
            self.rebalance(endpoint, now, fx);
        }
    }

    /// Asks to be told when the last connection has ended. True if it has.
    pub(crate) fn await_end(&mut self, mailbox: &W) -> bool {
        self.drainers.push(mailbox.clone());
        self.has_ended()
    }

    pub(crate) fn drainers(&self) -> Vec<W> {
        self.drainers.clone()
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.is_closed && self.entries.len() == 0
    }

    pub(crate) fn stop_awaiting(&mut self, mailbox: &W) {
        self.drainers.retain(|drainer| drainer != mailbox);
    }

    /// True as long as the driver's threads have something to do about the entry.
    pub(crate) fn is_under_way(&self, token: Token) -> bool {
        let state = self.entries.get(token).map(|entry| entry.state);
        let Some(State::Connecting(attempt) | State::Checking(attempt)) = state else {
            return false;
        };
        match attempt {
            Attempt::Queued | Attempt::Resolving => !self.is_closed,
            Attempt::Running { .. } => true,
            Attempt::Interrupted | Attempt::CalledOff | Attempt::Stuck => false,
        }
    }
}
