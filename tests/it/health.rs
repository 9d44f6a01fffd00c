//! Idle connections are proved to work while nobody needs them: by heartbeats that the event loop
//! carries, or by checks on threads of their own. What fails goes before a user meets it.

use std::io::{self, Read, Write};
use std::panic::panic_any;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_channel::unbounded;
use warmline::{
    Beat, Builder, CloseReason, Deadline, ErrorKind, Heartbeat, Pool, PooledConn, Pulse,
    TcpConnector, UnixConnector,
};

use crate::support::lab::{Act, Lab, Method};
use crate::support::programs::Program;
use crate::support::server::{Peer, Server};
use crate::support::{
    Diary, SOON, ask, assert_balanced, assert_empty, both_ways, eventually, tcp, watchdog,
};

const BRIEF: Duration = Duration::from_millis(20);
const LONG: Duration = Duration::from_secs(3600);

both_ways! {
    idle_connections_are_sent_heartbeats_and_stay_as_they_were,
    answers_to_heartbeats_and_to_users_are_never_mixed_up,
    whatever_is_no_answer_to_a_heartbeat_ends_the_connection_before_anybody_meets_it,
}

fn beating(is_portable: bool) -> Builder<TcpConnector> {
    let connector = TcpConnector::new().heartbeat(Beat::new(b"beat", b"beat"));
    Pool::builder(connector).portable_watch(is_portable).check_interval(BRIEF)
}

/// An echo that counts how often it hears the word.
fn counting(beats: &Arc<AtomicUsize>) -> impl Fn(&mut Peer) -> io::Result<()> + use<> {
    let beats = Arc::clone(beats);
    move |peer| {
        loop {
            let word = peer.take(4)?;
            beats.fetch_add(usize::from(word == b"beat"), Ordering::SeqCst);
            peer.write_all(&word)?;
        }
    }
}

fn idle_connections_are_sent_heartbeats_and_stay_as_they_were(is_portable: bool) {
    let _watchdog = watchdog();
    let beats = Arc::<AtomicUsize>::default();
    let server = Server::scripted(counting(&beats));
    let pool = beating(is_portable).build().unwrap();
    let endpoint = pool.endpoint(&server.name()).unwrap();
    assert_eq!(endpoint.warm(5, SOON).unwrap(), 5);
    ask(&mut endpoint.get().unwrap()).unwrap();
    eventually("each has been sent some", || beats.load(Ordering::SeqCst) >= 20);
    for _ in 0..5 {
        ask(&mut endpoint.get().unwrap()).expect("nothing is left of them");
    }
    let stats = endpoint.stats();
    assert_eq!((stats.total(), stats.opened(), stats.closed()), (5, 5, 0));
    assert_eq!(stats.checkouts(), 6, "a heartbeat is none");
}

fn answers_to_heartbeats_and_to_users_are_never_mixed_up(is_portable: bool) {
    let _watchdog = watchdog();
    let beats = Arc::<AtomicUsize>::default();
    let server = Server::scripted(counting(&beats));
    let builder = beating(is_portable).check_interval(Duration::from_millis(1));
    let pool = builder.max_per_endpoint(3).build().unwrap();
    let endpoint = pool.endpoint(&server.name()).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut exchanges = 0;
                while beats.load(Ordering::SeqCst) < 100 || exchanges < 200 {
                    ask(&mut endpoint.get_timeout(SOON).unwrap()).unwrap();
                    exchanges += 1;
                    std::thread::sleep(Duration::from_millis(exchanges % 4));
                }
            });
        }
    });
    assert_eq!((endpoint.stats().closed(), endpoint.stats().in_use()), (0, 0));
    assert!(server.accepted() <= 3);
}

/// What a server does when it hears the word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    Garbage,
    Half,
    TooMuch,
    Late,
    Never,
    HangsUp,
    Resets,
}

