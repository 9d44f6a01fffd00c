//! Bytes that nobody asked for never reach a user; a greeting does.

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use crossbeam_channel::{bounded, unbounded};
use warmline::{
    Address, BoxError, CloseReason, Connector, Deadline, Driver, Opening, Plan, Pool, PooledConn,
    Watch,
};

use crate::support::foreign::{Client, Foreign, Show};
use crate::support::server::Server;
use crate::support::{Diary, SOON, ask, await_loop, both_ways, eventually, tcp, watchdog};

both_ways! {
    bytes_that_come_while_a_connection_is_idle_never_reach_a_user,
    a_greeting_waits_for_the_first_user_and_later_words_do_not,
}

/// Returns once `count` bytes are there that nobody has read.
fn await_unread(socket: &OwnedFd, count: usize) {
    let flags = rustix::net::RecvFlags::PEEK | rustix::net::RecvFlags::DONTWAIT;
    eventually("bytes come", || {
        let mut bytes = [0; 16];
        rustix::net::recv(socket, &mut bytes[..], flags).is_ok_and(|(_, here)| here >= count)
    });
}

fn bytes_that_come_while_a_connection_is_idle_never_reach_a_user(portably: bool) {
    let _watchdog = watchdog();
    let (server, tell) = Server::speaks_late();
    let diary = Diary::default();
    let builder = tcp().portable_watch(portably).probe_after(Duration::ZERO);
    let pool = builder.observer(diary.clone()).build().unwrap();
    for round in 1..=3 {
        let mut conn = pool.get(&server.name()).unwrap();
        assert!(!PooledConn::is_reused(&conn));
        ask(&mut conn).unwrap();
        let twin = conn.as_fd().try_clone_to_owned().unwrap();
        drop(conn);
        assert_eq!(pool.stats().idle(), 1);
        tell.send(()).unwrap();
        await_unread(&twin, 4);
        if portably {
            diary.reasons_of(round); // by itself, before anybody asks
        }
        // Otherwise the next checkout finds out.
    }
    drop(pool.get(&server.name()).unwrap());
    assert_eq!(diary.reasons(), [CloseReason::StrayBytes; 3]);
    server.assert_accepted(4);
}

fn a_greeting_waits_for_the_first_user_and_later_words_do_not(portably: bool) {
    let _watchdog = watchdog();
    let (greeted, greetings) = bounded(1);
    let (tell, told) = unbounded::<()>();
    let server = Server::scripted(move |peer| {
        peer.write_all(b"hello")?;
        greeted.send(()).unwrap();
        let request = peer.take(4)?;
        peer.write_all(&request)?;
        peer.wait(&told)?;
        peer.write_all(b"hello again")?;
        peer.stay_silent()
    });
    let (diary, driver) = (Diary::default(), Driver::new());
    let builder = tcp().driver(&driver).portable_watch(portably).probe_after(Duration::ZERO);
    let pool = builder.observer(diary.clone()).build().unwrap();
    assert_eq!(pool.endpoint(&server.name()).unwrap().warm(1, SOON).unwrap(), 1);
    greetings.recv().unwrap();
    await_loop(&driver);
    let mut conn = pool.get(&server.name()).unwrap();
    let mut greeting = [0; 5];
    conn.read_exact(&mut greeting).unwrap();
    assert_eq!(&greeting, b"hello");
    ask(&mut conn).unwrap();
    let twin = conn.as_fd().try_clone_to_owned().unwrap();
    drop(conn);
    assert_eq!((diary.reasons(), pool.stats().opened()), (Vec::new(), 1));
    tell.send(()).unwrap();
    await_unread(&twin, 11);
    if portably {
        diary.reasons_of(1);
    }
    // Held: its greeting is unread, and would end it as well.
    let next = pool.get(&server.name()).unwrap();
    assert!(!PooledConn::is_reused(&next));
    assert_eq!(diary.reasons(), [CloseReason::StrayBytes]);
}

/// A client that shows a number alone, and has a check that does not read.
struct Checked(Foreign);

impl Connector for Checked {
    type Key = Address;
    type Conn = Client;

    fn plan(&self, key: &Address) -> Plan {
        self.0.plan(key)
    }

    fn open(&self, key: &Address, opening: &mut Opening) -> Result<Client, BoxError> {
        self.0.open(key, opening)
    }

    fn watch<'c>(&self, conn: &'c Client) -> Watch<'c> {
        self.0.watch(conn)
    }

    fn has_check(&self) -> bool {
        true
    }

    fn check(&self, _: &mut Client, _: Deadline) -> Result<(), BoxError> {
        Ok(())
    }
}

#[test]
fn a_check_before_the_first_use_does_not_make_a_greeting_stray_bytes() {
    let _watchdog = watchdog();
    let (greeted, greetings) = bounded(1);
    let server = Server::scripted(move |peer| {
        peer.write_all(b"hello")?;
        greeted.send(()).unwrap();
        peer.stay_silent()
    });
    for _ in 0..20 {
        let driver = Driver::new();
        let builder = Pool::builder(Checked(Foreign::always(Show::Number))).driver(&driver);
        let pool = builder.check_after(Duration::ZERO).build().unwrap();
        let endpoint = pool.endpoint(&server.name()).unwrap();
        assert_eq!(endpoint.warm(1, SOON).unwrap(), 1);
        greetings.recv().unwrap();
        await_loop(&driver);
        assert!(endpoint.try_get().is_none(), "it is checked first");
        eventually("the check has ended", || endpoint.stats().checking() == 0);
        await_loop(&driver);
        let mut conn = endpoint.get_timeout(SOON).unwrap();
        let mut greeting = [0; 5];
        conn.read_exact(&mut greeting).unwrap();
        assert_eq!((&greeting, pool.stats().opened()), (b"hello", 1));
    }
}
