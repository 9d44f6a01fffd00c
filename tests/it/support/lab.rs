//! A connector without I/O that does what a test tells it to: fail, panic, hang, put off.
//!
//! Every method, and the drop of every connection, asks the pool for its counts: in debug builds
//! that panics if the thread holds the pool's lock, and in release builds it would hang.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;
use warmline::{
    BoxError, CloseReason, Connector, Deadline, Look, Opening, Plan, Pool, Reset, Socket, Watch,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    Plan,
    Open,
    Socket,
    Watch,
    IsOpen,
    Reset,
    Settle,
    HasCheck,
    Check,
    Close,
}

impl Method {
    pub(crate) const ALL: [Self; 10] = [
        Self::Plan,
        Self::Open,
        Self::Socket,
        Self::Watch,
        Self::IsOpen,
        Self::Reset,
        Self::Settle,
        Self::HasCheck,
        Self::Check,
        Self::Close,
    ];
}

/// What a method does when it is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// What the trait's default does; `open` succeeds.
    Go,
    /// Fails, or says no.
    Fail,
    Panic,
    /// Does not return before [`Bench::release`].
    Hang,
    /// `reset` puts it off to `settle`; `has_check` says yes.
    Later,
}

type Plot = dyn Fn(Method, usize) -> Act + Send + Sync;

/// The connector.
pub(crate) struct Lab(Bench);

/// The test's view of its connector. Cloning makes a second one.
#[derive(Clone)]
pub(crate) struct Bench(Arc<Inner>);

struct Inner {
    plot: Box<Plot>,
    calls: Mutex<Vec<Method>>,
    alive: AtomicUsize,
    born: AtomicUsize,
    looks: AtomicUsize,
    pool: Mutex<Option<Pool<Lab>>>,
    gate: Mutex<Option<Sender<()>>>,
    gated: Receiver<()>,
}

/// A connection of nothing.
pub(crate) struct Item {
    pub(crate) number: usize,
    bench: Bench,
}

impl Lab {
    /// Does what `plot` answers to a method's name and how often it was called before.
    pub(crate) fn new(plot: impl Fn(Method, usize) -> Act + Send + Sync + 'static) -> Self {
        let (gate, gated) = bounded(0);
        Self(Bench(Arc::new(Inner {
            plot: Box::new(plot),
            calls: Mutex::default(),
            alive: AtomicUsize::new(0),
            born: AtomicUsize::new(0),
            looks: AtomicUsize::new(0),
            pool: Mutex::default(),
            gate: Mutex::new(Some(gate)),
            gated,
        })))
    }

    /// Nothing goes wrong.
    pub(crate) fn sound() -> Self {
        Self::new(|_, _| Act::Go)
    }

    pub(crate) fn bench(&self) -> Bench {
        self.0.clone()
    }
}

impl Bench {
    /// From now on every method and drop takes the pool's lock. Holds the pool until
    /// [`let_go`](Bench::let_go).
    pub(crate) fn watch_over(&self, pool: &Pool<Lab>) {
        *self.0.pool.lock() = Some(pool.clone());
    }

    pub(crate) fn let_go(&self) {
        let pool = self.0.pool.lock().take();
        drop(pool);
    }

    /// How often the pool's lock was taken in methods and drops.
    pub(crate) fn looks(&self) -> usize {
        self.0.looks.load(Ordering::SeqCst)
    }

    /// Connections that exist.
    pub(crate) fn alive(&self) -> usize {
        self.0.alive.load(Ordering::SeqCst)
    }

    /// Connections that were opened, so far.
    pub(crate) fn born(&self) -> usize {
        self.0.born.load(Ordering::SeqCst)
    }

    pub(crate) fn calls(&self, method: Method) -> usize {
        self.0.calls.lock().iter().filter(|&&called| called == method).count()
    }

    /// Whatever hangs returns, and nothing hangs any more.
    pub(crate) fn release(&self) {
        let gate = self.0.gate.lock().take();
        drop(gate);
    }

    fn look(&self) {
        let pool = self.0.pool.lock().clone();
        if let Some(pool) = pool {
            let _counts = pool.stats();
            self.0.looks.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn act(&self, method: Method) -> Act {
        self.look();
        let before = {
            let mut calls = self.0.calls.lock();
            let before = calls.iter().filter(|&&called| called == method).count();
            calls.push(method);
            before
        };
        let act = (self.0.plot)(method, before);
        match act {
            Act::Panic => std::panic::panic_any(format!("{method:?} was told to panic")),
            Act::Hang => {
                let _opened = self.0.gated.recv();
            }
            Act::Go | Act::Fail | Act::Later => {}
        }
        act
    }

    fn fails(&self, method: Method) -> Result<(), BoxError> {
        match self.act(method) {
            Act::Fail => Err(format!("{method:?} was told to fail").into()),
            _ => Ok(()),
        }
    }
}

impl Drop for Item {
    fn drop(&mut self) {
        self.bench.look();
        self.bench.0.alive.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Connector for Lab {
    type Key = String;
    type Conn = Item;

    fn plan(&self, _: &String) -> Plan {
        self.0.act(Method::Plan);
        Plan::blocking()
    }

    fn open(&self, _: &String, _: &mut Opening) -> Result<Item, BoxError> {
        self.0.fails(Method::Open)?;
        self.0.0.alive.fetch_add(1, Ordering::SeqCst);
        let number = self.0.0.born.fetch_add(1, Ordering::SeqCst);
        Ok(Item { number, bench: self.0.clone() })
    }

    fn socket<'c>(&self, _: &'c mut Item) -> Option<&'c mut Socket> {
        self.0.act(Method::Socket);
        None
    }

    fn watch<'c>(&self, _: &'c Item) -> Watch<'c> {
        self.0.act(Method::Watch);
        Watch::Nothing
    }

    fn is_open(&self, _: &mut Item, _: Look) -> bool {
        self.0.act(Method::IsOpen) != Act::Fail
    }

    fn reset(&self, _: &mut Item) -> Reset {
        match self.0.act(Method::Reset) {
            Act::Later => Reset::Later,
            Act::Fail => Reset::Close,
            _ => Reset::Ready,
        }
    }

    fn settle(&self, _: &mut Item, _: Deadline) -> Result<(), BoxError> {
        self.0.fails(Method::Settle)
    }

    fn has_check(&self) -> bool {
        self.0.act(Method::HasCheck) == Act::Later
    }

    fn check(&self, _: &mut Item, _: Deadline) -> Result<(), BoxError> {
        self.0.fails(Method::Check)
    }

    fn close(&self, conn: Item, _: CloseReason) {
        self.0.act(Method::Close);
        drop(conn);
    }
}
