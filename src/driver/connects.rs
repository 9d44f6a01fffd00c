//! The attempts to connect that the event loop has under way.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use smallvec::SmallVec;

use crate::clock::Stamp;
use crate::connector::{Socket, SocketOptions};
use crate::core::{Cut, Slab, Token};
use crate::driver::flight::{Flight, connect_unix};
use crate::driver::race::Race;
use crate::driver::watch::Claims;
use crate::sync::Arc;
use crate::sys::{self, HashMap, mio};

/// Sockets that one turn of the loop begins to connect, so that news of others is not kept waiting.
const MOST_PER_TURN: usize = 32;
/// A Unix listener whose backlog is full is asked again after this, and then ever later.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// Room for so many attempts is not worth giving back.
const KEEP: usize = 64;

/// The tag of the words under which sockets are registered that are being connected.
pub(crate) const TAG: u16 = 0;

/// An attempt of a pool.
pub(crate) type Key = (u64, Token);

/// Something to connect to.
pub(crate) struct Order {
    pub(crate) key: Key,
    pub(crate) target: Target,
    pub(crate) options: SocketOptions,
    pub(crate) deadline: Stamp,
    pub(crate) delivery: Box<dyn Delivery>,
}

pub(crate) enum Target {
    Addresses(Arc<[SocketAddr]>),
    Path(PathBuf),
}

/// Where the outcome goes. Dropped without one, the attempt has failed.
pub(crate) trait Delivery: Send {
    /// The loop takes the attempt up; false if it came too late.
    fn begin(&mut self) -> bool;
    fn deliver(self: Box<Self>, outcome: Outcome);
}

#[derive(Debug)]
pub(crate) enum Outcome {
    Connected(Socket),
    Failed(io::Error),
    /// Its deadline came first, or it was called off; how far it was, in words.
    TooLate(String),
}

#[derive(Debug)]
pub(crate) struct Connects {
    registry: Arc<mio::Registry>,
    claims: Arc<Claims>,
    attempts: HashMap<Key, Box<Attempt>>,
    flights: Slab<(Key, Flight)>,
    /// Attempts that have something to begin.
    due: VecDeque<Key>,
    /// When others will have, or are to end. One that has ended meanwhile is passed over.
    timers: BinaryHeap<Reverse<(Stamp, Key)>>,
}

struct Attempt {
    deadline: Stamp,
    /// When it has something to begin, as its timer says.
    next_at: Option<Stamp>,
    course: Course,
    options: SocketOptions,
    delivery: Box<dyn Delivery>,
}

enum Course {
    Tcp { race: Race, flights: SmallVec<[Token; 2]> },
    Unix { path: PathBuf, pause: Duration },
}

/// What came of beginning something.
enum Begun {
    /// It goes on: next at this time, or when there is news.
    GoesOn(Option<Stamp>),
    Ended(Outcome),
    /// No address is left.
    Lost,
}

impl Connects {
    pub(crate) fn new(registry: Arc<mio::Registry>, claims: Arc<Claims>) -> Self {
        Self {
            registry,
            claims,
            attempts: HashMap::default(),
            flights: Slab::new(),
            due: VecDeque::new(),
            timers: BinaryHeap::new(),
        }
    }

    /// Gives up everything that is under way, for the caller to drop.
    pub(crate) fn take_all(&mut self) -> impl Sized + use<> {
        self.due.clear();
        self.timers.clear();
        let flights = std::mem::replace(&mut self.flights, Slab::new());
        (flights, std::mem::take(&mut self.attempts))
    }

    /// Takes up an attempt; what it has to do first waits for its turn.
    pub(crate) fn add(&mut self, order: Order, now: Stamp) {
        let Order { key, target, options, deadline, mut delivery } = order;
        if !delivery.begin() {
            return;
        }
        let course = match target {
            Target::Addresses(addresses) => {
                let addresses = options.reachable(&addresses);
                Course::Tcp { race: Race::new(&addresses, now, deadline), flights: SmallVec::new() }
            }
            Target::Path(path) => Course::Unix { path, pause: FIRST_PAUSE },
        };
        self.attempts
            .insert(key, Box::new(Attempt { deadline, next_at: None, course, options, delivery }));
        self.timers.push(Reverse((deadline, key)));
        self.due.push_back(key);
    }

