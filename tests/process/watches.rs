//! Which descriptors the loop watches: none that somebody else has by now, and all that it should.

use std::net::TcpStream;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::Arc;

use parking_lot::Mutex;
use warmline::{
    Address, BoxError, Builder, CloseReason, Connector, Deadline, Driver, Look, Opening, Pool,
    PooledConn, Watch,
};

use crate::alone;
use crate::support::faults::Refusing;
use crate::support::foreign::{Foreign, Show};
use crate::support::server::Server;
use crate::support::{SOON, ask, await_loop, eventually, tcp, watchdog};

/// True if a poll of this process has this descriptor registered.
fn is_watched(fd: RawFd) -> bool {
    let fd = fd.to_string();
    let texts = std::fs::read_dir("/proc/self/fdinfo").unwrap().flatten();
    let texts = texts.filter_map(|entry| std::fs::read_to_string(entry.path()).ok());
    let names_it = |line: &str| {
        let mut words = line.split_whitespace();
        words.next() == Some("tfd:") && words.next() == Some(&*fd)
    };
    texts.into_iter().any(|text| text.lines().any(names_it))
}

/// A client library that remembers its descriptor's number, also when it has closed it.
struct Remembering;

struct Client {
    stream: Arc<Mutex<Option<TcpStream>>>,
    number: RawFd,
}

impl Connector for Remembering {
    type Key = Address;
    type Conn = Client;

    fn open(&self, key: &Address, _: &mut Opening) -> Result<Client, BoxError> {
        let stream = TcpStream::connect(key.ip().unwrap())?;
        let number = stream.as_raw_fd();
        Ok(Client { stream: Arc::new(Mutex::new(Some(stream))), number })
    }

    fn is_open(&self, conn: &mut Client, _: Look) -> bool {
        conn.stream.lock().is_some()
    }

    fn watch<'c>(&self, conn: &'c Client) -> Watch<'c> {
        Watch::Raw(conn.number)
    }
}

/// A connection of `heirs` gets the number that another pool still watches; it is told of its own
/// death all the same.
fn assert_is_told<C: Connector<Key = Address>>(heirs: Builder<C>)
where
    C::Conn: AsFd,
{
    // Takes no descriptors on its side, which would come in between.
    let (peer, driver) = (Refusing::new(), Driver::new());
    peer.listen();
    let clients = Pool::builder(Remembering).driver(&driver).build().unwrap();
    let heirs = heirs.driver(&driver).probe_after(SOON).build().unwrap();
    let first = heirs.get(&peer.name()).unwrap(); // so that the driver has all that it needs
    let client = clients.get(&peer.name()).unwrap();
    let (stream, freed) = (Arc::clone(&client.stream), client.number);
    drop(client);
    assert!(is_watched(freed), "by its number, while it is idle");
    let closed = stream.lock().take();
    drop(closed);
    let heir = heirs.get(&peer.name()).unwrap();
    assert_eq!(heir.as_fd().as_raw_fd(), freed, "the lowest number that is free");
    drop((heir, first));
    // The other pool finds out that its client has closed the number, and ends what it had of it.
    assert!(clients.try_get(&peer.name()).unwrap().is_none());
    clients.drain(Deadline::after(SOON)).unwrap();
    assert_eq!(clients.stats().closed_for(CloseReason::NotOpen), 1);
    assert!(is_watched(freed), "it is the heir's");
    assert_eq!(heirs.stats().idle(), 2);
    drop(peer);
    eventually("its death is noticed", || heirs.stats().closed_for(CloseReason::PeerClosed) == 2);
}

#[test]
fn a_number_that_a_client_closed_by_itself_is_watched_for_whoever_has_it_then() {
    alone(
        "watches::a_number_that_a_client_closed_by_itself_is_watched_for_whoever_has_it_then",
        || {
            let _watchdog = watchdog();
            assert_is_told(tcp());
            assert_is_told(tcp().portable_watch(true));
            assert_is_told(Pool::builder(Foreign::always(Show::Socket)));
            assert_is_told(Pool::builder(Foreign::always(Show::Number)));
        },
    );
}

/// Of two connections that outlive their pool one is closed and one detached, while the driver goes
/// on. Of both there are duplicates, which would keep a registration alive.
fn assert_outlives<C: Connector<Key = Address>>(builder: Builder<C>)
where
    C::Conn: AsFd,
{
    let (server, driver) = (Server::echo(), Driver::new());
    let other = tcp().driver(&driver).build().unwrap();
    ask(&mut other.get(&server.name()).unwrap()).unwrap();
    let pool = builder.driver(&driver).build().unwrap();
    let held = [pool.get(&server.name()).unwrap(), pool.get(&server.name()).unwrap()];
    let duplicates = held.each_ref().map(|conn| conn.as_fd().try_clone_to_owned().unwrap());
    let numbers = held.each_ref().map(|conn| conn.as_fd().as_raw_fd());
    drop(pool);
    let is_watched_in_use = numbers.map(is_watched);
    assert_eq!(is_watched_in_use, [true; 2], "or there would be nothing to test");
    let [closed, detached] = held;
    drop(closed);
    // A foreign one is closed by another thread, if there is one left.
    eventually("closed: it is watched no more", || !is_watched(numbers[0]));
    let detached = PooledConn::detach(detached);
    assert!(!is_watched(numbers[1]), "detached: at once");
    server.hang_up();
    eventually("others are told of their own", || other.stats().idle() == 0);
    await_loop(&driver);
    drop((detached, duplicates));
}

#[test]
fn what_outlives_its_pool_is_watched_no_more_once_it_is_closed_or_detached() {
    alone(
        "watches::what_outlives_its_pool_is_watched_no_more_once_it_is_closed_or_detached",
        || {
            let _watchdog = watchdog();
            assert_outlives(tcp());
            assert_outlives(Pool::builder(Foreign::always(Show::Socket)));
        },
    );
}
