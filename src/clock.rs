//! The one place that reads the time.
//!
//! Two clocks. The *wall* clock is coarse (a tick is 4 to 10 ms) and costs 5 ns a read; it counts
//! on while a machine sleeps, so the age of an idle connection is taken from it. The *monotonic*
//! clock is precise and costs 25 ns; deadlines and timers use it, and the fast path never does.

use std::fmt;
use std::time::Duration;

/// A point in time, in nanoseconds of the clock it was read from.
///
/// Stamps that reach users are read from the monotonic clock: on Unix `CLOCK_MONOTONIC`, which all
/// processes of a machine share; on Windows each process has one of its own.
///
/// ```
/// use std::time::Duration;
/// # use warmline::Stamp;
/// # fn example(opened: Stamp, closed: Stamp) {
/// let age: Duration = closed.since(opened);
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp(u64);

impl Stamp {
    pub(crate) const ZERO: Self = Self(0);
    pub(crate) const MAX: Self = Self(u64::MAX);

    /// The nanoseconds since the clock's own zero.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The time from `earlier` to this stamp; zero if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The time between two stamps, whichever is later: a wall clock may be set back.
    #[inline(always)]
    pub(crate) const fn apart(self, other: Self) -> u64 {
        self.0.abs_diff(other.0)
    }

    pub(crate) const fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(nanos(duration)))
    }

    #[cfg(test)]
    pub(crate) const fn from_millis(millis: u64) -> Self {
        Self(millis * 1_000_000)
    }
}

/// A duration in nanoseconds, at most `u64::MAX` of them (584 years).
pub(crate) const fn nanos(duration: Duration) -> u64 {
    let nanos = duration.as_nanos();
    if nanos > u64::MAX as u128 { u64::MAX } else { nanos as u64 }
}

/// The coarse wall clock: cheap, steps in ticks, and may be set by an operator.
#[inline(always)]
pub(crate) fn wall() -> Stamp {
    system::wall()
}

/// The precise monotonic clock.
pub(crate) fn mono() -> Stamp {
    system::mono()
}

#[cfg(all(unix, not(warmline_sim)))]
mod system {
    use rustix::time::{ClockId, clock_gettime};

    use super::Stamp;

    #[cfg(any(target_os = "linux", target_os = "android"))]
    const WALL: ClockId = ClockId::RealtimeCoarse;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    const WALL: ClockId = ClockId::Realtime;

    #[inline(always)]
    pub(super) fn wall() -> Stamp {
        read(WALL)
    }

    #[inline(always)]
    pub(super) fn mono() -> Stamp {
        read(ClockId::Monotonic)
    }

    fn read(clock: ClockId) -> Stamp {
        let time = clock_gettime(clock);
        // Both parts are positive on the clocks used here, for the next 500 years.
        Stamp((time.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(time.tv_nsec as u64))
    }
}

#[cfg(all(windows, not(warmline_sim)))]
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
mod system {
    use std::time::{Instant, SystemTime, UNIX_EPOCH};

    use super::{Stamp, nanos};
    use crate::sync::OnceLock;

    pub(super) fn wall() -> Stamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Stamp(nanos(since.unwrap_or_default()))
    }

    /// An `Instant` shows no number: counted from the first that this process has read.
    pub(super) fn mono() -> Stamp {
        static ZERO: OnceLock<Instant> = OnceLock::new();
        let now = Instant::now();
        Stamp(nanos(now.saturating_duration_since(*ZERO.get_or_init(|| now))))
    }
}

#[cfg(warmline_sim)]
mod system {
    use super::Stamp;
    use crate::sim;

    pub(super) fn wall() -> Stamp {
        Stamp(sim::wall())
    }

    pub(super) fn mono() -> Stamp {
        Stamp(sim::now())
    }
}

/// What every transition of the core off the fast path is told about the time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Now {
    pub(crate) wall: Stamp,
    pub(crate) mono: Stamp,
}

impl Now {
    pub(crate) fn read() -> Self {
        Self { wall: wall(), mono: mono() }
    }
}

/// The time by which something must have ended.
///
/// Given to [`Connector`](crate::Connector) methods that may block: what they start should be
/// bounded by [`remaining`](Deadline::remaining).
///
/// ```
/// use std::time::Duration;
/// use warmline::Deadline;
///
/// let deadline = Deadline::after(Duration::from_secs(5));
/// assert!(!deadline.has_passed());
/// assert!(deadline.remaining() <= Duration::from_secs(5));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Stamp);

impl Deadline {
    /// The deadline that lies `timeout` from now.
    #[must_use]
    pub fn after(timeout: Duration) -> Self {
        Self(mono().plus(timeout))
    }

    /// How long it is until the deadline; zero once it has passed.
    #[must_use]
    pub fn remaining(self) -> Duration {
        self.0.since(mono())
    }

    /// True once the deadline has passed.
    #[must_use]
    pub fn has_passed(self) -> bool {
        self.remaining().is_zero()
    }

    pub(crate) const fn at(stamp: Stamp) -> Self {
        Self(stamp)
    }

    pub(crate) const fn stamp(self) -> Stamp {
        self.0
    }
}

impl fmt::Debug for Deadline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Deadline({:?} left)", self.remaining())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_beyond_the_end_of_time_saturates() {
        let never = Deadline::after(Duration::MAX);
        assert_eq!(never.stamp(), Stamp::MAX);
        assert!(!never.has_passed());
    }

    #[test]
    fn the_time_between_wall_clock_reads_does_not_depend_on_their_order() {
        let (a, b) = (Stamp::from_millis(5), Stamp::from_millis(9));
        assert_eq!(a.apart(b), b.apart(a));
        assert_eq!(a.since(b), Duration::ZERO);
    }
}
