//! The handle to one endpoint.

use std::fmt;
use std::time::Duration;

use crate::config::EndpointLimits;
use crate::connector::Connector;
use crate::core::Stats;
use crate::error::Error;
use crate::guard::PooledConn;
use crate::key::One;
use crate::pool::Pool;
use crate::pool::handle::{Handle, checkout, checkout_patiently, request, try_checkout};
use crate::request::Request;
use crate::shared::Home;
use crate::sync::{Arc, Caller};

/// One endpoint of a pool. Cloning makes a second handle to it.
///
/// Keeps the pool open. For hot paths: a checkout through it looks up no name.
///
/// # Examples
///
/// ```
/// # let server = std::net::TcpListener::bind("127.0.0.1:0")?;
/// # let address = server.local_addr()?;
/// use std::time::Duration;
/// use warmline::{Address, Pool};
///
/// let endpoint = Pool::tcp().endpoint(&address)?;
/// assert_eq!(endpoint.warm(3, Duration::from_secs(1))?, 3);
/// let conn = endpoint.get()?;
/// assert_eq!((endpoint.stats().idle(), endpoint.stats().in_use()), (2, 1));
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Endpoint<C: Connector> {
    pub(super) home: Arc<Home<C>>,
    pub(super) handle: Arc<Handle<C>>,
}

impl<C: Connector> Endpoint<C> {
    /// Checks out a connection, waiting for one if need be. See [`Pool::get`].
    ///
    /// # Blocking
    ///
    /// As [`Pool::get`].
    ///
    /// # Errors
    ///
    /// As [`Pool::get`], but for the name.
    #[doc(alias = "acquire")]
    #[inline(always)]
    #[track_caller]
    pub fn get(&self) -> Result<PooledConn<C>, Error> {
        checkout(&self.handle, Arc::clone(&self.home), None, Caller::here())
    }

    /// Like [`get`](Endpoint::get), with a time-out of its own.
    ///
    /// # Blocking
    ///
    /// As [`Pool::get`], for `timeout` at the most.
    ///
    /// # Errors
    ///
    /// As [`get`](Endpoint::get).
    #[inline(always)]
    #[track_caller]
    pub fn get_timeout(&self, timeout: Duration) -> Result<PooledConn<C>, Error> {
        checkout(&self.handle, Arc::clone(&self.home), Some(timeout), Caller::here())
    }

    /// Checks out an idle connection, if there is one. Never waits, never connects. See
    /// [`Pool::try_get`].
    #[must_use]
    #[track_caller]
    pub fn try_get(&self) -> Option<PooledConn<C>> {
        try_checkout(&self.handle, Arc::clone(&self.home), Caller::here())
    }

    /// Begins a checkout to be awaited later. See [`Pool::request`].
    ///
    /// # Errors
    ///
    /// As [`Pool::request`], but for the name.
    #[track_caller]
    pub fn request(&self) -> Result<Request<C>, Error> {
        request(&self.handle, Arc::clone(&self.home), Caller::here())
    }

    /// Gives this endpoint limits of its own, in place of those it had before.
    ///
    /// They hold from now on, for as long as the pool lives; what they do not say follows the
    /// pool's settings, also when [those change](Pool::reconfigure). If they fall, what is idle
    /// beyond them is closed at once, what is in use when it comes back
    /// ([`Surplus`](crate::CloseReason::Surplus)); if they rise, whoever waits is served.
    /// [`EndpointLimits::new`] takes them away again.
    ///
    /// # Errors
    ///
    /// [`Config`](crate::ErrorKind::Config) if they contradict each other or the pool's: those that
    /// were in force stay. [`Closed`](crate::ErrorKind::Closed).
    /// [`Connect`](crate::ErrorKind::Connect) if connections are to be kept ready and no thread
    /// could be started for that.
    pub fn set_limits(&self, limits: EndpointLimits) -> Result<(), Error> {
        let shared = &self.handle.shared;
        let caps = shared.settle_limits(limits)?;
        if shared.is_closed() || self.handle.is_orphaned() {
            return Err(Error::closed());
        }
        if caps.min_idle > 0 {
            self.handle.start()?;
        }
        shared.set_limits(&self.home, limits)
    }

