//! Limits of one endpoint: set while it is in use, raised, lowered, and taken away again.

use super::world::{A, B, Got, Held, Look, Mail, World, limits, millis, room_for};
use crate::config::{Caps, Limits};
use crate::core::Refusal;
use crate::observe::CloseReason;

/// Limits like the pool's own, but for how many there may be.
fn at_most(many: usize) -> Caps {
    Caps { max_per_endpoint: many, max_idle_per_endpoint: many, ..limits().caps() }
}

/// `A` with as many of eight in use as are wanted, and the others idle.
fn eight(in_use: usize) -> (World, Vec<Held>) {
    let mut world = World::new(limits());
    world.idle(A, 8);
    let held = (0..in_use).map(|_| world.take(A)).collect();
    (world, held)
}

#[test]
fn what_is_idle_beyond_lower_limits_ends_at_once_those_first_that_were_idle_for_longest() {
    let mut world = World::new(limits());
    let held = world.open(A, 8);
    let ids: Vec<u32> = held.iter().map(|held| held.conn.id).collect();
    held.into_iter().for_each(|held| world.give_back(held));
    world.set_caps(A, at_most(5));
    assert_eq!(world.closed, [ids[0], ids[1], ids[2]].map(|id| (id, CloseReason::Surplus)));
    world.set_caps(A, Caps { max_idle_per_endpoint: 1, ..at_most(5) });
    assert_eq!((world.closed.len(), world.counts(A).idle), (7, 1));
}

#[test]
fn what_is_in_use_beyond_them_ends_when_it_comes_back() {
    let (mut world, mut held) = eight(6);
    world.set_caps(A, at_most(4));
    assert_eq!((world.closed.len(), world.counts(A).total()), (2, 6), "the idle ones");
    for left in [5, 4] {
        world.give_back(held.remove(0));
        assert_eq!(world.counts(A).total(), left);
    }
    assert_eq!(world.closed_for(CloseReason::Surplus), 4);
    held.into_iter().for_each(|held| world.give_back(held));
    assert_eq!((world.counts(A).idle, world.closed.len()), (4, 4), "all that may be there");
}

#[test]
fn no_more_end_than_must_however_the_others_end() {
    let (mut world, mut held) = eight(8);
    world.set_caps(A, at_most(5));
    world.discard(held.remove(0));
    world.detach(held.remove(0)).keep();
    world.hang_up(held[0].lease.token);
    world.give_back(held.remove(0));
    held.into_iter().for_each(|held| world.give_back(held));
    assert_eq!((world.counts(A).idle, world.closed_for(CloseReason::Surplus)), (5, 0));
}

#[test]
fn one_that_is_to_be_settled_is_not_even_settled_first() {
    let (mut world, mut held) = eight(8);
    world.set_caps(A, at_most(7));
    world.settle(held.remove(0));
    assert_eq!((world.closed_for(CloseReason::Surplus), world.upkeeps.len()), (1, 0));
    world.settle(held.remove(0));
    assert_eq!(world.upkeeps.len(), 1);
    world.set_caps(A, at_most(6));
    world.upkeep_ends(Ok(()));
    assert_eq!((world.closed_for(CloseReason::Surplus), world.counts(A).total()), (2, 6));
}

#[test]
fn one_that_was_out_for_a_check_ends_although_somebody_waits_for_it() {
    let mut world = World::new(Limits { check_after: Some(millis(500)), ..limits() });
    world.idle(A, 3);
    world.pass(500);
    let waiters: Vec<Mail> = (0..3).map(|_| world.wait(A)).collect();
    world.set_caps(A, at_most(1));
    (0..3).for_each(|_| world.upkeep_ends(Ok(())));
    assert_eq!(world.closed_for(CloseReason::Surplus), 2);
    let mut held = world.granted(waiters[0]);
    for &waiter in &waiters[1..] {
        assert!(world.connects.is_empty());
        world.give_back(held);
        let Look::Granted(next) = world.look(waiter) else { panic!("one came back") };
        held = next;
    }
}

