//! Names: looked up by threads that may hang, remembered for all who ask.

mod cache;
mod lookups;

pub(crate) use self::cache::Outcome;
pub(crate) use self::lookups::LookUps;

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use crate::clock;
use crate::connector::{Resolve, Resolved, ask_system};
use crate::driver::connects::Key;
use crate::driver::crew::Fate;
use crate::driver::resolver::cache::{Cache, LookUp, Times};
use crate::error::{BoxError, is_shortage};
use crate::shared::{drop_guarded, guarded, note_panic};
use crate::sync::{Arc, Mutex};

const DEFAULT_TTL: Duration = Duration::from_secs(60);
const DEFAULT_NEGATIVE_TTL: Duration = Duration::from_secs(1);
const DEFAULT_STALE_FOR: Duration = Duration::from_secs(600);

/// Looks up names, and remembers what it found.
///
/// Each pool has one of its own that asks the system, unless it is
/// [given one](crate::Builder::resolver). Clones share what they remember, each with times of its
/// own, so pools that are given the same one share it, too. Names are looked up only when a
/// connection is to be opened, never when one is reused; by threads of the
/// [`Driver`](crate::Driver), four at a time, and each name once at a time, however many ask.
///
/// A look-up that hangs holds up nobody who asks for something known, and no caller beyond its
/// deadline. Once it has taken 5 s, another may begin in its place; up to 16 threads may hang so,
/// beside the four.
///
/// # Remembering
///
/// An answer is used for [`ttl`](Resolver::ttl). After that it is used for
/// [`stale_for`](Resolver::stale_for) more, and the first who does has it looked up again
/// meanwhile. So does a failure to connect to any of its addresses, though not more often than once
/// in [`negative_ttl`](Resolver::negative_ttl), for which a failed look-up is remembered. Open
/// connections stay, whatever becomes of their name.
///
/// At most 1,024 names are remembered.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use warmline::{Pool, Resolver, TcpConnector};
///
/// let resolver = Resolver::system().ttl(Duration::from_secs(10));
/// let pool = Pool::builder(TcpConnector::new()).resolver(&resolver).build()?;
/// # Ok::<(), warmline::Error>(())
/// ```
#[derive(Clone)]
pub struct Resolver {
    resolve: Arc<dyn Resolve>,
    times: Times,
    cache: Arc<Mutex<Cache<Key, Waiting>>>,
}

/// An attempt to connect that waits for addresses.
pub(crate) type Waiting = Box<dyn FnOnce(Outcome) + Send>;

/// Why a name has no addresses, for all who asked.
#[derive(Debug)]
pub(crate) struct Cause {
    pub(crate) error: Arc<dyn StdError + Send + Sync>,
    /// It says nothing about the name.
    pub(crate) is_local: bool,
    /// Because this process has run out of something. Found when it is made: the error is somebody
    /// else's, and not to be asked later, wherever that may be.
    is_shortage: bool,
}

impl Resolver {
    /// Asks the system: its hosts file, its name servers, whatever it is configured to ask.
    #[must_use]
    pub fn system() -> Self {
        Self::new(ask_system)
    }

    /// Asks `resolve`.
    #[must_use]
    pub fn new(resolve: impl Resolve) -> Self {
        let times = Times {
            ttl: DEFAULT_TTL,
            negative_ttl: DEFAULT_NEGATIVE_TTL,
            stale_for: DEFAULT_STALE_FOR,
        };
        let cache = Arc::new(Mutex::new(Cache::new()));
        Self { resolve: Arc::new(resolve), times, cache }
    }

    /// For how long an answer is used, unless it says so itself. Default: 60 s. With zero, each
    /// connection that is opened has its name looked up; see [`stale_for`](Resolver::stale_for).
    #[must_use]
    pub const fn ttl(mut self, ttl: Duration) -> Self {
        self.times.ttl = ttl;
        self
    }

    /// For how long a failure is remembered: who asks meanwhile gets the same. Default: 1 s.
    #[must_use]
    pub const fn negative_ttl(mut self, ttl: Duration) -> Self {
        self.times.negative_ttl = ttl;
        self
    }

    /// For how long after its [`ttl`](Resolver::ttl) an answer is used while it is looked up again.
    /// Default: 10 minutes. With zero, whoever comes after its time waits for a new one.
    #[must_use]
    pub const fn stale_for(mut self, time: Duration) -> Self {
        self.times.stale_for = time;
        self
    }

    /// Forgets all answers and failures. Connections stay.
    pub fn clear(&self) {
        let mut cache = self.cache.lock();
        cache.clear();
        let forgotten = cache.take_forgotten();
        drop(cache);
        drop_guarded(forgotten);
    }

    /// What is known of a name; nothing if somebody must look it up first, and does.
    pub(crate) fn find(&self, name: &str, by: &LookUps) -> Option<Outcome> {
        let found = self.consult(by, |cache| cache.find(name, clock::mono()));
        self.look_up(name, found.look_up, by);
        found.outcome
    }