    /// Ends an attempt that is past its deadline, or not wanted any more.
    pub(crate) fn cancel(&mut self, key: Key) {
        let words = match self.attempts.get(&key).map(|attempt| &attempt.course) {
            // Why others were not tried is more than that one did not answer.
            Some(Course::Tcp { race, .. }) if race.ran_short() => return self.lose(key),
            Some(Course::Tcp { race, .. }) => race.describe(),
            Some(Course::Unix { pause, .. }) if *pause == FIRST_PAUSE => "it was not begun".into(),
            Some(Course::Unix { .. }) => {
                "the listener's backlog was full until the deadline".into()
            }
            None => return,
        };
        self.end(key, Outcome::TooLate(words));
    }

    /// There is news of a socket.
    pub(crate) fn ready(&mut self, of: Cut) {
        let Some(token) = self.flights.find(of) else { return };
        let Some((key, flight)) = self.flights.get(token) else { return };
        let key = *key;
        let landed = flight.has_landed();
        match landed {
            Ok(false) => {}
            Ok(true) => match self.land(token) {
                Ok(socket) => self.end(key, Outcome::Connected(socket)),
                Err(error) => self.crashed(key, token, error),
            },
            Err(error) => {
                drop(self.take_flight(token));
                self.crashed(key, token, error);
            }
        }
    }

    /// Ends what is past its deadline, and begins what is due, as much as fits into a turn.
    pub(crate) fn advance(&mut self, now: Stamp) {
        while let Some(&Reverse((at, key))) = self.timers.peek() {
            if at > now {
                break;
            }
            self.timers.pop();
            match self.attempts.get(&key).map(|attempt| attempt.deadline <= now) {
                Some(true) => self.cancel(key),
                Some(false) => self.due.push_back(key),
                None => {}
            }
        }
        for _ in 0..MOST_PER_TURN {
            let Some(key) = self.due.pop_front() else { return };
            match self.begin_next(key, now) {
                Begun::GoesOn(Some(at)) if at <= now => self.due.push_back(key),
                Begun::GoesOn(Some(at)) => self.set_timer(key, at),
                Begun::GoesOn(None) => {}
                Begun::Ended(outcome) => self.end(key, outcome),
                Begun::Lost => self.lose(key),
            }
        }
    }

    /// For how long there will be nothing to do but to listen for news; `None`: for ever.
    pub(crate) fn pause(&mut self, now: Stamp) -> Option<Duration> {
        if !self.due.is_empty() {
            return Some(Duration::ZERO);
        }
        while let Some(Reverse((at, key))) = self.timers.peek() {
            if self.attempts.contains_key(key) {
                return Some(at.since(now));
            }
            self.timers.pop(); // nobody is to be woken for what has ended
        }
        None
    }

    fn begin_next(&mut self, key: Key, now: Stamp) -> Begun {
        let Some(attempt) = self.attempts.get_mut(&key) else { return Begun::GoesOn(None) };
        let (race, flights) = match &mut attempt.course {
            Course::Unix { path, pause } => {
                return match connect_unix(path, &attempt.options) {
                    Ok(Some(socket)) => Begun::Ended(Outcome::Connected(socket)),
                    Ok(None) => {
                        let at = now.plus(*pause);
                        *pause = (*pause * 2).min(LONGEST_PAUSE);
                        Begun::GoesOn(Some(at))
                    }
                    Err(error) => Begun::Ended(Outcome::Failed(error)),
                };
            }
            Course::Tcp { race, flights } => (race, flights),
        };
        let Some(address) = race.start(now) else {
            // Lost if there was no address at all.
            return if race.is_lost() { Begun::Lost } else { Begun::GoesOn(race.next_at()) };
        };
        let begun = Flight::begin(address, &attempt.options).and_then(|flight| {
            self.claims.drop_of(flight.number());
            let token = self.flights.insert((key, flight));
            let registered = match (token.pack(TAG), self.flights.get_mut(token)) {
                (Some(word), Some((_, flight))) => flight.register(&self.registry, word),
                _ => Err(io::Error::other("too many sockets are being connected")),
            };
            if registered.is_err() {
                self.flights.remove(token);
            }
            registered.map(|()| token)
        });
        match begun {
            Ok(token) => flights.push(token),
            Err(error) => note_failure(race, error),
        }
        if race.is_lost() {
            return Begun::Lost;
        }
        Begun::GoesOn(if race.is_due(now) { Some(now) } else { race.next_at() })
    }

