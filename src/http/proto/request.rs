//! How requests are written.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use ::http::header::{self, HeaderValue};
use ::http::{Method, Request, Version};

use crate::http::proto::answer::Awaiting;
use crate::http::proto::{Fault, has_token};

/// How much follows the head of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Size {
    /// Nothing, not even zero bytes.
    None,
    Known(u64),
    Unknown,
}

/// Writes the head of a request, in the place of what is in `out`.
///
/// Nothing in it can end a line: methods, URLs and headers are of types that hold no such bytes.
///
/// # Errors
///
/// If the request makes no sense: the caller's mistake.
pub(crate) fn write_head(
    request: &Request<()>,
    size: Size,
    out: &mut Vec<u8>,
) -> Result<Awaiting, Fault> {
    let (method, headers) = (request.method(), request.headers());
    let is_old = match request.version() {
        Version::HTTP_10 => true,
        Version::HTTP_11 => false,
        _ => return Err(Fault::new("only HTTP/1.1 and HTTP/1.0 are spoken here")),
    };
    let framing = Announced::of(request, size, is_old)?;
    out.clear();
    out.extend_from_slice(method.as_str().as_bytes());
    out.push(b' ');
    write_target(target(request)?, out);
    out.extend_from_slice(if is_old { b" HTTP/1.0\r\n" } else { b" HTTP/1.1\r\n" });
    name_host(request, out)?;
    // Nobody can be asked for leave to send nothing (RFC 9110, 10.1.1).
    let expects = !matches!(size, Size::None | Size::Known(0));
    for (name, value) in headers {
        let is_left = name == header::CONTENT_LENGTH || name == header::HOST;
        if !is_left && (expects || name != header::EXPECT) {
            write_field(out, name.as_str().as_bytes(), value.as_bytes());
        }
    }
    match framing {
        Announced::Nothing => {}
        Announced::Chunked => write_field(out, b"transfer-encoding", b"chunked"),
        Announced::Length(length) => {
            write_field(out, b"content-length", HeaderValue::from(length).as_bytes());
        }
    }
    out.extend_from_slice(b"\r\n");
    let asks = |token| has_token(headers, &header::CONNECTION, token);
    let has_wishes = headers.contains_key(header::CONNECTION);
    let asked_close = is_old || (has_wishes && asks("close"));
    let asked_upgrade = headers.get(header::UPGRADE).filter(|_| has_wishes && asks("upgrade"));
    Ok(Awaiting::new(method.clone(), asked_close, asked_upgrade.cloned()))
}

fn write_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// What stands between the method and the version.
fn target(request: &Request<()>) -> Result<&str, Fault> {
    let uri = request.uri();
    if request.method() == Method::CONNECT {
        let authority = uri.authority().map(|authority| authority.as_str());
        return authority
            .filter(|text| !text.contains('@') && uri.port_u16().is_some())
            .ok_or(Fault::new("CONNECT needs a host and a port"));
    }
    let target = uri.path_and_query().map_or("", |target| target.as_str());
    if target.starts_with('*') && request.method() != Method::OPTIONS {
        return Err(Fault::new("the asterisk is for OPTIONS"));
    }
    Ok(target)
}

fn write_target(target: &str, out: &mut Vec<u8>) {
    if target.is_empty() || target.starts_with('?') {
        out.push(b'/'); // http://host?query is a URL
    }
    if target.is_ascii() {
        return out.extend_from_slice(target.as_bytes());
    }
    for &byte in target.as_bytes() {
        if byte.is_ascii() {
            out.push(byte);
        } else {
            out.extend_from_slice(format!("%{byte:02X}").as_bytes());
        }
    }
}

/// Says which host is meant, as the URL has it, without its scheme's own port; and who asks, if the
/// URL says that.
fn name_host(request: &Request<()>, out: &mut Vec<u8>) -> Result<(), Fault> {
    let headers = request.headers();
    let mut said = headers.get_all(header::HOST).iter();
    let (host, another) = (said.next(), said.next());
    if another.is_some() {
        return Err(Fault::new("a request has one Host"));
    }
    let authority = request.uri().authority().map_or("", |authority| authority.as_str());
    let (who, place) = match authority.rsplit_once('@') {
        Some((who, place)) => (Some(who), place),
        None => (None, authority),
    };
    match host {
        Some(host) => write_field(out, b"host", host.as_bytes()),
        None if request.method() == Method::CONNECT => write_field(out, b"host", place.as_bytes()),
        None => {
            let is_secure = request.uri().scheme_str() == Some("https");
            let own_port = if is_secure { ":443" } else { ":80" };
            let place = place.strip_suffix(own_port).unwrap_or(place);
            write_field(out, b"host", place.as_bytes());
        }
    }
    match who {
        Some(who) if !headers.contains_key(header::AUTHORIZATION) => {
            let (user, password) = who.split_once(':').unwrap_or((who, ""));
            let credentials = [&decoded(user)[..], b":", &decoded(password)].concat();
            write_field(out, b"authorization", basic(&credentials).as_bytes());
        }
        _ => {}
    }
    Ok(())
}

/// What a header says of a user and his password, which have a colon between them (RFC 7617).
pub(crate) fn basic(credentials: &[u8]) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(credentials))
}

/// A user and his password as a URL has them, with `%` and two digits for what it cannot hold.
fn decoded(text: &str) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let digits = after.get(..2).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        let digits = digits.filter(|_| byte == b'%').and_then(|two| std::str::from_utf8(two).ok());
        let code = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        decoded.push(code.unwrap_or(byte));
        rest = if code.is_some() { after.get(2..).unwrap_or_default() } else { after };
    }
    decoded
}

/// What a request says about the length of its body.
enum Announced {
    Nothing,
    Length(u64),
    Chunked,
}

impl Announced {
    fn of(request: &Request<()>, size: Size, is_old: bool) -> Result<Self, Fault> {
        let headers = request.headers();
        if headers.contains_key(header::TRANSFER_ENCODING) {
            return Err(Fault::new("the transfer coding is for the client to choose"));
        }
        if request.method() == Method::CONNECT {
            return match size {
                Size::None | Size::Known(0) => Ok(Self::Nothing),
                // It would become the first of what goes through the tunnel.
                _ => Err(Fault::new("CONNECT has no body")),
            };
        }
        let needs_length = matches!(*request.method(), Method::POST | Method::PUT | Method::PATCH);
        let said = headers.get(header::CONTENT_LENGTH);
        let length = match size {
            Size::Known(length) => length,
            Size::None if needs_length || said.is_some() => 0,
            Size::None => return Ok(Self::Nothing),
            Size::Unknown if is_old => {
                return Err(Fault::new("HTTP/1.0 has no bodies of unknown length"));
            }
            Size::Unknown if said.is_some() => {
                return Err(Fault::new("a Content-Length with a body of unknown length"));
            }
            Size::Unknown => return Ok(Self::Chunked),
        };
        let lies = |said: &HeaderValue| said.as_bytes() != HeaderValue::from(length).as_bytes();
        if headers.get_all(header::CONTENT_LENGTH).iter().any(lies) {
            return Err(Fault::new("the Content-Length is not the length of the body"));
        }
        Ok(Self::Length(length))
    }
}
