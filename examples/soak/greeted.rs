//! The second pool's connections: they begin with a greeting, can be left in the middle of
//! something, and are checked when they have rested.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use warmline::{
    Address, BoxError, Connector, Deadline, Opening, Plan, Reset, Socket, TcpConnector, Watch,
};

use crate::board::Board;
use crate::protocol::{CHECK, HELLO, Mishap, ask};

/// Above all tags of the workers.
const FIRST_TAG: u64 = 1 << 60;

/// What users of both pools have in common.
pub(crate) trait Line: Send {
    fn socket(&mut self) -> &mut Socket;

    /// Leaves something for the pool to put in order.
    fn leave_open(&mut self) {}
}

impl Line for Socket {
    fn socket(&mut self) -> &mut Socket {
        self
    }
}

pub(crate) struct Client {
    socket: Socket,
    is_open_work: bool,
}

impl Line for Client {
    fn socket(&mut self) -> &mut Socket {
        &mut self.socket
    }

    fn leave_open(&mut self) {
        self.is_open_work = true;
    }
}

pub(crate) struct Greeted {
    tcp: TcpConnector,
    board: Arc<Board>,
    asked: AtomicU64,
}

impl Greeted {
    pub(crate) fn new(tcp: TcpConnector, board: Arc<Board>) -> Self {
        Self { tcp, board, asked: AtomicU64::new(FIRST_TAG) }
    }

    fn ask(&self, socket: &mut Socket, kind: u8) -> Result<(), Mishap> {
        let tag = self.asked.fetch_add(1, Ordering::Relaxed);
        let asked = ask(socket, kind, tag, 8);
        if let Err(mishap @ Mishap::CrossTalk { .. }) = &asked {
            self.board.note_cross_talk(mishap);
        }
        asked
    }
}

impl Connector for Greeted {
    type Key = Address;
    type Conn = Client;

    fn plan(&self, key: &Address) -> Plan {
        self.tcp.plan(key)
    }

    fn open(&self, _: &Address, opening: &mut Opening) -> Result<Client, BoxError> {
        let mut socket = opening.take_socket()?;
        self.ask(&mut socket, HELLO)?;
        Ok(Client { socket, is_open_work: false })
    }

    fn socket<'c>(&self, conn: &'c mut Client) -> Option<&'c mut Socket> {
        Some(&mut conn.socket)
    }

    fn watch<'c>(&self, conn: &'c Client) -> Watch<'c> {
        conn.socket.watch()
    }

    fn reset(&self, conn: &mut Client) -> Reset {
        if conn.is_open_work { Reset::Later } else { Reset::Ready }
    }

    fn settle(&self, conn: &mut Client, _: Deadline) -> Result<(), BoxError> {
        self.ask(&mut conn.socket, CHECK)?;
        conn.is_open_work = false;
        Ok(())
    }

    fn has_check(&self) -> bool {
        true
    }

    fn check(&self, conn: &mut Client, _: Deadline) -> Result<(), BoxError> {
        self.ask(&mut conn.socket, CHECK)?;
        Ok(())
    }
}
