//! Runs the cases, several at a time, and says what came of them.

use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::cases::Case;
use crate::faults::{Call, Extent};

/// Which case a child is to run.
const CASE: &str = "WARMLINE_FAULTS_CASE";
const SEED: &str = "WARMLINE_FAULTS_SEED";
/// Cases at a time: most of their time they wait.
const AT_A_TIME: usize = 12;

pub(crate) fn main() -> ExitCode {
    let cases = Case::all();
    if let Ok(name) = std::env::var(CASE) {
        let case = cases.into_iter().find(|case| case.name() == name).expect("there is that case");
        let points = case.play(seed());
        println!("{points}");
        return ExitCode::SUCCESS;
    }
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let is_asked_for = |case: &Case| filter.as_ref().is_none_or(|part| case.name().contains(part));
    let cases: Vec<_> = cases.into_iter().filter(is_asked_for).collect();
    let results = Mutex::new(Vec::new());
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                while let Some(&case) = cases.get(next.fetch_add(1, Ordering::SeqCst)) {
                    let result = run_child(case);
                    report(case, &result);
                    results.lock().push((case, result.ok()));
                }
            });
        }
    });
    conclude(&results.into_inner())
}

fn seed() -> u64 {
    std::env::var(SEED).ok().and_then(|seed| seed.parse().ok()).unwrap_or(1)
}

fn run_child(case: Case) -> Result<usize, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let output = Command::new(program).env(CASE, case.name()).output();
    let output = output.map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stdout);
    match said.trim().parse() {
        Ok(0) => Err("no run met a failure".to_owned()),
        Ok(points) if output.status.success() => Ok(points),
        _ => Err(format!("{}\n{said}{}", output.status, String::from_utf8_lossy(&output.stderr))),
    }
}

fn report(case: Case, result: &Result<usize, String>) {
    match result {
        Ok(points) => println!("{}: ok, {points} points", case.name()),
        Err(error) => println!("{}: FAILED, {error}", case.name()),
    }
}

fn conclude(results: &[(Case, Option<usize>)]) -> ExitCode {
    let points_if = |is_it: &dyn Fn(&Case) -> bool| -> usize {
        results.iter().filter(|(case, _)| is_it(case)).filter_map(|(_, points)| *points).sum()
    };
    let calls = Call::ALL.map(|call| {
        let points = points_if(&|case| case.call == call);
        format!("{} {points}", call.name())
    });
    let extents = Extent::ALL.map(|extent| {
        let points = points_if(&|case| case.extent == extent);
        format!("{} {points}", extent.name())
    });
    println!("result: nth_failure_points {}", points_if(&|_| true));
    println!("config: {}; {}; seed {}", calls.join(", "), extents.join(", "), seed());
    let failed = results.iter().filter(|(_, points)| points.is_none()).count();
    println!("{} cases, {failed} failed", results.len());
    if failed == 0 && !results.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
