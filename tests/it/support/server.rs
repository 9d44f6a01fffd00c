//! A scripted server on loopback: a real listener, a thread for each connection.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use parking_lot::Mutex;
use socket2::{Domain, SockAddr, Socket, Type};

type Script = dyn Fn(&mut Peer) -> io::Result<()> + Send + Sync;

/// Listens until it is dropped; by then all of its threads have ended.
pub(crate) struct Server {
    listener: Arc<Socket>,
    board: Arc<Board>,
    acceptor: Option<JoinHandle<()>>,
}

/// What the threads of a server share.
#[derive(Default)]
struct Board {
    accepted: AtomicUsize,
    is_stopping: AtomicBool,
    open: Mutex<HashMap<usize, Arc<Socket>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Server {
    /// Sends back whatever it receives.
    pub(crate) fn echo() -> Self {
        Self::scripted(Peer::echo)
    }

    /// Does with each connection what `script` says; when that returns, the connection is closed.
    pub(crate) fn scripted(
        script: impl Fn(&mut Peer) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self::start(bound(Ipv4Addr::LOCALHOST.into()), Arc::new(script))
    }

    /// Answers one request on each connection, and says "late" on it once told to.
    pub(crate) fn speaks_late() -> (Self, Sender<()>) {
        let (tell, told) = unbounded();
        let server = Self::scripted(move |peer| {
            let request = peer.take(4)?;
            peer.write_all(&request)?;
            peer.wait(&told)?;
            peer.write_all(b"late")?;
            peer.stay_silent()
        });
        (server, tell)
    }

    /// An echo on this address of the machine itself.
    pub(crate) fn echo_at(ip: IpAddr) -> Self {
        Self::start(bound(ip), Arc::new(Peer::echo))
    }

    /// The same on a Unix socket.
    pub(crate) fn unix(
        path: &Path,
        script: impl Fn(&mut Peer) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let listener = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        listener.bind(&SockAddr::unix(path).unwrap()).unwrap();
        Self::start(listener, Arc::new(script))
    }

    fn start(listener: Socket, script: Arc<Script>) -> Self {
        listener.listen(128).unwrap();
        let listener = Arc::new(listener);
        let board = Arc::<Board>::default();
        let acceptor = std::thread::spawn({
            let (listener, board) = (Arc::clone(&listener), Arc::clone(&board));
            move || {
                while let Ok((socket, _)) = listener.accept() {
                    if board.is_stopping.load(Ordering::SeqCst) {
                        return;
                    }
                    board.serve(socket, Arc::clone(&script));
                }
            }
        });
        Self { listener, board, acceptor: Some(acceptor) }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap().as_socket().unwrap()
    }

    /// The address as text: "127.0.0.1:port".
    pub(crate) fn name(&self) -> String {
        self.address().to_string()
    }

    /// Connections accepted so far.
    pub(crate) fn accepted(&self) -> usize {
        self.board.accepted.load(Ordering::SeqCst)
    }

    /// Waits until so many connections have been accepted in all, and checks that it is no more.
    ///
    /// For those that nothing was sent on: a connect ends before its accept does.
    #[track_caller]
    pub(crate) fn assert_accepted(&self, count: usize) {
        super::eventually("accepts", || self.accepted() >= count);
        assert_eq!(self.accepted(), count);
    }

    /// Connections whose script has not ended. An echo ends when the other side closes.
    pub(crate) fn open(&self) -> usize {
        self.board.open.lock().len()
    }

    /// Says farewell on all connections.
    pub(crate) fn hang_up(&self) {
        for socket in self.board.open.lock().values() {
            let _gone_already = socket.shutdown(Shutdown::Both);
        }
    }

    /// Says farewell on the connection that was accepted as this one, from 0.
    pub(crate) fn hang_up_on(&self, number: usize) {
        let open = self.board.open.lock();
        open.get(&number).unwrap().shutdown(Shutdown::Both).unwrap();
    }

    /// Says farewell on all connections, and goes on to listen to what the other side says.
    pub(crate) fn half_close(&self) {
        for socket in self.board.open.lock().values() {
            socket.shutdown(Shutdown::Write).unwrap();
        }
    }
}

/// A socket on any free port of this address.
pub(super) fn bound(ip: IpAddr) -> Socket {
    let address = SocketAddr::new(ip, 0);
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    socket.bind(&address.into()).unwrap();
    socket
}

impl Drop for Server {
    fn drop(&mut self) {
        self.board.is_stopping.store(true, Ordering::SeqCst);
        // On Linux this ends a blocking accept.
        let _ended = self.listener.shutdown(Shutdown::Both);
        if let Some(acceptor) = self.acceptor.take() {
            let _panicked = acceptor.join();
        }
        self.hang_up();
        let threads = std::mem::take(&mut *self.board.threads.lock());
        for thread in threads {
            let _panicked = thread.join();
        }
    }
}

impl Board {
    fn serve(self: &Arc<Self>, socket: Socket, script: Arc<Script>) {
        // Counted last: what is counted is also open. One thread alone accepts.
        let number = self.accepted.load(Ordering::SeqCst);
        let socket = Arc::new(socket);
        self.open.lock().insert(number, Arc::clone(&socket));
        self.accepted.fetch_add(1, Ordering::SeqCst);
        let thread = std::thread::spawn({
            let board = Arc::clone(self);
            move || {
                let mut peer = Peer { socket: Some(socket), number, board };
                // A script that meets the other side's end is at its own.
                let _ended = script(&mut peer);
            }
        });
        self.threads.lock().push(thread);
    }
}

/// The server's side of one connection.
pub(crate) struct Peer {
    socket: Option<Arc<Socket>>,
    /// Which one it is, from 0.
    number: usize,
    board: Arc<Board>,
}

impl Peer {
    pub(crate) fn number(&self) -> usize {
        self.number
    }

