//! A machine whose local ports are used up: trouble of its own, which is not held against a server.

use std::process::Command;
use std::time::Duration;

use warmline::{Failure, Phase};

use crate::support::server::Server;
use crate::support::{SOON, ask, assert_balanced, eventually, say, tcp, watchdog};
use crate::{assert_passed, is_child, run_child};

/// A command that runs another on a network of its own with sixteen local ports, if this machine
/// lets us.
fn with_few_ports() -> Option<Command> {
    let script = "ip link set lo up && \
                  echo 40000 40015 > /proc/sys/net/ipv4/ip_local_port_range && exec \"$@\"";
    for flags in ["-rn", "-n"] {
        let inside = || {
            let mut command = Command::new("unshare");
            command.args([flags, "sh", "-c", script, "sh"]);
            command
        };
        if inside().arg("true").output().is_ok_and(|output| output.status.success()) {
            let mut command = inside();
            command.arg(std::env::current_exe().unwrap());
            return Some(command);
        }
    }
    None
}

#[test]
fn used_up_local_ports_are_a_local_failure_and_other_servers_are_reached() {
    const NAME: &str =
        "ports::used_up_local_ports_are_a_local_failure_and_other_servers_are_reached";
    if !is_child(NAME) {
        let Some(mut command) = with_few_ports() else {
            return say(&format!("skipped: {NAME}; it needs unshare, ip and user namespaces"));
        };
        return assert_passed(&run_child(&mut command, NAME));
    }
    let _watchdog = watchdog();
    let (server, other) = (Server::echo(), Server::echo());
    let pool = tcp().build().unwrap();
    let endpoint = pool.endpoint(&server.name()).unwrap();
    let mut held = Vec::new();
    let error = loop {
        match endpoint.get_timeout(Duration::from_millis(300)) {
            Ok(conn) => held.push(conn),
            Err(error) => break error,
        }
    };
    assert!((1..=16).contains(&held.len()), "{}", held.len());
    assert_eq!((error.failure(), error.phase()), (Some(Failure::Local), Some(Phase::Queue)));
    // A port that leads to one server may lead to another at the same time.
    for _ in 0..3 {
        ask(&mut pool.get_timeout(&other.name(), SOON).unwrap()).unwrap();
    }
    held.iter_mut().for_each(|conn| ask(conn).expect("they are none the worse"));
    // Who hangs up first is who keeps the memory of it.
    let count = held.len();
    server.hang_up();
    drop(held);
    eventually("as many can be had again", || {
        let again: Vec<_> = (0..count).map_while(|_| endpoint.get_timeout(SOON).ok()).collect();
        again.len() == count
    });
    assert_balanced(&endpoint.stats());
}
