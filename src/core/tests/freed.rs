//! Every path that frees capacity serves whoever waited for it.

use super::world::{A, B, Held, Look, World, limits, millis};
use crate::config::Limits;
use crate::observe::CloseReason;

/// A way in which room comes free, in a pool of one connection.
struct Path {
    name: &'static str,
    limits: fn(&mut Limits),
    /// Fills the pool's only place.
    fill: fn(&mut World) -> Option<Held>,
    /// Empties it again.
    free: fn(&mut World, Option<Held>),
}

fn in_use(world: &mut World) -> Option<Held> {
    world.open(A, 1).pop()
}

/// Idle, while a waiter that was told of it has not looked.
fn idle_and_told(world: &mut World) -> Option<Held> {
    let held = world.open(A, 1).remove(0);
    world.wait_within(A, millis(1_000_000));
    world.give_back(held);
    assert_eq!(world.counts(A).idle, 1);
    None
}

fn connecting(world: &mut World) -> Option<Held> {
    world.wait_within(A, millis(1_000_000));
    None
}

/// As [`connecting`], but whoever wanted it has left.
fn connecting_for_nobody(world: &mut World) -> Option<Held> {
    let waiter = world.wait_within(A, millis(1));
    world.pass(1);
    assert!(matches!(world.look(waiter), Look::Expired(..)));
    // In somebody else's code, which nothing can end.
    let token = world.connects[0].token;
    world.start(token, false);
    None
}

fn running(world: &mut World) -> Option<Held> {
    connecting(world);
    let token = world.connects[0].token;
    world.start(token, false);
    None
}

fn interruptible(world: &mut World) -> Option<Held> {
    connecting(world);
    let token = world.connects[0].token;
    world.start(token, true);
    None
}

fn checking(world: &mut World) -> Option<Held> {
    world.idle(A, 1);
    world.pass(600);
    connecting(world);
    assert_eq!(world.counts(A).checking, 1);
    None
}

fn settling(world: &mut World) -> Option<Held> {
    let held = world.open(A, 1).remove(0);
    world.settle(held);
    None
}

/// The deadline of what is under way passes, and the time that an interrupted call has to return.
fn overdue(world: &mut World, _: Option<Held>) {
    for time in [3_000, 100] {
        world.pass(time);
        world.reap();
    }
}

fn give_back(world: &mut World, held: Option<Held>) {
    held.into_iter().for_each(|held| world.give_back(held));
}

const fn plain(_: &mut Limits) {}

const fn short_lived(limits: &mut Limits) {
    limits.max_lifetime = Some(millis(10_000));
}

const fn checked(limits: &mut Limits) {
    limits.check_after = Some(millis(500));
}

