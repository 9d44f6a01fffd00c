//! Where a server sends a request, it goes: as what it may be there, with what it may take along.

use std::time::Duration;

use warmline::http::types::{Method, StatusCode};
use warmline::http::{ErrorKind, Upload};

use super::steps::Steps;
use super::support::{Answer, Request, Server, client_of, get, idle, limited};
use crate::support::watchdog;

/// Sends what comes to "/from/…" on to `location`, and tells what else comes.
fn sends_to(status: u16, location: &str) -> Server {
    let answer = to(status, location, "moved");
    Server::answering(move |request| match request.path().starts_with("/from") {
        true => answer.clone(),
        false => Answer::ok(format!("{} {}", request.method(), request.path())),
    })
}

fn to(status: u16, location: &str, body: &str) -> Answer {
    let length = body.len();
    let fields = format!("Location: {location}\r\nContent-Length: {length}");
    Answer::raw(format!("HTTP/1.1 {status} Elsewhere\r\n{fields}\r\n\r\n{body}"))
}

fn last(server: &Server) -> Request {
    server.requests().pop().unwrap()
}

#[test]
fn a_request_goes_on_as_what_servers_expect_over_one_connection() {
    let _watchdog = watchdog();
    for (status, method, becomes, keeps_body) in [
        (301, "GET", "GET", true),
        (301, "POST", "GET", false),
        (301, "PUT", "PUT", true),
        (302, "POST", "GET", false),
        (302, "DELETE", "DELETE", true),
        (303, "POST", "GET", false),
        (303, "PUT", "GET", false),
        (303, "HEAD", "HEAD", false),
        (307, "POST", "POST", true),
        (308, "PATCH", "PATCH", true),
    ] {
        let server = sends_to(status, "/to");
        let client = client_of(1);
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let mut request = client.request(method.clone(), &server.url("from"));
        if method != Method::HEAD {
            request = request.header("content-type", "text/plain").body("hello");
        }
        assert_eq!(request.send().unwrap().status(), 200);
        let gone = last(&server);
        let name = format!("{status} {method}");
        assert_eq!((gone.method(), gone.path()), (becomes, "/to"), "{name}");
        assert_eq!(gone.body, if keeps_body { &b"hello"[..] } else { b"" }, "{name}");
        assert_eq!(!gone.fields("content-type").is_empty(), keeps_body, "{name}");
        if method != Method::HEAD {
            assert_eq!(server.conns(), [0, 0], "{name}");
        }
    }
}

#[test]
fn statuses_that_send_nobody_elsewhere_are_answers() {
    let _watchdog = watchdog();
    for status in [300, 304, 305, 306, 399, 201] {
        let server = sends_to(status, "/to");
        let response = client_of(1).get(&server.url("from")).send().unwrap();
        assert_eq!((response.status().as_u16(), server.requests().len()), (status, 1));
    }
    let server = Server::script([Answer::raw("HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n")]);
    assert_eq!(client_of(1).get(&server.url("")).send().unwrap().status(), 302, "to nowhere");
}

#[test]
fn a_location_is_seen_from_where_it_was_found() {
    let _watchdog = watchdog();
    for (location, path) in [
        ("/to", "/to"),
        ("to", "/from/to"),
        ("../to?x=y", "/to?x=y"),
        ("/to#part", "/to"),
        ("/a/../to", "/to"),
    ] {
        let server = sends_to(302, location);
        let expected = if path.starts_with("/from") { None } else { Some(format!("GET {path}")) };
        match expected {
            Some(text) => assert_eq!(get(&client_of(1), &server.url("from/here")), text),
            None => {
                let client = limited(1).max_redirects(1).build().unwrap();
                client.get(&server.url("from/here")).send().unwrap_err();
                assert_eq!(last(&server).path(), path);
            }
        }
    }
    let there = sends_to(302, "");
    for location in [there.url("there"), format!("//{}/there", there.name())] {
        let here = sends_to(302, &location);
        assert_eq!(get(&client_of(1), &here.url("from")), "GET /there");
    }
}

#[test]
fn credentials_go_to_the_same_server_and_to_no_other() {
    let _watchdog = watchdog();
    for (user, token) in [("", Some("token")), ("me:secret@", None)] {
        let there = sends_to(302, "");
        for stays in [true, false] {
            let location = if stays { "/to".to_owned() } else { there.url("to") };
            let here = sends_to(307, &location);
            let url = here.url("from").replace("http://", &format!("http://{user}"));
            let client = client_of(2);
            let mut request = client.post(&url).header("cookie", "id=7").header("x-mine", "yes");
            if let Some(token) = token {
                request = request.bearer_auth(token);
            }
            request.body("hello").send().unwrap();
            let gone = if stays { last(&here) } else { last(&there) };
            assert_eq!(gone.path(), "/to");
            let count = usize::from(stays);
            assert_eq!(gone.fields("authorization").len(), count, "{}", gone.head);
            assert_eq!(gone.fields("cookie").len(), count, "{}", gone.head);
            assert_eq!((gone.fields("x-mine"), gone.fields("host").len()), (vec!["yes"], 1));
            let host = if stays { here.name() } else { there.name() };
            assert_eq!(gone.fields("host"), [host]);
        }
    }
}

