//! What happens to one request, step by step.

use std::fmt;
use std::time::Duration;

use ::http::{Method, StatusCode, Uri};

use crate::clock::{self, Stamp};
use crate::http::proto::Unfit;
use crate::shared::{guarded, note_panic};
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
    #[non_exhaustive]
    Queued {
        /// When.
        at: Stamp,
    },
    /// The name of the server was looked up, for the connection that this request got.
    #[non_exhaustive]
    Resolved {
        /// When that was known here, not when it was done.
        at: Stamp,
        /// How long it took.
        took: Duration,
    },
    /// The socket was connected, of the connection that this request got.
    #[non_exhaustive]
    Connected {
        /// When that was known here, not when it was done.
        at: Stamp,
        /// How long it took.
        took: Duration,
    },
    /// There is a connection.
    #[non_exhaustive]
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
    #[non_exhaustive]
    Wrote {
        /// When.
        at: Stamp,
        /// Bytes, head and framing among them.
        bytes: u64,
    },
    /// The server said something before its answer: 100, 103.
    #[non_exhaustive]
    Interim {
        /// When.
        at: Stamp,
        /// What it said.
        status: StatusCode,
    },
    /// The first bytes of the answer have come.
    #[non_exhaustive]
    FirstByte {
        /// When.
        at: Stamp,
    },
    /// The answer's head is complete.
    #[non_exhaustive]
    Head {
        /// When.
        at: Stamp,
        /// The answer's status.
        status: StatusCode,
    },
    /// The answer's body has ended.
    #[non_exhaustive]
    BodyEnd {
        /// When.
        at: Stamp,
        /// Bytes of content.
        bytes: u64,
    },
    /// The connection went to the pool, for the next request, unless the pool has something against it:
    /// its age, say, or too much of an answer that was dropped unread.
    #[non_exhaustive]
    Returned {
        /// When.
        at: Stamp,
    },
    /// The connection is closed, and not used again.
    #[non_exhaustive]
    Closed {
        /// When.
        at: Stamp,
        /// Why.
        reason: Unfit,
    },
    /// The connection had died while it was idle: the request is sent again, on another.
    #[non_exhaustive]
    Repeated {
        /// When.
        at: Stamp,
    },
    /// The server sends the request elsewhere, and it goes there.
    #[non_exhaustive]
    Redirected {
        /// When.
        at: Stamp,
        /// How it said so.
        status: StatusCode,
    },
}

/// Is told what happens to requests: on the thread that sends them, or reads their answers.
///
/// Closures are, too. See [`Event`]. A panic in it is caught, and logged.
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

    /// A request begins. Whoever is returned is told about it, and about no other: to tell requests
    /// apart. `None`: this one is.
    fn begin(&self, method: &Method, url: &Uri) -> Option<Box<dyn Trace>> {
        let _unused = (method, url);
        None
    }
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
            let event = event(clock::mono());
            if let Err(panic) = guarded(|| trace.event(&event)) {
                note_panic("a trace of HTTP panicked", &panic);
            }
        }
    }

    /// For one request.
    pub(crate) fn begin(&self, method: &Method, url: &Uri) -> Self {
        let Some(trace) = &self.0 else { return Self(None) };
        match guarded(|| trace.begin(method, url)) {
            Ok(Some(own)) => Self(Some(Arc::from(own))),
            Ok(None) => self.clone(),
            Err(panic) => {
                note_panic("a trace of HTTP panicked", &panic);
                Self(None)
            }
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
