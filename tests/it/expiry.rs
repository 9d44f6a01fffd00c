//! Time, and generations: what ends connections that nobody uses.

use std::time::Duration;

use warmline::{CloseReason, Pool, PooledConn};

use crate::support::lab::{Act, Lab, Method};
use crate::support::server::Server;
use crate::support::{Diary, SOON, ask, assert_balanced, eventually, tcp, watchdog};

const BRIEF: Duration = Duration::from_millis(40);

#[test]
fn an_idle_connection_is_closed_after_its_idle_time_out_and_one_in_use_is_not() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let diary = Diary::default();
    let pool = tcp().idle_timeout(BRIEF).observer(diary.clone()).build().unwrap();
    let mut held = pool.get(&server.name()).unwrap();
    drop(pool.get(&server.name()).unwrap());
    eventually("the idle one ends", || pool.stats().idle() == 0);
    eventually("its server notices", || server.open() == 1);
    assert_eq!(diary.reasons_of(1), [CloseReason::IdleTimeout]);
    assert!(diary.closed()[0].age() >= BRIEF / 2, "idle time is counted in ticks of some ms");
    ask(&mut held).unwrap();
    drop(held);
    assert_eq!(pool.stats().idle(), 1, "its idle time begins when it comes back");
}

#[test]
fn without_an_idle_time_out_nothing_ends_for_being_idle() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let pool = tcp().idle_timeout(None).max_lifetime(None).build().unwrap();
    drop(pool.get(&server.name()).unwrap());
    // Something else that is due makes the reaper look meanwhile.
    let other = tcp().idle_timeout(BRIEF).build().unwrap();
    drop(other.get(&server.name()).unwrap());
    eventually("the other one ends", || other.stats().closed() == 1);
    assert_eq!((pool.stats().idle(), pool.stats().closed()), (1, 0));
}

#[test]
fn an_idle_connection_is_closed_at_the_end_of_its_lifetime() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let diary = Diary::default();
    let pool = tcp().max_lifetime(BRIEF).observer(diary.clone()).build().unwrap();
    drop(pool.get(&server.name()).unwrap());
    // It was used a moment ago, and has a successor; nobody uses that.
    assert_eq!(diary.reasons_of(2), [CloseReason::MaxLifetime; 2]);
    assert!(diary.closed()[0].age() >= BRIEF * 3 / 4, "at most a quarter is off");
    assert_eq!((pool.stats().total(), pool.stats().opened()), (0, 2));
}

#[test]
fn a_connection_in_use_past_its_lifetime_is_closed_when_it_comes_back() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let diary = Diary::default();
    let pool = tcp().max_lifetime(BRIEF).observer(diary.clone()).build().unwrap();
    let mut held = pool.get(&server.name()).unwrap();
    // Born later, with the same lifetime: when this one is gone, the first is past its own.
    eventually("others end meanwhile", || {
        drop(pool.get(&server.name()).unwrap());
        PooledConn::age(&held) > BRIEF * 3
    });
    ask(&mut held).unwrap();
    let before = pool.stats().closed_for(CloseReason::MaxLifetime);
    drop(held);
    assert_eq!(pool.stats().closed_for(CloseReason::MaxLifetime), before + 1);
    assert_balanced(&pool.stats());
}

#[test]
fn some_are_kept_ready_without_any_traffic() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let pool = tcp().min_idle(3).build().unwrap();
    let endpoint = pool.endpoint(&server.name()).unwrap();
    eventually("three are ready", || endpoint.stats().idle() == 3);
    let held = [endpoint.get().unwrap(), endpoint.get().unwrap()];
    eventually("three are ready again", || endpoint.stats().idle() == 3);
    assert_eq!((endpoint.stats().checkouts(), held.len()), (2, 2));
    assert_eq!((endpoint.stats().opened(), endpoint.stats().closed()), (5, 0));
}

#[test]
fn evicting_before_the_first_checkout_does_not_make_it_fail() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let pool = tcp().min_idle(1).build().unwrap();
    // Names the endpoint, and begins nothing.
    assert!(pool.try_get(&server.name()).unwrap().is_none());
    pool.evict_all();
    ask(&mut pool.get(&server.name()).unwrap()).unwrap();
    assert_eq!(pool.stats().connects_failed(), 0);
}

