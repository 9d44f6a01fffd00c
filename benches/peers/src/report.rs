//! What a bench prints, and how it is told to do less.

use std::env;
use std::fmt::Display;

/// True if rounds should be few and short: asked for by `WARMLINE_BENCH_QUICK=1`, or not run by
/// `cargo bench` (as `cargo test --all-targets` does).
#[must_use]
pub fn is_quick() -> bool {
    let asked = env::var_os("WARMLINE_BENCH_QUICK").is_some_and(|value| value != "0");
    asked || !env::args().any(|argument| argument == "--bench")
}

/// True if the section `name` was asked for: `cargo bench … -- NAME`; without names, all are.
#[must_use]
pub fn is_wanted(name: &str) -> bool {
    let mut names = env::args().skip(1).filter(|argument| !argument.starts_with('-')).peekable();
    names.peek().is_none() || names.any(|wanted| wanted == name)
}

/// Prints a figure, and how it came about.
pub fn result(name: &str, value: impl Display, unit: &str, config: impl Display) {
    println!("result: {name} {value} {unit}");
    println!("config: {config}");
}

/// Prints why a figure is missing.
pub fn note(text: impl Display) {
    println!("note: {text}");
}

/// A dependency with the version that was built in, as `name X.Y.Z`.
///
/// `series` tells apart several that the lock file has: `0.12`, say; empty: any.
#[must_use]
pub fn version(name: &str, series: &str) -> String {
    const LOCK: &str = include_str!("../../../Cargo.lock");
    let head = format!("name = \"{name}\"\nversion = \"{series}");
    let rest = LOCK.split_once(&head).and_then(|(_, rest)| rest.split_once('"'));
    rest.map_or_else(|| format!("{name} ?"), |(rest, _)| format!("{name} {series}{rest}"))
}
