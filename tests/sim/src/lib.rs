//! Simulations of warmline: the whole crate, on a platform that exists only in memory.
//!
//! A seed makes a `Script`: a pool, hosts, callers, and what befalls them. It is
//! played with a schedule, a network and a clock that follow from the same seed, and watched: no
//! connection has two users, no limit is passed, nobody waits longer than he said or is passed
//! over, whatever fails has a cause, all is well once the world is, and nothing is left at the end.
//!
//! Built without `--cfg warmline_sim` there is nothing in here: run cargo in this folder.

#![cfg(warmline_sim)]

mod callers;
mod expect;
pub mod kit;
pub mod play;
pub mod run;
mod runs;
pub mod script;
pub mod shrink;
mod stopwatch;
mod watch;
