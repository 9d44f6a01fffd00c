//! Answers that are cut off, and servers that say nothing any more, or hardly anything.

use std::fs;
use std::io::Write;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use interop::mysql::Conn;
use interop::scripted::{Scripted, relay};
use interop::support::{SOON, Stopped, eventually, under_load, watchdog};
use interop::{servers, trials};
use mysql::prelude::Queryable;
use mysql::{OptsBuilder, TxOpts};
use warmline::ErrorKind;

use crate::{ask, endpoint, endpoint_with, options};

/// One row at once, large enough for the server not to keep it for the next, which comes when the
/// lock is free.
const STALLS: &str = "SELECT REPEAT('x', 40000) UNION ALL SELECT GET_LOCK('gate', 60)";

#[test]
fn an_answer_that_is_cut_off_is_nobodys() {
    let _watchdog = watchdog();
    let Some(server) = servers::mariadb(&[]) else { return };
    let patience = Duration::from_millis(500);
    let options = || options(&server).read_timeout(Some(patience));
    let ways: [fn(&mut Conn); 9] = [
        |conn| drop(conn.query::<String, _>(STALLS)),
        |conn| drop(conn.query_first::<String, _>(STALLS)),
        |conn| drop(conn.query_drop(STALLS)),
        |conn| drop(conn.exec::<String, _, _>(STALLS, ())),
        |conn| drop(conn.exec_first::<String, _, _>(STALLS, ())),
        |conn| drop(conn.exec_drop(STALLS, ())),
        |conn| drop(conn.query_iter(STALLS).unwrap().next().unwrap().unwrap()),
        |conn| drop(conn.exec_first_opt::<String, _, _>(STALLS, ()).unwrap().unwrap()),
        |conn| {
            let mut transaction = conn.start_transaction(TxOpts::default()).unwrap();
            drop(transaction.query_first::<String, _>(STALLS));
        },
    ];
    let holder = endpoint(&server, |it| it);
    for (way, cut_off) in ways.into_iter().enumerate() {
        for is_late in [false, true] {
            let endpoint = endpoint_with(options(), |it| it.max_per_endpoint(1));
            let mut conn = endpoint.get().unwrap();
            let first = conn.connection_id();
            let mut gate = holder.get().unwrap();
            // Sessions that were cut off may have it, or wait for it, until they see their end.
            gate.query_drop("DO GET_LOCK('gate', 20)").unwrap();
            cut_off(&mut conn);
            if is_late {
                gate.query_drop("DO RELEASE_LOCK('gate')").unwrap();
                let working = format!(
                    "SELECT COUNT(*) FROM information_schema.PROCESSLIST
                     WHERE ID = {first} AND COMMAND <> 'Sleep'"
                );
                eventually("the rest has been sent", || {
                    gate.query_first::<i64, _>(&working).unwrap() == Some(0)
                });
            }
            drop(conn);
            for number in 100..105 {
                let mut conn = endpoint.get().unwrap();
                assert_ne!(conn.connection_id(), first, "{way}, {is_late}");
                ask(&mut conn, number).unwrap();
            }
            let stats = endpoint.stats();
            assert_eq!((stats.opened(), stats.closed()), (2, 1), "{way}, {is_late}: {stats}");
        }
    }
}

#[test]
fn an_answer_that_its_user_does_not_read_to_its_end_is_not_the_nexts() {
    let _watchdog = watchdog();
    let Some(server) = servers::mariadb(&[]) else { return };
    let endpoint = endpoint(&server, |it| it.max_per_endpoint(1));
    let query = "SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3";
    let first = endpoint.get().unwrap().connection_id();
    let mut conn = endpoint.get().unwrap();
    let mut answer = conn.query_iter(query).unwrap();
    answer.next().unwrap().unwrap();
    drop(answer); // the client reads the rest
    drop(conn);
    let mut conn = endpoint.get().unwrap();
    assert_eq!(conn.connection_id(), first);
    let mut answer = conn.query_iter(query).unwrap();
    answer.next().unwrap().unwrap();
    mem::forget(answer);
    drop(conn);
    for number in 100..110 {
        let mut conn = endpoint.get().unwrap();
        assert_ne!(conn.connection_id(), first);
        ask(&mut conn, number).unwrap();
    }
    let stats = endpoint.stats();
    assert_eq!((stats.opened(), stats.closed()), (2, 1), "{stats}");
}

