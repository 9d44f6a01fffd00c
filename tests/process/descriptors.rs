//! No descriptor is lost, whatever happens.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use warmline::{
    Address, BoxError, CloseReason, Closed, Connector, Deadline, Driver, ErrorKind, Failure,
    Observer, Opening, Plan, Pool, PooledConn, Reset, Socket, TcpConnector,
};

use crate::alone;
use crate::support::faults::{BlackHole, Refusing};
use crate::support::foreign::Spread;
use crate::support::server::Server;
use crate::support::{SOON, ask, assert_empty, eventually, tcp, watchdog};

fn open_descriptors() -> usize {
    // One of them is the one that reads the folder.
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Runs `body` and then waits until there are as many descriptors as before.
fn loses_none(body: impl FnOnce()) {
    let before = open_descriptors();
    body();
    eventually(&format!("{before} descriptors, as before"), || open_descriptors() == before);
}

#[test]
fn no_way_to_use_a_connection_loses_its_descriptor() {
    alone("descriptors::no_way_to_use_a_connection_loses_its_descriptor", || {
        let _watchdog = watchdog();
        loses_none(|| {
            let server = Server::echo();
            let pool = tcp().max_per_endpoint(4).build().unwrap();
            for _ in 0..50 {
                let mut conn = pool.get(&server.name()).unwrap();
                ask(&mut conn).unwrap();
                PooledConn::discard(conn);
                pool.get(&server.name()).unwrap().write_all(b"unfinished").unwrap();
                drop(PooledConn::detach(pool.get(&server.name()).unwrap()));
                ask(&mut pool.get(&server.name()).unwrap()).unwrap();
                server.hang_up();
                let _gone = ask(&mut pool.get(&server.name()).unwrap());
                pool.evict_all();
            }
            let held = [pool.get(&server.name()).unwrap(), pool.get(&server.name()).unwrap()];
            pool.get_timeout(&server.name(), Duration::from_millis(1)).map(drop).unwrap();
            drop(pool);
            drop(held);
        });
    });
}

#[test]
fn connects_that_fail_lose_no_descriptor() {
    alone("descriptors::connects_that_fail_lose_no_descriptor", || {
        let _watchdog = watchdog();
        loses_none(|| {
            let (refusing, hole) = (Refusing::new(), BlackHole::new());
            let pool = tcp().connect_timeout(Duration::from_millis(40)).build().unwrap();
            while pool.stats().connects_failed() < 20 {
                pool.get(&refusing.name()).unwrap_err();
                pool.get(&hole.name()).unwrap_err();
                pool.get_timeout(&hole.name(), Duration::from_millis(1)).unwrap_err();
            }
            drop(pool);
        });
    });
}

/// Waits for a greeting, and then for an answer on every return.
struct Polite;

impl Connector for Polite {
    type Key = Address;
    type Conn = Socket;

    fn plan(&self, key: &Address) -> Plan {
        Plan::addrs([key.ip().unwrap()])
    }

    fn open(&self, _: &Address, opening: &mut Opening) -> Result<Socket, BoxError> {
        let mut socket = opening.take_socket()?;
        socket.read_exact(&mut [0; 1])?;
        Ok(socket)
    }

    fn socket<'c>(&self, conn: &'c mut Socket) -> Option<&'c mut Socket> {
        Some(conn)
    }

    fn reset(&self, _: &mut Socket) -> Reset {
        Reset::Later
    }

    fn settle(&self, conn: &mut Socket, _: Deadline) -> Result<(), BoxError> {
        conn.write_all(b"?")?;
        conn.read_exact(&mut [0; 1])?;
        Ok(())
    }
}

#[test]
fn logins_and_settlings_that_are_interrupted_lose_no_descriptor() {
    alone("descriptors::logins_and_settlings_that_are_interrupted_lose_no_descriptor", || {
        let _watchdog = watchdog();
        loses_none(|| {
            let silent = Server::scripted(|peer| peer.stay_silent());
            let greeting = Server::scripted(|peer| {
                peer.write_all(b"!")?;
                let question = peer.take(1)?;
                peer.write_all(&question)?; // settled the first time, and never again
                peer.stay_silent()
            });
            let brief = Duration::from_millis(30);
            let builder = Pool::builder(Polite).connect_timeout(brief).settle_timeout(brief);
            let pool = builder.build().unwrap();
            while pool.stats().connects_failed() < 10 {
                pool.get_timeout(&silent.name(), SOON).unwrap_err();
            }
            eventually("settled in time, and not", || {
                drop([pool.get_timeout(&greeting.name(), SOON), pool.get(&greeting.name())]);
                greeting.accepted() > 5 && pool.stats().closed() > 4
            });
            eventually("all are settled", || pool.stats().checking() == 0);
            assert_eq!(pool.stats().abandoned(), 0, "a shutdown has ended every one");
            drop(pool);
        });
    });
}

