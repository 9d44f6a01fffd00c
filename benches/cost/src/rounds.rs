//! What is measured.

use std::hint::black_box;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::thread;
use std::time::Duration;

use warmline::http::Client;
use warmline::{BoxError, Connector, Endpoint, One, Opening, Pool, TcpConnector};

/// One figure.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    /// Makes a pool with idle connections, then so many rounds.
    pub(crate) run: fn(u64),
}

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "checkout",
        what: "Endpoint::get and the return, TcpConnector, 10 idle",
        run: by_handle,
    },
    Case {
        name: "checkout_key",
        what: "Pool::get by text and the return, TcpConnector, 10 idle",
        run: by_text,
    },
    Case {
        name: "try_get",
        what: "Endpoint::try_get and the return, TcpConnector, 10 idle",
        run: trying,
    },
    Case {
        name: "checkout_custom",
        what: "Endpoint::get and the return, a connector with defaults and no socket, 10 idle",
        run: of_custom,
    },
    Case {
        name: "request",
        what: "Endpoint::request, served at once, received, and the return, TcpConnector, 10 idle",
        run: by_request,
    },
    Case {
        name: "http_get",
        what: "Client::get by URL, an answer of 5 bytes read to its end, and the return",
        run: by_url,
    },
];

const IDLE: usize = 10;

/// On a thread of its own, whose memory is its own: what it costs to allocate there depends on
/// nothing that other threads did.
fn measure(count: u64, visit: impl FnMut() + Send) {
    thread::scope(|scope| {
        scope.spawn(|| rounds(count, visit));
    });
}

/// Must stay a function of its own: callgrind counts what is done inside.
#[inline(never)]
fn rounds(count: u64, mut visit: impl FnMut()) {
    for _ in 0..count {
        visit();
    }
}

fn by_handle(count: u64) {
    let tcp = Tcp::new();
    measure(count, || drop(black_box(tcp.endpoint.get().expect("a connection"))));
}

fn by_text(count: u64) {
    let tcp = Tcp::new();
    let (pool, text) = (tcp.endpoint.pool(), tcp.text.as_str());
    measure(count, || drop(black_box(pool.get(black_box(text)).expect("a connection"))));
}

fn trying(count: u64) {
    let tcp = Tcp::new();
    measure(count, || drop(black_box(tcp.endpoint.try_get().expect("an idle connection"))));
}

fn of_custom(count: u64) {
    let endpoint = Endpoint::of(Counting).expect("default settings");
    warm(&endpoint);
    measure(count, || *endpoint.get().expect("a connection") += 1);
}

fn by_request(count: u64) {
    let tcp = Tcp::new();
    measure(count, || {
        let request = tcp.endpoint.request().expect("an open pool");
        let answer = request.receiver().recv().expect("one answer arrives");
        drop(black_box(answer.expect("a connection")));
    });
}

fn by_url(count: u64) {
    let (client, url) = (Client::new(), format!("http://{}/", answering()));
    let mut buffer = [0; 64];
    let mut get = || {
        let mut body = client.get(black_box(&url)).send().expect("an answer").into_body();
        while body.read(&mut buffer).expect("an answer") > 0 {}
    };
    get();
    measure(count, get);
}

/// Where one connection is answered, whatever is asked in the one segment of a request.
fn answering() -> SocketAddr {
    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nServer: cost\r\n\
        Date: Thu, 01 Jan 1970 00:00:00 GMT\r\nContent-Type: text/plain\r\n\
        Content-Length: 5\r\nConnection: keep-alive\r\n\r\nhello";
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let serve = move || {
        let (mut stream, _) = listener.accept().expect("somebody connects");
        let mut request = [0; 4096];
        while stream.read(&mut request).is_ok_and(|read| read > 0) {
            stream.write_all(ANSWER).expect("somebody reads");
        }
    };
    thread::Builder::new().name("server".to_owned()).spawn(serve).expect("one thread more");
    address
}

/// A pool of sockets on loopback. Nobody accepts them: they stay in the listener's backlog.
struct Tcp {
    endpoint: Endpoint<TcpConnector>,
    text: String,
    _listener: TcpListener,
}

impl Tcp {
    fn new() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let text = listener.local_addr().expect("it is bound").to_string();
        let endpoint = Pool::tcp().endpoint(&text).expect("an address");
        warm(&endpoint);
        Self { endpoint, text, _listener: listener }
    }
}

fn warm<C: Connector>(endpoint: &Endpoint<C>) {
    let opened = endpoint.warm(IDLE, Duration::from_secs(30)).expect("the listener has room");
    assert_eq!(opened, IDLE);
}

/// What is opened counts its uses.
struct Counting;

impl Connector for Counting {
    type Key = One;
    type Conn = u64;

    fn open(&self, _: &One, _: &mut Opening) -> Result<u64, BoxError> {
        Ok(0)
    }
}
