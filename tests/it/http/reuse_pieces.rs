//! Answers that come in pieces, and what comes before them: the same answers, on one connection.

use std::io::Read;

use crossbeam_channel::unbounded;
use warmline::http::{Client, ErrorKind, Event};

use super::support::{Answer, Server, client_of, get, limited};
use crate::support::watchdog;

const LENGTH: &str = "HTTP/1.1 200 OK\r\nX-Name: value\r\nContent-Length: 12\r\n\r\nhello, world";
const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n\
    07;name=value\r\n, world\r\n0\r\nX-Sum: 7\r\n\r\n";
const ANNOUNCED: &str = "HTTP/1.1 100 Continue\r\n\r\n\
    HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n\
    HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nhello, world";
const EMPTY: &str = "HTTP/1.1 204 No Content\r\nX-Name: value\r\n\r\n";

#[test]
fn an_answer_is_the_same_wherever_it_is_cut() {
    let _watchdog = watchdog();
    for (answer, body) in [
        (LENGTH, "hello, world"),
        (CHUNKED, "hello, world"),
        (ANNOUNCED, "hello, world"),
        (EMPTY, ""),
    ] {
        // The second piece is written once the first was read.
        let (tell, told) = unbounded();
        let server = Server::answering(move |request| {
            let at: usize = request.path()[1..].parse().unwrap();
            Answer::raw(&answer[..at]).wait(&told).then(&answer[at..])
        });
        let builder = limited(1).trace(move |event: &Event| {
            if matches!(event, Event::FirstByte { .. }) {
                tell.send(()).unwrap();
            }
        });
        let client = builder.build().unwrap();
        for at in 1..=answer.len() {
            let response = client.get(&server.url(&at.to_string())).send().unwrap();
            let mut got = response.into_body();
            let mut text = String::new();
            got.read_to_string(&mut text).unwrap();
            assert_eq!(text, body, "cut at {at}: {answer}");
            let sum = got.trailers().map(|trailers| &trailers["x-sum"]);
            assert_eq!(sum.is_some(), answer == CHUNKED, "cut at {at}");
        }
        assert_eq!(server.connections(), 1, "{answer}");
    }
}

#[test]
fn an_answer_is_the_same_byte_by_byte() {
    let _watchdog = watchdog();
    for answer in [LENGTH, CHUNKED, ANNOUNCED] {
        let bytes = answer.bytes().fold(Answer::default(), |answer, byte| answer.then([byte]));
        let server = Server::script([bytes]);
        let client = client_of(1);
        for _ in 0..3 {
            assert_eq!(get(&client, &server.url("")), "hello, world");
        }
        assert_eq!(server.connections(), 1, "{answer}");
    }
}

#[test]
fn an_answer_is_the_same_however_little_is_read_at_a_time() {
    let _watchdog = watchdog();
    for answer in [LENGTH, CHUNKED] {
        let server = Server::script([Answer::raw(answer)]);
        let client = client_of(1);
        for size in 1..=13 {
            let mut body = client.get(&server.url("")).send().unwrap().into_body();
            let (mut text, mut piece) = (Vec::new(), vec![0; size]);
            loop {
                match body.read(&mut piece).unwrap() {
                    0 => break,
                    count => text.extend_from_slice(&piece[..count]),
                }
            }
            assert_eq!(text, b"hello, world", "{size} at a time");
        }
        assert_eq!(server.connections(), 1, "{answer}");
    }
}

#[test]
fn what_a_server_says_before_its_answer_is_not_the_answer() {
    let _watchdog = watchdog();
    let server = Server::answering(|request| {
        let early = ["HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", "HTTP/1.1 100\r\n\r\n"];
        let early = early.iter().cycle().take(request.turn).copied().collect::<String>();
        Answer::raw(format!("{early}HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"))
    });
    let client = client_of(1);
    for _ in 0..=16 {
        let response = client.post(&server.url("")).body("hello").send().unwrap();
        assert!(!response.headers().contains_key("link"));
        assert_eq!(response.into_body().text().unwrap(), "hello");
    }
    assert_eq!(server.conns(), [0; 17]);
}

#[test]
fn a_server_that_only_announces_is_left() {
    let _watchdog = watchdog();
    let long = format!("HTTP/1.1 103 Early Hints\r\nLink: {}\r\n\r\n", "x".repeat(8 * 1024));
    for (announced, kind) in [
        ("HTTP/1.1 100 Continue\r\n\r\n", ErrorKind::Protocol),
        ("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", ErrorKind::Protocol),
        ("HTTP/1.1 199 Unheard Of\r\n\r\n", ErrorKind::Protocol),
        (&long, ErrorKind::TooLong),
    ] {
        let announced = announced.to_owned();
        let server = Server::by_hand(move |line| {
            line.request()?;
            if line.number() == 0 {
                loop {
                    line.play(&Answer::raw(&announced))?;
                }
            }
            line.play(&Answer::ok("hello").silence())
        });
        let client = client_of(1);
        let error = client.get(&server.url("")).send().unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert_eq!(get(&client, &server.url("")), "hello");
        assert_eq!(server.conns(), [0, 1]);
    }
}

#[test]
fn what_is_said_before_an_answer_never_shifts_the_next_one() {
    let _watchdog = watchdog();
    let server = Server::answering(|request| {
        let number = String::from_utf8_lossy(&request.body).into_owned();
        Answer::raw("HTTP/1.1 100 Continue\r\n\r\n")
            .then("HTTP/1.1 102 Processing\r\n\r\n")
            .then(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{number}", number.len()))
    });
    let client = Client::new();
    for number in 0..20 {
        let post = client.post(&server.url("")).body(number.to_string());
        let post = if number % 2 == 0 { post.expect_continue() } else { post };
        assert_eq!(post.send().unwrap().into_body().text().unwrap(), number.to_string());
    }
    assert_eq!(server.conns(), [0; 20]);
}
