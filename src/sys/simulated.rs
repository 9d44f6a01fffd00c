//! A platform that exists only in memory: `sim`.

use crate::sim::os;
use crate::sys::Peek;

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
