//! Name servers that hang: nobody is late for it, and nobody else is held up.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use warmline::{
    Deadline, Driver, ErrorKind, Failure, Phase, Pool, PooledConn, Resolved, Resolver, TcpConnector,
};

use crate::support::resolver::{Answer, Script};
use crate::support::server::Server;
use crate::support::{SOON, ask, assert_empty, eventually, tcp, watchdog};

const NAME: &str = "db.test:80";
const ZERO: Duration = Duration::ZERO;
const BRIEF: Duration = Duration::from_millis(50);
const LONG: Duration = Duration::from_secs(3600);

fn script<const N: usize>(answers: [Answer; N]) -> Script {
    Script::of("db.test", answers)
}

fn pool(resolver: &Resolver) -> Pool<TcpConnector> {
    let builder = tcp().resolver(resolver).checkout_timeout(SOON);
    builder.connect_timeout(LONG).build().unwrap()
}

/// Its attempts to connect have ended before long.
fn hasty(resolver: &Resolver) -> Pool<TcpConnector> {
    tcp().resolver(resolver).connect_timeout(BRIEF).build().unwrap()
}

#[test]
fn a_resolver_that_hangs_does_not_make_a_caller_late() {
    let _watchdog = watchdog();
    let script = script([Answer::here().late()]);
    let pool = pool(&script.resolver());
    let began = Instant::now();
    let error = pool.get_timeout(NAME, BRIEF).unwrap_err();
    let took = began.elapsed();
    assert!(took >= BRIEF && took < SOON, "{took:?}");
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().contains("1 connecting"), "{error}");
    script.release();
}

#[test]
fn an_attempt_that_waits_for_a_name_until_its_deadline_says_so() {
    let _watchdog = watchdog();
    let script = script([Answer::here().late()]);
    let pool = hasty(&script.resolver());
    let error = pool.get_timeout(NAME, SOON).unwrap_err();
    assert_eq!((error.kind(), error.failure()), (ErrorKind::Connect, Some(Failure::Timeout)));
    assert_eq!(error.phase(), Some(Phase::Resolve), "{error}");
    assert!(error.to_string().contains("resolve failed after"), "{error}");
    assert_eq!(script.hanging(), 1, "it hangs still");
    assert_empty(&pool.stats());
    script.release();
}

#[test]
fn an_answer_that_comes_after_the_deadline_is_remembered_for_the_next() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let script = script([Answer::at(server.address()).late(), Answer::Fail("asked twice")]);
    let pool = hasty(&script.resolver());
    pool.get_timeout(NAME, SOON).unwrap_err();
    script.release();
    eventually("it is there", || pool.get_timeout(NAME, SOON).is_ok());
    assert_eq!(script.count(), 1);
}

#[test]
fn an_answer_that_never_comes_keeps_no_permit() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let script = script([Answer::here().late()]);
    script.say("other.test", [Answer::at(server.address())]);
    let builder = tcp().resolver(&script.resolver()).max_total(1);
    let pool = builder.connect_timeout(Duration::from_millis(200)).build().unwrap();
    for _ in 0..3 {
        pool.get_timeout(NAME, SOON).unwrap_err();
    }
    assert_empty(&pool.stats());
    eventually("there is room", || pool.get_timeout("other.test:80", SOON).is_ok());
    assert_eq!((script.hanging(), pool.stats().idle()), (1, 1));
    script.release();
}

#[test]
fn a_look_up_that_nobody_waits_for_makes_way_for_who_needs_its_room() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let script = script([Answer::here().late()]);
    let builder = tcp().resolver(&script.resolver()).max_total(1);
    // Its own deadline would come in an hour.
    let pool = builder.connect_timeout(LONG).build().unwrap();
    let request = pool.request(NAME).unwrap();
    eventually("it is looked up", || script.hanging() == 1);
    drop(request);
    ask(&mut pool.get_timeout(&server.name(), SOON).unwrap()).unwrap();
    assert_eq!((pool.stats().connects_called_off(), pool.stats().total()), (1, 1));
    assert_eq!(script.hanging(), 1);
    script.release();
}

/// Has as many names hang as are looked up at a time, but for so many.
fn hang_all_but(free: usize, script: &Script, pool: &Pool<TcpConnector>) {
    for number in 0..4 - free {
        let host = format!("hangs{number}.test");
        script.say(&host, [Answer::here().late()]);
        pool.get_timeout(&format!("{host}:80"), ZERO).unwrap_err();
    }
    eventually("they hang", || script.hanging() == 4 - free);
}

