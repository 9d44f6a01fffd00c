//! Thousands of idle connections: what they weigh, and what their common death takes.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use peers::{Cost, Spread, is_quick, now_ns, result, version};
use warmline::{CloseReason, Endpoint, Pool, TcpConnector};

use crate::ALLOCATOR;
use crate::bare::{Bare, Interest};
use crate::remote::{End, Remote};

const PATIENCE: Duration = Duration::from_secs(60);
/// What a look for the end of a mass death is apart from the next.
const GLANCE: Duration = Duration::from_micros(500);
/// The name of the thread that does the least.
const FLOOR: &str = "floor-crowd";
/// With so many times fewer connections it is done as well, to see how it grows.
const PART: usize = 8;
/// The default of `max_connecting`.
const CONNECTING: usize = 16;
/// So many connections more than a power of two.
const PAST: usize = 8;

/// A pool with nothing but idle connections, to one endpoint.
struct Crowd {
    endpoint: Endpoint<TcpConnector>,
    count: usize,
}

impl Crowd {
    fn new(remote: &mut Remote, address: SocketAddr, count: usize, connecting: usize) -> Self {
        let builder = Pool::builder(TcpConnector::new()).name("crowd").max_connecting(connecting);
        let builder = builder.max_total(count).max_per_endpoint(count).max_idle(count);
        let pool = builder.build().expect("limits that fit each other");
        let endpoint = pool.endpoint(&address).expect("an address");
        let open = || endpoint.warm(count, PATIENCE).expect("the server accepts");
        assert_eq!(remote.accept(address, count, open), count);
        assert_eq!(endpoint.stats().idle(), count);
        Self { endpoint, count }
    }

    /// Waits until the last one's descriptor is closed; returns when that was.
    fn await_end(&self, descriptors: usize) -> u64 {
        while self.endpoint.stats().closed() < self.count as u64 {
            thread::sleep(GLANCE);
        }
        // The counts are up to date before the last descriptors are closed.
        while open_descriptors() > descriptors {
            thread::sleep(GLANCE);
        }
        now_ns()
    }
}

fn settings(count: usize) -> String {
    format!(
        "{}: TcpConnector max_total=max_per_endpoint=max_idle={count}, 1 endpoint, all idle",
        version("warmline", "")
    )
}

