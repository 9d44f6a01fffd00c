//! A network that leads nowhere: a child in a namespace of its own, where not even loopback is up.

use std::process::Command;

use warmline::{ErrorKind, Failure, Phase, Pool};

use crate::support::{SOON, assert_empty, eventually, say, watchdog};
use crate::{assert_passed, is_child, run_child};

const NAME: &str = "network::an_unreachable_address_fails_at_once_as_such";

/// A command that runs another without a network, if this machine lets us.
fn without_network() -> Option<Command> {
    for flags in ["-rn", "-n"] {
        let works = Command::new("unshare").args([flags, "true"]).output();
        if works.is_ok_and(|output| output.status.success()) {
            let mut command = Command::new("unshare");
            command.arg(flags).arg(std::env::current_exe().unwrap());
            return Some(command);
        }
    }
    None
}

#[test]
fn an_unreachable_address_fails_at_once_as_such() {
    if !is_child(NAME) {
        let Some(mut command) = without_network() else {
            say(&format!(
                "skipped: {NAME}; it needs the program unshare (util-linux) and either root or \
                 user namespaces (sysctl kernel.unprivileged_userns_clone=1)"
            ));
            return;
        };
        assert_passed(&run_child(&mut command, NAME));
        return;
    }
    let _watchdog = watchdog();
    let pool = Pool::tcp();
    let error = pool.get_timeout("127.0.0.1:80", SOON).unwrap_err();
    assert_eq!((error.kind(), error.failure()), (ErrorKind::Connect, Some(Failure::Unreachable)));
    assert_eq!(error.phase(), Some(Phase::Connect));
    let endpoint = pool.endpoint("127.0.0.1:80").unwrap();
    eventually("warming says so too", || {
        endpoint.warm(1, SOON).is_err_and(|error| error.failure() == Some(Failure::Unreachable))
    });
    assert_eq!(std::io::Error::from(error).kind(), std::io::ErrorKind::HostUnreachable);
    assert_empty(&pool.stats());
}
