//! Attempts that the event loop connects: taken up there, handed on to the crew, called off at
//! their deadline or with the pool, and ended once, whatever comes of them.

use super::cause::{failure, shortage};
use super::world::{A, B, Connecting, Look, Mail, Reply, World, limits, millis};
use crate::clock::Stamp;
use crate::config::Limits;
use crate::core::entry::{Attempt, State};
use crate::error::{BoxError, ConnectFailure, Phase};
use crate::observe::CloseReason;
use crate::sync::Arc;

/// A pool with an attempt that the event loop has, and who waits for it.
fn in_loop() -> (World, Connecting, Mail) {
    let mut world = World::new(limits());
    let waiter = world.wait_within(A, millis(60_000));
    let mut connect = world.connect_of(A);
    connect.is_started = world.start_in_loop(connect.token);
    assert!(connect.is_started);
    (world, connect, waiter)
}

/// What may come of an attempt that was called off, by the time that the event loop hears of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Result {
    /// It was too late, as the event loop says.
    TooLate,
    Connected,
    Failed,
    RanShort,
    /// It was connected, and had to wait for a thread: it is told that it need not go on.
    WentOn,
}

const RESULTS: &[Result] =
    &[Result::TooLate, Result::Connected, Result::Failed, Result::RanShort, Result::WentOn];

fn ends(world: &mut World, connect: Connecting, result: Result) {
    match result {
        Result::TooLate => {
            let cause = BoxError::from("no answer by the deadline").into();
            let why =
                ConnectFailure { cause, ..ConnectFailure::timed_out(Phase::Connect, millis(3)) };
            world.fails_with(connect, Arc::new(why));
        }
        Result::Connected => _ = world.connected(connect),
        Result::Failed => world.fails_with(connect, failure(7)),
        Result::RanShort => world.fails_with(connect, shortage(7)),
        Result::WentOn => assert!(world.goes_on(connect).is_none(), "it need not go on"),
    }
}

#[test]
fn an_attempt_goes_from_the_loop_to_a_thread_and_then_to_its_waiter() {
    let (mut world, connect, waiter) = in_loop();
    assert!(world.requeue(connect.token));
    assert_eq!(world.core.entries.at(0).state, State::Connecting(Attempt::Queued));
    assert!(world.start(connect.token, true));
    assert_eq!(world.counts(A).connecting, 1, "all on one permit");
    world.connected(connect);
    world.granted(waiter);
}

#[test]
fn in_the_loop_an_attempt_is_called_off_at_its_deadline_and_ends_once_whatever_comes_of_it() {
    for &result in RESULTS {
        let (mut world, connect, waiter) = in_loop();
        world.pass(2_999);
        world.reap();
        assert!(world.interrupted.is_empty(), "{result:?}");
        world.pass(1);
        world.reap();
        assert_eq!(world.interrupted, [connect.token], "{result:?}");
        assert_eq!(world.counts(A).connecting, 1, "it keeps its permit until the loop has let go");
        ends(&mut world, connect, result);
        let expected = match result {
            Result::TooLate => "no answer by the deadline",
            _ => "did not end by its deadline",
        };
        assert_eq!(world.failed(waiter), expected, "{result:?}");
        let stats = world.stats();
        let counted = (stats.total(), stats.connects_failed(), stats.opened(), stats.abandoned());
        let brought = usize::from(result == Result::Connected);
        assert_eq!(counted, (0, 1, brought as u64, 0), "{result:?}");
        assert_eq!((world.closed_for(CloseReason::TooLate), world.live()), (brought, 0));
        assert_eq!(stats.closed_for(CloseReason::TooLate), brought as u64);
    }
}

#[test]
fn with_the_pool_closed_an_attempt_in_the_loop_is_called_off_and_ends_once_whatever_comes_of_it() {
    for &result in RESULTS {
        let (mut world, connect, waiter) = in_loop();
        world.close();
        assert!(matches!(world.replies.remove(&waiter), Some(Reply::Closed)), "{result:?}");
        assert_eq!(world.interrupted, [connect.token], "{result:?}");
        assert!(!world.core.await_end(&Mail(900)), "{result:?}: its socket is still open");
        ends(&mut world, connect, result);
        assert!(world.core.has_ended(), "{result:?}");
        assert_eq!(world.hints, [Mail(900)], "{result:?}: who drains is told");
        assert_eq!((world.interrupted.len(), world.connects.len()), (1, 0), "{result:?}");
        world.assert_empty();
    }
}

