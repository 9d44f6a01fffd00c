//! The handles: a pool, and one endpoint of it.

mod endpoint;
mod handle;

pub use self::endpoint::Endpoint;

use std::fmt;
use std::time::Duration;

use crate::clock::Deadline;
use crate::config::Config;
use crate::connector::{Connector, TcpConnector};
use crate::core::Stats;
use crate::driver::{Driver, Resolver};
use crate::error::Error;
use crate::guard::PooledConn;
use crate::holder::Holder;
use crate::key::{Name, One};
use crate::pool::handle::{Handle, checkout, request, try_checkout};
use crate::report::{Report, Wait};
use crate::request::Request;
use crate::shared::Shared;
use crate::sync::{Arc, Caller};

/// A pool of connections, to any number of endpoints. Cloning makes a second handle to it.
///
/// Costs plain memory until the first connect, which starts its [`Driver`]: an event loop, a
/// reaper, and crew threads that come and go. When the last handle ([`Pool`] or [`Endpoint`]) is
/// dropped, the pool is [closed](Pool::close). Unless others use the driver, that drop waits for
/// event loop and reaper, which never block.
///
/// A pool that has connected once is of no use in a child process after `fork`: whatever waits
/// there answers [`Closed`](crate::ErrorKind::Closed), and closing and dropping leave the parent's
/// connections as they are.
///
/// # Examples
///
/// ```
/// # let server = std::net::TcpListener::bind("127.0.0.1:0")?;
/// # let address = server.local_addr()?.to_string();
/// use std::time::Duration;
/// use warmline::{Pool, TcpConnector};
///
/// let pool = Pool::builder(TcpConnector::new())
///     .max_per_endpoint(50)
///     .idle_timeout(Duration::from_secs(30))
///     .build()?;
/// let conn = pool.get(&address)?; // "host:port"
/// assert_eq!(pool.stats().in_use(), 1);
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Pool<C: Connector>(Arc<Handle<C>>);

impl Pool<TcpConnector> {
    /// A pool of plain TCP connections with the default settings.
    #[must_use]
    #[expect(clippy::missing_panics_doc, reason = "the defaults fit each other")]
    pub fn tcp() -> Self {
        Self::builder(TcpConnector::new()).build().expect("the defaults fit each other")
    }
}

impl<C: Connector> Pool<C> {
    pub(crate) fn new(shared: Shared<C>, driver: Option<Driver>, resolver: Resolver) -> Self {
        Self(Arc::new(Handle::new(shared, driver, resolver)))
    }

    /// Checks out a connection to the endpoint of that name, waiting for one if need be.
    ///
    /// Prefers the idle connection that was used last, opens another if there is room, and else
    /// waits its turn; takes whatever comes first. Waits for
    /// [`checkout_timeout`](crate::Builder::checkout_timeout) at the most (default 5 s).
    ///
    /// # Blocking
    ///
    /// Until its deadline, on its own hand-over only: never on a connect, a name look-up or the
    /// connector's code, which other threads see to.
    ///
    /// # Errors
    ///
    /// [`Config`](crate::ErrorKind::Config) if the name makes no sense;
    /// [`Connect`](crate::ErrorKind::Connect) if no connection could be opened and none is open;
    /// [`Timeout`](crate::ErrorKind::Timeout) if none came free in time;
    /// [`Saturated`](crate::ErrorKind::Saturated) if too many wait already;
    /// [`Rejected`](crate::ErrorKind::Rejected) on the pool's own threads (in `Connector::open`,
    /// say); [`Closed`](crate::ErrorKind::Closed).
    #[doc(alias = "acquire")]
    #[inline(always)]
    #[track_caller]
    pub fn get<N: Name<C::Key> + ?Sized>(&self, name: &N) -> Result<PooledConn<C>, Error> {
        let home = self.0.shared.find(name)?;
        checkout(&self.0, home, None, Caller::here())
    }

    /// Like [`get`](Pool::get), with a time-out of its own.
    ///
    /// # Blocking
    ///
    /// As [`get`](Pool::get), for `timeout` at the most.
    ///
    /// # Errors
    ///
    /// As [`get`](Pool::get).
    #[inline(always)]
    #[track_caller]
    pub fn get_timeout<N: Name<C::Key> + ?Sized>(
        &self,
        name: &N,
        timeout: Duration,
    ) -> Result<PooledConn<C>, Error> {
        let home = self.0.shared.find(name)?;
        checkout(&self.0, home, Some(timeout), Caller::here())
    }

    /// Checks out an idle connection, if there is one. Never waits, never connects.
    ///
    /// If all that are idle need a check first ([`Connector::check`]), starts one and returns
    /// `None`.
    ///
    /// # Errors
    ///
    /// [`Config`](crate::ErrorKind::Config) if the name makes no sense.
    #[track_caller]
    pub fn try_get<N: Name<C::Key> + ?Sized>(
        &self,
        name: &N,
    ) -> Result<Option<PooledConn<C>>, Error> {
        let caller = Caller::here();
        let home = self.0.shared.find_known(name)?;
        Ok(home.and_then(|home| try_checkout(&self.0, home, caller)))
    }

