//! A guard can be sent to another thread, always, and shared if its connection can be.

use std::cell::Cell;

use warmline::{BoxError, Connector, Endpoint, One, Opening, PooledConn, TcpConnector};

struct Unshared;

impl Connector for Unshared {
    type Key = One;
    type Conn = Cell<u32>;

    fn open(&self, _: &One, _: &mut Opening) -> Result<Cell<u32>, BoxError> {
        Ok(Cell::new(0))
    }
}

fn send<T: Send>() {}
fn share<T: Send + Sync>() {}

fn main() {
    send::<PooledConn<Unshared>>();
    share::<PooledConn<TcpConnector>>();
    let conn = Endpoint::of(Unshared).unwrap().get().unwrap();
    let moved = std::thread::spawn(move || conn.replace(7));
    assert_eq!(moved.join().unwrap(), 0);
}
