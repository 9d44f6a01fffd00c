//! A pool with very many connections to very many endpoints.

use std::time::Duration;

use peers::version;
use warmline::{Endpoint, Pool};

use crate::crowd::Threads;
use crate::numbers::{Numbers, PATIENCE, PLACES};

pub(crate) const ENDPOINTS: usize = 1_000;
/// Connections to each.
const EACH: usize = 8;
pub(crate) const IN_USE: usize = 1_000;
/// More than there are.
const LIMIT: usize = 10_000;
/// Of one in trouble: endpoints where somebody waits, as many as a report tells of.
const WAITED_FOR: usize = 20;
/// Endpoints that cannot be reached, and waits in vain: more than are remembered.
const AWAY: usize = 40;
const IN_VAIN: usize = 80;

/// The pool, and who uses it.
pub(crate) struct Fleet {
    pub(crate) pool: Pool<Numbers>,
    endpoints: Vec<Endpoint<Numbers>>,
    holders: Threads,
    waiters: Threads,
    /// What it is like, in words.
    pub(crate) words: String,
}

impl Fleet {
    /// Every endpoint has one connection in use, and nobody waits.
    pub(crate) fn calm() -> Self {
        Self::new(1, 0, "1 in use at each, nobody waits".to_owned())
    }

    /// Some endpoints have all in use, and somebody waits there; others cannot be reached.
    pub(crate) fn troubled() -> Self {
        let words = format!(
            "all {EACH} in use at {} of them and 1 at others, a thread waits at {WAITED_FOR}, and \
             {AWAY} endpoints more cannot be reached",
            WAITED_FOR + 1
        );
        let fleet = Self::new(EACH, WAITED_FOR + 1, words);
        for number in 0..AWAY {
            let name = format!("away-{number:04}.cache.eu-west.example.com:6379");
            fleet.pool.get(name.as_str()).map(drop).expect_err("there is no such server");
        }
        for _ in 0..IN_VAIN {
            let gone = fleet.full().get_timeout(Duration::from_nanos(1));
            gone.map(drop).expect_err("all are in use");
        }
        fleet
    }

    /// With `most` connections in use at `busy` endpoints, and one at others: `IN_USE`. The busy
    /// ones were opened last: who looks for theirs among all connections sees all others first.
    fn new(most: usize, busy: usize, words: String) -> Self {
        let builder = Pool::builder(Numbers::default()).name("fleet");
        let builder = builder.max_total(LIMIT).max_idle(LIMIT).max_per_endpoint(EACH);
        let builder = builder.idle_timeout(None).max_lifetime(None).min_idle(0);
        let pool = builder.build().expect("limits that fit each other");
        let open = |number| {
            let name = format!("shard-{number:04}.cache.eu-west.example.com:6379");
            let endpoint = pool.endpoint(name.as_str()).expect("any text is a key");
            assert_eq!(endpoint.warm(EACH, PATIENCE).expect("it opens"), EACH);
            endpoint
        };
        let endpoints = Vec::from_iter((0..ENDPOINTS).map(open));
        let times = |number| if number < busy { most } else { 1 };
        let wanted = endpoints.iter().rev().enumerate();
        let wanted = wanted.flat_map(|(number, it)| std::iter::repeat_n(it, times(number)));
        let mut shares = vec![Vec::new(); PLACES.len()];
        for (number, endpoint) in wanted.take(IN_USE).enumerate() {
            shares[number % PLACES.len()].push(endpoint.clone());
        }
        let holders = Threads::that_hold(shares);
        let waiters = endpoints.iter().rev().take(busy.saturating_sub(1));
        let waiters = Threads::that_wait(waiters);
        let fleet = Self { pool, endpoints, holders, waiters, words };
        let stats = fleet.pool.stats();
        assert_eq!((stats.total(), stats.in_use()), (ENDPOINTS * EACH, IN_USE));
        fleet
    }

    /// An endpoint with all its connections in use, where nobody waits; of a fleet in trouble.
    pub(crate) fn full(&self) -> &Endpoint<Numbers> {
        &self.endpoints[ENDPOINTS - 1 - WAITED_FOR]
    }

    /// An endpoint that has idle connections.
    pub(crate) fn quiet(&self) -> &Endpoint<Numbers> {
        &self.endpoints[0]
    }

    pub(crate) fn settings() -> String {
        format!(
            "{}: max_total={LIMIT} max_idle={LIMIT} max_per_endpoint={EACH} idle_timeout=None \
             max_lifetime=None, a connector without sockets; {ENDPOINTS} endpoints, {} open \
             connections, {IN_USE} in use: with {} threads, each by another line",
            version("warmline", ""),
            ENDPOINTS * EACH,
            PLACES.len(),
        )
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.pool.close();
        self.holders.end();
        self.waiters.end();
    }
}
