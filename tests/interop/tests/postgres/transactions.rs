//! What one user leaves behind, and the next must not find.

use interop::postgres::Conn;
use interop::support::{SOON, Stopped, eventually, watchdog};
use interop::{servers, trials};
use postgres::error::SqlState;
use postgres::fallible_iterator::FallibleIterator;

use crate::{ask, backend, count, endpoint};

#[test]
fn a_transaction_abandoned_by_a_panicking_thread_is_seen_by_nobody() {
    let _watchdog = watchdog();
    let Some(server) = servers::postgres(&[]) else { return };
    let endpoint = endpoint(&server, |it| it.max_per_endpoint(1));
    endpoint.get().unwrap().batch_execute("CREATE TABLE orders (id int)").unwrap();
    let first = backend(&mut endpoint.get().unwrap());
    trials::a_panic_ends_its_connection(&endpoint, |conn| {
        conn.batch_execute("BEGIN; INSERT INTO orders VALUES (1); LOCK orders").unwrap();
    });
    assert_ne!(backend(&mut endpoint.get().unwrap()), first);
    // The table is free, too, once the server has noticed.
    assert_eq!(count(&endpoint, "orders"), 0);
}

#[test]
fn a_transaction_left_open_is_rolled_back_and_the_connection_used_on() {
    let _watchdog = watchdog();
    let Some(server) = servers::postgres(&[]) else { return };
    let endpoint = endpoint(&server, |it| it.max_per_endpoint(1));
    endpoint.get().unwrap().batch_execute("CREATE TABLE orders (id int)").unwrap();
    let first = backend(&mut endpoint.get().unwrap());
    // By each way to run a statement.
    endpoint.get().unwrap().batch_execute("BEGIN; INSERT INTO orders VALUES (1)").unwrap();
    assert_eq!(count(&endpoint, "orders"), 0);
    endpoint.get().unwrap().simple_query("BEGIN; INSERT INTO orders VALUES (1)").unwrap();
    assert_eq!(count(&endpoint, "orders"), 0);
    for run in 0..5 {
        let mut conn = endpoint.get().unwrap();
        match run {
            0 => assert_eq!(conn.execute("BEGIN", &[]).unwrap(), 0),
            1 => assert!(conn.query("BEGIN", &[]).unwrap().is_empty()),
            2 => drop(conn.query_one("BEGIN", &[]).unwrap_err()),
            3 => assert!(conn.query_opt("BEGIN", &[]).unwrap().is_none()),
            _ => {
                let begin = conn.prepare("BEGIN").unwrap();
                assert_eq!(conn.execute(&begin, &[]).unwrap(), 0);
            }
        }
        assert_eq!(conn.execute("INSERT INTO orders VALUES (1)", &[]).unwrap(), 1);
        drop(conn);
        assert_eq!(count(&endpoint, "orders"), 0);
    }
    // One that the server has given up takes nothing but its end.
    let mut conn = endpoint.get().unwrap();
    let error = conn.batch_execute("BEGIN; SELECT 1/0").unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::DIVISION_BY_ZERO));
    drop(conn);
    assert_eq!(count(&endpoint, "orders"), 0);
    assert_eq!(backend(&mut endpoint.get().unwrap()), first);
    let stats = endpoint.stats();
    assert_eq!((stats.opened(), stats.closed()), (1, 0), "{stats}");
}

#[test]
fn queries_cost_no_round_trip_at_checkin_and_transactions_one_that_nobody_waits_for() {
    let _watchdog = watchdog();
    let Some(server) = servers::postgres(&[]) else { return };
    let endpoint = endpoint(&server, |it| it.max_per_endpoint(1));
    let setup = "CREATE TABLE orders (id int); INSERT INTO orders VALUES (1)";
    endpoint.get().unwrap().batch_execute(setup).unwrap();
    drop(endpoint.get().unwrap());
    let before = endpoint.stats().checks();
    assert_eq!(before, 1, "what was run as it is may be anything");
    for number in 0..20 {
        ask(&mut endpoint.get().unwrap(), number).unwrap();
        let mut conn = endpoint.get().unwrap();
        assert_eq!(conn.query("SELECT id FROM orders WHERE id = $1", &[&7]).unwrap().len(), 0);
        let one = conn.prepare("SELECT id FROM orders").unwrap();
        assert!(conn.query_opt(&one, &[]).unwrap().is_some());
        assert_eq!(conn.execute("UPDATE orders SET id = $1", &[&1]).unwrap(), 1);
    }
    assert_eq!(endpoint.stats().checks(), before);
    let mut conn = endpoint.get().unwrap();
    let mut transaction = conn.transaction().unwrap();
    transaction.execute("INSERT INTO orders VALUES (2)", &[]).unwrap();
    drop(transaction);
    drop(conn);
    assert_eq!(count(&endpoint, "orders"), 1, "rolled back when it was dropped");
    assert_eq!(endpoint.stats().checks(), before + 1);
}

