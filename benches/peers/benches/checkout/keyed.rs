//! Many endpoints, named by text.

use std::net::SocketAddr;
use std::time::Duration;

use peers::{Rng, version};
use warmline::{BoxError, Connector, Endpoint, Opening, Plan, Pool, Socket, Stats};

/// How many endpoints are many.
pub(crate) const MANY: usize = 1_000;
/// More than there are endpoints, so that limits play no part.
const LIMIT: usize = 1_100;
/// Long enough that no branch predictor learns it; a power of two.
const ORDER: usize = 1 << 14;
const TEXT_LEN: usize = 41;

/// One pool over endpoints with idle connections each, and an order to visit them in.
pub(crate) struct Keyed {
    pool: Pool<Anywhere>,
    endpoints: Vec<Endpoint<Anywhere>>,
    texts: Vec<String>,
    order: Vec<u16>,
}

/// How far somebody has come in the order.
#[derive(Clone, Copy, Default)]
pub(crate) struct Place(usize);

/// Leads every key to one address.
struct Anywhere(SocketAddr);

impl Connector for Anywhere {
    type Key = String;
    type Conn = Socket;

    fn plan(&self, _: &String) -> Plan {
        Plan::addrs([self.0])
    }

    fn open(&self, _: &String, opening: &mut Opening) -> Result<Socket, BoxError> {
        opening.take_socket()
    }

    fn socket<'c>(&self, conn: &'c mut Socket) -> Option<&'c mut Socket> {
        Some(conn)
    }
}

impl Keyed {
    /// With `count` endpoints, each with `idle` connections.
    pub(crate) fn new(address: SocketAddr, rng: &mut Rng, count: usize, idle: usize) -> Self {
        let builder = Pool::builder(Anywhere(address)).max_total(LIMIT).max_idle(LIMIT);
        let pool = builder.build().expect("limits that fit each other");
        let name = |number| format!("shard-{number:04}.cache.eu-west.example.com:6379");
        let texts = Vec::from_iter((0..count).map(name));
        assert!(texts.iter().all(|text| text.len() == TEXT_LEN));
        let open = |text: &String| {
            let endpoint = pool.endpoint(text.as_str()).expect("any text is a key");
            let opened = endpoint.warm(idle, Duration::from_secs(5));
            assert_eq!(opened.expect("the server accepts"), idle);
            endpoint
        };
        let endpoints = texts.iter().map(open).collect();
        let order = (0..ORDER).map(|_| rng.below(count) as u16).collect();
        Self { pool, endpoints, texts, order }
    }

    pub(crate) fn settings() -> String {
        format!(
            "{}: max_total={LIMIT} max_idle={LIMIT}, a connector over Socket; {MANY} endpoints in \
             random order, {TEXT_LEN}-byte texts, 1 idle connection each",
            version("warmline", "")
        )
    }

    pub(crate) fn stats(&self) -> Stats {
        self.pool.stats()
    }

    /// A place in the order, `part` (0 to 1) of the way.
    pub(crate) fn place(part: f64) -> Place {
        Place((part * ORDER as f64) as usize)
    }

    /// Checks out by text and returns, `count` times.
    pub(crate) fn visit_by_text(&self, place: &mut Place, count: u64) {
        for _ in 0..count {
            let text = &self.texts[self.advance(place)];
            let conn = self.pool.get(text.as_str()).expect("a connection");
            std::hint::black_box(&conn);
        }
    }

    /// Checks out through handles and returns, `count` times.
    pub(crate) fn visit_by_handle(&self, place: &mut Place, count: u64) {
        for _ in 0..count {
            let conn = self.endpoints[self.advance(place)].get().expect("a connection");
            std::hint::black_box(&conn);
        }
    }

    fn advance(&self, place: &mut Place) -> usize {
        place.0 = (place.0 + 1) % ORDER;
        usize::from(self.order[place.0])
    }
}
