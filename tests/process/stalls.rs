//! A process that is stopped for a while, as by a debugger or a machine with too much to do, finds
//! its pool as it left it.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use log::{Level, LevelFilter, Log, Metadata, Record};
use parking_lot::Mutex;
use warmline::{CloseReason, ErrorKind};

use crate::alone;
use crate::support::server::Server;
use crate::support::{SOON, ask, assert_balanced, eventually, tcp, watchdog};

/// Stops this process, and has it woken after so long.
fn stall(seconds: u32) {
    let own = std::process::id();
    let script = format!("kill -STOP {own}; sleep {seconds}; kill -CONT {own}");
    let mut waker = Command::new("sh").args(["-c", &script]).spawn().unwrap();
    assert!(waker.wait().unwrap().success());
}

#[test]
fn a_process_that_was_stopped_for_seconds_closes_nothing_that_is_alive() {
    alone("stalls::a_process_that_was_stopped_for_seconds_closes_nothing_that_is_alive", || {
        let _watchdog = watchdog();
        let server = Server::echo();
        let builder = tcp().min_idle(3).idle_timeout(Duration::from_secs(60));
        let pool = builder.max_per_endpoint(4).build().unwrap();
        let endpoint = pool.endpoint(&server.name()).unwrap();
        eventually("three are ready", || endpoint.stats().idle() == 3);
        let mut held = endpoint.get().unwrap();
        eventually("three are ready beside it", || endpoint.stats().idle() == 3);
        stall(3);
        ask(&mut held).unwrap();
        drop(held);
        for _ in 0..10 {
            ask(&mut endpoint.get().unwrap()).unwrap();
        }
        let stats = endpoint.stats();
        assert_eq!((stats.opened(), stats.closed(), stats.connects_failed()), (4, 0, 0), "{stats}");
        server.assert_accepted(4);
    });
}

#[test]
fn whose_time_is_over_when_a_stopped_process_goes_on_is_told_so_and_others_are_served() {
    alone(
        "stalls::whose_time_is_over_when_a_stopped_process_goes_on_is_told_so_and_others_are_served",
        || {
            let _watchdog = watchdog();
            let server = Server::echo();
            let pool = tcp().max_per_endpoint(1).build().unwrap();
            let endpoint = pool.endpoint(&server.name()).unwrap();
            let held = endpoint.get().unwrap();
            std::thread::scope(|scope| {
                let hasty = scope.spawn(|| endpoint.get_timeout(Duration::from_secs(1)).map(drop));
                eventually("it waits", || endpoint.stats().waiting() == 1);
                let patient = scope.spawn(|| ask(&mut endpoint.get_timeout(SOON)?));
                eventually("so does another", || endpoint.stats().waiting() == 2);
                stall(3);
                assert_eq!(hasty.join().unwrap().unwrap_err().kind(), ErrorKind::Timeout);
                drop(held);
                patient.join().unwrap().unwrap();
            });
            assert_eq!((endpoint.stats().timed_out(), server.accepted()), (1, 1));
            assert_balanced(&endpoint.stats());
        },
    );
}

#[test]
fn what_died_while_its_process_was_stopped_is_gone_before_anybody_meets_it() {
    alone(
        "stalls::what_died_while_its_process_was_stopped_is_gone_before_anybody_meets_it",
        || {
            let _watchdog = watchdog();
            let server = Server::echo();
            let endpoint = tcp().build().unwrap().endpoint(&server.name()).unwrap();
            assert_eq!(endpoint.warm(5, SOON).unwrap(), 5);
            server.assert_accepted(5);
            server.hang_up();
            stall(1);
            eventually("all are closed", || endpoint.stats().idle() == 0);
            assert_eq!(endpoint.stats().closed_for(CloseReason::PeerClosed), 5);
            ask(&mut endpoint.get().unwrap()).unwrap();
        },
    );
}

/// Remembers what is logged as a warning.
#[derive(Clone, Default)]
struct Warnings(Arc<Mutex<Vec<String>>>);

impl Log for Warnings {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("warmline")
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) && record.level() == Level::Warn {
            self.0.lock().push(record.args().to_string());
        }
    }

    fn flush(&self) {}
}

#[test]
fn a_reaper_that_had_to_wait_for_seconds_to_run_says_so_in_the_log() {
    alone("stalls::a_reaper_that_had_to_wait_for_seconds_to_run_says_so_in_the_log", || {
        let _watchdog = watchdog();
        let warnings = Warnings::default();
        log::set_boxed_logger(Box::new(warnings.clone())).unwrap();
        log::set_max_level(LevelFilter::Warn);
        let server = Server::echo();
        let builder = tcp().idle_timeout(Duration::from_secs(4));
        let endpoint = builder.build().unwrap().endpoint(&server.name()).unwrap();
        ask(&mut endpoint.get().unwrap()).unwrap();
        assert_eq!(*warnings.0.lock(), [""; 0], "no harm has come yet");
        stall(10); // long enough for a machine that is slow to get here
        eventually("it says so", || !warnings.0.lock().is_empty());
        eventually("what is idle for too long is closed", || endpoint.stats().idle() == 0);
        assert_eq!(warnings.0.lock().len(), 1, "once: {:?}", warnings.0.lock());
        ask(&mut endpoint.get().unwrap()).unwrap();
    });
}
