//! MySQL and MariaDB, by the `mysql` crate.
//!
//! ```no_run
//! use interop::mysql::Mysql;
//! use mysql::Opts;
//! use mysql::prelude::Queryable;
//! use warmline::Endpoint;
//!
//! let options = Opts::from_url("mysql://app:secret@db.example/shop")?;
//! let db = Endpoint::of(Mysql::new(options))?;
//! let sum: Option<i64> = db.get()?.exec_first("SELECT 1 + ?", (1,))?;
//! assert_eq!(sum, Some(2));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::io;
use std::ops::{Deref, DerefMut};
use std::os::fd::AsRawFd;

use ::mysql::prelude::{AsStatement, Queryable};
use ::mysql::{
    Binary, DriverError, Error, Opts, OptsBuilder, Params, QueryResult, Result, Statement, Text,
    Transaction, TxOpts,
};
use warmline::{BoxError, Connector, Deadline, Look, One, Opening, Reset, Watch};

/// Opens connections to a MySQL or MariaDB server.
///
/// The server ends the transaction of a connection that is closed, and the client says its farewell
/// when it is dropped: nothing is to be done in `close`.
pub struct Mysql {
    options: Opts,
}

impl Mysql {
    /// With the client's own options. They should have a `read_timeout`: the client has no other
    /// means to give up on a server that says nothing.
    #[must_use]
    pub fn new(options: impl Into<Opts>) -> Self {
        // Where the server is on this machine, the client would otherwise make a second connection,
        // by the server's Unix socket, and let go of the first.
        let options = OptsBuilder::from_opts(options.into()).prefer_socket(false);
        Self { options: options.into() }
    }
}

impl Connector for Mysql {
    type Key = One;
    type Conn = Conn;

    fn open(&self, _: &One, opening: &mut Opening) -> std::result::Result<Conn, BoxError> {
        let left = opening.deadline().remaining();
        let own = self.options.get_tcp_connect_timeout();
        let options = OptsBuilder::from_opts(self.options.clone())
            .tcp_connect_timeout(Some(own.map_or(left, |own| own.min(left))));
        let client = ::mysql::Conn::new(options).map_err(cause)?;
        Ok(Conn { client, is_untidy: false, has_failed: false })
    }

    fn watch<'c>(&self, conn: &'c Conn) -> Watch<'c> {
        Watch::Raw(conn.client.as_raw_fd())
    }

    fn is_open(&self, conn: &mut Conn, _: Look) -> bool {
        !conn.has_failed
    }

    fn reset(&self, conn: &mut Conn) -> Reset {
        if conn.is_untidy { Reset::Later } else { Reset::Ready }
    }

    /// Rolls back, and forgets settings, locks, temporary tables and prepared statements.
    fn settle(&self, conn: &mut Conn, _: Deadline) -> std::result::Result<(), BoxError> {
        conn.client.reset().map_err(cause)?;
        conn.is_untidy = false;
        Ok(())
    }

    fn has_check(&self) -> bool {
        true
    }

    fn check(&self, conn: &mut Conn, _: Deadline) -> std::result::Result<(), BoxError> {
        conn.client.ping().map_err(cause)
    }
}

/// The client's connection, and what has to be done before the next user gets it.
///
/// The client knows whether a transaction is open, but does not show it, and to reset the
/// connection at every checkin would double the cost of a short query, and empty the client's store
/// of prepared statements. But a plain query begins no transaction, and a [`Transaction`] is rolled
/// back when it is dropped. After whatever else was done with it the connection is reset when it
/// comes back: one round trip, on a thread of the pool.
///
/// That holds as long as the server's own setting is `autocommit=1`. What a plain query does
/// besides, by `GET_LOCK` for one, is not noticed.
pub struct Conn {
    client: ::mysql::Conn,
    is_untidy: bool,
    has_failed: bool,
}

impl Conn {
    /// [`mysql::Conn::start_transaction`](::mysql::Conn::start_transaction).
    ///
    /// # Errors
    ///
    /// The client's.
    pub fn start_transaction(&mut self, options: TxOpts) -> Result<Transaction<'_>> {
        note(&mut self.has_failed, self.client.start_transaction(options))
    }
}

impl Queryable for Conn {
    fn query_iter<Q: AsRef<str>>(&mut self, query: Q) -> Result<QueryResult<'_, '_, '_, Text>> {
        self.is_untidy |= !is_plain(query.as_ref());
        note(&mut self.has_failed, self.client.query_iter(query))
    }

    /// What is prepared is taken for run: a statement may be kept, and run at any time.
    fn prep<Q: AsRef<str>>(&mut self, query: Q) -> Result<Statement> {
        self.is_untidy |= !is_plain(query.as_ref());
        note(&mut self.has_failed, self.client.prep(query))
    }

    fn close(&mut self, statement: Statement) -> Result<()> {
        note(&mut self.has_failed, self.client.close(statement))
    }

    fn exec_iter<S, P>(
        &mut self,
        statement: S,
        params: P,
    ) -> Result<QueryResult<'_, '_, '_, Binary>>
    where
        S: AsStatement,
        P: Into<Params>,
    {
        let statement = statement.as_statement(self)?.into_owned();
        note(&mut self.has_failed, self.client.exec_iter(statement, params))
    }

    fn exec_batch<S, P, I>(&mut self, statement: S, params: I) -> Result<()>
    where
        S: AsStatement,
        P: Into<Params>,
        I: IntoIterator<Item = P>,
    {
        let statement = statement.as_statement(self)?.into_owned();
        note(&mut self.has_failed, self.client.exec_batch(statement, params))
    }
}

impl Deref for Conn {
    type Target = ::mysql::Conn;

    fn deref(&self) -> &::mysql::Conn {
        &self.client
    }
}

impl DerefMut for Conn {
    fn deref_mut(&mut self) -> &mut ::mysql::Conn {
        self.is_untidy = true;
        &mut self.client
    }
}

/// True for a single statement of a kind that neither begins a transaction nor changes a setting.
fn is_plain(query: &str) -> bool {
    const PLAIN: [&str; 5] = ["SELECT", "INSERT", "UPDATE", "DELETE", "REPLACE"];
    let query = query.trim().trim_end_matches(';');
    let verb = query.split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default();
    PLAIN.iter().any(|plain| plain.eq_ignore_ascii_case(verb)) && !query.contains(';')
}

/// What lies beneath an error of the client's, which tells programs nothing of it: whether it was a
/// time-out, or nobody listened there.
fn cause(error: Error) -> BoxError {
    match error {
        Error::IoError(error) => error.into(),
        Error::CodecError(error) => error.into(),
        Error::MySqlError(error) => error.into(),
        Error::DriverError(DriverError::CouldNotConnect(Some((_, text, kind)))) => {
            io::Error::new(kind, text).into()
        }
        Error::DriverError(error @ DriverError::ConnectTimeout) => {
            io::Error::new(io::ErrorKind::TimedOut, error).into()
        }
        error => error.into(),
    }
}

/// Notes that the connection is not to be used again: what failed was not just a statement.
fn note<T>(has_failed: &mut bool, result: Result<T>) -> Result<T> {
    let is_sound = |error: &Error| {
        matches!(error, Error::MySqlError(_) | Error::FromValueError(_) | Error::FromRowError(_))
    };
    *has_failed |= result.as_ref().is_err_and(|error| !is_sound(error));
    result
}
