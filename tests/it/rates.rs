//! How many connections are opened at a time, and what becomes of attempts that nobody waits for.

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use warmline::{
    BoxError, CloseReason, Connector, Deadline, Endpoint, ErrorKind, Opening, Pool, PooledConn,
    Request, Resolved, Resolver,
};

use crate::support::faults::BlackHole;
use crate::support::foreign::{Greeted, Stubborn};
use crate::support::lab::{Act, Lab, Method};
use crate::support::server::{Peer, Server};
use crate::support::{SOON, ask, assert_balanced, assert_empty, eventually, tcp, watchdog};

const LONG: Duration = Duration::from_secs(3600);
const BRIEF: Duration = Duration::from_millis(20);

fn await_conn<C: Connector>(request: &Request<C>) -> PooledConn<C> {
    request.receiver().recv_timeout(SOON).unwrap().unwrap()
}

/// An echo that greets the first `count` at once, and any more one for each word of the test.
fn greets(count: usize) -> (Server, Sender<()>) {
    let (tell, told) = unbounded();
    let server = Server::scripted(move |peer| {
        if peer.number() >= count {
            peer.wait(&told)?;
        }
        std::io::Write::write_all(peer, b"!")?;
        peer.echo()
    });
    (server, tell)
}

#[test]
fn a_burst_of_callers_is_served_by_those_that_are_there_and_few_are_opened_beside_them() {
    let _watchdog = watchdog();
    let (server, tell) = greets(5);
    let builder = Pool::builder(Greeted).max_per_endpoint(50).max_connecting(50);
    let pool = builder.connect_timeout(SOON).build().unwrap();
    let endpoint = pool.endpoint(&server.name()).unwrap();
    let held: Vec<_> = (0..5).map(|_| endpoint.get_timeout(SOON).unwrap()).collect();
    let began = Instant::now();
    std::thread::scope(|scope| {
        let burst: Vec<_> = (0..50)
            .map(|_| scope.spawn(|| ask(&mut endpoint.get_timeout(SOON).unwrap()).unwrap()))
            .collect();
        eventually("all wait", || endpoint.stats().waiting() == 50);
        drop(held);
        burst.into_iter().for_each(|caller| caller.join().unwrap());
    });
    // None has ended; the next begins 5 ms after the last. By now none is wanted.
    let beside = endpoint.stats().connecting();
    let most = 1 + began.elapsed().as_millis() / 5;
    assert!((1..=most).contains(&(beside as u128)), "{beside} attempts, {most} at the most");
    assert_eq!((endpoint.stats().idle(), endpoint.stats().opened()), (5, 5));
    (0..beside).for_each(|_| tell.send(()).unwrap());
    eventually("they are kept", || endpoint.stats().idle() == 5 + beside);
    server.assert_accepted(5 + beside);
    assert_balanced(&endpoint.stats());
}

#[test]
fn with_nothing_in_use_all_that_are_needed_are_opened_at_once() {
    let _watchdog = watchdog();
    let (server, tell) = greets(0);
    let pool = Pool::builder(Greeted).max_connecting(8).connect_timeout(SOON).build().unwrap();
    let endpoint = pool.endpoint(&server.name()).unwrap();
    let requests: Vec<_> = (0..8).map(|_| endpoint.request().unwrap()).collect();
    assert_eq!(endpoint.stats().connecting(), 8);
    requests.iter().for_each(|_| tell.send(()).unwrap());
    for request in requests {
        ask(&mut await_conn(&request)).unwrap();
    }
    server.assert_accepted(8);
}

