//! What the other process does: serves, and has the mishaps it is ordered to have.

use std::io::{self, ErrorKind, Read, Write};
use std::mem;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::time::Duration;

use peers::now_ns;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::net::{
    AddressFamily, SocketFlags, SocketType, bind, getsockname, listen, socket_with,
    sockopt::{set_socket_linger, set_socket_reuseaddr},
};
use rustix::time::Timespec;

use crate::remote::{PING, PONG};

/// More than connect at once.
const BACKLOG: i32 = 4096;
const MOST_EVENTS: usize = 256;
/// Words of events: sites come first, then streams, and the orders last.
const FIRST_STREAM: u64 = 1 << 32;
const ORDERS: u64 = u64::MAX;

/// An address that is served, or is not.
struct Site {
    /// Holds the port while nobody listens: else another socket could come to have it, even one
    /// that connects to it.
    _placeholder: OwnedFd,
    address: SocketAddr,
    listener: Option<TcpListener>,
    /// How long the other end may be silent.
    limit: Option<Duration>,
    /// Connections that were accepted.
    accepted: u64,
}

struct Stream {
    stream: TcpStream,
    limit: Option<Duration>,
    /// When something last came on it.
    heard: u64,
}

/// One thread that answers on all connections.
pub(crate) struct Server {
    epoll: OwnedFd,
    sites: Vec<Site>,
    streams: Vec<Option<Stream>>,
    /// Places among the streams that nobody has.
    vacant: Vec<usize>,
    /// Orders that have not come to their end.
    unread: Vec<u8>,
    /// What is accepted is reset at once.
    resets: bool,
    has_limits: bool,
    pongs: u64,
}

/// Obeys until there are no more orders.
pub(crate) fn serve() -> io::Result<()> {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, io::stdin(), EventData::new_u64(ORDERS), EventFlags::IN)?;
    let mut server = Server {
        epoll,
        sites: Vec::new(),
        streams: Vec::new(),
        vacant: Vec::new(),
        unread: Vec::new(),
        resets: false,
        has_limits: false,
        pongs: 0,
    };
    let mut events = Vec::with_capacity(MOST_EVENTS);
    loop {
        let timeout = server.close_silent();
        let buffer = rustix::buffer::spare_capacity(&mut events);
        match epoll::wait(&server.epoll, buffer, timeout.as_ref()) {
            Err(rustix::io::Errno::INTR) => continue,
            waited => waited?,
        };
        for event in events.drain(..) {
            match event.data.u64() {
                ORDERS if !server.take_orders()? => return Ok(()),
                ORDERS => {}
                word if word < FIRST_STREAM => server.accept(word as usize)?,
                word => server.answer((word - FIRST_STREAM) as usize),
            }
        }
    }
}

impl Server {
    /// False at the end.
    fn take_orders(&mut self) -> io::Result<bool> {
        let mut bytes = [0; 256];
        // Not through a buffer, which epoll would not know of.
        let read = rustix::io::read(io::stdin(), &mut bytes)?;
        self.unread.extend_from_slice(&bytes[..read]);
        while let Some(end) = self.unread.iter().position(|&byte| byte == b'\n') {
            let order = Vec::from_iter(self.unread.drain(..=end));
            let answer = self.obey(String::from_utf8_lossy(&order).trim())?;
            writeln!(io::stdout(), "{answer}")?;
        }
        Ok(read > 0)
    }

    fn obey(&mut self, order: &str) -> io::Result<u64> {
        let (verb, number) = order.split_once(' ').unwrap_or((order, ""));
        let number = number.parse::<u64>().unwrap_or(0);
        match verb {
            "site" => self.open_site((number > 0).then_some(Duration::from_millis(number))),
            "down" => {
                self.sites.iter_mut().for_each(|site| site.listener = None);
                self.hang_up();
                Ok(now_ns())
            }
            "up" => {
                let began = now_ns();
                self.resets = false;
                self.listen()?;
                Ok(began)
            }
            "reset" => {
                self.resets = true;
                self.hang_up();
                self.listen()?;
                Ok(now_ns())
            }
            "hang-up" => Ok(self.hang_up()),
            "accepted" => {
                let at = |site: &&Site| u64::from(site.address.port()) == number;
                Ok(self.sites.iter().find(at).map_or(0, |site| site.accepted))
            }
            "pongs" => Ok(self.pongs),
            _ => Err(io::Error::other(format!("no such order: {order}"))),
        }
    }

