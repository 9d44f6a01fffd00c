//! r2d2's names for this crate's pool, and any r2d2 manager as a [connector](Manager).
//!
//! A program that uses [r2d2](https://docs.rs/r2d2/0.8) changes one line:
//!
//! ```text
//! -use r2d2;
//! +use warmline::r2d2;
//! ```
//!
//! Its managers stay as they are: [`ManageConnection`] is r2d2's own trait, as are
//! [`CustomizeConnection`], [`HandleError`] and [`Extensions`]. What it gets is a
//! [`Pool`](crate::Pool) of this crate beneath r2d2's names, with r2d2's defaults.
//!
//! ```
//! use std::io;
//! use std::net::{SocketAddr, TcpStream};
//! use warmline::r2d2;
//!
//! struct Manager(SocketAddr);
//!
//! impl r2d2::ManageConnection for Manager {
//!     type Connection = TcpStream;
//!     type Error = io::Error;
//!     fn connect(&self) -> io::Result<TcpStream> {
//!         TcpStream::connect(self.0)
//!     }
//!     fn is_valid(&self, stream: &mut TcpStream) -> io::Result<()> {
//!         // A round trip, in a real protocol.
//!         stream.peer_addr().map(drop)
//!     }
//!     fn has_broken(&self, _: &mut TcpStream) -> bool {
//!         false
//!     }
//! }
//!
//! # let server = std::net::TcpListener::bind("127.0.0.1:0")?;
//! # let address = server.local_addr()?;
//! let pool = r2d2::Pool::builder().max_size(4).build(Manager(address))?;
//! let stream = pool.get()?;
//! assert_eq!(stream.peer_addr()?, address);
//! assert_eq!(pool.state().connections, 4);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What gets better
//!
//! * A caller's deadline holds though `connect` or `is_valid` hangs.
//! * `is_valid` is asked of what was idle for longer than half a second, and not at every checkout.
//! * A panic in the manager costs a connection, and no place in the pool for ever. A connection
//!   whose user panics is closed, and not given to the next.
//! * An error says why: counts, who has the connections, what the last attempt met.
//! * When a server is back, those who wait are served within a tenth of a second or so; r2d2's pauses
//!   grow to half of `connection_timeout`, 15 s.
//! * Connections are opened side by side, sixteen at a time, and not three. Pools may share their
//!   [`Driver`](crate::Driver).
//! * A caller who is overtaken keeps his place.
//! * [`close`](Pool::close), [`drain`](Pool::drain), [`discard`](PooledConnection::discard) and
//!   [`detach`](PooledConnection::detach); [`report`](Pool::report).
//!
//! # What is different
//!
//! * What dies while it is idle and is asked for within half a second reaches its user, where r2d2
//!   would have asked the server first. [`Builder::watch`] rules that out, and so does
//!   `.configure(|config| config.check_after(Duration::ZERO))`, for a round trip each time. A
//!   connection that was just opened is not tested at all.
//! * A call of `is_valid` that takes longer than
//!   [`check_timeout`](crate::Builder::check_timeout) (2 s), or one of `connect` that takes longer than
//!   30 s, is given up.
//! * [`Error`] is this crate's. `to_string` has the cause, and more.
//! * Connections are closed on a thread of the pool, so that
//!   [`on_release`](CustomizeConnection::on_release) may come a moment after the guard's drop.
//! * Of [`min_idle`](Builder::min_idle) connections none is closed for being idle.
//! * The manager's errors are not logged at the error level each: the pool's own
//!   [log](crate#log-levels) tells of outages. `LoggingErrorHandler` does as it does in r2d2.
//! * Callers beyond 1024 that wait, or four times `max_size` if that is more, are turned away
//!   ([`max_waiting`](crate::Builder::max_waiting)).
//! * None is opened while as many as `max_size`, at least sixteen, are being closed: where
//!   `on_release`, or the drop of a connection, does not return, the server is not to have ever more.
//! * [`HandleEvent`] and its events are this crate's, with the same names.
//! * Managers, customizers and handlers that ask the pool itself for a connection, on one of its own
//!   threads, are [refused](crate::ErrorKind::Rejected) where they would have to wait.
//! * Settings that make no sense are errors of [`build`](Builder::build), where r2d2's setters panic.
//! * There is no `thread_pool`: see [`Builder::driver`].
//! * Traits that other crates implement for r2d2's guard itself, as diesel does for
//!   `PooledConnection`, are not implemented for this one: pass `&mut *conn`.

pub mod event;

mod builder;
mod hooked;
mod manager;
mod pool;

pub use self::builder::Builder;
#[doc(no_inline)]
pub use self::event::{HandleEvent, NopEventHandler};
pub use self::manager::{Manager, of};
pub use self::pool::{Pool, PooledConnection, State};

#[doc(no_inline)]
pub use crate::error::Error;
#[doc(no_inline)]
pub use ::r2d2::{
    CustomizeConnection, Extensions, HandleError, LoggingErrorHandler, ManageConnection,
    NopConnectionCustomizer, NopErrorHandler,
};
