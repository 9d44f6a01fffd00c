//! Any r2d2 manager as a connector.

use std::error::Error as StdError;
use std::fmt;
use std::io;

use ::r2d2::ManageConnection;

use crate::clock::Deadline;
use crate::connector::{Connector, Look, Opening, Watch};
use crate::error::{BoxError, Causes, Error};
use crate::key::One;
use crate::pool::Endpoint;

/// A connector made of an r2d2 manager, which is used as it is.
///
/// | the manager's | is called | on |
/// |---|---|---|
/// | `connect` | to open a connection; what takes longer than [`connect_timeout`] is abandoned | a thread of the pool |
/// | `is_valid` | before one goes out that was idle for longer than [`check_after`] (500 ms), and every [`check_interval`] (30 s) while it is idle; what takes longer than [`check_timeout`] is abandoned | a thread of the pool |
/// | `has_broken` | when one comes back | the thread that drops the guard |
///
/// A panic in any of them costs that connection and nothing else. So does a call of `connect` or
/// `is_valid` that never returns: its room is free at the deadline, and only its thread stays
/// behind. But where a pool has sixteen such calls already, the next keep their room. `has_broken`
/// has no deadline: whoever drops the guard waits for it, and the room is taken meanwhile.
///
/// The manager's errors reach callers as text, with their causes, since r2d2 does not ask them to
/// be `Send`; an [`io::Error`] among them stays one, so that [`Error::failure`] knows a refused
/// connection from one that timed out.
///
/// [`connect_timeout`]: crate::Builder::connect_timeout
/// [`check_after`]: crate::Builder::check_after
/// [`check_interval`]: crate::Builder::check_interval
/// [`check_timeout`]: crate::Builder::check_timeout
///
/// # Examples
///
/// ```
/// # let server = std::net::TcpListener::bind("127.0.0.1:0")?;
/// # let address = server.local_addr()?;
/// use std::io;
/// use std::net::{SocketAddr, TcpStream};
/// use std::os::fd::AsFd;
/// use warmline::r2d2::{ManageConnection, Manager};
/// use warmline::{Pool, Watch};
///
/// struct Sockets(SocketAddr);
///
/// impl ManageConnection for Sockets {
///     type Connection = TcpStream;
///     type Error = io::Error;
///     fn connect(&self) -> io::Result<TcpStream> {
///         TcpStream::connect(self.0)
///     }
///     fn is_valid(&self, _: &mut TcpStream) -> io::Result<()> {
///         Ok(()) // a round trip
///     }
///     fn has_broken(&self, stream: &mut TcpStream) -> bool {
///         stream.take_error().is_ok_and(|error| error.is_some())
///     }
/// }
///
/// // With all that a pool of this crate can do, and hang-ups noticed at once.
/// let connector = Manager::new(Sockets(address)).watch(|stream| Watch::Socket(stream.as_fd()));
/// let endpoint = Pool::builder(connector).max_per_endpoint(10).build()?.only()?;
/// let stream = endpoint.get()?;
/// assert_eq!(stream.peer_addr()?, address);
/// # Ok::<(), io::Error>(())
/// ```
pub struct Manager<M: ManageConnection> {
    pub(super) manager: M,
    pub(super) watch: Option<Box<WatchOf<M::Connection>>>,
}

/// Shows what there is to watch of a connection.
pub(super) type WatchOf<T> = dyn for<'c> Fn(&'c T) -> Watch<'c> + Send + Sync;

impl<M: ManageConnection> Manager<M> {
    /// The manager, to be asked as r2d2 asks it.
    pub fn new(manager: M) -> Self {
        Self { manager, watch: None }
    }

