//! Waits that took long.

use std::fmt;
use std::panic::Location;
use std::time::Duration;

use crate::clock::Stamp;
use crate::error::{ErrorKind, Few, Verdict};
use crate::report::Cause;
use crate::sync::{Arc, Caller, ThreadName};

/// A checkout that had to wait for ten milliseconds or longer, or in vain.
///
/// From [`Pool::recent_waits`](crate::Pool::recent_waits).
///
/// ```
/// # let pool = warmline::Pool::tcp();
/// for wait in pool.recent_waits() {
///     println!("{wait}");
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Wait {
    pub(crate) endpoint: Arc<str>,
    pub(crate) at: Stamp,
    pub(crate) waited: Duration,
    pub(crate) ahead: Option<usize>,
    pub(crate) caller: Caller,
    pub(crate) end: End,
}

/// How a wait ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// With a connection that came back.
    Returned,
    /// With one that was opened.
    Opened,
    Failed(ErrorKind, Option<Cause>),
}

impl Wait {
    /// Shorter ones are not noted, unless they were in vain.
    pub(crate) const LEAST: Duration = Duration::from_millis(10);

    /// The endpoint, as its key displays itself.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// When it ended (monotonic clock).
    #[must_use]
    pub const fn at(&self) -> Stamp {
        self.at
    }

    /// How long it took.
    #[must_use]
    pub const fn waited(&self) -> Duration {
        self.waited
    }

    /// How many waited before it when it began; `None` for a [`Request`](crate::Request).
    #[must_use]
    pub const fn ahead(&self) -> Option<usize> {
        self.ahead
    }

    /// The line of the program that asked.
    #[must_use]
    pub const fn site(&self) -> &'static Location<'static> {
        self.caller.site
    }

    /// The name of the thread that asked; `None` if it has none.
    #[must_use]
    pub fn thread(&self) -> Option<String> {
        self.caller.thread_name().name().map(str::to_owned)
    }

    /// The kind of error it ended with; `None` if it ended with a connection.
    #[must_use]
    pub const fn error(&self) -> Option<ErrorKind> {
        match &self.end {
            End::Failed(kind, _) => Some(*kind),
            End::Returned | End::Opened => None,
        }
    }

    /// Why it was in vain, as far as the pool could tell.
    #[must_use]
    pub fn verdict(&self) -> Option<Verdict> {
        self.cause().map(|(verdict, _)| *verdict)
    }

    pub(crate) fn cause(&self) -> Option<&Cause> {
        match &self.end {
            End::Failed(_, cause) => cause.as_ref(),
            End::Returned | End::Opened => None,
        }
    }
}

impl fmt::Display for Wait {
    /// One line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {:.1?}", self.endpoint, self.waited)?;
        if let Some(ahead) = self.ahead.filter(|&ahead| ahead > 0) {
            write!(f, " behind {}", Few(ahead, "other", "others"))?;
        }
        match &self.end {
            End::Returned => f.write_str(" for one that came back")?,
            End::Opened => f.write_str(" for one to be opened")?,
            End::Failed(kind, None) => write!(f, " in vain ({kind:?})")?,
            End::Failed(kind, Some((verdict, _))) => write!(f, " in vain ({kind:?}, {verdict})")?,
        }
        write!(f, ", at {} ({})", self.caller.site, ThreadName::then(self.caller.thread, false))
    }
}
