//! The least that watching takes: a thread in `epoll_wait`, and sockets.

use std::net::TcpStream;
use std::sync::Arc;
use std::thread;

use crossbeam_channel::{Receiver, unbounded};
use parking_lot::Mutex;
use peers::now_ns;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fd::OwnedFd;

/// Events that one wait takes at the most, as the pool's loop does.
const MOST_EVENTS: usize = 256;

/// A thread that closes the sockets whose peers hang up, and does nothing else.
pub(crate) struct Bare {
    epoll: Arc<OwnedFd>,
    sockets: Arc<Sockets>,
    /// When each was closed.
    pub(crate) ends: Receiver<u64>,
}

type Sockets = Mutex<Vec<Option<TcpStream>>>;

/// What it is to be told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interest {
    /// Nothing but the peer's farewell.
    HangUp,
    /// Bytes as well: every answer.
    Readable,
}

impl Bare {
    /// Its thread has this name, and ends with the process.
    pub(crate) fn new(name: &str) -> Self {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).expect("an epoll instance");
        let (epoll, sockets) = (Arc::new(epoll), Arc::<Sockets>::default());
        let (teller, ends) = unbounded();
        let watch = {
            let (epoll, sockets) = (Arc::clone(&epoll), Arc::clone(&sockets));
            move || {
                let mut events = Vec::with_capacity(MOST_EVENTS);
                loop {
                    let buffer = rustix::buffer::spare_capacity(&mut events);
                    epoll::wait(&*epoll, buffer, None).expect("it can wait");
                    for event in events.drain(..) {
                        let (flags, index) = (event.flags, event.data.u64() as usize);
                        if flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR) {
                            let dead = sockets.lock().get_mut(index).and_then(Option::take);
                            drop(dead);
                            let _nobody_listens = teller.send(now_ns());
                        }
                    }
                }
            }
        };
        thread::Builder::new().name(name.to_owned()).spawn(watch).expect("a thread");
        Self { epoll, sockets, ends }
    }

    pub(crate) fn watch(&self, socket: TcpStream, interest: Interest) {
        let mut sockets = self.sockets.lock();
        let data = EventData::new_u64(sockets.len() as u64);
        let flags = match interest {
            Interest::HangUp => EventFlags::RDHUP | EventFlags::ET,
            Interest::Readable => EventFlags::IN | EventFlags::RDHUP | EventFlags::ET,
        };
        epoll::add(&*self.epoll, &socket, data, flags).expect("it can be watched");
        sockets.push(Some(socket));
    }
}
