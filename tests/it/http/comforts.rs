//! What every request has to offer: default headers, credentials, limits, Unix sockets, and errors
//! that keep secrets.

use std::error::Error as _;
use std::io::Read;

use warmline::http::types::Request;
use warmline::http::{Client, Error, ErrorKind, Stage};

use super::steps::Steps;
use super::support::{Answer, Server, client_of, get, idle, limited};
use crate::support::faults::Refusing;
use crate::support::watchdog;

/// Answers with the head of the request.
fn echo() -> Server {
    Server::answering(|request| Answer::ok(&request.head))
}

#[test]
fn a_request_has_the_headers_of_its_client_but_for_those_of_its_own() {
    let _watchdog = watchdog();
    let server = echo();
    let builder = limited(1).header("X-Of", "client").header("X-Both", "client");
    let client = builder.header("user-agent", "orders/1.0").build().unwrap();
    get(&client, &server.url(""));
    client.get(&server.url("")).header("x-both", "request").send().unwrap();
    let requests = server.requests();
    for (request, both) in requests.iter().zip(["client", "request"]) {
        assert_eq!(request.fields("x-of"), ["client"]);
        assert_eq!(request.fields("x-both"), [both]);
        assert_eq!(request.fields("user-agent"), ["orders/1.0"]);
        assert_eq!(request.fields("accept"), ["*/*"]);
        assert_eq!(request.fields("host"), [server.name()]);
    }
}

#[test]
fn a_client_without_headers_sends_none_but_the_host() {
    let _watchdog = watchdog();
    let server = echo();
    let client = limited(1).no_headers().build().unwrap();
    let text = get(&client, &server.url("x"));
    assert_eq!(text, format!("GET /x HTTP/1.1\r\nhost: {}", server.name()));
    assert_eq!(get(&client, &server.url("y")).lines().count(), 2);
}

#[test]
fn headers_of_one_name_stay_beside_each_other_and_a_map_takes_their_place() {
    let _watchdog = watchdog();
    let server = echo();
    let client = client_of(1);
    let request = || client.get(&server.url("")).header("x", "1").header("x", "2");
    request().send().unwrap();
    let map = [("x", "3"), ("x", "4")].into_iter();
    let map = map.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
    request().headers(map).send().unwrap();
    let requests = server.requests();
    assert_eq!(requests[0].fields("x"), ["1", "2"]);
    assert_eq!(requests[1].fields("x"), ["3", "4"]);
}

#[test]
fn credentials_are_sent_as_the_standards_want_them() {
    let _watchdog = watchdog();
    let server = echo();
    let client = client_of(1);
    let url = server.url("");
    let with_user = |user: &str| url.replace("http://", &format!("http://{user}@"));
    client.get(&url).basic_auth("Aladdin", "open sesame").send().unwrap();
    client.get(&url).basic_auth("test", "123\u{a3}").send().unwrap();
    client.get(&url).bearer_auth("mF_9.B5f-4.1JqM").send().unwrap();
    client.get(&with_user("Aladdin:open%20sesame")).send().unwrap();
    client.get(&with_user("Aladdin")).send().unwrap();
    client.get(&with_user("50%25:%+1%2")).send().unwrap();
    client.get(&with_user("Aladdin:x")).bearer_auth("mine").send().unwrap();
    let fields: Vec<_> = server
        .requests()
        .iter()
        .map(|request| request.fields("authorization").join(", "))
        .collect();
    let expected = [
        "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==",
        "Basic dGVzdDoxMjPCow==",
        "Bearer mF_9.B5f-4.1JqM",
        "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==",
        "Basic QWxhZGRpbjo=",
        "Basic NTAlOiUrMSUy",
        "Bearer mine",
    ];
    assert_eq!(fields, expected);
    assert!(server.requests().iter().all(|request| request.fields("host") == [server.name()]));
    assert_eq!(server.connections(), 1, "who asks makes no other server of it");
    let error = client.get(&url).basic_auth("a:b", "c").send().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Request);
}

