//! One request on its way: through redirects, and past connections that have died.

use std::time::Duration;

use ::http::header;
use ::http::{Method, Request, Response, Uri};

use crate::clock::{self, Stamp};
use crate::guard::PooledConn;
use crate::http::body::{Body, Reading, Upgraded};
use crate::http::buffer::Written;
use crate::http::client::Client;
use crate::http::connector::OriginConnector;
use crate::http::content::Content;
use crate::http::error::{Error, ErrorKind, Stage};
use crate::http::exchange::{Answer, Broken, Cause, Exchange, Sending, Times};
use crate::http::origin::Site;
use crate::http::proto::{self, Fault, Framing, Size, Unfit, has_token};
use crate::http::redirect::{self, Course};
use crate::http::request::Options;
use crate::http::trace::{Event, Tracer};
use crate::http::upload::Upload;
use crate::key::Name;
use crate::observe::CloseReason;
use crate::pool::Endpoint;

/// Bodies that are no longer go with the head, in one write.
const SHORT: usize = 16 * 1024;
/// A request is sent again so often at the most: each time uses up a connection that had died.
const MOST_REPEATS: u32 = 32;
/// A connection that was idle for longer is looked at before it is used: something may have come
/// that nobody asked for, and would be taken for the answer. A look at each would cost requests that
/// follow each other closely a third system call.
const LOOK_AFTER: Duration = Duration::from_micros(50);
/// The body of a redirect is read up to here, so that its connection can be used for what follows.
const MOST_OF_REDIRECT: u64 = 64 * 1024;
const REDIRECT_TIME: Duration = Duration::from_millis(50);

/// One request on its way.
pub(super) struct Run<'r, 'b> {
    pub(super) client: &'r Client,
    pub(super) options: &'r Options,
    pub(super) times: Times,
    pub(super) tracer: &'r Tracer,
    pub(super) upload: Upload<'b>,
    /// The head as it was sent last, and the body as well where that is short.
    pub(super) written: Written,
}

impl Run<'_, '_> {
    /// Sends the request, and goes where it is sent.
    #[track_caller]
    pub(super) fn follow(&mut self, mut request: Request<()>) -> Result<Response<Body>, Error> {
        let settings = &self.client.settings;
        for (name, value) in &settings.headers {
            if !request.headers().contains_key(name) {
                request.headers_mut().append(name, value.clone());
            }
        }
        let most = self.options.redirects.unwrap_or(settings.max_redirects);
        for hop in 0..=most {
            let mut response = self.once(&request)?;
            let place = if most > 0 { self.next_place(&response, &request)? } else { None };
            let Some((course, target)) = place else {
                if hop > 0 {
                    response.extensions_mut().insert(request.uri().clone());
                }
                return Ok(response);
            };
            if let Some(reading) = response.body_mut().reading_mut() {
                reading.read_out(MOST_OF_REDIRECT, REDIRECT_TIME);
            }
            if hop == most {
                break;
            }
            let status = response.status();
            self.tracer.tell(|at| Event::Redirected { at, status });
            self.redirect(&mut request, course, &target);
        }
        let what = format!("the server has redirected the request more than {most} times");
        Err(Error::new(ErrorKind::Redirect, what))
    }

    /// Where an answer sends the request, if it does, and it can go there.
    fn next_place(
        &self,
        response: &Response<Body>,
        request: &Request<()>,
    ) -> Result<Option<(Course, Uri)>, Error> {
        let course = redirect::course(response.status(), request.method());
        let location = response.headers().get(header::LOCATION);
        let (Some(course), Some(location)) = (course, location) else { return Ok(None) };
        // What was read away cannot be sent again: its sender decides.
        if course == Course::Same && !self.upload.is_whole() {
            return Ok(None);
        }
        let nowhere = || Error::new(ErrorKind::Redirect, "the server redirects to nowhere");
        let target = redirect::target(request.uri(), location.as_bytes()).ok_or_else(nowhere)?;
        // Also of what goes by way of another server: it is to be spoken to as it asks.
        if target.scheme().is_some() {
            let origin = Site::of(&target).and_then(|site| site.to_key().map(drop));
            origin.map_err(|error| nowhere().because(error))?;
        }
        Ok(Some((course, target)))
    }

    fn redirect(&mut self, request: &mut Request<()>, course: Course, target: &Uri) {
        let from = std::mem::replace(request.uri_mut(), target.clone());
        redirect::strip(request.headers_mut(), &from, target, course);
        if course == Course::Get {
            self.upload = Upload::empty();
            if request.method() != Method::HEAD {
                *request.method_mut() = Method::GET;
            }
        }
    }

