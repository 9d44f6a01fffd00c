//! What does a pool save? The same requests over pooled connections and over a new connection
//! each, against a server in this process. And what becomes of idle connections when their server
//! hangs up, and of a caller when no connection comes free?
//!
//! ```text
//! cargo run --release --example quickstart [threads [requests per thread]]
//! ```
//!
//! `RUST_LOG=warmline=debug` shows every connection that is opened and closed.
#![expect(clippy::print_stdout, reason = "an example reports to its user")]
#![expect(clippy::disallowed_methods, reason = "it measures time")]
#![expect(clippy::disallowed_types, reason = "the lock of the standard library will do for it")]

use std::error::Error;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use warmline::{CloseReason, Closed, Deadline, Endpoint, Observer, Pool, TcpConnector};

type Failure = Box<dyn Error + Send + Sync>;

/// A request and its answer are this long, both.
const MESSAGE: usize = 64;
/// Connections of the run that opens one for each request. Each leaves its port unusable for a
/// minute, so there must not be too many.
const MOST_UNPOOLED: usize = 4_000;
/// Connections that are idle when the server hangs up.
const IDLE: usize = 8;

fn main() -> Result<(), Failure> {
    env_logger::init();
    let mut numbers = std::env::args().skip(1).map(|text| text.parse::<usize>());
    let threads = numbers.next().transpose()?.unwrap_or(8).clamp(1, 64);
    let requests = numbers.next().transpose()?.unwrap_or(5_000).max(1);

    with_server(|server| compare(server.address, threads, requests))?;
    with_server(show_deaths)?;
    with_server(|server| show_time_out(server.address))
}

/// One request and its answer, on whatever reads and writes.
fn ask(stream: &mut (impl Read + Write), number: usize) -> io::Result<()> {
    let mut request = [0; MESSAGE];
    for (to, from) in request.iter_mut().zip(number.to_le_bytes()) {
        *to = from;
    }
    stream.write_all(&request)?;
    let mut answer = [0; MESSAGE];
    stream.read_exact(&mut answer)?;
    if answer != request {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "that answers another request"));
    }
    Ok(())
}

/// Runs both ways, prints the table and the pool's stats, and complains if the pool did not do
/// its work.
fn compare(server: SocketAddr, threads: usize, requests: usize) -> Result<(), Failure> {
    println!("{threads} threads, requests and answers of {MESSAGE} bytes, over loopback\n");
    println!(
        "{:<22} {:>9} {:>12} {:>8} {:>11} {:>9} {:>9} {:>12}",
        "", "requests", "connections", "reuse", "requests/s", "p50", "p99", "CPU/request"
    );

    let few = requests.min(MOST_UNPOOLED / threads).max(1);
    let unpooled = run(threads, few, |number| {
        let mut stream = TcpStream::connect(server)?;
        stream.set_nodelay(true)?;
        ask(&mut stream, number)?;
        Ok(())
    })?;
    unpooled.print("a connection each", unpooled.requests as u64);

    // The pool. One connection per thread is enough; the limits are the defaults.
    let pool = Pool::builder(TcpConnector::new()).name("quickstart").build()?;
    let endpoint: Endpoint<TcpConnector> = pool.endpoint(&server)?;
    let pooled = run(threads, requests, |number| {
        let mut conn = endpoint.get()?; // an idle connection, or a new one
        ask(&mut *conn, number)?;
        conn.set_complete(); // the answer was read to its end
        Ok(()) // dropped here: back to the pool
    })?;
    let stats = pool.stats();
    let reuse = pooled.print("warmline", stats.opened());

    println!("\nCPU is that of the whole process: clients and server together.");
    println!("stats: {stats}");

    pool.drain(Deadline::after(Duration::from_secs(5)))?;
    let end = pool.stats();
    println!("after drain: {} open, {} opened, {} closed", end.total(), end.opened(), end.closed());

    if stats.checkouts() != pooled.requests as u64 {
        return Err(format!("{} checkouts were counted", stats.checkouts()).into());
    }
    if requests >= 1_000 && reuse < 0.99 {
        return Err(format!("only {:.1} % of checkouts reused a connection", reuse * 100.0).into());
    }
    if end.total() != 0 || end.opened() != end.closed() {
        return Err(format!("connections were left behind: {end}").into());
    }
    Ok(())
}

