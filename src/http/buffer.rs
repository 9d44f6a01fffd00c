//! Memory to read into. It is kept by threads, and not by connections: an idle one holds none.

use std::cell::RefCell;
use std::fmt;

use crate::sync::thread_local;

/// Enough for nearly every head, and for many an answer as a whole.
const USUAL: usize = 16 * 1024;
/// A thread keeps so many for what it does next.
const MOST_KEPT: usize = 4;

/// What one thread keeps.
struct Kept {
    /// To read into: of the usual size.
    read: Vec<Vec<u8>>,
    /// To write heads to.
    written: Vec<Vec<u8>>,
}

thread_local! {
    static KEPT: RefCell<Kept> =
        const { RefCell::new(Kept { read: Vec::new(), written: Vec::new() }) };
}

/// Memory of one kind that this thread has kept, if it has some.
fn take(of: impl FnOnce(&mut Kept) -> &mut Vec<Vec<u8>>) -> Option<Vec<u8>> {
    KEPT.try_with(|kept| of(&mut kept.borrow_mut()).pop()).ok().flatten()
}

fn give_back(bytes: Vec<u8>, of: impl FnOnce(&mut Kept) -> &mut Vec<Vec<u8>>) {
    if bytes.capacity() == 0 || bytes.capacity() > 2 * USUAL {
        return;
    }
    let _gone = KEPT.try_with(|kept| {
        let mut kept = kept.borrow_mut();
        let place = of(&mut kept);
        if place.len() < MOST_KEPT {
            place.push(bytes);
        }
    });
}

/// Bytes that have come and were not taken yet.
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    /// What came last took all the room: more may have come.
    is_filled_up: bool,
}

impl Buffer {
    pub(crate) const fn new() -> Self {
        Self { bytes: Vec::new(), start: 0, end: 0, is_filled_up: false }
    }

    /// More may have come than was read here.
    pub(crate) const fn is_filled_up(&self) -> bool {
        self.is_filled_up
    }

    /// What has come.
    pub(crate) fn unread(&self) -> &[u8] {
        self.bytes.get(self.start..self.end).unwrap_or_default()
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// So much of it was taken.
    pub(crate) fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
        if self.is_empty() {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Room for more: at least one byte, unless it holds `most` already.
    pub(crate) fn room(&mut self, most: usize) -> &mut [u8] {
        if self.bytes.is_empty() {
            self.bytes = take(|kept| &mut kept.read).unwrap_or_else(|| vec![0; USUAL]);
        }
        if self.end == self.bytes.len() && self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.end == self.bytes.len() {
            self.bytes.resize((2 * self.bytes.len()).min(most).max(self.end), 0);
        }
        self.bytes.get_mut(self.end..).unwrap_or_default()
    }

    /// So much has come to that room.
    pub(crate) fn filled(&mut self, count: usize) {
        self.end = (self.end + count).min(self.bytes.len());
        self.is_filled_up = self.end == self.bytes.len();
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.bytes.len() == USUAL {
            give_back(std::mem::take(&mut self.bytes), |kept| &mut kept.read);
        }
    }
}

/// Its memory held what others have read before: none of it is shown.
impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({} unread)", self.unread().len())
    }
}

/// A request's head, and perhaps its body: recycled memory as well.
pub(crate) struct Written(pub(crate) Vec<u8>);

impl Written {
    pub(crate) fn new() -> Self {
        Self(take(|kept| &mut kept.written).unwrap_or_default())
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        give_back(std::mem::take(&mut self.0), |kept| &mut kept.written);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(buffer: &mut Buffer, with: &[u8], most: usize) {
        let room = buffer.room(most);
        room[..with.len()].copy_from_slice(with);
        buffer.filled(with.len());
    }

    #[test]
    fn what_has_come_stays_until_it_is_taken_however_much_follows() {
        let mut buffer = Buffer::new();
        fill(&mut buffer, b"hello", 1 << 20);
        buffer.consume(2);
        while buffer.unread().len() < 4 * USUAL {
            let count = buffer.room(1 << 20).len();
            fill(&mut buffer, &vec![b'x'; count], 1 << 20);
        }
        assert!(buffer.unread().starts_with(b"lloxx"));
        let len = buffer.unread().len();
        buffer.consume(len);
        assert!(buffer.is_empty());
    }

    #[test]
    fn there_is_no_room_beyond_the_most() {
        let mut buffer = Buffer::new();
        let usual = buffer.room(USUAL).len();
        buffer.filled(usual);
        assert_eq!((usual, buffer.room(USUAL).len()), (USUAL, 0));
        assert_eq!(buffer.room(USUAL + 10).len(), 10);
    }

    #[test]
    fn memory_is_used_again_and_nothing_huge_is_kept() {
        let mut buffer = Buffer::new();
        let at = buffer.room(USUAL).as_ptr();
        drop(buffer);
        assert_eq!(Buffer::new().room(USUAL).as_ptr(), at);
        let mut huge = Buffer::new();
        let room = huge.room(1 << 20).len();
        huge.filled(room);
        while huge.room(1 << 20).len() < 100_000 {
            let room = huge.room(1 << 20).len();
            huge.filled(room);
        }
        drop(huge);
        assert!(KEPT.with(|kept| kept.borrow().read.iter().all(|bytes| bytes.len() == USUAL)));
    }
}
