//! Taking connections back: to the next user, to the idle ones, or out.

use std::time::Duration;

use crate::clock::{Now, Stamp};
use crate::core::Core;
use crate::core::effects::{Action, Answer, Effects, Upkeep};
use crate::core::entry::{Attempt, State};
use crate::core::slab::{Cut, Token};
use crate::observe::CloseReason;

/// Where newcomers could be faster, connections are handed over no more often than this, in the
/// long run. Each time costs two switches of threads, which a newcomer does not need: so it is less
/// than a tenth of a CPU that fairness may cost an endpoint.
const HAND_OVER_PAUSE: Duration = Duration::from_micros(150);
/// What comes back all at once, and may be gone for long, is handed over all the same: so many of
/// those pauses may be owed.
const MOST_OWED: u32 = 16;

/// Where a connection comes from that is offered to waiters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum From {
    /// Its user gave it back.
    User,
    /// It was opened.
    Crew,
    /// It was checked or settled, and has a place among the idle ones.
    Upkeep,
}

/// What the event loop can see of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// The peer closed it, or at least its sending side.
    HungUp,
    /// Bytes have come that nobody can have asked for.
    Stray,
}

impl<T, W: Clone + PartialEq> Core<T, W> {
    /// The fast path of a return: nobody waits, there is room, nothing speaks against it.
    ///
    /// # Errors
    ///
    /// The connection, if there is more to think about: [`checkin`](Core::checkin).
    #[inline(always)]
    pub(crate) fn park(
        &mut self,
        endpoint: u32,
        token: Token,
        conn: T,
        wall: Stamp,
    ) -> Result<(), T> {
        let Some(entry) = self.entries.get(token) else { return Err(conn) };
        let (used, since) = (entry.used(wall), entry.since);
        let place = self.endpoints.at_mut(endpoint);
        // Closing a pool makes every epoch old.
        let is_welcome = entry.doomed.is_none()
            && !entry.retire
            && entry.epoch == place.epoch
            && !place.is_over
            && place.waiters.is_empty()
            && self.budget.starved.is_empty()
            && place.idle.len() < place.caps.max_idle_per_endpoint
            && self.budget.idle.len() < self.limits.max_idle;
        if !is_welcome {
            return Err(conn);
        }
        place.in_use -= 1;
        place.note_use(used, since);
        self.rest(endpoint, token.index, conn, wall);
        Ok(())
    }

    /// A connection is no longer in use.
    fn note_return(&mut self, index: u32, wall: Stamp) {
        let endpoint = self.note_use(index, wall);
        self.endpoints.at_mut(endpoint).in_use -= 1;
    }

    /// Notes for how long a connection was in use that is about to be in use no more.
    fn note_use(&mut self, index: u32, wall: Stamp) -> u32 {
        let entry = self.entries.at(index);
        let (endpoint, used, since) = (entry.endpoint, entry.used(wall), entry.since);
        self.endpoints.at_mut(endpoint).note_use(used, since);
        endpoint
    }

    /// Puts a connection on top of the idle ones.
    #[inline(always)]
    fn rest(&mut self, endpoint: u32, index: u32, conn: T, wall: Stamp) {
        let entry = self.entries.at_mut(index);
        entry.conn = Some(conn);
        entry.state = State::Idle;
        entry.since = wall;
        self.returns += 1;
        entry.rank = self.returns;
        let place = self.endpoints.at_mut(endpoint);
        place.idle.push_back(&mut self.entries, index);
        self.budget.idle.push_back(&mut self.entries, index);
    }

    /// A connection comes back that its guard found fit for others.
    pub(crate) fn checkin(&mut self, token: Token, conn: T, now: Now, fx: &mut Effects<T, W>) {
        let Some(entry) = self.entries.get(token) else {
            debug_assert!(false, "bug: a connection was returned twice");
            return;
        };
        debug_assert_eq!(entry.state, State::InUse, "bug: it was not in use");
        if let Some(reason) = self.objection(token.index) {
            self.discard(token, conn, reason, now, fx);
            return;
        }
        self.note_return(token.index, now.wall);
        self.offer(token.index, conn, From::User, now, fx);
    }

