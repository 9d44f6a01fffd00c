//! Who is served next: barging, eventual fairness, deadlines, telling.

use super::world::{A, Got, Held, Look, Mail, World, limits, millis};
use crate::config::Limits;

/// One connection, in use, and nobody may open another.
fn contended(fair_after: u64) -> (World, Held) {
    let fair_after = millis(fair_after);
    let mut world = World::new(Limits { max_per_endpoint: 1, fair_after, ..limits() });
    let held = world.open(A, 1).remove(0);
    (world, held)
}

#[test]
fn a_waiter_that_has_not_waited_long_is_told_and_may_be_overtaken() {
    let (mut world, held) = contended(2);
    let waiter = world.wait(A);
    world.pass(1);
    world.give_back(held);
    assert_eq!((world.hints.as_slice(), world.counts(A).idle), ([waiter].as_slice(), 1));
    let newcomer = world.take(A);
    assert!(matches!(world.look(waiter), Look::Waits), "it lost the race and waits on");
    world.give_back(newcomer);
    assert!(matches!(world.look(waiter), Look::Granted(_)));
}

#[test]
fn the_oldest_is_handed_its_connection_once_it_has_waited_fair_after() {
    let (mut world, held) = contended(2);
    let waiter = world.wait(A);
    world.pass(2);
    world.give_back(held);
    assert_eq!(world.counts(A).idle, 0, "nothing is there to be barged for");
    let Got::Waits(_) = world.get(A) else { panic!("a newcomer queues behind") };
    world.granted(waiter);
}

#[test]
fn a_waiter_that_loses_the_race_keeps_its_place_and_its_time_of_arrival() {
    let (mut world, held) = contended(2);
    let first = world.wait(A);
    world.pass(1);
    let second = world.wait(A);
    world.give_back(held);
    let newcomer = world.take(A);
    assert!(matches!(world.look(first), Look::Waits));
    // Two milliseconds after it came, though it looked only one ago.
    world.pass(1);
    world.give_back(newcomer);
    let held = world.granted(first);
    world.give_back(held);
    assert!(matches!(world.look(second), Look::Granted(_)));
}

#[test]
fn fair_after_zero_is_first_come_first_served() {
    let (mut world, mut held) = contended(0);
    let waiters: Vec<Mail> = (0..5).map(|_| world.wait(A)).collect();
    for waiter in waiters {
        world.give_back(held);
        assert!(matches!(world.get(A), Got::Waits(_)), "nobody overtakes");
        held = world.granted(waiter);
    }
}

#[test]
fn of_what_comes_back_ever_faster_than_it_can_be_handed_over_newcomers_may_have_some() {
    let (mut world, mut held) = contended(2);
    let waiters: Vec<Mail> = (0..40).map(|_| world.wait(A)).collect();
    world.pass(2);
    for &waiter in &waiters[..16] {
        world.give_back(held);
        held = world.granted(waiter); // a few at once are no trouble
    }
    world.give_back(held);
    let newcomer = world.take(A);
    assert!(matches!(world.look(waiters[16]), Look::Waits), "it keeps its place");
    world.pass(1);
    held = newcomer;
    for &waiter in &waiters[16..23] {
        world.give_back(held);
        held = world.granted(waiter); // seven for each millisecond
    }
    world.give_back(held);
    world.take(A);
}

#[test]
fn nobody_waits_longer_than_fair_after_and_the_returns_before_it() {
    // Returns every millisecond, and a newcomer that barges each time.
    let (mut world, mut held) = contended(2);
    let mut waiter = world.wait(A);
    let mut served = 0;
    for _ in 0..30 {
        world.pass(1);
        world.give_back(held);
        held = if world.replies.contains_key(&waiter) {
            served += 1;
            let granted = world.granted(waiter);
            waiter = world.wait(A);
            granted
        } else {
            let newcomer = world.take(A);
            assert!(matches!(world.look(waiter), Look::Waits));
            newcomer
        };
    }
    assert_eq!(served, 15);
}

