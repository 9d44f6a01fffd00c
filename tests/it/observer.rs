//! Observers: told of everything, trusted with nothing.

use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use warmline::{
    Checked, CheckedIn, CheckedOut, Checking, CheckoutFailed, CloseReason, Closed, ConnectFailed,
    Connected, Connecting, Deadline, Detached, Driver, ErrorKind, Observer, Pool, PooledConn,
};

use crate::support::chronicle::{Chronicle, Step};
use crate::support::faults::Refusing;
use crate::support::lab::{Act, Lab, Method};
use crate::support::server::Server;
use crate::support::{Diary, SOON, ask, assert_balanced, assert_empty, eventually, tcp, watchdog};

#[test]
fn an_observer_is_told_of_every_connection_that_begins_and_ends() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let diary = Diary::default();
    let pool = tcp().name("seen").observer(diary.clone()).build().unwrap();
    let held = [pool.get(&server.name()).unwrap(), pool.get(&server.name()).unwrap()];
    eventually("both begin", || diary.connected().len() == 2);
    let [discarded, kept] = held;
    PooledConn::discard(discarded);
    drop(kept);
    pool.close();
    assert_eq!(diary.reasons(), [CloseReason::Discarded, CloseReason::PoolClosed]);
    let (connected, closed) = (diary.connected(), diary.closed());
    assert!(connected.iter().all(|event| event.endpoint() == server.name()));
    assert!(closed.iter().all(|event| event.endpoint() == server.name()));
    assert!(closed.iter().all(|end| connected.iter().any(|begin| begin.at() <= end.at())));
    assert!(closed[0].at() <= closed[1].at());
    assert!(connected.iter().all(|event| event.took() < SOON));
    assert!(closed.iter().all(|event| event.age() < SOON));
    let me = std::thread::current().name().unwrap().to_owned();
    let threads = diary.threads();
    assert_eq!(threads.iter().filter(|&name| *name == me).count(), 2, "what the caller did");
    assert_eq!(threads.iter().filter(|&name| name == "seen-observer").count(), 2, "{threads:?}");
}

struct Panicking;

macro_rules! panics_in {
    ($($method:ident: $event:ident,)+) => {
        impl Observer for Panicking {
            $(fn $method(&self, _: &$event) {
                std::panic::panic_any(stringify!($method));
            })+
        }
    };
}

panics_in! {
    connecting: Connecting,
    connected: Connected,
    connect_failed: ConnectFailed,
    checked_out: CheckedOut,
    checkout_failed: CheckoutFailed,
    checked_in: CheckedIn,
    detached: Detached,
    checking: Checking,
    checked: Checked,
    closed: Closed,
}

#[test]
fn an_observer_that_panics_harms_nobody() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let pool = tcp().observer(Panicking).idle_timeout(Duration::from_millis(20)).build().unwrap();
    for _ in 0..3 {
        let mut conn = pool.get(&server.name()).unwrap();
        ask(&mut conn).unwrap();
        PooledConn::discard(conn);
        drop(pool.get(&server.name()).unwrap());
        eventually("the reaper works on", || pool.stats().idle() == 0);
    }
    assert_eq!(pool.stats().closed(), 6);
    drop(PooledConn::detach(pool.get(&server.name()).unwrap()));
    pool.get(&Refusing::new().name()).unwrap_err();
    assert_balanced(&pool.stats());
}

#[test]
fn an_observer_that_panics_while_its_pool_checks_and_settles_harms_nobody() {
    let _watchdog = watchdog();
    let lab = Lab::new(|method, _| match method {
        Method::HasCheck | Method::Reset => Act::Later,
        _ => Act::Go,
    });
    let builder = Pool::builder(lab).observer(Panicking).max_per_endpoint(1);
    let pool = builder.check_after(Duration::ZERO).build().unwrap();
    for _ in 0..10 {
        drop(pool.get_timeout("a", SOON).unwrap());
        drop(pool.request("a").unwrap().receiver().recv_timeout(SOON).unwrap().unwrap());
    }
    assert_eq!((pool.stats().opened(), pool.stats().closed()), (1, 0));
    pool.drain(Deadline::after(SOON)).unwrap();
}

#[test]
fn an_observer_may_panic_while_the_thread_it_is_told_on_panics() {
    let _watchdog = watchdog();
    let pool = Pool::builder(Lab::sound()).observer(Panicking).build().unwrap();
    let theirs = pool.clone();
    let user = std::thread::spawn(move || {
        let _held = theirs.get_timeout("a", SOON).unwrap();
        std::panic::panic_any("a user");
    });
    assert!(user.join().is_err());
    eventually("it is closed", || pool.stats().closed_for(CloseReason::Panicked) == 1);
}

/// Does not return before its gate opens.
struct Blocking(Receiver<()>);

impl Observer for Blocking {
    fn connected(&self, _: &Connected) {
        let _opened = self.0.recv();
    }
}

#[test]
fn an_observer_that_blocks_delays_nobody_and_what_it_misses_is_counted() {
    let _watchdog = watchdog();
    let (gate, gated) = bounded::<()>(0);
    let pool = Pool::builder(Lab::sound()).observer(Blocking(gated)).build().unwrap();
    let rounds = 1500;
    for _ in 0..rounds {
        PooledConn::discard(pool.get_timeout("a", SOON).unwrap());
    }
    eventually("the rest was dropped", || {
        let stats = pool.stats();
        // Begun and ended for each, less what the queue holds.
        stats.events_dropped() >= 2 * rounds - 1100
    });
    assert_eq!(pool.stats().checkouts(), rounds);
    drop(gate);
}

