//! Servers that say nothing any more, or hardly anything, and hang up on nobody.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use interop::postgres::Postgres;
use interop::scripted::{Scripted, relay};
use interop::support::{SOON, Stopped, assert_at_rest, eventually, watchdog};
use interop::{servers, trials};
use postgres::{Config, NoTls};
use warmline::{CloseReason, Deadline, Endpoint, PooledConn};

use crate::{ask, backend, config, endpoint, endpoint_with};

/// Eight that are in use at the same time, each of which answers.
fn eight(endpoint: &Endpoint<Postgres>) -> Vec<(PooledConn<Postgres>, i32)> {
    std::thread::scope(|scope| {
        let get = |number| {
            let mut conn = endpoint.get().unwrap();
            ask(&mut conn, number).unwrap();
            let pid = backend(&mut conn);
            (conn, pid)
        };
        let callers: Vec<_> = (0..8).map(|number| scope.spawn(move || get(number))).collect();
        callers.into_iter().map(|caller| caller.join().unwrap()).collect()
    })
}

#[test]
fn connections_whose_servers_hang_hold_up_neither_users_nor_the_end_of_others() {
    let _watchdog = watchdog();
    let Some(server) = servers::postgres(&[]) else { return };
    let timeout = Duration::from_millis(500);
    let endpoint = endpoint(&server, |it| {
        it.max_per_endpoint(8).check_after(Duration::from_millis(1)).check_timeout(timeout)
    });
    let mut admin = config(&server).connect(NoTls).unwrap();
    let mut sessions = || -> Vec<i32> {
        let query = "SELECT pid FROM pg_stat_activity
                     WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
        admin.query(query, &[]).unwrap().iter().map(|row| row.get(0)).collect()
    };
    let (held, hung): (Vec<_>, Vec<_>) = eight(&endpoint).into_iter().unzip();
    let stopped = Stopped::new(hung.clone());
    drop(held);
    // That they are idle for longer than that is what a check is due after.
    std::thread::sleep(Duration::from_millis(50));
    for round in 0..4 {
        let (conns, pids): (Vec<_>, Vec<_>) = eight(&endpoint).into_iter().unzip();
        assert!(pids.iter().all(|pid| !hung.contains(pid)), "{pids:?} of {hung:?}");
        if round % 2 == 0 {
            conns.into_iter().for_each(PooledConn::discard);
        } else {
            drop(conns);
            endpoint.evict();
        }
        eventually("these are gone", || {
            let sessions = sessions();
            assert!(sessions.len() <= 8 + hung.len(), "{sessions:?}");
            pids.iter().all(|pid| !sessions.contains(pid))
        });
    }
    let stats = endpoint.stats();
    let unanswered = stats.closed_for(CloseReason::CheckFailed);
    assert!(unanswered + stats.closed_for(CloseReason::TooLate) >= 8, "{stats}");
    assert_at_rest(&stats);
    endpoint.pool().drain(Deadline::after(SOON)).unwrap();
    // The late answers find nobody, and the sessions end.
    assert_eq!(sessions().len(), hung.len());
    drop(stopped);
    eventually("all are gone", || sessions().is_empty());
}

/// The beginning of a very long notice.
const LONG: &[u8] = b"N\x3f\xff\xff\xff";

#[test]
fn a_byte_now_and_then_in_place_of_an_answer_costs_callers_no_more_than_the_deadline() {
    let _watchdog = watchdog();
    let server = Scripted::new(|mut peer| {
        let _request = peer.read(&mut [0; 1024])?;
        peer.write_all(LONG)?;
        loop {
            peer.write_all(b"S")?;
            std::thread::sleep(Duration::from_millis(10));
        }
    });
    let mut config = Config::new();
    config.host("127.0.0.1").port(server.address().port()).user("postgres");
    let endpoint = endpoint_with(config, |it| it.connect_timeout(Duration::from_millis(300)));
    trials::leaves_clients_behind(&endpoint, server);
}

#[test]
fn a_byte_now_and_then_in_answer_to_a_check_costs_its_caller_a_moment_and_he_gets_another() {
    let _watchdog = watchdog();
    let Some(server) = servers::postgres(&[]) else { return };
    let is_due = Arc::new(AtomicBool::new(false));
    let relay = relay(server.address(), LONG, Arc::clone(&is_due));
    let mut config = Config::new();
    config.host("127.0.0.1").port(relay.address().port()).user("postgres");
    let endpoint = endpoint_with(config, |it| {
        it.check_after(Duration::from_millis(1)).check_timeout(Duration::from_millis(300))
    });
    let first = backend(&mut endpoint.get().unwrap());
    is_due.store(true, Ordering::SeqCst);
    std::thread::sleep(Duration::from_millis(50)); // until a check is due
    let mut conn = endpoint.get().unwrap();
    assert_ne!(backend(&mut conn), first);
    ask(&mut conn, 1).unwrap();
    eventually("the first is closed", || endpoint.stats().closed() == 1);
    drop(conn);
    endpoint.pool().drain(Deadline::after(SOON)).unwrap();
}
