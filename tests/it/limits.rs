//! Limits: who is beyond one is refused or waits, and everybody within them gets on.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use warmline::{
    Builder, CloseReason, Endpoint, EndpointLimits, ErrorKind, Phase, PooledConn, TcpConnector,
};

use crate::support::faults::BlackHole;
use crate::support::server::Server;
use crate::support::{
    SOON, ask, assert_balanced, assert_empty, assert_room, eventually, tcp, watchdog,
};

/// Whoever waits that long, instead of being refused, does not let a test end.
const LONG: Duration = Duration::from_secs(3600);

fn exchange(endpoint: &Endpoint<TcpConnector>) -> io::Result<()> {
    ask(&mut endpoint.get_timeout(SOON)?)
}

#[test]
fn with_all_places_to_wait_taken_others_are_refused_at_once_and_those_who_wait_are_served() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let builder = tcp().max_per_endpoint(2).max_waiting(8).checkout_timeout(LONG);
    let pool = builder.build().unwrap();
    let endpoint = pool.endpoint(&server.name()).unwrap();
    let held = [endpoint.get().unwrap(), endpoint.get().unwrap()];
    std::thread::scope(|scope| {
        let waiting: Vec<_> = (0..8).map(|_| scope.spawn(|| exchange(&endpoint))).collect();
        eventually("all wait who may", || endpoint.stats().waiting() == 8);
        for _ in 0..10 {
            for error in [endpoint.get().unwrap_err(), pool.get(&server.name()).unwrap_err()] {
                let (kind, phase) = (error.kind(), error.phase());
                assert_eq!((kind, phase), (ErrorKind::Saturated, Some(Phase::Queue)), "{error}");
            }
        }
        assert_eq!((endpoint.stats().refused(), endpoint.stats().waiting()), (20, 8));
        drop(held);
        for waiting in waiting {
            waiting.join().unwrap().expect("who waited already is served");
        }
    });
    assert_eq!(endpoint.stats().checkouts(), 10);
    server.assert_accepted(2);
    assert_balanced(&endpoint.stats());
}

#[test]
fn who_gives_up_waiting_leaves_the_place_to_another() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let pool = tcp().max_per_endpoint(1).max_waiting(1).build().unwrap();
    let endpoint = pool.endpoint(&server.name()).unwrap();
    let _held = endpoint.get().unwrap();
    for _ in 0..10 {
        let error = endpoint.get_timeout(Duration::from_millis(1)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout, "it waited: {error}");
    }
    assert_eq!((endpoint.stats().refused(), endpoint.stats().timed_out()), (0, 10));
}

#[test]
fn a_queue_that_is_full_turns_nobody_away_from_another_endpoint() {
    let _watchdog = watchdog();
    let (crowded, quiet) = (Server::echo(), Server::echo());
    let builder = tcp().max_total(2).max_per_endpoint(1).max_waiting(1);
    let pool = builder.build().unwrap();
    let [crowded, quiet] = [&crowded, &quiet].map(|it| pool.endpoint(&it.name()).unwrap());
    let held = crowded.get().unwrap();
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| exchange(&crowded));
        eventually("its queue is full", || crowded.stats().waiting() == 1);
        assert_eq!(crowded.get_timeout(LONG).unwrap_err().kind(), ErrorKind::Saturated);
        exchange(&quiet).expect("there is room");
        let also_held = quiet.get().unwrap();
        let also_waits = scope.spawn(|| exchange(&quiet));
        eventually("it has a queue of its own", || quiet.stats().waiting() == 1);
        assert_eq!(quiet.get_timeout(LONG).unwrap_err().kind(), ErrorKind::Saturated);
        drop((held, also_held));
        waits.join().unwrap().unwrap();
        also_waits.join().unwrap().unwrap();
    });
    assert_eq!(pool.stats().refused(), 2);
}

