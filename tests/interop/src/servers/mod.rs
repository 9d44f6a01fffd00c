//! Real servers as child processes: each on a port and in a folder of its own.

mod guard;
mod mariadb;
mod memcached;
mod postgres;
mod redis;
mod sshd;
mod template;

pub use self::mariadb::{mariadb, mariadb_over_tls};
pub use self::memcached::{memcached, memcached_over_tls};
pub use self::postgres::{PASSWORD, postgres, postgres_over_tls, postgres_with_password};
pub use self::redis::{redis, redis_over_tls};
pub use self::sshd::{Sshd, sshd};

use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, geteuid, kill_process, waitid};

use self::guard::Guard;
use crate::support::eventually;
use crate::support::programs::{Port, find, log, missing, words};

/// Runs until it is dropped; then it is gone, its connections with it.
pub struct Server {
    program: &'static Program,
    port: Port,
    // Dropped in this order: nobody writes to the folder any more when it is removed.
    running: Running,
    _guard: Guard,
    folder: tempfile::TempDir,
    arguments: Vec<String>,
}

/// What differs between the programs.
pub(crate) struct Program {
    pub(crate) name: &'static str,
    pub(crate) package: &'static str,
    /// Whom it runs as where we are root; `None`: it does not mind.
    pub(crate) user: Option<&'static str>,
    /// How it is told to end at once, leaving no children behind.
    pub(crate) end: Signal,
    /// Asks whether it is up. Takes up no place of a connection once it has returned.
    pub(crate) is_up: fn(SocketAddr) -> io::Result<bool>,
}

impl Server {
    /// Runs a program with the arguments that `prepare` makes of its port and its folder, and with
    /// these. `None`, said aloud, if it is not installed.
    pub(crate) fn start(
        program: &'static Program,
        more: &[&str],
        prepare: impl FnOnce(u16, &Path) -> Vec<String>,
    ) -> Option<Self> {
        let Some(path) = find(program.name) else {
            missing(program.name, program.package);
            return None;
        };
        let (port, folder) = (Port::reserve(), tempfile::tempdir().unwrap());
        let guard = Guard::of_folder(folder.path());
        give(folder.path(), program.user);
        let mut arguments = prepare(port.address().port(), folder.path());
        arguments.extend(more.iter().map(|&word| word.to_owned()));
        let running = Running::new(program, &path, &arguments, folder.path());
        let mut server = Self { program, port, running, _guard: guard, folder, arguments };
        server.await_up();
        Some(server)
    }

    /// Where it listens. Nobody else is given the port while this exists.
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Its own, gone with it.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What it has written about itself since it was started.
    pub fn log(&self) -> String {
        fs::read_to_string(log(self.folder())).unwrap_or_default()
    }

    /// Ends it in the middle of whatever it does.
    pub fn kill(&mut self) {
        self.running.end();
    }

    /// Has it do nothing until [`resume`](Self::resume). The system goes on to accept for it.
    pub fn pause(&self) {
        let process = Pid::from_child(&self.running.child);
        kill_process(process, Signal::STOP).unwrap();
        // Its threads stop one after the other.
        waitid(WaitId::Pid(process), WaitIdOptions::STOPPED).unwrap();
    }

    /// Lets it go on after a [`pause`](Self::pause).
    pub fn resume(&self) {
        kill_process(Pid::from_child(&self.running.child), Signal::CONT).unwrap();
    }

    /// Starts it once more, after [`kill`](Server::kill), where it was. Returns once it answers.
    pub fn start_again(&mut self) {
        let path = find(self.program.name).unwrap();
        self.running = Running::new(self.program, &path, &self.arguments, self.folder.path());
        self.await_up();
    }

    fn await_up(&mut self) {
        eventually(self.program.name, || {
            if let Some(status) = self.running.child.try_wait().unwrap() {
                panic!("{} did not start: {status}\n{}", self.program.name, self.log());
            }
            (self.program.is_up)(self.address()).unwrap_or(false)
        });
    }
}

/// A process, which does not outlive this one.
struct Running {
    child: Child,
    guard: Option<Guard>,
    end: Signal,
}

impl Running {
    fn new(program: &Program, path: &Path, arguments: &[String], folder: &Path) -> Self {
        let log = File::create(log(folder)).unwrap();
        let mut command = command(path, program.user);
        command.args(arguments).stdin(Stdio::null());
        // What a terminal sends to the group of this process is not for the server, but its guard.
        command.process_group(0).stdout(log.try_clone().unwrap()).stderr(log);
        let child = command.spawn().unwrap();
        let guard = Some(Guard::of_process(&child, program.end.as_raw()));
        Self { child, guard, end: program.end }
    }

    fn end(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_some()) {
            return;
        }
        // It has not been waited for: the number is still its own, until the guard is gone as well.
        let process = Pid::from_child(&self.child);
        kill_process(process, self.end).unwrap();
        // It would not hear that while it is stopped.
        kill_process(process, Signal::CONT).unwrap();
        self.guard = None;
        self.child.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

/// A command that runs as this user where we are root: some programs refuse to be root's.
pub(crate) fn command(path: &Path, user: Option<&str>) -> Command {
    let mut command = Command::new(path);
    if let Some((user, group)) = user.and_then(account) {
        command.uid(user).gid(group);
    }
    command
}

/// Gives a file or a folder to the user whom [`command`] runs as.
pub(crate) fn give(path: &Path, user: Option<&str>) {
    if let Some((user, group)) = user.and_then(account) {
        chown(path, Some(user), Some(group)).unwrap();
    }
}

/// The numbers of a user and of its group; `None` where we are not root, and so cannot be it.
fn account(name: &str) -> Option<(u32, u32)> {
    if !geteuid().is_root() {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let found = users.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let found = found.into_iter().find(|user| user.first() == Some(&name));
    let found = found.unwrap_or_else(|| panic!("there is no user {name}"));
    Some((found[2].parse().unwrap(), found[3].parse().unwrap()))
}
