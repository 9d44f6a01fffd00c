//! A thread with a name, stopped and joined when its handle is dropped.

use std::io;
use std::thread::{self, JoinHandle};

use crate::sync::{self, Arc, AtomicBool, Ordering, Parker, Unparker};

/// Runs until told to stop. Must never block on anything but its parker.
#[derive(Debug)]
pub(crate) struct Worker {
    stop: Arc<AtomicBool>,
    unparker: Unparker,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Starts a thread that runs `body` with its parker, until `body` returns or finds the flag
    /// set.
    pub(crate) fn start(
        name: String,
        body: impl FnOnce(&Parker, &AtomicBool) + Send + 'static,
    ) -> io::Result<Self> {
        let parker = Parker::new();
        let unparker = parker.unparker().clone();
        let stop = Arc::new(AtomicBool::new(false));
        let thread = sync::spawn(name, {
            let stop = Arc::clone(&stop);
            move || body(&parker, &stop)
        })?;
        Ok(Self { stop, unparker, thread: Some(thread) })
    }

    pub(crate) fn unparker(&self) -> &Unparker {
        &self.unparker
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.unparker.unpark();
        let Some(thread) = self.thread.take() else { return };
        if thread.thread().id() == thread::current().id() {
            return; // a thread cannot wait for itself
        }
        if thread.join().is_err() {
            log::error!("a thread of the driver panicked");
        }
    }
}
