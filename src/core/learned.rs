//! How long a server lets connections be idle: told, or learned from those it has closed.

use std::time::Duration;

use crate::clock::{Now, Stamp, nanos};
use crate::core::Core;
use crate::core::effects::Effects;
use crate::core::entry::State;
use crate::core::slab::Token;
use crate::observe::CloseReason;

/// Idle connections that are closed together are taken for one event.
const TOGETHER: Duration = Duration::from_millis(250);
/// So many closes are needed that agree, and so many are remembered.
const LEAST: usize = 8;
const MOST: usize = 16;
/// A shorter limit is believed only if the server tells it.
const SHORTEST: Duration = Duration::from_secs(1);
/// Without news one close is forgotten after each of these: so what has changed is learned anew.
const FORGET_AFTER: Duration = Duration::from_secs(600);

/// What is known of one server.
#[derive(Clone, Debug, Default)]
pub(crate) struct Learned {
    told: Option<Duration>,
    /// How long connections had been idle when the server closed them, oldest first.
    ages: Vec<u64>,
    /// When the last of them was noted, or one forgotten.
    noted_at: Stamp,
    /// The last event, not judged yet.
    event: Option<Event>,
    /// Judged, but the server has accepted nobody since: it may be down.
    unconfirmed: Vec<u64>,
}

/// Connections that were closed together.
#[derive(Clone, Debug)]
struct Event {
    began: Stamp,
    /// How many were idle then, and of those, how many were closed.
    idle: usize,
    closed: usize,
    /// How long those had been idle that had been used before.
    ages: Vec<u64>,
}

impl Learned {
    /// It closed one connection of so many that were idle. It had been used before, and was idle for
    /// so long since; or else it never was.
    pub(crate) fn note_close(&mut self, age: Option<u64>, idle: usize, mono: Stamp) {
        self.judge(mono);
        let new = || Event { began: mono, idle, closed: 0, ages: Vec::new() };
        let event = self.event.get_or_insert_with(new);
        event.closed += 1;
        event.ages.extend(age);
    }

    /// If the last event is over: half of those that were idle, or more, were not closed for their
    /// age. One alone may have been, though it be all there was.
    fn judge(&mut self, mono: Stamp) {
        let is_over = |event: &mut Event| mono.since(event.began) >= TOGETHER;
        let Some(event) = self.event.take_if(is_over) else { return };
        if event.closed == 1 || event.closed * 2 < event.idle {
            self.unconfirmed.extend(event.ages);
        }
    }

    /// A connect has ended: if it failed, what was closed may have been closed because the server
    /// went down.
    pub(crate) fn note_connect(&mut self, is_well: bool, mono: Stamp) {
        self.judge(mono);
        if !is_well {
            self.event = None;
            self.unconfirmed.clear();
        } else if !self.unconfirmed.is_empty() {
            self.forget(mono);
            self.ages.append(&mut self.unconfirmed);
            self.ages.drain(..self.ages.len().saturating_sub(MOST));
            self.noted_at = mono;
        }
    }

    /// There is something to be forgotten.
    pub(crate) fn has_lessons(&self) -> bool {
        let has_seen = !self.ages.is_empty() || !self.unconfirmed.is_empty();
        self.told.is_some() || has_seen || self.event.is_some()
    }

    fn forget(&mut self, mono: Stamp) {
        while !self.ages.is_empty() && mono.since(self.noted_at) >= FORGET_AFTER {
            self.ages.remove(0);
            self.noted_at = self.noted_at.plus(FORGET_AFTER);
        }
    }

