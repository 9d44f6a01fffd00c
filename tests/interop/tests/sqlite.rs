//! SQLite through the pool: one file, many readers, one writer.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::Duration;

use interop::sqlite::{Access, Sqlite};
use interop::support::{SOON, assert_at_rest, assert_empty, watchdog};
use rusqlite::Connection;
use warmline::{CloseReason, ErrorKind, Failure, Phase, Pool, PooledConn};

/// A database with one table, gone with the folder.
fn database() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data.sqlite");
    let conn = Connection::open(&path).unwrap();
    conn.execute_batch("CREATE TABLE note (thread, number)").unwrap();
    (folder, path)
}

fn count(pool: &Pool<Sqlite>) -> i64 {
    let conn = pool.get_timeout(&Access::Read, SOON).unwrap();
    conn.query_row("SELECT count(*) FROM note", [], |row| row.get(0)).unwrap()
}

fn insert(conn: &Connection, thread: i64, number: i64) -> rusqlite::Result<usize> {
    conn.execute("INSERT INTO note VALUES (?1, ?2)", (thread, number))
}

#[test]
fn many_threads_write_through_one_connection_and_none_is_told_that_the_database_is_locked() {
    let _watchdog = watchdog();
    let (_folder, path) = database();
    // Not a moment's patience: whoever met a lock would fail.
    let pool = Sqlite::new(&path).busy_timeout(Duration::ZERO).pool().unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let pool = &pool;
            scope.spawn(move || {
                for number in 0..25 {
                    let mut conn = pool.get_timeout(&Access::Write, SOON).unwrap();
                    let transaction = conn.transaction().unwrap();
                    insert(&transaction, thread, number).unwrap();
                    transaction.commit().unwrap();
                    drop(conn);
                    assert!(count(pool) > 0);
                }
            });
        }
    });
    assert_eq!(count(&pool), 200);
    let writer = pool.endpoint(&Access::Write).unwrap().stats();
    assert_eq!((writer.opened(), writer.most_in_use()), (1, 1), "{writer}");
    assert_eq!(pool.stats().closed(), 0);
    assert_at_rest(&pool.stats());
}

#[test]
fn what_a_guard_leaves_in_a_transaction_is_rolled_back_and_the_connection_used_again() {
    let _watchdog = watchdog();
    let (_folder, path) = database();
    let pool = Sqlite::new(&path).pool().unwrap();
    let conn = pool.get(&Access::Write).unwrap();
    conn.execute_batch("BEGIN IMMEDIATE").unwrap();
    insert(&conn, 0, 0).unwrap();
    drop(conn);
    let conn = pool.get_timeout(&Access::Write, SOON).unwrap();
    assert!(PooledConn::is_reused(&conn) && conn.is_autocommit());
    insert(&conn, 0, 1).unwrap();
    drop(conn);
    assert_eq!(count(&pool), 1, "only what came after");
    assert_eq!(pool.stats().closed(), 0);
}

#[test]
fn a_panic_in_a_transaction_closes_the_connection_and_others_write_on() {
    let _watchdog = watchdog();
    let (_folder, path) = database();
    let pool = Sqlite::new(&path).pool().unwrap();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let conn = pool.get(&Access::Write).unwrap();
        conn.execute_batch("BEGIN IMMEDIATE").unwrap();
        insert(&conn, 0, 0).unwrap();
        panic!("a user's mistake");
    }));
    panicked.unwrap_err();
    insert(&pool.get_timeout(&Access::Write, SOON).unwrap(), 0, 1).unwrap();
    assert_eq!(count(&pool), 1, "the transaction is not there");
    assert_eq!(pool.stats().closed_for(CloseReason::Panicked), 1);
    assert_at_rest(&pool.stats());
}

#[test]
fn what_a_user_sets_about_writing_and_waiting_does_not_hold_for_the_next() {
    let _watchdog = watchdog();
    let (_folder, path) = database();
    let pool = Sqlite::new(&path).busy_timeout(Duration::from_millis(20)).pool().unwrap();
    for (access, query_only) in [(Access::Read, 1), (Access::Write, 0)] {
        // Some leave a transaction as well.
        for begin in ["", "BEGIN;"] {
            let conn = pool.get_timeout(&access, SOON).unwrap();
            let other = 1 - query_only;
            let set = format!("{begin} PRAGMA query_only = {other}; PRAGMA busy_timeout = 60000");
            conn.execute_batch(&set).unwrap();
            drop(conn);
            let conn = pool.get_timeout(&access, SOON).unwrap();
            assert!(PooledConn::is_reused(&conn));
            let found = |pragma| conn.pragma_query_value::<i64, _>(None, pragma, |row| row.get(0));
            assert_eq!((found("query_only"), found("busy_timeout")), (Ok(query_only), Ok(20)));
        }
    }
    assert_eq!(pool.stats().closed(), 0);
}

#[test]
fn a_connection_to_read_refuses_to_write() {
    let _watchdog = watchdog();
    let (_folder, path) = database();
    let pool = Sqlite::new(&path).pool().unwrap();
    let refused = insert(&pool.get(&Access::Read).unwrap(), 0, 0).unwrap_err();
    assert!(refused.to_string().contains("readonly"), "{refused}");
    assert_eq!(count(&pool), 0);
}

#[test]
fn a_lock_that_another_process_holds_is_waited_for_no_longer_than_was_said() {
    let _watchdog = watchdog();
    let (_folder, path) = database();
    let pool = Sqlite::new(&path).busy_timeout(Duration::from_millis(20)).pool().unwrap();
    insert(&pool.get(&Access::Write).unwrap(), 0, 0).unwrap();
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let refused = insert(&pool.get(&Access::Write).unwrap(), 0, 1).unwrap_err();
    assert_eq!(refused.to_string(), "database is locked");
    other.execute_batch("COMMIT").unwrap();
    insert(&pool.get(&Access::Write).unwrap(), 0, 2).unwrap();
    assert_eq!(pool.stats().closed(), 0, "it was not the connection's fault");
}

#[test]
fn a_file_that_cannot_be_opened_or_is_no_database_is_named_in_the_error() {
    let _watchdog = watchdog();
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("no such folder/data.sqlite");
    let text = folder.path().join("letter.txt");
    std::fs::write(&text, "Dear Sir or Madam, ".repeat(100)).unwrap();
    for (path, reason) in [(missing, "unable to open database file"), (text, "not a database")] {
        let pool = Sqlite::new(path).pool().unwrap();
        let error = pool.get_timeout(&Access::Write, SOON).unwrap_err();
        assert_eq!((error.kind(), error.phase()), (ErrorKind::Connect, Some(Phase::Open)));
        assert_eq!(error.failure(), Some(Failure::Other));
        assert!(error.to_string().contains(reason), "{error}");
        assert_empty(&pool.stats());
    }
}
