//! SMTP through the pool: lettre's client, and a server that takes mail and keeps it.
#![expect(clippy::disallowed_methods, reason = "tests wait")]

use std::io::{self, Write};
use std::net::TcpStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use interop::scripted::{Scripted, lines, strangers};
use interop::smtp::{Mailer, Smtp};
use interop::support::{SOON, assert_at_rest, assert_empty, eventually, under_load, watchdog};
use lettre::address::Envelope;
use lettre::transport::smtp::commands::{Data, Mail};
use warmline::crossbeam_channel::{Receiver, Sender, unbounded};
use warmline::{Builder, CloseReason, Endpoint, ErrorKind, Failure, Phase, Pool, PooledConn};

/// Keeps what it is sent, and counts what it is asked.
struct Server {
    scripted: Scripted,
    received: Receiver<String>,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    noops: AtomicUsize,
    resets: AtomicUsize,
    farewells: AtomicUsize,
    /// It says farewell a byte at a time, and never ends.
    drags_on: AtomicBool,
}

impl Server {
    fn new() -> Self {
        let (seen, (keep, received)) = (Arc::<Seen>::default(), unbounded());
        let own = Arc::clone(&seen);
        let scripted = Scripted::new(move |stream| own.serve(stream, &keep));
        Self { scripted, received, seen }
    }

    fn endpoint(&self, pool: &Pool<Smtp>) -> Endpoint<Smtp> {
        pool.endpoint(&self.scripted.address()).unwrap()
    }
}

impl Seen {
    fn serve(&self, mut stream: TcpStream, keep: &Sender<String>) -> io::Result<()> {
        stream.write_all(b"220 ready\r\n")?;
        let mut is_midway = false;
        let mut lines = lines(&stream)?;
        while let Some(line) = lines.next() {
            let answer = match line.split([' ', ':']).next().unwrap_or("") {
                "EHLO" => "250-here\r\n250 AUTH PLAIN",
                // "\0ann\0open sesame"
                "AUTH" if line.ends_with("AGFubgBvcGVuIHNlc2FtZQ==") => "235 welcome",
                "AUTH" => "535 who are you?",
                "MAIL" if is_midway => "503 one at a time",
                "MAIL" => {
                    is_midway = true;
                    "250 go on"
                }
                "RCPT" => "250 go on",
                "DATA" => {
                    stream.write_all(b"354 say it\r\n")?;
                    let mut text = String::new();
                    loop {
                        match lines.next().as_deref() {
                            Some(".") => break,
                            Some(line) => text += line,
                            None => return Ok(()), // not to be kept
                        }
                    }
                    let _nobody_reads = keep.send(text);
                    is_midway = false;
                    "250 kept"
                }
                "RSET" => {
                    self.resets.fetch_add(1, Ordering::SeqCst);
                    is_midway = false;
                    "250 forgotten"
                }
                "NOOP" => {
                    self.noops.fetch_add(1, Ordering::SeqCst);
                    "250 here"
                }
                "QUIT" => {
                    self.farewells.fetch_add(1, Ordering::SeqCst);
                    while self.drags_on.load(Ordering::SeqCst) {
                        stream.write_all(b"2")?;
                        std::thread::sleep(Duration::from_millis(20));
                    }
                    return stream.write_all(b"221 bye\r\n");
                }
                _ => "500 what?",
            };
            stream.write_all(format!("{answer}\r\n").as_bytes())?;
        }
        Ok(())
    }
}

fn smtp() -> Builder<Smtp> {
    Pool::builder(Smtp::new()).check_timeout(SOON).settle_timeout(SOON)
}

fn send(mailer: &mut Mailer, text: &str) {
    let [from, to] = ["ann@localhost", "bob@localhost"].map(|address| address.parse().unwrap());
    let envelope = Envelope::new(Some(from), vec![to]).unwrap();
    mailer.send(&envelope, text.as_bytes()).unwrap();
}

fn begin(mailer: &mut Mailer) {
    let from = "ann@localhost".parse().unwrap();
    mailer.commands().command(Mail::new(Some(from), vec![])).unwrap();
}

#[test]
fn many_threads_send_through_three_connections_and_every_message_arrives_once() {
    let _watchdog = watchdog();
    let server = Server::new();
    let pool = smtp().max_per_endpoint(3).build().unwrap();
    let endpoint = server.endpoint(&pool);
    let sent = AtomicUsize::new(0);
    let exchange = |number: usize| {
        send(&mut endpoint.get_timeout(SOON).unwrap(), &number.to_string());
        sent.fetch_max(number, Ordering::SeqCst);
    };
    under_load(exchange, |load| load.await_more(100));
    let mut received: Vec<usize> =
        server.received.try_iter().map(|text| text.parse().unwrap()).collect();
    received.sort_unstable();
    assert!(received.iter().copied().eq(0..=sent.into_inner()), "{received:?}");
    let stats = pool.stats();
    assert!(stats.opened() <= 3, "{stats}");
    assert_eq!(stats.closed(), 0, "{stats}");
    assert_at_rest(&stats);
}

#[test]
fn a_message_begun_and_left_is_reset_and_the_next_user_begins_afresh() {
    let _watchdog = watchdog();
    let server = Server::new();
    let pool = smtp().max_per_endpoint(1).build().unwrap();
    let endpoint = server.endpoint(&pool);
    begin(&mut endpoint.get().unwrap());
    let mut mailer = endpoint.get_timeout(SOON).unwrap();
    assert!(PooledConn::is_reused(&mailer));
    send(&mut mailer, "mine");
    assert_eq!(server.received.try_recv().unwrap(), "mine");
    assert_eq!(server.seen.resets.load(Ordering::SeqCst), 1);
    drop(mailer);
    drop(endpoint.get().unwrap());
    assert_eq!(server.seen.resets.load(Ordering::SeqCst), 1, "nothing was begun");
}

