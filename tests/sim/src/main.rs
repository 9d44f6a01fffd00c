//! Plays seeds, and makes those that fail small.
//!
//! ```text
//! cargo run --profile simulation -- [--seeds 2000] [--first 1] [--jobs N]
//! cargo run --profile simulation -- --seed 4711 [--shrink]
//! ```

#[cfg(not(warmline_sim))]
fn main() {
    eprintln!("built for an operating system: run cargo in tests/sim");
    std::process::exit(2);
}

#[cfg(warmline_sim)]
fn main() -> std::process::ExitCode {
    cli::main()
}

#[cfg(warmline_sim)]
mod cli {
    use std::process::ExitCode;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::thread;
    use std::time::Instant;

    use parking_lot::Mutex;
    use simulation::run::{Failed, Tally, play_all, play_one};
    use simulation::script::Script;
    use simulation::shrink::shrink_failing;

    #[derive(Clone, Debug)]
    struct Options {
        seeds: u64,
        first: u64,
        jobs: usize,
        seed: Option<u64>,
        shrinks: bool,
    }

    impl Options {
        fn read() -> Result<Self, String> {
            let jobs = thread::available_parallelism().map_or(1, |jobs| jobs.get());
            let mut options = Self { seeds: 2_000, first: 1, jobs, seed: None, shrinks: false };
            let mut words = std::env::args().skip(1);
            while let Some(word) = words.next() {
                if word == "--shrink" {
                    options.shrinks = true;
                    continue;
                }
                let value = words.next().ok_or_else(|| format!("{word} needs a number"))?;
                let number: u64 =
                    value.parse().map_err(|_| format!("{word} {value}: no number"))?;
                match word.as_str() {
                    "--seeds" => options.seeds = number,
                    "--first" => options.first = number,
                    "--jobs" => options.jobs = number.max(1) as usize,
                    "--seed" => options.seed = Some(number),
                    _ => return Err(format!("{word}: there is no such option")),
                }
            }
            Ok(options)
        }
    }

    pub(crate) fn main() -> ExitCode {
        let options = match Options::read() {
            Ok(options) => options,
            Err(error) => {
                eprintln!("{error}");
                return ExitCode::from(2);
            }
        };
        match options.seed {
            Some(seed) => replay(seed, options.shrinks),
            None => play_many(&options),
        }
    }

    #[expect(clippy::disallowed_methods, reason = "how long it takes, outside of all simulations")]
    fn play_many(options: &Options) -> ExitCode {
        let began = Instant::now();
        let tally = Arc::<Tally>::default();
        let next = Arc::new(AtomicU64::new(options.first));
        let end = options.first.saturating_add(options.seeds);
        let failed = Arc::new(Mutex::new(Vec::<Box<Failed>>::new()));
        thread::scope(|scope| {
            for _ in 0..options.jobs {
                scope.spawn(|| {
                    let scripts = || {
                        let (next, failed) = (Arc::clone(&next), Arc::clone(&failed));
                        move || {
                            if failed.lock().len() >= 10 {
                                return None;
                            }
                            let seed = next.fetch_add(1, Ordering::Relaxed);
                            (seed < end).then(|| Script::of(seed))
                        }
                    };
                    while let Err(one) = play_all(scripts(), &tally, false) {
                        eprintln!("seed {} failed: {}", one.script.seed, first_line(&one));
                        failed.lock().push(one);
                    }
                });
            }
        });
        let failed = std::mem::take(&mut *failed.lock());
        let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
        let tried = next.load(Ordering::Relaxed).min(end) - options.first;
        println!("result: sim_seeds {tried} seeds");
        println!("result: sim_violations {} seeds", failed.len());
        println!("result: sim_checkouts {} checkouts", count(&tally.checkouts));
        println!("result: sim_faults {} faults", count(&tally.faults));
        println!("result: sim_errors {} errors", count(&tally.errors));
        println!("result: sim_connections {} connections", count(&tally.connected));
        println!("result: sim_virtual_time {} s", count(&tally.millis) / 1_000);
        println!("result: sim_time {:.1} s", began.elapsed().as_secs_f64());
        let (first, jobs) = (options.first, options.jobs);
        println!("config: from seed {first} on, {jobs} at a time");
        let Some(first) = failed.iter().min_by_key(|failed| failed.script.seed) else {
            return ExitCode::SUCCESS;
        };
        if replay(first.script.seed, true) == ExitCode::SUCCESS {
            println!(
                "it did not fail again, so it depends on more than its seed: {}",
                first_line(first)
            );
        }
        ExitCode::FAILURE
    }

    fn first_line(failed: &Failed) -> &str {
        failed.failure.why.first().map_or("no reason was given", |why| why.as_str())
    }

    /// Plays one seed, and says all there is to say of it.
    fn replay(seed: u64, shrinks: bool) -> ExitCode {
        let script = Script::of(seed);
        let Some(failed) = play_one(&script, true) else {
            println!("seed {seed}: all was well");
            return ExitCode::SUCCESS;
        };
        let smallest = if shrinks {
            let (smallest, tries) = shrink_failing(&script);
            println!("smallest of {tries} tried");
            smallest
        } else {
            script
        };
        let failed = play_one(&smallest, true).unwrap_or(failed);
        println!("{smallest:#?}");
        failed.failure.lines.iter().for_each(|line| println!("{line}"));
        failed.failure.why.iter().for_each(|why| println!("violation: {why}"));
        println!("again: cargo run --profile simulation -- --seed {seed} --shrink");
        ExitCode::FAILURE
    }
}
