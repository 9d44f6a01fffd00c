//! Connectors that are not the crate's own, over TCP.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_channel::{Receiver, Sender};
use warmline::{Address, BoxError, Connector, One, Opening, Plan, Socket, Watch};

/// Opens what it is given, but only when the test says so, whatever happens to the socket.
pub(crate) struct Stubborn {
    pub(crate) begun: Sender<()>,
    pub(crate) told: Receiver<()>,
}

impl Connector for Stubborn {
    type Key = Address;
    type Conn = Socket;

    fn plan(&self, key: &Address) -> Plan {
        Plan::addrs([key.ip().unwrap()])
    }

    fn open(&self, _: &Address, opening: &mut Opening) -> Result<Socket, BoxError> {
        let socket = opening.take_socket()?;
        self.begun.send(())?;
        self.told.recv()?;
        Ok(socket)
    }
}

/// A connection is open once the server has said a word.
pub(crate) struct Greeted;

impl Connector for Greeted {
    type Key = Address;
    type Conn = Socket;

    fn plan(&self, key: &Address) -> Plan {
        Plan::addrs([key.ip().unwrap()])
    }

    fn open(&self, _: &Address, opening: &mut Opening) -> Result<Socket, BoxError> {
        let mut socket = opening.take_socket()?;
        socket.read_exact(&mut [0])?;
        Ok(socket)
    }

    fn socket<'c>(&self, conn: &'c mut Socket) -> Option<&'c mut Socket> {
        Some(conn)
    }

    fn watch<'c>(&self, conn: &'c Socket) -> Watch<'c> {
        conn.watch()
    }
}

/// Sockets of the crate with nothing to watch: what a server does to idle ones comes as a surprise.
pub(crate) struct Unwatched;

impl Connector for Unwatched {
    type Key = Address;
    type Conn = Socket;

    fn plan(&self, key: &Address) -> Plan {
        Plan::addrs([key.ip().unwrap()])
    }

    fn open(&self, _: &Address, opening: &mut Opening) -> Result<Socket, BoxError> {
        opening.take_socket()
    }

    fn socket<'c>(&self, conn: &'c mut Socket) -> Option<&'c mut Socket> {
        Some(conn)
    }
}

/// One endpoint with several addresses.
pub(crate) struct Spread(pub(crate) Vec<SocketAddr>);

impl Connector for Spread {
    type Key = One;
    type Conn = Socket;

    fn plan(&self, _: &One) -> Plan {
        Plan::addrs(self.0.clone())
    }

    fn open(&self, _: &One, opening: &mut Opening) -> Result<Socket, BoxError> {
        opening.take_socket()
    }

    fn socket<'c>(&self, conn: &'c mut Socket) -> Option<&'c mut Socket> {
        Some(conn)
    }

    fn watch<'c>(&self, conn: &'c Socket) -> Watch<'c> {
        conn.watch()
    }
}

/// What a client library shows of its connection when it is asked what to watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Show {
    Nothing,
    Socket,
    /// The number of its descriptor and no more.
    Number,
    Panic,
}

/// Connections of a client library that hides its socket, but for what it is told to show.
pub(crate) struct Foreign {
    show: Box<dyn Fn(usize) -> Show + Send + Sync>,
    asked: Arc<AtomicUsize>,
}

pub(crate) struct Client(TcpStream);

impl Foreign {
    /// Shows what `show` answers to how often it was asked before.
    pub(crate) fn new(show: impl Fn(usize) -> Show + Send + Sync + 'static) -> Self {
        Self { show: Box::new(show), asked: Arc::default() }
    }

    pub(crate) fn always(show: Show) -> Self {
        Self::new(move |_| show)
    }

    /// How often it was asked what to watch.
    pub(crate) fn asked(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.asked)
    }
}

impl Connector for Foreign {
    type Key = Address;
    type Conn = Client;

    fn plan(&self, key: &Address) -> Plan {
        Plan::addrs([key.ip().unwrap()])
    }

    fn open(&self, _: &Address, opening: &mut Opening) -> Result<Client, BoxError> {
        let stream = TcpStream::from(OwnedFd::from(opening.take_socket()?));
        stream.set_read_timeout(Some(super::SOON))?;
        Ok(Client(stream))
    }

    fn watch<'c>(&self, conn: &'c Client) -> Watch<'c> {
        let before = self.asked.fetch_add(1, Ordering::SeqCst);
        match (self.show)(before) {
            Show::Nothing => Watch::Nothing,
            Show::Socket => Watch::Socket(conn.0.as_fd()),
            Show::Number => Watch::Raw(conn.0.as_raw_fd()),
            Show::Panic => std::panic::panic_any("watch was told to panic"),
        }
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Read for Client {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }
}

impl Write for Client {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
