//! Judging connections when they come back and before they go out. Off the lock.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use crate::clock::{self, Now};
use crate::connector::{Connector, Judgement, Look, Reset, Socket};
use crate::observe::CloseReason;
use crate::redact::Redacted;
use crate::shared::act::Acting;
use crate::shared::{Boxed, Held, Home, Since, Watched, note_panic};
use crate::sync::{self, Caller, Ordering};

/// Calls user code, off every lock; a panic becomes its message.
pub(crate) fn guarded<R>(call: impl FnOnce() -> R) -> Result<R, String> {
    sync::assert_unlocked();
    let _pausing = Acting::pause();
    catch_unwind(AssertUnwindSafe(call)).map_err(|panic| panic_message(&*panic))
}

/// Drops what may be somebody else's.
pub(crate) fn drop_guarded<T>(value: T) {
    if let Err(panic) = guarded(|| drop(value)) {
        note_panic("the drop of a key, a connector or an error panicked", &panic);
    }
}

#[cold]
fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    Redacted(text.unwrap_or("(no message)")).to_string()
}

/// A connection that turned out to be of no use before it went out, and why.
pub(crate) type Unfit<C> = (Boxed<C>, CloseReason);

/// What a returned connection is good for.
enum Verdict {
    Ready,
    Later,
    Close(CloseReason),
}

impl<C: Connector> Home<C> {
    /// An idle connection, on the fast path; `None` means that there is more to think about.
    #[inline(always)]
    pub(crate) fn checkout_fast(&self, caller: Caller) -> Option<Boxed<C>> {
        let wall = clock::wall();
        let grant = self.shared.enter()?.core.checkout(self.place, wall, caller)?;
        let idle_for = grant.lease.idle_for();
        let held = Held::lend(grant);
        if self.shared.is_simple && idle_for < self.shared.in_force.probe_after() {
            return Some(held);
        }
        self.look(held)
    }

    /// Looks at a connection that is about to go out; closes it if it is of no use.
    pub(crate) fn look(&self, held: Boxed<C>) -> Option<Boxed<C>> {
        match self.inspect(held) {
            Ok(mut held) => {
                self.tell_checked_out(&mut held, Duration::ZERO);
                Some(held)
            }
            Err((held, reason)) => {
                self.reject(held, reason);
                None
            }
        }
    }

    /// The same, but leaves it to the caller to close it.
    pub(super) fn inspect(&self, mut held: Boxed<C>) -> Result<Boxed<C>, Unfit<C>> {
        match self.objection(&mut held) {
            None => Ok(held),
            Some(reason) => Err((held, reason)),
        }
    }

    fn objection(&self, held: &mut Held<C::Conn>) -> Option<CloseReason> {
        let (idle_for, uses) = (held.lease.idle_for(), held.lease.uses);
        let shared = &*self.shared;
        if let Err(panic) = shared.look_away(held, true) {
            self.note_panic("a connector panicked in watch", &panic);
            return Some(CloseReason::ConnectorPanicked);
        }
        if !held.lease.was_idle() {
            return None; // opened or judged a moment ago
        }
        let has_rested = idle_for >= shared.in_force.probe_after();
        // Before its first use, bytes are a greeting.
        let probe = |socket: &Socket| match socket.probe() {
            Some(CloseReason::StrayBytes) if uses == 0 => None,
            reason => reason,
        };
        if shared.is_plain {
            let socket = shared.connector.socket(&mut held.conn)?;
            return if has_rested { probe(socket) } else { None };
        }
        let connector = &*shared.connector;
        let looked = guarded(|| {
            if has_rested {
                let socket = connector.socket(&mut held.conn);
                if let Some(reason) = socket.and_then(|socket| probe(socket)) {
                    return Some(reason);
                }
            }
            let when = Look::Checkout { idle: Duration::from_nanos(idle_for) };
            let is_open = connector.is_open(&mut held.conn, when);
            if is_open { None } else { Some(CloseReason::NotOpen) }
        });
        looked.unwrap_or_else(|panic| {
            self.note_panic("a connector panicked in is_open", &panic);
            Some(CloseReason::ConnectorPanicked)
        })
    }

    /// A guard gives its connection back.
    #[inline(always)]
    pub(crate) fn checkin(&self, mut held: Boxed<C>) {
        let shared = &*self.shared;
        match self.judge(&mut held) {
            Verdict::Ready => {
                if !shared.is_simple {
                    self.tell_checked_in(&held, true);
                    if let Err(panic) = shared.look_back(held.lease.token, &mut held) {
                        self.note_panic("a connector panicked in watch", &panic);
                        self.throw_out(held, CloseReason::ConnectorPanicked);
                        return;
                    }
                }
                if !shared.is_waiting.load(Ordering::Relaxed) {
                    let (wall, token) = (clock::wall(), held.lease.token);
                    let Some(mut state) = shared.enter() else {
                        shared.leave_to_parent(held);
                        return;
                    };
                    match state.core.park(self.place, token, held, wall) {
                        Ok(()) => return,
                        Err(unparked) => held = unparked,
                    }
                    drop(state);
                }
                self.checkin_slow(held);
            }
            Verdict::Later => self.settle(held),
            Verdict::Close(reason) => self.discard(held, reason),
        }
    }

