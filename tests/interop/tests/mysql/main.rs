//! MariaDB, through the `mysql` crate.
#![expect(clippy::disallowed_methods, reason = "tests start threads, wait and read the time")]

mod hung;
mod idle;
mod refusals;
mod transactions;
mod work;

use interop::mysql::{Conn, Mysql};
use interop::servers::Server;
use interop::support::SOON;
use mysql::OptsBuilder;
use mysql::prelude::Queryable;
use warmline::{Builder, Endpoint, Pool};

/// How its client reaches a server.
fn options(server: &Server) -> OptsBuilder {
    let options = OptsBuilder::new().ip_or_hostname(Some("127.0.0.1"));
    options.tcp_port(server.address().port()).user(Some("root")).db_name(Some("test"))
}

fn endpoint(
    server: &Server,
    settings: impl FnOnce(Builder<Mysql>) -> Builder<Mysql>,
) -> Endpoint<Mysql> {
    endpoint_with(options(server), settings)
}

fn endpoint_with(
    options: OptsBuilder,
    settings: impl FnOnce(Builder<Mysql>) -> Builder<Mysql>,
) -> Endpoint<Mysql> {
    let builder = Pool::builder(Mysql::new(options)).checkout_timeout(SOON);
    settings(builder).build().unwrap().only().unwrap()
}

/// One small exchange, whose answer is nobody else's.
fn ask(conn: &mut Conn, number: i64) -> mysql::Result<()> {
    let answer: Option<i64> = conn.exec_first("SELECT ?", (number,))?;
    assert_eq!(answer, Some(number), "somebody else's answer");
    Ok(())
}

fn count(endpoint: &Endpoint<Mysql>, table: &str) -> i64 {
    let query = format!("SELECT COUNT(*) FROM {table}");
    endpoint.get().unwrap().query_first(query).unwrap().unwrap()
}
