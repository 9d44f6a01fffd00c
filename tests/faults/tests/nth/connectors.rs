//! Connectors that do something themselves, and can be told to fail at it.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;

use warmline::{Address, BoxError, Connector, Deadline, Opening, Plan, Reset, Socket, Watch};

use crate::faults::{Call, meets_or_panics};

/// Reads a greeting on the socket it is given.
pub(crate) struct Greeting;

/// Does everything itself, on a socket that it shows to nobody.
pub(crate) struct Blocking;

pub(crate) struct Client {
    stream: TcpStream,
    /// It has met an error: its answers would be those to somebody else's questions.
    has_failed: bool,
}

impl Connector for Greeting {
    type Key = Address;
    type Conn = Socket;

    fn plan(&self, key: &Address) -> Plan {
        Plan::addrs([key.ip().expect("the tests name addresses")])
    }

    fn open(&self, _: &Address, opening: &mut Opening) -> Result<Socket, BoxError> {
        let mut socket = opening.take_socket()?;
        socket.read_exact(&mut [0; 1])?;
        meets_or_panics(Call::Open, Call::OpenPanics)?;
        Ok(socket)
    }

    fn socket<'c>(&self, conn: &'c mut Socket) -> Option<&'c mut Socket> {
        Some(conn)
    }

    fn watch<'c>(&self, conn: &'c Socket) -> Watch<'c> {
        conn.watch()
    }

    fn has_check(&self) -> bool {
        true
    }

    fn check(&self, conn: &mut Socket, _: Deadline) -> Result<(), BoxError> {
        check(conn)
    }
}

impl Connector for Blocking {
    type Key = Address;
    type Conn = Client;

    fn open(&self, key: &Address, opening: &mut Opening) -> Result<Client, BoxError> {
        let address = key.ip().expect("the tests name addresses");
        let mut stream = TcpStream::connect_timeout(&address, opening.deadline().remaining())?;
        stream.set_read_timeout(Some(opening.deadline().remaining()))?;
        stream.read_exact(&mut [0; 1])?;
        stream.set_read_timeout(Some(crate::support::SOON))?;
        meets_or_panics(Call::Open, Call::OpenPanics)?;
        Ok(Client { stream, has_failed: false })
    }

    fn watch<'c>(&self, conn: &'c Client) -> Watch<'c> {
        Watch::Socket(conn.stream.as_fd())
    }

    fn reset(&self, conn: &mut Client) -> Reset {
        if conn.has_failed { Reset::Close } else { Reset::Ready }
    }

    fn has_check(&self) -> bool {
        true
    }

    fn check(&self, conn: &mut Client, _: Deadline) -> Result<(), BoxError> {
        check(conn)
    }
}

fn check(conn: &mut (impl Read + Write)) -> Result<(), BoxError> {
    meets_or_panics(Call::Check, Call::CheckPanics)?;
    conn.write_all(b"?")?;
    let mut answer = [0; 1];
    conn.read_exact(&mut answer)?;
    if answer == *b"?" { Ok(()) } else { Err("that was no answer".into()) }
}

impl Client {
    fn note<T>(&mut self, result: io::Result<T>) -> io::Result<T> {
        self.has_failed |= result.is_err();
        result
    }
}

impl Read for Client {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let result = self.stream.read(buf);
        self.note(result)
    }
}

impl Write for Client {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let result = self.stream.write(buf);
        self.note(result)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