#[test]
fn expired_waiters_are_skipped_on_return() {
    let (mut world, mut held) = contended(2);
    let expired: Vec<Mail> = (0..50).map(|_| world.wait_within(A, millis(10))).collect();
    let alive = world.wait(A);
    world.pass(10);
    world.give_back(held);
    assert_eq!(world.counts(A).waiting, 50, "they leave by themselves");
    held = world.granted(alive);
    world.give_back(held);
    assert_eq!((world.replies.len(), world.hints.len()), (0, 0), "none of them is served or told");
    assert_eq!(world.counts(A).idle, 1);
    // The first that wakes takes what is idle; the others find nothing and leave.
    let looks: Vec<Look> = expired.into_iter().map(|mail| world.look(mail)).collect();
    assert!(matches!(looks[0], Look::Granted(_)));
    let left = looks.iter().filter(|look| matches!(look, Look::Expired(_, None))).count();
    assert_eq!((left, world.stats().timed_out()), (49, 49));
}

#[test]
fn a_waiter_that_wakes_at_its_deadline_takes_an_idle_connection() {
    let (mut world, held) = contended(2);
    let waiter = world.wait_within(A, millis(1));
    world.give_back(held);
    world.pass(1);
    assert!(matches!(world.look(waiter), Look::Granted(_)));
    assert_eq!(world.stats().timed_out(), 0);
}

#[test]
fn a_waiter_that_leaves_passes_on_what_it_was_told() {
    let mut world = World::new(Limits { max_per_endpoint: 2, ..limits() });
    let mut held = world.open(A, 2);
    let first = world.wait_within(A, millis(1));
    let second = world.wait(A);
    world.give_back(held.remove(0));
    assert_eq!(world.hints, [first]);
    // A newcomer takes it, and another comes back while the first is told and has not looked.
    let newcomer = world.take(A);
    world.give_back(held.remove(0));
    assert_eq!(world.hints, [first], "one is idle, one is told");
    world.pass(1);
    let Look::Granted(got) = world.look(first) else { panic!("one was idle") };
    assert!(world.hints.is_empty());
    world.give_back(newcomer);
    assert_eq!(world.hints, [second]);
    world.give_back(got);
    assert_eq!((world.counts(A).idle, world.hints.len()), (2, 1));
}

#[test]
fn handing_over_to_one_that_was_told_leaves_the_next_to_be_told() {
    let mut world = World::new(Limits { max_per_endpoint: 2, ..limits() });
    let mut held = world.open(A, 2);
    let first = world.wait(A);
    let second = world.wait(A);
    world.give_back(held.remove(0));
    assert_eq!((world.hints.as_slice(), world.counts(A).idle), ([first].as_slice(), 1));
    world.pass(2);
    world.give_back(held.remove(0));
    // The first was handed the second connection, so the idle one is for the next to find.
    assert_eq!(world.hints, [first, second]);
    world.granted(first);
    assert!(matches!(world.look(second), Look::Granted(_)));
}

#[test]
fn a_new_connection_goes_to_the_oldest_waiter_whoever_it_was_begun_for() {
    let mut world = World::new(limits());
    let first = world.wait(A);
    let second = world.wait(A);
    let (connect, other) = (world.connect_of(A), world.connect_of(A));
    world.connected(other);
    world.granted(first);
    world.connected(connect);
    world.granted(second);
}

#[test]
fn a_hint_that_comes_late_does_no_harm() {
    let (mut world, held) = contended(2);
    let waiter = world.wait(A);
    for _ in 0..3 {
        assert!(matches!(world.look(waiter), Look::Waits));
        assert!(world.hints.is_empty());
    }
    world.pass(2);
    world.give_back(held);
    assert!(matches!(world.look(waiter), Look::Answered(_)));
}

#[test]
fn a_told_waiter_that_was_overtaken_gets_a_connect_if_there_is_room_by_now() {
    let mut world = World::new(Limits { max_per_endpoint: 2, ..limits() });
    let mut held = world.open(A, 2);
    let waiter = world.wait(A);
    world.give_back(held.remove(0));
    // The other one ends; the waiter was told of an idle one and needs no connect.
    world.discard(held.remove(0));
    assert!(world.connects.is_empty());
    world.take(A);
    assert!(matches!(world.look(waiter), Look::Waits));
    assert_eq!(world.connects.len(), 1, "nothing is idle any more, and there is room for one");
}
