//! PostgreSQL, by the `postgres` crate.
//!
//! ```no_run
//! use interop::postgres::Postgres;
//! use warmline::Endpoint;
//!
//! let config = "host=db.example user=app password=secret".parse()?;
//! let db = Endpoint::of(Postgres::new(config))?;
//! let row = db.get()?.query_one("SELECT 1 + $1::int4", &[&1])?;
//! assert_eq!(row.get::<_, i32>(0), 2);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::net::{IpAddr, SocketAddr};
use std::ops::{Deref, DerefMut};
use std::os::fd::RawFd;
use std::thread;

use ::postgres::error::SqlState;
use ::postgres::fallible_iterator::FallibleIterator;
use ::postgres::types::ToSql;
use ::postgres::{Client, Config, Error, NoTls, Row, SimpleQueryMessage, Statement, ToStatement};
use warmline::{BoxError, CloseReason, Connector, Deadline, Look, One, Opening, Reset, Watch};

use crate::descriptor;

/// Asks from where the connection came, and where it ended; nothing if that is a Unix socket.
const ENDS: &str = "SELECT inet_client_port(), host(inet_server_addr()), inet_server_port()";

/// Ends a transaction, if one is open, and all else that one user could leave to the next.
///
/// What `DISCARD ALL` does, but that it leaves prepared statements alone: the client has some of
/// its own. `BEGIN` is there because a `ROLLBACK` where there is nothing to roll back is worth a
/// warning in the server's log.
const TIDY: &str = "BEGIN; ROLLBACK; SET SESSION AUTHORIZATION DEFAULT; RESET ALL; CLOSE ALL; \
                    UNLISTEN *; SELECT pg_advisory_unlock_all(); DISCARD SEQUENCES; DISCARD TEMP";

/// Opens connections to a PostgreSQL server.
///
/// The server ends the transaction of a connection that is closed, and a [`Client`] says its
/// farewell when it is dropped.
pub struct Postgres {
    config: Config,
}

impl Postgres {
    /// With the client's own settings. For TLS, what implements its `MakeTlsConnect` goes where
    /// `NoTls` stands.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { config }
    }
}

impl Connector for Postgres {
    type Key = One;
    type Conn = Conn;

    /// The client bounds no more than its connect, for each address of the name. If it waits longer
    /// for something else (the name, a server that says nothing), the pool does not: it leaves the
    /// thread behind, until the system or the server ends that connection.
    fn open(&self, _: &One, opening: &mut Opening) -> Result<Conn, BoxError> {
        let left = opening.deadline().remaining();
        let mut config = self.config.clone();
        config.connect_timeout(config.get_connect_timeout().map_or(left, |&own| own.min(left)));
        let mut client = config.connect(NoTls).map_err(cause)?;
        let ends = client.simple_query(ENDS).map_err(cause)?;
        Ok(Conn { descriptor: descriptor(&ends), client, is_untidy: false })
    }

    fn watch<'c>(&self, conn: &'c Conn) -> Watch<'c> {
        conn.descriptor.map_or(Watch::Nothing, Watch::Raw)
    }

    fn is_open(&self, conn: &mut Conn, _: Look) -> bool {
        !conn.client.is_closed()
    }

    fn reset(&self, conn: &mut Conn) -> Reset {
        if conn.is_untidy { Reset::Later } else { Reset::Ready }
    }

    fn settle(&self, conn: &mut Conn, _: Deadline) -> Result<(), BoxError> {
        let mut settled = conn.client.batch_execute(TIDY);
        let has_failed = |error: &Error| error.code() == Some(&SqlState::IN_FAILED_SQL_TRANSACTION);
        if settled.as_ref().is_err_and(has_failed) {
            // Such a transaction takes nothing but its end.
            conn.client.batch_execute("ROLLBACK").map_err(cause)?;
            settled = conn.client.batch_execute(TIDY);
        }
        settled.map_err(cause)?;
        // What had arrived for the last user, and was not fetched, stays in the client.
        conn.client.notifications().iter().count().map_err(cause)?;
        conn.is_untidy = false;
        Ok(())
    }

    fn has_check(&self) -> bool {
        true
    }

    fn check(&self, conn: &mut Conn, deadline: Deadline) -> Result<(), BoxError> {
        conn.client.is_valid(deadline.remaining()).map_err(cause)
    }

    /// A [`Client`] that is dropped waits for the answers that it is owed, however long: after a
    /// check that timed out there is one, and a server that hangs never sends it. The pool has only
    /// so many threads that close. So what may be owed an answer goes on a thread of its own, which
    /// stays until the answer comes, or the server or the system ends that connection. All else
    /// says its farewell at once, and that has been sent when the pool is drained.
    fn close(&self, conn: Conn, reason: CloseReason) {
        if is_owed_nothing(reason) {
            return drop(conn);
        }
        // Where no thread can be started, it is dropped here.
        let _unjoined = thread::Builder::new().spawn(move || drop(conn));
    }
}

