//! What befalls a pool while it opens connections: servers that are down, that refuse, that move,
//! or that are back.

use std::time::{Duration, Instant};

use warmline::{CloseReason, Deadline, ErrorKind, Failure, Phase, Pool};

use crate::support::faults::{BlackHole, Refusing};
use crate::support::lab::{Act, Lab, Method};
use crate::support::resolver::{Answer, Script};
use crate::support::server::Server;
use crate::support::{SOON, ask, assert_balanced, assert_empty, eventually, tcp, watchdog};

const BRIEF: Duration = Duration::from_millis(50);

#[test]
fn when_a_server_that_swallowed_every_connect_answers_again_some_are_kept_ready_again() {
    let _watchdog = watchdog();
    let hole = BlackHole::new();
    let pool = tcp().min_idle(2).connect_timeout(BRIEF).build().unwrap();
    let endpoint = pool.endpoint(&hole.name()).unwrap();
    eventually("attempts have hung, one after the other", || {
        endpoint.stats().connects_failed() >= 4
    });
    let _crowd = hole.open();
    eventually("two are ready", || endpoint.stats().idle() == 2);
    assert_eq!(endpoint.stats().checkouts(), 0, "though nobody has asked");
    assert_balanced(&endpoint.stats());
}

#[test]
fn a_pool_that_starts_before_its_server_says_so_to_who_warms_it_and_heals_by_itself() {
    let _watchdog = watchdog();
    let server = Refusing::new();
    let pool = tcp().min_idle(2).build().unwrap();
    let endpoint = pool.endpoint(&server.name()).unwrap();
    let error = endpoint.warm(2, SOON).unwrap_err();
    assert_eq!((error.kind(), error.phase()), (ErrorKind::Connect, Some(Phase::Connect)));
    assert_eq!(error.failure(), Some(Failure::Refused), "{error}");
    server.listen();
    eventually("two are ready", || endpoint.stats().idle() == 2);
    assert_eq!(endpoint.stats().checkouts(), 0);
    assert_eq!(endpoint.warm(2, SOON).unwrap(), 2);
}

#[test]
fn a_host_that_moved_has_all_connections_once_the_lifetimes_of_the_old_ones_are_over() {
    let _watchdog = watchdog();
    let (old, new) = (Server::echo(), Server::echo());
    let script = Script::of("db.test", [Answer::at(old.address())]);
    let builder = tcp().resolver(&script.forgetful()).min_idle(3);
    let pool = builder.max_lifetime(Duration::from_millis(400)).build().unwrap();
    let endpoint = pool.endpoint("db.test:80").unwrap();
    eventually("three are ready", || endpoint.stats().idle() == 3);
    let held = endpoint.get().unwrap();
    assert_eq!((held.peer_addr(), new.accepted()), (Some(old.address()), 0));
    script.say("db.test", [Answer::at(new.address())]);
    eventually("the old server has but what is in use", || old.open() == 1);
    eventually("three are ready elsewhere", || new.open() >= 3 && endpoint.stats().idle() == 3);
    drop(held);
    eventually("the old server has none", || old.open() == 0);
    assert_eq!(endpoint.stats().closed_for(CloseReason::PeerClosed), 0, "it need not end for that");
    assert_eq!(endpoint.stats().connects_failed(), 0);
}

#[test]
fn callers_who_insist_do_not_storm_a_server_that_refuses_their_login() {
    const CALLERS: usize = 8;
    let _watchdog = watchdog();
    let lab = Lab::new(|method, _| if method == Method::Open { Act::Fail } else { Act::Go });
    let bench = lab.bench();
    let pool = Pool::builder(lab).build().unwrap();
    let endpoint = pool.endpoint("a").unwrap();
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..CALLERS {
            scope.spawn(|| {
                while bench.calls(Method::Open) < 20 {
                    let error = endpoint.get_timeout(SOON).unwrap_err();
                    assert_eq!(error.kind(), ErrorKind::Connect, "{error}");
                    std::thread::yield_now();
                }
            });
        }
    });
    // They all came at once; then there is one attempt at a time, 50 ms after the last at least.
    let most = CALLERS as u128 + 1 + began.elapsed().as_millis() / 50;
    let attempts = bench.calls(Method::Open);
    assert!(attempts as u128 <= most, "{attempts} attempts, {most} at the most");
    assert!(endpoint.stats().refused() > 0, "others learn of the last failure");
}

