//! An HTTP server that does what a test tells it to, and what the tests of the client have in
//! common.
//!
//! ```text
//! let server = Server::answering(|request| Answer::ok(request.path()));
//! let server = Server::script([Answer::ok("one").close(), Answer::raw(b"HTTP/1.1 2").reset()]);
//! let server = Server::by_hand(|line| {
//!     let request = line.head()?;                  // its body is not read
//!     line.play(&Answer::raw(b"HTTP/1.1 413 No\r\nContent-Length: 0\r\n\r\n"))
//! });
//! ```

use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Receiver;
use parking_lot::Mutex;
use warmline::Stats;
use warmline::http::{Builder, Client, Event, Trace, Unfit};

use crate::support::server::{self, Peer};
use crate::support::{assert_balanced, eventually};

/// A client that has room for so many connections to one server, and no more.
pub(super) fn client_of(connections: usize) -> Client {
    limited(connections).build().unwrap()
}

/// The same, for more settings.
pub(super) fn limited(connections: usize) -> Builder {
    Client::builder().pool(move |pool| pool.max_per_endpoint(connections))
}

/// A GET, and the text of its answer.
#[track_caller]
pub(super) fn get(client: &Client, url: &str) -> String {
    client.get(url).send().unwrap().into_body().text().unwrap()
}

/// Waits until all connections of the pool are idle, and says how many there are.
#[track_caller]
pub(super) fn idle(client: &Client) -> usize {
    let stats = || client.pool().stats();
    let is_quiet = |stats: Stats| stats.total() == stats.idle();
    eventually("connections come back, or end", || is_quiet(stats()));
    let stats = stats();
    assert_balanced(&stats);
    stats.idle()
}

/// Remembers why connections were not used again. Cloning makes a second handle to the same memory.
#[derive(Clone, Default)]
pub(super) struct Endings(Arc<Mutex<Vec<Unfit>>>);

impl Endings {
    pub(super) fn reasons(&self) -> Vec<Unfit> {
        self.0.lock().clone()
    }
}

impl Trace for Endings {
    fn event(&self, event: &Event) {
        if let Event::Closed { reason, .. } = event {
            self.0.lock().push(*reason);
        }
    }
}

/// A request, as the server has it.
#[derive(Clone, Debug)]
pub(super) struct Request {
    /// The connection that it came on, from 0.
    pub(super) conn: usize,
    /// Which it is on that connection, from 0.
    pub(super) turn: usize,
    /// Its first line and its fields, without the empty line.
    pub(super) head: String,
    /// Without the framing of chunks.
    pub(super) body: Vec<u8>,
}

impl Request {
    pub(super) fn method(&self) -> &str {
        self.head.split(' ').next().unwrap_or_default()
    }

    pub(super) fn path(&self) -> &str {
        self.head.split(' ').nth(1).unwrap_or_default()
    }

    /// The values of all fields of this name, in their order.
    pub(super) fn fields(&self, name: &str) -> Vec<&str> {
        let fields = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        let named = fields.filter(|(own, _)| own.trim().eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.trim()).collect()
    }

    fn has(&self, name: &str, value: &str) -> bool {
        self.fields(name).iter().any(|own| own.eq_ignore_ascii_case(value))
    }
}

/// What the server does once it has a request, step by step. After the last step it awaits the next
/// request.
#[derive(Clone, Debug, Default)]
pub(super) struct Answer(Vec<Step>);

#[derive(Clone, Debug)]
enum Step {
    Write(Vec<u8>),
    Pause(Duration),
    Wait(Receiver<()>),
    Silence,
    HalfClose,
    Close,
    Reset,
}

impl Answer {
    /// These bytes, in one write.
    pub(super) fn raw(bytes: impl AsRef<[u8]>) -> Self {
        Self::default().then(bytes)
    }

    /// 200, with this body and its length.
    pub(super) fn ok(body: impl AsRef<[u8]>) -> Self {
        Self::with("", body)
    }

    /// The same, with more lines in its head: each with its line end.
    pub(super) fn with(lines: &str, body: impl AsRef<[u8]>) -> Self {
        let body = body.as_ref();
        let head = format!("HTTP/1.1 200 OK\r\n{lines}Content-Length: {}\r\n\r\n", body.len());
        Self::raw([head.as_bytes(), body].concat())
    }

