//! More endpoints than connections: everybody progresses, and reuse survives.

use super::world::{A, B, C, Held, Look, Mail, World, limits, millis};
use crate::config::{Caps, Limits};
use crate::observe::CloseReason;

#[test]
fn every_starved_endpoint_progresses() {
    let endpoints = 20;
    let limits = Limits { max_total: 2, ..limits() };
    let mut world = World::with_endpoints(limits, endpoints);
    let mut waiters: Vec<(u32, Mail)> = (0..endpoints).map(|at| (at, world.wait(at))).collect();
    let mut order = Vec::new();
    while !waiters.is_empty() {
        let endpoint = world.connects[0].endpoint;
        world.pass(1);
        world.connect_ok(endpoint);
        let at = waiters.iter().position(|(at, _)| *at == endpoint).expect("it waits");
        let (_, mail) = waiters.remove(at);
        order.push(endpoint);
        let held = world.granted(mail);
        world.give_back(held);
    }
    assert_eq!(order, (0..endpoints).collect::<Vec<_>>(), "in the order of arrival");
    assert!(world.stats().total() <= 2);
}

#[test]
fn what_nobody_wants_here_is_given_to_the_starved_at_once() {
    let mut world = World::new(Limits { max_total: 2, ..limits() });
    let mut held = world.open(A, 2);
    let mine = world.wait(B);
    let also = world.wait(C);
    world.give_back(held.remove(0));
    assert_eq!((world.counts(B).connecting, world.counts(C).connecting), (1, 0));
    world.give_back(held.remove(0));
    assert_eq!(world.counts(C).connecting, 1);
    assert_eq!(world.closed_for(CloseReason::MadeRoom), 2);
    world.connect_ok(B);
    world.connect_ok(C);
    world.granted(mine);
    world.granted(also);
}

#[test]
fn freed_room_goes_to_the_older_of_the_own_and_the_global_oldest() {
    for own_is_older in [true, false] {
        let mut world = World::new(Limits { max_total: 1, ..limits() });
        let held = world.open(A, 1).remove(0);
        let (first, second) = if own_is_older { (A, B) } else { (B, A) };
        world.wait(first);
        world.pass(1);
        world.wait(second);
        world.discard(held);
        assert_eq!(world.connects.len(), 1);
        assert_eq!(world.connects[0].endpoint, first);
    }
}

/// `A` has the only connection and always somebody who waits for it; `B` starves from the start.
/// Returns how often `A` gave its connection away within so many milliseconds.
fn gifts(connect_takes: u64, within: u64) -> usize {
    let mut world = World::new(Limits { max_total: 1, max_waiting: 10_000, ..limits() });
    world.wait(A);
    world.pass(connect_takes);
    world.connect_ok(A);
    let mut held: Option<Held> = world.replies.keys().next().copied().map(|at| world.granted(at));
    let old = world.now.mono;
    world.wait_within(B, millis(100_000));
    world.pass(1);
    (0..2_000).for_each(|_| _ = world.wait_within(A, millis(100_000)));
    let began = world.now.mono;
    let mut gifts = 0;
    while world.now.mono.since(began) < millis(within) {
        world.pass(1);
        if let Some(back) = held.take() {
            world.give_back(back);
        }
        while let Some(connect) = world.connects.first().copied() {
            gifts += usize::from(connect.endpoint == B);
            world.connect_ok(connect.endpoint);
            if connect.endpoint == B {
                let mail = *world.replies.keys().next().expect("it was served");
                let theirs = world.granted(mail);
                // Older than anybody at `A`, for the next time.
                world.discard(theirs);
                let now = std::mem::replace(&mut world.now.mono, old);
                world.is_checked = false;
                world.wait_within(B, millis(100_000));
                world.is_checked = true;
                world.now.mono = now;
            }
        }
        if let Some(&mail) = world.replies.keys().next() {
            held = Some(world.granted(mail));
        }
    }
    gifts
}

#[test]
#[cfg_attr(miri, ignore = "thousands of transitions")]
fn a_contended_endpoint_gives_away_at_most_once_in_ten_milliseconds() {
    let given = gifts(1, 200);
    assert!((5..=20).contains(&given), "{given} times in 200 ms");
}

#[test]
#[cfg_attr(miri, ignore = "thousands of transitions")]
fn a_contended_endpoint_where_connecting_is_slow_gives_away_less_often() {
    let given = gifts(100, 400);
    assert!((3..=8).contains(&given), "{given} times in 400 ms, with a mean of 100 ms to connect");
}

