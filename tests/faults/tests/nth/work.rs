//! Ordinary work on a pool, while one call fails, and what must hold all the same.

use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::RecvTimeoutError;
use warmline::{
    Builder, Connector, Deadline, Endpoint, Error, ErrorKind, Name, Pool, PooledConn, Repeat,
};

use crate::cases::Case;
use crate::faults::{Extent, arm, disarm, exempt, exposed, failed};
use crate::support::{SOON, assert_balanced, assert_empty, eventually};

/// How long a user waits, where waiting may be in vain.
const WAIT: Duration = Duration::from_millis(120);
/// How long what nothing here makes late may take: a connect, a check, and all that users wait for
/// where one call alone fails.
const LONG: Duration = Duration::from_secs(10);
/// How much later a call may return, on a machine that is busy with other things.
const GRACE: Duration = Duration::from_secs(15);
const USERS: usize = 3;
const MOST_PER_ENDPOINT: usize = 2;
const MOST: usize = 3;

/// What is played for one call to fail.
pub(crate) struct Play<'a, C: Connector> {
    pub(crate) builder: &'a (dyn Fn() -> Builder<C> + Sync),
    /// Of two endpoints.
    pub(crate) names: &'a [String; 2],
    pub(crate) case: Case,
    pub(crate) seed: u64,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Get(usize),
    Run(usize),
    Request(usize),
    Warm(usize),
    Evict(usize),
}

/// Why a step failed.
#[derive(Debug)]
enum Trouble {
    Pool(Error),
    Exchange(io::Error),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Pool(error)
    }
}

impl<C: Connector> Play<'_, C>
where
    PooledConn<C>: Read + Write,
    str: Name<C::Key>,
{
    /// Does the work once; true if the call that was to fail was made.
    pub(crate) fn run(&self, nth: usize) -> bool {
        let Case { call, extent, .. } = self.case;
        let builder = (self.builder)().max_total(MOST).max_per_endpoint(MOST_PER_ENDPOINT);
        let builder =
            builder.checkout_timeout(self.wait()).connect_timeout(LONG).check_timeout(LONG);
        let pool = builder.check_after(Duration::ZERO).build().expect("the settings fit");
        arm(call, nth, extent);
        let endpoint = |name: &String| pool.endpoint(name.as_str()).expect("a name that fits");
        let endpoints = self.names.each_ref().map(endpoint);
        std::thread::scope(|scope| {
            for user in 0..USERS {
                let (pool, endpoints) = (&pool, &endpoints);
                let work = move || exposed(|| self.use_it(user, pool, endpoints));
                exempt(|| scope.spawn(work));
            }
        });
        if extent == Extent::EverAfter {
            disarm();
        }
        if extent != Extent::ToTheEnd {
            endpoints.iter().for_each(|endpoint| self.assert_works(endpoint));
        }
        drop(endpoints);
        pool.drain(Deadline::after(SOON)).expect("everything comes home");
        assert_empty(&pool.stats());
        drop(pool);
        disarm();
        failed() > 0
    }

    /// What one user does.
    fn use_it(&self, user: usize, pool: &Pool<C>, endpoints: &[Endpoint<C>; 2]) {
        let Case { sort, call, extent } = self.case;
        for step in steps_of(user, self.seed) {
            let began = Instant::now();
            let result = step.take(endpoints, self.wait());
            assert!(began.elapsed() < self.wait() + GRACE, "{step:?} took {:?}", began.elapsed());
            let stats = pool.stats();
            assert_balanced(&stats);
            assert!(stats.total() <= MOST, "{stats}");
            for endpoint in endpoints {
                let stats = endpoint.stats();
                assert_balanced(&stats);
                assert!(stats.total() <= MOST_PER_ENDPOINT, "{stats}");
            }
            let is_single = extent == Extent::Once;
            match result {
                Err(Trouble::Exchange(error)) => {
                    assert!(call.is_met_in(&error), "{step:?} met {error}, which nobody told to");
                    let is_repeated = matches!(step, Step::Run(_)) && sort.is_visible();
                    assert!(!(is_repeated && is_single), "{error} though it may be repeated");
                }
                Err(Trouble::Pool(error)) => {
                    call.explains(&error);
                    let is_patient = matches!(step, Step::Run(_)) && !is_unstarted(&error);
                    let kind = error.kind();
                    assert!(!is_patient || kind == ErrorKind::Timeout, "before its time: {error}");
                    assert!(!is_single || kind != ErrorKind::Timeout, "one failure: {error}");
                }
                Ok(()) => {}
            }
        }
    }

    fn wait(&self) -> Duration {
        if self.case.extent == Extent::Once { LONG } else { WAIT }
    }

    /// What failed is over, or fails one last time here.
    fn assert_works(&self, endpoint: &Endpoint<C>) {
        eventually("it works again", || {
            let result = endpoint.get_timeout(SOON).map_err(Trouble::from).and_then(exchange_on);
            match result {
                Ok(()) => return true,
                Err(Trouble::Exchange(error)) => {
                    assert!(self.case.call.is_met_in(&error), "{error}");
                }
                Err(Trouble::Pool(error)) => {
                    assert_ne!(error.kind(), ErrorKind::Timeout, "{error}");
                    self.case.call.explains(&error);
                }
            }
            false
        });
    }
}