#[test]
fn what_is_being_opened_beyond_them_ends_when_it_is_open() {
    let mut world = World::new(limits());
    let waiters: Vec<Mail> = (0..4).map(|_| world.wait(A)).collect();
    world.set_caps(A, at_most(2));
    (0..4).for_each(|_| _ = world.connect_ok(A));
    assert_eq!((world.closed_for(CloseReason::Surplus), world.counts(A).in_use), (2, 2));
    waiters[..2].iter().for_each(|&waiter| drop(world.granted(waiter)));
    assert!(world.connects.is_empty(), "no others are opened for those who wait");
}

#[test]
fn when_limits_are_raised_those_who_wait_are_served_at_once() {
    let mut world = World::new(limits());
    world.set_caps(A, at_most(1));
    let waiters: Vec<Mail> = (0..4).map(|_| world.wait(A)).collect();
    assert_eq!(world.connects.len(), 1);
    world.set_caps(A, at_most(3));
    assert_eq!(world.connects.len(), 3);
    world.set_caps(A, limits().caps());
    assert_eq!(world.connects.len(), 4);
    for waiter in waiters {
        world.connect_ok(A);
        world.granted(waiter);
    }
}

#[test]
fn raised_again_before_they_come_back_nothing_ends() {
    let (mut world, held) = eight(8);
    world.set_caps(A, at_most(2));
    world.set_caps(A, at_most(8));
    held.into_iter().for_each(|held| world.give_back(held));
    assert_eq!((world.counts(A).idle, world.closed.len()), (8, 0));
}

#[test]
fn what_may_not_be_idle_is_handed_over_to_whoever_waits_or_ends() {
    let mut world = World::new(limits());
    world.set_caps(A, Caps { max_idle_per_endpoint: 0, ..at_most(1) });
    let held = world.open(A, 1).remove(0);
    let waiter = world.wait(A);
    world.give_back(held);
    let held = world.granted(waiter);
    world.give_back(held);
    assert_eq!(world.closed_for(CloseReason::Surplus), 1);
}

#[test]
fn own_limits_say_how_many_may_wait_and_how_many_may_connect() {
    let mut world = World::new(limits());
    let own = Caps { max_waiting: 3, max_connecting: 2, ..limits().caps() };
    world.set_caps(A, own);
    (0..3).for_each(|_| _ = world.wait(A));
    assert_eq!(world.connects.len(), 2);
    assert!(matches!(world.refused(A), Refusal::Saturated(counts) if counts.waiting == 3));
    (0..4).for_each(|_| _ = world.wait(B));
    assert_eq!(world.counts(B).connecting, 4, "others have the pool's");
    world.set_caps(A, Caps { max_waiting: 4, max_connecting: 3, ..own });
    assert!(matches!(world.get(A), Got::Waits(_)));
    assert_eq!(world.counts(A).connecting, 3);
}

#[test]
fn an_error_tells_the_limit_of_the_endpoint() {
    let mut world = World::new(limits());
    world.set_caps(A, Caps { max_waiting: 1, ..at_most(1) });
    world.wait(A);
    let Refusal::Saturated(counts) = world.refused(A) else { panic!("one may wait") };
    assert_eq!((counts.limit, counts.pool.1), (1, 8));
}

#[test]
fn one_endpoint_can_be_kept_ready_and_is_refilled_until_its_limits_are_taken_away() {
    let mut world = World::new(limits());
    world.set_caps(A, Caps { min_idle: 2, ..limits().caps() });
    assert_eq!((world.counts(A).connecting, world.counts(B).connecting), (2, 0));
    (0..2).for_each(|_| _ = world.connect_ok(A));
    let held = world.take(A);
    assert_eq!(world.counts(A).connecting, 1, "one was taken");
    world.connect_ok(A);
    world.evict(A);
    world.reap_with(&|endpoint| endpoint == A);
    assert_eq!(world.counts(A).connecting, 1, "beside one in use they are opened in turn");
    world.connect_fails(A);
    world.set_caps(A, limits().caps());
    world.pass(1_000);
    world.reap_with(&|_| true);
    assert!(world.connects.is_empty());
    world.give_back(held);
    assert_eq!(world.counts(A).total(), 0, "it was evicted");
}