impl Manner {
    fn act(self, peer: &mut Peer) -> io::Result<()> {
        match self {
            Self::Garbage => peer.write_all(b"heat")?,
            Self::Half => peer.write_all(b"be")?,
            Self::TooMuch => peer.write_all(b"beatbeat")?,
            Self::Late => {
                std::thread::sleep(Duration::from_millis(400));
                peer.write_all(b"beat")?;
            }
            Self::Never => {}
            Self::HangsUp => return Ok(()),
            Self::Resets => return peer.reset(),
        }
        peer.stay_silent()
    }
}

fn whatever_is_no_answer_to_a_heartbeat_ends_the_connection_before_anybody_meets_it(
    is_portable: bool,
) {
    use Manner::{Garbage, Half, HangsUp, Late, Never, Resets, TooMuch};

    let _watchdog = watchdog();
    for manner in [Garbage, Half, TooMuch, Late, Never, HangsUp, Resets] {
        // The first two behave so; what comes after them is sound.
        let server = Server::scripted(move |peer| {
            loop {
                let word = peer.take(4)?;
                if word == b"beat" && peer.number() < 2 {
                    return manner.act(peer);
                }
                peer.write_all(&word)?;
            }
        });
        let diary = Diary::default();
        let builder = beating(is_portable).check_timeout(Duration::from_millis(100));
        let pool = builder.observer(diary.clone()).build().unwrap();
        let endpoint = pool.endpoint(&server.name()).unwrap();
        assert_eq!(endpoint.warm(2, SOON).unwrap(), 2);
        for reason in diary.reasons_of(2) {
            let is_farewell = matches!(manner, HangsUp | Resets);
            let is_expected = match reason {
                CloseReason::CheckFailed => matches!(manner, Garbage | TooMuch | HangsUp | Resets),
                CloseReason::TooLate => matches!(manner, Half | Late | Never),
                CloseReason::PeerClosed => is_farewell,
                // What it says after its answer may come after the answer was found good.
                CloseReason::StrayBytes => manner == TooMuch,
                _ => false,
            };
            assert!(is_expected, "{manner:?}: {reason:?}");
        }
        assert_eq!((endpoint.stats().total(), endpoint.stats().checkouts()), (0, 0), "{manner:?}");
        ask(&mut endpoint.get().unwrap()).unwrap();
        assert_balanced(&endpoint.stats());
        eventually("their descriptors are closed", || server.open() == 1);
    }
}

/// A server that answers heartbeats when it is told to.
fn hesitant() -> (Server, crossbeam_channel::Sender<()>) {
    let (tell, told) = unbounded();
    let server = Server::scripted(move |peer| {
        loop {
            let word = peer.take(4)?;
            if word == b"beat" {
                peer.wait(&told)?;
            }
            peer.write_all(&word)?;
        }
    });
    (server, tell)
}

#[test]
fn who_comes_while_the_only_connection_is_out_for_a_heartbeat_gets_it_when_it_is_back() {
    let _watchdog = watchdog();
    let (server, tell) = hesitant();
    let pool = beating(false).max_per_endpoint(1).check_timeout(LONG).build().unwrap();
    let endpoint = pool.endpoint(&server.name()).unwrap();
    ask(&mut endpoint.get().unwrap()).unwrap();
    eventually("it is out", || endpoint.stats().checking() == 1);
    assert_eq!((endpoint.stats().idle(), endpoint.stats().total()), (0, 1));
    assert!(endpoint.try_get().is_none(), "it is not to be had");
    let waits = endpoint.request().unwrap();
    tell.send(()).unwrap();
    let mut conn = waits.receiver().recv_timeout(SOON).unwrap().unwrap();
    assert!(PooledConn::is_reused(&conn));
    ask(&mut conn).unwrap();
    assert_eq!((server.accepted(), endpoint.stats().closed()), (1, 0));
}

