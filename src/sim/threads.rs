//! What `sync` takes from the system otherwise.
//!
//! Each operation is a point at which the scheduler may let another thread go on. Whoever waits is
//! parked, with an alarm if it waits for a time; the clock rings it when nobody else can run.

mod atomics;
mod channel;

pub(crate) use self::atomics::{AtomicBool, AtomicU32, AtomicU64};
pub use self::channel::Receiver;
pub(crate) use self::channel::{Sender, bounded};

use std::collections::VecDeque;
use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool as Flag, Ordering};
use std::time::Duration;

use shuttle::thread::{self, Thread};

use crate::sim::engine;
use crate::sim::world::{self, Alarm};

pub(crate) use shuttle::thread_local;

/// Bookkeeping of this file: taken and released without a point between.
type Cell<T> = parking_lot::Mutex<T>;

/// A point at which another thread may go on.
pub(crate) fn step() {
    if !world::has_ended() {
        thread::yield_now();
    }
}

/// When a wait of this length ends.
pub(crate) fn end_of(timeout: Duration) -> u64 {
    let nanos = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
    world::now().saturating_add(nanos)
}

/// Parks until somebody wakes this thread, or until that time. Also for no reason: callers look.
pub(crate) fn block(until: Option<u64>) {
    let until = until.filter(|at| *at != u64::MAX);
    let alarm = until.map(|at| {
        let alarm = Alarm::Wake(thread::current());
        world::with(|world| world.set_alarm(at, alarm))
    });
    thread::park();
    if let Some(alarm) = alarm {
        world::with(|world| world.cancel_alarm(alarm));
    }
}

pub(crate) fn has_passed(until: Option<u64>) -> bool {
    until.is_some_and(|at| at <= world::now())
}

/// Those who wait for something, to be woken all at once: each looks again.
#[derive(Debug, Default)]
pub(crate) struct Crowd(Cell<Vec<Thread>>);

impl Crowd {
    pub(crate) const fn new() -> Self {
        Self(Cell::new(Vec::new()))
    }

    /// Waits to be woken; the caller looks again.
    pub(crate) fn wait(&self, until: Option<u64>) {
        self.0.lock().push(thread::current());
        block(until);
    }

    pub(crate) fn wake(&self) {
        let woken = std::mem::take(&mut *self.0.lock());
        if !world::has_ended() {
            woken.iter().for_each(Thread::unpark);
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Mutex<T> {
    value: parking_lot::Mutex<T>,
    crowd: Crowd,
}

impl<T> Mutex<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self { value: parking_lot::Mutex::new(value), crowd: Crowd::new() }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        step();
        MutexGuard { value: Some(self.acquire()), mutex: self }
    }

    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        step();
        let value = self.value.try_lock()?;
        Some(MutexGuard { value: Some(value), mutex: self })
    }

    fn acquire(&self) -> parking_lot::MutexGuard<'_, T> {
        loop {
            if let Some(value) = self.value.try_lock() {
                return value;
            }
            self.crowd.wait(None);
        }
    }
}

#[derive(Debug)]
pub(crate) struct MutexGuard<'a, T> {
    /// Present but while it waits for a condition.
    value: Option<parking_lot::MutexGuard<'a, T>>,
    mutex: &'a Mutex<T>,
}

impl<T> MutexGuard<'_, T> {
    /// Here it is the scheduler that says who is next.
    pub(crate) fn bump(_guard: &mut Self) {}
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        self.value.as_ref().expect("held")
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.value.as_mut().expect("held")
    }
}

impl<T> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        drop(self.value.take());
        self.mutex.crowd.wake();
    }
}

#[derive(Debug)]
pub(crate) struct Condvar {
    waiting: Cell<VecDeque<(Arc<Flag>, Thread)>>,
}

/// As parking_lot's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WaitTimeoutResult(bool);

impl WaitTimeoutResult {
    pub(crate) const fn timed_out(self) -> bool {
        self.0
    }
}

impl Condvar {
    pub(crate) const fn new() -> Self {
        Self { waiting: Cell::new(VecDeque::new()) }
    }

    pub(crate) fn wait_for<T>(
        &self,
        guard: &mut MutexGuard<'_, T>,
        timeout: Duration,
    ) -> WaitTimeoutResult {
        let until = Some(end_of(timeout));
        let is_told = Arc::new(Flag::new(false));
        self.waiting.lock().push_back((Arc::clone(&is_told), thread::current()));
        drop(guard.value.take());
        guard.mutex.crowd.wake();
        while !is_told.load(Ordering::Relaxed) && !has_passed(until) {
            block(until);
        }
        self.waiting.lock().retain(|(other, _)| !Arc::ptr_eq(other, &is_told));
        guard.value = Some(guard.mutex.acquire());
        WaitTimeoutResult(!is_told.load(Ordering::Relaxed))
    }

