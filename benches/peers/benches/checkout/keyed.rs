//! Many endpoints, named by text.

use std::net::SocketAddr;
use std::time::Duration;

use peers::{Rng, version};
use warmline::{BoxError, Connector, Endpoint, Opening, Plan, Pool, Socket};

const ENDPOINTS: usize = 1_000;
/// More than there are endpoints, so that limits play no part.
const LIMIT: usize = 1_100;
/// Long enough that no branch predictor learns it; a power of two.
const ORDER: usize = 1 << 14;
const TEXT_LEN: usize = 41;

/// One pool over endpoints with an idle connection each, and an order to visit them in.
pub(crate) struct Keyed {
    pool: Pool<Anywhere>,
    endpoints: Vec<Endpoint<Anywhere>>,
    texts: Vec<String>,
    order: Vec<u16>,
    next: usize,
}

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
    pub(crate) fn new(address: SocketAddr, rng: &mut Rng) -> Self {
        let builder = Pool::builder(Anywhere(address)).max_total(LIMIT).max_idle(LIMIT);
        let pool = builder.build().expect("limits that fit each other");
        let name = |number| format!("shard-{number:04}.cache.eu-west.example.com:6379");
        let texts = Vec::from_iter((0..ENDPOINTS).map(name));
        assert!(texts.iter().all(|text| text.len() == TEXT_LEN));
        let open = |text: &String| {
            let endpoint = pool.endpoint(text.as_str()).expect("any text is a key");
            let opened = endpoint.warm(1, Duration::from_secs(5));
            assert_eq!(opened.expect("the server accepts"), 1);
            endpoint
        };
        let endpoints = texts.iter().map(open).collect();
        let order = (0..ORDER).map(|_| rng.below(ENDPOINTS) as u16).collect();
        Self { pool, endpoints, texts, order, next: 0 }
    }

    pub(crate) fn settings() -> String {
        format!(
            "{}: max_total={LIMIT} max_idle={LIMIT}, a connector over Socket; {ENDPOINTS} \
             endpoints in random order, {TEXT_LEN}-byte texts, 1 idle connection each",
            version("warmline", "")
        )
    }

    /// Checks out by text and returns, `count` times.
    pub(crate) fn visit_by_text(&mut self, count: u64) {
        for _ in 0..count {
            let place = self.advance();
            let conn = self.pool.get(self.texts[place].as_str()).expect("a connection");
            std::hint::black_box(&conn);
        }
    }

    /// Checks out through handles and returns, `count` times.
    pub(crate) fn visit_by_handle(&mut self, count: u64) {
        for _ in 0..count {
            let place = self.advance();
            let conn = self.endpoints[place].get().expect("a connection");
            std::hint::black_box(&conn);
        }
    }

    fn advance(&mut self) -> usize {
        self.next = (self.next + 1) % ORDER;
        usize::from(self.order[self.next])
    }
}
