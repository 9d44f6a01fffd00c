//! HTTP/1.1 without I/O: requests become bytes, bytes become answers.
//!
//! Heads are written and parsed by [`ureq_proto`]; no type of it leaves this module. Around it
//! stands a guard for what it leaves lax: limits, transfer codings, interim answers; and bodies are
//! undone here, for their trailers and for reads that go straight to the caller.

mod chunked;
mod framing;

pub use self::framing::Unfit;

pub(crate) use self::chunked::{Chunked, copy};
pub(crate) use self::framing::{Framing, Told, has_token};

use std::borrow::Cow;
use std::fmt;

use ::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use ::http::{Method, Request, Response, StatusCode, Version};
use ureq_proto::client::{Call, RecvResponseResult, SendRequestResult, state};
use ureq_proto::{BodyMode, Error};

/// The most that heads may have: of an answer, and of those that announce it, together.
pub(crate) const MOST_HEAD_BYTES: usize = 64 * 1024;
/// More interim answers (1xx) before one are refused.
const MOST_INTERIM: u32 = 16;

/// What the server sent is not HTTP, or not safe to go on with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault(Cow<'static, str>);

impl Fault {
    pub(crate) const fn new(what: &'static str) -> Self {
        Self(Cow::Borrowed(what))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Fault {}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self(Cow::Owned(error.to_string()))
    }
}

/// How much follows the head of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Size {
    /// Nothing, not even zero bytes.
    None,
    Known(u64),
    Unknown,
}

/// A request whose head was written, and whose answer is yet to come.
pub(crate) struct Awaiting {
    /// Present until the answer is there.
    call: Option<Call<state::RecvResponse>>,
    method: Method,
    asked_upgrade: bool,
    asked_close: bool,
    interim: u32,
}

/// What has come so far.
#[derive(Debug)]
pub(crate) enum Step {
    /// Not enough.
    More,
    /// Something before the answer: 100, 103 …, so many bytes long.
    Interim(usize, StatusCode),
    /// The answer's head.
    Head(Head),
}

/// The head of an answer.
#[derive(Debug)]
pub(crate) struct Head {
    /// Bytes that it took.
    pub(crate) used: usize,
    pub(crate) response: Response<()>,
    pub(crate) framing: Framing,
    /// Why the connection is not to be used again, if that is known already.
    pub(crate) unfit: Option<Unfit>,
    pub(crate) told: Told,
}

/// Writes the head of a request, in the place of what is in `out`.
///
/// # Errors
///
/// If the request makes no sense: the caller's mistake.
pub(crate) fn write_head(
    mut request: Request<()>,
    size: Size,
    out: &mut Vec<u8>,
) -> Result<Awaiting, Fault> {
    frame(&mut request, size)?;
    name_host(&mut request)?;
    let headers = request.headers();
    let method = request.method().clone();
    let asks = |token| has_token(headers, &header::CONNECTION, token);
    let has_wishes = headers.contains_key(header::CONNECTION);
    let asked_close = request.version() == Version::HTTP_10 || (has_wishes && asks("close"));
    let asked_upgrade = has_wishes && asks("upgrade") && headers.contains_key(header::UPGRADE);
    let fields = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4);
    let room = request.uri().path().len() + request.uri().query().unwrap_or_default().len();
    let authority = request.uri().authority().map_or(0, |authority| authority.as_str().len());
    // The line, what is added, and credentials as they are written.
    let room = fields.sum::<usize>() + room + 3 * authority + method.as_str().len() + 128;

    let mut call = Call::new(request)?;
    call.allow_non_standard_methods(true);
    if matches!(size, Size::Known(_) | Size::Unknown) {
        call.force_send_body();
    }
    let mut call = call.proceed();
    out.clear();
    out.resize(room, 0);
    let written = call.write(out)?;
    if !call.can_proceed() {
        return Err(Fault::new("the head of the request is too long"));
    }
    out.truncate(written);
    // Bodies are written elsewhere: for the parser, this one is.
    let call = match call.proceed()? {
        Some(SendRequestResult::RecvResponse(call)) => Some(call),
        Some(SendRequestResult::SendBody(call)) => sent(call, size)?,
        Some(SendRequestResult::Await100(call)) => match call.proceed()? {
            ureq_proto::client::Await100Result::SendBody(call) => sent(call, size)?,
            ureq_proto::client::Await100Result::RecvResponse(call) => Some(call),
        },
        None => None,
    };
    if call.is_none() {
        return Err(Fault::new("the request has no end"));
    }
    Ok(Awaiting { call, method, asked_upgrade, asked_close, interim: 0 })
}

/// Says which host is meant, unless the request says so itself: as the URL has it, without its
/// scheme's own port.
fn name_host(request: &mut Request<()>) -> Result<(), Fault> {
    if request.headers().contains_key(header::HOST) || request.method() == Method::CONNECT {
        return Ok(());
    }
    let Some(authority) = request.uri().authority() else { return Ok(()) };
    let text = authority.as_str();
    let host = text.rsplit_once('@').map_or(text, |(_, host)| host);
    let own_port = if request.uri().scheme_str() == Some("https") { ":443" } else { ":80" };
    let host = host.strip_suffix(own_port).unwrap_or(host);
    let host = HeaderValue::from_str(host).map_err(|_| Fault::new("that is no host"))?;
    request.headers_mut().insert(header::HOST, host);
    Ok(())
}

