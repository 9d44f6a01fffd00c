//! Where those who wait get their answers: a thread sits on a [`Seat`], a request has a [`Desk`].

use smallvec::SmallVec;

use crate::core::{Answer, Effects};
use crate::sync::{Arc, Parker, Receiver, Sender, Unparker, bounded};

/// A waiting thread's side: a channel for its answer and a parker to wait on. Recycled, once its
/// channel is drained and its node is gone.
#[derive(Debug)]
pub(crate) struct Seat<T> {
    pub(crate) parker: Parker,
    pub(crate) answers: Receiver<Answer<T>>,
    pub(crate) mailbox: Mailbox<T>,
}

/// Where the answer to a request goes.
///
/// Off the lock, since a connection may have to be looked at before it goes out. Whoever gives the
/// request up meanwhile and whoever brings the answer settle between them who came first.
pub(crate) trait Desk<T>: Send + Sync {
    /// The answer, for good. Never called under the pool's lock.
    fn answer(self: Arc<Self>, answer: Answer<T>);
}

/// The side of whoever answers.
pub(crate) enum Mailbox<T> {
    /// Answers are sent under the pool's lock to a channel that is empty then, so sending never
    /// blocks and "no longer queued" means "answered". A hint to look again is an unpark alone,
    /// after the lock: one that comes late is harmless.
    Seat { answer: Sender<Answer<T>>, unparker: Unparker },
    /// Answers follow after the lock. It is never told to look.
    Desk(Arc<dyn Desk<T>>),
}

impl<T> Seat<T> {
    pub(crate) fn new() -> Self {
        let (answer, answers) = bounded(1);
        let parker = Parker::new();
        let unparker = parker.unparker().clone();
        Self { parker, answers, mailbox: Mailbox::Seat { answer, unparker } }
    }
}

impl<T> Mailbox<T> {
    pub(crate) fn unpark(&self) {
        match self {
            Self::Seat { unparker, .. } => unparker.unpark(),
            Self::Desk(_) => debug_assert!(false, "bug: a request was told to look"),
        }
    }
}

impl<T> Clone for Mailbox<T> {
    fn clone(&self) -> Self {
        match self {
            Self::Seat { answer, unparker } => {
                Self::Seat { answer: answer.clone(), unparker: unparker.clone() }
            }
            Self::Desk(desk) => Self::Desk(Arc::clone(desk)),
        }
    }
}

impl<T> PartialEq for Mailbox<T> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Seat { answer: own, .. }, Self::Seat { answer: other, .. }) => {
                own.same_channel(other)
            }
            (Self::Desk(own), Self::Desk(other)) => Arc::ptr_eq(own, other),
            _ => false,
        }
    }
}

impl<T> std::fmt::Debug for Mailbox<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Seat { .. } => "Seat",
            Self::Desk(_) => "Desk",
        })
    }
}

/// An answer for a request, to be given off the lock.
pub(crate) type Reply<T> = (Arc<dyn Desk<T>>, Answer<T>);

/// Sends the answers of threads, which are then to be unparked; returns those of requests. Under
/// the lock.
pub(crate) fn send_answers<T>(fx: &mut Effects<T, Mailbox<T>>) -> SmallVec<[Reply<T>; 1]> {
    let mut replies = SmallVec::new();
    for (mailbox, answer) in fx.answers.drain(..) {
        let sender = match &mailbox {
            Mailbox::Seat { answer, .. } => answer,
            Mailbox::Desk(desk) => {
                replies.push((Arc::clone(desk), answer));
                continue;
            }
        };
        // The channel is empty and its receiver waits: this cannot fail. If it ever did, the
        // value must not be dropped here, under the lock.
        if let Err(unsent) = sender.try_send(answer) {
            debug_assert!(false, "bug: a waiter was answered twice");
            std::mem::forget(unsent);
        }
        fx.hints.push(mailbox);
    }
    replies
}