    /// For how long a connection may be idle and still be used, in view of a round trip that takes
    /// so long; nothing: for ever, as far as is known.
    pub(crate) fn limit(&mut self, round_trip: Duration, mono: Stamp) -> Option<Duration> {
        self.forget(mono);
        // Somebody between may close them sooner than the server tells.
        let learned = self.agreed().filter(|limit| *limit >= SHORTEST);
        let limit = self.told.into_iter().chain(learned).min()?;
        let margin = if limit < Duration::from_secs(5) {
            limit / 5
        } else {
            (limit / 10).max(Duration::from_secs(1))
        };
        // A round trip is known no better than by the time to connect, which has more in it.
        let margin = margin.max(round_trip.saturating_mul(2)).min(limit / 2);
        Some((limit - margin).max(Duration::from_millis(1)))
    }

    /// What the closes agree on: their inner four fifths lie within a fifth.
    fn agreed(&self) -> Option<Duration> {
        if self.ages.len() < LEAST {
            return None;
        }
        let mut ages = self.ages.clone();
        ages.sort_unstable();
        let outer = ages.len().div_ceil(10);
        let inner = ages.get(outer..ages.len() - outer)?;
        let (shortest, longest) = (*inner.first()?, *inner.last()?);
        (longest - shortest <= shortest / 5).then(|| Duration::from_nanos(shortest))
    }
}

impl<T, W: Clone + PartialEq> Core<T, W> {
    /// The server of an endpoint has said for how long it lets connections be idle.
    pub(crate) fn tell_idle_limit(
        &mut self,
        endpoint: u32,
        limit: Duration,
        now: Now,
        fx: &mut Effects<T, W>,
    ) {
        let learned = &mut self.endpoints.at_mut(endpoint).learned;
        if self.is_closed || learned.told == Some(limit) {
            return;
        }
        learned.told = Some(limit);
        self.note_idle_limit(endpoint, now.mono);
        self.look_by(now.mono, fx);
    }

    /// Draws the conclusion from what is known by now.
    pub(crate) fn note_idle_limit(&mut self, endpoint: u32, mono: Stamp) {
        let most = self.limits.idle_timeout.map_or(u64::MAX, nanos);
        let place = self.endpoints.at_mut(endpoint);
        let round_trip = Duration::from_nanos(place.mean_connect);
        let limit = place.learned.limit(round_trip, mono).map(nanos).filter(|limit| *limit < most);
        let was_limited = std::mem::replace(&mut place.idle_limit, limit).is_some();
        match (was_limited, limit.is_some()) {
            (false, true) => self.budget.limited.push(endpoint),
            (true, false) => self.budget.limited.retain(|limited| *limited != endpoint),
            _ => {}
        }
        self.note_care(endpoint);
    }

    /// The server has sent something on an idle connection: a farewell in words, or, if that came
    /// soon, an answer that came late.
    pub(crate) fn learn_of_bytes(&mut self, index: u32, now: Now) {
        if self.silent_for(index, now.wall) >= nanos(SHORTEST) {
            self.learn_of_close(index, now);
        }
    }

    /// The server has closed an idle connection.
    pub(crate) fn learn_of_close(&mut self, index: u32, now: Now) {
        let is_used = self.entries.at(index).uses > 0;
        let age = is_used.then(|| self.silent_for(index, now.wall));
        let place = self.endpoints.at_mut(self.entries.at(index).endpoint);
        place.learned.note_close(age, place.idle.len(), now.mono);
    }

    /// An attempt has ended, and says whether the server is there.
    pub(crate) fn learn_of_connect(&mut self, endpoint: u32, is_well: bool, mono: Stamp) {
        let place = self.endpoints.at_mut(endpoint);
        place.learned.note_connect(is_well, mono);
        if is_well {
            place.in_vain = 0;
        }
        self.note_idle_limit(endpoint, mono);
    }

    /// An idle connection is so old that its server may be about to close it.
    pub(crate) fn is_beyond_limit(&self, index: u32, wall: Stamp) -> bool {
        let limit = self.endpoints.at(self.entries.at(index).endpoint).idle_limit;
        limit.is_some_and(|limit| self.silent_for(index, wall) >= limit)
    }

