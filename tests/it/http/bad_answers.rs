//! Answers that make no sense, or lie: each is an error of the right kind, and nothing comes of it
//! for the next request.

use std::io::Read;
use std::time::Duration;

use warmline::http::{Client, Error, ErrorKind, Stage};

use super::arrivals::await_bytes;
use super::support::{Answer, Server, client_of, get, idle, limited};
use crate::support::{SOON, eventually, watchdog};

/// A GET, and all of its answer.
fn read(client: &Client, url: &str) -> Result<Vec<u8>, Error> {
    client.get(url).send()?.into_body().bytes()
}

/// The first request is answered by these bytes, and this end, the second as it should be: what
/// became of the first.
#[track_caller]
fn first_of_two(client: &Client, bytes: &[u8], end: End) -> Result<Vec<u8>, Error> {
    let answer = end(Answer::raw(bytes));
    let server = Server::answering(move |request| match request.conn {
        0 => answer.clone(),
        _ => Answer::ok("next"),
    });
    let result = read(client, &server.url(""));
    let stats = client.pool().endpoint(server.url("").as_str()).unwrap().stats();
    let name = shown(bytes);
    assert_eq!((stats.in_use(), stats.idle()), (0, 0), "{name}: {result:?}");
    assert_eq!(get(client, &server.url("")), "next", "{name}");
    assert_eq!(server.conns(), [0, 1], "{name}");
    result
}

type End = fn(Answer) -> Answer;

/// The server says no more than that, and listens for ever.
const SILENCE: End = Answer::silence;

fn shown(bytes: &[u8]) -> String {
    bytes.iter().take(120).map(|byte| byte.escape_ascii().to_string()).collect()
}

/// It was an error of one of these kinds, at this stage, and cost only its connection.
#[track_caller]
fn assert_refused(client: &Client, bytes: impl AsRef<[u8]>, kinds: &[ErrorKind], stage: Stage) {
    let error = first_of_two(client, bytes.as_ref(), SILENCE).unwrap_err();
    let is_fit = kinds.contains(&error.kind()) && error.stage() == Some(stage);
    assert!(is_fit, "{}: {error:?}", shown(bytes.as_ref()));
}

const SENSELESS: &[ErrorKind] = &[ErrorKind::Protocol];
/// What is too long may be found to be senseless before.
const LIMITED: &[ErrorKind] = &[ErrorKind::TooLong, ErrorKind::Protocol];

#[test]
fn a_head_that_makes_no_sense_is_refused_as_soon_as_that_is_clear() {
    let _watchdog = watchdog();
    let client = client_of(1);
    for bytes in [
        &b"\r\n"[..],
        b"\n",
        b"\0",
        b"hello",
        b"http/1.1 200 OK\r\n\r\n",
        b"HTTP /1.1 200 OK\r\n\r\n",
        b"HTTP/0.9 200 OK\r\n\r\n",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/11 200 OK\r\n\r\n",
        b"HTTP/1.1\t200 OK\r\n\r\n",
        b"HTTP/1.1\r\n\r\n",
        b"HTTP/1.1 \r\n\r\n",
        b"HTTP/1.1 2 OK\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 -20 OK\r\n\r\n",
        b"HTTP/1.1 000 OK\r\n\r\n",
        b"HTTP/1.1 099 OK\r\n\r\n",
        b"HTTP/1.1 0x1 OK\r\n\r\n",
        b"HTTP/1.1 200 O\0K\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nNo colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n: no name\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nName : x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nNa me: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nNa\xfcme: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n folded: first\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: y\r\n folded\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: y\0z\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: y\rz\r\n\r\n",
        b"HTTP/1.1 200 OK\rX: y\r\r",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        b"HTTP/1.1 199 \0\r\n\r\n",
        b"HTTP/1.1 103 Hints\r\nNo colon\r\n\r\n",
    ] {
        assert_refused(&client, bytes, SENSELESS, Stage::Head);
    }
}

