//! Promises to users, kept on real sockets. A module for each kind of promise.
#![expect(clippy::unwrap_used, clippy::panic, reason = "these are tests")]
#![expect(clippy::disallowed_methods, reason = "tests start threads, wait and read the time")]

mod bad_input;
mod checkin;
mod checkout;
mod checks;
mod connecting;
mod connectors;
mod drivers;
mod duplicates;
mod endings;
mod errors;
mod expiry;
mod happy_eyeballs;
mod names;
mod observer;
mod outages;
mod redis;
mod repeats;
mod shared_drivers;
mod shown;
mod sockets;
mod stray_bytes;
mod support;
mod tidy;
mod types;
mod watching;
