//! Pools that keep themselves well, by a virtual clock.

#![cfg(warmline_sim)]

use std::time::Duration;

use simulation::kit::address;
use simulation::run::simulate_well;
use warmline::sim;
use warmline::sim::net::{Manners, Place, set_host};
use warmline::{CloseReason, Endpoint, Pool, TcpConnector};

/// A host that hangs up on what is idle for so long.
fn hangs_up_after(limit: Duration) {
    let nanos = u64::try_from(limit.as_nanos()).expect("a short time");
    let manners = Manners { idle_limit: Some(nanos), ..Manners::calm() };
    set_host(Place::Address(address(0)), manners);
}

fn endpoint() -> Endpoint<TcpConnector> {
    let pool = Pool::builder(TcpConnector::new()).build().expect("the settings make sense");
    pool.endpoint(&address(0)).expect("an address")
}

fn use_one(endpoint: &Endpoint<TcpConnector>) {
    use std::io::{Read, Write};
    let mut conn = endpoint.get().expect("a calm host");
    conn.write_all(b"anything").expect("it is sent");
    conn.read_exact(&mut [0; 8]).expect("it comes back");
}

/// A server that hangs up on what is idle for five seconds is met with dead connections ten times
/// at the most, then never again.
fn learns(keeps_handle: bool) {
    hangs_up_after(Duration::from_secs(5));
    let endpoint = endpoint();
    let pool = endpoint.pool();
    let handle = keeps_handle.then_some(endpoint);
    let again = || pool.endpoint(&address(0)).expect("an address");
    for _ in 0..10 {
        use_one(&again());
        sim::sleep(Duration::from_millis(5_600));
    }
    let limit = again().stats().idle_limit().expect("it was learned");
    assert!((3_900..=4_000).contains(&limit.as_millis()), "{limit:?}");
    let before = pool.stats().closed_for(CloseReason::PeerClosed);
    for pause in (0..40).map(|step| 3_000 + step * 60) {
        use_one(&again());
        sim::sleep(Duration::from_millis(pause));
    }
    let stats = pool.stats();
    assert_eq!(stats.closed_for(CloseReason::PeerClosed), before, "{stats}");
    assert!(stats.closed_for(CloseReason::IdleTimeout) >= 10, "{stats}");
    drop(handle);
}

#[test]
fn what_a_server_closes_for_its_age_is_closed_before_it_does_so_once_that_is_known() {
    simulate_well(|| learns(true));
}

#[test]
fn also_where_nobody_holds_a_handle_between_two_uses() {
    simulate_well(|| learns(false));
}

#[test]
fn restarts_teach_nothing() {
    simulate_well(|| {
        set_host(Place::Address(address(0)), Manners::calm());
        let endpoint = endpoint();
        for _ in 0..20 {
            endpoint.warm(4, Duration::from_secs(1)).expect("a calm host");
            (0..4).for_each(|_| use_one(&endpoint));
            sim::sleep(Duration::from_secs(5));
            sim::net::end_connections(&Place::Address(address(0)), false);
            sim::sleep(Duration::from_secs(1));
        }
        assert_eq!(endpoint.stats().idle_limit(), None);
    });
}

#[test]
fn what_is_to_be_kept_ready_is_never_fewer_while_one_generation_follows_the_other() {
    simulate_well(|| {
        let builder = Pool::builder(TcpConnector::new()).min_idle(4);
        let pool = builder.max_lifetime(Duration::from_secs(10)).build();
        let pool = pool.expect("the settings make sense");
        let endpoint = pool.endpoint(&address(0)).expect("an address");
        sim::sleep(Duration::from_secs(1));
        for _ in 0..60_000 {
            sim::sleep(Duration::from_millis(1));
            let stats = endpoint.stats();
            assert!((4..=8).contains(&stats.idle()), "{stats}");
        }
        let stats = endpoint.stats();
        assert!(stats.closed_for(CloseReason::MaxLifetime) >= 20, "{stats}");
        assert_eq!(stats.checkouts(), 0);
    });
}
