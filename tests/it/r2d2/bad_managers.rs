//! r2d2 managers, and what is called beside them, that panic, hang or fail wherever they can, and
//! settings that make no sense: callers keep their deadlines, errors say what it was, and once all
//! is well again nothing is lost.

use std::io::{self, Read};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use warmline::r2d2::{Builder, ManageConnection, Pool};
use warmline::{CloseReason, Deadline, Driver, ErrorKind, Failure, Watch};

use super::managers::threads;
use super::managers::{Call, Script};
use crate::support::lab::Act;
use crate::support::server::Server;
use crate::support::{SOON, assert_balanced, assert_empty, eventually, watchdog};

const BRIEF: Duration = Duration::from_millis(20);

/// A pool of two whose limits are short, and whose connections are tested at every checkout.
fn hasty(script: &Script, driver: &Driver) -> Pool<Script> {
    let builder = script.builder().max_size(2).connection_timeout(2 * BRIEF).driver(driver);
    let builder = builder.configure(|config| {
        let config = config.check_after(Duration::ZERO).check_timeout(BRIEF);
        config.check_interval(BRIEF).connect_timeout(BRIEF).idle_timeout(SOON)
    });
    builder.build_unchecked(script.clone())
}

/// Takes and gives back, now and then longer than the other bears, until it is told to stop.
fn use_it(pool: &Pool<Script>, gate: &Receiver<()>) {
    while gate.try_recv() == Err(crossbeam_channel::TryRecvError::Empty) {
        if let Ok(mut conn) = pool.get() {
            assert!(conn.notes.is_empty(), "somebody else's");
            conn.notes.push(1);
            std::thread::sleep(Duration::from_millis(1));
            conn.notes.clear();
        }
        drop(pool.try_get());
        let _vain = pool.get_timeout(Duration::ZERO);
    }
}

/// How often the call must be made before it has been seen to do its worst.
fn is_seen(script: &Script, call: Call, act: Act) -> bool {
    match act {
        Act::Hang => script.hanging() > 0,
        _ => script.calls(call) >= 3,
    }
}

/// Users, while a call does its worst: then all is well again, and everything is to be had.
fn survives(call: Call, act: Act) {
    // What handles errors is called when there are some, what releases when something ends.
    let script = Script::new(move |called, before| match called {
        _ if called == call => act,
        Call::Connect if call == Call::HandleError && before % 2 == 0 => Act::Fail,
        Call::HasBroken if before % 3 == 0 => Act::Fail,
        _ => Act::Go,
    });
    // As much of the name as a thread can carry.
    let name = format!("{act:?}{call:?}").chars().take(15).collect::<String>();
    let driver = Driver::named(&*name).unwrap();
    let pool = hasty(&script, &driver);
    script.watch_over(&pool);
    let (stop, gate) = bounded::<()>(0);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            let (pool, gate) = (&pool, gate.clone());
            scope.spawn(move || use_it(pool, &gate));
        }
        eventually("it has done its worst", || is_seen(&script, call, act));
        let (state, stats) = (pool.state(), pool.stats());
        assert!(state.connections <= 2 && stats.total() <= 2, "{call:?} {act:?}: {stats}");
        script.heal();
        script.release();
        drop(stop);
    });
    eventually("there is room for two", || {
        let (first, second) = (pool.get_timeout(SOON), pool.get_timeout(SOON));
        first.is_ok() && second.is_ok()
    });
    eventually("nobody waits, and nothing is out", || {
        let stats = pool.stats();
        (stats.waiting(), stats.in_use(), stats.connecting(), stats.checking()) == (0, 0, 0, 0)
    });
    script.let_go();
    pool.drain(Deadline::after(SOON)).unwrap();
    assert_empty(&pool.stats());
    eventually("nothing lives on", || script.alive() == 0);
    let (opened, released) = (script.calls(Call::HandleAcquire), script.calls(Call::HandleRelease));
    drop((pool, driver));
    eventually("no thread is left", || threads(&name).is_none_or(|names| names.is_empty()));
    if !matches!(call, Call::HandleAcquire | Call::HandleRelease) {
        assert_eq!(opened, released, "{call:?} {act:?}: each that was opened was released");
    }
}

#[test]
fn whatever_always_panics_costs_nobody_his_deadline_and_nothing_for_ever() {
    let _watchdog = watchdog();
    for call in Call::ALL {
        survives(call, Act::Panic);
    }
}

#[test]
fn whatever_never_returns_costs_nobody_elses_deadline_and_nothing_for_ever() {
    let _watchdog = watchdog();
    for call in Call::ALL {
        survives(call, Act::Hang);
    }
}

