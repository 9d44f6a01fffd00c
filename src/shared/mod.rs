//! Lock, decide, unlock, act.
//!
//! [`Shared`] is what a pool's handles, guards and driver threads have in common: the [`Core`]
//! behind the one lock, and the acting out of what it decides. Nothing that can block, close, log
//! or call user code happens under that lock.

mod act;
mod attempt;
mod explain;
mod forked;
mod judge;
mod names;
mod reconfigure;
mod record;
mod seat;
mod tell;
#[cfg(test)]
mod tests;
mod wait;
mod watch;

pub(crate) use self::judge::{Unfit, drop_guarded, guarded};
pub(crate) use self::record::{millis, note, note_panic};
pub(crate) use self::seat::Desk;
pub(crate) use self::tell::Event;
pub(crate) use self::wait::Asked;
pub(crate) use self::watch::{Since, Watched, Watcher};

use std::collections::VecDeque;
use std::fmt;
use std::ops::Deref;
use std::time::Duration;

use crate::clock::{self, Deadline, Now, Stamp};
use crate::config::{Config, Fixed, Settings};
use crate::connector::{Connector, Plan, Watch, sealed};
use crate::core::{Action, Closing, Core, Effects, Grant, Lease, Stats, Token, Upkeep};
use crate::observe::Observer;
use crate::shared::act::Deeds;
use crate::shared::explain::Memory;
use crate::shared::names::Names;
use crate::shared::reconfigure::InForce;
use crate::shared::record::{Rations, Remembered};
use crate::shared::seat::{Mailbox, Seat, send_answers};
use crate::shared::tell::Courses;
use crate::sync::{
    self, Arc, AtomicBool, AtomicU32, AtomicU64, CachePadded, Mutex, MutexGuard, OnceLock,
    Ordering, RwLock, Weak,
};
use crate::sys::{self, HashMap, OwnedFd};

/// What an endpoint's handles and guards share: where its connections come home to.
pub(crate) struct Home<C: Connector> {
    pub(crate) shared: Arc<Shared<C>>,
    pub(crate) key: C::Key,
    /// The key as it displays itself, without secrets.
    pub(crate) label: Arc<str>,
    pub(crate) plan: Box<Plan>,
    /// Its place in the core.
    pub(crate) place: u32,
    /// The core's epoch, for guards to compare without the lock.
    epoch: AtomicU32,
    /// Since when it cannot be reached, for the log.
    outage: Remembered,
}

impl<C: Connector> fmt::Display for Home<C> {
    /// The pool's name and the endpoint's, as log lines begin with them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.shared.settings.name, self.label)
    }
}

pub(crate) struct Shared<C: Connector> {
    pub(crate) connector: Foreign<C>,
    /// Our own plain sockets: closed by the caller, judged without a net under user code.
    pub(crate) is_plain: bool,
    /// Checking out and in is no more than a push and a pop: plain sockets, watched for ever, and
    /// nobody to tell of it.
    is_simple: bool,
    /// The connector has a check.
    has_check: bool,
    pub(crate) settings: Fixed,
    in_force: InForce,
    /// Tells pools apart on threads that work for several.
    pub(crate) id: u64,
    names: RwLock<Names<C>>,
    seats: Mutex<Vec<Seat<Boxed<C>>>>,
    observer: Option<Arc<dyn Observer>>,
    pub(crate) events_dropped: AtomicU64,
    /// What happened of late, for reports.
    memory: Memory,
    made_at: Stamp,
    /// Log records that may not come too often.
    rations: Rations,
    /// The driver, from the first connect on. Weak: handles hold it, guards do not.
    hands: OnceLock<Weak<dyn Hands<C>>>,
    /// The driver's event loop, for connections that outlive the pool's tie to it.
    watcher: OnceLock<Weak<dyn Watcher>>,
    /// The process that has the driver's threads; 0: none yet.
    pid: AtomicU32,
    /// Somebody waits: a hint, so that a return need not read the precise time for nothing.
    is_waiting: AtomicBool,
    /// Decided while acting, and left to be done by whoever decided it, when there is less on the
    /// stack.
    backlog: Mutex<VecDeque<Deeds<C>>>,
    state: CachePadded<Mutex<State<C>>>,
}

/// A connection, and what its guard must know. On the heap, so that a checkout moves a pointer.
pub(crate) struct Held<T> {
    pub(crate) conn: T,
    /// Of its present checkout, or of the last.
    pub(crate) lease: Lease,
    pub(crate) watched: Watched,
    /// When it went out, if there is an observer to be told. Monotonic.
    pub(crate) out_since: Stamp,
}

pub(crate) type Boxed<C> = Box<Held<<C as Connector>::Conn>>;

impl<T> Held<T> {
    pub(crate) fn new(conn: T) -> Box<Self> {
        Box::new(Self {
            conn,
            lease: Lease::default(),
            watched: Watched::No,
            out_since: Stamp::ZERO,
        })
    }

    /// Notes the terms of a checkout.
    #[inline(always)]
    fn lend(grant: Grant<Box<Self>>) -> Box<Self> {
        let Grant { mut conn, lease } = grant;
        conn.lease = lease;
        conn
    }
}

