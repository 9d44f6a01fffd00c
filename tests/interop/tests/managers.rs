//! Other crates' r2d2 managers, as they are, in warmline's pool.
#![expect(clippy::disallowed_methods, reason = "tests start threads, wait and read the time")]

use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use diesel::prelude::*;
use interop::servers::{self, PASSWORD, Server};
use interop::support::{SOON, assert_at_rest, assert_empty, eventually, under_load, watchdog};
use mysql::prelude::Queryable;
use postgres::NoTls;
use r2d2_postgres::PostgresConnectionManager;
use r2d2_sqlite::SqliteConnectionManager;
use warmline::r2d2::{self, Builder, ManageConnection, Pool};
use warmline::{CloseReason, Connected, Connecting, ErrorKind, Observer, Watch};

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

/// Threads that ask on, while the server is killed and comes back: the pool has no error for them,
/// and once it is back and what was dead is used up, the server has none either.
fn outlasts_a_restart<M: ManageConnection>(
    mut server: Server,
    manager: M,
    ask: impl Fn(&mut M::Connection) -> bool + Sync,
) {
    let pool = built(manager, |it| it.max_size(4));
    let failed = AtomicUsize::new(0);
    let exchange = |_| {
        let mut conn = pool.get().expect("patient callers meet no error");
        if !ask(&mut conn) {
            failed.fetch_add(1, Ordering::SeqCst);
        }
    };
    under_load(exchange, |load| {
        for _ in 0..3 {
            load.await_more(200);
            server.kill();
            eventually("nobody is served", || pool.stats().waiting() >= 4);
            server.start_again();
            load.await_more(100);
        }
        load.await_begun();
        let before = failed.load(Ordering::SeqCst);
        load.await_more(200);
        assert_eq!(failed.load(Ordering::SeqCst), before, "what is dead was used up");
    });
    assert!(failed.load(Ordering::SeqCst) > 0, "some were asked as it died");
    assert_at_rest(&pool.stats());
}

#[test]
fn callers_outlast_a_postgresql_that_restarts() {
    let _watchdog = watchdog();
    let Some(server) = servers::postgres(&[]) else { return };
    let manager = postgres(&server, "");
    outlasts_a_restart(server, manager, |client| client.simple_query("SELECT 1").is_ok());
}

#[test]
fn callers_outlast_a_redis_that_restarts() {
    let _watchdog = watchdog();
    let Some(server) = servers::redis(&[]) else { return };
    let manager = redis(&server, "");
    outlasts_a_restart(server, manager, |conn| redis::cmd("PING").exec(conn).is_ok());
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

/// Counts attempts.
struct Attempts(Arc<AtomicUsize>);

impl Observer for Attempts {
    fn connecting(&self, _: &Connecting) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
    fn connected(&self, _: &Connected) {
        panic!("with that password?");
    }
}

/// Callers who insist are told what the server says, fast, and it is asked at most once in 50 ms.
fn refuses<M: ManageConnection>(manager: M, words: &str, secret: &str) {
    let attempts = Arc::new(AtomicUsize::new(0));
    let builder = warmline::Pool::builder(r2d2::Manager::new(manager));
    let pool = builder.observer(Attempts(Arc::clone(&attempts))).build().unwrap();
    let endpoint = pool.only().unwrap();
    let began = std::time::Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while began.elapsed() < Duration::from_millis(600) {
                    let error = endpoint.get().map(drop).expect_err("it is the wrong password");
                    assert_eq!(error.kind(), ErrorKind::Connect, "{error}");
                    for said in [error.to_string(), format!("{error:#}"), format!("{error:?}")] {
                        assert!(said.contains(words) && !said.contains(secret), "{said}");
                    }
                    std::thread::sleep(Duration::from_millis(1));
                }
            });
        }
    });
    let steps = began.elapsed().as_millis() as usize / 50;
    let made = attempts.load(Ordering::SeqCst);
    assert!(made <= 8 + 1 + steps, "{made} attempts in {steps} steps");
    assert_empty(&endpoint.stats());
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
