//! How connections are opened, and how they are judged.

mod heartbeat;
mod options;
mod plan;
mod resolve;
mod socket;
mod tcp;
#[cfg(unix)]
mod unix;

pub use self::heartbeat::{Beat, Heartbeat, Pulse};
pub use self::options::{SocketOptions, TcpKeepalive};
pub use self::plan::{Opening, Plan};
pub use self::resolve::{Resolve, Resolved};
pub use self::socket::{Ended, Socket};
pub use self::tcp::TcpConnector;
#[cfg(unix)]
pub use self::unix::UnixConnector;

pub(crate) use self::heartbeat::Beats;
pub(crate) use self::plan::Start;
pub(crate) use self::resolve::ask_system;
pub(crate) use self::socket::Judgement;

use std::fmt;
use std::hash::Hash;
use std::time::Duration;

use crate::clock::Deadline;
use crate::error::BoxError;
use crate::observe::CloseReason;
use crate::sys::{BorrowedFd, RawFd};

pub(crate) mod sealed {
    /// Only this crate can name it, so only this crate can override what takes it.
    #[derive(Clone, Copy, Debug)]
    #[expect(unnameable_types, reason = "that is its purpose")]
    pub struct Token;
}

/// Opens connections and knows how to judge them.
///
/// A blocking client needs [`open`](Connector::open) alone. Everything else has a default.
///
/// Each method says on which thread it runs and whether it may block; no lock of the pool is ever
/// held while one runs. A panic in any of them is caught: the connection is closed, its permit is
/// freed. The one exception is the key's own `Hash`, `Eq` and `Clone`, which run on the caller's
/// thread under the lock of the name table and must not call the pool.
///
/// # Examples
///
/// ```
/// use warmline::{BoxError, Connector, Endpoint, One, Opening};
///
/// struct Counter;
///
/// impl Connector for Counter {
///     type Key = One;
///     type Conn = Vec<u8>;
///
///     fn open(&self, _: &One, _: &mut Opening) -> Result<Vec<u8>, BoxError> {
///         Ok(Vec::new()) // log in to something here
///     }
/// }
///
/// let endpoint = Endpoint::of(Counter)?;
/// endpoint.get()?.push(1);
/// assert_eq!(*endpoint.get()?, [1]); // the same one
/// # Ok::<(), warmline::Error>(())
/// ```
pub trait Connector: Send + Sync + 'static {
    /// What tells endpoints apart. Connections of equal keys are interchangeable. People see an
    /// endpoint as its key displays itself, but for [secrets](crate#secrets).
    type Key: Clone + Eq + Hash + fmt::Debug + fmt::Display + Send + Sync + 'static;
    /// What users get. The pool never shares one between threads, so `Sync` is not asked for.
    type Conn: Send + 'static;

    /// How connections to `key` begin: with which socket, if any.
    ///
    /// Pure, without I/O. Asked once per endpoint, when it is made, on the caller's thread.
    fn plan(&self, key: &Self::Key) -> Plan {
        let _unused = key;
        Plan::blocking()
    }

    /// Makes the connection, or finishes it on the socket that the plan asked for.
    ///
    /// # Blocking
    ///
    /// On a crew thread; may block until [`Opening::deadline`]. At the deadline a socket that came
    /// from the plan is shut down, so that reads and writes on it return; what does not return even
    /// then is abandoned, and what it returns later is closed.
    ///
    /// # Errors
    ///
    /// Whatever went wrong; it reaches callers as the source of their error.
    fn open(&self, key: &Self::Key, opening: &mut Opening) -> Result<Self::Conn, BoxError>;

    /// The socket beneath, if it is one of ours. Wrappers forward it.
    ///
    /// Through it the pool sees traffic; without it [`Exchange`](crate::Exchange) has no byte
    /// counts. Any thread; must not block.
    fn socket<'c>(&self, conn: &'c mut Self::Conn) -> Option<&'c mut Socket> {
        let _unused = conn;
        None
    }

    /// True only for our own plain sockets: `open` never blocks, and closing is `close(2)`.
    #[doc(hidden)]
    fn is_plain(&self, _: sealed::Token) -> bool {
        false
    }

    /// What the event loop watches, so that a hang-up of the peer is noticed at once, where the
    /// [system](crate#systems) can.
    ///
    /// Asked once the connection is open, before anybody can reach it, and again before it is
    /// closed or given away; where a connection can be watched only while it is idle, at every use; and
    /// with every heartbeat.
    /// The answer must be the same for all its life. Any thread; must not block.
    fn watch<'c>(&self, conn: &'c Self::Conn) -> Watch<'c> {
        let _unused = conn;
        Watch::Nothing
    }

    /// A quick look before reuse, without a round trip. Caller's thread, or of whoever answers a
    /// [`Request`](crate::Request); must not block.
    fn is_open(&self, conn: &mut Self::Conn, when: Look) -> bool {
        let _unused = (conn, when);
        true
    }

    /// Is it fit for a stranger? On checkin, on the thread that drops the guard; must not block.
    fn reset(&self, conn: &mut Self::Conn) -> Reset {
        let _unused = conn;
        Reset::Ready
    }

    /// Finishes what `reset` answered [`Later`](Reset::Later) to: rolls back, drains a body.
    ///
    /// # Blocking
    ///
    /// On a crew thread; may block until the deadline
    /// ([`settle_timeout`](crate::Builder::settle_timeout)).
    ///
    /// # Errors
    ///
    /// Any: the connection is closed.
    fn settle(&self, conn: &mut Self::Conn, deadline: Deadline) -> Result<(), BoxError> {
        let _unused = (conn, deadline);
        Ok(())
    }

    /// True if `check` does something: only then are checks made. Asked once.
    fn has_check(&self) -> bool {
        false
    }

    /// A round trip that proves the connection works: before one that was idle for longer than
    /// [`check_after`](crate::Builder::check_after) is handed out, and, of connectors that have no
    /// [`heartbeat`](Connector::heartbeat), every
    /// [`check_interval`](crate::Builder::check_interval) while it is idle.
    ///
    /// # Blocking
    ///
    /// On a crew thread; may block until the deadline
    /// ([`check_timeout`](crate::Builder::check_timeout)).
    ///
    /// # Errors
    ///
    /// Any: the connection is closed, and whoever waited for it gets another.
    fn check(&self, conn: &mut Self::Conn, deadline: Deadline) -> Result<(), BoxError> {
        let _unused = (conn, deadline);
        Ok(())
    }

    /// A protocol's own PING and PONG for an idle connection; `None`: it has none.
    ///
    /// Sent by the event loop every [`check_interval`](crate::Builder::check_interval), on the
    /// socket that [`watch`](Connector::watch) shows ([`Watch::Socket`]); an answer that does not
    /// come within [`check_timeout`](crate::Builder::check_timeout), or is wrong, ends the
    /// connection. No thread is needed for it, however many are idle.
    ///
    /// Asked once when the endpoint is made, to see whether there is any, and once for each
    /// heartbeat, on the event loop: like its methods, it must not block.
    fn heartbeat(&self, key: &Self::Key) -> Option<Box<dyn Heartbeat>> {
        let _unused = key;
        None
    }

    /// Ends it, with a farewell if the protocol has one.
    ///
    /// # Blocking
    ///
    /// On a crew thread (after the driver's end: on the thread that drops it); may block, and is
    /// never abandoned. At most eight of a pool's run at a time: those that hang hold up the
    /// pool's other closes. Once as many connections to an endpoint wait to be closed as it may have,
    /// and sixteen, no more are opened there until one is.
    fn close(&self, conn: Self::Conn, reason: CloseReason) {
        let _unused = reason;
        drop(conn);
    }
}

