//! The connector behind r2d2's names: a manager, and what its pool calls beside it.

use std::panic;

use ::r2d2::{CustomizeConnection, Extensions, HandleError, ManageConnection};

use crate::clock::{self, Deadline, Stamp};
use crate::connector::{Connector, Look, Opening, Watch};
use crate::error::BoxError;
use crate::key::One;
use crate::observe::CloseReason;
use crate::r2d2::event::{AcquireEvent, HandleEvent, ReleaseEvent};
use crate::r2d2::manager::{Manager, sendable};
use crate::shared::{drop_guarded, guarded, note_panic};
use crate::sync::{self, Arc};

/// Calls a manager and those whom r2d2's builder names.
pub(super) struct Hooked<M: ManageConnection> {
    pub(super) manager: Manager<M>,
    pub(super) hooks: Hooks<M::Connection, M::Error>,
}

/// Who else is called.
pub(super) struct Hooks<T, E> {
    pub(super) customizer: Box<dyn CustomizeConnection<T, E>>,
    /// `None`: the pool's own log says it.
    pub(super) error_handler: Option<Box<dyn HandleError<E>>>,
    pub(super) event_handler: Option<Arc<dyn HandleEvent>>,
    /// Whether `is_valid` is ever asked.
    pub(super) test_on_check_out: bool,
}

/// A connection, and what belongs to it.
pub(super) struct Kept<T> {
    pub(super) conn: T,
    pub(super) extensions: Extensions,
    pub(super) id: u64,
    born: Stamp,
}

impl<M: ManageConnection> Hooked<M> {
    /// Hands an error to its handler, and keeps what it said.
    fn hear(&self, error: M::Error) -> BoxError {
        // Its words are code of its own, which may panic.
        let said = guarded(|| sendable(&error));
        match &self.hooks.error_handler {
            Some(handler) => {
                if let Err(panic) = guarded(|| handler.handle_error(error)) {
                    note_panic("an error handler panicked", &panic);
                }
            }
            None => drop_guarded(error),
        }
        said.unwrap_or_else(|panic| go_on_panicking(panic))
    }

    /// Hands a new connection to the customizer, who may refuse it.
    fn customize(&self, mut conn: M::Connection) -> Result<M::Connection, BoxError> {
        let customized = guarded(|| self.hooks.customizer.on_acquire(&mut conn));
        let refused = match customized {
            Ok(Ok(())) => return Ok(conn),
            Ok(Err(error)) => Ok(error),
            Err(panic) => Err(panic),
        };
        // Should that panic as well, it is not at once, and hides nothing.
        if let Err(panic) = guarded(|| drop(conn)) {
            note_panic("a connection panicked when it was dropped", &panic);
        }
        Err(self.hear(refused.unwrap_or_else(|panic| go_on_panicking(panic))))
    }

    fn tell(&self, event: impl FnOnce(&dyn HandleEvent)) {
        if let Some(handler) = &self.hooks.event_handler {
            told(&**handler, event);
        }
    }
}

/// Goes on with a panic that was caught, to have something done before.
fn go_on_panicking(panic: String) -> ! {
    panic::resume_unwind(Box::new(panic))
}

/// Calls an event handler, whose panics are nobody's.
pub(super) fn told(handler: &dyn HandleEvent, event: impl FnOnce(&dyn HandleEvent)) {
    if let Err(panic) = guarded(|| event(handler)) {
        note_panic("an event handler panicked", &panic);
    }
}

impl<M: ManageConnection> Connector for Hooked<M> {
    type Key = One;
    type Conn = Kept<M::Connection>;

    fn open(&self, _: &One, _: &mut Opening) -> Result<Self::Conn, BoxError> {
        let connected = self.manager.manager.connect();
        let conn = self.customize(connected.map_err(|error| self.hear(error))?)?;
        let (id, born) = (sync::next_number(), clock::mono());
        self.tell(|handler| handler.handle_acquire(AcquireEvent { id }));
        Ok(Kept { conn, extensions: Extensions::new(), id, born })
    }

    fn watch<'c>(&self, kept: &'c Self::Conn) -> Watch<'c> {
        Connector::watch(&self.manager, &kept.conn)
    }

    fn is_open(&self, kept: &mut Self::Conn, when: Look) -> bool {
        self.manager.is_open(&mut kept.conn, when)
    }

    fn has_check(&self) -> bool {
        self.hooks.test_on_check_out
    }

    fn check(&self, kept: &mut Self::Conn, _: Deadline) -> Result<(), BoxError> {
        self.manager.manager.is_valid(&mut kept.conn).map_err(|error| self.hear(error))
    }

    fn close(&self, kept: Self::Conn, _: CloseReason) {
        let Kept { conn, extensions, id, born } = kept;
        let age = clock::mono().since(born);
        self.tell(|handler| handler.handle_release(ReleaseEvent { id, age }));
        // Before the customizer: should both panic, that is not at once.
        drop_guarded(extensions);
        self.hooks.customizer.on_release(conn);
    }
}
