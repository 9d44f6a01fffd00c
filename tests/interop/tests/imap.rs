//! IMAP through the pool: the `imap` crate's sessions, and a server that knows a few commands.
#![expect(clippy::disallowed_methods, reason = "tests wait and read the time")]

use std::io::{self, Write};
use std::net::TcpStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use interop::imap::{Imap, Mail};
use interop::scripted::{Scripted, lines, strangers};
use interop::support::{SOON, assert_at_rest, assert_empty, eventually, under_load, watchdog};
use warmline::{Builder, CloseReason, Endpoint, ErrorKind, Failure, Phase, Pool, PooledConn};

/// Knows one user and two mailboxes, and counts what it is asked.
struct Server {
    scripted: Scripted,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    logins: AtomicUsize,
    noops: AtomicUsize,
    farewells: AtomicUsize,
    /// It says farewell a byte at a time, and never ends.
    drags_on: AtomicBool,
    /// It does not know UNSELECT.
    is_old: AtomicBool,
    connections: AtomicUsize,
    /// On the first so many connections it answers no more.
    stuck: AtomicUsize,
}

impl Server {
    fn new() -> Self {
        let seen = Arc::<Seen>::default();
        let own = Arc::clone(&seen);
        Self { scripted: Scripted::new(move |stream| own.serve(stream)), seen }
    }

    fn endpoint(&self, pool: &Pool<Imap>) -> Endpoint<Imap> {
        pool.endpoint(&self.scripted.address()).unwrap()
    }
}

impl Seen {
    fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
        let number = self.connections.fetch_add(1, Ordering::SeqCst);
        stream.write_all(b"* OK ready\r\n")?;
        let mut selected = None;
        for line in lines(&stream)? {
            let mut words = line.split(' ');
            let (tag, command) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
            let argument = words.next().unwrap_or("").trim_matches('"').to_owned();
            if number < self.stuck.load(Ordering::SeqCst) {
                continue;
            }
            let answer = match command {
                "LOGIN" => {
                    self.logins.fetch_add(1, Ordering::SeqCst);
                    let is_right = line.ends_with("LOGIN \"ann\" \"open sesame\"");
                    if is_right { "OK welcome" } else { "NO who are you?" }
                }
                "SELECT" | "EXAMINE" => {
                    stream.write_all(b"* 3 EXISTS\r\n* 0 RECENT\r\n* FLAGS ()\r\n")?;
                    selected = Some(argument);
                    "OK selected"
                }
                "UNSELECT" if self.is_old.load(Ordering::SeqCst) => "BAD what is that?",
                "UNSELECT" => selected.take().map_or("BAD nothing selected", |_| "OK left"),
                // Tells of a mailbox whoever has one selected.
                "NOOP" => {
                    self.noops.fetch_add(1, Ordering::SeqCst);
                    let told = selected.as_ref().map_or("* 1 RECENT", |_| "* 4 EXISTS");
                    stream.write_all(format!("{told}\r\n").as_bytes())?;
                    "OK done"
                }
                // Not what it is for: but so it tells which mailbox is selected.
                "SEARCH" => match &selected {
                    Some(mailbox) if *mailbox == argument => "OK that one",
                    Some(_) => "NO another one",
                    None => "BAD none",
                },
                "LOGOUT" => {
                    self.farewells.fetch_add(1, Ordering::SeqCst);
                    while self.drags_on.load(Ordering::SeqCst) {
                        stream.write_all(b"*")?;
                        std::thread::sleep(Duration::from_millis(20));
                    }
                    stream.write_all(format!("* BYE\r\n{tag} OK bye\r\n").as_bytes())?;
                    return Ok(());
                }
                _ => "BAD what?",
            };
            stream.write_all(format!("{tag} {answer}\r\n").as_bytes())?;
        }
        Ok(())
    }
}

fn imap() -> Builder<Imap> {
    Pool::builder(Imap::new("ann", "open sesame")).check_timeout(SOON).settle_timeout(SOON)
}