/// The server hangs up on connections that are idle: the pool closes each at once, and hands out
/// none of them.
fn show_deaths(server: &Server) -> Result<(), Failure> {
    let (tell, told) = channel();
    let pool = Pool::builder(TcpConnector::new()).observer(Deaths(tell)).build()?;
    let endpoint = pool.endpoint(&server.address)?;
    ask_over(&endpoint, IDLE)?; // opens them; they are idle from here on

    println!("\nthe server hangs up on {} idle connections:\n", endpoint.stats().idle());
    println!("{:<12} {:>12} {:>12} {:>12}   reason", "", "hung up at", "noticed at", "later by");
    let hung_up = server.hang_up();
    let first = hung_up.first().copied().unwrap_or_default();
    for (number, at) in hung_up.iter().enumerate() {
        // Nobody has asked the pool for anything since; it tells of each by itself.
        let death =
            told.recv_timeout(Duration::from_secs(5)).map_err(|_| "a death was not noticed")?;
        let noticed = Duration::from_nanos(death.at().as_nanos());
        println!(
            "connection {} {:>9} µs {:>9} µs {:>9} µs   {}",
            number + 1,
            at.saturating_sub(first).as_micros(),
            noticed.saturating_sub(first).as_micros(),
            noticed.saturating_sub(*at).as_micros(),
            death.reason(),
        );
        if death.reason() != CloseReason::PeerClosed {
            return Err(format!("closed for another reason: {}", death.reason()).into());
        }
    }

    let left = endpoint.stats().idle();
    let dead = ask_over(&endpoint, IDLE)?;
    let opened = endpoint.stats().opened();
    println!("\n{left} of them are left; of the next {IDLE} checkouts {dead} got a dead one");
    if (hung_up.len(), left, dead, opened) != (IDLE, 0, 0, 2 * IDLE as u64) {
        return Err(format!("dead connections were kept: {}", endpoint.stats()).into());
    }
    Ok(())
}

/// Checks out `count` connections at the same time and asks something on each; returns how many
/// were dead.
fn ask_over(endpoint: &Endpoint<TcpConnector>, count: usize) -> Result<usize, Failure> {
    let conns = (0..count).map(|_| endpoint.get()).collect::<Result<Vec<_>, _>>()?;
    let mut dead = 0;
    for (number, mut conn) in conns.into_iter().enumerate() {
        match ask(&mut *conn, number) {
            Ok(()) => conn.set_complete(),
            Err(error) => {
                println!("a dead connection was handed out: {error}");
                dead += 1;
            }
        }
    }
    Ok(dead)
}

/// Is told by the pool of each connection that ends, and passes it on.
struct Deaths(Sender<Closed>);

impl Observer for Deaths {
    fn closed(&self, event: &Closed) {
        let _nobody_listens = self.0.send(event.clone());
    }
}

/// What a caller reads when no connection comes free.
fn show_time_out(server: SocketAddr) -> Result<(), Failure> {
    let pool = Pool::builder(TcpConnector::new()).max_per_endpoint(1).build()?;
    let held = pool.get(&server)?;
    let Err(error) = pool.get_timeout(&server, Duration::from_millis(100)) else {
        return Err("a pool of one gave out two connections".into());
    };
    println!("\na pool of one, and its connection is held:\n  {error}");
    drop(held);
    drop(pool.get(&server)?);
    println!("given back, it is handed out again: {}", pool.stats());
    Ok(())
}

/// How a run went.
struct Run {
    requests: usize,
    took: Duration,
    cpu: Duration,
    /// Of each request, in order.
    latencies: Vec<Duration>,
}

