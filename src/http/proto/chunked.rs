//! The chunked coding of bodies (RFC 9112, 7.1), as a server sends it.

use ::http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::http::proto::Fault;

/// Longer lines before chunks are refused: their extensions mean nothing to us.
const MOST_SIZE_LINE: usize = 4096;
/// More bytes that are no content are refused, in sum: those beyond 16 for each chunk and twice
/// what it holds.
const MOST_WASTE: u64 = 16 * 1024;
const MOST_TRAILERS: usize = 128;
/// A longer block of trailers is refused.
const MOST_TRAILER_BYTES: usize = 8 * 1024;

/// How far a chunked body has been read.
#[derive(Debug, Default)]
pub(crate) struct Chunked {
    state: State,
    /// Bytes that were no content, beyond what each chunk may have.
    waste: u64,
    trailers: HeaderMap,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Before the line that says how long the next chunk is.
    #[default]
    Size,
    /// In a chunk, of which so much is missing.
    Data(u64),
    /// After a chunk, before its line end.
    DataEnd,
    /// After the last chunk.
    Trailers,
    Done,
}

impl Chunked {
    /// Goes on with what has come: how much of it was used, and how much content was copied to
    /// `out`. Nothing of either: more must come first, or there is no more room.
    pub(crate) fn decode(&mut self, input: &[u8], out: &mut [u8]) -> Result<(usize, usize), Fault> {
        let (mut used, mut copied) = (0, 0);
        loop {
            let rest = input.get(used..).unwrap_or_default();
            match self.state {
                State::Data(left) => {
                    let room = out.get_mut(copied..).unwrap_or_default();
                    let count = copy(rest, room, left);
                    if count == 0 {
                        return Ok((used, copied));
                    }
                    self.note_content(count);
                    (used, copied) = (used + count, copied + count);
                }
                State::Done => return Ok((used, copied)),
                _ => match self.between_chunks(rest)? {
                    0 => return Ok((used, copied)),
                    count => used += count,
                },
            }
        }
    }

    /// So much of the current chunk is missing: it may be read to its place directly.
    pub(crate) const fn missing(&self) -> u64 {
        match self.state {
            State::Data(left) => left,
            _ => 0,
        }
    }

