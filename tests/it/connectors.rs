//! Connectors of others: whatever they do, the pool keeps its promises.

use std::collections::BTreeSet;
use std::time::Duration;

use crossbeam_channel::{Sender, unbounded};
use warmline::{
    BoxConnector, BoxError, CloseReason, Connector, Deadline, Endpoint, Error, ErrorKind, Failure,
    One, Opening, Pool, PooledConn, Socket, TcpConnector,
};

use crate::support::lab::{Act, Item, Lab, Method};
use crate::support::server::Server;
use crate::support::{Diary, SOON, ask, assert_balanced, assert_empty, eventually, watchdog};

/// Uses a pool in every way, with one method of the connector doing `act` at its `nth` call.
/// Returns whether it was called so often.
fn go_through_everything(method: Method, nth: usize, act: Act) -> bool {
    let lab = Lab::new(move |called, before| match called {
        _ if (called, before) == (method, nth) => act,
        Method::HasCheck => Act::Later,
        Method::Reset if before % 2 == 1 => Act::Later,
        _ => Act::Go,
    });
    let (bench, diary) = (lab.bench(), Diary::default());
    let builder = Pool::builder(lab).observer(diary.clone()).max_per_endpoint(2);
    let builder = builder.check_after(Duration::ZERO).probe_after(Duration::ZERO);
    let pool = builder.build().unwrap();
    bench.watch_over(&pool);
    for round in 0..8 {
        let held = [pool.get_timeout("a", SOON), pool.get_timeout("a", SOON)];
        for error in held.iter().filter_map(|conn| conn.as_ref().err()) {
            let text = format!("{method:?} call {nth}, round {round}: {error}");
            assert_ne!(error.kind(), ErrorKind::Timeout, "{text}");
        }
        for conn in held.into_iter().flatten() {
            if round == 5 {
                PooledConn::discard(conn);
            }
        }
        drop(pool.try_get("a"));
    }
    eventually("nothing is under way", || {
        let stats = pool.stats();
        stats.in_use() + stats.checking() + stats.connecting() + stats.waiting() == 0
    });
    // Whatever went wrong once has cost no capacity: two can be had again.
    eventually("two connections", || {
        let both = (pool.get_timeout("a", SOON), pool.get_timeout("a", SOON));
        both.0.is_ok() && both.1.is_ok()
    });
    assert_balanced(&pool.stats());
    pool.drain(Deadline::after(SOON)).unwrap();
    assert_empty(&pool.stats());
    assert_eq!(bench.alive(), 0, "{method:?} call {nth}: a connection was lost");
    let closed = usize::try_from(pool.stats().closed()).unwrap();
    assert_eq!(diary.reasons_of(closed).len(), closed, "each end is told once");
    assert!(bench.looks() > 0, "the pool's lock could be taken in every call");
    bench.let_go();
    bench.calls(method) > nth
}

fn every_call_of_every_method(act: Act) -> Vec<Method> {
    let mut reached = Vec::new();
    for method in Method::ALL {
        for nth in 0.. {
            if !go_through_everything(method, nth, act) {
                break;
            }
            reached.push(method);
            if nth > 12 {
                break;
            }
        }
    }
    reached
}

#[test]
fn a_panic_at_any_call_of_any_method_costs_one_connection_at_most() {
    let _watchdog = watchdog();
    let reached: BTreeSet<_> =
        every_call_of_every_method(Act::Panic).iter().map(|method| format!("{method:?}")).collect();
    let expected =
        ["Check", "Close", "HasCheck", "IsOpen", "Open", "Plan", "Reset", "Settle", "Socket"];
    for method in expected {
        assert!(reached.contains(method), "{method} was never called");
    }
}

#[test]
fn a_failure_at_any_call_of_any_method_costs_one_connection_at_most() {
    let _watchdog = watchdog();
    assert!(every_call_of_every_method(Act::Fail).len() > 20);
}

#[test]
fn a_connector_that_panics_on_checkin_or_checkout_is_named_as_the_reason() {
    let _watchdog = watchdog();
    for method in [Method::Socket, Method::IsOpen, Method::Reset] {
        // The first call of `socket` is in the opening.
        let nth = usize::from(method == Method::Socket);
        let lab = Lab::new(move |called, before| match called {
            _ if called == method && before == nth => Act::Panic,
            _ => Act::Go,
        });
        let pool = Pool::builder(lab).build().unwrap();
        drop(pool.get("a").unwrap());
        let closed = pool.stats().closed_for(CloseReason::ConnectorPanicked);
        assert_eq!(closed, 1, "{method:?}");
        drop(pool.get("a").unwrap());
        assert_eq!((pool.stats().idle(), pool.stats().total()), (1, 1));
    }
}

