//! The connectors of simulated pools, and what a caller can do with their connections.

use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use warmline::sim::net::{FRAME, Place, Spoilt, spoilt};
use warmline::sim::{self, random_below};
use warmline::{
    Address, Beat, BoxError, CloseReason, Connector, Deadline, Heartbeat, Look, Opening, Plan,
    Reset, Socket, SocketOptions, TcpConnector, Watch,
};

use crate::script::{Reach, Temper};

const PORT: u16 = 80;
pub const READ_TIMEOUT: Duration = Duration::from_millis(30);

/// Where host number `host` listens.
#[must_use]
pub fn place(host: usize, reach: Reach) -> Place {
    match reach {
        Reach::Path => Place::Path(path(host)),
        _ => Place::Address(address(host)),
    }
}

#[must_use]
pub fn address(host: usize) -> SocketAddr {
    let [.., high, low] = (host as u32 + 1).to_be_bytes();
    SocketAddr::from((Ipv4Addr::new(10, 0, high, low), PORT))
}

/// Where nobody is, beside those who are.
#[must_use]
pub fn empty(at: u8) -> Place {
    Place::Address(address(100 + usize::from(at)))
}

fn path(host: usize) -> PathBuf {
    PathBuf::from(format!("/run/host-{host}"))
}

#[must_use]
pub fn name(host: usize) -> String {
    format!("host-{host}.sim")
}

/// A connector, and what callers need to know about it.
pub trait Kit: Clone + Send + Sync + 'static {
    type Connector: Connector;
    fn connector(&self) -> Self::Connector;
    fn key(&self, host: usize, reach: Reach) -> <Self::Connector as Connector>::Key;
    /// One request and its answer.
    fn exchange(
        conn: &mut <Self::Connector as Connector>::Conn,
        frame: [u8; FRAME],
    ) -> io::Result<[u8; FRAME]>;
    /// A request, and nothing read.
    fn ask(conn: &mut <Self::Connector as Connector>::Conn, frame: [u8; FRAME]) -> io::Result<()>;
    /// Tells this connection from all others that there ever were.
    fn identity(conn: &<Self::Connector as Connector>::Conn) -> u64;
    /// Since when its own side could tell that it is of no use; nothing if no socket is shown.
    fn spoilt(conn: &<Self::Connector as Connector>::Conn) -> Option<Spoilt>;
    /// It is its user's now, and not for the connector to close.
    fn keep(_: &mut <Self::Connector as Connector>::Conn) {}
    /// Which address it leads to, as far as it shows.
    fn peer(conn: &<Self::Connector as Connector>::Conn) -> Option<SocketAddr>;
    /// Connections that were opened and not dropped.
    fn alive(&self) -> usize;
    /// Calls of the connector that may block and have not returned.
    fn busy(&self) -> usize;
    /// Nobody but this one has anything of the connector any more.
    fn is_alone(&self) -> bool;
}

fn exchange_on(socket: &mut Socket, frame: [u8; FRAME]) -> io::Result<[u8; FRAME]> {
    socket.write_all(&frame)?;
    let mut answer = [0; FRAME];
    socket.read_exact(&mut answer)?;
    Ok(answer)
}

fn number_of(socket: &Socket) -> u64 {
    let local = socket.local_addr();
    local.map_or(0, |local| match local {
        SocketAddr::V4(local) => u64::from(local.ip().to_bits()),
        SocketAddr::V6(_) => 0,
    })
}

/// Our own plain sockets.
#[derive(Clone, Debug)]
pub struct Plain;

impl Kit for Plain {
    type Connector = TcpConnector;

    fn connector(&self) -> TcpConnector {
        TcpConnector::new().read_timeout(READ_TIMEOUT).heartbeat(beat())
    }

    fn key(&self, host: usize, reach: Reach) -> Address {
        match reach {
            Reach::Name => Address::new(&name(host), PORT).expect("a name"),
            _ => address(host).to_string().parse().expect("an address"),
        }
    }

    fn exchange(socket: &mut Socket, frame: [u8; FRAME]) -> io::Result<[u8; FRAME]> {
        exchange_on(socket, frame)
    }

    fn ask(socket: &mut Socket, frame: [u8; FRAME]) -> io::Result<()> {
        socket.write_all(&frame)
    }

    fn identity(socket: &Socket) -> u64 {
        number_of(socket)
    }

    fn peer(socket: &Socket) -> Option<SocketAddr> {
        socket.peer_addr()
    }

    fn spoilt(socket: &Socket) -> Option<Spoilt> {
        socket.local_addr().map(spoilt)
    }

    fn alive(&self) -> usize {
        0 // the descriptors tell
    }

    fn busy(&self) -> usize {
        0
    }

    fn is_alone(&self) -> bool {
        true
    }
}

/// A connector that does much, and not always well.
#[derive(Clone, Debug)]
pub struct Foreign {
    temper: Temper,
    alive: Arc<Mutex<Alive>>,
}

