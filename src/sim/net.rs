//! The network: hosts, and what has been sent and has not arrived.
//!
//! Hosts speak one protocol: eight bytes come back as they were sent. They do so as their
//! [`Manners`] say.

mod hosts;

pub use self::hosts::{
    Accepts, FRAME, Manners, Place, Spoilt, cut_connections, end_connections, set_descriptor_limit,
    set_host, spoilt,
};

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use rustix::io::Errno;
use shuttle::thread::Thread;

use crate::sim::net::hosts::{MILLI, Server};
use crate::sim::world::Random;

const FIRST_DESCRIPTOR: i32 = 3;

/// Something that arrives.
#[derive(Clone, Debug)]
pub(crate) enum News {
    Connected(u64),
    Refused(u64, Errno),
    Bytes(u64, Vec<u8>),
    /// The peer will say no more; and if it is gone altogether, hears no more.
    Farewell(u64, bool),
    Reset(u64),
    /// Was it idle since?
    IdleSince(u64, u64),
}

impl fmt::Display for News {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connected(id) => write!(f, "#{id} connected"),
            Self::Refused(id, errno) => write!(f, "#{id} failed: {errno:?}"),
            Self::Bytes(id, bytes) => write!(f, "#{id} gets {} bytes", bytes.len()),
            Self::Farewell(id, _) => write!(f, "#{id} gets the peer's farewell"),
            Self::Reset(id) => write!(f, "#{id} reset"),
            Self::IdleSince(id, _) => write!(f, "#{id} looked at for idleness"),
        }
    }
}

/// What will come of something, and when.
#[derive(Debug)]
pub(crate) struct Later<'a> {
    pub(crate) now: u64,
    pub(crate) random: &'a mut Random,
    pub(crate) news: Vec<(u64, News)>,
}

impl Later<'_> {
    fn after(&mut self, (least, most): (u64, u64)) -> u64 {
        self.now + self.random.between(least, most)
    }

    fn send(&mut self, at: u64, news: News) {
        self.news.push((at, news));
    }
}

#[derive(Debug, Default)]
pub(crate) struct Net {
    hosts: BTreeMap<Place, Manners>,
    descriptors: BTreeMap<i32, u64>,
    sockets: BTreeMap<u64, Socket>,
    pub(crate) polls: BTreeMap<u64, PollState>,
    count: u64,
    most_descriptors: Option<usize>,
    pub(crate) refused: u64,
    pub(crate) connected: u64,
    pub(crate) faults: u64,
}

/// What descriptors stand for: one socket, however many there are of it.
#[derive(Debug)]
pub(crate) struct Socket {
    descriptors: usize,
    pub(crate) state: State,
    pub(crate) local: Option<SocketAddr>,
    pub(crate) peer: Option<SocketAddr>,
    place: Option<Place>,
    pub(crate) inbox: VecDeque<u8>,
    /// The peer has said farewell, or this side has shut it down.
    pub(crate) has_ended: bool,
    pub(crate) is_reset: bool,
    pub(crate) is_shut: bool,
    spoilt: Spoilt,
    pub(crate) is_nonblocking: bool,
    pub(crate) read_timeout: Option<u64>,
    pub(crate) registered: Vec<Registered>,
    waiting: Vec<Thread>,
    server: Server,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Fresh,
    Connecting,
    Connected,
    Failed(Errno),
}

/// What a poll is asked to tell of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interest {
    Writable,
    Readable,
    Farewell,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Registered {
    pub(crate) poll: u64,
    pub(crate) descriptor: i32,
    pub(crate) word: usize,
    pub(crate) interest: Interest,
}

#[derive(Debug, Default)]
pub(crate) struct PollState {
    pub(crate) queue: VecDeque<Told>,
    pub(crate) waiting: Vec<Thread>,
}

/// An event, as mio shows it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Told {
    pub(crate) word: usize,
    pub(crate) is_readable: bool,
    pub(crate) is_read_closed: bool,
    pub(crate) is_error: bool,
}

impl Net {
    pub(crate) fn descriptors(&self) -> usize {
        self.descriptors.len()
    }

