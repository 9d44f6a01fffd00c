//! One that is down, or hangs, is nobody else's trouble; and when it is back the pool finds out.

use std::time::{Duration, Instant};

use warmline::{CloseReason, Deadline, ErrorKind, Failure, Pool};

use crate::support::faults::{BlackHole, Refusing};
use crate::support::lab::{Act, Lab, Method};
use crate::support::server::Server;
use crate::support::{SOON, ask, assert_balanced, both_ways, eventually, tcp, watchdog};

#[test]
fn logins_that_hang_with_all_an_endpoint_may_have_leave_threads_for_others() {
    let _watchdog = watchdog();
    let lab = Lab::new(|method, before| match (method, before) {
        (Method::Open, 0..16) => Act::Hang,
        _ => Act::Go,
    });
    let bench = lab.bench();
    let pool = Pool::builder(lab).connect_timeout(SOON).build().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| pool.get_timeout("a", SOON).map(drop).unwrap_err());
        }
        eventually("all that may hang do", || bench.calls(Method::Open) == 16);
        drop(pool.get("b").unwrap());
        assert_eq!(pool.stats().connecting(), 16, "they hang still");
        pool.close();
    });
    bench.release();
}

#[test]
fn an_endpoint_that_hangs_with_all_it_may_have_delays_no_other() {
    let _watchdog = watchdog();
    let (hole, server) = (BlackHole::new(), Server::echo());
    let pool = tcp().connect_timeout(SOON).build().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| pool.get_timeout(&hole.name(), SOON).map(drop).unwrap_err());
        }
        eventually("all that may hang do", || pool.stats().connecting() == 16);
        ask(&mut pool.get(&server.name()).unwrap()).unwrap();
        assert_eq!(pool.stats().connecting(), 16, "they hang still");
        pool.close();
    });
}

#[test]
fn connections_that_are_never_found_open_are_opened_once_for_each_checkout() {
    let _watchdog = watchdog();
    let lab = Lab::new(|method, _| if method == Method::IsOpen { Act::Fail } else { Act::Go });
    let bench = lab.bench();
    let pool = Pool::builder(lab).build().unwrap();
    let endpoint = pool.endpoint("a").unwrap();
    for _ in 0..10 {
        drop(endpoint.get().unwrap());
    }
    assert_eq!(bench.born(), 10);
    assert_eq!(pool.stats().closed_for(CloseReason::NotOpen), 10);
    // Opened ahead of need, it is not found open either; the next is opened for this checkout.
    assert_eq!(endpoint.warm(1, SOON).unwrap(), 1);
    drop(endpoint.get().unwrap());
    assert_eq!(bench.born(), 12);
    assert_balanced(&pool.stats());
}

#[test]
fn an_endpoint_is_refilled_after_an_outage_though_nobody_asks_for_it_any_more() {
    let _watchdog = watchdog();
    let server = Refusing::new();
    let pool = tcp().min_idle(2).build().unwrap();
    let error = pool.get(&server.name()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect);
    eventually("it has tried again, and again", || pool.stats().connects_failed() >= 4);
    server.listen();
    eventually("two are ready", || pool.stats().idle() == 2);
}

#[test]
fn when_drain_returns_the_last_connection_is_closed() {
    let _watchdog = watchdog();
    for _ in 0..300 {
        let lab = Lab::sound();
        let bench = lab.bench();
        let pool = Pool::builder(lab).build().unwrap();
        let conn = pool.get("a").unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| drop(conn));
            pool.drain(Deadline::after(Duration::from_secs(50))).unwrap();
            assert_eq!((bench.alive(), bench.calls(Method::Close)), (0, 1));
        });
    }
}

both_ways! {
    a_server_that_accepts_only_to_hang_up_is_not_stormed_for_what_is_kept_ready,
}