#[test]
fn an_error_in_the_middle_of_an_answer_is_its_end_and_the_connection_is_used_on() {
    let _watchdog = watchdog();
    let Some(server) = servers::mariadb(&[]) else { return };
    let endpoint = endpoint(&server, |it| it.max_per_endpoint(1));
    let fails = "SELECT 1; SELECT * FROM nowhere";
    endpoint.get().unwrap().query_drop(fails).unwrap_err();
    endpoint.get().unwrap().query_first::<i64, _>("SELECT * FROM nowhere").unwrap_err();
    ask(&mut endpoint.get().unwrap(), 1).unwrap();
    assert_eq!(endpoint.stats().opened(), 1);
}

#[test]
fn callers_of_a_server_that_hangs_keep_their_deadline_and_late_answers_reach_nobody() {
    let _watchdog = watchdog();
    let Some(server) = servers::mariadb(&[]) else { return };
    let brief = Duration::from_millis(300);
    let options = options(&server).read_timeout(Some(brief));
    let endpoint = endpoint_with(options, |it| {
        it.max_per_endpoint(4).check_after(Duration::from_millis(1)).check_timeout(brief)
    });
    assert_eq!(endpoint.warm(4, SOON).unwrap(), 4);
    let pid = fs::read_to_string(server.folder().join("pid")).unwrap();
    let stopped = Stopped::new([pid.trim().parse().unwrap()]);
    std::thread::sleep(Duration::from_millis(50)); // until a check is due
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let error = endpoint.get_timeout(brief * 2).map(drop).unwrap_err();
                let kind = error.kind();
                assert!(matches!(kind, ErrorKind::Timeout | ErrorKind::Connect), "{error}");
            });
        }
    });
    drop(stopped);
    eventually("it is found", || endpoint.get().is_ok_and(|mut conn| ask(&mut conn, 1).is_ok()));
    let exchange = |number: usize| ask(&mut endpoint.get().unwrap(), number as i64).unwrap();
    under_load(exchange, |load| load.await_more(200));
}

/// The beginning of a packet that is very long, but not longer than a client takes; the first of
/// its session, or of an answer.
const LONG: [&[u8]; 2] = [b"\xff\xff\x0f\0", b"\xff\xff\x0f\x01"];

#[test]
fn a_byte_now_and_then_in_place_of_an_answer_costs_callers_no_more_than_the_deadline() {
    let _watchdog = watchdog();
    let server = Scripted::new(|mut peer| {
        peer.write_all(LONG[0])?;
        loop {
            peer.write_all(b"\n")?;
            std::thread::sleep(Duration::from_millis(10));
        }
    });
    let options = OptsBuilder::new().ip_or_hostname(Some("127.0.0.1"));
    // Each byte comes in time for the client, which goes on waiting for the next.
    let options = options.tcp_port(server.address().port()).read_timeout(Some(SOON));
    let endpoint = endpoint_with(options, |it| it.connect_timeout(Duration::from_millis(300)));
    trials::leaves_clients_behind(&endpoint, server);
}

#[test]
fn a_byte_now_and_then_in_answer_to_a_check_costs_its_caller_a_moment_and_he_gets_another() {
    let _watchdog = watchdog();
    let Some(server) = servers::mariadb(&[]) else { return };
    let is_due = Arc::new(AtomicBool::new(false));
    let relay = relay(server.address(), LONG[1], Arc::clone(&is_due));
    let options = options(&server).tcp_port(relay.address().port()).read_timeout(Some(SOON));
    let endpoint = endpoint_with(options, |it| {
        it.check_after(Duration::from_millis(1)).check_timeout(Duration::from_millis(300))
    });
    let first = endpoint.get().unwrap().connection_id();
    is_due.store(true, Ordering::SeqCst);
    std::thread::sleep(Duration::from_millis(50)); // until a check is due
    let mut conn = endpoint.get().unwrap();
    assert_ne!(conn.connection_id(), first);
    ask(&mut conn, 1).unwrap();
    eventually("left behind", || endpoint.stats().abandoned() == 1);
    drop((conn, relay));
    eventually("over", || endpoint.stats().abandoned() == 0);
}
