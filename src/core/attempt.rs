//! The life of an attempt: taken up by a thread, ended in time or not, and what each end means.

use std::time::Duration;

use crate::clock::{Now, nanos};
use crate::core::Core;
use crate::core::budget::MOST_ABANDONED;
use crate::core::checkin::From;
use crate::core::connect::{QUIET_RETRY_PAUSE, RETRY_PAUSE};
use crate::core::effects::{Action, Answer, Closing, Effects, End};
use crate::core::entry::{Attempt, State};
use crate::core::slab::Token;
use crate::core::timers::{Due, Timer};
use crate::core::waiters::Manner;
use crate::error::{ConnectFailure, Failure, Phase};
use crate::observe::CloseReason;
use crate::sync::Arc;

/// How long a call may take to return once its socket was shut down.
pub(crate) const INTERRUPT_GRACE: Duration = Duration::from_millis(100);

impl<T, W: Clone + PartialEq> Core<T, W> {
    /// A thread takes up an attempt, a check or a settling; false if it came too late for it.
    pub(crate) fn start_attempt(&mut self, token: Token, phase: Phase) -> bool {
        self.advance_attempt(token, phase, false)
    }

    /// The attempt has come further; with a duplicate of its socket it can be interrupted.
    /// False if its deadline has passed, or the pool was closed.
    pub(crate) fn advance_attempt(
        &mut self,
        token: Token,
        phase: Phase,
        interruptible: bool,
    ) -> bool {
        let goes_on =
            !self.is_closed && self.set_attempt(token, Attempt::Running { phase, interruptible });
        if goes_on && phase == Phase::Connect {
            let endpoint = self.entries.at(token.index).endpoint;
            if self.endpoints.at(endpoint).begins_in_loop {
                self.clear_timer(token.index); // the loop keeps its deadline, as long as it has it
            }
        }
        goes_on
    }

    /// From here on the attempt can be interrupted; false as for `advance_attempt`. If nobody waits
    /// for it, this is a moment to call it off.
    pub(crate) fn shield_attempt(
        &mut self,
        token: Token,
        phase: Phase,
        now: Now,
        fx: &mut Effects<T, W>,
    ) -> bool {
        let goes_on = self.advance_attempt(token, phase, true);
        if goes_on {
            self.make_way(now, fx);
        }
        goes_on
    }

    /// The attempt waits for a thread again, for its next stage; false as for `advance_attempt`.
    pub(crate) fn requeue_attempt(
        &mut self,
        token: Token,
        now: Now,
        fx: &mut Effects<T, W>,
    ) -> bool {
        self.await_next(token, Attempt::Queued, now, fx)
    }

    /// The attempt waits for the addresses of its name; false as for `advance_attempt`.
    pub(crate) fn await_name(&mut self, token: Token, now: Now, fx: &mut Effects<T, W>) -> bool {
        self.await_next(token, Attempt::Resolving, now, fx)
    }

    /// From here on its deadline is the reaper's to keep, if it was not; and if nobody waits for
    /// it, this is a moment to call it off.
    fn await_next(
        &mut self,
        token: Token,
        next: Attempt,
        now: Now,
        fx: &mut Effects<T, W>,
    ) -> bool {
        if self.is_closed || !self.set_attempt(token, next) {
            return false;
        }
        let entry = self.entries.at(token.index);
        if entry.timer.at().is_none() {
            let deadline = entry.retires_at.at();
            self.set_timer(token.index, deadline, fx);
        }
        self.make_way(now, fx);
        true
    }

    fn set_attempt(&mut self, token: Token, next: Attempt) -> bool {
        let Some(entry) = self.entries.get_mut(token) else { return false };
        match &mut entry.state {
            State::Connecting(attempt) | State::Checking(attempt) => match attempt {
                Attempt::Queued | Attempt::Resolving | Attempt::Running { .. } => {
                    *attempt = next;
                    true
                }
                Attempt::Interrupted | Attempt::CalledOff | Attempt::Stuck => false,
            },
            State::Idle | State::InUse => false,
        }
    }

