//! What the library's own tests and those with other crates' clients have in common.

pub mod programs;

use std::io::{self, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use warmline::crossbeam_channel::{RecvTimeoutError, Sender, TryRecvError, bounded};
use warmline::{Driver, Pool, Stats, TcpConnector};

/// Long enough for anything that is to happen soon, on a machine that is busy with other things.
pub const SOON: Duration = Duration::from_secs(20);

/// Polls until `condition` holds. For what other threads change, and servers.
#[track_caller]
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < SOON, "{what}: not within {SOON:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Ends the process, with the name of the test, if the test has not ended within two minutes.
#[must_use = "it watches until it is dropped"]
pub fn watchdog() -> Sender<()> {
    let (alive, ended) = bounded(0);
    let name = std::thread::current().name().unwrap_or("a test").to_owned();
    std::thread::spawn(move || {
        if ended.recv_timeout(Duration::from_secs(120)) == Err(RecvTimeoutError::Timeout) {
            say(&format!("{name} hangs; the process ends here"));
            std::process::exit(101);
        }
    });
    alive
}

/// Writes past the harness, which swallows what passing tests print.
pub fn say(text: &str) {
    let _nobody_reads = writeln!(io::stderr(), "{text}");
}

/// Returns once the event loop of `driver` has seen all that had happened when this was called: it
/// sees things in the order they happen, and here one more does.
pub fn await_loop(driver: &Driver) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let last = Pool::builder(TcpConnector::new()).driver(driver).build().unwrap();
    drop(last.get(&listener.local_addr().unwrap()).unwrap());
    drop(listener.accept().unwrap());
    eventually("the loop sees the last hang-up", || last.stats().closed() == 1);
}

/// Every connection that was ever opened is in exactly one place.
#[track_caller]
pub fn assert_balanced(stats: &Stats) {
    let open = stats.idle() + stats.in_use() + stats.checking();
    let gone = stats.closed() + stats.detached();
    assert_eq!(stats.opened(), gone + open as u64, "{stats}");
}

/// Nothing holds capacity, and nobody waits.
#[track_caller]
pub fn assert_empty(stats: &Stats) {
    assert_eq!((stats.total(), stats.waiting()), (0, 0), "{stats}");
    assert_balanced(stats);
}

/// Has eight threads call `exchange`, each time with another number, for as long as `meanwhile`
/// runs.
pub fn under_load(exchange: impl Fn(usize) + Sync, meanwhile: impl FnOnce(&Load)) {
    let load = Load::default();
    let (going_on, ended) = bounded::<()>(0);
    std::thread::scope(|scope| {
        for own in &load.ended {
            let (exchange, load, ended) = (&exchange, &load, &ended);
            scope.spawn(move || {
                while ended.try_recv() == Err(TryRecvError::Empty) {
                    exchange(load.begun.fetch_add(1, Ordering::SeqCst));
                    own.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        // Dropped by a panic as well: or else the threads would go on for ever.
        let going_on = going_on;
        meanwhile(&load);
        drop(going_on);
    });
}

/// How far the threads of [`under_load`] are.
#[derive(Default)]
pub struct Load {
    begun: AtomicUsize,
    /// One count for each thread.
    ended: [AtomicUsize; 8],
}

impl Load {
    /// Returns once so many more exchanges have ended.
    pub fn await_more(&self, count: usize) {
        let sum = || self.counts().iter().sum::<usize>();
        let goal = sum() + count;
        eventually("exchanges go on", || sum() >= goal);
    }

    /// Returns once every exchange has ended that had begun when this was called.
    pub fn await_begun(&self) {
        let before = self.counts();
        let have_all = || self.counts().iter().zip(before).all(|(count, before)| *count > before);
        eventually("all threads go on", have_all);
    }

    fn counts(&self) -> [usize; 8] {
        self.ended.each_ref().map(|count| count.load(Ordering::SeqCst))
    }
}
