//! Names of endpoints: what means the same shares its connections.

use std::net::SocketAddr;

use warmline::{Address, Pool, PooledConn, SocketPath, UnixConnector};

use crate::support::lab::Lab;
use crate::support::server::Server;
use crate::support::{ask, eventually, watchdog};

#[test]
fn an_endpoint_can_be_named_by_text_address_or_key() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let pool = Pool::tcp();
    let ip: SocketAddr = server.address();
    let text = ip.to_string();
    let key = Address::try_from(ip).unwrap();
    let twin = Address::new("127.0.0.1", ip.port()).unwrap();
    ask(&mut pool.get(&*text).unwrap()).unwrap();
    ask(&mut pool.get(&text).unwrap()).unwrap();
    ask(&mut pool.get(&ip).unwrap()).unwrap();
    ask(&mut pool.get(&key).unwrap()).unwrap();
    ask(&mut pool.get(&twin).unwrap()).unwrap();
    ask(&mut pool.endpoint(&key).unwrap().get().unwrap()).unwrap();
    assert_eq!(server.accepted(), 1, "all of them are one endpoint");
    assert_eq!((pool.stats().checkouts(), pool.stats().idle()), (6, 1));
    assert_eq!(pool.endpoint(&text).unwrap().key(), &key);
}

#[test]
fn spellings_of_one_host_name_share_its_connections() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let port = server.address().port();
    let pool = Pool::tcp();
    // More spellings than the table of aliases remembers.
    for round in 0..3 {
        for bits in 0..16_u8 {
            let spell = |(at, letter): (usize, char)| {
                if bits >> at & 1 == 1 { letter.to_ascii_uppercase() } else { letter }
            };
            let host: String = "loca".chars().enumerate().map(spell).collect();
            let dot = if round == 1 { "." } else { "" };
            let name = format!("{host}lhost{dot}:{port}");
            ask(&mut pool.get(&name).unwrap()).unwrap();
        }
    }
    assert_eq!(server.accepted(), 1);
    assert_eq!(pool.stats().checkouts(), 48);
}

#[test]
fn different_ports_are_different_endpoints() {
    let _watchdog = watchdog();
    let (one, two) = (Server::echo(), Server::echo());
    let pool = Pool::tcp();
    drop(pool.get(&one.name()).unwrap());
    assert!(!PooledConn::is_reused(&pool.get(&two.name()).unwrap()));
    one.assert_accepted(1);
    two.assert_accepted(1);
}

#[test]
fn unix_endpoints_can_be_named_by_text_path_or_key() {
    let _watchdog = watchdog();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let server = Server::unix(&path, |peer| peer.echo());
    let pool = Pool::builder(UnixConnector::new()).build().unwrap();
    ask(&mut pool.get(path.to_str().unwrap()).unwrap()).unwrap();
    ask(&mut pool.get(&path).unwrap()).unwrap();
    ask(&mut pool.get(path.as_path()).unwrap()).unwrap();
    ask(&mut pool.get(&SocketPath::new(&path).unwrap()).unwrap()).unwrap();
    assert_eq!(server.accepted(), 1);
}

#[test]
fn forgotten_endpoints_leave_their_counts_behind() {
    let _watchdog = watchdog();
    let lab = Lab::sound();
    let bench = lab.bench();
    let pool = Pool::builder(lab).build().unwrap();
    for number in 0..1000 {
        PooledConn::discard(pool.get(&*number.to_string()).unwrap());
    }
    assert_eq!((pool.stats().checkouts(), pool.stats().opened()), (1000, 1000));
    assert_eq!(pool.stats().closed(), 1000);
    eventually("all are closed", || bench.alive() == 0);
    drop(pool.get("7").unwrap());
    assert_eq!(pool.stats().idle(), 1, "a name that comes back is new again");
}

#[test]
fn a_handle_keeps_its_endpoint_from_being_forgotten() {
    let _watchdog = watchdog();
    let pool = Pool::builder(Lab::sound()).build().unwrap();
    let endpoint = pool.endpoint("kept").unwrap();
    PooledConn::discard(endpoint.get().unwrap());
    for number in 0..1000 {
        PooledConn::discard(pool.get(&*number.to_string()).unwrap());
    }
    assert_eq!(endpoint.stats().opened(), 1);
    drop(pool.get("kept").unwrap());
    assert_eq!((endpoint.stats().opened(), endpoint.stats().idle()), (2, 1), "it is the same one");
}

#[test]
fn names_may_be_used_from_many_threads_while_others_are_forgotten() {
    let _watchdog = watchdog();
    let lab = Lab::sound();
    let bench = lab.bench();
    let pool = Pool::builder(lab).build().unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let pool = &pool;
            scope.spawn(move || {
                for number in 0..500 {
                    let conn = pool.get(&*format!("{}", (number * 7 + thread) % 150)).unwrap();
                    if number % 2 == 0 {
                        PooledConn::discard(conn);
                    }
                }
            });
        }
    });
    let stats = pool.stats();
    assert_eq!((stats.checkouts(), stats.in_use()), (2000, 0));
    pool.close();
    eventually("none is lost", || bench.alive() == 0);
}
