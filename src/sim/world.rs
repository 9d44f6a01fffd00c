//! What one simulation consists of. It belongs to the one thread of the system that runs it.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};

use shuttle::thread::Thread;

use crate::sim::net::{Later, Net, News};

/// A tick of the coarse clock.
const TICK: u64 = 4_000_000;
/// Lines that are kept of what happened last.
const MOST_LINES: usize = 400;

thread_local! {
    static WORLD: RefCell<World> = RefCell::new(World::new(0));
}

#[derive(Debug)]
pub(crate) struct World {
    /// An execution is under way.
    pub(crate) seed: u64,
    pub(crate) is_running: bool,
    pub(crate) now: u64,
    /// How far the coarse clock was set forth or back.
    pub(crate) set_by: i64,
    /// How much time has passed while threads could have run, and did not.
    pub(crate) starved: u64,
    /// The clock runs although others could.
    pub(crate) is_rushed: bool,
    /// The clock is waking others, and is not to be interrupted.
    pub(crate) is_waking: bool,
    pub(crate) is_over: bool,
    /// No thread is starved any more.
    pub(crate) is_punctual: bool,
    pub(crate) random: Random,
    alarms: BTreeMap<(u64, u64), Alarm>,
    count: u64,
    pub(crate) numbers: u64,
    /// Threads that have not ended; how many there may be, and how many could not be started.
    pub(crate) threads: usize,
    pub(crate) most_threads: usize,
    pub(crate) refused_threads: u64,
    pub(crate) net: Net,
    pub(crate) violations: Vec<String>,
    pub(crate) is_traced: bool,
    pub(crate) lines: VecDeque<String>,
}

/// What is to happen at a time.
#[derive(Debug)]
pub(crate) enum Alarm {
    Wake(Thread),
    Net(News),
}

/// How a simulation stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Survey {
    pub now: u64,
    pub threads: usize,
    pub refused_threads: u64,
    /// Descriptors that are open.
    pub descriptors: usize,
    pub refused_descriptors: u64,
    /// Sockets that were ever connected.
    pub connected: u64,
    /// What the hosts did wrong, as they were told.
    pub faults: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            seed,
            is_running: false,
            now: 1_000_000_000,
            set_by: 0,
            starved: 0,
            is_rushed: false,
            is_waking: false,
            is_over: false,
            is_punctual: false,
            random: Random::new(seed),
            alarms: BTreeMap::new(),
            count: 0,
            numbers: 0,
            threads: 0,
            most_threads: usize::MAX,
            refused_threads: 0,
            net: Net::default(),
            violations: Vec::new(),
            is_traced: false,
            lines: VecDeque::new(),
        }
    }

    /// Has something happen at a time; returns a name by which it can be cancelled.
    pub(crate) fn set_alarm(&mut self, at: u64, alarm: Alarm) -> (u64, u64) {
        self.count += 1;
        let name = (at.max(self.now), self.count);
        self.alarms.insert(name, alarm);
        name
    }

    pub(crate) fn cancel_alarm(&mut self, name: (u64, u64)) {
        self.alarms.remove(&name);
    }

    pub(crate) fn next_alarm(&self) -> Option<u64> {
        self.alarms.first_key_value().map(|((at, _), _)| *at)
    }

    /// Takes out what is due.
    pub(crate) fn take_due(&mut self) -> Option<Alarm> {
        let entry = self.alarms.first_entry()?;
        (entry.key().0 <= self.now).then(|| entry.remove())
    }

    /// Something arrives; returns who has waited for it.
    pub(crate) fn deliver(&mut self, news: News) -> Vec<Thread> {
        self.note(|| format!("net: {news}"));
        let mut later = Later { now: self.now, random: &mut self.random, news: Vec::new() };
        let woken = self.net.deliver(news, &mut later);
        let news = later.news;
        self.set_news(news);
        woken
    }

    /// Does something in the network; what comes of it later is put down.
    pub(crate) fn in_net<R>(&mut self, act: impl FnOnce(&mut Net, &mut Later<'_>) -> R) -> R {
        let mut later = Later { now: self.now, random: &mut self.random, news: Vec::new() };
        let result = act(&mut self.net, &mut later);
        let news = later.news;
        self.set_news(news);
        result
    }

    fn set_news(&mut self, news: Vec<(u64, News)>) {
        for (at, news) in news {
            self.set_alarm(at, Alarm::Net(news));
        }
    }

    pub(crate) fn note(&mut self, line: impl FnOnce() -> String) {
        if self.is_traced {
            if self.lines.len() == MOST_LINES {
                self.lines.pop_front();
            }
            let now = self.now as f64 / 1e6;
            self.lines.push_back(format!("{now:12.4} ms  {}", line()));
        }
    }
}

/// Looks at the world. Nothing in `act` may let another thread run.
pub(crate) fn with<R>(act: impl FnOnce(&mut World) -> R) -> R {
    WORLD.with(|world| act(&mut world.borrow_mut()))
}

/// Begins a new one; returns what was left of the last.
pub(crate) fn begin(seed: u64) -> World {
    WORLD.with(|world| world.replace(World::new(seed)))
}

/// The precise clock, in nanoseconds.
#[must_use]
pub fn now() -> u64 {
    with(|world| world.now)
}

/// The coarse clock, which steps in ticks and can be set.
#[must_use]
pub fn wall() -> u64 {
    with(|world| {
        let epoch = 1_700_000_000_000_000_000_u64;
        (epoch + world.now / TICK * TICK).saturating_add_signed(world.set_by)
    })
}

/// How much time has passed so far while threads could have run, and did not.
#[must_use]
pub fn starved() -> u64 {
    with(|world| world.starved)
}

/// True if an execution has come to its end: what is dropped after it does nothing any more.
#[must_use]
pub fn has_ended() -> bool {
    with(|world| !world.is_running)
}

#[must_use]
pub fn random_below(bound: u64) -> u64 {
    with(|world| world.random.below(bound))
}

/// From now on no more threads than this can be started.
pub fn set_thread_limit(most: Option<usize>) {
    with(|world| world.most_threads = most.unwrap_or(usize::MAX));
}

/// From now on time passes only when no thread can run.
pub fn be_punctual() {
    with(|world| world.is_punctual = true);
}

/// The coarse clock is set forth, or back, against the precise one.
pub fn set_clock_by(nanos: i64) {
    with(|world| world.set_by = nanos);
}

#[must_use]
pub fn survey() -> Survey {
    with(|world| Survey {
        now: world.now,
        threads: world.threads,
        refused_threads: world.refused_threads,
        descriptors: world.net.descriptors(),
        refused_descriptors: world.net.refused,
        connected: world.net.connected,
        faults: world.net.faults,
    })
}

/// Notes a line of what happens, if anybody wants to read it.
pub fn trace(line: impl FnOnce() -> String) {
    with(|world| world.note(line));
}

/// Numbers that follow from a seed (splitmix64).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    #[must_use]
    pub const fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`; zero if that is zero.
    #[must_use]
    pub const fn below(&mut self, bound: u64) -> u64 {
        let number = self.number();
        if bound == 0 { 0 } else { number % bound }
    }

    /// True so many times of a thousand.
    #[must_use]
    pub const fn permille(&mut self, chance: u64) -> bool {
        self.below(1000) < chance
    }

    #[must_use]
    pub const fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.below(most.saturating_sub(least) + 1)
    }

    /// One of several; the first if there is none.
    pub fn one_of<'a, T>(&mut self, several: &'a [T]) -> &'a T {
        let at = self.below(several.len() as u64) as usize;
        several.get(at).expect("there is at least one")
    }
}
