//! What is known of why somebody waits: gathered when he gives up, or when a report is written.

use std::ops::Range;
use std::time::Duration;

use crate::clock::{Now, Stamp};
use crate::config::Caps;
use crate::core::Core;
use crate::core::demand::Load;
use crate::core::endpoint::EndpointCore;
use crate::core::entry::{Attempt, Entry, State};
use crate::core::stats::Stats;
use crate::core::waiters::{Arrival, Manner, Waiter};
use crate::error::{ConnectFailure, Deadlock, Phase, Situation, Verdict};
use crate::holder::{Holding, Holdings};
use crate::sync::{Arc, Caller};

/// Of more connections in use than this, only some are looked at.
const MOST_HOLDINGS: usize = 1024;
/// For so long a look at who has connections is good enough for others who give up.
const LOOK_IS_GOOD: Duration = Duration::from_millis(1);
/// A thread that asks for a second connection does so this soon after the first, if it is not known
/// how long a use takes; else within so many times as long, or within the least of it.
const NESTED_WITHIN: Duration = Duration::from_secs(10);
const NESTED_TIMES: u64 = 20;
const LEAST_NESTED: Duration = Duration::from_millis(100);
/// So many uses must have ended before anything is usual.
const LEAST_USES: u64 = 8;

/// How long somebody has waited, what is known of why, and the last failed attempt.
pub(crate) type Trouble = (Duration, Situation, Option<(Arc<ConnectFailure>, Duration)>);

/// An endpoint, as a report tells of it.
#[derive(Debug)]
pub(crate) struct Sight {
    pub(crate) stats: Stats,
    pub(crate) caps: Caps,
    pub(crate) load: Load,
    pub(crate) needed: Option<usize>,
    /// Nothing is open, and the last attempt failed: why.
    pub(crate) is_out: Option<Verdict>,
}

/// A wait: of somebody who is in the queue, or has just left it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waited {
    endpoint: u32,
    pub(crate) arrived: Stamp,
    arrival: Arrival,
    /// The thread that is blocked by it; a request blocks none.
    thread: Option<u32>,
}

impl Waited {
    pub(crate) fn of<W>(waiter: &Waiter<W>) -> Self {
        let Waiter { endpoint, arrived, arrival, .. } = *waiter;
        let thread = (waiter.manner != Manner::Request).then_some(waiter.caller.thread);
        Self { endpoint, arrived, arrival, thread }
    }
}

/// What was seen when somebody last gave up at an endpoint.
#[derive(Debug)]
pub(crate) struct LastLook {
    at: Stamp,
    /// How many checkouts there had been: with another, others have them.
    checkouts: u64,
    holdings: Arc<Holdings>,
    deadlock: Option<Deadlock>,
}

impl<T> Entry<T> {
    /// Who has it, if somebody has.
    pub(crate) fn holding(&self) -> Option<Holding> {
        let site = self.site.filter(|_| self.state == State::InUse)?;
        Some(Holding { caller: Caller { site, thread: self.thread }, since: self.since })
    }
}

impl<W> EndpointCore<W> {
    /// How long a use took on average, of those that ended since then.
    fn mean_use(&self, since: &Arrival) -> Option<Duration> {
        let ended = self.returns().saturating_sub(since.returns);
        self.used.saturating_sub(since.used).checked_div(ended).map(Duration::from_nanos)
    }
}

impl<T, W: Clone + PartialEq> Core<T, W> {
    /// Why somebody who waits, or has just given up, was not served.
    pub(crate) fn situation(&mut self, wait: &Waited, now: Now) -> Situation {
        let Waited { endpoint, arrival: before, .. } = wait;
        let endpoint = *endpoint;
        let (holdings, deadlock) = self.look_at_holders(wait, now);
        let place = self.endpoints.at(endpoint);
        let usual = before.used.checked_div(before.returns).map(Duration::from_nanos);
        Situation {
            ahead: before.ahead as usize,
            served: place.checkouts.saturating_sub(before.checkouts),
            returned: place.returns().saturating_sub(before.returns),
            opened: place.counters.opened - before.opened,
            failed: place.counters.failed - before.failed,
            usual_use: usual.filter(|_| before.returns >= LEAST_USES),
            recent_use: place.mean_use(before),
            attempt: self.oldest_attempt(endpoint, now.mono),
            counts: self.counts(endpoint),
            needed: place.demand.needed(place, now),
            leak_after: self.limits.leak_warning,
            attempts: self.attempts(),
            holdings,
            deadlock,
            ended: Vec::new(),
        }
    }

