//! Name servers that fail or lie: said clearly, and nobody else's trouble.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use warmline::{
    BoxError, CloseReason, Error, ErrorKind, Failure, Phase, Pool, PooledConn, Repeat, Resolver,
    TcpConnector,
};

use crate::support::faults::Refusing;
use crate::support::resolver::{Answer, Script};
use crate::support::server::Server;
use crate::support::{SOON, ask, assert_empty, eventually, say, tcp, watchdog};

const NAME: &str = "db.test:80";
const ZERO: Duration = Duration::ZERO;
const BRIEF: Duration = Duration::from_millis(50);
const LONG: Duration = Duration::from_secs(3600);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

fn script<const N: usize>(answers: [Answer; N]) -> Script {
    Script::of("db.test", answers)
}

fn pool(resolver: &Resolver) -> Pool<TcpConnector> {
    let builder = tcp().resolver(resolver).checkout_timeout(SOON);
    builder.connect_timeout(LONG).build().unwrap()
}

#[track_caller]
fn assert_unresolved(error: &Error, text: &str) {
    assert_eq!((error.kind(), error.failure()), (ErrorKind::Connect, Some(Failure::Dns)));
    assert_eq!(error.phase(), Some(Phase::Resolve), "{error}");
    assert!(error.to_string().contains(text), "{error}");
}

#[derive(Debug)]
struct OnHoliday(io::Error);

impl fmt::Display for OnHoliday {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name server is on holiday")
    }
}

impl StdError for OnHoliday {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&self.0)
    }
}

#[test]
fn the_error_of_the_resolver_reaches_the_caller_with_its_source() {
    let _watchdog = watchdog();
    let fail = || -> BoxError { Box::new(OnHoliday(io::Error::other("gone fishing"))) };
    let script = script([Answer::FailWith(fail)]);
    let pool = pool(&script.resolver());
    let error = pool.get(NAME).unwrap_err();
    assert_unresolved(&error, "the name server is on holiday");
    assert_eq!(error.endpoint(), Some(NAME));
    let chain = std::iter::successors(error.source(), |&error| error.source());
    let texts: Vec<_> = chain.map(ToString::to_string).collect();
    assert_eq!(texts.get(1).map(String::as_str), Some("the name server is on holiday"));
    assert_eq!(texts.last().map(String::as_str), Some("gone fishing"));
    assert_empty(&pool.stats());
}

#[test]
fn a_name_that_resolves_to_nothing_is_a_failure_that_says_so() {
    let _watchdog = watchdog();
    let script = script([Answer::At(Vec::new())]);
    let pool = pool(&script.resolver());
    assert_unresolved(&pool.get(NAME).unwrap_err(), "\"db.test\" has no address");
    assert_empty(&pool.stats());
}

#[test]
fn a_resolver_that_panics_fails_that_look_up_and_no_other() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let script = script([Answer::Panic, Answer::Panic, Answer::at(server.address())]);
    let pool = pool(&script.resolver().negative_ttl(ZERO));
    assert_unresolved(&pool.get(NAME).unwrap_err(), "panicked: the resolver was told to panic");
    eventually("the third answers", || pool.get(NAME).is_ok());
    assert_eq!(script.count(), 3);
}

#[test]
fn only_addresses_of_a_family_where_nobody_listens_are_refused() {
    let _watchdog = watchdog();
    if std::net::TcpListener::bind((V6, 0)).is_err() {
        return say("skipped: this machine has no [::1]");
    }
    let server = Server::echo();
    // The same port, of the other family; the server has it in its own.
    let refusing = Refusing::at(V6);
    let script = script([Answer::at(refusing.address())]);
    let pool = pool(&script.resolver());
    let error = pool.get(&format!("db.test:{}", server.address().port())).unwrap_err();
    assert_eq!((error.failure(), error.phase()), (Some(Failure::Refused), Some(Phase::Connect)));
}

#[test]
fn addresses_of_a_family_that_the_local_address_cannot_reach_are_passed_over_if_there_are_others() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let other = SocketAddr::new(V6, server.address().port());
    let script = script([Answer::at(other)]);
    let mixed = Answer::At(vec![other, server.address()]);
    script.say("mixed.test", [mixed]);
    let connector = TcpConnector::new().local_address(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let pool = Pool::builder(connector).resolver(&script.resolver()).build().unwrap();
    let error = pool.get(NAME).unwrap_err();
    assert_eq!((error.kind(), error.phase()), (ErrorKind::Connect, Some(Phase::Connect)));
    ask(&mut pool.get("mixed.test:80").unwrap()).unwrap();
}

#[test]
fn a_failure_is_remembered_for_its_time_whoever_asks() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let script = script([Answer::Fail("not today"), Answer::at(server.address())]);
    let resolver = script.resolver().negative_ttl(LONG);
    let (one, other) = (pool(&resolver), pool(&resolver));
    for pool in [&one, &other] {
        eventually("it was tried several times", || {
            assert_unresolved(&pool.get(NAME).unwrap_err(), "not today");
            pool.stats().connects_failed() >= 3
        });
    }
    assert_eq!(script.count(), 1);
    resolver.clear();
    for pool in [&one, &other] {
        eventually("it was forgotten", || pool.get(NAME).is_ok());
    }
    assert_eq!(script.count(), 2);
}

#[test]
fn a_failure_whose_time_is_over_is_asked_for_again() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let script = script([
        Answer::Fail("first"),
        Answer::Fail("second"),
        Answer::Fail("third"),
        Answer::at(server.address()),
    ]);
    let pool = pool(&script.resolver().negative_ttl(Duration::from_millis(100)));
    let mut texts = Vec::new();
    eventually("it answers in the end", || match pool.get(NAME) {
        Ok(conn) => {
            PooledConn::discard(conn);
            true
        }
        Err(error) => {
            texts.push(error.to_string());
            false
        }
    });
    for text in ["first", "second", "third"] {
        assert!(texts.iter().any(|said| said.ends_with(text)), "{text}: {texts:?}");
    }
    assert_eq!(script.count(), 4);
}

