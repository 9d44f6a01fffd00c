//! Checkouts that are begun now and awaited later: what arrives, when, and in what order.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use warmline::crossbeam_channel::{
    RecvError, Select, TryRecvError, after, bounded, never, select, unbounded,
};
use warmline::{
    BoxConnector, BoxError, CloseReason, Connector, Endpoint, Error, ErrorKind, Failure, Opening,
    Phase, Pool, PooledConn, Request, TcpConnector,
};

use crate::support::faults::{BlackHole, Refusing};
use crate::support::foreign::Unwatched;
use crate::support::lab::{Act, Lab, Method};
use crate::support::server::Server;
use crate::support::{SOON, ask, assert_balanced, eventually, tcp, watchdog};

const LONG: Duration = Duration::from_secs(3600);

/// Waits for the answer, as long as tests wait for anything.
fn await_answer<C: Connector>(request: &Request<C>) -> Result<PooledConn<C>, Error> {
    request.receiver().recv_timeout(SOON).unwrap()
}

/// The answer, if it is there already.
fn answer<C: Connector>(request: &Request<C>) -> Option<Result<PooledConn<C>, Error>> {
    request.receiver().try_recv().ok()
}

/// An endpoint that may have one connection, and that connection.
fn full(server: &Server) -> (Endpoint<TcpConnector>, PooledConn<TcpConnector>) {
    let pool = tcp().max_per_endpoint(1).build().unwrap();
    let endpoint = pool.endpoint(&server.name()).unwrap();
    let held = endpoint.get().unwrap();
    (endpoint, held)
}

#[test]
fn one_thread_waits_for_several_pools_for_work_and_for_a_time_out() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let (endpoint, held) = full(&server);
    let mut held = Some(held);
    let lab = Lab::new(|method, _| if method == Method::Open { Act::Hang } else { Act::Go });
    let bench = lab.bench();
    let other = Pool::builder(lab).build().unwrap();
    let (give, work) = unbounded();
    give.send("first").unwrap();

    let (tcp, lab) = (endpoint.request().unwrap(), other.request("a").unwrap());
    let (mut from_tcp, mut from_lab) = (tcp.receiver().clone(), lab.receiver().clone());
    let (mut time_out, mut events) = (never(), Vec::new());
    while events.last() != Some(&"time-out") {
        select! {
            recv(from_tcp) -> conn => {
                ask(&mut conn.unwrap().unwrap()).unwrap();
                // Answered, a receiver is always ready.
                assert_eq!(from_tcp.try_recv().unwrap_err(), TryRecvError::Disconnected);
                from_tcp = never();
                events.push("tcp");
                bench.release();
            }
            recv(from_lab) -> item => {
                assert_eq!(item.unwrap().unwrap().number, 0);
                from_lab = never();
                events.push("lab");
                time_out = after(Duration::from_millis(5));
            }
            recv(work) -> what => {
                events.push(what.unwrap());
                drop(held.take());
            }
            recv(time_out) -> _ => events.push("time-out"),
        }
    }
    assert_eq!(events, ["first", "tcp", "lab", "time-out"]);
    assert_eq!((endpoint.stats().idle(), other.stats().idle()), (1, 1));
}

#[test]
fn of_several_servers_the_first_that_answers_is_taken_and_nobody_waits_for_the_others() {
    let _watchdog = watchdog();
    let (hole, full, good) = (BlackHole::new(), Server::echo(), Server::echo());
    let pool = tcp().max_per_endpoint(1).connect_timeout(LONG).build().unwrap();
    let held = pool.get(&full.name()).unwrap();
    let names = [hole.name(), full.name(), good.name()];
    let requests = names.each_ref().map(|name| pool.request(name).unwrap());
    let mut select = Select::new();
    for request in &requests {
        select.recv(request.receiver());
    }
    let ready = select.select_timeout(SOON).unwrap();
    let index = ready.index();
    let mut conn = ready.recv(requests[index].receiver()).unwrap().unwrap();
    drop(requests);
    assert_eq!(PooledConn::endpoint(&conn).ip(), Some(good.address()));
    ask(&mut conn).unwrap();
    assert_eq!((pool.stats().waiting(), pool.stats().in_use()), (0, 2));
    drop((conn, held));
    assert_eq!(pool.stats().idle(), 2);
}

