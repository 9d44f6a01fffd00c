//! One request, before it is sent.

use std::fmt;
use std::time::Duration;

use ::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use ::http::{Method, Request, Response, Uri};

use crate::http::body::Body;
use crate::http::client::Client;
use crate::http::error::Error;
use crate::http::origin::Origin;
use crate::http::proto::basic;
use crate::http::trace::{Trace, Tracer};
use crate::http::upload::Upload;
#[cfg(unix)]
use crate::key::SocketPath;
use crate::sync::Arc;

/// What one request has in its own way.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    pub(crate) timeout: Option<Duration>,
    pub(crate) max_body: Option<u64>,
    pub(crate) redirects: Option<u32>,
    pub(crate) is_replayable: Option<bool>,
    pub(crate) fails_on_status: Option<bool>,
    pub(crate) tracer: Tracer,
    /// Where it goes, whatever its URL says.
    pub(crate) via: Option<Origin>,
}

/// A request in the making. What is wrong with it is said by [`send`](RequestBuilder::send).
///
/// ```
/// # use std::io::{Read, Write};
/// # let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
/// # let url = format!("http://{}/orders", listener.local_addr()?);
/// # std::thread::spawn(move || {
/// #     let (mut stream, _) = listener.accept().unwrap();
/// #     let _ = stream.read(&mut [0; 1024]).unwrap();
/// #     stream.write_all(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n").unwrap();
/// #     let _ = stream.read(&mut [0; 1024]);
/// # });
/// use std::time::Duration;
/// use warmline::http::Client;
///
/// let client = Client::new();
/// let response = client
///     .post(&url)
///     .bearer_auth("token")
///     .header("content-type", "application/json")
///     .timeout(Duration::from_secs(5))
///     .body(r#"{"item": 7}"#)
///     .send()?;
/// assert_eq!(response.status(), 201);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "a request does nothing before send()"]
pub struct RequestBuilder<'c, 'b> {
    client: &'c Client,
    request: Result<Request<()>, Error>,
    upload: Upload<'b>,
    options: Options,
}

