//! What time does: idle time-outs by the wall clock, lifetimes by the monotonic one, the reaper.

use super::world::{A, B, Got, World, limits, millis, room_for};
use crate::clock::Stamp;
use crate::config::Limits;
use crate::observe::CloseReason;

const MINUTE: u64 = 60_000;

fn with_idle_timeout() -> World {
    World::new(Limits { idle_timeout: Some(millis(MINUTE)), ..limits() })
}

#[test]
fn a_connection_idle_for_too_long_ends() {
    let mut world = with_idle_timeout();
    world.idle(A, 1);
    world.pass(30_000);
    world.idle(B, 1);
    world.pass(29_999);
    let next = world.reap();
    assert_eq!((world.stats().idle(), next), (2, world.now.mono.plus(millis(1))));
    world.pass(1);
    let next = world.reap();
    assert_eq!((world.counts(A).idle, world.counts(B).idle), (0, 1));
    assert_eq!(world.closed_for(CloseReason::IdleTimeout), 1);
    assert_eq!(next, world.now.mono.plus(millis(30_000)));
    world.pass(30_000);
    assert_eq!(world.reap(), Stamp::MAX, "nothing is left that could fall due");
    world.assert_empty();
}

#[test]
fn a_return_sets_no_timer_and_wakes_nobody_yet_the_reaper_comes_in_time() {
    let mut world = with_idle_timeout();
    let token = world.idle(A, 1)[0];
    let woken = world.wakes;
    let mut look_at = world.core.timers.look_at;
    let mut last_used = world.now.mono;
    for used in 0..100 {
        world.pass(1_700);
        if look_at <= world.now.mono {
            look_at = world.reap();
        }
        if used < 60 {
            let held = world.take(A);
            assert_eq!(held.lease.token, token);
            world.give_back(held);
            last_used = world.now.mono;
        }
    }
    assert_eq!(world.wakes, woken);
    let idle_for = world.now.mono.since(last_used);
    assert!(world.counts(A).idle == 0, "it has been idle for {idle_for:?}");
}

#[test]
fn a_machine_that_slept_hands_out_nothing_that_is_too_old_by_the_wall_clock() {
    let mut world = with_idle_timeout();
    world.idle(A, 2);
    // The monotonic clock stood still, and the reaper has not looked.
    world.now.wall = world.now.wall.plus(millis(10 * MINUTE));
    assert!(matches!(world.get(A), Got::Waits(_)));
    assert_eq!(world.closed_for(CloseReason::IdleTimeout), 2);
    world.connect_ok(A);
}

#[test]
fn a_machine_that_slept_hands_nothing_old_to_one_who_does_not_wait() {
    let mut world = with_idle_timeout();
    world.idle(A, 1);
    world.now.wall = world.now.wall.plus(millis(10 * MINUTE));
    assert!(world.try_get(A).is_none());
    assert_eq!((world.closed_for(CloseReason::IdleTimeout), world.connects.len()), (1, 0));
}

#[test]
fn a_clock_that_was_set_back_costs_at_most_a_reconnect() {
    let mut world = with_idle_timeout();
    world.idle(A, 1);
    world.now.wall = Stamp::from_millis(1_000);
    assert!(matches!(world.get(A), Got::Waits(_)), "its age is not known any more");
    world.connect_ok(A);
    // By a little: nothing happens.
    world.idle(B, 1);
    world.now.wall = Stamp::from_millis(900);
    let held = world.take(B);
    assert_eq!(held.lease.idle_for(), 100_000_000);
    world.give_back(held);
    world.reap();
    assert_eq!(world.counts(B).idle, 1);
}

#[test]
#[cfg_attr(miri, ignore = "hundreds of connections")]
fn a_lifetime_ends_up_to_a_quarter_early_and_never_late() {
    let lifetime = 40_000;
    let mut world = World::new(Limits {
        max_lifetime: Some(millis(lifetime)),
        max_total: 300,
        max_per_endpoint: 300,
        max_idle: 300,
        max_idle_per_endpoint: 300,
        max_connecting: 300,
        max_connecting_total: 300,
        ..limits()
    });
    let born = world.now.mono;
    world.is_checked = false;
    world.idle(A, 300);
    world.is_checked = true;
    let mut ages = Vec::new();
    while world.counts(A).idle > 0 {
        let before = world.counts(A).idle;
        let next = world.core.timers.next().expect("a lifetime ends");
        world.now.wall = world.now.wall.plus(next.since(world.now.mono));
        world.now.mono = next;
        world.reap();
        let ended = before - world.counts(A).idle;
        ages.extend(std::iter::repeat_n(next.since(born), ended));
    }
    assert_eq!((ages.len(), world.closed_for(CloseReason::MaxLifetime)), (300, 300));
    assert!(ages[0] > millis(lifetime / 4 * 3) && ages[299] <= millis(lifetime), "{ages:?}");
    let spread = ages[299] - ages[0];
    assert!(spread > millis(lifetime / 6), "they end together: {spread:?}");
    let early = ages.iter().filter(|age| **age < millis(lifetime / 640 * 555)).count();
    assert!((140..160).contains(&early), "{early} of 300 in the first half");
}

#[test]
fn past_its_lifetime_an_idle_one_ends_now_and_one_in_use_when_it_comes_back() {
    let mut world = World::new(Limits { max_lifetime: Some(millis(10_000)), ..limits() });
    let mut held = world.open(A, 2);
    world.give_back(held.remove(0));
    world.pass(10_000);
    world.reap();
    assert_eq!((world.counts(A).idle, world.counts(A).in_use), (0, 1));
    world.give_back(held.remove(0));
    assert_eq!((world.closed_for(CloseReason::MaxLifetime), world.live()), (2, 0));
}

