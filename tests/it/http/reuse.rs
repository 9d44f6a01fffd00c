//! A connection is used again once its answer is complete, and there is no doubt that it is.

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr};

use crossbeam_channel::unbounded;
use warmline::http::types::Method;
use warmline::http::{Client, Unfit};

use super::support::{Answer, Endings, Server, client_of, get, limited};
use crate::support::resolver::{Answer as Found, Script};
use crate::support::watchdog;

/// Sends two requests to a server that answers both like this: why the second did not come on the
/// connection of the first, if it did not.
#[track_caller]
fn fate(method: &Method, answer: Answer, body: &str) -> Option<Unfit> {
    let endings = Endings::default();
    let server = Server::script([answer]);
    let client = limited(1).trace(endings.clone()).build().unwrap();
    for _ in 0..2 {
        let response = client.request(method.clone(), &server.url("")).send().unwrap();
        assert_eq!(response.into_body().text().unwrap(), body);
    }
    match endings.reasons()[..] {
        [] => {
            assert_eq!(server.conns(), [0, 0]);
            None
        }
        [reason, again] => {
            assert_eq!((server.conns(), reason), (vec![0, 1], again));
            Some(reason)
        }
        ref other => panic!("{other:?}"),
    }
}

#[track_caller]
fn fate_of_get(answer: Answer) -> Option<Unfit> {
    fate(&Method::GET, answer, "hello")
}

/// A head with these lines, and "hello".
fn hello(status_line: &str, lines: &str) -> Answer {
    Answer::raw(format!("{status_line}\r\n{lines}\r\nhello"))
}

#[test]
fn an_answer_without_a_body_gives_its_connection_back_before_it_is_seen() {
    let _watchdog = watchdog();
    for (method, answer) in [
        (Method::GET, Answer::ok("")),
        (Method::GET, Answer::status("204 No Content")),
        (Method::GET, Answer::status("204 No Content\r\nContent-Length: 5")),
        (Method::GET, Answer::status("204 No Content\r\nTransfer-Encoding: chunked")),
        (Method::GET, Answer::status("304 Not Modified\r\nContent-Length: 5")),
        (Method::GET, Answer::status("304 Not Modified\r\nTransfer-Encoding: chunked")),
        (Method::HEAD, Answer::status("200 OK\r\nContent-Length: 5")),
        (Method::HEAD, Answer::status("200 OK\r\nTransfer-Encoding: chunked")),
        (Method::HEAD, Answer::status("200 OK")),
        (Method::PUT, Answer::ok("")),
    ] {
        let server = Server::script([answer.clone()]);
        let client = client_of(1);
        let held: Vec<_> = (0..3)
            .map(|_| {
                let response = client.request(method.clone(), &server.url("")).send().unwrap();
                assert_eq!(client.pool().stats().idle(), 1, "{method} {answer:?}");
                response
            })
            .collect();
        assert_eq!(server.conns(), [0; 3], "{method} {answer:?}");
        for response in held {
            assert_eq!(response.into_body().bytes().unwrap(), b"");
        }
    }
}

#[test]
fn a_hundred_empty_answers_in_a_row_need_one_connection() {
    let _watchdog = watchdog();
    let server = Server::script([Answer::ok("")]);
    let client = Client::new();
    (0..100).for_each(|_| drop(client.get(&server.url("")).send().unwrap()));
    assert_eq!(server.conns(), [0; 100]);
}

#[test]
fn the_read_that_delivers_the_last_byte_gives_the_connection_back() {
    let _watchdog = watchdog();
    for answer in [Answer::ok("hello"), Answer::chunked(&["hel", "lo"])] {
        let server = Server::script([answer]);
        let client = client_of(1);
        let mut held = Vec::new();
        for _ in 0..3 {
            let mut body = client.get(&server.url("")).send().unwrap().into_body();
            let mut bytes = [0; 5];
            body.read_exact(&mut bytes[..4]).unwrap();
            assert_eq!(client.pool().stats().in_use(), 1);
            body.read_exact(&mut bytes[4..]).unwrap();
            assert_eq!((&bytes, client.pool().stats().idle()), (b"hello", 1));
            held.push(body);
        }
        assert_eq!(server.conns(), [0; 3]);
        // Those who read on see the end, and disturb nobody.
        held.iter_mut().for_each(|body| assert_eq!(body.read(&mut [0; 8]).unwrap(), 0));
        assert_eq!(client.pool().stats().idle(), 1);
    }
}

#[test]
fn the_read_that_reports_the_end_gives_the_connection_back_where_the_last_chunk_comes_late() {
    let _watchdog = watchdog();
    let (tell, told) = unbounded();
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
    let server = Server::script([Answer::raw(head).wait(&told).then("0\r\n\r\n")]);
    let client = client_of(1);
    for _ in 0..2 {
        let mut body = client.get(&server.url("")).send().unwrap().into_body();
        let mut bytes = [0; 64];
        assert_eq!(body.read(&mut bytes).unwrap(), 5);
        assert_eq!(client.pool().stats().in_use(), 1, "who knows what follows");
        tell.send(()).unwrap();
        assert_eq!(body.read(&mut bytes).unwrap(), 0);
        assert_eq!(client.pool().stats().idle(), 1);
    }
    assert_eq!(server.conns(), [0, 0]);
}

