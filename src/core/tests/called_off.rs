//! Attempts that nobody waits for any more are called off where others need their room.

use super::world::{A, B, C, Connecting, Look, Mail, World, limits, millis, room_for};
use crate::config::{Caps, Limits};
use crate::error::Phase;
use crate::observe::CloseReason;

/// Limits under which one attempt is in the way of all others.
fn tight() -> [Limits; 2] {
    [Limits { max_total: 1, ..limits() }, Limits { max_connecting_total: 1, ..limits() }]
}

/// An attempt at `A` that was wanted for a millisecond, and has come as far as `reach` takes it.
fn orphan(limits: Limits, reach: impl Fn(&mut World, Connecting)) -> (World, Connecting) {
    let mut world = World::new(limits);
    let waiter = world.wait_within(A, millis(1));
    let connect = world.connect_of(A);
    reach(&mut world, connect);
    world.pass(1);
    assert!(matches!(world.look(waiter), Look::Expired(..)));
    (world, connect)
}

/// They are past their deadline, and stop waiting.
fn leave(world: &mut World, waiters: Vec<Mail>) {
    for waiter in waiters {
        assert!(matches!(world.look(waiter), Look::Expired(..)));
    }
}

fn in_loop(world: &mut World, connect: Connecting) {
    assert!(world.start_in_loop(connect.token));
}

fn interruptible(world: &mut World, connect: Connecting) {
    assert!(world.start(connect.token, true));
}

#[test]
fn what_nobody_waits_for_goes_on_as_long_as_its_room_is_not_needed() {
    for limits in tight() {
        let (mut world, connect) = orphan(limits, in_loop);
        world.reap();
        assert!(world.interrupted.is_empty() && world.knows(connect.token));
        world.connected(connect);
        assert_eq!((world.counts(A).idle, world.stats().connects_called_off()), (1, 0));
    }
}

#[test]
fn one_that_waits_for_a_thread_or_its_name_leaves_its_room_at_once_to_one_who_starves() {
    let queued = |_: &mut World, _: Connecting| {};
    let resolving = |world: &mut World, connect: Connecting| {
        assert!(world.awaits_name(connect.token));
    };
    for limits in tight() {
        for reach in [queued as fn(&mut World, Connecting), resolving] {
            let (mut world, connect) = orphan(limits.clone(), reach);
            let starved = world.wait(B);
            assert_eq!(world.withdrawn, [connect.token]);
            assert!(!world.knows(connect.token));
            assert_eq!((world.counts(A).connecting, world.counts(B).connecting), (0, 1));
            world.connect_ok(B);
            world.granted(starved);
            assert_eq!(world.stats().connects_called_off(), 1);
        }
    }
}

#[test]
fn one_that_a_socket_is_connected_or_opened_for_is_told_to_end_and_leaves_its_room_when_it_has() {
    for limits in tight() {
        for reach in [in_loop as fn(&mut World, Connecting), interruptible] {
            let (mut world, connect) = orphan(limits.clone(), reach);
            let starved = world.wait(B);
            assert_eq!(world.interrupted, [connect.token]);
            assert!(!world.core.is_wanted(connect.token));
            assert!(!world.core.is_under_way(connect.token));
            assert!(world.connects.is_empty(), "its room is not free yet");
            world.fails(connect, 1);
            world.connect_ok(B);
            world.granted(starved);
        }
    }
}

#[test]
fn one_that_cannot_be_interrupted_is_left_alone_and_its_room_is_free_when_it_ends() {
    for limits in tight() {
        let (mut world, connect) = orphan(limits, |world, connect| {
            assert!(world.start(connect.token, false));
        });
        let starved = world.wait(B);
        assert!(world.interrupted.is_empty() && world.withdrawn.is_empty());
        assert_eq!(world.counts(B).connecting, 0);
        world.fails(connect, 1);
        world.connect_ok(B);
        world.granted(starved);
        let stats = world.stats();
        assert_eq!((stats.connects_called_off(), stats.connects_failed()), (0, 1));
    }
}

