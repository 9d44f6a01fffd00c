//! When a connection that comes back is closed to make room elsewhere, and when it is not.

use super::world::{A, B, C, Held, Mail, World, limits};
use crate::config::Limits;
use crate::observe::CloseReason;

/// The one connection there may be, in use at `A`.
fn only_one() -> (World, Held) {
    let mut world = World::new(Limits { max_total: 1, ..limits() });
    let held = world.open(A, 1).remove(0);
    (world, held)
}

#[test]
fn of_two_who_came_at_the_same_moment_the_one_at_its_own_endpoint_gets_it() {
    let (mut world, held) = only_one();
    let own = world.wait(A);
    world.wait(B);
    world.pass(2);
    world.give_back(held);
    world.granted(own);
    assert!(world.closed.is_empty());
}

#[test]
fn none_is_closed_for_one_who_only_wants_some_to_be_ready() {
    let (mut world, held) = only_one();
    world.warm(B, 1, Mail(700));
    world.give_back(held);
    assert_eq!((world.counts(A).idle, world.closed.len()), (1, 0));
}

#[test]
fn none_is_closed_for_one_whose_attempt_could_not_begin_yet() {
    let mut world = World::new(Limits { max_total: 2, max_connecting_total: 1, ..limits() });
    let held = world.open(A, 1).remove(0);
    world.wait(C);
    world.wait(B);
    assert_eq!(world.connects.len(), 1, "that of `C` is all that may be under way");
    world.give_back(held);
    assert_eq!((world.counts(A).idle, world.closed.len()), (1, 0));
    // It can as soon as the other has ended, and then it is.
    world.connect_ok(C);
    assert_eq!(world.closed_for(CloseReason::MadeRoom), 1);
    assert_eq!(world.connect_of(B).endpoint, B);
}

#[test]
fn whoever_warms_hears_that_another_endpoint_took_the_room_of_an_idle_one() {
    let mut world = World::new(Limits { max_idle: 2, ..limits() });
    let held = world.open(A, 1).remove(0);
    world.warm(B, 2, Mail(700));
    (0..2).for_each(|_| _ = world.connect_ok(B));
    world.hints.clear();
    world.pass(1);
    world.give_back(held);
    assert_eq!((world.counts(B).idle, world.closed_for(CloseReason::Surplus)), (1, 1));
    assert_eq!(world.hints, [Mail(700)]);
}