#[test]
fn running_out_of_descriptors_is_a_local_failure_and_passes() {
    alone("descriptors::running_out_of_descriptors_is_a_local_failure_and_passes", || {
        let _watchdog = watchdog();
        let listening = Refusing::new();
        listening.listen();
        let pool = Pool::<TcpConnector>::tcp();
        let before = getrlimit(Resource::Nofile);
        let most = Rlimit { current: Some(64), maximum: before.maximum };
        setrlimit(Resource::Nofile, most).unwrap();
        let mut files: Vec<_> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
        assert!(files.len() > 10);
        let error = pool.get_timeout(&listening.name(), SOON).unwrap_err();
        assert_eq!((error.kind(), error.failure()), (ErrorKind::Connect, Some(Failure::Local)));
        assert_empty(&pool.stats());

        drop(files.split_off(5));
        eventually("it works again", || pool.get_timeout(&listening.name(), SOON).is_ok());
        assert_eq!(pool.stats().idle(), 1);
    });
}

#[test]
fn with_some_in_use_running_out_of_descriptors_only_makes_others_wait() {
    alone(
        "descriptors::with_some_in_use_running_out_of_descriptors_only_makes_others_wait",
        || {
            let _watchdog = watchdog();
            let listening = Refusing::new();
            listening.listen();
            let pool = Pool::<TcpConnector>::tcp();
            let held = pool.get(&listening.name()).unwrap();
            let before = getrlimit(Resource::Nofile);
            let most = Rlimit { current: Some(64), maximum: before.maximum };
            setrlimit(Resource::Nofile, most).unwrap();
            let files: Vec<_> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
            std::thread::scope(|scope| {
                let waits = scope.spawn(|| pool.get_timeout(&listening.name(), SOON).map(drop));
                eventually("its connect fails", || pool.stats().connects_failed() > 0);
                drop(held);
                waits.join().unwrap().expect("what came back serves it");
            });
            drop(files);
            assert_eq!(pool.stats().total(), 1);
        },
    );
}

/// Counts this process's descriptors when it is told of an end.
struct Counts(crossbeam_channel::Sender<usize>);

impl Observer for Counts {
    fn closed(&self, _: &Closed) {
        self.0.send(open_descriptors()).unwrap();
    }
}

#[test]
fn a_descriptor_is_closed_by_the_time_its_end_is_told() {
    alone("descriptors::a_descriptor_is_closed_by_the_time_its_end_is_told", || {
        let _watchdog = watchdog();
        // What connects here is never accepted, so that only one side's descriptors count.
        let listening = Refusing::new();
        listening.listen();
        let (send, counts) = crossbeam_channel::bounded(8);
        let pool = tcp().observer(Counts(send)).build().unwrap();
        PooledConn::discard(pool.get(&listening.name()).unwrap()); // the driver runs
        let before = counts.recv().unwrap();
        let held = [pool.get(&listening.name()).unwrap(), pool.get(&listening.name()).unwrap()];
        assert_eq!(open_descriptors(), before + 2);
        held.into_iter().for_each(PooledConn::discard);
        assert_eq!(counts.try_iter().collect::<Vec<_>>(), [before + 1, before]);
    });
}

#[test]
fn a_descriptor_of_a_connection_that_died_is_closed_by_the_time_its_end_is_told() {
    alone(
        "descriptors::a_descriptor_of_a_connection_that_died_is_closed_by_the_time_its_end_is_told",
        || {
            let _watchdog = watchdog();
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let name = listener.local_addr().unwrap().to_string();
            for is_portable in [false, true] {
                let (send, counts) = crossbeam_channel::bounded(8);
                let builder = tcp().portable_watch(is_portable).observer(Counts(send));
                let pool = builder.build().unwrap();
                PooledConn::discard(pool.get(&name).unwrap()); // the driver runs
                drop(listener.accept().unwrap());
                let before = counts.recv().unwrap();
                for _ in 0..20 {
                    drop(pool.get(&name).unwrap());
                    let (accepted, _) = listener.accept().unwrap();
                    assert_eq!(open_descriptors(), before + 2);
                    drop(accepted);
                    assert_eq!(counts.recv().unwrap(), before);
                }
                assert_eq!(pool.stats().closed_for(CloseReason::PeerClosed), 20);
            }
        },
    );
}

