//! How connections begin, and what `open` is given.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::clock::Deadline;
use crate::connector::{Socket, SocketOptions};
use crate::error::{BoxError, Error};
use crate::sync::Arc;

/// How a connection begins.
///
/// ```
/// use std::time::Duration;
/// use warmline::{Plan, SocketOptions};
///
/// let plan = Plan::host("db.example", 5432)
///     .options(SocketOptions::new().read_timeout(Duration::from_secs(10)));
/// # let _ = plan;
/// ```
#[derive(Clone, Debug)]
pub struct Plan {
    start: Start,
    options: SocketOptions,
}

#[derive(Clone, Debug)]
pub(crate) enum Start {
    /// With nothing: `open` does it all.
    Blocking,
    Host(Box<str>, u16),
    Addrs(Arc<[SocketAddr]>),
    #[cfg_attr(not(unix), expect(dead_code, reason = "no plan can ask for it there"))]
    Path(PathBuf),
}

impl Plan {
    const fn new(start: Start) -> Self {
        Self { start, options: SocketOptions::new() }
    }

    /// With no socket: [`Connector::open`](crate::Connector::open) does everything.
    #[must_use]
    pub const fn blocking() -> Self {
        Self::new(Start::Blocking)
    }

    /// With a TCP socket to one of the addresses that `name` resolves to, tried as those of
    /// [`addrs`](Plan::addrs) are.
    #[must_use]
    pub fn host(name: impl Into<Box<str>>, port: u16) -> Self {
        Self::new(Start::Host(name.into(), port))
    }

    /// With a TCP socket to one of these addresses: whichever answers first.
    ///
    /// Families alternate, beginning with that of the first address (happy eyeballs, RFC 8305).
    /// Each gets 250 ms before the next is tried beside it, or less if there are many; one that
    /// fails makes way at once. Those that are tried beside each other have a descriptor each.
    #[must_use]
    pub fn addrs(addrs: impl Into<Arc<[SocketAddr]>>) -> Self {
        Self::new(Start::Addrs(addrs.into()))
    }

    /// With a Unix-domain socket to this path. On Unix only.
    #[cfg(unix)]
    #[must_use]
    pub fn path(path: impl Into<PathBuf>) -> Self {
        Self::new(Start::Path(path.into()))
    }

    /// Sets the options of the socket.
    #[must_use]
    pub fn options(mut self, options: SocketOptions) -> Self {
        self.options = options;
        self
    }

    pub(crate) const fn start(&self) -> &Start {
        &self.start
    }

    pub(crate) const fn socket_options(&self) -> &SocketOptions {
        &self.options
    }

    /// The first thing to do is to connect a socket, which the event loop does, once the address is
    /// known.
    pub(crate) const fn begins_in_loop(&self) -> bool {
        !matches!(self.start, Start::Blocking)
    }

    /// Refuses plans that could never work.
    pub(crate) fn check(&self) -> Result<(), Error> {
        match &self.start {
            Start::Addrs(addrs) if addrs.is_empty() => {
                return Err(Error::config("the connector's plan has no address"));
            }
            Start::Host(name, port) if name.is_empty() || *port == 0 => {
                return Err(Error::config(format!("the connector's plan leads to {name}:{port}")));
            }
            Start::Path(path) if path.as_path() == Path::new("") => {
                return Err(Error::config("the connector's plan has an empty path"));
            }
            _ => {}
        }
        self.options.check()
    }
}

/// One attempt to connect, as [`Connector::open`](crate::Connector::open) sees it.
///
/// ```
/// use std::io::{Read, Write};
/// use warmline::{Address, BoxError, Opening, Socket};
///
/// fn open(_: &Address, opening: &mut Opening) -> Result<Socket, BoxError> {
///     let mut socket = opening.take_socket()?;
///     socket.write_all(b"HELLO\n")?;
///     let mut answer = [0; 3];
///     socket.read_exact(&mut answer)?; // times out at the deadline
///     if answer != *b"OK\n" {
///         return Err("no welcome".into());
///     }
///     Ok(socket)
/// }
/// ```
pub struct Opening {
    socket: Option<Socket>,
    deadline: Deadline,
    /// How long it took to find the addresses, and to connect.
    took: (Duration, Duration),
    is_wanted: Box<dyn Fn() -> bool + Send>,
}

impl Opening {
    pub(crate) fn new(
        socket: Option<Socket>,
        deadline: Deadline,
        took: (Duration, Duration),
        is_wanted: Box<dyn Fn() -> bool + Send>,
    ) -> Self {
        Self { socket, deadline, took, is_wanted }
    }

    /// The connected socket, in blocking mode, its time-outs set to what is left until the
    /// deadline. The plan's own time-outs are set once `open` has returned, if
    /// [`Connector::socket`](crate::Connector::socket) shows the socket.
    ///
    /// # Errors
    ///
    /// If the plan asked for no socket, or it was taken already.
    pub fn take_socket(&mut self) -> Result<Socket, BoxError> {
        self.socket.take().ok_or_else(|| "the plan asked for no socket, or it was taken".into())
    }

    /// When this attempt must have ended.
    #[must_use]
    pub const fn deadline(&self) -> Deadline {
        self.deadline
    }

    /// How long this attempt waited for the addresses of its name; zero if there was none, or they
    /// were known.
    #[must_use]
    pub const fn resolve(&self) -> Duration {
        self.took.0
    }

    /// How long it took to connect the socket that the plan asked for; zero if it asked for none.
    /// Where the name had to be looked up, the wait for the event loop's turn counts as well.
    #[must_use]
    pub const fn connect(&self) -> Duration {
        self.took.1
    }

    /// False once nobody waits for this attempt any more: callers were served otherwise or gave up,
    /// and older attempts suffice for those that are left. It is not wrong to go on: the connection
    /// becomes idle if there is room. But if another endpoint needs that room, a socket that came
    /// from the plan is shut down, as at the deadline. What then comes of the attempt counts as no
    /// failure.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        (self.is_wanted)()
    }
}

impl fmt::Debug for Opening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opening")
            .field("socket", &self.socket)
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}
