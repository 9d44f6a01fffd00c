//! The pools, behind one face, and where their connections come from.

use std::future::{Future, ready};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use deadpool::managed::{Metrics, Object, RecycleResult};
use peers::{block_on, version};
use warmline::{BoxError, Connector, Endpoint, One, Opening, Pool};

use crate::{IDLE, LIMIT, OPEN};

/// Nobody waits so long: none of the candidates gives up.
const PATIENCE: Duration = Duration::from_secs(30);
/// Who has begun no connect for so long begins none until asked again.
const CALM: Duration = Duration::from_millis(500);
/// What a look whether all is calm is apart from the next.
const GLANCE: Duration = Duration::from_millis(5);

/// Opens connections slowly, and counts them.
#[derive(Default)]
pub(crate) struct Origin {
    started: AtomicUsize,
    ended: AtomicUsize,
    open: AtomicUsize,
}

/// A connection that leads nowhere.
pub(crate) struct Conn(Arc<Origin>);

impl Origin {
    fn open(self: &Arc<Self>) -> Conn {
        self.started.fetch_add(1, Ordering::SeqCst);
        thread::sleep(OPEN);
        self.open.fetch_add(1, Ordering::SeqCst);
        self.ended.fetch_add(1, Ordering::SeqCst);
        Conn(Arc::clone(self))
    }

    /// How many connects were begun.
    pub(crate) fn started(&self) -> usize {
        self.started.load(Ordering::SeqCst)
    }

    /// How many connections are open.
    pub(crate) fn connections(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    /// Waits until every connect under way has ended, and those that were to follow it.
    pub(crate) fn await_calm(&self) {
        let (mut before, mut calm) = (self.started(), Duration::ZERO);
        while calm < CALM {
            thread::sleep(GLANCE);
            let started = self.started();
            let is_calm = started == before && started == self.ended.load(Ordering::SeqCst);
            calm = if is_calm { calm + GLANCE } else { Duration::ZERO };
            before = started;
        }
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Something that lends connections.
pub(crate) trait Lender: Sync + Sized {
    /// What its figures are called by, after their own names.
    const SUFFIX: &'static str;

    /// Its version, and the settings that are not its defaults.
    fn settings() -> String;

    /// A new one, with so many idle connections as the spike is to find.
    fn new(origin: &Arc<Origin>) -> Self;

    /// Checks out, calls `hold`, returns.
    fn visit(&self, hold: impl FnOnce());
}

// ---- warmline

pub(crate) struct Warmline(Endpoint<Slow>);

pub(crate) struct Slow(Arc<Origin>);

impl Connector for Slow {
    type Key = One;
    type Conn = Conn;

    fn open(&self, _: &One, _: &mut Opening) -> Result<Conn, BoxError> {
        Ok(self.0.open())
    }
}

impl Lender for Warmline {
    const SUFFIX: &'static str = "";

    fn settings() -> String {
        format!(
            "{}: max_per_endpoint={LIMIT}, {IDLE} by warm(), a connector that has only a blocking \
             open()",
            version("warmline", "")
        )
    }

    fn new(origin: &Arc<Origin>) -> Self {
        let builder = Pool::builder(Slow(Arc::clone(origin))).max_per_endpoint(LIMIT);
        let endpoint = builder.build().and_then(|pool| pool.only()).expect("one limit");
        assert_eq!(endpoint.warm(IDLE, PATIENCE).expect("it opens"), IDLE);
        Self(endpoint)
    }

    fn visit(&self, hold: impl FnOnce()) {
        let _conn = self.0.get().expect("a connection");
        hold();
    }
}

// ---- r2d2

pub(crate) struct R2d2(r2d2::Pool<Manager>);

/// Of r2d2 and deadpool alike. Its checks do nothing.
pub(crate) struct Manager(Arc<Origin>);

impl r2d2::ManageConnection for Manager {
    type Connection = Conn;
    type Error = io::Error;

    fn connect(&self) -> io::Result<Conn> {
        Ok(self.0.open())
    }

    fn is_valid(&self, _: &mut Conn) -> io::Result<()> {
        Ok(())
    }

    fn has_broken(&self, _: &mut Conn) -> bool {
        false
    }
}

impl Lender for R2d2 {
    const SUFFIX: &'static str = "_r2d2";

    fn settings() -> String {
        format!(
            "{}: max_size={LIMIT} min_idle={IDLE} (by default it opens all {LIMIT} when it is \
             built), its 3 threads connect, no-op checks",
            version("r2d2", "")
        )
    }

    fn new(origin: &Arc<Origin>) -> Self {
        let builder = r2d2::Pool::builder().max_size(LIMIT as u32).min_idle(Some(IDLE as u32));
        Self(builder.build(Manager(Arc::clone(origin))).expect("it opens"))
    }

    fn visit(&self, hold: impl FnOnce()) {
        let _conn = self.0.get().expect("a connection");
        hold();
    }
}

// ---- deadpool

pub(crate) struct Deadpool(deadpool::managed::Pool<Manager>);

impl deadpool::managed::Manager for Manager {
    type Type = Conn;
    type Error = io::Error;

    /// Blocks the thread that asks, which is not a runtime's.
    fn create(&self) -> impl Future<Output = io::Result<Conn>> + Send {
        ready(Ok(self.0.open()))
    }

    fn recycle(
        &self,
        _: &mut Conn,
        _: &Metrics,
    ) -> impl Future<Output = RecycleResult<io::Error>> + Send {
        ready(Ok(()))
    }
}

impl Deadpool {
    fn get(&self) -> Object<Manager> {
        block_on(self.0.get()).expect("a connection")
    }
}

impl Lender for Deadpool {
    const SUFFIX: &'static str = "_deadpool";

    fn settings() -> String {
        format!(
            "{}: managed max_size={LIMIT}, no time-outs, a minimal block_on per get, on whose \
             thread it connects",
            version("deadpool", "")
        )
    }

    fn new(origin: &Arc<Origin>) -> Self {
        let builder = deadpool::managed::Pool::builder(Manager(Arc::clone(origin)));
        let this = Self(builder.max_size(LIMIT).build().expect("no time-outs"));
        let all = Vec::from_iter((0..IDLE).map(|_| this.get()));
        drop(all);
        this
    }

    fn visit(&self, hold: impl FnOnce()) {
        let _conn = self.get();
        hold();
    }
}
