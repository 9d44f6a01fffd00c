//! All connections closed by the server at once, again and again, under load: what callers see.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use peers::{is_quick, result, version};
use warmline::{Pool, Repeat, TcpConnector};

use crate::peer::Manager;
use crate::remote::{Remote, exchange};

const PATIENCE: Duration = Duration::from_secs(10);
const THREADS: usize = 8;
/// Of which those that no thread has are idle.
const CONNECTIONS: usize = 32;
/// From one mass death to the next.
const GAP: Duration = Duration::from_millis(200);

/// What the threads saw.
#[derive(Default)]
struct Seen {
    exchanges: u64,
    errors: u64,
    /// What the first error said.
    example: Option<String>,
}

impl Seen {
    fn note(&mut self, exchanged: Result<(), String>) {
        self.exchanges += 1;
        if let Err(error) = exchanged {
            self.errors += 1;
            self.example.get_or_insert(error);
        }
    }

    fn add(mut self, other: Self) -> Self {
        self.exchanges += other.exchanges;
        self.errors += other.errors;
        self.example = self.example.or(other.example);
        self
    }
}

/// Has all threads exchange, while the server hangs up so often; returns also how many connections
/// it closed.
fn play(
    remote: &mut Remote,
    deaths: usize,
    exchange: impl Fn() -> Result<(), String> + Sync,
) -> (Seen, u64) {
    let is_over = AtomicBool::new(false);
    let work = || {
        let mut seen = Seen::default();
        while !is_over.load(Ordering::Relaxed) {
            seen.note(exchange());
        }
        seen
    };
    thread::scope(|scope| {
        let threads = Vec::from_iter((0..THREADS).map(|_| scope.spawn(work)));
        let mut closed = 0;
        for _ in 0..deaths {
            thread::sleep(GAP);
            closed += remote.hang_up();
        }
        thread::sleep(GAP);
        is_over.store(true, Ordering::Relaxed);
        let seen = threads.into_iter().map(|thread| thread.join().expect("no panics"));
        (seen.fold(Seen::default(), Seen::add), closed)
    })
}

fn of_warmline(remote: &mut Remote, deaths: usize) -> (Seen, u64) {
    let builder = Pool::builder(TcpConnector::new()).max_per_endpoint(CONNECTIONS);
    let pool = builder.min_idle(CONNECTIONS).build().expect("one limit");
    let endpoint = pool.endpoint(&remote.site()).expect("an address");
    assert_eq!(endpoint.warm(CONNECTIONS, PATIENCE).expect("it opens"), CONNECTIONS);
    play(remote, deaths, || {
        let exchanged = endpoint.run(Repeat::Always, |conn| {
            exchange(&mut **conn)?;
            conn.set_complete();
            Ok(())
        });
        exchanged.map_err(|error: io::Error| error.to_string())
    })
}

fn of_r2d2(remote: &mut Remote, deaths: usize, is_testing: bool) -> (Seen, u64) {
    let manager = Manager { address: remote.site(), connects: Arc::default() };
    let builder = r2d2::Pool::builder().max_size(CONNECTIONS as u32);
    let pool = builder.test_on_check_out(is_testing).build(manager).expect("it opens");
    play(remote, deaths, || {
        let mut conn = pool.get().map_err(|error| error.to_string())?;
        conn.exchange().map_err(|error| error.to_string())
    })
}

pub(crate) fn run() {
    let deaths = if is_quick() { 5 } else { 30 };
    let mut remote = Remote::start();
    let seen = of_warmline(&mut remote, deaths);
    let settings = format!(
        "{}: max_per_endpoint=min_idle={CONNECTIONS}, Endpoint::run with Repeat::Always; target 0",
        version("warmline", "")
    );
    report("", deaths, &seen, &settings);
    for (suffix, is_testing) in [("_r2d2", true), ("_r2d2_untested", false)] {
        let seen = of_r2d2(&mut remote, deaths, is_testing);
        let settings = format!(
            "{}: max_size={CONNECTIONS} test_on_check_out={is_testing}, get and exchange",
            version("r2d2", "")
        );
        report(suffix, deaths, &seen, &settings);
    }
}

fn report(suffix: &str, deaths: usize, (seen, closed): &(Seen, u64), settings: &str) {
    let config = format!(
        "{settings}; {THREADS} threads without pauses, {} exchanges; {deaths} times, {GAP:?} \
         apart, the server, another process, closes all connections at once, {closed} in all; \
         errors that callers see{}",
        seen.exchanges,
        seen.example.as_ref().map_or(String::new(), |example| format!(", \"{example}\" say")),
    );
    result(&format!("mass_death_errors{suffix}"), seen.errors, "errors", config);
}
