//! Connections that are checked or settled before they go out again.

use super::world::{A, B, C, Look, Mail, World, limits, millis};
use crate::config::{Limits, Reuse};
use crate::core::Upkeep;
use crate::observe::CloseReason;

fn checked() -> Limits {
    Limits { check_after: Some(millis(500)), ..limits() }
}

#[test]
fn one_that_was_used_of_late_goes_out_unchecked() {
    let mut world = World::new(checked());
    world.idle(A, 1);
    world.pass(499);
    world.take(A);
    assert!(world.upkeeps.is_empty());
}

#[test]
fn if_all_need_a_check_the_newest_is_checked_and_the_caller_queues() {
    let mut world = World::new(checked());
    let tokens = world.idle(A, 2);
    world.pass(500);
    let waiter = world.wait(A);
    assert_eq!((world.upkeeps.len(), world.upkeeps[0].token), (1, tokens[1]));
    assert_eq!(world.upkeeps[0].upkeep, Upkeep::Check);
    assert!(world.connects.is_empty(), "the check can serve it");
    world.upkeep_ends(Ok(()));
    assert_eq!(world.granted(waiter).lease.token, tokens[1]);
}

#[test]
fn with_reuse_oldest_one_that_needs_no_check_comes_first() {
    let mut world = World::new(Limits { reuse: Reuse::Oldest, ..checked() });
    let mut held = world.open(A, 2);
    world.give_back(held.remove(0));
    world.pass(500);
    let newest = held.remove(0);
    let token = newest.lease.token;
    world.give_back(newest);
    assert_eq!(world.take(A).lease.token, token);
    assert!(world.upkeeps.is_empty());
}

#[test]
fn trying_begins_a_check_and_does_not_wait_for_it() {
    let mut world = World::new(checked());
    let tokens = world.idle(A, 3);
    world.pass(500);
    assert!(world.try_get(A).is_none());
    assert!(world.try_get(A).is_none());
    assert_eq!(world.upkeeps.len(), 1, "one check serves one caller");
    world.upkeep_ends(Ok(()));
    assert_eq!(world.try_get(A).map(|held| held.lease.token), Some(tokens[2]));
}

#[test]
fn when_a_check_fails_the_waiter_gets_the_next_idle_one_checked() {
    let mut world = World::new(checked());
    let tokens = world.idle(A, 2);
    world.pass(500);
    let waiter = world.wait(A);
    world.upkeep_ends(Err(CloseReason::CheckFailed));
    assert_eq!(world.hints, [waiter], "another is idle, and nothing is on its way");
    assert!(matches!(world.look(waiter), Look::Waits));
    assert_eq!(world.upkeeps[0].token, tokens[0]);
    world.upkeep_ends(Err(CloseReason::CheckFailed));
    assert_eq!(world.connects.len(), 1, "the permit passes to a connect");
    world.connect_ok(A);
    world.granted(waiter);
}

#[test]
fn a_waiter_that_looks_in_vain_is_not_told_to_look_again_at_once() {
    let mut world = World::new(checked());
    world.idle(A, 3);
    world.pass(500);
    let waiter = world.wait(A);
    assert_eq!((world.upkeeps.len(), world.counts(A).idle), (1, 2));
    // A late hint: one check is under way for it, and the other two would need one, too.
    assert!(matches!(world.look(waiter), Look::Waits));
    assert_eq!(world.hints, [], "it would spin until the check has ended");
    assert_eq!(world.upkeeps.len(), 1);
}

#[test]
fn a_fresh_one_that_comes_back_during_a_check_is_told_of() {
    let mut world = World::new(checked());
    let held = world.open(A, 1).remove(0);
    world.idle(A, 2);
    world.pass(500);
    let waiter = world.wait(A);
    let token = held.lease.token;
    world.give_back(held);
    assert_eq!(world.hints, [waiter]);
    let Look::Granted(held) = world.look(waiter) else { panic!("one is fresh") };
    assert_eq!(held.lease.token, token);
    world.upkeep_ends(Ok(()));
    assert_eq!(world.counts(A).idle, 2);
}

