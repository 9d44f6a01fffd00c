//! The end of a pool.

use super::world::{A, B, Mail, Reply, World, limits};
use crate::config::Limits;
use crate::core::Refusal;
use crate::observe::CloseReason;

#[test]
fn closing_answers_all_who_wait_and_ends_what_is_idle() {
    let mut world = World::new(Limits { max_total: 4, ..limits() });
    let held = world.open(A, 3);
    world.idle(B, 1);
    let waiters: Vec<Mail> = (0..5).map(|at| world.wait(if at < 3 { A } else { B })).collect();
    world.close();
    for waiter in waiters {
        let reply = world.replies.remove(&waiter);
        assert!(matches!(reply, Some(Reply::Closed | Reply::Granted(_))), "{reply:?}");
    }
    assert_eq!(world.counts(A).waiting + world.counts(B).waiting, 0);
    assert!(matches!(world.refused(A), Refusal::Closed));
    assert!(world.try_get(B).is_none());
    held.into_iter().for_each(|held| world.give_back(held));
    assert!(world.closed_for(CloseReason::PoolClosed) >= 3);
}

#[test]
fn connections_in_use_end_when_they_come_back_however_they_come_back() {
    let mut world = World::new(limits());
    let mut held = world.open(A, 4);
    world.close();
    assert!(world.closed.is_empty());
    world.give_back(held.remove(0));
    world.settle(held.remove(0));
    assert_eq!(world.closed_for(CloseReason::PoolClosed), 2);
    world.discard(held.remove(0));
    world.detach(held.remove(0)).keep();
    assert!(world.core.has_ended());
    world.assert_empty();
}

#[test]
fn whoever_drains_is_hinted_when_the_last_one_has_ended_and_not_before() {
    let mut world = World::new(limits());
    let mut held = world.open(A, 2);
    world.idle(B, 1);
    world.close();
    let drainer = Mail(900);
    assert!(!world.core.await_end(&drainer));
    world.give_back(held.remove(0));
    assert!(world.hints.is_empty() && !world.core.has_ended());
    world.give_back(held.remove(0));
    assert_eq!(world.hints, [drainer]);
    assert!(world.core.has_ended());
    assert!(world.core.await_end(&Mail(901)), "it has ended already");
    assert_eq!(world.core.drainers(), [drainer, Mail(901)]);
    world.core.stop_awaiting(&drainer);
    assert_eq!(world.core.drainers(), [Mail(901)], "the other waits on");
    world.core.stop_awaiting(&Mail(901));
    assert!(world.core.drainers.is_empty());
}

#[test]
fn closing_an_empty_pool_ends_it_at_once_and_a_second_time_does_nothing() {
    let mut world = World::new(limits());
    world.close();
    assert!(world.core.has_ended());
    world.close();
    world.assert_empty();
}

#[test]
fn a_pool_that_drains_before_it_is_closed_is_hinted_by_the_close() {
    let mut world = World::new(limits());
    world.idle(A, 2);
    assert!(!world.core.await_end(&Mail(900)));
    world.close();
    assert_eq!(world.hints, [Mail(900)]);
}

#[test]
fn attempts_are_called_off_as_far_as_they_can_be() {
    let mut world = World::new(limits());
    (0..3).for_each(|_| _ = world.wait(A));
    let tokens: Vec<_> = world.connects.iter().map(|connect| connect.token).collect();
    world.start(tokens[1], true);
    world.start(tokens[2], false);
    world.close();
    world.replies.clear();
    assert_eq!((world.counts(A).connecting, world.interrupted.as_slice()), (2, &tokens[1..2]));
    assert!(!world.start(tokens[0], false), "the queued one is not begun");
    let (running, interrupted) = (world.connects[2], world.connects[1]);
    world.fails(interrupted, 1);
    assert!(!world.core.has_ended());
    world.connected(running);
    assert_eq!(world.closed_for(CloseReason::PoolClosed), 1);
    assert!(world.core.has_ended());
    world.assert_empty();
}

