//! How do I pool the `postgres` crate's connections? Threads that do small transactions, what the
//! pool tells about it, and what becomes of transactions that are left open and sessions that end.
//!
//! ```text
//! cargo run -p interop --example postgres                # starts a PostgreSQL of its own
//! cargo run -p interop --example postgres 'host=127.0.0.1 user=postgres'
//! cargo run -p interop --example postgres postgres://app:password@127.0.0.1/shop
//! ```
//!
//! It makes a table "warmline_accounts", and drops it in the end.

use std::error::Error;
use std::thread;
use std::time::Duration;

use interop::postgres::Postgres;
use interop::servers::{self, Server};
use postgres::Config;
use warmline::{Deadline, Endpoint, Pool, Repeat};

type Failure = Box<dyn Error + Send + Sync>;

const THREADS: usize = 16;
const CONNECTIONS: usize = 4;
const ROUNDS: usize = 100;
const ACCOUNTS: i32 = 8;

fn main() -> Result<(), Failure> {
    env_logger::init();
    let given = std::env::args().nth(1);
    let own = if given.is_none() { servers::postgres(&[]) } else { None };
    let Some(config) = given.or_else(|| own.as_ref().map(whereabouts)) else {
        return Err("name a server: … --example postgres 'host=127.0.0.1 user=postgres'".into());
    };

    let config: Config = config.parse()?;
    let pool = Pool::builder(Postgres::new(config))
        .name("example")
        .max_per_endpoint(CONNECTIONS)
        .build()?;
    let db = pool.only()?;
    let version: String = db.get()?.query_one("SHOW server_version", &[])?.get(0);
    println!("connected: PostgreSQL {version}");

    db.get()?.batch_execute(&format!(
        "DROP TABLE IF EXISTS warmline_accounts;
         CREATE TABLE warmline_accounts (id int PRIMARY KEY, cents int8 NOT NULL);
         INSERT INTO warmline_accounts SELECT id, 10000 FROM generate_series(1, {ACCOUNTS}) AS id"
    ))?;
    work(&db)?;
    left_open(&db)?;
    abandoned_by_a_panic(&db)?;
    ended_while_idle(&db)?;
    ended_in_use(&db)?;
    db.get()?.batch_execute("DROP TABLE warmline_accounts")?;

    println!("\nstats: {}\n\n{}", pool.stats(), pool.report());
    pool.drain(Deadline::after(Duration::from_secs(5)))?;
    Ok(())
}

/// How a client of its own server finds it.
fn whereabouts(server: &Server) -> String {
    format!("host=127.0.0.1 port={} user=postgres", server.address().port())
}

/// What all accounts have together, which no transfer changes.
fn sum(db: &Endpoint<Postgres>) -> Result<i64, Failure> {
    let query = "SELECT sum(cents)::int8 FROM warmline_accounts";
    Ok(db.get()?.query_one(query, &[])?.get(0))
}

/// Every thread takes a connection for one transfer and gives it back.
fn work(db: &Endpoint<Postgres>) -> Result<(), Failure> {
    let before = sum(db)?;
    let transfer = |from: i32, to: i32| -> Result<(), Failure> {
        let mut conn = db.get()?;
        let mut transaction = conn.transaction()?;
        let add = "UPDATE warmline_accounts SET cents = cents + $2 WHERE id = $1";
        // Always in the order of their numbers: two transfers never wait for each other.
        for (id, cents) in if from < to { [(from, -1), (to, 1)] } else { [(to, 1), (from, -1)] } {
            transaction.execute(add, &[&id, &i64::from(cents)])?;
        }
        transaction.commit()?; // where `?` has returned, it was rolled back instead
        Ok(())
    };
    let rounds = |thread: usize| -> Result<(), Failure> {
        for round in 0..ROUNDS {
            let account = |at: usize| i32::try_from(at).map(|at| at % ACCOUNTS + 1);
            transfer(account(thread)?, account(thread + round % 7 + 1)?)?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let rounds = &rounds;
        let threads: Vec<_> = (0..THREADS).map(|at| scope.spawn(move || rounds(at))).collect();
        threads.into_iter().try_for_each(|it| it.join().map_err(|_| "a thread panicked")?)
    })?;
    let (transfers, opened) = (THREADS * ROUNDS, db.stats().opened());
    println!("{transfers} transfers of {THREADS} threads over {opened} connections");
    println!("all accounts together: {} before, {before} after", sum(db)?);
    Ok(())
}

/// Who forgets COMMIT leaves nothing behind: the pool has the connector roll back.
fn left_open(db: &Endpoint<Postgres>) -> Result<(), Failure> {
    let before = sum(db)?;
    let mut conn = db.get()?;
    conn.batch_execute("BEGIN; UPDATE warmline_accounts SET cents = 0")?;
    drop(conn);
    println!("BEGIN without COMMIT: of {before} the next user finds {}", sum(db)?);
    Ok(())
}

/// Of a thread that panics nobody knows how far it was: its connection is closed.
fn abandoned_by_a_panic(db: &Endpoint<Postgres>) -> Result<(), Failure> {
    let before = sum(db)?;
    let panicked = thread::scope(|scope| {
        let panics = || -> Result<(), Failure> {
            let mut conn = db.get()?;
            conn.batch_execute("BEGIN; UPDATE warmline_accounts SET cents = 0")?;
            panic!("this one is meant to be");
        };
        scope.spawn(panics).join()
    });
    let how = if panicked.is_err() { "a thread panicked" } else { "a thread failed" };
    println!("{how} in a transaction: of {before} the next user finds {}", sum(db)?);
    Ok(())
}

/// The number of the server's process at the other end.
const SELF: &str = "SELECT pg_backend_pid()";
const END: &str = "SELECT pg_terminate_backend($1)";

/// The event loop hears of it: nobody is given a dead connection.
fn ended_while_idle(db: &Endpoint<Postgres>) -> Result<(), Failure> {
    let mut administrator = db.get()?;
    let mut victim = db.get()?;
    let process: i32 = victim.query_one(SELF, &[])?.get(0);
    drop(victim); // idle, and the next to be handed out
    let before = db.stats().closed();
    administrator.query_one(END, &[&process])?;
    let deadline = Deadline::after(Duration::from_secs(5));
    while db.stats().closed() == before && !deadline.has_passed() {
        thread::park_timeout(Duration::from_millis(1));
    }
    let closed = db.stats().closed() - before;
    println!("session ended while it was idle: {closed} closed before anybody had it");
    Ok(())
}

/// What is under way when a session ends, fails. `run` repeats what may be repeated.
fn ended_in_use(db: &Endpoint<Postgres>) -> Result<(), Failure> {
    let mut administrator = db.get()?;
    drop(db.get()?); // one that is idle, so that it may have been the cause
    let mut uses = 0;
    let answer: Result<i32, Failure> = db.run(Repeat::Always, |conn| {
        uses += 1;
        if uses == 1 {
            let process: i32 = conn.query_one(SELF, &[])?.get(0);
            administrator.query_one(END, &[&process])?;
        }
        Ok(conn.query_one("SELECT 6 * 7", &[])?.get(0))
    });
    println!("session ended in use: the answer was {} at attempt {uses}", answer?);
    Ok(())
}
