//! The hand-over under contention, and that user code never runs under the lock.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use crate::clock::Deadline;
use crate::connector::{Connector, Look, Opening, Plan, Reset};
use crate::error::BoxError;
use crate::key::One;
use crate::observe::{CloseReason, Closed, Connected, Observer};
use crate::sync::{Arc, Ordering, assert_unlocked};
use crate::{Endpoint, ErrorKind, Pool, PooledConn};

/// Connections that know how many there are, and a connector whose every method, like the drop of
/// its connections, asserts that this thread does not hold the pool's lock.
#[derive(Default)]
struct Watchful {
    open: Arc<AtomicU64>,
    settles: bool,
}

struct Counted(Arc<AtomicU64>);

impl Drop for Counted {
    fn drop(&mut self) {
        assert_unlocked();
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Connector for Watchful {
    type Key = One;
    type Conn = Counted;

    fn plan(&self, _: &One) -> Plan {
        assert_unlocked();
        Plan::blocking()
    }
    fn open(&self, _: &One, opening: &mut Opening) -> Result<Counted, BoxError> {
        assert_unlocked();
        assert!(!opening.deadline().has_passed());
        self.open.fetch_add(1, Ordering::SeqCst);
        Ok(Counted(Arc::clone(&self.open)))
    }
    fn is_open(&self, _: &mut Counted, _: Look) -> bool {
        assert_unlocked();
        true
    }
    fn reset(&self, _: &mut Counted) -> Reset {
        assert_unlocked();
        if self.settles { Reset::Later } else { Reset::Ready }
    }
    fn settle(&self, _: &mut Counted, _: Deadline) -> Result<(), BoxError> {
        assert_unlocked();
        Ok(())
    }
    fn has_check(&self) -> bool {
        assert_unlocked();
        true
    }
    fn check(&self, _: &mut Counted, _: Deadline) -> Result<(), BoxError> {
        assert_unlocked();
        Ok(())
    }
    fn close(&self, conn: Counted, _: CloseReason) {
        assert_unlocked();
        drop(conn);
    }
}

impl Observer for Watchful {
    fn connected(&self, _: &Connected) {
        assert_unlocked();
    }
    fn closed(&self, _: &Closed) {
        assert_unlocked();
    }
}

fn endpoint(most: usize, connector: Watchful) -> Endpoint<Watchful> {
    let builder = Pool::builder(connector).max_per_endpoint(most).observer(Watchful::default());
    builder.build().unwrap().only().unwrap()
}

#[test]
fn after_two_hundred_thousand_time_outs_nothing_is_lost() {
    const THREADS: u64 = 12;
    const TIMEOUTS: u64 = 200_000;
    let connector = Watchful::default();
    let open = Arc::clone(&connector.open);
    let endpoint = endpoint(3, connector);
    assert_eq!(endpoint.warm(3, Duration::from_secs(20)).unwrap(), 3);
    let (timeouts, served) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (endpoint, timeouts, served) = (&endpoint, &timeouts, &served);
            scope.spawn(move || {
                let mut round = thread;
                while timeouts.load(Ordering::Relaxed) < TIMEOUTS {
                    round += 1;
                    let wait = Duration::from_nanos(round * 937 % 6_000);
                    match endpoint.get_timeout(wait) {
                        // Held across a switch of threads now and then, so that others wait.
                        Ok(conn) => {
                            served.fetch_add(1, Ordering::Relaxed);
                            if round % 3 == 0 {
                                std::thread::yield_now();
                            }
                            drop(conn);
                        }
                        Err(error) => {
                            assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
                            timeouts.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
    });
    let stats = endpoint.stats();
    assert_eq!((stats.idle(), stats.in_use(), stats.waiting()), (3, 0, 0), "{stats}");
    assert_eq!(endpoint.told(), 0);
    assert_eq!((stats.opened(), stats.closed()), (3, 0), "none was lost and made up for");
    assert_eq!(open.load(Ordering::SeqCst), 3);
    assert_eq!(stats.checkouts(), served.into_inner());
    assert_eq!(stats.timed_out(), timeouts.into_inner());
}

#[test]
fn user_code_never_runs_under_the_lock() {
    let connector = Watchful { settles: true, ..Watchful::default() };
    let open = Arc::clone(&connector.open);
    let endpoint = endpoint(2, connector);
    let pool = endpoint.pool();
    for _ in 0..50 {
        let one = endpoint.get().unwrap();
        let two = endpoint.get().unwrap();
        drop(one); // settled on the crew
        PooledConn::discard(two); // closed on the crew
    }
    let kept = PooledConn::detach(endpoint.get().unwrap());
    endpoint.evict();
    drop(endpoint);
    pool.drain(Deadline::after(Duration::from_secs(20))).unwrap();
    drop(kept);
    assert_eq!(open.load(Ordering::SeqCst), 0);
    let stats = pool.stats();
    assert_eq!(stats.opened(), stats.closed() + stats.detached(), "{stats}");
    assert_eq!(stats.closed_for(CloseReason::ConnectorPanicked), 0, "no assertion failed");
}
