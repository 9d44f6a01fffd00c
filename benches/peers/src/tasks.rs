//! What the threads of this process have cost so far, as Linux counts it.

use std::fs;
use std::path::Path;

/// What some threads have cost up to a moment; or between two moments.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    /// How many threads there are.
    pub threads: u64,
    /// How often they went to sleep, each time to be woken.
    pub voluntary: u64,
    /// How often they were interrupted.
    pub involuntary: u64,
    /// Nanoseconds of CPU time.
    pub cpu_ns: u64,
}

impl Cost {
    /// Of all threads whose names begin with `prefix`.
    #[must_use]
    pub fn of_threads(prefix: &str) -> Self {
        let mut cost = Self::default();
        for task in fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
            let path = task.path();
            let name = fs::read_to_string(path.join("comm")).unwrap_or_default();
            if name.starts_with(prefix) {
                cost.add(&path);
            }
        }
        cost
    }

    fn add(&mut self, task: &Path) {
        let status = fs::read_to_string(task.join("status")).unwrap_or_default();
        let count = |name| {
            let value = status.lines().find_map(|line| line.strip_prefix(name));
            value.and_then(|value| value.trim().parse::<u64>().ok()).unwrap_or(0)
        };
        self.threads += 1;
        self.voluntary += count("voluntary_ctxt_switches:");
        self.involuntary += count("nonvoluntary_ctxt_switches:");
        // "125317 2764579 2": on the CPU, waiting for it, and how often.
        let schedstat = fs::read_to_string(task.join("schedstat")).unwrap_or_default();
        let cpu_ns = schedstat.split_whitespace().next();
        self.cpu_ns += cpu_ns.and_then(|value| value.parse::<u64>().ok()).unwrap_or(0);
    }

    /// What they have cost since `earlier`; the threads are those of now.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Self {
        Self {
            threads: self.threads,
            voluntary: self.voluntary.saturating_sub(earlier.voluntary),
            involuntary: self.involuntary.saturating_sub(earlier.involuntary),
            cpu_ns: self.cpu_ns.saturating_sub(earlier.cpu_ns),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn a_thread_that_sleeps_and_is_woken_is_seen_to() {
        let (wake, woken) = mpsc::sync_channel(0);
        let thread = thread::Builder::new().name("sleeper".to_owned());
        let thread = thread.spawn(move || for () in woken {}).unwrap();
        wake.send(()).unwrap();
        let before = Cost::of_threads("sleeper");
        for _ in 0..200 {
            wake.send(()).unwrap();
        }
        let cost = Cost::of_threads("sleeper").since(before);
        assert_eq!((before.threads, cost.threads), (1, 1));
        assert!(cost.voluntary > 0 && cost.cpu_ns > 0);
        drop(wake);
        thread.join().unwrap();
        assert_eq!(Cost::of_threads("sleeper").threads, 0);
    }
}