    /// An attempt has ended, one way or the other, in time or not. False if that says nothing about
    /// the peer: it had been given up or called off, or the pool was closed.
    pub(crate) fn finish_connect(
        &mut self,
        endpoint: u32,
        token: Token,
        result: Result<T, Arc<ConnectFailure>>,
        now: Now,
        fx: &mut Effects<T, W>,
    ) -> bool {
        let Some(entry) = self.entries.get_mut(token) else {
            match result {
                Ok(conn) => self.turn_away(token, endpoint, conn, CloseReason::TooLate, now, fx),
                Err(failure) => fx.act(Action::Forget(failure)),
            }
            self.returned_late(endpoint);
            return false;
        };
        let took = now.mono.since(entry.born);
        let state = entry.state;
        if state == State::Connecting(Attempt::CalledOff) {
            self.finish_called_off(token, result, now, fx);
            return false;
        }
        let doomed = entry.doomed;
        let result = match (state, result) {
            (State::Connecting(Attempt::Interrupted | Attempt::Stuck), Err(failure))
                if failure.failure == Failure::Timeout =>
            {
                Err(failure)
            }
            // Whatever it is, it came after the deadline.
            (State::Connecting(Attempt::Interrupted | Attempt::Stuck), result) => {
                match result {
                    Ok(conn) => {
                        let is_closed = self.is_closed;
                        let reason =
                            if is_closed { CloseReason::PoolClosed } else { CloseReason::TooLate };
                        self.turn_away(token, endpoint, conn, reason, now, fx);
                    }
                    Err(failure) => fx.act(Action::Forget(failure)),
                }
                Err(Arc::new(ConnectFailure::timed_out(Phase::Open, took)))
            }
            (_, Ok(conn)) if doomed.is_some() => {
                self.turn_away(token, endpoint, conn, CloseReason::PeerClosed, now, fx);
                let cause = std::io::Error::from(std::io::ErrorKind::ConnectionReset).into();
                let failure = Failure::Other;
                Err(Arc::new(ConnectFailure::new(failure, Phase::Open, took, cause)))
            }
            (_, result) => result,
        };
        match result {
            Ok(conn) => self.connected(token, conn, took, now, fx),
            Err(failure) => {
                self.take_out(token.index);
                if state == State::Connecting(Attempt::Stuck) {
                    fx.act(Action::Forget(failure)); // its waiters were told at its deadline
                    self.rebalance(endpoint, now, fx);
                } else {
                    self.connect_failed(token, endpoint, failure, now, fx);
                }
            }
        }
        !self.is_closed
    }

    /// Whatever became of it: its room goes to whoever needed it.
    fn finish_called_off(
        &mut self,
        token: Token,
        result: Result<T, Arc<ConnectFailure>>,
        now: Now,
        fx: &mut Effects<T, W>,
    ) {
        let (_, endpoint, _) = self.take_out(token.index);
        match result {
            Ok(conn) => self.turn_away(token, endpoint, conn, CloseReason::MadeRoom, now, fx),
            Err(failure) => fx.act(Action::Forget(failure)),
        }
        self.rebalance(endpoint, now, fx);
    }

    fn connected(
        &mut self,
        token: Token,
        conn: T,
        took: Duration,
        now: Now,
        fx: &mut Effects<T, W>,
    ) {
        let retires_at = self.retirement(now.mono);
        let entry = self.entries.at_mut(token.index);
        entry.born = now.mono;
        entry.retires_at = Due::new(retires_at);
        let endpoint = entry.endpoint;
        let proof_at = self.first_proof(endpoint, now);
        let term = self.next_term(token.index, proof_at);
        self.set_timer(token.index, term, fx);
        let place = self.endpoints.at_mut(endpoint);
        place.note_connect(took);
        place.retry_at = None;
        place.quiet_pause = Duration::ZERO;
        if let Some((failure, _)) = place.failure.take() {
            fx.act(Action::Forget(failure));
        }
        if let Some(at) = place.retry_timer.take() {
            self.timers.cancel(at, Timer::Endpoint(endpoint));
        }
        self.tally(endpoint, |counters| {
            counters.opened += 1;
            counters.connecting_for += nanos(took);
        });
        self.lose_patience(endpoint, now, fx);
        self.learn_of_connect(endpoint, true, now.mono);
        let idle_limit = self.endpoints.at(endpoint).idle_limit.map(Duration::from_nanos);
        if let Some(idle_limit) = idle_limit.or(self.limits.idle_timeout) {
            self.look_by(now.mono.plus(idle_limit), fx);
        }
        if let Some(reason) = self.objection(token.index) {
            self.end(token.index, Some(conn), reason, fx);
            self.rebalance(endpoint, now, fx);
        } else {
            self.end_attempt(token.index);
            self.succeed(endpoint, fx);
            self.offer(token.index, conn, From::Crew, now, fx);
        }
    }

