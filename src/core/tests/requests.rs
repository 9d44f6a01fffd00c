//! Requests, which cannot look by themselves: answered, in their turn, with whatever comes. And two
//! more ways to wait: in a place that one had before, and through an outage.

use super::cause::failure;
use super::world::{A, B, Got, Held, Look, Mail, Reply, Waiting, World, limits, millis, room_for};
use crate::clock::Stamp;
use crate::config::Limits;
use crate::core::{Manner, Outcome, Refusal, Terms};
use crate::observe::CloseReason;
use crate::sync::Caller;

/// One connection, in use, and nobody may open another; blocked callers may be overtaken for long.
fn contended() -> (World, Held) {
    let fair_after = millis(1_000);
    let mut world = World::new(Limits { max_per_endpoint: 1, fair_after, ..limits() });
    let held = world.open(A, 1).remove(0);
    (world, held)
}

/// A request that is not answered at once.
fn request(world: &mut World, endpoint: u32) -> Mail {
    match world.request(endpoint) {
        Got::Waits(mail) => mail,
        other => panic!("it need not wait: {other:?}"),
    }
}

/// One that waits an outage out.
fn patient(world: &mut World, endpoint: u32, timeout: u64) -> Mail {
    match world.ask_for(endpoint, millis(timeout), Manner::Patient) {
        Got::Waits(mail) => mail,
        other => panic!("it need not wait: {other:?}"),
    }
}

/// Somebody who asked before waits again: what it was given was of no use.
fn ask_again(world: &mut World, endpoint: u32, asked_at: Stamp, mail: Mail) -> Mail {
    let (now, deadline) = (world.now, world.now.mono.plus(millis(5_000)));
    let manner = Manner::Eager;
    let terms = Terms { asked_at: Some(asked_at), deadline, manner, caller: Caller::here() };
    let outcome = world.run(&mut |core, fx| core.checkout_or_wait(endpoint, now, terms, &mail, fx));
    let Outcome::Queued(token, _) = outcome else { panic!("it need not wait: {outcome:?}") };
    world.waiting.insert(mail, Waiting { token, endpoint, deadline, manner });
    mail
}

#[test]
fn what_comes_back_is_handed_to_a_request_at_once_and_nobody_barges() {
    let (mut world, held) = contended();
    let waiting = request(&mut world, A);
    world.give_back(held);
    assert_eq!(world.counts(A).idle, 0);
    let lease = world.granted(waiting).lease;
    assert!(!lease.was_idle());
    assert!(world.hints.is_empty(), "nobody looks on its behalf");
}

#[test]
fn a_request_finds_what_is_idle_like_anybody() {
    let mut world = World::new(limits());
    world.idle(A, 1);
    assert!(matches!(world.request(A), Got::Conn(_)));
}

#[test]
fn a_request_waits_behind_an_older_caller_that_was_told_to_look() {
    let (mut world, held) = contended();
    let caller = world.wait(A);
    let waiting = request(&mut world, A);
    world.give_back(held);
    assert_eq!((world.hints.as_slice(), world.counts(A).idle), ([caller].as_slice(), 1));
    let Look::Granted(held) = world.look(caller) else { panic!("one was idle") };
    assert!(world.replies.is_empty());
    world.give_back(held);
    world.granted(waiting);
}

#[test]
fn a_caller_waits_behind_an_older_request() {
    let (mut world, held) = contended();
    let waiting = request(&mut world, A);
    let caller = world.wait(A);
    world.give_back(held);
    assert!(world.hints.is_empty(), "it is not its turn");
    let held = world.granted(waiting);
    world.give_back(held);
    assert_eq!(world.hints, [caller]);
}

#[test]
fn with_as_many_idle_as_older_callers_were_told_of_a_request_gets_the_next() {
    let mut world = World::new(Limits { max_per_endpoint: 3, ..limits() });
    let mut held = world.open(A, 3);
    let callers = [world.wait(A), world.wait(A)];
    let waiting = request(&mut world, A);
    for told in 1..=2 {
        world.give_back(held.remove(0));
        assert_eq!((world.hints.len(), world.replies.len()), (told, 0));
    }
    world.give_back(held.remove(0));
    world.granted(waiting);
    for caller in callers {
        assert!(matches!(world.look(caller), Look::Granted(_)));
    }
}

