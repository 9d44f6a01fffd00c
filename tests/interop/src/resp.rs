//! Redis by hand: its protocol on the pool's own [`Socket`]. So the pool sees what happens on a
//! connection, and its event loop sends the heartbeats: no thread is needed for them, however many
//! connections are idle.
//!
//! All that is sent and received, the password as well, can be read on the way: this is for
//! networks that you trust. Elsewhere let a TLS client of your own wrap the [`Socket`], in `open`.
//!
//! ```no_run
//! use interop::resp::{Reply, Resp};
//! use warmline::Pool;
//!
//! # fn main() -> std::io::Result<()> {
//! let pool = Pool::builder(Resp::new().password("password")).build()?;
//! let endpoint = pool.endpoint("127.0.0.1:6379")?;
//! let visits = endpoint.get()?.ask(&["INCR", "visits"])?;
//! assert_eq!(visits, Reply::Integer(1));
//! # Ok(())
//! # }
//! ```

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use warmline::{
    Address, Beat, BoxError, Connector, Deadline, Heartbeat, Opening, Plan, Reset, Socket,
    TcpConnector, Watch,
};

/// An answer that claims to be longer is not believed.
const LONGEST: u64 = 64 << 20;
/// So deep may lists be in lists.
const DEEPEST: usize = 8;

/// Opens connections to Redis and logs in.
#[derive(Default)]
pub struct Resp {
    tcp: TcpConnector,
    login: Vec<String>,
}

impl Resp {
    /// To servers that ask for no password.
    pub fn new() -> Self {
        Self::default()
    }

    /// Logs in with a password.
    pub fn password(mut self, password: &str) -> Self {
        self.login = vec!["AUTH".to_owned(), password.to_owned()];
        self
    }

    /// How long one read or write may block: not less than a command is to wait at the server.
    pub fn read_timeout(mut self, timeout: Duration) -> Self {
        self.tcp = self.tcp.read_timeout(timeout).write_timeout(timeout);
        self
    }
}

/// Without the password.
impl fmt::Debug for Resp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resp").field("tcp", &self.tcp).finish_non_exhaustive()
    }
}

impl Connector for Resp {
    type Key = Address;
    type Conn = Client;

    fn plan(&self, key: &Address) -> Plan {
        self.tcp.plan(key)
    }

    fn open(&self, _: &Address, opening: &mut Opening) -> Result<Client, BoxError> {
        // Its reads and writes end at the deadline.
        let socket = opening.take_socket()?;
        let mut client = Client { socket: BufReader::new(socket), session: Session::default() };
        // A server that is full, or no Redis at all, says so in answer to the first command. To
        // connect proves nothing: the system does that for it.
        let (answer, expected) = match self.login.as_slice() {
            [] => (client.ask(&["PING"])?, "PONG"),
            login => (client.ask(login).map_err(unquoted)?, "OK"),
        };
        match (answer, self.login.last()) {
            (Reply::Status(text), _) if text == expected => {
                // To log in is no state that a user left.
                Ok(Client { session: Session::default(), ..client })
            }
            (Reply::Error(text), Some(password)) => Err(hushed(text, password).into()),
            (Reply::Error(text), None) => Err(text.into()),
            // Others begin like that as well: mail servers do. Or they repeat what they are told.
            (other, Some(_)) => Err(no_redis(other.kind()).into()),
            (other, None) => Err(no_redis(&format!("{other:?}")).into()),
        }
    }

    fn socket<'c>(&self, conn: &'c mut Client) -> Option<&'c mut Socket> {
        Some(conn.socket.get_mut())
    }

    fn watch<'c>(&self, conn: &'c Client) -> Watch<'c> {
        conn.socket.get_ref().watch()
    }

    fn reset(&self, conn: &mut Client) -> Reset {
        conn.session.reset()
    }

    fn settle(&self, conn: &mut Client, _: Deadline) -> Result<(), BoxError> {
        // The pool sees to the deadline: the socket is its own.
        match conn.session.undo().map(|command| conn.ask(&[command])).transpose()? {
            None | Some(Reply::Status(_)) => Ok(()),
            Some(other) => Err(other.unexpected().into()),
        }
    }

    fn heartbeat(&self, _: &Address) -> Option<Box<dyn Heartbeat>> {
        Some(Box::new(Beat::redis()))
    }
}

/// A connection to Redis.
#[derive(Debug)]
pub struct Client {
    socket: BufReader<Socket>,
    session: Session,
}

impl Client {
    /// Sends a command and reads its answer.
    ///
    /// # Errors
    ///
    /// What went wrong on the connection, which is then of no more use. What the server has against
    /// the command is a [`Reply::Error`], and no error.
    pub fn ask<W: AsRef<[u8]>>(&mut self, command: &[W]) -> io::Result<Reply> {
        let mut replies = self.ask_all(&[command])?;
        replies.pop().ok_or_else(|| odd("no answer"))
    }