    /// A connection comes back that was granted and never received.
    pub(crate) fn take_back(&mut self, token: Token, conn: T, now: Now, fx: &mut Effects<T, W>) {
        self.uncount(token);
        self.checkin(token, conn, now, fx);
    }

    /// A connection comes back that was granted and found to be of no use before it went out.
    pub(crate) fn reject(
        &mut self,
        token: Token,
        conn: T,
        reason: CloseReason,
        now: Now,
        fx: &mut Effects<T, W>,
    ) {
        self.uncount(token);
        self.discard(token, conn, reason, now, fx);
    }

    /// A checkout was none: nobody received the connection.
    fn uncount(&mut self, token: Token) {
        if let Some(entry) = self.entries.get_mut(token) {
            entry.uses -= 1;
            let place = self.endpoints.at_mut(entry.endpoint);
            place.checkouts -= 1;
            place.fresh -= u64::from(entry.uses == 0);
        }
    }

    /// A connection comes back that is of no more use.
    pub(crate) fn discard(
        &mut self,
        token: Token,
        conn: T,
        reason: CloseReason,
        now: Now,
        fx: &mut Effects<T, W>,
    ) {
        let Some(entry) = self.entries.get(token) else {
            debug_assert!(false, "bug: a connection was returned twice");
            return;
        };
        let endpoint = entry.endpoint;
        self.note_use(token.index, now.wall);
        self.end(token.index, Some(conn), reason, fx);
        self.rebalance(endpoint, now, fx);
    }

    /// A connection comes back that must be settled first.
    pub(crate) fn settle(&mut self, token: Token, conn: T, now: Now, fx: &mut Effects<T, W>) {
        let Some(entry) = self.entries.get_mut(token) else {
            debug_assert!(false, "bug: a connection was returned twice");
            return;
        };
        let endpoint = entry.endpoint;
        if let Some(reason) = self.objection(token.index) {
            self.discard(token, conn, reason, now, fx);
            return;
        }
        let place = self.endpoints.at(endpoint);
        let is_exceeded = self.budget.permits.is_exceeded();
        if place.is_over && (is_exceeded || place.total() > place.caps.max_per_endpoint) {
            self.discard(token, conn, CloseReason::Surplus, now, fx);
            return;
        }
        if self.gives_away(endpoint, now.mono) {
            self.discard(token, conn, CloseReason::MadeRoom, now, fx);
            return;
        }
        self.note_return(token.index, now.wall);
        self.returns += 1;
        let entry = self.entries.at_mut(token.index);
        entry.state = State::Checking(Attempt::Queued);
        (entry.since, entry.rank) = (now.wall, self.returns);
        self.endpoints.at_mut(endpoint).checking += 1;
        let deadline = now.mono.plus(self.limits.settle_timeout);
        self.set_timer(token.index, Some(deadline), fx);
        let upkeep = Upkeep::Settle;
        fx.act(Action::Upkeep { endpoint, token, conn, upkeep, deadline });
        self.rebalance(endpoint, now, fx);
    }

    /// Its user keeps it for good: its room is free at once.
    pub(crate) fn detach(&mut self, token: Token, now: Now, fx: &mut Effects<T, W>) {
        let Some(entry) = self.entries.get(token) else { return };
        let endpoint = entry.endpoint;
        self.note_use(token.index, now.wall);
        self.take_out(token.index);
        self.tally(endpoint, |counters| counters.detached += 1);
        self.rebalance(endpoint, now, fx);
    }

    /// The event loop saw something on a watched connection.
    pub(crate) fn notice(&mut self, of: Cut, notice: Notice, now: Now, fx: &mut Effects<T, W>) {
        let Some(token) = self.entries.find(of) else { return };
        match notice {
            Notice::HungUp => self.hang_up(token, now, fx),
            Notice::Stray => self.stray(token, now, fx),
        }
    }

