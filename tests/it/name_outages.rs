//! Outages of servers and of name servers, in whichever order: passed by themselves, with no more
//! look-ups than help; and what a resolver brings is dropped where it may be.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use warmline::{
    BoxError, Driver, ErrorKind, Failure, Phase, PooledConn, Request, Resolve, Resolved, Resolver,
    TcpConnector,
};

use crate::support::faults::{BlackHole, Refusing};
use crate::support::resolver::{Answer, Script};
use crate::support::server::Server;
use crate::support::{SOON, ask, assert_empty, eventually, tcp, watchdog};

const NAME: &str = "db.test:80";
const ZERO: Duration = Duration::ZERO;
const BRIEF: Duration = Duration::from_millis(20);
const LONG: Duration = Duration::from_secs(3600);

/// A thousand names whose failure the resolver remembers.
fn remembered() -> Resolver {
    let resolver = Script::new().resolver().negative_ttl(LONG);
    let pool = tcp().resolver(&resolver).build().unwrap();
    for number in 0..1_000 {
        pool.get_timeout(&format!("host{number}.test:1"), SOON).unwrap_err();
    }
    resolver
}

/// Two thousand requests wait for the only room there is; each fails as soon as it has it. Whoever
/// has it at first gives it back by `give_back`.
fn assert_all_fail(resolver: &Resolver, give_back: impl FnOnce(PooledConn<TcpConnector>)) {
    let server = Server::echo();
    let pool = tcp().resolver(resolver).max_total(1).build().unwrap();
    let held = pool.get(&server.name()).unwrap();
    let request = |number: usize| {
        let (host, port) = (number / 2, number % 2 + 1);
        pool.request(&format!("host{host}.test:{port}")).unwrap()
    };
    let requests: Vec<Request<TcpConnector>> = (0..2_000).map(request).collect();
    give_back(held);
    for request in requests {
        let error = request.receiver().recv_timeout(SOON).unwrap().unwrap_err();
        assert_eq!((error.kind(), error.failure()), (ErrorKind::Connect, Some(Failure::Dns)));
        assert_eq!(error.phase(), Some(Phase::Resolve), "{error}");
    }
    assert_empty(&pool.stats());
}

#[test]
fn thousands_whose_names_are_known_to_fail_each_get_their_error_on_a_stack_of_any_size() {
    let _watchdog = watchdog();
    let resolver = remembered();
    assert_all_fail(&resolver, PooledConn::discard);
    assert_all_fail(&resolver, |held| {
        let small = thread::Builder::new().stack_size(256 * 1024);
        small.spawn(|| PooledConn::discard(held)).unwrap().join().unwrap();
    });
}

#[test]
fn names_that_nobody_waits_for_any_more_are_not_looked_up_when_the_name_server_is_back() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let script = Script::always(Answer::here().late());
    script.say("new.test", [Answer::at(server.address())]);
    let builder = tcp().resolver(&script.resolver());
    let pool = builder.connect_timeout(BRIEF).max_connecting(64).build().unwrap();
    let request = |number| pool.request(&format!("host{number}.test:80")).unwrap();
    let requests: Vec<_> = (0..3_000).map(request).collect();
    for request in requests {
        let error = request.receiver().recv_timeout(SOON).unwrap().unwrap_err();
        assert_eq!(error.failure(), Some(Failure::Timeout), "{error}");
    }
    assert_empty(&pool.stats());
    let count = script.count();
    assert!(count <= 20, "four, and those that came in place of hung ones: {count}");
    script.release();
    eventually("a new name is there", || pool.get_timeout("new.test:80", SOON).is_ok());
    assert_eq!(script.asked()[count..], ["new.test"]);
}

