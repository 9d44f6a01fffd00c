//! One connection, from its permit to its end.

use std::panic::Location;

use crate::clock::Stamp;
use crate::core::list::{Linked, Links};
use crate::core::permits::Permit;
use crate::core::slab::Token;
use crate::core::timers::Due;
use crate::error::Phase;
use crate::observe::CloseReason;

/// The list of an endpoint's idle connections, and that of its attempts.
pub(crate) const STACK: usize = 0;
/// The list of all idle connections, in the order they came back, and that of all attempts, in the
/// order they began.
pub(crate) const USED: usize = 1;

#[derive(Debug)]
pub(crate) struct Entry<T> {
    /// Here while idle; with a user, or on the crew, in every other state.
    pub(crate) conn: Option<T>,
    pub(crate) state: State,
    pub(crate) endpoint: u32,
    /// The endpoint's generation when it began: an eviction makes it old.
    pub(crate) epoch: u32,
    /// When it was opened; before that, when it was begun. Monotonic.
    pub(crate) born: Stamp,
    /// When it came back; while it is in use, when it went out. Wall clock.
    pub(crate) since: Stamp,
    /// Who has it, or had it last: the line of the program, and the thread.
    pub(crate) site: Option<&'static Location<'static>>,
    pub(crate) thread: u32,
    /// How many had come back by then: idle ones are in this order.
    pub(crate) rank: u64,
    /// When it was last found to work, while nobody used it, or there was nothing to ask. Wall clock.
    pub(crate) proved: Stamp,
    /// When its server last answered then. Wall clock.
    pub(crate) heard: Stamp,
    /// How often it was checked out.
    pub(crate) uses: u32,
    /// What was noticed while it was elsewhere than idle: why it is of no more use.
    pub(crate) doomed: Option<CloseReason>,
    /// It is past its lifetime and ends when it comes back.
    pub(crate) retire: bool,
    /// There was nothing to ask.
    pub(crate) is_unasked: bool,
    /// It is out for proof that nobody waits for.
    pub(crate) is_routine: bool,
    /// It is about to retire, and another is being opened in its place.
    pub(crate) awaits_successor: bool,
    /// What its timer is set to: the end of its lifetime, or of the attempt that has it, or the time
    /// to see whether it wants proof.
    pub(crate) timer: Due,
    /// When it is to retire; of an attempt, its deadline.
    pub(crate) retires_at: Due,
    pub(crate) stack: Links,
    pub(crate) used: Links,
    pub(crate) permit: Permit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// The event loop connects it, or the crew opens it.
    Connecting(Attempt),
    Idle,
    InUse,
    /// Out of the pool for a check, or to be settled.
    Checking(Attempt),
}

/// How far the work of the driver's threads on a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attempt {
    /// It waits for a thread.
    Queued,
    /// It waits for the addresses of its name, without a thread.
    Resolving,
    /// A thread has it. If it can be interrupted, there is a socket to shut down.
    Running { phase: Phase, interruptible: bool },
    /// Its deadline has passed and its socket was shut down; it should return at once.
    Interrupted,
    /// Nobody wanted it any more and others needed its room. What comes of it is no failure.
    CalledOff,
    /// It did not return, and too many were abandoned already: it keeps its permit.
    Stuck,
}

impl<T> Entry<T> {
    /// For how long, in nanoseconds, one that is in use has been so. The clock is coarse, but of
    /// many uses the sum is right.
    #[inline(always)]
    pub(crate) fn used(&self, wall: Stamp) -> u64 {
        wall.as_nanos().saturating_sub(self.since.as_nanos())
    }
}

impl Attempt {
    /// Nobody need wait for what comes of it: it is past its deadline for good, or called off.
    pub(crate) const fn is_lost(self) -> bool {
        matches!(self, Self::Stuck | Self::CalledOff)
    }
}

impl<T> Linked<STACK> for Entry<T> {
    #[inline(always)]
    fn links(&self) -> &Links {
        &self.stack
    }
    #[inline(always)]
    fn links_mut(&mut self) -> &mut Links {
        &mut self.stack
    }
}

impl<T> Linked<USED> for Entry<T> {
    #[inline(always)]
    fn links(&self) -> &Links {
        &self.used
    }
    #[inline(always)]
    fn links_mut(&mut self) -> &mut Links {
        &mut self.used
    }
}

/// A connection on its way to a user, with what its guard must know.
#[derive(Debug)]
pub(crate) struct Grant<T> {
    pub(crate) conn: T,
    pub(crate) lease: Lease,
}

/// What a guard knows of its connection.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Lease {
    pub(crate) token: Token,
    pub(crate) epoch: u32,
    /// How often it was checked out before.
    pub(crate) uses: u32,
    pub(crate) born: Stamp,
    /// For how long it was idle, in nanoseconds, or that it was not.
    idle_for: u64,
}

/// Handed over from its last user, or from the crew.
const NOT_IDLE: u64 = u64::MAX;

impl Lease {
    #[inline(always)]
    pub(crate) fn new(
        token: Token,
        (epoch, uses, born): (u32, u32, Stamp),
        idle_for: Option<u64>,
    ) -> Self {
        Self { token, epoch, uses, born, idle_for: idle_for.unwrap_or(NOT_IDLE) }
    }

    /// It was idle, and not handed over from its last user or from the crew.
    #[inline(always)]
    pub(crate) const fn was_idle(&self) -> bool {
        self.idle_for != NOT_IDLE
    }

    /// For how long, in nanoseconds.
    #[inline(always)]
    pub(crate) const fn idle_for(&self) -> u64 {
        if self.was_idle() { self.idle_for } else { 0 }
    }
}