#[derive(Debug, Default)]
struct Alive {
    count: u64,
    numbers: BTreeSet<u64>,
    busy: usize,
}

/// A call of the connector that may block.
struct Call<'a>(&'a Mutex<Alive>);

impl<'a> Call<'a> {
    fn begin(alive: &'a Mutex<Alive>) -> Self {
        alive.lock().busy += 1;
        Self(alive)
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.0.lock().busy -= 1;
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    host: usize,
    reach: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Address,
    Addresses(u8),
    Name,
    Path,
    Blocking,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "host-{} by {:?}", self.host, self.reach)
    }
}

/// One of its connections.
#[derive(Debug)]
pub struct Conn {
    number: u64,
    socket: Option<Socket>,
    /// An exchange on it has failed.
    is_broken: bool,
    /// Its connector has refused it: nobody may have it any more.
    is_refused: bool,
    /// It must be settled before anybody may have it.
    is_unsettled: bool,
    shows_socket: bool,
    /// It was passed to the connector's `close`, or is its user's.
    is_let_go: bool,
    alive: Arc<Mutex<Alive>>,
}

impl Conn {
    /// Whoever uses it must not have been given what its connector refused.
    fn expect_fit(&self) {
        if self.is_refused {
            sim::violation(format!("connection {} was refused, and is in use", self.number));
        }
        if self.is_unsettled {
            sim::violation(format!("connection {} is in use and not settled", self.number));
        }
    }

    /// A verdict of its connector, which may panic before there is one.
    fn judged<R>(&mut self, by: impl FnOnce(&mut Self) -> R, is_fit: impl Fn(&R) -> bool) -> R {
        let was_refused = std::mem::replace(&mut self.is_refused, true);
        let verdict = by(self);
        self.is_refused = was_refused || !is_fit(&verdict);
        verdict
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        if !self.alive.lock().numbers.remove(&self.number) {
            sim::violation(format!("connection {} dropped twice", self.number));
        }
        if !self.is_let_go && !sim::has_ended() {
            sim::violation(format!("connection {} dropped, not closed", self.number));
        }
    }
}

impl Foreign {
    #[must_use]
    pub fn new(temper: Temper) -> Self {
        Self { temper, alive: Arc::default() }
    }

    /// What may befall any call of its code; those that may block can hang as well.
    fn misbehave(&self, until: Option<Deadline>) -> Result<(), BoxError> {
        let Temper { fails, panics, hangs, .. } = self.temper;
        let roll = random_below(1000);
        if roll < panics {
            sim::panic_in_call();
        }
        if roll < panics + fails {
            return Err("as the script says".into());
        }
        if let Some(deadline) = until {
            if roll < panics + fails + hangs {
                let beyond = Duration::from_millis(1 + random_below(4_000));
                sim::sleep(deadline.remaining() + beyond);
            } else if random_below(4) == 0 {
                sim::sleep(Duration::from_micros(random_below(3_000)));
            }
        }
        Ok(())
    }
}

impl Connector for Foreign {
    type Key = Key;
    type Conn = Conn;

    fn plan(&self, key: &Key) -> Plan {
        let plan = match key.reach {
            Kind::Address => Plan::addrs([address(key.host)]),
            Kind::Addresses(many) => {
                // Nobody is there but at the last.
                let empty = (0..many).map(|at| address(100 + usize::from(at)));
                Plan::addrs(empty.chain([address(key.host)]).collect::<Vec<_>>())
            }
            Kind::Name => Plan::host(name(key.host), PORT),
            Kind::Path => Plan::path(path(key.host)),
            Kind::Blocking => Plan::blocking(),
        };
        plan.options(SocketOptions::new().read_timeout(READ_TIMEOUT))
    }

    fn open(&self, key: &Key, opening: &mut Opening) -> Result<Conn, BoxError> {
        let _call = Call::begin(&self.alive);
        self.misbehave(Some(opening.deadline()))?;
        let mut socket = match key.reach {
            Kind::Blocking => None,
            _ => Some(opening.take_socket()?),
        };
        if let Some(socket) = &mut socket {
            if self.temper.unlimits {
                socket.set_read_timeout(Duration::from_secs(60))?;
            }
            let hello = frame(u64::MAX);
            if exchange_on(socket, hello)? != hello {
                return Err("no welcome".into());
            }
            if !self.temper.shows_socket {
                socket.set_read_timeout(READ_TIMEOUT)?; // the pool cannot put it back
            }
        }
        let _asked = opening.is_wanted();
        let mut alive = self.alive.lock();
        alive.count += 1;
        let number = alive.count;
        alive.numbers.insert(number);
        drop(alive);
        Ok(Conn {
            number,
            socket,
            is_broken: false,
            is_refused: false,
            is_unsettled: false,
            shows_socket: self.temper.shows_socket,
            is_let_go: false,
            alive: Arc::clone(&self.alive),
        })
    }

