use std::sync::atomic::AtomicUsize;

use super::*;
use crate::core::{Cut, Notice};
use crate::sync::{Receiver, Sender, bounded};

const SOON: Duration = Duration::from_secs(20);

/// A pool that says when it was looked after, and when it wants to be next.
struct Pool {
    looks: Sender<u32>,
    name: u32,
    next: fn() -> Stamp,
    panics: AtomicUsize,
}

impl Ward for Pool {
    fn noticed(self: Arc<Self>, _: Cut, _: Notice, _: &Crew) {}
    fn look(self: Arc<Self>, _: &Crew) -> Stamp {
        self.looks.send(self.name).unwrap();
        if self.panics.load(Ordering::SeqCst) > 0 {
            self.panics.fetch_sub(1, Ordering::SeqCst);
            std::panic::panic_any("as the test says");
        }
        (self.next)()
    }
}

/// Makes pools, and hears who was looked after.
struct Pools {
    sender: Sender<u32>,
    looks: Receiver<u32>,
}

impl Pools {
    fn new() -> Self {
        let (sender, looks) = bounded(10_000);
        Self { sender, looks }
    }

    fn make(&self, name: u32, next: fn() -> Stamp) -> Arc<Pool> {
        Arc::new(Pool { looks: self.sender.clone(), name, next, panics: AtomicUsize::new(0) })
    }

    fn next_look(&self) -> u32 {
        self.looks.recv_timeout(SOON).unwrap()
    }
}

const fn never() -> Stamp {
    Stamp::MAX
}

fn in_an_hour() -> Stamp {
    clock::mono().plus(Duration::from_secs(3_600))
}

fn in_a_moment() -> Stamp {
    clock::mono().plus(Duration::from_millis(1))
}

fn weak(pool: &Arc<Pool>) -> Weak<dyn Ward> {
    let weak: Weak<Pool> = Arc::downgrade(pool);
    weak
}

fn start() -> (Arc<Reaper>, Worker) {
    Reaper::start("test", Crew::new("test".to_owned())).unwrap()
}

/// One whose rounds are made by hand.
fn without_thread() -> (Arc<Reaper>, Crew, AtomicBool) {
    let unparker = Parker::new().unparker().clone();
    let reaper = Arc::new(Reaper { rounds: Mutex::default(), unparker });
    (reaper, Crew::new("test".to_owned()), AtomicBool::new(false))
}

#[test]
fn it_looks_after_the_pool_that_rang_and_not_after_others() {
    let (reaper, _worker) = start();
    let pools = Pools::new();
    let (one, other) = (pools.make(1, in_an_hour), pools.make(2, in_an_hour));
    let first = reaper.admit(weak(&one));
    assert_eq!(pools.next_look(), 1, "one that is new is looked after at once");
    let second = reaper.admit(weak(&other));
    assert_eq!(pools.next_look(), 2);
    for _ in 0..5 {
        first.ring();
        assert_eq!(pools.next_look(), 1);
    }
    second.ring();
    assert_eq!(pools.next_look(), 2);
    assert!(pools.looks.is_empty());
}

#[test]
fn it_looks_again_when_a_pool_said_it_must_without_a_bell() {
    let (reaper, _worker) = start();
    let pools = Pools::new();
    let (sleeps, wakes) = (pools.make(1, never), pools.make(2, in_a_moment));
    let _bell = reaper.admit(weak(&sleeps));
    assert_eq!(pools.next_look(), 1);
    let _other = reaper.admit(weak(&wakes));
    for _ in 0..20 {
        assert_eq!(pools.next_look(), 2);
    }
}

#[test]
fn with_nothing_due_it_sleeps_until_a_bell_rings() {
    let (reaper, crew, stop) = without_thread();
    assert_eq!(reaper.look(&crew, &stop), Stamp::MAX, "without pools");
    let pools = Pools::new();
    let (one, other) = (pools.make(1, never), pools.make(2, never));
    let bells = [reaper.admit(weak(&one)), reaper.admit(weak(&other))];
    assert_eq!(reaper.look(&crew, &stop), Stamp::MAX);
    assert_eq!(pools.looks.try_iter().collect::<Vec<_>>(), [1, 2]);
    assert_eq!(reaper.look(&crew, &stop), Stamp::MAX);
    assert!(pools.looks.is_empty(), "for no time: it parks without end");
    bells[1].ring();
    assert_eq!(reaper.look(&crew, &stop), Stamp::MAX);
    assert_eq!(pools.looks.try_iter().collect::<Vec<_>>(), [2]);
}

#[test]
fn it_sleeps_until_the_first_that_is_due_in_any_pool() {
    let (reaper, crew, stop) = without_thread();
    let pools = Pools::new();
    let later = || clock::mono().plus(Duration::from_secs(7_200));
    let all = [pools.make(1, later), pools.make(2, in_an_hour), pools.make(3, never)];
    let before = clock::mono();
    let _bells: Vec<Bell> = all.iter().map(|pool| reaper.admit(weak(pool))).collect();
    let next = reaper.look(&crew, &stop);
    let hour = Duration::from_secs(3_600);
    assert!(next.since(before) >= hour && next <= clock::mono().plus(hour), "{next:?}");
    assert_eq!(reaper.look(&crew, &stop), next, "and looks after nobody before");
    assert_eq!(pools.looks.len(), 3);
}

