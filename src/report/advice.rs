//! What to do, as far as a pool can tell.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::error::Verdict;
use crate::observe::CloseReason;
use crate::report::page::{Percent, mean};
use crate::report::{Report, Row, Wait};

/// Pieces of advice on a page.
const MOST_ADVICE: usize = 12;
/// A wait that ended no longer ago may tell what is to be done now.
const OF_LATE: Duration = Duration::from_secs(300);
/// So many checkouts are needed to say anything of how many are reused.
const ENOUGH_CHECKOUTS: u64 = 100;

impl Report {
    /// What speaks for doing something, the most urgent first.
    pub(super) fn advice(&self) -> Vec<String> {
        let mut advice = Vec::new();
        if self.is_closed {
            advice.push("the pool is closed".to_owned());
        } else if self.stats.is_paused() {
            advice.push(format!("paused: {}", Verdict::Paused.advice()));
        }
        advice.extend(self.rows.iter().flat_map(|row| self.advice_on(row)));
        advice.extend(self.advice_on_waits());
        if self.stats.leaks_suspected() > 0 {
            let count = self.stats.leaks_suspected();
            let what = Verdict::Leak.advice();
            advice.push(format!("{count} connections were suspected to be leaked: {what}"));
        }
        advice.extend(self.advice_on_reuse());
        if self.stats.refused() > 0 {
            let count = self.stats.refused();
            advice.push(format!(
                "{count} checkouts were turned away: too many waited (max_waiting {}), or an \
                 attempt had just failed",
                self.limits.as_ref().map_or(0, |limits| limits.max_waiting)
            ));
        }
        if self.stats.events_dropped() > 0 {
            let count = self.stats.events_dropped();
            advice.push(format!("the observer was too slow for {count} events: make it faster"));
        }
        advice.truncate(MOST_ADVICE);
        advice
    }

    /// What those waited for in vain who gave up in the last minutes.
    fn advice_on_waits(&self) -> Vec<String> {
        let is_late = |wait: &&Wait| self.at.since(wait.at) < OF_LATE;
        let verdicts = self.waits.iter().filter(is_late).filter_map(Wait::verdict);
        let mut counts: BTreeMap<Verdict, usize> = BTreeMap::new();
        verdicts.for_each(|verdict| *counts.entry(verdict).or_default() += 1);
        let said = counts.into_iter().map(|(verdict, count)| {
            let advice = verdict.advice();
            format!("of the long waits of late {count} were in vain ({verdict}): {advice}")
        });
        said.collect()
    }

    fn advice_on(&self, row: &Row) -> Vec<String> {
        let mut advice = Vec::new();
        let endpoint = &row.endpoint;
        if let Some((waited, verdict)) = row.trouble {
            let waiting = row.stats.waiting();
            let why = verdict
                .map_or_else(String::new, |verdict| format!("; {verdict}: {}", verdict.advice()));
            advice.push(format!("{endpoint}: {waiting} wait, the first for {waited:.1?}{why}"));
        } else if row.is_out {
            let what = Verdict::ServerDown.advice();
            advice.push(format!("{endpoint}: no connection, and the last attempt failed: {what}"));
        }
        let (limit, stats) = (row.caps.max_per_endpoint, &row.stats);
        if let Some(needed) = row.needed.filter(|&needed| needed > limit) {
            advice.push(format!(
                "{endpoint}: the load of late needs {needed} connections or more; max_per_endpoint \
                 is {limit}, and {} of all checkouts had to wait, for {:.1?} on average; with \
                 {needed} less than one in ten would",
                Percent(stats.waits(), stats.checkouts() + stats.timed_out() + stats.refused()),
                mean(stats.wait_time(), stats.waits()),
            ));
        }
        if row.caps.max_idle_per_endpoint < limit && row.stats.closed_for(CloseReason::Surplus) > 0
        {
            advice.push(format!(
                "{endpoint}: {} were closed for want of room among the idle ones, to be opened \
                 again: max_idle_per_endpoint is {}",
                row.stats.closed_for(CloseReason::Surplus),
                row.caps.max_idle_per_endpoint
            ));
        }
        advice
    }

    /// Connections are closed for a reason that could be mended.
    fn advice_on_reuse(&self) -> Option<String> {
        let stats = &self.stats;
        let is_poor = stats.checkouts() >= ENOUGH_CHECKOUTS
            && stats.reused().saturating_mul(2) < stats.checkouts();
        let most = CloseReason::ALL.iter().max_by_key(|&&reason| stats.closed_for(reason))?;
        is_poor.then(|| {
            let (reused, checkouts) = (stats.reused(), stats.checkouts());
            let count = stats.closed_for(*most);
            format!("{reused} of {checkouts} checkouts were of used connections; {count}: {most}")
        })
    }
}