#[test]
fn who_comes_while_all_are_out_for_a_heartbeat_waits_no_longer_than_that_may_take() {
    let _watchdog = watchdog();
    let (server, _tell) = hesitant();
    let pool = beating(false).check_timeout(BRIEF * 10).build().unwrap();
    let endpoint = pool.endpoint(&server.name()).unwrap();
    assert_eq!(endpoint.warm(3, SOON).unwrap(), 3);
    eventually("they are out", || endpoint.stats().checking() == 3);
    let mut conn = endpoint.get_timeout(SOON).expect("another can be opened");
    ask(&mut conn).unwrap();
    assert!(!PooledConn::is_reused(&conn));
    eventually("nobody answers", || endpoint.stats().closed_for(CloseReason::TooLate) == 3);
    assert_eq!(endpoint.stats().timed_out(), 0);
}

#[test]
fn who_comes_while_all_are_out_for_a_heartbeat_is_not_kept_waiting_for_the_answers() {
    let _watchdog = watchdog();
    let (server, _tell) = hesitant();
    let pool = beating(false).check_timeout(LONG).build().unwrap();
    let endpoint = pool.endpoint(&server.name()).unwrap();
    assert_eq!(endpoint.warm(3, SOON).unwrap(), 3);
    eventually("they are out", || endpoint.stats().checking() == 3);
    let mut conn = endpoint.get_timeout(SOON).expect("there is room for another");
    ask(&mut conn).unwrap();
    assert_eq!(endpoint.stats().checking(), 3, "they are out still");
}

#[test]
fn what_is_in_use_is_sent_no_heartbeat() {
    let _watchdog = watchdog();
    let beats = Arc::<AtomicUsize>::default();
    let server = Server::scripted(counting(&beats));
    let (one, two) = (beating(false).build().unwrap(), beating(false).build().unwrap());
    let mut held = one.get(&server.name()).unwrap();
    ask(&mut held).unwrap();
    drop(two.get(&server.name()).unwrap());
    eventually("another has been sent some", || beats.load(Ordering::SeqCst) >= 10);
    held.set_read_timeout(BRIEF).unwrap();
    held.read_exact(&mut [0]).expect_err("nobody has asked for anything");
    two.close();
    let before = beats.load(Ordering::SeqCst);
    held.set_read_timeout(Duration::from_millis(200)).unwrap();
    held.read_exact(&mut [0]).expect_err("nor has now");
    assert_eq!(beats.load(Ordering::SeqCst), before);
}

#[test]
fn without_an_interval_nothing_is_sent() {
    let _watchdog = watchdog();
    let (beats, other_beats) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    let (server, other) =
        (Server::scripted(counting(&beats)), Server::scripted(counting(&other_beats)));
    let never = beating(false).check_interval(None).build().unwrap();
    let pool = beating(false).build().unwrap();
    drop((never.get(&server.name()).unwrap(), pool.get(&other.name()).unwrap()));
    eventually("the other is sent some", || other_beats.load(Ordering::SeqCst) >= 10);
    assert_eq!((beats.load(Ordering::SeqCst), never.stats().idle()), (0, 1));
}

#[test]
fn an_interval_of_nothing_is_refused_and_one_longer_than_any_life_does_no_harm() {
    let _watchdog = watchdog();
    let error = tcp().check_interval(Duration::ZERO).build().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("check_interval"), "{error}");
    let server = Server::echo();
    for interval in [LONG, Duration::MAX] {
        let diary = Diary::default();
        let builder = beating(false).check_interval(interval).observer(diary.clone());
        let pool = builder.max_lifetime(BRIEF * 2).build().unwrap();
        drop(pool.get(&server.name()).unwrap());
        assert_eq!(diary.reasons_of(1), [CloseReason::MaxLifetime]);
    }
}

/// A line protocol: any line that begins so is an answer.
#[derive(Clone)]
struct Lines;