/// What the one lock guards.
struct State<C: Connector> {
    core: Core<Boxed<C>, Mailbox<Boxed<C>>>,
    /// The settings as they were given last.
    config: Config,
    homes: HashMap<u32, Weak<Home<C>>>,
    /// Duplicates of sockets that are with the crew. Exactly one side takes one out: the crew when
    /// the call returns, or the reaper at the deadline.
    duplicates: HashMap<Token, OwnedFd>,
    courses: Courses,
    /// Connections that have left the core and are not closed yet.
    closing: usize,
}

/// What the driver does for a pool. Nothing here blocks.
pub(crate) trait Hands<C: Connector>: Send + Sync {
    /// Has a connection opened.
    fn connect(self: Arc<Self>, home: Arc<Home<C>>, token: Token, deadline: Deadline);
    /// Has a connection checked, settled, or sent a heartbeat.
    fn upkeep(
        self: Arc<Self>,
        home: Arc<Home<C>>,
        token: Token,
        conn: Boxed<C>,
        upkeep: Upkeep,
        deadline: Deadline,
    );
    /// Has the event loop end an attempt.
    fn cancel(&self, token: Token);
    /// Watches a connection, as far as it can be.
    fn watch(&self, token: Token, watch: Watch<'_>, since: Since) -> Watched;
    /// Has a connection closed.
    fn close(self: Arc<Self>, home: Arc<Home<C>>, closing: Closing<Boxed<C>>);
    /// Has something dropped where that may block.
    fn let_go(&self, what: Box<dyn Send>);
    /// Refuses what still waits for a thread.
    fn withdraw(&self, token: Token);
    /// The thread that has this attempt counts no more.
    fn abandon(&self, token: Token);
    fn wake_reaper(&self);
    /// Tells the observer on its own thread; false if the queue is full.
    fn observe(&self, observer: &Arc<dyn Observer>, event: Event) -> bool;
}

impl<C: Connector> State<C> {
    /// The pool is closed, and so is its last connection.
    fn has_ended(&self) -> bool {
        self.closing == 0 && self.core.has_ended()
    }
}

/// Whether connections must be taken off the watch while they are in use: where the system, or a
/// setting, knows no better way.
fn watches_while_idle(settings: &Fixed) -> bool {
    sys::CAN_WATCH && (settings.portable_watch || !sys::HEARS_FAREWELL)
}

/// What is somebody else's: its end may panic, on whichever thread has the last of it.
pub(crate) struct Foreign<T>(Option<T>);

impl<T> Deref for Foreign<T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        match &self.0 {
            Some(value) => value,
            // It is there until the drop. A way to panic here would cost every checkout more.
            None => std::process::abort(),
        }
    }
}

impl<T> Drop for Foreign<T> {
    fn drop(&mut self) {
        drop_guarded(self.0.take());
    }
}

impl<C: Connector> Shared<C> {
    pub(crate) fn new(
        connector: C,
        config: Config,
        mut settings: Settings,
        observer: Option<Arc<dyn Observer>>,
    ) -> Self {
        let id = sync::next_number();
        let has_check = guarded(|| connector.has_check()).unwrap_or_else(|panic| {
            note_panic("a connector panicked in has_check", &panic);
            false
        });
        if !has_check {
            settings.limits.check_after = None;
        }
        let is_plain = connector.is_plain(sealed::Token);
        let is_simple = is_plain && !watches_while_idle(&settings.fixed) && observer.is_none();
        let seed = clock::mono().as_nanos() ^ id.rotate_left(32);
        let state = State {
            core: Core::new(settings.limits.clone(), seed),
            config,
            homes: HashMap::default(),
            duplicates: HashMap::default(),
            courses: Courses::default(),
            closing: 0,
        };
        Self {
            connector: Foreign(Some(connector)),
            is_plain,
            is_simple,
            has_check,
            in_force: InForce::new(&settings),
            settings: settings.fixed,
            id,
            names: RwLock::new(Names::new()),
            seats: Mutex::default(),
            observer,
            events_dropped: AtomicU64::new(0),
            memory: Memory::default(),
            made_at: clock::mono(),
            rations: Rations::default(),
            hands: OnceLock::new(),
            watcher: OnceLock::new(),
            pid: AtomicU32::new(0),
            is_waiting: AtomicBool::new(false),
            backlog: Mutex::default(),
            state: CachePadded::new(Mutex::new(state)),
        }
    }

    pub(crate) fn set_hands(&self, hands: Weak<dyn Hands<C>>, watcher: Weak<dyn Watcher>) {
        self.watcher.get_or_init(|| watcher);
        self.pid.store(std::process::id(), Ordering::Relaxed);
        let first = self.hands.set(hands);
        debug_assert!(first.is_ok(), "bug: a pool's driver was started twice");
        self.state.lock().core.begin();
    }

    pub(crate) fn observer(&self) -> Option<&Arc<dyn Observer>> {
        self.observer.as_ref()
    }

