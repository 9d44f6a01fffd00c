//! What must hold while a script is played, as its callers can see it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use parking_lot::Mutex;
use warmline::sim::{now, trace, violation};
use warmline::{Error, ErrorKind};

use crate::script::Script;
use crate::stopwatch::Stopwatch;

/// Threads are not quite at the same time, though none lags for longer than this.
const SLACK: Duration = Duration::from_millis(1);

/// Whoever asks has a place in the queue after so many nanoseconds, and whoever was answered knows.
const GRACE: u64 = 100_000;

/// The books that callers keep, against those of the pool.
#[derive(Debug)]
pub struct Watch {
    books: Mutex<Books>,
    fair_after: Duration,
    is_calm: bool,
    may_be_closed: bool,
    max_total: usize,
    max_uses: Option<u32>,
}

#[derive(Debug)]
struct Books {
    /// Connections that callers have: each once.
    in_hand: BTreeSet<u64>,
    /// Those that nobody may ever have again.
    gone: BTreeSet<u64>,
    /// How often each was used.
    uses: BTreeMap<u64, u32>,
    /// How many of each host, and the most that it was ever allowed.
    held: Vec<usize>,
    most: Vec<usize>,
    /// Who waits for which host, by number, and since when.
    waiting: BTreeMap<u64, Waiting>,
    count: u64,
    served: u64,
    errors: u64,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    host: usize,
    since: Stopwatch,
    /// Somebody came first who came later, and when: no wrong if this one has its own by then.
    passed_over: Option<(u64, u64)>,
    /// It waited for a pause to end, and is handed then what was idle for as long: if that has
    /// spoilt, others may have been served before it has another.
    was_held_back: bool,
}

/// A checkout that was begun.
#[derive(Debug)]
#[must_use]
pub struct Begun {
    number: u64,
    host: usize,
    since: Stopwatch,
}

impl Begun {
    /// When it was begun, in nanoseconds.
    #[must_use]
    pub fn at(&self) -> u64 {
        self.since.began()
    }
}

impl Books {
    /// A checkout has ended, one way or the other.
    fn leaves(&mut self, begun: &Begun) {
        let Some(waiting) = self.waiting.remove(&begun.number) else { return };
        let passed_over = waiting.passed_over.filter(|_| !waiting.was_held_back);
        let Some((at, other)) = passed_over else { return };
        if now() > at + GRACE + waiting.since.starved() {
            let waited = begun.since.elapsed();
            let (number, host) = (begun.number, begun.host);
            violation(format!(
                "caller {number} waited {waited:?} for host {host}, and {other} came first"
            ));
        }
    }
}

impl Watch {
    #[must_use]
    pub fn new(script: &Script) -> Self {
        let hosts = script.hosts.len();
        Self {
            books: Mutex::new(Books {
                in_hand: BTreeSet::new(),
                gone: BTreeSet::new(),
                uses: BTreeMap::new(),
                held: vec![0; hosts],
                most: vec![script.settings.max_per_endpoint; hosts],
                waiting: BTreeMap::new(),
                count: 0,
                served: 0,
                errors: 0,
            }),
            fair_after: script.settings.fair_after,
            is_calm: script.is_calm,
            may_be_closed: script.is_closed(),
            max_total: script.settings.max_total,
            max_uses: script.settings.max_uses,
        }
    }

    pub fn limits_change(&self, host: usize, most: usize) {
        let mut books = self.books.lock();
        books.most[host] = books.most[host].max(most);
    }

    /// The pool resumes.
    pub fn resumes(&self) {
        let mut books = self.books.lock();
        books.waiting.values_mut().for_each(|waiting| waiting.was_held_back = true);
    }

    /// Somebody asks for a connection, and waits in the queue.
    pub fn begin(&self, host: usize) -> Begun {
        let mut books = self.books.lock();
        books.count += 1;
        let (number, since) = (books.count, Stopwatch::start());
        books
            .waiting
            .insert(number, Waiting { host, since, passed_over: None, was_held_back: false });
        Begun { number, host, since }
    }

