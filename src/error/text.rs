//! How errors read: on one line, or with `{:#}` on many.

use std::fmt;
use std::time::Duration;

use crate::error::{Error, ErrorKind, Inner, Phase, Situation, Verdict};
use crate::holder::{Group, Ticked};
use crate::sync::ThreadName;

/// Lines of the program that are named as holders.
const MOST_GROUPS: usize = 8;

impl fmt::Display for Error {
    /// One line; with `{:#}` many.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &*self.0;
        f.write_str(&inner.message)?;
        if let Some(endpoint) = &inner.endpoint {
            write!(f, " [{endpoint}]")?;
        }
        if let Some(waited) = inner.waited {
            let word = if inner.kind == ErrorKind::Timeout { "within" } else { "after" };
            write!(f, " {word} {waited:.1?}")?;
        }
        if f.alternate() { write_page(f, inner) } else { write_line(f, inner) }
    }
}

impl Error {
    /// The figures of its verdict, in words.
    pub(crate) fn finding(&self) -> Option<String> {
        let inner = &*self.0;
        Some(inner.situation.as_ref()?.finding(inner.verdict?, inner.waited?))
    }
}

impl Situation {
    /// A verdict's figures, in words that follow it.
    pub(crate) fn finding(&self, verdict: Verdict, waited: Duration) -> String {
        Finding { situation: self, verdict, waited }.to_string()
    }
}

fn write_line(f: &mut fmt::Formatter<'_>, inner: &Inner) -> fmt::Result {
    if let Some(counts) = &inner.counts {
        write!(f, " ({counts})")?;
    }
    // Of a pause the counts say so.
    if let Some(verdict) = inner.verdict.filter(|&verdict| verdict != Verdict::Paused) {
        f.write_str("; ")?;
        write_cause(f, inner, verdict)?;
    }
    if let Some((failure, age)) = &inner.failure {
        f.write_str("; last attempt")?;
        if let Some(age) = age {
            write!(f, ", {age:.0?} ago")?;
        }
        write!(f, ": {failure}")?;
    }
    Ok(())
}

fn write_cause(f: &mut fmt::Formatter<'_>, inner: &Inner, verdict: Verdict) -> fmt::Result {
    let waited = inner.waited.unwrap_or_default();
    write!(f, "{verdict}")?;
    match &inner.situation {
        Some(situation) => write!(f, "{}", Finding { situation, verdict, waited }),
        None => Ok(()),
    }
}

fn write_page(f: &mut fmt::Formatter<'_>, inner: &Inner) -> fmt::Result {
    if let Some(verdict) = inner.verdict {
        f.write_str("\n  cause: ")?;
        write_cause(f, inner, verdict)?;
        write!(f, "\n  to do: {}", verdict.advice())?;
    }
    if let Some(counts) = &inner.counts {
        write!(f, "\n  counts: {counts}")?;
    }
    if let Some(situation) = &inner.situation {
        write_meanwhile(f, situation)?;
    }
    if let Some((failure, age)) = &inner.failure {
        write!(f, "\n  last attempt: {:.0?} ago, {failure}", age.unwrap_or_default())?;
    }
    match &inner.situation {
        Some(situation) => write_groups(f, situation),
        None => Ok(()),
    }
}

fn write_meanwhile(f: &mut fmt::Formatter<'_>, situation: &Situation) -> fmt::Result {
    let Situation { ahead, served, returned, opened, failed, .. } = situation;
    write!(f, "\n  queue: {ahead} had come before; {served} served meanwhile")?;
    write!(f, "\n  meanwhile: {returned} came back, {opened} opened, {failed} failed to connect")?;
    if let Some((phase, age)) = situation.attempt {
        write!(f, "\n  under way: an attempt that began {age:.1?} ago, in {phase}")?;
    }
    match (situation.usual_use, situation.recent_use) {
        (Some(usual), Some(recent)) => {
            write!(f, "\n  a use took: {usual:.1?} on average before, {recent:.1?} meanwhile")
        }
        (Some(usual), None) => write!(f, "\n  a use took: {usual:.1?} on average before"),
        (None, Some(recent)) => write!(f, "\n  a use took: {recent:.1?} on average"),
        (None, None) => Ok(()),
    }
}

fn write_groups(f: &mut fmt::Formatter<'_>, situation: &Situation) -> fmt::Result {
    let groups = situation.holdings.groups(&situation.ended);
    if !groups.is_empty() {
        f.write_str("\n  in use:")?;
    }
    for group in groups.iter().take(MOST_GROUPS) {
        write!(f, "\n    {group}")?;
    }
    match groups.len().saturating_sub(MOST_GROUPS) {
        0 => Ok(()),
        others => write!(f, "\n    and at {}", Few(others, "other line", "other lines")),
    }
}

