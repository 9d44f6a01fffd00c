//! Idle connections are asked whether they live, and what does not answer ends.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, unbounded};
use warmline::{
    Address, Beat, BoxError, Builder, CloseReason, Connector, Heartbeat, Opening, Plan, Pool,
    Pulse, Socket, TcpConnector, Watch,
};

use crate::support::server::{Peer, Server};
use crate::support::{SOON, ask, assert_balanced, eventually, watchdog};

const BRIEF: Duration = Duration::from_millis(20);

fn beating(heartbeat: impl Heartbeat + Clone + Sync + 'static) -> Builder<TcpConnector> {
    Pool::builder(TcpConnector::new().heartbeat(heartbeat)).check_interval(BRIEF)
}

fn ping() -> Beat {
    Beat::new("beat", "okay")
}

/// A server that does with every ping what `answer` says, and how many it had.
fn answers(
    answer: impl Fn(&mut Peer, usize) -> std::io::Result<()> + Send + Sync + 'static,
) -> (Server, Arc<AtomicUsize>) {
    let pings = Arc::<AtomicUsize>::default();
    let server = Server::scripted({
        let pings = Arc::clone(&pings);
        move |peer| loop {
            let request = peer.take(4)?;
            if request == b"beat" {
                answer(peer, pings.fetch_add(1, Ordering::SeqCst))?;
            } else {
                peer.write_all(&request)?;
            }
        }
    });
    (server, pings)
}

fn pongs() -> (Server, Arc<AtomicUsize>) {
    answers(|peer, _| peer.write_all(b"okay"))
}

fn in_both_ways(test: impl Fn(Builder<TcpConnector>)) {
    for portably in [false, true] {
        test(beating(ping()).portable_watch(portably));
    }
}

#[test]
fn an_idle_connection_is_asked_again_and_again_and_is_as_good_as_before() {
    let _watchdog = watchdog();
    in_both_ways(|builder| {
        let (server, pings) = pongs();
        // One alone: where an answer is slow, another would be opened.
        let pool = builder.max_per_endpoint(1).build().unwrap();
        ask(&mut pool.get(&server.name()).unwrap()).unwrap();
        eventually("it is asked", || pings.load(Ordering::SeqCst) >= 5);
        ask(&mut pool.get(&server.name()).unwrap()).unwrap();
        assert_eq!((pool.stats().opened(), pool.stats().closed()), (1, 0), "{}", pool.stats());
        // And it is watched as before.
        drop(pool.get(&server.name()).unwrap());
        server.hang_up();
        eventually("its end is noticed", || pool.stats().closed_for(CloseReason::PeerClosed) == 1);
        assert_balanced(&pool.stats());
    });
}

#[test]
fn a_connection_in_use_is_left_alone() {
    let _watchdog = watchdog();
    let (server, pings) = pongs();
    let pool = beating(ping()).max_per_endpoint(2).build().unwrap();
    let mut held = pool.get(&server.name()).unwrap();
    drop(pool.get(&server.name()).unwrap());
    eventually("the idle one is asked", || pings.load(Ordering::SeqCst) >= 5);
    ask(&mut held).unwrap();
    assert_eq!(warmline::PooledConn::exchange(&mut held).read(), Some(4));
}

/// A pool with one connection whose server answers so, until the heartbeat has ended it.
fn ends_by(
    reason: CloseReason,
    answer: impl Fn(&mut Peer) -> std::io::Result<()> + Send + Sync + 'static + Clone,
) {
    for portably in [false, true] {
        let answer = answer.clone();
        let (server, _) = answers(move |peer, _| answer(peer));
        let pool = beating(ping()).portable_watch(portably);
        let pool = pool.check_timeout(BRIEF).build().unwrap();
        drop(pool.get(&server.name()).unwrap());
        eventually("it ends", || pool.stats().closed() == 1);
        assert_eq!(pool.stats().closed_for(reason), 1, "{}", pool.stats());
        eventually("its server sees it", || server.open() == 0);
        ask(&mut pool.get(&server.name()).unwrap()).unwrap();
        assert_balanced(&pool.stats());
    }
}

