//! What differs between systems, under one set of names.
//!
//! Those of Unix: what is a descriptor there is a socket on Windows. The reading of clocks is in
//! `clock.rs`, where all of it is.

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
pub(crate) use self::unix::*;
#[cfg(windows)]
pub(crate) use self::windows::*;

/// What a look at a receive buffer finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peek {
    Nothing,
    Bytes,
    /// The peer has hung up.
    Ended,
    Failed,
}
