//! What differs between systems, under one set of names.
//!
//! Those of Unix: what is a descriptor there is a socket on Windows. The reading of clocks is in
//! `clock.rs`, where all of it is.

#[cfg(warmline_sim)]
mod simulated;
#[cfg(all(unix, not(warmline_sim)))]
mod unix;
#[cfg(all(windows, not(warmline_sim)))]
mod windows;

#[cfg(warmline_sim)]
pub(crate) use self::simulated::*;
#[cfg(all(unix, not(warmline_sim)))]
pub(crate) use self::unix::*;
#[cfg(all(windows, not(warmline_sim)))]
pub(crate) use self::windows::*;
#[cfg(not(warmline_sim))]
pub(crate) use {
    ::mio,
    ::socket2,
    foldhash::{HashMap, HashSet},
    std::net::TcpStream,
};

/// What a look at a receive buffer finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peek {
    Nothing,
    Bytes,
    /// The peer has hung up.
    Ended,
    Failed,
}
