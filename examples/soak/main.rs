//! What becomes of the pool in a day of mishaps? Many threads do everything that can be done with
//! two pools, while their servers, which are processes of their own, misbehave in every way: they
//! hang up, reset, keep silent, say what nobody asked for, refuse, are killed, are stopped. What
//! must always hold is watched all the time, and at the end nothing may be left behind.
//!
//! ```text
//! cargo run --release --example soak [--seconds 600] [--threads 64] [--endpoints 20] [--seed N]
//! ```
//!
//! A line a second says how things are. The exit code is 1 if anything leaked or an invariant
//! broke, and 2 if it could not be found out. With the same seed the servers have the same plans,
//! and so do the threads; what the machine makes of them differs each time.
//!
//! Meant for Linux: elsewhere descriptors, threads and memory are not counted, and without signals
//! servers are killed but not stopped.
#![expect(clippy::print_stdout, reason = "an example reports to its user")]
#![expect(clippy::disallowed_methods, reason = "it measures time, and things take their time")]

mod board;
mod children;
mod faults;
mod figures;
mod greeted;
mod monitor;
mod names;
mod protocol;
mod random;
mod server;
mod site;
mod soak;
mod worker;

use std::error::Error;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

type Failure = Box<dyn Error + Send + Sync>;

/// Of clients; a late answer comes later than this.
const READ_TIMEOUT: Duration = Duration::from_millis(200);

fn main() -> ExitCode {
    env_logger::init();
    let done = match Task::read(std::env::args().skip(1)) {
        Ok(Task::Soak(options)) => soak::run(&options),
        Ok(Task::Serve { ports, seed }) => server::serve(&ports, seed).map(|()| true),
        Err(error) => Err(error),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("soak: {error}");
            ExitCode::from(2)
        }
    }
}

/// What the arguments ask for.
enum Task {
    Soak(Options),
    /// To be one of its own servers.
    Serve {
        ports: Vec<u16>,
        seed: u64,
    },
}

struct Options {
    time: Duration,
    threads: usize,
    endpoints: usize,
    seed: u64,
}

impl Task {
    fn read(mut arguments: impl Iterator<Item = String>) -> Result<Self, Failure> {
        let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_nanos() as u64;
        let mut options = Options {
            time: Duration::from_secs(600),
            threads: 64,
            endpoints: 20,
            seed: clock % 1_000_000,
        };
        let mut ports = Vec::new();
        while let Some(name) = arguments.next() {
            let value = arguments.next().ok_or_else(|| format!("{name}: a value is missing"))?;
            let wrong = |error: &dyn Error| format!("{name} {value}: {error}");
            let number = || value.parse::<u64>().map_err(|error| wrong(&error));
            match &*name {
                "--seconds" => options.time = Duration::from_secs(number()?.max(1)),
                "--threads" => options.threads = number()?.clamp(1, 1_000) as usize,
                "--endpoints" => options.endpoints = number()?.clamp(2, 200) as usize,
                "--seed" => options.seed = number()?,
                "--server" => {
                    let parsed = value.split(',').map(str::parse).collect::<Result<_, _>>();
                    ports = parsed.map_err(|error: std::num::ParseIntError| wrong(&error))?;
                }
                _ => return Err(format!("{name}: there is no such option").into()),
            }
        }
        if ports.is_empty() {
            return Ok(Self::Soak(options));
        }
        Ok(Self::Serve { ports, seed: options.seed })
    }
}
