//! Servers that refuse: they are full, ask for another password, or are no MariaDB at all.

use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use interop::scripted::Scripted;
use interop::servers::{self, PASSWORD, Server};
use interop::support::{SOON, eventually, watchdog};
use interop::trials::{self, assert_refused};
use mysql::OptsBuilder;
use mysql::prelude::Queryable;
use warmline::Failure;

use crate::{ask, endpoint, endpoint_with, options};

#[test]
fn a_server_that_is_down_is_said_to_be_and_back_when_it_is() {
    let _watchdog = watchdog();
    let Some(mut server) = servers::mariadb(&[]) else { return };
    let endpoint = endpoint(&server, |it| it);
    trials::is_said_to_be_down(&mut server, &endpoint, |conn, number| Ok(ask(conn, number)?));
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
    trials::is_quoted_when_full(&endpoint, held, &other, "Too many connections", |conn, number| {
        Ok(ask(conn, number)?)
    });
}

const WRONG: &str = "the-wrong-one";

#[test]
fn a_wrong_password_fails_fast_in_the_servers_words_and_is_shown_to_nobody() {
    let _watchdog = watchdog();
    let Some(server) = servers::mariadb(&[]) else { return };
    let endpoint = endpoint_with(asked(&server, Some(WRONG)), |it| it);
    trials::refuses_a_password(&endpoint, WRONG, "Access denied for user");
}

#[test]
fn callers_who_insist_on_a_wrong_password_cost_the_server_one_attempt_per_pause() {
    let _watchdog = watchdog();
    let Some(server) = servers::mariadb(&[]) else { return };
    let admin = endpoint(&server, |it| it);
    let attempts = || {
        let query = "SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS
                     WHERE VARIABLE_NAME = 'ACCESS_DENIED_ERRORS'";
        let count: Option<usize> = admin.get().unwrap().query_first(query).unwrap();
        count.expect("it counts them")
    };
    let endpoint = endpoint_with(asked(&server, Some(WRONG)), |it| it);
    trials::pauses_between_attempts(&endpoint, attempts);
}

#[test]
fn a_missing_password_is_named_and_the_right_one_works() {
    let _watchdog = watchdog();
    let Some(server) = servers::mariadb(&[]) else { return };
    let without = endpoint_with(asked(&server, None), |it| it);
    let with = endpoint_with(asked(&server, Some(PASSWORD)), |it| it);
    let words = "using password: NO";
    trials::is_told_what_is_missing(&without, words, &with, |conn, number| Ok(ask(conn, number)?));
}

#[test]
fn a_server_that_speaks_tls_alone_is_an_error_at_once_in_its_words() {
    let _watchdog = watchdog();
    let Some(server) = servers::mariadb_over_tls(&[]) else { return };
    let endpoint = endpoint(&server, |it| it.connect_timeout(SOON));
    assert_refused(&endpoint, "Access denied for user");
}

fn at(address: SocketAddr) -> OptsBuilder {
    OptsBuilder::new().ip_or_hostname(Some("127.0.0.1")).tcp_port(address.port())
}

#[test]
fn a_server_that_speaks_otherwise_or_hangs_up_is_an_error_at_once() {
    let _watchdog = watchdog();
    for greeting in ["220 mail.example ESMTP\r\n", ""] {
        let server = Scripted::new(move |mut peer| peer.write_all(greeting.as_bytes()));
        let endpoint = endpoint_with(at(server.address()), |it| it.connect_timeout(SOON));
        let error = assert_refused(&endpoint, "");
        assert_ne!(error.failure(), Some(Failure::Timeout), "{error}");
    }
}

#[test]
fn a_server_that_waits_to_be_spoken_to_costs_no_more_than_the_clients_time_out() {
    let _watchdog = watchdog();
    let servers = [servers::redis(&[]), servers::memcached(&[]), servers::postgres(&[])];
    for server in servers.into_iter().flatten() {
        let options = at(server.address()).read_timeout(Some(Duration::from_millis(200)));
        let endpoint = endpoint_with(options, |it| it.connect_timeout(SOON));
        let error = assert_refused(&endpoint, "");
        assert_eq!(error.failure(), Some(Failure::Timeout), "{error}");
        assert_eq!(endpoint.stats().abandoned(), 0);
    }
}

#[test]
fn a_client_without_a_time_out_is_left_behind_at_the_deadline_until_its_server_goes() {
    let _watchdog = watchdog();
    let Some(server) = servers::redis(&[]) else { return };
    let deadline = Duration::from_millis(300);
    let endpoint = endpoint_with(at(server.address()), |it| it.connect_timeout(deadline));
    trials::leaves_clients_behind(&endpoint, server);
}
