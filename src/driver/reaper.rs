//! Time: the thread that sleeps until something is due.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use crate::clock::{self, Stamp};
use crate::driver::worker::Worker;
use crate::sync::Ordering;

/// A look that panics, in the drop of a user's value say, is not repeated at once.
const AFTER_PANIC: Duration = Duration::from_millis(100);

/// Starts the reaper. `look` does what is due and says when to look again; `None` ends it.
///
/// It makes no wake-ups of its own: with nothing due it sleeps until it is woken.
pub(crate) fn start(
    name: &str,
    mut look: impl FnMut() -> Option<Stamp> + Send + 'static,
) -> io::Result<Worker> {
    Worker::start(format!("{name}-reaper"), move |parker, stop| {
        while !stop.load(Ordering::Acquire) {
            let Ok(next) = catch_unwind(AssertUnwindSafe(&mut look)) else {
                log::error!("the reaper panicked; it goes on");
                parker.park_timeout(AFTER_PANIC);
                continue;
            };
            let Some(next) = next else { return };
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
