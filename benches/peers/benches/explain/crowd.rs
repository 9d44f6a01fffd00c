//! Threads that have connections and do nothing with them.

use std::sync::{Arc, Barrier};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use warmline::{Endpoint, Pool};

use crate::numbers::{Numbers, PATIENCE, PLACES};

/// Threads, each with what it took at a place of its own in the program.
pub(crate) struct Threads {
    all: Vec<JoinHandle<()>>,
    /// They end when this is hung up.
    end: Option<Sender<()>>,
}

impl Threads {
    /// Each takes one of every endpoint that it is given.
    pub(crate) fn that_hold(shares: Vec<Vec<Endpoint<Numbers>>>) -> Self {
        Self::start(shares, |_, end| {
            let _hung_up = end.recv();
        })
    }

    /// Each takes one of every endpoint that it is given, then waits for one more of the last.
    pub(crate) fn that_hold_and_wait(shares: Vec<Vec<Endpoint<Numbers>>>) -> Self {
        Self::start(shares, |endpoint, _| {
            // The pool is closed before one comes.
            drop(endpoint.get_timeout(PATIENCE));
        })
    }

    /// Each waits for one of its endpoint, in vain.
    pub(crate) fn that_wait<'e>(endpoints: impl Iterator<Item = &'e Endpoint<Numbers>>) -> Self {
        let start = |endpoint: &Endpoint<Numbers>| {
            let waiting = endpoint.clone();
            let thread = spawn("waits", move || drop(waiting.get_timeout(PATIENCE)));
            await_waiting(endpoint, 1);
            thread
        };
        Self { all: endpoints.map(start).collect(), end: None }
    }

    fn start(
        shares: Vec<Vec<Endpoint<Numbers>>>,
        then: fn(&Endpoint<Numbers>, &Receiver<()>),
    ) -> Self {
        let (end, ended) = bounded(0);
        let barrier = Arc::new(Barrier::new(shares.len() + 1));
        let start = |(number, share): (usize, Vec<Endpoint<Numbers>>)| {
            let (ended, barrier) = (ended.clone(), Arc::clone(&barrier));
            spawn(&format!("worker-{number:02}"), move || {
                let take = PLACES[number % PLACES.len()];
                let taken = Vec::from_iter(share.iter().map(take));
                barrier.wait();
                share.last().into_iter().for_each(|endpoint| then(endpoint, &ended));
                drop(taken);
            })
        };
        let all = shares.into_iter().enumerate().map(start).collect();
        barrier.wait();
        Self { all, end: Some(end) }
    }

    /// Once the pool is closed, if any of them waits.
    pub(crate) fn end(&mut self) {
        self.end = None;
        for thread in self.all.drain(..) {
            thread.join().expect("no panics");
        }
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    thread::Builder::new().name(name.to_owned()).spawn(run).expect("a thread")
}

fn await_waiting(endpoint: &Endpoint<Numbers>, count: usize) {
    while endpoint.stats().waiting() < count {
        thread::sleep(Duration::from_millis(1));
    }
}

/// A pool of one endpoint, of which every connection is in use.
pub(crate) struct Crowd {
    pub(crate) endpoint: Endpoint<Numbers>,
    threads: Threads,
}

impl Crowd {
    /// `held` of `limit` connections are with threads; the others are for the caller.
    pub(crate) fn new(held: usize, limit: usize) -> Self {
        let endpoint = endpoint_of(limit);
        let threads = Threads::that_hold(vec![vec![endpoint.clone()]; held]);
        Self { endpoint, threads }
    }

    /// Every thread that has a connection waits for another.
    pub(crate) fn deadlocked(count: usize) -> Self {
        let endpoint = endpoint_of(count);
        let threads = Threads::that_hold_and_wait(vec![vec![endpoint.clone()]; count]);
        await_waiting(&endpoint, count);
        Self { endpoint, threads }
    }
}

fn endpoint_of(limit: usize) -> Endpoint<Numbers> {
    let pool = Pool::builder(Numbers::default()).max_per_endpoint(limit).build();
    let pool = pool.expect("one limit");
    pool.endpoint("orders.db.eu-west.example.com:5432").expect("any text is a key")
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.endpoint.pool().close();
        self.threads.end();
    }
}