#[test]
fn a_settled_connection_goes_to_whoever_waits() {
    let mut world = World::new(Limits { max_per_endpoint: 1, ..limits() });
    let held = world.open(A, 1).remove(0);
    let waiter = world.wait(A);
    world.settle(held);
    assert_eq!(world.upkeeps[0].upkeep, Upkeep::Settle);
    world.upkeep_ends(Ok(()));
    world.granted(waiter);
}

#[test]
fn a_check_whose_connection_is_lost_in_a_panic_frees_its_room() {
    let mut world = World::new(Limits { max_total: 1, ..limits() });
    let held = world.open(A, 1).remove(0);
    world.settle(held);
    world.wait(B);
    let out = world.upkeeps.remove(0);
    let now = world.now;
    world.run(&mut |core, fx| core.finish_upkeep(A, out.token, None, Ok(()), now, fx));
    assert_eq!(world.stats().closed_for(CloseReason::ConnectorPanicked), 1);
    assert_eq!(world.counts(B).connecting, 1);
    drop(out);
}

#[test]
fn a_check_is_interrupted_at_its_deadline_and_abandoned_after_the_grace() {
    let mut world = World::new(Limits { max_per_endpoint: 1, ..checked() });
    let token = world.idle(A, 1)[0];
    world.pass(500);
    let waiter = world.wait_within(A, millis(10_000));
    assert!(world.start(token, true));
    world.pass(2_000);
    world.reap();
    assert_eq!((world.interrupted.as_slice(), world.abandoned.len()), ([token].as_slice(), 0));
    world.pass(100);
    world.reap();
    assert_eq!(world.abandoned, [token]);
    let stats = world.stats();
    assert_eq!((stats.closed_for(CloseReason::TooLate), stats.abandoned()), (1, 1));
    world.connect_ok(A);
    let held = world.granted(waiter);
    // The call returns after all: what it brings is closed, and counted once.
    world.upkeep_ends(Ok(()));
    assert_eq!((world.closed_for(CloseReason::TooLate), world.stats().abandoned()), (1, 0));
    assert_eq!(world.stats().closed_for(CloseReason::TooLate), 1);
    world.give_back(held);
}

#[test]
fn a_check_that_a_thread_takes_up_after_its_deadline_is_not_begun() {
    let mut world = World::new(checked());
    let token = world.idle(A, 1)[0];
    world.pass(500);
    let waiter = world.wait_within(A, millis(10_000));
    world.pass(2_000);
    world.reap();
    // Nothing would end it if it hung.
    assert!(!world.start(token, false), "its deadline has passed in the queue");
    world.upkeep_ends(Err(CloseReason::TooLate));
    world.connect_ok(A);
    world.granted(waiter);
}

#[test]
fn checks_begin_for_waiters_and_for_nobody_else() {
    let mut world = World::new(checked());
    world.idle(A, 4);
    world.pass(500);
    let waiters: Vec<Mail> = (0..3).map(|_| world.wait(A)).collect();
    assert_eq!((world.upkeeps.len(), world.connects.len()), (3, 0));
    (0..3).for_each(|_| world.upkeep_ends(Ok(())));
    waiters.into_iter().for_each(|mail| drop(world.granted(mail)));
}

#[test]
fn a_check_that_waits_for_a_thread_is_withdrawn_at_its_deadline_and_its_connection_closed() {
    let mut world = World::new(limits());
    for held in world.open(A, 2) {
        world.settle(held);
    }
    let tokens: Vec<_> = world.upkeeps.iter().map(|out| out.token).collect();
    assert!(world.start(tokens[0], true));
    world.pass(1_000);
    world.reap();
    assert_eq!((&*world.withdrawn, &*world.interrupted), (&tokens[1..], &tokens[..1]));
    // It comes back refused.
    let out = world.upkeeps.remove(1);
    world.ends_upkeep(out, Ok(()));
    assert_eq!(world.closed_for(CloseReason::TooLate), 1);
    assert_eq!((world.counts(A).checking, world.stats().abandoned()), (1, 0));
}

/// How long it takes until an attempt begins, while nothing else happens.
fn await_attempt(world: &mut World) -> std::time::Duration {
    let began = world.now.mono;
    while world.connects.is_empty() {
        assert!(world.now.mono.since(began) < millis(1_000), "nothing is opened");
        world.pass(1);
        if world.core.timers.look_at <= world.now.mono {
            world.reap();
        }
    }
    world.now.mono.since(began)
}

