//! From host names to addresses.

use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use crate::error::BoxError;

/// Looks up the addresses of names.
///
/// A closure `Fn(&str) -> Result<Resolved, BoxError>` is one. The system's own is the default; put
/// to use by a [`Resolver`](crate::Resolver), which remembers the answers.
///
/// # Examples
///
/// ```
/// use std::net::SocketAddr;
/// use warmline::{BoxError, Pool, Resolved, Resolver, TcpConnector};
///
/// fn look_up(name: &str) -> Result<Resolved, BoxError> {
///     match name {
///         "db.internal" => Ok(Resolved::new([SocketAddr::from(([127, 0, 0, 1], 0))])),
///         _ => Err("no such name".into()),
///     }
/// }
///
/// let resolver = Resolver::new(look_up);
/// let pool = Pool::builder(TcpConnector::new()).resolver(&resolver).build()?;
/// # Ok::<(), warmline::Error>(())
/// ```
pub trait Resolve: Send + Sync + 'static {
    /// Looks up one name, as the connector's [`Plan`](crate::Plan) has it: of an
    /// [`Address`](crate::Address) in lower case, without a dot at the end.
    ///
    /// # Blocking
    ///
    /// On a thread of the driver's for look-ups; may block. Whoever waits for the answer gives up
    /// at its own deadline; an answer that comes later is remembered as a rule. A panic is
    /// caught, and is a failure.
    ///
    /// # Errors
    ///
    /// Whatever went wrong; it reaches callers as the source of their error, under
    /// [`Failure::Dns`](crate::Failure::Dns).
    fn resolve(&self, name: &str) -> Result<Resolved, BoxError>;
}

impl<F> Resolve for F
where
    F: Fn(&str) -> Result<Resolved, BoxError> + Send + Sync + 'static,
{
    fn resolve(&self, name: &str) -> Result<Resolved, BoxError> {
        self(name)
    }
}

/// The addresses of a name.
///
/// ```
/// use std::net::SocketAddr;
/// use std::time::Duration;
/// use warmline::Resolved;
///
/// let answer = Resolved::new([SocketAddr::from(([192, 0, 2, 1], 0))]).ttl(Duration::from_secs(5));
/// assert_eq!(answer.addrs().len(), 1);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    addrs: Vec<SocketAddr>,
    ttl: Option<Duration>,
}

impl Resolved {
    /// These addresses, the preferred one first. Port 0 stands for the endpoint's own. None at all
    /// is a failure.
    #[must_use]
    pub fn new(addrs: impl Into<Vec<SocketAddr>>) -> Self {
        Self { addrs: addrs.into(), ttl: None }
    }

    /// For how long the answer holds. Default: what the [`Resolver`](crate::Resolver) says.
    #[must_use]
    pub const fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// The addresses.
    #[must_use]
    pub fn addrs(&self) -> &[SocketAddr] {
        &self.addrs
    }

    pub(crate) const fn own_ttl(&self) -> Option<Duration> {
        self.ttl
    }
}

/// What the system says: its hosts file, its name servers, whatever it is configured to ask.
pub(crate) fn ask_system(name: &str) -> Result<Resolved, BoxError> {
    let addrs = (name, 0).to_socket_addrs()?;
    Ok(Resolved::new(addrs.collect::<Vec<_>>()))
}
