//! The server is killed and started again: the errors that callers see, and how soon all is well.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use interop::servers::Server;
use peers::{Rng, Spread, is_quick, now_ns, result};

use crate::client::{Candidate, Client, Failure, Open};

const CALLERS: usize = 8;
/// All goes well for so long before the server is killed, and again after the last has recovered.
const CALM: Duration = Duration::from_millis(300);
/// A caller that got an error comes again after so long. It has told somebody of it meanwhile.
const PAUSE: Duration = Duration::from_millis(10);
const GLANCE: Duration = Duration::from_millis(1);
/// Whoever has not recovered by then will not.
const PATIENCE: Duration = Duration::from_secs(60);

/// What happens in a round.
struct Outage {
    /// What the names of its figures begin with, after the client's.
    name: &'static str,
    /// From the server's end to its start. It takes time to be up.
    down: Duration,
    /// The callers do nothing from before the server's end until so long after its return; `None`:
    /// they never stop.
    rest: Option<Duration>,
    rounds: usize,
}

const OUTAGES: [Outage; 3] = [
    Outage { name: "restart", down: Duration::from_millis(300), rest: None, rounds: 5 },
    Outage { name: "long_restart", down: Duration::from_secs(2), rest: None, rounds: 3 },
    Outage {
        name: "unseen_restart",
        down: Duration::from_millis(300),
        rest: Some(Duration::from_millis(500)),
        rounds: 3,
    },
];

/// What came of one outage.
struct Round {
    command_errors: u64,
    checkout_errors: u64,
    /// Milliseconds from the moment when the server answered again, or the callers went on after
    /// it, to the first success.
    first: f64,
    /// And to that of the last caller.
    last: f64,
    example: Option<String>,
}

impl Round {
    fn errors(&self) -> f64 {
        (self.command_errors + self.checkout_errors) as f64
    }
}

/// What the callers of a round share.
#[derive(Default)]
struct Shared {
    is_over: AtomicBool,
    is_resting: AtomicBool,
    /// True once a success is one after the outage.
    is_counting: AtomicBool,
    firsts: [AtomicU64; CALLERS],
}

impl Shared {
    fn stamps(&self) -> impl Iterator<Item = u64> {
        self.firsts.iter().map(|first| first.load(Ordering::SeqCst))
    }
}

/// Ends the callers' work when it is dropped, by a panic too: they would go on for ever.
struct Over<'s>(&'s AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// What one caller met.
#[derive(Default)]
struct Seen {
    command_errors: u64,
    checkout_errors: u64,
    example: Option<String>,
}

fn keep_calling(candidate: &Candidate, shared: &Shared, first: &AtomicU64) -> Seen {
    let mut seen = Seen::default();
    while !shared.is_over.load(Ordering::SeqCst) {
        if shared.is_resting.load(Ordering::SeqCst) {
            thread::sleep(GLANCE);
            continue;
        }
        let is_after = shared.is_counting.load(Ordering::SeqCst);
        let failure = match (candidate.visit)() {
            Ok(()) => {
                if is_after && first.load(Ordering::SeqCst) == 0 {
                    first.store(now_ns(), Ordering::SeqCst);
                }
                continue;
            }
            Err(failure) => failure,
        };
        let (count, error) = match failure {
            Failure::Checkout(error) => (&mut seen.checkout_errors, error),
            Failure::Command(error) => (&mut seen.command_errors, error),
        };
        *count += 1;
        seen.example.get_or_insert_with(|| error.to_string());
        thread::sleep(PAUSE);
    }
    seen
}

/// Has the server end and come back; returns when it answered again, and callers may succeed.
fn restart(server: &mut Server, outage: &Outage, shared: &Shared) -> u64 {
    thread::sleep(CALM);
    if outage.rest.is_some() {
        shared.is_resting.store(true, Ordering::SeqCst);
        thread::sleep(CALM); // what they are at ends well
    }
    server.kill();
    thread::sleep(outage.down / 2);
    // What began before the end has got its answer or none.
    shared.is_counting.store(outage.rest.is_none(), Ordering::SeqCst);
    thread::sleep(outage.down - outage.down / 2);
    server.start_again();
    let Some(rest) = outage.rest else { return now_ns() };
    thread::sleep(rest);
    shared.is_counting.store(true, Ordering::SeqCst);
    shared.is_resting.store(false, Ordering::SeqCst);
    now_ns()
}