#[test]
fn one_that_does_not_answer_or_not_all_of_it_is_closed_when_its_time_is_over() {
    let _watchdog = watchdog();
    ends_by(CloseReason::TooLate, |_| Ok(()));
    ends_by(CloseReason::TooLate, |peer| peer.write_all(b"oka"));
}

#[test]
fn one_that_answers_garbage_or_too_much_is_closed_at_once() {
    let _watchdog = watchdog();
    ends_by(CloseReason::CheckFailed, |peer| peer.write_all(b"nope"));
    ends_by(CloseReason::CheckFailed, |peer| peer.write_all(b"okay!"));
    ends_by(CloseReason::CheckFailed, |peer| peer.write_all(&[b'o'; 300_000]));
}

#[test]
fn one_whose_server_hangs_up_instead_is_closed() {
    let _watchdog = watchdog();
    ends_by(CloseReason::PeerClosed, |_| Err(std::io::ErrorKind::Other.into()));
}

#[test]
fn an_answer_may_come_in_parts() {
    let _watchdog = watchdog();
    in_both_ways(|builder| {
        let (server, pings) = answers(|peer, _| {
            for part in ["o", "ka", "y"] {
                peer.write_all(part.as_bytes())?;
                std::thread::sleep(Duration::from_millis(2));
            }
            Ok(())
        });
        let pool = builder.build().unwrap();
        drop(pool.get(&server.name()).unwrap());
        eventually("it is asked", || pings.load(Ordering::SeqCst) >= 5);
        assert_eq!(pool.stats().closed(), 0, "{}", pool.stats());
    });
}

/// Answers when it is told to.
fn answers_when_told() -> (Server, Receiver<()>, Sender<()>) {
    let ((asks, asked), (tell, told)) = (unbounded(), unbounded());
    let (server, _) = answers(move |peer, _| {
        let _gone = asks.send(());
        peer.wait(&told)?;
        peer.write_all(b"okay")
    });
    (server, asked, tell)
}

#[test]
fn a_connection_that_is_being_asked_is_not_idle_and_serves_who_waits_once_it_has_answered() {
    let _watchdog = watchdog();
    let (server, asked, tell) = answers_when_told();
    let pool = beating(ping()).max_per_endpoint(1).check_timeout(SOON).build().unwrap();
    drop(pool.get(&server.name()).unwrap());
    asked.recv_timeout(SOON).unwrap();
    eventually("it is out", || (pool.stats().idle(), pool.stats().checking()) == (0, 1));
    assert!(pool.try_get(&server.name()).unwrap().is_none());
    let request = pool.request(&server.name()).unwrap();
    tell.send(()).unwrap();
    let mut conn = request.receiver().recv_timeout(SOON).unwrap().unwrap();
    ask(&mut conn).unwrap();
    assert_eq!(pool.stats().opened(), 1);
}

#[test]
fn closing_or_evicting_while_one_is_asked_ends_it() {
    let _watchdog = watchdog();
    let (server, asked, tell) = answers_when_told();
    let pool = beating(ping()).check_timeout(SOON).build().unwrap();
    let endpoint = pool.endpoint(&server.name()).unwrap();
    drop(endpoint.get().unwrap());
    asked.recv_timeout(SOON).unwrap();
    endpoint.evict();
    tell.send(()).unwrap();
    eventually("it ends", || pool.stats().closed_for(CloseReason::Evicted) == 1);
    drop(endpoint.get().unwrap());
    asked.recv_timeout(SOON).unwrap();
    pool.close();
    eventually("it does not wait for an answer", || pool.stats().total() == 0);
    assert_balanced(&pool.stats());
}

/// Panics wherever it is told to.
#[derive(Clone)]
struct Panics {
    in_ping: bool,
}

