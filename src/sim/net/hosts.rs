//! Hosts: how they behave, and what they answer.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::sim::net::{Later, News, Socket};
use crate::sim::world;

/// What a request and its answer are long.
pub const FRAME: usize = 8;
pub(super) const MILLI: u64 = 1_000_000;

/// Where a host listens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Place {
    Address(SocketAddr),
    Path(PathBuf),
}

/// What becomes of a connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Accepts {
    All,
    /// Refused.
    None,
    /// No answer ever comes; of a Unix socket, the backlog is full.
    Silent,
}

/// How a host behaves. Chances are so many of a thousand, for each request; times in nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "made by the one package that uses it")]
pub struct Manners {
    pub accepts: Accepts,
    /// How long a connect takes, at least and at most.
    pub connect: (u64, u64),
    /// How long an answer takes.
    pub answer: (u64, u64),
    /// Instead of an answer, the connection is reset.
    pub resets: u64,
    /// Half an answer comes, and no more.
    pub halves: u64,
    /// No answer comes.
    pub silences: u64,
    /// The answer comes much later.
    pub delays: u64,
    /// After the answer, a byte that nobody asked for.
    pub strays: u64,
    /// The same, some time later.
    pub late_strays: u64,
    /// After the answer it closes.
    pub closes: u64,
    /// After the answer it will say nothing more, and does not say so: it still reads.
    pub half_closes: u64,
    /// It answers something else, as if to somebody else.
    pub lies: u64,
    /// The connection is lost without a word: nothing will ever come of it.
    pub vanishes: u64,
    /// It closes what was idle for so long.
    pub idle_limit: Option<u64>,
    /// With so many connections, it closes a new one at once.
    pub most: usize,
}

impl Manners {
    /// Nothing goes wrong.
    #[must_use]
    pub const fn calm() -> Self {
        Self {
            accepts: Accepts::All,
            connect: (MILLI / 10, MILLI / 2),
            answer: (MILLI / 20, MILLI / 5),
            resets: 0,
            halves: 0,
            silences: 0,
            delays: 0,
            strays: 0,
            late_strays: 0,
            closes: 0,
            half_closes: 0,
            lies: 0,
            vanishes: 0,
            idle_limit: None,
            most: usize::MAX,
        }
    }
}

impl Default for Manners {
    fn default() -> Self {
        Self::calm()
    }
}

/// The other side of a connection.
#[derive(Debug, Default)]
pub(super) struct Server {
    pub(super) heard: Vec<u8>,
    /// What it sends arrives in order.
    pub(super) arrives: u64,
    pub(super) last_at: u64,
    pub(super) is_gone: bool,
    pub(super) has_vanished: bool,
}

impl Server {
    pub(super) fn say(&mut self, id: u64, at: u64, bytes: Vec<u8>, later: &mut Later<'_>) {
        self.arrives = self.arrives.max(at);
        later.send(self.arrives, News::Bytes(id, bytes));
    }

    /// Answers a request, well or not; true if not.
    pub(super) fn answer(
        &mut self,
        id: u64,
        frame: Vec<u8>,
        manners: &Manners,
        later: &mut Later<'_>,
    ) -> bool {
        let at = later.after(manners.answer);
        let mut chance = |chance| later.random.permille(chance);
        if chance(manners.vanishes) {
            self.has_vanished = true;
            return true;
        }
        if chance(manners.silences) {
            return true;
        }
        if chance(manners.resets) {
            later.send(at, News::Reset(id));
            return true;
        }
        if chance(manners.halves) {
            self.say(id, at, frame.into_iter().take(FRAME / 2).collect(), later);
            return true;
        }
        if chance(manners.delays) {
            let at = later.after((50 * MILLI, 2_000 * MILLI));
            self.say(id, at, frame, later);
            return true;
        }
        let mut frame = frame;
        if later.random.permille(manners.lies) {
            frame.reverse();
        }
        self.say(id, at, frame, later);
        let at = self.arrives;
        if later.random.permille(manners.strays) {
            self.say(id, at, vec![b'!'], later);
            return true;
        }
        if later.random.permille(manners.late_strays) {
            let at = later.after((MILLI, 20 * MILLI));
            self.say(id, at, vec![b'!'], later);
            return true;
        }
        let closes = later.random.permille(manners.closes);
        if closes || later.random.permille(manners.half_closes) {
            let pause = later.random.below(2) * later.random.below(3 * MILLI);
            later.send(at + pause, News::Farewell(id, closes));
            return true;
        }
        false
    }
}

/// Puts a host there, or has the one that is there behave otherwise from now on.
pub fn set_host(place: Place, manners: Manners) {
    world::with(|world| world.net.hosts.insert(place, manners));
}

/// Ends all connections of a host: by a reset, or with a farewell.
pub fn end_connections(place: &Place, by_reset: bool) {
    world::with(|world| {
        world.in_net(|net, later| {
            let theirs = |(id, socket): (&u64, &Socket)| {
                (socket.place.as_ref() == Some(place)).then_some(*id)
            };
            let ids: Vec<_> = net.sockets.iter().filter_map(theirs).collect();
            net.faults += ids.len() as u64;
            for id in ids {
                let at = later.after((0, MILLI / 5));
                later.send(at, if by_reset { News::Reset(id) } else { News::Farewell(id, true) });
            }
        });
    });
}

/// Since when a connection is of no use to its next user, as its own side could tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Spoilt {
    /// Bytes have come and lie unread.
    pub unread: Option<u64>,
    /// It has been closed or reset by the peer.
    pub ended: Option<u64>,
}

/// How the connection with this address of its own stands.
#[must_use]
pub fn spoilt(local: SocketAddr) -> Spoilt {
    world::with(|world| {
        let mut sockets = world.net.sockets.values();
        let socket = sockets.find(|socket| socket.local == Some(local));
        socket.map(|socket| socket.spoilt).unwrap_or_default()
    })
}

/// All connections of a host are lost without a word.
pub fn cut_connections(place: &Place) {
    world::with(|world| {
        for socket in world.net.sockets.values_mut() {
            if socket.place.as_ref() == Some(place) {
                socket.server.has_vanished = true;
                world.net.faults += 1;
            }
        }
    });
}

/// From now on no more descriptors than this can be open.
pub fn set_descriptor_limit(most: Option<usize>) {
    world::with(|world| world.net.most_descriptors = most);
}
