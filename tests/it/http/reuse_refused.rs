//! After what makes no sense, and after what was not asked for, a connection is never used again.

use std::io::{self, Read};
use std::time::Duration;

use crossbeam_channel::unbounded;
use warmline::CloseReason;
use warmline::http::types::Method;
use warmline::http::{Client, ErrorKind, Event, Stage};

use super::support::{Answer, Server, client_of, get, limited};
use crate::support::{SOON, eventually, watchdog};

/// Longer than a connection may be idle without being looked at, by the coarsest of clocks.
const A_WHILE: Duration = Duration::from_millis(30);

/// Sends a request that is answered like this, and one that is answered well: the kind of error
/// that the first comes to.
#[track_caller]
fn error_of(answer: Answer) -> ErrorKind {
    error_by(&client_of(1), answer)
}

#[track_caller]
fn error_by(client: &Client, answer: Answer) -> ErrorKind {
    let server = Server::script([answer, Answer::ok("next")]);
    let first = client.get(&server.url("")).send().and_then(|it| it.into_body().bytes());
    let error = first.unwrap_err();
    assert_eq!(client.pool().stats().total(), 0, "{error}");
    assert_eq!(get(client, &server.url("")), "next", "{error}");
    assert_eq!(server.conns(), [0, 1], "{error}");
    error.kind()
}

#[test]
fn an_answer_that_makes_no_sense_is_an_error_and_the_end_of_its_connection() {
    let _watchdog = watchdog();
    for head in [
        "HTTP/2.0 200 OK\r\nContent-Length: 5",
        "HTTP/1.2 200 OK\r\nContent-Length: 5",
        "HTTP/1.1 099 Low\r\nContent-Length: 5",
        "HTTP/1.1 20 Short\r\nContent-Length: 5",
        "HTTP/1.1 20x OK\r\nContent-Length: 5",
        "HTTP/1.1 2000 OK\r\nContent-Length: 5",
        "HTTP/1.1OK\r\nContent-Length: 5",
        " HTTP/1.1 200 OK\r\nContent-Length: 5",
        "ICY 200 OK\r\nContent-Length: 5",
        "HTTP/1.1 200 OK\r\nno colon\r\nContent-Length: 5",
        "HTTP/1.1 200 OK\r\n: no name\r\nContent-Length: 5",
        "HTTP/1.1 200 OK\r\nContent-Length : 5",
        "HTTP/1.1 200 OK\r\nX: a\r\n folded\r\nContent-Length: 5",
        "HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 5",
    ] {
        let answer = Answer::raw(format!("{head}\r\n\r\nhello"));
        assert_eq!(error_of(answer), ErrorKind::Protocol, "{head}");
    }
}

#[test]
fn a_transfer_coding_other_than_chunked_is_an_error_and_the_end_of_its_connection() {
    let _watchdog = watchdog();
    for value in ["gzip, chunked", "chunked, gzip", "identity", "gzip", "", "xchunked", "chunked x"]
    {
        let head = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: {value}\r\n\r\n");
        let answer = Answer::raw(head).then("5\r\nhello\r\n0\r\n\r\n");
        assert_eq!(error_of(answer), ErrorKind::Protocol, "{value}");
    }
    let twice = "Transfer-Encoding: chunked\r\n".repeat(2);
    let answer = Answer::raw(format!("HTTP/1.1 200 OK\r\n{twice}\r\n5\r\nhello\r\n0\r\n\r\n"));
    assert_eq!(error_of(answer), ErrorKind::Protocol);
}

#[test]
fn a_length_that_can_be_read_in_two_ways_is_an_error_and_the_end_of_its_connection() {
    let _watchdog = watchdog();
    for lines in [
        "Content-Length: 5\r\nContent-Length: 4",
        "Content-Length: 5, 4",
        "Content-Length: +5",
        "Content-Length: -5",
        "Content-Length: 5 5",
        "Content-Length: 0x5",
        "Content-Length: 5.0",
        "Content-Length:",
        "Content-Length: 99999999999999999999",
    ] {
        let answer = Answer::raw(format!("HTTP/1.1 200 OK\r\n{lines}\r\n\r\nhello"));
        assert_eq!(error_of(answer), ErrorKind::Protocol, "{lines}");
    }
}

#[test]
fn chunks_that_make_no_sense_are_an_error_and_the_end_of_their_connection() {
    let _watchdog = watchdog();
    let long = format!("5\r\nhello\r\n0\r\nX: {}\r\n\r\n", "x".repeat(64 * 1024));
    for body in [
        "x\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello!\r\n0\r\n\r\n",
        "fffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\r\nno colon\r\n\r\n",
        &long,
    ] {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(
            error_of(Answer::raw(format!("{head}{body}"))),
            ErrorKind::Protocol,
            "{body:.60}"
        );
    }
}

#[test]
fn an_answer_that_is_cut_off_is_an_error_and_the_end_of_its_connection() {
    let _watchdog = watchdog();
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe",
    ] {
        assert_eq!(error_of(Answer::raw(answer).close()), ErrorKind::Broken, "{answer}");
        assert_eq!(
            error_of(Answer::raw(answer).reset()),
            ErrorKind::Broken,
            "{answer}, by a reset"
        );
    }
}

