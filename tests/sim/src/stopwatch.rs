//! How long something takes, be the threads of a simulation as slow as they like.

use std::time::Duration;

use warmline::sim::{now, starved, survey};

#[derive(Clone, Copy, Debug)]
pub struct Stopwatch {
    began: u64,
    /// For how long threads had been kept from running then.
    starved: u64,
    /// Threads that could not be started, by then.
    refused: u64,
}

impl Stopwatch {
    #[must_use]
    pub fn start() -> Self {
        Self { began: now(), starved: starved(), refused: survey().refused_threads }
    }

    /// When it was started, in nanoseconds.
    #[must_use]
    pub fn began(&self) -> u64 {
        self.began
    }

    /// The nanoseconds that threads were kept from running since.
    #[must_use]
    pub fn starved(&self) -> u64 {
        starved() - self.starved
    }

    /// What has passed since.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        Duration::from_nanos(now() - self.began)
    }

    /// What has passed since, but for the time that threads were kept from running.
    #[must_use]
    pub fn took(&self) -> Duration {
        self.elapsed().saturating_sub(Duration::from_nanos(self.starved()))
    }

    /// Since then a thread could be started whenever one was wanted. With none to be had, callers
    /// close connections themselves, which may take its time.
    #[must_use]
    pub fn had_threads(&self) -> bool {
        survey().refused_threads == self.refused
    }
}
