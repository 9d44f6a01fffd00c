//! The run from beginning to end, and what is found.

use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle, sleep};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use warmline::{Address, Connector, Deadline, PooledConn};

use crate::board::{Board, eventually};
use crate::children::{Port, Servers};
use crate::faults::Counts;
use crate::figures::Belongings;
use crate::greeted::Line;
use crate::monitor::Monitor;
use crate::names::Names;
use crate::protocol::{ASK, ask};
use crate::site::{Service, World, is_balanced};
use crate::worker::{Post, Tally, Worker};
use crate::{Failure, Options};

/// What memory may grow by after the warm-up.
const GROWTH_KIB: u64 = 16 * 1024;
/// Before, what the threads have in their allocator still grows.
const SHORTEST_WARM_UP: Duration = Duration::from_secs(5);
/// How long everybody may take to end, and the pools to heal.
const SOON: Duration = Duration::from_secs(20);
/// Peace, before the pools must have healed.
const CALM: Duration = Duration::from_secs(4);

/// True if nothing was found.
pub(crate) fn run(options: &Options) -> Result<bool, Failure> {
    let mut servers = Servers::start(options.endpoints, options.seed)?;
    let config = format!(
        "seed {}, {} s, {} threads, {} endpoints in {} processes, 2 pools, 1 driver",
        options.seed,
        options.time.as_secs(),
        options.threads,
        options.endpoints,
        servers.count(),
    );
    println!("config: {config}");
    let before = Belongings::count();
    println!("before the pools: {before}");

    let board = Arc::new(Board::new(options.seed));
    let dead = Port::reserve()?;
    let names = Names::new(&servers.addresses(), dead.address, &board);
    let world = World::new(options, &servers.addresses(), &names.resolver(), &board)?;
    let world = Arc::new(world);
    let crowd = Crowd::start(options, &world, &servers)?;
    servers.trouble_until(board.began + options.time, &board)?;
    let end = Belongings::count();
    board.is_over.store(true, Ordering::SeqCst);
    let took = board.began.elapsed();
    let Some((tally, monitor)) = crowd.end(&board) else {
        return Ok(false); // whoever hangs is left behind
    };
    servers.calm()?;
    sleep(CALM);
    heal(&world.plain, &board);
    heal(&world.greeted, &board);
    finish(&world, &tally, &board);
    drop((world, dead));
    let after = settle_belongings(&before, &board);
    let ledger = servers.ledger();
    board.check(eventually(SOON, || ledger.open() == 0), || {
        format!("the servers still have {} connections", ledger.open())
    });
    let mut faults = ledger.faults();
    faults.add(&board.faults.counts());
    board.check(servers.end()?, || "a server ended by itself".into());

    print_tally(&tally, &faults, took);
    println!("before the pools: {before}");
    let warm = monitor.warm.lock().unwrap_or_default();
    print_memory(&warm, &end, options, &board);
    println!("after the pools: {after}");
    if board.broken() > 0 {
        println!("invariants were broken {} times: see BROKEN above", board.broken());
    }
    let leaked = after.descriptors_beyond(&before);
    let result = |name: &str, value: &dyn Display| println!("result: soak_{name} {value}");
    result("faults", &faults.total());
    result("leaked_fds", &leaked.map_or_else(|| "unknown".to_owned(), |leaked| leaked.to_string()));
    result("exchanges", &tally.exchanges.count());
    result("p99_us", &tally.checkouts.per_mille(990).as_micros());
    result("cross_talk", &board.cross_talk());
    result("invariants_broken", &board.broken());
    println!("config: {config}");
    Ok(board.broken() == 0)
}

/// Those who work, and who watches them.
struct Crowd {
    workers: Vec<JoinHandle<Tally>>,
    monitor: Arc<Monitor>,
    watching: JoinHandle<()>,
}

impl Crowd {
    fn start(options: &Options, world: &Arc<World>, servers: &Servers) -> Result<Self, Failure> {
        let posts: Vec<_> = (0..options.threads).map(|_| Arc::new(Post::default())).collect();
        let start = |(number, post): (usize, &Arc<Post>)| {
            let worker = Worker::new(number, Arc::clone(world), Arc::clone(post));
            Builder::new().name(format!("worker {number}")).spawn(|| worker.work())
        };
        let workers = posts.iter().enumerate().map(start).collect::<Result<Vec<_>, _>>()?;
        let monitor = Arc::new(Monitor {
            board: Arc::clone(&world.board),
            posts,
            ledger: servers.ledger(),
            warm: Mutex::default(),
            is_stopping: AtomicBool::new(false),
        });
        let watching = Builder::new().name("monitor".into()).spawn({
            let (monitor, world) = (Arc::clone(&monitor), Arc::clone(world));
            let warm_up = (options.time / 10).max(SHORTEST_WARM_UP);
            move || monitor.work(&world, warm_up)
        })?;
        Ok(Self { workers, monitor, watching })
    }

