//! Many threads at work, while the server is there, and while it is not.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use interop::servers;
use interop::support::{SOON, assert_at_rest, await_loop, eventually, under_load, watchdog};
use mysql::TxOpts;
use mysql::prelude::Queryable;
use warmline::{BoxError, CloseReason, Driver};

use crate::{ask, endpoint};

#[test]
fn many_threads_share_a_few_connections_and_get_their_own_answers() {
    let _watchdog = watchdog();
    let Some(server) = servers::mariadb(&[]) else { return };
    let endpoint = endpoint(&server, |it| it.max_per_endpoint(4));
    let create = "CREATE TABLE sums (thread BIGINT PRIMARY KEY, sum BIGINT)";
    endpoint.get().unwrap().query_drop(create).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..12 {
            let endpoint = &endpoint;
            scope.spawn(move || {
                let insert = "INSERT INTO sums VALUES (?, 0)";
                endpoint.get().unwrap().exec_drop(insert, (thread,)).unwrap();
                for number in 0..50 {
                    let mut conn = endpoint.get().unwrap();
                    ask(&mut conn, thread * 1000 + number).unwrap();
                    let mut transaction = conn.start_transaction(TxOpts::default()).unwrap();
                    let add = "UPDATE sums SET sum = sum + ? WHERE thread = ?";
                    transaction.exec_drop(add, (number, thread)).unwrap();
                    transaction.commit().unwrap();
                }
            });
        }
    });
    let sums: Vec<i64> = endpoint.get().unwrap().query("SELECT sum FROM sums").unwrap();
    assert_eq!(sums, [49 * 50 / 2; 12]);
    let stats = endpoint.stats();
    assert!(stats.opened() <= 4, "{stats}");
    assert_eq!((stats.checkouts(), stats.closed()), (1 + 12 * 51 + 1, 0));
    assert_at_rest(&stats);
}

#[test]
fn a_server_that_is_killed_fails_what_is_in_flight_and_nothing_once_it_is_back() {
    let _watchdog = watchdog();
    let Some(mut server) = servers::mariadb(&[]) else { return };
    let driver = Driver::new();
    let endpoint = endpoint(&server, |it| it.driver(&driver).max_per_endpoint(4));
    // Odd while the server is down.
    let (era, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let exchange = |number: usize| {
        let before = era.load(Ordering::SeqCst);
        let asked: Result<(), BoxError> = match endpoint.get() {
            Ok(mut conn) => ask(&mut conn, number as i64).map_err(Into::into),
            Err(error) => Err(error.into()),
        };
        let Err(error) = asked else { return };
        let after = era.load(Ordering::SeqCst);
        assert!(before % 2 == 1 || before != after, "the server was up: {error}");
        failed.fetch_add(1, Ordering::SeqCst);
        // It would be refused again at once, again and again.
        std::thread::sleep(Duration::from_millis(1));
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
            await_loop(&driver);
            load.await_begun();
            await_loop(&driver);
            era.fetch_add(1, Ordering::SeqCst);
        }
        load.await_more(200);
    });
    let stats = endpoint.stats();
    assert!(stats.closed() > 0, "{stats}");
    assert_at_rest(&stats);
}

#[test]
fn patient_callers_wait_for_a_server_that_restarts_and_get_no_error_from_the_pool() {
    let _watchdog = watchdog();
    let Some(mut server) = servers::mariadb(&[]) else { return };
    let endpoint = endpoint(&server, |it| it.max_per_endpoint(4).fail_fast(false));
    let cut_off = AtomicUsize::new(0);
    let exchange = |number: usize| {
        let mut conn = endpoint.get().unwrap();
        if ask(&mut conn, number as i64).is_err() {
            cut_off.fetch_add(1, Ordering::SeqCst);
        }
    };
    under_load(exchange, |load| {
        load.await_more(200);
        server.kill();
        eventually("it is probed", || endpoint.stats().connects_failed() > 0);
        server.start_again();
        load.await_more(200);
    });
    let stats = endpoint.stats();
    // A connection that has failed its user is not lent to another: but for one that did so in the
    // middle of an answer, perhaps, which shows at its next use.
    let cut_off = cut_off.load(Ordering::SeqCst);
    assert!(cut_off <= 2 * 4, "{cut_off} queries failed: {stats}");
    assert_at_rest(&stats);
}

#[test]
fn sessions_ended_by_an_administrator_are_gone_before_anybody_has_them() {
    let _watchdog = watchdog();
    let Some(server) = servers::mariadb(&[]) else { return };
    let endpoint = endpoint(&server, |it| it);
    assert_eq!(endpoint.warm(6, SOON).unwrap(), 6);
    let mut others: Vec<_> = (0..6).map(|_| endpoint.get().unwrap()).collect();
    let mut admin = others.pop().unwrap();
    let sessions: Vec<u32> = others.iter().map(|conn| conn.connection_id()).collect();
    drop(others);
    for session in sessions {
        admin.query_drop(format!("KILL {session}")).unwrap();
    }
    eventually("the others are gone", || endpoint.stats().total() == 1);
    assert_eq!(endpoint.stats().closed_for(CloseReason::PeerClosed), 5);
    drop(admin);
    for number in 0..20 {
        ask(&mut endpoint.get().unwrap(), number).unwrap();
    }
    assert_eq!(endpoint.stats().closed(), 5);
}

#[test]
fn a_session_that_ends_under_its_user_is_not_kept() {
    let _watchdog = watchdog();
    let Some(server) = servers::mariadb(&[]) else { return };
    let endpoint = endpoint(&server, |it| it.max_per_endpoint(1));
    let mut conn = endpoint.get().unwrap();
    let own = conn.connection_id();
    conn.query_drop(format!("KILL {own}")).unwrap_err();
    conn.query_drop("SELECT 1").unwrap_err();
    drop(conn);
    ask(&mut endpoint.get().unwrap(), 1).unwrap();
    let stats = endpoint.stats();
    assert_eq!((stats.opened(), stats.closed(), stats.idle()), (2, 1, 1), "{stats}");
}
