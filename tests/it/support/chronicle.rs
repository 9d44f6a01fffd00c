//! An observer that writes down all it is told.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use warmline::{
    CheckKind, Checked, CheckedIn, CheckedOut, Checking, CheckoutFailed, CloseReason, Closed,
    ConnectFailed, Connected, Connecting, Detached, ErrorKind, Observer, Stats,
};

use super::{SOON, eventually};

/// An event, as far as it can be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    Connecting,
    Connected,
    ConnectFailed,
    CheckedOut,
    CheckoutFailed(ErrorKind),
    CheckedIn,
    Detached,
    Checking(CheckKind),
    Checked(CheckKind, Option<CloseReason>),
    Closed(CloseReason),
}

#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) step: Step,
    pub(crate) connection: Option<u64>,
    /// In nanoseconds.
    pub(crate) at: u64,
    /// The name of the thread that told it.
    pub(crate) thread: String,
}

/// Cloning makes a second handle to the same memory.
#[derive(Clone, Default)]
pub(crate) struct Chronicle(Arc<Mutex<Pages>>);

#[derive(Default)]
struct Pages {
    lines: Vec<Line>,
    connected: Vec<Connected>,
    failed: Vec<ConnectFailed>,
    checked_out: Vec<CheckedOut>,
    refused: Vec<CheckoutFailed>,
    checked_in: Vec<CheckedIn>,
    closed: Vec<Closed>,
}

impl Chronicle {
    pub(crate) fn lines(&self) -> Vec<Line> {
        self.0.lock().lines.clone()
    }

    /// What was told of one connection, by the times given.
    pub(crate) fn life_of(&self, connection: u64) -> Vec<Step> {
        let mut lines = self.lines();
        lines.retain(|line| line.connection == Some(connection));
        lines.sort_by_key(|line| line.at);
        lines.into_iter().map(|line| line.step).collect()
    }

    pub(crate) fn connected(&self) -> Vec<Connected> {
        self.0.lock().connected.clone()
    }

    pub(crate) fn failed(&self) -> Vec<ConnectFailed> {
        self.0.lock().failed.clone()
    }

    pub(crate) fn checked_out(&self) -> Vec<CheckedOut> {
        self.0.lock().checked_out.clone()
    }

    pub(crate) fn refused(&self) -> Vec<CheckoutFailed> {
        self.0.lock().refused.clone()
    }

    pub(crate) fn checked_in(&self) -> Vec<CheckedIn> {
        self.0.lock().checked_in.clone()
    }

    pub(crate) fn closed(&self) -> Vec<Closed> {
        self.0.lock().closed.clone()
    }

    pub(crate) fn count(&self, is_counted: impl Fn(Step) -> bool) -> u64 {
        self.0.lock().lines.iter().filter(|line| is_counted(line.step)).count() as u64
    }

    /// Waits until it was told this.
    pub(crate) fn await_step(&self, step: Step) {
        eventually(&format!("{step:?}"), || self.count(|other| other == step) > 0);
    }

    /// What these counts would be if they were taken from what was told.
    fn tally(&self, of: &Stats) -> HashMap<String, (u64, u64)> {
        let told = |step| self.count(|other| other == step);
        let unreceived = self.checked_in().iter().filter(|event| !event.was_received()).count();
        let mut tally = HashMap::from([
            ("opened", (told(Step::Connected), of.opened())),
            ("failed", (told(Step::ConnectFailed), of.connects_failed())),
            ("detached", (told(Step::Detached), of.detached())),
            ("timed out", (told(Step::CheckoutFailed(ErrorKind::Timeout)), of.timed_out())),
            ("checkouts", (told(Step::CheckedOut), of.checkouts() + unreceived as u64)),
            ("dropped", (0, of.events_dropped())),
        ])
        .into_iter()
        .map(|(name, counts)| (name.to_owned(), counts))
        .collect::<HashMap<_, _>>();
        for &reason in CloseReason::ALL {
            tally.insert(reason.to_string(), (told(Step::Closed(reason)), of.closed_for(reason)));
        }
        tally
    }

    /// Waits until what was told agrees with these counts, which change no more.
    #[track_caller]
    pub(crate) fn assert_agrees(&self, stats: &Stats) {
        let differences = || {
            let mut tally = self.tally(stats);
            tally.retain(|_, (told, counted)| told != counted);
            tally
        };
        let began = std::time::Instant::now();
        while !differences().is_empty() && began.elapsed() < SOON {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(differences().is_empty(), "told, counted: {:?}; {stats}", differences());
    }

    fn note(&self, step: Step, connection: Option<u64>, at: warmline::Stamp) {
        let thread = std::thread::current().name().unwrap_or_default().to_owned();
        self.0.lock().lines.push(Line { step, connection, at: at.as_nanos(), thread });
    }
}

impl Observer for Chronicle {
    fn connecting(&self, event: &Connecting) {
        self.note(Step::Connecting, Some(event.connection()), event.at());
    }

    fn connected(&self, event: &Connected) {
        self.0.lock().connected.push(event.clone());
        self.note(Step::Connected, Some(event.connection()), event.at());
    }

    fn connect_failed(&self, event: &ConnectFailed) {
        self.0.lock().failed.push(event.clone());
        self.note(Step::ConnectFailed, Some(event.connection()), event.at());
    }

    fn checked_out(&self, event: &CheckedOut) {
        self.0.lock().checked_out.push(event.clone());
        self.note(Step::CheckedOut, Some(event.connection()), event.at());
    }

    fn checkout_failed(&self, event: &CheckoutFailed) {
        self.0.lock().refused.push(event.clone());
        self.note(Step::CheckoutFailed(event.kind()), None, event.at());
    }

    fn checked_in(&self, event: &CheckedIn) {
        self.0.lock().checked_in.push(event.clone());
        self.note(Step::CheckedIn, Some(event.connection()), event.at());
    }

    fn detached(&self, event: &Detached) {
        self.note(Step::Detached, Some(event.connection()), event.at());
    }

    fn checking(&self, event: &Checking) {
        self.note(Step::Checking(event.kind()), Some(event.connection()), event.at());
    }

    fn checked(&self, event: &Checked) {
        let step = Step::Checked(event.kind(), event.objection());
        self.note(step, Some(event.connection()), event.at());
    }

    fn closed(&self, event: &Closed) {
        self.0.lock().closed.push(event.clone());
        self.note(Step::Closed(event.reason()), Some(event.connection()), event.at());
    }
}
