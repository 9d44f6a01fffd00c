//! What a failed attempt to connect means, and to whom.

use std::time::Duration;

use super::world::{A, B, Got, Look, Mail, World, limits, millis};
use crate::config::Limits;
use crate::core::Refusal;

#[test]
fn with_nothing_left_a_failure_fails_all_who_arrived_before_it() {
    let mut world = World::new(Limits { max_connecting: 1, ..limits() });
    let waiters: Vec<Mail> = (0..4).map(|_| world.wait(A)).collect();
    world.pass(30);
    let connect = world.connect_of(A);
    world.fails(connect, 9);
    for waiter in waiters {
        assert_eq!(world.failed(waiter), "cause 9");
    }
    assert_eq!((world.counts(A).waiting, world.stats().connects_failed()), (0, 1));
    assert_eq!(world.stats().timed_out(), 0);
}

#[test]
fn a_failure_elsewhere_fails_nobody_here() {
    let mut world = World::new(limits());
    let waiter = world.wait(A);
    world.wait(B);
    world.connect_fails(B);
    world.connect_ok(A);
    world.granted(waiter);
}

#[test]
fn while_one_is_in_use_waiters_wait_on_and_the_failure_becomes_the_source_of_their_time_out() {
    let mut world = World::new(limits());
    let held = world.open(A, 1).remove(0);
    let waiter = world.wait_within(A, millis(40));
    let connect = world.connect_of(A);
    world.fails(connect, 3);
    assert!(world.replies.is_empty(), "one is in use and may come back");
    world.pass(40);
    let Look::Expired(situation, Some((text, age))) = world.look(waiter) else {
        panic!("its deadline has passed")
    };
    assert_eq!((text.as_str(), age, situation.counts.in_use), ("cause 3", millis(40), 1));
    world.give_back(held);
}

#[test]
fn while_another_attempt_runs_waiters_wait_for_it() {
    let mut world = World::new(limits());
    let first = world.wait(A);
    let second = world.wait(A);
    world.connect_fails(A);
    assert!(world.replies.is_empty());
    world.connect_ok(A);
    world.granted(first);
    // The success ends the pause: the second gets an attempt of its own at once.
    assert_eq!(world.connects.len(), 1);
    world.connect_ok(A);
    world.granted(second);
}

#[test]
fn while_one_is_being_settled_or_checked_waiters_wait_for_it() {
    let mut world = World::new(limits());
    let held = world.open(A, 1).remove(0);
    let waiter = world.wait(A);
    world.settle(held);
    world.connect_fails(A);
    assert!(world.replies.is_empty());
    world.upkeep_ends(Ok(()));
    world.granted(waiter);
}

#[test]
fn within_50_ms_of_a_failure_a_checkout_is_refused_with_its_age() {
    let mut world = World::new(limits());
    world.wait(A);
    world.connect_fails(A);
    for age in [0, 20, 49] {
        world.now.mono = world.now.mono.plus(millis(if age == 49 { 29 } else { age }));
        let Refusal::Failed(failure, since, counts) = world.refused(A) else {
            panic!("it was refused for something else")
        };
        assert_eq!((failure.cause.to_string(), since), ("cause 1".to_owned(), millis(age)));
        assert_eq!(counts.total(), 0);
    }
    assert_eq!(world.stats().refused(), 3);
    world.pass(1);
    assert!(matches!(world.get(A), Got::Waits(_)));
    assert!(world.connects.is_empty(), "the next attempt begins within 100 ms of the failure");
    world.pass_pause(A);
    world.reap();
    assert_eq!(world.connects.len(), 1);
}

#[test]
fn within_50_ms_of_a_failure_a_checkout_waits_if_one_is_in_use() {
    let mut world = World::new(limits());
    let held = world.open(A, 1).remove(0);
    world.wait(A);
    world.connect_fails(A);
    world.pass(10);
    let waiter = world.wait(A);
    assert!(world.connects.is_empty(), "no new attempt yet");
    world.give_back(held);
    world.pass(40);
    world.reap();
    assert!(!world.connects.is_empty() || world.hints.contains(&waiter));
}

#[test]
fn waiters_that_stay_get_their_attempt_when_the_pause_is_over() {
    let mut world = World::new(limits());
    let held = world.open(A, 1).remove(0);
    let waiter = world.wait(A);
    world.connect_fails(A);
    assert!(world.wakes > 0 && world.connects.is_empty());
    world.discard(held);
    world.pass(49);
    world.reap();
    assert!(world.connects.is_empty(), "not yet");
    world.pass(1);
    let next = world.reap();
    assert_eq!(world.connects.len(), 1);
    assert_eq!(next, world.connects[0].deadline, "nothing else is due before it");
    world.connect_ok(A);
    world.granted(waiter);
}

