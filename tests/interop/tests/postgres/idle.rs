//! Idle connections: what a server ends for its own reasons.

use std::time::Duration;

use interop::postgres::Postgres;
use interop::servers;
use interop::support::{SOON, assert_balanced, eventually, watchdog};
use postgres::Config;
use warmline::{CloseReason, Connector, Endpoint, Watch};

use crate::{ask, endpoint, endpoint_with};

const LIMIT: Duration = Duration::from_millis(2_500);

/// Leaves six connections idle, one after the other, and waits until all have ended.
fn idle_in_turn(endpoint: &Endpoint<Postgres>) {
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
    let settings = ["-c", "idle_session_timeout=2500ms"];
    let Some(server) = servers::postgres(&settings) else { return };
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
fn where_a_connection_cannot_be_watched_a_check_keeps_its_end_from_users() {
    let _watchdog = watchdog();
    let settings = ["-c", "idle_session_timeout=1s"];
    let Some(server) = servers::postgres(&settings) else { return };
    let mut config = Config::new();
    config.host_path(server.folder()).port(server.address().port()).user("postgres");
    let brief = Duration::from_millis(100);
    let endpoint = endpoint_with(config, |it| it.check_after(brief));
    for round in 1..=3 {
        ask(&mut endpoint.get().unwrap(), 1).unwrap();
        let ends = || server.log().matches("idle-session timeout").count();
        eventually("the server has ended it", || ends() == round);
        assert_eq!(endpoint.stats().idle(), 1, "nobody has noticed");
    }
    ask(&mut endpoint.get().unwrap(), 1).unwrap();
    let stats = endpoint.stats();
    assert_eq!(stats.closed_for(CloseReason::CheckFailed), 3, "{stats}");
}

#[test]
fn a_connection_is_watched_by_the_descriptor_that_its_client_does_not_show() {
    let _watchdog = watchdog();
    let Some(mut server) = servers::postgres(&[]) else { return };
    let endpoint = endpoint(&server, |it| it);
    let connector = Postgres::new(crate::config(&server));
    let [first, second] = [(); 2].map(|()| endpoint.get_timeout(SOON).unwrap());
    let number = |conn| match connector.watch(conn) {
        Watch::Raw(number) => number,
        other => panic!("not watched: {other:?}"),
    };
    assert_ne!(number(&first), number(&second));
    drop((first, second));
    server.kill();
    // Nobody has asked for one, and none is checked yet.
    eventually("the pool has noticed", || endpoint.stats().total() == 0);
}
