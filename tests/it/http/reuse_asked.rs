//! What requests ask for, what they send, and what servers tell: and how long connections are used.

use std::io::{self, Read};
use std::time::Duration;

use crossbeam_channel::{Receiver, unbounded};
use warmline::CloseReason;
use warmline::http::types::{Method, Request};
use warmline::http::{Client, Unfit, Upload};

use super::support::{Answer, Endings, Server, client_of, get, limited};
use crate::support::{SOON, eventually, watchdog};

/// More than any socket's buffers hold.
const LONG: u64 = 64 * 1024 * 1024;

#[test]
fn one_request_can_be_sent_again_and_again() {
    let _watchdog = watchdog();
    let server = Server::answering(|request| Answer::ok(&request.body));
    let client = client_of(1);
    let request = Request::post(server.url("")).header("x-order", "7").body("hello").unwrap();
    for _ in 0..3 {
        let response = client.send(request.clone()).unwrap();
        assert_eq!(response.into_body().text().unwrap(), "hello");
    }
    let requests = server.requests();
    assert_eq!((requests.len(), server.connections()), (3, 1));
    assert!(requests.iter().all(|request| request.head == requests[0].head));
}

#[test]
fn a_request_that_says_close_has_its_connection_to_itself() {
    let _watchdog = watchdog();
    let server = Server::script([Answer::ok("hello")]);
    let endings = Endings::default();
    let client = limited(1).trace(endings.clone()).build().unwrap();
    for value in ["close", "Close", "x, close"] {
        let response = client.get(&server.url("")).header("connection", value).send().unwrap();
        assert_eq!(response.into_body().text().unwrap(), "hello");
    }
    assert_eq!((server.conns(), endings.reasons()), (vec![0, 1, 2], vec![Unfit::RequestCloses; 3]));
    server.await_none_open();
    assert_eq!(get(&client, &server.url("")), "hello");
    assert_eq!(get(&client, &server.url("")), "hello");
    assert_eq!(server.conns(), [0, 1, 2, 3, 3]);
}

#[test]
fn close_is_said_once_whoever_wants_it() {
    let _watchdog = watchdog();
    let server = Server::script([Answer::with("Connection: close\r\n", "hello")]);
    let client = Client::builder().header("connection", "close").build().unwrap();
    assert_eq!(get(&client, &server.url("")), "hello");
    let both = client.get(&server.url("")).header("connection", "close").send().unwrap();
    assert_eq!(both.into_body().text().unwrap(), "hello");
    for request in server.requests() {
        assert_eq!(request.fields("connection"), ["close"]);
    }
    assert_eq!(server.conns(), [0, 1]);
    server.await_none_open();
}

#[test]
fn requests_of_every_kind_of_body_share_one_connection() {
    let _watchdog = watchdog();
    let server = Server::answering(|request| Answer::ok(&request.body));
    let client = client_of(1);
    let long = "x".repeat(300_000);
    let post = |upload: Upload<'_>| {
        let response = client.post(&server.url("")).body(upload).send().unwrap();
        response.into_body().text().unwrap()
    };
    assert_eq!(post(Upload::empty()), "");
    assert_eq!(post("hello".into()), "hello");
    assert_eq!(post(long.as_str().into()), long);
    assert_eq!(post(Upload::sized(long.as_bytes(), 300_000)), long);
    assert_eq!(post(Upload::reader(long.as_bytes())), long);
    assert_eq!(post(Upload::reader(io::empty())), "");
    let asked = client.put(&server.url("")).body("hello").expect_continue().send().unwrap();
    assert_eq!(asked.into_body().text().unwrap(), "hello");
    assert_eq!(server.conns(), [0; 7]);
}

#[test]
fn an_answer_that_comes_before_the_request_was_sent_ends_the_connection() {
    let _watchdog = watchdog();
    let server = Server::by_hand(|line| {
        loop {
            let request = line.head()?;
            if request.method() == "GET" {
                line.play(&Answer::ok("hello"))?;
            } else {
                // It reads on only to let the client go on.
                let refusal = "HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nno!";
                line.play(&Answer::raw(refusal).silence())?;
            }
        }
    });
    let endings = Endings::default();
    let client = limited(1).trace(endings.clone()).build().unwrap();
    assert_eq!(get(&client, &server.url("")), "hello");
    for upload in
        [Upload::sized(io::repeat(b'x'), LONG), Upload::reader(io::repeat(b'x').take(LONG))]
    {
        let response = client.post(&server.url("")).body(upload).send().unwrap();
        assert_eq!(response.status(), 413);
        assert_eq!(response.into_body().text().unwrap(), "no!");
        assert_eq!(get(&client, &server.url("")), "hello");
    }
    assert_eq!(server.conns(), [0, 0, 1, 1, 2]);
    assert_eq!(endings.reasons(), [Unfit::UnfinishedRequest; 2]);
}

#[test]
fn an_answer_to_a_request_that_could_not_be_written_ends_the_connection() {
    let _watchdog = watchdog();
    let server = Server::by_hand(|line| {
        line.head()?;
        line.play(&Answer::raw("HTTP/1.1 413 No\r\nContent-Length: 3\r\n\r\nno!").reset())
    });
    let endings = Endings::default();
    let client = limited(1).trace(endings.clone()).build().unwrap();
    for _ in 0..3 {
        let post = client.post(&server.url("")).body(Upload::sized(io::repeat(b'x'), LONG));
        let response = post.send().unwrap();
        assert_eq!(response.status(), 413);
        drop(response);
    }
    assert_eq!((server.conns(), endings.reasons().len()), (vec![0, 1, 2], 3));
    assert_eq!(client.pool().stats().total(), 0);
}

