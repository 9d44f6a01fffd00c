//! Idle connections: what a server ends for its own reasons.

use std::time::Duration;

use interop::support::{SOON, eventually, watchdog};
use interop::{servers, trials};
use warmline::CloseReason;

use crate::{ask, endpoint};

const LIMIT: Duration = Duration::from_secs(3);

#[test]
fn the_time_out_of_a_server_is_learned_and_no_user_meets_it() {
    let _watchdog = watchdog();
    let Some(server) = servers::mariadb(&["--wait-timeout=3"]) else { return };
    let endpoint = endpoint(&server, |it| it);
    trials::learns_idle_limit(&endpoint, LIMIT, |conn, number| Ok(ask(conn, number)?));
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