#[test]
fn a_message_left_in_the_middle_of_its_text_is_not_sent() {
    let _watchdog = watchdog();
    let server = Server::new();
    let pool = smtp().settle_timeout(Duration::from_millis(100)).build().unwrap();
    let endpoint = server.endpoint(&pool);
    let mut mailer = endpoint.get().unwrap();
    begin(&mut mailer);
    mailer.commands().command(Data).unwrap();
    drop(mailer);
    eventually("it is closed", || pool.stats().closed() == 1);
    let stats = pool.stats();
    let reasons = [CloseReason::ResetRefused, CloseReason::TooLate];
    let closed: u64 = reasons.iter().map(|&reason| stats.closed_for(reason)).sum();
    assert_eq!(closed, 1, "{stats}");
    eventually("the server gives it up", || server.scripted.open() == 0);
    assert!(server.received.is_empty());
}

#[test]
fn a_connection_that_the_server_has_left_is_found_by_its_check_and_no_user_meets_it() {
    let _watchdog = watchdog();
    let server = Server::new();
    let pool = smtp().check_after(Duration::ZERO).build().unwrap();
    let endpoint = server.endpoint(&pool);
    assert_eq!(endpoint.warm(3, SOON).unwrap(), 3);
    server.scripted.hang_up();
    eventually("the server has left", || server.scripted.open() == 0);
    // The clock that tells how long they were idle ticks every few milliseconds.
    std::thread::sleep(Duration::from_millis(50));
    for number in 0..10 {
        send(&mut endpoint.get_timeout(SOON).unwrap(), &number.to_string());
    }
    assert_eq!(server.received.len(), 10);
    assert!(pool.stats().closed_for(CloseReason::CheckFailed) > 0, "{}", pool.stats());
    assert_at_rest(&pool.stats());
}

#[test]
fn idle_connections_are_kept_alive() {
    let _watchdog = watchdog();
    let server = Server::new();
    let pool = smtp().check_interval(Duration::from_millis(50)).build().unwrap();
    assert_eq!(server.endpoint(&pool).warm(2, SOON).unwrap(), 2);
    eventually("checks", || server.seen.noops.load(Ordering::SeqCst) >= 6);
    assert_eq!(pool.stats().closed(), 0, "{}", pool.stats());
}

#[test]
fn a_user_who_panics_takes_nothing_but_his_own_message_along() {
    let _watchdog = watchdog();
    let server = Server::new();
    let pool = smtp().build().unwrap();
    let endpoint = server.endpoint(&pool);
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let mut mailer = endpoint.get().unwrap();
        begin(&mut mailer);
        mailer.commands().command(Data).unwrap();
        panic!("a user's mistake");
    }));
    panicked.unwrap_err();
    assert_eq!(pool.stats().closed_for(CloseReason::Panicked), 1);
    send(&mut endpoint.get().unwrap(), "mine");
    assert_eq!(server.received.recv_timeout(SOON).unwrap(), "mine");
    assert!(server.received.is_empty(), "the other one was not sent");
    assert_at_rest(&pool.stats());
}

#[test]
fn idle_connections_quit_when_the_pool_ends() {
    let _watchdog = watchdog();
    let server = Server::new();
    let pool = smtp().build().unwrap();
    assert_eq!(server.endpoint(&pool).warm(3, SOON).unwrap(), 3);
    pool.close();
    eventually("farewells", || server.seen.farewells.load(Ordering::SeqCst) == 3);
}

#[test]
fn a_server_that_drags_out_its_farewell_holds_up_no_other_close() {
    let _watchdog = watchdog();
    let server = Server::new();
    server.seen.drags_on.store(true, Ordering::SeqCst);
    let pool = smtp().build().unwrap();
    // More than are closed at a time.
    assert_eq!(server.endpoint(&pool).warm(20, SOON).unwrap(), 20);
    pool.close();
    eventually("farewells", || server.seen.farewells.load(Ordering::SeqCst) == 20);
    assert_empty(&pool.stats());
}

#[test]
fn a_wrong_password_is_refused_in_the_servers_words_and_not_shown() {
    let _watchdog = watchdog();
    let server = Server::new();
    let pool = Pool::builder(Smtp::new().login("ann", "hunter2")).build().unwrap();
    let error = server.endpoint(&pool).get_timeout(SOON).map(drop).unwrap_err();
    assert_eq!((error.kind(), error.phase()), (ErrorKind::Connect, Some(Phase::Open)));
    let text = format!("{error} {error:?}");
    assert!(text.contains("535") && text.contains("who are you?"), "{text}");
    assert!(!text.contains("hunter2") && !text.contains("AGFubgBodW50ZXIy"), "{text}");
    assert_empty(&pool.stats());
    let pool = Pool::builder(Smtp::new().login("ann", "open sesame")).build().unwrap();
    send(&mut server.endpoint(&pool).get().unwrap(), "mine");
}

#[test]
fn a_server_of_another_protocol_is_an_error_by_the_deadline_and_leaves_nothing_behind() {
    let _watchdog = watchdog();
    for (what, server) in strangers() {
        // The others wait to be spoken to, as the client does, or do not end what they say.
        let waits = !["closes at once", "a full redis"].contains(&what);
        let longest = if waits { Duration::from_millis(300) } else { SOON };
        let pool = smtp().connect_timeout(longest).build().unwrap();
        let error = pool.get_timeout(&server.address(), SOON).map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Connect, "{what}: {error}");
        assert_eq!(error.failure() == Some(Failure::Timeout), waits, "{what}: {error}");
        eventually("nothing is left", || server.open() == 0 && pool.stats().total() == 0);
        assert_empty(&pool.stats());
    }
}