    /// Notes that the server has told for how long it lets connections be idle: in a `Keep-Alive:
    /// timeout=` of HTTP, say.
    ///
    /// From now on they are closed, and not handed out, a fifth of that time before (a tenth, or a
    /// second, if it is 5 s or more; twice the time to connect if that is more, but never more than
    /// half). Without being told the pool learns the limit from the connections that the server
    /// closes: eight must agree, fewer than half of those that were idle may have been closed
    /// together, and it must have gone on accepting others; what is learned is forgotten slowly when
    /// nothing confirms it. Of what was told and what was learned the shorter counts.
    /// [`Stats::idle_limit`] says what is in force.
    ///
    /// ```
    /// # let server = std::net::TcpListener::bind("127.0.0.1:0")?;
    /// use std::time::Duration;
    /// use warmline::Pool;
    ///
    /// let endpoint = Pool::tcp().endpoint(&server.local_addr()?)?;
    /// endpoint.note_idle_limit(Duration::from_secs(20));
    /// assert_eq!(endpoint.stats().idle_limit(), Some(Duration::from_secs(18)));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn note_idle_limit(&self, limit: Duration) {
        if !self.handle.is_orphaned() {
            self.handle.shared.note_idle_limit(&self.home, limit);
        }
    }

    /// Opens connections ahead of need, until `count` are open (idle, in use or being checked).
    ///
    /// Returns how many are: fewer than `count` if the limits, the deadline or failures came first.
    /// It closes nobody's idle connections to make room; with none open, it waits for room that
    /// others have under `max_total`, behind all callers that wait for a connection.
    ///
    /// # Blocking
    ///
    /// Until they are open, for `timeout` at the most.
    ///
    /// # Errors
    ///
    /// Only if none is open: [`Connect`](crate::ErrorKind::Connect),
    /// [`Timeout`](crate::ErrorKind::Timeout), [`Closed`](crate::ErrorKind::Closed),
    /// [`Rejected`](crate::ErrorKind::Rejected).
    pub fn warm(&self, count: usize, timeout: Duration) -> Result<usize, Error> {
        self.handle.start()?;
        self.home.warm(count, timeout)
    }

    /// Opens connections ahead of need, and insists: waits until `count` are open, and is an error
    /// if they are not in time. For a program that is not to start without them.
    ///
    /// Failed attempts are followed by others. Only where callers are to
    /// [learn of failures at once](crate::Builder::fail_fast), and none is open, the first ends it.
    ///
    /// ```
    /// # let server = std::net::TcpListener::bind("127.0.0.1:0")?;
    /// # let address = server.local_addr()?;
    /// use std::time::Duration;
    /// use warmline::{Pool, TcpConnector};
    ///
    /// // A server that is still starting is waited for.
    /// let pool = Pool::builder(TcpConnector::new()).fail_fast(false).build()?;
    /// let endpoint = pool.endpoint(&address)?;
    /// endpoint.warm_all(3, Duration::from_secs(10))?;
    /// assert_eq!(endpoint.stats().idle(), 3);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Blocking
    ///
    /// Until they are open, for `timeout` at the most.
    ///
    /// # Errors
    ///
    /// [`Config`](crate::ErrorKind::Config), at once, if the limits do not allow so many. If fewer
    /// are open: as [`warm`](Endpoint::warm), of which [`Timeout`](crate::ErrorKind::Timeout) says
    /// what the last attempt met.
    pub fn warm_all(&self, count: usize, timeout: Duration) -> Result<(), Error> {
        self.handle.start()?;
        self.home.warm_all(count, timeout)
    }

    /// Ends the endpoint's connections: idle ones now, those in use when they come back.
    pub fn evict(&self) {
        if !self.handle.is_orphaned() {
            self.handle.shared.evict(&self.home);
        }
    }

    /// The endpoint's counts, at this moment.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.handle.shared.stats(Some(&self.home))
    }

    #[cfg(test)]
    pub(crate) fn told(&self) -> usize {
        self.handle.shared.told(&self.home)
    }

    /// A checkout that no outage ends before its deadline.
    #[track_caller]
    pub(crate) fn get_patiently(&self, timeout: Duration) -> Result<PooledConn<C>, Error> {
        checkout_patiently(&self.handle, Arc::clone(&self.home), timeout, Caller::here())
    }

    pub(crate) fn checkout_timeout(&self) -> Duration {
        self.handle.shared.checkout_timeout()
    }

    /// What tells this endpoint apart from others.
    #[must_use]
    pub fn key(&self) -> &C::Key {
        &self.home.key
    }

    /// A handle to the pool that this is an endpoint of.
    #[must_use]
    pub fn pool(&self) -> Pool<C> {
        Pool(Arc::clone(&self.handle))
    }
}

impl<C: Connector<Key = One>> Endpoint<C> {
    /// A pool of its own, with the default settings, for a connector that has one endpoint.
    ///
    /// For other settings: `Pool::builder(connector)…build()?.only()?`.
    ///
    /// # Errors
    ///
    /// [`Config`](crate::ErrorKind::Config) if the connector's plan makes no sense (a host without
    /// a name, say).
    pub fn of(connector: C) -> Result<Self, Error> {
        Pool::builder(connector).build()?.only()
    }
}

impl<C: Connector> Clone for Endpoint<C> {
    fn clone(&self) -> Self {
        Self { home: Arc::clone(&self.home), handle: Arc::clone(&self.handle) }
    }
}

impl<C: Connector> fmt::Debug for Endpoint<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("key", &self.home.label)
            .field("pool", &self.handle.shared.settings.name)
            .finish_non_exhaustive()
    }
}
