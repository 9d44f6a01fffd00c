//! The event loop turned by hand, orders that say what becomes of them, and listeners good and bad.

use std::net::TcpListener;

use mio::{Events, Poll};
use socket2::{Domain, Type};

use super::super::*;
use crate::sync::{Receiver, Sender, bounded};

pub(super) const SOON: Duration = Duration::from_secs(20);

/// What became of an order.
#[derive(Debug)]
pub(in crate::driver) enum News {
    Begun,
    Delivered(Outcome),
    /// Dropped without an outcome.
    Dropped,
}

/// Notes what becomes of its order.
pub(in crate::driver) struct Noting {
    key: Key,
    is_in_time: bool,
    /// It says so and waits at its beginning until this is closed.
    gate: Option<Receiver<()>>,
    news: Sender<(Key, News)>,
    is_delivered: bool,
}

impl Noting {
    fn note(&self, news: News) {
        // Nobody listens if the test has failed meanwhile.
        let _unheard = self.news.send((self.key, news));
    }
}

impl Delivery for Noting {
    fn begin(&mut self) -> bool {
        self.note(News::Begun);
        if let Some(gate) = &self.gate {
            let _closed = gate.recv();
        }
        self.is_in_time
    }

    fn deliver(mut self: Box<Self>, outcome: Outcome) {
        self.is_delivered = true;
        self.note(News::Delivered(outcome));
    }
}

impl Drop for Noting {
    fn drop(&mut self) {
        if !self.is_delivered {
            self.note(News::Dropped);
        }
    }
}

/// Makes orders, and hears what becomes of them.
pub(in crate::driver) struct Orders {
    sender: Sender<(Key, News)>,
    pub(in crate::driver) news: Receiver<(Key, News)>,
    tokens: Slab<()>,
    deadline: Stamp,
}

impl Orders {
    /// With all the time of the world.
    pub(in crate::driver) fn new() -> Self {
        Self::with_deadline(Stamp::MAX)
    }

    fn with_deadline(deadline: Stamp) -> Self {
        let (sender, news) = bounded(4_096);
        Self { sender, news, tokens: Slab::new(), deadline }
    }

    pub(in crate::driver) fn make(&mut self, target: Target) -> Order {
        let key = (1, self.tokens.insert(()));
        let (news, gate) = (self.sender.clone(), None);
        let delivery = Noting { key, is_in_time: true, gate, news, is_delivered: false };
        let (options, deadline) = (SocketOptions::new(), self.deadline);
        Order { key, target, options, deadline, delivery: Box::new(delivery) }
    }

    /// One that keeps the loop busy from its beginning until the gate is closed; it is not begun.
    pub(in crate::driver) fn make_gated(&mut self, gate: &Receiver<()>) -> Order {
        let mut order = self.make(to(&[]));
        let (key, news, gate) = (order.key, self.sender.clone(), Some(gate.clone()));
        drop(std::mem::replace(
            &mut order.delivery,
            Box::new(Noting { key, is_in_time: false, gate, news, is_delivered: false }),
        ));
        assert!(matches!(self.next_of(key), News::Dropped));
        order
    }

    /// The next news, which must be of this order.
    pub(in crate::driver) fn next_of(&self, key: Key) -> News {
        let (of, news) = self.news.recv_timeout(SOON).unwrap();
        assert_eq!(of, key, "{news:?}");
        news
    }

    pub(super) fn assert_begun(&self, key: Key) {
        assert!(matches!(self.next_of(key), News::Begun));
    }

    pub(super) fn failed(&self, key: Key) -> io::Error {
        match self.next_of(key) {
            News::Delivered(Outcome::Failed(error)) => error,
            other => panic!("it did not fail: {other:?}"),
        }
    }

    pub(super) fn too_late(&self, key: Key) -> String {
        match self.next_of(key) {
            News::Delivered(Outcome::TooLate(words)) => words,
            other => panic!("it was not called off: {other:?}"),
        }
    }

    pub(in crate::driver) fn connected(&self, key: Key) -> Socket {
        match self.next_of(key) {
            News::Delivered(Outcome::Connected(socket)) => socket,
            other => panic!("it did not connect: {other:?}"),
        }
    }
}

/// The event loop, turned by hand.
pub(super) struct Turning {
    poll: Poll,
    pub(super) connects: Connects,
    pub(super) orders: Orders,
    pub(super) now: Stamp,
}

impl Turning {
    pub(super) fn new() -> Self {
        let poll = Poll::new().unwrap();
        let registry = Arc::new(poll.registry().try_clone().unwrap());
        let orders = Orders::with_deadline(Stamp::from_millis(3_000));
        let connects = Connects::new(registry, Arc::default());
        Self { poll, connects, orders, now: Stamp::ZERO }
    }

    pub(super) fn add(&mut self, target: Target) -> Key {
        let order = self.orders.make(target);
        let key = order.key;
        self.connects.add(order, self.now);
        self.orders.assert_begun(key);
        key
    }

    /// Moves the time, and begins what is due then.
    pub(super) fn at(&mut self, millis: u64) {
        self.now = Stamp::from_millis(millis);
        self.connects.advance(self.now);
    }

    /// Waits for news of sockets, acts on it, and begins what is due after it.
    pub(super) fn turn(&mut self) {
        let mut events = Events::with_capacity(64);
        self.poll.poll(&mut events, Some(SOON)).unwrap();
        assert!(!events.is_empty(), "there is no news of any socket");
        for event in &events {
            let (tag, of) = Cut::unpack(event.token().0);
            assert_eq!(tag, TAG);
            self.connects.ready(of);
        }
        self.connects.advance(self.now);
    }

    /// Takes turns until there is news of an order.
    pub(super) fn until_news(&mut self) {
        while self.orders.news.is_empty() {
            self.turn();
        }
    }

    /// An address of this attempt has failed already.
    pub(super) fn has_failed(&self, key: Key) -> bool {
        let course = &self.connects.attempts[&key].course;
        matches!(course, Course::Tcp { race, .. } if race.describe().contains("failed before"))
    }

    pub(super) fn assert_at_rest(&self) {
        assert_eq!((self.connects.attempts.len(), self.connects.flights.len()), (0, 0));
        assert!(self.orders.news.is_empty());
    }
}

pub(in crate::driver) fn to(addresses: &[SocketAddr]) -> Target {
    Target::Addresses(addresses.into())
}

pub(in crate::driver) fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn bound() -> (socket2::Socket, SocketAddr) {
    let socket = socket2::Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let any_port: SocketAddr = "127.0.0.1:0".parse().unwrap();
    socket.bind(&any_port.into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, address)
}

/// A port that is taken, where nobody listens.
pub(super) fn refusing() -> (socket2::Socket, SocketAddr) {
    bound()
}

/// A listener whose backlog is full: connecting to it neither works nor fails.
pub(in crate::driver) fn silent() -> (Vec<socket2::Socket>, SocketAddr) {
    let (listener, address) = bound();
    listener.listen(0).unwrap();
    let mut sockets = vec![listener];
    for _ in 0..4 {
        let socket = socket2::Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_nonblocking(true).unwrap();
        let _in_progress = socket.connect(&address.into());
        sockets.push(socket);
    }
    (sockets, address)
}
