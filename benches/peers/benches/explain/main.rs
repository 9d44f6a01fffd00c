//! What it costs that a pool can explain itself: errors of callers who waited in vain, reports, and
//! checkouts beside reports.
//!
//! ```text
//! cargo bench --manifest-path benches/peers/Cargo.toml --bench explain [-- SECTION…]
//! ```
//!
//! Sections: `errors`, `report`, `beside`. Together they take 20 seconds, or two with
//! `WARMLINE_BENCH_QUICK=1`: fewer, shorter rounds, for smoke tests and not for conclusions. The
//! connections are numbers, without sockets: what is measured asks no system and no server.

#![expect(clippy::disallowed_methods, reason = "benches sleep: pauses have a length")]

mod beside;
mod calm;
mod crowd;
mod errors;
mod fleet;
mod numbers;
mod page;

use peers::is_wanted;

use crate::fleet::Fleet;

fn main() {
    let troubled = Fleet::troubled();
    if is_wanted("errors") {
        errors::run(&troubled);
    }
    if is_wanted("report") {
        page::run(&Fleet::calm(), &troubled);
    }
    if is_wanted("beside") {
        beside::run(&troubled);
    }
}
