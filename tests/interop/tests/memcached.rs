//! Memcached.
#![expect(clippy::disallowed_methods, reason = "tests start threads, wait and read the time")]

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use interop::memcached::Memcached;
use interop::scripted::Scripted;
use interop::servers::{self, Server};
use interop::support::{SOON, assert_at_rest, assert_empty, eventually, under_load, watchdog};
use interop::trials::{self, Attempts, assert_refused};
use warmline::{
    BoxError, Builder, CloseReason, Driver, Endpoint, ErrorKind, Failure, Pool, PooledConn,
};

fn builder() -> Builder<Memcached> {
    Pool::builder(Memcached::new())
}

fn endpoint(builder: Builder<Memcached>, address: SocketAddr) -> Endpoint<Memcached> {
    builder.build().unwrap().endpoint(&address).unwrap()
}

/// Keeps a value and reads it again, over one connection.
fn set_and_get(endpoint: &Endpoint<Memcached>, number: usize) -> Result<(), BoxError> {
    ask(&mut endpoint.get_timeout(SOON)?, number as i64)
}

fn ask(conn: &mut PooledConn<Memcached>, number: i64) -> Result<(), BoxError> {
    let (key, value) = (format!("key{number}"), number.to_string());
    conn.set(&key, value.as_bytes())?;
    let found = conn.get(&key)?.expect("what was kept a moment ago");
    assert_eq!(found, value.as_bytes(), "somebody else's answer");
    Ok(())
}

#[test]
fn many_threads_share_three_connections_and_read_what_they_wrote() {
    let _watchdog = watchdog();
    let Some(memcached) = servers::memcached(&[]) else { return };
    let endpoint = endpoint(builder().max_per_endpoint(3), memcached.address());
    under_load(|number| set_and_get(&endpoint, number).unwrap(), |load| load.await_more(1600));
    let stats = endpoint.stats();
    assert!(stats.opened() <= 3 && stats.closed() == 0, "{stats}");
    assert_at_rest(&stats);
}

#[test]
fn patient_callers_meet_errors_only_in_what_the_killed_server_was_doing() {
    let _watchdog = watchdog();
    let Some(mut memcached) = servers::memcached(&[]) else { return };
    let driver = Driver::new();
    let patient = builder().driver(&driver).max_per_endpoint(4);
    let patient = patient.fail_fast(false).checkout_timeout(SOON);
    let endpoint = endpoint(patient, memcached.address());
    trials::only_what_was_in_flight_fails(&mut memcached, &driver, &endpoint, ask);
}

#[test]
fn a_connection_of_a_thread_that_panicked_is_closed_and_its_room_is_free() {
    let _watchdog = watchdog();
    let Some(memcached) = servers::memcached(&[]) else { return };
    let endpoint = endpoint(builder().max_per_endpoint(1), memcached.address());
    trials::a_panic_ends_its_connection(&endpoint, |conn| conn.set("half", b"done").unwrap());
    set_and_get(&endpoint, 1).unwrap();
    assert_at_rest(&endpoint.stats());
}

#[test]
fn a_value_that_the_server_refuses_ends_the_connection_and_harms_nobody_else() {
    let _watchdog = watchdog();
    let Some(memcached) = servers::memcached(&[]) else { return };
    let endpoint = endpoint(builder().max_per_endpoint(1), memcached.address());
    let error = endpoint.get().unwrap().set("key", &[0; 2 << 20]).unwrap_err();
    assert!(error.to_string().contains("too large"), "{error}");
    set_and_get(&endpoint, 1).unwrap();
    assert_eq!(endpoint.stats().closed(), 1);
    assert_at_rest(&endpoint.stats());
}

#[test]
fn a_key_that_would_be_another_request_is_refused_before_it_is_sent() {
    let _watchdog = watchdog();
    let Some(memcached) = servers::memcached(&[]) else { return };
    let endpoint = endpoint(builder().max_per_endpoint(1), memcached.address());
    for key in ["a\r\nget b", "a b", "", &"k".repeat(251)] {
        let error = endpoint.get().unwrap().get(key).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
        set_and_get(&endpoint, 1).unwrap();
    }
    let stats = endpoint.stats();
    assert_eq!((stats.opened(), stats.closed()), (1, 0), "{stats}");
}

