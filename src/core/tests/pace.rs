//! How fast connections are opened while others are in use, and which attempts are wanted.

use std::time::Duration;

use super::world::{A, B, Held, Look, Mail, World, limits, millis, room_for};
use crate::config::Limits;
use crate::observe::CloseReason;

/// So many connections of `A` are in use, and there is room for many more.
fn busy(in_use: usize) -> (World, Vec<Held>) {
    let mut world = World::new(room_for(60));
    let held = world.open(A, in_use);
    (world, held)
}

fn wait_all(world: &mut World, endpoint: u32, count: usize) -> Vec<Mail> {
    (0..count).map(|_| world.wait(endpoint)).collect()
}

/// Time passes, and the reaper looks if it has said it would.
fn pass(world: &mut World, time: u64) {
    world.pass(time);
    if world.core.timers.look_at <= world.now.mono {
        world.reap();
    }
}

#[test]
fn of_fifty_callers_at_once_beside_five_in_use_one_gets_an_attempt_and_the_five_serve_the_rest() {
    let mut world = World::new(room_for(60));
    wait_all(&mut world, A, 5);
    world.pass(150);
    (0..5).for_each(|_| _ = world.connect_ok(A));
    let mails: Vec<Mail> = world.replies.keys().copied().collect();
    let mut held: Vec<Held> = mails.into_iter().map(|mail| world.granted(mail)).collect();
    wait_all(&mut world, A, 50);
    assert_eq!(world.connects.len(), 1);
    while !world.waiting.is_empty() {
        // Each uses its connection for 2 ms.
        pass(&mut world, 2);
        for back in std::mem::take(&mut held) {
            world.give_back(back);
        }
        let awake: Vec<Mail> = world.replies.keys().chain(&world.hints).copied().collect();
        awake.into_iter().for_each(|mail| held.extend(world.wakes_up(mail)));
    }
    assert_eq!((world.connects.len(), world.counts(A).total()), (1, 6), "75 ms have not passed");
}

#[test]
fn the_next_attempt_begins_when_the_last_has_succeeded() {
    let (mut world, _held) = busy(1);
    let waiters = wait_all(&mut world, A, 3);
    for waiter in waiters {
        assert_eq!(world.connects.len(), 1);
        world.connect_ok(A);
        world.granted(waiter);
    }
    assert!(world.connects.is_empty());
}

#[test]
fn or_when_it_has_failed_and_the_pause_after_that_is_over() {
    let (mut world, _held) = busy(1);
    wait_all(&mut world, A, 3);
    world.connect_fails(A);
    pass(&mut world, 49);
    assert!(world.connects.is_empty() && world.replies.is_empty());
    pass(&mut world, 1);
    assert_eq!(world.connects.len(), 1);
}

#[test]
fn or_when_it_has_run_for_five_milliseconds_however_long_it_hangs() {
    let (mut world, _held) = busy(1);
    let wakes = world.wakes;
    wait_all(&mut world, A, 4);
    for begun in 1..=4 {
        assert_eq!(world.connects.len(), begun);
        let hung = world.connects[begun - 1];
        assert!(world.start(hung.token, false));
        if begun < 4 {
            let next = world.now.mono.plus(millis(5));
            assert_eq!(world.core.timers.look_at, next, "the reaper comes for the next");
        }
        pass(&mut world, 4);
        assert_eq!(world.connects.len(), begun, "not yet");
        pass(&mut world, 1);
    }
    assert_eq!(world.connects.len(), 4, "as many as wait");
    assert!(world.wakes > wakes, "it was told");
}

#[test]
fn or_for_half_the_mean_time_to_connect() {
    let mut world = World::new(room_for(60));
    let waiter = world.wait(A);
    world.pass(40);
    world.connect_ok(A);
    let _held = world.granted(waiter);
    wait_all(&mut world, A, 3);
    pass(&mut world, 19);
    assert_eq!(world.connects.len(), 1);
    pass(&mut world, 1);
    assert_eq!(world.connects.len(), 2);
}

#[test]
fn the_mean_time_to_connect_follows_by_an_eighth() {
    let mut world = World::new(limits());
    let place = world.core.endpoints.at_mut(A);
    place.note_connect(Duration::from_nanos(800));
    assert_eq!(place.mean_connect, 800);
    place.note_connect(Duration::from_nanos(1_600));
    assert_eq!(place.mean_connect, 900);
    place.note_connect(Duration::from_nanos(0));
    assert_eq!(place.mean_connect, 788);
}

#[test]
fn an_older_attempt_that_ends_does_not_shorten_the_wait_for_the_last() {
    let (mut world, _held) = busy(1);
    wait_all(&mut world, A, 5);
    pass(&mut world, 5);
    assert_eq!(world.connects.len(), 2);
    pass(&mut world, 1);
    world.connect_ok(A);
    assert_eq!(world.connects.len(), 1, "the last has run for 1 ms");
    pass(&mut world, 4);
    assert_eq!(world.connects.len(), 2);
}

#[test]
fn with_nothing_open_as_many_begin_at_once_as_may_connect() {
    let mut world = World::new(Limits { max_connecting: 16, ..room_for(60) });
    wait_all(&mut world, A, 50);
    assert_eq!(world.connects.len(), 16);
}

#[test]
fn when_the_last_connection_has_ended_attempts_begin_at_once_again() {
    let (mut world, mut held) = busy(1);
    wait_all(&mut world, A, 10);
    assert_eq!(world.connects.len(), 1);
    world.discard(held.remove(0));
    assert_eq!(world.connects.len(), 10);
}

