//! Proof that idle connections work: every so often, and before one goes out that had none for long.

use std::time::Duration;

use crate::clock::{Now, Stamp, nanos};
use crate::core::Core;
use crate::core::effects::{Action, Effects, Upkeep};
use crate::core::entry::{Attempt, State};
use crate::core::slab::Token;

/// Heartbeats of a pool under way at a time, of those that are due and nobody waits for.
const MOST_BEATS: usize = 256;
/// The same for checks, each of which has a thread.
const MOST_CHECKS: usize = 8;
/// Whoever waits for a proof waits for so long at least before another is opened for him.
const LEAST_PATIENCE: Duration = Duration::from_millis(50);
/// So often at the most is that doubled, while one after the other does not answer.
const MOST_DOUBLED: u32 = 6;
/// Those that fall due within so long are begun by one look of the reaper.
const LONGEST_SLOT: Duration = Duration::from_millis(128);

impl<T, W: Clone + PartialEq> Core<T, W> {
    /// The connector has heartbeats for this endpoint.
    pub(crate) fn expect_beats(&mut self, endpoint: u32) {
        self.endpoints.at_mut(endpoint).has_beats = true;
        self.note_care(endpoint);
    }

    /// How long an idle connection of an endpoint goes without proof, if it is proved at all.
    pub(crate) fn proof_interval(&self, endpoint: u32) -> Option<Duration> {
        let is_proved = self.endpoints.at(endpoint).has_beats || self.limits.check_after.is_some();
        self.limits.check_interval.filter(|_| is_proved)
    }

    /// Idle without proof for so long, in nanoseconds, a connection is proved before it goes out:
    /// one that has a check, after that time; one with heartbeats, if it has missed one.
    pub(crate) fn proof_after(&self, endpoint: u32) -> u64 {
        if let Some(check_after) = self.limits.check_after {
            return nanos(check_after);
        }
        let half_more = |interval| nanos(interval).saturating_add(nanos(interval) / 2);
        self.proof_interval(endpoint).map_or(u64::MAX, half_more)
    }

    /// For how long an idle connection has been without proof, where to be given back is one.
    pub(crate) fn unproved_for(&self, index: u32, wall: Stamp) -> u64 {
        let entry = self.entries.at(index);
        wall.apart(entry.since).min(wall.apart(entry.proved))
    }

    /// For how long its server has not heard of an idle connection.
    pub(crate) fn silent_for(&self, index: u32, wall: Stamp) -> u64 {
        let entry = self.entries.at(index);
        wall.apart(entry.since).min(wall.apart(entry.heard))
    }

    /// A connection is out for a heartbeat, and there is nothing to ask: what comes of it is no proof.
    pub(crate) fn note_unasked(&mut self, token: Token) {
        if let Some(entry) = self.entries.get_mut(token) {
            entry.is_unasked = true;
        }
    }

    /// The moment at which the reaper looks at a connection that is there: at the end of its
    /// lifetime, or when it may want proof.
    pub(crate) fn next_term(&mut self, index: u32, proof_at: Option<Stamp>) -> Option<Stamp> {
        let entry = self.entries.at(index);
        let (retires_at, interval) = (entry.retires_at.at(), self.proof_interval(entry.endpoint));
        let proof_at = proof_at.zip(interval).map(|(at, interval)| {
            // Some together, so that the reaper need not wake for each.
            let slot = nanos((interval / 64).min(LONGEST_SLOT)).max(1);
            at.plus(Duration::from_nanos(slot - at.as_nanos() % slot))
        });
        match (retires_at, proof_at) {
            (Some(retires_at), Some(proof_at)) => Some(retires_at.min(proof_at)),
            (one, other) => one.or(other),
        }
    }

    /// The first proof of a new connection: those that were opened together are not proved so.
    pub(crate) fn first_proof(&mut self, endpoint: u32, now: Now) -> Option<Stamp> {
        let interval = self.proof_interval(endpoint)?;
        let part = self.spread(nanos(interval / 2));
        Some(now.mono.plus(interval / 2 + Duration::from_nanos(part)))
    }

    /// Time to see whether an idle connection wants proof.
    pub(crate) fn proof_due(&mut self, index: u32, now: Now, fx: &mut Effects<T, W>) {
        let endpoint = self.entries.at(index).endpoint;
        let Some(interval) = self.proof_interval(endpoint) else { return };
        let place = self.endpoints.at(endpoint);
        let upkeep = if place.has_beats { Upkeep::Beat } else { Upkeep::Check };
        let most = if place.has_beats { MOST_BEATS } else { MOST_CHECKS };
        let unproved_for = match self.entries.at(index).state {
            State::Idle => self.unproved_for(index, now.wall),
            _ => 0, // in use, and soon to be seen again
        };
        // Sooner than it must be: those that came back together are not all to be proved together.
        let half = nanos(interval / 2);
        let is_due = unproved_for >= half;
        let in_turn = place.waiters.is_empty() && self.budget.routine < most;
        if is_due && in_turn {
            self.begin_proof(index, upkeep, now, fx);
            self.entries.at_mut(index).is_routine = true;
            self.endpoints.at_mut(endpoint).routine += 1;
            self.budget.routine += 1;
            self.rebalance(endpoint, now, fx);
            return;
        }
        let pause =
            if is_due { self.spread(half / 8) } else { half + self.spread(half) - unproved_for };
        let at = now.mono.plus(Duration::from_nanos(pause.max(1_000_000)));
        let term = self.next_term(index, Some(at));
        self.set_timer(index, term, fx);
    }

