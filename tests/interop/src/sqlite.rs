//! SQLite: connections to one file, many to read and one to write.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::path::PathBuf;
use std::time::Duration;

use ::rusqlite::Connection;
use warmline::{BoxError, Connector, Deadline, EndpointLimits, Opening, Pool, Reset};

/// Opens one database, for what its key says.
///
/// There is no peer that could be gone, so there is nothing to watch and nothing to check.
///
/// A transaction that is left open is rolled back; how long a statement waits, and whether it may
/// write, is as it was for the next user. All else that one sets on his connection is still set for
/// the next: other pragmas, temporary tables, attached databases, functions, hooks. Who does such
/// things undoes them, or [discards](warmline::PooledConn::discard) the connection.
pub struct Sqlite {
    path: PathBuf,
    busy_timeout: Duration,
}

/// What a connection is for. Connections of one kind are interchangeable.
///
/// SQLite lets one connection write at a time, and has others try again and again. With a single
/// one to write through, threads wait for it in the pool's queue instead: in order, without
/// polling, and as long as their own time-outs say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    Read,
    Write,
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "the database, to read",
            Self::Write => "the database, to write",
        })
    }
}

impl Sqlite {
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), busy_timeout: Duration::from_secs(5) }
    }

    /// How long a statement waits for other processes.
    pub fn busy_timeout(mut self, timeout: Duration) -> Self {
        self.busy_timeout = timeout;
        self
    }

    /// A pool that writes through one connection.
    pub fn pool(self) -> Result<Pool<Self>, warmline::Error> {
        let pool = Pool::builder(self).build()?;
        let writer = pool.endpoint(&Access::Write)?;
        writer.set_limits(EndpointLimits::new().max_per_endpoint(1))?;
        Ok(pool)
    }
}

impl Connector for Sqlite {
    type Key = Access;
    type Conn = Conn;

    fn open(&self, access: &Access, opening: &mut Opening) -> Result<Conn, BoxError> {
        let conn = Connection::open(&self.path)?;
        conn.busy_timeout(opening.deadline().remaining())?;
        if *access == Access::Write {
            // Nobody who reads waits for who writes. It stays so for all who open the file.
            conn.pragma_update(None, "journal_mode", "wal")?;
        }
        let conn = Conn { inner: conn, access: *access };
        self.restore(&conn)?;
        Ok(conn)
    }

    fn reset(&self, conn: &mut Conn) -> Reset {
        match self.restore(conn) {
            Err(_) => Reset::Close,
            Ok(()) if conn.is_autocommit() => Reset::Ready,
            Ok(()) => Reset::Later,
        }
    }

    fn settle(&self, conn: &mut Conn, _: Deadline) -> Result<(), BoxError> {
        Ok(conn.execute_batch("ROLLBACK")?)
    }
}

impl Sqlite {
    /// Sets what every user relies on. SQLite takes note of it, and does not touch the file.
    fn restore(&self, conn: &Conn) -> ::rusqlite::Result<()> {
        conn.busy_timeout(self.busy_timeout)?;
        // Not opened for reading only: that fails where nobody has written yet.
        conn.pragma_update(None, "query_only", conn.access == Access::Read)
    }
}

/// A connection that knows what it is for.
pub struct Conn {
    inner: Connection,
    access: Access,
}

impl Deref for Conn {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.inner
    }
}

impl DerefMut for Conn {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.inner
    }
}
