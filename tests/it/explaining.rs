//! Time-outs tell why: one cause after the other is brought about, and the texts are read.

use std::sync::Barrier;
use std::time::Duration;

use rustix::io::Errno;
use warmline::{BoxError, Connector, ErrorKind, Failure, Opening, Phase, Pool, Verdict};

use crate::support::causes::{
    BRIEF, assert_tells, held_by_users, joined, overtaken, patiently, site,
};
use crate::support::faults::{BlackHole, Refusing};
use crate::support::foreign::Greeted;
use crate::support::lab::{Act, Lab, Method};
use crate::support::resolver::{Answer, Script};
use crate::support::server::Server;
use crate::support::{SOON, eventually, tcp, watchdog};

#[test]
fn too_few_connections_for_all_who_come_are_called_undersized() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let pool = tcp().max_per_endpoint(1).build().unwrap();
    let error = overtaken(&pool, &server.name(), || ());
    let parts = ["1 other was served meanwhile", "max_per_endpoint is 1", "1/1: 1 in use"];
    assert_tells(&pool, &error, Verdict::Undersized, &parts);
    assert!(format!("{error:#}").contains("queue: 1 had come before"), "{error:#}");
}

#[test]
fn too_few_for_the_whole_pool_are_told_from_too_few_for_the_endpoint() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let pool = tcp().max_total(1).build().unwrap();
    let error = overtaken(&pool, &server.name(), || ());
    let name = if error.to_string().contains("1/1:") { "max_per_endpoint" } else { "max_total" };
    assert_tells(&pool, &error, Verdict::Undersized, &[&*format!("{name} is 1")]);
}

#[test]
fn guards_that_were_forgotten_by_threads_that_have_ended_are_called_a_leak() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let pool = tcp().max_per_endpoint(2).build().unwrap();
    let line = line!() + 1;
    let forget = || std::mem::forget(pool.get_timeout(&server.name(), SOON).unwrap());
    std::thread::scope(|scope| {
        let forgetful = std::thread::Builder::new().name("forgetful".to_owned());
        let twice = || (forget(), forget());
        joined(forgetful.spawn_scoped(scope, twice).unwrap());
    });
    // They have been out for longer than the next waits.
    pool.get_timeout(&server.name(), 2 * BRIEF).unwrap_err();
    let error = pool.get_timeout(&server.name(), BRIEF).unwrap_err();
    let parts = [
        "2/2: 2 in use",
        "leak suspected: 2 of 2 in use",
        &site(file!(), line),
        "thread forgetful, which has ended",
    ];
    assert_tells(&pool, &error, Verdict::Leak, &parts);
    let group = format!("\n    2 at {}", site(file!(), line));
    assert!(format!("{error:#}").contains(&group), "{error:#}");
}

#[test]
fn what_is_out_for_longer_than_the_setting_says_is_called_a_leak_while_its_thread_lives() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let pool = tcp().max_per_endpoint(2).leak_warning(BRIEF).build().unwrap();
    held_by_users(&pool, &server.name(), 2, |line| {
        eventually("both are suspected", || pool.stats().leaks_suspected() == 2);
        let error = pool.get_timeout(&server.name(), BRIEF).unwrap_err();
        let parts = ["2/2: 2 in use", "leak suspected: 2 of 2 in use", line, "thread user-"];
        assert_tells(&pool, &error, Verdict::Leak, &parts);
        let report = pool.report().to_string();
        for part in ["longer than leak_warning, since", "2 suspected"] {
            assert!(report.contains(part), "{part} is not in: {report}");
        }
    });
    assert_eq!(pool.stats().leaks_suspected(), 2, "they have been counted once");
}

#[test]
fn users_who_keep_all_for_longer_than_the_wait_are_called_slow() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let pool = tcp().max_per_endpoint(3).build().unwrap();
    held_by_users(&pool, &server.name(), 3, |line| {
        let error = pool.get_timeout(&server.name(), BRIEF).unwrap_err();
        let parts = ["3/3: 3 in use", "slow users: none came back; 3 out for up to", line, "user-"];
        assert_tells(&pool, &error, Verdict::SlowUsers, &parts);
        let page = format!("{error:#}");
        for part in [&*format!("\n    3 at {line}"), "thread user-0", "thread user-1", "user-2"] {
            assert!(page.contains(part), "{part} is not in: {page}");
        }
    });
}

