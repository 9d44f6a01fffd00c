//! Where nobody can be sure what belongs to whom: bytes behind an answer, farewells, half uploads.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use warmline::http::types::{Method, Uri};
use warmline::http::{Client, ErrorKind, Event, Trace, Upload};

use super::arrivals::await_bytes;
use super::support::{Answer, Server, client_of, get, idle, limited};
use crate::support::{eventually, watchdog};

/// An answer nobody asked for.
const STRAY: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstray";

#[test]
fn what_comes_behind_an_answer_is_nobodys_however_long_the_answer_was() {
    let _watchdog = watchdog();
    // Those between fill the memory that heads are read to, and that of the caller.
    let lens = [5, 16 * 1024 - 60, 16 * 1024, 40_000, 65_536, 300_000].into_iter();
    for len in lens.chain(16_300..16_390) {
        let server = Server::answering(move |request| {
            let body = if request.path() == "/long" { vec![b'x'; len] } else { b"own".to_vec() };
            let stray = if request.path() == "/long" { STRAY } else { "" };
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            Answer::raw([head.as_bytes(), &body, stray.as_bytes()].concat())
        });
        let client = client_of(1);
        let mut body = client.get(&server.url("long")).send().unwrap().into_body();
        let mut room = [0; 8192];
        while body.read(&mut room).unwrap() > 0 {}
        assert_eq!(get(&client, &server.url("next")), "own", "after {len} bytes");
    }
}

#[test]
fn what_comes_while_a_connection_rests_is_nobodys() {
    let _watchdog = watchdog();
    let (tell, told) = crossbeam_channel::unbounded();
    let server = Server::answering(move |request| match request.path() {
        "/first" => Answer::ok("first").wait(&told).then(STRAY),
        _ => Answer::ok("own"),
    });
    for _ in 0..10 {
        let client = client_of(1);
        assert_eq!(get(&client, &server.url("first")), "first");
        tell.send(()).unwrap();
        await_bytes(&server);
        assert_eq!(get(&client, &server.url("next")), "own");
    }
}

#[test]
fn what_comes_while_a_body_waits_to_be_read_is_nobodys() {
    let _watchdog = watchdog();
    for is_read in [true, false] {
        let (tell, told) = crossbeam_channel::unbounded();
        let server = Server::answering(move |request| match request.path() {
            "/first" => Answer::ok("first").wait(&told).then(STRAY),
            _ => Answer::ok("own"),
        });
        let client = client_of(1);
        let body = client.get(&server.url("first")).send().unwrap().into_body();
        tell.send(()).unwrap();
        await_bytes(&server);
        if is_read {
            assert_eq!(body.text().unwrap(), "first");
        } else {
            drop(body);
        }
        assert_eq!(get(&client, &server.url("next")), "own");
    }
}

#[test]
fn an_agreement_in_parts_is_no_reason_to_send_half() {
    let _watchdog = watchdog();
    const LEN: usize = 16 * 1024 * 1024;
    let server = Server::by_hand(|line| {
        line.head()?;
        line.play(&Answer::raw("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"))?;
        line.take(100_000)?;
        line.play(&Answer::raw("o"))?;
        line.take(LEN - 100_000)?;
        line.play(&Answer::raw("k"))
    });
    let client = client_of(1);
    let response = client.post(&server.url("")).body(vec![b'x'; LEN]).send().unwrap();
    assert_eq!(response.into_body().text().unwrap(), "ok");
}

#[test]
fn a_refusal_that_comes_together_with_the_word_to_go_on_is_delivered() {
    let _watchdog = watchdog();
    let both = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 413 No\r\nContent-Length: 0\r\n\r\n";
    let server = Server::by_hand(move |line| {
        line.head()?;
        line.play(&Answer::raw(both).half_close())
    });
    let client = client_of(1);
    let request = client.post(&server.url("")).expect_continue();
    let response = request.body(vec![b'x'; 16 * 1024 * 1024]).send().unwrap();
    assert_eq!(response.status(), 413);
}

#[test]
fn a_chunk_that_makes_no_sense_ends_its_connection_though_nobody_reads_on() {
    let _watchdog = watchdog();
    let chunks = "9\r\nabq8\r\nabc\r\nXYZ\r\n0\r\n\r\n";
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let server = Server::answering(move |_| Answer::raw(format!("{head}{chunks}")));
    let client = client_of(1);
    let mut body = client.get(&server.url("")).send().unwrap().into_body();
    body.read_exact(&mut [0; 3]).unwrap();
    drop(body);
    assert_eq!(idle(&client), 0);
}

