//! OpenSSH.

use std::fs;
use std::io::{self, Read};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, geteuid, kill_process};

use super::{Program, Server, find, missing};
use crate::support::SOON;

const SSHD: Program = Program {
    name: "sshd",
    package: "openssh-server",
    user: None,
    end: Signal::KILL,
    is_up: |address: SocketAddr| {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(SOON))?;
        let mut banner = [0; 4];
        stream.read_exact(&mut banner)?;
        Ok(banner == *b"SSH-")
    },
};

/// An OpenSSH server which one key opens, for whoever runs the test.
pub struct Sshd {
    server: Server,
    user: String,
}

/// `None`, said aloud, if it is not installed.
pub fn sshd(more: &[&str]) -> Option<Sshd> {
    if find("ssh-keygen").is_none() {
        missing("ssh-keygen", "openssh-client");
        return None;
    }
    if geteuid().is_root() {
        // A root's server asks for it, and the system has it made only where it starts one itself.
        let _sshd_says_so = fs::create_dir_all("/run/sshd");
    }
    let server = Server::start(&SSHD, more, |port, folder| {
        for name in ["host", "client", "stranger"] {
            generate(&folder.join(name)).unwrap();
        }
        let path = |name| folder.join(name).display().to_string();
        let host = fs::read_to_string(folder.join("host.pub")).unwrap();
        fs::write(folder.join("known_hosts"), format!("[127.0.0.1]:{port} {host}")).unwrap();
        let settings = format!(
            "ListenAddress 127.0.0.1:{port}\nPidFile {}\nHostKey {}\nAuthorizedKeysFile {}\n\
             UsePAM no\nStrictModes no\nUseDNS no\nPasswordAuthentication no\n\
             PermitRootLogin prohibit-password\nMaxStartups 100\nMaxSessions 100\n",
            path("pid"),
            path("host"),
            path("client.pub"),
        );
        fs::write(folder.join("settings"), settings).unwrap();
        vec!["-D".into(), "-e".into(), "-f".into(), path("settings")]
    })?;
    let user = Command::new("id").arg("-un").output().unwrap().stdout;
    let user = String::from_utf8(user).unwrap().trim().to_owned();
    Some(Sshd { server, user })
}

impl Sshd {
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Who may log in.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The key that it opens to.
    pub fn key(&self) -> PathBuf {
        self.server.folder().join("client")
    }

    /// One that it does not open to.
    pub fn other_key(&self) -> PathBuf {
        self.server.folder().join("stranger")
    }

    /// What clients know it by.
    pub fn known_hosts(&self) -> PathBuf {
        self.server.folder().join("known_hosts")
    }

    /// What it has written about itself since it was started.
    pub fn log(&self) -> String {
        self.server.log()
    }

    /// Ends it in the middle of whatever it does: each session is a process of its own.
    pub fn kill(&mut self) {
        let pid = fs::read_to_string(self.server.folder().join("pid")).unwrap_or_default();
        let sessions = pid.trim().parse().map(descendants).unwrap_or_default();
        self.server.kill();
        for session in sessions.into_iter().filter_map(Pid::from_raw) {
            let _ended_already = kill_process(session, Signal::KILL);
        }
    }

    /// Starts it once more, after [`kill`](Sshd::kill), where it was.
    pub fn start_again(&mut self) {
        self.server.start_again();
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.kill();
    }
}

fn generate(key: &Path) -> io::Result<()> {
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(key).stdout(Stdio::null());
    if command.status()?.success() { Ok(()) } else { Err(io::Error::other("no key was made")) }
}

/// The processes that a process has started, and those that these have.
fn descendants(process: i32) -> Vec<i32> {
    let children = fs::read_to_string(format!("/proc/{process}/task/{process}/children"));
    let children = children.unwrap_or_default();
    let children = children.split_whitespace().filter_map(|child| child.parse().ok());
    children.flat_map(|child| [vec![child], descendants(child)].concat()).collect()
}
