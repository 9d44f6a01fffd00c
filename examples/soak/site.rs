//! Two pools, their endpoints, and what their users count of them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use warmline::{
    Address, CheckedIn, CheckedOut, Closed, ConnectFailed, Connected, Connector, Detached, Driver,
    Endpoint, EndpointLimits, Error, Observer, Pool, PooledConn, Resolver, Stats, TcpConnector,
};

use crate::board::{Board, SLACK};
use crate::greeted::Greeted;
use crate::names::{has_name, name};
use crate::random::Random;
use crate::{Options, READ_TIMEOUT};

/// What an endpoint may ever have. Its own limit changes, up to this.
const MOST_PER_ENDPOINT: usize = 8;
pub(crate) const CHECKOUT_TIMEOUT: Duration = Duration::from_millis(500);

pub(crate) struct World {
    pub(crate) board: Arc<Board>,
    pub(crate) plain: Service<TcpConnector>,
    pub(crate) greeted: Service<Greeted>,
}

impl World {
    /// Servers with an even number are the first pool's endpoints, the others the second's.
    pub(crate) fn new(
        options: &Options,
        servers: &[SocketAddr],
        resolver: &Resolver,
        board: &Arc<Board>,
    ) -> Result<Self, Error> {
        let driver = Driver::named("soak")?;
        let tcp = TcpConnector::new().read_timeout(READ_TIMEOUT).write_timeout(READ_TIMEOUT);
        let greeted = Greeted::new(tcp.clone(), Arc::clone(board));
        let most = (options.threads / 2).max(MOST_PER_ENDPOINT);
        let of_parity = |parity| {
            let all = servers.iter().copied().enumerate();
            all.filter(move |(number, _)| number % 2 == parity)
        };
        Ok(Self {
            board: Arc::clone(board),
            plain: Service::new("plain", tcp, most, &driver, resolver, of_parity(0))?,
            greeted: Service::new("greeted", greeted, most, &driver, resolver, of_parity(1))?,
        })
    }
}

/// A pool.
pub(crate) struct Service<C: Connector> {
    pub(crate) name: &'static str,
    pub(crate) pool: Pool<C>,
    pub(crate) sites: Vec<Site<C>>,
    pub(crate) events: Arc<Events>,
    pub(crate) max_total: usize,
    /// Connections that its users have.
    in_hand: AtomicUsize,
}

impl<C: Connector<Key = Address>> Service<C> {
    fn new(
        name: &'static str,
        connector: C,
        max_total: usize,
        driver: &Driver,
        resolver: &Resolver,
        servers: impl Iterator<Item = (usize, SocketAddr)>,
    ) -> Result<Self, Error> {
        let events = Arc::new(Events::default());
        // Shorter lives than usual, so that all ways to end come up.
        let pool = Pool::builder(connector)
            .name(name)
            .driver(driver)
            .resolver(resolver)
            .observer(Watcher(Arc::clone(&events)))
            .max_total(max_total)
            .max_per_endpoint(MOST_PER_ENDPOINT)
            .checkout_timeout(CHECKOUT_TIMEOUT)
            .connect_timeout(Duration::from_millis(400))
            .check_timeout(Duration::from_millis(300))
            .check_after(Duration::from_millis(100))
            .settle_timeout(Duration::from_millis(300))
            .idle_timeout(Duration::from_secs(1))
            .max_lifetime(Duration::from_secs(10))
            .build()?;
        let site = |(number, address): (usize, SocketAddr)| {
            let is_named = has_name(number);
            let host = if is_named { self::name(number) } else { address.ip().to_string() };
            let text = format!("{host}:{}", address.port());
            let bound = Bound { limit: MOST_PER_ENDPOINT, ceiling: 0 };
            Ok(Site {
                endpoint: pool.endpoint(&text)?,
                text,
                in_hand: AtomicUsize::new(0),
                bound: Mutex::new(bound),
                passed: Mutex::new(Passed { since: Instant::now(), checkouts: 0 }),
            })
        };
        let sites = servers.map(site).collect::<Result<Vec<_>, Error>>()?;
        Ok(Self { name, pool, sites, events, max_total, in_hand: AtomicUsize::new(0) })
    }

