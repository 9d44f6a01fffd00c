//! Time-outs with more than one thing wrong, or with something that looks like another: what is
//! named is what to look at.

use std::io;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use crossbeam_channel::{Receiver, bounded, unbounded};
use warmline::{
    BoxError, Connector, Deadline, ErrorKind, Failure, Opening, Pool, PooledConn, Verdict,
};

use crate::support::causes::{
    BRIEF, assert_tells, held_by_users, joined, overtaken, patiently, site,
};
use crate::support::faults::BlackHole;
use crate::support::lab::{Act, Lab, Method};
use crate::support::server::Server;
use crate::support::{SOON, eventually, tcp, watchdog};

#[test]
fn one_that_leaked_of_many_is_shown_though_it_is_not_why_others_wait() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let pool = tcp().max_per_endpoint(3).build().unwrap();
    let line = line!() + 1;
    let forget = || std::mem::forget(pool.get_timeout(&server.name(), SOON).unwrap());
    std::thread::scope(|scope| {
        let forgetful = std::thread::Builder::new().name("forgetful".to_owned());
        joined(forgetful.spawn_scoped(scope, forget).unwrap());
    });
    held_by_users(&pool, &server.name(), 1, |_| {
        let error = overtaken(&pool, &server.name(), || ());
        assert_tells(&pool, &error, Verdict::Undersized, &["3/3: 3 in use"]);
        let page = format!("{error:#}");
        let group = format!("\n    1 at {}", site(file!(), line));
        for part in [&*group, "thread forgetful, which has ended"] {
            assert!(page.contains(part), "{part} is not in: {page}");
        }
    });
}

#[test]
fn callers_whose_time_is_up_together_are_told_the_same() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let pool = tcp().max_per_endpoint(2).build().unwrap();
    held_by_users(&pool, &server.name(), 2, |line| {
        let together = Barrier::new(8);
        let ask = || {
            together.wait();
            pool.get_timeout(&server.name(), BRIEF).map(drop).unwrap_err()
        };
        let errors = std::thread::scope(|scope| [(); 8].map(|()| scope.spawn(ask)).map(joined));
        for error in errors {
            assert_tells(&pool, &error, Verdict::SlowUsers, &["2/2: 2 in use", line]);
        }
    });
}

#[test]
fn who_has_a_connection_and_a_request_is_not_taken_for_blocked() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let pool = tcp().max_per_endpoint(1).build().unwrap();
    let _held = pool.get(&server.name()).unwrap();
    let request = pool.request(&server.name()).unwrap();
    let error = std::thread::scope(|scope| {
        let ask = || pool.get_timeout(&server.name(), BRIEF).map(drop).unwrap_err();
        joined(scope.spawn(ask))
    });
    assert_tells(&pool, &error, Verdict::SlowUsers, &["none came back", "1 waiting"]);
    assert!(format!("{error:#}").contains("queue: 1 had come before"), "{error:#}");
    drop(request);
}

#[test]
fn a_drain_that_does_not_end_names_the_lines_that_have_connections() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let pool = tcp().build().unwrap();
    held_by_users(&pool, &server.name(), 2, |line| {
        let error = pool.drain(Deadline::after(BRIEF)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        let text = error.to_string();
        for part in ["connections were still out", "2 in use", line, "thread user-"] {
            assert!(text.contains(part), "{part} is not in: {text}");
        }
        assert!(format!("{error:#}").contains(&format!("\n    2 at {line}")), "{error:#}");
    });
}

/// Opens one connection, and is refused ever after.
struct Last(AtomicUsize);

impl Connector for Last {
    type Key = String;
    type Conn = ();

    fn open(&self, _: &String, _: &mut Opening) -> Result<(), BoxError> {
        match self.0.fetch_add(1, Ordering::SeqCst) {
            0 => Ok(()),
            _ => Err(Box::new(io::Error::from(io::ErrorKind::ConnectionRefused))),
        }
    }
}

#[test]
fn a_server_that_refuses_more_and_serves_those_it_has_is_not_called_down() {
    let _watchdog = watchdog();
    let pool = Pool::builder(Last(AtomicUsize::new(0))).build().unwrap();
    held_by_users(&pool, "a", 1, |_| {
        let ask = |patience| pool.get_timeout("a", patience).unwrap_err();
        let error = patiently(ask, |error| error.failure() == Some(Failure::Refused));
        assert_ne!(error.verdict(), Some(Verdict::ServerDown), "{error:#}");
    });
}