#[test]
fn a_server_that_is_down_is_not_stormed_for_what_is_to_be_kept_ready() {
    let _watchdog = watchdog();
    let lab = Lab::new(|method, _| if method == Method::Open { Act::Fail } else { Act::Go });
    let bench = lab.bench();
    let pool = Pool::builder(lab).min_idle(5).build().unwrap();
    let began = Instant::now();
    let _endpoint = pool.endpoint("a").unwrap();
    eventually("it is tried again and again", || bench.calls(Method::Open) >= 10);
    // Up to five at once, five pauses that grow, and from then on 400 ms at least.
    let most = 5 + 5 + 1 + began.elapsed().as_millis() / 400;
    let attempts = bench.calls(Method::Open);
    assert!(attempts as u128 <= most, "{attempts} attempts, {most} at the most");
}

#[test]
fn a_patient_caller_waits_through_an_outage_in_which_every_connect_hangs() {
    let _watchdog = watchdog();
    let hole = BlackHole::new();
    let pool = tcp().fail_fast(false).connect_timeout(BRIEF).build().unwrap();
    let endpoint = pool.endpoint(&hole.name()).unwrap();
    let waits = endpoint.request().unwrap();
    eventually("attempts fail", || endpoint.stats().connects_failed() >= 3);
    let error = endpoint.get_timeout(BRIEF).unwrap_err();
    assert_eq!((error.kind(), error.failure()), (ErrorKind::Timeout, Some(Failure::Timeout)));
    assert!(waits.receiver().is_empty());
    let _crowd = hole.open();
    drop(waits.receiver().recv_timeout(SOON).unwrap().expect("it is back"));
    assert_eq!(endpoint.stats().timed_out(), 1);
}

#[test]
fn a_pool_that_is_closed_while_it_fills_opens_nothing_more_and_keeps_nothing() {
    let _watchdog = watchdog();
    let lab = Lab::new(|method, _| if method == Method::Open { Act::Hang } else { Act::Go });
    let bench = lab.bench();
    let pool = Pool::builder(lab).min_idle(5).build().unwrap();
    let endpoint = pool.endpoint("a").unwrap();
    eventually("it fills", || bench.calls(Method::Open) >= 1);
    bench.watch_over(&pool);
    pool.close();
    bench.release();
    pool.drain(Deadline::after(SOON)).unwrap();
    let begun = bench.calls(Method::Open);
    bench.let_go();
    drop((pool, endpoint));
    assert_eq!((bench.alive(), bench.calls(Method::Open)), (0, begun));
}

#[test]
fn a_login_that_only_some_attempts_survive_serves_everybody_in_the_end() {
    let _watchdog = watchdog();
    let lab = Lab::new(|method, before| match method {
        Method::Open if before % 3 == 0 => Act::Fail,
        Method::Open if before % 3 == 1 => Act::Panic,
        _ => Act::Go,
    });
    let bench = lab.bench();
    let pool = Pool::builder(lab).fail_fast(false).max_per_endpoint(4).build().unwrap();
    let endpoint = pool.endpoint("a").unwrap();
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| drop(endpoint.get_timeout(SOON).unwrap()));
        }
    });
    assert_eq!(endpoint.stats().checkouts(), 16);
    eventually("nothing is under way", || endpoint.stats().connecting() == 0);
    assert_balanced(&endpoint.stats());
    pool.drain(Deadline::after(SOON)).unwrap();
    assert_eq!(bench.alive(), 0);
    assert_empty(&pool.stats());
}

#[test]
fn an_outage_of_one_server_costs_the_others_nothing() {
    let _watchdog = watchdog();
    let (down, up) = (Refusing::new(), Server::echo());
    let pool = tcp().fail_fast(false).max_total(4).build().unwrap();
    let [down, up] = [down.name(), up.name()].map(|name| pool.endpoint(&name).unwrap());
    let _waiting: Vec<_> = (0..20).map(|_| down.request().unwrap()).collect();
    eventually("attempts fail", || down.stats().connects_failed() >= 3);
    for _ in 0..50 {
        let held = [(); 3].map(|()| up.get_timeout(SOON).unwrap());
        held.into_iter().for_each(|mut conn| ask(&mut conn).unwrap());
        assert!(down.stats().connecting() <= 1, "one attempt at a time: {}", down.stats());
    }
    assert_eq!((up.stats().timed_out(), up.stats().opened()), (0, 3));
}
