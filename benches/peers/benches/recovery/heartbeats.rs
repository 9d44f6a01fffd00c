//! Thousands of idle connections, each sent a heartbeat now and then: what that costs.

use std::thread;
use std::time::Duration;

use peers::{Cost, is_quick, now_ns, result, version};
use warmline::{Beat, Pool, TcpConnector};

use crate::remote::Remote;

const PATIENCE: Duration = Duration::from_secs(60);
/// What follows an opening is over by then.
const SETTLED: Duration = Duration::from_millis(300);
const NAME: &str = "beats";
/// From one heartbeat of a connection to the next.
const SECONDS: usize = 30;
/// Whole intervals: each connection has its turn as often as any other.
const INTERVALS: usize = 2;

pub(crate) fn run(count: usize, limit: &str) {
    let seconds = if is_quick() { 4 } else { SECONDS };
    // As many heartbeats per second.
    let count = count * seconds / SECONDS;
    let interval = Duration::from_secs(seconds as u64);
    let mut remote = Remote::start();
    let address = remote.site();
    let builder = Pool::builder(TcpConnector::new().heartbeat(Beat::redis())).name(NAME);
    let builder = builder.max_total(count).max_per_endpoint(count).max_idle(count);
    let builder = builder.check_interval(interval).idle_timeout(None);
    let pool = builder.build().expect("limits that fit each other");
    let endpoint = pool.endpoint(&address).expect("an address");
    assert_eq!(endpoint.warm(count, PATIENCE).expect("the server accepts"), count);
    thread::sleep(SETTLED);
    let costs = || [NAME, "beats-loop", "beats-reaper"].map(Cost::of_threads);
    let (before, began) = (costs(), now_ns());
    let mut answered = vec![remote.pongs()];
    for _ in 0..INTERVALS * seconds {
        thread::sleep(Duration::from_secs(1));
        answered.push(remote.pongs());
    }
    let (after, took) = (costs(), now_ns() - began);
    let most = answered.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0);
    let answered = answered.last().unwrap_or(&0) - answered.first().unwrap_or(&0);
    let [all, of_loop, of_reaper] = [0, 1, 2].map(|at| after[at].since(before[at]));
    let stats = endpoint.stats();
    assert_eq!((stats.closed(), stats.total()), (0, count), "all answer, and live");
    let percent = |cost: Cost| cost.cpu_ns as f64 * 100.0 / took as f64;
    let settings = format!(
        "{}: TcpConnector with Beat::redis(), max_total=max_per_endpoint=max_idle={count}{limit} \
         check_interval={interval:?}, 1 endpoint, all idle; the server, another process, answered \
         {answered} heartbeats in {:.1} s, {most} in any one at the most; none was closed",
        version("warmline", ""),
        took as f64 / 1e9,
    );
    result(
        "heartbeat_cpu_percent",
        format_args!("{:.3}", percent(all)),
        "%",
        format_args!(
            "{settings}; CPU time of all {} threads of the pool, of one core (loop {:.3}, reaper \
             {:.3}); target <= 1.0",
            all.threads,
            percent(of_loop),
            percent(of_reaper),
        ),
    );
    result(
        "heartbeat_cpu_us",
        format_args!("{:.2}", all.cpu_ns as f64 / 1e3 / answered.max(1) as f64),
        "us",
        format_args!("{settings}; CPU time of all threads of the pool, for each heartbeat"),
    );
}
