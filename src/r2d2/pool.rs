//! r2d2's pool and guard.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use ::r2d2::{Extensions, ManageConnection};

use crate::clock::{self, Deadline, Stamp};
use crate::config::{self, Config};
use crate::core::Stats;
use crate::error::{Error, ErrorKind};
use crate::guard::PooledConn;
use crate::pool::Endpoint;
use crate::r2d2::builder::Builder;
use crate::r2d2::event::{CheckinEvent, CheckoutEvent, HandleEvent, TimeoutEvent};
use crate::r2d2::hooked::{Hooked, told};
use crate::report::Report;
use crate::sync::Arc;

/// A pool with r2d2's names, of what one manager opens. Cloning makes a second handle to it.
///
/// [The module](super) says what is otherwise than in r2d2.
///
/// # Examples
///
/// ```
/// use std::io;
/// use warmline::r2d2;
/// # struct Manager;
/// # impl r2d2::ManageConnection for Manager {
/// #     type Connection = Vec<u8>;
/// #     type Error = io::Error;
/// #     fn connect(&self) -> io::Result<Vec<u8>> { Ok(Vec::new()) }
/// #     fn is_valid(&self, _: &mut Vec<u8>) -> io::Result<()> { Ok(()) }
/// #     fn has_broken(&self, _: &mut Vec<u8>) -> bool { false }
/// # }
///
/// let pool = r2d2::Pool::builder().max_size(4).min_idle(Some(1)).build(Manager)?;
/// let threads: Vec<_> = (0..8)
///     .map(|number| {
///         let pool = pool.clone();
///         std::thread::spawn(move || pool.get().unwrap().push(number))
///     })
///     .collect();
/// # threads.into_iter().for_each(|thread| thread.join().unwrap());
/// assert!((1..=4).contains(&pool.state().connections));
/// # Ok::<(), r2d2::Error>(())
/// ```
pub struct Pool<M: ManageConnection> {
    pub(super) endpoint: Endpoint<Hooked<M>>,
    pub(super) event_handler: Option<Arc<dyn HandleEvent>>,
    pub(super) min_idle: Option<u32>,
    pub(super) test_on_check_out: bool,
}

impl<M: ManageConnection> Pool<M> {
    /// A pool with the default settings, once its connections are open.
    ///
    /// # Blocking
    ///
    /// As [`Builder::build`].
    ///
    /// # Errors
    ///
    /// As [`Builder::build`].
    pub fn new(manager: M) -> Result<Self, Error> {
        Self::builder().build(manager)
    }

    /// Makes a pool with other settings.
    pub fn builder() -> Builder<M> {
        Builder::new()
    }

    /// Checks out a connection, waiting for one if need be.
    ///
    /// # Blocking
    ///
    /// For [`connection_timeout`](Builder::connection_timeout) at the most, whatever the manager
    /// does.
    ///
    /// # Errors
    ///
    /// [`Timeout`](ErrorKind::Timeout), which says why and has the last failed attempt as its
    /// source; [`Saturated`](ErrorKind::Saturated) if too many wait; [`Closed`](ErrorKind::Closed).
    #[track_caller]
    pub fn get(&self) -> Result<PooledConnection<M>, Error> {
        self.get_timeout(self.connection_timeout())
    }

    /// The same, with a time-out of its own.
    ///
    /// # Blocking
    ///
    /// For `timeout` at the most.
    ///
    /// # Errors
    ///
    /// As [`get`](Pool::get).
    #[track_caller]
    pub fn get_timeout(&self, timeout: Duration) -> Result<PooledConnection<M>, Error> {
        let Some(handler) = &self.event_handler else {
            return Ok(PooledConnection::untold(self.endpoint.get_timeout(timeout)?));
        };
        let began = clock::mono();
        match self.endpoint.get_timeout(timeout) {
            Ok(conn) => Ok(PooledConnection::told(conn, handler, began)),
            Err(error) => {
                if error.kind() == ErrorKind::Timeout {
                    told(&**handler, |handler| handler.handle_timeout(TimeoutEvent { timeout }));
                }
                Err(error)
            }
        }
    }

    /// Checks out an idle connection, if there is one.
    ///
    /// # Blocking
    ///
    /// If all that are idle are to be tested first: for one test, or until
    /// [`check_timeout`](crate::Builder::check_timeout), and no longer than [`get`](Pool::get).
    #[must_use]
    #[track_caller]
    pub fn try_get(&self) -> Option<PooledConnection<M>> {
        let began = clock::mono();
        let conn = self.endpoint.try_get().or_else(|| self.await_test())?;
        Some(match &self.event_handler {
            Some(handler) => PooledConnection::told(conn, handler, began),
            None => PooledConnection::untold(conn),
        })
    }

