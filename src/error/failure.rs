//! Attempts to connect that failed: in what way, and how that reads.

use std::error::Error as StdError;
use std::fmt::{self, Write};
use std::io;
use std::iter::successors;
use std::time::Duration;

use crate::error::{BoxError, Phase};
use crate::redact::{Redacted, cut};
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
    /// What the cause says, without secrets.
    pub(crate) fn said(&self) -> Redacted<Causes<'_>> {
        Redacted(Causes(&*self.cause))
    }

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

/// An error, and what its causes add: many say no more than "db error", and leave the rest to those.
pub(crate) struct Causes<'e>(pub(crate) &'e (dyn StdError + 'static));

/// Longer texts are cut, in bytes.
const LONGEST: usize = 8 << 10;

impl Causes<'_> {
    /// More causes than an error has whose causes do not go round in circles.
    pub(crate) const MOST: usize = 16;

    /// What one error says, or its beginning, should there be no end to it.
    pub(crate) fn text_of(error: &dyn StdError) -> String {
        let mut text = Limited(String::new());
        let _is_cut = write!(text, "{error}").is_err();
        text.0
    }
}

impl fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = Self::text_of(self.0);
        for cause in successors(self.0.source(), |&cause| cause.source()).take(Self::MOST) {
            let text = Self::text_of(cause);
            if !said.contains(&text) {
                said = said + ": " + &text;
            }
        }
        f.write_str(&said)
    }
}

/// A text that comes to an end.
struct Limited(String);

impl fmt::Write for Limited {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let fits = cut(text, LONGEST.saturating_sub(self.0.len()));
        self.0.push_str(fits);
        if fits.len() < text.len() { Err(fmt::Error) } else { Ok(()) }
    }
}

impl fmt::Display for ConnectFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cause = self.said();
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
            .field("cause", &self.said())
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

    #[derive(Debug)]
    struct Layer(&'static str, Option<BoxError>);

    impl fmt::Display for Layer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl StdError for Layer {
        fn source(&self) -> Option<&(dyn StdError + 'static)> {
            self.1.as_deref().map(|source| source as _)
        }
    }

    #[test]
    fn what_an_error_leaves_to_its_causes_is_said_and_nothing_is_said_twice() {
        let said = |error: Layer| Causes(&error).to_string();
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused).into();
        let deep = Layer("db error", Some(Layer("no such user", Some(refused())).into()));
        assert_eq!(said(deep), "db error: no such user: connection refused");
        let told = "could not connect: connection refused";
        assert_eq!(said(Layer(told, Some(refused()))), told);
        assert_eq!(said(Layer("alone", None)), "alone");
    }

    #[test]
    fn an_error_that_never_comes_to_an_end_is_cut() {
        #[derive(Debug)]
        struct Endless;
        impl fmt::Display for Endless {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                loop {
                    f.write_str("and so on ")?;
                }
            }
        }
        impl StdError for Endless {
            fn source(&self) -> Option<&(dyn StdError + 'static)> {
                Some(self)
            }
        }
        let text = Causes(&Endless).to_string();
        assert!((LONGEST..LONGEST + 20).contains(&text.len()), "{}", text.len());
    }

    #[test]
    fn running_out_of_descriptors_is_not_held_against_the_peer() {
        let error = io::Error::from(rustix::io::Errno::MFILE);
        assert_eq!(Failure::of(&error), Failure::Local);
        let deep: BoxError = Box::new(io::Error::other(error));
        assert_eq!(Failure::of(&*deep), Failure::Local);
    }
}
