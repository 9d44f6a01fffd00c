//! Other limits for the whole pool while it is in use.

use super::world::{A, B, C, Got, Held, Mail, World, limits, millis};
use crate::clock::Stamp;
use crate::config::{EndpointLimits, Limits};
use crate::core::Refusal;
use crate::observe::CloseReason;

impl World {
    fn change(&mut self, set: impl FnOnce(&mut Limits)) {
        let mut limits = self.limits.clone();
        set(&mut limits);
        self.reconfigure(&limits).expect("no endpoint's own limits conflict");
    }

    fn total(&self) -> usize {
        self.stats().total()
    }

    /// When the connections that are there are to retire.
    fn ends(&self) -> Vec<Stamp> {
        self.core.entries.iter().filter_map(|entry| entry.retires_at.at()).collect()
    }
}

/// `A` and `B` with four each, of which so many are in use.
fn eight(in_use: usize) -> (World, Vec<Held>) {
    let mut world = World::new(limits());
    let mut held = world.open(A, 4);
    held.extend(world.open(B, 4));
    for back in held.split_off(in_use) {
        world.pass(1);
        world.give_back(back);
    }
    (world, held)
}

#[test]
fn when_max_total_rises_those_who_wait_are_served_at_every_endpoint() {
    let mut world = World::new(Limits { max_total: 1, ..limits() });
    let _held = world.open(A, 1);
    let waiters = [A, B, C].map(|endpoint| world.wait(endpoint));
    assert!(world.connects.is_empty());
    world.change(|limits| limits.max_total = 3);
    assert_eq!(world.connects.len(), 2);
    world.change(|limits| limits.max_total = 4);
    assert_eq!(world.connects.len(), 3);
    [A, B, C].into_iter().for_each(|endpoint| _ = world.connect_ok(endpoint));
    waiters.into_iter().for_each(|waiter| drop(world.granted(waiter)));
}

#[test]
fn when_max_per_endpoint_rises_those_who_wait_there_are_served() {
    let mut world =
        World::new(Limits { max_per_endpoint: 1, max_idle_per_endpoint: 1, ..limits() });
    [A, A, B, B].into_iter().for_each(|endpoint| _ = world.wait(endpoint));
    assert_eq!(world.connects.len(), 2);
    world.change(|limits| limits.max_per_endpoint = 2);
    assert_eq!(world.connects.len(), 4);
}

#[test]
fn when_max_total_falls_idle_ones_end_at_once_those_first_that_were_used_longest_ago() {
    let (mut world, _) = eight(0);
    let order: Vec<u32> = {
        let idle = world.core.budget.idle.iter(&world.core.entries);
        idle.filter_map(|at| Some(world.core.entries.at(at).conn.as_ref()?.id)).collect()
    };
    world.change(|limits| limits.max_total = 3);
    let closed: Vec<u32> = world.closed.iter().map(|(id, _)| *id).collect();
    assert_eq!((closed.as_slice(), world.total()), (&order[..5], 3));
    assert_eq!(world.closed_for(CloseReason::Surplus), 5);
}

#[test]
fn what_is_in_use_beyond_max_total_ends_when_it_comes_back_wherever_that_is() {
    let (mut world, mut held) = eight(6);
    world.change(|limits| limits.max_total = 3);
    assert_eq!((world.closed_for(CloseReason::Surplus), world.total()), (2, 6), "the idle ones");
    for left in [5, 4, 3] {
        world.give_back(held.remove(0));
        assert_eq!(world.total(), left);
    }
    held.into_iter().for_each(|held| world.give_back(held));
    assert_eq!((world.total(), world.closed_for(CloseReason::Surplus)), (3, 5));
}

#[test]
fn once_nothing_is_beyond_it_returns_are_as_fast_as_before() {
    let (mut world, mut held) = eight(8);
    world.change(|limits| limits.max_total = 7);
    assert!(!world.parks(held.remove(0)));
    let [mine, theirs] = [held.remove(0), held.pop().expect("one of the others")];
    world.give_back(mine);
    world.give_back(theirs);
    assert!(held.into_iter().all(|held| world.parks(held)));
    assert_eq!(world.total(), 7);
}

