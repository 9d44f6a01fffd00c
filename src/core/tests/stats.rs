//! The snapshot that users see.

use super::world::{A, B, Got, Held, World, limits, millis};
use crate::config::{Caps, Limits};
use crate::core::Stats;
use crate::core::stats::{Counters, Uses};
use crate::error::Counts;
use crate::observe::CloseReason;

#[test]
fn what_happened_at_an_endpoint_stays_in_the_sum_when_it_is_forgotten() {
    let mut world = World::new(limits());
    let [one, other] = [A, B].map(|at| world.open(at, 1).remove(0));
    world.give_back(one);
    world.discard(other);
    world.evict(A);
    assert!(world.forget(A) && world.forget(B));
    let stats = world.stats();
    assert_eq!((stats.checkouts(), stats.opened(), stats.closed()), (2, 2, 2));
    assert_eq!(stats.closed_for(CloseReason::Discarded), 1);
    assert_eq!((stats.waits(), stats.most_in_use()), (2, 1));
}

#[test]
fn what_was_used_and_waited_for_is_summed_up() {
    let mut world = World::with_endpoints(Limits { max_per_endpoint: 1, ..limits() }, 1);
    let first = world.wait(A);
    world.pass(30);
    world.connect_ok(A);
    let held = world.granted(first);
    assert_eq!(world.stats().connect_time(), millis(30));
    let second = world.wait(A);
    world.pass(200);
    world.give_back(held);
    let held = world.granted(second);
    world.pass(50);
    assert_eq!(world.stats().use_time(), millis(200), "what is still in use is not in it");
    world.give_back(held);
    let stats = world.core.stats(A);
    assert_eq!((stats.use_time(), stats.wait_time(), stats.waits()), (millis(250), millis(230), 2));
    assert_eq!((stats.checkouts(), stats.reused(), stats.most_in_use()), (2, 1, 1));
}

#[test]
fn a_request_that_was_not_received_was_no_use_of_a_fresh_connection() {
    let mut world = World::with_endpoints(limits(), 1);
    let request = world.request(A);
    world.connect_ok(A);
    let Got::Waits(mail) = request else { panic!("nothing was idle") };
    let Held { lease, conn, .. } = world.granted(mail);
    let now = world.now;
    let mut conn = Some(conn);
    world.run(&mut |core, fx| {
        core.take_back(lease.token, conn.take().expect("once"), now, fx);
    });
    assert_eq!((world.stats().checkouts(), world.stats().reused()), (0, 0));
    world.take(A);
    assert_eq!((world.stats().checkouts(), world.stats().reused()), (1, 0));
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
            uses: Uses { checkouts: 9, ..Uses::default() },
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
