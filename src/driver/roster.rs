//! Which job of the crew may have a thread: decided without one.

use std::collections::VecDeque;

use crate::driver::crew::{Job, Kind, Mark};
use crate::sync::Arc;
use crate::sys::HashMap;

/// Jobs of a kind that may run at a time. No kind can take what another needs: those of people's
/// code that hang are many, if they are any.
const fn most(kind: Kind) -> usize {
    // So few in a simulation that its scripts reach them.
    let is_simulated = cfg!(warmline_sim);
    match kind {
        Kind::Open(_) if is_simulated => 4,
        Kind::Open(_) => 64,
        Kind::Upkeep if is_simulated => 3,
        Kind::Upkeep => 32,
        Kind::Close if is_simulated => 2,
        Kind::Close => 16,
        Kind::LetGo => 2,
        Kind::LookUp => MOST_LOOK_UPS,
    }
}

/// Names that are looked up at a time.
pub(crate) const MOST_LOOK_UPS: usize = 4;

/// Of those that open, how many for one endpoint.
const MOST_FOR_ONE_ENDPOINT: usize = if cfg!(warmline_sim) { 2 } else { 16 };

/// The jobs that a thread has, that one may take, and that wait.
///
/// Within a kind, a pool never has more threads than it leaves to others, and within a pool's share
/// an endpoint neither: however many hang, there is one for the next.
#[derive(Debug, Default)]
pub(crate) struct Roster {
    /// May run, in order; counted as if they did.
    ready: VecDeque<Job>,
    lanes: HashMap<Lane, VecDeque<Job>>,
    /// Lanes with jobs that must wait, each once, in order of arrival.
    waiting: VecDeque<Lane>,
    running: HashMap<Share, usize>,
    /// For each pool, how many jobs are here or with a thread.
    jobs_of: HashMap<u64, usize>,
}

/// Jobs that start in order: of one kind, for one pool, and one endpoint if they open.
type Lane = (Kind, u64);

/// Who has a share of the threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Share {
    All(Kind),
    Pool(Kind, u64),
    Endpoint(u32, u64),
}

impl Roster {
    /// A job arrives.
    pub(crate) fn add(&mut self, job: Job) {
        if job.kind != Kind::LetGo {
            *self.jobs_of.entry(job.pool).or_insert(0) += 1;
        }
        let lane = (job.kind, job.pool);
        if self.lanes.contains_key(&lane) || !self.may_start(lane) {
            let queue = self.lanes.entry(lane).or_default();
            if queue.is_empty() {
                self.waiting.push_back(lane);
            }
            queue.push_back(job);
        } else {
            self.start(job);
        }
    }

    /// A thread takes a job.
    pub(crate) fn take(&mut self) -> Option<Job> {
        self.ready.pop_front()
    }

    /// A job that a thread had has ended, or counts no more.
    pub(crate) fn ended(&mut self, kind: Kind, pool: u64) {
        self.leave(kind, pool);
        for share in shares((kind, pool)).into_iter().flatten() {
            subtract(&mut self.running, share);
        }
        self.promote();
    }

    /// Takes out a job that no thread has yet.
    pub(crate) fn withdraw(&mut self, kind: Kind, pool: u64, mark: &Arc<Mark>) -> Option<Job> {
        let lane = (kind, pool);
        let is_it = |job: &Job| Arc::ptr_eq(&job.mark, mark);
        if let Some(at) = self.ready.iter().position(is_it) {
            let job = self.ready.remove(at);
            self.ended(kind, pool);
            return job;
        }
        let queue = self.lanes.get_mut(&lane)?;
        let at = queue.iter().position(is_it)?;
        let job = queue.remove(at);
        if queue.is_empty() {
            self.lanes.remove(&lane);
            self.waiting.retain(|waiting| *waiting != lane);
        }
        self.leave(kind, pool);
        job
    }

    /// Takes out all jobs that no thread has yet.
    pub(crate) fn take_all(&mut self) -> Vec<Job> {
        let mut all = Vec::new();
        while let Some(job) = self.ready.pop_front() {
            self.ended(job.kind, job.pool);
            all.push(job);
        }
        // What is left waits for jobs that have threads.
        self.waiting.clear();
        for job in std::mem::take(&mut self.lanes).into_values().flatten() {
            self.leave(job.kind, job.pool);
            all.push(job);
        }
        all
    }

    /// How many jobs may have a thread and have none.
    pub(crate) fn ready(&self) -> usize {
        self.ready.len()
    }

    /// No job is left that no thread has.
    pub(crate) fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.lanes.is_empty()
    }

    /// How many jobs of a pool are here, or with a thread.
    pub(crate) fn jobs_of(&self, pool: u64) -> usize {
        self.jobs_of.get(&pool).copied().unwrap_or(0)
    }

    fn may_start(&self, lane: Lane) -> bool {
        let [all, own, endpoint] = shares(lane)
            .map(|share| share.map(|share| self.running.get(&share).copied().unwrap_or(0)));
        let (most, all, own) = (most(lane.0), all.unwrap_or(0), own.unwrap_or(0));
        let leaves_to_others = |theirs| theirs < MOST_FOR_ONE_ENDPOINT && theirs < most / 2 - own;
        own < most - all && endpoint.is_none_or(leaves_to_others)
    }

    fn start(&mut self, job: Job) {
        for share in shares((job.kind, job.pool)).into_iter().flatten() {
            *self.running.entry(share).or_insert(0) += 1;
        }
        self.ready.push_back(job);
    }

    /// Starts what may start now, one of each lane in turn.
    fn promote(&mut self) {
        let mut passed = 0;
        while passed < self.waiting.len() {
            let Some(lane) = self.waiting.pop_front() else { return };
            if !self.may_start(lane) {
                self.waiting.push_back(lane);
                passed += 1;
                continue;
            }
            let Some(queue) = self.lanes.get_mut(&lane) else { continue };
            let job = queue.pop_front();
            if queue.is_empty() {
                self.lanes.remove(&lane);
            } else {
                self.waiting.push_back(lane);
            }
            job.into_iter().for_each(|job| self.start(job));
        }
    }

    fn leave(&mut self, kind: Kind, pool: u64) {
        if kind != Kind::LetGo {
            subtract(&mut self.jobs_of, pool);
        }
    }
}

/// What a running job of this lane is counted under.
fn shares((kind, pool): Lane) -> [Option<Share>; 3] {
    let (kind, endpoint) = match kind {
        Kind::Open(endpoint) => (Kind::Open(0), Some(Share::Endpoint(endpoint, pool))),
        kind => (kind, None),
    };
    // Several pools may wait for one look-up.
    let of_pool = (kind != Kind::LookUp).then_some(Share::Pool(kind, pool));
    [Some(Share::All(kind)), of_pool, endpoint]
}

fn subtract<K: std::hash::Hash + Eq + Copy>(counts: &mut HashMap<K, usize>, key: K) {
    if let Some(count) = counts.get_mut(&key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests;