    /// An attempt failed; its entry is gone.
    fn connect_failed(
        &mut self,
        token: Token,
        endpoint: u32,
        failure: Arc<ConnectFailure>,
        now: Now,
        fx: &mut Effects<T, W>,
    ) {
        let made_room = failure.is_shortage && self.make_room(endpoint, fx);
        self.tally(endpoint, |counters| counters.failed += 1);
        let place = self.endpoints.at_mut(endpoint);
        place.heirs = 0;
        let failed_at = place.failure.as_ref().map(|(_, at)| *at);
        let is_first = failed_at.is_none_or(|at| now.mono.since(at) >= RETRY_PAUSE);
        place.quiet_pause = (place.quiet_pause * 2).clamp(RETRY_PAUSE, QUIET_RETRY_PAUSE);
        // With room made it is worth another try at once, but not one after the other.
        let pause = if made_room && is_first { Duration::ZERO } else { RETRY_PAUSE };
        place.retry_at = Some(now.mono.plus(pause));
        place.quiet_until = now.mono.plus(place.quiet_pause);
        if let Some((old, _)) = place.failure.replace((Arc::clone(&failure), now.mono)) {
            fx.act(Action::Forget(old));
        }
        if place.is_out() {
            self.spread_probes(endpoint, now);
        }
        if failure.failure != Failure::Local {
            self.learn_of_connect(endpoint, false, now.mono);
        }
        if !made_room {
            self.fail_waiters(endpoint, &failure, now, fx);
        }
        let is_out = self.endpoints.at(endpoint).is_out();
        let is_news = !self.is_closed;
        fx.act(Action::ConnectFailed { endpoint, token, failure, is_out, is_news });
        self.rebalance(endpoint, now, fx);
    }

    /// Of many pools that meet the same outage, each tries at other moments.
    fn spread_probes(&mut self, endpoint: u32, now: Now) {
        let quiet_pause = self.endpoints.at(endpoint).quiet_pause;
        let pause = self.between(RETRY_PAUSE, 2 * RETRY_PAUSE);
        let quiet_pause = self.between(quiet_pause / 2, quiet_pause).max(pause);
        let place = self.endpoints.at_mut(endpoint);
        place.retry_at = Some(now.mono.plus(pause));
        place.quiet_until = now.mono.plus(quiet_pause);
    }

    /// This process has run out of something that idle connections of other endpoints hold:
    /// descriptors, say. Ends one, if anybody waits here.
    fn make_room(&mut self, endpoint: u32, fx: &mut Effects<T, W>) -> bool {
        if self.is_closed || self.unserved(endpoint) == 0 {
            return false;
        }
        let Some(spare) = self.spare() else { return false };
        self.end(spare, None, CloseReason::MadeRoom, fx);
        true
    }