    #[cold]
    #[inline(never)]
    fn checkin_slow(&self, held: Boxed<C>) {
        let (now, token) = (Now::read(), held.lease.token);
        let Some(state) = self.shared.enter() else { return self.shared.leave_to_parent(held) };
        self.shared.transact_under(state, |core, fx| core.checkin(token, held, now, fx));
    }

    /// A connection comes back that nobody received: as if it had never gone out.
    #[cold]
    pub(crate) fn take_back(&self, mut held: Boxed<C>) {
        if self.shared.is_orphaned() {
            return self.shared.leave_to_parent(held);
        }
        if held.lease.uses == 0 && matches!(held.watched, Watched::NotNow(_)) {
            held.watched = Watched::NotNow(Since::Opened); // what comes is a greeting as before
        }
        self.tell_checked_in(&held, false);
        if let Err(panic) = self.shared.look_back(held.lease.token, &mut held) {
            self.note_panic("a connector panicked in watch", &panic);
            return self.throw_out(held, CloseReason::ConnectorPanicked);
        }
        let (now, token) = (Now::read(), held.lease.token);
        self.shared.transact(|core, fx| core.take_back(token, held, now, fx));
    }

    fn settle(&self, held: Boxed<C>) {
        // Not before: to ask for the process on every return would cost more than all else.
        if self.shared.is_orphaned() {
            return self.shared.leave_to_parent(held);
        }
        self.tell_checked_in(&held, true);
        let (now, token) = (Now::read(), held.lease.token);
        let Some(state) = self.shared.enter() else { return self.shared.leave_to_parent(held) };
        self.shared.transact_under(state, |core, fx| core.settle(token, held, now, fx));
    }

    /// Closes a connection that is in use.
    #[cold]
    #[inline(never)]
    pub(crate) fn discard(&self, held: Boxed<C>, reason: CloseReason) {
        self.tell_checked_in(&held, true);
        self.throw_out(held, reason);
    }

    /// Closes one that was told to have come back.
    fn throw_out(&self, held: Boxed<C>, reason: CloseReason) {
        let (now, token) = (Now::read(), held.lease.token);
        let Some(state) = self.shared.enter() else { return self.shared.leave_to_parent(held) };
        self.shared.transact_under(state, |core, fx| core.discard(token, held, reason, now, fx));
    }

    /// Closes a connection that was about to go out: as if it had not been checked out.
    #[cold]
    #[inline(never)]
    pub(super) fn reject(&self, held: Boxed<C>, reason: CloseReason) {
        let (now, token) = (Now::read(), held.lease.token);
        let Some(state) = self.shared.enter() else { return self.shared.leave_to_parent(held) };
        self.shared.transact_under(state, |core, fx| core.reject(token, held, reason, now, fx));
    }

    /// Frees the room of a connection that its user keeps.
    pub(crate) fn detach(&self, held: &mut Held<C::Conn>) {
        if let Err(panic) = self.shared.stop_watching(held) {
            self.note_panic("a connector panicked in watch", &panic);
        }
        let (now, token) = (Now::read(), held.lease.token);
        let Some(state) = self.shared.enter() else { return };
        self.shared.transact_under(state, |core, fx| core.detach(token, now, fx));
        self.tell_detached(held);
    }

    #[inline(always)]
    fn judge(&self, held: &mut Held<C::Conn>) -> Verdict {
        let shared = &*self.shared;
        let Held { conn, lease, .. } = held;
        if sync::panicking() {
            return Verdict::Close(CloseReason::Panicked);
        }
        if lease.uses >= shared.in_force.max_uses() - 1 {
            return Verdict::Close(CloseReason::MaxUses);
        }
        if lease.epoch != self.epoch.load(Ordering::Relaxed) {
            let is_closed = shared.is_closed();
            let reason = if is_closed { CloseReason::PoolClosed } else { CloseReason::Evicted };
            return Verdict::Close(reason);
        }
        if shared.is_plain {
            let socket = shared.connector.socket(conn);
            let Some(socket) = socket else { return Verdict::Ready };
            return match socket.judge(self.plan.socket_options()) {
                Judgement::Close(reason) => Verdict::Close(reason),
                Judgement::Clean => {
                    socket.forget();
                    Verdict::Ready
                }
            };
        }
        guarded(|| self.judge_foreign(conn)).unwrap_or_else(|panic| {
            self.note_panic("a connector panicked on checkin", &panic);
            Verdict::Close(CloseReason::ConnectorPanicked)
        })
    }

    fn judge_foreign(&self, conn: &mut C::Conn) -> Verdict {
        let connector = &*self.shared.connector;
        if let Some(socket) = connector.socket(conn) {
            if let Judgement::Close(reason) = socket.judge(self.plan.socket_options()) {
                return Verdict::Close(reason);
            }
        }
        if !connector.is_open(conn, Look::Checkin) {
            return Verdict::Close(CloseReason::NotOpen);
        }
        let reset = connector.reset(conn);
        if let Some(socket) = connector.socket(conn) {
            // Only now: `reset` may ask what happened on it.
            socket.forget();
        }
        match reset {
            Reset::Ready => Verdict::Ready,
            Reset::Later => Verdict::Later,
            Reset::Close => Verdict::Close(CloseReason::ResetRefused),
        }
    }
}