    /// What must hold at any time.
    pub(crate) fn watch(&self, board: &Board) -> Stats {
        let (connected, closed) = self.events.counts();
        let in_hand = self.in_hand.load(Ordering::SeqCst);
        let stats = self.pool.stats();
        let name = self.name;
        board.check(stats.total() <= self.max_total, || {
            format!("{name}: more than max_total({}): {stats}", self.max_total)
        });
        board.check(in_hand <= self.max_total, || format!("{name}: {in_hand} are in hand"));
        board.check(is_balanced(&stats), || format!("{name}: the counts do not add up: {stats}"));
        // Told before it counts, and that is as an end after it does.
        let coming = (stats.connecting() + stats.abandoned()) as u64;
        board.check(connected <= stats.opened() + coming && closed <= stats.closed(), || {
            format!("{name}: told of {connected} opened and {closed} closed: {stats}")
        });
        for site in &self.sites {
            site.watch(board);
        }
        stats
    }

    /// Now that all have ended: the observer was told of all that counts, but for what was dropped.
    pub(crate) fn is_all_told(&self) -> bool {
        let ((connected, closed), stats) = (self.events.counts(), self.pool.stats());
        let mut missing = 0;
        for (told, counted) in [
            (connected, stats.opened()),
            (closed, stats.closed()),
            (self.events.failed.load(Ordering::SeqCst), stats.connects_failed()),
            (self.events.detached.load(Ordering::SeqCst), stats.detached()),
        ] {
            if told > counted {
                return false;
            }
            missing += counted - told;
        }
        let checkouts = self.events.checkouts.load(Ordering::SeqCst);
        (missing + checkouts.abs_diff(stats.checkouts())) <= stats.events_dropped()
    }
}

pub(crate) fn is_balanced(stats: &Stats) -> bool {
    let there = (stats.idle() + stats.in_use() + stats.checking()) as u64;
    stats.opened() == stats.closed() + stats.detached() + there
}

/// One endpoint.
pub(crate) struct Site<C: Connector> {
    pub(crate) endpoint: Endpoint<C>,
    /// The name it is found by.
    pub(crate) text: String,
    in_hand: AtomicUsize,
    /// Locked while the limits change.
    bound: Mutex<Bound>,
    passed: Mutex<Passed>,
}

/// Since when callers have waited beside idle connections, and the checkouts until then.
struct Passed {
    since: Instant,
    checkouts: u64,
}

struct Bound {
    limit: usize,
    /// What it had when the limit fell, or less by now: it may keep these while they are in use.
    ceiling: usize,
}

impl<C: Connector> Site<C> {
    fn watch(&self, board: &Board) {
        let mut bound = self.bound.lock();
        let most = bound.limit.max(bound.ceiling);
        let in_hand = self.in_hand.load(Ordering::SeqCst);
        let stats = self.endpoint.stats();
        bound.ceiling = bound.ceiling.min(stats.total());
        drop(bound);
        let mut passed = self.passed.lock();
        if stats.checkouts() != passed.checkouts || stats.idle() == 0 || stats.waiting() == 0 {
            *passed = Passed { since: Instant::now(), checkouts: stats.checkouts() };
        }
        board.check(passed.since.elapsed() < SLACK, || {
            format!("{}: nobody takes what is idle: {stats}", self.text)
        });
        drop(passed);
        board.check(stats.total() <= most && in_hand <= most, || {
            format!("{}: more than {most}, {in_hand} in hand: {stats}", self.text)
        });
    }