    /// This status, and nothing after its head.
    pub(super) fn status(status: &str) -> Self {
        Self::raw(format!("HTTP/1.1 {status}\r\n\r\n"))
    }

    /// 200, with these chunks and the last one; no trailers.
    pub(super) fn chunked(chunks: &[&str]) -> Self {
        let mut bytes = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        for chunk in chunks {
            bytes.extend_from_slice(format!("{:x}\r\n{chunk}\r\n", chunk.len()).as_bytes());
        }
        bytes.extend_from_slice(b"0\r\n\r\n");
        Self::raw(bytes)
    }

    fn and(mut self, step: Step) -> Self {
        self.0.push(step);
        self
    }

    /// Then these bytes, in a write of their own.
    pub(super) fn then(self, bytes: impl AsRef<[u8]>) -> Self {
        self.and(Step::Write(bytes.as_ref().to_vec()))
    }

    /// Then nothing for so long.
    pub(super) fn pause(self, time: Duration) -> Self {
        self.and(Step::Pause(time))
    }

    /// Then nothing until the test says so.
    pub(super) fn wait(self, told: &Receiver<()>) -> Self {
        self.and(Step::Wait(told.clone()))
    }

    /// Then nothing until the client closes.
    pub(super) fn silence(self) -> Self {
        self.and(Step::Silence)
    }

    /// Then a farewell, while the client can still be heard: until it closes as well.
    pub(super) fn half_close(self) -> Self {
        self.and(Step::HalfClose)
    }

    /// Then the end of the connection.
    pub(super) fn close(self) -> Self {
        self.and(Step::Close)
    }

    /// Then its end by a reset.
    pub(super) fn reset(self) -> Self {
        self.and(Step::Reset)
    }
}

/// Listens until it is dropped; by then all of its threads have ended.
pub(super) struct Server {
    inner: server::Server,
    seen: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// Reads each request to its end, and does what `answer` says.
    pub(super) fn answering(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        Self::by_hand(move |line| {
            loop {
                let request = line.request()?;
                line.play(&answer(&request))?;
            }
        })
    }

    /// Answers the first request by the first of these, whatever connection it comes on, and so on;
    /// those after the last by the last.
    pub(super) fn script(answers: impl IntoIterator<Item = Answer>) -> Self {
        let answers: Vec<_> = answers.into_iter().collect();
        let count = Mutex::new(0);
        Self::answering(move |_| {
            let mut count = count.lock();
            let answer = answers.get(*count).or_else(|| answers.last()).cloned();
            *count += 1;
            answer.unwrap_or_default()
        })
    }

    /// Does with each connection what `script` says; when that returns, the connection is closed.
    pub(super) fn by_hand(
        script: impl Fn(&mut Line<'_>) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let seen = Arc::<Mutex<Vec<Request>>>::default();
        let inner = server::Server::scripted(over(&seen, script));
        Self { inner, seen }
    }

    /// The same on a Unix socket.
    pub(super) fn unix(
        path: &Path,
        answer: impl Fn(&Request) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let seen = Arc::<Mutex<Vec<Request>>>::default();
        let script = over(&seen, move |line: &mut Line<'_>| {
            loop {
                let request = line.request()?;
                line.play(&answer(&request))?;
            }
        });
        Self { inner: server::Server::unix(path, script), seen }
    }

    /// "http://127.0.0.1:port/", and this behind it.
    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.name())
    }

    /// "127.0.0.1:port".
    pub(super) fn name(&self) -> String {
        self.inner.name()
    }

    pub(super) fn port(&self) -> u16 {
        self.inner.address().port()
    }

    /// Connections so far.
    pub(super) fn connections(&self) -> usize {
        self.inner.accepted()
    }

    /// Connections that neither side has closed.
    pub(super) fn open(&self) -> usize {
        self.inner.open()
    }

    /// Waits until neither side has a connection open.
    #[track_caller]
    pub(super) fn await_none_open(&self) {
        eventually("connections end", || self.open() == 0);
    }

    /// What has come so far, in order: of a request that is still being read, its head.
    pub(super) fn requests(&self) -> Vec<Request> {
        self.seen.lock().clone()
    }

    /// Numbers of the connections that requests came on, in order.
    pub(super) fn conns(&self) -> Vec<usize> {
        self.seen.lock().iter().map(|request| request.conn).collect()
    }

    /// Says farewell on all connections.
    pub(super) fn hang_up(&self) {
        self.inner.hang_up();
    }
}