    /// Has idle connections watched, so that the server's farewell is noticed at once, and its
    /// idle time-out learned: `watch` shows what there is to watch of one. Default: nothing.
    ///
    /// It follows the rules of [`Connector::watch`]. What to show depends on the client:
    ///
    /// * one that lends its socket: [`Watch::Socket`], for nothing per use;
    /// * one that tells its descriptor's number alone, as those of `mysql` and `ssh2` do:
    ///   `Watch::Raw(conn.as_raw_fd())`, for two system calls per use;
    /// * one that hides it, as those of `postgres` and `redis` do: if the server can be asked for the
    ///   connection's port, the system knows which descriptor that is. Find it once, when the
    ///   connection is opened, in a connector of one's own.
    #[must_use]
    pub fn watch(
        mut self,
        watch: impl for<'c> Fn(&'c M::Connection) -> Watch<'c> + Send + Sync + 'static,
    ) -> Self {
        self.watch = Some(Box::new(watch));
        self
    }
}

/// A pool of its own, with this crate's default settings, for an r2d2 manager.
///
/// The short form of `Endpoint::of(Manager::new(manager))`. For other settings:
/// `Pool::builder(Manager::new(manager))…build()?.only()?`; with r2d2's names and defaults:
/// [`r2d2::Pool`](super::Pool).
///
/// # Errors
///
/// None that can be expected: nothing is opened yet.
///
/// # Examples
///
/// ```
/// use warmline::r2d2::{self, ManageConnection};
///
/// struct Numbers;
///
/// impl ManageConnection for Numbers {
///     type Connection = u32;
///     type Error = std::io::Error;
///     fn connect(&self) -> Result<u32, Self::Error> {
///         Ok(42)
///     }
///     fn is_valid(&self, _: &mut u32) -> Result<(), Self::Error> {
///         Ok(())
///     }
///     fn has_broken(&self, _: &mut u32) -> bool {
///         false
///     }
/// }
///
/// let numbers = r2d2::of(Numbers)?;
/// assert_eq!(*numbers.get()?, 42);
/// # Ok::<(), warmline::Error>(())
/// ```
pub fn of<M: ManageConnection>(manager: M) -> Result<Endpoint<Manager<M>>, Error> {
    Endpoint::of(Manager::new(manager))
}

impl<M: ManageConnection> Connector for Manager<M> {
    type Key = One;
    type Conn = M::Connection;

    fn open(&self, _: &One, _: &mut Opening) -> Result<M::Connection, BoxError> {
        self.manager.connect().map_err(|error| sendable(&error))
    }

    fn watch<'c>(&self, conn: &'c M::Connection) -> Watch<'c> {
        self.watch.as_ref().map_or(Watch::Nothing, |watch| watch(conn))
    }

    fn is_open(&self, conn: &mut M::Connection, when: Look) -> bool {
        match when {
            Look::Checkin => !self.manager.has_broken(conn),
            // r2d2 does not ask then, and a manager may take the answer for the thread's it is on.
            Look::Checkout { .. } => true,
        }
    }

    fn has_check(&self) -> bool {
        true
    }

    fn check(&self, conn: &mut M::Connection, _: Deadline) -> Result<(), BoxError> {
        self.manager.is_valid(conn).map_err(|error| sendable(&error))
    }
}

impl<M: ManageConnection> fmt::Debug for Manager<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Manager").field("watches", &self.watch.is_some()).finish_non_exhaustive()
    }
}

/// An error that may be sent to other threads, with the words of one that may not, and its causes.
pub(super) fn sendable(error: &(dyn StdError + 'static)) -> BoxError {
    up_to(Causes::MOST, error)
}

fn up_to(most: usize, error: &(dyn StdError + 'static)) -> BoxError {
    if let Some(error) = error.downcast_ref::<io::Error>() {
        return match (error.raw_os_error(), error.get_ref()) {
            (Some(code), _) => io::Error::from_raw_os_error(code).into(),
            (None, Some(inner)) if most > 0 => {
                io::Error::new(error.kind(), up_to(most - 1, inner)).into()
            }
            (None, _) => io::Error::new(error.kind(), Causes::text_of(error)).into(),
        };
    }
    let source = error.source().filter(|_| most > 0).map(|source| up_to(most - 1, source));
    Box::new(Cause { text: Causes::text_of(error), source })
}

/// What a manager's error said.
#[derive(Debug)]
struct Cause {
    text: String,
    source: Option<BoxError>,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl StdError for Cause {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
