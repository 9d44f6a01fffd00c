//! What differs between systems, under one set of names.
//!
//! Those of Unix: what is a descriptor there is a socket on Windows. The reading of clocks is in
//! `clock.rs`, where all of it is.

#[cfg(not(warmline_sim))]
use std::{io, time::Duration};

#[cfg(not(warmline_sim))]
use rustix::event::{PollFd, PollFlags, Timespec, poll};
#[cfg(not(warmline_sim))]
use rustix::io::Errno;

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

/// Waits until a socket is ready, for `timeout` at the most.
#[cfg(not(warmline_sim))]
pub(crate) fn wait(fd: BorrowedFd<'_>, until: Until, timeout: Duration) -> io::Result<Ready> {
    let asked = match until {
        Until::Readable => PollFlags::IN,
        Until::Writable => PollFlags::OUT,
        Until::Either => PollFlags::IN | PollFlags::OUT,
    };
    let mut polled = [PollFd::from_borrowed_fd(fd, asked)];
    // Some systems take no longer ones; who waits longer waits again.
    const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
    let timeout = Timespec::try_from(timeout.min(LONGEST)).ok();
    match poll(&mut polled, timeout.as_ref()) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    let [polled] = polled;
    let seen = polled.revents();
    // An error is there for whoever calls next, be it to read or to write.
    let has_ended = PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL;
    let is_readable = seen.intersects(PollFlags::IN | has_ended);
    Ok(Ready { is_readable, is_writable: seen.intersects(PollFlags::OUT | has_ended) })
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