#[test]
fn no_more_end_than_must_however_the_others_end() {
    let (mut world, mut held) = eight(8);
    world.change(|limits| limits.max_total = 5);
    world.discard(held.remove(0));
    world.detach(held.remove(0)).keep();
    world.hang_up(held[0].lease.token);
    world.give_back(held.remove(0));
    held.into_iter().for_each(|held| world.give_back(held));
    assert_eq!((world.total(), world.closed_for(CloseReason::Surplus)), (5, 0));
}

#[test]
fn raised_again_before_they_come_back_nothing_ends() {
    let (mut world, held) = eight(8);
    world.change(|limits| limits.max_total = 2);
    world.change(|limits| limits.max_total = 8);
    held.into_iter().for_each(|held| world.give_back(held));
    assert_eq!((world.total(), world.closed.len()), (8, 0));
}

#[test]
fn beyond_max_total_nothing_is_settled_first_and_what_is_checked_ends_after_it() {
    let mut world = World::new(Limits { check_after: Some(millis(500)), ..limits() });
    world.idle(B, 1);
    let mut held = world.open(A, 2);
    world.pass(500);
    let waiter = world.wait(B);
    world.change(|limits| limits.max_total = 1);
    world.settle(held.remove(0));
    assert_eq!((world.closed_for(CloseReason::Surplus), world.upkeeps.len()), (1, 1));
    world.upkeep_ends(Ok(()));
    assert_eq!((world.closed_for(CloseReason::Surplus), world.total()), (2, 1));
    world.give_back(held.remove(0));
    world.connect_ok(B);
    world.granted(waiter);
}

#[test]
fn what_is_being_opened_beyond_max_total_ends_when_it_is_open_and_whoever_waits_is_served_in_turn()
{
    let mut world = World::new(limits());
    let waiters: Vec<Mail> = [A, A, B, B].map(|endpoint| world.wait(endpoint)).into();
    world.change(|limits| limits.max_total = 2);
    [A, A, B, B].into_iter().for_each(|endpoint| _ = world.connect_ok(endpoint));
    assert_eq!((world.closed_for(CloseReason::Surplus), world.total()), (2, 2));
    let held: Vec<Held> = world
        .replies
        .keys()
        .copied()
        .collect::<Vec<_>>()
        .into_iter()
        .map(|mail| world.granted(mail))
        .collect();
    assert_eq!((held.len(), waiters.len() - held.len()), (2, 2), "two wait on");
    world.let_all_end(held);
    assert!(world.total() <= 2);
}

#[test]
fn fewer_may_be_idle_at_once_in_all_and_at_each_endpoint() {
    let (mut world, _) = eight(0);
    world.change(|limits| limits.max_idle_per_endpoint = 3);
    assert_eq!([A, B].map(|at| world.counts(at).idle), [3, 3]);
    world.change(|limits| limits.max_idle = 4);
    assert_eq!((world.total(), world.closed_for(CloseReason::Surplus)), (4, 4));
    world.change(|limits| (limits.max_idle, limits.max_idle_per_endpoint) = (0, 0));
    assert_eq!(world.total(), 0);
    let held = world.open(A, 1).remove(0);
    world.give_back(held);
    assert_eq!(world.total(), 0);
}

#[test]
fn those_who_wait_stay_though_fewer_may_from_now_on() {
    let mut world = World::new(Limits { max_per_endpoint: 1, ..limits() });
    let waiters = [(); 3].map(|()| world.wait(A));
    world.change(|limits| limits.max_waiting = 1);
    assert!(matches!(world.refused(A), Refusal::Saturated(counts) if counts.waiting == 3));
    world.connect_ok(A);
    for waiter in waiters {
        let held = world.granted(waiter);
        world.pass(2);
        world.give_back(held);
    }
}

#[test]
fn what_is_idle_for_too_long_by_the_new_time_out_ends_when_the_reaper_looks_which_is_at_once() {
    let (mut world, _) = eight(0);
    world.pass(2_000);
    let wakes = world.wakes;
    world.change(|limits| limits.idle_timeout = Some(millis(1_000)));
    assert_eq!(world.wakes, wakes + 1);
    world.reap();
    assert_eq!((world.closed_for(CloseReason::IdleTimeout), world.total()), (8, 0));
}