#[test]
fn settings_locks_and_tables_of_one_user_are_not_the_nexts_but_prepared_statements_stay() {
    let _watchdog = watchdog();
    let Some(server) = servers::postgres(&[]) else { return };
    let endpoint = endpoint(&server, |it| it.max_per_endpoint(1));
    let mut conn = endpoint.get().unwrap();
    let prepared = conn.prepare("SELECT 40 + $1::int4").unwrap();
    conn.batch_execute(MUCH).unwrap();
    drop(conn);
    let mut conn = endpoint.get().unwrap();
    assert_nothing_is_left(&mut conn);
    assert_eq!(conn.query_one(&prepared, &[&2]).unwrap().get::<_, i32>(0), 42);
    assert_eq!(endpoint.stats().opened(), 1);
    let warnings = server.log().matches("WARNING").count();
    assert_eq!(warnings, 0, "nothing that an administrator would look into:\n{}", server.log());
}

const MUCH: &str = "SET search_path TO nowhere; SET ROLE pg_monitor; LISTEN news;
                    CREATE TEMP TABLE mine (id int); SELECT pg_advisory_lock(7)";

#[track_caller]
fn assert_nothing_is_left(conn: &mut Conn) {
    let mut show = |query: &str| -> String { conn.query_one(query, &[]).unwrap().get(0) };
    assert_eq!(show("SELECT current_setting('search_path')"), "\"$user\", public");
    assert_eq!(show("SELECT current_user::text"), "postgres");
    assert_eq!(show("SELECT count(*)::text FROM pg_listening_channels()"), "0");
    assert_eq!(show("SELECT count(*)::text FROM pg_locks WHERE locktype = 'advisory'"), "0");
    assert_eq!(show("SELECT coalesce(to_regclass('mine')::text, 'none')"), "none");
}

#[test]
fn what_is_done_within_a_transaction_that_is_committed_is_not_the_nexts() {
    let _watchdog = watchdog();
    let Some(server) = servers::postgres(&[]) else { return };
    let endpoint = endpoint(&server, |it| it.max_per_endpoint(1));
    let mut conn = endpoint.get().unwrap();
    let mut transaction = conn.transaction().unwrap();
    transaction.batch_execute(MUCH).unwrap();
    transaction.commit().unwrap();
    drop(conn);
    assert_nothing_is_left(&mut endpoint.get().unwrap());
    assert_eq!(endpoint.stats().opened(), 1);
}

#[test]
fn temporary_tables_made_of_rows_are_not_the_nexts() {
    let _watchdog = watchdog();
    let Some(server) = servers::postgres(&[]) else { return };
    let endpoint = endpoint(&server, |it| it.max_per_endpoint(1));
    for make in ["CREATE TEMP TABLE mine AS SELECT 1", "SELECT 1 AS id INTO TEMP mine"] {
        let made = endpoint.get().unwrap().execute(make, &[]).unwrap();
        assert_eq!(made, 1, "it counts rows, as what changes some does");
        assert_nothing_is_left(&mut endpoint.get().unwrap());
    }
    assert_eq!(endpoint.stats().opened(), 1);
}

#[test]
fn notifications_and_numbers_drawn_for_one_user_do_not_reach_the_next() {
    let _watchdog = watchdog();
    let Some(server) = servers::postgres(&[]) else { return };
    let endpoint = endpoint(&server, |it| it.max_per_endpoint(1));
    let mut conn = endpoint.get().unwrap();
    conn.batch_execute("CREATE SEQUENCE numbers; SELECT nextval('numbers')").unwrap();
    conn.batch_execute("LISTEN news; NOTIFY news").unwrap();
    assert_eq!(conn.notifications().len(), 1, "it has arrived");
    drop(conn);
    let mut conn = endpoint.get().unwrap();
    assert_eq!(conn.notifications().iter().count().unwrap(), 0);
    let error = conn.query_one("SELECT lastval()", &[]).unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE));
    assert_eq!(endpoint.stats().opened(), 1);
}

#[test]
fn whoever_lets_go_of_a_transaction_waits_for_nobody() {
    let _watchdog = watchdog();
    let Some(server) = servers::postgres(&[]) else { return };
    let endpoint = endpoint(&server, |it| it.max_per_endpoint(2).settle_timeout(SOON));
    let [mut held, other] = [(); 2].map(|()| endpoint.get().unwrap());
    held.batch_execute("BEGIN").unwrap();
    let first = backend(&mut held);
    let stopped = Stopped::new([first]);
    drop((other, held));
    // It is out, for as long as its server hangs; somebody else is served meanwhile, by another.
    let mut conn = endpoint.get().unwrap();
    assert_ne!(backend(&mut conn), first);
    assert_eq!(endpoint.stats().checking(), 1);
    drop((conn, stopped));
    eventually("it is back", || endpoint.stats().checking() == 0);
    assert_eq!((endpoint.stats().checks(), endpoint.stats().closed()), (1, 0));
    let mut all: Vec<_> = (0..2).map(|_| endpoint.get().unwrap()).collect();
    assert!(all.iter_mut().any(|conn| backend(conn) == first));
}
