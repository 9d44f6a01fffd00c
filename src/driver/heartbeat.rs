//! Heartbeats: what idle connections are asked, and answer, in the event loop.
//!
//! A connection that is asked is out of the idle ones and off their watch: it is registered under a
//! word of its own, written to and read from without blocking, and comes back when its answer is
//! complete. The reaper has those called off that do not answer in time.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::connector::{Connector, Heartbeat, Pulse, Watch};
use crate::core::{Cut, Slab, Token};
use crate::driver::Tie;
use crate::driver::connects::Key;
use crate::observe::CloseReason;
use crate::shared::{Boxed, Home, Watched, guarded, note, note_panic};
use crate::sync::Arc;
use crate::sys::{self, HashMap, Peek, mio};

/// The tag of the words under which connections are registered that are asked.
pub(crate) const TAG: u16 = Token::MOST_TAG - 1;
/// An answer that is longer is none.
const LONGEST_ANSWER: usize = 64 * 1024;

/// The connections that are asked at this moment.
#[derive(Debug)]
pub(crate) struct Beats {
    registry: Arc<mio::Registry>,
    beats: Slab<Box<dyn Beating>>,
    by_key: HashMap<Key, Token>,
}

/// A connection that is asked, whatever it is. Dropped without an end, it has failed.
pub(crate) trait Beating: Send {
    fn key(&self) -> Key;
    /// Asks, and has news of the answer come under `word`.
    fn begin(&mut self, registry: &mio::Registry, word: Option<usize>) -> Progress;
    /// There is news.
    fn go_on(&mut self) -> Progress;
    /// It goes back to its pool.
    fn end(self: Box<Self>, registry: &mio::Registry, verdict: Result<(), CloseReason>);
}

/// How far one is; with an end, what is to be made of the connection.
pub(crate) type Progress = Option<Result<(), CloseReason>>;

impl std::fmt::Debug for dyn Beating {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Beating").field(&self.key()).finish()
    }
}

impl Beats {
    pub(crate) fn new(registry: Arc<mio::Registry>) -> Self {
        Self { registry, beats: Slab::new(), by_key: HashMap::default() }
    }

    /// Gives up all that are under way, for the caller to drop.
    pub(crate) fn take_all(&mut self) -> impl Sized + use<> {
        self.by_key.clear();
        std::mem::replace(&mut self.beats, Slab::new())
    }

    pub(crate) fn add(&mut self, beating: Box<dyn Beating>) {
        let key = beating.key();
        let token = self.beats.insert(beating);
        self.by_key.insert(key, token);
        let progress = self.beats.at_mut(token.index).begin(&self.registry, token.pack(TAG));
        self.note(token, progress);
    }

    /// There is news under a word with the tag.
    pub(crate) fn ready(&mut self, of: Cut) {
        let Some(token) = self.beats.find(of) else { return };
        let progress = self.beats.at_mut(token.index).go_on();
        self.note(token, progress);
    }

    /// Its time is over.
    pub(crate) fn cancel(&mut self, key: Key) {
        if let Some(&token) = self.by_key.get(&key) {
            self.note(token, Some(Err(CloseReason::CheckFailed)));
        }
    }

    fn note(&mut self, token: Token, progress: Progress) {
        let Some(verdict) = progress else { return };
        let Some(beating) = self.beats.remove(token) else { return };
        self.by_key.remove(&beating.key());
        beating.end(&self.registry, verdict);
    }
}

/// A connection of a pool that is asked.
pub(crate) struct Beat<C: Connector> {
    tie: Arc<Tie>,
    token: Token,
    /// Present until it ends.
    asked: Option<(Arc<Home<C>>, Boxed<C>)>,
    heartbeat: Option<Box<dyn Heartbeat>>,
    /// How it was watched before.
    watched: Watched,
    received: Vec<u8>,
}

impl<C: Connector> Beat<C> {
    pub(crate) fn new(tie: Arc<Tie>, home: Arc<Home<C>>, token: Token, conn: Boxed<C>) -> Self {
        let asked = Some((home, conn));
        Self { tie, token, asked, heartbeat: None, watched: Watched::No, received: Vec::new() }
    }

    /// Asks; true if an answer is to come.
    fn ask(&mut self, registry: &mio::Registry, word: Option<usize>) -> Result<bool, CloseReason> {
        let Some((home, conn)) = &mut self.asked else { return Ok(false) };
        let shared = &home.shared;
        let Some(mut heartbeat) = shared.connector.heartbeat(&home.key) else { return Ok(false) };
        let mut question = Vec::new();
        heartbeat.ping(&mut question);
        self.heartbeat = Some(heartbeat);
        let watched = conn.watched;
        if question.is_empty() || watched == Watched::No {
            return Ok(false);
        }
        let (Watch::Socket(_), Some(word)) = (shared.connector.watch(&conn.conn), word) else {
            return Ok(false); // what shows no more than its number is not ours to read from
        };
        shared.stop_watching(conn).map_err(|_| CloseReason::ConnectorPanicked)?;
        self.watched = watched;
        let Watch::Socket(fd) = shared.connector.watch(&conn.conn) else { return Ok(false) };
        // What its server says unasked is for the first user, if it is a greeting.
        if conn.lease.uses == 0 && sys::peek(fd) == Peek::Bytes {
            return Ok(false);
        }
        let asked = sys::watch_bytes(registry, sys::number(fd), word)
            .and_then(|()| sys::send_now(fd, &question));
        match asked {
            Ok(sent) if sent == question.len() => Ok(true),
            Ok(_) => Err(CloseReason::CheckFailed), // an idle one whose peer does not read
            Err(error) => {
                note!(Debug, home, error:% = error; "could not send a heartbeat: {error}");
                Err(CloseReason::CheckFailed)
            }
        }
    }