#[test]
fn a_body_is_no_longer_than_allowed() {
    let _watchdog = watchdog();
    let ten = "x".repeat(10);
    let chunked = Answer::chunked(&["xxxxx", "xxxxx"]);
    let close = Answer::raw(format!("HTTP/1.1 200 OK\r\n\r\n{ten}")).close();
    for answer in [Answer::ok(&ten), chunked, close] {
        let server = Server::script([answer]);
        let client = limited(1).max_body(10).build().unwrap();
        assert_eq!(get(&client, &server.url("")), ten);
        // The most that this one request allows.
        for most in [0, 5, 9] {
            let request = || client.get(&server.url("")).max_body(most).send().unwrap();
            let error = request().into_body().bytes().unwrap_err();
            assert_eq!((error.kind(), error.stage()), (ErrorKind::TooLong, Some(Stage::Body)));
            let mut read = Vec::new();
            let error = request().into_body().read_to_end(&mut read).unwrap_err();
            let error = error.downcast::<Error>().unwrap();
            assert_eq!(error.kind(), ErrorKind::TooLong);
            assert!(read.len() as u64 <= most + 1, "{most}: {}", read.len());
        }
        let request = client.get(&server.url("")).max_body(11).send().unwrap();
        assert_eq!(request.into_body().bytes().unwrap().len(), 10);
        assert_eq!(client.pool().stats().in_use(), 0);
    }
}

#[test]
fn a_body_that_is_read_into_memory_has_a_limit_and_a_stream_has_none() {
    let _watchdog = watchdog();
    const LENGTH: usize = 11 * 1024 * 1024;
    let server = Server::script([Answer::ok(vec![b'x'; LENGTH])]);
    let client = client_of(1);
    let request = || client.get(&server.url("")).send().unwrap().into_body();
    assert_eq!(request().bytes().unwrap_err().kind(), ErrorKind::TooLong);
    let count = std::io::copy(&mut request(), &mut std::io::sink()).unwrap();
    assert_eq!(count, LENGTH as u64);
    let more = client.get(&server.url("")).max_body(LENGTH as u64).send().unwrap();
    assert_eq!(more.into_body().bytes().unwrap().len(), LENGTH);
}

#[test]
fn an_answer_of_400_and_above_is_an_error_only_where_that_is_asked_for() {
    let _watchdog = watchdog();
    let server = Server::answering(|request| {
        let status = &request.path()[1..];
        Answer::raw(format!("HTTP/1.1 {status} So\r\nContent-Length: 4\r\n\r\nsaid"))
    });
    let (plain, strict) = (client_of(1), limited(1).error_for_status(true).build().unwrap());
    for status in [200, 304, 399, 400, 404, 499, 500, 503, 599, 600] {
        let url = server.url(&status.to_string());
        let answered = plain.get(&url).send().unwrap();
        assert_eq!(answered.status().as_u16(), status);
        if status == 304 {
            continue; // four bytes too many
        }
        assert_eq!(answered.into_body().text().unwrap(), "said");
        let fails = (400..600).contains(&status);
        for result in [strict.get(&url).send(), plain.get(&url).error_for_status(true).send()] {
            let found = result.map(|response| response.status().as_u16());
            match found {
                Ok(found) => assert!(!fails && found == status),
                Err(error) => {
                    assert!(fails, "{status}: {error}");
                    assert_eq!(error.kind(), ErrorKind::Status);
                    assert_eq!(error.status().unwrap().as_u16(), status);
                    assert!(error.to_string().contains(&status.to_string()), "{error}");
                }
            }
        }
        strict.get(&url).error_for_status(false).send().unwrap();
    }
    assert_eq!((idle(&plain), idle(&strict)), (1, 1));
    let strict = limited(1).error_for_status(true).build().unwrap();
    let before = server.connections();
    (0..5).for_each(|_| drop(strict.get(&server.url("404")).send().unwrap_err()));
    assert_eq!(server.connections() - before, 1, "what an error says is read away");
}

#[cfg(unix)]
#[test]
fn a_server_on_a_unix_socket_is_asked_like_any_other() {
    let _watchdog = watchdog();
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (folder.path().join("one"), folder.path().join("two"));
    let answer = |name: &'static str| {
        move |request: &super::support::Request| {
            Answer::ok(format!("{name} {} {}", request.path(), request.fields("host").join(",")))
        }
    };
    let (server, other) = (Server::unix(&one, answer("one")), Server::unix(&two, answer("two")));
    let client = client_of(1);
    let ask = |path| {
        let request = client.get("http://api.example/x?y").unix_socket(path);
        request.send().unwrap().into_body().text().unwrap()
    };
    for _ in 0..3 {
        assert_eq!(ask(&one), "one /x?y api.example");
        assert_eq!(ask(&two), "two /x?y api.example");
    }
    assert_eq!((server.connections(), other.connections()), (1, 1));
    assert_eq!(idle(&client), 2);

    let post = client.post("http://localhost/").unix_socket(&one).body(vec![b'x'; 1_000_000]);
    assert_eq!(post.send().unwrap().status(), 200);
    assert_eq!(server.requests()[3].body.len(), 1_000_000);

    let nobody = client.get("http://localhost/").unix_socket(folder.path().join("three"));
    let error = nobody.send().unwrap_err();
    assert_eq!((error.kind(), error.stage()), (ErrorKind::Checkout, Some(Stage::Checkout)));
    for path in ["", &"x".repeat(200)] {
        let error = client.get("http://localhost/").unix_socket(path).send().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Request, "{path:?}: {error}");
    }
}

