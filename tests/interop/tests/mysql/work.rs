//! Many threads at work, while the server is there, and while it is not.

use interop::support::{SOON, assert_at_rest, eventually, watchdog};
use interop::{servers, trials};
use mysql::TxOpts;
use mysql::prelude::Queryable;
use warmline::{CloseReason, Driver};

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
    trials::outlasts_kills(&mut server, &driver, &endpoint, |conn, number| Ok(ask(conn, number)?));
}

#[test]
fn patient_callers_wait_for_a_server_that_restarts_and_get_no_error_from_the_pool() {
    let _watchdog = watchdog();
    let Some(mut server) = servers::mariadb(&[]) else { return };
    let endpoint = endpoint(&server, |it| it.max_per_endpoint(4).fail_fast(false));
    trials::patient_callers_outlast_restarts(&mut server, &endpoint, |conn, number| {
        Ok(ask(conn, number)?)
    });
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
