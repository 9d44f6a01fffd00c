//! Memcached by hand: a few lines of its text protocol on the pool's own [`Socket`].
//!
//! All that is sent and received, the password as well, can be read on the way: this is for
//! networks that you trust. Elsewhere let a TLS client of your own wrap the [`Socket`], in `open`.
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

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use warmline::{
    Address, Beat, BoxError, Connector, Heartbeat, Opening, Plan, Socket, TcpConnector, Watch,
};

/// Longer values are not believed: a server keeps no more in one place, unless told to.
const LONGEST: u64 = 1 << 20;

/// Opens connections to memcached, and logs in where that is asked for.
#[derive(Default)]
pub struct Memcached {
    tcp: TcpConnector,
    login: Option<String>,
}

impl Memcached {
    /// To servers that ask for no password.
    pub fn new() -> Self {
        Self::default()
    }

    /// Logs in with a name and a password, where the server asks for them: one that does not would
    /// keep them, as a value for all to read.
    pub fn login(mut self, user: &str, password: &str) -> Self {
        self.login = Some(format!("{user} {password}"));
        self
    }

    /// How long one read or write may block.
    pub fn read_timeout(mut self, timeout: Duration) -> Self {
        self.tcp = self.tcp.read_timeout(timeout).write_timeout(timeout);
        self
    }
}

/// Without the password.
impl fmt::Debug for Memcached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memcached").field("tcp", &self.tcp).finish_non_exhaustive()
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
        let must_log_in =
            client.exchange(b"version\r\n", |reader| match line(reader)?.as_str() {
                "CLIENT_ERROR unauthenticated" if self.login.is_some() => Ok(true),
                said if said.starts_with("VERSION ") => Ok(false),
                said => Err(unexpected(said)),
            })?;
        if let Some(login) = self.login.as_ref().filter(|_| must_log_in) {
            client.log_in(login)?;
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
        // "meta no-op": does nothing, and says that it is done. Servers before 1.6 do not know it,
        // and say "ERROR", which ends the connection: for those leave the heartbeat out.
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

    /// This is how the text protocol logs in: by a `set` of whatever key.
    fn log_in(&mut self, login: &str) -> io::Result<()> {
        let request = format!("set login 0 0 {}\r\n{login}\r\n", login.len());
        // What is no line of memcached's is not quoted: it might be the password, said again.
        let answer = |reader: &mut _| line(reader).map_err(|error| error.kind().into());
        match self.exchange(request.as_bytes(), answer)?.as_str() {
            "STORED" => Ok(()),
            known @ "CLIENT_ERROR authentication failure" => Err(unexpected(known)),
            _ => Err(io::Error::other("this is no answer of memcached to a login")),
        }
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
            // Between the two are the flags of whoever has kept it: other clients use them.
            let rest = head.strip_prefix(&format!("VALUE {key} "));
            let length = rest.and_then(|rest| rest.split_once(' ')?.1.parse().ok());
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