#[test]
fn what_a_caller_need_not_look_for_any_more_is_for_the_request_behind_it() {
    let mut world = World::new(Limits { max_per_endpoint: 2, ..limits() });
    let mut held = world.open(A, 2);
    let caller = world.wait(A);
    let waiting = request(&mut world, A);
    world.give_back(held.remove(0));
    assert_eq!(world.hints, [caller]);
    // The caller is handed the other one before it has looked.
    world.pass(2);
    world.give_back(held.remove(0));
    world.granted(caller);
    assert!(world.granted(waiting).lease.was_idle());
}

#[test]
fn a_caller_past_its_deadline_holds_no_request_back() {
    let (mut world, held) = contended();
    let late = world.wait_within(A, millis(1));
    let waiting = request(&mut world, A);
    world.pass(1);
    world.give_back(held);
    world.granted(waiting);
    assert!(matches!(world.look(late), Look::Expired(..)));
}

#[test]
fn a_new_connection_goes_to_the_oldest_be_it_a_request_or_a_caller() {
    let mut world = World::new(limits());
    let waiters = [request(&mut world, A), world.wait(A), request(&mut world, A), world.wait(A)];
    assert_eq!(world.connects.len(), 4);
    for waiter in waiters {
        world.connect_ok(A);
        world.granted(waiter);
    }
}

#[test]
fn a_request_has_what_is_idle_checked_and_gets_it_or_an_attempt() {
    for is_fit in [true, false] {
        let mut world = World::new(Limits { check_after: Some(millis(500)), ..limits() });
        world.idle(A, 2);
        world.pass(500);
        let waiting = request(&mut world, A);
        assert_eq!((world.upkeeps.len(), world.connects.len()), (1, 0));
        world.upkeep_ends(if is_fit { Ok(()) } else { Err(CloseReason::CheckFailed) });
        if !is_fit {
            assert_eq!(world.upkeeps.len(), 1, "there is another to be checked");
            world.upkeep_ends(Err(CloseReason::CheckFailed));
            world.connect_ok(A);
        }
        world.granted(waiting);
    }
}

#[test]
fn each_request_has_one_checked_of_its_own() {
    let mut world = World::new(Limits { check_after: Some(millis(500)), ..limits() });
    world.idle(A, 2);
    world.pass(500);
    let waiters = [request(&mut world, A), request(&mut world, A)];
    assert_eq!(world.upkeeps.len(), 2);
    for waiter in waiters {
        world.upkeep_ends(Ok(()));
        world.granted(waiter);
    }
}

#[test]
fn a_request_is_served_by_what_a_caller_was_told_of_and_finds_too_old() {
    let check_after = Some(millis(500));
    let mut world = World::new(Limits { max_per_endpoint: 2, check_after, ..limits() });
    let mut held = world.open(A, 2);
    let caller = world.wait(A);
    let waiting = request(&mut world, A);
    world.give_back(held.remove(0));
    assert_eq!(world.hints, [caller]);
    // It looks so late that what it was told of must be checked first.
    world.pass(600);
    assert!(matches!(world.look(caller), Look::Waits));
    assert_eq!(world.upkeeps.len(), 1);
    world.give_back(held.remove(0));
    world.granted(caller);
    world.upkeep_ends(Ok(()));
    world.granted(waiting);
}

#[test]
fn a_request_learns_why_nothing_can_be_opened_and_that_the_pool_is_closed() {
    let mut world = World::new(limits());
    let (first, second) = (request(&mut world, A), request(&mut world, B));
    world.connect_fails(A);
    assert_eq!(world.failed(first), "cause 1");
    let Got::Refused(Refusal::Failed(..)) = world.request(A) else { panic!("it has just failed") };
    world.close();
    assert!(matches!(world.replies.remove(&second), Some(Reply::Closed)));
    assert!(matches!(world.request(B), Got::Refused(Refusal::Closed)));
}

