//! What spans endpoints: permits, the order of use, who is starved.

use crate::core::endpoint::{STARVED, VACANT};
use crate::core::entry::USED;
use crate::core::list::List;
use crate::core::permits::Permits;

/// Attempts that may be out, abandoned, at a time; beyond that they keep their permits.
pub(crate) const MOST_ABANDONED: usize = 16;

#[derive(Debug)]
pub(crate) struct Budget {
    pub(crate) permits: Permits,
    /// All idle connections, the least recently used one at the front.
    pub(crate) idle: List<USED>,
    /// All attempts to connect, the oldest at the front.
    pub(crate) attempts: List<USED>,
    /// How many of them were called off and have not ended.
    pub(crate) called_off: usize,
    /// Connections that are out for proof that nobody waits for.
    pub(crate) routine: usize,
    /// Endpoints whose waiters found no room under the pool's limits, oldest at the front.
    pub(crate) starved: List<STARVED>,
    /// Endpoints where nothing happened when they were last looked at.
    pub(crate) vacant: List<VACANT>,
    /// Some endpoint is to have idle connections kept ready.
    pub(crate) keeps_some: bool,
    /// Endpoints whose connections may be idle for less than the idle time-out.
    pub(crate) limited: Vec<u32>,
    /// Waiters of all endpoints.
    pub(crate) waiting: usize,
    pub(crate) abandoned: usize,
}

impl Budget {
    pub(crate) const fn new(max_total: usize) -> Self {
        Self {
            permits: Permits::new(max_total),
            idle: List::new(),
            attempts: List::new(),
            called_off: 0,
            routine: 0,
            starved: List::new(),
            vacant: List::new(),
            keeps_some: false,
            limited: Vec::new(),
            waiting: 0,
            abandoned: 0,
        }
    }
}
