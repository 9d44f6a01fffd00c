//! What the tests have in common.

pub(crate) mod causes;
pub(crate) mod chronicle;
pub(crate) mod faults;
pub(crate) mod foreign;
pub(crate) mod lab;
pub(crate) mod programs;
pub(crate) mod quoting;
pub(crate) mod resolver;
pub(crate) mod server;

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, bounded};
use parking_lot::Mutex;
use warmline::{
    Builder, CloseReason, Closed, Connected, Connector, Driver, Endpoint, Observer, Pool,
    PooledConn, Stats, TcpConnector,
};

/// Tests that are run twice: with idle connections watched as this system does it best, and by the
/// means that every Unix has. Each takes a `bool`: whether the latter.
macro_rules! both_ways {
    ($($name:ident,)+) => {
        mod natively {
            $(#[test] fn $name() { super::$name(false); })+
        }
        mod portably {
            $(#[test] fn $name() { super::$name(true); })+
        }
    };
}
pub(crate) use both_ways;

/// Long enough for anything that is to happen soon, on a machine that is busy with other things.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// Polls until `condition` holds. For counts that other threads change.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < SOON, "{what}: not within {SOON:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Ends the process, with the name of the test, if the test has not ended within a minute.
#[must_use = "it watches until it is dropped"]
pub(crate) fn watchdog() -> crossbeam_channel::Sender<()> {
    let (alive, ended) = bounded(0);
    let name = std::thread::current().name().unwrap_or("a test").to_owned();
    std::thread::spawn(move || {
        if ended.recv_timeout(Duration::from_secs(60)) == Err(RecvTimeoutError::Timeout) {
            say(&format!("{name} hangs; the process ends here"));
            std::process::exit(101);
        }
    });
    alive
}

/// Writes past the harness, which swallows what passing tests print.
pub(crate) fn say(text: &str) {
    let _nobody_reads = writeln!(io::stderr(), "{text}");
}

pub(crate) fn tcp() -> Builder<TcpConnector> {
    Pool::builder(TcpConnector::new())
}

/// One request and its answer, from an echo server.
pub(crate) fn ask<C: Connector>(conn: &mut PooledConn<C>) -> io::Result<()>
where
    PooledConn<C>: Read + Write,
{
    conn.write_all(b"ping")?;
    let mut answer = [0; 4];
    conn.read_exact(&mut answer)?;
    assert_eq!(&answer, b"ping", "somebody else's answer");
    Ok(())
}

/// Returns once the event loop of `driver` has seen all that had happened when this was called: it
/// sees things in the order they happen, and here one more does.
pub(crate) fn await_loop(driver: &Driver) {
    let server = server::Server::echo();
    let last = tcp().driver(driver).build().unwrap();
    ask(&mut last.get(&server.name()).unwrap()).unwrap();
    server.hang_up();
    eventually("the loop sees the last hang-up", || last.stats().closed() == 1);
}

/// Every connection that was ever opened is in exactly one place.
#[track_caller]
pub(crate) fn assert_balanced(stats: &Stats) {
    let open = stats.idle() + stats.in_use() + stats.checking();
    let gone = stats.closed() + stats.detached();
    assert_eq!(stats.opened(), gone + open as u64, "{stats}");
}

/// Nothing holds capacity, and nobody waits.
#[track_caller]
pub(crate) fn assert_empty(stats: &Stats) {
    assert_eq!((stats.total(), stats.waiting()), (0, 0), "{stats}");
    assert_balanced(stats);
}

/// Remembers what it is told. Cloning makes a second handle to the same memory.
#[derive(Clone, Default)]
pub(crate) struct Diary(Arc<Mutex<Pages>>);

#[derive(Default)]
struct Pages {
    connected: Vec<Connected>,
    closed: Vec<Closed>,
    threads: Vec<String>,
}

impl Diary {
    pub(crate) fn connected(&self) -> Vec<Connected> {
        self.0.lock().connected.clone()
    }

    pub(crate) fn closed(&self) -> Vec<Closed> {
        self.0.lock().closed.clone()
    }

    pub(crate) fn reasons(&self) -> Vec<CloseReason> {
        self.0.lock().closed.iter().map(Closed::reason).collect()
    }

    /// The names of the threads that told it, one for each event.
    pub(crate) fn threads(&self) -> Vec<String> {
        self.0.lock().threads.clone()
    }

    /// Waits until so many connections have ended, and says why they did.
    pub(crate) fn reasons_of(&self, count: usize) -> Vec<CloseReason> {
        eventually("closed events", || self.reasons().len() >= count);
        self.reasons()
    }

    fn note_thread(&self) {
        let name = std::thread::current().name().unwrap_or_default().to_owned();
        self.0.lock().threads.push(name);
    }
}

impl Observer for Diary {
    fn connected(&self, event: &Connected) {
        self.note_thread();
        self.0.lock().connected.push(event.clone());
    }

    fn closed(&self, event: &Closed) {
        self.note_thread();
        self.0.lock().closed.push(event.clone());
    }
}

/// So many connections to one endpoint, and no more.
#[track_caller]
pub(crate) fn assert_room(endpoint: &Endpoint<TcpConnector>, count: usize) {
    let held: Vec<_> = (0..count).map(|_| endpoint.get_timeout(SOON).unwrap()).collect();
    let one_more = endpoint.request().unwrap();
    assert_eq!((endpoint.stats().total(), endpoint.stats().waiting()), (count, 1));
    drop((one_more, held));
}