    /// A socket that had begun to connect has failed, and is gone.
    fn crashed(&mut self, key: Key, token: Token, error: io::Error) {
        let Some(attempt) = self.attempts.get_mut(&key) else { return };
        let Course::Tcp { race, flights } = &mut attempt.course else { return };
        flights.retain(|flight| *flight != token);
        note_failure(race, error);
        if race.is_lost() {
            self.lose(key);
        } else {
            self.due.push_back(key);
        }
    }

    fn set_timer(&mut self, key: Key, at: Stamp) {
        let Some(attempt) = self.attempts.get_mut(&key) else { return };
        if attempt.next_at.replace(at) != Some(at) {
            self.timers.push(Reverse((at, key)));
        }
    }

    /// Takes a connected socket out of the flights.
    fn land(&mut self, token: Token) -> io::Result<Socket> {
        let landed = self.take_flight(token).and_then(|(key, flight)| {
            let attempt = self.attempts.get(&key)?;
            Some(flight.into_socket(&attempt.options))
        });
        landed.unwrap_or_else(|| Err(io::ErrorKind::NotConnected.into()))
    }

    /// Takes a socket out of the flights: nobody is told of it any more.
    fn take_flight(&mut self, token: Token) -> Option<(Key, Flight)> {
        let (key, mut flight) = self.flights.remove(token)?;
        flight.deregister(&self.registry);
        Some((key, flight))
    }

    fn end(&mut self, key: Key, outcome: Outcome) {
        if let Some(attempt) = self.remove(key) {
            attempt.delivery.deliver(outcome);
        }
    }

    /// Ends an attempt that can try no more addresses, with the error that tells most.
    fn lose(&mut self, key: Key) {
        let Some(attempt) = self.remove(key) else { return };
        let error = match attempt.course {
            Course::Tcp { race, .. } => race.into_error(),
            Course::Unix { .. } => None,
        };
        let no_address = || io::Error::new(io::ErrorKind::NotFound, "there was no address to try");
        attempt.delivery.deliver(Outcome::Failed(error.unwrap_or_else(no_address)));
    }

    /// Takes an attempt out; its sockets that are still on their way are closed.
    fn remove(&mut self, key: Key) -> Option<Attempt> {
        let mut attempt = *self.attempts.remove(&key)?;
        if let Course::Tcp { flights, .. } = &mut attempt.course {
            for token in std::mem::take(flights) {
                drop(self.take_flight(token));
            }
        }
        self.tidy();
        Some(attempt)
    }

    /// Lets go of timers of what has ended, and of the memory of a busier time.
    fn tidy(&mut self) {
        if self.timers.len() > KEEP + 4 * self.attempts.len() {
            self.timers.retain(|Reverse((_, key))| self.attempts.contains_key(key));
        }
        if self.attempts.is_empty() && self.attempts.capacity() > KEEP {
            self.attempts.shrink_to(KEEP);
            self.timers.shrink_to(KEEP);
            self.due.shrink_to(KEEP);
        }
    }
}

/// What this side has run out of, another address would need as well.
fn note_failure(race: &mut Race, error: io::Error) {
    if sys::is_shortage(&error) {
        race.failed_here(error);
    } else {
        race.failed(error);
    }
}

impl std::fmt::Debug for Attempt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Attempt").finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(super) mod tests;
