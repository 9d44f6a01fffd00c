//! HTTP/1.1 without I/O: requests become bytes, bytes become answers.
//!
//! The syntax is [`httparse`]'s to know; what a message means, where it ends and what is not to be
//! believed is decided here.

mod answer;
mod chunked;
mod framing;
mod request;

pub use self::framing::Unfit;

pub(crate) use self::answer::{Awaiting, Head, Step};
pub(crate) use self::chunked::{Chunked, copy};
pub(crate) use self::framing::{Framing, has_token};
pub(crate) use self::request::{Size, basic, write_head};

use std::fmt;

/// The most that heads may have: of an answer, and of those that announce it, together.
pub(crate) const MOST_HEAD_BYTES: usize = 64 * 1024;

/// What somebody sent is not HTTP, or not safe to go on with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault(&'static str);

impl Fault {
    pub(crate) const fn new(what: &'static str) -> Self {
        Self(what)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Fault {}

#[cfg(test)]
mod tests;
