//! A platform that exists only in memory: `sim`.

use std::io;
use std::time::Duration;

use crate::sim::os;
use crate::sys::{Peek, Ready, Until};

pub(crate) use crate::sim::os::*;

/// Looks at the receive buffer, without blocking.
pub(crate) fn peek(fd: BorrowedFd<'_>) -> Peek {
    match os::look(fd) {
        Some((true, _)) => Peek::Bytes,
        Some((false, true)) => Peek::Ended,
        Some((false, false)) => Peek::Nothing,
        None => Peek::Failed,
    }
}

/// Nothing that is simulated waits for a socket but by reading or writing.
pub(crate) fn wait(_: BorrowedFd<'_>, _: Until, _: Duration) -> io::Result<Ready> {
    Err(io::ErrorKind::Unsupported.into())
}
