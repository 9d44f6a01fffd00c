//! Idle connections: what a server ends for its own reasons.

use std::time::Duration;

use interop::mysql::Mysql;
use interop::servers;
use interop::support::{SOON, assert_balanced, eventually, watchdog};
use warmline::{CloseReason, Endpoint};

use crate::{ask, endpoint};

const LIMIT: Duration = Duration::from_secs(3);

/// Leaves six connections idle, one after the other, and waits until all have ended.
fn idle_in_turn(endpoint: &Endpoint<Mysql>) {
    let held: Vec<_> = (0..6).map(|_| endpoint.get().unwrap()).collect();
    for mut conn in held {
        ask(&mut conn, 1).unwrap(); // from here on its server counts, too
        drop(conn);
        // More than what would be a restart of the server, if half of them ended within it.
        std::thread::sleep(LIMIT / 8);
    }
    eventually("all have ended", || endpoint.stats().idle() == 0);
}

#[test]
fn the_time_out_of_a_server_is_learned_and_no_user_meets_it() {
    let _watchdog = watchdog();
    let Some(server) = servers::mariadb(&["--wait-timeout=3"]) else { return };
    let endpoint = endpoint(&server, |it| it);
    assert_eq!(endpoint.stats().idle_limit(), None);
    // On a machine that is busy with other things it hears of some too late, and waits for better.
    let learned = loop {
        idle_in_turn(&endpoint);
        match endpoint.stats().idle_limit() {
            Some(learned) if learned < LIMIT => break learned,
            _ => {}
        }
    };
    assert!(learned >= LIMIT / 2, "{learned:?}");
    // From here on the pool closes them first.
    let by_us = || endpoint.stats().closed_for(CloseReason::IdleTimeout);
    let before = by_us();
    while by_us() == before {
        idle_in_turn(&endpoint);
    }
    assert_balanced(&endpoint.stats());
}

#[test]
fn a_server_that_dies_takes_idle_connections_with_it_though_nobody_asks() {
    let _watchdog = watchdog();
    let Some(mut server) = servers::mariadb(&[]) else { return };
    let endpoint = endpoint(&server, |it| it);
    assert_eq!(endpoint.warm(4, SOON).unwrap(), 4);
    server.kill();
    eventually("the pool has noticed", || endpoint.stats().total() == 0);
    assert_eq!(endpoint.stats().closed_for(CloseReason::PeerClosed), 4);
}