#[cfg(unix)]
#[test]
fn a_redirect_stays_on_the_unix_socket_that_it_came_from() {
    let _watchdog = watchdog();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let server = Server::unix(&path, |request| match request.path() {
        "/from" => Answer::raw("HTTP/1.1 302 Found\r\nLocation: /to\r\nContent-Length: 0\r\n\r\n"),
        _ => Answer::ok("there"),
    });
    let client = client_of(1);
    let request = client.get("http://localhost/from").unix_socket(&path);
    assert_eq!(request.send().unwrap().into_body().text().unwrap(), "there");
    assert_eq!(server.conns(), [0, 0]);
}

#[test]
fn the_steps_of_a_request_are_told_in_the_order_they_happen() {
    let _watchdog = watchdog();
    let server = Server::answering(|request| match request.path() {
        "/chunked" => Answer::chunked(&["hello", "world"]),
        "/empty" => Answer::status("204 No Content"),
        "/close" => Answer::with("Connection: close\r\n", "hello"),
        "/endless" => Answer::raw("HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\n\r\nhello"),
        "/hints" => Answer::raw("HTTP/1.1 103 Hints\r\n\r\n")
            .then("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"),
        _ => Answer::ok("hello"),
    });
    let client = client_of(1);
    let cold = ["queued", "resolved", "connected", "fresh", "wrote", "first byte"];
    let warm = ["queued", "reused", "wrote", "first byte"];
    let steps_of = |path| {
        let steps = Steps::default();
        let response = client.get(&server.url(path)).trace(steps.clone()).send().unwrap();
        let mut body = response.into_body();
        if path == "endless" {
            body.read_exact(&mut [0; 5]).unwrap();
            drop(body);
        } else {
            body.bytes().unwrap();
        }
        steps.words()
    };
    let closed = "closed: the answer was not read to its end";
    let refused = "closed: the server said Connection: close";
    for (path, begin, rest) in [
        ("", &cold[..], &["head 200", "end 5", "returned"][..]),
        ("", &warm, &["head 200", "end 5", "returned"]),
        ("chunked", &warm, &["head 200", "end 10", "returned"]),
        ("empty", &warm, &["head 204", "end 0", "returned"]),
        ("hints", &warm, &["interim 103", "head 200", "end 5", "returned"]),
        ("endless", &warm, &["head 200", closed]),
        ("close", &cold, &["head 200", "end 5", refused]),
        ("", &cold, &["head 200", "end 5", "returned"]),
    ] {
        assert_eq!(steps_of(path), [begin, rest].concat(), "{path}");
    }
}

#[test]
fn a_request_without_a_trace_of_its_own_is_told_to_the_clients() {
    let _watchdog = watchdog();
    let server = Server::answering(|_| Answer::ok("ok"));
    let (all, own) = (Steps::default(), Steps::default());
    let client = limited(1).trace(all.clone()).build().unwrap();
    get(&client, &server.url(""));
    let before = all.words().len();
    client.get(&server.url("")).trace(own.clone()).send().unwrap();
    assert_eq!((all.words().len(), own.words()[1].as_str()), (before, "reused"));
}

/// Everything that a log could have of it.
fn everything(error: &Error) -> String {
    let mut text = format!("{error} {error:?} {error:#?}");
    let mut next = error.source();
    while let Some(cause) = next {
        text += &format!(" {cause} {cause:?}");
        next = cause.source();
    }
    text
}