impl Heartbeat for Lines {
    fn ping(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"NOOP\n");
    }

    fn pong(&mut self, received: &[u8]) -> Pulse {
        match received.iter().position(|&byte| byte == b'\n') {
            None => Pulse::More,
            Some(end) if end + 1 == received.len() && received.starts_with(b"OK") => Pulse::Alive,
            Some(_) => Pulse::Dead,
        }
    }
}

#[test]
fn a_line_protocol_has_heartbeats_in_a_few_lines_on_unix_sockets_too() {
    let _watchdog = watchdog();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let beats = Arc::<AtomicUsize>::default();
    let server = Server::unix(&path, {
        let beats = Arc::clone(&beats);
        move |peer| {
            loop {
                assert_eq!(peer.take(5)?, b"NOOP\n");
                let before = beats.fetch_add(1, Ordering::SeqCst);
                // Piece by piece, and different each time.
                for byte in format!("OK {before}\n").bytes() {
                    peer.write_all(&[byte])?;
                }
            }
        }
    });
    let builder = Pool::builder(UnixConnector::new().heartbeat(Lines)).check_interval(BRIEF);
    let pool = builder.build().unwrap();
    drop([pool.get(&path).unwrap(), pool.get(&path).unwrap()]);
    eventually("they have been sent some", || beats.load(Ordering::SeqCst) >= 10);
    assert_eq!((pool.stats().total(), pool.stats().closed(), server.accepted()), (2, 0, 2));
}

/// Panics in one of its methods.
#[derive(Clone)]
struct Panicking {
    in_ping: bool,
}

impl Heartbeat for Panicking {
    fn ping(&mut self, out: &mut Vec<u8>) {
        if self.in_ping {
            panic_any("ping was told to panic");
        }
        out.extend_from_slice(b"beat");
    }

    fn pong(&mut self, _: &[u8]) -> Pulse {
        panic_any("pong was told to panic")
    }
}

#[test]
fn a_heartbeat_that_panics_costs_its_connection_and_nobody_else() {
    let _watchdog = watchdog();
    let server = Server::echo();
    for in_ping in [true, false] {
        let diary = Diary::default();
        let connector = TcpConnector::new().heartbeat(Panicking { in_ping });
        let builder = Pool::builder(connector).check_interval(BRIEF).observer(diary.clone());
        let pool = builder.build().unwrap();
        let mut held = pool.get(&server.name()).unwrap();
        drop(pool.get(&server.name()).unwrap());
        assert_eq!(diary.reasons_of(1), [CloseReason::ConnectorPanicked]);
        ask(&mut held).unwrap();
        server.hang_up();
        drop(held);
        ask(&mut pool.get(&server.name()).unwrap()).expect("the loop connects as ever");
        assert_balanced(&pool.stats());
    }
}

#[test]
fn what_is_out_for_a_heartbeat_ends_with_its_pool_or_its_generation() {
    let _watchdog = watchdog();
    for is_closed in [true, false] {
        let (server, tell) = hesitant();
        let diary = Diary::default();
        let builder = beating(false).check_timeout(LONG).observer(diary.clone());
        let pool = builder.build().unwrap();
        assert_eq!(pool.endpoint(&server.name()).unwrap().warm(3, SOON).unwrap(), 3);
        eventually("they are out", || pool.stats().checking() == 3);
        let reason = if is_closed {
            pool.drain(Deadline::after(SOON)).expect("it does not wait for the answers");
            CloseReason::PoolClosed
        } else {
            pool.evict_all();
            (0..3).for_each(|_| tell.send(()).unwrap());
            CloseReason::Evicted
        };
        assert_eq!(diary.reasons_of(3), [reason; 3]);
        assert_empty(&pool.stats());
        drop(tell);
        eventually("their server sees it", || server.open() == 0);
    }
}

