//! In a child process of the one whose threads a pool has.
//!
//! Nothing that could be waited for will come there; a lock may be held for ever, by a thread that
//! was not forked; and what could be closed or changed is the parent's as well.

use crate::connector::Connector;
use crate::error::Error;
use crate::shared::names::Names;
use crate::shared::{Boxed, Shared, State};
use crate::sync::{MutexGuard, Ordering, RwLockReadGuard};

impl<C: Connector> Shared<C> {
    /// True in such a child.
    pub(crate) fn is_orphaned(&self) -> bool {
        let parent = self.pid.load(Ordering::Relaxed);
        parent != 0 && parent != std::process::id()
    }

    /// Takes the pool's lock; `None` in such a child, if it was held when the child was forked.
    #[inline(always)]
    pub(super) fn enter(&self) -> Option<MutexGuard<'_, State<C>>> {
        self.state.try_lock().or_else(|| self.enter_after_others())
    }

    #[cold]
    #[inline(never)]
    fn enter_after_others(&self) -> Option<MutexGuard<'_, State<C>>> {
        if self.is_orphaned() { None } else { Some(self.state.lock()) }
    }

    /// Takes the lock of the name tables, to read.
    #[inline(always)]
    pub(super) fn read_names(&self) -> Result<RwLockReadGuard<'_, Names<C>>, Error> {
        self.names.try_read().map_or_else(|| self.read_names_after_others(), Ok)
    }

    #[cold]
    #[inline(never)]
    fn read_names_after_others(&self) -> Result<RwLockReadGuard<'_, Names<C>>, Error> {
        if self.is_orphaned() { Err(Error::closed()) } else { Ok(self.names.read()) }
    }

    /// Lets go of a connection of the parent's. A foreign one is not even dropped: its farewell
    /// would end the parent's.
    pub(super) fn leave_to_parent(&self, held: Boxed<C>) {
        if self.is_plain {
            drop(held);
        } else {
            std::mem::forget(held);
        }
    }
}
