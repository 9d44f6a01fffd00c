//! Whether the machine had other work meanwhile: a thread that does not get to run keeps a lock, or
//! comes late for it, and no program can help it.

use std::fs;

use peers::now_ns;

/// Where the machine has other work, so many times as many rounds as are wanted are tried.
pub(crate) const MOST_TRIES: usize = 10;

/// What comes of it; and true if the calling thread got to run when it could: it was not
/// interrupted, and waited for a processor for less than a tenth of the time.
pub(crate) fn undisturbed<T>(what: impl FnOnce() -> T) -> (T, bool) {
    let (interrupted, waited, began) = (interruptions(), waited_ns(), now_ns());
    let result = what();
    let (passed, waited) = (now_ns() - began, waited_ns() - waited);
    (result, waited < passed / 10 && interruptions() == interrupted)
}

/// How often the system has taken the processor from the calling thread, to run another.
fn interruptions() -> u64 {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let mut lines = status.lines();
    let count = lines.find_map(|line| line.strip_prefix("nonvoluntary_ctxt_switches:"));
    count.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}

/// For how many nanoseconds the calling thread could have run, but others did. Not every system
/// counts it.
fn waited_ns() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').nth(1).and_then(|waited| waited.parse().ok()).unwrap_or(0)
}
