//! The threads of a pool: a reaper for time, a crew for everything that may block, and one for the
//! observer.
//!
//! Started by the first connect. Handles hold the driver; [`Shared`] holds it weakly, and its
//! threads hold `Shared` weakly, so that the last handle's drop ends both.

mod crew;
mod dial;
mod reaper;
mod worker;

use std::collections::HashMap;
use std::io;
use std::marker::PhantomData;

use foldhash::fast::RandomState;

use crate::clock::{Deadline, Stamp};
use crate::connector::Connector;
use crate::core::{Closing, Token, Upkeep};
use crate::driver::crew::{Crew, Fate, Job, Kind, Mark};
use crate::driver::worker::Worker;
use crate::observe::{CloseReason, Observer};
use crate::shared::{Boxed, Event, Hands, Home, Shared};
use crate::sync::{self, Arc, Mutex, Sender, Unparker, Weak, bounded};

/// Events that may wait for a slow observer.
const MOST_EVENTS: usize = 1024;

/// A pool's driver. Its drop stops the reaper and waits for it; the crew finishes what is queued.
pub(crate) struct Driver<C: Connector> {
    ties: Arc<Ties<C>>,
    reaper: Option<Worker>,
}

type Running = Mutex<HashMap<Token, (Arc<Mark>, Kind), RandomState>>;

/// What ties a pool to the threads that work for it.
struct Ties<C: Connector> {
    pool: u64,
    crew: Crew,
    reaper: Unparker,
    events: Option<Sender<Event>>,
    /// Attempts, checks and settles that a thread has at this moment.
    running: Arc<Running>,
    /// It belongs to one type of pool, whose jobs it submits.
    _connector: PhantomData<fn(C)>,
}

impl<C: Connector> Driver<C> {
    /// Starts the threads of `shared`'s pool.
    pub(crate) fn start(shared: &Arc<Shared<C>>) -> io::Result<Self> {
        let name = shared.settings.name.clone();
        let crew = Crew::new(&name);
        let pool = shared.id;
        let reaper = reaper::start(&name, {
            let (shared, crew) = (Arc::downgrade(shared), crew.clone());
            move || {
                let shared = shared.upgrade()?;
                if !shared.has_hands() {
                    return Some(Stamp::MAX); // woken again once the driver is complete
                }
                let next = shared.reap();
                // If this was the last one, the connector's own drop must not run here.
                if let Some(last) = Arc::into_inner(shared) {
                    let run = Box::new(move |_| drop(last));
                    let mark = Arc::default();
                    if let Err((job, _)) = crew.submit(Job { kind: Kind::Upkeep, pool, mark, run })
                    {
                        job.refuse();
                    }
                    return None;
                }
                Some(next)
            }
        })?;
        let events = match shared.observer() {
            Some(observer) => Some(start_observer(&name, pool, Arc::clone(observer))?),
            None => None,
        };
        let ties = Arc::new(Ties {
            pool,
            crew,
            reaper: reaper.unparker().clone(),
            events,
            running: Arc::default(),
            _connector: PhantomData,
        });
        let hands: Weak<Ties<C>> = Arc::downgrade(&ties);
        shared.set_hands(hands);
        ties.reaper.unpark();
        Ok(Self { ties, reaper: Some(reaper) })
    }

    /// Stops the crew and waits until its last thread has ended; false if the deadline came first.
    pub(crate) fn join_crew(&self, deadline: Deadline) -> bool {
        self.ties.crew.stop();
        self.ties.crew.join(deadline)
    }
}

impl<C: Connector> Drop for Driver<C> {
    fn drop(&mut self) {
        // While it acts on its last look, the crew must still take what may block.
        drop(self.reaper.take());
        self.ties.crew.stop();
    }
}

fn start_observer(name: &str, pool: u64, observer: Arc<dyn Observer>) -> io::Result<Sender<Event>> {
    let (sender, events) = bounded::<Event>(MOST_EVENTS);
    // Not joined: it may be in user code. It ends when the last sender is gone.
    let _detached = sync::spawn(format!("{name}-observer"), move || {
        let _working = sync::working_for(pool);
        for event in events {
            event.tell(&*observer);
        }
    })?;
    Ok(sender)
}

/// Takes an attempt out of the list of those that run, also if it panics.
struct Ended {
    running: Arc<Running>,
    token: Token,
}

impl Drop for Ended {
    fn drop(&mut self) {
        self.running.lock().remove(&self.token);
    }
}

impl<C: Connector> Ties<C> {
    /// Has the crew do something about an attempt that can be abandoned.
    fn submit_attempt(&self, token: Token, kind: Kind, run: impl FnOnce(Fate) + Send + 'static) {
        let mark = Arc::<Mark>::default();
        let run = Box::new({
            let (running, mark) = (Arc::clone(&self.running), Arc::clone(&mark));
            move |fate| {
                running.lock().insert(token, (mark, kind));
                let _ended = Ended { running, token };
                run(fate);
            }
        });
        self.submit(Job { kind, pool: self.pool, mark, run });
    }

    fn submit(&self, job: Job) {
        if let Err((job, error)) = self.crew.submit(job) {
            log::debug!("no thread of the crew: {error}");
            job.refuse();
        }
    }
}

impl<C: Connector> Hands<C> for Ties<C> {
    fn connect(&self, home: Arc<Home<C>>, token: Token, deadline: Deadline) {
        let kind = Kind::Open(home.place);
        self.submit_attempt(token, kind, move |fate| match fate {
            Fate::Run => dial::open(&home, token, deadline),
            Fate::Refused => home.shared.refuse_connect(&home, token),
        });
    }

    fn upkeep(
        &self,
        home: Arc<Home<C>>,
        token: Token,
        conn: Boxed<C>,
        upkeep: Upkeep,
        deadline: Deadline,
    ) {
        self.submit_attempt(token, Kind::Upkeep, move |fate| match fate {
            Fate::Run => dial::upkeep(&home, token, conn, upkeep, deadline),
            Fate::Refused => {
                let verdict = Err(CloseReason::TooLate);
                home.shared.finish_upkeep(&home, token, Some(conn), verdict);
            }
        });
    }

    fn close(&self, home: Arc<Home<C>>, closing: Closing<Boxed<C>>) {
        // With no thread left, the caller's must do: it is the end of the pool, or of threads.
        let run = Box::new(move |_| home.shared.close_now(Some(&home), closing));
        self.submit(Job { kind: Kind::Close, pool: self.pool, mark: Arc::default(), run });
    }

    fn abandon(&self, token: Token) {
        let running = self.running.lock().remove(&token);
        if let Some((mark, kind)) = running {
            self.crew.abandon(&mark, kind);
        }
    }

    fn wake_reaper(&self) {
        self.reaper.unpark();
    }

    fn observe(&self, event: Event) -> bool {
        let Some(events) = &self.events else { return true };
        events.try_send(event).is_ok()
    }
}
