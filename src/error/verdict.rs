//! Why nobody was served: what is known of it, and what follows.

use std::fmt;
use std::time::Duration;

use crate::error::{ConnectFailure, Counts, Failure, Phase};
use crate::holder::{Holding, Holdings};
use crate::sync::Arc;

/// Declares [`Verdict`] with its words and what to do about it.
macro_rules! verdicts {
    ($($(#[$doc:meta])+ $name:ident = $words:literal, $advice:literal;)+) => {
        /// Why a checkout failed, as far as the pool can tell.
        ///
        /// Found from what it knew at that moment and what had happened since the caller came. The
        /// text of the [`Error`](crate::Error) gives the figures, and with `{:#}` all of them.
        ///
        /// ```
        /// use warmline::Verdict;
        ///
        /// assert_eq!(Verdict::Undersized.to_string(), "undersized");
        /// println!("{}", Verdict::Undersized.advice());
        /// ```
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Verdict { $($(#[$doc])+ $name,)+ }

        impl Verdict {
            /// Every verdict there is, in the order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            const fn words(self) -> &'static str {
                match self { $(Self::$name => $words,)+ }
            }

            /// What to do about it, in a sentence.
            #[must_use]
            pub const fn advice(self) -> &'static str {
                match self { $(Self::$name => $advice,)+ }
            }
        }
    };
}

verdicts! {
    /// All connections were in use, came back and went to others: there are fewer than the load needs.
    Undersized = "undersized",
        "raise the limit if the server can bear it, or let fewer callers at it at a time";
    /// All were in use, and many have been out for so long that they will hardly come back.
    Leak = "leak",
        "look at the line: a guard is kept, forgotten, or its thread hangs";
    /// All were in use, and came back far later than they usually do, or not at all.
    SlowUsers = "slow users",
        "look at what is done with connections at the lines named, and at how fast the server answers";
    /// Attempts to connect failed: the server refuses, cannot be reached, or does not answer.
    ServerDown = "server down",
        "see whether the server runs and can be reached from here";
    /// Attempts to connect failed in another way, a refused login for instance.
    ConnectFails = "connects fail",
        "read what the last attempt said";
    /// An attempt to connect was under way and took longer than the caller had.
    SlowConnect = "slow connect",
        "look at what is slow: the network on the way, or the server's greeting";
    /// The name of the server was not resolved.
    Unresolved = "name not resolved",
        "see whether the name is right and the name servers answer";
    /// Every thread that took a connection is itself waiting for another. (If it has given the first
    /// to another thread, the pool cannot know.)
    Deadlock = "deadlock",
        "give connections back before asking for others, or allow as many as said";
    /// The connections that are there were being checked or settled.
    SlowCheck = "slow check",
        "look at the connector's check and settle, and at how fast the server answers them";
    /// This process or machine lacks what a connection needs: descriptors, ports, threads.
    Shortage = "shortage here",
        "see what the last attempt lacked (descriptors, ports, memory, threads): raise that limit, or open fewer";
    /// The pool was paused.
    Paused = "paused",
        "resume it";
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words())
    }
}

/// What is known of why somebody waited in vain. Taken under the lock.
#[derive(Clone, Debug, Default)]
pub(crate) struct Situation {
    pub(crate) counts: Counts,
    /// How many waited before him when he came.
    pub(crate) ahead: usize,
    /// What happened while he waited: checkouts of others, connections given back and opened,
    /// attempts that failed.
    pub(crate) served: u64,
    pub(crate) returned: u64,
    pub(crate) opened: u64,
    pub(crate) failed: u64,
    /// How long a use took on average, before he came and since.
    pub(crate) usual_use: Option<Duration>,
    pub(crate) recent_use: Option<Duration>,
    /// The oldest attempt that is under way: where it is, and for how long it has been.
    pub(crate) attempt: Option<(Phase, Duration)>,
    /// How many attempts are under way at all endpoints, and may be.
    pub(crate) attempts: (usize, usize),
    pub(crate) deadlock: Option<Deadlock>,
    /// What the load of late needs, if that is known.
    pub(crate) needed: Option<usize>,
    /// Who has the connections that he might have had.
    pub(crate) holdings: Arc<Holdings>,
    /// Which of their threads had ended when somebody looked.
    pub(crate) ended: Vec<u32>,
    /// From when on one that is out is suspected to be leaked.
    pub(crate) leak_after: Option<Duration>,
}

/// Every thread that has a connection waits for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Deadlock {
    /// How many threads have connections, or wait for them.
    pub(crate) threads: usize,
    /// How many one of them wants at once.
    pub(crate) at_once: usize,
}

