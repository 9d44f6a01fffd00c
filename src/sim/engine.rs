//! Runs simulations: the scheduler, the clock, and what a simulation has to say of itself.

#![expect(clippy::panic, reason = "its failures end an execution as shuttle has it")]

use std::cell::Cell;
use std::collections::HashMap;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo, catch_unwind, panic_any};
use std::sync::Once;
use std::time::Duration;

use shuttle::scheduler::{Schedule, Scheduler, Task, TaskId};
pub use shuttle::thread::JoinHandle;
use shuttle::{FailurePersistence, MaxSteps, Runner};

use crate::sim::threads::{block, end_of, has_passed};
use crate::sim::world::{self, Alarm, Random, World};

/// What every step takes: so that whoever turns in a circle comes to its deadline.
const STEP: u64 = 20;
const STACK: usize = 256 * 1024;
/// Threads of pools have so long to end once nobody needs them.
const LINGER: Duration = Duration::from_secs(120);

/// How one simulation is run.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    pub seed: u64,
    /// Of a thousand points, at so many the thread that runs goes on if it can.
    pub stays: u64,
    /// Of a thousand points, at so many time passes although threads could run.
    pub rushes: u64,
    /// Of a thousand points, at so many one of the threads begins to lag behind all others.
    pub lags: u64,
    /// Instead of all that: threads have priorities, and so many times whoever runs gets the
    /// lowest. Finds with some certainty what takes no more switches than that (Burckhardt et al.,
    /// "A randomized scheduler with probabilistic guarantees of finding bugs").
    pub changes: Option<u32>,
    pub most_steps: usize,
    /// Lines are kept of what happens.
    pub is_traced: bool,
}

impl Config {
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self {
            seed,
            stays: 0,
            rushes: 0,
            lags: 0,
            changes: None,
            most_steps: 2_000_000,
            is_traced: false,
        }
    }
}

/// Why a simulation failed, and what happened last if it was traced.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Failure {
    pub seed: u64,
    pub why: Vec<String>,
    pub lines: Vec<String>,
}

/// What a panic carries that belongs to the script.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::exhaustive_structs, reason = "a marker")]
pub struct Expected;

shuttle::thread_local! {
    static UNWINDING: Cell<bool> = Cell::new(false);
}

struct Seeded<N> {
    next: N,
    config: Config,
    random: Random,
    clock: Option<TaskId>,
    laggard: Option<(TaskId, u64)>,
    ranks: Ranks,
}

/// Priorities of threads, and at which steps they change.
#[derive(Debug, Default)]
struct Ranks {
    of: HashMap<TaskId, u64>,
    changes: Vec<u64>,
    step: u64,
    lowest: u64,
}

/// Executions are about as long: changes are spread over so many steps, mostly over the first.
const STEPS: u64 = 6_000;

impl Ranks {
    fn new(changes: u32, random: &mut Random) -> Self {
        let spread = *random.one_of(&[STEPS / 30, STEPS / 5, STEPS]);
        let changes = (0..changes).map(|_| random.below(spread)).collect();
        Self { changes, lowest: 1 << 32, ..Self::default() }
    }

    fn choose(
        &mut self,
        live: &[TaskId],
        current: Option<TaskId>,
        random: &mut Random,
    ) -> Option<TaskId> {
        self.step += 1;
        if let (true, Some(current)) = (self.changes.contains(&self.step), current) {
            self.lowest -= 1;
            self.of.insert(current, self.lowest);
        }
        for id in live {
            self.of.entry(*id).or_insert_with(|| (1 << 33) + random.below(1 << 40));
        }
        // Whoever has run for very long without a wait may be waiting for another in a circle.
        if random.permille(2) {
            return Some(*random.one_of(live));
        }
        live.iter().copied().max_by_key(|id| self.of.get(id))
    }
}

