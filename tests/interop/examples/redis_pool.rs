//! How do I pool the `redis` crate's connections? Threads that work through a few of them, what the
//! pool tells about it, and what happens when connections die.
//!
//! ```text
//! cargo run -p interop --example redis_pool                    # starts a redis-server of its own
//! cargo run -p interop --example redis_pool 127.0.0.1:6379     # uses this one, and a few keys
//! cargo run -p interop --example redis_pool redis://:password@127.0.0.1:6379/3
//! ```

use std::error::Error;
use std::thread;
use std::time::Duration;

use interop::redis::Redis;
use interop::servers;
use redis::{Commands, cmd};
use warmline::{Deadline, Endpoint, Pool, Repeat};

type Failure = Box<dyn Error + Send + Sync>;

const THREADS: usize = 16;
const CONNECTIONS: usize = 4;
const ROUNDS: usize = 500;
/// Keys are removed by the server after this many seconds.
const SECONDS: u64 = 60;

fn main() -> Result<(), Failure> {
    env_logger::init();
    let given = std::env::args().nth(1);
    let own = if given.is_none() { servers::redis(&[]) } else { None };
    let own_address = own.as_ref().map(|server| server.address().to_string());
    let Some(target) = given.or(own_address) else {
        return Err("name a server: cargo run -p interop --example redis_pool HOST:PORT".into());
    };
    let url = if target.contains("://") { target } else { format!("redis://{target}/") };

    let pool = Pool::builder(Redis::new().read_timeout(Duration::from_secs(5)))
        .name("example")
        .max_per_endpoint(CONNECTIONS)
        .build()?;
    let redis = pool.endpoint(&url)?;
    let version: String = cmd("INFO").arg("server").query(&mut *redis.get()?)?;
    let version = version.lines().find(|line| line.starts_with("redis_version"));
    println!("connected: {}", version.unwrap_or("a server that does not tell its version"));

    work(&redis)?;
    transaction_left_open(&redis)?;
    killed_while_idle(&redis)?;
    killed_in_use(&redis)?;

    println!("\nstats: {}\n\n{}", pool.stats(), pool.report());
    pool.drain(Deadline::after(Duration::from_secs(5)))?;
    Ok(())
}

/// Every thread takes a connection for two commands and gives it back.
fn work(redis: &Endpoint<Redis>) -> Result<(), Failure> {
    let rounds = |thread: usize| -> Result<(), Failure> {
        let key = format!("warmline:thread:{thread}");
        for round in 0..ROUNDS {
            let mut conn = redis.get()?;
            let () = conn.set_ex(&key, round, SECONDS)?;
            let found: usize = conn.get(&key)?;
            if found != round {
                return Err(format!("{found} instead of {round}").into());
            }
        }
        Ok(())
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|at| scope.spawn(move || rounds(at))).collect();
        threads.into_iter().try_for_each(|it| it.join().map_err(|_| "a thread panicked")?)
    })?;
    let (commands, opened) = (2 * THREADS * ROUNDS, redis.stats().opened());
    println!("SET and GET: {commands} commands of {THREADS} threads over {opened} connections");
    Ok(())
}

/// Who forgets EXEC leaves nothing behind: the pool has the connector end what was begun.
fn transaction_left_open(redis: &Endpoint<Redis>) -> Result<(), Failure> {
    let mut conn = redis.get()?;
    cmd("MULTI").exec(&mut *conn)?;
    let queued: String = conn.set_ex("warmline:left", "open", SECONDS)?;
    drop(conn);
    let found: Option<String> = redis.get()?.get("warmline:left")?;
    println!("MULTI without EXEC: SET was {queued}, the next user finds {found:?}");
    Ok(())
}

/// The event loop hears of it: nobody is given a dead connection.
fn killed_while_idle(redis: &Endpoint<Redis>) -> Result<(), Failure> {
    let mut killer = redis.get()?;
    let mut victim = redis.get()?;
    let id: u64 = cmd("CLIENT").arg("ID").query(&mut *victim)?;
    drop(victim); // idle, and the next to be handed out
    let before = redis.stats().closed();
    let killed: u64 = cmd("CLIENT").arg(&["KILL", "ID"]).arg(id).query(&mut *killer)?;
    let deadline = Deadline::after(Duration::from_secs(5));
    while redis.stats().closed() == before && !deadline.has_passed() {
        thread::park_timeout(Duration::from_millis(1));
    }
    let closed = redis.stats().closed() - before;
    println!("CLIENT KILL of {killed} that was idle: {closed} closed before anybody had it");
    Ok(())
}

/// What is under way when a connection dies, fails. `run` repeats what may be repeated.
fn killed_in_use(redis: &Endpoint<Redis>) -> Result<(), Failure> {
    let mut killer = redis.get()?;
    let mut uses = 0;
    let answer: Result<String, Failure> = redis.run(Repeat::Always, |conn| {
        uses += 1;
        if uses == 1 {
            let id: u64 = cmd("CLIENT").arg("ID").query(conn)?;
            cmd("CLIENT").arg(&["KILL", "ID"]).arg(id).exec(&mut *killer)?;
        }
        Ok(cmd("PING").query(conn)?)
    });
    println!("CLIENT KILL of one in use: PING was answered {:?} at attempt {uses}", answer?);
    Ok(())
}
