//! What can go wrong, and how it reads.

mod failure;
mod text;
mod verdict;

pub use self::failure::Failure;
pub use self::verdict::Verdict;

pub(crate) use self::failure::{Causes, ConnectFailure, is_shortage};
pub(crate) use self::text::Few;
pub(crate) use self::verdict::{Deadlock, Situation};

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::time::Duration;

use crate::redact::Redacted;
use crate::sync::Arc;

/// The error type of connectors: whatever made opening, settling or checking fail.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// What went wrong, in one word.
///
/// ```
/// use warmline::{ErrorKind, Pool};
///
/// let error = Pool::tcp().get("no-port-here").unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::Config);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The pool is closed, or its last handle is gone.
    Closed,
    /// A setting or a name makes no sense. Trying again does not help.
    Config,
    /// No connection could be opened; [`Error::failure`] says what kind of failure it was.
    Connect,
    /// So many callers wait already that this one was turned away at once.
    Saturated,
    /// The peer had closed a reused connection before it answered anything. For layers that frame
    /// messages and know that a repeat is not safe; the pool itself does not report it.
    Stale,
    /// No connection came free, or became ready, by the deadline.
    Timeout,
    /// Waiting here could never end: the calling thread is the one that would have to act.
    Rejected,
}

/// Where a checkout or an attempt to connect was when it ended.
///
/// ```
/// use warmline::{Phase, Pool};
///
/// let error = Pool::tcp().get("host:0").unwrap_err();
/// assert_eq!(error.phase(), None);
/// assert_eq!(Phase::Resolve.to_string(), "resolve");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// Waiting for a connection, or an attempt to connect for a thread.
    Queue,
    /// Looking up the name.
    Resolve,
    /// Connecting the socket.
    Connect,
    /// In [`Connector::open`](crate::Connector::open).
    Open,
    /// In [`Connector::check`](crate::Connector::check).
    Check,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Queue => "queue",
            Self::Resolve => "resolve",
            Self::Connect => "connect",
            Self::Open => "open",
            Self::Check => "check",
        })
    }
}

/// An endpoint's counts at the moment something went wrong, taken under the lock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) idle: usize,
    pub(crate) in_use: usize,
    pub(crate) connecting: usize,
    pub(crate) checking: usize,
    pub(crate) waiting: usize,
    /// The most the endpoint may have.
    pub(crate) limit: usize,
    /// What all endpoints have together, and may have.
    pub(crate) pool: (usize, usize),
    /// Attempts that never returned and no longer count.
    pub(crate) abandoned: usize,
    /// Attempts that never returned but still hold their permits: too many are out already.
    pub(crate) stuck: usize,
    /// Connections whose connector is not done with closing them, if they are too many to open more.
    pub(crate) closing: usize,
    /// Nothing goes out: the pool is paused.
    pub(crate) is_paused: bool,
}

impl Counts {
    /// Those that exist.
    pub(crate) const fn open(&self) -> usize {
        self.idle + self.in_use + self.checking
    }

    pub(crate) const fn total(&self) -> usize {
        self.idle + self.in_use + self.connecting + self.checking
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}/{}: {} in use, {} idle, {} connecting, {} checking; {} waiting",
            self.total(),
            self.limit,
            self.in_use,
            self.idle,
            self.connecting,
            self.checking,
            self.waiting
        )?;
        if self.pool.0 != self.total() {
            write!(f, "; pool {}/{}", self.pool.0, self.pool.1)?;
        }
        if self.abandoned > 0 {
            write!(f, "; {} abandoned", self.abandoned)?;
        }
        if self.stuck > 0 {
            write!(f, "; {} stuck past their deadline and holding capacity", self.stuck)?;
        }
        if self.closing > 0 {
            write!(f, "; {} are being closed, which takes too long to open more", self.closing)?;
        }
        if self.is_paused {
            f.write_str("; paused")?;
        }
        Ok(())
    }
}