    /// Begins a checkout to be awaited later, beside other things: see [`Request`].
    ///
    /// Never waits. Takes an idle connection if there is one, opens another if there is room, and
    /// else waits its turn beside blocked callers, until it is answered or dropped.
    ///
    /// # Errors
    ///
    /// What is known at once, as [`get`](Pool::get): [`Config`](crate::ErrorKind::Config),
    /// [`Saturated`](crate::ErrorKind::Saturated), [`Rejected`](crate::ErrorKind::Rejected),
    /// [`Closed`](crate::ErrorKind::Closed), and [`Connect`](crate::ErrorKind::Connect) if an
    /// attempt failed a moment ago. Everything else arrives as the answer.
    #[track_caller]
    pub fn request<N: Name<C::Key> + ?Sized>(&self, name: &N) -> Result<Request<C>, Error> {
        let home = self.0.shared.find(name)?;
        request(&self.0, home, Caller::here())
    }

    /// A handle to one endpoint: saves looking up its name, and keeps the pool open.
    ///
    /// If [`min_idle`](crate::Builder::min_idle) is set, for all endpoints or for
    /// [this one](Endpoint::set_limits), connections begin to be opened.
    ///
    /// # Errors
    ///
    /// [`Config`](crate::ErrorKind::Config) if the name makes no sense;
    /// [`Closed`](crate::ErrorKind::Closed).
    pub fn endpoint<N: Name<C::Key> + ?Sized>(&self, name: &N) -> Result<Endpoint<C>, Error> {
        let home = self.0.shared.find(name)?;
        if self.0.shared.keeps(&home) {
            self.0.start()?;
            self.0.shared.keep(&home);
        }
        Ok(Endpoint { home, handle: Arc::clone(&self.0) })
    }

