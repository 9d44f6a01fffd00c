//! GETs in a loop: what each takes of the CPU, and how many there are in a second.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use peers::{Histogram, Rng, Spread, is_quick, now_ns, process_cpu_ns, result};

use crate::client::{Attohttpc, BoxError, Candidate, Reqwest, Ureq, UreqTimeout, Visit, Visitor};
use crate::nginx::Nginx;
use crate::ours::Warmline;
use crate::target::{Size, Target};

const THREADS: [usize; 3] = [1, 8, 64];
/// Where the ratios are taken.
const EIGHT: usize = 1;

const CANDIDATES: [Candidate; 6] = [
    Candidate::of::<Warmline>(),
    Candidate::RAW,
    Candidate::of::<Ureq>(),
    Candidate::of::<UreqTimeout>(),
    Candidate::of::<Reqwest>(),
    Candidate::of::<Attohttpc>(),
];
/// The last connects for each request, which leaves ports that are not free for a while: it takes
/// part in one round of so many.
const SELDOM: usize = 5;

/// What one round came to, over all its threads.
struct Round {
    per_second: f64,
    /// Microseconds for each GET, of all threads of the process, the client's own among them.
    cpu: f64,
    p50: f64,
    p99: f64,
}

/// A candidate, and its rounds: of each size, with each number of threads.
struct Entrant {
    candidate: Candidate,
    rounds: [[Vec<Round>; THREADS.len()]; Size::ALL.len()],
}

impl Entrant {
    fn of(candidate: Candidate) -> Self {
        Self { candidate, rounds: Default::default() }
    }

    fn values(&self, size: Size, load: usize, of: fn(&Round) -> f64) -> Vec<f64> {
        self.rounds[size as usize][load].iter().map(of).collect()
    }

    fn spread(&self, size: Size, load: usize, of: fn(&Round) -> f64) -> Spread {
        Spread::of(self.values(size, load, of))
    }
}

/// What one thread saw.
type Share = Result<Histogram, BoxError>;

/// Where the threads of a round meet: once each is warm, to begin, at the end, and to leave.
struct Course {
    meet: Barrier,
    is_over: AtomicBool,
}

impl Course {
    fn run(&self, mut visit: Visit<'_>, warm_up: usize) -> Share {
        let mut outcome = (0..warm_up).try_for_each(|_| visit());
        self.meet.wait();
        self.meet.wait();
        let mut took = Histogram::default();
        while outcome.is_ok() && !self.is_over.load(Ordering::Relaxed) {
            let began = now_ns();
            outcome = visit();
            took.add(now_ns() - began);
        }
        self.meet.wait();
        self.meet.wait();
        outcome.map(|()| took)
    }
}

/// Runs one round. Its clocks are read while the threads wait for each other.
fn play(
    visitor: &dyn Visitor,
    target: &Target,
    size: Size,
    threads: usize,
    length: Duration,
) -> Round {
    let course = Course { meet: Barrier::new(threads + 1), is_over: AtomicBool::new(false) };
    thread::scope(|scope| {
        let run = || course.run(visitor.visits(target), size.warm_up());
        let runners = Vec::from_iter((0..threads).map(|_| scope.spawn(run)));
        course.meet.wait();
        let (cpu, began) = (process_cpu_ns(), now_ns());
        course.meet.wait();
        thread::sleep(length);
        course.is_over.store(true, Ordering::Relaxed);
        course.meet.wait();
        let (cpu, took) = (process_cpu_ns() - cpu, now_ns() - began);
        course.meet.wait();
        let mut all = Histogram::default();
        for runner in runners {
            let share = runner.join().expect("no panics");
            all.merge(&share.expect("the server is up"));
        }
        let count = all.count() as f64;
        Round {
            per_second: count / (took as f64 / 1e9),
            cpu: cpu as f64 / 1e3 / count,
            p50: all.percentile(0.5) as f64 / 1e3,
            p99: all.percentile(0.99) as f64 / 1e3,
        }
    })
}

