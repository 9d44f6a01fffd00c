//! An endpoint with several addresses: dead ones delay nobody for long, and leave nothing behind.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use warmline::{
    BoxError, Builder, CloseReason, Connector, Endpoint, ErrorKind, Failure, One, Opening, Phase,
    Plan, Pool, Socket, SocketOptions,
};

use crate::support::faults::{BlackHole, Refusing};
use crate::support::foreign::Spread;
use crate::support::server::Server;
use crate::support::{SOON, ask, assert_balanced, assert_empty, eventually, say, watchdog};

const LONG: Duration = Duration::from_secs(3600);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

fn builder(addresses: impl IntoIterator<Item = SocketAddr>) -> Builder<Spread> {
    // Only an address that answers can end an attempt.
    let builder = Pool::builder(Spread(addresses.into_iter().collect()));
    builder.connect_timeout(LONG).checkout_timeout(SOON)
}

fn endpoint(addresses: impl IntoIterator<Item = SocketAddr>) -> Endpoint<Spread> {
    builder(addresses).build().unwrap().only().unwrap()
}

fn has_v6() -> bool {
    let has_it = std::net::TcpListener::bind((V6, 0)).is_ok();
    if !has_it {
        say("skipped: this machine has no [::1]");
    }
    has_it
}

#[test]
fn the_first_address_that_works_is_the_only_one_that_is_asked() {
    let _watchdog = watchdog();
    let servers = [Server::echo(), Server::echo(), Server::echo()];
    let endpoint = endpoint(servers.iter().map(Server::address));
    let mut held: Vec<_> = (0..5).map(|_| endpoint.get().unwrap()).collect();
    held.iter_mut().for_each(|conn| ask(conn).unwrap());
    let accepted: Vec<_> = servers.iter().map(Server::accepted).collect();
    assert_eq!(accepted, [5, 0, 0]);
}

#[test]
fn addresses_that_refuse_are_passed_over() {
    let _watchdog = watchdog();
    let refusing: Vec<_> = (0..5).map(|_| Refusing::new()).collect();
    let server = Server::echo();
    let addresses = refusing.iter().map(Refusing::address).chain([server.address()]);
    let endpoint = endpoint(addresses);
    ask(&mut endpoint.get().unwrap()).unwrap();
    let stats = endpoint.stats();
    assert_eq!((stats.opened(), stats.connects_failed()), (1, 0), "it is one attempt");
}

#[test]
fn an_address_that_hangs_is_overtaken_and_its_socket_closed() {
    let _watchdog = watchdog();
    let (hole, server) = (BlackHole::new(), Server::echo());
    let endpoint = endpoint([hole.address(), server.address()]);
    // Its connect alone would take an hour.
    let mut conn = endpoint.get().unwrap();
    ask(&mut conn).unwrap();
    assert_eq!(conn.peer_addr(), Some(server.address()));
    assert_eq!((endpoint.stats().total(), endpoint.stats().connecting()), (1, 0));
    match hole.besieged_by() {
        Some(sockets) => assert_eq!(sockets, 0, "the loser is gone when the winner is there"),
        None => say("skipped: the system does not tell which sockets there are"),
    }
    assert_eq!(server.accepted(), 1);
    assert_balanced(&endpoint.stats());
}

#[test]
fn while_the_first_address_hangs_its_socket_is_there_and_goes_with_the_pool() {
    let _watchdog = watchdog();
    let hole = BlackHole::new();
    let endpoint = endpoint([hole.address()]);
    if hole.besieged_by().is_none() {
        return say("skipped: the system does not tell which sockets there are");
    }
    endpoint.get_timeout(Duration::from_millis(5)).unwrap_err();
    eventually("it is on its way", || hole.besieged_by() == Some(1));
    endpoint.pool().close();
    eventually("it is closed", || hole.besieged_by() == Some(0));
}

#[test]
fn several_that_hang_are_tried_side_by_side() {
    let _watchdog = watchdog();
    let holes: Vec<_> = (0..4).map(|_| BlackHole::new()).collect();
    let refusing = Refusing::new();
    let server = Server::echo();
    let dead = holes.iter().map(BlackHole::address).chain([refusing.address()]);
    let endpoint = endpoint(dead.chain([server.address()]));
    ask(&mut endpoint.get().unwrap()).unwrap();
    let left: usize = holes.iter().filter_map(BlackHole::besieged_by).sum();
    assert_eq!((left, endpoint.stats().total()), (0, 1));
}

#[test]
fn the_families_take_turns() {
    let _watchdog = watchdog();
    if !has_v6() {
        return;
    }
    // With one family after the other, all of the holes would come before the server.
    let holes: Vec<_> = (0..40).map(|_| BlackHole::new()).collect();
    let (refusing, server) = (Refusing::at(V6), Server::echo_at(V6));
    let (first, others) = holes.split_first().unwrap();
    let v6 = [refusing.address(), server.address()];
    let v4 = [first.address()].into_iter().chain(others.iter().map(BlackHole::address));
    let endpoint = endpoint(v4.chain(v6));
    let mut conn = endpoint.get().unwrap();
    ask(&mut conn).unwrap();
    assert_eq!(conn.peer_addr(), Some(server.address()));
    assert_eq!(endpoint.stats().opened(), 1);
}

