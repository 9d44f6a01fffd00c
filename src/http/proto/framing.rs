//! Where an answer's body ends, and whether the connection can be used after it.

use std::fmt;

use ::http::{HeaderMap, HeaderName, HeaderValue, Method, Response, Version, header};

use crate::http::proto::{Fault, answer};
use crate::observe::CloseReason;

/// Where a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// There is none.
    Empty,
    /// After so many bytes.
    Length(u64),
    Chunked,
    /// Where the server hangs up.
    UntilClose,
    /// Nowhere: from here on the connection speaks another protocol.
    Tunnel,
}

/// Why a connection is not used for another request.
///
/// ```
/// use warmline::http::Unfit;
///
/// assert_eq!(Unfit::ServerCloses.to_string(), "the server said Connection: close");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Unfit {
    /// The request said `Connection: close`.
    RequestCloses,
    /// The answer said `Connection: close`.
    ServerCloses,
    /// The answer is of HTTP/1.0, and did not say `Connection: keep-alive`.
    Http10,
    /// The server has said, with `Keep-Alive: max=0` or `timeout=0`, that this was the last request.
    LastRequest,
    /// The body has no length: it ends where the server hangs up.
    UntilClose,
    /// The answer had both a length and a transfer coding: where it ended is in doubt.
    TwoLengths,
    /// More came than the answer holds.
    StrayBytes,
    /// The server answered before it had the whole request.
    UnfinishedRequest,
    /// The answer's body was dropped before its end, and what was left was too much to read.
    Unread,
    /// The connection went to the caller: 101, or a tunnel.
    Upgraded,
    /// Something failed on it.
    Failed,
}

impl Unfit {
    /// In the pool's words.
    pub(crate) const fn to_pool(self) -> CloseReason {
        match self {
            Self::StrayBytes | Self::TwoLengths => CloseReason::StrayBytes,
            Self::Unread | Self::UnfinishedRequest => CloseReason::Unfinished,
            Self::Failed => CloseReason::Failed,
            Self::ServerCloses | Self::Http10 | Self::LastRequest | Self::UntilClose => {
                CloseReason::PeerClosed
            }
            Self::RequestCloses | Self::Upgraded => CloseReason::Discarded,
        }
    }
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RequestCloses => "the request said Connection: close",
            Self::ServerCloses => "the server said Connection: close",
            Self::Http10 => "the server speaks HTTP/1.0 and did not offer to go on",
            Self::LastRequest => "the server said that this was its last request",
            Self::UntilClose => "the answer ended with the connection",
            Self::TwoLengths => "the answer had a length and a transfer coding",
            Self::StrayBytes => "more came than the answer",
            Self::UnfinishedRequest => "the server answered before it had the whole request",
            Self::Unread => "the answer was not read to its end",
            Self::Upgraded => "it went to the caller",
            Self::Failed => "it failed",
        })
    }
}

/// Where the body ends, by the rules of RFC 9112, 6.3, where they leave no doubt.
///
/// # Errors
///
/// If where the body ends cannot be known for sure.
pub(crate) fn of(
    method: &Method,
    head: &Response<()>,
    told: Told,
    asked_upgrade: Option<&HeaderValue>,
) -> Result<(Framing, Option<Unfit>), Fault> {
    let (status, headers) = (head.status().as_u16(), head.headers());
    if status == 101 {
        if !asked_upgrade.is_some_and(|asked| is_granted(asked, headers)) {
            return Err(Fault::new("the server switches to a protocol that was not asked for"));
        }
        return Ok((Framing::Tunnel, Some(Unfit::Upgraded)));
    }
    if method == Method::CONNECT && (200..300).contains(&status) {
        return Ok((Framing::Tunnel, Some(Unfit::Upgraded)));
    }
    let mut unfit = unfit_by_head(head, told);
    if method == Method::CONNECT {
        unfit = unfit.or(Some(Unfit::Failed)); // who knows what it made of the rest
    }
    let is_bodiless = method == Method::HEAD || status == 204 || status == 304;
    if is_bodiless {
        return Ok((Framing::Empty, unfit));
    }
    let length = answer::length(headers)?;
    if headers.contains_key(header::TRANSFER_ENCODING) {
        if !is_exactly_chunked(headers) {
            return Err(Fault::new("the answer has a transfer coding other than chunked"));
        }
        if head.version() == Version::HTTP_10 {
            // It cannot have meant it, or a proxy did not understand it (RFC 9112, 6.1).
            return Err(Fault::new("an answer of HTTP/1.0 has a transfer coding"));
        }
        let is_doubtful = length.is_some().then_some(Unfit::TwoLengths);
        return Ok((Framing::Chunked, unfit.or(is_doubtful)));
    }
    Ok(match length {
        Some(0) => (Framing::Empty, unfit),
        Some(length) => (Framing::Length(length), unfit),
        None => (Framing::UntilClose, unfit.or(Some(Unfit::UntilClose))),
    })
}

