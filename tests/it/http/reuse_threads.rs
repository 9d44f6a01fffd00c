//! Many threads and servers of every kind of manners: each request gets its own answer, or an
//! error, and no bytes of another.

use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering};

use warmline::http::types::Method;
use warmline::http::{Client, ErrorKind};

use super::support::{Answer, Server, get, idle, limited};
use crate::support::{assert_balanced, eventually, watchdog};

const THREADS: usize = 8;

#[test]
fn every_request_to_a_server_that_closes_after_each_answer_returns() {
    let _watchdog = watchdog();
    // It says nothing of it: the next request may be on its way already.
    let server = Server::answering(|request| Answer::ok(request.path()).close());
    let client = Client::new();
    std::thread::scope(|scope| {
        for thread in 0..20 {
            let (client, server) = (&client, &server);
            scope.spawn(move || {
                for number in 0..25 {
                    let path = format!("{thread}/{number}");
                    assert_eq!(get(client, &server.url(&path)), format!("/{path}"));
                }
            });
        }
    });
    eventually("the last ones end", || client.pool().stats().total() == 0);
    server.await_none_open();
}

#[test]
fn every_request_to_a_server_that_closes_with_every_second_returns() {
    let _watchdog = watchdog();
    let server = Server::answering(|request| match request.turn {
        0 => Answer::ok(request.path()),
        _ => Answer::default().close(),
    });
    let client = Client::new();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (client, server) = (&client, &server);
            scope.spawn(move || {
                for number in 0..50 {
                    let path = format!("{thread}/{number}");
                    assert_eq!(get(client, &server.url(&path)), format!("/{path}"));
                }
            });
        }
    });
    assert_balanced(&client.pool().stats());
}

/// What the server says to the request of this number: the number again and again, so that every
/// piece of it tells whose it is.
fn text_of(number: usize) -> String {
    let sizes = [1, 5, 100, 3000, 20_000, 70_000];
    let size = sizes.get(number % sizes.len()).copied();
    format!("<{number}>").repeat(size.unwrap_or_default())
}

fn framed(number: usize) -> Answer {
    let text = text_of(number);
    let name = format!("X-Number: {number}\r\n");
    match number % 11 {
        0..=2 => Answer::with(&name, text),
        3 | 4 => {
            let head = format!("HTTP/1.1 200 OK\r\n{name}Transfer-Encoding: chunked\r\n\r\n");
            let (one, two) = text.split_at(text.len() / 2);
            let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
            let end = format!("0\r\nX-Sum: {number}\r\n\r\n");
            // Two chunks of some length each: an empty one would be the last.
            Answer::raw(head).then(chunk(one)).then([chunk(two), end].concat())
        }
        5 => Answer::raw(format!("HTTP/1.1 200 OK\r\n{name}\r\n{text}")).close(),
        6 => Answer::with(&format!("{name}Connection: close\r\n"), text).close(),
        // What comes in one write, if it is short, comes as one.
        7 if text.len() < 10_000 => {
            let wrong = "HTTP/1.1 200 OK\r\nX-Number: wrong\r\nContent-Length: 5\r\n\r\nwrong";
            let length = text.len();
            let head = format!("HTTP/1.1 200 OK\r\n{name}Content-Length: {length}\r\n\r\n");
            Answer::raw([&head, &*text, wrong].concat()).silence()
        }
        8 => Answer::with(&name, text).close(),
        9 => {
            let whole = format!("HTTP/1.1 200 OK\r\n{name}Content-Length: {}\r\n\r\n", text.len());
            let (one, two) = text.split_at(text.len() / 2);
            Answer::raw(whole + one).then(two)
        }
        _ => Answer::raw(format!("HTTP/1.1 103 Soon\r\n\r\nHTTP/1.1 204 No\r\n{name}\r\n")),
    }
}

/// Sends the request of this number, and reads its answer: all, some, or none of it.
fn exchange(client: &Client, url: &str, number: usize) {
    let is_head = number % 11 < 5 && number % 7 == 6;
    let method = if is_head { Method::HEAD } else { Method::GET };
    let url = format!("{url}{number}");
    let mut response = client.request(method, &url).send().unwrap();
    assert_eq!(response.headers()["x-number"], number.to_string(), "somebody else's answer");
    let is_empty = is_head || response.status() == 204;
    let expected = if is_empty { String::new() } else { text_of(number) };
    match number % 5 {
        0 => {}
        1 => {
            let mut some = vec![0; expected.len() / 3];
            response.body_mut().read_exact(&mut some).unwrap();
            assert!(expected.as_bytes().starts_with(&some), "{number}: not its answer");
        }
        _ => assert!(response.into_body().text().unwrap() == expected, "{number}: not its answer"),
    }
}

#[test]
fn nobody_gets_a_byte_of_anothers_answer() {
    let _watchdog = watchdog();
    let server = Server::answering(|request| {
        let number = request.path()[1..].parse().unwrap();
        match request.method() {
            "HEAD" => Answer::raw(format!(
                "HTTP/1.1 200 OK\r\nX-Number: {number}\r\nContent-Length: {}\r\n\r\n",
                text_of(number).len()
            )),
            _ => framed(number),
        }
    });
    let client = limited(4).build().unwrap();
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= 4000 {
                        break;
                    }
                    exchange(&client, &server.url(""), number);
                }
            });
        }
    });
    let left = idle(&client);
    let stats = client.pool().stats();
    assert!(left <= 4 && stats.reused() > 1000, "{stats}");
}

#[test]
fn uploads_of_many_threads_come_back_whole() {
    let _watchdog = watchdog();
    let server = Server::answering(|request| {
        let answer = Answer::ok(&request.body);
        if request.turn == 20 { answer.close() } else { answer }
    });
    let client = limited(4).build().unwrap();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (client, server) = (&client, &server);
            scope.spawn(move || {
                for number in 0..100 {
                    let text = text_of(1000 * thread + number);
                    let post = client.post(&server.url(""));
                    let sent = match number % 3 {
                        0 => post.body(text.as_str()).replayable(true).send(),
                        1 => post.body(warmline::http::Upload::reader(text.as_bytes())).send(),
                        _ => post.body(text.as_str()).send(),
                    };
                    match sent {
                        Ok(response) => assert!(response.into_body().text().unwrap() == text),
                        // What cannot be repeated may have met a server that was leaving.
                        Err(error) => {
                            assert_eq!((error.kind(), number % 3 != 0), (ErrorKind::Stale, true))
                        }
                    }
                }
            });
        }
    });
    assert_balanced(&client.pool().stats());
}
