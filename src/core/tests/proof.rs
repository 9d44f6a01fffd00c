//! Idle connections are proved every so often, and before one goes out that has missed it.

use super::world::{A, B, Look, World, limits, millis, room_for};
use crate::config::Limits;
use crate::core::Upkeep;
use crate::observe::CloseReason;

/// With heartbeats at `A` and `B`, a second apart.
fn beating(mut limits: Limits) -> World {
    limits.check_interval = Some(millis(1_000));
    let mut world = World::new(limits);
    for endpoint in [A, B] {
        world.run(&mut |core, _| core.expect_beats(endpoint));
    }
    world
}

/// Time passes, and the reaper looks when it has said so.
fn pass(world: &mut World, time: u64) {
    for _ in 0..time {
        world.pass(1);
        if world.core.timers.look_at <= world.now.mono {
            world.reap();
        }
    }
}

#[test]
fn what_is_idle_is_asked_once_in_every_interval() {
    let mut world = beating(limits());
    world.idle(A, 1);
    let mut asked = Vec::new();
    for at in 0..6_000 {
        pass(&mut world, 1);
        if let Some(out) = world.upkeeps.pop() {
            assert_eq!(out.upkeep, Upkeep::Beat);
            asked.push(at);
            world.ends_upkeep(out, Ok(()));
        }
    }
    assert!((5..=7).contains(&asked.len()), "{asked:?}");
    let longest = asked.windows(2).map(|pair| pair[1] - pair[0]).max();
    assert!(longest <= Some(1_050), "{asked:?}");
}

#[test]
fn those_that_were_opened_together_are_not_asked_together() {
    let mut world = beating(room_for(50));
    world.idle(A, 50);
    let mut most = 0;
    for _ in 0..200 {
        pass(&mut world, 10);
        most = most.max(world.upkeeps.len());
        while let Some(out) = world.upkeeps.pop() {
            world.ends_upkeep(out, Ok(()));
        }
    }
    assert!(most <= 3, "{most} within 10 ms");
    assert_eq!(world.counts(A).idle, 50);
}

#[test]
fn what_is_used_needs_no_proof() {
    let mut world = beating(limits());
    world.idle(A, 1);
    for _ in 0..10 {
        pass(&mut world, 400);
        let held = world.take(A);
        world.give_back(held);
    }
    assert!(world.upkeeps.is_empty());
    let held = world.take(A);
    pass(&mut world, 5_000);
    assert!(world.upkeeps.is_empty(), "nor is it asked while it is in use");
    world.give_back(held);
}

#[test]
fn one_that_answered_is_where_it_was_and_has_been_idle_for_as_long() {
    for which in 0..3 {
        let limits = Limits { idle_timeout: Some(millis(60_000)), ..limits() };
        let mut world = beating(limits);
        let tokens = world.idle(A, 3);
        let idle_since = |world: &World| {
            let at = |token: &crate::core::Token| world.core.entries.at(token.index).since;
            tokens.iter().map(at).collect::<Vec<_>>()
        };
        let before = idle_since(&world);
        pass(&mut world, 100);
        let (index, now) = (tokens[which].index, world.now);
        world.run(&mut |core, fx| core.begin_proof(index, Upkeep::Beat, now, fx));
        assert_eq!((world.counts(A).idle, world.counts(A).checking), (2, 1));
        world.upkeep_ends(Ok(()));
        assert_eq!(idle_since(&world), before);
        let order: Vec<u32> = world.core.endpoints.at(A).idle.iter(&world.core.entries).collect();
        assert_eq!(order, tokens.iter().map(|token| token.index).collect::<Vec<_>>());
    }
}

#[test]
fn one_that_did_not_answer_ends_and_nobody_saw_it() {
    let mut world = beating(limits());
    world.idle(A, 1);
    pass(&mut world, 1_100);
    world.upkeep_ends(Err(CloseReason::CheckFailed));
    assert_eq!((world.counts(A).total(), world.closed_for(CloseReason::CheckFailed)), (0, 1));
}