#[test]
fn asking_about_an_exchange_closes_nothing_and_panics_nobody() {
    let _watchdog = watchdog();
    let lab = Lab::new(|method, before| match (method, before) {
        (Method::Socket, 1) => Act::Panic,
        _ => Act::Go,
    });
    let pool = Pool::builder(lab).build().unwrap();
    let mut conn = pool.get("a").unwrap();
    let exchange = PooledConn::exchange(&mut conn);
    assert_eq!(exchange.written(), None, "a panic in a connector's method ends there");
}

#[test]
fn an_open_that_never_returns_costs_its_caller_the_connect_time_out() {
    let _watchdog = watchdog();
    let lab = Lab::new(|method, _| if method == Method::Open { Act::Hang } else { Act::Go });
    let bench = lab.bench();
    let builder = Pool::builder(lab).connect_timeout(Duration::from_millis(50));
    let pool = builder.max_per_endpoint(1).build().unwrap();
    for _ in 0..3 {
        eventually("an attempt that times out", || {
            let error = pool.get_timeout("a", SOON).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Connect);
            assert_eq!(error.failure(), Some(Failure::Timeout));
            error.waited() >= Some(Duration::from_millis(50))
        });
    }
    assert_eq!(pool.stats().total(), 0, "what hangs keeps no capacity");
    assert_eq!(pool.stats().abandoned(), bench.calls(Method::Open));
    bench.release();
    eventually("late ones are closed", || {
        pool.stats().abandoned() == 0 && bench.born() >= 3 && bench.alive() == 0
    });
    assert_empty(&pool.stats());
    eventually("the next works", || pool.get("a").is_ok());
}

#[test]
fn a_settling_or_a_check_that_never_returns_costs_one_connection() {
    let _watchdog = watchdog();
    for method in [Method::Settle, Method::Check] {
        let lab = Lab::new(move |called, before| match called {
            _ if (called, before) == (method, 0) => Act::Hang,
            Method::HasCheck if method == Method::Check => Act::Later,
            Method::Reset if method == Method::Settle => Act::Later,
            _ => Act::Go,
        });
        let bench = lab.bench();
        let builder = Pool::builder(lab).max_per_endpoint(1).check_after(Duration::ZERO);
        let brief = Duration::from_millis(50);
        let pool = builder.check_timeout(brief).settle_timeout(brief).build().unwrap();
        drop(pool.get("a").unwrap());
        assert_eq!(pool.get_timeout("a", SOON).unwrap().number, 1, "{method:?}");
        assert_eq!(pool.stats().closed_for(CloseReason::TooLate), 1);
        assert_eq!(pool.stats().abandoned(), 1);
        bench.release();
        eventually("it is closed when it returns", || bench.alive() <= 1);
        eventually("it counts no more", || pool.stats().abandoned() == 0);
        assert_balanced(&pool.stats());
    }
}

#[test]
fn a_close_that_never_returns_delays_nobody() {
    let _watchdog = watchdog();
    let lab = Lab::new(|method, _| if method == Method::Close { Act::Hang } else { Act::Go });
    let bench = lab.bench();
    let pool = Pool::builder(lab).max_per_endpoint(1).build().unwrap();
    for number in 0..5 {
        let conn = pool.get_timeout("a", SOON).unwrap();
        assert_eq!(conn.number, number);
        PooledConn::discard(conn);
    }
    drop(pool);
    bench.release();
    eventually("all are closed in the end", || bench.alive() == 0);
}

