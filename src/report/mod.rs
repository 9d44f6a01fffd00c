//! A page about a pool, for whoever is on call.

mod advice;
mod page;
mod wait;

pub use self::wait::Wait;

pub(crate) use self::wait::End;

use std::time::Duration;

use crate::clock::Stamp;
use crate::config::{Caps, Limits};
use crate::core::{Load, Stats};
use crate::error::Verdict;
use crate::holder::Group;
use crate::sync::Arc;

/// How a pool does, on one page of plain text.
///
/// From [`Pool::report`](crate::Pool::report). Its text ([`Display`](std::fmt::Display)) says what
/// to do, if anything; how things stand; the settings beside what was observed; who has
/// connections, line by line of the program; the endpoints, those in trouble first; the latest
/// errors and long waits. How it is worded is no promise: what programs want to know is in
/// [`Stats`].
///
/// ```
/// # let server = std::net::TcpListener::bind("127.0.0.1:0")?;
/// # let address = server.local_addr()?;
/// let pool = warmline::Pool::tcp();
/// let conn = pool.get(&address)?;
/// println!("{}", pool.report());
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Report {
    pub(crate) name: String,
    pub(crate) checkout_timeout: Duration,
    /// In force at this moment; none in a child process that cannot look.
    pub(crate) limits: Option<Limits>,
    /// How long ago the pool was made.
    pub(crate) age: Duration,
    pub(crate) at: Stamp,
    pub(crate) stats: Stats,
    pub(crate) is_closed: bool,
    /// The endpoints to be told of, those in trouble first.
    pub(crate) rows: Vec<Row>,
    pub(crate) endpoints: usize,
    pub(crate) holders: Vec<Group>,
    pub(crate) errors: Vec<RecentError>,
    pub(crate) waits: Vec<Wait>,
    pub(crate) lock_held: Duration,
}

/// Endpoints that a page tells of.
pub(crate) const MOST_ROWS: usize = 20;

/// A verdict, and its figures in words.
pub(crate) type Cause = (Verdict, String);

/// One endpoint.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) endpoint: Arc<str>,
    /// Its place in the core.
    pub(crate) place: u32,
    pub(crate) stats: Stats,
    pub(crate) caps: Caps,
    pub(crate) load: Load,
    pub(crate) needed: Option<usize>,
    /// Its last attempt failed, and nothing is open: why.
    pub(crate) is_out: Option<Verdict>,
    /// Of whoever has waited longest: for how long, and why.
    pub(crate) trouble: Option<(Duration, Option<Cause>)>,
}

impl Row {
    /// Those with more come first.
    pub(crate) fn urgency(&self) -> impl Ord + use<> {
        let stats = &self.stats;
        let trouble =
            (stats.waiting(), self.is_out.is_some(), stats.timed_out(), stats.connects_failed());
        (trouble, stats.in_use(), stats.checkouts())
    }
}

/// An error of late, and how often.
#[derive(Clone, Debug)]
pub(crate) struct RecentError {
    pub(crate) endpoint: Arc<str>,
    pub(crate) text: String,
    /// When the text was made.
    pub(crate) text_at: Stamp,
    pub(crate) count: u64,
    pub(crate) last: Stamp,
}

impl Report {
    /// The longest that the pool's lock was held at a time to gather this.
    #[must_use]
    pub const fn lock_held(&self) -> Duration {
        self.lock_held
    }
}
