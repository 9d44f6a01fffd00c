//! Names that lead elsewhere by now: when that is found out, and what becomes of what is there.

use std::net::SocketAddr;
use std::time::Duration;

use warmline::{CloseReason, Endpoint, Failure, Pool, PooledConn, Repeat, Resolver, TcpConnector};

use crate::support::faults::{BlackHole, Refusing};
use crate::support::resolver::{Answer, Script};
use crate::support::server::Server;
use crate::support::{SOON, ask, assert_balanced, eventually, say, tcp, watchdog};

const NAME: &str = "db.test:80";
const ZERO: Duration = Duration::ZERO;
const LONG: Duration = Duration::from_secs(3600);

fn script<const N: usize>(answers: [Answer; N]) -> Script {
    Script::of("db.test", answers)
}

fn pool(resolver: &Resolver) -> Pool<TcpConnector> {
    let builder = tcp().resolver(resolver).checkout_timeout(SOON);
    builder.connect_timeout(LONG).build().unwrap()
}

/// Where a new connection leads to; it is not kept.
fn leads_to(pool: &Pool<TcpConnector>) -> Option<SocketAddr> {
    let conn = pool.get(NAME).unwrap();
    let address = conn.peer_addr();
    assert!(!PooledConn::is_reused(&conn));
    PooledConn::discard(conn);
    address
}

#[test]
fn a_stale_answer_is_used_while_the_name_is_looked_up_once_beside_that() {
    let _watchdog = watchdog();
    let (old, new) = (Server::echo(), Server::echo());
    let script = script([
        Answer::AtFor(vec![old.address()], ZERO),
        Answer::at(new.address()).late(),
        Answer::Fail("asked too often"),
    ]);
    let pool = pool(&script.resolver());
    for _ in 0..5 {
        assert_eq!(leads_to(&pool), Some(old.address()));
    }
    eventually("it is looked up beside that", || script.hanging() == 1);
    assert_eq!(script.count(), 2);
    script.release();
    eventually("the new answer is used", || leads_to(&pool) == Some(new.address()));
    for _ in 0..20 {
        assert_eq!(leads_to(&pool), Some(new.address()));
    }
    assert_eq!(script.count(), 2);
}

#[test]
fn each_answer_is_stale_at_once_where_the_resolver_says_so() {
    let _watchdog = watchdog();
    let servers = [Server::echo(), Server::echo(), Server::echo()];
    let [first, second, third] = servers.each_ref().map(|server| Answer::at(server.address()));
    let script = script([first, second, third]);
    let pool = pool(&script.resolver().ttl(ZERO));
    for server in &servers {
        eventually("one after the other", || leads_to(&pool) == Some(server.address()));
    }
}

#[test]
fn an_answers_own_time_counts_and_not_the_resolvers() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let script = script([Answer::AtFor(vec![server.address()], LONG), Answer::Fail("once more")]);
    let pool = pool(&script.forgetful());
    for _ in 0..20 {
        assert_eq!(leads_to(&pool), Some(server.address()));
    }
    assert_eq!(script.count(), 1);
}

#[test]
fn where_nothing_may_be_stale_the_new_answer_is_waited_for() {
    let _watchdog = watchdog();
    let (old, new) = (Server::echo(), Server::echo());
    let script = script([Answer::at(old.address())]);
    let pool = pool(&script.forgetful());
    assert_eq!(leads_to(&pool), Some(old.address()));
    script.say("db.test", [Answer::at(new.address()).late(), Answer::at(new.address())]);
    std::thread::scope(|scope| {
        let caller = scope.spawn(|| leads_to(&pool));
        eventually("it is looked up", || script.hanging() == 1);
        assert_eq!((pool.stats().opened(), pool.stats().waiting()), (1, 1));
        script.release();
        assert_eq!(caller.join().unwrap(), Some(new.address()));
    });
}

#[test]
fn a_name_server_that_fails_does_not_take_a_stale_answer_away() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let script =
        script([Answer::AtFor(vec![server.address()], ZERO), Answer::Fail("the server is down")]);
    let pool = pool(&script.resolver().negative_ttl(ZERO));
    eventually("it was asked again, and again", || {
        assert_eq!(leads_to(&pool), Some(server.address()));
        script.count() >= 4
    });
    assert_eq!(pool.stats().connects_failed(), 0);
}

#[test]
fn a_changed_answer_is_for_new_connections_and_the_others_stay() {
    let _watchdog = watchdog();
    let (old, new) = (Server::echo(), Server::echo());
    let script = script([Answer::at(old.address())]);
    let pool = pool(&script.forgetful());
    let mut before = pool.get(NAME).unwrap();
    ask(&mut before).unwrap();
    script.say("db.test", [Answer::at(new.address())]);
    let mut after = pool.get(NAME).unwrap();
    ask(&mut after).unwrap();
    ask(&mut before).unwrap();
    let addresses = [&before, &after].map(|conn| conn.peer_addr().unwrap());
    assert_eq!(addresses, [old.address(), new.address()]);
    drop((before, after));
    for _ in 0..10 {
        let mut both = [pool.get(NAME).unwrap(), pool.get(NAME).unwrap()];
        both.iter_mut().for_each(|conn| ask(conn).unwrap());
    }
    let stats = pool.stats();
    assert_eq!((stats.opened(), stats.idle(), stats.closed()), (2, 2, 0));
}

