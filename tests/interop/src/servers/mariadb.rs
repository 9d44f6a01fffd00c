//! MariaDB.

use std::fs;
use std::io::Read;
use std::net::{Shutdown, TcpStream};
use std::path::Path;

use rustix::process::Signal;

use super::redis::certify;
use super::template::{Template, run};
use super::{PASSWORD, Program, Server, command, find, give, missing, words};
use crate::support::SOON;

const MARIADB: Program = Program {
    name: "mariadbd",
    package: "mariadb-server",
    user: Some("mysql"),
    end: Signal::KILL,
    is_up: |address| {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(SOON))?;
        // The server speaks first. Nothing is said to it, and that ends the session.
        let mut greeting = [0];
        stream.read_exact(&mut greeting)?;
        stream.shutdown(Shutdown::Write)?;
        stream.read_to_end(&mut Vec::new())?;
        Ok(true)
    },
};

static TEMPLATE: Template = Template::new();

/// A MariaDB with these arguments as well, and a database "test". The user "root" needs no
/// password; "asked" needs [`PASSWORD`]. `None`, said aloud, if it is not installed.
pub fn mariadb(more: &[&str]) -> Option<Server> {
    start(more, |_| Vec::new())
}

/// The same, but by TLS alone, with a certificate of its own making.
pub fn mariadb_over_tls(more: &[&str]) -> Option<Server> {
    if find("openssl").is_none() {
        missing("openssl", "openssl");
        return None;
    }
    start(more, |folder| {
        let (key, certificate) = certify(folder);
        give(Path::new(&key), MARIADB.user);
        words(&format!("--require-secure-transport --ssl-key={key} --ssl-cert={certificate}"))
    })
}

fn start(more: &[&str], settings: impl FnOnce(&Path) -> Vec<String>) -> Option<Server> {
    Server::start(&MARIADB, more, |port, folder| {
        TEMPLATE.copy(folder, MARIADB.user, initialize);
        let first = folder.join("first.sql");
        let grant = format!(
            "CREATE DATABASE IF NOT EXISTS test;
             CREATE USER IF NOT EXISTS asked IDENTIFIED BY '{PASSWORD}';
             GRANT ALL ON test.* TO asked;"
        );
        fs::write(&first, grant).unwrap();
        let root = folder.display();
        let mut arguments = words(&format!(
            "--no-defaults --datadir={root}/data --port={port} --bind-address=127.0.0.1
             --socket={root}/socket --pid-file={root}/pid --init-file={root}/first.sql
             --innodb-flush-log-at-trx-commit=0 --innodb-buffer-pool-size=16M
             --innodb-log-file-size=4M --skip-name-resolve"
        ));
        arguments.extend(settings(folder));
        arguments
    })
}

fn initialize(data: &Path) {
    let install = find("mariadb-install-db").expect("it comes with the server");
    let mut install = command(&install, MARIADB.user);
    install.args(words("--no-defaults --auth-root-authentication-method=normal --skip-test-db"));
    install.args(words("--skip-name-resolve --innodb-log-file-size=4M"));
    install.arg(format!("--datadir={}", data.display()));
    run(install.current_dir("/"));
}
