//! A few threads and one moment: many schedules of it, at random and by priorities.

#![cfg(warmline_sim)]

use std::sync::Arc;
use std::time::Duration;

use simulation::kit::{address, frame};
use simulation::play::expect_nothing_left;
use warmline::sim::net::{self, FRAME, Manners, Place};
use warmline::sim::{self, Config, join, spawn};
use warmline::{
    Closed, Connected, Deadline, Endpoint, EndpointLimits, ErrorKind, Observer, Pool, PooledConn,
    TcpConnector,
};

/// Schedules for each moment: so many, or as the environment says.
fn schedules() -> u64 {
    let asked = std::env::var("WARMLINE_SCHEDULES").ok();
    asked.map_or(3_000, |text| text.parse().expect("WARMLINE_SCHEDULES is a number"))
}

type Conn = PooledConn<TcpConnector>;

/// Plays a moment in many schedules. What it asserts, and what the pool asserts of itself, must
/// hold in each; and nothing may be left after it.
fn explore(moment: impl Fn() + Send + Sync + 'static) {
    let (mut seed, most) = (0, schedules());
    let next = move || {
        seed += 1;
        let mut config = Config::new(seed);
        match seed % 4 {
            0 => config.stays = 500,
            1 => config.lags = 10,
            // So many switches at the wrong moment are what most defects take.
            _ => config.changes = Some((seed / 4 % 5) as u32),
        }
        (seed <= most).then_some(config)
    };
    let body = move |_| {
        net::set_host(Place::Address(address(0)), Manners::calm());
        moment();
        expect_nothing_left();
    };
    if let Err(failure) = sim::run(next, body) {
        panic!("schedule {}: {:#?}", failure.seed, failure.why);
    }
}

fn endpoint_of(builder: warmline::Builder<TcpConnector>) -> Endpoint<TcpConnector> {
    let pool = builder.build().expect("the settings make sense");
    pool.endpoint(&address(0)).expect("open")
}

fn builder() -> warmline::Builder<TcpConnector> {
    Pool::builder(TcpConnector::new()).checkout_timeout(Duration::from_secs(5))
}

fn ask(conn: &mut Conn) {
    use std::io::{Read, Write};
    let question = frame(7);
    let mut answer = [0; FRAME];
    conn.write_all(&question).and_then(|()| conn.read_exact(&mut answer)).expect("a calm host");
    assert_eq!(answer, question);
}

/// Everything is idle, and nobody is thought to wait.
fn assert_at_rest(endpoint: &Endpoint<TcpConnector>, idle: usize) {
    let stats = endpoint.stats();
    assert_eq!((stats.idle(), stats.total(), stats.waiting()), (idle, idle, 0), "{stats:?}");
    assert_eq!(stats.opened(), stats.closed() + stats.detached() + idle as u64, "{stats:?}");
}

fn threads<T: Send + 'static>(
    many: usize,
    body: impl Fn(usize) -> T + Clone + Send + 'static,
) -> Vec<T> {
    let started: Vec<_> = (0..many)
        .map(|number| {
            let body = body.clone();
            spawn(format!("user-{number}"), move || body(number))
        })
        .collect();
    started.into_iter().map(join).collect()
}

#[test]
fn one_connection_goes_round_among_all_who_wait_for_it() {
    for fair_after in [Duration::ZERO, Duration::from_millis(2)] {
        explore(move || {
            let endpoint = endpoint_of(builder().max_per_endpoint(1).fair_after(fair_after));
            threads(4, {
                let endpoint = endpoint.clone();
                move |_| {
                    for _ in 0..3 {
                        drop(endpoint.get().expect("it comes round"));
                    }
                }
            });
            assert_at_rest(&endpoint, 1);
            assert_eq!((endpoint.stats().opened(), endpoint.stats().checkouts()), (1, 12));
        });
    }
}

#[test]
fn a_return_at_the_moment_of_a_deadline_goes_to_the_caller_or_stays() {
    explore(|| {
        let endpoint = endpoint_of(builder().max_per_endpoint(1));
        let held = endpoint.get().expect("open");
        let moment = Duration::from_millis(3);
        let callers: Vec<_> = (0..3)
            .map(|_| {
                let endpoint = endpoint.clone();
                spawn("caller", move || endpoint.get_timeout(moment).map(drop).is_ok())
            })
            .collect();
        sim::sleep(moment);
        drop(held);
        let _served = callers.into_iter().map(join).filter(|served| *served).count();
        assert_at_rest(&endpoint, 1);
    });
}

#[test]
fn news_of_a_connection_that_is_gone_does_not_end_the_one_in_its_place() {
    explore(|| {
        let endpoint = endpoint_of(builder().max_per_endpoint(1));
        let place = Place::Address(address(0));
        let mut conn = endpoint.get().expect("open");
        ask(&mut conn);
        let peer = spawn("peer", move || net::end_connections(&place, false));
        PooledConn::discard(conn);
        join(peer);
        // What is opened now has the number, and the place, of the one before.
        threads(2, {
            let endpoint = endpoint.clone();
            move |_| drop(endpoint.get().expect("the host is calm"))
        });
        sim::sleep(Duration::from_millis(5));
        let stats = endpoint.stats();
        assert!(stats.closed() <= 2, "the one that was discarded, and one that heard a farewell");
        assert_eq!(stats.in_use() + stats.connecting(), 0);
    });
}