#[test]
fn an_idle_connection_has_arrived_when_the_request_is_made() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let pool = Pool::tcp();
    drop(pool.get(&server.name()).unwrap());
    let request = pool.request(&server.name()).unwrap();
    assert_eq!((pool.stats().in_use(), pool.stats().waiting()), (1, 0));
    assert_eq!(request.endpoint().ip(), Some(server.address()));
    let mut conn = answer(&request).expect("it need not wait").unwrap();
    assert!(PooledConn::is_reused(&conn));
    ask(&mut conn).unwrap();
    assert_eq!(request.receiver().recv().unwrap_err(), RecvError, "one answer, and no more");
    drop(conn);
    server.assert_accepted(1);
    assert_eq!((pool.stats().checkouts(), pool.stats().idle()), (2, 1));
}

#[test]
fn what_comes_back_is_handed_to_a_request_directly_whoever_else_is_about() {
    let _watchdog = watchdog();
    let server = Server::echo();
    // Before that time a blocked caller could be overtaken.
    let pool = tcp().max_per_endpoint(1).fair_after(LONG).build().unwrap();
    let endpoint = pool.endpoint(&server.name()).unwrap();
    let mut held = endpoint.get().unwrap();
    for _ in 0..100 {
        let request = endpoint.request().unwrap();
        assert!(request.receiver().is_empty());
        drop(held);
        assert!(endpoint.try_get().is_none(), "it is spoken for");
        held = answer(&request).expect("it is there as soon as it came back").unwrap();
    }
    assert_eq!((endpoint.stats().opened(), endpoint.stats().checkouts()), (1, 101));
}

#[test]
fn requests_and_blocked_callers_are_served_in_the_order_they_came() {
    let _watchdog = watchdog();
    for fair_after in [Duration::ZERO, LONG] {
        let server = Server::echo();
        let pool = tcp().max_per_endpoint(1).fair_after(fair_after).build().unwrap();
        let endpoint = pool.endpoint(&server.name()).unwrap();
        let held = endpoint.get().unwrap();
        let (served, order) = unbounded();
        std::thread::scope(|scope| {
            for number in 0..20 {
                let request = (number % 2 == 0).then(|| endpoint.request().unwrap());
                let (endpoint, served) = (&endpoint, served.clone());
                scope.spawn(move || {
                    let conn = match &request {
                        Some(request) => await_answer(request),
                        None => endpoint.get_timeout(SOON),
                    };
                    served.send(number).unwrap();
                    ask(&mut conn.unwrap()).unwrap();
                });
                eventually("the next in the queue", || endpoint.stats().waiting() == number + 1);
            }
            drop(held);
        });
        assert_eq!(order.try_iter().collect::<Vec<_>>(), (0..20).collect::<Vec<_>>());
        server.assert_accepted(1);
    }
}

