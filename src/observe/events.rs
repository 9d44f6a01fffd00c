//! What an observer is told, one type for each event.

use std::fmt;
use std::time::Duration;

use crate::clock::Stamp;
use crate::error::{ErrorKind, Failure, Phase, Verdict};
use crate::observe::CloseReason;
use crate::sync::Arc;

/// How long an attempt spent in each phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Spans {
    pub(crate) queued: Duration,
    pub(crate) resolve: Duration,
    pub(crate) connect: Duration,
    pub(crate) open: Duration,
}

impl Spans {
    /// All of them together.
    const fn sum(&self) -> Duration {
        let before = self.queued.saturating_add(self.resolve);
        before.saturating_add(self.connect).saturating_add(self.open)
    }
}

/// Declares events: each has an endpoint and a time, a getter for every field, and perhaps parts
/// that are shown in another way.
macro_rules! events {
    ($(
        $(#[$doc:meta])+
        $name:ident { $($(#[$getter:meta])+ $field:ident: $type:ty,)* }
        $(and { $($part:ident: $of:ty,)+ })?
    )+) => {$(
        $(#[$doc])+
        #[derive(Clone, Debug)]
        pub struct $name {
            pub(crate) endpoint: Arc<str>,
            $(pub(crate) $field: $type,)*
            $($(pub(crate) $part: $of,)+)?
        }

        impl $name {
            /// The endpoint, as its key displays itself.
            #[must_use]
            pub fn endpoint(&self) -> &str {
                &self.endpoint
            }

            $($(#[$getter])+
            #[must_use]
            pub const fn $field(&self) -> $type {
                self.$field
            })*
        }
    )+};
}

/// Shows how long an attempt took, phase by phase.
macro_rules! shows_spans {
    ($($name:ident)+) => {$(
        impl $name {
            /// How long it took from its beginning, all phases together.
            #[must_use]
            pub const fn took(&self) -> Duration {
                self.spans.sum()
            }

            /// How long it waited for a thread, or for its turn, before its phases and between
            /// them.
            #[must_use]
            pub const fn queued(&self) -> Duration {
                self.spans.queued
            }

            /// How long it waited for the addresses of its name. Zero if there was no name, or they
            /// were known.
            #[must_use]
            pub const fn resolve(&self) -> Duration {
                self.spans.resolve
            }

            /// How long it took to connect a socket. Zero if that is left to
            /// [`Connector::open`](crate::Connector::open).
            #[must_use]
            pub const fn connect(&self) -> Duration {
                self.spans.connect
            }

            /// How long it was in [`Connector::open`](crate::Connector::open). Zero for our own
            /// plain sockets.
            #[must_use]
            pub const fn open(&self) -> Duration {
                self.spans.open
            }
        }
    )+};
}

events! {
    /// An attempt to connect begins.
    ///
    /// ```
    /// # use warmline::Connecting;
    /// fn connecting(event: &Connecting) {
    ///     println!("{}: connecting, number {}", event.endpoint(), event.connection());
    /// }
    /// ```
    Connecting {
        /// When it began (monotonic clock).
        at: Stamp,
        /// The number of the connection that is to come of it. No other of its pool has the same.
        connection: u64,
    }

    /// A connection was opened.
    ///
    /// ```
    /// # use warmline::Connected;
    /// fn connected(event: &Connected) {
    ///     println!("{}: connected in {:?}", event.endpoint(), event.took());
    ///     println!("of that its name took {:?}", event.resolve());
    /// }
    /// ```
    Connected {
        /// When the connection was ready (monotonic clock).
        at: Stamp,
        /// The connection's number. No other of its pool has the same.
        connection: u64,
    }
    and { spans: Spans, }

    /// An attempt to connect failed.
    ///
    /// ```
    /// # use warmline::ConnectFailed;
    /// fn connect_failed(event: &ConnectFailed) {
    ///     let (endpoint, phase, took) = (event.endpoint(), event.phase(), event.took());
    ///     println!("{endpoint}: {phase} failed after {took:?}: {}", event.message());
    /// }
    /// ```
    ConnectFailed {
        /// When it failed (monotonic clock).
        at: Stamp,
        /// The number of the connection that was to come of it.
        connection: u64,
        /// Where it was when it failed.
        phase: Phase,
        /// What kind of failure it was.
        failure: Failure,
    }
    and { spans: Spans, message: String, }

    /// A caller is about to receive a connection.
    ///
    /// ```
    /// # use warmline::CheckedOut;
    /// fn checked_out(event: &CheckedOut) {
    ///     let how = if event.is_reused() { "again" } else { "for the first time" };
    ///     println!("{}: checked out {how} after {:?}", event.endpoint(), event.waited());
    /// }
    /// ```
    CheckedOut {
        /// When it was received (monotonic clock).
        at: Stamp,
        /// The connection's number, as it was [connected](Connected::connection).
        connection: u64,
        /// How long the caller waited; zero if an idle connection was there at once.
        waited: Duration,
        /// True if the connection was checked out before.
        is_reused: bool,
        /// For how long it was idle, by a clock that ticks every few milliseconds; zero if it was
        /// opened for this checkout, or handed over.
        idle_for: Duration,
        /// How old it is.
        age: Duration,
    }

    /// A caller is about to receive an error in place of a connection.
    ///
    /// ```
    /// # use warmline::CheckoutFailed;
    /// fn checkout_failed(event: &CheckoutFailed) {
    ///     println!("{}: {:?} after {:?}", event.endpoint(), event.kind(), event.waited());
    /// }
    /// ```
    CheckoutFailed {
        /// When it failed (monotonic clock).
        at: Stamp,
        /// How long the caller waited.
        waited: Duration,
        /// What went wrong.
        kind: ErrorKind,
        /// Why, as far as the pool can tell.
        verdict: Option<Verdict>,
    }

    /// A caller gives its connection back.
    ///
    /// ```
    /// # use warmline::CheckedIn;
    /// fn checked_in(event: &CheckedIn) {
    ///     println!("{}: came back after {:?}", event.endpoint(), event.held());
    /// }
    /// ```
    CheckedIn {
        /// When it came back (monotonic clock).
        at: Stamp,
        /// The connection's number, as it was [connected](Connected::connection).
        connection: u64,
        /// How long it was out.
        held: Duration,
        /// False if nobody had received it: the [`Request`](crate::Request) that it was the answer
        /// to was dropped. Then its checkout does not count in
        /// [`Stats::checkouts`](crate::Stats::checkouts), nor in [`uses`](Closed::uses).
        was_received: bool,
    }

    /// A caller keeps its connection for good.
    ///
    /// ```
    /// # use warmline::Detached;
    /// fn detached(event: &Detached) {
    ///     println!("{}: detached after {:?}", event.endpoint(), event.held());
    /// }
    /// ```
    Detached {
        /// When it left the pool (monotonic clock).
        at: Stamp,
        /// The connection's number, as it was [connected](Connected::connection).
        connection: u64,
        /// How long it was out by then.
        held: Duration,
    }

    /// A connection goes out to be seen to.
    ///
    /// ```
    /// # use warmline::Checking;
    /// fn checking(event: &Checking) {
    ///     println!("{}: out for a {}", event.endpoint(), event.kind());
    /// }
    /// ```
    Checking {
        /// When it went out (monotonic clock).
        at: Stamp,
        /// The connection's number, as it was [connected](Connected::connection).
        connection: u64,
        /// What for.
        kind: CheckKind,
    }

    /// A connection that was seen to is back, or taken for lost.
    ///
    /// ```
    /// # use warmline::Checked;
    /// fn checked(event: &Checked) {
    ///     if let Some(reason) = event.objection() {
    ///         println!("{}: {} after {:?}", event.endpoint(), reason, event.took());
    ///     }
    /// }
    /// ```
    Checked {
        /// When that was (monotonic clock).
        at: Stamp,
        /// The connection's number, as it was [connected](Connected::connection).
        connection: u64,
        /// What it was out for.
        kind: CheckKind,
        /// How long it was out, the wait for a thread included.
        took: Duration,
        /// Why it is closed now; `None` if it has passed.
        objection: Option<CloseReason>,
    }

    /// A connection ended.
    ///
    /// ```
    /// # use warmline::Closed;
    /// fn closed(event: &Closed) {
    ///     println!("{}: {} at {}", event.endpoint(), event.reason(), event.at().as_nanos());
    /// }
    /// ```
    Closed {
        /// When it ended (monotonic clock).
        at: Stamp,
        /// The connection's number, as it was [connected](Connected::connection).
        connection: u64,
        /// Why it ended.
        reason: CloseReason,
        /// How old it was.
        age: Duration,
        /// How often it was checked out.
        uses: u32,
    }
}

shows_spans! { Connected ConnectFailed }

impl ConnectFailed {
    /// The error's own text.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }
}

/// What a connection goes out for.
///
/// ```
/// use warmline::CheckKind;
///
/// assert_eq!(CheckKind::Heartbeat.to_string(), "heartbeat");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CheckKind {
    /// [`Connector::check`](crate::Connector::check).
    Check,
    /// [`Connector::settle`](crate::Connector::settle).
    Settle,
    /// What its protocol asks an idle peer: [`Connector::heartbeat`](crate::Connector::heartbeat).
    Heartbeat,
}

impl fmt::Display for CheckKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Check => "check",
            Self::Settle => "settle",
            Self::Heartbeat => "heartbeat",
        })
    }
}
