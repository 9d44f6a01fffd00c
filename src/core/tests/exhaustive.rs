//! Every short script over a small alphabet, in pools so small that everything collides.

use super::scripts::number;
use super::world::{A, B, Got, Held, Mail, World, limits, millis};
use crate::config::Limits;
use crate::core::{Notice, Upkeep};
use crate::observe::CloseReason;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    GetA,
    GetB,
    /// The connection that has been out for longest comes back.
    Return,
    Settle,
    Discard,
    /// The oldest attempt, check or settling ends well, or badly.
    Succeed,
    Fail,
    /// Somebody who was told or answered wakes; if nobody was, the oldest waiter does.
    Look,
    /// Longer than `fair_after` and than some deadlines, shorter than others.
    Pass,
    /// The last who came gives up: its deadline passes, and it wakes.
    GiveUp,
    Evict,
    HangUp,
    /// Bytes come on the first connection there is.
    Speak,
    /// The oldest attempt goes one stage further: into the event loop, then to the crew's queue.
    GoOn,
    /// The oldest attempt fails because this process has run out of something.
    RunShort,
    Close,
}

const OPS: &[Op] = &[
    Op::GetA,
    Op::GetB,
    Op::Return,
    Op::Settle,
    Op::Discard,
    Op::Succeed,
    Op::Fail,
    Op::Look,
    Op::Pass,
    Op::GiveUp,
    Op::Evict,
    Op::HangUp,
];

/// What can happen while the event loop connects.
const LOOP_OPS: &[Op] = &[
    Op::GetA,
    Op::GetB,
    Op::Return,
    Op::Succeed,
    Op::RunShort,
    Op::GoOn,
    Op::Look,
    Op::Pass,
    Op::GiveUp,
    Op::HangUp,
    Op::Speak,
    Op::Close,
];

struct Run {
    world: World,
    held: Vec<Held>,
}

impl Run {
    /// False if there is nothing for it to be done to.
    fn does(&mut self, op: Op) -> bool {
        let world = &mut self.world;
        match op {
            Op::GetA | Op::GetB => {
                let endpoint = if op == Op::GetA { A } else { B };
                let timeout = millis(if world.waiting.len() % 2 == 0 { 1_000 } else { 30 });
                if let Got::Conn(held) = world.get_within(endpoint, timeout) {
                    self.held.push(held);
                }
                true
            }
            Op::Return | Op::Settle | Op::Discard if self.held.is_empty() => false,
            Op::Return => {
                world.give_back(self.held.remove(0));
                true
            }
            Op::Settle => {
                world.settle(self.held.remove(0));
                true
            }
            Op::Discard => {
                world.discard(self.held.remove(0));
                true
            }
            Op::Succeed | Op::Fail => self.ends(op == Op::Succeed),
            Op::Look => {
                let told = world.hints.first().or_else(|| world.replies.keys().next()).copied();
                let Some(mail) = told.or_else(|| world.waiting.keys().next().copied()) else {
                    return false;
                };
                self.held.extend(world.wakes_up(mail));
                true
            }
            Op::Pass => {
                world.pass(51);
                world.reap();
                true
            }
            Op::GiveUp => self.gives_up(),
            Op::Evict => {
                world.evict(A);
                true
            }
            Op::HangUp => self.sees(Notice::HungUp),
            Op::Speak => self.sees(Notice::Stray),
            Op::GoOn | Op::RunShort if world.connects.is_empty() => false,
            Op::GoOn => {
                let connect = world.connects.remove(0);
                let goes_on = world.goes_on(connect);
                world.connects.extend(goes_on);
                true
            }
            Op::RunShort => {
                let connect = world.connects.remove(0);
                world.ends_short(connect, 2);
                true
            }
            Op::Close => {
                let was_closed = world.core.is_closed();
                world.close();
                !was_closed
            }
        }
    }

    fn sees(&mut self, notice: Notice) -> bool {
        let entries = &self.world.core.entries;
        let Some(index) = entries.indexes().next() else { return false };
        let token = entries.token(index);
        self.world.notice(token, notice);
        true
    }

    fn ends(&mut self, is_well: bool) -> bool {
        let world = &mut self.world;
        if !world.connects.is_empty() {
            let connect = world.connects.remove(0);
            if is_well {
                world.ends_well(connect);
            } else {
                world.ends_badly(connect, 1);
            }
            return true;
        }
        if world.upkeeps.is_empty() {
            return false;
        }
        let out = world.upkeeps.remove(0);
        let refused = match out.upkeep {
            Upkeep::Check | Upkeep::Beat => CloseReason::CheckFailed,
            Upkeep::Settle => CloseReason::ResetRefused,
        };
        world.ends_upkeep(out, if is_well { Ok(()) } else { Err(refused) });
        true
    }

