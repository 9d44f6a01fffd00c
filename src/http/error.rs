//! What can go wrong with a request, and how it reads.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::time::Duration;

use ::http::StatusCode;

use crate::error::{BoxError, Error as PoolError, ErrorKind as PoolErrorKind};

/// What went wrong with a request, in one word.
///
/// ```
/// use warmline::http::{Client, ErrorKind};
///
/// let error = Client::new().get("no url").send().unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::Request);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The request makes no sense: its URL, a header, the length of its body. Trying again does not
    /// help.
    Request,
    /// There was no connection for it, and not for want of time: [`Error::pool`] says why.
    Checkout,
    /// The server had closed a reused connection before it answered anything, and a repeat may not be
    /// safe: the server may have seen the request, though in all likelihood it has not.
    Stale,
    /// Something took too long: [`Error::stage`] says what. If that is the wait for a connection,
    /// [`Error::pool`] says more.
    Timeout,
    /// The connection ended, or failed, before the answer was complete.
    Broken,
    /// What the server sent is not HTTP, or not safe to believe.
    Protocol,
    /// The answer is longer than allowed.
    TooLong,
    /// The server redirects for ever, or to what is no place to go to.
    Redirect,
    /// The answer's status is an error, and [asked for](crate::http::RequestBuilder::error_for_status)
    /// to be one: [`Error::status`].
    Status,
    /// The reader that the request's body comes from failed.
    Upload,
}

/// Where a request was when it failed.
///
/// ```
/// use warmline::http::Stage;
///
/// assert_eq!(Stage::Head.to_string(), "waiting for the answer");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stage {
    /// Waiting for a connection: in the queue, for a name, or for a connect.
    Checkout,
    /// Writing the request.
    Write,
    /// Waiting for the answer's head.
    Head,
    /// Reading the answer's body.
    Body,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Checkout => "waiting for a connection",
            Self::Write => "writing the request",
            Self::Head => "waiting for the answer",
            Self::Body => "reading the answer",
        })
    }
}

/// Why a request failed.
///
/// One word large. [`kind`](Error::kind) is for programs. The text is for people: one line, which
/// names the server, where one was talked to, and nothing else of the URL; of a time-out also the
/// time since the request began. The cause is its [`source`](StdError::source).
///
/// ```
/// use warmline::http::{Client, ErrorKind};
///
/// // Port 1 of this machine: nobody listens there.
/// let error = Client::new().get("http://127.0.0.1:1/").send().unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::Checkout);
/// assert_eq!(error.pool().unwrap().kind(), warmline::ErrorKind::Connect);
/// ```
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    stage: Option<Stage>,
    origin: Option<String>,
    waited: Option<Duration>,
    status: Option<StatusCode>,
    message: String,
    source: Option<Source>,
}

enum Source {
    Pool(PoolError),
    Other(BoxError),
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            stage: None,
            origin: None,
            waited: None,
            status: None,
            message: message.into(),
            source: None,
        }))
    }

    pub(crate) fn request(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Request, message)
    }

    /// An error of the pool: of the name that it was given, or of the checkout.
    pub(crate) fn from_pool(error: PoolError) -> Self {
        let kind = match error.kind() {
            PoolErrorKind::Config => return Self::request(error.to_string()),
            PoolErrorKind::Timeout => ErrorKind::Timeout,
            _ => ErrorKind::Checkout,
        };
        let mut this = Self::new(kind, "there was no connection").at(Stage::Checkout);
        this.0.source = Some(Source::Pool(error));
        this
    }

    pub(crate) fn timeout(stage: Stage, waited: Duration) -> Self {
        let mut this = Self::new(ErrorKind::Timeout, format!("{stage} took too long"));
        (this.0.stage, this.0.waited) = (Some(stage), Some(waited));
        this
    }

    pub(crate) fn status_of(status: StatusCode) -> Self {
        let mut this = Self::new(ErrorKind::Status, format!("the server answered {status}"));
        this.0.status = Some(status);
        this
    }

    pub(crate) fn at(mut self, stage: Stage) -> Self {
        self.0.stage = Some(stage);
        self
    }

    pub(crate) fn to(mut self, origin: &impl fmt::Display) -> Self {
        self.0.origin.get_or_insert_with(|| origin.to_string());
        self
    }

    pub(crate) fn because(mut self, source: impl Into<BoxError>) -> Self {
        self.0.source = Some(Source::Other(source.into()));
        self
    }

    /// What went wrong, in one word.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Where the request was, if it had begun.
    #[must_use]
    pub fn stage(&self) -> Option<Stage> {
        self.0.stage
    }

    /// The server, as its [`Origin`](crate::http::Origin) displays itself.
    #[must_use]
    pub fn origin(&self) -> Option<&str> {
        self.0.origin.as_deref()
    }

    /// The status of the answer, if that is what went wrong.
    #[must_use]
    pub fn status(&self) -> Option<StatusCode> {
        self.0.status
    }

    /// The pool's error, if it gave no connection.
    #[must_use]
    pub fn pool(&self) -> Option<&PoolError> {
        match &self.0.source {
            Some(Source::Pool(error)) => Some(error),
            _ => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &self.0;
        f.write_str(&inner.message)?;
        if let Some(origin) = &inner.origin {
            write!(f, " [{origin}]")?;
        }
        if let Some(waited) = inner.waited {
            write!(f, " after {:.1}s", waited.as_secs_f64())?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Error");
        debug.field("kind", &self.0.kind).field("text", &self.to_string());
        if let Some(source) = self.source() {
            debug.field("source", &source.to_string());
        }
        debug.finish_non_exhaustive()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self.0.source.as_ref()? {
            Source::Pool(error) => Some(error),
            Source::Other(error) => Some(&**error),
        }
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match error.kind() {
            ErrorKind::Request | ErrorKind::Redirect => io::ErrorKind::InvalidInput,
            ErrorKind::Timeout => io::ErrorKind::TimedOut,
            ErrorKind::Stale => io::ErrorKind::ConnectionReset,
            ErrorKind::Broken => io::ErrorKind::UnexpectedEof,
            ErrorKind::Protocol | ErrorKind::TooLong => io::ErrorKind::InvalidData,
            _ => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}
