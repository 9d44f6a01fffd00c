//! Acting out what was decided, after the lock.

use std::cell::Cell;

use smallvec::SmallVec;

use crate::clock::{Deadline, Now};
use crate::connector::Connector;
use crate::core::{Action, Closing, Effects, Token};
use crate::error::{ConnectFailure, Error, Phase};
use crate::observe::CloseReason;
use crate::shared::seat::{Mailbox, Reply};
use crate::shared::tell::Dated;
use crate::shared::{Boxed, Home, Shared, drop_guarded, guarded};
use crate::sync::{self, Arc};
use crate::sys::{self, OwnedFd};

/// What is left to do after the lock: actions, with the endpoints and descriptors they concern.
pub(super) struct Deeds<C: Connector> {
    pub(super) fx: Effects<Boxed<C>, Mailbox<Boxed<C>>>,
    pub(super) homes: SmallVec<[Option<Arc<Home<C>>>; 2]>,
    /// For each action, what is to be told of it; empty where there is no observer.
    pub(super) courses: Vec<Option<Dated>>,
    /// For each action that interrupts, the duplicate of its socket if there is one.
    pub(super) interrupted: SmallVec<[(Token, Option<OwnedFd>); 1]>,
    pub(super) replies: SmallVec<[Reply<Boxed<C>>; 1]>,
}

/// How deep actions may be nested that decide on others.
const MOST_NESTED: u32 = 8;

sync::thread_local! {
    /// For which pool this thread acts at the moment, and how deep. From one pool it may come to
    /// another, through people's code: there it begins anew.
    static ACTING: Cell<(u64, u32)> = const { Cell::new((0, 0)) };
}

/// That this thread acts for a pool, or runs people's code and does not.
pub(super) struct Acting {
    before: (u64, u32),
    depth: u32,
}

impl Acting {
    fn begin(pool: u64) -> Self {
        let before = ACTING.try_with(Cell::get).unwrap_or_default();
        let depth = if before.0 == pool { before.1 + 1 } else { 1 };
        let _ended = ACTING.try_with(|acting| acting.set((pool, depth)));
        Self { before, depth }
    }

    /// People's code may wait for the pool: what is decided then must be done at once, however deep
    /// this thread is.
    pub(super) fn pause() -> Self {
        Self::begin(0)
    }
}

impl Drop for Acting {
    fn drop(&mut self) {
        let _ended = ACTING.try_with(|acting| acting.set(self.before));
    }
}

impl<C: Connector> Deeds<C> {
    pub(super) fn new() -> Self {
        Self {
            fx: Effects::new(),
            homes: SmallVec::new(),
            courses: Vec::new(),
            interrupted: SmallVec::new(),
            replies: SmallVec::new(),
        }
    }
}

impl<C: Connector> Shared<C> {
    /// What is done may decide more, which is done at once; but not ever deeper. Where many wait
    /// for room, each of a hundred attempts that fail as they begin makes way for the next.
    pub(super) fn act(&self, deeds: Deeds<C>) {
        let acting = Acting::begin(self.id);
        if acting.depth > MOST_NESTED {
            self.backlog.lock().push_back(deeds);
            return;
        }
        self.act_on(deeds);
        if acting.depth < MOST_NESTED {
            return;
        }
        loop {
            let next = self.backlog.lock().pop_front();
            let Some(deeds) = next else { return };
            self.act_on(deeds);
        }
    }

    fn act_on(&self, deeds: Deeds<C>) {
        let Deeds { fx, homes, courses, interrupted, replies } = deeds;
        let mut courses = courses.into_iter();
        for mailbox in fx.hints {
            mailbox.unpark();
        }
        for (token, duplicate) in interrupted {
            self.interrupt(token, duplicate);
        }
        for (action, home) in fx.actions.into_iter().zip(homes) {
            let course = courses.next().flatten();
            match (action, home) {
                (Action::Close(closing), home) => self.close_connection(home, closing),
                (Action::Connect { token, deadline, .. }, Some(home)) => {
                    self.tell_connecting(&home, token, course);
                    self.send_to_connect(home, token, Deadline::at(deadline));
                }
                (Action::Upkeep { token, conn, upkeep, deadline, .. }, Some(home)) => {
                    self.tell_checking(&home, token, course);
                    match self.hands() {
                        Some(hands) => {
                            hands.upkeep(home, token, conn, upkeep, Deadline::at(deadline));
                        }
                        None => {
                            let verdict = Err(CloseReason::PoolClosed);
                            self.finish_upkeep(&home, token, Some(conn), verdict);
                        }
                    }
                }
                (Action::Abandon(token), _) => {
                    if let Some(hands) = self.hands() {
                        hands.abandon(token);
                    }
                }
                (Action::Withdraw(token), _) => {
                    self.forget_course(token);
                    if let Some(hands) = self.hands() {
                        hands.withdraw(token);
                    }
                }
                (Action::WakeReaper, _) => {
                    if let Some(hands) = self.hands() {
                        hands.wake_reaper();
                    }
                }
                (Action::Suspect { new, known, at, .. }, home) => {
                    self.tell_suspects(home, new, known, at);
                }
                (Action::Checked { token, objection, .. }, home) => {
                    self.tell_checked(home, token, objection, course);
                }
                (Action::Lost { end, .. }, home) => self.tell_lost(home, end),
                (Action::ConnectFailed { token, failure, is_out, is_news, .. }, home) => {
                    if let Some(home) = home.as_ref().filter(|_| is_news) {
                        self.note_failure(home, &failure, is_out);
                    }
                    self.tell_connect_failed(home, token, &failure, course);
                    self.forget_failure(failure);
                }
                (Action::Forget(failure), _) => self.forget_failure(failure),
                (Action::Interrupt(_), _) => {} // above, before anything that takes longer
                (Action::Connect { .. } | Action::Upkeep { .. }, None) => {
                    debug_assert!(false, "bug: an endpoint with connections was forgotten");
                }
            }
        }
        for (desk, answer) in replies {
            desk.answer(answer);
        }
    }

