//! The bodies of answers.

use std::fmt;
use std::io::{self, Read, Write};
use std::time::Duration;

use ::http::HeaderMap;

use crate::clock::{self, Deadline, Stamp};
use crate::connector::Socket;
use crate::guard::PooledConn;
use crate::http::buffer::Buffer;
use crate::http::connector::{Conn, OriginConnector};
use crate::http::content::{Content, Trouble};
use crate::http::error::{Error, ErrorKind, Stage};
use crate::http::exchange::Times;
use crate::http::proto::Unfit;
use crate::http::trace::{Event, Tracer};

/// Answers that are read into memory may be so long, unless that is set otherwise.
const MOST_IN_MEMORY: u64 = 10 * 1024 * 1024;
/// Memory for an answer is made in steps of this at the most, whatever length it claims.
const MOST_AHEAD: u64 = 1024 * 1024;

/// The body of an answer: read it to its end, and its connection goes back to the pool.
///
/// It goes back with the read that delivers the last byte; where there is no body, before the
/// caller has the answer. Dropped before its end, the rest is read by the pool, if that takes no
/// more than 256 KiB and 50 ms; else the connection is closed.
///
/// Errors of [`Read`] hold an [`Error`] with the reason.
///
/// ```
/// # use std::io::{Read, Write};
/// # let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
/// # let url = format!("http://{}/", listener.local_addr()?);
/// # std::thread::spawn(move || {
/// #     let (mut stream, _) = listener.accept().unwrap();
/// #     while stream.read(&mut [0; 1024]).is_ok_and(|count| count > 0) {
/// #         stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").unwrap();
/// #     }
/// # });
/// let client = warmline::http::Client::new();
/// let mut response = client.get(&url).send()?;
/// let mut text = String::new();
/// response.body_mut().read_to_string(&mut text)?;
/// assert_eq!(text, "hello");
/// assert_eq!(client.get(&url).send()?.into_body().text()?, "hello"); // on the same connection
/// assert_eq!(client.pool().stats().opened(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Body {
    /// As long as there is something to read.
    reading: Option<Box<Reading>>,
    trailers: Option<Box<HeaderMap>>,
    tunnel: Option<Box<Upgraded>>,
    most: Option<u64>,
    is_reused: bool,
    /// What has ended it before its time, for every further read.
    failed: Option<ErrorKind>,
}

/// A body, and the connection that it comes from.
pub(crate) struct Reading {
    /// Present until the end.
    conn: Option<PooledConn<OriginConnector>>,
    content: Content,
    unfit: Option<Unfit>,
    times: Times,
    /// Bytes so far.
    count: u64,
    /// When the connection was last read from: what came later is not known of.
    heard: Stamp,
    tracer: Tracer,
}

impl Reading {
    pub(crate) fn new(
        conn: PooledConn<OriginConnector>,
        content: Content,
        unfit: Option<Unfit>,
        (times, heard): (Times, Stamp),
        tracer: Tracer,
    ) -> Self {
        Self { conn: Some(conn), content, unfit, times, count: 0, heard, tracer }
    }

    fn read(&mut self, out: &mut [u8]) -> Result<usize, Error> {
        let Some(conn) = &mut self.conn else { return Ok(0) };
        let (times, before) = (self.times, conn.socket.bytes_read());
        let result = if times.is_over() {
            Err(Trouble::Io(io::ErrorKind::TimedOut.into()))
        } else {
            self.content.read(&mut conn.socket, out, || times.by(times.read))
        };
        match result {
            Ok(count) => {
                self.count += count as u64;
                if self.content.is_done() {
                    if conn.socket.bytes_read() > before {
                        self.heard = clock::mono();
                    }
                    self.finish();
                }
                Ok(count)
            }
            Err(trouble) => {
                let error = self.error_of(trouble);
                self.give_up(Unfit::Failed);
                Err(error)
            }
        }
    }

    fn error_of(&self, trouble: Trouble) -> Error {
        let error = match trouble {
            Trouble::Io(error) if error.kind() == io::ErrorKind::TimedOut => {
                Error::timeout(Stage::Body, self.times.waited())
            }
            Trouble::Io(error) => {
                Error::new(ErrorKind::Broken, "the connection failed in the middle of the answer")
                    .because(error)
            }
            Trouble::Ended => {
                Error::new(ErrorKind::Broken, "the connection ended in the middle of the answer")
            }
            Trouble::Fault(fault) => {
                Error::new(ErrorKind::Protocol, "the answer makes no sense").because(fault)
            }
        };
        let error = error.at(Stage::Body);
        match &self.conn {
            Some(conn) => error.to(PooledConn::endpoint(conn)),
            None => error,
        }
    }