#[test]
fn one_that_is_being_checked_or_settled_may_serve_those_who_wait_too() {
    let mut world = World::new(Limits { check_after: Some(millis(500)), ..room_for(60) });
    world.idle(A, 1);
    world.pass(500);
    wait_all(&mut world, A, 4);
    assert_eq!((world.upkeeps.len(), world.connects.len()), (1, 1), "the others in turn");
    world.upkeep_ends(Err(CloseReason::CheckFailed));
    assert_eq!(world.connects.len(), 4, "nothing is left that could");
}

#[test]
fn warming_is_not_slowed_down() {
    let (mut world, _held) = busy(2);
    world.warm(A, 7, Mail(900));
    assert_eq!(world.connects.len(), 5);
    wait_all(&mut world, A, 7);
    assert_eq!(world.connects.len(), 5, "those who wait take what comes");
    wait_all(&mut world, A, 3);
    assert_eq!(world.connects.len(), 5, "for more there is no hurry");
    pass(&mut world, 5);
    assert_eq!(world.connects.len(), 6);
}

#[test]
fn what_is_kept_ready_is_opened_at_once_where_nothing_is_in_use_and_in_turn_beside_others() {
    let mut world = World::with_endpoints(room_for(60), 1);
    world.idle(A, 1);
    world.set_min_idle(4);
    world.reap_with(&|_| true);
    assert_eq!(world.connects.len(), 3);
    (0..3).for_each(|_| _ = world.connect_ok(A));
    let _held: Vec<Held> = (0..4).map(|_| world.take(A)).collect();
    assert_eq!((world.counts(A).idle, world.connects.len()), (0, 1));
}

#[test]
fn when_nobody_waits_any_more_at_its_time_no_attempt_begins() {
    let (mut world, mut held) = busy(1);
    let (first, second) = (world.wait_within(A, millis(3)), world.wait_within(A, millis(3)));
    world.pass(3);
    for waiter in [first, second] {
        assert!(matches!(world.look(waiter), Look::Expired(..)));
    }
    pass(&mut world, 2);
    assert_eq!(world.connects.len(), 1, "the first, which goes on");
    world.give_back(held.remove(0));
}

#[test]
fn an_endpoint_that_paces_itself_is_not_taken_for_starved() {
    let (mut world, _held) = busy(1);
    wait_all(&mut world, A, 3);
    assert!(world.core.budget.starved.is_empty());
    let theirs = world.wait(B);
    assert_eq!(world.counts(B).connecting, 1, "nor does it hold up others");
    world.connect_ok(B);
    world.granted(theirs);
}

// ---- who is wanted

#[test]
fn when_some_stop_waiting_the_youngest_attempts_are_not_wanted_any_more() {
    let mut world = World::new(limits());
    let waiters: Vec<Mail> = (0..3).map(|_| world.wait_within(A, millis(1))).collect();
    let tokens: Vec<_> = world.connects.iter().map(|connect| connect.token).collect();
    let wanted = |world: &World| {
        tokens.iter().filter(|&&token| world.core.is_wanted(token)).copied().collect::<Vec<_>>()
    };
    assert_eq!(wanted(&world), tokens);
    world.pass(1);
    for (gone, waiter) in (1..).zip(waiters) {
        world.look(waiter);
        assert_eq!(wanted(&world), tokens[..3 - gone]);
    }
    world.wait(A);
    assert_eq!(wanted(&world), tokens[..1], "it will serve the next who comes");
    assert_eq!(world.connects.len(), 3);
    world.close();
    assert_eq!(wanted(&world), []);
}

#[test]
fn an_attempt_is_not_wanted_while_a_connection_is_there_for_the_only_one_who_waits() {
    let (mut world, mut held) = busy(1);
    let waiter = world.wait(A);
    let token = world.connects[0].token;
    assert!(world.core.is_wanted(token));
    world.give_back(held.remove(0));
    assert!(!world.core.is_wanted(token), "it was told to look");
    let newcomer = world.take(A);
    assert!(world.core.is_wanted(token), "it was overtaken");
    world.settle(newcomer);
    assert!(!world.core.is_wanted(token), "it will have that one in a moment");
    world.upkeep_ends(Ok(()));
    world.granted(waiter);
}

#[test]
fn what_is_to_be_kept_or_warmed_is_wanted_though_nobody_waits() {
    let mut world = World::with_endpoints(limits(), 1);
    world.set_min_idle(1);
    world.reap_with(&|_| true);
    world.warm(A, 2, Mail(900));
    let tokens: Vec<_> = world.connects.iter().map(|connect| connect.token).collect();
    let wanted = |world: &World| tokens.iter().filter(|&&at| world.core.is_wanted(at)).count();
    assert_eq!((tokens.len(), wanted(&world)), (2, 2));
    let now = world.now;
    world.run(&mut |core, fx| core.cool(A, &Mail(900), now, fx));
    assert_eq!(wanted(&world), 1);
    world.connect_ok(A);
    assert_eq!(wanted(&world), 0, "one is ready, and one has ended");
}

#[test]
fn what_is_there_already_of_those_to_be_warmed_needs_no_attempt() {
    let (mut world, _held) = busy(2);
    world.warm(A, 2, Mail(900));
    assert!(world.connects.is_empty());
    let waiter = world.wait_within(A, millis(1));
    let token = world.connects[0].token;
    assert!(world.core.is_wanted(token));
    world.pass(1);
    assert!(matches!(world.look(waiter), Look::Expired(..)));
    assert!(!world.core.is_wanted(token));
}
