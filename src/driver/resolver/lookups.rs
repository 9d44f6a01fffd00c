//! The threads that look names up.

use crate::clock::{self, Stamp};
use crate::core::{Cut, Notice};
use crate::driver::crew::{Crew, Fate, Job, Kind, Mark};
use crate::driver::reaper::{Bell, Reaper};
use crate::driver::resolver::cache::HUNG_AFTER;
use crate::driver::roster::MOST_LOOK_UPS;
use crate::driver::watch::Ward;
use crate::shared::drop_guarded;
use crate::sync::{self, Arc, Mutex, OnceLock, Weak};

/// Look-ups that may be out, hung, beside those that count.
const MOST_HUNG: usize = 16;

/// Look-ups belong to no pool: several may wait for one.
const NO_POOL: u64 = 0;

/// Threads of their own: one that hangs must not keep connections from being opened, checked or
/// closed. Cloning makes a second handle to the same.
#[derive(Clone, Debug)]
pub(crate) struct LookUps {
    watch: Arc<Watch>,
}

/// What the reaper knows of them, to come for those that hang.
#[derive(Debug)]
struct Watch {
    crew: Crew,
    running: Mutex<Running>,
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
        let crew = Crew::new(format!("{name}-dns"));
        let bell = OnceLock::new();
        Self { watch: Arc::new(Watch { crew, running: Mutex::default(), bell }) }
    }

    /// From now on the reaper sees to it that none is in the way of others for ever.
    pub(crate) fn admit_to(&self, reaper: &Arc<Reaper>) {
        let ward: Weak<dyn Ward> = Arc::<Watch>::downgrade(&self.watch);
        let watch = Arc::downgrade(&self.watch);
        self.watch.crew.when_short(move || {
            let watch = watch.upgrade();
            if let Some(bell) = watch.as_ref().and_then(|watch| watch.bell.get()) {
                bell.ring();
            }
        });
        self.watch.bell.get_or_init(|| reaper.admit(ward));
    }

    /// Has a thread look something up.
    pub(crate) fn submit(&self, mark: Arc<Mark>, look_up: impl FnOnce(Fate) + Send + 'static) {
        self.replace_hung(clock::mono());
        let watch = Arc::clone(&self.watch);
        let run = Box::new({
            let mark = Arc::clone(&mark);
            move |fate| {
                let entered = (fate == Fate::Run).then(|| Entered::new(watch, mark));
                look_up(fate);
                drop(entered);
            }
        });
        self.watch.crew.submit(Job { kind: Kind::LookUp, pool: NO_POOL, mark, run });
    }

    /// If all threads are busy, those that have been for too long are counted no more.
    pub(crate) fn replace_hung(&self, now: Stamp) {
        self.watch.replace_hung(now);
    }

    /// Refuses a look-up that no thread has taken yet.
    pub(crate) fn withdraw(&self, mark: &Arc<Mark>) {
        self.watch.crew.withdraw(mark, NO_POOL, Kind::LookUp);
    }

    /// Drops somebody else's values: here, if this thread may block, and else on one that may.
    pub(crate) fn let_go<T: Send + 'static>(&self, what: T) {
        if sync::must_not_block() {
            self.watch.crew.drop_elsewhere(what, NO_POOL);
        } else {
            drop_guarded(what);
        }
    }

    /// Lets go of what others may hold too.
    pub(crate) fn let_go_of<T: Send + Sync + 'static>(
        &self,
        what: impl IntoIterator<Item = Arc<T>>,
    ) {
        what.into_iter().for_each(|held| self.watch.crew.let_go(held, NO_POOL));
    }

    /// No new look-ups. Those that run are left to end.
    pub(crate) fn stop(&self) {
        self.watch.crew.stop();
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
        let now = clock::mono();
        self.replace_hung(now);
        let relief_at = self.running.lock().relief_at().unwrap_or(Stamp::MAX);
        relief_at.min(self.crew.retry(now))
    }
}

/// A look-up's entry among those that have a thread.
struct Entered {
    watch: Arc<Watch>,
    mark: Arc<Mark>,
}

impl Entered {
    fn new(watch: Arc<Watch>, mark: Arc<Mark>) -> Self {
        let mut running = watch.running.lock();
        running.counted.push((Arc::clone(&mark), clock::mono()));
        let is_full = running.relief_at().is_some();
        drop(running);
        if let (true, Some(bell)) = (is_full, watch.bell.get()) {
            bell.ring(); // it has something to watch from now on
        }
        Self { watch, mark }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut running = self.watch.running.lock();
        let own = running.counted.iter().position(|(mark, _)| Arc::ptr_eq(mark, &self.mark));
        match own {
            Some(at) => drop(running.counted.swap_remove(at)),
            None => running.hung -= 1,
        }
    }
}

#[cfg(test)]
mod tests;
