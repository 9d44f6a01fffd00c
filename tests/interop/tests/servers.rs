//! What the tests with real servers rely on.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use interop::servers::{self, Server};
use interop::support::{eventually, say, watchdog};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

fn is_there(address: SocketAddr) -> bool {
    TcpStream::connect(address).is_ok()
}

#[test]
fn a_server_is_where_it_was_after_it_was_killed_and_gone_once_it_is_dropped() {
    let _watchdog = watchdog();
    let programs = [
        servers::redis,
        servers::redis_over_tls,
        servers::memcached,
        servers::postgres,
        servers::mariadb,
    ];
    for mut server in programs.into_iter().filter_map(|start| start(&[])) {
        let address = server.address();
        assert!(is_there(address), "{}", server.log());
        server.kill();
        assert!(!is_there(address));
        server.kill();
        server.start_again();
        assert!(is_there(address), "{}", server.log());
        let folder = server.folder().to_owned();
        drop(server);
        assert!(!is_there(address) && !folder.exists());
    }
    let Some(mut sshd) = servers::sshd(&[]) else { return };
    let (address, folder) = (sshd.address(), sshd.key().parent().unwrap().to_owned());
    sshd.kill();
    assert!(!is_there(address) && folder.exists());
    sshd.start_again();
    assert!(is_there(address), "{}", sshd.log());
    drop(sshd);
    assert!(!is_there(address) && !folder.exists());
}

#[test]
fn servers_and_their_folders_do_not_outlive_the_process_that_started_them() {
    const NAME: &str = "servers_and_their_folders_do_not_outlive_the_process_that_started_them";
    const IS_CHILD: &str = "WARMLINE_ENDS_WITH_SERVERS";
    let _watchdog = watchdog();
    if std::env::var_os(IS_CHILD).is_some() {
        return have_servers_until_killed();
    }
    // As an abort or the watchdog end it, and as a terminal does: that tells the whole group.
    let ends: [fn(Pid); 3] = [
        |child| kill_process(child, Signal::KILL).unwrap(),
        |child| kill_process_group(child, Signal::INT).unwrap(),
        |child| kill_process_group(child, Signal::HUP).unwrap(),
    ];
    for end in ends {
        let folder = tempfile::tempdir().unwrap();
        // Some servers run as other users.
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", NAME]).env(IS_CHILD, "1").env("TMPDIR", folder.path());
        child.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = child.spawn().unwrap();
        let addresses = addresses(&mut child);
        let count = || fs::read_dir(folder.path()).unwrap().count();
        assert!(addresses.iter().copied().all(is_there) && count() >= addresses.len());
        end(Pid::from_child(&child));
        assert!(!child.wait().unwrap().success());
        eventually("they are gone", || !addresses.iter().copied().any(is_there) && count() == 0);
    }
}

/// Where its servers are, once they are all there.
fn addresses(child: &mut Child) -> Vec<SocketAddr> {
    let said = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let said: Vec<_> = said.take_while(|line| line != "that is all").collect();
    said.iter().filter_map(|line| line.strip_prefix("at ")?.parse().ok()).collect()
}

fn have_servers_until_killed() {
    let programs = [servers::redis, servers::postgres, servers::mariadb];
    let up: Vec<_> = programs.into_iter().filter_map(|start| start(&[])).collect();
    let sshd = servers::sshd(&[]);
    let addresses = up.iter().map(Server::address);
    for address in addresses.chain(sshd.as_ref().map(servers::Sshd::address)) {
        say(&format!("at {address}"));
    }
    say("that is all");
    loop {
        std::thread::park();
    }
}
