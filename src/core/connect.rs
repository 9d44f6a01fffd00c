//! Opening more: when, for whom, and what a failure means.

use std::time::Duration;

use crate::clock::{Now, Stamp};
use crate::core::Core;
use crate::core::budget::MOST_ABANDONED;
use crate::core::checkin::From;
use crate::core::effects::{Action, Answer, Closing, Effects};
use crate::core::entry::{Attempt, Entry, State};
use crate::core::slab::{Links, Token};
use crate::core::timers::Timer;
use crate::error::{ConnectFailure, Failure, Phase};
use crate::observe::CloseReason;
use crate::sync::Arc;

/// No attempt to an endpoint begins sooner than this after one has failed.
pub(crate) const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// With nobody waiting the pause doubles, up to this.
const QUIET_RETRY_PAUSE: Duration = Duration::from_millis(800);
/// How long a call may take to return once its socket was shut down.
pub(crate) const INTERRUPT_GRACE: Duration = Duration::from_millis(100);

impl<T, W: Clone + PartialEq> Core<T, W> {
    /// Begins as many attempts as the endpoint's waiters, `min_idle` and `warm` ask for and the
    /// limits allow.
    pub(crate) fn pump(&mut self, endpoint: u32, now: Now, fx: &mut Effects<T, W>) {
        while self.wants_connect(endpoint) && self.begin_connect(endpoint, now, fx) {}
    }

    /// How many connections waiters need beyond those that are idle or on their way.
    fn unserved(&self, endpoint: u32) -> usize {
        let place = self.endpoints.at(endpoint);
        let coming = place.idle.len() + place.connecting + place.checking - place.stuck;
        place.waiters.len().saturating_sub(coming)
    }

    /// Attempts under way, and checks and settles whose result can serve a waiter, are never more
    /// than the waiters and what is to be kept ready.
    fn wants_connect(&self, endpoint: u32) -> bool {
        if self.unserved(endpoint) > 0 {
            return true;
        }
        // What is opened to be kept must find room among the idle ones, or it would be closed and
        // opened for ever.
        if self.budget.idle.len() + self.budget.connecting >= self.limits.max_idle {
            return false;
        }
        let place = self.endpoints.at(endpoint);
        let coming = place.idle.len() + place.connecting + place.checking - place.stuck;
        let kept = if place.kept { self.limits.min_idle } else { 0 };
        let is_cold = place.open() + place.connecting - place.stuck < place.warm_target;
        coming < place.waiters.len() + kept || is_cold
    }

    /// True as long as an attempt of this endpoint would be of use to anybody.
    pub(crate) fn is_wanted(&self, endpoint: u32) -> bool {
        let place = self.endpoints.at(endpoint);
        let kept = if place.kept { self.limits.min_idle } else { 0 };
        !self.is_closed
            && (!place.waiters.is_empty()
                || place.idle.len() < kept
                || place.open() < place.warm_target)
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
        if place.connecting >= self.limits.max_connecting
            || place.total() >= self.limits.max_per_endpoint
        {
            return false;
        }
        if self.budget.connecting >= self.limits.max_connecting_total {
            self.starve(endpoint, now);
            return false;
        }
        if !self.budget.permits.is_available() && is_unserved {
            self.make_room(endpoint, fx);
        }
        let Some(permit) = self.budget.permits.take() else {
            if is_unserved {
                self.starve(endpoint, now);
            }
            return false;
        };
        let place = self.endpoints.at_mut(endpoint);
        place.connecting += 1;
        self.budget.connecting += 1;
        let token = self.entries.insert(Entry {
            conn: None,
            state: State::Connecting(Attempt::Queued),
            endpoint,
            epoch: place.epoch,
            born: now.mono,
            idle_since: Stamp::ZERO,
            uses: 0,
            hung_up: false,
            retire: false,
            timer: None,
            retires_at: None,
            stack: Links::NONE,
            used: Links::NONE,
            permit,
        });
        let deadline = now.mono.plus(self.limits.connect_timeout);
        self.set_timer(token.index, Some(deadline), fx);
        fx.act(Action::Connect { endpoint, token, deadline });
        true
    }

    /// Sets the endpoint's timer for its next attempt: soon for waiters, and ever later for
    /// connections that are only to be kept ready.
    fn retry_later(&mut self, endpoint: u32, at: Stamp, now: Now, fx: &mut Effects<T, W>) {
        let place = self.endpoints.at_mut(endpoint);
        let at = if place.waiters.is_empty() {
            now.mono.plus(place.quiet_pause.clamp(RETRY_PAUSE, QUIET_RETRY_PAUSE)).max(at)
        } else {
            at
        };
        match place.retry_timer {
            Some(set) if set <= at => return,
            Some(set) => self.timers.cancel(set, Timer::Endpoint(endpoint)),
            None => {}
        }
        place.retry_timer = Some(at);
        self.timers.set(at, Timer::Endpoint(endpoint));
        self.look_by(at, fx);
    }

