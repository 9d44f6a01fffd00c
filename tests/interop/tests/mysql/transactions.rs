//! What one user leaves behind, and the next must not find.

use interop::servers;
use interop::support::{assert_balanced, watchdog};
use mysql::TxOpts;
use mysql::prelude::Queryable;
use warmline::CloseReason;

use crate::{ask, count, endpoint};

const CREATE: &str = "CREATE TABLE orders (id INT)";
const INSERT: &str = "INSERT INTO orders VALUES (1)";

#[test]
fn a_transaction_abandoned_by_a_panicking_thread_is_seen_by_nobody() {
    let _watchdog = watchdog();
    let Some(server) = servers::mariadb(&[]) else { return };
    let endpoint = endpoint(&server, |it| it.max_per_endpoint(1));
    endpoint.get().unwrap().query_drop(CREATE).unwrap();
    let first = endpoint.get().unwrap().connection_id();
    let panicking = std::thread::scope(|scope| {
        let panics = || {
            let mut conn = endpoint.get().unwrap();
            conn.query_drop("BEGIN").unwrap();
            conn.query_drop(INSERT).unwrap();
            panic!("as this test wants it");
        };
        scope.spawn(panics).join()
    });
    panicking.unwrap_err();
    // The only permit is free again.
    assert_ne!(endpoint.get().unwrap().connection_id(), first);
    assert_eq!(count(&endpoint, "orders"), 0);
    // And so is the table, once the server has noticed: this waits for it.
    endpoint.get().unwrap().query_drop("LOCK TABLES orders WRITE").unwrap();
    let stats = endpoint.stats();
    assert_eq!((stats.closed_for(CloseReason::Panicked), stats.closed()), (1, 1), "{stats}");
    assert_balanced(&stats);
}

#[test]
fn a_transaction_left_open_is_rolled_back_and_the_connection_used_on() {
    let _watchdog = watchdog();
    let Some(server) = servers::mariadb(&[]) else { return };
    let endpoint = endpoint(&server, |it| it.max_per_endpoint(1));
    endpoint.get().unwrap().query_drop(CREATE).unwrap();
    let first = endpoint.get().unwrap().connection_id();
    for begin in ["BEGIN", "start transaction", "SET autocommit = 0", " /* now */ BEGIN"] {
        // As text, prepared, and together with a plain statement.
        for run in 0..3 {
            let mut conn = endpoint.get().unwrap();
            match run {
                0 => conn.query_drop(begin).unwrap(),
                1 => conn.exec_drop(begin, ()).unwrap(),
                _ => conn.query_drop(format!("SELECT 1; {begin}")).unwrap(),
            }
            conn.query_drop(INSERT).unwrap();
            drop(conn);
            assert_eq!(count(&endpoint, "orders"), 0, "{begin}, {run}");
        }
    }
    assert_eq!(endpoint.get().unwrap().connection_id(), first);
    let stats = endpoint.stats();
    assert_eq!((stats.opened(), stats.closed()), (1, 0), "{stats}");
}

#[test]
fn plain_queries_and_transactions_of_the_clients_own_cost_no_round_trip_at_checkin() {
    let _watchdog = watchdog();
    let Some(server) = servers::mariadb(&[]) else { return };
    let endpoint = endpoint(&server, |it| it.max_per_endpoint(1));
    endpoint.get().unwrap().query_drop(CREATE).unwrap();
    drop(endpoint.get().unwrap());
    let before = endpoint.stats().checks();
    assert_eq!(before, 1, "what is no plain query may be anything");
    for number in 0..20 {
        ask(&mut endpoint.get().unwrap(), number).unwrap();
        let mut conn = endpoint.get().unwrap();
        conn.exec_drop("DELETE FROM orders WHERE id = ?", (7,)).unwrap();
        conn.query_drop("update orders set id = 1;").unwrap();
        let mut transaction = conn.start_transaction(TxOpts::default()).unwrap();
        transaction.query_drop(INSERT).unwrap();
    }
    assert_eq!(count(&endpoint, "orders"), 0, "rolled back when they were dropped");
    assert_eq!(endpoint.stats().checks(), before);
}

#[test]
fn settings_locks_and_tables_of_one_user_are_not_the_nexts() {
    let _watchdog = watchdog();
    let Some(server) = servers::mariadb(&[]) else { return };
    let endpoint = endpoint(&server, |it| it.max_per_endpoint(1));
    let mut conn = endpoint.get().unwrap();
    conn.query_drop("SET @mine = 7, sql_mode = 'ANSI'").unwrap();
    conn.query_drop("CREATE TEMPORARY TABLE mine (id INT)").unwrap();
    conn.query_drop("SELECT GET_LOCK('mine', 0)").unwrap();
    drop(conn);
    let mut conn = endpoint.get().unwrap();
    let mine: Option<Option<i64>> = conn.query_first("SELECT @mine").unwrap();
    assert_eq!(mine, Some(None));
    let free: Option<i64> = conn.query_first("SELECT IS_FREE_LOCK('mine')").unwrap();
    assert_eq!(free, Some(1));
    let mode: Option<String> = conn.query_first("SELECT @@sql_mode").unwrap();
    assert!(!mode.unwrap().contains("ANSI"));
    conn.query_drop("SELECT * FROM mine").unwrap_err();
}