impl<N: FnMut() -> Option<Config>> Scheduler for Seeded<N> {
    fn new_execution(&mut self) -> Option<Schedule> {
        self.config = (self.next)()?;
        let seed = self.config.seed;
        let last = world::begin(seed);
        drop(last);
        world::with(|world| world.is_traced = self.config.is_traced);
        self.random = Random::new(!seed);
        self.laggard = None;
        self.ranks = Ranks::new(self.config.changes.unwrap_or(0), &mut self.random);
        Some(Schedule::new(seed))
    }

    fn next_task(&mut self, tasks: &[&Task], current: Option<TaskId>, _: bool) -> Option<TaskId> {
        // It lists those, too, that are parked and could be woken for no reason.
        let live = || tasks.iter().filter(|task| !task.blocked()).map(|task| task.id());
        // The body is the first task, and spawns the clock before anything else.
        let clock = live().find(|id| usize::from(*id) == 1);
        self.clock = self.clock.or(clock);
        world::with(|world| self.choose(world, live().collect(), current, clock))
    }

    fn next_u64(&mut self) -> u64 {
        self.random.number()
    }
}

impl<N> Seeded<N> {
    fn choose(
        &mut self,
        world: &mut World,
        mut live: Vec<TaskId>,
        current: Option<TaskId>,
        clock: Option<TaskId>,
    ) -> Option<TaskId> {
        world.now += STEP;
        world.is_rushed = false;
        if world.is_waking && clock.is_some() {
            return clock;
        }
        live.retain(|id| Some(*id) != clock);
        let current = current.filter(|id| live.contains(id));
        if std::thread::panicking() && current.is_some() {
            return current; // one panic at a time
        }
        if live.is_empty() {
            return clock;
        }
        if clock.is_some() && !world.is_punctual && self.random.permille(self.config.rushes) {
            world.is_rushed = true;
            return clock;
        }
        if self.config.changes.is_some() {
            return self.ranks.choose(&live, current, &mut self.random);
        }
        if self.random.permille(self.config.lags) {
            self.laggard = Some((*self.random.one_of(&live), self.random.between(20, 400)));
        }
        if let Some((laggard, left)) = self.laggard {
            self.laggard = (left > 0).then(|| (laggard, left - 1));
            if live.len() > 1 {
                live.retain(|id| *id != laggard);
            }
        }
        match current.filter(|id| live.contains(id)) {
            Some(id) if self.random.permille(self.config.stays) => Some(id),
            _ => Some(*self.random.one_of(&live)),
        }
    }
}

/// Runs `body` once for each configuration, one after the other, until there is none or one fails.
/// Says how the last one went.
pub fn run(
    next: impl FnMut() -> Option<Config> + 'static,
    body: impl Fn(u64) + Send + Sync + 'static,
) -> Result<(), Failure> {
    let config = Config::new(0);
    let seeded = Seeded {
        next,
        config,
        random: Random::new(0),
        clock: None,
        laggard: None,
        ranks: Ranks::default(),
    };
    let mut settings = shuttle::Config::new();
    settings.stack_size = STACK;
    settings.failure_persistence = FailurePersistence::None;
    settings.max_steps = MaxSteps::FailAfter(Config::new(0).most_steps);
    settings.silence_warnings = true;
    let runner = Runner::new(seeded, settings);
    let result = catch_unwind(AssertUnwindSafe(|| runner.run(move || live_through(&body))));
    let last = world::begin(0);
    match result {
        Ok(_) => Ok(()),
        Err(_) => Err(Failure {
            seed: last.seed,
            why: last.violations,
            lines: last.lines.into_iter().collect(),
        }),
    }
}