/// The server switches, and to one of the protocols that it was offered.
fn is_granted(asked: &HeaderValue, headers: &HeaderMap) -> bool {
    let switches = has_token(headers, &header::CONNECTION, "upgrade");
    let mut offers = asked.as_bytes().split(|&byte| byte == b',');
    switches
        && offers.any(|offer| {
            let offer = std::str::from_utf8(offer.trim_ascii()).unwrap_or_default();
            has_token(headers, &header::UPGRADE, offer)
        })
}

fn unfit_by_head(head: &Response<()>, told: Told) -> Option<Unfit> {
    let headers = head.headers();
    if has_token(headers, &header::CONNECTION, "close") {
        return Some(Unfit::ServerCloses);
    }
    let is_old = head.version() == Version::HTTP_10;
    if is_old && !has_token(headers, &header::CONNECTION, "keep-alive") {
        return Some(Unfit::Http10);
    }
    (told.most == Some(0) || told.idle == Some(0)).then_some(Unfit::LastRequest)
}

/// The one transfer coding that can be undone here, and nothing besides.
fn is_exactly_chunked(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(header::TRANSFER_ENCODING).iter();
    let first = values.next().map(|value| value.as_bytes().trim_ascii());
    let is_chunked = first.is_some_and(|value| value.eq_ignore_ascii_case(b"chunked"));
    is_chunked && values.next().is_none()
}

/// A header that is a list has this among its tokens, in whatever case.
pub(crate) fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).iter();
    values
        .flat_map(|value| value.as_bytes().split(|&byte| byte == b','))
        .any(|part| part.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

/// What the server has told about how long it keeps connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    /// Seconds that one may be idle.
    pub(crate) idle: Option<u32>,
    /// Requests that may still come.
    pub(crate) most: Option<u32>,
}

/// `Keep-Alive: timeout=5, max=100`.
pub(crate) fn told(headers: &HeaderMap) -> Told {
    let mut told = Told::default();
    let Some(value) = headers.get("keep-alive") else { return told };
    for part in value.to_str().unwrap_or_default().split(',') {
        let Some((name, number)) = part.split_once('=') else { continue };
        let number = number.trim().trim_matches('"').parse().ok();
        match name.trim() {
            name if name.eq_ignore_ascii_case("timeout") => told.idle = number.or(told.idle),
            name if name.eq_ignore_ascii_case("max") => told.most = number.or(told.most),
            _ => {}
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(lines: &[(&'static str, &str)]) -> Response<()> {
        let mut builder = Response::builder().status(200);
        for (name, value) in lines {
            builder = builder.header(*name, *value);
        }
        builder.body(()).unwrap()
    }

    fn framed(lines: &[(&'static str, &str)]) -> Result<(Framing, Option<Unfit>), Fault> {
        let head = head(lines);
        of(&Method::GET, &head, told(head.headers()), None)
    }

    #[test]
    fn one_transfer_coding_is_understood_and_anything_else_is_an_error() {
        let coding = |value| framed(&[("transfer-encoding", value)]);
        assert_eq!(coding("ChUnKeD").unwrap(), (Framing::Chunked, None));
        for value in ["chunked, gzip", "gzip, chunked", "gzip", "xchunked", "", "chunked, chunked"]
        {
            assert!(coding(value).is_err(), "{value}");
        }
        let twice = [("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")];
        assert!(framed(&twice).is_err());
    }

    #[test]
    fn a_length_beside_a_transfer_coding_is_read_and_never_trusted_again() {
        let both = [("transfer-encoding", "chunked"), ("content-length", "5")];
        assert_eq!(framed(&both).unwrap(), (Framing::Chunked, Some(Unfit::TwoLengths)));
    }

    #[test]
    fn close_is_found_wherever_it_stands() {
        for value in ["close", "CLOSE", "keep-alive, close", " x ,Close "] {
            let unfit = framed(&[("connection", value)]).unwrap().1;
            assert_eq!(unfit, Some(Unfit::ServerCloses), "{value}");
        }
        for header in [("connection", "closed"), ("proxy-connection", "close")] {
            assert_eq!(framed(&[header, ("content-length", "5")]).unwrap().1, None);
        }
    }

    #[test]
    fn what_the_server_tells_about_its_patience_is_read_in_any_order() {
        let told_by = |value| told(head(&[("keep-alive", value)]).headers());
        assert_eq!(told_by("timeout=5, max=100"), Told { idle: Some(5), most: Some(100) });
        assert_eq!(told_by("max=\"7\" ,Timeout = 60"), Told { idle: Some(60), most: Some(7) });
        assert_eq!(told_by("timeout=-1, max=, x=3, timeout"), Told::default());
        for value in ["max=0", "timeout=0"] {
            assert_eq!(framed(&[("keep-alive", value)]).unwrap().1, Some(Unfit::LastRequest));
        }
    }
}
