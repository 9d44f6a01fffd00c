//! The HTTP client, and servers that others have written.

mod haproxy;
mod nginx;
mod service;

#[expect(dead_code, reason = "the example waits for its end")]
#[path = "../../../examples/http_service/service.rs"]
mod example;

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use warmline::http::{Body, Client, Error, Event, Unfit, types};

use crate::support::SOON;

/// A client with the default settings, but that it waits long enough for a machine that is busy.
fn client() -> Client {
    Client::builder().pool(|pool| pool.checkout_timeout(SOON)).timeout(SOON).build().unwrap()
}

/// Also tells why connections were not used again.
fn client_and_ends() -> (Client, Arc<Mutex<Vec<Unfit>>>) {
    let ends = Arc::<Mutex<Vec<Unfit>>>::default();
    let noted = Arc::clone(&ends);
    let trace = move |event: &Event| {
        if let Event::Closed { reason, .. } = event {
            noted.lock().push(*reason);
        }
    };
    let client = Client::builder().timeout(SOON).trace(trace).build().unwrap();
    (client, ends)
}

/// Status and text.
fn text_of(answer: Result<types::Response<Body>, Error>) -> (u16, String) {
    let answer = answer.unwrap();
    (answer.status().as_u16(), answer.into_body().text().unwrap())
}

/// A body that can be told from every other part of itself.
fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|at| (at % 251) as u8 ^ (at / 251 % 256) as u8).collect()
}

/// A body that comes a bit at a time.
struct Slow {
    pieces: usize,
    pause: Duration,
}

impl Read for Slow {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        if self.pieces == 0 {
            return Ok(0);
        }
        self.pieces -= 1;
        std::thread::sleep(self.pause);
        (&b"slow"[..]).read(out)
    }
}
