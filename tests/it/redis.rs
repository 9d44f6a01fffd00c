//! A real server: redis, if it is installed.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};

use warmline::{Endpoint, Pool, PooledConn, Repeat, TcpConnector, UnixConnector};

use crate::support::{SOON, assert_balanced, eventually, say, watchdog};

struct Redis {
    child: Child,
    folder: tempfile::TempDir,
    address: SocketAddr,
}

impl Redis {
    /// `None`, said aloud, if the program is not installed.
    fn start() -> Option<Self> {
        // The port may be taken between its choice and the server's start: then the next one.
        for _ in 0..5 {
            let folder = tempfile::tempdir().unwrap();
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            drop(listener);
            let mut command = Command::new("redis-server");
            command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
            command.args(["--daemonize", "no", "--port", &address.port().to_string()]);
            command.arg("--dir").arg(folder.path());
            command.arg("--unixsocket").arg(folder.path().join("redis.sock"));
            let spawned = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
            let Ok(child) = spawned else { return Self::missing() };
            let mut redis = Self { child, folder, address };
            if redis.is_up() {
                return Some(redis);
            }
        }
        panic!("redis-server did not start");
    }

    fn missing() -> Option<Self> {
        let required = std::env::var("WARMLINE_REQUIRE_SERVERS").is_ok_and(|value| value == "1");
        assert!(!required, "redis-server is not installed: apt-get install redis-server");
        say("skipped: tests with a real redis; to run them: apt-get install redis-server");
        None
    }

    fn is_up(&mut self) -> bool {
        let mut has_ended = false;
        let pool = Pool::tcp();
        eventually("redis starts", || {
            has_ended = self.child.try_wait().unwrap().is_some();
            has_ended
                || pool.get(&self.address).is_ok_and(|mut conn| command(&mut conn, "PING").is_ok())
        });
        !has_ended
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _status = self.child.wait();
    }
}

/// Sends a command and reads its one-line or bulk answer to the end.
fn command(conn: &mut (impl Read + Write), text: &str) -> io::Result<String> {
    conn.write_all(format!("{text}\r\n").as_bytes())?;
    let line = line(conn)?;
    let Some(size) = line.strip_prefix('$') else { return Ok(line) };
    let size: usize = size.parse().map_err(io::Error::other)?;
    let mut bulk = vec![0; size + 2];
    conn.read_exact(&mut bulk)?;
    bulk.truncate(size);
    String::from_utf8(bulk).map_err(io::Error::other)
}

fn line(conn: &mut impl Read) -> io::Result<String> {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        let mut byte = [0];
        conn.read_exact(&mut byte)?;
        line.push(byte[0]);
    }
    line.truncate(line.len() - 2);
    String::from_utf8(line).map_err(io::Error::other)
}

fn get_and_set(endpoint: &Endpoint<TcpConnector>, thread: usize) {
    for number in 0..200 {
        let mut conn = endpoint.get_timeout(SOON).unwrap();
        let value = format!("{thread}-{number}");
        assert_eq!(command(&mut conn, &format!("SET key{thread} {value}")).unwrap(), "+OK");
        assert_eq!(command(&mut conn, &format!("GET key{thread}")).unwrap(), value);
    }
}

#[test]
fn many_threads_share_a_few_connections_and_get_their_own_answers() {
    let _watchdog = watchdog();
    let Some(redis) = Redis::start() else { return };
    let pool = Pool::builder(TcpConnector::new()).max_per_endpoint(4).build().unwrap();
    let endpoint = pool.endpoint(&redis.address).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..12 {
            let endpoint = &endpoint;
            scope.spawn(move || get_and_set(endpoint, thread));
        }
    });
    let stats = pool.stats();
    assert!(stats.opened() <= 4, "{stats}");
    assert_eq!((stats.checkouts(), stats.closed(), stats.in_use()), (2400, 0, 0));
}

#[test]
fn a_server_that_kills_its_clients_harms_no_exchange_that_may_be_repeated() {
    let _watchdog = watchdog();
    let Some(redis) = Redis::start() else { return };
    let pool = Pool::tcp();
    let endpoint = pool.endpoint(&redis.address).unwrap();
    assert_eq!(endpoint.warm(6, SOON).unwrap(), 6);
    let held: Vec<_> = (0..6).map(|_| endpoint.get().unwrap()).collect();
    held.into_iter().for_each(|mut conn| drop(command(&mut conn, "PING").unwrap()));
    let admin = Pool::tcp();
    let mut admin = admin.get(&redis.address).unwrap();
    let killed = command(&mut admin, "CLIENT KILL TYPE normal SKIPME yes").unwrap();
    assert_eq!(killed, ":6");
    for _ in 0..10 {
        let pong = endpoint.run(Repeat::Always, |conn| command(conn, "PING")).unwrap();
        assert_eq!(pong, "+PONG");
    }
    let stats = pool.stats();
    assert_eq!(stats.idle() + stats.in_use(), 1, "the dead ones were used up: {stats}");
    assert_balanced(&stats);
}

#[test]
fn a_server_that_ends_takes_its_connections_with_it() {
    let _watchdog = watchdog();
    let Some(redis) = Redis::start() else { return };
    let pool = Pool::builder(UnixConnector::new()).build().unwrap();
    let path = redis.folder.path().join("redis.sock");
    let mut conn = pool.get(&path).unwrap();
    assert_eq!(command(&mut conn, "SET a 1").unwrap(), "+OK");
    assert!(!PooledConn::is_reused(&conn));
    drop(redis);
    command(&mut conn, "GET a").unwrap_err();
    drop(conn);
    assert_eq!(pool.stats().total(), 0);
}
