//! haproxy, if it is installed.

use std::fs;
use std::time::Duration;

use rustix::process::Signal;
use warmline::CloseReason;
use warmline::http::{Client, ErrorKind, Origin, Unfit, Upload};

use super::{Slow, client, client_and_ends, text_of};
use crate::support::programs::{Kind, Program, under_load, words};
use crate::support::{assert_balanced, eventually, watchdog};

const HELLO: &str = "http-request return status 200 content-type text/plain string hello";

const HAPROXY: Kind = Kind {
    name: "haproxy",
    package: "haproxy",
    hello: "GET / HTTP/1.0\r\n\r\n",
    answer: "HTTP/1.",
    farewell: "",
    end: Signal::TERM,
};

/// One that answers, with these lines of its frontend as well.
fn haproxy(settings: &str) -> Option<Program> {
    start(&format!("timeout http-request 20s\n{settings}\n{HELLO}"))
}

/// One with these lines of its frontend.
fn start(frontend: &str) -> Option<Program> {
    Program::start(&HAPROXY, &[], |port, folder| {
        let configuration = format!(
            "global\n maxconn 64\ndefaults\n mode http\n timeout client 20s\n \
             timeout server 20s\n timeout connect 20s\n\
             frontend all\n bind 127.0.0.1:{port}\n{frontend}\n"
        );
        let file = folder.join("haproxy.cfg");
        fs::write(&file, configuration).unwrap();
        words(&format!("-db -f {}", file.display()))
    })
}

fn url(haproxy: &Program) -> String {
    format!("http://{}/", haproxy.address())
}

fn assert_hello(client: &Client, url: &str) {
    assert_eq!(text_of(client.get(url).send()), (200, "hello".to_owned()));
}

#[test]
fn a_connection_to_a_proxy_is_used_for_as_long_as_it_is_kept() {
    let _watchdog = watchdog();
    let Some(haproxy) = haproxy("timeout http-keep-alive 20s") else { return };
    let client = client();
    (0..100).for_each(|_| assert_hello(&client, &url(&haproxy)));
    assert_eq!(client.pool().stats().opened(), 1);
}

#[test]
fn a_connection_that_a_proxy_closes_in_idleness_is_gone_before_it_is_asked_for() {
    let _watchdog = watchdog();
    let Some(haproxy) = haproxy("timeout http-keep-alive 100ms") else { return };
    let client = client();
    for round in 1..=3 {
        assert_hello(&client, &url(&haproxy));
        eventually("the proxy closes it", || client.pool().stats().total() == 0);
        let stats = client.pool().stats();
        assert_eq!((stats.opened(), stats.closed_for(CloseReason::PeerClosed)), (round, round));
    }
}

#[test]
fn a_get_just_as_a_proxy_closes_its_idle_connection_is_answered() {
    let _watchdog = watchdog();
    let Some(haproxy) = haproxy("timeout http-keep-alive 100ms") else { return };
    let client = client();
    for round in 0..40 {
        assert_hello(&client, &url(&haproxy));
        std::thread::sleep(Duration::from_millis(90 + round % 21));
    }
    assert_hello(&client, &url(&haproxy));
    assert_balanced(&client.pool().stats());
}

#[test]
fn a_connection_that_was_opened_ahead_and_is_closed_with_408_gives_nobody_that_answer() {
    let _watchdog = watchdog();
    let settings = "timeout http-request 100ms\ntimeout http-keep-alive 20s";
    let Some(haproxy) = start(&format!("{settings}\n{HELLO}")) else { return };
    let client = client();
    let origin: Origin = url(&haproxy).parse().unwrap();
    let endpoint = client.pool().endpoint(&origin).unwrap();
    for round in 0..30 {
        // Open, but no request was sent on it.
        drop(endpoint.get().unwrap());
        std::thread::sleep(Duration::from_millis(90 + round % 21));
        assert_hello(&client, &url(&haproxy));
        endpoint.evict();
    }
    drop(endpoint.get().unwrap());
    eventually("it is closed when the answer comes", || endpoint.stats().total() == 0);
}

#[test]
fn a_body_that_is_too_slow_for_a_proxy_is_answered_408() {
    let _watchdog = watchdog();
    let settings = "timeout http-request 200ms\noption http-buffer-request";
    let Some(haproxy) = start(&format!("{settings}\n{HELLO}")) else { return };
    let (client, ends) = client_and_ends();
    let slow = || Slow { pieces: 1000, pause: Duration::from_millis(10) };
    for upload in [Upload::reader(slow()), Upload::sized(slow(), 4000)] {
        let answer = client.post(&url(&haproxy)).body(upload).send().unwrap();
        assert_eq!(answer.status(), 408, "which came long before the body had ended");
    }
    assert_eq!(ends.lock().len(), 2, "neither connection is used again");
}

#[test]
fn a_proxy_that_closes_after_every_answer_costs_a_connection_each_and_no_error() {
    let _watchdog = watchdog();
    let Some(haproxy) = haproxy("option httpclose") else { return };
    let (client, ends) = client_and_ends();
    for _ in 0..10 {
        let answer = client.post(&url(&haproxy)).body("hello").send();
        assert_eq!(text_of(answer), (200, "hello".to_owned()));
    }
    assert_eq!(client.pool().stats().opened(), 10);
    assert_eq!(*ends.lock(), [Unfit::ServerCloses; 10]);
}

#[test]
fn a_proxy_that_retires_under_load_loses_no_request_that_it_has_accepted() {
    let _watchdog = watchdog();
    let Some(mut haproxy) = haproxy("timeout http-keep-alive 20s") else { return };
    let client = client();
    let url = url(&haproxy);
    under_load(
        |_| match client.get(&url).send() {
            Ok(answer) => assert_eq!(answer.into_body().text().unwrap(), "hello"),
            // Nobody listens any more.
            Err(error) => assert_eq!(error.kind(), ErrorKind::Checkout, "{error:?}"),
        },
        |load| {
            load.await_more(500);
            haproxy.signal(Signal::USR1); // accepts no more, and ends once its clients are gone
            eventually("its connections end", || client.pool().stats().total() == 0);
            haproxy.kill();
            haproxy.start_again();
            eventually("they come back", || client.pool().stats().idle() > 0);
            load.await_more(500);
        },
    );
    assert_balanced(&client.pool().stats());
}