#[test]
fn an_attempt_that_takes_long_holds_up_the_next_for_a_moment_only() {
    let _watchdog = watchdog();
    let lab = Lab::new(|method, before| match (method, before) {
        (Method::Open, 1) => Act::Hang,
        _ => Act::Go,
    });
    let bench = lab.bench();
    let pool = Pool::builder(lab).connect_timeout(SOON).build().unwrap();
    let endpoint = pool.endpoint("a").unwrap();
    let held = endpoint.get().unwrap();
    let requests = [endpoint.request().unwrap(), endpoint.request().unwrap()];
    assert_eq!(endpoint.stats().connecting(), 1, "while one is in use, one at a time");
    let next = await_conn(&requests[0]);
    assert_eq!((next.number, endpoint.stats().connecting()), (1, 1), "the first hangs still");
    bench.release();
    drop(await_conn(&requests[1]));
    drop((held, next));
}

/// Lets the test ask, during `open`, whether the attempt is wanted.
struct Asked(Sender<Questions>);

/// To one attempt. When this is dropped, the attempt succeeds.
struct Questions {
    ask: Sender<()>,
    answers: Receiver<bool>,
}

impl Questions {
    fn is_wanted(&self) -> bool {
        self.ask.send(()).unwrap();
        self.answers.recv_timeout(SOON).unwrap()
    }
}

impl Connector for Asked {
    type Key = String;
    type Conn = ();

    fn open(&self, _: &String, opening: &mut Opening) -> Result<(), BoxError> {
        let ((ask, asked), (answer, answers)) = (bounded(0), unbounded());
        self.0.send(Questions { ask, answers })?;
        for () in asked {
            answer.send(opening.is_wanted())?;
        }
        Ok(())
    }
}

fn asked() -> (Endpoint<Asked>, Receiver<Questions>) {
    let (attempts, begun) = unbounded();
    let pool = Pool::builder(Asked(attempts)).connect_timeout(SOON).build().unwrap();
    (pool.endpoint("a").unwrap(), begun)
}

#[test]
fn an_attempt_is_told_when_nobody_waits_for_it_any_more_and_when_somebody_does_again() {
    let _watchdog = watchdog();
    let (endpoint, begun) = asked();
    let request = endpoint.request().unwrap();
    let attempt = begun.recv_timeout(SOON).unwrap();
    assert!(attempt.is_wanted());
    drop(request);
    assert!(!attempt.is_wanted(), "it was cancelled");
    let error = endpoint.get_timeout(BRIEF).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(!attempt.is_wanted(), "the caller has gone");
    let request = endpoint.request().unwrap();
    assert!(attempt.is_wanted(), "it serves the next as well");
    drop(attempt);
    drop(await_conn(&request));
    assert!(begun.is_empty(), "one was enough");
}

#[test]
fn of_two_attempts_the_later_is_unwanted_when_one_caller_is_left() {
    let _watchdog = watchdog();
    let (endpoint, begun) = asked();
    // The threads that take them up may come in either order.
    let first = endpoint.request().unwrap();
    let older = begun.recv_timeout(SOON).unwrap();
    let second = endpoint.request().unwrap();
    let younger = begun.recv_timeout(SOON).unwrap();
    assert!(older.is_wanted() && younger.is_wanted());
    drop(first);
    assert!(older.is_wanted() && !younger.is_wanted(), "the older comes sooner");
    drop(younger); // and comes sooner all the same
    drop(await_conn(&second));
    eventually("nobody waits", || endpoint.stats().in_use() == 0);
    assert!(!older.is_wanted());
    drop(older);
    eventually("it is kept", || endpoint.stats().idle() == 2);
}

#[test]
fn an_attempt_is_unwanted_once_a_connection_came_back_and_in_a_pool_that_is_closed() {
    let _watchdog = watchdog();
    let (endpoint, begun) = asked();
    std::thread::scope(|scope| {
        let first = scope.spawn(|| endpoint.get_timeout(SOON).unwrap());
        drop(begun.recv_timeout(SOON).unwrap());
        let held = first.join().unwrap();
        let request = endpoint.request().unwrap();
        let attempt = begun.recv_timeout(SOON).unwrap();
        assert!(attempt.is_wanted());
        drop(held);
        let held = request.receiver().try_recv().unwrap().unwrap();
        assert!(!attempt.is_wanted(), "it was served");
        let _waits = endpoint.request().unwrap();
        assert!(attempt.is_wanted());
        endpoint.pool().close();
        assert!(!attempt.is_wanted(), "the pool is closed");
        drop(held);
    });
}

