//! Real servers as child processes: each on a port and in a folder of its own.

pub(crate) use super::shared::under_load;

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command};

use rustix::process::{Pid, Signal, kill_process};
use warmline::{Address, BoxError, Connector, Opening, Plan, Socket, TcpConnector, Watch};

pub(crate) use super::shared::programs::words;
use super::shared::programs::{Port, find, log, missing};
use super::{SOON, eventually};

/// Runs until it is dropped; then it is gone, its connections with it.
pub(crate) struct Program {
    kind: &'static Kind,
    port: Port,
    folder: tempfile::TempDir,
    arguments: Vec<String>,
    child: Child,
}

/// What differs between the programs.
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    pub(crate) package: &'static str,
    /// A request, how its answer begins, and what makes the server close the connection then.
    pub(crate) hello: &'static str,
    pub(crate) answer: &'static str,
    pub(crate) farewell: &'static str,
    /// How it is told to end at once.
    pub(crate) end: Signal,
}

const REDIS: Kind = Kind {
    name: "redis-server",
    package: "redis-server",
    hello: "PING\r\n",
    answer: "+PONG",
    farewell: "QUIT\r\n",
    end: Signal::KILL,
};

const MEMCACHED: Kind = Kind {
    name: "memcached",
    package: "memcached",
    hello: "version\r\n",
    answer: "VERSION",
    farewell: "quit\r\n",
    end: Signal::KILL,
};

/// Killed, it would leave its workers behind.
const NGINX: Kind = Kind {
    name: "nginx",
    package: "nginx-light",
    hello: "GET / HTTP/1.0\r\n\r\n",
    answer: "HTTP/1.1 200",
    farewell: "",
    end: Signal::TERM,
};

impl Program {
    /// A redis with these arguments as well; also on the Unix socket "redis.sock" in its folder.
    /// `None`, said aloud, if it is not installed.
    pub(crate) fn redis(more: &[&str]) -> Option<Self> {
        Self::start(&REDIS, more, |port, folder| {
            let mut arguments = words("--bind 127.0.0.1 --appendonly no --daemonize no --save");
            arguments.extend([String::new(), "--port".into(), port.to_string()]);
            arguments.extend(["--dir".into(), folder.display().to_string()]);
            let socket = folder.join("redis.sock").display().to_string();
            arguments.extend(["--unixsocket".into(), socket]);
            arguments
        })
    }

    /// The same for memcached, with one thread for its connections.
    pub(crate) fn memcached(more: &[&str]) -> Option<Self> {
        Self::start(&MEMCACHED, more, |port, _| {
            words(&format!("-l 127.0.0.1 -p {port} -U 0 -u nobody -m 16 -t 1"))
        })
    }

    /// The same for nginx, with these settings of its part for HTTP. It answers with the path of
    /// the request.
    pub(crate) fn nginx(settings: &str) -> Option<Self> {
        Self::nginx_with(settings, "location / { return 200 \"$request_uri\"; }")
    }

    /// The same, with these settings of its server, which listens on the Unix socket "nginx.sock" in
    /// its folder as well.
    pub(crate) fn nginx_with(settings: &str, server: &str) -> Option<Self> {
        Self::start(&NGINX, &[], |port, folder| {
            let root = folder.display();
            let kinds = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
            let temporary = kinds.map(|kind| format!("{kind}_temp_path {root}/{kind};")).concat();
            let configuration = format!(
                "daemon off; worker_processes 1; pid {root}/nginx.pid; error_log stderr;
                 events {{ worker_connections 64; }}
                 http {{
                     access_log off; {temporary} {settings}
                     server {{
                         listen 127.0.0.1:{port};
                         listen unix:{root}/nginx.sock;
                         {server}
                     }}
                 }}"
            );
            let file = folder.join("nginx.conf");
            fs::write(&file, configuration).unwrap();
            words(&format!("-c {} -p {root}", file.display()))
        })
    }

