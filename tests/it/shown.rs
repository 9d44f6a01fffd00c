//! What connectors show of their connections to be watched: a socket, a number, nothing, a panic.

use std::io::{Read, Write};
use std::sync::atomic::Ordering;
use std::time::Duration;

use warmline::{Builder, CloseReason, Deadline, Driver, ErrorKind, Failure, Pool, PooledConn};

use crate::support::foreign::{Client, Foreign, Show};
use crate::support::server::Server;
use crate::support::{
    Diary, SOON, ask, assert_balanced, assert_empty, await_loop, both_ways, eventually, watchdog,
};

both_ways! {
    the_death_of_an_idle_connection_is_noticed_by_its_number_alone,
    bytes_on_a_connection_of_which_only_the_number_is_known_end_it,
    a_connection_with_nothing_to_watch_is_left_as_it_is,
    a_panic_at_any_look_at_what_to_watch_costs_one_connection_at_most,
}

fn pool(portably: bool, foreign: Foreign) -> Builder<Foreign> {
    Pool::builder(foreign).portable_watch(portably)
}

fn the_death_of_an_idle_connection_is_noticed_by_its_number_alone(portably: bool) {
    let _watchdog = watchdog();
    for show in [Show::Number, Show::Socket] {
        let (server, diary, driver) = (Server::echo(), Diary::default(), Driver::new());
        let builder = pool(portably, Foreign::always(show)).driver(&driver);
        let pool = builder.observer(diary.clone()).build().unwrap();
        for _ in 0..50 {
            ask(&mut pool.get(&server.name()).unwrap()).unwrap();
        }
        assert_eq!((pool.stats().idle(), pool.stats().opened()), (1, 1), "{show:?}");
        let held = pool.get(&server.name()).unwrap();
        drop(pool.get(&server.name()).unwrap());
        eventually("the server has both", || server.open() == 2);
        server.half_close();
        assert_eq!(diary.reasons_of(1), [CloseReason::PeerClosed]);
        await_loop(&driver);
        assert_eq!((pool.stats().in_use(), pool.stats().closed()), (1, 1), "{show:?}");
        drop(held);
        assert_eq!(diary.reasons_of(2), [CloseReason::PeerClosed; 2]);
        eventually("both descriptors are closed", || server.open() == 0);
        assert_empty(&pool.stats());
    }
}

fn bytes_on_a_connection_of_which_only_the_number_is_known_end_it(portably: bool) {
    let _watchdog = watchdog();
    let (server, tell) = Server::speaks_late();
    let diary = Diary::default();
    let builder = pool(portably, Foreign::always(Show::Number)).observer(diary.clone());
    let pool = builder.build().unwrap();
    ask(&mut pool.get(&server.name()).unwrap()).unwrap();
    tell.send(()).unwrap();
    assert_eq!(diary.reasons_of(1), [CloseReason::StrayBytes]);
    eventually("its descriptor is closed", || server.open() == 0);
    assert_eq!((pool.stats().total(), pool.stats().checkouts()), (0, 1));
}

fn a_connection_with_nothing_to_watch_is_left_as_it_is(portably: bool) {
    let _watchdog = watchdog();
    let (server, driver) = (Server::echo(), Driver::new());
    let builder = pool(portably, Foreign::always(Show::Nothing)).driver(&driver);
    let pool = builder.build().unwrap();
    ask(&mut pool.get(&server.name()).unwrap()).unwrap();
    server.hang_up();
    await_loop(&driver);
    assert_eq!((pool.stats().idle(), pool.stats().closed()), (1, 0));
    let mut conn = pool.get(&server.name()).unwrap();
    assert!(PooledConn::is_reused(&conn), "nothing tells the pool");
    assert_eq!(conn.read(&mut [0]).unwrap(), 0);
    PooledConn::discard(conn);
    ask(&mut pool.get(&server.name()).unwrap()).unwrap();
}

