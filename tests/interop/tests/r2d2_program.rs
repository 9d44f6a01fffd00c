//! Programs written for r2d2, as people write them, with one line changed: `use warmline::r2d2`.
//! That they compile is the promise, and that they do what they did.
#![expect(clippy::disallowed_methods, reason = "they start threads")]

use std::error::Error;
use std::fmt;
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::Duration;

use interop::servers;
use interop::support::watchdog;
use r2d2_sqlite::SqliteConnectionManager;
use rusqlite::Connection;
use warmline::r2d2;

/// A program with state that its handlers share, and an error of its own.
mod service {
    use super::*;

    pub type DbPool = r2d2::Pool<SqliteConnectionManager>;
    pub type DbConn = r2d2::PooledConnection<SqliteConnectionManager>;

    #[derive(Clone, Debug)]
    pub struct AppState {
        pub pool: DbPool,
        pub name: Arc<str>,
    }

    #[derive(Debug)]
    pub enum AppError {
        Pool(r2d2::Error),
        Sql(rusqlite::Error),
    }

    impl From<r2d2::Error> for AppError {
        fn from(error: r2d2::Error) -> Self {
            Self::Pool(error)
        }
    }

    impl From<rusqlite::Error> for AppError {
        fn from(error: rusqlite::Error) -> Self {
            Self::Sql(error)
        }
    }

