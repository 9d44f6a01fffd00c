//! Settings of a client.

use std::fmt;
use std::time::Duration;

use ::http::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::builder::Builder as PoolBuilder;
use crate::connector::SocketOptions;
use crate::http::client::Client;
use crate::http::connector::{DRAIN_TIME, OriginConnector};
use crate::http::error::Error;
use crate::http::request::field;
use crate::http::trace::{Trace, Tracer};
use crate::pool::Pool;
use crate::sync::Arc;

/// One read of a socket blocks so long at a time; who waits longer reads again, and who may not
/// wait so long asks first. So that no request need set it.
const TICK: Duration = Duration::from_millis(500);

type SetPool = dyn FnOnce(PoolBuilder<OriginConnector>) -> PoolBuilder<OriginConnector> + Send;

/// What all requests of a client have in common.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) headers: HeaderMap,
    pub(crate) write: Duration,
    pub(crate) head: Duration,
    pub(crate) read: Duration,
    pub(crate) go_on: Duration,
    pub(crate) total: Option<Duration>,
    pub(crate) max_body: Option<u64>,
    pub(crate) max_redirects: u32,
    pub(crate) replays_puts: bool,
    pub(crate) fails_on_status: bool,
    pub(crate) tracer: Tracer,
}

/// Makes a [`Client`] with other settings than the defaults.
///
/// Every wait has an end of its own; [`timeout`](Builder::timeout) bounds their sum.
///
/// ```
/// use std::time::Duration;
/// use warmline::http::Client;
///
/// let client = Client::builder()
///     .timeout(Duration::from_secs(10))
///     .header("user-agent", "orders/1.0")
///     .pool(|pool| pool.max_per_endpoint(8).connect_timeout(Duration::from_secs(1)))
///     .build()?;
/// # Ok::<(), warmline::http::Error>(())
/// ```
#[must_use = "settings do nothing before build()"]
pub struct Builder {
    settings: Settings,
    options: SocketOptions,
    pool: Box<SetPool>,
    /// The first setting that makes no sense.
    refused: Option<Error>,
}

impl Builder {
    pub(crate) fn new() -> Self {
        let mut headers = HeaderMap::new();
        let agent = concat!("warmline/", env!("CARGO_PKG_VERSION"));
        headers.insert(header::USER_AGENT, HeaderValue::from_static(agent));
        headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
        let settings = Settings {
            headers,
            write: Duration::from_secs(30),
            head: Duration::from_secs(30),
            read: Duration::from_secs(30),
            go_on: Duration::from_secs(1),
            total: None,
            max_body: None,
            max_redirects: 10,
            replays_puts: false,
            fails_on_status: false,
            tracer: Tracer::default(),
        };
        let options = SocketOptions::new();
        Self { settings, options, pool: Box::new(|pool| pool), refused: None }
    }

    /// Settings of the pool: how many connections, and how long a checkout (default 5 s), a name and
    /// a connect (together 3 s) may take.
    ///
    /// Defaults as [the pool's](crate::Builder), but that a body which was dropped unread is read for
    /// 50 ms. Whatever [`probe_after`](crate::Builder::probe_after) says, a connection is looked at
    /// before it is used again, unless its last answer ended less than 50 µs ago.
    pub fn pool(
        mut self,
        set: impl FnOnce(PoolBuilder<OriginConnector>) -> PoolBuilder<OriginConnector> + Send + 'static,
    ) -> Self {
        let before = self.pool;
        self.pool = Box::new(|pool| set(before(pool)));
        self
    }

    /// Options of the sockets. Their time-outs have no effect: those here have.
    pub fn socket(mut self, options: SocketOptions) -> Self {
        self.options = options;
        self
    }

