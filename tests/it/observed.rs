//! What an observer is told of each step, and that it agrees with the counts.

use std::io::Write;
use std::time::Duration;

use crossbeam_channel::bounded;
use warmline::{
    Beat, BoxError, CheckKind, CloseReason, Connector, Deadline, ErrorKind, Failure, Opening,
    Phase, Plan, Pool, PooledConn, TcpConnector,
};

use crate::support::chronicle::{Chronicle, Step};
use crate::support::faults::{BlackHole, Refusing};
use crate::support::foreign::Stubborn;
use crate::support::lab::{Act, Lab, Method};
use crate::support::resolver::{Answer, Script};
use crate::support::server::Server;
use crate::support::{SOON, ask, assert_empty, eventually, tcp, watchdog};

const BRIEF: Duration = Duration::from_millis(20);

/// A pool whose connector does as `plot` says.
fn lab(
    plot: impl Fn(Method, usize) -> Act + Send + Sync + 'static,
) -> (warmline::Builder<Lab>, Chronicle) {
    let chronicle = Chronicle::default();
    (Pool::builder(Lab::new(plot)).observer(chronicle.clone()), chronicle)
}

#[test]
fn every_step_of_a_connections_life_is_told_with_times_in_order() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let chronicle = Chronicle::default();
    let pool = tcp().name("told").observer(chronicle.clone()).build().unwrap();
    for _ in 0..2 {
        ask(&mut pool.get(&server.name()).unwrap()).unwrap();
    }
    PooledConn::discard(pool.get(&server.name()).unwrap());
    chronicle.await_step(Step::Connected);
    let connection = chronicle.connected()[0].connection();
    let use_once = [Step::CheckedOut, Step::CheckedIn];
    let begin = [Step::Connecting, Step::Connected];
    let end = [Step::Closed(CloseReason::Discarded)];
    let life = [&begin[..], &use_once, &use_once, &use_once, &end].concat();
    assert_eq!(chronicle.life_of(connection), life);
    let me = std::thread::current().name().unwrap().to_owned();
    for (thread, steps) in [("told-observer", &life[..2]), (&me, &life[2..])] {
        let lines = chronicle.lines();
        let theirs = lines.iter().filter(|line| line.thread == thread).map(|line| line.step);
        assert_eq!(theirs.collect::<Vec<_>>(), steps, "{thread}");
    }
    assert_eq!(chronicle.closed()[0].uses(), 3);
    chronicle.assert_agrees(&pool.stats());
}

#[test]
fn a_checkout_is_told_with_how_it_was_served() {
    let _watchdog = watchdog();
    let (builder, chronicle) = lab(|_, _| Act::Go);
    let pool = builder.max_per_endpoint(1).fair_after(Duration::ZERO).build().unwrap();
    let first = pool.get("a").unwrap();
    let next = pool.request("a").unwrap();
    drop(first);
    drop(next.receiver().recv_timeout(SOON).unwrap().unwrap());
    std::thread::sleep(2 * BRIEF); // longer than a tick of the clock for idle connections
    drop(pool.try_get("a").unwrap().unwrap());
    let [opened, handed_over, idle] = chronicle.checked_out().try_into().unwrap();
    assert!(!opened.is_reused() && handed_over.is_reused() && idle.is_reused());
    assert!(opened.waited() > Duration::ZERO && handed_over.waited() > Duration::ZERO);
    assert_eq!((idle.waited(), handed_over.idle_for()), (Duration::ZERO, Duration::ZERO));
    assert!(idle.idle_for() > Duration::ZERO && idle.age() > idle.idle_for() / 2);
    assert!(chronicle.checked_in().iter().all(|event| event.was_received()));
    assert!(chronicle.checked_in().iter().all(|event| event.held() > Duration::ZERO));
}

#[test]
fn a_checkout_that_fails_is_told_with_its_kind_and_how_long_it_took() {
    let _watchdog = watchdog();
    let refusing = Refusing::new();
    let server = Server::echo();
    let chronicle = Chronicle::default();
    let builder = tcp().max_per_endpoint(1).max_waiting(1).observer(chronicle.clone());
    let pool = builder.build().unwrap();
    let endpoint = pool.endpoint(&server.name()).unwrap();
    let held = endpoint.get().unwrap();
    let kinds = || chronicle.refused().iter().map(|event| event.kind()).collect::<Vec<_>>();
    assert!(endpoint.try_get().is_none());
    endpoint.get_timeout(BRIEF).unwrap_err();
    assert_eq!(kinds(), [ErrorKind::Timeout]);
    assert!(chronicle.refused()[0].waited() >= BRIEF);
    let waiting = endpoint.request().unwrap();
    endpoint.get_timeout(SOON).unwrap_err();
    endpoint.request().unwrap_err();
    assert_eq!(kinds()[1..], [ErrorKind::Saturated; 2]);
    drop(waiting);
    pool.get_timeout(&refusing.name(), SOON).unwrap_err();
    assert_eq!(kinds()[3..], [ErrorKind::Connect]);
    pool.close();
    endpoint.get().unwrap_err();
    assert_eq!(kinds()[4..], [ErrorKind::Closed]);
    drop(held);
    chronicle.assert_agrees(&pool.stats());
}

