//! This process runs out of descriptors, or the like: idle connections elsewhere make room, and
//! nothing goes round in circles.

use super::cause::failure;
use super::world::{A, B, C, Look, Mail, World, limits, millis, room_for};
use crate::config::Limits;
use crate::core::{Refusal, Token};
use crate::error::{ConnectFailure, Failure, Phase};
use crate::observe::CloseReason;
use crate::sync::Arc;
use crate::sync::Caller;

/// An attempt of `endpoint` is taken up by the event loop, which finds no descriptor for it.
fn runs_short(world: &mut World, endpoint: u32) {
    let connect = world.connect_of(endpoint);
    assert!(world.start_in_loop(connect.token));
    world.runs_short(connect, 1);
}

/// Two idle connections of `B`, then one of `C` that came back last.
fn idle_elsewhere(world: &mut World) -> Vec<Token> {
    let mut tokens = Vec::new();
    for (endpoint, count) in [(B, 2), (C, 1)] {
        tokens.extend(world.idle(endpoint, count));
        world.pass(1);
    }
    tokens
}

fn is_idle(world: &World, token: Token) -> bool {
    world.knows(token)
}

#[test]
fn the_least_recently_used_idle_connection_of_others_makes_room_and_the_waiter_waits_on() {
    let mut world = World::new(limits());
    let tokens = idle_elsewhere(&mut world);
    let waiter = world.wait(A);
    runs_short(&mut world, A);
    assert_eq!((world.closed.len(), world.closed_for(CloseReason::MadeRoom)), (1, 1));
    let left: Vec<bool> = tokens.iter().map(|&token| is_idle(&world, token)).collect();
    assert_eq!(left, [false, true, true], "the one used longest ago");
    assert!(world.replies.is_empty(), "there is room now");
    assert_eq!((world.counts(A).waiting, world.connects.len()), (1, 1), "at once");
    world.connect_ok(A);
    world.granted(waiter);
}

#[test]
fn a_second_shortage_within_50_ms_makes_room_again_but_waits_for_the_pause() {
    let mut world = World::new(limits());
    idle_elsewhere(&mut world);
    let waiter = world.wait(A);
    runs_short(&mut world, A);
    world.pass(1);
    runs_short(&mut world, A);
    assert_eq!(world.closed_for(CloseReason::MadeRoom), 2);
    assert!(world.connects.is_empty() && world.replies.is_empty(), "it waits on, without a loop");
    for _ in 0..49 {
        world.pass(1);
        world.reap();
        assert!(world.connects.is_empty());
    }
    world.pass(1);
    world.reap();
    assert_eq!(world.connects.len(), 1);
    world.connect_ok(A);
    world.granted(waiter);
}

#[test]
fn a_shortage_that_lasts_is_met_with_two_attempts_in_50_ms_and_fails_when_nothing_is_left() {
    let mut world = World::new(limits());
    idle_elsewhere(&mut world);
    let waiter = world.wait_within(A, millis(60_000));
    let mut attempts = 0;
    let mut passed = 0;
    while world.replies.is_empty() {
        if !world.connects.is_empty() {
            attempts += 1;
            runs_short(&mut world, A);
            continue;
        }
        world.pass(1);
        passed += 1;
        world.reap();
        assert!(passed < 1_000, "it never learns");
    }
    // One to find out and one at once after it, then a pause, and the same again.
    assert_eq!((attempts, passed, world.closed_for(CloseReason::MadeRoom)), (4, 50, 3));
    assert_eq!(world.failed(waiter), "cause 1");
}

#[test]
fn after_a_pause_without_shortage_another_is_met_at_once_again() {
    let mut world = World::new(limits());
    idle_elsewhere(&mut world);
    world.wait(A);
    for _ in 0..2 {
        runs_short(&mut world, A);
        assert_eq!(world.connects.len(), 1);
        world.pass(50);
    }
    assert_eq!(world.closed_for(CloseReason::MadeRoom), 2);
}

#[test]
fn with_nothing_idle_elsewhere_all_who_wait_learn_why() {
    let mut world = World::new(Limits { max_connecting: 1, ..limits() });
    let held = world.open(B, 2);
    let waiters: Vec<Mail> = (0..3).map(|_| world.wait(A)).collect();
    runs_short(&mut world, A);
    assert!(world.closed.is_empty() && world.connects.is_empty());
    for waiter in waiters {
        assert_eq!(world.failed(waiter), "cause 1");
    }
    assert!(matches!(world.refused(A), Refusal::Failed(..)), "and who comes within 50 ms");
    held.into_iter().for_each(|held| world.give_back(held));
}

