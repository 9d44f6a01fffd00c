//! What one user leaves behind, and the next must not find.

use interop::mysql::Conn;
use interop::servers::{self, PASSWORD};
use interop::support::watchdog;
use interop::trials;
use mysql::prelude::Queryable;
use mysql::{ChangeUserOpts, LocalInfileHandler, TxOpts};

use crate::{ask, count, endpoint, endpoint_with, options};

const CREATE: &str = "CREATE TABLE orders (id INT)";
const INSERT: &str = "INSERT INTO orders VALUES (1)";

#[test]
fn a_transaction_abandoned_by_a_panicking_thread_is_seen_by_nobody() {
    let _watchdog = watchdog();
    let Some(server) = servers::mariadb(&[]) else { return };
    let endpoint = endpoint(&server, |it| it.max_per_endpoint(1));
    endpoint.get().unwrap().query_drop(CREATE).unwrap();
    let first = endpoint.get().unwrap().connection_id();
    trials::a_panic_ends_its_connection(&endpoint, |conn| {
        conn.query_drop("BEGIN").unwrap();
        conn.query_drop(INSERT).unwrap();
    });
    assert_ne!(endpoint.get().unwrap().connection_id(), first);
    assert_eq!(count(&endpoint, "orders"), 0);
    // The table is free, too, once the server has noticed: this waits for it.
    endpoint.get().unwrap().query_drop("LOCK TABLES orders WRITE").unwrap();
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
fn plain_queries_cost_no_round_trip_at_checkin_and_transactions_one_that_nobody_waits_for() {
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
        let one: Vec<i64> = conn.query("SELECT 1 UNION SELECT 2").unwrap();
        assert_eq!(one, [1, 2]);
    }
    assert_eq!(endpoint.stats().checks(), before);
    let mut conn = endpoint.get().unwrap();
    let mut transaction = conn.start_transaction(TxOpts::default()).unwrap();
    transaction.query_drop(INSERT).unwrap();
    drop(transaction);
    drop(conn);
    assert_eq!(count(&endpoint, "orders"), 0, "rolled back when it was dropped");
    assert_eq!(endpoint.stats().checks(), before + 1);
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
    assert_eq!(endpoint.stats().opened(), 1, "it is the same connection");
}

/// Where it is, and as whom.
fn whereabouts(conn: &mut Conn) -> (Option<String>, String) {
    conn.query_first("SELECT DATABASE(), SUBSTRING_INDEX(USER(), '@', 1)").unwrap().unwrap()
}

#[test]
fn the_database_and_the_user_that_one_has_changed_to_are_not_the_nexts() {
    let _watchdog = watchdog();
    let Some(server) = servers::mariadb(&[]) else { return };
    let asked = || options(&server).user(Some("asked")).pass(Some(PASSWORD));
    // Without a database, and as one who needs a password.
    for options in [options(&server).db_name(None::<String>), options(&server), asked()] {
        let options = options.init(vec!["SET @ours = 7"]);
        let endpoint = endpoint_with(options, |it| it.max_per_endpoint(1));
        let first = whereabouts(&mut endpoint.get().unwrap());
        for way in 0..4 {
            let mut conn = endpoint.get().unwrap();
            match way {
                0 => conn.query_drop("USE information_schema").unwrap(),
                1 => conn.select_db("information_schema").unwrap(),
                2 => {
                    let other = ChangeUserOpts::new().with_user(Some("root".to_owned()));
                    let nowhere = other.with_pass(None).with_db_name(Some("mysql".to_owned()));
                    conn.change_user(nowhere).unwrap();
                }
                _ => {
                    let mut transaction = conn.start_transaction(TxOpts::default()).unwrap();
                    transaction.query_drop("USE information_schema").unwrap();
                    transaction.commit().unwrap();
                }
            }
            assert_ne!(whereabouts(&mut conn), first);
            drop(conn);
            let mut conn = endpoint.get().unwrap();
            assert_eq!(whereabouts(&mut conn), first, "{way}");
            let ours: Option<i64> = conn.query_first("SELECT @ours").unwrap();
            assert_eq!(ours, Some(7), "what each connection begins with");
        }
        assert_eq!(endpoint.stats().opened(), 1);
    }
}

#[test]
fn what_is_done_within_a_transaction_that_is_committed_is_not_the_nexts() {
    let _watchdog = watchdog();
    let Some(server) = servers::mariadb(&[]) else { return };
    let endpoint = endpoint(&server, |it| it.max_per_endpoint(1));
    endpoint.get().unwrap().query_drop(CREATE).unwrap();
    let mut conn = endpoint.get().unwrap();
    let mut transaction = conn.start_transaction(TxOpts::default()).unwrap();
    transaction.query_drop("SET autocommit = 0, @mine = 7").unwrap();
    transaction.commit().unwrap();
    drop(conn);
    let mut conn = endpoint.get().unwrap();
    let mine: Option<Option<i64>> = conn.query_first("SELECT @mine").unwrap();
    assert_eq!(mine, Some(None));
    conn.query_drop(INSERT).unwrap();
    drop(conn);
    endpoint.get().unwrap().query_drop("SET @other = 1").unwrap(); // tidied, and rolled back
    assert_eq!(count(&endpoint, "orders"), 1, "what it did not begin was not rolled back");
    assert_eq!(endpoint.stats().opened(), 1);
}

#[test]
fn files_are_not_handed_to_the_next_user_by_the_last_ones_handler() {
    let _watchdog = watchdog();
    let Some(server) = servers::mariadb(&["--local-infile=1"]) else { return };
    let gives = |text: &'static [u8]| {
        LocalInfileHandler::new(move |_, file| std::io::Write::write_all(file, text))
    };
    let options = options(&server).local_infile_handler(Some(gives(b"1\n")));
    let endpoint = endpoint_with(options, |it| it.max_per_endpoint(1));
    endpoint.get().unwrap().query_drop(CREATE).unwrap();
    let load = "LOAD DATA LOCAL INFILE 'numbers' INTO TABLE orders";
    let mut conn = endpoint.get().unwrap();
    conn.set_local_infile_handler(Some(gives(b"2\n")));
    conn.query_drop(load).unwrap();
    drop(conn);
    endpoint.get().unwrap().query_drop(load).unwrap();
    let loaded: Vec<i64> = endpoint.get().unwrap().query("SELECT id FROM orders").unwrap();
    assert_eq!(loaded, [2, 1]);
    assert_eq!(endpoint.stats().opened(), 1);
}
