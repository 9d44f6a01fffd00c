//! Other limits while the pool is in use: for all endpoints, or for one.

use crate::clock::{Now, Stamp};
use crate::config::{Caps, EndpointLimits, Limits};
use crate::core::Core;
use crate::core::effects::Effects;
use crate::core::entry::State;
use crate::core::timers::Due;
use crate::error::Error;
use crate::observe::CloseReason;

impl<T, W: Clone + PartialEq> Core<T, W> {
    pub(crate) const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// What each endpoint may have in a pool with these limits: those with limits of their own keep
    /// what they say.
    ///
    /// # Errors
    ///
    /// The first endpoint whose own limits conflict with these, and how.
    pub(crate) fn caps_under(&self, limits: &Limits) -> Result<Vec<(u32, Caps)>, (u32, Error)> {
        let caps = |endpoint| match &self.endpoints.at(endpoint).own_limits {
            Some(own) => own.settle(limits).map_err(|error| (endpoint, error)),
            None => Ok(limits.caps()),
        };
        let endpoints = self.endpoints.indexes();
        endpoints.map(|endpoint| Ok((endpoint, caps(endpoint)?))).collect()
    }

    /// The pool gets other limits, under which its endpoints may have as much as `caps` says. What
    /// is idle beyond them ends at once, that first which was used longest ago; what is in use when
    /// it comes back. Whoever waits for room that is there now is served.
    pub(crate) fn reconfigure(
        &mut self,
        limits: Limits,
        caps: &[(u32, Caps)],
        now: Now,
        fx: &mut Effects<T, W>,
    ) {
        if self.is_closed {
            return;
        }
        self.budget.permits.set_most(limits.max_total);
        let before = std::mem::replace(&mut self.limits, limits);
        self.note_keeping(caps);
        for &(endpoint, caps) in caps {
            self.set_caps(endpoint, caps, fx);
            self.note_idle_limit(endpoint, now.mono);
        }
        self.end_surplus(fx);
        self.renew_terms(&before, now, fx);
        if before.leak_warning != self.limits.leak_warning {
            self.watch_anew(now, fx);
        }
        for &(endpoint, _) in caps {
            self.note_excess(endpoint);
            self.rebalance(endpoint, now, fx);
        }
        // It sees what is due by the new terms, and to what is to be kept ready.
        self.look_by(now.mono, fx);
    }

    /// Notes whether connections are to be kept ready anywhere. Where that begins, the reaper says
    /// of each endpoint whether somebody holds it: nobody has kept account of that before.
    fn note_keeping(&mut self, caps: &[(u32, Caps)]) {
        let keeps_some = self.limits.min_idle > 0 || caps.iter().any(|(_, caps)| caps.min_idle > 0);
        let kept_some = std::mem::replace(&mut self.budget.keeps_some, keeps_some);
        if keeps_some && !kept_some {
            caps.iter().for_each(|&(endpoint, _)| self.endpoints.at_mut(endpoint).kept = false);
        }
    }

    /// Gives an endpoint limits of its own, which come to `caps`, or takes them away again. What is
    /// idle beyond them ends at once, what is in use when it comes back.
    pub(crate) fn set_limits(
        &mut self,
        endpoint: u32,
        own: EndpointLimits,
        caps: Caps,
        now: Now,
        fx: &mut Effects<T, W>,
    ) {
        let place = self.endpoints.at_mut(endpoint);
        place.own_limits = (own != EndpointLimits::new()).then(|| Box::new(own));
        if caps.min_idle > 0 {
            (place.kept, place.last_used) = (true, now.wall);
            self.budget.keeps_some = true;
        }
        self.set_caps(endpoint, caps, fx);
        self.note_excess(endpoint);
        self.rebalance(endpoint, now, fx);
    }

    fn set_caps(&mut self, endpoint: u32, caps: Caps, fx: &mut Effects<T, W>) {
        let place = self.endpoints.at_mut(endpoint);
        place.caps = caps;
        let most = caps.max_per_endpoint.min(caps.max_idle_per_endpoint).min(self.limits.max_idle);
        place.warm_target = place.warm_target.min(most);
        while let Some(oldest) = self.endpoints.at(endpoint).surplus() {
            self.end(oldest, None, CloseReason::Surplus, fx);
        }
    }

    /// Ends idle connections of any endpoint until there are no more than the pool may have, those
    /// of endpoints first where nobody waits.
    fn end_surplus(&mut self, fx: &mut Effects<T, W>) {
        let is_over = |core: &Self| {
            core.budget.idle.len() > core.limits.max_idle || core.budget.permits.is_exceeded()
        };
        while is_over(self) {
            let Some(oldest) = self.spare().or_else(|| self.budget.idle.front()) else { return };
            self.end(oldest, None, CloseReason::Surplus, fx);
        }
    }

    /// Notes whether what comes back to an endpoint may be too much: for itself, or for the pool.
    fn note_excess(&mut self, endpoint: u32) {
        let is_exceeded = self.budget.permits.is_exceeded();
        let place = self.endpoints.at_mut(endpoint);
        let total = place.total();
        place.is_over = total > place.caps.max_per_endpoint || (is_exceeded && total > 0);
    }

    /// Connections that are there end, and are proved, when the new limits say so. Nothing is done
    /// if they say what the old ones said: what is spread evenly stays so.
    fn renew_terms(&mut self, before: &Limits, now: Now, fx: &mut Effects<T, W>) {
        let limits = &self.limits;
        let is_age_new = before.max_lifetime != limits.max_lifetime;
        let is_proof_new = before.check_interval != limits.check_interval
            || before.check_after.is_some() != limits.check_after.is_some();
        if !is_age_new && !is_proof_new {
            return;
        }
        let entries: Vec<u32> = self.entries.indexes().collect();
        for index in entries {
            let entry = self.entries.at(index);
            let (state, born) = (entry.state, entry.born);
            if matches!(state, State::Connecting(_)) {
                continue; // it gets its terms when it is open
            }
            if is_age_new {
                self.renew_age(index, born);
            }
            let entry = self.entries.at(index);
            // Out for a check it keeps that one's deadline, and about to retire it is past all
            // else.
            let is_leaving = entry.retire || entry.awaits_successor;
            if matches!(state, State::Idle | State::InUse) && !is_leaving {
                let proof_at = self.first_proof(entry.endpoint, now);
                let term = self.next_term(index, proof_at);
                self.set_timer(index, term, fx);
            }
        }
    }

    /// It retires when one would that was opened at the same time under the limits of now. A
    /// successor that it waited for is not waited for any longer.
    fn renew_age(&mut self, index: u32, born: Stamp) {
        let retires_at = self.retirement(born);
        let entry = self.entries.at_mut(index);
        entry.retires_at = Due::new(retires_at);
        if std::mem::take(&mut entry.awaits_successor) {
            self.endpoints.at_mut(entry.endpoint).succeeding -= 1;
        }
    }
}