#[test]
fn where_the_loop_keeps_the_deadlines_the_reaper_is_not_woken_and_ends_nothing() {
    for &result in &RESULTS[..4] {
        let mut world = World::new(limits());
        world.core.leave_deadlines_to_loop(A);
        let waiter = world.wait_within(A, millis(60_000));
        let mut connect = world.connect_of(A);
        assert_eq!(world.reap(), Stamp::MAX, "it need not look");
        connect.is_started = world.start_in_loop(connect.token);
        assert!(connect.is_started && world.wakes == 0);
        world.pass(2_999);
        ends(&mut world, connect, result);
        match result {
            Result::Connected => drop(world.granted(waiter)),
            _ => drop(world.failed(waiter)),
        }
        assert_eq!(world.counts(A).connecting, 0, "{result:?}");
        assert!(world.interrupted.is_empty() && world.abandoned.is_empty());
    }
}

#[test]
fn what_the_loop_hands_on_to_a_thread_ends_at_the_deadline_it_began_with() {
    for is_taken_up in [true, false] {
        let mut world = World::new(limits());
        world.core.leave_deadlines_to_loop(A);
        let waiter = world.wait_within(A, millis(60_000));
        let connect = world.connect_of(A);
        let deadline = connect.deadline;
        world.pass(400); // in the loop's inbox
        assert!(world.start_in_loop(connect.token));
        world.pass(600);
        assert!(world.requeue(connect.token));
        assert_eq!((world.wakes, world.reap()), (1, deadline), "now the reaper must look");
        if is_taken_up {
            assert!(world.start(connect.token, true));
        }
        world.pass(1_999);
        world.reap();
        assert!(world.replies.is_empty() && world.interrupted.is_empty());
        world.pass(1);
        world.reap();
        if is_taken_up {
            assert_eq!(world.interrupted, [connect.token]);
            world.fails(connect, 1);
        }
        world.failed(waiter);
        assert_eq!(world.stats().total(), 0);
    }
}

#[test]
fn what_the_loop_hands_on_after_its_deadline_is_ended_by_the_next_look() {
    let mut world = World::new(limits());
    world.core.leave_deadlines_to_loop(A);
    let waiter = world.wait_within(A, millis(60_000));
    let connect = world.connect_of(A);
    assert!(world.start_in_loop(connect.token));
    world.pass(3_001);
    assert!(world.requeue(connect.token));
    assert!(world.core.timers.look_at <= world.now.mono);
    world.reap();
    world.failed(waiter);
    assert!(!world.start(connect.token, true));
}

#[test]
fn where_the_loop_keeps_the_deadlines_a_close_calls_off_all_the_same() {
    for is_started in [true, false] {
        let mut world = World::new(limits());
        world.core.leave_deadlines_to_loop(A);
        world.wait(A);
        let connect = world.connect_of(A);
        assert!(!is_started || world.start_in_loop(connect.token));
        world.close();
        world.replies.clear();
        if is_started {
            assert_eq!(world.interrupted, [connect.token]);
            ends(&mut world, Connecting { is_started, ..connect }, Result::TooLate);
        }
        assert!(!world.start_in_loop(connect.token));
        world.assert_empty();
    }
}

#[test]
fn an_attempt_that_the_loop_does_not_let_go_of_is_abandoned_after_the_grace() {
    let (mut world, connect, waiter) = in_loop();
    world.pass(3_000);
    world.reap();
    world.pass(99);
    world.reap();
    assert!(world.abandoned.is_empty());
    world.pass(1);
    world.reap();
    assert_eq!(world.abandoned, [connect.token]);
    assert_eq!(world.failed(waiter), "did not end by its deadline");
    assert_eq!((world.stats().total(), world.stats().abandoned()), (0, 1));
    world.connected(connect);
    assert_eq!((world.closed_for(CloseReason::TooLate), world.stats().abandoned()), (1, 0));
    assert_eq!(world.live(), 0);
}

#[test]
fn an_attempt_that_waits_for_a_thread_again_fails_at_its_deadline_and_the_thread_finds_nothing() {
    let (mut world, connect, waiter) = in_loop();
    world.pass(1_000);
    assert!(world.requeue(connect.token));
    world.pass(1_999);
    world.reap();
    assert!(world.replies.is_empty(), "its deadline is that of the whole attempt");
    world.pass(1);
    world.reap();
    assert!(world.interrupted.is_empty(), "there is nobody to call off");
    assert_eq!(world.failed(waiter), "no thread of the pool came free for it");
    assert!(!world.start(connect.token, false), "the thread that comes finds nothing");
    assert_eq!((world.stats().total(), world.stats().abandoned()), (0, 0));
}

