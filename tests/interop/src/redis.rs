//! Redis through the `redis` crate.
//!
//! With a `redis:` URL, all that is sent and received, the password as well, can be read on the
//! way: this is for networks that you trust. Elsewhere use `rediss:`, and the crate's features for
//! TLS.
//!
//! ```no_run
//! use interop::redis::Redis;
//! use redis::Commands;
//! use warmline::Pool;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let pool = Pool::builder(Redis::new()).build()?;
//! let endpoint = pool.endpoint("redis://:password@127.0.0.1:6379/0")?;
//! let visits: u64 = endpoint.get()?.incr("visits", 1)?;
//! # let _unused = visits;
//! # Ok(())
//! # }
//! ```

use std::io;
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::time::Duration;

use ::redis::{
    Client, Cmd, Connection, ConnectionLike, ErrorKind, ProtocolVersion, RedisConnectionInfo,
    RedisError, RedisResult, Value, cmd,
};
use warmline::{BoxError, Connector, Deadline, Look, Opening, Reset, Watch};

use crate::descriptor;
use crate::resp::{Session, commands, hushed};

/// Opens connections to the server of a URL, which is the key: one pool serves many servers, or
/// databases of one. What the pool shows of a key has `***` in the place of the password.
#[derive(Clone, Copy, Debug)]
pub struct Redis {
    read_timeout: Duration,
}

impl Default for Redis {
    fn default() -> Self {
        Self::new()
    }
}

impl Redis {
    /// With a read time-out of 30 s.
    pub const fn new() -> Self {
        Self { read_timeout: Duration::from_secs(30) }
    }

    /// How long one read or write may block. The crate's own default is for ever.
    pub const fn read_timeout(mut self, timeout: Duration) -> Self {
        self.read_timeout = timeout;
        self
    }
}

impl Connector for Redis {
    type Key = String;
    type Conn = Conn;

    fn open(&self, url: &String, opening: &mut Opening) -> Result<Conn, BoxError> {
        let deadline = opening.deadline();
        let client = Client::open(url.as_str())?;
        let target = client.get_connection_info();
        let login = target.redis_settings();
        if login.protocol() != ProtocolVersion::RESP2 {
            return Err("RESP3 is not spoken here: leave `protocol` out of the URL".into());
        }
        // The crate would log in by itself, but keeps the server's words for itself when that
        // fails, and what a full server says it takes for a wrong password.
        let bare = RedisConnectionInfo::default().set_skip_set_lib_name();
        let client = Client::open(target.clone().set_redis_settings(bare))?;
        let timeout = deadline.remaining().max(Duration::from_millis(1));
        let mut inner = client.get_connection_with_timeout(timeout).map_err(cause)?;
        greet(&mut inner, login, deadline)?;
        if login.db() != 0 {
            ask(&mut inner, cmd("SELECT").arg(login.db()), deadline).map_err(cause)?;
        }
        let descriptor = find_descriptor(&mut inner, deadline).map_err(cause)?;
        set_timeouts(&inner, self.read_timeout)?;
        let (db, session) = (login.db(), Session::default());
        Ok(Conn { inner, db, descriptor, session, has_failed: false })
    }

    fn watch<'c>(&self, conn: &'c Conn) -> Watch<'c> {
        conn.descriptor.map_or(Watch::Nothing, Watch::Raw)
    }

    fn is_open(&self, conn: &mut Conn, _: Look) -> bool {
        conn.inner.is_open()
    }

    fn reset(&self, conn: &mut Conn) -> Reset {
        if conn.has_failed { Reset::Close } else { conn.session.reset() }
    }

    fn settle(&self, conn: &mut Conn, deadline: Deadline) -> Result<(), BoxError> {
        if let Some(command) = conn.session.undo() {
            ask(&mut conn.inner, &cmd(command), deadline)?;
            conn.session.note(command.as_bytes(), b"");
        }
        set_timeouts(&conn.inner, self.read_timeout)?;
        Ok(())
    }

    fn has_check(&self) -> bool {
        true
    }

    fn check(&self, conn: &mut Conn, deadline: Deadline) -> Result<(), BoxError> {
        ask(&mut conn.inner, &cmd("PING"), deadline)?;
        set_timeouts(&conn.inner, self.read_timeout)?;
        Ok(())
    }
}

