//! How long it takes until the death of an idle connection is known and its descriptor closed.

use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, unbounded};
use peers::{Rng, Spread, is_quick, percentile, result, version};
use warmline::{CloseReason, Closed, Endpoint, Observer, Pool, TcpConnector};

use crate::bare::{Bare, Interest};
use crate::remote::{End, Remote};

/// Nothing here takes so long.
const PATIENCE: Duration = Duration::from_secs(10);
/// Every trial begins after a pause between these, so that the threads sleep as they do in
/// programs that wait.
const PAUSE_MICROS: (u64, usize) = (300, 1_000);
/// Of how many parts of the run medians are taken, to show their noise.
const PARTS: usize = 10;

/// Who notices.
trait Watcher {
    fn name(&self) -> &'static str;
    fn settings(&self) -> String;
    /// Opens one connection and has it watched.
    fn open(&self);
    /// When its end was known and its descriptor closed.
    fn end(&self) -> u64;
}

struct Warmline {
    endpoint: Endpoint<TcpConnector>,
    ends: Receiver<Closed>,
}

/// Passes on what it is told.
struct Teller(Sender<Closed>);

impl Observer for Teller {
    fn closed(&self, event: &Closed) {
        let _nobody_listens = self.0.send(event.clone());
    }
}

impl Warmline {
    fn new(address: SocketAddr) -> Self {
        let (teller, ends) = unbounded();
        let builder = Pool::builder(TcpConnector::new()).observer(Teller(teller));
        let pool = builder.build().expect("the defaults");
        Self { endpoint: pool.endpoint(&address).expect("an address"), ends }
    }
}

impl Watcher for Warmline {
    fn name(&self) -> &'static str {
        "death_notice"
    }

    fn settings(&self) -> String {
        format!(
            "{}: TcpConnector defaults, 1 idle connection; its end is Closed::at() of the \
             observer's event",
            version("warmline", "")
        )
    }

    fn open(&self) {
        assert_eq!(self.endpoint.warm(1, PATIENCE).expect("the server accepts"), 1);
    }

    fn end(&self) -> u64 {
        let event = self.ends.recv_timeout(PATIENCE).expect("its death is noticed");
        assert_eq!(event.reason(), CloseReason::PeerClosed);
        event.at().as_nanos()
    }
}

/// A thread that watches one socket and has nothing else to do.
struct Floor {
    address: SocketAddr,
    bare: Bare,
}

impl Watcher for Floor {
    fn name(&self) -> &'static str {
        "floor_notice"
    }

    fn settings(&self) -> String {
        "a thread in epoll_wait with 1 socket, which it closes, then reads the clock".to_owned()
    }

    fn open(&self) {
        let stream = TcpStream::connect(self.address).expect("the server accepts");
        self.bare.watch(stream, Interest::HangUp);
    }

    fn end(&self) -> u64 {
        self.bare.ends.recv_timeout(PATIENCE).expect("its death is noticed")
    }
}

struct Candidate {
    watcher: usize,
    end: End,
    /// Microseconds of each trial.
    took: Vec<f64>,
}

pub(crate) fn run() {
    let trials = if is_quick() { 200 } else { 2_000 };
    let mut remote = Remote::start();
    let address = remote.listen();
    let watchers: [Box<dyn Watcher>; 2] = [
        Box::new(Warmline::new(address)),
        Box::new(Floor { address, bare: Bare::new("floor-notice") }),
    ];
    let candidate = |(watcher, end)| Candidate { watcher, end, took: Vec::new() };
    let pairs = [(0, End::Farewell), (1, End::Farewell), (0, End::Reset), (1, End::Reset)];
    let mut candidates = pairs.map(candidate);
    let mut rng = Rng::new(3);
    for _ in 0..trials {
        rng.shuffle(&mut candidates);
        for candidate in &mut candidates {
            let watcher = &*watchers[candidate.watcher];
            remote.accept(address, 1, || watcher.open());
            let pause = PAUSE_MICROS.0 + rng.below(PAUSE_MICROS.1) as u64;
            thread::sleep(Duration::from_micros(pause));
            let (ended, began, _) = remote.end_all(candidate.end, || watcher.end());
            candidate.took.push(ended.saturating_sub(began) as f64 / 1e3);
        }
    }
    candidates.sort_by_key(|candidate| (candidate.end == End::Reset, candidate.watcher));
    for candidate in &candidates {
        report(candidate, &*watchers[candidate.watcher]);
    }
}

fn report(candidate: &Candidate, watcher: &dyn Watcher) {
    let took = &candidate.took;
    let (suffix, how) = match candidate.end {
        End::Farewell => ("", "close(2) (FIN)"),
        End::Reset => ("_reset", "close(2) with a time to linger of 0 (RST)"),
    };
    let parts = || took.chunks(took.len().div_ceil(PARTS));
    let config = format!(
        "{} trials, interleaved, each after a pause of 0.3 to 1.3 ms; the server, another process, \
         reads CLOCK_MONOTONIC before its {how} and sends it over a pipe; {}",
        took.len(),
        watcher.settings(),
    );
    let target = |words| if watcher.name() == "death_notice" { words } else { "" };
    for (name, share, target) in [("p50", 0.5, target("; target <= 60")), ("p99", 0.99, "")] {
        let noise = Spread::of(parts().map(|part| percentile(part, share)));
        result(
            &format!("{}{suffix}_{name}_us", watcher.name()),
            format_args!("{:.1}", percentile(took, share)),
            "us",
            format_args!("{config}{target}; of {PARTS} parts of the run {noise}"),
        );
    }
}