#[test]
fn a_deadlock_over_two_endpoints_is_seen_by_both_who_give_up_together() {
    let _watchdog = watchdog();
    let servers = [Server::echo(), Server::echo()];
    let [one, other] = servers.each_ref().map(Server::name);
    let pool = tcp().max_total(2).build().unwrap();
    let (both_have_one, both_have_given_up) = (Barrier::new(2), Barrier::new(2));
    let cross = |first: &str, second: &str| {
        let _first = pool.get_timeout(first, SOON).unwrap();
        both_have_one.wait();
        let error = pool.get_timeout(second, 4 * BRIEF).unwrap_err();
        both_have_given_up.wait();
        error
    };
    let errors = std::thread::scope(|scope| {
        let threads = [scope.spawn(|| cross(&one, &other)), scope.spawn(|| cross(&other, &one))];
        threads.map(joined)
    });
    for error in errors {
        let part = "it takes 3 ";
        assert_tells(&pool, &error, Verdict::Deadlock, &[part]);
    }
}

#[test]
fn who_waits_for_a_pool_that_others_have_all_of_is_told_of_them() {
    let _watchdog = watchdog();
    let servers = [Server::echo(), Server::echo()];
    let [one, other] = servers.each_ref().map(Server::name);
    let pool = tcp().max_total(2).build().unwrap();
    held_by_users(&pool, &one, 2, |line| {
        let error = pool.get_timeout(&other, BRIEF).unwrap_err();
        assert_tells(&pool, &error, Verdict::SlowUsers, &["0/2", "pool 2/2", line]);
    });
}

/// Opens a connection whenever it is told to.
struct Told(Receiver<()>);

impl Connector for Told {
    type Key = String;
    type Conn = ();

    fn open(&self, _: &String, _: &mut Opening) -> Result<(), BoxError> {
        Ok(self.0.recv()?)
    }
}

#[test]
fn connects_that_are_slow_one_after_the_other_are_not_called_too_small_a_pool() {
    let _watchdog = watchdog();
    let (tell, told) = unbounded();
    let builder = Pool::builder(Told(told)).max_connecting(1).connect_timeout(SOON);
    let pool = builder.build().unwrap();
    let patience = 10 * BRIEF;
    let (gate, gated) = bounded::<()>(0);
    let error = std::thread::scope(|scope| {
        scope.spawn(|| {
            let _conn = pool.get_timeout("a", SOON).unwrap();
            let _opened = gated.recv();
        });
        eventually("the other waits", || pool.stats().waiting() == 1);
        let began = Instant::now();
        let late = scope.spawn(|| pool.get_timeout("a", patience).map(drop).unwrap_err());
        eventually("both wait", || pool.stats().waiting() == 2 || late.is_finished());
        // The next attempt begins when half of the wait is over.
        std::thread::sleep((patience * 7 / 10).saturating_sub(began.elapsed()));
        tell.send(()).unwrap();
        let error = joined(late);
        drop((gate, tell));
        error
    });
    assert_eq!(error.verdict(), Some(Verdict::SlowConnect), "{error:#}");
}

/// Fails as a database does that tells more on the lines that follow.
struct Wordy;

impl Connector for Wordy {
    type Key = String;
    type Conn = ();

    fn open(&self, _: &String, _: &mut Opening) -> Result<(), BoxError> {
        Err("too many clients\nDETAIL: 100 are there\nHINT: go away".into())
    }
}

#[test]
fn a_cause_of_many_lines_leaves_the_text_on_one_and_the_report_a_page() {
    let _watchdog = watchdog();
    let pool = Pool::builder(Wordy).build().unwrap();
    let error = pool.get_timeout("a", SOON).unwrap_err();
    assert!(!error.to_string().contains('\n'), "{error}");
    eventually("it is noted", || pool.report().to_string().contains("too many clients"));
    let report = pool.report().to_string();
    assert!(!report.contains("\nDETAIL"), "{report}");
}

#[test]
fn a_key_of_two_lines_leaves_the_text_on_one() {
    let _watchdog = watchdog();
    let pool = Pool::builder(Lab::sound()).build().unwrap();
    pool.pause();
    let error = pool.get_timeout("a\nb", BRIEF).unwrap_err();
    assert!(!error.to_string().contains('\n'), "{error}");
}

