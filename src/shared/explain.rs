//! What a pool remembers to explain itself by, and the gathering of reports.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::time::Duration;

use crate::clock::{self, Now, Stamp};
use crate::connector::Connector;
use crate::core::{Sight, Stats};
use crate::error::{ConnectFailure, Error, Failure, Phase};
use crate::holder::{Holder, Holding, Holdings};
use crate::report::{Cause, End, MOST_ROWS, RecentError, Report, Row, Wait};
use crate::shared::record::{millis, note};
use crate::shared::{Boxed, Home, Shared, State, drop_guarded, guarded};
use crate::sync::{Arc, Caller, Mutex, MutexGuard, Weak};

/// Waits that are remembered.
const MOST_WAITS: usize = 64;
/// Kinds of errors, by endpoint, that are remembered.
const MOST_ERRORS: usize = 32;
/// The text of an error that comes again and again is made anew no more often.
const SAME_TEXT: Duration = Duration::from_secs(1);
/// Endpoints, or entries, that are looked at while the lock is held once.
const ENDPOINTS_AT_ONCE: u32 = 8;
const ENTRIES_AT_ONCE: u32 = 256;

type Site = &'static std::panic::Location<'static>;

/// How many of a line have been out for too long, and since when the latest of them (wall clock).
type Suspects = (usize, Option<Stamp>);

/// What happened of late.
#[derive(Debug, Default)]
pub(super) struct Memory {
    waits: Mutex<VecDeque<Wait>>,
    errors: Mutex<VecDeque<(Failure, Phase, RecentError)>>,
    /// Lines of the program that were warned of, when, and of what.
    leaks: Mutex<Vec<(Site, Stamp, Suspects)>>,
}

impl Memory {
    fn note_wait(&self, wait: Wait) {
        let mut waits = self.waits.lock();
        let oldest = if waits.len() >= MOST_WAITS { waits.pop_front() } else { None };
        // Others that ended a little later may have been here first.
        let place = waits.iter().rposition(|known| known.at <= wait.at).map_or(0, |at| at + 1);
        waits.insert(place, wait);
        drop(waits);
        drop(oldest);
    }

    /// True if a line of the program is to be warned of: as often as `interval` at the most, and not
    /// of the same again.
    fn may_warn_of(&self, site: Site, suspects: Suspects, now: Stamp, interval: Duration) -> bool {
        let mut leaks = self.leaks.lock();
        let Some((_, last, before)) = leaks.iter_mut().find(|known| known.0 == site) else {
            leaks.push((site, now, suspects));
            return true;
        };
        let may_warn = *before != suspects && now.since(*last) >= interval;
        if may_warn {
            (*last, *before) = (now, suspects);
        }
        may_warn
    }

    /// Notes that an attempt failed; the text is asked for only if it is not known.
    fn note_error(
        &self,
        endpoint: &Arc<str>,
        failure: &ConnectFailure,
        now: Stamp,
        text: impl FnOnce() -> String,
    ) {
        let (class, phase) = (failure.failure, failure.phase);
        let mut errors = self.errors.lock();
        let is_it = |known: &(Failure, Phase, RecentError)| {
            (known.0, known.1) == (class, phase) && known.2.endpoint == *endpoint
        };
        let known = errors.iter().position(is_it).and_then(|at| errors.remove(at));
        let count = known.as_ref().map_or(0, |(_, _, error)| error.count) + 1;
        if let Some((_, _, error)) = known {
            if now.since(error.text_at) < SAME_TEXT {
                errors.push_back((class, phase, RecentError { count, last: now, ..error }));
                return;
            }
        }
        drop(errors);
        // May be somebody else's code.
        let (endpoint, text) = (Arc::clone(endpoint), text());
        let error = RecentError { endpoint, text, text_at: now, count, last: now };
        self.push_error((class, phase, error));
    }

    fn push_error(&self, error: (Failure, Phase, RecentError)) {
        let mut errors = self.errors.lock();
        let oldest = if errors.len() >= MOST_ERRORS { errors.pop_front() } else { None };
        errors.push_back(error);
        drop(errors);
        drop(oldest);
    }
}

