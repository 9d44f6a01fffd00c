//! Where does the time of a request go, and is its connection used again? GETs of a URL, with the
//! steps of each.
//!
//! ```text
//! cargo run --example http_get --features http                          # a server of its own
//! cargo run --example http_get --features http http://127.0.0.1:8080/   # this URL, five times
//! cargo run --example http_get --features http http://127.0.0.1:8080/ 100
//! ```
#![expect(clippy::print_stdout, reason = "an example reports to its user")]

#[expect(dead_code, reason = "shared with the example http_service, which waits for its end")]
#[path = "http_service/service.rs"]
mod service;

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use warmline::http::{Client, Event, RequestBuilder};
use warmline::{Deadline, Stamp};

use self::service::Service;

type Failure = Box<dyn Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    env_logger::init();
    let mut arguments = std::env::args().skip(1);
    let client = Client::builder()
        .pool(|pool| pool.name("http_get").max_per_endpoint(4))
        .timeout(Duration::from_secs(60))
        .build()?;
    match arguments.next() {
        Some(url) => {
            let count = arguments.next().map_or(Ok(5), |count| count.parse())?;
            print_columns();
            (0..count).try_for_each(|_| measure("GET", client.get(&url)))?;
            report(&client, count);
        }
        None => demo(&client)?,
    }
    client.pool().drain(Deadline::after(Duration::from_secs(5)))?;
    Ok(())
}

/// Requests of each kind, to a server in this process.
fn demo(client: &Client) -> Result<(), Failure> {
    let service = Service::start("127.0.0.1:0")?;
    let url = |path: &str| format!("http://{}{path}", service.address());
    println!("the server is {}\n", url("/"));
    print_columns();
    measure("GET /", client.get(&url("/")))?;
    measure("GET /", client.get(&url("/")))?;
    measure("HEAD /", client.head(&url("/")))?;
    measure("POST /echo", client.post(&url("/echo")).body("a body that comes back"))?;
    measure("GET /chunked", client.get(&url("/chunked")))?;
    measure("GET /bytes/1000000", client.get(&url("/bytes/1000000")))?;
    measure("GET /slow?ms=50", client.get(&url("/slow?ms=50")))?;
    measure("GET /missing", client.get(&url("/missing")))?;
    measure("GET /, and no more", client.get(&url("/")).header("connection", "close"))?;
    measure("GET /", client.get(&url("/")))?;
    report(client, 10);
    println!("the server: {} connections, {} requests", service.accepted(), service.answered());
    if service.accepted() != 2 {
        return Err("connections were not used again".into());
    }
    Ok(())
}

/// Sends a request, reads all of its answer, and prints what happened when.
fn measure(name: &str, request: RequestBuilder<'_, '_>) -> Result<(), Failure> {
    let steps = Arc::new(Mutex::new(Steps::default()));
    let noted = Arc::clone(&steps);
    let request = request.trace(move |event: &Event| noted.lock().note(event));
    let response = request.send()?;
    let status = response.status().as_u16();
    io::copy(&mut response.into_body(), &mut io::sink())?;
    println!("{name:<20} {status:>6}  {}", steps.lock());
    Ok(())
}

/// What happened to one request: times from its beginning on.
#[derive(Default)]
struct Steps {
    began: Option<Stamp>,
    resolve: Option<Duration>,
    connect: Option<Duration>,
    waited: Option<Duration>,
    connection: String,
    wrote: Option<Duration>,
    first_byte: Option<Duration>,
    body_end: Option<Duration>,
    end: String,
}

impl Steps {
    fn note(&mut self, event: &Event) {
        let began = self.began;
        let since = |at: Stamp| began.map(|began| at.since(began));
        match *event {
            Event::Queued { at, .. } => self.began = began.or(Some(at)),
            Event::Resolved { took, .. } => self.resolve = Some(took),
            Event::Connected { took, .. } => self.connect = Some(took),
            Event::GotConnection { waited, is_reused, idle_for, .. } => {
                self.waited = Some(waited);
                self.connection = match is_reused {
                    true => format!("reused, idle {}", short(Some(idle_for))),
                    false => "new".to_owned(),
                };
            }
            Event::Wrote { at, .. } => self.wrote = since(at),
            Event::FirstByte { at, .. } => self.first_byte = since(at),
            Event::BodyEnd { at, .. } => self.body_end = since(at),
            Event::Returned { .. } => self.end = "returned".to_owned(),
            Event::Closed { reason, .. } => self.end = format!("closed: {reason}"),
            _ => {}
        }
    }
}

const COLUMNS: [&str; 6] = ["queued", "dns", "connect", "wrote", "first byte", "body end"];

fn print_columns() {
    let columns = COLUMNS.map(|name| format!("{name:>11}")).concat();
    println!("{:<20} {:>6}  {:<22}{columns}  then", "request", "status", "connection");
}

impl std::fmt::Display for Steps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let times =
            [self.waited, self.resolve, self.connect, self.wrote, self.first_byte, self.body_end];
        let times = times.map(|time| format!("{:>11}", short(time))).concat();
        write!(f, "{:<22}{times}  {}", self.connection, self.end)
    }
}

/// A time in a few characters.
fn short(time: Option<Duration>) -> String {
    let Some(time) = time else { return "-".to_owned() };
    match time.as_micros() {
        micros @ 0..1000 => format!("{micros} us"),
        micros @ 1000..1_000_000 => format!("{:.1} ms", micros as f64 / 1e3),
        micros => format!("{:.1} s", micros as f64 / 1e6),
    }
}

fn report(client: &Client, requests: u64) {
    let opened = client.pool().stats().opened();
    let reused = 100 * requests.saturating_sub(opened) / requests.max(1);
    println!(
        "\n{requests} requests, {opened} connections opened: {reused} % of the requests reused one"
    );
    println!("the pool: {}", client.pool().stats());
}
