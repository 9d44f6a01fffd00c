//! The Nth call of a kind fails, for every N: once, ever after, and to the end. On real sockets.
//!
//! Each case is a kind of call and a sort of connections, and runs in a process of its own: this
//! very program. `cargo test -p warmline-faults -- tcp/connect` runs the cases of that name;
//! `WARMLINE_FAULTS_SEED` puts the work in another order.
#![cfg_attr(
    all(target_os = "linux", target_env = "gnu"),
    expect(clippy::disallowed_methods, reason = "tests start threads, wait and read the time")
)]

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod cases;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod connectors;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod faults;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod guard;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod interpose;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod parent;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(dead_code, unused_imports, unused_macros, reason = "shared with the library's own tests")]
#[path = "../../../it/support/mod.rs"]
mod support;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod work;

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn main() -> std::process::ExitCode {
    parent::main()
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn main() {
    eprintln!("skipped: the system's calls are made to fail on Linux with glibc only");
}
