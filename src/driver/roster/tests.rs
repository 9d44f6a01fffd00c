//! Who gets a thread, and that nobody is forgotten.

use super::*;
use crate::driver::crew::Fate;

const LONE: usize = 32; // of those that open, for a pool that is alone

fn job(kind: Kind, pool: u64) -> Job {
    Job { kind, pool, mark: Arc::default(), run: Box::new(|_: Fate| {}) }
}

fn take(roster: &mut Roster) -> Vec<Lane> {
    std::iter::from_fn(|| roster.take()).map(|job| (job.kind, job.pool)).collect()
}

fn count(lanes: &[Lane], lane: Lane) -> usize {
    lanes.iter().filter(|theirs| **theirs == lane).count()
}

#[test]
fn endpoints_that_hang_leave_threads_to_others_of_their_pool_and_pools_to_other_pools() {
    let mut roster = Roster::default();
    for pool in [1, 2] {
        for endpoint in 0..6 {
            (0..20).for_each(|_| roster.add(job(Kind::Open(endpoint), pool)));
        }
    }
    roster.add(job(Kind::Open(7), 3));
    let running = take(&mut roster);
    let of = |pool| (0..6).map(|at| count(&running, (Kind::Open(at), pool))).collect::<Vec<_>>();
    assert_eq!(of(1), [16, 8, 4, 2, 1, 1]);
    assert_eq!(of(1).iter().sum::<usize>(), LONE);
    assert_eq!(of(2).iter().sum::<usize>(), LONE / 2, "as many as it leaves");
    assert_eq!(count(&running, (Kind::Open(7), 3)), 1, "a third pool finds one");
}

#[test]
fn no_kind_of_job_takes_what_another_needs() {
    let mut roster = Roster::default();
    let kinds = [Kind::Open(1), Kind::Upkeep, Kind::Close, Kind::LetGo];
    for kind in kinds {
        (0..200).for_each(|_| roster.add(job(kind, 1)));
    }
    (0..200).for_each(|_| roster.add(job(Kind::LookUp, 0)));
    let running = take(&mut roster);
    assert_eq!(kinds.map(|kind| count(&running, (kind, 1))), [16, 16, 8, 1]);
    assert_eq!(count(&running, (Kind::LookUp, 0)), 4, "they belong to no pool and share nothing");
    kinds.iter().for_each(|&kind| roster.add(job(kind, 2)));
    assert_eq!(take(&mut roster), kinds.map(|kind| (kind, 2)));
}

#[test]
fn each_end_makes_way_for_as_many_as_it_can() {
    let mut roster = Roster::default();
    for (endpoint, jobs) in [(0, 8), (1, 8), (2, 16), (0, 3), (1, 3), (3, 5)] {
        (0..jobs).for_each(|_| roster.add(job(Kind::Open(endpoint), 1)));
    }
    let mut running = take(&mut roster);
    let mut done = 0;
    while let Some((kind, pool)) = running.pop() {
        roster.ended(kind, pool);
        done += 1;
        let is_forgotten = roster.waiting.iter().any(|lane| roster.may_start(*lane));
        assert!(!is_forgotten, "after {done}");
        running.extend(take(&mut roster));
    }
    assert_eq!((done, roster.is_empty()), (43, true));
}

#[test]
fn jobs_of_an_endpoint_start_in_order_and_endpoints_in_turn() {
    let mut roster = Roster::default();
    (0..16).for_each(|_| roster.add(job(Kind::Open(1), 1)));
    take(&mut roster);
    let marks: Vec<_> = (0..3)
        .map(|_| {
            let waits = job(Kind::Open(1), 1);
            let mark = Arc::clone(&waits.mark);
            roster.add(waits);
            mark
        })
        .collect();
    for mark in &marks {
        assert!(roster.take().is_none(), "one place, one job");
        roster.ended(Kind::Open(1), 1);
        assert!(Arc::ptr_eq(&roster.take().unwrap().mark, mark));
    }
}

#[test]
fn what_is_withdrawn_leaves_its_place_to_the_next() {
    let mut roster = Roster::default();
    (0..16).for_each(|_| roster.add(job(Kind::Open(1), 1)));
    assert_eq!(take(&mut roster).len(), 16);
    let (first, second) = (job(Kind::Open(1), 1), job(Kind::Open(1), 1));
    let marks = [&first, &second].map(|job| Arc::clone(&job.mark));
    roster.add(first);
    roster.add(second);
    assert_eq!(roster.jobs_of(1), 18);
    assert!(roster.withdraw(Kind::Open(1), 1, &marks[0]).is_some());
    assert!(roster.withdraw(Kind::Open(1), 1, &marks[0]).is_none(), "it is gone");
    roster.ended(Kind::Open(1), 1);
    assert!(roster.withdraw(Kind::Open(1), 1, &marks[1]).is_some(), "ready, but not taken");
    assert_eq!((roster.ready(), roster.is_empty(), roster.jobs_of(1)), (0, true, 15));
    roster.add(job(Kind::Open(1), 1));
    assert_eq!(roster.ready(), 1, "its place is free again");
}

#[test]
fn all_that_have_no_thread_can_be_taken_out_at_once() {
    let mut roster = Roster::default();
    (0..100).for_each(|at| roster.add(job(Kind::Open(at % 7), u64::from(at % 3))));
    let running = (0..10).filter_map(|_| roster.take()).count();
    assert_eq!(roster.take_all().len(), 100 - running);
    assert!(roster.is_empty() && roster.ready() == 0);
    let left: usize = (0..3).map(|pool| roster.jobs_of(pool)).sum();
    assert_eq!(left, running, "those that have one still count");
}

#[test]
fn ten_thousand_closes_cost_no_more_each_than_ten() {
    let mut roster = Roster::default();
    (0..10_000).for_each(|_| roster.add(job(Kind::Close, 1)));
    let mut done = 0;
    while let Some(job) = roster.take() {
        roster.ended(job.kind, job.pool);
        done += 1;
    }
    assert_eq!((done, roster.jobs_of(1), roster.is_empty()), (10_000, 0, true));
    assert!(roster.running.is_empty() && roster.jobs_of.is_empty(), "nothing is left behind");
}
