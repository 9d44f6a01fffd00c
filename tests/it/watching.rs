//! The death of an idle connection is noticed when it happens, not when somebody asks for it.

use std::io::{self, Read, Write};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, unbounded};
use warmline::{
    Builder, CloseReason, Connector, Driver, ErrorKind, Name, Pool, PooledConn, TcpConnector,
    UnixConnector,
};

use crate::support::server::{Crowd, Peer, Server};
use crate::support::{
    Diary, SOON, ask, assert_balanced, await_loop, both_ways, eventually, tcp, watchdog,
};

both_ways! {
    an_idle_connection_is_closed_at_once_however_its_server_ends_it,
    a_connection_opened_ahead_of_need_and_never_used_is_closed_as_well,
    a_connection_in_use_is_its_users_whatever_its_server_does,
    one_that_was_not_touched_is_closed_on_return_if_its_server_has_hung_up,
    a_waiter_never_gets_one_whose_server_has_hung_up,
    what_died_is_replaced_without_any_traffic,
    a_thousand_that_die_together_are_all_closed_and_the_pool_works_on,
    a_server_that_was_restarted_is_no_trouble_to_anybody,
    exchanges_are_no_events,
}

fn pool(portably: bool) -> Builder<TcpConnector> {
    tcp().portable_watch(portably)
}

/// How a server ends a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Farewell,
    Reset,
    HalfClose,
    LastWords,
}

impl End {
    const ALL: [Self; 4] = [Self::Farewell, Self::Reset, Self::HalfClose, Self::LastWords];

    fn act(self, peer: &mut Peer) -> io::Result<()> {
        match self {
            Self::Farewell => peer.close(),
            Self::Reset => peer.reset()?,
            // Its script ends only when the other side closes, too.
            Self::HalfClose => peer.half_close().and_then(|()| peer.stay_silent())?,
            Self::LastWords => {
                peer.write_all(b"too late")?;
                peer.half_close().and_then(|()| peer.stay_silent())?;
            }
        }
        Ok(())
    }
}

/// Answers once; then ends the connection as it is told to.
fn ending(told: Receiver<End>) -> impl Fn(&mut Peer) -> io::Result<()> + Send + Sync {
    move |peer| {
        let request = peer.take(4)?;
        peer.write_all(&request)?;
        peer.wait(&told)?.act(peer)
    }
}

/// A connection that has become idle is told to end; nobody asks for it.
fn assert_noticed<C: Connector, N: Name<C::Key> + ?Sized>(
    builder: Builder<C>,
    name: &N,
    (tell, end): (&Sender<End>, End),
    server: &Server,
) -> CloseReason
where
    PooledConn<C>: Read + Write,
{
    let diary = Diary::default();
    let pool = builder.observer(diary.clone()).build().unwrap();
    ask(&mut pool.get(name).unwrap()).unwrap();
    assert_eq!(pool.stats().idle(), 1);
    tell.send(end).unwrap();
    let reasons = diary.reasons_of(1);
    let stats = pool.stats();
    let [reason] = *reasons else { panic!("{end:?}: {reasons:?}") };
    assert_eq!((stats.total(), stats.checkouts(), stats.closed_for(reason)), (0, 1, 1), "{end:?}");
    assert_balanced(&stats);
    eventually("its descriptor is closed", || server.open() == 0);
    reason
}

fn an_idle_connection_is_closed_at_once_however_its_server_ends_it(portably: bool) {
    let _watchdog = watchdog();
    let folder = tempfile::tempdir().unwrap();
    for end in End::ALL {
        let (tell, told) = unbounded();
        let server = Server::scripted(ending(told.clone()));
        let on_tcp = assert_noticed(pool(portably), &server.name(), (&tell, end), &server);
        let path = folder.path().join(format!("{end:?}"));
        let server = Server::unix(&path, ending(told));
        let builder = Pool::builder(UnixConnector::new()).portable_watch(portably);
        let on_unix = assert_noticed(builder, &path, (&tell, end), &server);
        for reason in [on_tcp, on_unix] {
            // Where bytes are news as well, they may be seen before the farewell is.
            let may_be_stray = portably && end == End::LastWords;
            let is_stray = reason == CloseReason::StrayBytes;
            assert!(reason == CloseReason::PeerClosed || may_be_stray && is_stray, "{end:?}");
        }
    }
}

