//! The thread itself: what it does with orders and events, and what a panic costs.

use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::*;
use crate::clock::Stamp;
use crate::connector::Watch;
use crate::core::{Notice, Slab};
use crate::driver::connects::tests::rig::{News, Orders, listener, silent, to};
use crate::driver::watch::{How, Ward};
use crate::shared::{Since, Watched};
use crate::sync::{Receiver, Sender, Weak, bounded};

const SOON: Duration = Duration::from_secs(20);

/// Keeps what is logged as an error.
struct Log;

static LOGGED: Mutex<Vec<String>> = Mutex::new(Vec::new());

impl log::Log for Log {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }
    fn log(&self, record: &log::Record<'_>) {
        LOGGED.lock().push(record.args().to_string());
    }
    fn flush(&self) {}
}

fn listen_to_errors() {
    if log::set_logger(&Log).is_ok() {
        log::set_max_level(log::LevelFilter::Error);
    }
}

fn start() -> (Arc<EventLoop>, Worker) {
    EventLoop::start("test", Crew::new("test".to_owned())).unwrap()
}

/// A pool that only hears of its connections.
struct Hearing {
    panics: bool,
    heard: Sender<(Cut, Notice)>,
}

impl Ward for Hearing {
    fn noticed(self: Arc<Self>, of: Cut, notice: Notice, _: &Crew) {
        self.heard.send((of, notice)).unwrap();
        assert!(!self.panics, "as the test says");
    }
    fn look(self: Arc<Self>, _: &Crew) -> Stamp {
        Stamp::MAX
    }
}

/// A pool of one connection, and the end of its peer.
struct Pool {
    tag: u16,
    token: Token,
    own: UnixStream,
    peer: UnixStream,
    heard: Receiver<(Cut, Notice)>,
    _ward: Arc<Hearing>,
}

impl Pool {
    fn new(event_loop: &EventLoop, panics: bool) -> Self {
        let (own, peer) = UnixStream::pair().unwrap();
        let (sender, heard) = bounded(100);
        let ward = Arc::new(Hearing { panics, heard: sender });
        let weak: Weak<Hearing> = Arc::downgrade(&ward);
        let tag = event_loop.watches.admit(weak).unwrap();
        let mut tokens = Slab::new();
        tokens.insert(());
        let token = tokens.insert(());
        Self { tag, token, own, peer, heard, _ward: ward }
    }

    fn watch(&self, event_loop: &EventLoop, portably: bool) {
        self.watch_as(event_loop, How { portably, since: Since::Opened });
    }

    fn watch_as(&self, event_loop: &EventLoop, how: How) {
        let fd = Watch::Socket(self.own.as_fd());
        let watched = event_loop.watches.watch(self.tag, (1, self.token), fd, how);
        let is_portable = how.portably || !cfg!(any(target_os = "linux", target_os = "android"));
        assert_eq!(
            watched,
            if is_portable { Watched::WhileIdle(how.since) } else { Watched::Always }
        );
    }

    fn hears(&self) -> Notice {
        let (of, notice) = self.heard.recv_timeout(SOON).unwrap();
        let word = self.token.pack(self.tag).unwrap();
        let (tag, own) = Cut::unpack(word);
        let is_own = tag == self.tag && (of == own || of.is_again());
        assert!(is_own, "it is told of its own connection");
        notice
    }

    fn hang_up(&self) {
        self.peer.shutdown(std::net::Shutdown::Both).unwrap();
    }
}

/// By the time that this returns, the loop has taken another turn.
fn fence(event_loop: &EventLoop) {
    let other = Pool::new(event_loop, false);
    other.watch(event_loop, false);
    other.hang_up();
    assert_eq!(other.hears(), Notice::HungUp);
}

