//! One request and its answer's head, on one connection.

use std::io;
use std::time::Duration;

use ::http::StatusCode;

use crate::clock::{self, Deadline, Stamp};
use crate::connector::{Ended, Socket};
use crate::http::buffer::Buffer;
use crate::http::error::Stage;
use crate::http::proto::{Awaiting, Fault, Head, MOST_HEAD_BYTES, Size, Step, Unfit};
use crate::http::trace::{Event, Tracer};
use crate::http::upload::Upload;
use crate::observe::CloseReason;

/// Bodies are written in pieces, between which the server may be heard.
const PIECE: usize = 64 * 1024;
/// What is read of an upload at a time, and becomes one chunk.
const CHUNK: usize = 16 * 1024;
/// Room for the line before a chunk: so many hexadecimal digits, and the line end.
const CHUNK_LINE: usize = 6;
/// Where writing has failed, an answer may have come before: it is looked for so long.
const LAST_WORDS: Duration = Duration::from_millis(50);

/// How long the steps of a request may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    pub(crate) write: Duration,
    pub(crate) head: Duration,
    pub(crate) read: Duration,
    pub(crate) go_on: Duration,
    pub(crate) total: Option<Deadline>,
    /// When the request began.
    pub(crate) began: Stamp,
}

impl Times {
    /// When a step must have ended that begins now.
    pub(crate) fn by(&self, step: Duration) -> Deadline {
        let by = Deadline::after(step);
        self.total.map_or(by, |total| by.min(total))
    }

    /// The time for all of it is over.
    pub(crate) fn is_over(&self) -> bool {
        self.total.is_some_and(Deadline::has_passed)
    }

    /// Since the request began.
    pub(crate) fn waited(&self) -> Duration {
        clock::mono().since(self.began)
    }
}

/// What is to be sent.
pub(crate) struct Sending<'s, 'b> {
    /// The head, and the body as well where that is short.
    pub(crate) first: &'s [u8],
    /// What follows it, if anything does.
    pub(crate) upload: Option<&'s mut Upload<'b>>,
    /// The body waits for the server's word.
    pub(crate) awaits_go_on: bool,
}

/// An answer has begun.
pub(crate) struct Answer {
    pub(crate) head: Head,
    /// What came behind its head.
    pub(crate) buffer: Buffer,
    /// The whole request was sent.
    pub(crate) is_sent: bool,
    /// Nothing came before its head.
    pub(crate) is_first: bool,
    /// It came before the request was sent.
    pub(crate) is_early: bool,
}

impl Answer {
    /// A server that closes an idle connection may say so, with 408: that is no answer to what was
    /// asked at the same moment.
    pub(crate) fn is_farewell(&self) -> bool {
        let closes = matches!(self.head.unfit, Some(Unfit::ServerCloses | Unfit::Http10));
        let status = self.head.response.status();
        status == StatusCode::REQUEST_TIMEOUT && closes && self.is_first
    }
}

/// There is no answer.
#[derive(Debug)]
pub(crate) struct Broken {
    pub(crate) cause: Cause,
    pub(crate) stage: Stage,
}

#[derive(Debug)]
pub(crate) enum Cause {
    Io(io::Error),
    /// The server hung up.
    Ended,
    /// The server says that it closes a connection that nobody used: 408.
    Farewell,
    /// Something had come that nobody asked for.
    Stray,
    Fault(Fault),
    /// The server takes no more of the request before its answer is read.
    Stuck,
    TooLong,
    /// The reader of the body failed, or had too little.
    Upload(io::Error),
}

impl Cause {
    /// The server has closed the connection, or the network has, and it may not have seen anything:
    /// nothing came from it, or its farewell.
    pub(crate) fn is_hang_up(&self, is_unread: bool) -> bool {
        match self {
            Self::Ended => is_unread,
            Self::Io(error) => is_unread && is_hang_up(error),
            Self::Farewell | Self::Stray => true,
            _ => false,
        }
    }

    /// Why the connection is closed.
    pub(crate) fn reason(&self) -> CloseReason {
        match self {
            Self::Stray => CloseReason::StrayBytes,
            Self::Ended | Self::Farewell => CloseReason::PeerClosed,
            Self::Upload(_) => CloseReason::Unfinished,
            Self::Io(_) | Self::Fault(_) | Self::Stuck | Self::TooLong => CloseReason::Failed,
        }
    }

    pub(crate) fn is_time_out(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == io::ErrorKind::TimedOut)
    }
}

fn is_hang_up(error: &io::Error) -> bool {
    Ended::Error(error.kind()).is_hang_up()
}

/// What came before sending failed answers the request all the same.
fn is_answer_to_half(cause: &Cause, head: &Head) -> bool {
    match cause {
        Cause::Upload(_) => false,
        Cause::Io(error) => head.is_refusal() || is_hang_up(error),
        _ => head.is_refusal(),
    }
}

