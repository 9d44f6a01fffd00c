//! Whoever waits in vain is told why.

use super::world::{A, B, Held, Look, Mail, World, limits, millis, room_for};
use crate::config::Limits;
use crate::error::{Deadlock, Phase, Situation, Verdict};

/// As if another thread asked from now on.
fn as_thread(world: &mut World, number: u32) {
    world.caller.thread = 1_000_000 + number;
}

fn small(most: usize) -> World {
    World::with_endpoints(Limits { max_per_endpoint: most, ..limits() }, 2)
}

/// A connection that was just opened for this thread, or is idle.
fn take(world: &mut World, thread: u32) -> Held {
    as_thread(world, thread);
    world.open(A, 1).remove(0)
}

/// Its waiting time ends; what is known of why it was in vain.
fn gives_up(world: &mut World, waiter: Mail) -> Situation {
    world.now.mono = world.now.mono.max(world.waiting[&waiter].deadline);
    match world.look(waiter) {
        Look::Expired(situation, _) => *situation,
        other => panic!("it was served: {other:?}"),
    }
}

#[test]
fn threads_that_each_hold_one_and_want_another_are_in_a_deadlock() {
    let mut world = small(2);
    let _held = [take(&mut world, 1), take(&mut world, 2)];
    as_thread(&mut world, 1);
    let first = world.wait_within(A, millis(100));
    as_thread(&mut world, 2);
    let second = world.wait_within(A, millis(100));
    let deadlock = Some(Deadlock { threads: 2, at_once: 2 });
    let situation = gives_up(&mut world, first);
    assert_eq!(situation.deadlock, deadlock);
    assert_eq!(situation.judge(millis(100), None), Some(Verdict::Deadlock));
    assert_eq!(situation.deadlock.map(Deadlock::least), Some(3), "2 × (2 − 1) + 1");
    let situation = gives_up(&mut world, second);
    assert_eq!(situation.deadlock, deadlock, "the other was in it as well, a moment later");
}

#[test]
fn it_is_no_deadlock_as_long_as_one_who_holds_does_not_wait() {
    let mut world = small(2);
    let _held = [take(&mut world, 1), take(&mut world, 2)];
    as_thread(&mut world, 1);
    let waiter = world.wait_within(A, millis(100));
    let situation = gives_up(&mut world, waiter);
    assert_eq!(situation.deadlock, None);
}

#[test]
fn one_thread_that_wants_a_second_connection_of_one_is_in_a_deadlock_with_itself() {
    let mut world = small(1);
    let _held = take(&mut world, 1);
    let waiter = world.wait_within(A, millis(100));
    let deadlock = gives_up(&mut world, waiter).deadlock.expect("it waits for itself");
    assert_eq!((deadlock, deadlock.least()), (Deadlock { threads: 1, at_once: 2 }, 2));
}

#[test]
fn a_request_blocks_no_thread_and_is_in_no_deadlock() {
    let mut world = small(1);
    let _held = take(&mut world, 1);
    world.request(A);
    as_thread(&mut world, 2);
    let waiter = world.wait_within(A, millis(100));
    assert_eq!(gives_up(&mut world, waiter).deadlock, None);
}

#[test]
fn who_waits_for_room_in_a_full_pool_learns_who_has_it_elsewhere() {
    let mut world = World::with_endpoints(room_for(2), 2);
    let _held = world.open(B, 2);
    as_thread(&mut world, 7);
    let waiter = world.wait_within(A, millis(100));
    let situation = gives_up(&mut world, waiter);
    assert_eq!(situation.holdings.all.len(), 2);
    assert_eq!(situation.judge(millis(100), None), Some(Verdict::Undersized));
}

/// One connection, which goes from hand to hand so many times, for so long each.
fn uses(world: &mut World, times: u32, each: u64) {
    for number in 0..times {
        as_thread(world, 100 + number);
        let held = world.take(A);
        world.pass(each);
        world.give_back(held);
    }
}

/// Whoever waits may be overtaken for as long as he waits.
fn unfair() -> World {
    let limits = Limits { max_per_endpoint: 1, fair_after: millis(60_000), ..limits() };
    let mut world = World::with_endpoints(limits, 1);
    let held = world.open(A, 1).remove(0);
    world.give_back(held);
    world
}

