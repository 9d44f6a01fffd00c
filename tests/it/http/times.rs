//! Each wait of a request has an end of its own, and all of them together have one.

use std::io::{self, Read};
use std::time::{Duration, Instant};

use crossbeam_channel::{never, unbounded};
use warmline::http::{Client, Error, ErrorKind, Stage, Upload};

use super::support::{Answer, Server, client_of, get, idle, limited};
use crate::support::faults::BlackHole;
use crate::support::{SOON, eventually, watchdog};

/// One read of a socket blocks so long at a time: shorter and longer waits take different ways.
const TICK: Duration = Duration::from_millis(500);

const fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// A GET, and all of its answer.
fn read(client: &Client, url: &str) -> Result<String, Error> {
    client.get(url).send()?.into_body().text()
}

/// What asks for "/late" meets this, all else is answered.
fn late_meets(answer: Answer) -> Server {
    Server::answering(move |request| match request.path() {
        "/late" => answer.clone(),
        _ => Answer::ok("next"),
    })
}

/// It was a time-out of this stage, not before its time; it cost the connection and nothing else.
#[track_caller]
fn assert_late(
    client: &Client,
    server: &Server,
    (stage, least): (Stage, Duration),
    request: impl Fn() -> Result<String, Error>,
) {
    // A busy machine may have been late before that.
    eventually("it takes too long where it should", || {
        let began = Instant::now();
        let error = request().unwrap_err();
        let took = began.elapsed();
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
        assert!(took >= least, "{stage}: after {took:?} already");
        assert!(took < SOON, "{stage}: only after {took:?}");
        // Whichever time it was that was over.
        assert!(error.to_string().contains(" after "), "{error}");
        assert!(!error.to_string().contains("after 30"), "{error}: after {took:?}");
        error.stage() == Some(stage)
    });
    assert_eq!(idle(client), 0);
    eventually("the next is served", || read(client, &server.url("")).is_ok());
    eventually("the server knows that it is not heard", || server.open() == 1);
}

#[test]
fn an_answer_that_does_not_come_is_awaited_for_as_long_as_set() {
    let _watchdog = watchdog();
    for time in [millis(1), millis(100), TICK - millis(1), TICK, TICK + millis(1), millis(1200)] {
        let server = late_meets(Answer::default().silence());
        let client = limited(1).head_timeout(time).build().unwrap();
        assert_late(&client, &server, (Stage::Head, time), || read(&client, &server.url("late")));
    }
}

#[test]
fn a_request_as_a_whole_has_the_time_that_it_is_given() {
    let _watchdog = watchdog();
    for time in [millis(20), TICK - millis(1), TICK + millis(1), millis(1200)] {
        let server = late_meets(Answer::default().silence());
        let (client, url) = (client_of(1), server.url("late"));
        let request = || client.get(&url).timeout(time).send()?.into_body().text();
        assert_late(&client, &server, (Stage::Head, time), request);
    }
}

#[test]
fn a_head_that_comes_in_drops_has_no_more_time_than_any_other() {
    let _watchdog = watchdog();
    for time in [millis(200), millis(800)] {
        let server = Server::by_hand(|line| {
            if line.request()?.path() != "/late" {
                return line.play(&Answer::ok("next").silence());
            }
            line.play(&Answer::raw("HTTP/1.1 200 OK\r\nX: "))?;
            loop {
                line.play(&Answer::raw("x").pause(millis(10)))?;
            }
        });
        let client = limited(1).head_timeout(time).build().unwrap();
        assert_late(&client, &server, (Stage::Head, time), || read(&client, &server.url("late")));
    }
}

#[test]
fn interim_answers_do_not_make_the_wait_longer() {
    let _watchdog = watchdog();
    let hints = "HTTP/1.1 103 Hints\r\n\r\n";
    let answer = (0..10).fold(Answer::default(), |answer, _| answer.then(hints).pause(millis(50)));
    let server = late_meets(answer.silence());
    let time = millis(700);
    let client = limited(1).head_timeout(time).build().unwrap();
    assert_late(&client, &server, (Stage::Head, time), || read(&client, &server.url("late")));
}

#[test]
fn a_body_may_pause_between_two_reads_for_as_long_as_set() {
    let _watchdog = watchdog();
    let begun = [
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello",
        "HTTP/1.1 200 OK\r\n\r\nhello",
    ];
    for time in [millis(100), TICK, millis(900)] {
        for begun in begun {
            let server = late_meets(Answer::raw(begun).silence());
            let client = limited(1).read_timeout(time).build().unwrap();
            assert_late(&client, &server, (Stage::Body, time), || {
                read(&client, &server.url("late"))
            });
        }
    }
}