#[test]
fn a_length_that_cannot_be_believed_is_refused() {
    let _watchdog = watchdog();
    let client = client_of(1);
    for fields in [
        "Content-Length: \r\n",
        "Content-Length: +5\r\n",
        "Content-Length: -5\r\n",
        "Content-Length: 5 5\r\n",
        "Content-Length: 5, 6\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length: 5.0\r\n",
        "Content-Length: five\r\n",
        "Content-Length: 18446744073709551616\r\n",
        "Content-Length: 99999999999999999999999999\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5\r\nContent-Length: \r\n",
        "Transfer-Encoding: gzip\r\n",
        "Transfer-Encoding: \r\nContent-Length: 5\r\n",
        "Transfer-Encoding: gzip\r\nContent-Length: 5\r\n",
        "Transfer-Encoding: xchunked\r\nContent-Length: 5\r\n",
        "Transfer-Encoding: chunked, gzip\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked;x=y\r\n",
        "Transfer-Encoding: \x0bchunked\r\n",
        "Transfer-Encoding: identity\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\n",
    ] {
        let answer = format!("HTTP/1.1 200 OK\r\n{fields}\r\n5\r\nhello\r\n0\r\n\r\n");
        assert_refused(&client, answer, SENSELESS, Stage::Head);
    }
    let latin =
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: ch\xfcnked\r\nContent-Length: 5\r\n\r\nhello";
    assert_refused(&client, latin, SENSELESS, Stage::Head);
    let old = "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    assert_refused(&client, old, SENSELESS, Stage::Head);
}

#[test]
fn an_answer_that_ends_before_it_should_is_broken_and_never_looks_whole() {
    let _watchdog = watchdog();
    let client = client_of(1);
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (bytes, stage) in [
        ("HTTP/1.1 200 OK".to_owned(), Stage::Head),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n".to_owned(), Stage::Head),
        ("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello".to_owned(), Stage::Body),
        ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n".to_owned(), Stage::Body),
        (chunked.to_owned(), Stage::Body),
        (format!("{chunked}5"), Stage::Body),
        (format!("{chunked}5\r\n"), Stage::Body),
        (format!("{chunked}5\r\nhell"), Stage::Body),
        (format!("{chunked}5\r\nhello"), Stage::Body),
        (format!("{chunked}5\r\nhello\r\n"), Stage::Body),
        (format!("{chunked}5\r\nhello\r\n0"), Stage::Body),
    ] {
        for end in [Answer::close, Answer::reset] {
            let error = first_of_two(&client, bytes.as_bytes(), end).unwrap_err();
            assert_eq!((error.kind(), error.stage()), (ErrorKind::Broken, Some(stage)), "{bytes}");
        }
    }
}

#[test]
fn a_length_that_no_memory_holds_is_an_error_and_takes_none() {
    let _watchdog = watchdog();
    let client = client_of(1);
    for length in ["9223372036854775807", "9223372036854775808", "18446744073709551615"] {
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\nhello");
        let error = first_of_two(&client, answer.as_bytes(), SILENCE).unwrap_err();
        assert!(LIMITED.contains(&error.kind()), "{length}: {error:?}");
    }
    let huge = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7fffffffffffffff\r\nhello";
    let error = first_of_two(&client, huge.as_bytes(), Answer::close).unwrap_err();
    assert_eq!((error.kind(), error.stage()), (ErrorKind::Broken, Some(Stage::Body)));
}

#[test]
fn chunks_that_make_no_sense_are_refused() {
    let _watchdog = watchdog();
    let client = client_of(1);
    let line = |length: usize| format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(length));
    for body in [
        "\r\n5\r\nhello\r\n0\r\n\r\n".to_owned(),
        "x\r\n".to_owned(),
        "-5\r\nhello\r\n".to_owned(),
        "+5\r\nhello\r\n".to_owned(),
        " 5\r\nhello\r\n".to_owned(),
        "0x5\r\nhello\r\n".to_owned(),
        "5\rX\r\nhello\r\n".to_owned(),
        "5\r\nhello!\r\n0\r\n\r\n".to_owned(),
        "5\r\nhello\n0\r\n\r\n".to_owned(),
        "5\r\nhello0\r\n\r\n".to_owned(),
        "10000000000000000\r\nhello".to_owned(),
        "fffffffffffffffff\r\nhello".to_owned(),
        "0000000000000000000000005\r\nhello".to_owned(),
        line(5000),
        "1;".to_owned() + &"x".repeat(1_000_000),
        format!("1;{}\r\nx\r\n", "x".repeat(2000)).repeat(20) + "0\r\n\r\n",
        "0\r\nNo colon\r\n\r\n".to_owned(),
        "0\r\nName : x\r\n\r\n".to_owned(),
        "0\r\nX: \0\r\n\r\n".to_owned(),
        format!("0\r\nX: {}\r\n\r\n", "x".repeat(100_000)),
        format!("0\r\n{}\r\n", "X: y\r\n".repeat(200)),
    ] {
        let answer = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
        assert_refused(&client, answer, LIMITED, Stage::Body);
    }
}

