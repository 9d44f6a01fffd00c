//! Which endpoints nobody uses and can be forgotten.

use std::time::Duration;

use crate::clock::{Now, nanos};
use crate::core::Core;
use crate::core::effects::{Action, Effects};

/// Endpoints that one sweep looks at, at the most, so that the locks are not held long.
const MOST_PER_SWEEP: usize = 1_024;

/// What was learned of a server is remembered for so long after its last use, unless more endpoints
/// than this are vacant.
const REMEMBERED_FOR: Duration = Duration::from_secs(600);
const MOST_REMEMBERED: usize = 1_000;

/// What becomes of an endpoint that nobody can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Forgotten,
    /// An attempt failed a moment ago: there is that to remember.
    StaysForNow,
    /// It is not unused, or has what its pool must not forget, or not yet.
    Stays,
}

impl<T, W: Clone + PartialEq> Core<T, W> {
    /// After a transition: puts the endpoint on the list if nothing happens there any more. It is
    /// taken off when a sweep finds otherwise.
    pub(crate) fn note_vacancy(&mut self, endpoint: u32) {
        let place = self.endpoints.at_mut(endpoint);
        if !place.is_vacant && place.is_unused() && place.own_limits.is_none() {
            place.is_vacant = true;
            self.budget.vacant.push_back(&mut self.endpoints, endpoint);
        }
    }

    pub(crate) fn vacant_count(&self) -> usize {
        self.budget.vacant.len()
    }

    /// Some endpoints where nothing happens, those first that were not looked at for longest.
    pub(crate) fn vacant(&mut self) -> Vec<u32> {
        let mut found = Vec::new();
        for _ in 0..self.budget.vacant.len().min(MOST_PER_SWEEP) {
            let Some(endpoint) = self.budget.vacant.front() else { break };
            self.budget.vacant.remove(&mut self.endpoints, endpoint);
            let place = self.endpoints.at_mut(endpoint);
            place.is_vacant = place.is_unused() && place.own_limits.is_none();
            if place.is_vacant {
                self.budget.vacant.push_back(&mut self.endpoints, endpoint);
                found.push(endpoint);
            }
        }
        found
    }

    /// Forgets an endpoint that nobody can name any more.
    pub(crate) fn forget_endpoint(
        &mut self,
        endpoint: u32,
        now: Now,
        fx: &mut Effects<T, W>,
    ) -> Fate {
        let place = self.endpoints.at(endpoint);
        if place.kept_idle() > 0 || place.own_limits.is_some() || !place.is_unused() {
            return Fate::Stays;
        }
        if place.retry_at.is_some_and(|at| at > now.mono) {
            return Fate::StaysForNow;
        }
        let is_remembered = now.wall.apart(place.last_used) < nanos(REMEMBERED_FOR);
        let is_crowded = self.budget.vacant.len() > MOST_REMEMBERED;
        if place.learned.has_lessons() && is_remembered && !is_crowded {
            return Fate::Stays;
        }
        self.no_longer_starved(endpoint);
        if self.endpoints.at(endpoint).is_vacant {
            self.budget.vacant.remove(&mut self.endpoints, endpoint);
        }
        self.budget.limited.retain(|limited| *limited != endpoint);
        let token = self.endpoints.token(endpoint);
        if let Some(place) = self.endpoints.remove(token) {
            self.totals.add_uses(&place);
            if let Some((failure, _)) = place.failure {
                fx.act(Action::Forget(failure));
            }
        }
        Fate::Forgotten
    }
}
