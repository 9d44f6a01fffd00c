//! Requests as they come, and answers as they go: HTTP/1.1 by hand.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use warmline::Deadline;

/// Longer heads are refused, and more header fields.
const MOST_HEAD: usize = 16 * 1024;
const MOST_HEADERS: usize = 100;
/// Longer bodies are refused.
const MOST_BODY: u64 = 16 * 1024 * 1024;
/// A body must go on after so long, and be there after so long.
const READ_TIME: Duration = Duration::from_secs(10);
const BODY_TIME: Duration = Duration::from_secs(60);

/// Why there is no answer of a route.
pub(crate) enum Trouble {
    /// The client is no more, or too slow.
    Gone(io::Error),
    /// The request is answered with this status, and the connection closed.
    Refused(u16),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Self::Refused(408),
            _ => Self::Gone(error),
        }
    }
}

/// What comes from a client, and was not taken yet.
pub(crate) struct Input<'s> {
    pub(crate) stream: &'s TcpStream,
    bytes: Vec<u8>,
    at: usize,
}

impl<'s> Input<'s> {
    pub(crate) fn new(stream: &'s TcpStream) -> Self {
        Self { stream, bytes: Vec::new(), at: 0 }
    }

    pub(crate) fn has_more(&self) -> bool {
        self.at < self.bytes.len()
    }

    /// Waits for a request; false if none comes.
    pub(crate) fn wait(&mut self, by: Deadline) -> io::Result<bool> {
        if self.has_more() {
            return Ok(true);
        }
        match self.fill(by) {
            Ok(()) => Ok(true),
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock
                | io::ErrorKind::TimedOut
                | io::ErrorKind::UnexpectedEof => Ok(false),
                _ => Err(error),
            },
        }
    }

    /// Reads more.
    fn fill(&mut self, by: Deadline) -> io::Result<()> {
        let left = by.remaining();
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        if !self.has_more() {
            (self.bytes, self.at) = (Vec::new(), 0);
        }
        let mut piece = [0; 16 * 1024];
        let count = (&mut &*self.stream).read(&mut piece)?;
        self.bytes.extend_from_slice(piece.get(..count).unwrap_or_default());
        if count == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }

    fn rest(&self) -> &[u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    /// One line without its end, of no more than `left` bytes, which are counted off.
    fn line(&mut self, left: &mut usize, by: Deadline) -> Result<String, Trouble> {
        loop {
            let found = self.rest().iter().position(|&byte| byte == b'\n');
            let count = found.map_or_else(|| self.rest().len(), |at| at + 1);
            if count > *left {
                return Err(Trouble::Refused(431));
            }
            if found.is_none() {
                self.fill(by)?;
                continue;
            }
            let line = self.rest().get(..count).unwrap_or_default().to_vec();
            self.at += count;
            *left -= count;
            let line = String::from_utf8(line).map_err(|_| Trouble::Refused(400))?;
            let line = line.strip_suffix("\r\n").ok_or(Trouble::Refused(400))?;
            return Ok(line.to_owned());
        }
    }

    /// Exactly so many bytes, added to `body`.
    fn content(&mut self, mut left: u64, body: &mut Vec<u8>, by: Deadline) -> Result<(), Trouble> {
        while left > 0 {
            if !self.has_more() {
                self.fill(by.min(Deadline::after(READ_TIME)))?;
            }
            let count = self.rest().len().min(usize::try_from(left).unwrap_or(usize::MAX));
            body.extend_from_slice(self.rest().get(..count).unwrap_or_default());
            self.at += count;
            left -= count as u64;
        }
        Ok(())
    }
}

/// How a body is framed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Framing {
    Length(u64),
    Chunked,
}

pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    query: String,
    /// HTTP/1.0.
    pub(crate) is_old: bool,
    headers: Vec<(String, String)>,
    framing: Framing,
    /// The client waits for our word before it sends the body.
    awaits_go_on: bool,
}

