//! Servers that refuse: they are full, ask for another password, or are no MariaDB at all.

use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use interop::servers::{self, PASSWORD, Server};
use interop::support::{SOON, assert_at_rest, assert_empty, eventually, under_load, watchdog};
use mysql::OptsBuilder;
use mysql::prelude::Queryable;
use warmline::{Error, ErrorKind, Failure, Phase};

use crate::{ask, endpoint, endpoint_with, options};

#[track_caller]
fn assert_refused(error: &Error) {
    assert_eq!((error.kind(), error.phase()), (ErrorKind::Connect, Some(Phase::Open)), "{error}");
}

#[test]
fn a_server_that_is_down_is_said_to_be_and_back_when_it_is() {
    let _watchdog = watchdog();
    let Some(mut server) = servers::mariadb(&[]) else { return };
    let endpoint = endpoint(&server, |it| it);
    server.kill();
    let error = endpoint.get().map(drop).unwrap_err();
    assert_refused(&error);
    assert_eq!(error.failure(), Some(Failure::Refused), "{error}");
    server.start_again();
    eventually("it is found", || endpoint.get().is_ok_and(|mut conn| ask(&mut conn, 1).is_ok()));
}

/// As a user who needs a password, and has this one.
fn asked(server: &Server, password: Option<&str>) -> OptsBuilder {
    options(server).user(Some("asked")).pass(password)
}

#[test]
fn a_full_server_is_quoted_and_those_that_are_there_are_used_on() {
    let _watchdog = watchdog();
    // Fewer it does not take. For "root" there would be one more.
    let Some(server) = servers::mariadb(&["--max-connections=10"]) else { return };
    let of_asked = || asked(&server, Some(PASSWORD));
    let endpoint = endpoint_with(of_asked(), |it| it.max_per_endpoint(16));
    // Its own start may have a place for a moment more.
    let mut held = Vec::new();
    eventually("ten are open", || {
        held.extend(endpoint.get());
        held.len() == 10
    });
    let other = endpoint_with(of_asked(), |it| it);
    let error = other.get().map(drop).unwrap_err();
    assert_refused(&error);
    assert!(error.to_string().contains("Too many connections"), "{error}");
    assert_empty(&other.stats());
    eventually("a time-out that quotes the server", || {
        let error = endpoint.get_timeout(Duration::from_millis(100)).map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        error.to_string().contains("Too many connections")
    });
    drop(held);
    let exchange = |number: usize| ask(&mut endpoint.get().unwrap(), number as i64).unwrap();
    under_load(exchange, |load| load.await_more(1000));
    let stats = endpoint.stats();
    assert_eq!((stats.opened(), stats.idle()), (10, 10), "{stats}");
    assert_at_rest(&stats);
}

const WRONG: &str = "the-wrong-one";

