//! Waiting: for a connection, for several to be open, for the last one to end.

use std::time::Duration;

use crate::clock::{self, Deadline, Now, Stamp};
use crate::connector::Connector;
use crate::core::{Answer, Grant, LookAgain, Manner, Outcome, RETRY_PAUSE, Refusal, Terms, Token};
use crate::error::{ConnectFailure, Error, Situation};
use crate::shared::seat::{Desk, Mailbox, Seat};
use crate::shared::{Boxed, Held, Home, Shared, Unfit};
use crate::sync::{self, Arc, Caller};

/// Seats kept for the next who must wait.
const MOST_SEATS: usize = 64;

/// What becomes of a request at once.
pub(crate) enum Asked<T> {
    Granted(T),
    Queued(Token),
}

impl<C: Connector> Home<C> {
    /// A checkout that found nothing on the fast path: waits until its deadline if it must.
    #[cold]
    #[inline(never)]
    pub(crate) fn checkout_slow(
        &self,
        timeout: Duration,
        manner: Manner,
        caller: Caller,
    ) -> Result<Boxed<C>, Error> {
        let shared = &*self.shared;
        if sync::must_not_wait_for(shared.id) {
            return Err(Error::rejected().at(&self.label));
        }
        let began = clock::mono();
        let deadline = began.plus(timeout);
        let seat = shared.take_seat();
        let mut terms = Terms { asked_at: None, deadline, manner, caller };
        let (mut unfit, mut ahead) = (None, None);
        let result = loop {
            let outcome = self.ask(terms, &seat.mailbox, unfit.take());
            terms.asked_at = Some(began);
            let granted = match outcome {
                Outcome::Granted(grant) => Ok(grant),
                Outcome::Queued(token, before) => {
                    ahead.get_or_insert(before);
                    self.wait(&seat, token, deadline)
                }
                Outcome::Refused(refusal) => Err(self.refused(refusal)),
            };
            match granted.map(|grant| self.inspect(Held::lend(grant))) {
                Ok(Ok(held)) => break Ok(held),
                // Again, until the same deadline.
                Ok(Err(of_no_use)) => unfit = Some(of_no_use),
                Err(error) => break Err(error.at(&self.label).after(clock::mono().since(began))),
            }
        };
        shared.put_back_seat(seat);
        if ahead.is_some() {
            self.note_wait((began, clock::mono()), ahead, caller, result.as_ref());
        }
        result
    }

    /// A checkout that is answered at a desk, if not at once.
    pub(crate) fn request(
        &self,
        desk: Arc<dyn Desk<Boxed<C>>>,
        caller: Caller,
        asked_at: Option<Stamp>,
        mut unfit: Option<Unfit<C>>,
    ) -> Result<Asked<Boxed<C>>, Error> {
        let mailbox = Mailbox::Desk(desk);
        let terms = Terms { asked_at, deadline: Stamp::MAX, manner: Manner::Request, caller };
        loop {
            match self.ask(terms, &mailbox, unfit.take()) {
                Outcome::Granted(grant) => match self.inspect(Held::lend(grant)) {
                    Ok(held) => return Ok(Asked::Granted(held)),
                    Err(of_no_use) => unfit = Some(of_no_use),
                },
                Outcome::Queued(token, _) => return Ok(Asked::Queued(token)),
                Outcome::Refused(refusal) => return Err(self.refused(refusal)),
            }
        }
    }

    /// Asks for a connection; again, after one that turned out to be of no use. That is closed only
    /// then: what comes of its room finds the caller in its place in the queue.
    fn ask(
        &self,
        terms: Terms,
        mailbox: &Mailbox<Boxed<C>>,
        unfit: Option<Unfit<C>>,
    ) -> Outcome<Boxed<C>> {
        let now = Now::read();
        let outcome = self
            .shared
            .transact(|core, fx| core.checkout_or_wait(self.place, now, terms, mailbox, fx));
        if let Some((held, reason)) = unfit {
            self.reject(held, reason);
        }
        outcome
    }

    /// What a request was answered with, fit to go out or not.
    pub(crate) fn received(
        &self,
        answer: Answer<Boxed<C>>,
    ) -> Result<Result<Boxed<C>, Unfit<C>>, Error> {
        self.answered(answer).map(|grant| self.inspect(Held::lend(grant)))
    }

