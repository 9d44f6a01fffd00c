//! The threads that work for pools: an event loop for sockets, a reaper for time, a crew for
//! everything that may block, and one for observers.
//!
//! Started by the first connect. Handles hold the [`Driver`] and a [`Tie`] to it;
//! [`Shared`] holds the tie weakly, and the threads hold `Shared` weakly, so that the last handle's
//! drop ends all of it.

mod connects;
mod crew;
mod dial;
mod event_loop;
mod flight;
mod heartbeat;
mod observer;
mod race;
mod reaper;
mod resolver;
mod roster;
#[cfg(test)]
mod tests;
mod upkeep;
mod watch;
mod worker;

pub use self::resolver::Resolver;

use std::fmt;
use std::io;

use crate::clock::{Deadline, Stamp};
use crate::config::{DEFAULT_NAME, check_name};
use crate::connector::{Connector, Watch};
use crate::core::{Closing, Cut, Notice, Token, Upkeep};
use crate::driver::connects::Order;
use crate::driver::crew::{Crew, Fate, Job, Kind, Mark};
use crate::driver::event_loop::{Command, EventLoop};
use crate::driver::heartbeat::Beat;
use crate::driver::observer::Told;
use crate::driver::reaper::{Bell, Reaper};
use crate::driver::resolver::LookUps;
use crate::driver::watch::{How, Ward};
use crate::driver::worker::Worker;
use crate::error::Error;
use crate::observe::{CloseReason, Observer};
use crate::redact::Redacted;
use crate::shared::{Boxed, Event, Hands, Home, Shared, Since, Watched};
use crate::sync::{Arc, Gate, Mutex, OnceLock, Sender, Weak};
use crate::sys::HashMap;

/// The threads that work for a pool, or for several.
///
/// Each pool has a driver of its own, unless it is [given one](crate::Builder::driver): for
/// programs with many pools. An event loop connects sockets and watches idle ones, a reaper sees to
/// time, and a crew of threads that come on demand does what may block. Cloning makes a second
/// handle to the same driver.
///
/// Its threads start with the first connect of the first pool, and end when the last handle and
/// the last pool that uses it are gone; that drop waits for event loop and reaper, which never
/// block.
///
/// # Examples
///
/// ```
/// # let server = std::net::TcpListener::bind("127.0.0.1:0")?;
/// # let address = server.local_addr()?;
/// use warmline::{Driver, Pool, TcpConnector, UnixConnector};
///
/// let driver = Driver::new();
/// let remote = Pool::builder(TcpConnector::new()).driver(&driver).build()?;
/// let local = Pool::builder(UnixConnector::new()).driver(&driver).build()?;
/// let conn = remote.get(&address)?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone)]
pub struct Driver(Arc<Inner>);

struct Inner {
    name: String,
    threads: OnceLock<Threads>,
    /// Held while they start, so that they start once.
    starting: Gate,
}

/// Its drop stops reaper and event loop and waits for them; the crew finishes what is queued.
struct Threads {
    reaping: Option<Worker>,
    looping: Option<Worker>,
    reaper: Arc<Reaper>,
    event_loop: Arc<EventLoop>,
    crew: Crew,
    look_ups: LookUps,
    events: OnceLock<Sender<Told>>,
    pid: u32,
}

impl Driver {
    /// A driver whose threads are named "warmline".
    #[must_use]
    pub fn new() -> Self {
        Self::with_name(DEFAULT_NAME.to_owned())
    }

    /// A driver whose threads carry this name.
    ///
    /// # Errors
    ///
    /// [`Config`](crate::ErrorKind::Config) if the name is empty or holds a NUL.
    pub fn named(name: impl Into<String>) -> Result<Self, Error> {
        let name = name.into();
        check_name(&name)?;
        Ok(Self::with_name(Redacted(name).to_string()))
    }

    pub(crate) fn with_name(name: String) -> Self {
        Self(Arc::new(Inner { name, threads: OnceLock::new(), starting: Gate::default() }))
    }

    /// Has the threads work for `shared`'s pool; starts them if none run yet.
    pub(crate) fn tie<C: Connector>(
        &self,
        shared: &Arc<Shared<C>>,
        resolver: Resolver,
    ) -> Result<Arc<Tie>, Error> {
        let threads = self.threads().map_err(Error::driver)?;
        if threads.pid != std::process::id() {
            return Err(Error::closed()); // they run in the process that this one was forked from
        }
        let events = match shared.observer() {
            Some(_) => Some(self.0.events(threads).map_err(Error::driver)?),
            None => None,
        };
        let ward: Weak<dyn Ward> = Arc::<Shared<C>>::downgrade(shared);
        let event_loop = Arc::clone(&threads.event_loop);
        let tie = Arc::new(Tie {
            pool: shared.id,
            portable_watch: shared.settings.portable_watch,
            tag: event_loop.watches.admit(Weak::clone(&ward)),
            event_loop,
            crew: threads.crew.clone(),
            look_ups: threads.look_ups.clone(),
            resolver: Some(resolver),
            bell: threads.reaper.admit(ward),
            events,
            jobs: Arc::default(),
        });
        let watcher = Arc::<EventLoop>::downgrade(&tie.event_loop);
        shared.set_hands(Arc::<Tie>::downgrade(&tie), watcher);
        tie.bell.ring();
        Ok(tie)
    }

