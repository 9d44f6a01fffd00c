//! Two threads over one endpoint, and over many: what it costs that there are so many.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use peers::{Rng, Server, Spread, cpu_ns, is_quick, now_ns, result};

use crate::keyed::{Keyed, MANY, Place};

const THREADS: usize = 2;
/// Visits between two looks whether the round is over.
const BATCH: u64 = 256;

type Visit = fn(&Keyed, &mut Place, u64);

/// A way to visit some endpoints.
struct Candidate<'a> {
    keyed: &'a Keyed,
    visit: Visit,
    /// Operations per second in each round.
    ops: Vec<f64>,
    /// Nanoseconds of CPU time per operation in each round.
    cpu: Vec<f64>,
}

impl Candidate<'_> {
    fn play(&mut self, length: Duration) {
        let (start, is_over) = (Barrier::new(THREADS + 1), AtomicBool::new(false));
        let (keyed, visit) = (self.keyed, self.visit);
        let work = |thread: usize| {
            let mut place = Keyed::place(thread as f64 / THREADS as f64);
            let mut ops = 0;
            start.wait();
            let cpu = cpu_ns();
            while !is_over.load(Ordering::Relaxed) {
                visit(keyed, &mut place, BATCH);
                ops += BATCH;
            }
            (ops, cpu_ns() - cpu)
        };
        thread::scope(|scope| {
            let work = &work;
            let threads = (0..THREADS).map(|thread| scope.spawn(move || work(thread)));
            let threads = Vec::from_iter(threads);
            start.wait();
            let began = now_ns();
            thread::sleep(length);
            is_over.store(true, Ordering::Relaxed);
            let seconds = (now_ns() - began) as f64 / 1e9;
            let shares = threads.into_iter().map(|thread| thread.join().expect("no panics"));
            let sum = |all: (u64, u64), one: (u64, u64)| (all.0 + one.0, all.1 + one.1);
            let (ops, cpu) = shares.fold((0, 0), sum);
            self.ops.push(ops as f64 / seconds);
            self.cpu.push(cpu as f64 / ops.max(1) as f64);
        });
    }
}

pub(crate) fn run(server: Server) {
    let (rounds, length) = if is_quick() { (3, 100) } else { (21, 300) };
    let length = Duration::from_millis(length);
    let mut rng = Rng::new(7);
    let many = Keyed::new(server.address, &mut rng, MANY, 1);
    let one = Keyed::new(server.address, &mut rng, 1, THREADS);
    let before = many.stats();
    let by_handle: Visit = Keyed::visit_by_handle;
    let by_text: Visit = Keyed::visit_by_text;
    let ways = [(&one, by_handle), (&many, by_handle), (&one, by_text), (&many, by_text)];
    let candidate = |(keyed, visit)| Candidate { keyed, visit, ops: vec![], cpu: vec![] };
    let mut candidates = ways.map(candidate);
    let mut order = [0, 1, 2, 3];
    for _ in 0..rounds {
        rng.shuffle(&mut order);
        for next in order {
            candidates[next].play(length);
        }
    }
    let after = many.stats();
    let how = format!(
        "{}; to 1 endpoint with {THREADS} of them, in a pool with the same limits; \
         threads={THREADS} {rounds} interleaved rounds of {length:?}; where both threads met, {} \
         more connections were opened, in {} checkouts from the many",
        Keyed::settings(),
        after.opened() - before.opened(),
        after.checkouts() - before.checkouts(),
    );
    let [one_by_handle, many_by_handle, one_by_text, many_by_text] = &candidates;
    report("", many_by_handle, one_by_handle, "by handle; target >= 0.7", &how);
    report("_keyed", many_by_text, one_by_text, "by text", &how);
}

fn report(suffix: &str, many: &Candidate<'_>, one: &Candidate<'_>, words: &str, how: &str) {
    let ratios = Spread::of_ratios(&many.ops, &one.ops);
    let of = |values: &[f64]| Spread::of(values.iter().copied());
    let (of_many, of_one) = (of(&many.ops), of(&one.ops));
    result(
        &format!("many_endpoints_ops_vs_one{suffix}"),
        format_args!("{:.3}", ratios.median),
        "ratio",
        format_args!(
            "{how}; {words}; median of the ratios of each round; {ratios:.3}, many={:.0} op/s \
             {of_many:.0}, one={:.0} op/s {of_one:.0}; CPU time of the threads, many={:.0} ns/op \
             one={:.0} ns/op",
            of_many.median,
            of_one.median,
            of(&many.cpu).median,
            of(&one.cpu).median,
        ),
    );
}