#[test]
fn a_lifetime_that_ends_during_a_check_is_noticed_after_it() {
    let lifetime = Some(millis(1_000));
    let mut world = World::new(Limits { max_lifetime: lifetime, ..limits() });
    let held = world.open(A, 1).remove(0);
    world.pass(700);
    world.settle(held);
    world.pass(300);
    world.upkeep_ends(Ok(()));
    assert_eq!((world.closed_for(CloseReason::MaxLifetime), world.live()), (1, 0));
}

#[test]
fn a_settled_connection_keeps_its_lifetime() {
    let mut world = World::new(Limits { max_lifetime: Some(millis(10_000)), ..limits() });
    let held = world.open(A, 1).remove(0);
    let ends = world.core.timers.next();
    world.settle(held);
    world.upkeep_ends(Ok(()));
    assert_eq!((world.core.timers.next(), world.counts(A).idle), (ends, 1));
}

#[test]
fn an_eviction_ends_idle_ones_now_and_all_others_when_they_come_back() {
    let mut world = World::new(limits());
    let mut held = world.open(A, 3);
    world.idle(B, 1);
    world.give_back(held.remove(0));
    world.settle(held.remove(0));
    world.evict(A);
    assert_eq!((world.closed_for(CloseReason::Evicted), world.counts(A).idle), (1, 0));
    world.give_back(held.remove(0));
    world.upkeep_ends(Ok(()));
    assert_eq!((world.closed_for(CloseReason::Evicted), world.counts(A).total()), (3, 0));
    assert_eq!(world.counts(B).idle, 1);
}

#[test]
fn what_was_begun_before_an_eviction_ends_and_what_was_begun_after_it_stays() {
    let mut world = World::new(limits());
    let waiter = world.wait(A);
    world.evict(A);
    world.connect_ok(A);
    assert_eq!(world.closed_for(CloseReason::Evicted), 1);
    assert!(world.replies.is_empty());
    world.connect_ok(A);
    let held = world.granted(waiter);
    world.give_back(held);
    assert_eq!(world.counts(A).idle, 1);
}

#[test]
#[cfg_attr(miri, ignore = "hundreds of connections")]
fn one_look_of_the_reaper_ends_a_bounded_number_and_asks_to_come_back() {
    let many = 300;
    let limits = room_for(many);
    let idle = Limits { idle_timeout: Some(millis(MINUTE)), ..limits.clone() };
    let short = Limits { max_lifetime: Some(millis(MINUTE)), ..limits };
    for limits in [idle, short] {
        let mut world = World::new(limits);
        world.is_checked = false;
        world.idle(A, many);
        world.is_checked = true;
        world.pass(MINUTE);
        for left in [300 - 128, 300 - 256, 0] {
            let next = world.reap();
            assert_eq!(world.counts(A).idle, left);
            assert_eq!(next <= world.now.mono, left > 0, "it comes back at once, or not at all");
        }
    }
}

#[test]
fn only_an_unused_endpoint_is_forgotten() {
    let mut world = World::new(limits());
    let held = world.open(A, 1).remove(0);
    let is_forgotten = |world: &mut World| world.forget(A);
    assert!(!is_forgotten(&mut world), "one is in use");
    world.give_back(held);
    assert!(!is_forgotten(&mut world), "one is idle");
    world.evict(A);
    let waiter = world.wait(A);
    assert!(!is_forgotten(&mut world), "somebody waits");
    world.connect_fails(A);
    world.failed(waiter);
    assert!(!is_forgotten(&mut world), "its failure is to be remembered for a while");
    world.pass_pause(A);
    assert!(is_forgotten(&mut world));
    let again = world.core.add_endpoint(world.now.wall);
    assert_eq!(again, A, "its place is used again");
    world.open(A, 1);
}

fn keeps_what_is_to_be_kept(reaper_first: bool) {
    let limits = Limits { min_idle: 5, idle_timeout: Some(millis(1_000)), ..limits() };
    let mut world = World::with_endpoints(Limits { max_per_endpoint: 8, ..limits }, 1);
    let now = world.now;
    world.run(&mut |core, fx| core.keep(A, now, fx));
    (0..5).for_each(|_| _ = world.connect_ok(A));
    let mut held: Vec<_> = (0..5).map(|_| world.take(A)).collect();
    while !world.connects.is_empty() {
        world.connect_ok(A);
    }
    held.extend((held.len()..8).map(|_| world.take(A)));
    let tokens: Vec<_> = held.iter().map(|held| held.lease.token).collect();
    held.into_iter().for_each(|held| world.give_back(held));
    world.pass(1_000);
    world.reap_with(&|_| true);
    assert_eq!((world.closed_for(CloseReason::IdleTimeout), world.connects.len()), (3, 0));
    assert!(tokens[..3].iter().all(|token| !world.knows(*token)));
    // Two hours later, with the reaper awake all the time, they are as good as new.
    for _ in 0..7_200 {
        world.pass(1_000);
        world.reap_with(&|_| true);
    }
    assert_eq!(world.closed.len(), 3);
    let held = world.take(A);
    world.give_back(held);
    // But not if it has slept, and the machine with it, whoever wakes first.
    world.now.wall = world.now.wall.plus(millis(7_200_000));
    if reaper_first {
        world.reap_with(&|_| true);
    }
    assert!(world.try_get(A).is_none());
    assert_eq!(world.counts(A).idle, 0);
}

#[test]
fn what_is_to_be_kept_is_not_closed_for_being_idle_and_what_is_more_is_oldest_first() {
    [false, true].into_iter().for_each(keeps_what_is_to_be_kept);
}
