//! warmline's client.

use std::error::Error;

use peers::version;
use warmline::http::{self, ErrorKind};

use crate::client::{BoxError, Client};

/// Connections to a server, as by default; where there are more threads, as many as these.
const LEAST: usize = 32;

/// With its default time-outs: each step of a request is bounded.
pub(crate) struct Warmline(pub(crate) http::Client);

impl Client for Warmline {
    const NAME: &'static str = "warmline";
    type Body = http::Body;

    fn settings() -> String {
        let version = version("warmline", "");
        let limits = format!("max_per_endpoint=max_idle=max({LEAST}, threads)");
        format!("{version}: http::Client, defaults but {limits}")
    }

    fn new(threads: usize) -> Self {
        let limits = move |pool: warmline::Builder<http::OriginConnector>| {
            let most = threads.max(LEAST);
            pool.max_per_endpoint(most).max_idle(most)
        };
        Self(http::Client::builder().pool(limits).build().expect("limits that fit each other"))
    }

    fn get(&self, url: &str) -> Result<Self::Body, BoxError> {
        Ok(self.0.get(url).send()?.into_body())
    }

    fn post(&self, url: &str, body: &'static str) -> Result<Self::Body, BoxError> {
        Ok(self.0.post(url).body(body).send()?.into_body())
    }
}

/// True if warmline says that the server had closed the connection before it was used again.
pub(crate) fn is_stale(error: &(dyn Error + 'static)) -> bool {
    let is_ours = |error: &http::Error| error.kind() == ErrorKind::Stale;
    error.downcast_ref().is_some_and(is_ours) || error.source().is_some_and(is_stale)
}