    /// The peer hung up: an idle connection ends at once, any other with its next transition.
    pub(crate) fn hang_up(&mut self, token: Token, now: Now, fx: &mut Effects<T, W>) {
        let Some(entry) = self.entries.get_mut(token) else { return };
        if entry.state != State::Idle {
            entry.doomed = Some(CloseReason::PeerClosed);
            return;
        }
        self.learn_of_close(token.index, now);
        self.end_useless(token.index, None, CloseReason::PeerClosed, now, fx);
    }

    /// Bytes have come, where only idle connections are watched for them. A greeting is not among
    /// them: the loop tells it by the word under which a new connection is registered.
    fn stray(&mut self, token: Token, now: Now, fx: &mut Effects<T, W>) {
        let Some(entry) = self.entries.get_mut(token) else { return };
        if matches!(entry.state, State::Connecting(_)) {
            return; // nobody has asked anything yet
        }
        // In use it is not watched: this came before it was taken, or after it was given back.
        if entry.state != State::Idle {
            entry.doomed = entry.doomed.or(Some(CloseReason::StrayBytes));
            return;
        }
        self.learn_of_bytes(token.index, now);
        self.end_useless(token.index, None, CloseReason::StrayBytes, now, fx);
    }

    /// A connection that nobody had ends, of its own. If nobody ever had it, the next that is opened
    /// only to be kept may fare no better.
    pub(crate) fn end_useless(
        &mut self,
        index: u32,
        conn: Option<T>,
        reason: CloseReason,
        now: Now,
        fx: &mut Effects<T, W>,
    ) {
        let entry = self.entries.at(index);
        let (endpoint, is_unused) = (entry.endpoint, entry.uses == 0);
        self.end(index, conn, reason, fx);
        if is_unused {
            self.pause_keeping(endpoint, now);
        }
        self.rebalance(endpoint, now, fx);
    }

    /// What speaks against keeping a connection, seen under the lock.
    pub(crate) fn objection(&self, index: u32) -> Option<CloseReason> {
        let entry = self.entries.at(index);
        if entry.doomed.is_some() {
            entry.doomed
        } else if self.is_closed {
            Some(CloseReason::PoolClosed)
        } else if entry.epoch != self.endpoints.at(entry.endpoint).epoch {
            Some(CloseReason::Evicted)
        } else if entry.retire {
            Some(CloseReason::MaxLifetime)
        } else {
            None
        }
    }

    /// A connection that is in nobody's hands goes to the oldest waiter if that is due, else to
    /// the idle ones within the caps, else out. The entry is counted in no state on entry.
    pub(crate) fn offer(
        &mut self,
        index: u32,
        conn: T,
        from: From,
        now: Now,
        fx: &mut Effects<T, W>,
    ) {
        let endpoint = self.entries.at(index).endpoint;
        let oldest = self.oldest_waiter(endpoint, now.mono);
        let place = self.endpoints.at(endpoint);
        let max_idle = place.caps.max_idle_per_endpoint;
        let has_room = place.idle.len() < max_idle && self.budget.idle.len() < self.limits.max_idle;
        let is_exceeded = self.budget.permits.is_exceeded();
        // At its endpoint it is counted nowhere at this moment.
        if place.is_over && (is_exceeded || place.total() >= place.caps.max_per_endpoint) {
            self.end_uncounted(index, conn, CloseReason::Surplus, fx);
        } else if from == From::User && self.gives_away(endpoint, now.mono) {
            self.end_uncounted(index, conn, CloseReason::MadeRoom, fx);
        } else if let Some((waiter, arrived)) = oldest {
            let is_turn = from == From::User && self.is_turn(endpoint, arrived, now.mono);
            // A new connection is no one's to overtake for; and what may not be idle must be used.
            let is_direct = is_turn || from != From::User || self.is_request(waiter);
            if is_direct || !has_room {
                if is_turn {
                    let place = self.endpoints.at_mut(endpoint);
                    place.paused_until = place.paused_until.max(now.mono).plus(HAND_OVER_PAUSE);
                }
                let caller = self.waiters.at(waiter.index).caller;
                let grant = self.grant(index, conn, caller, now);
                self.answer(waiter, Answer::Granted(grant), now, fx);
            } else {
                self.rest(endpoint, index, conn, now.wall);
            }
        } else if !has_room && (from != From::User || max_idle == 0) {
            self.end_uncounted(index, conn, CloseReason::Surplus, fx);
        } else if from == From::Upkeep {
            self.lay_back(index, conn);
        } else {
            self.rest(endpoint, index, conn, now.wall);
            self.trim(endpoint, now, fx);
        }
        self.rebalance(endpoint, now, fx);
    }

