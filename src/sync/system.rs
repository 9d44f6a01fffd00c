//! The system's threads, and locks and channels of libraries that are made for them.

use std::io;
use std::thread::Builder;

pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
pub(crate) use std::thread::{JoinHandle, panicking};
pub(crate) use std::thread_local;

pub(crate) use crossbeam_channel::{Receiver, Sender, bounded};
pub(crate) use crossbeam_utils::sync::{Parker, Unparker};
pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard};

pub(crate) fn spawn(
    name: String,
    body: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    Builder::new().name(name).spawn(body)
}

/// True of the thread that asks.
pub(crate) fn is_current(thread: &JoinHandle<()>) -> bool {
    thread.thread().id() == std::thread::current().id()
}

/// A number that no other caller gets.
pub(crate) fn next_number() -> u64 {
    use std::sync::atomic::Ordering;

    static NUMBERS: AtomicU64 = AtomicU64::new(1);
    NUMBERS.fetch_add(1, Ordering::Relaxed)
}
