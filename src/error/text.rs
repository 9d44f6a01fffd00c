//! How errors read: on one line, or with `{:#}` on many.

use std::fmt;
use std::time::Duration;

use crate::error::{Error, ErrorKind, Inner, Situation, Verdict};
use crate::holder::Group;
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
        match &inner.situation {
            Some(situation) if f.alternate() => write_page(f, inner, situation),
            situation => write_line(f, inner, situation.as_deref()),
        }?;
        match inner.verdict {
            Some(verdict) if f.alternate() => write!(f, "\n  to do: {}", verdict.advice()),
            _ => Ok(()),
        }
    }
}

fn write_line(
    f: &mut fmt::Formatter<'_>,
    inner: &Inner,
    situation: Option<&Situation>,
) -> fmt::Result {
    if let Some(counts) = &inner.counts {
        write!(f, " ({counts})")?;
    }
    // The counts say that it is paused.
    let verdict = inner.verdict.filter(|&verdict| verdict != Verdict::Paused);
    if let (Some(verdict), Some(situation)) = (verdict, situation) {
        write!(f, "; {verdict}")?;
        let finding = Finding { situation, verdict, waited: inner.waited.unwrap_or_default() };
        write!(f, "{finding}")?;
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

fn write_page(f: &mut fmt::Formatter<'_>, inner: &Inner, situation: &Situation) -> fmt::Result {
    let waited = inner.waited.unwrap_or_default();
    if let Some(verdict) = inner.verdict {
        let finding = Finding { situation, verdict, waited };
        write!(f, "\n  cause: {verdict}{finding}")?;
    }
    let Situation { counts, ahead, served, returned, opened, failed, .. } = situation;
    write!(f, "\n  counts: {counts}")?;
    write!(f, "\n  queue: {ahead} had come before; {served} others were served meanwhile")?;
    write!(f, "\n  meanwhile: {returned} came back, {opened} opened, {failed} failed to connect")?;
    if let Some((phase, age)) = situation.attempt {
        write!(f, "\n  under way: an attempt that began {age:.1?} ago, in {phase}")?;
    }
    match (situation.usual_use, situation.recent_use) {
        (Some(usual), Some(recent)) => {
            write!(f, "\n  a use took: {usual:.1?} on average before, {recent:.1?} meanwhile")?;
        }
        (Some(usual), None) => write!(f, "\n  a use took: {usual:.1?} on average before")?,
        (None, Some(recent)) => write!(f, "\n  a use took: {recent:.1?} on average")?,
        (None, None) => {}
    }
    if let Some((failure, age)) = &inner.failure {
        write!(f, "\n  last attempt: {:.0?} ago, {failure}", age.unwrap_or_default())?;
    }
    let groups = situation.holdings.groups();
    if !groups.is_empty() {
        f.write_str("\n  in use:")?;
    }
    for group in groups.iter().take(MOST_GROUPS) {
        write!(f, "\n    {group}")?;
    }
    if groups.len() > MOST_GROUPS {
        write!(f, "\n    and at {} other lines", groups.len() - MOST_GROUPS)?;
    }
    Ok(())
}

/// A verdict's figures, in words that follow it.
struct Finding<'s> {
    situation: &'s Situation,
    verdict: Verdict,
    waited: Duration,
}

impl fmt::Display for Finding<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { situation, verdict, waited } = *self;
        let counts = &situation.counts;
        match verdict {
            Verdict::Undersized => self.write_undersized(f),
            Verdict::Leak => {
                let suspects = situation.suspects(waited);
                write!(f, " suspected: {suspects} of {} in use", situation.holdings.all.len())?;
                self.write_holders(f)
            }
            Verdict::SlowUsers => {
                match (situation.recent_use, situation.usual_use) {
                    (None, None) => write!(f, ": none came back")?,
                    (None, Some(usual)) => {
                        write!(f, ": none came back, usually after {usual:.1?}")?;
                    }
                    (Some(recent), usual) => {
                        let usual = usual.unwrap_or_default();
                        write!(f, ": a use takes {recent:.1?}, usually {usual:.1?}")?;
                    }
                }
                self.write_holders(f)
            }
            Verdict::ServerDown | Verdict::ConnectFails | Verdict::Unresolved => {
                match (situation.failed, situation.attempt) {
                    (0, Some((phase, age))) => write!(f, ": {phase} for {age:.1?} so far"),
                    (failed, _) => write!(f, ": {failed} attempts failed meanwhile"),
                }
            }
            Verdict::SlowConnect | Verdict::Shortage => match situation.attempt {
                Some((phase, age)) => write!(f, ": an attempt is in {phase}, for {age:.1?} so far"),
                None => write!(f, ": {} attempts failed meanwhile", situation.failed),
            },
            Verdict::Deadlock => self.write_deadlock(f),
            Verdict::SlowCheck => write!(f, ": {} are being checked or settled", counts.checking),
            Verdict::Paused => Ok(()),
        }
    }
}

impl Finding<'_> {
    fn write_undersized(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = &self.situation.counts;
        let (name, limit) = if counts.total() < counts.limit {
            ("max_total", counts.pool.1)
        } else {
            ("max_per_endpoint", counts.limit)
        };
        let needed = self.situation.needed.unwrap_or(0).max(limit + 1);
        write!(f, ": {} others were served meanwhile", self.situation.served)?;
        write!(f, "; the load needs {needed} or more, {name} is {limit}")
    }

    fn write_deadlock(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(deadlock) = self.situation.deadlock else { return Ok(()) };
        let (threads, at_once, least) = (deadlock.threads, deadlock.at_once, deadlock.least());
        write!(f, ": every thread that has a connection waits for another")?;
        write!(
            f,
            "; it takes {least} ({threads} threads x ({at_once} held at once - 1) + 1) or more"
        )?;
        self.write_holders(f)
    }

    /// The line of the program that has most of them, and who came along it first.
    fn write_holders(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let groups = self.situation.holdings.groups();
        let Some(Group { site, count, oldest, threads }) = groups.first() else { return Ok(()) };
        write!(f, "; {count} out for up to {oldest:.1?} since {site}")?;
        match threads.first() {
            Some(&thread) => write!(f, " ({})", ThreadName::of(thread)),
            None => Ok(()),
        }
    }
}