/// Why a checkout, or another call on a pool, failed.
///
/// One word large. [`kind`](Error::kind) is for programs; the text is for people, fits on one line
/// and names the endpoint, how long the caller waited, the counts at that moment, why nobody was
/// served in time ([`verdict`](Error::verdict)) and the last failed attempt to connect, which is
/// also the [`source`](StdError::source). With `{:#}` it has many lines: who has the connections,
/// line by line of the program, what happened meanwhile, and what to do.
///
/// ```
/// use std::time::Duration;
/// use warmline::{ErrorKind, Failure, Pool};
///
/// // Port 1 of this machine: nobody listens there.
/// let error = Pool::tcp().get_timeout("127.0.0.1:1", Duration::from_secs(1)).unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::Connect);
/// assert_eq!(error.failure(), Some(Failure::Refused));
/// assert_eq!(error.endpoint(), Some("127.0.0.1:1"));
/// ```
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    endpoint: Option<Arc<str>>,
    waited: Option<Duration>,
    phase: Option<Phase>,
    counts: Option<Counts>,
    message: String,
    /// Of a time-out: what is known of why.
    situation: Option<Box<Situation>>,
    verdict: Option<Verdict>,
    /// The last failed attempt, and how long ago it ended if that was not just now.
    failure: Option<(Arc<ConnectFailure>, Option<Duration>)>,
}

impl Error {
    fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            endpoint: None,
            waited: None,
            phase: None,
            counts: None,
            message: message.into(),
            situation: None,
            verdict: None,
            failure: None,
        }))
    }

    /// For [`Name`](crate::Name)s and other code that finds a name or a setting wrong.
    #[must_use]
    pub fn config(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Config, Redacted(message.into()).to_string())
    }

    pub(crate) fn closed() -> Self {
        Self::new(ErrorKind::Closed, "the pool is closed")
    }

    pub(crate) fn rejected() -> Self {
        Self::new(
            ErrorKind::Rejected,
            "this thread works for the pool it would wait for; the wait could never end",
        )
    }

    /// The threads that would have to connect could not be started.
    pub(crate) fn driver(cause: io::Error) -> Self {
        let mut error = Self::new(ErrorKind::Connect, "could not start the threads of the pool");
        let (phase, took) = (Phase::Queue, Duration::ZERO);
        let failure = ConnectFailure::new(Failure::Local, phase, took, cause.into());
        error.0.phase = Some(phase);
        error.0.failure = Some((Arc::new(failure), None));
        error
    }

    pub(crate) fn saturated(counts: Counts) -> Self {
        let mut error = Self::new(
            ErrorKind::Saturated,
            "too many callers wait already: max_waiting is reached",
        );
        error.0.phase = Some(Phase::Queue);
        error.0.counts = Some(counts);
        error
    }

    pub(crate) fn connect(
        failure: Arc<ConnectFailure>,
        age: Option<Duration>,
        counts: Counts,
    ) -> Self {
        let mut error = Self::new(ErrorKind::Connect, "could not connect");
        error.0.phase = Some(failure.phase);
        error.0.verdict = Some(Situation::judge_failure(&failure));
        error.0.counts = Some(counts);
        error.0.failure = Some((failure, age));
        error
    }

    /// Nothing came in time.
    pub(crate) fn timeout(
        what: &'static str,
        situation: Box<Situation>,
        failure: Option<(Arc<ConnectFailure>, Duration)>,
    ) -> Self {
        let mut error = Self::new(ErrorKind::Timeout, what);
        error.0.phase = Some(Phase::Queue);
        error.0.counts = Some(situation.counts);
        error.0.situation = Some(situation);
        error.0.failure = failure.map(|(failure, age)| (failure, Some(age)));
        error
    }

    pub(crate) fn at(mut self, endpoint: &Arc<str>) -> Self {
        self.0.endpoint = Some(Arc::clone(endpoint));
        self
    }

    /// How long somebody waited, and hence why in vain.
    pub(crate) fn after(mut self, waited: Duration) -> Self {
        let inner = &mut *self.0;
        inner.waited = Some(waited);
        let failure = inner.failure.as_ref();
        let failure = failure.map(|(failure, age)| (Arc::clone(failure), age.unwrap_or_default()));
        if let Some(situation) = &mut inner.situation {
            situation.look_at_threads();
            inner.verdict = situation.judge(waited, failure.as_ref());
        }
        self
    }

    /// The failed attempt in it, which may hold a connector's own error.
    pub(crate) fn into_failure(self) -> Option<Arc<ConnectFailure>> {
        self.0.failure.map(|(failure, _)| failure)
    }

    /// What went wrong, in one word.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The endpoint it happened at, as its key displays itself, but for
    /// [secrets](crate#secrets).
    #[must_use]
    pub fn endpoint(&self) -> Option<&str> {
        self.0.endpoint.as_deref()
    }

    /// How long the caller waited.
    #[must_use]
    pub fn waited(&self) -> Option<Duration> {
        self.0.waited
    }

    /// Where the checkout, or the attempt it waited for, was when it ended.
    #[must_use]
    pub fn phase(&self) -> Option<Phase> {
        self.0.phase
    }

    /// Why nobody was served in time, as far as the pool can tell: of time-outs, and of attempts to
    /// connect that failed.
    #[must_use]
    pub fn verdict(&self) -> Option<Verdict> {
        self.0.verdict
    }

    /// What kind of failure the last attempt to connect met, if one is part of this error.
    #[must_use]
    pub fn failure(&self) -> Option<Failure> {
        self.0.failure.as_ref().map(|(failure, _)| failure.failure)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("message", &self.to_string())
            .field("source", &self.source())
            .finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        let (failure, _) = self.0.failure.as_ref()?;
        Some(&**failure)
    }
}