#[test]
fn connections_that_are_there_get_an_end_by_the_new_lifetime_spread_as_those_of_new_ones_are() {
    let (mut world, held) = eight(2);
    world.pass(1_000);
    let now = world.now.mono;
    world.change(|limits| limits.max_lifetime = Some(millis(64_000)));
    let mut ends = world.ends();
    ends.sort_unstable();
    assert_eq!(ends.len(), 8);
    let latest = now.plus(millis(63_000));
    assert!(ends.iter().all(|end| *end > now.plus(millis(46_000)) && *end <= latest), "{ends:?}");
    let least = ends.windows(2).map(|pair| pair[1].since(pair[0])).min();
    assert!(least > Some(millis(500)), "one after the other: {ends:?}");
    world.pass(64_000);
    world.reap();
    assert_eq!((world.closed_for(CloseReason::MaxLifetime), world.counts(A).in_use), (6, 2));
    held.into_iter().for_each(|held| world.give_back(held));
    assert_eq!(world.closed_for(CloseReason::MaxLifetime), 8);
}

#[test]
fn what_is_older_than_the_new_lifetime_allows_ends_at_once_or_when_it_comes_back() {
    let (mut world, held) = eight(1);
    world.pass(20_000);
    world.change(|limits| limits.max_lifetime = Some(millis(10_000)));
    world.reap();
    assert_eq!((world.closed_for(CloseReason::MaxLifetime), world.total()), (7, 1));
    held.into_iter().for_each(|held| world.give_back(held));
    assert_eq!(world.closed_for(CloseReason::MaxLifetime), 8);
}

#[test]
fn without_a_lifetime_none_ends_of_old_age_not_even_one_that_waits_for_its_successor() {
    let mut world = World::new(Limits { max_lifetime: Some(millis(16_000)), ..limits() });
    let held = world.open(A, 1).remove(0);
    world.pass(15_700);
    world.give_back(held);
    world.reap();
    assert_eq!((world.core.endpoints.at(A).succeeding, world.connects.len()), (1, 1));
    world.change(|limits| limits.max_lifetime = None);
    world.connect_ok(A);
    world.pass(100_000);
    world.reap();
    assert_eq!((world.counts(A).idle, world.closed.len()), (2, 0));
}

#[test]
fn what_is_not_changed_goes_on_as_it_was() {
    let mut world = World::new(Limits { max_lifetime: Some(millis(64_000)), ..limits() });
    world.idle(A, 4);
    let ends = world.ends();
    world.change(|limits| limits.max_total = 20);
    world.change(|limits| limits.check_interval = Some(millis(1_000)));
    assert_eq!(world.ends(), ends);
}

#[test]
fn proof_begins_and_ends_with_its_interval_and_lifetimes_go_on() {
    let checked = Limits { check_after: Some(millis(500)), ..limits() };
    let mut world = World::new(Limits { max_lifetime: Some(millis(64_000)), ..checked });
    world.idle(A, 2);
    world.change(|limits| limits.check_interval = Some(millis(1_000)));
    world.pass(1_100);
    world.reap();
    assert_eq!(world.upkeeps.len(), 2);
    world.upkeep_ends(Ok(()));
    world.change(|limits| limits.check_interval = None);
    world.upkeep_ends(Ok(()));
    world.pass(10_000);
    world.reap();
    assert!(world.upkeeps.is_empty());
    world.pass(54_000);
    world.reap();
    assert_eq!(world.closed_for(CloseReason::MaxLifetime), 2);
}

#[test]
fn an_attempt_keeps_the_deadline_that_it_began_with() {
    for connect_timeout in [millis(10), millis(60_000)] {
        let mut world = World::with_endpoints(limits(), 1);
        world.core.leave_deadlines_to_loop(A);
        let _waiter = world.wait_within(A, millis(100_000));
        world.change(|limits| limits.connect_timeout = connect_timeout);
        let connect = world.connects.remove(0);
        let connect = world.goes_on(connect).expect("there is time");
        let connect = world.goes_on(connect).expect("there is time");
        world.pass(2_900);
        world.reap();
        assert!(world.knows(connect.token), "{connect_timeout:?}");
        world.pass(100);
        world.reap();
        assert!(!world.knows(connect.token), "{connect_timeout:?}");
    }
}

