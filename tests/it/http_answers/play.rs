//! A client, a server that answers whatever it is told to, and what must hold in the end.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use warmline::http::types::Method;
use warmline::http::{Body, Client, ErrorKind, Event};

use super::strict::{self, Reading};

/// Nothing takes longer, unless it hangs.
const LONG: Duration = Duration::from_secs(20);
/// What every request but the one in question is answered.
const OTHER: &str = "the answer to another request";
/// So much cannot be written before the server reads it.
const LONG_BODY: usize = 1024 * 1024;

/// What is asked, how the answer is cut, and how it is read: two bytes before the answer itself.
///
/// The first: two bits for the request (GET, HEAD, POST, a POST that is answered before it is
/// read), two for the reader (all, in small bites, a part, nothing), and one for a connection that
/// was used before. The second: into how many pieces the answer is cut, and where. `@@`: a GET on a
/// new connection, answered in one piece and read as a whole.
struct Case<'c> {
    shape: u8,
    cuts: u8,
    answer: &'c [u8],
}

impl Case<'_> {
    fn method(&self) -> Method {
        match self.shape & 3 {
            0 => Method::GET,
            1 => Method::HEAD,
            _ => Method::POST,
        }
    }

    fn body(&self) -> Option<usize> {
        match self.shape & 3 {
            2 => Some(5),
            3 => Some(LONG_BODY),
            _ => None,
        }
    }

    const fn is_answered_early(&self) -> bool {
        self.shape & 3 == 3
    }

    /// Its reader wants to see the end.
    const fn reads_all(&self) -> bool {
        self.shape & 8 == 0
    }

    const fn is_warm(&self) -> bool {
        self.shape & 16 != 0
    }

    /// The answer in up to eight pieces.
    fn pieces(&self) -> Vec<Vec<u8>> {
        let mut random = u64::from(self.cuts) + 1;
        let mut ends: Vec<usize> = (0..self.cuts & 7)
            .map(|_| {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                usize::try_from(random >> 33).unwrap_or(0) % (self.answer.len() + 1)
            })
            .collect();
        ends.push(self.answer.len());
        ends.sort_unstable();
        let mut from = 0;
        let cut = |end: usize| {
            let piece = self.answer.get(from..end).unwrap_or_default().to_vec();
            from = end;
            piece
        };
        ends.into_iter().map(cut).collect()
    }
}

/// What the server is to do next.
#[derive(Default)]
struct Orders {
    pieces: Vec<Vec<u8>>,
    /// It goes on to listen after its answer, and does not hang up.
    stays: bool,
    is_early: bool,
    /// How often the answer was begun, and how often that was over.
    begun: AtomicUsize,
    ended: AtomicUsize,
}

/// What has come of one case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The connection was used again.
    Kept,
    /// It was not.
    Closed,
}

/// Plays cases, one after another.
pub(crate) struct Player {
    client: Client,
    socket: PathBuf,
    orders: Arc<Mutex<Arc<Orders>>>,
    _folder: tempfile::TempDir,
}

