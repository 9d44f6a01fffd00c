//! How answers are read: what comes before them, and their heads.

use std::mem::MaybeUninit;

use bytes::Bytes;

use ::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use ::http::{Method, Response, StatusCode, Version};

use crate::http::proto::Fault;
use crate::http::proto::framing::{self, Framing, Told, Unfit};

/// More interim answers (1xx) before one are refused.
pub(super) const MOST_INTERIM: u32 = 16;
/// More header fields are refused.
const MOST_FIELDS: usize = 128;

/// A request that was written, and whose answer is yet to come.
#[derive(Debug)]
pub(crate) struct Awaiting {
    method: Method,
    asked_close: bool,
    /// The protocols that it would rather speak.
    asked_upgrade: Option<HeaderValue>,
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

impl Head {
    /// The server does not agree, whatever it says: nothing more need be sent to it.
    pub(crate) fn is_refusal(&self) -> bool {
        self.response.status().as_u16() >= 300
    }
}

impl Awaiting {
    pub(super) const fn new(
        method: Method,
        asked_close: bool,
        asked_upgrade: Option<HeaderValue>,
    ) -> Self {
        Self { method, asked_close, asked_upgrade, interim: 0 }
    }

    /// Looks whether the answer's head has come: all of it, or what comes before it.
    ///
    /// # Errors
    ///
    /// If it cannot become an answer any more.
    pub(crate) fn head(&mut self, input: &[u8]) -> Result<Step, Fault> {
        if !begins_as_http(input) {
            return Err(Fault::new("the server does not speak HTTP/1"));
        }
        let mut fields = [const { MaybeUninit::uninit() }; MOST_FIELDS];
        let mut head = httparse::Response::new(&mut []);
        let config = httparse::ParserConfig::default();
        let parsed = config.parse_response_with_uninit_headers(&mut head, input, &mut fields);
        let used = match parsed {
            Ok(httparse::Status::Complete(used)) => used,
            Ok(httparse::Status::Partial) => return Ok(Step::More),
            Err(httparse::Error::TooManyHeaders) => {
                return Err(Fault::new("the answer has too many headers"));
            }
            Err(_) => return Err(Fault::new("the head of the answer is malformed")),
        };
        let status = StatusCode::from_u16(head.code.unwrap_or_default());
        let status = status.map_err(|_| Fault::new("the status of the answer is no status"))?;
        if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS {
            self.interim += 1;
            if self.interim > MOST_INTERIM {
                return Err(Fault::new("the server announces its answer for ever"));
            }
            return Ok(Step::Interim(used, status));
        }
        let mut response = Response::new(());
        *response.status_mut() = status;
        let is_old = head.version == Some(0);
        *response.version_mut() = if is_old { Version::HTTP_10 } else { Version::HTTP_11 };
        *response.headers_mut() = headers(input.get(..used).unwrap_or_default(), head.headers)?;
        self.framed(used, response).map(Step::Head)
    }

    fn framed(&self, used: usize, response: Response<()>) -> Result<Head, Fault> {
        let told = framing::told(response.headers());
        let (framing, unfit) =
            framing::of(&self.method, &response, told, self.asked_upgrade.as_ref())?;
        let unfit = unfit.or_else(|| self.asked_close.then_some(Unfit::RequestCloses));
        Ok(Head { used, response, framing, unfit, told })
    }
}

/// The header fields, whose values share one copy of the head.
fn headers(head: &[u8], fields: &[httparse::Header<'_>]) -> Result<HeaderMap, Fault> {
    const NO_SENSE: Fault = Fault::new("a header of the answer is malformed");
    let copy = Bytes::copy_from_slice(head);
    let mut headers = HeaderMap::with_capacity(fields.len());
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| NO_SENSE)?;
        let at = (field.value.as_ptr() as usize).wrapping_sub(head.as_ptr() as usize);
        let is_within = at.checked_add(field.value.len()).is_some_and(|end| end <= head.len());
        let value = if is_within && !field.value.is_empty() {
            HeaderValue::from_maybe_shared(copy.slice(at..at + field.value.len()))
        } else {
            HeaderValue::from_bytes(field.value)
        };
        let value = value.map_err(|_| NO_SENSE)?;
        let no_room = |_| Fault::new("the answer has too many headers");
        headers.try_append(name, value).map_err(no_room)?;
    }
    Ok(headers)
}

/// The length that the headers tell: once, or the same again and again.
pub(super) fn length(headers: &HeaderMap) -> Result<Option<u64>, Fault> {
    const NO_SENSE: Fault = Fault::new("the length of the answer makes no sense");
    let mut length = None;
    for value in headers.get_all(header::CONTENT_LENGTH) {
        for part in value.as_bytes().split(|&byte| byte == b',') {
            let digits = part.trim_ascii();
            if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
                return Err(NO_SENSE);
            }
            let text = std::str::from_utf8(digits).map_err(|_| NO_SENSE)?;
            let told: u64 = text.parse().map_err(|_| NO_SENSE)?;
            if told > i64::MAX as u64 || length.is_some_and(|length| length != told) {
                return Err(NO_SENSE);
            }
            length = Some(told);
        }
    }
    Ok(length)
}

/// As far as can be told from what is there.
fn begins_as_http(input: &[u8]) -> bool {
    const BEGINNING: &[u8] = b"HTTP/1.";
    let count = input.len().min(BEGINNING.len());
    input.get(..count) == BEGINNING.get(..count)
}