    /// It ended without a connection, within its time and for a reason that can be.
    pub fn failed(&self, begun: &Begun, timeout: Option<Duration>, error: &Error) {
        let mut books = self.books.lock();
        books.leaves(begun);
        books.errors += 1;
        drop(books);
        let took = self.in_time(begun, timeout);
        trace(|| format!("caller: host {} failed after {took:?}: {error}", begun.host));
        let is_early = timeout.is_some_and(|timeout| took < timeout);
        if error.kind() == ErrorKind::Timeout && is_early {
            violation(format!("timed out after {took:?} of {timeout:?}: {error}"));
        }
        if self.is_calm {
            violation(format!("nothing was wrong, and yet: {error}"));
        }
        let is_odd = error.kind() == ErrorKind::Closed && !self.may_be_closed;
        if is_odd || matches!(error.kind(), ErrorKind::Config | ErrorKind::Rejected) {
            violation(format!("an error that makes no sense: {error}"));
        }
    }

    /// It did not wait any longer.
    pub fn gave_up(&self, begun: &Begun) {
        self.books.lock().leaves(begun);
    }

    /// It got a connection.
    pub fn served(&self, begun: &Begun, timeout: Option<Duration>, identity: u64) {
        let mut books = self.books.lock();
        books.leaves(begun);
        let fair_after = self.fair_after + SLACK;
        for other in books.waiting.values_mut() {
            // It stood in the queue when this one came, however slow it was to get there.
            let slowness = other.since.starved().saturating_sub(begun.since.starved());
            let came_later = begun.at() > other.since.began() + slowness + GRACE;
            let is_later = other.host == begun.host && came_later;
            if is_later && other.since.took() > fair_after && other.passed_over.is_none() {
                other.passed_over = Some((now(), begun.number));
            }
        }
        drop(books);
        let took = self.in_time(begun, timeout);
        trace(|| format!("caller: has {identity:x} of host {} after {took:?}", begun.host));
        self.takes(begun.host, identity);
    }

    /// A caller has a connection from here on.
    pub fn takes(&self, host: usize, identity: u64) {
        let mut books = self.books.lock();
        books.served += 1;
        if !books.in_hand.insert(identity) {
            violation(format!("connection {identity:x} was given to two callers"));
        }
        if books.gone.contains(&identity) {
            violation(format!("connection {identity:x} had been given up, and is in use again"));
        }
        let uses = books.uses.entry(identity).or_default();
        *uses += 1;
        if self.max_uses.is_some_and(|most| *uses > most) {
            violation(format!("connection {identity:x} is used {uses} times"));
        }
        books.held[host] += 1;
        let (held, most) = (books.held[host], books.most[host]);
        if held > most {
            violation(format!("{held} connections of host {host} in hand, {most} allowed"));
        }
        let all: usize = books.held.iter().sum();
        if all > self.max_total {
            violation(format!("{all} connections in hand, {} allowed", self.max_total));
        }
    }

    /// It is about to give it up for good: nobody may have it after this.
    pub fn gives_up(&self, host: usize, identity: u64) {
        self.gives(host, identity);
        self.books.lock().gone.insert(identity);
    }

    /// It is about to give it back, or to keep it for itself.
    pub fn gives(&self, host: usize, identity: u64) {
        let mut books = self.books.lock();
        if !books.in_hand.remove(&identity) {
            violation(format!("connection {identity:x} was not in hand"));
        }
        books.held[host] -= 1;
    }

    fn in_time(&self, begun: &Begun, timeout: Option<Duration>) -> Duration {
        let (took, waited) = (begun.since.elapsed(), begun.since.took());
        let is_late = timeout.is_some_and(|timeout| waited > timeout + SLACK);
        if is_late && begun.since.had_threads() {
            violation(format!("waited {took:?} of {timeout:?} for host {}", begun.host));
        }
        took
    }

    /// The end: nobody has anything, and nobody waits.
    pub fn close(&self) {
        let books = self.books.lock();
        if !books.in_hand.is_empty() || !books.waiting.is_empty() {
            violation(format!("the script lost count: {books:?}"));
        }
    }

    #[must_use]
    pub fn totals(&self) -> (u64, u64) {
        let books = self.books.lock();
        (books.served, books.errors)
    }
}
