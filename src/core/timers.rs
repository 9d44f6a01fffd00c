//! What falls due when. Idle time-outs are not here: the list of idle connections is their order.

use std::collections::BTreeSet;

use crate::clock::Stamp;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// An entry's: the end of its lifetime, or of the attempt that has it.
    Entry(u32),
    /// An endpoint's: the time of its next attempt.
    Endpoint(u32),
}

/// A moment that may be never, in the room of one that may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Due(Stamp);

impl Due {
    pub(crate) const NEVER: Self = Self(Stamp::MAX);

    pub(crate) fn new(at: Option<Stamp>) -> Self {
        Self(at.unwrap_or(Stamp::MAX))
    }

    pub(crate) fn at(self) -> Option<Stamp> {
        (self.0 != Stamp::MAX).then_some(self.0)
    }

    pub(crate) fn has_come(self, now: Stamp) -> bool {
        self.at().is_some_and(|at| at <= now)
    }

    pub(crate) fn take(&mut self) -> Option<Stamp> {
        std::mem::replace(self, Self::NEVER).at()
    }
}

#[derive(Debug)]
pub(crate) struct Timers {
    due: BTreeSet<(Stamp, Timer)>,
    /// When the reaper has said it will look.
    pub(crate) look_at: Stamp,
}

impl Timers {
    pub(crate) const fn new() -> Self {
        Self { due: BTreeSet::new(), look_at: Stamp::MAX }
    }

    pub(crate) fn set(&mut self, at: Stamp, timer: Timer) {
        self.due.insert((at, timer));
    }

    pub(crate) fn cancel(&mut self, at: Stamp, timer: Timer) {
        let was_set = self.due.remove(&(at, timer));
        debug_assert!(was_set, "bug: a timer was noted but not set");
    }

    pub(crate) fn next(&self) -> Option<Stamp> {
        self.due.first().map(|&(at, _)| at)
    }

    /// Takes out the first timer that is due.
    pub(crate) fn pop(&mut self, mono: Stamp) -> Option<Timer> {
        if self.next()? > mono {
            return None;
        }
        self.due.pop_first().map(|(_, timer)| timer)
    }

    #[cfg(any(test, warmline_sim))]
    pub(crate) fn contains(&self, at: Stamp, timer: Timer) -> bool {
        self.due.contains(&(at, timer))
    }

    #[cfg(any(test, warmline_sim))]
    pub(crate) fn len(&self) -> usize {
        self.due.len()
    }
}