#[test]
fn names_that_hang_leave_a_thread_for_others() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let script = Script::always(Answer::at(server.address()));
    let pool = pool(&script.resolver());
    hang_all_but(1, &script, &pool);
    for number in 0..50 {
        ask(&mut pool.get(&format!("sound{number}.test:80")).unwrap()).unwrap();
    }
    assert_eq!((script.hanging(), pool.stats().connecting()), (3, 3));
    script.release();
}

#[test]
fn names_that_are_known_need_no_thread_though_all_hang() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let script = script([Answer::at(server.address())]);
    script.say("stale.test", [Answer::AtFor(vec![server.address()], ZERO)]);
    let pool = pool(&script.resolver());
    for name in [NAME, "stale.test:80"] {
        PooledConn::discard(pool.get(name).unwrap());
    }
    hang_all_but(0, &script, &pool);
    for _ in 0..10 {
        for name in [NAME, "stale.test:80", &server.name()] {
            let mut conn = pool.get(name).unwrap();
            ask(&mut conn).unwrap();
            PooledConn::discard(conn);
        }
    }
    assert_eq!((script.hanging(), pool.stats().connecting()), (4, 4));
    script.release();
}

#[test]
fn where_all_hang_the_next_name_has_a_thread_before_long() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let script = script([Answer::at(server.address())]);
    let pool = pool(&script.resolver());
    hang_all_but(0, &script, &pool);
    // Of them none ever returns, and this is the only one who asks for anything.
    let mut conn = pool.get_timeout(NAME, SOON).unwrap();
    ask(&mut conn).unwrap();
    assert_eq!(script.hanging(), 4);
    script.release();
}

#[test]
fn a_name_that_hangs_is_looked_up_anew_before_long() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let script = script([Answer::here().late(), Answer::at(server.address())]);
    let builder = tcp().resolver(&script.resolver());
    let pool = builder.connect_timeout(Duration::from_millis(500)).build().unwrap();
    eventually("the second look-up answers", || pool.get_timeout(NAME, SOON).is_ok());
    assert_eq!((script.count(), script.hanging()), (2, 1), "the first hangs still");
    script.release();
}

#[test]
fn closing_a_pool_does_not_wait_for_names() {
    let _watchdog = watchdog();
    let script = script([Answer::here().late()]);
    let pool = pool(&script.resolver());
    std::thread::scope(|scope| {
        let caller = scope.spawn(|| pool.get(NAME).map(drop));
        let request = pool.request(NAME).unwrap();
        eventually("both wait", || pool.stats().waiting() == 2 && script.hanging() == 1);
        pool.close();
        assert_eq!(caller.join().unwrap().unwrap_err().kind(), ErrorKind::Closed);
        let answer = request.receiver().recv().unwrap();
        assert_eq!(answer.unwrap_err().kind(), ErrorKind::Closed);
    });
    pool.drain(Deadline::after(SOON)).unwrap();
    assert_empty(&pool.stats());
    assert_eq!(script.hanging(), 1, "it hangs still");
    drop(pool);
    script.release();
}

#[test]
fn a_resolver_outlives_the_pool_whose_threads_it_hangs_on() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let script = script([Answer::at(server.address()).late(), Answer::Fail("asked twice")]);
    let resolver = script.resolver();
    let first = pool(&resolver);
    first.get_timeout(NAME, ZERO).unwrap_err();
    eventually("it is looked up", || script.hanging() == 1);
    drop(first);
    let second = pool(&resolver);
    std::thread::scope(|scope| {
        let caller = scope.spawn(|| second.get(NAME));
        eventually("it waits for what the other began", || second.stats().connecting() == 1);
        script.release();
        ask(&mut caller.join().unwrap().unwrap()).unwrap();
    });
    assert_eq!(script.count(), 1);
}

#[test]
fn a_resolver_may_use_pools_itself() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let address = server.address();
    let driver = Driver::new();
    let other = tcp().driver(&driver).build().unwrap();
    let own = Arc::new(Mutex::new(None::<Pool<TcpConnector>>));
    let resolver = Resolver::new({
        let own = Arc::clone(&own);
        move |_: &str| {
            ask(&mut other.get(&address)?)?;
            let own = own.lock().clone();
            if let Some(own) = own {
                ask(&mut own.get(&address)?)?;
            }
            Ok(Resolved::new([address]))
        }
    });
    let pool = tcp().driver(&driver).resolver(&resolver).build().unwrap();
    *own.lock() = Some(pool.clone());
    ask(&mut pool.get(NAME).unwrap()).unwrap();
    assert_eq!(pool.stats().idle(), 2);
    let own = own.lock().take();
    drop(own);
}
