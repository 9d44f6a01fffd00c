//! An outage: how soon after it the pools work again, and how often they try meanwhile.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use peers::{Rng, Spread, is_quick, now_ns, result, version};
use warmline::{Builder, Endpoint, Pool, TcpConnector};

use crate::peer::Manager;
use crate::remote::{Remote, exchange};

const OUTAGE: Duration = Duration::from_secs(3);
/// Nothing is exchanged any more when so much of an outage has passed.
const SILENCE: Duration = Duration::from_secs(1);
/// Whoever has not recovered by then will not.
const PATIENCE: Duration = Duration::from_secs(60);
const CALLERS: usize = 8;
const MIN_IDLE: usize = 5;
/// What a caller does between two exchanges takes.
const PAUSE: Duration = Duration::from_millis(5);
/// A caller that got an error comes again after so long; others look whether all is well so often.
const GLANCE: Duration = Duration::from_millis(1);
/// Outages begin after calm times between these.
const CALM_MILLIS: (u64, usize) = (300, 1_000);

/// A pool in an outage, and those who use it.
struct Candidate {
    name: &'static str,
    settings: String,
    address: SocketAddr,
    callers: usize,
    /// True once a caller has what it came for.
    call: Box<dyn Fn() -> bool + Sync>,
    /// Attempts to connect that the server refused so far.
    refused: Box<dyn Fn() -> u64 + Sync>,
    /// When each caller first succeeded, since that was last set to zero.
    firsts: Vec<AtomicU64>,
    rounds: Vec<Round>,
    /// Attempts per second while the server accepted and reset.
    resets: Vec<f64>,
}

struct Round {
    /// Milliseconds from the listener's return to the first success.
    first: f64,
    /// And to that of the last caller.
    last: f64,
    attempts_per_s: f64,
}

impl Candidate {
    fn warmline(
        name: &'static str,
        address: SocketAddr,
        callers: usize,
        settings: &str,
        set: impl FnOnce(Builder<TcpConnector>) -> Builder<TcpConnector>,
        call: impl Fn(&Endpoint<TcpConnector>) -> bool + Sync + 'static,
    ) -> Self {
        let builder = set(Pool::builder(TcpConnector::new()).name(name));
        let pool = builder.build().expect("settings that fit each other");
        let endpoint = pool.endpoint(&address).expect("an address");
        let settings = format!("{}: {settings}", version("warmline", ""));
        let stats = endpoint.clone();
        let refused = Box::new(move || stats.stats().connects_failed());
        let call = Box::new(move || call(&endpoint));
        Self::new(name, settings, address, callers, call, refused)
    }

    fn r2d2(address: SocketAddr) -> Self {
        let connects = Arc::new(AtomicU64::new(0));
        let manager = Manager { address, connects: Arc::clone(&connects) };
        let builder = r2d2::Pool::builder().max_size(CALLERS as u32);
        let pool = builder.build(manager).expect("the server accepts");
        let call = Box::new(move || pool.get().is_ok_and(|mut conn| conn.exchange().is_ok()));
        // In an outage all are.
        let refused = Box::new(move || connects.load(Ordering::Relaxed));
        let settings = format!(
            "{}: max_size={CALLERS}, its checks on, {CALLERS} callers wait in get; it tries again \
             0.4 s after a failure, then 0.8, 1.6, 3.2 s",
            version("r2d2", "")
        );
        Self::new("r2d2", settings, address, CALLERS, call, refused)
    }

    fn new(
        name: &'static str,
        settings: String,
        address: SocketAddr,
        callers: usize,
        call: Box<dyn Fn() -> bool + Sync>,
        refused: Box<dyn Fn() -> u64 + Sync>,
    ) -> Self {
        let firsts = Vec::from_iter((0..callers).map(|_| AtomicU64::new(0)));
        let (rounds, resets) = (Vec::new(), Vec::new());
        Self { name, settings, address, callers, call, refused, firsts, rounds, resets }
    }

    /// What a caller does until all is over.
    fn keep_calling(&self, first: &AtomicU64, is_over: &AtomicBool) {
        while !is_over.load(Ordering::Relaxed) {
            if (self.call)() {
                // It keeps the first.
                let _later =
                    first.compare_exchange(0, now_ns(), Ordering::SeqCst, Ordering::SeqCst);
                // Who only looks on does so often.
                thread::sleep(if self.callers > 1 { PAUSE } else { GLANCE });
            } else {
                thread::sleep(GLANCE);
            }
        }
    }

