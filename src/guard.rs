//! The guard: a connection on loan.

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use crate::clock;
use crate::connector::{Connector, Ended};
use crate::observe::CloseReason;
use crate::shared::{Boxed, Held, Home, guarded};
use crate::sync::Arc;
use crate::sys::{self, AsFd, BorrowedFd};

/// A connection on loan from a pool. Goes back when dropped.
///
/// Derefs to the connection, and reads and writes if that does. Its own operations are associated
/// functions, so that they cannot hide the connection's.
///
/// On drop the pool decides, without blocking, whether it can be used again: see
/// [`Socket`](crate::Socket) for the rules, and [`Connector::reset`]. A guard dropped by a panic
/// closes its connection. A guard may outlive its pool.
///
/// # Examples
///
/// ```
/// # let server = std::net::TcpListener::bind("127.0.0.1:0")?;
/// # let address = server.local_addr()?;
/// use warmline::{Pool, PooledConn};
///
/// let pool = Pool::tcp();
/// let conn = pool.get(&address)?;
/// assert!(!PooledConn::is_reused(&conn));
/// drop(conn);
/// assert!(PooledConn::is_reused(&pool.get(&address)?));
/// # Ok::<(), std::io::Error>(())
/// ```
#[must_use = "the connection goes back to the pool at once"]
pub struct PooledConn<C: Connector> {
    /// Present until drop.
    held: Option<Boxed<C>>,
    home: Arc<Home<C>>,
}

impl<C: Connector> PooledConn<C> {
    #[inline(always)]
    pub(crate) fn new(held: Boxed<C>, home: Arc<Home<C>>) -> Self {
        Self { held: Some(held), home }
    }

    /// Gives back what its user never received.
    pub(crate) fn unreceived(mut conn: Self) {
        if let Some(held) = conn.held.take() {
            conn.home.take_back(held);
        }
    }

    #[inline(always)]
    fn held(&self) -> &Held<C::Conn> {
        self.held.as_ref().expect("present until drop")
    }

    #[inline(always)]
    fn held_mut(&mut self) -> &mut Held<C::Conn> {
        self.held.as_mut().expect("present until drop")
    }

    /// Closes the connection instead of giving it back, for whatever reason its user has.
    pub fn discard(conn: Self) {
        Self::close(conn, CloseReason::Discarded);
    }

    /// Closes the connection, for a reason that its layer knows.
    pub(crate) fn close(mut conn: Self, reason: CloseReason) {
        if let Some(held) = conn.held.take() {
            conn.home.discard(held, reason);
        }
    }

    /// Keeps the connection for good. The pool's room for it is free at once, and nobody watches it
    /// any more.
    ///
    /// # Examples
    ///
    /// ```
    /// # let server = std::net::TcpListener::bind("127.0.0.1:0")?;
    /// # let address = server.local_addr()?;
    /// use std::net::TcpStream;
    /// use std::os::fd::OwnedFd;
    /// use warmline::{Pool, PooledConn};
    ///
    /// let pool = Pool::tcp();
    /// let stream = TcpStream::from(OwnedFd::from(PooledConn::detach(pool.get(&address)?)));
    /// assert_eq!(stream.peer_addr()?, address);
    /// assert_eq!(pool.stats().total(), 0);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[doc(alias = "hijack")]
    #[must_use = "the connection is closed if it is not used"]
    #[expect(clippy::missing_panics_doc, reason = "the connection is present until drop")]
    pub fn detach(mut conn: Self) -> C::Conn {
        let mut held = conn.held.take().expect("present until drop");
        conn.home.detach(&mut held);
        held.conn
    }

    /// The key of the endpoint it is connected to.
    #[must_use]
    pub fn endpoint(conn: &Self) -> &C::Key {
        &conn.home.key
    }

    /// True if it was checked out before; false if it was opened for this checkout.
    #[must_use]
    pub fn is_reused(conn: &Self) -> bool {
        conn.held().lease.uses > 0
    }

    /// How long ago it was opened.
    #[must_use]
    pub fn age(conn: &Self) -> Duration {
        clock::mono().since(conn.held().lease.born)
    }

    /// What happened on it since it was checked out.
    #[must_use]
    #[expect(clippy::missing_panics_doc, reason = "the connection is present until drop")]
    pub fn exchange(conn: &mut Self) -> Exchange {
        let Held { conn: inner, lease, .. } =
            &mut **conn.held.as_mut().expect("present until drop");
        let traffic = guarded(|| {
            let socket = conn.home.shared.connector.socket(inner)?;
            let (written, read) = (socket.bytes_written(), socket.bytes_read());
            Some(Traffic { written, read, ended: socket.ended(), is_lent: socket.is_lent() })
        });
        Exchange {
            is_reused: lease.uses > 0,
            was_idle: lease.was_idle(),
            idle_for: Duration::from_nanos(lease.idle_for()),
            // A connector that panics shows no socket.
            traffic: traffic.unwrap_or_default(),
        }
    }
}

