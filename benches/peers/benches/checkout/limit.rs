//! More endpoints than there may be connections: how many exchanges still find one open.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::thread;

use peers::{Rng, Server, Spread, is_quick, now_ns, result, version};
use warmline::{Endpoint, Pool, TcpConnector};

const ENDPOINTS: usize = 40;
/// Connections at most, of all endpoints together.
const LIMIT: usize = 20;
const THREADS: usize = 16;
/// Exchanges of a thread that stays with one endpoint before it picks another.
const STAY: usize = 100;
const MESSAGE: usize = 16;

/// How the threads pick endpoints, always at random.
#[derive(Clone, Copy, Debug)]
enum Pick {
    /// For so many exchanges that it pays to keep the connection.
    Stay,
    /// For every exchange anew, which is as hard on a pool as can be.
    Uniform,
}

impl Pick {
    const ALL: [Self; 2] = [Self::Stay, Self::Uniform];

    const fn exchanges_in_turn(self) -> usize {
        match self {
            Self::Stay => STAY,
            Self::Uniform => 1,
        }
    }
}

/// What one round came to.
struct Round {
    /// Percent of the exchanges that had a connection that was open already.
    reuse: f64,
    /// Exchanges per second, of all threads.
    pace: f64,
}

fn exchange(endpoint: &Endpoint<TcpConnector>) {
    let mut message = [7; MESSAGE];
    let mut conn = endpoint.get().expect("every endpoint gets its turn");
    conn.write_all(&message).expect("the server reads");
    conn.read_exact(&mut message).expect("the server answers");
}

/// So many exchanges on each thread, with a new pool.
fn round(addresses: &[SocketAddr], pick: Pick, exchanges: usize, seeds: &mut Rng) -> Round {
    let pool = Pool::builder(TcpConnector::new()).max_total(LIMIT).build().expect("one limit");
    let endpoint = |address| pool.endpoint(address).expect("an address");
    let endpoints = Vec::from_iter(addresses.iter().map(endpoint));
    let began = now_ns();
    thread::scope(|scope| {
        for _ in 0..THREADS {
            let (endpoints, mut rng) = (&endpoints, Rng::new(seeds.next()));
            scope.spawn(move || {
                for _ in 0..exchanges / pick.exchanges_in_turn() {
                    let endpoint = &endpoints[rng.below(ENDPOINTS)];
                    (0..pick.exchanges_in_turn()).for_each(|_| exchange(endpoint));
                }
            });
        }
    });
    let seconds = (now_ns() - began) as f64 / 1e9;
    let (stats, all) = (pool.stats(), exchanges * THREADS);
    assert_eq!(stats.checkouts(), all as u64, "every exchange had its checkout");
    assert!(stats.total() <= LIMIT);
    Round { reuse: 100.0 * (1.0 - stats.opened() as f64 / all as f64), pace: all as f64 / seconds }
}

pub(crate) fn run() {
    let (rounds, exchanges) = if is_quick() { (1, 5 * STAY) } else { (5, 20 * STAY) };
    let listen = |_| Server::echo().expect("a listener on loopback").address;
    let addresses = Vec::from_iter((0..ENDPOINTS).map(listen));
    let mut rng = Rng::new(6);
    let mut order = Pick::ALL;
    let mut done = [Vec::new(), Vec::new()];
    for _ in 0..rounds {
        rng.shuffle(&mut order);
        for pick in order {
            done[pick as usize].push(round(&addresses, pick, exchanges, &mut rng));
        }
    }
    for pick in Pick::ALL {
        let (name, words) = match pick {
            Pick::Stay => ("", format!("{STAY} exchanges with one, then another; target >= 95")),
            Pick::Uniform => {
                let bound = 100 * LIMIT / ENDPOINTS;
                let words = format!(
                    "another for every exchange; bound {bound}: {LIMIT} of {ENDPOINTS} can be \
                     open, of which the other threads use up to {}",
                    THREADS - 1
                );
                ("_uniform", words)
            }
        };
        let rounds_done = &done[pick as usize];
        let reuse = Spread::of(rounds_done.iter().map(|round| round.reuse));
        let pace = Spread::of(rounds_done.iter().map(|round| round.pace));
        result(
            &format!("reuse_at_limit{name}_percent"),
            format_args!("{:.2}", reuse.median),
            "%",
            format_args!(
                "{}: TcpConnector max_total={LIMIT}, {ENDPOINTS} endpoints, threads={THREADS}, \
                 each with endpoints picked at random: {words}; 1 - opened / checkouts, one \
                 checkout per exchange of {MESSAGE} bytes; {rounds} interleaved rounds of {} \
                 exchanges, a new pool in each; {reuse:.2}, {:.0} exchanges/s {pace:.0}",
                version("warmline", ""),
                exchanges * THREADS,
                pace.median,
            ),
        );
    }
}
