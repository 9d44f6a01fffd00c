//! Other settings while the pool is in use: whoever waits is served when limits rise, what is too
//! much ends when they fall, and what makes no sense changes nothing.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use warmline::{
    CloseReason, Config, Endpoint, EndpointLimits, ErrorKind, PooledConn, Reuse, TcpConnector,
};

use crate::support::faults::BlackHole;
use crate::support::server::Server;
use crate::support::{
    SOON, ask, assert_balanced, assert_empty, assert_room, eventually, tcp, watchdog,
};

/// Whoever waits that long, instead of being served or refused, does not let a test end.
const LONG: Duration = Duration::from_secs(3600);

fn exchange(endpoint: &Endpoint<TcpConnector>) -> io::Result<()> {
    ask(&mut endpoint.get_timeout(SOON)?)
}

#[test]
fn whoever_waits_is_served_when_the_limits_rise() {
    let _watchdog = watchdog();
    let servers = [Server::echo(), Server::echo()];
    let pool = tcp().max_total(1).checkout_timeout(LONG).build().unwrap();
    let [one, other] = servers.each_ref().map(|it| pool.endpoint(&it.name()).unwrap());
    let _held = one.get().unwrap();
    let request = one.request().unwrap();
    std::thread::scope(|scope| {
        let blocked = scope.spawn(|| exchange(&other));
        eventually("both wait", || pool.stats().waiting() == 2);
        pool.reconfigure(pool.config().max_total(3)).unwrap();
        ask(&mut request.receiver().recv_timeout(SOON).unwrap().unwrap()).unwrap();
        blocked.join().unwrap().unwrap();
    });
    assert_eq!((pool.stats().waiting(), pool.stats().opened()), (0, 3));
}

#[test]
fn when_the_limits_fall_idle_ones_are_closed_at_once_and_those_in_use_when_they_come_back() {
    let _watchdog = watchdog();
    let servers = [Server::echo(), Server::echo()];
    let pool = tcp().build().unwrap();
    let ends = servers.each_ref().map(|it| pool.endpoint(&it.name()).unwrap());
    let mut held: Vec<_> = (0..8).map(|at| ends[at % 2].get().unwrap()).collect();
    drop((held.pop(), held.pop()));
    pool.reconfigure(pool.config().max_total(3)).unwrap();
    let surplus = || pool.stats().closed_for(CloseReason::Surplus);
    assert_eq!((pool.stats().idle(), pool.stats().in_use(), surplus()), (0, 6, 2));
    held.iter_mut().for_each(|conn| ask(conn).expect("in use they are left alone"));
    for left in [5, 4, 3, 3, 3, 3] {
        drop(held.pop());
        assert_eq!(pool.stats().total(), left);
    }
    assert_eq!((pool.stats().idle(), surplus()), (3, 5));
    pool.reconfigure(pool.config().max_idle(1)).unwrap();
    assert_eq!((pool.stats().idle(), surplus()), (1, 7));
    assert_balanced(&pool.stats());
}

#[test]
fn the_first_to_be_closed_are_those_that_were_used_longest_ago() {
    let _watchdog = watchdog();
    let servers = [(); 3].map(|()| Server::echo());
    let pool = tcp().build().unwrap();
    let ends = servers.each_ref().map(|it| pool.endpoint(&it.name()).unwrap());
    [1, 0, 2, 0].into_iter().for_each(|at| exchange(&ends[at]).unwrap());
    for left in [[1, 0, 1], [1, 0, 0], [0, 0, 0]] {
        pool.reconfigure(pool.config().max_idle(left.iter().sum())).unwrap();
        assert_eq!(ends.each_ref().map(|end| end.stats().idle()), left);
    }
}

#[test]
fn what_makes_no_sense_is_refused_by_name_and_all_is_as_it_was() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let pool = tcp().name("orders").max_per_endpoint(3).max_total(8).build().unwrap();
    let endpoint = pool.endpoint(&server.name()).unwrap();
    drop((endpoint.get().unwrap(), endpoint.get().unwrap()));
    let before = pool.config();
    let zero = Duration::ZERO;
    for (config, names) in [
        (pool.config().max_total(2), ["max_per_endpoint(3)", "max_total(2)"]),
        (pool.config().max_total(0), ["max_total(0)", "must be"]),
        (pool.config().min_idle(4), ["min_idle(4)", "max_per_endpoint(3)"]),
        (pool.config().max_uses(0), ["max_uses(0)", "must be"]),
        (pool.config().idle_timeout(zero), ["idle_timeout(0ns)", "must be"]),
        (pool.config().leak_warning(zero), ["leak_warning(0ns)", "must be"]),
        (pool.config().name("bills"), ["name(\"bills\")", "orders"]),
        (pool.config().portable_watch(true), ["portable_watch(true)", "when a pool is built"]),
    ] {
        let error = pool.reconfigure(config.max_idle(0)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        let text = error.to_string();
        assert!(names.iter().all(|name| text.contains(name)), "{text}");
    }
    assert_eq!((pool.config(), pool.stats().idle()), (before, 2));
    assert_room(&endpoint, 3);
}

