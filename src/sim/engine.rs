//! Runs simulations: the scheduler, the clock, and what a simulation has to say of itself.

#![expect(clippy::panic, reason = "its failures end an execution as shuttle has it")]

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo, catch_unwind, panic_any};
use std::sync::Once;
use std::time::Duration;

pub use shuttle::thread::JoinHandle;
use shuttle::{FailurePersistence, MaxSteps, Runner};

use crate::sim::scheduler::Seeded;
use crate::sim::threads::{block, end_of, has_passed};
use crate::sim::world::{self, Alarm, World};

const STACK: usize = 256 * 1024;
/// Who takes more turns in a circle.
const MOST_STEPS: usize = 2_000_000;
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
    /// Lines are kept of what happens.
    pub is_traced: bool,
}

impl Config {
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { seed, stays: 0, rushes: 0, lags: 0, changes: None, is_traced: false }
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
struct Expected;

shuttle::thread_local! {
    static UNWINDING: Cell<bool> = Cell::new(false);
}

/// Runs `body` once for each configuration, one after the other, until there is none or one fails.
/// Says how the last one went.
pub fn run(
    next: impl FnMut() -> Option<Config> + 'static,
    body: impl Fn(u64) + Send + Sync + 'static,
) -> Result<(), Failure> {
    let seeded = Seeded::new(next);
    let mut settings = shuttle::Config::new();
    settings.stack_size = STACK;
    settings.failure_persistence = FailurePersistence::None;
    settings.max_steps = MaxSteps::FailAfter(MOST_STEPS);
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
