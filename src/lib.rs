//! Warm connections for plain threads: a blocking, runtime-free connection pool.
//!
//! # What it is, and what it is not
//!
//! A [`Pool`] keeps connections open between uses, so that a program that talks to the same
//! servers again and again does not pay for a new connection each time. One pool serves any number
//! of [endpoints](Endpoint), within limits that hold exactly. What it hands out is a guard,
//! [`PooledConn`]; on drop the connection goes back, if it is fit for the next user.
//!
//! It is for threads that block. It needs no async runtime and offers no futures. It pools TCP and
//! Unix sockets itself, and any other client through a [`Connector`]. It speaks no protocol: where
//! a message ends is for the layer above to know. It needs a Unix system, and is tested on Linux.
//!
//! # First example
//!
//! ```
//! # let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
//! # let address = listener.local_addr()?.to_string();
//! # std::thread::spawn(move || {
//! #     let (stream, _) = listener.accept().unwrap();
//! #     std::io::copy(&mut &stream, &mut &stream).unwrap();
//! # });
//! use std::io::{Read, Write};
//!
//! let pool = warmline::Pool::tcp();
//! for _ in 0..3 {
//!     let mut conn = pool.get(&address)?; // "host:port"; connects the first time
//!     conn.write_all(b"hello")?;
//!     let mut answer = [0; 5];
//!     conn.read_exact(&mut answer)?;
//! } // dropped: back to the pool
//! assert_eq!((pool.stats().checkouts(), pool.stats().opened()), (3, 1));
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! # How it works
//!
//! ```text
//!   your threads                       the pool                         its own threads
//!
//!   get ────────────────▶ idle connections of that endpoint
//!    │ none idle           newest first                                 crew: connects, resolves,
//!    ├───── room ────────▶ a permit ─────────────────────────────────▶ runs Connector::open,
//!    │ no room             waiters, oldest first ◀───── opened ──────── check, settle, close
//!    └──── waits ────────▶                      ▲
//!                                               │                      reaper: idle time-out,
//!   drop ───▶ fit for others? ── yes ── hand over, or idle ──────────▶ lifetime, min_idle
//!                    └─── no ─── closed, with a CloseReason
//! ```
//!
//! A checkout takes the idle connection that was used last; only if there is none does it ask for
//! another to be opened and wait, for whichever comes first: that one, or one that comes back. A
//! connection that comes back is judged on the spot: [`Socket`] lists the rules for sockets,
//! [`Connector::reset`] adds those of a protocol. Waiters keep their place; one that has waited for
//! [`fair_after`](Builder::fair_after) is handed the next connection directly.
//!
//! The [architecture](_docs::architecture) page says more about the inside.
//!
//! # Choosing limits
//!
//! The defaults are finite and meant to be kept until something speaks against them; the
//! [`Builder`] names each. Three questions settle most of it:
//!
//! * **How many connections can the server bear?** Divide by the processes that use it, and set
//!   [`max_per_endpoint`](Builder::max_per_endpoint) to that (default 32).
//! * **How many do you need?** Requests per second × seconds per request. With 200 requests/s of
//!   20 ms each that is 4; some more absorb bursts. More than the server works on at a time only
//!   move the queue from the pool to the server.
//! * **How long may a caller wait?** [`checkout_timeout`](Builder::checkout_timeout) (default 5 s)
//!   bounds the wait for a connection, [`connect_timeout`](Builder::connect_timeout) (3 s) the
//!   opening of one, and [`SocketOptions::read_timeout`] (30 s) each read.
//!
//! [`idle_timeout`](Builder::idle_timeout) (default 90 s) should be shorter than the time after
//! which the server, or a firewall between, closes idle connections.
//!
//! # Errors
//!
//! There is one type, [`Error`]. Its [`kind`](Error::kind) is for programs; its text is one line
//! for people, with the endpoint, the time waited, the counts at that moment and the last failed
//! attempt to connect, which is also its source:
//!
//! ```text
//! no connection came free [10.0.0.7:5432] within 5.0s (10/10: 10 in use, 0 idle, 0 connecting, 0 checking; 4 waiting)
//! ```
//!
//! What goes wrong *on* a connection is an [`std::io::Error`] or whatever the connector's client
//! reports, and not the pool's. `?` turns an [`Error`] into an [`std::io::Error`] where a function
//! returns those. If a reused connection turns out to have been closed by the server,
//! [`Endpoint::run`] can repeat the exchange on another.
//!
//! # Threads and locks
//!
//! A pool is plain memory until its first connect, which starts its driver: a reaper that sleeps
//! until something is due, and a crew of threads that come on demand (64 at the most) and end after
//! ten seconds without work. With an [`Observer`] there is one more. They carry the pool's
//! [`name`](Builder::name). All of them end with the last [`Pool`] or [`Endpoint`];
//! [`Pool::drain`] is the form that waits for that.
//!
//! [`get`](Pool::get) blocks on its own hand-over and on nothing else, and keeps its deadline
//! whatever a server, a name server or a connector does. Dropping a guard never waits for a peer.
//! One lock per pool guards its decisions; no connector, observer or system call that could block
//! runs under it. Calls into a connector are caught if they panic. A call that would wait for the
//! very thread it runs on, such as a checkout from [`Connector::open`] of the same pool, is
//! [refused](ErrorKind::Rejected).
//!
//! After `fork` the child has none of these threads: it must make pools of its own.
//!
//! # Features
//!
//! None yet; the default is empty and will stay so.
//!
//! # Log levels
//!
//! Through the [`log`] crate; the library installs no logger.
//!
//! | level | what appears |
//! |---|---|
//! | error | a connector, an observer, or the drop of a key or an error panicked; a thread of the pool did, which is a bug here |
//! | warn | no further thread could be started |
//! | info | nothing |
//! | debug | each connection opened and closed, with its reason; each failed attempt, check and settling |
//! | trace | nothing |
//!
//! No bytes of an exchange are logged. Endpoints appear as their key displays itself, and failures
//! with the text of the connector's own error: keep secrets out of both.
//!
//! # Stability and minimum Rust version
//!
//! Before 1.0 a minor version may change the interface; the changelog says how. No type of a crate
//! below 1.0 appears in it. Needs Rust 1.85; a higher need is a minor version.
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

// In layers, bottom first: a module may name only those above it in this list.

// 0
mod sync;

mod clock;

mod error;
mod observe;

// 1
mod config;
mod key;

// 2
mod connector;

// 3
mod core;

// 4
mod shared;

// 5
mod driver;

// 6
mod guard;

// 7
mod pool;

mod builder;
mod repeat;

pub use crate::builder::Builder;
pub use crate::clock::{Deadline, Stamp};
pub use crate::config::Reuse;
pub use crate::connector::{
    BoxConnector, Connector, Ended, Heartbeat, Look, Opening, Plan, Pulse, Reset, Socket,
    SocketOptions, TcpConnector, TcpKeepalive, UnixConnector, Watch,
};
pub use crate::core::Stats;
pub use crate::driver::Driver;
pub use crate::error::{BoxError, Error, ErrorKind, Failure, Phase};
pub use crate::guard::{Exchange, PooledConn};
pub use crate::key::{Address, Name, One, SocketPath};
pub use crate::observe::{CloseReason, Closed, Connected, Observer};
pub use crate::pool::{Endpoint, Pool};
pub use crate::repeat::Repeat;

/// Long reading.
#[cfg(any(doc, doctest))]
pub mod _docs {
    #[doc = include_str!("docs/architecture.md")]
    pub mod architecture {}
}

/// The README's examples are tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