pub(crate) fn run(nginx: &Nginx) {
    let (rounds, length) = if is_quick() { (2, 40) } else { (15, 250) };
    let length = Duration::from_millis(length);
    let mut entrants = CANDIDATES.map(Entrant::of);
    let mut rng = Rng::new(9);
    let mut order = Vec::from_iter(0..entrants.len());
    for round in 0..rounds {
        for size in Size::ALL {
            let target = nginx.target(size);
            for (load, &threads) in THREADS.iter().enumerate() {
                rng.shuffle(&mut order);
                for &next in &order {
                    if next == CANDIDATES.len() - 1 && round % SELDOM != 0 {
                        continue;
                    }
                    let entrant = &mut entrants[next];
                    let visitor = (entrant.candidate.open)(threads);
                    let round = play(&*visitor, &target, size, threads, length);
                    entrant.rounds[size as usize][load].push(round);
                }
            }
        }
    }
    let how = format!(
        "GETs of one nginx (1 worker), bodies read into a buffer of 64 KiB; {rounds} interleaved \
         rounds of {length:?}, each with a new client that is warm"
    );
    for size in Size::ALL {
        for load in 0..THREADS.len() {
            entrants.iter().for_each(|entrant| report(entrant, size, load, &how));
        }
    }
    ratios(&entrants, &how);
}

fn report(entrant: &Entrant, size: Size, load: usize, how: &str) {
    let (candidate, threads) = (&entrant.candidate, THREADS[load]);
    let rounds = entrant.rounds[size as usize][load].len();
    let settings = (candidate.settings)();
    let config = format!("threads={threads} body={} B {how}; {settings}", size.bytes());
    let suffix = format!("_{}_{threads}t", size.name());
    let cpu = entrant.spread(size, load, |round| round.cpu);
    result(
        &candidate.figure("http_cpu_us", &suffix),
        format_args!("{:.2}", cpu.median),
        "us per GET",
        format_args!(
            "{config}; CPU time of the whole process, user and system; median of {rounds}; \
             {cpu:.2}"
        ),
    );
    let rate = entrant.spread(size, load, |round| round.per_second);
    let p50 = entrant.spread(size, load, |round| round.p50);
    let p99 = entrant.spread(size, load, |round| round.p99);
    result(
        &candidate.figure("http_rps", &suffix),
        format_args!("{:.0}", rate.median),
        "per s",
        format_args!(
            "{config}; median of {rounds}; {rate:.0}; p50={:.1} us p99={:.1} us",
            p50.median, p99.median
        ),
    );
}

/// warmline beside the others, in the same rounds.
fn ratios(entrants: &[Entrant], how: &str) {
    const CPU: fn(&Round) -> f64 = |round| round.cpu;
    const RATE: fn(&Round) -> f64 = |round| round.per_second;
    let [ours, raw, ureq, ureq_timeout, reqwest, ..] = entrants else { return };
    let ratio = |name: &str, theirs: &Entrant, size: Size, of: fn(&Round) -> f64, target: &str| {
        let values = |entrant: &Entrant| entrant.values(size, EIGHT, of);
        let ratios = Spread::of_ratios(&values(ours), &values(theirs));
        result(
            name,
            format_args!("{:.3}", ratios.median),
            "ratio",
            format_args!(
                "threads={} body={} B {how}; {} | {}; median of the ratios of each round; \
                 {target}; {ratios:.3}",
                THREADS[EIGHT],
                size.bytes(),
                (ours.candidate.settings)(),
                (theirs.candidate.settings)(),
            ),
        );
    };
    ratio("http_cpu_vs_raw_8t", raw, Size::Tiny, CPU, "target <= 1.35");
    ratio("http_cpu_vs_ureq_8t", ureq, Size::Tiny, CPU, "target <= 0.8");
    ratio("http_cpu_vs_ureq_timeout_8t", ureq_timeout, Size::Tiny, CPU, "no target");
    ratio("http_cpu_vs_reqwest_8t", reqwest, Size::Tiny, CPU, "target <= 0.5");
    ratio("http_rps_vs_ureq_8t", ureq, Size::Tiny, RATE, "target >= 1.1");
    ratio("http_rps_vs_reqwest_8t", reqwest, Size::Tiny, RATE, "no target");
    ratio("http_10kib_cpu_vs_raw", raw, Size::Page, CPU, "no target");
    ratio("http_1mib_cpu_vs_raw", raw, Size::Large, CPU, "target <= 1.1");
}
