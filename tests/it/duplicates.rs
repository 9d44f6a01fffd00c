//! Descriptors that user code keeps: what happens to them is no news of the pool's connections.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use warmline::{CloseReason, Driver, Pool, PooledConn, TcpConnector};

use crate::support::server::Server;
use crate::support::{ask, assert_balanced, await_loop, both_ways, eventually, say, tcp, watchdog};

both_ways! {
    nothing_happens_in_the_pool_when_the_peer_closes_a_detached_connection,
    a_duplicate_of_a_connection_that_is_gone_disturbs_nobody,
    a_duplicate_may_be_shut_down_by_whoever_keeps_it,
    an_idle_connection_is_watched_and_one_in_use_only_if_that_costs_nothing,
}

fn pool(portably: bool, driver: &Driver) -> Pool<TcpConnector> {
    tcp().portable_watch(portably).driver(driver).build().unwrap()
}

fn nothing_happens_in_the_pool_when_the_peer_closes_a_detached_connection(portably: bool) {
    let _watchdog = watchdog();
    let server = Server::echo();
    let driver = Driver::new();
    let pool = pool(portably, &driver);
    ask(&mut pool.get(&server.name()).unwrap()).unwrap();
    let mut kept = PooledConn::detach(pool.get(&server.name()).unwrap());
    // This one has the place of the other.
    ask(&mut pool.get(&server.name()).unwrap()).unwrap();
    server.hang_up_on(0);
    await_loop(&driver);
    let stats = pool.stats();
    assert_eq!((stats.idle(), stats.closed(), stats.detached()), (1, 0, 1));
    assert_eq!(kept.read(&mut [0]).unwrap(), 0, "who keeps it learns of it");
    assert!(PooledConn::is_reused(&pool.get(&server.name()).unwrap()));
    assert_eq!(server.accepted(), 2);
}

/// Whether any event loop of this process would hear of the socket; `None` where the system does
/// not tell.
fn is_watched(socket: &OwnedFd) -> Option<bool> {
    let link = std::fs::read_link(format!("/proc/self/fd/{}", socket.as_raw_fd())).ok()?;
    let inode = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
    let mark = format!(" ino:{:x} ", inode.parse::<u64>().ok()?);
    let descriptors = std::fs::read_dir("/proc/self/fdinfo").ok()?;
    let texts = descriptors.filter_map(|it| std::fs::read_to_string(it.ok()?.path()).ok());
    Some(texts.into_iter().any(|text| text.contains("tfd:") && text.contains(&mark)))
}

/// Has a connection leave the pool in some way while a duplicate of it is kept, and another take
/// its place, which becomes idle.
fn replaced(pool: &Pool<TcpConnector>, server: &Server, way: &str) -> OwnedFd {
    ask(&mut pool.get(&server.name()).unwrap()).unwrap();
    let conn = pool.get(&server.name()).unwrap();
    let twin = conn.as_fd().try_clone_to_owned().unwrap();
    match way {
        "return, evict" => {
            drop(conn);
            pool.evict_all();
        }
        "evict, return" => {
            pool.evict_all();
            drop(conn);
        }
        "discard" => PooledConn::discard(conn),
        _ => drop(PooledConn::detach(conn)),
    }
    assert_eq!(pool.stats().total(), 0, "{way}");
    assert_ne!(is_watched(&twin), Some(true), "{way}");
    let mut stream = TcpStream::from(twin.try_clone().unwrap());
    stream.write_all(b"open").unwrap();
    stream.read_exact(&mut [0; 4]).expect("the duplicate keeps it open");
    ask(&mut pool.get(&server.name()).unwrap()).unwrap();
    assert_eq!(pool.stats().idle(), 1, "{way}");
    twin
}

const WAYS: [&str; 4] = ["return, evict", "evict, return", "discard", "detach"];

fn assert_undisturbed(pool: &Pool<TcpConnector>, server: &Server, driver: &Driver, way: &str) {
    await_loop(driver);
    let stats = pool.stats();
    assert_eq!((stats.idle(), stats.closed() + stats.detached()), (1, 1), "{way}");
    assert_balanced(&stats);
    let mut conn = pool.get(&server.name()).unwrap();
    assert!(PooledConn::is_reused(&conn), "{way}");
    ask(&mut conn).unwrap();
    drop(conn);
    // It is watched as ever.
    server.hang_up_on(1);
    eventually("its own death is noticed", || pool.stats().idle() == 0);
}

fn a_duplicate_of_a_connection_that_is_gone_disturbs_nobody(portably: bool) {
    let _watchdog = watchdog();
    for way in WAYS {
        let (server, driver) = (Server::echo(), Driver::new());
        let pool = pool(portably, &driver);
        let _twin = replaced(&pool, &server, way);
        server.hang_up_on(0);
        assert_undisturbed(&pool, &server, &driver, way);
    }
}

fn a_duplicate_may_be_shut_down_by_whoever_keeps_it(portably: bool) {
    let _watchdog = watchdog();
    for way in WAYS {
        let (server, driver) = (Server::echo(), Driver::new());
        let pool = pool(portably, &driver);
        let twin = replaced(&pool, &server, way);
        TcpStream::from(twin).shutdown(Shutdown::Both).unwrap();
        assert_undisturbed(&pool, &server, &driver, way);
    }
}

fn an_idle_connection_is_watched_and_one_in_use_only_if_that_costs_nothing(portably: bool) {
    let _watchdog = watchdog();
    let (server, driver) = (Server::echo(), Driver::new());
    let pool = pool(portably, &driver);
    let conn = pool.get(&server.name()).unwrap();
    let twin = conn.as_fd().try_clone_to_owned().unwrap();
    if is_watched(&twin).is_none() {
        return say("skipped: the system does not tell what is watched");
    }
    drop(conn);
    for _ in 0..3 {
        assert_eq!(is_watched(&twin), Some(true));
        let conn = pool.get(&server.name()).unwrap();
        assert!(PooledConn::is_reused(&conn));
        assert_eq!(is_watched(&twin), Some(!portably));
    }
}

#[test]
fn one_that_is_shut_down_through_a_duplicate_while_it_is_idle_is_closed_at_once() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let pool = Pool::tcp();
    let conn = pool.get(&server.name()).unwrap();
    let twin = TcpStream::from(conn.as_fd().try_clone_to_owned().unwrap());
    drop(conn);
    assert_eq!(pool.stats().idle(), 1);
    twin.shutdown(Shutdown::Both).unwrap();
    eventually("it is closed", || pool.stats().closed_for(CloseReason::PeerClosed) == 1);
    assert_eq!(pool.stats().total(), 0);
}
