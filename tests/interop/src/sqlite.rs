//! SQLite: connections to one file, many to read and one to write.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use ::rusqlite::Connection;
use warmline::{BoxError, Connector, Deadline, EndpointLimits, Opening, Pool, Reset};

/// Opens one database, for what its key says.
///
/// There is no peer that could be gone, so there is nothing to watch and nothing to check.
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
    type Conn = Connection;

    fn open(&self, access: &Access, opening: &mut Opening) -> Result<Connection, BoxError> {
        let conn = Connection::open(&self.path)?;
        conn.busy_timeout(opening.deadline().remaining())?;
        match access {
            // Nobody who reads waits for who writes. It stays so for all who open the file.
            Access::Write => conn.pragma_update(None, "journal_mode", "wal")?,
            // And not opened for reading: that fails where nobody has written yet.
            Access::Read => conn.pragma_update(None, "query_only", true)?,
        }
        conn.busy_timeout(self.busy_timeout)?;
        Ok(conn)
    }

    fn reset(&self, conn: &mut Connection) -> Reset {
        if conn.is_autocommit() { Reset::Ready } else { Reset::Later }
    }

    fn settle(&self, conn: &mut Connection, _: Deadline) -> Result<(), BoxError> {
        Ok(conn.execute_batch("ROLLBACK")?)
    }
}