/// How long it takes until the next attempt begins, with the reaper looking when it has said so.
fn pause_of(world: &mut World) -> Duration {
    let failed_at = world.now.mono;
    while world.connects.is_empty() {
        world.pass(1);
        if world.core.timers.look_at <= world.now.mono {
            world.reap_with(&|_| true);
        }
    }
    world.now.mono.since(failed_at)
}

#[test]
fn with_nobody_waiting_attempts_to_refill_come_ever_more_seldom() {
    let mut world = World::with_endpoints(Limits { min_idle: 1, ..limits() }, 1);
    let now = world.now;
    world.run(&mut |core, fx| core.keep(A, now, fx));
    for most in [100, 100, 200, 400, 800, 800] {
        world.connect_fails(A);
        let pause = pause_of(&mut world);
        assert!((millis(50.max(most / 2))..=millis(most + 1)).contains(&pause), "{pause:?}");
    }
    // Somebody who comes is not kept waiting for that long.
    world.connect_fails(A);
    world.pass(50);
    let waiter = world.wait(A);
    let pause = pause_of(&mut world);
    assert!(pause <= millis(51), "{pause:?}");
    assert_eq!(world.connects.len(), 1, "one sees for all whether the server is back");
    world.connect_ok(A);
    world.granted(waiter);
    assert_eq!(world.connects.len(), 1, "and all that is to be kept follows");
}

#[test]
fn one_who_came_within_the_last_second_may_come_again_and_attempts_go_on_as_if_he_waited() {
    let mut world = World::with_endpoints(Limits { min_idle: 1, ..limits() }, 1);
    let caller = world.wait(A);
    (0..2).for_each(|_| world.connect_fails(A));
    world.failed(caller);
    let came_at = world.now.mono;
    let mut pauses = Vec::new();
    while world.now.mono.since(came_at) < millis(2_000) {
        pauses.push((world.now.mono.since(came_at), pause_of(&mut world)));
        world.connect_fails(A);
    }
    for (after, pause) in pauses {
        let is_soon = pause <= millis(101);
        assert_eq!(is_soon, after < millis(1_000), "{after:?} after he came: {pause:?}");
    }
}

#[test]
fn an_endpoint_that_is_out_is_probed_by_one_attempt_at_a_time_until_one_succeeds() {
    let mut world = World::new(Limits { fail_fast: false, ..limits() });
    let waiters: Vec<_> = (0..4).map(|_| world.wait(A)).collect();
    assert_eq!(world.connects.len(), 4);
    (0..4).for_each(|_| world.connect_fails(A));
    assert!(world.replies.is_empty(), "they are to be patient");
    for _ in 0..3 {
        world.pass_pause(A);
        world.reap();
        assert_eq!(world.connects.len(), 1);
        world.connect_fails(A);
    }
    world.pass_pause(A);
    world.reap();
    world.connect_ok(A);
    assert_eq!(world.connects.len(), 1, "beside one that is in use they come one by one");
    world.granted(waiters[0]);
}

#[test]
fn a_caller_that_comes_later_than_50_ms_after_a_failure_waits_for_the_next_attempt() {
    let mut world = World::new(limits());
    world.wait(A);
    world.connect_fails(A);
    while world.core.endpoints.at(A).retry_at.expect("it failed").since(world.now.mono) < millis(51)
    {
        world.pass_pause(A);
        world.reap();
        world.connect_fails(A);
    }
    world.pass(50);
    let waiter = world.wait(A);
    assert!(world.connects.is_empty());
    world.pass_pause(A);
    world.reap();
    world.connect_ok(A);
    world.granted(waiter);
}

#[test]
fn with_nobody_waiting_the_pause_does_not_end_sooner_because_the_reaper_looks_for_another_reason() {
    let mut world = World::with_endpoints(Limits { min_idle: 1, ..limits() }, 1);
    let now = world.now;
    world.run(&mut |core, fx| core.keep(A, now, fx));
    for _ in 0..4 {
        world.connect_fails(A);
        let until = world.core.endpoints.at(A).quiet_until;
        while world.now.mono < until {
            assert!(world.connects.is_empty(), "{:?} are left", until.since(world.now.mono));
            world.pass(1);
            world.reap_with(&|_| true);
        }
        assert_eq!(world.connects.len(), 1);
    }
}

#[test]
fn a_success_forgets_the_failure() {
    let mut world = World::new(Limits { max_per_endpoint: 1, ..limits() });
    world.wait(A);
    world.connect_fails(A);
    world.replies.clear();
    world.pass_pause(A);
    let held = world.open(A, 1).remove(0);
    let waiter = world.wait_within(A, millis(10));
    world.pass(10);
    let Look::Expired(_, source) = world.look(waiter) else { panic!("its deadline has passed") };
    assert!(source.is_none(), "{source:?}");
    world.give_back(held);
}