#[test]
fn a_younger_starved_endpoint_gets_nothing_from_one_where_an_older_waits() {
    let mut world = World::new(Limits { max_total: 1, ..limits() });
    let held = world.open(A, 1).remove(0);
    let older = world.wait(A);
    world.pass(2);
    world.wait(B);
    world.give_back(held);
    let held = world.granted(older);
    assert!(world.closed.is_empty());
    world.give_back(held);
    assert_eq!(world.counts(B).connecting, 1);
}

#[test]
fn a_waiter_past_its_deadline_holds_nothing_back_from_the_starved() {
    let mut world = World::new(Limits { max_total: 1, max_per_endpoint: 1, ..limits() });
    let held = world.open(A, 1).remove(0);
    world.wait_within(A, millis(5));
    world.pass(1);
    let starved = world.wait(B);
    world.pass(10);
    // The waiter at A has not left yet, but it is served no more.
    world.give_back(held);
    assert_eq!((world.counts(A).connecting, world.counts(B).connecting), (0, 1));
    world.connect_ok(B);
    world.granted(starved);
}

#[test]
fn what_a_waiter_leaves_idle_is_for_the_starved() {
    let mut world = World::new(Limits { max_total: 2, ..limits() });
    let mut held = world.open(A, 2);
    let waiter = world.wait(A);
    let starved = world.wait(B);
    world.give_back(held.remove(0));
    world.give_back(held.remove(0));
    assert!(matches!(world.look(waiter), Look::Granted(_)));
    assert_eq!(world.counts(B).connecting, 1, "nobody at A wants the other one");
    world.connect_ok(B);
    world.granted(starved);
}

#[test]
fn no_connection_is_closed_for_an_endpoint_whose_waiters_have_what_they_need() {
    let mut world = World::new(Limits { max_total: 2, ..limits() });
    let mine = world.open(B, 1).remove(0);
    let held = world.open(A, 1).remove(0);
    let waiter = world.wait(B);
    // B is starved; then its own connection comes back and its waiter is told.
    world.give_back(mine);
    assert_eq!((world.hints.as_slice(), world.counts(B).idle), ([waiter].as_slice(), 1));
    world.give_back(held);
    assert_eq!(world.closed, [], "the waiter at B is as good as served");
    assert!(matches!(world.look(waiter), Look::Granted(_)));
}

#[test]
fn an_endpoint_that_pauses_after_a_failure_is_not_given_room_it_cannot_use() {
    let mut world = World::new(Limits { max_total: 2, ..limits() });
    let mine = world.open(B, 1).remove(0);
    world.wait(B);
    world.connect_fails(B);
    let held = world.open(A, 1).remove(0);
    world.wait(B);
    assert!(world.connects.is_empty());
    world.give_back(held);
    assert_eq!(world.closed, [], "B may not begin an attempt for 50 ms");
    world.give_back(mine);
}

#[test]
fn an_endpoint_that_is_forgotten_starves_no_more() {
    // It is being warmed, and all that may be connecting are.
    let limits = Limits { max_connecting_total: 1, ..limits() };
    let mut world = World::with_endpoints(limits, 2);
    let now = world.now;
    world.wait(A);
    world.warm(B, 1, Mail(900));
    world.cool(B, Mail(900));
    assert!(world.forget(B));
    world.connect_ok(A);
    assert_eq!(world.core.add_endpoint(now.wall), B);
    world.wait(B);
}

#[test]
fn room_goes_to_the_starved_also_where_every_return_has_to_be_settled() {
    let mut world = World::new(Limits { max_total: 1, ..limits() });
    let held = world.open(A, 1).remove(0);
    let theirs = world.wait(B);
    world.pass(1);
    let mine = world.wait(A);
    world.settle(held);
    assert_eq!(world.closed_for(CloseReason::MadeRoom), 1, "it is not even settled first");
    world.connect_ok(B);
    let held = world.granted(theirs);
    world.give_back(held);
    world.connect_ok(A);
    world.granted(mine);
}

