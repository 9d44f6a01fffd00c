//! A socket on its way to its peer, without blocking.

use std::io;
use std::net::SocketAddr;

use crate::connector::{Socket, SocketOptions};
use crate::sys::socket2::{self, Domain, Type};
use crate::sys::{self, RawFd, TcpStream, mio};

/// A TCP socket that is being connected.
#[derive(Debug)]
pub(crate) struct Flight {
    stream: mio::net::TcpStream,
    peer: SocketAddr,
}

impl Flight {
    /// Begins to connect.
    pub(crate) fn begin(peer: SocketAddr, options: &SocketOptions) -> io::Result<Self> {
        let socket = socket2::Socket::new(Domain::for_address(peer), Type::STREAM, None)?;
        options.apply_before_connect(&socket)?;
        options.bind_tcp(&socket)?;
        socket.set_nonblocking(true)?;
        match socket.connect(&peer.into()) {
            Err(error) if !is_under_way(&error) => return Err(explained(error, peer)),
            _ => {}
        }
        Ok(Self { stream: mio::net::TcpStream::from_std(TcpStream::from(socket)), peer })
    }

    pub(crate) fn number(&self) -> RawFd {
        sys::number(sys::borrow(&self.stream))
    }

    /// Has the loop woken when there is news.
    pub(crate) fn register(&mut self, registry: &mio::Registry, word: usize) -> io::Result<()> {
        registry.register(&mut self.stream, mio::Token(word), mio::Interest::WRITABLE)
    }

    pub(crate) fn deregister(&mut self, registry: &mio::Registry) {
        if let Err(error) = registry.deregister(&mut self.stream) {
            log::debug!(error:% = error; "could not deregister a socket: {error}");
        }
    }

    /// After news: true if it is connected, false if there was none after all.
    pub(crate) fn has_landed(&self) -> io::Result<bool> {
        if let Some(error) = self.stream.take_error()? {
            return Err(error);
        }
        match self.stream.peer_addr() {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The socket, once it is connected: as users get it.
    pub(crate) fn into_socket(self, options: &SocketOptions) -> io::Result<Socket> {
        Socket::from_tcp(self.stream.into(), self.peer, options)
    }
}

/// With the same words the system says that it is out of ports, and that it has no address of that
/// family at all. A datagram needs no port of its own: if it cannot be sent either, it is the latter.
fn explained(error: io::Error, peer: SocketAddr) -> io::Error {
    let is_absent = |error: &io::Error| error.kind() == io::ErrorKind::AddrNotAvailable;
    if peer.is_ipv4() || !is_absent(&error) {
        return error;
    }
    let datagrams = socket2::Socket::new(Domain::IPV6, Type::DGRAM, None);
    match datagrams.and_then(|socket| socket.connect(&peer.into())) {
        Err(same) if is_absent(&same) => io::Error::new(io::ErrorKind::NetworkUnreachable, error),
        _ => error,
    }
}

fn is_under_way(error: &io::Error) -> bool {
    let in_progress = rustix::io::Errno::INPROGRESS.raw_os_error();
    error.raw_os_error() == Some(in_progress)
        || matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// Connects a Unix socket, which takes no time: `None` if the listener's backlog is full.
#[cfg(unix)]
pub(crate) fn connect_unix(
    path: &std::path::Path,
    options: &SocketOptions,
) -> io::Result<Option<Socket>> {
    let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
    options.apply_before_connect(&socket)?;
    socket.set_nonblocking(true)?;
    match socket.connect(&socket2::SockAddr::unix(path)?) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
        Err(error) => return Err(error),
    }
    let stream = sys::UnixStream::from(sys::OwnedFd::from(socket));
    Socket::from_unix(stream, options).map(Some)
}

/// There are none here, and no plan can ask for one.
#[cfg(not(unix))]
pub(crate) fn connect_unix(_: &std::path::Path, _: &SocketOptions) -> io::Result<Option<Socket>> {
    Err(io::ErrorKind::Unsupported.into())
}
