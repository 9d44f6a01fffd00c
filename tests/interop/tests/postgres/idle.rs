//! Idle connections: what a server ends for its own reasons.

use std::time::Duration;

use interop::postgres::Postgres;
use interop::support::{SOON, eventually, watchdog};
use interop::{servers, trials};
use postgres::Config;
use warmline::{CloseReason, Connector, Watch};

use crate::{ask, endpoint, endpoint_with};

const LIMIT: Duration = Duration::from_millis(2_500);

#[test]
fn the_time_out_of_a_server_is_learned_and_no_user_meets_it() {
    let _watchdog = watchdog();
    let settings = ["-c", "idle_session_timeout=2500ms"];
    let Some(server) = servers::postgres(&settings) else { return };
    let endpoint = endpoint(&server, |it| it);
    trials::learns_idle_limit(&endpoint, LIMIT, |conn, number| Ok(ask(conn, number)?));
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
