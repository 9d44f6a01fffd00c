//! Lifetimes: when connections retire, and who comes in their place.

use std::time::Duration;

use crate::clock::{Now, Stamp, nanos};
use crate::core::Core;
use crate::core::effects::Effects;
use crate::core::entry::State;
use crate::observe::CloseReason;

/// A connection that was used no longer ago is missed when it is gone, unless half the idle time-out
/// is less than this.
const MISSED_WITHIN: Duration = Duration::from_secs(5);
/// This part of a lifetime is left for the successor to be opened.
const FOR_SUCCESSORS: u32 = 64;

impl<T, W: Clone + PartialEq> Core<T, W> {
    /// When a connection that was opened then is to retire: a little before the end of its
    /// lifetime, to leave time for a successor, or up to a quarter of it: those that were opened
    /// together lie evenly between the two.
    pub(crate) fn retirement(&mut self, born: Stamp) -> Option<Stamp> {
        let lifetime = self.limits.max_lifetime?;
        let (least, most) = (nanos(lifetime / FOR_SUCCESSORS), nanos(lifetime / 4));
        let off = least + self.spread(most - least);
        Some(born.plus(lifetime.saturating_sub(Duration::from_nanos(off))))
    }

    /// A connection has reached the age at which it retires. One that would be missed has a
    /// successor opened first, if there is room for both; it waits for that as long as its lifetime
    /// allows, if it is idle.
    pub(crate) fn retire(&mut self, index: u32, now: Now, fx: &mut Effects<T, W>) {
        let entry = self.entries.at_mut(index);
        let (endpoint, is_idle) = (entry.endpoint, entry.state == State::Idle);
        entry.retire = !is_idle;
        let is_second = std::mem::take(&mut entry.awaits_successor);
        if is_second {
            self.endpoints.at_mut(endpoint).succeeding -= 1;
        } else if self.can_be_succeeded(index, now) {
            if is_idle {
                self.entries.at_mut(index).awaits_successor = true;
                self.endpoints.at_mut(endpoint).succeeding += 1;
                let lifetime = self.limits.max_lifetime.unwrap_or_default();
                let grace = (lifetime / FOR_SUCCESSORS).min(self.limits.connect_timeout);
                self.set_timer(index, Some(now.mono.plus(grace)), fx);
            } else {
                self.endpoints.at_mut(endpoint).heirs += 1;
            }
            self.rebalance(endpoint, now, fx);
            return;
        }
        if is_idle {
            self.end(index, None, CloseReason::MaxLifetime, fx);
            self.rebalance(endpoint, now, fx);
        }
    }

    fn can_be_succeeded(&self, index: u32, now: Now) -> bool {
        let entry = self.entries.at(index);
        let place = self.endpoints.at(entry.endpoint);
        let idle_for = Duration::from_nanos(now.wall.apart(entry.since));
        let most =
            self.limits.idle_timeout.map_or(MISSED_WITHIN, |most| MISSED_WITHIN.min(most / 2));
        let is_used = entry.state == State::InUse || (entry.uses > 0 && idle_for < most);
        let is_missed = is_used
            || place.coming() + place.routine <= place.kept_idle() + place.succeeding + place.heirs;
        is_missed
            && !place.is_out()
            && self.budget.permits.is_available()
            && self.has_idle_room()
            && self.may_begin(entry.endpoint, now.mono)
    }

    /// A new connection is there: the oldest idle one that waits for a successor retires. Those in
    /// use end when they come back.
    pub(crate) fn succeed(&mut self, endpoint: u32, fx: &mut Effects<T, W>) {
        let place = self.endpoints.at_mut(endpoint);
        if place.succeeding == 0 {
            place.heirs = place.heirs.saturating_sub(1);
            return;
        }
        let oldest = {
            let mut idle = self.endpoints.at(endpoint).idle.iter(&self.entries);
            idle.find(|&index| self.entries.at(index).awaits_successor)
        };
        if let Some(index) = oldest {
            self.end(index, None, CloseReason::MaxLifetime, fx);
        }
    }

    /// Where idle connections are used in turn, all of them, however few would do: those that were
    /// never needed in the last while end, half of them at a time.
    pub(crate) fn decay(&mut self, now: Now, fx: &mut Effects<T, W>) {
        let Some(idle_timeout) = self.limits.idle_timeout else { return };
        if now.mono.since(self.decayed_at) < idle_timeout {
            return;
        }
        self.decayed_at = now.mono;
        let endpoints: Vec<u32> = self.endpoints.indexes().collect();
        for endpoint in endpoints {
            let place = self.endpoints.at_mut(endpoint);
            let unneeded = place.least_idle.min(place.idle.len());
            let surplus = unneeded.saturating_sub(place.kept_idle());
            for _ in 0..surplus.div_ceil(2) {
                let Some(oldest) = self.endpoints.at(endpoint).idle.front() else { break };
                self.end(oldest, None, CloseReason::Surplus, fx);
            }
            let place = self.endpoints.at_mut(endpoint);
            place.least_idle = place.idle.len();
            if surplus > 0 {
                self.rebalance(endpoint, now, fx);
            }
        }
    }
}