impl Heartbeat for Panics {
    fn ping(&mut self, out: &mut Vec<u8>) {
        assert!(!self.in_ping, "as the test says");
        out.extend_from_slice(b"beat");
    }

    fn pong(&mut self, _: &[u8]) -> Pulse {
        panic!("as the test says")
    }
}

#[test]
fn one_that_panics_costs_its_connection_and_nobody_elses() {
    let _watchdog = watchdog();
    for in_ping in [true, false] {
        let (server, other) = (pongs().0, pongs());
        let pool = beating(Panics { in_ping }).build().unwrap();
        drop(pool.get(&server.name()).unwrap());
        let reason = CloseReason::ConnectorPanicked;
        eventually("it ends", || pool.stats().closed_for(reason) == 1);
        let well = beating(ping()).build().unwrap();
        drop(well.get(&other.0.name()).unwrap());
        eventually("others are asked", || other.1.load(Ordering::SeqCst) >= 3);
        assert_eq!(well.stats().closed(), 0);
    }
}

/// A connector of somebody else's, with a heartbeat on the socket that it shows.
struct Foreign;

impl Connector for Foreign {
    type Key = Address;
    type Conn = Socket;

    fn plan(&self, key: &Address) -> Plan {
        Plan::addrs([key.ip().unwrap()])
    }

    fn open(&self, _: &Address, opening: &mut Opening) -> Result<Socket, BoxError> {
        opening.take_socket()
    }

    fn watch<'c>(&self, conn: &'c Socket) -> Watch<'c> {
        conn.watch()
    }

    fn heartbeat(&self, _: &Address) -> Option<Box<dyn Heartbeat>> {
        Some(Box::new(ping()))
    }
}

#[test]
fn connections_of_other_connectors_are_asked_as_well_and_hundreds_at_a_time() {
    let _watchdog = watchdog();
    let (server, pings) = pongs();
    let builder = Pool::builder(Foreign).max_per_endpoint(300).max_idle(300).max_connecting(50);
    let pool = builder.check_interval(Duration::from_millis(200)).build().unwrap();
    let endpoint = pool.endpoint(&server.name()).unwrap();
    assert_eq!(endpoint.warm(300, SOON).unwrap(), 300);
    eventually("all are asked", || pings.load(Ordering::SeqCst) >= 600);
    assert_eq!((pool.stats().total(), pool.stats().closed()), (300, 0), "{}", pool.stats());
}

#[test]
fn a_heartbeat_is_no_use_and_the_idle_time_out_comes_all_the_same() {
    let _watchdog = watchdog();
    let (server, pings) = pongs();
    let pool = beating(ping()).idle_timeout(Duration::from_millis(200)).build().unwrap();
    drop(pool.get(&server.name()).unwrap());
    eventually("it ends", || pool.stats().closed_for(CloseReason::IdleTimeout) == 1);
    assert!(pings.load(Ordering::SeqCst) >= 2);
}

#[test]
fn a_greeting_is_for_the_first_user_and_no_answer_to_a_heartbeat() {
    let _watchdog = watchdog();
    for portably in [false, true] {
        let server = Server::scripted(|peer| {
            peer.write_all(b"hello")?;
            while peer.take(4)? == b"beat" {
                peer.write_all(b"okay")?;
            }
            Ok(())
        });
        let pool = beating(ping()).portable_watch(portably).min_idle(1).build().unwrap();
        let endpoint = pool.endpoint(&server.name()).unwrap();
        endpoint.warm(1, SOON).unwrap();
        // Another's heartbeats go by meanwhile.
        let (other, pings) = pongs();
        let well = beating(ping()).build().unwrap();
        drop(well.get(&other.name()).unwrap());
        eventually("time passes", || pings.load(Ordering::SeqCst) >= 5);
        assert_eq!((server.accepted(), endpoint.stats().closed()), (1, 0), "{}", endpoint.stats());
        let mut greeting = [0; 5];
        endpoint.get().unwrap().read_exact(&mut greeting).unwrap();
        assert_eq!(&greeting, b"hello");
    }
}