    pub(crate) fn socket_of(&mut self, descriptor: i32) -> Result<&mut Socket, Errno> {
        let id = self.descriptors.get(&descriptor).ok_or(Errno::BADF)?;
        self.sockets.get_mut(id).ok_or(Errno::BADF)
    }

    fn name(&mut self) -> u64 {
        self.count += 1;
        self.count
    }

    pub(crate) fn add_poll(&mut self) -> u64 {
        let id = self.name();
        self.polls.insert(id, PollState::default());
        id
    }

    fn add_descriptor(&mut self, id: u64) -> Result<i32, Errno> {
        if self.most_descriptors.is_some_and(|most| self.descriptors.len() >= most) {
            self.refused += 1;
            return Err(Errno::MFILE);
        }
        // The lowest that is free, as the system does: numbers come back soon.
        let mut free = FIRST_DESCRIPTOR;
        while self.descriptors.contains_key(&free) {
            free += 1;
        }
        self.descriptors.insert(free, id);
        Ok(free)
    }

    pub(crate) fn open(&mut self) -> Result<i32, Errno> {
        let id = self.name();
        let descriptor = self.add_descriptor(id)?;
        self.sockets.insert(id, Socket::new());
        Ok(descriptor)
    }

    pub(crate) fn duplicate(&mut self, descriptor: i32) -> Result<i32, Errno> {
        let id = *self.descriptors.get(&descriptor).ok_or(Errno::BADF)?;
        let duplicate = self.add_descriptor(id)?;
        if let Some(socket) = self.sockets.get_mut(&id) {
            socket.descriptors += 1;
        }
        Ok(duplicate)
    }

    pub(crate) fn close(&mut self, descriptor: i32) -> Result<(), Errno> {
        let id = self.descriptors.remove(&descriptor).ok_or(Errno::BADF)?;
        let Some(socket) = self.sockets.get_mut(&id) else { return Err(Errno::BADF) };
        socket.descriptors -= 1;
        if socket.descriptors == 0 {
            self.sockets.remove(&id);
        }
        Ok(())
    }

    /// Begins to connect.
    pub(crate) fn connect(
        &mut self,
        descriptor: i32,
        place: Place,
        later: &mut Later<'_>,
    ) -> Result<(), Errno> {
        let id = *self.descriptors.get(&descriptor).ok_or(Errno::BADF)?;
        let manners = self.hosts.get(&place).cloned();
        let Some(socket) = self.sockets.get_mut(&id) else { return Err(Errno::BADF) };
        let is_unix = matches!(place, Place::Path(_));
        if let Place::Address(peer) = place {
            socket.peer = Some(peer);
            let [_, b, c, d] = (id as u32).to_be_bytes();
            socket.local = Some(SocketAddr::from((Ipv4Addr::new(127, b, c, d), 40_000)));
        }
        socket.place = Some(place);
        let accepts = manners.as_ref().map(|manners| manners.accepts);
        if is_unix {
            return match accepts {
                Some(Accepts::All) => {
                    self.establish(id, later);
                    Ok(())
                }
                Some(Accepts::None) => Err(Errno::CONNREFUSED),
                Some(Accepts::Silent) => Err(Errno::AGAIN),
                None => Err(Errno::NOENT),
            };
        }
        socket.state = State::Connecting;
        match (accepts, manners) {
            (Some(Accepts::All), Some(manners)) => {
                let at = later.after(manners.connect);
                later.send(at, News::Connected(id));
            }
            (Some(Accepts::Silent), _) => self.faults += 1,
            _ => {
                self.faults += 1;
                let at = later.after((MILLI / 20, MILLI / 2));
                later.send(at, News::Refused(id, Errno::CONNREFUSED));
            }
        }
        Err(Errno::INPROGRESS)
    }

