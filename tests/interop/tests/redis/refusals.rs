//! Servers that refuse: they are full, ask for another password, or are no Redis at all.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use ::redis::ConnectionLike;
use interop::redis::Redis;
use interop::resp::Resp;
use interop::servers::{self, Server};
use interop::support::{SOON, assert_at_rest, assert_empty, eventually, under_load, watchdog};
use warmline::{Error, ErrorKind, Failure, Phase, Pool};

use crate::clients::{Client, ask, endpoint, endpoint_with};

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

/// Nothing is left of a failed attempt, and it failed where it should.
#[track_caller]
fn assert_refused(error: &Error) {
    assert_eq!((error.kind(), error.phase()), (ErrorKind::Connect, Some(Phase::Open)), "{error}");
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
    let held = [(); 3].map(|()| endpoint.get_timeout(SOON).unwrap());
    let other = self::endpoint::<C>(redis.address(), |it| it);
    let error = other.get_timeout(SOON).map(drop).unwrap_err();
    assert_refused(&error);
    assert!(error.to_string().contains("max number of clients reached"), "{error}");
    assert_empty(&other.stats());
    eventually("a time-out that quotes the server", || {
        let error = endpoint.get_timeout(Duration::from_millis(100)).map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        error.to_string().contains("max number of clients reached")
    });
    drop(held);
    let exchange = |number: usize| {
        let mut conn = endpoint.get_timeout(SOON).unwrap();
        let answer = ask::<C>(&mut conn, &format!("ECHO {number}")).unwrap();
        assert_eq!(answer, number.to_string());
    };
    under_load(exchange, |load| load.await_more(2000));
    let stats = endpoint.stats();
    assert_eq!((stats.opened(), stats.idle()), (3, 3), "{stats}");
    assert_at_rest(&stats);
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
    // Not at the end of SOON, which would be a time-out.
    let error = endpoint.get_timeout(SOON).map(drop).unwrap_err();
    assert_refused(&error);
    for text in [error.to_string(), format!("{error:#}"), format!("{error:?}")] {
        assert!(text.contains("WRONGPASS"), "{text}");
        assert!(!text.contains(WRONG), "{text}");
    }
    for text in [endpoint.pool().report().to_string(), format!("{endpoint:?}")] {
        assert!(!text.contains(WRONG), "{text}");
    }
    assert_empty(&endpoint.stats());
}

fn callers_who_insist_on_a_wrong_password_cost_the_server_one_attempt_per_pause<C: Client>() {
    let _watchdog = watchdog();
    let Some(redis) = guarded() else { return };
    let admin = endpoint_with::<C>(redis.address(), Some(RIGHT), |it| it);
    let attempts = || {
        let stats = ask::<C>(&mut admin.get().unwrap(), "INFO errorstats").unwrap();
        let count = stats.split("errorstat_WRONGPASS:count=").nth(1);
        let count = count.and_then(|rest| rest.split_whitespace().next());
        count.map_or(0, |count| count.parse::<u128>().unwrap())
    };
    let began = Instant::now();
    let endpoint = endpoint_with::<C>(redis.address(), Some(WRONG), |it| it);
    let insists = |_: usize| assert_refused(&endpoint.get_timeout(SOON).map(drop).unwrap_err());
    under_load(insists, |load| {
        eventually("it was tried again and again", || attempts() >= 5);
        load.await_more(100);
    });
    // No two of them within 50 ms; how many there may be at first is the callers' number.
    let most = 8 + began.elapsed().as_millis() / 50;
    let attempts = attempts();
    assert!(attempts <= most, "{attempts} attempts, where {most} would do");
    assert_empty(&endpoint.stats());
}

