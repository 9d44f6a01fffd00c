//! What do I try a client against? A small HTTP/1.1 service: a thread per connection, keep-alive,
//! bodies with a length or in chunks, and limits on everything.
//!
//! ```text
//! cargo run --example http_service                    # on a free port of this machine
//! cargo run --example http_service 127.0.0.1:8080
//! curl -v http://127.0.0.1:8080/ http://127.0.0.1:8080/chunked    # on one connection
//! ```
//!
//! `/` is a text, `/echo` answers a POST with its body, `/slow?ms=500` takes its time,
//! `/bytes/1000` is so long, `/chunked` comes in chunks, with a trailer.
#![expect(clippy::print_stdout, reason = "an example reports to its user")]

#[expect(dead_code, reason = "shared with the example http_get, which ends it and counts")]
mod service;

use std::io;

use self::service::Service;

fn main() -> io::Result<()> {
    env_logger::init();
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".into());
    let service = Service::start(address)?;
    println!("listening on http://{}/", service.address());
    service.wait();
    Ok(())
}
