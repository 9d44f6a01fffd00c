//! The stream type users see: a socket that remembers what happened to it.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use crate::clock::Deadline;
use crate::connector::{SocketOptions, Watch};
use crate::observe::CloseReason;
use crate::sync::{AtomicBool, Ordering};
#[cfg(unix)]
use crate::sys::UnixStream;
use crate::sys::socket2::SockRef;
use crate::sys::{self, AsFd, BorrowedFd, OwnedFd, Peek, TcpStream};

/// A connected TCP or Unix socket that remembers what happened to it.
///
/// Reads and writes block, at most for the time-outs of its [`SocketOptions`]. From what it
/// remembers the pool knows, when it comes back, whether it can be given to somebody else:
///
/// * it met an error (time-outs included: the answer may still come), or its end: closed;
/// * it was written to, and not read from after that: closed, unless the connector is
///   [one-way](SocketOptions::one_way);
/// * it was not touched, or [`set_complete`](Socket::set_complete) was called last: kept;
/// * else one look at the receive buffer, without blocking: closed if anything is there.
///
/// What no pool can see is an answer that arrives later: read answers to their end.
///
/// # Examples
///
/// ```
/// use std::io::{Read, Write};
/// # let server = std::net::TcpListener::bind("127.0.0.1:0")?;
/// # let address = server.local_addr()?;
/// # std::thread::spawn(move || {
/// #     let (mut peer, _) = server.accept().unwrap();
/// #     let mut line = [0; 4];
/// #     peer.read_exact(&mut line).and_then(|()| peer.write_all(&line)).unwrap();
/// #     let _ = peer.read(&mut line);
/// # });
/// let pool = warmline::Pool::tcp();
/// let mut conn = pool.get(&address)?; // derefs to a Socket
/// conn.set_read_timeout(std::time::Duration::from_secs(1))?; // put back on return
/// conn.write_all(b"ping")?;
/// let mut answer = [0; 4];
/// conn.read_exact(&mut answer)?;
/// conn.set_complete(); // the protocol says that this was all
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Socket {
    stream: Stream,
    /// Bytes since it was opened or last returned.
    read: u64,
    written: u64,
    ended: Option<Ended>,
    /// Something was written after the last read.
    unanswered: bool,
    complete: bool,
    changed: Changed,
    /// How long the system lets one read block.
    read_timeout: Option<Duration>,
    /// The descriptor was lent: what was done through it is not known.
    borrowed: AtomicBool,
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
}

/// Does the same with a [`Stream`] of either kind.
macro_rules! either {
    ($of:expr, $stream:ident => $what:expr) => {
        match $of {
            Stream::Tcp($stream) => $what,
            #[cfg(unix)]
            Stream::Unix($stream) => $what,
        }
    };
}

// Below the macro that it uses.
mod deadlines;

/// Which options its user has changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Changed {
    read_timeout: bool,
    write_timeout: bool,
    nodelay: bool,
}

/// How an exchange on a socket ended before its time.
///
/// ```
/// use warmline::Ended;
///
/// let ended = Ended::Error(std::io::ErrorKind::ConnectionReset);
/// assert_ne!(ended, Ended::Eof);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ended {
    /// A read met the end of the stream: the peer had closed.
    Eof,
    /// A read or write failed. A time-out counts: the answer may still come.
    Error(io::ErrorKind),
    /// Its user shut it down.
    ShutDown,
}

impl Ended {
    /// By the peer, or by the network.
    pub(crate) fn is_hang_up(self) -> bool {
        match self {
            Self::Eof => true,
            Self::Error(kind) => matches!(
                kind,
                io::ErrorKind::ConnectionReset
                    | io::ErrorKind::ConnectionAborted
                    | io::ErrorKind::BrokenPipe
                    | io::ErrorKind::NotConnected
                    | io::ErrorKind::UnexpectedEof
            ),
            Self::ShutDown => false,
        }
    }
}

/// What a returned socket is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judgement {
    Clean,
    Close(CloseReason),
}

impl Socket {
    fn new(stream: Stream) -> Self {
        Self {
            stream,
            read: 0,
            written: 0,
            ended: None,
            unanswered: false,
            complete: false,
            changed: Changed::default(),
            read_timeout: None,
            borrowed: AtomicBool::new(false),
        }
    }