#[test]
fn a_welcome_that_comes_early_does_not_end_the_connection() {
    let _watchdog = watchdog();
    let (tell, told) = unbounded();
    let server = Server::by_hand(move |line| {
        loop {
            let mut request = line.head()?;
            line.play(&Answer::ok("hello"))?;
            tell.send(()).map_err(io::Error::other)?;
            line.body(&mut request)?;
        }
    });
    let client = client_of(1);
    for _ in 0..3 {
        // What it sends after the answer has come.
        let late = Late { told: &told, count: 0 };
        let response = client.post(&server.url("")).body(Upload::sized(late, 100_001)).send();
        assert_eq!(response.unwrap().into_body().text().unwrap(), "hello");
    }
    eventually("bodies come", || server.requests().iter().all(|it| it.body.len() == 100_001));
    assert_eq!(server.conns(), [0; 3]);
}

/// One byte, and the others once the test is told.
struct Late<'t> {
    told: &'t Receiver<()>,
    /// Reads so far.
    count: usize,
}

impl Read for Late<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.count += 1;
        match self.count {
            1 => return io::repeat(b'x').take(1).read(into),
            2 => self.told.recv_timeout(SOON).map_err(io::Error::other)?,
            _ => {}
        }
        io::repeat(b'x').read(into)
    }
}

#[test]
fn a_body_that_was_not_wanted_is_not_sent_and_ends_the_connection() {
    let _watchdog = watchdog();
    let server = Server::by_hand(|line| {
        loop {
            let request = line.head()?;
            let answer = match request.method() {
                "GET" => Answer::ok("hello"),
                _ => Answer::raw("HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n"),
            };
            line.play(&answer)?;
        }
    });
    let client = client_of(1);
    let post = client.post(&server.url("")).body("hello").expect_continue();
    assert_eq!(post.send().unwrap().status(), 417);
    assert_eq!(get(&client, &server.url("")), "hello");
    assert_eq!(server.conns(), [0, 1], "the body would have been read as a request");
}

#[test]
fn a_server_that_says_how_many_requests_it_takes_is_not_asked_once_more() {
    let _watchdog = watchdog();
    let server = Server::answering(|request| {
        let left = 2_usize.saturating_sub(request.turn);
        let answer = Answer::with(&format!("Keep-Alive: timeout=60, max={left}\r\n"), "hello");
        if left == 0 { answer.close() } else { answer }
    });
    let endings = Endings::default();
    let client = limited(1).trace(endings.clone()).build().unwrap();
    for _ in 0..7 {
        // What cannot be repeated would fail if the server closed first.
        let response = client.post(&server.url("")).body("hello").send().unwrap();
        assert_eq!(response.into_body().text().unwrap(), "hello");
    }
    assert_eq!(server.conns(), [0, 0, 0, 1, 1, 1, 2]);
    assert_eq!(endings.reasons(), [Unfit::LastRequest; 2]);
}

#[test]
fn a_server_that_says_how_long_it_waits_is_left_before_that() {
    let _watchdog = watchdog();
    let server = Server::script([Answer::with("Keep-Alive: timeout=1\r\n", "hello")]);
    let client = client_of(1);
    assert_eq!(get(&client, &server.url("")), "hello");
    let limit = client.pool().endpoint(&*server.url("")).unwrap().stats().idle_limit().unwrap();
    assert!(limit < Duration::from_secs(1), "{limit:?}");
    eventually("the connection is closed", || client.pool().stats().idle() == 0);
    assert_eq!(client.pool().stats().closed_for(CloseReason::IdleTimeout), 1);
    assert_eq!(get(&client, &server.url("")), "hello");
    assert_eq!(server.conns(), [0, 1]);
}

#[test]
fn what_a_server_says_last_about_its_patience_counts() {
    let _watchdog = watchdog();
    let limits = ["20", "40", "x", "30"];
    let answers = limits.map(|it| Answer::with(&format!("Keep-Alive: timeout={it}\r\n"), "hello"));
    let server = Server::script(answers);
    let client = client_of(1);
    let seconds: Vec<_> = (0..4)
        .map(|_| {
            assert_eq!(get(&client, &server.url("")), "hello");
            let endpoint = client.pool().endpoint(&*server.url("")).unwrap();
            endpoint.stats().idle_limit().unwrap().as_secs()
        })
        .collect();
    assert_eq!(seconds, [18, 36, 36, 27]);
    assert_eq!(server.conns(), [0; 4]);
}

#[test]
fn methods_that_the_standard_does_not_know_share_the_connection() {
    let _watchdog = watchdog();
    let server = Server::answering(|request| Answer::ok(request.method()));
    let client = client_of(1);
    for name in ["GET", "PROPFIND", "OPTIONS", "DELETE", "X"] {
        let method = Method::from_bytes(name.as_bytes()).unwrap();
        let response = client.request(method, &server.url("")).send().unwrap();
        assert_eq!(response.into_body().text().unwrap(), name);
    }
    assert_eq!(server.conns(), [0; 5]);
}
