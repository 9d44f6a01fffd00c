//! The snapshot that users see.

use super::world::{A, B, World, limits, millis};
use crate::config::Caps;
use crate::core::Stats;
use crate::core::stats::Counters;
use crate::error::Counts;
use crate::observe::CloseReason;

/// Counters that all differ, and are so many times as high as the lowest could be.
fn counted(times: u64) -> Counters {
    Counters {
        checkouts: times,
        opened: 2 * times,
        failed: 3 * times,
        timed_out: 4 * times,
        refused: 5 * times,
        detached: 6 * times,
        called_off: 7 * times,
        closed: std::array::from_fn(|at| (8 + at as u64) * times),
    }
}

#[test]
fn each_count_of_one_endpoint_is_added_to_the_same_of_another() {
    let mut sum = counted(100);
    sum.add(&counted(1));
    assert_eq!(format!("{sum:?}"), format!("{:?}", counted(101)));
}

#[test]
fn what_is_being_opened_counts_for_its_endpoint_and_for_the_pool() {
    let mut world = World::new(limits());
    [A, A, B].into_iter().for_each(|at| _ = world.wait(at));
    assert_eq!((world.core.stats(A).connecting(), world.core.stats(B).connecting()), (2, 1));
    assert_eq!((world.stats().connecting(), world.stats().total()), (3, 3));
}

#[test]
fn the_line_of_a_pool_tells_the_limit_of_all_and_that_of_an_endpoint_both() {
    let mut world = World::new(limits());
    world.set_caps(A, Caps { max_per_endpoint: 5, ..limits().caps() });
    [A, A, B].into_iter().for_each(|at| _ = world.wait(at));
    let state = |stats: Stats| stats.to_string().split("; so far").next().map(str::to_owned);
    let all = "3/8: 0 in use, 0 idle, 3 connecting, 0 checking; 3 waiting";
    assert_eq!(state(world.stats()).as_deref(), Some(all));
    let own = "2/5: 0 in use, 0 idle, 2 connecting, 0 checking; 2 waiting; pool 3/8";
    assert_eq!(state(world.core.stats(A)).as_deref(), Some(own));
}

#[test]
fn a_pool_that_is_paused_says_so_until_it_resumes_and_so_does_each_endpoint() {
    let mut world = World::new(limits());
    let is_paused = |world: &World| [world.stats(), world.core.stats(A)].map(|it| it.is_paused());
    world.run(&mut |core, _| core.pause());
    assert_eq!(is_paused(&world), [true, true]);
    let now = world.now;
    world.run(&mut |core, fx| core.resume(now, fx));
    assert_eq!(is_paused(&world), [false, false]);
}

#[test]
fn one_line_tells_how_it_stands_and_what_happened_so_far() {
    let mut stats = Stats {
        counts: Counts { in_use: 2, idle: 1, limit: 8, pool: (3, 8), ..Counts::default() },
        counters: Counters {
            checkouts: 9,
            opened: 3,
            failed: 5,
            timed_out: 6,
            ..Counters::default()
        },
        events_dropped: 4,
        ..Stats::default()
    };
    assert_eq!(stats.events_dropped(), 4);
    let line = "3/8: 2 in use, 1 idle, 0 connecting, 0 checking; 0 waiting; so far 9 checkouts, \
                3 opened, 0 closed, 5 failed to connect, 6 timed out";
    assert_eq!(stats.to_string(), line, "nothing of what never happened");
    let learned = Stats { idle_limit: Some(millis(1_500)), ..stats.clone() };
    assert!(learned.to_string().contains("idle for 1.5s at the most"), "{learned}");
    stats.counters.opened = 6;
    stats.counters.called_off = 7;
    let reasons = [CloseReason::Evicted, CloseReason::IdleTimeout, CloseReason::Evicted];
    reasons.into_iter().for_each(|reason| stats.counters.note_closed(reason));
    let (evicted, idle) = (CloseReason::Evicted, CloseReason::IdleTimeout);
    let line = line.replace("3 opened, 0 closed", "6 opened, 3 closed");
    let line = format!("{line}, 7 called off; closed: 1 {idle}, 2 {evicted}");
    assert_eq!(stats.to_string(), line);
}