/// What the event loop watches of a connection.
///
/// ```
/// use warmline::{Socket, Watch};
///
/// fn watch(conn: &Socket) -> Watch<'_> {
///     conn.watch()
/// }
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Watch<'c> {
    /// Nothing: it is looked at before reuse only.
    Nothing,
    /// A socket (on Windows a `BorrowedSocket`): its hang-up is noticed, where the system can.
    Socket(BorrowedFd<'c>),
    /// A descriptor (on Windows a `RawSocket`) of a client that shows no more than its number.
    /// Watched while the connection is idle only: bytes that arrive then end it as well
    /// ([`StrayBytes`](CloseReason::StrayBytes)), but for a greeting before its first use. No two
    /// connections may show the same one. Once the client has closed it, `Nothing` is the answer.
    Raw(RawFd),
}

/// What [`Connector::reset`] says about a connection that came back.
///
/// ```
/// use warmline::Reset;
///
/// fn reset(in_transaction: bool) -> Reset {
///     if in_transaction { Reset::Later } else { Reset::Ready }
/// }
/// # assert_eq!(reset(true), Reset::Later);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reset {
    /// Fit for the next user.
    Ready,
    /// Fit after [`Connector::settle`], which may block.
    Later,
    /// Not fit: close it.
    Close,
}

