//! Nothing goes out of a pool that is paused.

use super::world::{A, B, Got, Look, Reply, World, limits, millis};
use crate::config::Limits;

/// A pool that was told to pause.
fn paused(limits: Limits) -> World {
    let mut world = World::new(limits);
    world.run(&mut |core, _| core.pause());
    world
}

fn resume(world: &mut World) {
    let now = world.now;
    world.run(&mut |core, fx| core.resume(now, fx));
}

#[test]
fn who_comes_while_it_is_paused_waits_though_one_is_idle_and_is_served_when_it_resumes() {
    let mut world = World::new(limits());
    world.idle(A, 1);
    world.run(&mut |core, _| core.pause());
    assert!(world.try_get(A).is_none());
    let first = world.wait(A);
    world.pass(1);
    let second = world.wait(A);
    assert!(world.hints.is_empty() && world.connects.is_empty(), "nothing is opened for them");
    resume(&mut world);
    assert_eq!((world.hints.as_slice(), world.connects.len()), ([first].as_slice(), 1));
    assert!(matches!(world.look(first), Look::Granted(_)));
    world.connect_ok(A);
    world.granted(second);
}

#[test]
fn nobody_overtakes_one_who_has_waited_for_its_end_for_long() {
    let mut world = World::new(limits());
    world.idle(A, 1);
    world.run(&mut |core, _| core.pause());
    let waiter = world.wait(A);
    world.pass(10);
    resume(&mut world);
    assert!(world.try_get(A).is_none());
    world.granted(waiter);
}

#[test]
fn who_waits_when_it_is_paused_gets_nothing_that_comes_and_leaves_at_its_deadline() {
    let mut world = World::new(limits());
    let held = world.open(A, 1).remove(0);
    let waiter = world.wait_within(A, millis(50));
    world.run(&mut |core, _| core.pause());
    world.connect_ok(A);
    world.pass(10);
    world.give_back(held);
    assert!(world.replies.is_empty() && world.hints.is_empty());
    assert_eq!(world.counts(A).idle, 2);
    assert!(matches!(world.look(waiter), Look::Waits));
    world.pass(40);
    let Look::Expired(situation, _) = world.look(waiter) else { panic!("its deadline has passed") };
    let counts = situation.counts;
    assert!(counts.is_paused);
}

#[test]
fn a_failure_is_nobodys_while_it_is_paused() {
    let mut world = World::new(limits());
    let waiter = world.wait(A);
    world.run(&mut |core, _| core.pause());
    world.connect_fails(A);
    assert!(world.replies.is_empty());
    let late = world.wait(A);
    resume(&mut world);
    world.pass_pause(A);
    world.reap();
    world.connect_ok(A);
    world.granted(waiter);
    world.connect_ok(A);
    world.granted(late);
}

#[test]
fn a_request_waits_as_well() {
    let mut world = World::new(limits());
    world.idle(A, 1);
    world.run(&mut |core, _| core.pause());
    let Got::Waits(mail) = world.request(A) else { panic!("it is paused") };
    assert!(world.replies.is_empty());
    resume(&mut world);
    assert!(matches!(world.replies.remove(&mail), Some(Reply::Granted(_))));
}

#[test]
fn what_is_to_be_kept_ready_is_opened_though_it_is_paused() {
    let mut world = paused(Limits { min_idle: 2, ..limits() });
    let now = world.now;
    world.run(&mut |core, fx| core.keep(A, now, fx));
    (0..2).for_each(|_| _ = world.connect_ok(A));
    assert_eq!((world.counts(A).idle, world.connects.len()), (2, 0));
}

#[test]
fn room_that_comes_free_while_it_is_paused_goes_to_who_waited_longest_when_it_resumes() {
    let mut world = World::new(Limits { max_total: 1, ..limits() });
    let held = world.open(A, 1).remove(0);
    let theirs = world.wait(B);
    world.pass(1);
    world.wait(A);
    world.run(&mut |core, _| core.pause());
    world.discard(held);
    assert!(world.connects.is_empty());
    resume(&mut world);
    assert_eq!(world.connects.len(), 1);
    world.connect_ok(B);
    world.granted(theirs);
}

#[test]
fn an_endpoint_that_is_new_while_it_is_paused_waits_as_well() {
    let mut world = paused(limits());
    let endpoint = world.core.add_endpoint(world.now.wall);
    world.warm(endpoint, 1, super::world::Mail(900));
    world.connect_ok(endpoint);
    assert_eq!(world.counts(endpoint).idle, 1);
    assert!(world.try_get(endpoint).is_none());
    let waiter = world.wait(endpoint);
    resume(&mut world);
    assert!(matches!(world.look(waiter), Look::Granted(_)));
}

#[test]
fn pauses_do_not_add_up_and_resuming_twice_does_nothing() {
    let mut world = paused(limits());
    world.run(&mut |core, _| core.pause());
    let waiter = world.wait(A);
    (0..2).for_each(|_| resume(&mut world));
    assert!(!world.core.is_paused);
    world.connect_ok(A);
    world.granted(waiter);
}

#[test]
fn a_pool_that_is_closed_while_it_is_paused_tells_all_who_wait() {
    let mut world = paused(limits());
    let waiter = world.wait(A);
    world.close();
    assert!(matches!(world.replies.remove(&waiter), Some(Reply::Closed)));
    resume(&mut world);
}

#[test]
fn at_its_end_whoever_has_waited_as_long_as_fairness_allows_is_handed_one_and_others_may_look() {
    for (waited, is_handed) in [(1, false), (2, true)] {
        let mut world = World::new(limits());
        world.idle(A, 1);
        world.run(&mut |core, _| core.pause());
        let waiter = world.wait(A);
        world.pass(waited);
        resume(&mut world);
        assert_eq!(world.replies.contains_key(&waiter), is_handed, "after {waited} ms");
        assert_eq!(world.hints.is_empty(), is_handed, "after {waited} ms");
    }
}
