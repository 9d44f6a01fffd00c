//! The other end of the connections.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::thread;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// A listener on loopback that accepts everything, says nothing and keeps it open until the
/// process ends.
#[derive(Clone, Copy, Debug)]
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
}

impl Server {
    /// Starts one, with a thread of its own.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let accept = move || {
            let _kept_open: Vec<_> = listener.incoming().collect();
        };
        thread::Builder::new().name("server".to_owned()).spawn(accept)?;
        Ok(Self { address })
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
