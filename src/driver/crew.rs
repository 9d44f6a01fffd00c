//! The threads that may block: on peers, on name servers, in other people's code.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use crate::clock::Deadline;
use crate::sync::{self, Arc, AtomicBool, Condvar, Mutex, MutexGuard, Ordering};

/// Threads at the most, those abandoned not counted.
const MOST_THREADS: usize = 64;
/// Of those, how many may be opening connections, so that checks and settles find one.
const MOST_OPENING: usize = 48;
/// Of those, how many to one endpoint.
const MOST_OPENING_PER_ENDPOINT: usize = 16;
/// Of those, how many may be closing: a close is never abandoned, so those that hang must not take
/// all there is.
const MOST_CLOSING: usize = 16;
/// Of those, how many of one pool.
const MOST_CLOSING_PER_POOL: usize = 8;
/// A thread without work ends after this.
const IDLE_FOR: Duration = Duration::from_secs(10);

/// Threads on demand. Cloning makes a second handle to the same crew.
#[derive(Clone, Debug)]
pub(crate) struct Crew(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: String,
    state: Mutex<State>,
    work: Condvar,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Job>,
    threads: usize,
    idle: usize,
    opening: usize,
    closing: usize,
    /// For each endpoint, how many of its connections are being opened.
    opening_for: Vec<(Place, usize)>,
    /// For each pool, how many of its connections are being closed.
    closing_for: Vec<(u64, usize)>,
    /// For each pool, how many jobs are queued or have a thread; those abandoned not counted.
    jobs_of: Vec<(u64, usize)>,
    is_stopping: bool,
    started: usize,
}

