//! How a report reads.

use std::fmt;
use std::time::Duration;

use crate::config::Limits;
use crate::core::Stats;
use crate::error::Few;
use crate::observe::CloseReason;
use crate::report::{Report, Row};

/// Lines of the program, errors and waits on a page.
const MOST_LINES: usize = 10;

/// A setting, its value, and what was observed beside it.
type Line = (&'static str, String, String);

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, age) = (&self.name, Span(self.age));
        let endpoints = Few(self.endpoints, "endpoint", "endpoints");
        writeln!(f, "warmline: pool \"{name}\", {age} old, {endpoints}")?;
        let advice = self.advice();
        if advice.is_empty() {
            writeln!(f, "\nto do: nothing that the pool knows of")?;
        } else {
            writeln!(f, "\nto do:")?;
        }
        for advice in advice {
            writeln!(f, "  - {advice}")?;
        }
        self.write_state(f)?;
        self.write_settings(f)?;
        self.write_endpoints(f)?;
        self.write_holders(f)?;
        self.write_errors(f)?;
        self.write_waits(f)
    }
}

impl Report {
    fn write_state(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stats = &self.stats;
        writeln!(f, "\nnow: {}", stats.counts)?;
        writeln!(
            f,
            "so far: {} checkouts ({} reused, {} had to wait, {} on average), {} opened ({} on \
             average), {} failed to connect, {} closed, {} detached, {} timed out, {} turned away",
            stats.checkouts(),
            Percent(stats.reused(), stats.checkouts()),
            share_waiting(stats),
            Mean(stats.wait_time(), stats.waits()),
            stats.opened(),
            Mean(stats.connect_time(), stats.opened()),
            stats.connects_failed(),
            stats.closed(),
            stats.detached(),
            stats.timed_out(),
            stats.refused(),
        )?;
        let mut reasons: Vec<CloseReason> = CloseReason::ALL.to_vec();
        reasons.retain(|&reason| stats.closed_for(reason) > 0);
        reasons.sort_by_key(|&reason| std::cmp::Reverse(stats.closed_for(reason)));
        for (at, &reason) in reasons.iter().enumerate() {
            let lead = if at == 0 { "closed:" } else { "," };
            write!(f, "{lead} {} {reason}", stats.closed_for(reason))?;
        }
        if reasons.is_empty() { Ok(()) } else { writeln!(f) }
    }

    fn write_settings(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(limits) = &self.limits else { return Ok(()) };
        let lines = self.limits_beside(limits).into_iter().chain(self.times_beside(limits));
        writeln!(f, "\n{:<21} {:>8}  observed", "setting", "value")?;
        for (name, value, observed) in lines {
            writeln!(f, "{}", format!("{name:<21} {value:>8}  {observed}").trim_end())?;
        }
        Ok(())
    }

    /// Settings that count, beside what was observed.
    fn limits_beside(&self, limits: &Limits) -> Vec<Line> {
        let stats = &self.stats;
        vec![
            ("max_total", limits.max_total.to_string(), format!("{} now", stats.total())),
            ("max_per_endpoint", limits.max_per_endpoint.to_string(), self.observed_most()),
            ("max_idle", limits.max_idle.to_string(), format!("{} now", stats.idle())),
            (
                "max_idle_per_endpoint",
                limits.max_idle_per_endpoint.to_string(),
                format!("{} closed as surplus", stats.closed_for(CloseReason::Surplus)),
            ),
            ("min_idle", limits.min_idle.to_string(), String::new()),
            (
                "max_connecting",
                limits.max_connecting.to_string(),
                format!("{} now, {} called off", stats.connecting(), stats.connects_called_off()),
            ),
            (
                "max_waiting",
                limits.max_waiting.to_string(),
                format!("{} now, {} turned away", stats.waiting(), stats.refused()),
            ),
        ]
    }

