//! Blocked checkouts.

use crate::clock::Stamp;
use crate::core::slab::{Linked, Links};

/// A checkout that found nothing idle. First come, first served, within the bounds of fairness
/// that [`checkin`](crate::core::Core::checkin) keeps.
#[derive(Debug)]
pub(crate) struct Waiter<W> {
    /// Where the answer goes.
    pub(crate) mailbox: W,
    pub(crate) endpoint: u32,
    pub(crate) arrived: Stamp,
    pub(crate) deadline: Stamp,
    /// It was told to look again and has not looked yet.
    pub(crate) told: bool,
    pub(crate) links: Links,
}

impl<W> Waiter<W> {
    /// Past its deadline it takes nothing any more: it is about to leave by itself.
    #[inline]
    pub(crate) fn has_expired(&self, mono: Stamp) -> bool {
        self.deadline <= mono
    }
}

impl<W> Linked<0> for Waiter<W> {
    fn links(&self) -> &Links {
        &self.links
    }
    fn links_mut(&mut self) -> &mut Links {
        &mut self.links
    }
}