#[test]
fn what_ends_by_time_is_replaced_to_keep_some_ready() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let builder = tcp().min_idle(2).idle_timeout(BRIEF);
    let pool = builder.max_lifetime(BRIEF * 2).build().unwrap();
    let endpoint = pool.endpoint(&server.name()).unwrap();
    eventually("generations go by", || endpoint.stats().closed() >= 6);
    eventually("two are ready", || endpoint.stats().idle() == 2);
    assert_eq!(endpoint.stats().checkouts(), 0);
    assert_balanced(&endpoint.stats());
}

#[test]
fn a_server_that_comes_back_is_noticed_without_any_traffic() {
    let _watchdog = watchdog();
    let lab = Lab::new(|method, before| match (method, before) {
        (Method::Open, 0..3) => Act::Fail,
        _ => Act::Go,
    });
    let pool = Pool::builder(lab).min_idle(1).build().unwrap();
    let endpoint = pool.endpoint("a").unwrap();
    eventually("one is ready", || endpoint.stats().idle() == 1);
    assert_eq!((endpoint.stats().connects_failed(), endpoint.stats().checkouts()), (3, 0));
}

#[test]
fn an_eviction_ends_idle_ones_now_and_those_in_use_when_they_come_back() {
    let _watchdog = watchdog();
    let (one, two) = (Server::echo(), Server::echo());
    let diary = Diary::default();
    let pool = tcp().observer(diary.clone()).build().unwrap();
    let mut held = pool.get(&one.name()).unwrap();
    drop(pool.get(&one.name()).unwrap());
    drop(pool.get(&two.name()).unwrap());
    pool.evict_all();
    assert_eq!((pool.stats().idle(), pool.stats().in_use()), (0, 1));
    eventually("the servers see it", || one.open() == 1 && two.open() == 0);
    ask(&mut held).expect("who has one may finish");

    let newer = pool.get(&one.name()).unwrap();
    assert!(!PooledConn::is_reused(&newer));
    drop(held);
    drop(newer);
    assert_eq!(diary.reasons(), [CloseReason::Evicted; 3]);
    assert_eq!(pool.stats().idle(), 1, "what was opened after the eviction is not meant");
}

#[test]
fn an_eviction_of_one_endpoint_leaves_the_others_alone() {
    let _watchdog = watchdog();
    let (one, two) = (Server::echo(), Server::echo());
    let pool = Pool::tcp();
    drop(pool.get(&one.name()).unwrap());
    drop(pool.get(&two.name()).unwrap());
    pool.endpoint(&one.name()).unwrap().evict();
    assert!(pool.try_get(&one.name()).unwrap().is_none());
    assert!(pool.try_get(&two.name()).unwrap().is_some());
}

#[test]
fn what_is_being_opened_during_an_eviction_is_old_when_it_arrives() {
    let _watchdog = watchdog();
    let lab = Lab::new(|method, before| match (method, before) {
        (Method::Open, 0) => Act::Hang,
        _ => Act::Go,
    });
    let (bench, diary) = (lab.bench(), Diary::default());
    let pool = Pool::builder(lab).observer(diary.clone()).build().unwrap();
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| pool.get_timeout("a", SOON).map(|item| item.number));
        eventually("it is being opened", || bench.calls(Method::Open) == 1);
        pool.evict_all();
        bench.release();
        assert_eq!(waits.join().unwrap().unwrap(), 1, "the first was of the old generation");
    });
    assert_eq!(diary.reasons_of(1), [CloseReason::Evicted]);
}

#[test]
fn a_pool_that_has_only_begun_reports_no_failure_of_its_own_making() {
    let _watchdog = watchdog();
    for _ in 0..200 {
        let pool = Pool::builder(Lab::sound()).min_idle(1).build().unwrap();
        let endpoint = pool.endpoint("a").unwrap();
        eventually("one is ready", || endpoint.stats().idle() == 1);
        assert_eq!((endpoint.stats().opened(), endpoint.stats().connects_failed()), (1, 0));
    }
}
