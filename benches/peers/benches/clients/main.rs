//! Other crates' clients in warmline's pool and in r2d2's, with real servers: a checkout, one
//! command and the return, again and again; and what callers see when the server is killed and
//! started again. On Linux.
//!
//! ```text
//! cargo bench --manifest-path benches/peers/Cargo.toml --bench clients [-- SECTION…]
//! ```
//!
//! Sections: `postgres`, `redis`, `postgres_restarts` and `redis_restarts`. Together they take
//! ten minutes, or half of one with `WARMLINE_BENCH_QUICK=1`: fewer, shorter rounds, for smoke
//! tests and not for conclusions. What needs a server that is not installed is skipped, unless
//! `WARMLINE_REQUIRE_SERVERS=1`. The servers share the machine with their callers.

#![expect(clippy::disallowed_methods, reason = "benches sleep and start threads")]

mod client;
mod commands;
mod restarts;

use peers::{is_wanted, note};

use crate::client::{Client, Postgres, Redis};

fn main() {
    commands_of::<Postgres>("postgres");
    commands_of::<Redis>("redis");
    restarts_of::<Postgres>("postgres_restarts");
    restarts_of::<Redis>("redis_restarts");
}

fn commands_of<C: Client>(section: &str) {
    if is_wanted(section) {
        match C::server() {
            Some(server) => commands::run::<C>(&server),
            None => note(format_args!("{section} skipped: the server is not installed")),
        }
    }
}

fn restarts_of<C: Client>(section: &str) {
    if is_wanted(section) {
        match C::server() {
            Some(server) => restarts::run::<C>(server),
            None => note(format_args!("{section} skipped: the server is not installed")),
        }
    }
}
