//! What happens to one request, step by step.

use std::fmt;
use std::time::Duration;

use ::http::StatusCode;

use crate::clock::{self, Stamp};
use crate::http::proto::Unfit;
use crate::sync::Arc;

/// A step of a request. Their times are by the monotonic clock.
///
/// An ordinary request on a warm connection has these: `Queued`, `GotConnection`, `Wrote`,
/// `FirstByte`, `Head`, `BodyEnd`, `Returned`.
///
/// ```
/// # use std::io::{Read, Write};
/// # let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
/// # let url = format!("http://{}/", listener.local_addr()?);
/// # std::thread::spawn(move || {
/// #     let (mut stream, _) = listener.accept().unwrap();
/// #     let _ = stream.read(&mut [0; 1024]).unwrap();
/// #     stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
/// #     let _ = stream.read(&mut [0; 1024]);
/// # });
/// use std::sync::atomic::{AtomicUsize, Ordering};
/// use std::sync::Arc;
/// use warmline::http::{Client, Event};
///
/// let opened = Arc::new(AtomicUsize::new(0));
/// let count = Arc::clone(&opened);
/// let client = Client::new();
/// let request = client.get(&url).trace(move |event: &Event| {
///     if let Event::GotConnection { is_reused: false, .. } = event {
///         count.fetch_add(1, Ordering::Relaxed);
///     }
/// });
/// request.send()?;
/// assert_eq!(opened.load(Ordering::Relaxed), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The request asks for a connection.
    Queued {
        /// When.
        at: Stamp,
    },
    /// The name of the server was looked up, for the connection that this request got.
    Resolved {
        /// When that was known here, not when it was done.
        at: Stamp,
        /// How long it took.
        took: Duration,
    },
    /// The socket was connected, of the connection that this request got.
    Connected {
        /// When that was known here, not when it was done.
        at: Stamp,
        /// How long it took.
        took: Duration,
    },
    /// There is a connection.
    GotConnection {
        /// When.
        at: Stamp,
        /// How long the request waited for it.
        waited: Duration,
        /// It was used before.
        is_reused: bool,
        /// How long it was idle, by a clock that ticks every few milliseconds.
        idle_for: Duration,
    },
    /// The request is written, or as much of it as the server wanted.
    Wrote {
        /// When.
        at: Stamp,
        /// Bytes, head and framing among them.
        bytes: u64,
    },
    /// The server said something before its answer: 100, 103.
    Interim {
        /// When.
        at: Stamp,
        /// What it said.
        status: StatusCode,
    },
    /// The first bytes of the answer have come.
    FirstByte {
        /// When.
        at: Stamp,
    },
    /// The answer's head is complete.
    Head {
        /// When.
        at: Stamp,
        /// The answer's status.
        status: StatusCode,
    },
    /// The answer's body has ended.
    BodyEnd {
        /// When.
        at: Stamp,
        /// Bytes of content.
        bytes: u64,
    },
    /// The connection went back to the pool, for the next request.
    Returned {
        /// When.
        at: Stamp,
    },
    /// The connection is closed, and not used again.
    Closed {
        /// When.
        at: Stamp,
        /// Why.
        reason: Unfit,
    },
    /// The connection had died while it was idle: the request is sent again, on another.
    Repeated {
        /// When.
        at: Stamp,
    },
    /// The server sends the request elsewhere, and it goes there.
    Redirected {
        /// When.
        at: Stamp,
        /// How it said so.
        status: StatusCode,
    },
}

/// Is told what happens to requests: on the thread that sends them, or reads their answers.
///
/// Closures are, too. See [`Event`].
///
/// ```
/// use warmline::http::{Client, Event, Trace};
///
/// struct Print;
///
/// impl Trace for Print {
///     fn event(&self, event: &Event) {
///         println!("{event:?}");
///     }
/// }
///
/// let client = Client::builder().trace(Print).build()?;
/// # Ok::<(), warmline::http::Error>(())
/// ```
pub trait Trace: Send + Sync {
    /// Something has happened. What it does delays the request.
    fn event(&self, event: &Event);
}

impl<F: Fn(&Event) + Send + Sync> Trace for F {
    fn event(&self, event: &Event) {
        self(event);
    }
}

/// Whoever is told, if anybody is: then nothing is asked for, not even the time.
#[derive(Clone, Default)]
pub(crate) struct Tracer(pub(crate) Option<Arc<dyn Trace>>);

impl Tracer {
    #[inline]
    pub(crate) fn tell(&self, event: impl FnOnce(Stamp) -> Event) {
        if let Some(trace) = &self.0 {
            trace.event(&event(clock::mono()));
        }
    }

    pub(crate) const fn is_on(&self) -> bool {
        self.0.is_some()
    }
}

impl fmt::Debug for Tracer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_on() { "Tracer(on)" } else { "Tracer(off)" })
    }
}