    pub(crate) fn notify_one(&self) {
        step();
        let first = self.waiting.lock().pop_front();
        first.into_iter().for_each(tell);
    }

    pub(crate) fn notify_all(&self) {
        step();
        let all = std::mem::take(&mut *self.waiting.lock());
        all.into_iter().for_each(tell);
    }
}

fn tell((is_told, thread): (Arc<Flag>, Thread)) {
    is_told.store(true, Ordering::Relaxed);
    thread.unpark();
}

#[derive(Debug)]
pub(crate) struct RwLock<T> {
    value: parking_lot::RwLock<T>,
    crowd: Crowd,
}

#[derive(Debug)]
pub(crate) struct RwLockReadGuard<'a, T> {
    value: Option<parking_lot::RwLockReadGuard<'a, T>>,
    crowd: &'a Crowd,
}

#[derive(Debug)]
pub(crate) struct RwLockWriteGuard<'a, T> {
    value: Option<parking_lot::RwLockWriteGuard<'a, T>>,
    crowd: &'a Crowd,
}

impl<T> RwLock<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self { value: parking_lot::RwLock::new(value), crowd: Crowd::new() }
    }

    pub(crate) fn try_read(&self) -> Option<RwLockReadGuard<'_, T>> {
        step();
        let value = self.value.try_read()?;
        Some(RwLockReadGuard { value: Some(value), crowd: &self.crowd })
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, T> {
        loop {
            if let Some(guard) = self.try_read() {
                return guard;
            }
            self.crowd.wait(None);
        }
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, T> {
        step();
        loop {
            if let Some(value) = self.value.try_write() {
                return RwLockWriteGuard { value: Some(value), crowd: &self.crowd };
            }
            self.crowd.wait(None);
        }
    }
}

impl<T> Deref for RwLockReadGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        self.value.as_ref().expect("held")
    }
}

impl<T> Deref for RwLockWriteGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        self.value.as_ref().expect("held")
    }
}

impl<T> DerefMut for RwLockWriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.value.as_mut().expect("held")
    }
}

impl<T> Drop for RwLockReadGuard<'_, T> {
    fn drop(&mut self) {
        drop(self.value.take());
        self.crowd.wake();
    }
}

impl<T> Drop for RwLockWriteGuard<'_, T> {
    fn drop(&mut self) {
        drop(self.value.take());
        self.crowd.wake();
    }
}

#[derive(Debug, Default)]
pub(crate) struct Parker(Unparker);

#[derive(Clone, Debug, Default)]
pub(crate) struct Unparker(Arc<Parking>);

#[derive(Debug, Default)]
struct Parking {
    token: Flag,
    crowd: Crowd,
}

impl Parker {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) const fn unparker(&self) -> &Unparker {
        &self.0
    }

    pub(crate) fn park(&self) {
        self.park_until(None);
    }

    pub(crate) fn park_timeout(&self, timeout: Duration) {
        self.park_until(Some(end_of(timeout)));
    }

    fn park_until(&self, until: Option<u64>) {
        step();
        let parking = &self.0.0;
        while !parking.token.swap(false, Ordering::Relaxed) && !has_passed(until) {
            parking.crowd.wait(until);
        }
    }
}

impl Unparker {
    pub(crate) fn unpark(&self) {
        step();
        self.0.token.store(true, Ordering::Relaxed);
        self.0.crowd.wake();
    }
}

pub(crate) type JoinHandle<T> = thread::JoinHandle<T>;

pub(crate) fn spawn(
    name: String,
    body: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    step();
    let may_start = world::with(|world| {
        if world.threads >= world.most_threads {
            world.refused_threads += 1;
            return false;
        }
        world.threads += 1;
        true
    });
    if !may_start {
        return Err(rustix::io::Errno::AGAIN.into());
    }
    thread::Builder::new().name(name).spawn(move || {
        body();
        world::with(|world| world.threads -= 1);
    })
}

/// True of the thread that asks.
pub(crate) fn is_current(thread: &JoinHandle<()>) -> bool {
    thread.thread().id() == thread::current().id()
}

/// Not what the system says: that one thread of it runs all of ours.
pub(crate) fn panicking() -> bool {
    engine::is_unwinding()
}

/// A number that no other caller gets.
pub(crate) fn next_number() -> u64 {
    world::with(|world| {
        world.numbers += 1;
        world.numbers
    })
}
