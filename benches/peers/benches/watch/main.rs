//! What it costs to watch idle connections, and how soon their death is known; how many connects
//! that hang delay others. On Linux.
//!
//! ```text
//! cargo bench --manifest-path benches/peers/Cargo.toml --bench watch [-- SECTION…]
//! ```
//!
//! Sections: `notice`, `traffic`, `idle`, `heap`, `mass`, `connects`, `dead`. Together they take 40
//! seconds, or ten with `WARMLINE_BENCH_QUICK=1`: fewer, shorter rounds, for smoke tests and not for
//! conclusions. The server is another process, so that its threads, memory and descriptors
//! are not counted as ours.

#![expect(clippy::disallowed_methods, reason = "benches sleep: pauses and rounds have a length")]

mod bare;
mod connects;
mod crowd;
mod dead;
mod idle;
mod notice;
mod remote;
mod traffic;

use std::io;

use peers::{Weighing, allow_most_descriptors, is_wanted};

#[global_allocator]
static ALLOCATOR: Weighing = Weighing::new();

const CROWD: usize = 8_000;
/// What the process has open beside its connections.
const OTHER_DESCRIPTORS: usize = 400;

fn main() -> io::Result<()> {
    let descriptors = allow_most_descriptors((CROWD + OTHER_DESCRIPTORS) as u64) as usize;
    if peers::Obedient::is_here() {
        return remote::serve();
    }
    let crowd = CROWD.min(descriptors.saturating_sub(OTHER_DESCRIPTORS));
    let limit = match crowd {
        CROWD => String::new(),
        _ => format!(" (no {CROWD}: the system allows {descriptors} descriptors)"),
    };
    let sections: [(&str, &dyn Fn()); 7] = [
        ("notice", &notice::run),
        ("traffic", &traffic::run),
        ("idle", &idle::run),
        ("heap", &|| crowd::weigh(crowd, &limit)),
        ("mass", &|| crowd::kill(crowd, &limit)),
        ("connects", &connects::run),
        ("dead", &dead::run),
    ];
    for (name, run) in sections {
        if is_wanted(name) {
            run();
        }
    }
    Ok(())
}