#[test]
fn connections_that_the_server_finds_idle_for_too_long_reach_no_user() {
    let _watchdog = watchdog();
    let Some(memcached) = servers::memcached(&["-o", "idle_timeout=1"]) else { return };
    let endpoint = endpoint(builder(), memcached.address());
    for _ in 0..2 {
        assert_eq!(endpoint.warm(6, SOON).unwrap(), 6);
        eventually("the server closes them", || {
            set_and_get(&endpoint, 1).unwrap();
            endpoint.stats().idle() <= 1
        });
    }
    let stats = endpoint.stats();
    assert!(stats.closed_for(CloseReason::PeerClosed) >= 10, "{stats}");
    assert_eq!(stats.closed(), stats.closed_for(CloseReason::PeerClosed), "{stats}");
    assert_at_rest(&stats);
}

/// What the server says to a command that the connector does not know, to its last line.
fn say(address: SocketAddr, command: &str, last: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(command.as_bytes()).unwrap();
    let mut said = String::new();
    let mut bytes = [0; 4096];
    while !said.ends_with(last) {
        let length = stream.read(&mut bytes).unwrap();
        assert!(length > 0, "{said}");
        said += std::str::from_utf8(&bytes[..length]).unwrap();
    }
    said
}

/// Waits for the middle of the next second but one of the server's clock. It looks for idle ones in
/// every other second only: so they are all of one age when they are found.
fn await_next_look(address: SocketAddr) {
    let second = || {
        let stats = say(address, "stats\r\n", "END\r\n");
        let uptime = stats.lines().find_map(|line| line.strip_prefix("STAT uptime "));
        uptime.unwrap().parse::<u64>().unwrap()
    };
    let before = second();
    eventually("the server's time goes on", || second() >= before + 2);
    std::thread::sleep(Duration::from_millis(400));
}

#[test]
fn the_time_out_of_a_server_is_learned_and_connections_are_closed_before_it() {
    let _watchdog = watchdog();
    let Some(memcached) = servers::memcached(&["-o", "idle_timeout=2"]) else { return };
    let address = memcached.address();
    let endpoint = endpoint(builder().max_idle_per_endpoint(32), address);
    assert_eq!(endpoint.stats().idle_limit(), None);
    // Once will do, unless the machine is so busy that they end some sooner, some later.
    while endpoint.stats().idle_limit().is_none() {
        endpoint.warm(24, SOON).unwrap();
        // Fewer each time: four of them grow old at a time.
        for count in [24, 20, 16, 12] {
            await_next_look(address);
            let mut held: Vec<_> = (0..count).map(|_| endpoint.get().unwrap()).collect();
            held.iter_mut().for_each(|conn| drop(conn.version().unwrap()));
        }
        eventually("all have ended", || endpoint.stats().idle() == 0);
        // One more, for who can be connected to has not gone down.
        set_and_get(&endpoint, 1).unwrap();
    }
    let learned = endpoint.stats().idle_limit().expect("it has seen enough");
    assert!(learned <= Duration::from_secs(4), "{learned:?}");
    let by_us = || endpoint.stats().closed_for(CloseReason::IdleTimeout);
    let before = by_us();
    // While the machine is busy the server may be first once more: that is learned as well.
    while by_us() == before {
        await_next_look(address);
        assert_eq!(endpoint.warm(6, SOON).unwrap(), 6);
        eventually("they have ended", || endpoint.stats().idle() == 0);
    }
    assert_at_rest(&endpoint.stats());
}

#[test]
fn heartbeats_find_a_server_that_hangs_and_no_user_has_its_connections() {
    let _watchdog = watchdog();
    let Some(memcached) = servers::memcached(&[]) else { return };
    let brief = Duration::from_millis(100);
    let asking = builder().check_interval(brief).check_timeout(brief);
    let endpoint = endpoint(asking, memcached.address());
    assert_eq!(endpoint.warm(3, SOON).unwrap(), 3);
    eventually("they are asked, and answer", || endpoint.stats().checks() >= 6);
    memcached.pause();
    let stats = || endpoint.stats();
    eventually("all are found out", || stats().idle() + stats().checking() == 0);
    assert!(stats().closed_for(CloseReason::TooLate) >= 3, "{}", stats());
    memcached.resume();
    eventually("it answers again", || set_and_get(&endpoint, 1).is_ok());
    assert_at_rest(&stats());
}

