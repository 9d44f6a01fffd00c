//! An r2d2 manager without I/O that does what a test tells it to, with all that its pool calls
//! beside it: customizer, error handler, event handler.
//!
//! Each call asks the pool for its counts, as those of the [`lab`](crate::support::lab) do.

use std::error::Error;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;
use warmline::r2d2::event::{
    AcquireEvent, CheckinEvent, CheckoutEvent, HandleEvent, ReleaseEvent, TimeoutEvent,
};
use warmline::r2d2::{self, CustomizeConnection, HandleError, ManageConnection, Pool};

use crate::support::eventually;
use crate::support::lab::Act;

/// What a pool with r2d2's names calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Connect,
    IsValid,
    HasBroken,
    OnAcquire,
    OnRelease,
    HandleError,
    HandleAcquire,
    HandleCheckout,
    HandleCheckin,
    HandleTimeout,
    HandleRelease,
    /// The drop of a connection.
    Drop,
}

impl Call {
    pub(crate) const ALL: [Self; 12] = [
        Self::Connect,
        Self::IsValid,
        Self::HasBroken,
        Self::OnAcquire,
        Self::OnRelease,
        Self::HandleError,
        Self::HandleAcquire,
        Self::HandleCheckout,
        Self::HandleCheckin,
        Self::HandleTimeout,
        Self::HandleRelease,
        Self::Drop,
    ];
}

/// What the event handler was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Opened(u64),
    Out(u64),
    Back(u64),
    Closed(u64),
    InVain(Duration),
}

impl Told {
    /// Of which connection.
    pub(crate) const fn id(self) -> Option<u64> {
        match self {
            Self::Opened(id) | Self::Out(id) | Self::Back(id) | Self::Closed(id) => Some(id),
            Self::InVain(_) => None,
        }
    }
}

type Plot = dyn Fn(Call, usize) -> Act + Send + Sync;

/// The manager, and everything else; and the test's view of it. Cloning makes a second handle.
#[derive(Clone)]
pub(crate) struct Script(Arc<Inner>);

struct Inner {
    plot: Box<Plot>,
    is_healed: AtomicBool,
    calls: Mutex<Vec<Call>>,
    told: Mutex<Vec<Told>>,
    errors: Mutex<Vec<String>>,
    alive: AtomicUsize,
    born: AtomicUsize,
    hanging: AtomicUsize,
    pool: Mutex<Option<Pool<Script>>>,
    gate: Mutex<Option<Sender<()>>>,
    gated: Receiver<()>,
}

impl Script {
    /// Does what `plot` answers to a call and how often it was made before.
    pub(crate) fn new(plot: impl Fn(Call, usize) -> Act + Send + Sync + 'static) -> Self {
        let (gate, gated) = bounded(0);
        Self(Arc::new(Inner {
            plot: Box::new(plot),
            is_healed: AtomicBool::new(false),
            calls: Mutex::default(),
            told: Mutex::default(),
            errors: Mutex::default(),
            alive: AtomicUsize::new(0),
            born: AtomicUsize::new(0),
            hanging: AtomicUsize::new(0),
            pool: Mutex::default(),
            gate: Mutex::new(Some(gate)),
            gated,
        }))
    }

    /// Nothing goes wrong.
    pub(crate) fn sound() -> Self {
        Self::new(|_, _| Act::Go)
    }

    /// This call does so, always.
    pub(crate) fn always(call: Call, act: Act) -> Self {
        Self::new(move |called, _| if called == call { act } else { Act::Go })
    }

    /// This call does so the first time.
    pub(crate) fn once(call: Call, act: Act) -> Self {
        Self::new(move |called, before| if called == call && before == 0 { act } else { Act::Go })
    }

    /// A pool to be that calls all there is to call.
    pub(crate) fn builder(&self) -> r2d2::Builder<Self> {
        Pool::builder()
            .connection_customizer(Box::new(self.clone()))
            .error_handler(Box::new(self.clone()))
            .event_handler(Box::new(self.clone()))
    }

    /// From now on every call takes the pool's lock. Holds the pool until
    /// [`let_go`](Script::let_go).
    pub(crate) fn watch_over(&self, pool: &Pool<Self>) {
        *self.0.pool.lock() = Some(pool.clone());
    }

    pub(crate) fn let_go(&self) {
        let pool = self.0.pool.lock().take();
        drop(pool);
    }

    pub(crate) fn calls(&self, call: Call) -> usize {
        self.0.calls.lock().iter().filter(|&&called| called == call).count()
    }

    /// What the event handler was told, so far.
    pub(crate) fn told(&self) -> Vec<Told> {
        self.0.told.lock().clone()
    }

    /// What the error handler was given, so far.
    pub(crate) fn errors(&self) -> Vec<String> {
        self.0.errors.lock().clone()
    }

    /// Connections that exist.
    pub(crate) fn alive(&self) -> usize {
        self.0.alive.load(Ordering::SeqCst)
    }

