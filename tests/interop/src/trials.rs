//! What the connections of every server are put through, whatever its client.

mod refusals;

pub use self::refusals::{
    Attempts, assert_refused, is_quoted_when_full, is_said_to_be_down, is_told_what_is_missing,
    keeps_deadlines, leaves_clients_behind, pauses_between_attempts, refuses_a_password,
};

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use warmline::{BoxError, CloseReason, Connector, Driver, Endpoint, PooledConn, Stats};

use crate::servers::Server;
use crate::support::{SOON, assert_at_rest, assert_balanced, await_loop, eventually, under_load};

/// One small exchange, whose answer must be nobody else's.
pub trait Ask<C: Connector>: Fn(&mut PooledConn<C>, i64) -> Result<(), BoxError> + Sync {}

impl<C: Connector, F> Ask<C> for F where
    F: Fn(&mut PooledConn<C>, i64) -> Result<(), BoxError> + Sync
{
}

/// A server is killed and comes back while threads are at work: errors while it is down, and none
/// before and after. The endpoint's pool is to be served by the driver, and to fail fast.
///
/// # Panics
///
/// If it is not so.
pub fn outlasts_kills<C: Connector>(
    server: &mut Server,
    driver: &Driver,
    endpoint: &Endpoint<C>,
    ask: impl Ask<C>,
) {
    // Odd while the server is down.
    let (era, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let exchange = |number: usize| {
        let before = era.load(Ordering::SeqCst);
        let conn = endpoint.get().map_err(BoxError::from);
        let asked = conn.and_then(|mut conn| ask(&mut conn, number as i64));
        let Err(error) = asked else { return };
        let after = era.load(Ordering::SeqCst);
        assert!(before % 2 == 1 || before != after, "the server was up: {error}");
        failed.fetch_add(1, Ordering::SeqCst);
        // It would be refused again at once, again and again.
        thread::sleep(Duration::from_millis(1));
    };
    under_load(exchange, |load| {
        for _ in 0..3 {
            load.await_more(200);
            era.fetch_add(1, Ordering::SeqCst);
            server.kill();
            let before = failed.load(Ordering::SeqCst);
            eventually("checkouts fail", || failed.load(Ordering::SeqCst) >= before + 20);
            server.start_again();
            eventually("the pool finds it", || {
                endpoint.get().is_ok_and(|mut conn| ask(&mut conn, 0).is_ok())
            });
            // And it has heard of all that died, and nobody has one of those any more.
            await_loop(driver);
            load.await_begun();
            await_loop(driver);
            era.fetch_add(1, Ordering::SeqCst);
        }
        load.await_more(200);
    });
    let stats = endpoint.stats();
    assert!(stats.closed() > 0, "{stats}");
    assert_at_rest(&stats);
}

/// The same where callers are patient, with four connections: the pool has no error for them. What
/// was in the middle of an exchange is cut off, and at most one more for each connection, whose
/// death was not noticed in time.
///
/// # Panics
///
/// If it is not so.
pub fn patient_callers_outlast_restarts<C: Connector>(
    server: &mut Server,
    endpoint: &Endpoint<C>,
    ask: impl Ask<C>,
) {
    let exchange = |number: usize| {
        let mut conn = endpoint.get().expect("a patient caller waits the outage out");
        ask(&mut conn, number as i64)
    };
    exchanges_outlast_restarts(server, || endpoint.stats(), exchange);
}

/// The same for any pool, whose callers have no error from it in an exchange. Returns how many were
/// cut off.
///
/// # Panics
///
/// If it is not so.
pub fn exchanges_outlast_restarts(
    server: &mut Server,
    stats: impl Fn() -> Stats,
    exchange: impl Fn(usize) -> Result<(), BoxError> + Sync,
) -> usize {
    const RESTARTS: usize = 3;
    let cut_off = AtomicUsize::new(0);
    let counted = |number: usize| {
        if exchange(number).is_err() {
            cut_off.fetch_add(1, Ordering::SeqCst);
        }
    };
    under_load(counted, |load| {
        for _ in 0..RESTARTS {
            load.await_more(200);
            let before = stats().connects_failed();
            server.kill();
            eventually("it is probed", || stats().connects_failed() > before);
            server.start_again();
        }
        load.await_more(200);
        load.await_begun();
        let before = cut_off.load(Ordering::SeqCst);
        load.await_more(200);
        assert_eq!(cut_off.load(Ordering::SeqCst), before, "what is dead was used up");
    });
    let (stats, cut_off) = (stats(), cut_off.into_inner());
    assert!(cut_off <= RESTARTS * 2 * 4, "{cut_off} exchanges failed: {stats}");
    assert_at_rest(&stats);
    cut_off
}

/// The same where only what was in flight may fail: whatever died is noticed before the next has it.
/// The endpoint's pool is to be served by the driver.
///
/// # Panics
///
/// If it is not so.
pub fn only_what_was_in_flight_fails<C: Connector>(
    server: &mut Server,
    driver: &Driver,
    endpoint: &Endpoint<C>,
    ask: impl Ask<C>,
) {
    const KILLS: usize = 3;
    // Odd from when the server is killed until the pool has heard of all that died.
    let (era, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let exchange = |number: usize| {
        let before = era.load(Ordering::SeqCst);
        let mut conn = endpoint.get().expect("a patient caller waits the outage out");
        let Err(error) = ask(&mut conn, number as i64) else { return };
        let after = era.load(Ordering::SeqCst);
        assert!(before % 2 == 1 || before != after, "the server was up: {error}");
        failed.fetch_add(1, Ordering::SeqCst);
    };
    under_load(exchange, |load| {
        for _ in 0..KILLS {
            load.await_more(200);
            era.fetch_add(1, Ordering::SeqCst);
            server.kill();
            eventually("all of them wait", || endpoint.stats().waiting() == 8);
            server.start_again();
            load.await_begun();
            await_loop(driver);
            era.fetch_add(1, Ordering::SeqCst);
        }
        load.await_more(200);
    });
    let failed = failed.load(Ordering::SeqCst);
    assert!(failed <= KILLS * 4, "one for each connection and outage at the most: {failed}");
    assert_at_rest(&endpoint.stats());
}

/// A thread panics with the only connection, after this exchange: that connection ends, so that
/// nobody finds what was left on it, and its room is free.
///
/// # Panics
///
/// If it is not so.
pub fn a_panic_ends_its_connection<C: Connector>(
    endpoint: &Endpoint<C>,
    exchange: impl FnOnce(&mut PooledConn<C>) + Send,
) {
    let panics = || {
        let mut conn = endpoint.get_timeout(SOON).expect("it is up");
        exchange(&mut conn);
        panic!("as this trial wants it");
    };
    let panicked = thread::scope(|scope| scope.spawn(panics).join().map(drop).is_err());
    assert!(panicked);
    let conn = endpoint.get_timeout(SOON).expect("there is room");
    assert!(!PooledConn::is_reused(&conn));
    drop(conn);
    let stats = endpoint.stats();
    assert_eq!((stats.closed_for(CloseReason::Panicked), stats.closed()), (1, 1), "{stats}");
    assert_balanced(&stats);
}

/// The server closes what is idle for so long: that is learned, and from then on the pool is first.
/// No user meets an error.
///
/// # Panics
///
/// If it is not so.
pub fn learns_idle_limit<C: Connector>(endpoint: &Endpoint<C>, limit: Duration, ask: impl Ask<C>) {
    assert_eq!(endpoint.stats().idle_limit(), None);
    // Leaves six connections idle, one after the other, and waits until all have ended.
    let idle_in_turn = || {
        let held: Vec<_> = (0..6).map(|_| endpoint.get().expect("it is up")).collect();
        for mut conn in held {
            ask(&mut conn, 1).expect("nobody is given what has ended"); // its server counts from here
            drop(conn);
            // More than what would be a restart of the server, if half of them ended within it.
            thread::sleep(limit / 8);
        }
        eventually("all have ended", || endpoint.stats().idle() == 0);
    };
    // On a machine that is busy with other things it hears of some too late, and waits for better.
    let learned = loop {
        idle_in_turn();
        match endpoint.stats().idle_limit() {
            Some(learned) if learned < limit => break learned,
            _ => {}
        }
    };
    assert!(learned >= limit / 2, "{learned:?}");
    let by_us = || endpoint.stats().closed_for(CloseReason::IdleTimeout);
    let before = by_us();
    while by_us() == before {
        idle_in_turn();
    }
    assert_balanced(&endpoint.stats());
}
