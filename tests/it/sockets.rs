//! What the sockets of a pool are set to, asked of the live socket itself.

use std::io::{Read, Write};
use std::net::IpAddr;
use std::time::Duration;

use rustix::net::sockopt;
use socket2::SockRef;
use warmline::{Pool, TcpConnector, TcpKeepalive, UnixConnector};

use crate::support::server::Server;
use crate::support::{ask, watchdog};

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

#[test]
fn a_tcp_connection_has_the_documented_defaults() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let conn = Pool::tcp().get(&server.name()).unwrap();
    let socket = SockRef::from(&conn);
    assert!(sockopt::tcp_nodelay(&conn).unwrap());
    assert!(sockopt::socket_keepalive(&conn).unwrap());
    assert_eq!(sockopt::tcp_keepidle(&conn).unwrap(), secs(60));
    assert_eq!(sockopt::tcp_keepintvl(&conn).unwrap(), secs(5));
    assert_eq!(sockopt::tcp_keepcnt(&conn).unwrap(), 3);
    assert_eq!(sockopt::tcp_user_timeout(&conn).unwrap(), 75_000);
    assert_eq!(socket.read_timeout().unwrap(), Some(secs(30)));
    assert_eq!(socket.write_timeout().unwrap(), Some(secs(30)));
    assert!(!socket.nonblocking().unwrap(), "reads and writes block");
}

#[test]
fn a_tcp_connection_has_what_was_asked_for() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let keepalive = TcpKeepalive::default().idle(secs(20)).interval(secs(2)).count(4);
    let connector = TcpConnector::new()
        .nodelay(false)
        .keepalive(keepalive)
        .read_timeout(secs(3))
        .write_timeout(secs(4))
        .recv_buffer(40_000)
        .send_buffer(50_000);
    let pool = Pool::builder(connector).build().unwrap();
    let mut conn = pool.get(&server.name()).unwrap();
    ask(&mut conn).unwrap();
    let socket = SockRef::from(&conn);
    assert!(!sockopt::tcp_nodelay(&conn).unwrap());
    assert_eq!(sockopt::tcp_keepidle(&conn).unwrap(), secs(20));
    assert_eq!(sockopt::tcp_keepintvl(&conn).unwrap(), secs(2));
    assert_eq!(sockopt::tcp_keepcnt(&conn).unwrap(), 4);
    assert_eq!(sockopt::tcp_user_timeout(&conn).unwrap(), 28_000, "it follows keepalive");
    assert_eq!(socket.read_timeout().unwrap(), Some(secs(3)));
    assert_eq!(socket.write_timeout().unwrap(), Some(secs(4)));
    // Linux doubles what is asked for, to have room for its own books.
    assert_eq!(socket.recv_buffer_size().unwrap(), 80_000);
    assert_eq!(socket.send_buffer_size().unwrap(), 100_000);
}

#[test]
fn what_was_switched_off_is_off() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let connector = TcpConnector::new().keepalive(None).read_timeout(None).write_timeout(None);
    let conn = Pool::builder(connector).build().unwrap().get(&server.name()).unwrap();
    let socket = SockRef::from(&conn);
    assert!(!sockopt::socket_keepalive(&conn).unwrap());
    assert_eq!(sockopt::tcp_user_timeout(&conn).unwrap(), 0, "without keepalive, the system's own");
    assert_eq!((socket.read_timeout().unwrap(), socket.write_timeout().unwrap()), (None, None));
}

#[test]
fn a_user_time_out_of_its_own_goes_before_keepalive() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let connector = TcpConnector::new().user_timeout(secs(9));
    let conn = Pool::builder(connector).build().unwrap().get(&server.name()).unwrap();
    assert_eq!(sockopt::tcp_user_timeout(&conn).unwrap(), 9_000);
    let connector = TcpConnector::new().user_timeout(None);
    let conn = Pool::builder(connector).build().unwrap().get(&server.name()).unwrap();
    assert_eq!(sockopt::tcp_user_timeout(&conn).unwrap(), 0);
    assert!(sockopt::socket_keepalive(&conn).unwrap());
}

#[test]
fn the_local_address_is_the_one_asked_for() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let local: IpAddr = "127.0.0.9".parse().unwrap();
    let pool = Pool::builder(TcpConnector::new().local_address(local)).build().unwrap();
    let mut conn = pool.get(&server.name()).unwrap();
    ask(&mut conn).unwrap();
    assert_eq!(conn.local_addr().map(|addr| addr.ip()), Some(local));
    assert_eq!(conn.peer_addr(), Some(server.address()));
}

#[test]
fn a_read_ends_at_its_time_out() {
    let _watchdog = watchdog();
    let server = Server::scripted(|peer| peer.stay_silent());
    let connector = TcpConnector::new().read_timeout(Duration::from_millis(20));
    let mut conn = Pool::builder(connector).build().unwrap().get(&server.name()).unwrap();
    conn.write_all(b"hello?").unwrap();
    let error = conn.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn keepalive_can_be_switched_on_for_accepted_sockets_too() {
    let _watchdog = watchdog();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let _conn = Pool::tcp().get(&listener.local_addr().unwrap()).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    TcpKeepalive::default().idle(secs(33)).apply(&accepted).unwrap();
    assert!(sockopt::socket_keepalive(&accepted).unwrap());
    assert_eq!(sockopt::tcp_keepidle(&accepted).unwrap(), secs(33));
}

#[test]
fn unix_sockets_work_as_tcp_ones_do() {
    let _watchdog = watchdog();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("echo.sock");
    let server = Server::unix(&path, |peer| peer.echo());
    let connector = UnixConnector::new().read_timeout(secs(3)).nodelay(true).recv_buffer(40_000);
    let pool = Pool::builder(connector).build().unwrap();
    for _ in 0..3 {
        let mut conn = pool.get(&path).unwrap();
        ask(&mut conn).unwrap();
        conn.set_nodelay(false).unwrap();
        conn.set_read_timeout(None).unwrap();
        assert_eq!((conn.peer_addr(), conn.local_addr()), (None, None));
    }
    assert_eq!((server.accepted(), pool.stats().idle()), (1, 1));
    let conn = pool.get(path.to_str().unwrap()).unwrap();
    let socket = SockRef::from(&conn);
    assert_eq!(socket.read_timeout().unwrap(), Some(secs(3)), "put back");
    assert_eq!(socket.recv_buffer_size().unwrap(), 80_000);
    drop(conn);
    pool.get(&path).unwrap().write_all(b"x").unwrap();
    assert_eq!(pool.stats().closed_for(warmline::CloseReason::Unfinished), 1);
}
