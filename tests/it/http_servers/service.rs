//! The service of the examples: what others are tried against must itself be right.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use warmline::crossbeam_channel::bounded;
use warmline::http::Event;

use super::example::Service;
use super::{client, text_of};
use crate::support::{SOON, eventually, watchdog};

/// All that the service says to these bytes, until it hangs up.
fn answer_to(service: &Service, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(service.address()).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.write_all(request).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn the_example_answers_what_comes_at_once_in_order_and_ends_at_garbage() {
    let _watchdog = watchdog();
    let service = Service::start("127.0.0.1:0").unwrap();
    let answer = answer_to(
        &service,
        b"GET /bytes/3 HTTP/1.1\r\nHost: a\r\n\r\nPOST /echo HTTP/1.1\r\nHost: a\r\n\
          Transfer-Encoding: chunked\r\n\r\n2;x=y\r\nhe\r\n3\r\nllo\r\n0\r\nA: b\r\n\r\n\
          HEAD / HTTP/1.1\r\nHost: a\r\n\r\ngarbage\r\n\r\n",
    );
    let statuses = answer.matches("HTTP/1.1 200 OK\r\n").count();
    assert_eq!(statuses, 3, "{answer}");
    let (bytes, echo) = (answer.find("\r\n\r\nxxxHTTP").unwrap(), answer.find("hello").unwrap());
    assert!(bytes < echo && answer.ends_with("400 Bad Request\n"), "{answer}");
}

#[test]
fn the_example_refuses_what_could_be_read_in_two_ways() {
    let _watchdog = watchdog();
    let service = Service::start("127.0.0.1:0").unwrap();
    for head in [
        "Content-Length: 3\r\nTransfer-Encoding: chunked",
        "Content-Length: 3\r\nContent-Length: 3",
        "Content-Length: +3",
        "Content-Length : 3",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "A: b\r\n folded: 3",
        "Host: b",
        "A: b\nContent-Length: 3",
    ] {
        let request = format!("POST /echo HTTP/1.1\r\nHost: a\r\n{head}\r\n\r\nabc");
        let answer = answer_to(&service, request.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 400 "), "{head}: {answer}");
        assert!(answer.contains("Connection: close"), "{head}: {answer}");
    }
    let request = "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\nabc";
    assert!(answer_to(&service, request.as_bytes()).starts_with("HTTP/1.1 501 "));
}

#[test]
fn the_example_refuses_what_is_too_long_and_what_is_not_there() {
    let _watchdog = watchdog();
    let service = Service::start("127.0.0.1:0").unwrap();
    let client = client();
    let url = |path: &str| format!("http://{}{path}", service.address());
    assert_eq!(text_of(client.get(&url("/missing")).send()).0, 404);
    let answer = client.get(&url("/echo")).send().unwrap();
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["allow"]),
        (405, &"POST, PUT".parse().unwrap())
    );
    drop(answer);
    assert_eq!(text_of(client.get(&url("/slow?ms=x")).send()).0, 400);
    let long = "x".repeat(17 * 1024);
    assert_eq!(text_of(client.get(&url("/")).header("a", long).send()).0, 431);
    let long = vec![0; 17 * 1024 * 1024];
    assert_eq!(text_of(client.post(&url("/echo")).body(&long[..]).send()).0, 413);
}

#[test]
fn the_example_answers_what_has_begun_before_it_ends_and_closes_what_is_idle() {
    let _watchdog = watchdog();
    let service = Service::start("127.0.0.1:0").unwrap();
    let client = client();
    let url = |path: &str| format!("http://{}{path}", service.address());
    let (slow, idle) = (url("/slow?ms=300"), url("/"));
    std::thread::scope(|scope| {
        let (written, is_written) = bounded(1);
        let tell = move |event: &Event| {
            if let Event::Wrote { .. } = event {
                written.send(()).unwrap();
            }
        };
        let slow = scope.spawn(|| client.get(&slow).trace(tell).send().unwrap());
        is_written.recv_timeout(SOON).unwrap();
        text_of(client.get(&idle).send());
        assert_eq!(client.pool().stats().idle(), 1);
        eventually("both are open", || service.accepted() == 2);
        drop(service);
        let answer = slow.join().unwrap();
        assert_eq!(answer.headers()["connection"], "close");
        assert_eq!(answer.into_body().text().unwrap(), "That took 300 ms.\n");
    });
    eventually("the idle one is gone", || client.pool().stats().total() == 0);
}
