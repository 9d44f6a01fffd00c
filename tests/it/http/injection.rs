//! Requests whose parts would end a line: they are refused, and no byte of them leaves.

use warmline::http::types::{HeaderValue, Method, Request};
use warmline::http::{Client, ErrorKind, RequestBuilder};

use super::support::{Answer, Server, client_of, get};
use crate::support::watchdog;

const ENDS: [&str; 4] = ["\r\nX-Injected: yes", "\n", "\r", "\0"];

fn echo() -> Server {
    Server::answering(|request| Answer::ok(&request.head))
}

/// Such a request is refused, and the server hears nothing of it.
#[track_caller]
fn assert_refused(make: impl Fn(&Client, &str) -> Result<(), ErrorKind>, what: &str) {
    let (server, client) = (echo(), client_of(1));
    assert_eq!(make(&client, &server.url("")), Err(ErrorKind::Request), "{what:?}");
    assert_eq!(server.connections(), 0, "{what:?}");
    assert_eq!(client.pool().stats().total(), 0, "{what:?}");
}

fn send(request: RequestBuilder<'_, '_>) -> Result<(), ErrorKind> {
    request.send().map(drop).map_err(|error| error.kind())
}

#[test]
fn a_header_that_would_end_its_line_is_refused() {
    let _watchdog = watchdog();
    for end in ENDS {
        let text = format!("a{end}b");
        assert_refused(|client, url| send(client.get(url).header("x", &*text)), end);
        assert_refused(|client, url| send(client.get(url).header(&*text, "x")), end);
        assert_refused(|client, url| send(client.get(url).header("host", &*text)), end);
        assert_refused(|client, url| send(client.get(url).bearer_auth(&text)), end);
        let build = |name: &str, value: &str| Client::builder().header(name, value).build();
        assert_eq!(build("x", &text).unwrap_err().kind(), ErrorKind::Request);
        assert_eq!(build(&text, "x").unwrap_err().kind(), ErrorKind::Request);
    }
    for name in ["", " ", "a b", "a:b", "é"] {
        assert_refused(|client, url| send(client.get(url).header(name, "x")), name);
    }
}

#[test]
fn a_url_or_method_that_would_end_its_line_is_refused() {
    let _watchdog = watchdog();
    for end in ENDS.into_iter().chain([" ", " HTTP/1.1\r\n\r\n"]) {
        for place in ["a{}b", "?a{}b", "a?b{}", "{}"] {
            let path = place.replace("{}", end);
            assert_refused(|client, url| send(client.get(&format!("{url}{path}"))), &path);
        }
        let host = format!("http://127.0.0.1{end}/");
        assert_refused(|client, _| send(client.get(&host)), &host);
        let user = format!("http://me{end}:secret@127.0.0.1:1/");
        assert_refused(|client, _| send(client.get(&user)), &user);
        assert!(Method::from_bytes(format!("GET{end}").as_bytes()).is_err());
    }
    for url in ["", "/", "no url", "127.0.0.1", "ftp://127.0.0.1/", "http:///", "http://:80/"] {
        assert_refused(|client, _| send(client.get(url)), url);
    }
}

#[test]
fn what_is_allowed_in_a_request_stays_in_its_line() {
    let _watchdog = watchdog();
    let (server, client) = (echo(), client_of(1));
    let url = server.url("a%0D%0AX-Injected:%20yes?b%0d%0a#part%0d%0a");
    let value = HeaderValue::from_bytes(b"caf\xe9\ttab").unwrap();
    let echoed = client.get(&url).header("x", value).send().unwrap().into_body().bytes().unwrap();
    let echoed = String::from_utf8_lossy(&echoed).into_owned();
    assert!(echoed.starts_with("GET /a%0D%0AX-Injected:%20yes?b%0d%0a HTTP/1.1\r\n"), "{echoed}");
    assert!(!echoed.to_ascii_lowercase().contains("\r\nx-injected"), "{echoed}");

    // Credentials in a URL, and such as would end a line if they were written as they are.
    let with_user = server.url("").replace("http://", "http://me%0d%0aX-Injected:se%0acret@");
    let echoed = get(&client, &with_user);
    assert!(!echoed.to_ascii_lowercase().contains("x-injected"), "{echoed}");
    let request = client.get(&server.url("")).basic_auth("me\r\nx-injected", "\r\nx-injected");
    let echoed = request.send().unwrap().into_body().text().unwrap();
    assert!(!echoed.to_ascii_lowercase().contains("x-injected"), "{echoed}");
}

#[test]
fn a_request_that_frames_itself_otherwise_than_its_body_is_refused() {
    let _watchdog = watchdog();
    for (name, value) in [
        ("content-length", "3"),
        ("content-length", "5, 5"),
        ("content-length", "+5"),
        ("transfer-encoding", "chunked"),
        ("transfer-encoding", "gzip, chunked"),
    ] {
        let case = format!("{name}: {value}");
        assert_refused(
            |client, url| send(client.post(url).header(name, value).body("hello")),
            &case,
        );
    }
    let plain = |client: &Client, url: &str| {
        let request = Request::get(url).header("content-length", "5").body(()).unwrap();
        client.send(request).map(drop).map_err(|error| error.kind())
    };
    assert_refused(plain, "a length of nothing");
}
