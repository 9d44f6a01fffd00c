//! The HTTP client: what it promises on the wire, and when it uses a connection again.

mod arrivals;
mod bad_answers;
mod comforts;
mod doubt;
mod early;
mod injection;
mod redirects;
mod reuse;
mod reuse_asked;
mod reuse_limits;
mod reuse_pieces;
mod reuse_refused;
mod reuse_threads;
mod reuse_unread;
mod reuse_upgrades;
mod stale;
mod steps;
mod support;
mod times;