#[test]
fn orders_are_connected_in_their_thread_and_an_order_can_be_called_off() {
    let (event_loop, _worker) = start();
    let mut orders = Orders::new();
    let (_listener, address) = listener();
    let (_full, hole) = silent();
    let (hangs, connects) = (orders.make(to(&[hole])), orders.make(to(&[address])));
    let keys = (hangs.key, connects.key);
    event_loop.send(Command::Connect(hangs));
    assert!(matches!(orders.next_of(keys.0), News::Begun));
    event_loop.send(Command::Connect(connects));
    assert!(matches!(orders.next_of(keys.1), News::Begun));
    orders.connected(keys.1);
    event_loop.send(Command::Cancel(keys.0));
    assert!(matches!(orders.next_of(keys.0), News::Delivered(connects::Outcome::TooLate(_))));
}

#[test]
fn a_panic_fails_what_is_under_way_and_says_so_and_later_orders_connect() {
    listen_to_errors();
    let (event_loop, _worker) = start();
    let mut orders = Orders::new();
    let (_full, hole) = silent();
    let (_listener, address) = listener();
    for _ in 0..3 {
        let hangs = orders.make(to(&[hole]));
        let key = hangs.key;
        event_loop.send(Command::Connect(hangs));
        assert!(matches!(orders.next_of(key), News::Begun));
        event_loop.send(Command::Panic);
        assert!(matches!(orders.next_of(key), News::Dropped));
        let connects = orders.make(to(&[address]));
        let key = connects.key;
        event_loop.send(Command::Connect(connects));
        assert!(matches!(orders.next_of(key), News::Begun));
        orders.connected(key);
    }
    let says_so = |said: &&String| said.starts_with("the event loop panicked");
    assert!(LOGGED.lock().iter().filter(says_so).count() >= 3);
}

#[test]
fn after_a_panic_connections_are_watched_as_before() {
    let (event_loop, _worker) = start();
    let pool = Pool::new(&event_loop, false);
    pool.watch(&event_loop, false);
    event_loop.send(Command::Panic);
    fence(&event_loop);
    pool.hang_up();
    assert_eq!(pool.hears(), Notice::HungUp);
}

#[test]
fn a_pool_that_panics_costs_no_other_its_news_and_no_order_its_turn() {
    let (event_loop, _worker) = start();
    let mut orders = Orders::new();
    let pools: Vec<Pool> = (0..6).map(|at| Pool::new(&event_loop, at % 2 == 0)).collect();
    pools.iter().for_each(|pool| pool.watch(&event_loop, false));
    // While the loop is busy, all of them die, and an order comes in: the next turn finds it all.
    let (gate, gated) = bounded(0);
    let busy = orders.make_gated(&gated);
    let key = busy.key;
    event_loop.send(Command::Connect(busy));
    assert!(matches!(orders.next_of(key), News::Begun));
    pools.iter().for_each(Pool::hang_up);
    let (_listener, address) = listener();
    let order = orders.make(to(&[address]));
    let next = order.key;
    event_loop.send(Command::Connect(order));
    drop(gate);
    assert!(matches!(orders.next_of(key), News::Dropped));
    for pool in &pools {
        assert_eq!(pool.hears(), Notice::HungUp);
    }
    assert!(matches!(orders.next_of(next), News::Begun));
    orders.connected(next);
}

#[test]
fn each_pool_hears_of_its_own_connection_once() {
    for portably in [false, true] {
        let (event_loop, _worker) = start();
        let pools: Vec<Pool> = (0..10).map(|_| Pool::new(&event_loop, false)).collect();
        pools.iter().for_each(|pool| pool.watch(&event_loop, portably));
        pools[3].hang_up();
        assert_eq!(pools[3].hears(), Notice::HungUp);
        fence(&event_loop);
        assert!(pools.iter().all(|pool| pool.heard.is_empty()), "portably: {portably}");
    }
}

#[test]
#[cfg(any(target_os = "linux", target_os = "android"))]
fn traffic_is_no_news_where_the_system_tells_of_the_farewell_alone() {
    let (event_loop, _worker) = start();
    let pool = Pool::new(&event_loop, false);
    pool.watch(&event_loop, false);
    for _ in 0..20 {
        (&pool.peer).write_all(b"answer").unwrap();
        fence(&event_loop);
    }
    assert!(pool.heard.is_empty());
    pool.hang_up(); // behind bytes that nobody has read
    assert_eq!(pool.hears(), Notice::HungUp);
}

