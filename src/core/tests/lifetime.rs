//! Connections retire one after the other, and those that would be missed when another is there.

use std::time::Duration;

use crate::core::timers::Due;

use super::world::{A, Mail, World, limits, millis, room_for};
use crate::clock::Stamp;
use crate::config::{Limits, Reuse};
use crate::observe::CloseReason;

fn mortal(limits: &Limits) -> World {
    World::new(Limits { max_lifetime: Some(millis(16_000)), ..limits.clone() })
}

/// Time passes to the moment at which the reaper looks next.
fn pass_to_look(world: &mut World) {
    let left = world.core.timers.look_at.since(world.now.mono);
    world.now.mono = world.now.mono.plus(left);
    world.now.wall = world.now.wall.plus(left);
    world.reap();
}

/// One that is used every second until its time has come.
fn used_until_it_retires(world: &mut World) -> Stamp {
    world.idle(A, 1);
    let born = world.now.mono;
    let index = world.core.entries.indexes().next().expect("it is there");
    let retires_at = world.core.entries.at(index).retires_at.at().expect("it is mortal");
    while world.now.mono.plus(millis(1_000)) < retires_at {
        world.pass(1_000);
        let held = world.take(A);
        world.give_back(held);
    }
    world.pass(u64::try_from(retires_at.since(world.now.mono).as_millis()).unwrap() + 1);
    world.reap();
    born
}

#[test]
fn one_that_is_used_has_a_successor_opened_before_it_retires() {
    let mut world = mortal(&limits());
    let born = used_until_it_retires(&mut world);
    assert_eq!((world.counts(A).idle, world.counts(A).connecting), (1, 1));
    let held = world.take(A);
    world.give_back(held);
    world.connect_ok(A);
    assert_eq!((world.counts(A).idle, world.closed_for(CloseReason::MaxLifetime)), (1, 1));
    assert!(world.now.mono.since(born) < millis(16_000));
    assert_eq!(world.core.endpoints.at(A).succeeding, 0);
}

#[test]
fn its_lifetime_ends_in_time_though_its_successor_does_not_come() {
    let mut world = mortal(&limits());
    let born = used_until_it_retires(&mut world);
    while world.counts(A).idle > 0 {
        pass_to_look(&mut world);
    }
    assert!(world.now.mono.since(born) <= millis(16_000));
    assert_eq!(world.closed_for(CloseReason::MaxLifetime), 1);
    assert_eq!(world.core.endpoints.at(A).succeeding, 0);
    world.connect_ok(A);
    assert_eq!(world.counts(A).idle, 1, "it came late, and is of use all the same");
}

#[test]
fn nor_if_it_cannot_be_opened() {
    let mut world = mortal(&limits());
    used_until_it_retires(&mut world);
    world.connect_fails(A);
    assert_eq!(world.counts(A).idle, 1, "it waits for another attempt");
    while world.counts(A).idle > 0 {
        pass_to_look(&mut world);
    }
    assert_eq!(world.closed_for(CloseReason::MaxLifetime), 1);
}

#[test]
fn one_in_use_has_a_successor_as_well_and_ends_when_it_comes_back() {
    let mut world = mortal(&limits());
    let held = world.open(A, 1).remove(0);
    world.pass(16_000);
    world.reap();
    assert_eq!((world.counts(A).in_use, world.counts(A).connecting), (1, 1));
    world.connect_ok(A);
    assert_eq!((world.counts(A).idle, world.core.endpoints.at(A).succeeding), (1, 0));
    world.give_back(held);
    assert_eq!(world.closed_for(CloseReason::MaxLifetime), 1);
    assert_eq!((world.counts(A).idle, world.connects.len()), (1, 0));
}

#[test]
fn one_that_nobody_uses_goes_without() {
    let mut world = mortal(&limits());
    world.idle(A, 2);
    world.pass(16_000);
    world.reap();
    assert_eq!((world.counts(A).total(), world.connects.len()), (0, 0));
}

#[test]
fn nor_has_one_that_nobody_has_used_yet_or_that_is_about_to_be_idle_for_too_long() {
    let mut world = mortal(&limits());
    world.warm(A, 1, Mail(900));
    world.connect_ok(A);
    world.cool(A, Mail(900));
    let entry = world.core.entries.iter().next().expect("it is there");
    world.now.mono = entry.retires_at.at().expect("it is mortal");
    world.reap();
    assert_eq!((world.counts(A).total(), world.connects.len()), (0, 0));
    let mut world = mortal(&Limits { idle_timeout: Some(millis(4_000)), ..limits() });
    used_until_it_retires(&mut world);
    world.connect_ok(A);
    let index = world.core.endpoints.at(A).idle.back().expect("its successor");
    let held = world.take(A);
    world.give_back(held);
    let at = world.now.mono.plus(millis(3_000));
    world.core.entries.at_mut(index).retires_at = Due::new(Some(at));
    world.run(&mut |core, fx| core.set_timer(index, Some(at), fx));
    world.pass(3_000);
    world.reap();
    assert_eq!((world.counts(A).total(), world.connects.len()), (0, 0));
}

