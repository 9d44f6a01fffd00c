//! Watches the invariants while everybody works, and says once a second how things are.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::board::Board;
use crate::children::Ledger;
use crate::figures::Belongings;
use crate::site::World;
use crate::worker::Post;

const LOOKS_EVERY: Duration = Duration::from_millis(100);

pub(crate) struct Monitor {
    pub(crate) board: Arc<Board>,
    pub(crate) posts: Vec<Arc<Post>>,
    pub(crate) ledger: Ledger,
    /// What the process had when all was warm.
    pub(crate) warm: Mutex<Option<Belongings>>,
    pub(crate) is_stopping: AtomicBool,
}

impl Monitor {
    /// Until it is told to stop; all is warm after `warm_up`.
    pub(crate) fn work(&self, world: &World, warm_up: Duration) {
        let (mut next, mut exchanges, mut said) = (Instant::now(), 0, Vec::new());
        while !self.is_stopping.load(Ordering::SeqCst) {
            let (plain, greeted) =
                (world.plain.watch(&self.board), world.greeted.watch(&self.board));
            self.watch_posts(&mut said);
            if Instant::now() >= next && !self.board.is_over() {
                next += Duration::from_secs(1);
                let before = exchanges;
                exchanges = self.board.exchanges.load(Ordering::Relaxed);
                let sum = |count: fn(&warmline::Stats) -> usize| count(&plain) + count(&greeted);
                let belongings = Belongings::count();
                println!(
                    "{:>4} s {:>6} exchanges/s  in use {:>2}, idle {:>2}, connecting {:>2}, \
                     checking {:>2}, waiting {:>2}  errors {}  faults {}  {belongings}",
                    self.board.began.elapsed().as_secs(),
                    exchanges - before,
                    sum(warmline::Stats::in_use),
                    sum(warmline::Stats::idle),
                    sum(warmline::Stats::connecting),
                    sum(warmline::Stats::checking),
                    sum(warmline::Stats::waiting),
                    self.board.errors.load(Ordering::Relaxed),
                    self.ledger.faults().total() + self.board.faults.counts().total(),
                );
                if self.board.began.elapsed() >= warm_up {
                    self.warm.lock().get_or_insert(belongings);
                }
            }
            sleep(LOOKS_EVERY);
        }
    }

    /// Says of each call once that it is overdue.
    fn watch_posts(&self, said: &mut Vec<(usize, Duration)>) {
        for (number, post) in self.posts.iter().enumerate() {
            if let Some((call, due)) = post.overdue(&self.board) {
                if !said.contains(&(number, due)) {
                    said.push((number, due));
                    self.board.note_broken(&format!(
                        "worker {number}: {call:?} was to have returned at {due:.1?}"
                    ));
                }
            }
        }
    }
}