/// Logs in, or asks whether that is needed. To connect has proved nothing: the system does that for
/// the server. The first answer does.
fn greet(
    conn: &mut Connection,
    login: &RedisConnectionInfo,
    deadline: Deadline,
) -> Result<(), BoxError> {
    let Some(password) = login.password() else {
        return match ask(conn, &cmd("PING"), deadline) {
            Ok(Value::SimpleString(answer)) if answer == "PONG" => Ok(()),
            // Others begin like that as well: mail servers do.
            Ok(answer) => Err(no_redis(&format!(": {answer:?}"))),
            Err(error) if error.kind() == ErrorKind::Parse => Err(no_redis(&format!(": {error}"))),
            Err(error) => Err(cause(error)),
        };
    };
    match ask(conn, cmd("AUTH").arg(login.username()).arg(password), deadline) {
        Ok(Value::Okay) => Ok(()),
        // Not a word of it: there are those who say again what they are told.
        Ok(_) => Err(no_redis(" to a login")),
        Err(error) if error.kind() == ErrorKind::Parse => Err(no_redis(" to a login")),
        Err(error) if is_over(&error) => Err(cause(error)),
        Err(error) => Err(hushed(error.to_string(), password).into()),
    }
}

fn no_redis(what: &str) -> BoxError {
    format!("this is no answer of Redis{what}").into()
}

/// Asks within the deadline.
fn ask(conn: &mut Connection, command: &Cmd, deadline: Deadline) -> RedisResult<Value> {
    set_timeouts(conn, deadline.remaining())?;
    // What the server objects to is an answer as well, until it is looked into.
    command.query::<Value>(conn)?.extract_error()
}

/// The descriptor, by its number. The crate does not show it, but the server tells from where to
/// where the connection is. Servers before 6.2 do not, nor do Unix sockets have what it tells, and
/// behind a proxy it sees another: then nothing is watched, and checks find what has died.
fn find_descriptor(conn: &mut Connection, deadline: Deadline) -> RedisResult<Option<RawFd>> {
    match ask(conn, cmd("CLIENT").arg("INFO"), deadline) {
        Ok(Value::BulkString(info)) => Ok(descriptor_by(&String::from_utf8_lossy(&info))),
        Err(error) if is_over(&error) => Err(error),
        _ => Ok(None),
    }
}

fn descriptor_by(info: &str) -> Option<RawFd> {
    let address = |name: &str| -> Option<SocketAddr> {
        info.split(' ').find_map(|field| field.strip_prefix(name))?.parse().ok()
    };
    descriptor::of_tcp(address("addr=")?.port(), address("laddr=")?)
}

/// The pool tells a server that is down, or hangs, by the system's error, which the crate hides in
/// its own.
fn cause(error: RedisError) -> BoxError {
    if error.is_timeout() {
        return io::Error::new(io::ErrorKind::TimedOut, error).into();
    }
    if error.is_connection_refusal() {
        return io::Error::new(io::ErrorKind::ConnectionRefused, error).into();
    }
    error.into()
}

/// The connection is of no more use. A time-out counts: the answer may still come, though the crate
/// would skip it.
fn is_over(error: &RedisError) -> bool {
    error.is_io_error() || error.is_timeout() || error.is_unrecoverable_error()
}

/// Bounds each read and write. A time-out of nothing would be none.
fn set_timeouts(conn: &Connection, timeout: Duration) -> RedisResult<()> {
    let timeout = Some(timeout.max(Duration::from_millis(1)));
    conn.set_read_timeout(timeout)?;
    conn.set_write_timeout(timeout)
}

/// A connection, on which all commands of the crate work. Its own type is not shown, for what is
/// done with that, `as_pubsub` say, could not be noted.
pub struct Conn {
    inner: Connection,
    /// The one that the URL names. Whoever selects another does not give this back to the pool.
    db: i64,
    descriptor: Option<RawFd>,
    session: Session,
    has_failed: bool,
}

impl Conn {
    /// Sends a request that was encoded already, after a look at it.
    fn send<T>(
        &mut self,
        request: &[u8],
        send: impl FnOnce(&mut Connection) -> RedisResult<T>,
    ) -> RedisResult<T> {
        commands(request).for_each(|[name, first]| self.session.note(name, first));
        let result = send(&mut self.inner);
        self.has_failed |= result.as_ref().is_err_and(is_over);
        result
    }
}

impl ConnectionLike for Conn {
    fn req_packed_command(&mut self, request: &[u8]) -> RedisResult<Value> {
        self.send(request, |inner| inner.req_packed_command(request))
    }

    fn req_packed_commands(
        &mut self,
        request: &[u8],
        offset: usize,
        count: usize,
    ) -> RedisResult<Vec<Value>> {
        self.send(request, |inner| inner.req_packed_commands(request, offset, count))
    }

    fn req_command(&mut self, command: &Cmd) -> RedisResult<Value> {
        self.send(&command.get_packed_command(), |inner| inner.req_command(command))
    }

    fn get_db(&self) -> i64 {
        self.db
    }

    fn check_connection(&mut self) -> bool {
        let is_sound = self.inner.check_connection();
        self.has_failed |= !is_sound;
        is_sound
    }

    fn is_open(&self) -> bool {
        !self.has_failed && self.inner.is_open()
    }
}
