//! Running out of descriptors in the middle of connecting: said so, and passed as soon as it can be.

use std::fs::File;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use warmline::{
    Address, BoxError, CloseReason, Connector, Driver, Error, ErrorKind, Failure, Opening, Phase,
    Plan, Pool, PooledConn, Resolver, Socket, TcpConnector,
};

use crate::alone;
use crate::support::faults::{BlackHole, Refusing};
use crate::support::foreign::Spread;
use crate::support::resolver::{Answer, Script};
use crate::support::{Diary, SOON, assert_empty, eventually, tcp, watchdog};

/// Everything that this process may still open, except for so many.
fn all_but(free: usize) -> Vec<File> {
    let most = Rlimit { current: Some(128), maximum: getrlimit(Resource::Nofile).maximum };
    setrlimit(Resource::Nofile, most).unwrap();
    let mut files: Vec<_> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    assert!(files.len() >= free);
    files.truncate(files.len() - free);
    files
}

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Where connecting works, and takes a descriptor on this side only.
fn listening() -> Refusing {
    let listening = Refusing::new();
    listening.listen();
    listening
}

#[track_caller]
fn assert_names_the_cause(error: &Error, phase: Phase) {
    assert_eq!((error.kind(), error.failure()), (ErrorKind::Connect, Some(Failure::Local)));
    assert_eq!(error.phase(), Some(phase), "{error}");
    assert!(error.to_string().contains("Too many open files"), "{error}");
}

/// Attempts that may be made in the time since then: one in 50 ms, and a few more for good measure.
fn most_attempts(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap() / 50 + 5
}

#[test]
fn an_idle_connection_of_another_endpoint_is_closed_to_make_room() {
    alone("shortages::an_idle_connection_of_another_endpoint_is_closed_to_make_room", || {
        let _watchdog = watchdog();
        let (one, other, diary) = (listening(), listening(), Diary::default());
        let pool = tcp().observer(diary.clone()).build().unwrap();
        assert_eq!(pool.endpoint(&one.name()).unwrap().warm(3, SOON).unwrap(), 3);
        let files = all_but(0);
        let conn = pool.get_timeout(&other.name(), SOON);
        PooledConn::discard(conn.expect("there was something to close"));
        let next = pool.get_timeout(&other.name(), SOON);
        drop(next.expect("what was discarded has left its descriptor to it"));
        // Told on two threads, in whichever order.
        let mut reasons = diary.reasons_of(2);
        reasons.sort();
        assert_eq!(reasons, [CloseReason::Discarded, CloseReason::MadeRoom]);
        assert_eq!((pool.stats().idle(), pool.stats().connects_failed()), (3, 1));
        drop(files);
    });
}

#[test]
fn each_of_several_who_need_room_gets_it_as_long_as_there_is_any() {
    alone("shortages::each_of_several_who_need_room_gets_it_as_long_as_there_is_any", || {
        let _watchdog = watchdog();
        let one = listening();
        let others: Vec<_> = (0..4).map(|_| listening()).collect();
        let pool = tcp().build().unwrap();
        assert_eq!(pool.endpoint(&one.name()).unwrap().warm(8, SOON).unwrap(), 8);
        let files = all_but(0);
        std::thread::scope(|scope| {
            let gets = others.iter().map(|other| {
                let pool = &pool;
                scope.spawn(move || pool.get_timeout(&other.name(), SOON))
            });
            let gets: Vec<_> = gets.collect();
            let held: Vec<_> = gets.into_iter().map(|get| get.join().unwrap().unwrap()).collect();
            let stats = pool.stats();
            let made_room = stats.closed_for(CloseReason::MadeRoom);
            assert!((4..=8).contains(&made_room), "{stats}");
            assert_eq!(stats.closed(), made_room);
            assert_eq!(held.len(), 4);
        });
        drop(files);
    });
}

#[test]
fn without_descriptors_no_name_is_looked_up_again() {
    alone("shortages::without_descriptors_no_name_is_looked_up_again", || {
        let _watchdog = watchdog();
        let (one, other) = (listening(), listening());
        let script = Script::always(Answer::at(other.address()));
        let resolver = script.resolver().negative_ttl(Duration::ZERO);
        let pool = tcp().resolver(&resolver).build().unwrap();
        let _in_use = pool.get(&one.name()).unwrap();
        let files = all_but(0);
        eventually("it was tried several times", || {
            let error = pool.get_timeout("db.test:80", SOON).unwrap_err();
            assert_names_the_cause(&error, Phase::Connect);
            pool.stats().connects_failed() >= 4
        });
        drop(files);
        eventually("it gets one", || pool.get_timeout("db.test:80", SOON).is_ok());
        drop(pool.get_timeout("last.test:80", SOON).unwrap());
        assert_eq!(script.asked(), ["db.test", "last.test"]);
    });
}

