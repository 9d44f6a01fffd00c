//! Checks before a connection goes out, and settling after it came back.

use std::time::Duration;

use warmline::{CloseReason, Pool};

use crate::support::lab::{Act, Lab, Method};
use crate::support::{Diary, SOON, assert_empty, eventually, watchdog};

#[test]
fn a_connection_with_work_left_to_do_is_settled_before_the_next_user_gets_it() {
    let _watchdog = watchdog();
    let lab = Lab::new(|method, before| match (method, before) {
        (Method::Reset, _) => Act::Later,
        (Method::Settle, 0) => Act::Hang,
        (Method::Settle, 2) => Act::Fail,
        _ => Act::Go,
    });
    let (bench, diary) = (lab.bench(), Diary::default());
    let builder = Pool::builder(lab).observer(diary.clone()).max_per_endpoint(1);
    let pool = builder.settle_timeout(SOON).build().unwrap();
    bench.watch_over(&pool);
    let endpoint = pool.endpoint("a").unwrap();
    drop(endpoint.get().unwrap());
    eventually("it is being settled", || bench.calls(Method::Settle) == 1);
    assert_eq!((endpoint.stats().checking(), endpoint.stats().idle()), (1, 0));
    assert!(endpoint.try_get().is_none(), "not before it is settled");
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| endpoint.get_timeout(SOON).map(|item| item.number));
        eventually("one waits", || endpoint.stats().waiting() == 1);
        bench.release();
        assert_eq!(waits.join().unwrap().unwrap(), 0, "the settled one serves it");
    });
    eventually("settled again", || endpoint.stats().idle() == 1);
    drop(endpoint.get().unwrap());
    assert_eq!(diary.reasons_of(1), [CloseReason::ResetRefused], "settling failed");
    assert_eq!(endpoint.get().unwrap().number, 1);
    bench.let_go();
}

#[test]
fn a_connection_that_rested_is_checked_before_it_goes_out() {
    let _watchdog = watchdog();
    let lab = Lab::new(|method, before| match (method, before) {
        (Method::HasCheck, _) => Act::Later,
        (Method::Check, 1) => Act::Fail,
        _ => Act::Go,
    });
    let (bench, diary) = (lab.bench(), Diary::default());
    let builder = Pool::builder(lab).observer(diary.clone());
    let pool = builder.check_after(Duration::ZERO).build().unwrap();
    bench.watch_over(&pool);
    assert_eq!(pool.get("a").unwrap().number, 0);
    assert_eq!(bench.calls(Method::Check), 0, "a new one needs none");
    assert_eq!(pool.get("a").unwrap().number, 0);
    assert_eq!(bench.calls(Method::Check), 1);
    assert_eq!(pool.get("a").unwrap().number, 1, "one that failed its check is replaced");
    assert_eq!(diary.reasons_of(1), [CloseReason::CheckFailed]);
    assert!(pool.try_get("a").unwrap().is_none(), "it does not wait for the check it begins");
    eventually("the check", || bench.calls(Method::Check) == 3 && pool.stats().idle() == 1);
    bench.let_go();
    pool.close();
    eventually("all are gone", || bench.alive() == 0);
    assert_empty(&pool.stats());
}

#[test]
fn a_connection_that_was_used_a_moment_ago_needs_no_check() {
    let _watchdog = watchdog();
    let lab = Lab::new(|method, _| if method == Method::HasCheck { Act::Later } else { Act::Go });
    let bench = lab.bench();
    let builder = Pool::builder(lab).check_after(Duration::from_secs(3600));
    let pool = builder.build().unwrap();
    for _ in 0..5 {
        assert_eq!(pool.get("a").unwrap().number, 0);
    }
    assert_eq!(bench.calls(Method::Check), 0);
}

#[test]
fn a_settling_that_fails_leaves_no_waiter_behind_that_an_idle_one_could_serve() {
    let _watchdog = watchdog();
    // Of two connections the first is settled when it comes back, in vain, the second is idle; any
    // idle one is checked before it goes out.
    let lab = Lab::new(|method, before| match (method, before) {
        (Method::HasCheck, _) => Act::Later,
        (Method::Reset, 0) => Act::Later,
        (Method::Settle, 0) => Act::Hang,
        _ => Act::Go,
    });
    let bench = lab.bench();
    let builder = Pool::builder(lab).max_per_endpoint(2).check_after(Duration::ZERO);
    let pool = builder.settle_timeout(Duration::from_millis(200)).build().unwrap();
    let held = [pool.get_timeout("a", SOON).unwrap(), pool.get_timeout("a", SOON).unwrap()];
    held.into_iter().for_each(drop);
    assert_eq!((pool.stats().checking(), pool.stats().idle()), (1, 1));
    pool.get_timeout("a", SOON).map(drop).expect("there is an idle one, and room for another");
    bench.release();
}

#[test]
fn a_connect_that_hangs_does_not_keep_a_waiter_from_what_came_back_meanwhile() {
    let _watchdog = watchdog();
    let lab = Lab::new(|method, before| match (method, before) {
        (Method::HasCheck, _) => Act::Later,
        (Method::Open, 1) => Act::Hang,
        _ => Act::Go,
    });
    let bench = lab.bench();
    let builder = Pool::builder(lab).check_after(Duration::ZERO);
    let pool = builder.connect_timeout(SOON * 2).fair_after(SOON).build().unwrap();
    let held = pool.get_timeout("a", SOON).unwrap();
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| pool.get_timeout("a", SOON).map(|item| item.number));
        eventually("the second hangs", || bench.calls(Method::Open) == 2);
        drop(held);
        let number = waits.join().unwrap().expect("it came back while the connect hangs");
        assert_eq!(number, 0);
    });
    bench.release();
}