#[test]
fn where_connections_come_back_and_go_to_others_there_are_too_few() {
    let mut world = unfair();
    uses(&mut world, 9, 20);
    let held = world.take(A);
    let waiter = world.wait_within(A, millis(200));
    world.pass(20);
    world.give_back(held);
    uses(&mut world, 9, 20);
    as_thread(&mut world, 7);
    let last = world.take(A);
    let situation = gives_up(&mut world, waiter);
    assert_eq!((situation.served, situation.returned, situation.ahead), (10, 10, 0));
    assert_eq!((situation.usual_use, situation.recent_use), (Some(millis(18)), Some(millis(20))));
    assert_eq!(situation.judge(millis(200), None), Some(Verdict::Undersized));
    world.give_back(last);
}

#[test]
fn where_uses_take_far_longer_than_before_the_users_are_slow() {
    let mut world = unfair();
    uses(&mut world, 9, 20);
    let held = world.take(A);
    let waiter = world.wait_within(A, millis(500));
    world.pass(400);
    world.give_back(held);
    as_thread(&mut world, 7);
    let last = world.take(A);
    let situation = gives_up(&mut world, waiter);
    assert_eq!(situation.recent_use, Some(millis(400)));
    assert_eq!(situation.judge(millis(500), None), Some(Verdict::SlowUsers));
    world.give_back(last);
}

#[test]
fn an_attempt_that_takes_long_is_told_of_with_where_it_is() {
    let mut world = small(2);
    let waiter = world.wait_within(A, millis(400));
    let connect = world.connects[0].token;
    world.start(connect, false);
    world.pass(400);
    let situation = gives_up(&mut world, waiter);
    let (phase, age) = situation.attempt.expect("one is under way");
    assert!(phase != Phase::Queue && age == millis(400), "{phase} {age:?}");
    assert_eq!(situation.judge(millis(400), None), Some(Verdict::SlowConnect));
}

#[test]
fn who_waits_at_another_endpoint_is_in_no_deadlock_here_and_does_not_count() {
    let mut world = small(2);
    let _held = [take(&mut world, 1), take(&mut world, 2)];
    for thread in [1, 2] {
        as_thread(&mut world, thread);
        world.wait_within(B, millis(5_000));
    }
    as_thread(&mut world, 3);
    let waiter = world.wait_within(A, millis(100));
    assert_eq!(gives_up(&mut world, waiter).deadlock, None, "more connections here would not help");
}

#[test]
fn a_deadlock_is_no_larger_for_those_who_wait_elsewhere() {
    let mut world = small(2);
    let _held = [take(&mut world, 1), take(&mut world, 2)];
    for thread in 10..60 {
        as_thread(&mut world, thread);
        world.wait_within(B, millis(5_000));
    }
    as_thread(&mut world, 1);
    world.wait_within(A, millis(5_000));
    as_thread(&mut world, 2);
    let waiter = world.wait_within(A, millis(100));
    let deadlock = gives_up(&mut world, waiter).deadlock;
    assert_eq!(deadlock, Some(Deadlock { threads: 2, at_once: 2 }));
}

#[test]
fn what_was_forgotten_long_before_all_wait_is_no_deadlock() {
    let mut world = small(2);
    let forgotten = take(&mut world, 1);
    for _ in 0..10 {
        let held = take(&mut world, 2);
        world.pass(5);
        world.discard(held);
    }
    let other = take(&mut world, 2);
    world.pass(12_000);
    for thread in [1, 2] {
        as_thread(&mut world, thread);
        world.wait_within(A, millis(60_000));
    }
    as_thread(&mut world, 3);
    let waiter = world.wait_within(A, millis(1_000));
    let situation = gives_up(&mut world, waiter);
    assert_eq!((situation.deadlock, situation.holdings.all.len()), (None, 2));
    assert_eq!(situation.judge(millis(1_000), None), Some(Verdict::Leak));
    world.discard(forgotten);
    world.discard(other);
}

#[test]
fn it_is_no_deadlock_where_somebody_was_served_meanwhile() {
    let mut world = unfair();
    let held = world.take(A);
    as_thread(&mut world, 5);
    let waiter = world.wait_within(A, millis(100));
    world.give_back(held);
    as_thread(&mut world, 1);
    let _held = world.take(A);
    world.wait_within(A, millis(5_000));
    assert_eq!(gives_up(&mut world, waiter).deadlock, None);
}