    /// Whether who came then is to be handed what comes back, and nobody may overtake him: if he
    /// has waited for long, and as often as that can be afforded.
    fn is_turn(&self, endpoint: u32, arrived: Stamp, mono: Stamp) -> bool {
        let fair_after = self.limits.fair_after;
        let owed = self.endpoints.at(endpoint).paused_until.since(mono);
        let is_affordable = fair_after.is_zero() || owed < MOST_OWED * HAND_OVER_PAUSE;
        mono.since(arrived) >= fair_after && is_affordable
    }

    /// Ends a connection whose entry is counted in no state.
    pub(crate) fn end_uncounted(
        &mut self,
        index: u32,
        conn: T,
        reason: CloseReason,
        fx: &mut Effects<T, W>,
    ) {
        let entry = self.entries.at_mut(index);
        entry.state = State::InUse;
        self.endpoints.at_mut(entry.endpoint).in_use += 1;
        self.end(index, Some(conn), reason, fx);
    }

    /// Closes what is more than the caps allow: the one of this endpoint that was idle longest,
    /// then the least recently used one of any, but of one where nobody waits if there is such.
    fn trim(&mut self, endpoint: u32, now: Now, fx: &mut Effects<T, W>) {
        let place = self.endpoints.at(endpoint);
        if place.idle.len() > place.caps.max_idle_per_endpoint {
            if let Some(oldest) = place.idle.front() {
                self.end(oldest, None, CloseReason::Surplus, fx);
            }
        }
        if self.budget.idle.len() > self.limits.max_idle {
            let oldest = self.spare().or_else(|| self.budget.idle.front());
            if let Some(oldest) = oldest {
                let theirs = self.entries.at(oldest).endpoint;
                self.end(oldest, None, CloseReason::Surplus, fx);
                if theirs != endpoint {
                    self.rebalance(theirs, now, fx);
                }
            }
        }
    }

    /// Whether a returned connection is to be closed because somebody elsewhere has waited for its
    /// room longer than anybody here; notes it if so.
    fn gives_away(&mut self, endpoint: u32, mono: Stamp) -> bool {
        let gives = self.should_give(endpoint, mono);
        if gives {
            self.endpoints.at_mut(endpoint).gave_at = Some(mono);
        }
        gives
    }

    fn should_give(&self, endpoint: u32, mono: Stamp) -> bool {
        if self.budget.permits.is_available()
            || self.budget.attempts.len() >= self.limits.max_connecting_total
        {
            return false;
        }
        let in_need =
            |&at: &u32| at != endpoint && self.unserved(at) > 0 && self.may_begin(at, mono);
        let Some(starved) = self.budget.starved.iter(&self.endpoints).find(in_need) else {
            return false;
        };
        // If nobody here wants it at this moment, it need not be a question of age.
        self.oldest_waiter(endpoint, mono).is_none_or(|(_, arrived)| {
            let place = self.endpoints.at(endpoint);
            let has_paused = place.gave_at.is_none_or(|at| mono.since(at) >= place.giving_pause());
            has_paused && self.endpoints.at(starved).starved_since.unwrap_or(mono) < arrived
        })
    }
}
