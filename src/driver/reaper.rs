//! Time: the thread that sleeps until something is due.

use std::io;
use std::time::Duration;

use crate::clock::{self, Stamp};
use crate::driver::worker::Worker;
use crate::sync::Ordering;

/// Starts the reaper. `look` does what is due and says when to look again; `None` ends it.
///
/// It makes no wake-ups of its own: with nothing due it sleeps until it is woken.
pub(crate) fn start(
    name: &str,
    mut look: impl FnMut() -> Option<Stamp> + Send + 'static,
) -> io::Result<Worker> {
    Worker::start(format!("{name}-reaper"), move |parker, stop| {
        while !stop.load(Ordering::Acquire) {
            let Some(next) = look() else { return };
            if next == Stamp::MAX {
                parker.park();
                continue;
            }
            let left = next.since(clock::mono());
            if left > Duration::ZERO {
                parker.park_timeout(left);
            }
        }
    })
}
