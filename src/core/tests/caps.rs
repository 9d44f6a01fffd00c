//! Limits: what is closed when there are too many, and what never is.

use super::world::{A, B, C, Look, Mail, World, limits, millis};
use crate::config::Limits;
use crate::observe::CloseReason;

#[test]
fn over_max_idle_the_least_recently_used_of_any_endpoint_ends() {
    let mut world = World::new(Limits { max_idle: 3, ..limits() });
    let oldest = world.open(B, 1).remove(0);
    let mut held = world.open(A, 3);
    let id = oldest.conn.id;
    world.give_back(oldest);
    for _ in 0..3 {
        assert!(world.closed.is_empty());
        world.pass(1);
        world.give_back(held.remove(0));
    }
    assert_eq!(world.closed, [(id, CloseReason::Surplus)]);
    assert_eq!((world.counts(A).idle, world.counts(B).idle), (3, 0));
}

#[test]
fn over_max_idle_per_endpoint_its_own_oldest_ends() {
    let mut world = World::new(Limits { max_idle_per_endpoint: 2, ..limits() });
    world.idle(B, 1);
    let held = world.open(A, 3);
    let ids: Vec<u32> = held.iter().map(|held| held.conn.id).collect();
    held.into_iter().for_each(|held| world.give_back(held));
    assert_eq!(world.closed, [(ids[0], CloseReason::Surplus)]);
    assert_eq!((world.counts(A).idle, world.counts(B).idle), (2, 1));
}

#[test]
fn waiters_come_before_caps() {
    for cap in [Limits { max_idle: 0, ..limits() }, Limits { max_idle_per_endpoint: 0, ..limits() }]
    {
        let mut world = World::new(Limits { max_per_endpoint: 1, ..cap });
        let mut held = world.open(A, 1).remove(0);
        for _ in 0..3 {
            // It has not waited for long, but nothing may be idle for it to find.
            let waiter = world.wait(A);
            world.give_back(held);
            held = world.granted(waiter);
        }
        world.give_back(held);
        assert_eq!((world.closed.len(), world.closed_for(CloseReason::Surplus)), (1, 1));
        assert_eq!(world.live(), 0);
    }
}

#[test]
fn a_cap_does_not_take_what_a_waiter_was_told_of() {
    let mut world = World::new(Limits { max_idle: 1, max_per_endpoint: 1, ..limits() });
    let theirs = world.open(B, 1).remove(0);
    let held = world.open(A, 1).remove(0);
    let waiter = world.wait(A);
    world.give_back(held);
    assert_eq!(world.hints, [waiter]);
    world.give_back(theirs);
    assert_eq!(world.counts(B).idle, 0, "nobody wants that one");
    assert!(matches!(world.look(waiter), Look::Granted(_)));
}

#[test]
fn max_per_endpoint_and_max_connecting_bound_what_is_begun() {
    let mut world = World::new(Limits { max_per_endpoint: 3, max_connecting: 2, ..limits() });
    (0..5).for_each(|_| _ = world.wait(A));
    assert_eq!(world.connects.len(), 2);
    world.connect_ok(A);
    assert_eq!((world.connects.len(), world.counts(A).in_use), (1, 1), "one is there: in turn");
    world.pass(5);
    world.reap();
    assert_eq!((world.connects.len(), world.counts(A).in_use), (2, 1));
    world.connect_ok(A);
    world.connect_ok(A);
    assert_eq!((world.connects.len(), world.counts(A).in_use), (0, 3));
}

#[test]
fn a_limit_on_all_connects_together_is_shared_in_turn() {
    let mut world = World::new(Limits { max_connecting_total: 2, max_connecting: 2, ..limits() });
    (0..2).for_each(|_| _ = world.wait(A));
    world.pass(1);
    world.wait(B);
    world.pass(1);
    (0..2).for_each(|_| _ = world.wait(A));
    assert_eq!((world.counts(A).connecting, world.counts(B).connecting), (2, 0));
    world.connect_ok(A);
    world.connect_ok(A);
    assert_eq!(world.counts(A).connecting + world.counts(B).connecting, 2);
    assert_eq!(world.counts(B).connecting, 1, "B had its turn");
}

#[test]
fn at_max_total_the_least_recently_used_idle_one_of_another_endpoint_makes_room() {
    let mut world = World::new(Limits { max_total: 3, ..limits() });
    let first = world.open(A, 1).remove(0);
    let second = world.open(B, 1).remove(0);
    let ids = (first.conn.id, second.conn.id);
    world.idle(A, 1);
    world.pass(1);
    world.give_back(second);
    world.pass(1);
    world.give_back(first);
    let waiter = world.wait(C);
    assert_eq!(world.closed.len(), 1);
    assert_ne!(world.closed[0].0, ids.0, "not the one used last");
    assert_eq!((world.closed[0].1, world.counts(C).connecting), (CloseReason::MadeRoom, 1));
    world.connect_ok(C);
    world.granted(waiter);
    world.wait(C);
    assert_eq!(world.closed[1], (ids.1, CloseReason::MadeRoom));
}

