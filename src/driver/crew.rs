//! The threads that may block: on peers, on name servers, in other people's code.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use crate::clock::{Deadline, Stamp};
use crate::driver::roster::Roster;
use crate::shared::drop_guarded;
use crate::sync::{self, Arc, AtomicBool, Condvar, Mutex, MutexGuard, OnceLock, Ordering};

/// A thread without work ends after this.
const IDLE_FOR: Duration = Duration::from_secs(10);
/// Threads that could not be started are tried again after this.
const AFTER_SHORTAGE: Duration = Duration::from_millis(100);

/// Threads on demand. Cloning makes a second handle to the same crew.
#[derive(Clone, Debug)]
pub(crate) struct Crew(Arc<Inner>);

struct Inner {
    name: String,
    state: Mutex<State>,
    work: Condvar,
    ended: Condvar,
    /// Has somebody [try again](Crew::retry) later.
    alarm: OnceLock<Box<dyn Fn() + Send + Sync>>,
    /// The last thread could not be started, and that was said.
    is_refused: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    roster: Roster,
    /// Those abandoned not counted.
    threads: usize,
    /// Of those, how many wait for work, and how many were started and have not looked for any.
    idle: usize,
    starting: usize,
    is_stopping: bool,
    started: usize,
    /// Jobs wait for a thread that could not be started.
    is_short: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// Opens a connection to this endpoint of the pool.
    Open(u32),
    /// Checks or settles one.
    Upkeep,
    /// Closes a connection.
    Close,
    /// The last drop of an endpoint or a pool. Nobody waits for it.
    LetGo,
    /// Looks up a name.
    LookUp,
}

/// Something to do that may block.
pub(crate) struct Job {
    pub(crate) kind: Kind,
    pub(crate) pool: u64,
    pub(crate) mark: Arc<Mark>,
    pub(crate) run: Box<dyn FnOnce(Fate) + Send>,
}

/// What became of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is its turn, on a thread of the crew.
    Run,
    /// No thread will ever take it. On whichever thread found that out.
    Refused,
}

/// Shared by a job and whoever may have to give it up: the first of the two to settle it takes it
/// out of the crew's books.
#[derive(Debug, Default)]
pub(crate) struct Mark {
    is_settled: AtomicBool,
}

impl Job {
    /// No thread will take it: it ends here, on this thread, and is in nobody's books.
    fn refuse(self) {
        self.mark.is_settled.store(true, Ordering::Release);
        (self.run)(Fate::Refused);
    }
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job").field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl Crew {
    /// Threads of this name and a number.
    pub(crate) fn new(name: String) -> Self {
        let state = Mutex::new(State::default());
        let (work, ended) = (Condvar::new(), Condvar::new());
        let (alarm, is_refused) = (OnceLock::new(), AtomicBool::new(false));
        Self(Arc::new(Inner { name, state, work, ended, alarm, is_refused }))
    }

    /// Names whom to alarm when jobs wait because no thread could be started: it is to
    /// [retry](Crew::retry) until none do.
    pub(crate) fn when_short(&self, alarm: impl Fn() + Send + Sync + 'static) {
        self.0.alarm.get_or_init(|| Box::new(alarm));
    }

    /// Has a thread do the job, as soon as the limits allow. It is refused if the crew has stopped,
    /// or if no thread could be started and none is there.
    pub(crate) fn submit(&self, job: Job) {
        let mut state = self.0.state.lock();
        if state.is_stopping {
            drop(state);
            job.refuse();
            return;
        }
        state.roster.add(job);
        Inner::staff(&self.0, state);
    }

    /// Gives up the thread that has this job: it counts no more, and ends when the job does.
    ///
    /// Does nothing if the job has ended in the meantime.
    pub(crate) fn abandon(&self, mark: &Mark, pool: u64, kind: Kind) {
        let mut state = self.0.state.lock();
        if mark.is_settled.swap(true, Ordering::AcqRel) {
            return;
        }
        state.threads -= 1;
        state.roster.ended(kind, pool);
        Inner::staff(&self.0, state);
        self.0.ended.notify_all();
    }

    /// Refuses a job that no thread has taken yet. Does nothing if one has.
    pub(crate) fn withdraw(&self, mark: &Arc<Mark>, pool: u64, kind: Kind) {
        let mut state = self.0.state.lock();
        let job = state.roster.withdraw(kind, pool, mark);
        Inner::staff(&self.0, state);
        if let Some(job) = job {
            job.refuse();
        }
        self.0.ended.notify_all();
    }