#[test]
fn an_address_of_the_other_family_takes_over() {
    let _watchdog = watchdog();
    if !has_v6() {
        return;
    }
    let server = Server::echo();
    let v6_refuses = Refusing::at(V6);
    let there = endpoint([v6_refuses.address(), server.address()]);
    ask(&mut there.get().unwrap()).unwrap();

    let (v4_hangs, server) = (BlackHole::new(), Server::echo_at(V6));
    let here = endpoint([v4_hangs.address(), server.address()]);
    ask(&mut here.get().unwrap()).unwrap();
    assert_eq!(server.accepted(), 1);
}

#[test]
fn of_sixty_addresses_one_that_works_is_enough() {
    let _watchdog = watchdog();
    let ips =
        if has_v6() { [IpAddr::from([127, 0, 0, 1]), V6] } else { [[127, 0, 0, 1].into(); 2] };
    let refusing: Vec<_> = (0..57).map(|n: usize| Refusing::at(ips[n % 2])).collect();
    let holes = [BlackHole::new(), BlackHole::new()];
    let server = Server::echo();
    let dead = refusing.iter().map(Refusing::address).chain(holes.iter().map(BlackHole::address));
    let endpoint = endpoint(dead.chain([server.address()]));
    ask(&mut endpoint.get().unwrap()).unwrap();
    assert_eq!((endpoint.stats().opened(), endpoint.stats().connects_failed()), (1, 0));
    let left: usize = holes.iter().filter_map(BlackHole::besieged_by).sum();
    assert_eq!(left, 0);
}

#[test]
fn when_all_addresses_fail_the_error_says_how_many_and_why() {
    let _watchdog = watchdog();
    let refusing: Vec<_> = (0..60).map(|_| Refusing::new()).collect();
    let endpoint = endpoint(refusing.iter().map(Refusing::address));
    let error = endpoint.get_timeout(SOON).unwrap_err();
    assert_eq!((error.kind(), error.failure()), (ErrorKind::Connect, Some(Failure::Refused)));
    assert_eq!(error.phase(), Some(Phase::Connect));
    let text = error.to_string();
    assert!(text.contains("all 60 addresses failed: Connection refused"), "{text}");
    assert_empty(&endpoint.stats());
}

#[test]
fn when_some_hang_until_the_deadline_the_error_says_what_became_of_the_others() {
    let _watchdog = watchdog();
    let (hole, refusing) = (BlackHole::new(), Refusing::new());
    let builder = builder([refusing.address(), hole.address()]);
    let pool = builder.connect_timeout(Duration::from_millis(100)).build().unwrap();
    let error = pool.only().unwrap().get_timeout(SOON).unwrap_err();
    assert_eq!((error.kind(), error.failure()), (ErrorKind::Connect, Some(Failure::Timeout)));
    let text = error.to_string();
    assert!(text.contains("no answer by the deadline"), "{text}");
    assert!(text.contains("1 failed before: Connection refused"), "{text}");
    assert_empty(&pool.stats());
    assert_eq!(hole.besieged_by().unwrap_or_default(), 0);
}

#[test]
fn no_address_at_all_is_a_mistake_of_the_connector_and_is_said_at_once() {
    let pool = builder([]).build().unwrap();
    let error = pool.only().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("no address"), "{error}");
    assert_empty(&pool.stats());
}

#[test]
fn an_address_that_is_named_twice_is_tried_once() {
    let _watchdog = watchdog();
    let refusing = Refusing::new();
    let endpoint = endpoint([refusing.address(); 5]);
    let text = endpoint.get_timeout(SOON).unwrap_err().to_string();
    assert!(text.contains("Connection refused") && !text.contains("addresses failed"), "{text}");
}

#[test]
fn the_connection_that_won_is_watched_like_any_other() {
    let _watchdog = watchdog();
    let (hole, server) = (BlackHole::new(), Server::echo());
    let endpoint = endpoint([hole.address(), server.address()]);
    ask(&mut endpoint.get().unwrap()).unwrap();
    server.hang_up();
    eventually("its end is noticed", || endpoint.stats().closed_for(CloseReason::PeerClosed) == 1);
}

/// The same as [`Spread`], from an address of IPv4.
struct FromV4(Vec<SocketAddr>);

impl Connector for FromV4 {
    type Key = One;
    type Conn = Socket;

    fn plan(&self, _: &One) -> Plan {
        let options = SocketOptions::new().local_address(IpAddr::V4(Ipv4Addr::LOCALHOST));
        Plan::addrs(self.0.clone()).options(options)
    }

    fn open(&self, _: &One, opening: &mut Opening) -> Result<Socket, BoxError> {
        opening.take_socket()
    }
}

#[test]
fn addresses_of_a_family_that_the_local_address_cannot_reach_are_left_out() {
    let _watchdog = watchdog();
    let refusing = Refusing::new();
    let other = SocketAddr::new(V6, refusing.address().port());
    let both = Endpoint::of(FromV4(vec![refusing.address(), other])).unwrap();
    let error = both.get_timeout(SOON).unwrap_err();
    assert_eq!(error.failure(), Some(Failure::Refused), "{error}");
    assert!(!error.to_string().contains("addresses failed"), "one was tried: {error}");
    // With no other left, the system says what is wrong.
    let neither = Endpoint::of(FromV4(vec![other])).unwrap();
    let error = neither.get_timeout(SOON).unwrap_err();
    assert_eq!((error.kind(), error.phase()), (ErrorKind::Connect, Some(Phase::Connect)));
}
