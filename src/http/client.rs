//! The client: what all requests have in common.

use std::fmt;

use ::http::{Method, Request, Response};

use crate::clock::{self, Deadline};
use crate::http::body::Body;
use crate::http::buffer::Written;
use crate::http::builder::{Builder, Settings};
use crate::http::connector::OriginConnector;
use crate::http::error::Error;
use crate::http::exchange::Times;
use crate::http::request::{Options, RequestBuilder};
use crate::http::run::Run;
use crate::http::upload::Upload;
use crate::pool::Pool;
use crate::sync::Arc;

/// Sends HTTP/1.1 requests, over connections that are kept and used again. Cloning makes a second
/// handle to the same client.
///
/// Its connections live in a [`Pool`], with its limits, its waiting, and its knowledge of those that
/// have died. Share one client between threads.
///
/// # Examples
///
/// ```
/// # use std::io::{Read, Write};
/// # let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
/// # let url = format!("http://{}/", listener.local_addr()?);
/// # std::thread::spawn(move || {
/// #     let (mut stream, _) = listener.accept().unwrap();
/// #     while stream.read(&mut [0; 1024]).is_ok_and(|count| count > 0) {
/// #         stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").unwrap();
/// #     }
/// # });
/// use warmline::http::Client;
///
/// let client = Client::new();
/// for _ in 0..3 {
///     let response = client.get(&url).send()?;
///     assert_eq!(response.into_body().text()?, "hello");
/// }
/// assert_eq!(client.pool().stats().opened(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Client {
    pool: Pool<OriginConnector>,
    pub(super) settings: Arc<Settings>,
}

impl Client {
    /// A client with the default settings.
    #[must_use]
    #[expect(clippy::missing_panics_doc, reason = "the defaults fit each other")]
    pub fn new() -> Self {
        Self::builder().build().expect("the defaults fit each other")
    }

    /// For a client with other settings.
    pub fn builder() -> Builder {
        Builder::new()
    }

    pub(crate) fn of(pool: Pool<OriginConnector>, settings: Settings) -> Self {
        Self { pool, settings: Arc::new(settings) }
    }

    /// The pool of its connections: for counts, reports, warming, limits of single origins, and its
    /// end.
    #[must_use]
    pub const fn pool(&self) -> &Pool<OriginConnector> {
        &self.pool
    }

    /// A GET of this URL.
    pub fn get(&self, url: &str) -> RequestBuilder<'_, 'static> {
        self.request(Method::GET, url)
    }

    /// A HEAD of this URL.
    pub fn head(&self, url: &str) -> RequestBuilder<'_, 'static> {
        self.request(Method::HEAD, url)
    }

    /// A POST to this URL.
    pub fn post(&self, url: &str) -> RequestBuilder<'_, 'static> {
        self.request(Method::POST, url)
    }

    /// A PUT to this URL.
    pub fn put(&self, url: &str) -> RequestBuilder<'_, 'static> {
        self.request(Method::PUT, url)
    }

    /// A PATCH of this URL.
    pub fn patch(&self, url: &str) -> RequestBuilder<'_, 'static> {
        self.request(Method::PATCH, url)
    }

    /// A DELETE of this URL.
    pub fn delete(&self, url: &str) -> RequestBuilder<'_, 'static> {
        self.request(Method::DELETE, url)
    }

    /// A request of any method.
    pub fn request(&self, method: Method, url: &str) -> RequestBuilder<'_, 'static> {
        RequestBuilder::new(self, method, url)
    }

    /// Sends a request, and waits for the head of its answer; redirects are followed.
    ///
    /// A request whose connection turns out to have died while it was idle is sent again on
    /// another, where that is safe: if nothing of it was written, or if it does no harm when the
    /// server sees it twice ([which do not](RequestBuilder::replayable)). Otherwise the error's kind
    /// is [`Stale`](crate::http::ErrorKind::Stale).
    ///
    /// If it was redirected, the URL that answered is among the answer's extensions, as a
    /// [`Uri`](::http::Uri).
    ///
    /// # Blocking
    ///
    /// Until the head of the answer is there. Each step is bounded: see [`Builder`].
    ///
    /// # Errors
    ///
    /// [`ErrorKind`](crate::http::ErrorKind) lists them. An answer of 400 and above is none, unless
    /// [asked for](Builder::error_for_status).
    #[track_caller]
    pub fn send<'b, B: Into<Upload<'b>>>(
        &self,
        request: Request<B>,
    ) -> Result<Response<Body>, Error> {
        self.prepare(request).send()
    }

    /// A request that was made elsewhere, for settings of its own.
    ///
    /// ```
    /// use std::time::Duration;
    /// use warmline::http::{Client, types};
    ///
    /// let client = Client::new();
    /// let request = types::Request::put("http://127.0.0.1:1/").body("text")?;
    /// let error = client.prepare(request).timeout(Duration::from_secs(1)).send().unwrap_err();
    /// assert_eq!(error.origin(), Some("http://127.0.0.1:1")); // nobody listens there
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn prepare<'b, B: Into<Upload<'b>>>(&self, request: Request<B>) -> RequestBuilder<'_, 'b> {
        let (parts, body) = request.into_parts();
        RequestBuilder::of(self, Request::from_parts(parts, ()), body.into())
    }

    #[track_caller]
    pub(crate) fn run(
        &self,
        request: Request<()>,
        upload: Upload<'_>,
        options: &Options,
    ) -> Result<Response<Body>, Error> {
        let settings = &*self.settings;
        let began = clock::mono();
        let total = options.timeout.or(settings.total);
        let total = total.map(|total| Deadline::at(began.plus(total)));
        let times = Times {
            write: settings.write,
            head: settings.head,
            read: settings.read,
            go_on: settings.go_on,
            total,
            began,
        };
        let tracer = if options.tracer.is_on() { &options.tracer } else { &settings.tracer };
        let tracer = &tracer.begin(request.method(), request.uri());
        let written = Written::new();
        let mut run = Run { client: self, options, times, tracer, upload, written };
        let response = run.follow(request)?;
        let fails = options.fails_on_status.unwrap_or(settings.fails_on_status);
        let status = response.status();
        if fails && (status.is_client_error() || status.is_server_error()) {
            return Err(Error::status_of(status));
        }
        Ok(response)
    }
}

impl Default for Client {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("pool", &self.pool).finish_non_exhaustive()
    }
}