    /// The driver: none before the first connect, nor after the pool's end, nor in a child process.
    pub(crate) fn hands(&self) -> Option<Arc<dyn Hands<C>>> {
        let hands = self.hands.get()?.upgrade();
        hands.filter(|_| !self.is_orphaned())
    }

    /// One transition: decides under the lock, acts after it.
    fn transact<R>(
        &self,
        decide: impl FnOnce(
            &mut Core<Boxed<C>, Mailbox<Boxed<C>>>,
            &mut Effects<Boxed<C>, Mailbox<Boxed<C>>>,
        ) -> R,
    ) -> R {
        self.transact_under(self.state.lock(), decide)
    }

    /// The same, with the lock taken already.
    fn transact_under<R>(
        &self,
        mut state: MutexGuard<'_, State<C>>,
        decide: impl FnOnce(
            &mut Core<Boxed<C>, Mailbox<Boxed<C>>>,
            &mut Effects<Boxed<C>, Mailbox<Boxed<C>>>,
        ) -> R,
    ) -> R {
        let mut deeds = Deeds::new();
        let told_at = self.observer.as_ref().map(|_| clock::mono());
        let result = decide(&mut state.core, &mut deeds.fx);
        deeds.replies = send_answers(&mut deeds.fx);
        for action in &deeds.fx.actions {
            // Before the lock is released, or the endpoint might be forgotten.
            let place = match action {
                Action::Close(closing) => {
                    state.closing += 1;
                    if !self.is_plain {
                        state.core.begin_closing(closing.endpoint);
                    }
                    Some(closing.endpoint)
                }
                Action::Connect { endpoint, .. }
                | Action::Upkeep { endpoint, .. }
                | Action::Suspect { endpoint, .. } => Some(*endpoint),
                Action::Checked { endpoint, .. } => self.observer.is_some().then_some(*endpoint),
                Action::ConnectFailed { endpoint, .. } | Action::Lost { endpoint, .. } => {
                    Some(*endpoint)
                }
                Action::Interrupt(token) => {
                    let duplicate = state.duplicates.remove(token);
                    deeds.interrupted.push((*token, duplicate));
                    None
                }
                _ => None,
            };
            let home = place.and_then(|place| state.homes.get(&place)?.upgrade());
            deeds.homes.push(home);
            if let Some(at) = told_at {
                deeds.courses.push(state.courses.note(action, at));
            }
        }
        #[cfg(warmline_sim)]
        state.core.assert_sound_among_threads();
        let is_waiting = state.core.is_waiting();
        if self.is_waiting.load(Ordering::Relaxed) != is_waiting {
            self.is_waiting.store(is_waiting, Ordering::Relaxed);
        }
        drop(state);
        self.act(deeds);
        result
    }

    /// Ends the pool. Does nothing the second time.
    pub(crate) fn close(&self) {
        let homes = self.all_homes();
        let now = Now::read();
        self.transact(|core, fx| {
            core.close(now, fx);
            for home in &homes {
                // Guards then see without the lock that theirs is not wanted back.
                home.epoch.fetch_add(1, Ordering::Relaxed);
            }
        });
        self.forget_all();
    }

    pub(crate) fn evict(&self, home: &Home<C>) {
        let now = Now::read();
        self.transact(|core, fx| {
            if !core.is_closed() {
                let epoch = core.evict(home.place, now, fx);
                home.epoch.store(epoch, Ordering::Relaxed);
            }
        });
    }

    /// Holds everything back that would go out. Does nothing the second time.
    pub(crate) fn pause(&self) {
        self.transact(|core, _| core.pause());
    }

    /// Lets it go out again.
    pub(crate) fn resume(&self) {
        let now = Now::read();
        self.transact(|core, fx| core.resume(now, fx));
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.enter().is_none_or(|state| state.core.is_closed())
    }

    pub(crate) fn stats(&self, home: Option<&Home<C>>) -> Stats {
        let Some(state) = self.enter() else { return Stats::default() };
        let stats = match home {
            Some(home) => state.core.stats(home.place),
            None => state.core.stats_of_all(),
        };
        drop(state);
        self.complete(stats)
    }

    /// Adds what is not counted in the core.
    fn complete(&self, stats: Stats) -> Stats {
        Stats { events_dropped: self.events_dropped.load(Ordering::Relaxed), ..stats }
    }

    /// Waiters that were told to look and have not looked yet.
    #[cfg(test)]
    pub(crate) fn told(&self, home: &Home<C>) -> usize {
        self.state.lock().core.told(home.place)
    }

    /// A handle was made on this endpoint.
    pub(crate) fn keep(&self, home: &Home<C>) {
        let now = Now::read();
        self.transact(|core, fx| core.keep(home.place, now, fx));
    }

    /// Whether the endpoint is to have idle connections kept ready.
    pub(crate) fn keeps(&self, home: &Home<C>) -> bool {
        self.enter().is_none_or(|state| state.core.keeps(home.place))
    }

    /// The endpoint's server has told for how long it lets connections be idle.
    pub(crate) fn note_idle_limit(&self, home: &Home<C>, limit: Duration) {
        let now = Now::read();
        self.transact(|core, fx| core.tell_idle_limit(home.place, limit, now, fx));
    }
}