impl<'c> RequestBuilder<'c, '_> {
    pub(crate) fn of<'u>(
        client: &'c Client,
        request: Request<()>,
        upload: Upload<'u>,
    ) -> RequestBuilder<'c, 'u> {
        RequestBuilder { client, request: Ok(request), upload, options: Options::default() }
    }

    pub(crate) fn new(client: &'c Client, method: Method, url: &str) -> Self {
        let mut request = Request::new(());
        *request.method_mut() = method;
        let request = match url.parse::<Uri>() {
            Ok(uri) => {
                *request.uri_mut() = uri;
                Ok(request)
            }
            Err(error) => Err(Error::request("that is no URL").because(error)),
        };
        Self { client, request, upload: Upload::empty(), options: Options::default() }
    }

    /// Adds a header: beside others of the same name.
    pub fn header<N, V>(mut self, name: N, value: V) -> Self
    where
        N: TryInto<HeaderName, Error: Into<::http::Error>>,
        V: TryInto<HeaderValue, Error: Into<::http::Error>>,
    {
        let added = field(name, value).and_then(|(name, value)| match &mut self.request {
            Ok(request) => {
                let added = request.headers_mut().try_append(name, value).map(drop);
                added.map_err(|_| Error::request("the request has too many headers"))
            }
            Err(_) => Ok(()),
        });
        match added {
            Ok(()) => self,
            Err(error) => self.fail(error),
        }
    }

    /// Sets headers, in the place of those of the same names.
    pub fn headers(mut self, headers: HeaderMap) -> Self {
        if let Ok(request) = &mut self.request {
            let mut name = None;
            for (next, value) in headers {
                let is_new = next.is_some();
                name = next.or(name);
                let Some(name) = &name else { continue };
                if is_new {
                    request.headers_mut().insert(name, value);
                } else {
                    request.headers_mut().append(name, value);
                }
            }
        }
        self
    }

    /// Says who asks, by name and password (RFC 7617).
    pub fn basic_auth(self, user: &str, password: &str) -> Self {
        if user.contains(':') {
            return self.refuse("a user's name must not have a colon in it");
        }
        self.authorization(&basic(format!("{user}:{password}").as_bytes()))
    }

    /// Says who asks, by a token (RFC 6750).
    pub fn bearer_auth(self, token: &str) -> Self {
        self.authorization(&format!("Bearer {token}"))
    }

    fn authorization(mut self, value: &str) -> Self {
        let Ok(mut value) = HeaderValue::from_str(value) else {
            return self.refuse("the credentials cannot be written to a header");
        };
        value.set_sensitive(true);
        if let Ok(request) = &mut self.request {
            request.headers_mut().insert(header::AUTHORIZATION, value);
        }
        self
    }

    fn refuse(self, why: &str) -> Self {
        self.fail(Error::request(why))
    }

    /// Of several errors the first is told.
    fn fail(mut self, error: Error) -> Self {
        self.request = self.request.and(Err(error));
        self
    }

    /// The body to send.
    pub fn body<'u>(self, upload: impl Into<Upload<'u>>) -> RequestBuilder<'c, 'u> {
        let Self { client, request, upload: _, options } = self;
        RequestBuilder { client, request, upload: upload.into(), options }
    }

    /// Asks the server whether it wants the body before it is sent (`Expect: 100-continue`), and
    /// waits for its word for [`continue_timeout`](crate::http::Builder::continue_timeout).
    pub fn expect_continue(self) -> Self {
        self.header(header::EXPECT, "100-continue")
    }

    /// How long all of it may take: checkout, redirects and repeats, and the answer to its last
    /// byte. Default: [the client's](crate::http::Builder::timeout).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.options.timeout = Some(timeout);
        self
    }

    /// Bytes that the answer's body may have. Default: [the client's](crate::http::Builder::max_body).
    pub fn max_body(mut self, bytes: u64) -> Self {
        self.options.max_body = Some(bytes);
        self
    }

    /// How many redirects are followed; zero: none. Default: [the
    /// client's](crate::http::Builder::max_redirects).
    pub fn max_redirects(mut self, most: u32) -> Self {
        self.options.redirects = Some(most);
        self
    }

    /// Whether this request does no harm when the server sees it twice, whatever its method: then it
    /// is sent again where its connection had died. Default: GET, HEAD, OPTIONS and TRACE, those with
    /// an `Idempotency-Key`, and what [the client](crate::http::Builder::replay_puts) adds.
    pub fn replayable(mut self, yes: bool) -> Self {
        self.options.is_replayable = Some(yes);
        self
    }

    /// Whether an answer of 400 and above is an [error](crate::http::ErrorKind::Status). Default: [as
    /// the client](crate::http::Builder::error_for_status).
    pub fn error_for_status(mut self, yes: bool) -> Self {
        self.options.fails_on_status = Some(yes);
        self
    }

    /// Is told what happens to this request, in the place of the client's.
    pub fn trace(mut self, trace: impl Trace + 'static) -> Self {
        self.options.tracer = Tracer(Some(Arc::new(trace)));
        self
    }

    /// Sends the request to this server, whatever host its URL names. For proxies that are asked for
    /// a tunnel (CONNECT), and for servers that are not where their names lead to.
    pub fn via(mut self, server: Origin) -> Self {
        self.options.via = Some(server);
        self
    }

    /// Sends the request over a Unix socket; its URL says what the server there is to be told:
    /// `http://localhost/path`, say. On Unix only.
    #[cfg(unix)]
    pub fn unix_socket(self, path: impl AsRef<std::path::Path>) -> Self {
        match SocketPath::new(path.as_ref()) {
            Ok(path) => self.via(Origin::unix(path)),
            Err(error) => self.refuse(&error.to_string()),
        }
    }

    /// Sends it, and waits for the head of the answer. See [`Client::send`].
    ///
    /// # Blocking
    ///
    /// As [`Client::send`].
    ///
    /// # Errors
    ///
    /// As [`Client::send`], and if what the builder was given makes no sense.
    #[track_caller]
    pub fn send(self) -> Result<Response<Body>, Error> {
        let request = self.request?;
        self.client.run(request, self.upload, &self.options)
    }
}

/// A header, if it is one.
pub(crate) fn field<N, V>(name: N, value: V) -> Result<(HeaderName, HeaderValue), Error>
where
    N: TryInto<HeaderName, Error: Into<::http::Error>>,
    V: TryInto<HeaderValue, Error: Into<::http::Error>>,
{
    let no_header = |error: ::http::Error| Error::request("that is no header").because(error);
    let name = name.try_into().map_err(|error| no_header(error.into()))?;
    let value = value.try_into().map_err(|error| no_header(error.into()))?;
    Ok((name, value))
}

impl fmt::Debug for RequestBuilder<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("RequestBuilder");
        match &self.request {
            // Paths and headers may be secret.
            Ok(request) => debug.field("method", request.method()),
            Err(error) => debug.field("error", error),
        };
        debug.field("upload", &self.upload).finish_non_exhaustive()
    }
}
