//! The server: another process, this program started by itself. Orders go to it line by line, and
//! each is answered by one line, a number, once it is done.

use std::env;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

/// Tells this program, started by itself, to be the server.
const SERVE: &str = "--serve";

/// What is asked, and what is answered.
pub(crate) const PING: &[u8] = b"PING\r\n";
pub(crate) const PONG: &[u8] = b"+PONG\r\n";

/// One question and its answer.
pub(crate) fn exchange(conn: &mut (impl Read + Write)) -> io::Result<()> {
    conn.write_all(PING)?;
    let mut answer = [0; PONG.len()];
    conn.read_exact(&mut answer)?;
    assert_eq!(answer, PONG, "it is the answer to the question");
    Ok(())
}

/// A server in another process. Its drop ends it.
pub(crate) struct Remote {
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Remote {
    pub(crate) fn start() -> Self {
        let program = env::current_exe().expect("a program has a path");
        let mut command = Command::new(program);
        command.arg(SERVE).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("a second process");
        let orders = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().expect("it is piped"));
        Self { child, orders, answers }
    }

    /// Serves at one more address.
    pub(crate) fn site(&mut self) -> SocketAddr {
        self.open_site("site")
    }

    /// The same, but connections that were silent for `limit`, whole milliseconds, are closed.
    pub(crate) fn site_with_limit(&mut self, limit: Duration) -> SocketAddr {
        self.open_site(&format!("site {}", limit.as_millis()))
    }

    /// Ends all connections, and refuses others; returns when that was done.
    pub(crate) fn go_down(&mut self) -> u64 {
        self.order("down")
    }

    /// Serves again; returns when the first listener was about to be there.
    pub(crate) fn come_up(&mut self) -> u64 {
        self.order("up")
    }

    /// Ends all connections, and resets others as soon as they were accepted; returns when the
    /// first was ended.
    pub(crate) fn begin_resets(&mut self) -> u64 {
        self.order("reset")
    }

    /// Closes all connections at once, and goes on; returns how many there were.
    pub(crate) fn hang_up(&mut self) -> u64 {
        self.order("hang-up")
    }

    /// How many connections were accepted there.
    pub(crate) fn accepted(&mut self, at: SocketAddr) -> u64 {
        self.order(&format!("accepted {}", at.port()))
    }

    /// How many questions were answered.
    pub(crate) fn pongs(&mut self) -> u64 {
        self.order("pongs")
    }

    fn open_site(&mut self, order: &str) -> SocketAddr {
        let port = u16::try_from(self.order(order)).expect("a port");
        (Ipv4Addr::LOCALHOST, port).into()
    }

    fn order(&mut self, order: &str) -> u64 {
        let orders = self.orders.as_mut().expect("it is there until the drop");
        // In one piece, so that it wakes the server once.
        orders.write_all(format!("{order}\n").as_bytes()).expect("the server listens");
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("the server answers");
        line.trim().parse().expect("a number, from a server that has not ended")
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        drop(self.orders.take());
        let _ended = self.child.wait();
    }
}

/// True in the process that is to be the server.
pub(crate) fn is_asked_to_serve() -> bool {
    env::args().any(|argument| argument == SERVE)
}