    /// A program of this kind, with these arguments as well. `None`, said aloud, if it is not
    /// installed.
    pub(crate) fn start(
        kind: &'static Kind,
        more: &[&str],
        arguments: impl FnOnce(u16, &Path) -> Vec<String>,
    ) -> Option<Self> {
        let Some(path) = find(kind.name) else {
            missing(kind.name, kind.package);
            return None;
        };
        let (port, folder) = (Port::reserve(), tempfile::tempdir().unwrap());
        let mut arguments = arguments(port.address().port(), folder.path());
        arguments.extend(more.iter().map(|&word| word.to_owned()));
        let child = spawn(&path, &arguments, folder.path());
        let mut program = Self { kind, port, folder, arguments, child };
        program.await_hello();
        Some(program)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.port.address()
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Ends it in the middle of whatever it does.
    pub(crate) fn kill(&mut self) {
        self.signal(self.kind.end);
        self.child.wait().unwrap();
    }

    /// Starts it once more, after [`kill`](Program::kill), where it was.
    pub(crate) fn start_again(&mut self) {
        let path = find(self.kind.name).unwrap();
        self.child = spawn(&path, &self.arguments, self.folder.path());
        self.await_hello();
    }

    /// Has it read its settings again.
    pub(crate) fn reload(&self) {
        self.signal(Signal::HUP);
    }

    /// A connection that no pool has, and its place at the server; `None` if the server has none
    /// left and says so.
    pub(crate) fn take_a_place(&self) -> Option<TcpStream> {
        let mut stream = TcpStream::connect(self.address()).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.write_all(self.kind.hello.as_bytes()).unwrap();
        line(&mut stream).unwrap().starts_with(self.kind.answer).then_some(stream)
    }

    /// Opens connections to this server, and calls them open once it has answered.
    pub(crate) fn connector(&self) -> Polite {
        Polite { kind: self.kind, tcp: TcpConnector::new() }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        // It has not been waited for: the number is still its own.
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn await_hello(&mut self) {
        eventually(self.kind.name, || {
            if let Some(status) = self.child.try_wait().unwrap() {
                let log = fs::read_to_string(log(self.folder.path())).unwrap_or_default();
                panic!("{} did not start: {status}\n{log}", self.kind.name);
            }
            says_hello(self.address(), self.kind).unwrap_or(false)
        });
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            self.signal(self.kind.end);
            let _status = self.child.wait();
        }
    }
}

fn spawn(path: &Path, arguments: &[String], folder: &Path) -> Child {
    let log = File::create(log(folder)).unwrap();
    let mut command = Command::new(path);
    command.args(arguments).stdout(log.try_clone().unwrap()).stderr(log);
    command.spawn().unwrap()
}

/// Asks the server whether it is up. Returns once the server has closed the connection: it takes up
/// no place any more.
fn says_hello(address: SocketAddr, kind: &Kind) -> io::Result<bool> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(SOON))?;
    stream.write_all(format!("{}{}", kind.hello, kind.farewell).as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.starts_with(kind.answer))
}

/// TCP, but a connection is open only once the server has answered a first request on it.
pub(crate) struct Polite {
    kind: &'static Kind,
    tcp: TcpConnector,
}

impl Connector for Polite {
    type Key = Address;
    type Conn = Socket;

    fn plan(&self, key: &Address) -> Plan {
        self.tcp.plan(key)
    }

    fn open(&self, _: &Address, opening: &mut Opening) -> Result<Socket, BoxError> {
        let mut socket = opening.take_socket()?;
        socket.write_all(self.kind.hello.as_bytes())?;
        let answer = line(&mut socket)?;
        if answer.starts_with(self.kind.answer) { Ok(socket) } else { Err(answer.into()) }
    }

    fn socket<'c>(&self, conn: &'c mut Socket) -> Option<&'c mut Socket> {
        Some(conn)
    }

    fn watch<'c>(&self, conn: &'c Socket) -> Watch<'c> {
        conn.watch()
    }
}

/// One line, without its end. Reads no further.
pub(crate) fn line(conn: &mut impl Read) -> io::Result<String> {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        let mut byte = [0];
        conn.read_exact(&mut byte)?;
        line.push(byte[0]);
    }
    line.truncate(line.len() - 2);
    String::from_utf8(line).map_err(io::Error::other)
}
