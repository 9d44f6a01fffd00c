//! Servers in threads of the test's own, for what is easily spoken.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use warmline::crossbeam_channel::{Receiver, Sender, unbounded};

use crate::support::eventually;

/// Listens until it is dropped; by then all of its threads have ended.
pub struct Scripted {
    address: SocketAddr,
    board: Arc<Board>,
    opened: Receiver<TcpStream>,
    acceptor: Option<JoinHandle<()>>,
}

/// What the threads of a server share.
#[derive(Default)]
struct Board {
    is_stopping: AtomicBool,
    accepted: AtomicUsize,
    open: AtomicUsize,
}

impl Scripted {
    /// Does with each connection what `script` says; when that returns, the connection is closed.
    pub fn new(script: impl Fn(TcpStream) -> io::Result<()> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let board = Arc::<Board>::default();
        let (tell, opened) = unbounded();
        let acceptor = std::thread::spawn({
            let board = Arc::clone(&board);
            move || board.accept(&listener, &tell, &script)
        });
        Self { address, board, opened, acceptor: Some(acceptor) }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> usize {
        self.board.accepted.load(Ordering::SeqCst)
    }

    /// Connections whose script has not ended.
    pub fn open(&self) -> usize {
        self.board.open.load(Ordering::SeqCst)
    }

    /// Says farewell on all connections that were accepted by now.
    pub fn hang_up(&self) {
        for stream in self.opened.try_iter() {
            let _gone_already = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.board.is_stopping.store(true, Ordering::SeqCst);
        let _wakes_the_acceptor = TcpStream::connect(self.address);
        // One may have been accepted a moment ago.
        let acceptor = self.acceptor.take().expect("present until drop");
        eventually("the threads of a server end", || {
            self.hang_up();
            acceptor.is_finished()
        });
    }
}

impl Board {
    fn accept(
        &self,
        listener: &TcpListener,
        tell: &Sender<TcpStream>,
        script: &(impl Fn(TcpStream) -> io::Result<()> + Sync),
    ) {
        std::thread::scope(|scope| {
            while let Ok((stream, _)) = listener.accept() {
                if self.is_stopping.load(Ordering::SeqCst) {
                    return;
                }
                stream.set_nodelay(true).unwrap();
                self.accepted.fetch_add(1, Ordering::SeqCst);
                self.open.fetch_add(1, Ordering::SeqCst);
                tell.send(stream.try_clone().unwrap()).unwrap();
                scope.spawn(move || {
                    // The duplicate would keep it open.
                    let duplicate = stream.try_clone().unwrap();
                    let _ended = script(stream);
                    let _gone_already = duplicate.shutdown(Shutdown::Both);
                    self.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
    }
}

/// Lines as they come, without their ends; until the other side closes.
pub fn lines(stream: &TcpStream) -> io::Result<impl Iterator<Item = String> + use<>> {
    Ok(BufReader::new(stream.try_clone()?).lines().map_while(Result::ok))
}

/// Servers of other protocols than one may expect, and what they are.
pub fn strangers() -> Vec<(&'static str, Scripted)> {
    vec![
        ("silent", Scripted::new(|mut stream| io::copy(&mut stream, &mut io::sink()).map(drop))),
        ("closes at once", Scripted::new(|_| Ok(()))),
        ("HTTP", answering(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")),
        // An alert: that was no handshake.
        ("TLS", answering(b"\x15\x03\x01\x00\x02\x02\x46")),
        ("redis", answering(b"-ERR unknown command\r\n")),
        ("a banner", greeting(b"220-nobody you know\r\n220 ready\r\n")),
        ("a full redis", greeting(b"-ERR max number of clients reached\r\n")),
        ("bytes without end", greeting(&[0xff; 4096])),
    ]
}

/// Says the same to whatever comes.
fn answering(answer: &'static [u8]) -> Scripted {
    Scripted::new(move |mut stream| {
        let mut bytes = [0; 1024];
        while stream.read(&mut bytes)? > 0 {
            stream.write_all(answer)?;
        }
        Ok(())
    })
}

/// Says something before anybody asks, and then no more.
fn greeting(greeting: &'static [u8]) -> Scripted {
    Scripted::new(move |mut stream| {
        stream.write_all(greeting)?;
        io::copy(&mut stream, &mut io::sink()).map(drop)
    })
}

/// Between clients and a server. Once it is due, the next answer is this beginning and then a byte
/// now and then, for ever; after that it is not due any more.
pub fn relay(to: SocketAddr, beginning: &'static [u8], is_due: Arc<AtomicBool>) -> Scripted {
    Scripted::new(move |mut client| {
        let mut server = TcpStream::connect(to)?;
        let (mut asks, mut asked) = (client.try_clone()?, server.try_clone()?);
        std::thread::spawn(move || {
            let _gone = io::copy(&mut asks, &mut asked);
            let _gone_already = asked.shutdown(Shutdown::Both);
        });
        let mut bytes = [0; 4096];
        loop {
            match server.read(&mut bytes)? {
                0 => return Ok(()),
                _ if is_due.swap(false, Ordering::SeqCst) => break,
                count => client.write_all(&bytes[..count])?,
            }
        }
        client.write_all(beginning)?;
        loop {
            client.write_all(&[0])?;
            std::thread::sleep(Duration::from_millis(10));
        }
    })
}