pub(crate) struct Exchange<'e> {
    pub(crate) socket: &'e mut Socket,
    pub(crate) awaiting: &'e mut Awaiting,
    pub(crate) times: &'e Times,
    pub(crate) tracer: &'e Tracer,
    buffer: Buffer,
    /// Bytes that came before the answer's head.
    announced: usize,
    /// The server has asked for the body.
    is_wanted: bool,
    has_begun: bool,
    /// An answer that came before the request was written.
    early: Option<Head>,
    /// The server will say nothing more.
    is_silent: bool,
}

impl<'e> Exchange<'e> {
    pub(crate) fn new(
        socket: &'e mut Socket,
        awaiting: &'e mut Awaiting,
        times: &'e Times,
        tracer: &'e Tracer,
    ) -> Self {
        Self {
            socket,
            awaiting,
            times,
            tracer,
            buffer: Buffer::new(),
            announced: 0,
            is_wanted: false,
            has_begun: false,
            early: None,
            is_silent: false,
        }
    }

    pub(crate) fn run(mut self, sending: Sending<'_, '_>) -> Result<Answer, Broken> {
        let sent = self.send(sending);
        if sent.is_ok() {
            self.tell_wrote();
        }
        let is_sent = matches!(sent, Ok(true));
        let is_early = self.early.is_some();
        let head = match (sent, self.early.take()) {
            // Whoever uploads half of something must learn of it, unless the server wants no more.
            (Err(cause), Some(head)) if !is_answer_to_half(&cause, &head) => {
                return Err(Broken { cause, stage: Stage::Write });
            }
            (_, Some(head)) => head,
            (Ok(_), None) => {
                let head = self.await_head(self.times.by(self.times.head));
                head.map_err(|cause| Broken { cause, stage: Stage::Head })?
            }
            // Perhaps because it has been refused: that is the better answer.
            (Err(cause), None) => match self.last_words(&cause) {
                Some(head) => head,
                None => return Err(Broken { cause, stage: Stage::Write }),
            },
        };
        self.buffer.consume(head.used);
        let status = head.response.status();
        self.tracer.tell(|at| Event::Head { at, status });
        let is_first = self.announced == 0;
        Ok(Answer { head, buffer: self.buffer, is_sent, is_first, is_early })
    }

    fn tell_wrote(&self) {
        let bytes = self.socket.bytes_written();
        self.tracer.tell(|at| Event::Wrote { at, bytes });
    }