    /// A request is not wanted any more. Does nothing if it was answered.
    pub(crate) fn cancel_request(&self, token: Token) {
        if self.shared.is_orphaned() {
            return;
        }
        let now = Now::read();
        let Some(state) = self.shared.enter() else { return };
        let desk =
            self.shared.transact_under(state, |core, fx| core.cancel_request(token, now, fx));
        drop(desk);
    }

    /// A checkout that takes what is idle, or nothing.
    pub(crate) fn try_checkout(&self, caller: Caller) -> Option<Boxed<C>> {
        loop {
            let now = Now::read();
            let grant =
                self.shared.transact(|core, fx| core.try_checkout(self.place, caller, now, fx))?;
            if let Some(held) = self.look(Held::lend(grant)) {
                return Some(held);
            }
        }
    }

    fn wait(
        &self,
        seat: &Seat<Boxed<C>>,
        token: Token,
        deadline: Stamp,
    ) -> Result<Grant<Boxed<C>>, Error> {
        let shared = &*self.shared;
        loop {
            seat.parker.park_timeout(deadline.since(clock::mono()));
            if let Ok(answer) = seat.answers.try_recv() {
                return self.answered(answer);
            }
            let now = Now::read();
            match shared.transact(|core, fx| core.look_again(token, now, fx)) {
                LookAgain::Granted(grant) => return Ok(grant),
                LookAgain::Waiting => {}
                LookAgain::Answered => {
                    // Sent under the lock that has just been held here.
                    let answer = seat.answers.try_recv();
                    debug_assert!(answer.is_ok(), "bug: removed from the queue without an answer");
                    return answer.map_or_else(|_| Err(Error::closed()), |a| self.answered(a));
                }
                LookAgain::Expired(situation, failure) => {
                    let is_paused = situation.counts.is_paused;
                    let what = if is_paused { "paused" } else { "no connection came free" };
                    return Err(Error::timeout(what, situation, failure));
                }
            }
        }
    }

    fn answered(&self, answer: Answer<Boxed<C>>) -> Result<Grant<Boxed<C>>, Error> {
        match answer {
            Answer::Granted(grant) => Ok(grant),
            Answer::Failed(failure, counts) => Err(Error::connect(failure, None, counts)),
            Answer::Closed => Err(Error::closed()),
        }
    }

    fn refused(&self, refusal: Refusal) -> Error {
        match refusal {
            Refusal::Closed => Error::closed(),
            Refusal::Saturated(counts) => Error::saturated(counts),
            Refusal::Failed(failure, age, counts) => Error::connect(failure, Some(age), counts),
        }
    }

    /// Opens connections ahead of need: waits until `wanted` are open, no more can be opened, or
    /// the deadline. Returns how many are.
    pub(crate) fn warm(&self, wanted: usize, timeout: Duration) -> Result<usize, Error> {
        let warmth = self.warm_while(wanted, timeout, |_, more_to_come| more_to_come)?;
        if warmth.open > 0 || warmth.target == 0 {
            return Ok(warmth.open.min(wanted));
        }
        Err(self.too_cold(warmth, false))
    }

    /// The same, but an attempt that fails is followed by others, and fewer are an error. Only where
    /// callers are to learn of failures at once, and none is open, the first one ends it.
    pub(crate) fn warm_all(&self, wanted: usize, timeout: Duration) -> Result<(), Error> {
        let state = self.shared.state.lock();
        let (most, is_patient) = (state.core.most_warm(self.place), !state.core.limits().fail_fast);
        drop(state);
        if wanted > most {
            let text = format!("warm_all({wanted}): no more than {most} may be idle here");
            return Err(Error::config(text).at(&self.label));
        }
        let goes_on = |open, more_to_come| is_patient || open > 0 || more_to_come;
        let warmth = self.warm_while(wanted, timeout, goes_on)?;
        if warmth.open >= warmth.target {
            return Ok(());
        }
        Err(self.too_cold(warmth, is_patient))
    }

