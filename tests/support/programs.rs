//! What it takes to run real servers: where they are, and a place for each.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use socket2::{Domain, Type};

use super::say;

/// A port that nobody else is given while this exists. It is bound for reuse and never listened on:
/// a server that binds for reuse as well, as servers do, can have it, again and again.
pub struct Port(socket2::Socket);

impl Port {
    pub fn reserve() -> Self {
        let socket = socket2::Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
        Self(socket)
    }

    pub fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap().as_socket().unwrap()
    }
}

/// Where a program is: some are not in the path of ordinary users.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<_> = std::env::split_paths(&path).collect();
    folders.extend(["/usr/local/sbin", "/usr/sbin"].map(PathBuf::from));
    // Debian keeps each version in a folder of its own.
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    folders.extend(versions.map(|version| version.path().join("bin")));
    folders.into_iter().map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// Says that a program is not there; panics where it must be.
pub fn missing(name: &str, package: &str) {
    let install = format!("apt-get install {package}");
    let is_required = std::env::var("WARMLINE_REQUIRE_SERVERS").is_ok_and(|it| it == "1");
    assert!(!is_required, "{name} is not installed: {install}");
    say(&format!("skipped: what needs a real {name}; to have it: {install}"));
}

pub fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// Where a server with this folder writes about itself.
pub fn log(folder: &Path) -> PathBuf {
    folder.join("log")
}