fn a_server_that_accepts_only_to_hang_up_is_not_stormed_for_what_is_kept_ready(is_portable: bool) {
    let _watchdog = watchdog();
    let server = Server::scripted(|_| Ok(()));
    let began = Instant::now();
    let pool = tcp().portable_watch(is_portable).min_idle(1).build().unwrap();
    let endpoint = pool.endpoint(&server.name()).unwrap();
    // Five pauses of 50, 100, 200, 400 and 800 ms; 50 ms where the hang-up was so early that it
    // made a connect fail.
    eventually("it goes on to try", || server.accepted() >= 6);
    assert!(began.elapsed() >= Duration::from_millis(250), "{:?}", began.elapsed());
    assert!(server.accepted() <= 30, "{}; {}", server.accepted(), endpoint.stats());
    // Callers do not wait for that.
    let before = server.accepted();
    for _ in 0..3 {
        let _hung_up = endpoint.get_timeout(SOON);
    }
    eventually("they have asked as well", || server.accepted() > before);
}

#[test]
fn callers_that_are_to_be_patient_wait_an_outage_out_and_others_learn_of_it_at_once() {
    let _watchdog = watchdog();
    let server = Refusing::new();
    let hasty = tcp().build().unwrap();
    assert_eq!(hasty.get_timeout(&server.name(), SOON).unwrap_err().kind(), ErrorKind::Connect);
    let pool = tcp().fail_fast(false).checkout_timeout(SOON).build().unwrap();
    std::thread::scope(|scope| {
        let callers: Vec<_> =
            (0..3).map(|_| scope.spawn(|| pool.get(&server.name()).map(drop))).collect();
        eventually("it is probed", || pool.stats().connects_failed() >= 5);
        assert_eq!(pool.stats().waiting(), 3);
        server.listen();
        callers.into_iter().for_each(|caller| caller.join().unwrap().unwrap());
    });
    assert_balanced(&pool.stats());
}

#[test]
fn a_program_that_insists_on_its_first_connections_waits_for_a_server_that_is_still_starting() {
    let _watchdog = watchdog();
    let server = Refusing::new();
    let pool = tcp().fail_fast(false).build().unwrap();
    let endpoint = pool.endpoint(&server.name()).unwrap();
    std::thread::scope(|scope| {
        let starting = scope.spawn(|| endpoint.warm_all(3, SOON));
        eventually("it is tried again", || pool.stats().connects_failed() >= 2);
        assert!(!starting.is_finished());
        server.listen();
        starting.join().unwrap().unwrap();
    });
    assert_eq!(endpoint.stats().idle(), 3);
}

#[test]
fn a_program_that_insists_on_its_first_connections_learns_in_time_why_there_are_not_enough() {
    let _watchdog = watchdog();
    let lab = Lab::new(|method, before| match (method, before) {
        (Method::Open, 2..) => Act::Fail,
        _ => Act::Go,
    });
    let pool = Pool::builder(lab).fail_fast(false).build().unwrap();
    let endpoint = pool.endpoint("a").unwrap();
    let error = endpoint.warm_all(3, Duration::from_millis(300)).unwrap_err();
    assert_eq!((error.kind(), endpoint.stats().idle()), (ErrorKind::Timeout, 2));
    assert!(error.to_string().starts_with("not enough connections were opened [a]"), "{error}");
    assert_eq!(error.failure(), Some(Failure::Other), "and what the last attempt met");
    endpoint.warm_all(2, SOON).unwrap();
    let error = endpoint.warm_all(1000, SOON).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "so many there will never be: {error}");

    let refusing = Refusing::new();
    let hasty = tcp().build().unwrap();
    let endpoint = hasty.endpoint(&refusing.name()).unwrap();
    for _ in 0..3 {
        let error = endpoint.warm_all(1, SOON).unwrap_err();
        assert_eq!((error.kind(), error.failure()), (ErrorKind::Connect, Some(Failure::Refused)));
    }
    // However long it would have paused for what is only to be kept ready.
    refusing.listen();
    eventually("it is found at once", || endpoint.warm_all(1, SOON).is_ok());
    hasty.close();
    let error = hasty.endpoint(&refusing.name()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
}
