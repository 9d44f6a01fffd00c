//! Other crates' clients in warmline's pool, and the real servers they are tried with. The tests
//! and examples of this package share it.
#![expect(
    clippy::disallowed_methods,
    reason = "what tests share starts threads, waits and reads time"
)]

pub mod descriptor;
pub mod imap;
pub mod memcached;
pub mod mysql;
pub mod postgres;
pub mod redis;
pub mod resp;
pub mod scripted;
pub mod servers;
pub mod smtp;
pub mod sqlite;
pub mod ssh;
pub mod support;
pub mod trials;
pub mod websocket;