#[test]
fn a_request_that_is_cancelled_leaves_its_attempt_to_the_next() {
    let mut world = World::new(limits());
    let (first, second) = (request(&mut world, A), request(&mut world, A));
    let tokens = [world.connects[0].token, world.connects[1].token];
    world.cancel(first);
    assert_eq!((world.counts(A).waiting, world.counts(A).connecting), (1, 2));
    assert_eq!(tokens.map(|token| world.core.is_wanted(token)), [true, false]);
    world.connect_ok(A);
    world.granted(second);
    world.connect_ok(A);
    assert_eq!(world.counts(A).idle, 1, "what nobody waits for is kept");
}

#[test]
fn what_comes_back_after_a_request_was_cancelled_is_for_the_caller_behind_it() {
    let (mut world, held) = contended();
    let waiting = request(&mut world, A);
    let caller = world.wait(A);
    world.cancel(waiting);
    world.give_back(held);
    assert_eq!(world.hints, [caller]);
    assert!(matches!(world.look(caller), Look::Granted(_)));
}

#[test]
fn a_request_that_is_cancelled_holds_nothing_back_from_the_starved() {
    let mut world = World::new(Limits { max_total: 1, ..limits() });
    let waiting = request(&mut world, A);
    let theirs = world.wait(B);
    assert_eq!(world.counts(B).connecting, 0);
    world.cancel(waiting);
    assert_eq!(world.withdrawn, [world.connects[0].token], "its attempt is in the way");
    world.connects.remove(0);
    world.connect_ok(B);
    world.granted(theirs);
}

#[test]
fn what_had_arrived_for_a_request_that_is_cancelled_goes_to_the_next() {
    let (mut world, held) = contended();
    let (first, second) = (request(&mut world, A), request(&mut world, A));
    world.give_back(held);
    world.cancel(first);
    world.granted(second);
    assert!(world.closed.is_empty());
}

#[test]
fn requests_count_among_those_who_wait_and_are_turned_away_when_too_many_do() {
    let limits = Limits { max_per_endpoint: 1, max_waiting: 2, ..limits() };
    let mut world = World::new(limits);
    let _held = world.open(A, 1);
    let waiting = request(&mut world, A);
    world.wait(A);
    for got in [world.request(A), world.get(A)] {
        let Got::Refused(Refusal::Saturated(counts)) = got else { panic!("{got:?}") };
        assert_eq!(counts.waiting, 2);
    }
    world.cancel(waiting);
    request(&mut world, A);
}

#[test]
fn endpoints_with_more_requests_than_the_pool_has_room_for_are_served_in_turn() {
    let endpoints = 10;
    let mut world = World::with_endpoints(Limits { max_total: 1, ..limits() }, endpoints);
    let waiting: Vec<Mail> = (0..endpoints).map(|at| request(&mut world, at)).collect();
    for (endpoint, waiting) in (0..).zip(waiting) {
        world.connect_ok(endpoint);
        let held = world.granted(waiting);
        world.give_back(held);
    }
}

// ---- a place that one had before

#[test]
fn who_was_given_one_of_no_use_goes_back_to_its_place_in_the_queue() {
    let (mut world, held) = contended();
    let asked_at = world.now.mono;
    let mut order = Vec::new();
    for _ in 0..3 {
        world.pass(200);
        order.push(world.wait(A));
    }
    // One asked before all of them, another between the first and the second.
    let first = ask_again(&mut world, A, asked_at, Mail(900));
    let third = ask_again(&mut world, A, asked_at.plus(millis(300)), Mail(901));
    let alike = ask_again(&mut world, A, asked_at.plus(millis(200)), Mail(902));
    order.splice(0..1, [first, order[0], alike, third]);
    world.pass(1_000);
    let mut held = held;
    for waiter in order {
        world.give_back(held);
        held = world.granted(waiter);
    }
}

#[test]
fn it_is_due_from_when_it_first_asked() {
    let (mut world, held) = contended();
    let asked_at = world.now.mono;
    world.pass(1_000);
    let waiter = ask_again(&mut world, A, asked_at, Mail(900));
    world.give_back(held);
    world.granted(waiter);
}