    /// Idle connections of an endpoint that are beyond the limit. With heartbeats they are not in the
    /// order in which they fell silent.
    fn silent_for_so_long(&self, endpoint: u32, limit: u64, now: Now) -> Vec<Token> {
        let place = self.endpoints.at(endpoint);
        let is_beyond = |index: &u32| self.silent_for(*index, now.wall) >= limit;
        let idle = place.idle.iter(&self.entries);
        let beyond: Vec<u32> = if place.has_beats {
            idle.filter(is_beyond).collect()
        } else {
            idle.take_while(is_beyond).collect()
        };
        beyond.into_iter().map(|index| self.entries.token(index)).collect()
    }

    /// Ends connections before their servers do, `most` at a time. Returns how many, and when the
    /// next may be due.
    pub(crate) fn end_before_servers(
        &mut self,
        most: usize,
        now: Now,
        fx: &mut Effects<T, W>,
    ) -> (usize, Stamp) {
        let (mut ended, mut due) = (0, Stamp::MAX);
        for endpoint in self.budget.limited.clone() {
            self.note_idle_limit(endpoint, now.mono);
            let Some(limit) = self.endpoints.at(endpoint).idle_limit else { continue };
            let mut left = limit;
            for token in self.silent_for_so_long(endpoint, limit, now) {
                if self.entries.get(token).is_none_or(|entry| entry.state != State::Idle) {
                    continue; // the end of another was its own
                }
                if ended == most {
                    left = 0;
                    break;
                }
                ended += 1;
                self.end(token.index, None, CloseReason::IdleTimeout, fx);
                self.rebalance(endpoint, now, fx);
            }
            if let Some(next) = self.endpoints.at(endpoint).idle.front() {
                left = left.min(limit.saturating_sub(self.silent_for(next, now.wall)));
            }
            if self.endpoints.at(endpoint).total() > 0 {
                // What is in use now may come back and be forgotten.
                due = due.min(now.mono.plus(Duration::from_nanos(left.max(1_000_000))));
            }
        }
        (ended, due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUND_TRIP: Duration = Duration::from_millis(1);

    fn millis(millis: u64) -> u64 {
        nanos(Duration::from_millis(millis))
    }

    fn at(seconds: u64) -> Stamp {
        Stamp::from_millis(1_000_000 + seconds * 1_000)
    }

    /// A server that closed one of ten idle connections at each of these ages, and accepts.
    fn closed_at(ages: impl IntoIterator<Item = u64>) -> Learned {
        let mut learned = Learned::default();
        for (second, age) in ages.into_iter().enumerate() {
            learned.note_close(Some(millis(age)), 10, at(second as u64));
        }
        learned.note_connect(true, at(100));
        learned
    }

    fn limit_of(mut learned: Learned) -> Option<u64> {
        learned.limit(ROUND_TRIP, at(100)).map(|limit| limit.as_millis() as u64)
    }

    #[test]
    fn eight_closes_that_agree_are_a_limit_and_seven_are_not() {
        assert_eq!(limit_of(closed_at([60_000; 7])), None);
        assert_eq!(limit_of(closed_at([60_000; 8])), Some(54_000), "a tenth less");
        assert_eq!(limit_of(closed_at([6_000; 8])), Some(5_000), "a second less");
        assert_eq!(limit_of(closed_at([4_000; 8])), Some(3_200), "a fifth less");
    }

    #[test]
    fn a_slow_round_trip_asks_for_more_room() {
        let mut learned = closed_at([6_000; 8]);
        let limit = learned.limit(Duration::from_millis(900), at(100));
        assert_eq!(limit, Some(Duration::from_millis(4_200)));
        let limit = learned.limit(Duration::from_secs(9), at(100));
        assert_eq!(limit, Some(Duration::from_secs(3)), "but never for more than half");
    }

    #[test]
    fn some_that_are_far_off_do_not_count_and_many_do() {
        let mut ages = vec![5_000; 14];
        ages.extend([100, 40_000]);
        assert_eq!(limit_of(closed_at(ages)), Some(4_000));
        assert_eq!(
            limit_of(closed_at([5_000, 5_000, 5_000, 5_000, 5_000, 5_000, 5_000, 40_000])),
            Some(4_000)
        );
        assert_eq!(
            limit_of(closed_at([100, 5_000, 5_000, 5_000, 5_000, 5_000, 5_000, 5_000])),
            Some(4_000)
        );
        let ages = [1_500, 3_000, 4_500, 6_000, 7_500, 9_000, 10_500, 12_000];
        assert_eq!(limit_of(closed_at(ages)), None);
        assert_eq!(
            limit_of(closed_at([5_000, 5_100, 5_900, 5_500, 5_950, 5_000, 5_000, 5_000])),
            Some(4_000)
        );
    }

    #[test]
    fn what_is_shorter_than_a_second_is_believed_only_if_told() {
        assert_eq!(limit_of(closed_at([900; 16])), None);
        let learned = Learned { told: Some(Duration::from_millis(500)), ..Learned::default() };
        assert_eq!(limit_of(learned), Some(400));
    }

    #[test]
    fn of_what_was_told_and_what_was_learned_the_shorter_counts() {
        for told in [20, 200] {
            let learned = closed_at([60_000; 8]);
            let learned = Learned { told: Some(Duration::from_secs(told)), ..learned };
            assert_eq!(limit_of(learned), Some(if told == 20 { 18_000 } else { 54_000 }));
        }
    }

    #[test]
    fn a_restart_is_no_lesson() {
        // All at once, again and again.
        let mut learned = Learned::default();
        for second in 0..40 {
            (0..4).for_each(|_| learned.note_close(Some(millis(5_000)), 4, at(second)));
            learned.note_connect(true, at(second + 1));
        }
        assert_eq!(limit_of(learned), None);
        // One after the other, but then nobody is there for a while.
        let mut learned = Learned::default();
        for second in 0..8 {
            learned.note_close(Some(millis(5_000)), 10, at(second));
        }
        learned.note_connect(false, at(8));
        learned.note_connect(true, at(9));
        assert_eq!(limit_of(learned), None);
    }

    #[test]
    fn of_those_that_are_closed_together_fewer_than_half_must_be() {
        for (closed, learns) in [(1, true), (2, true), (4, true), (5, false), (7, false)] {
            let mut learned = Learned::default();
            for second in 0..8 {
                (0..closed).for_each(|_| learned.note_close(Some(millis(5_000)), 10, at(second)));
                learned.note_connect(true, at(second + 1));
            }
            assert_eq!(limit_of(learned), learns.then_some(4_000), "{closed} of ten");
        }
    }

    #[test]
    fn of_a_single_idle_connection_each_close_counts() {
        let mut learned = Learned::default();
        for second in 0..8 {
            learned.note_close(Some(millis(5_000)), 1, at(second * 6));
            learned.note_connect(true, at(second * 6 + 1));
        }
        assert_eq!(limit_of(learned), Some(4_000));
    }

    #[test]
    fn what_is_not_confirmed_is_forgotten_slowly_and_a_new_limit_is_learned() {
        let mut learned = closed_at([60_000; 10]);
        let limit = |learned: &mut Learned, minutes: u64| {
            learned.limit(ROUND_TRIP, at(100 + minutes * 60)).map(|limit| limit.as_secs())
        };
        assert_eq!(limit(&mut learned, 25), Some(54), "two of ten are forgotten");
        assert_eq!(limit(&mut learned, 36), None);
        for second in 0..16 {
            learned.note_close(Some(millis(30_000)), 10, at(3_000 + second));
        }
        learned.note_connect(true, at(3_100));
        assert_eq!(limit(&mut learned, 51), Some(27));
    }
}