    /// Settings that are times, and others.
    fn times_beside(&self, limits: &Limits) -> Vec<Line> {
        let stats = &self.stats;
        vec![
            ("checkout_timeout", span(Some(self.checkout_timeout)), self.observed_waits()),
            (
                "connect_timeout",
                span(Some(limits.connect_timeout)),
                format!("{} on average", Mean(stats.connect_time(), stats.opened())),
            ),
            ("idle_timeout", span(limits.idle_timeout), self.observed_idle()),
            (
                "max_lifetime",
                span(limits.max_lifetime),
                format!("{} reached it", stats.closed_for(CloseReason::MaxLifetime)),
            ),
            (
                "max_uses",
                if limits.max_uses == u32::MAX {
                    "off".to_owned()
                } else {
                    limits.max_uses.to_string()
                },
                format!("{} reached it", stats.closed_for(CloseReason::MaxUses)),
            ),
            (
                "settle_timeout",
                span(Some(limits.settle_timeout)),
                format!("{} could not be reset", stats.closed_for(CloseReason::ResetRefused)),
            ),
            (
                "check_interval",
                span(limits.check_interval),
                format!(
                    "{} checks, {} failed, {} too late",
                    stats.checks(),
                    stats.closed_for(CloseReason::CheckFailed),
                    stats.closed_for(CloseReason::TooLate)
                ),
            ),
            (
                "leak_warning",
                span(limits.leak_warning),
                format!("{} suspected", stats.leaks_suspected()),
            ),
            ("fail_fast", limits.fail_fast.to_string(), String::new()),
            ("reuse", format!("{:?}", limits.reuse).to_lowercase(), String::new()),
        ]
    }

    /// How many connections endpoints had in use, and how many the load needs.
    fn observed_most(&self) -> String {
        let busiest = self.rows.iter().max_by_key(|row| row.stats.most_in_use());
        let Some(busiest) = busiest.filter(|row| row.stats.most_in_use() > 0) else {
            return String::new();
        };
        let most = busiest.stats.most_in_use();
        let mut text = format!("{most} in use at most, at {}", busiest.endpoint);
        let hungriest = self.rows.iter().max_by_key(|row| row.needed);
        if let Some((row, needed)) = hungriest.and_then(|row| Some((row, row.needed?))) {
            let load = row.load;
            text += &format!(
                "; the load needs {needed} at {} ({:.1} in use on average, {:.1} checkouts/s; \
                 and twice the root of it in reserve)",
                row.endpoint, load.in_use, load.rate
            );
        }
        text
    }

    fn observed_waits(&self) -> String {
        let longest = self.waits.iter().map(|wait| wait.waited).max().unwrap_or_default();
        let timed_out = self.stats.timed_out();
        format!("{timed_out} timed out, the longest wait of late was {longest:.1?}")
    }

    fn observed_idle(&self) -> String {
        let ended = self.stats.closed_for(CloseReason::IdleTimeout);
        let mut text = format!("{ended} reached it");
        let limit = |row: &Row| row.stats.idle_limit().map(|limit| (limit, row.endpoint.clone()));
        if let Some((limit, endpoint)) = self.rows.iter().filter_map(limit).min() {
            text += &format!("; {:.1?} at {endpoint}, as its server closes sooner", limit);
        }
        text
    }

    fn write_endpoints(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.rows.is_empty() {
            return Ok(());
        }
        writeln!(
            f,
            "\n{:<32} {:>6} {:>5} {:>5} {:>5} {:>9} {:>5} {:>10} {:>7} {:>7} {:>9} {:>9}",
            "endpoint",
            "in use",
            "idle",
            "conn.",
            "wait",
            "most/max",
            "needs",
            "checkouts",
            "opened",
            "failed",
            "timed out",
            "connect"
        )?;
        for row in &self.rows {
            let stats = &row.stats;
            let most = format!("{}/{}", stats.most_in_use(), row.caps.max_per_endpoint);
            let needed = row.needed.map_or_else(|| "-".to_owned(), |needed| needed.to_string());
            let connect = Mean(stats.connect_time(), stats.opened()).to_string();
            writeln!(
                f,
                "{:<32} {:>6} {:>5} {:>5} {:>5} {most:>9} {needed:>5} {:>10} {:>7} {:>7} {:>9} \
                 {connect:>9}",
                row.endpoint,
                stats.in_use(),
                stats.idle(),
                stats.connecting(),
                stats.waiting(),
                stats.checkouts(),
                stats.opened(),
                stats.connects_failed(),
                stats.timed_out(),
            )?;
        }
        let others = self.endpoints.saturating_sub(self.rows.len());
        if others > 0 { writeln!(f, "and {others} others") } else { Ok(()) }
    }

