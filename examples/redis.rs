//! How do I talk to a real server through the pool? A small Redis client: threads, pipelining,
//! and what to tell the pool about the end of an answer.
//!
//! ```text
//! cargo run --example redis                       # starts a redis-server of its own
//! cargo run --example redis 127.0.0.1:6379        # uses this one, and a few keys "warmline:…"
//! REDIS_ADDR=127.0.0.1:6379 cargo run --example redis
//! ```
#![expect(clippy::print_stdout, reason = "an example reports to its user")]

use std::error::Error;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use warmline::{Deadline, Endpoint, Pool, PooledConn, Repeat, TcpConnector};

type Failure = Box<dyn Error + Send + Sync>;
type Conn = PooledConn<TcpConnector>;

const THREADS: usize = 8;
const ROUNDS: usize = 500;
/// Keys are removed by the server after this many seconds.
const SECONDS: &str = "60";

fn main() -> Result<(), Failure> {
    env_logger::init();
    let address = std::env::args().nth(1).or_else(|| std::env::var("REDIS_ADDR").ok());
    let own = if address.is_none() { Some(OwnServer::start()?) } else { None };
    let Some(address) = address.or_else(|| own.as_ref().map(OwnServer::address)) else {
        return Err("there is no server".into());
    };

    let pool = Pool::builder(TcpConnector::new().read_timeout(Duration::from_secs(5)))
        .name("redis")
        .max_per_endpoint(THREADS)
        .build()?;
    let redis = pool.endpoint(&address)?;
    wait_until_ready(&redis)?;
    println!("redis at {}: it answers PING", redis.key());

    set_and_get(&redis)?;
    count_in_threads(&redis)?;
    pipeline(&redis)?;
    survive_a_closed_connection(&redis)?;

    println!("stats: {}", redis.stats());
    pool.drain(Deadline::after(Duration::from_secs(5)))?;
    Ok(())
}

fn wait_until_ready(redis: &Endpoint<TcpConnector>) -> Result<(), Failure> {
    let deadline = Deadline::after(Duration::from_secs(5));
    loop {
        let result = redis.get().map_err(io::Error::from).and_then(|mut conn| {
            let answer = ask(&mut conn, &[b"PING"])?;
            if answer == Reply::Status("PONG".into()) { Ok(()) } else { Err(answer.unexpected()) }
        });
        match result {
            Ok(()) => return Ok(()),
            Err(error) if deadline.has_passed() => return Err(error.into()),
            Err(_) => thread::park_timeout(Duration::from_millis(20)),
        }
    }
}

fn set_and_get(redis: &Endpoint<TcpConnector>) -> Result<(), Failure> {
    let mut conn = redis.get()?;
    let value = "line one\r\nline two".as_bytes(); // bulk strings are counted, not terminated
    let command: &[&[u8]] = &[b"SET", b"warmline:text", value, b"EX", SECONDS.as_bytes()];
    expect(&ask(&mut conn, command)?, "OK")?;
    drop(conn);
    let found = get(redis, "warmline:text")?;
    if found.as_deref() != Some(value) {
        return Err(format!("GET gave {found:?}").into());
    }
    println!("SET and GET: {} bytes came back as they went", value.len());
    Ok(())
}

/// GET changes nothing, so it may be sent again if the connection turns out to have been closed by
/// the server while it was idle.
fn get(redis: &Endpoint<TcpConnector>, key: &str) -> io::Result<Option<Vec<u8>>> {
    redis.run(Repeat::Always, |conn| match ask(conn, &[b"GET", key.as_bytes()])? {
        Reply::Bulk(value) => Ok(value),
        other => Err(other.unexpected()),
    })
}