#[test]
fn an_answer_that_takes_too_long_is_an_error_and_the_end_of_its_connection() {
    let _watchdog = watchdog();
    let brief = Duration::from_millis(50);
    let heads = limited(1).head_timeout(brief).build().unwrap();
    let reads = limited(1).read_timeout(brief).build().unwrap();
    let half = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel";
    for (client, answer) in [
        (&heads, Answer::default().silence()),
        (&heads, Answer::raw("HTTP/1.1 200 OK\r\n").silence()),
        (&heads, Answer::raw("HTTP/1.1 103 Soon\r\n\r\n").silence()),
        (&reads, Answer::raw(half).silence()),
    ] {
        assert_eq!(error_by(client, answer.clone()), ErrorKind::Timeout, "{answer:?}");
    }
    for answer in [Answer::default(), Answer::raw(half)] {
        let server = Server::script([answer.silence(), Answer::ok("next")]);
        let client = client_of(1);
        let request = client.get(&server.url("")).timeout(brief).send();
        let error = request.and_then(|it| it.into_body().bytes()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert!(matches!(error.stage(), Some(Stage::Head | Stage::Body)), "{error:?}");
        assert_eq!((get(&client, &server.url("")), server.conns()), ("next".into(), vec![0, 1]));
    }
}

#[test]
fn bytes_on_an_idle_connection_end_it_and_trouble_no_request() {
    let _watchdog = watchdog();
    let (tell, told) = unbounded();
    let (done, is_done) = unbounded();
    let late = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong";
    let server = Server::by_hand(move |line| {
        line.request()?;
        line.play(&Answer::ok("right").wait(&told).then(late))?;
        done.send(()).map_err(io::Error::other)?;
        line.play(&Answer::default().silence())
    });
    let client = client_of(1);
    for _ in 0..3 {
        assert_eq!(get(&client, &server.url("")), "right");
        tell.send(()).unwrap();
        is_done.recv_timeout(SOON).unwrap();
        std::thread::sleep(A_WHILE);
    }
    assert_eq!(server.conns(), [0, 1, 2]);
    let stats = client.pool().stats();
    assert_eq!(stats.closed_for(CloseReason::StrayBytes), 2, "{stats}");
}

#[test]
fn whoever_looks_before_each_request_never_takes_for_an_answer_what_came_before_it() {
    let _watchdog = watchdog();
    let looks = || limited(1).pool(|pool| pool.probe_after(Duration::ZERO)).build().unwrap();
    // What cannot be repeated is looked after by every client.
    for (client, method) in [(looks(), Method::GET), (client_of(1), Method::POST)] {
        let (tell, told) = unbounded();
        let (done, is_done) = unbounded();
        let late = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong";
        let server = Server::by_hand(move |line| {
            line.request()?;
            line.play(&Answer::ok("right").wait(&told).then(late))?;
            done.send(()).map_err(io::Error::other)?;
            line.play(&Answer::default().silence())
        });
        for _ in 0..50 {
            let response = client.request(method.clone(), &server.url("")).send().unwrap();
            assert_eq!(response.into_body().text().unwrap(), "right", "{method}");
            tell.send(()).unwrap();
            is_done.recv_timeout(SOON).unwrap();
        }
        assert_eq!(server.connections(), 50);
    }
}

#[test]
fn a_farewell_on_an_idle_connection_troubles_no_request() {
    let _watchdog = watchdog();
    for farewell in ["HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n", "bye", ""] {
        let (tell, told) = unbounded();
        let answer = Answer::ok("hello").wait(&told).then(farewell).close();
        let server = Server::script([answer]);
        let client = client_of(1);
        for _ in 0..3 {
            let response = client.post(&server.url("")).body("hello").send().unwrap();
            assert_eq!(response.into_body().text().unwrap(), "hello");
            assert_eq!(client.pool().stats().idle(), 1);
            tell.send(()).unwrap();
            // By itself: its room is free before anybody asks.
            eventually("the connection ends", || client.pool().stats().total() == 0);
        }
        assert_eq!(server.conns(), [0, 1, 2], "{farewell}");
    }
}

#[test]
fn a_server_that_speaks_first_is_not_taken_for_one_that_answers() {
    let _watchdog = watchdog();
    for greeting in ["HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong", "220 hello\r\n"] {
        let (tell, told) = unbounded();
        let server = Server::by_hand(move |line| {
            if line.number() == 0 {
                line.play(&Answer::raw(greeting))?;
            }
            let _only_the_first_is_awaited = tell.send(());
            loop {
                line.request()?;
                line.play(&Answer::ok("right"))?;
            }
        });
        let client = client_of(1);
        let request = client.get(&server.url("")).trace(move |event: &Event| {
            if matches!(event, Event::GotConnection { .. }) {
                told.recv_timeout(SOON).unwrap();
            }
        });
        assert_eq!(request.send().unwrap_err().kind(), ErrorKind::Protocol, "{greeting}");
        assert_eq!(get(&client, &server.url("")), "right");
        assert_eq!(get(&client, &server.url("")), "right");
        assert_eq!(server.connections(), 2, "{greeting}");
    }
}

#[test]
fn a_connection_that_failed_for_one_is_not_drained_and_says_the_same_when_asked_again() {
    let _watchdog = watchdog();
    let half = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel";
    let server = Server::script([Answer::raw(half).close(), Answer::ok("next")]);
    let client = client_of(1);
    let mut body = client.request(Method::GET, &server.url("")).send().unwrap().into_body();
    let mut text = Vec::new();
    let error = body.read_to_end(&mut text).unwrap_err();
    assert_eq!((&text[..], error.kind()), (&b"hel"[..], io::ErrorKind::UnexpectedEof));
    assert_eq!(client.pool().stats().total(), 0, "at once, not when the body is dropped");
    let again = body.read(&mut [0; 8]).unwrap_err();
    assert_eq!(again.kind(), io::ErrorKind::UnexpectedEof);
    drop(body);
    assert_eq!((get(&client, &server.url("")), client.pool().stats().closed()), ("next".into(), 1));
}