    fn write_holders(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.holders.is_empty() {
            return Ok(());
        }
        writeln!(f, "\nin use, by line of the program:")?;
        for group in self.holders.iter().take(MOST_LINES) {
            writeln!(f, "  {group}")?;
        }
        let others = self.holders.len().saturating_sub(MOST_LINES);
        if others > 0 { writeln!(f, "  and at {others} other lines") } else { Ok(()) }
    }

    fn write_errors(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.errors.is_empty() {
            return Ok(());
        }
        writeln!(f, "\nerrors of late:")?;
        for error in self.errors.iter().take(MOST_LINES) {
            let ago = Span(self.at.since(error.last));
            let (count, endpoint, text) = (error.count, &error.endpoint, &error.text);
            writeln!(f, "  {count} at {endpoint}, the last {ago} ago: {text}")?;
        }
        Ok(())
    }

    fn write_waits(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.waits.is_empty() {
            return Ok(());
        }
        writeln!(f, "\nlong waits of late:")?;
        for wait in self.waits.iter().rev().take(MOST_LINES) {
            writeln!(f, "  {} ago, {wait}", Span(self.at.since(wait.at)))?;
        }
        Ok(())
    }
}

/// What part of all checkouts had to wait.
pub(super) fn share_waiting(stats: &Stats) -> Percent {
    let ended = stats.checkouts() + stats.timed_out() + stats.refused();
    // Some wait still, and some were not waited for to the end.
    Percent(stats.waits(), ended.max(stats.waits()))
}

/// A sum's part of each.
pub(super) struct Mean(pub(super) Duration, pub(super) u64);

impl fmt::Display for Mean {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(sum, count) = *self;
        let Some(nanos) = sum.as_nanos().checked_div(u128::from(count)) else {
            return f.write_str("-");
        };
        write!(f, "{:.1?}", Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
    }
}

/// A setting that may be off.
fn span(duration: Option<Duration>) -> String {
    duration.map_or_else(|| "off".to_owned(), |duration| Span(duration).to_string())
}

/// A duration as people say it.
struct Span(Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
            (0, 0 | 1, _) if self.0.subsec_nanos() == 0 => write!(f, "{seconds}s"),
            (0, 0 | 1, _) => write!(f, "{:.1?}", self.0),
            (0, minutes, 0) => write!(f, "{minutes}min"),
            (0, minutes, seconds) => write!(f, "{minutes}min{seconds}s"),
            (hours, 0, _) => write!(f, "{hours}h"),
            (hours, minutes, _) => write!(f, "{hours}h{minutes}min"),
        }
    }
}

/// A part of a whole.
pub(super) struct Percent(u64, u64);

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(part, whole) = *self;
        write!(f, "{:.1} %", 100.0 * part as f64 / (whole.max(1)) as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_people_say_them() {
        let said = |seconds: f64| Span(Duration::from_secs_f64(seconds)).to_string();
        assert_eq!([0.25, 3.0, 90.0, 1800.0].map(said), ["250.0ms", "3s", "90s", "30min"]);
        assert_eq!([150.0, 7200.0, 8000.0].map(said), ["2min30s", "2h", "2h13min"]);
    }

    #[test]
    fn shares_and_means_of_nothing_are_nothing() {
        assert_eq!(Percent(0, 0).to_string(), "0.0 %");
        assert_eq!(Percent(1, 3).to_string(), "33.3 %");
        assert_eq!(Mean(Duration::ZERO, 0).to_string(), "-");
        assert_eq!(Mean(Duration::from_secs(3), 2).to_string(), "1.5s");
    }
}