#[test]
fn an_answer_that_came_too_late_reaches_nobody() {
    let _watchdog = watchdog();
    let Some(memcached) = servers::memcached(&[]) else { return };
    let hasty = Pool::builder(Memcached::new().read_timeout(Duration::from_millis(200)));
    let endpoint = endpoint(hasty.max_per_endpoint(1), memcached.address());
    set_and_get(&endpoint, 0).unwrap();
    let mut conn = endpoint.get().unwrap();
    memcached.pause();
    conn.get("key0").unwrap_err();
    drop(conn);
    memcached.resume();
    // A busy machine may be late with other answers as well.
    for number in 1..10 {
        eventually("one that is in time", || set_and_get(&endpoint, number).is_ok());
    }
    assert!(endpoint.stats().opened() >= 2, "{}", endpoint.stats());
    assert_at_rest(&endpoint.stats());
}

#[test]
fn what_another_client_has_kept_is_read_whatever_flags_it_has() {
    let _watchdog = watchdog();
    let Some(memcached) = servers::memcached(&[]) else { return };
    say(memcached.address(), "set key 4294967295 0 5\r\nhello\r\n", "STORED\r\n");
    let endpoint = endpoint(builder(), memcached.address());
    assert_eq!(endpoint.get().unwrap().get("key").unwrap().unwrap(), b"hello");
    assert_eq!(endpoint.stats().closed(), 0);
}

#[test]
fn heartbeats_keep_connections_that_the_server_would_find_idle() {
    let _watchdog = watchdog();
    let Some(memcached) = servers::memcached(&["-o", "idle_timeout=3"]) else { return };
    let asking = builder().check_interval(Duration::from_millis(200)).check_timeout(SOON);
    let kept = endpoint(asking, memcached.address());
    let other = endpoint(builder().check_interval(None), memcached.address());
    assert_eq!((kept.warm(3, SOON).unwrap(), other.warm(1, SOON).unwrap()), (3, 1));
    eventually("one that is not asked ends", || other.stats().idle() == 0);
    eventually("those that are go on", || kept.stats().checks() >= 45);
    let stats = kept.stats();
    assert_eq!((stats.idle(), stats.closed()), (3, 0), "{stats}");
}

#[test]
fn a_full_server_is_quoted_and_those_that_are_there_are_used_on() {
    let _watchdog = watchdog();
    let Some(memcached) = servers::memcached(&["-c", "20"]) else { return };
    let full = endpoint(builder().max_per_endpoint(32), memcached.address());
    let mut held = Vec::new();
    // A few of the twenty are files of the server's own.
    while let Ok(conn) = full.get_timeout(Duration::from_millis(500)) {
        held.push(conn);
    }
    let other = endpoint(builder(), memcached.address());
    trials::is_quoted_when_full(&full, held, &other, "Too many open connections", ask);
}

/// A memcached that knows one user, and the folder of its list.
fn guarded() -> Option<(Server, tempfile::TempDir)> {
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("users");
    fs::write(&list, "somebody:the-right-one\n").unwrap();
    // It reads the list as whoever started it.
    servers::memcached(&["-Y", list.to_str().unwrap()]).map(|server| (server, folder))
}

#[test]
fn a_wrong_password_fails_fast_and_costs_the_server_one_attempt_per_pause() {
    let _watchdog = watchdog();
    let Some((memcached, _folder)) = guarded() else { return };
    let right = Pool::builder(Memcached::new().login("somebody", "the-right-one"));
    set_and_get(&endpoint(right, memcached.address()), 1).unwrap();
    let attempts = Attempts::default();
    let wrong = Pool::builder(Memcached::new().login("somebody", "the-wrong-one"));
    let wrong = endpoint(wrong.observer(attempts.clone()), memcached.address());
    trials::refuses_a_password(&wrong, "the-wrong-one", "authentication failure");
    trials::pauses_between_attempts(&wrong, || attempts.count());
}