#[test]
fn while_one_is_in_use_here_they_wait_for_it_and_the_shortage_is_the_source_of_their_time_out() {
    let mut world = World::new(limits());
    let held = world.open(A, 1).remove(0);
    let waiter = world.wait_within(A, millis(10));
    runs_short(&mut world, A);
    assert!(world.replies.is_empty() && world.connects.is_empty());
    world.pass(10);
    let Look::Expired(_, Some((text, _))) = world.look(waiter) else { panic!("it is over") };
    assert_eq!(text, "cause 1");
    world.give_back(held);
}

#[test]
fn what_somebody_waits_for_elsewhere_makes_no_room() {
    let mut world = World::new(Limits { max_per_endpoint: 1, ..limits() });
    let held = world.open(B, 1).remove(0);
    let theirs = world.wait(B);
    world.give_back(held);
    assert_eq!((world.counts(B).idle, world.hints.as_slice()), (1, [theirs].as_slice()));
    let waiter = world.wait(A);
    runs_short(&mut world, A);
    assert!(world.closed.is_empty());
    assert_eq!(world.failed(waiter), "cause 1");
    assert!(matches!(world.look(theirs), Look::Granted(_)));
}

#[test]
fn a_shortage_while_nobody_waits_closes_nothing() {
    let mut world = World::with_endpoints(Limits { min_idle: 1, ..limits() }, 2);
    let now = world.now;
    world.run(&mut |core, fx| core.keep(B, now, fx));
    world.connect_ok(B);
    world.run(&mut |core, fx| core.keep(A, now, fx));
    runs_short(&mut world, A);
    assert!(world.closed.is_empty(), "what is kept here is not worth what is idle there");
    assert!(world.connects.is_empty(), "and it is not tried again at once");
    let mut pauses = Vec::new();
    for _ in 0..4 {
        let failed_at = world.now.mono;
        while world.connects.is_empty() {
            world.pass(1);
            if world.core.timers.look_at <= world.now.mono {
                world.reap_with(&|_| true);
            }
        }
        pauses.push(world.now.mono.since(failed_at));
        runs_short(&mut world, A);
    }
    assert_eq!(pauses, [50, 100, 200, 400].map(millis));
    assert!(world.closed.is_empty());
}

#[test]
fn a_shortage_with_enough_on_its_way_closes_nothing() {
    let mut world = World::new(limits());
    idle_elsewhere(&mut world);
    let first = world.wait_within(A, millis(10));
    let second = world.wait(A);
    world.pass(10);
    assert!(matches!(world.look(first), Look::Expired(..)));
    // Two attempts for one who waits.
    runs_short(&mut world, A);
    assert!(world.closed.is_empty() && world.replies.is_empty());
    world.connect_ok(A);
    world.granted(second);
}

#[test]
fn only_a_shortage_makes_room() {
    let no_thread = ConnectFailure::no_thread(millis(3));
    let dropped = ConnectFailure::dropped(millis(3));
    for why in [Arc::new(no_thread), Arc::new(dropped), failure(1)] {
        let mut world = World::new(limits());
        idle_elsewhere(&mut world);
        let waiter = world.wait(A);
        let connect = world.connect_of(A);
        assert!(world.start_in_loop(connect.token));
        world.fails_with(connect, why);
        assert!(world.closed.is_empty());
        world.failed(waiter);
    }
}

#[test]
fn a_shortage_in_any_stage_but_the_queue_makes_room() {
    for phase in [Phase::Resolve, Phase::Connect, Phase::Open] {
        let mut world = World::new(limits());
        idle_elsewhere(&mut world);
        world.wait(A);
        let connect = world.connect_of(A);
        assert!(world.start_in_loop(connect.token));
        let (took, cause) =
            (millis(1), std::io::Error::from(std::io::ErrorKind::OutOfMemory).into());
        let why = ConnectFailure::new(Failure::Local, phase, took, cause);
        world.fails_with(connect, Arc::new(why));
        assert_eq!(world.closed_for(CloseReason::MadeRoom), 1, "{phase}");
    }
}

