//! What is borrowed from a connection is gone once the connection is back in the pool.

use warmline::{Pool, Socket};

fn main() {
    let pool = Pool::tcp();
    let socket: &Socket;
    {
        let conn = pool.get("127.0.0.1:1").unwrap();
        socket = &conn;
    }
    socket.peer_addr();
}
