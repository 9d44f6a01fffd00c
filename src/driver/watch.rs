//! Watching idle connections: what is registered for which pool, and under which word.
//!
//! On Linux a socket is registered once, edge-triggered, for the peer's farewell alone
//! (`EPOLLRDHUP`): traffic wakes nobody. mio cannot express that interest, so it is added to mio's
//! own instance beside it. The portable way asks for readability, and only while a connection is
//! idle, or each answer would wake the loop.

use std::collections::hash_map::Entry;
use std::io;

use crate::clock::Stamp;
use crate::connector::Watch;
use crate::core::{Cut, Notice, Token};
use crate::driver::crew::Crew;
use crate::driver::heartbeat;
use crate::shared::{Since, Watched};
use crate::sync::{Arc, Mutex, Weak};
use crate::sys::mio::{self, Registry};
use crate::sys::{self, HashMap, RawFd};

/// Pools with connections to watch, and the poll they are registered with.
#[derive(Debug)]
pub(crate) struct Watches {
    registry: Arc<Registry>,
    wards: Mutex<Wards>,
    claims: Arc<Claims>,
}

/// Whose the registration of a descriptor is that is known by its number alone.
///
/// Its client may close it at any time, and the number be another's then: whose registration must
/// not be ended for it.
#[derive(Debug, Default)]
pub(crate) struct Claims(Mutex<HashMap<RawFd, (u64, Token)>>);

impl Claims {
    /// The descriptor of this number belongs to somebody who has it for certain.
    pub(crate) fn drop_of(&self, fd: RawFd) {
        self.0.lock().remove(&fd);
    }

    /// Registers the number, and with it a claim. None can come between the two.
    fn make(
        &self,
        fd: RawFd,
        of: (u64, Token),
        register: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        let mut claims = self.0.lock();
        register()?;
        claims.insert(fd, of);
        Ok(())
    }

    /// Ends the registration, if the last claim to the number is this connection's.
    fn take(
        &self,
        fd: RawFd,
        of: (u64, Token),
        deregister: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        let mut claims = self.0.lock();
        if claims.get(&fd) != Some(&of) {
            return Ok(());
        }
        claims.remove(&fd);
        deregister()
    }
}

/// How a connection is to be watched.
#[derive(Clone, Copy, Debug)]
pub(crate) struct How {
    /// By means that every system has.
    pub(crate) portably: bool,
    pub(crate) since: Since,
}

#[derive(Debug, Default)]
struct Wards {
    by_tag: HashMap<u16, Weak<dyn Ward>>,
    last_tag: u16,
}

/// A pool, as the threads that work for all pools of a driver know it. Nothing here blocks.
pub(crate) trait Ward: Send + Sync {
    /// The loop saw something on one of its connections.
    fn noticed(self: Arc<Self>, of: Cut, notice: Notice, crew: &Crew);
    /// The reaper looks; returns when it must look again.
    fn look(self: Arc<Self>, crew: &Crew) -> Stamp;
}

impl std::fmt::Debug for dyn Ward {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ward")
    }
}

/// The last tag that a pool may have; above it are those of heartbeats and of the waker.
pub(crate) const LAST_TAG: u16 = heartbeat::TAG - 1;

impl Watches {
    pub(crate) fn new(registry: Arc<Registry>, claims: Arc<Claims>) -> Self {
        Self { registry, wards: Mutex::default(), claims }
    }

    /// A tag for the words of a pool's connections; `None` if there are too many pools.
    pub(crate) fn admit(&self, ward: Weak<dyn Ward>) -> Option<u16> {
        let mut wards = self.wards.lock();
        // Round and round, so that a late event does not find another pool under its tag.
        for _ in 0..LAST_TAG {
            let tag = wards.last_tag % LAST_TAG + 1;
            wards.last_tag = tag;
            if let Entry::Vacant(free) = wards.by_tag.entry(tag) {
                free.insert(ward);
                return Some(tag);
            }
        }
        None
    }

    pub(crate) fn dismiss(&self, tag: u16) {
        let gone = self.wards.lock().by_tag.remove(&tag);
        drop(gone);
    }

    pub(crate) fn ward(&self, tag: u16) -> Option<Arc<dyn Ward>> {
        self.wards.lock().by_tag.get(&tag)?.upgrade()
    }

    /// Watches a connection of the pool with that tag. One that cannot be watched is looked at
    /// before reuse only.
    pub(crate) fn watch(&self, tag: u16, of: (u64, Token), watch: Watch<'_>, how: How) -> Watched {
        let How { portably, since } = how;
        // By its word a greeting is told from bytes that nobody can have asked for.
        let word = match since {
            Since::Opened => of.1.pack(tag),
            Since::Lent => of.1.pack_again(tag),
        };
        let Some(word) = word else { return Watched::No };
        if let Watch::Socket(fd) = watch {
            self.claims.drop_of(sys::number(fd));
        }
        let (result, watched) = match watch {
            Watch::Nothing => return Watched::No,
            _ if !sys::CAN_WATCH => return Watched::No,
            Watch::Socket(fd) if sys::HEARS_FAREWELL && !portably => {
                (sys::watch_farewell(&self.registry, fd, word), Watched::Always)
            }
            Watch::Socket(fd) => {
                (sys::watch_bytes(&self.registry, sys::number(fd), word), Watched::WhileIdle(since))
            }
            Watch::Raw(fd) => {
                let register = || sys::watch_bytes(&self.registry, fd, word);
                (self.claims.make(fd, of, register), Watched::WhileIdle(since))
            }
        };
        match result {
            Ok(()) => watched,
            Err(error) => {
                log::debug!(error:% = error; "could not watch a connection: {error}");
                Watched::No
            }
        }
    }

    /// Ends what [`watch`](Watches::watch) began: before the descriptor is closed or given away,
    /// since a duplicate of it would keep the registration alive.
    pub(crate) fn unwatch(&self, of: (u64, Token), watch: Watch<'_>) {
        let result = match watch {
            Watch::Nothing => return,
            Watch::Socket(fd) => sys::unwatch(&self.registry, sys::number(fd)),
            Watch::Raw(fd) => self.claims.take(fd, of, || sys::unwatch(&self.registry, fd)),
        };
        if let Err(error) = result {
            // A client may have closed its descriptor itself: it is not registered any more then.
            log::trace!(error:% = error; "could not take a connection off the watch: {error}");
        }
    }
}

/// What an event says about a connection; `None` if it is but a greeting.
pub(crate) fn notice_of(event: &mio::event::Event, of: Cut) -> Option<Notice> {
    // Where only the farewell is asked for, mio knows no name for it: it is not readable.
    if event.is_readable() && !event.is_read_closed() && !event.is_error() {
        of.is_again().then_some(Notice::Stray)
    } else {
        Some(Notice::HungUp)
    }
}

#[cfg(test)]
mod tests;
