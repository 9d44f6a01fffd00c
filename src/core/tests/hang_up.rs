//! What the event loop sees of a connection: the peer's farewell and stray bytes, in every state,
//! and before every transition that could hand the connection on.

use super::world::{A, Got, Held, Look, World, limits, millis, room_for};
use crate::config::Limits;
use crate::core::entry::{Attempt, State};
use crate::core::{Notice, Token};
use crate::error::Phase;
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

/// Idle, and nobody has had it yet.
fn unused() -> Doomed {
    let mut world = World::new(Limits { min_idle: 1, ..limits() });
    let now = world.now;
    world.run(&mut |core, fx| core.keep(A, now, fx));
    let token = world.connects[0].token;
    world.connect_ok(A);
    Doomed { world, token, held: None }
}

fn in_use_again() -> Doomed {
    let Doomed { mut world, token, .. } = idle();
    let held = world.take(A);
    Doomed { world, token, held: Some(held) }
}

fn connecting() -> Doomed {
    let mut world = World::new(limits());
    world.wait_within(A, millis(60_000));
    let token = world.connects[0].token;
    Doomed { world, token, held: None }
}

/// In the event loop.
fn in_loop() -> Doomed {
    let mut doomed = connecting();
    assert!(doomed.world.start_in_loop(doomed.token));
    doomed
}

/// Connected by the event loop, and queued for a thread that opens it.
fn requeued() -> Doomed {
    let mut doomed = in_loop();
    assert!(doomed.world.requeue(doomed.token));
    doomed
}

fn opening() -> Doomed {
    let mut doomed = requeued();
    assert!(doomed.world.start(doomed.token, true));
    doomed
}

fn interrupted() -> Doomed {
    let mut doomed = in_loop();
    doomed.world.pass(3_000);
    doomed.world.reap();
    assert_eq!(doomed.world.interrupted, [doomed.token]);
    doomed
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

/// Every state an entry can be in, but stuck ones, which nobody will hear of again.
const STATES: &[(Begin, State)] = &[
    (connecting, State::Connecting(Attempt::Queued)),
    (in_loop, State::Connecting(running(Phase::Connect, false))),
    (requeued, State::Connecting(Attempt::Queued)),
    (opening, State::Connecting(running(Phase::Open, true))),
    (interrupted, State::Connecting(Attempt::Interrupted)),
    (unused, State::Idle),
    (idle, State::Idle),
    (in_use, State::InUse),
    (in_use_again, State::InUse),
    (settling, State::Checking(Attempt::Queued)),
    (checking, State::Checking(Attempt::Queued)),
];

const fn running(phase: Phase, interruptible: bool) -> Attempt {
    Attempt::Running { phase, interruptible }
}

#[test]
fn only_an_idle_connection_ends_when_the_peer_hangs_up_and_every_other_is_marked() {
    for (at, &(begin, state)) in STATES.iter().enumerate() {
        let Doomed { mut world, token, .. } = begin();
        assert_eq!(world.core.entries.get(token).map(|entry| entry.state), Some(state), "row {at}");
        for _ in 0..2 {
            world.hang_up(token); // the second time changes nothing
            match world.core.entries.get(token) {
                None => assert_eq!(state, State::Idle, "row {at}"),
                Some(entry) => {
                    let is_marked = entry.doomed == Some(CloseReason::PeerClosed);
                    assert!(is_marked && entry.state == state, "row {at}: {entry:?}");
                }
            }
        }
        let ended = usize::from(state == State::Idle);
        let closed = (world.closed.len(), world.closed_for(CloseReason::PeerClosed));
        assert_eq!(closed, (ended, ended), "row {at}");
    }
}

#[test]
fn stray_bytes_end_a_connection_at_once_or_when_it_comes_back() {
    for (at, &(begin, state)) in STATES.iter().enumerate() {
        let Doomed { mut world, token, .. } = begin();
        world.notice(token, Notice::Stray);
        let ends = state == State::Idle;
        assert_eq!(world.closed_for(CloseReason::StrayBytes), usize::from(ends), "row {at}");
        assert_eq!(world.closed.len(), usize::from(ends), "row {at}");
        let entry = world.core.entries.get(token);
        assert_eq!(entry.is_none(), ends, "row {at}");
        // What is in use, or out for upkeep, is not watched: the bytes came while it was idle.
        let is_marked = match state {
            State::InUse | State::Checking(_) => true,
            State::Idle | State::Connecting(_) => false,
        };
        let doomed = is_marked.then_some(CloseReason::StrayBytes);
        let is_as_told = entry.is_none_or(|entry| entry.state == state && entry.doomed == doomed);
        assert!(is_as_told, "row {at}: {entry:?}");
    }
}

#[test]
fn an_event_that_comes_late_says_nothing_of_whoever_has_the_place_now() {
    for notice in [Notice::HungUp, Notice::Stray] {
        for (at, &(begin, state)) in STATES.iter().enumerate() {
            let Doomed { mut world, token, .. } = begin();
            let stale = Token::default();
            assert!(stale.index == token.index && stale != token, "of another generation");
            world.notice(stale, notice);
            let entry = world.core.entries.get(token).expect("it is untouched");
            assert!(entry.state == state && entry.doomed.is_none(), "row {at}: {entry:?}");
            assert!(world.closed.is_empty(), "row {at}");
        }
    }
}

#[test]
fn min_idle_is_filled_again_at_once_where_the_peer_hung_up_or_sent_stray_bytes() {
    for notice in [Notice::HungUp, Notice::Stray] {
        let mut world = World::with_endpoints(limits(), 1);
        let tokens = world.idle(A, 3);
        world.set_min_idle(3);
        for (at, token) in tokens.into_iter().enumerate() {
            world.notice(token, notice);
            let counts = (world.counts(A).idle, world.connects.len());
            assert_eq!(counts, (2 - at, at + 1), "{notice:?}");
        }
        (0..3).for_each(|_| _ = world.connect_ok(A));
        assert_eq!((world.counts(A).idle, world.connects.len()), (3, 0));
    }
}

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
    assert_eq!((stats.connects_failed(), stats.total()), (1, 0));
    assert_eq!((stats.opened(), stats.closed_for(CloseReason::PeerClosed)), (1, 1));
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
    let many = if cfg!(miri) { 200 } else { 10_000 };
    let mut world = World::new(Limits { max_waiting: many, ..room_for(many) });
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
