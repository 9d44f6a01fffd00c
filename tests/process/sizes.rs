//! Many threads over many endpoints, for long: nothing grows, nothing is lost, everybody gets on.
#![expect(clippy::indexing_slicing, reason = "what is out of bounds fails the test")]

use std::collections::HashMap;
use std::io::{self, ErrorKind as IoKind, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};
use warmline::{Deadline, Endpoint, Error, ErrorKind, PooledConn, Repeat, Socket, TcpConnector};

use crate::support::{SOON, assert_balanced, assert_empty, eventually, say, tcp, watchdog};
use crate::{assert_passed, is_child, run_child};

const ENDPOINTS: usize = 20;
const THREADS: usize = 200;
/// At once; three of the ten threads at home at an endpoint can have one.
const MOST: usize = 60;
/// How often each server hangs up on everybody.
const HANGS_UP_EVERY: Duration = Duration::from_secs(2);
/// After each shift the threads end, and what the process has is counted. The first is the warm-up.
const LONGEST_SHIFT: Duration = Duration::from_secs(10);

/// What memory may grow by after the first shift. A minute opens 130,000 connections more, so that
/// 16 bytes left behind by each would show. It is 400 KiB, and no more than that in four minutes:
/// memory in pieces that the allocator does not give back.
const GROWTH_KIB: u64 = 2048;

/// Servers that send back what they receive, and hang up when they are told to. All on one thread:
/// what they have does not depend on how many connections there have been.
struct Servers {
    names: Vec<String>,
    board: Arc<Board>,
    thread: Option<JoinHandle<()>>,
}

struct Board {
    bell: Waker,
    is_stopping: AtomicBool,
    is_to_hang_up: [AtomicBool; ENDPOINTS],
    open: AtomicUsize,
}

impl Servers {
    fn start() -> Self {
        let poll = Poll::new().unwrap();
        let board = Arc::new(Board {
            bell: Waker::new(poll.registry(), BELL).unwrap(),
            is_stopping: AtomicBool::new(false),
            is_to_hang_up: Default::default(),
            open: AtomicUsize::new(0),
        });
        let listen = |at| {
            let mut listener = TcpListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
            poll.registry().register(&mut listener, Token(at), Interest::READABLE).unwrap();
            listener
        };
        let listeners: Vec<_> = (0..ENDPOINTS).map(listen).collect();
        let name = |listener: &TcpListener| listener.local_addr().unwrap().to_string();
        let names = listeners.iter().map(name).collect();
        let desk = Desk { poll, listeners, open: HashMap::new(), next: ENDPOINTS };
        let thread = std::thread::spawn({
            let board = Arc::clone(&board);
            move || desk.work(&board)
        });
        Self { names, board, thread: Some(thread) }
    }

    fn hang_up(&self, server: usize) {
        self.board.is_to_hang_up[server].store(true, Ordering::SeqCst);
        self.board.bell.wake().unwrap();
    }

    fn open(&self) -> usize {
        self.board.open.load(Ordering::SeqCst)
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.board.is_stopping.store(true, Ordering::SeqCst);
        self.board.bell.wake().unwrap();
        let _panicked = self.thread.take().map(JoinHandle::join);
    }
}

const BELL: Token = Token(usize::MAX);

/// What the servers' thread has: listeners under the first tokens, connections under later ones.
struct Desk {
    poll: Poll,
    listeners: Vec<TcpListener>,
    open: HashMap<usize, (usize, TcpStream)>,
    next: usize,
}

impl Desk {
    fn work(mut self, board: &Board) {
        let mut events = Events::with_capacity(256);
        while !board.is_stopping.load(Ordering::SeqCst) {
            self.poll.poll(&mut events, None).unwrap();
            for event in &events {
                match event.token() {
                    BELL => {}
                    Token(server) if server < ENDPOINTS => self.accept(server),
                    Token(number) => self.echo(number),
                }
            }
            for (server, flag) in board.is_to_hang_up.iter().enumerate() {
                if flag.swap(false, Ordering::SeqCst) {
                    self.open.retain(|_, (theirs, _)| *theirs != server);
                }
            }
            board.open.store(self.open.len(), Ordering::SeqCst);
        }
    }

