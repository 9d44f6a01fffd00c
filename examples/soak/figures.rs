//! How long things took, and what this process has.

use std::fmt;
use std::time::Duration;

/// Steps within a doubling: figures are exact to 3 %.
const STEPS: u64 = 32;
/// Up to 2^41 ns, half an hour.
const PLACES: usize = (STEPS * 37) as usize;

/// Counts of durations, in as much memory for a million as for one.
pub(crate) struct Histogram(Vec<u64>);

impl Default for Histogram {
    fn default() -> Self {
        let mut counts = vec![0; PLACES];
        // Touched, so that the process has its memory from the beginning and does not seem to grow.
        std::hint::black_box(&mut counts).fill(0);
        Self(counts)
    }
}

impl Histogram {
    pub(crate) fn record(&mut self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let place = place(nanos).min(PLACES - 1);
        if let Some(count) = self.0.get_mut(place) {
            *count += 1;
        }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            *mine += theirs;
        }
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Of a thousand so many are no longer than this.
    pub(crate) fn per_mille(&self, share: u64) -> Duration {
        let wanted = (self.count() * share).div_ceil(1000).max(1);
        let mut seen = 0;
        let is_reached = |count: &u64| {
            seen += count;
            seen >= wanted
        };
        let place = self.0.iter().position(is_reached);
        Duration::from_nanos(place.map_or(0, |place| upper_end(place as u64)))
    }
}

const fn place(nanos: u64) -> usize {
    if nanos < STEPS {
        return nanos as usize;
    }
    let doublings = nanos.ilog2() - STEPS.ilog2();
    (STEPS * doublings as u64 + (nanos >> doublings)) as usize
}

const fn upper_end(place: u64) -> u64 {
    if place < 2 * STEPS {
        return place;
    }
    let doublings = place / STEPS - 1;
    ((place % STEPS + STEPS + 1) << doublings) - 1
}

impl fmt::Display for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (half, most, nearly_all) =
            (self.per_mille(500), self.per_mille(990), self.per_mille(999));
        write!(f, "p50 {half:.1?}, p99 {most:.1?}, p99.9 {nearly_all:.1?} of {}", self.count())
    }
}

/// What the process has, as far as the system tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Belongings {
    pub(crate) descriptors: Option<u64>,
    pub(crate) threads: Option<u64>,
    pub(crate) memory_kib: Option<u64>,
}

impl Belongings {
    pub(crate) fn count() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let figure = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().trim_end_matches(" kB").parse().ok()
        };
        let descriptors = std::fs::read_dir("/proc/self/fd");
        Self {
            descriptors: descriptors.ok().map(|all| all.count() as u64),
            threads: figure("Threads:"),
            memory_kib: figure("VmRSS:"),
        }
    }

    /// So much more than `before`, if the system tells.
    pub(crate) fn descriptors_beyond(&self, before: &Self) -> Option<u64> {
        Some(self.descriptors?.saturating_sub(before.descriptors?))
    }

    pub(crate) fn threads_beyond(&self, before: &Self) -> Option<u64> {
        Some(self.threads?.saturating_sub(before.threads?))
    }
}

impl fmt::Display for Belongings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Some(descriptors), Some(threads), Some(memory)) =
            (self.descriptors, self.threads, self.memory_kib)
        else {
            return f.write_str("descriptors, threads and memory are not told by this system");
        };
        let memory = memory as f64 / 1024.0;
        write!(f, "{descriptors} descriptors, {threads} threads, RSS {memory:.1} MiB")
    }
}
