//! How does one thread wait for several connections at once, and for other things beside them?
//! With requests: three servers are asked at the same time, the first that answers is taken and the
//! others are cancelled. Then a loop waits for two connections, a queue of work and a time-out.
//!
//! ```text
//! cargo run --release --example select [host:port ...]
//! ```
//!
//! Without arguments it asks three servers of its own: one quick, one slow, one that never answers.
//! Servers given as arguments are connected to, and nothing is sent to them.
#![expect(clippy::print_stdout, reason = "an example reports to its user")]
#![expect(clippy::disallowed_methods, reason = "it measures time, and has a server that is slow")]

use std::error::Error;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use warmline::crossbeam_channel::{Receiver, Select, after, bounded, never, select};
use warmline::{
    Address, BoxError, Connector, Deadline, Opening, Plan, Pool, PooledConn, Request, Socket,
    TcpConnector, Watch,
};

type Failure = Box<dyn Error + Send + Sync>;

/// After so long the slow server greets who connects.
const SLOW: Duration = Duration::from_millis(100);
/// So long the loop waits for its connections.
const PATIENCE: Duration = Duration::from_millis(300);

fn main() -> Result<(), Failure> {
    env_logger::init();
    let names: Vec<_> = std::env::args().skip(1).collect();
    if !names.is_empty() {
        return show(&names, Greeted { tcp: TcpConnector::new(), by_word: false });
    }
    let servers = [
        Server::bind("quick", Some(Duration::ZERO))?,
        Server::bind("slow", Some(SLOW))?,
        Server::bind("silent", None)?,
    ];
    for server in &servers {
        println!("{} is {}", server.address, server.nature);
    }
    println!();
    let names: Vec<_> = servers.iter().map(|server| server.address.to_string()).collect();
    thread::scope(|scope| {
        let _end = servers.each_ref().map(EndOnDrop);
        for server in &servers {
            scope.spawn(|| server.serve());
        }
        show(&names, Greeted { tcp: TcpConnector::new(), by_word: true })
    })
}

/// TCP; a connection is open once its server has said a first line, if it is one that does.
struct Greeted {
    tcp: TcpConnector,
    by_word: bool,
}

impl Connector for Greeted {
    type Key = Address;
    type Conn = Socket;

    fn plan(&self, key: &Address) -> Plan {
        self.tcp.plan(key)
    }

    fn open(&self, _: &Address, opening: &mut Opening) -> Result<Socket, BoxError> {
        let mut socket = opening.take_socket()?;
        if self.by_word {
            line(&mut socket)?; // on a thread of the pool's: it may wait here
        }
        Ok(socket)
    }

    fn socket<'c>(&self, conn: &'c mut Socket) -> Option<&'c mut Socket> {
        Some(conn)
    }

    fn watch<'c>(&self, conn: &'c Socket) -> Watch<'c> {
        conn.watch()
    }
}

/// Everything there is to see.
fn show(names: &[String], connector: Greeted) -> Result<(), Failure> {
    let can_ask = connector.by_word;
    let pool = Pool::builder(connector).name("select").build()?;
    let mut conn = take_first(&pool, names)?;

    // Work that comes in while the loop waits.
    let (give, work) = bounded(0);
    thread::scope(|scope| {
        scope.spawn(move || {
            for number in 1..=3 {
                thread::sleep(PATIENCE / 8);
                if give.send(number).is_err() {
                    return; // the loop has ended
                }
            }
        });
        let do_work = |number: u32| {
            let request = format!("work {number}");
            if can_ask && ask(&mut conn, &request)? != request {
                return Err("that answers another request".into());
            }
            Ok(())
        };
        let mut others = names.iter().cycle().skip(1);
        match (others.next(), others.next()) {
            (Some(one), Some(other)) => wait_for_all(&pool, [one, other], work, do_work),
            _ => Ok(()),
        }
    })?;
    drop(conn);

    let stats = pool.stats();
    println!("\nstats: {stats}");
    pool.drain(Deadline::after(Duration::from_secs(5)))?; // calls off what still connects
    let end = pool.stats();
    println!("after drain: {} open, {} opened, {} closed", end.total(), end.opened(), end.closed());
    if stats.waiting() != 0 || end.total() != 0 {
        return Err(format!("something was left behind: {end}").into());
    }
    Ok(())
}

