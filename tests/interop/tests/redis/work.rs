//! Work over a few connections, with a server that is killed meanwhile, and with users who leave
//! things behind.

use std::time::Duration;

use interop::support::{SOON, assert_at_rest, await_loop, eventually, watchdog};
use interop::{servers, trials};
use warmline::{BoxError, CloseReason, Driver, Endpoint, Pool, PooledConn};

use crate::clients::{Client, ask, echo, endpoint};

crate::with_both_clients! {
    many_threads_share_a_few_connections_and_read_what_they_wrote,
    patient_callers_meet_errors_only_in_what_the_killed_server_was_doing,
    connections_that_died_with_the_server_are_handed_to_nobody,
    a_transaction_of_a_thread_that_panicked_is_gone_with_its_connection,
    a_transaction_left_open_is_undone_and_its_connection_used_again,
    keys_that_were_left_watched_fail_no_transaction_of_the_next_user,
    a_connection_left_in_another_state_is_used_by_nobody_else,
    an_answer_that_came_too_late_reaches_nobody,
}

/// A checkout, and one command.
fn once<C: Client>(endpoint: &Endpoint<C>, line: &str) -> Result<String, BoxError> {
    ask::<C>(&mut *endpoint.get()?, line)
}

fn many_threads_share_a_few_connections_and_read_what_they_wrote<C: Client>() {
    let _watchdog = watchdog();
    let Some(redis) = servers::redis(&[]) else { return };
    let endpoint = endpoint::<C>(redis.address(), |it| it.max_per_endpoint(4));
    std::thread::scope(|scope| {
        for thread in 0..12 {
            let endpoint = &endpoint;
            scope.spawn(move || {
                for number in 0..200 {
                    let mut conn = endpoint.get_timeout(SOON).unwrap();
                    let value = format!("{thread}-{number}");
                    let set = format!("SET key{thread} {value}");
                    assert_eq!(ask::<C>(&mut conn, &set).unwrap(), "OK");
                    let found = ask::<C>(&mut conn, &format!("GET key{thread}")).unwrap();
                    assert_eq!(found, value);
                }
            });
        }
    });
    let stats = endpoint.stats();
    assert!(stats.opened() <= 4, "{stats}");
    assert_eq!((stats.checkouts(), stats.closed()), (2400, 0), "{stats}");
    assert_at_rest(&stats);
}

fn patient_callers_meet_errors_only_in_what_the_killed_server_was_doing<C: Client>() {
    let _watchdog = watchdog();
    let Some(mut redis) = servers::redis(&[]) else { return };
    let driver = Driver::new();
    let endpoint = endpoint::<C>(redis.address(), |it| {
        it.driver(&driver).max_per_endpoint(4).fail_fast(false).checkout_timeout(SOON)
    });
    trials::only_what_was_in_flight_fails(&mut redis, &driver, &endpoint, echo::<C>);
}

fn connections_that_died_with_the_server_are_handed_to_nobody<C: Client>() {
    let _watchdog = watchdog();
    let Some(mut redis) = servers::redis(&[]) else { return };
    let driver = Driver::new();
    let endpoint = endpoint::<C>(redis.address(), |it| it.driver(&driver));
    assert_eq!(endpoint.warm(4, SOON).unwrap(), 4);
    assert_eq!(once(&endpoint, "SET a 1").unwrap(), "OK");
    redis.kill();
    redis.start_again();
    await_loop(&driver);
    let stats = endpoint.stats();
    assert_eq!((stats.closed_for(CloseReason::PeerClosed), stats.idle()), (4, 0), "{stats}");
    let mut conn = endpoint.get_timeout(SOON).unwrap();
    assert!(!PooledConn::is_reused(&conn));
    assert_eq!(ask::<C>(&mut conn, "GET a").unwrap(), "nil", "another server");
}

fn a_transaction_of_a_thread_that_panicked_is_gone_with_its_connection<C: Client>() {
    let _watchdog = watchdog();
    let Some(redis) = servers::redis(&[]) else { return };
    let endpoint = endpoint::<C>(redis.address(), |it| it.max_per_endpoint(1));
    let before = once(&endpoint, "CLIENT ID").unwrap();
    trials::a_panic_ends_its_connection(&endpoint, |conn| {
        assert_eq!(ask::<C>(conn, "MULTI").unwrap(), "OK");
        assert_eq!(ask::<C>(conn, "SET account 0").unwrap(), "QUEUED");
    });
    assert_eq!(once(&endpoint, "GET account").unwrap(), "nil");
    assert_ne!(once(&endpoint, "CLIENT ID").unwrap(), before);
    eventually("the server has let go of it", || {
        once(&endpoint, "INFO clients").unwrap().contains("connected_clients:1\r\n")
    });
}

