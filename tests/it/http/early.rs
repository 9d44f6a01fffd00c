//! Answers that come while the request's body is still being sent, and servers that are asked
//! whether they want it.

use std::io::{self, Read, Write};
use std::time::Duration;

use crossbeam_channel::unbounded;
use warmline::http::types::Version;
use warmline::http::{ErrorKind, Stage, Upload};

use super::steps::Steps;
use super::support::{Answer, Line, Server, client_of, get, idle, limited};
use crate::support::{SOON, watchdog};

/// More than the system holds for a server that does not read.
const LARGE: usize = 16 * 1024 * 1024;

fn xs() -> io::Repeat {
    io::repeat(b'x')
}

/// The same body in each of its forms.
fn large(form: usize) -> Upload<'static> {
    match form {
        0 => vec![b'x'; LARGE].into(),
        1 => Upload::sized(xs(), LARGE as u64),
        _ => Upload::reader(xs().take(LARGE as u64)),
    }
}

/// How many bytes come before the client closes.
fn count_rest(line: &mut Line<'_>) -> usize {
    let mut count = 0;
    while line.take(1).is_ok() {
        count += 1;
    }
    count
}

/// The server goes on to live, and reads nothing more.
fn stops(answer: Answer) -> Answer {
    answer.wait(&crossbeam_channel::never())
}

/// Reads the beginning of each upload, and answers by that; other requests get "ok".
fn hasty(answer: Answer) -> Server {
    Server::by_hand(move |line| {
        loop {
            let request = line.head()?;
            if request.method() == "GET" {
                line.play(&Answer::ok("ok"))?;
            } else {
                line.take(1000)?;
                line.play(&answer)?;
            }
        }
    })
}

#[test]
fn a_refusal_is_delivered_whatever_the_server_does_with_the_rest_of_the_body() {
    let _watchdog = watchdog();
    let refusal = |status| {
        let head = format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: 7\r\n\r\n");
        Answer::raw(head + "refused")
    };
    for (status, number) in [("413 Content Too Large", 413), ("401 Unauthorized", 401)] {
        for end in [Answer::close, Answer::reset, Answer::silence, stops] {
            for form in 0..3 {
                let server = hasty(end(refusal(status)));
                let client = client_of(1);
                let response = client.post(&server.url("")).body(large(form)).send().unwrap();
                assert_eq!(response.status(), number);
                assert_eq!(response.into_body().text().unwrap(), "refused");
                assert_eq!(idle(&client), 0, "half a request is on its way there");
                assert_eq!(get(&client, &server.url("")), "ok");
                assert_eq!(server.conns(), [0, 1]);
            }
        }
    }
}

#[test]
fn a_refusal_that_does_not_say_close_ends_the_connection_as_well() {
    let _watchdog = watchdog();
    let refusal = Answer::raw("HTTP/1.1 413 No\r\nContent-Length: 0\r\n\r\n").silence();
    for form in 0..3 {
        let server = hasty(refusal.clone());
        let client = client_of(1);
        let steps = Steps::default();
        let request = client.post(&server.url("")).body(large(form)).trace(steps.clone());
        assert_eq!(request.send().unwrap().status(), 413);
        let last = steps.words().pop().unwrap();
        assert_eq!(last, "closed: the server answered before it had the whole request");
        assert_eq!(get(&client, &server.url("")), "ok");
        assert_eq!(server.conns(), [0, 1]);
    }
}

#[test]
fn a_server_that_agrees_before_it_has_everything_gets_everything() {
    let _watchdog = watchdog();
    let (tell, told) = unbounded();
    let server = Server::by_hand(move |line| {
        loop {
            let mut request = line.head()?;
            line.play(&Answer::ok("ok"))?;
            line.body(&mut request)?;
            tell.send(request.body.len()).unwrap();
        }
    });
    let client = client_of(1);
    for form in 0..3 {
        let response = client.put(&server.url("")).body(large(form)).send().unwrap();
        assert_eq!(response.into_body().text().unwrap(), "ok");
        assert_eq!(told.recv_timeout(SOON).unwrap(), LARGE);
    }
    assert_eq!(server.conns(), [0, 0, 0], "nothing speaks against the connection");
}

#[test]
fn an_agreement_is_delivered_even_if_the_server_then_hangs_up() {
    let _watchdog = watchdog();
    for end in [Answer::close, Answer::reset] {
        for form in 0..3 {
            let server = hasty(end(Answer::ok("fine")));
            let client = client_of(1);
            let response = client.put(&server.url("")).body(large(form)).send().unwrap();
            assert_eq!(response.into_body().text().unwrap(), "fine");
            assert_eq!(get(&client, &server.url("")), "ok");
            assert_eq!(server.conns(), [0, 1]);
        }
    }
}