fn a_connection_opened_ahead_of_need_and_never_used_is_closed_as_well(portably: bool) {
    let _watchdog = watchdog();
    let server = Server::echo();
    let diary = Diary::default();
    let pool = pool(portably).observer(diary.clone()).build().unwrap();
    assert_eq!(pool.endpoint(&server.name()).unwrap().warm(3, SOON).unwrap(), 3);
    eventually("the server has them", || server.open() == 3);
    server.hang_up();
    assert_eq!(diary.reasons_of(3), [CloseReason::PeerClosed; 3]);
    assert_eq!((pool.stats().total(), pool.stats().checkouts()), (0, 0));
}

fn a_connection_in_use_is_its_users_whatever_its_server_does(portably: bool) {
    let _watchdog = watchdog();
    let server = Server::scripted(|peer| {
        peer.take(4)?;
        peer.write_all(b"ping, and more")?;
        peer.half_close()?;
        peer.stay_silent()
    });
    let (diary, driver) = (Diary::default(), Driver::new());
    let pool = pool(portably).driver(&driver).observer(diary.clone()).build().unwrap();
    let mut held = pool.get(&server.name()).unwrap();
    ask(&mut held).unwrap();
    await_loop(&driver);
    assert_eq!((pool.stats().in_use(), pool.stats().closed()), (1, 0));
    let mut rest = String::new();
    held.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, ", and more", "what was said before the farewell is there to be read");
    held.write_all(b"one more").expect("the other side listens still");
    assert_eq!(diary.reasons(), []);
    drop(held);
    assert_eq!(diary.reasons(), [CloseReason::PeerClosed]);
    eventually("its descriptor is closed", || server.open() == 0);
}

fn one_that_was_not_touched_is_closed_on_return_if_its_server_has_hung_up(portably: bool) {
    let _watchdog = watchdog();
    let server = Server::echo();
    let (diary, driver) = (Diary::default(), Driver::new());
    let pool = pool(portably).driver(&driver).observer(diary.clone()).build().unwrap();
    ask(&mut pool.get(&server.name()).unwrap()).unwrap();
    let held = pool.get(&server.name()).unwrap();
    server.half_close();
    await_loop(&driver);
    assert_eq!((pool.stats().in_use(), pool.stats().closed()), (1, 0));
    drop(held);
    // The portable way learns of it when it looks again, a moment later.
    let count = usize::from(portably);
    assert_eq!(diary.reasons_of(count).len().max(1), 1);
    assert_eq!(diary.reasons(), [CloseReason::PeerClosed]);
    assert_eq!(pool.stats().total(), 0);
}

fn a_waiter_never_gets_one_whose_server_has_hung_up(portably: bool) {
    let _watchdog = watchdog();
    let server = Server::echo();
    let driver = Driver::new();
    let builder = pool(portably).driver(&driver).max_per_endpoint(1).fair_after(Duration::ZERO);
    let pool = builder.build().unwrap();
    let endpoint = pool.endpoint(&server.name()).unwrap();
    ask(&mut endpoint.get().unwrap()).unwrap();
    let mut held = endpoint.get().unwrap();
    if portably {
        ask(&mut held).unwrap(); // only then is it looked at on return
    }
    server.half_close();
    await_loop(&driver);
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| {
            let mut conn = endpoint.get_timeout(SOON).unwrap();
            assert!(!PooledConn::is_reused(&conn));
            ask(&mut conn)
        });
        eventually("one waits", || endpoint.stats().waiting() == 1);
        drop(held);
        waits.join().unwrap().unwrap();
    });
    assert_eq!(endpoint.stats().closed_for(CloseReason::PeerClosed), 1);
    assert_eq!(server.accepted(), 2);
    assert_balanced(&endpoint.stats());
}

