//! SSH through the pool: ssh2's sessions, and OpenSSH, if it is installed.
#![expect(clippy::disallowed_methods, reason = "tests read the time")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use interop::scripted::strangers;
use interop::servers::{Sshd, sshd};
use interop::ssh::{Ssh, run};
use interop::support::{SOON, assert_at_rest, assert_empty, eventually, under_load, watchdog};
use warmline::{Builder, CloseReason, ErrorKind, Failure, Phase, Pool, PooledConn};

fn ssh(sshd: &Sshd) -> Builder<Ssh> {
    let connector = Ssh::new(sshd.user(), sshd.key(), sshd.known_hosts()).timeout(SOON);
    Pool::builder(connector).checkout_timeout(SOON).connect_timeout(SOON).check_timeout(SOON)
}

#[test]
fn many_threads_share_three_sessions_and_read_what_their_own_command_wrote() {
    let _watchdog = watchdog();
    let Some(sshd) = sshd(&[]) else { return };
    let pool = ssh(&sshd).max_per_endpoint(3).build().unwrap();
    let endpoint = pool.endpoint(&sshd.address()).unwrap();
    let exchange = |number: usize| {
        let session = endpoint.get().unwrap();
        assert_eq!(run(&session, &format!("echo {number}")).unwrap(), format!("{number}\n"));
    };
    under_load(exchange, |load| load.await_more(30));
    let stats = pool.stats();
    assert!(stats.opened() <= 3, "{stats}");
    assert_eq!(stats.closed(), 0, "nothing came once a command had ended: {stats}");
    assert_at_rest(&stats);
}

#[test]
fn a_server_that_is_killed_takes_idle_sessions_with_it_at_once_and_is_found_again() {
    let _watchdog = watchdog();
    let Some(mut sshd) = sshd(&[]) else { return };
    let pool = ssh(&sshd).build().unwrap();
    let endpoint = pool.endpoint(&sshd.address()).unwrap();
    assert_eq!(endpoint.warm(3, SOON).unwrap(), 3);
    assert_eq!(run(&endpoint.get().unwrap(), "echo before").unwrap(), "before\n");
    sshd.kill();
    eventually("they are closed", || pool.stats().total() == 0);
    let stats = pool.stats();
    let reasons = [CloseReason::PeerClosed, CloseReason::Failed];
    let noticed: u64 = reasons.iter().map(|&reason| stats.closed_for(reason)).sum();
    assert_eq!(noticed, 3, "{stats}");
    assert_eq!(endpoint.get().map(drop).unwrap_err().failure(), Some(Failure::Refused));
    sshd.start_again();
    eventually("it is used", || {
        endpoint.get().is_ok_and(|session| run(&session, "echo after").unwrap() == "after\n")
    });
    assert_at_rest(&pool.stats());
}

#[test]
fn a_session_that_has_rested_is_proved_to_work_and_stays() {
    let _watchdog = watchdog();
    let Some(sshd) = sshd(&[]) else { return };
    let interval = Duration::from_millis(50);
    let pool = ssh(&sshd).check_interval(interval).check_after(Duration::ZERO).build().unwrap();
    let endpoint = pool.endpoint(&sshd.address()).unwrap();
    assert_eq!(endpoint.warm(2, SOON).unwrap(), 2);
    eventually("checks", || pool.stats().checks() >= 6);
    assert_eq!(run(&endpoint.get().unwrap(), "echo still").unwrap(), "still\n");
    assert_eq!(pool.stats().closed(), 0, "{}", pool.stats());
}

#[test]
fn a_server_that_speaks_to_idle_sessions_ends_them_and_no_user_meets_one() {
    let _watchdog = watchdog();
    let Some(sshd) = sshd(&["-o", "ClientAliveInterval=1"]) else { return };
    let pool = ssh(&sshd).build().unwrap();
    let endpoint = pool.endpoint(&sshd.address()).unwrap();
    assert_eq!(endpoint.warm(2, SOON).unwrap(), 2);
    for _ in 0..2 {
        let held = [endpoint.get().unwrap(), endpoint.get().unwrap()];
        held.iter().for_each(|session| assert_eq!(run(session, "echo on").unwrap(), "on\n"));
    }
    eventually("the server asks", || pool.stats().total() == 0);
    let stats = pool.stats();
    assert_eq!(stats.closed_for(CloseReason::StrayBytes), stats.opened(), "{stats}");
    assert_eq!(run(&endpoint.get().unwrap(), "echo on").unwrap(), "on\n");
}

#[test]
fn a_user_who_panics_takes_nothing_but_his_own_session_along() {
    let _watchdog = watchdog();
    let Some(sshd) = sshd(&[]) else { return };
    let pool = ssh(&sshd).build().unwrap();
    let endpoint = pool.endpoint(&sshd.address()).unwrap();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let session = endpoint.get().unwrap();
        let mut channel = session.channel_session().unwrap();
        channel.exec("cat").unwrap();
        panic!("a user's mistake");
    }));
    panicked.unwrap_err();
    assert_eq!(pool.stats().closed_for(CloseReason::Panicked), 1);
    assert_eq!(run(&endpoint.get().unwrap(), "echo on").unwrap(), "on\n");
    assert_at_rest(&pool.stats());
}