#[test]
fn what_announces_an_answer_does_not_end_an_upload() {
    let _watchdog = watchdog();
    let server = Server::by_hand(|line| {
        let mut request = line.head()?;
        line.play(&Answer::raw("HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Hints\r\n\r\n"))?;
        line.body(&mut request)?;
        line.play(&Answer::ok("all of it").silence())
    });
    let client = client_of(1);
    for form in 0..3 {
        let steps = Steps::default();
        let request = client.post(&server.url("")).body(large(form)).trace(steps.clone());
        assert_eq!(request.send().unwrap().into_body().text().unwrap(), "all of it");
        assert_eq!((steps.count("interim 102"), steps.count("interim 103")), (1, 1));
        client.pool().endpoint(server.url("").as_str()).unwrap().evict();
    }
    assert!(server.requests().iter().all(|request| request.body.len() == LARGE));
}

#[test]
fn nonsense_and_farewells_in_the_middle_of_an_upload_are_what_they_are() {
    let _watchdog = watchdog();
    for (answer, kind) in [
        (Answer::raw("SSH-2.0-x\r\n").silence(), ErrorKind::Protocol),
        (Answer::raw("HTTP/1.1 200 OK\r\nNo colon\r\n\r\n").silence(), ErrorKind::Protocol),
        (Answer::raw("HTTP/1.1 4").close(), ErrorKind::Broken),
        (Answer::default().close(), ErrorKind::Broken),
        (Answer::default().half_close(), ErrorKind::Broken),
    ] {
        for form in 0..3 {
            let server = hasty(answer.clone());
            let client = client_of(1);
            let error = client.post(&server.url("")).body(large(form)).send().unwrap_err();
            let what = (error.kind(), error.stage());
            assert_eq!(what, (kind, Some(Stage::Write)), "{answer:?} {form}");
            assert_eq!(idle(&client), 0);
            assert_eq!(get(&client, &server.url("")), "ok");
        }
    }
}

#[test]
fn a_body_that_is_announced_waits_for_the_word_of_the_server() {
    let _watchdog = watchdog();
    let server = Server::by_hand(|line| {
        loop {
            let mut request = line.head()?;
            assert_eq!(request.fields("expect"), ["100-continue"]);
            line.play(&Answer::raw("HTTP/1.1 103 Hints\r\n\r\n"))?;
            line.play(&Answer::raw("HTTP/1.1 100 Continue\r\nX: y\r\n\r\n"))?;
            line.body(&mut request)?;
            line.play(&Answer::ok(&request.body))?;
        }
    });
    let client = limited(1).continue_timeout(SOON).build().unwrap();
    for (upload, length) in [
        (Upload::from("hello"), 5),
        (vec![b'x'; 100_000].into(), 100_000),
        (Upload::sized(xs(), 100_000), 100_000),
        (Upload::reader(xs().take(100_000)), 100_000),
    ] {
        let steps = Steps::default();
        let request = client.post(&server.url("")).expect_continue().trace(steps.clone());
        let response = request.body(upload).send().unwrap();
        assert_eq!(response.into_body().bytes().unwrap().len(), length);
        let words = steps.words();
        let at = |named| words.iter().position(|word| word == named).unwrap();
        assert!(at("interim 100") < at("wrote"), "{words:?}");
    }
    assert_eq!(server.conns(), [0, 0, 0, 0]);
}

#[test]
fn a_server_that_answers_when_it_is_asked_gets_no_body() {
    let _watchdog = watchdog();
    let (tell, told) = unbounded();
    for (status, fields) in [
        ("417 Expectation Failed", ""),
        ("413 Content Too Large", "Connection: close\r\n"),
        ("500 Internal Server Error", ""),
        ("200 OK", ""),
        ("200 OK", "Connection: close\r\n"),
    ] {
        let tell = tell.clone();
        let answer = format!("HTTP/1.1 {status}\r\n{fields}Content-Length: 2\r\n\r\nno");
        let server = Server::by_hand(move |line| {
            if line.head()?.method() == "GET" {
                return line.play(&Answer::ok("ok").silence());
            }
            line.play(&Answer::raw(&answer))?;
            tell.send(count_rest(line)).unwrap();
            Ok(())
        });
        let client = limited(1).continue_timeout(SOON).build().unwrap();
        let mut reader = &b"not wanted"[..];
        let request = client.post(&server.url("")).expect_continue();
        let response = request.body(Upload::reader(&mut reader)).send().unwrap();
        assert!(status.starts_with(response.status().as_str()));
        assert_eq!(response.into_body().text().unwrap(), "no");
        assert_eq!(reader, b"not wanted", "it was read for nothing");
        assert_eq!(told.recv_timeout(SOON).unwrap(), 0, "{status}");
        assert_eq!(get(&client, &server.url("")), "ok");
        assert_eq!(server.conns(), [0, 1]);
    }
}