    impl fmt::Display for AppError {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            match self {
                Self::Pool(error) => write!(f, "pool: {error}"),
                Self::Sql(error) => write!(f, "sql: {error}"),
            }
        }
    }

    impl Error for AppError {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            match self {
                Self::Pool(error) => Some(error),
                Self::Sql(error) => Some(error),
            }
        }
    }

    impl AppState {
        pub fn new() -> Self {
            let manager = SqliteConnectionManager::memory()
                .with_init(|conn| conn.execute_batch("create table users (id integer)"));
            let pool = r2d2::Pool::builder().max_size(1).build(manager).unwrap();
            Self { pool, name: "orders".into() }
        }

        fn conn(&self) -> Result<DbConn, r2d2::Error> {
            self.pool.get()
        }

        pub fn add(&self, id: u32) -> Result<usize, AppError> {
            let conn = self.conn()?;
            Ok(conn.execute("insert into users values (?1)", [id])?)
        }
    }

    pub fn count(conn: &DbConn) -> rusqlite::Result<u32> {
        conn.query_row("select count(*) from users", [], |row| row.get(0))
    }

    pub fn remove_all(conn: &mut r2d2::PooledConnection<SqliteConnectionManager>) -> usize {
        let transaction = conn.transaction().unwrap();
        let removed = transaction.execute("delete from users", []).unwrap();
        transaction.commit().unwrap();
        removed
    }

    pub fn plain(conn: &Connection) -> bool {
        conn.is_autocommit()
    }

    pub fn run() -> Result<(), Box<dyn Error + Send + Sync>> {
        let state = AppState::new();
        let threads: Vec<_> = (0..4)
            .map(|id| {
                let state = state.clone();
                std::thread::spawn(move || state.add(id).unwrap())
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        let mut conn = state.pool.get()?;
        assert_eq!(count(&conn)?, 4);
        assert!(plain(&conn));
        assert_eq!(remove_all(&mut conn), 4);
        drop(conn);
        if let Some(conn) = state.pool.try_get() {
            assert_eq!(count(&conn)?, 0);
        }
        let r2d2::State { connections, idle_connections, .. } = state.pool.state();
        assert_eq!((connections, idle_connections), (1, 1));
        assert!(format!("{}: {:?}", state.name, state.pool).starts_with("orders: Pool"));
        Ok(())
    }
}

/// A program with a pool in a static, and every setting.
mod statics {
    use super::*;

    #[derive(Debug)]
    struct ForeignKeys;

    impl r2d2::CustomizeConnection<Connection, rusqlite::Error> for ForeignKeys {
        fn on_acquire(&self, conn: &mut Connection) -> Result<(), rusqlite::Error> {
            conn.execute_batch("pragma foreign_keys = on")
        }

        fn on_release(&self, conn: Connection) {
            drop(conn);
        }
    }

    #[derive(Debug)]
    struct Printing;

    impl<E: Error> r2d2::HandleError<E> for Printing {
        fn handle_error(&self, error: E) {
            eprintln!("{error}");
        }
    }

    #[derive(Debug)]
    struct Slow;

    impl r2d2::event::HandleEvent for Slow {
        fn handle_checkout(&self, event: r2d2::event::CheckoutEvent) {
            if event.duration() > Duration::from_secs(1) {
                eprintln!("connection {} was late", event.connection_id());
            }
        }

        fn handle_release(&self, event: r2d2::event::ReleaseEvent) {
            let _age: Duration = event.age();
        }

        fn handle_timeout(&self, event: r2d2::event::TimeoutEvent) {
            eprintln!("nothing within {:?}", event.timeout());
        }
    }

    static POOL: LazyLock<r2d2::Pool<SqliteConnectionManager>> = LazyLock::new(|| {
        r2d2::Builder::new()
            .max_size(15)
            .min_idle(Some(1))
            .test_on_check_out(true)
            .max_lifetime(Some(Duration::from_secs(600)))
            .idle_timeout(None)
            .connection_timeout(Duration::from_secs(5))
            .connection_customizer(Box::new(ForeignKeys))
            .error_handler(Box::new(Printing))
            .event_handler(Box::new(Slow))
            .build(SqliteConnectionManager::memory())
            .expect("no database")
    });

    static SECOND: OnceLock<r2d2::Pool<SqliteConnectionManager>> = OnceLock::new();

    pub fn run() {
        let on: bool =
            POOL.get().unwrap().query_row("pragma foreign_keys", [], |row| row.get(0)).unwrap();
        assert!(on);
        assert_eq!((POOL.max_size(), POOL.min_idle()), (15, Some(1)));
        assert!(POOL.test_on_check_out() && POOL.idle_timeout().is_none());
        assert!(POOL.max_lifetime().is_some());
        assert_eq!(POOL.connection_timeout(), Duration::from_secs(5));
        let pool = SECOND.get_or_init(|| {
            r2d2::Pool::builder()
                .error_handler(Box::new(r2d2::LoggingErrorHandler))
                .event_handler(Box::new(r2d2::NopEventHandler))
                .connection_customizer(Box::new(r2d2::NopConnectionCustomizer))
                .build_unchecked(SqliteConnectionManager::memory())
        });
        let conn = pool.get_timeout(Duration::from_secs(5)).unwrap();
        assert!(service::plain(&conn));
    }
}

/// A library that is generic over managers, and one of its own.
mod generic {
    use super::*;
    use warmline::r2d2::{ManageConnection, Pool, PooledConnection};

    pub struct Repository<M>
    where
        M: ManageConnection,
    {
        pool: Pool<M>,
    }

    impl<M> Repository<M>
    where
        M: ManageConnection,
        M::Connection: fmt::Debug,
    {
        pub fn new(manager: M) -> Result<Self, r2d2::Error> {
            Ok(Self { pool: Pool::new(manager)? })
        }

        pub fn with<R>(&self, act: impl FnOnce(&mut M::Connection) -> R) -> Result<R, r2d2::Error> {
            let mut conn: PooledConnection<M> = self.pool.get()?;
            Ok(act(&mut conn))
        }

        pub fn show(&self) -> String {
            self.pool.get().map(|conn| format!("{conn:?}")).unwrap_or_else(|e| e.to_string())
        }
    }

    /// What a connection is prepared with.
    struct Prepared(u32);

    #[derive(Debug)]
    pub struct Words;

    impl r2d2::ManageConnection for Words {
        type Connection = String;
        type Error = fmt::Error;

        fn connect(&self) -> Result<String, fmt::Error> {
            Ok("hello".into())
        }

        fn is_valid(&self, conn: &mut String) -> Result<(), fmt::Error> {
            if conn.is_empty() { Err(fmt::Error) } else { Ok(()) }
        }

        fn has_broken(&self, conn: &mut String) -> bool {
            conn.is_empty()
        }
    }

    pub fn run() {
        let words = Repository::new(Words).unwrap();
        words.with(|word| word.push('!')).unwrap();
        assert_eq!(words.show(), r#""hello!""#);
        let pool = Pool::builder().max_size(1).build(Words).unwrap();
        let mut conn = pool.get().unwrap();
        PooledConnection::extensions_mut(&mut conn).insert(Prepared(7));
        assert_eq!(PooledConnection::extensions(&conn).get::<Prepared>().map(|it| it.0), Some(7));
        // To another thread, and back.
        let conn = std::thread::spawn(move || conn).join().unwrap();
        assert_eq!(conn.len(), 5);
        let shared: Box<dyn Fn() -> usize + Send + Sync> =
            Box::new(move || pool.get_timeout(Duration::ZERO).map_or(0, |conn| conn.len()));
        assert_eq!(shared(), 0, "it is out");
    }
}

/// diesel's manager; its connection is handed on as itself.
mod with_diesel {
    use diesel::prelude::*;
    use diesel::r2d2::ConnectionManager;
    use warmline::r2d2;

    type DbPool = r2d2::Pool<ConnectionManager<PgConnection>>;

    fn one(conn: &mut PgConnection) -> QueryResult<usize> {
        diesel::sql_query("select 1").execute(conn)
    }

    fn of(pool: &DbPool) -> QueryResult<usize> {
        let mut conn = pool.get().expect("no connection");
        one(&mut conn)
    }

    pub fn run(url: &str) {
        let pool = r2d2::Pool::new(ConnectionManager::new(url)).unwrap();
        assert_eq!(of(&pool), Ok(1));
    }
}

#[test]
fn a_service_with_state_and_an_error_of_its_own_needs_one_line_changed() {
    let _watchdog = watchdog();
    service::run().unwrap();
}

#[test]
fn a_pool_in_a_static_with_every_setting_needs_one_line_changed() {
    let _watchdog = watchdog();
    statics::run();
}

#[test]
fn a_library_for_any_manager_needs_one_line_changed() {
    let _watchdog = watchdog();
    generic::run();
}

#[test]
fn a_program_that_hands_on_diesels_connections_needs_one_line_changed() {
    let _watchdog = watchdog();
    let Some(server) = servers::postgres(&[]) else { return };
    with_diesel::run(&format!("postgres://postgres@{}/postgres", server.address()));
}
