//! Addresses where connecting goes wrong. All of them on loopback.

use std::net::SocketAddr;

use socket2::{Domain, Socket, Type};

/// A port that is taken, where nobody listens: connecting is refused, and no other test can come
/// to listen there meanwhile.
pub(crate) struct Refusing(Socket);

impl Refusing {
    pub(crate) fn new() -> Self {
        Self(bound())
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
    _fill: Vec<Socket>,
}

impl BlackHole {
    pub(crate) fn new() -> Self {
        let listener = bound();
        listener.listen(0).unwrap();
        let address = local(&listener);
        let fill = (0..4).map(|_| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.set_nonblocking(true).unwrap();
            let _in_progress = socket.connect(&address.into());
            socket
        });
        let fill = fill.collect();
        Self { listener, _fill: fill }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        local(&self.listener)
    }

    pub(crate) fn name(&self) -> String {
        self.address().to_string()
    }
}

fn bound() -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let any_port: SocketAddr = "127.0.0.1:0".parse().unwrap();
    socket.bind(&any_port.into()).unwrap();
    socket
}

fn local(socket: &Socket) -> SocketAddr {
    socket.local_addr().unwrap().as_socket().unwrap()
}
