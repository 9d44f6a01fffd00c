//! Connections that are born together: whether they also end together.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, unbounded};
use peers::{is_quick, now_ns, result, version};
use warmline::{CloseReason, Closed, Endpoint, Observer, Pool, TcpConnector};

use crate::remote::{Remote, exchange};

const PATIENCE: Duration = Duration::from_secs(10);
const CONNECTIONS: usize = 50;
/// Room for those that follow, before what they follow is closed.
const LIMIT: usize = CONNECTIONS + 10;
/// Ends are counted in windows of so small a part of a lifetime: a second of ten.
const WINDOWS: u32 = 10;
/// How long a busy thread keeps a connection each time.
const USE: Duration = Duration::from_millis(20);
/// What a look at the pool is apart from the next.
const GLANCE: Duration = Duration::from_millis(1);

/// Passes on what it is told.
struct Teller(Sender<Closed>);

impl Observer for Teller {
    fn closed(&self, event: &Closed) {
        let _nobody_listens = self.0.send(event.clone());
    }
}

/// A pool whose connections were all opened at once.
struct Born {
    endpoint: Endpoint<TcpConnector>,
    ends: Receiver<Closed>,
    /// Microseconds that the births took.
    took: u64,
}

impl Born {
    fn new(address: SocketAddr, lifetime: Duration, min_idle: usize) -> Self {
        let (teller, ends) = unbounded();
        let builder = Pool::builder(TcpConnector::new()).observer(Teller(teller));
        let builder = builder.max_per_endpoint(LIMIT).max_connecting(CONNECTIONS);
        let pool = builder.min_idle(min_idle).max_lifetime(lifetime).build().expect("they fit");
        let endpoint = pool.endpoint(&address).expect("an address");
        let began = now_ns();
        assert_eq!(endpoint.warm(CONNECTIONS, PATIENCE).expect("it opens"), CONNECTIONS);
        Self { endpoint, ends, took: (now_ns() - began) / 1_000 }
    }

    /// The most ends of lifetimes within any window, and how many there were.
    fn peak(&self, window: Duration) -> (usize, usize) {
        let window = window.as_nanos() as u64;
        let ends = self.ends.try_iter().filter(|end| end.reason() == CloseReason::MaxLifetime);
        let mut ends = Vec::from_iter(ends.map(|end| end.at().as_nanos()));
        ends.sort_unstable();
        let within = |(first, &began): (usize, &u64)| {
            ends[first..].iter().take_while(|&&end| end < began + window).count()
        };
        (ends.iter().enumerate().map(within).max().unwrap_or(0), ends.len())
    }
}

/// Each connection has a user nearly all the time; returns also the longest wait for one, in
/// microseconds.
fn keep_busy(born: &Born, time: Duration) -> String {
    let (is_over, longest) = (AtomicBool::new(false), AtomicU64::new(0));
    let work = || {
        while !is_over.load(Ordering::Relaxed) {
            let began = now_ns();
            let mut conn = born.endpoint.get().expect("the server accepts");
            longest.fetch_max(now_ns() - began, Ordering::Relaxed);
            exchange(&mut *conn).expect("the server answers");
            conn.set_complete();
            thread::sleep(USE);
        }
    };
    thread::scope(|scope| {
        for _ in 0..CONNECTIONS {
            scope.spawn(work);
        }
        thread::sleep(time);
        is_over.store(true, Ordering::Relaxed);
    });
    let longest = longest.load(Ordering::Relaxed) as f64 / 1e6;
    format!(
        "{CONNECTIONS} threads, each has one for {USE:?} at a time; longest wait {longest:.1} ms"
    )
}

/// Nobody uses them.
fn look_on(born: &Born, time: Duration) -> String {
    let began = now_ns();
    let mut fewest = CONNECTIONS;
    while Duration::from_nanos(now_ns() - began) < time {
        fewest = fewest.min(born.endpoint.stats().idle());
        thread::sleep(GLANCE);
    }
    format!("min_idle={CONNECTIONS}, nobody uses them; fewest idle at a time: {fewest}")
}

pub(crate) fn run() {
    let lifetime = Duration::from_secs(if is_quick() { 2 } else { 10 });
    // Those that replace them, too, reach their ends.
    let (time, window) = (lifetime * 2 + lifetime / 10, lifetime / WINDOWS);
    let mut remote = Remote::start();
    let (busy, kept) = (remote.site(), remote.site());
    let (busy, kept) = (Born::new(busy, lifetime, 0), Born::new(kept, lifetime, CONNECTIONS));
    let (of_busy, of_kept) = thread::scope(|scope| {
        let looking = scope.spawn(|| look_on(&kept, time));
        (keep_busy(&busy, time), looking.join().expect("no panics"))
    });
    let settings = format!(
        "{}: max_lifetime={lifetime:?} max_per_endpoint={LIMIT} max_connecting={CONNECTIONS}",
        version("warmline", "")
    );
    let peaks = [("_busy", &busy, of_busy), ("_kept", &kept, of_kept)].map(|(name, born, how)| {
        let (peak, ends) = born.peak(window);
        let config = format!(
            "{settings}; {CONNECTIONS} opened within {} us, by warm(); {how}; the most that end \
             for their lifetime within any {window:?}, of {ends} in {time:?}",
            born.took,
        );
        result(&format!("lifetime_storm_peak_per_s{name}"), peak, "per s", config);
        peak
    });
    let config = format!("{settings}; the worse of busy and kept ones; target <= 25");
    result("lifetime_storm_peak_per_s", peaks.into_iter().max().unwrap_or(0), "per s", config);
}
