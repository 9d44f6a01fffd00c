//! Unix-domain sockets.

use crate::connector::options::setters;
use crate::connector::{
    Beats, Connector, Heartbeat, Opening, Plan, Socket, SocketOptions, Watch, sealed,
};
use crate::error::BoxError;
use crate::key::SocketPath;

/// Opens Unix-domain stream connections; endpoints are named by path. On Unix only.
///
/// Options that belong to TCP (nodelay, keepalive, user time-out, local address) have no effect.
///
/// ```
/// use warmline::{Pool, UnixConnector};
///
/// let pool = Pool::builder(UnixConnector::new()).build()?;
/// let error = pool.get("/no/such/socket").unwrap_err();
/// assert_eq!(error.endpoint(), Some("/no/such/socket"));
/// # Ok::<(), warmline::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct UnixConnector {
    options: SocketOptions,
    beats: Beats,
}

impl UnixConnector {
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

impl Connector for UnixConnector {
    type Key = SocketPath;
    type Conn = Socket;

    fn plan(&self, key: &SocketPath) -> Plan {
        Plan::path(key.as_path()).options(self.options.clone())
    }

    fn open(&self, _: &SocketPath, opening: &mut Opening) -> Result<Socket, BoxError> {
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

    fn heartbeat(&self, _: &SocketPath) -> Option<Box<dyn Heartbeat>> {
        self.beats.make()
    }
}
