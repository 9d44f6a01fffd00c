//! An allocator that knows what is allocated at the moment.

use std::alloc::{GlobalAlloc, Layout, System};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

/// Sizes up to this are told apart by the word; larger ones by powers of two.
const MOST_EXACT: usize = 1024;
const WORD: usize = 8;
const CLASSES: usize = MOST_EXACT / WORD + 1 + usize::BITS as usize;
/// Classes that are worth a word in a report.
const TOLD: usize = 8;

/// The system's allocator, weighing what the whole process has from it.
#[derive(Debug)]
pub struct Weighing {
    is_on: AtomicBool,
    allocations: AtomicU64,
    counts: [AtomicI64; CLASSES],
    bytes: [AtomicI64; CLASSES],
}

/// What is allocated, by size; or the change between two moments.
#[derive(Clone, Copy, Debug)]
pub struct Weight([Class; CLASSES]);

#[derive(Clone, Copy, Debug, Default)]
struct Class {
    count: i64,
    bytes: i64,
}

impl Weighing {
    /// With nothing allocated yet.
    #[must_use]
    pub const fn new() -> Self {
        Self::when(true)
    }

    /// One that does nothing before [`begin`](Self::begin): it slows nobody down until then.
    #[must_use]
    pub const fn on_demand() -> Self {
        Self::when(false)
    }

    const fn when(is_on: bool) -> Self {
        Self {
            is_on: AtomicBool::new(is_on),
            allocations: AtomicU64::new(0),
            counts: [const { AtomicI64::new(0) }; CLASSES],
            bytes: [const { AtomicI64::new(0) }; CLASSES],
        }
    }

    /// Weighs from now on: what was allocated before is missed when it is freed, so that only
    /// differences between two later moments mean something.
    pub fn begin(&self) {
        self.is_on.store(true, Ordering::SeqCst);
    }

    /// Weighs no more.
    pub fn end(&self) {
        self.is_on.store(false, Ordering::SeqCst);
    }

    /// Allocations and reallocations so far, on all threads.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.allocations.load(Ordering::Relaxed)
    }

    /// What is allocated at the moment.
    #[must_use]
    pub fn weigh(&self) -> Weight {
        let mut classes = [Class::default(); CLASSES];
        for (class, (count, bytes)) in classes.iter_mut().zip(self.counts.iter().zip(&self.bytes)) {
            class.count = count.load(Ordering::Relaxed);
            class.bytes = bytes.load(Ordering::Relaxed);
        }
        Weight(classes)
    }

    fn add(&self, size: usize, count: i64) {
        if !self.is_on.load(Ordering::Relaxed) {
            return;
        }
        // A reallocation is one more of the new size.
        if count > 0 {
            self.allocations.fetch_add(count.unsigned_abs(), Ordering::Relaxed);
        }
        let class = class_of(size);
        if let (Some(counts), Some(bytes)) = (self.counts.get(class), self.bytes.get(class)) {
            counts.fetch_add(count, Ordering::Relaxed);
            bytes.fetch_add(count * size as i64, Ordering::Relaxed);
        }
    }
}

impl Default for Weighing {
    fn default() -> Self {
        Self::new()
    }
}

fn class_of(size: usize) -> usize {
    if size <= MOST_EXACT {
        size.div_ceil(WORD)
    } else {
        MOST_EXACT / WORD + 1 + (size.ilog2() - MOST_EXACT.ilog2()) as usize
    }
}

impl Weight {
    /// The change since `earlier`.
    #[must_use]
    pub fn since(mut self, earlier: &Self) -> Self {
        for (class, earlier) in self.0.iter_mut().zip(&earlier.0) {
            class.count -= earlier.count;
            class.bytes -= earlier.bytes;
        }
        self
    }

    /// All bytes together.
    #[must_use]
    pub fn bytes(&self) -> i64 {
        self.0.iter().map(|class| class.bytes).sum()
    }
}

/// The heaviest classes, the heaviest first: how many there are, and their mean size.
impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut classes = Vec::from_iter(self.0.iter().filter(|class| class.count > 0));
        classes.sort_by_key(|class| -class.bytes);
        for (at, class) in classes.iter().take(TOLD).enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            write!(f, "{comma}{}x{} B", class.count, class.bytes / class.count)?;
        }
        Ok(())
    }
}

// SAFETY: every call is passed on, unchanged, to `System`, which keeps the contract; counting
// neither allocates nor unwinds.
#[expect(unsafe_code, reason = "there is no other way to see allocations")]
unsafe impl GlobalAlloc for Weighing {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.add(layout.size(), 1);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        self.add(layout.size(), -1);
        // SAFETY: the caller keeps the contract of `dealloc`; `pointer` came from `System`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        self.add(layout.size(), -1);
        self.add(new_size, 1);
        // SAFETY: the caller keeps the contract of `realloc`; `pointer` came from `System`.
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_size_has_a_class_and_larger_ones_have_later_classes() {
        let classes = [0, 1, 8, 9, 1024, 1025, 2048, 4096, usize::MAX].map(class_of);
        assert!(classes.is_sorted() && classes[8] < CLASSES);
        assert_eq!((class_of(1), class_of(8), class_of(9)), (1, 1, 2));
        assert!(class_of(1024) < class_of(1025), "the last exact class holds nothing larger");
    }

    #[test]
    fn what_was_freed_weighs_nothing_and_the_heaviest_is_told_first() {
        let weighing = Weighing::new();
        let before = weighing.weigh();
        weighing.add(80, 3);
        weighing.add(5_000, 1);
        weighing.add(24, 1);
        weighing.add(24, -1);
        let change = weighing.weigh().since(&before);
        assert_eq!(change.bytes(), 5_240);
        assert_eq!(change.to_string(), "1x5000 B, 3x80 B");
    }

    #[test]
    fn what_happens_before_the_beginning_and_after_the_end_is_not_weighed() {
        let weighing = Weighing::on_demand();
        let before = weighing.weigh();
        weighing.add(80, 3);
        assert_eq!(weighing.count(), 0);
        weighing.begin();
        weighing.add(24, 1);
        weighing.add(24, -1);
        weighing.add(8, 1);
        weighing.end();
        weighing.add(80, -3);
        assert_eq!((weighing.weigh().since(&before).bytes(), weighing.count()), (8, 2));
    }
}
