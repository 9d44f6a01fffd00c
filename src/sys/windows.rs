//! Windows: sockets can be connected in a loop, and looked at, but not watched.

use std::io;
use std::os::windows::io::AsRawSocket;
use std::time::Duration;

use mio::Registry;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use crate::sys::{Peek, Until, wait};

pub(crate) use std::os::windows::io::{
    AsSocket as AsFd, BorrowedSocket as BorrowedFd, OwnedSocket as OwnedFd, RawSocket as RawFd,
};

/// mio watches no socket here that is not wholly its own.
pub(crate) const CAN_WATCH: bool = false;
pub(crate) const HEARS_FAREWELL: bool = false;

pub(crate) fn borrow(of: &impl AsFd) -> BorrowedFd<'_> {
    of.as_socket()
}

pub(crate) fn number(of: BorrowedFd<'_>) -> RawFd {
    of.as_raw_socket()
}

/// Looks at the receive buffer, without blocking.
///
/// No flag of a read asks for that, and to make the socket non-blocking for a moment would make
/// its duplicates so. Hence two calls: is there anything, and what. Only if a duplicate reads it
/// away between them, the second waits, for the read time-out at the most.
pub(crate) fn peek(fd: BorrowedFd<'_>) -> Peek {
    let mut asked = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    match poll(&mut asked, Some(&Timespec::default())) {
        Ok(0) => return Peek::Nothing,
        Ok(_) => {}
        Err(_) => return Peek::Failed,
    }
    let mut byte = [0_u8; 1];
    match recv(fd, &mut byte[..], RecvFlags::PEEK) {
        Ok((_, 0)) => Peek::Ended,
        Ok(_) => Peek::Bytes,
        Err(Errno::WOULDBLOCK | Errno::TIMEDOUT) => Peek::Nothing,
        Err(Errno::CONNRESET | Errno::CONNABORTED | Errno::NETRESET) => Peek::Ended,
        Err(_) => Peek::Failed,
    }
}

/// Sends what there is room for, and says how much.
///
/// No flag asks for that here: a little at a time, and only where there is room for some.
pub(crate) fn send_now(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    const LITTLE: usize = 16 * 1024;
    if !wait(fd, Until::Writable, Duration::ZERO)?.is_writable {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    Ok(send(fd, bytes.get(..LITTLE).unwrap_or(bytes), SendFlags::empty())?)
}

/// Nothing is received from what is not watched.
pub(crate) fn receive_now(_: BorrowedFd<'_>, _: &mut [u8]) -> io::Result<usize> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Has all calls that block on the socket return, through any of its duplicates.
pub(crate) fn shut_down(socket: &OwnedFd) -> io::Result<()> {
    Ok(rustix::net::shutdown(socket, rustix::net::Shutdown::Both)?)
}

/// True if this machine or process has run out of sockets or memory.
pub(crate) fn is_shortage(error: &io::Error) -> bool {
    const SHORTAGES: [Errno; 2] = [Errno::MFILE, Errno::NOBUFS];
    let is_it = |code| SHORTAGES.iter().any(|errno| errno.raw_os_error() == code);
    error.raw_os_error().is_some_and(is_it) || error.kind() == io::ErrorKind::OutOfMemory
}

/// True if this machine does not know the family of an address: one without IPv6, say.
pub(crate) fn lacks_family(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::AFNOSUPPORT.raw_os_error())
}

/// Nothing: Linux alone can be told.
pub(crate) fn set_user_timeout(_: &socket2::Socket, _: Option<Duration>) -> io::Result<()> {
    Ok(())
}

/// See [`HEARS_FAREWELL`].
pub(crate) fn watch_farewell(_: &Registry, _: BorrowedFd<'_>, _: usize) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// See [`CAN_WATCH`].
pub(crate) fn watch_bytes(_: &Registry, _: RawFd, _: usize) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// See [`CAN_WATCH`].
pub(crate) fn unwatch(_: &Registry, _: RawFd) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