#[test]
fn a_connect_that_hangs_and_nobody_waits_for_makes_way_for_another_endpoint() {
    let _watchdog = watchdog();
    let (hole, good) = (BlackHole::new(), Server::echo());
    let pool = tcp().max_total(1).connect_timeout(LONG).build().unwrap();
    let hangs = pool.endpoint(&hole.name()).unwrap();
    let error = hangs.get_timeout(BRIEF).unwrap_err();
    assert_eq!((error.kind(), hangs.stats().connecting()), (ErrorKind::Timeout, 1));
    let mut conn = pool.get_timeout(&good.name(), SOON).expect("its room is needed here");
    ask(&mut conn).unwrap();
    assert_eq!((hangs.stats().connects_called_off(), pool.stats().total()), (1, 1));
    eventually("its socket is gone", || hole.besieged_by().unwrap_or_default() == 0);
    drop(conn);

    // Nothing is held against it.
    assert_eq!(hangs.stats().connects_failed(), 0);
    let error = hangs.get_timeout(BRIEF).unwrap_err();
    assert_eq!((error.kind(), error.failure()), (ErrorKind::Timeout, None), "{error}");
    let _crowd = hole.open();
    drop(hangs.get_timeout(SOON).unwrap());
    assert_balanced(&pool.stats());
}

#[test]
fn a_connect_that_somebody_waits_for_is_nobodys_to_call_off() {
    let _watchdog = watchdog();
    let (hole, good) = (BlackHole::new(), Server::echo());
    let pool = tcp().max_total(1).connect_timeout(LONG).build().unwrap();
    let request = pool.request(&hole.name()).unwrap();
    let error = pool.get_timeout(&good.name(), BRIEF).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "there is no room: {error}");
    assert_eq!((pool.stats().connects_called_off(), pool.stats().connecting()), (0, 1));
    let next = pool.request(&good.name()).unwrap();
    assert!(next.receiver().is_empty());
    drop(request);
    ask(&mut await_conn(&next)).expect("now it makes way");
    assert_eq!(pool.stats().connects_called_off(), 1);
}

#[test]
fn as_many_make_way_as_are_needed_and_no_more() {
    let _watchdog = watchdog();
    let (hole, servers) = (BlackHole::new(), [Server::echo(), Server::echo()]);
    let pool = tcp().max_total(4).connect_timeout(LONG).build().unwrap();
    let hangs = pool.endpoint(&hole.name()).unwrap();
    let requests: Vec<_> = (0..4).map(|_| hangs.request().unwrap()).collect();
    assert_eq!(hangs.stats().connecting(), 4);
    drop(requests);
    let mut held = Vec::new();
    for (at, server) in servers.iter().enumerate() {
        held.push(pool.get_timeout(&server.name(), SOON).unwrap());
        assert_eq!(hangs.stats().connects_called_off(), 1 + at as u64);
    }
    assert_eq!(hangs.stats().connecting(), 2, "the others are left to finish");
}

#[test]
fn a_login_that_hangs_and_nobody_waits_for_is_ended_for_another_endpoint() {
    let _watchdog = watchdog();
    let (silent, (good, _)) = (Server::scripted(Peer::stay_silent), greets(9));
    let pool = Pool::builder(Greeted).max_total(1).connect_timeout(LONG).build().unwrap();
    let hangs = pool.endpoint(&silent.name()).unwrap();
    // Until then it waits for a thread, and is called off sooner still.
    let request = hangs.request().unwrap();
    eventually("it logs in", || silent.open() == 1);
    drop(request);
    ask(&mut pool.get_timeout(&good.name(), SOON).unwrap()).unwrap();
    assert_eq!((hangs.stats().connects_called_off(), hangs.stats().connecting()), (1, 0));
    assert_eq!((hangs.stats().connects_failed(), pool.stats().abandoned()), (0, 0));
    eventually("its server sees it", || silent.open() == 0);
    let error = hangs.get_timeout(BRIEF).unwrap_err();
    assert_eq!((error.kind(), error.failure()), (ErrorKind::Timeout, None), "{error}");
}

