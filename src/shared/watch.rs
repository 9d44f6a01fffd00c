//! Having idle connections watched by the event loop.

use crate::clock::Now;
use crate::connector::{Connector, Watch};
use crate::core::{Cut, Notice, Token};
use crate::shared::{Held, Shared, guarded};
use crate::sync::Weak;

/// How a connection is watched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Watched {
    /// Not at all: it is looked at before reuse only.
    #[default]
    No,
    /// From its opening to its end, for the peer's farewell: traffic is no event.
    Always,
    /// While it is idle, as it is now: any bytes are an event.
    WhileIdle(Since),
    /// It would be, but is out of the idle ones.
    NotNow(Since),
}

/// Since when a connection can have been sent bytes that are not meant for its next user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Since {
    /// It was opened: what comes is a greeting.
    Opened,
    /// Somebody had it.
    Lent,
}

/// Ends watches: also for connections that outlive their pool, and with it the driver's hands.
pub(crate) trait Watcher: Send + Sync {
    /// Ends the watch of a connection, named by its pool and token.
    fn unwatch(&self, of: (u64, Token), watch: Watch<'_>);
}

impl<C: Connector> Shared<C> {
    /// Begins to watch a new connection, before anybody can reach it.
    ///
    /// # Errors
    ///
    /// The connector's panic.
    pub(crate) fn watch(&self, token: Token, held: &mut Held<C::Conn>) -> Result<(), String> {
        self.watch_since(token, held, Since::Opened)
    }

    fn watch_since(
        &self,
        token: Token,
        held: &mut Held<C::Conn>,
        since: Since,
    ) -> Result<(), String> {
        let Some(hands) = self.hands() else { return Ok(()) };
        held.lease.token = token; // for the end of the watch, should it never be lent
        let conn = &held.conn;
        held.watched = if self.is_plain {
            hands.watch(token, self.connector.watch(conn), since)
        } else {
            guarded(|| hands.watch(token, self.connector.watch(conn), since))?
        };
        Ok(())
    }

    /// A connection leaves the idle ones, for a user or not: its traffic is no event.
    pub(crate) fn look_away(&self, held: &mut Held<C::Conn>, is_lent: bool) -> Result<(), String> {
        if let Watched::WhileIdle(since) | Watched::NotNow(since) = held.watched {
            if matches!(held.watched, Watched::WhileIdle(_)) {
                self.unwatch(held)?;
            }
            held.watched = Watched::NotNow(if is_lent { Since::Lent } else { since });
        }
        Ok(())
    }

    /// A connection is about to be idle again.
    pub(crate) fn look_back(&self, token: Token, held: &mut Held<C::Conn>) -> Result<(), String> {
        match held.watched {
            Watched::NotNow(since) => self.watch_since(token, held, since),
            _ => Ok(()),
        }
    }

    /// A connection that was taken off the watch is watched as it was.
    pub(crate) fn watch_again(
        &self,
        token: Token,
        held: &mut Held<C::Conn>,
        watched: Watched,
    ) -> Result<(), String> {
        match watched {
            Watched::No | Watched::NotNow(_) => Ok(()),
            Watched::Always => self.watch(token, held),
            Watched::WhileIdle(since) => self.watch_since(token, held, since),
        }
    }

    /// Ends the watch for good: before the connection is closed or given away, since a duplicate
    /// of its descriptor would keep it alive.
    pub(crate) fn stop_watching(&self, held: &mut Held<C::Conn>) -> Result<(), String> {
        match std::mem::take(&mut held.watched) {
            Watched::Always | Watched::WhileIdle(_) => self.unwatch(held),
            Watched::No | Watched::NotNow(_) => Ok(()),
        }
    }

    fn unwatch(&self, held: &Held<C::Conn>) -> Result<(), String> {
        let watcher = self.watcher.get().and_then(Weak::upgrade);
        let Some(watcher) = watcher.filter(|_| !self.is_orphaned()) else { return Ok(()) };
        let (of, conn) = ((self.id, held.lease.token), &held.conn);
        if self.is_plain {
            watcher.unwatch(of, self.connector.watch(conn));
            return Ok(());
        }
        guarded(|| watcher.unwatch(of, self.connector.watch(conn)))
    }

    /// The event loop saw something.
    pub(crate) fn notice(&self, of: Cut, notice: Notice) {
        let now = Now::read();
        self.transact(|core, fx| core.notice(of, notice, now, fx));
    }
}
