//! Connections that are out for too long are noticed, each once, and by nobody who is quick.

use std::time::Duration;

use super::world::{A, B, Held, World, limits, millis};
use crate::clock::Stamp;
use crate::config::Limits;

fn wary() -> World {
    let leak_warning = Some(millis(1_000));
    let connect_timeout = millis(60_000);
    World::with_endpoints(
        Limits { leak_warning, connect_timeout, idle_timeout: None, ..limits() },
        2,
    )
}

/// The next look of the reaper, at the time it has said.
fn look_in_time(world: &mut World) -> Duration {
    let at = world.reap();
    assert_ne!(at, Stamp::MAX, "it does not look again");
    let pause = at.since(world.now.mono);
    world.pass(pause.as_millis() as u64);
    world.reap();
    pause
}

fn suspects(world: &mut World) -> Vec<(u32, Vec<Duration>)> {
    std::mem::take(&mut world.suspects)
}

#[test]
fn what_is_out_for_too_long_is_suspected_in_time_and_once() {
    let mut world = wary();
    let _leaked = world.open(A, 1);
    world.reap();
    assert_eq!(look_in_time(&mut world), millis(1_000));
    assert_eq!(suspects(&mut world), [(A, vec![millis(1_000)])]);
    for _ in 0..5 {
        look_in_time(&mut world);
        assert_eq!(suspects(&mut world), [], "once is enough");
    }
    assert_eq!((world.stats().leaks_suspected(), world.core.stats(B).leaks_suspected()), (1, 0));
}

#[test]
fn what_goes_out_between_two_looks_is_noticed_when_its_own_time_is_over() {
    let mut world = wary();
    let held = world.open(A, 1).remove(0);
    world.reap();
    world.pass(700);
    world.give_back(held);
    let _again = world.take(A);
    world.pass(300);
    let next = world.reap();
    assert_eq!((suspects(&mut world), next.since(world.now.mono)), (vec![], millis(700)));
    world.pass(700);
    world.reap();
    assert_eq!(suspects(&mut world), [(A, vec![millis(1_000)])]);
}

#[test]
fn those_of_one_endpoint_are_told_together_the_oldest_first() {
    let mut world = wary();
    let _one = world.open(A, 1);
    world.pass(200);
    let _others = (world.open(A, 2), world.open(B, 1));
    world.pass(1_000);
    world.reap();
    let at_a = vec![millis(1_200), millis(1_000), millis(1_000)];
    assert_eq!(suspects(&mut world), [(A, at_a), (B, vec![millis(1_000)])]);
}

#[test]
fn where_all_come_back_the_reaper_looks_no_more_until_one_goes_out() {
    let mut world = wary();
    let held = world.open(A, 1).remove(0);
    world.give_back(held);
    world.pass(1_000);
    world.reap();
    world.pass(1_000);
    let next = world.reap();
    assert!(world.core.leaks.next() == Stamp::MAX, "it ticks, {:?}", next.since(world.now.mono));
    let _held: Held = world.take(A);
    assert_eq!(world.core.leaks.next().since(world.now.mono), millis(1_000));
}

#[test]
fn a_watched_endpoint_takes_the_fast_path_from_the_second_checkout_on() {
    let mut world = wary();
    let held = world.open(A, 1).remove(0);
    world.give_back(held);
    let (caller, wall) = (world.caller, world.now.wall);
    let is_fast = |world: &mut World| world.core.checkout(A, wall, caller).is_some();
    assert!(is_fast(&mut world), "opening it began the watch");
}

#[test]
fn a_machine_that_slept_suspects_nobody_for_it() {
    let mut world = wary();
    let _held = world.open(A, 1);
    world.reap();
    world.pass(500);
    world.now.wall = world.now.wall.plus(Duration::from_secs(8 * 3600));
    world.pass(500);
    world.reap();
    assert_eq!(suspects(&mut world), [(A, vec![millis(1_000)])], "it was awake for a second");
}

#[test]
fn without_the_setting_nobody_looks() {
    let mut world = World::with_endpoints(Limits { idle_timeout: None, ..limits() }, 1);
    let _held = world.open(A, 1);
    world.pass(100_000);
    world.reap();
    assert!(world.suspects.is_empty() && world.core.leaks.next() == Stamp::MAX);
}

#[test]
fn the_setting_can_be_turned_on_for_what_is_out_already() {
    let mut world = World::with_endpoints(Limits { idle_timeout: None, ..limits() }, 2);
    let _held = world.open(A, 2);
    world.pass(5_000);
    let limits = Limits { leak_warning: Some(millis(1_000)), ..world.limits.clone() };
    world.reconfigure(&limits).expect("no endpoint has limits of its own");
    world.reap();
    look_in_time(&mut world);
    assert_eq!(suspects(&mut world), [(A, vec![millis(6_000); 2])]);
}

#[test]
fn the_watch_goes_on_while_somebody_waits_who_may_be_given_one() {
    let mut world = wary();
    let waiter = world.wait_within(A, millis(60_000));
    for _ in 0..3 {
        world.pass(1_000);
        world.reap();
    }
    world.connect_ok(A);
    let _leaked = world.granted(waiter);
    world.reap();
    look_in_time(&mut world);
    assert_eq!(suspects(&mut world), [(A, vec![millis(1_000)])]);
}