impl Request {
    pub(crate) fn read(input: &mut Input<'_>, by: Deadline) -> Result<Self, Trouble> {
        let mut left = MOST_HEAD;
        let line = input.line(&mut left, by)?;
        let mut words = line.split(' ');
        let (Some(method), Some(target), Some(version), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(Trouble::Refused(400));
        };
        let is_old = match version {
            "HTTP/1.1" => false,
            "HTTP/1.0" => true,
            version if version.starts_with("HTTP/") => return Err(Trouble::Refused(505)),
            _ => return Err(Trouble::Refused(400)),
        };
        let is_token = |text: &str| !text.is_empty() && text.bytes().all(is_tchar);
        if !is_token(method) || !target.starts_with('/') {
            return Err(Trouble::Refused(400));
        }
        let mut headers = Vec::new();
        loop {
            let line = input.line(&mut left, by)?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').ok_or(Trouble::Refused(400))?;
            if !is_token(name) {
                return Err(Trouble::Refused(400)); // also what begins with a space: a folded line
            }
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
            if headers.len() > MOST_HEADERS {
                return Err(Trouble::Refused(431));
            }
        }
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut request = Self {
            method: method.to_owned(),
            path: path.to_owned(),
            query: query.to_owned(),
            is_old,
            headers,
            framing: Framing::Length(0),
            awaits_go_on: false,
        };
        let framing = request.find_framing()?;
        let expects = request.values("expect").any(|it| it.eq_ignore_ascii_case("100-continue"));
        request.awaits_go_on = expects && !is_old && framing != Framing::Length(0);
        request.framing = framing;
        Ok(request)
    }

    /// Finds where the body ends. In doubt it is refused: what follows would be somebody's request.
    fn find_framing(&self) -> Result<Framing, Trouble> {
        let hosts = self.values("host").count();
        let mut codings = self.values("transfer-encoding");
        let (coding, other) = (codings.next(), codings.next());
        let mut lengths = self.values("content-length");
        let (length, second) = (lengths.next(), lengths.next());
        let is_bad = other.is_some() || second.is_some() || (coding.is_some() && length.is_some());
        if is_bad || hosts > 1 || (hosts == 0 && !self.is_old) || (coding.is_some() && self.is_old)
        {
            return Err(Trouble::Refused(400));
        }
        match (coding, length) {
            (Some(coding), _) if coding.eq_ignore_ascii_case("chunked") => Ok(Framing::Chunked),
            (Some(_), _) => Err(Trouble::Refused(501)),
            (None, Some(length)) if length.bytes().all(|byte| byte.is_ascii_digit()) => {
                length.parse().map(Framing::Length).map_err(|_| Trouble::Refused(400))
            }
            (None, Some(_)) => Err(Trouble::Refused(400)),
            (None, None) => Ok(Framing::Length(0)),
        }
    }

    fn values<'r>(&'r self, name: &'r str) -> impl Iterator<Item = &'r str> {
        let named = self.headers.iter().filter(move |(its, _)| its == name);
        named.map(|(_, value)| value.as_str())
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(its, _)| its == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        let mut pairs = self.query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.find(|(its, _)| *its == name).map(|(_, value)| value)
    }

    /// The client does not close the connection after this, nor does it want us to.
    pub(crate) fn keeps_alive(&self) -> bool {
        let says = |word: &str| {
            let mut tokens = self.values("connection").flat_map(|value| value.split(','));
            tokens.any(|token| token.trim().eq_ignore_ascii_case(word))
        };
        !says("close") && (!self.is_old || says("keep-alive"))
    }

    /// All of the body.
    pub(crate) fn read_body(&mut self, input: &mut Input<'_>) -> Result<Vec<u8>, Trouble> {
        let by = Deadline::after(BODY_TIME);
        if matches!(self.framing, Framing::Length(length) if length > MOST_BODY) {
            return Err(Trouble::Refused(413));
        }
        if std::mem::take(&mut self.awaits_go_on) && !input.has_more() {
            let go_on = (&mut &*input.stream).write_all(b"HTTP/1.1 100 Continue\r\n\r\n");
            go_on.map_err(Trouble::Gone)?;
        }
        let mut body = Vec::new();
        match std::mem::replace(&mut self.framing, Framing::Length(0)) {
            Framing::Length(length) => input.content(length, &mut body, by)?,
            Framing::Chunked => chunks(input, &mut body, by)?,
        }
        Ok(body)
    }

    /// Reads a body that nobody wanted; false if that fails, or is too much.
    pub(crate) fn skip_body(&mut self, input: &mut Input<'_>) -> bool {
        // Who waits for our word has not sent it.
        !self.awaits_go_on && self.read_body(input).is_ok()
    }
}