#[test]
fn what_its_user_keeps_is_told_as_detached_and_then_no_more() {
    let _watchdog = watchdog();
    let (builder, chronicle) = lab(|_, _| Act::Go);
    let pool = builder.build().unwrap();
    drop(PooledConn::detach(pool.get("a").unwrap()));
    pool.drain(Deadline::after(SOON)).unwrap();
    chronicle.assert_agrees(&pool.stats());
    let steps = [Step::Connecting, Step::Connected, Step::CheckedOut, Step::Detached];
    assert_eq!(chronicle.life_of(chronicle.connected()[0].connection()), steps);
}

#[test]
fn an_answer_that_nobody_receives_is_told_as_such_and_is_no_checkout() {
    let _watchdog = watchdog();
    let (builder, chronicle) = lab(|_, _| Act::Go);
    let pool = builder.build().unwrap();
    let request = pool.request("a").unwrap();
    eventually("it has arrived", || !request.receiver().is_empty());
    drop(request);
    PooledConn::discard(pool.get("a").unwrap());
    pool.drain(Deadline::after(SOON)).unwrap();
    chronicle.assert_agrees(&pool.stats());
    let received: Vec<_> = chronicle.checked_in().iter().map(|it| it.was_received()).collect();
    assert_eq!((received, pool.stats().checkouts()), (vec![false, true], 1));
    assert_eq!(chronicle.closed()[0].uses(), 1);
}

#[test]
fn of_an_attempt_it_is_told_how_long_each_phase_took() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let script = Script::of("db.test", [Answer::here()]);
    let chronicle = Chronicle::default();
    let builder = tcp().resolver(&script.resolver()).observer(chronicle.clone());
    let pool = builder.build().unwrap();
    drop(pool.get(&format!("db.test:{}", server.address().port())).unwrap());
    drop(pool.get(&server.name()).unwrap());
    let (lab, of_lab) = lab(|_, _| Act::Go);
    let lab = lab.build().unwrap();
    drop(lab.get("a").unwrap());
    eventually("all are told", || chronicle.connected().len() == 2);
    of_lab.await_step(Step::Connected);
    let [named, plain] = chronicle.connected().try_into().unwrap();
    let opened = &of_lab.connected()[0];
    assert!(named.resolve() > Duration::ZERO && named.connect() > Duration::ZERO, "{named:?}");
    assert!(plain.resolve().is_zero() && plain.connect() > Duration::ZERO, "{plain:?}");
    assert!(named.open().is_zero() && plain.open().is_zero());
    assert!(opened.resolve().is_zero() && opened.connect().is_zero(), "{opened:?}");
    assert!(opened.open() > Duration::ZERO);
    for event in [&named, &plain, opened] {
        let phases = event.resolve() + event.connect() + event.open();
        assert!(event.queued() > Duration::ZERO);
        assert_eq!(event.took(), event.queued() + phases);
    }
}

#[test]
fn an_attempt_that_fails_is_told_with_its_phase_and_the_errors_text() {
    let _watchdog = watchdog();
    let refusing = Refusing::new();
    let chronicle = Chronicle::default();
    let pool = tcp().observer(chronicle.clone()).build().unwrap();
    pool.get(&refusing.name()).unwrap_err();
    chronicle.await_step(Step::ConnectFailed);
    let failed = &chronicle.failed()[0];
    assert_eq!((failed.phase(), failed.failure()), (Phase::Connect, Failure::Refused));
    assert_eq!(failed.endpoint(), refusing.name());
    assert!(failed.message().contains("refused"), "{failed:?}");
    assert!(failed.connect() > Duration::ZERO && failed.open().is_zero(), "{failed:?}");
    chronicle.assert_agrees(&pool.stats());
}