fn what_died_is_replaced_without_any_traffic(portably: bool) {
    let _watchdog = watchdog();
    let server = Server::echo();
    let pool = pool(portably).min_idle(3).build().unwrap();
    let endpoint = pool.endpoint(&server.name()).unwrap();
    for generation in 1..=3 {
        eventually("three are ready", || {
            let (stats, opened) = (endpoint.stats(), 3 * generation);
            (stats.idle(), stats.opened()) == (3, opened as u64)
                && (server.open(), server.accepted()) == (3, opened)
        });
        server.hang_up();
    }
    eventually("three are ready again", || {
        let stats = endpoint.stats();
        (stats.idle(), stats.opened(), stats.closed()) == (3, 12, 9)
    });
    assert_eq!((endpoint.stats().checkouts(), endpoint.stats().connects_failed()), (0, 0));
}

fn a_thousand_that_die_together_are_all_closed_and_the_pool_works_on(portably: bool) {
    let _watchdog = watchdog();
    let count = 1000;
    if !has_descriptors_for(2 * count + 500) {
        crate::support::say("skipped: too few descriptors for a thousand connections");
        return;
    }
    let crowd = Crowd::new();
    let builder = pool(portably).max_total(count).max_per_endpoint(count).max_idle(count);
    let pool = builder.max_connecting(count).build().unwrap();
    let endpoint = pool.endpoint(&crowd.name()).unwrap();
    assert_eq!(endpoint.warm(count, SOON).unwrap(), count);
    eventually("the server has them", || crowd.kept() == count);
    let mut held: Vec<_> = (0..10).map(|_| endpoint.get().unwrap()).collect();
    crowd.hang_up();
    eventually("all that were idle are closed", || {
        assert_balanced(&endpoint.stats());
        endpoint.stats().idle() == 0
    });
    let stats = endpoint.stats();
    assert_eq!((stats.in_use(), stats.closed_for(CloseReason::PeerClosed)), (10, 990));
    for conn in &mut held {
        assert_eq!(conn.read(&mut [0]).unwrap_or_default(), 0);
    }
    drop(held);
    assert_eq!((endpoint.stats().total(), endpoint.stats().closed()), (0, 1000));
    drop(endpoint.get().unwrap());
    assert_eq!((endpoint.stats().idle(), endpoint.stats().opened()), (1, 1001));
}

/// Raises the limit of this process if it must and may.
fn has_descriptors_for(count: usize) -> bool {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let (count, limit) = (u64::try_from(count).unwrap(), getrlimit(Resource::Nofile));
    if limit.current.is_none_or(|current| current >= count) {
        return true;
    }
    let raised = Rlimit { current: Some(count), maximum: limit.maximum };
    limit.maximum.is_none_or(|most| most >= count) && setrlimit(Resource::Nofile, raised).is_ok()
}

fn a_server_that_was_restarted_is_no_trouble_to_anybody(portably: bool) {
    let _watchdog = watchdog();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let server = Server::unix(&path, Peer::echo);
    let builder = Pool::builder(UnixConnector::new()).portable_watch(portably);
    let pool = builder.build().unwrap();
    let mut held: Vec<_> = (0..4).map(|_| pool.get(&path).unwrap()).collect();
    held.iter_mut().for_each(|conn| ask(conn).unwrap());
    drop(held);
    drop(server);
    eventually("none is left", || pool.stats().closed_for(CloseReason::PeerClosed) == 4);
    std::fs::remove_file(&path).unwrap();
    let server = Server::unix(&path, Peer::echo);
    for _ in 0..4 {
        ask(&mut pool.get(&path).unwrap()).expect("nobody meets what the old one left behind");
    }
    assert_eq!((server.accepted(), pool.stats().connects_failed()), (1, 0));
    drop(server);
    eventually("none is left", || pool.stats().total() == 0);
    let error = pool.get(&path).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect, "while it is down, that is what is said");
}

fn exchanges_are_no_events(portably: bool) {
    let _watchdog = watchdog();
    let server = Server::echo();
    let pool = pool(portably).max_per_endpoint(4).checkout_timeout(SOON).build().unwrap();
    let endpoint = pool.endpoint(&server.name()).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                for _ in 0..100 {
                    ask(&mut endpoint.get().unwrap()).unwrap();
                }
            });
        }
    });
    let stats = endpoint.stats();
    assert_eq!((stats.checkouts(), stats.closed(), stats.in_use()), (600, 0, 0));
    assert!(server.accepted() <= 4);
}