    /// Drops a failure, and with the last of it the connector's own error: not where nothing may
    /// block.
    pub(super) fn forget_failure(&self, failure: Arc<ConnectFailure>) {
        // Of a plain pool's, only what a resolver says is somebody else's.
        if self.is_plain && failure.phase != Phase::Resolve {
            drop(failure);
        } else if let Some(last) = Arc::into_inner(failure) {
            self.let_go_of(last);
        }
    }

    /// Drops what may be somebody else's, where that may take its time.
    pub(super) fn let_go_of(&self, what: impl Send + 'static) {
        match self.hands() {
            Some(hands) if sync::must_not_block() => hands.let_go(Box::new(what)),
            _ => drop_guarded(what),
        }
    }

    /// Drops an error that nobody wants.
    pub(crate) fn forget_error(&self, error: Error) {
        if let Some(failure) = error.into_failure() {
            self.forget_failure(failure);
        }
    }

    /// Has a call that blocks on a socket return, or the event loop drop what it connects.
    fn interrupt(&self, token: Token, duplicate: Option<OwnedFd>) {
        match duplicate {
            Some(duplicate) => {
                if let Err(error) = sys::shut_down(&duplicate) {
                    log::debug!(error:% = error; "could not interrupt an attempt: {error}");
                }
            }
            None => {
                if let Some(hands) = self.hands() {
                    hands.cancel(token);
                }
            }
        }
    }

    fn send_to_connect(&self, home: Arc<Home<C>>, token: Token, deadline: Deadline) {
        match self.hands() {
            Some(hands) => hands.connect(home, token, deadline),
            // The last handle is gone: nobody can wait for this.
            None => self.refuse_connect(&home, token),
        }
    }

    /// No thread will ever take up this attempt.
    pub(crate) fn refuse_connect(&self, home: &Home<C>, token: Token) {
        // Closing the pool may have called it off in the meantime.
        if self.start_attempt(token, Phase::Queue) {
            let failure = ConnectFailure::no_thread(std::time::Duration::ZERO);
            self.finish_connect(home, token, Err(Arc::new(failure)));
        }
    }

    /// Closes a connection that has left the pool: plain sockets here, all others on the crew.
    fn close_connection(&self, home: Option<Arc<Home<C>>>, closing: Closing<Boxed<C>>) {
        if self.is_plain {
            self.close_now(home.as_deref(), closing);
            return;
        }
        if self.is_orphaned() {
            self.leave_to_parent(closing.conn);
            self.state.lock().closing -= 1;
            return;
        }
        match (home, self.hands()) {
            (Some(home), Some(hands)) => hands.close(home, closing),
            (home, _) => self.close_now(home.as_deref(), closing),
        }
    }

    /// Closes a connection on this thread.
    pub(crate) fn close_now(&self, home: Option<&Home<C>>, closing: Closing<Boxed<C>>) {
        let Closing { mut conn, endpoint, end, is_told } = closing;
        let note_panic = |what: &str, panic: &str| match home {
            Some(home) => home.note_panic(what, panic),
            None => self.note_panic(what, panic),
        };
        if let Err(panic) = self.stop_watching(&mut conn) {
            note_panic("a connector panicked in watch", &panic);
        }
        if let Err(panic) = guarded(|| self.connector.close(conn.conn, end.reason)) {
            note_panic("a connector panicked while it closed a connection", &panic);
        }
        if let Some(home) = home.filter(|_| !is_told) {
            self.tell_closed(home, end);
        }
        if !self.is_plain {
            let now = Now::read();
            self.transact(|core, fx| core.has_closed(endpoint, now, fx));
        }
        let mut state = self.state.lock();
        state.closing -= 1;
        let drainers = if state.has_ended() { state.core.drainers() } else { Vec::new() };
        drop(state);
        for mailbox in drainers {
            mailbox.unpark();
        }
    }
}