    /// The body has ended: the connection goes back, before its reader knows.
    pub(crate) fn finish(&mut self) {
        let Some(mut conn) = self.conn.take() else { return };
        let bytes = self.count;
        self.tracer.tell(|at| Event::BodyEnd { at, bytes });
        let unfit = self.unfit.or_else(|| self.content.objection(&conn.socket));
        match unfit {
            None => {
                conn.socket.set_complete();
                conn.rested = self.heard;
                drop(conn);
                self.tracer.tell(|at| Event::Returned { at });
            }
            Some(reason) => {
                PooledConn::close(conn, reason.to_pool());
                self.tracer.tell(|at| Event::Closed { at, reason });
            }
        }
    }

    fn give_up(&mut self, reason: Unfit) {
        if let Some(conn) = self.conn.take() {
            PooledConn::close(conn, reason.to_pool());
            self.tracer.tell(|at| Event::Closed { at, reason });
        }
    }

    /// It is not wanted any more.
    fn leave(&mut self) {
        if self.conn.is_none() {
            return;
        }
        if let Some(reason) = self.unfit {
            return self.give_up(reason);
        }
        // What is there already costs nothing.
        let mut sink = [0; 1024];
        loop {
            match self.content.read_here(&mut sink) {
                Ok(0) => break,
                Ok(_) => {}
                Err(_) => return self.give_up(Unfit::Failed),
            }
        }
        if self.content.is_done() {
            return self.finish();
        }
        let empty = Content::new(crate::http::proto::Framing::Empty, Buffer::new());
        let content = std::mem::replace(&mut self.content, empty);
        let Some(conn) = &mut self.conn else { return };
        conn.rested = Stamp::ZERO;
        if !conn.leave(content) {
            return self.give_up(Unfit::Unread);
        }
        self.conn = None; // back to the pool
        self.tracer.tell(|at| Event::Returned { at });
    }

    /// Reads what is left, if it is little and comes soon, so that the next request to the same
    /// server can have the connection.
    pub(crate) fn read_out(&mut self, most: u64, within: Duration) {
        if self.unfit.is_some() {
            return;
        }
        let by = Deadline::after(within);
        self.times.total = Some(self.times.total.map_or(by, |total| total.min(by)));
        let mut sink = [0; 4 * 1024];
        let begin = self.count;
        while self.conn.is_some() && self.count - begin <= most {
            if self.read(&mut sink).is_err() {
                return;
            }
        }
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.leave();
    }
}

impl Body {
    pub(crate) fn empty(is_reused: bool) -> Self {
        Self { reading: None, trailers: None, tunnel: None, most: None, is_reused, failed: None }
    }

    pub(crate) fn reading(reading: Reading, most: Option<u64>, is_reused: bool) -> Self {
        Self { reading: Some(Box::new(reading)), most, ..Self::empty(is_reused) }
    }

    pub(crate) fn tunnel(upgraded: Upgraded, is_reused: bool) -> Self {
        Self { tunnel: Some(Box::new(upgraded)), ..Self::empty(is_reused) }
    }

    pub(crate) fn reading_mut(&mut self) -> Option<&mut Reading> {
        self.reading.as_deref_mut()
    }

    /// Bytes that are left to be read, if that is known; none after a failure.
    #[must_use]
    pub fn len(&self) -> Option<u64> {
        self.reading.as_ref().map_or(Some(0), |reading| reading.content.left())
    }