impl Deadlock {
    /// With so many connections one of the threads always gets all it wants.
    pub(crate) const fn least(self) -> usize {
        self.threads * (self.at_once - 1) + 1
    }
}

/// Nothing is suspected to be leaked before this, unless a setting says so.
const LEAK_AFTER: Duration = Duration::from_secs(10);
/// So many times as long as usual, and it is.
const LEAK_TIMES: u32 = 20;
/// So many times as long as usual, and a use is slow.
const SLOW_TIMES: u32 = 4;
/// Shorter uses are not slow, whatever is usual.
const LEAST_SLOW: Duration = Duration::from_millis(10);
/// A failure that was so much older than the wait began may be why.
const STILL_FRESH: Duration = Duration::from_millis(100);

impl From<Counts> for Box<Situation> {
    fn from(counts: Counts) -> Self {
        Self::new(Situation { counts, ..Situation::default() })
    }
}

impl Situation {
    /// The verdict, for somebody who has waited for so long.
    pub(crate) fn judge(
        &self,
        waited: Duration,
        failure: Option<&(Arc<ConnectFailure>, Duration)>,
    ) -> Option<Verdict> {
        let counts = &self.counts;
        if counts.is_paused {
            return Some(Verdict::Paused);
        }
        if counts.checking > counts.in_use && counts.checking >= counts.connecting {
            return Some(Verdict::SlowCheck);
        }
        let is_full = self.is_full() || self.is_pool_full();
        let by_users = self.judge_users(waited);
        if is_full && counts.connecting <= counts.in_use && by_users.is_some() {
            return by_users;
        }
        // Of a full endpoint, or one where nothing is, an attempt that has just begun says nothing.
        let is_crowded = !is_full && counts.in_use > 0;
        let attempt = self.attempt.filter(|(_, age)| is_crowded || *age >= waited / 2);
        // While nothing is open, what failed last is still so.
        let is_same = |phase| counts.open() == 0 && attempt.is_none_or(|(now, _)| now == phase);
        let is_why = |(failure, age): &&(Arc<ConnectFailure>, Duration)| {
            *age <= waited + STILL_FRESH || is_same(failure.phase)
        };
        let are_out = self.attempts.1 > 0 && self.attempts.0 >= self.attempts.1;
        match (failure.filter(is_why), attempt) {
            (Some((failure, _)), _) => Some(self.judge_attempt(failure)),
            (None, Some((Phase::Resolve, _))) => Some(Verdict::Unresolved),
            (None, Some((Phase::Queue, _))) => Some(Verdict::Shortage),
            (None, Some(_)) => Some(Verdict::SlowConnect),
            // Those of others take up all that may be under way.
            (None, None) if are_out && counts.connecting == 0 => Some(Verdict::SlowConnect),
            // One after the other was opened, and went to others.
            (None, None) if is_crowded && self.opened > 0 => Some(Verdict::SlowConnect),
            // No limit is reached.
            (None, None) => by_users.filter(|&it| is_full || it != Verdict::Undersized),
        }
    }

    /// The endpoint has all the connections that it may have.
    pub(crate) const fn is_full(&self) -> bool {
        self.counts.total() >= self.counts.limit
    }

    /// So has the pool.
    pub(crate) const fn is_pool_full(&self) -> bool {
        self.counts.pool.0 >= self.counts.pool.1
    }

    fn judge_users(&self, waited: Duration) -> Option<Verdict> {
        if self.deadlock.is_some() {
            return Some(Verdict::Deadlock);
        }
        if self.counts.in_use == 0 && self.holdings.all.is_empty() {
            return None;
        }
        let suspects = self.suspects(waited).count();
        if suspects > 0 && 2 * suspects >= self.holdings.all.len() {
            return Some(Verdict::Leak);
        }
        let is_slow = match self.usual_use {
            Some(usual) => {
                let slow = LEAST_SLOW.max(usual * SLOW_TIMES);
                self.recent_use.map_or(waited, |recent| recent) >= slow || self.are_held_for(slow)
            }
            None if self.counts.in_use > 0 => self.returned == 0 && waited >= LEAST_SLOW,
            // Others have them all, at other endpoints.
            None => self.has_nobody_given_back(waited),
        };
        Some(if is_slow { Verdict::SlowUsers } else { Verdict::Undersized })
    }

