//! Servers that refuse: they are full, ask for another password, or are no Redis at all.

use std::io::{Read, Write};
use std::time::Duration;

use ::redis::ConnectionLike;
use interop::redis::Redis;
use interop::resp::Resp;
use interop::scripted::Scripted;
use interop::servers::{self, Server};
use interop::support::{SOON, assert_empty, watchdog};
use interop::trials::{self, assert_refused};
use warmline::{ErrorKind, Failure, Pool};

use crate::clients::{Client, ask, echo, endpoint, endpoint_with};

crate::with_both_clients! {
    a_server_that_is_down_is_told_from_one_that_refuses,
    a_full_server_is_quoted_and_those_that_are_there_are_used_on,
    a_wrong_password_fails_fast_in_the_servers_words_and_is_shown_to_nobody,
    callers_who_insist_on_a_wrong_password_cost_the_server_one_attempt_per_pause,
    a_missing_password_is_named_and_the_right_one_works,
    a_server_that_says_a_login_again_does_not_put_the_password_in_the_error,
    a_server_that_speaks_tls_alone_is_an_error_at_once,
    a_server_of_another_protocol_is_quoted_or_named_at_once,
    a_server_that_says_nothing_or_never_ends_costs_no_more_than_the_deadline,
}

fn a_server_that_is_down_is_told_from_one_that_refuses<C: Client>() {
    let _watchdog = watchdog();
    let Some(mut redis) = servers::redis(&[]) else { return };
    redis.kill();
    let endpoint = endpoint::<C>(redis.address(), |it| it);
    let error = endpoint.get_timeout(SOON).map(drop).unwrap_err();
    assert_eq!((error.kind(), error.failure()), (ErrorKind::Connect, Some(Failure::Refused)));
    assert_empty(&endpoint.stats());
}

fn a_full_server_is_quoted_and_those_that_are_there_are_used_on<C: Client>() {
    let _watchdog = watchdog();
    let Some(redis) = servers::redis(&["--maxclients", "3"]) else { return };
    let endpoint = endpoint::<C>(redis.address(), |it| it.max_per_endpoint(8));
    let held = (0..3).map(|_| endpoint.get_timeout(SOON).unwrap()).collect();
    let other = self::endpoint::<C>(redis.address(), |it| it);
    let words = "max number of clients reached";
    trials::is_quoted_when_full(&endpoint, held, &other, words, echo::<C>);
}

const RIGHT: &str = "the-right-one";
const WRONG: &str = "the-wrong-one";

fn guarded() -> Option<Server> {
    servers::redis(&["--requirepass", RIGHT])
}

fn a_wrong_password_fails_fast_in_the_servers_words_and_is_shown_to_nobody<C: Client>() {
    let _watchdog = watchdog();
    let Some(redis) = guarded() else { return };
    let endpoint = endpoint_with::<C>(redis.address(), Some(WRONG), |it| it);
    trials::refuses_a_password(&endpoint, WRONG, "WRONGPASS");
}

fn callers_who_insist_on_a_wrong_password_cost_the_server_one_attempt_per_pause<C: Client>() {
    let _watchdog = watchdog();
    let Some(redis) = guarded() else { return };
    let admin = endpoint_with::<C>(redis.address(), Some(RIGHT), |it| it);
    let attempts = || {
        let stats = ask::<C>(&mut admin.get().unwrap(), "INFO errorstats").unwrap();
        let count = stats.split("errorstat_WRONGPASS:count=").nth(1);
        let count = count.and_then(|rest| rest.split_whitespace().next());
        count.map_or(0, |count| count.parse().unwrap())
    };
    let endpoint = endpoint_with::<C>(redis.address(), Some(WRONG), |it| it);
    trials::pauses_between_attempts(&endpoint, attempts);
}

fn a_missing_password_is_named_and_the_right_one_works<C: Client>() {
    let _watchdog = watchdog();
    let Some(redis) = guarded() else { return };
    let without = endpoint::<C>(redis.address(), |it| it);
    let with = endpoint_with::<C>(redis.address(), Some(RIGHT), |it| it);
    trials::is_told_what_is_missing(&without, "NOAUTH", &with, echo::<C>);
}

fn a_server_that_says_a_login_again_does_not_put_the_password_in_the_error<C: Client>() {
    let _watchdog = watchdog();
    // The first one echoes.
    let answers = [
        "",
        "-ERR unknown command `AUTH`, with args beginning with: `the-wrong-one`\r\n",
        "-WRONGPASS the-wrong-one is not it\r\n",
        "+the-wrong-one\r\n",
        "$13\r\nthe-wrong-one\r\n",
        "the-wrong-one: command not found\r\n",
        "the-wrong-one",
    ];
    for answer in answers {
        let server = Scripted::new(move |mut peer| {
            let mut request = [0; 1024];
            let length = peer.read(&mut request)?;
            let echo = &request[..length];
            peer.write_all(if answer.is_empty() { echo } else { answer.as_bytes() })
        });
        let address = server.address();
        let endpoint = endpoint_with::<C>(address, Some(WRONG), |it| it.connect_timeout(SOON));
        let error = assert_refused(&endpoint, "");
        assert_ne!(error.failure(), Some(Failure::Timeout), "{error}");
        for text in [format!("{error:#}"), format!("{error:?}"), format!("{endpoint:?}")] {
            assert!(!text.contains(WRONG), "{answer:?}: {text}");
        }
    }
}

