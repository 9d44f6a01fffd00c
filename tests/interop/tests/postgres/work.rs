//! Many threads at work, while the server is there, and while it is not.

use interop::support::{SOON, assert_at_rest, eventually, watchdog};
use interop::{servers, trials};
use warmline::{BoxError, CloseReason, Driver, Repeat};

use crate::{ask, backend, endpoint};

#[test]
fn many_threads_share_a_few_connections_and_get_their_own_answers() {
    let _watchdog = watchdog();
    let Some(server) = servers::postgres(&[]) else { return };
    let endpoint = endpoint(&server, |it| it.max_per_endpoint(4));
    endpoint.get().unwrap().batch_execute("CREATE TABLE sums (thread int8, sum int8)").unwrap();
    std::thread::scope(|scope| {
        for thread in 0..12 {
            let endpoint = &endpoint;
            scope.spawn(move || {
                let insert = "INSERT INTO sums VALUES ($1, 0)";
                endpoint.get().unwrap().execute(insert, &[&thread]).unwrap();
                for number in 0..50 {
                    let mut conn = endpoint.get().unwrap();
                    ask(&mut conn, thread * 1000 + number).unwrap();
                    let mut transaction = conn.transaction().unwrap();
                    let add = "UPDATE sums SET sum = sum + $2 WHERE thread = $1";
                    assert_eq!(transaction.execute(add, &[&thread, &number]).unwrap(), 1);
                    transaction.commit().unwrap();
                }
            });
        }
    });
    let sums = endpoint.get().unwrap().query("SELECT sum FROM sums", &[]).unwrap();
    let sums: Vec<i64> = sums.iter().map(|row| row.get(0)).collect();
    assert_eq!(sums, [49 * 50 / 2; 12]);
    let stats = endpoint.stats();
    assert!(stats.opened() <= 4, "{stats}");
    assert_eq!((stats.checkouts(), stats.closed()), (1 + 12 * 51 + 1, 0));
    assert_at_rest(&stats);
}

#[test]
fn a_server_that_is_killed_fails_what_is_in_flight_and_nothing_once_it_is_back() {
    let _watchdog = watchdog();
    let Some(mut server) = servers::postgres(&[]) else { return };
    let driver = Driver::new();
    let endpoint = endpoint(&server, |it| it.driver(&driver).max_per_endpoint(4));
    trials::outlasts_kills(&mut server, &driver, &endpoint, |conn, number| Ok(ask(conn, number)?));
}

#[test]
fn patient_callers_wait_for_a_server_that_restarts_and_get_no_error_from_the_pool() {
    let _watchdog = watchdog();
    let Some(mut server) = servers::postgres(&[]) else { return };
    let endpoint = endpoint(&server, |it| it.max_per_endpoint(4).fail_fast(false));
    trials::patient_callers_outlast_restarts(&mut server, &endpoint, |conn, number| {
        Ok(ask(conn, number)?)
    });
}

#[test]
fn sessions_ended_by_an_administrator_are_gone_before_anybody_has_them() {
    let _watchdog = watchdog();
    let Some(server) = servers::postgres(&[]) else { return };
    let endpoint = endpoint(&server, |it| it);
    assert_eq!(endpoint.warm(6, SOON).unwrap(), 6);
    let ended = endpoint.get().unwrap().query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()",
        &[],
    );
    assert_eq!(ended.unwrap().len(), 5);
    // The one that asked may be handed out again, and is.
    eventually("the others are gone", || endpoint.stats().total() == 1);
    let stats = endpoint.stats();
    let by_the_server = [CloseReason::PeerClosed, CloseReason::StrayBytes];
    assert_eq!(by_the_server.map(|reason| stats.closed_for(reason)).iter().sum::<u64>(), 5);
    for number in 0..20 {
        ask(&mut endpoint.get().unwrap(), number).unwrap();
    }
    assert_eq!(endpoint.stats().opened(), 6);
}

#[test]
fn a_session_that_ends_under_its_user_is_not_kept_and_may_be_run_again() {
    let _watchdog = watchdog();
    let Some(server) = servers::postgres(&[]) else { return };
    let endpoint = endpoint(&server, |it| it);
    ask(&mut endpoint.get().unwrap(), 0).unwrap();
    let mut victims = Vec::new();
    let answer = endpoint.run(Repeat::Always, |conn| -> Result<_, BoxError> {
        if victims.is_empty() {
            victims.push(backend(conn));
            // The answer never comes: the session ends itself.
            conn.query("SELECT pg_terminate_backend(pg_backend_pid()), pg_sleep(60)", &[])?;
        }
        Ok(backend(conn))
    });
    assert_ne!(answer.unwrap(), victims[0]);
    let stats = endpoint.stats();
    assert_eq!((stats.opened(), stats.closed(), stats.idle()), (2, 1, 1), "{stats}");
}
