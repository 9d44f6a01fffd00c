//! A pool whose settings are in a file, and follow it while the program runs.
//!
//! ```text
//! cargo run --example reconfigure --features serde [file]
//! ```
//!
//! Without a file it writes one itself, changes it a few times, twice to what makes no sense, and
//! ends after three seconds. With one it follows that until it is interrupted. A file that cannot
//! be read or makes no sense changes nothing: the settings of before stay in force.
#![expect(clippy::print_stdout, reason = "an example reports to its user")]
#![expect(clippy::disallowed_methods, reason = "it starts threads, and waits")]

use std::error::Error;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use warmline::{CloseReason, Config, Endpoint, Pool, TcpConnector};

type Failure = Box<dyn Error + Send + Sync>;

/// Threads that use the pool.
const USERS: usize = 8;
/// How often the file is looked at.
const PERIOD: Duration = Duration::from_millis(100);

/// What the file says, one after the other, and for how long.
const FILES: &[&str] = &[
    "# one for two of us\nmax_per_endpoint = 4\ncheckout_timeout = \"2s\"\n",
    "# one for each of us\nmax_per_endpoint = 8\ncheckout_timeout = \"2s\"\n",
    "# a slip\nmax_per_endpoint = 8\ncheckout_timout = \"2s\"\n",
    "# another\nmax_per_endpoint = 8\ncheckout_timeout = \"2\"\n",
    "# a contradiction\nmax_total = 2\nmax_per_endpoint = 8\n",
    "# few, and none for long\nmax_total = 2\nmax_lifetime = \"10m\"\nmax_uses = \"off\"\n",
];
const EACH: Duration = Duration::from_millis(450);

fn main() -> Result<(), Failure> {
    env_logger::init();
    let pool = Pool::builder(TcpConnector::new()).name("reconfigure").build()?;
    let endpoint = pool.endpoint(&serve()?)?;
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..USERS {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    if let Err(error) = use_it(&endpoint) {
                        println!("a user fails: {error}");
                    }
                }
            });
        }
        let result = match std::env::args_os().nth(1) {
            Some(file) => follow(&pool, Path::new(&file), || false),
            None => show(&pool),
        };
        is_over.store(true, Ordering::Relaxed);
        result
    })?;
    println!("in the end: {}", pool.stats());
    Ok(())
}

/// Follows a file that somebody else writes meanwhile.
fn show(pool: &Pool<TcpConnector>) -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("pool.toml");
    let is_written = AtomicBool::new(false);
    thread::scope(|scope| {
        let writes = scope.spawn(|| {
            let written = FILES.iter().try_for_each(|text| {
                // Whole or not at all: nobody reads half a file.
                let new = folder.path().join("pool.toml.new");
                std::fs::write(&new, text)?;
                std::fs::rename(&new, &file)?;
                thread::sleep(EACH);
                io::Result::Ok(())
            });
            is_written.store(true, Ordering::Relaxed);
            written
        });
        follow(pool, &file, || is_written.load(Ordering::Relaxed))?;
        writes.join().map_err(|_| "the writer panicked")??;
        Ok(())
    })
}

/// Puts into force what a file says, whenever it has changed.
fn follow(
    pool: &Pool<TcpConnector>,
    file: &Path,
    is_over: impl Fn() -> bool,
) -> Result<(), Failure> {
    let mut seen: Option<(SystemTime, u64)> = None;
    while !is_over() {
        thread::sleep(PERIOD);
        // While it is replaced there may be none.
        let Ok(found) = std::fs::metadata(file) else { continue };
        let version = (found.modified()?, found.len());
        if seen.replace(version) == Some(version) {
            continue;
        }
        let before = counts(pool);
        match apply(pool, file) {
            Ok(()) => {
                thread::sleep(PERIOD); // some come back meanwhile
                println!("{:<52} {before}  ->  {}", setting(pool), counts(pool));
            }
            Err(error) => println!("refused, all is as it was: {}", error.to_string().trim_end()),
        }
    }
    Ok(())
}

fn apply(pool: &Pool<TcpConnector>, file: &Path) -> Result<(), Failure> {
    let config: Config = toml::from_str(&std::fs::read_to_string(file)?)?;
    pool.reconfigure(config)?;
    Ok(())
}

/// The settings in force, in one line, as they would be written.
fn setting(pool: &Pool<TcpConnector>) -> String {
    let text = toml::to_string(&pool.config()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("name")).collect();
    lines.join(", ")
}

fn counts(pool: &Pool<TcpConnector>) -> String {
    let stats = pool.stats();
    let surplus = stats.closed_for(CloseReason::Surplus);
    format!("{} open, {} waiting, {surplus} closed as surplus", stats.total(), stats.waiting())
}

/// A request and its answer, and some time to think about it.
fn use_it(endpoint: &Endpoint<TcpConnector>) -> Result<(), Failure> {
    let mut conn = endpoint.get()?;
    conn.write_all(b"hello")?;
    let mut answer = [0; 5];
    conn.read_exact(&mut answer)?;
    thread::sleep(Duration::from_millis(20));
    Ok(())
}

/// A server that says what it is told, for as long as the program runs.
fn serve() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || io::copy(&mut &stream, &mut &stream));
        }
    });
    Ok(address)
}