#[test]
fn the_portable_way_tells_bytes_from_a_farewell() {
    let (event_loop, _worker) = start();
    let (speaks, leaves, both) = (
        Pool::new(&event_loop, false),
        Pool::new(&event_loop, false),
        Pool::new(&event_loop, false),
    );
    (&speaks.peer).write_all(b"stray").unwrap();
    leaves.peer.shutdown(std::net::Shutdown::Write).unwrap();
    (&both.peer).write_all(b"stray").unwrap();
    both.hang_up();
    // What had happened before is told as well.
    let how = How { portably: true, since: Since::Lent };
    [&speaks, &leaves, &both].iter().for_each(|pool| pool.watch_as(&event_loop, how));
    assert_eq!(speaks.hears(), Notice::Stray);
    assert_eq!((leaves.hears(), both.hears()), (Notice::HungUp, Notice::HungUp));
}

#[test]
fn bytes_under_the_first_watch_are_a_greeting_and_not_told() {
    let (event_loop, _worker) = start();
    let pool = Pool::new(&event_loop, false);
    (&pool.peer).write_all(b"welcome").unwrap();
    pool.watch(&event_loop, true);
    fence(&event_loop);
    assert!(pool.heard.is_empty());
    pool.hang_up();
    assert_eq!(pool.hears(), Notice::HungUp, "its farewell is");
}

#[test]
fn a_farewell_before_the_watch_began_is_told_when_it_begins() {
    let (event_loop, _worker) = start();
    let pool = Pool::new(&event_loop, false);
    pool.hang_up();
    pool.watch(&event_loop, false);
    assert_eq!(pool.hears(), Notice::HungUp);
}

#[test]
fn after_the_watch_has_ended_nothing_is_told_though_a_duplicate_of_the_socket_is_open() {
    for portably in [false, true] {
        let (event_loop, _worker) = start();
        let pool = Pool::new(&event_loop, false);
        pool.watch(&event_loop, portably);
        let _duplicate = pool.own.try_clone().unwrap();
        event_loop.watches.unwatch((1, pool.token), Watch::Socket(pool.own.as_fd()));
        (&pool.peer).write_all(b"answer").unwrap();
        pool.hang_up();
        fence(&event_loop);
        assert!(pool.heard.is_empty(), "portably: {portably}");
        // And it can begin again.
        pool.watch(&event_loop, portably);
        assert_eq!(pool.hears(), Notice::HungUp);
    }
}

#[test]
fn a_pool_that_is_gone_hears_nothing_and_harms_nobody() {
    let (event_loop, _worker) = start();
    let (dismissed, dropped) = (Pool::new(&event_loop, true), Pool::new(&event_loop, true));
    [&dismissed, &dropped].iter().for_each(|pool| pool.watch(&event_loop, false));
    event_loop.watches.dismiss(dismissed.tag);
    let Pool { own, peer, heard, _ward: ward, .. } = dropped;
    drop(ward);
    peer.shutdown(std::net::Shutdown::Both).unwrap();
    dismissed.hang_up();
    fence(&event_loop);
    assert!(heard.is_empty() && dismissed.heard.is_empty());
    drop(own);
}

#[test]
fn when_it_stops_orders_under_way_fail_and_later_ones_at_once() {
    let (event_loop, worker) = start();
    let mut orders = Orders::new();
    let (_full, hole) = silent();
    let hangs = orders.make(to(&[hole]));
    let key = hangs.key;
    event_loop.send(Command::Connect(hangs));
    assert!(matches!(orders.next_of(key), News::Begun));
    drop(worker);
    assert!(matches!(orders.news.try_recv(), Ok((of, News::Dropped)) if of == key));
    let late = orders.make(to(&[hole]));
    let key = late.key;
    event_loop.send(Command::Connect(late));
    assert!(matches!(orders.news.try_recv(), Ok((of, News::Dropped)) if of == key));
    event_loop.send(Command::Cancel(key));
    assert!(orders.news.is_empty());
}