    /// The counts over all endpoints, at this moment.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.0.shared.stats(None)
    }

    /// The settings in force, as they were given last.
    ///
    /// See [`reconfigure`](Pool::reconfigure) for an example.
    pub fn config(&self) -> Config {
        self.0.shared.config()
    }

    /// Puts other settings in force while the pool is in use: all that `config` says, and for all
    /// that it does not say, the defaults. To change one, set it on [`config`](Pool::config). Name
    /// and [`portable_watch`](crate::Builder::portable_watch) stay as they are.
    ///
    /// Where limits rise, whoever waits is served at once. Where they fall, what is idle beyond
    /// them is closed at once, that first which was used longest ago, and what is in use or being
    /// opened when it comes ([`Surplus`](crate::CloseReason::Surplus)); nobody who waits is turned
    /// away. A new lifetime holds for connections that are there, too: they retire as if they had
    /// been opened under it. New time-outs hold for whatever begins from now on. Endpoints keep
    /// [limits of their own](Endpoint::set_limits); what these do not say follows the new settings.
    ///
    /// From any thread, at any time, also before the first connect and while the pool is
    /// [paused](Pool::pause). Does not wait.
    ///
    /// # Errors
    ///
    /// [`Config`](crate::ErrorKind::Config) as [`build`](crate::Builder::build), and if the name or
    /// `portable_watch` would change, or the limits that an endpoint has of its own conflict with
    /// the new ones: all is as it was then. [`Closed`](crate::ErrorKind::Closed).
    /// [`Connect`](crate::ErrorKind::Connect) if connections are to be kept ready and no thread
    /// could be started for that.
    ///
    /// # Examples
    ///
    /// ```
    /// use warmline::Pool;
    ///
    /// let pool = Pool::tcp();
    /// pool.reconfigure(pool.config().max_per_endpoint(8).max_waiting(100))?;
    /// assert!(pool.reconfigure(pool.config().max_total(4)).is_err()); // less than one endpoint's
    /// assert_eq!(pool.config(), warmline::Config::new().max_per_endpoint(8).max_waiting(100));
    /// # Ok::<(), warmline::Error>(())
    /// ```
    pub fn reconfigure(&self, config: Config) -> Result<(), Error> {
        let shared = &self.0.shared;
        if shared.is_closed() || self.0.is_orphaned() {
            return Err(Error::closed());
        }
        let settings = config.settle_for(&shared.settings)?;
        if settings.limits.min_idle > 0 {
            self.0.start()?;
        }
        shared.reconfigure(config, settings)
    }

    /// Who has connections at this moment: where they were checked out, by which thread, and since
    /// when; those first that have been out for longest.
    ///
    /// # Examples
    ///
    /// ```
    /// # let server = std::net::TcpListener::bind("127.0.0.1:0")?;
    /// # let address = server.local_addr()?;
    /// use warmline::Pool;
    ///
    /// let pool = Pool::tcp();
    /// let conn = pool.get(&address)?;
    /// for holder in pool.holders() {
    ///     println!("{holder}"); // 127.0.0.1:…: out for a moment, since src/main.rs:7:17 (thread main)
    /// }
    /// # assert_eq!(pool.holders()[0].endpoint(), address.to_string());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[must_use]
    pub fn holders(&self) -> Vec<Holder> {
        self.0.shared.holders()
    }

    /// The latest checkouts that had to wait for 10 ms or longer, or in vain: 64 at the most, the
    /// newest last.
    #[must_use]
    pub fn recent_waits(&self) -> Vec<Wait> {
        self.0.shared.recent_waits()
    }

    /// How the pool does, on a page of plain text for whoever is on call: what to do, how things
    /// stand, the settings beside what was observed, who has connections, recent errors and waits.
    ///
    /// It is gathered piece by piece, so that the pool's lock is never held for long; the pieces are
    /// from different moments. A thousand endpoints with eight thousand connections take a few
    /// milliseconds.
    #[must_use]
    pub fn report(&self) -> Report {
        self.0.shared.report()
    }

    /// Ends all connections: idle ones now, those in use when they come back. New ones take their
    /// place as they are needed.
    pub fn evict_all(&self) {
        if self.0.is_orphaned() {
            return;
        }
        for home in self.0.shared.all_homes() {
            self.0.shared.evict(&home);
        }
    }

    /// Hands out nothing until it [resumes](Pool::resume): while the server is moved, say, or its
    /// schema changed. Whoever asks waits, within his time; the error of one whose time ends says
    /// that the pool is paused. [`try_get`](Pool::try_get) finds nothing.
    ///
    /// What is in use may be used on and comes back as ever; connections are kept ready, checked
    /// and closed as ever, and [`evict_all`](Pool::evict_all) ends those that were opened before.
    ///
    /// From any thread, at any time. Does nothing the second time: pauses do not add up.
    ///
    /// ```
    /// use std::time::Duration;
    /// use warmline::{ErrorKind, Pool};
    ///
    /// # let server = std::net::TcpListener::bind("127.0.0.1:0")?;
    /// # let address = server.local_addr()?;
    /// let pool = Pool::tcp();
    /// drop(pool.get(&address)?);
    /// pool.pause();
    /// let error = pool.get_timeout(&address, Duration::from_millis(5)).unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::Timeout);
    /// pool.resume();
    /// pool.get(&address)?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn pause(&self) {
        if !self.0.is_orphaned() {
            self.0.shared.pause();
        }
    }

    /// Hands out connections again: first to those who wait, in their order. Does nothing unless
    /// the pool is paused.
    pub fn resume(&self) {
        if !self.0.is_orphaned() {
            self.0.shared.resume();
        }
    }

    /// Whether it hands out nothing at this moment. A closed pool keeps the answer it had.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.stats().is_paused()
    }

    /// Ends the pool: no more checkouts, whoever waits gets [`Closed`](crate::ErrorKind::Closed)
    /// at once, idle connections are closed, those in use when they come back.
    ///
    /// Does nothing the second time. Does not wait; see [`drain`](Pool::drain).
    pub fn close(&self) {
        if !self.0.is_orphaned() {
            self.0.shared.close();
        }
    }

    /// [Closes](Pool::close) the pool and waits until every connection has come back and is closed.
    ///
    /// # Blocking
    ///
    /// On the users of connections and on the connector's `close`, until `deadline` at the most.
    ///
    /// # Errors
    ///
    /// [`Timeout`](crate::ErrorKind::Timeout) if some were still out at the deadline: the pool is
    /// closed all the same, and they are closed when they come back.
    /// [`Rejected`](crate::ErrorKind::Rejected) on the pool's own threads.
    pub fn drain(&self, deadline: Deadline) -> Result<(), Error> {
        if self.0.is_orphaned() {
            return Err(Error::closed());
        }
        self.close();
        if crate::sync::must_not_wait_for(self.0.shared.id) {
            return Err(Error::rejected());
        }
        self.0.shared.await_end(deadline)?;
        let is_joined = self.0.tie.get().is_none_or(|tie| tie.await_crew(deadline));
        if is_joined {
            return Ok(());
        }
        let counts = self.stats().counts;
        Err(Error::timeout("the connector's calls had not returned", counts.into(), None))
    }
}

impl<C: Connector<Key = One>> Pool<C> {
    /// The one endpoint of a connector that has one.
    ///
    /// # Errors
    ///
    /// [`Closed`](crate::ErrorKind::Closed); [`Config`](crate::ErrorKind::Config) if the
    /// connector's plan makes no sense.
    pub fn only(&self) -> Result<Endpoint<C>, Error> {
        self.endpoint(&One)
    }
}

impl<C: Connector> Clone for Pool<C> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<C: Connector> fmt::Debug for Pool<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("name", &self.0.shared.settings.name)
            .field("limits", &self.0.shared.limits())
            .finish_non_exhaustive()
    }
}