#[test]
fn a_thousand_deaths_at_once_lose_no_descriptor() {
    alone("descriptors::a_thousand_deaths_at_once_lose_no_descriptor", || {
        let _watchdog = watchdog();
        for is_portable in [false, true] {
            loses_none(|| {
                let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                let name = listener.local_addr().unwrap().to_string();
                let builder = tcp().max_total(1_000).max_per_endpoint(1_000).max_idle(1_000);
                let builder = builder.max_connecting(100).portable_watch(is_portable);
                let pool = builder.build().unwrap();
                let endpoint = pool.endpoint(&name).unwrap();
                let accepted: Vec<_> = std::thread::scope(|scope| {
                    let accepts = || (0..1_000).map(|_| listener.accept().unwrap()).collect();
                    let accepted = scope.spawn(accepts);
                    assert_eq!(endpoint.warm(1_000, SOON).unwrap(), 1_000);
                    accepted.join().unwrap()
                });
                let before = open_descriptors();
                drop(accepted);
                eventually("all deaths are noticed", || endpoint.stats().total() == 0);
                eventually("all are closed", || open_descriptors() == before - 2_000);
                assert_eq!(endpoint.stats().closed_for(CloseReason::PeerClosed), 1_000);
            });
        }
    });
}

#[test]
fn a_storm_of_connects_loses_no_descriptor() {
    alone("descriptors::a_storm_of_connects_loses_no_descriptor", || {
        let _watchdog = watchdog();
        loses_none(|| {
            let (refusing, hole) = (Refusing::new(), BlackHole::new());
            let resetting = Server::scripted(|peer| peer.reset());
            let sound = Server::echo();
            let driver = Driver::new();
            for round in 0..12 {
                let names = [refusing.name(), hole.name(), resetting.name(), sound.name()];
                let builder = tcp().driver(&driver).portable_watch(round % 2 == 1);
                let pool = builder.connect_timeout(Duration::from_millis(60)).build().unwrap();
                let addresses = vec![hole.address(), refusing.address(), sound.address()];
                let several = Pool::builder(Spread(addresses)).driver(&driver).build().unwrap();
                let several = several.only().unwrap();
                std::thread::scope(|scope| {
                    for turn in 0..16 {
                        let (pool, several, names) = (&pool, &several, &names);
                        scope.spawn(move || {
                            let brief = Duration::from_millis(if turn % 2 == 0 { 1 } else { 100 });
                            for name in names {
                                // Some answer, some fail, and some are given up before they do.
                                let _either = pool.get_timeout(name, brief);
                            }
                            // Those that are silent lose against the one that answers.
                            drop(several.get_timeout(SOON).expect("one of them answers"));
                        });
                    }
                });
                if round % 3 == 0 {
                    pool.close(); // with attempts under way
                }
            }
        });
    });
}

#[test]
fn a_drivers_own_descriptors_are_gone_with_its_last_handle() {
    alone("descriptors::a_drivers_own_descriptors_are_gone_with_its_last_handle", || {
        let _watchdog = watchdog();
        let listening = Refusing::new();
        listening.listen();
        let before = open_descriptors();
        for round in 0..30 {
            let driver = Driver::new();
            let pools = [0, 1].map(|at| {
                let builder = tcp().driver(&driver).portable_watch((round + at) % 2 == 0);
                builder.build().unwrap()
            });
            let held = pools.each_ref().map(|pool| pool.get(&listening.name()).unwrap());
            drop(pools[0].get(&listening.name()).unwrap());
            drop(driver);
            drop(pools);
            // At once: the drop waits for the threads that have them.
            assert_eq!(open_descriptors(), before + 2, "those of the guards");
            drop(held);
            assert_eq!(open_descriptors(), before);
        }
    });
}

/// Its `open` has a socket, and hangs until this is closed.
struct Hanging(Receiver<()>);

impl Connector for Hanging {
    type Key = Address;
    type Conn = Socket;

    fn plan(&self, key: &Address) -> Plan {
        Plan::addrs([key.ip().unwrap()])
    }

    fn open(&self, _: &Address, opening: &mut Opening) -> Result<Socket, BoxError> {
        let _closed = self.0.recv();
        opening.take_socket()
    }
}

#[test]
fn attempts_whose_deadline_passes_in_the_crews_queue_hold_no_sockets() {
    alone("descriptors::attempts_whose_deadline_passes_in_the_crews_queue_hold_no_sockets", || {
        let _watchdog = watchdog();
        let peer = Refusing::new(); // it takes no descriptors on its side
        peer.listen();
        let (gate, gated) = bounded::<()>(0);
        loses_none(|| {
            let most = 40;
            let builder = Pool::builder(Hanging(gated)).max_per_endpoint(most).max_connecting(most);
            let pool = builder.connect_timeout(Duration::from_millis(50)).build().unwrap();
            let before = open_descriptors();
            std::thread::scope(|scope| {
                for _ in 0..most {
                    scope.spawn(|| {
                        while pool.stats().connects_failed() < 60 {
                            pool.get_timeout(&peer.name(), SOON).unwrap_err();
                        }
                    });
                }
                eventually("attempts fail", || {
                    // A socket and its duplicate for each that has a permit or is abandoned, and
                    // what the driver needs.
                    let own = open_descriptors() - before;
                    assert!(own <= 2 * (most + 16) + 16, "{own} descriptors; {}", pool.stats());
                    pool.stats().connects_failed() >= 60
                });
            });
            drop(gate);
        });
    });
}
