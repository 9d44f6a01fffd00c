//! What the event loop does while connections are in use, which should be nothing.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use peers::{Cost, Spread, is_quick, now_ns, result, version};
use warmline::{Pool, TcpConnector};

use crate::bare::{Bare, Interest};
use crate::remote::Remote;

const PATIENCE: Duration = Duration::from_secs(10);
const THREADS: usize = 4;
const MESSAGE: usize = 16;

/// Connections in use, and a loop that watches them.
struct Candidate {
    suffix: &'static str,
    settings: String,
    target: &'static str,
    /// The name of the loop's thread.
    watcher: &'static str,
    /// Exchanges so many messages, on the thread of this number.
    exchange: Box<dyn Fn(usize, usize) + Sync>,
    /// What the loop's thread cost in each round.
    costs: Vec<Cost>,
    /// Microseconds per exchange in each round.
    pace: Vec<f64>,
}

fn of_pool(remote: &mut Remote, address: SocketAddr, is_portable: bool) -> Candidate {
    let (suffix, target, name, watcher) = if is_portable {
        ("_portable", "", "portable", "portable-loop")
    } else {
        ("", "; target <= 1", "usual", "usual-loop")
    };
    let builder = Pool::builder(TcpConnector::new()).name(name).portable_watch(is_portable);
    let pool = builder.max_per_endpoint(THREADS).build().expect("one limit");
    let endpoint = pool.endpoint(&address).expect("an address");
    let open = || endpoint.warm(THREADS, PATIENCE).expect("the server accepts");
    assert_eq!(remote.echo(address, THREADS, open), THREADS);
    let exchange = move |_, count| {
        for _ in 0..count {
            let mut conn = endpoint.get().expect("a connection");
            exchange_one(&mut *conn);
            conn.set_complete();
        }
    };
    let settings = format!(
        "{}: TcpConnector max_per_endpoint={THREADS} portable_watch={is_portable}, each time get, \
         write, read, set_complete, return",
        version("warmline", "")
    );
    Candidate::new(suffix, settings, target, watcher, exchange)
}

/// What a watch for readability costs that is never taken off: each answer wakes the loop.
fn of_readable(remote: &mut Remote, address: SocketAddr) -> Candidate {
    let watcher = "readable-loop";
    let bare = Bare::new(watcher);
    let open = || Vec::from_iter((0..THREADS).map(|_| connect(address)));
    let streams = remote.echo(address, THREADS, open);
    for stream in &streams {
        bare.watch(stream.try_clone().expect("a descriptor"), Interest::Readable);
    }
    let exchange = move |thread: usize, count| {
        for _ in 0..count {
            exchange_one(&mut &streams[thread]);
        }
    };
    let settings = "no pool: a thread in epoll_wait for IN | RDHUP | ET on each socket".to_owned();
    Candidate::new("_readable", settings, "", watcher, exchange)
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("the server accepts");
    stream.set_nodelay(true).expect("an option");
    stream
}

fn exchange_one(stream: &mut (impl Read + Write)) {
    let mut message = [7; MESSAGE];
    stream.write_all(&message).expect("the server reads");
    stream.read_exact(&mut message).expect("the server answers");
}

impl Candidate {
    fn new(
        suffix: &'static str,
        settings: String,
        target: &'static str,
        watcher: &'static str,
        exchange: impl Fn(usize, usize) + Sync + 'static,
    ) -> Self {
        let exchange = Box::new(exchange);
        Self { suffix, settings, target, watcher, exchange, costs: Vec::new(), pace: Vec::new() }
    }

    fn round(&mut self, exchanges: usize) {
        let (before, began) = (Cost::of_threads(self.watcher), now_ns());
        thread::scope(|scope| {
            for thread in 0..THREADS {
                let exchange = &self.exchange;
                scope.spawn(move || exchange(thread, exchanges / THREADS));
            }
        });
        let took = now_ns() - began;
        let cost = Cost::of_threads(self.watcher).since(before);
        assert_eq!(cost.threads, 1, "it is the one loop");
        self.costs.push(cost);
        self.pace.push(took as f64 / 1e3 / exchanges as f64);
    }

    fn report(&self, rounds: usize, exchanges: usize) {
        let all = (rounds * exchanges) as f64;
        let sum = |of: fn(&Cost) -> u64| self.costs.iter().map(of).sum::<u64>();
        let (voluntary, involuntary) = (sum(|cost| cost.voluntary), sum(|cost| cost.involuntary));
        let pace = Spread::of(self.pace.iter().copied());
        let (suffix, target) = (self.suffix, self.target);
        let config = format!(
            "{}; {rounds} interleaved rounds of {exchanges} exchanges of {MESSAGE} bytes on \
             {THREADS} threads, {:.2} us each {pace:.2}",
            self.settings, pace.median,
        );
        result(
            &format!("wakeups_per_1000_exchanges{suffix}"),
            format_args!("{:.3}", voluntary as f64 * 1e3 / all),
            "per 1000",
            format_args!(
                "{config}; context switches of the loop's thread: {voluntary} voluntary, \
                 {involuntary} others{target}"
            ),
        );
        result(
            &format!("loop_cpu_us_per_exchange{suffix}"),
            format_args!("{:.4}", sum(|cost| cost.cpu_ns) as f64 / 1e3 / all),
            "us",
            config,
        );
    }
}

pub(crate) fn run() {
    let (rounds, exchanges) = if is_quick() { (2, 6_000) } else { (10, 20_000) };
    let mut remote = Remote::start();
    let address = remote.listen();
    let mut candidates = [
        of_pool(&mut remote, address, false),
        of_pool(&mut remote, address, true),
        of_readable(&mut remote, address),
    ];
    for _ in 0..rounds {
        for candidate in &mut candidates {
            candidate.round(exchanges);
        }
    }
    for candidate in &candidates {
        candidate.report(rounds, exchanges);
    }
}