#[test]
fn what_is_known_at_once_is_said_by_the_call_itself() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let pool = tcp().max_per_endpoint(1).max_waiting(1).build().unwrap();
    assert_eq!(pool.request("nonsense").unwrap_err().kind(), ErrorKind::Config);
    let endpoint = pool.endpoint(&server.name()).unwrap();
    let _held = endpoint.get().unwrap();
    let waits = endpoint.request().unwrap();
    for error in [endpoint.request().unwrap_err(), pool.request(&server.name()).unwrap_err()] {
        assert_eq!((error.kind(), error.phase()), (ErrorKind::Saturated, Some(Phase::Queue)));
        assert_eq!(error.endpoint(), Some(&*server.name()));
    }
    assert_eq!(endpoint.stats().refused(), 2);
    drop(waits);
    let waits = endpoint.request().expect("there is a place again");
    pool.close();
    assert_eq!(await_answer(&waits).unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(endpoint.request().unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(pool.request(&server.name()).unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn a_failure_of_a_moment_ago_is_said_at_once_and_later_ones_arrive() {
    let _watchdog = watchdog();
    let refusing = Refusing::new();
    let pool = Pool::tcp();
    let (mut at_once, mut arrived) = (0, 0);
    // Whether the next comes within the 50 ms is up to the machine.
    eventually("both ways", || {
        let error = match pool.request(&refusing.name()) {
            Err(error) => {
                at_once += 1;
                assert_eq!(error.waited(), None);
                error
            }
            Ok(request) => {
                let error = await_answer(&request).unwrap_err();
                arrived += 1;
                assert!(error.waited().is_some());
                error
            }
        };
        assert_eq!((error.kind(), error.failure()), (ErrorKind::Connect, Some(Failure::Refused)));
        assert_eq!(error.phase(), Some(Phase::Connect));
        assert_eq!(error.endpoint(), Some(&*refusing.name()));
        at_once > 2 && arrived > 2
    });
    assert_eq!(pool.stats().refused(), at_once);
}

#[test]
fn all_who_wait_learn_of_a_failure_each_through_its_own_receiver() {
    let _watchdog = watchdog();
    let lab = Lab::new(|method, _| if method == Method::Open { Act::Hang } else { Act::Go });
    let bench = lab.bench();
    let builder = Pool::builder(lab).max_per_endpoint(1);
    let pool = builder.connect_timeout(Duration::from_millis(300)).build().unwrap();
    let requests = [(); 4].map(|()| pool.request("a").unwrap());
    let mut waited = Vec::new();
    for request in &requests {
        let error = await_answer(request).unwrap_err();
        let what = (error.kind(), error.failure(), error.endpoint());
        assert_eq!(what, (ErrorKind::Connect, Some(Failure::Timeout), Some("a")));
        waited.push(error.waited().unwrap());
    }
    assert!(waited[0] >= Duration::from_millis(300), "it was there from the first: {waited:?}");
    bench.release();
}

/// Asks its own pool while it opens a connection.
struct Nested(Arc<OnceLock<Pool<BoxConnector<String, ErrorKind>>>>);

impl Connector for Nested {
    type Key = String;
    type Conn = ErrorKind;

    fn open(&self, key: &String, _: &mut Opening) -> Result<ErrorKind, BoxError> {
        let own = self.0.get().ok_or("not yet")?;
        let other = if key == "a" { "b" } else { "a" };
        Ok(own.request(other).map_or_else(|error| error.kind(), |_| ErrorKind::Stale))
    }
}

#[test]
fn a_request_to_the_own_pool_inside_open_is_rejected_whatever_is_idle() {
    let _watchdog = watchdog();
    let own = Arc::new(OnceLock::new());
    let boxed: BoxConnector<String, ErrorKind> = Box::new(Nested(Arc::clone(&own)));
    own.set(Pool::builder(boxed).build().unwrap()).unwrap();
    for name in ["a", "b"] {
        let seen = await_answer(&own.get().unwrap().request(name).unwrap()).unwrap();
        assert_eq!(*seen, ErrorKind::Rejected);
    }
    own.get().unwrap().close();
}

#[test]
fn an_eviction_costs_a_request_nothing_but_the_wait_for_another() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let (endpoint, held) = full(&server);
    let request = endpoint.request().unwrap();
    endpoint.evict();
    drop(held);
    let mut conn = await_answer(&request).unwrap();
    assert!(!PooledConn::is_reused(&conn));
    ask(&mut conn).unwrap();
    drop(conn);

    // What has arrived and was not received is in use: it ends when it comes back.
    let request = endpoint.request().unwrap();
    endpoint.evict();
    let mut conn = answer(&request).expect("it had arrived").unwrap();
    ask(&mut conn).unwrap();
    drop(conn);
    let stats = endpoint.stats();
    assert_eq!((stats.closed_for(CloseReason::Evicted), stats.total()), (2, 0));
    assert_balanced(&stats);
}

#[test]
fn a_request_does_not_keep_its_pool_open() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let (endpoint, mut held) = full(&server);
    let waits = endpoint.request().unwrap();
    let kept = waits.receiver().clone();
    drop(endpoint);
    let error = await_answer(&waits).unwrap_err();
    assert_eq!((error.kind(), error.endpoint()), (ErrorKind::Closed, Some(&*server.name())));
    assert_eq!(kept.try_recv().unwrap_err(), TryRecvError::Disconnected);
    ask(&mut held).expect("who has one may finish");
}

#[test]
fn what_had_arrived_outlives_the_pool_as_any_guard_does() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let pool = Pool::tcp();
    drop(pool.get(&server.name()).unwrap());
    let (request, forgone) = (pool.request(&server.name()).unwrap(), pool.request(&server.name()));
    drop(pool);
    ask(&mut answer(&request).expect("it had arrived").unwrap()).unwrap();
    drop(forgone);
    eventually("all are closed", || server.open() == 0);
}