#[test]
fn forgetting_all_answers_has_names_looked_up_again_and_leaves_connections_alone() {
    let _watchdog = watchdog();
    let (old, new) = (Server::echo(), Server::echo());
    let script = script([Answer::at(old.address()), Answer::at(new.address())]);
    let resolver = script.resolver();
    let pool = pool(&resolver);
    drop(pool.get(NAME).unwrap());
    resolver.clear();
    let conn = pool.get(NAME).unwrap();
    assert!(PooledConn::is_reused(&conn));
    assert_eq!(script.count(), 1);
    assert_eq!(leads_to(&pool), Some(new.address()));
    assert_eq!(script.count(), 2);
    drop(conn);
}

#[test]
fn forgetting_all_answers_while_a_name_is_looked_up_loses_nobody_who_waits() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let script = script([Answer::at(server.address()).late()]);
    let resolver = script.resolver();
    let pool = pool(&resolver);
    std::thread::scope(|scope| {
        let caller = scope.spawn(|| leads_to(&pool));
        eventually("it is looked up", || script.hanging() == 1);
        resolver.clear();
        script.release();
        assert_eq!(caller.join().unwrap(), Some(server.address()));
    });
}

#[test]
fn where_nothing_answers_any_more_the_name_is_looked_up_before_the_next_attempt() {
    let _watchdog = watchdog();
    let (old, new) = (Server::echo(), Server::echo());
    let script = script([Answer::at(old.address()), Answer::at(new.address())]);
    let pool = pool(&script.resolver().negative_ttl(ZERO));
    let endpoint = pool.endpoint(NAME).unwrap();
    ask(&mut endpoint.get().unwrap()).unwrap();
    drop(old);
    eventually("its end is noticed", || endpoint.stats().closed_for(CloseReason::PeerClosed) == 1);
    let error = endpoint.get().unwrap_err();
    assert_eq!(error.failure(), Some(Failure::Refused), "{error}");
    eventually("it leads elsewhere", || {
        endpoint.get().is_ok_and(|conn| conn.peer_addr() == Some(new.address()))
    });
    assert_eq!(script.count(), 2, "an hour before it would have had to be");
    assert_eq!(endpoint.stats().connects_failed(), 1);
}

fn assert_answers(endpoint: &Endpoint<TcpConnector>) {
    endpoint.run(Repeat::Always, ask).unwrap();
}

#[test]
fn who_repeats_exchanges_does_not_notice_that_a_server_has_moved() {
    let _watchdog = watchdog();
    let (old, new) = (Server::echo(), Server::echo());
    let script = script([Answer::at(old.address()), Answer::at(new.address())]);
    let pool = pool(&script.resolver().negative_ttl(ZERO));
    let endpoint = pool.endpoint(NAME).unwrap();
    (0..10).for_each(|_| assert_answers(&endpoint));
    drop(old);
    (0..10).for_each(|_| assert_answers(&endpoint));
    assert!(new.accepted() >= 1 && script.count() == 2);
    assert_balanced(&endpoint.stats());
}

#[test]
fn where_nothing_answers_the_name_servers_are_not_stormed() {
    let _watchdog = watchdog();
    let refusing = Refusing::new();
    let script = script([Answer::at(refusing.address())]);
    let pool = pool(&script.resolver().negative_ttl(LONG));
    eventually("it was tried several times", || {
        let error = pool.get(NAME).unwrap_err();
        assert_eq!(error.failure(), Some(Failure::Refused), "{error}");
        pool.stats().connects_failed() >= 4
    });
    assert_eq!(script.count(), 1);
    refusing.listen();
    eventually("it is there", || pool.get(NAME).is_ok());
    assert_eq!(script.count(), 1);
}

#[test]
fn an_address_that_is_doubted_is_still_better_than_none() {
    let _watchdog = watchdog();
    let refusing = Refusing::new();
    let script = script([Answer::at(refusing.address()), Answer::Fail("the server is down")]);
    // Failures of the name server are remembered for a while, but not at first.
    let pool = pool(&script.resolver().negative_ttl(ZERO));
    eventually("the name server fails as well", || {
        let error = pool.get(NAME).unwrap_err();
        assert_eq!(error.failure(), Some(Failure::Refused), "{error}");
        script.count() >= 3
    });
    refusing.listen();
    eventually("it is there", || pool.get(NAME).is_ok());
}

#[test]
fn what_changes_while_a_connection_is_opened_is_for_the_next() {
    let _watchdog = watchdog();
    let (hole, server) = (BlackHole::new(), Server::echo());
    if hole.besieged_by().is_none() {
        return say("skipped: the system does not tell which sockets there are");
    }
    let script = script([Answer::at(hole.address()), Answer::at(server.address())]);
    let resolver = script.resolver();
    let pool = pool(&resolver);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| leads_to_any(&pool));
        eventually("it is on its way", || hole.besieged_by() == Some(1));
        resolver.clear();
        let conn = pool.get(NAME).unwrap();
        assert_eq!(conn.peer_addr(), Some(server.address()));
        assert_eq!(hole.besieged_by(), Some(1), "the other tries on, where it began");
        drop(conn);
        assert_eq!(first.join().unwrap(), Some(server.address()), "whichever comes first");
    });
    assert_eq!(script.count(), 2);
    pool.close();
    eventually("nothing is left of it", || hole.besieged_by() == Some(0));
}

fn leads_to_any(pool: &Pool<TcpConnector>) -> Option<SocketAddr> {
    pool.get(NAME).unwrap().peer_addr()
}