    /// True if there is nothing to read, or nothing is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.reading.is_none()
    }

    /// True if the answer came on a connection that was used before.
    #[must_use]
    pub const fn is_reused(&self) -> bool {
        self.is_reused
    }

    /// What followed the body, once that was read to its end: fields of a chunked answer.
    #[must_use]
    pub fn trailers(&self) -> Option<&HeaderMap> {
        self.trailers.as_deref()
    }

    /// Reads all of it.
    ///
    /// # Blocking
    ///
    /// Until it is there, each read for [`read_timeout`](crate::http::Builder::read_timeout) at the
    /// most.
    ///
    /// # Errors
    ///
    /// Those of reading, and [`TooLong`](ErrorKind::TooLong) if it has more than 10 MiB, or than
    /// [`max_body`](crate::http::Builder::max_body) allows.
    pub fn bytes(mut self) -> Result<Vec<u8>, Error> {
        let most = self.most.unwrap_or(MOST_IN_MEMORY);
        self.most = Some(most);
        let expected = self.len().unwrap_or(0);
        if expected > most {
            return Err(too_long(most));
        }
        let mut bytes = Vec::new();
        let mut filled = 0;
        while self.reading.is_some() || self.failed.is_some() {
            if filled == bytes.len() {
                let ahead =
                    self.len().unwrap_or_else(|| filled.max(8 * 1024) as u64).min(MOST_AHEAD);
                // One more, to see with the same read that nothing follows.
                bytes.resize(filled + usize::try_from(ahead).unwrap_or(0).saturating_add(1), 0);
            }
            let room = bytes.get_mut(filled..).unwrap_or_default();
            filled += self.read_some(room)?;
        }
        bytes.truncate(filled);
        Ok(bytes)
    }

    /// Reads all of it, as text.
    ///
    /// # Blocking
    ///
    /// As [`bytes`](Body::bytes).
    ///
    /// # Errors
    ///
    /// Those of [`bytes`](Body::bytes), and [`Protocol`](ErrorKind::Protocol) if it is not UTF-8.
    pub fn text(self) -> Result<String, Error> {
        String::from_utf8(self.bytes()?).map_err(|error| {
            Error::new(ErrorKind::Protocol, "the answer is not UTF-8").because(error)
        })
    }

    /// The connection itself, after `101 Switching Protocols` or a CONNECT that succeeded; `None`
    /// otherwise. The pool's room for it is free.
    #[must_use]
    pub fn into_upgraded(mut self) -> Option<Upgraded> {
        self.tunnel.take().map(|upgraded| *upgraded)
    }

    fn read_some(&mut self, out: &mut [u8]) -> Result<usize, Error> {
        if let Some(kind) = self.failed {
            return Err(Error::new(kind, "the answer was cut off before").at(Stage::Body));
        }
        let Some(reading) = &mut self.reading else { return Ok(0) };
        // One byte more, to see whether it is too long.
        let left = self.most.map_or(u64::MAX, |most| most - reading.count.min(most));
        let room = usize::try_from(left.saturating_add(1)).unwrap_or(usize::MAX).min(out.len());
        let result = reading.read(out.get_mut(..room).unwrap_or_default());
        let result = match result {
            Ok(count) if count as u64 > left => {
                reading.give_up(Unfit::Unread);
                Err(too_long(self.most.unwrap_or(0)))
            }
            result => result,
        };
        if reading.conn.is_none() {
            let trailers = reading.content.take_trailers();
            self.trailers = (!trailers.is_empty()).then(|| Box::new(trailers));
            self.reading = None;
        }
        self.failed = result.as_ref().err().map(Error::kind);
        result
    }
}

fn too_long(most: u64) -> Error {
    let what = format!("the answer has more than {most} bytes");
    Error::new(ErrorKind::TooLong, what).at(Stage::Body)
}

impl Read for Body {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.read_some(out).map_err(Into::into)
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").field("left", &self.len()).finish_non_exhaustive()
    }
}

/// A connection that has left HTTP behind: the other protocol's bytes, in both directions.
///
/// Reads begin with what had come behind the answer's head; they and writes block for the client's
/// time-outs at the most. It belongs to no pool any more, and is
/// closed when it is dropped.
///
/// ```
/// # use std::io::{Read, Write};
/// # let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
/// # let url = format!("http://{}/", listener.local_addr()?);
/// # std::thread::spawn(move || {
/// #     let (mut stream, _) = listener.accept().unwrap();
/// #     let _ = stream.read(&mut [0; 1024]).unwrap();
/// #     let switch = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n\
/// #         Upgrade: echo\r\n\r\n";
/// #     stream.write_all(switch.as_bytes()).unwrap();
/// #     std::io::copy(&mut &stream, &mut &stream).unwrap();
/// # });
/// let client = warmline::http::Client::new();
/// let request = client.get(&url).header("connection", "upgrade").header("upgrade", "echo");
/// let mut stream = request.send()?.into_body().into_upgraded().ok_or("no upgrade")?;
/// stream.write_all(b"hello")?;
/// let mut echo = [0; 5];
/// stream.read_exact(&mut echo)?;
/// assert_eq!(&echo, b"hello");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Upgraded {
    conn: Conn,
    buffer: Buffer,
}

impl Upgraded {
    pub(crate) fn new(mut conn: Conn, buffer: Buffer, times: &Times) -> io::Result<Self> {
        conn.socket.set_read_timeout(times.read)?;
        conn.socket.set_write_timeout(times.write)?;
        Ok(Self { conn, buffer })
    }

    /// The socket, and what had come already, which is to be read first: for two threads that read
    /// and write at the same time, say.
    #[must_use]
    pub fn into_parts(self) -> (Socket, Vec<u8>) {
        let come = self.buffer.unread().to_vec();
        (self.conn.socket, come)
    }

    /// The socket, for its time-outs and addresses. What had come already is not read from there.
    pub fn socket(&mut self) -> &mut Socket {
        &mut self.conn.socket
    }
}

impl fmt::Debug for Upgraded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upgraded").field("conn", &self.conn).finish_non_exhaustive()
    }
}

impl Read for Upgraded {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.buffer.is_empty() {
            return self.conn.socket.read(out);
        }
        let count = crate::http::proto::copy(self.buffer.unread(), out, u64::MAX);
        self.buffer.consume(count);
        Ok(count)
    }
}

impl Write for Upgraded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.conn.socket.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.conn.socket.flush()
    }
}