    /// Lets go of what others hold too. The last of it is dropped where user code may run: keys and
    /// connectors are in it.
    pub(crate) fn let_go<T: Send + 'static>(&self, held: Arc<T>, pool: u64) {
        if !sync::must_not_block() {
            drop_guarded(held);
        } else if let Some(last) = Arc::into_inner(held) {
            self.drop_elsewhere(last, pool);
        }
    }

    /// Drops something on a thread where that may take its time.
    pub(crate) fn drop_elsewhere<T: Send + 'static>(&self, what: T, pool: u64) {
        let run = Box::new(move |_| drop_guarded(what));
        self.submit(Job { kind: Kind::LetGo, pool, mark: Arc::default(), run });
    }

    /// No new work. Threads finish what is queued, then end.
    pub(crate) fn stop(&self) {
        let mut state = self.0.state.lock();
        state.is_stopping = true;
        // What could not have a thread before is done by one now, or refused.
        Inner::staff(&self.0, state);
        self.0.work.notify_all();
    }

    /// Tries once more to start a thread for jobs that wait because none could be started. Returns
    /// when to try again, if they wait on.
    pub(crate) fn retry(&self, now: Stamp) -> Stamp {
        let mut state = self.0.state.lock();
        let waits_on = std::mem::take(&mut state.is_short) && !Inner::try_to_staff(&self.0, state);
        if waits_on { now.plus(AFTER_SHORTAGE) } else { Stamp::MAX }
    }

    /// Waits until no thread does anything for `pool`, nor is to; false if the deadline came first.
    pub(crate) fn await_pool(&self, pool: u64, deadline: Deadline) -> bool {
        self.await_state(deadline, |state| state.roster.jobs_of(pool) == 0)
    }

    /// Waits until the last thread has ended; false if the deadline came first.
    #[cfg(test)]
    fn join(&self, deadline: Deadline) -> bool {
        self.await_state(deadline, |state| state.threads == 0)
    }

    fn await_state(&self, deadline: Deadline, is_reached: impl Fn(&State) -> bool) -> bool {
        let mut state = self.0.state.lock();
        while !is_reached(&state) {
            let left = deadline.remaining();
            if left.is_zero() {
                return false;
            }
            state.wait_for(&self.0.ended, left);
        }
        true
    }
}

impl Inner {
    /// Sees to it that each job that may run finds a thread, now or later.
    fn staff(this: &Arc<Self>, state: MutexGuard<'_, State>) {
        if !Self::try_to_staff(this, state) {
            if let Some(alarm) = this.alarm.get() {
                alarm();
            }
        }
    }

    /// Wakes a thread for a job that may run, or starts another; false if none could be started,
    /// and jobs wait for it.
    fn try_to_staff(this: &Arc<Self>, mut state: MutexGuard<'_, State>) -> bool {
        let ready = state.roster.ready();
        if ready == 0 {
            return true;
        }
        if ready <= state.idle + state.starting {
            drop(state);
            this.work.notify_one();
            return true;
        }
        state.threads += 1;
        state.starting += 1;
        state.started += 1;
        let (name, idle) = (format!("{}-{}", this.name, state.started), state.idle);
        drop(state);
        if idle > 0 {
            this.work.notify_one();
        }
        let inner = Arc::clone(this);
        match sync::spawn(name, move || Self::work_until_idle(&inner)) {
            Ok(_detached) => {
                this.is_refused.store(false, Ordering::Relaxed);
                true
            }
            Err(error) => !this.is_left_short(&error),
        }
    }

    /// Others will come to the jobs, if there are any, and not all of them hang. True if some wait.
    fn is_left_short(&self, error: &io::Error) -> bool {
        let is_known = self.is_refused.swap(true, Ordering::Relaxed);
        let level = if is_known { log::Level::Debug } else { log::Level::Warn };
        log::log!(level, error:% = error; "could not start a thread of the crew: {error}");
        let mut state = self.state.lock();
        state.threads -= 1;
        state.starting -= 1;
        let is_last = state.threads == 0;
        let jobs = if is_last { state.roster.take_all() } else { Vec::new() };
        // What would block this thread waits until another can be started after all.
        let can_wait = sync::must_not_block() && !state.is_stopping;
        let waits = |job: &Job| can_wait && matches!(job.kind, Kind::Close | Kind::LetGo);
        let (later, jobs): (Vec<_>, Vec<_>) = jobs.into_iter().partition(waits);
        later.into_iter().for_each(|job| state.roster.add(job));
        state.is_short = state.roster.ready() > 0;
        let is_short = state.is_short;
        drop(state);
        jobs.into_iter().for_each(Job::refuse);
        self.ended.notify_all();
        is_short
    }

    fn work_until_idle(this: &Arc<Self>) {
        let mut is_new = true;
        loop {
            let Some(job) = Self::next_job(this, std::mem::take(&mut is_new)) else { return };
            let Job { kind, pool, mark, run } = job;
            {
                let _working = sync::working_for(pool);
                // Jobs catch the panics of user code themselves; this keeps the counts right if
                // one of ours has a bug.
                if catch_unwind(AssertUnwindSafe(|| run(Fate::Run))).is_err() {
                    log::error!("a job of the crew panicked");
                }
            }
            let mut state = this.state.lock();
            if mark.is_settled.swap(true, Ordering::AcqRel) {
                return; // abandoned, and no longer counted
            }
            state.roster.ended(kind, pool);
            drop(state);
            this.ended.notify_all();
        }
    }

    /// Waits for work; `None`: this thread is no longer counted and must end.
    fn next_job(this: &Arc<Self>, is_new: bool) -> Option<Job> {
        let mut state = this.state.lock();
        state.starting -= usize::from(is_new);
        loop {
            if let Some(job) = state.roster.take() {
                if state.is_stopping && state.roster.is_empty() {
                    // Whoever waits for a job that only now could be taken may end.
                    this.work.notify_all();
                }
                // The end of one job may have made way for several.
                Self::staff(this, state);
                return Some(job);
            }
            let may_end = state.is_stopping && state.roster.is_empty();
            if !may_end {
                state.idle += 1;
                let timed_out = state.wait_for(&this.work, IDLE_FOR);
                state.idle -= 1;
                if !timed_out || state.roster.ready() > 0 {
                    continue;
                }
            }
            state.threads -= 1;
            drop(state);
            this.ended.notify_all();
            return None;
        }
    }
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut debug = f.debug_struct("Inner");
        debug.field("name", &self.name).field("state", &self.state).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
