//! The server: another process, this program started by itself. Orders go to it line by line, and
//! each is answered by one line, a number, once it is done.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use peers::Obedient;

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
pub(crate) struct Remote(Obedient);

impl Remote {
    pub(crate) fn start() -> Self {
        Self(Obedient::start())
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
        self.0.order(order);
        self.0.answer().parse().expect("a number")
    }
}