    /// Connections that were opened, so far.
    pub(crate) fn born(&self) -> usize {
        self.0.born.load(Ordering::SeqCst)
    }

    /// Calls that have not returned because they were told to hang.
    pub(crate) fn hanging(&self) -> usize {
        self.0.hanging.load(Ordering::SeqCst)
    }

    /// From now on nothing goes wrong. What hangs hangs on.
    pub(crate) fn heal(&self) {
        self.0.is_healed.store(true, Ordering::SeqCst);
    }

    /// Whatever hangs returns, and nothing hangs any more.
    pub(crate) fn release(&self) {
        let gate = self.0.gate.lock().take();
        drop(gate);
        eventually("what hung returns", || self.hanging() == 0);
    }

    fn act(&self, call: Call) -> Act {
        let pool = self.0.pool.lock().clone();
        if let Some(pool) = pool {
            let _counts = pool.state();
        }
        let before = {
            let mut calls = self.0.calls.lock();
            let before = calls.iter().filter(|&&called| called == call).count();
            calls.push(call);
            before
        };
        if self.0.is_healed.load(Ordering::SeqCst) {
            return Act::Go;
        }
        let act = (self.0.plot)(call, before);
        match act {
            // Not twice at once: that would end the process.
            Act::Panic if std::thread::panicking() => {}
            Act::Panic => std::panic::panic_any(format!("{call:?} was told to panic")),
            Act::Hang => {
                self.0.hanging.fetch_add(1, Ordering::SeqCst);
                let _opened = self.0.gated.recv();
                self.0.hanging.fetch_sub(1, Ordering::SeqCst);
            }
            Act::Go | Act::Fail | Act::Later => {}
        }
        act
    }

    fn fails(&self, call: Call) -> Result<(), Trouble> {
        match self.act(call) {
            Act::Fail => Err(Trouble(format!("{call:?} was told to fail").into())),
            _ => Ok(()),
        }
    }

    fn note(&self, told: Told, call: Call) {
        self.0.told.lock().push(told);
        self.act(call);
    }
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Script")
    }
}

/// An error that stays on its thread, as r2d2 allows.
#[derive(Debug)]
pub(crate) struct Trouble(Rc<str>);

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Trouble {}

/// A connection of nothing.
pub(crate) struct Item {
    pub(crate) number: usize,
    /// What its users write on it.
    pub(crate) notes: Vec<u32>,
    script: Script,
}

impl fmt::Debug for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Item {}", self.number)
    }
}

impl Drop for Item {
    fn drop(&mut self) {
        self.script.0.alive.fetch_sub(1, Ordering::SeqCst);
        self.script.act(Call::Drop);
    }
}

impl ManageConnection for Script {
    type Connection = Item;
    type Error = Trouble;

    fn connect(&self) -> Result<Item, Trouble> {
        self.fails(Call::Connect)?;
        self.0.alive.fetch_add(1, Ordering::SeqCst);
        let number = self.0.born.fetch_add(1, Ordering::SeqCst);
        Ok(Item { number, notes: Vec::new(), script: self.clone() })
    }

    fn is_valid(&self, _: &mut Item) -> Result<(), Trouble> {
        self.fails(Call::IsValid)
    }

    fn has_broken(&self, _: &mut Item) -> bool {
        self.act(Call::HasBroken) == Act::Fail
    }
}

impl CustomizeConnection<Item, Trouble> for Script {
    fn on_acquire(&self, _: &mut Item) -> Result<(), Trouble> {
        self.fails(Call::OnAcquire)
    }

    fn on_release(&self, item: Item) {
        self.act(Call::OnRelease);
        drop(item);
    }
}

impl HandleError<Trouble> for Script {
    fn handle_error(&self, error: Trouble) {
        self.0.errors.lock().push(error.to_string());
        self.act(Call::HandleError);
    }
}

impl HandleEvent for Script {
    fn handle_acquire(&self, event: AcquireEvent) {
        self.note(Told::Opened(event.connection_id()), Call::HandleAcquire);
    }

    fn handle_release(&self, event: ReleaseEvent) {
        self.note(Told::Closed(event.connection_id()), Call::HandleRelease);
    }

    fn handle_checkout(&self, event: CheckoutEvent) {
        self.note(Told::Out(event.connection_id()), Call::HandleCheckout);
    }

    fn handle_timeout(&self, event: TimeoutEvent) {
        self.note(Told::InVain(event.timeout()), Call::HandleTimeout);
    }

    fn handle_checkin(&self, event: CheckinEvent) {
        self.note(Told::Back(event.connection_id()), Call::HandleCheckin);
    }
}

/// Names of this process's threads that begin so, as far as the system tells.
pub(crate) fn threads(prefix: &str) -> Option<Vec<String>> {
    let tasks = std::fs::read_dir("/proc/self/task").ok()?;
    let names =
        tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    let names = names.map(|name| name.trim_end().to_owned());
    Some(names.filter(|name| name.starts_with(prefix)).collect())
}
