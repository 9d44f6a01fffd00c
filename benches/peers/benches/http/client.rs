//! The clients that are compared.

use std::error::Error;
use std::io::Read;

use peers::version;

use crate::ours::Warmline;
use crate::raw::Raw;
use crate::target::Target;

pub(crate) type BoxError = Box<dyn Error + Send + Sync>;

/// What bodies are read into.
pub(crate) const BUFFER: usize = 64 << 10;
/// What a POST sends.
const SENT: &str = "hello";

/// A client, made once and shared by threads.
pub(crate) trait Client: Sync + Sized + 'static {
    /// In the names of figures; those of warmline go without it.
    const NAME: &'static str;
    type Body: Read;

    /// The crate, and how it differs from its defaults.
    fn settings() -> String;

    /// One for so many threads, or connections.
    fn new(threads: usize) -> Self;

    /// Sends a request; returns with the head of the answer.
    fn get(&self, url: &str) -> Result<Self::Body, BoxError>;

    /// The same, with a body to send.
    fn post(&self, url: &str, body: &'static str) -> Result<Self::Body, BoxError>;
}

/// What one thread does again and again: a request, and its answer read to the end.
pub(crate) type Visit<'c> = Box<dyn FnMut() -> Result<(), BoxError> + 'c>;

/// Something that threads visit a server with.
pub(crate) trait Visitor: Sync {
    fn visits<'c>(&'c self, target: &'c Target) -> Visit<'c>;
}

impl<C: Client> Visitor for C {
    fn visits<'c>(&'c self, target: &'c Target) -> Visit<'c> {
        let mut buffer = vec![0; BUFFER];
        Box::new(move || {
            let body = match target.method {
                "POST" => self.post(&target.url, SENT)?,
                _ => self.get(&target.url)?,
            };
            read(body, &mut buffer, target)
        })
    }
}

/// Reads a body to its end.
pub(crate) fn read(
    mut body: impl Read,
    buffer: &mut [u8],
    target: &Target,
) -> Result<(), BoxError> {
    let mut length = 0;
    loop {
        match body.read(buffer)? {
            0 => break,
            read => length += read as u64,
        }
    }
    match length == target.bytes {
        true => Ok(()),
        false => Err(format!("{length} bytes in the place of {}", target.bytes).into()),
    }
}

/// One that takes part.
#[derive(Clone, Copy)]
pub(crate) struct Candidate {
    pub(crate) name: &'static str,
    pub(crate) settings: fn() -> String,
    pub(crate) open: fn(usize) -> Box<dyn Visitor>,
}

impl Candidate {
    pub(crate) const RAW: Self =
        Self { name: Raw::NAME, settings: Raw::settings, open: |_| Box::new(Raw) };

    pub(crate) const fn of<C: Client>() -> Self {
        Self { name: C::NAME, settings: C::settings, open: |threads| Box::new(C::new(threads)) }
    }

    pub(crate) fn is_ours(&self) -> bool {
        self.name == Warmline::NAME
    }

    /// The name of a figure.
    pub(crate) fn figure(&self, name: &str, suffix: &str) -> String {
        let form = if self.is_ours() { String::new() } else { format!("_{}", self.name) };
        format!("{name}{form}{suffix}")
    }

    /// What a figure should be, for ours.
    pub(crate) fn goal(&self, ours: &'static str) -> &'static str {
        if self.is_ours() { ours } else { "for comparison" }
    }
}

// ---- ureq

/// With no time-outs, which is its default.
pub(crate) struct Ureq(ureq::Agent);

/// Its default is 3 for a host: more threads would open connections all the time.
fn agent(threads: usize) -> ureq::config::ConfigBuilder<ureq::typestate::AgentScope> {
    let most = 2 * threads + 8;
    let config = ureq::Agent::config_builder().proxy(None);
    config.max_idle_connections(most).max_idle_connections_per_host(most)
}

impl Client for Ureq {
    const NAME: &'static str = "ureq";
    type Body = ureq::BodyReader<'static>;

    fn settings() -> String {
        let version = version("ureq", "3");
        format!("{version}: Agent, max_idle_connections and _per_host=2*threads+8")
    }

    fn new(threads: usize) -> Self {
        Self(agent(threads).build().into())
    }

    fn get(&self, url: &str) -> Result<Self::Body, BoxError> {
        Ok(self.0.get(url).call()?.into_body().into_reader())
    }

    fn post(&self, url: &str, body: &'static str) -> Result<Self::Body, BoxError> {
        Ok(self.0.post(url).send(body)?.into_body().into_reader())
    }
}

/// With a time-out.
pub(crate) struct UreqTimeout(Ureq);

impl UreqTimeout {
    const TIMEOUT: std::time::Duration = std::time::Duration::from_secs(30);
}

impl Client for UreqTimeout {
    const NAME: &'static str = "ureq_timeout";
    type Body = ureq::BodyReader<'static>;

    fn settings() -> String {
        format!("{}, timeout_global={:?}", Ureq::settings(), Self::TIMEOUT)
    }

    fn new(threads: usize) -> Self {
        let config = agent(threads).timeout_global(Some(Self::TIMEOUT));
        Self(Ureq(config.build().into()))
    }

    fn get(&self, url: &str) -> Result<Self::Body, BoxError> {
        self.0.get(url)
    }

    fn post(&self, url: &str, body: &'static str) -> Result<Self::Body, BoxError> {
        self.0.post(url, body)
    }
}

// ---- reqwest

pub(crate) struct Reqwest(reqwest::blocking::Client);

impl Client for Reqwest {
    const NAME: &'static str = "reqwest";
    type Body = reqwest::blocking::Response;

    fn settings() -> String {
        format!("{}: blocking::Client, defaults (a time-out of 30 s)", version("reqwest", "0.13"))
    }

    fn new(_: usize) -> Self {
        let builder = reqwest::blocking::Client::builder().no_proxy();
        Self(builder.build().expect("defaults fit each other"))
    }

    fn get(&self, url: &str) -> Result<Self::Body, BoxError> {
        Ok(self.0.get(url).send()?)
    }

    fn post(&self, url: &str, body: &'static str) -> Result<Self::Body, BoxError> {
        Ok(self.0.post(url).body(body).send()?)
    }
}

// ---- attohttpc

/// It connects for each request.
pub(crate) struct Attohttpc(attohttpc::Session);

impl Client for Attohttpc {
    const NAME: &'static str = "attohttpc";
    type Body = attohttpc::ResponseReader;

    fn settings() -> String {
        format!("{}: Session, defaults, a connection for each request", version("attohttpc", ""))
    }

    fn new(_: usize) -> Self {
        let mut session = attohttpc::Session::new();
        session.proxy_settings(attohttpc::ProxySettings::builder().build());
        Self(session)
    }

    fn get(&self, url: &str) -> Result<Self::Body, BoxError> {
        Ok(self.0.get(url).send()?.split().2)
    }

    fn post(&self, url: &str, body: &'static str) -> Result<Self::Body, BoxError> {
        Ok(self.0.post(url).text(body).send()?.split().2)
    }
}
