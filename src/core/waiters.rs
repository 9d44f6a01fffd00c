//! Who waits for a connection.

use crate::clock::Stamp;
use crate::core::list::{Linked, Links};
use crate::sync::Caller;

/// A checkout that found nothing idle. First come, first served, within the bounds of fairness
/// that [`checkin`](crate::core::Core::checkin) keeps.
#[derive(Debug)]
pub(crate) struct Waiter<W> {
    /// Where the answer goes.
    pub(crate) mailbox: W,
    pub(crate) endpoint: u32,
    pub(crate) arrived: Stamp,
    pub(crate) deadline: Stamp,
    pub(crate) manner: Manner,
    pub(crate) caller: Caller,
    /// How things stood when it came.
    pub(crate) arrival: Arrival,
    /// It was told to look again and has not looked yet.
    pub(crate) told: bool,
    pub(crate) links: Links,
}

/// On what terms somebody asks for a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    /// When it asked before, if what it was given then turned out to be of no use: it goes back to
    /// its place in the queue.
    pub(crate) asked_at: Option<Stamp>,
    pub(crate) deadline: Stamp,
    pub(crate) manner: Manner,
    pub(crate) caller: Caller,
}

/// What somebody found who began to wait.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Arrival {
    /// How many waited already.
    pub(crate) ahead: u32,
    /// So far: checkouts, connections given back, for how long these had been in use (nanoseconds),
    /// connections opened, and attempts that failed.
    pub(crate) checkouts: u64,
    pub(crate) returns: u64,
    pub(crate) used: u64,
    pub(crate) opened: u64,
    pub(crate) failed: u64,
}

/// How a waiter waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// A thread that waits for a connection, or for the news that none can be opened.
    Eager,
    /// A thread that waits an outage out, as long as its deadline allows.
    Patient,
    /// Nobody looks on its behalf: it is never told, but answered with what is idle.
    Request,
}

impl<W> Waiter<W> {
    /// Past its deadline it takes nothing any more: it is about to leave by itself.
    #[inline]
    pub(crate) fn has_expired(&self, mono: Stamp) -> bool {
        self.deadline <= mono
    }
}

impl<W> Linked<0> for Waiter<W> {
    fn links(&self) -> &Links {
        &self.links
    }
    fn links_mut(&mut self) -> &mut Links {
        &mut self.links
    }
}
