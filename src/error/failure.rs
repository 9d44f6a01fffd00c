//! Attempts to connect that failed: in what way, and how that reads.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::time::Duration;

use crate::error::{BoxError, Phase};
use crate::redact::Redacted;
use crate::sync::Arc;
use crate::sys;

/// What kind of failure kept a connection from being opened.
///
/// ```
/// use warmline::Failure;
///
/// assert_eq!(Failure::Refused.to_string(), "refused");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Failure {
    /// The peer's machine answered that nobody listens there.
    Refused,
    /// No way leads there.
    Unreachable,
    /// Nothing came back within [`connect_timeout`](crate::Builder::connect_timeout).
    Timeout,
    /// The name could not be resolved.
    Dns,
    /// This machine or process ran out of something: descriptors, ports, threads. It says nothing
    /// about the peer.
    Local,
    /// The connector panicked.
    Panic,
    /// Anything else, such as a refused login; the error's source tells.
    Other,
}

impl Failure {
    /// Sorts an error that a socket or a connector reported.
    pub(crate) fn of(error: &(dyn StdError + 'static)) -> Self {
        let Some(io_error) = error.downcast_ref::<io::Error>() else {
            return error.source().map_or(Self::Other, Self::of);
        };
        match (Self::of_io(io_error), io_error.get_ref()) {
            // An error wrapped in an `io::Error` is not its source but what it holds.
            (Self::Other, Some(inner)) => Self::of(inner),
            (failure, _) => failure,
        }
    }

    fn of_io(error: &io::Error) -> Self {
        if sys::is_shortage(error) {
            return Self::Local;
        }
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Self::Unreachable,
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Self::Timeout,
            // Out of ports.
            io::ErrorKind::AddrNotAvailable | io::ErrorKind::AddrInUse => Self::Local,
            _ if sys::lacks_family(error) => Self::Unreachable,
            _ => Self::Other,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::Dns => "dns",
            Self::Local => "local",
            Self::Panic => "panic",
            Self::Other => "other",
        })
    }
}

/// An attempt to connect that failed. Shared by all who waited for it.
pub(crate) struct ConnectFailure {
    pub(crate) failure: Failure,
    pub(crate) phase: Phase,
    pub(crate) took: Duration,
    pub(crate) cause: Arc<dyn StdError + Send + Sync>,
    /// This machine or process has run out of something that idle connections hold. Found when it
    /// is made, since the cause may be a connector's own, whose code must not run under the lock.
    pub(crate) is_shortage: bool,
}

impl ConnectFailure {
    pub(crate) fn new(failure: Failure, phase: Phase, took: Duration, cause: BoxError) -> Self {
        let is_shortage = is_shortage(&*cause);
        Self { failure, phase, took, cause: cause.into(), is_shortage }
    }

    /// An attempt that had not ended by its deadline.
    pub(crate) fn timed_out(phase: Phase, took: Duration) -> Self {
        Self::new(Failure::Timeout, phase, took, "did not end by its deadline".into())
    }

    /// An attempt whose name has no addresses, for a cause that others may share.
    pub(crate) fn unresolved(
        cause: Arc<dyn StdError + Send + Sync>,
        (is_local, is_shortage): (bool, bool),
        took: Duration,
    ) -> Self {
        let failure = if is_local { Failure::Local } else { Failure::Dns };
        Self { failure, phase: Phase::Resolve, took, cause, is_shortage }
    }

    /// An attempt for which no thread came free.
    pub(crate) fn no_thread(took: Duration) -> Self {
        let cause = "no thread of the pool came free for it".into();
        Self::new(Failure::Local, Phase::Queue, took, cause)
    }

    /// An attempt that the thread which had it let fall: a bug here, or the end of that thread.
    pub(crate) fn dropped(took: Duration) -> Self {
        let cause = "the thread of the pool that had it has failed".into();
        Self::new(Failure::Local, Phase::Queue, took, cause)
    }
}

/// True if the system was short of descriptors or memory, as far down as the error tells.
pub(crate) fn is_shortage(error: &(dyn StdError + 'static)) -> bool {
    match error.downcast_ref::<io::Error>() {
        Some(error) => {
            sys::is_shortage(error) || error.get_ref().is_some_and(|inner| is_shortage(inner))
        }
        None => error.source().is_some_and(is_shortage),
    }
}

impl fmt::Display for ConnectFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cause = Redacted(&self.cause);
        write!(f, "{} failed after {:.0?}: {cause}", self.phase, self.took)
    }
}

impl fmt::Debug for ConnectFailure {
    /// The cause as it displays itself: its own `Debug` may show all that it holds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectFailure")
            .field("failure", &self.failure)
            .field("phase", &self.phase)
            .field("took", &self.took)
            .field("cause", &Redacted(&self.cause))
            .finish_non_exhaustive()
    }
}

impl StdError for ConnectFailure {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&*self.cause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn running_out_of_descriptors_is_not_held_against_the_peer() {
        let error = io::Error::from(rustix::io::Errno::MFILE);
        assert_eq!(Failure::of(&error), Failure::Local);
        let deep: BoxError = Box::new(io::Error::other(error));
        assert_eq!(Failure::of(&*deep), Failure::Local);
    }
}
