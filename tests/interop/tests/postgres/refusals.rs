//! Servers that refuse: they are full, ask for another password, or are no PostgreSQL at all.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use interop::scripted::Scripted;
use interop::servers::{self, PASSWORD, Server};
use interop::support::{SOON, watchdog};
use interop::trials::{self, assert_refused};
use postgres::Config;
use postgres::config::SslMode;
use warmline::Failure;

use crate::{ask, config, endpoint, endpoint_with};

#[test]
fn a_full_server_is_quoted_and_those_that_are_there_are_used_on() {
    let _watchdog = watchdog();
    let Some(server) = servers::postgres(&["-c", "max_connections=3"]) else { return };
    let endpoint = endpoint(&server, |it| it.max_per_endpoint(8));
    let held = (0..3).map(|_| endpoint.get().unwrap()).collect();
    let other = self::endpoint(&server, |it| it);
    let words = "too many clients already";
    trials::is_quoted_when_full(&endpoint, held, &other, words, |conn, number| {
        Ok(ask(conn, number)?)
    });
}

#[test]
fn a_server_that_is_down_is_said_to_be_and_back_when_it_is() {
    let _watchdog = watchdog();
    let Some(mut server) = servers::postgres(&[]) else { return };
    let endpoint = endpoint(&server, |it| it);
    trials::is_said_to_be_down(&mut server, &endpoint, |conn, number| Ok(ask(conn, number)?));
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
    trials::refuses_a_password(&endpoint, WRONG, "password authentication failed for user");
}

#[test]
fn callers_who_insist_on_a_wrong_password_cost_the_server_one_attempt_per_pause() {
    let _watchdog = watchdog();
    let Some(server) = servers::postgres_with_password(&[]) else { return };
    let attempts = || server.log().matches("FATAL:  password authentication failed").count();
    let endpoint = endpoint_with(with_password(&server, WRONG), |it| it);
    trials::pauses_between_attempts(&endpoint, attempts);
}

#[test]
fn a_missing_password_is_named_and_the_right_one_works() {
    let _watchdog = watchdog();
    let Some(server) = servers::postgres_with_password(&[]) else { return };
    let without = endpoint(&server, |it| it);
    let with = endpoint_with(with_password(&server, PASSWORD), |it| it);
    let words = "password missing";
    trials::is_told_what_is_missing(&without, words, &with, |conn, number| Ok(ask(conn, number)?));
}

#[test]
fn a_server_that_speaks_tls_alone_is_an_error_at_once_that_says_so() {
    let _watchdog = watchdog();
    let Some(server) = servers::postgres_over_tls(&[]) else { return };
    let plain = endpoint(&server, |it| it.connect_timeout(SOON));
    assert_refused(&plain, "no encryption");
    // Nor is it taken for encrypted where there is no TLS to be had: the client refuses.
    let mut config = config(&server);
    config.ssl_mode(SslMode::Require);
    assert_refused(&endpoint_with(config, |it| it.connect_timeout(SOON)), "");
}

fn at(address: SocketAddr) -> Config {
    let mut config = Config::new();
    config.host("127.0.0.1").port(address.port()).user("postgres");
    config
}

#[test]
fn a_server_of_another_protocol_is_an_error_at_once() {
    let _watchdog = watchdog();
    let http = Scripted::new(|mut peer| {
        let _read = peer.read(&mut [0; 1024])?;
        peer.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
    });
    let mariadb = servers::mariadb(&[]);
    let mariadb = mariadb.as_ref().map(Server::address);
    let hangs_up = Scripted::new(|_| Ok(()));
    let others = [Some(http.address()), mariadb, Some(hangs_up.address())];
    for address in others.into_iter().flatten() {
        let endpoint = endpoint_with(at(address), |it| it.connect_timeout(SOON));
        let error = assert_refused(&endpoint, "");
        assert_ne!(error.failure(), Some(Failure::Timeout), "{error}");
    }
}

#[test]
fn a_server_that_waits_for_the_end_of_a_line_costs_callers_no_more_than_the_deadline() {
    let _watchdog = watchdog();
    let servers = [servers::redis(&[]), servers::memcached(&[])];
    for server in servers.into_iter().flatten() {
        let deadline = Duration::from_millis(300);
        let endpoint = endpoint_with(at(server.address()), |it| it.connect_timeout(deadline));
        trials::leaves_clients_behind(&endpoint, server);
    }
}
