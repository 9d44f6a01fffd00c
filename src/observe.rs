//! What the pool tells an application while it works: each step of a connection's life, and why it
//! ends.

mod events;

pub use self::events::{
    CheckKind, Checked, CheckedIn, CheckedOut, Checking, CheckoutFailed, Closed, ConnectFailed,
    Connected, Connecting, Detached,
};

pub(crate) use self::events::Spans;

use std::fmt;

use crate::holder::Holder;

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
/// ```text
/// connecting ─▶ connected ─▶ checked_out ─▶ checked_in ─▶ … ─▶ closed
///         └──▶ connect_failed          └──▶ detached
/// ```
///
/// An attempt that was called off, or met the end of its pool before anything came of it, ends
/// without another event: [`Stats::connects_called_off`](crate::Stats::connects_called_off) counts
/// the former. What is ready only after its deadline has passed is told as connected and closed
/// ([`TooLate`](CloseReason::TooLate)), after it was told as failed.
///
/// # Order
///
/// What is told of one connection carries its [number](Connected::connection), and times of one
/// clock, which are in the order drawn above. So are the calls, as long as one thread makes them:
/// an event for the observer thread may reach its method after a later one that the caller's own
/// thread told.
///
/// # Blocking
///
/// No lock is held, and a panic is caught and logged. Which thread calls:
///
/// | thread | calls |
/// |---|---|
/// | the caller's | [`checked_out`](Observer::checked_out), [`checkout_failed`](Observer::checkout_failed), [`checked_in`](Observer::checked_in), [`detached`](Observer::detached), and [`closed`](Observer::closed) for what that caller closes on a plain socket |
/// | the driver's observer thread | all others, in order, and what driver threads do for a caller: the answer to a [`Request`](crate::Request), say |
///
/// On the caller's thread a method that takes its time takes it from that caller; at a checkin the
/// connection is out until it returns. It must not check out of the same pool: that would be told
/// as well, and so on.
///
/// The observer thread has a bounded queue: an observer that falls behind, or never returns, loses
/// events, which [`Stats::events_dropped`](crate::Stats::events_dropped) counts, and delays nobody
/// but the other observers of a shared [`Driver`](crate::Driver). As long as none is dropped, what
/// was told agrees with [`Stats`](crate::Stats), once it has all been told.
///
/// Where a pool has an observer, checkouts and checkins read the precise clock; where it has none, a
/// branch is all that this costs.
///
/// ```
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use warmline::{CheckedOut, Closed, Observer, Pool, TcpConnector};
///
/// #[derive(Default)]
/// struct Count(AtomicU64);
///
/// impl Observer for Count {
///     fn checked_out(&self, event: &CheckedOut) {
///         self.0.fetch_add(u64::from(!event.is_reused()), Ordering::Relaxed);
///     }
///
///     fn closed(&self, event: &Closed) {
///         println!("{}: {} after {:?}", event.endpoint(), event.reason(), event.age());
///     }
/// }
///
/// let pool = Pool::builder(TcpConnector::new()).observer(Count::default()).build()?;
/// # Ok::<(), warmline::Error>(())
/// ```
pub trait Observer: Send + Sync + 'static {
    /// An attempt to connect begins.
    fn connecting(&self, event: &Connecting) {
        let _unused = event;
    }

    /// A connection was opened and is about to be handed out, or to become idle.
    fn connected(&self, event: &Connected) {
        let _unused = event;
    }

    /// An attempt to connect failed.
    fn connect_failed(&self, event: &ConnectFailed) {
        let _unused = event;
    }

    /// A caller is about to receive a connection.
    fn checked_out(&self, event: &CheckedOut) {
        let _unused = event;
    }

    /// A caller is about to receive an error in place of a connection. A
    /// [`try_get`](crate::Pool::try_get) that finds nothing idle has not failed.
    fn checkout_failed(&self, event: &CheckoutFailed) {
        let _unused = event;
    }

    /// A caller gives its connection back, whether it is kept or closed.
    fn checked_in(&self, event: &CheckedIn) {
        let _unused = event;
    }

    /// A caller [keeps](crate::PooledConn::detach) its connection: nothing more is told of it.
    fn detached(&self, event: &Detached) {
        let _unused = event;
    }

    /// An idle connection, or one that came back and is to be settled, goes out to be seen to.
    fn checking(&self, event: &Checking) {
        let _unused = event;
    }

    /// It is back, or taken for lost. If it has not passed, `closed` follows.
    fn checked(&self, event: &Checked) {
        let _unused = event;
    }

    /// A connection has been out for longer than [`leak_warning`](crate::Builder::leak_warning). Told
    /// once for each checkout.
    fn leak_suspected(&self, holder: &Holder) {
        let _unused = holder;
    }

    /// A connection ended. On plain sockets its descriptor is closed by now; of a check that does
    /// not return it is when that does.
    fn closed(&self, event: &Closed) {
        let _unused = event;
    }
}
