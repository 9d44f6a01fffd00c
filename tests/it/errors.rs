//! What errors say, to people and to programs.

use std::error::Error as _;
use std::io;
use std::time::Duration;

use warmline::{Error, ErrorKind, Failure, Phase, Pool};

use crate::support::faults::Refusing;
use crate::support::lab::{Act, Lab, Method};
use crate::support::server::Server;
use crate::support::{SOON, ask, eventually, tcp, watchdog};

#[test]
fn a_time_out_says_how_long_it_waited_and_where_the_connections_are() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let pool = tcp().max_per_endpoint(2).build().unwrap();
    let _held = [pool.get(&server.name()).unwrap(), pool.get(&server.name()).unwrap()];
    let error = pool.get_timeout(&server.name(), Duration::from_millis(10)).unwrap_err();
    let text = error.to_string();
    for part in ["no connection came free", &server.name(), "2/2: 2 in use, 0 idle"] {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
    assert!(!text.contains('\n') && !text.ends_with('.'), "{text}");
    assert_eq!((error.kind(), error.phase()), (ErrorKind::Timeout, Some(Phase::Queue)));
    assert_eq!(error.endpoint(), Some(&*server.name()));
    assert!(error.waited() >= Some(Duration::from_millis(10)));
    assert!(error.source().is_none() && error.failure().is_none());
    assert_eq!(io::Error::from(error).kind(), io::ErrorKind::TimedOut);
}

#[test]
fn a_refused_connect_says_so_and_keeps_what_the_system_said_as_its_source() {
    let _watchdog = watchdog();
    let refusing = Refusing::new();
    let pool = Pool::tcp();
    let error = pool.get_timeout(&refusing.name(), SOON).unwrap_err();
    assert_eq!((error.kind(), error.failure()), (ErrorKind::Connect, Some(Failure::Refused)));
    assert_eq!(error.phase(), Some(Phase::Connect));
    let system = error.source().and_then(|attempt| attempt.source()).expect("the system's words");
    let system = system.downcast_ref::<io::Error>().expect("an error of the system");
    assert_eq!(system.kind(), io::ErrorKind::ConnectionRefused);
    let error = io::Error::from(error);
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    assert_eq!(inner.and_then(Error::endpoint), Some(&*refusing.name()), "nothing is lost");
}

#[test]
fn whoever_comes_right_after_a_failure_learns_of_it_without_another_attempt() {
    let _watchdog = watchdog();
    let lab = Lab::new(|method, _| if method == Method::Open { Act::Fail } else { Act::Go });
    let bench = lab.bench();
    let pool = Pool::builder(lab).build().unwrap();
    let mut told = 0;
    while told < 3 {
        // Whether the second call comes within the 50 ms is up to the machine; the counts tell.
        let refused = pool.stats().refused();
        let error = pool.get_timeout("a", SOON).unwrap_err();
        assert_eq!((error.kind(), error.failure()), (ErrorKind::Connect, Some(Failure::Other)));
        assert!(error.to_string().contains("Open was told to fail"), "{error}");
        told += pool.stats().refused() - refused;
    }
    let stats = pool.stats();
    let attempts = u64::try_from(bench.calls(Method::Open)).unwrap();
    assert_eq!((stats.refused(), stats.connects_failed()), (3, attempts));
}

#[test]
fn every_waiter_learns_of_a_failure_when_nothing_else_can_serve_it() {
    let _watchdog = watchdog();
    let lab = Lab::new(|method, _| match method {
        Method::Open => Act::Hang,
        _ => Act::Go,
    });
    let bench = lab.bench();
    let builder = Pool::builder(lab).max_per_endpoint(1);
    let pool = builder.connect_timeout(Duration::from_millis(300)).build().unwrap();
    std::thread::scope(|scope| {
        let waiting: Vec<_> =
            (0..4).map(|_| scope.spawn(|| pool.get_timeout("a", SOON).map(drop))).collect();
        for waiting in waiting {
            let error = waiting.join().unwrap().unwrap_err();
            assert_eq!(
                (error.kind(), error.failure()),
                (ErrorKind::Connect, Some(Failure::Timeout))
            );
        }
    });
    bench.release();
}

#[test]
fn with_others_in_use_a_failure_becomes_the_source_of_the_time_out() {
    let _watchdog = watchdog();
    let lab = Lab::new(|method, before| match (method, before) {
        (Method::Open, 1..) => Act::Fail,
        _ => Act::Go,
    });
    let pool = Pool::builder(lab).build().unwrap();
    let held = pool.get("a").unwrap();
    let error = pool.get_timeout("a", Duration::from_millis(150)).unwrap_err();
    assert_eq!((error.kind(), error.failure()), (ErrorKind::Timeout, Some(Failure::Other)));
    let text = error.to_string();
    assert!(text.contains("last attempt") && text.contains("Open was told to fail"), "{text}");
    assert!(error.source().is_some());
    assert!(pool.stats().connects_failed() >= 1);
    drop(held);
    assert_eq!(pool.get("a").unwrap().number, 0, "what came back is served as ever");
}

#[test]
fn a_server_that_starts_to_listen_is_found() {
    let _watchdog = watchdog();
    let refusing = Refusing::new();
    let pool = Pool::tcp();
    pool.get(&refusing.name()).unwrap_err();
    refusing.listen();
    eventually("a connection", || pool.get(&refusing.name()).is_ok());
}

#[test]
fn a_connector_that_panics_in_open_is_reported_with_its_words() {
    let _watchdog = watchdog();
    let lab = Lab::new(|method, _| if method == Method::Open { Act::Panic } else { Act::Go });
    let error = Pool::builder(lab).build().unwrap().get("a").unwrap_err();
    assert_eq!((error.kind(), error.failure()), (ErrorKind::Connect, Some(Failure::Panic)));
    assert!(error.to_string().contains("Open was told to panic"), "{error}");
}

#[test]
fn every_kind_of_error_becomes_an_io_error_of_the_nearest_kind() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let pool = tcp().max_per_endpoint(1).max_waiting(1).build().unwrap();
    let kind = |error: Error| io::Error::from(error).kind();
    assert_eq!(kind(pool.get("nonsense").unwrap_err()), io::ErrorKind::InvalidInput);
    let mut held = pool.get(&server.name()).unwrap();
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| pool.get_timeout(&server.name(), SOON).map(drop));
        eventually("one waits", || pool.stats().waiting() == 1);
        let saturated = pool.get(&server.name()).unwrap_err();
        assert_eq!(kind(saturated), io::ErrorKind::WouldBlock);
        pool.close();
        let closed = waits.join().unwrap().unwrap_err();
        assert_eq!(kind(closed), io::ErrorKind::NotConnected);
    });
    ask(&mut held).unwrap();
}

#[test]
fn a_name_that_does_not_resolve_fails_as_such() {
    let _watchdog = watchdog();
    // The zone "invalid" is reserved: no server is asked for a name that is no name at all.
    let error = Pool::tcp().get_timeout("a..invalid:80", SOON).unwrap_err();
    assert_eq!((error.kind(), error.failure()), (ErrorKind::Connect, Some(Failure::Dns)));
    assert_eq!(error.phase(), Some(Phase::Resolve));
}
