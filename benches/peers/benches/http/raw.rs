//! The floor: what a GET costs that is written by hand, on a connection of the thread's own.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use peers::version;

use crate::client::{BUFFER, BoxError, Visit, Visitor};
use crate::target::Target;

/// Nothing is shared, nothing can time out, and nothing of an answer is looked at but its length.
pub(crate) struct Raw;

/// Headers of an answer, at most.
const HEADERS: usize = 32;

impl Raw {
    pub(crate) const NAME: &'static str = "raw";

    pub(crate) fn settings() -> String {
        format!(
            "raw: a loop over std's TcpStream, a connection per thread, {}, no time-outs",
            version("httparse", "")
        )
    }
}

impl Visitor for Raw {
    fn visits<'c>(&'c self, target: &'c Target) -> Visit<'c> {
        let Target { address, method, path, bytes, .. } = target;
        let request = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\n\r\n");
        let mut buffer = vec![0; BUFFER];
        let mut connected = None;
        Box::new(move || {
            let stream = match &mut connected {
                Some(stream) => stream,
                none => none.insert(connect(target)?),
            };
            stream.write_all(request.as_bytes())?;
            let length = receive(stream, &mut buffer)?;
            match length == *bytes {
                true => Ok(()),
                false => Err(format!("{length} bytes in the place of {bytes}").into()),
            }
        })
    }
}

fn connect(target: &Target) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(target.address)?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Reads one answer, and returns how long its body is.
fn receive(stream: &mut TcpStream, buffer: &mut [u8]) -> Result<u64, BoxError> {
    let mut filled = 0;
    let (head, length) = loop {
        filled += some(stream.read(&mut buffer[filled..])?)?;
        if let Some(found) = parse(&buffer[..filled])? {
            break found;
        }
    };
    let mut left = length.saturating_sub((filled - head) as u64);
    while left > 0 {
        left = left.saturating_sub(some(stream.read(buffer)?)? as u64);
    }
    Ok(length)
}

/// Where a head ends, and how much follows; `None` if there is more of it to come.
fn parse(answer: &[u8]) -> Result<Option<(usize, u64)>, BoxError> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head) = response.parse(answer)? else { return Ok(None) };
    let mut headers = response.headers.iter();
    let length = headers.find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length = length.ok_or("an answer without a length")?.value;
    Ok(Some((head, std::str::from_utf8(length)?.parse()?)))
}

fn some(read: usize) -> io::Result<usize> {
    if read == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(read) }
}
