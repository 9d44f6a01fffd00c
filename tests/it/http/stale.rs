//! Connections that the server closes at the moment of a request: replaced where that is safe.

use std::collections::HashSet;
use std::io::Read;
use std::time::{Duration, Instant};

use warmline::http::types::Method;
use warmline::http::{Client, ErrorKind, Event, RequestBuilder, Stage, Trace, Upload};

use super::arrivals::await_farewell;
use super::steps::Steps;
use super::support::{Answer, Server, client_of, get, idle, limited};
use crate::support::{SOON, eventually, watchdog};

/// Answers the first request on each connection, and does this with the second.
fn server_that(answers_second: Answer) -> Server {
    Server::answering(move |request| match request.turn {
        0 => Answer::with("", ""),
        _ => answers_second.clone(),
    })
}

fn closes() -> Answer {
    Answer::default().close()
}

#[test]
fn a_server_that_closes_on_each_second_request_fails_no_get() {
    let _watchdog = watchdog();
    for answer in [closes(), Answer::default().reset()] {
        let server = server_that(answer);
        let client = client_of(4);
        for _ in 0..100 {
            assert_eq!(get(&client, &server.url("")), "");
        }
        assert_eq!((server.connections(), server.requests().len()), (100, 199));
        assert_eq!(idle(&client), 1);
    }
}

type Make = for<'c> fn(RequestBuilder<'c, 'static>) -> RequestBuilder<'c, 'static>;

/// Sends such a request on a connection that dies of it: the error, and how often it was sent.
fn send_on_dying(client: &Client, method: &str, make: Make) -> (Option<ErrorKind>, usize) {
    let server = server_that(closes());
    get(client, &server.url("first"));
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    let result = make(client.request(method, &server.url("second"))).send();
    let kind = result.err().map(|error| error.kind());
    let requests = server.requests();
    let sent: Vec<_> = requests.iter().filter(|it| it.path() == "/second").collect();
    let first = sent.first().unwrap();
    assert!(sent.iter().all(|it| it.body == first.body), "{sent:?}");
    assert_eq!((first.conn, first.turn), (0, 1), "the connection was not used again");
    // Whatever became of it, the next is not touched by it.
    assert_eq!(get(client, &server.url("third")), "");
    (kind, sent.len())
}

#[test]
fn what_does_no_harm_twice_is_sent_again_with_the_same_body() {
    let _watchdog = watchdog();
    let client = client_of(4);
    let cases: [(&str, Make); 9] = [
        ("GET", |request| request),
        ("HEAD", |request| request),
        ("OPTIONS", |request| request),
        ("TRACE", |request| request),
        ("GET", |request| request.body("short")),
        ("GET", |request| request.body(vec![b'x'; 100_000])),
        ("POST", |request| request.body("short").header("Idempotency-Key", "7")),
        ("POST", |request| request.body(vec![b'x'; 100_000]).header("X-Idempotency-Key", "")),
        ("PATCH", |request| request.body("short").replayable(true)),
    ];
    for (number, (method, make)) in cases.into_iter().enumerate() {
        assert_eq!(send_on_dying(&client, method, make), (None, 2), "{number}: {method}");
    }
}

#[test]
fn what_may_do_harm_twice_is_sent_once_and_the_error_says_so() {
    let _watchdog = watchdog();
    let client = client_of(4);
    let cases: [(&str, Make); 9] = [
        ("POST", |request| request),
        ("POST", |request| request.body("short")),
        ("POST", |request| request.body(vec![b'x'; 100_000])),
        ("PATCH", |request| request.body("short")),
        ("PUT", |request| request.body("short")),
        ("DELETE", |request| request),
        ("PURGE", |request| request),
        ("GET", |request| request.replayable(false)),
        ("POST", |request| {
            let begun = Upload::sized(std::io::repeat(b'x'), 1000);
            request.header("Idempotency-Key", "7").body(begun)
        }),
    ];
    for (number, (method, make)) in cases.into_iter().enumerate() {
        let happened = send_on_dying(&client, method, make);
        assert_eq!(happened, (Some(ErrorKind::Stale), 1), "{number}: {method}");
    }
}

#[test]
fn put_and_delete_are_sent_again_where_the_client_is_told_that_they_may() {
    let _watchdog = watchdog();
    let client = limited(4).replay_puts(true).build().unwrap();
    assert_eq!(send_on_dying(&client, "PUT", |request| request.body("short")), (None, 2));
    assert_eq!(send_on_dying(&client, "DELETE", |request| request), (None, 2));
    let post = send_on_dying(&client, "POST", |request| request.body("short"));
    assert_eq!(post, (Some(ErrorKind::Stale), 1));
    let not_this = send_on_dying(&client, "PUT", |request| request.replayable(false));
    assert_eq!(not_this, (Some(ErrorKind::Stale), 1));
}