    /// What is known of why nothing was opened at an endpoint.
    pub(crate) fn situation_at(&self, endpoint: u32, now: Now) -> Situation {
        let attempt = self.oldest_attempt(endpoint, now.mono);
        let (counts, attempts) = (self.counts(endpoint), self.attempts());
        Situation { counts, attempt, attempts, ..Situation::default() }
    }

    /// The state of the pool as a whole, for somebody who waits for its end.
    pub(crate) fn situation_of_all(&self, now: Now) -> Situation {
        Situation {
            counts: self.stats_of_all().counts,
            leak_after: self.limits.leak_warning,
            holdings: Arc::new(self.holdings(None, now.wall)),
            ..Situation::default()
        }
    }

    /// An endpoint, as a report tells of it; `None` if there is none at this place.
    pub(crate) fn sight(&mut self, endpoint: u32, now: Now) -> Option<Sight> {
        self.endpoints.find_at(endpoint)?;
        let stats = self.stats(endpoint);
        let place = self.endpoints.at_mut(endpoint);
        place.demand.note(place.used_by(now.wall), place.checkouts, now.mono);
        let load = place.demand.highest(place, now);
        let needed = place.demand.needed(place, now);
        let failed = place.failure.as_ref().filter(|_| place.is_out());
        let failed = failed.map(|(failure, _)| Situation::judge_failure(failure));
        Some(Sight { stats, caps: place.caps, load, needed, is_out: failed })
    }

    /// The places of endpoints, taken or not, end here.
    pub(crate) fn end_of_endpoints(&self) -> u32 {
        self.endpoints.end()
    }

    /// The places of entries, taken or not, end here.
    pub(crate) fn end_of_entries(&self) -> u32 {
        self.entries.end()
    }

    /// Who has connections among some places: of which endpoint, too.
    pub(crate) fn holdings_among(&self, places: Range<u32>, found: &mut Vec<(u32, Holding)>) {
        let taken = places.filter_map(|index| self.entries.find_at(index));
        found.extend(taken.filter_map(|entry| Some((entry.endpoint, entry.holding()?))));
    }

    /// For how long somebody has waited at an endpoint, and why.
    pub(crate) fn trouble(&mut self, endpoint: u32, now: Now) -> Option<Trouble> {
        self.endpoints.find_at(endpoint)?;
        let wait = self.longest_wait(endpoint)?;
        let situation = self.situation(&wait, now);
        Some((now.mono.since(wait.arrived), situation, self.last_failure(endpoint, now.mono)))
    }

    /// The wait of whoever has waited longest at an endpoint, if anybody does.
    fn longest_wait(&self, endpoint: u32) -> Option<Waited> {
        let oldest = self.endpoints.at(endpoint).waiters.front()?;
        Some(Waited::of(self.waiters.at(oldest)))
    }

    /// How many attempts are under way, and may be.
    fn attempts(&self) -> (usize, usize) {
        (self.budget.attempts.len(), self.limits.max_connecting_total)
    }

    /// Where the oldest attempt of an endpoint is, and for how long it has been under way.
    fn oldest_attempt(&self, endpoint: u32, mono: Stamp) -> Option<(Phase, Duration)> {
        let attempts = &self.endpoints.at(endpoint).attempts;
        let entry = self.entries.at(attempts.front()?);
        let phase = match entry.state {
            State::Connecting(Attempt::Queued) => Phase::Queue,
            State::Connecting(Attempt::Resolving) => Phase::Resolve,
            State::Connecting(Attempt::Running { phase, .. }) => phase,
            _ => Phase::Open,
        };
        Some((phase, mono.since(entry.born)))
    }

