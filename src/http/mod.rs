//! An HTTP/1.1 client whose connections live in a [`Pool`](crate::Pool).
//!
//! ```
//! # use std::io::{Read, Write};
//! # let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
//! # let url = format!("http://{}/", listener.local_addr()?);
//! # std::thread::spawn(move || {
//! #     let (mut stream, _) = listener.accept().unwrap();
//! #     while stream.read(&mut [0; 1024]).is_ok_and(|count| count > 0) {
//! #         stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").unwrap();
//! #     }
//! # });
//! use warmline::http::Client;
//!
//! let client = Client::new();
//! let response = client.get(&url).send()?;
//! assert_eq!(response.status(), 200);
//! assert_eq!(response.into_body().text()?, "hello");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Requests, answers, headers and methods are those of the `http` crate, which is exported here as
//! [`types`].
//!
//! # Reuse
//!
//! The rules are those of Go's `http.Transport`, but for what it is known to have wrong. A
//! connection is used again once an answer was read to its end, by its length or its last chunk; it
//! goes back with the read that delivers the last byte. It is never used again after anything that
//! casts doubt on where the answer ended: [`Unfit`] lists the reasons. What is dropped unread is
//! read by the pool, if it is little.
//!
//! A connection that the server closes while it is idle is closed at once. One that it closes at the
//! moment of the request is replaced, and the request sent again, where that is
//! [safe](Client::send). `Keep-Alive: timeout=` and `max=` are believed.
//!
//! What nobody can see: bytes that a server sends behind an answer, later than that and before the
//! next request, if that follows within 50 µs. A connection that rested longer is looked at first.
//!
//! TLS, proxies (but for [`via`](RequestBuilder::via)), compression and cookies are for later.

mod body;
mod buffer;
mod builder;
mod client;
mod connector;
mod content;
mod error;
mod exchange;
mod origin;
mod proto;
mod redirect;
mod request;
mod run;
mod trace;
mod upload;

/// The crate of the types that requests and answers are made of.
pub use ::http as types;

pub use self::body::{Body, Upgraded};
pub use self::builder::Builder;
pub use self::client::Client;
pub use self::connector::{Conn, OriginConnector};
pub use self::error::{Error, ErrorKind, Stage};
pub use self::origin::Origin;
pub use self::proto::Unfit;
pub use self::request::RequestBuilder;
pub use self::trace::{Event, Trace};
pub use self::upload::Upload;