#[test]
fn hundreds_of_idle_connections_are_all_sent_heartbeats() {
    let _watchdog = watchdog();
    const COUNT: usize = 200;
    let beats = Arc::new(parking_lot::Mutex::new(vec![0_u32; COUNT]));
    let server = Server::scripted({
        let beats = Arc::clone(&beats);
        move |peer| {
            loop {
                assert_eq!(peer.take(4)?, b"beat");
                if let Some(count) = beats.lock().get_mut(peer.number()) {
                    *count += 1;
                }
                peer.write_all(b"beat")?;
            }
        }
    });
    let builder = beating(false).max_per_endpoint(COUNT).max_idle(COUNT).max_connecting(COUNT);
    let pool = builder.check_interval(Duration::from_millis(200)).build().unwrap();
    let endpoint = pool.endpoint(&server.name()).unwrap();
    assert_eq!(endpoint.warm(COUNT, SOON).unwrap(), COUNT);
    eventually("each has been sent some", || beats.lock().iter().all(|&count| count >= 3));
    assert_eq!((endpoint.stats().total(), endpoint.stats().closed()), (COUNT, 0));
}

#[test]
fn a_real_redis_answers_heartbeats_and_its_users() {
    let _watchdog = watchdog();
    let Some(redis) = Program::redis(&[]) else { return };
    let connector = TcpConnector::new().heartbeat(Beat::redis());
    let pool = Pool::builder(connector).check_interval(BRIEF).build().unwrap();
    let endpoint = pool.endpoint(&redis.address().to_string()).unwrap();
    assert_eq!(endpoint.warm(3, SOON).unwrap(), 3);
    let pings = || {
        let mut conn = endpoint.get().unwrap();
        conn.write_all(b"INFO commandstats\r\n").unwrap();
        let mut text = Vec::new();
        let mut buffer = [0; 4096];
        // A bulk string: its length in a line, itself, and the end of a line.
        loop {
            let read = conn.read(&mut buffer).unwrap();
            text.extend_from_slice(buffer.get(..read).unwrap());
            let all = String::from_utf8_lossy(&text).into_owned();
            let (length, rest) = all.trim_start_matches('$').split_once("\r\n").unwrap();
            if rest.len() == length.parse::<usize>().unwrap() + 2 {
                let calls = all.split("cmdstat_ping:calls=").nth(1).unwrap_or("0,");
                return calls.split(',').next().unwrap().parse::<u32>().unwrap();
            }
        }
    };
    eventually("it has been sent some", || pings() >= 20);
    assert_eq!(endpoint.stats().closed(), 0, "{}", endpoint.stats());
}

#[test]
fn idle_connections_with_a_check_are_checked_though_nobody_asks() {
    let _watchdog = watchdog();
    let lab = Lab::new(|method, before| match (method, before) {
        (Method::HasCheck, _) => Act::Later,
        (Method::Check, 4) => Act::Fail,
        (Method::Check, 6) => Act::Panic,
        (Method::Check, 8) => Act::Hang,
        _ => Act::Go,
    });
    let bench = lab.bench();
    let builder = Pool::builder(lab).check_interval(BRIEF).min_idle(2);
    let pool = builder.check_timeout(BRIEF * 50).build().unwrap();
    bench.watch_over(&pool);
    let endpoint = pool.endpoint("a").unwrap();
    eventually("each that was not found to work has ended", || endpoint.stats().closed() == 3);
    eventually("they go on, and two are ready", || {
        bench.calls(Method::Check) >= 15 && endpoint.stats().idle() == 2
    });
    let closed_for = |reason| endpoint.stats().closed_for(reason);
    assert_eq!(closed_for(CloseReason::CheckFailed), 1);
    // On a busy machine the words of a panic may take longer than a check.
    let (panicked, late) =
        (closed_for(CloseReason::ConnectorPanicked), closed_for(CloseReason::TooLate));
    assert!(panicked + late == 2 && late >= 1, "{}", endpoint.stats());
    assert_eq!(endpoint.stats().checkouts(), 0);
    bench.release();
    bench.let_go();
    drop(endpoint);
    pool.drain(Deadline::after(SOON)).unwrap();
    eventually("all are closed", || bench.alive() == 0);
}
