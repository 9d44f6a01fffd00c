//! Many connects at once, beside as many that hang.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, unbounded};
use peers::{Rng, Spread, is_quick, now_ns, percentile, result, version};
use warmline::{Connected, Observer, Pool, TcpConnector};

use crate::remote::{End, Remote};

const PATIENCE: Duration = Duration::from_secs(30);
const GOOD: usize = 500;
const HANGING: usize = 500;
/// What hangs has sent its first packet by then, and not yet its second.
const UNDER_WAY: Duration = Duration::from_millis(100);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Beside {
    Nothing,
    /// The others have been hanging for a while.
    Hanging,
    /// The others were asked for in the same moment, before the good ones.
    Beginning,
}

impl Beside {
    const ALL: [Self; 3] = [Self::Nothing, Self::Hanging, Self::Beginning];

    const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "parallel_connect",
            Self::Hanging => "parallel_connect_with_hanging",
            Self::Beginning => "parallel_connect_with_beginning",
        }
    }

    fn words(self) -> String {
        match self {
            Self::Nothing => "nothing else under way".to_owned(),
            Self::Hanging => format!("beside {HANGING} that have been hanging for 0.1 s"),
            Self::Beginning => {
                format!("beside {HANGING} that hang, asked for in the same moment before them")
            }
        }
    }
}

/// Passes on when a connection was ready.
struct Teller(Sender<u64>);

impl Observer for Teller {
    fn connected(&self, event: &Connected) {
        let _nobody_listens = self.0.send(event.at().as_nanos());
    }
}

fn pool() -> (Pool<TcpConnector>, Receiver<u64>) {
    let (teller, ready) = unbounded();
    let all = GOOD + HANGING;
    let builder = Pool::builder(TcpConnector::new()).observer(Teller(teller));
    let builder = builder.max_total(all).max_per_endpoint(GOOD.max(HANGING)).max_idle(all);
    let builder = builder.max_connecting(all).connect_timeout(PATIENCE);
    (builder.build().expect("limits that fit each other"), ready)
}

/// Milliseconds from the request to each good connection.
fn round(remote: &mut Remote, good: SocketAddr, hanging: SocketAddr, beside: Beside) -> Vec<f64> {
    let (pool, ready) = pool();
    // The threads run before anything is timed.
    let endpoint = pool.endpoint(&good).expect("an address");
    assert_eq!(remote.accept(good, 1, || endpoint.warm(1, PATIENCE)).ok(), Some(1));
    assert!(ready.recv_timeout(PATIENCE).is_ok());
    let took = thread::scope(|scope| {
        if beside != Beside::Nothing {
            let hanging = pool.endpoint(&hanging).expect("an address");
            scope.spawn(move || hanging.warm(HANGING, PATIENCE));
            while pool.stats().connecting() < HANGING {
                std::hint::spin_loop();
            }
        }
        if beside == Beside::Hanging {
            thread::sleep(UNDER_WAY);
        }
        let mut began = 0;
        let open = || {
            began = now_ns();
            endpoint.warm(GOOD, PATIENCE).expect("the server accepts")
        };
        assert_eq!(remote.accept(good, GOOD - 1, open), GOOD);
        let took = |_| {
            let at = ready.recv_timeout(PATIENCE).expect("it is told of each");
            at.saturating_sub(began) as f64 / 1e6
        };
        let took = Vec::from_iter((1..GOOD).map(took));
        if beside != Beside::Nothing {
            assert_eq!(pool.stats().connecting(), HANGING, "they still hang");
        }
        // By the server, so that no port is left in TIME_WAIT here.
        remote.end_all(End::Reset, || {});
        pool.close();
        took
    });
    assert_eq!(pool.stats().events_dropped(), 0);
    took
}

pub(crate) fn run() {
    let rounds = if is_quick() { 3 } else { 21 };
    let mut remote = Remote::start();
    let (good, hanging) = (remote.listen(), remote.hang());
    let mut rng = Rng::new(4);
    let mut order = Beside::ALL;
    let mut p99s = [Vec::new(), Vec::new(), Vec::new()];
    let mut p50s = p99s.clone();
    for _ in 0..rounds {
        rng.shuffle(&mut order);
        for beside in order {
            let took = round(&mut remote, good, hanging, beside);
            p50s[beside as usize].push(percentile(&took, 0.5));
            p99s[beside as usize].push(percentile(&took, 0.99));
        }
    }
    let config = format!(
        "{}: TcpConnector max_total=max_idle=max_connecting={}, {GOOD} connections to one endpoint \
         asked for at once by warm(); the time from that call to Connected::at() of each; {rounds} \
         interleaved rounds, a new pool in each",
        version("warmline", ""),
        GOOD + HANGING,
    );
    for beside in Beside::ALL {
        let p99 = Spread::of(p99s[beside as usize].iter().copied());
        let p50 = Spread::of(p50s[beside as usize].iter().copied());
        result(
            &format!("{}_p99_ms", beside.name()),
            format_args!("{:.1}", p99.median),
            "ms",
            format_args!(
                "{config}; {}; median of the rounds' p99 {p99}, of their p50 {:.1} ms",
                beside.words(),
                p50.median,
            ),
        );
    }
    let median = |beside: Beside| Spread::of(p99s[beside as usize].iter().copied()).median;
    for (beside, name) in [(Beside::Hanging, ""), (Beside::Beginning, "_beginning")] {
        let rounds = Spread::of_ratios(&p99s[beside as usize], &p99s[Beside::Nothing as usize]);
        result(
            &format!("parallel_connect{name}_p99_ratio"),
            format_args!("{:.2}", median(beside) / median(Beside::Nothing)),
            "ratio",
            format_args!(
                "{config}; {} to nothing else under way; of the medians of the rounds' p99; target \
                 <= 1.5; ratios of the rounds {rounds:.2}",
                beside.words(),
            ),
        );
    }
}
