//! Who asks for connections: the line of the program, and the thread.
//!
//! A thread is known by a number, which costs one read of a thread-local. What it is called is
//! looked up when somebody reads about it.

use std::cell::Cell;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::panic::Location;
use std::time::Duration;

use parking_lot::Mutex;

use crate::sync::{next_number, thread_local};

/// A line of the program, and the thread that came along it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller {
    pub(crate) site: &'static Location<'static>,
    pub(crate) thread: u32,
}

impl Caller {
    /// The caller of the function that calls this, if that tracks its caller.
    #[track_caller]
    #[inline(always)]
    pub(crate) fn here() -> Self {
        Self { site: Location::caller(), thread: number() }
    }

    /// Somebody without a name, who is gone.
    #[cfg(test)]
    pub(crate) fn of_ended_thread() -> Self {
        let thread = std::thread::Builder::new().spawn(Self::here).expect("a thread starts");
        thread.join().expect("it does not panic")
    }

    /// What this thread is called, as far as that is known.
    pub(crate) fn thread_name(self) -> ThreadName {
        ThreadName::of(self.thread)
    }
}

/// Threads that have ended and may still be read about.
const MOST_ENDED: usize = 256;

thread_local! {
    /// 0: none yet.
    static NUMBER: Cell<u32> = const { Cell::new(0) };
}

thread_local! {
    static REGISTERED: Registered = Registered::begin();
}

/// Bookkeeping: nothing else is locked while this is, in a simulation no moment is between.
static THREADS: Mutex<Option<Threads>> = Mutex::new(None);

/// What threads are called.
#[derive(Debug, Default)]
struct Threads {
    live: HashMap<u32, Box<str>>,
    /// The latest that have ended, newest last.
    ended: VecDeque<(u32, Box<str>)>,
}

/// In a child process, whoever had the lock may not have been forked: names are not worth waiting
/// for ever.
fn threads() -> Option<parking_lot::MutexGuard<'static, Option<Threads>>> {
    THREADS.try_lock_for(Duration::from_millis(100))
}

/// That a thread is in the list: as long as it lives.
struct Registered(u32);

impl Registered {
    fn begin() -> Self {
        let number = next_number() as u32;
        let name = std::thread::current().name().unwrap_or_default().into();
        if let Some(mut threads) = threads() {
            threads.get_or_insert_default().live.insert(number, name);
        }
        Self(number)
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let Some(mut threads) = threads() else { return };
        let Some(threads) = threads.as_mut() else { return };
        let Some(name) = threads.live.remove(&self.0) else { return };
        if threads.ended.len() >= MOST_ENDED {
            threads.ended.pop_front();
        }
        threads.ended.push_back((self.0, name));
    }
}

/// The number of the thread that asks; 0 while it ends.
#[inline(always)]
fn number() -> u32 {
    match NUMBER.try_with(Cell::get) {
        Ok(0) => register(),
        Ok(number) => number,
        Err(_) => 0,
    }
}

#[cold]
#[inline(never)]
fn register() -> u32 {
    let number = REGISTERED.try_with(|registered| registered.0).unwrap_or(0);
    let _ended = NUMBER.try_with(|cell| cell.set(number));
    number
}

/// Tells which threads have ended: of many, at one look.
pub(crate) struct Ended(Option<parking_lot::MutexGuard<'static, Option<Threads>>>);

impl Ended {
    pub(crate) fn look() -> Self {
        Self(threads())
    }

    /// One that nobody remembers has ended long ago.
    pub(crate) fn has(&self, number: u32) -> bool {
        let threads = self.0.as_ref().and_then(|threads| threads.as_ref());
        number != 0 && !threads.is_some_and(|threads| threads.live.contains_key(&number))
    }
}

/// What a thread is called, and whether it is still there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ThreadName {
    number: u32,
    /// Empty: it has none.
    name: Box<str>,
    pub(crate) has_ended: bool,
}

impl ThreadName {
    pub(crate) fn of(number: u32) -> Self {
        let threads = threads();
        let known = threads.as_ref().and_then(|threads| threads.as_ref()).and_then(|threads| {
            let live = threads.live.get(&number).map(|name| (name, false));
            let is_it = |ended: &&(u32, Box<str>)| ended.0 == number;
            live.or_else(|| threads.ended.iter().find(is_it).map(|(_, name)| (name, true)))
        });
        let (name, has_ended) =
            known.map_or_else(Default::default, |(name, has_ended)| (name.clone(), has_ended));
        // One that nobody remembers has ended long ago.
        let is_forgotten = known.is_none() && number != 0;
        drop(threads);
        Self { number, name, has_ended: has_ended || is_forgotten }
    }
}

impl ThreadName {
    /// As it was known to be when somebody looked: by now it may have ended.
    pub(crate) fn then(number: u32, has_ended: bool) -> Self {
        Self { has_ended, ..Self::of(number) }
    }

    pub(crate) fn name(&self) -> Option<&str> {
        Some(&*self.name).filter(|name| !name.is_empty())
    }
}

impl fmt::Display for ThreadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&*self.name, self.number) {
            ("", 0) => f.write_str("thread that was ending")?,
            ("", number) => write!(f, "thread {number}")?,
            (name, _) => write!(f, "thread {name}")?,
        }
        if self.has_ended { f.write_str(", which has ended") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_known_by_its_name_also_after_its_end() {
        let thread = std::thread::Builder::new().name("worker-7".to_owned());
        let caller = thread.spawn(|| (Caller::here(), Caller::here().thread_name())).unwrap();
        let (caller, while_alive) = caller.join().unwrap();
        assert_eq!(while_alive.to_string(), "thread worker-7");
        assert_eq!(caller.thread_name().to_string(), "thread worker-7, which has ended");
        assert!(caller.site.file().ends_with("callers.rs"));
    }

    #[test]
    fn no_two_threads_have_the_same_number() {
        let mine = Caller::here().thread;
        assert_eq!(Caller::here().thread, mine);
        let theirs = Caller::of_ended_thread().thread;
        assert_ne!(theirs, mine);
    }

    #[test]
    fn of_threads_that_have_ended_only_the_latest_are_remembered() {
        let mut first = None;
        for _ in 0..=2 * MOST_ENDED {
            let caller = Caller::of_ended_thread();
            first.get_or_insert(caller);
        }
        let first = first.unwrap();
        assert_eq!(
            first.thread_name().to_string(),
            format!("thread {}, which has ended", first.thread)
        );
        let threads = THREADS.lock();
        assert_eq!(threads.as_ref().map(|threads| threads.ended.len()), Some(MOST_ENDED));
    }
}