    /// With nothing left that could serve them, all who wait learn why, but for the patient; else,
    /// or if they are all to be patient, they wait on, and the failure becomes the source of their
    /// time-out.
    fn fail_waiters(
        &mut self,
        endpoint: u32,
        failure: &Arc<ConnectFailure>,
        now: Now,
        fx: &mut Effects<T, W>,
    ) {
        let place = self.endpoints.at(endpoint);
        if !self.limits.fail_fast || self.is_paused || place.live() + place.promising() > 0 {
            return;
        }
        let mut counts = self.counts(endpoint);
        let is_patient = |index| self.waiters.at(index).manner == Manner::Patient;
        let place = self.endpoints.at(endpoint);
        // Those that are told wait no more.
        counts.waiting = place.waiters.iter(&self.waiters).filter(|&at| is_patient(at)).count();
        let mut next = place.waiters.front();
        while let Some(index) = next {
            next = self.endpoints.at(endpoint).waiters.next(&self.waiters, index);
            if self.waiters.at(index).manner != Manner::Patient {
                let waiter = self.waiters.token(index);
                self.answer(waiter, Answer::Failed(Arc::clone(failure), counts), now, fx);
            }
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
        self.tally(endpoint, |counters| counters.checks += 1);
        let Some(entry) = self.entries.get(token) else {
            if let Some(conn) = conn {
                let (born, reason) = (now.mono, CloseReason::TooLate);
                let end = End { token, reason, born, uses: 0 };
                fx.act(Action::Close(Closing { conn, endpoint, end, is_told: true }));
            }
            self.returned_late(endpoint);
            return;
        };
        let is_late = matches!(entry.state, State::Checking(Attempt::Interrupted | Attempt::Stuck));
        let retires_at = entry.retires_at;
        let objection = if is_late && !self.is_closed {
            Some(CloseReason::TooLate)
        } else {
            let closed = self.is_closed.then_some(CloseReason::PoolClosed);
            closed.or_else(|| verdict.err()).or_else(|| self.objection(token.index))
        };
        let failed = [Some(CloseReason::CheckFailed), Some(CloseReason::TooLate)];
        let has_failed = failed.contains(&objection);
        if objection.is_none() || has_failed {
            self.note_verdict(endpoint, objection.is_none());
        }
        fx.act(Action::Checked { endpoint, token, objection });
        match (conn, objection) {
            (Some(conn), None) => {
                let is_past = retires_at.has_come(now.mono);
                self.note_proof(token.index, now, fx);
                self.entries.at_mut(token.index).retire = is_past;
                self.end_routine(token.index);
                self.endpoints.at_mut(endpoint).checking -= 1;
                self.offer_checked(token.index, conn, is_past, now, fx);
            }
            (conn, objection) => {
                let reason = objection.unwrap_or(CloseReason::ConnectorPanicked);
                if objection.is_none() || has_failed {
                    self.end_useless(token.index, conn, reason, now, fx);
                } else {
                    self.end(token.index, conn, reason, fx);
                    self.rebalance(endpoint, now, fx);
                }
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
            self.rebalance(endpoint, now, fx);
        } else {
            self.offer(index, conn, From::Upkeep, now, fx);
        }
    }

    /// What was abandoned has come back after all: its room was given away long ago.
    fn returned_late(&mut self, endpoint: u32) {
        self.endpoints.at_mut(endpoint).abandoned -= 1;
        self.budget.abandoned -= 1;
        self.note_vacancy(endpoint);
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
                self.take_out(index);
                fx.act(Action::Withdraw(token));
                let failure = Arc::new(ConnectFailure::no_thread(took));
                self.connect_failed(token, endpoint, failure, now, fx);
                return;
            }
            // It comes back refused, and the connection with it.
            Attempt::Queued => {
                self.end_routine(index);
                self.entries.at_mut(index).state = State::Checking(Attempt::Stuck);
                self.endpoints.at_mut(endpoint).stuck_checks += 1;
                fx.act(Action::Withdraw(token));
                self.rebalance(endpoint, now, fx);
                return;
            }
            // Nobody has it but the list of those who wait for the name.
            Attempt::Resolving => {
                self.take_out(index);
                fx.act(Action::Withdraw(token));
                let failure = Arc::new(ConnectFailure::timed_out(Phase::Resolve, took));
                self.connect_failed(token, endpoint, failure, now, fx);
                return;
            }
            Attempt::Stuck => return,
            // The event loop drops the sockets of an attempt as soon as it is told, if not before.
            Attempt::Running { interruptible: true, .. }
            | Attempt::Running { phase: Phase::Connect, .. } => {
                self.set_attempt(token, Attempt::Interrupted);
                self.set_timer(index, Some(now.mono.plus(INTERRUPT_GRACE)), fx);
                fx.act(Action::Interrupt(token));
                return;
            }
            Attempt::Running { phase, .. } => phase,
            Attempt::Interrupted | Attempt::CalledOff => Phase::Open,
        };
        let end = self.end_of(index, CloseReason::TooLate);
        let is_abandoned = self.give_up(index, fx);
        if is_connect && attempt != Attempt::CalledOff {
            let failure = Arc::new(ConnectFailure::timed_out(phase, took));
            self.connect_failed(token, endpoint, failure, now, fx);
            return;
        }
        if is_abandoned && !is_connect {
            self.tally(endpoint, |counters| counters.note_closed(end.reason));
            fx.act(Action::Checked { endpoint, token, objection: Some(end.reason) });
            fx.act(Action::Lost { endpoint, end });
        }
        self.rebalance(endpoint, now, fx);
    }

    /// It does not return: it counts no more, or keeps its permit if too many are out already.
    fn give_up(&mut self, index: u32, fx: &mut Effects<T, W>) -> bool {
        let token = self.entries.token(index);
        let entry = self.entries.at_mut(index);
        let endpoint = entry.endpoint;
        if self.budget.abandoned < MOST_ABANDONED {
            self.take_out(index);
            self.budget.abandoned += 1;
            let place = self.endpoints.at_mut(endpoint);
            place.abandoned += 1;
            fx.act(Action::Abandon(token));
            return true;
        }
        let before = entry.state;
        self.end_routine(index);
        let entry = self.entries.at_mut(index);
        let place = self.endpoints.at_mut(endpoint);
        if let State::Connecting(attempt) = before {
            entry.state = State::Connecting(Attempt::Stuck);
            place.stuck_connects += 1;
            let was_called_off = usize::from(attempt == Attempt::CalledOff);
            place.called_off -= was_called_off;
            self.budget.called_off -= was_called_off;
        } else {
            entry.state = State::Checking(Attempt::Stuck);
            place.stuck_checks += 1;
        }
        false
    }
}