#[test]
fn an_attempt_that_hangs_is_told_as_failed_at_its_deadline_and_what_it_brings_as_too_late() {
    let _watchdog = watchdog();
    let lab = Lab::new(|method, _| if method == Method::Open { Act::Hang } else { Act::Go });
    let (bench, chronicle) = (lab.bench(), Chronicle::default());
    let builder = Pool::builder(lab).connect_timeout(BRIEF).observer(chronicle.clone());
    let pool = builder.build().unwrap();
    pool.get_timeout("a", SOON).unwrap_err();
    chronicle.await_step(Step::ConnectFailed);
    let failed = chronicle.failed().remove(0);
    assert_eq!((failed.phase(), failed.failure()), (Phase::Open, Failure::Timeout));
    assert!(failed.took() >= BRIEF && failed.open() > Duration::ZERO, "{failed:?}");
    pool.close();
    bench.release();
    eventually("all are back", || pool.stats().abandoned() == 0 && bench.alive() == 0);
    pool.drain(Deadline::after(SOON)).unwrap();
    chronicle.assert_agrees(&pool.stats());
    let steps = [Step::Connecting, Step::ConnectFailed, Step::Connected];
    let life = [&steps[..], &[Step::Closed(CloseReason::TooLate)]].concat();
    assert_eq!(chronicle.life_of(failed.connection()), life);
    assert_empty(&pool.stats());
}

/// Opens nothing; its error cannot be displayed.
struct Unspeakable;

#[derive(Debug)]
struct Panics;

impl std::fmt::Display for Panics {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::panic::panic_any("displayed")
    }
}

impl std::error::Error for Panics {}

impl Connector for Unspeakable {
    type Key = String;
    type Conn = ();

    fn plan(&self, _: &String) -> Plan {
        Plan::blocking()
    }

    fn open(&self, _: &String, _: &mut Opening) -> Result<(), BoxError> {
        Err(Panics.into())
    }
}

#[test]
fn an_error_that_panics_when_it_is_displayed_is_told_all_the_same() {
    let _watchdog = watchdog();
    let chronicle = Chronicle::default();
    let pool = Pool::builder(Unspeakable).observer(chronicle.clone()).build().unwrap();
    assert_eq!(pool.get_timeout("a", SOON).unwrap_err().kind(), ErrorKind::Connect);
    chronicle.await_step(Step::ConnectFailed);
    assert!(chronicle.failed()[0].message().contains("panics when it is displayed"));
    chronicle.assert_agrees(&pool.stats());
}

#[test]
fn checks_and_settles_are_told_with_what_came_of_them() {
    let _watchdog = watchdog();
    let (builder, chronicle) = lab(|method, before| match (method, before) {
        (Method::HasCheck, _) | (Method::Reset, 0) => Act::Later,
        (Method::Check, 1) => Act::Fail,
        _ => Act::Go,
    });
    let pool = builder.check_after(Duration::ZERO).check_interval(None).build().unwrap();
    drop(pool.get("a").unwrap());
    chronicle.await_step(Step::Checked(CheckKind::Settle, None));
    drop(pool.get("a").unwrap());
    PooledConn::discard(pool.get("a").unwrap());
    pool.drain(Deadline::after(SOON)).unwrap();
    chronicle.assert_agrees(&pool.stats());
    let pair = |kind, objection| [Step::Checking(kind), Step::Checked(kind, objection)];
    let (lost, used) = (Some(CloseReason::CheckFailed), [Step::CheckedOut, Step::CheckedIn]);
    let life = [
        &[Step::Connecting, Step::Connected],
        &used,
        &pair(CheckKind::Settle, None),
        &pair(CheckKind::Check, None),
        &used,
        &pair(CheckKind::Check, lost),
        &[Step::Closed(CloseReason::CheckFailed)][..],
    ];
    assert_eq!(chronicle.life_of(chronicle.connected()[0].connection()), life.concat());
}

#[test]
fn heartbeats_are_told_as_such() {
    let _watchdog = watchdog();
    let server = Server::scripted(|peer| {
        while peer.take(4)? == b"beat" {
            peer.write_all(b"okay")?;
        }
        Ok(())
    });
    let chronicle = Chronicle::default();
    let connector = TcpConnector::new().heartbeat(Beat::new("beat", "okay"));
    let builder = Pool::builder(connector).check_interval(BRIEF).observer(chronicle.clone());
    let pool = builder.build().unwrap();
    drop(pool.get(&server.name()).unwrap());
    chronicle.await_step(Step::Checking(CheckKind::Heartbeat));
    chronicle.await_step(Step::Checked(CheckKind::Heartbeat, None));
}

