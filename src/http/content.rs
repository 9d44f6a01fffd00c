//! The content of an answer, as it comes from a connection.

use std::io;

use ::http::HeaderMap;

use crate::clock::Deadline;
use crate::connector::Socket;
use crate::http::buffer::Buffer;
use crate::http::proto::{Chunked, Fault, Framing, MOST_HEAD_BYTES, Unfit, copy};
use crate::observe::CloseReason;

/// Chunks that are longer are read to where the caller wants them, if there is room for so much.
const LONG: usize = 16 * 1024;

/// What is left of a body.
#[derive(Debug)]
pub(crate) struct Content {
    rest: Rest,
    buffer: Buffer,
    /// The server hung up at its end.
    has_hung_up: bool,
    /// What was read last took all the room for it: more may have come.
    is_filled_up: bool,
    /// More came than the body holds.
    has_stray: bool,
}

#[derive(Debug)]
enum Rest {
    Done(HeaderMap),
    Length(u64),
    Chunked(Chunked),
    UntilClose,
    /// It makes no sense: nothing after it does.
    Faulty,
}

/// Why no more of it can be had.
#[derive(Debug)]
pub(crate) enum Trouble {
    Io(io::Error),
    /// The connection ended before the body.
    Ended,
    Fault(Fault),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Fault> for Trouble {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl Content {
    /// A body of which the beginning may have come with the head.
    pub(crate) fn new(framing: Framing, buffer: Buffer) -> Self {
        let rest = match framing {
            Framing::Empty | Framing::Length(0) | Framing::Tunnel => Rest::Done(HeaderMap::new()),
            Framing::Length(length) => Rest::Length(length),
            Framing::Chunked => Rest::Chunked(Chunked::default()),
            Framing::UntilClose => Rest::UntilClose,
        };
        let is_filled_up = buffer.is_filled_up();
        Self { rest, buffer, has_hung_up: false, is_filled_up, has_stray: false }
    }

    pub(crate) const fn is_done(&self) -> bool {
        matches!(self.rest, Rest::Done(_))
    }

    /// Bytes that are left, if that is known.
    pub(crate) const fn left(&self) -> Option<u64> {
        match self.rest {
            Rest::Done(_) => Some(0),
            Rest::Length(left) => Some(left),
            Rest::Chunked(_) | Rest::UntilClose | Rest::Faulty => None,
        }
    }

    /// It ends only where the server hangs up, if at all.
    pub(crate) const fn is_endless(&self) -> bool {
        matches!(self.rest, Rest::UntilClose | Rest::Faulty)
    }

    /// After its end: what speaks against using the connection again. A look at the socket, if the
    /// last read could not tell.
    pub(crate) fn objection(&self, socket: &Socket) -> Option<Unfit> {
        let has_stray = !self.buffer.is_empty() || self.has_stray;
        if self.has_hung_up {
            return Some(Unfit::UntilClose);
        }
        if has_stray {
            return Some(Unfit::StrayBytes);
        }
        let look = self.is_filled_up.then(|| socket.probe()).flatten();
        look.map(|found| match found {
            CloseReason::StrayBytes => Unfit::StrayBytes,
            _ => Unfit::UntilClose,
        })
    }

    pub(crate) fn take_trailers(&mut self) -> HeaderMap {
        match &mut self.rest {
            Rest::Done(trailers) => std::mem::take(trailers),
            _ => HeaderMap::new(),
        }
    }

    /// Reads some of it; zero: that was all, or there is no room.
    ///
    /// The end is noticed with the last byte, if it can be.
    pub(crate) fn read(
        &mut self,
        socket: &mut Socket,
        out: &mut [u8],
        by: impl Fn() -> Deadline,
    ) -> Result<usize, Trouble> {
        if out.is_empty() {
            return Ok(0);
        }
        loop {
            let count = self.read_here(out)?;
            if count > 0 || self.is_done() {
                return Ok(count);
            }
            if let Some(direct) = self.direct(out) {
                let room = direct.len();
                let count = socket.read_by(direct, by())?;
                self.is_filled_up = count == room;
                return self.note_direct(count);
            }
            let room = self.buffer.room(MOST_HEAD_BYTES);
            let count = socket.read_by(room, by())?;
            if count == 0 {
                return self.hung_up();
            }
            self.buffer.filled(count);
            self.is_filled_up = self.buffer.is_filled_up();
        }
    }

    /// Takes what is there already.
    pub(crate) fn read_here(&mut self, out: &mut [u8]) -> Result<usize, Trouble> {
        let here = self.buffer.unread();
        let (used, copied) = match &mut self.rest {
            Rest::Done(_) => (0, 0),
            Rest::Length(left) => {
                let count = copy(here, out, *left);
                *left -= count as u64;
                (count, count)
            }
            Rest::Chunked(chunked) => match chunked.decode(here, out) {
                Ok(done) => done,
                Err(fault) => {
                    self.rest = Rest::Faulty;
                    return Err(fault.into());
                }
            },
            Rest::Faulty => return Err(Fault::new("the answer made no sense before").into()),
            Rest::UntilClose => {
                let count = copy(here, out, u64::MAX);
                (count, count)
            }
        };
        self.buffer.consume(used);
        self.look_for_end();
        Ok(copied)
    }

    /// Where content can be read to directly, as nothing but content comes next.
    fn direct<'o>(&self, out: &'o mut [u8]) -> Option<&'o mut [u8]> {
        let most = match &self.rest {
            // With room for one byte more than there is, a read tells that there was no more.
            Rest::Length(left) => left.saturating_add(1),
            Rest::UntilClose => u64::MAX,
            Rest::Chunked(chunked) => {
                let is_long = chunked.missing() >= LONG as u64 && out.len() >= LONG;
                is_long.then(|| chunked.missing())?
            }
            Rest::Done(_) | Rest::Faulty => return None,
        };
        let most = usize::try_from(most).unwrap_or(usize::MAX).min(out.len());
        out.get_mut(..most)
    }

    fn note_direct(&mut self, mut count: usize) -> Result<usize, Trouble> {
        if count == 0 {
            return self.hung_up();
        }
        match &mut self.rest {
            Rest::Length(left) => {
                let most = usize::try_from(*left).unwrap_or(usize::MAX);
                self.has_stray = count > most;
                count = count.min(most);
                *left -= count as u64;
            }
            Rest::Chunked(chunked) => chunked.note_content(count),
            Rest::UntilClose | Rest::Done(_) | Rest::Faulty => {}
        }
        self.look_for_end();
        Ok(count)
    }

    fn look_for_end(&mut self) {
        match &mut self.rest {
            Rest::Length(0) => self.rest = Rest::Done(HeaderMap::new()),
            Rest::Chunked(chunked) if chunked.is_done() => {
                self.rest = Rest::Done(chunked.take_trailers());
            }
            _ => {}
        }
    }

    fn hung_up(&mut self) -> Result<usize, Trouble> {
        self.has_hung_up = true;
        match &self.rest {
            Rest::UntilClose => {}
            // Some servers hang up where the line end after the last chunk should be.
            Rest::Chunked(chunked) if chunked.is_all_there() => {}
            Rest::Done(_) => return Ok(0),
            Rest::Length(_) | Rest::Chunked(_) | Rest::Faulty => return Err(Trouble::Ended),
        }
        self.rest = Rest::Done(HeaderMap::new());
        Ok(0)
    }
}