#[test]
fn its_endpoint_is_starved_from_when_it_first_asked() {
    let mut world = World::new(Limits { max_total: 1, ..limits() });
    let held = world.open(A, 1).remove(0);
    let asked_at = world.now.mono;
    world.pass(1);
    world.wait(A);
    world.pass(1);
    world.wait(B);
    let theirs = ask_again(&mut world, B, asked_at, Mail(900));
    world.give_back(held);
    assert_eq!(world.closed_for(CloseReason::MadeRoom), 1, "nobody at A has waited for so long");
    world.connect_ok(B);
    world.granted(theirs);
}

// ---- those who wait an outage out

#[test]
fn a_patient_one_outlives_failures_that_end_all_others() {
    let mut world = World::new(room_for(8));
    let outlives = patient(&mut world, A, 60_000);
    let (caller, waiting) = (world.wait(A), request(&mut world, A));
    (0..3).for_each(|_| world.connect_fails(A));
    assert_eq!((world.failed(caller), world.failed(waiting)), ("cause 1".into(), "cause 1".into()));
    for _ in 0..5 {
        world.pass(49);
        world.reap();
        assert!(world.connects.is_empty(), "not before the pause is over");
        world.pass_pause(A);
        world.reap();
        assert_eq!(world.connects.len(), 1);
        world.connect_fails(A);
    }
    world.pass_pause(A);
    world.reap();
    world.connect_ok(A);
    world.granted(outlives);
}

#[test]
fn a_patient_one_that_comes_in_the_pause_waits_for_the_next_attempt() {
    let mut world = World::new(limits());
    world.wait(A);
    world.connect_fails(A);
    assert!(matches!(world.get(A), Got::Refused(Refusal::Failed(..))));
    let waiter = patient(&mut world, A, 60_000);
    assert!(world.connects.is_empty());
    world.pass_pause(A);
    assert_eq!(world.core.timers.look_at, world.now.mono);
    world.reap();
    world.connect_ok(A);
    world.granted(waiter);
}

#[test]
fn a_patient_one_leaves_at_its_deadline_with_the_last_failure() {
    let mut world = World::new(limits());
    let waiter = patient(&mut world, A, 100);
    world.connect_fails(A);
    world.pass_pause(A);
    world.reap();
    let connect = world.connect_of(A);
    world.fails_with(connect, failure(7));
    world.now.mono = world.waiting[&waiter].deadline;
    let Look::Expired(counts, Some((text, age))) = world.look(waiter) else {
        panic!("its deadline has passed")
    };
    assert_eq!((text.as_str(), counts.counts.total()), ("cause 7", 0));
    assert!(age <= millis(50), "{age:?}");
}

#[test]
fn who_comes_in_the_pause_behind_a_patient_one_waits_for_the_next_attempt_too() {
    let mut world = World::new(limits());
    patient(&mut world, A, 60_000);
    world.connect_fails(A);
    let caller = world.wait(A);
    world.pass_pause(A);
    world.reap();
    assert_eq!(world.connects.len(), 1, "one sees for both whether the server is back");
    world.connect_fails(A);
    assert_eq!(world.failed(caller), "cause 1");
    assert_eq!(world.counts(A).waiting, 1, "the patient one");
}

#[test]
fn what_nobody_received_is_as_new_when_it_comes_back() {
    let mut world = World::new(limits());
    let request = request(&mut world, A);
    world.connect_ok(A);
    let held = world.granted(request);
    assert_eq!((held.lease.uses, world.stats().checkouts()), (0, 1));
    let (now, mut conn) = (world.now, Some(held.conn));
    world.run(&mut |core, fx| {
        conn.take().into_iter().for_each(|conn| core.take_back(held.lease.token, conn, now, fx));
    });
    assert_eq!((world.counts(A).idle, world.stats().checkouts()), (1, 0));
    assert_eq!(world.take(A).lease.uses, 0, "whoever gets it is its first user");
}