    /// Closes the least recently used idle connection of an endpoint where nobody waits.
    fn make_room(&mut self, endpoint: u32, fx: &mut Effects<T, W>) {
        let found = self.budget.idle.iter(&self.entries).find(|&index| {
            let theirs = self.entries.at(index).endpoint;
            theirs != endpoint && self.endpoints.at(theirs).waiters.is_empty()
        });
        if let Some(index) = found {
            self.end(index, None, CloseReason::MadeRoom, fx);
        }
    }

    /// Queues an endpoint for room under the limits of the pool.
    fn starve(&mut self, endpoint: u32, now: Now) {
        let place = self.endpoints.at_mut(endpoint);
        if place.starved_since.is_some() {
            return;
        }
        let oldest = place.waiters.front().map(|index| self.waiters.at(index).arrived);
        place.starved_since = Some(oldest.unwrap_or(now.mono));
        self.budget.starved.push_back(&mut self.endpoints, endpoint);
    }

    pub(crate) fn no_longer_starved(&mut self, endpoint: u32) {
        if self.endpoints.at_mut(endpoint).starved_since.take().is_some() {
            self.budget.starved.remove(&mut self.endpoints, endpoint);
        }
    }

    /// Gives free room to the starved, one attempt each in turn; with `against`, only to those who
    /// have waited longer than anybody at that endpoint.
    pub(crate) fn serve_starved(&mut self, against: Option<u32>, now: Now, fx: &mut Effects<T, W>) {
        // An endpoint that cannot begin for reasons of its own goes to the back once.
        let mut turns = self.budget.starved.len();
        while turns > 0
            && self.budget.permits.is_available()
            && self.budget.connecting < self.limits.max_connecting_total
        {
            turns -= 1;
            let Some(starved) = self.budget.starved.front() else { return };
            if let Some(own) = against {
                let since = self.endpoints.at(starved).starved_since;
                let oldest = self.endpoints.at(own).waiters.front();
                let arrived = oldest.map(|index| self.waiters.at(index).arrived);
                if self.unserved(own) > 0 && arrived <= since {
                    return;
                }
            }
            self.no_longer_starved(starved);
            if self.wants_connect(starved) && self.begin_connect(starved, now, fx) {
                turns = self.budget.starved.len();
            }
            if self.unserved(starved) > 0 && self.may_begin(starved, now) {
                self.starve(starved, now);
            }
        }
    }

    /// Nothing but the limits of the pool is in the way of another attempt.
    fn may_begin(&self, endpoint: u32, now: Now) -> bool {
        let place = self.endpoints.at(endpoint);
        place.retry_at.is_none_or(|at| at <= now.mono)
            && place.connecting < self.limits.max_connecting
            && place.total() < self.limits.max_per_endpoint
    }

    /// A thread takes up an attempt, a check or a settling; false if it came too late for it.
    pub(crate) fn start_attempt(&mut self, token: Token, phase: Phase) -> bool {
        self.set_attempt(token, Attempt::Running { phase, interruptible: false })
    }

    /// The attempt has come further; with a duplicate of its socket it can be interrupted.
    pub(crate) fn advance_attempt(&mut self, token: Token, phase: Phase, interruptible: bool) {
        self.set_attempt(token, Attempt::Running { phase, interruptible });
    }

    fn set_attempt(&mut self, token: Token, next: Attempt) -> bool {
        let Some(entry) = self.entries.get_mut(token) else { return false };
        match &mut entry.state {
            State::Connecting(attempt) | State::Checking(attempt) => match attempt {
                Attempt::Queued | Attempt::Running { .. } => {
                    *attempt = next;
                    true
                }
                Attempt::Interrupted | Attempt::Stuck => false,
            },
            State::Idle | State::InUse => false,
        }
    }