#[test]
fn a_missing_password_is_named() {
    let _watchdog = watchdog();
    let Some((memcached, _folder)) = guarded() else { return };
    let endpoint = endpoint(builder(), memcached.address());
    assert_refused(&endpoint, "CLIENT_ERROR unauthenticated");
}

#[test]
fn a_password_is_told_to_those_alone_who_ask_for_it_and_shown_to_nobody() {
    let _watchdog = watchdog();
    let connector = || Memcached::new().login("somebody", "hunter2");
    let shown = format!("{:?}", connector());
    assert!(shown.starts_with("Memcached") && !shown.contains("hunter2"), "{shown}");
    // One that asks, and says again what it is told.
    let echo = Scripted::new(|mut peer| {
        let mut answer = b"CLIENT_ERROR unauthenticated\r\n".to_vec();
        while peer.read(&mut [0; 1024])? > 0 {
            peer.write_all(&answer)?;
            answer = b"ERROR somebody hunter2\r\n".to_vec();
        }
        Ok(())
    });
    let refusing = endpoint(Pool::builder(connector()).connect_timeout(SOON), echo.address());
    let error = refusing.get_timeout(SOON).map(drop).unwrap_err();
    let text = format!("{error:#} {error:?}");
    assert!(text.contains("no answer of memcached to a login"), "{text}");
    assert!(!text.contains("hunter2"), "{text}");
    // One that does not ask would keep it for all to read.
    let Some(memcached) = servers::memcached(&[]) else { return };
    let open = endpoint(Pool::builder(connector()), memcached.address());
    set_and_get(&open, 1).unwrap();
    let kept = say(memcached.address(), "stats\r\n", "END\r\n");
    assert!(kept.contains("STAT total_items 1\r\n"), "{kept}");
}

#[test]
fn a_server_that_is_down_is_told_from_one_that_refuses() {
    let _watchdog = watchdog();
    let Some(mut memcached) = servers::memcached(&[]) else { return };
    memcached.kill();
    let endpoint = endpoint(builder(), memcached.address());
    let error = endpoint.get_timeout(SOON).map(drop).unwrap_err();
    assert_eq!((error.kind(), error.failure()), (ErrorKind::Connect, Some(Failure::Refused)));
    assert_empty(&endpoint.stats());
}

#[test]
fn a_server_that_says_nothing_or_never_ends_costs_no_more_than_the_deadline() {
    let _watchdog = watchdog();
    trials::keeps_deadlines(b'V', |address| {
        endpoint(builder().connect_timeout(Duration::from_millis(300)), address)
    });
}

#[test]
fn a_server_that_hangs_up_or_speaks_tls_alone_is_an_error_at_once() {
    let _watchdog = watchdog();
    let tls = servers::memcached_over_tls(&[]);
    let hangs_up = Scripted::new(|_| Ok(()));
    let addresses = [Some(hangs_up.address()), tls.as_ref().map(Server::address)];
    for address in addresses.into_iter().flatten() {
        let endpoint = endpoint(builder().connect_timeout(SOON), address);
        let error = endpoint.get_timeout(SOON).map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Connect, "{error}");
        assert_ne!(error.failure(), Some(Failure::Timeout), "{error}");
        assert_empty(&endpoint.stats());
    }
}

#[test]
fn a_server_of_another_protocol_is_quoted_or_named_at_once() {
    let _watchdog = watchdog();
    let web = Scripted::new(|mut peer| {
        let _read = peer.read(&mut [0; 1024])?;
        peer.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    });
    let redis = servers::redis(&[]);
    let redis = redis.as_ref().map(|redis| (redis.address(), "unknown command"));
    let http = (web.address(), "400 Bad Request");
    for (address, said) in [Some(http), redis].into_iter().flatten() {
        let endpoint = endpoint(builder().connect_timeout(SOON), address);
        let error = assert_refused(&endpoint, said);
        assert_ne!(error.failure(), Some(Failure::Timeout), "{error}");
    }
}