#[test]
fn forty_endpoints_with_room_for_eight_connections_all_finish() {
    let _watchdog = watchdog();
    let servers: Vec<_> = (0..40).map(|_| Server::echo()).collect();
    let pool = tcp().max_total(8).build().unwrap();
    std::thread::scope(|scope| {
        for server in &servers {
            let endpoint = pool.endpoint(&server.name()).unwrap();
            for _ in 0..2 {
                let (pool, endpoint) = (&pool, endpoint.clone());
                scope.spawn(move || {
                    for _ in 0..25 {
                        exchange(&endpoint).unwrap();
                        assert!(pool.stats().total() <= 8, "{}", pool.stats());
                    }
                });
            }
        }
    });
    let stats = pool.stats();
    assert_eq!((stats.checkouts(), stats.timed_out(), stats.refused()), (2_000, 0, 0));
    assert!(servers.iter().all(|server| server.accepted() > 0), "none was forgotten");
    assert_balanced(&stats);
    pool.close();
    assert_empty(&pool.stats());
}

#[test]
fn a_crowd_at_one_endpoint_that_never_rests_leaves_room_for_others() {
    let _watchdog = watchdog();
    let (crowded, others) = (Server::echo(), [(); 6].map(|()| Server::echo()));
    let pool = tcp().max_total(3).build().unwrap();
    let crowded = pool.endpoint(&crowded.name()).unwrap();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..12 {
            scope.spawn(|| {
                while !is_over.load(Ordering::SeqCst) {
                    exchange(&crowded).unwrap();
                }
            });
        }
        eventually("they have all there is", || crowded.stats().total() == 3);
        let finish = others.each_ref().map(|other| {
            let endpoint = pool.endpoint(&other.name()).unwrap();
            scope.spawn(move || (0..20).try_for_each(|_| exchange(&endpoint)))
        });
        let finished = finish.map(|other| other.join().unwrap());
        is_over.store(true, Ordering::SeqCst);
        for other in finished {
            other.expect("the others get their turn");
        }
    });
    assert_eq!(pool.stats().timed_out(), 0);
    assert_balanced(&pool.stats());
}

/// What `build` says to these limits.
fn refusal(limits: impl FnOnce(Builder<TcpConnector>) -> Builder<TcpConnector>) -> String {
    let error = limits(tcp()).build().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    error.to_string()
}

#[test]
fn limits_that_nobody_could_get_on_with_are_refused_when_the_pool_is_built() {
    for (text, names) in [
        (refusal(|it| it.max_waiting(0)), ["max_waiting(0)", "must be"]),
        (refusal(|it| it.max_total(0).max_per_endpoint(0)), ["max_total(0)", "must be"]),
        (refusal(|it| it.min_idle(3).max_per_endpoint(2)), ["min_idle(3)", "max_per_endpoint(2)"]),
        (
            refusal(|it| it.min_idle(3).max_idle_per_endpoint(2)),
            ["min_idle(3)", "max_idle_per_endpoint(2)"],
        ),
        (
            refusal(|it| it.max_idle_per_endpoint(3).max_total(2)),
            ["max_idle_per_endpoint(3)", "max_total(2)"],
        ),
    ] {
        assert!(names.iter().all(|name| text.contains(name)), "{text}");
    }
}

#[test]
fn an_endpoint_may_have_more_connections_than_the_others_or_fewer() {
    let _watchdog = watchdog();
    let servers = [(); 3].map(|()| Server::echo());
    let pool = tcp().max_per_endpoint(2).build().unwrap();
    let [usual, large, small] = servers.each_ref().map(|it| pool.endpoint(&it.name()).unwrap());
    large.set_limits(EndpointLimits::new().max_per_endpoint(5)).unwrap();
    small.set_limits(EndpointLimits::new().max_per_endpoint(1)).unwrap();
    assert_room(&usual, 2);
    assert_room(&large, 5);
    assert_room(&small, 1);
    let idle = [usual.stats().idle(), large.stats().idle(), small.stats().idle()];
    assert_eq!(idle, [2, 5, 1], "as many may be idle");
    large.set_limits(EndpointLimits::new()).unwrap();
    assert_eq!(large.stats().idle(), 2, "they are as the pool's again");
    assert_room(&large, 2);
    assert_eq!(large.stats().closed_for(CloseReason::Surplus), 3);
    assert_balanced(&pool.stats());
}

