//! Telling the observer, if there is one: what, and on which thread.

use std::time::Duration;

use crate::clock::{self, Stamp};
use crate::connector::Connector;
use crate::core::{Action, End, Token, Upkeep};
use crate::error::{ConnectFailure, Error, Phase};
use crate::holder::Holder;
use crate::observe::{
    CheckKind, Checked, CheckedIn, CheckedOut, Checking, CheckoutFailed, CloseReason, Closed,
    ConnectFailed, Connected, Connecting, Detached, Observer, Spans,
};
use crate::shared::{Boxed, Held, Home, Shared, guarded, millis, note};
use crate::sync::{self, Arc, Ordering};
use crate::sys::HashMap;

/// Something for the [`Observer`].
pub(crate) enum Event {
    Connecting(Connecting),
    Connected(Connected),
    ConnectFailed(ConnectFailed),
    CheckedOut(CheckedOut),
    CheckoutFailed(CheckoutFailed),
    CheckedIn(CheckedIn),
    Detached(Detached),
    Checking(Checking),
    Checked(Checked),
    LeakSuspected(Holder),
    Closed(Closed),
}

impl Event {
    /// Calls the observer. Its panic becomes its message.
    pub(crate) fn tell(&self, observer: &dyn Observer) -> Result<(), String> {
        guarded(|| match self {
            Self::Connecting(event) => observer.connecting(event),
            Self::Connected(event) => observer.connected(event),
            Self::ConnectFailed(event) => observer.connect_failed(event),
            Self::CheckedOut(event) => observer.checked_out(event),
            Self::CheckoutFailed(event) => observer.checkout_failed(event),
            Self::CheckedIn(event) => observer.checked_in(event),
            Self::Detached(event) => observer.detached(event),
            Self::Checking(event) => observer.checking(event),
            Self::Checked(event) => observer.checked(event),
            Self::LeakSuspected(holder) => observer.leak_suspected(holder),
            Self::Closed(event) => observer.closed(event),
        })
    }
}

/// How far an attempt, or a check, is: since when, and what its phases took so far.
#[derive(Clone, Copy, Debug)]
pub(super) struct Course {
    began: Stamp,
    kind: CheckKind,
    phase: Phase,
    since: Stamp,
    spans: Spans,
}

impl Course {
    fn new(kind: CheckKind, now: Stamp) -> Self {
        Self { began: now, kind, phase: Phase::Queue, since: now, spans: Spans::default() }
    }

    /// The phase that it was in has ended.
    fn enter(&mut self, phase: Phase, now: Stamp) {
        let span = match self.phase {
            Phase::Queue => &mut self.spans.queued,
            Phase::Resolve => &mut self.spans.resolve,
            Phase::Connect => &mut self.spans.connect,
            Phase::Open | Phase::Check => &mut self.spans.open,
        };
        *span += now.since(self.since);
        (self.phase, self.since) = (phase, now);
    }

    /// What its phases have taken by now.
    fn spans(mut self, now: Stamp) -> Spans {
        self.enter(self.phase, now);
        self.spans
    }
}

/// When it was decided that there is something to tell: before anybody else could know. And of what.
pub(super) type Dated = (Stamp, Course);

/// Of everything that threads of the driver have; empty where there is no observer.
#[derive(Debug, Default)]
pub(super) struct Courses {
    attempts: HashMap<Token, Course>,
    checks: HashMap<Token, Course>,
}

impl Courses {
    /// What is to be told of an action that begins one, or ends it. Under the lock: once that is
    /// released, another thread may be further.
    pub(super) fn note<T>(&mut self, action: &Action<T>, at: Stamp) -> Option<Dated> {
        match action {
            Action::Connect { token, .. } => {
                let course = Course::new(CheckKind::Check, at);
                self.attempts.insert(*token, course);
                Some((at, course))
            }
            Action::Upkeep { token, upkeep, .. } => {
                let kind = match upkeep {
                    Upkeep::Check => CheckKind::Check,
                    Upkeep::Settle => CheckKind::Settle,
                    Upkeep::Beat => CheckKind::Heartbeat,
                };
                let course = Course::new(kind, at);
                self.checks.insert(*token, course);
                Some((at, course))
            }
            // Its end comes when it returns, if ever.
            Action::ConnectFailed { token, .. } => {
                self.attempts.get(token).map(|course| (at, *course))
            }
            Action::Checked { token, .. } => self.checks.remove(token).map(|course| (at, course)),
            _ => None,
        }
    }
}