#[test]
fn an_endpoint_is_to_be_kept_ready_where_its_own_limits_say_so_and_nowhere_else() {
    let mut world = World::new(limits());
    let kept = |world: &World| [A, B].map(|at| world.core.keeps(at));
    world.set_caps(A, at_most(3));
    assert!(!world.core.keeps_some(), "they say how many there may be, not how many there are");
    assert_eq!(kept(&world), [false, false]);
    world.set_caps(A, Caps { min_idle: 2, ..at_most(3) });
    assert!(world.core.keeps_some());
    assert_eq!(kept(&world), [true, false]);
    world.set_caps(A, limits().caps());
    assert_eq!(kept(&world), [false, false]);
}

#[test]
fn it_is_kept_ready_no_longer_once_nobody_holds_it_and_nobody_asks() {
    let idle_timeout = Some(millis(1_000));
    let mut world = World::new(Limits { idle_timeout, ..limits() });
    world.set_caps(A, Caps { min_idle: 1, ..limits().caps() });
    world.connect_ok(A);
    world.pass(1_000);
    world.reap_with(&|endpoint| endpoint == A);
    assert_eq!(world.counts(A).idle, 1, "it is held, so it is kept");
    world.pass(1_000);
    world.reap();
    assert_eq!(world.counts(A).total(), 0);
}

#[test]
fn warming_opens_no_more_than_the_endpoint_may_have() {
    let mut world = World::new(room_for(40));
    world.set_caps(A, at_most(3));
    assert_eq!(world.warm(A, 100, Mail(900)), 3);
    world.set_caps(B, Caps { max_idle_per_endpoint: 2, ..at_most(3) });
    assert_eq!(world.warm(B, 100, Mail(901)), 2);
}

#[test]
fn what_ends_at_lower_limits_makes_room_for_the_starved() {
    let mut world = World::new(Limits { max_total: 2, ..limits() });
    let mut held = world.open(A, 2);
    let mine = world.wait(A);
    world.pass(1);
    let theirs = world.wait(B);
    world.set_caps(A, at_most(1));
    world.give_back(held.remove(0));
    assert_eq!(world.closed_for(CloseReason::Surplus), 1);
    world.connect_ok(B);
    world.granted(theirs);
    world.give_back(held.remove(0));
    assert!(matches!(world.look(mine), Look::Granted(_)));
}

#[test]
fn an_endpoint_with_limits_of_its_own_is_not_forgotten_until_they_are_taken_away() {
    let mut world = World::new(limits());
    world.set_caps(A, at_most(3));
    assert!(!world.forget(A));
    world.set_caps(A, limits().caps());
    assert!(world.forget(A));
}

#[test]
fn limits_set_on_a_closed_pool_open_nothing() {
    let (mut world, held) = eight(2);
    world.close();
    world.set_caps(A, Caps { min_idle: 2, ..at_most(3) });
    world.reap_with(&|_| true);
    assert!(world.connects.is_empty());
    held.into_iter().for_each(|held| world.give_back(held));
    assert!(world.core.has_ended());
}

#[test]
fn lower_limits_bound_what_is_warmed_too() {
    let mut world = World::new(limits());
    let caller = Mail(900);
    assert_eq!(world.warm(A, 4, caller), 4);
    world.set_caps(A, Caps { max_idle_per_endpoint: 1, ..limits().caps() });
    for _ in 0..10 {
        let Some(connect) = world.connects.pop() else { break };
        world.ends_well(connect);
    }
    assert!(world.connects.is_empty(), "one is opened only to be closed, for ever");
    assert_eq!(world.counts(A).idle, 1);
    world.cool(A, caller);
}