#[test]
fn a_connector_does_not_show_its_password() {
    let shown = format!("{:?}", Resp::new().password(RIGHT));
    assert!(shown.starts_with("Resp") && !shown.contains(RIGHT), "{shown}");
}

#[test]
fn a_url_that_asks_for_another_protocol_is_refused_by_the_setting() {
    let _watchdog = watchdog();
    let Some(redis) = servers::redis(&[]) else { return };
    let pool = Pool::builder(Redis::new()).build().unwrap();
    let url = format!("redis://{}/?protocol=", redis.address());
    drop(pool.get_timeout(&(url.clone() + "resp2"), SOON).unwrap());
    let endpoint = pool.endpoint(&(url + "resp3")).unwrap();
    assert_refused(&endpoint, "leave `protocol` out of the URL");
}

#[test]
fn a_connection_knows_the_database_that_its_url_names() {
    let _watchdog = watchdog();
    let Some(redis) = servers::redis(&[]) else { return };
    let pool = Pool::builder(Redis::new()).build().unwrap();
    for (path, number) in [("", 0), ("/3", 3)] {
        let mut conn = pool.get_timeout(&format!("redis://{}{path}", redis.address()), SOON);
        let conn = conn.as_mut().unwrap();
        assert_eq!(conn.get_db(), number);
        let info = ask::<Redis>(conn, "CLIENT INFO").unwrap();
        assert!(info.contains(&format!(" db={number} ")), "{info}");
    }
}

fn a_server_that_speaks_tls_alone_is_an_error_at_once<C: Client>() {
    let _watchdog = watchdog();
    let Some(redis) = servers::redis_over_tls(&[]) else { return };
    let endpoint = endpoint::<C>(redis.address(), |it| it.connect_timeout(SOON));
    let error = assert_refused(&endpoint, "");
    assert_ne!(error.failure(), Some(Failure::Timeout), "{error}");
}

fn a_server_of_another_protocol_is_quoted_or_named_at_once<C: Client>() {
    let _watchdog = watchdog();
    let http = Scripted::new(|mut peer| {
        let _read = peer.read(&mut [0; 1024])?;
        peer.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
    });
    let memcached = servers::memcached(&[]);
    let memcached = memcached.as_ref().map(Server::address);
    // Its greeting could be taken for an answer.
    let mail = Scripted::new(|mut peer| {
        peer.write_all(b"+OK POP3 server ready\r\n")?;
        peer.read(&mut [0; 1024]).map(drop)
    });
    let hangs_up = Scripted::new(|_| Ok(()));
    // It closes without a word what does not begin as its clients do.
    let postgres = servers::postgres(&[]);
    let postgres = postgres.as_ref().map(Server::address);
    let scripted = [&http, &mail, &hangs_up].map(Scripted::address);
    for address in scripted.into_iter().chain([memcached, postgres].into_iter().flatten()) {
        let endpoint = endpoint::<C>(address, |it| it.connect_timeout(SOON));
        let error = endpoint.get_timeout(SOON).map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Connect, "{error}");
        assert_ne!(error.failure(), Some(Failure::Timeout), "{error}");
        let is_named = error.to_string().contains("this is no answer of Redis");
        let is_silent = address == hangs_up.address() || Some(address) == postgres;
        assert!(is_named || is_silent, "{error}");
        assert_empty(&endpoint.stats());
    }
}

fn a_server_that_says_nothing_or_never_ends_costs_no_more_than_the_deadline<C: Client>() {
    let _watchdog = watchdog();
    trials::keeps_deadlines(b'+', |address| {
        endpoint::<C>(address, |it| it.connect_timeout(Duration::from_millis(300)))
    });
}

#[test]
fn an_answer_that_makes_no_sense_is_an_error_at_once_and_is_given_no_memory() {
    let _watchdog = watchdog();
    let nested = "*1\r\n".repeat(1000);
    let answers = [
        ("$-7\r\n", "negative"),
        ("$99999999999\r\nab", "more than"),
        ("$5\r\nab", "unexpected end"),
        ("*99999999999\r\n", "unexpected end"),
        (&nested, "lists in lists"),
        (":7a\r\n", "no answer of Redis"),
        ("+PONG\r\n+PONG\r\n", "more answers"),
        ("$4\r\nPONG\r\n", "no answer of Redis"),
    ];
    for (answer, said) in answers {
        let text = answer.to_owned();
        let server = Scripted::new(move |mut peer| {
            let _read = peer.read(&mut [0; 1024])?;
            peer.write_all(text.as_bytes())
        });
        let endpoint = endpoint::<Resp>(server.address(), |it| it.connect_timeout(SOON));
        assert_refused(&endpoint, said);
    }
}