/// Hears of each that begins to open something.
type Begins = Receiver<()>;

/// A pool with room for one, and an endpoint where an attempt goes on that nobody wants any more.
fn unwanted(late: &Server, told: Receiver<()>) -> (Pool<Stubborn>, Endpoint<Stubborn>, Begins) {
    let (begun, begins) = unbounded();
    let builder = Pool::builder(Stubborn { begun, told }).max_total(1);
    let pool = builder.connect_timeout(LONG).build().unwrap();
    let slow = pool.endpoint(&late.name()).unwrap();
    let request = slow.request().unwrap();
    begins.recv_timeout(SOON).unwrap();
    drop(request);
    (pool, slow, begins)
}

#[test]
fn what_comes_of_an_attempt_that_was_called_off_is_closed_however_late_it_comes() {
    let _watchdog = watchdog();
    let (late, good) = (Server::echo(), Server::echo());
    let (tell, told) = bounded(0);
    let (pool, slow, _begins) = unwanted(&late, told);
    let other = pool.request(&good.name()).unwrap();
    eventually("it does not return, and counts no more", || pool.stats().abandoned() == 1);
    eventually("another is opened in its place", || good.open() == 1);
    assert_eq!((slow.stats().connecting(), slow.stats().connects_called_off()), (0, 1));
    (0..2).for_each(|_| tell.send_timeout((), SOON).unwrap());
    drop(await_conn(&other));
    eventually("it is closed", || late.open() == 0 && pool.stats().abandoned() == 0);
    let stats = pool.stats();
    assert_eq!((stats.opened(), stats.idle(), stats.closed()), (2, 1, 1), "{stats}");
    assert_eq!(slow.stats().connects_failed(), 0);
    pool.drain(Deadline::after(SOON)).unwrap();
    assert_empty(&pool.stats());
}

#[test]
fn what_comes_of_it_in_time_is_closed_as_well() {
    let _watchdog = watchdog();
    let (late, good) = (Server::echo(), Server::echo());
    let (tell, told) = unbounded();
    let (pool, slow, _begins) = unwanted(&late, told);
    let other = pool.request(&good.name()).unwrap();
    // Within the tenth of a second that it is given to return, unless the machine is busy.
    (0..2).for_each(|_| tell.send(()).unwrap());
    drop(await_conn(&other));
    eventually("it is closed", || late.open() == 0 && slow.stats().total() == 0);
    let stats = pool.stats();
    assert_eq!((stats.idle(), stats.connects_failed()), (1, 0), "{stats}");
    assert!(stats.connects_called_off() == 1 || stats.closed_for(CloseReason::MadeRoom) == 1);
    assert_balanced(&stats);
}

#[test]
fn a_look_up_that_hangs_and_nobody_waits_for_makes_way_for_another_endpoint() {
    let _watchdog = watchdog();
    let good = Server::echo();
    let (gate, gated) = bounded::<()>(0);
    let resolver = Resolver::new(move |_: &str| -> Result<Resolved, BoxError> {
        let _opened = gated.recv();
        Err("no such name".into())
    });
    let builder = tcp().resolver(&resolver).max_total(1).connect_timeout(LONG);
    let pool = builder.build().unwrap();
    let hangs = pool.endpoint("hangs.invalid:80").unwrap();
    assert_eq!(hangs.get_timeout(BRIEF).unwrap_err().kind(), ErrorKind::Timeout);
    ask(&mut pool.get_timeout(&good.name(), SOON).unwrap()).unwrap();
    assert_eq!((hangs.stats().connects_called_off(), hangs.stats().connects_failed()), (1, 0));
    drop(gate);
}