/// So many of something.
pub(crate) struct Few<N>(pub(crate) N, pub(crate) &'static str, pub(crate) &'static str);

impl<N: fmt::Display + PartialEq + From<u8>> fmt::Display for Few<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(count, one, many) = self;
        write!(f, "{count} {}", if *count == N::from(1) { one } else { many })
    }
}

/// A verdict's figures, in words that follow it.
struct Finding<'s> {
    situation: &'s Situation,
    verdict: Verdict,
    waited: Duration,
}

impl fmt::Display for Finding<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let situation = self.situation;
        let failed = Few(situation.failed, "attempt", "attempts");
        match self.verdict {
            Verdict::Undersized => {
                self.write_undersized(f)?;
                self.write_suspects(f)
            }
            Verdict::Leak => {
                let suspects = situation.suspects(self.waited).count();
                write!(f, " suspected: {suspects} of {} in use", situation.holdings.all.len())?;
                self.write_holders(f)
            }
            Verdict::SlowUsers => {
                self.write_slow(f)?;
                self.write_holders(f)?;
                self.write_suspects(f)
            }
            Verdict::ServerDown | Verdict::Unresolved => {
                match (situation.failed, situation.attempt) {
                    (0, Some((phase, age))) => write!(f, ": in {phase} for {age:.1?} so far"),
                    _ => write!(f, ": {failed} failed meanwhile"),
                }
            }
            Verdict::ConnectFails => {
                let open = situation.counts.idle + situation.counts.in_use;
                write!(f, ": {failed} failed meanwhile")?;
                if open > 0 { write!(f, ", beside {open} that are open") } else { Ok(()) }
            }
            Verdict::SlowConnect | Verdict::Shortage => match situation.attempt {
                Some((Phase::Queue, age)) => {
                    write!(f, ": an attempt has had no thread for {age:.1?} so far")
                }
                Some((phase, age)) => write!(f, ": an attempt is in {phase}, for {age:.1?} so far"),
                None if situation.failed > 0 => write!(f, ": {failed} failed meanwhile"),
                None => {
                    let (under_way, _) = situation.attempts;
                    write!(
                        f,
                        ": {under_way} attempts at other endpoints are under way, no more may be"
                    )
                }
            },
            Verdict::Deadlock => self.write_deadlock(f),
            Verdict::SlowCheck => {
                let checking = Few(situation.counts.checking, "is", "are");
                write!(f, ": {checking} being checked or settled")
            }
            Verdict::Paused => Ok(()),
        }
    }
}

impl Finding<'_> {
    fn write_undersized(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = &self.situation.counts;
        let served = Few(self.situation.served, "other was", "others were");
        write!(f, ": {served} served meanwhile")?;
        let (name, limit) = if self.situation.is_pool_full() && !self.situation.is_full() {
            ("max_total", counts.pool.1)
        } else {
            ("max_per_endpoint", counts.limit)
        };
        let needed = self.situation.needed.unwrap_or(0).max(limit + 1);
        write!(f, "; the load needs {needed} or more, {name} is {limit}")
    }

    fn write_slow(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.situation.recent_use, self.situation.usual_use) {
            (None, None) => f.write_str(": none came back"),
            (None, Some(usual)) => write!(f, ": none came back, usually after {usual:.1?}"),
            (Some(recent), None) => write!(f, ": a use takes {recent:.1?}"),
            (Some(recent), Some(usual)) => {
                write!(f, ": a use takes {recent:.1?}, usually {usual:.1?}")
            }
        }
    }

    fn write_deadlock(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(deadlock) = self.situation.deadlock else { return Ok(()) };
        let (at_once, least) = (deadlock.at_once, deadlock.least());
        let threads = Few(deadlock.threads, "thread", "threads");
        write!(f, ": every thread that took a connection waits for another")?;
        write!(f, "; it takes {least} ({threads} x ({at_once} held at once - 1) + 1) or more")?;
        self.write_holders(f)
    }

    /// The line of the program that has most of them, and who came along it first.
    fn write_holders(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let groups = self.situation.holdings.groups(&self.situation.ended);
        let Some(Group { site, count, oldest, threads }) = groups.first() else { return Ok(()) };
        write!(f, "; {count} out for up to {} since {site}", Ticked(*oldest))?;
        match threads.first() {
            Some(&(thread, ended)) => write!(f, " ({})", ThreadName::then(thread, ended)),
            None => Ok(()),
        }
    }

    /// Some may have been leaked, though that is not the cause.
    fn write_suspects(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut suspects = self.situation.suspects(self.waited);
        let Some(oldest) = suspects.next() else { return Ok(()) };
        let (count, site) = (1 + suspects.count(), oldest.caller.site);
        write!(f, "; {count} of them suspected to be leaked, at {site}")
    }
}