#[test]
fn heads_without_end_are_left_at_a_limit() {
    let _watchdog = watchdog();
    let client = client_of(1);
    let ok = "HTTP/1.1 200 OK\r\n";
    let early = "HTTP/1.1 103 Hints\r\n";
    for bytes in [
        format!("HTTP/1.1 200 {}\r\n\r\n", "x".repeat(100_000)),
        format!("{ok}X: {}\r\n\r\n", "x".repeat(100_000)),
        format!("{ok}{}", "X: y\r\n".repeat(100_000)),
        format!("{ok}{}: y\r\n\r\n", "X".repeat(100_000)),
        format!("{ok}{}\r\n", "X: y\r\n".repeat(129)),
        format!("{early}X: {}\r\n\r\n", "x".repeat(100_000)),
        format!("{early}{}\r\n", "X: y\r\n".repeat(200)),
        format!("{early}\r\n").repeat(1000),
        format!("{early}X: {}\r\n\r\n", "x".repeat(10_000)).repeat(10),
    ] {
        assert_refused(&client, bytes, LIMITED, Stage::Head);
    }
}

#[test]
fn heads_that_are_merely_long_are_read() {
    let _watchdog = watchdog();
    let server = Server::answering(|_| {
        let long = format!("X: {}\r\n", "x".repeat(60_000));
        let many = "Y: z\r\n".repeat(100);
        let early = "HTTP/1.1 103 Hints\r\nX: y\r\n\r\n".repeat(10);
        let end = "Content-Length: 2\r\n\r\nok";
        Answer::raw(format!("{early}HTTP/1.1 200 OK\r\n{long}{many}{end}"))
    });
    let client = client_of(1);
    for _ in 0..3 {
        assert_eq!(get(&client, &server.url("")), "ok");
    }
    assert_eq!(server.connections(), 1);
}

#[test]
fn what_is_odd_and_leaves_no_doubt_is_read_on_one_connection() {
    let _watchdog = watchdog();
    let odd = [
        "HTTP/1.1 200\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 \r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 \u{e4}h\r\ncontent-LENGTH:5  \r\nX:\r\nY: \u{e9}\r\n\r\nhello",
        "HTTP/1.1 999 Odd\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\nContent-Length: 5\n\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: ChUnKeD\r\n\r\n\
            0005;name=\"a b\";x\r\nhello\r\n000;y\r\nX: y\r\n\r\n",
    ];
    let server = Server::script(odd.map(Answer::raw));
    let client = client_of(1);
    for answer in odd {
        assert_eq!(get(&client, &server.url("")), "hello", "{answer}");
    }
    assert_eq!(server.connections(), 1);
}

#[test]
fn a_body_that_has_failed_does_not_end_well_when_it_is_read_again() {
    let _watchdog = watchdog();
    let head = "HTTP/1.1 200 OK\r\n";
    for (rest, kind) in [
        ("Content-Length: 9\r\n\r\nhello", ErrorKind::Broken),
        ("Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", ErrorKind::Broken),
        ("Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nx\r\n", ErrorKind::Protocol),
    ] {
        let server = Server::script([Answer::raw(format!("{head}{rest}")).close()]);
        let mut body = client_of(1).get(&server.url("")).send().unwrap().into_body();
        let mut read = Vec::new();
        for _ in 0..3 {
            let error = body.read_to_end(&mut read).unwrap_err();
            assert_eq!(error.downcast::<Error>().unwrap().kind(), kind);
        }
        assert!(b"hello".starts_with(&read));
        assert_eq!(body.bytes().unwrap_err().kind(), kind);
    }
}

#[test]
fn what_comes_behind_an_answer_reaches_nobody() {
    let _watchdog = watchdog();
    let client = client_of(1);
    let stray = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstray";
    for answer in [
        format!("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello{stray}"),
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello\r\n".to_owned(),
        format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n{stray}"
        ),
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 9\r\n\r\n\
            5\r\nhello\r\n0\r\n\r\n"
            .to_owned(),
    ] {
        assert_eq!(first_of_two(&client, answer.as_bytes(), SILENCE).unwrap(), b"hello");
    }
    for answer in [
        "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello".to_owned(),
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\nhello".to_owned(),
        format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n{stray}"),
        format!("HTTP/1.1 204 No Content\r\n\r\n{stray}"),
    ] {
        assert_eq!(first_of_two(&client, answer.as_bytes(), SILENCE).unwrap(), b"");
    }
}

#[test]
fn what_comes_on_an_idle_connection_reaches_nobody() {
    let _watchdog = watchdog();
    let stray = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstray";
    for late in [stray, "HTTP/1.1 100 Continue\r\n\r\n", "\r\n", "x"] {
        let (tell, told) = crossbeam_channel::unbounded();
        let server = Server::answering(move |request| match request.conn {
            0 => Answer::ok("one").wait(&told).then(late).silence(),
            _ => Answer::ok("two"),
        });
        let client = client_of(1);
        assert_eq!(get(&client, &server.url("")), "one");
        tell.send(()).unwrap();
        await_bytes(&server);
        // At once after its return, none would be due.
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(get(&client, &server.url("")), "two");
        assert_eq!(server.conns(), [0, 1]);
    }
}