/// On which occasion [`Connector::is_open`] is asked.
///
/// ```
/// use std::time::Duration;
/// use warmline::Look;
///
/// fn is_suspect(when: Look) -> bool {
///     matches!(when, Look::Checkout { idle } if idle > Duration::from_secs(60))
/// }
/// # assert!(!is_suspect(Look::Checkin));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Look {
    /// It comes back from a user.
    Checkin,
    /// It is about to be handed out.
    Checkout {
        /// How long it was idle, by a clock that ticks every few milliseconds.
        idle: Duration,
    },
}

/// Any connector with this key and this connection.
///
/// ```
/// use warmline::{Address, BoxConnector, Pool, Socket, TcpConnector};
///
/// let connector: BoxConnector<Address, Socket> = Box::new(TcpConnector::new());
/// let pool = Pool::builder(connector).build()?;
/// # Ok::<(), warmline::Error>(())
/// ```
pub type BoxConnector<K, T> = Box<dyn Connector<Key = K, Conn = T>>;

impl<C: Connector + ?Sized> Connector for Box<C> {
    type Key = C::Key;
    type Conn = C::Conn;

    fn plan(&self, key: &Self::Key) -> Plan {
        (**self).plan(key)
    }
    fn open(&self, key: &Self::Key, opening: &mut Opening) -> Result<Self::Conn, BoxError> {
        (**self).open(key, opening)
    }
    fn socket<'c>(&self, conn: &'c mut Self::Conn) -> Option<&'c mut Socket> {
        (**self).socket(conn)
    }
    fn is_plain(&self, token: sealed::Token) -> bool {
        (**self).is_plain(token)
    }
    fn watch<'c>(&self, conn: &'c Self::Conn) -> Watch<'c> {
        (**self).watch(conn)
    }
    fn is_open(&self, conn: &mut Self::Conn, when: Look) -> bool {
        (**self).is_open(conn, when)
    }
    fn reset(&self, conn: &mut Self::Conn) -> Reset {
        (**self).reset(conn)
    }
    fn settle(&self, conn: &mut Self::Conn, deadline: Deadline) -> Result<(), BoxError> {
        (**self).settle(conn, deadline)
    }
    fn has_check(&self) -> bool {
        (**self).has_check()
    }
    fn check(&self, conn: &mut Self::Conn, deadline: Deadline) -> Result<(), BoxError> {
        (**self).check(conn, deadline)
    }
    fn heartbeat(&self, key: &Self::Key) -> Option<Box<dyn Heartbeat>> {
        (**self).heartbeat(key)
    }
    fn close(&self, conn: Self::Conn, reason: CloseReason) {
        (**self).close(conn, reason);
    }
}
