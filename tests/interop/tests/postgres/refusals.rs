//! Servers that refuse: they are full, ask for another password, or are no PostgreSQL at all.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use interop::servers::{self, PASSWORD, Server};
use interop::support::{SOON, assert_at_rest, assert_empty, eventually, under_load, watchdog};
use postgres::Config;
use postgres::config::SslMode;
use warmline::{Error, ErrorKind, Failure, Phase};

use crate::{ask, config, endpoint, endpoint_with};

#[track_caller]
fn assert_refused(error: &Error) {
    assert_eq!((error.kind(), error.phase()), (ErrorKind::Connect, Some(Phase::Open)), "{error}");
}

#[test]
fn a_full_server_is_quoted_and_those_that_are_there_are_used_on() {
    let _watchdog = watchdog();
    let Some(server) = servers::postgres(&["-c", "max_connections=3"]) else { return };
    let endpoint = endpoint(&server, |it| it.max_per_endpoint(8));
    let held = [(); 3].map(|()| endpoint.get().unwrap());
    let other = self::endpoint(&server, |it| it);
    let error = other.get().map(drop).unwrap_err();
    assert_refused(&error);
    assert!(error.to_string().contains("too many clients already"), "{error}");
    assert_empty(&other.stats());
    eventually("a time-out that quotes the server", || {
        let error = endpoint.get_timeout(Duration::from_millis(100)).map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        error.to_string().contains("too many clients already")
    });
    drop(held);
    let exchange = |number: usize| ask(&mut endpoint.get().unwrap(), number as i64).unwrap();
    under_load(exchange, |load| load.await_more(1000));
    let stats = endpoint.stats();
    assert_eq!((stats.opened(), stats.idle()), (3, 3), "{stats}");
    assert_at_rest(&stats);
}

#[test]
fn a_server_that_is_down_is_said_to_be_and_back_when_it_is() {
    let _watchdog = watchdog();
    let Some(mut server) = servers::postgres(&[]) else { return };
    let endpoint = endpoint(&server, |it| it);
    server.kill();
    let error = endpoint.get().map(drop).unwrap_err();
    assert_refused(&error);
    assert_eq!(error.failure(), Some(Failure::Refused), "{error}");
    server.start_again();
    eventually("it is found", || endpoint.get().is_ok_and(|mut conn| ask(&mut conn, 1).is_ok()));
}

const WRONG: &str = "the-wrong-one";

fn with_password(server: &Server, password: &str) -> Config {
    let mut config = config(server);
    config.password(password);
    config
}

#[test]
fn a_wrong_password_fails_fast_in_the_servers_words_and_is_shown_to_nobody() {
    let _watchdog = watchdog();
    let Some(server) = servers::postgres_with_password(&[]) else { return };
    let endpoint = endpoint_with(with_password(&server, WRONG), |it| it);
    // Not at the end of SOON, which would be a time-out.
    let error = endpoint.get().map(drop).unwrap_err();
    assert_refused(&error);
    for text in [error.to_string(), format!("{error:#}"), format!("{error:?}")] {
        assert!(text.contains("password authentication failed for user"), "{text}");
        assert!(!text.contains(WRONG), "{text}");
    }
    for text in [endpoint.pool().report().to_string(), format!("{endpoint:?}")] {
        assert!(!text.contains(WRONG), "{text}");
    }
    assert_empty(&endpoint.stats());
}

#[test]
fn callers_who_insist_on_a_wrong_password_cost_the_server_one_attempt_per_pause() {
    let _watchdog = watchdog();
    let Some(server) = servers::postgres_with_password(&[]) else { return };
    let attempts = || server.log().matches("FATAL:  password authentication failed").count();
    let began = Instant::now();
    let endpoint = endpoint_with(with_password(&server, WRONG), |it| it);
    let insists = |_: usize| assert_refused(&endpoint.get().map(drop).unwrap_err());
    under_load(insists, |load| {
        eventually("it was tried again and again", || attempts() >= 12);
        load.await_more(100);
    });
    // No two of them within 50 ms; how many there may be at first is the callers' number.
    let most = 8 + began.elapsed().as_millis() / 50;
    let attempts = attempts();
    assert!(attempts as u128 <= most, "{attempts} attempts, where {most} would do");
    assert_empty(&endpoint.stats());
}

#[test]
fn a_missing_password_is_named_and_the_right_one_works() {
    let _watchdog = watchdog();
    let Some(server) = servers::postgres_with_password(&[]) else { return };
    let error = endpoint(&server, |it| it).get().map(drop).unwrap_err();
    assert_refused(&error);
    assert!(error.to_string().contains("password missing"), "{error}");
    let endpoint = endpoint_with(with_password(&server, PASSWORD), |it| it);
    ask(&mut endpoint.get().unwrap(), 1).unwrap();
}

#[test]
fn a_server_that_speaks_tls_alone_is_an_error_at_once_that_says_so() {
    let _watchdog = watchdog();
    let Some(server) = servers::postgres_over_tls(&[]) else { return };
    let plain = endpoint(&server, |it| it.connect_timeout(SOON));
    let error = plain.get().map(drop).unwrap_err();
    assert_refused(&error);
    assert!(error.to_string().contains("no encryption"), "{error}");
    // Nor is it taken for encrypted where there is no TLS to be had: the client refuses.
    let mut config = config(&server);
    config.ssl_mode(SslMode::Require);
    let required = endpoint_with(config, |it| it.connect_timeout(SOON));
    let error = required.get().map(drop).unwrap_err();
    assert_refused(&error);
    assert_empty(&plain.stats());
    assert_empty(&required.stats());
}

/// Hands every connection to `serve`, one after the other.
fn scripted(serve: impl Fn(TcpStream) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || listener.incoming().map_while(Result::ok).for_each(serve));
    address
}

fn at(address: SocketAddr) -> Config {
    let mut config = Config::new();
    config.host("127.0.0.1").port(address.port()).user("postgres");
    config
}

#[test]
fn a_server_of_another_protocol_is_an_error_at_once() {
    let _watchdog = watchdog();
    let http = scripted(|mut peer| {
        let _read = peer.read(&mut [0; 1024]);
        let _gone = peer.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
    });
    let mariadb = servers::mariadb(&[]);
    let mariadb = mariadb.as_ref().map(Server::address);
    let hangs_up = scripted(drop);
    for address in [Some(http), mariadb, Some(hangs_up)].into_iter().flatten() {
        let endpoint = endpoint_with(at(address), |it| it.connect_timeout(SOON));
        let error = endpoint.get().map(drop).unwrap_err();
        assert_refused(&error);
        assert_ne!(error.failure(), Some(Failure::Timeout), "{error}");
        assert_empty(&endpoint.stats());
    }
}

#[test]
fn a_server_that_waits_for_the_end_of_a_line_costs_callers_no_more_than_the_deadline() {
    let _watchdog = watchdog();
    let servers = [servers::redis(&[]), servers::memcached(&[])];
    for server in servers.into_iter().flatten() {
        let deadline = Duration::from_millis(300);
        let endpoint = endpoint_with(at(server.address()), |it| it.connect_timeout(deadline));
        let error = endpoint.get().map(drop).unwrap_err();
        assert_refused(&error);
        assert_eq!(error.failure(), Some(Failure::Timeout), "{error}");
        assert_empty(&endpoint.stats());
        // The client cannot be interrupted: it is left behind, until its server goes.
        eventually("left behind", || endpoint.stats().abandoned() == 1);
        drop(server);
        eventually("over", || endpoint.stats().abandoned() == 0);
    }
}
