//! A second process: this program, started by itself, that obeys.

use std::env;
use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// Tells this program, started by itself, to obey.
const SERVE: &str = "--serve";

/// Another process. Orders go to it line by line, and each is answered by one line once it is done.
/// Its drop ends it.
#[derive(Debug)]
pub struct Obedient {
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Obedient {
    /// # Panics
    ///
    /// If there can be no other process.
    #[must_use]
    pub fn start() -> Self {
        let program = env::current_exe().expect("a program has a path");
        let mut command = Command::new(program);
        command.arg(SERVE).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("a second process");
        let orders = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().expect("it is piped"));
        Self { child, orders, answers }
    }

    /// True in the process that is to obey.
    #[must_use]
    pub fn is_here() -> bool {
        env::args().any(|argument| argument == SERVE)
    }

    /// # Panics
    ///
    /// If it has ended.
    pub fn order(&mut self, order: &str) {
        let orders = self.orders.as_mut().expect("it is there until the drop");
        // In one piece, so that it is woken once.
        orders.write_all(format!("{order}\n").as_bytes()).expect("it listens");
    }

    /// What it says once it has done what was ordered.
    ///
    /// # Panics
    ///
    /// If it has ended.
    pub fn answer(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("it answers");
        assert!(!line.is_empty(), "it has ended");
        line.trim().to_owned()
    }
}

impl Drop for Obedient {
    fn drop(&mut self) {
        drop(self.orders.take());
        // It may be waiting for something that will not come.
        let _ended_before = self.child.kill();
        let _ended = self.child.wait();
    }
}

/// Obeys until there are no more orders.
///
/// # Errors
///
/// What an order came to, or that nobody hears.
pub fn obey_all(mut obey: impl FnMut(&str) -> io::Result<String>) -> io::Result<()> {
    for order in io::stdin().lines() {
        let answer = obey(&order?)?;
        writeln!(io::stdout(), "{answer}")?;
    }
    Ok(())
}