    fn gives_up(&mut self) -> bool {
        let Some((&mail, waiting)) = self.world.waiting.last_key_value() else { return false };
        let before = self.world.now;
        self.world.now.mono = waiting.deadline.max(before.mono);
        self.world.now.wall = before.wall.plus(self.world.now.mono.since(before.mono));
        self.held.extend(self.world.wakes_up(mail));
        true
    }

    /// Everything comes back and the pool is closed: nothing is left, and nobody.
    fn end(mut self) {
        self.world.is_checked = true;
        let held = std::mem::take(&mut self.held);
        self.world.let_all_end(held);
        self.world.close();
        let left: Vec<Mail> = self.world.replies.keys().copied().collect();
        assert!(left.is_empty(), "answered after all had been: {left:?}");
        while let Some(connect) = self.world.connects.pop() {
            self.world.ends_well(connect);
        }
        self.world.assert_empty();
    }
}

/// Runs `script` in a new pool, recounting after its last step; false if that step has nothing to
/// be done to.
fn run(limits: &Limits, ops: &[Op], script: &[Op], is_last: bool) -> bool {
    let _naming = Naming(script);
    let mut run = Run { world: World::with_endpoints(limits.clone(), 2), held: Vec::new() };
    run.world.is_checked = false;
    if ops == LOOP_OPS {
        run.world.core.leave_deadlines_to_loop(A); // and not those of B
    }
    for (at, &op) in script.iter().enumerate() {
        // All but the last step were checked when they were the last.
        run.world.is_checked = at + 1 == script.len();
        if !run.does(op) {
            return false;
        }
    }
    if is_last {
        run.end();
    }
    true
}

/// Runs every script that begins with `script` and is at most `longest` long.
fn explore(limits: &Limits, ops: &[Op], script: &mut Vec<Op>, longest: usize, count: &mut u64) {
    for &op in ops {
        script.push(op);
        let is_last = script.len() == longest;
        *count += 1;
        if run(limits, ops, script, is_last) && !is_last {
            explore(limits, ops, script, longest, count);
        }
        script.pop();
    }
}

/// Prints the script if a panic is what ends it.
struct Naming<'s>(&'s [Op]);

impl Drop for Naming<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the script that failed: {:?}", self.0);
        }
    }
}

/// Deeper in a long run, less deep in a short one; under Miri a step takes a thousand times as long.
fn longest() -> usize {
    match number("WARMLINE_MODEL_SEEDS") {
        _ if cfg!(miri) => 2,
        Some(..1_000) => 4,
        Some(_) => 7,
        None => 5,
    }
}

fn explore_all(limits: &Limits, ops: &[Op]) {
    let mut count = 0;
    let longest = longest();
    explore(limits, ops, &mut Vec::new(), longest, &mut count);
    let few = match longest {
        ..=2 => 50,
        3 | 4 => 1_000,
        _ => 10_000,
    };
    assert!(count > few, "{count} scripts are too few to say anything");
}

#[test]
fn every_short_script_in_a_pool_of_one_connection_for_two_endpoints() {
    explore_all(&Limits { max_total: 1, max_per_endpoint: 1, ..limits() }, OPS);
}

#[test]
fn every_short_script_in_a_pool_of_two_with_one_idle_and_one_connecting() {
    let limits = Limits {
        max_total: 2,
        max_per_endpoint: 2,
        max_idle: 1,
        max_connecting: 1,
        max_connecting_total: 1,
        ..limits()
    };
    explore_all(&limits, OPS);
}

#[test]
fn every_short_script_in_a_pool_that_checks_and_expires_what_is_idle() {
    let limits = Limits {
        max_total: 2,
        max_per_endpoint: 1,
        fair_after: millis(0),
        check_after: Some(millis(40)),
        idle_timeout: Some(millis(100)),
        max_lifetime: Some(millis(200)),
        connect_timeout: millis(50),
        settle_timeout: millis(50),
        ..limits()
    };
    explore_all(&limits, OPS);
}

#[test]
fn every_short_script_of_attempts_in_the_loop_that_meet_their_deadline_a_shortage_or_the_end() {
    let limits =
        Limits { max_total: 3, max_per_endpoint: 2, connect_timeout: millis(50), ..limits() };
    explore_all(&limits, LOOP_OPS);
}

#[test]
fn every_short_script_of_attempts_in_the_loop_where_one_is_to_be_kept_idle() {
    explore_all(&Limits { max_total: 2, min_idle: 1, ..limits() }, LOOP_OPS);
}
