//! Many threads, few connections: throughput, and how long some of them wait.
//!
//! Closed loops hide starvation: a thread that never gets a connection adds no operation. So what
//! counts is time: a wait that is still going on when the round ends counts up to that moment.

use std::fs;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use peers::{Histogram, Rng, Server, Spread, cpu_ns, is_quick, now_ns, result};

use crate::pools::{Barging, Channel, Deadpool, Lender, R2d2, Warmline};

/// A wait longer than this is one too long.
const LONG_WAIT_NS: u64 = 10_000_000;

/// What the threads of a round do, again and again: check out, hold, return.
pub(crate) struct Load {
    pub(crate) name: &'static str,
    /// What the names of figures begin with: of those that count operations, and of waits.
    prefixes: (&'static str, &'static str),
    threads: usize,
    connections: usize,
    hold: Hold,
}

#[derive(Clone, Copy, Debug)]
enum Hold {
    Empty,
    SleepMicros(u64),
    SpinMicros(u64),
}

pub(crate) const LOADS: [Load; 3] = [
    Load {
        name: "empty",
        prefixes: ("contended", "contended_empty"),
        threads: 64,
        connections: 2,
        hold: Hold::Empty,
    },
    Load {
        name: "sleep",
        prefixes: ("contended_sleep", "contended"),
        threads: 64,
        connections: 8,
        hold: Hold::SleepMicros(100),
    },
    Load {
        name: "spin",
        prefixes: ("contended_spin", "contended_spin"),
        threads: 64,
        connections: 2,
        hold: Hold::SpinMicros(10),
    },
];

impl Hold {
    #[inline]
    fn pass(self) {
        match self {
            Self::Empty => {}
            Self::SleepMicros(micros) => thread::sleep(Duration::from_micros(micros)),
            Self::SpinMicros(micros) => {
                let began = now_ns();
                while now_ns() - began < micros * 1_000 {
                    std::hint::spin_loop();
                }
            }
        }
    }
}

/// What one round came to, over all its threads.
#[derive(Default)]
struct Round {
    seconds: f64,
    ops: u64,
    /// Operations of the thread that had the fewest.
    ops_least: u64,
    cpu_ns: u64,
    /// How often a thread gave up the CPU to wait.
    switches: u64,
    waits: Histogram,
    waited_ns: u64,
    waited_long_ns: u64,
}

/// What one thread brings to it.
#[derive(Default)]
struct Share {
    ops: u64,
    cpu_ns: u64,
    switches: u64,
    waits: Histogram,
    waited_ns: u64,
    waited_long_ns: u64,
}

impl Share {
    fn add_wait(&mut self, wait: u64) {
        self.waits.add(wait);
        self.waited_ns += wait;
        if wait > LONG_WAIT_NS {
            self.waited_long_ns += wait;
        }
    }
}

impl Round {
    fn new(shares: &[Share], seconds: f64) -> Self {
        let ops_least = shares.iter().map(|share| share.ops).min().unwrap_or(0);
        let mut round = Self { seconds, ops_least, ..Self::default() };
        for share in shares {
            round.ops += share.ops;
            round.cpu_ns += share.cpu_ns;
            round.switches += share.switches;
            round.waits.merge(&share.waits);
            round.waited_ns += share.waited_ns;
            round.waited_long_ns += share.waited_long_ns;
        }
        round
    }

    fn ops_per_second(&self) -> f64 {
        self.ops as f64 / self.seconds
    }

    fn p999_us(&self) -> f64 {
        self.waits.percentile(0.999) as f64 / 1e3
    }

    fn long_wait_share(&self) -> f64 {
        self.waited_long_ns as f64 / self.waited_ns.max(1) as f64
    }

    fn per_op(&self, value: u64) -> f64 {
        value as f64 / self.ops.max(1) as f64
    }
}