fn live_through(body: &impl Fn(u64)) {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| panic::set_hook(Box::new(note_panic)));
    let clock = shuttle::thread::spawn(tick);
    let seed = world::with(|world| {
        world.is_running = true;
        world.seed
    });
    body(seed);
    let until = Some(end_of(LINGER));
    while world::with(|world| world.threads) > 0 && !has_passed(until) {
        sleep(Duration::from_millis(50));
    }
    let threads = world::with(|world| {
        world.is_over = true;
        world.threads
    });
    if threads > 0 {
        violation(format!("{threads} threads of pools never ended"));
    }
    clock.thread().unpark();
    assert!(clock.join().is_ok());
    let failed = world::with(|world| {
        world.is_running = false;
        !world.violations.is_empty()
    });
    if failed {
        panic_any(Expected);
    }
}

/// The thread that moves time on: chosen when nobody else can run, or to starve those who can.
fn tick() {
    loop {
        let (is_over, is_idle) = world::with(|world| {
            let Some(at) = world.next_alarm() else { return (world.is_over, !world.is_rushed) };
            if world.is_rushed {
                let stride = world.random.between(1_000, 3_000_000);
                let to = at.min(world.now + stride).max(world.now);
                world.starved += to - world.now;
                world.now = to;
            } else {
                world.now = world.now.max(at);
            }
            world.is_waking = true;
            (world.is_over, false)
        });
        if is_over {
            return;
        }
        if is_idle {
            shuttle::thread::park(); // nothing will ever happen again: a deadlock
            continue;
        }
        while let Some(alarm) = world::with(World::take_due) {
            match alarm {
                Alarm::Wake(thread) => thread.unpark(),
                Alarm::Net(news) => {
                    let woken = world::with(|world| world.deliver(news));
                    woken.iter().for_each(shuttle::thread::Thread::unpark);
                }
            }
        }
        world::with(|world| world.is_waking = false);
        shuttle::thread::yield_now();
    }
}

/// Every panic that the script did not order is a violation, whoever catches it.
fn note_panic(info: &PanicHookInfo<'_>) {
    if info.payload().is::<Expected>() {
        return;
    }
    let text = info.to_string();
    if world::has_ended() {
        eprintln!("{text}");
    } else {
        violation(text);
    }
}

/// Something is not as it must be: this simulation has failed, and goes on to its end if it can.
pub fn violation(what: impl Into<String>) {
    let what = what.into();
    world::with(|world| {
        world.note(|| format!("VIOLATION: {what}"));
        if world.violations.len() < 20 {
            world.violations.push(what);
        }
    });
}

/// Starts a thread of the script's.
pub fn spawn<T: Send + 'static>(
    name: impl Into<String>,
    body: impl FnOnce() -> T + Send + 'static,
) -> JoinHandle<T> {
    let started = shuttle::thread::Builder::new().name(name.into()).spawn(body);
    started.expect("the script's own threads can always be started")
}

/// Waits for a thread of the script's.
#[expect(clippy::must_use_candidate, reason = "mostly for its end")]
pub fn join<T>(thread: JoinHandle<T>) -> T {
    thread.join().unwrap_or_else(|_| panic_any(Expected))
}

/// Lets time pass for this thread.
pub fn sleep(time: Duration) {
    let until = Some(end_of(time));
    while !has_passed(until) {
        block(until);
    }
}

/// Waits for what never comes.
pub fn wait_for_ever() -> ! {
    loop {
        block(None);
    }
}

/// Panics as a user of the pool does, whose guards are dropped on the way.
pub fn unwind() -> ! {
    UNWINDING.with(|unwinding| unwinding.set(true));
    panic_any(Expected)
}

/// Panics as somebody's code does that the pool calls.
pub fn panic_in_call() -> ! {
    panic_any(Expected)
}

/// Catches what [`unwind`] threw.
pub fn survive<T>(act: impl FnOnce() -> T) -> Option<T> {
    let result = catch_unwind(AssertUnwindSafe(act));
    UNWINDING.with(|unwinding| unwinding.set(false));
    result.ok()
}

pub(crate) fn is_unwinding() -> bool {
    UNWINDING.try_with(Cell::get).unwrap_or(false)
}