impl<C: Connector> Shared<C> {
    /// An attempt has come to another phase.
    pub(crate) fn note_phase(&self, token: Token, phase: Phase) {
        if self.observer.is_some() {
            let now = clock::mono();
            if let Some(course) = self.state.lock().courses.attempts.get_mut(&token) {
                course.enter(phase, now);
            }
        }
    }

    /// Nothing more comes of an attempt.
    pub(super) fn forget_course(&self, token: Token) {
        if self.observer.is_some() {
            self.state.lock().courses.attempts.remove(&token);
        }
    }

    pub(super) fn tell_connecting(&self, home: &Home<C>, token: Token, course: Option<Dated>) {
        let Some((at, _)) = course else { return };
        let (endpoint, connection) = (Arc::clone(&home.label), token.number());
        self.emit(Event::Connecting(Connecting { endpoint, at, connection }));
    }

    /// A connection is about to be delivered.
    pub(super) fn tell_connected(&self, home: &Home<C>, token: Token) {
        if self.observer.is_none() {
            return;
        }
        let at = clock::mono();
        let course = self.state.lock().courses.attempts.get(&token).copied();
        let spans = course.map_or_else(Spans::default, |course| course.spans(at));
        let (endpoint, connection) = (Arc::clone(&home.label), token.number());
        self.emit(Event::Connected(Connected { endpoint, at, connection, spans }));
    }

    pub(super) fn tell_checking(&self, home: &Home<C>, token: Token, course: Option<Dated>) {
        let Some((at, Course { kind, .. })) = course else { return };
        let (endpoint, connection) = (Arc::clone(&home.label), token.number());
        self.emit(Event::Checking(Checking { endpoint, at, connection, kind }));
    }

    /// An attempt has failed.
    pub(super) fn tell_connect_failed(
        &self,
        home: Option<Arc<Home<C>>>,
        token: Token,
        failure: &ConnectFailure,
        course: Option<Dated>,
    ) {
        let Some(home) = home else { return };
        let Some((at, course)) = course else { return self.let_go_of(home) };
        // The connector's own error displays itself here. What it shows, or that it panicked, is
        // in the log.
        let message = guarded(|| failure.said().to_string());
        let message =
            message.unwrap_or_else(|_| "(an error that panics when it is displayed)".to_owned());
        self.emit(Event::ConnectFailed(ConnectFailed {
            endpoint: Arc::clone(&home.label),
            at,
            connection: token.number(),
            phase: failure.phase,
            failure: failure.failure,
            spans: course.spans(at),
            message,
        }));
        self.let_go_of(home);
    }

    pub(super) fn tell_checked(
        &self,
        home: Option<Arc<Home<C>>>,
        token: Token,
        objection: Option<CloseReason>,
        course: Option<Dated>,
    ) {
        let Some(home) = home else { return };
        let Some((at, course)) = course else { return self.let_go_of(home) };
        self.emit(Event::Checked(Checked {
            endpoint: Arc::clone(&home.label),
            at,
            connection: token.number(),
            kind: course.kind,
            took: at.since(course.began),
            objection,
        }));
        self.let_go_of(home);
    }

    /// A connection was given up.
    pub(super) fn tell_lost(&self, home: Option<Arc<Home<C>>>, end: End) {
        let Some(home) = home else { return };
        self.tell_closed(&home, end);
        self.let_go_of(home);
    }

    pub(super) fn tell_closed(&self, home: &Home<C>, end: End) {
        let End { token, reason, born, uses } = end;
        let at = clock::mono();
        let age = at.since(born);
        note!(
            Debug, home, reason:% = reason, age_ms = millis(age);
            "closed a connection after {age:.1?}: {reason}"
        );
        if self.observer.is_some() {
            let (endpoint, connection) = (Arc::clone(&home.label), token.number());
            let closed = Closed { endpoint, at, connection, reason, age, uses };
            self.emit_here(Event::Closed(closed));
        }
    }

