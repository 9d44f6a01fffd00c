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
//! Unix sockets itself, and any other client through a [`Connector`]. The pool speaks no protocol:
//! where a message ends is for the layer above to know. One such layer is here, if asked for: an
//! HTTP/1.1 client. It is tested on Linux, and compiles for [other systems](#systems).
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
//!   your threads                      the pool                      its own threads
//!
//!   get ────────────────▶ idle connections of that endpoint ◀────── event loop: watches them,
//!    │ none idle           newest first                              and connects sockets
//!    ├───── room ────────▶ a permit ──────────────────────────────▶    │
//!    │ no room             waiters, oldest first ◀───── opened ────────┤
//!    └──── waits ────────▶                      ▲                    crew: runs Connector::open,
//!                                               │                    check, settle, close
//!                                               │                    look-ups: names
//!   drop ───▶ fit for others? ── yes ── hand over, or idle ────────▶ reaper: idle time-out,
//!                    └─── no ─── closed, with a CloseReason          lifetime, min_idle
//! ```
//!
//! A checkout takes the idle connection that was used last; only if there is none does it ask for
//! another to be opened and wait, for whichever comes first: that one, or one that comes back. A
//! connection that comes back is judged on the spot: [`Socket`] lists the rules for sockets,
//! [`Connector::reset`] adds those of a protocol. Waiters keep their place; one that has waited for
//! [`fair_after`](Builder::fair_after) is handed the next connection directly.
//!
//! Idle connections are watched. When the peer closes one, the pool closes it at once, without
//! waiting for a checkout to find out; one that is in use is closed when it comes back. On Linux
//! only the peer's farewell is waited for, so that traffic wakes no thread. What dies without a
//! farewell, behind a firewall that forgets, say, is found by a [`heartbeat`](TcpConnector::heartbeat)
//! that the event loop sends, by TCP keepalive, or by a connector's [`check`](Connector::check). What
//! a server closes for having been idle too long is closed by the pool a little earlier, once it has
//! [learned](Endpoint::note_idle_limit) when that is.
//!
//! A server that is down is probed, by one attempt at a time; when it is back, all who wait are
//! served, and what is to be kept ready is opened again though nobody asks: see
//! [`fail_fast`](Builder::fail_fast). Connections of old age retire one after the other, those that
//! are used when a successor is there: see [`max_lifetime`](Builder::max_lifetime).
//!
//! The event loop connects sockets without blocking, all of them at once that the limits allow. A
//! name with several addresses is tried by happy eyeballs (RFC 8305): families alternate, an
//! address gets 250 ms before the next is tried beside it (less if there are too many of them for
//! [`connect_timeout`](Builder::connect_timeout)), one that fails makes way at once, and when one
//! answers the others are dropped. All that is one attempt with one permit. At its deadline it is
//! dropped, wherever it is.
//!
//! A burst of callers does not open a connection for each: while an endpoint has some that come
//! back, further ones are opened one after the other. An attempt that nobody waits for any more
//! goes on, and its connection is kept for the next, unless another endpoint needs its room: then
//! it is called off.
//!
//! Names are looked up when a connection is to be opened, by threads of their own, and remembered:
//! see [`Resolver`].
//!
//! To wait for several things at once, begin a checkout with [`Pool::request`]: its answer arrives
//! on a channel, for [`crossbeam_channel::select!`].
//!
//! The [architecture](_docs::architecture) page says more about the inside, [tuning](_docs::tuning) how
//! to choose settings and what to do about every error, and [coming from another
//! pool](_docs::coming_from) what is called how elsewhere.
//!
//! # Choosing limits
//!
//! The defaults are finite and meant to be kept until something speaks against them; the
//! [`Builder`] names each. Four questions settle most of it:
//!
//! * **How many connections can the server bear?** Divide by the processes that use it, and set
//!   [`max_per_endpoint`](Builder::max_per_endpoint) to that (default 32).
//! * **How many do you need?** Requests per second × seconds per request are in use on average; twice
//!   the root of that in reserve keeps waits rare. With 200 requests/s of 20 ms each that is 4 + 4.
//!   [`Pool::report`] does this sum with what it has observed. More than the server works on at a
//!   time only move the queue from the pool to the server.
//! * **Is one endpoint unlike the others?** [`Endpoint::set_limits`].
//! * **How long may a caller wait?** [`checkout_timeout`](Builder::checkout_timeout) (default 5 s)
//!   bounds the wait for a connection, [`connect_timeout`](Builder::connect_timeout) (3 s) the
//!   opening of one, and [`SocketOptions::read_timeout`] (30 s) each read.
//!
//! [`idle_timeout`](Builder::idle_timeout) (default 90 s) should be shorter than the time after
//! which the server, or a firewall between, closes idle connections.
//!
//! All of them can be changed while the pool is in use: [`Pool::reconfigure`].
//!
//! # Errors
//!
//! There is one type, [`Error`]. Its [`kind`](Error::kind) is for programs; its text is one line
//! for people, with the endpoint, the time waited, the counts at that moment, the cause as far as the
//! pool can tell ([`verdict`](Error::verdict)) and the last failed attempt to connect, which is also its
//! source. With `{:#}` that of a time-out has many lines: who has the connections, what happened
//! meanwhile, what to do.
//!
//! ```text
//! no connection came free [10.0.0.7:5432] within 5.0s (10/10: 10 in use, 0 idle, 0 connecting, 0 checking; 4 waiting); leak suspected: 9 of 10 in use; 9 out for up to 312.4s since src/orders.rs:41:17 (thread worker-3)
//! ```
//!
//! [Tuning](_docs::tuning#what-an-error-means) has every verdict, and what to do. Whoever is on call
//! prints [`Pool::report`]; [`Pool::holders`] names the lines of the program that have connections, and
//! [`leak_warning`](Builder::leak_warning) warns of those that keep them.
//!
//! What goes wrong *on* a connection is an [`std::io::Error`] or whatever the connector's client
//! reports, and not the pool's. `?` turns an [`Error`] into an [`std::io::Error`] where a function
//! returns those. If a reused connection turns out to have been closed by the server,
//! [`Endpoint::run`] can repeat the exchange on another.
//!
//! What this process runs out of is not held against the server. If a socket cannot be made for
//! want of descriptors or memory, and somebody waits for it, the pool closes the least recently
//! used idle connection of another endpoint ([`MadeRoom`](CloseReason::MadeRoom)) and tries again,
//! at once and then every 50 ms. With none to close, the error's [`failure`](Error::failure) is
//! [`Failure::Local`].
//!
//! # Threads and locks
//!
//! A pool is plain memory until its first connect, which starts its [`Driver`]: an event loop and a
//! reaper, which sleep until something happens or is due, and a crew for what may block: the
//! connector's own code. Crew threads come on demand and end after ten seconds without work. A pool
//! gets 32 that open, 16 that check or settle and 8 that close, if it needs them; pools that share
//! a driver leave each other as much as they take. Names are looked up by four more, beside which
//! up to 16 may hang. With an [`Observer`] there is one more thread. Nothing ticks.
//!
//! Each pool has a driver of its own, whose threads carry the pool's [`name`](Builder::name),
//! unless it is [given one](Builder::driver): a program with many pools can have them share theirs.
//! The threads end with the last [`Pool`], [`Endpoint`] or [`Driver`]; that drop waits for event
//! loop and reaper, which never block, and for nobody else. [`Pool::drain`] is the form that waits
//! for connections and for the connector's calls.
//!
//! [`get`](Pool::get) blocks on its own hand-over and on nothing else, and keeps its deadline
//! whatever a server, a name server or a connector does. Dropping a guard never waits for a peer.
//! One lock per pool guards its decisions; no connector, observer or system call that could block
//! runs under it. Calls into a connector are caught if they panic. A call that would wait for the
//! very thread it runs on, such as a checkout from [`Connector::open`] of the same pool, is
//! [refused](ErrorKind::Rejected).
//!
//! After `fork` the child has none of these threads. What would need them answers
//! [`Closed`](ErrorKind::Closed) there, at once, and whatever the child closes or drops, the parent
//! keeps its connections and they stay watched. An idle one could still be checked out in the
//! child, since that asks nobody; it is the parent's all the same. Where a guard of the parent's is
//! dropped in the child, the connector's `is_open` and `reset` may run: they must not write. A
//! child must make pools of its own, and they a [`Driver`] that was not started before and a
//! [`Resolver`] that was not used.
//!
//! # Systems
//!
//! Sockets are connected in the event loop everywhere. How idle ones are watched differs:
//!
//! | | hang-up of an idle connection | else |
//! |---|---|---|
//! | Linux, Android | noticed at once; traffic wakes no thread | tested |
//! | macOS, FreeBSD, NetBSD | noticed at once; two system calls per use, to end the watch and to begin it again | compiles; no user time-out |
//! | Windows | looked at before reuse, after [`probe_after`](Builder::probe_after) | compiles; as above; no Unix sockets; sockets stand in for descriptors |
//!
//! With [`portable_watch`](Builder::portable_watch) Linux does as macOS.
//!
//! On Windows a read that blocks in [`Connector::open`] is not ended from outside: it ends by the
//! socket's time-out, which lies at the same deadline.
//!
//! On machines of 32 bits an event has room for less: beyond 8,192 connections of a pool, or 254
//! pools of a [`Driver`], further ones are not watched and looked at before reuse only.
//!
//! # Features
//!
//! The default is empty and will stay so.
//!
//! | feature | what it adds | what it needs |
//! |---|---|---|
//! | `http` | an HTTP/1.1 client whose connections live in a pool: `warmline::http` | `http`, `httparse`, `bytes`, `base64` |
//! | `r2d2` | any r2d2 manager is a connector; r2d2's names for the pool: `warmline::r2d2` | `r2d2` |
//! | `serde` | [`Config`] can be read from a file and written to one | `serde`, without its defaults |
//!
//! # Log levels
//!
//! Through the [`log`] crate; the library installs no logger.
//!
//! | level | what appears |
//! |---|---|
//! | error | a connector, an observer, or the drop of a key or an error panicked (once a second and pool at the most, the others at debug); a thread of the driver did, which is a bug here, and goes on; the event loop cannot go on: connects fail from then on, and idle connections are looked at before reuse only |
//! | warn | an attempt failed, and an endpoint is left without a connection; this machine or process ran out of what a connection needs (of these two, one a second and pool at the most); the first connection after an outage that was warned of; connections are out for longer than [`leak_warning`](Builder::leak_warning) (one as often as that for each line of the program); no further thread could be started; the reaper was kept from running for seconds |
//! | info | the machine slept, or its clock was set |
//! | debug | each connection opened and closed, with its reason; each failed attempt, check and settling; what could not be watched |
//! | trace | what could not be taken off the watch, its client having closed it |
//!
//! In an outage that makes two warnings for an endpoint, one when it begins and one when it is
//! over (at debug if the first was held back); failed attempts, of which at most twenty a second
//! begin, are at debug. What is held back is counted, and the next one says how many there were.
//!
//! A record is a sentence that says it all. Loggers that take key-values get the parts as well:
//!
//! | key | of which records | what it is |
//! |---|---|---|
//! | `pool`, `endpoint` | those about one | [name](Builder::name) of the pool; label of the endpoint |
//! | `took_ms` | connection opened, attempt failed | how long that took |
//! | `failure`, `phase`, `cause` | attempt failed | [`Failure`], [`Phase`] and the error in words |
//! | `outage_ms`, `attempts` | first connection after an outage | how long it was, and how many attempts had failed |
//! | `reason`, `age_ms` | connection closed, check or settling failed (no age) | [`CloseReason`] in words; how old it was |
//! | `error` | check or settling failed; what the system refused | the error in words |
//! | `panic` | panics of user code | the message |
//! | `site`, `count`, `held_ms` | suspected leak | the line of the program that checked them out, how many, the first of them for how long |
//! | `held_back` | those that may not come too often | how many others there were since the last one |
//! | `late_ms`, `slept_ms` | the reaper was late; the machine slept | for how long |
//!
//! # Secrets
//!
//! No bytes of an exchange are shown anywhere. An endpoint's label, in the log, in errors and in
//! what observers are told, is its key as it displays itself, with `***` in the place of what looks
//! like a secret: `postgres://user:***@host`, `password=***`, `?api_key=***`. The same is done to
//! the text of a connector's error, to the message of a panic, and to the name of a pool or driver.
//! All are put on one line, with spaces in the place of control characters, and what is longer than
//! 4 KiB is cut.
//!
//! It is done by the look of a text, and so is no licence to put secrets there: a key called `x`,
//! say, tells nobody that its value is one. Not found are a token in the place of a user name
//! (`https://token@host`), a password in a URL that begins like a port and goes on with `/`, `?` or
//! `#` (`db://user:12/pw@host`), and a number that looks like a port (`password:1234`). Two keys that
//! differ in a secret alone look the same and are two endpoints. An error's
//! [`source`](std::error::Error::source) beyond the failed attempt is the connector's own, as it
//! came, and [`Endpoint::key`] the key itself.
//!
//! # Stability and minimum Rust version
//!
//! Before 1.0 a minor version may change the interface; the changelog says how. Of crates below 1.0
//! one type appears in it: the `Receiver` of [`crossbeam_channel`], which is exported here, too. With
//! the feature `http`, types of the `http` crate (1.x) do.
//! Needs Rust 1.85; a higher need is a minor version.
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