    /// Takes what has come; true if that was the answer.
    fn listen(&mut self) -> Result<bool, CloseReason> {
        let Some((home, conn)) = &mut self.asked else { return Ok(true) };
        let Watch::Socket(fd) = home.shared.connector.watch(&conn.conn) else { return Ok(true) };
        let before = self.received.len();
        let mut part = [0; 512];
        loop {
            match sys::receive_now(fd, &mut part) {
                Ok(0) => return Err(CloseReason::PeerClosed),
                Ok(count) => self.received.extend(part.iter().take(count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                    return Err(CloseReason::PeerClosed);
                }
                Err(_) => return Err(CloseReason::CheckFailed),
            }
            if self.received.len() > LONGEST_ANSWER {
                return Err(CloseReason::CheckFailed);
            }
        }
        let Some(heartbeat) = self.heartbeat.as_mut().filter(|_| self.received.len() > before)
        else {
            return Ok(false);
        };
        match heartbeat.pong(&self.received) {
            Pulse::More => Ok(false),
            Pulse::Alive => Ok(true),
            Pulse::Dead => Err(CloseReason::CheckFailed),
        }
    }

    /// Has the connection watched again as it was before.
    fn look_back(&mut self, registry: &mio::Registry) -> Result<(), CloseReason> {
        let watched = std::mem::take(&mut self.watched);
        let Some((home, conn)) = &mut self.asked else { return Ok(()) };
        if watched == Watched::No {
            return Ok(());
        }
        let shared = &home.shared;
        let looked = guarded(|| {
            if let Watch::Socket(fd) = shared.connector.watch(&conn.conn) {
                if let Err(error) = sys::unwatch(registry, sys::number(fd)) {
                    log::debug!(error:% = error; "could not deregister a connection: {error}");
                }
            }
        });
        let token = self.token;
        looked
            .and_then(|()| shared.watch_again(token, conn, watched))
            .map_err(|_| CloseReason::ConnectorPanicked)
    }

    fn finish(&mut self, verdict: Result<(), CloseReason>) {
        let Some((home, conn)) = self.asked.take() else { return };
        if let Err(reason) = verdict {
            note!(Debug, &home, reason:% = reason; "a heartbeat ended a connection: {reason}");
        }
        home.shared.finish_upkeep(&home, self.token, Some(conn), verdict);
        self.tie.let_go_of(home);
    }
}

/// Runs what may be somebody else's code; its panic ends the connection.
fn judge(act: impl FnOnce() -> Result<bool, CloseReason>) -> Result<bool, CloseReason> {
    guarded(act).unwrap_or_else(|panic| {
        note_panic("a heartbeat panicked", &panic);
        Err(CloseReason::ConnectorPanicked)
    })
}

impl<C: Connector> Beating for Beat<C> {
    fn key(&self) -> Key {
        (self.tie.pool, self.token)
    }

    fn begin(&mut self, registry: &mio::Registry, word: Option<usize>) -> Progress {
        let (home, _) = self.asked.as_ref()?;
        if !home.shared.begin_beat(self.token) {
            return Some(Err(CloseReason::TooLate));
        }
        let asked = judge(|| self.ask(registry, word));
        let (home, _) = self.asked.as_ref()?;
        match asked {
            Ok(true) => None,
            Ok(false) => {
                home.shared.note_unasked(self.token);
                Some(Ok(()))
            }
            Err(reason) => Some(Err(reason)),
        }
    }

    fn go_on(&mut self) -> Progress {
        match judge(|| self.listen()) {
            Ok(true) => Some(Ok(())),
            Ok(false) => None,
            Err(reason) => Some(Err(reason)),
        }
    }

    fn end(mut self: Box<Self>, registry: &mio::Registry, verdict: Result<(), CloseReason>) {
        let looked = self.look_back(registry);
        self.finish(verdict.and(looked));
    }
}

impl<C: Connector> Drop for Beat<C> {
    fn drop(&mut self) {
        // Its own drop: nothing may escape it.
        let ended = catch_unwind(AssertUnwindSafe(|| self.finish(Err(CloseReason::TooLate))));
        debug_assert!(ended.is_ok(), "bug: the end of a heartbeat panicked");
    }
}
