//! Connections that are numbers, and many lines of a program that take them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use warmline::{BoxError, Connector, Endpoint, Opening, PooledConn};

/// Nobody waits so long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(3_600);

/// Opens connections that lead nowhere.
#[derive(Debug, Default)]
pub(crate) struct Numbers(AtomicU64);

impl Connector for Numbers {
    type Key = String;
    type Conn = u64;

    fn open(&self, key: &String, _: &mut Opening) -> Result<u64, BoxError> {
        if key.starts_with("away") {
            return Err("the server has moved away".into());
        }
        Ok(self.0.fetch_add(1, Ordering::Relaxed))
    }
}

/// Checks one out, at a place of its own in the program.
pub(crate) type Take = fn(&Endpoint<Numbers>) -> PooledConn<Numbers>;

/// What comes of a macro has the place where the macro is written.
macro_rules! at {
    () => {
        |endpoint| endpoint.get().expect("there is room")
    };
}

/// Each is known to a pool as another line of the program.
#[rustfmt::skip]
pub(crate) const PLACES: [Take; 64] = [
    at!(), at!(), at!(), at!(), at!(), at!(), at!(), at!(),
    at!(), at!(), at!(), at!(), at!(), at!(), at!(), at!(),
    at!(), at!(), at!(), at!(), at!(), at!(), at!(), at!(),
    at!(), at!(), at!(), at!(), at!(), at!(), at!(), at!(),
    at!(), at!(), at!(), at!(), at!(), at!(), at!(), at!(),
    at!(), at!(), at!(), at!(), at!(), at!(), at!(), at!(),
    at!(), at!(), at!(), at!(), at!(), at!(), at!(), at!(),
    at!(), at!(), at!(), at!(), at!(), at!(), at!(), at!(),
];
