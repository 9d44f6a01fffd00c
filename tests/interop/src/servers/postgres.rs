//! PostgreSQL.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

use rustix::process::Signal;

use super::redis::certify;
use super::template::{Template, run};
use super::{Program, Server, command, find, give, missing, words};
use crate::support::SOON;

const POSTGRES: Program = Program {
    name: "postgres",
    package: "postgresql",
    user: Some("postgres"),
    // Its "immediate" end. Killed, it would leave its children behind, and they the port.
    end: Signal::QUIT,
    is_up: |address| {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(SOON))?;
        // The beginning of a session, version 3.0, and its end.
        let settings = b"\0\x03\0\0user\0postgres\0\0";
        stream.write_all(&u32::try_from(4 + settings.len()).unwrap().to_be_bytes())?;
        stream.write_all(settings)?;
        stream.write_all(b"X\0\0\0\x04")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        // One that refuses is up, unless it says that it is starting.
        let is_starting = answer.windows(5).any(|code| code == b"57P03");
        Ok(!answer.is_empty() && !is_starting)
    },
};

/// What the user "postgres" has to say to [`postgres_with_password`].
pub const PASSWORD: &str = "opensesame";

static TEMPLATE: Template = Template::new();

/// A PostgreSQL with these arguments as well: `["-c", "idle_session_timeout=2s"]`, say; also on a
/// Unix socket in its folder. The user "postgres" needs no password. `None`, said aloud, if it is
/// not installed.
pub fn postgres(more: &[&str]) -> Option<Server> {
    start(more, "host all all 127.0.0.1/32 trust", |_| Vec::new())
}

/// The same, but it asks for [`PASSWORD`].
pub fn postgres_with_password(more: &[&str]) -> Option<Server> {
    start(more, "host all all 127.0.0.1/32 scram-sha-256", |_| Vec::new())
}

/// The same, without a password, but by TLS alone, with a certificate of its own making.
pub fn postgres_over_tls(more: &[&str]) -> Option<Server> {
    if find("openssl").is_none() {
        missing("openssl", "openssl");
        return None;
    }
    start(more, "hostssl all all 127.0.0.1/32 trust", |folder| {
        let (key, certificate) = certify(folder);
        give(Path::new(&key), POSTGRES.user);
        let files = [format!("ssl_key_file={key}"), format!("ssl_cert_file={certificate}")];
        let files = files.into_iter().flat_map(|file| ["-c".to_owned(), file]);
        words("-c ssl=on").into_iter().chain(files).collect()
    })
}

fn start(more: &[&str], who: &str, settings: impl FnOnce(&Path) -> Vec<String>) -> Option<Server> {
    Server::start(&POSTGRES, more, |port, folder| {
        TEMPLATE.copy(folder, POSTGRES.user, initialize);
        let allowed = folder.join("pg_hba.conf");
        fs::write(&allowed, format!("local all all trust\n{who}\n")).unwrap();
        let root = folder.display();
        let mut arguments = words(&format!(
            "-D {root}/data -p {port} -c listen_addresses=127.0.0.1 -c hba_file={root}/pg_hba.conf
             -c unix_socket_directories={root} -c fsync=off -c full_page_writes=off
             -c synchronous_commit=off -c shared_buffers=8MB -c autovacuum=off
             -c max_connections=40 -c superuser_reserved_connections=0"
        ));
        arguments.extend(settings(folder));
        arguments
    })
}

fn initialize(data: &Path) {
    let initdb = find("initdb").expect("it comes with the server");
    let password = data.with_file_name("password");
    fs::write(&password, PASSWORD).unwrap();
    give(&password, POSTGRES.user);
    let mut initdb = command(&initdb, POSTGRES.user);
    initdb.args(words("-U postgres -A trust -E UTF8 --no-locale --no-sync --wal-segsize=1"));
    initdb.arg("--no-instructions").arg("-D").arg(data).arg("--pwfile").arg(&password);
    run(initdb.current_dir("/"));
}
