//! What a checkout and its return do not do: allocate, and call the system.

use std::env;
use std::process::Command;

use peers::{Server, is_quick, note, result, version};

use crate::ALLOCATOR;
use crate::pools::Warmline;

const IDLE: usize = 10;
/// Tells this program, started by itself, how many checkouts to make instead of its usual work.
const CHILD: &str = "WARMLINE_BENCH_CHECKOUTS";

pub(crate) fn run(server: Server) {
    allocations(server);
    let checkouts = if is_quick() { 100_000 } else { 1_000_000 };
    match system_calls(checkouts) {
        Ok((calls, baseline)) => result(
            "checkout_syscalls",
            format_args!("{:.3}", calls.abs_diff(baseline) as f64 / checkouts as f64),
            "per checkout",
            format_args!(
                "{}: TcpConnector defaults, idle={IDLE}, half by handle, half by text; under \
                 strace, all threads: {calls} calls with {checkouts} checkouts, {baseline} with \
                 none",
                version("warmline", "")
            ),
        ),
        Err(reason) => note(format_args!("checkout_syscalls skipped: {reason}")),
    }
}

/// Other threads may allocate meanwhile: the least of several rounds counts, since what belongs to
/// a checkout is there in every round.
fn allocations(server: Server) {
    let (rounds, checkouts) = (10, 10_000);
    let pool = Warmline::with_defaults(server.address, IDLE);
    let text = server.address.to_string();
    let round = |_| {
        let before = ALLOCATOR.count();
        visit(&pool, &text, checkouts);
        ALLOCATOR.count() - before
    };
    let least = (0..rounds).map(round).min().unwrap_or(0);
    result(
        "checkout_allocs",
        least as f64 / checkouts as f64,
        "per checkout",
        format_args!(
            "{}: TcpConnector defaults, idle={IDLE}, half by handle, half by text; {least} \
             allocations of the process in {checkouts} checkouts, the least of {rounds} rounds",
            version("warmline", "")
        ),
    );
}

/// Checks out and returns `checkouts` times: by handle and by text in turn.
fn visit(pool: &Warmline, text: &str, checkouts: u64) {
    let (by_handle, by_text) = (&pool.endpoint, pool.endpoint.pool());
    for _ in 0..checkouts / 2 {
        drop(by_handle.get().expect("a connection"));
        drop(by_text.get(text).expect("a connection"));
    }
}

/// The system calls of a process that makes `checkouts`, and of one that makes none.
fn system_calls(checkouts: u64) -> Result<(u64, u64), String> {
    Ok((traced(checkouts)?, traced(0)?))
}

/// The system calls of all threads of a child that makes `checkouts`, as strace counts them.
fn traced(checkouts: u64) -> Result<u64, String> {
    let program = env::current_exe().map_err(|error| error.to_string())?;
    let mut strace = Command::new("strace");
    strace.args(["-f", "-c"]).arg(program).env(CHILD, checkouts.to_string());
    let output = strace.output().map_err(|error| format!("strace cannot be run: {error}"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("strace failed: {}", text.trim()));
    }
    // "100.00    0.001234           1       987         4 total"
    let total = text.lines().rev().find(|line| line.ends_with(" total"));
    let calls = total.and_then(|line| line.split_whitespace().nth(3)?.parse().ok());
    calls.ok_or_else(|| format!("no total in what strace printed: {}", text.trim()))
}

/// How many checkouts this process is to make, if it is the child.
pub(crate) fn asked_of_child() -> Option<u64> {
    env::var(CHILD).ok()?.parse().ok()
}

pub(crate) fn run_child(checkouts: u64) {
    let server = Server::start().expect("a listener on loopback");
    let pool = Warmline::with_defaults(server.address, IDLE);
    visit(&pool, &server.address.to_string(), checkouts);
}