impl Player {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("server.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let orders = Arc::<Mutex<Arc<Orders>>>::default();
        let theirs = Arc::clone(&orders);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let orders = Arc::clone(&theirs);
                std::thread::spawn(move || serve(&stream, &orders));
            }
        });
        Self { client: client(), socket, orders, _folder: folder }
    }

    /// Plays one case, and panics if something is wrong.
    pub(crate) fn play(&mut self, input: &[u8]) -> Option<Outcome> {
        let [shape, cuts, answer @ ..] = input else { return None };
        let case = Case { shape: *shape, cuts: *cuts, answer };
        let reading = strict::read(answer, case.method() == Method::HEAD);
        let ends = matches!(reading, Reading::Ends { .. });
        let orders = Arc::new(Orders {
            pieces: case.pieces(),
            stays: ends,
            is_early: case.is_answered_early(),
            begun: AtomicUsize::new(0),
            ended: AtomicUsize::new(0),
        });
        *self.orders.lock() = Arc::clone(&orders);
        if case.is_warm() {
            self.ask_another();
        } else {
            self.close_all();
        }

        let is_returned = self.ask(&case, &reading);
        if is_returned && case.reads_all() {
            assert!(ends, "the connection went back after an answer without a certain end");
        }
        self.await_rest(&orders);
        let opened = self.client.pool().stats().opened();
        self.ask_another();
        let is_kept = self.client.pool().stats().opened() == opened;
        if is_kept {
            let ends_there = matches!(reading, Reading::Ends { at, .. } if at == answer.len());
            assert!(ends_there, "the connection is used again, but not where the answer ended");
        }
        let lower = answer.to_ascii_lowercase();
        if lower.windows(10).any(|window| window == b"keep-alive") {
            self.client = client(); // it has learned how long this server keeps connections
        }
        Some(if is_kept { Outcome::Kept } else { Outcome::Closed })
    }

    /// Sends the request and reads its answer, as the case wants it. True if the connection went
    /// back when that had been read.
    fn ask(&self, case: &Case<'_>, reading: &Reading) -> bool {
        let last = Arc::new(Mutex::new(None));
        let noted = Arc::clone(&last);
        let trace = move |event: &Event| *noted.lock() = Some(event.clone());
        let request = self.client.request(case.method(), "http://server/case").trace(trace);
        let request = request.unix_socket(&self.socket);
        let sent = match case.body() {
            None => request.send(),
            Some(length) => request.body(vec![b'x'; length]).send(),
        };
        let read = sent.map(|answer| read(answer.into_body(), case.shape >> 2));
        match (read, reading) {
            (Ok(Some(Ok(bytes))), Reading::Ends { content, .. }) => {
                assert_eq!(&bytes, content, "not what the answer says");
            }
            (Ok(Some(Err(kind))), _) => {
                assert_ne!(kind, ErrorKind::Timeout, "its body takes for ever");
            }
            (Ok(_), _) => {}
            (Err(error), _) => assert_ne!(error.kind(), ErrorKind::Timeout, "{error:?}"),
        }
        let last = last.lock();
        matches!(*last, Some(Event::Returned { .. }))
    }

    /// A request whose answer nobody else must get.
    fn ask_another(&self) {
        let request = self.client.get("http://server/other").unix_socket(&self.socket);
        let text = request.send().map(|answer| answer.into_body().text());
        let text = text.expect("an ordinary request is answered").expect("and whole");
        assert_eq!(text, OTHER, "the bytes of one request were delivered to another");
    }

    fn close_all(&self) {
        self.client.pool().evict_all();
        eventually("it stays though it was evicted", || self.client.pool().stats().total() == 0);
    }

    /// Returns once the whole answer was written, and the pool has read what it wants of it.
    fn await_rest(&self, orders: &Orders) {
        eventually("the answer is never written", || {
            let ended = orders.ended.load(Ordering::SeqCst);
            ended > 0 && ended == orders.begun.load(Ordering::SeqCst)
        });
        let is_still = || {
            let stats = self.client.pool().stats();
            stats.total() == stats.idle()
        };
        eventually("the pool has no rest", is_still);
    }
}

fn eventually(what: &str, condition: impl Fn() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < LONG, "{what}");
        std::thread::yield_now();
    }
}

fn client() -> Client {
    // What comes after an answer may come at any time: it is looked for at every checkout.
    let builder =
        Client::builder().pool(|pool| pool.checkout_timeout(LONG).probe_after(Duration::ZERO));
    builder.max_redirects(0).timeout(LONG).build().expect("a client can be built")
}

/// All of a body, or why not; `None` if not all of it was wanted.
fn read(mut body: Body, how: u8) -> Option<Result<Vec<u8>, ErrorKind>> {
    let mut bite = [0; 7];
    match how & 3 {
        0 => Some(body.bytes().map_err(|error| error.kind())),
        1 => {
            let mut bytes = Vec::new();
            loop {
                match body.read(&mut bite) {
                    Ok(0) => return Some(Ok(bytes)),
                    Ok(count) => bytes.extend_from_slice(bite.get(..count).unwrap_or_default()),
                    Err(error) => return Some(Err(kind_of(&error))),
                }
            }
        }
        2 => {
            let _part = body.read(&mut bite);
            None
        }
        _ => None,
    }
}

fn kind_of(error: &io::Error) -> ErrorKind {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<warmline::http::Error>());
    inner.expect("an error of the client").kind()
}

/// Answers the requests of one connection, until either side has enough.
fn serve(stream: &UnixStream, orders: &Mutex<Arc<Orders>>) {
    let mut reader = BufReader::new(stream);
    while let Some((is_case, length)) = read_head(&mut reader) {
        if !is_case {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", OTHER.len());
            if (&mut &*stream).write_all((head + OTHER).as_bytes()).is_err() {
                return;
            }
            continue;
        }
        let orders = Arc::clone(&orders.lock());
        if !orders.is_early && !skip(&mut reader, length) {
            return;
        }
        orders.begun.fetch_add(1, Ordering::SeqCst);
        let is_written = orders.pieces.iter().all(|piece| {
            // The client may see it before the next one.
            (0..4).for_each(|_| std::thread::yield_now());
            (&mut &*stream).write_all(piece).is_ok()
        });
        if !orders.stays {
            let _gone = stream.shutdown(Shutdown::Write);
        }
        orders.ended.fetch_add(1, Ordering::SeqCst);
        if !is_written {
            return;
        }
        if orders.is_early && !skip(&mut reader, length) {
            return;
        }
    }
}

/// Whether it is the request in question, and how long its body is.
fn read_head(reader: &mut impl BufRead) -> Option<(bool, u64)> {
    let (mut is_case, mut length) = (None, 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            return is_case.map(|is_case| (is_case, length));
        }
        is_case = is_case.or_else(|| Some(line.contains(" /case ")));
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
    }
}

fn skip(reader: &mut impl Read, length: u64) -> bool {
    io::copy(&mut reader.take(length), &mut io::sink()).is_ok_and(|count| count == length)
}
