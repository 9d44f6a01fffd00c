//! Random scripts over every transition there is, with everything recounted after each. At the
//! end all comes to rest: nobody who waited was forgotten, and nothing is left.

use super::world::{Conn, Got, Held, Look, Mail, Waiting, World, limits, millis};
use crate::clock::nanos;
use crate::config::{Caps, EndpointLimits, Limits, Reuse};
use crate::core::entry::State;
use crate::core::{Manner, Notice, Token};
use crate::observe::CloseReason;

/// A number from the environment.
pub(super) fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Runs a script for each seed: `usual` of them, or `WARMLINE_MODEL_SEEDS` in a long run. One that
/// fails says which it was, and `WARMLINE_MODEL_SEED` runs that one alone.
pub(super) fn for_each_seed(usual: u64, script: impl Fn(&mut Random)) {
    struct Names(u64);
    impl Drop for Names {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("the seed that failed: {}", self.0);
            }
        }
    }
    let last = number("WARMLINE_MODEL_SEEDS").unwrap_or(usual);
    let seeds = number("WARMLINE_MODEL_SEED").map_or(1..=last, |only| only..=only);
    for seed in seeds {
        let _names = Names(seed);
        script(&mut Random::new(seed));
    }
}

/// A xorshift generator: the same script for the same seed, for ever.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).map_or(0, |number| number % bound.max(1))
    }

    pub(super) fn one_in(&mut self, bound: usize) -> bool {
        self.below(bound) == 0
    }

    pub(super) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    /// Takes one out at random.
    pub(super) fn take<T>(&mut self, from: &mut Vec<T>) -> Option<T> {
        if from.is_empty() {
            return None;
        }
        let at = self.below(from.len());
        Some(from.swap_remove(at))
    }
}

struct Script<'r> {
    world: World,
    random: &'r mut Random,
    endpoints: u32,
    held: Vec<Held>,
    kept: Vec<Conn>,
    warming: Vec<(u32, Mail)>,
    callers: u32,
    /// Those of all connections that were ever seen.
    tokens: Vec<Token>,
}

fn tiny_limits(random: &mut Random) -> Limits {
    let max_total = random.pick(&[1, 2, 3, 5, 40]);
    let max_per_endpoint = random.pick(&[1, 2, 4, 40]).min(max_total);
    let max_idle = random.pick(&[0, 1, 2, 40]).min(max_total);
    let max_idle_per_endpoint = random.pick(&[0, 1, 2, 40]).min(max_per_endpoint);
    Limits {
        max_total,
        max_per_endpoint,
        max_idle,
        max_idle_per_endpoint,
        min_idle: random.pick(&[0, 0, 0, 1, 2]).min(max_idle).min(max_idle_per_endpoint),
        max_connecting: random.pick(&[1, 2, 40]),
        max_connecting_total: random.pick(&[1, 2, 40]),
        max_waiting: random.pick(&[1, 3, 1_000]),
        idle_timeout: random.pick(&[None, Some(millis(200)), Some(millis(2_000))]),
        max_lifetime: random.pick(&[None, Some(millis(100)), Some(millis(5_000))]),
        connect_timeout: millis(random.pick(&[20, 3_000])),
        check_interval: random.pick(&[None, Some(millis(20)), Some(millis(500))]),
        check_timeout: millis(random.pick(&[20, 2_000])),
        settle_timeout: millis(random.pick(&[20, 1_000])),
        fair_after: millis(random.pick(&[0, 2, 2, 1_000])),
        check_after: random.pick(&[None, None, Some(millis(5)), Some(millis(500))]),
        reuse: random.pick(&[Reuse::Newest, Reuse::Newest, Reuse::Oldest]),
        fail_fast: !random.one_in(4),
        ..limits()
    }
}

