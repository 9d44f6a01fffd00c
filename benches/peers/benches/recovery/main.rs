//! How a pool keeps itself well: how soon after an outage it works again and what it asks of the
//! server meanwhile, what callers see of deaths, and what heartbeats, lifetimes and learned limits
//! do. On Linux.
//!
//! ```text
//! cargo bench --manifest-path benches/peers/Cargo.toml --bench recovery [-- SECTION…]
//! ```
//!
//! Sections: `outages`, `deaths`, `lifetimes`, and at the same time `heartbeats` and `limits`.
//! Together they take three minutes, or half of one with `WARMLINE_BENCH_QUICK=1`: fewer, shorter
//! rounds, for smoke tests and not for conclusions. The server is another process.

#![expect(clippy::disallowed_methods, reason = "benches sleep: pauses and rounds have a length")]

mod deaths;
mod heartbeats;
mod lifetimes;
mod limits;
mod outages;
mod peer;
mod remote;
mod server;

use std::io;
use std::thread;

use peers::{allow_most_descriptors, is_wanted};

const CROWD: usize = 8_000;
/// What the process has open beside its connections.
const OTHER_DESCRIPTORS: usize = 400;

fn main() -> io::Result<()> {
    let descriptors = allow_most_descriptors((CROWD + OTHER_DESCRIPTORS) as u64) as usize;
    if peers::Obedient::is_here() {
        return server::serve();
    }
    let crowd = CROWD.min(descriptors.saturating_sub(OTHER_DESCRIPTORS));
    let limit = match crowd {
        CROWD => String::new(),
        _ => format!(" (no {CROWD}: the system allows {descriptors} descriptors)"),
    };
    if is_wanted("outages") {
        outages::run();
    }
    if is_wanted("deaths") {
        deaths::run();
    }
    if is_wanted("lifetimes") {
        lifetimes::run();
    }
    // Both wait nearly all the time.
    thread::scope(|scope| {
        if is_wanted("heartbeats") {
            scope.spawn(|| heartbeats::run(crowd, &limit));
        }
        if is_wanted("limits") {
            scope.spawn(limits::run);
        }
    });
    Ok(())
}
