//! What befalls a pool when connections die, and when it ends itself.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use warmline::{
    BoxError, CloseReason, Connector, Deadline, Endpoint, ErrorKind, Opening, Pool, PooledConn,
    Repeat, TcpConnector,
};

use crate::support::server::Server;
use crate::support::{Diary, SOON, ask, assert_balanced, assert_empty, eventually, tcp, watchdog};

const LONG: Duration = Duration::from_secs(3600);

#[test]
fn when_all_idle_connections_die_at_once_nobody_who_asks_then_notices() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let pool = tcp().build().unwrap();
    let endpoint = pool.endpoint(&server.name()).unwrap();
    assert_eq!(endpoint.warm(10, SOON).unwrap(), 10);
    server.assert_accepted(10);
    server.hang_up();
    eventually("the pool knows", || endpoint.stats().idle() == 0);
    for _ in 0..10 {
        ask(&mut endpoint.get().unwrap()).unwrap();
    }
    assert_eq!(server.accepted(), 11, "one for who came one after the other");
    assert_eq!(endpoint.stats().closed_for(CloseReason::PeerClosed), 10);
}

#[test]
fn under_load_the_death_of_all_idle_connections_fails_nothing_that_may_be_repeated() {
    const DEATHS: usize = 15;
    let _watchdog = watchdog();
    let server = Server::echo();
    let pool = tcp().max_per_endpoint(10).checkout_timeout(SOON).build().unwrap();
    let endpoint = pool.endpoint(&server.name()).unwrap();
    let (is_over, done) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while !is_over.load(Ordering::SeqCst) {
                    endpoint.run(Repeat::Always, ask).expect("another connection serves as well");
                    done.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        for _ in 0..DEATHS {
            let before = done.load(Ordering::SeqCst);
            eventually("work goes on", || done.load(Ordering::SeqCst) > before + 20);
            server.hang_up();
        }
        is_over.store(true, Ordering::SeqCst);
    });
    // Each that died was replaced when it was needed, and no more were opened.
    assert!(server.accepted() <= 10 * (DEATHS + 1), "{}", server.accepted());
    assert_eq!((endpoint.stats().connects_failed(), endpoint.stats().timed_out()), (0, 0));
    assert_balanced(&endpoint.stats());
}

#[test]
fn a_server_that_closes_right_after_its_answer_costs_at_most_an_error_that_says_it_is_stale() {
    let _watchdog = watchdog();
    let server = Server::scripted(|peer| {
        let request = peer.take(4)?;
        io::Write::write_all(peer, &request)
    });
    let endpoint = tcp().build().unwrap().endpoint(&server.name()).unwrap();
    for pause in [0, 10, 100, 1_000, 5_000].map(Duration::from_micros) {
        for _ in 0..40 {
            let mut conn = endpoint.get().unwrap();
            if ask(&mut conn).is_err() {
                assert!(PooledConn::exchange(&mut conn).is_stale(), "after {pause:?}");
            }
            drop(conn);
            std::thread::sleep(pause);
        }
        for _ in 0..40 {
            endpoint.run(Repeat::Always, ask).expect("it may be asked again");
            std::thread::sleep(pause);
        }
    }
    for _ in 0..20 {
        eventually("its end is noticed", || endpoint.stats().idle() == 0);
        ask(&mut endpoint.get().unwrap()).expect("nobody meets it once it is");
    }
    assert_balanced(&endpoint.stats());
}

#[test]
fn who_waits_gets_another_when_one_dies_with_its_user() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let diary = Diary::default();
    let pool = tcp().max_per_endpoint(1).observer(diary.clone()).build().unwrap();
    let endpoint = pool.endpoint(&server.name()).unwrap();
    let mut held = endpoint.get().unwrap();
    ask(&mut held).unwrap();
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| ask(&mut endpoint.get_timeout(SOON)?));
        eventually("one waits", || endpoint.stats().waiting() == 1);
        server.hang_up();
        ask(&mut held).expect_err("its server has hung up");
        assert_eq!(endpoint.stats().in_use(), 1, "it is the user's until it comes back");
        drop(held);
        waits.join().unwrap().unwrap();
    });
    assert_eq!((server.accepted(), diary.reasons().len()), (2, 1));
    assert_balanced(&endpoint.stats());
}

