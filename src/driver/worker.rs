//! A thread with a name, stopped and joined when its handle is dropped.

use std::io;

use crate::sync::{self, Arc, AtomicBool, JoinHandle, Ordering};

/// Runs until told to stop. Must never block but where it can be woken.
pub(crate) struct Worker {
    stop: Arc<AtomicBool>,
    wake: Box<dyn Fn() + Send + Sync>,
    thread: Option<JoinHandle<()>>,
    /// The process it was started in: a fork has none of its threads.
    pid: u32,
}

impl Worker {
    /// Starts a thread that runs `body`, until it returns or finds the flag set; `wake` has it look
    /// at the flag.
    pub(crate) fn start(
        name: String,
        wake: impl Fn() + Send + Sync + 'static,
        body: impl FnOnce(&AtomicBool) + Send + 'static,
    ) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let thread = sync::spawn(name, {
            let stop = Arc::clone(&stop);
            move || body(&stop)
        })?;
        Ok(Self { stop, wake: Box::new(wake), thread: Some(thread), pid: std::process::id() })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        if self.pid != std::process::id() {
            // It runs in the parent. Here its memory, and with it its name to the system, may be
            // another thread's by now: that one must not be detached.
            std::mem::forget(thread);
            return;
        }
        self.stop.store(true, Ordering::Release);
        (self.wake)();
        if sync::is_current(&thread) {
            return; // a thread cannot wait for itself
        }
        if thread.join().is_err() {
            log::error!("a thread of the driver panicked");
        }
    }
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").finish_non_exhaustive()
    }
}
