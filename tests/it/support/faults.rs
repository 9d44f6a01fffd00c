//! Addresses where connecting goes wrong. All of them on loopback.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use socket2::{Domain, SockAddr, Socket, Type};

use super::server::{Crowd, bound};

/// A port that is taken, where nobody listens: connecting is refused, and no other test can come
/// to listen there meanwhile.
pub(crate) struct Refusing(Socket);

impl Refusing {
    pub(crate) fn new() -> Self {
        Self::at(Ipv4Addr::LOCALHOST.into())
    }

    pub(crate) fn at(ip: IpAddr) -> Self {
        Self(bound(ip))
    }

    pub(crate) fn address(&self) -> SocketAddr {
        local(&self.0)
    }

    pub(crate) fn name(&self) -> String {
        self.address().to_string()
    }

    /// From now on connecting works; what connects waits in the backlog for ever.
    pub(crate) fn listen(&self) {
        self.0.listen(128).unwrap();
    }
}

/// A listener that never accepts and whose backlog is full: connecting neither works nor fails.
pub(crate) struct BlackHole {
    listener: Socket,
    fill: Vec<Socket>,
}

impl BlackHole {
    pub(crate) fn new() -> Self {
        let listener = bound(Ipv4Addr::LOCALHOST.into());
        listener.listen(0).unwrap();
        let address = local(&listener);
        let fill = (0..4).map(|_| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.set_nonblocking(true).unwrap();
            let _in_progress = socket.connect(&address.into());
            socket
        });
        let fill = fill.collect();
        Self { listener, fill }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        local(&self.listener)
    }

    pub(crate) fn name(&self) -> String {
        self.address().to_string()
    }

    /// How many sockets of others are on their way here; `None` where the system does not tell.
    pub(crate) fn besieged_by(&self) -> Option<usize> {
        let SocketAddr::V4(address) = self.address() else { return None };
        let ip = u32::from_ne_bytes(address.ip().octets());
        let target = format!("{ip:08X}:{:04X}", address.port());
        let table = std::fs::read_to_string("/proc/net/tcp").ok()?;
        // Established, and SYN sent; others may be memories of who had the port before.
        let leads_here = |line: &&str| {
            let fields: Vec<_> = line.split_whitespace().skip(2).take(2).collect();
            fields == [&*target, "01"] || fields == [&*target, "02"]
        };
        Some(table.lines().filter(leads_here).count().saturating_sub(self.fill.len()))
    }

    /// From now on it accepts whatever comes, until what this returns is dropped.
    pub(crate) fn open(&self) -> Crowd {
        Crowd::of(self.listener.try_clone().unwrap())
    }
}

/// The same on a Unix socket.
pub(crate) struct UnixHole {
    listener: Socket,
    _fill: Vec<Socket>,
}

impl UnixHole {
    pub(crate) fn new(path: &Path) -> Self {
        let address = SockAddr::unix(path).unwrap();
        let listener = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        listener.bind(&address).unwrap();
        listener.listen(0).unwrap();
        let mut fill = Vec::new();
        loop {
            let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
            socket.set_nonblocking(true).unwrap();
            if socket.connect(&address).is_err() {
                return Self { listener, _fill: fill };
            }
            fill.push(socket);
        }
    }

    /// From now on it accepts whatever comes, until what this returns is dropped.
    pub(crate) fn open(&self) -> Crowd {
        Crowd::of(self.listener.try_clone().unwrap())
    }
}

fn local(socket: &Socket) -> SocketAddr {
    socket.local_addr().unwrap().as_socket().unwrap()
}
