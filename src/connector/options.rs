//! Options of sockets.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::error::Error;
use crate::sys::socket2::{self, SockRef};
use crate::sys::{self, AsFd};

/// When the system probes a silent TCP connection, and when it gives it up.
///
/// Defaults: first probe after 60 s of silence, then one every 5 s, given up after 3.
///
/// ```
/// use std::time::Duration;
/// use warmline::{TcpConnector, TcpKeepalive};
///
/// let keepalive = TcpKeepalive::default().idle(Duration::from_secs(30)).count(5);
/// let connector = TcpConnector::new().keepalive(keepalive);
/// # let _ = connector;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpKeepalive {
    idle: Duration,
    interval: Duration,
    count: u32,
}

impl TcpKeepalive {
    const DEFAULT: Self =
        Self { idle: Duration::from_secs(60), interval: Duration::from_secs(5), count: 3 };

    /// Silence before the first probe, in whole seconds (default 60 s).
    #[must_use]
    pub const fn idle(mut self, idle: Duration) -> Self {
        self.idle = idle;
        self
    }

    /// Time between probes, in whole seconds (default 5 s).
    #[must_use]
    pub const fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// Unanswered probes after which the connection is dead (default 3).
    #[must_use]
    pub const fn count(mut self, count: u32) -> Self {
        self.count = count;
        self
    }

    /// Switches keepalive on for a socket: one of ours, or one that a server accepted.
    ///
    /// # Errors
    ///
    /// What the system says.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::net::{TcpListener, TcpStream};
    /// use warmline::TcpKeepalive;
    ///
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// let _client = TcpStream::connect(listener.local_addr()?)?;
    /// let (accepted, _) = listener.accept()?;
    /// TcpKeepalive::default().apply(&accepted)?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn apply(&self, socket: &impl AsFd) -> io::Result<()> {
        self.apply_to(&SockRef::from(socket))
    }

    fn apply_to(&self, socket: &socket2::Socket) -> io::Result<()> {
        let keepalive = socket2::TcpKeepalive::new()
            .with_time(self.idle)
            .with_interval(self.interval)
            .with_retries(self.count);
        socket.set_tcp_keepalive(&keepalive)
    }

    /// After how long a peer that vanished in silence is given up.
    const fn gives_up_after(&self) -> Duration {
        self.idle.saturating_add(self.interval.saturating_mul(self.count))
    }

    fn check(&self) -> Result<(), Error> {
        let second = Duration::from_secs(1);
        let most = Duration::from_secs(32_767);
        for (name, value) in [("idle", self.idle), ("interval", self.interval)] {
            if value < second || value > most {
                return Err(Error::config(format!(
                    "keepalive {name}({value:?}): must be from 1s to {most:?}"
                )));
            }
        }
        if self.count == 0 || self.count > 127 {
            let count = self.count;
            return Err(Error::config(format!("keepalive count({count}): must be from 1 to 127")));
        }
        Ok(())
    }
}

impl Default for TcpKeepalive {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Options of the sockets that a [`Plan`](crate::Plan) asks for.
///
/// [`TcpConnector`](crate::TcpConnector) and `UnixConnector` have the same setters. What makes no
/// sense is refused when an endpoint is first named, with
/// [`ErrorKind::Config`](crate::ErrorKind::Config); on Unix sockets the options of TCP are ignored.
///
/// ```
/// use std::time::Duration;
/// use warmline::SocketOptions;
///
/// let options = SocketOptions::new().nodelay(false).read_timeout(Duration::from_secs(5));
/// # let _ = options;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketOptions {
    pub(crate) nodelay: bool,
    pub(crate) keepalive: Option<TcpKeepalive>,
    pub(crate) user_timeout: Option<Option<Duration>>,
    pub(crate) read_timeout: Option<Duration>,
    pub(crate) write_timeout: Option<Duration>,
    pub(crate) recv_buffer: Option<usize>,
    pub(crate) send_buffer: Option<usize>,
    pub(crate) local_address: Option<IpAddr>,
    pub(crate) one_way: bool,
}

/// Declares the setters once for [`SocketOptions`] and for the connectors that hold one.
macro_rules! setters {
    ($($options:ident)?) => {
        /// Sends small writes at once (`TCP_NODELAY`). Default: on.
        #[must_use]
        pub const fn nodelay(mut self, on: bool) -> Self {
            self.$($options.)?nodelay = on;
            self
        }

        /// Probes of a silent connection by the system. Default: 60 s, 5 s, 3; `None`: none.
        #[must_use]
        pub fn keepalive(mut self, keepalive: impl Into<Option<$crate::TcpKeepalive>>) -> Self {
            self.$($options.)?keepalive = keepalive.into();
            self
        }

        /// How long sent data may stay unacknowledged (`TCP_USER_TIMEOUT`, Linux).
        ///
        /// Default: as long as keepalive takes to give up, 75 s. A lower value also overrides
        /// keepalive's count: the system gives the connection up at whichever comes first.
        /// `None`: the system's own.
        #[must_use]
        pub fn user_timeout(
            mut self,
            timeout: impl Into<Option<std::time::Duration>>,
        ) -> Self {
            self.$($options.)?user_timeout = Some(timeout.into());
            self
        }

        /// How long one read may block. Default: 30 s; `None`: for ever.
        ///
        /// Precise to the system's timer tick: 4 ms to 10 ms more.
        #[must_use]
        pub fn read_timeout(
            mut self,
            timeout: impl Into<Option<std::time::Duration>>,
        ) -> Self {
            self.$($options.)?read_timeout = timeout.into();
            self
        }

        /// How long one write may block. Default: 30 s; `None`: for ever.
        #[must_use]
        pub fn write_timeout(
            mut self,
            timeout: impl Into<Option<std::time::Duration>>,
        ) -> Self {
            self.$($options.)?write_timeout = timeout.into();
            self
        }

        /// The size of the receive buffer (`SO_RCVBUF`), in bytes. Default: the system's.
        #[must_use]
        pub fn recv_buffer(mut self, bytes: impl Into<Option<usize>>) -> Self {
            self.$($options.)?recv_buffer = bytes.into();
            self
        }

        /// The size of the send buffer (`SO_SNDBUF`), in bytes. Default: the system's.
        #[must_use]
        pub fn send_buffer(mut self, bytes: impl Into<Option<usize>>) -> Self {
            self.$($options.)?send_buffer = bytes.into();
            self
        }

        /// The local address to connect from. Default: the system's choice.
        #[must_use]
        pub fn local_address(
            mut self,
            address: impl Into<Option<std::net::IpAddr>>,
        ) -> Self {
            self.$($options.)?local_address = address.into();
            self
        }

        /// For protocols whose requests have no answer: a connection that was written to and not
        /// read from may be reused. Default: off, it is closed
        /// ([`Unfinished`](crate::CloseReason::Unfinished)).
        #[must_use]
        pub const fn one_way(mut self, on: bool) -> Self {
            self.$($options.)?one_way = on;
            self
        }
    };
}
pub(super) use setters;