#[test]
fn a_server_that_is_back_is_found_though_its_name_server_hangs() {
    let _watchdog = watchdog();
    let server = Refusing::new();
    let script = Script::of("db.test", [Answer::at(server.address()), Answer::here().late()]);
    let resolver = script.resolver().negative_ttl(ZERO);
    let pool = tcp().resolver(&resolver).connect_timeout(LONG).build().unwrap();
    let error = pool.get_timeout(NAME, SOON).unwrap_err();
    assert_eq!(error.failure(), Some(Failure::Refused), "{error}");
    eventually("its address is asked for again", || {
        pool.get_timeout(NAME, BRIEF).unwrap_err();
        script.hanging() == 1
    });
    server.listen();
    eventually("it is there", || {
        let conn = pool.get_timeout(NAME, SOON);
        let failure = conn.as_ref().err().map(warmline::Error::failure);
        assert!(matches!(failure, None | Some(Some(Failure::Refused))), "{conn:?}");
        conn.is_ok()
    });
    assert_eq!((script.hanging(), script.count()), (1, 2), "by the address that was known");
    script.release();
}

/// Returns once whatever was to be looked up so far has had its turn.
fn await_look_ups(script: &Script, resolver: &Resolver) {
    let server = Server::echo();
    script.say("last.test", [Answer::at(server.address())]);
    let pool = tcp().resolver(resolver).build().unwrap();
    drop(pool.get_timeout("last.test:80", SOON).unwrap());
}

#[test]
fn attempts_that_are_called_off_do_not_have_their_name_looked_up_again() {
    let _watchdog = watchdog();
    let (hole, server) = (BlackHole::new(), Server::echo());
    let script = Script::of("db.test", [Answer::at(hole.address())]);
    let resolver = script.resolver().negative_ttl(ZERO);
    let builder = tcp().resolver(&resolver).max_total(1).connect_timeout(LONG);
    let pool = builder.build().unwrap();
    for called_off in 1..=5 {
        let error = pool.get_timeout(NAME, BRIEF).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
        drop(pool.get_timeout(&server.name(), SOON).unwrap());
        assert_eq!(pool.stats().connects_called_off(), called_off);
    }
    await_look_ups(&script, &resolver);
    assert_eq!(script.asked(), ["db.test", "last.test"]);
}

#[test]
fn attempts_that_end_with_their_pool_do_not_have_their_name_looked_up_again() {
    let _watchdog = watchdog();
    let hole = BlackHole::new();
    let script = Script::of("db.test", [Answer::at(hole.address())]);
    let (driver, resolver) = (Driver::new(), script.resolver().negative_ttl(ZERO));
    for _ in 0..5 {
        let pool = tcp().driver(&driver).resolver(&resolver).build().unwrap();
        let request = pool.request(NAME).unwrap();
        eventually("it is on its way", || match hole.besieged_by() {
            Some(count) => count == 1,
            None => script.count() == 1, // at the latest the second is
        });
        pool.close();
        let error = request.receiver().recv_timeout(SOON).unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
        eventually("nothing is left of it", || hole.besieged_by().unwrap_or_default() == 0);
    }
    await_look_ups(&script, &resolver);
    assert_eq!(script.asked(), ["db.test", "last.test"]);
}

/// Where values of a test's were dropped, and how many there are. Cloning makes a second view.
#[derive(Clone, Debug, Default)]
struct Ledger(Arc<Mutex<(usize, Vec<String>)>>);

/// A value that tells where it is dropped: an error, or a resolver.
#[derive(Debug)]
struct Entry(Ledger);

impl Ledger {
    fn entry(&self) -> Entry {
        self.0.lock().0 += 1;
        Entry(self.clone())
    }

    fn made(&self) -> usize {
        self.0.lock().0
    }

    /// Waits until all are gone: none of them on a thread that must not block.
    #[track_caller]
    fn assert_dropped_where_it_may_be(&self) {
        eventually("all are dropped", || {
            let ledger = self.0.lock();
            ledger.0 == ledger.1.len()
        });
        let threads = self.0.lock().1.clone();
        let is_wrong = |name: &String| name.ends_with("-loop") || name.ends_with("-reaper");
        assert!(!threads.iter().any(is_wrong), "{threads:?}");
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let name = thread::current().name().unwrap_or_default().to_owned();
        self.0.0.lock().1.push(name);
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the test's own")
    }
}

impl StdError for Entry {}

impl Resolve for Entry {
    fn resolve(&self, _: &str) -> Result<Resolved, BoxError> {
        Err("knows nothing".into())
    }
}