#[test]
fn a_wrong_password_fails_fast_in_the_servers_words_and_is_shown_to_nobody() {
    let _watchdog = watchdog();
    let Some(server) = servers::mariadb(&[]) else { return };
    let endpoint = endpoint_with(asked(&server, Some(WRONG)), |it| it);
    // Not at the end of SOON, which would be a time-out.
    let error = endpoint.get().map(drop).unwrap_err();
    assert_refused(&error);
    for text in [error.to_string(), format!("{error:#}"), format!("{error:?}")] {
        assert!(text.contains("Access denied for user"), "{text}");
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
    let Some(server) = servers::mariadb(&[]) else { return };
    let admin = endpoint(&server, |it| it);
    let attempts = || {
        let query = "SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS
                     WHERE VARIABLE_NAME = 'ACCESS_DENIED_ERRORS'";
        let count: Option<u128> = admin.get().unwrap().query_first(query).unwrap();
        count.expect("it counts them")
    };
    let began = Instant::now();
    let endpoint = endpoint_with(asked(&server, Some(WRONG)), |it| it);
    let insists = |_: usize| assert_refused(&endpoint.get().map(drop).unwrap_err());
    under_load(insists, |load| {
        eventually("it was tried again and again", || attempts() >= 12);
        load.await_more(100);
    });
    // No two of them within 50 ms; how many there may be at first is the callers' number.
    let most = 8 + began.elapsed().as_millis() / 50;
    let attempts = attempts();
    assert!(attempts <= most, "{attempts} attempts, where {most} would do");
    assert_empty(&endpoint.stats());
}

#[test]
fn a_missing_password_is_named_and_the_right_one_works() {
    let _watchdog = watchdog();
    let Some(server) = servers::mariadb(&[]) else { return };
    let error = endpoint_with(asked(&server, None), |it| it).get().map(drop).unwrap_err();
    assert_refused(&error);
    assert!(error.to_string().contains("using password: NO"), "{error}");
    let endpoint = endpoint_with(asked(&server, Some(PASSWORD)), |it| it);
    ask(&mut endpoint.get().unwrap(), 1).unwrap();
}

#[test]
fn a_server_that_speaks_tls_alone_is_an_error_at_once_in_its_words() {
    let _watchdog = watchdog();
    let Some(server) = servers::mariadb_over_tls(&[]) else { return };
    let endpoint = endpoint(&server, |it| it.connect_timeout(SOON));
    let error = endpoint.get().map(drop).unwrap_err();
    assert_refused(&error);
    assert!(error.to_string().contains("Access denied for user"), "{error}");
    assert_empty(&endpoint.stats());
}

fn at(address: SocketAddr) -> OptsBuilder {
    OptsBuilder::new().ip_or_hostname(Some("127.0.0.1")).tcp_port(address.port())
}

#[test]
fn a_server_that_speaks_otherwise_or_hangs_up_is_an_error_at_once() {
    let _watchdog = watchdog();
    let greets = TcpListener::bind("127.0.0.1:0").unwrap();
    let hangs_up = TcpListener::bind("127.0.0.1:0").unwrap();
    for (listener, greeting) in [(greets, "220 mail.example ESMTP\r\n"), (hangs_up, "")] {
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for mut peer in listener.incoming().map_while(Result::ok) {
                let _gone = std::io::Write::write_all(&mut peer, greeting.as_bytes());
            }
        });
        let endpoint = endpoint_with(at(address), |it| it.connect_timeout(SOON));
        let error = endpoint.get().map(drop).unwrap_err();
        assert_refused(&error);
        assert_ne!(error.failure(), Some(Failure::Timeout), "{error}");
        assert_empty(&endpoint.stats());
    }
}

#[test]
fn a_server_that_waits_to_be_spoken_to_costs_no_more_than_the_clients_time_out() {
    let _watchdog = watchdog();
    let servers = [servers::redis(&[]), servers::memcached(&[]), servers::postgres(&[])];
    for server in servers.into_iter().flatten() {
        let options = at(server.address()).read_timeout(Some(Duration::from_millis(200)));
        let endpoint = endpoint_with(options, |it| it.connect_timeout(SOON));
        let error = endpoint.get().map(drop).unwrap_err();
        assert_refused(&error);
        assert_eq!(error.failure(), Some(Failure::Timeout), "{error}");
        assert_eq!(endpoint.stats().abandoned(), 0);
        assert_empty(&endpoint.stats());
    }
}

#[test]
fn a_client_without_a_time_out_is_left_behind_at_the_deadline_until_its_server_goes() {
    let _watchdog = watchdog();
    let Some(server) = servers::redis(&[]) else { return };
    let deadline = Duration::from_millis(300);
    let endpoint = endpoint_with(at(server.address()), |it| it.connect_timeout(deadline));
    let error = endpoint.get().map(drop).unwrap_err();
    assert_refused(&error);
    assert_eq!(error.failure(), Some(Failure::Timeout), "{error}");
    assert_empty(&endpoint.stats());
    eventually("left behind", || endpoint.stats().abandoned() == 1);
    drop(server);
    eventually("over", || endpoint.stats().abandoned() == 0);
}
