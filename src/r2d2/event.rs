//! What a pool tells its event handler: r2d2's names, with types of this crate, since nobody but
//! r2d2 can make its own.

use std::fmt;
use std::time::Duration;

/// Is told what happens to connections.
///
/// The events of one connection come in order: acquired, checked out and in, released (unless its
/// user keeps it: [`detach`](super::PooledConnection::detach)). A panic in one of these is caught and
/// logged. For more, see [`Pool::stats`](super::Pool::stats) and
/// [`Pool::report`](super::Pool::report).
///
/// # Examples
///
/// ```
/// use std::sync::atomic::{AtomicUsize, Ordering};
/// use warmline::r2d2::event::{CheckoutEvent, HandleEvent};
///
/// #[derive(Debug, Default)]
/// struct Slow(AtomicUsize);
///
/// impl HandleEvent for Slow {
///     fn handle_checkout(&self, event: CheckoutEvent) {
///         if event.duration().as_millis() > 100 {
///             self.0.fetch_add(1, Ordering::Relaxed);
///         }
///     }
/// }
/// ```
pub trait HandleEvent: fmt::Debug + Sync + Send {
    /// A connection was opened. On a thread of the pool.
    fn handle_acquire(&self, event: AcquireEvent) {
        let _unused = event;
    }

    /// A connection is about to be closed. On a thread of the pool.
    fn handle_release(&self, event: ReleaseEvent) {
        let _unused = event;
    }

    /// A connection was checked out. On the caller's thread.
    fn handle_checkout(&self, event: CheckoutEvent) {
        let _unused = event;
    }

    /// A caller waited for a connection in vain. On his thread.
    fn handle_timeout(&self, event: TimeoutEvent) {
        let _unused = event;
    }

    /// A connection is about to be given back. On the thread that drops it.
    fn handle_checkin(&self, event: CheckinEvent) {
        let _unused = event;
    }
}

/// An event handler that does nothing.
///
/// ```
/// use warmline::r2d2::{HandleEvent, NopEventHandler};
///
/// let handler: Box<dyn HandleEvent> = Box::new(NopEventHandler);
/// # let _ = handler;
/// ```
#[derive(Clone, Copy, Debug)]
#[expect(clippy::exhaustive_structs, reason = "users name its value")]
pub struct NopEventHandler;

impl HandleEvent for NopEventHandler {}

/// Declares an event that tells a time, of a connection or of none.
macro_rules! events {
    ($($about:literal $name:ident $(of $id:ident)?, $field:ident: $doc:literal;)+) => {$(
        #[doc = $about]
        ///
        /// See [`HandleEvent`] for an example.
        #[derive(Debug)]
        pub struct $name {
            $(pub(super) $id: u64,)?
            pub(super) $field: Duration,
        }

        impl $name {
            $(connection_id!($id);)?

            #[doc = $doc]
            #[must_use]
            pub const fn $field(&self) -> Duration {
                self.$field
            }
        }
    )+};
}

/// Declares how the number of the connection is told.
macro_rules! connection_id {
    ($id:ident) => {
        /// The number of the connection: no two of a process have the same one.
        #[must_use]
        pub const fn connection_id(&self) -> u64 {
            self.$id
        }
    };
}

/// A connection was opened.
///
/// See [`HandleEvent`] for an example.
#[derive(Debug)]
pub struct AcquireEvent {
    pub(super) id: u64,
}

impl AcquireEvent {
    connection_id!(id);
}

events! {
    "A connection is about to be closed." ReleaseEvent of id, age: "How old it is.";
    "A connection was checked out." CheckoutEvent of id, duration: "How long the checkout took.";
    "A caller waited in vain." TimeoutEvent, timeout: "How long he was ready to wait.";
    "A connection is about to be given back." CheckinEvent of id,
        duration: "How long it was checked out.";
}