    fn establish(&mut self, id: u64, later: &mut Later<'_>) {
        let of = self.sockets.get(&id).and_then(|socket| socket.place.clone());
        let Some(place) = of else { return };
        let theirs = |socket: &&Socket| {
            socket.place.as_ref() == Some(&place)
                && socket.state == State::Connected
                && !socket.server.is_gone
        };
        let others = self.sockets.values().filter(theirs).count();
        let (Some(socket), Some(manners)) = (self.sockets.get_mut(&id), self.hosts.get(&place))
        else {
            return;
        };
        socket.state = State::Connected;
        self.connected += 1;
        socket.server.last_at = later.now;
        socket.server.arrives = later.now;
        if others >= manners.most {
            self.faults += 1;
            socket.server.is_gone = true;
            later.send(later.now, News::Farewell(id, true));
            return;
        }
        if let Some(limit) = manners.idle_limit {
            later.send(later.now + limit, News::IdleSince(id, later.now));
        }
    }

    /// Bytes leave for the peer.
    pub(crate) fn write(
        &mut self,
        descriptor: i32,
        bytes: &[u8],
        later: &mut Later<'_>,
    ) -> Result<usize, Errno> {
        let id = *self.descriptors.get(&descriptor).ok_or(Errno::BADF)?;
        let Some(socket) = self.sockets.get_mut(&id) else { return Err(Errno::BADF) };
        if socket.state != State::Connected {
            return Err(Errno::NOTCONN);
        }
        if socket.is_reset || socket.is_shut {
            return Err(Errno::PIPE);
        }
        let server = &mut socket.server;
        if server.has_vanished {
            return Ok(bytes.len());
        }
        if server.is_gone {
            let at = later.after((MILLI / 20, MILLI / 5));
            later.send(at, News::Reset(id));
            return Ok(bytes.len());
        }
        server.heard.extend_from_slice(bytes);
        server.last_at = later.now;
        let Some(manners) = socket.place.as_ref().and_then(|place| self.hosts.get(place)) else {
            return Ok(bytes.len());
        };
        while server.heard.len() >= FRAME {
            let frame = server.heard.drain(..FRAME).collect();
            self.faults += u64::from(server.answer(id, frame, manners, later));
        }
        Ok(bytes.len())
    }

    /// Something has arrived; returns who has waited for it.
    pub(crate) fn deliver(&mut self, news: News, later: &mut Later<'_>) -> Vec<Thread> {
        let (News::Connected(id)
        | News::Refused(id, _)
        | News::Bytes(id, _)
        | News::Farewell(id, _)
        | News::Reset(id)
        | News::IdleSince(id, _)) = news;
        let Some(socket) = self.sockets.get_mut(&id) else { return Vec::new() };
        let is_open = socket.state == State::Connected && !socket.server.has_vanished;
        match news {
            News::Connected(_) => self.establish(id, later),
            News::Refused(_, errno) => socket.state = State::Failed(errno),
            News::Bytes(_, bytes) if is_open && !socket.is_reset => socket.inbox.extend(bytes),
            News::Farewell(_, is_gone) if is_open => {
                socket.has_ended = true;
                socket.server.is_gone |= is_gone;
            }
            News::Reset(_) if is_open => {
                socket.is_reset = true;
                socket.server.is_gone = true;
                socket.inbox.clear();
            }
            News::IdleSince(_, since) if is_open && !socket.server.is_gone => {
                let place = socket.place.as_ref();
                let limit = place.and_then(|place| self.hosts.get(place)?.idle_limit);
                let Some(limit) = limit else { return Vec::new() };
                let last_at = socket.server.last_at;
                if last_at > since {
                    later.send(last_at + limit, News::IdleSince(id, last_at));
                    return Vec::new();
                }
                self.faults += 1;
                socket.has_ended = true;
                socket.server.is_gone = true;
            }
            _ => return Vec::new(),
        }
        if let Some(socket) = self.sockets.get_mut(&id) {
            let (at, is_over) = (later.now, socket.has_ended || socket.is_reset);
            if is_over {
                socket.spoilt.ended.get_or_insert(at);
            } else if !socket.inbox.is_empty() {
                socket.spoilt.unread.get_or_insert(at);
            }
        }
        self.raise(id)
    }

    /// Tells of a socket whose state has changed.
    fn raise(&mut self, id: u64) -> Vec<Thread> {
        let Some(socket) = self.sockets.get_mut(&id) else { return Vec::new() };
        let mut woken = std::mem::take(&mut socket.waiting);
        for registered in &socket.registered {
            let told = socket.tells(registered);
            if let (Some(told), Some(poll)) = (told, self.polls.get_mut(&registered.poll)) {
                poll.tell(told);
                woken.append(&mut poll.waiting);
            }
        }
        woken
    }

