//! Attempts that do not come back: interrupted, abandoned, stuck, and what they bring when they
//! come back after all.

use super::world::{A, B, Connecting, Mail, World, limits, millis, room_for};
use crate::config::Limits;
use crate::core::Token;
use crate::observe::CloseReason;

/// Room for many attempts that hang.
fn roomy() -> Limits {
    room_for(40)
}

/// Begins `count` attempts that a thread takes up and that cannot be interrupted.
fn hang(world: &mut World, count: usize) -> Vec<Connecting> {
    (0..count).for_each(|_| _ = world.wait_within(A, millis(60_000)));
    let connects = std::mem::take(&mut world.connects);
    for connect in &connects {
        assert!(world.start(connect.token, false));
    }
    connects
}

#[test]
fn at_its_deadline_an_attempt_is_interrupted_and_after_the_grace_abandoned() {
    let mut world = World::new(limits());
    let waiter = world.wait_within(A, millis(60_000));
    let connect = world.connect_of(A);
    assert!(world.start(connect.token, true));
    world.pass(2_999);
    world.reap();
    assert!(world.interrupted.is_empty());
    world.pass(1);
    let next = world.reap();
    assert_eq!(world.interrupted, [connect.token]);
    assert_eq!((world.counts(A).connecting, next), (1, world.now.mono.plus(millis(100))));
    world.pass(100);
    world.reap();
    assert_eq!(world.abandoned, [connect.token]);
    assert_eq!(world.failed(waiter), "did not end by its deadline");
    let stats = world.stats();
    assert_eq!((stats.total(), stats.abandoned(), stats.connects_failed()), (0, 1, 1));
    // It returns at last, with a connection nobody expects any more.
    world.connected(connect);
    let stats = world.stats();
    assert_eq!((world.closed_for(CloseReason::TooLate), stats.abandoned()), (1, 0));
    assert_eq!((stats.opened(), stats.closed(), world.live()), (1, 1, 0));
}

#[test]
fn an_interrupted_attempt_that_returns_in_time_counts_as_a_time_out_whatever_it_brings() {
    for brings_one in [true, false] {
        let mut world = World::new(limits());
        let waiter = world.wait_within(A, millis(60_000));
        let connect = world.connect_of(A);
        world.start(connect.token, true);
        world.pass(3_000);
        world.reap();
        world.pass(50);
        if brings_one {
            world.connected(connect);
        } else {
            world.fails(connect, 5);
        }
        assert_eq!(world.failed(waiter), "did not end by its deadline");
        assert_eq!((world.live(), world.stats().connects_failed()), (0, 1));
        assert_eq!((world.stats().total(), world.stats().abandoned()), (0, 0));
    }
}

#[test]
fn an_attempt_that_cannot_be_interrupted_is_abandoned_at_its_deadline() {
    let mut world = World::new(limits());
    let connects = hang(&mut world, 1);
    world.pass(3_000);
    world.reap();
    assert_eq!(
        (world.interrupted.len(), world.abandoned.as_slice()),
        (0, [connects[0].token].as_slice())
    );
    // Fails at last: nobody is told.
    world.replies.clear();
    world.fails(connects[0], 6);
    assert_eq!((world.stats().abandoned(), world.replies.len()), (0, 0));
}

#[test]
fn an_attempt_that_no_thread_takes_up_fails_at_its_deadline_and_comes_too_late_after_it() {
    let mut world = World::new(limits());
    let waiter = world.wait_within(A, millis(60_000));
    let connect = world.connect_of(A);
    world.pass(3_000);
    world.reap();
    assert_eq!(world.failed(waiter), "no thread of the pool came free for it");
    assert!(!world.start(connect.token, false));
    assert_eq!((world.stats().abandoned(), world.stats().total()), (0, 0));
}