    /// So much content was read past the decoder; never more than is missing.
    pub(crate) fn note_content(&mut self, count: usize) {
        if let State::Data(left) = self.state {
            let left = left.saturating_sub(count as u64);
            self.state = if left == 0 { State::DataEnd } else { State::Data(left) };
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// The last chunk has come. Servers that hang up without the line end after it have sent all.
    pub(crate) fn is_all_there(&self) -> bool {
        matches!(self.state, State::Trailers | State::Done)
    }

    pub(crate) fn take_trailers(&mut self) -> HeaderMap {
        std::mem::take(&mut self.trailers)
    }

    /// What stands between chunks; how many bytes it took, zero if more must come.
    fn between_chunks(&mut self, input: &[u8]) -> Result<usize, Fault> {
        match self.state {
            State::Size => self.size(input),
            State::DataEnd => match input {
                [b'\r', b'\n', ..] => {
                    self.state = State::Size;
                    Ok(2)
                }
                [] | [b'\r'] => Ok(0),
                _ => Err(Fault::new("a chunk is longer than it says")),
            },
            State::Trailers => self.trailers(input),
            State::Data(_) | State::Done => Ok(0),
        }
    }

    fn size(&mut self, input: &[u8]) -> Result<usize, Fault> {
        let Some(first) = input.first() else { return Ok(0) };
        if !first.is_ascii_hexdigit() {
            return Err(Fault::new("a chunk does not begin with its size"));
        }
        let parsed = httparse::parse_chunk_size(input);
        let parsed = parsed.map_err(|_| Fault::new("the size of a chunk makes no sense"))?;
        let httparse::Status::Complete((used, size)) = parsed else {
            if input.len() > MOST_SIZE_LINE {
                return Err(Fault::new("the line before a chunk is too long"));
            }
            return Ok(0);
        };
        // Others may take a line feed in an extension for the line's end.
        let line = input.get(..used.saturating_sub(2)).unwrap_or_default();
        if line.iter().any(|&byte| byte.is_ascii_control() && byte != b'\t') {
            return Err(Fault::new("the line before a chunk makes no sense"));
        }
        let free = size.saturating_mul(2).saturating_add(16);
        self.waste = (self.waste + used as u64).saturating_sub(free);
        if self.waste > MOST_WASTE || used > MOST_SIZE_LINE {
            return Err(Fault::new("chunks have more around them than in them"));
        }
        self.state = if size == 0 { State::Trailers } else { State::Data(size) };
        Ok(used)
    }

    fn trailers(&mut self, input: &[u8]) -> Result<usize, Fault> {
        let mut fields = [httparse::EMPTY_HEADER; MOST_TRAILERS];
        let parsed = httparse::parse_headers(input, &mut fields);
        let parsed = parsed.map_err(|_| Fault::new("the trailers make no sense"))?;
        let httparse::Status::Complete((used, fields)) = parsed else {
            if input.len() > MOST_TRAILER_BYTES {
                return Err(Fault::new("the trailers are too long"));
            }
            return Ok(0);
        };
        for field in fields {
            let name = HeaderName::from_bytes(field.name.as_bytes());
            let value = HeaderValue::from_bytes(field.value);
            let (Ok(name), Ok(value)) = (name, value) else {
                return Err(Fault::new("the trailers make no sense"));
            };
            // What frames messages has no place here (RFC 9110, 6.5.1).
            let framing = [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::TRAILER];
            if !framing.contains(&name) {
                self.trailers.append(name, value);
            }
        }
        self.state = State::Done;
        Ok(used)
    }
}

/// Copies what there is, what there is room for, and what there may be: the least of these.
pub(crate) fn copy(from: &[u8], to: &mut [u8], most: u64) -> usize {
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let count = from.len().min(to.len()).min(most);
    if let (Some(from), Some(to)) = (from.get(..count), to.get_mut(..count)) {
        to.copy_from_slice(from);
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decodes `body`, which comes in pieces of `piece` bytes: its content, and what was left over.
    fn decode(body: &[u8], piece: usize) -> Result<(Vec<u8>, usize, HeaderMap), Fault> {
        let mut chunked = Chunked::default();
        let (mut content, mut out) = (Vec::new(), [0; 7]);
        let (mut seen, mut at) = (0, 0);
        while !chunked.is_done() {
            let (used, copied) = chunked.decode(&body[at..seen], &mut out)?;
            content.extend_from_slice(&out[..copied]);
            at += used;
            if used == 0 && copied == 0 && !chunked.is_done() {
                assert!(seen < body.len(), "it waits for more than there is");
                seen = (seen + piece).min(body.len());
            }
        }
        Ok((content, body.len() - at, chunked.take_trailers()))
    }

    #[test]
    fn a_body_is_the_same_however_it_is_cut() {
        let body =
            b"5\r\nhello\r\nA;name=value\r\n, my world\r\n1 \r\n!\r\n0\r\nX-Sum: 7\r\n\r\nmore";
        for piece in 1..=body.len() {
            let (content, left, trailers) = decode(body, piece).unwrap();
            assert_eq!(content, b"hello, my world!");
            assert!(left <= 4, "{piece}: {left}");
            assert_eq!(trailers["x-sum"], "7");
        }
        assert_eq!(decode(body, body.len()).unwrap().1, 4, "what follows is left alone");
    }

    #[test]
    fn what_is_no_chunk_is_refused() {
        for body in [
            &b"\r\n5\r\nhello\r\n"[..],
            b"x\r\n",
            b"-1\r\n",
            b"+5\r\nhello",
            b" 5\r\nhello",
            b"\x0b5\r\nhello",
            b"5\nhello\r\n",
            b"5\rX\r\n",
            b"5;a=b\nc\r\nhello\r\n",
            b"5;a=b\rc\r\nhello\r\n",
            b"5;a=b\0c\r\nhello\r\n",
            b"5\r\nhello!\r\n",
            b"5\r\nhello\n0\r\n",
            b"10000000000000000\r\n",
            b"fffffffffffffffff\r\n",
            b"0\r\nContent Length: 1\r\n\r\n",
        ] {
            assert!(decode(body, body.len()).is_err(), "{}", String::from_utf8_lossy(body));
        }
    }

    #[test]
    fn trailers_cannot_change_how_the_message_was_framed() {
        let body = b"0\r\nContent-Length: 5\r\nTransfer-Encoding: x\r\nA: 1\r\na: 2\r\n\r\n";
        let (_, _, trailers) = decode(body, 3).unwrap();
        assert_eq!(trailers.len(), 2);
        assert_eq!(trailers.get_all("a").iter().count(), 2);
    }

    #[test]
    fn endless_lines_and_endless_extensions_are_refused() {
        let mut line = b"5;".to_vec();
        line.resize(2 * MOST_SIZE_LINE, b'x');
        assert!(Chunked::default().decode(&line, &mut [0; 8]).is_err());

        let mut chunks = Vec::new();
        for _ in 0..100 {
            chunks.extend_from_slice(b"1;");
            chunks.resize(chunks.len() + 1000, b'x');
            chunks.extend_from_slice(b"\r\nc\r\n");
        }
        chunks.extend_from_slice(b"0\r\n\r\n");
        assert!(decode(&chunks, 4000).is_err());

        let mut trailers = b"0\r\nA: ".to_vec();
        trailers.resize(2 * MOST_TRAILER_BYTES, b'x');
        assert!(Chunked::default().decode(&trailers, &mut []).is_err());
    }

    #[test]
    fn the_largest_chunk_is_not_too_large() {
        let mut chunked = Chunked::default();
        let (used, copied) = chunked.decode(b"7fffffffffffffff\r\nab", &mut [0; 8]).unwrap();
        assert_eq!((used, copied, chunked.missing()), (20, 2, i64::MAX as u64 - 2));
    }
}
