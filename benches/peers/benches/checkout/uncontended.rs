//! One thread, something idle: what a checkout and its return cost in CPU time.

use std::hint::black_box;
use std::net::TcpStream;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};

use peers::{Rng, Server, Spread, cpu_ns, is_quick, now_ns, result};

use crate::keyed::{Keyed, MANY, Place};
use crate::pools::{Channel, Deadpool, Entry, Floor, Lender, R2d2, Warmline};

/// Idle connections of every pool that has one endpoint.
const IDLE: usize = 10;

/// A number of visits, made in batches.
struct Candidate {
    /// The name of its figure, without the unit.
    figure: String,
    settings: String,
    visit: Box<dyn FnMut(u64)>,
    /// Visits in a batch.
    count: u64,
    /// Nanoseconds of CPU time per visit, of each batch.
    cpu: Vec<f64>,
    /// Nanoseconds per visit, of each batch.
    wall: Vec<f64>,
}

impl Candidate {
    fn new(figure: &str, settings: String, visit: impl FnMut(u64) + 'static) -> Self {
        let (figure, visit) = (figure.to_owned(), Box::new(visit));
        Self { figure, settings, visit, count: 1_000, cpu: Vec::new(), wall: Vec::new() }
    }

    fn of<L: Lender>(lender: L) -> Self {
        let figure = format!("checkout_{}", L::NAME);
        Self::new(&figure, lender.settings(), move |count| {
            for _ in 0..count {
                lender.visit(|| {});
            }
        })
    }

    /// What the machine itself takes for something: the unit to read the other figures in.
    fn of_machine(figure: &str, settings: &str, mut step: impl FnMut() + 'static) -> Self {
        Self::new(figure, settings.to_owned(), move |count| (0..count).for_each(|_| step()))
    }

    /// Makes batches last for `target` nanoseconds of CPU time.
    fn calibrate(&mut self, target: u64) {
        loop {
            let began = cpu_ns();
            (self.visit)(self.count);
            let took = (cpu_ns() - began).max(1);
            if took >= target / 4 {
                self.count = (self.count * target / took).max(1_000);
                return;
            }
            self.count *= 2;
        }
    }

    /// One batch, after a quarter of one that is not timed: caches are warm, and what was idle
    /// while others had their turn has been looked at.
    fn batch(&mut self) {
        (self.visit)(self.count / 4);
        let (cpu, wall) = (cpu_ns(), now_ns());
        (self.visit)(self.count);
        let (cpu, wall) = (cpu_ns() - cpu, now_ns() - wall);
        self.cpu.push(cpu as f64 / self.count as f64);
        self.wall.push(wall as f64 / self.count as f64);
    }
}

pub(crate) fn run(server: Server) {
    let (rounds, batch_ms) = if is_quick() { (31, 1) } else { (101, 4) };
    let mut rng = Rng::new(1);
    let mut candidates = candidates(server, &mut rng);
    for candidate in &mut candidates {
        candidate.calibrate(batch_ms * 1_000_000);
    }
    let mut order = Vec::from_iter(0..candidates.len());
    for _ in 0..rounds {
        rng.shuffle(&mut order);
        for &next in &order {
            candidates[next].batch();
        }
    }
    let how = format!(
        "threads=1 idle={IDLE} CPU time of the thread, median of {rounds} interleaved batches of \
         {batch_ms} ms"
    );
    report(&candidates, &how);
}

fn candidates(server: Server, rng: &mut Rng) -> Vec<Candidate> {
    let address = server.address;
    let counter = AtomicU64::new(0);
    let keyed = Rc::new(Keyed::new(address, rng, MANY, 1));
    let (by_text, mut place) = (Rc::clone(&keyed), Place::default());
    let by_text = move |count| by_text.visit_by_text(&mut place, count);
    let by_handle = move |count| keyed.visit_by_handle(&mut place, count);
    vec![
        Candidate::of(Warmline::with_defaults(address, IDLE)),
        Candidate::of(Floor::new(address, IDLE)),
        Candidate::of(Floor::bare(address, IDLE)),
        Candidate::of(R2d2::with_defaults(address)),
        Candidate::of(Deadpool::new(address, IDLE)),
        Candidate::of(Channel::new(address, IDLE)),
        Candidate::new("checkout_key", Keyed::settings(), by_text),
        Candidate::new("checkout_key_handle", Keyed::settings(), by_handle),
        Candidate::of_machine("machine_atomic_add", "one uncontended fetch_add", move || {
            black_box(counter.fetch_add(1, Ordering::Relaxed));
        }),
        Candidate::of_machine("machine_clock", "one reading of the monotonic clock", || {
            black_box(now_ns());
        }),
    ]
}

fn report(candidates: &[Candidate], how: &str) {
    for candidate in candidates {
        let cpu = Spread::of(candidate.cpu.iter().copied());
        let wall = Spread::of(candidate.wall.iter().copied());
        let (settings, wall_ns) = (&candidate.settings, wall.median);
        result(
            &format!("{}_ns", candidate.figure),
            format_args!("{:.1}", cpu.median),
            "ns",
            format_args!("{how}; {settings}; {cpu}, wall={wall_ns:.1} ns {wall}"),
        );
    }
    let cpu_of = |name| {
        let figure = format!("checkout_{name}");
        let found = candidates.iter().find(|candidate| candidate.figure == figure);
        &found.expect("it is among the candidates").cpu
    };
    let warmline = cpu_of(Warmline::NAME);
    let vs = |name| Spread::of_ratios(warmline, cpu_of(name));
    let (vs_floor, vs_bare) = (vs(Floor::<Entry>::NAME), vs(Floor::<TcpStream>::NAME));
    let target = format!("target <= 2.8; to the bare floor {:.2}", vs_bare.median);
    ratio("checkout_vs_floor", vs_floor, &target, how);
    let speedup = Spread::of_ratios(cpu_of(R2d2::NAME), warmline);
    ratio("checkout_speedup_vs_r2d2", speedup, "target >= 6", how);
}

fn ratio(name: &str, spread: Spread, target: &str, how: &str) {
    let config = format!("{how}; median of the ratios of each round; {target}; {spread:.2}");
    result(name, format_args!("{:.2}", spread.median), "ratio", config);
}