    /// Waits for what `try_get` has sent off to be tested, unless others wait as well.
    #[track_caller]
    fn await_test(&self) -> Option<PooledConn<Hooked<M>>> {
        let stats = self.endpoint.stats();
        // It may be back among the idle ones by now. What is stuck is not waited for.
        let is_coming = stats.idle() > 0 || stats.checking() > stats.counts.stuck;
        let is_tested = self.test_on_check_out && is_coming;
        if !is_tested || stats.is_paused() || stats.waiting() > 0 {
            return None;
        }
        let limit = self.config().check_timeout.unwrap_or(config::DEFAULT_CHECK_TIMEOUT);
        self.endpoint.get_timeout(limit.min(self.connection_timeout())).ok()
    }

    /// How many connections there are at this moment.
    #[must_use]
    pub fn state(&self) -> State {
        let stats = self.endpoint.stats();
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        State {
            connections: count(stats.idle() + stats.in_use() + stats.checking()),
            idle_connections: count(stats.idle()),
        }
    }

    /// The most connections there may be.
    #[must_use]
    pub fn max_size(&self) -> u32 {
        let most = self.config().max_per_endpoint.unwrap_or(config::DEFAULT_MAX_PER_ENDPOINT);
        u32::try_from(most).unwrap_or(u32::MAX)
    }

    /// How many idle connections are kept ready; `None`: as many as there may be.
    #[must_use]
    pub const fn min_idle(&self) -> Option<u32> {
        self.min_idle
    }

    /// Whether the manager's `is_valid` is asked.
    #[must_use]
    pub const fn test_on_check_out(&self) -> bool {
        self.test_on_check_out
    }

    /// How old a connection may become.
    #[must_use]
    pub fn max_lifetime(&self) -> Option<Duration> {
        self.config().max_lifetime.unwrap_or(Some(config::DEFAULT_MAX_LIFETIME))
    }

    /// How long a connection may be idle.
    #[must_use]
    pub fn idle_timeout(&self) -> Option<Duration> {
        self.config().idle_timeout.unwrap_or(Some(config::DEFAULT_IDLE_TIMEOUT))
    }

    /// How long [`get`](Pool::get) may take.
    #[must_use]
    pub fn connection_timeout(&self) -> Duration {
        self.endpoint.checkout_timeout()
    }

    /// All counts, at this moment. Not in r2d2.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.endpoint.stats()
    }

    /// How the pool does, on a page: see [`Pool::report`](crate::Pool::report). Not in r2d2.
    #[must_use]
    pub fn report(&self) -> Report {
        self.endpoint.pool().report()
    }

    /// Ends the pool: see [`Pool::close`](crate::Pool::close). Not in r2d2.
    pub fn close(&self) {
        self.endpoint.pool().close();
    }

    /// Ends the pool and waits for its connections: see [`Pool::drain`](crate::Pool::drain). Not in
    /// r2d2.
    ///
    /// # Blocking
    ///
    /// On the users of connections, until `deadline` at the most.
    ///
    /// # Errors
    ///
    /// [`Timeout`](ErrorKind::Timeout) if some were still out at the deadline.
    pub fn drain(&self, deadline: Deadline) -> Result<(), Error> {
        self.endpoint.pool().drain(deadline)
    }

    fn config(&self) -> Config {
        self.endpoint.pool().config()
    }
}

impl<M: ManageConnection> Clone for Pool<M> {
    fn clone(&self) -> Self {
        Self {
            endpoint: self.endpoint.clone(),
            event_handler: self.event_handler.clone(),
            min_idle: self.min_idle,
            test_on_check_out: self.test_on_check_out,
        }
    }
}

impl<M: ManageConnection> fmt::Debug for Pool<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("state", &self.state())
            .field("config", &self.config())
            .finish_non_exhaustive()
    }
}

/// How many connections a [`Pool`] has. See [`Pool::stats`] for more.
///
/// See [`Pool`] for an example.
#[derive(Debug)]
#[non_exhaustive]
pub struct State {
    /// Connections that are open: idle, in use or being tested.
    pub connections: u32,
    /// Those that are idle.
    pub idle_connections: u32,
}