fn a_transaction_left_open_is_undone_and_its_connection_used_again<C: Client>() {
    let _watchdog = watchdog();
    let Some(redis) = servers::redis(&[]) else { return };
    let endpoint = endpoint::<C>(redis.address(), |it| it.max_per_endpoint(1));
    let before = once(&endpoint, "CLIENT ID").unwrap();
    let mut conn = endpoint.get().unwrap();
    assert_eq!(ask::<C>(&mut conn, "MULTI").unwrap(), "OK");
    assert_eq!(ask::<C>(&mut conn, "SET account 0").unwrap(), "QUEUED");
    drop(conn);
    assert_eq!(once(&endpoint, "GET account").unwrap(), "nil", "neither queued nor done");
    assert_eq!(once(&endpoint, "CLIENT ID").unwrap(), before);
    assert_eq!(endpoint.stats().closed(), 0);
}

fn keys_that_were_left_watched_fail_no_transaction_of_the_next_user<C: Client>() {
    let _watchdog = watchdog();
    let Some(redis) = servers::redis(&[]) else { return };
    let endpoint = endpoint::<C>(redis.address(), |it| it.max_per_endpoint(1));
    let other = self::endpoint::<C>(redis.address(), |it| it);
    assert_eq!(once(&endpoint, "WATCH account").unwrap(), "OK");
    let mut conn = endpoint.get().unwrap();
    assert_eq!(once(&other, "SET account 7").unwrap(), "OK");
    assert_eq!(ask::<C>(&mut conn, "MULTI").unwrap(), "OK");
    assert_eq!(ask::<C>(&mut conn, "INCR account").unwrap(), "QUEUED");
    assert_eq!(ask::<C>(&mut conn, "EXEC").unwrap(), "8", "nil, had it been watched still");
    drop(conn);
    let stats = endpoint.stats();
    assert_eq!((stats.opened(), stats.closed(), stats.idle()), (1, 0, 1), "{stats}");
}

fn a_connection_left_in_another_state_is_used_by_nobody_else<C: Client>() {
    let _watchdog = watchdog();
    let Some(redis) = servers::redis(&[]) else { return };
    let endpoint = endpoint::<C>(redis.address(), |it| it.max_per_endpoint(1));
    assert_eq!(once(&endpoint, "SET a here").unwrap(), "OK");
    for (before, line) in
        ["SELECT 1", "select 2", "CLIENT SETNAME me", "SUBSCRIBE news"].into_iter().enumerate()
    {
        once(&endpoint, line).unwrap();
        assert_eq!(once(&endpoint, "GET a").unwrap(), "here", "after {line}");
        let name = once(&endpoint, "CLIENT GETNAME").unwrap();
        assert!(name.is_empty() || name == "nil", "{name}");
        let closed = endpoint.stats().closed_for(CloseReason::ResetRefused);
        assert_eq!(closed, before as u64 + 1, "{line}");
    }
}

fn an_answer_that_came_too_late_reaches_nobody<C: Client>() {
    let _watchdog = watchdog();
    let Some(redis) = servers::redis(&[]) else { return };
    let (connector, key) = C::at(redis.address(), None);
    let connector = connector.waits(Duration::from_millis(200));
    let pool = Pool::builder(connector).max_per_endpoint(1).build().unwrap();
    let endpoint = pool.endpoint(&key).unwrap();
    // The first of them to be told, if it is there still, is the one that waits no more.
    once(&endpoint, "BLPOP queue 0").unwrap_err();
    once(&endpoint, "RPUSH queue late").unwrap();
    for number in 0..10 {
        assert_eq!(once(&endpoint, &format!("ECHO {number}")).unwrap(), number.to_string());
    }
    let stats = endpoint.stats();
    assert_eq!((stats.opened(), stats.closed()), (2, 1), "{stats}");
    assert_at_rest(&stats);
}