// In layers, bottom first: a module may name only those above it in this list.

// 0
#[cfg(warmline_sim)]
#[doc(hidden)]
pub mod sim;
mod sync;
mod sys;

mod clock;
mod redact;

mod holder;

mod error;
mod observe;

// 1
mod config;
mod key;

// 2
mod connector;

// 3
mod core;

mod report;

// 4
mod shared;

// 5
mod driver;

// 6
mod guard;

mod request;

// 7
mod pool;

mod builder;
mod repeat;

// 8
#[cfg(feature = "r2d2")]
pub mod r2d2;
#[cfg(feature = "serde")]
mod serde;

// 9
#[cfg(feature = "http")]
pub mod http;

pub use crate::builder::Builder;
pub use crate::clock::{Deadline, Stamp};
pub use crate::config::{Config, EndpointLimits, Reuse};
#[cfg(unix)]
pub use crate::connector::UnixConnector;
pub use crate::connector::{
    Beat, BoxConnector, Connector, Ended, Heartbeat, Look, Opening, Plan, Pulse, Reset, Resolve,
    Resolved, Socket, SocketOptions, TcpConnector, TcpKeepalive, Watch,
};
pub use crate::core::Stats;
pub use crate::driver::{Driver, Resolver};
pub use crate::error::{BoxError, Error, ErrorKind, Failure, Phase, Verdict};
pub use crate::guard::{Exchange, PooledConn};
pub use crate::holder::Holder;
#[cfg(unix)]
pub use crate::key::SocketPath;
pub use crate::key::{Address, Name, One};
pub use crate::observe::{
    CheckKind, Checked, CheckedIn, CheckedOut, Checking, CheckoutFailed, CloseReason, Closed,
    ConnectFailed, Connected, Connecting, Detached, Observer,
};
pub use crate::pool::{Endpoint, Pool};
pub use crate::repeat::Repeat;
pub use crate::report::{Report, Wait};
pub use crate::request::Request;

pub use crate::sync::crossbeam_channel;

/// Long reading.
#[cfg(any(doc, doctest))]
pub mod _docs {
    #[doc = include_str!("docs/architecture.md")]
    pub mod architecture {}
    #[doc = include_str!("docs/tuning.md")]
    pub mod tuning {}
    #[doc = include_str!("docs/coming_from.md")]
    pub mod coming_from {}
}

/// The README's examples are tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
