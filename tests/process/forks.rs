//! Child processes: what they inherit is the parent's, and nothing they do to it hangs or does harm.
//!
//! A lock may be held for ever in a child: by a thread that it does not have. What takes one must
//! answer all the same. Not promised, and not tested: what a child gets that finds one of its
//! parent's connections idle.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use warmline::{
    CloseReason, Config, Deadline, Driver, Endpoint, ErrorKind, Pool, PooledConn, TcpConnector,
    UnixConnector,
};

use crate::alone;
use crate::support::faults::Refusing;
use crate::support::lab::{Act, Lab, Method};
use crate::support::server::Server;
use crate::support::{Diary, SOON, ask, eventually, tcp, watchdog};

/// Longer than anybody waits for a child.
const FOR_EVER: Duration = Duration::from_secs(600);

/// In the child: notes what comes next, so that the parent can tell where it failed or hangs.
pub(crate) struct Steps(UnixStream);

impl Steps {
    pub(crate) fn next(&mut self, what: &str) {
        writeln!(self.0, "{what}").unwrap();
    }

    #[track_caller]
    fn expect_closed<T>(&mut self, what: &str, call: impl FnOnce() -> Result<T, warmline::Error>) {
        self.next(what);
        let error = call().err().expect("an error");
        assert_eq!(error.kind(), ErrorKind::Closed, "{what}: {error}");
    }
}

/// In the parent.
#[must_use = "its end says whether it succeeded"]
pub(crate) struct Child {
    pid: Pid,
    steps: UnixStream,
    /// What has been read of them, a line each.
    read: String,
}

impl Child {
    /// Waits until it has come to this step, or to its end.
    fn await_step(&mut self, what: &str) {
        let mut next = [0; 1];
        while !self.read.ends_with(&format!("{what}\n")) && self.steps.read(&mut next).unwrap() > 0
        {
            self.read.push(char::from(next[0]));
        }
    }

