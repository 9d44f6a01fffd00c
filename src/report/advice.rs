//! What to do, as far as a pool can tell.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::error::{Few, Verdict};
use crate::holder::Group;
use crate::observe::CloseReason;
use crate::report::page::{Mean, share_waiting};
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
        } else {
            advice.extend(self.rows.iter().filter_map(Self::advice_on_trouble));
        }
        advice.extend(self.advice_on_waits());
        advice.extend(self.advice_on_leaks());
        advice.extend(self.rows.iter().flat_map(|row| self.advice_on_limits(row)));
        advice.extend(self.advice_on_total());
        advice.extend(self.advice_on_reuse());
        if self.stats.refused() > 0 {
            let count = Few(self.stats.refused(), "checkout was", "checkouts were");
            advice.push(format!(
                "so far {count} turned away: too many waited (max_waiting is {}), or an attempt had just \
                 failed",
                self.limits.as_ref().map_or(0, |limits| limits.max_waiting)
            ));
        }
        if self.stats.events_dropped() > 0 {
            let count = Few(self.stats.events_dropped(), "event", "events");
            advice.push(format!("so far the observer was too slow for {count}: make it faster"));
        }
        advice.truncate(MOST_ADVICE);
        advice
    }

    /// Somebody waits, or nothing can be opened.
    fn advice_on_trouble(row: &Row) -> Option<String> {
        let endpoint = &row.endpoint;
        let Some((waited, cause)) = &row.trouble else {
            let verdict = row.is_out?;
            let what = verdict.advice();
            return Some(format!("{endpoint}: no connection, {verdict}: {what}"));
        };
        let waiting = Few(row.stats.waiting(), "waits", "wait");
        let why = cause.as_ref().map_or_else(String::new, |(verdict, finding)| {
            format!("; {verdict}{finding}: {}", verdict.advice())
        });
        Some(format!("{endpoint}: {waiting}, the first for {waited:.1?}{why}"))
    }

    /// What those waited for in vain who gave up in the last minutes: the latest of each cause.
    fn advice_on_waits(&self) -> Vec<String> {
        let mut causes: BTreeMap<Verdict, (usize, &Wait, &str)> = BTreeMap::new();
        for wait in self.waits.iter().filter(|wait| self.is_of_late(wait)) {
            let Some((verdict, finding)) = wait.cause() else { continue };
            let known = causes.entry(*verdict).or_insert((0, wait, finding));
            *known = (known.0 + 1, wait, finding);
        }
        let said = causes.into_iter().map(|(verdict, (count, last, finding))| {
            let waits = Few(count, "wait", "waits");
            let (endpoint, advice) = (last.endpoint(), verdict.advice());
            format!("of late {waits} in vain, the last at {endpoint}; {verdict}{finding}: {advice}")
        });
        said.collect()
    }

    /// Lines of the program whose connections are out for too long at this moment.
    fn advice_on_leaks(&self) -> Vec<String> {
        let leak_warning = self.limits.as_ref().and_then(|limits| limits.leak_warning);
        let Some(limit) = leak_warning else { return Vec::new() };
        let overdue = self.holders.iter().filter(|group| group.oldest >= limit);
        let advice = Verdict::Leak.advice();
        let said = overdue.map(|group| {
            let Group { site, oldest, .. } = group;
            format!("out for {oldest:.1?}, longer than leak_warning, since {site}: {advice}")
        });
        said.collect()
    }

    fn is_of_late(&self, wait: &Wait) -> bool {
        self.at.since(wait.at) < OF_LATE
    }

    /// The cause of the latest trouble at an endpoint is what is done with connections, not how many
    /// there may be.
    fn is_misused(&self, row: &Row) -> bool {
        let now = row.trouble.as_ref().and_then(|(_, cause)| Some(cause.as_ref()?.0));
        let theirs = |wait: &&Wait| self.is_of_late(wait) && wait.endpoint == row.endpoint;
        let last = || self.waits.iter().rev().filter(theirs).find_map(Wait::verdict);
        let misuse = [Verdict::Leak, Verdict::SlowUsers, Verdict::Deadlock];
        now.or_else(last).is_some_and(|verdict| misuse.contains(&verdict))
    }

    fn advice_on_limits(&self, row: &Row) -> Vec<String> {
        let mut advice = Vec::new();
        let (endpoint, limit, stats) = (&row.endpoint, row.caps.max_per_endpoint, &row.stats);
        let needed = row.needed.filter(|&needed| needed > limit && !self.is_misused(row));
        if let Some(needed) = needed.filter(|_| !self.is_total_short()) {
            let all = if stats.most_in_use() >= limit { ", and all were in use" } else { "" };
            advice.push(format!(
                "{endpoint}: the load of late needs {needed} connections or more; max_per_endpoint \
                 is {limit}{all}; {} of all checkouts had to wait, for {} on average",
                share_waiting(stats),
                Mean(stats.wait_time(), stats.waits()),
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

    /// The endpoints together need more than the pool may have.
    fn is_total_short(&self) -> bool {
        let needed: usize = self.rows.iter().filter_map(|row| row.needed).sum();
        self.limits.as_ref().is_some_and(|limits| needed > limits.max_total)
    }

    fn advice_on_total(&self) -> Option<String> {
        let limit = self.limits.as_ref().filter(|_| self.is_total_short())?.max_total;
        let needed: usize = self.rows.iter().filter_map(|row| row.needed).sum();
        let made_room = self.stats.closed_for(CloseReason::MadeRoom);
        Some(format!(
            "the load of late needs {needed} connections or more at all endpoints together; \
             max_total is {limit}, and {made_room} were closed to make room for others"
        ))
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