#[test]
fn no_error_tells_a_path_a_header_or_who_asked() {
    let _watchdog = watchdog();
    let refusing = Refusing::new();
    let server = Server::answering(|request| match request.path().split('?').next().unwrap() {
        "/hangup-s3cret" => Answer::default().close(),
        "/nonsense-s3cret" => Answer::raw("s3cret\r\n"),
        "/fields-s3cret" => Answer::raw("HTTP/1.1 200 OK\r\nX: s3cret\r\ns3cret\r\n\r\n"),
        "/length-s3cret" => Answer::raw("HTTP/1.1 200 OK\r\nContent-Length: s3cret\r\n\r\n"),
        "/coding-s3cret" => Answer::raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: s3cret\r\n\r\n"),
        "/chunk-s3cret" => {
            Answer::raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\ns3cret\r\n")
        }
        "/text-s3cret" => Answer::ok(b"s3cret\xff"),
        "/to-s3cret" => Answer::raw("HTTP/1.1 302 s3cret\r\nLocation: ftp://s3cret/\r\n\r\n"),
        "/round-s3cret" => Answer::raw(
            "HTTP/1.1 302 Found\r\nLocation: /round-s3cret\r\nContent-Length: 0\r\n\r\n",
        ),
        "/status-s3cret" => Answer::raw("HTTP/1.1 500 s3cret\r\nContent-Length: 0\r\n\r\n"),
        _ => Answer::ok("fine"),
    });
    let client = client_of(1);
    let errors = |url: &str| {
        let request = client.get(url).header("x", "s3cret").header("cookie", "s3cret");
        let request = request.basic_auth("s3cret", "s3cret").error_for_status(true);
        request.send().and_then(|response| response.into_body().text()).unwrap_err()
    };
    let names =
        ["hangup", "nonsense", "fields", "length", "coding", "chunk", "text", "to", "round"];
    let user = |url: String| url.replace("http://", "http://s3cret:s3cret@");
    for name in names.into_iter().chain(["status"]) {
        let error = errors(&user(server.url(&format!("{name}-s3cret?s3cret=s3cret"))));
        let text = everything(&error);
        assert!(!text.contains("s3cret"), "{name}: {text}");
    }
    for url in [
        format!("http://s3cret:s3cret@{}/s3cret?s3cret", refusing.name()),
        "https://s3cret:s3cret@127.0.0.1/s3cret".to_owned(),
        "ftp://s3cret:s3cret@127.0.0.1/s3cret".to_owned(),
        "http://s3cret:s3cret@127.0.0.1:0/s3cret".to_owned(),
        "http://s3cret:s3cret@127.0.0.1:99999/s3cret".to_owned(),
        "http://s3cret:s3cret@/s3cret".to_owned(),
        "http://s3cret:s3cret@[::1/s3cret".to_owned(),
        "/s3cret".to_owned(),
        "http://127.0.0.1/s3cret s3cret".to_owned(),
    ] {
        let text = everything(&errors(&url));
        assert!(!text.contains("s3cret"), "{url}: {text}");
    }
    let refused = [
        client.get("http://127.0.0.1/").header("s3cret\n", "s3cret").send().unwrap_err(),
        client.get("http://127.0.0.1/").header("x", "s3cret\n").send().unwrap_err(),
        client.get("http://127.0.0.1/").bearer_auth("s3cret\n").send().unwrap_err(),
        client.get("http://127.0.0.1/").basic_auth("s3cret:", "s3cret").send().unwrap_err(),
        client.get("http://127.0.0.1/").header("content-length", "s3cret").send().unwrap_err(),
        Client::builder().header("s3cret\n", "s3cret\n").build().unwrap_err(),
    ];
    for error in refused {
        assert!(!everything(&error).contains("s3cret"), "{}", everything(&error));
    }
}

#[test]
fn nothing_that_is_shown_tells_a_path_a_header_or_who_asked() {
    let _watchdog = watchdog();
    let server = Server::answering(|_| Answer::ok("s3cret"));
    let client = limited(1).header("x-key", "s3cret").build().unwrap();
    let url = server.url("s3cret?s3cret").replace("http://", "http://s3cret:s3cret@");
    let request = client.get(&url).bearer_auth("s3cret").body("s3cret");
    let shown = format!("{request:?}");
    assert!(!shown.contains("s3cret"), "{shown}");
    let response = request.send().unwrap();
    let shown = format!("{client:?} {:?} {}", response.body(), client.pool().report());
    assert!(!shown.contains("s3cret"), "{shown}");
    assert_eq!(response.into_body().text().unwrap(), "s3cret");
    let shown = format!("{:?} {:?}", Client::builder().header("x", "s3cret"), client.pool());
    assert!(!shown.contains("s3cret"), "{shown}");
    let plain = Request::get(server.url("")).body("s3cret").unwrap();
    let shown = format!("{:?}", warmline::http::Upload::from(*plain.body()));
    assert!(!shown.contains("s3cret"), "{shown}");
}
