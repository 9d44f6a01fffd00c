//! No descriptor is lost, whatever happens.

use std::fs::File;
use std::io::{Read, Write};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use warmline::{
    Address, BoxError, Closed, Connector, Deadline, ErrorKind, Failure, Observer, Opening, Plan,
    Pool, PooledConn, Reset, Socket, TcpConnector,
};

use crate::alone;
use crate::support::faults::{BlackHole, Refusing};
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
