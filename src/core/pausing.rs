//! Pausing: nothing goes out for a while, though all else goes on.

use crate::clock::{Now, nanos};
use crate::core::Core;
use crate::core::effects::Effects;

impl<T, W: Clone + PartialEq> Core<T, W> {
    /// No connection goes out until it [resumes](Core::resume): who comes waits, within his time.
    pub(crate) fn pause(&mut self) {
        self.is_paused = true;
        let endpoints: Vec<u32> = self.endpoints.indexes().collect();
        endpoints.into_iter().for_each(|endpoint| self.note_care(endpoint));
    }

    /// Who waits looks again, and what is needed is opened. Does nothing unless it is paused.
    pub(crate) fn resume(&mut self, now: Now, fx: &mut Effects<T, W>) {
        if !std::mem::take(&mut self.is_paused) {
            return;
        }
        let endpoints: Vec<u32> = self.endpoints.indexes().collect();
        for endpoint in endpoints {
            self.note_care(endpoint);
            self.serve_due(endpoint, now, fx);
            self.rebalance(endpoint, now, fx);
        }
    }

    /// Whoever has waited for so long that nobody may overtake him is handed what is idle.
    fn serve_due(&mut self, endpoint: u32, now: Now, fx: &mut Effects<T, W>) {
        while let Some((waiter, arrived)) = self.oldest_waiter(endpoint, now.mono) {
            let is_due = now.mono.since(arrived) >= self.limits.fair_after;
            if !is_due || !self.look_for(waiter, endpoint, now, fx) {
                return;
            }
        }
    }

    /// How many of those who wait at an endpoint could be served at this moment.
    pub(crate) fn servable(&self, endpoint: u32) -> usize {
        if self.is_paused { 0 } else { self.endpoints.at(endpoint).waiters.len() }
    }

    /// Notes for how long a connection of an endpoint may be idle before it takes more thought than
    /// the fast path has to hand it out: no time at all while the pool is paused.
    pub(crate) fn note_care(&mut self, endpoint: u32) {
        let idle = self.limits.idle_timeout.map_or(u64::MAX, nanos);
        let proof = self.proof_after(endpoint);
        let limit = self.endpoints.at(endpoint).idle_limit.unwrap_or(u64::MAX);
        let is_slow = self.is_paused || self.awaits_leak_watch(endpoint);
        let care_after = if is_slow { 0 } else { idle.min(proof).min(limit) };
        self.endpoints.at_mut(endpoint).care_after = care_after;
    }
}