impl SocketOptions {
    /// The defaults.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            nodelay: true,
            keepalive: Some(TcpKeepalive::DEFAULT),
            user_timeout: None,
            read_timeout: Some(Duration::from_secs(30)),
            write_timeout: Some(Duration::from_secs(30)),
            recv_buffer: None,
            send_buffer: None,
            local_address: None,
            one_way: false,
        }
    }

    setters!();

    /// The user time-out in force, if any.
    pub(crate) fn user_timeout_in_force(&self) -> Option<Duration> {
        self.user_timeout
            .unwrap_or_else(|| self.keepalive.map(|keepalive| keepalive.gives_up_after()))
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        let times = [
            ("read_timeout", self.read_timeout),
            ("write_timeout", self.write_timeout),
            ("user_timeout", self.user_timeout.flatten()),
        ];
        for (name, value) in times {
            if value.is_some_and(|value| value < Duration::from_millis(1)) {
                let value = value.unwrap_or_default();
                return Err(Error::config(format!("{name}({value:?}): must be at least 1ms")));
            }
        }
        let sizes = [("recv_buffer", self.recv_buffer), ("send_buffer", self.send_buffer)];
        for (name, value) in sizes {
            let is_absurd = value.is_some_and(|bytes| bytes == 0 || bytes > 1 << 30);
            if is_absurd {
                let value = value.unwrap_or_default();
                return Err(Error::config(format!("{name}({value}): must be from 1 to 1 GiB")));
            }
        }
        self.keepalive.map_or(Ok(()), |keepalive| keepalive.check())
    }

    /// Sets what a socket needs before it connects.
    pub(crate) fn apply_before_connect(&self, socket: &socket2::Socket) -> io::Result<()> {
        if let Some(bytes) = self.recv_buffer {
            socket.set_recv_buffer_size(bytes)?;
        }
        if let Some(bytes) = self.send_buffer {
            socket.set_send_buffer_size(bytes)?;
        }
        Ok(())
    }

    /// Those of the addresses that the local one, if it is set, can connect to; all if it can to
    /// none, so that the system says why.
    pub(crate) fn reachable(&self, addresses: &[SocketAddr]) -> Vec<SocketAddr> {
        let fits = |address: &&SocketAddr| {
            self.local_address.is_none_or(|local| local.is_ipv6() == address.is_ipv6())
        };
        let fitting: Vec<_> = addresses.iter().filter(fits).copied().collect();
        if fitting.is_empty() { addresses.to_vec() } else { fitting }
    }

    /// Binds a TCP socket to the local address, if one is set.
    pub(crate) fn bind_tcp(&self, socket: &socket2::Socket) -> io::Result<()> {
        self.local_address
            .map_or(Ok(()), |address| socket.bind(&SocketAddr::new(address, 0).into()))
    }

    /// Sets what belongs to TCP.
    pub(crate) fn apply_tcp(&self, socket: &socket2::Socket) -> io::Result<()> {
        socket.set_tcp_nodelay(self.nodelay)?;
        if let Some(keepalive) = &self.keepalive {
            keepalive.apply_to(socket)?;
        }
        sys::set_user_timeout(socket, self.user_timeout_in_force())
    }
}

impl Default for SocketOptions {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_make_no_sense_are_refused_by_name() {
        let refused = |options: SocketOptions, name: &str| {
            let text = options.check().unwrap_err().to_string();
            assert!(text.starts_with(name), "{text}");
        };
        let new = SocketOptions::new;
        refused(new().read_timeout(Duration::ZERO), "read_timeout(0ns)");
        refused(new().write_timeout(Duration::ZERO), "write_timeout(0ns)");
        refused(new().recv_buffer(0), "recv_buffer(0)");
        refused(new().send_buffer(usize::MAX), "send_buffer(");
        refused(new().keepalive(TcpKeepalive::default().idle(Duration::ZERO)), "keepalive idle");
        refused(new().keepalive(TcpKeepalive::default().count(0)), "keepalive count(0)");
        assert!(new().read_timeout(None).keepalive(None).check().is_ok());
    }

    #[test]
    fn the_user_time_out_follows_keepalive_unless_it_is_set() {
        let options = SocketOptions::new();
        assert_eq!(options.user_timeout_in_force(), Some(Duration::from_secs(75)));
        assert_eq!(options.clone().keepalive(None).user_timeout_in_force(), None);
        assert_eq!(options.user_timeout(None).user_timeout_in_force(), None);
    }
}