#[test]
fn what_becomes_of_one_that_was_called_off_is_no_failure() {
    for limits in tight() {
        let (mut world, connect) = orphan(limits, in_loop);
        world.wait(B);
        world.pass(1);
        let mine = world.wait(A);
        world.fails(connect, 1);
        assert!(world.replies.is_empty(), "nobody is told");
        let stats = world.stats();
        assert_eq!((stats.connects_called_off(), stats.connects_failed()), (1, 0));
        let theirs = world.connect_of(B);
        world.fails(theirs, 2);
        assert_eq!(world.counts(A).connecting, 1, "no pause: it is its turn");
        world.connect_ok(A);
        world.granted(mine);
    }
}

#[test]
fn a_connection_that_one_brings_all_the_same_counts_as_opened_and_closed() {
    for limits in tight() {
        let (mut world, connect) = orphan(limits, interruptible);
        world.wait(B);
        let id = world.connected(connect);
        assert_eq!(world.closed, [(id, CloseReason::MadeRoom)]);
        let stats = world.stats();
        let closed = (stats.closed(), stats.closed_for(CloseReason::MadeRoom));
        assert_eq!((stats.opened(), closed, stats.connects_failed()), (1, (1, 1), 0));
        assert_eq!((world.counts(A).total(), world.counts(B).connecting), (0, 1));
    }
}

#[test]
fn one_that_does_not_end_when_told_to_is_abandoned_and_that_is_no_failure_either() {
    for limits in tight() {
        let (mut world, connect) = orphan(limits, interruptible);
        let starved = world.wait(B);
        world.pass(99);
        world.reap();
        assert!(world.abandoned.is_empty() && world.connects.is_empty());
        world.pass(1);
        world.reap();
        assert_eq!(world.abandoned, [connect.token]);
        let stats = world.stats();
        assert_eq!((stats.abandoned(), stats.connects_failed()), (1, 0));
        world.connect_ok(B);
        world.granted(starved);
        world.connected(connect);
        assert_eq!(world.closed_for(CloseReason::TooLate), 1);
        assert_eq!(world.stats().abandoned(), 0);
    }
}

#[test]
fn when_too_many_are_abandoned_it_keeps_its_room_and_another_is_called_off_in_its_place() {
    let mut world = World::new(Limits { max_total: 18, ..room_for(18) });
    (0..18).for_each(|_| _ = world.wait_within(A, millis(1)));
    let connects = std::mem::take(&mut world.connects);
    connects.iter().for_each(|connect| assert!(world.start(connect.token, true)));
    world.pass(1);
    let hasty: Vec<Mail> = world.waiting.keys().copied().collect();
    leave(&mut world, hasty);
    world.wait_within(B, millis(60_000));
    assert_eq!(world.interrupted, [connects[17].token]);
    // None of them ends, and each one's room is taken again by an attempt that does not either.
    for _ in 0..17 {
        world.pass(100);
        world.reap();
        if let Some(theirs) = world.connects.pop() {
            world.start(theirs.token, false);
            world.wait_within(B, millis(60_000));
        }
    }
    assert_eq!((world.abandoned.len(), world.counts(A).stuck), (16, 1));
    assert_eq!(world.interrupted.len(), 18, "the next was asked to make room");
    world.connected(connects[0]);
    assert_eq!(world.counts(B).connecting, 17);
}

#[test]
fn what_somebody_waits_for_is_never_called_off() {
    for limits in tight() {
        let mut world = World::new(limits);
        let waiter = world.wait(A);
        let connect = world.connects[0];
        in_loop(&mut world, connect);
        let starved = world.wait(B);
        assert!(world.interrupted.is_empty() && world.withdrawn.is_empty());
        world.connect_ok(A);
        let held = world.granted(waiter);
        world.give_back(held);
        world.connect_ok(B);
        world.granted(starved);
    }
}

