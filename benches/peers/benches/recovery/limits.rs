//! Servers that close what was idle for too long: what callers see of that before the pool has
//! learned how long that is, and after.

use std::collections::VecDeque;
use std::io;
use std::thread;
use std::time::Duration;

use peers::{is_quick, note, now_ns, result, version};
use warmline::{CloseReason, Endpoint, Pool, PooledConn, Reuse, TcpConnector};

use crate::remote::{Remote, exchange};

/// What the servers allow, and what is said after the names of figures.
const LIMITS: [(Duration, &str); 2] =
    [(Duration::from_millis(1_500), "_1500ms"), (Duration::from_secs(5), "_5s")];
/// Connections that become idle one after the other, evenly, within one limit.
const CONNECTIONS: usize = 24;
/// By so much an exchange comes later than the one before if the server had not closed yet, and
/// sooner if it had: so all come close to that moment.
const STEP: Duration = Duration::from_micros(40);

/// What one half of a run came to.
#[derive(Clone, Copy, Default)]
struct Seen {
    exchanges: usize,
    errors: usize,
}

/// Traffic that comes back just when the server closes.
struct Traffic {
    endpoint: Endpoint<TcpConnector>,
    name: &'static str,
    limit: Duration,
    /// How long an idle connection has been so when its exchange is to begin.
    aim: Duration,
    began: u64,
    /// Seconds until the limit was learned.
    learned: Option<f64>,
    before: Seen,
    after: Seen,
}

impl Traffic {
    fn new(remote: &mut Remote, limit: Duration, name: &'static str) -> Self {
        // The oldest comes first, so that each is idle for as long as the pauses say.
        let builder = Pool::builder(TcpConnector::new()).reuse(Reuse::Oldest);
        let pool = builder.max_per_endpoint(CONNECTIONS).build().expect("one limit");
        let endpoint = pool.endpoint(&remote.site_with_limit(limit)).expect("an address");
        let (before, after) = (Seen::default(), Seen::default());
        Self { endpoint, name, limit, aim: limit, began: now_ns(), learned: None, before, after }
    }

    fn passed(&self) -> Duration {
        Duration::from_nanos(now_ns() - self.began)
    }

    /// One exchange, without a repeat; what it was done on, if it went well.
    fn exchange(&mut self) -> Option<PooledConn<TcpConnector>> {
        if self.learned.is_none() && self.endpoint.stats().idle_limit().is_some() {
            self.learned = Some(self.passed().as_secs_f64());
        }
        let is_learned = self.learned.is_some();
        let mut conn = self.endpoint.get().expect("the server accepts");
        let exchanged: io::Result<()> = exchange(&mut *conn);
        conn.set_complete();
        let seen = if is_learned { &mut self.after } else { &mut self.before };
        seen.exchanges += 1;
        seen.errors += usize::from(exchanged.is_err());
        exchanged.ok().map(|()| conn)
    }

    /// Has connections become idle one after the other, then comes for each at the moment at which
    /// the server closes it.
    fn lap(&mut self) {
        let mut conns = Vec::from_iter((0..CONNECTIONS).filter_map(|_| self.exchange()));
        let mut idle_since = VecDeque::new();
        while let Some(mut conn) = conns.pop() {
            // So that for the server, too, it becomes idle only now.
            if exchange(&mut *conn).is_ok() {
                conn.set_complete();
                drop(conn);
                idle_since.push_back(now_ns());
            }
            thread::sleep(self.limit / (CONNECTIONS as u32 + 2));
        }
        let mut taken = Vec::new();
        while let Some(since) = idle_since.pop_front() {
            let due = since + self.aim.as_nanos() as u64;
            thread::sleep(Duration::from_nanos(due.saturating_sub(now_ns())));
            let is_open = self.endpoint.stats().idle() > idle_since.len();
            // Later the pool closes it long before the server would.
            if self.learned.is_none() {
                self.aim = if is_open { self.aim + STEP } else { self.aim - STEP };
            }
            taken.extend(self.exchange());
            // The server or the pool has closed the oldest of the others in the meantime.
            let idle = self.endpoint.stats().idle();
            while idle_since.len() > idle {
                idle_since.pop_front();
            }
        }
    }

    fn report(&self) {
        let name = self.name;
        let stats = self.endpoint.stats();
        let config = format!(
            "{}: Reuse::Oldest, the rest by default; the server, another process, closes what was \
             silent for {:?}; {CONNECTIONS} connections become idle one after the other, and an \
             exchange begins about when the server closes the oldest: until the limit is learned, \
             {STEP:?} later if it had not yet at the one before, else sooner; without repeats",
            version("warmline", ""),
            self.limit,
        );
        let seen = |seen: Seen| format!("{} exchanges in that time", seen.exchanges);
        result(
            &format!("unlearned_limit_errors{name}"),
            self.before.errors,
            "errors",
            format_args!("{config}; until the limit was learned, {}", seen(self.before)),
        );
        let Some(learned) = self.learned else {
            let passed = self.passed();
            note(format_args!("no learned_limit_errors{name}: not learned within {passed:.1?}"));
            return;
        };
        let took = format_args!("{learned:.1}");
        result(&format!("learning_limit_s{name}"), took, "s", &config);
        result(
            &format!("learned_limit_errors{name}"),
            self.after.errors,
            "errors",
            format_args!(
                "{config}; learned: {:?}; closed by the peer {}, for idleness {}; after it was \
                 learned, {}; target 0",
                stats.idle_limit(),
                stats.closed_for(CloseReason::PeerClosed),
                stats.closed_for(CloseReason::IdleTimeout),
                seen(self.after),
            ),
        );
    }
}

pub(crate) fn run() {
    let seconds = if is_quick() { 10 } else { 60 };
    let time = Duration::from_secs(seconds);
    // A short run is too short for the longer one.
    let limits = if is_quick() { &LIMITS[..1] } else { &LIMITS };
    let mut remote = Remote::start();
    let traffic = |&(limit, name)| Traffic::new(&mut remote, limit, name);
    let mut traffics = Vec::from_iter(limits.iter().map(traffic));
    thread::scope(|scope| {
        for traffic in &mut traffics {
            scope.spawn(|| {
                while traffic.passed() < time {
                    traffic.lap();
                }
            });
        }
    });
    traffics.iter().for_each(Traffic::report);
    // What never learned has nothing to show.
    if traffics.iter().all(|traffic| traffic.learned.is_some()) {
        let errors = traffics.iter().map(|traffic| traffic.after.errors).sum::<usize>();
        let config = format!(
            "{}: all servers together, after their limits were learned; target 0",
            version("warmline", "")
        );
        result("learned_limit_errors", errors, "errors", config);
    }
}
