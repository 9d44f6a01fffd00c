//! What is logged: about which pool and endpoint, with what, and how often at the most.

use std::fmt;
use std::time::Duration;

use crate::clock::{self, Stamp};
use crate::connector::Connector;
use crate::error::{ConnectFailure, Failure};
use crate::shared::{Home, Shared, guarded};
use crate::sync::{AtomicU64, Mutex, Ordering};

/// Between two records that a [`Ration`] lets through.
const RATION: Duration = Duration::from_secs(1);

/// Logs something about an endpoint. Its names begin the sentence and are its first key-values;
/// others follow as the `log` crate writes them, before the semicolon. Nothing is evaluated where
/// the level is off.
macro_rules! note {
    ($level:ident, $home:expr $(, $key:tt $(:$how:tt)? = $value:expr)*; $($text:tt)+) => {{
        let home = $home;
        ::log::log!(
            ::log::Level::$level,
            pool = home.pool_name(),
            endpoint = home.label()
            $(, $key $(:$how)? = $value)*;
            "{}: {}", home, format_args!($($text)+)
        )
    }};
}
pub(crate) use note;

/// A duration as key-values have it.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Lets one record through a second, and counts those it holds back.
#[derive(Debug, Default)]
pub(crate) struct Ration {
    /// When it last let one through; 0: never.
    passed_at: AtomicU64,
    held_back: AtomicU64,
}

impl Ration {
    pub(crate) const fn new() -> Self {
        Self { passed_at: AtomicU64::new(0), held_back: AtomicU64::new(0) }
    }

    /// The record may go through, and says how many could not since the last one; else it is
    /// counted.
    pub(crate) fn pass(&self, now: Stamp) -> Option<HeldBack> {
        let (last, now) = (self.passed_at.load(Ordering::Relaxed), now.as_nanos());
        let is_due = last == 0 || now.saturating_sub(last) >= clock::nanos(RATION);
        let passes = is_due
            && self
                .passed_at
                .compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if passes {
            return Some(HeldBack(self.held_back.swap(0, Ordering::Relaxed)));
        }
        self.held_back.fetch_add(1, Ordering::Relaxed);
        None
    }
}

/// How many records did not go through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HeldBack(pub(crate) u64);

impl fmt::Display for HeldBack {
    /// The end of a sentence; nothing if there were none.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            1 => f.write_str(" (1 other was held back)"),
            count => write!(f, " ({count} others were held back)"),
        }
    }
}

/// Panics of no pool in particular.
static AT_LARGE: Ration = Ration::new();

/// Logs a panic in code that several pools may share.
#[cold]
pub(crate) fn note_panic(what: &str, panic: &str) {
    match AT_LARGE.pass(clock::mono()) {
        Some(held) => log::error!(panic = panic, held_back = held.0; "{what}: {panic}{held}"),
        None => log::debug!(panic = panic; "{what}: {panic}"),
    }
}

/// What a pool rations.
#[derive(Debug, Default)]
pub(super) struct Rations {
    /// Endpoints that become unreachable, or reachable again, and what this machine runs out of.
    outages: Ration,
    panics: Ration,
}

/// Since when no connection to an endpoint can be opened, while none is open.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outage {
    since: Stamp,
    failed: u64,
    /// Its beginning was not held back: nor is its end.
    was_told: bool,
}

/// What an endpoint remembers for its log.
pub(super) type Remembered = Mutex<Option<Outage>>;

impl<C: Connector> Shared<C> {
    /// Logs a panic in user code.
    #[cold]
    pub(crate) fn note_panic(&self, what: &str, panic: &str) {
        let pool = &*self.settings.name;
        match self.rations.panics.pass(clock::mono()) {
            Some(held) => log::error!(
                pool = pool, panic = panic, held_back = held.0;
                "{pool}: {what}: {panic}{held}"
            ),
            None => log::debug!(pool = pool, panic = panic; "{pool}: {what}: {panic}"),
        }
    }
}

impl<C: Connector> Home<C> {
    pub(crate) fn pool_name(&self) -> &str {
        &self.shared.settings.name
    }