#[test]
fn who_waits_while_others_attempts_use_up_all_that_may_be_made_is_told_so() {
    let _watchdog = watchdog();
    let holes: Vec<_> = (0..8).map(|_| BlackHole::new()).collect();
    let server = Server::echo();
    let pool = tcp().connect_timeout(SOON).build().unwrap();
    let ask = |hole: &BlackHole| [(); 16].map(|()| pool.request(&hole.name()).unwrap());
    let requests: Vec<_> = holes.iter().map(ask).collect();
    let error = pool.get_timeout(&server.name(), BRIEF).map(drop).unwrap_err();
    assert!(error.verdict().is_some(), "{error:#}");
    drop(requests);
}

#[test]
fn warming_up_that_takes_too_long_says_why() {
    let _watchdog = watchdog();
    let lab = Lab::new(|method, _| if method == Method::Open { Act::Hang } else { Act::Go });
    let bench = lab.bench();
    let pool = Pool::builder(lab).connect_timeout(SOON).build().unwrap();
    let endpoint = pool.endpoint("a").unwrap();
    let ask = |patience| endpoint.warm(1, patience).unwrap_err();
    let error = patiently(ask, |error| error.to_string().contains("in open"));
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert_eq!(error.verdict(), Some(Verdict::SlowConnect), "{error:#}");
    bench.release();
}

#[test]
fn a_thread_that_has_a_connection_is_said_to_have_ended_only_if_it_had_by_then() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let pool = tcp().max_per_endpoint(1).build().unwrap();
    let error = held_by_users(&pool, &server.name(), 1, |_| {
        pool.get_timeout(&server.name(), BRIEF).unwrap_err()
    });
    // It is read later, by whoever waits for the thread that met it.
    assert!(!error.to_string().contains("which has ended"), "{error}");
}

#[test]
fn refused_connects_name_the_cause_in_words_on_their_line_too() {
    let _watchdog = watchdog();
    let lab = Lab::new(|method, _| if method == Method::Open { Act::Fail } else { Act::Go });
    let pool = Pool::builder(lab).build().unwrap();
    let error = pool.get_timeout("a", SOON).unwrap_err();
    assert_eq!(error.verdict(), Some(Verdict::ConnectFails));
    assert!(error.to_string().contains("connects fail"), "{error}");
}

#[test]
fn a_report_of_a_deadlock_says_how_many_end_it_and_not_another_number() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let pool = tcp().max_per_endpoint(2).build().unwrap();
    let (all_have_one, all_have_given_up) = (Barrier::new(2), Barrier::new(2));
    let greedy = || {
        let _first = pool.get_timeout(&server.name(), SOON).unwrap();
        all_have_one.wait();
        pool.get_timeout(&server.name(), 10 * BRIEF).map(drop).unwrap_err();
        all_have_given_up.wait();
    };
    std::thread::scope(|scope| [(); 2].map(|()| scope.spawn(greedy)).map(joined));
    let report = pool.report().to_string();
    assert!(report.contains("it takes 3 "), "{report}");
    assert!(!report.contains("the load of late needs 5"), "{report}");
}

#[test]
fn what_was_done_before_a_wait_is_no_reason_to_raise_the_limit_while_users_are_slow() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let pool = tcp().max_per_endpoint(1).build().unwrap();
    let conn = pool.get_timeout(&server.name(), SOON).unwrap();
    std::thread::sleep(6 * BRIEF); // that was a load
    PooledConn::discard(conn);
    held_by_users(&pool, &server.name(), 1, |_| {
        let error = pool.get_timeout(&server.name(), BRIEF).unwrap_err();
        assert_eq!(error.verdict(), Some(Verdict::SlowUsers), "{error:#}");
        let report = pool.report().to_string();
        let (why, size) = (report.find("slow users"), report.find("the load of late needs"));
        assert!(why.is_some() && size.is_none_or(|size| Some(size) > why), "{report}");
    });
}

#[test]
fn users_are_not_called_slow_before_they_have_had_their_usual_time() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let pool = tcp().max_per_endpoint(1).build().unwrap();
    for _ in 0..8 {
        let _conn = pool.get_timeout(&server.name(), SOON).unwrap();
        std::thread::sleep(BRIEF);
    }
    held_by_users(&pool, &server.name(), 1, |_| {
        let impatient = || pool.get_timeout(&server.name(), BRIEF / 10).unwrap_err();
        // On a busy machine it may have waited for longer.
        let found = std::iter::repeat_with(impatient).find(|error| error.waited() < Some(BRIEF));
        let error = found.unwrap();
        assert_eq!(error.verdict(), Some(Verdict::Undersized), "{error:#}");
    });
}