/// Uses a pool in every way while the `nth` look at what to watch panics. Returns whether there
/// was one.
fn go_through_everything(portably: bool, show: Show, nth: usize) -> bool {
    let (server, diary) = (Server::echo(), Diary::default());
    let foreign = Foreign::new(move |before| if before == nth { Show::Panic } else { show });
    let asked = foreign.asked();
    let builder = pool(portably, foreign).max_per_endpoint(2).probe_after(Duration::ZERO);
    let pool = builder.observer(diary.clone()).build().unwrap();
    let get = || {
        let mut got = None;
        eventually("a connection", || {
            got = pool.get_timeout(&server.name(), SOON).ok();
            got.is_some()
        });
        got.unwrap()
    };
    let uses: [fn(PooledConn<Foreign>); 5] = [
        drop,
        |mut conn| ask(&mut conn).unwrap(),
        PooledConn::discard,
        |conn| drop::<Client>(PooledConn::detach(conn)),
        drop,
    ];
    for usage in uses {
        let held = [get(), get()];
        held.into_iter().for_each(usage);
        assert_balanced(&pool.stats());
    }
    pool.evict_all();
    drop([get(), get()]);
    pool.drain(Deadline::after(SOON)).unwrap();
    assert_empty(&pool.stats());
    eventually("every descriptor is closed", || server.open() == 0);
    let closed = usize::try_from(pool.stats().closed()).unwrap();
    assert_eq!(diary.reasons_of(closed).len(), closed, "each end is told once");
    asked.load(Ordering::SeqCst) > nth
}

fn a_panic_at_any_look_at_what_to_watch_costs_one_connection_at_most(portably: bool) {
    let _watchdog = watchdog();
    for show in [Show::Number, Show::Socket, Show::Nothing] {
        let looks = (0..).take_while(|&nth| go_through_everything(portably, show, nth)).count();
        // At least at each opening and, of what is watched, at each end.
        assert!(looks >= if show == Show::Nothing { 6 } else { 12 }, "{show:?}: {looks}");
    }
}

#[test]
fn a_panic_at_the_opening_fails_that_attempt_and_says_so() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let foreign = Foreign::new(|nth| if nth == 0 { Show::Panic } else { Show::Socket });
    let pool = Pool::builder(foreign).build().unwrap();
    let error = pool.get(&server.name()).unwrap_err();
    assert_eq!((error.kind(), error.failure()), (ErrorKind::Connect, Some(Failure::Panic)));
    assert!(error.to_string().contains("watch was told to panic"), "{error}");
    eventually("its socket is closed", || server.accepted() == 1 && server.open() == 0);
    assert_empty(&pool.stats());
    eventually("the next works", || pool.get(&server.name()).is_ok());
}

#[test]
fn a_panic_at_checkout_or_return_is_the_reason_of_the_end() {
    let _watchdog = watchdog();
    // By number alone it is looked at when it is opened, goes out, and comes back.
    for nth in 1..=3 {
        let (server, diary) = (Server::echo(), Diary::default());
        let show = move |before| if before == nth { Show::Panic } else { Show::Number };
        let builder = Pool::builder(Foreign::new(show)).observer(diary.clone());
        let pool = builder.build().unwrap();
        let mut served = 0;
        while diary.reasons().is_empty() && served < 3 {
            ask(&mut pool.get_timeout(&server.name(), SOON).unwrap()).unwrap();
            served += 1;
        }
        assert_eq!(diary.reasons_of(1), [CloseReason::ConnectorPanicked], "look {nth}");
        ask(&mut pool.get(&server.name()).unwrap()).unwrap();
        eventually("its descriptor is closed", || server.open() == 1);
        assert_balanced(&pool.stats());
    }
}

#[test]
fn a_panic_when_the_watch_ends_keeps_no_connection_open() {
    let _watchdog = watchdog();
    let (server, diary) = (Server::echo(), Diary::default());
    // Of a socket it is asked when it is opened and when it ends.
    let foreign = Foreign::new(|nth| if nth % 2 == 1 { Show::Panic } else { Show::Socket });
    let pool = Pool::builder(foreign).observer(diary.clone()).build().unwrap();
    let mut conn = pool.get(&server.name()).unwrap();
    ask(&mut conn).unwrap();
    PooledConn::discard(conn);
    assert_eq!(diary.reasons_of(1), [CloseReason::Discarded]);
    eventually("its descriptor is closed", || server.open() == 0);
    let mut kept = PooledConn::detach(pool.get(&server.name()).unwrap());
    kept.write_all(b"mine").unwrap();
    kept.read_exact(&mut [0; 4]).unwrap();
    assert_eq!((pool.stats().detached(), pool.stats().total()), (1, 0));
}
