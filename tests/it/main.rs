//! Promises to users, kept on real sockets. A module for each kind of promise.
#![expect(clippy::unwrap_used, clippy::panic, reason = "these are tests")]
#![expect(clippy::disallowed_methods, reason = "tests start threads, wait and read the time")]

mod bad_input;
mod cancelling;
mod checkin;
mod checkout;
mod checks;
#[cfg(feature = "serde")]
mod config_files;
mod connecting;
mod connectors;
mod counting;
mod drivers;
mod duplicates;
mod endings;
mod errors;
mod expiry;
mod explaining;
mod explaining_mixed;
mod happy_eyeballs;
mod health;
mod health_time;
mod heartbeats;
#[cfg(feature = "http")]
mod http;
#[cfg(feature = "http")]
mod http_answers;
#[cfg(feature = "http")]
mod http_servers;
mod limits;
mod memcached;
mod name_outages;
mod names;
mod nginx;
mod observed;
mod observer;
mod outages;
mod pauses;
#[cfg(feature = "r2d2")]
mod r2d2;
mod rates;
mod reconfiguring;
mod redis;
mod repeats;
mod reporting;
mod requests;
mod resolving;
mod resolving_anew;
mod resolving_fails;
mod resolving_hangs;
mod scenarios;
mod scenarios_creation;
mod scenarios_ends;
mod secrets;
mod shared_drivers;
mod shown;
mod sockets;
mod stray_bytes;
mod support;
mod tidy;
mod types;
mod watching;
