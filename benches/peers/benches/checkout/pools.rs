//! The pools, behind one face.

use std::future::{Future, ready};
use std::hint::black_box;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use deadpool::managed::{Metrics, Object, RecycleResult};
use parking_lot::{Condvar, Mutex};
use peers::{block_on, version};
use warmline::{Address, Endpoint, Pool, PooledConn, Socket, TcpConnector};

/// Nobody waits so long: none of the candidates gives up.
const PATIENCE: Duration = Duration::from_secs(30);

/// Something that lends connections.
pub(crate) trait Lender: Sync + 'static {
    /// What its figures are called by. warmline's go by its `Endpoint`, a handle.
    const NAME: &'static str;

    /// Its version, and the settings that are not its defaults.
    fn settings(&self) -> String;

    /// Checks out, calls `hold`, returns.
    fn visit(&self, hold: impl FnOnce());
}

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    TcpStream::connect(address)
}

fn connect_all(address: SocketAddr, count: usize) -> Vec<TcpStream> {
    (0..count).map(|_| connect(address).expect("the server accepts")).collect()
}

// ---- warmline

pub(crate) struct Warmline {
    pub(crate) endpoint: Endpoint<TcpConnector>,
    settings: String,
}

impl Warmline {
    /// With the default settings and `count` idle connections.
    pub(crate) fn with_defaults(address: SocketAddr, count: usize) -> Self {
        Self::new(&Pool::tcp(), address, count, "defaults")
    }

    /// With the default settings, but for a limit of `count` connections, all open.
    pub(crate) fn limited(address: SocketAddr, count: usize) -> Self {
        let pool = Pool::builder(TcpConnector::new()).max_per_endpoint(count).build();
        Self::new(&pool.expect("one limit"), address, count, &format!("max_per_endpoint={count}"))
    }

    fn new(pool: &Pool<TcpConnector>, address: SocketAddr, count: usize, settings: &str) -> Self {
        let address = Address::try_from(address).expect("a port");
        let endpoint = pool.endpoint(&address).expect("an address");
        assert_eq!(endpoint.warm(count, PATIENCE).expect("the server accepts"), count);
        let settings = format!("{}: TcpConnector {settings}", version("warmline", ""));
        Self { endpoint, settings }
    }
}

impl Lender for Warmline {
    const NAME: &'static str = "handle";

    fn settings(&self) -> String {
        self.settings.clone()
    }

    #[inline]
    fn visit(&self, hold: impl FnOnce()) {
        let conn = self.endpoint.get().expect("a connection");
        black_box(&conn);
        hold();
    }
}

// ---- r2d2

pub(crate) struct R2d2 {
    pool: r2d2::Pool<R2d2Manager>,
    settings: String,
}

/// Its checks do nothing.
struct R2d2Manager(SocketAddr);

impl r2d2::ManageConnection for R2d2Manager {
    type Connection = TcpStream;
    type Error = io::Error;

    fn connect(&self) -> io::Result<TcpStream> {
        connect(self.0)
    }

    fn is_valid(&self, _: &mut TcpStream) -> io::Result<()> {
        Ok(())
    }

    fn has_broken(&self, _: &mut TcpStream) -> bool {
        false
    }
}

impl R2d2 {
    /// With the default settings: 10 connections, tested on checkout (by a test that does nothing).
    pub(crate) fn with_defaults(address: SocketAddr) -> Self {
        let builder = r2d2::Pool::builder();
        Self::new(builder, address, "defaults (test_on_check_out=true), no-op manager")
    }

    /// With `count` connections that are not tested.
    pub(crate) fn limited(address: SocketAddr, count: u32) -> Self {
        let builder = r2d2::Pool::builder().max_size(count).test_on_check_out(false);
        Self::new(builder, address, &format!("max_size={count} test_on_check_out=false"))
    }

    fn new(builder: r2d2::Builder<R2d2Manager>, address: SocketAddr, settings: &str) -> Self {
        let pool = builder.build(R2d2Manager(address)).expect("the server accepts");
        Self { pool, settings: format!("{}: {settings}", version("r2d2", "")) }
    }
}

impl Lender for R2d2 {
    const NAME: &'static str = "r2d2";

    fn settings(&self) -> String {
        self.settings.clone()
    }

    #[inline]
    fn visit(&self, hold: impl FnOnce()) {
        let conn = self.pool.get().expect("a connection");
        black_box(&conn);
        hold();
    }
}

// ---- deadpool

pub(crate) struct Deadpool {
    pool: deadpool::managed::Pool<DeadpoolManager>,
    count: usize,
}

/// Its checks do nothing.
struct DeadpoolManager(SocketAddr);

impl deadpool::managed::Manager for DeadpoolManager {
    type Type = TcpStream;
    type Error = io::Error;

    fn create(&self) -> impl Future<Output = io::Result<TcpStream>> + Send {
        ready(connect(self.0))
    }

    fn recycle(
        &self,
        _: &mut TcpStream,
        _: &Metrics,
    ) -> impl Future<Output = RecycleResult<io::Error>> + Send {
        ready(Ok(()))
    }
}