#[test]
fn what_was_not_written_yet_goes_to_another_connection_whatever_it_is() {
    let _watchdog = watchdog();
    for round in 0..20 {
        let server = Server::answering(|request| match request.conn {
            0 => Answer::ok("hello").silence(),
            _ => Answer::with("", ""),
        });
        let client = client_of(1);
        let first = client.get(&server.url("")).send().unwrap();
        server.hang_up();
        await_farewell(&server);
        // Back to the pool with its farewell in it: nobody has looked.
        assert_eq!(first.into_body().text().unwrap(), "hello");
        let post = client.post(&server.url(""));
        let response = match round % 3 {
            0 => post.body("bytes").send(),
            1 => post.body(Upload::sized(&b"bytes"[..], 5)).send(),
            _ => post.body(Upload::reader(&b"bytes"[..])).send(),
        };
        assert_eq!(response.unwrap().status(), 200);
        assert_eq!(server.conns(), [0, 1]);
        assert_eq!(server.requests()[1].body, b"bytes");
    }
}

#[test]
fn on_a_connection_that_was_never_used_nothing_is_tried_twice() {
    let _watchdog = watchdog();
    for answer in [closes(), Answer::default().reset()] {
        let server = Server::script([answer, Answer::with("", "")]);
        let client = client_of(1);
        let error = client.get(&server.url("")).send().unwrap_err();
        assert_eq!((error.kind(), error.stage()), (ErrorKind::Broken, Some(Stage::Head)));
        assert_eq!((server.connections(), server.requests().len()), (1, 1));
        assert_eq!(client.pool().stats().in_use(), 0);
        assert_eq!(get(&client, &server.url("")), "");
    }
}

#[test]
fn a_connection_that_was_opened_ahead_may_have_died_like_any_other() {
    let _watchdog = watchdog();
    let server = Server::script([closes(), Answer::with("", ""), closes()]);
    let client = client_of(1);
    let endpoint = client.pool().endpoint(server.url("").as_str()).unwrap();
    assert_eq!(endpoint.warm(1, SOON).unwrap(), 1);
    assert_eq!(get(&client, &server.url("")), "");
    assert_eq!(server.conns(), [0, 1]);
    let error = client.post(&server.url("")).send().unwrap_err();
    assert_eq!((error.kind(), server.conns().len()), (ErrorKind::Stale, 3));
}

#[test]
fn once_the_server_has_begun_to_answer_nothing_is_sent_again() {
    let _watchdog = watchdog();
    for (answer, kind) in [
        (Answer::raw("H").close(), ErrorKind::Broken),
        (Answer::raw("HTTP/1.1 20").close(), ErrorKind::Broken),
        (Answer::raw("HTTP/1.1 200 OK\r\nX: y").close(), ErrorKind::Broken),
        (Answer::raw("HTTP/1.1 100 Continue\r\n\r\n").close(), ErrorKind::Broken),
        (Answer::raw("HTTP/1.1 200 OK\r\nNo colon\r\n\r\n"), ErrorKind::Protocol),
        (Answer::raw("\r\n"), ErrorKind::Protocol),
        (Answer::raw("-ERR unknown command"), ErrorKind::Protocol),
        (Answer::default().silence(), ErrorKind::Timeout),
    ] {
        let server = server_that(answer.clone());
        let is_late = kind == ErrorKind::Timeout;
        let time = if is_late { Duration::from_millis(300) } else { SOON };
        let client = limited(1).head_timeout(time).build().unwrap();
        // A busy machine may not have answered in time.
        eventually("a connection is warm", || client.get(&server.url("")).send().is_ok());
        let before = server.requests().len();
        let error = client.get(&server.url("")).send().unwrap_err();
        assert_eq!((error.kind(), error.stage()), (kind, Some(Stage::Head)), "{answer:?}");
        assert_eq!(server.requests().len(), before + 1, "{answer:?}");
        assert_eq!(idle(&client), 0, "{answer:?}");
    }
}

#[test]
fn a_request_gets_past_all_connections_that_have_died_together() {
    let _watchdog = watchdog();
    let server = Server::answering(|request| match request.turn {
        0 => Answer::ok("ok"),
        _ => closes(),
    });
    let client = client_of(8);
    let eight: Vec<_> = (0..8).map(|_| client.get(&server.url("")).send().unwrap()).collect();
    drop(eight);
    assert_eq!(idle(&client), 8);
    let steps = Steps::default();
    let answer = client.get(&server.url("")).trace(steps.clone()).send().unwrap();
    assert_eq!(answer.into_body().text().unwrap(), "ok");
    assert!((1..=8).contains(&steps.count("repeated")));
    assert_eq!(server.connections(), 9);
    assert_eq!(idle(&client), 1);
}