#[test]
fn room_is_never_made_at_an_endpoint_where_somebody_waits() {
    let mut world = World::new(Limits { max_total: 1, ..limits() });
    let held = world.open(A, 1).remove(0);
    let theirs = world.wait(A);
    world.give_back(held);
    assert_eq!((world.counts(A).idle, world.hints.as_slice()), (1, [theirs].as_slice()));
    let mine = world.wait(B);
    assert!(world.closed.is_empty() && world.connects.is_empty());
    let Look::Granted(held) = world.look(theirs) else { panic!("it was told of this one") };
    world.give_back(held);
    assert_eq!(world.closed_for(CloseReason::MadeRoom), 1);
    world.connect_ok(B);
    world.granted(mine);
}

#[test]
fn min_idle_is_filled_for_a_handle_and_filled_again_when_one_is_taken() {
    let mut world = World::new(Limits { min_idle: 2, ..limits() });
    let now = world.now;
    assert!(world.connects.is_empty(), "nobody has asked yet");
    world.run(&mut |core, fx| core.keep(A, now, fx));
    assert_eq!(world.connects.len(), 2);
    world.connect_ok(A);
    world.connect_ok(A);
    assert_eq!((world.counts(A).idle, world.connects.len()), (2, 0));
    let held = world.take(A);
    assert_eq!(world.connects.len(), 1, "one was taken");
    world.connect_ok(A);
    world.give_back(held);
    assert_eq!((world.counts(A).idle, world.connects.len()), (3, 0));
    world.take(A);
    assert!(world.connects.is_empty(), "two are left");
}

#[test]
fn min_idle_is_not_kept_where_nobody_holds_a_handle_and_nobody_asks() {
    let timeout = Some(millis(60_000));
    let limits = Limits { min_idle: 1, idle_timeout: timeout, ..limits() };
    let mut world = World::with_endpoints(limits, 1);
    let now = world.now;
    world.run(&mut |core, fx| core.keep(A, now, fx));
    world.connect_ok(A);
    world.pass(59_000);
    world.reap();
    assert_eq!(world.counts(A).idle, 1);
    world.pass(1_000);
    world.reap_with(&|endpoint| endpoint == A);
    assert_eq!((world.counts(A).idle, world.closed.len()), (1, 0), "it is held, so it is kept");
    world.pass(60_000);
    world.reap();
    assert_eq!(world.counts(A).total(), 0, "nobody holds it, nobody uses it");
    assert!(world.connects.is_empty());
}

#[test]
fn min_idle_does_not_open_what_max_idle_would_close() {
    let mut world = World::new(Limits { min_idle: 2, max_idle: 3, ..limits() });
    let now = world.now;
    for endpoint in [A, B, C] {
        world.run(&mut |core, fx| core.keep(endpoint, now, fx));
    }
    assert_eq!(world.connects.len(), 3);
    while let Some(connect) = world.connects.first().copied() {
        world.connect_ok(connect.endpoint);
        world.reap_with(&|_| true);
    }
    assert_eq!((world.stats().idle(), world.closed.len()), (3, 0));
}

#[test]
fn warming_opens_what_was_asked_for_and_hints_at_each_change() {
    let mut world = World::new(Limits { max_connecting: 2, ..limits() });
    let caller = Mail(900);
    assert_eq!(world.warm(A, 100, caller), 8, "as many as may be idle");
    for open in 1..=8 {
        assert_eq!(world.core.warmth(A), (open - 1, true));
        world.hints.clear();
        world.connect_ok(A);
        assert_eq!(world.hints, [caller]);
    }
    assert_eq!((world.core.warmth(A), world.counts(A).idle), ((8, false), 8));
    world.cool(A, caller);
    world.evict(A);
    assert!(world.connects.is_empty(), "nobody warms it any more");
}

#[test]
fn warming_counts_what_is_in_use() {
    let mut world = World::new(limits());
    let held = world.open(A, 2);
    world.warm(A, 3, Mail(900));
    assert_eq!(world.connects.len(), 1);
    held.into_iter().for_each(|held| world.give_back(held));
}

#[test]
fn who_warms_has_nothing_to_wait_for_in_the_pause_after_a_failure() {
    let mut world = World::new(limits());
    world.warm(A, 1, Mail(900));
    assert_eq!(world.core.warmth(A), (0, true));
    world.connect_fails(A);
    assert_eq!(world.core.warmth(A), (0, false));
}

#[test]
fn who_warms_waits_for_room_in_the_pool_only_while_it_has_nothing() {
    let mut world = World::new(Limits { max_total: 2, ..limits() });
    let mut held = world.open(A, 2);
    world.warm(B, 2, Mail(900));
    assert_eq!((world.core.warmth(B), world.counts(B).connecting), ((0, true), 0));
    world.discard(held.remove(0));
    world.connect_ok(B);
    assert!(world.core.endpoints.at(B).starved_since.is_some(), "it would take another");
    assert_eq!(world.core.warmth(B), (1, false));
}