#[test]
fn whatever_always_fails_costs_nobody_his_deadline_and_nothing_for_ever() {
    let _watchdog = watchdog();
    for call in [Call::Connect, Call::IsValid, Call::HasBroken, Call::OnAcquire] {
        survives(call, Act::Fail);
    }
}

#[test]
fn a_manager_that_always_panics_or_fails_is_named_in_the_error_and_not_rushed() {
    let _watchdog = watchdog();
    for (call, act, failure, words) in [
        (Call::Connect, Act::Panic, Failure::Panic, "Connect was told to panic"),
        (Call::Connect, Act::Fail, Failure::Other, "Connect was told to fail"),
        (Call::OnAcquire, Act::Panic, Failure::Panic, "OnAcquire was told to panic"),
        (Call::OnAcquire, Act::Fail, Failure::Other, "OnAcquire was told to fail"),
    ] {
        let script = Script::always(call, act);
        let builder = script.builder().max_size(8).connection_timeout(10 * BRIEF);
        let began = Instant::now();
        let pool = builder.build_unchecked(script.clone());
        eventually("an attempt has failed", || pool.stats().connects_failed() > 0);
        let error = std::thread::scope(|scope| {
            let callers: Vec<_> = (0..8).map(|_| scope.spawn(|| pool.get().unwrap_err())).collect();
            callers.into_iter().map(|caller| caller.join().unwrap()).next().unwrap()
        });
        assert_eq!((error.kind(), error.failure()), (ErrorKind::Timeout, Some(failure)));
        assert!(error.to_string().contains(words), "{error}");
        // The first eight at once, then one at a time, 50 ms apart or more.
        let calls = script.calls(Call::Connect) as u128; // before time goes on
        let most = 8 + 1 + began.elapsed().as_millis() / 50;
        assert!(calls <= most, "{call:?} {act:?}: {calls} attempts, more than {most}");
        assert_eq!((script.alive(), pool.stats().opened()), (0, 0));
    }
}

#[test]
fn connections_whose_end_takes_long_do_not_pile_up_at_the_server() {
    let _watchdog = watchdog();
    let script = Script::new(|call, _| match call {
        Call::HasBroken => Act::Fail,
        Call::OnRelease => Act::Hang,
        _ => Act::Go,
    });
    let builder = script.builder().max_size(2).connection_timeout(5 * BRIEF);
    let pool = builder.build(script.clone()).unwrap();
    eventually("no more are opened", || pool.get().is_err());
    assert!(script.alive() <= 2 + 16, "{} live", script.alive());
    assert_eq!(pool.state().connections, 0);
    script.heal();
    script.release();
    drop(pool.get_timeout(SOON).expect("there is room again"));
    eventually("the others are closed", || script.alive() <= 2);
    assert_balanced(&pool.stats());
}

#[test]
fn calls_that_never_return_hold_room_only_when_too_many_threads_are_lost() {
    let _watchdog = watchdog();
    let script = Script::always(Call::IsValid, Act::Hang);
    let driver = Driver::named("mole").unwrap();
    let pool = hasty(&script, &driver);
    eventually("sixteen are lost", || {
        let _fresh = pool.get();
        script.hanging() >= 16
    });
    eventually("and then it stops", || pool.get().is_err());
    assert!(script.hanging() <= 16 + 2, "no more than there is room for: {}", script.hanging());
    eventually("who only tries does not wait for what cannot come", || {
        let waits = pool.stats().waits();
        pool.try_get().is_none() && pool.stats().waits() == waits
    });
    script.heal();
    script.release();
    drop((pool.get_timeout(SOON).unwrap(), pool.get_timeout(SOON).unwrap()));
    eventually("the lost ones are dropped", || script.alive() <= 2);
    assert_balanced(&pool.stats());
}

#[test]
fn a_connection_that_has_always_broken_serves_each_user_once() {
    let _watchdog = watchdog();
    let script = Script::always(Call::HasBroken, Act::Fail);
    let pool = script.builder().max_size(2).min_idle(Some(0)).build(script.clone()).unwrap();
    for number in 0..20 {
        assert_eq!(pool.get_timeout(SOON).unwrap().number, number);
    }
    assert_eq!((script.born(), pool.stats().reused()), (20, 0));
    eventually("all are dropped", || script.alive() == 0);
    assert_empty(&pool.stats());
}

/// Connections of a real server, which it may have ended.
struct Streams(SocketAddr, AtomicUsize);

