//! Connections that are out for suspiciously long.
//!
//! The fast path knows nothing of it. While nobody watches an endpoint, its checkouts take the slow
//! path, and the first begins the watch; it ends at a look that finds nothing in use and nothing
//! used since the last.

use std::time::Duration;

use crate::clock::{Now, Stamp, nanos};
use crate::core::Core;
use crate::core::effects::{Action, Effects};
use crate::core::entry::State;
use crate::holder::Holding;

/// A wall clock that has moved on by so much more than the other: the machine has slept, or
/// somebody has set it.
const JUMP: Duration = Duration::from_secs(1);

/// The watch for leaks.
#[derive(Debug)]
pub(crate) struct LeakWatch {
    /// What was out for too long by then was told. Wall clock.
    told_until: Stamp,
    /// When the next is, if anything is watched.
    next: Option<Stamp>,
}

impl LeakWatch {
    pub(crate) const fn new() -> Self {
        Self::beginning(None)
    }

    const fn beginning(next: Option<Stamp>) -> Self {
        Self { told_until: Stamp::ZERO, next }
    }

    /// When the reaper must look.
    pub(crate) fn next(&self) -> Stamp {
        self.next.unwrap_or(Stamp::MAX)
    }
}

impl<T, W: Clone + PartialEq> Core<T, W> {
    /// A checkout of this endpoint may be one that never comes back.
    pub(crate) fn watch_for_leaks(&mut self, endpoint: u32, now: Now, fx: &mut Effects<T, W>) {
        let Some(leak_after) = self.limits.leak_warning else { return };
        if !self.endpoints.at(endpoint).is_leak_watched {
            self.endpoints.at_mut(endpoint).is_leak_watched = true;
            self.note_care(endpoint);
        }
        if self.leaks.next.is_none() {
            let at = now.mono.plus(leak_after);
            self.leaks = LeakWatch::beginning(Some(at));
            self.look_by(at, fx);
        }
    }

    /// The setting has changed: what is out now is watched under the new one from now on.
    pub(crate) fn watch_anew(&mut self, now: Now, fx: &mut Effects<T, W>) {
        self.leaks = LeakWatch::new();
        let endpoints: Vec<u32> = self.endpoints.indexes().collect();
        for endpoint in endpoints {
            self.endpoints.at_mut(endpoint).is_leak_watched = false;
            self.note_care(endpoint);
            let place = self.endpoints.at(endpoint);
            if place.in_use > 0 || !place.waiters.is_empty() {
                self.watch_for_leaks(endpoint, now, fx);
            }
        }
    }

    /// Looks for what has been out for too long since the last look, if it is time.
    pub(crate) fn look_for_leaks(&mut self, now: Now, fx: &mut Effects<T, W>) {
        let is_due = self.leaks.next.is_some_and(|at| at <= now.mono);
        let Some(leak_after) = self.limits.leak_warning.filter(|_| is_due) else { return };
        let (limit, told_until) = (nanos(leak_after), self.leaks.told_until);
        let mut soonest = leak_after;
        let mut suspects: Vec<(u32, Holding, bool)> = Vec::new();
        for entry in self.entries.iter() {
            let Some(holding) = entry.holding() else { continue };
            let held = entry.used(now.wall);
            if held < limit {
                soonest = soonest.min(Duration::from_nanos(limit - held));
            } else {
                let is_new = told_until.since(holding.since) < leak_after;
                suspects.push((entry.endpoint, holding, is_new));
            }
        }
        suspects.sort_by_key(|(endpoint, holding, _)| (*endpoint, holding.since));
        for together in suspects.chunk_by(|one, other| one.0 == other.0) {
            let Some(&(endpoint, ..)) = together.first() else { continue };
            let those = |are_new| {
                let those = together.iter().filter(move |(_, _, is_new)| *is_new == are_new);
                those.map(|(_, holding, _)| *holding).collect::<Vec<_>>()
            };
            let (new, known) = (those(true), those(false));
            self.tally(endpoint, |counters| counters.suspected += new.len() as u64);
            fx.act(Action::Suspect { endpoint, new, known, at: now.wall });
        }
        let goes_on = self.end_watches();
        // Clocks tick: a look that comes a little early would find nothing.
        let pause = soonest.max(Duration::from_millis(10));
        let next = goes_on.then(|| now.mono.plus(pause));
        self.leaks = LeakWatch { told_until: now.wall, next };
    }

    /// Ends the watch of endpoints where nothing is in use nor was used since the last look. False
    /// if none is watched any more.
    fn end_watches(&mut self) -> bool {
        let mut goes_on = false;
        let endpoints: Vec<u32> = self.endpoints.indexes().collect();
        for endpoint in endpoints {
            let place = self.endpoints.at_mut(endpoint);
            let was_used = place.checkouts != place.leak_checkouts;
            place.leak_checkouts = place.checkouts;
            if !place.is_leak_watched {
                continue;
            }
            // Who waits may be given one.
            place.is_leak_watched = place.in_use > 0 || was_used || !place.waiters.is_empty();
            goes_on |= place.is_leak_watched;
            self.note_care(endpoint);
        }
        goes_on
    }

    /// What passed while the machine slept is nobody's fault, nor what a clock says that was set.
    pub(crate) fn forgive_jump(&mut self, now: Now) {
        let before = std::mem::replace(&mut self.reaped_at, now);
        let passed = now.mono.since(before.mono);
        let jump = now.wall.since(before.wall).saturating_sub(passed);
        if jump < JUMP || before.mono == Stamp::ZERO {
            return;
        }
        let entries: Vec<u32> = self.entries.indexes().collect();
        for index in entries {
            let entry = self.entries.at_mut(index);
            if entry.state == State::InUse {
                let since = entry.since.plus(jump).min(now.wall);
                let forgiven = since.as_nanos().wrapping_sub(entry.since.as_nanos());
                entry.since = since;
                let place = self.endpoints.at_mut(entry.endpoint);
                place.since_sum = place.since_sum.wrapping_add(forgiven);
            }
        }
        self.leaks.told_until = self.leaks.told_until.plus(jump);
    }

    /// An endpoint that nobody watches, though leaks are to be warned of.
    pub(crate) fn awaits_leak_watch(&self, endpoint: u32) -> bool {
        self.limits.leak_warning.is_some() && !self.endpoints.at(endpoint).is_leak_watched
    }
}
