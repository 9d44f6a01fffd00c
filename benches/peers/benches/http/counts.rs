//! What a GET takes of what can be counted: calls of the system, instructions, allocations. Of two
//! runs that differ in their number of GETs alone, so that what happens once drops out.

use std::env;
use std::process::Command;

use peers::{is_quick, note, result};

use crate::ALLOCATOR;
use crate::client::{BoxError, Candidate, Reqwest, Ureq, UreqTimeout};
use crate::nginx::Nginx;
use crate::ours::Warmline;
use crate::target::{Size, Target};

/// Tells this program, started by itself, to make requests instead of its usual work: by whom, how
/// many, where and what for.
const CHILD: &str = "WARMLINE_BENCH_GETS";

const CANDIDATES: [Candidate; 5] = [
    Candidate::of::<Warmline>(),
    Candidate::RAW,
    Candidate::of::<Ureq>(),
    Candidate::of::<UreqTimeout>(),
    Candidate::of::<Reqwest>(),
];

/// What is counted of a process.
struct Tool {
    figure: &'static str,
    unit: &'static str,
    program: &'static str,
    arguments: &'static [&'static str],
    /// What it counted, of what it printed.
    find: fn(&str) -> Option<u64>,
    target: &'static str,
    digits: usize,
}

const STRACE: Tool = Tool {
    figure: "http_syscalls_per_get",
    unit: "calls per GET",
    program: "strace",
    arguments: &["-f", "-c"],
    // "100.00    0.001234           1       987         4 total"
    find: |text| {
        let total = text.lines().rev().find(|line| line.ends_with(" total"));
        total.and_then(|line| line.split_whitespace().nth(3)?.parse().ok())
    },
    target: "target 2",
    digits: 2,
};

const CALLGRIND: Tool = Tool {
    figure: "http_instructions_per_get",
    unit: "instructions per GET",
    program: "valgrind",
    arguments: &["--tool=callgrind", "--callgrind-out-file=/dev/null"],
    // "==1234== Collected : 6336177"
    find: |text| {
        let collected = text.lines().find_map(|line| line.split_once("Collected : "));
        collected.and_then(|(_, count)| count.split_whitespace().next()?.parse().ok())
    },
    target: "target <= 21000",
    digits: 0,
};

pub(crate) fn system_calls(nginx: &Nginx) {
    let is_required = env::var("WARMLINE_REQUIRE_SERVERS").is_ok_and(|it| it == "1");
    run(&STRACE, nginx, if is_quick() { 300 } else { 2_000 }, is_required);
}

/// Under valgrind, which not even CI has where it runs the benches in short.
pub(crate) fn instructions(nginx: &Nginx) {
    run(&CALLGRIND, nginx, if is_quick() { 100 } else { 2_000 }, false);
}

fn run(tool: &Tool, nginx: &Nginx, gets: u64, is_required: bool) {
    let target = nginx.target(Size::Tiny);
    for candidate in CANDIDATES {
        let counts = count(tool, candidate, gets, &target)
            .and_then(|few| Ok([few, count(tool, candidate, 2 * gets, &target)?]));
        let [few, many] = match counts {
            Ok(counts) => counts,
            Err(reason) => {
                assert!(!is_required, "{reason}");
                note(format_args!("{} skipped: {reason}", tool.figure));
                return;
            }
        };
        let goal = candidate.goal(tool.target);
        result(
            &candidate.figure(tool.figure, ""),
            format_args!("{:.*}", tool.digits, many.saturating_sub(few) as f64 / gets as f64),
            tool.unit,
            format_args!(
                "threads=1 body={} B; {}; under {}, all threads of the process: {few} with {gets} \
                 GETs, {many} with {}; {goal}",
                target.bytes,
                (candidate.settings)(),
                tool.program,
                2 * gets,
            ),
        );
    }
}

/// What a tool counts of a child that makes so many GETs.
fn count(tool: &Tool, candidate: Candidate, gets: u64, target: &Target) -> Result<u64, String> {
    let program = env::current_exe().map_err(|error| error.to_string())?;
    let mut command = Command::new(tool.program);
    command.args(tool.arguments).arg(program);
    let (address, path) = (target.address, target.path);
    command.env(CHILD, format!("{} {gets} {address} {path} {}", candidate.name, target.bytes));
    let output = command.output();
    let output = output.map_err(|error| format!("{} cannot be run: {error}", tool.program))?;
    let text = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("{} failed: {}", tool.program, text.trim()));
    }
    (tool.find)(&text).ok_or_else(|| format!("no count in what it printed: {}", text.trim()))
}

/// What this process is to do, if it is the child.
pub(crate) fn asked_of_child() -> Option<String> {
    env::var(CHILD).ok()
}

pub(crate) fn run_child(order: &str) -> Result<(), BoxError> {
    let [name, gets, address, path, bytes] = Vec::from_iter(order.split(' '))
        .try_into()
        .map_err(|_| format!("not an order: {order}"))?;
    let candidate = CANDIDATES.iter().find(|candidate| candidate.name == name);
    let path = Size::ALL.map(Size::path).into_iter().find(|known| *known == path);
    let target = Target::get(address.parse()?, path.ok_or("no such path")?, bytes.parse()?);
    let visitor = (candidate.ok_or("no such candidate")?.open)(1);
    let mut visit = visitor.visits(&target);
    (0..gets.parse::<u64>()?).try_for_each(|_| visit())
}

pub(crate) fn allocations(nginx: &Nginx) {
    let gets = if is_quick() { 1_000 } else { 3_000 };
    let target = nginx.target(Size::Tiny);
    for candidate in CANDIDATES {
        let visitor = (candidate.open)(1);
        let mut visit = visitor.visits(&target);
        let mut count = |gets: u64| {
            ALLOCATOR.begin();
            let before = ALLOCATOR.count();
            let outcome = (0..gets).try_for_each(|_| visit());
            let count = ALLOCATOR.count() - before;
            ALLOCATOR.end();
            outcome.map(|()| count).expect("the server is up")
        };
        count(gets / 10);
        let [few, many] = [count(gets), count(2 * gets)];
        let goal = candidate.goal("target <= 22");
        result(
            &candidate.figure("http_allocs_per_get", ""),
            format_args!("{:.2}", many.saturating_sub(few) as f64 / gets as f64),
            "allocations per GET",
            format_args!(
                "threads=1 body={} B; {}; allocations and reallocations of the process: {few} in \
                 {gets} GETs, {many} in {}; {goal}",
                Size::Tiny.bytes(),
                (candidate.settings)(),
                2 * gets,
            ),
        );
    }
}