fn open_descriptors() -> usize {
    fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

/// What an idle connection takes of the heap.
pub(crate) fn weigh(count: usize, limit: &str) {
    weigh_one("", count, CONNECTING, &format!("{limit}; target <= 256"));
    weigh_one("_opened_at_once", count, count, limit);
    // Where a vector that doubles is half empty.
    let past = count.next_power_of_two() + PAST;
    weigh_one("_past_doubling", if limit.is_empty() { past } else { past / 2 }, CONNECTING, limit);
}

fn weigh_one(suffix: &str, count: usize, connecting: usize, words: &str) {
    let mut remote = Remote::start();
    let address = remote.listen();
    let empty = ALLOCATOR.weigh();
    let crowd = Crowd::new(&mut remote, address, count, connecting);
    let full = ALLOCATOR.weigh().since(&empty);
    let descriptors = open_descriptors() - count;
    remote.end_all(End::Reset, || crowd.await_end(descriptors));
    let left = ALLOCATOR.weigh().since(&empty);
    result(
        &format!("heap_bytes_per_idle_connection{suffix}"),
        format_args!("{:.1}", full.bytes() as f64 / count as f64),
        "B",
        format_args!(
            "{} max_connecting={connecting}{words}; live bytes of the process less those before \
             the pool was made, {} in all: {full}; {} left when all had died: {left}",
            settings(count),
            full.bytes(),
            left.bytes(),
        ),
    );
}

/// How the deaths of one round went.
struct Deaths {
    /// Milliseconds to the end of the last descriptor.
    took: f64,
    /// Milliseconds that the server's own closing took.
    server: f64,
    /// Microseconds of CPU time of the watching thread, for each connection.
    cpu: f64,
}

/// The server closes all; `await_end` returns when the last descriptor is closed.
fn deaths(
    remote: &mut Remote,
    watcher: &str,
    count: usize,
    await_end: impl FnOnce() -> u64,
) -> Deaths {
    let before = Cost::of_threads(watcher);
    let (ended, began, last) = remote.end_all(End::Farewell, await_end);
    let cost = Cost::of_threads(watcher).since(before);
    Deaths {
        took: ended.saturating_sub(began) as f64 / 1e6,
        server: last.saturating_sub(began) as f64 / 1e6,
        cpu: cost.cpu_ns as f64 / 1e3 / count as f64,
    }
}

fn of_pool(remote: &mut Remote, count: usize) -> Deaths {
    let address = remote.listen();
    let crowd = Crowd::new(remote, address, count, CONNECTING);
    let descriptors = open_descriptors() - count;
    let deaths = deaths(remote, "crowd-loop", count, || crowd.await_end(descriptors));
    assert_eq!(crowd.endpoint.stats().closed_for(CloseReason::PeerClosed), count as u64);
    deaths
}

fn of_floor(remote: &mut Remote, bare: &Bare, count: usize) -> Deaths {
    let address = remote.listen();
    remote.accept(address, count, || {
        for _ in 0..count {
            let stream = TcpStream::connect(address).expect("the server accepts");
            bare.watch(stream, Interest::HangUp);
        }
    });
    deaths(remote, FLOOR, count, || {
        let ends = bare.ends.iter().take(count);
        ends.last().expect("there are some")
    })
}

/// How long it takes until all are closed, once the server begins to close them.
pub(crate) fn kill(count: usize, limit: &str) {
    let rounds = if is_quick() { 1 } else { 7 };
    let mut remote = Remote::start();
    let bare = Bare::new(FLOOR);
    let (mut pool, mut floor, mut few) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        pool.push(of_pool(&mut remote, count));
        floor.push(of_floor(&mut remote, &bare, count));
        few.push(of_pool(&mut remote, count / PART));
    }
    let how = format!(
        "the server, another process, closes all at once; {rounds} interleaved rounds; from its \
         clock before its first close to the end of our last, the pool's looked for every \
         {GLANCE:?}"
    );
    let of_floor =
        format!("{count} sockets{limit}, a thread in epoll_wait for RDHUP | ET that closes them");
    let of_pool = format!("{}{limit}", settings(count));
    report("mass_death", &pool, &format!("{of_pool}; {how}"));
    report("floor_mass_death", &floor, &format!("{of_floor}; {how}"));
    let cpu = |deaths: &[Deaths]| Vec::from_iter(deaths.iter().map(|deaths| deaths.cpu));
    let growth = Spread::of_ratios(&cpu(&pool), &cpu(&few));
    result(
        "mass_death_cpu_growth",
        format_args!("{:.2}", growth.median),
        "ratio",
        format_args!(
            "{of_pool}; {how}; CPU time of the loop for each connection, of {count} to that of {}; \
             1: it is linear; {growth:.2}",
            count / PART
        ),
    );
}

fn report(name: &str, deaths: &[Deaths], config: &str) {
    let tell = |name: String, unit, of: fn(&Deaths) -> f64, words| {
        let spread = Spread::of(deaths.iter().map(of));
        let value = format!("{:.1}", spread.median);
        result(&name, value, unit, format_args!("{config}{words}; {spread}"));
    };
    let of_server = "; the server's own part, to after its last close";
    let of_thread = "; CPU time of the watching thread, for each connection";
    tell(format!("{name}_ms"), "ms", |deaths| deaths.took, "");
    tell(format!("{name}_server_ms"), "ms", |deaths| deaths.server, of_server);
    tell(format!("{name}_cpu_us"), "us", |deaths| deaths.cpu, of_thread);
}