#[test]
fn a_key_that_is_not_the_right_one_is_refused_in_words() {
    let _watchdog = watchdog();
    let Some(sshd) = sshd(&[]) else { return };
    let refusals = [
        (sshd.key(), "/dev/null".into(), "server's key is not known"),
        (sshd.other_key(), sshd.known_hosts(), "Username/PublicKey combination invalid"),
        (sshd.key().with_extension("gone"), sshd.known_hosts(), "Unable to open"),
    ];
    for (key, known_hosts, words) in refusals {
        let connector = Ssh::new(sshd.user(), key, known_hosts);
        let pool = Pool::builder(connector).connect_timeout(SOON).build().unwrap();
        let error = pool.get_timeout(&sshd.address(), SOON).map(drop).unwrap_err();
        assert_eq!((error.kind(), error.phase()), (ErrorKind::Connect, Some(Phase::Open)));
        assert!(error.to_string().contains(words), "{error}");
        assert_empty(&pool.stats());
    }
}

#[test]
fn many_who_insist_on_a_wrong_key_cost_the_server_one_attempt_per_pause() {
    let _watchdog = watchdog();
    let Some(sshd) = sshd(&["-o", "LogLevel=VERBOSE"]) else { return };
    let connector = Ssh::new(sshd.user(), sshd.other_key(), sshd.known_hosts());
    let pool = Pool::builder(connector).fail_fast(false).max_connecting(4).build().unwrap();
    let endpoint = pool.endpoint(&sshd.address()).unwrap();
    let (before, began) = (sshd.log().matches("Connection from").count(), Instant::now());
    std::thread::scope(|scope| {
        for _ in 0..64 {
            scope.spawn(|| {
                let error = endpoint.get_timeout(Duration::from_secs(1)).map(drop).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Timeout);
            });
        }
    });
    eventually("the last attempt ends", || pool.stats().total() == 0);
    // Four at once, as none had failed yet; then one at a time, 50 ms after the last at least.
    let most = 4 + 1 + began.elapsed().as_millis() / 50;
    let attempts = sshd.log().matches("Connection from").count() - before;
    assert!((1..=most).contains(&(attempts as u128)), "{attempts} attempts, {most} at the most");
    assert_empty(&pool.stats());
}

#[test]
fn a_server_of_another_protocol_is_an_error_by_the_deadline_and_leaves_nothing_behind() {
    let _watchdog = watchdog();
    for (what, server) in strangers() {
        // Before its banner a server may say lines of anything: the client waits for more.
        let waits = !["closes at once", "TLS"].contains(&what);
        let longest = if waits { Duration::from_millis(300) } else { SOON };
        let connector = Ssh::new("ann", "/nonexistent", "/nonexistent");
        let pool = Pool::builder(connector).connect_timeout(longest).build().unwrap();
        let error = pool.get_timeout(&server.address(), SOON).map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Connect, "{what}: {error}");
        assert_eq!(error.failure() == Some(Failure::Timeout), waits, "{what}: {error}");
        eventually("nothing is left", || server.open() == 0 && pool.stats().total() == 0);
        assert_empty(&pool.stats());
    }
}

#[test]
fn a_session_lent_to_two_in_turn_is_the_same_one() {
    let _watchdog = watchdog();
    let Some(sshd) = sshd(&[]) else { return };
    let pool = ssh(&sshd).build().unwrap();
    let endpoint = pool.endpoint(&sshd.address()).unwrap();
    let session = endpoint.get().unwrap();
    // What one leaves behind, the next does not find.
    session.set_blocking(false);
    session.set_timeout(1);
    drop(session);
    let session = endpoint.get().unwrap();
    assert!(PooledConn::is_reused(&session));
    assert_eq!(run(&session, "sleep 0.1; echo on").unwrap(), "on\n");
}

#[test]
fn a_command_that_nobody_awaits_disturbs_nobody() {
    let _watchdog = watchdog();
    let Some(sshd) = sshd(&[]) else { return };
    let pool = ssh(&sshd).build().unwrap();
    let endpoint = pool.endpoint(&sshd.address()).unwrap();
    for number in 0..5 {
        let session = endpoint.get().unwrap();
        let mut channel = session.channel_session().unwrap();
        channel.exec("echo late; sleep 0.05; echo later").unwrap();
        drop((channel, session));
        let session = endpoint.get().unwrap();
        assert_eq!(run(&session, &format!("echo {number}")).unwrap(), format!("{number}\n"));
    }
    assert_at_rest(&pool.stats());
}