    /// Has connections opened until so many are, the deadline, or `goes_on` says no: of how many are
    /// open, and whether more are on their way.
    fn warm_while(
        &self,
        wanted: usize,
        timeout: Duration,
        goes_on: impl Fn(usize, bool) -> bool,
    ) -> Result<Warmth, Error> {
        let shared = &*self.shared;
        if sync::must_not_wait_for(shared.id) {
            return Err(Error::rejected().at(&self.label));
        }
        let began = clock::mono();
        let deadline = Deadline::at(began.plus(timeout));
        let seat = shared.take_seat();
        let now = Now::read();
        let target =
            shared.transact(|core, fx| core.warm(self.place, wanted, &seat.mailbox, now, fx));
        let open = loop {
            let state = shared.state.lock();
            let (open, more_to_come) = state.core.warmth(self.place);
            let is_closed = state.core.is_closed();
            drop(state);
            let is_over = is_closed || deadline.has_passed();
            if open >= target || is_over || !goes_on(open, more_to_come) {
                break open;
            }
            seat.parker.park_timeout(deadline.remaining());
        };
        let now = Now::read();
        let (situation, failure, is_closed) = shared.transact(|core, fx| {
            let situation = core.situation_at(self.place, now);
            core.cool(self.place, &seat.mailbox, now, fx);
            (situation, core.last_failure(self.place, now.mono), core.is_closed())
        });
        shared.put_back_seat(seat);
        let waited = clock::mono().since(began);
        if is_closed {
            return Err(Error::closed().at(&self.label).after(waited));
        }
        Ok(Warmth { open, target, situation, failure, waited })
    }

    /// Why not enough are open: for who was patient, that they were not in time.
    fn too_cold(&self, warmth: Warmth, is_patient: bool) -> Error {
        let Warmth { open, situation, failure, waited, .. } = warmth;
        let error = match failure {
            // An older one is not why this failed.
            Some((failure, age)) if !is_patient && open == 0 && age <= waited + RETRY_PAUSE => {
                Error::connect(failure, Some(age), situation.counts)
            }
            failure => {
                let what = if open == 0 {
                    "no connection was opened"
                } else {
                    "not enough connections were opened"
                };
                Error::timeout(what, Box::new(situation), failure)
            }
        };
        error.at(&self.label).after(waited)
    }
}

/// How far it came with opening connections ahead of need.
struct Warmth {
    open: usize,
    target: usize,
    situation: Situation,
    failure: Option<(Arc<ConnectFailure>, Duration)>,
    waited: Duration,
}

impl<C: Connector> Shared<C> {
    fn take_seat(&self) -> Seat<Boxed<C>> {
        let seat = self.seats.lock().pop();
        seat.unwrap_or_else(Seat::new)
    }

    /// Its channel is drained, and its node has left the queue: nobody sends to it any more. A
    /// late unpark wakes whoever sits there next, who looks and waits on.
    fn put_back_seat(&self, seat: Seat<Boxed<C>>) {
        debug_assert!(seat.answers.is_empty(), "bug: an answer was left behind");
        let mut seats = self.seats.lock();
        let surplus = if seats.len() < MOST_SEATS {
            seats.push(seat);
            None
        } else {
            Some(seat)
        };
        drop(seats);
        drop(surplus);
    }

    /// Waits until the last connection of the closed pool has ended.
    pub(crate) fn await_end(&self, deadline: Deadline) -> Result<(), Error> {
        let began = clock::mono();
        let seat = self.take_seat();
        let mut state = self.state.lock();
        let mut has_ended = state.core.await_end(&seat.mailbox) && state.has_ended();
        drop(state);
        while !has_ended && !deadline.has_passed() {
            seat.parker.park_timeout(deadline.remaining());
            has_ended = self.state.lock().has_ended();
        }
        self.state.lock().core.stop_awaiting(&seat.mailbox);
        self.put_back_seat(seat);
        if has_ended {
            return Ok(());
        }
        let now = Now::read();
        let state = self.state.lock();
        let situation = state.core.situation_of_all(now);
        let is_closing = state.core.has_ended() && state.closing > 0;
        drop(state);
        let what = if is_closing {
            "the connector had not closed all connections"
        } else {
            "connections were still out"
        };
        let waited = now.mono.since(began);
        Err(Error::timeout(what, Box::new(situation), None).after(waited))
    }
}