#[test]
fn what_is_not_said_is_at_its_default_again_but_for_what_stays_with_the_pool() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let pool = tcp().name("orders").portable_watch(true).max_per_endpoint(1).build().unwrap();
    let endpoint = pool.endpoint(&server.name()).unwrap();
    let of_pool = Config::new().name("orders").portable_watch(true);
    assert_eq!(pool.config(), of_pool.clone().max_per_endpoint(1));
    pool.reconfigure(Config::new().max_waiting(5)).unwrap();
    assert_eq!(pool.config(), of_pool.clone().max_waiting(5));
    assert_room(&endpoint, 32);
    pool.reconfigure(of_pool.clone()).expect("they are what they were");
    assert_eq!(pool.config(), of_pool);
}

#[test]
fn a_pool_takes_settings_before_its_first_connect_and_while_it_is_paused_and_none_once_closed() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let pool = tcp().build().unwrap();
    pool.reconfigure(Config::new().max_per_endpoint(2)).unwrap();
    let endpoint = pool.endpoint(&server.name()).unwrap();
    pool.reconfigure(pool.config().min_idle(1)).unwrap();
    eventually("one is kept ready", || endpoint.stats().idle() == 1);
    pool.pause();
    let requests = [endpoint.request().unwrap(), endpoint.request().unwrap()];
    pool.reconfigure(pool.config().min_idle(0).max_per_endpoint(1)).unwrap();
    assert_eq!((endpoint.stats().total(), endpoint.stats().waiting()), (1, 2));
    pool.resume();
    for request in requests {
        ask(&mut request.receiver().recv_timeout(SOON).unwrap().unwrap()).unwrap();
    }
    server.assert_accepted(1);
    let config = pool.config();
    pool.close();
    let error = pool.reconfigure(Config::new()).unwrap_err();
    assert_eq!((error.kind(), pool.config()), (ErrorKind::Closed, config));
    assert_empty(&pool.stats());
}

#[test]
fn connections_that_are_there_end_by_the_new_settings() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let pool = tcp().build().unwrap();
    let endpoint = pool.endpoint(&server.name()).unwrap();
    let soon = Duration::from_millis(20);
    for (config, reason) in [
        (Config::new().max_lifetime(soon), CloseReason::MaxLifetime),
        (Config::new().idle_timeout(soon), CloseReason::IdleTimeout),
    ] {
        pool.reconfigure(Config::new()).unwrap();
        let held = endpoint.get().unwrap();
        exchange(&endpoint).unwrap();
        assert_eq!(endpoint.stats().total(), 2);
        pool.reconfigure(config).unwrap();
        eventually("the idle one ends", || endpoint.stats().closed_for(reason) > 0);
        drop(held);
        eventually("and the other", || endpoint.stats().idle() == 0);
    }
    pool.reconfigure(Config::new().max_uses(2)).unwrap();
    exchange(&endpoint).unwrap();
    exchange(&endpoint).unwrap();
    assert_eq!(endpoint.stats().closed_for(CloseReason::MaxUses), 1);
    exchange(&endpoint).unwrap();
    pool.reconfigure(Config::new()).unwrap();
    (0..5).for_each(|_| exchange(&endpoint).unwrap());
    assert_eq!(endpoint.stats().closed_for(CloseReason::MaxUses), 1, "any number again");
}

#[test]
fn checkouts_and_attempts_keep_the_time_they_began_with_and_later_ones_have_the_new() {
    let _watchdog = watchdog();
    let hole = BlackHole::new();
    let pool = tcp().connect_timeout(LONG).checkout_timeout(LONG).build().unwrap();
    let endpoint = pool.endpoint(&hole.name()).unwrap();
    let request = endpoint.request().unwrap();
    let short = Duration::from_millis(1);
    pool.reconfigure(Config::new().connect_timeout(short).checkout_timeout(short)).unwrap();
    let error = endpoint.get().unwrap_err();
    assert_eq!((error.kind(), endpoint.stats().waiting()), (ErrorKind::Timeout, 1));
    eventually("the second attempt ends, and not the first", || {
        (endpoint.stats().connects_failed(), endpoint.stats().connecting()) == (1, 1)
    });
    assert!(request.receiver().is_empty());
}

#[test]
fn more_may_be_opened_at_a_time_from_now_on() {
    let _watchdog = watchdog();
    let hole = BlackHole::new();
    let pool = tcp().connect_timeout(LONG).max_connecting(2).build().unwrap();
    let endpoint = pool.endpoint(&hole.name()).unwrap();
    let _requests = [(); 5].map(|()| endpoint.request().unwrap());
    assert_eq!(endpoint.stats().connecting(), 2);
    pool.reconfigure(pool.config().max_connecting(4)).unwrap();
    assert_eq!(endpoint.stats().connecting(), 4);
    pool.reconfigure(pool.config().max_waiting(2)).unwrap();
    assert_eq!(endpoint.request().unwrap_err().kind(), ErrorKind::Saturated);
    assert_eq!(endpoint.stats().waiting(), 5, "those who waited stay");
}

