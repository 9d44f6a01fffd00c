//! Other crates' r2d2 managers, as they are, in warmline's pool.

use std::os::fd::AsRawFd;

use diesel::prelude::*;
use interop::servers::{self, PASSWORD, Server};
use interop::support::{SOON, assert_at_rest, eventually, watchdog};
use interop::trials::{self, Attempts};
use mysql::prelude::Queryable;
use postgres::NoTls;
use r2d2_postgres::PostgresConnectionManager;
use r2d2_sqlite::SqliteConnectionManager;
use warmline::r2d2::{self, Builder, ManageConnection, Pool};
use warmline::{BoxError, CloseReason, Endpoint, Watch};

type Postgres = PostgresConnectionManager<NoTls>;

fn postgres(server: &Server, password: &str) -> Postgres {
    let mut config = postgres::Config::new();
    config.host("127.0.0.1").port(server.address().port()).user("postgres").password(password);
    Postgres::new(config, NoTls)
}

fn redis(server: &Server, login: &str) -> redis::Client {
    redis::Client::open(format!("redis://{login}{}", server.address())).unwrap()
}

fn built<M: ManageConnection>(
    manager: M,
    settings: impl FnOnce(Builder<M>) -> Builder<M>,
) -> Pool<M> {
    settings(Pool::builder().connection_timeout(SOON)).build(manager).unwrap()
}

/// Has threads ask for numbers of their own, over few connections; none is lost.
fn share<M: ManageConnection>(manager: M, ask: impl Fn(&mut M::Connection, i64) -> i64 + Sync) {
    let pool = built(manager, |it| it.max_size(3).min_idle(Some(1)));
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (pool, ask) = (&pool, &ask);
            scope.spawn(move || {
                for number in (thread * 1000..).take(50) {
                    assert_eq!(ask(&mut pool.get().unwrap(), number), number);
                }
            });
        }
    });
    let stats = pool.stats();
    assert!(stats.opened() <= 3, "{stats}");
    assert_eq!((stats.checkouts(), stats.closed()), (8 * 50, 0));
    assert_at_rest(&stats);
}

#[test]
fn postgresql_by_its_own_manager() {
    let _watchdog = watchdog();
    let Some(server) = servers::postgres(&[]) else { return };
    share(postgres(&server, ""), |client, number| {
        client.query_one("SELECT $1::int8", &[&number]).unwrap().get(0)
    });
}

#[test]
fn postgresql_by_diesels_manager() {
    let _watchdog = watchdog();
    let Some(server) = servers::postgres(&[]) else { return };
    let url = format!("postgres://postgres@{}/postgres", server.address());
    share(diesel::r2d2::ConnectionManager::<PgConnection>::new(url), |conn, number| {
        diesel::select(number.into_sql::<diesel::sql_types::BigInt>()).get_result(conn).unwrap()
    });
}

#[test]
fn redis_by_its_own_manager() {
    let _watchdog = watchdog();
    let Some(server) = servers::redis(&[]) else { return };
    share(redis(&server, ""), |conn, number| redis::cmd("ECHO").arg(number).query(conn).unwrap());
}

#[test]
fn sqlite_by_its_own_manager() {
    let _watchdog = watchdog();
    let folder = tempfile::tempdir().unwrap();
    share(SqliteConnectionManager::file(folder.path().join("db")), |conn, number| {
        conn.query_row("SELECT ?1", [number], |row| row.get(0)).unwrap()
    });
}

/// A manager of one's own, of a client that tells its descriptor.
struct Mysql(mysql::Opts);

impl ManageConnection for Mysql {
    type Connection = mysql::Conn;
    type Error = mysql::Error;

    fn connect(&self) -> Result<mysql::Conn, mysql::Error> {
        mysql::Conn::new(self.0.clone())
    }
    fn is_valid(&self, conn: &mut mysql::Conn) -> Result<(), mysql::Error> {
        conn.ping()
    }
    fn has_broken(&self, _: &mut mysql::Conn) -> bool {
        false
    }
}

#[test]
fn what_a_manager_opens_is_watched_if_its_client_tells_the_descriptor() {
    let _watchdog = watchdog();
    let Some(mut server) = servers::mariadb(&[]) else { return };
    let options = mysql::OptsBuilder::new()
        .ip_or_hostname(Some("127.0.0.1"))
        .tcp_port(server.address().port())
        .user(Some("root"))
        .prefer_socket(false);
    let watched = |it: Builder<Mysql>| it.max_size(3).watch(|conn| Watch::Raw(conn.as_raw_fd()));
    let pool = built(Mysql(options.into()), watched);
    assert_eq!(pool.get().unwrap().query_first("SELECT 7").unwrap(), Some(7));
    server.kill();
    eventually("nobody had to ask", || pool.stats().closed_for(CloseReason::PeerClosed) == 3);
    server.start_again();
    assert_eq!(pool.get().unwrap().query_first("SELECT 8").unwrap(), Some(8));
}

