//! What a trace tells about requests, in its order.

use std::sync::Arc;

use parking_lot::Mutex;
use warmline::http::{Event, Trace};

/// Remembers the steps. Cloning makes a second handle to the same memory.
#[derive(Clone, Default)]
pub(super) struct Steps(Arc<Mutex<Vec<Event>>>);

impl Trace for Steps {
    fn event(&self, event: &Event) {
        self.0.lock().push(event.clone());
    }
}

impl Steps {
    /// A word for each, without times.
    pub(super) fn words(&self) -> Vec<String> {
        self.0.lock().iter().map(word).collect()
    }

    pub(super) fn count(&self, named: &str) -> usize {
        self.words().iter().filter(|word| *word == named).count()
    }
}

fn word(event: &Event) -> String {
    match event {
        Event::Queued { .. } => "queued".to_owned(),
        Event::Resolved { .. } => "resolved".to_owned(),
        Event::Connected { .. } => "connected".to_owned(),
        Event::GotConnection { is_reused: true, .. } => "reused".to_owned(),
        Event::GotConnection { .. } => "fresh".to_owned(),
        Event::Wrote { .. } => "wrote".to_owned(),
        Event::Interim { status, .. } => format!("interim {}", status.as_u16()),
        Event::FirstByte { .. } => "first byte".to_owned(),
        Event::Head { status, .. } => format!("head {}", status.as_u16()),
        Event::BodyEnd { bytes, .. } => format!("end {bytes}"),
        Event::Returned { .. } => "returned".to_owned(),
        Event::Closed { reason, .. } => format!("closed: {reason}"),
        Event::Repeated { .. } => "repeated".to_owned(),
        Event::Redirected { status, .. } => format!("redirected {}", status.as_u16()),
        event => format!("{event:?}"),
    }
}
