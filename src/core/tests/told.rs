//! What others are told of the core's state: its counts, and what to make of an attempt.

use super::cause::failure;
use super::world::{A, B, C, World, limits, millis, room_for};
use crate::config::Limits;
use crate::core::Manner;

#[test]
fn a_return_need_not_be_precise_about_the_time_unless_somebody_waits() {
    let mut world = World::new(limits());
    assert!(!world.core.is_waiting());
    let waiters = [world.wait(A), world.wait(B)];
    assert!(world.core.is_waiting());
    world.connect_ok(A);
    world.granted(waiters[0]);
    assert!(world.core.is_waiting(), "somebody waits elsewhere");
    world.connect_ok(B);
    world.granted(waiters[1]);
    assert!(!world.core.is_waiting());
}

#[test]
fn a_pool_knows_whether_it_is_closed() {
    let mut world = World::new(limits());
    assert!(!world.core.is_closed());
    world.close();
    assert!(world.core.is_closed());
}

#[test]
fn the_pool_counts_what_its_endpoints_count_together() {
    let mut world = World::new(room_for(40));
    // At `A` seventeen hang for good: sixteen are abandoned, one keeps its permit.
    (0..17).for_each(|_| _ = world.wait(A));
    for connect in std::mem::take(&mut world.connects) {
        assert!(world.start(connect.token, false));
    }
    world.pass(3_000);
    world.reap();
    world.replies.clear();
    let mut held = world.open(B, 3);
    world.settle(held.remove(0));
    world.idle(C, 1);
    (0..3).for_each(|_| _ = world.wait(B)); // one of them for what is being settled
    let pool = world.stats().counts;
    assert_eq!((pool.idle, pool.in_use, pool.connecting, pool.checking), (1, 2, 2, 1));
    assert_eq!((pool.waiting, pool.abandoned, pool.stuck), (3, 16, 1));
    assert_eq!((pool.limit, pool.pool), (40, (6, 40)));
    let endpoint = world.core.stats(B);
    assert_eq!((endpoint.checkouts(), endpoint.opened(), endpoint.waiting()), (3, 3, 3));
}

#[test]
fn what_comes_of_an_attempt_says_something_of_the_peer_unless_the_pool_was_closed() {
    for is_closed in [false, true] {
        for is_well in [false, true] {
            let mut world = World::new(limits());
            world.ask_for(A, millis(5_000), Manner::Patient);
            let connect = world.connect_of(A);
            assert!(world.start(connect.token, false));
            if is_closed {
                world.close();
            }
            let mut result = Some(if is_well { Ok(world.new_conn()) } else { Err(failure(1)) });
            let now = world.now;
            let says_something = world.run(&mut |core, fx| {
                let result = result.take().expect("the transition runs once");
                core.finish_connect(A, connect.token, result, now, fx)
            });
            assert_eq!(says_something, !is_closed, "it ended well: {is_well}");
        }
    }
}

#[test]
fn an_attempt_whose_pool_was_closed_need_not_wait_for_its_name() {
    let mut world = World::new(limits());
    world.wait(A);
    let connect = world.connect_of(A);
    assert!(world.awaits_name(connect.token));
    world.close();
    assert!(!world.awaits_name(connect.token));
}

#[test]
fn who_needs_the_reaper_at_a_moment_it_looks_at_anyway_does_not_wake_it() {
    let mut world = World::new(limits());
    world.wait(A);
    assert_eq!(world.wakes, 1, "for the deadline of the first attempt");
    world.wait(B);
    assert_eq!((world.connects.len(), world.wakes), (2, 1));
}

#[test]
#[cfg_attr(miri, ignore = "hundreds of connections")]
fn lifetimes_end_all_over_their_last_quarter() {
    let lifetime = millis(60_000);
    let mut world = World::new(Limits { max_lifetime: Some(lifetime), ..room_for(400) });
    world.is_checked = false; // four hundred times over
    world.idle(A, 400);
    let last = world.now.mono.plus(lifetime);
    let mut ends = [0; 5];
    for entry in world.core.entries.iter() {
        let early = last.since(entry.retires_at.at().expect("there is a limit"));
        ends[usize::try_from(early.as_millis() / 3_000).unwrap()] += 1;
    }
    let [last, ends @ ..] = ends;
    assert!(last > 50 && ends.iter().all(|&count| count > 75), "{last}, and evenly {ends:?}");
}
