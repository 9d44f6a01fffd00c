//! What a checkout and its return cost, beside what they cost in other pools, in the same run.
//!
//! ```text
//! cargo bench --manifest-path benches/peers/Cargo.toml --bench checkout [-- SECTION…]
//! ```
//!
//! Sections: `uncontended`, `counts`, `empty`, `sleep`, `spin`, `limit`, `endpoints`. Together they
//! take 150 seconds, or 15 with `WARMLINE_BENCH_QUICK=1`: fewer, shorter rounds, for smoke tests
//! and not for conclusions. All connections are live sockets on loopback, open before anything is
//! timed; but for those of `limit`, which opens and closes them.
//!
//! Every round runs every candidate once, in an order drawn anew: what slows the machine down for a
//! while slows all of them. Ratios can be trusted further than absolute values.

#![expect(clippy::disallowed_methods, reason = "benches sleep: holds and rounds have a length")]

mod contended;
mod counts;
mod endpoints;
mod keyed;
mod limit;
mod pools;
mod uncontended;

use std::process::ExitCode;

use peers::{Counting, Server, allow_descriptors, is_wanted};

#[global_allocator]
static ALLOCATOR: Counting = Counting::new();

/// Both ends of 1,100 connections are here, and of some that one end has closed.
const DESCRIPTORS: u64 = 4_000;

fn main() -> ExitCode {
    if let Some(checkouts) = counts::asked_of_child() {
        counts::run_child(checkouts);
        return ExitCode::SUCCESS;
    }
    allow_descriptors(DESCRIPTORS).expect("the process needs some 3,500 descriptors");
    let server = Server::start().expect("a listener on loopback");
    if is_wanted("uncontended") {
        uncontended::run(server);
    }
    if is_wanted("counts") {
        counts::run(server);
    }
    for load in &contended::LOADS {
        if is_wanted(load.name) {
            contended::run(load, server);
        }
    }
    if is_wanted("limit") {
        limit::run();
    }
    if is_wanted("endpoints") {
        endpoints::run(server);
    }
    ExitCode::SUCCESS
}