impl ManageConnection for Streams {
    type Connection = TcpStream;
    type Error = io::Error;
    fn connect(&self) -> io::Result<TcpStream> {
        self.1.fetch_add(1, Ordering::SeqCst);
        TcpStream::connect(self.0)
    }
    fn is_valid(&self, stream: &mut TcpStream) -> io::Result<()> {
        stream.set_nonblocking(true)?;
        let read = stream.read(&mut [0]);
        stream.set_nonblocking(false)?;
        match read {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
            Ok(_) => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
    fn has_broken(&self, stream: &mut TcpStream) -> bool {
        self.is_valid(stream).is_err()
    }
}

#[test]
fn connections_that_the_server_closes_at_once_are_given_out_once_at_most_and_not_opened_in_a_rush()
{
    let _watchdog = watchdog();
    for is_watched in [false, true] {
        let server = Server::scripted(|_| Ok(()));
        let builder = Pool::builder().max_size(4);
        let builder = if is_watched {
            builder.watch(|stream: &TcpStream| Watch::Socket(stream.as_fd()))
        } else {
            builder
        };
        let pool = builder.build_unchecked(Streams(server.address(), AtomicUsize::new(0)));
        std::thread::sleep(25 * BRIEF); // half a second: for a rush, a long time
        let opened = pool.stats().opened();
        assert!(opened <= 60, "{opened} in half a second");
        for _ in 0..5 {
            if let Ok(mut stream) = pool.get_timeout(SOON) {
                assert_eq!(stream.read(&mut [0]).unwrap_or_default(), 0, "the server is gone");
            }
        }
        eventually("none comes back", || pool.stats().in_use() == 0);
        assert_eq!(pool.stats().reused(), 0);
        assert_balanced(&pool.stats());
    }
}

#[test]
fn connections_that_fail_their_test_before_their_first_use_are_opened_ever_more_slowly() {
    let _watchdog = watchdog();
    let script = Script::always(Call::IsValid, Act::Fail);
    let builder = script.builder().max_size(4);
    let builder = builder.configure(|config| config.check_interval(BRIEF));
    let pool = builder.build_unchecked(script.clone());
    std::thread::sleep(25 * BRIEF);
    let opened = pool.stats().opened();
    assert!(opened <= 60, "{opened} in half a second");
}

#[test]
fn connections_that_die_while_they_are_idle_are_given_to_nobody() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let address = server.address();
    let builder = Pool::builder().max_size(3);
    let builder = builder.configure(|config| config.check_after(Duration::ZERO));
    let pool = builder.build(Streams(address, AtomicUsize::new(0))).unwrap();
    server.assert_accepted(3);
    server.hang_up();
    let mut stream = pool.get().unwrap();
    io::Write::write_all(&mut *stream, b"ping").unwrap();
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"ping");
    let stats = pool.stats();
    assert!(stats.closed_for(CloseReason::CheckFailed) >= 1, "{stats}");
    assert_eq!(stats.reused(), 0);
}

#[test]
fn connections_that_die_while_they_are_idle_are_noticed_at_once_where_they_are_watched() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let builder = Pool::builder().max_size(3).min_idle(Some(0)).test_on_check_out(false);
    let builder = builder.watch(|stream: &TcpStream| Watch::Socket(stream.as_fd()));
    let pool = builder.build(Streams(server.address(), AtomicUsize::new(0))).unwrap();
    let held: Vec<_> = (0..3).map(|_| pool.get().unwrap()).collect();
    server.assert_accepted(3);
    drop(held);
    server.hang_up();
    eventually("they are closed", || pool.stats().closed_for(CloseReason::PeerClosed) == 3);
    assert_eq!((pool.state().connections, pool.stats().checks()), (0, 0));
    assert!(pool.get_timeout(SOON).is_ok());
}

#[test]
fn a_watch_that_panics_is_told_and_loses_nothing() {
    let _watchdog = watchdog();
    let script = Script::sound();
    let builder = script.builder().max_size(2).connection_timeout(5 * BRIEF);
    let builder = builder.watch(|_| std::panic::panic_any("told to panic"));
    let pool = builder.build_unchecked(script.clone());
    eventually("an attempt has failed", || pool.stats().connects_failed() > 0);
    let error = pool.get().unwrap_err();
    assert_eq!((error.kind(), error.failure()), (ErrorKind::Timeout, Some(Failure::Panic)));
    assert!(error.to_string().contains("told to panic"), "{error}");
    pool.drain(Deadline::after(SOON)).unwrap();
    assert_empty(&pool.stats());
    eventually("nothing lives on", || script.alive() == 0);
}

/// A manager whose own end is a nuisance.
struct Parting(Act, Receiver<()>, Sender<()>);