/// An endpoint of a pool.
pub(crate) type Place = (u64, u32);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Opens a connection to this endpoint, or looks up its name.
    Open(Place),
    /// Checks or settles one.
    Upkeep,
    /// The last drop of an endpoint or a pool. Nobody waits for it.
    LetGo,
    /// Closes a connection.
    Close,
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
    /// No thread will ever take it. On the thread that submitted it.
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
    pub(crate) fn refuse(self) {
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
    pub(crate) fn new(name: &str) -> Self {
        let name = format!("{name}-crew");
        let state = Mutex::new(State::default());
        Self(Arc::new(Inner { name, state, work: Condvar::new(), ended: Condvar::new() }))
    }

    /// Queues a job, and starts a thread for it if none is free.
    ///
    /// # Errors
    ///
    /// The job, if no thread can take it: the crew has stopped, or no thread could be started and
    /// none is there.
    pub(crate) fn submit(&self, job: Job) -> Result<(), (Job, io::Error)> {
        let mut state = self.0.state.lock();
        if state.is_stopping {
            drop(state);
            return Err((job, io::Error::other("the crew has stopped")));
        }
        let (mark, pool, is_counted) = (Arc::clone(&job.mark), job.pool, job.kind != Kind::LetGo);
        if is_counted {
            add(&mut state.jobs_of, pool);
        }
        state.queue.push_back(job);
        let Err(error) = self.staff(state) else { return Ok(()) };
        // Other threads will come to it, if there are any.
        let mut state = self.0.state.lock();
        if state.threads > 0 {
            drop(state);
            log::warn!("could not start a thread of the crew: {error}");
            return Ok(());
        }
        let at = state.queue.iter().position(|queued| Arc::ptr_eq(&queued.mark, &mark));
        let unstarted = at.and_then(|at| state.queue.remove(at));
        if unstarted.is_some() && is_counted {
            subtract(&mut state.jobs_of, pool);
        }
        drop(state);
        unstarted.map_or(Ok(()), |job| Err((job, error)))
    }

    /// Wakes an idle thread or starts another, if there is work for it.
    fn staff(&self, mut state: MutexGuard<'_, State>) -> io::Result<()> {
        let runnable = state.runnable();
        if runnable == 0 {
            return Ok(());
        }
        if state.idle >= runnable || state.threads >= MOST_THREADS {
            drop(state);
            self.0.work.notify_one();
            return Ok(());
        }
        state.threads += 1;
        state.started += 1;
        let name = format!("{}-{}", self.0.name, state.started);
        let idle = state.idle;
        drop(state);
        if idle > 0 {
            self.0.work.notify_one();
        }
        let inner = Arc::clone(&self.0);
        let spawned = sync::spawn(name, move || inner.work_until_idle());
        if let Err(error) = spawned {
            self.0.state.lock().threads -= 1;
            return Err(error);
        }
        Ok(())
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
        state.job_ended(pool, kind);
        if let Err(error) = self.staff(state) {
            log::warn!("could not start a thread of the crew: {error}");
        }
        self.0.ended.notify_all();
    }

    /// No new work. Threads finish what is queued, then end.
    pub(crate) fn stop(&self) {
        self.0.state.lock().is_stopping = true;
        self.0.work.notify_all();
    }

    /// Waits until no thread does anything for `pool`, nor is to; false if the deadline came first.
    pub(crate) fn await_pool(&self, pool: u64, deadline: Deadline) -> bool {
        self.await_state(deadline, |state| count(&state.jobs_of, pool) == 0)
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

impl State {
    /// Whether the limits allow this job to run now. An endpoint never takes the last threads:
    /// those that hang leave some to others, however many hang.
    fn may_run(&self, job: &Job) -> bool {
        match job.kind {
            Kind::Upkeep | Kind::LetGo => true,
            Kind::Close => {
                let own = count(&self.closing_for, job.pool);
                own < MOST_CLOSING_PER_POOL && own < MOST_CLOSING - self.closing
            }
            Kind::Open(endpoint) => {
                let own = count(&self.opening_for, endpoint);
                own < MOST_OPENING_PER_ENDPOINT && own < MOST_OPENING - self.opening
            }
        }
    }

    fn runnable(&self) -> usize {
        self.queue.iter().filter(|job| self.may_run(job)).count()
    }

    fn take_job(&mut self) -> Option<Job> {
        let first = self.queue.iter().position(|job| self.may_run(job))?;
        let job = self.queue.remove(first)?;
        match job.kind {
            Kind::Upkeep | Kind::LetGo => {}
            Kind::Close => {
                self.closing += 1;
                add(&mut self.closing_for, job.pool);
            }
            Kind::Open(endpoint) => {
                self.opening += 1;
                add(&mut self.opening_for, endpoint);
            }
        }
        Some(job)
    }

    fn job_ended(&mut self, pool: u64, kind: Kind) {
        if kind != Kind::LetGo {
            subtract(&mut self.jobs_of, pool);
        }
        match kind {
            Kind::Upkeep | Kind::LetGo => {}
            Kind::Close => {
                self.closing -= 1;
                subtract(&mut self.closing_for, pool);
            }
            Kind::Open(endpoint) => {
                self.opening -= 1;
                subtract(&mut self.opening_for, endpoint);
            }
        }
    }
}

/// How many are counted under `name`.
fn count<N: PartialEq + Copy>(counts: &[(N, usize)], name: N) -> usize {
    counts.iter().find(|(at, _)| *at == name).map_or(0, |&(_, count)| count)
}

fn add<N: PartialEq + Copy>(counts: &mut Vec<(N, usize)>, name: N) {
    match counts.iter_mut().find(|(at, _)| *at == name) {
        Some((_, count)) => *count += 1,
        None => counts.push((name, 1)),
    }
}

fn subtract<N: PartialEq + Copy>(counts: &mut Vec<(N, usize)>, name: N) {
    let Some(at) = counts.iter().position(|(at, _)| *at == name) else { return };
    if let Some((_, count)) = counts.get_mut(at) {
        *count -= 1;
        if *count > 0 {
            return;
        }
    }
    counts.swap_remove(at);
}

impl Inner {
    fn work_until_idle(&self) {
        loop {
            let Some(job) = self.next_job() else { return };
            let Job { kind, pool, mark, run } = job;
            {
                let _working = sync::working_for(pool);
                // Jobs catch the panics of user code themselves; this keeps the counts right if
                // one of ours has a bug.
                if catch_unwind(AssertUnwindSafe(|| run(Fate::Run))).is_err() {
                    log::error!("a job of the crew panicked");
                }
            }
            let mut state = self.state.lock();
            if mark.is_settled.swap(true, Ordering::AcqRel) {
                return; // abandoned, and no longer counted
            }
            state.job_ended(pool, kind);
            drop(state);
            self.ended.notify_all();
        }
    }

    /// Waits for work; `None`: this thread is no longer counted and must end.
    fn next_job(&self) -> Option<Job> {
        let mut state = self.state.lock();
        loop {
            if let Some(job) = state.take_job() {
                if state.is_stopping && state.queue.is_empty() {
                    // Whoever waits for a job that only now could be taken may end.
                    self.work.notify_all();
                }
                return Some(job);
            }
            let may_end = state.is_stopping && state.queue.is_empty();
            if !may_end {
                state.idle += 1;
                let timed_out = state.wait_for(&self.work, IDLE_FOR);
                state.idle -= 1;
                if !timed_out || state.runnable() > 0 {
                    continue;
                }
            }
            state.threads -= 1;
            drop(state);
            self.ended.notify_all();
            return None;
        }
    }
}

#[cfg(test)]
mod tests;