#[test]
fn no_more_than_sixteen_are_abandoned_and_the_others_keep_their_permits_and_say_so() {
    let mut world = World::new(roomy());
    let mut connects = hang(&mut world, 20);
    world.pass(3_000);
    world.reap();
    assert_eq!(world.abandoned.len(), 16);
    let counts = world.counts(A);
    assert_eq!((counts.abandoned, counts.stuck, counts.connecting), (16, 4, 4));
    assert_eq!(world.stats().total(), 4, "they keep their permits");
    let text = counts.to_string();
    assert!(text.contains("4 stuck past their deadline and holding capacity"), "{text}");
    assert_eq!(world.replies.len(), 20, "all who waited were told");
    // Stuck ones return: their room is free again, what they bring is closed.
    let (kept, late): (Vec<_>, Vec<_>) =
        connects.drain(..).partition(|connect| world.knows(connect.token));
    assert_eq!((kept.len(), late.len()), (4, 16));
    for connect in kept {
        world.connected(connect);
    }
    assert_eq!((world.stats().total(), world.counts(A).stuck), (0, 0));
    late.into_iter().for_each(|connect| world.fails(connect, 1));
    assert_eq!((world.stats().abandoned(), world.closed_for(CloseReason::TooLate)), (0, 4));
    assert_eq!(world.stats().connects_failed(), 20);
}

#[test]
fn stuck_attempts_serve_nobody_and_others_are_begun_beside_them() {
    let mut world = World::new(roomy());
    hang(&mut world, 18);
    world.pass(3_000);
    world.reap();
    world.replies.clear();
    assert_eq!(world.counts(A).stuck, 2);
    world.pass_pause(A);
    let waiter = world.wait(A);
    assert_eq!(world.connects.len(), 1, "nothing that is stuck will serve it");
    world.connect_ok(A);
    let held = world.granted(waiter);
    world.give_back(held);
    world.warm(A, 3, Mail(900));
    assert_eq!(world.connects.len(), 2);
}

#[test]
fn a_check_that_is_stuck_serves_nobody_and_its_waiter_gets_an_attempt() {
    let mut world = World::new(Limits { check_after: Some(millis(500)), ..roomy() });
    let token = world.idle(B, 1)[0];
    hang(&mut world, 16);
    world.pass(3_000);
    world.reap();
    let waiter = world.wait_within(B, millis(60_000));
    assert!(world.start(token, false) && world.connects.is_empty());
    world.pass(2_000);
    world.reap();
    assert_eq!((world.counts(B).stuck, world.counts(B).checking), (1, 1));
    assert_eq!(world.connects.len(), 1, "it waits for a check that never ends");
    world.connect_ok(B);
    let held = world.granted(waiter);
    world.upkeep_ends(Ok(()));
    assert_eq!((world.counts(B).stuck, world.closed_for(CloseReason::TooLate)), (0, 1));
    world.give_back(held);
}

#[test]
fn warming_waits_for_an_attempt_that_runs_beside_a_check_that_is_stuck() {
    let mut world = World::new(Limits { check_after: Some(millis(500)), ..roomy() });
    let token = world.idle(B, 1)[0];
    hang(&mut world, 16);
    world.pass(3_000);
    world.reap();
    assert!(world.try_get(B).is_none());
    world.start(token, false);
    world.pass(2_000);
    world.reap();
    assert_eq!(world.counts(B).stuck, 1);
    world.warm(B, 1, Mail(900));
    assert!(!world.connects.is_empty());
    assert!(world.core.warmth(B).1, "more are on their way");
}

#[test]
fn when_late_ones_return_others_may_be_abandoned_again() {
    let mut world = World::new(roomy());
    let first = hang(&mut world, 16);
    world.pass(3_000);
    world.reap();
    world.pass_pause(A);
    let second = hang(&mut world, 1);
    world.connected(first[0]);
    world.pass(3_000);
    world.reap();
    assert_eq!((world.counts(A).abandoned, world.counts(A).stuck), (16, 0));
    assert!(!world.knows(second[0].token));
}

#[test]
fn what_nobody_waits_for_any_more_is_not_wanted_but_becomes_idle_if_it_completes() {
    let mut world = World::new(limits());
    let waiter = world.wait_within(A, millis(10));
    let token = world.connects[0].token;
    assert!(world.core.is_wanted(token));
    world.pass(10);
    world.look(waiter);
    assert!(!world.core.is_wanted(token));
    assert_eq!(world.counts(A).connecting, 1, "it is not called off");
    world.connect_ok(A);
    assert_eq!((world.counts(A).idle, world.live()), (1, 1));
}

#[test]
fn a_stale_token_starts_nothing() {
    let mut world = World::new(limits());
    let held = world.open(A, 1).remove(0);
    let token: Token = held.lease.token;
    assert!(!world.start(token, false), "it is in use");
    world.give_back(held);
    assert!(!world.start(token, false), "it is idle");
    world.evict(A);
    assert!(!world.start(token, false), "it is gone");
}