#[test]
fn a_settling_under_way_is_called_off_and_one_that_waits_for_a_thread_does_not_begin() {
    let mut world = World::new(limits());
    for held in world.open(A, 2) {
        world.settle(held);
    }
    let tokens: Vec<_> = world.upkeeps.iter().map(|out| out.token).collect();
    world.start(tokens[0], true);
    world.close();
    assert_eq!(world.interrupted, &tokens[..1]);
    assert_eq!(world.withdrawn, &tokens[1..], "a thread need not take it up only to refuse it");
    assert!(!world.start(tokens[1], true));
    world.upkeep_ends(Ok(()));
    world.upkeep_ends(Err(CloseReason::TooLate));
    assert_eq!(world.closed_for(CloseReason::PoolClosed), 2);
    assert!(world.core.has_ended());
}

#[test]
fn an_attempt_that_hangs_does_not_keep_a_closed_pool_from_ending() {
    let mut world = World::new(limits());
    world.wait(A);
    let connect = world.connect_of(A);
    world.start(connect.token, false);
    world.close();
    world.replies.clear();
    assert!(!world.core.await_end(&Mail(900)));
    world.pass(3_000);
    world.reap();
    assert_eq!(
        (world.abandoned.as_slice(), world.hints.as_slice()),
        ([connect.token].as_slice(), [Mail(900)].as_slice())
    );
    assert!(world.core.has_ended());
    world.connected(connect);
    world.assert_empty();
}

#[test]
fn a_check_that_ends_after_the_close_brings_its_connection_to_its_end() {
    let mut world = World::new(limits());
    let held = world.open(A, 1).remove(0);
    world.settle(held);
    world.close();
    world.upkeep_ends(Ok(()));
    assert_eq!(world.closed_for(CloseReason::PoolClosed), 1);
    world.assert_empty();
}

#[test]
fn a_pause_after_a_failure_ends_with_the_pool() {
    let mut world = World::new(limits());
    let held = world.open(A, 1).remove(0);
    let waiter = world.wait(A);
    world.connect_fails(A);
    world.close();
    assert!(matches!(world.replies.remove(&waiter), Some(Reply::Closed)));
    world.pass(100);
    world.reap();
    assert!(world.connects.is_empty());
    world.give_back(held);
    world.assert_empty();
}

#[test]
fn whoever_warms_a_pool_that_is_closed_is_hinted() {
    let mut world = World::new(limits());
    world.warm(A, 2, Mail(900));
    world.close();
    assert_eq!(world.hints, [Mail(900)]);
    world.warm(B, 2, Mail(901));
    assert!(world.counts(B).connecting == 0, "nothing is begun at a closed pool");
}

#[test]
fn what_an_open_brings_that_was_under_way_at_the_close_is_closed_with_the_pool() {
    for is_interruptible in [true, false] {
        let mut world = World::new(limits());
        world.wait(A);
        let connect = world.connect_of(A);
        assert!(world.start(connect.token, is_interruptible));
        world.close();
        world.replies.clear();
        assert!(!world.core.has_ended());
        world.connected(connect);
        let reasons: Vec<_> = world.closed.iter().map(|(_, reason)| *reason).collect();
        assert_eq!(reasons, [CloseReason::PoolClosed], "interruptible: {is_interruptible}");
        assert!(world.core.has_ended());
        world.assert_empty();
    }
}

#[test]
fn what_waits_for_a_thread_is_under_way_until_the_close_and_what_has_one_until_it_returns() {
    let mut world = World::new(limits());
    for held in world.open(A, 2) {
        world.settle(held);
    }
    world.wait(B);
    let attempt = world.connects[0].token;
    let [runs, waits] = [world.upkeeps[0].token, world.upkeeps[1].token];
    assert!(world.start(runs, false));
    let is_under_way = |world: &World| [attempt, runs, waits].map(|at| world.core.is_under_way(at));
    assert_eq!(is_under_way(&world), [true; 3]);
    world.close();
    assert_eq!(is_under_way(&world), [false, true, false]);
    world.upkeep_ends(Ok(()));
    assert_eq!(is_under_way(&world), [false; 3]);
}
