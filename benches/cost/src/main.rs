//! How many instructions a checkout and its return take on one thread, and a GET, compared with
//! those of a recorded run: this fails if one takes over 5 % more, or one system call more, where a
//! reading of the clock is one. Under valgrind; on Linux.
//!
//! ```text
//! cargo run --profile bench --manifest-path benches/cost/Cargo.toml [-- --record]
//! ```
//!
//! `--record` writes `benches/cost/baseline.txt` anew: after a change that is worth its price, or
//! when another compiler makes other instructions of the same code.
//!
//! Only what the measured thread does between the first round and the last counts, in the library
//! and in the allocator; not what the kernel does. Two runs differ in their number of rounds, so
//! that what happens once drops out of their difference.

mod baseline;
mod callgrind;
mod rounds;

use std::error::Error;
use std::process::ExitCode;

use crate::baseline::{Baseline, Cost};
use crate::rounds::{CASES, Case};

type Failure = Box<dyn Error + Send + Sync>;

/// Rounds of the two runs.
const FEW: u64 = 2_000;
const MANY: u64 = 12_000;
/// So many instructions more than were recorded are too many.
const MOST_PERCENT: f64 = 5.0;
/// Of system calls, none must be made that was not; but for some, once in a while.
const MOST_CALLS: f64 = 0.1;

fn main() -> Result<ExitCode, Failure> {
    let arguments = Vec::from_iter(std::env::args().skip(1));
    match Vec::from_iter(arguments.iter().map(String::as_str)).as_slice() {
        [] => compare(),
        ["--record"] => record(),
        ["--rounds", count, name] => {
            let case = CASES.iter().find(|case| case.name == *name).ok_or("no such case")?;
            (case.run)(count.parse()?);
            Ok(ExitCode::SUCCESS)
        }
        _ => Err("usage: cost [--record]".into()),
    }
}

fn compare() -> Result<ExitCode, Failure> {
    let baseline = Baseline::read()?;
    let compiler = callgrind::compiler()?;
    if compiler != baseline.compiler {
        println!("note: recorded with {}, compared with {compiler}", baseline.compiler);
    }
    let mut verdict = ExitCode::SUCCESS;
    for case in CASES {
        let Cost { instructions, calls } = measure(case)?;
        let recorded = baseline.of(case.name)?;
        let percent = 100.0 * (instructions / recorded.instructions - 1.0);
        println!("result: {}_instructions {instructions:.1}", case.name);
        println!("result: {}_calls {calls:.2}", case.name);
        println!(
            "config: {}; {compiler}, profile bench; callgrind, {FEW} and {MANY} rounds; recorded: \
             {:.1} ({percent:+.1} %), {:.2} calls",
            case.what, recorded.instructions, recorded.calls
        );
        if percent < -MOST_PERCENT {
            println!("note: {} costs less than was recorded: record it (--record)", case.name);
        }
        if percent > MOST_PERCENT || calls > recorded.calls + MOST_CALLS {
            println!("error: {} costs more than was recorded", case.name);
            verdict = ExitCode::FAILURE;
        }
    }
    Ok(verdict)
}

fn record() -> Result<ExitCode, Failure> {
    let mut baseline = Baseline { compiler: callgrind::compiler()?, costs: Vec::new() };
    for case in CASES {
        let cost = measure(case)?;
        println!("{}: {:.1} instructions, {:.2} calls", case.name, cost.instructions, cost.calls);
        baseline.costs.push((case.name.to_owned(), cost));
    }
    baseline.write()?;
    Ok(ExitCode::SUCCESS)
}

/// What a round costs.
fn measure(case: &Case) -> Result<Cost, Failure> {
    let [few, many] = [callgrind::count(case.name, FEW)?, callgrind::count(case.name, MANY)?];
    let per_round = |few: u64, many: u64| (many as f64 - few as f64) / (MANY - FEW) as f64;
    let instructions = per_round(few.instructions, many.instructions);
    if instructions < 1.0 {
        return Err("more rounds took no more instructions".into());
    }
    Ok(Cost { instructions, calls: per_round(few.calls, many.calls) })
}