    /// Those who have the connections for which somebody waits at an endpoint: its own, or all if
    /// the pool as a whole is full; and whether all of them wait themselves.
    fn look_at_holders(&mut self, wait: &Waited, now: Now) -> (Arc<Holdings>, Option<Deadlock>) {
        let endpoint = wait.endpoint;
        let place = self.endpoints.at(endpoint);
        let is_full = place.total() >= place.caps.max_per_endpoint;
        let only =
            if is_full || self.budget.permits.is_available() { Some(endpoint) } else { None };
        // Who gives up a moment later sees the same, and was in the same deadlock, as long as nobody
        // got anything.
        let (last, checkouts) = match only {
            Some(_) => (&place.last_look, place.checkouts),
            None => (&self.last_look, self.endpoints.iter().map(|place| place.checkouts).sum()),
        };
        let last = last.as_ref().filter(|last| last.checkouts == checkouts);
        let before = last.filter(|last| wait.arrived <= last.at).and_then(|last| last.deadlock);
        if let Some(last) = last.filter(|last| now.mono.since(last.at) < LOOK_IS_GOOD) {
            return (Arc::clone(&last.holdings), before);
        }
        let holdings = Arc::new(self.holdings(only, now.wall));
        let deadlock = self.deadlock(&holdings, only, wait, now);
        // Those that gave up a moment ago are part of it, too.
        let deadlock = deadlock.into_iter().chain(before).max_by_key(|it| it.threads);
        let at = now.mono;
        let look = Box::new(LastLook { at, checkouts, holdings: Arc::clone(&holdings), deadlock });
        match only {
            Some(endpoint) => self.endpoints.at_mut(endpoint).last_look = Some(look),
            None => self.last_look = Some(look),
        }
        (holdings, deadlock)
    }

    fn holdings(&self, only: Option<u32>, wall: Stamp) -> Holdings {
        let in_use = match only {
            Some(endpoint) => self.endpoints.at(endpoint).in_use,
            None => self.endpoints.iter().map(|place| place.in_use).sum(),
        };
        let is_meant = |entry: &&Entry<T>| only.is_none_or(|only| entry.endpoint == only);
        let meant = self.entries.iter().filter(is_meant).filter_map(Entry::holding);
        let mut all: Vec<Holding> = meant.take(in_use.min(MOST_HOLDINGS)).collect();
        all.sort_by_key(|holding| holding.since);
        Holdings { all, at: wall }
    }

    /// Whether everybody who has a connection waits for another, since soon after he took it: who
    /// has done much else in between has forgotten it, rather.
    fn deadlock(
        &self,
        holdings: &Holdings,
        only: Option<u32>,
        wait: &Waited,
        now: Now,
    ) -> Option<Deadlock> {
        let place = self.endpoints.at(wait.endpoint);
        let is_idle = match only {
            Some(_) => place.coming() > 0,
            None => !self.budget.idle.is_empty() || !self.budget.attempts.is_empty(),
        };
        let has_moved = place.checkouts != wait.arrival.checkouts;
        let is_seen = !holdings.all.is_empty() && holdings.all.len() < MOST_HOLDINGS;
        if is_idle || has_moved || !is_seen {
            return None;
        }
        let usual =
            place.used.checked_div(place.returns()).filter(|_| place.returns() >= LEAST_USES);
        let soon = usual.map_or(NESTED_WITHIN, |usual| {
            Duration::from_nanos(usual.saturating_mul(NESTED_TIMES)).max(LEAST_NESTED)
        });
        let blocked = self.blocked(only, wait);
        let waits = |holding: &Holding| {
            let at =
                blocked.binary_search_by_key(&holding.caller.thread, |(thread, _)| *thread).ok()?;
            let (_, arrived) = blocked.get(at)?;
            Some(holdings.held(holding).saturating_sub(now.mono.since(*arrived)))
        };
        if !holdings.all.iter().all(|holding| waits(holding).is_some_and(|before| before <= soon)) {
            return None;
        }
        let mut holding: Vec<u32> =
            holdings.all.iter().map(|holding| holding.caller.thread).collect();
        holding.sort_unstable();
        let most_held = holding.chunk_by(|one, other| one == other).map(<[u32]>::len).max();
        Some(Deadlock { threads: blocked.len(), at_once: most_held.unwrap_or(0) + 1 })
    }

    /// The threads that wait for connections to an endpoint, or to any, and since when; by number.
    fn blocked(&self, only: Option<u32>, wait: &Waited) -> Vec<(u32, Stamp)> {
        let blocks = |waiter: &&Waiter<W>| {
            waiter.manner != Manner::Request && only.is_none_or(|only| waiter.endpoint == only)
        };
        let waiters = self.waiters.iter().filter(blocks);
        let given_up = wait.thread.map(|thread| (thread, wait.arrived));
        let waiters = waiters.map(|waiter| (waiter.caller.thread, waiter.arrived));
        let mut blocked: Vec<(u32, Stamp)> = waiters.chain(given_up).collect();
        blocked.sort_unstable();
        blocked.dedup_by_key(|(thread, _)| *thread);
        blocked
    }
}
