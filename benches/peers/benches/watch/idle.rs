//! What a pool does while nobody asks anything of it, which should be nothing.

use std::thread;
use std::time::Duration;

use peers::{Cost, is_quick, result, version};
use warmline::Pool;

use crate::remote::Remote;

const PATIENCE: Duration = Duration::from_secs(10);
const ENDPOINTS: usize = 10;
const IDLE: usize = 10;
/// What follows an opening is over by then.
const SETTLED: Duration = Duration::from_millis(300);

pub(crate) fn run() {
    // Longer than connect_timeout: what was planned for a connect that failed falls due by then.
    let seconds = if is_quick() { 4 } else { 10 };
    let mut remote = Remote::start();
    let pool = Pool::tcp();
    let open = |_| {
        let address = remote.listen();
        let endpoint = pool.endpoint(&address).expect("an address");
        let open = || endpoint.warm(IDLE, PATIENCE).expect("the server accepts");
        assert_eq!(remote.accept(address, IDLE, open), IDLE);
        endpoint
    };
    let endpoints = Vec::from_iter((0..ENDPOINTS).map(open));
    thread::sleep(SETTLED);
    let costs = || ["warmline", "warmline-loop", "warmline-reaper"].map(Cost::of_threads);
    let before = costs();
    thread::sleep(Duration::from_secs(seconds));
    let after = costs();
    let [cost, of_loop, of_reaper] = [0, 1, 2].map(|at| after[at].since(before[at]));
    assert_eq!(pool.stats().idle(), ENDPOINTS * IDLE);
    drop(endpoints);
    let switches = cost.voluntary + cost.involuntary;
    let per_10s = switches as f64 * 10.0 / seconds as f64;
    result(
        "idle_wakeups_per_10s",
        per_10s,
        "per 10 s",
        format_args!(
            "{}: TcpConnector defaults, {} idle connections over {ENDPOINTS} endpoints; context \
             switches of all {} threads of the pool in {seconds} s, from {SETTLED:?} after the last \
             was opened: {switches} (loop {}, reaper {}), {} us of CPU time; target 0",
            version("warmline", ""),
            ENDPOINTS * IDLE,
            cost.threads,
            of_loop.voluntary + of_loop.involuntary,
            of_reaper.voluntary + of_reaper.involuntary,
            cost.cpu_ns / 1_000,
        ),
    );
}