#[test]
fn a_waiter_that_gives_up_does_not_cost_its_endpoint_its_place_among_the_starved() {
    let mut world = World::new(Limits { max_total: 1, ..limits() });
    let held = world.open(A, 1).remove(0);
    let hasty = world.wait_within(B, millis(2));
    world.pass(1);
    let patient = world.wait(B);
    world.pass(1);
    world.wait(C);
    world.pass(1);
    assert!(matches!(world.look(hasty), Look::Expired(..)));
    world.give_back(held);
    assert_eq!(world.counts(B).connecting, 1, "B came before C, and has not been served");
    world.connect_ok(B);
    world.granted(patient);
}

#[test]
fn one_that_is_warmed_gets_what_comes_free_if_nobody_needs_it_more() {
    let mut world = World::new(Limits { max_total: 1, ..limits() });
    let held = world.open(A, 1).remove(0);
    world.warm(C, 1, Mail(900));
    let theirs = world.wait(B);
    world.pass(1);
    let mine = world.wait(A);
    assert_eq!(world.counts(C).connecting, 0);
    world.give_back(held);
    world.connect_ok(B);
    let held = world.granted(theirs);
    world.discard(held);
    world.connect_ok(A);
    let held = world.granted(mine);
    assert_eq!(world.counts(C).connecting, 0, "who waits comes first, here and elsewhere");
    world.discard(held);
    assert_eq!(world.counts(C).connecting, 1);
}

#[test]
fn warming_that_got_no_room_leaves_no_trace() {
    let mut world = World::new(Limits { max_total: 1, ..limits() });
    let held = world.open(A, 1).remove(0);
    world.warm(B, 1, Mail(900));
    world.cool(B, Mail(900));
    assert!(world.parks(held), "returns elsewhere are as fast as before");
}

#[test]
fn who_was_served_goes_behind_the_others_with_those_who_wait_at_the_same_place() {
    let mut world = World::new(Limits { max_total: 2, ..limits() });
    let (mine, theirs) = (world.open(A, 1).remove(0), world.open(C, 1).remove(0));
    let first = world.wait(A);
    world.wait(A);
    world.wait(B);
    world.give_back(mine);
    assert!(matches!(world.look(first), Look::Granted(_)));
    world.discard(theirs);
    assert_eq!((world.counts(A).connecting, world.counts(B).connecting), (0, 1));
}

#[test]
fn who_waits_elsewhere_comes_before_what_is_to_be_kept_ready_where_nobody_needs_it() {
    let mut world = World::new(Limits { max_total: 3, ..limits() });
    let mut held = world.open(A, 2);
    world.set_caps(A, Caps { min_idle: 1, ..world.limits.caps() });
    world.wait(A); // what is on its way will do for this one
    world.pass(1);
    world.wait(B);
    world.discard(held.remove(0));
    assert_eq!((world.counts(A).connecting, world.counts(B).connecting), (1, 1));
}

#[test]
fn who_has_had_as_much_room_as_it_can_use_starves_no_more() {
    let mut world = World::new(Limits { max_total: 2, max_connecting: 1, ..limits() });
    let mut held = world.open(A, 2);
    (0..2).for_each(|_| _ = world.wait(B));
    world.discard(held.remove(0));
    assert_eq!(world.counts(B).connecting, 1, "the other may not begin before this one ends");
    assert!(world.parks(held.remove(0)), "returns elsewhere are as fast as before");
}

#[test]
fn what_is_only_to_be_kept_ready_does_not_starve() {
    let mut world = World::new(Limits { max_total: 1, ..limits() });
    let held = world.open(A, 1).remove(0);
    world.set_caps(B, Caps { min_idle: 1, ..world.limits.caps() });
    world.reap();
    assert!(world.parks(held), "returns elsewhere are as fast as before");
}

#[test]
fn room_goes_to_one_who_queued_for_some_to_be_ready_before_one_who_wants_the_same_only_now() {
    let mut world = World::new(Limits { max_total: 2, ..limits() });
    let mut held = world.open(A, 2);
    world.warm(A, 2, Mail(900));
    world.warm(B, 1, Mail(901));
    assert!(world.connects.is_empty());
    world.discard(held.remove(0));
    assert_eq!((world.counts(A).connecting, world.counts(B).connecting), (0, 1));
}

#[test]
fn returns_are_quick_again_as_soon_as_each_who_starved_has_its_attempt() {
    let mut world = World::new(Limits { max_total: 2, ..limits() });
    let mut held = world.open(A, 2);
    world.wait(B);
    world.discard(held.remove(0));
    assert_eq!(world.counts(B).connecting, 1);
    assert!(world.parks(held.remove(0)));
}
