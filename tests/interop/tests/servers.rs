//! What the tests with real servers rely on.

use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};

use interop::servers;
use interop::support::{eventually, say, watchdog};

fn is_there(address: SocketAddr) -> bool {
    TcpStream::connect(address).is_ok()
}

#[test]
fn a_server_is_where_it_was_after_it_was_killed_and_gone_once_it_is_dropped() {
    let _watchdog = watchdog();
    for start in [servers::redis, servers::redis_over_tls, servers::memcached] {
        let Some(mut server) = start(&[]) else { return };
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
}

#[test]
fn a_server_does_not_outlive_the_process_that_started_it() {
    const NAME: &str = "a_server_does_not_outlive_the_process_that_started_it";
    const IS_CHILD: &str = "WARMLINE_ABORTS_WITH_A_SERVER";
    let _watchdog = watchdog();
    let Some(server) = servers::redis(&[]) else { return };
    if std::env::var_os(IS_CHILD).is_some() {
        say(&format!("at {}", server.address()));
        std::process::abort();
    }
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", NAME]).env(IS_CHILD, "1").stdout(Stdio::null());
    let output = child.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let address = said.lines().find_map(|line| line.strip_prefix("at ")).expect(&said);
    let address: SocketAddr = address.parse().unwrap();
    eventually("it is gone", || !is_there(address));
}
