//! The fast paths: what they take, and where they leave the decision to the others.

use super::world::{A, Held, World, limits, millis};
use crate::config::{Caps, Limits};
use crate::core::Grant;
use crate::sync::Caller;

/// A checkout that does not think.
fn takes(world: &mut World) -> Option<Held> {
    let wall = world.now.wall;
    let grant = world.run(&mut |core, _| core.checkout(A, wall, Caller::here()));
    grant.map(|Grant { conn, lease }| Held { endpoint: A, conn, lease })
}

#[test]
fn where_all_there_may_be_are_kept_ready_none_is_missed() {
    let mut world = World::new(Limits { max_per_endpoint: 3, ..limits() });
    world.set_min_idle(3);
    world.idle(A, 3);
    let held: Vec<_> = (0..3).map(|_| takes(&mut world).unwrap()).collect();
    held.into_iter().for_each(|held| world.give_back(held));
    assert_eq!((world.counts(A).idle, world.connects.len()), (3, 0));
}

#[test]
fn with_one_idle_neither_a_checkout_nor_its_return_thinks() {
    let mut world = World::new(limits());
    world.idle(A, 1);
    let held = takes(&mut world).unwrap();
    assert!(takes(&mut world).is_none(), "there is only one");
    assert!(world.parks(held));
    assert_eq!((world.counts(A).idle, world.core.stats(A).checkouts()), (1, 2));
}

#[test]
fn what_was_idle_for_so_long_that_it_may_be_of_no_use_is_thought_about() {
    let long = Some(millis(100));
    for (idle_timeout, check_after) in [(long, None), (None, long), (long, Some(millis(900)))] {
        let mut world = World::new(Limits { idle_timeout, check_after, ..limits() });
        world.idle(A, 1);
        world.pass(99);
        let held = takes(&mut world).unwrap();
        world.give_back(held);
        world.pass(100);
        assert!(takes(&mut world).is_none());
    }
}

#[test]
fn what_is_kept_ready_is_not_taken_without_another_being_thought_of() {
    let mut world = World::new(limits());
    world.idle(A, 3);
    world.set_min_idle(2);
    assert!(takes(&mut world).is_some());
    assert!(takes(&mut world).is_none());
}

#[test]
fn a_return_is_thought_about_where_there_is_no_room_for_it() {
    for limits in [Limits { max_idle: 1, ..limits() }, limits()] {
        let mut world = World::new(limits);
        let caps = Caps { max_idle_per_endpoint: 1, ..world.limits.caps() };
        let mut held = world.open(A, 2);
        if world.limits.max_idle > 1 {
            world.set_caps(A, caps);
        }
        assert!(world.parks(held.remove(0)));
        assert!(!world.parks(held.remove(0)));
    }
}

#[test]
fn once_no_more_are_there_than_lowered_limits_allow_returns_are_quick_again() {
    let mut world = World::new(limits());
    let mut held = world.open(A, 3);
    let caps = Caps { max_per_endpoint: 2, max_idle_per_endpoint: 2, ..limits().caps() };
    world.set_caps(A, caps);
    assert!(!world.parks(held.remove(0)), "it is one too many");
    assert!(world.parks(held.remove(0)));
    assert_eq!(world.counts(A).total(), 2);
}