#[test]
fn a_pool_that_panics_stops_neither_it_nor_the_others_and_is_looked_after_again() {
    let (reaper, _worker) = start();
    let pools = Pools::new();
    let (panics, other) = (pools.make(1, never), pools.make(2, never));
    panics.panics.store(2, Ordering::SeqCst);
    let _bell = reaper.admit(weak(&panics));
    assert_eq!(pools.next_look(), 1);
    let bell = reaper.admit(weak(&other));
    // It is tried again after a while, each time until it succeeds; nobody rings for it.
    let mut looks = vec![pools.next_look(), pools.next_look(), pools.next_look()];
    looks.sort_unstable();
    assert_eq!(looks, [1, 1, 2]);
    bell.ring();
    assert_eq!(pools.next_look(), 2);
    assert_eq!(panics.panics.load(Ordering::SeqCst), 0);
}

#[test]
fn after_a_panic_it_does_not_look_again_at_once() {
    let (reaper, crew, stop) = without_thread();
    let pools = Pools::new();
    let panics = pools.make(1, never);
    panics.panics.store(1, Ordering::SeqCst);
    let _bell = reaper.admit(weak(&panics));
    let before = clock::mono();
    let next = reaper.look(&crew, &stop);
    assert!(next.since(before) >= AFTER_PANIC && next != Stamp::MAX, "{next:?}");
}

#[test]
fn a_pool_whose_bell_is_dropped_leaves_the_rounds() {
    let (reaper, crew, stop) = without_thread();
    let pools = Pools::new();
    let all = [pools.make(1, in_a_moment), pools.make(2, never), pools.make(3, never)];
    let mut bells: Vec<Bell> = all.iter().map(|pool| reaper.admit(weak(pool))).collect();
    assert_ne!(reaper.look(&crew, &stop), Stamp::MAX);
    assert_eq!(pools.looks.try_iter().count(), 3);
    drop(bells.remove(0));
    assert_eq!(reaper.rounds.lock().len(), 2);
    bells.iter().for_each(Bell::ring);
    assert_eq!(reaper.look(&crew, &stop), Stamp::MAX, "it waits for that one no more");
    let mut looks: Vec<u32> = pools.looks.try_iter().collect();
    looks.sort_unstable();
    assert_eq!(looks, [2, 3]);
}

#[test]
fn a_pool_that_is_gone_is_not_looked_after_and_keeps_nobody_awake() {
    let (reaper, crew, stop) = without_thread();
    let pools = Pools::new();
    let pool = pools.make(1, in_a_moment);
    let bell = reaper.admit(weak(&pool));
    assert_ne!(reaper.look(&crew, &stop), Stamp::MAX);
    drop(pool);
    bell.ring();
    assert_eq!(reaper.look(&crew, &stop), Stamp::MAX);
    assert_eq!(pools.looks.len(), 1);
}

/// A pool whose look brings about another.
struct Restless {
    bell: crate::sync::OnceLock<Bell>,
    looks: AtomicUsize,
}

impl Ward for Restless {
    fn noticed(self: Arc<Self>, _: Cut, _: Notice, _: &Crew) {}
    fn look(self: Arc<Self>, _: &Crew) -> Stamp {
        if self.looks.fetch_add(1, Ordering::SeqCst) == 0 {
            self.bell.get().unwrap().ring();
        }
        Stamp::MAX
    }
}

#[test]
fn a_bell_that_rings_during_the_look_is_not_lost() {
    let (reaper, crew, stop) = without_thread();
    let pool =
        Arc::new(Restless { bell: crate::sync::OnceLock::new(), looks: AtomicUsize::new(0) });
    let ward: Weak<Restless> = Arc::downgrade(&pool);
    assert!(pool.bell.set(reaper.admit(ward)).is_ok());
    for looks in [1, 2, 2] {
        reaper.look(&crew, &stop);
        assert_eq!(pool.looks.load(Ordering::SeqCst), looks);
    }
}

#[test]
fn once_it_is_told_to_stop_it_looks_after_nobody() {
    let (reaper, crew, stop) = without_thread();
    let pools = Pools::new();
    let pool = pools.make(1, never);
    let _bell = reaper.admit(weak(&pool));
    stop.store(true, Ordering::Release);
    reaper.look(&crew, &stop);
    assert!(pools.looks.is_empty());
}

#[test]
fn a_look_that_is_late_and_a_machine_that_slept_are_told_apart_and_small_things_are_not_told() {
    let at = |mono, wall| Now { mono: Stamp::from_millis(mono), wall: Stamp::from_millis(wall) };
    let mut punctuality = Punctuality::new(at(10_000, 50_000));
    assert_eq!(punctuality.note_look(at(10_100, 50_104)), (None, None), "a bell rang");
    punctuality.planned = Stamp::from_millis(11_000);
    assert_eq!(punctuality.note_look(at(11_900, 51_900)), (None, None), "a busy machine");
    punctuality.planned = Stamp::from_millis(12_000);
    let late = Some(Duration::from_secs(5));
    assert_eq!(punctuality.note_look(at(17_000, 57_000)), (late, None));
    punctuality.planned = Stamp::from_millis(18_000);
    let hour = Some(Duration::from_secs(3_600));
    assert_eq!(punctuality.note_look(at(18_000, 58_000 + 3_600_000)), (None, hour));
    assert_eq!(punctuality.note_look(at(18_000, 58_000)), (None, hour), "it was set back again");
}