fn a_missing_password_is_named_and_the_right_one_works<C: Client>() {
    let _watchdog = watchdog();
    let Some(redis) = guarded() else { return };
    let endpoint = endpoint::<C>(redis.address(), |it| it);
    let error = endpoint.get_timeout(SOON).map(drop).unwrap_err();
    assert_refused(&error);
    assert!(error.to_string().contains("NOAUTH"), "{error}");
    let endpoint = endpoint_with::<C>(redis.address(), Some(RIGHT), |it| it);
    let mut conn = endpoint.get_timeout(SOON).unwrap();
    assert_eq!(ask::<C>(&mut conn, "ECHO in").unwrap(), "in");
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
        let address = scripted(move |mut peer| {
            let mut request = [0; 1024];
            let length = peer.read(&mut request).unwrap_or(0);
            let echo = &request[..length];
            let answer = if answer.is_empty() { echo } else { answer.as_bytes() };
            let _gone = peer.write_all(answer);
        });
        let endpoint = endpoint_with::<C>(address, Some(WRONG), |it| it.connect_timeout(SOON));
        let error = endpoint.get_timeout(SOON).map(drop).unwrap_err();
        assert_refused(&error);
        assert_ne!(error.failure(), Some(Failure::Timeout), "{error}");
        for text in [format!("{error:#}"), format!("{error:?}"), format!("{endpoint:?}")] {
            assert!(!text.contains(WRONG), "{answer:?}: {text}");
        }
        assert_empty(&endpoint.stats());
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
    let error = pool.get_timeout(&(url + "resp3"), SOON).map(drop).unwrap_err();
    assert_refused(&error);
    assert!(error.to_string().contains("leave `protocol` out of the URL"), "{error}");
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
    let error = endpoint.get_timeout(SOON).map(drop).unwrap_err();
    assert_refused(&error);
    assert_ne!(error.failure(), Some(Failure::Timeout), "{error}");
    assert_empty(&endpoint.stats());
}

/// Hands every connection to `serve`, one after the other.
fn scripted(serve: impl Fn(TcpStream) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || listener.incoming().map_while(Result::ok).for_each(serve));
    address
}

fn a_server_of_another_protocol_is_quoted_or_named_at_once<C: Client>() {
    let _watchdog = watchdog();
    let http = scripted(|mut peer| {
        let _read = peer.read(&mut [0; 1024]);
        let _gone = peer.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
    });
    let memcached = servers::memcached(&[]);
    let memcached = memcached.as_ref().map(Server::address);
    // Its greeting could be taken for an answer.
    let mail = scripted(|mut peer| {
        let _gone = peer.write_all(b"+OK POP3 server ready\r\n");
        let _read = peer.read(&mut [0; 1024]);
    });
    let hangs_up = scripted(drop);
    // It closes without a word what does not begin as its clients do.
    let postgres = servers::postgres(&[]);
    let postgres = postgres.as_ref().map(Server::address);
    let others = [Some(http), Some(mail), memcached, Some(hangs_up), postgres];
    for address in others.into_iter().flatten() {
        let endpoint = endpoint::<C>(address, |it| it.connect_timeout(SOON));
        let error = endpoint.get_timeout(SOON).map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Connect, "{error}");
        assert_ne!(error.failure(), Some(Failure::Timeout), "{error}");
        let is_named = error.to_string().contains("this is no answer of Redis");
        let is_silent = address == hangs_up || Some(address) == postgres;
        assert!(is_named || is_silent, "{error}");
        assert_empty(&endpoint.stats());
    }
}

fn a_server_that_says_nothing_or_never_ends_costs_no_more_than_the_deadline<C: Client>() {
    let _watchdog = watchdog();
    let silent = scripted(|mut peer| drop(peer.read_to_end(&mut Vec::new())));
    // A byte now and then: no single read takes long.
    let endless = scripted(|mut peer| {
        while peer.write_all(b"+").is_ok() {
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    for address in [silent, endless] {
        let deadline = Duration::from_millis(300);
        let endpoint = endpoint::<C>(address, |it| it.connect_timeout(deadline));
        let error = endpoint.get_timeout(SOON).map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Connect, "{error}");
        assert_eq!(error.failure(), Some(Failure::Timeout), "{error}");
        assert_empty(&endpoint.stats());
    }
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
        let address = scripted(move |mut peer| {
            let _read = peer.read(&mut [0; 1024]);
            let _gone = peer.write_all(text.as_bytes());
        });
        let endpoint = endpoint::<Resp>(address, |it| it.connect_timeout(SOON));
        let error = endpoint.get_timeout(SOON).map(drop).unwrap_err();
        assert_refused(&error);
        assert!(error.to_string().contains(said), "{answer:?}: {error}");
        assert_empty(&endpoint.stats());
    }
}