/// What the server has selected for this connection, if anything.
fn has_selected(mail: &mut Mail, mailbox: &str) -> Result<(), String> {
    mail.run_command_and_check_ok(format!("SEARCH {mailbox}")).map_err(|error| error.to_string())
}

#[test]
fn many_threads_share_four_sessions_and_each_is_in_its_own_mailbox() {
    let _watchdog = watchdog();
    let server = Server::new();
    let pool = imap().max_per_endpoint(4).build().unwrap();
    let endpoint = server.endpoint(&pool);
    let exchange = |number: usize| {
        let mut mail = endpoint.get_timeout(SOON).unwrap();
        let left = has_selected(&mut mail, "any").unwrap_err();
        assert!(left.contains("none"), "somebody else's mailbox: {left}");
        let mailbox = format!("box{number}");
        assert_eq!(mail.select(&mailbox).unwrap().exists, 3);
        has_selected(&mut mail, &mailbox).unwrap();
    };
    under_load(exchange, |load| load.await_more(500));
    eventually("the last ones are settled", || pool.stats().checking() == 0);
    let stats = pool.stats();
    assert!(stats.opened() <= 4, "{stats}");
    assert_eq!(stats.closed(), 0, "{stats}");
    assert_at_rest(&stats);
}

#[test]
fn a_mailbox_left_selected_closes_the_session_where_the_server_cannot_unselect() {
    let _watchdog = watchdog();
    let server = Server::new();
    server.seen.is_old.store(true, Ordering::SeqCst);
    let pool = imap().build().unwrap();
    let endpoint = server.endpoint(&pool);
    endpoint.get().unwrap().examine("inbox").unwrap();
    let refused = || pool.stats().closed_for(CloseReason::ResetRefused);
    eventually("it is closed", || refused() == 1);
    drop(endpoint.get().unwrap());
    assert_eq!((refused(), pool.stats().idle()), (1, 1), "nothing was selected this time");
}

#[test]
fn a_peer_that_hangs_up_on_idle_sessions_is_noticed_at_once() {
    let _watchdog = watchdog();
    let server = Server::new();
    let pool = imap().build().unwrap();
    let endpoint = server.endpoint(&pool);
    assert_eq!(endpoint.warm(3, SOON).unwrap(), 3);
    server.scripted.hang_up();
    eventually("they are closed", || pool.stats().total() == 0);
    assert_eq!(pool.stats().closed_for(CloseReason::PeerClosed), 3);
    endpoint.get().unwrap().noop().unwrap();
}

#[test]
fn idle_sessions_are_kept_alive_by_the_event_loop_whatever_else_the_server_says() {
    let _watchdog = watchdog();
    let server = Server::new();
    let pool = imap().check_interval(Duration::from_millis(50)).build().unwrap();
    let endpoint = server.endpoint(&pool);
    assert_eq!(endpoint.warm(2, SOON).unwrap(), 2);
    eventually("heartbeats", || server.seen.noops.load(Ordering::SeqCst) >= 6);
    endpoint.get().unwrap().noop().unwrap();
    assert_eq!(pool.stats().closed(), 0, "every answer was one: {}", pool.stats());
}

#[test]
fn a_session_that_has_rested_is_asked_before_it_goes_out_and_replaced_if_it_does_not_answer() {
    let _watchdog = watchdog();
    let server = Server::new();
    let pool = imap().check_after(Duration::ZERO).check_timeout(Duration::from_millis(100));
    let pool = pool.build().unwrap();
    let endpoint = server.endpoint(&pool);
    assert_eq!(endpoint.warm(1, SOON).unwrap(), 1);
    server.seen.stuck.store(1, Ordering::SeqCst);
    // The clock that tells how long it was idle ticks every few milliseconds.
    std::thread::sleep(Duration::from_millis(50));
    let mut mail = endpoint.get_timeout(SOON).unwrap();
    assert!(!PooledConn::is_reused(&mail));
    mail.noop().unwrap();
    drop(mail);
    eventually("the other one is closed", || pool.stats().closed() == 1);
    let stats = pool.stats();
    // The check and its deadline end at the same time.
    let reasons = [CloseReason::CheckFailed, CloseReason::TooLate];
    let closed: u64 = reasons.iter().map(|&reason| stats.closed_for(reason)).sum();
    assert_eq!(closed, 1, "{stats}");
    assert_at_rest(&pool.stats());
}

