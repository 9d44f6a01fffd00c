//! What a transition decided, as data: answers to send before the lock is released, and actions
//! for after.

use smallvec::SmallVec;

use crate::clock::Stamp;
use crate::core::entry::Grant;
use crate::core::slab::Token;
use crate::error::{ConnectFailure, Counts};
use crate::holder::Holding;
use crate::observe::CloseReason;
use crate::sync::Arc;

/// What a waiter gets.
#[derive(Debug)]
pub(crate) enum Answer<T> {
    Granted(Grant<T>),
    /// The last attempt failed, and nothing is left that could serve it.
    Failed(Arc<ConnectFailure>, Counts),
    Closed,
}

/// What to do once the lock is released, in this order.
#[derive(Debug)]
#[must_use]
pub(crate) enum Action<T> {
    Close(Closing<T>),
    /// Have a connection opened.
    Connect {
        endpoint: u32,
        token: Token,
        deadline: Stamp,
    },
    /// Have the crew check or settle one.
    Upkeep {
        endpoint: u32,
        token: Token,
        conn: T,
        upkeep: Upkeep,
        deadline: Stamp,
    },
    /// What was checked or settled is back, or taken for lost.
    Checked {
        endpoint: u32,
        token: Token,
        objection: Option<CloseReason>,
    },
    /// A connection that a thread still has is given up.
    Lost {
        endpoint: u32,
        end: End,
    },
    /// An attempt has failed.
    ConnectFailed {
        endpoint: u32,
        token: Token,
        failure: Arc<ConnectFailure>,
        /// Nothing is open at the endpoint now.
        is_out: bool,
        /// The pool is not closed.
        is_news: bool,
    },
    /// Have an attempt end that is past its deadline, or not wanted any more: by shutting down its
    /// socket, or by having the event loop drop it.
    Interrupt(Token),
    /// The crew thread that has it is lost; it counts no more.
    Abandon(Token),
    /// What waits for a thread of the crew need not wait any longer: it comes back refused.
    Withdraw(Token),
    /// These have been out for suspiciously long: at this moment, by the wall clock.
    Suspect {
        endpoint: u32,
        new: Vec<Holding>,
        /// They were told of before.
        known: Vec<Holding>,
        at: Stamp,
    },
    /// The reaper must look earlier than it meant to.
    WakeReaper,
    /// To be dropped off the lock.
    Forget(Arc<ConnectFailure>),
}

/// A connection that has left the pool and is to be closed.
#[derive(Debug)]
pub(crate) struct Closing<T> {
    pub(crate) conn: T,
    pub(crate) endpoint: u32,
    pub(crate) end: End,
    /// Its end was told before: it had been given up.
    pub(crate) is_told: bool,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End {
    pub(crate) token: Token,
    pub(crate) reason: CloseReason,
    pub(crate) born: Stamp,
    pub(crate) uses: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Upkeep {
    Check,
    Settle,
    /// A heartbeat, in the event loop.
    Beat,
}

/// Filled by transitions, emptied by whoever holds the lock.
#[derive(Debug)]
pub(crate) struct Effects<T, W> {
    /// To be sent before the lock is released: "no longer queued" then means "answered".
    pub(crate) answers: SmallVec<[(W, Answer<T>); 1]>,
    /// Who is to look again.
    pub(crate) hints: SmallVec<[W; 2]>,
    pub(crate) actions: SmallVec<[Action<T>; 2]>,
}

impl<T, W> Effects<T, W> {
    pub(crate) fn new() -> Self {
        Self { answers: SmallVec::new(), hints: SmallVec::new(), actions: SmallVec::new() }
    }

    pub(crate) fn act(&mut self, action: Action<T>) {
        self.actions.push(action);
    }
}
