//! Observers: told of everything, trusted with nothing.

use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use warmline::{CloseReason, Closed, Connected, ErrorKind, Observer, Pool, PooledConn};

use crate::support::lab::{Act, Lab, Method};
use crate::support::server::Server;
use crate::support::{Diary, SOON, ask, assert_balanced, eventually, tcp, watchdog};

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

impl Observer for Panicking {
    fn connected(&self, _: &Connected) {
        std::panic::panic_any("connected");
    }
    fn closed(&self, _: &Closed) {
        std::panic::panic_any("closed");
    }
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
    assert_balanced(&pool.stats());
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
