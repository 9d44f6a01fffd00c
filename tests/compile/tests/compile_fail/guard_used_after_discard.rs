//! A connection that was discarded is closed: nobody can use it.

use warmline::{Pool, PooledConn};

fn main() {
    let conn = Pool::tcp().get("127.0.0.1:1").unwrap();
    PooledConn::discard(conn);
    let _age = PooledConn::age(&conn);
}