/// A connection on loan from a [`Pool`]. Goes back when dropped, unless that happens in a panic,
/// which closes it.
///
/// # Examples
///
/// ```
/// use std::io;
/// use warmline::r2d2::{ManageConnection, Pool, PooledConnection};
/// # struct Manager;
/// # impl ManageConnection for Manager {
/// #     type Connection = Vec<u8>;
/// #     type Error = io::Error;
/// #     fn connect(&self) -> io::Result<Vec<u8>> { Ok(Vec::new()) }
/// #     fn is_valid(&self, _: &mut Vec<u8>) -> io::Result<()> { Ok(()) }
/// #     fn has_broken(&self, _: &mut Vec<u8>) -> bool { false }
/// # }
///
/// struct Prepared(u32); // statements of this connection, say
///
/// let pool = Pool::builder().max_size(1).build(Manager)?;
/// let mut conn: PooledConnection<Manager> = pool.get()?;
/// conn.push(1);
/// PooledConnection::extensions_mut(&mut conn).insert(Prepared(7));
/// drop(conn);
/// let conn = pool.get()?; // the same one
/// assert_eq!(PooledConnection::extensions(&conn).get::<Prepared>().unwrap().0, 7);
/// # Ok::<(), warmline::Error>(())
/// ```
#[must_use = "the connection goes back to the pool at once"]
pub struct PooledConnection<M: ManageConnection> {
    /// Present until drop.
    conn: Option<PooledConn<Hooked<M>>>,
    /// Who is to be told when it comes back, and since when it is out.
    out: Option<(Arc<dyn HandleEvent>, Stamp)>,
}

impl<M: ManageConnection> PooledConnection<M> {
    /// What was checked out, and nobody wants to know.
    fn untold(conn: PooledConn<Hooked<M>>) -> Self {
        Self { conn: Some(conn), out: None }
    }

    /// What was checked out, and is told so.
    fn told(conn: PooledConn<Hooked<M>>, handler: &Arc<dyn HandleEvent>, began: Stamp) -> Self {
        let (id, now) = (conn.id, clock::mono());
        let duration = now.since(began);
        told(&**handler, |handler| handler.handle_checkout(CheckoutEvent { id, duration }));
        Self { conn: Some(conn), out: Some((Arc::clone(handler), now)) }
    }

    /// What its users keep with the connection.
    #[must_use]
    pub fn extensions(this: &Self) -> &Extensions {
        &this.conn().extensions
    }

    /// The same, to be changed.
    pub fn extensions_mut(this: &mut Self) -> &mut Extensions {
        &mut this.conn_mut().extensions
    }

    /// Closes the connection instead of giving it back. Not in r2d2.
    pub fn discard(mut this: Self) {
        this.tell();
        if let Some(conn) = this.conn.take() {
            PooledConn::discard(conn);
        }
    }

    /// Keeps the connection for good: its room in the pool is free at once. Not in r2d2.
    #[must_use = "the connection is closed if it is not used"]
    #[expect(clippy::missing_panics_doc, reason = "the connection is present until drop")]
    pub fn detach(mut this: Self) -> M::Connection {
        this.tell();
        PooledConn::detach(this.conn.take().expect("present until drop")).conn
    }

    fn conn(&self) -> &PooledConn<Hooked<M>> {
        self.conn.as_ref().expect("present until drop")
    }

    fn conn_mut(&mut self) -> &mut PooledConn<Hooked<M>> {
        self.conn.as_mut().expect("present until drop")
    }

    /// Tells that it is on its way back.
    fn tell(&mut self) {
        if let Some((handler, since)) = self.out.take() {
            let (id, duration) = (self.conn().id, clock::mono().since(since));
            told(&*handler, |handler| handler.handle_checkin(CheckinEvent { id, duration }));
        }
    }
}

impl<M: ManageConnection> Drop for PooledConnection<M> {
    fn drop(&mut self) {
        self.tell();
    }
}

impl<M: ManageConnection> Deref for PooledConnection<M> {
    type Target = M::Connection;

    fn deref(&self) -> &M::Connection {
        &self.conn().conn
    }
}

impl<M: ManageConnection> DerefMut for PooledConnection<M> {
    fn deref_mut(&mut self) -> &mut M::Connection {
        &mut self.conn_mut().conn
    }
}

impl<M: ManageConnection<Connection: fmt::Debug>> fmt::Debug for PooledConnection<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}
