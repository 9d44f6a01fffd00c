//! The network as the crate sees it: under the names that `sys` has for the system's, and for those
//! parts of mio and socket2 that are used.

pub(crate) mod mio;
pub(crate) mod socket2;

use std::io::{self, Read, Write};
use std::marker::PhantomData;
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use rustix::io::Errno;
use shuttle::thread::{self, Thread};

use crate::sim::net::{Interest, Net, State};
use crate::sim::threads::{block, end_of, has_passed, step};
use crate::sim::world;

pub(crate) type HashMap<K, V> = std::collections::HashMap<K, V, foldhash::fast::FixedState>;
pub(crate) type HashSet<K> = std::collections::HashSet<K, foldhash::fast::FixedState>;

pub type RawFd = i32;

pub(crate) const CAN_WATCH: bool = true;
pub(crate) const HEARS_FAREWELL: bool = true;

/// Does something in the network, at a point at which another thread may have gone on before.
fn call<R>(act: impl FnOnce(&mut Net) -> Result<R, Errno>) -> io::Result<R> {
    step();
    Ok(world::with(|world| act(&mut world.net))?)
}

fn wake(woken: &[Thread]) {
    woken.iter().for_each(Thread::unpark);
}

/// A descriptor, closed on drop.
#[derive(Debug)]
pub struct OwnedFd(RawFd);

impl OwnedFd {
    fn open() -> io::Result<Self> {
        call(Net::open).map(Self)
    }
}

impl Drop for OwnedFd {
    fn drop(&mut self) {
        if world::has_ended() {
            return;
        }
        step();
        if let Err(errno) = world::with(|world| world.net.close(self.0)) {
            crate::sim::violation(format!("descriptor {} closed twice: {errno:?}", self.0));
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub struct BorrowedFd<'a>(RawFd, PhantomData<&'a OwnedFd>);

impl BorrowedFd<'_> {
    /// # Errors
    ///
    /// If there are no descriptors left.
    pub fn try_clone_to_owned(&self) -> io::Result<OwnedFd> {
        call(|net| net.duplicate(self.0)).map(OwnedFd)
    }
}

pub trait AsFd {
    fn as_fd(&self) -> BorrowedFd<'_>;
}

impl AsFd for OwnedFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        BorrowedFd(self.0, PhantomData)
    }
}

pub(crate) fn borrow(of: &impl AsFd) -> BorrowedFd<'_> {
    of.as_fd()
}

pub(crate) const fn number(of: BorrowedFd<'_>) -> RawFd {
    of.0
}

/// Whether bytes have arrived that were not read, and whether no more will. `None`: it failed.
pub(crate) fn look(fd: BorrowedFd<'_>) -> Option<(bool, bool)> {
    let found = call(|net| {
        let socket = net.socket_of(fd.0)?;
        Ok((!socket.inbox.is_empty(), socket.has_ended || socket.is_reset))
    });
    found.ok()
}

pub(crate) fn send_now(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    step();
    Ok(world::with(|world| world.in_net(|net, later| net.write(fd.0, bytes, later)))?)
}

pub(crate) fn receive_now(fd: BorrowedFd<'_>, into: &mut [u8]) -> io::Result<usize> {
    call(|net| net.socket_of(fd.0)?.read(into).transpose().unwrap_or(Err(Errno::AGAIN)))
}

pub(crate) fn shut_down(socket: &OwnedFd) -> io::Result<()> {
    let woken = call(|net| net.shut_down(socket.0))?;
    wake(&woken);
    Ok(())
}

pub(crate) fn is_shortage(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::MFILE.raw_os_error())
}

pub(crate) fn lacks_family(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::AFNOSUPPORT.raw_os_error())
}

pub(crate) fn set_user_timeout(_: &socket2::Socket, _: Option<Duration>) -> io::Result<()> {
    Ok(())
}

pub(crate) fn watch_farewell(
    registry: &mio::Registry,
    fd: BorrowedFd<'_>,
    word: usize,
) -> io::Result<()> {
    registry.add(fd.0, word, Interest::Farewell)
}

pub(crate) fn watch_bytes(registry: &mio::Registry, fd: RawFd, word: usize) -> io::Result<()> {
    registry.add(fd, word, Interest::Readable)
}

pub(crate) fn unwatch(registry: &mio::Registry, fd: RawFd) -> io::Result<()> {
    registry.remove(fd)
}

/// A socket of either family.
#[derive(Debug)]
pub struct TcpStream(OwnedFd);

pub(crate) type UnixStream = TcpStream;

impl TcpStream {
    pub(crate) fn set_nonblocking(&self, on: bool) -> io::Result<()> {
        set_nonblocking(self.0.0, on)
    }

    pub(crate) fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        set_read_timeout(self.0.0, timeout)
    }

    pub(crate) fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        refuse_zero(timeout)
    }

    pub(crate) fn set_nodelay(&self, _: bool) -> io::Result<()> {
        Ok(())
    }

    pub(crate) fn peer_addr(&self) -> io::Result<SocketAddr> {
        let (state, peer) = call(|net| net.socket_of(self.0.0).map(|it| (it.state, it.peer)))?;
        peer.filter(|_| state == State::Connected).ok_or_else(|| Errno::NOTCONN.into())
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        let local = call(|net| net.socket_of(self.0.0).map(|it| it.local))?;
        local.ok_or_else(|| Errno::NOTCONN.into())
    }

    pub(crate) fn shutdown(&self, _: Shutdown) -> io::Result<()> {
        shut_down(&self.0)
    }
}

fn set_nonblocking(fd: RawFd, on: bool) -> io::Result<()> {
    call(|net| {
        net.socket_of(fd)?.is_nonblocking = on;
        Ok(())
    })
}

fn set_read_timeout(fd: RawFd, timeout: Option<Duration>) -> io::Result<()> {
    refuse_zero(timeout)?;
    let nanos = timeout.map(|timeout| u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX));
    call(|net| {
        net.socket_of(fd)?.read_timeout = nanos;
        Ok(())
    })
}

fn refuse_zero(timeout: Option<Duration>) -> io::Result<()> {
    if timeout == Some(Duration::ZERO) { Err(Errno::INVAL.into()) } else { Ok(()) }
}

impl Read for TcpStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let fd = self.0.0;
        let timeout = call(|net| net.socket_of(fd).map(|it| it.read_timeout))?;
        let until = timeout.map(|nanos| end_of(Duration::from_nanos(nanos)));
        loop {
            let (read, is_nonblocking) = call(|net| {
                let socket = net.socket_of(fd)?;
                Ok((socket.read(buf)?, socket.is_nonblocking))
            })?;
            if let Some(read) = read {
                return Ok(read);
            }
            if is_nonblocking || has_passed(until) {
                return Err(Errno::AGAIN.into());
            }
            world::with(|world| world.net.wait(fd, thread::current()));
            block(until);
        }
    }
}

impl Write for TcpStream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        step();
        let written =
            world::with(|world| world.in_net(|net, later| net.write(self.0.0, buf, later)))?;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsFd for TcpStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<TcpStream> for OwnedFd {
    fn from(stream: TcpStream) -> Self {
        stream.0
    }
}

impl From<OwnedFd> for TcpStream {
    fn from(descriptor: OwnedFd) -> Self {
        Self(descriptor)
    }
}

impl From<socket2::Socket> for TcpStream {
    fn from(socket: socket2::Socket) -> Self {
        Self(socket.into())
    }
}

impl From<mio::net::TcpStream> for TcpStream {
    fn from(stream: mio::net::TcpStream) -> Self {
        stream.0
    }
}