/// A caller's wait until an attempt begins, where so many are idle and none of them answers.
fn wait_for_an_attempt(idle: usize, settle_first: bool) -> std::time::Duration {
    let mut world = World::new(checked());
    world.idle(A, idle);
    world.pass(500);
    world.wait_within(A, millis(60_000));
    let began = world.now.mono;
    while world.connects.is_empty() {
        world.pass(1);
        for out in std::mem::take(&mut world.upkeeps) {
            if settle_first {
                world.ends_upkeep(out, Err(CloseReason::CheckFailed));
            } else {
                world.upkeeps.push(out);
            }
        }
        if world.core.timers.look_at <= world.now.mono {
            world.reap();
        }
    }
    world.now.mono.since(began)
}

#[test]
fn where_idle_connections_do_not_answer_another_is_opened_before_all_were_asked() {
    for idle in [1, 2, 5] {
        let waited = wait_for_an_attempt(idle, false);
        assert!((millis(49)..=millis(51)).contains(&waited), "{idle} idle: {waited:?}");
        let waited = wait_for_an_attempt(idle, true);
        assert!(waited <= millis(1), "{idle} idle, one known to be dead: {waited:?}");
    }
}

#[test]
fn where_a_connection_is_not_settled_soon_another_is_opened_for_who_waits() {
    for waits_first in [false, true] {
        let limits = Limits { max_per_endpoint: 2, settle_timeout: millis(60_000), ..limits() };
        let mut world = World::new(limits);
        let [settling, other] = <[_; 2]>::try_from(world.open(A, 2)).unwrap();
        if waits_first {
            world.wait_within(A, millis(60_000));
        }
        world.settle(settling);
        world.discard(other);
        if !waits_first {
            world.wait_within(A, millis(60_000));
        }
        assert!(world.connects.is_empty(), "it may well come back");
        let waited = await_attempt(&mut world);
        assert!((millis(49)..=millis(51)).contains(&waited), "{waited:?}");
    }
}

#[test]
fn where_one_of_two_is_not_settled_soon_another_is_opened_for_the_second_who_waits() {
    for first in [Ok(()), Err(CloseReason::PeerClosed)] {
        let limits = Limits { max_per_endpoint: 3, settle_timeout: millis(60_000), ..limits() };
        let mut world = World::new(limits);
        let [one, two, other] = <[_; 3]>::try_from(world.open(A, 3)).unwrap();
        let served = world.wait_within(A, millis(60_000));
        world.settle(one);
        world.settle(two);
        if first.is_ok() {
            world.wait_within(A, millis(60_000));
        }
        world.discard(other);
        world.upkeep_ends(first);
        if first.is_ok() {
            world.granted(served);
        }
        // With one waiter left, the other settling would do.
        assert!(world.connects.is_empty(), "{first:?}: it may well come back");
        let waited = await_attempt(&mut world);
        assert!((millis(49)..=millis(51)).contains(&waited), "{first:?}: {waited:?}");
    }
}

#[test]
fn where_one_of_two_checks_hangs_another_is_opened_for_the_second_who_waits() {
    let mut world = World::new(Limits { check_timeout: millis(60_000), ..checked() });
    world.idle(A, 2);
    world.pass(500);
    let [first, _second] = [(); 2].map(|()| world.wait_within(A, millis(60_000)));
    assert_eq!((world.upkeeps.len(), world.connects.len()), (2, 0));
    world.upkeep_ends(Ok(()));
    world.granted(first);
    assert!(world.connects.is_empty(), "the other may well come back");
    let waited = await_attempt(&mut world);
    assert!((millis(49)..=millis(51)).contains(&waited), "{waited:?}");
}

