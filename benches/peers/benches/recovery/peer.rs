//! r2d2, with connections as its users write them.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::remote::exchange;

/// Nothing here takes so long.
const PATIENCE: Duration = Duration::from_secs(10);

/// Opens plain sockets, and counts what it tries.
pub(crate) struct Manager {
    pub(crate) address: SocketAddr,
    pub(crate) connects: Arc<AtomicU64>,
}

/// A connection that knows whether it has failed.
pub(crate) struct Conn {
    stream: TcpStream,
    has_failed: bool,
}

impl Conn {
    pub(crate) fn exchange(&mut self) -> io::Result<()> {
        let exchanged = exchange(&mut self.stream);
        self.has_failed |= exchanged.is_err();
        exchanged
    }
}

impl r2d2::ManageConnection for Manager {
    type Connection = Conn;
    type Error = io::Error;

    fn connect(&self) -> io::Result<Conn> {
        self.connects.fetch_add(1, Ordering::Relaxed);
        let stream = TcpStream::connect(self.address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Conn { stream, has_failed: false })
    }

    /// A round trip, at each checkout unless it is told not to.
    fn is_valid(&self, conn: &mut Conn) -> io::Result<()> {
        conn.exchange()
    }

    fn has_broken(&self, conn: &mut Conn) -> bool {
        conn.has_failed
    }
}
