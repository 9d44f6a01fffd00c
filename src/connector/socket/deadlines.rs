//! Reads and writes that end by a deadline, whatever the socket's own time-outs are.

use std::io::{self, Read};

use crate::clock::Deadline;
use crate::connector::socket::{Socket, Stream};
use crate::sys::{self, Until};

/// A read that the system ends when the socket's own time-out is over says so in a word that means
/// nothing else.
const TELLS_TIME_OUT: bool = cfg!(unix);

impl Socket {
    /// Reads what is there, or waits for something to come, until `deadline` at the latest. What is
    /// there is read also when the deadline has passed.
    ///
    /// Its [read time-out](Socket::set_read_timeout) does not count. A deadline that is further
    /// away than that costs no more system calls than an ordinary read; a nearer one costs one
    /// more, and is kept to the millisecond, as time-outs of sockets are not.
    ///
    /// ```
    /// # let server = std::net::TcpListener::bind("127.0.0.1:0")?;
    /// # let address = server.local_addr()?;
    /// use std::io;
    /// use std::time::Duration;
    /// use warmline::{Deadline, Pool};
    ///
    /// let mut conn = Pool::tcp().get(&address)?;
    /// let soon = Deadline::after(Duration::from_millis(20));
    /// let error = conn.read_by(&mut [0; 8], soon).unwrap_err(); // the server is silent
    /// assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`TimedOut`](io::ErrorKind::TimedOut) at the deadline; else what the system says. After
    /// either, the connection is not reused.
    pub fn read_by(&mut self, buf: &mut [u8], deadline: Deadline) -> io::Result<usize> {
        loop {
            let left = deadline.remaining();
            // Through a descriptor that was lent its time-out may have been changed.
            let ends_in_time =
                !self.is_lent() && self.read_timeout.is_some_and(|timeout| timeout <= left);
            if !(ends_in_time && TELLS_TIME_OUT) {
                if let Err(error) = self.await_ready(Until::Readable, deadline) {
                    return self.note_read(Err(error), true);
                }
            }
            let result = either!(&mut self.stream, stream => stream.read(buf));
            match &result {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                _ => return self.note_read(result, !buf.is_empty()),
            }
        }
    }

    /// Waits until there is something to read, until `deadline` at the latest; false if there is
    /// not. The peer's hang-up counts. Takes nothing, and to wait in vain does no harm.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn wait_readable(&mut self, deadline: Deadline) -> io::Result<bool> {
        match self.await_ready(Until::Readable, deadline) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Writes what there is room for, or waits for room, until `deadline` at the latest. What there
    /// is room for is written also when the deadline has passed.
    ///
    /// Its [write time-out](Socket::set_write_timeout) does not count, but on Windows, where a write
    /// for which there is some room may block for that long.
    ///
    /// # Errors
    ///
    /// As [`read_by`](Socket::read_by).
    pub fn write_by(&mut self, buf: &[u8], deadline: Deadline) -> io::Result<usize> {
        loop {
            match sys::send_now(self.fd(), buf) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return self.note_write(result),
            }
            if let Err(error) = self.await_ready(Until::Writable, deadline) {
                return self.note_write(Err(error));
            }
        }
    }

    /// Like [`write_by`](Socket::write_by), unless there is something to read: then `None`, at once.
    ///
    /// For long requests that a server may refuse before it has read them to their end. The peer's
    /// hang-up counts as something to read.
    ///
    /// # Errors
    ///
    /// As [`read_by`](Socket::read_by).
    pub fn write_unless_answered(
        &mut self,
        buf: &[u8],
        deadline: Deadline,
    ) -> io::Result<Option<usize>> {
        loop {
            match self.await_ready(Until::Either, deadline) {
                Ok(ready) if ready.is_readable => return Ok(None),
                Ok(_) => {}
                Err(error) => return self.note_write(Err(error)).map(Some),
            }
            match sys::send_now(self.fd(), buf) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return self.note_write(result).map(Some),
            }
        }
    }

    /// Like [`write_by`](Socket::write_by), but where there is no room it waits for something to read
    /// as well, and then does not write: `None`.
    ///
    /// For requests to a server that answers while it reads: it may take no more before its answer
    /// was read.
    ///
    /// # Errors
    ///
    /// As [`read_by`](Socket::read_by).
    pub fn write_or_hear(&mut self, buf: &[u8], deadline: Deadline) -> io::Result<Option<usize>> {
        loop {
            match sys::send_now(self.fd(), buf) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return self.note_write(result).map(Some),
            }
            match self.await_ready(Until::Either, deadline) {
                Ok(ready) if ready.is_writable => {}
                Ok(_) => return Ok(None),
                Err(error) => return self.note_write(Err(error)).map(Some),
            }
        }
    }

    fn await_ready(&self, until: Until, deadline: Deadline) -> io::Result<sys::Ready> {
        loop {
            let ready = sys::wait(self.fd(), until, deadline.remaining())?;
            if ready.is_readable || ready.is_writable {
                return Ok(ready);
            }
            if deadline.has_passed() {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
    }
}
