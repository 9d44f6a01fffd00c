//! Who detaches a connection has the connection, and the guard no more.

use warmline::{Pool, PooledConn};

fn main() {
    let conn = Pool::tcp().get("127.0.0.1:1").unwrap();
    let _socket = PooledConn::detach(conn);
    let _age = PooledConn::age(&conn);
}
