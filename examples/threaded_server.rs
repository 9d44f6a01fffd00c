//! What does the other side look like? A server with a thread per connection, which switches
//! keepalive on for the sockets it accepts, and bounds how many it serves.
//!
//! ```text
//! cargo run --example threaded_server                    # a server and a client in one process
//! cargo run --example threaded_server 127.0.0.1:7000     # a server, until it is ended
//! ```
//!
//! The protocol: a line comes, the same line goes back in upper case.
#![expect(clippy::print_stdout, reason = "an example reports to its user")]

use std::error::Error;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use warmline::{Deadline, Pool, PooledConn, TcpConnector, TcpKeepalive};

type Failure = Box<dyn Error + Send + Sync>;

/// Connections served at a time: each has a thread.
const MOST_CONNECTIONS: usize = 256;
/// Longer lines are refused.
const MOST_BYTES: u64 = 4096;
const CLIENTS: usize = 4;
const LINES: usize = 500;

fn main() -> Result<(), Failure> {
    env_logger::init();
    match std::env::args().nth(1).as_deref() {
        None | Some("--demo") => demo(),
        Some(address) => {
            let listener = TcpListener::bind(address)?;
            println!("listening on {}", listener.local_addr()?);
            serve(&listener, &Server::default());
            Ok(())
        }
    }
}

#[derive(Default)]
struct Server {
    is_over: AtomicBool,
    /// Connections at this moment.
    open: AtomicUsize,
    /// Connections so far.
    accepted: AtomicUsize,
}

/// Accepts until the server is over, with a thread for each connection; returns when the last one
/// has ended.
fn serve(listener: &TcpListener, server: &Server) {
    thread::scope(|scope| {
        for stream in listener.incoming() {
            if server.is_over.load(Ordering::Relaxed) {
                return;
            }
            let stream = match stream {
                Ok(stream) => stream,
                Err(error) => {
                    log::warn!("could not accept: {error}");
                    thread::park_timeout(Duration::from_millis(50)); // out of descriptors, say
                    continue;
                }
            };
            if server.open.load(Ordering::Relaxed) >= MOST_CONNECTIONS {
                log::warn!("{MOST_CONNECTIONS} connections are open: closing another");
                continue;
            }
            server.open.fetch_add(1, Ordering::Relaxed);
            server.accepted.fetch_add(1, Ordering::Relaxed);
            scope.spawn(move || {
                if let Err(error) = converse(&stream) {
                    log::info!("a connection ended: {error}");
                }
                server.open.fetch_sub(1, Ordering::Relaxed);
            });
        }
    });
}

/// Answers the lines of one connection, until its peer closes it.
fn converse(stream: &TcpStream) -> io::Result<()> {
    // A client that vanished without a word is noticed after 75 s, and its thread ends.
    TcpKeepalive::default().apply(stream)?;
    stream.set_nodelay(true)?;
    let (mut lines, mut answers) = (BufReader::new(stream), stream);
    let mut line = String::new();
    loop {
        line.clear();
        if io::Read::take(&mut lines, MOST_BYTES).read_line(&mut line)? == 0 {
            return Ok(());
        }
        if !line.ends_with('\n') {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the line is too long"));
        }
        line.make_ascii_uppercase();
        answers.write_all(line.as_bytes())?;
    }
}

/// The server, and clients of it through a pool.
fn demo() -> Result<(), Failure> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let server = Server::default();
    thread::scope(|scope| {
        scope.spawn(|| serve(&listener, &server));
        let _end = EndOnDrop { server: &server, address };
        talk(address)
    })?;
    let accepted = server.accepted.load(Ordering::Relaxed);
    println!("the server accepted {accepted} connections for {} lines", CLIENTS * LINES);
    if accepted > CLIENTS {
        return Err("connections were not reused".into());
    }
    Ok(())
}

/// Ends the server, also if its client panics: else the program would wait for it for ever.
struct EndOnDrop<'s> {
    server: &'s Server,
    address: SocketAddr,
}

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.server.is_over.store(true, Ordering::Relaxed);
        drop(TcpStream::connect(self.address)); // wakes the accepting thread
    }
}

fn talk(server: SocketAddr) -> Result<(), Failure> {
    let pool = Pool::builder(TcpConnector::new().read_timeout(Duration::from_secs(5)))
        .max_per_endpoint(CLIENTS)
        .build()?;
    thread::scope(|scope| {
        let client = |number: usize| {
            let pool = &pool;
            move || -> Result<(), Failure> {
                for line in 0..LINES {
                    let mut conn = pool.get(&server)?;
                    let answer = ask(&mut conn, &format!("client {number}, line {line}"))?;
                    if answer != format!("CLIENT {number}, LINE {line}\n") {
                        return Err(format!("not the answer: {answer:?}").into());
                    }
                }
                Ok(())
            }
        };
        let clients: Vec<_> = (0..CLIENTS).map(|number| scope.spawn(client(number))).collect();
        clients.into_iter().try_for_each(|c| c.join().map_err(|_| "a client panicked")?)
    })?;
    println!("the pool: {}", pool.stats());
    pool.drain(Deadline::after(Duration::from_secs(5)))?;
    Ok(())
}

fn ask(conn: &mut PooledConn<TcpConnector>, line: &str) -> io::Result<String> {
    conn.write_all(format!("{line}\n").as_bytes())?;
    let mut reader = BufReader::new(&mut **conn);
    let mut answer = String::new();
    reader.read_line(&mut answer)?;
    if !reader.buffer().is_empty() || !answer.ends_with('\n') {
        // What was read ahead is lost to the pool: it must not keep this connection.
        reader.get_mut().shutdown(std::net::Shutdown::Both)?;
        return Err(io::Error::new(io::ErrorKind::InvalidData, "that is not one line"));
    }
    conn.set_complete(); // one line asked, one line read, nothing read ahead
    Ok(answer)
}