    fn socket(&self) -> io::Result<&Socket> {
        self.socket.as_deref().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Sends back whatever comes, to the end.
    pub(crate) fn echo(&mut self) -> io::Result<()> {
        let mut buffer = [0; 4096];
        loop {
            let read = self.read(&mut buffer)?;
            if read == 0 {
                return Ok(());
            }
            self.write_all(buffer.get(..read).unwrap_or_default())?;
        }
    }

    /// Reads so many bytes.
    pub(crate) fn take(&mut self, count: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; count];
        self.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// Says nothing until the other side closes.
    pub(crate) fn stay_silent(&mut self) -> io::Result<()> {
        let mut buffer = [0; 4096];
        while self.read(&mut buffer)? > 0 {}
        Ok(())
    }

    /// Waits for a command of the test; an error once the server ends.
    pub(crate) fn wait<T>(&self, commands: &Receiver<T>) -> io::Result<T> {
        loop {
            match commands.recv_timeout(Duration::from_millis(20)) {
                Ok(command) => return Ok(command),
                Err(RecvTimeoutError::Timeout)
                    if !self.board.is_stopping.load(Ordering::SeqCst) => {}
                Err(_) => return Err(io::ErrorKind::NotConnected.into()),
            }
        }
    }

    /// Says farewell, and can be written to all the same.
    pub(crate) fn half_close(&mut self) -> io::Result<()> {
        self.socket()?.shutdown(Shutdown::Write)
    }

    /// From now on each write leaves at once, whatever is still on its way.
    pub(crate) fn write_at_once(&mut self) -> io::Result<()> {
        self.socket()?.set_tcp_nodelay(true)
    }

    /// Ends the connection with a reset instead of a farewell.
    pub(crate) fn reset(&mut self) -> io::Result<()> {
        self.socket()?.set_linger(Some(Duration::ZERO))?;
        self.close();
        Ok(())
    }

    /// Ends the connection.
    pub(crate) fn close(&mut self) {
        self.board.open.lock().remove(&self.number);
        self.socket = None;
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.close();
    }
}

impl Read for Peer {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.socket()?.read(buf)
    }
}

impl Write for Peer {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.socket()?.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Accepts and keeps what connects, without a thread for each, until it is dropped.
pub(crate) struct Crowd {
    listener: Arc<Socket>,
    kept: Arc<Mutex<Vec<Socket>>>,
    acceptor: Option<JoinHandle<()>>,
}

impl Crowd {
    pub(crate) fn new() -> Self {
        let listener = bound(Ipv4Addr::LOCALHOST.into());
        listener.listen(1024).unwrap();
        Self::of(listener)
    }

    pub(super) fn of(listener: Socket) -> Self {
        let (listener, kept) = (Arc::new(listener), Arc::<Mutex<Vec<_>>>::default());
        let acceptor = std::thread::spawn({
            let (listener, kept) = (Arc::clone(&listener), Arc::clone(&kept));
            move || {
                while let Ok((socket, _)) = listener.accept() {
                    kept.lock().push(socket);
                }
            }
        });
        Self { listener, kept, acceptor: Some(acceptor) }
    }

    pub(crate) fn name(&self) -> String {
        self.listener.local_addr().unwrap().as_socket().unwrap().to_string()
    }

    pub(crate) fn kept(&self) -> usize {
        self.kept.lock().len()
    }

    /// Closes all of them, one right after the other.
    pub(crate) fn hang_up(&self) {
        let kept = std::mem::take(&mut *self.kept.lock());
        drop(kept);
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        let _ended = self.listener.shutdown(Shutdown::Both);
        if let Some(acceptor) = self.acceptor.take() {
            let _panicked = acceptor.join();
        }
    }
}
