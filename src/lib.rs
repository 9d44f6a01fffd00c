//! Warm connections for plain threads: a blocking, runtime-free connection pool.
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

// Bottom first: a module may name only those above it in this list.
mod builder;
mod clock;
mod config;
mod connector;
mod core;
mod driver;
mod error;
mod guard;
mod key;
mod observe;
mod pool;
mod shared;
mod sync;

pub use crate::builder::Builder;
pub use crate::clock::{Deadline, Stamp};
pub use crate::config::Reuse;
pub use crate::connector::{
    BoxConnector, Connector, Ended, Heartbeat, Look, Opening, Plan, Pulse, Reset, Socket,
    SocketOptions, TcpConnector, TcpKeepalive, UnixConnector, Watch,
};
pub use crate::core::Stats;
pub use crate::error::{BoxError, Error, ErrorKind, Failure, Phase};
pub use crate::guard::{Exchange, PooledConn};
pub use crate::key::{Address, Name, One, SocketPath};
pub use crate::observe::{CloseReason, Closed, Connected, Observer};
pub use crate::pool::{Endpoint, Pool, Repeat};
