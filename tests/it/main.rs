//! Promises to users, kept on real sockets. A module for each kind of promise.
#![expect(clippy::unwrap_used, clippy::panic, reason = "these are tests")]
#![expect(clippy::disallowed_methods, reason = "tests start threads, wait and read the time")]

mod bad_input;
mod checkin;
mod checkout;
mod checks;
mod connectors;
mod endings;
mod errors;
mod expiry;
mod names;
mod observer;
mod outages;
mod redis;
mod repeats;
mod sockets;
mod support;
mod tidy;
mod types;