impl Script<'_> {
    fn step(&mut self) {
        let endpoint = u32::try_from(self.random.below(self.endpoints as usize)).unwrap_or(0);
        match self.random.below(36) {
            0..=6 => self.ask(endpoint),
            7 => self.held.extend(self.world.try_get(endpoint)),
            8..=12 => self.bring_back(),
            13..=17 => self.connect(),
            18 | 19 => self.keep_up(),
            20..=23 => self.wake(),
            24..=26 => self.pass(),
            27 => {
                let held = endpoint;
                self.world.reap_with(&|at| at == held);
            }
            28 => self.notice(),
            29 => self.warm(endpoint),
            30 => {
                let now = self.world.now;
                self.world.run(&mut |core, fx| core.keep(endpoint, now, fx));
            }
            31 => self.cancel(),
            32 if self.random.one_in(4) => self.limit(endpoint),
            33 => self.pause(),
            34 if self.random.one_in(3) => self.reconfigure(),
            _ => self.end_something(endpoint),
        }
    }

    fn ask(&mut self, endpoint: u32) {
        let timeout = millis(self.random.pick(&[1, 5, 60, 60_000, 60_000]));
        let got = match self.random.below(8) {
            0 | 1 => self.world.request(endpoint),
            2 => self.world.ask_for(endpoint, timeout, Manner::Patient),
            _ => self.world.get_within(endpoint, timeout),
        };
        if let Got::Conn(held) = got {
            self.held.push(held);
        }
    }

    /// A request is dropped, wherever it is.
    fn cancel(&mut self) {
        let world = &mut self.world;
        let is_request = |waiting: &Waiting| waiting.manner == Manner::Request;
        let requests = world.waiting.iter().filter(|(_, waiting)| is_request(waiting));
        let requests: Vec<Mail> = requests.map(|(&mail, _)| mail).collect();
        if !requests.is_empty() {
            world.cancel(self.random.pick(&requests));
        }
    }

    /// An endpoint gets limits of its own, or those of all.
    fn limit(&mut self, endpoint: u32) {
        let limits = &self.world.limits;
        let max_per_endpoint = self.random.pick(&[1, 2, 40]).min(limits.max_total);
        let max_idle_per_endpoint = self.random.pick(&[0, 1, 40]).min(max_per_endpoint);
        let most_kept = max_idle_per_endpoint.min(limits.max_idle);
        let own = Caps {
            max_per_endpoint,
            max_idle_per_endpoint,
            min_idle: self.random.pick(&[0, 0, 1]).min(most_kept),
            max_connecting: self.random.pick(&[1, 2, 40]),
            max_waiting: self.random.pick(&[1, 3, 1_000]),
        };
        match self.random.below(3) {
            0 => {
                let own = EndpointLimits::new().max_per_endpoint(max_per_endpoint);
                self.world.set_limits(endpoint, own);
            }
            1 => self.world.set_caps(endpoint, own),
            _ => self.world.set_limits(endpoint, EndpointLimits::new()),
        }
    }

    /// The pool gets limits of another kind, unless those of an endpoint conflict with them.
    fn reconfigure(&mut self) {
        let limits = tiny_limits(self.random);
        if let Err((endpoint, _)) = self.world.reconfigure(&limits) {
            self.world.set_limits(endpoint, EndpointLimits::new());
        }
    }

    /// The pool pauses, for a while as a rule.
    fn pause(&mut self) {
        let (now, pauses) = (self.world.now, self.random.one_in(4));
        self.world.run(&mut |core, fx| if pauses { core.pause() } else { core.resume(now, fx) });
    }

    fn bring_back(&mut self) {
        let Some(held) = self.random.take(&mut self.held) else { return };
        match self.random.below(12) {
            0 => self.world.discard(held),
            1 => self.kept.push(self.world.detach(held)),
            2 | 3 => self.world.settle(held),
            4 => self.world.check_in(held.lease.token, held.conn),
            _ => self.world.give_back(held),
        }
    }

    /// An attempt goes on, on a thread or in the event loop, or ends.
    fn connect(&mut self) {
        let Some(mut connect) = self.random.take(&mut self.world.connects) else { return };
        match self.random.below(8) {
            0 if !connect.is_started && self.random.one_in(2) => {
                if self.world.awaits_name(connect.token) {
                    self.world.connects.push(connect);
                }
            }
            0 | 1 if !connect.is_started => {
                let interruptible = self.random.one_in(2);
                connect.is_started = self.world.take_up(connect, interruptible);
                if connect.is_started {
                    self.world.connects.push(connect);
                }
            }
            2 | 3 => {
                let goes_on = self.world.goes_on(connect);
                self.world.connects.extend(goes_on);
            }
            4 => self.world.ends_badly(connect, 1),
            5 => self.world.ends_short(connect, 2),
            _ => self.world.ends_well(connect),
        }
    }

    fn keep_up(&mut self) {
        let Some(mut out) = self.random.take(&mut self.world.upkeeps) else { return };
        if !out.is_started && self.random.one_in(2) {
            let interruptible = self.random.one_in(2);
            out.is_started = self.world.start(out.token, interruptible);
            self.world.upkeeps.push(out);
        } else {
            let is_fit = !self.random.one_in(4);
            self.world
                .ends_upkeep(out, if is_fit { Ok(()) } else { Err(CloseReason::CheckFailed) });
        }
    }

    /// Somebody wakes: who was told, who was answered, whose deadline has passed, or anybody.
    fn wake(&mut self) {
        let world = &mut self.world;
        let waiting = world.waiting.keys().copied();
        let over = world.waiting.iter().filter(|(_, waiting)| waiting.deadline <= world.now.mono);
        let chosen: Vec<Mail> = match self.random.below(8) {
            0 => waiting.collect(),
            1 | 2 => over.map(|(&mail, _)| mail).collect(),
            3 | 4 => world.replies.keys().copied().collect(),
            _ => world.hints.clone(),
        };
        if !chosen.is_empty() {
            let mail = self.random.pick(&chosen);
            self.held.extend(world.wakes_up(mail));
        }
    }

    fn pass(&mut self) {
        let time = self.random.pick(&[0, 1, 1, 1, 2, 3, 10, 51, 210, 3_100]);
        self.world.pass(time);
        if self.world.core.timers.look_at <= self.world.now.mono && !self.random.one_in(3) {
            self.world.reap();
        }
    }

    /// The event loop sees something of a connection, in time or long after its end.
    fn notice(&mut self) {
        let entries = &self.world.core.entries;
        self.tokens.extend(entries.indexes().map(|index| entries.token(index)));
        if !self.tokens.is_empty() {
            let late = self.random.one_in(3);
            let newest = self.tokens.len().saturating_sub(entries.len().max(1));
            let token = self.random.pick(if late { &self.tokens } else { &self.tokens[newest..] });
            let notice = self.random.pick(&[Notice::HungUp, Notice::Stray]);
            self.world.notice(token, notice);
        }
    }

    fn warm(&mut self, endpoint: u32) {
        if let Some((endpoint, mail)) = self.random.take(&mut self.warming) {
            self.world.cool(endpoint, mail);
        } else {
            self.callers += 1;
            let mail = Mail(1_000_000 + self.callers);
            let wanted = self.random.below(4);
            self.world.warm(endpoint, wanted, mail);
            self.warming.push((endpoint, mail));
        }
    }

    fn end_something(&mut self, endpoint: u32) {
        if self.random.one_in(4) {
            let free = self.world.run(&mut |core, _| core.vacant());
            let is_vacant = |at: &u32| self.world.core.endpoints.at(*at).is_unused();
            assert!(free.iter().all(is_vacant));
        } else if self.random.one_in(2) {
            self.world.evict(endpoint);
        } else if self.world.forget(endpoint) {
            let wall = self.world.now.wall;
            assert_eq!(self.world.core.add_endpoint(wall), endpoint, "its place is used again");
            self.leave_deadlines(endpoint);
        }
    }

    /// Where its attempts begin in the event loop, that keeps the deadlines; and it may have
    /// heartbeats.
    fn leave_deadlines(&mut self, endpoint: u32) {
        if self.random.one_in(2) {
            self.world.core.leave_deadlines_to_loop(endpoint);
        }
        if self.random.one_in(2) {
            self.world.core.expect_beats(endpoint);
        }
    }

    /// The reaper comes in time for whatever has been idle for too long.
    fn assert_reaper_comes(&self) {
        let Some(limit) = self.world.limits.idle_timeout else { return };
        let (core, now) = (&self.world.core, self.world.now);
        for entry in core.entries.iter().filter(|entry| entry.state == State::Idle) {
            let place = core.endpoints.at(entry.endpoint);
            if place.idle.len() <= place.kept_idle() {
                continue; // it is to be kept
            }
            // It may have been, until a moment ago.
            let spared_for = now.wall.apart(place.spared_at);
            let age = now.wall.apart(entry.since).min(spared_for);
            let left = std::time::Duration::from_nanos(nanos(limit).saturating_sub(age));
            let by = now.mono.plus(left + millis(1));
            assert!(core.timers.look_at <= by, "one has {left:?} left and the reaper sleeps on");
        }
    }

    fn let_go_of_warming(&mut self) {
        for (endpoint, mail) in std::mem::take(&mut self.warming) {
            self.world.cool(endpoint, mail);
        }
    }

    fn end(mut self) {
        self.let_go_of_warming();
        let now = self.world.now;
        self.world.run(&mut |core, fx| core.resume(now, fx));
        if !self.random.one_in(3) {
            let held = std::mem::take(&mut self.held);
            self.world.let_all_end(held);
        }
        self.world.close();
        // What is under way goes on, is called off, or comes too late.
        for _ in 0..self.random.below(40) {
            self.step();
        }
        self.let_go_of_warming();
        let mails: Vec<Mail> = self.world.replies.keys().copied().collect();
        for mail in mails {
            if let Look::Answered(reply) = self.world.look(mail) {
                self.held.extend(reply.connection());
            }
        }
        while let Some(connect) = self.world.connects.pop() {
            self.world.ends_well(connect);
        }
        while let Some(out) = self.world.upkeeps.pop() {
            self.world.ends_upkeep(out, Ok(()));
        }
        std::mem::take(&mut self.held).into_iter().for_each(|held| self.world.give_back(held));
        self.kept.clear();
        assert!(self.world.core.has_ended());
        self.world.assert_empty();
        assert_eq!(self.world.stats().abandoned(), 0, "all that was abandoned came back");
    }
}

#[test]
fn whatever_happens_all_is_accounted_for_and_nobody_is_forgotten() {
    for_each_seed(400, |random| {
        let endpoints = random.pick(&[1, 2, 3, 6]);
        let limits = tiny_limits(random);
        let world = World::with_endpoints(limits, endpoints);
        let mut script = Script {
            world,
            random,
            endpoints,
            held: Vec::new(),
            kept: Vec::new(),
            warming: Vec::new(),
            callers: 0,
            tokens: Vec::new(),
        };
        (0..endpoints).for_each(|endpoint| script.leave_deadlines(endpoint));
        for _ in 0..250 {
            script.step();
            script.assert_reaper_comes();
        }
        script.end();
    });
}