#[test]
fn a_body_that_comes_slowly_and_steadily_is_read_to_its_end() {
    let _watchdog = watchdog();
    let slow = (0..30)
        .fold(Answer::raw("HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\n"), |answer, _| {
            answer.pause(millis(60)).then("x")
        });
    let server = Server::script([slow]);
    // All of it takes longer than one read may, by far.
    let client = limited(1).read_timeout(millis(1500)).build().unwrap();
    assert_eq!(get(&client, &server.url("")).len(), 30);
}

#[test]
fn the_time_of_the_whole_covers_the_body_however_steadily_it_comes() {
    let _watchdog = watchdog();
    let time = millis(600);
    let server = Server::by_hand(|line| {
        if line.request()?.path() != "/late" {
            return line.play(&Answer::ok("next").silence());
        }
        line.play(&Answer::raw("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"))?;
        loop {
            line.play(&Answer::raw("x").pause(millis(10)))?;
        }
    });
    let (client, url) = (client_of(1), server.url("late"));
    let request = || client.get(&url).timeout(time).send()?.into_body().text();
    assert_late(&client, &server, (Stage::Body, time), request);
}

#[test]
fn the_time_of_the_whole_covers_all_redirects() {
    let _watchdog = watchdog();
    let server = Server::answering(|request| match request.path() {
        "/again" => Answer::default()
            .pause(millis(50))
            .then("HTTP/1.1 302 Found\r\nLocation: /again\r\nContent-Length: 0\r\n\r\n"),
        _ => Answer::ok("next"),
    });
    let client = limited(1).max_redirects(1_000_000).build().unwrap();
    let began = Instant::now();
    let error = client.get(&server.url("again")).timeout(millis(700)).send().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert!(began.elapsed() < SOON);
    assert!(server.requests().len() > 1);
    eventually("the next is served", || read(&client, &server.url("")).is_ok());
}

#[test]
fn a_server_that_does_not_read_is_written_to_for_as_long_as_set() {
    let _watchdog = watchdog();
    const LARGE: usize = 16 * 1024 * 1024;
    for time in [millis(200), millis(800)] {
        for form in 0..3 {
            let server = Server::by_hand(|line| {
                if line.head()?.method() == "GET" {
                    return line.play(&Answer::ok("next").silence());
                }
                line.play(&Answer::default().wait(&never()))
            });
            let upload = match form {
                0 => vec![b'x'; LARGE].into(),
                1 => Upload::sized(io::repeat(b'x'), LARGE as u64),
                _ => Upload::reader(io::repeat(b'x').take(LARGE as u64)),
            };
            let client = limited(1).write_timeout(time).build().unwrap();
            let began = Instant::now();
            let error = client.put(&server.url("")).body(upload).send().unwrap_err();
            let what = (error.kind(), error.stage());
            assert_eq!(what, (ErrorKind::Timeout, Some(Stage::Write)), "{error}");
            assert!(began.elapsed() >= time && began.elapsed() < SOON);
            assert_eq!(idle(&client), 0);
            assert_eq!(get(&client, &server.url("")), "next");
        }
    }
}

#[test]
fn a_reader_may_take_its_time_and_the_server_is_not_blamed_for_it() {
    let _watchdog = watchdog();
    struct Slow(u32);
    impl Read for Slow {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            std::thread::sleep(millis(150));
            self.0 += 1;
            if self.0 > 10 { Ok(0) } else { (&b"x"[..]).read(out) }
        }
    }
    let server = Server::answering(|request| Answer::ok(&request.body));
    let times = millis(1500);
    let client = limited(1).write_timeout(times).head_timeout(times).build().unwrap();
    let response = client.post(&server.url("")).body(Upload::reader(Slow(0))).send().unwrap();
    assert_eq!(response.into_body().text().unwrap(), "xxxxxxxxxx");
}

#[test]
fn a_checkout_is_awaited_for_as_long_as_set_and_no_longer_than_the_request_may_take() {
    let _watchdog = watchdog();
    let server = Server::answering(|_| Answer::ok("ok"));
    let of = |time| {
        let pool = move |pool: warmline::Builder<warmline::http::OriginConnector>| {
            pool.max_per_endpoint(1).checkout_timeout(time)
        };
        Client::builder().pool(pool).build().unwrap()
    };
    for (checkout, whole) in [(millis(100), None), (SOON, Some(millis(100)))] {
        let client = of(checkout);
        let mut held = None;
        eventually("there is a connection", || {
            held = client.get(&server.url("")).send().ok();
            held.is_some()
        });
        let mut request = client.get(&server.url(""));
        if let Some(whole) = whole {
            request = request.timeout(whole);
        }
        let began = Instant::now();
        let error = request.send().unwrap_err();
        assert_eq!((error.kind(), error.stage()), (ErrorKind::Timeout, Some(Stage::Checkout)));
        assert_eq!(error.pool().unwrap().kind(), warmline::ErrorKind::Timeout);
        assert!(began.elapsed() >= millis(100) && began.elapsed() < SOON);
        // Who waited in vain takes nothing with it.
        assert_eq!(held.unwrap().into_body().text().unwrap(), "ok");
        assert_eq!(get(&client, &server.url("")), "ok");
        assert_eq!(client.pool().stats().opened(), 1);
    }
}

