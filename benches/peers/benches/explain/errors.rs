//! What a time-out costs beyond the wait: the wait is over as soon as it begins.

use std::collections::HashSet;
use std::convert::Infallible;
use std::hint::black_box;
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use peers::{Rng, Spread, is_quick, now_ns, percentile, result, version};
use warmline::{Endpoint, Error};

use crate::crowd::Crowd;
use crate::fleet::Fleet;
use crate::numbers::{Numbers, PLACES};

const HOLDERS: usize = PLACES.len();
/// The least that there is.
const WAIT: Duration = Duration::from_nanos(1);
/// For longer than a look at who has connections is shared by those who give up.
const PAUSE: Duration = Duration::from_millis(2);

/// Something done again and again.
struct Candidate {
    /// The name of its figure.
    figure: &'static str,
    words: String,
    /// How often in a batch.
    count: usize,
    /// Done before each time, and not timed.
    before: Box<dyn FnMut()>,
    step: Box<dyn FnMut()>,
    /// Microseconds that each step took.
    took: Vec<f64>,
    /// The median of each batch.
    medians: Vec<f64>,
}

impl Candidate {
    fn new(figure: &'static str, words: impl Into<String>, step: impl FnMut() + 'static) -> Self {
        let (words, took, medians) = (words.into(), Vec::new(), Vec::new());
        let (before, step) = (Box::new(|| ()), Box::new(step));
        Self { figure, words, count: 100, before, step, took, medians }
    }

    /// A time-out at an endpoint that is full, and the end of its error.
    fn at(figure: &'static str, words: impl Into<String>, endpoint: &Endpoint<Numbers>) -> Self {
        let endpoint = endpoint.clone();
        let words = format!("get_timeout({WAIT:?}) to the end of its error: {}", words.into());
        Self::new(figure, words, move || drop(black_box(fail(&endpoint))))
    }

    /// With a checkout before each, so that others have connections than before: the caller returns
    /// the one that it has, and takes it again.
    fn after_checkouts(mut self, endpoint: &Endpoint<Numbers>) -> Self {
        let endpoint = endpoint.clone();
        let [.., take] = PLACES;
        let mut held = Some(take(&endpoint));
        self.before = Box::new(move || {
            drop(held.take());
            held = Some(take(&endpoint));
        });
        self
    }

    /// With a pause before each.
    fn after_pauses(mut self) -> Self {
        self.before = Box::new(|| thread::sleep(PAUSE));
        self.count = 20;
        self
    }

    fn batch(&mut self) {
        let from = self.took.len();
        for _ in 0..self.count {
            (self.before)();
            let began = now_ns();
            (self.step)();
            self.took.push((now_ns() - began) as f64 / 1e3);
        }
        self.medians.push(percentile(&self.took[from..], 0.5));
    }

    fn median(&self) -> f64 {
        percentile(&self.took, 0.5)
    }

    fn report(&self, how: &str) {
        let spread = Spread::of(self.medians.iter().copied());
        let config = format!(
            "{how}; {}; median of {} times; medians of batches {spread:.2}, p99 of all {:.1}",
            self.words,
            self.took.len(),
            percentile(&self.took, 0.99),
        );
        result(self.figure, format_args!("{:.2}", self.median()), "us", config);
    }
}

fn fail(endpoint: &Endpoint<Numbers>) -> Error {
    let gone = endpoint.get_timeout(WAIT);
    gone.map(drop).expect_err("all are in use")
}

pub(crate) fn run(troubled: &Fleet) {
    let rounds = if is_quick() { 5 } else { 51 };
    // The caller has the last one, in some of the candidates: then all are in use.
    let crowd = Rc::new(Crowd::new(HOLDERS - 1, HOLDERS));
    let (alone, stuck) = (Crowd::new(0, 1), Crowd::deadlocked(HOLDERS));
    let mut candidates = time_outs(&crowd, &alone, &stuck, troubled);
    check(&crowd.endpoint);
    candidates.extend(texts(&crowd.endpoint, &stuck.endpoint));
    let mut order = Vec::from_iter(0..candidates.len());
    let mut rng = Rng::new(7);
    for _ in 0..rounds {
        rng.shuffle(&mut order);
        for &next in &order {
            candidates[next].batch();
        }
    }
    report(&candidates, rounds);
}

