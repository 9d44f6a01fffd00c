//! The event loop: connects sockets without blocking, learns that idle connections have died, and
//! asks them whether they live.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::clock;
use crate::connector::Watch;
use crate::core::{Cut, Token};
use crate::driver::connects::{self, Connects, Key, Order};
use crate::driver::crew::Crew;
use crate::driver::heartbeat::{self, Beating, Beats};
use crate::driver::watch::{Claims, Watches, notice_of};
use crate::driver::worker::Worker;
use crate::shared::Watcher;
use crate::sync::{self, Arc, AtomicBool, Mutex, Ordering};
use crate::sys::mio::{self, Events, Poll, Waker};

/// News of the system that one turn takes at the most.
const MOST_EVENTS: usize = 256;
/// The tag of the waker's word.
const WAKER_TAG: u16 = Token::MOST_TAG;

/// What other threads have of the loop.
#[derive(Debug)]
pub(crate) struct EventLoop {
    inbox: Mutex<Inbox>,
    waker: Waker,
    pub(crate) watches: Watches,
}

#[derive(Debug, Default)]
struct Inbox {
    commands: Vec<Command>,
    has_ended: bool,
}

pub(crate) enum Command {
    Connect(Order),
    /// Past its deadline, or not wanted any more.
    Cancel(Key),
    /// Ask an idle connection whether it works.
    Beat(Box<dyn Beating>),
    #[cfg(test)]
    Panic,
}

impl EventLoop {
    /// Starts the thread.
    pub(crate) fn start(name: &str, crew: Crew) -> io::Result<(Arc<Self>, Worker)> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), mio::Token(waker_word()))?;
        let registry = Arc::new(poll.registry().try_clone()?);
        let claims = Arc::<Claims>::default();
        let watches = Watches::new(Arc::clone(&registry), Arc::clone(&claims));
        let this = Arc::new(Self { inbox: Mutex::default(), waker, watches });
        let worker = Worker::start(
            format!("{name}-loop"),
            {
                let this = Arc::clone(&this);
                move || this.wake()
            },
            {
                let this = Arc::clone(&this);
                move |stop| {
                    let beats = Beats::new(Arc::clone(&registry));
                    let work = Work { connects: Connects::new(registry, claims), beats };
                    this.run(poll, work, &crew, stop);
                }
            },
        )?;
        Ok((this, worker))
    }

    /// Has the loop do something. After its end a command is dropped, and with it an order.
    pub(crate) fn send(&self, command: Command) {
        let mut inbox = self.inbox.lock();
        if inbox.has_ended {
            drop(inbox);
            drop(command);
            return;
        }
        let was_empty = inbox.commands.is_empty();
        inbox.commands.push(command);
        drop(inbox);
        if was_empty {
            self.wake(); // else somebody has, and it has not looked yet
        }
    }

    fn wake(&self) {
        if let Err(error) = self.waker.wake() {
            log::error!(error:% = error; "could not wake the event loop: {error}");
        }
    }

    fn run(&self, mut poll: Poll, mut work: Work, crew: &Crew, stop: &AtomicBool) {
        let _working = sync::working_for(sync::EVERY_POOL);
        let mut events = Events::with_capacity(MOST_EVENTS);
        // However it ends, nothing may be left that waits for it.
        survives(|| {
            while !stop.load(Ordering::Acquire) {
                if let Err(error) = self.turn(&mut poll, &mut events, &mut work, crew) {
                    log::error!(error:% = error; "the event loop cannot go on: {error}");
                    break;
                }
            }
        });
        let mut inbox = self.inbox.lock();
        inbox.has_ended = true;
        let unread = std::mem::take(&mut inbox.commands);
        drop(inbox);
        let_fall((work, unread));
    }

    /// Waits for news, and acts on it.
    fn turn(
        &self,
        poll: &mut Poll,
        events: &mut Events,
        work: &mut Work,
        crew: &Crew,
    ) -> io::Result<()> {
        match poll.poll(events, work.connects.pause(clock::mono())) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            result => result?,
        }
        for event in &*events {
            let (tag, of) = Cut::unpack(event.token().0);
            match tag {
                WAKER_TAG => {}
                connects::TAG => work.go_on(|work| work.connects.ready(of)),
                heartbeat::TAG => work.go_on(|work| work.beats.ready(of)),
                tag => {
                    let Some(notice) = notice_of(event, of) else { continue };
                    let Some(ward) = self.watches.ward(tag) else { continue };
                    survives(|| ward.noticed(of, notice, crew));
                }
            }
        }
        let commands = std::mem::take(&mut self.inbox.lock().commands);
        let now = clock::mono();
        for command in commands {
            work.go_on(|work| match command {
                Command::Connect(order) => work.connects.add(order, now),
                Command::Cancel(key) => {
                    work.connects.cancel(key);
                    work.beats.cancel(key);
                }
                Command::Beat(beating) => work.beats.add(beating),
                #[cfg(test)]
                Command::Panic => std::panic::panic_any("as the test says"),
            });
        }
        work.go_on(|work| work.connects.advance(now));
        Ok(())
    }
}

/// What the loop has under way.
#[derive(Debug)]
struct Work {
    connects: Connects,
    beats: Beats,
}

impl Work {
    /// Does something about it. If that panics, all of it fails: who knows what was left half done.
    fn go_on(&mut self, act: impl FnOnce(&mut Self)) {
        if !survives(|| act(self)) {
            let_fall((self.connects.take_all(), self.beats.take_all()));
        }
    }
}

impl Watcher for EventLoop {
    fn unwatch(&self, of: (u64, Token), watch: Watch<'_>) {
        self.watches.unwatch(of, watch);
    }
}

fn waker_word() -> usize {
    Token::default().pack(WAKER_TAG).unwrap_or(usize::MAX)
}

/// Does one thing of several. News comes only once: a panic must not cost others theirs.
fn survives(act: impl FnOnce()) -> bool {
    let has_survived = catch_unwind(AssertUnwindSafe(act)).is_ok();
    if !has_survived {
        log::error!("the event loop panicked; what it was connecting may fail");
    }
    has_survived
}

/// Drops what may have orders in it: each of them then fails.
fn let_fall<T>(orders: T) {
    if catch_unwind(AssertUnwindSafe(|| drop(orders))).is_err() {
        log::error!("an attempt panicked while it was dropped");
    }
}

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Connect(_) => "Connect",
            Self::Cancel(_) => "Cancel",
            Self::Beat(_) => "Beat",
            #[cfg(test)]
            Self::Panic => "Panic",
        })
    }
}

#[cfg(test)]
mod tests;
