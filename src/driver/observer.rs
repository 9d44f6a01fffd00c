//! The thread that tells observers what happened on the driver's other threads.

use std::io;

use crate::observe::Observer;
use crate::shared::{Event, guarded, note_panic};
use crate::sync::{self, Arc, Sender, bounded};

/// Events that may wait for slow observers.
const MOST_EVENTS: usize = 1024;

/// An event, and whom to tell.
pub(crate) struct Told {
    pub(crate) pool: u64,
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) event: Event,
}

/// Starts the thread. It ends when the last sender is gone; nobody waits for it, since it may be in
/// user code.
pub(crate) fn start(name: &str) -> io::Result<Sender<Told>> {
    let (sender, events) = bounded::<Told>(MOST_EVENTS);
    let _detached = sync::spawn(format!("{name}-observer"), move || {
        for Told { pool, observer, event } in events {
            let _working = sync::working_for(pool);
            if let Err(panic) = event.tell(&*observer) {
                note_panic("an observer panicked", &panic);
            }
            if let Err(panic) = guarded(|| drop(observer)) {
                note_panic("the drop of an observer panicked", &panic);
            }
        }
    })?;
    Ok(sender)
}