#[test]
fn a_pool_that_is_closed_amid_users_idle_ones_and_a_queue_owes_each_its_end() {
    let _watchdog = watchdog();
    let (busy, calm) = (Server::echo(), Server::echo());
    let diary = Diary::default();
    let pool = tcp().max_per_endpoint(5).observer(diary.clone()).build().unwrap();
    let endpoint = pool.endpoint(&busy.name()).unwrap();
    let mut held: Vec<_> = (0..5).map(|_| endpoint.get().unwrap()).collect();
    assert_eq!(pool.endpoint(&calm.name()).unwrap().warm(5, SOON).unwrap(), 5);
    std::thread::scope(|scope| {
        let waiting: Vec<_> =
            (0..20).map(|_| scope.spawn(|| endpoint.get_timeout(LONG).map(drop))).collect();
        eventually("they wait", || endpoint.stats().waiting() == 20);
        pool.close();
        for caller in waiting {
            assert_eq!(caller.join().unwrap().unwrap_err().kind(), ErrorKind::Closed);
        }
    });
    assert_eq!((pool.stats().idle(), pool.stats().in_use()), (0, 5));
    eventually("idle ones are closed", || calm.open() == 0);
    held.iter_mut().for_each(|conn| ask(conn).expect("who has one may finish"));
    std::thread::scope(|scope| {
        let drain = scope.spawn(|| pool.drain(Deadline::after(SOON)));
        held.into_iter().for_each(drop);
        drain.join().unwrap().unwrap();
    });
    assert_eq!(diary.reasons(), [CloseReason::PoolClosed; 10]);
    eventually("their server sees it", || busy.open() == 0);
    assert_empty(&pool.stats());
}

#[test]
fn a_pool_may_be_closed_drained_and_dropped_by_many_threads_in_any_order() {
    let _watchdog = watchdog();
    for round in 0..30 {
        let server = Server::echo();
        let pool = Pool::tcp();
        let endpoint = pool.endpoint(&server.name()).unwrap();
        let held: Vec<_> = (0..4).map(|_| endpoint.get().unwrap()).collect();
        std::thread::scope(|scope| {
            for (number, conn) in held.into_iter().enumerate() {
                let (pool, endpoint) = (pool.clone(), endpoint.clone());
                scope.spawn(move || {
                    match (number + round) % 4 {
                        0 => pool.close(),
                        1 => drop(endpoint),
                        2 => pool.evict_all(),
                        _ => drop(pool.drain(Deadline::after(Duration::ZERO))),
                    }
                    drop(conn);
                });
            }
            scope.spawn(|| pool.close());
            drop(endpoint);
        });
        pool.drain(Deadline::after(SOON)).unwrap();
        assert_empty(&pool.stats());
        drop(pool);
        eventually("its server has none", || server.open() == 0);
    }
}

/// Connections that can keep a handle to their own pool.
#[derive(Clone, Default)]
struct Keeping {
    alive: Arc<AtomicUsize>,
}

struct Keeper {
    handle: Option<Endpoint<Keeping>>,
    alive: Arc<AtomicUsize>,
}

impl Drop for Keeper {
    fn drop(&mut self) {
        drop(self.handle.take());
        self.alive.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Connector for Keeping {
    type Key = String;
    type Conn = Keeper;

    fn open(&self, _: &String, _: &mut Opening) -> Result<Keeper, BoxError> {
        self.alive.fetch_add(1, Ordering::SeqCst);
        Ok(Keeper { handle: None, alive: Arc::clone(&self.alive) })
    }
}

#[test]
fn a_connection_that_keeps_the_last_handle_of_its_pool_ends_it_with_itself() {
    let _watchdog = watchdog();
    for is_discarded in [true, false] {
        let connector = Keeping::default();
        let alive = Arc::clone(&connector.alive);
        let pool = Pool::builder(connector).max_lifetime(Duration::from_millis(20));
        let endpoint = pool.build().unwrap().endpoint("a").unwrap();
        let other = endpoint.get().unwrap();
        let mut conn = endpoint.get().unwrap();
        conn.handle = Some(endpoint);
        if is_discarded {
            PooledConn::discard(conn);
        } else {
            drop(conn); // and its lifetime ends where it is idle
        }
        eventually("it is gone, and its pool with it", || alive.load(Ordering::SeqCst) == 1);
        drop(other);
        eventually("so is what was in use", || alive.load(Ordering::SeqCst) == 0);
    }
}

#[test]
fn a_handle_that_is_dropped_where_a_guard_is_dropped_ends_the_pool_there() {
    struct Job {
        _endpoint: Endpoint<TcpConnector>,
        _conn: PooledConn<TcpConnector>,
        _pool: Pool<TcpConnector>,
    }

    let _watchdog = watchdog();
    let server = Server::echo();
    for _ in 0..20 {
        let pool = Pool::tcp();
        let endpoint = pool.endpoint(&server.name()).unwrap();
        let conn = endpoint.get().unwrap();
        drop(endpoint.get().unwrap());
        drop(Job { _endpoint: endpoint, _conn: conn, _pool: pool });
    }
    // It may accept the last when that is closed already.
    eventually("all were there, and are closed", || server.accepted() == 40 && server.open() == 0);
}