    pub(crate) fn label(&self) -> &str {
        &self.label
    }

    /// Logs a panic in user code.
    #[cold]
    pub(crate) fn note_panic(&self, what: &str, panic: &str) {
        match self.shared.rations.panics.pass(clock::mono()) {
            Some(held) => {
                note!(Error, self, panic = panic, held_back = held.0; "{what}: {panic}{held}");
            }
            None => note!(Debug, self, panic = panic; "{what}: {panic}"),
        }
    }

    /// Logs an attempt that failed: louder if it leaves the endpoint without a connection, as the
    /// first of an outage, or says that this machine runs out of something.
    pub(super) fn note_failed(&self, failure: &ConnectFailure, is_out: bool, now: Stamp) {
        let is_local = failure.failure == Failure::Local;
        let is_first = !is_local && self.begins_outage(is_out, now);
        let held = (is_local || is_first).then(|| self.shared.rations.outages.pass(now)).flatten();
        if is_first && held.is_some() {
            let mut outage = self.outage.lock();
            if let Some(outage) = outage.as_mut() {
                outage.was_told = true;
            }
        }
        // The connector's own error displays itself here.
        let noted = guarded(|| match held {
            Some(held) if is_local => note!(
                Warn, self, failure:% = failure.failure, phase:% = failure.phase,
                took_ms = millis(failure.took), cause:% = failure.said(),
                held_back = held.0;
                "{failure}{held}"
            ),
            Some(held) => note!(
                Warn, self, failure:% = failure.failure, phase:% = failure.phase,
                took_ms = millis(failure.took), cause:% = failure.said(),
                held_back = held.0;
                "no connection is open, and none can be opened: {failure}{held}"
            ),
            None => note!(
                Debug, self, failure:% = failure.failure, phase:% = failure.phase,
                took_ms = millis(failure.took), cause:% = failure.said();
                "{failure}"
            ),
        });
        if let Err(panic) = noted {
            self.note_panic("an error panicked when it was displayed", &panic);
        }
    }

    /// Counts a failed attempt; true if an outage begins with it.
    fn begins_outage(&self, is_out: bool, now: Stamp) -> bool {
        let mut outage = self.outage.lock();
        match &mut *outage {
            Some(outage) => {
                outage.failed += 1;
                false
            }
            None if is_out => {
                *outage = Some(Outage { since: now, failed: 1, was_told: false });
                true
            }
            None => false,
        }
    }

    /// Logs the end of an outage, if this is one.
    pub(super) fn note_reached(&self, now: Stamp) {
        let outage = self.outage.lock().take();
        let Some(Outage { since, failed, was_told }) = outage else { return };
        let level = if was_told { log::Level::Warn } else { log::Level::Debug };
        let took = now.since(since);
        let attempts = if failed == 1 { "attempt" } else { "attempts" };
        let took_ms = millis(took);
        log::log!(
            level, pool = self.pool_name(), endpoint = self.label(), outage_ms = took_ms,
            attempts = failed;
            "{self}: a connection was opened again, {took:.1?} after the first of {failed} failed \
             {attempts}"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_record_goes_through_a_second_and_says_how_many_did_not() {
        let ration = Ration::new();
        let at = Stamp::from_millis;
        assert_eq!(ration.pass(at(1)), Some(HeldBack(0)), "the first at once");
        assert_eq!((ration.pass(at(2)), ration.pass(at(1000))), (None, None));
        assert_eq!(ration.pass(at(1001)), Some(HeldBack(2)));
        assert_eq!(ration.pass(at(1002)), None);
        assert_eq!(ration.pass(at(9000)), Some(HeldBack(1)));
        assert_eq!(ration.pass(at(10_000)), Some(HeldBack(0)));
    }

    #[test]
    fn a_sentence_ends_with_how_many_were_held_back_if_any_were() {
        let ends = [0, 1, 2].map(|count| HeldBack(count).to_string());
        assert_eq!(ends, ["", " (1 other was held back)", " (2 others were held back)"]);
    }
}
