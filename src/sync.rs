//! The one place that names locks, channels and threads.
//!
//! Everything above takes them from here. In a simulation those of `sim` are in their place.
//! [`Mutex`] knows, in debug builds, that its thread holds it: taking a second one, or calling
//! user code while one is held, is a bug that panics instead of hanging.

use std::cell::Cell;
use std::io;
use std::ops::{Deref, DerefMut};

mod callers;
#[cfg(not(warmline_sim))]
mod system;
#[cfg(warmline_sim)]
use crate::sim::threads as system;

/// Channels: a [`Request`](crate::Request) answers on one.
#[doc(no_inline)]
pub use crossbeam_channel;

pub(crate) use self::callers::{Caller, Ended, ThreadName};
pub(crate) use self::system::{
    AtomicBool, AtomicU32, AtomicU64, Condvar, JoinHandle, Parker, Receiver, RwLock,
    RwLockReadGuard, Sender, Unparker, bounded, is_current, next_number, panicking, thread_local,
};
pub(crate) use crossbeam_utils::CachePadded;
pub(crate) use std::sync::atomic::Ordering;
pub(crate) use std::sync::{Arc, OnceLock, Weak};

thread_local! {
    /// How many of the crate's locks this thread holds. Kept in debug builds only.
    static HELD: Cell<u32> = const { Cell::new(0) };
    /// The pool that this thread of a driver works for at the moment; 0 on every other thread.
    static WORKING_FOR: Cell<u64> = const { Cell::new(0) };
    /// True on the threads of a driver.
    static IS_DRIVER: Cell<bool> = const { Cell::new(false) };
}

/// A lock that is held for some tens of instructions and never across a call of user code.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(system::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(system::Mutex::new(value))
    }

    #[inline(always)]
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        assert_unlocked();
        MutexGuard::new(self.0.lock())
    }

    /// Takes the lock if it is free.
    #[inline(always)]
    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        assert_unlocked();
        self.0.try_lock().map(MutexGuard::new)
    }
}

/// Held while threads are started: the one lock under which others may be taken. Whoever has one
/// never takes it.
#[derive(Debug, Default)]
pub(crate) struct Gate(system::Mutex<()>);

impl Gate {
    /// Returns what keeps others out until it is dropped.
    pub(crate) fn enter(&self) -> impl Sized + '_ {
        assert_unlocked();
        self.0.lock()
    }
}

/// Unlocks on drop.
#[derive(Debug)]
pub(crate) struct MutexGuard<'a, T>(system::MutexGuard<'a, T>);

impl<'a, T> MutexGuard<'a, T> {
    #[inline(always)]
    fn new(guard: system::MutexGuard<'a, T>) -> Self {
        if cfg!(debug_assertions) {
            HELD.with(|held| held.set(held.get() + 1));
        }
        Self(guard)
    }

    /// Lets those have it first who wait for it.
    pub(crate) fn bump(&mut self) {
        system::MutexGuard::bump(&mut self.0);
    }

    /// Waits on `condvar` for at most `timeout`; true if it ran out.
    pub(crate) fn wait_for(&mut self, condvar: &Condvar, timeout: std::time::Duration) -> bool {
        condvar.wait_for(&mut self.0, timeout).timed_out()
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;
    #[inline(always)]
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T> Drop for MutexGuard<'_, T> {
    #[inline(always)]
    fn drop(&mut self) {
        if cfg!(debug_assertions) {
            // A thread-local may be gone while a thread ends; the count no longer matters then.
            let _gone = HELD.try_with(|held| held.set(held.get().saturating_sub(1)));
        }
    }
}

/// Panics in debug builds if this thread holds one of the crate's locks.
///
/// Called before every lock and before every call of user code.
#[inline(always)]
pub(crate) fn assert_unlocked() {
    if cfg!(debug_assertions) {
        let held = HELD.try_with(Cell::get).unwrap_or(0);
        assert!(held == 0, "bug: a lock of the pool is held by this thread");
    }
}

/// Starts a named thread of a driver: the only place of the crate that starts threads.
pub(crate) fn spawn(
    name: String,
    body: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    system::spawn(name, move || {
        IS_DRIVER.with(|is_driver| is_driver.set(true));
        body();
    })
}

/// True if this thread belongs to a driver.
pub(crate) fn is_driver_thread() -> bool {
    IS_DRIVER.try_with(Cell::get).unwrap_or(false)
}

/// Marks this thread as working for `pool` until the guard is dropped.
pub(crate) fn working_for(pool: u64) -> WorkingFor {
    WorkingFor(WORKING_FOR.with(|current| current.replace(pool)))
}

/// For [`working_for`]: on a thread that all pools of a driver depend on, which must not wait at
/// all.
pub(crate) const EVERY_POOL: u64 = u64::MAX;

/// True if waiting for `pool` on this thread could wait for this very thread.
pub(crate) fn must_not_wait_for(pool: u64) -> bool {
    let current = WORKING_FOR.try_with(Cell::get).unwrap_or(0);
    current == pool || current == EVERY_POOL
}

/// True on the threads of a driver that must never block.
pub(crate) fn must_not_block() -> bool {
    WORKING_FOR.try_with(Cell::get).unwrap_or(0) == EVERY_POOL
}

/// Ends what [`working_for`] began.
#[derive(Debug)]
pub(crate) struct WorkingFor(u64);

impl Drop for WorkingFor {
    fn drop(&mut self) {
        WORKING_FOR.with(|current| current.set(self.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "a lock of the pool is held")]
    #[cfg(debug_assertions)]
    fn taking_a_second_lock_panics_instead_of_hanging() {
        let (one, two) = (Mutex::new(1), Mutex::new(2));
        let _held = one.lock();
        let _never = two.lock();
    }

    #[test]
    fn a_thread_that_works_for_every_pool_may_wait_for_none() {
        let _working = working_for(EVERY_POOL);
        assert!(must_not_block() && must_not_wait_for(7));
    }

    #[test]
    fn only_the_pool_a_thread_works_for_may_not_be_waited_for() {
        assert!(!must_not_wait_for(7) && !must_not_block());
        {
            let _working = working_for(7);
            assert!(must_not_wait_for(7));
            assert!(!must_not_wait_for(8));
        }
        assert!(!must_not_wait_for(7));
    }
}
