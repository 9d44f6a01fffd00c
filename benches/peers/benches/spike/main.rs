//! Many threads at once where connecting is slow: how many connections a pool opens for work that
//! the idle ones would have done sooner.
//!
//! ```text
//! cargo bench --manifest-path benches/peers/Cargo.toml --bench spike
//! ```
//!
//! Takes 35 seconds, or seven with `WARMLINE_BENCH_QUICK=1`: one round, for smoke tests and not for
//! conclusions. Nearly all of it is waiting: the figures are counts and sleeps, and other work on
//! the machine hardly moves them.

#![expect(clippy::disallowed_methods, reason = "benches sleep: opening and using take time")]

mod pools;

use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use peers::{Rng, Spread, is_quick, now_ns, result};

use crate::pools::{Deadpool, Lender, Origin, R2d2, Warmline};

const THREADS: usize = 50;
/// Connections at most.
const LIMIT: usize = 50;
/// Connections that are idle beforehand.
const IDLE: usize = 5;
/// What opening one takes.
const OPEN: Duration = Duration::from_millis(150);
/// What a thread does with one takes.
const USE: Duration = Duration::from_millis(2);

/// What one spike came to.
struct Round {
    /// Connections open once every attempt had ended.
    connections: usize,
    /// Connects begun by the spike.
    started: usize,
    /// Milliseconds from the first thread's start to the last one's return.
    wall: f64,
}

/// One spike on a new pool.
fn play<L: Lender>() -> Round {
    let origin = Arc::new(Origin::default());
    let lender = L::new(&origin);
    origin.await_calm();
    assert_eq!((origin.started(), origin.connections()), (IDLE, IDLE));
    let barrier = Barrier::new(THREADS);
    let visit = || {
        barrier.wait();
        let began = now_ns();
        lender.visit(|| thread::sleep(USE));
        (began, now_ns())
    };
    let times = thread::scope(|scope| {
        let threads = Vec::from_iter((0..THREADS).map(|_| scope.spawn(visit)));
        let times = threads.into_iter().map(|thread| thread.join().expect("no panics"));
        Vec::from_iter(times)
    });
    origin.await_calm();
    let began = times.iter().map(|&(began, _)| began).min().unwrap_or(0);
    let ended = times.iter().map(|&(_, ended)| ended).max().unwrap_or(0);
    Round {
        connections: origin.connections(),
        started: origin.started() - IDLE,
        wall: (ended - began) as f64 / 1e6,
    }
}

struct Candidate {
    suffix: &'static str,
    settings: String,
    /// What the counts of connections and connects are to be at most.
    targets: [&'static str; 2],
    play: fn() -> Round,
    rounds: Vec<Round>,
}

impl Candidate {
    fn of<L: Lender>(targets: [&'static str; 2]) -> Self {
        let (settings, play) = (L::settings(), play::<L>);
        Self { suffix: L::SUFFIX, settings, targets, play, rounds: Vec::new() }
    }

    fn report(&self) {
        let config = format!(
            "threads={THREADS} at once, one checkout each, idle={IDLE} open={OPEN:?} use={USE:?}; \
             {} interleaved rounds, a new pool in each; {}",
            self.rounds.len(),
            self.settings,
        );
        let tell = |name: &str, unit, of: fn(&Round) -> f64, words: &str| {
            let values = Vec::from_iter(self.rounds.iter().map(of));
            let (spread, most) = (Spread::of(values.iter().copied()), values.into_iter());
            let most = most.fold(0.0, f64::max);
            let name = format!("spike_{name}{}", self.suffix);
            // Counts without a fraction, times with one digit of it.
            let digits = usize::from(unit == "ms");
            let config = format!("{config}; {words}; {spread}, most {most:.digits$}");
            result(&name, format_args!("{:.digits$}", spread.median), unit, config);
            most
        };
        let [connections, started] = self.targets;
        let open = format!("open once every attempt has ended{connections}");
        let of_open = |round: &Round| round.connections as f64;
        let most = tell("connections", "connections", of_open, &open);
        let name = format!("spike_connections_max{}", self.suffix);
        result(&name, most, "connections", format_args!("{config}; the most of any round"));
        let begun = format!("begun by the spike{started}");
        tell("connects_started", "connects", |round| round.started as f64, &begun);
        let least = USE * THREADS.div_ceil(IDLE) as u32;
        let wall = format!(
            "from the first thread's start to the last one's return; {least:?} is the least that \
             {IDLE} connections need"
        );
        tell("wall_ms", "ms", |round| round.wall, &wall);
    }
}

fn main() {
    let rounds = if is_quick() { 1 } else { 5 };
    let mut candidates = [
        Candidate::of::<Warmline>(["; target <= 6", "; target <= 8"]),
        Candidate::of::<R2d2>([""; 2]),
        Candidate::of::<Deadpool>([""; 2]),
    ];
    let mut rng = Rng::new(5);
    for _ in 0..rounds {
        rng.shuffle(&mut candidates);
        for candidate in &mut candidates {
            candidate.rounds.push((candidate.play)());
        }
    }
    candidates.sort_by_key(|candidate| candidate.suffix.len());
    candidates.iter().for_each(Candidate::report);
}