    fn accept(&mut self, server: usize) {
        while let Ok((mut stream, _)) = self.listeners[server].accept() {
            self.next += 1;
            let token = Token(self.next);
            self.poll.registry().register(&mut stream, token, Interest::READABLE).unwrap();
            self.open.insert(self.next, (server, stream));
        }
    }

    fn echo(&mut self, number: usize) {
        let Some((_, stream)) = self.open.get_mut(&number) else { return };
        if !echo_all(stream).is_err_and(|error| error.kind() == IoKind::WouldBlock) {
            self.open.remove(&number);
        }
    }
}

/// To the end; `WouldBlock`, if there is to be more.
fn echo_all(stream: &mut TcpStream) -> io::Result<()> {
    let mut buffer = [0; 256];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            read => stream.write_all(&buffer[..read])?,
        }
    }
}

/// What became of the turns of one thread, or of all.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    exchanges: u64,
    checkouts: u64,
    detached: u64,
    /// Requests that were dropped without an answer, or with one that came a moment ago.
    cancelled: u64,
    /// Turns that got no connection.
    without: u64,
    /// Exchanges that the server hung up on.
    broken: u64,
}

impl Tally {
    fn add(&mut self, other: &Self) {
        self.exchanges += other.exchanges;
        self.checkouts += other.checkouts;
        self.detached += other.detached;
        self.cancelled += other.cancelled;
        self.without += other.without;
        self.broken += other.broken;
    }
}

/// One of the threads.
struct Worker {
    tally: Tally,
    random: u64,
    question: u64,
}

impl Worker {
    fn new(number: usize) -> Self {
        let number = number as u64 + 1;
        let random = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        Self { tally: Tally::default(), random, question: number << 40 }
    }

    /// Works until the shift is over, and until an exchange went well.
    fn work(mut self, home: usize, endpoints: &[Endpoint<TcpConnector>], ends: Instant) -> Tally {
        while Instant::now() < ends || self.tally.exchanges == 0 {
            let is_visit = self.below(4) == 0;
            let at = if is_visit { self.below(ENDPOINTS) } else { home };
            self.turn(&endpoints[at]);
        }
        self.tally
    }

    fn below(&mut self, bound: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 16) as usize % bound
    }

    fn turn(&mut self, endpoint: &Endpoint<TcpConnector>) {
        let got = match self.below(100) {
            0..25 => return self.run(endpoint, Repeat::IfUnwritten),
            25..50 => return self.run(endpoint, Repeat::Always),
            50..65 => Some(endpoint.get()),
            65..75 => Some(endpoint.get_timeout(Duration::from_millis(2))),
            75..85 => self.request(endpoint),
            _ => endpoint.try_get().map(Ok),
        };
        let conn = match got {
            Some(Ok(conn)) => conn,
            Some(Err(error)) => return self.note_without(&error),
            None => return self.tally.without += 1,
        };
        self.tally.checkouts += 1;
        self.use_up(conn);
    }

    fn run(&mut self, endpoint: &Endpoint<TcpConnector>, repeat: Repeat) {
        let done: io::Result<()> = endpoint.run(repeat, |conn| {
            self.tally.checkouts += 1;
            self.exchange(conn)
        });
        if let Err(error) = done {
            assert!(repeat != Repeat::Always && !is_time_out(&error), "{repeat:?}: {error}");
        }
    }

    /// What answers a request in the time that is left to it.
    fn request(
        &mut self,
        endpoint: &Endpoint<TcpConnector>,
    ) -> Option<Result<PooledConn<TcpConnector>, Error>> {
        let request = match endpoint.request() {
            Ok(request) => request,
            Err(error) => return Some(Err(error)),
        };
        let patience = Duration::from_micros(self.below(4_000) as u64);
        let answer = request.receiver().recv_timeout(patience).ok();
        self.tally.cancelled += u64::from(answer.is_none());
        answer
    }

    fn use_up(&mut self, mut conn: PooledConn<TcpConnector>) {
        let is_over = self.exchange(&mut conn).is_err();
        match self.below(100) {
            0 => PooledConn::discard(conn),
            1 => {
                self.tally.detached += 1;
                let mut socket = PooledConn::detach(conn);
                let _hung_up = self.exchange(&mut socket);
            }
            2 => {
                let holds = AssertUnwindSafe(|| {
                    let _conn = conn;
                    // A panic, but that nothing is printed.
                    resume_unwind(Box::new("a holder stumbles"))
                });
                let _stumbled: Box<_> = catch_unwind::<_, ()>(holds).unwrap_err();
            }
            3 if !is_over => {
                // The answer is on its way to nobody.
                let _hung_up = conn.write_all(b"unfinished");
            }
            _ => {}
        }
    }

    /// A question that nobody else asks, and its answer.
    fn exchange(&mut self, conn: &mut Socket) -> io::Result<()> {
        self.question += 1;
        let question = self.question.to_le_bytes();
        let mut answer = [0; 8];
        let done = conn.write_all(&question).and_then(|()| conn.read_exact(&mut answer));
        match &done {
            Ok(()) => {
                assert_eq!(answer, question, "somebody else's answer");
                self.tally.exchanges += 1;
            }
            Err(error) => {
                assert!(!is_time_out(error), "a server that has not hung up answers: {error}");
                self.tally.broken += 1;
            }
        }
        done
    }

    fn note_without(&mut self, error: &Error) {
        self.tally.without += 1;
        // A server may hang up on what has only just been opened.
        let may_be = [ErrorKind::Timeout, ErrorKind::Connect].contains(&error.kind());
        assert!(may_be && error.waited() < Some(SOON), "{error}");
    }
}