impl<C: Connector> Drop for PooledConn<C> {
    #[inline(always)]
    fn drop(&mut self) {
        if let Some(held) = self.held.take() {
            self.home.checkin(held);
        }
    }
}

impl<C: Connector> Deref for PooledConn<C> {
    type Target = C::Conn;

    #[inline(always)]
    fn deref(&self) -> &C::Conn {
        &self.held().conn
    }
}

impl<C: Connector> DerefMut for PooledConn<C> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut C::Conn {
        &mut self.held_mut().conn
    }
}

impl<C: Connector> fmt::Debug for PooledConn<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PooledConn")
            .field("endpoint", &self.home.label)
            .field("is_reused", &Self::is_reused(self))
            .field("age", &Self::age(self))
            .finish_non_exhaustive()
    }
}

impl<C: Connector> Read for PooledConn<C>
where
    C::Conn: Read,
{
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        (**self).read(buf)
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        (**self).read_vectored(bufs)
    }
}

impl<C: Connector> Write for PooledConn<C>
where
    C::Conn: Write,
{
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        (**self).write(buf)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        (**self).write_vectored(bufs)
    }

    fn flush(&mut self) -> io::Result<()> {
        (**self).flush()
    }
}

impl<C: Connector> AsFd for PooledConn<C>
where
    C::Conn: AsFd,
{
    #[cfg(unix)]
    fn as_fd(&self) -> BorrowedFd<'_> {
        sys::borrow(&**self)
    }

    #[cfg(windows)]
    fn as_socket(&self) -> BorrowedFd<'_> {
        sys::borrow(&**self)
    }
}

/// What happened on a connection since it was checked out.
///
/// ```
/// # let server = std::net::TcpListener::bind("127.0.0.1:0")?;
/// # let address = server.local_addr()?;
/// use std::io::Write;
/// use warmline::{Pool, PooledConn};
///
/// let pool = Pool::tcp();
/// let mut conn = pool.get(&address)?;
/// conn.write_all(b"ping")?;
/// let exchange = PooledConn::exchange(&mut conn);
/// assert_eq!((exchange.written(), exchange.read()), (Some(4), Some(0)));
/// assert!(!exchange.is_stale());
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exchange {
    is_reused: bool,
    was_idle: bool,
    idle_for: Duration,
    traffic: Option<Traffic>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Traffic {
    written: u64,
    read: u64,
    ended: Option<Ended>,
    is_lent: bool,
}

impl Exchange {
    /// True if the connection was checked out before.
    #[must_use]
    pub const fn is_reused(&self) -> bool {
        self.is_reused
    }

    /// True if it was idle before this checkout, and not handed over from its last user or opened
    /// for it.
    #[must_use]
    pub const fn was_idle(&self) -> bool {
        self.was_idle
    }

    /// How long it had been idle, by a clock that ticks every few milliseconds.
    #[must_use]
    pub const fn idle_for(&self) -> Duration {
        self.idle_for
    }

    /// Bytes written; `None` if the connection's socket is not one of ours, or its descriptor was
    /// lent, so that more may have been.
    #[must_use]
    pub fn written(&self) -> Option<u64> {
        self.traffic.filter(|traffic| !traffic.is_lent).map(|traffic| traffic.written)
    }

    /// Bytes read; `None` as for [`written`](Exchange::written).
    #[must_use]
    pub fn read(&self) -> Option<u64> {
        self.traffic.filter(|traffic| !traffic.is_lent).map(|traffic| traffic.read)
    }

    /// True if the connection shows one of our sockets.
    pub(crate) const fn is_visible(&self) -> bool {
        self.traffic.is_some()
    }

    /// How it ended before its time, if it did and the socket is one of ours.
    #[must_use]
    pub fn ended(&self) -> Option<Ended> {
        self.traffic.and_then(|traffic| traffic.ended)
    }

    /// True if the peer had closed the connection, in all likelihood, before it saw a request: it
    /// was idle before this checkout, has ended, and nothing was read.
    ///
    /// No pool can rule this out: a server may close an idle connection at the moment it is used.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        // Through a lent descriptor, anything may have been read.
        let is_unread = self.traffic.is_some_and(|traffic| traffic.read == 0 && !traffic.is_lent);
        self.was_idle && is_unread && self.has_broken()
    }

    /// The peer ended the connection, or the network did.
    pub(crate) fn has_broken(&self) -> bool {
        self.ended().is_some_and(Ended::is_hang_up)
    }
}