#[test]
fn trailers_and_extensions_of_chunks_are_read_and_the_connection_is_used_again() {
    let _watchdog = watchdog();
    let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\nTrailer: X-Sum\r\n\r\n\
        3;name=value;flag\r\nhel\r\n002\r\nlo\r\n000;last\r\nX-Sum: 7\r\nX-Other: 8\r\n\r\n";
    let server = Server::script([Answer::raw(answer)]);
    let client = client_of(1);
    for _ in 0..3 {
        let mut body = client.get(&server.url("")).send().unwrap().into_body();
        let mut text = String::new();
        body.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
        let trailers = body.trailers().unwrap();
        assert_eq!(
            (&trailers["x-sum"], &trailers["x-other"]),
            (&"7".parse().unwrap(), &"8".parse().unwrap())
        );
    }
    assert_eq!(server.conns(), [0; 3]);
}

#[test]
fn a_server_that_says_close_anywhere_in_connection_is_believed() {
    let _watchdog = watchdog();
    for value in ["close", "Close", "keep-alive, CLOSE", "x,close ,y", "x\r\nConnection: close"] {
        let lines = format!("Connection: {value}\r\n");
        let with_body = fate_of_get(Answer::with(&lines, "hello"));
        assert_eq!(with_body, Some(Unfit::ServerCloses), "{value}");
        let empty = format!("204 No Content\r\nConnection: {value}");
        let without_body = fate(&Method::GET, Answer::status(&empty), "");
        assert_eq!(without_body, Some(Unfit::ServerCloses), "{value}, without a body");
    }
    for line in
        ["Proxy-Connection: close", "Connection: closed", "Connection: not-close", "X: close"]
    {
        let lines = format!("{line}\r\n");
        assert_eq!(fate_of_get(Answer::with(&lines, "hello")), None, "{line}");
    }
}

#[test]
fn a_server_of_http_1_0_must_offer_to_go_on() {
    let _watchdog = watchdog();
    let old = |lines: &str| hello("HTTP/1.0 200 OK", &format!("{lines}Content-Length: 5\r\n"));
    assert_eq!(fate_of_get(old("")), Some(Unfit::Http10));
    assert_eq!(fate_of_get(old("Connection: keep-alive\r\n")), None);
    assert_eq!(fate_of_get(old("Connection: x, Keep-Alive\r\n")), None);
    assert_eq!(fate_of_get(old("Connection: keep-alive, close\r\n")), Some(Unfit::ServerCloses));
    assert_eq!(fate_of_get(old("Keep-Alive: timeout=5\r\n")), Some(Unfit::Http10));
}

#[test]
fn an_answer_that_ends_with_its_connection_is_read_to_there() {
    let _watchdog = watchdog();
    let endless = |version| hello(&format!("HTTP/{version} 200 OK"), "").close();
    assert_eq!(fate_of_get(endless("1.1")), Some(Unfit::UntilClose));
    assert_eq!(fate_of_get(endless("1.0")), Some(Unfit::Http10));
    let long = "x".repeat(1024 * 1024);
    for lines in ["", "Connection: close\r\n"] {
        let head = format!("HTTP/1.1 200 OK\r\n{lines}\r\n");
        let answer = Answer::raw(head).then(&long).half_close();
        assert!(fate(&Method::GET, answer, &long).is_some());
    }
    let known = Answer::with("Connection: close\r\n", &long).close();
    assert_eq!(fate(&Method::GET, known, &long), Some(Unfit::ServerCloses));
}

#[test]
fn a_length_beside_a_transfer_coding_is_passed_over_and_the_connection_closed() {
    let _watchdog = watchdog();
    let coding = "Transfer-Encoding: chunked\r\n";
    for lines in
        [format!("Content-Length: 3\r\n{coding}"), format!("{coding}Content-Length: 5\r\n")]
    {
        let head = format!("HTTP/1.1 200 OK\r\n{lines}\r\n");
        let answer = Answer::raw(format!("{head}5\r\nhello\r\n0\r\n\r\n"));
        assert_eq!(fate_of_get(answer), Some(Unfit::TwoLengths), "{lines}");
    }
}

#[test]
fn a_length_that_is_said_twice_is_one_length() {
    let _watchdog = watchdog();
    let twice = "Content-Length: 5\r\nContent-Length: 5\r\n";
    assert_eq!(fate_of_get(hello("HTTP/1.1 200 OK", twice)), None);
}