#[test]
fn whoever_waits_is_served_when_the_limits_rise() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let builder = tcp().max_per_endpoint(1).checkout_timeout(LONG);
    let endpoint = builder.build().unwrap().endpoint(&server.name()).unwrap();
    let _held = endpoint.get().unwrap();
    let request = endpoint.request().unwrap();
    std::thread::scope(|scope| {
        let blocked = scope.spawn(|| exchange(&endpoint));
        eventually("both wait", || endpoint.stats().waiting() == 2);
        endpoint.set_limits(EndpointLimits::new().max_per_endpoint(3)).unwrap();
        let answer = request.receiver().recv_timeout(SOON).unwrap();
        ask(&mut answer.unwrap()).unwrap();
        blocked.join().unwrap().unwrap();
    });
    assert_eq!(endpoint.stats().waiting(), 0);
}

#[test]
fn when_the_limits_fall_idle_ones_are_closed_at_once_and_those_in_use_when_they_come_back() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let endpoint = tcp().build().unwrap().endpoint(&server.name()).unwrap();
    let mut held: Vec<_> = (0..6).map(|_| endpoint.get().unwrap()).collect();
    drop((held.pop(), held.pop()));
    endpoint.set_limits(EndpointLimits::new().max_per_endpoint(2)).unwrap();
    let surplus = || endpoint.stats().closed_for(CloseReason::Surplus);
    assert_eq!((endpoint.stats().idle(), endpoint.stats().in_use(), surplus()), (0, 4, 2));
    held.iter_mut().for_each(|conn| ask(conn).expect("in use they are left alone"));
    let waits = endpoint.request().unwrap();
    for left in [3, 2] {
        drop(held.pop());
        assert_eq!((endpoint.stats().total(), endpoint.stats().idle()), (left, 0));
    }
    assert!(waits.receiver().is_empty(), "they were not to be handed on");
    drop(held.pop());
    let conn = waits.receiver().try_recv().unwrap().unwrap();
    drop((conn, held));
    assert_eq!((endpoint.stats().idle(), surplus()), (2, 4));
    server.assert_accepted(6);
    assert_room(&endpoint, 2);
    assert_balanced(&endpoint.stats());
}

#[test]
fn an_endpoint_may_have_a_queue_of_its_own_length() {
    let _watchdog = watchdog();
    let servers = [Server::echo(), Server::echo()];
    let pool = tcp().max_per_endpoint(1).max_waiting(3).build().unwrap();
    let [short, usual] = servers.each_ref().map(|it| pool.endpoint(&it.name()).unwrap());
    short.set_limits(EndpointLimits::new().max_waiting(1)).unwrap();
    let _held = [short.get().unwrap(), usual.get().unwrap()];
    let _waits = short.request().unwrap();
    let error = short.get_timeout(LONG).unwrap_err();
    assert_eq!((error.kind(), short.stats().refused()), (ErrorKind::Saturated, 1));
    let _all_wait = [(); 3].map(|()| usual.request().unwrap());
    assert_eq!(usual.request().unwrap_err().kind(), ErrorKind::Saturated);
    short.set_limits(EndpointLimits::new().max_waiting(2)).unwrap();
    let _waits_too = short.request().expect("there is a place more");
}

#[test]
fn an_endpoint_may_keep_connections_ready_where_others_do_not() {
    let _watchdog = watchdog();
    let servers = [Server::echo(), Server::echo()];
    let pool = tcp().build().unwrap();
    let [kept, other] = servers.each_ref().map(|it| pool.endpoint(&it.name()).unwrap());
    kept.set_limits(EndpointLimits::new().min_idle(2)).unwrap();
    eventually("two are ready", || kept.stats().idle() == 2);
    let taken = kept.get().unwrap();
    eventually("another takes its place", || kept.stats().idle() == 2);
    PooledConn::discard(taken);
    kept.evict();
    eventually("others take their place", || kept.stats().idle() == 2);
    assert_eq!((other.stats().opened(), servers[1].accepted()), (0, 0));
    kept.set_limits(EndpointLimits::new()).unwrap();
    kept.evict();
    assert_eq!(kept.stats().total(), 0, "no more");
}

