//! Names of hosts: looked up off the hot path, once for all who ask, and then remembered.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use warmline::{Address, BoxError, Connector, Opening, Plan, Pool, PooledConn, Resolver, Socket};
use warmline::{Driver, ErrorKind, TcpConnector};

use crate::support::faults::{BlackHole, Refusing};
use crate::support::resolver::{Answer, Script};
use crate::support::server::Server;
use crate::support::{SOON, ask, assert_balanced, eventually, say, tcp, watchdog};

const LONG: Duration = Duration::from_secs(3600);
const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

fn pool(resolver: &Resolver) -> Pool<TcpConnector> {
    let builder = tcp().resolver(resolver).checkout_timeout(SOON);
    builder.connect_timeout(LONG).build().unwrap()
}

/// A name with the port of this server.
fn at(name: &str, server: &Server) -> String {
    format!("{name}:{}", server.address().port())
}

#[test]
fn a_name_leads_to_the_addresses_of_its_answer_and_to_the_port_of_the_endpoint() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let script = Script::of("db.test", [Answer::ip(HERE)]);
    let pool = pool(&script.resolver());
    let mut conn = pool.get(&at("db.test", &server)).unwrap();
    ask(&mut conn).unwrap();
    assert_eq!(conn.peer_addr(), Some(server.address()));
    assert_eq!(PooledConn::endpoint(&conn).host(), Some("db.test"));
    assert_eq!(script.asked(), ["db.test"]);
}

#[test]
fn an_answer_with_a_port_of_its_own_is_taken_at_its_word() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let script = Script::of("db.test", [Answer::at(server.address())]);
    let pool = pool(&script.resolver());
    let mut conn = pool.get("db.test:1").unwrap();
    ask(&mut conn).unwrap();
    assert_eq!(conn.peer_addr(), Some(server.address()));
    assert_eq!(PooledConn::endpoint(&conn).port(), 1);
}

#[test]
fn names_are_looked_up_in_lower_case_and_without_the_dot_at_the_end() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let script = Script::of("db.test", [Answer::here()]);
    let pool = pool(&script.resolver());
    ask(&mut pool.get(&at("DB.Test.", &server)).unwrap()).unwrap();
    assert_eq!(script.asked(), ["db.test"]);
}

#[test]
fn addresses_are_never_looked_up() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let script = Script::new();
    let pool = pool(&script.resolver());
    ask(&mut pool.get(&server.name()).unwrap()).unwrap();
    assert_eq!(script.count(), 0);
}

#[test]
fn names_are_looked_up_by_threads_of_their_own() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let script = Script::always(Answer::here());
    let driver = Driver::named("fish").unwrap();
    let pool = tcp().driver(&driver).resolver(&script.resolver()).build().unwrap();
    for name in ["a.test", "b.test", "c.test"] {
        ask(&mut pool.get(&at(name, &server)).unwrap()).unwrap();
    }
    let threads = script.threads();
    assert_eq!(threads.len(), 3);
    assert!(threads.iter().all(|name| name.starts_with("fish-dns-")), "{threads:?}");
}

#[test]
fn however_many_callers_ask_at_once_a_name_is_looked_up_once() {
    let _watchdog = watchdog();
    let (one, other) = (Server::echo(), Server::echo());
    let script = Script::of("db.test", [Answer::here().late()]);
    let resolver = script.resolver();
    let (first, second) = (pool(&resolver), pool(&resolver));
    std::thread::scope(|scope| {
        for number in 0..40 {
            let pool = if number % 2 == 0 { &first } else { &second };
            let name = at("db.test", if number % 4 < 2 { &one } else { &other });
            scope.spawn(move || ask(&mut pool.get(&name).unwrap()).unwrap());
        }
        eventually("all of them wait", || {
            first.stats().waiting() == 20 && second.stats().waiting() == 20
        });
        eventually("it is looked up", || script.hanging() == 1);
        script.release();
    });
    assert_eq!(script.asked(), ["db.test"], "for two pools, and two ports");
    assert_eq!((first.stats().checkouts(), second.stats().checkouts()), (20, 20));
    assert_balanced(&first.stats());
    assert_balanced(&second.stats());
}

#[test]
fn a_connection_that_is_reused_has_nothing_looked_up() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let script = Script::of("db.test", [Answer::here()]);
    let pool = pool(&script.forgetful());
    let name = at("db.test", &server);
    ask(&mut pool.get(&name).unwrap()).unwrap();
    let before = script.count();
    for _ in 0..100 {
        let mut conn = pool.get(&name).unwrap();
        assert!(PooledConn::is_reused(&conn));
        ask(&mut conn).unwrap();
    }
    assert_eq!(script.count(), before);
}

#[test]
fn while_an_answer_holds_all_ports_of_the_host_and_all_connections_use_it() {
    let _watchdog = watchdog();
    let servers = [Server::echo(), Server::echo()];
    let script = Script::of("db.test", [Answer::here(), Answer::Fail("asked twice")]);
    let pool = pool(&script.resolver());
    for number in 0..20 {
        let name = at("db.test", servers.get(number % 2).unwrap());
        PooledConn::discard(pool.get(&name).unwrap());
    }
    assert_eq!((script.count(), pool.stats().opened()), (1, 20));
}

#[test]
fn pools_with_clones_of_one_resolver_share_what_it_knows() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let script = Script::of("db.test", [Answer::here(), Answer::Fail("asked twice")]);
    let resolver = script.resolver();
    let clone = resolver.clone();
    ask(&mut pool(&resolver).get(&at("db.test", &server)).unwrap()).unwrap();
    // The first pool is gone, and its threads with it.
    ask(&mut pool(&clone).get(&at("db.test", &server)).unwrap()).unwrap();
    assert_eq!(script.count(), 1);
}