#[test]
fn a_session_whose_answer_was_not_awaited_goes_to_nobody_else() {
    let _watchdog = watchdog();
    let server = Server::new();
    let connector = Imap::new("ann", "open sesame").timeout(Duration::from_millis(50));
    let pool = Pool::builder(connector).build().unwrap();
    let endpoint = server.endpoint(&pool);
    let mut mail = endpoint.get().unwrap();
    server.seen.stuck.store(1, Ordering::SeqCst);
    mail.noop().unwrap_err();
    drop(mail);
    assert_eq!(pool.stats().closed_for(CloseReason::NotOpen), 1);
    assert!(!PooledConn::is_reused(&endpoint.get().unwrap()));
}

#[test]
fn a_command_whose_answer_was_not_read_is_not_answered_to_somebody_else() {
    let _watchdog = watchdog();
    let server = Server::new();
    let pool = imap().build().unwrap();
    let endpoint = server.endpoint(&pool);
    endpoint.get().unwrap().run_command("NOOP").unwrap();
    assert_eq!(pool.stats().closed_for(CloseReason::NotOpen), 1);
    endpoint.get().unwrap().noop().unwrap();
}

#[test]
fn a_server_that_hangs_up_under_load_fails_one_user_of_each_connection_at_most() {
    let _watchdog = watchdog();
    let server = Server::new();
    let pool = imap().max_per_endpoint(4).build().unwrap();
    let endpoint = server.endpoint(&pool);
    let failed = AtomicUsize::new(0);
    let exchange = |_| {
        // While it is being opened, one may be hung up on as well.
        let Ok(mut mail) = endpoint.get_timeout(SOON) else { return };
        if mail.noop().is_err() {
            failed.fetch_add(1, Ordering::SeqCst);
        }
    };
    under_load(exchange, |load| {
        for _ in 0..10 {
            load.await_more(50);
            server.scripted.hang_up();
        }
        load.await_more(50);
    });
    eventually("all are judged", || pool.stats().checking() == 0);
    assert_at_rest(&pool.stats());
    let (failed, closed) = (failed.into_inner() as u64, pool.stats().closed());
    assert!(failed <= closed, "{failed} users met {closed} dead connections");
    endpoint.get().unwrap().noop().unwrap();
}

#[test]
fn a_user_who_panics_takes_nothing_but_his_own_session_along() {
    let _watchdog = watchdog();
    let server = Server::new();
    let pool = imap().build().unwrap();
    let endpoint = server.endpoint(&pool);
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let mut mail = endpoint.get().unwrap();
        mail.select("inbox").unwrap();
        mail.run_command("NOOP").unwrap();
        panic!("a user's mistake");
    }));
    panicked.unwrap_err();
    assert_eq!(pool.stats().closed_for(CloseReason::Panicked), 1);
    let left = has_selected(&mut endpoint.get().unwrap(), "inbox").unwrap_err();
    assert!(left.contains("none"), "{left}");
    assert_at_rest(&pool.stats());
}

#[test]
fn what_the_server_told_one_user_is_not_told_to_the_next() {
    let _watchdog = watchdog();
    let server = Server::new();
    let pool = imap().max_per_endpoint(1).build().unwrap();
    let endpoint = server.endpoint(&pool);
    for mailbox in [None, Some("inbox")] {
        let mut mail = endpoint.get_timeout(SOON).unwrap();
        mailbox.map(|mailbox| mail.select(mailbox).unwrap());
        mail.noop().unwrap();
        drop(mail);
        let mail = endpoint.get_timeout(SOON).unwrap();
        assert!(PooledConn::is_reused(&mail));
        assert!(mail.unsolicited_responses.try_recv().is_err(), "somebody else's news");
    }
}

