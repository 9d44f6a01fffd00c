//! Memcached.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use rustix::process::Signal;

use super::{Program, Server, words};
use crate::support::SOON;

const MEMCACHED: Program = Program {
    name: "memcached",
    package: "memcached",
    // It takes the name of a user itself.
    user: None,
    end: Signal::KILL,
    is_up: |address| {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(SOON))?;
        stream.write_all(b"version\r\nquit\r\n")?;
        // One that asks for a password knows no "quit" before that, but has answered, too.
        stream.shutdown(Shutdown::Write)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer.starts_with("VERSION") || answer.starts_with("CLIENT_ERROR unauthenticated"))
    },
};

/// A memcached with these arguments as well, and with one thread for its connections. `None`, said
/// aloud, if it is not installed.
pub fn memcached(more: &[&str]) -> Option<Server> {
    Server::start(&MEMCACHED, more, |port, _| {
        words(&format!("-l 127.0.0.1 -p {port} -U 0 -u nobody -m 16 -t 1"))
    })
}
