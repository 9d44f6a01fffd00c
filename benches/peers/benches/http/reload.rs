//! The server reads its settings again while threads GET: its old worker closes what is idle, and
//! some of that is just being used.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use peers::{is_quick, result};

use crate::client::{Candidate, Reqwest, Ureq, Visit};
use crate::nginx::Nginx;
use crate::ours::Warmline;
use crate::target::Size;

const THREADS: usize = 8;
/// All is calm for so long before each reload, and after the last.
const CALM: Duration = Duration::from_millis(300);

const CANDIDATES: [Candidate; 3] =
    [Candidate::of::<Warmline>(), Candidate::of::<Ureq>(), Candidate::of::<Reqwest>()];

/// What a thread saw.
#[derive(Default)]
struct Seen {
    gets: u64,
    failed: u64,
    example: Option<String>,
}

/// Ends the threads' work when it is dropped, by a panic too: they would go on for ever.
struct Over<'s>(&'s AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn keep_asking(mut visit: Visit<'_>, is_over: &AtomicBool) -> Seen {
    let mut seen = Seen::default();
    while !is_over.load(Ordering::SeqCst) {
        seen.gets += 1;
        if let Err(error) = visit() {
            seen.failed += 1;
            seen.example.get_or_insert_with(|| error.to_string());
        }
    }
    seen
}

pub(crate) fn run(nginx: &mut Nginx) {
    let reloads = if is_quick() { 2 } else { 9 };
    let target = nginx.target(Size::Tiny);
    for candidate in CANDIDATES {
        let visitor = (candidate.open)(THREADS);
        let is_over = AtomicBool::new(false);
        let seen = thread::scope(|scope| {
            let over = Over(&is_over);
            let ask = || keep_asking(visitor.visits(&target), &is_over);
            let threads = Vec::from_iter((0..THREADS).map(|_| scope.spawn(ask)));
            for _ in 0..reloads {
                thread::sleep(CALM);
                nginx.reload();
            }
            thread::sleep(CALM);
            drop(over);
            let seen = threads.into_iter().map(|thread| thread.join().expect("no panics"));
            seen.reduce(|all, one| Seen {
                gets: all.gets + one.gets,
                failed: all.failed + one.failed,
                example: all.example.or(one.example),
            })
        });
        let seen = seen.unwrap_or_default();
        let example = seen.example.map_or(String::new(), |text| format!(", \"{text}\" say"));
        let goal = candidate.goal("target 0");
        result(
            &candidate.figure("reload_failed_gets", ""),
            seen.failed,
            "GETs",
            format_args!(
                "threads={THREADS} body={} B; {}; of {} GETs during {reloads} reloads of nginx, \
                 {CALM:?} apart; {goal}{example}",
                target.bytes,
                (candidate.settings)(),
                seen.gets,
            ),
        );
    }
}