#[test]
fn an_answer_to_a_request_that_is_being_dropped_goes_back() {
    explore(|| {
        let endpoint = endpoint_of(builder().max_per_endpoint(1));
        let held = endpoint.get().expect("open");
        let requests: Vec<_> = (0..3).map(|_| endpoint.request().expect("queued")).collect();
        let droppers: Vec<_> =
            requests.into_iter().map(|request| spawn("dropper", move || drop(request))).collect();
        drop(held);
        droppers.into_iter().for_each(join);
        drop(endpoint.get().expect("it is nobody else's"));
        assert_at_rest(&endpoint, 1);
    });
}

#[test]
fn requests_and_callers_are_all_answered_whoever_comes_first() {
    explore(|| {
        let endpoint = endpoint_of(builder().max_per_endpoint(2));
        threads(4, {
            let endpoint = endpoint.clone();
            move |number| {
                for _ in 0..2 {
                    if number % 2 == 0 {
                        drop(endpoint.get().expect("it comes round"));
                        continue;
                    }
                    let request = endpoint.request().expect("queued");
                    let answer = request.receiver().recv().expect("one answer arrives");
                    drop(answer.expect("it comes round"));
                }
            }
        });
        let stats = endpoint.stats();
        assert_eq!((stats.in_use(), stats.waiting(), stats.closed()), (0, 0, 0));
    });
}

#[test]
fn closing_at_any_moment_answers_everybody_and_keeps_nothing() {
    explore(|| {
        let endpoint = endpoint_of(builder().max_per_endpoint(2).min_idle(1));
        let users: Vec<_> = (0..4)
            .map(|number| {
                let endpoint = endpoint.clone();
                spawn("user", move || {
                    loop {
                        let result = if number == 0 {
                            endpoint.request().and_then(|request| {
                                request.receiver().recv().expect("one answer arrives")
                            })
                        } else {
                            endpoint.get()
                        };
                        match result {
                            Ok(conn) => drop(conn),
                            Err(error) => return error.kind(),
                        }
                        sim::sleep(Duration::from_micros(40));
                    }
                })
            })
            .collect();
        sim::sleep(Duration::from_micros(sim::random_below(600)));
        let closers: Vec<_> = (0..2)
            .map(|_| {
                let pool = endpoint.pool();
                spawn("closer", move || pool.drain(Deadline::after(Duration::from_secs(30))))
            })
            .collect();
        for user in users {
            assert_eq!(join(user), ErrorKind::Closed);
        }
        for closer in closers {
            join(closer).expect("all connections come home");
        }
        assert_at_rest(&endpoint, 0);
    });
}

#[test]
fn the_last_handle_may_go_while_connections_are_out() {
    explore(|| {
        let endpoint = endpoint_of(builder().max_per_endpoint(2).min_idle(1));
        let held = endpoint.get().expect("open");
        let handle = spawn("handle", move || drop(endpoint));
        let user = spawn("user", move || {
            let mut held = held;
            ask(&mut held);
            drop(held);
        });
        join(handle);
        join(user);
    });
}

/// Drops the pool from within.
#[derive(Clone, Default)]
struct Ending(Arc<parking_lot::Mutex<Option<Endpoint<TcpConnector>>>>);

impl Observer for Ending {
    fn connected(&self, _: &Connected) {}

    fn closed(&self, _: &Closed) {
        let last = self.0.lock().take();
        drop(last);
    }
}

#[test]
fn the_last_handle_may_go_on_a_thread_of_the_pool() {
    explore(|| {
        let ending = Ending::default();
        let endpoint = endpoint_of(builder().max_per_endpoint(1).observer(ending.clone()));
        let conn = endpoint.get().expect("open");
        *ending.0.lock() = Some(endpoint);
        PooledConn::discard(conn);
    });
}

#[test]
fn evicting_while_connections_come_back_leaves_none_of_the_old() {
    explore(|| {
        let endpoint = endpoint_of(builder().max_per_endpoint(2));
        let held = [endpoint.get().expect("open"), endpoint.get().expect("open")];
        let users = held.map(|conn| spawn("user", move || drop(conn)));
        let evicting = endpoint.clone();
        join(spawn("evictor", move || evicting.evict()));
        users.into_iter().for_each(join);
        assert_at_rest(&endpoint, 0);
        assert!(!PooledConn::is_reused(&endpoint.get().expect("a new one")));
    });
}

#[test]
fn limits_that_rise_serve_those_who_wait_and_those_that_fall_close_what_comes_back() {
    explore(|| {
        let endpoint = endpoint_of(builder().max_total(4).max_per_endpoint(1));
        let held = endpoint.get().expect("open");
        let waiting = endpoint.clone();
        let waiter = spawn("waiter", move || waiting.get().map(drop));
        let limits = |most| EndpointLimits::new().max_per_endpoint(most);
        endpoint.set_limits(limits(2)).expect("they make sense");
        join(waiter).expect("there is room for two");
        endpoint.set_limits(limits(1)).expect("they make sense");
        drop(held);
        assert_at_rest(&endpoint, 1);
    });
}

#[test]
fn whoever_warms_and_whoever_asks_share_what_is_opened() {
    explore(|| {
        let endpoint = endpoint_of(builder().max_per_endpoint(2));
        let warming = endpoint.clone();
        let warmer = spawn("warmer", move || warming.warm(2, Duration::from_secs(3)));
        let asking = endpoint.clone();
        let caller = spawn("caller", move || asking.get().map(drop));
        assert_eq!(join(warmer).expect("the host is calm"), 2);
        join(caller).expect("the host is calm");
        assert_at_rest(&endpoint, 2);
    });
}
