//! Clocks, in nanoseconds.

use rustix::time::{ClockId, clock_gettime};

fn read(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    // Both parts are positive on these clocks.
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// The monotonic clock.
#[must_use]
pub fn now_ns() -> u64 {
    read(ClockId::Monotonic)
}

/// What this thread has used of the CPU: other work on the machine does not inflate it.
#[must_use]
pub fn cpu_ns() -> u64 {
    read(ClockId::ThreadCPUTime)
}

/// What all threads of this process have used of the CPU, for themselves and in the system, those
/// that have ended included.
#[must_use]
pub fn process_cpu_ns() -> u64 {
    read(ClockId::ProcessCPUTime)
}
