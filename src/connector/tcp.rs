//! Plain TCP.

use crate::connector::options::setters;
use crate::connector::{
    Beats, Connector, Heartbeat, Opening, Plan, Socket, SocketOptions, Watch, sealed,
};
use crate::error::BoxError;
use crate::key::Address;

/// Opens plain TCP connections.
///
/// Defaults: `TCP_NODELAY` on, keepalive 60 s / 5 s / 3, user time-out 75 s, reads and writes block
/// for 30 s at most.
///
/// ```
/// use std::time::Duration;
/// use warmline::{Pool, TcpConnector};
///
/// let connector = TcpConnector::new().read_timeout(Duration::from_secs(5));
/// let pool = Pool::builder(connector).max_per_endpoint(8).build()?;
/// # Ok::<(), warmline::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct TcpConnector {
    options: SocketOptions,
    beats: Beats,
}

impl TcpConnector {
    /// With the default options.
    #[must_use]
    pub const fn new() -> Self {
        Self { options: SocketOptions::new(), beats: Beats::NONE }
    }

    /// Sends each idle connection this heartbeat, every
    /// [`check_interval`](crate::Builder::check_interval), and closes those that do not answer it.
    /// Without one, none is sent.
    #[must_use]
    pub fn heartbeat<H: Heartbeat + Clone + Sync + 'static>(mut self, heartbeat: H) -> Self {
        self.beats = Beats::of(heartbeat);
        self
    }

    setters!(options);
}

impl Connector for TcpConnector {
    type Key = Address;
    type Conn = Socket;

    fn plan(&self, key: &Address) -> Plan {
        let plan = match (key.ip(), key.host()) {
            (Some(ip), _) => Plan::addrs([ip]),
            (None, host) => Plan::host(host.unwrap_or_default(), key.port()),
        };
        plan.options(self.options.clone())
    }

    fn open(&self, _: &Address, opening: &mut Opening) -> Result<Socket, BoxError> {
        opening.take_socket()
    }

    #[inline]
    fn socket<'c>(&self, conn: &'c mut Socket) -> Option<&'c mut Socket> {
        Some(conn)
    }

    fn is_plain(&self, _: sealed::Token) -> bool {
        true
    }

    fn watch<'c>(&self, conn: &'c Socket) -> Watch<'c> {
        conn.watch()
    }

    fn heartbeat(&self, _: &Address) -> Option<Box<dyn Heartbeat>> {
        self.beats.make()
    }
}
