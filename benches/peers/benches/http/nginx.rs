//! nginx, as a child process on a port and in a folder of its own.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use peers::{note, now_ns};
use rustix::fd::OwnedFd;
use rustix::net::sockopt::set_socket_reuseaddr;
use rustix::net::{AddressFamily, SocketType, bind, getsockname, socket};
use rustix::process::{Pid, Signal, geteuid, kill_process};

use crate::target::{Size, Target};

/// It starts, or begins anew, within a moment.
const PATIENCE: Duration = Duration::from_secs(20);
const GLANCE: Duration = Duration::from_millis(1);

/// Runs until it is dropped; then it is gone, and its folder with it.
pub(crate) struct Nginx {
    address: SocketAddr,
    child: Child,
    guard: Child,
    folder: tempfile::TempDir,
    /// Bound for reuse, as nginx binds it: nobody else is given the port.
    _port: OwnedFd,
}

impl Nginx {
    /// One with a single worker. `None`, said aloud, if it is not installed.
    pub(crate) fn start() -> Option<Self> {
        let Some(program) = find("nginx") else {
            let is_required = std::env::var("WARMLINE_REQUIRE_SERVERS").is_ok_and(|it| it == "1");
            assert!(!is_required, "nginx is not installed: apt-get install nginx-light");
            note("skipped: nginx is not installed; to have it: apt-get install nginx-light");
            return None;
        };
        let (port, address) = reserve().expect("a free port");
        let folder = tempfile::tempdir().expect("a folder");
        let settings = prepare(folder.path(), address).expect("files in a folder of its own");
        let log = File::create(log(folder.path())).expect("files in a folder of its own");
        let mut command = Command::new(program);
        command.arg("-c").arg(settings).arg("-p").arg(folder.path());
        // What a terminal sends to the group of this process is not for the server, but its guard.
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().expect("it is installed");
        let guard = guard(&child, folder.path());
        let mut nginx = Self { address, child, guard, folder, _port: port };
        nginx.await_worker(None);
        Some(nginx)
    }

    /// Something to GET, in so many bytes.
    pub(crate) fn target(&self, size: Size) -> Target {
        Target::get(self.address, size.path(), size.bytes())
    }

    /// The same by another method or path, in five bytes.
    pub(crate) fn small(&self, method: &'static str, path: &'static str) -> Target {
        Target::new(self.address, method, path, Size::Tiny.bytes())
    }

    /// Has it read its settings again, and returns once another worker serves.
    pub(crate) fn reload(&mut self) {
        let worker = worker(self.address).expect("it is up");
        kill_process(Pid::from_child(&self.child), Signal::HUP).expect("it has not ended");
        self.await_worker(Some(&worker));
    }

    /// Returns once a worker answers that is not `before`.
    fn await_worker(&mut self, before: Option<&str>) {
        let began = now_ns();
        while !worker(self.address).is_ok_and(|worker| Some(worker.as_str()) != before) {
            let ended = self.child.try_wait().expect("it is a child");
            let is_late = Duration::from_nanos(now_ns() - began) > PATIENCE;
            if ended.is_some() || is_late {
                let log = fs::read_to_string(log(self.folder.path())).unwrap_or_default();
                panic!("nginx does not serve: {ended:?}\n{log}");
            }
            thread::sleep(GLANCE);
        }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // It has not been waited for: the number is its own. Killed, it would leave its worker.
        let _told = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let _ended = self.child.wait();
        let _ended = self.guard.kill().and_then(|()| self.guard.wait());
    }
}

/// A shell that ends the server, should this process end before it has.
fn guard(server: &Child, folder: &Path) -> Child {
    // It reads from a pipe whose other end is ours alone: the system closes that with us.
    let order = "trap '' INT TERM HUP\nread -r _\nkill -TERM \"$0\"\nsleep 0.5\nrm -rf -- \"$1\"";
    let mut guard = Command::new("sh");
    guard.args(["-c", order]).arg(server.id().to_string()).arg(folder);
    guard.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    guard.spawn().expect("a shell")
}

/// Writes what it serves, and its settings; returns where these are.
fn prepare(folder: &Path, address: SocketAddr) -> io::Result<PathBuf> {
    for size in [Size::Page, Size::Large] {
        let bytes = usize::try_from(size.bytes()).unwrap_or_default();
        fs::write(folder.join(size.path().trim_start_matches('/')), vec![b'x'; bytes])?;
    }
    // Its worker would be somebody who may not enter the folder.
    let user = if geteuid().is_root() { "user root root;" } else { "" };
    let root = folder.display();
    let kinds = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let temporary = kinds.map(|kind| format!("{kind}_temp_path {root}/{kind};")).concat();
    let settings = format!(
        "daemon off; worker_processes 1; pid {root}/nginx.pid; error_log stderr; {user}
         events {{ worker_connections 4096; }}
         http {{
             access_log off; {temporary}
             keepalive_requests 1000000000; keepalive_timeout 600s;
             sendfile on; tcp_nopush on; open_file_cache max=16;
             server {{
                 listen {address} backlog=4096;
                 root {root};
                 location = {tiny} {{ return 200 \"hello\"; }}
                 location = {stale} {{ keepalive_timeout 1s; return 200 \"hello\"; }}
                 location = /worker {{ return 200 \"$pid\"; }}
             }}
         }}",
        tiny = Size::Tiny.path(),
        stale = crate::stale::PATH,
    );
    let file = folder.join("nginx.conf");
    fs::write(&file, settings)?;
    Ok(file)
}

/// Which worker serves new connections.
fn worker(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /worker HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    body.filter(|worker| !worker.is_empty()).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

fn reserve() -> io::Result<(OwnedFd, SocketAddr)> {
    let port = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    set_socket_reuseaddr(&port, true)?;
    bind(&port, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    let address = SocketAddr::try_from(getsockname(&port)?)?;
    Ok((port, address))
}

/// Where a program is: some are not in the path of ordinary users.
fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/local/sbin", "/usr/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(more).map(|it| it.join(name)).find(|file| file.is_file())
}

fn log(folder: &Path) -> PathBuf {
    folder.join("log")
}
