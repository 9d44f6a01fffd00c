//! A platform that exists only in memory: threads, locks, time and a network, all of them decided
//! by a seed.
//!
//! Built with `--cfg warmline_sim`, the crate stands on this instead of an operating system. What
//! is above `sys`, `sync` and `clock` is the same code, line by line; it cannot tell the
//! difference. One thread of the system runs all simulated ones, one at a time (the engine is
//! `shuttle`), so whatever happens happens again with the same seed.
//!
//! * [`engine`] runs a body under a scheduler, and moves time on when nobody can run;
//! * [`threads`] holds what `sync` takes from the system otherwise: each use of a lock, a channel
//!   or an atomic is a point at which another thread may go on. `Arc` and `OnceLock` are those of
//!   the standard library, and no such points; atomics know no weaker order than the strongest, so
//!   what a weaker one breaks is for other tools to find;
//! * [`net`] is the network, with hosts that misbehave as they are told; [`os`] shows it to the
//!   crate as descriptors, sockets and a poll.
//!
//! Not part of the crate's promises. The package `tests/sim` is its user.

pub mod engine;
pub mod net;
pub mod os;
mod scheduler;
pub mod threads;
mod world;

pub use self::engine::{
    Config, Failure, JoinHandle, join, panic_in_call, run, sleep, spawn, survive, unwind,
    violation, wait_for_ever,
};
pub use self::world::{
    Random, Survey, be_punctual, has_ended, now, random_below, set_clock_by, set_thread_limit,
    starved, survey, trace, wall,
};