    /// A TCP socket that has just been connected to `peer`.
    pub(crate) fn from_tcp(
        stream: TcpStream,
        peer: SocketAddr,
        options: &SocketOptions,
    ) -> io::Result<Self> {
        options.apply_tcp(&SockRef::from(&stream))?;
        // Where nobody listens on a port of the ephemeral range, the system may connect a socket
        // to itself.
        if stream.local_addr()? == peer {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        stream.set_nonblocking(false)?;
        Self::new(Stream::Tcp(stream)).with_timeouts(options)
    }

    /// A Unix socket that has just been connected.
    #[cfg(unix)]
    pub(crate) fn from_unix(stream: UnixStream, options: &SocketOptions) -> io::Result<Self> {
        stream.set_nonblocking(false)?;
        Self::new(Stream::Unix(stream)).with_timeouts(options)
    }

    fn with_timeouts(mut self, options: &SocketOptions) -> io::Result<Self> {
        self.sock_ref().set_read_timeout(options.read_timeout)?;
        self.read_timeout = options.read_timeout;
        self.sock_ref().set_write_timeout(options.write_timeout)?;
        Ok(self)
    }

    /// Bounds reads and writes by `deadline`, as long as a connector opens, settles or checks.
    pub(crate) fn limit_to(&mut self, deadline: Deadline) -> io::Result<()> {
        self.read_timeout = None; // of no use for longer waits
        let left = deadline.remaining().max(Duration::from_millis(1));
        self.sock_ref().set_read_timeout(Some(left))?;
        self.sock_ref().set_write_timeout(Some(left))
    }

    /// Ends what [`limit_to`](Socket::limit_to) began, after it was opened; what happened meanwhile
    /// is forgotten.
    pub(crate) fn unlimit(&mut self, options: &SocketOptions) -> io::Result<()> {
        self.changed = Changed { read_timeout: true, write_timeout: true, ..self.changed };
        self.put_back(options)?;
        self.ended = None;
        self.forget();
        Ok(())
    }

    /// Ends what [`limit_to`](Socket::limit_to) began, after a check or a settling, by the rules
    /// for a socket that comes back.
    pub(crate) fn judge_limited(&mut self, options: &SocketOptions) -> Judgement {
        self.changed = Changed { read_timeout: true, write_timeout: true, ..self.changed };
        let judgement = self.judge_touched(options);
        self.forget();
        judgement
    }

    /// A second descriptor of the same socket, to shut it down through.
    pub(crate) fn duplicate(&self) -> io::Result<OwnedFd> {
        self.fd().try_clone_to_owned()
    }

    fn lend(&self) -> BorrowedFd<'_> {
        self.borrowed.store(true, Ordering::Relaxed);
        self.fd()
    }