/// An endpoint for callers who wait an outage out, as those of r2d2's names do.
fn patient<M: ManageConnection>(manager: M) -> Endpoint<r2d2::Manager<M>> {
    let builder = warmline::Pool::builder(r2d2::Manager::new(manager)).fail_fast(false);
    let builder = builder.max_per_endpoint(4).checkout_timeout(SOON);
    builder.build().unwrap().only().unwrap()
}

#[test]
fn callers_outlast_a_postgresql_that_restarts() {
    let _watchdog = watchdog();
    let Some(mut server) = servers::postgres(&[]) else { return };
    let endpoint = patient(postgres(&server, ""));
    trials::patient_callers_outlast_restarts(&mut server, &endpoint, |client, _| {
        Ok(client.simple_query("SELECT 1").map(drop)?)
    });
}

#[test]
fn callers_outlast_a_redis_that_restarts() {
    let _watchdog = watchdog();
    let Some(mut server) = servers::redis(&[]) else { return };
    let endpoint = patient(redis(&server, ""));
    trials::patient_callers_outlast_restarts(&mut server, &endpoint, |conn, _| {
        Ok(redis::cmd("PING").exec(conn)?)
    });
}

/// Callers of r2d2's names, where a death is noticed by who meets it.
fn outlast_restarts<M: ManageConnection>(
    mut server: Server,
    manager: M,
    ask: impl Fn(&mut M::Connection) -> Result<(), BoxError> + Sync,
) {
    let pool = built(manager, |it| it.max_size(4));
    let exchange = |_| ask(&mut pool.get().expect("r2d2's callers wait the outage out"));
    let cut_off = trials::exchanges_outlast_restarts(&mut server, || pool.stats(), exchange);
    assert!(cut_off > 0, "some were asked as it died");
}

#[test]
fn callers_of_r2d2s_names_outlast_a_postgresql_that_restarts() {
    let _watchdog = watchdog();
    let Some(server) = servers::postgres(&[]) else { return };
    let manager = postgres(&server, "");
    outlast_restarts(server, manager, |client| Ok(client.simple_query("SELECT 1").map(drop)?));
}

#[test]
fn callers_of_r2d2s_names_outlast_a_redis_that_restarts() {
    let _watchdog = watchdog();
    let Some(server) = servers::redis(&[]) else { return };
    let manager = redis(&server, "");
    outlast_restarts(server, manager, |conn| Ok(redis::cmd("PING").exec(conn)?));
}

#[test]
fn connections_that_the_server_closed_for_being_idle_reach_no_user() {
    let _watchdog = watchdog();
    let Some(server) = servers::postgres(&["-c", "idle_session_timeout=700ms"]) else { return };
    let pool = built(postgres(&server, ""), |it| it.max_size(2));
    for _ in 0..3 {
        for _ in 0..4 {
            pool.get().unwrap().simple_query("SELECT 1").unwrap();
        }
        let mut other = server_side(&server);
        eventually("the server closes them", || {
            let count =
                "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'";
            other.query_one(count, &[]).unwrap().get::<_, i64>(0) == 1
        });
    }
    assert!(pool.stats().closed_for(CloseReason::CheckFailed) >= 3, "{}", pool.stats());
}

/// A connection that no pool has, and that the server does not close.
fn server_side(server: &Server) -> postgres::Client {
    let mut config = postgres::Config::new();
    config.host("127.0.0.1").port(server.address().port()).user("postgres");
    let mut client = config.connect(NoTls).unwrap();
    client.batch_execute("SET idle_session_timeout = 0").unwrap();
    client
}

/// Callers who insist are told what the server says, fast, and it is asked at most once in 50 ms.
fn refuses<M: ManageConnection>(manager: M, words: &str, secret: &str) {
    let attempts = Attempts::default();
    let builder = warmline::Pool::builder(r2d2::Manager::new(manager));
    let endpoint = builder.observer(attempts.clone()).build().unwrap().only().unwrap();
    trials::refuses_a_password(&endpoint, secret, words);
    trials::pauses_between_attempts(&endpoint, || attempts.count());
}

#[test]
fn a_wrong_password_is_told_at_once_in_the_words_of_postgresql() {
    let _watchdog = watchdog();
    let Some(server) = servers::postgres_with_password(&[]) else { return };
    let right = built(postgres(&server, PASSWORD), |it| it.max_size(1));
    right.get().unwrap().simple_query("SELECT 1").unwrap();
    let words = "password authentication failed for user";
    refuses(postgres(&server, "letmein-please"), words, "letmein-please");
}

#[test]
fn a_wrong_password_is_told_at_once_by_the_client_of_redis() {
    let _watchdog = watchdog();
    let Some(server) = servers::redis(&["--requirepass", "right"]) else { return };
    let right = built(redis(&server, ":right@"), |it| it.max_size(1));
    redis::cmd("PING").exec(&mut *right.get().unwrap()).unwrap();
    refuses(redis(&server, ":letmein-please@"), "authentication failed", "letmein-please");
}