    pub(crate) fn register(
        &mut self,
        descriptor: i32,
        registered: Registered,
    ) -> Result<Vec<Thread>, Errno> {
        let socket = self.socket_of(descriptor)?;
        let same = |other: &Registered| {
            (other.poll, other.descriptor) == (registered.poll, registered.descriptor)
        };
        if socket.registered.iter().any(same) {
            return Err(Errno::EXIST);
        }
        socket.registered.push(registered);
        let told = socket.tells(&registered);
        let poll = self.polls.get_mut(&registered.poll).ok_or(Errno::BADF)?;
        let Some(told) = told else { return Ok(Vec::new()) };
        poll.tell(told);
        Ok(std::mem::take(&mut poll.waiting))
    }

    pub(crate) fn deregister(&mut self, descriptor: i32, poll: u64) -> Result<(), Errno> {
        let socket = self.socket_of(descriptor)?;
        let before = socket.registered.len();
        socket.registered.retain(|other| (other.poll, other.descriptor) != (poll, descriptor));
        if socket.registered.len() == before { Err(Errno::NOENT) } else { Ok(()) }
    }

    /// Has all that block on the socket return.
    pub(crate) fn shut_down(&mut self, descriptor: i32) -> Result<Vec<Thread>, Errno> {
        let id = *self.descriptors.get(&descriptor).ok_or(Errno::BADF)?;
        let socket = self.socket_of(descriptor)?;
        if socket.state != State::Connected {
            return Err(Errno::NOTCONN);
        }
        socket.is_shut = true;
        socket.has_ended = true;
        Ok(self.raise(id))
    }

    pub(crate) fn wait(&mut self, descriptor: i32, thread: Thread) {
        if let Ok(socket) = self.socket_of(descriptor) {
            socket.waiting.push(thread);
        }
    }
}

impl Socket {
    fn new() -> Self {
        Self {
            descriptors: 1,
            state: State::Fresh,
            local: None,
            peer: None,
            place: None,
            inbox: VecDeque::new(),
            has_ended: false,
            is_reset: false,
            is_shut: false,
            spoilt: Spoilt::default(),
            is_nonblocking: false,
            read_timeout: None,
            registered: Vec::new(),
            waiting: Vec::new(),
            server: Server::default(),
        }
    }

    /// Takes what has come; nothing if there is none, and may be.
    pub(crate) fn read(&mut self, into: &mut [u8]) -> Result<Option<usize>, Errno> {
        if self.is_reset {
            return Err(Errno::CONNRESET);
        }
        if self.inbox.is_empty() {
            return Ok(self.has_ended.then_some(0));
        }
        let read = io::Read::read(&mut self.inbox, into).unwrap_or(0);
        if self.inbox.is_empty() {
            self.spoilt.unread = None;
        }
        Ok(Some(read))
    }

    /// What a registration tells about the socket as it stands, if it does.
    fn tells(&self, of: &Registered) -> Option<Told> {
        let is_over = self.has_ended || self.is_reset;
        let told = Told { word: of.word, is_error: self.is_reset, ..Told::default() };
        match of.interest {
            Interest::Writable => match self.state {
                State::Connected => Some(told),
                State::Failed(_) => Some(Told { is_error: true, ..told }),
                _ => None,
            },
            // mio has no name for the farewell alone: what is told has no flag.
            Interest::Farewell => {
                is_over.then_some(Told { is_read_closed: self.is_reset || self.is_shut, ..told })
            }
            Interest::Readable => (is_over || !self.inbox.is_empty()).then_some(Told {
                is_readable: true,
                is_read_closed: is_over,
                ..told
            }),
        }
    }
}

impl PollState {
    pub(crate) fn tell(&mut self, told: Told) {
        match self.queue.iter_mut().find(|other| other.word == told.word) {
            Some(other) => {
                other.is_readable |= told.is_readable;
                other.is_read_closed |= told.is_read_closed;
                other.is_error |= told.is_error;
            }
            None => self.queue.push_back(told),
        }
    }
}