/// Every thread takes a connection for one command and gives it back.
fn count_in_threads(redis: &Endpoint<TcpConnector>) -> Result<(), Failure> {
    let key = format!("warmline:counter:{}", std::process::id());
    let count = || -> Result<(), Failure> {
        for _ in 0..ROUNDS {
            let mut conn = redis.get()?;
            match ask(&mut conn, &[b"INCR", key.as_bytes()])? {
                Reply::Integer(_) => {}
                other => return Err(other.unexpected().into()),
            }
        }
        Ok(())
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(count)).collect();
        threads.into_iter().try_for_each(|t| t.join().map_err(|_| "a thread panicked")?)
    })?;
    let counted = get(redis, &key)?;
    let expected = (THREADS * ROUNDS).to_string();
    if counted.as_deref() != Some(expected.as_bytes()) {
        return Err(format!("counted {counted:?} instead of {expected}").into());
    }
    expect_integer(&ask(&mut redis.get()?, &[b"DEL", key.as_bytes()])?)?;
    let opened = redis.stats().opened();
    println!("INCR: {THREADS} threads counted to {expected} over {opened} connections");
    Ok(())
}

/// Many commands are written before the first answer is read.
fn pipeline(redis: &Endpoint<TcpConnector>) -> Result<(), Failure> {
    let keys: Vec<String> = (0..100).map(|number| format!("warmline:pipe:{number}")).collect();
    let mut conn = redis.get()?;
    let mut requests = Vec::new();
    for key in &keys {
        let value = key.to_uppercase();
        let seconds = SECONDS.as_bytes();
        encode(&mut requests, &[b"SET", key.as_bytes(), value.as_bytes(), b"EX", seconds]);
        encode(&mut requests, &[b"GET", key.as_bytes()]);
    }
    let replies = exchange(&mut conn, &requests, 2 * keys.len())?;
    let mut replies = replies.into_iter();
    for key in &keys {
        expect(&replies.next().ok_or("an answer is missing")?, "OK")?;
        let found = replies.next().ok_or("an answer is missing")?;
        if found != Reply::Bulk(Some(key.to_uppercase().into_bytes())) {
            return Err(found.unexpected().into());
        }
    }
    println!("pipeline: {} commands in one write, answered in order", 2 * keys.len());
    Ok(())
}

/// The server ends an idle connection; `run` notices and asks on another.
fn survive_a_closed_connection(redis: &Endpoint<TcpConnector>) -> Result<(), Failure> {
    let mut killer = redis.get()?;
    let mut victim = redis.get()?;
    let Reply::Integer(id) = ask(&mut victim, &[b"CLIENT", b"ID"])? else {
        println!("CLIENT KILL: skipped, this server does not know CLIENT ID");
        return Ok(());
    };
    drop(victim); // idle again, and the next to be handed out
    expect_integer(&ask(&mut killer, &[b"CLIENT", b"KILL", b"ID", id.to_string().as_bytes()])?)?;
    let mut uses = 0;
    let found = redis.run(Repeat::Always, |conn| {
        uses += 1;
        ask(conn, &[b"GET", b"warmline:text"])
    })?;
    if !matches!(found, Reply::Bulk(Some(_))) {
        return Err(found.unexpected().into());
    }
    println!("CLIENT KILL of an idle connection: GET was answered on connection number {uses}");
    Ok(())
}

/// What Redis answers.
#[derive(Debug, PartialEq, Eq)]
enum Reply {
    Status(String),
    Error(String),
    Integer(i64),
    /// Bytes; `None` where there is nothing.
    Bulk(Option<Vec<u8>>),
}

impl Reply {
    fn unexpected(&self) -> io::Error {
        match self {
            Self::Error(text) => io::Error::other(text.clone()),
            other => odd(&format!("unexpected answer {other:?}")),
        }
    }
}

fn expect(reply: &Reply, status: &str) -> io::Result<()> {
    if *reply == Reply::Status(status.into()) { Ok(()) } else { Err(reply.unexpected()) }
}

fn expect_integer(reply: &Reply) -> io::Result<i64> {
    if let Reply::Integer(number) = reply { Ok(*number) } else { Err(reply.unexpected()) }
}

