//! What the pool tells an application while it works: why connections end, and when.

use std::fmt;
use std::time::Duration;

use crate::clock::Stamp;
use crate::sync::Arc;

/// Declares [`CloseReason`] with the words it is logged with, so that no variant can lack them.
macro_rules! close_reasons {
    ($($(#[$doc:meta])+ $name:ident = $words:literal,)+) => {
        /// Why a connection ended. Every connection that ends has exactly one.
        ///
        /// The same value reaches the [`Observer`], the log line and [`Stats`](crate::Stats).
        ///
        /// ```
        /// use warmline::CloseReason;
        ///
        /// assert_eq!(CloseReason::StrayBytes.to_string(), "bytes nobody asked for had arrived");
        /// ```
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum CloseReason { $($(#[$doc])+ $name,)+ }

        impl CloseReason {
            /// Every reason there is, in the order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];
            /// How many there are.
            pub(crate) const COUNT: usize = Self::ALL.len();

            const fn words(self) -> &'static str {
                match self { $(Self::$name => $words,)+ }
            }
        }
    };
}

close_reasons! {
    /// It was idle for longer than [`idle_timeout`](crate::Builder::idle_timeout).
    IdleTimeout = "idle for too long",
    /// It reached the end of its [`max_lifetime`](crate::Builder::max_lifetime).
    MaxLifetime = "reached its lifetime",
    /// It was checked out [`max_uses`](crate::Builder::max_uses) times.
    MaxUses = "used often enough",
    /// The caller said so: [`PooledConn::discard`](crate::PooledConn::discard).
    Discarded = "discarded by its user",
    /// Its user panicked while it was checked out, so the state of its protocol is unknown.
    Panicked = "its user panicked",
    /// It came back with a request written and no answer read.
    Unfinished = "returned in the middle of an exchange",
    /// Bytes that nobody had asked for had arrived: a late answer, or somebody else's.
    StrayBytes = "bytes nobody asked for had arrived",
    /// The peer closed it. An idle one that is watched ends as soon as that is noticed, others when
    /// they come back or are about to be handed out.
    PeerClosed = "closed by the peer",
    /// A read or a write on it had failed, time-outs included.
    Failed = "a read or write had failed",
    /// [`Connector::is_open`](crate::Connector::is_open) said no.
    NotOpen = "the connector no longer takes it for open",
    /// [`Connector::reset`](crate::Connector::reset) refused it, or `settle` failed.
    ResetRefused = "could not be reset",
    /// [`Connector::check`](crate::Connector::check) failed.
    CheckFailed = "failed its check",
    /// A method of the connector panicked while it held the connection.
    ConnectorPanicked = "its connector panicked",
    /// It was evicted: [`Pool::evict_all`](crate::Pool::evict_all) or
    /// [`Endpoint::evict`](crate::Endpoint::evict).
    Evicted = "evicted",
    /// More connections were idle, or there, than the settings allow; or, with
    /// [`Reuse::Oldest`](crate::Reuse::Oldest), than were ever needed in the last
    /// [`idle_timeout`](crate::Builder::idle_timeout).
    Surplus = "more than allowed or needed",
    /// Another endpoint needed its place under [`max_total`](crate::Builder::max_total) or among
    /// the connections being opened, or its descriptor when the process had no more.
    MadeRoom = "made room for another endpoint",
    /// It was opened, settled or checked too late: its deadline had passed.
    TooLate = "ready only after its deadline",
    /// The pool was closed.
    PoolClosed = "the pool was closed",
}

impl CloseReason {
    /// Its place in [`ALL`](CloseReason::ALL): the index of its counter.
    pub(crate) const fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words())
    }
}

/// Is told what happens to connections.
///
/// Set with [`Builder::observer`](crate::Builder::observer). Every method has an empty default.
///
/// # Blocking
///
/// What a caller's own thread does (it closes a connection on return, say) is told on that thread;
/// everything else on the driver's observer thread, in order, through a bounded queue: an observer
/// that falls behind loses events, which [`Stats::events_dropped`](crate::Stats::events_dropped)
/// counts, and delays nobody. No lock is held. A panic is caught and logged.
///
/// ```
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use warmline::{Closed, Observer, Pool, TcpConnector};
///
/// #[derive(Default)]
/// struct Count(AtomicU64);
///
/// impl Observer for Count {
///     fn closed(&self, event: &Closed) {
///         println!("{}: {} after {:?}", event.endpoint(), event.reason(), event.age());
///         self.0.fetch_add(1, Ordering::Relaxed);
///     }
/// }
///
/// let pool = Pool::builder(TcpConnector::new()).observer(Count::default()).build()?;
/// # Ok::<(), warmline::Error>(())
/// ```
pub trait Observer: Send + Sync + 'static {
    /// A connection was opened and is about to be handed out, or to become idle.
    fn connected(&self, event: &Connected) {
        let _unused = event;
    }

    /// A connection ended. On plain sockets its descriptor is closed by now.
    fn closed(&self, event: &Closed) {
        let _unused = event;
    }
}

/// A connection was opened.
///
/// ```
/// # use warmline::Connected;
/// fn connected(event: &Connected) {
///     println!("{}: connected in {:?}", event.endpoint(), event.took());
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Connected {
    pub(crate) endpoint: Arc<str>,
    pub(crate) at: Stamp,
    pub(crate) took: Duration,
}

impl Connected {
    /// The endpoint, as its key displays itself.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// When the connection was ready (monotonic clock).
    #[must_use]
    pub const fn at(&self) -> Stamp {
        self.at
    }

    /// How long it took to open: name, socket and [`Connector::open`](crate::Connector::open), from
    /// the moment that a thread took it up.
    #[must_use]
    pub const fn took(&self) -> Duration {
        self.took
    }
}

/// A connection ended.
///
/// ```
/// # use warmline::Closed;
/// fn closed(event: &Closed) {
///     println!("{}: {} at {}", event.endpoint(), event.reason(), event.at().as_nanos());
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Closed {
    pub(crate) endpoint: Arc<str>,
    pub(crate) at: Stamp,
    pub(crate) reason: CloseReason,
    pub(crate) age: Duration,
}

impl Closed {
    /// The endpoint, as its key displays itself.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// When it ended (monotonic clock).
    #[must_use]
    pub const fn at(&self) -> Stamp {
        self.at
    }

    /// Why it ended.
    #[must_use]
    pub const fn reason(&self) -> CloseReason {
        self.reason
    }

    /// How old it was.
    #[must_use]
    pub const fn age(&self) -> Duration {
        self.age
    }
}
