//! A real server: memcached, if it is installed.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use warmline::{CloseReason, Endpoint, ErrorKind, Failure, Phase, Pool, PooledConn, TcpConnector};

use crate::support::programs::{Program, line};
use crate::support::{SOON, assert_empty, eventually, tcp, watchdog};

/// As many connections as a server may have, and a few files of its own.
const FEW: [&str; 2] = ["-c", "20"];

fn set(conn: &mut (impl Read + Write), key: &str, value: &str) -> io::Result<String> {
    conn.write_all(format!("set {key} 0 0 {}\r\n{value}\r\n", value.len()).as_bytes())?;
    line(conn)
}

/// The lines of the answer.
fn get(conn: &mut (impl Read + Write), key: &str) -> io::Result<[String; 3]> {
    conn.write_all(format!("get {key}\r\n").as_bytes())?;
    Ok([line(conn)?, line(conn)?, line(conn)?])
}

fn version(conn: &mut (impl Read + Write)) -> io::Result<String> {
    conn.write_all(b"version\r\n")?;
    line(conn)
}

/// One of the server's own figures.
fn figure(conn: &mut (impl Read + Write), name: &str) -> u64 {
    conn.write_all(b"stats\r\n").unwrap();
    let mut found = None;
    loop {
        let line = line(conn).unwrap();
        if line == "END" {
            return found.unwrap();
        }
        let figure = line.strip_prefix(&format!("STAT {name} "));
        found = figure.map(|figure| figure.parse().unwrap()).or(found);
    }
}

fn set_and_get(endpoint: &Endpoint<TcpConnector>, thread: usize) {
    let key = format!("key{thread}");
    for number in 0..200 {
        let mut conn = endpoint.get_timeout(SOON).unwrap();
        let value = format!("{thread}-{number}");
        assert_eq!(set(&mut conn, &key, &value).unwrap(), "STORED");
        let head = format!("VALUE {key} 0 {}", value.len());
        assert_eq!(get(&mut conn, &key).unwrap(), [head, value, "END".to_owned()]);
    }
}

#[test]
fn many_threads_share_three_connections_and_read_what_they_wrote() {
    let _watchdog = watchdog();
    let Some(memcached) = Program::memcached(&[]) else { return };
    let pool = tcp().max_per_endpoint(3).build().unwrap();
    let endpoint = pool.endpoint(&memcached.address()).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let endpoint = &endpoint;
            scope.spawn(move || set_and_get(endpoint, thread));
        }
    });
    let stats = pool.stats();
    assert!(stats.opened() <= 3, "{stats}");
    assert_eq!((stats.checkouts(), stats.closed(), stats.in_use()), (1600, 0, 0));
}

#[test]
fn connections_that_a_server_finds_idle_for_too_long_are_gone_before_the_next_checkout() {
    let _watchdog = watchdog();
    let Some(memcached) = Program::memcached(&["-o", "idle_timeout=1"]) else { return };
    let pool = Pool::tcp();
    let endpoint = pool.endpoint(&memcached.address()).unwrap();
    assert_eq!(endpoint.warm(6, SOON).unwrap(), 6);
    eventually("the server closes them", || endpoint.stats().idle() == 0);
    assert_eq!(endpoint.stats().closed_for(CloseReason::PeerClosed), 6);
    let mut conn = endpoint.get().unwrap();
    assert!(!PooledConn::is_reused(&conn));
    assert!(version(&mut conn).unwrap().starts_with("VERSION"));
}

#[test]
fn a_full_server_is_quoted_in_the_error_and_used_once_it_has_room() {
    let _watchdog = watchdog();
    let Some(memcached) = Program::memcached(&FEW) else { return };
    let others: Vec<_> = std::iter::from_fn(|| memcached.take_a_place()).collect();
    let pool = Pool::builder(memcached.connector()).build().unwrap();
    let endpoint = pool.endpoint(&memcached.address()).unwrap();
    let error = endpoint.get_timeout(SOON).unwrap_err();
    assert_eq!((error.kind(), error.phase()), (ErrorKind::Connect, Some(Phase::Open)));
    assert!(error.to_string().contains("Too many open connections"), "{error}");
    assert_empty(&pool.stats());
    drop(others);
    eventually("it is used", || endpoint.get().is_ok_and(|mut conn| version(&mut conn).is_ok()));
}

/// Has the server accept no more: it leaves what connects to the system, which lets it wait.
fn fill(memcached: &Program) -> Vec<TcpStream> {
    let mut others = vec![memcached.take_a_place().unwrap()];
    loop {
        let mut figure = |name| figure(others.first_mut().unwrap(), name);
        let before = figure("curr_connections");
        let stream = TcpStream::connect(memcached.address()).unwrap();
        let mut is_full = false;
        eventually("it is accepted, or none is", || {
            is_full = figure("accepting_conns") == 0;
            is_full || figure("curr_connections") > before
        });
        others.push(stream);
        if is_full {
            return others;
        }
    }
}

#[test]
fn a_server_that_accepts_no_more_costs_callers_their_deadline_and_is_used_once_it_does() {
    let _watchdog = watchdog();
    let more = [&FEW[..], &["-o", "no_maxconns_fast"]].concat();
    let Some(memcached) = Program::memcached(&more) else { return };
    let others = fill(&memcached);
    let brief = Duration::from_millis(100);
    let builder = Pool::builder(memcached.connector()).connect_timeout(3 * brief);
    let pool = builder.max_per_endpoint(1).build().unwrap();
    let endpoint = pool.endpoint(&memcached.address()).unwrap();
    let error = endpoint.get_timeout(brief).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert!(error.to_string().contains("1 connecting"), "{error}");
    let error = endpoint.get_timeout(SOON).unwrap_err();
    assert_eq!((error.kind(), error.failure()), (ErrorKind::Connect, Some(Failure::Timeout)));
    assert!(error.to_string().contains("deadline"), "{error}");
    assert_empty(&pool.stats());
    drop(others);
    eventually("it is used", || endpoint.get().is_ok_and(|mut conn| version(&mut conn).is_ok()));
}