/// Runs one round of `load`.
fn play<L: Lender>(lender: &L, load: &Load, is_timed: bool, length: Duration) -> Round {
    let start = Barrier::new(load.threads + 1);
    let stopped_at = AtomicU64::new(0);
    let work = || {
        let (cpu, switches) = (cpu_ns(), voluntary_switches());
        start.wait();
        let mut share = if is_timed {
            work_timed(lender, load.hold, &stopped_at)
        } else {
            work_untimed(lender, load.hold, &stopped_at)
        };
        share.cpu_ns = cpu_ns() - cpu;
        share.switches = voluntary_switches() - switches;
        share
    };
    thread::scope(|scope| {
        let threads = Vec::from_iter((0..load.threads).map(|_| scope.spawn(work)));
        start.wait();
        let began = now_ns();
        thread::sleep(length);
        let ended = now_ns();
        stopped_at.store(ended, Ordering::Relaxed);
        let shares = threads.into_iter().map(|thread| thread.join().expect("no panics"));
        Round::new(&Vec::from_iter(shares), (ended - began) as f64 / 1e9)
    })
}

/// Only counts: reading a clock costs more than some of the pools do.
fn work_untimed(lender: &impl Lender, hold: Hold, stopped_at: &AtomicU64) -> Share {
    let mut ops = 0;
    while stopped_at.load(Ordering::Relaxed) == 0 {
        lender.visit(|| hold.pass());
        ops += 1;
    }
    Share { ops, ..Share::default() }
}

/// Reads the clock before and after every checkout.
fn work_timed(lender: &impl Lender, hold: Hold, stopped_at: &AtomicU64) -> Share {
    let mut share = Share::default();
    while stopped_at.load(Ordering::Relaxed) == 0 {
        let began = now_ns();
        lender.visit(|| {
            let mut ended = now_ns();
            match stopped_at.load(Ordering::Relaxed) {
                0 => hold.pass(),
                stopped_at => ended = ended.min(stopped_at),
            }
            share.add_wait(ended.saturating_sub(began));
        });
        share.ops += 1;
    }
    share
}

/// How often this thread gave up the CPU of itself, since it began.
fn voluntary_switches() -> u64 {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let count = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    count.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}

type Play = Box<dyn Fn(&Load, bool, Duration) -> Round>;

struct Candidate {
    name: &'static str,
    settings: String,
    play: Play,
    /// The rounds from which operations are counted.
    counted: Vec<Round>,
    /// The rounds in which waits are timed.
    timed: Vec<Round>,
}

impl Candidate {
    fn of<L: Lender>(lender: L) -> Self {
        let settings = lender.settings();
        let play: Play =
            Box::new(move |load, is_timed, length| play(&lender, load, is_timed, length));
        Self { name: L::NAME, settings, play, counted: Vec::new(), timed: Vec::new() }
    }

    /// Rounds with untimed operations, if there were any.
    fn counted(&self) -> &[Round] {
        if self.counted.is_empty() { &self.timed } else { &self.counted }
    }

    fn ops(&self) -> Vec<f64> {
        self.counted().iter().map(Round::ops_per_second).collect()
    }

    fn p999(&self) -> Vec<f64> {
        self.timed.iter().map(Round::p999_us).collect()
    }

    fn long_wait_share(&self) -> Spread {
        Spread::of(self.timed.iter().map(Round::long_wait_share))
    }

    fn median(&self, of: impl Fn(&Round) -> f64) -> f64 {
        Spread::of(self.counted().iter().map(of)).median
    }
}

pub(crate) fn run(load: &Load, server: Server) {
    let (rounds, length) = if is_quick() { (3, 150) } else { (11, 400) };
    let length = Duration::from_millis(length);
    let mut candidates = [
        Candidate::of(Warmline::limited(server.address, load.connections)),
        Candidate::of(R2d2::limited(server.address, load.connections as u32)),
        Candidate::of(Deadpool::new(server.address, load.connections)),
        Candidate::of(Channel::new(server.address, load.connections)),
        Candidate::of(Barging::new(server.address, load.connections)),
    ];
    // Where the hold is empty, two readings of the clock would be most of an operation.
    let modes: &[bool] = if matches!(load.hold, Hold::Empty) { &[false, true] } else { &[true] };
    let jobs = (0..candidates.len()).flat_map(|next| modes.iter().map(move |&mode| (next, mode)));
    let mut jobs = Vec::from_iter(jobs);
    let mut rng = Rng::new(2);
    for _ in 0..rounds {
        rng.shuffle(&mut jobs);
        for &(next, is_timed) in &jobs {
            let candidate = &mut candidates[next];
            let round = (candidate.play)(load, is_timed, length);
            let rounds = if is_timed { &mut candidate.timed } else { &mut candidate.counted };
            rounds.push(round);
        }
    }
    let (threads, connections, hold) = (load.threads, load.connections, load.hold);
    let timing = match modes {
        [_, _] => "operations from rounds without clock readings, waits from others with two each",
        _ => "two clock readings per operation",
    };
    let how = format!(
        "threads={threads} connections={connections} hold={hold:?}; {rounds} interleaved rounds \
         of {length:?}, {timing}"
    );
    report(load, &candidates, &how);
}