#[test]
fn nor_what_is_to_be_kept_or_warmed_until_that_is_over() {
    let mut world = World::new(Limits { max_total: 2, ..limits() });
    world.set_caps(A, Caps { min_idle: 1, ..limits().caps() });
    world.warm(A, 2, Mail(900));
    let youngest = world.connects[1];
    let starved = world.wait(B);
    assert!(world.withdrawn.is_empty() && world.counts(B).connecting == 0);
    let now = world.now;
    world.run(&mut |core, fx| core.cool(A, &Mail(900), now, fx));
    assert_eq!(world.withdrawn, [youngest.token]);
    world.connect_ok(B);
    world.granted(starved);
    assert_eq!(world.counts(A).connecting, 1, "what is kept ready");
}

#[test]
fn nor_one_that_will_be_ready_beside_those_who_wait_but_the_one_beyond_is() {
    let mut world = World::new(Limits { max_total: 7, ..limits() });
    world.set_caps(A, Caps { min_idle: 3, ..limits().caps() });
    (0..3).for_each(|_| _ = world.wait(A));
    let hasty = world.wait_within(A, millis(1));
    let youngest = world.connects[6];
    world.wait(B);
    assert!(world.withdrawn.is_empty(), "four wait, and three are to be ready");
    world.pass(1);
    leave(&mut world, vec![hasty]);
    assert_eq!(world.withdrawn, [youngest.token]);
    assert_eq!((world.counts(A).connecting, world.counts(B).connecting), (6, 1));
}

#[test]
fn nothing_is_called_off_for_one_who_only_wants_some_to_be_ready() {
    for limits in tight() {
        let (mut world, connect) = orphan(limits, in_loop);
        world.warm(B, 1, Mail(900));
        assert!(world.core.endpoints.at(B).starved_since.is_some());
        assert!(world.interrupted.is_empty() && world.knows(connect.token));
        world.fails(connect, 1);
        assert_eq!(world.counts(B).connecting, 1, "its turn comes");
    }
}

#[test]
fn of_several_the_youngest_is_called_off_where_there_was_one_too_many_for_longest() {
    let mut world = World::new(Limits { max_total: 4, ..limits() });
    let hasty: Vec<Mail> = [A, A, B].map(|at| world.wait_within(at, millis(1))).into();
    let stays = world.wait(A);
    let tokens: Vec<_> = world.connects.iter().map(|connect| connect.token).collect();
    world.pass(1);
    leave(&mut world, hasty);
    world.wait(C);
    assert_eq!(world.withdrawn, [tokens[3]], "the youngest of A, though it began last of all");
    world.connects.retain(|connect| connect.token != tokens[3]);
    world.connect_ok(A);
    world.granted(stays);
}

#[test]
fn one_is_called_off_for_each_endpoint_that_starves_and_no_more() {
    let mut world = World::new(Limits { max_total: 3, ..limits() });
    let hasty: Vec<Mail> = (0..3).map(|_| world.wait_within(A, millis(1))).collect();
    let connects = std::mem::take(&mut world.connects);
    connects.iter().for_each(|&connect| in_loop(&mut world, connect));
    world.pass(1);
    leave(&mut world, hasty);
    (0..2).for_each(|_| _ = world.wait(B));
    assert_eq!(world.interrupted, [connects[2].token]);
    world.wait(C);
    assert_eq!(world.interrupted, [connects[2].token, connects[1].token]);
    world.fails(connects[2], 1);
    world.fails(connects[1], 1);
    assert_eq!((world.counts(B).connecting, world.counts(C).connecting), (1, 1));
    assert_eq!(world.interrupted.len(), 3, "and another for the second who waits at B");
}

#[test]
fn nothing_is_called_off_for_one_that_could_not_use_its_room() {
    let mut world = World::new(Limits { max_total: 2, ..limits() });
    world.set_caps(B, Caps { max_per_endpoint: 1, ..limits().caps() });
    let theirs = world.open(B, 1).remove(0);
    let hasty = world.wait_within(A, millis(1));
    world.pass(1);
    world.look(hasty);
    let waiter = world.wait(B);
    assert!(world.withdrawn.is_empty(), "B has as many as it may have");
    world.give_back(theirs);
    assert!(matches!(world.look(waiter), Look::Granted(_)));
}