    /// Sends an idle connection off to be proved. It comes back to its place among the idle ones.
    pub(crate) fn begin_proof(
        &mut self,
        index: u32,
        upkeep: Upkeep,
        now: Now,
        fx: &mut Effects<T, W>,
    ) {
        let token = self.entries.token(index);
        let endpoint = self.entries.at(index).endpoint;
        let place = self.endpoints.at_mut(endpoint);
        place.idle.lift(&mut self.entries, index);
        self.budget.idle.lift(&mut self.entries, index);
        place.checking += 1;
        let entry = self.entries.at_mut(index);
        entry.state = State::Checking(Attempt::Queued);
        let conn = entry.conn.take();
        let deadline = now.mono.plus(self.limits.check_timeout);
        self.set_timer(index, Some(deadline), fx);
        if let Some(conn) = conn {
            fx.act(Action::Upkeep { endpoint, token, conn, upkeep, deadline });
        }
    }

    /// Whoever waits for proofs or settlings is not to do so for ever, however many have ended well.
    pub(crate) fn mind_returning(&mut self, endpoint: u32, now: Now, fx: &mut Effects<T, W>) {
        let place = self.endpoints.at(endpoint);
        if place.returning() > 0 {
            if !place.waiters.is_empty() {
                self.be_patient(endpoint, now, fx);
            }
        } else if place.is_suspect && self.proof_after(endpoint) == u64::MAX {
            // A settling tells of no other connection, and no proof would ever clear the others.
            self.endpoints.at_mut(endpoint).is_suspect = false;
        }
    }

    /// Somebody waits for a proof, or a settling: if it takes much longer than to connect, that is
    /// begun as well.
    pub(crate) fn be_patient(&mut self, endpoint: u32, now: Now, fx: &mut Effects<T, W>) {
        let place = self.endpoints.at_mut(endpoint);
        if place.is_suspect || place.patient_until.is_some() {
            return;
        }
        let patience = Duration::from_nanos(place.mean_connect.saturating_mul(2));
        let patience = patience.max(LEAST_PATIENCE) * (1 << place.in_vain.min(MOST_DOUBLED));
        let until = now.mono.plus(patience);
        place.patient_until = Some(until);
        self.set_retry_timer(endpoint, until, fx);
    }

    /// Looks whether patience has come to its end, while the timer of an endpoint is off.
    pub(crate) fn lose_patience(&mut self, endpoint: u32, now: Now, fx: &mut Effects<T, W>) {
        let place = self.endpoints.at_mut(endpoint);
        match place.patient_until {
            Some(until) if until <= now.mono => {
                place.patient_until = None;
                place.is_suspect = place.returning() > 0;
            }
            Some(until) => self.set_retry_timer(endpoint, until, fx),
            None => {}
        }
    }

    /// A proof has ended so: the others that are idle may be as this one.
    pub(crate) fn note_verdict(&mut self, endpoint: u32, is_well: bool) {
        let place = self.endpoints.at_mut(endpoint);
        place.is_suspect = !is_well;
        if is_well {
            place.patient_until = None;
            place.in_vain = 0;
        }
    }

    /// An entry's proof is over, or it is stuck: nobody need know any more that it was but routine.
    pub(crate) fn end_routine(&mut self, index: u32) {
        let entry = self.entries.at_mut(index);
        if std::mem::take(&mut entry.is_routine) {
            self.endpoints.at_mut(entry.endpoint).routine -= 1;
            self.budget.routine -= 1;
        }
    }

    /// A connection is fit for use, as has just been seen.
    pub(crate) fn note_proof(&mut self, index: u32, now: Now, fx: &mut Effects<T, W>) {
        let entry = self.entries.at_mut(index);
        entry.proved = now.wall;
        if !std::mem::take(&mut entry.is_unasked) {
            entry.heard = now.wall;
        }
        let (idle_for, endpoint) = (now.wall.apart(entry.since), entry.endpoint);
        if let Some(idle_timeout) = self.limits.idle_timeout {
            let spared_for = now.wall.apart(self.endpoints.at(endpoint).spared_at);
            let left = nanos(idle_timeout).saturating_sub(idle_for.min(spared_for));
            self.look_by(now.mono.plus(Duration::from_nanos(left)), fx);
        }
        let interval = self.proof_interval(endpoint);
        let proof_at = interval.map(|interval| {
            // A little sooner each time: what was asked together drifts apart.
            let sooner = Duration::from_nanos(self.spread(nanos(interval / 8)));
            now.mono.plus(interval - sooner)
        });
        let term = self.next_term(index, proof_at);
        self.set_timer(index, term, fx);
    }

    /// Puts a connection that was proved, or settled, among the idle ones: where it would be, had
    /// it stayed there since it came back.
    pub(crate) fn lay_back(&mut self, index: u32, conn: T) {
        let endpoint = self.entries.at(index).endpoint;
        let place = self.endpoints.at_mut(endpoint);
        place.idle.lay_back(&mut self.entries, index, |entry| {
            let is_there = entry.state == State::Idle && entry.endpoint == endpoint;
            (entry.rank, is_there)
        });
        self.budget
            .idle
            .lay_back(&mut self.entries, index, |entry| (entry.rank, entry.state == State::Idle));
        let entry = self.entries.at_mut(index);
        entry.conn = Some(conn);
        entry.state = State::Idle;
    }
}
