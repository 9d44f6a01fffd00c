//! A real server: redis, if it is installed.

use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use warmline::{
    CloseReason, Driver, Endpoint, ErrorKind, Failure, Phase, Pool, PooledConn, Repeat,
    TcpConnector, UnixConnector,
};

use crate::support::programs::{Program, line, under_load};
use crate::support::{SOON, assert_balanced, assert_empty, await_loop, eventually, tcp, watchdog};

/// Sends a command and reads its one-line or bulk answer to the end.
fn command(conn: &mut (impl Read + Write), text: &str) -> io::Result<String> {
    conn.write_all(format!("{text}\r\n").as_bytes())?;
    let line = line(conn)?;
    let Some(size) = line.strip_prefix('$') else { return Ok(line) };
    let size: usize = size.parse().map_err(io::Error::other)?;
    let mut bulk = vec![0; size + 2];
    conn.read_exact(&mut bulk)?;
    bulk.truncate(size);
    String::from_utf8(bulk).map_err(io::Error::other)
}

fn get_and_set(endpoint: &Endpoint<TcpConnector>, thread: usize) {
    for number in 0..200 {
        let mut conn = endpoint.get_timeout(SOON).unwrap();
        let value = format!("{thread}-{number}");
        assert_eq!(command(&mut conn, &format!("SET key{thread} {value}")).unwrap(), "+OK");
        assert_eq!(command(&mut conn, &format!("GET key{thread}")).unwrap(), value);
    }
}

#[test]
fn many_threads_share_a_few_connections_and_get_their_own_answers() {
    let _watchdog = watchdog();
    let Some(redis) = Program::redis(&[]) else { return };
    let pool = Pool::builder(TcpConnector::new()).max_per_endpoint(4).build().unwrap();
    let endpoint = pool.endpoint(&redis.address()).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..12 {
            let endpoint = &endpoint;
            scope.spawn(move || get_and_set(endpoint, thread));
        }
    });
    let stats = pool.stats();
    assert!(stats.opened() <= 4, "{stats}");
    assert_eq!((stats.checkouts(), stats.closed(), stats.in_use()), (2400, 0, 0));
}

#[test]
fn a_server_that_kills_its_clients_harms_no_exchange_that_may_be_repeated() {
    let _watchdog = watchdog();
    let Some(redis) = Program::redis(&[]) else { return };
    let pool = Pool::tcp();
    let endpoint = pool.endpoint(&redis.address()).unwrap();
    assert_eq!(endpoint.warm(6, SOON).unwrap(), 6);
    let held: Vec<_> = (0..6).map(|_| endpoint.get().unwrap()).collect();
    held.into_iter().for_each(|mut conn| drop(command(&mut conn, "PING").unwrap()));
    let admin = Pool::tcp();
    let mut admin = admin.get(&redis.address()).unwrap();
    let killed = command(&mut admin, "CLIENT KILL TYPE normal SKIPME yes").unwrap();
    assert_eq!(killed, ":6");
    for _ in 0..10 {
        let pong = endpoint.run(Repeat::Always, |conn| command(conn, "PING")).unwrap();
        assert_eq!(pong, "+PONG");
    }
    let stats = pool.stats();
    assert_eq!(stats.idle() + stats.in_use(), 1, "the dead ones were used up: {stats}");
    assert_balanced(&stats);
}

#[test]
fn a_server_that_ends_takes_its_connections_with_it() {
    let _watchdog = watchdog();
    let Some(redis) = Program::redis(&[]) else { return };
    let pool = Pool::builder(UnixConnector::new()).build().unwrap();
    let path = redis.folder().join("redis.sock");
    let mut conn = pool.get(&path).unwrap();
    assert_eq!(command(&mut conn, "SET a 1").unwrap(), "+OK");
    assert!(!PooledConn::is_reused(&conn));
    drop(redis);
    command(&mut conn, "GET a").unwrap_err();
    drop(conn);
    assert_eq!(pool.stats().total(), 0);
}

