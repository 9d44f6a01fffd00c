//! Channels.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_channel::{RecvError, RecvTimeoutError, TryRecvError, TrySendError};

use crate::sim::threads::{Cell, Crowd, end_of, has_passed, step};

#[derive(Debug)]
struct Channel<T> {
    queue: Cell<VecDeque<T>>,
    most: usize,
    senders: AtomicUsize,
    receivers: AtomicUsize,
    crowd: Crowd,
}

/// A channel with room for `most`.
pub(crate) fn bounded<T>(most: usize) -> (Sender<T>, Receiver<T>) {
    let channel = Arc::new(Channel {
        queue: Cell::new(VecDeque::new()),
        most,
        senders: AtomicUsize::new(1),
        receivers: AtomicUsize::new(1),
        crowd: Crowd::new(),
    });
    (Sender(Arc::clone(&channel)), Receiver(channel))
}

#[derive(Debug)]
pub(crate) struct Sender<T>(Arc<Channel<T>>);

#[derive(Debug)]
pub struct Receiver<T>(Arc<Channel<T>>);

impl<T> Sender<T> {
    pub(crate) fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
        step();
        if self.0.receivers.load(Ordering::Relaxed) == 0 {
            return Err(TrySendError::Disconnected(value));
        }
        let mut queue = self.0.queue.lock();
        if queue.len() >= self.0.most {
            return Err(TrySendError::Full(value));
        }
        queue.push_back(value);
        drop(queue);
        self.0.crowd.wake();
        Ok(())
    }

    pub(crate) fn same_channel(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl<T> Receiver<T> {
    /// # Errors
    ///
    /// As crossbeam-channel's.
    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        step();
        let first = self.0.queue.lock().pop_front();
        match first {
            Some(value) => Ok(value),
            None if self.0.senders.load(Ordering::Relaxed) == 0 => Err(TryRecvError::Disconnected),
            None => Err(TryRecvError::Empty),
        }
    }

    /// # Errors
    ///
    /// As crossbeam-channel's.
    pub fn recv(&self) -> Result<T, RecvError> {
        self.recv_until(None).map_err(|_| RecvError)
    }

    /// # Errors
    ///
    /// As crossbeam-channel's.
    pub fn recv_timeout(&self, timeout: Duration) -> Result<T, RecvTimeoutError> {
        self.recv_until(Some(end_of(timeout)))
    }

    fn recv_until(&self, until: Option<u64>) -> Result<T, RecvTimeoutError> {
        loop {
            match self.try_recv() {
                Ok(value) => return Ok(value),
                Err(TryRecvError::Disconnected) => return Err(RecvTimeoutError::Disconnected),
                Err(TryRecvError::Empty) if has_passed(until) => {
                    return Err(RecvTimeoutError::Timeout);
                }
                Err(TryRecvError::Empty) => self.0.crowd.wait(until),
            }
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.queue.lock().is_empty()
    }
}

impl<T> Iterator for Receiver<T> {
    type Item = T;
    fn next(&mut self) -> Option<T> {
        self.recv().ok()
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.senders.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(&self.0))
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        self.0.receivers.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(&self.0))
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        if self.0.senders.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.crowd.wake();
        }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        if self.0.receivers.fetch_sub(1, Ordering::Relaxed) == 1 {
            // What nobody can receive any more is dropped, as crossbeam does.
            let unread = std::mem::take(&mut *self.0.queue.lock());
            drop(unread);
        }
    }
}