    /// What all of them did; nothing, if one does not come to an end.
    fn end(self, board: &Board) -> Option<(Tally, Arc<Monitor>)> {
        let mut tally = Tally::default();
        let are_all_done = || self.workers.iter().all(JoinHandle::is_finished);
        if !eventually(SOON, are_all_done) {
            let left = self.workers.iter().filter(|worker| !worker.is_finished());
            board.note_broken(&format!("{} workers do not end", left.count()));
            return None;
        }
        for worker in self.workers {
            match worker.join() {
                Ok(its) => tally.add(&its),
                Err(_) => board.note_broken("a worker panicked"),
            }
        }
        self.monitor.is_stopping.store(true, Ordering::SeqCst);
        board.check(self.watching.join().is_ok(), || "the monitor panicked".into());
        Some((tally, self.monitor))
    }
}

/// Now that the servers are at peace, each endpoint serves again; and where one connection is to be
/// kept ready, it comes without anybody asking.
fn heal<C>(service: &Service<C>, board: &Board)
where
    C: Connector<Key = Address>,
    C::Conn: Line,
{
    let (mut failures, began) = (0, Instant::now());
    for (number, site) in service.sites.iter().enumerate() {
        let tag = (1 << 59) + number as u64;
        let is_served = eventually(SOON, || {
            let served = site.endpoint.get().is_ok_and(|mut conn| {
                let answered = ask(conn.socket(), ASK, tag, 32);
                if answered.is_err() {
                    PooledConn::discard(conn);
                }
                answered.is_ok()
            });
            failures += u32::from(!served);
            served
        });
        board.check(is_served, || format!("{}: does not serve again", site.text));
    }
    println!(
        "{}: all endpoints serve again, after {failures} failures and {:.1?}",
        service.name,
        began.elapsed()
    );
    service.pool.evict_all();
    for site in &service.sites {
        if let Err(error) = site.keep_one_idle() {
            board.note_broken(&format!("{}: cannot keep one ready: {error}", site.text));
        }
    }
    for site in &service.sites {
        board.check(eventually(SOON, || site.endpoint.stats().idle() > 0), || {
            format!("{}: none is kept ready: {}", site.text, site.endpoint.stats())
        });
    }
}

/// Ends the pools: what was opened has been closed or detached, and nothing is left.
fn finish(world: &Arc<World>, tally: &Tally, board: &Board) {
    finish_one(&world.plain, board);
    finish_one(&world.greeted, board);
    let (plain, greeted) = (world.plain.pool.stats(), world.greeted.pool.stats());
    let detached = plain.detached() + greeted.detached();
    board.check(detached == tally.detached, || {
        format!("{detached} were detached by the pools' count, {} by ours", tally.detached)
    });
    board.check(Arc::strong_count(world) == 1, || "somebody still has the pools".into());
}

fn finish_one<C: Connector<Key = Address>>(service: &Service<C>, board: &Board) {
    let name = service.name;
    if let Err(error) = service.pool.drain(Deadline::after(SOON)) {
        board.note_broken(&format!("{name}: {error}"));
    }
    let stats = service.watch(board);
    println!("{name}, drained: {stats}");
    board.check(is_balanced(&stats) && stats.total() + stats.waiting() == 0, || {
        format!("{name}: not all is home: {stats}")
    });
    let is_told = eventually(SOON, || service.is_all_told());
    board.check(is_told, || format!("{name}: the observer was told something else: {stats}"));
}

/// Once the pools are gone, so is all they had.
fn settle_belongings(before: &Belongings, board: &Board) -> Belongings {
    let mut after = Belongings::count();
    let is_settled = eventually(SOON, || {
        after = Belongings::count();
        let beyond = [after.descriptors_beyond(before), after.threads_beyond(before)];
        beyond.into_iter().flatten().sum::<u64>() == 0
    });
    board.check(is_settled, || format!("before the pools: {before}, after them: {after}"));
    after
}

fn print_tally(tally: &Tally, faults: &Counts, took: Duration) {
    let count = tally.exchanges.count();
    println!("\n{:.0} exchanges/s over {took:.1?}", count as f64 / took.as_secs_f64());
    println!("checkout: {}", tally.checkouts);
    println!("exchange: {}", tally.exchanges);
    println!(
        "also: {} detached, {} cancelled requests, {} panics, {} times warmed, {} evicted, \
         {} times other limits",
        tally.detached,
        tally.cancelled,
        tally.panics,
        tally.warmed,
        tally.evictions,
        tally.limits_set
    );
    println!("\nfaults, {} in all:", faults.total());
    for (fault, count) in faults.each() {
        println!("{count:>9}  {}", fault.words());
    }
    println!("\nerrors, {} in all:", tally.errors.values().sum::<u64>());
    for (kind, count) in &tally.errors {
        println!("{count:>9}  {kind}");
    }
    println!();
}

fn print_memory(warm: &Belongings, end: &Belongings, options: &Options, board: &Board) {
    let (Some(memory), Some(at_end)) = (warm.memory_kib, end.memory_kib) else {
        let why = if end.memory_kib.is_some() { "too short a run" } else { "not told here" };
        println!("at the end of the load: {end}; what memory has grown by is not known: {why}");
        return;
    };
    println!("after the warm-up: {warm}");
    println!("at the end of the load: {end}");
    let grown = at_end.saturating_sub(memory);
    println!("memory has grown by {grown} KiB since the warm-up, of {GROWTH_KIB} that it may");
    board.check(grown <= GROWTH_KIB, || {
        format!("memory has grown by {grown} KiB in {:?}", options.time)
    });
}