impl Drop for Parting {
    fn drop(&mut self) {
        self.2.send(()).unwrap();
        match self.0 {
            Act::Panic => std::panic::panic_any("the manager was told to panic"),
            _ => _ = self.1.recv(),
        }
    }
}

impl ManageConnection for Parting {
    type Connection = u8;
    type Error = io::Error;
    fn connect(&self) -> io::Result<u8> {
        Ok(0)
    }
    fn is_valid(&self, _: &mut u8) -> io::Result<()> {
        Ok(())
    }
    fn has_broken(&self, _: &mut u8) -> bool {
        false
    }
}

#[test]
fn a_manager_whose_end_panics_harms_nobody_whoever_holds_the_last_of_its_pool() {
    let _watchdog = watchdog();
    for (is_used, guard_is_last) in [(false, false), (true, false), (true, true)] {
        let ((_gate, gated), (tell, ended)) = (bounded(0), bounded(10));
        let builder = Pool::builder().max_size(2).min_idle(Some(0));
        let pool = builder.build_unchecked(Parting(Act::Panic, gated, tell));
        let conn = is_used.then(|| pool.get().unwrap());
        if guard_is_last {
            drop(pool);
            drop(conn);
        } else {
            drop(conn);
            drop(pool);
        }
        ended.recv_timeout(SOON).expect("it ends");
    }
}

/// What `build` says to these settings.
fn refusal(settings: impl FnOnce(Builder<Script>) -> Builder<Script>) -> String {
    let error = settings(Pool::builder()).build(Script::sound()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    error.to_string()
}

#[test]
fn settings_that_make_no_sense_are_refused_by_the_names_that_the_program_used() {
    let zero = Duration::ZERO;
    for (name, text) in [
        ("max_size(0)", refusal(|it| it.max_size(0))),
        ("max_size(4294967295)", refusal(|it| it.max_size(u32::MAX))),
        ("min_idle(6)", refusal(|it| it.max_size(5).min_idle(Some(6)))),
        ("max_size(5)", refusal(|it| it.max_size(5).min_idle(Some(6)))),
        ("max_lifetime(0ns)", refusal(|it| it.max_lifetime(Some(zero)))),
        ("idle_timeout(0ns)", refusal(|it| it.idle_timeout(Some(zero)))),
        ("connection_timeout(0ns)", refusal(|it| it.connection_timeout(zero))),
        ("max_total(5)", refusal(|it| it.configure(|config| config.max_total(5)))),
    ] {
        assert!(text.contains(name), "{name}: {text}");
    }
}

#[test]
#[should_panic(expected = "min_idle(6)")]
fn a_pool_built_unchecked_of_settings_that_make_no_sense_panics_as_r2d2s_does() {
    drop(Pool::builder().max_size(5).min_idle(Some(6)).build_unchecked(Script::sound()));
}

#[test]
fn time_outs_without_an_end_are_no_trouble() {
    let _watchdog = watchdog();
    let ages = Duration::MAX;
    let builder = Pool::builder().max_size(2).connection_timeout(ages);
    let builder = builder.max_lifetime(Some(ages)).idle_timeout(Some(ages));
    let pool = builder.build(Script::sound()).unwrap();
    drop((pool.get().unwrap(), pool.get_timeout(ages).unwrap()));
    let century = Duration::from_secs(100 * 365 * 24 * 3600);
    assert!(pool.connection_timeout() > century && pool.idle_timeout() > Some(century));
    let (held, second) = (pool.get().unwrap(), pool.get().unwrap());
    std::thread::scope(|scope| {
        scope.spawn(|| drop(pool.get().unwrap()));
        eventually("it waits for ages", || pool.stats().waiting() == 1);
        drop(held);
    });
    drop(second);
    assert_eq!(pool.state().idle_connections, 2);
}

#[test]
fn shortest_time_outs_end_in_errors_and_lose_nothing() {
    let _watchdog = watchdog();
    let least = Duration::from_millis(1);
    let script = Script::sound();
    let builder = script.builder().max_size(2).connection_timeout(least);
    let builder = builder.max_lifetime(Some(BRIEF)).idle_timeout(Some(BRIEF));
    let pool = Arc::new(builder.build_unchecked(script.clone()));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..100 {
                    drop(pool.get());
                }
            });
        }
    });
    drop((pool.get_timeout(SOON).unwrap(), pool.get_timeout(SOON).unwrap()));
    let stats = pool.stats();
    assert_eq!((stats.in_use(), stats.waiting()), (0, 0));
    assert_balanced(&stats);
}
