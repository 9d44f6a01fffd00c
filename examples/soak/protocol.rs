//! What is spoken: messages of a kind, a tag, a length and so many bytes, each answered by the same
//! bytes under the same tag. No tag is used twice, so whoever reads another's answer knows.

use std::fmt;
use std::io::{self, Read, Write};

use warmline::Error;

pub(crate) const HEADER: usize = 13;
/// Longer messages are refused.
const MOST_BYTES: usize = 64 * 1024;

/// The first message of a connection, where its kind wants one.
pub(crate) const HELLO: u8 = 1;
pub(crate) const ASK: u8 = 2;
pub(crate) const CHECK: u8 = 3;
/// Added to the kind of what is answered.
pub(crate) const ANSWER: u8 = 0x80;
/// Answers a hello that is not welcome.
pub(crate) const REFUSAL: u8 = 0x7F;
/// What stray bytes are made of: no message begins with it.
pub(crate) const STRAY: u8 = 0xEE;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: u8,
    pub(crate) tag: u64,
    pub(crate) length: usize,
}

impl Header {
    pub(crate) fn read(stream: &mut impl Read) -> io::Result<Self> {
        let mut kind = [0; 1];
        let (mut tag, mut length) = ([0; 8], [0; 4]);
        let mut bytes = [0; HEADER];
        stream.read_exact(&mut bytes)?;
        let mut bytes = &bytes[..];
        bytes.read_exact(&mut kind)?;
        bytes.read_exact(&mut tag)?;
        bytes.read_exact(&mut length)?;
        let [kind] = kind;
        let length = u32::from_le_bytes(length) as usize;
        Ok(Self { kind, tag: u64::from_le_bytes(tag), length })
    }

    /// The bytes after the header.
    pub(crate) fn read_rest(&self, stream: &mut impl Read, rest: &mut Vec<u8>) -> io::Result<()> {
        if self.length > MOST_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the message is too long"));
        }
        rest.clear();
        rest.resize(self.length, 0);
        stream.read_exact(rest)
    }
}

/// A whole message, to be written at once.
pub(crate) fn message(kind: u8, tag: u64, rest: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + rest.len());
    bytes.push(kind);
    bytes.extend(tag.to_le_bytes());
    bytes.extend((rest.len() as u32).to_le_bytes());
    bytes.extend(rest);
    bytes
}

/// A message of that many bytes that nobody else sends.
pub(crate) fn question(kind: u8, tag: u64, length: usize) -> Vec<u8> {
    let rest: Vec<u8> = (0..length as u64).map(|at| (tag ^ (tag >> 32) ^ at) as u8).collect();
    message(kind, tag, &rest)
}

/// Sends a message and reads what answers it, to its end.
pub(crate) fn ask(
    stream: &mut (impl Read + Write),
    kind: u8,
    tag: u64,
    length: usize,
) -> Result<(), Mishap> {
    let question = question(kind, tag, length);
    stream.write_all(&question)?;
    let answer = Header::read(stream)?;
    match answer.kind {
        STRAY => return Err(Mishap::Stray),
        REFUSAL => return Err(Mishap::Refused),
        _ => {}
    }
    let mut rest = Vec::new();
    let is_ours = answer == Header { kind: kind | ANSWER, tag, length };
    if is_ours {
        answer.read_rest(stream, &mut rest)?;
    }
    if !is_ours || question.get(HEADER..) != Some(&rest) {
        return Err(Mishap::CrossTalk { asked: tag, answer });
    }
    Ok(())
}

/// What can become of an exchange.
#[derive(Debug)]
pub(crate) enum Mishap {
    /// There was no connection for it.
    Without(Error),
    Broken(io::Error),
    /// Bytes that nobody had asked for came first. No pool can rule it out: they may arrive when
    /// the connection is out with its user already.
    Stray,
    /// The server did not want it.
    Refused,
    /// It was answered with what belongs to another: this must never be.
    CrossTalk {
        asked: u64,
        answer: Header,
    },
}

impl From<Error> for Mishap {
    fn from(error: Error) -> Self {
        Self::Without(error)
    }
}

impl From<io::Error> for Mishap {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

impl fmt::Display for Mishap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Without(error) => error.fmt(f),
            Self::Broken(error) => error.fmt(f),
            Self::Stray => f.write_str("read bytes that answer nothing"),
            Self::Refused => f.write_str("the server refused"),
            Self::CrossTalk { asked, answer } => {
                write!(f, "asked with tag {asked:#x}, answered with {answer:x?}")
            }
        }
    }
}

impl std::error::Error for Mishap {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Without(error) => Some(error),
            Self::Broken(error) => Some(error),
            _ => None,
        }
    }
}