    /// Sends the request; false if the server has answered before it had all of it.
    fn send(&mut self, sending: Sending<'_, '_>) -> Result<bool, Cause> {
        let Sending { first, upload, awaits_go_on } = sending;
        self.write(first)?;
        let Some(upload) = upload else { return Ok(true) };
        if awaits_go_on && !self.await_go_on()? {
            return Ok(false);
        }
        if let Some(bytes) = upload.bytes() {
            return self.write_pieces(bytes);
        }
        let size = upload.size();
        let mut memory = vec![0; CHUNK_LINE + CHUNK + 2];
        let mut left = match size {
            Size::Known(length) => length,
            Size::None | Size::Unknown => u64::MAX,
        };
        let is_chunked = size == Size::Unknown;
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
            let room = memory.get_mut(CHUNK_LINE..CHUNK_LINE + most).unwrap_or_default();
            let count = upload.read(room).map_err(Cause::Upload)?;
            if count == 0 && !is_chunked {
                return Err(Cause::Upload(io::ErrorKind::UnexpectedEof.into()));
            }
            let piece = if is_chunked {
                chunk(&mut memory, count)
            } else {
                left -= count as u64;
                memory.get(CHUNK_LINE..CHUNK_LINE + count).unwrap_or_default()
            };
            if !self.write_pieces(piece)? {
                return Ok(false);
            }
            if count == 0 {
                break;
            }
        }
        Ok(true)
    }

    fn write(&mut self, mut bytes: &[u8]) -> Result<(), Cause> {
        while !bytes.is_empty() {
            let count = self.socket.write_by(bytes, self.write_by()?).map_err(Cause::Io)?;
            bytes = bytes.get(count..).unwrap_or_default();
        }
        Ok(())
    }

    /// When the next bytes must have been taken.
    fn write_by(&self) -> Result<Deadline, Cause> {
        if self.times.is_over() {
            return Err(Cause::Io(io::ErrorKind::TimedOut.into()));
        }
        Ok(self.times.by(self.times.write))
    }

    /// Writes, and hears what the server says meanwhile; false if nothing more is wanted.
    fn write_pieces(&mut self, bytes: &[u8]) -> Result<bool, Cause> {
        for mut piece in bytes.chunks(PIECE) {
            while !piece.is_empty() {
                let by = self.write_by()?;
                let has_answered = self.early.is_some();
                let written = if self.is_silent {
                    self.socket.write_by(piece, by).map(Some)
                } else if has_answered {
                    self.socket.write_or_hear(piece, by)
                } else {
                    self.socket.write_unless_answered(piece, by)
                };
                match written.map_err(Cause::Io)? {
                    Some(count) => piece = piece.get(count..).unwrap_or_default(),
                    None if has_answered => self.make_room(by)?,
                    None => {
                        self.fill(by)?;
                        self.early = self.next_head()?;
                        if self.early.as_ref().is_some_and(Head::is_refusal) {
                            return Ok(false);
                        }
                    }
                }
            }
        }
        Ok(true)
    }

    /// The server, which has agreed already, goes on with its answer: so that it goes on reading as
    /// well, some of that is taken in.
    fn make_room(&mut self, by: Deadline) -> Result<(), Cause> {
        let room = self.buffer.room(MOST_HEAD_BYTES);
        if room.is_empty() {
            return Err(Cause::Stuck);
        }
        let count = self.socket.read_by(room, by).map_err(Cause::Io)?;
        self.buffer.filled(count);
        self.is_silent = count == 0;
        Ok(())
    }

    /// Waits for the server's word that the body is wanted; false if it is not.
    fn await_go_on(&mut self) -> Result<bool, Cause> {
        let by = self.times.by(self.times.go_on);
        while self.socket.wait_readable(by).map_err(Cause::Io)? {
            self.fill(by)?;
            if let Some(head) = self.next_head()? {
                let goes_on = self.is_wanted && !head.is_refusal();
                self.early = Some(head);
                return Ok(goes_on);
            }
            if self.is_wanted {
                return Ok(true);
            }
        }
        Ok(true) // it does not know the question
    }

    fn await_head(&mut self, by: Deadline) -> Result<Head, Cause> {
        loop {
            if let Some(head) = self.next_head()? {
                return Ok(head);
            }
            self.fill(by)?;
        }
    }

    /// The answer's head, if it has come; what comes before it is passed over.
    fn next_head(&mut self) -> Result<Option<Head>, Cause> {
        while !self.buffer.is_empty() {
            match self.awaiting.head(self.buffer.unread()).map_err(Cause::Fault)? {
                Step::More => break,
                Step::Interim(used, status) => self.note_interim(used, status),
                Step::Head(head) => return Ok(Some(head)),
            }
        }
        Ok(None)
    }

    /// Writing has failed. The server may have answered before: what it sent is still there.
    fn last_words(&mut self, cause: &Cause) -> Option<Head> {
        let is_lost = matches!(cause, Cause::Io(error) if is_hang_up(error));
        if !is_lost {
            return None;
        }
        self.await_head(self.times.by(LAST_WORDS)).ok()
    }

    fn note_interim(&mut self, used: usize, status: StatusCode) {
        self.buffer.consume(used);
        self.announced += used;
        self.is_wanted |= status == StatusCode::CONTINUE;
        self.tracer.tell(|at| Event::Interim { at, status });
    }

    /// Reads more of what comes before the body.
    fn fill(&mut self, by: Deadline) -> Result<(), Cause> {
        let most = MOST_HEAD_BYTES.saturating_sub(self.announced);
        if self.buffer.unread().len() >= most {
            return Err(Cause::TooLong);
        }
        let room = self.buffer.room(most);
        let count = self.socket.read_by(room, by).map_err(Cause::Io)?;
        if count == 0 {
            return Err(Cause::Ended);
        }
        self.buffer.filled(count);
        if !self.has_begun {
            self.has_begun = true;
            self.tracer.tell(|at| Event::FirstByte { at });
        }
        Ok(())
    }
}

/// Makes a chunk of what was read to behind the line's place: the last one, if that was nothing.
fn chunk(memory: &mut [u8], count: usize) -> &[u8] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    if let Some(end) = memory.get_mut(CHUNK_LINE + count..CHUNK_LINE + count + 2) {
        end.copy_from_slice(b"\r\n");
    }
    let mut at = CHUNK_LINE - 2;
    if let Some(end) = memory.get_mut(at..CHUNK_LINE) {
        end.copy_from_slice(b"\r\n");
    }
    let mut rest = count;
    loop {
        at -= 1;
        if let (Some(place), Some(digit)) = (memory.get_mut(at), DIGITS.get(rest % 16)) {
            *place = *digit;
        }
        rest /= 16;
        if rest == 0 || at == 0 {
            break;
        }
    }
    memory.get(at..CHUNK_LINE + count + 2).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_has_its_length_before_it_and_a_line_end_behind() {
        let mut memory = vec![b'x'; CHUNK_LINE + CHUNK + 2];
        assert_eq!(chunk(&mut memory, 5), b"5\r\nxxxxx\r\n");
        assert_eq!(chunk(&mut memory, 0), b"0\r\n\r\n");
        let mut memory = vec![b'x'; CHUNK_LINE + CHUNK + 2];
        assert!(chunk(&mut memory, CHUNK).starts_with(b"4000\r\nxx"));
        let mut memory = vec![b'x'; CHUNK_LINE + CHUNK + 2];
        assert_eq!(chunk(&mut memory, 0xff), [b"ff\r\n", &[b'x'; 255][..], b"\r\n"].concat());
    }
}
