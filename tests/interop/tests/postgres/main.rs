//! PostgreSQL, through the `postgres` crate.
#![expect(clippy::disallowed_methods, reason = "tests start threads, wait and read the time")]

mod hung;
mod idle;
mod refusals;
mod transactions;
mod work;

use interop::postgres::{Conn, Postgres};
use interop::servers::Server;
use interop::support::SOON;
use postgres::Config;
use warmline::{Builder, Endpoint, Pool, PooledConn};

/// How its client reaches a server.
fn config(server: &Server) -> Config {
    let mut config = Config::new();
    config.host("127.0.0.1").port(server.address().port()).user("postgres");
    config
}

fn endpoint(
    server: &Server,
    settings: impl FnOnce(Builder<Postgres>) -> Builder<Postgres>,
) -> Endpoint<Postgres> {
    endpoint_with(config(server), settings)
}

fn endpoint_with(
    config: Config,
    settings: impl FnOnce(Builder<Postgres>) -> Builder<Postgres>,
) -> Endpoint<Postgres> {
    let builder = Pool::builder(Postgres::new(config)).checkout_timeout(SOON);
    settings(builder).build().unwrap().only().unwrap()
}

/// One small exchange, whose answer is nobody else's.
fn ask(conn: &mut PooledConn<Postgres>, number: i64) -> Result<(), postgres::Error> {
    let row = conn.query_one("SELECT $1::int8", &[&number])?;
    assert_eq!(row.get::<_, i64>(0), number, "somebody else's answer");
    Ok(())
}

/// The number of the server's process at the other end.
fn backend(conn: &mut Conn) -> i32 {
    conn.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0)
}

fn count(endpoint: &Endpoint<Postgres>, table: &str) -> i64 {
    let query = format!("SELECT count(*) FROM {table}");
    endpoint.get().unwrap().query_one(&query, &[]).unwrap().get(0)
}