#[test]
fn a_request_is_sent_again_a_few_times_and_not_for_ever() {
    let _watchdog = watchdog();
    let server = server_that(closes());
    let client = client_of(4);
    get(&client, &server.url(""));
    let steps = Steps::default();
    let (other, url, told) = (client.clone(), server.url("other"), steps.clone());
    let request = client.get(&server.url("asked")).trace(move |event: &Event| {
        Trace::event(&told, event);
        if matches!(event, Event::Repeated { .. }) {
            // Another request leaves a connection behind that will have died as well.
            get(&other, &url);
        }
    });
    let error = request.send().unwrap_err();
    let repeated = steps.count("repeated");
    assert_eq!(error.kind(), ErrorKind::Stale);
    assert!((2..=50).contains(&repeated), "{repeated} times");
    let asked = server.requests().iter().filter(|it| it.path() == "/asked").count();
    assert_eq!(asked, repeated + 1);
}

#[test]
fn a_repeat_has_no_more_time_than_is_left() {
    let _watchdog = watchdog();
    let server = Server::answering(|request| match (request.conn, request.turn) {
        (0, 0) => Answer::with("", ""),
        (0, _) => closes(),
        _ => Answer::default().silence(),
    });
    let client = client_of(1);
    get(&client, &server.url(""));
    let began = Instant::now();
    let error = client.get(&server.url("")).timeout(Duration::from_millis(500)).send().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert!(began.elapsed() < SOON, "it had the default of 30 s instead");
    assert_eq!(client.pool().stats().in_use(), 0);
}

#[test]
fn a_408_on_an_idle_connection_is_a_farewell_and_answers_nothing() {
    let _watchdog = watchdog();
    const TIMED_OUT: &str = "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\
        Content-Length: 0\r\n\r\n";
    let (tell, told) = crossbeam_channel::unbounded();
    let server = Server::answering(move |request| match request.conn {
        0 => Answer::ok("one").wait(&told).then(TIMED_OUT).close(),
        _ => Answer::ok("two"),
    });
    let client = client_of(1);
    assert_eq!(get(&client, &server.url("")), "one");
    tell.send(()).unwrap();
    eventually("the pool hears it", || client.pool().stats().closed() == 1);
    let post = client.post(&server.url("")).body("x").send().unwrap();
    assert_eq!(post.into_body().text().unwrap(), "two");
    assert_eq!(server.conns(), [0, 1]);

    // The same, when a request crosses it.
    let server = server_that(Answer::raw(TIMED_OUT).close());
    get(&client, &server.url(""));
    assert_eq!(client.get(&server.url("")).send().unwrap().status(), 200);
    assert_eq!(server.conns(), [0, 0, 1]);
    // Of this it is not known whether the server means it, so it is told.
    assert_eq!(client.post(&server.url("")).send().unwrap().status(), 408);

    // Nor is it a farewell where the connection is new.
    let server = Server::script([Answer::raw(TIMED_OUT).close()]);
    assert_eq!(client.get(&server.url("")).send().unwrap().status(), 408);
}

#[test]
fn the_steps_of_a_repeat_are_told_in_the_order_they_happen() {
    let _watchdog = watchdog();
    let server = server_that(closes());
    let client = client_of(1);
    get(&client, &server.url(""));
    let steps = Steps::default();
    client.get(&server.url("")).trace(steps.clone()).send().unwrap();
    let order = [
        "queued",
        "reused",
        "wrote",
        "closed: it failed",
        "repeated",
        "queued",
        "resolved",
        "connected",
        "fresh",
        "wrote",
        "first byte",
        "head 200",
        "end 0",
        "returned",
    ];
    assert_eq!(steps.words(), order);
}

#[test]
fn no_post_is_seen_twice_by_a_server_that_hangs_up_behind_its_answers() {
    let _watchdog = watchdog();
    let server = Server::answering(|_| Answer::with("", "").close());
    let client = client_of(4);
    let mut answered = Vec::new();
    for number in 0..300 {
        let post = client.post(&server.url("")).body(format!("{number}"));
        match post.send() {
            Ok(_) => answered.push(number.to_string()),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Stale, "{error}"),
        }
    }
    let bodies = server.requests().into_iter().map(|it| String::from_utf8(it.body).unwrap());
    let seen: Vec<_> = bodies.collect();
    let different: HashSet<_> = seen.iter().cloned().collect();
    assert_eq!(different.len(), seen.len(), "some came twice");
    assert!(answered.iter().all(|number| different.contains(number)));
}

#[test]
fn a_reader_is_not_read_for_a_request_that_could_not_be_sent() {
    let _watchdog = watchdog();
    let refusing = crate::support::faults::Refusing::new();
    let client = client_of(1);
    let mut reader = &b"bytes"[..];
    let url = format!("http://{}/", refusing.name());
    let error = client.post(&url).body(Upload::reader(reader.by_ref())).send().unwrap_err();
    assert_eq!((error.kind(), reader), (ErrorKind::Checkout, &b"bytes"[..]));
}