impl<C: Connector> Home<C> {
    /// Notes how a wait has ended, if it was long or in vain.
    pub(crate) fn note_wait(
        &self,
        (began, at): (Stamp, Stamp),
        ahead: Option<usize>,
        caller: Caller,
        result: Result<&Boxed<C>, &Error>,
    ) {
        let waited = at.since(began);
        let end = match result {
            Ok(_) if waited < Wait::LEAST => return,
            Ok(held) if held.lease.uses == 0 => End::Opened,
            Ok(_) => End::Returned,
            Err(error) => {
                let finding = error.finding().unwrap_or_default();
                End::Failed(error.kind(), error.verdict().map(|verdict| (verdict, finding)))
            }
        };
        let endpoint = Arc::clone(&self.label);
        let wait = Wait { endpoint, at, waited, ahead, caller, end };
        self.shared.memory.note_wait(wait);
    }
}

impl<C: Connector> Shared<C> {
    /// Connections have been out for suspiciously long: a warning for each line of the program, as
    /// often as `leak_warning` says.
    pub(super) fn tell_suspects(
        &self,
        home: Option<Arc<Home<C>>>,
        new: Vec<Holding>,
        mut known: Vec<Holding>,
        at: Stamp,
    ) {
        let Some(home) = home else { return };
        let interval = self.limits().and_then(|limits| limits.leak_warning).unwrap_or_default();
        let now = clock::mono();
        for holding in &new {
            let label = || Arc::clone(&home.label);
            let held = at.since(holding.since);
            self.tell_leak(|| Holder::new(label(), holding.caller, held));
        }
        known.extend(new); // the oldest first
        let holdings = Holdings { all: known, at };
        for group in holdings.groups(&holdings.ended()) {
            let theirs = holdings.all.iter().filter(|holding| holding.caller.site == group.site);
            let latest = theirs.map(|holding| holding.since).max();
            if self.memory.may_warn_of(group.site, (group.count, latest), now, interval) {
                note!(
                    Warn, &*home, site:% = group.site, count = group.count,
                    held_ms = millis(group.oldest);
                    "in use for longer than leak_warning: {group}"
                );
            }
        }
        self.let_go_of(home);
    }

    /// Notes that an attempt failed, for reports and in the log.
    pub(super) fn note_failure(&self, home: &Home<C>, failure: &ConnectFailure, is_out: bool) {
        let now = clock::mono();
        home.note_failed(failure, is_out, now);
        let text = || guarded(|| failure.to_string()).unwrap_or_else(|panic| panic);
        self.memory.note_error(&home.label, failure, now, text);
    }

    /// Waits of late, the newest last.
    pub(crate) fn recent_waits(&self) -> Vec<Wait> {
        if self.is_orphaned() {
            return Vec::new(); // whoever had the lock was not forked
        }
        let waits = self.memory.waits.lock();
        waits.iter().cloned().collect()
    }

    /// Errors of late, the newest first.
    fn recent_errors(&self) -> Vec<RecentError> {
        if self.is_orphaned() {
            return Vec::new();
        }
        let errors = self.memory.errors.lock();
        errors.iter().rev().map(|(_, _, error)| error.clone()).collect()
    }

    /// Who has connections, those first that have had them for longest.
    pub(crate) fn holders(&self) -> Vec<Holder> {
        let mut watch = Stopwatch::default();
        let (found, at) = self.gather_holdings(&mut watch);
        let mut holders: Vec<Holder> = Vec::with_capacity(found.len());
        let mut homes = Vec::new();
        for chunk in found.chunks(ENTRIES_AT_ONCE as usize) {
            let Some(state) = watch.lock(self) else { break };
            for (place, _) in chunk {
                // One that was forgotten meanwhile has none.
                homes.push(state.homes.get(place).and_then(Weak::upgrade));
            }
            watch.unlock(state);
        }
        for ((_, holding), home) in found.iter().zip(homes) {
            let Some(home) = home else { continue };
            let held = at.since(holding.since);
            holders.push(Holder::new(Arc::clone(&home.label), holding.caller, held));
            drop_guarded(home);
        }
        holders
    }