#[test]
fn a_settling_that_went_wrong_makes_nobody_suspect_the_next() {
    let refused = Err(CloseReason::CheckFailed);
    // Refused at once, when it was waited for in vain, and when what was opened instead is there.
    for (is_slow, is_opened) in [(false, false), (true, false), (true, true)] {
        let limits = Limits { max_per_endpoint: 2, settle_timeout: millis(60_000), ..limits() };
        let mut world = World::new(limits);
        let [settling, other] = <[_; 2]>::try_from(world.open(A, 2)).unwrap();
        let waiter = world.wait_within(A, millis(60_000));
        world.settle(settling);
        world.discard(other);
        if is_slow {
            await_attempt(&mut world);
        }
        if is_opened {
            world.connect_ok(A);
            world.upkeep_ends(refused);
        } else {
            world.upkeep_ends(refused);
            world.connect_ok(A);
        }
        let held = world.granted(waiter);
        // Nothing is on its way, and another is opened at once.
        let second = world.wait_within(A, millis(60_000));
        world.connect_ok(A);
        let other = world.granted(second);
        world.wait_within(A, millis(60_000));
        world.settle(held);
        world.discard(other);
        let what = (is_slow, is_opened);
        assert!(world.connects.is_empty(), "{what:?}: it may well come back");
        let waited = await_attempt(&mut world);
        assert!((millis(49)..=millis(51)).contains(&waited), "{what:?}: {waited:?}");
    }
}

fn await_hint(world: &mut World, waiter: Mail) {
    while !world.hints.contains(&waiter) {
        world.pass(1);
        world.reap();
    }
}

#[test]
fn a_server_that_stands_still_for_two_seconds_is_not_asked_on_all_its_connections() {
    let mut world = World::new(Limits { max_per_endpoint: 50, ..checked() });
    world.idle(A, 8);
    world.pass(500);
    let waiter = world.wait_within(A, millis(60_000));
    world.core.endpoints.at_mut(A).caps.max_per_endpoint = 8;
    let began = world.now.mono;
    while world.now.mono.since(began) < millis(1_900) {
        await_hint(&mut world, waiter);
        assert!(matches!(world.look(waiter), Look::Waits));
    }
    // After 50, 150, 350, 750 and 1,550 ms; and the next.
    assert_eq!(world.upkeeps.len(), 7);
}

#[test]
fn who_waits_for_a_check_that_hangs_is_not_forgotten_where_others_have_all_the_attempts() {
    let limits = Limits { max_total: 4, max_connecting_total: 1, ..checked() };
    let mut world = World::new(limits);
    world.idle(A, 2);
    world.pass(500);
    let (_theirs, _others) = (world.wait_within(B, millis(60_000)), world.wait(C));
    let waiter = world.wait_within(A, millis(60_000));
    assert_eq!((world.upkeeps.len(), world.connects.len()), (1, 1));
    await_hint(&mut world, waiter);
    world.connect_ok(B);
    assert!(matches!(world.look(waiter), Look::Waits));
    assert_eq!(world.upkeeps.len(), 2, "the other is asked");
}

#[test]
fn where_nothing_can_be_opened_the_next_is_asked_when_one_does_not_answer() {
    let full = Limits { max_per_endpoint: 3, ..checked() };
    let mut world = World::new(full);
    world.idle(A, 3);
    world.pass(500);
    let gone = world.wait_within(A, millis(10));
    world.pass(10);
    assert!(matches!(world.look(gone), Look::Expired(..)));
    let waiter = world.wait_within(A, millis(60_000));
    let began = world.now.mono;
    assert_eq!((world.upkeeps.len(), world.connects.len()), (1, 0), "it is waited for a while");
    for asked in 2..=3 {
        await_hint(&mut world, waiter);
        assert!(matches!(world.look(waiter), Look::Waits));
        assert_eq!(world.upkeeps.len(), asked, "one after the other");
    }
    let waited = world.now.mono.since(began);
    assert!(waited <= millis(153), "{waited:?}");
    world.pass(200);
    world.reap();
    assert_eq!((world.upkeeps.len(), world.connects.len()), (3, 0), "there are no more");
    let last = world.upkeeps.remove(2);
    world.ends_upkeep(last, Ok(()));
    world.granted(waiter);
}

#[test]
fn once_one_has_answered_the_others_are_waited_for_again() {
    let mut world = World::new(checked());
    world.idle(A, 3);
    world.pass(500);
    let first = world.wait(A);
    world.upkeep_ends(Err(CloseReason::CheckFailed));
    assert_eq!(world.connects.len(), 1);
    assert!(matches!(world.look(first), Look::Waits));
    world.upkeep_ends(Ok(()));
    let held = world.granted(first);
    world.give_back(held);
    world.pass(500);
    let second = world.wait(A);
    assert_eq!(world.connects.len(), 1, "none but the one of before");
    world.upkeep_ends(Ok(()));
    world.granted(second);
}