#[test]
fn the_order_in_which_idle_connections_are_used_can_be_changed() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let pool = tcp().build().unwrap();
    let endpoint = pool.endpoint(&server.name()).unwrap();
    let held = [endpoint.get().unwrap(), endpoint.get().unwrap()];
    let ports = held.each_ref().map(|conn| conn.local_addr().unwrap().port());
    held.into_iter().for_each(drop);
    let port = || endpoint.get().unwrap().local_addr().unwrap().port();
    assert_eq!([port(), port()], [ports[1], ports[1]]);
    pool.reconfigure(pool.config().reuse(Reuse::Oldest)).unwrap();
    assert_eq!([port(), port(), port()], [ports[0], ports[1], ports[0]]);
}

#[test]
fn a_connector_without_a_check_has_none_whatever_the_settings_say_of_it() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let pool = tcp().build().unwrap();
    exchange(&pool.endpoint(&server.name()).unwrap()).unwrap();
    pool.reconfigure(pool.config().check_after(Duration::ZERO)).unwrap();
    assert!(pool.try_get(&server.name()).unwrap().is_some());
}

#[test]
fn an_endpoint_keeps_limits_of_its_own_and_settings_that_conflict_with_them_are_refused() {
    let _watchdog = watchdog();
    let servers = [Server::echo(), Server::echo()];
    let pool = tcp().build().unwrap();
    let [own, usual] = servers.each_ref().map(|it| pool.endpoint(&it.name()).unwrap());
    own.set_limits(EndpointLimits::new().max_per_endpoint(5)).unwrap();
    pool.reconfigure(Config::new().max_per_endpoint(2)).unwrap();
    assert_room(&own, 5);
    assert_room(&usual, 2);
    let before = pool.config();
    let error = pool.reconfigure(Config::new().max_total(4)).unwrap_err();
    assert_eq!((error.kind(), pool.config()), (ErrorKind::Config, before));
    let text = error.to_string();
    for part in ["max_per_endpoint(5)", "max_total(4)", &servers[0].name()] {
        assert!(text.contains(part), "{text}");
    }
    own.set_limits(EndpointLimits::new()).unwrap();
    pool.reconfigure(Config::new().max_total(4)).unwrap();
    let error = own.set_limits(EndpointLimits::new().max_per_endpoint(5)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "by the limits of now");
}

#[test]
fn of_all_who_change_settings_at_once_the_last_wins_and_limits_are_what_the_settings_say() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let pool = tcp().build().unwrap();
    let endpoint = pool.endpoint(&server.name()).unwrap();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    exchange(&endpoint).unwrap();
                }
            });
        }
        let changing = [2, 3, 5].map(|most| {
            let (pool, endpoint) = (&pool, &endpoint);
            scope.spawn(move || {
                for turn in 0..200 {
                    pool.reconfigure(Config::new().max_per_endpoint(most)).unwrap();
                    match turn % 3 {
                        0 => endpoint.set_limits(EndpointLimits::new().max_per_endpoint(1)),
                        1 => endpoint.set_limits(EndpointLimits::new()),
                        _ => {
                            pool.evict_all();
                            Ok(())
                        }
                    }
                    .unwrap();
                }
            })
        });
        changing.into_iter().for_each(|thread| thread.join().unwrap());
        is_over.store(true, Ordering::Relaxed);
    });
    endpoint.set_limits(EndpointLimits::new()).unwrap();
    let most = [2, 3, 5].into_iter().find(|most| {
        pool.config() == Config::new().max_per_endpoint(*most) // one of those that were given
    });
    assert_room(&endpoint, most.unwrap());
    assert_balanced(&pool.stats());
}

#[test]
fn settings_that_race_with_the_end_of_the_pool_leave_nothing_behind() {
    let _watchdog = watchdog();
    let server = Server::echo();
    for _ in 0..50 {
        let pool = tcp().build().unwrap();
        let endpoint = pool.endpoint(&server.name()).unwrap();
        let held = endpoint.get().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| pool.close());
            let result = pool.reconfigure(Config::new().min_idle(1).max_total(2));
            assert!(result.is_ok() || result.unwrap_err().kind() == ErrorKind::Closed);
        });
        drop(held);
        eventually("all is closed", || pool.stats().total() == 0);
        assert_empty(&pool.stats());
    }
}

#[test]
fn what_is_kept_ready_can_be_raised_and_given_up() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let pool = tcp().build().unwrap();
    let endpoint = pool.endpoint(&server.name()).unwrap();
    pool.reconfigure(Config::new().min_idle(2)).unwrap();
    eventually("two are ready", || endpoint.stats().idle() == 2);
    pool.reconfigure(Config::new().min_idle(4)).unwrap();
    eventually("four are", || endpoint.stats().idle() == 4);
    pool.reconfigure(Config::new()).unwrap();
    (0..4).for_each(|_| PooledConn::discard(endpoint.get().unwrap()));
    assert_eq!(endpoint.stats().total(), 0, "no others take their place");
}