impl From<Error> for io::Error {
    /// The kind that comes nearest; the error itself stays reachable through
    /// [`io::Error::get_ref`].
    fn from(error: Error) -> Self {
        let kind = match (error.kind(), error.failure()) {
            (ErrorKind::Timeout, _) | (ErrorKind::Connect, Some(Failure::Timeout)) => {
                io::ErrorKind::TimedOut
            }
            (ErrorKind::Connect, Some(Failure::Refused)) => io::ErrorKind::ConnectionRefused,
            (ErrorKind::Connect, Some(Failure::Unreachable)) => io::ErrorKind::HostUnreachable,
            (ErrorKind::Closed, _) => io::ErrorKind::NotConnected,
            (ErrorKind::Config, _) => io::ErrorKind::InvalidInput,
            (ErrorKind::Saturated, _) => io::ErrorKind::WouldBlock,
            (ErrorKind::Stale, _) => io::ErrorKind::ConnectionAborted,
            (ErrorKind::Connect | ErrorKind::Rejected, _) => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused() -> Arc<ConnectFailure> {
        let cause = io::Error::from(io::ErrorKind::ConnectionRefused);
        let (failure, took) = (Failure::of(&cause), Duration::from_millis(3));
        Arc::new(ConnectFailure::new(failure, Phase::Connect, took, cause.into()))
    }

    #[test]
    fn a_time_out_says_what_how_long_the_counts_and_the_last_attempt() {
        let counts =
            Counts { in_use: 10, limit: 10, waiting: 4, pool: (10, 64), ..Counts::default() };
        let error = Error::timeout(
            "no connection came free",
            counts.into(),
            Some((refused(), Duration::from_secs(1))),
        )
        .at(&Arc::from("10.0.0.7:5432"))
        .after(Duration::from_secs(30));
        let text = error.to_string();
        assert_eq!(
            text,
            "no connection came free [10.0.0.7:5432] within 30.0s (10/10: 10 in use, 0 idle, \
             0 connecting, 0 checking; 4 waiting); slow users: none came back; last attempt, 1s ago: connect failed after 3ms: \
             connection refused"
        );
        assert_eq!(error.failure(), Some(Failure::Refused));
        let source = error.source().and_then(StdError::source).expect("the cause of the attempt");
        assert_eq!(source.to_string(), "connection refused");
    }

    #[test]
    fn an_error_is_one_word_and_turns_into_an_io_error_of_the_nearest_kind() {
        assert_eq!(size_of::<Error>(), size_of::<usize>());
        let error = Error::connect(refused(), None, Counts::default());
        let error = io::Error::from(error);
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
        assert_eq!(inner.map(Error::kind), Some(ErrorKind::Connect));
    }
}