/// Every connection is held at a line of its own.
fn check(endpoint: &Endpoint<Numbers>) {
    let holders = endpoint.pool().holders();
    let sites = HashSet::<_>::from_iter(holders.iter().map(|holder| holder.site().to_string()));
    assert_eq!((holders.len(), sites.len()), (HOLDERS, HOLDERS));
}

/// The first three are what the figure is made of.
fn time_outs(crowd: &Crowd, alone: &Crowd, stuck: &Crowd, troubled: &Fleet) -> Vec<Candidate> {
    let crowd = &crowd.endpoint;
    let each = format!("{HOLDERS} of {HOLDERS} connections in use, each by another line");
    let anew = "a checkout before each, so that all holders are looked at anew";
    let pause = format!("one per {PAUSE:?}, so that all holders are looked at anew");
    let shared = format!("{each}; one after the other: a look at the holders serves those of 1 ms");
    let fleet = format!("at a full endpoint of a large pool ({}); {pause}", troubled.words);
    vec![
        Candidate::at("error_build_shared_us", shared, crowd),
        Candidate::at("error_build_cold_us", format!("{each}; {anew}"), crowd)
            .after_checkouts(crowd),
        Candidate::at("error_build_rested_us", format!("{each}; {pause}"), crowd).after_pauses(),
        Candidate::at(
            "error_build_deadlock_us",
            format!("{HOLDERS} threads have one each and wait for another; {pause}"),
            &stuck.endpoint,
        )
        .after_pauses(),
        Candidate::at(
            "error_build_one_holder_us",
            format!("1 of 1 connections in use; {anew}"),
            &alone.endpoint,
        )
        .after_checkouts(&alone.endpoint),
        Candidate::at("error_build_fleet_us", fleet, troubled.full()).after_pauses(),
        r2d2(),
    ]
}

/// What errors cost that somebody reads.
fn texts(crowd: &Endpoint<Numbers>, stuck: &Endpoint<Numbers>) -> Vec<Candidate> {
    let (held, stuck) = (Rc::new(fail(crowd)), Rc::new(fail(stuck)));
    let ways = [
        ("error_text_us", &held, "one line (to_string())"),
        ("error_page_us", &held, "many lines ({:#})"),
        ("error_text_deadlock_us", &stuck, "one line (to_string())"),
        ("error_page_deadlock_us", &stuck, "many lines ({:#})"),
    ];
    let candidate = |(figure, error, way): (&'static str, &Rc<Error>, &str)| {
        let verdict = error.verdict().map(|verdict| verdict.to_string()).unwrap_or_default();
        let words = format!("the text of an error, {way}, verdict: {verdict}");
        let (error, has_many_lines) = (Rc::clone(error), figure.contains("page"));
        Candidate::new(figure, words, move || {
            drop(black_box(if has_many_lines { format!("{error:#}") } else { error.to_string() }));
        })
    };
    ways.into_iter().map(candidate).collect()
}

/// Its connections are numbers, too.
struct Manager;

impl r2d2::ManageConnection for Manager {
    type Connection = u64;
    type Error = Infallible;

    fn connect(&self) -> Result<u64, Infallible> {
        Ok(0)
    }

    fn is_valid(&self, _: &mut u64) -> Result<(), Infallible> {
        Ok(())
    }

    fn has_broken(&self, _: &mut u64) -> bool {
        false
    }
}

fn r2d2() -> Candidate {
    let builder = r2d2::Pool::builder().max_size(HOLDERS as u32).test_on_check_out(false);
    let pool = builder.build(Manager).expect("it opens");
    let held = Vec::from_iter((0..HOLDERS).map(|_| pool.get().expect("there is room")));
    let words = format!("{}: max_size={HOLDERS}, all in use, get_timeout(0)", version("r2d2", ""));
    Candidate::new("error_build_r2d2_us", words, move || {
        black_box(&held);
        drop(black_box(pool.get_timeout(Duration::ZERO).map(drop).expect_err("all are in use")));
    })
}

fn report(candidates: &[Candidate], rounds: usize) {
    let how = format!("{}; {rounds} interleaved batches", version("warmline", ""));
    let worst = candidates[..3].iter().max_by(|one, other| one.median().total_cmp(&other.median()));
    let worst = worst.expect("there are three");
    result(
        "error_build_us",
        format_args!("{:.2}", worst.median()),
        "us",
        format_args!(
            "the worst of those that follow with {HOLDERS} holders: {}; target <= 50",
            worst.figure
        ),
    );
    candidates.iter().for_each(|candidate| candidate.report(&how));
}
