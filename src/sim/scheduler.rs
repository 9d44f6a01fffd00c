//! Which thread goes on.

use std::collections::HashMap;

use shuttle::scheduler::{Schedule, Scheduler, Task, TaskId};

use crate::sim::engine::Config;
use crate::sim::world::{self, Random, World};

/// What every step takes: so that whoever turns in a circle comes to its deadline.
const STEP: u64 = 20;

/// Chooses who goes on, as a configuration says.
pub(super) struct Seeded<N> {
    next: N,
    config: Config,
    random: Random,
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
        world::with(|world| self.choose(world, live().collect(), current, clock))
    }

    fn next_u64(&mut self) -> u64 {
        self.random.number()
    }
}

impl<N> Seeded<N> {
    pub(super) fn new(next: N) -> Self {
        Self {
            next,
            config: Config::new(0),
            random: Random::new(0),
            laggard: None,
            ranks: Ranks::default(),
        }
    }

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