#[test]
fn more_attempts_that_hang_than_may_be_abandoned_hold_their_room_and_errors_say_so() {
    let _watchdog = watchdog();
    let lab = Lab::new(|method, _| if method == Method::Open { Act::Hang } else { Act::Go });
    let bench = lab.bench();
    let brief = Duration::from_millis(20);
    let builder = Pool::builder(lab).connect_timeout(brief).max_per_endpoint(4);
    let pool = builder.build().unwrap();
    let mut last = None;
    eventually("sixteen are abandoned, and the endpoint is full of others", || {
        last = pool.get_timeout("a", brief * 2).err();
        pool.stats().abandoned() == 16 && pool.stats().connecting() == 4
    });
    eventually("the errors say so", || {
        let error = pool.get_timeout("a", brief * 5).unwrap_err();
        error.to_string().contains("4 stuck past their deadline")
    });
    assert!(last.is_some());
    bench.release();
    eventually("everything is back", || {
        pool.stats().abandoned() == 0 && pool.stats().connecting() == 0
    });
    eventually("and works", || pool.get_timeout("a", SOON).is_ok());
    assert_balanced(&pool.stats());
}

#[test]
fn boxed_connectors_of_different_make_serve_one_type_of_pool() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let connector: BoxConnector<warmline::Address, Socket> = Box::new(TcpConnector::new());
    let pool = Pool::builder(connector).build().unwrap();
    for _ in 0..3 {
        ask(&mut pool.get(&server.name()).unwrap()).unwrap();
    }
    std::io::Write::write_all(&mut pool.get(&server.name()).unwrap(), b"x").unwrap();
    assert_eq!(pool.stats().closed_for(CloseReason::Unfinished), 1, "the box hides no socket");

    let lab: BoxConnector<String, Item> = Box::new(Lab::sound());
    let pool = Pool::builder(lab).build().unwrap();
    assert_eq!(pool.get("a").unwrap().number, 0);
    assert_eq!(pool.get("a").unwrap().number, 0);
}

/// A client library that does everything itself and knows one server.
struct Client(Sender<&'static str>);

impl Connector for Client {
    type Key = One;
    type Conn = Vec<u8>;

    fn open(&self, _: &One, opening: &mut Opening) -> Result<Vec<u8>, BoxError> {
        opening.take_socket().expect_err("its plan asked for no socket");
        assert!(opening.is_wanted() && !opening.deadline().has_passed());
        self.0.send("opened")?;
        Ok(Vec::new())
    }
}

#[test]
fn a_blocking_client_needs_no_more_than_open() {
    let _watchdog = watchdog();
    let (log, logged) = unbounded();
    let endpoint = Endpoint::of(Client(log)).unwrap();
    endpoint.get().unwrap().push(1);
    assert_eq!(*endpoint.get().unwrap(), [1]);
    assert_eq!(logged.try_iter().count(), 1);
}

/// Asks a pool for a connection while it opens one.
struct Nested<N: Fn() -> Result<(), Error> + Send + Sync + 'static>(N);

impl<N: Fn() -> Result<(), Error> + Send + Sync + 'static> Connector for Nested<N> {
    type Key = String;
    type Conn = ();

    fn open(&self, _: &String, _: &mut Opening) -> Result<(), BoxError> {
        (self.0)().map_err(Into::into)
    }
}

type OwnPool = std::sync::OnceLock<Pool<BoxConnector<String, ()>>>;

#[test]
fn waiting_for_the_own_pool_inside_open_is_rejected_at_once() {
    let _watchdog = watchdog();
    let own = std::sync::Arc::new(OwnPool::new());
    let (seen, kinds) = unbounded();
    let nested = Nested({
        let own = std::sync::Arc::clone(&own);
        move || {
            let pool = own.get().unwrap();
            let hour = Duration::from_secs(3600);
            seen.send(pool.get_timeout("b", hour).unwrap_err().kind()).unwrap();
            let endpoint = pool.endpoint("c")?;
            seen.send(endpoint.get_timeout(hour).unwrap_err().kind()).unwrap();
            seen.send(endpoint.warm(1, hour).unwrap_err().kind()).unwrap();
            Ok(())
        }
    });
    let boxed: BoxConnector<String, ()> = Box::new(nested);
    own.set(Pool::builder(boxed).build().unwrap()).unwrap();
    drop(own.get().unwrap().get_timeout("a", SOON).unwrap());
    assert_eq!(kinds.try_iter().collect::<Vec<_>>(), [ErrorKind::Rejected; 3]);
}

#[test]
fn waiting_for_another_pool_inside_open_is_fine() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let other = Pool::tcp();
    let name = server.name();
    let nested =
        Nested(move || ask(&mut other.get(&name)?).map_err(|e| Error::config(e.to_string())));
    let pool = Pool::builder(nested).build().unwrap();
    drop(pool.get_timeout("a", SOON).unwrap());
    assert_eq!(server.accepted(), 1);
}