    /// Sends commands in one write and reads their answers, which are in the same order.
    ///
    /// # Errors
    ///
    /// As [`ask`](Client::ask).
    pub fn ask_all<W: AsRef<[u8]>>(&mut self, commands: &[&[W]]) -> io::Result<Vec<Reply>> {
        let mut request = Vec::new();
        for command in commands {
            let word = |at: usize| command.get(at).map_or(&[][..], AsRef::as_ref);
            self.session.note(word(0), word(1));
            encode(&mut request, command);
        }
        let replies = self.exchange(&request, commands.len());
        if replies.is_ok() && self.socket.buffer().is_empty() {
            // Every answer was read to its end: the pool need not look whether something is left.
            self.socket.get_mut().set_complete();
            return replies;
        }
        // Nobody knows what comes next on this connection: it must not be reused.
        let _closed_already = self.socket.get_mut().shutdown(Shutdown::Both);
        replies.and_then(|_| Err(odd("more answers than commands")))
    }

    fn exchange(&mut self, request: &[u8], count: usize) -> io::Result<Vec<Reply>> {
        self.socket.get_mut().write_all(request)?;
        (0..count).map(|_| read_reply(&mut self.socket, DEEPEST)).collect()
    }
}

/// What Redis answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    Status(String),
    Error(String),
    Integer(i64),
    /// Bytes; `None` where there is nothing.
    Bulk(Option<Vec<u8>>),
    /// Several answers; `None` where there is nothing.
    List(Option<Vec<Reply>>),
}

impl Reply {
    fn kind(&self) -> &'static str {
        match self {
            Self::Status(_) => "a status",
            Self::Error(_) => "an error",
            Self::Integer(_) => "a number",
            Self::Bulk(_) => "bytes",
            Self::List(_) => "a list",
        }
    }

    /// For who expected something else: the server's own words, if it had an objection.
    pub fn unexpected(&self) -> io::Error {
        match self {
            Self::Error(text) => io::Error::other(text.clone()),
            other => odd(&format!("unexpected answer {other:?}")),
        }
    }
}

/// What a server has against a login, unless it says the password again, as those do that have
/// never heard of logging in.
pub fn hushed(said: String, password: &str) -> String {
    let quoted = password.escape_debug().to_string();
    if said.contains(password) || said.contains(&quoted) || said.contains("unknown command") {
        return "the server refuses the login, in words that may show the password".to_owned();
    }
    said
}

/// The same without what was said: it may be the password, said again.
fn unquoted(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::InvalidData { no_redis("something else") } else { error }
}