const PATHS: &[Path] = &[
    Path {
        name: "returned, and nobody here wants it",
        limits: plain,
        fill: in_use,
        free: give_back,
    },
    Path {
        name: "discarded",
        limits: plain,
        fill: in_use,
        free: |world, held| held.into_iter().for_each(|held| world.discard(held)),
    },
    Path {
        name: "detached",
        limits: plain,
        fill: in_use,
        free: |world, held| held.into_iter().for_each(|held| world.detach(held).keep()),
    },
    Path {
        name: "evicted in use, then returned",
        limits: plain,
        fill: |world| {
            let held = in_use(world);
            world.evict(A);
            held
        },
        free: give_back,
    },
    Path {
        name: "evicted in use, then to be settled",
        limits: plain,
        fill: |world| {
            let held = in_use(world);
            world.evict(A);
            held
        },
        free: |world, held| held.into_iter().for_each(|held| world.settle(held)),
    },
    Path {
        name: "past its lifetime in use, then returned",
        limits: short_lived,
        fill: |world| {
            let held = in_use(world);
            world.pass(10_000);
            world.reap();
            held
        },
        free: give_back,
    },
    Path {
        name: "hung up in use, then returned",
        limits: plain,
        fill: |world| {
            let held = in_use(world)?;
            world.hang_up(held.lease.token);
            Some(held)
        },
        free: give_back,
    },
    Path {
        name: "an attempt that failed",
        limits: plain,
        fill: connecting,
        free: |world, _| world.connect_fails(A),
    },
    Path {
        name: "an attempt that came too late for whoever wanted it",
        limits: plain,
        fill: connecting_for_nobody,
        free: |world, _| _ = world.connect_ok(A),
    },
    Path {
        name: "an attempt for nobody whose connection may not be idle",
        limits: |limits| limits.max_idle = 0,
        fill: connecting_for_nobody,
        free: |world, _| _ = world.connect_ok(A),
    },
    Path {
        name: "an attempt whose connection was evicted before it was there",
        limits: plain,
        fill: |world| {
            connecting_for_nobody(world);
            world.evict(A);
            None
        },
        free: |world, _| _ = world.connect_ok(A),
    },
    Path {
        name: "an attempt that no thread took up",
        limits: plain,
        fill: connecting,
        free: overdue,
    },
    Path { name: "an attempt that was abandoned", limits: plain, fill: running, free: overdue },
    Path {
        name: "an attempt that was interrupted, then abandoned",
        limits: plain,
        fill: interruptible,
        free: overdue,
    },
    Path {
        name: "an attempt that was interrupted and failed",
        limits: plain,
        fill: interruptible,
        free: |world, _| {
            world.pass(3_000);
            world.reap();
            world.connect_fails(A);
        },
    },
    Path {
        name: "evicted while idle",
        limits: plain,
        fill: idle_and_told,
        free: |w, _| w.evict(A),
    },
    Path {
        name: "idle for too long",
        limits: |limits| limits.idle_timeout = Some(millis(60_000)),
        fill: idle_and_told,
        free: |world, _| {
            world.pass(60_000);
            world.reap();
        },
    },
    Path {
        name: "past its lifetime while idle",
        limits: short_lived,
        fill: idle_and_told,
        free: |world, _| {
            world.pass(10_000);
            world.reap();
        },
    },
    Path {
        name: "hung up while idle",
        limits: plain,
        fill: |world| {
            idle_and_told(world);
            None
        },
        free: |world, _| {
            let index = world.core.endpoints.at(A).idle.front().expect("one is idle");
            let token = world.core.entries.token(index);
            world.hang_up(token);
        },
    },
    Path {
        name: "a check that failed",
        limits: checked,
        fill: checking,
        free: |world, _| world.upkeep_ends(Err(CloseReason::CheckFailed)),
    },
    Path {
        name: "a check that was abandoned",
        limits: checked,
        fill: |world| {
            checking(world);
            let token = world.upkeeps[0].token;
            world.start(token, false);
            None
        },
        free: overdue,
    },
    Path {
        name: "a settling that failed",
        limits: plain,
        fill: settling,
        free: |world, _| world.upkeep_ends(Err(CloseReason::ResetRefused)),
    },
    Path {
        name: "settled, and nobody here wants it",
        limits: plain,
        fill: settling,
        free: |world, _| world.upkeep_ends(Ok(())),
    },
    Path {
        name: "settled, and it may not be idle",
        limits: |limits| limits.max_idle = 0,
        fill: settling,
        free: |world, _| world.upkeep_ends(Ok(())),
    },
    Path {
        name: "in use while there may be more from now on",
        limits: plain,
        fill: in_use,
        free: |world, _| change(world, |limits| limits.max_total = 2),
    },
    Path {
        name: "an attempt while more may run at a time from now on",
        limits: |limits| (limits.max_total, limits.max_connecting_total) = (2, 1),
        fill: connecting,
        free: |world, _| change(world, |limits| limits.max_connecting_total = 2),
    },
    Path {
        name: "idle while none may be from now on",
        limits: plain,
        fill: idle_and_told,
        free: |world, _| change(world, |limits| limits.max_idle = 0),
    },
];

/// The pool gets other limits.
fn change(world: &mut World, set: fn(&mut Limits)) {
    let mut limits = world.limits.clone();
    set(&mut limits);
    world.reconfigure(&limits).expect("no endpoint has limits of its own");
}

/// Fills the pool, lets somebody wait at `endpoint`, frees the place: an attempt begins.
fn serves(path: &Path, endpoint: u32) {
    let mut limits = Limits { max_total: 1, ..limits() };
    (path.limits)(&mut limits);
    let mut world = World::new(limits);
    let held = (path.fill)(&mut world);
    let before = world.connects.len();
    if world.counts(endpoint).waiting == 0 {
        world.wait_within(endpoint, millis(1_000_000));
    }
    assert_eq!(world.connects.len(), before, "{}: there was room", path.name);
    world.connects.iter_mut().for_each(|connect| connect.is_started = true);
    let old: Vec<_> = world.connects.iter().map(|connect| connect.token).collect();
    (path.free)(&mut world, held);
    world.pass(60); // after a failure the next attempt waits
    world.reap();
    if let Some(&told) = world.hints.first() {
        if let Look::Granted(_) = world.look(told) {
            return;
        }
    }
    let begun = world.connects.iter().filter(|connect| !old.contains(&connect.token)).count();
    let is_served = begun == 1 || world.replies.len() == 1;
    assert!(is_served, "{}: somebody at {endpoint} waits on, {}", path.name, world.stats());
}

#[test]
fn every_path_that_frees_capacity_serves_a_waiter_of_another_endpoint() {
    PATHS.iter().for_each(|path| serves(path, B));
}

#[test]
fn every_path_that_frees_capacity_serves_the_next_waiter_of_the_same_endpoint() {
    // Where an attempt fails and nothing is left, all who wait there learn of it.
    let fails = |path: &&Path| path.name.starts_with("an attempt");
    // With one idle and one told, the next is told when that one has looked.
    PATHS.iter().filter(|path| !fails(path)).for_each(|path| serves(path, A));
}