#[test]
fn nor_for_one_that_pauses_after_a_failure_until_the_pause_is_over() {
    let mut world = World::new(Limits { max_total: 3, ..limits() });
    let _theirs = world.open(B, 1);
    let hasty = world.wait_within(A, millis(10));
    (0..2).for_each(|_| _ = world.wait(B));
    let orphan = world.connect_of(A);
    world.pass(5);
    world.reap();
    assert!(world.core.endpoints.at(B).starved_since.is_some(), "the second finds no room");
    world.connect_fails(B);
    world.wait(C);
    assert_eq!(world.counts(C).connecting, 1, "the pool is full again");
    world.pass(5);
    leave(&mut world, vec![hasty]);
    assert!(world.withdrawn.is_empty(), "B may not begin one now");
    world.pass(45);
    world.reap();
    assert_eq!(world.withdrawn, [orphan.token]);
    assert_eq!(world.counts(B).connecting, 1);
}

#[test]
fn who_comes_while_one_is_called_off_gets_an_attempt_of_its_own_in_turn() {
    let (mut world, connect) = orphan(Limits { max_total: 1, ..limits() }, in_loop);
    let theirs = world.wait(B);
    world.pass(1);
    let mine = world.wait(A);
    assert_eq!(world.interrupted.len(), 1);
    world.connected(connect);
    assert!(world.replies.is_empty(), "what it brings is for nobody");
    world.connect_ok(B);
    let held = world.granted(theirs);
    world.give_back(held);
    world.connect_ok(A);
    world.granted(mine);
}

#[test]
fn who_comes_while_one_is_called_off_is_not_served_by_that_one() {
    let (mut world, _) = orphan(Limits { max_total: 2, ..limits() }, in_loop);
    let theirs = world.open(C, 1).remove(0);
    let starved = world.wait(B);
    world.wait(A);
    world.discard(theirs);
    world.connect_ok(B);
    let held = world.granted(starved);
    assert_eq!(world.counts(A).connecting, 1, "there was no room for another");
    world.discard(held);
    assert_eq!(world.counts(A).connecting, 2, "the one that is called off, and another");
}

#[test]
fn a_pool_that_is_closed_meanwhile_has_ended_when_the_last_one_has() {
    for brings_one in [true, false] {
        let (mut world, connect) = orphan(Limits { max_total: 1, ..limits() }, in_loop);
        world.wait(B);
        world.close();
        world.replies.clear();
        assert!(!world.core.has_ended(), "its socket is not closed yet");
        if brings_one {
            world.connected(connect);
        } else {
            world.fails(connect, 1);
        }
        assert!(world.core.has_ended());
        world.assert_empty();
    }
}

#[test]
fn the_one_that_is_wanted_goes_on_where_the_other_cannot_be_called_off() {
    let mut world = World::new(Limits { max_total: 2, ..limits() });
    let stays = world.wait(A);
    let leaves = world.wait_within(A, millis(1));
    let [older, younger] = [world.connects[0], world.connects[1]];
    interruptible(&mut world, older);
    assert!(world.start(younger.token, false), "in somebody else's code, which nothing can end");
    world.pass(1);
    leave(&mut world, vec![leaves]);
    world.wait(B);
    assert!(world.core.is_wanted(older.token) && !world.core.is_wanted(younger.token));
    assert!(world.interrupted.is_empty() && world.withdrawn.is_empty());
    world.connected(older);
    world.granted(stays);
}

#[test]
fn one_is_called_off_as_soon_as_it_can_be() {
    let (mut world, connect) = orphan(Limits { max_total: 1, ..limits() }, |world, connect| {
        assert!(world.start(connect.token, false));
    });
    world.wait(B);
    assert!(world.interrupted.is_empty());
    let now = world.now;
    world.run(&mut |core, fx| core.shield_attempt(connect.token, Phase::Open, now, fx));
    assert_eq!(world.interrupted, [connect.token]);
}
