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

/// What a socket is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Until {
    Readable,
    Writable,
    Either,
}

/// What a socket that was waited for is ready for. Neither: the time was over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ready {
    /// There are bytes, or the end, or an error, which a read tells.
    pub(crate) is_readable: bool,
    pub(crate) is_writable: bool,
}

/// What a look at a receive buffer finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peek {
    Nothing,
    Bytes,
    /// The peer has hung up.
    Ended,
    Failed,
}