fn odd(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Appends a command: the count of its words, then each with its length.
fn encode<W: AsRef<[u8]>>(request: &mut Vec<u8>, command: &[W]) {
    request.extend_from_slice(format!("*{}\r\n", command.len()).as_bytes());
    for word in command.iter().map(AsRef::as_ref) {
        request.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        request.extend_from_slice(word);
        request.extend_from_slice(b"\r\n");
    }
}

fn read_reply(reader: &mut BufReader<Socket>, depth: usize) -> io::Result<Reply> {
    let mut line = Vec::new();
    reader.by_ref().take(1024).read_until(b'\n', &mut line)?;
    let Some(line) = line.strip_suffix(b"\r\n") else {
        // A server of another protocol is best known by what it says.
        let said = String::from_utf8_lossy(&line).into_owned();
        let is_end = said.is_empty();
        return Err(if is_end { io::ErrorKind::UnexpectedEof.into() } else { no_redis(&said) });
    };
    let line = std::str::from_utf8(line).map_err(|_| odd("a line that is no text"))?;
    let number = |text: &str| text.parse::<i64>().map_err(|_| no_redis(line));
    match (line.get(..1), line.get(1..).unwrap_or_default()) {
        (Some("+"), text) => Ok(Reply::Status(text.to_owned())),
        (Some("-"), text) => Ok(Reply::Error(text.to_owned())),
        (Some(":"), text) => number(text).map(Reply::Integer),
        (Some("$"), "-1") => Ok(Reply::Bulk(None)),
        (Some("$"), text) => {
            let length = u64::try_from(number(text)?).map_err(|_| odd("a negative length"))?;
            read_bulk(reader, length).map(|bytes| Reply::Bulk(Some(bytes)))
        }
        (Some("*"), "-1") => Ok(Reply::List(None)),
        (Some("*"), text) => {
            let depth = depth.checked_sub(1).ok_or_else(|| odd("too many lists in lists"))?;
            let replies = (0..number(text)?).map(|_| read_reply(reader, depth));
            Ok(Reply::List(Some(replies.collect::<io::Result<_>>()?)))
        }
        _ => Err(no_redis(line)),
    }
}

fn no_redis(said: &str) -> io::Error {
    odd(&format!("this is no answer of Redis: {:?}", said.trim_end()))
}

fn read_bulk(reader: &mut BufReader<Socket>, length: u64) -> io::Result<Vec<u8>> {
    if length > LONGEST {
        return Err(odd("more than 64 MiB"));
    }
    let mut bytes = Vec::new();
    reader.by_ref().take(length + 2).read_to_end(&mut bytes)?;
    match bytes.strip_suffix(b"\r\n") {
        Some(value) if value.len() as u64 == length => Ok(value.to_vec()),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// What a connection has begun and not ended, as far as its commands tell. The server does not, but
/// for a round trip.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Session {
    /// Commands are queued, not done.
    is_multi: bool,
    /// Keys are watched.
    is_watching: bool,
    /// The next user would not find what he expects, and to put it back is not worth the trouble.
    is_altered: bool,
}

impl Session {
    /// Takes note of a command, which is known by its first words.
    pub fn note(&mut self, command: &[u8], first: &[u8]) {
        match command.to_ascii_uppercase().as_slice() {
            b"MULTI" => self.is_multi = true,
            b"WATCH" => self.is_watching = true,
            b"UNWATCH" => self.is_watching = false,
            b"EXEC" | b"DISCARD" => (self.is_multi, self.is_watching) = (false, false),
            // Another database, user, protocol or purpose.
            b"SELECT" | b"AUTH" | b"HELLO" | b"RESET" | b"QUIT" | b"MONITOR" | b"READONLY"
            | b"SUBSCRIBE" | b"PSUBSCRIBE" | b"SSUBSCRIBE" => self.is_altered = true,
            b"CLIENT" => {
                let kept = ["REPLY", "TRACKING", "CACHING", "NO-EVICT", "NO-TOUCH", "SETNAME"];
                let is_kept = |it: &&str| first.eq_ignore_ascii_case(it.as_bytes());
                self.is_altered |= kept.iter().any(is_kept);
            }
            _ => {}
        }
    }

    /// Is the connection fit for a stranger?
    pub fn reset(self) -> Reset {
        match self {
            Self { is_altered: true, .. } => Reset::Close,
            _ if self.undo().is_some() => Reset::Later,
            _ => Reset::Ready,
        }
    }

    /// The command that ends what was begun.
    pub fn undo(self) -> Option<&'static str> {
        // It ends the watching as well.
        let discard = self.is_multi.then_some("DISCARD");
        discard.or_else(|| self.is_watching.then_some("UNWATCH"))
    }
}

/// The first two words of each command in a request that was encoded for sending.
pub fn commands(mut rest: &[u8]) -> impl Iterator<Item = [&[u8]; 2]> {
    std::iter::from_fn(move || {
        let mut words = [&[][..]; 2];
        for at in 0..number(&mut rest, b'*')? {
            let length = number(&mut rest, b'$')?;
            if let Some(word) = words.get_mut(at) {
                *word = rest.get(..length)?;
            }
            rest = rest.get(length + 2..)?;
        }
        Some(words)
    })
}

/// Takes a line with a number off the beginning.
fn number(rest: &mut &[u8], sign: u8) -> Option<usize> {
    let line = rest.strip_prefix(&[sign])?;
    let end = line.windows(2).position(|it| it == b"\r\n")?;
    *rest = line.get(end + 2..)?;
    std::str::from_utf8(line.get(..end)?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_of_a_pipeline_is_noted() {
        let mut request = Vec::new();
        encode(&mut request, &["WATCH", "key"]);
        encode(&mut request, &["SET", "key", "*1\r\n$4\r\nEXEC\r\n"]);
        encode(&mut request, &["multi"]);
        let found: Vec<_> = commands(&request).collect();
        assert_eq!(found, [[&b"WATCH"[..], b"key"], [b"SET", b"key"], [b"multi", b""]]);
        let mut session = Session::default();
        found.iter().for_each(|[name, first]| session.note(name, first));
        assert_eq!((session.reset(), session.undo()), (Reset::Later, Some("DISCARD")));
        session.note(b"EXEC", b"");
        assert_eq!((session.reset(), session.undo()), (Reset::Ready, None));
    }

    #[test]
    fn what_is_no_command_ends_the_search() {
        for request in
            ["", "*", "*1\r\n", "*1\r\n$9\r\nPING\r\n", "*x\r\n", "PING\r\n", "*1\r\n$-1\r\n"]
        {
            assert_eq!(commands(request.as_bytes()).next(), None, "{request:?}");
        }
    }
}
