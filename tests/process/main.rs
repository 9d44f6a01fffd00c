//! What counts descriptors, threads or limits of a process: each test runs in a child of its own,
//! where nothing else happens.
#![expect(clippy::unwrap_used, clippy::panic, reason = "these are tests")]
#![expect(clippy::disallowed_methods, reason = "tests start threads, wait and read the time")]

mod dead_networks;
mod descriptors;
mod farewells;
mod forks;
mod logs;
mod memory;
mod names;
mod network;
mod ports;
mod shortages;
mod sizes;
mod stalls;
#[expect(dead_code, unused_imports, reason = "shared with the other test binary")]
#[path = "../it/support/mod.rs"]
mod support;
mod threads;
mod watches;

use std::process::{Command, Output};

/// Says which test a child is to run.
const CHILD: &str = "WARMLINE_TEST_ALONE";

/// Runs `body` in a process of its own: this very program, told to run the test `name` alone.
fn alone(name: &str, body: impl FnOnce()) {
    if is_child(name) {
        body();
        return;
    }
    let program = std::env::current_exe().unwrap();
    let output = run_child(&mut Command::new(program), name);
    assert_passed(&output);
}

fn is_child(name: &str) -> bool {
    std::env::var(CHILD).is_ok_and(|child| child == name)
}

fn run_child(command: &mut Command, name: &str) -> Output {
    // On one thread: the test's own, so that no other of the harness comes and goes. Who runs this
    // has decided already whether the ignored ones are.
    let command = command.args(["--exact", name, "--include-ignored", "--nocapture"]);
    command.arg("--test-threads=1").env(CHILD, name).output().unwrap()
}

#[track_caller]
fn assert_passed(output: &Output) {
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the child failed:\n{text}\n{errors}");
    assert!(text.contains("1 passed"), "the child ran another test, or none:\n{text}");
}
