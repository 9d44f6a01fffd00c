//! Reports on a large pool, and what else looks at all of it.

use std::hint::black_box;
use std::thread;
use std::time::Duration;

use peers::{Rng, Spread, is_quick, note, now_ns, percentile, result};

use crate::calm::{MOST_TRIES, undisturbed};
use crate::fleet::{Fleet, IN_USE};

/// Nobody asks for one report after the other: what the processor has at hand is other memory.
const PAUSE: Duration = Duration::from_millis(10);
/// What was measured of one pool, in rounds that went undisturbed. All in microseconds.
struct Sample<'f> {
    fleet: &'f Fleet,
    /// What its figures are called by, before the unit.
    suffix: &'static str,
    /// Gathered and written; of that, gathered.
    report: Vec<f64>,
    gather: Vec<f64>,
    lock: Vec<f64>,
    stats: Vec<f64>,
    holders: Vec<f64>,
    lines: usize,
    /// Of the rounds that were disturbed: the longest report, the longest that it had the lock.
    disturbed: Vec<(f64, f64)>,
}

/// What comes of it, and how many microseconds it takes.
fn timed<T>(what: impl FnOnce() -> T) -> (T, f64) {
    let began = now_ns();
    let result = black_box(what());
    (result, (now_ns() - began) as f64 / 1e3)
}

impl<'f> Sample<'f> {
    fn new(fleet: &'f Fleet, suffix: &'static str) -> Self {
        let [report, gather, lock, stats, holders] = [const { Vec::new() }; 5];
        let (lines, disturbed) = (0, Vec::new());
        Self { fleet, suffix, report, gather, lock, stats, holders, lines, disturbed }
    }

    fn round(&mut self) {
        let pool = &self.fleet.pool;
        thread::sleep(PAUSE);
        let measured = || {
            let (report, gather) = timed(|| pool.report());
            let (text, write) = timed(|| report.to_string());
            (report, text, gather, write, timed(|| pool.stats()).1, timed(|| pool.holders()))
        };
        let ((report, text, gather, write, stats, (found, holders)), is_calm) =
            undisturbed(measured);
        assert_eq!(found.len(), IN_USE);
        let lock = report.lock_held().as_nanos() as f64 / 1e3;
        self.lines = text.lines().count();
        if !is_calm {
            self.disturbed.push((gather + write, lock));
            return;
        }
        self.report.push(gather + write);
        self.gather.push(gather);
        self.lock.push(lock);
        self.stats.push(stats);
        self.holders.push(holders);
    }

    fn tell(&self) {
        if self.report.is_empty() {
            note(format_args!("no report{}_ms: every round was disturbed", self.suffix));
            return;
        }
        let how = format!(
            "{}; {}; {} undisturbed rounds, each after a pause of {PAUSE:?}",
            Fleet::settings(),
            self.fleet.words,
            self.report.len(),
        );
        let tell = |name: &str, unit: &str, values: &[f64], share, words: &str| {
            let scale = if unit == "ms" { 1e-3 } else { 1.0 };
            let values = Vec::from_iter(values.iter().map(|value| value * scale));
            let (spread, at) = (Spread::of(values.iter().copied()), |at| percentile(&values, at));
            let config =
                format!("{how}: {words}; {spread:.2}, p95 {:.2}, longest {:.2}", at(0.95), at(1.0));
            let name = format!("{name}{}_{unit}", self.suffix);
            result(&name, format_args!("{:.2}", at(share)), unit, config);
        };
        let longest =
            |of: fn(&(f64, f64)) -> f64| self.disturbed.iter().map(of).fold(0.0, f64::max);
        let among = format!("of {} disturbed ones the longest", self.disturbed.len());
        let page = format!(
            "report().to_string(), {} lines, median; {:.2} ms of it to gather; {among} {:.2}; \
             target <= 5",
            self.lines,
            percentile(&self.gather, 0.5) / 1e3,
            longest(|&(report, _)| report) / 1e3,
        );
        tell("report", "ms", &self.report, 0.5, &page);
        tell("report_max", "ms", &self.report, 1.0, "report().to_string(), the longest");
        let lock = format!(
            "the pool's lock is held at a time (lock_held()), the longest of all reports; {among} \
             {:.2}; target <= 200",
            longest(|&(_, lock)| lock),
        );
        tell("report_lock", "us", &self.lock, 1.0, &lock);
        tell("stats", "us", &self.stats, 0.5, "stats() of the pool, median");
        tell("holders", "ms", &self.holders, 0.5, "holders() of the pool, median");
    }
}

pub(crate) fn run(calm: &Fleet, troubled: &Fleet) {
    let rounds = if is_quick() { 10 } else { 50 };
    let mut samples = [Sample::new(troubled, ""), Sample::new(calm, "_calm")];
    let mut order = [0, 1];
    let mut rng = Rng::new(7);
    for _ in 0..MOST_TRIES * rounds {
        rng.shuffle(&mut order);
        order.iter().for_each(|&next| samples[next].round());
        if samples.iter().all(|sample| sample.report.len() >= rounds) {
            break;
        }
    }
    samples.iter().for_each(Sample::tell);
}
