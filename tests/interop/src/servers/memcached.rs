//! Memcached.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;

use super::redis::certify;
use super::{Program, Server, find, give, missing, words};
use crate::support::{SOON, say};

const MEMCACHED: Program = Program {
    name: "memcached",
    package: "memcached",
    // It takes the name of a user itself.
    user: None,
    end: Signal::KILL,
    is_up: |address| {
        let answer = answer(address)?;
        Ok(answer.starts_with(b"VERSION") || answer.starts_with(b"CLIENT_ERROR unauthenticated"))
    },
};

/// One that speaks TLS hangs up on such a beginning, some way or other: it is there.
const OVER_TLS: Program = Program {
    // Its key is read by whom it is to be.
    user: Some("nobody"),
    is_up: |address| match answer(address) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(false),
        _ => Ok(true),
    },
    ..MEMCACHED
};

/// A memcached with these arguments as well, and with one thread for its connections. `None`, said
/// aloud, if it is not installed.
pub fn memcached(more: &[&str]) -> Option<Server> {
    Server::start(&MEMCACHED, more, |port, _| {
        words(&format!("-l 127.0.0.1 -p {port} -U 0 -u nobody -m 16 -t 1"))
    })
}

/// The same, but by TLS alone, with a certificate of its own making. Not every build of it can.
pub fn memcached_over_tls(more: &[&str]) -> Option<Server> {
    if find("openssl").is_none() {
        missing("openssl", "openssl");
        return None;
    }
    let help = find(MEMCACHED.name).map(|path| Command::new(path).arg("-h").output().unwrap());
    if help.is_some_and(|help| !String::from_utf8_lossy(&help.stdout).contains("ssl_chain_cert")) {
        say("skipped: what needs a memcached with TLS; this one was built without it");
        return None;
    }
    Server::start(&OVER_TLS, more, |port, folder| {
        let (key, certificate) = certify(folder);
        give(Path::new(&key), OVER_TLS.user);
        words(&format!(
            "-l 127.0.0.1 -p {port} -U 0 -m 16 -t 1 -Z
             -o ssl_chain_cert={certificate},ssl_key={key}"
        ))
    })
}

/// All that it says to a greeting and a farewell, until it has closed the connection.
fn answer(address: SocketAddr) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(SOON))?;
    stream.write_all(b"version\r\nquit\r\n")?;
    // One that asks for a password knows no "quit" before that, but has answered, too.
    stream.shutdown(Shutdown::Write)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}