/// Never returns from what it is told first on a driver's thread.
struct Stuck(Receiver<()>);

impl Observer for Stuck {
    fn connecting(&self, _: &Connecting) {
        let _never = self.0.recv();
    }
}

#[test]
fn while_an_observer_is_stuck_its_pool_checks_out_closes_drains_and_ends() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let (gate, gated) = bounded::<()>(0);
    let brief = Duration::from_millis(20);
    let pool = tcp().observer(Stuck(gated.clone())).idle_timeout(brief).build().unwrap();
    ask(&mut pool.get(&server.name()).unwrap()).unwrap();
    eventually("the reaper works on", || pool.stats().closed() == 1);
    let held = pool.get(&server.name()).unwrap();
    assert_eq!(pool.drain(Deadline::after(brief)).unwrap_err().kind(), ErrorKind::Timeout);
    drop(held);
    pool.drain(Deadline::after(SOON)).unwrap();
    assert_empty(&pool.stats());
    drop(pool);
    let pool = Pool::builder(Lab::sound()).observer(Stuck(gated)).build().unwrap();
    drop(pool.get_timeout("a", SOON).unwrap());
    drop(pool);
    eventually("nothing of the servers' is left", || server.open() == 0);
    drop(gate);
}

#[test]
fn a_stuck_observer_delays_the_events_of_other_pools_of_its_driver_and_nothing_else() {
    let _watchdog = watchdog();
    let driver = Driver::new();
    let (gate, gated) = bounded::<()>(0);
    let stuck = Pool::builder(Lab::sound()).driver(&driver).observer(Stuck(gated));
    let stuck = stuck.build().unwrap();
    drop(stuck.get_timeout("a", SOON).unwrap());
    let chronicle = Chronicle::default();
    let builder = Pool::builder(Lab::sound()).driver(&driver).observer(chronicle.clone());
    let pool = builder.build().unwrap();
    PooledConn::discard(pool.get_timeout("a", SOON).unwrap());
    eventually("it is closed", || pool.stats().closed() == 1);
    let told: Vec<_> = chronicle.lines().iter().map(|line| line.step).collect();
    assert_eq!(told, [Step::CheckedOut, Step::CheckedIn], "on the caller's thread");
    drop(gate);
    chronicle.assert_agrees(&pool.stats());
}

/// Asks its own pool for a connection.
struct Nosy(std::sync::OnceLock<Pool<Lab>>, Sender<ErrorKind>);

#[derive(Clone)]
struct Shared(std::sync::Arc<Nosy>);

impl Observer for Shared {
    fn connected(&self, _: &Connected) {
        let Some(pool) = self.0.0.get() else { return };
        let error = pool.get_timeout("b", Duration::from_secs(3600)).unwrap_err();
        let _nobody_reads = self.0.1.send(error.kind());
    }
}

#[test]
fn an_observer_that_would_wait_for_its_own_pool_is_rejected_at_once() {
    let _watchdog = watchdog();
    let (send, kinds) = bounded(8);
    let nosy = Shared(std::sync::Arc::new(Nosy(std::sync::OnceLock::new(), send)));
    let pool = Pool::builder(Lab::sound()).observer(nosy.clone()).build().unwrap();
    nosy.0.0.set(pool.clone()).unwrap();
    drop(pool.get("a").unwrap());
    assert_eq!(kinds.recv_timeout(SOON).unwrap(), ErrorKind::Rejected);
    pool.close();
}

#[test]
fn without_an_observer_nothing_is_counted_as_dropped() {
    let _watchdog = watchdog();
    let pool = Pool::builder(Lab::sound()).build().unwrap();
    for _ in 0..2000 {
        PooledConn::discard(pool.get_timeout("a", SOON).unwrap());
    }
    assert_eq!(pool.stats().events_dropped(), 0);
}

/// Says what it is told, and on which thread; is told of nothing before its gate opens.
struct Late(Receiver<()>, Sender<(&'static str, String)>);

impl Late {
    fn say(&self, what: &'static str) {
        let thread = std::thread::current().name().unwrap_or_default().to_owned();
        self.1.send((what, thread)).unwrap();
    }
}

impl Observer for Late {
    fn connected(&self, _: &Connected) {
        let _opened = self.0.recv();
        self.say("connected");
    }

    fn closed(&self, event: &Closed) {
        assert_eq!(event.reason(), CloseReason::PoolClosed);
        self.say("closed");
    }
}

#[test]
fn at_the_end_of_a_pool_its_observer_hears_of_the_closes_on_its_own_thread_and_in_order() {
    let _watchdog = watchdog();
    let (gate, gated) = bounded::<()>(0);
    let (say, said) = bounded(6);
    let lab = Lab::new(|method, _| if method == Method::Close { Act::Hang } else { Act::Go });
    let bench = lab.bench();
    let builder = Pool::builder(lab).name("last").observer(Late(gated, say));
    let pool = builder.build().unwrap();
    let held = [(); 3].map(|()| pool.get("a").unwrap());
    drop(held);
    drop(pool);
    eventually("they are being closed", || bench.calls(Method::Close) == 3);
    bench.release(); // when the last handle is gone
    eventually("all are closed", || bench.alive() == 0);
    assert!(said.is_empty());
    drop(gate);
    let all: Vec<_> = (0..6).map(|_| said.recv_timeout(SOON).unwrap()).collect();
    let words: Vec<_> = all.iter().map(|(what, _)| *what).collect();
    assert_eq!(words[..], [["connected"; 3], ["closed"; 3]].concat());
    assert!(all.iter().all(|(_, thread)| thread == "last-observer"), "{all:?}");
}