    /// A header for all requests that do not have it, in the place of the default of that name.
    /// Default: `user-agent` and `accept: */*`.
    pub fn header<N, V>(mut self, name: N, value: V) -> Self
    where
        N: TryInto<HeaderName, Error: Into<::http::Error>>,
        V: TryInto<HeaderValue, Error: Into<::http::Error>>,
    {
        match field(name, value) {
            Ok((name, value)) => drop(self.settings.headers.insert(name, value)),
            Err(error) => _ = self.refused.get_or_insert(error),
        }
        self
    }

    /// No default headers, of those that were set so far.
    pub fn no_headers(mut self) -> Self {
        self.settings.headers.clear();
        self
    }

    /// How long the server may take no byte of a request. Default: 30 s.
    pub fn write_timeout(mut self, timeout: Duration) -> Self {
        self.settings.write = timeout;
        self
    }

    /// How long the head of the answer may take, once the request is written. Default: 30 s.
    pub fn head_timeout(mut self, timeout: Duration) -> Self {
        self.settings.head = timeout;
        self
    }

    /// How long the answer's body may pause between two reads. Default: 30 s.
    pub fn read_timeout(mut self, timeout: Duration) -> Self {
        self.settings.read = timeout;
        self
    }

    /// How long a request that asked for it waits for the server's word to go on; then its body is
    /// sent without. Default: 1 s.
    pub fn continue_timeout(mut self, timeout: Duration) -> Self {
        self.settings.go_on = timeout;
        self
    }

    /// How long a request may take as a whole: checkout, redirects and repeats, and the answer to its
    /// last byte. Default: `None`, as long as its steps may take.
    pub fn timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.settings.total = timeout.into();
        self
    }

    /// Bytes that the body of an answer may have. Default: no limit when it is streamed, 10 MiB when
    /// it is read into memory.
    pub fn max_body(mut self, bytes: impl Into<Option<u64>>) -> Self {
        self.settings.max_body = bytes.into();
        self
    }

    /// How many redirects are followed; beyond that it is an
    /// [error](crate::http::ErrorKind::Redirect). Zero: none is, they are answers. Default: 10.
    pub fn max_redirects(mut self, most: u32) -> Self {
        self.settings.max_redirects = most;
        self
    }

    /// Whether a PUT or DELETE is sent again if its connection had died, as a GET is: they are
    /// idempotent by the standard, and not always so in practice. Default: no.
    pub fn replay_puts(mut self, yes: bool) -> Self {
        self.settings.replays_puts = yes;
        self
    }

    /// Whether an answer of 400 and above is an [error](crate::http::ErrorKind::Status). Default: no.
    pub fn error_for_status(mut self, yes: bool) -> Self {
        self.settings.fails_on_status = yes;
        self
    }

    /// Is told what happens to each request. Default: nobody, at no cost.
    pub fn trace(mut self, trace: impl Trace + 'static) -> Self {
        self.settings.tracer = Tracer(Some(Arc::new(trace)));
        self
    }

    /// The client. Plain memory until its first request.
    ///
    /// # Errors
    ///
    /// [`Request`](crate::http::ErrorKind::Request), with the name of the setting that makes no
    /// sense.
    pub fn build(self) -> Result<Client, Error> {
        if let Some(error) = self.refused {
            return Err(error);
        }
        let Settings { write, head, read, total, .. } = self.settings;
        let times = [("write_timeout", write), ("head_timeout", head), ("read_timeout", read)];
        let least = Duration::from_millis(1);
        let total = total.map(|total| ("timeout", total));
        for (name, value) in times.into_iter().chain(total) {
            if value < least {
                let what = format!("{name}({value:?}): must be at least {least:?}");
                return Err(Error::request(what));
            }
        }
        let options = self.options.read_timeout(TICK).write_timeout(TICK);
        let pool = Pool::builder(OriginConnector { options }).settle_timeout(DRAIN_TIME);
        let pool = (self.pool)(pool).build().map_err(Error::from_pool)?;
        Ok(Client::of(pool, self.settings))
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").finish_non_exhaustive()
    }
}