fn over(
    seen: &Arc<Mutex<Vec<Request>>>,
    script: impl Fn(&mut Line<'_>) -> io::Result<()> + Send + Sync + 'static,
) -> impl Fn(&mut Peer) -> io::Result<()> + Send + Sync + 'static {
    let seen = Arc::clone(seen);
    move |peer| {
        let _unix_sockets_cannot = peer.write_at_once();
        script(&mut Line { peer, here: Vec::new(), turn: 0, seen: &seen })
    }
}

/// The server's side of one connection. Its functions fail where the connection has ended.
pub(super) struct Line<'p> {
    pub(super) peer: &'p mut Peer,
    /// What has come, and was not used.
    here: Vec<u8>,
    turn: usize,
    seen: &'p Mutex<Vec<Request>>,
}

impl Line<'_> {
    /// Which connection it is, from 0.
    pub(super) fn number(&self) -> usize {
        self.peer.number()
    }

    /// The next request, with its body. Asks for that if it is to be asked for.
    pub(super) fn request(&mut self) -> io::Result<Request> {
        let mut request = self.head()?;
        if request.has("expect", "100-continue") {
            self.peer.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        self.body(&mut request)?;
        Ok(request)
    }

    /// The next request's head.
    pub(super) fn head(&mut self) -> io::Result<Request> {
        let head = self.through(b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(&head).into_owned();
        let request = Request { conn: self.number(), turn: self.turn, head, body: Vec::new() };
        self.turn += 1;
        self.seen.lock().push(request.clone());
        Ok(request)
    }

    /// The body of the request whose head was read last.
    pub(super) fn body(&mut self, request: &mut Request) -> io::Result<()> {
        if request.has("transfer-encoding", "chunked") {
            loop {
                let line = self.through(b"\r\n")?;
                let size = String::from_utf8_lossy(&line).into_owned();
                let size = usize::from_str_radix(&size, 16).map_err(io::Error::other)?;
                request.body.extend(self.take(size)?);
                self.through(b"\r\n")?;
                if size == 0 {
                    break;
                }
            }
        } else if let Some(length) = request.fields("content-length").first() {
            let length = length.parse().map_err(io::Error::other)?;
            request.body = self.take(length)?;
        }
        let mut seen = self.seen.lock();
        let is_same =
            |other: &&mut Request| (other.conn, other.turn) == (request.conn, request.turn);
        if let Some(noted) = seen.iter_mut().find(is_same) {
            noted.body.clone_from(&request.body);
        }
        Ok(())
    }

    /// So many bytes, whatever they mean.
    pub(super) fn take(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.here.len() < count {
            self.read_more()?;
        }
        Ok(self.here.drain(..count).collect())
    }

    /// Does what the answer says.
    pub(super) fn play(&mut self, answer: &Answer) -> io::Result<()> {
        for step in &answer.0 {
            match step {
                Step::Write(bytes) => self.peer.write_all(bytes)?,
                Step::Pause(time) => std::thread::sleep(*time),
                Step::Wait(told) => self.peer.wait(told)?,
                Step::Silence => self.peer.stay_silent()?,
                Step::HalfClose => {
                    self.peer.half_close()?;
                    self.peer.stay_silent()?;
                }
                Step::Close => self.peer.close(),
                Step::Reset => self.peer.reset()?,
            }
        }
        Ok(())
    }

    /// What comes before `end`, which is used up as well.
    fn through(&mut self, end: &[u8]) -> io::Result<Vec<u8>> {
        loop {
            if let Some(at) = self.here.windows(end.len()).position(|window| window == end) {
                let before = self.here.drain(..at + end.len()).take(at).collect();
                return Ok(before);
            }
            self.read_more()?;
        }
    }

    fn read_more(&mut self) -> io::Result<()> {
        let mut buffer = [0; 16 * 1024];
        let count = self.peer.read(&mut buffer)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.here.extend_from_slice(buffer.get(..count).unwrap_or_default());
        Ok(())
    }
}
