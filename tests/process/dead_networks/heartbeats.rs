//! Heartbeats find out what neither keepalive nor anybody's traffic would: within an hour, here.

use std::time::Duration;

use warmline::{Beat, Builder, CloseReason, Pool, TcpConnector};

use crate::dead_networks::{in_own_network, unsuspecting, way};
use crate::support::{Diary, SOON, ask, assert_balanced, both_ways, eventually};

both_ways! {
    heartbeats_end_idle_connections_that_no_packet_reaches_any_more,
}

/// A connection that is idle is found dead within half a second or so.
fn beating() -> Builder<TcpConnector> {
    let connector = unsuspecting().heartbeat(Beat::new(b"beat", b"beat"));
    let builder = Pool::builder(connector).check_interval(Duration::from_millis(200));
    builder.check_timeout(Duration::from_millis(300))
}

fn heartbeats_end_idle_connections_that_no_packet_reaches_any_more(is_portable: bool) {
    let test = "heartbeats_end_idle_connections_that_no_packet_reaches_any_more";
    in_own_network(&format!("heartbeats::{}::{test}", way(is_portable)), |cable| {
        let server = cable.echo();
        let diary = Diary::default();
        let builder = beating().portable_watch(is_portable).observer(diary.clone());
        let endpoint = builder.build().unwrap().endpoint(&server.name()).unwrap();
        assert_eq!(endpoint.warm(5, SOON).unwrap(), 5);
        ask(&mut endpoint.get().unwrap()).unwrap();
        cable.die();
        assert_eq!(diary.reasons_of(5), [CloseReason::TooLate; 5]);
        assert_eq!((endpoint.stats().total(), endpoint.stats().checkouts()), (0, 1));
        cable.heal();
        eventually("it works again", || endpoint.get().is_ok_and(|mut it| ask(&mut it).is_ok()));
        assert_balanced(&endpoint.stats());
    });
}

#[test]
fn with_heartbeats_what_is_kept_ready_is_ready_and_alive_soon_after_the_network_is() {
    let name = "with_heartbeats_what_is_kept_ready_is_ready_and_alive_soon_after_the_network_is";
    in_own_network(&format!("heartbeats::{name}"), |cable| {
        let server = cable.echo();
        let builder = beating().min_idle(2).connect_timeout(Duration::from_millis(500));
        let endpoint = builder.build().unwrap().endpoint(&server.name()).unwrap();
        eventually("two are ready", || endpoint.stats().idle() == 2);
        cable.die();
        eventually("they have ended, and attempts fail", || {
            endpoint.stats().total() <= 1 && endpoint.stats().connects_failed() >= 2
        });
        cable.heal();
        eventually("two are ready again", || endpoint.stats().idle() == 2);
        assert_eq!((endpoint.stats().checkouts(), endpoint.stats().opened()), (0, 4));
        ask(&mut endpoint.get().unwrap()).unwrap();
    });
}