#[test]
fn a_connect_that_hangs_ends_at_its_time() {
    let _watchdog = watchdog();
    let hole = BlackHole::new();
    let url = format!("http://{}/", hole.name());
    let pool = |pool: warmline::Builder<warmline::http::OriginConnector>| {
        pool.connect_timeout(millis(100))
    };
    let client = Client::builder().pool(pool).build().unwrap();
    let error = client.get(&url).send().unwrap_err();
    assert_eq!((error.kind(), error.stage()), (ErrorKind::Checkout, Some(Stage::Checkout)));
    assert_eq!(error.pool().unwrap().kind(), warmline::ErrorKind::Connect);
    eventually("nothing is left of it", || client.pool().stats().total() == 0);

    let patient = Client::builder()
        .pool(|pool| pool.connect_timeout(SOON).checkout_timeout(SOON))
        .timeout(millis(100))
        .build()
        .unwrap();
    let began = Instant::now();
    let error = patient.get(&url).send().unwrap_err();
    assert_eq!((error.kind(), error.stage()), (ErrorKind::Timeout, Some(Stage::Checkout)));
    assert!(began.elapsed() < SOON);
}

#[test]
fn a_word_to_go_on_is_awaited_for_as_long_as_set_and_no_error() {
    let _watchdog = watchdog();
    for time in [millis(1), millis(300), millis(700)] {
        let server = Server::by_hand(|line| {
            let mut request = line.head()?;
            line.body(&mut request)?;
            line.play(&Answer::ok(&request.body).silence())
        });
        let client = limited(1).continue_timeout(time).build().unwrap();
        let began = Instant::now();
        let request = client.post(&server.url("")).expect_continue().body("hello");
        assert_eq!(request.send().unwrap().into_body().text().unwrap(), "hello");
        assert!(began.elapsed() >= time);
    }
    // The request as a whole has its own end.
    let server = Server::by_hand(|line| line.play(&Answer::default().wait(&never())));
    let client = limited(1).continue_timeout(SOON).build().unwrap();
    let request = client.post(&server.url("")).expect_continue().body("hello");
    let error = request.timeout(millis(100)).send().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert_eq!(idle(&client), 0);
}

#[test]
fn the_time_of_one_request_is_not_that_of_the_next_on_its_connection() {
    let _watchdog = watchdog();
    let (tell, told) = unbounded();
    let server = Server::answering(move |request| match request.path() {
        "/slow" => Answer::default()
            .wait(&told)
            .pause(millis(900))
            .then("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow"),
        _ => Answer::ok("fast"),
    });
    let client = client_of(1);
    for time in [millis(300), millis(700)] {
        let fast = || client.get(&server.url("")).timeout(time).send();
        eventually("a fast one is in time", || {
            fast().is_ok_and(|response| response.into_body().text().is_ok())
        });
        tell.send(()).unwrap();
        let slow = client.get(&server.url("slow")).send().unwrap();
        assert!(slow.body().is_reused());
        assert_eq!(slow.into_body().text().unwrap(), "slow");
    }
}

#[test]
fn times_that_make_no_sense_are_refused_by_name() {
    for (builder, name) in [
        (Client::builder().write_timeout(Duration::ZERO), "write_timeout"),
        (Client::builder().head_timeout(Duration::ZERO), "head_timeout"),
        (Client::builder().read_timeout(Duration::ZERO), "read_timeout"),
        (Client::builder().timeout(Duration::ZERO), "timeout"),
    ] {
        let error = builder.build().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Request);
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[test]
fn times_without_end_are_no_times_at_all() {
    let _watchdog = watchdog();
    let ever = Duration::MAX;
    let builder = limited(1).write_timeout(ever).head_timeout(ever).read_timeout(ever);
    let client = builder.continue_timeout(ever).timeout(ever).build().unwrap();
    let server = Server::answering(|_| Answer::ok("ok"));
    for _ in 0..3 {
        assert_eq!(get(&client, &server.url("")), "ok");
        let request = client.post(&server.url("")).body(vec![b'x'; 100_000]).expect_continue();
        assert_eq!(request.send().unwrap().into_body().text().unwrap(), "ok");
    }
    assert_eq!(server.connections(), 1);
}