impl Deadpool {
    /// Without time-outs, which would need a runtime.
    pub(crate) fn new(address: SocketAddr, count: usize) -> Self {
        let builder = deadpool::managed::Pool::builder(DeadpoolManager(address));
        let pool = builder.max_size(count).build().expect("no time-outs");
        let this = Self { pool, count };
        let all = Vec::from_iter((0..count).map(|_| this.get()));
        drop(all);
        this
    }

    #[inline]
    fn get(&self) -> Object<DeadpoolManager> {
        block_on(self.pool.get()).expect("a connection")
    }
}

impl Lender for Deadpool {
    const NAME: &'static str = "deadpool";

    fn settings(&self) -> String {
        let (version, count) = (version("deadpool", ""), self.count);
        format!("{version}: managed max_size={count}, no time-outs, a minimal block_on per get")
    }

    #[inline]
    fn visit(&self, hold: impl FnOnce()) {
        let conn = self.get();
        black_box(&*conn);
        hold();
    }
}

// ---- a channel

/// A crossbeam channel, as those use it who want no pool.
pub(crate) struct Channel {
    idle: (Sender<TcpStream>, Receiver<TcpStream>),
}

impl Channel {
    pub(crate) fn new(address: SocketAddr, count: usize) -> Self {
        let idle = bounded(count);
        for conn in connect_all(address, count) {
            idle.0.send(conn).expect("this is where it is received");
        }
        Self { idle }
    }
}

impl Lender for Channel {
    const NAME: &'static str = "channel";

    fn settings(&self) -> String {
        format!("{}: bounded, try_recv, else recv_timeout", version("crossbeam-channel", ""))
    }

    #[inline]
    fn visit(&self, hold: impl FnOnce()) {
        let (sender, receiver) = &self.idle;
        let conn = receiver.try_recv().or_else(|_| receiver.recv_timeout(PATIENCE));
        let conn = conn.expect("a connection");
        black_box(&conn);
        hold();
        sender.try_send(conn).expect("there is room for all");
    }
}

// ---- barging

/// The pool that everybody writes first: a stack and a condition variable, without any fairness.
pub(crate) struct Barging {
    idle: Mutex<Vec<TcpStream>>,
    returned: Condvar,
}

impl Barging {
    pub(crate) fn new(address: SocketAddr, count: usize) -> Self {
        Self { idle: Mutex::new(connect_all(address, count)), returned: Condvar::new() }
    }
}

impl Lender for Barging {
    const NAME: &'static str = "barging";

    fn settings(&self) -> String {
        let version = version("parking_lot", "0.12");
        format!("{version}: Mutex<Vec> and Condvar, notified after the unlock")
    }

    #[inline]
    fn visit(&self, hold: impl FnOnce()) {
        let mut idle = self.idle.lock();
        let conn = loop {
            match idle.pop() {
                Some(conn) => break conn,
                None => drop(self.returned.wait_for(&mut idle, PATIENCE)),
            }
        };
        drop(idle);
        black_box(&conn);
        hold();
        self.idle.lock().push(conn);
        self.returned.notify_one();
    }
}

// ---- the floor

/// What no pool can do without: a lock, taken twice, around a stack.
pub(crate) struct Floor<T> {
    idle: Mutex<Vec<T>>,
}

/// As large as what a pool keeps for a connection: warmline's own socket, and what to know of it.
pub(crate) struct Entry {
    _socket: Socket,
    _born: u64,
    _idle_since: u64,
    _uses: u32,
    _generation: u32,
}

impl Floor<TcpStream> {
    /// Of connections of which nothing is known.
    pub(crate) fn bare(address: SocketAddr, count: usize) -> Self {
        Self { idle: Mutex::new(connect_all(address, count)) }
    }
}

impl Floor<Entry> {
    /// Of connections with as much beside them as a pool must know.
    pub(crate) fn new(address: SocketAddr, count: usize) -> Self {
        let pool = Warmline::with_defaults(address, count);
        let all = Vec::from_iter((0..count).map(|_| pool.endpoint.get().expect("it is idle")));
        let entry = |conn| Entry {
            _socket: PooledConn::detach(conn),
            _born: 0,
            _idle_since: 0,
            _uses: 0,
            _generation: 0,
        };
        Self { idle: Mutex::new(all.into_iter().map(entry).collect()) }
    }
}

impl<T: Send + 'static> Lender for Floor<T> {
    const NAME: &'static str = if size_of::<T>() > 16 { "floor" } else { "bare_floor" };

    fn settings(&self) -> String {
        let (version, size) = (version("parking_lot", "0.12"), size_of::<T>());
        format!("{version}: Mutex<Vec<T>> pop and push, T of {size} bytes around a live socket")
    }

    #[inline]
    fn visit(&self, hold: impl FnOnce()) {
        let entry = self.idle.lock().pop().expect("nobody waits here");
        black_box(&entry);
        hold();
        self.idle.lock().push(entry);
    }
}
