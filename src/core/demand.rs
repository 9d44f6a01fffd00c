//! How many connections the load needs, by Little's law.
//!
//! With λ checkouts per second that each use a connection for W seconds, λW are in use on average.
//! Callers do not come evenly: β√(λW) more keep waits rare. The pool knows λW without measuring
//! either: it is the time that connections were in use, divided by the time that has passed.

use std::time::Duration;

use crate::clock::{Now, Stamp};
use crate::core::endpoint::EndpointCore;

/// β: how many standard deviations of the load are kept in reserve.
const RESERVE: f64 = 2.0;
/// The load is averaged over no less than this, where somebody looks as often.
const LEAST_WINDOW: Duration = Duration::from_secs(5);
/// Of the past, so many windows are remembered.
const WINDOWS: usize = 8;

/// The load of an endpoint, as far as anybody looked.
#[derive(Debug, Default)]
pub(crate) struct Demand {
    since: Stamp,
    /// What had been used by then, in nanoseconds, and how many checkouts there had been.
    used: u64,
    checkouts: u64,
    windows: [Load; WINDOWS],
    next: usize,
}

/// The load over some time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Load {
    /// How many connections were in use on average.
    pub(crate) in_use: f64,
    /// Checkouts per second.
    pub(crate) rate: f64,
}

impl Demand {
    /// Ends the window, if it is long enough.
    pub(crate) fn note(&mut self, used: u64, checkouts: u64, mono: Stamp) {
        if self.since == Stamp::ZERO {
            (self.since, self.used, self.checkouts) = (mono, used, checkouts);
            return;
        }
        if mono.since(self.since) < LEAST_WINDOW {
            return;
        }
        let load = self.load(used, checkouts, mono);
        if let Some(window) = self.windows.get_mut(self.next) {
            *window = load;
        }
        self.next = (self.next + 1) % WINDOWS;
        (self.since, self.used, self.checkouts) = (mono, used, checkouts);
    }

    /// The load of the window that is not at its end yet.
    fn load(&self, used: u64, checkouts: u64, mono: Stamp) -> Load {
        let passed = mono.since(self.since).as_secs_f64();
        if self.since == Stamp::ZERO || passed < 0.1 {
            return Load::default();
        }
        Load {
            in_use: used.saturating_sub(self.used) as f64 / 1e9 / passed,
            rate: checkouts.saturating_sub(self.checkouts) as f64 / passed,
        }
    }

    /// The highest load of late.
    pub(crate) fn highest<W>(&self, place: &EndpointCore<W>, now: Now) -> Load {
        let latest = self.load(place.used_by(now.wall), place.checkouts, now.mono);
        let higher = |one: Load, other: Load| if other.in_use > one.in_use { other } else { one };
        let highest = self.windows.iter().copied().fold(latest, higher);
        // More was never in use: what a clock that was set says is worth no more.
        Load { in_use: highest.in_use.min(place.most_in_use as f64), ..highest }
    }

    /// How many connections the highest load of late needs; `None` if there was none.
    pub(crate) fn needed<W>(&self, place: &EndpointCore<W>, now: Now) -> Option<usize> {
        needed_for(self.highest(place, now).in_use)
    }
}

/// λW + β√(λW), and one at the least.
pub(crate) fn needed_for(in_use: f64) -> Option<usize> {
    let needed = in_use + RESERVE * in_use.sqrt();
    (in_use > 0.0).then_some((needed.ceil() as usize).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn place(used_ms: u64, checkouts: u64) -> EndpointCore<()> {
        let caps = Config::default().settle().unwrap().limits.caps();
        let mut place = EndpointCore::new(caps, Stamp::ZERO);
        (place.used, place.checkouts) = (used_ms * 1_000_000, checkouts);
        place.most_in_use = 100;
        place
    }

    fn now(mono: Stamp) -> Now {
        Now { wall: mono, mono }
    }

    #[test]
    fn what_is_needed_follows_littles_law_with_two_deviations_in_reserve() {
        // 120 per second of 95 ms each: 11.4 in use, and 6.75 in reserve.
        assert_eq!(needed_for(11.4), Some(19));
        assert_eq!(needed_for(1.0), Some(3));
        assert_eq!((needed_for(0.001), needed_for(0.0)), (Some(1), None));
    }

    #[test]
    fn the_highest_load_of_late_counts_until_enough_has_passed_since() {
        let mut demand = Demand::default();
        demand.note(0, 0, Stamp::from_millis(1));
        // Ten seconds with four in use on average, then eight quiet windows.
        demand.note(40_000 * 1_000_000, 100, Stamp::from_millis(10_001));
        let at = |window: u64| Stamp::from_millis(10_001 + window * 5_000);
        let place = place(40_000, 100);
        for window in 1..8 {
            demand.note(place.used, place.checkouts, at(window));
            let load = demand.highest(&place, now(at(window)));
            assert_eq!(load, Load { in_use: 4.0, rate: 10.0 }, "{window}");
        }
        demand.note(place.used, place.checkouts, at(8));
        assert_eq!(demand.needed(&place, now(at(8))), None);
    }

    #[test]
    fn what_is_still_in_use_is_part_of_the_load_and_long_uses_count_where_they_were() {
        let mut demand = Demand::default();
        let mut place = place(0, 8);
        let at = |seconds: u64| now(Stamp::from_millis(1_000_000 + seconds * 1_000));
        demand.note(0, 0, at(0).mono);
        (place.in_use, place.most_in_use) = (8, 8);
        place.since_sum = 8 * at(0).wall.as_nanos();
        assert_eq!(demand.highest(&place, at(30)).in_use, 8.0, "they are out");
        demand.note(place.used_by(at(58).wall), 8, at(58).mono);
        (0..8).for_each(|_| place.note_use(60_000_000_000, at(0).wall));
        place.in_use = 0;
        let load = demand.highest(&place, at(60));
        assert_eq!((load.in_use, place.since_sum), (8.0, 0), "and came back all at once");
        assert_eq!(demand.needed(&place, at(60)), Some(14));
    }

    #[test]
    fn a_clock_that_was_set_makes_no_load_that_never_was() {
        let mut demand = Demand::default();
        let mut place = place(0, 4);
        demand.note(0, 0, Stamp::from_millis(1_000));
        (place.used, place.most_in_use) = (8 * 3600 * 4 * 1_000_000_000, 4);
        assert_eq!(demand.needed(&place, now(Stamp::from_millis(2_000))), Some(8));
        place.note_use(u64::MAX, Stamp::ZERO); // no more than can be
    }

    #[test]
    fn before_the_first_window_ends_the_load_so_far_counts() {
        let mut demand = Demand::default();
        demand.note(0, 0, Stamp::from_millis(1_000));
        let place = place(2_000, 20);
        assert_eq!(demand.needed(&place, now(Stamp::from_millis(2_000))), Some(5));
        assert_eq!(Demand::default().needed(&place, now(Stamp::from_millis(2_000))), None);
    }
}