#[test]
fn a_server_that_is_killed_fails_what_is_in_flight_and_nothing_once_it_is_back() {
    let _watchdog = watchdog();
    let Some(mut redis) = Program::redis(&[]) else { return };
    let driver = Driver::new();
    let pool = tcp().driver(&driver).build().unwrap();
    let endpoint = pool.endpoint(&redis.address()).unwrap();
    let ask = |number: usize| -> io::Result<String> {
        command(&mut endpoint.get()?, &format!("ECHO {number}"))
    };
    // Odd while the server is down.
    let (era, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let exchange = |number: usize| {
        let before = era.load(Ordering::SeqCst);
        match ask(number) {
            Ok(answer) => assert_eq!(answer, number.to_string(), "somebody else's answer"),
            Err(error) => {
                let after = era.load(Ordering::SeqCst);
                assert!(before % 2 == 1 || before != after, "the server was up: {error}");
                failed.fetch_add(1, Ordering::SeqCst);
                // It would be refused again at once, again and again.
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    };
    under_load(exchange, |load| {
        for _ in 0..3 {
            load.await_more(200);
            era.fetch_add(1, Ordering::SeqCst);
            redis.kill();
            let before = failed.load(Ordering::SeqCst);
            eventually("checkouts fail", || failed.load(Ordering::SeqCst) >= before + 20);
            redis.start_again();
            eventually("the pool finds it", || ask(0).is_ok());
            // And it has heard of all that died.
            await_loop(&driver);
            era.fetch_add(1, Ordering::SeqCst);
        }
        load.await_more(200);
    });
    let stats = pool.stats();
    assert_eq!((stats.in_use(), stats.waiting()), (0, 0), "{stats}");
    assert_balanced(&stats);
}

#[test]
fn exchanges_that_may_be_repeated_do_not_notice_that_the_server_is_killed_and_started_again() {
    let _watchdog = watchdog();
    let Some(mut redis) = Program::redis(&[]) else { return };
    let pool = tcp().checkout_timeout(SOON).max_per_endpoint(4).build().unwrap();
    let endpoint = pool.endpoint(&redis.address()).unwrap();
    let exchange = |number: usize| {
        let request = format!("ECHO {number}");
        let answer = endpoint.run(Repeat::Always, |conn| command(conn, &request));
        assert_eq!(answer.unwrap(), number.to_string());
    };
    under_load(exchange, |load| {
        for _ in 0..3 {
            load.await_more(200);
            redis.kill();
            let before = endpoint.stats().connects_failed();
            eventually("attempts fail", || endpoint.stats().connects_failed() >= before + 3);
            redis.start_again();
        }
        load.await_more(200);
    });
    let stats = pool.stats();
    assert_eq!((stats.in_use(), stats.waiting()), (0, 0), "{stats}");
    assert_balanced(&stats);
}

#[test]
fn a_server_that_closes_what_is_idle_for_a_second_is_never_met_with_a_dead_connection() {
    let _watchdog = watchdog();
    let Some(redis) = Program::redis(&["--timeout", "1"]) else { return };
    let pool = Pool::tcp();
    let endpoint = pool.endpoint(&redis.address()).unwrap();
    assert_eq!(endpoint.warm(6, SOON).unwrap(), 6);
    let closed = || endpoint.stats().closed_for(CloseReason::PeerClosed);
    // The one that was used last is used next. The others get old.
    eventually("the server closes the others", || {
        assert_eq!(command(&mut endpoint.get().unwrap(), "PING").unwrap(), "+PONG");
        closed() >= 5
    });
    eventually("the server closes the last", || endpoint.stats().idle() == 0);
    let mut conn = endpoint.get().unwrap();
    assert!(!PooledConn::is_reused(&conn));
    assert_eq!(command(&mut conn, "PING").unwrap(), "+PONG");
    assert_eq!(endpoint.stats().closed(), closed(), "all for one reason");
}

#[test]
fn a_full_server_is_quoted_in_every_error_and_used_once_it_has_room() {
    let _watchdog = watchdog();
    let Some(redis) = Program::redis(&["--maxclients", "4"]) else { return };
    let others: Vec<_> = std::iter::from_fn(|| redis.take_a_place()).collect();
    assert_eq!(others.len(), 4);
    let pool = Pool::builder(redis.connector()).max_per_endpoint(2).build().unwrap();
    let endpoint = pool.endpoint(&redis.address()).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let error = endpoint.get_timeout(SOON).unwrap_err();
                assert_eq!((error.kind(), error.phase()), (ErrorKind::Connect, Some(Phase::Open)));
                assert_eq!(error.failure(), Some(Failure::Other));
                let text = error.to_string();
                assert!(text.contains("max number of clients reached"), "{text}");
            });
        }
    });
    assert_empty(&pool.stats());
    drop(others);
    let ping = |conn: &mut _| command(conn, "PING").is_ok_and(|answer| answer == "+PONG");
    eventually("it is used", || endpoint.get().is_ok_and(|mut conn| ping(&mut conn)));
}

#[test]
fn threads_share_the_few_connections_that_a_server_has_left() {
    let _watchdog = watchdog();
    let Some(redis) = Program::redis(&["--maxclients", "5"]) else { return };
    let _others = [(); 3].map(|()| redis.take_a_place().unwrap());
    let pool = Pool::builder(redis.connector()).build().unwrap();
    let endpoint = pool.endpoint(&redis.address()).unwrap();
    let held = [endpoint.get().unwrap(), endpoint.get().unwrap()];
    eventually("a time-out that quotes the server", || {
        let error = endpoint.get_timeout(Duration::from_millis(100)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        error.to_string().contains("max number of clients reached")
    });
    drop(held);
    let ask = |number: usize| {
        let mut conn = endpoint.get_timeout(SOON).unwrap();
        assert_eq!(command(&mut conn, &format!("ECHO {number}")).unwrap(), number.to_string());
    };
    under_load(ask, |load| load.await_more(2000));
    let stats = pool.stats();
    assert_eq!((stats.opened(), stats.idle()), (2, 2), "{stats}");
}

#[test]
fn a_connection_that_a_full_server_refused_is_lent_to_nobody_else() {
    let _watchdog = watchdog();
    let Some(redis) = Program::redis(&["--maxclients", "1"]) else { return };
    let other = redis.take_a_place().unwrap();
    let pool = tcp().max_per_endpoint(2).build().unwrap();
    let endpoint = pool.endpoint(&redis.address()).unwrap();
    for _ in 0..20 {
        // The server has accepted it, as far as TCP goes. It may be known by now to have ended.
        match endpoint.get_timeout(SOON).map(|mut conn| command(&mut conn, "PING")) {
            Ok(Ok(answer)) => assert_eq!(answer, "-ERR max number of clients reached"),
            Ok(Err(_)) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::Connect, "{error}"),
        }
        eventually("it is gone", || endpoint.stats().total() == 0);
    }
    assert_empty(&pool.stats());
    drop(other);
    let ping = || command(&mut endpoint.get()?, "PING");
    eventually("it is used", || ping().is_ok_and(|answer| answer == "+PONG"));
}