    fn threads(&self) -> io::Result<&Threads> {
        if let Some(threads) = self.0.threads.get() {
            return Ok(threads);
        }
        let starting = self.0.starting.enter();
        if self.0.threads.get().is_none() {
            let threads = Threads::start(&self.0.name)?;
            let first = self.0.threads.set(threads);
            debug_assert!(first.is_ok(), "bug: a driver was started twice");
        }
        drop(starting);
        self.0.threads.get().ok_or_else(|| io::Error::other("the driver did not start"))
    }
}

impl Inner {
    /// The queue of the observers' thread, which starts with the first pool that has one.
    fn events(&self, threads: &Threads) -> io::Result<Sender<Told>> {
        let starting = self.starting.enter();
        if threads.events.get().is_none() {
            let events = observer::start(&self.name)?;
            let first = threads.events.set(events);
            debug_assert!(first.is_ok(), "bug: the observers' thread was started twice");
        }
        drop(starting);
        threads.events.get().cloned().ok_or_else(|| io::Error::other("no thread for observers"))
    }
}

impl Threads {
    fn start(name: &str) -> io::Result<Self> {
        let crew = Crew::new(format!("{name}-crew"));
        let (event_loop, looping) = EventLoop::start(name, crew.clone())?;
        let (reaper, reaping) = Reaper::start(name, crew.clone())?;
        let look_ups = LookUps::new(name);
        look_ups.admit_to(&reaper);
        Ok(Self {
            reaping: Some(reaping),
            looping: Some(looping),
            reaper,
            event_loop,
            crew,
            look_ups,
            events: OnceLock::new(),
            pid: std::process::id(),
        })
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        // While they act on their last look, the crew must still take what may block.
        drop(self.reaping.take());
        drop(self.looping.take());
        if self.pid == std::process::id() {
            self.crew.stop();
            self.look_ups.stop();
        }
    }
}

impl Default for Driver {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver")
            .field("name", &self.0.name)
            .field("has_started", &self.0.threads.get().is_some())
            .finish()
    }
}

type Jobs = Mutex<HashMap<Token, (Arc<Mark>, Kind)>>;

/// What ties a pool to the threads that work for it.
pub(crate) struct Tie {
    pool: u64,
    portable_watch: bool,
    /// Under which its connections are watched; `None`: there are too many pools.
    tag: Option<u16>,
    event_loop: Arc<EventLoop>,
    crew: Crew,
    look_ups: LookUps,
    /// Present until it is dropped.
    resolver: Option<Resolver>,
    bell: Bell,
    events: Option<Sender<Told>>,
    /// Attempts, checks and settles that are with the crew at this moment.
    jobs: Arc<Jobs>,
}

/// An attempt's entry in the list of those that are with the crew: as long as its job lives.
struct Entered {
    jobs: Arc<Jobs>,
    token: Token,
    mark: Arc<Mark>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut jobs = self.jobs.lock();
        // Its next stage may be with the crew by now.
        let is_own = |(mark, _): &(Arc<Mark>, Kind)| Arc::ptr_eq(mark, &self.mark);
        if jobs.get(&self.token).is_some_and(is_own) {
            jobs.remove(&self.token);
        }
    }
}

impl Tie {
    /// Who knows the addresses of names.
    fn names(&self) -> &Resolver {
        self.resolver.as_ref().expect("present until it is dropped")
    }

    /// Waits until no thread does anything for the pool; false if the deadline came first.
    pub(crate) fn await_crew(&self, deadline: Deadline) -> bool {
        self.crew.await_pool(self.pool, deadline)
    }

    /// Its deadline, or the pool's end, may have come before the job was there to be withdrawn.
    fn withdraw_if_late<C: Connector>(
        &self,
        home: Arc<Home<C>>,
        token: Token,
        kind: Kind,
        mark: &Arc<Mark>,
    ) {
        if !home.shared.is_under_way(token) {
            self.crew.withdraw(mark, self.pool, kind);
        }
        self.let_go_of(home);
    }

    /// Lets go of an endpoint, where the last of it may be dropped.
    fn let_go_of<C: Connector>(&self, home: Arc<Home<C>>) {
        self.crew.let_go(home, self.pool);
    }

    /// Has the event loop connect a socket.
    fn order(&self, order: Order) {
        self.event_loop.send(Command::Connect(order));
    }