    /// Sends the request to the place that its URL names.
    #[track_caller]
    fn once(&mut self, request: &Request<()>) -> Result<Response<Body>, Error> {
        let endpoint = self.endpoint(request)?;
        let is_replayable = self.is_replayable(request);
        let has_body = !matches!(self.upload.size(), Size::None | Size::Known(0));
        let awaits_go_on =
            has_body && has_token(request.headers(), &header::EXPECT, "100-continue");
        let awaiting = proto::write_head(request, self.upload.size(), &mut self.written.0);
        let mut awaiting = awaiting.map_err(|fault| Error::request(fault.to_string()))?;
        let short = self.upload.bytes().filter(|bytes| !awaits_go_on && bytes.len() <= SHORT);
        self.written.0.extend_from_slice(short.unwrap_or_default());
        let is_joined = short.is_some();
        let mut tries = Tries { repeats: 0, had_farewell: false };
        loop {
            let mut conn = self.checkout(&endpoint)?;
            let mut past = Past::of(&mut conn, self.times.began);
            past.is_hot &= tries.repeats == 0;
            let broken = if let Some(broken) = past.look(&conn, is_replayable) {
                broken
            } else {
                let upload = (!is_joined).then_some(&mut self.upload);
                let sending = Sending { first: &self.written.0, upload, awaits_go_on };
                let socket = &mut conn.socket;
                let exchange = Exchange::new(socket, &mut awaiting, &self.times, self.tracer);
                match exchange.run(sending) {
                    Ok(answer)
                        if answer.is_farewell()
                            && past.may_be_stale
                            && is_replayable
                            && is_joined
                            && !tries.had_farewell =>
                    {
                        tries.had_farewell = true;
                        Broken { cause: Cause::Farewell, stage: Stage::Head }
                    }
                    Ok(answer) => {
                        return self.answered(answer, conn, &endpoint, !past.is_fresh);
                    }
                    Err(broken) => broken,
                }
            };
            let (written, read) = (conn.socket.bytes_written(), conn.socket.bytes_read());
            PooledConn::close(conn, broken.cause.reason());
            self.tracer.tell(|at| Event::Closed { at, reason: Unfit::Failed });
            let is_stale = past.may_be_stale && broken.cause.is_hang_up(read == 0);
            // Of what was not written the server knows nothing.
            let is_safe = match written {
                0 => self.upload.is_whole(),
                _ => is_replayable && self.upload.is_replayable(),
            };
            if !(is_stale && is_safe && tries.repeats < MOST_REPEATS && !self.times.is_over()) {
                let error = if is_stale { stale(broken.stage) } else { self.error_of(broken) };
                return Err(error.to(endpoint.key()));
            }
            tries.repeats += 1;
            self.tracer.tell(|at| Event::Repeated { at });
        }
    }

    fn endpoint(&self, request: &Request<()>) -> Result<Endpoint<OriginConnector>, Error> {
        if let Some(origin) = &self.options.via {
            return self.client.pool().endpoint(origin).map_err(Error::from_pool);
        }
        let uri = request.uri();
        let is_tunnel = request.method() == Method::CONNECT;
        let site = if is_tunnel { Site::of_tunnel(uri) } else { Site::of(uri) };
        let site = site.map_err(Error::from_pool)?;
        self.client.pool().endpoint(&site).map_err(Error::from_pool)
    }

    /// It does no harm when the server sees it twice.
    fn is_replayable(&self, request: &Request<()>) -> bool {
        let by_method = match *request.method() {
            Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE => true,
            Method::PUT | Method::DELETE => self.client.settings.replays_puts,
            _ => false,
        };
        let has_key = || {
            let headers = request.headers();
            headers.contains_key("idempotency-key") || headers.contains_key("x-idempotency-key")
        };
        self.options.is_replayable.unwrap_or_else(|| by_method || has_key())
    }

    #[track_caller]
    fn checkout(
        &self,
        endpoint: &Endpoint<OriginConnector>,
    ) -> Result<PooledConn<OriginConnector>, Error> {
        self.tracer.tell(|at| Event::Queued { at });
        let began = if self.tracer.is_on() { clock::mono() } else { Stamp::ZERO };
        let conn = match self.times.total {
            None => endpoint.get(),
            Some(total) => {
                let left = total.remaining();
                if left.is_zero() {
                    let error = Error::timeout(Stage::Checkout, self.times.waited());
                    return Err(error.to(endpoint.key()));
                }
                endpoint.get_timeout(left.min(endpoint.checkout_timeout()))
            }
        };
        let mut conn = conn.map_err(|error| Error::from_pool(error).to(endpoint.key()))?;
        if self.tracer.is_on() {
            let happened = PooledConn::exchange(&mut conn);
            let (is_reused, idle_for) = (happened.is_reused(), happened.idle_for());
            if !is_reused {
                let (resolve, connect) = (conn.resolve, conn.connect);
                self.tracer.tell(|at| Event::Resolved { at, took: resolve });
                self.tracer.tell(|at| Event::Connected { at, took: connect });
            }
            self.tracer.tell(|at| {
                let waited = at.since(began);
                Event::GotConnection { at, waited, is_reused, idle_for }
            });
        }
        Ok(conn)
    }