    fn socket<'c>(&self, conn: &'c mut Conn) -> Option<&'c mut Socket> {
        conn.socket.as_mut().filter(|_| self.temper.shows_socket)
    }

    fn watch<'c>(&self, conn: &'c Conn) -> Watch<'c> {
        let socket = conn.socket.as_ref().filter(|_| self.temper.watches);
        socket.map_or(Watch::Nothing, Socket::watch)
    }

    fn is_open(&self, conn: &mut Conn, _: Look) -> bool {
        conn.judged(|_| self.misbehave(None).is_ok(), |is_open| *is_open)
    }

    fn reset(&self, conn: &mut Conn) -> Reset {
        let judge = |conn: &mut Conn| {
            if self.misbehave(None).is_err() || conn.is_broken {
                Reset::Close
            } else if random_below(1000) < self.temper.settles {
                conn.is_unsettled = true;
                Reset::Later
            } else {
                Reset::Ready
            }
        };
        conn.judged(judge, |reset| *reset != Reset::Close)
    }

    fn settle(&self, conn: &mut Conn, deadline: Deadline) -> Result<(), BoxError> {
        let _call = Call::begin(&self.alive);
        conn.judged(|_| self.misbehave(Some(deadline)), Result::is_ok)?;
        conn.is_unsettled = false;
        Ok(())
    }

    fn has_check(&self) -> bool {
        self.temper.has_check
    }

    fn heartbeat(&self, _: &Key) -> Option<Box<dyn Heartbeat>> {
        (self.temper.watches && !self.temper.has_check).then(|| Box::new(beat()) as _)
    }

    fn check(&self, conn: &mut Conn, deadline: Deadline) -> Result<(), BoxError> {
        let _call = Call::begin(&self.alive);
        let check = |conn: &mut Conn| {
            self.misbehave(Some(deadline))?;
            let ping = frame(u64::MAX - 1);
            let Some(socket) = &mut conn.socket else { return Ok(()) };
            if exchange_on(socket, ping)? == ping { Ok(()) } else { Err("no answer".into()) }
        };
        conn.judged(check, Result::is_ok)
    }

    fn close(&self, mut conn: Conn, _: CloseReason) {
        conn.is_let_go = true;
        let _call = Call::begin(&self.alive);
        // An end that hangs delays others: not for ever, as here.
        let _unused = self.misbehave(Some(Deadline::after(Duration::ZERO)));
        drop(conn);
    }
}

impl Kit for Foreign {
    type Connector = Self;

    fn connector(&self) -> Self {
        self.clone()
    }

    fn key(&self, host: usize, reach: Reach) -> Key {
        let reach = match reach {
            Reach::Address => Kind::Address,
            Reach::Addresses(many) => Kind::Addresses(many),
            Reach::Name => Kind::Name,
            Reach::Path => Kind::Path,
            Reach::Blocking => Kind::Blocking,
        };
        Key { host, reach }
    }

    fn exchange(conn: &mut Conn, frame: [u8; FRAME]) -> io::Result<[u8; FRAME]> {
        conn.expect_fit();
        match &mut conn.socket {
            Some(socket) => {
                let answer = exchange_on(socket, frame);
                conn.is_broken |= !answer.as_ref().is_ok_and(|answer| *answer == frame);
                answer
            }
            None => {
                sim::sleep(Duration::from_micros(200));
                Ok(frame)
            }
        }
    }

    fn ask(conn: &mut Conn, frame: [u8; FRAME]) -> io::Result<()> {
        conn.socket.as_mut().map_or(Ok(()), |socket| socket.write_all(&frame))
    }

    fn identity(conn: &Conn) -> u64 {
        conn.expect_fit();
        conn.number
    }

    fn keep(conn: &mut Conn) {
        conn.is_let_go = true;
    }

    fn peer(conn: &Conn) -> Option<SocketAddr> {
        conn.socket.as_ref()?.peer_addr()
    }

    fn spoilt(conn: &Conn) -> Option<Spoilt> {
        let socket = conn.socket.as_ref().filter(|_| conn.shows_socket)?;
        socket.local_addr().map(spoilt)
    }

    fn busy(&self) -> usize {
        self.alive.lock().busy
    }

    fn is_alone(&self) -> bool {
        Arc::strong_count(&self.alive) == 1
    }

    fn alive(&self) -> usize {
        self.alive.lock().numbers.len()
    }
}

/// Bytes that are nobody else's.
#[must_use]
/// Hosts send everything back.
fn beat() -> Beat {
    Beat::new(frame(u64::MAX - 2), frame(u64::MAX - 2))
}

pub fn frame(number: u64) -> [u8; FRAME] {
    let mut frame = number.to_be_bytes();
    frame[0] = 0xA5; // told from what a host says unasked
    frame
}
