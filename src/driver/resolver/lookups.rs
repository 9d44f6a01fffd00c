//! The threads that look names up.

use crate::clock::{self, Stamp};
use crate::core::{Cut, Notice};
use crate::driver::crew::{Crew, Fate, Job, Kind, Mark, drop_guarded};
use crate::driver::reaper::{Bell, Reaper};
use crate::driver::resolver::cache::HUNG_AFTER;
use crate::driver::roster::MOST_LOOK_UPS;
use crate::driver::watch::Ward;
use crate::sync::{self, Arc, Mutex, OnceLock, Weak};

/// Look-ups that may be out, hung, beside those that count.
const MOST_HUNG: usize = 16;

/// Look-ups belong to no pool: several may wait for one.
const NO_POOL: u64 = 0;

/// Threads of their own: one that hangs must not keep connections from being opened, checked or
/// closed. Cloning makes a second handle to the same.
#[derive(Clone, Debug)]
pub(crate) struct LookUps {
    crew: Crew,
    running: Arc<Mutex<Running>>,
    watch: Arc<Watch>,
}

/// Has the reaper come for those that hang.
#[derive(Debug)]
struct Watch {
    crew: Crew,
    running: Arc<Mutex<Running>>,
    bell: OnceLock<Bell>,
}

#[derive(Debug, Default)]
struct Running {
    /// Those that have a thread, and since when.
    counted: Vec<(Arc<Mark>, Stamp)>,
    /// How many were given up and have not returned.
    hung: usize,
}

impl Running {
    /// When the oldest is to be taken for hung, if all threads are busy and another may begin.
    fn relief_at(&self) -> Option<Stamp> {
        if self.counted.len() < MOST_LOOK_UPS || self.hung >= MOST_HUNG {
            return None;
        }
        self.counted.iter().map(|(_, began)| began.plus(HUNG_AFTER)).min()
    }
}

impl LookUps {
    pub(crate) fn new(name: &str) -> Self {
        let (crew, running) = (Crew::new(format!("{name}-dns")), Arc::<Mutex<Running>>::default());
        let (its_crew, its_running) = (crew.clone(), Arc::clone(&running));
        let watch = Watch { crew: its_crew, running: its_running, bell: OnceLock::new() };
        Self { crew, running, watch: Arc::new(watch) }
    }

    /// From now on the reaper sees to it that none is in the way of others for ever.
    pub(crate) fn admit_to(&self, reaper: &Arc<Reaper>) {
        let ward: Weak<dyn Ward> = Arc::<Watch>::downgrade(&self.watch);
        self.watch.bell.get_or_init(|| reaper.admit(ward));
    }

    /// Has a thread look something up.
    pub(crate) fn submit(&self, mark: Arc<Mark>, look_up: impl FnOnce(Fate) + Send + 'static) {
        self.replace_hung(clock::mono());
        let running = Arc::clone(&self.running);
        let run = Box::new({
            let mark = Arc::clone(&mark);
            move |fate| {
                let entered = (fate == Fate::Run).then(|| Entered::new(running, mark));
                look_up(fate);
                drop(entered);
            }
        });
        self.crew.submit(Job { kind: Kind::LookUp, pool: NO_POOL, mark, run });
    }

    /// Somebody must wait for a look-up. If all threads are busy, sees to it that none hangs for
    /// ever in its way.
    pub(crate) fn await_turn(&self) {
        self.replace_hung(clock::mono());
        let is_full = self.running.lock().relief_at().is_some();
        if let (true, Some(bell)) = (is_full, self.watch.bell.get()) {
            bell.ring();
        }
    }

    /// If all threads are busy, those that have been for too long are counted no more.
    fn replace_hung(&self, now: Stamp) {
        self.watch.replace_hung(now);
    }

    /// Refuses a look-up that no thread has taken yet.
    pub(crate) fn withdraw(&self, mark: &Arc<Mark>) {
        self.crew.withdraw(mark, NO_POOL, Kind::LookUp);
    }

    /// Drops somebody else's values: here, if this thread may block, and else on one that may.
    pub(crate) fn let_go<T: Send + 'static>(&self, what: T) {
        if sync::must_not_block() {
            self.crew.drop_elsewhere(what, NO_POOL);
        } else {
            drop_guarded(what);
        }
    }

    /// The same with several, if there are any: else no thread is asked for.
    pub(crate) fn let_go_all<T: Send + 'static>(&self, what: Vec<T>) {
        if !what.is_empty() {
            self.let_go(what);
        }
    }

    /// No new look-ups. Those that run are left to end.
    pub(crate) fn stop(&self) {
        self.crew.stop();
    }
}

impl Watch {
    fn replace_hung(&self, now: Stamp) {
        let mut running = self.running.lock();
        if running.counted.len() < MOST_LOOK_UPS {
            return;
        }
        let may_go = MOST_HUNG - running.hung;
        let is_hung = |(_, began): &(_, Stamp)| now.since(*began) >= HUNG_AFTER;
        let (mut hung, mut kept): (Vec<_>, Vec<_>) =
            std::mem::take(&mut running.counted).into_iter().partition(is_hung);
        kept.extend(hung.drain(may_go.min(hung.len())..));
        running.counted = kept;
        running.hung += hung.len();
        drop(running);
        for (mark, _) in hung {
            self.crew.abandon(&mark, NO_POOL, Kind::LookUp);
        }
    }
}

impl Ward for Watch {
    /// It has no connections.
    fn noticed(self: Arc<Self>, _: Cut, _: Notice, _: &Crew) {}

    fn look(self: Arc<Self>, _: &Crew) -> Stamp {
        self.replace_hung(clock::mono());
        self.running.lock().relief_at().unwrap_or(Stamp::MAX)
    }
}

/// A look-up's entry among those that have a thread.
struct Entered {
    running: Arc<Mutex<Running>>,
    mark: Arc<Mark>,
}

impl Entered {
    fn new(running: Arc<Mutex<Running>>, mark: Arc<Mark>) -> Self {
        running.lock().counted.push((Arc::clone(&mark), clock::mono()));
        Self { running, mark }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut running = self.running.lock();
        let own = running.counted.iter().position(|(mark, _)| Arc::ptr_eq(mark, &self.mark));
        match own {
            Some(at) => drop(running.counted.swap_remove(at)),
            None => running.hung -= 1,
        }
    }
}

#[cfg(test)]
mod tests;
