//! Endpoints that nobody uses: found without looking at all of them, and forgotten only if there is
//! nothing to remember.

use std::collections::BTreeSet;

use super::world::{A, B, C, Look, Mail, World, limits, millis};
use crate::config::{Caps, Limits};

fn vacant(world: &mut World) -> Vec<u32> {
    world.run(&mut |core, _| core.vacant())
}

#[test]
fn a_new_endpoint_can_be_forgotten() {
    let mut world = World::new(limits());
    assert_eq!(vacant(&mut world), [A, B, C]);
    assert!(world.forget(B));
    assert_eq!(vacant(&mut world), [A, C]);
    let wall = world.now.wall;
    assert_eq!(world.core.add_endpoint(wall), B, "its place is used again");
    assert_eq!(vacant(&mut world), [A, C, B]);
}

#[test]
fn an_endpoint_is_not_vacant_while_anything_happens_there_and_is_again_after_it() {
    let mut world = World::with_endpoints(limits(), 1);
    assert_eq!(vacant(&mut world), [A]);
    let waiter = world.wait(A);
    assert_eq!(vacant(&mut world), [], "somebody waits");
    world.connect_ok(A);
    let held = world.granted(waiter);
    assert_eq!(vacant(&mut world), [], "one is in use");
    assert!(!world.forget(A));
    world.give_back(held);
    assert_eq!(vacant(&mut world), [], "one is idle");
    world.evict(A);
    assert_eq!(vacant(&mut world), [A]);
    let caller = Mail(900);
    world.warm(A, 1, caller);
    world.connect_fails(A);
    assert_eq!(vacant(&mut world), [], "it is being warmed");
    let now = world.now;
    world.run(&mut |core, fx| core.cool(A, &caller, now, fx));
    world.pass(10_000);
    world.reap();
    assert_eq!(vacant(&mut world), [A]);
}

#[test]
fn what_was_abandoned_is_waited_for() {
    let mut world = World::with_endpoints(limits(), 1);
    world.wait_within(A, millis(60_000));
    let connect = world.connect_of(A);
    world.start(connect.token, false);
    world.pass(3_000);
    world.reap();
    assert_eq!((vacant(&mut world).len(), world.counts(A).abandoned), (0, 1));
    world.connected(connect);
    assert_eq!(vacant(&mut world), [A]);
}

#[test]
fn a_request_that_is_cancelled_leaves_nothing_behind() {
    let mut world = World::with_endpoints(Limits { max_total: 1, ..limits() }, 2);
    let held = world.open(A, 1).remove(0);
    assert_eq!(vacant(&mut world), [B]);
    let super::world::Got::Waits(request) = world.request(B) else { panic!("there is no room") };
    assert_eq!(vacant(&mut world), []);
    world.cancel(request);
    assert_eq!(vacant(&mut world), [B]);
    assert!(world.forget(B));
    world.give_back(held);
}

#[test]
fn a_failure_is_remembered_for_as_long_as_it_holds_others_off() {
    let mut world = World::with_endpoints(limits(), 1);
    world.wait(A);
    world.connect_fails(A);
    world.pass(49);
    assert_eq!(vacant(&mut world), [A], "nothing happens there");
    assert!(!world.forget(A), "the next who comes is to be told");
    world.pass_pause(A);
    assert!(world.forget(A));
    assert_eq!(world.stats().connects_failed(), 1, "the pool remembers what it has counted");
}

#[test]
fn what_is_to_be_kept_ready_is_not_forgotten() {
    let mut world = World::with_endpoints(limits(), 1);
    world.set_caps(A, Caps { min_idle: 1, ..limits().caps() });
    world.connect_fails(A);
    world.pass(40);
    assert!(!world.forget(A));
    world.pass(10_000);
    assert!(!world.forget(A), "an attempt is due");
}

#[test]
fn nor_where_nothing_was_opened_yet_but_is_to_be_for_as_long_as_it_was_used_of_late() {
    let idle_timeout = Some(millis(1_000));
    let mut world = World::with_endpoints(Limits { min_idle: 1, idle_timeout, ..limits() }, 1);
    assert!(!world.forget(A), "it was only now made");
    world.pass(1_000);
    world.reap();
    assert!(world.connects.is_empty() && world.forget(A));
}

#[test]
fn counts_of_endpoints_that_are_forgotten_stay_in_those_of_the_pool() {
    let mut world = World::new(limits());
    for endpoint in [A, B] {
        let held = world.open(endpoint, 2);
        held.into_iter().for_each(|held| world.discard(held));
        let waiter = world.wait_within(endpoint, millis(1));
        world.pass(1);
        assert!(matches!(world.look(waiter), Look::Expired(..)));
        world.connect_ok(endpoint);
        world.evict(endpoint);
    }
    let counted = |world: &World| {
        let stats = world.stats();
        (stats.checkouts(), stats.opened(), stats.closed(), stats.timed_out())
    };
    let before = counted(&world);
    assert_eq!(before, (4, 6, 6, 2));
    assert!(world.forget(A) && world.forget(B));
    assert_eq!(counted(&world), before);
}

#[test]
fn one_sweep_looks_at_a_bounded_number_and_the_next_goes_on_where_it_stopped() {
    let mut world = World::with_endpoints(limits(), 3_000);
    let used = world.wait(7);
    let mut seen = BTreeSet::new();
    for _ in 0..2 {
        let found = vacant(&mut world);
        assert!(found.len() >= 1_023 && found.len() <= 1_024);
        seen.extend(found);
    }
    seen.extend(vacant(&mut world));
    assert_eq!(seen.len(), 2_999, "all but the one that is used");
    assert!(!seen.contains(&7));
    world.connect_ok(7);
    let held = world.granted(used);
    world.discard(held);
    let found = (0..3).flat_map(|_| vacant(&mut world)).collect::<BTreeSet<_>>();
    assert_eq!(found.len(), 3_000);
}

#[test]
fn what_is_used_all_the_time_is_looked_at_no_more() {
    let mut world = World::new(limits());
    world.idle(A, 1);
    assert_eq!(vacant(&mut world), [B, C]);
    assert_eq!(world.core.vacant_count(), 2, "it was taken off");
    for _ in 0..3 {
        let held = world.take(A);
        world.give_back(held);
    }
    assert_eq!(world.core.vacant_count(), 2);
    world.evict(A);
    assert_eq!(vacant(&mut world), [B, C, A]);
}