    fn stamps(&self) -> impl Iterator<Item = u64> {
        self.firsts.iter().map(|first| first.load(Ordering::SeqCst))
    }

    fn forget(&self) {
        self.firsts.iter().for_each(|first| first.store(0, Ordering::SeqCst));
    }

    fn has_recovered(&self) -> bool {
        self.stamps().all(|stamp| stamp > 0)
    }
}

fn has_exchanged(endpoint: &Endpoint<TcpConnector>) -> bool {
    let Ok(mut conn) = endpoint.get() else { return false };
    let exchanged = exchange(&mut *conn);
    conn.set_complete();
    exchanged.is_ok()
}

fn candidates(remote: &mut Remote) -> Vec<Candidate> {
    let waiting = format!("fail_fast=false, {CALLERS} callers wait in get");
    let retrying = format!("fail_fast=true, {CALLERS} callers, each tries get every {GLANCE:?}");
    let quiet = format!("min_idle={MIN_IDLE}, nobody waits; until {MIN_IDLE} are idle again");
    vec![
        Candidate::warmline(
            "patient",
            remote.site(),
            CALLERS,
            &waiting,
            |builder| builder.fail_fast(false),
            has_exchanged,
        ),
        Candidate::warmline(
            "retrying",
            remote.site(),
            CALLERS,
            &retrying,
            |builder| builder.fail_fast(true),
            has_exchanged,
        ),
        Candidate::warmline(
            "quiet",
            remote.site(),
            1,
            &quiet,
            |builder| builder.min_idle(MIN_IDLE),
            |endpoint| endpoint.stats().idle() == MIN_IDLE,
        ),
        Candidate::r2d2(remote.site()),
    ]
}

/// Waits until all have succeeded again.
fn await_recovery(candidates: &[Candidate]) {
    let began = now_ns();
    while let Some(out) = candidates.iter().find(|candidate| !candidate.has_recovered()) {
        let waited = Duration::from_nanos(now_ns() - began);
        assert!(waited < PATIENCE, "{} has not recovered within {waited:?}", out.name);
        thread::sleep(GLANCE);
    }
}

/// What all are like before the next outage: well, and at any point of their doings.
fn rest(rng: &mut Rng) {
    let millis = CALM_MILLIS.0 + rng.below(CALM_MILLIS.1) as u64;
    thread::sleep(Duration::from_millis(millis));
}

/// Returns what each candidate found.
fn outage(remote: &mut Remote, candidates: &[Candidate]) -> Vec<Round> {
    let refused = || Vec::from_iter(candidates.iter().map(|candidate| (candidate.refused)()));
    let before = refused();
    let down = remote.go_down();
    thread::sleep(SILENCE);
    candidates.iter().for_each(Candidate::forget);
    thread::sleep(OUTAGE - SILENCE);
    let is_out = |candidate: &Candidate| candidate.stamps().all(|stamp| stamp == 0);
    assert!(candidates.iter().all(is_out), "nothing can succeed");
    let after = refused();
    let up = remote.come_up();
    await_recovery(candidates);
    let seconds = (up - down) as f64 / 1e9;
    let millis = |stamp: Option<u64>| stamp.unwrap_or(0).saturating_sub(up) as f64 / 1e6;
    let attempts = before.into_iter().zip(after).map(|(before, after)| after - before);
    let round = |(candidate, attempts): (&Candidate, u64)| Round {
        first: millis(candidate.stamps().min()),
        last: millis(candidate.stamps().max()),
        attempts_per_s: attempts as f64 / seconds,
    };
    candidates.iter().zip(attempts).map(round).collect()
}

/// How many connections of each the server accepted so far.
fn accepted(remote: &mut Remote, candidates: &[Candidate]) -> Vec<u64> {
    candidates.iter().map(|candidate| remote.accepted(candidate.address)).collect()
}

/// The server accepts connections and resets them at once; returns what each candidate tried.
fn reset_outage(remote: &mut Remote, candidates: &[Candidate]) -> Vec<f64> {
    let before = accepted(remote, candidates);
    let began = remote.begin_resets();
    thread::sleep(OUTAGE);
    candidates.iter().for_each(Candidate::forget);
    let after = accepted(remote, candidates);
    let seconds = (now_ns() - began) as f64 / 1e9;
    remote.come_up();
    await_recovery(candidates);
    let attempts = before.into_iter().zip(after).map(|(before, after)| after - before);
    attempts.map(|attempts| attempts as f64 / seconds).collect()
}

