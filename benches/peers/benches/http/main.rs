//! warmline's HTTP client and its peers, with one local nginx, in the same run: what a GET costs,
//! and what callers see when the server closes connections. On Linux.
//!
//! ```text
//! cargo bench --manifest-path benches/peers/Cargo.toml --bench http [-- SECTION…]
//! ```
//!
//! Sections: `load`, `syscalls`, `instructions`, `allocs`, `idle`, `stale` and `reload`. Together
//! they take six minutes, or one with `WARMLINE_BENCH_QUICK=1`: fewer, shorter rounds, for smoke
//! tests and not for conclusions. Without nginx there are none; `syscalls` needs strace as well,
//! `instructions` valgrind. With `WARMLINE_REQUIRE_SERVERS=1` the first two must be there. The
//! server shares the machine with its clients.
//!
//! Every round of `load` runs every candidate once, in an order drawn anew. CPU time is that of the
//! whole process with all its threads: whatever a client does on threads of its own counts.

#![expect(clippy::disallowed_methods, reason = "benches sleep and start threads")]

mod client;
mod counts;
mod idle;
mod load;
mod nginx;
mod ours;
mod raw;
mod reload;
mod stale;
mod target;

use peers::{Weighing, allow_descriptors, is_wanted};

use crate::client::BoxError;
use crate::nginx::Nginx;

#[global_allocator]
static ALLOCATOR: Weighing = Weighing::on_demand();

/// Clients of 64 threads, and 256 connections at once.
const DESCRIPTORS: u64 = 2_000;

type Section = (&'static str, fn(&Nginx));

fn main() -> Result<(), BoxError> {
    if let Some(order) = counts::asked_of_child() {
        return counts::run_child(&order);
    }
    allow_descriptors(DESCRIPTORS)?;
    let Some(mut nginx) = Nginx::start() else { return Ok(()) };
    let sections: [Section; 6] = [
        ("load", load::run),
        ("syscalls", counts::system_calls),
        ("instructions", counts::instructions),
        ("allocs", counts::allocations),
        ("idle", idle::run),
        ("stale", stale::run),
    ];
    for (name, run) in sections {
        if is_wanted(name) {
            run(&nginx);
        }
    }
    if is_wanted("reload") {
        reload::run(&mut nginx);
    }
    Ok(())
}
