//! What the crate uses of the crate of this name.

use std::io;
use std::time::Duration;

use rustix::io::Errno;
use shuttle::thread;

use crate::sim::net::{Interest as Asked, Registered, Told};
use crate::sim::os::{RawFd, call, wake};
use crate::sim::threads::{block, end_of, has_passed, step};
use crate::sim::world;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token(pub(crate) usize);

#[derive(Clone, Copy, Debug)]
pub(crate) struct Interest;

impl Interest {
    pub(crate) const WRITABLE: Self = Self;
}

#[derive(Debug)]
pub(crate) struct Poll(Registry);

#[derive(Debug)]
pub(crate) struct Registry(u64);

#[derive(Debug)]
pub(crate) struct Waker {
    poll: u64,
    word: usize,
}

/// News that one look at a poll has brought.
#[derive(Debug)]
pub(crate) struct Events {
    most: usize,
    events: Vec<event::Event>,
}

pub(crate) mod event {
    use crate::sim::net::Told;
    use crate::sim::os::mio::Token;

    #[derive(Clone, Copy, Debug)]
    pub(crate) struct Event(pub(super) Told);

    impl Event {
        pub(crate) const fn token(&self) -> Token {
            Token(self.0.word)
        }

        pub(crate) const fn is_readable(&self) -> bool {
            self.0.is_readable
        }

        pub(crate) const fn is_read_closed(&self) -> bool {
            self.0.is_read_closed
        }

        pub(crate) const fn is_error(&self) -> bool {
            self.0.is_error
        }
    }
}

pub(crate) mod net {
    use std::io;
    use std::net::SocketAddr;

    use crate::sim::net::State;
    use crate::sim::os::{AsFd, BorrowedFd, RawFd, TcpStream as Stream, call};

    #[derive(Debug)]
    pub(crate) struct TcpStream(pub(in crate::sim::os) Stream);

    impl TcpStream {
        pub(crate) const fn from_std(stream: Stream) -> Self {
            Self(stream)
        }

        pub(crate) fn peer_addr(&self) -> io::Result<SocketAddr> {
            self.0.peer_addr()
        }

        pub(crate) fn take_error(&self) -> io::Result<Option<io::Error>> {
            let state = call(|net| net.socket_of(self.number()).map(|socket| socket.state))?;
            Ok(match state {
                State::Failed(errno) => Some(errno.into()),
                _ => None,
            })
        }

        pub(super) fn number(&self) -> RawFd {
            self.0.as_fd().0
        }
    }

    impl AsFd for TcpStream {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.0.as_fd()
        }
    }
}

impl Waker {
    pub(crate) fn new(registry: &Registry, token: Token) -> io::Result<Self> {
        Ok(Self { poll: registry.0, word: token.0 })
    }

    pub(crate) fn wake(&self) -> io::Result<()> {
        let woken = call(|net| {
            let poll = net.polls.get_mut(&self.poll).ok_or(Errno::BADF)?;
            poll.tell(Told { word: self.word, is_readable: true, ..Told::default() });
            Ok(std::mem::take(&mut poll.waiting))
        })?;
        wake(&woken);
        Ok(())
    }
}

impl Registry {
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self(self.0))
    }

    pub(super) fn add(&self, fd: RawFd, word: usize, interest: Asked) -> io::Result<()> {
        let registered = Registered { poll: self.0, descriptor: fd, word, interest };
        let woken = call(|net| net.register(fd, registered))?;
        wake(&woken);
        Ok(())
    }

    pub(super) fn remove(&self, fd: RawFd) -> io::Result<()> {
        call(|net| net.deregister(fd, self.0))
    }

    pub(crate) fn register(
        &self,
        stream: &mut net::TcpStream,
        token: Token,
        _: Interest,
    ) -> io::Result<()> {
        self.add(stream.number(), token.0, Asked::Writable)
    }

    pub(crate) fn deregister(&self, stream: &mut net::TcpStream) -> io::Result<()> {
        self.remove(stream.number())
    }
}

impl Poll {
    pub(crate) fn new() -> io::Result<Self> {
        call(|net| Ok(net.add_poll())).map(|id| Self(Registry(id)))
    }

    pub(crate) const fn registry(&self) -> &Registry {
        &self.0
    }

    /// Waits for news.
    pub(crate) fn poll(
        &mut self,
        events: &mut Events,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        let until = timeout.map(end_of);
        events.events.clear();
        loop {
            step();
            let is_over = world::with(|world| {
                let Some(poll) = world.net.polls.get_mut(&self.0.0) else { return true };
                let many = poll.queue.len().min(events.most);
                events.events.extend(poll.queue.drain(..many).map(event::Event));
                let is_over = many > 0;
                if !is_over {
                    poll.waiting.push(thread::current());
                }
                is_over
            });
            if is_over || has_passed(until) {
                return Ok(());
            }
            block(until);
        }
    }
}

impl Events {
    pub(crate) const fn with_capacity(most: usize) -> Self {
        Self { most, events: Vec::new() }
    }
}

impl<'a> IntoIterator for &'a Events {
    type Item = &'a event::Event;
    type IntoIter = std::slice::Iter<'a, event::Event>;
    fn into_iter(self) -> Self::IntoIter {
        self.events.iter()
    }
}