#[test]
fn an_idle_connection_found_dead_is_replaced_for_a_request() {
    let _watchdog = watchdog();
    let server = Server::echo();
    // Unwatched, they are looked at when they go out.
    let pool = Pool::builder(Unwatched).probe_after(Duration::ZERO).build().unwrap();
    let endpoint = pool.endpoint(&server.name()).unwrap();
    drop([endpoint.get().unwrap(), endpoint.get().unwrap()]);
    eventually("both are there", || server.open() == 2);
    server.hang_up();
    eventually("both are dead", || server.open() == 0);
    assert_eq!(endpoint.stats().idle(), 2);
    let mut conn = await_answer(&endpoint.request().unwrap()).unwrap();
    ask(&mut conn).unwrap();
    assert_eq!((endpoint.stats().closed_for(CloseReason::PeerClosed), server.accepted()), (2, 3));
}

#[test]
fn a_connection_that_fails_its_check_costs_a_request_neither_its_answer_nor_its_place() {
    let _watchdog = watchdog();
    let lab = Lab::new(|method, before| match (method, before) {
        (Method::HasCheck, _) => Act::Later,
        (Method::Check, 0) => Act::Hang,
        (Method::Check, 1) => Act::Fail,
        _ => Act::Go,
    });
    let bench = lab.bench();
    let builder = Pool::builder(lab).max_per_endpoint(1).check_after(Duration::ZERO);
    let endpoint = builder.check_timeout(SOON).build().unwrap().endpoint("a").unwrap();
    drop(endpoint.get().unwrap());
    let request = endpoint.request().unwrap();
    eventually("it is checked", || bench.calls(Method::Check) == 1);
    assert!(request.receiver().is_empty() && endpoint.stats().checking() == 1);
    bench.release();
    assert_eq!(await_answer(&request).unwrap().number, 0, "it passed");

    let (first, second) = (endpoint.request().unwrap(), endpoint.request().unwrap());
    let item = await_answer(&first).unwrap();
    assert_eq!(item.number, 1, "it failed, and another was opened");
    assert_eq!(endpoint.stats().closed_for(CloseReason::CheckFailed), 1);
    assert!(second.receiver().is_empty());
    drop(item);
    assert_eq!(await_answer(&second).unwrap().number, 1);
}

#[test]
fn a_request_that_is_given_a_dead_connection_keeps_its_place_until_it_has_another() {
    let _watchdog = watchdog();
    let mut met = 0;
    // Only where the blocked caller is slow does a request get what had been laid down for it.
    eventually("it is met often enough", || {
        met += usize::from(meets_a_dead_one());
        met >= 20
    });
}

/// A blocked caller, then two requests, for two connections that come back one right after the
/// other, the second of them dead; true if a request was given that one.
fn meets_a_dead_one() -> bool {
    let (this_thread, looks) = (std::thread::current().id(), AtomicUsize::new(0));
    let lab = Lab::new(move |method, _| match method {
        // The first two are at those that come back, the third at what goes out to the request.
        Method::IsOpen if std::thread::current().id() == this_thread => {
            if looks.fetch_add(1, Ordering::SeqCst) == 2 { Act::Fail } else { Act::Go }
        }
        _ => Act::Go,
    });
    let pool = Pool::builder(lab).max_per_endpoint(2).fair_after(LONG).build().unwrap();
    let endpoint = pool.endpoint("a").unwrap();
    let held = [endpoint.get().unwrap(), endpoint.get().unwrap()];
    let (keep, kept) = bounded::<()>(0);
    std::thread::scope(|scope| {
        let (endpoint, keep) = (&endpoint, keep); // dropped by a panic as well
        scope.spawn(move || {
            let _conn = endpoint.get_timeout(SOON).unwrap();
            let _released = kept.recv();
        });
        eventually("it waits", || endpoint.stats().waiting() == 1);
        let (first, second) = (endpoint.request().unwrap(), endpoint.request().unwrap());
        drop(held);
        let item = await_answer(&first).expect("the first is served first");
        assert!(second.receiver().is_empty(), "there is none for it");
        let was_met = item.number != 1;
        drop(item);
        drop(await_answer(&second).expect("now it is its turn"));
        drop(keep);
        was_met
    })
}
