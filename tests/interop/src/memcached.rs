//! Memcached by hand: a few lines of its text protocol on the pool's own [`Socket`].
//!
//! ```no_run
//! use interop::memcached::Memcached;
//! use warmline::Pool;
//!
//! # fn main() -> std::io::Result<()> {
//! let pool = Pool::builder(Memcached::new()).build()?;
//! let endpoint = pool.endpoint("127.0.0.1:11211")?;
//! endpoint.get()?.set("greeting", b"hello")?;
//! assert_eq!(endpoint.get()?.get("greeting")?, Some(b"hello".to_vec()));
//! # Ok(())
//! # }
//! ```

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Shutdown;

use warmline::{
    Address, Beat, BoxError, Connector, Heartbeat, Opening, Plan, Socket, TcpConnector, Watch,
};

/// Longer values are not believed: a server keeps no more in one place, unless told to.
const LONGEST: u64 = 1 << 20;

/// Opens connections to memcached, and logs in where that is asked for.
#[derive(Debug, Default)]
pub struct Memcached {
    tcp: TcpConnector,
    login: Option<String>,
}

impl Memcached {
    /// To servers that ask for no password.
    pub fn new() -> Self {
        Self::default()
    }

    /// Logs in with a name and a password.
    pub fn login(mut self, user: &str, password: &str) -> Self {
        self.login = Some(format!("{user} {password}"));
        self
    }
}

impl Connector for Memcached {
    type Key = Address;
    type Conn = Client;

    fn plan(&self, key: &Address) -> Plan {
        self.tcp.plan(key)
    }

    fn open(&self, _: &Address, opening: &mut Opening) -> Result<Client, BoxError> {
        let mut client = Client(BufReader::new(opening.take_socket()?));
        // A full server says so in place of the first answer.
        match &self.login {
            // This is how the text protocol logs in: by a `set` of whatever key.
            Some(login) => client.set("login", login.as_bytes())?,
            None => client.version().map(drop)?,
        }
        Ok(client)
    }

    fn socket<'c>(&self, conn: &'c mut Client) -> Option<&'c mut Socket> {
        Some(conn.0.get_mut())
    }

    fn watch<'c>(&self, conn: &'c Client) -> Watch<'c> {
        conn.0.get_ref().watch()
    }

    fn heartbeat(&self, _: &Address) -> Option<Box<dyn Heartbeat>> {
        // "meta no-op": does nothing, and says that it is done.
        Some(Box::new(Beat::new("mn\r\n", "MN\r\n")))
    }
}

/// A connection to memcached. It has no state between commands: nothing is to be reset.
#[derive(Debug)]
pub struct Client(BufReader<Socket>);

impl Client {
    /// Which version the server is.
    ///
    /// # Errors
    ///
    /// What the server says in place of that, or what went wrong on the connection, which is then
    /// of no more use. So it is with all methods.
    pub fn version(&mut self) -> io::Result<String> {
        self.exchange(b"version\r\n", |reader| {
            let line = line(reader)?;
            line.strip_prefix("VERSION ").map(str::to_owned).ok_or_else(|| unexpected(&line))
        })
    }

    /// Keeps a value under a key.
    ///
    /// # Errors
    ///
    /// As [`version`](Client::version).
    pub fn set(&mut self, key: &str, value: &[u8]) -> io::Result<()> {
        check(key)?;
        let mut request = format!("set {key} 0 0 {}\r\n", value.len()).into_bytes();
        request.extend_from_slice(value);
        request.extend_from_slice(b"\r\n");
        self.exchange(&request, |reader| match line(reader)?.as_str() {
            "STORED" => Ok(()),
            other => Err(unexpected(other)),
        })
    }

    /// What is kept under a key.
    ///
    /// # Errors
    ///
    /// As [`version`](Client::version).
    pub fn get(&mut self, key: &str) -> io::Result<Option<Vec<u8>>> {
        check(key)?;
        self.exchange(format!("get {key}\r\n").as_bytes(), |reader| {
            let head = line(reader)?;
            if head == "END" {
                return Ok(None);
            }
            let length = head.strip_prefix(&format!("VALUE {key} 0 "));
            let length = length.and_then(|length| length.parse().ok());
            let length = length.filter(|length| *length <= LONGEST);
            let length = length.ok_or_else(|| unexpected(&head))?;
            let mut value = Vec::new();
            reader.by_ref().take(length).read_to_end(&mut value)?;
            match [line(reader)?, line(reader)?] {
                [end, last] if end.is_empty() && last == "END" => Ok(Some(value)),
                [end, last] => Err(unexpected(&format!("{end}{last}"))),
            }
        })
    }

    /// Sends a request and reads its answer. A line that was not expected ends the connection as
    /// well: what follows it is not known.
    fn exchange<T>(
        &mut self,
        request: &[u8],
        read: impl FnOnce(&mut BufReader<Socket>) -> io::Result<T>,
    ) -> io::Result<T> {
        let written = self.0.get_mut().write_all(request);
        let answer = written.and_then(|()| read(&mut self.0));
        if answer.is_ok() && self.0.buffer().is_empty() {
            self.0.get_mut().set_complete();
            return answer;
        }
        let _closed_already = self.0.get_mut().shutdown(Shutdown::Both);
        answer.and_then(|_| Err(unexpected("more than was asked for")))
    }
}

/// Refuses what is no key. With a space or the end of a line in it, it would be another request,
/// and the next user would read the answer to that.
fn check(key: &str) -> io::Result<()> {
    let is_key = |byte: u8| byte > b' ' && byte != 0x7F;
    if (1..=250).contains(&key.len()) && key.bytes().all(is_key) {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "not a key of memcached"))
}

/// One line, without its end.
fn line(reader: &mut BufReader<Socket>) -> io::Result<String> {
    let mut line = Vec::new();
    reader.by_ref().take(1024).read_until(b'\n', &mut line)?;
    match line.strip_suffix(b"\r\n") {
        Some(line) => Ok(String::from_utf8_lossy(line).into_owned()),
        None if line.is_empty() => Err(io::ErrorKind::UnexpectedEof.into()),
        None => Err(unexpected(&String::from_utf8_lossy(&line))),
    }
}

fn unexpected(said: &str) -> io::Error {
    io::Error::other(format!("unexpected answer {said:?}"))
}