#[test]
fn an_attempt_that_waits_for_a_thread_again_ends_with_its_pool_at_once() {
    let (mut world, connect, waiter) = in_loop();
    assert!(world.requeue(connect.token));
    world.close();
    assert!(matches!(world.replies.remove(&waiter), Some(Reply::Closed)));
    assert!(world.core.has_ended() && world.interrupted.is_empty());
    assert!(!world.start(connect.token, false));
    world.assert_empty();
}

#[test]
fn an_order_that_the_loop_reads_after_its_deadline_or_after_the_close_is_not_begun() {
    for is_closed in [true, false] {
        let mut world = World::new(limits());
        world.wait(A);
        let connect = world.connect_of(A);
        if is_closed {
            world.close();
        } else {
            world.pass(3_000);
            world.reap();
        }
        world.replies.clear();
        assert!(!world.start_in_loop(connect.token));
        world.assert_empty();
    }
}

#[test]
fn an_attempt_that_was_called_off_goes_no_further() {
    let (mut world, connect, _) = in_loop();
    world.pass(3_000);
    world.reap();
    assert!(!world.requeue(connect.token) && !world.start(connect.token, true));
    assert!(!world.run(&mut |core, _| core.advance_attempt(connect.token, Phase::Open, true)));
    assert_eq!(world.core.entries.at(0).state, State::Connecting(Attempt::Interrupted));
}

#[test]
fn hundreds_that_are_called_off_with_the_pool_leave_nothing_behind() {
    let many = if cfg!(miri) { 20 } else { 300 };
    let mut world = World::new(Limits {
        max_total: many,
        max_per_endpoint: many,
        max_connecting: many,
        max_connecting_total: many,
        ..limits()
    });
    (0..many).for_each(|at| _ = world.wait(if at % 2 == 0 { A } else { B }));
    let mut connects = std::mem::take(&mut world.connects);
    for connect in &mut connects {
        connect.is_started = world.start_in_loop(connect.token);
    }
    world.close();
    world.replies.clear();
    assert_eq!(world.interrupted.len(), many);
    for (at, connect) in connects.into_iter().enumerate() {
        assert!(!world.core.has_ended());
        ends(&mut world, connect, RESULTS[at % RESULTS.len()]);
    }
    assert!(world.core.has_ended());
    world.assert_empty();
}

#[test]
fn a_returned_connection_goes_to_the_waiter_and_what_the_loop_connects_then_becomes_idle() {
    let mut world = World::new(limits());
    let held = world.open(A, 1).remove(0);
    let waiter = world.wait(A);
    let connect = world.connect_of(A);
    assert!(world.start_in_loop(connect.token));
    world.give_back(held);
    assert!(matches!(world.look(waiter), Look::Granted(_)), "first come");
    assert!(world.interrupted.is_empty(), "it is kept, though nobody waits for it");
    world.connected(connect);
    assert_eq!((world.counts(A).idle, world.counts(A).in_use), (1, 1));
}

#[test]
fn an_attempt_that_waits_for_a_thread_is_withdrawn_at_its_deadline_and_at_the_close() {
    for is_closed in [true, false] {
        for was_in_loop in [true, false] {
            let mut world = World::new(limits());
            let waiter = world.wait_within(A, millis(60_000));
            let connect = world.connect_of(A);
            if was_in_loop {
                assert!(world.start_in_loop(connect.token) && world.requeue(connect.token));
            }
            world.pass(2_999);
            world.reap();
            assert!(world.withdrawn.is_empty());
            if is_closed {
                world.close();
            } else {
                world.pass(1);
                world.reap();
            }
            assert_eq!(world.withdrawn, [connect.token], "its socket, if it has one, is closed");
            assert!(world.interrupted.is_empty() && world.abandoned.is_empty());
            assert!(world.replies.remove(&waiter).is_some());
            assert_eq!(world.stats().total(), 0);
        }
    }
}

#[test]
fn an_attempt_that_a_thread_has_is_not_withdrawn() {
    for is_closed in [true, false] {
        let (mut world, connect, _) = in_loop();
        assert!(world.requeue(connect.token) && world.start(connect.token, false));
        if is_closed {
            world.close();
        }
        world.pass(3_000);
        world.reap();
        assert_eq!((world.withdrawn.len(), world.abandoned.len()), (0, 1));
        world.replies.clear();
    }
}
