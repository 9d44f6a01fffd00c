//! Answers that are not read to their end: what is left is read by the pool if it is little, and
//! comes soon; or else the connection is closed.

use std::io::Read;
use std::time::Duration;

use crossbeam_channel::{bounded, unbounded};
use warmline::http::types::Method;
use warmline::http::{ErrorKind, Unfit};

use super::support::{Answer, Endings, Server, client_of, get, idle, limited};
use crate::support::{eventually, watchdog};

const KIB: usize = 1024;

fn of_known_length(size: usize) -> Answer {
    Answer::ok("x".repeat(size))
}

fn in_one_chunk(size: usize) -> Answer {
    Answer::chunked(&[&"x".repeat(size)])
}

fn in_chunks(size: usize) -> Answer {
    Answer::chunked(&vec![&*"x".repeat(16 * KIB); size / (16 * KIB)])
}

/// Requests this answer, reads so much of it, and drops it, until the connection of one can be used
/// again: on a busy machine the time for reading the rest may pass. False if that never happens.
fn comes_back(answer: Answer, read: usize) -> bool {
    let server = Server::script([answer]);
    let client = client_of(1);
    (0..20).any(|_| {
        let mut response = client.get(&server.url("")).send().unwrap();
        response.body_mut().read_exact(&mut vec![0; read]).unwrap();
        drop(response);
        idle(&client) == 1
    })
}

#[test]
fn what_is_left_of_an_answer_is_read_if_it_is_little() {
    let _watchdog = watchdog();
    for read in [0, 1, 100 * KIB] {
        assert!(comes_back(of_known_length(200 * KIB), read), "{read}");
        assert!(comes_back(in_one_chunk(200 * KIB), read), "{read}");
        assert!(comes_back(in_chunks(208 * KIB), read), "{read}");
    }
    // What was read before does not count.
    assert!(comes_back(of_known_length(500 * KIB), 400 * KIB));
}

#[test]
fn a_rest_that_comes_soon_is_waited_for() {
    let _watchdog = watchdog();
    let soon = Duration::from_millis(5);
    let length = Answer::raw("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello");
    assert!(comes_back(length.pause(soon).then("hello"), 0));
    let chunk = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
    assert!(comes_back(Answer::raw(chunk).pause(soon).then("0\r\n\r\n"), 0));
    assert!(comes_back(Answer::raw(chunk).pause(soon).then("0\r\n\r\n"), 5));
}

#[test]
fn what_is_left_of_an_answer_is_not_read_if_it_is_much() {
    let _watchdog = watchdog();
    for answer in [of_known_length(500 * KIB), in_one_chunk(500 * KIB), in_chunks(512 * KIB)] {
        let server = Server::script([answer]);
        let client = client_of(1);
        for _ in 0..3 {
            let mut response = client.get(&server.url("")).send().unwrap();
            response.body_mut().read_exact(&mut [0; 100]).unwrap();
            drop(response);
            assert_eq!(idle(&client), 0);
        }
        assert_eq!(server.conns(), [0, 1, 2]);
    }
}

#[test]
fn what_has_come_already_is_dropped_without_another_thread() {
    let _watchdog = watchdog();
    for answer in [Answer::ok("hello"), Answer::chunked(&["hel", "lo"])] {
        let server = Server::script([answer]);
        let client = client_of(1);
        for _ in 0..100 {
            drop(client.get(&server.url("")).send().unwrap());
            assert_eq!(client.pool().stats().idle(), 1, "at once");
        }
        assert_eq!(server.conns(), [0; 100]);
    }
}

#[test]
fn a_rest_that_does_not_come_soon_is_not_waited_for() {
    let _watchdog = watchdog();
    let half = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello";
    let chunk = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
    for begun in [half, chunk] {
        let server = Server::script([Answer::raw(begun).silence(), Answer::ok("next")]);
        let client = client_of(1);
        drop(client.get(&server.url("")).send().unwrap());
        // There is room for one: it waits until the other is given up.
        assert_eq!(get(&client, &server.url("")), "next");
        assert_eq!(server.conns(), [0, 1]);
        let stats = client.pool().stats();
        assert_eq!((stats.closed(), idle(&client)), (1, 1), "{stats}");
    }
}

#[test]
fn a_request_does_not_wait_for_the_rest_of_anothers_answer_while_there_is_room() {
    let _watchdog = watchdog();
    let (tell, told) = bounded(0);
    let half = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello";
    let server = Server::script([Answer::raw(half).wait(&told).then("hello"), Answer::ok("next")]);
    let client = client_of(2);
    drop(client.get(&server.url("")).send().unwrap());
    assert_eq!(get(&client, &server.url("")), "next");
    assert_eq!(server.conns(), [0, 1]);
    drop(tell);
    eventually("the other is given up, or back", || client.pool().stats().checking() == 0);
}

#[test]
fn an_answer_without_an_end_that_is_dropped_takes_its_connection_with_it() {
    let _watchdog = watchdog();
    for head in ["", "Transfer-Encoding: chunked\r\n", "Content-Length: 99999999999\r\n"] {
        let head = format!("HTTP/1.1 200 OK\r\n{head}\r\n");
        let server = Server::by_hand(move |line| {
            line.request()?;
            line.play(&Answer::raw(&head))?;
            let chunk = format!("4000\r\n{}\r\n", "x".repeat(0x4000));
            loop {
                line.play(&Answer::raw(&chunk))?;
            }
        });
        let client = client_of(1);
        for count in 1..=2 {
            let mut body = client.get(&server.url("")).send().unwrap().into_body();
            body.read_exact(&mut vec![0; 1024 * KIB]).unwrap();
            drop(body);
            server.await_none_open();
            assert_eq!((server.connections(), idle(&client)), (count, 0));
        }
    }
}

