//! What a checkout takes, and what it leaves.

use super::world::{A, B, Got, World, limits};
use crate::config::{Limits, Reuse};
use crate::core::Refusal;
use crate::observe::CloseReason;

#[test]
fn the_newest_idle_connection_is_taken_first() {
    let mut world = World::new(limits());
    let tokens = world.idle(A, 3);
    let taken: Vec<_> = (0..3).map(|_| world.take(A).lease.token).collect();
    assert_eq!(taken, [tokens[2], tokens[1], tokens[0]]);
}

#[test]
fn with_reuse_oldest_the_one_that_came_back_first_is_taken_first() {
    let mut world = World::new(Limits { reuse: Reuse::Oldest, ..limits() });
    let tokens = world.idle(A, 3);
    let first = world.take(A);
    assert_eq!(first.lease.token, tokens[0]);
    world.give_back(first);
    let taken: Vec<_> = (0..3).map(|_| world.take(A).lease.token).collect();
    assert_eq!(taken, [tokens[1], tokens[2], tokens[0]]);
}

#[test]
fn endpoints_do_not_take_each_others_connections() {
    let mut world = World::new(limits());
    world.idle(A, 2);
    world.wait(B);
    assert_eq!((world.counts(A).idle, world.connects.len()), (2, 1));
}

#[test]
fn a_connection_leaves_the_middle_of_the_stack_by_its_token() {
    let mut world = World::new(limits());
    let tokens = world.idle(A, 5);
    world.idle(B, 1);
    world.hang_up(tokens[2]);
    world.hang_up(tokens[4]);
    world.hang_up(tokens[0]);
    world.hang_up(tokens[2]); // its token is stale by now
    assert_eq!(world.closed_for(CloseReason::PeerClosed), 3);
    let taken: Vec<_> = (0..2).map(|_| world.take(A).lease.token).collect();
    assert_eq!(taken, [tokens[3], tokens[1]]);
    assert_eq!((world.counts(A).idle, world.counts(B).idle), (0, 1));
}

#[test]
fn a_lease_tells_uses_age_and_how_long_it_was_idle() {
    let mut world = World::new(limits());
    let fresh = world.open(A, 1).remove(0);
    let born = fresh.lease.born;
    assert_eq!((fresh.lease.uses, fresh.lease.idle_for(), born), (0, 0, world.now.mono));
    world.pass(10);
    world.give_back(fresh);
    world.pass(7);
    let again = world.take(A);
    assert_eq!((again.lease.uses, again.lease.idle_for()), (1, 7_000_000));
    assert_eq!(again.lease.born, born);
}

#[test]
fn a_connect_begins_for_each_waiter_and_for_nobody_else() {
    let mut world = World::new(limits());
    let first = world.wait(A);
    let second = world.wait(A);
    assert_eq!(world.connects.len(), 2);
    world.connect_ok(A);
    let one = world.granted(first);
    world.give_back(one);
    // The second was told; the attempt made for it is still under way.
    assert_eq!(world.hints, [second]);
    assert_eq!((world.connects.len(), world.counts(A).idle), (1, 1));
}

#[test]
fn trying_never_waits_and_never_connects() {
    let mut world = World::new(limits());
    assert!(world.try_get(A).is_none());
    assert!(world.connects.is_empty() && world.counts(A).waiting == 0);
    world.idle(A, 1);
    assert!(world.try_get(A).is_some());
    assert!(world.try_get(A).is_none() && world.connects.is_empty());
}

#[test]
fn max_waiting_turns_the_next_one_away_at_once_with_counts() {
    let mut world = World::new(Limits { max_per_endpoint: 1, max_waiting: 2, ..limits() });
    let held = world.open(A, 1).remove(0);
    let first = world.wait(A);
    world.wait(A);
    let Refusal::Saturated(counts) = world.refused(A) else { panic!("it was not saturated") };
    assert_eq!((counts.waiting, counts.in_use, counts.limit), (2, 1, 1));
    assert_eq!(world.stats().refused(), 1);
    assert!(matches!(world.get(B), Got::Waits(_)), "the limit is per endpoint");
    // One leaves, so one may come.
    world.pass(2);
    world.give_back(held);
    world.granted(first);
    world.wait(A);
}

#[test]
fn with_max_waiting_zero_a_checkout_takes_what_is_idle_or_is_turned_away() {
    let mut world = World::new(Limits { max_waiting: 0, min_idle: 1, ..limits() });
    let now = world.now;
    world.run(&mut |core, fx| core.keep(A, now, fx));
    assert!(matches!(world.refused(A), Refusal::Saturated(_)));
    world.connect_ok(A);
    world.take(A);
}

#[test]
fn a_user_may_keep_a_connection_for_good_and_its_room_is_free_at_once() {
    let mut world = World::new(Limits { max_total: 1, ..limits() });
    let held = world.open(A, 1).remove(0);
    let waiter = world.wait(A);
    assert!(world.connects.is_empty());
    let mine = world.detach(held);
    assert_eq!((world.connects.len(), world.stats().detached(), world.live()), (1, 1, 1));
    mine.keep();
    world.connect_ok(A);
    world.granted(waiter);
}

#[test]
fn numbers_add_up_over_endpoints_and_after_one_is_forgotten() {
    let mut world = World::new(limits());
    world.idle(A, 2);
    let held = world.open(B, 3);
    let kept = held.into_iter().nth(1).map(|held| world.detach(held));
    let all = world.stats();
    assert_eq!((all.opened(), all.detached(), all.total()), (5, 1, 4));
    assert_eq!((all.idle(), all.in_use(), all.checkouts()), (2, 2, 5));
    world.evict(A);
    let forgotten = world.forget(A);
    assert!(forgotten);
    let all = world.stats();
    assert_eq!((all.opened(), all.closed_for(CloseReason::Evicted), all.closed()), (5, 2, 2));
    drop(kept);
}
