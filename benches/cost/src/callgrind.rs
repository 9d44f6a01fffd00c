//! This very program under callgrind.

use std::env;
use std::process::Command;

use crate::Failure;

/// Counts what is done inside `rounds::rounds` alone, by the thread that calls it.
const COLLECT: &str = "--toggle-collect=cost::rounds::rounds*";

/// What callgrind counts.
#[derive(Clone, Copy)]
pub(crate) struct Count {
    pub(crate) instructions: u64,
    /// Of the system. Under valgrind there is no way around it to the clock, so that a reading of
    /// the clock is one, too: of its price, only this can be seen here.
    pub(crate) calls: u64,
}

/// Counts the rounds of a case.
pub(crate) fn count(case: &str, rounds: u64) -> Result<Count, Failure> {
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
    valgrind.args(["--collect-systime=nsec", COLLECT]);
    valgrind.arg(env::current_exe()?).args(["--rounds", &rounds.to_string(), case]);
    let output = valgrind.output().map_err(|error| format!("valgrind cannot be run: {error}"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("{case} failed under valgrind: {}", text.trim()).into());
    }
    // "==1234== Collected : 6336177 24078 63649348 23348883": the last two are times.
    let collected = text.lines().find_map(|line| line.split_once("Collected : "));
    let mut numbers = collected.ok_or("callgrind told no count")?.1.split(' ').map(str::parse);
    let instructions: u64 = numbers.next().ok_or("callgrind told nothing")??;
    // Where there was no call, nothing is told of calls.
    let calls = numbers.next().transpose()?.unwrap_or(0);
    if instructions < rounds {
        let missed = "the function to count in was not found";
        return Err(format!("{instructions} instructions: {missed}").into());
    }
    Ok(Count { instructions, calls })
}

/// The compiler, as it names itself.
pub(crate) fn compiler() -> Result<String, Failure> {
    let output = Command::new("rustc").arg("--version").output()?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