#[test]
fn an_answer_that_is_held_keeps_its_connection_and_lets_it_go_with_its_drop() {
    let _watchdog = watchdog();
    let server = Server::script([Answer::ok("hello")]);
    let client = client_of(2);
    let held = client.get(&server.url("")).send().unwrap();
    assert_eq!(client.pool().stats().in_use(), 1);
    assert_eq!(get(&client, &server.url("")), "hello");
    assert_eq!(client.pool().stats().in_use(), 1);
    assert_eq!(server.conns(), [0, 1]);
    drop(held);
    assert_eq!((idle(&client), client.pool().stats().closed()), (2, 0));
}

#[test]
fn an_answer_after_which_the_server_closes_is_dropped_and_not_read() {
    let _watchdog = watchdog();
    let close = "Connection: close\r\n";
    let server = Server::script([Answer::with(close, "x".repeat(100 * KIB))]);
    let endings = Endings::default();
    let client = limited(1).trace(endings.clone()).build().unwrap();
    drop(client.get(&server.url("")).send().unwrap());
    assert_eq!(client.pool().stats().total(), 0);
    drop(client.get(&server.url("")).send().unwrap());
    assert_eq!((server.conns(), endings.reasons()), (vec![0, 1], vec![Unfit::ServerCloses; 2]));
}

#[test]
fn an_answer_that_is_left_and_has_more_behind_it_ends_its_connection() {
    let _watchdog = watchdog();
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n";
    let wrong = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong";
    let long = Answer::raw([head, &"x".repeat(200_000), wrong].concat());
    let server = Server::script([long, Answer::ok("right")]);
    let client = client_of(1);
    drop(client.get(&server.url("")).send().unwrap());
    assert_eq!(get(&client, &server.url("")), "right");
    assert_eq!(server.conns(), [0, 1]);
}

#[test]
fn trailers_of_an_answer_that_is_left_do_not_reach_the_next() {
    let _watchdog = watchdog();
    let long = "x".repeat(100 * KIB);
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let left = Answer::raw(format!("{head}19000\r\n{long}\r\n0\r\nX-Secret: 1\r\n\r\n"));
    let server = Server::answering(move |request| match request.path() {
        "/left" => left.clone(),
        _ => Answer::chunked(&["hello"]),
    });
    let client = client_of(1);
    for _ in 0..20 {
        drop(client.get(&server.url("left")).send().unwrap());
        let mut body = client.get(&server.url("")).send().unwrap().into_body();
        let mut text = String::new();
        body.read_to_string(&mut text).unwrap();
        assert_eq!((&*text, body.trailers()), ("hello", None));
    }
}

#[test]
fn a_head_without_the_body_that_head_has_not_is_nothing_left() {
    let _watchdog = watchdog();
    let server = Server::script([Answer::status("200 OK\r\nContent-Length: 500000")]);
    let client = client_of(1);
    for _ in 0..5 {
        drop(client.request(Method::HEAD, &server.url("")).send().unwrap());
    }
    assert_eq!(server.conns(), [0; 5]);
}

#[test]
fn nothing_that_happens_to_a_finished_answer_hurts_who_has_its_connection_now() {
    let _watchdog = watchdog();
    let (tell, told) = unbounded();
    let late =
        Answer::default().wait(&told).then("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecond");
    let server = Server::script([Answer::ok("first"), late]);
    let client = client_of(1);
    let brief = Duration::from_millis(30);
    let mut first = client.get(&server.url("")).timeout(brief).send().unwrap().into_body();
    let mut text = [0; 5];
    first.read_exact(&mut text).unwrap();
    let second = std::thread::scope(|scope| {
        let second = scope.spawn(|| get(&client, &server.url("")));
        eventually("the second is on its way", || server.requests().len() == 2);
        std::thread::sleep(2 * brief); // the first one's time is over
        assert_eq!(first.read(&mut text).unwrap(), 0);
        drop(first);
        tell.send(()).unwrap();
        second.join().unwrap()
    });
    assert_eq!((second.as_str(), server.conns()), ("second", vec![0, 0]));
    assert_eq!((idle(&client), client.pool().stats().closed()), (1, 0));
}

#[test]
fn a_request_that_times_out_hurts_no_other() {
    let _watchdog = watchdog();
    let (tell, told) = unbounded();
    let server = Server::answering(move |request| match request.path() {
        "/never" => Answer::default().silence(),
        _ => {
            Answer::default().wait(&told).then("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
        }
    });
    let client = client_of(2);
    std::thread::scope(|scope| {
        let other = scope.spawn(|| get(&client, &server.url("")));
        eventually("it is on its way", || server.requests().len() == 1);
        for _ in 0..3 {
            let never = client.get(&server.url("never")).timeout(Duration::from_millis(20));
            assert_eq!(never.send().unwrap_err().kind(), ErrorKind::Timeout);
        }
        tell.send(()).unwrap();
        assert_eq!(other.join().unwrap(), "hello");
    });
    // The connection of the one that was answered is still there.
    assert!(idle(&client) >= 1);
    tell.send(()).unwrap();
    assert_eq!(get(&client, &server.url("")), "hello");
    assert!(server.requests().iter().any(|request| (request.conn, request.turn) == (0, 1)));
}
