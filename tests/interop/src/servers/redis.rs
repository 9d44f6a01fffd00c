//! Redis.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use super::{Program, Server, find, missing, words};
use crate::support::SOON;

const REDIS: Program = Program {
    name: "redis-server",
    package: "redis-server",
    user: None,
    end: Signal::KILL,
    is_up: |address| {
        let answer = answer(address)?;
        // One that asks for a password has answered, too.
        Ok(answer.starts_with(b"+PONG") || answer.starts_with(b"-NOAUTH"))
    },
};

/// One that speaks TLS hangs up on such a beginning, some way or other: it is there.
const OVER_TLS: Program = Program {
    is_up: |address| match answer(address) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(false),
        _ => Ok(true),
    },
    ..REDIS
};

/// A redis with these arguments as well; also on the Unix socket "redis.sock" in its folder.
/// `None`, said aloud, if it is not installed.
pub fn redis(more: &[&str]) -> Option<Server> {
    Server::start(&REDIS, more, |port, folder| {
        let mut arguments = common(folder);
        arguments.extend(["--port".into(), port.to_string()]);
        arguments
    })
}

/// The same, but on its port it speaks TLS alone, with a certificate of its own making.
pub fn redis_over_tls(more: &[&str]) -> Option<Server> {
    if find("openssl").is_none() {
        missing("openssl", "openssl");
        return None;
    }
    Server::start(&OVER_TLS, more, |port, folder| {
        let (key, certificate) = certify(folder);
        let mut arguments = common(folder);
        arguments.extend(words("--port 0 --tls-auth-clients no --tls-port"));
        arguments.extend([port.to_string(), "--tls-key-file".into(), key]);
        arguments.extend(["--tls-cert-file".into(), certificate]);
        arguments
    })
}

fn common(folder: &Path) -> Vec<String> {
    let mut arguments = words("--bind 127.0.0.1 --appendonly no --daemonize no --save");
    arguments.extend([String::new(), "--dir".into(), folder.display().to_string()]);
    arguments.extend(["--unixsocket".into(), folder.join("redis.sock").display().to_string()]);
    arguments
}

/// Makes a key and a certificate for "localhost", which nobody else trusts.
pub(super) fn certify(folder: &Path) -> (String, String) {
    let [key, certificate] = ["key.pem", "certificate.pem"].map(|name| folder.join(name));
    let mut openssl = Command::new("openssl");
    openssl.args(words("req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost"));
    openssl.arg("-keyout").arg(&key).arg("-out").arg(&certificate);
    let status = openssl.stdin(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    assert!(status.success(), "openssl: {status}");
    (key.display().to_string(), certificate.display().to_string())
}

/// All that it says to a greeting and a farewell, until it has closed the connection.
fn answer(address: SocketAddr) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(SOON))?;
    stream.write_all(b"PING\r\nQUIT\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}