    /// Waits for its end, and checks that nothing failed in it.
    #[track_caller]
    pub(crate) fn join(mut self) {
        let began = Instant::now();
        let status = loop {
            if let Some((_, status)) = waitpid(Some(self.pid), WaitOptions::NOHANG).unwrap() {
                break Some(status);
            }
            if began.elapsed() > SOON {
                kill_process(self.pid, Signal::KILL).unwrap();
                waitpid(Some(self.pid), WaitOptions::empty()).unwrap();
                break None;
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        self.steps.read_to_string(&mut self.read).unwrap();
        let last = self.read.lines().last().unwrap_or("nothing");
        let status = status.unwrap_or_else(|| panic!("the child hangs in \"{last}\""));
        assert_eq!(status.exit_status(), Some(0), "the child failed in \"{last}\": {status:?}");
    }
}

/// Runs `body` in a child process, and gives it the child's copy of what the parent keeps.
/// Whatever else it uses must be borrowed.
#[expect(unsafe_code, reason = "fork has no safe form")]
pub(crate) fn fork<T>(kept: &T, body: impl FnOnce(&mut Steps, T)) -> Child {
    let (ours, theirs) = UnixStream::pair().unwrap();
    // SAFETY: the child goes on with this thread alone, and whether that does harm is the question.
    let pid = unsafe { libc::fork() };
    if pid != 0 {
        return Child {
            pid: Pid::from_raw(pid).expect("a fork"),
            steps: ours,
            read: String::new(),
        };
    }
    // SAFETY: all memory of the child is a copy, in which nobody comes back to the original: the
    // other threads do not exist, and this one ends here.
    let inherited = unsafe { std::ptr::read(kept) };
    let result = catch_unwind(AssertUnwindSafe(|| body(&mut Steps(theirs), inherited)));
    // SAFETY: it runs nothing more, which is what it is for: tests and threads are the parent's.
    unsafe { libc::_exit(i32::from(result.is_err())) }
}

#[test]
fn in_a_child_process_whatever_would_wait_or_connect_answers_closed_at_once() {
    alone(
        "forks::in_a_child_process_whatever_would_wait_or_connect_answers_closed_at_once",
        || {
            let _watchdog = watchdog();
            let (server, other) = (Server::echo(), Refusing::new());
            other.listen();
            let pool = tcp().max_per_endpoint(2).min_idle(1).checkout_timeout(FOR_EVER);
            let pool = pool.build().unwrap();
            let endpoint = pool.endpoint(&server.name()).unwrap();
            let held = [endpoint.get().unwrap(), endpoint.get().unwrap()];
            let idle = pool.endpoint(&other.name()).unwrap();
            eventually("one is kept ready", || idle.stats().idle() == 1);
            let child = fork(&(), |steps, ()| {
                steps.expect_closed("get, which would wait", || endpoint.get());
                steps.expect_closed("get by name", || pool.get(&server.name()));
                steps.expect_closed("get, which would connect", || pool.get("127.0.0.1:1"));
                steps.expect_closed("warm", || endpoint.warm(2, FOR_EVER));
                steps.expect_closed("warm elsewhere", || idle.warm(2, FOR_EVER));
                steps.expect_closed("endpoint, which would connect", || {
                    pool.endpoint("127.0.0.1:2")
                });
                steps.expect_closed("drain", || pool.drain(Deadline::after(FOR_EVER)));
                steps.expect_closed("reconfigure", || pool.reconfigure(pool.config()));
                steps.next("try_get");
                assert!(endpoint.try_get().is_none());
                steps.next("close and evict");
                pool.evict_all();
                idle.evict();
                pool.close();
                assert_eq!((pool.stats().idle(), pool.stats().in_use()), (1, 2), "it does nothing");
            });
            child.join();
            drop(held);
            ask(&mut endpoint.get().unwrap()).unwrap();
            pool.drain(Deadline::after(SOON)).unwrap();
        },
    );
}

#[test]
fn requests_of_a_child_process_answer_closed_and_those_of_its_parent_are_left_to_it() {
    alone(
        "forks::requests_of_a_child_process_answer_closed_and_those_of_its_parent_are_left_to_it",
        || {
            let _watchdog = watchdog();
            let (server, other) = (Server::echo(), Server::echo());
            let pool = tcp().max_per_endpoint(1).build().unwrap();
            let endpoint = pool.endpoint(&server.name()).unwrap();
            let held = endpoint.get().unwrap();
            let (queued, next) = (endpoint.request().unwrap(), endpoint.request().unwrap());
            drop(pool.get(&other.name()).unwrap());
            let arrived = pool.request(&other.name()).unwrap();
            let kept = (queued, arrived);
            let child = fork(&kept, |steps, (queued, arrived)| {
                steps.expect_closed("request, which would wait", || endpoint.request());
                steps.expect_closed("request by name", || pool.request(&other.name()));
                steps.expect_closed("request, which would connect", || pool.request("127.0.0.1:1"));
                steps.next("drop of one in the queue");
                drop(queued);
                steps.next("drop of one whose connection has arrived");
                drop(arrived);
            });
            child.join();
            let (queued, arrived) = kept;
            ask(&mut arrived.receiver().try_recv().unwrap().unwrap()).unwrap();
            assert_eq!(endpoint.stats().waiting(), 2);
            drop(held);
            for request in [queued, next] {
                ask(&mut request.receiver().try_recv().unwrap().unwrap()).unwrap();
            }
            assert_eq!((server.accepted(), other.accepted()), (1, 1));
            pool.drain(Deadline::after(SOON)).unwrap();
        },
    );
}

/// Gives the child the last word on all handles: it drops what the parent keeps.
fn leaves_the_parent_alone(is_portable: bool) {
    let (server, diary, driver) = (Server::echo(), Diary::default(), Driver::new());
    let pool = tcp().portable_watch(is_portable).observer(diary.clone()).driver(&driver);
    let pool = pool.probe_after(SOON).build().unwrap(); // so that only the watch can notice
    let endpoint = pool.endpoint(&server.name()).unwrap();
    let mut held: Vec<_> = (0..4).map(|_| endpoint.get().unwrap()).collect();
    held.iter_mut().for_each(|conn| ask(conn).unwrap());
    held.truncate(2);
    let (gate, mut gated) = UnixStream::pair().unwrap();
    let all = (held, endpoint, pool, driver, gate);
    let child = fork(&all, |steps, (mut held, endpoint, pool, driver, gate)| {
        drop(gate);
        steps.next("discard");
        PooledConn::discard(held.pop().unwrap());
        steps.next("drop of a guard");
        drop(held);
        steps.next("drop of an endpoint");
        drop(endpoint);
        steps.next("drop of a pool");
        drop(pool);
        steps.next("drop of a driver");
        drop(driver);
        steps.next("wait for the parent");
        let _closed = gated.read(&mut [0; 1]); // its copies of descriptors stay open meanwhile
    });
    let (mut held, endpoint, _pool, _driver, gate) = all;
    held.extend([endpoint.get().unwrap(), endpoint.get().unwrap()]);
    held.iter_mut().for_each(|conn| ask(conn).unwrap());
    assert!(held.iter().all(|conn| PooledConn::is_reused(conn) || server.accepted() == 4));
    server.assert_accepted(4);
    drop(held);
    server.hang_up();
    assert_eq!(diary.reasons_of(4), [CloseReason::PeerClosed; 4]);
    assert_eq!(endpoint.stats().total(), 0);
    ask(&mut endpoint.get().unwrap()).unwrap();
    drop(gate);
    child.join();
}

#[test]
fn whatever_a_child_process_drops_the_parents_connections_work_and_are_watched() {
    alone(
        "forks::whatever_a_child_process_drops_the_parents_connections_work_and_are_watched",
        || {
            let _watchdog = watchdog();
            leaves_the_parent_alone(false);
            leaves_the_parent_alone(true);
        },
    );
}

/// In the child: the pool does all that is expected of one. Needs the parent to hang up, when it is
/// told this step.
fn works(steps: &mut Steps, what: &str, pool: &Pool<TcpConnector>, server: &Server) {
    let endpoint = pool.endpoint(&server.name()).unwrap();
    assert!(endpoint.warm(2, SOON).unwrap() >= 2);
    let mut held = [endpoint.get().unwrap(), endpoint.get().unwrap()];
    held.iter_mut().for_each(|conn| ask(conn).unwrap());
    drop(held);
    steps.next(what);
    let died = || endpoint.stats().closed_for(CloseReason::PeerClosed);
    eventually("deaths are noticed", || died() >= 2);
    // Another may have been opened just in time to die as well.
    eventually("it goes on", || endpoint.get().is_ok_and(|mut conn| ask(&mut conn).is_ok()));
    pool.drain(Deadline::after(SOON)).unwrap();
}

#[test]
fn pools_whose_threads_had_not_started_work_in_a_child_process() {
    alone("forks::pools_whose_threads_had_not_started_work_in_a_child_process", || {
        let _watchdog = watchdog();
        let server = Server::echo();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("echo");
        let _local = Server::unix(&path, |peer| peer.echo());
        let driver = Driver::new();
        let before = tcp().min_idle(1).build().unwrap();
        let shared = tcp().driver(&driver).portable_watch(true).build().unwrap();
        let unix = Pool::builder(UnixConnector::new()).driver(&driver).build().unwrap();
        let used = tcp().build().unwrap(); // its threads have started, and are not in the way
        ask(&mut used.get(&server.name()).unwrap()).unwrap();
        let what = ["a pool of before", "one with a driver of before", "a pool made there"];
        let pools = [before, shared];
        let mut child = fork(&pools, |steps, [before, shared]| {
            works(steps, what[0], &before, &server);
            works(steps, what[1], &shared, &server);
            steps.next("another on the same driver");
            ask(&mut unix.get(path.as_path()).unwrap()).unwrap();
            works(steps, what[2], &tcp().build().unwrap(), &server);
        });
        for step in what {
            child.await_step(step);
            server.hang_up();
        }
        child.join();
        for pool in pools.iter().chain([&used]) {
            let name = server.name();
            eventually("it works", || pool.get(&name).is_ok_and(|mut conn| ask(&mut conn).is_ok()));
        }
        ask(&mut unix.get(path.as_path()).unwrap()).unwrap();
    });
}

#[test]
fn a_driver_that_works_in_the_parent_answers_closed_to_pools_of_a_child_process() {
    alone(
        "forks::a_driver_that_works_in_the_parent_answers_closed_to_pools_of_a_child_process",
        || {
            let _watchdog = watchdog();
            let server = Server::echo();
            let driver = Driver::new();
            let used = tcp().driver(&driver).build().unwrap();
            ask(&mut used.get(&server.name()).unwrap()).unwrap();
            let unused = tcp().driver(&driver).checkout_timeout(FOR_EVER).build().unwrap();
            let warmed = tcp().driver(&driver).build().unwrap();
            let child = fork(&(), |steps, ()| {
                steps.expect_closed("a pool of the parent", || unused.get(&server.name()));
                steps.expect_closed("the same again", || unused.get(&server.name()));
                let endpoint = warmed.endpoint(&server.name()).unwrap();
                steps.expect_closed("warm", || endpoint.warm(1, FOR_EVER));
                let made = tcp().driver(&driver).min_idle(1).build().unwrap();
                steps.expect_closed("a pool made here", || made.endpoint(&server.name()));
                steps.expect_closed("the same again", || made.endpoint(&server.name()));
                steps.next("drop of a pool made here");
                drop(made);
            });
            child.join();
            for pool in [used, unused, warmed] {
                ask(&mut pool.get(&server.name()).unwrap()).unwrap();
            }
        },
    );
}

#[test]
fn a_child_process_may_drop_its_parents_pools_while_its_own_work() {
    alone("forks::a_child_process_may_drop_its_parents_pools_while_its_own_work", || {
        let _watchdog = watchdog();
        let server = Server::echo();
        let pools = || {
            let pools: Vec<_> = (0..8).map(|_| tcp().build().unwrap()).collect();
            for pool in &pools {
                ask(&mut pool.get(&server.name()).unwrap()).unwrap();
            }
            pools
        };
        let theirs = pools();
        fork(&theirs, |steps, theirs| {
            // New threads get the memory of those that the child does not have.
            steps.next("pools made here");
            let own = pools();
            steps.next("drop of the parent's");
            drop(theirs);
            own.iter().for_each(|pool| ask(&mut pool.get(&server.name()).unwrap()).unwrap());
            steps.next("drop of its own, which waits for their threads");
            drop(own);
        })
        .join();
        theirs.iter().for_each(|pool| ask(&mut pool.get(&server.name()).unwrap()).unwrap());
    });
}

#[test]
fn a_foreign_guard_that_a_child_process_drops_is_not_settled_nor_closed_nor_dropped() {
    alone(
        "forks::a_foreign_guard_that_a_child_process_drops_is_not_settled_nor_closed_nor_dropped",
        || {
            let _watchdog = watchdog();
            // One that would be settled, and one that would be closed.
            for act in [Act::Later, Act::Fail] {
                let lab = Lab::new(move |method, _| match method {
                    Method::Reset => act,
                    _ => Act::Go,
                });
                let bench = lab.bench();
                let pool = Pool::builder(lab).build().unwrap();
                let held = pool.get("a").unwrap();
                fork(&held, |steps, held| {
                    steps.next("drop of a foreign guard");
                    drop(held);
                    let ends = [Method::Settle, Method::Check, Method::Close];
                    assert_eq!(ends.map(|method| bench.calls(method)), [0; 3], "{act:?}");
                    assert_eq!(bench.alive(), 1, "{act:?}: its drop would say farewell");
                })
                .join();
                drop(held);
                let settled = usize::from(act == Act::Later);
                eventually("the parent's is", || bench.calls(Method::Settle) == settled);
                pool.drain(Deadline::after(SOON)).unwrap();
                assert_eq!((bench.alive(), bench.calls(Method::Close)), (0, 1));
            }
        },
    );
}

/// Raises a flag in the end, also if that is a panic.
struct Raises<'f>(&'f AtomicBool);

impl Drop for Raises<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// In the child of a busy process: whatever is locked for ever, everything answers.
fn answers(
    steps: &mut Steps,
    held: PooledConn<TcpConnector>,
    endpoint: Endpoint<TcpConnector>,
    pool: Pool<TcpConnector>,
    driver: Driver,
) {
    let name = endpoint.key().to_string();
    steps.next("drop of a guard");
    drop(held);
    steps.next("get, try_get and request, of whatever there is");
    drop((endpoint.get(), pool.get(&name), endpoint.try_get(), pool.try_get(&name)));
    drop((endpoint.request(), pool.request(&name)));
    steps.expect_closed("warm", || endpoint.warm(9, FOR_EVER));
    steps.expect_closed("drain", || pool.drain(Deadline::after(FOR_EVER)));
    steps.expect_closed("endpoint", || pool.endpoint(&name));
    steps.expect_closed("reconfigure", || pool.reconfigure(Config::new()));
    steps.next("stats and settings");
    let _counts = (endpoint.stats(), pool.stats(), pool.config());
    steps.next("close and evict");
    pool.close();
    pool.evict_all();
    endpoint.evict();
    steps.next("a pool made here");
    let made = tcp().driver(&driver).build().unwrap();
    steps.expect_closed("get", || made.get(&name));
    steps.next("drop of handles");
    drop((made, endpoint));
    drop(pool);
    drop(driver);
}

#[test]
fn everything_answers_in_a_child_of_a_process_whose_threads_were_busy_with_the_pool() {
    alone(
        "forks::everything_answers_in_a_child_of_a_process_whose_threads_were_busy_with_the_pool",
        || {
            let _watchdog = watchdog();
            let (server, driver) = (Server::echo(), Driver::new());
            let builder = tcp().max_per_endpoint(4).min_idle(1).driver(&driver);
            let pool = builder.build().unwrap();
            let endpoint = pool.endpoint(&server.name()).unwrap();
            let (is_over, rounds) = (AtomicBool::new(false), AtomicUsize::new(0));
            let forks = AtomicUsize::new(0);
            let mut held = Some(endpoint.get().unwrap());
            let all = (endpoint, pool, driver); // there is no other handle
            let hammer = || {
                let mut seen = 0;
                while !is_over.load(Ordering::Relaxed) {
                    let mut conn = all.0.get().unwrap();
                    let round = rounds.fetch_add(1, Ordering::Relaxed);
                    let forks = forks.load(Ordering::Relaxed);
                    if std::mem::replace(&mut seen, forks) != forks {
                        PooledConn::discard(conn);
                    } else if round % 8 == 0 {
                        ask(&mut conn).unwrap();
                    }
                }
            };
            std::thread::scope(|scope| {
                for _ in 0..3 {
                    scope.spawn(hammer);
                }
                let _over = Raises(&is_over);
                for _ in 0..200 {
                    let before = rounds.load(Ordering::Relaxed);
                    forks.fetch_add(1, Ordering::Relaxed);
                    fork(&all, |steps, (endpoint, pool, driver)| {
                        answers(steps, held.take().unwrap(), endpoint, pool, driver);
                    })
                    .join();
                    eventually("the parent goes on", || rounds.load(Ordering::Relaxed) > before);
                }
            });
        },
    );
}