/// Plays one outage, with a pool that is new.
fn play(server: &mut Server, outage: &Outage, open: Open) -> Round {
    let candidate = open(server.address());
    let shared = Shared::default();
    thread::scope(|scope| {
        let over = Over(&shared.is_over);
        let (candidate, shared) = (&candidate, &shared);
        let call = |first| scope.spawn(move || keep_calling(candidate, shared, first));
        let callers = Vec::from_iter(shared.firsts.iter().map(call));
        let up = restart(server, outage, shared);
        while shared.stamps().any(|stamp| stamp == 0) {
            let waited = Duration::from_nanos(now_ns() - up);
            assert!(waited < PATIENCE, "{} has not recovered within {waited:?}", candidate.name);
            thread::sleep(GLANCE);
        }
        thread::sleep(CALM);
        drop(over);
        let mut seen = Seen::default();
        for caller in callers {
            let one = caller.join().expect("no panics");
            seen.command_errors += one.command_errors;
            seen.checkout_errors += one.checkout_errors;
            seen.example = seen.example.or(one.example);
        }
        let millis = |stamp: Option<u64>| stamp.unwrap_or(0).saturating_sub(up) as f64 / 1e6;
        Round {
            command_errors: seen.command_errors,
            checkout_errors: seen.checkout_errors,
            first: millis(shared.stamps().min()),
            last: millis(shared.stamps().max()),
            example: seen.example,
        }
    })
}

pub(crate) fn run<C: Client>(mut server: Server) {
    let opens: [Open; 5] = [
        Candidate::handle::<C>,
        Candidate::face::<C>,
        C::watched,
        Candidate::r2d2_default::<C>,
        Candidate::r2d2_unvalidated::<C>,
    ];
    let mut rng = Rng::new(9);
    let mut order = Vec::from_iter(0..opens.len());
    let is_short = |outage: &&Outage| !is_quick() || outage.down < Duration::from_secs(1);
    for outage in OUTAGES.iter().filter(is_short) {
        let mut rounds: [Vec<Round>; 5] = Default::default();
        for _ in 0..if is_quick() { 1 } else { outage.rounds } {
            rng.shuffle(&mut order);
            for &next in &order {
                rounds[next].push(play(&mut server, outage, opens[next]));
            }
        }
        for (open, rounds) in opens.iter().zip(&rounds) {
            report::<C>(outage, &open(server.address()), rounds);
        }
    }
}

/// The figures of one candidate. Those of warmline's handle go without its name.
fn report<C: Client>(outage: &Outage, candidate: &Candidate, rounds: &[Round]) {
    let form = match candidate.name {
        "handle" => String::new(),
        name => format!("_{name}"),
    };
    let Outage { name, down, .. } = outage;
    let (callers, from) = match outage.rest {
        None => (
            format!("who go on all the time, {PAUSE:?} after an error"),
            "the moment when the server answers again",
        ),
        Some(rest) => (format!("who do nothing meanwhile and {rest:?} longer"), "when they go on"),
    };
    let count = rounds.len();
    let config = format!(
        "threads={CALLERS}, {callers}; {}; {}; the server is killed, and started again after \
         {down:?}, {count} times, each with a new pool, interleaved",
        C::settings(),
        candidate.settings,
    );
    let spread = |of: fn(&Round) -> f64| Spread::of(rounds.iter().map(of));
    let errors = spread(Round::errors);
    let (commands, checkouts) = (
        spread(|round| round.command_errors as f64).median,
        spread(|round| round.checkout_errors as f64).median,
    );
    let example = rounds.iter().find_map(|round| round.example.as_ref());
    let example = example.map_or(String::new(), |example| format!(", \"{example}\" say"));
    result(
        &format!("{}_{name}_errors{form}", C::NAME),
        format_args!("{:.0}", errors.median),
        "errors",
        format_args!(
            "{config}; that callers see in one outage, median; of commands {commands:.0}, of \
             checkouts {checkouts:.0}{example}; {errors:.0}"
        ),
    );
    let last = spread(|round| round.last);
    result(
        &format!("{}_{name}_recovery_ms{form}", C::NAME),
        format_args!("{:.0}", last.median),
        "ms",
        format_args!(
            "{config}; from {from} to the first success of the last caller, median; of the first \
             caller {:.0}; {last:.0}",
            spread(|round| round.first).median,
        ),
    );
}
