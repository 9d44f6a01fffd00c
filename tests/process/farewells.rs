//! Connections of other people's: a child process says nothing on those that are its parent's.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};
use parking_lot::Mutex;
use warmline::{
    Address, BoxError, CloseReason, Connector, Deadline, Opening, Plan, Pool, PooledConn, Reset,
    Socket,
};

use crate::alone;
use crate::forks::fork;
use crate::support::server::Server;
use crate::support::{SOON, eventually, watchdog};

/// Says something on the socket on every occasion there is.
#[derive(Default)]
struct Talkative {
    has_to_settle: bool,
    opened: Arc<AtomicUsize>,
    /// Holds up all but the first that is opened.
    gate: Option<Receiver<()>>,
}

struct Line(Socket);

impl Drop for Line {
    fn drop(&mut self) {
        let _gone = self.0.write_all(b"drop");
    }
}

impl Connector for Talkative {
    type Key = Address;
    type Conn = Line;

    fn plan(&self, key: &Address) -> Plan {
        Plan::addrs([key.ip().unwrap()])
    }

    fn open(&self, _: &Address, opening: &mut Opening) -> Result<Line, BoxError> {
        if self.opened.fetch_add(1, Ordering::SeqCst) > 0 {
            let _open = self.gate.as_ref().map(Receiver::recv);
        }
        Ok(Line(opening.take_socket()?))
    }

    fn reset(&self, _: &mut Line) -> Reset {
        if self.has_to_settle { Reset::Later } else { Reset::Ready }
    }

    fn settle(&self, line: &mut Line, _: Deadline) -> Result<(), BoxError> {
        exchange(line, b"roll");
        Ok(())
    }

    fn close(&self, mut line: Line, _: CloseReason) {
        let _gone = line.0.write_all(b"bye!");
    }
}

#[track_caller]
fn exchange(line: &mut Line, words: &[u8; 4]) {
    let mut answer = [0; 4];
    line.0.write_all(words).unwrap();
    line.0.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, words, "somebody else's answer");
}

/// An echo of words, and what it heard.
fn listener() -> (Server, Arc<Mutex<Vec<String>>>) {
    let heard = Arc::<Mutex<Vec<String>>>::default();
    let server = Server::scripted({
        let heard = Arc::clone(&heard);
        move |peer| {
            loop {
                let word = peer.take(4)?;
                heard.lock().push(String::from_utf8(word.clone()).unwrap());
                peer.write_all(&word)?;
            }
        }
    });
    (server, heard)
}

#[test]
fn a_child_process_says_no_farewell_on_its_parents_connections() {
    alone("farewells::a_child_process_says_no_farewell_on_its_parents_connections", || {
        let _watchdog = watchdog();
        let (server, heard) = listener();
        let pool = Pool::builder(Talkative::default()).build().unwrap();
        let held = [pool.get(&server.name()).unwrap(), pool.get(&server.name()).unwrap()];
        drop(pool.get(&server.name()).unwrap()); // idle
        let all = (held, pool);
        fork(&all, |steps, ([first, second], pool)| {
            steps.next("discard");
            PooledConn::discard(first);
            steps.next("drop of everything");
            drop(second);
            drop(pool);
        })
        .join();
        let ([first, second], pool) = all;
        let third = pool.get(&server.name()).unwrap();
        [first, second, third].iter_mut().for_each(|conn| exchange(conn, b"ping"));
        assert_eq!(*heard.lock(), ["ping"; 3]);
    });
}

#[test]
fn a_child_process_settles_nothing_on_its_parents_connections() {
    alone("farewells::a_child_process_settles_nothing_on_its_parents_connections", || {
        let _watchdog = watchdog();
        let (server, heard) = listener();
        let (gate, gated) = bounded::<()>(0);
        let opened = Arc::<AtomicUsize>::default();
        let talkative =
            Talkative { has_to_settle: true, opened: Arc::clone(&opened), gate: Some(gated) };
        let pool = Pool::builder(talkative).build().unwrap();
        let mut held = pool.get(&server.name()).unwrap();
        std::thread::scope(|scope| {
            // Every thread of the crew is busy, so that another would be started.
            for _ in 0..2 {
                scope.spawn(|| drop(pool.get_timeout(&server.name(), SOON)));
            }
            eventually("two hang", || opened.load(Ordering::SeqCst) == 3);
            fork(&held, |steps, held| {
                steps.next("drop of a guard");
                drop(held);
                steps.next("a while for a thread that would settle it");
                let began = Instant::now();
                while pool.stats().checking() > 0 && began.elapsed() < Duration::from_millis(500) {
                    std::thread::sleep(Duration::from_millis(1));
                }
            })
            .join();
            exchange(&mut held, b"ping");
            assert_eq!(*heard.lock(), ["ping"]);
            drop(gate);
        });
    });
}

#[test]
fn a_guard_that_outlived_its_pool_says_no_farewell_in_a_child_process() {
    alone("farewells::a_guard_that_outlived_its_pool_says_no_farewell_in_a_child_process", || {
        let _watchdog = watchdog();
        let (server, heard) = listener();
        let pool = Pool::builder(Talkative::default()).build().unwrap();
        let mut held = pool.get(&server.name()).unwrap();
        drop(pool);
        fork(&held, |steps, held| {
            steps.next("drop of a guard");
            drop(held);
        })
        .join();
        exchange(&mut held, b"ping");
        assert_eq!(*heard.lock(), ["ping"]);
    });
}
