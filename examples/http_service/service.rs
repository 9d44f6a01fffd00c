//! The service: a thread per connection, and a few routes.

#[path = "message.rs"]
mod message;

use std::collections::HashMap;
use std::io::{self, Read};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::Mutex;
use warmline::{Deadline, TcpKeepalive};

use self::message::{Answer, Content, Input, Request, Trouble};

/// Connections served at a time: each has a thread.
const MOST_CONNECTIONS: usize = 1024;
/// A connection may be idle for so long between requests.
const IDLE_TIME: Duration = Duration::from_secs(30);
const LAST_LOOK: Duration = Duration::from_millis(1);
/// A head must be complete after so long; writing waits for so long.
const STEP_TIME: Duration = Duration::from_secs(10);
/// Longer waits and longer answers are not to be had.
const MOST_SLOW: Duration = Duration::from_secs(60);
const MOST_BYTES: u64 = 1024 * 1024 * 1024;
const CHUNKS: [&str; 3] = ["a few ", "chunks, ", "and a trailer\n"];
/// A client that still sends what is not wanted is heard for so long, or else it would lose the
/// answer together with the connection.
const LINGER_TIME: Duration = Duration::from_secs(1);

/// Runs until it is dropped. That waits for the requests that have begun, and closes connections
/// that are idle.
pub(crate) struct Service {
    shared: Arc<Shared>,
    address: SocketAddr,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    table: Mutex<Table>,
    accepted: AtomicU64,
    answered: AtomicU64,
}

#[derive(Default)]
struct Table {
    is_over: bool,
    /// Every connection by its number; those that wait for a request can be woken.
    open: HashMap<u64, Open>,
}

struct Open {
    stream: Arc<TcpStream>,
    is_idle: bool,
}

impl Service {
    pub(crate) fn start(address: impl ToSocketAddrs) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let acceptor = thread::Builder::new().name("acceptor".into());
        let acceptor = acceptor.spawn(move || theirs.serve(&listener))?;
        Ok(Self { shared, address, acceptor: Some(acceptor) })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections so far.
    pub(crate) fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::Relaxed)
    }

    /// Requests so far.
    pub(crate) fn answered(&self) -> u64 {
        self.shared.answered.load(Ordering::Relaxed)
    }

    /// Waits until it is over: it is not, unless its thread panics.
    pub(crate) fn wait(mut self) {
        let _ended = self.acceptor.take().map(JoinHandle::join);
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let Some(acceptor) = self.acceptor.take() else { return };
        let mut table = self.shared.table.lock();
        table.is_over = true;
        for open in table.open.values().filter(|open| open.is_idle) {
            // A request that has come already is still read.
            let _gone = open.stream.shutdown(Shutdown::Read);
        }
        drop(table);
        drop(TcpStream::connect(self.address)); // wakes the accepting thread
        let _ended = acceptor.join();
    }
}

impl Shared {
    /// Accepts until the service is over; returns when the last connection has ended.
    fn serve(&self, listener: &TcpListener) {
        thread::scope(|scope| {
            for stream in listener.incoming() {
                if self.table.lock().is_over {
                    return;
                }
                let stream = match stream {
                    Ok(stream) => Arc::new(stream),
                    Err(error) => {
                        log::warn!("could not accept: {error}");
                        thread::park_timeout(Duration::from_millis(50)); // out of descriptors, say
                        continue;
                    }
                };
                let number = self.accepted.fetch_add(1, Ordering::Relaxed);
                if !self.enter(number, &stream) {
                    log::warn!("{MOST_CONNECTIONS} connections are open: closing another");
                    continue;
                }
                scope.spawn(move || {
                    if let Err(error) = self.converse(number, &stream) {
                        log::info!("connection {number} ended: {error}");
                    }
                    self.table.lock().open.remove(&number);
                });
            }
        });
    }

    fn enter(&self, number: u64, stream: &Arc<TcpStream>) -> bool {
        let mut table = self.table.lock();
        let has_room = table.open.len() < MOST_CONNECTIONS;
        if has_room {
            let open = Open { stream: Arc::clone(stream), is_idle: false };
            table.open.insert(number, open);
        }
        has_room
    }