pub(crate) fn run() {
    let (outages, resets) = if is_quick() { (1, 1) } else { (10, 3) };
    let mut remote = Remote::start();
    let mut candidates = candidates(&mut remote);
    let (is_over, mut rng) = (AtomicBool::new(false), Rng::new(6));
    let (rounds, reset_rounds) = thread::scope(|scope| {
        for candidate in &candidates {
            for first in &candidate.firsts {
                scope.spawn(|| candidate.keep_calling(first, &is_over));
            }
        }
        await_recovery(&candidates);
        let mut play = || {
            rest(&mut rng);
            outage(&mut remote, &candidates)
        };
        let rounds = Vec::from_iter((0..outages).map(|_| play()));
        let mut play = || {
            rest(&mut rng);
            reset_outage(&mut remote, &candidates)
        };
        let reset_rounds = Vec::from_iter((0..resets).map(|_| play()));
        is_over.store(true, Ordering::Relaxed);
        (rounds, reset_rounds)
    });
    for rounds in rounds {
        candidates
            .iter_mut()
            .zip(rounds)
            .for_each(|(candidate, round)| candidate.rounds.push(round));
    }
    for resets in reset_rounds {
        candidates.iter_mut().zip(resets).for_each(|(candidate, rate)| candidate.resets.push(rate));
    }
    report(&candidates);
}

fn most(values: &[f64]) -> f64 {
    values.iter().copied().fold(0.0, f64::max)
}

fn report(candidates: &[Candidate]) {
    let [patient, retrying, quiet, r2d2] = candidates else { unreachable!("there are four") };
    let both = [patient, retrying];
    recovery("waiting", &both, "; target <= 150", "; target <= 150");
    recovery("patient", &[patient], "", "");
    recovery("retrying", &[retrying], "", "");
    recovery("quiet", &[quiet], "; target <= 1000", "");
    recovery("r2d2", &[r2d2], "", "");
    attempts("", "refuses", &both, "; target <= 20");
    attempts("_reset", "accepts, and resets at once", &both, "");
    for candidate in candidates {
        attempts(&format!("_{}", candidate.name), "refuses", &[candidate], "");
        let name = format!("_reset_{}", candidate.name);
        attempts(&name, "accepts, and resets at once", &[candidate], "");
    }
}

fn settings(candidates: &[&Candidate]) -> String {
    let settings = candidates.iter().map(|candidate| candidate.settings.as_str());
    Vec::from_iter(settings).join(" | ")
}

fn recovery(name: &str, candidates: &[&Candidate], of_median: &str, of_most: &str) {
    let rounds = || candidates.iter().flat_map(|candidate| &candidate.rounds);
    let firsts = Vec::from_iter(rounds().map(|round| round.first));
    let lasts = Vec::from_iter(rounds().map(|round| round.last));
    let spread = Spread::of(firsts.iter().copied());
    let config = format!(
        "{}; {} outages of {OUTAGE:?}, of all pools at once, one address each; from the \
         listener's return, by the clock of the server, another process, to the first success; to \
         that of the last caller: median {:.1}, most {:.1}",
        settings(candidates),
        firsts.len(),
        Spread::of(lasts.iter().copied()).median,
        most(&lasts),
    );
    let median = format!("{:.1}", spread.median);
    let words = format!("{config}{of_median}; {spread}");
    result(&format!("recovery_{name}_ms"), median, "ms", words);
    let words = format!("{config}{of_most}; the most of any outage");
    result(&format!("recovery_{name}_max_ms"), format_args!("{:.1}", most(&firsts)), "ms", words);
}

fn attempts(name: &str, how: &str, candidates: &[&Candidate], target: &str) {
    let of = |candidate: &&Candidate| match how {
        "refuses" => Vec::from_iter(candidate.rounds.iter().map(|round| round.attempts_per_s)),
        _ => candidate.resets.clone(),
    };
    let rates = Vec::from_iter(candidates.iter().flat_map(of));
    let config = format!(
        "{}; connects per second and endpoint in {} outages of {OUTAGE:?}, the most of any, while \
         the server {how}{target}; median {:.1}",
        settings(candidates),
        rates.len(),
        Spread::of(rates.iter().copied()).median,
    );
    let name = format!("outage_attempts{name}_per_s");
    result(&name, format_args!("{:.1}", most(&rates)), "per s", config);
}