#[test]
fn users_who_are_suddenly_slower_are_called_slow_though_they_come_back() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let pool = tcp().max_per_endpoint(1).build().unwrap();
    for _ in 0..2_000 {
        drop(pool.get_timeout(&server.name(), SOON).unwrap());
    }
    let error = overtaken(&pool, &server.name(), || std::thread::sleep(2 * BRIEF));
    let parts = ["slow users: a use takes", "usually", "causes.rs:", "1/1: 1 in use"];
    assert_tells(&pool, &error, Verdict::SlowUsers, &parts);
}

#[test]
fn a_server_that_refuses_is_called_down() {
    let _watchdog = watchdog();
    let refusing = Refusing::new();
    let hasty = Pool::tcp().get_timeout(&refusing.name(), SOON).unwrap_err();
    assert_eq!((hasty.kind(), hasty.verdict()), (ErrorKind::Connect, Some(Verdict::ServerDown)));
    assert!(!hasty.to_string().contains('\n'), "{hasty}");
    assert!(format!("{hasty:#}").contains(Verdict::ServerDown.advice()), "{hasty:#}");

    let pool = tcp().fail_fast(false).build().unwrap();
    let ask = |patience| pool.get_timeout(&refusing.name(), patience).unwrap_err();
    let error = patiently(ask, |error| error.failure().is_some());
    let parts = [" failed meanwhile", "last attempt, ", "onnection refused", "0 in use"];
    assert_tells(&pool, &error, Verdict::ServerDown, &parts);
    assert_eq!(error.failure(), Some(Failure::Refused));
    let report = pool.report().to_string();
    assert!(report.contains("errors of late"), "{report}");
}

#[test]
fn a_server_that_does_not_answer_is_slow_to_connect_at_first_and_then_down() {
    let _watchdog = watchdog();
    let hole = BlackHole::new();
    let pool = tcp().connect_timeout(SOON).build().unwrap();
    let ask = |patience| pool.get_timeout(&hole.name(), patience).unwrap_err();
    let error = patiently(ask, |error| error.to_string().contains("in connect"));
    let parts = ["1/32: 0 in use, 0 idle, 1 connecting", "an attempt is in connect, for"];
    assert_tells(&pool, &error, Verdict::SlowConnect, &parts);

    let pool = tcp().connect_timeout(BRIEF).fail_fast(false).build().unwrap();
    let ask = |patience| pool.get_timeout(&hole.name(), patience).unwrap_err();
    let error = patiently(ask, |error| error.to_string().contains("no answer by the deadline"));
    let parts = ["connect failed after", "last attempt, "];
    assert_tells(&pool, &error, Verdict::ServerDown, &parts);
}

#[test]
fn a_connector_whose_open_hangs_is_slow_to_connect() {
    let _watchdog = watchdog();
    let lab = Lab::new(|method, _| if method == Method::Open { Act::Hang } else { Act::Go });
    let bench = lab.bench();
    let pool = Pool::builder(lab).connect_timeout(SOON).build().unwrap();
    let ask = |patience| pool.get_timeout("a", patience).unwrap_err();
    let error = patiently(ask, |error| error.to_string().contains("in open"));
    let parts = ["1 connecting", "slow connect: an attempt is in open, for"];
    assert_tells(&pool, &error, Verdict::SlowConnect, &parts);
    assert!(format!("{error:#}").contains("\n  under way: an attempt that began"), "{error:#}");
    bench.release();
}

