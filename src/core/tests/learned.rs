//! Servers close what is idle for too long; the pool learns when, and is faster.

use super::world::{A, B, World, limits, millis, room_for};
use crate::clock::Stamp;
use crate::config::Limits;
use crate::core::Notice;
use crate::observe::CloseReason;

/// A pool whose server at `A` closes connections that were idle for five seconds: it has done so
/// with eight.
fn taught(limits: Limits) -> World {
    taught_by(Notice::HungUp, limits)
}

/// The same, where this is what is seen of it first.
fn taught_by(notice: Notice, limits: Limits) -> World {
    let mut world = World::new(limits);
    for _ in 0..8 {
        let held = world.open(A, 1).remove(0);
        let token = held.lease.token;
        world.give_back(held);
        world.pass(5_000);
        world.notice(token, notice);
        world.pass(250); // until others could not be closed together with it
    }
    world
}

fn limit_of(world: &World, endpoint: u32) -> Option<u128> {
    world.core.stats(endpoint).idle_limit().map(|limit| limit.as_millis())
}

#[test]
fn what_is_learned_holds_from_the_next_connection_on() {
    let mut world = taught(limits());
    assert_eq!(limit_of(&world, A), None, "the server may be down");
    let held = world.open(A, 1).remove(0);
    assert_eq!((limit_of(&world, A), limit_of(&world, B)), (Some(4_000), None));
    world.give_back(held);
    world.pass(3_999);
    let held = world.take(A);
    world.give_back(held);
    world.pass(4_000);
    assert!(world.try_get(A).is_none());
    assert_eq!(world.closed_for(CloseReason::IdleTimeout), 1);
}

#[test]
fn a_server_that_says_farewell_in_words_before_it_closes_teaches_as_well() {
    let mut world = taught_by(Notice::Stray, limits());
    world.open(A, 1);
    assert_eq!(limit_of(&world, A), Some(4_000));
    assert_eq!(world.closed_for(CloseReason::StrayBytes), 8);
}

#[test]
fn a_connection_is_closed_before_its_server_does_though_nobody_asks() {
    let limits = Limits { idle_timeout: Some(millis(90_000)), ..limits() };
    let mut world = taught(limits);
    let held = world.open(A, 1).remove(0);
    world.reap();
    world.pass(1_000);
    world.give_back(held);
    let came_back = world.now.mono;
    while world.counts(A).idle > 0 {
        let look_at = world.core.timers.look_at;
        assert!(look_at > world.now.mono && look_at <= came_back.plus(millis(4_001)));
        world.pass(u64::try_from(look_at.since(world.now.mono).as_millis()).unwrap() + 1);
        world.reap();
    }
    assert_eq!(world.closed_for(CloseReason::IdleTimeout), 1);
    assert!(world.now.mono.since(came_back) < millis(4_100));
}

#[test]
fn a_server_that_went_down_teaches_nothing() {
    let mut world = taught(limits());
    world.wait(A);
    world.connect_fails(A);
    world.replies.clear();
    world.pass_pause(A);
    world.open(A, 1);
    assert_eq!(limit_of(&world, A), None);
}

#[test]
fn what_was_never_used_teaches_nothing() {
    let mut world = World::new(limits());
    for _ in 0..10 {
        let token = world.idle(A, 1)[0];
        world.core.entries.at_mut(token.index).uses = 0;
        world.pass(5_000);
        world.hang_up(token);
    }
    world.open(A, 1);
    assert_eq!(limit_of(&world, A), None);
}

#[test]
fn what_was_told_holds_at_once_for_what_is_idle_already() {
    let mut world = World::new(Limits { idle_timeout: Some(millis(90_000)), ..limits() });
    world.idle(A, 2);
    world.pass(2_000);
    tell(&mut world, 2_000);
    assert_eq!(limit_of(&world, A), Some(1_600));
    assert!(world.core.timers.look_at <= world.now.mono);
    world.reap();
    assert_eq!(world.closed_for(CloseReason::IdleTimeout), 2);
}

fn tell(world: &mut World, limit: u64) {
    let now = world.now;
    world.run(&mut |core, fx| core.tell_idle_limit(A, millis(limit), now, fx));
}

#[test]
fn to_be_told_the_same_again_wakes_nobody_and_a_closed_pool_need_not_be_told() {
    let mut world = World::new(limits());
    tell(&mut world, 2_000);
    world.reap();
    let wakes = world.wakes;
    tell(&mut world, 2_000);
    assert_eq!(world.wakes, wakes);
    world.close();
    tell(&mut world, 3_000);
    assert_eq!((world.wakes, limit_of(&world, A)), (wakes, Some(1_600)));
}

#[test]
fn a_server_that_tells_a_longer_one_is_believed() {
    let mut world = World::new(Limits { idle_timeout: Some(millis(1_600)), ..limits() });
    tell(&mut world, 1_000);
    assert_eq!(limit_of(&world, A), Some(800));
    for no_shorter in [2_000, 60_000] {
        tell(&mut world, no_shorter);
        assert_eq!((limit_of(&world, A), world.core.budget.limited.len()), (None, 0));
    }
}

#[test]
#[cfg_attr(miri, ignore = "hundreds of connections")]
fn one_look_ends_a_bounded_number_and_an_empty_endpoint_needs_none() {
    let mut world = World::new(room_for(300));
    world.is_checked = false;
    world.idle(A, 300);
    tell(&mut world, 2_000);
    world.reap();
    world.pass(2_000);
    let mut left = vec![300];
    while world.counts(A).idle > 0 {
        assert!(world.core.timers.look_at <= world.now.mono.plus(millis(1)), "it comes back");
        world.pass(1);
        world.reap();
        left.push(world.counts(A).idle);
    }
    assert_eq!(left, [300, 172, 44, 0]);
    assert_eq!(world.reap(), Stamp::MAX);
}

#[test]
fn a_limit_beyond_the_idle_time_out_changes_nothing() {
    let mut world = World::new(Limits { idle_timeout: Some(millis(1_000)), ..limits() });
    tell(&mut world, 60_000);
    assert_eq!(limit_of(&world, A), None);
}

#[test]
fn an_endpoint_that_is_forgotten_takes_its_limit_with_it() {
    let mut world = World::with_endpoints(limits(), 1);
    tell(&mut world, 60_000);
    world.pass(599_000);
    assert!(!world.forget(A), "somebody may come again");
    world.pass(1_000);
    assert!(world.forget(A));
    world.reap();
    assert_eq!(world.core.add_endpoint(world.now.wall), A);
    assert_eq!(limit_of(&world, A), None);
}