#[test]
fn running_out_of_descriptors_in_a_resolver_is_not_held_against_the_name() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let fail = || -> BoxError { io::Error::from(rustix::io::Errno::MFILE).into() };
    let script = script([Answer::FailWith(fail), Answer::at(server.address())]);
    let pool = pool(&script.resolver().negative_ttl(LONG));
    let error = pool.get(NAME).unwrap_err();
    assert_eq!((error.failure(), error.phase()), (Some(Failure::Local), Some(Phase::Resolve)));
    assert!(error.to_string().contains("Too many open files"), "{error}");
    eventually("it is asked again", || pool.get(NAME).is_ok());
    assert_eq!(script.count(), 2);
}

/// Asks the pool for its counts, and the resolver to forget, whenever it is displayed or dropped.
#[derive(Clone, Debug, Default)]
struct Nosy(Arc<Mutex<Option<Seen>>>);

type Seen = (Resolver, Pool<TcpConnector>);

impl Nosy {
    fn look(&self) {
        let both = self.0.lock().clone();
        if let Some((resolver, pool)) = both {
            resolver.clear();
            let _counts = pool.stats();
        }
    }
}

impl fmt::Display for Nosy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.look();
        f.write_str("had a look around")
    }
}

impl StdError for Nosy {}

impl Drop for Nosy {
    fn drop(&mut self) {
        self.look();
    }
}

#[test]
fn an_error_may_use_pool_and_resolver_when_it_is_displayed_or_dropped() {
    let _watchdog = watchdog();
    for ttl in [ZERO, BRIEF, LONG] {
        let nosy = Nosy::default();
        let resolver = Resolver::new({
            let nosy = nosy.clone();
            move |_: &str| Err(Box::new(nosy.clone()).into())
        });
        let resolver = resolver.negative_ttl(ttl);
        let pool = tcp().resolver(&resolver).min_idle(1).build().unwrap();
        *nosy.0.lock() = Some((resolver.clone(), pool.clone()));
        eventually("it has failed, and failed again", || {
            assert_unresolved(&pool.get(NAME).unwrap_err(), "had a look around");
            pool.stats().connects_failed() >= 4
        });
        pool.close();
        let both = nosy.0.lock().take();
        drop(both);
    }
}

/// Panics when it is dropped.
#[derive(Debug)]
struct Touchy;

impl fmt::Display for Touchy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("do not touch")
    }
}

impl StdError for Touchy {}

impl Drop for Touchy {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            std::panic::panic_any("the error was told to panic");
        }
    }
}

#[test]
fn an_error_that_panics_when_it_is_dropped_ends_no_thread_of_the_pool() {
    let _watchdog = watchdog();
    let server = Server::echo();
    for ttl in [ZERO, BRIEF] {
        let script = script([Answer::FailWith(|| Box::new(Touchy))]);
        // It is tried again and again, though nobody asks: by the reaper.
        let resolver = script.resolver().negative_ttl(ttl);
        let pool = tcp().resolver(&resolver).min_idle(1).build().unwrap();
        let endpoint = pool.endpoint(NAME).unwrap();
        eventually("it has failed, and failed again", || pool.stats().connects_failed() >= 4);
        script.say("db.test", [Answer::at(server.address())]);
        eventually("one is kept ready", || endpoint.stats().idle() == 1);
        ask(&mut endpoint.get().unwrap()).unwrap();
    }
}

#[test]
fn an_error_that_panics_when_it_is_dropped_is_no_trouble_to_those_who_use_a_stale_answer() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let fail = Answer::FailWith(|| Box::new(Touchy));
    let script = script([Answer::AtFor(vec![server.address()], ZERO), fail]);
    let pool = pool(&script.resolver().negative_ttl(ZERO));
    eventually("it has failed, and failed again", || {
        PooledConn::discard(pool.get(NAME).unwrap());
        script.count() >= 4
    });
}

/// The threads that [`Told`] was dropped on.
static DROPPED_ON: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Tells on which thread it is dropped.
#[derive(Debug)]
struct Told;

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("will tell")
    }
}

impl StdError for Told {}

impl Drop for Told {
    fn drop(&mut self) {
        let name = std::thread::current().name().unwrap_or_default().to_owned();
        DROPPED_ON.lock().push(name);
    }
}

#[test]
fn errors_are_never_dropped_on_threads_that_must_not_block() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let fail = Answer::FailWith(|| Box::new(Told));
    let script = script([Answer::AtFor(vec![server.address()], ZERO), fail]);
    let builder = tcp().resolver(&script.resolver().negative_ttl(ZERO)).min_idle(1);
    let pool = builder.build().unwrap();
    let endpoint = pool.endpoint(NAME).unwrap();
    for ended in 1..=10 {
        endpoint.run(Repeat::Always, ask).unwrap();
        server.hang_up();
        // Whoever notices, or the reaper later on, begins to open another.
        eventually("it has ended", || {
            endpoint.stats().closed_for(CloseReason::PeerClosed) >= ended
        });
        eventually("another is ready", || endpoint.stats().idle() == 1);
    }
    let threads = DROPPED_ON.lock().clone();
    assert!(threads.len() >= 2, "or there would be nothing to test: {threads:?}");
    let is_wrong = |name: &String| name.ends_with("-loop") || name.ends_with("-reaper");
    assert!(!threads.iter().any(is_wrong), "{threads:?}");
}
