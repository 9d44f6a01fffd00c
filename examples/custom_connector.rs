//! How do I pool a protocol of my own? A connector that logs in, finishes or rolls back what a
//! user left open, checks connections that have rested, and knows where its messages end.
//!
//! ```text
//! cargo run --example custom_connector
//! ```
//!
//! The protocol is made of lines: `LOGIN name password`, `BEGIN`, `ADD number`, `COMMIT`,
//! `ROLLBACK`, `SUM`, `PING`, `QUIT`; each is answered by one line, `OK …` or `ERR …`. The server
//! is at the end of this file.
#![expect(clippy::print_stdout, reason = "an example reports to its user")]

use std::error::Error;
use std::io::{self, Read, Write};
use std::time::Duration;

use warmline::{
    Address, BoxError, CloseReason, Connector, Deadline, Opening, Plan, Pool, Reset, Socket,
    SocketOptions, Watch,
};

type Failure = Box<dyn Error + Send + Sync>;

/// What opens connections, and what it must know for that.
struct LedgerConnector {
    name: String,
    password: String,
}

/// What users get: a client that is logged in.
struct Ledger {
    socket: Socket,
    in_transaction: bool,
    /// Bytes that were read but belong to no answer yet.
    received: Vec<u8>,
}

impl Connector for LedgerConnector {
    type Key = Address;
    type Conn = Ledger;

    /// The pool connects a TCP socket, with its time-outs and keepalive, and hands it to `open`.
    fn plan(&self, key: &Address) -> Plan {
        let plan = match key.ip() {
            Some(address) => Plan::addrs([address]),
            None => Plan::host(key.host().unwrap_or_default(), key.port()),
        };
        plan.options(SocketOptions::new().read_timeout(Duration::from_secs(5)))
    }

    /// The handshake. It may block: a thread of the pool runs it, and the socket is shut down at
    /// the deadline.
    fn open(&self, _: &Address, opening: &mut Opening) -> Result<Ledger, BoxError> {
        let socket = opening.take_socket()?;
        let mut ledger = Ledger { socket, in_transaction: false, received: Vec::new() };
        ledger.ask(&format!("LOGIN {} {}", self.name, self.password))?;
        Ok(ledger)
    }

    /// Lets the pool see traffic: bytes, errors, the end of the stream.
    fn socket<'c>(&self, conn: &'c mut Ledger) -> Option<&'c mut Socket> {
        Some(&mut conn.socket)
    }

    /// Has the pool notice when the server hangs up on an idle connection.
    fn watch<'c>(&self, conn: &'c Ledger) -> Watch<'c> {
        conn.socket.watch()
    }

    /// Is it fit for a stranger? Must not block, so a rollback is put off.
    fn reset(&self, conn: &mut Ledger) -> Reset {
        if !conn.received.is_empty() {
            Reset::Close // the server said more than it was asked
        } else if conn.in_transaction {
            Reset::Later
        } else {
            Reset::Ready
        }
    }

    /// What was put off. Not the user's time: a thread of the pool runs it after the return.
    fn settle(&self, conn: &mut Ledger, _: Deadline) -> Result<(), BoxError> {
        conn.rollback()?;
        Ok(())
    }

    fn has_check(&self) -> bool {
        true
    }

    /// A round trip, for connections that were idle for longer than `check_after`.
    fn check(&self, conn: &mut Ledger, _: Deadline) -> Result<(), BoxError> {
        conn.ask("PING")?;
        Ok(())
    }

    /// A farewell, unless there is nobody left to read it.
    fn close(&self, mut conn: Ledger, reason: CloseReason) {
        if reason != CloseReason::PeerClosed {
            // It is closed whatever comes of this.
            let _unheard = conn.socket.write_all(b"QUIT\n");
        }
    }
}

impl Ledger {
    fn begin(&mut self) -> io::Result<()> {
        self.ask("BEGIN")?;
        self.in_transaction = true;
        Ok(())
    }

    fn add(&mut self, number: i64) -> io::Result<()> {
        self.ask(&format!("ADD {number}")).map(drop)
    }

    fn commit(&mut self) -> io::Result<()> {
        self.ask("COMMIT")?;
        self.in_transaction = false;
        Ok(())
    }

    fn rollback(&mut self) -> io::Result<()> {
        self.ask("ROLLBACK")?;
        self.in_transaction = false;
        Ok(())
    }

    fn sum(&mut self) -> io::Result<i64> {
        let answer = self.ask("SUM")?;
        answer.parse().map_err(|_| odd("not a number"))
    }

    /// Sends a line and reads the line that answers it.
    fn ask(&mut self, line: &str) -> io::Result<String> {
        self.socket.write_all(format!("{line}\n").as_bytes())?;
        let end = loop {
            if let Some(end) = self.received.iter().position(|&byte| byte == b'\n') {
                break end;
            }
            if self.received.len() > 1024 {
                return Err(odd("the answer is too long"));
            }
            let mut bytes = [0; 256];
            let read = self.socket.read(&mut bytes)?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.received.extend(bytes.iter().take(read));
        };
        let answer: Vec<u8> = self.received.drain(..=end).collect();
        if self.received.is_empty() {
            // The framing knows that nothing more is to come; the pool need not look.
            self.socket.set_complete();
        }
        let answer = String::from_utf8(answer).map_err(|_| odd("the answer is no text"))?;
        match answer.trim_end().split_once(' ') {
            Some(("OK", rest)) => Ok(rest.to_owned()),
            _ => Err(io::Error::other(answer.trim_end())),
        }
    }
}