    /// Most of those that are out have been so for as long.
    fn are_held_for(&self, time: Duration) -> bool {
        let all = &self.holdings.all;
        let count = all.iter().filter(|holding| self.holdings.held(holding) >= time).count();
        count > 0 && 2 * count >= all.len()
    }

    /// All who have connections have had them for as long as somebody waited. The clock that tells
    /// steps in ticks.
    fn has_nobody_given_back(&self, waited: Duration) -> bool {
        let held = |holding| self.holdings.held(holding) + LEAST_SLOW;
        waited >= LEAST_SLOW && self.holdings.all.iter().all(|holding| held(holding) >= waited)
    }

    /// A failed attempt, where others may be open.
    fn judge_attempt(&self, failure: &ConnectFailure) -> Verdict {
        let counts = &self.counts;
        match Self::judge_failure(failure) {
            Verdict::ServerDown if counts.idle + counts.in_use > 0 => Verdict::ConnectFails,
            verdict => verdict,
        }
    }

    pub(crate) fn judge_failure(failure: &ConnectFailure) -> Verdict {
        match failure.failure {
            Failure::Dns => Verdict::Unresolved,
            Failure::Local => Verdict::Shortage,
            Failure::Timeout if failure.phase == Phase::Resolve => Verdict::Unresolved,
            Failure::Timeout if failure.phase == Phase::Open => Verdict::SlowConnect,
            Failure::Refused | Failure::Unreachable | Failure::Timeout => Verdict::ServerDown,
            Failure::Panic | Failure::Other => Verdict::ConnectFails,
        }
    }

    /// Notes which threads have ended: who reads of them later is told how it was.
    pub(crate) fn look_at_threads(&mut self) {
        self.ended = self.holdings.ended();
    }

