//! A server that accepts only to hang up: what is opened to be kept ready dies unused, and is not
//! opened again in haste.

use super::world::{A, Mail, World, limits, millis};
use crate::core::Notice;
use crate::observe::CloseReason;

/// How long it is until the next is opened, after each death in a row.
const PAUSES: [u64; 7] = [50, 100, 200, 400, 800, 800, 800];

/// A pool with one endpoint, where so many are kept ready.
fn keeping(count: usize) -> World {
    let mut world = World::with_endpoints(limits(), 1);
    world.set_min_idle(count);
    let now = world.now;
    world.run(&mut |core, fx| core.keep(A, now, fx));
    assert_eq!(world.connects.len(), count);
    world
}

/// What is under way is accepted, and hung up on.
fn dies_unused(world: &mut World) {
    for _ in 0..world.connects.len() {
        let token = world.connects[0].token;
        world.connect_ok(A);
        world.notice(token, Notice::HungUp);
    }
    assert_eq!(world.counts(A).idle, 0);
}

/// A pool whose only connection has died unused so many times in a row.
fn after_deaths(deaths: usize) -> World {
    let mut world = keeping(1);
    for pause in &PAUSES[..deaths - 1] {
        dies_unused(&mut world);
        world.pass(*pause);
        world.reap();
    }
    dies_unused(&mut world);
    assert!(world.connects.is_empty());
    world
}

#[test]
fn what_dies_unused_is_opened_again_after_ever_longer_pauses_and_the_reaper_knows_when() {
    for count in [1, 3] {
        let mut world = keeping(count);
        for pause in PAUSES {
            dies_unused(&mut world);
            assert!(world.connects.is_empty(), "{pause} ms: not at once");
            let next_at = world.now.mono.plus(millis(pause));
            assert_eq!(world.core.timers.look_at, next_at, "{pause} ms");
            world.pass(pause - 1);
            world.reap();
            assert!(world.connects.is_empty(), "{pause} ms");
            world.pass(1);
            world.reap();
            assert_eq!(world.connects.len(), count, "{pause} ms");
        }
        assert_eq!(world.closed_for(CloseReason::PeerClosed), PAUSES.len() * count);
    }
}

#[test]
fn the_first_use_ends_the_pause_and_the_next_begins_with_the_shortest() {
    let mut world = after_deaths(4);
    world.pass(400);
    world.reap();
    world.connect_ok(A);
    let held = world.take(A);
    world.hang_up(held.lease.token);
    world.give_back(held);
    assert_eq!(world.connects.len(), 1, "one that was used is replaced at once");
    dies_unused(&mut world);
    world.pass(50);
    world.reap();
    assert_eq!(world.connects.len(), 1);
}

#[test]
fn a_caller_does_not_wait_for_the_pause_to_end() {
    let mut world = after_deaths(5);
    let waiter = world.wait(A);
    assert!(!world.connects.is_empty(), "at once");
    world.connect_ok(A);
    world.granted(waiter);
}

#[test]
fn nor_does_who_warms() {
    let mut world = after_deaths(5);
    world.warm(A, 2, Mail(900));
    assert_eq!(world.connects.len(), 2, "at once");
}

#[test]
fn of_the_pause_after_a_death_and_that_after_failures_the_longer_one_counts() {
    let mut world = keeping(6);
    for pause in &PAUSES[..3] {
        dies_unused(&mut world);
        world.pass(*pause);
        world.reap();
    }
    let token = world.connects[0].token;
    world.connect_ok(A);
    world.notice(token, Notice::HungUp);
    let again_at = world.now.mono.plus(millis(PAUSES[3]));
    world.connect_fails(A);
    world.pass_pause(A);
    // Five failures in a row: at least 400 ms from the last.
    (0..4).for_each(|_| world.connect_fails(A));
    world.reap();
    world.now.mono = again_at;
    let next = world.reap();
    assert!(world.connects.is_empty() && next > again_at, "only one of the pauses is over");
    world.now.mono = next;
    world.reap();
    assert_eq!(world.connects.len(), 1);
}

#[test]
fn a_pool_that_is_closed_in_the_pause_opens_nothing_after_it() {
    let mut world = after_deaths(3);
    world.close();
    world.pass(10_000);
    world.reap();
    assert!(world.connects.is_empty() && world.core.has_ended());
    world.assert_empty();
}