#[test]
fn pools_with_resolvers_of_their_own_ask_for_themselves() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let script = Script::of("db.test", [Answer::here()]);
    let driver = Driver::new();
    for _ in 0..3 {
        let builder = tcp().driver(&driver).resolver(&script.resolver());
        ask(&mut builder.build().unwrap().get(&at("db.test", &server)).unwrap()).unwrap();
    }
    assert_eq!(script.count(), 3);
}

#[test]
fn a_closure_resolves() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let address = server.address();
    let resolver = Resolver::new(move |name: &str| match name {
        "db.test" => Ok(warmline::Resolved::new([address])),
        _ => Err("no such name".into()),
    });
    let pool = pool(&resolver);
    ask(&mut pool.get("db.test:80").unwrap()).unwrap();
    assert_eq!(pool.get("other.test:80").unwrap_err().kind(), ErrorKind::Connect);
}

#[test]
fn of_several_addresses_those_that_refuse_or_hang_are_passed_over() {
    let _watchdog = watchdog();
    let (hole, refusing, server) = (BlackHole::new(), Refusing::new(), Server::echo());
    let all = vec![refusing.address(), hole.address(), server.address()];
    let script = Script::of("db.test", [Answer::At(all)]);
    let pool = pool(&script.resolver());
    let mut conn = pool.get("db.test:80").unwrap();
    ask(&mut conn).unwrap();
    assert_eq!(conn.peer_addr(), Some(server.address()));
    assert_eq!((pool.stats().opened(), pool.stats().connects_failed()), (1, 0));
    assert_eq!(script.count(), 1, "it has led somewhere");
}

#[test]
fn of_two_families_one_that_is_dead_is_passed_over() {
    let _watchdog = watchdog();
    if std::net::TcpListener::bind((V6, 0)).is_err() {
        return say("skipped: this machine has no [::1]");
    }
    let (refusing, server) = (Refusing::at(V6), Server::echo());
    let both = vec![refusing.address(), server.address()];
    let (hole, server_v6) = (BlackHole::new(), Server::echo_at(V6));
    let script = Script::of("one.test", [Answer::At(both)]);
    script.say("other.test", [Answer::At(vec![hole.address(), server_v6.address()])]);
    let pool = pool(&script.resolver());
    let conn = pool.get("one.test:80").unwrap();
    assert_eq!(conn.peer_addr(), Some(server.address()));
    let conn = pool.get("other.test:80").unwrap();
    assert_eq!(conn.peer_addr(), Some(server_v6.address()));
}

/// Logs in on whatever the name leads to: not one of the crate's own, so that the crew opens it.
struct Greeting;

impl Connector for Greeting {
    type Key = String;
    type Conn = Socket;

    fn plan(&self, key: &String) -> Plan {
        Plan::host(key.as_str(), 80)
    }

    fn open(&self, _: &String, opening: &mut Opening) -> Result<Socket, BoxError> {
        let mut socket = opening.take_socket()?;
        std::io::Write::write_all(&mut socket, b"ping")?;
        std::io::Read::read_exact(&mut socket, &mut [0; 4])?;
        Ok(socket)
    }

    fn socket<'c>(&self, conn: &'c mut Socket) -> Option<&'c mut Socket> {
        Some(conn)
    }
}

#[test]
fn connectors_of_others_have_names_looked_up_too() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let script = Script::of("Db_1", [Answer::at(server.address())]);
    let pool = Pool::builder(Greeting).resolver(&script.resolver()).build().unwrap();
    ask(&mut pool.get(&"Db_1".to_owned()).unwrap()).unwrap();
    assert_eq!(script.asked(), ["Db_1"], "as the plan has it");
}

#[test]
fn endpoints_that_are_warmed_or_kept_warm_have_their_name_looked_up_once() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let script = Script::of("db.test", [Answer::here().late(), Answer::Fail("asked twice")]);
    let builder = tcp().resolver(&script.resolver()).min_idle(2);
    let pool = builder.connect_timeout(LONG).build().unwrap();
    let endpoint = pool.endpoint(&at("db.test", &server)).unwrap();
    std::thread::scope(|scope| {
        let warming = scope.spawn(|| endpoint.warm(5, SOON));
        eventually("all are on their way", || pool.stats().connecting() == 5);
        eventually("it is looked up", || script.hanging() == 1);
        script.release();
        assert_eq!(warming.join().unwrap().unwrap(), 5);
    });
    endpoint.evict();
    eventually("two are kept", || pool.stats().idle() == 2);
    assert_eq!(script.count(), 1);
}

#[test]
fn a_request_can_be_waited_for_while_its_name_is_looked_up() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let script = Script::of("db.test", [Answer::here().late()]);
    let pool = pool(&script.resolver());
    let key = Address::new("db.test", server.address().port()).unwrap();
    let request = pool.request(&key).unwrap();
    eventually("it is looked up", || script.hanging() == 1);
    assert!(request.receiver().is_empty());
    script.release();
    ask(&mut request.receiver().recv().unwrap().unwrap()).unwrap();
}

#[test]
fn an_address_that_is_said_twice_or_a_thousand_times_is_tried_once() {
    let _watchdog = watchdog();
    let refusing = Refusing::new();
    let many: Vec<SocketAddr> = vec![refusing.address(); 1_000];
    let script = Script::of("db.test", [Answer::At(many)]);
    let text = pool(&script.resolver()).get("db.test:80").unwrap_err().to_string();
    assert!(text.contains("Connection refused") && !text.contains("addresses failed"), "{text}");
}
