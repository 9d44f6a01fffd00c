//! What makes callers wait in vain, brought about, and the texts that tell of it.

use std::thread::{Builder, ScopedJoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};
use warmline::{Connector, Error, ErrorKind, Name, Pool, PooledConn, Verdict};

use super::{SOON, eventually};

/// A caller has waited for long enough to say why it was in vain, if what is wrong stays wrong.
pub(crate) const BRIEF: Duration = Duration::from_millis(50);

/// Reads a time-out as somebody would who did not write the program: the line in the log, the page,
/// and the report of the pool. All of them name the cause, the line these parts as well.
#[track_caller]
pub(crate) fn assert_tells<C: Connector>(
    pool: &Pool<C>,
    error: &Error,
    verdict: Verdict,
    parts: &[&str],
) {
    let (line, page, report) = (error.to_string(), format!("{error:#}"), pool.report().to_string());
    assert_eq!(error.kind(), ErrorKind::Timeout, "{page}");
    assert_eq!(error.verdict(), Some(verdict), "{page}");
    assert!(!line.contains('\n') && !line.ends_with('.'), "{line}");
    let cause = verdict.to_string();
    let endpoint = error.endpoint().unwrap();
    let always = [endpoint, &*cause, " within ", " in use, ", " idle, ", " waiting"];
    for part in always.iter().chain(parts) {
        assert!(line.contains(part), "{part} is not in: {line}");
    }
    let to_do = verdict.advice();
    for part in [&*format!("\n  cause: {cause}"), "\n  counts: ", "\n  queue: ", to_do] {
        assert!(page.contains(part), "{part} is not in: {page}");
    }
    for part in [endpoint, &*cause, to_do] {
        assert!(report.contains(part), "{part} is not in: {report}");
    }
}

/// How a line of a test's file is named, without the column.
pub(crate) fn site(file: &str, line: u32) -> String {
    format!("{file}:{line}:")
}

/// Has so many threads, "user-0" and so on, take a connection each and keep it as long as
/// `meanwhile` runs, which is told along which line they came.
pub(crate) fn held_by_users<C: Connector, T>(
    pool: &Pool<C>,
    name: &str,
    count: usize,
    meanwhile: impl FnOnce(&str) -> T,
) -> T
where
    str: Name<C::Key>,
{
    let line = line!() + 1;
    let take = &|| pool.get_timeout(name, SOON).unwrap();
    let (gate, gated) = bounded::<()>(0);
    std::thread::scope(move |scope| {
        // Moved here: the gate opens whatever becomes of `meanwhile`.
        let gate = gate;
        let before = pool.stats().in_use();
        let start = |number| {
            let gated = gated.clone();
            let keep = move || {
                let _conn = take();
                let _opened = gated.recv();
            };
            let user = Builder::new().name(format!("user-{number}"));
            user.spawn_scoped(scope, keep).unwrap()
        };
        let users: Vec<_> = (0..count).map(start).collect();
        eventually("all have one", || pool.stats().in_use() == before + count);
        let result = meanwhile(&site(file!(), line));
        drop(gate);
        users.into_iter().for_each(joined);
        result
    })
}

/// Has a caller wait in vain for the one connection that is left, which comes back meanwhile, once
/// `hold` returns, and goes to another, who was there before. On a busy machine the caller may have
/// given up by then: it tries again, with more patience.
pub(crate) fn overtaken<C: Connector>(pool: &Pool<C>, name: &str, hold: impl Fn()) -> Error
where
    str: Name<C::Key>,
{
    for patience in [500, 4_000, 20_000].map(Duration::from_millis) {
        let first = pool.get_timeout(name, SOON).unwrap();
        let before = pool.stats().checkouts();
        let (gate, gated) = bounded::<()>(0);
        let ended = std::thread::scope(|scope| {
            let _gate = gate;
            scope.spawn(|| keep(pool.get_timeout(name, SOON).unwrap(), &gated));
            eventually("the other waits", || pool.stats().waiting() == 1);
            let late = scope.spawn(|| pool.get_timeout(name, patience).map(drop).unwrap_err());
            eventually("both wait", || pool.stats().waiting() == 2 || late.is_finished());
            hold();
            drop(first);
            eventually("the other has it", || pool.stats().checkouts() > before);
            let was_there = pool.stats().waiting() == 1;
            let error = joined(late);
            was_there.then_some(error)
        });
        if let Some(error) = ended {
            return error;
        }
    }
    std::panic::panic_any("the machine is too busy")
}

fn keep<C: Connector>(conn: PooledConn<C>, gated: &Receiver<()>) {
    let _opened = gated.recv();
    drop(conn);
}

/// What a thread of a test has returned, or its panic.
pub(crate) fn joined<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Asks with more and more patience until the answer is what it will be in the end.
pub(crate) fn patiently(ask: impl Fn(Duration) -> Error, is_it: impl Fn(&Error) -> bool) -> Error {
    let mut patience = BRIEF;
    loop {
        let error = ask(patience);
        if is_it(&error) {
            return error;
        }
        assert!(patience < SOON, "{error:#}");
        patience *= 2;
    }
}
