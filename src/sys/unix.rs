//! Unix, and what Linux can do beyond that.

use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Interest, Registry};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use crate::sys::Peek;

pub(crate) use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
pub(crate) use std::os::unix::net::UnixStream;

/// Idle connections can be watched.
pub(crate) const CAN_WATCH: bool = true;
/// They can be watched for the peer's farewell alone.
pub(crate) const HEARS_FAREWELL: bool = cfg!(any(target_os = "linux", target_os = "android"));

#[inline(always)]
pub(crate) fn borrow(of: &impl AsFd) -> BorrowedFd<'_> {
    of.as_fd()
}

pub(crate) fn number(of: BorrowedFd<'_>) -> RawFd {
    of.as_raw_fd()
}

/// Looks at the receive buffer, without blocking.
#[inline(always)]
pub(crate) fn peek(fd: BorrowedFd<'_>) -> Peek {
    let mut byte = [0_u8; 1];
    loop {
        return match recv(fd, &mut byte[..], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
            Ok((_, 0)) => Peek::Ended,
            Ok(_) => Peek::Bytes,
            Err(Errno::AGAIN) => Peek::Nothing,
            Err(Errno::INTR) => continue,
            Err(Errno::CONNRESET | Errno::PIPE) => Peek::Ended,
            Err(_) => Peek::Failed,
        };
    }
}

/// Sends without blocking, and says how much. To one who has hung up it raises no signal: Apple's
/// sockets are opened so.
pub(crate) fn send_now(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    #[cfg(not(target_vendor = "apple"))]
    const FLAGS: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);
    #[cfg(target_vendor = "apple")]
    const FLAGS: SendFlags = SendFlags::DONTWAIT;
    loop {
        match send(fd, bytes, FLAGS) {
            Err(Errno::INTR) => {}
            sent => return Ok(sent?),
        }
    }
}

/// Receives without blocking.
pub(crate) fn receive_now(fd: BorrowedFd<'_>, into: &mut [u8]) -> io::Result<usize> {
    loop {
        match recv(fd, &mut *into, RecvFlags::DONTWAIT) {
            Err(Errno::INTR) => {}
            received => return Ok(received.map(|(_, count)| count)?),
        }
    }
}

/// Has all calls that block on the socket return, through any of its descriptors.
pub(crate) fn shut_down(socket: &OwnedFd) -> io::Result<()> {
    Ok(rustix::net::shutdown(socket, rustix::net::Shutdown::Both)?)
}

/// True if this machine or process has run out of descriptors or memory.
pub(crate) fn is_shortage(error: &io::Error) -> bool {
    const SHORTAGES: [Errno; 4] = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    let is_it = |code| SHORTAGES.iter().any(|errno| errno.raw_os_error() == code);
    error.raw_os_error().is_some_and(is_it) || error.kind() == io::ErrorKind::OutOfMemory
}

/// True if this machine does not know the family of an address: one without IPv6, say.
pub(crate) fn lacks_family(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::AFNOSUPPORT.raw_os_error())
}

/// How long sent data may stay unacknowledged: Linux alone can be told.
pub(crate) fn set_user_timeout(
    socket: &socket2::Socket,
    timeout: Option<Duration>,
) -> io::Result<()> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    return socket.set_tcp_user_timeout(timeout);
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    {
        let _unused = (socket, timeout);
        Ok(())
    }
}

/// Registers a descriptor for the peer's farewell, once and for all.
///
/// # Errors
///
/// If it is registered already, or the system says no.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn watch_farewell(
    registry: &Registry,
    fd: BorrowedFd<'_>,
    word: usize,
) -> io::Result<()> {
    use rustix::event::epoll::{self, EventData, EventFlags};

    let (data, interest) = (EventData::new_u64(word as u64), EventFlags::RDHUP | EventFlags::ET);
    epoll::add(registry, fd, data, interest).map_err(io::Error::from)
}

/// See [`HEARS_FAREWELL`].
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn watch_farewell(_: &Registry, _: BorrowedFd<'_>, _: usize) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Registers a descriptor for bytes and for the peer's farewell.
///
/// # Errors
///
/// As [`watch_farewell`].
pub(crate) fn watch_bytes(registry: &Registry, fd: RawFd, word: usize) -> io::Result<()> {
    registry.register(&mut SourceFd(&fd), mio::Token(word), Interest::READABLE)
}

/// Ends either.
///
/// # Errors
///
/// If the descriptor is not registered.
pub(crate) fn unwatch(registry: &Registry, fd: RawFd) -> io::Result<()> {
    registry.deregister(&mut SourceFd(&fd))
}