    /// There is an answer: its body begins.
    fn answered(
        &self,
        answer: Answer,
        mut conn: PooledConn<OriginConnector>,
        endpoint: &Endpoint<OriginConnector>,
        is_reused: bool,
    ) -> Result<Response<Body>, Error> {
        // What comes from here on is not part of what was read for the head.
        let heard = if answer.is_early { Stamp::ZERO } else { clock::mono() };
        let Answer { head, buffer, is_sent, .. } = answer;
        let is_news = |&seconds: &u32| seconds > 0 && conn.told_idle != Some(seconds);
        if let Some(seconds) = head.told.idle.filter(is_news) {
            conn.told_idle = Some(seconds);
            endpoint.note_idle_limit(Duration::from_secs(seconds.into()));
        }
        let unfit = head.unfit.or_else(|| (!is_sent).then_some(Unfit::UnfinishedRequest));
        if head.framing == Framing::Tunnel {
            let conn = PooledConn::detach(conn);
            self.tracer.tell(|at| Event::Closed { at, reason: Unfit::Upgraded });
            let upgraded = Upgraded::new(conn, buffer, &self.times).map_err(|error| {
                let what = "the connection failed after it was upgraded";
                Error::new(ErrorKind::Broken, what).because(error).to(endpoint.key())
            })?;
            return Ok(head.response.map(|()| Body::tunnel(upgraded, is_reused)));
        }
        let content = Content::new(head.framing, buffer);
        let is_empty = content.is_done();
        let mut reading =
            Reading::new(conn, content, unfit, (self.times, heard), self.tracer.clone());
        let body = if is_empty {
            reading.finish();
            Body::empty(is_reused)
        } else {
            let most = self.options.max_body.or(self.client.settings.max_body);
            Body::reading(reading, most, is_reused)
        };
        Ok(head.response.map(|()| body))
    }

    fn error_of(&self, broken: Broken) -> Error {
        let Broken { cause, stage } = broken;
        if cause.is_time_out() {
            return Error::timeout(stage, self.times.waited());
        }
        let error = match cause {
            Cause::Io(error) => {
                Error::new(ErrorKind::Broken, "the connection failed").because(error)
            }
            Cause::Ended | Cause::Farewell | Cause::Stray => {
                Error::new(ErrorKind::Broken, "the connection ended before there was an answer")
            }
            Cause::Fault(fault) => {
                Error::new(ErrorKind::Protocol, "the answer makes no sense").because(fault)
            }
            Cause::Stuck => {
                let what = "the server takes no more of the request before its answer is read";
                Error::new(ErrorKind::Broken, what)
            }
            Cause::TooLong => Error::new(ErrorKind::TooLong, "the head of the answer is too long"),
            Cause::Upload(error) => {
                Error::new(ErrorKind::Upload, "the body could not be read").because(error)
            }
        };
        error.at(stage)
    }
}

/// How often a request was sent, but for the first time.
struct Tries {
    repeats: u32,
    /// One of them was met by the farewell of an idle connection.
    had_farewell: bool,
}

/// What became of a connection before this request.
#[derive(Clone, Copy)]
struct Past {
    /// Nobody has used it.
    is_fresh: bool,
    /// It may have died while nobody used it: it is not one that was opened for this request.
    may_be_stale: bool,
    /// Its last answer has ended just now.
    is_hot: bool,
}

impl Past {
    fn of(conn: &mut PooledConn<OriginConnector>, began: Stamp) -> Self {
        let is_fresh = !PooledConn::is_reused(conn);
        let may_be_stale = !is_fresh || PooledConn::exchange(conn).was_idle();
        // It may have come back while this request waited for it.
        let now = if conn.rested >= began { clock::mono() } else { began };
        let is_hot = !is_fresh && now.since(conn.rested) < LOOK_AFTER;
        Self { is_fresh, may_be_stale, is_hot }
    }

    /// A look at the connection, where something may have come, or where it could not be made good
    /// if it had died.
    fn look(self, conn: &PooledConn<OriginConnector>, is_replayable: bool) -> Option<Broken> {
        if self.is_hot && is_replayable {
            return None;
        }
        let found = conn.socket.probe()?;
        let cause = match found {
            CloseReason::StrayBytes if self.is_fresh && !self.may_be_stale => {
                Cause::Fault(Fault::new("the server spoke before it was asked"))
            }
            CloseReason::StrayBytes => Cause::Stray,
            _ => Cause::Ended,
        };
        Some(Broken { cause, stage: Stage::Write })
    }
}

fn stale(stage: Stage) -> Error {
    let what = "the server had closed the connection before it answered";
    Error::new(ErrorKind::Stale, what).at(stage)
}