    /// Tells on the observer's thread.
    fn emit(&self, event: Event) {
        let Some(observer) = &self.observer else { return };
        match self.hands() {
            Some(hands) => {
                if !hands.observe(observer, event) {
                    self.events_dropped.fetch_add(1, Ordering::Relaxed);
                }
            }
            None if self.is_orphaned() => {} // the parent's observer
            // The pool has ended, and this thread has other pools to see to.
            None if sync::must_not_block() => {
                self.events_dropped.fetch_add(1, Ordering::Relaxed);
            }
            None => self.tell_now(&event, &**observer),
        }
    }

    /// Tells on this thread.
    fn tell_now(&self, event: &Event, observer: &dyn Observer) {
        if let Err(panic) = event.tell(observer) {
            self.note_panic("an observer panicked", &panic);
        }
    }

    /// A connection is out for suspiciously long.
    pub(super) fn tell_leak(&self, holder: impl FnOnce() -> Holder) {
        if self.observer.is_some() {
            self.emit(Event::LeakSuspected(holder()));
        }
    }

    /// Tells what a caller did: on its own thread, if it is one.
    fn emit_here(&self, event: Event) {
        match &self.observer {
            Some(observer) if !sync::is_driver_thread() => {
                if !self.is_orphaned() {
                    self.tell_now(&event, &**observer);
                }
            }
            _ => self.emit(event),
        }
    }
}

impl<C: Connector> Home<C> {
    /// A caller is about to receive a connection.
    #[inline(always)]
    pub(crate) fn tell_checked_out(&self, held: &mut Held<C::Conn>, waited: Duration) {
        if self.shared.observer.is_some() {
            self.checked_out(held, waited);
        }
    }

    #[cold]
    #[inline(never)]
    fn checked_out(&self, held: &mut Held<C::Conn>, waited: Duration) {
        let at = clock::mono();
        held.out_since = at;
        let lease = held.lease;
        self.shared.emit_here(Event::CheckedOut(CheckedOut {
            endpoint: Arc::clone(&self.label),
            at,
            connection: lease.token.number(),
            waited,
            is_reused: lease.uses > 0,
            idle_for: Duration::from_nanos(lease.idle_for()),
            age: at.since(lease.born),
        }));
    }

    /// A checkout that was not served at once has ended.
    pub(crate) fn tell_checkout(&self, asked_at: Stamp, result: &mut Result<Boxed<C>, Error>) {
        if self.shared.observer.is_none() {
            return;
        }
        let at = clock::mono();
        let waited = at.since(asked_at);
        match result {
            Ok(held) => self.checked_out(held, waited),
            Err(error) => {
                let (endpoint, kind) = (Arc::clone(&self.label), error.kind());
                let verdict = error.verdict();
                let failed = CheckoutFailed { endpoint, at, waited, kind, verdict };
                self.shared.emit_here(Event::CheckoutFailed(failed));
            }
        }
    }

    /// A checkout was turned away at once; returns why.
    pub(crate) fn tell_refused(&self, error: Error) -> Error {
        let mut result = Err(error);
        self.tell_checkout(clock::mono(), &mut result);
        result.err().unwrap_or_else(Error::closed)
    }

    /// A connection comes back. Told before anybody else can have it, so that what is told of it
    /// stays in order.
    #[inline(always)]
    pub(crate) fn tell_checked_in(&self, held: &Held<C::Conn>, was_received: bool) {
        if self.shared.observer.is_some() {
            self.checked_in(held, was_received);
        }
    }

    #[cold]
    #[inline(never)]
    fn checked_in(&self, held: &Held<C::Conn>, was_received: bool) {
        let (endpoint, at) = (Arc::clone(&self.label), clock::mono());
        let (connection, held) = (held.lease.token.number(), at.since(held.out_since));
        let checked_in = CheckedIn { endpoint, at, connection, held, was_received };
        self.shared.emit_here(Event::CheckedIn(checked_in));
    }

    /// A caller keeps its connection.
    pub(super) fn tell_detached(&self, held: &Held<C::Conn>) {
        if self.shared.observer.is_some() {
            let (endpoint, at) = (Arc::clone(&self.label), clock::mono());
            let (connection, held) = (held.lease.token.number(), at.since(held.out_since));
            self.shared.emit_here(Event::Detached(Detached { endpoint, at, connection, held }));
        }
    }
}