    fn fd(&self) -> BorrowedFd<'_> {
        either!(&self.stream, stream => sys::borrow(stream))
    }

    fn sock_ref(&self) -> SockRef<'_> {
        either!(&self.stream, stream => SockRef::from(stream))
    }

    fn tcp(&self) -> Option<&TcpStream> {
        match &self.stream {
            Stream::Tcp(stream) => Some(stream),
            #[cfg(unix)]
            Stream::Unix(_) => None,
        }
    }

    /// The exchange is over: the last message has ended and nothing more is expected.
    ///
    /// For layers that frame messages. Saves the look at the receive buffer on return; cleared by
    /// the next read or write.
    pub fn set_complete(&mut self) {
        self.complete = true;
    }

    /// For [`Connector::watch`](crate::Connector::watch): does not count as lending the
    /// descriptor.
    #[must_use]
    pub fn watch(&self) -> Watch<'_> {
        Watch::Socket(self.fd())
    }

    /// How long one read may block; `None`: for ever. Put back when the connection returns.
    ///
    /// # Errors
    ///
    /// A zero duration is refused; else what the system says.
    pub fn set_read_timeout(&mut self, timeout: impl Into<Option<Duration>>) -> io::Result<()> {
        let timeout = timeout.into();
        self.changed.read_timeout = true;
        self.read_timeout = None; // whatever it is if this fails
        either!(&self.stream, stream => stream.set_read_timeout(timeout))?;
        self.read_timeout = timeout;
        Ok(())
    }

    /// How long one write may block; `None`: for ever. Put back when the connection returns.
    ///
    /// # Errors
    ///
    /// A zero duration is refused; else what the system says.
    pub fn set_write_timeout(&mut self, timeout: impl Into<Option<Duration>>) -> io::Result<()> {
        self.changed.write_timeout = true;
        either!(&self.stream, stream => stream.set_write_timeout(timeout.into()))
    }

    /// Sets `TCP_NODELAY`; nothing on Unix sockets. Put back when the connection returns.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn set_nodelay(&mut self, on: bool) -> io::Result<()> {
        self.changed.nodelay = true;
        self.tcp().map_or(Ok(()), |stream| stream.set_nodelay(on))
    }

    /// The peer's address; `None` on Unix sockets.
    #[must_use]
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.tcp()?.peer_addr().ok()
    }

    /// This side's address; `None` on Unix sockets.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.tcp()?.local_addr().ok()
    }

    /// Shuts down one or both directions. The connection is not reused.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn shutdown(&mut self, how: Shutdown) -> io::Result<()> {
        self.ended = self.ended.or(Some(Ended::ShutDown));
        either!(&self.stream, stream => stream.shutdown(how))
    }

    /// Bytes written since the connection was checked out.
    #[must_use]
    pub const fn bytes_written(&self) -> u64 {
        self.written
    }

    /// Bytes read since the connection was checked out.
    #[must_use]
    pub const fn bytes_read(&self) -> u64 {
        self.read
    }

    /// Its descriptor was lent during this exchange.
    pub(crate) fn is_lent(&self) -> bool {
        self.borrowed.load(Ordering::Relaxed)
    }

    /// How the exchange ended before its time, if it did.
    #[must_use]
    pub const fn ended(&self) -> Option<Ended> {
        self.ended
    }

    /// The rules for a socket that comes back. A clean one has its options put back; what happened
    /// on it is to be [forgotten](Socket::forget) before the next user has it.
    #[inline(always)]
    pub(crate) fn judge(&mut self, options: &SocketOptions) -> Judgement {
        let is_untouched = self.written == 0
            && self.read == 0
            && self.ended.is_none()
            && self.changed == Changed::default()
            && !*self.borrowed.get_mut();
        if is_untouched {
            return Judgement::Clean;
        }
        self.judge_touched(options)
    }

    fn judge_touched(&mut self, options: &SocketOptions) -> Judgement {
        match self.ended {
            Some(Ended::Eof) => return Judgement::Close(CloseReason::PeerClosed),
            Some(Ended::Error(_)) => return Judgement::Close(CloseReason::Failed),
            Some(Ended::ShutDown) => return Judgement::Close(CloseReason::Discarded),
            None => {}
        }
        if self.unanswered && !self.complete && !options.one_way {
            return Judgement::Close(CloseReason::Unfinished);
        }
        if self.put_back(options).is_err() {
            return Judgement::Close(CloseReason::Failed);
        }
        if *self.borrowed.get_mut() {
            self.read_timeout = None; // nobody knows what it was set to
        }
        if !self.complete || *self.borrowed.get_mut() {
            if let Some(reason) = self.probe() {
                return Judgement::Close(reason);
            }
        }
        Judgement::Clean
    }

    /// Looks at the receive buffer without blocking; `Some` if the socket is of no more use.
    pub(crate) fn probe(&self) -> Option<CloseReason> {
        match sys::peek(self.fd()) {
            Peek::Nothing => None,
            Peek::Bytes => Some(CloseReason::StrayBytes),
            Peek::Ended => Some(CloseReason::PeerClosed),
            Peek::Failed => Some(CloseReason::Failed),
        }
    }

    fn put_back(&mut self, options: &SocketOptions) -> io::Result<()> {
        let changed = std::mem::take(&mut self.changed);
        if changed.read_timeout {
            self.sock_ref().set_read_timeout(options.read_timeout)?;
            self.read_timeout = options.read_timeout;
        }
        if changed.write_timeout {
            self.sock_ref().set_write_timeout(options.write_timeout)?;
        }
        if changed.nodelay && self.tcp().is_some() {
            self.sock_ref().set_tcp_nodelay(options.nodelay)?;
        }
        Ok(())
    }

    /// Starts a new exchange.
    #[inline(always)]
    pub(crate) fn forget(&mut self) {
        self.read = 0;
        self.written = 0;
        self.unanswered = false;
        self.complete = false;
        *self.borrowed.get_mut() = false;
    }

    /// Notes how an operation went; being interrupted is no event.
    fn note<T>(&mut self, result: &io::Result<T>) {
        self.complete = false;
        if let Err(error) = result {
            if error.kind() != io::ErrorKind::Interrupted {
                self.ended = Some(Ended::Error(error.kind()));
            }
        }
    }

    fn note_read(&mut self, result: io::Result<usize>, asked: bool) -> io::Result<usize> {
        self.note(&result);
        let read = result?;
        self.read += read as u64;
        if read > 0 {
            self.unanswered = false;
        } else if asked {
            self.ended = Some(Ended::Eof);
        }
        Ok(read)
    }

    fn note_write(&mut self, result: io::Result<usize>) -> io::Result<usize> {
        self.note(&result);
        let written = result?;
        self.written += written as u64;
        self.unanswered |= written > 0;
        Ok(written)
    }
}

impl Read for Socket {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let result = either!(&mut self.stream, stream => stream.read(buf));
        self.note_read(result, !buf.is_empty())
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let result = either!(&mut self.stream, stream => stream.read_vectored(bufs));
        self.note_read(result, bufs.iter().any(|buf| !buf.is_empty()))
    }
}

impl Write for Socket {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let result = either!(&mut self.stream, stream => stream.write(buf));
        self.note_write(result)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let result = either!(&mut self.stream, stream => stream.write_vectored(bufs));
        self.note_write(result)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(()) // nothing is buffered here
    }
}

impl AsFd for Socket {
    /// Lends the descriptor: the pool then takes a look at the socket when it comes back.
    #[cfg(unix)]
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.lend()
    }

    /// Lends the socket: the pool then takes a look at it when it comes back.
    #[cfg(windows)]
    fn as_socket(&self) -> BorrowedFd<'_> {
        self.lend()
    }
}

impl From<Socket> for OwnedFd {
    /// The descriptor, for another library; see [`PooledConn::detach`](crate::PooledConn::detach).
    fn from(socket: Socket) -> Self {
        either!(socket.stream, stream => stream.into())
    }
}

#[cfg(test)]
mod tests;