    /// Everything about the pool that fits on a page.
    pub(crate) fn report(&self) -> Report {
        let mut watch = Stopwatch::default();
        let now = Now::read();
        let (mut rows, endpoints) = self.gather_rows(now, &mut watch);
        rows.sort_by_key(|row| Reverse(row.urgency()));
        rows.truncate(MOST_ROWS);
        rows.iter_mut().for_each(|row| row.trouble = self.gather_trouble(row, now, &mut watch));
        let (found, at) = self.gather_holdings(&mut watch);
        let all = found.into_iter().map(|(_, holding)| holding).collect();
        let holdings = Holdings { all, at };
        let holders = holdings.groups(&holdings.ended());
        let (mut stats, mut limits, mut is_closed) = (Stats::default(), None, true);
        if let Some(state) = watch.lock(self) {
            (stats, is_closed) = (state.core.stats_of_all(), state.core.is_closed());
            limits = Some(state.core.limits().clone());
            watch.unlock(state);
        }
        let errors = self.recent_errors();
        Report {
            name: self.settings.name.clone(),
            checkout_timeout: self.checkout_timeout(),
            limits,
            age: now.mono.since(self.made_at),
            at: now.mono,
            stats: self.complete(stats),
            is_closed,
            rows,
            endpoints,
            holders,
            errors,
            waits: self.recent_waits(),
            lock_held: watch.longest,
        }
    }

    fn gather_rows(&self, now: Now, watch: &mut Stopwatch) -> (Vec<Row>, usize) {
        let (mut rows, mut count, mut from) = (Vec::new(), 0, 0);
        loop {
            let Some(mut state) = watch.lock(self) else { break };
            let end = state.core.end_of_endpoints();
            let upto = end.min(from + ENDPOINTS_AT_ONCE);
            let mut seen = Vec::new();
            for place in from..upto {
                let Some(sight) = state.core.sight(place, now) else { continue };
                let home = state.homes.get(&place).and_then(Weak::upgrade);
                seen.push((place, home, sight));
            }
            watch.unlock(state);
            count += seen.len();
            for (place, home, sight) in seen {
                let Some(home) = home else { continue };
                let Sight { stats, caps, load, needed, is_out } = sight;
                let endpoint = Arc::clone(&home.label);
                drop_guarded(home);
                let trouble = None;
                rows.push(Row { endpoint, place, stats, caps, load, needed, is_out, trouble });
            }
            // As many as are told of, and then some: more need not be kept.
            if rows.len() > 8 * MOST_ROWS {
                rows.sort_by_key(|row| Reverse(row.urgency()));
                rows.truncate(MOST_ROWS);
            }
            from = upto;
            if from >= end {
                break;
            }
        }
        (rows, count)
    }

    /// Why somebody waits at an endpoint, if anybody does.
    fn gather_trouble(
        &self,
        row: &Row,
        now: Now,
        watch: &mut Stopwatch,
    ) -> Option<(Duration, Option<Cause>)> {
        let mut state = watch.lock(self)?;
        let trouble = state.core.trouble(row.place, now);
        watch.unlock(state);
        let (waited, mut situation, failure) = trouble?;
        situation.look_at_threads();
        let verdict = situation.judge(waited, failure.as_ref());
        let cause = verdict.map(|verdict| (verdict, situation.finding(verdict, waited)));
        if let Some((failure, _)) = failure {
            self.forget_failure(failure);
        }
        Some((waited, cause))
    }

    /// Who has connections, with the place of the endpoint, and when that was seen.
    fn gather_holdings(&self, watch: &mut Stopwatch) -> (Vec<(u32, Holding)>, Stamp) {
        let (mut found, mut from) = (Vec::new(), 0);
        while let Some(state) = watch.lock(self) {
            let end = state.core.end_of_entries();
            state.core.holdings_among(from..end.min(from + ENTRIES_AT_ONCE), &mut found);
            watch.unlock(state);
            from += ENTRIES_AT_ONCE;
            if from >= end {
                break;
            }
        }
        found.sort_by_key(|(_, holding)| holding.since);
        (found, clock::wall())
    }
}

/// Knows for how long the lock was held.
#[derive(Debug, Default)]
struct Stopwatch {
    began: Stamp,
    longest: Duration,
}

impl Stopwatch {
    fn lock<'s, C: Connector>(
        &mut self,
        shared: &'s Shared<C>,
    ) -> Option<MutexGuard<'s, State<C>>> {
        let state = shared.enter()?;
        self.began = clock::mono();
        Some(state)
    }

    /// Whoever waits for the lock has it before this asks again.
    fn unlock<C: Connector>(&mut self, mut state: MutexGuard<'_, State<C>>) {
        let held = clock::mono().since(self.began);
        state.bump();
        drop(state);
        self.longest = self.longest.max(held);
    }
}
