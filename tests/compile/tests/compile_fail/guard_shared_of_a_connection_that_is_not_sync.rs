//! A guard can be shared between threads only if its connection can.

use std::cell::Cell;

use warmline::{BoxError, Connector, One, Opening, PooledConn};

struct Unshared;

impl Connector for Unshared {
    type Key = One;
    type Conn = Cell<u32>;

    fn open(&self, _: &One, _: &mut Opening) -> Result<Cell<u32>, BoxError> {
        Ok(Cell::new(0))
    }
}

/// Asked by a method, the compiler does not tell what a guard is made of.
struct Shared<T>(T);

impl<T: Sync> Shared<T> {
    fn between_threads(&self) {}
}

fn share(conn: PooledConn<Unshared>) {
    Shared(conn).between_threads();
}

fn main() {}