    /// Has the crew do something about an attempt that can be withdrawn, and abandoned.
    fn submit_attempt(
        &self,
        token: Token,
        kind: Kind,
        run: impl FnOnce(Fate) + Send + 'static,
    ) -> Arc<Mark> {
        let mark = Arc::<Mark>::default();
        let jobs = Arc::clone(&self.jobs);
        jobs.lock().insert(token, (Arc::clone(&mark), kind));
        let entered = Entered { jobs, token, mark: Arc::clone(&mark) };
        let run = Box::new(move |fate| {
            let _entered = entered;
            run(fate);
        });
        self.crew.submit(Job { kind, pool: self.pool, mark: Arc::clone(&mark), run });
        mark
    }
}

impl Drop for Tie {
    fn drop(&mut self) {
        if let Some(tag) = self.tag {
            self.event_loop.watches.dismiss(tag);
        }
        // With the last of it goes somebody else's code.
        self.look_ups.let_go(self.resolver.take());
    }
}

impl<C: Connector> Hands<C> for Tie {
    fn connect(self: Arc<Self>, home: Arc<Home<C>>, token: Token, deadline: Deadline) {
        dial::begin(self, home, token, deadline);
    }

    fn cancel(&self, token: Token) {
        self.event_loop.send(Command::Cancel((self.pool, token)));
    }

    fn watch(&self, token: Token, watch: Watch<'_>, since: Since) -> Watched {
        let (watches, how) =
            (&self.event_loop.watches, How { portably: self.portable_watch, since });
        self.tag.map_or(Watched::No, |tag| watches.watch(tag, (self.pool, token), watch, how))
    }

    fn upkeep(
        self: Arc<Self>,
        home: Arc<Home<C>>,
        token: Token,
        conn: Boxed<C>,
        upkeep: Upkeep,
        deadline: Deadline,
    ) {
        if upkeep == Upkeep::Beat {
            let beat = Beat::new(Arc::clone(&self), home, token, conn);
            self.event_loop.send(Command::Beat(Box::new(beat)));
            return;
        }
        let theirs = Arc::clone(&home);
        let mark = self.submit_attempt(token, Kind::Upkeep, move |fate| match fate {
            Fate::Run => upkeep::run(&theirs, token, conn, upkeep, deadline),
            Fate::Refused => {
                let verdict = Err(CloseReason::TooLate);
                theirs.shared.finish_upkeep(&theirs, token, Some(conn), verdict);
            }
        });
        self.withdraw_if_late(home, token, Kind::Upkeep, &mark);
    }

    fn close(self: Arc<Self>, home: Arc<Home<C>>, closing: Closing<Boxed<C>>) {
        let (crew, pool) = (self.crew.clone(), self.pool);
        // With no thread left, the caller's must do: it is the end of the pool, or of threads.
        let run = Box::new(move |_| {
            let _tie = self; // held, so that the observer is told on its own thread
            home.shared.close_now(Some(&home), closing);
        });
        crew.submit(Job { kind: Kind::Close, pool, mark: Arc::default(), run });
    }

    fn let_go(&self, what: Box<dyn Send>) {
        self.crew.drop_elsewhere(what, self.pool);
    }

    fn abandon(&self, token: Token) {
        let job = self.jobs.lock().remove(&token);
        if let Some((mark, kind)) = job {
            self.crew.abandon(&mark, self.pool, kind);
        }
    }

    fn withdraw(&self, token: Token) {
        // It stays in the list as long as its job lives: a thread may have it already.
        let job = self.jobs.lock().get(&token).map(|(mark, kind)| (Arc::clone(mark), *kind));
        match job {
            Some((mark, kind)) => self.crew.withdraw(&mark, self.pool, kind),
            None => self.names().withdraw((self.pool, token), &self.look_ups),
        }
    }

    fn wake_reaper(&self) {
        self.bell.ring();
    }

    fn observe(&self, observer: &Arc<dyn Observer>, event: Event) -> bool {
        let told = Told { pool: self.pool, observer: Arc::clone(observer), event };
        self.events.as_ref().is_none_or(|events| events.try_send(told).is_ok())
    }
}

impl<C: Connector> Ward for Shared<C> {
    fn noticed(self: Arc<Self>, of: Cut, notice: Notice, crew: &Crew) {
        let hands = self.hands(); // held, so that what it decides can be done
        if hands.is_some() {
            self.notice(of, notice);
        }
        drop(hands);
        let pool = self.id;
        crew.let_go(self, pool);
    }

    fn look(self: Arc<Self>, crew: &Crew) -> Stamp {
        let hands = self.hands(); // held, so that what it decides can be done
        // The tie is not complete, and rings once it is; or it is gone.
        let next = if hands.is_some() { self.reap() } else { Stamp::MAX };
        drop(hands);
        let pool = self.id;
        crew.let_go(self, pool);
        next
    }
}