#[test]
fn a_check_that_does_not_return_is_told_as_lost_and_closed_once() {
    let _watchdog = watchdog();
    let lab = Lab::new(|method, before| match (method, before) {
        (Method::HasCheck, _) => Act::Later,
        (Method::Check, 0) => Act::Hang,
        _ => Act::Go,
    });
    let (bench, chronicle) = (lab.bench(), Chronicle::default());
    let builder = Pool::builder(lab).check_after(Duration::ZERO).check_timeout(BRIEF);
    let pool = builder.check_interval(None).observer(chronicle.clone()).build().unwrap();
    drop(pool.get("a").unwrap());
    drop(pool.get_timeout("a", SOON).unwrap());
    let reason = CloseReason::TooLate;
    chronicle.await_step(Step::Closed(reason));
    chronicle.await_step(Step::Checked(CheckKind::Check, Some(reason)));
    assert_eq!(pool.stats().abandoned(), 1, "before it returns");
    chronicle.assert_agrees(&pool.stats());
    bench.release();
    pool.drain(Deadline::after(SOON)).unwrap();
    eventually("it returns", || bench.alive() == 0);
    chronicle.assert_agrees(&pool.stats());
}

#[test]
fn what_comes_of_an_attempt_that_was_called_off_is_told_and_counted_as_opened_and_closed() {
    let _watchdog = watchdog();
    let (late, good) = (Server::echo(), Server::echo());
    let ((tell, told), (begun, begins)) = (bounded(0), bounded(2));
    let chronicle = Chronicle::default();
    let builder = Pool::builder(Stubborn { begun, told }).max_total(1).observer(chronicle.clone());
    let pool = builder.connect_timeout(SOON).build().unwrap();
    let request = pool.request(&late.name()).unwrap();
    begins.recv_timeout(SOON).unwrap();
    drop(request);
    let other = pool.request(&good.name()).unwrap();
    for _ in 0..2 {
        tell.send_timeout((), SOON).unwrap();
    }
    drop(other.receiver().recv_timeout(SOON).unwrap().unwrap());
    eventually("it is closed", || late.open() == 0 && pool.stats().abandoned() == 0);
    pool.drain(Deadline::after(SOON)).unwrap();
    let stats = pool.stats();
    assert_eq!((stats.opened(), stats.closed(), stats.connects_called_off()), (2, 2, 1));
    chronicle.assert_agrees(&stats);
    assert_empty(&stats);
}

/// Asks for connections in every way, of whatever `names` lead to.
fn work(pool: &Pool<TcpConnector>, names: &[String], number: usize) {
    for (round, name) in names.iter().cycle().skip(number).take(60).enumerate() {
        match (number * 7 + round) % 5 {
            0 => drop(pool.request(name)),
            1 => pool.get_timeout(name, BRIEF).map_or((), PooledConn::discard),
            2 => drop(pool.try_get(name).ok().flatten().map(PooledConn::detach)),
            3 => {
                drop(pool.get_timeout(name, BRIEF));
                pool.endpoint(name).unwrap().evict();
            }
            _ => drop(pool.get_timeout(name, BRIEF).map(|mut conn| ask(&mut conn))),
        }
    }
}

#[test]
fn after_whatever_faults_what_was_told_agrees_with_the_counts() {
    let _watchdog = watchdog();
    let (sound, hole, refusing) = (Server::echo(), BlackHole::new(), Refusing::new());
    let doomed =
        Server::scripted(|peer| if peer.number() % 2 == 0 { peer.reset() } else { Ok(()) });
    let chronicle = Chronicle::default();
    let builder = tcp().max_total(3).max_waiting(4).connect_timeout(2 * BRIEF);
    let pool = builder.idle_timeout(BRIEF).observer(chronicle.clone()).build().unwrap();
    let names = [sound.name(), hole.name(), refusing.name(), doomed.name()];
    std::thread::scope(|scope| {
        for number in 0..4 {
            let (pool, names) = (&pool, &names);
            scope.spawn(move || work(pool, names, number));
        }
    });
    pool.drain(Deadline::after(SOON)).unwrap();
    let stats = pool.stats();
    assert!(stats.connects_failed() > 0 && stats.opened() > 0, "{stats}");
    chronicle.assert_agrees(&stats);
    assert_empty(&stats);
    for event in chronicle.connected() {
        let life = chronicle.life_of(event.connection());
        assert_eq!(life[0], Step::Connecting, "{life:?}");
        let is_end = |step: &Step| matches!(step, Step::Closed(_) | Step::Detached);
        assert_eq!(life.iter().filter(|step| is_end(step)).count(), 1, "{life:?}");
        assert!(is_end(life.last().unwrap()), "{life:?}");
    }
}