#[test]
fn what_is_to_be_kept_ready_from_now_on_is_opened_where_somebody_has_a_handle() {
    let mut world = World::new(Limits { idle_timeout: Some(millis(60_000)), ..limits() });
    world.pass(60_000);
    world.change(|limits| limits.min_idle = 2);
    assert!(world.connects.is_empty(), "the reaper knows who has one");
    world.reap_with(&|endpoint| endpoint == B);
    assert_eq!([A, B, C].map(|at| world.counts(at).connecting), [0, 2, 0]);
    (0..2).for_each(|_| _ = world.connect_ok(B));
    world.change(|limits| limits.min_idle = 0);
    world.evict(B);
    world.reap_with(&|_| true);
    assert!(world.connects.is_empty() && !world.core.keeps_some());
}

#[test]
fn limits_of_an_endpoint_stay_and_what_they_do_not_say_follows() {
    let mut world = World::new(limits());
    world.set_limits(A, EndpointLimits::new().max_per_endpoint(2));
    world.change(|limits| {
        (limits.max_per_endpoint, limits.max_idle_per_endpoint) = (5, 5);
        (limits.max_connecting, limits.max_waiting) = (3, 7);
    });
    let caps = |world: &World, at| world.core.endpoints.at(at).caps;
    assert_eq!(caps(&world, B), world.limits.caps());
    let own = caps(&world, A);
    assert_eq!((own.max_per_endpoint, own.max_idle_per_endpoint), (2, 2));
    assert_eq!((own.max_connecting, own.max_waiting), (3, 7));
    world.set_limits(A, EndpointLimits::new());
    assert_eq!(caps(&world, A), world.limits.caps());
}

#[test]
fn limits_that_conflict_with_those_of_an_endpoint_are_refused_and_all_is_as_it_was() {
    let mut world = World::new(limits());
    world.set_limits(B, EndpointLimits::new().max_per_endpoint(6));
    world.idle(A, 2);
    let text = "max_per_endpoint(6) is more than max_total(5)".to_owned();
    let refused = world.reconfigure(&Limits { max_total: 5, max_idle: 1, ..limits() });
    assert_eq!((refused, world.total()), (Err((B, text)), 2));
    assert_eq!((world.core.limits().max_total, world.stats().counts.limit), (8, 8));
}

#[test]
fn a_paused_pool_takes_them_and_serves_by_them_when_it_resumes() {
    let mut world = World::new(Limits { max_per_endpoint: 1, ..limits() });
    world.run(&mut |core, _| core.pause());
    let waiters = [(); 2].map(|()| world.wait(A));
    world.change(|limits| limits.max_per_endpoint = 2);
    assert!(world.connects.is_empty());
    let now = world.now;
    world.run(&mut |core, fx| core.resume(now, fx));
    assert_eq!(world.connects.len(), 2);
    (0..2).for_each(|_| _ = world.connect_ok(A));
    waiters.into_iter().for_each(|waiter| drop(world.granted(waiter)));
}

#[test]
fn whoever_warms_is_not_kept_at_it_for_ever_by_limits_that_fall() {
    let mut world = World::new(limits());
    let caller = Mail(900);
    assert_eq!(world.warm(A, 4, caller), 4);
    world.change(|limits| limits.max_idle = 0);
    for _ in 0..10 {
        let Some(connect) = world.connects.pop() else { break };
        world.ends_well(connect);
    }
    assert!(world.connects.is_empty(), "one is opened only to be closed, for ever");
    world.cool(A, caller);
}

#[test]
fn a_newcomer_may_overtake_no_longer_where_it_is_first_come_first_served() {
    let mut world = World::new(Limits { max_per_endpoint: 1, ..limits() });
    let held = world.open(A, 1).remove(0);
    let waiter = world.wait(A);
    world.change(|limits| limits.fair_after = millis(0));
    world.give_back(held);
    world.granted(waiter);
    assert!(!matches!(world.get(A), Got::Conn(_)));
}

#[test]
fn a_closed_pool_takes_none() {
    let (mut world, held) = eight(2);
    world.close();
    world.change(|limits| (limits.max_total, limits.min_idle) = (1, 1));
    world.reap_with(&|_| true);
    assert!(world.connects.is_empty());
    held.into_iter().for_each(|held| world.give_back(held));
    assert!(world.core.has_ended());
    assert_eq!(world.core.limits().max_total, 8);
}