#[test]
fn an_endpoint_may_open_fewer_at_a_time() {
    let _watchdog = watchdog();
    let hole = BlackHole::new();
    let pool = tcp().connect_timeout(LONG).build().unwrap();
    let endpoint = pool.endpoint(&hole.name()).unwrap();
    endpoint.set_limits(EndpointLimits::new().max_connecting(2)).unwrap();
    let _requests = [(); 5].map(|()| endpoint.request().unwrap());
    assert_eq!((endpoint.stats().connecting(), endpoint.stats().waiting()), (2, 5));
    endpoint.set_limits(EndpointLimits::new().max_connecting(4)).unwrap();
    assert_eq!(endpoint.stats().connecting(), 4);
}

#[test]
fn limits_of_an_endpoint_that_cannot_be_met_are_refused_and_the_old_ones_hold() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let pool = tcp().max_total(8).max_idle(4).build().unwrap();
    let endpoint = pool.endpoint(&server.name()).unwrap();
    let new = EndpointLimits::new;
    endpoint.set_limits(new().max_per_endpoint(3)).unwrap();
    for (limits, names) in [
        (new().max_per_endpoint(9), ["max_per_endpoint(9)", "max_total(8)"]),
        (new().max_per_endpoint(0), ["max_per_endpoint(0)", "must be"]),
        (new().max_connecting(0), ["max_connecting(0)", "must be"]),
        (new().max_waiting(0), ["max_waiting(0)", "must be"]),
        (
            new().max_per_endpoint(2).max_idle_per_endpoint(3),
            ["max_idle_per_endpoint(3)", "max_per_endpoint(2)"],
        ),
        (new().min_idle(5), ["min_idle(5)", "max_idle(4)"]),
    ] {
        let error = endpoint.set_limits(limits).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        let text = error.to_string();
        assert!(names.iter().all(|name| text.contains(name)), "{text}");
    }
    assert_room(&endpoint, 3);
    pool.close();
    let error = endpoint.set_limits(new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
}

#[test]
fn an_endpoint_has_connections_kept_ready_again_as_soon_as_somebody_has_a_handle_again() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let pool = tcp().idle_timeout(Duration::from_millis(200)).build().unwrap();
    let is_left_alone = || eventually("nobody has a handle", || pool.stats().total() == 0);
    let endpoint = pool.endpoint(&server.name()).unwrap();
    endpoint.set_limits(EndpointLimits::new().min_idle(2)).unwrap();
    eventually("two are ready", || endpoint.stats().idle() == 2);
    drop(endpoint);
    is_left_alone();
    let endpoint = pool.endpoint(&server.name()).unwrap();
    eventually("two are ready again", || endpoint.stats().idle() == 2);
    drop(endpoint);
    is_left_alone();
    let endpoint = pool.endpoint(&server.name()).unwrap();
    endpoint.set_limits(EndpointLimits::new().min_idle(3)).unwrap();
    eventually("three are", || endpoint.stats().idle() == 3);
}

#[test]
fn an_endpoint_may_have_less_room_than_is_kept_ready_elsewhere() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let pool = tcp().min_idle(2).build().unwrap();
    let endpoint = pool.endpoint(&server.name()).unwrap();
    eventually("as many as elsewhere", || endpoint.stats().idle() == 2);
    endpoint.set_limits(EndpointLimits::new().max_per_endpoint(1)).unwrap();
    assert_eq!(endpoint.stats().total(), 1);
    assert_room(&endpoint, 1);
    PooledConn::discard(endpoint.get_timeout(SOON).unwrap());
    eventually("what there is room for", || endpoint.stats().idle() == 1);
}

#[test]
fn limits_of_an_endpoint_hold_when_nobody_has_a_handle_to_it_any_more() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let pool = tcp().build().unwrap();
    let endpoint = pool.endpoint(&server.name()).unwrap();
    endpoint.set_limits(EndpointLimits::new().max_per_endpoint(2)).unwrap();
    drop(endpoint);
    // So many that the pool forgets those which nobody uses, again and again.
    for number in 0..2_000 {
        let ip = std::net::Ipv4Addr::from(0x7f00_0000 + number); // nothing is sent
        drop(pool.endpoint(&format!("{ip}:9")).unwrap());
    }
    assert_room(&pool.endpoint(&server.name()).unwrap(), 2);
}