fn is_tchar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn chunks(input: &mut Input<'_>, body: &mut Vec<u8>, by: Deadline) -> Result<(), Trouble> {
    // For all that is not content.
    let mut left = MOST_HEAD;
    loop {
        let line = input.line(&mut left, by)?;
        let size = line.split(';').next().unwrap_or_default().trim_end();
        if size.is_empty() || !size.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(Trouble::Refused(400));
        }
        let size = u64::from_str_radix(size, 16).map_err(|_| Trouble::Refused(400))?;
        if size == 0 {
            break;
        }
        if size > MOST_BODY.saturating_sub(body.len() as u64) {
            return Err(Trouble::Refused(413));
        }
        input.content(size, body, by)?;
        if !input.line(&mut left, by)?.is_empty() {
            return Err(Trouble::Refused(400));
        }
        left = left.saturating_add(line.len() + 4).min(MOST_HEAD); // a plain chunk costs nothing
    }
    while !input.line(&mut left, by)?.is_empty() {}
    Ok(())
}

pub(crate) enum Content {
    Bytes(Vec<u8>),
    /// One byte, so many times.
    Same(u8, u64),
    /// Chunks, and a trailer.
    Chunks(&'static [&'static str], &'static str),
}

pub(crate) struct Answer {
    status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    content: Content,
}

impl Answer {
    pub(crate) fn new(status: u16, kind: impl Into<String>, content: Content) -> Self {
        Self { status, headers: vec![("Content-Type", kind.into())], content }
    }

    pub(crate) fn bytes(kind: String, bytes: Vec<u8>) -> Self {
        Self::new(200, kind, Content::Bytes(bytes))
    }

    pub(crate) fn text(text: &str) -> Self {
        Self::bytes("text/plain".into(), text.into())
    }

    /// No more than a status.
    pub(crate) fn of(status: u16) -> Self {
        let text = format!("{status} {}\n", reason(status));
        Self::new(status, "text/plain", Content::Bytes(text.into()))
    }

    pub(crate) fn not_allowed(allowed: &[&str]) -> Self {
        let mut answer = Self::of(405);
        answer.headers.push(("Allow", allowed.join(", ")));
        answer
    }

    /// The last one on its connection.
    pub(crate) fn closing(mut self) -> Self {
        self.headers.push(("Connection", "close".into()));
        self
    }

    /// Answers a request. What speaks HTTP/1.0 knows no chunks.
    pub(crate) fn write_to(mut self, stream: &TcpStream, request: &Request) -> io::Result<()> {
        if let (Content::Chunks(chunks, _), true) = (&self.content, request.is_old) {
            self.content = Content::Bytes(chunks.concat().into());
        }
        self.write(stream, request.method == "HEAD")
    }

    /// The head, and what follows it unless that was not wanted.
    pub(crate) fn write(&self, mut stream: &TcpStream, is_head: bool) -> io::Result<()> {
        let mut out = format!("HTTP/1.1 {} {}\r\n", self.status, reason(self.status));
        for (name, value) in &self.headers {
            out += &format!("{name}: {value}\r\n");
        }
        out += &match &self.content {
            Content::Bytes(bytes) => format!("Content-Length: {}\r\n\r\n", bytes.len()),
            Content::Same(_, count) => format!("Content-Length: {count}\r\n\r\n"),
            Content::Chunks(..) => "Transfer-Encoding: chunked\r\n\r\n".to_owned(),
        };
        let mut out = out.into_bytes();
        if is_head {
            return stream.write_all(&out);
        }
        match &self.content {
            Content::Bytes(bytes) => out.extend_from_slice(bytes),
            Content::Chunks(chunks, trailer) => {
                for chunk in *chunks {
                    out.extend_from_slice(format!("{:x}\r\n{chunk}\r\n", chunk.len()).as_bytes());
                    stream.write_all(&std::mem::take(&mut out))?; // chunks come one by one
                }
                out.extend_from_slice(format!("0\r\n{trailer}\r\n\r\n").as_bytes());
            }
            Content::Same(byte, count) => {
                let piece = [*byte; 16 * 1024];
                let mut left = *count;
                while left > 0 {
                    let most = usize::try_from(left).unwrap_or(usize::MAX).min(piece.len());
                    out.extend_from_slice(piece.get(..most).unwrap_or_default());
                    left -= most as u64;
                    stream.write_all(&std::mem::take(&mut out))?;
                }
            }
        }
        stream.write_all(&out)
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        505 => "HTTP Version Not Supported",
        _ => "Error",
    }
}