/// The headers of a request that was written.
pub(crate) fn headers_of(written: &[u8]) -> Result<HeaderMap, Fault> {
    const NO_SENSE: Fault = Fault::new("the request has too many headers to be sent again");
    let mut fields = [httparse::EMPTY_HEADER; 256];
    let mut head = httparse::Request::new(&mut fields);
    head.parse(written).map_err(|_| NO_SENSE)?;
    let mut headers = HeaderMap::new();
    for field in head.headers {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| NO_SENSE)?;
        let value = HeaderValue::from_bytes(field.value).map_err(|_| NO_SENSE)?;
        headers.append(name, value);
    }
    Ok(headers)
}

/// Says how long the body is, unless the request says so itself.
fn frame(request: &mut Request<()>, size: Size) -> Result<(), Fault> {
    if !matches!(request.version(), Version::HTTP_10 | Version::HTTP_11) {
        return Err(Fault::new("only HTTP/1.1 and HTTP/1.0 are spoken here"));
    }
    let needs_length = matches!(*request.method(), Method::POST | Method::PUT | Method::PATCH);
    let is_old = request.version() == Version::HTTP_10;
    let headers = request.headers_mut();
    if headers.contains_key(header::TRANSFER_ENCODING) {
        return Err(Fault::new("the transfer coding is for the client to choose"));
    }
    let said = headers.remove(header::CONTENT_LENGTH);
    let length = match size {
        Size::None if needs_length => 0,
        Size::None => {
            return match said {
                Some(said) if said != "0" => Err(Fault::new("a Content-Length without a body")),
                _ => Ok(()),
            };
        }
        Size::Known(length) => length,
        Size::Unknown if is_old => {
            return Err(Fault::new("HTTP/1.0 has no bodies of unknown length"));
        }
        Size::Unknown if said.is_some() => {
            return Err(Fault::new("a Content-Length with a body of unknown length"));
        }
        Size::Unknown => {
            let chunked = HeaderValue::from_static("chunked");
            headers.insert(header::TRANSFER_ENCODING, chunked);
            return Ok(());
        }
    };
    let length = HeaderValue::from(length);
    if said.is_some_and(|said| said != length) {
        return Err(Fault::new("the Content-Length is not the length of the body"));
    }
    headers.insert(header::CONTENT_LENGTH, length);
    Ok(())
}

fn sent(
    mut call: Call<state::SendBody>,
    size: Size,
) -> Result<Option<Call<state::RecvResponse>>, Fault> {
    match size {
        Size::Known(length) => {
            let length = usize::try_from(length);
            call.consume_direct_write(length.map_err(|_| Fault::new("the body is too long"))?)?;
        }
        _ => _ = call.write(&[], &mut [0; 8])?,
    }
    Ok(call.proceed())
}

impl Awaiting {
    /// Looks whether the answer's head has come: all of it, or what comes before it.
    ///
    /// # Errors
    ///
    /// If it cannot become an answer any more.
    pub(crate) fn head(&mut self, input: &[u8]) -> Result<Step, Fault> {
        if !begins_as_http(input) {
            return Err(Fault::new("the server does not speak HTTP/1"));
        }
        if input.get(9) == Some(&b'1') && input.get(9..12) != Some(b"101") {
            return self.interim(input);
        }
        let call = self.call.as_mut().ok_or(Fault::new("there was an answer already"))?;
        let (used, response) = call.try_response(input, false)?;
        let Some(response) = response else { return Ok(Step::More) };
        let found = match self.call.take().and_then(Call::<state::RecvResponse>::proceed) {
            Some(RecvResponseResult::RecvBody(call)) => match call.body_mode() {
                BodyMode::NoBody => Framing::Empty,
                BodyMode::LengthDelimited(length) => Framing::Length(length),
                BodyMode::Chunked => Framing::Chunked,
                BodyMode::CloseDelimited => Framing::UntilClose,
            },
            _ => Framing::Empty,
        };
        let told = framing::told(response.headers());
        let (framing, unfit) =
            framing::of(&self.method, &response, found, told, self.asked_upgrade)?;
        let unfit = unfit.or_else(|| self.asked_close.then_some(Unfit::RequestCloses));
        Ok(Step::Head(Head { used, response, framing, unfit, told }))
    }

    fn interim(&mut self, input: &[u8]) -> Result<Step, Fault> {
        let mut fields = [httparse::EMPTY_HEADER; 64];
        let mut head = httparse::Response::new(&mut fields);
        let parsed = head.parse(input);
        match parsed.map_err(|_| Fault::new("what came before the answer makes no sense"))? {
            httparse::Status::Partial => Ok(Step::More),
            httparse::Status::Complete(used) => {
                self.interim += 1;
                if self.interim > MOST_INTERIM {
                    return Err(Fault::new("the server announces its answer for ever"));
                }
                let status = StatusCode::from_u16(head.code.unwrap_or_default());
                let status = status.map_err(|_| Fault::new("that is no status"))?;
                Ok(Step::Interim(used, status))
            }
        }
    }
}

/// As far as can be told from what is there.
fn begins_as_http(input: &[u8]) -> bool {
    const BEGINNING: &[u8] = b"HTTP/1.";
    let count = input.len().min(BEGINNING.len());
    input.get(..count) == BEGINNING.get(..count)
}

#[cfg(test)]
mod tests;