    /// An attempt has ended, one way or the other, in time or not.
    pub(crate) fn finish_connect(
        &mut self,
        endpoint: u32,
        token: Token,
        result: Result<T, Arc<ConnectFailure>>,
        now: Now,
        fx: &mut Effects<T, W>,
    ) {
        let Some(entry) = self.entries.get_mut(token) else {
            self.returned_late(endpoint, result.ok(), now, fx);
            return;
        };
        let took = now.mono.since(entry.born);
        let state = entry.state;
        let hung_up = entry.hung_up;
        let result = match (state, result) {
            (State::Connecting(Attempt::Interrupted | Attempt::Stuck), Err(failure))
                if failure.failure == Failure::Timeout =>
            {
                Err(failure)
            }
            // Whatever it is, it came after the deadline.
            (State::Connecting(Attempt::Interrupted | Attempt::Stuck), result) => {
                if let Ok(conn) = result {
                    // It was never counted as open.
                    let (born, reason) = (entry.born, CloseReason::TooLate);
                    fx.act(Action::Close(Closing { conn, endpoint, reason, born }));
                }
                Err(Arc::new(ConnectFailure::timed_out(Phase::Open, took)))
            }
            (_, Ok(conn)) if hung_up => {
                let (born, reason) = (entry.born, CloseReason::PeerClosed);
                fx.act(Action::Close(Closing { conn, endpoint, reason, born }));
                let cause = std::io::Error::from(std::io::ErrorKind::ConnectionReset).into();
                let failure = Failure::Other;
                Err(Arc::new(ConnectFailure { failure, phase: Phase::Open, took, cause }))
            }
            (_, result) => result,
        };
        match result {
            Ok(conn) => self.connected(token, conn, took, now, fx),
            Err(failure) => {
                let entry = self.take_out(token.index);
                self.budget.permits.give_back(entry.permit);
                if state == State::Connecting(Attempt::Stuck) {
                    fx.act(Action::Forget(failure)); // its waiters were told at its deadline
                    self.freed(endpoint, now, fx);
                } else {
                    self.connect_failed(endpoint, failure, now, fx);
                }
            }
        }
    }

    fn connected(
        &mut self,
        token: Token,
        conn: T,
        took: Duration,
        now: Now,
        fx: &mut Effects<T, W>,
    ) {
        let retires_at = self.limits.max_lifetime.map(|lifetime| {
            // Up to a quarter off, so that what was born together does not end together.
            let quarter = crate::clock::nanos(lifetime) / 4;
            let off = Duration::from_nanos(self.random_below(quarter));
            now.mono.plus(lifetime.saturating_sub(off))
        });
        self.set_timer(token.index, retires_at, fx);
        let entry = self.entries.at_mut(token.index);
        entry.born = now.mono;
        entry.retires_at = retires_at;
        let endpoint = entry.endpoint;
        let place = self.endpoints.at_mut(endpoint);
        place.note_connect(took);
        place.counters.opened += 1;
        place.retry_at = None;
        place.quiet_pause = Duration::ZERO;
        if let Some((failure, _)) = place.failure.take() {
            fx.act(Action::Forget(failure));
        }
        if let Some(at) = place.retry_timer.take() {
            self.timers.cancel(at, Timer::Endpoint(endpoint));
        }
        if let Some(idle_timeout) = self.limits.idle_timeout {
            self.look_by(now.mono.plus(idle_timeout), fx);
        }
        if let Some(reason) = self.objection(token.index) {
            self.end(token.index, Some(conn), reason, fx);
        } else {
            self.endpoints.at_mut(endpoint).connecting -= 1;
            self.budget.connecting -= 1;
            self.offer(token.index, conn, From::Crew, now, fx);
        }
        // A slot for connecting is free, whatever became of the connection.
        self.freed(endpoint, now, fx);
    }

    /// An attempt failed; its entry is gone.
    fn connect_failed(
        &mut self,
        endpoint: u32,
        failure: Arc<ConnectFailure>,
        now: Now,
        fx: &mut Effects<T, W>,
    ) {
        let place = self.endpoints.at_mut(endpoint);
        place.counters.failed += 1;
        place.retry_at = Some(now.mono.plus(RETRY_PAUSE));
        place.quiet_pause = (place.quiet_pause * 2).clamp(RETRY_PAUSE, QUIET_RETRY_PAUSE);
        if let Some((old, _)) = place.failure.replace((Arc::clone(&failure), now.mono)) {
            fx.act(Action::Forget(old));
        }
        self.fail_waiters(endpoint, &failure, fx);
        fx.act(Action::Forget(failure));
        self.freed(endpoint, now, fx);
    }

    /// With nothing left that could serve them, all who wait learn why; else they wait on, and the
    /// failure becomes the source of their time-out.
    fn fail_waiters(
        &mut self,
        endpoint: u32,
        failure: &Arc<ConnectFailure>,
        fx: &mut Effects<T, W>,
    ) {
        let place = self.endpoints.at(endpoint);
        if place.total() > place.stuck {
            return;
        }
        let counts = self.counts(endpoint);
        while let Some(index) = self.endpoints.at(endpoint).waiters.front() {
            let waiter = self.waiters.token(index);
            self.answer(waiter, Answer::Failed(Arc::clone(failure), counts), fx);
        }
    }

