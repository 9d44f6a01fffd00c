//! What spans endpoints: permits, the order of use, who is starved.

use crate::core::entry::USED;
use crate::core::permits::Permits;
use crate::core::slab::List;

/// Attempts that may be out, abandoned, at a time; beyond that they keep their permits.
pub(crate) const MOST_ABANDONED: usize = 16;

#[derive(Debug)]
pub(crate) struct Budget {
    pub(crate) permits: Permits,
    /// All idle connections, the least recently used one at the front.
    pub(crate) idle: List<USED>,
    pub(crate) connecting: usize,
    /// Endpoints whose waiters found no room under the pool's limits, oldest at the front.
    pub(crate) starved: List<0>,
    /// Waiters of all endpoints.
    pub(crate) waiting: usize,
    pub(crate) abandoned: usize,
}

impl Budget {
    pub(crate) const fn new(max_total: usize) -> Self {
        Self {
            permits: Permits::new(max_total),
            idle: List::new(),
            connecting: 0,
            starved: List::new(),
            waiting: 0,
            abandoned: 0,
        }
    }
}