    /// Other limits, at random.
    pub(crate) fn change_limits(&self, random: &mut Random) -> Result<(), Error> {
        let limit = 1 + random.below(MOST_PER_ENDPOINT as u64) as usize;
        let mut limits = EndpointLimits::new().max_per_endpoint(limit);
        match random.below(4) {
            0 => limits = limits.min_idle(1),
            1 => limits = limits.max_idle_per_endpoint(limit / 2).max_connecting(1),
            2 => limits = limits.max_waiting(2),
            _ => {}
        }
        let mut bound = self.bound.lock();
        self.endpoint.set_limits(limits)?;
        *bound = Bound { limit, ceiling: self.endpoint.stats().total() };
        Ok(())
    }

    /// One connection is to be kept ready, and no other limit is its own.
    pub(crate) fn keep_one_idle(&self) -> Result<(), Error> {
        let mut bound = self.bound.lock();
        self.endpoint.set_limits(EndpointLimits::new().min_idle(1))?;
        bound.limit = MOST_PER_ENDPOINT;
        Ok(())
    }
}

/// A connection that somebody has in hand, and counts.
pub(crate) struct Loan<'s, C: Connector> {
    // Dropped in this order: no longer counted when it goes back.
    in_hand: InHand<'s>,
    pub(crate) conn: PooledConn<C>,
}

impl<'s, C: Connector> Loan<'s, C> {
    pub(crate) fn new(
        conn: PooledConn<C>,
        service: &'s Service<C>,
        site: &'s Site<C>,
        board: &Board,
    ) -> Self {
        Self { in_hand: InHand::new(service, site, board), conn }
    }

    pub(crate) fn discard(self) {
        drop(self.in_hand);
        PooledConn::discard(self.conn);
    }

    pub(crate) fn detach(self) -> C::Conn {
        drop(self.in_hand);
        PooledConn::detach(self.conn)
    }
}

/// Counts one that is in hand, until it is dropped.
pub(crate) struct InHand<'s>(&'s AtomicUsize, &'s AtomicUsize);

impl<'s> InHand<'s> {
    pub(crate) fn new<C: Connector>(
        service: &'s Service<C>,
        site: &'s Site<C>,
        board: &Board,
    ) -> Self {
        let all = service.in_hand.fetch_add(1, Ordering::SeqCst) + 1;
        let here = site.in_hand.fetch_add(1, Ordering::SeqCst) + 1;
        board.check(all <= service.max_total && here <= MOST_PER_ENDPOINT, || {
            format!("{}: {here} in hand, and {all} of {}", site.text, service.name)
        });
        Self(&service.in_hand, &site.in_hand)
    }
}

impl Drop for InHand<'_> {
    fn drop(&mut self) {
        self.1.fetch_sub(1, Ordering::SeqCst);
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// What the observer was told.
#[derive(Default)]
pub(crate) struct Events {
    connected: AtomicU64,
    failed: AtomicU64,
    checkouts: AtomicU64,
    detached: AtomicU64,
    closed: AtomicU64,
}

impl Events {
    fn counts(&self) -> (u64, u64) {
        (self.connected.load(Ordering::SeqCst), self.closed.load(Ordering::SeqCst))
    }
}

struct Watcher(Arc<Events>);

impl Observer for Watcher {
    fn connected(&self, _: &Connected) {
        self.0.connected.fetch_add(1, Ordering::SeqCst);
    }

    fn connect_failed(&self, _: &ConnectFailed) {
        self.0.failed.fetch_add(1, Ordering::SeqCst);
    }

    fn checked_out(&self, _: &CheckedOut) {
        self.0.checkouts.fetch_add(1, Ordering::SeqCst);
    }

    fn checked_in(&self, event: &CheckedIn) {
        // The answer to a request that was dropped is no checkout.
        if !event.was_received() {
            self.0.checkouts.fetch_sub(1, Ordering::SeqCst);
        }
    }

    fn detached(&self, _: &Detached) {
        self.0.detached.fetch_add(1, Ordering::SeqCst);
    }

    fn closed(&self, _: &Closed) {
        self.0.closed.fetch_add(1, Ordering::SeqCst);
    }
}
