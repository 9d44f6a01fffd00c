//! Time: the thread that sleeps until something is due, in any of the pools it looks after.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use crate::clock::{self, Now, Stamp};
use crate::driver::crew::Crew;
use crate::driver::watch::Ward;
use crate::driver::worker::Worker;
use crate::shared::millis;
use crate::sync::{self, Arc, AtomicBool, Mutex, Ordering, Parker, Unparker, Weak};

/// A look that is so much too late is worth a line in the log.
const LATE: Duration = Duration::from_secs(1);
/// A look that panics, in the drop of a user's value say, is not repeated at once.
const AFTER_PANIC: Duration = Duration::from_millis(100);

/// What other threads have of the reaper.
#[derive(Debug)]
pub(crate) struct Reaper {
    rounds: Mutex<Vec<Round>>,
    unparker: Unparker,
}

/// A pool on its rounds.
#[derive(Debug)]
struct Round {
    ward: Weak<dyn Ward>,
    bell: Arc<AtomicBool>,
    next: Stamp,
}

/// Rings for the reaper, on behalf of one pool.
#[derive(Debug)]
pub(crate) struct Bell {
    rings: Arc<AtomicBool>,
    reaper: Arc<Reaper>,
}

impl Bell {
    /// Has the reaper look after the pool at once.
    pub(crate) fn ring(&self) {
        self.rings.store(true, Ordering::Release);
        self.reaper.unparker.unpark();
    }
}

impl Drop for Bell {
    /// The pool leaves its rounds.
    fn drop(&mut self) {
        let mut rounds = self.reaper.rounds.lock();
        let at = rounds.iter().position(|round| Arc::ptr_eq(&round.bell, &self.rings));
        let gone = at.map(|at| rounds.swap_remove(at));
        drop(rounds);
        drop(gone);
    }
}

impl Reaper {
    /// Starts the thread. It makes no wake-ups of its own: with nothing due it sleeps until a bell
    /// rings.
    pub(crate) fn start(name: &str, crew: Crew) -> io::Result<(Arc<Self>, Worker)> {
        let parker = Parker::new();
        let this = Arc::new(Self { rounds: Mutex::default(), unparker: parker.unparker().clone() });
        let unparker = this.unparker.clone();
        crew.when_short({
            let unparker = unparker.clone();
            move || unparker.unpark()
        });
        let worker = Worker::start(format!("{name}-reaper"), move || unparker.unpark(), {
            let this = Arc::clone(&this);
            move |stop| this.run(&parker, &crew, stop)
        })?;
        Ok((this, worker))
    }

    /// Takes a pool on its rounds, and looks after it at once.
    pub(crate) fn admit(self: &Arc<Self>, ward: Weak<dyn Ward>) -> Bell {
        let rings = Arc::new(AtomicBool::new(true));
        let round = Round { ward, bell: Arc::clone(&rings), next: Stamp::MAX };
        self.rounds.lock().push(round);
        self.unparker.unpark();
        Bell { rings, reaper: Arc::clone(self) }
    }

    fn run(&self, parker: &Parker, crew: &Crew, stop: &AtomicBool) {
        let _working = sync::working_for(sync::EVERY_POOL);
        let mut punctuality = Punctuality::new(Now::read());
        while !stop.load(Ordering::Acquire) {
            punctuality.look_is_due(Now::read());
            let next = self.look(crew, stop);
            punctuality.planned = next;
            if next == Stamp::MAX {
                parker.park();
                continue;
            }
            let left = next.since(clock::mono());
            if left > Duration::ZERO {
                parker.park_timeout(left);
            }
        }
    }

    /// Looks after all pools where something is due; returns when something will be, in any.
    fn look(&self, crew: &Crew, stop: &AtomicBool) -> Stamp {
        let now = clock::mono();
        let retry_at = crew.retry(now);
        let is_due = |round: &&Round| round.bell.swap(false, Ordering::AcqRel) || round.next <= now;
        let due: Vec<_> = {
            let rounds = self.rounds.lock();
            let due = rounds.iter().filter(is_due);
            due.map(|round| (Arc::clone(&round.bell), Weak::clone(&round.ward))).collect()
        };
        for (bell, ward) in due {
            if stop.load(Ordering::Acquire) {
                break;
            }
            let look = || ward.upgrade().map_or(Stamp::MAX, |ward| ward.look(crew));
            let next = catch_unwind(AssertUnwindSafe(look)).unwrap_or_else(|_| {
                log::error!("the reaper panicked; it goes on");
                clock::mono().plus(AFTER_PANIC)
            });
            let mut rounds = self.rounds.lock();
            if let Some(round) = rounds.iter_mut().find(|round| Arc::ptr_eq(&round.bell, &bell)) {
                round.next = next;
            }
        }
        let rounds = self.rounds.lock();
        rounds.iter().map(|round| round.next).fold(retry_at, Stamp::min)
    }
}

/// Sees whether the reaper looks in time. Nothing is done wrongly where it does not: what was due
/// is due still, and what was idle meanwhile is proved before it goes out. But whoever wonders
/// should find it in the log.
#[derive(Debug)]
struct Punctuality {
    /// When it last looked, and when it was to look next.
    looked: Now,
    planned: Stamp,
}

impl Punctuality {
    const fn new(now: Now) -> Self {
        Self { looked: now, planned: Stamp::MAX }
    }

    /// It looks: how late it is, and for how long the machine has slept, or by how much its clock
    /// was set, each if it is worth a word.
    fn note_look(&mut self, now: Now) -> (Option<Duration>, Option<Duration>) {
        let late = now.mono.since(self.planned);
        let passed = Duration::from_nanos(now.wall.apart(self.looked.wall));
        let jump = passed.abs_diff(now.mono.since(self.looked.mono));
        self.looked = now;
        (Some(late).filter(|late| *late >= LATE), Some(jump).filter(|jump| *jump >= LATE))
    }

    fn look_is_due(&mut self, now: Now) {
        let (late, jump) = self.note_look(now);
        if let Some(late) = late {
            log::warn!(
                late_ms = millis(late);
                "the reaper looks {late:.1?} late: this process was kept from running"
            );
        }
        if let Some(jump) = jump {
            log::info!(
                slept_ms = millis(jump);
                "the machine slept for {jump:.1?}, or its clock was set by that"
            );
        }
    }
}

#[cfg(test)]
mod tests;