#[test]
fn what_is_kept_ready_is_never_fewer_while_they_retire() {
    let limits = Limits { min_idle: 3, max_lifetime: Some(millis(16_000)), ..limits() };
    let mut world = World::with_endpoints(limits, 1);
    let now = world.now;
    world.run(&mut |core, fx| core.keep(A, now, fx));
    (0..3).for_each(|_| _ = world.connect_ok(A));
    for _ in 0..40 {
        world.pass(500);
        world.reap_with(&|_| true);
        assert_eq!(world.counts(A).idle, 3);
        while !world.connects.is_empty() {
            world.connect_ok(A);
        }
        assert_eq!(world.counts(A).idle, 3);
    }
    assert!(world.closed_for(CloseReason::MaxLifetime) >= 3);
}

#[test]
fn where_there_is_no_room_for_both_it_ends_first() {
    let mut world = mortal(&Limits { max_per_endpoint: 1, ..limits() });
    used_until_it_retires(&mut world);
    assert_eq!((world.counts(A).total(), world.closed_for(CloseReason::MaxLifetime)), (0, 1));
}

#[test]
fn one_that_is_to_be_succeeded_and_dies_leaves_nothing_behind() {
    let mut world = mortal(&limits());
    used_until_it_retires(&mut world);
    world.evict(A);
    assert_eq!(world.core.endpoints.at(A).succeeding, 0);
}

#[test]
fn two_that_are_kept_and_retire_together_each_have_a_successor() {
    let limits = Limits { min_idle: 2, max_lifetime: Some(millis(16_000)), ..limits() };
    let mut world = World::with_endpoints(limits, 1);
    let now = world.now;
    world.run(&mut |core, fx| core.keep(A, now, fx));
    (0..2).for_each(|_| _ = world.connect_ok(A));
    let last = world.core.entries.iter().filter_map(|entry| entry.retires_at.at()).max();
    let last = last.expect("they are mortal");
    world.now.mono = last;
    world.reap_with(&|_| true);
    assert_eq!((world.counts(A).idle, world.connects.len()), (2, 2));
    (0..2).for_each(|_| _ = world.connect_ok(A));
    assert_eq!((world.counts(A).idle, world.closed_for(CloseReason::MaxLifetime)), (2, 2));
}

#[test]
#[cfg_attr(miri, ignore = "many connections")]
fn fifty_that_were_opened_together_retire_evenly() {
    let limits = Limits { max_lifetime: Some(millis(10_000)), ..room_for(120) };
    let mut world = World::new(limits);
    world.is_checked = false;
    world.idle(A, 50);
    let ends = world.core.entries.iter().map(|entry| entry.retires_at.at().expect("it is mortal"));
    let mut ends: Vec<Stamp> = ends.collect();
    ends.sort_unstable();
    let within = |from: Stamp| {
        let until = from.plus(Duration::from_secs(1));
        ends.iter().filter(|&&at| (from..until).contains(&at)).count()
    };
    let most = ends.iter().map(|&from| within(from)).max();
    assert!(most <= Some(23), "{most:?} within a second, of 50 in two and a half");
    let closest = ends.windows(2).map(|pair| pair[1].since(pair[0])).min();
    assert!(closest > Some(millis(5)), "{closest:?}");
}

#[test]
fn of_those_that_are_used_in_turn_what_is_never_needed_decays() {
    let limits = Limits { reuse: Reuse::Oldest, idle_timeout: Some(millis(1_000)), ..room_for(60) };
    let mut world = World::new(limits);
    world.is_checked = false;
    world.idle(A, 60);
    for _ in 0..20_000 {
        world.pass(1);
        // Two at a time, each in turn: none is idle for as long as a tenth of a second.
        let held = [world.take(A), world.take(A)];
        held.into_iter().for_each(|held| world.give_back(held));
        if world.core.timers.look_at <= world.now.mono {
            world.reap();
        }
    }
    let left = world.counts(A).idle;
    assert!((2..=3).contains(&left), "{left} are left of 60");
    assert_eq!(world.closed_for(CloseReason::Surplus), 60 - left);
}

#[test]
fn pools_that_begin_within_a_microsecond_do_not_retire_in_step() {
    let first = |seed| {
        let mut core = crate::core::Core::<(), ()>::new(limits(), seed);
        core.spread(1_000)
    };
    let firsts: Vec<u64> = (0..1_000).step_by(100).map(|past| first(1 << 50 | past)).collect();
    let (least, most) = (firsts.iter().min(), firsts.iter().max());
    assert!(most > least.map(|least| least + 500).as_ref(), "{firsts:?}");
}