    /// Returns its port.
    fn open_site(&mut self, limit: Option<Duration>) -> io::Result<u64> {
        let placeholder = socket_at(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0).into())?;
        let address = SocketAddr::try_from(getsockname(&placeholder)?)?;
        self.has_limits |= limit.is_some();
        let site = Site { _placeholder: placeholder, address, listener: None, limit, accepted: 0 };
        self.sites.push(site);
        self.listen()?;
        Ok(address.port().into())
    }

    /// Has all sites listen.
    fn listen(&mut self) -> io::Result<()> {
        for (place, site) in self.sites.iter_mut().enumerate() {
            if site.listener.is_none() {
                let socket = socket_at(site.address)?;
                listen(&socket, BACKLOG)?;
                let data = EventData::new_u64(place as u64);
                epoll::add(&self.epoll, &socket, data, EventFlags::IN)?;
                site.listener = Some(socket.into());
            }
        }
        Ok(())
    }

    /// Closes all connections at once; returns how many there were.
    fn hang_up(&mut self) -> u64 {
        self.vacant.clear();
        let streams = mem::take(&mut self.streams);
        streams.into_iter().flatten().map(drop).count() as u64
    }

    fn accept(&mut self, place: usize) -> io::Result<()> {
        let Some(site) = self.sites.get_mut(place) else { return Ok(()) };
        let Some(listener) = &site.listener else { return Ok(()) };
        loop {
            let stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                // It ended before it was accepted.
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error),
            };
            site.accepted += 1;
            if self.resets {
                set_socket_linger(&stream, Some(Duration::ZERO))?;
                continue;
            }
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            let place = self.vacant.pop().unwrap_or(self.streams.len());
            let data = EventData::new_u64(FIRST_STREAM + place as u64);
            epoll::add(&self.epoll, &stream, data, EventFlags::IN)?;
            let stream = Some(Stream { stream, limit: site.limit, heard: now_ns() });
            match self.streams.get_mut(place) {
                Some(vacant) => *vacant = stream,
                None => self.streams.push(stream),
            }
        }
    }

    /// One answer for each question that came.
    fn answer(&mut self, place: usize) {
        let Some(stream) = self.streams.get_mut(place).and_then(Option::as_mut) else { return };
        let mut bytes = [0; 4096];
        let answered = match stream.stream.read(&mut bytes) {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                stream.heard = now_ns();
                let pings = bytes[..read].windows(PING.len()).filter(|bytes| *bytes == PING);
                let pings = pings.count();
                self.pongs += pings as u64;
                stream.stream.write_all(&PONG.repeat(pings))
            }
            // The event was another's, which had this place before.
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        };
        if answered.is_err() {
            self.close(place);
        }
    }

    fn close(&mut self, place: usize) {
        if self.streams.get_mut(place).and_then(Option::take).is_some() {
            self.vacant.push(place);
        }
    }

    /// Closes what was silent for too long; returns how soon another may have been.
    fn close_silent(&mut self) -> Option<Timespec> {
        if !self.has_limits {
            return None;
        }
        let (now, mut soonest) = (now_ns(), None);
        for place in 0..self.streams.len() {
            let stream = self.streams.get(place).and_then(Option::as_ref);
            let due = stream.and_then(|stream| {
                Some(stream.heard + u64::try_from(stream.limit?.as_nanos()).ok()?)
            });
            match due {
                Some(due) if due <= now => self.close(place),
                Some(due) => soonest = Some(soonest.map_or(due, |soonest: u64| soonest.min(due))),
                None => {}
            }
        }
        // Whole milliseconds, and none in the last one: waiting takes longer than it is told to.
        soonest.map(|soonest| Timespec {
            tv_sec: ((soonest - now) / 1_000_000_000) as i64,
            tv_nsec: ((soonest - now) / 1_000_000 % 1_000 * 1_000_000) as i64,
        })
    }
}

/// Several may have one address, as long as only one listens.
fn socket_at(address: SocketAddr) -> io::Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    set_socket_reuseaddr(&socket, true)?;
    bind(&socket, &address)?;
    Ok(socket)
}
