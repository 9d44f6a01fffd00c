//! Who has connections: line by line of the program.

use std::fmt;
use std::panic::Location;
use std::time::Duration;

use crate::clock::Stamp;
use crate::sync::{Arc, Caller, Ended, ThreadName};

/// A connection that is in use, as the core knows it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Holding {
    pub(crate) caller: Caller,
    /// When it went out. Wall clock.
    pub(crate) since: Stamp,
}

/// Connections that are in use: the oldest first, of very many some.
#[derive(Clone, Debug, Default)]
pub(crate) struct Holdings {
    pub(crate) all: Vec<Holding>,
    /// When they were looked at. Wall clock.
    pub(crate) at: Stamp,
}

/// What came along one line of the program.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) site: &'static Location<'static>,
    pub(crate) count: usize,
    /// For how long the first of them has been out.
    pub(crate) oldest: Duration,
    /// The threads that took them, each once, the first few, and whether they have ended.
    pub(crate) threads: Vec<(u32, bool)>,
}

/// Threads that are named of each line.
const MOST_THREADS: usize = 4;

impl Holdings {
    pub(crate) fn held(&self, holding: &Holding) -> Duration {
        self.at.since(holding.since)
    }

    /// Which of their threads have ended by now.
    pub(crate) fn ended(&self) -> Vec<u32> {
        let ended = Ended::look();
        let threads = self.all.iter().map(|holding| holding.caller.thread);
        threads.filter(|&thread| ended.has(thread)).collect()
    }

    /// By line of the program: the line with most of them first, of several the one with the oldest.
    pub(crate) fn groups(&self, ended: &[u32]) -> Vec<Group> {
        let mut groups: Vec<Group> = Vec::new();
        for holding in &self.all {
            let Caller { site, thread } = holding.caller;
            let thread = (thread, ended.contains(&thread));
            let known = groups.iter_mut().find(|group| group.site == site);
            let Some(group) = known else {
                let (oldest, threads) = (self.held(holding), vec![thread]);
                groups.push(Group { site, count: 1, oldest, threads });
                continue;
            };
            group.count += 1;
            if group.threads.len() < MOST_THREADS && !group.threads.contains(&thread) {
                group.threads.push(thread);
            }
        }
        groups.sort_by_key(|group| std::cmp::Reverse((group.count, group.oldest)));
        groups
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { count, site, oldest, .. } = self;
        write!(f, "{count} at {site}, for {} at the most", Ticked(*oldest))?;
        for (at, &(thread, has_ended)) in self.threads.iter().enumerate() {
            let thread = ThreadName::then(thread, has_ended);
            write!(f, "{} {thread}", if at == 0 { ":" } else { ";" })?;
        }
        Ok(())
    }
}

/// A time of a clock that ticks: less than a tick is a moment.
pub(crate) struct Ticked(pub(crate) Duration);

impl fmt::Display for Ticked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_zero() { f.write_str("a moment") } else { write!(f, "{:.1?}", self.0) }
    }
}

/// A connection that is in use: where it was checked out, by which thread, and since when.
///
/// From [`Pool::holders`](crate::Pool::holders), and what an
/// [`Observer`](crate::Observer::leak_suspected) is told of a suspected leak.
///
/// ```
/// # let server = std::net::TcpListener::bind("127.0.0.1:0")?;
/// # let address = server.local_addr()?;
/// let pool = warmline::Pool::tcp();
/// let conn = pool.get(&address)?;
/// let holders = pool.holders();
/// assert_eq!(holders[0].site().line(), line!() - 2);
/// println!("{}", holders[0]);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Holder {
    pub(crate) endpoint: Arc<str>,
    pub(crate) site: &'static Location<'static>,
    pub(crate) thread: ThreadName,
    pub(crate) held: Duration,
}

impl Holder {
    pub(crate) fn new(endpoint: Arc<str>, caller: Caller, held: Duration) -> Self {
        Self { endpoint, site: caller.site, thread: caller.thread_name(), held }
    }

    /// The endpoint, as its key displays itself.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The line of the program that checked it out.
    #[must_use]
    pub const fn site(&self) -> &'static Location<'static> {
        self.site
    }

    /// The name of the thread that checked it out; `None` if it has none. The connection may have
    /// been given to another since.
    #[must_use]
    pub fn thread(&self) -> Option<&str> {
        self.thread.name()
    }

    /// That thread has ended, but the connection has not come back.
    #[must_use]
    pub const fn has_thread_ended(&self) -> bool {
        self.thread.has_ended
    }

    /// For how long it has been out, by a clock that ticks every few milliseconds.
    #[must_use]
    pub const fn held(&self) -> Duration {
        self.held
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { endpoint, site, thread, held } = self;
        write!(f, "{endpoint}: out for {}, since {site} ({thread})", Ticked(*held))
    }
}
