//! Connections to origins, as the pool sees them.

use std::fmt;
use std::time::Duration;

use crate::clock::{Deadline, Stamp};
use crate::connector::{Connector, Opening, Plan, Reset, Socket, SocketOptions, Watch};
use crate::error::BoxError;
use crate::http::content::{Content, Trouble};
use crate::http::origin::Origin;

/// A body that was dropped before its end is read up to here, so that its connection can be used
/// again.
const MOST_DRAINED: u64 = 256 * 1024;
/// And for so long.
pub(crate) const DRAIN_TIME: Duration = Duration::from_millis(50);

/// Opens connections for a [`Client`](crate::http::Client), and knows when they can be used again.
///
/// ```
/// use warmline::http::Client;
///
/// let client = Client::new();
/// let pool: &warmline::Pool<warmline::http::OriginConnector> = client.pool();
/// assert_eq!(pool.stats().total(), 0);
/// ```
#[derive(Clone, Debug)]
pub struct OriginConnector {
    pub(crate) options: SocketOptions,
}

/// A connection to an origin, of whatever kind.
pub struct Conn {
    pub(crate) socket: Socket,
    /// What is left of the last answer, to be read before the next request.
    unread: Option<Box<Content>>,
    /// For how many seconds it may be idle, as the server has told.
    pub(crate) told_idle: Option<u32>,
    pub(crate) resolve: Duration,
    pub(crate) connect: Duration,
    /// When its last answer had ended.
    pub(crate) rested: Stamp,
}

impl fmt::Debug for Conn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conn").field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl Conn {
    /// Leaves the rest of an answer to the pool, if it is little enough to be read; false if not.
    pub(crate) fn leave(&mut self, content: Content) -> bool {
        let is_short = content.left().is_none_or(|left| left <= MOST_DRAINED);
        if content.is_endless() || !is_short {
            return false;
        }
        self.unread = Some(Box::new(content));
        // What is there is known of: the pool need not look.
        self.socket.set_complete();
        true
    }

    fn drain(&mut self, deadline: Deadline) -> Result<(), BoxError> {
        let Some(mut content) = self.unread.take() else { return Ok(()) };
        let by = deadline.min(Deadline::after(DRAIN_TIME));
        let (mut sink, mut drained) = ([0; 8 * 1024], 0);
        while !content.is_done() {
            let count = content.read(&mut self.socket, &mut sink, || by).map_err(words)?;
            drained += count as u64;
            if drained > MOST_DRAINED {
                return Err("the rest of the answer is too long to read".into());
            }
        }
        if let Some(objection) = content.objection(&self.socket) {
            return Err(objection.to_string().into());
        }
        Ok(()) // and the pool has a look of its own
    }
}

fn words(trouble: Trouble) -> BoxError {
    match trouble {
        Trouble::Io(error) => error.into(),
        Trouble::Ended => "the connection ended before the answer".into(),
        Trouble::Fault(fault) => fault.into(),
    }
}

impl Connector for OriginConnector {
    type Key = Origin;
    type Conn = Conn;

    fn plan(&self, origin: &Origin) -> Plan {
        origin.plan().options(self.options.clone())
    }

    fn open(&self, _: &Origin, opening: &mut Opening) -> Result<Conn, BoxError> {
        Ok(Conn {
            socket: opening.take_socket()?,
            unread: None,
            told_idle: None,
            resolve: opening.resolve(),
            connect: opening.connect(),
            rested: Stamp::ZERO,
        })
    }

    #[inline]
    fn socket<'c>(&self, conn: &'c mut Conn) -> Option<&'c mut Socket> {
        Some(&mut conn.socket)
    }

    fn watch<'c>(&self, conn: &'c Conn) -> Watch<'c> {
        conn.socket.watch()
    }

    fn reset(&self, conn: &mut Conn) -> Reset {
        if conn.unread.is_some() { Reset::Later } else { Reset::Ready }
    }

    fn settle(&self, conn: &mut Conn, deadline: Deadline) -> Result<(), BoxError> {
        conn.drain(deadline)
    }
}
