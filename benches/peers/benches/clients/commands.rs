//! A checkout, one command and the return, in a loop: how many there are in a second.

use std::fs;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use interop::servers::Server;
use peers::{Histogram, Rng, Spread, cpu_ns, is_quick, now_ns, result};

use crate::client::{CONNECTIONS, Candidate, Client, Open};

/// As many as there are connections, and many more.
const THREADS: [usize; 2] = [8, 64];

/// What one round came to, over all its threads.
#[derive(Clone, Default)]
struct Round {
    ops: u64,
    /// CPU time of the callers: the servers and the pools' own threads are not among it.
    cpu_ns: u64,
    /// How often a caller gave up the CPU to wait.
    switches: u64,
    /// From before the checkout to after the return; one that is unfinished at the end of the round
    /// counts up to that.
    took: Histogram,
    seconds: f64,
}

impl Round {
    fn merge(mut self, other: &Self) -> Self {
        self.ops += other.ops;
        self.cpu_ns += other.cpu_ns;
        self.switches += other.switches;
        self.took.merge(&other.took);
        self
    }

    fn per_second(&self) -> f64 {
        self.ops as f64 / self.seconds
    }

    fn per_op(&self, value: u64) -> f64 {
        value as f64 / self.ops.max(1) as f64
    }

    fn p99_us(&self) -> f64 {
        self.took.percentile(0.99) as f64 / 1e3
    }
}

/// A candidate, and its rounds with each number of threads. Each round has a new pool: connections
/// are not alike, by the luck of where their server's processes ended up.
struct Entrant {
    open: Open,
    name: &'static str,
    settings: String,
    rounds: [Vec<Round>; THREADS.len()],
}

impl Entrant {
    fn rates(&self, load: usize) -> Vec<f64> {
        self.rounds[load].iter().map(Round::per_second).collect()
    }

    fn spread(&self, load: usize, of: impl Fn(&Round) -> f64) -> Spread {
        Spread::of(self.rounds[load].iter().map(of))
    }
}

/// Runs one round.
fn play(candidate: &Candidate, threads: usize, length: Duration) -> Round {
    let start = Barrier::new(threads + 1);
    let stopped_at = AtomicU64::new(0);
    let work = || {
        let (cpu, switches) = (cpu_ns(), voluntary_switches());
        start.wait();
        let mut share = Round::default();
        while stopped_at.load(Ordering::Relaxed) == 0 {
            let began = now_ns();
            (candidate.visit)().expect("the server is up");
            let ended = now_ns();
            match stopped_at.load(Ordering::Relaxed) {
                0 => share.ops += 1,
                stopped_at => {
                    share.took.add(stopped_at.saturating_sub(began));
                    break;
                }
            }
            share.took.add(ended - began);
        }
        share.cpu_ns = cpu_ns() - cpu;
        share.switches = voluntary_switches() - switches;
        share
    };
    thread::scope(|scope| {
        let threads = Vec::from_iter((0..threads).map(|_| scope.spawn(work)));
        start.wait();
        let began = now_ns();
        thread::sleep(length);
        let ended = now_ns();
        stopped_at.store(ended, Ordering::Relaxed);
        let shares = threads.into_iter().map(|thread| thread.join().expect("no panics"));
        let round = shares.fold(Round::default(), |round, share| round.merge(&share));
        Round { seconds: (ended - began) as f64 / 1e9, ..round }
    })
}

/// How often this thread gave up the CPU of itself, since it began.
fn voluntary_switches() -> u64 {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let count = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    count.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}

pub(crate) fn run<C: Client>(server: &Server) {
    let (rounds, length) = if is_quick() { (3, 150) } else { (31, 500) };
    let length = Duration::from_millis(length);
    let address = server.address();
    let opens: [Open; 4] = [
        Candidate::handle::<C>,
        Candidate::face::<C>,
        Candidate::r2d2_default::<C>,
        Candidate::r2d2_unvalidated::<C>,
    ];
    let mut entrants = opens.map(|open| {
        let Candidate { name, settings, .. } = open(address);
        Entrant { open, name, settings, rounds: Default::default() }
    });
    let mut rng = Rng::new(8);
    let mut order = Vec::from_iter(0..entrants.len());
    for _ in 0..rounds {
        for (load, &threads) in THREADS.iter().enumerate() {
            rng.shuffle(&mut order);
            for &next in &order {
                let entrant = &mut entrants[next];
                let round = play(&(entrant.open)(address), threads, length);
                entrant.rounds[load].push(round);
            }
        }
    }
    let how = format!(
        "connections={CONNECTIONS}; {}; {rounds} interleaved rounds of {length:?}, each with a new \
         pool",
        C::settings()
    );
    for entrant in &entrants {
        (0..THREADS.len()).for_each(|load| report::<C>(entrant, load, &how));
    }
    let [handle, face, default, unvalidated] = &entrants;
    for (ours, form) in [(handle, ""), (face, "_face")] {
        ratios::<C>(ours, form, default, 1.6, &how);
        ratios::<C>(ours, form, unvalidated, 0.97, &how);
    }
}

/// The figures of one candidate. Those of warmline's handle go without its name.
fn report<C: Client>(entrant: &Entrant, load: usize, how: &str) {
    let Entrant { name, settings, .. } = entrant;
    let form = if *name == "handle" { String::new() } else { format!("_{name}") };
    let (threads, what) = (THREADS[load], C::ASKED);
    let config = format!("threads={threads} {how}; {settings}");
    let figure = |of: &str, spread: Spread, digits: usize, unit: &str, words: &str| {
        result(
            &format!("{}_{what}_{of}{form}_{threads}t", C::NAME),
            format_args!("{:.digits$}", spread.median),
            unit,
            format_args!("{config}; {words}; {spread:.digits$}"),
        );
    };
    let words = "checkout, command and return";
    figure("per_s", entrant.spread(load, Round::per_second), 0, "per s", words);
    let p99 = entrant.spread(load, Round::p99_us);
    figure("p99_us", p99, 0, "us", "of the same, those unfinished included");
    let cpu = entrant.spread(load, |round| round.per_op(round.cpu_ns) / 1e3);
    figure("cpu_us", cpu, 2, "us", "CPU time of the callers' threads");
    let switches = entrant.spread(load, |round| round.per_op(round.switches));
    figure("switches", switches, 2, "per op", "callers' voluntary context switches");
}

/// The rates of `ours` as a multiple of those of `theirs`: with each number of threads, and the
/// worst of them.
fn ratios<C: Client>(ours: &Entrant, form: &str, theirs: &Entrant, target: f64, how: &str) {
    let name = format!("{}_{}{form}_vs_{}", C::NAME, C::ASKED, theirs.name);
    let both = format!("{} | {}", ours.settings, theirs.settings);
    let mut worst = f64::INFINITY;
    for (load, threads) in THREADS.iter().enumerate() {
        let ratios = Spread::of_ratios(&ours.rates(load), &theirs.rates(load));
        worst = worst.min(ratios.median);
        let config = format!(
            "threads={threads} {how}; {both}; of rates, median of the ratios of each round; target \
             >= {target}; {ratios:.3}"
        );
        let name = format!("{name}_{threads}t");
        result(&name, format_args!("{:.3}", ratios.median), "ratio", config);
    }
    let config = format!("{how}; {both}; the worst of threads={THREADS:?}; target >= {target}");
    result(&name, format_args!("{worst:.3}"), "ratio", config);
}
