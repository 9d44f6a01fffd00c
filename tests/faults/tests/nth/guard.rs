//! Ends a process in which something went wrong that no assertion sees, and says in which run.

use std::any::Any;
use std::panic::PanicHookInfo;
use std::process::exit;
use std::sync::OnceLock;
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, Sender, unbounded};
use log::{Level, LevelFilter, Metadata, Record};
use parking_lot::Mutex;

use crate::faults::{self, Call, Told, exempt};
use crate::support::say;

/// What no run takes, on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(60);

/// Which run it is.
static RUN: Mutex<String> = Mutex::new(String::new());
static BEATS: OnceLock<Sender<()>> = OnceLock::new();

/// From now on a panic that nobody told to, an error in the log and a run that hangs each end the
/// process.
pub(crate) fn stand(call: Call) {
    std::panic::set_hook(Box::new(panicked));
    log::set_boxed_logger(Box::new(Log(call))).expect("no other logger");
    log::set_max_level(LevelFilter::Error);
    let (beats, heard) = unbounded();
    BEATS.set(beats).expect("one case in one process");
    let watch = move || {
        while heard.recv_timeout(PATIENCE) != Err(RecvTimeoutError::Timeout) {}
        end("a run hangs");
    };
    exempt(|| std::thread::spawn(watch));
}

pub(crate) fn begin(run: String) {
    *RUN.lock() = run;
    let _nobody_listens = BEATS.get().map(|beats| beats.send(()));
}

fn panicked(info: &PanicHookInfo<'_>) {
    let payload: &(dyn Any + Send) = info.payload();
    if !payload.is::<Told>() {
        end(&info.to_string());
    }
}

fn end(what: &str) -> ! {
    faults::disarm();
    let run = RUN.try_lock().map(|run| run.clone()).unwrap_or_default();
    say(&format!("{run}: {what}\nthe process ends here"));
    exit(101);
}

/// Takes errors for what they are: bugs, unless a connector was told to panic.
struct Log(Call);

impl log::Log for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() == Level::Error
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) && !self.0.panics() {
            end(&format!("logged: {}", record.args()));
        }
    }

    fn flush(&self) {}
}
