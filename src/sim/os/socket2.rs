//! What the crate uses of the crate of this name.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use crate::sim::net::Place;
use crate::sim::os::{AsFd, OwnedFd, RawFd, TcpStream, call, set_nonblocking};
use crate::sim::threads::step;
use crate::sim::world;

#[derive(Debug)]
pub(crate) struct Socket {
    fd: RawFd,
    owned: Option<OwnedFd>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Domain;

impl Domain {
    pub(crate) const IPV6: Self = Self;
    pub(crate) const UNIX: Self = Self;

    pub(crate) const fn for_address(_: SocketAddr) -> Self {
        Self
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Type;

impl Type {
    pub(crate) const STREAM: Self = Self;
    pub(crate) const DGRAM: Self = Self;
}

#[derive(Clone, Debug)]
pub(crate) struct SockAddr(Place);

impl SockAddr {
    pub(crate) fn unix(path: &Path) -> io::Result<Self> {
        Ok(Self(Place::Path(path.to_owned())))
    }
}

impl From<SocketAddr> for SockAddr {
    fn from(address: SocketAddr) -> Self {
        Self(Place::Address(address))
    }
}

#[derive(Clone, Debug)]
pub(crate) struct TcpKeepalive;

impl TcpKeepalive {
    pub(crate) const fn new() -> Self {
        Self
    }

    pub(crate) const fn with_time(self, _: Duration) -> Self {
        self
    }

    pub(crate) const fn with_interval(self, _: Duration) -> Self {
        self
    }

    pub(crate) const fn with_retries(self, _: u32) -> Self {
        self
    }
}

impl Socket {
    pub(crate) fn new(_: Domain, _: Type, _: Option<()>) -> io::Result<Self> {
        let owned = OwnedFd::open()?;
        Ok(Self { fd: owned.0, owned: Some(owned) })
    }

    pub(crate) fn set_nonblocking(&self, on: bool) -> io::Result<()> {
        set_nonblocking(self.fd, on)
    }

    pub(crate) fn bind(&self, _: &SockAddr) -> io::Result<()> {
        Ok(())
    }

    pub(crate) fn connect(&self, to: &SockAddr) -> io::Result<()> {
        step();
        let place = to.0.clone();
        Ok(world::with(|world| world.in_net(|net, later| net.connect(self.fd, place, later)))?)
    }

    pub(crate) fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        super::set_read_timeout(self.fd, timeout)
    }

    pub(crate) fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        super::refuse_zero(timeout)
    }

    pub(crate) fn set_recv_buffer_size(&self, _: usize) -> io::Result<()> {
        self.exists()
    }

    pub(crate) fn set_send_buffer_size(&self, _: usize) -> io::Result<()> {
        self.exists()
    }

    pub(crate) fn set_tcp_nodelay(&self, _: bool) -> io::Result<()> {
        self.exists()
    }

    pub(crate) fn set_tcp_keepalive(&self, _: &TcpKeepalive) -> io::Result<()> {
        self.exists()
    }

    fn exists(&self) -> io::Result<()> {
        call(|net| net.socket_of(self.fd).map(|_| ()))
    }
}

impl From<Socket> for OwnedFd {
    fn from(socket: Socket) -> Self {
        socket.owned.expect("only borrowed sockets are not owned")
    }
}

/// A socket that somebody else owns.
#[derive(Debug)]
pub(crate) struct SockRef<'a>(Socket, std::marker::PhantomData<&'a TcpStream>);

impl<'a, S: AsFd> From<&'a S> for SockRef<'a> {
    fn from(socket: &'a S) -> Self {
        Self(Socket { fd: socket.as_fd().0, owned: None }, std::marker::PhantomData)
    }
}

impl std::ops::Deref for SockRef<'_> {
    type Target = Socket;
    fn deref(&self) -> &Socket {
        &self.0
    }
}