/// True if the connection was well until the pool had no more use for it.
fn is_owed_nothing(reason: CloseReason) -> bool {
    use CloseReason::{Evicted, IdleTimeout, MadeRoom, MaxLifetime, MaxUses, PoolClosed, Surplus};
    matches!(
        reason,
        IdleTimeout | MaxLifetime | MaxUses | Evicted | Surplus | MadeRoom | PoolClosed
    )
}

/// A [`Client`], and whether it has to be tidied before the next user gets it.
///
/// The client does not tell whether a transaction is open, and to ask the server at every checkin
/// would double the cost of a short query. But often it can be known: what has parameters or gives
/// rows begins no transaction. So these methods of the client's are here once more. After whatever
/// else was done with it, a transaction among it, the connection is tidied when it comes back:
/// one round trip, on a thread of the pool.
///
/// What a query does besides, by `set_config`, `pg_advisory_lock` or `nextval`, is not noticed; nor
/// is `CREATE TEMP TABLE … AS` or `SELECT … INTO TEMP` that has parameters.
pub struct Conn {
    client: Client,
    descriptor: Option<RawFd>,
    is_untidy: bool,
}

type Parameters<'p> = &'p [&'p (dyn ToSql + Sync)];

impl Conn {
    /// [`Client::query`].
    ///
    /// # Errors
    ///
    /// The client's.
    pub fn query<T>(&mut self, statement: &T, parameters: Parameters<'_>) -> Result<Vec<Row>, Error>
    where
        T: ?Sized + ToStatement,
    {
        let rows = self.client.query(statement, parameters);
        self.note(parameters, rows.as_ref().is_ok_and(|rows| !rows.is_empty()));
        rows
    }

    /// [`Client::query_one`].
    ///
    /// # Errors
    ///
    /// The client's.
    pub fn query_one<T>(&mut self, statement: &T, parameters: Parameters<'_>) -> Result<Row, Error>
    where
        T: ?Sized + ToStatement,
    {
        let row = self.client.query_one(statement, parameters);
        self.note(parameters, row.is_ok());
        row
    }

    /// [`Client::query_opt`].
    ///
    /// # Errors
    ///
    /// The client's.
    pub fn query_opt<T>(
        &mut self,
        statement: &T,
        parameters: Parameters<'_>,
    ) -> Result<Option<Row>, Error>
    where
        T: ?Sized + ToStatement,
    {
        let row = self.client.query_opt(statement, parameters);
        self.note(parameters, matches!(row, Ok(Some(_))));
        row
    }

    /// [`Client::execute`].
    ///
    /// # Errors
    ///
    /// The client's.
    pub fn execute<T>(&mut self, statement: &T, parameters: Parameters<'_>) -> Result<u64, Error>
    where
        T: ?Sized + ToStatement,
    {
        // That it counts rows does not tell: so does what makes a temporary table of them.
        self.note(parameters, false);
        self.client.execute(statement, parameters)
    }

    /// [`Client::prepare`]. What is prepared has not run yet.
    ///
    /// # Errors
    ///
    /// The client's.
    pub fn prepare(&mut self, query: &str) -> Result<Statement, Error> {
        self.client.prepare(query)
    }

    /// Notes that a statement was run: it gave rows, or may have done anything.
    fn note(&mut self, parameters: Parameters<'_>, has_rows: bool) {
        self.is_untidy |= parameters.is_empty() && !has_rows;
    }
}

impl Deref for Conn {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl DerefMut for Conn {
    fn deref_mut(&mut self) -> &mut Client {
        self.is_untidy = true;
        &mut self.client
    }
}

/// What lies beneath an error of the client's: the error itself says no more than "db error", and
/// that "error connecting to server" is plain from where it is shown.
fn cause(error: Error) -> BoxError {
    let text = error.to_string();
    error.into_source().unwrap_or_else(|| text.into())
}

/// The descriptor that the client does not show. Behind a proxy or an address translation the
/// server has another view of the connection: none is found then, and nothing is watched.
fn descriptor(ends: &[SimpleQueryMessage]) -> Option<RawFd> {
    let row = ends.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    })?;
    let server: (IpAddr, u16) = (row.get(1)?.parse().ok()?, row.get(2)?.parse().ok()?);
    descriptor::of_tcp(row.get(0)?.parse().ok()?, SocketAddr::from(server))
}