/// `requests` calls of `request` on each of `threads` threads.
fn run(
    threads: usize,
    requests: usize,
    request: impl Fn(usize) -> Result<(), Failure> + Sync,
) -> Result<Run, Failure> {
    let (began, cpu_before) = (Instant::now(), cpu_time());
    let work = || -> Result<Vec<Duration>, Failure> {
        let mut latencies = Vec::with_capacity(requests);
        for number in 0..requests {
            let asked = Instant::now();
            request(number)?;
            latencies.push(asked.elapsed());
        }
        Ok(latencies)
    };
    let results = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let join = |worker: thread::ScopedJoinHandle<'_, _>| worker.join();
        workers.into_iter().map(join).collect::<Vec<_>>()
    });
    let (took, cpu) = (began.elapsed(), cpu_time().saturating_sub(cpu_before));
    let mut latencies = Vec::with_capacity(threads * requests);
    for result in results {
        latencies.extend(result.map_err(|_| "a thread panicked")??);
    }
    latencies.sort_unstable();
    Ok(Run { requests: latencies.len(), took, cpu, latencies })
}

impl Run {
    /// Prints a line of the table; returns the share of requests that opened no connection.
    fn print(&self, name: &str, opened: u64) -> f64 {
        let requests = self.requests as f64;
        let reuse = 1.0 - opened as f64 / requests;
        println!(
            "{name:<22} {:>9} {opened:>12} {:>6.2} % {:>11.0} {:>6.0} µs {:>6.0} µs {:>9.1} µs",
            self.requests,
            reuse * 100.0,
            requests / self.took.as_secs_f64(),
            self.percentile(50),
            self.percentile(99),
            self.cpu.as_secs_f64() * 1e6 / requests,
        );
        reuse
    }

    /// In microseconds.
    fn percentile(&self, percent: usize) -> f64 {
        let at = (self.latencies.len() * percent / 100).min(self.latencies.len() - 1);
        self.latencies.get(at).map_or(0.0, |latency| latency.as_secs_f64() * 1e6)
    }
}

/// The server: a thread per connection, which answers each request with a message as long.
struct Server {
    listener: TcpListener,
    address: SocketAddr,
    is_over: AtomicBool,
    connections: Mutex<Vec<Weak<TcpStream>>>,
}

/// Runs a client beside a server of its own, which ends when the client does.
fn with_server(client: impl FnOnce(&Server) -> Result<(), Failure>) -> Result<(), Failure> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let (is_over, connections) = (AtomicBool::new(false), Mutex::default());
    let server = Server { listener, address, is_over, connections };
    thread::scope(|scope| {
        scope.spawn(|| server.serve());
        let _end = EndOnDrop(&server);
        client(&server)
    })
}

/// Ends the server, also if its client panics: else the program would wait for it for ever.
struct EndOnDrop<'s>(&'s Server);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::Relaxed);
        drop(TcpStream::connect(self.0.address)); // wakes the accepting thread
    }
}

impl Server {
    /// Accepts until it is over; returns when the last client has closed.
    fn serve(&self) {
        thread::scope(|scope| {
            for stream in self.listener.incoming() {
                if self.is_over.load(Ordering::Relaxed) {
                    return;
                }
                if let Ok(stream) = stream {
                    let stream = Arc::new(stream);
                    self.connections().push(Arc::downgrade(&stream));
                    scope.spawn(move || echo(&stream));
                }
            }
        });
    }

    /// Closes all connections from this side; returns when it closed each (monotonic clock).
    fn hang_up(&self) -> Vec<Duration> {
        let close = |stream: &Weak<TcpStream>| {
            let stream = stream.upgrade()?;
            let at = read_clock(ClockId::Monotonic);
            stream.shutdown(Shutdown::Both).ok().map(|()| at)
        };
        self.connections().iter().filter_map(close).collect()
    }

    /// Those that are open.
    fn connections(&self) -> MutexGuard<'_, Vec<Weak<TcpStream>>> {
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        connections.retain(|stream| stream.strong_count() > 0);
        connections
    }
}

fn echo(mut stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut message = [0; MESSAGE];
    loop {
        stream.read_exact(&mut message)?; // fails when the client has closed
        stream.write_all(&message)?;
    }
}

/// The CPU time that this process has used.
fn cpu_time() -> Duration {
    read_clock(ClockId::ProcessCPUTime)
}

fn read_clock(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::from_secs(seconds) + Duration::from_nanos(u64::try_from(time.tv_nsec).unwrap_or(0))
}