/// The driver could not start: that is no attempt to connect, and is said at once.
fn is_unstarted(error: &Error) -> bool {
    error.to_string().starts_with("could not start the threads of the pool")
}

/// The same for each run, so that the next call fails in the same work.
fn steps_of(user: usize, seed: u64) -> Vec<Step> {
    let (mine, other) = (user % 2, (user + 1) % 2);
    let mut steps = vec![Step::Get(mine), Step::Run(other), Step::Request(other), Step::Run(mine)];
    match user {
        0 => steps.push(Step::Warm(mine)),
        1 => steps.push(Step::Evict(mine)),
        _ => {}
    }
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (user as u64 + 1);
    for at in (1..steps.len()).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        steps.swap(at, (state >> 33) as usize % (at + 1));
    }
    steps
}

impl Step {
    fn take<C: Connector>(self, endpoints: &[Endpoint<C>; 2], wait: Duration) -> Result<(), Trouble>
    where
        PooledConn<C>: Read + Write,
    {
        match self {
            Self::Get(at) => exchange_on(endpoints[at].get_timeout(wait)?),
            Self::Run(at) => endpoints[at].run(Repeat::Always, exchange),
            Self::Request(at) => {
                let request = endpoints[at].request()?;
                match request.receiver().recv_timeout(wait) {
                    Ok(answer) => exchange_on(answer?),
                    // Dropped, it is cancelled.
                    Err(RecvTimeoutError::Timeout) if wait == WAIT => Ok(()),
                    Err(RecvTimeoutError::Timeout) => panic!("no answer after one failure"),
                    Err(RecvTimeoutError::Disconnected) => panic!("an answer arrives"),
                }
            }
            Self::Warm(at) => {
                let open = endpoints[at].warm(MOST_PER_ENDPOINT, wait)?;
                assert!((1..=MOST_PER_ENDPOINT).contains(&open), "{open} open");
                Ok(())
            }
            Self::Evict(at) => {
                endpoints[at].evict();
                Ok(())
            }
        }
    }
}

fn exchange_on<C: Connector>(mut conn: PooledConn<C>) -> Result<(), Trouble>
where
    PooledConn<C>: Read + Write,
{
    exchange(&mut conn)
}

/// A question that nobody has asked before, and its answer.
fn exchange(conn: &mut (impl Read + Write)) -> Result<(), Trouble> {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let question = NEXT.fetch_add(1, Ordering::SeqCst).to_be_bytes();
    let mut answer = [0; 8];
    conn.write_all(&question).map_err(Trouble::Exchange)?;
    conn.read_exact(&mut answer).map_err(Trouble::Exchange)?;
    assert_eq!(answer, question, "somebody else's answer");
    Ok(())
}