#[test]
fn a_host_that_the_caller_has_named_is_not_told_to_another() {
    let _watchdog = watchdog();
    let there = sends_to(302, "");
    let here = sends_to(302, &there.url("to"));
    client_of(1).get(&here.url("from")).header("host", "virtual.example").send().unwrap();
    assert_eq!(last(&here).fields("host"), ["virtual.example"]);
    assert_eq!(last(&there).fields("host"), [there.name()]);
}

#[test]
fn a_request_that_is_sent_in_circles_ends() {
    let _watchdog = watchdog();
    let server = sends_to(302, "/from/again");
    for (most, client) in [
        (10, client_of(1)),
        (3, limited(1).max_redirects(3).build().unwrap()),
        (1, limited(1).max_redirects(1).build().unwrap()),
    ] {
        let before = server.requests().len();
        let error = client.get(&server.url("from")).send().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Redirect, "{error}");
        assert!(error.to_string().contains(&format!("{most} times")), "{error}");
        assert_eq!(server.requests().len() - before, most + 1);
        assert_eq!(client.pool().stats().in_use(), 0);
    }
    assert_eq!(server.connections(), 3);
}

#[test]
fn as_many_redirects_as_allowed_are_followed_and_none_if_none_is() {
    let _watchdog = watchdog();
    let server = Server::answering(|request| match request.path() {
        "/3" => to(302, "/2", ""),
        "/2" => to(302, "/1", ""),
        "/1" => to(302, "/0", ""),
        _ => Answer::ok("there"),
    });
    let client = limited(1).max_redirects(3).build().unwrap();
    assert_eq!(get(&client, &server.url("3")), "there");
    let status = |most| {
        let response = client.get(&server.url("3")).max_redirects(most).send();
        response.map(|response| response.status())
    };
    assert_eq!(status(0).unwrap(), StatusCode::FOUND);
    assert_eq!(status(2).unwrap_err().kind(), ErrorKind::Redirect);
    assert_eq!(server.connections(), 1);
}

#[test]
fn a_location_that_is_no_place_is_an_error_that_says_who_was_wrong() {
    let _watchdog = watchdog();
    for location in [
        "http://",
        "http:///path",
        "http://127.0.0.1:99999/",
        "http://a b/",
        "ftp://127.0.0.1/",
        "https://127.0.0.1/",
        "javascript:alert(1)",
        "mailto:somebody@example.com",
    ] {
        let server = sends_to(302, location);
        let client = client_of(1);
        let error = client.get(&server.url("from")).send().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Redirect, "{location}: {error:?}");
        assert_eq!(client.pool().stats().in_use(), 0);
        assert_eq!(get(&client, &server.url("")), "GET /");
    }
}

#[test]
fn a_body_that_is_read_away_cannot_follow() {
    let _watchdog = watchdog();
    let body = || Upload::reader(&b"hello"[..]);
    let server = sends_to(307, "/to");
    let client = client_of(1);
    let response = client.post(&server.url("from")).body(body()).send().unwrap();
    assert_eq!((response.status().as_u16(), server.requests().len()), (307, 1));
    assert_eq!(response.into_body().text().unwrap(), "moved");
    // What becomes a GET needs none.
    let server = sends_to(303, "/to");
    let response = client.post(&server.url("from")).body(body()).send().unwrap();
    assert_eq!(response.into_body().text().unwrap(), "GET /to");
    assert_eq!(last(&server).fields("transfer-encoding"), [""; 0]);
}

#[test]
fn what_comes_with_a_redirect_is_read_if_it_is_little_and_soon() {
    let _watchdog = watchdog();
    let (short, long) = ("x".repeat(60_000), "x".repeat(1_000_000));
    let stalls = Answer::raw("HTTP/1.1 302 Found\r\nLocation: /to\r\nContent-Length: 9\r\n\r\n");
    for (answer, conns) in [
        (to(302, "/to", &short), vec![0, 0]),
        (to(302, "/to", &long), vec![0, 1]),
        (stalls.silence(), vec![0, 1]),
        (Answer::raw("HTTP/1.1 302 Found\r\nLocation: /to\r\n\r\nx").close(), vec![0, 1]),
        (Answer::raw("HTTP/1.1 302 Found\r\nLocation: /to\r\n\r\nx").silence(), vec![0, 1]),
    ] {
        let server = Server::answering(move |request| match request.path() {
            "/from" => answer.clone(),
            _ => Answer::ok("there"),
        });
        // There is room for one connection: the first must have ended, or come back.
        let client = client_of(1);
        assert_eq!(get(&client, &server.url("from")), "there");
        assert_eq!((server.conns(), idle(&client)), (conns, 1));
    }
}

#[test]
fn the_steps_of_a_redirect_are_told_in_their_order() {
    let _watchdog = watchdog();
    let server = sends_to(302, "/to");
    let client = client_of(1);
    let steps = Steps::default();
    let request = client.get(&server.url("from")).trace(steps.clone());
    let request = request.timeout(Duration::from_secs(60));
    assert_eq!(request.send().unwrap().into_body().text().unwrap(), "GET /to");
    let one = ["wrote", "first byte", "head 302", "end 5", "returned", "redirected 302"];
    let two = ["queued", "reused", "wrote", "first byte", "head 200", "end 7", "returned"];
    let cold = ["queued", "resolved", "connected", "fresh"];
    assert_eq!(steps.words(), [&cold[..], &one, &two].concat());
}
