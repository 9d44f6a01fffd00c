//! What goes wrong on purpose, and how often it did.

use std::sync::atomic::{AtomicU64, Ordering};

/// Declares [`Fault`] with its words, so that none can be forgotten in a list.
macro_rules! faults {
    ($($(#[$doc:meta])* $name:ident = $words:literal,)+) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Fault { $($(#[$doc])* $name,)+ }

        impl Fault {
            pub(crate) const ALL: &'static [Self] = &[$(Self::$name,)+];
            pub(crate) const COUNT: usize = Self::ALL.len();

            pub(crate) const fn words(self) -> &'static str {
                match self { $(Self::$name => $words,)+ }
            }
        }
    };
}

faults! {
    // By a server, on idle connections.
    ClosedIdle = "idle connection closed",
    ResetIdle = "idle connection reset",
    HalfClosedIdle = "idle connection half-closed",
    StrayIdle = "stray bytes to an idle connection",
    // By a server, in place of an answer or after it.
    ClosedUnanswered = "closed without an answer",
    ResetUnanswered = "reset without an answer",
    Late = "answer after the read time-out",
    HalfAnswer = "half an answer, then silence",
    StrayAfter = "stray bytes after an answer",
    HalfClosedAfter = "half-closed after an answer",
    LateGreeting = "late greeting",
    NoWelcome = "greeting that refuses",
    // By a server, for a while.
    NotAccepting = "period of not accepting, backlog full",
    NotListening = "period without a listener",
    // By whoever has the servers.
    Killed = "server killed and started again",
    Paused = "server stopped for a while",
    // By the names.
    NameFailed = "look-up failed",
    NameSlow = "look-up took long",
    NameMoved = "name led to another server",
    NameAstray = "name led to a dead address first",
    NameLost = "name led to dead addresses only",
}

/// How often each was done.
pub(crate) struct Faults([AtomicU64; Fault::COUNT]);

impl Default for Faults {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; Fault::COUNT])
    }
}

impl Faults {
    pub(crate) fn note(&self, fault: Fault) {
        if let Some(count) = self.0.get(fault as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn counts(&self) -> Counts {
        Counts(self.0.each_ref().map(|count| count.load(Ordering::Relaxed)))
    }
}

/// The same, at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts(pub(crate) [u64; Fault::COUNT]);

impl Counts {
    pub(crate) fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine += theirs;
        }
    }

    pub(crate) fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    pub(crate) fn each(&self) -> impl Iterator<Item = (Fault, u64)> + '_ {
        Fault::ALL.iter().copied().zip(self.0)
    }
}
