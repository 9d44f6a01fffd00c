//! Pools that keep themselves well, by a virtual clock.

#![cfg(warmline_sim)]

use std::time::Duration;

use simulation::kit::address;
use simulation::play::expect_nothing_left;
use simulation::run::simulate;
use warmline::sim;
use warmline::sim::net::{Manners, Place, set_host};
use warmline::{CloseReason, Endpoint, Pool, TcpConnector};

fn play(body: impl Fn() + Send + Sync + 'static) {
    let played = simulate(move || {
        body();
        expect_nothing_left();
    });
    if let Err(failure) = played {
        panic!("{:#?}", failure.why);
    }
}

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

#[test]
fn what_a_server_closes_for_its_age_is_closed_before_it_does_so_once_that_is_known() {
    play(|| {
        hangs_up_after(Duration::from_secs(5));
        let endpoint = endpoint();
        for _ in 0..10 {
            use_one(&endpoint);
            sim::sleep(Duration::from_millis(5_600));
        }
        let limit = endpoint.stats().idle_limit().expect("it was learned");
        assert!((3_900..=4_000).contains(&limit.as_millis()), "{limit:?}");
        let before = endpoint.stats().closed_for(CloseReason::PeerClosed);
        for pause in (0..40).map(|step| 3_000 + step * 60) {
            use_one(&endpoint);
            sim::sleep(Duration::from_millis(pause));
        }
        let stats = endpoint.stats();
        assert_eq!(stats.closed_for(CloseReason::PeerClosed), before, "{stats}");
        assert!(stats.closed_for(CloseReason::IdleTimeout) >= 10, "{stats}");
    });
}

#[test]
fn restarts_teach_nothing() {
    play(|| {
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