    /// A check or a settling has ended: with the connection, and whether it is fit for use.
    pub(crate) fn finish_upkeep(
        &mut self,
        endpoint: u32,
        token: Token,
        conn: Option<T>,
        verdict: Result<(), CloseReason>,
        now: Now,
        fx: &mut Effects<T, W>,
    ) {
        let Some(entry) = self.entries.get(token) else {
            self.returned_late(endpoint, conn, now, fx);
            return;
        };
        let is_late = matches!(entry.state, State::Checking(Attempt::Interrupted | Attempt::Stuck));
        let retires_at = entry.retires_at;
        let objection = if is_late {
            Some(CloseReason::TooLate)
        } else {
            verdict.err().or_else(|| self.objection(token.index))
        };
        match (conn, objection) {
            (Some(conn), None) => {
                let is_past = retires_at.is_some_and(|at| at <= now.mono);
                self.set_timer(token.index, retires_at.filter(|_| !is_past), fx);
                self.entries.at_mut(token.index).retire = is_past;
                self.endpoints.at_mut(endpoint).checking -= 1;
                self.offer_checked(token.index, conn, is_past, now, fx);
            }
            (conn, objection) => {
                let reason = objection.unwrap_or(CloseReason::ConnectorPanicked);
                self.end(token.index, conn, reason, fx);
                self.freed(endpoint, now, fx);
            }
        }
    }

    fn offer_checked(
        &mut self,
        index: u32,
        conn: T,
        is_past: bool,
        now: Now,
        fx: &mut Effects<T, W>,
    ) {
        if is_past {
            let endpoint = self.entries.at(index).endpoint;
            self.end_uncounted(index, conn, CloseReason::MaxLifetime, fx);
            self.freed(endpoint, now, fx);
        } else {
            self.offer(index, conn, From::Crew, now, fx);
        }
    }

    /// What was abandoned has come back after all: its room was given away long ago.
    fn returned_late(&mut self, endpoint: u32, conn: Option<T>, now: Now, fx: &mut Effects<T, W>) {
        self.endpoints.at_mut(endpoint).abandoned -= 1;
        self.budget.abandoned -= 1;
        if let Some(conn) = conn {
            let (born, reason) = (now.mono, CloseReason::TooLate);
            fx.act(Action::Close(Closing { conn, endpoint, reason, born }));
        }
    }

    /// The deadline of an attempt, a check or a settling has passed.
    pub(crate) fn overdue(&mut self, index: u32, now: Now, fx: &mut Effects<T, W>) {
        let token = self.entries.token(index);
        let entry = self.entries.at_mut(index);
        let (endpoint, took) = (entry.endpoint, now.mono.since(entry.born));
        let (attempt, is_connect) = match entry.state {
            State::Connecting(attempt) => (attempt, true),
            State::Checking(attempt) => (attempt, false),
            State::Idle | State::InUse => return,
        };
        let phase = match attempt {
            Attempt::Queued if is_connect => {
                let entry = self.take_out(index);
                self.budget.permits.give_back(entry.permit);
                let failure = Arc::new(ConnectFailure::no_thread(took));
                self.connect_failed(endpoint, failure, now, fx);
                return;
            }
            // The crew keeps threads free for these: one will come, and find it is too late.
            Attempt::Queued => {
                self.set_attempt(token, Attempt::Interrupted);
                return;
            }
            Attempt::Stuck => return,
            // Connecting ends at its deadline by itself.
            Attempt::Running { interruptible: true, .. }
            | Attempt::Running { phase: Phase::Connect, .. } => {
                self.set_attempt(token, Attempt::Interrupted);
                self.set_timer(index, Some(now.mono.plus(INTERRUPT_GRACE)), fx);
                fx.act(Action::Interrupt(token));
                return;
            }
            Attempt::Running { phase, .. } => phase,
            Attempt::Interrupted => Phase::Open,
        };
        let failure = Arc::new(ConnectFailure::timed_out(phase, took));
        if self.budget.abandoned >= MOST_ABANDONED {
            self.endpoints.at_mut(endpoint).stuck += 1;
            let entry = self.entries.at_mut(index);
            entry.state = if is_connect {
                State::Connecting(Attempt::Stuck)
            } else {
                State::Checking(Attempt::Stuck)
            };
            if is_connect {
                self.connect_failed(endpoint, failure, now, fx);
            }
            return;
        }
        let entry = self.take_out(index);
        self.budget.permits.give_back(entry.permit);
        self.budget.abandoned += 1;
        let place = self.endpoints.at_mut(endpoint);
        place.abandoned += 1;
        place.counters.abandoned += 1;
        fx.act(Action::Abandon(token));
        if is_connect {
            self.connect_failed(endpoint, failure, now, fx);
        } else {
            self.endpoints.at_mut(endpoint).counters.note_closed(CloseReason::TooLate);
            self.freed(endpoint, now, fx);
        }
    }
}
