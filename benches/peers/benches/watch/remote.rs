//! The server: another process, this program started by itself. Orders go to it line by line, and
//! each is answered by one line once it is done.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use peers::{Obedient, now_ns, obey_all, send_back};
use rustix::fd::OwnedFd;
use rustix::net::{
    AddressFamily, SocketFlags, SocketType, connect, listen, socket_with,
    sockopt::set_socket_linger,
};

/// More than connect at once.
const BACKLOG: i32 = 4096;

/// How the server ends connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// By `close(2)` alone: a FIN.
    Farewell,
    /// With a time to linger of zero: an RST.
    Reset,
}

impl End {
    const fn order(self) -> &'static str {
        match self {
            Self::Farewell => "close",
            Self::Reset => "reset",
        }
    }
}

/// A server in another process. Its drop ends it.
pub(crate) struct Remote(Obedient);

impl Remote {
    pub(crate) fn start() -> Self {
        Self(Obedient::start())
    }

    /// Opens a listener.
    pub(crate) fn listen(&mut self) -> SocketAddr {
        self.0.order("listen");
        self.address()
    }

    /// Opens a listener that never accepts and whose backlog is full: connecting to it hangs.
    pub(crate) fn hang(&mut self) -> SocketAddr {
        self.0.order("hang");
        self.address()
    }

    /// Has so many connections accepted and kept open, while `connect` opens them.
    pub(crate) fn accept<R>(
        &mut self,
        at: SocketAddr,
        count: usize,
        connect: impl FnOnce() -> R,
    ) -> R {
        self.0.order(&format!("accept {} {count}", at.port()));
        let result = connect();
        self.0.answer();
        result
    }

    /// The same, but what comes on them is sent back.
    pub(crate) fn echo<R>(
        &mut self,
        at: SocketAddr,
        count: usize,
        connect: impl FnOnce() -> R,
    ) -> R {
        self.0.order(&format!("echo {} {count}", at.port()));
        let result = connect();
        self.0.answer();
        result
    }

    /// Has all connections that were accepted ended, while `watch` looks on. Returns also when the
    /// first was about to be closed, and when the last was.
    pub(crate) fn end_all<R>(&mut self, end: End, watch: impl FnOnce() -> R) -> (R, u64, u64) {
        self.0.order(end.order());
        let result = watch();
        let answer = self.0.answer();
        let mut stamps = answer.split(' ').map(|stamp| stamp.parse().expect("a stamp"));
        let mut next = || stamps.next().expect("two stamps");
        (result, next(), next())
    }

    fn address(&mut self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.0.answer().parse().expect("a port")).into()
    }
}

/// Obeys until there are no more orders.
pub(crate) fn serve() -> io::Result<()> {
    let mut server = Server::default();
    obey_all(|order| server.obey(order))
}

/// What the server has.
#[derive(Default)]
struct Server {
    listeners: Vec<TcpListener>,
    accepted: Vec<TcpStream>,
    /// What fills backlogs.
    fillers: Vec<OwnedFd>,
}

impl Server {
    fn obey(&mut self, order: &str) -> io::Result<String> {
        let mut words = order.split(' ');
        let verb = words.next().unwrap_or_default();
        let mut number = || words.next().and_then(|word| word.parse::<usize>().ok()).unwrap_or(0);
        match verb {
            "listen" => self.listen(BACKLOG),
            "hang" => self.hang(),
            "accept" => {
                let streams = self.accept(number(), number())?;
                self.accepted.extend(streams);
                Ok("done".to_owned())
            }
            "echo" => {
                for stream in self.accept(number(), number())? {
                    thread::spawn(move || send_back(stream));
                }
                Ok("done".to_owned())
            }
            "close" => Ok(self.close()),
            "reset" => {
                for stream in &self.accepted {
                    set_socket_linger(stream, Some(Duration::ZERO))?;
                }
                Ok(self.close())
            }
            _ => Err(io::Error::other(format!("no such order: {order}"))),
        }
    }

    fn listen(&mut self, backlog: i32) -> io::Result<String> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listen(&listener, backlog)?;
        let port = listener.local_addr()?.port();
        self.listeners.push(listener);
        Ok(port.to_string())
    }

    fn hang(&mut self) -> io::Result<String> {
        let answer = self.listen(0)?;
        let address = self.listeners.last().map(TcpListener::local_addr);
        let address = address.ok_or(io::ErrorKind::NotFound)??;
        for _ in 0..4 {
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            let filler = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
            let _in_progress = connect(&filler, &address);
            self.fillers.push(filler);
        }
        Ok(answer)
    }

    fn accept(&self, port: usize, count: usize) -> io::Result<Vec<TcpStream>> {
        let mut listeners = self.listeners.iter();
        let is_meant = |listener: &&TcpListener| {
            listener.local_addr().is_ok_and(|address| usize::from(address.port()) == port)
        };
        let listener = listeners.find(is_meant).ok_or(io::ErrorKind::NotFound)?;
        (0..count).map(|_| Ok(listener.accept()?.0)).collect()
    }

    fn close(&mut self) -> String {
        let streams = std::mem::take(&mut self.accepted);
        let began = now_ns();
        for stream in streams {
            drop(stream);
        }
        format!("{began} {}", now_ns())
    }
}