#[test]
fn with_nothing_to_close_callers_learn_why_and_nobody_tries_in_a_tight_loop() {
    alone(
        "shortages::with_nothing_to_close_callers_learn_why_and_nobody_tries_in_a_tight_loop",
        || {
            let _watchdog = watchdog();
            let (one, other) = (listening(), listening());
            let pool = tcp().build().unwrap();
            let _in_use = pool.get(&one.name()).unwrap();
            let files = all_but(0);
            let began = Instant::now();
            while began.elapsed() < Duration::from_secs(1) {
                let error = pool.get_timeout(&other.name(), SOON).unwrap_err();
                assert_names_the_cause(&error, Phase::Connect);
            }
            let (failed, most) = (pool.stats().connects_failed(), most_attempts(began));
            assert!((2..=most).contains(&failed), "{failed} attempts, at most {most}");
            drop(files);
            eventually("it works again", || pool.get_timeout(&other.name(), SOON).is_ok());
        },
    );
}

#[test]
fn who_waits_through_a_shortage_tries_in_no_tight_loop_and_is_served_after_it() {
    alone(
        "shortages::who_waits_through_a_shortage_tries_in_no_tight_loop_and_is_served_after_it",
        || {
            let _watchdog = watchdog();
            let one = listening();
            let pool = tcp().build().unwrap();
            let _in_use = pool.get(&one.name()).unwrap(); // so that others wait
            let files = all_but(0);
            let began = Instant::now();
            std::thread::scope(|scope| {
                let waits = scope.spawn(|| pool.get_timeout(&one.name(), SOON).map(drop));
                std::thread::sleep(Duration::from_secs(1));
                let (failed, most) = (pool.stats().connects_failed(), most_attempts(began));
                assert!((2..=most).contains(&failed), "{failed} attempts, at most {most}");
                drop(files);
                waits.join().unwrap().expect("there are descriptors again");
            });
        },
    );
}

#[test]
fn a_driver_that_cannot_start_says_why_loses_nothing_and_starts_later() {
    alone("shortages::a_driver_that_cannot_start_says_why_loses_nothing_and_starts_later", || {
        let _watchdog = watchdog();
        let one = listening();
        let mut failed = Vec::new();
        for free in 0.. {
            let before = open_descriptors();
            let driver = Driver::new();
            let pool = Pool::builder(TcpConnector::new()).driver(&driver).build().unwrap();
            let endpoint = pool.endpoint(&one.name()).unwrap();
            let files = all_but(free);
            let results = [endpoint.get().map(drop), endpoint.warm(1, SOON).map(|_| ())];
            if results.iter().all(Result::is_ok) {
                break;
            }
            for error in results.into_iter().filter_map(Result::err) {
                assert_eq!(error.kind(), ErrorKind::Connect, "{error:?}");
                assert_eq!(error.failure(), Some(Failure::Local), "{error:?}");
                assert!(error.to_string().contains("Too many open files"), "{error}");
            }
            failed.push(free);
            assert_empty(&pool.stats());
            let is_started = format!("{driver:?}").contains("has_started: true");
            let left = all_but(0).len();
            assert!(is_started || left == free, "{free} were free, and then {left}");
            drop(files);
            eventually("it works later", || endpoint.get_timeout(SOON).is_ok());
            drop((endpoint, pool, driver));
            assert_eq!(open_descriptors(), before, "with {free} free");
        }
        assert!(failed.len() >= 2, "{failed:?}: without descriptors it must fail");
    });
}

/// Has a thread of the crew finish what the loop connects.
#[derive(Default)]
struct Foreign {
    /// A close takes until this says so.
    may_close: Option<Receiver<()>>,
}

impl Connector for Foreign {
    type Key = Address;
    type Conn = Socket;

    fn plan(&self, key: &Address) -> Plan {
        Plan::addrs([key.ip().unwrap()])
    }

    fn open(&self, _: &Address, opening: &mut Opening) -> Result<Socket, BoxError> {
        opening.take_socket()
    }

    fn close(&self, conn: Socket, _: CloseReason) {
        let _now = self.may_close.as_ref().map(Receiver::recv);
        drop(conn);
    }
}

/// A pool with so many idle foreign connections to somewhere else.
fn foreign(connector: Foreign, idle: usize, elsewhere: &Refusing) -> Pool<Foreign> {
    let pool = Pool::builder(connector).build().unwrap();
    let endpoint = pool.endpoint(&elsewhere.name()).unwrap();
    assert_eq!(endpoint.warm(idle, SOON).unwrap(), idle);
    pool
}