/// Asks for more names than are remembered.
fn push_out(resolver: &Resolver) {
    let pool = tcp().resolver(resolver).build().unwrap();
    for number in 0..1_100 {
        drop(pool.get_timeout(&format!("host{number}.test:80"), SOON));
    }
}

#[test]
fn errors_of_a_resolver_are_all_dropped_in_the_end_and_never_where_nobody_may_block() {
    let _watchdog = watchdog();
    let server = Server::echo();
    // Remembered not at all, for a moment, or until they are pushed out or the resolver goes.
    for ttl in [ZERO, BRIEF, LONG] {
        let (ledger, is_up) = (Ledger::default(), Arc::new(Mutex::new(false)));
        let resolver = Resolver::new({
            let (ledger, is_up, at) = (ledger.clone(), Arc::clone(&is_up), server.address());
            move |_: &str| {
                let is_up = *is_up.lock();
                if is_up { Ok(Resolved::new([at])) } else { Err(ledger.entry().into()) }
            }
        });
        let resolver = resolver.negative_ttl(ttl);
        let pool = tcp().resolver(&resolver).min_idle(1).build().unwrap();
        let endpoint = pool.endpoint(NAME).unwrap();
        // Most of the attempts are the reaper's.
        eventually("it has failed, and failed again", || pool.stats().connects_failed() >= 4);
        pool.get_timeout(NAME, SOON).unwrap_err();
        push_out(&resolver);
        *is_up.lock() = true;
        if ttl != LONG {
            eventually("one is kept ready", || endpoint.stats().idle() == 1);
        }
        pool.close();
        drop((endpoint, pool, resolver));
        assert!(ledger.made() >= 2, "or there would be nothing to test");
        ledger.assert_dropped_where_it_may_be();
    }
}

#[test]
fn the_error_of_the_resolver_can_be_told_by_its_type() {
    let _watchdog = watchdog();
    let resolver = Resolver::new({
        let ledger = Ledger::default();
        move |_: &str| Err(ledger.entry().into())
    });
    let pool = tcp().resolver(&resolver).build().unwrap();
    // Looked up the first time, remembered the second.
    for attempts in 1..=2 {
        eventually("it is tried again", || {
            let error = pool.get_timeout(NAME, SOON).unwrap_err();
            let mut chain = std::iter::successors(error.source(), |&error| error.source());
            assert!(chain.any(|error| error.is::<Entry>()), "{error:?}");
            pool.stats().connects_failed() >= attempts
        });
    }
}

#[test]
fn a_resolver_is_never_dropped_where_nobody_may_block() {
    let _watchdog = watchdog();
    let (hole, refusing, server) = (BlackHole::new(), Refusing::new(), Server::echo());
    let (driver, ledger) = (Driver::new(), Ledger::default());
    let keep = tcp().driver(&driver).build().unwrap();
    ask(&mut keep.get(&server.name()).unwrap()).unwrap();
    for _ in 0..50 {
        for name in [NAME, &hole.name(), &refusing.name()] {
            let resolver = Resolver::new(ledger.entry());
            let builder = tcp().driver(&driver).resolver(&resolver);
            let pool = builder.min_idle(1).connect_timeout(BRIEF).build().unwrap();
            drop(resolver);
            pool.get_timeout(name, Duration::from_millis(5)).unwrap_err();
        }
    }
    assert_eq!(ledger.made(), 150);
    ledger.assert_dropped_where_it_may_be();
}

#[test]
fn the_last_error_of_an_endpoint_that_is_forgotten_is_dropped_where_it_may_be() {
    let _watchdog = watchdog();
    let (server, ledger) = (Server::echo(), Ledger::default());
    let resolver = Resolver::new({
        let ledger = ledger.clone();
        move |_: &str| Err(ledger.entry().into())
    });
    let resolver = resolver.negative_ttl(ZERO);
    let builder = tcp().resolver(&resolver).idle_timeout(Duration::from_millis(200));
    let pool = builder.build().unwrap();
    drop(pool.get_timeout(NAME, SOON).unwrap_err());
    // The reaper comes for this one, and finds that the other endpoint is used no more.
    drop(pool.get(&server.name()).unwrap());
    ledger.assert_dropped_where_it_may_be();
    assert_eq!(ledger.made(), 1);
}