#[test]
fn nothing_is_asked_while_somebody_waits() {
    let mut world = beating(Limits { max_per_endpoint: 2, ..limits() });
    let held = world.open(A, 1).remove(0);
    world.idle(A, 1);
    let mine = world.take(A);
    let waiter = world.wait_within(A, millis(60_000));
    world.give_back(mine);
    pass(&mut world, 1_200);
    assert!(world.upkeeps.is_empty() && world.hints.contains(&waiter));
    assert!(matches!(world.look(waiter), Look::Granted(_)));
    world.give_back(held);
}

#[test]
fn who_comes_while_one_is_asked_has_its_answer_or_another_whichever_comes_first() {
    for answers_first in [true, false] {
        let mut world = beating(limits());
        world.idle(A, 1);
        pass(&mut world, 1_100);
        assert_eq!(world.counts(A).checking, 1);
        let waiter = world.wait(A);
        assert_eq!(world.connects.len(), 1, "the server may be gone");
        if answers_first {
            world.upkeep_ends(Ok(()));
        } else {
            world.connect_ok(A);
        }
        world.granted(waiter);
    }
}

#[test]
fn what_is_kept_ready_is_not_opened_again_because_it_is_asked() {
    let mut world = beating(Limits { min_idle: 2, ..limits() });
    let now = world.now;
    world.run(&mut |core, fx| core.keep(A, now, fx));
    (0..2).for_each(|_| _ = world.connect_ok(A));
    for _ in 0..1_200 {
        world.pass(1);
        if world.core.timers.look_at <= world.now.mono {
            world.reap_with(&|_| true);
        }
        assert_eq!(world.counts(A).connecting, 0);
    }
    assert_eq!(world.counts(A).checking, 2, "both are asked");
}

#[test]
fn one_that_has_missed_its_heartbeat_is_asked_before_it_goes_out() {
    let mut world = beating(limits());
    world.idle(A, 1);
    // The machine slept: monotonic clocks stood still.
    world.now.wall = world.now.wall.plus(millis(10_000));
    let waiter = world.wait(A);
    assert_eq!(world.upkeeps[0].upkeep, Upkeep::Beat);
    world.upkeep_ends(Err(CloseReason::CheckFailed));
    assert_eq!(world.connects.len(), 1, "it did not answer: another is opened");
    world.connect_ok(A);
    let held = world.granted(waiter);
    world.give_back(held);
    assert!(world.try_get(A).is_some());
}

#[test]
fn a_lifetime_ends_in_time_beside_heartbeats() {
    let limits = Limits { max_lifetime: Some(millis(4_000)), ..limits() };
    let mut world = beating(limits);
    world.idle(A, 1);
    let born = world.now.mono;
    while world.counts(A).idle + world.counts(A).checking > 0 {
        pass(&mut world, 1);
        while let Some(out) = world.upkeeps.pop() {
            world.ends_upkeep(out, Ok(()));
        }
    }
    let age = world.now.mono.since(born);
    assert!((millis(3_000)..=millis(4_001)).contains(&age), "{age:?}");
}

#[test]
fn connectors_with_a_check_have_it_made_as_often_by_few_threads() {
    let limits = Limits {
        check_after: Some(millis(500)),
        check_interval: Some(millis(1_000)),
        ..room_for(20)
    };
    let mut world = World::new(limits);
    world.idle(A, 20);
    pass(&mut world, 1_100);
    assert_eq!(world.upkeeps.len(), 8, "the others wait for these");
    assert!(world.upkeeps.iter().all(|out| out.upkeep == Upkeep::Check));
    for _ in 0..300 {
        while let Some(out) = world.upkeeps.pop() {
            world.ends_upkeep(out, Ok(()));
        }
        pass(&mut world, 1);
    }
    assert_eq!(world.counts(A).idle + world.counts(A).checking, 20);
}

#[test]
fn proof_keeps_nothing_from_being_idle_for_too_long() {
    let limits = Limits { idle_timeout: Some(millis(2_500)), ..limits() };
    let mut world = beating(limits);
    world.idle(A, 1);
    for _ in 0..2_600 {
        pass(&mut world, 1);
        while let Some(out) = world.upkeeps.pop() {
            world.ends_upkeep(out, Ok(()));
        }
    }
    assert_eq!(world.closed_for(CloseReason::IdleTimeout), 1);
}
