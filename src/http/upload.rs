//! The bodies of requests.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, Read};

use crate::http::proto::Size;

/// The body of a request: nothing, bytes, or a reader whose length is known or not.
///
/// Bytes can be sent again, where the connection turns out to have died or the server redirects; a
/// reader cannot, once something was read from it. A body of unknown length is sent in chunks. A
/// reader that blocks holds up the request beyond its time-outs: they bound the waits for the server.
///
/// ```
/// use warmline::http::Upload;
///
/// let bytes: Upload<'_> = "hello".into();
/// let file = Upload::sized(std::io::repeat(b'x'), 1_000_000); // no more than that is read
/// let pipe = Upload::reader(std::io::empty());
/// # let _ = (bytes, file, pipe);
/// ```
pub struct Upload<'b>(Kind<'b>);

enum Kind<'b> {
    Empty,
    Bytes(Cow<'b, [u8]>),
    Reader {
        reader: Box<dyn Read + 'b>,
        length: Option<u64>,
        /// Something was read from it.
        is_begun: bool,
    },
}

impl<'b> Upload<'b> {
    /// No body.
    #[must_use]
    pub const fn empty() -> Self {
        Self(Kind::Empty)
    }

    /// Whatever is read from here, in chunks.
    pub fn reader(reader: impl Read + 'b) -> Self {
        Self(Kind::Reader { reader: Box::new(reader), length: None, is_begun: false })
    }

    /// So many bytes read from here. If it ends before, the request fails
    /// ([`Upload`](crate::http::ErrorKind::Upload)).
    pub fn sized(reader: impl Read + 'b, length: u64) -> Self {
        Self(Kind::Reader { reader: Box::new(reader), length: Some(length), is_begun: false })
    }

    pub(crate) fn size(&self) -> Size {
        match &self.0 {
            Kind::Empty => Size::None,
            Kind::Bytes(bytes) => Size::Known(bytes.len() as u64),
            Kind::Reader { length: Some(length), .. } => Size::Known(*length),
            Kind::Reader { length: None, .. } => Size::Unknown,
        }
    }

    /// All of it, if it is there already.
    pub(crate) fn bytes(&self) -> Option<&[u8]> {
        match &self.0 {
            Kind::Empty => Some(&[]),
            Kind::Bytes(bytes) => Some(bytes),
            Kind::Reader { .. } => None,
        }
    }

    /// It can be sent from its beginning.
    pub(crate) fn is_whole(&self) -> bool {
        !matches!(self.0, Kind::Reader { is_begun: true, .. })
    }

    /// It can be sent from its beginning however much of it was sent.
    pub(crate) fn is_replayable(&self) -> bool {
        !matches!(self.0, Kind::Reader { .. })
    }

    /// The next part of what has to be read. Zero: its end.
    pub(crate) fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let Kind::Reader { reader, is_begun, .. } = &mut self.0 else { return Ok(0) };
        *is_begun = true;
        loop {
            match reader.read(into) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A reader may lie.
                result => return result.map(|count| count.min(into.len())),
            }
        }
    }
}

impl fmt::Debug for Upload<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Its bytes may be secret.
        match self.size() {
            Size::None => f.write_str("Upload(empty)"),
            Size::Known(length) => write!(f, "Upload({length} bytes)"),
            Size::Unknown => f.write_str("Upload(of unknown length)"),
        }
    }
}

impl From<()> for Upload<'_> {
    fn from((): ()) -> Self {
        Self::empty()
    }
}

impl<'b> From<&'b [u8]> for Upload<'b> {
    fn from(bytes: &'b [u8]) -> Self {
        Self(Kind::Bytes(Cow::Borrowed(bytes)))
    }
}

impl<'b, const N: usize> From<&'b [u8; N]> for Upload<'b> {
    fn from(bytes: &'b [u8; N]) -> Self {
        Self(Kind::Bytes(Cow::Borrowed(bytes)))
    }
}

impl<'b> From<&'b str> for Upload<'b> {
    fn from(text: &'b str) -> Self {
        Self(Kind::Bytes(Cow::Borrowed(text.as_bytes())))
    }
}

impl From<Vec<u8>> for Upload<'_> {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Kind::Bytes(Cow::Owned(bytes)))
    }
}

impl From<String> for Upload<'_> {
    fn from(text: String) -> Self {
        Self(Kind::Bytes(Cow::Owned(text.into_bytes())))
    }
}