    /// Says whether the connection waits for a request; false if the service is over.
    fn set_idle(&self, number: u64, is_idle: bool) -> bool {
        let mut table = self.table.lock();
        if let Some(open) = table.open.get_mut(&number) {
            open.is_idle = is_idle;
        }
        !table.is_over
    }

    /// Answers the requests of one connection.
    fn converse(&self, number: u64, stream: &TcpStream) -> io::Result<()> {
        // A client that vanished without a word is noticed after 75 s.
        TcpKeepalive::default().apply(stream)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(STEP_TIME))?;
        let mut input = Input::new(stream);
        loop {
            // What has come before the end is answered.
            let patience = if self.set_idle(number, true) { IDLE_TIME } else { LAST_LOOK };
            let has_come = input.wait(Deadline::after(patience))?;
            self.set_idle(number, false);
            if !has_come {
                return Ok(());
            }
            match self.exchange(&mut input) {
                Ok(true) => {}
                Ok(false) => return linger(stream),
                Err(Trouble::Gone(error)) => return Err(error),
                Err(Trouble::Refused(status)) => {
                    Answer::of(status).closing().write(stream, false)?;
                    return linger(stream);
                }
            }
        }
    }

    /// One request and its answer; false if the connection ends with it.
    fn exchange(&self, input: &mut Input<'_>) -> Result<bool, Trouble> {
        let mut request = Request::read(input, Deadline::after(STEP_TIME))?;
        log::debug!("{} {}", request.method, request.path);
        let mut answer = route(&mut request, input)?;
        // What was not asked for has to be read, or else it would be taken for the next request.
        let is_read = request.skip_body(input);
        let goes_on = is_read && request.keeps_alive() && !self.table.lock().is_over;
        if !goes_on {
            answer = answer.closing();
        } else if request.is_old {
            answer.headers.push(("Connection", "keep-alive".into()));
        }
        self.answered.fetch_add(1, Ordering::Relaxed);
        answer.write_to(input.stream, &request).map_err(Trouble::Gone)?;
        Ok(goes_on)
    }
}

fn route(request: &mut Request, input: &mut Input<'_>) -> Result<Answer, Trouble> {
    let allowed = match request.path.as_str() {
        "/echo" => &["POST", "PUT"],
        _ => &["GET", "HEAD"],
    };
    let is_allowed = allowed.contains(&request.method.as_str());
    let answer = match request.path.as_str() {
        "/" | "/echo" | "/slow" | "/chunked" if !is_allowed => Answer::not_allowed(allowed),
        "/" => Answer::text("This is a small HTTP/1.1 service.\n"),
        "/echo" => {
            let body = request.read_body(input)?;
            let kind = request.header("content-type").unwrap_or("application/octet-stream");
            Answer::bytes(kind.to_owned(), body)
        }
        "/slow" => {
            let wait = Duration::from_millis(number(request.parameter("ms"))?).min(MOST_SLOW);
            let until = Deadline::after(wait);
            while !until.has_passed() {
                thread::park_timeout(until.remaining());
            }
            Answer::text(&format!("That took {} ms.\n", wait.as_millis()))
        }
        "/chunked" => {
            let content = Content::Chunks(&CHUNKS, "X-Chunks: 3");
            Answer::new(200, "text/plain", content)
        }
        path => match path.strip_prefix("/bytes/") {
            Some(_) if !is_allowed => Answer::not_allowed(allowed),
            Some(count) => {
                let count = number(Some(count))?.min(MOST_BYTES);
                Answer::new(200, "application/octet-stream", Content::Same(b'x', count))
            }
            None => Answer::of(404),
        },
    };
    Ok(answer)
}

/// What stands in a URL where a number belongs.
fn number(text: Option<&str>) -> Result<u64, Trouble> {
    text.and_then(|text| text.parse().ok()).ok_or(Trouble::Refused(400))
}

/// Ends a connection so that its client gets what was written, even if it still sends.
fn linger(stream: &TcpStream) -> io::Result<()> {
    stream.shutdown(Shutdown::Write)?;
    let by = Deadline::after(LINGER_TIME);
    while !by.has_passed() {
        stream.set_read_timeout(Some(by.remaining().max(Duration::from_millis(1))))?;
        if (&mut &*stream).read(&mut [0; 16 * 1024]).map_or(true, |count| count == 0) {
            break;
        }
    }
    Ok(())
}