#[test]
fn small_liberties_in_heads_are_tolerated() {
    let _watchdog = watchdog();
    for answer in [
        "HTTP/1.1 200\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 \r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\nContent-Length: 5\n\nhello",
        "HTTP/1.1 200 Schön\r\nContent-Length: \t5 \r\n\r\nhello",
        "HTTP/1.1 299 Unheard Of\r\nContent-Length:5\r\nX:\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: 005\r\n\r\nhello",
    ] {
        assert_eq!(fate_of_get(Answer::raw(answer)), None, "{answer}");
    }
}

#[test]
fn more_than_the_answer_ends_the_connection_and_not_the_request() {
    let _watchdog = watchdog();
    let more = |answer: &str, behind: &str| Answer::raw(format!("{answer}{behind}"));
    let length = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    for behind in ["!", "\r\n", "0", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong"] {
        assert_eq!(fate_of_get(more(length, behind)), Some(Unfit::StrayBytes), "{behind}");
        assert_eq!(fate_of_get(more(chunked, behind)), Some(Unfit::StrayBytes), "{behind}");
        let empty = more("HTTP/1.1 204 No Content\r\n\r\n", behind);
        assert_eq!(fate(&Method::GET, empty, ""), Some(Unfit::StrayBytes), "{behind}");
        let head = more("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", behind);
        assert_eq!(fate(&Method::HEAD, head, ""), Some(Unfit::StrayBytes), "{behind}");
    }
}

#[test]
fn more_than_a_long_answer_ends_the_connection_too() {
    let _watchdog = watchdog();
    let wrong = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong";
    for size in [5, 1000, 20_000, 60_000] {
        let text = "x".repeat(size);
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n");
        let (tell, told) = unbounded();
        // The body comes when the head was read, and with it what is too much.
        let answer = Answer::raw(head).wait(&told).then([&*text, wrong].concat());
        let server = Server::script([answer, Answer::ok("right")]);
        let client = client_of(1);
        let response = client.get(&server.url("")).send().unwrap();
        tell.send(()).unwrap();
        assert_eq!(response.into_body().text().unwrap(), text);
        assert_eq!((get(&client, &server.url("")), server.conns()), ("right".into(), vec![0, 1]));
    }
}

fn here(server: &Server) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, server.port()).into()
}

#[test]
fn names_that_mean_one_server_share_its_connections() {
    let _watchdog = watchdog();
    let server = Server::script([Answer::ok("hello")]);
    let script = Script::of("shop.test", [Found::at(here(&server))]);
    let resolver = script.resolver();
    let builder = Client::builder().pool(move |pool| pool.resolver(&resolver));
    let client = builder.build().unwrap();
    for url in [
        "http://shop.test/",
        "http://shop.test",
        "HTTP://SHOP.test/",
        "http://Shop.Test./",
        "http://shop.test:80/",
        "http://shop.test.:80/path?query",
        "http://user:secret@shop.test/",
        "http://other@shop.test:80/",
    ] {
        assert_eq!(get(&client, url), "hello", "{url}");
    }
    assert_eq!(server.conns(), [0; 8]);
    assert_eq!(script.asked(), ["shop.test"]);
}

#[test]
fn names_that_mean_two_servers_share_nothing() {
    let _watchdog = watchdog();
    let server = Server::script([Answer::ok("hello")]);
    let script = Script::always(Found::at(here(&server)));
    let resolver = script.resolver();
    let builder = Client::builder().pool(move |pool| pool.resolver(&resolver));
    let client = builder.build().unwrap();
    for url in ["http://a.test/", "http://b.test/", "http://a.test:81/", "http://www.a.test/"] {
        assert_eq!(get(&client, url), "hello", "{url}");
    }
    assert_eq!(server.conns(), [0, 1, 2, 3]);
}

#[test]
fn requests_by_way_of_one_server_share_its_connections_whatever_they_name() {
    let _watchdog = watchdog();
    let server = Server::answering(|request| Answer::ok(request.fields("host").concat()));
    let client = client_of(1);
    for host in ["a.test", "b.test", "a.test:81"] {
        let request = client.get(&format!("http://{host}/")).via(server.url("").parse().unwrap());
        assert_eq!(request.send().unwrap().into_body().text().unwrap(), host);
    }
    assert_eq!(get(&client, &server.url("")), server.name());
    assert_eq!(server.conns(), [0; 4]);
}

#[test]
fn requests_over_a_unix_socket_share_its_connection() {
    let _watchdog = watchdog();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let server = Server::unix(&path, |request| match request.path() {
        "/close" => Answer::with("Connection: close\r\n", "bye"),
        path => Answer::ok(path),
    });
    let client = client_of(1);
    let get = |file: &str| {
        let request = client.get(&format!("http://localhost{file}")).unix_socket(&path);
        request.send().unwrap().into_body().text().unwrap()
    };
    assert_eq!([get("/a"), get("/b"), get("/close"), get("/c")], ["/a", "/b", "bye", "/c"]);
    assert_eq!(server.conns(), [0, 0, 0, 1]);
}