#[test]
fn a_time_out_of_the_whole_ends_what_never_pauses() {
    let _watchdog = watchdog();
    let server = Server::by_hand(|line| {
        line.head()?;
        line.play(&Answer::raw("HTTP/1.1 200 OK\r\n\r\n"))?;
        loop {
            line.play(&Answer::raw([b'x'; 8192]))?;
        }
    });
    let client = client_of(1);
    let request = client.get(&server.url("")).timeout(Duration::from_millis(200));
    let mut body = request.send().unwrap().into_body();
    let error = io::copy(&mut body, &mut io::sink()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert_eq!(idle(&client), 0);
}

#[test]
fn a_408_that_is_an_answer_is_delivered_and_not_asked_for_twice() {
    let _watchdog = watchdog();
    let refusal = "HTTP/1.1 408 Request Timeout\r\nContent-Length: 4\r\n\r\nslow";
    let server = Server::answering(move |request| match request.path() {
        "/slow" => Answer::raw(refusal),
        _ => Answer::ok("ok"),
    });
    let client = client_of(1);
    assert_eq!(get(&client, &server.url("")), "ok");
    let response = client.get(&server.url("slow")).send().unwrap();
    assert_eq!(
        (response.status().as_u16(), response.into_body().text().unwrap()),
        (408, "slow".into())
    );
    assert_eq!(get(&client, &server.url("")), "ok");
    assert_eq!((server.conns(), client.pool().stats().opened()), (vec![0, 0, 0], 1));
}

#[test]
fn half_an_upload_is_no_success_though_the_server_agreed_early() {
    let _watchdog = watchdog();
    let server = Server::by_hand(|line| {
        line.head()?;
        line.play(&Answer::ok("fine"))?;
        while line.take(1).is_ok() {}
        Ok(())
    });
    let (went, goes) = crossbeam_channel::unbounded::<()>();
    let reader = io::repeat(b'x').take(100_000).chain(Fails(goes));
    let client = client_of(1);
    drop(went);
    let error = client.post(&server.url("")).body(Upload::reader(reader)).send().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Upload);
    assert_eq!(idle(&client), 0);
}

struct Fails(crossbeam_channel::Receiver<()>);

impl Read for Fails {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        let _told = self.0.recv();
        Err(io::Error::other("the disk is gone"))
    }
}

#[test]
fn a_server_that_wants_its_answer_read_first_is_an_error_and_no_hang() {
    let _watchdog = watchdog();
    // It sends back what it gets, as it comes: both sides would write, and none would read.
    let server = Server::by_hand(|line| {
        line.head()?;
        line.play(&Answer::raw("HTTP/1.1 200 OK\r\n\r\n"))?;
        loop {
            let bytes = line.take(64 * 1024)?;
            line.play(&Answer::raw(&bytes))?;
        }
    });
    let client = client_of(1);
    let body = vec![b'x'; 64 * 1024 * 1024];
    let error = client.post(&server.url("")).body(body).send().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Broken, "{error}");
    assert_eq!(idle(&client), 0);
}

#[test]
fn nothing_that_others_have_read_is_shown_by_what_can_be_printed() {
    let _watchdog = watchdog();
    let switch = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";
    let server = Server::answering(move |request| match request.path() {
        "/upgrade" => Answer::raw(switch),
        _ => Answer::with("Set-Cookie: session=s3cret\r\n", "s3cret"),
    });
    let client = client_of(1);
    assert_eq!(get(&client, &server.url("")), "s3cret");
    let request = client.get(&server.url("upgrade")).header("connection", "upgrade");
    let body = request.header("upgrade", "x").send().unwrap().into_body();
    let upgraded = body.into_upgraded().unwrap();
    assert!(!format!("{upgraded:?}").contains("s3cret"));
    assert_eq!(upgraded.into_parts().1, b"");
}

/// Tells requests apart: a line for each of their ends.
#[derive(Clone, Default)]
struct Book(Arc<Mutex<Vec<String>>>);

struct Page(String, Book);

impl Trace for Book {
    fn event(&self, _: &Event) {
        panic!("each request has a page of its own");
    }

    fn begin(&self, method: &Method, url: &Uri) -> Option<Box<dyn Trace>> {
        Some(Box::new(Page(format!("{method} {}", url.path()), self.clone())))
    }
}

impl Trace for Page {
    fn event(&self, event: &Event) {
        if let Event::BodyEnd { bytes, .. } = event {
            self.1.0.lock().push(format!("{}: {bytes}", self.0));
        }
    }
}

#[test]
fn whoever_is_told_of_all_requests_can_tell_them_apart() {
    let _watchdog = watchdog();
    let server = Server::answering(|request| Answer::ok(request.path()));
    let book = Book::default();
    let client = limited(2).trace(book.clone()).build().unwrap();
    let first = client.get(&server.url("first")).send().unwrap();
    get(&client, &server.url("second"));
    drop(first.into_body().text().unwrap());
    assert_eq!(*book.0.lock(), ["GET /second: 7", "GET /first: 6"]);
}

#[test]
fn a_trace_that_panics_costs_nobody_his_answer() {
    let _watchdog = watchdog();
    let server = Server::answering(|_| Answer::ok("ok"));
    let client = Client::builder().trace(|_: &Event| panic!("no")).build().unwrap();
    assert_eq!(get(&client, &server.url("")), "ok");
    eventually("it comes back", || client.pool().stats().idle() == 1);
}