    /// Calls `waiting` with the addresses as soon as they are known: at once, if they are.
    pub(crate) fn ask(&self, name: &str, key: Key, waiting: Waiting, by: &LookUps) {
        let now = clock::mono();
        let (found, waiting) = self.consult(by, |cache| {
            let found = cache.find(name, now);
            let waiting = match &found.outcome {
                None => cache.wait(name, key, waiting).err(),
                Some(_) => Some(waiting),
            };
            (found, waiting)
        });
        self.look_up(name, found.look_up, by);
        by.replace_hung(now); // or it may wait for one that hangs
        if let (Some(waiting), Some(outcome)) = (waiting, found.outcome) {
            waiting(outcome);
        }
    }

    /// Lets go of somebody who waits for addresses.
    pub(crate) fn withdraw(&self, key: Key, by: &LookUps) {
        let withdrawn = self.cache.lock().withdraw(&key, clock::mono());
        let Some((waiting, look_up)) = withdrawn else { return };
        drop(waiting);
        if let Some(look_up) = look_up {
            by.withdraw(&look_up.mark);
        }
    }

    /// No connection could be opened to the addresses of this name.
    pub(crate) fn doubt(&self, name: &str, by: &LookUps) {
        let look_up = self.cache.lock().doubt(name, self.times, clock::mono());
        self.look_up(name, look_up, by);
    }

    /// Under the cache's lock; the errors that it forgets thereby are dropped after it.
    fn consult<R>(&self, by: &LookUps, ask: impl FnOnce(&mut Cache<Key, Waiting>) -> R) -> R {
        let mut cache = self.cache.lock();
        let result = ask(&mut cache);
        let forgotten = cache.take_forgotten();
        drop(cache);
        by.let_go_of(forgotten);
        result
    }

    fn look_up(&self, name: &str, look_up: Option<LookUp>, by: &LookUps) {
        let Some(LookUp { number, mark }) = look_up else { return };
        let (resolver, by_it) = (self.clone(), by.clone());
        let flight = Flight { resolver, by: by_it, name: name.into(), number, is_over: false };
        by.submit(mark, move |fate| {
            let mut flight = flight;
            match fate {
                Fate::Run if flight.is_needed() => {
                    let result = flight.run();
                    flight.end(result);
                }
                Fate::Run => flight.end(Err(Cause::local("nobody waited for it any more"))),
                Fate::Refused => flight.end(Err(Cause::local("no thread came free to look it up"))),
            }
        });
    }
}

/// A look-up, on its way to a thread or with one. Dropped, it has failed: others must not wait for
/// it for ever.
struct Flight {
    resolver: Resolver,
    by: LookUps,
    name: Box<str>,
    number: u64,
    is_over: bool,
}

impl Flight {
    fn is_needed(&self) -> bool {
        self.resolver.cache.lock().take_up(&self.name, self.number, clock::mono())
    }

    fn run(&self) -> Result<Resolved, Cause> {
        match guarded(|| self.resolver.resolve.resolve(&self.name)) {
            Ok(Ok(resolved)) if resolved.addrs().is_empty() => {
                Err(Cause::of(format!("\"{}\" has no address", self.name).into()))
            }
            Ok(Ok(resolved)) => Ok(resolved),
            Ok(Err(error)) => Err(Cause::of(error)),
            Err(panic) => Err(Cause::of(format!("the resolver panicked: {panic}").into())),
        }
    }

    fn end(&mut self, result: Result<Resolved, Cause>) {
        self.is_over = true;
        let resolver = &self.resolver;
        let (of, result) = ((&*self.name, self.number), result.map_err(Arc::new));
        let told = resolver
            .consult(&self.by, |cache| cache.finish(of, result, resolver.times, clock::mono()));
        let Some((waiting, outcome)) = told else { return };
        for (_, waiting) in waiting {
            let outcome = outcome.clone();
            if let Err(panic) = guarded(|| waiting(outcome)) {
                note_panic("an attempt panicked when its name was resolved", &panic);
            }
        }
        self.by.let_go_of(outcome.err());
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        if !self.is_over {
            self.end(Err(Cause::local("the thread that looked it up has failed")));
        }
    }
}

impl Cause {
    fn of(error: BoxError) -> Self {
        let is_shortage = is_shortage(&*error);
        Self { error: error.into(), is_local: is_shortage, is_shortage }
    }

    fn local(text: &str) -> Self {
        Self { error: BoxError::from(text).into(), is_local: true, is_shortage: false }
    }

    pub(crate) const fn is_local_or_shortage(&self) -> (bool, bool) {
        (self.is_local, self.is_shortage)
    }
}

impl Default for Resolver {
    fn default() -> Self {
        Self::system()
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver")
            .field("ttl", &self.times.ttl)
            .field("negative_ttl", &self.times.negative_ttl)
            .field("stale_for", &self.times.stale_for)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