#[test]
fn a_shortage_at_a_closed_pool_only_ends_the_attempt() {
    let mut world = World::new(limits());
    world.wait(A);
    let connect = world.connect_of(A);
    assert!(world.start_in_loop(connect.token));
    let held = world.open(B, 1).remove(0);
    world.close();
    world.replies.clear();
    world.runs_short(connect, 1);
    assert!(world.connects.is_empty() && world.closed.is_empty());
    world.give_back(held);
    world.assert_empty();
}

#[test]
fn many_attempts_that_run_short_together_make_room_for_each_and_not_for_more() {
    let mut world = World::new(room_for(40));
    world.idle(B, 20);
    let waiters: Vec<Mail> = (0..5).map(|_| world.wait(A)).collect();
    let connects = std::mem::take(&mut world.connects);
    assert_eq!(connects.len(), 5);
    for connect in connects {
        assert!(world.start_in_loop(connect.token));
        world.runs_short(connect, 1);
    }
    assert_eq!(world.closed_for(CloseReason::MadeRoom), 5);
    assert_eq!(world.connects.len(), 1, "the first at once, the others after the pause");
    world.pass(50);
    world.reap();
    assert_eq!(world.connects.len(), 5);
    (0..5).for_each(|_| _ = world.connect_ok(A));
    waiters.into_iter().for_each(|waiter| drop(world.granted(waiter)));
}

#[test]
fn min_idle_is_filled_again_where_room_was_made() {
    let mut world = World::with_endpoints(limits(), 2);
    world.idle(B, 1);
    world.set_min_idle(1);
    let waiter = world.wait(A);
    // One attempt for the waiter, and one to keep.
    (0..2).for_each(|_| runs_short(&mut world, A));
    assert_eq!((world.closed_for(CloseReason::MadeRoom), world.connects.len()), (1, 0));
    world.pass(50);
    world.reap_with(&|_| true);
    assert_eq!((world.counts(A).connecting, world.counts(B).connecting), (2, 1));
    (0..2).for_each(|_| _ = world.connect_ok(A));
    world.granted(waiter);
}

#[test]
fn what_was_opened_ahead_of_need_makes_room_only_after_somebody_has_looked() {
    let mut world = World::new(limits());
    let caller = Mail(900);
    world.warm(A, 1, caller);
    world.connect_ok(A);
    world.wait(B);
    runs_short(&mut world, B);
    assert_eq!(world.core.warmth(A), (1, false), "it would be told that there is none");
    world.cool(A, caller);
    world.pass(50);
    world.reap();
    world.wait(B);
    runs_short(&mut world, B);
    assert_eq!((world.closed_for(CloseReason::MadeRoom), world.counts(A).idle), (1, 0));
}

#[test]
fn who_opens_ahead_of_need_waits_for_room_that_idle_connections_of_others_have() {
    let mut world = World::new(Limits { max_total: 3, max_idle: 3, ..limits() });
    world.idle(B, 3);
    world.warm(A, 1, Mail(900));
    assert_eq!((world.core.warmth(A), world.connects.len()), ((0, true), 0));
    world.evict(B);
    world.connect_ok(A);
    assert_eq!(world.core.warmth(A), (1, false));
}

#[test]
fn who_opens_several_ahead_of_need_does_not_keep_a_caller_elsewhere_waiting() {
    let mut world = World::new(Limits { max_total: 2, ..limits() });
    world.warm(A, 2, Mail(900));
    world.connect_ok(A);
    assert_eq!(world.counts(A).connecting, 1, "the second hangs");
    let waiter = world.wait(B);
    assert_eq!((world.closed_for(CloseReason::MadeRoom), world.counts(B).connecting), (1, 1));
    world.connect_ok(B);
    world.granted(waiter);
}

#[test]
fn a_checkout_makes_room_for_who_opens_ahead_of_need_elsewhere() {
    let mut world = World::new(Limits { max_idle: 1, ..limits() });
    world.idle(B, 1);
    world.warm(A, 1, Mail(900));
    assert_eq!((world.core.warmth(A), world.connects.len()), ((0, true), 0));
    let wall = world.now.wall;
    let fast = world.run(&mut |core, _| core.checkout(B, wall, Caller::here()).is_some());
    assert!(!fast, "there is more to think about");
    let held = world.take(B);
    assert_eq!(world.counts(A).connecting, 1);
    world.give_back(held);
}