#[test]
fn a_server_that_accepts_and_never_says_hello_is_slow_to_connect() {
    let _watchdog = watchdog();
    let server = Server::scripted(|peer| peer.stay_silent());
    let pool = Pool::builder(Greeted).connect_timeout(SOON).build().unwrap();
    let ask = |patience| pool.get_timeout(&server.name(), patience).unwrap_err();
    let error = patiently(ask, |error| error.to_string().contains("in open"));
    assert_tells(&pool, &error, Verdict::SlowConnect, &["an attempt is in open, for"]);

    let builder = Pool::builder(Greeted).connect_timeout(BRIEF);
    let pool = builder.fail_fast(false).build().unwrap();
    let ask = |patience| pool.get_timeout(&server.name(), patience).unwrap_err();
    let error = patiently(ask, |error| error.to_string().contains("open failed after"));
    assert_tells(&pool, &error, Verdict::SlowConnect, &["last attempt, "]);
}

#[test]
fn a_refused_login_is_told_from_a_server_that_is_down() {
    let _watchdog = watchdog();
    let lab = Lab::new(|method, _| if method == Method::Open { Act::Fail } else { Act::Go });
    let pool = Pool::builder(lab).fail_fast(false).build().unwrap();
    let ask = |patience| pool.get_timeout("a", patience).unwrap_err();
    let error = patiently(ask, |error| error.failure().is_some());
    assert_tells(&pool, &error, Verdict::ConnectFails, &["Open was told to fail"]);
}

#[test]
fn a_name_that_does_not_exist_or_that_nobody_answers_for_is_called_unresolved() {
    let _watchdog = watchdog();
    let script = Script::of("db.test", [Answer::here().late()]);
    let builder = || tcp().resolver(&script.resolver()).connect_timeout(SOON);
    let pool = builder().build().unwrap();
    let ask = |patience| pool.get_timeout("db.test:80", patience).unwrap_err();
    let error = patiently(ask, |error| error.to_string().contains("in resolve for"));
    let parts = ["db.test:80", "1 connecting", "name not resolved: in resolve for"];
    assert_tells(&pool, &error, Verdict::Unresolved, &parts);
    script.release();

    let pool = builder().fail_fast(false).build().unwrap();
    let ask = |patience| pool.get_timeout("nowhere.test:80", patience).unwrap_err();
    let error = patiently(ask, |error| error.failure().is_some());
    assert_tells(&pool, &error, Verdict::Unresolved, &["resolve failed after", "no such name"]);

    let hasty = builder().build().unwrap().get_timeout("nowhere.test:80", SOON).unwrap_err();
    assert_eq!(hasty.verdict(), Some(Verdict::Unresolved), "{hasty:#}");
}

/// Meets the limit of the process on open files.
struct Short;

impl Connector for Short {
    type Key = String;
    type Conn = ();

    fn open(&self, _: &String, _: &mut Opening) -> Result<(), BoxError> {
        Err(Box::new(std::io::Error::from(Errno::MFILE)))
    }
}

#[test]
fn a_process_without_descriptors_blames_itself_and_not_the_server() {
    let _watchdog = watchdog();
    let pool = Pool::builder(Short).fail_fast(false).build().unwrap();
    let ask = |patience| pool.get_timeout("a", patience).unwrap_err();
    let error = patiently(ask, |error| error.failure().is_some());
    assert_tells(&pool, &error, Verdict::Shortage, &["shortage here", "Too many open files"]);
    assert_eq!(error.failure(), Some(Failure::Local));
}

#[test]
fn a_thread_that_asks_for_more_than_there_are_while_it_has_all_is_a_deadlock() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let pool = tcp().max_per_endpoint(2).build().unwrap();
    let line = line!() + 1;
    let _both = [(); 2].map(|()| pool.get(&server.name()).unwrap());
    let error = pool.get_timeout(&server.name(), BRIEF).unwrap_err();
    let me = std::thread::current().name().unwrap().to_owned();
    let parts = ["it takes 3 ", &site(file!(), line), &me];
    assert_tells(&pool, &error, Verdict::Deadlock, &parts);
}

