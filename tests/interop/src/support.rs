//! What the tests have in common.

#[path = "../../support/mod.rs"]
mod shared;

pub use self::shared::{
    Load, SOON, assert_balanced, assert_empty, await_loop, eventually, say, under_load, watchdog,
};

pub(crate) use self::shared::programs;

use rustix::process::{Pid, Signal, kill_process};
use warmline::Stats;

/// Processes that do nothing at all until this is dropped, and then go on.
#[must_use = "they are stopped until it is dropped"]
pub struct Stopped(Vec<Pid>);

impl Stopped {
    pub fn new(pids: impl IntoIterator<Item = i32>) -> Self {
        let pids = pids.into_iter().map(|pid| Pid::from_raw(pid).expect("no process is 0"));
        let stopped = Self(pids.collect());
        stopped.0.iter().for_each(|&pid| kill_process(pid, Signal::STOP).unwrap());
        stopped
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        for &pid in &self.0 {
            let _ended = kill_process(pid, Signal::CONT);
        }
    }
}

/// Nobody has a connection or waits for one, and none was lost.
#[track_caller]
pub fn assert_at_rest(stats: &Stats) {
    assert_eq!((stats.in_use(), stats.waiting()), (0, 0), "{stats}");
    assert_balanced(stats);
}