    /// Those that have been out for suspiciously long, the oldest first.
    pub(crate) fn suspects(&self, waited: Duration) -> impl Iterator<Item = &Holding> {
        let usual = self.usual_use.map_or(Duration::ZERO, |usual| usual * LEAK_TIMES);
        let leak_after = self.leak_after.unwrap_or_else(|| LEAK_AFTER.max(usual));
        self.holdings.all.iter().filter(move |holding| {
            let held = self.holdings.held(holding);
            let is_orphan = self.ended.contains(&holding.caller.thread);
            held >= leak_after || (is_orphan && held >= waited.max(usual))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::panic::Location;

    use super::*;
    use crate::clock::Stamp;
    use crate::sync::Caller;

    const WAITED: Duration = Duration::from_secs(1);

    /// Ten connections, all in use: taken so many milliseconds ago.
    fn held_for(millis: u64) -> Situation {
        let at = Stamp::from_millis(100_000_000);
        let caller = Caller { site: Location::caller(), thread: Caller::here().thread };
        let since = Stamp::from_millis(100_000_000 - millis);
        let holdings = Arc::new(Holdings { all: vec![Holding { caller, since }; 10], at });
        let counts =
            Counts { in_use: 10, limit: 10, waiting: 3, pool: (10, 64), ..Counts::default() };
        Situation { counts, holdings, ..Situation::default() }
    }

    fn empty() -> Situation {
        Counts { connecting: 1, limit: 10, pool: (1, 64), ..Counts::default() }.into_situation()
    }

    impl Counts {
        fn into_situation(self) -> Situation {
            *Box::<Situation>::from(self)
        }
    }

    fn failed(failure: Failure, phase: Phase, age: Duration) -> (Arc<ConnectFailure>, Duration) {
        let took = Duration::from_millis(3);
        (Arc::new(ConnectFailure::new(failure, phase, took, "why".into())), age)
    }

    #[test]
    fn with_all_in_use_it_is_the_users_and_not_an_attempt_that_failed() {
        let some = Some(Duration::from_millis(20));
        let busy = Situation { recent_use: some, usual_use: some, ..held_for(15) };
        let down = failed(Failure::Refused, Phase::Connect, Duration::ZERO);
        assert_eq!(busy.judge(WAITED, Some(&down)), Some(Verdict::Undersized));
        assert_eq!(held_for(1_100).judge(WAITED, None), Some(Verdict::SlowUsers));
        let others = Situation { returned: 3, ..held_for(900) };
        assert_eq!(others.judge(WAITED, None), Some(Verdict::Undersized), "some came back");
        let slow = Situation { recent_use: Some(Duration::from_millis(80)), ..busy };
        assert_eq!(slow.judge(WAITED, None), Some(Verdict::SlowUsers));
    }

    #[test]
    fn what_is_out_for_far_longer_than_anything_is_a_leak() {
        assert_eq!(held_for(10_000).judge(WAITED, None), Some(Verdict::Leak));
        let usual_use = Some(Duration::from_secs(2));
        let slow = Situation { usual_use, ..held_for(20_000) };
        assert_eq!(slow.judge(WAITED, None), Some(Verdict::SlowUsers), "it is ten times as long");
        let slow = Situation { usual_use, ..held_for(40_000) };
        assert_eq!(slow.judge(WAITED, None), Some(Verdict::Leak));
        let leak_after = Some(Duration::from_millis(500));
        let told = Situation { leak_after, ..held_for(600) };
        assert_eq!(told.judge(WAITED, None), Some(Verdict::Leak), "the setting says so");
    }

    #[test]
    fn what_a_thread_had_that_has_ended_is_a_leak_if_it_did_not_come_back_meanwhile() {
        let caller = Caller::of_ended_thread();
        let mut gone = held_for(1_500);
        Arc::make_mut(&mut gone.holdings).all.iter_mut().for_each(|it| it.caller = caller);
        gone.look_at_threads();
        assert_eq!(gone.judge(WAITED, None), Some(Verdict::Leak));
        assert_eq!(gone.judge(2 * WAITED, None), Some(Verdict::SlowUsers), "it was passed on");
    }

    #[test]
    fn with_nothing_open_it_is_what_the_last_attempt_met() {
        let just_now = Duration::from_millis(20);
        let table = [
            (Failure::Refused, Phase::Connect, Verdict::ServerDown),
            (Failure::Unreachable, Phase::Connect, Verdict::ServerDown),
            (Failure::Timeout, Phase::Connect, Verdict::ServerDown),
            (Failure::Timeout, Phase::Open, Verdict::SlowConnect),
            (Failure::Timeout, Phase::Resolve, Verdict::Unresolved),
            (Failure::Dns, Phase::Resolve, Verdict::Unresolved),
            (Failure::Local, Phase::Connect, Verdict::Shortage),
            (Failure::Local, Phase::Queue, Verdict::Shortage),
            (Failure::Other, Phase::Open, Verdict::ConnectFails),
            (Failure::Panic, Phase::Open, Verdict::ConnectFails),
        ];
        for (failure, phase, verdict) in table {
            let met = failed(failure, phase, just_now);
            assert_eq!(empty().judge(WAITED, Some(&met)), Some(verdict), "{failure} in {phase}");
        }
    }

    #[test]
    fn an_old_failure_is_why_only_if_the_attempt_that_runs_is_where_it_was() {
        let old = failed(Failure::Refused, Phase::Connect, 3 * WAITED);
        let table = [
            (Phase::Resolve, Verdict::Unresolved),
            (Phase::Queue, Verdict::Shortage),
            (Phase::Connect, Verdict::ServerDown),
            (Phase::Open, Verdict::SlowConnect),
        ];
        for (phase, verdict) in table {
            let running = Situation { attempt: Some((phase, WAITED)), ..empty() };
            assert_eq!(running.judge(WAITED, Some(&old)), Some(verdict), "{phase}");
        }
        let begun = Situation { attempt: Some((Phase::Open, WAITED / 4)), ..empty() };
        assert_eq!(begun.judge(WAITED, None), None, "it has just begun: nobody can say");
    }

    #[test]
    fn a_pause_and_checks_that_take_long_come_before_all_else() {
        let mut paused = held_for(20);
        paused.counts.is_paused = true;
        assert_eq!(paused.judge(WAITED, None), Some(Verdict::Paused));
        let checking = Counts { checking: 10, limit: 10, pool: (10, 64), ..Counts::default() };
        assert_eq!(checking.into_situation().judge(WAITED, None), Some(Verdict::SlowCheck));
    }

    #[test]
    fn the_least_size_without_deadlock_leaves_one_thread_all_it_wants() {
        assert_eq!(Deadlock { threads: 4, at_once: 2 }.least(), 5);
        assert_eq!(Deadlock { threads: 10, at_once: 3 }.least(), 21);
    }
}