#[test]
fn a_request_without_a_body_asks_for_no_word() {
    let _watchdog = watchdog();
    let server = Server::by_hand(|line| {
        loop {
            line.head()?;
            line.play(&Answer::ok("ok"))?;
        }
    });
    let client = limited(1).continue_timeout(SOON).build().unwrap();
    for _ in 0..2 {
        let request = client.get(&server.url("")).expect_continue();
        assert_eq!(request.send().unwrap().into_body().text().unwrap(), "ok");
        let request = client.post(&server.url("")).expect_continue().body("");
        assert_eq!(request.send().unwrap().into_body().text().unwrap(), "ok");
    }
    assert_eq!(server.conns(), [0, 0, 0, 0]);
}

#[test]
fn a_server_that_does_not_know_the_question_gets_the_body_all_the_same() {
    let _watchdog = watchdog();
    let server = Server::by_hand(|line| {
        let mut request = line.head()?;
        line.body(&mut request)?;
        // Too late, and no harm.
        line.play(&Answer::raw("HTTP/1.1 100 Continue\r\n\r\n"))?;
        line.play(&Answer::ok("thanks").silence())
    });
    let client = limited(1).continue_timeout(Duration::from_millis(20)).build().unwrap();
    let request = client.post(&server.url("")).expect_continue().body("hello");
    assert_eq!(request.send().unwrap().into_body().text().unwrap(), "thanks");
    assert_eq!(server.requests()[0].body, b"hello");
}

#[test]
fn a_server_that_hangs_up_when_it_is_asked_is_no_harm_if_the_connection_was_old() {
    let _watchdog = watchdog();
    let server = Server::by_hand(|line| {
        line.request()?;
        line.play(&Answer::ok("ok"))?;
        line.head().map(drop)
    });
    let client = limited(1).continue_timeout(SOON).build().unwrap();
    assert_eq!(get(&client, &server.url("")), "ok");
    let post = || client.post(&server.url("")).expect_continue().body("hello");
    let answer = post().replayable(true).send().unwrap().into_body().text().unwrap();
    assert_eq!((answer.as_str(), server.conns()), ("ok", vec![0, 0, 1]));
    assert_eq!(post().send().unwrap_err().kind(), ErrorKind::Stale);
    let lost = Server::by_hand(|line| line.head().map(drop));
    let error = client.post(&lost.url("")).expect_continue().body("hello").send().unwrap_err();
    assert_eq!((error.kind(), lost.connections()), (ErrorKind::Broken, 1));
}

#[test]
fn a_word_to_go_on_that_nobody_asked_for_shifts_no_answer() {
    let _watchdog = watchdog();
    let server = Server::answering(|request| {
        Answer::raw("HTTP/1.1 100 Continue\r\n\r\n")
            .then(format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", request.path()))
    });
    let client = client_of(1);
    for turn in 0..5 {
        assert_eq!(get(&client, &server.url(&turn.to_string())), format!("/{turn}"));
        let answer = client.post(&server.url(&turn.to_string())).body("x").send().unwrap();
        assert_eq!(answer.into_body().text().unwrap(), format!("/{turn}"));
    }
    assert_eq!(server.connections(), 1);
}

#[test]
fn an_upload_arrives_as_it_is_or_in_chunks_if_its_length_is_not_known() {
    let _watchdog = watchdog();
    let server = Server::by_hand(|line| {
        let chunks = "5\r\nhello\r\n0\r\n\r\n";
        loop {
            let mut request = line.head()?;
            let is_chunked = request.fields("transfer-encoding") == ["chunked"];
            let length = request.fields("content-length").join(",");
            assert_eq!(length.is_empty(), is_chunked, "{}", request.head);
            let raw = match is_chunked {
                true if request.path() == "/empty" => line.take(5)?,
                true => line.take(chunks.len())?,
                false => line.take(length.parse().map_err(io::Error::other)?)?,
            };
            request.body = raw;
            line.play(&Answer::ok(&request.body))?;
        }
    });
    let client = client_of(1);
    let send = |path, upload: Upload<'_>| {
        let response = client.post(&server.url(path)).body(upload).send().unwrap();
        response.into_body().text().unwrap()
    };
    assert_eq!(send("", Upload::empty()), "");
    assert_eq!(send("", "hello".into()), "hello");
    assert_eq!(send("", Upload::sized(&b"hello"[..], 5)), "hello");
    assert_eq!(send("", Upload::sized(&b"hello, world"[..], 5)), "hello");
    assert_eq!(send("", Upload::sized(&b"hello"[..], 0)), "");
    assert_eq!(send("", Upload::reader(&b"hello"[..])), "5\r\nhello\r\n0\r\n\r\n");
    assert_eq!(send("empty", Upload::reader(io::empty())), "0\r\n\r\n");
    assert_eq!(server.connections(), 1);
}