#[test]
fn servers_of_other_protocols_are_known_by_their_first_words() {
    let _watchdog = watchdog();
    let client = client_of(1);
    for greeting in [
        &b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n"[..],
        b"220 mail.example.com ESMTP Postfix\r\n",
        b"+OK POP3 ready\r\n",
        b"* OK IMAP4rev1 ready\r\n",
        b"-ERR unknown command 'GET'\r\n",
        b"ERROR\r\n",
        b"\x15\x03\x01\x00\x02\x02\x46",
        b"J\0\0\0\x0a8.0.32\0",
        b"\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0\x80\0\x04\0\x01\0\0\0\x05\0\xff\xff",
        b"ICY 200 OK\r\n\r\n",
        b"RTSP/1.0 200 OK\r\n\r\n",
    ] {
        assert_refused(&client, greeting, SENSELESS, Stage::Head);
        // The same before they were asked: with a farewell, and without.
        for hangs_up in [false, true] {
            let server = Server::by_hand(move |line| {
                if line.number() > 0 {
                    line.request()?;
                    return line.play(&Answer::ok("next").silence());
                }
                line.play(&Answer::raw(greeting))?;
                if hangs_up { Ok(()) } else { line.play(&Answer::default().silence()) }
            });
            let error = read(&client, &server.url("")).unwrap_err();
            let is_fit = error.kind() == ErrorKind::Protocol
                || hangs_up && [ErrorKind::Broken, ErrorKind::Checkout].contains(&error.kind());
            assert!(is_fit, "{error:?}");
            eventually("the next is served", || read(&client, &server.url("")).is_ok());
        }
    }
}

#[test]
fn what_a_server_says_before_it_is_asked_answers_nothing_on_a_connection_opened_ahead() {
    let _watchdog = watchdog();
    for post in [false, true] {
        let server = Server::by_hand(move |line| {
            if line.number() == 0 {
                let stray = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstray";
                line.play(&Answer::raw(stray))?;
            }
            line.request()?;
            line.play(&Answer::ok("asked").silence())
        });
        let client = client_of(1);
        let endpoint = client.pool().endpoint(server.url("").as_str()).unwrap();
        assert_eq!(endpoint.warm(1, SOON).unwrap(), 1);
        await_bytes(&server);
        let text = match post {
            true => client.post(&server.url("")).send().unwrap().into_body().text().unwrap(),
            false => get(&client, &server.url("")),
        };
        assert_eq!(text, "asked");
    }
}

#[test]
fn a_server_that_never_comes_to_an_end_is_left_when_the_time_is_over() {
    let _watchdog = watchdog();
    let ok = "HTTP/1.1 200 OK\r\n";
    let chunked = "Transfer-Encoding: chunked\r\n\r\n";
    let cases = [
        (format!("{ok}X: "), "x", Stage::Head),
        ("HTTP/1.1 200 ".to_owned(), "x", Stage::Head),
        (format!("{ok}Content-Length: 1000000\r\n\r\n"), "x", Stage::Body),
        (format!("{ok}\r\n"), "x", Stage::Body),
        (format!("{ok}{chunked}"), "1\r\nx\r\n", Stage::Body),
        (format!("{ok}{chunked}1;"), "x", Stage::Body),
        (format!("{ok}{chunked}0\r\nX: "), "x", Stage::Body),
    ];
    std::thread::scope(|scope| {
        for (beginning, drop, stage) in cases {
            scope.spawn(move || assert_left(beginning, drop, stage));
        }
    });
}

fn assert_left(beginning: String, drop: &'static str, stage: Stage) {
    let server = Server::by_hand(move |line| {
        if line.request()?.path() == "/next" {
            return line.play(&Answer::ok("next").silence());
        }
        line.play(&Answer::raw(&beginning))?;
        loop {
            line.play(&Answer::raw(drop).pause(Duration::from_millis(5)))?;
        }
    });
    // Each read brings something: only the whole has taken too long.
    let client = limited(1).timeout(Duration::from_millis(700)).build().unwrap();
    eventually("it takes too long where it should", || {
        let error = read(&client, &server.url("")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
        error.stage() == Some(stage)
    });
    assert_eq!(idle(&client), 0);
    eventually("the next is served", || read(&client, &server.url("next")).is_ok());
}
