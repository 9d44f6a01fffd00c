//! Where a blocked checkout sits: a channel for its answer and a parker to wait on.

use crate::core::{Answer, Effects};
use crate::sync::{Parker, Receiver, Sender, Unparker, bounded};

/// The waiting thread's side. Recycled, once its channel is drained and its node is gone.
#[derive(Debug)]
pub(crate) struct Seat<T> {
    pub(crate) parker: Parker,
    pub(crate) answers: Receiver<Answer<T>>,
    pub(crate) mailbox: Mailbox<T>,
}

/// The side of whoever answers.
///
/// Answers are sent under the pool's lock to a channel that is empty then, so sending never blocks
/// and "no longer queued" means "answered". A hint to look again is an unpark alone, after the
/// lock: one that comes late is harmless.
#[derive(Debug)]
pub(crate) struct Mailbox<T> {
    answer: Sender<Answer<T>>,
    unparker: Unparker,
}

impl<T> Seat<T> {
    pub(crate) fn new() -> Self {
        let (answer, answers) = bounded(1);
        let parker = Parker::new();
        let unparker = parker.unparker().clone();
        Self { parker, answers, mailbox: Mailbox { answer, unparker } }
    }
}

impl<T> Mailbox<T> {
    pub(crate) fn unpark(&self) {
        self.unparker.unpark();
    }
}

impl<T> Clone for Mailbox<T> {
    fn clone(&self) -> Self {
        Self { answer: self.answer.clone(), unparker: self.unparker.clone() }
    }
}

impl<T> PartialEq for Mailbox<T> {
    fn eq(&self, other: &Self) -> bool {
        self.answer.same_channel(&other.answer)
    }
}

/// Sends the answers; whoever got one is added to those to be unparked. Under the lock.
pub(crate) fn send_answers<T>(fx: &mut Effects<T, Mailbox<T>>) {
    for (mailbox, answer) in fx.answers.drain(..) {
        // The channel is empty and its receiver waits: this cannot fail. If it ever did, the
        // value must not be dropped here, under the lock.
        if let Err(unsent) = mailbox.answer.try_send(answer) {
            debug_assert!(false, "bug: a waiter was answered twice");
            std::mem::forget(unsent);
        }
        fx.hints.push(mailbox);
    }
}