#[test]
fn threads_that_each_have_one_and_ask_for_another_are_a_deadlock_with_the_size_that_ends_it() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let pool = tcp().max_per_endpoint(3).build().unwrap();
    let (all_have_one, all_have_given_up) = (Barrier::new(3), Barrier::new(3));
    let line = line!() + 2;
    let greedy = || {
        let _first = pool.get_timeout(&server.name(), SOON).unwrap();
        all_have_one.wait();
        let error = pool.get_timeout(&server.name(), 4 * BRIEF).unwrap_err();
        all_have_given_up.wait();
        error
    };
    let errors = std::thread::scope(|scope| [(); 3].map(|()| scope.spawn(greedy)).map(joined));
    for error in errors {
        let text = "every thread that took a connection waits for another";
        let parts = [text, "it takes 4 ", &site(file!(), line)];
        assert_tells(&pool, &error, Verdict::Deadlock, &parts);
    }
}

#[test]
fn a_deadlock_over_two_endpoints_is_seen_where_the_whole_pool_is_full() {
    let _watchdog = watchdog();
    let servers = [Server::echo(), Server::echo()];
    let [one, other] = servers.each_ref().map(Server::name);
    let pool = tcp().max_total(2).build().unwrap();
    let held = pool.get(&one).unwrap();
    let error = std::thread::scope(|scope| {
        let crossed = scope.spawn(|| {
            let _second = pool.get(&other).unwrap();
            pool.get_timeout(&one, SOON).map(drop)
        });
        eventually("it waits for the other", || pool.stats().waiting() == 1);
        let error = pool.get_timeout(&other, BRIEF).unwrap_err();
        drop(held);
        joined(crossed).unwrap();
        error
    });
    let parts = ["1/2", "pool 2/2", "it takes 3 "];
    assert_tells(&pool, &error, Verdict::Deadlock, &parts);
}

#[test]
fn connections_that_are_being_settled_or_checked_for_long_are_named_as_the_cause() {
    let _watchdog = watchdog();
    for (hanging, called) in [(Method::Settle, Method::Reset), (Method::Check, Method::HasCheck)] {
        let lab = Lab::new(move |method, _| match method {
            _ if method == called => Act::Later,
            _ if method == hanging => Act::Hang,
            _ => Act::Go,
        });
        let bench = lab.bench();
        let builder = Pool::builder(lab).max_per_endpoint(1).check_after(Duration::ZERO);
        let builder = builder.check_timeout(SOON).settle_timeout(SOON);
        let pool = builder.build().unwrap();
        drop(pool.get_timeout("a", SOON).unwrap());
        let error = pool.get_timeout("a", BRIEF).unwrap_err();
        let parts = ["1/1: 0 in use", "1 checking", "slow check: 1 is being checked or settled"];
        assert_tells(&pool, &error, Verdict::SlowCheck, &parts);
        bench.release();
    }
}

#[test]
fn a_paused_pool_says_so_and_what_to_do() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let pool = Pool::tcp();
    drop(pool.get(&server.name()).unwrap());
    pool.pause();
    let error = pool.get_timeout(&server.name(), BRIEF).unwrap_err();
    assert_tells(&pool, &error, Verdict::Paused, &["paused [", "1/32: 0 in use, 1 idle"]);
    assert_eq!(error.phase(), Some(Phase::Queue));
}

#[test]
fn the_report_tells_why_somebody_waits_while_he_does() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let pool = tcp().max_per_endpoint(1).build().unwrap();
    held_by_users(&pool, &server.name(), 1, |line| {
        let request = pool.request(&server.name()).unwrap();
        let is_said = || pool.report().to_string().contains("slow users");
        eventually("it has waited for long enough", is_said);
        let report = pool.report().to_string();
        let parts = ["1 waits, the first for", "slow users", line, "thread user-0"];
        for part in parts {
            assert!(report.contains(part), "{part} is not in: {report}");
        }
        drop(request);
    });
    pool.pause();
    let request = pool.request(&server.name()).unwrap();
    let report = pool.report().to_string();
    assert!(report.contains("to do:\n  - paused: resume it"), "{report}");
    drop(request);
}