#[test]
fn a_socket_that_cannot_be_duplicated_fails_as_local_and_its_pool_recovers() {
    alone(
        "shortages::a_socket_that_cannot_be_duplicated_fails_as_local_and_its_pool_recovers",
        || {
            let _watchdog = watchdog();
            let (one, other) = (listening(), listening());
            let pool = foreign(Foreign::default(), 1, &one);
            let _in_use = pool.get(&one.name()).unwrap();
            let files = all_but(1); // for the socket, and none for its duplicate
            let began = Instant::now();
            while began.elapsed() < Duration::from_secs(1) {
                let error = pool.get_timeout(&other.name(), SOON).unwrap_err();
                assert_names_the_cause(&error, Phase::Open);
            }
            let (failed, most) = (pool.stats().connects_failed(), most_attempts(began));
            assert!((2..=most).contains(&failed), "{failed} attempts, at most {most}");
            assert_eq!(pool.stats().total(), 1);
            drop(files);
            eventually("it works again", || pool.get_timeout(&other.name(), SOON).is_ok());
        },
    );
}

#[test]
fn idle_foreign_connections_make_room_as_well() {
    alone("shortages::idle_foreign_connections_make_room_as_well", || {
        let _watchdog = watchdog();
        for free in [0, 1] {
            for _ in 0..20 {
                let (one, other) = (listening(), listening());
                let pool = foreign(Foreign::default(), 8, &one);
                let files = all_but(free);
                let conn = pool.get_timeout(&other.name(), SOON).map(drop);
                drop(files);
                conn.expect("there was something to close");
            }
        }
    });
}

#[test]
fn while_what_makes_room_is_slow_to_close_callers_learn_why_and_then_it_works() {
    alone(
        "shortages::while_what_makes_room_is_slow_to_close_callers_learn_why_and_then_it_works",
        || {
            let _watchdog = watchdog();
            let (one, other) = (listening(), listening());
            let (close, may_close) = bounded(1);
            let pool = foreign(Foreign { may_close: Some(may_close) }, 1, &one);
            let files = all_but(1);
            let error = pool.get_timeout(&other.name(), SOON).unwrap_err();
            assert_names_the_cause(&error, Phase::Open);
            assert_eq!(pool.stats().closed_for(CloseReason::MadeRoom), 1);
            drop(close);
            eventually("there is room", || pool.get_timeout(&other.name(), SOON).is_ok());
            drop(files);
        },
    );
}

#[test]
fn a_name_that_cannot_be_looked_up_for_want_of_descriptors_fails_as_local() {
    alone(
        "shortages::a_name_that_cannot_be_looked_up_for_want_of_descriptors_fails_as_local",
        || {
            let _watchdog = watchdog();
            let one = listening();
            let port = one.address().port();
            let resolver = Resolver::system();
            let pool = tcp().resolver(&resolver).build().unwrap();
            // So that the driver has all that it needs.
            let _in_use = pool.get(&format!("localhost:{port}")).unwrap();
            resolver.clear();
            let other = listening();
            let name = format!("localhost:{}", other.address().port());
            let files = all_but(0);
            let error = pool.get_timeout(&name, SOON).unwrap_err();
            assert_names_the_cause(&error, Phase::Resolve);
            drop(files);
            eventually("it works again", || pool.get_timeout(&name, SOON).is_ok());
        },
    );
}

#[test]
fn a_shortage_beside_an_address_that_hangs_is_a_shortage_at_the_deadline() {
    alone(
        "shortages::a_shortage_beside_an_address_that_hangs_is_a_shortage_at_the_deadline",
        || {
            let _watchdog = watchdog();
            let (hole, other, diary) = (BlackHole::new(), listening(), Diary::default());
            let spread = Spread(vec![hole.address(), other.address()]);
            let builder = Pool::builder(spread).connect_timeout(Duration::from_secs(1));
            let pool = builder.observer(diary.clone()).build().unwrap();
            let endpoint = pool.only().unwrap();
            // So that the driver has all that it needs.
            PooledConn::discard(endpoint.get_timeout(SOON).unwrap());
            diary.reasons_of(1); // its descriptor is free by then
            let files = all_but(1); // for the socket that hangs
            let error = endpoint.get_timeout(SOON).unwrap_err();
            assert_names_the_cause(&error, Phase::Connect);
            drop(files);
            eventually("it works again", || endpoint.get_timeout(SOON).is_ok());
        },
    );
}
