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

use ::mysql::prelude::{AsStatement, FromRow, Protocol, Queryable};
use ::mysql::{
    Binary, ChangeUserOpts, DriverError, Error, Opts, OptsBuilder, Params, QueryResult, Result,
    Row, Statement, Text, from_row,
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
        Ok(Conn { client, is_untidy: false, is_unread: false, has_failed: false })
    }

    fn watch<'c>(&self, conn: &'c Conn) -> Watch<'c> {
        Watch::Raw(conn.client.as_raw_fd())
    }

    fn is_open(&self, conn: &mut Conn, _: Look) -> bool {
        !conn.has_failed
    }

    fn reset(&self, conn: &mut Conn) -> Reset {
        if conn.is_untidy || conn.is_unread { Reset::Later } else { Reset::Ready }
    }

    /// Logs in once more: that rolls back, and forgets settings, locks, temporary tables and
    /// prepared statements. The client's `reset` does as much, but leaves the database and the user
    /// that were changed to.
    fn settle(&self, conn: &mut Conn, _: Deadline) -> std::result::Result<(), BoxError> {
        if conn.is_unread {
            // What is left of an answer that was cut off is no answer to this, as its number tells.
            // That number is a byte, and may be right by chance; it is not again for the next.
            conn.client.ping().map_err(cause)?;
        }
        let own = |text: Option<&str>| text.map(str::to_owned);
        let login = ChangeUserOpts::new()
            .with_user(own(self.options.get_user()))
            .with_pass(own(self.options.get_pass()))
            .with_db_name(own(self.options.get_db_name()));
        conn.client.change_user(login).map_err(cause)?;
        conn.client.set_local_infile_handler(None); // the options' own again
        for query in self.options.get_init() {
            conn.client.query_drop(query).map_err(cause)?;
        }
        (conn.is_untidy, conn.is_unread) = (false, false);
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
/// of prepared statements. But a plain query begins no transaction. After whatever else was done
/// with it, a transaction of the client's own among it, the connection is reset when it comes back:
/// a round trip or two, on a thread of the pool.
///
/// That holds as long as the server's own setting is `autocommit=1`. What a plain query does
/// besides, by `GET_LOCK` for one, is not noticed.
///
/// An answer that is not read to its end is read by the client when it is dropped, which keeps to
/// itself whether that failed. So the methods that read whole answers are here once more. After
/// `query_iter`, `exec_iter`, and what ends in `_opt`, the connection is reset as well: if there is
/// more to come of an answer, that fails, and it is closed.
pub struct Conn {
    client: ::mysql::Conn,
    is_untidy: bool,
    /// An answer may not have been read to its end.
    is_unread: bool,
    has_failed: bool,
}

impl Conn {
    fn ask(&mut self, query: &str) -> Result<Answer<'_, Text>> {
        self.is_untidy |= !is_plain(query);
        let result = note(&mut self.has_failed, self.client.query_iter(query))?;
        self.is_unread = true;
        Ok(Answer { result, is_unread: &mut self.is_unread, has_failed: &mut self.has_failed })
    }

    fn run<S, P>(&mut self, statement: S, params: P) -> Result<Answer<'_, Binary>>
    where
        S: AsStatement,
        P: Into<Params>,
    {
        let statement = statement.as_statement(self)?.into_owned();
        let result = note(&mut self.has_failed, self.client.exec_iter(statement, params))?;
        self.is_unread = true;
        Ok(Answer { result, is_unread: &mut self.is_unread, has_failed: &mut self.has_failed })
    }
}

/// The answer to one query, and what it shows of its connection.
struct Answer<'c, P: Protocol> {
    result: QueryResult<'c, 'c, 'c, P>,
    is_unread: &'c mut bool,
    has_failed: &'c mut bool,
}

impl<P: Protocol> Answer<'_, P> {
    /// Reads all, and gives `take` each row of the first set.
    fn read(mut self, take: impl FnMut(Row)) -> Result<()> {
        let read = self.read_sets(take);
        // An error of the server's is the end of its answer, too.
        *self.is_unread = false;
        note(self.has_failed, read)
    }

    fn read_sets(&mut self, mut take: impl FnMut(Row)) -> Result<()> {
        self.result.by_ref().try_for_each(|row| row.map(&mut take))?;
        while let Some(mut rows) = self.result.iter() {
            rows.try_for_each(|row| row.map(drop))?;
        }
        Ok(())
    }

    fn fold<T: FromRow, U>(self, init: U, mut add: impl FnMut(U, T) -> U) -> Result<U> {
        let mut sum = Some(init);
        self.read(|row| sum = sum.take().map(|sum| add(sum, from_row(row))))?;
        Ok(sum.expect("each row puts it back"))
    }

    fn first<T: FromRow>(self) -> Result<Option<T>> {
        let mut first = None;
        self.read(|row| first = first.take().or(Some(row)))?;
        Ok(first.map(from_row))
    }
}

impl Queryable for Conn {
    fn query_iter<Q: AsRef<str>>(&mut self, query: Q) -> Result<QueryResult<'_, '_, '_, Text>> {
        Ok(self.ask(query.as_ref())?.result)
    }

    fn query_first<T: FromRow, Q: AsRef<str>>(&mut self, query: Q) -> Result<Option<T>> {
        self.ask(query.as_ref())?.first()
    }

    fn query_fold<T, F, Q, U>(&mut self, query: Q, init: U, add: F) -> Result<U>
    where
        Q: AsRef<str>,
        T: FromRow,
        F: FnMut(U, T) -> U,
    {
        self.ask(query.as_ref())?.fold(init, add)
    }

    fn query_drop<Q: AsRef<str>>(&mut self, query: Q) -> Result<()> {
        self.ask(query.as_ref())?.read(drop)
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
        Ok(self.run(statement, params)?.result)
    }

    fn exec_first<T, S, P>(&mut self, statement: S, params: P) -> Result<Option<T>>
    where
        S: AsStatement,
        P: Into<Params>,
        T: FromRow,
    {
        self.run(statement, params)?.first()
    }

    fn exec_fold<T, S, P, U, F>(&mut self, statement: S, params: P, init: U, add: F) -> Result<U>
    where
        S: AsStatement,
        P: Into<Params>,
        T: FromRow,
        F: FnMut(U, T) -> U,
    {
        self.run(statement, params)?.fold(init, add)
    }

    fn exec_drop<S, P>(&mut self, statement: S, params: P) -> Result<()>
    where
        S: AsStatement,
        P: Into<Params>,
    {
        self.run(statement, params)?.read(drop)
    }

    fn exec_batch<S, P, I>(&mut self, statement: S, params: I) -> Result<()>
    where
        S: AsStatement,
        P: Into<Params>,
        I: IntoIterator<Item = P>,
    {
        let statement = statement.as_statement(self)?.into_owned();
        // Rows that it gives are dropped.
        self.is_unread |= !statement.columns().is_empty();
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
/// Where a statement fails the server says so, and that ends its answer.
fn note<T>(has_failed: &mut bool, result: Result<T>) -> Result<T> {
    let is_sound = |error: &Error| {
        matches!(error, Error::MySqlError(_) | Error::FromValueError(_) | Error::FromRowError(_))
    };
    *has_failed |= result.as_ref().is_err_and(|error| !is_sound(error));
    result
}
