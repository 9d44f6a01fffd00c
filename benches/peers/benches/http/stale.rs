//! Connections that the server closes as they are used again.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use peers::{Rng, is_quick, result};

use crate::client::{BoxError, Candidate, Reqwest, Ureq};
use crate::nginx::Nginx;
use crate::ours::{Warmline, is_stale};
use crate::target::{Size, Target};

/// Where nginx closes connections that are idle for [`IDLE`].
pub(crate) const PATH: &str = "/stale";
const IDLE: Duration = Duration::from_secs(1);
/// Requests come so much before that or after it, at most.
const AROUND: Duration = Duration::from_millis(10);
/// Threads begin one after the other.
const APART: Duration = Duration::from_millis(5);
/// No server closes so few.
const MOST_TRIES: u64 = 2_000;

const CANDIDATES: [Candidate; 3] =
    [Candidate::of::<Warmline>(), Candidate::of::<Ureq>(), Candidate::of::<Reqwest>()];

/// What came of many requests.
#[derive(Default)]
struct Tally {
    requests: u64,
    errors: u64,
    /// How many of the errors say that the connection was stale.
    stale: u64,
    example: Option<String>,
}

impl Tally {
    fn add(&mut self, outcome: Result<(), BoxError>) {
        self.requests += 1;
        if let Err(error) = outcome {
            self.errors += 1;
            self.stale += u64::from(is_stale(&*error));
            self.example.get_or_insert_with(|| error.to_string());
        }
    }

    fn merge(mut self, other: Self) -> Self {
        self.requests += other.requests;
        self.errors += other.errors;
        self.stale += other.stale;
        self.example = self.example.or(other.example);
        self
    }
}

/// What is asked of every candidate.
struct Extent {
    threads: usize,
    /// Requests of each thread, each after a time of idleness.
    requests: usize,
    /// Connections that the other server closes.
    closes: u64,
}

pub(crate) fn run(nginx: &Nginx) {
    let extent = match is_quick() {
        true => Extent { threads: 20, requests: 1, closes: 20 },
        false => Extent { threads: 60, requests: 5, closes: 100 },
    };
    for method in ["GET", "POST"] {
        for candidate in CANDIDATES {
            let target = nginx.small(method, PATH);
            let idle = after_idleness(candidate, &target, &extent);
            let second = to_second_request(candidate, method, extent.closes);
            report(candidate, method, &extent, idle, second);
        }
    }
}

/// Each thread has a client of its own, and so a connection: how long that was idle is known.
fn after_idleness(candidate: Candidate, target: &Target, extent: &Extent) -> Tally {
    let ask = |thread: usize| {
        let visitor = (candidate.open)(1);
        let mut visit = visitor.visits(target);
        let mut rng = Rng::new(thread as u64);
        // Not all at once.
        thread::sleep(APART * thread as u32);
        visit().expect("the server is up");
        let mut tally = Tally::default();
        for _ in 0..extent.requests {
            let around = Duration::from_micros(rng.below(2 * AROUND.as_micros() as usize) as u64);
            thread::sleep(IDLE - AROUND + around);
            tally.add(visit());
        }
        tally
    };
    thread::scope(|scope| {
        let ask = &ask;
        let threads = (0..extent.threads).map(|thread| scope.spawn(move || ask(thread)));
        let threads = Vec::from_iter(threads);
        let tallies = threads.into_iter().map(|thread| thread.join().expect("no panics"));
        tallies.fold(Tally::default(), Tally::merge)
    })
}

/// One thread, until the server has closed so many connections.
fn to_second_request(candidate: Candidate, method: &'static str, closes: u64) -> Tally {
    let server = Fickle::start().expect("a listener on loopback");
    let target = Target::new(server.address, method, "/", Size::Tiny.bytes());
    let visitor = (candidate.open)(1);
    let mut visit = visitor.visits(&target);
    let mut tally = Tally::default();
    while server.closed.load(Ordering::SeqCst) < closes && tally.requests < MOST_TRIES {
        tally.add(visit());
    }
    tally
}

fn report(candidate: Candidate, method: &str, extent: &Extent, idle: Tally, second: Tally) {
    let is_ours = candidate.is_ours();
    let Extent { threads, closes, .. } = extent;
    let name = format!("stale_{}_errors", method.to_lowercase());
    let words = format!(
        "{}; {} of {} {method}s after {IDLE:?} +-{AROUND:?} of idleness, as long as nginx keeps \
         connections, threads={threads}, each with a client of its own; {} of {} {method}s to a \
         server that closed {closes} connections when the second request came",
        (candidate.settings)(),
        idle.errors,
        idle.requests,
        second.errors,
        second.requests,
    );
    let all = idle.merge(second);
    let example = all.example.map_or(String::new(), |text| format!(", \"{text}\" say"));
    let goal = if is_ours && method == "GET" { "target 0" } else { "no target" };
    let of_kind = if is_ours { format!("; {} of kind Stale", all.stale) } else { String::new() };
    result(
        &candidate.figure(&name, ""),
        all.errors,
        "errors",
        format_args!("{words}{of_kind}; {goal}{example}"),
    );
    if is_ours && method == "POST" {
        let others = all.errors - all.stale;
        let config = format!("{words}; errors of any kind but Stale; target 0");
        result("stale_post_other_errors", others, "errors", config);
    }
}

/// A server that answers the first request of each connection, and closes it when the second came.
struct Fickle {
    address: SocketAddr,
    /// Connections closed with a request unanswered.
    closed: Arc<AtomicU64>,
}

impl Fickle {
    fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let closed = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&closed);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let count = Arc::clone(&count);
                // Until the other end has closed it, or the second request came.
                thread::spawn(move || answer_once(stream, &count));
            }
        });
        Ok(Self { address, closed })
    }
}

fn answer_once(stream: TcpStream, closed: &AtomicU64) -> io::Result<()> {
    const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    receive(&mut reader)?;
    reader.get_mut().write_all(ANSWER.as_bytes())?;
    receive(&mut reader)?;
    // Before the close: who sees that sees this.
    closed.fetch_add(1, Ordering::SeqCst);
    Ok(())
}

/// Reads a request, with its body.
fn receive(reader: &mut impl BufRead) -> io::Result<()> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().map_err(io::Error::other)?;
        }
    }
    io::copy(&mut reader.take(length), &mut io::sink())?;
    Ok(())
}