fn is_time_out(error: &io::Error) -> bool {
    [IoKind::WouldBlock, IoKind::TimedOut].contains(&error.kind())
}

/// What the process has while nothing is going on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Belongings {
    descriptors: usize,
    threads: u64,
}

impl Belongings {
    fn count() -> Self {
        let descriptors = std::fs::read_dir("/proc/self/fd").unwrap().count();
        Self { descriptors, threads: status("Threads:") }
    }

    /// Threads of the crew come and go.
    fn is_within(self, limit: Self) -> bool {
        self.descriptors <= limit.descriptors && self.threads <= limit.threads
    }
}

/// Memory that is neither a file's nor shared.
fn memory_kib() -> u64 {
    status("RssAnon:")
}

/// A figure from what the system tells about this process.
fn status(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Lets all threads work for so long, while one server after the other hangs up on everybody.
fn shift(length: Duration, endpoints: &[Endpoint<TcpConnector>], servers: &Servers) -> Vec<Tally> {
    let ends = Instant::now() + length;
    std::thread::scope(|scope| {
        let work = |number| {
            let worker = Worker::new(number);
            scope.spawn(move || worker.work(number % ENDPOINTS, endpoints, ends))
        };
        let workers: Vec<_> = (0..THREADS).map(work).collect();
        for server in (0..ENDPOINTS).cycle() {
            std::thread::sleep(HANGS_UP_EVERY / ENDPOINTS as u32);
            if Instant::now() >= ends {
                break;
            }
            servers.hang_up(server);
        }
        // Joined one by one: a scope does not wait until threads have ended, only their work.
        let tallies = workers.into_iter().map(|worker| worker.join());
        tallies.map(|tally| tally.expect("all it met was as promised")).collect()
    })
}

/// All room there is can be had at once, and not more.
fn assert_all_room_is_there(endpoints: &[Endpoint<TcpConnector>]) {
    let get = |endpoint: &Endpoint<_>| endpoint.get_timeout(SOON).unwrap();
    let held: Vec<_> = endpoints.iter().cycle().take(MOST).map(get).collect();
    let error = endpoints[0].get_timeout(Duration::from_millis(1)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    drop(held);
}

/// Works in shifts, after each of which everybody goes home.
fn work_for(length: Duration, is_portable: bool) {
    let before = Belongings::count();
    let servers = Servers::start();
    // Shorter lives than usual, so that all ways to end come up.
    let builder = tcp().max_total(MOST).checkout_timeout(SOON).portable_watch(is_portable);
    let builder = builder.idle_timeout(Duration::from_secs(1)).max_lifetime(Duration::from_secs(3));
    let pool = builder.build().unwrap();
    let endpoints = servers.names.iter().map(|name| pool.endpoint(name).unwrap());
    let endpoints: Vec<_> = endpoints.collect();
    let (mut all, mut warm) = (Tally::default(), None);
    let shifts = length.as_secs().div_ceil(LONGEST_SHIFT.as_secs()).max(2) as u32;
    for number in 1..=shifts {
        let _watchdog = watchdog();
        let tallies = shift(length / shifts, &endpoints, &servers);
        tallies.iter().for_each(|tally| all.add(tally));
        eventually("all connections have ended, on both sides", || {
            pool.evict_all();
            pool.stats().total() == 0 && servers.open() == 0
        });
        let (belongings, memory) = *warm.get_or_insert_with(|| (Belongings::count(), memory_kib()));
        eventually(&format!("no more than {belongings:?}, as after the first shift"), || {
            Belongings::count().is_within(belongings)
        });
        let grown = memory_kib().saturating_sub(memory);
        let fewest = tallies.iter().map(|tally| tally.exchanges).min().unwrap_or(0);
        say(&format!("shift {number} of {shifts}: {belongings:?}, {memory} KiB and {grown} more"));
        say(&format!("  {all:?}, {fewest} or more by each in this one; {}", pool.stats()));
        assert!(grown < GROWTH_KIB, "grown by {grown} KiB since the first shift");
    }
    assert_all_room_is_there(&endpoints);
    let stats = pool.stats();
    assert_balanced(&stats);
    // What came for a request in its last moment counts, though nobody had it.
    let given = all.checkouts + MOST as u64..=all.checkouts + MOST as u64 + all.cancelled;
    assert!(given.contains(&stats.checkouts()), "{all:?}, {stats}");
    assert_eq!(stats.detached(), all.detached, "{all:?}, {stats}");
    pool.drain(Deadline::after(SOON)).unwrap();
    assert_empty(&pool.stats());
    drop((endpoints, pool, servers));
    eventually(&format!("{before:?}, as before"), || Belongings::count() == before);
}

/// As `alone`, but that all threads of the child share one arena of the allocator: with several,
/// what grows is mostly what nobody needs. What the child says goes to `figures`.
fn alone_in_one_arena(name: &str, figures: Stdio, body: impl FnOnce()) {
    if is_child(name) {
        return body();
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.env("MALLOC_ARENA_MAX", "1").stderr(figures);
    assert_passed(&run_child(&mut command, name));
}

const BRIEF: Duration = Duration::from_secs(2);

#[test]
fn two_hundred_threads_over_twenty_endpoints_leave_nothing_behind() {
    alone_in_one_arena(
        "sizes::two_hundred_threads_over_twenty_endpoints_leave_nothing_behind",
        Stdio::piped(),
        || work_for(BRIEF, false),
    );
}

#[test]
fn two_hundred_threads_leave_nothing_behind_where_only_bytes_can_be_watched_for() {
    alone_in_one_arena(
        "sizes::two_hundred_threads_leave_nothing_behind_where_only_bytes_can_be_watched_for",
        Stdio::piped(),
        || work_for(BRIEF, true),
    );
}

#[test]
#[ignore = "takes a minute, or WARMLINE_SIZES_SECONDS; .ci/deep runs it"]
fn two_hundred_threads_over_twenty_endpoints_get_on_for_as_long_as_they_like() {
    alone_in_one_arena(
        "sizes::two_hundred_threads_over_twenty_endpoints_get_on_for_as_long_as_they_like",
        Stdio::inherit(),
        || {
            let seconds = std::env::var("WARMLINE_SIZES_SECONDS");
            let seconds = seconds.map_or(60, |seconds| seconds.parse().unwrap());
            work_for(Duration::from_secs(seconds), false);
        },
    );
}