/// Gives a piece each time it is told to, and then fails, panics or ends.
struct Pieces<'p> {
    pieces: Vec<&'p [u8]>,
    next: crossbeam_channel::Receiver<()>,
    end: End,
}

type End = fn() -> io::Result<usize>;

impl Read for Pieces<'_> {
    fn read(&mut self, mut out: &mut [u8]) -> io::Result<usize> {
        self.next.recv_timeout(SOON).unwrap();
        if self.pieces.is_empty() {
            return (self.end)();
        }
        out.write(self.pieces.remove(0))
    }
}

#[test]
fn the_head_and_each_piece_of_a_slow_body_leave_at_once() {
    let _watchdog = watchdog();
    for length in [None, Some(11)] {
        let (tell, next) = unbounded();
        let server = Server::by_hand(move |line| {
            let request = line.head()?;
            let (one, two) = match request.fields("content-length")[..] {
                [] => ("5\r\nhello\r\n", "6\r\n world\r\n"),
                _ => ("hello", " world"),
            };
            tell.send(()).unwrap();
            assert_eq!(line.take(one.len())?, one.as_bytes());
            tell.send(()).unwrap();
            assert_eq!(line.take(two.len())?, two.as_bytes());
            tell.send(()).unwrap();
            line.play(&Answer::ok("ok").silence())
        });
        let pieces = Pieces { pieces: vec![b"hello", b" world"], next, end: || Ok(0) };
        let upload = match length {
            None => Upload::reader(pieces),
            Some(length) => Upload::sized(pieces, length),
        };
        let client = client_of(1);
        let response = client.post(&server.url("")).body(upload).send().unwrap();
        assert_eq!(response.into_body().text().unwrap(), "ok");
    }
}

#[test]
fn a_reader_that_fails_or_has_too_little_never_looks_like_a_whole_body() {
    let _watchdog = watchdog();
    let ends: [(Option<u64>, End); 3] = [
        (None, || Err(io::Error::other("the disk is gone"))),
        (Some(10), || Err(io::Error::other("the disk is gone"))),
        (Some(10), || Ok(0)),
    ];
    for (length, end) in ends {
        let (tell, told) = unbounded();
        let server = Server::by_hand(move |line| {
            if line.head()?.method() == "GET" {
                return line.play(&Answer::ok("ok").silence());
            }
            let mut rest = Vec::new();
            while let Ok(byte) = line.take(1) {
                rest.extend(byte);
            }
            tell.send(String::from_utf8(rest).unwrap()).unwrap();
            Ok(())
        });
        let (go, next) = unbounded();
        (0..2).for_each(|_| go.send(()).unwrap());
        let pieces = Pieces { pieces: vec![b"hello"], next, end };
        let upload = match length {
            None => Upload::reader(pieces),
            Some(length) => Upload::sized(pieces, length),
        };
        let client = client_of(1);
        let error = client.post(&server.url("")).body(upload).send().unwrap_err();
        assert_eq!((error.kind(), error.stage()), (ErrorKind::Upload, Some(Stage::Write)));
        let expected = if length.is_none() { "5\r\nhello\r\n" } else { "hello" };
        assert_eq!(told.recv_timeout(SOON).unwrap(), expected);
        assert_eq!(get(&client, &server.url("")), "ok");
        assert_eq!((server.conns(), idle(&client)), (vec![0, 1], 1));
    }
}

#[test]
fn a_reader_that_panics_costs_its_connection_and_nothing_else() {
    let _watchdog = watchdog();
    let server = hasty(Answer::default());
    let client = client_of(1);
    let (go, next) = unbounded();
    (0..2).for_each(|_| go.send(()).unwrap());
    let upload = Pieces { pieces: vec![b"hello"], next, end: || panic!("a bug in a reader") };
    let request = client.post(&server.url("")).body(Upload::reader(upload));
    let request = std::panic::AssertUnwindSafe(request);
    std::panic::catch_unwind(|| { request }.0.send()).unwrap_err();
    assert_eq!(idle(&client), 0);
    assert_eq!(get(&client, &server.url("")), "ok");
}

#[test]
fn a_body_of_unknown_length_is_not_for_http_1_0() {
    let _watchdog = watchdog();
    let server = hasty(Answer::default());
    let client = client_of(1);
    let request = warmline::http::types::Request::post(server.url("")).version(Version::HTTP_10);
    let error = client.send(request.body(Upload::reader(xs())).unwrap()).unwrap_err();
    assert_eq!((error.kind(), server.connections()), (ErrorKind::Request, 0));
}