#[test]
fn a_server_that_drags_out_its_farewell_holds_up_no_other_close() {
    let _watchdog = watchdog();
    let server = Server::new();
    server.seen.drags_on.store(true, Ordering::SeqCst);
    let pool = imap().build().unwrap();
    // More than are closed at a time.
    assert_eq!(server.endpoint(&pool).warm(20, SOON).unwrap(), 20);
    pool.close();
    eventually("farewells", || server.seen.farewells.load(Ordering::SeqCst) == 20);
    eventually("all are closed", || server.scripted.open() == 0);
}

#[test]
fn idle_sessions_log_out_when_the_pool_ends() {
    let _watchdog = watchdog();
    let server = Server::new();
    let pool = imap().build().unwrap();
    assert_eq!(server.endpoint(&pool).warm(3, SOON).unwrap(), 3);
    pool.close();
    eventually("farewells", || server.seen.farewells.load(Ordering::SeqCst) == 3);
}

#[test]
fn a_wrong_password_is_refused_in_the_servers_words_and_not_shown() {
    let _watchdog = watchdog();
    let server = Server::new();
    let pool = Pool::builder(Imap::new("ann", "hunter2")).build().unwrap();
    let error = server.endpoint(&pool).get_timeout(SOON).map(drop).unwrap_err();
    assert_eq!((error.kind(), error.phase()), (ErrorKind::Connect, Some(Phase::Open)));
    let text = format!("{error} {error:?}");
    assert!(text.contains("who are you?") && !text.contains("hunter2"), "{text}");
    assert_empty(&pool.stats());
}

#[test]
fn many_who_insist_on_a_wrong_password_cost_the_server_one_attempt_per_pause() {
    let _watchdog = watchdog();
    let server = Server::new();
    let pool = Pool::builder(Imap::new("ann", "hunter2")).fail_fast(false).max_connecting(4);
    let pool = pool.build().unwrap();
    let (endpoint, began) = (server.endpoint(&pool), Instant::now());
    std::thread::scope(|scope| {
        for _ in 0..64 {
            scope.spawn(|| {
                let error = endpoint.get_timeout(Duration::from_secs(1)).map(drop).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Timeout);
                assert!(error.to_string().contains("who are you?"), "{error}");
            });
        }
    });
    eventually("the last attempt ends", || pool.stats().total() == 0);
    // Four at once, as none had failed yet; then one at a time, 50 ms after the last at least.
    let most = 4 + 1 + began.elapsed().as_millis() / 50;
    let attempts = server.seen.logins.load(Ordering::SeqCst);
    assert!(attempts as u128 <= most, "{attempts} attempts, {most} at the most");
    assert_empty(&pool.stats());
}

#[test]
fn a_server_of_another_protocol_is_an_error_by_the_deadline_and_leaves_nothing_behind() {
    let _watchdog = watchdog();
    for (what, server) in strangers() {
        // They wait to be spoken to, or go on without an end, and so the client waits for more.
        let waits = ["silent", "HTTP", "TLS", "redis", "bytes without end"].contains(&what);
        let longest = if waits { Duration::from_millis(300) } else { SOON };
        let pool = imap().connect_timeout(longest).build().unwrap();
        let error = pool.get_timeout(&server.address(), SOON).map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Connect, "{what}: {error}");
        assert_eq!(error.failure() == Some(Failure::Timeout), waits, "{what}: {error}");
        let is_quoted = error.to_string().contains("220-nobody you know");
        assert!(is_quoted || what != "a banner", "{error}");
        assert_empty(&pool.stats());
        eventually("the server is left", || server.open() == 0);
    }
}