fn odd(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// One command and its answer.
fn ask(conn: &mut Conn, command: &[&[u8]]) -> io::Result<Reply> {
    let mut request = Vec::new();
    encode(&mut request, command);
    let replies = exchange(conn, &request, 1)?;
    replies.into_iter().next().ok_or_else(|| odd("no answer"))
}

/// Appends a command: the count of its parts, then each with its length.
fn encode(request: &mut Vec<u8>, command: &[&[u8]]) {
    request.extend_from_slice(format!("*{}\r\n", command.len()).as_bytes());
    for part in command {
        request.extend_from_slice(format!("${}\r\n", part.len()).as_bytes());
        request.extend_from_slice(part);
        request.extend_from_slice(b"\r\n");
    }
}

/// Writes requests and reads that many answers.
fn exchange(conn: &mut Conn, requests: &[u8], count: usize) -> io::Result<Vec<Reply>> {
    conn.write_all(requests)?;
    let mut reader = BufReader::new(conn);
    let replies = (0..count).map(|_| read_reply(&mut reader)).collect::<io::Result<Vec<_>>>();
    let is_at_end = reader.buffer().is_empty();
    let conn = reader.into_inner();
    match replies {
        Ok(replies) if is_at_end => {
            conn.set_complete(); // every answer was read to its end, and nothing after it
            Ok(replies)
        }
        outcome => {
            // Nobody knows what comes next on this connection: it must not be reused.
            let _closed_already = conn.shutdown(std::net::Shutdown::Both);
            outcome.and_then(|_| Err(odd("more answers than requests")))
        }
    }
}

fn read_reply(reader: &mut BufReader<&mut Conn>) -> io::Result<Reply> {
    let mut line = Vec::new();
    reader.by_ref().take(1024).read_until(b'\n', &mut line)?;
    let Some(line) = line.strip_suffix(b"\r\n") else {
        return Err(io::ErrorKind::UnexpectedEof.into());
    };
    let line = std::str::from_utf8(line).map_err(|_| odd("a line that is no text"))?;
    let number = |text: &str| text.parse::<i64>().map_err(|_| odd("not a number"));
    match (line.get(..1), line.get(1..).unwrap_or_default()) {
        (Some("+"), text) => Ok(Reply::Status(text.to_owned())),
        (Some("-"), text) => Ok(Reply::Error(text.to_owned())),
        (Some(":"), text) => number(text).map(Reply::Integer),
        (Some("$"), "-1") => Ok(Reply::Bulk(None)),
        (Some("$"), text) => {
            let length = u64::try_from(number(text)?).map_err(|_| odd("a negative length"))?;
            if length > 64 << 20 {
                return Err(odd("more than 64 MiB"));
            }
            let mut value = Vec::new();
            reader.by_ref().take(length + 2).read_to_end(&mut value)?;
            match value.strip_suffix(b"\r\n") {
                Some(value) if value.len() as u64 == length => Ok(Reply::Bulk(Some(value.into()))),
                _ => Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
        _ => Err(odd("this small client knows no such answer")),
    }
}

/// A redis-server on a port of this machine, which ends with this value.
struct OwnServer {
    child: Child,
    port: u16,
    _directory: tempfile::TempDir,
}

impl OwnServer {
    fn start() -> Result<Self, Failure> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let directory = tempfile::tempdir()?;
        let child = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", ""])
            .arg("--dir")
            .arg(directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        match child {
            Ok(child) => Ok(Self { child, port, _directory: directory }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err("redis-server is not installed. Install it (Debian: apt-get install \
                     redis-server), or name a server: cargo run --example redis HOST:PORT"
                    .into())
            }
            Err(error) => Err(format!("could not start redis-server: {error}").into()),
        }
    }

    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait().map(drop)) {
            log::warn!("could not end redis-server: {error}");
        }
    }
}