/// Asks all of them at once, and takes the connection that is there first.
fn take_first(pool: &Pool<Greeted>, names: &[String]) -> Result<PooledConn<Greeted>, Failure> {
    let began = Instant::now();
    let ask_one = |name: &String| pool.request(name.as_str());
    let mut requests = names.iter().map(ask_one).collect::<Result<Vec<_>, _>>()?;
    println!("{:>6} ms  {} requests are under way", 0, requests.len());
    while !requests.is_empty() {
        let mut select = Select::new(); // for a list; `select!` is for a fixed number
        for request in &requests {
            select.recv(request.receiver());
        }
        let ready = select.select();
        let request = requests.get(ready.index()).ok_or("an index beyond the list")?;
        let answer = ready.recv(request.receiver())?;
        match answer {
            Ok(conn) => {
                let name = PooledConn::endpoint(&conn);
                println!("{:>6} ms  {name} is the first", began.elapsed().as_millis());
                // Dropping the others cancels them.
                println!("{:>6}     the other requests are dropped\n", "");
                return Ok(conn);
            }
            Err(error) => {
                let name = request.endpoint().clone();
                println!("{:>6} ms  {error}", began.elapsed().as_millis());
                requests.retain(|request| *request.endpoint() != name);
            }
        }
    }
    Err("none of them answers".into())
}

/// Waits for two connections, for work to do meanwhile, and for the end of its patience.
fn wait_for_all(
    pool: &Pool<Greeted>,
    names: [&String; 2],
    mut work: Receiver<u32>,
    mut do_work: impl FnMut(u32) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let began = Instant::now();
    let say = |what: &str| println!("{:>6} ms  {what}", began.elapsed().as_millis());
    let begin = |name: &String| match pool.request(name.as_str()) {
        Ok(request) => Some(request),
        Err(error) => {
            say(&error.to_string()); // known at once: it failed a moment ago
            None
        }
    };
    let requests = names.map(begin);
    let receiver = |request: &Option<Request<_>>| match request {
        Some(request) => request.receiver().clone(),
        None => never(),
    };
    let [mut one, mut other] = requests.each_ref().map(receiver);
    let patience = after(PATIENCE);
    say(&format!("waits for {}, for {}, and for work", names[0], names[1]));
    loop {
        // Whatever comes first. A receiver that has given its answer is left out from then on.
        select! {
            recv(one) -> answer => {
                say(&outcome(answer?));
                one = never();
            }
            recv(other) -> answer => {
                say(&outcome(answer?));
                other = never();
            }
            recv(work) -> number => match number {
                Ok(number) => {
                    do_work(number)?;
                    say(&format!("work {number} is done"));
                }
                Err(_) => work = never(), // there is no more
            },
            recv(patience) -> _ => {
                say("its patience is at an end");
                return Ok(()); // what has not arrived is cancelled
            }
        }
    }
}

/// In words. The connection goes back to the pool at once.
fn outcome(answer: Result<PooledConn<Greeted>, warmline::Error>) -> String {
    match answer {
        Ok(conn) => format!("{} is there", PooledConn::endpoint(&conn)),
        Err(error) => error.to_string(),
    }
}

/// A line and the line that answers it.
fn ask(conn: &mut (impl Read + Write), request: &str) -> io::Result<String> {
    conn.write_all(format!("{request}\n").as_bytes())?;
    line(conn)
}

/// Reads no further than to the end of the line.
fn line(conn: &mut impl Read) -> io::Result<String> {
    let mut line = Vec::new();
    let mut byte = [0];
    loop {
        conn.read_exact(&mut byte)?;
        match byte {
            [b'\n'] => return String::from_utf8(line).map_err(io::Error::other),
            [byte] => line.push(byte),
        }
    }
}

/// Greets who connects, after a while or never, then sends back what it receives.
struct Server {
    nature: &'static str,
    greets_after: Option<Duration>,
    listener: TcpListener,
    address: SocketAddr,
    is_over: AtomicBool,
}

impl Server {
    fn bind(nature: &'static str, greets_after: Option<Duration>) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        Ok(Self { nature, greets_after, listener, address, is_over: AtomicBool::new(false) })
    }

    /// Accepts until it is over; returns when the last client has closed.
    fn serve(&self) {
        thread::scope(|scope| {
            for stream in self.listener.incoming() {
                if self.is_over.load(Ordering::Relaxed) {
                    return;
                }
                if let Ok(stream) = stream {
                    scope.spawn(move || self.talk(&stream));
                }
            }
        });
    }

    fn talk(&self, mut stream: &TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        if let Some(pause) = self.greets_after {
            thread::sleep(pause);
            stream.write_all(b"hello\n")?;
        }
        let mut buffer = [0; 1024];
        loop {
            let read = stream.read(&mut buffer)?;
            if read == 0 {
                return Ok(());
            }
            if self.greets_after.is_some() {
                stream.write_all(buffer.get(..read).unwrap_or_default())?;
            }
        }
    }
}

/// Ends the server, also if its client panics: else the program would wait for it for ever.
struct EndOnDrop<'s>(&'s Server);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::Relaxed);
        drop(TcpStream::connect(self.0.address)); // wakes the accepting thread
    }
}
