//! The other end of the connections.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// A listener on loopback that accepts everything.
#[derive(Clone, Copy, Debug)]
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
}

impl Server {
    /// Starts one that says nothing and keeps connections open until the other end closes them,
    /// with a thread of its own.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn start() -> io::Result<Self> {
        Self::serve(|listener| {
            let mut streams = Vec::new();
            for stream in listener.incoming().flatten() {
                // Each time there is no room, so that looking at all of them stays rare.
                if streams.len() == streams.capacity() {
                    streams.retain(is_open);
                }
                streams.push(stream);
            }
        })
    }

    /// Starts one that sends back what comes, with a thread for each connection.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn echo() -> io::Result<Self> {
        Self::serve(|listener| {
            for stream in listener.incoming().flatten() {
                let send_back = move || send_back(stream);
                let thread = thread::Builder::new().name("echo".to_owned());
                // Without a thread for it, the connection is closed.
                drop(thread.spawn(send_back));
            }
        })
    }

    fn serve(accept: impl FnOnce(TcpListener) + Send + 'static) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        thread::Builder::new().name("server".to_owned()).spawn(move || accept(listener))?;
        Ok(Self { address })
    }
}

/// True if the other end has not closed it.
fn is_open(stream: &TcpStream) -> bool {
    let is_blocking = stream.set_nonblocking(true).is_err();
    is_blocking || !matches!(stream.peek(&mut [0]), Ok(0))
}

/// Sends back whatever comes, to the end.
///
/// # Errors
///
/// What the system says.
pub fn send_back(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = [0; 4096];
    loop {
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            return Ok(());
        }
        stream.write_all(buffer.get(..read).unwrap_or_default())?;
    }
}

/// Sees to it that the process may have `count` descriptors.
///
/// # Errors
///
/// If the system does not allow so many.
pub fn allow_descriptors(count: u64) -> io::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= count) {
        return Ok(());
    }
    setrlimit(Resource::Nofile, Rlimit { current: Some(count), maximum: limit.maximum })?;
    Ok(())
}

/// Sees to it that the process may have `count` descriptors, or as many as the system allows;
/// returns how many it may have.
#[must_use]
pub fn allow_most_descriptors(count: u64) -> u64 {
    let most = getrlimit(Resource::Nofile).maximum.unwrap_or(count).min(count);
    match allow_descriptors(most) {
        Ok(()) => getrlimit(Resource::Nofile).current.unwrap_or(most),
        Err(_) => getrlimit(Resource::Nofile).current.unwrap_or(0),
    }
}
