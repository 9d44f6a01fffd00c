//! Checkouts while another thread asks for one report after the other.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use peers::{Histogram, Rng, Spread, is_quick, note, now_ns, result};

use crate::calm::{MOST_TRIES, undisturbed};
use crate::fleet::Fleet;

/// So short that some rounds pass undisturbed where the machine has other work.
const ROUND_NS: u64 = 3_000_000;

/// What another thread does meanwhile.
#[derive(Clone, Copy, Debug)]
enum Other {
    Reports,
    /// It works as hard, and leaves the pool alone.
    Writes,
}

impl Other {
    const ALL: [Self; 2] = [Self::Reports, Self::Writes];
}

/// What came of the rounds of a kind that went undisturbed.
#[derive(Default)]
struct Rounds {
    /// How long checkouts took, with their returns.
    visits: Histogram,
    /// The same of the rounds that were disturbed.
    disturbed: Histogram,
    /// Of each round, in microseconds: the time within which 99 of 100 were done.
    p99: Vec<f64>,
    /// How many there were of each kind; how many of both.
    visited: u64,
    others: u64,
    tried: usize,
}

impl Rounds {
    fn round(&mut self, fleet: &Fleet, other: Other) {
        let (is_ready, is_over) = (AtomicBool::new(false), AtomicBool::new(false));
        let (work, visits) = thread::scope(|scope| {
            let work = scope.spawn(|| undisturbed(|| work(fleet, other, &is_ready, &is_over)));
            while !is_ready.load(Ordering::Acquire) {
                thread::yield_now();
            }
            let visits = undisturbed(|| visit(fleet));
            is_over.store(true, Ordering::Relaxed);
            (work.join().expect("no panics"), visits)
        });
        self.tried += 1;
        let ((others, is_calm), ((visits, visited), are_calm)) = (work, visits);
        if !(is_calm && are_calm) {
            self.disturbed.merge(&visits);
            return;
        }
        self.p99.push(visits.percentile(0.99) as f64 / 1e3);
        self.visits.merge(&visits);
        self.visited += visited;
        self.others += others;
    }

    fn tell(&self, fleet: &Fleet, other: Other) {
        let (name, words) = match other {
            Other::Reports => ("while_reporting", "asks for reports"),
            Other::Writes => ("without_reporting", "writes the text of one report"),
        };
        if self.p99.is_empty() {
            note(format_args!("no checkout_{name}_us: every round was disturbed"));
            return;
        }
        let (of, ms) = (&self.visits, ROUND_NS / 1_000_000);
        let config = format!(
            "{}; {}; one thread checks out and returns, at an endpoint with idle connections, \
             another {words}, again and again; interleaved rounds of {ms} ms, {} of {} that went \
             undisturbed: {} checkouts beside {} of the other; p50 {} ns, p99 {} ns, p99.9 {} ns; \
             p99 of rounds {:.2}",
            Fleet::settings(),
            fleet.words,
            self.p99.len(),
            self.tried,
            self.visited,
            self.others,
            of.percentile(0.5),
            of.percentile(0.99),
            of.percentile(0.999),
            Spread::of(self.p99.iter().copied()),
        );
        let tell = |suffix: &str, value: u64, words: &str| {
            let value = value as f64 / 1e3;
            let name = format!("checkout_{name}{suffix}_us");
            result(&name, format_args!("{value:.2}"), "us", format_args!("{config}; {words}"));
        };
        tell("", of.percentile(0.99), "p99 of checkout and return");
        let most = self.disturbed.max() as f64 / 1e3;
        tell("_max", of.max(), &format!("the longest; of disturbed rounds {most:.1}"));
    }
}

fn work(fleet: &Fleet, other: Other, is_ready: &AtomicBool, is_over: &AtomicBool) -> u64 {
    let report = fleet.pool.report();
    let mut count = 0;
    is_ready.store(true, Ordering::Release);
    while !is_over.load(Ordering::Relaxed) {
        match other {
            Other::Reports => drop(black_box(fleet.pool.report())),
            Other::Writes => drop(black_box(report.to_string())),
        }
        count += 1;
    }
    count
}

/// How long each checkout and its return took, and how many there were.
fn visit(fleet: &Fleet) -> (Histogram, u64) {
    let (endpoint, mut histogram, mut visits) = (fleet.quiet(), Histogram::default(), 0);
    let began = now_ns();
    let mut last = began;
    while last - began < ROUND_NS {
        drop(black_box(endpoint.get().expect("some are idle")));
        let now = now_ns();
        histogram.add(now - last);
        last = now;
        visits += 1;
    }
    (histogram, visits)
}

pub(crate) fn run(fleet: &Fleet) {
    let rounds = if is_quick() { 10 } else { 200 };
    let mut done = [Rounds::default(), Rounds::default()];
    let mut order = Other::ALL;
    let mut rng = Rng::new(7);
    for _ in 0..MOST_TRIES * rounds {
        rng.shuffle(&mut order);
        order.iter().for_each(|&other| done[other as usize].round(fleet, other));
        if done.iter().all(|rounds_done| rounds_done.p99.len() >= rounds) {
            break;
        }
    }
    Other::ALL.iter().for_each(|&other| done[other as usize].tell(fleet, other));
}
