//! Atomics.

#![expect(clippy::allow_attributes, reason = "whether one is fulfilled depends on the type")]

use std::sync::atomic::Ordering;

use crate::sim::threads::step;

/// Atomics whose every use is a point at which another thread may go on.
macro_rules! atomics {
    ($($name:ident: $of:ty,)*) => {$(
        #[derive(Debug, Default)]
        pub(crate) struct $name(std::sync::atomic::$name);

        #[allow(dead_code, reason = "not each has a use for all of them")]
        impl $name {
            pub(crate) const fn new(value: $of) -> Self {
                Self(std::sync::atomic::$name::new(value))
            }

            pub(crate) fn load(&self, order: Ordering) -> $of {
                step();
                self.0.load(order)
            }

            pub(crate) fn store(&self, value: $of, order: Ordering) {
                step();
                self.0.store(value, order);
            }

            pub(crate) fn swap(&self, value: $of, order: Ordering) -> $of {
                step();
                self.0.swap(value, order)
            }

            pub(crate) fn compare_exchange(
                &self,
                current: $of,
                new: $of,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$of, $of> {
                step();
                self.0.compare_exchange(current, new, success, failure)
            }

            pub(crate) fn get_mut(&mut self) -> &mut $of {
                self.0.get_mut()
            }
        }
    )*};
}

atomics! {
    AtomicBool: bool,
    AtomicU32: u32,
    AtomicU64: u64,
}

impl AtomicU32 {
    pub(crate) fn fetch_add(&self, value: u32, order: Ordering) -> u32 {
        step();
        self.0.fetch_add(value, order)
    }
}

impl AtomicU64 {
    pub(crate) fn fetch_add(&self, value: u64, order: Ordering) -> u64 {
        step();
        self.0.fetch_add(value, order)
    }
}
