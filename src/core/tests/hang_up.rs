//! The peer hangs up: in every state, and before every transition that could hand the connection
//! on.

use super::world::{A, Got, Held, Look, World, limits, millis};
use crate::config::Limits;
use crate::core::Token;
use crate::observe::CloseReason;

/// A pool with one connection that is about to be hung up on.
struct Doomed {
    world: World,
    token: Token,
    held: Option<Held>,
}

fn in_use() -> Doomed {
    let mut world = World::new(limits());
    let held = world.open(A, 1).remove(0);
    Doomed { world, token: held.lease.token, held: Some(held) }
}

fn idle() -> Doomed {
    let mut world = World::new(limits());
    let token = world.idle(A, 1)[0];
    Doomed { world, token, held: None }
}

fn connecting() -> Doomed {
    let mut world = World::new(limits());
    world.wait(A);
    let token = world.connects[0].token;
    Doomed { world, token, held: None }
}

fn settling() -> Doomed {
    let mut doomed = in_use();
    let held = doomed.held.take().expect("it is in use");
    doomed.world.settle(held);
    doomed
}

fn checking() -> Doomed {
    let mut world = World::new(Limits { check_after: Some(millis(500)), ..limits() });
    let token = world.idle(A, 1)[0];
    world.pass(500);
    assert!(world.try_get(A).is_none());
    assert_eq!(world.counts(A).checking, 1);
    Doomed { world, token, held: None }
}

type Begin = fn() -> Doomed;
type Step = fn(&mut Doomed);

const RETURN: Step = |doomed| {
    let held = doomed.held.take().expect("it is in use");
    doomed.world.give_back(held);
};
const SETTLE: Step = |doomed| {
    let held = doomed.held.take().expect("it is in use");
    doomed.world.settle(held);
};
const DISCARD: Step = |doomed| {
    let held = doomed.held.take().expect("it is in use");
    doomed.world.discard(held);
};
const CHECKED: Step = |doomed| doomed.world.upkeep_ends(Ok(()));
const REFUSED: Step = |doomed| doomed.world.upkeep_ends(Err(CloseReason::ResetRefused));
const EVICTED: Step = |doomed| {
    doomed.world.evict(A);
    RETURN(doomed);
};

#[test]
fn an_idle_connection_that_is_hung_up_on_ends_at_once() {
    let Doomed { mut world, token, .. } = idle();
    world.hang_up(token);
    assert_eq!((world.closed_for(CloseReason::PeerClosed), world.live()), (1, 0));
    assert!(matches!(world.get(A), Got::Waits(_)), "nobody is handed a dead one");
}

#[test]
fn in_every_other_state_it_ends_with_the_next_transition() {
    use CloseReason::{Discarded, PeerClosed, ResetRefused};
    let table: &[(Begin, Step, CloseReason)] = &[
        (in_use, RETURN, PeerClosed),
        (in_use, SETTLE, PeerClosed),
        (in_use, DISCARD, Discarded),
        (in_use, EVICTED, PeerClosed),
        (settling, CHECKED, PeerClosed),
        (settling, REFUSED, ResetRefused),
        (checking, CHECKED, PeerClosed),
        (checking, REFUSED, ResetRefused),
    ];
    for (at, (begin, step, reason)) in table.iter().enumerate() {
        let mut doomed = begin();
        doomed.world.hang_up(doomed.token);
        assert!(doomed.world.closed.is_empty(), "row {at}: it is not the pool's to close yet");
        step(&mut doomed);
        let reasons: Vec<_> = doomed.world.closed.iter().map(|(_, reason)| *reason).collect();
        assert_eq!(reasons, [*reason], "row {at}");
        assert_eq!((doomed.world.counts(A).total(), doomed.world.live()), (0, 0), "row {at}");
    }
}

#[test]
fn a_waiter_is_not_handed_a_connection_that_was_hung_up_on() {
    for begin in [in_use as Begin, settling] {
        let Doomed { mut world, token, held } = begin();
        let waiter = world.wait(A);
        world.pass(10);
        world.hang_up(token);
        match held {
            Some(held) => world.give_back(held),
            None => world.upkeep_ends(Ok(())),
        }
        assert!(world.replies.is_empty());
        world.connect_ok(A);
        world.granted(waiter);
    }
}

#[test]
fn an_attempt_whose_connection_was_hung_up_on_counts_as_failed() {
    let Doomed { mut world, token, .. } = connecting();
    let mail = *world.waiting.keys().next().expect("somebody waits");
    world.hang_up(token);
    world.connect_ok(A);
    assert_eq!(world.closed_for(CloseReason::PeerClosed), 1);
    let stats = world.stats();
    assert_eq!((stats.connects_failed(), stats.opened(), stats.total()), (1, 0, 0));
    world.failed(mail);
}

#[test]
fn an_attempt_that_was_hung_up_on_and_failed_anyhow_fails_once() {
    let Doomed { mut world, token, .. } = connecting();
    let mail = *world.waiting.keys().next().expect("somebody waits");
    world.hang_up(token);
    world.connect_fails(A);
    assert_eq!((world.stats().connects_failed(), world.failed(mail)), (1, "cause 1".to_owned()));
}

#[test]
fn an_event_for_a_connection_that_is_gone_is_ignored() {
    let Doomed { mut world, token, held } = in_use();
    held.into_iter().for_each(|held| world.discard(held));
    // Its place is used again by another.
    let other = world.open(A, 1).remove(0);
    assert_ne!(other.lease.token, token);
    assert_eq!(other.lease.token.index, token.index);
    world.hang_up(token);
    world.give_back(other);
    assert_eq!((world.counts(A).idle, world.closed_for(CloseReason::PeerClosed)), (1, 0));
}

#[test]
fn a_told_waiter_whose_idle_connection_dies_gets_an_attempt() {
    let mut world = World::new(Limits { max_per_endpoint: 1, ..limits() });
    let held = world.open(A, 1).remove(0);
    let token = held.lease.token;
    let waiter = world.wait(A);
    world.give_back(held);
    world.hang_up(token);
    assert_eq!(world.connects.len(), 1);
    assert!(matches!(world.look(waiter), Look::Waits));
    world.connect_ok(A);
    world.granted(waiter);
}

#[test]
fn ten_thousand_that_die_at_once_leave_nothing_behind() {
    let many = 10_000;
    let mut world = World::new(Limits {
        max_total: many,
        max_per_endpoint: many,
        max_idle: many,
        max_idle_per_endpoint: many,
        max_connecting: many,
        max_connecting_total: many,
        max_waiting: many,
        ..limits()
    });
    world.is_checked = false;
    let waiters: Vec<_> = (0..many).map(|_| world.wait(A)).collect();
    let connects = std::mem::take(&mut world.connects);
    connects.into_iter().for_each(|connect| _ = world.connected(connect));
    let held: Vec<Held> = waiters.into_iter().map(|mail| world.granted(mail)).collect();
    let mut tokens: Vec<Token> = held.iter().map(|held| held.lease.token).collect();
    held.into_iter().for_each(|held| world.give_back(held));
    // In no order that a list would like.
    let (half, rest) = tokens.split_at_mut(many / 2);
    half.reverse();
    for (one, other) in half.iter().zip(rest.iter()) {
        world.hang_up(*one);
        world.hang_up(*other);
    }
    world.is_checked = true;
    world.reap();
    world.assert_empty();
}