fn odd(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn main() -> Result<(), Failure> {
    env_logger::init();
    let server = server::Server::start()?;
    let connector = LedgerConnector { name: "ann".into(), password: "secret".into() };
    let pool =
        Pool::builder(connector).name("ledger").check_after(Duration::from_millis(100)).build()?;
    let ledger = pool.endpoint(&server.address())?;

    {
        let mut conn = ledger.get()?; // connects and logs in
        conn.begin()?;
        conn.add(40)?;
        conn.add(2)?;
        conn.commit()?;
        println!("committed: the sum is {}", conn.sum()?);
    }
    {
        let mut conn = ledger.get()?;
        conn.begin()?;
        conn.add(1_000)?;
        println!("a transaction is left open: the sum would be {}", conn.sum()?);
    }
    // Whoever comes next waits for the rollback; it was begun when the connection came back.
    println!("rolled back on return: the sum is {}", ledger.get()?.sum()?);

    std::thread::park_timeout(Duration::from_millis(200)); // long enough to want a check
    println!("checked before reuse: the sum is {}", ledger.get()?.sum()?);

    let wrong = LedgerConnector { name: "ann".into(), password: "guess".into() };
    let Err(error) = Pool::builder(wrong).build()?.get(&server.address()) else {
        return Err("a wrong password was let in".into());
    };
    println!("a wrong password: {error}");

    println!("stats: {}", ledger.stats());
    pool.drain(Deadline::after(Duration::from_secs(5)))?;
    let heard = server.stop();
    println!("the server heard: {}", heard.join(" "));
    for expected in ["LOGIN", "ROLLBACK", "PING", "QUIT"] {
        if !heard.iter().any(|command| command == expected) {
            return Err(format!("the server never heard {expected}").into());
        }
    }
    Ok(())
}

/// The other side: keeps a sum for all its clients, a thread for each.
mod server {
    use std::io::{self, BufRead, BufReader, Write};
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, Ordering};
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::thread::{Builder, JoinHandle};

    pub(crate) struct Server {
        address: SocketAddr,
        heard: Receiver<String>,
        stop: Sender<()>,
        thread: JoinHandle<io::Result<()>>,
    }

    impl Server {
        pub(crate) fn start() -> io::Result<Self> {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            let address = listener.local_addr()?;
            let ((tell, heard), (stop, stopped)) = (channel(), channel());
            let thread = Builder::new().name("server".into()).spawn(move || {
                let sum = Arc::new(AtomicI64::new(0));
                for stream in listener.incoming() {
                    if stopped.try_recv().is_ok() {
                        break;
                    }
                    let (stream, sum, tell) = (stream?, Arc::clone(&sum), tell.clone());
                    Builder::new().name("client".into()).spawn(move || {
                        if let Err(error) = serve(&stream, &sum, &tell) {
                            log::info!("a client is gone: {error}");
                        }
                    })?;
                }
                Ok(())
            })?;
            Ok(Self { address, heard, stop, thread })
        }

        pub(crate) fn address(&self) -> SocketAddr {
            self.address
        }

        /// Ends the server once its clients are gone; returns the commands that it heard.
        pub(crate) fn stop(self) -> Vec<String> {
            let _gone = self.stop.send(());
            drop(TcpStream::connect(self.address)); // wakes it
            drop(self.thread.join());
            self.heard.iter().collect() // until the last thread has dropped its sender
        }
    }

    fn serve(stream: &TcpStream, sum: &AtomicI64, tell: &Sender<String>) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut answers = stream;
        let mut pending = None; // of the transaction, if one is open
        for line in BufReader::new(stream).lines() {
            let line = line?;
            let (command, rest) = line.split_once(' ').unwrap_or((&line, ""));
            drop(tell.send(command.to_owned()));
            let answer = match (command, rest) {
                ("LOGIN", "ann secret") => "OK welcome".to_owned(),
                ("LOGIN", _) => return answers.write_all(b"ERR unknown name or password\n"),
                ("BEGIN", _) => {
                    pending = Some(0);
                    "OK begun".to_owned()
                }
                ("ADD", number) => {
                    let number: i64 = number.parse().unwrap_or(0);
                    pending = pending.map(|pending| pending + number);
                    "OK added".to_owned()
                }
                ("COMMIT", _) => {
                    sum.fetch_add(pending.take().unwrap_or(0), Ordering::Relaxed);
                    "OK committed".to_owned()
                }
                ("ROLLBACK", _) => {
                    pending = None;
                    "OK forgotten".to_owned()
                }
                ("SUM", _) => {
                    format!("OK {}", sum.load(Ordering::Relaxed) + pending.unwrap_or(0))
                }
                ("PING", _) => "OK pong".to_owned(),
                ("QUIT", _) => return Ok(()),
                _ => "ERR what?".to_owned(),
            };
            answers.write_all(format!("{answer}\n").as_bytes())?;
        }
        Ok(())
    }
}