fn report(load: &Load, candidates: &[Candidate], how: &str) {
    let [warmline, r2d2, ..] = candidates else { unreachable!("they come first") };
    for candidate in candidates {
        report_candidate(load, candidate, how);
    }
    let ops = Spread::of_ratios(&warmline.ops(), &r2d2.ops());
    let ops = |name, target| ratio(name, ops.median, ops, "of ops/s", target, how);
    let p999s = (warmline.p999(), r2d2.p999());
    let of_medians =
        Spread::of(p999s.0.iter().copied()).median / Spread::of(p999s.1.iter().copied()).median;
    let rounds = Spread::of_ratios(&p999s.0, &p999s.1);
    let p999 = |name, target| ratio(name, of_medians, rounds, "of p99.9 waits", target, how);
    match load.hold {
        Hold::Empty => {
            ops("contended_ops_vs_r2d2", ">= 2");
            long_waits("contended_wait_share_over_10ms", warmline, "; target <= 0.05", how);
            long_waits("contended_wait_share_over_10ms_r2d2", r2d2, "", how);
        }
        Hold::SleepMicros(_) => p999("contended_p999_vs_r2d2", "<= 0.4"),
        Hold::SpinMicros(_) => {
            ops("contended_spin_ops_vs_r2d2", ">= 0.7");
            p999("contended_spin_p999_vs_r2d2", "<= 0.3");
        }
    }
}

/// The figures of one candidate. warmline's own go without its name.
fn report_candidate(load: &Load, candidate: &Candidate, how: &str) {
    let suffix = match candidate.name {
        Warmline::NAME => String::new(),
        name => format!("_{name}"),
    };
    let (prefix, wait_prefix) = load.prefixes;
    let slowest = |round: &Round| round.ops_least as f64 * load.threads as f64 / round.ops as f64;
    let (ops, p999) = (Spread::of(candidate.ops()), Spread::of(candidate.p999()));
    let max_ns = candidate.timed.iter().map(|round| round.waits.max()).max().unwrap_or(0);
    let config = format!("{how}; {}", candidate.settings);
    result(
        &format!("{prefix}_ops{suffix}"),
        format_args!("{:.0}", ops.median),
        "op/s",
        format_args!("{config}; {ops:.0}; slowest thread/mean={:.2}", candidate.median(slowest)),
    );
    result(
        &format!("{prefix}_cpu_us{suffix}"),
        format_args!("{:.2}", candidate.median(|round| round.per_op(round.cpu_ns) / 1e3)),
        "us/op",
        &config,
    );
    result(
        &format!("{prefix}_switches{suffix}"),
        format_args!("{:.3}", candidate.median(|round| round.per_op(round.switches))),
        "per op",
        format_args!("{config}; voluntary context switches"),
    );
    result(
        &format!("{wait_prefix}_p999_us{suffix}"),
        format_args!("{:.0}", p999.median),
        "us",
        format_args!(
            "{config}; of waits, unfinished ones included, median of the rounds' p99.9; {p999:.0} \
             longest={:.0} us, share of waiting time over 10 ms={:.3}",
            max_ns as f64 / 1e3,
            candidate.long_wait_share().median,
        ),
    );
}

fn long_waits(name: &str, candidate: &Candidate, target: &str, how: &str) {
    let share = candidate.long_wait_share();
    result(
        name,
        format_args!("{:.4}", share.median),
        "share",
        format_args!(
            "{how}; {}; of all waiting time, unfinished waits included{target}; {share:.4}",
            candidate.settings
        ),
    );
}

fn ratio(name: &str, value: f64, rounds: Spread, what: &str, target: &str, how: &str) {
    result(
        name,
        format_args!("{value:.3}"),
        "ratio",
        format_args!("{how}; {what}; target {target}; ratios of the rounds {rounds:.3}"),
    );
}
