//! What the driver's threads report, and ask for, while they work on connections.

use crate::clock::{Now, Stamp};
use crate::connector::Connector;
use crate::core::Token;
use crate::error::{ConnectFailure, Phase};
use crate::observe::CloseReason;
use crate::shared::{Boxed, Home, Shared, millis, note};
use crate::sync::Arc;
use crate::sys::{HashSet, OwnedFd};

impl<C: Connector> Shared<C> {
    /// A thread takes up an attempt; false if it came too late.
    pub(crate) fn start_attempt(&self, token: Token, phase: Phase) -> bool {
        let goes_on = self.state.lock().core.start_attempt(token, phase);
        self.note_phase(token, phase);
        goes_on
    }

    /// The event loop takes up a heartbeat, which it can end at any time; false if it came too late.
    pub(crate) fn begin_beat(&self, token: Token) -> bool {
        self.state.lock().core.advance_attempt(token, Phase::Check, true)
    }

    /// What comes of that heartbeat is no proof: there is nothing to ask.
    pub(crate) fn note_unasked(&self, token: Token) {
        self.state.lock().core.note_unasked(token);
    }

    /// The attempt has come further; false if it need not go on.
    pub(crate) fn advance_attempt(&self, token: Token, phase: Phase) -> bool {
        let goes_on = self.state.lock().core.advance_attempt(token, phase, false);
        self.note_phase(token, phase);
        goes_on
    }

    /// The attempt waits for the addresses of its name; false if it need not go on.
    pub(crate) fn await_name(&self, token: Token) -> bool {
        let now = Now::read();
        let goes_on = self.transact(|core, fx| core.await_name(token, now, fx));
        self.note_phase(token, Phase::Resolve);
        goes_on
    }

    /// The attempt waits for another thread; false if it need not go on.
    pub(crate) fn requeue_attempt(&self, token: Token) -> bool {
        let now = Now::read();
        let goes_on = self.transact(|core, fx| core.requeue_attempt(token, now, fx));
        self.note_phase(token, Phase::Queue);
        goes_on
    }

    /// From here on the attempt can be interrupted through `duplicate`; false if it need not go
    /// on.
    pub(crate) fn shield(&self, token: Token, phase: Phase, duplicate: OwnedFd) -> bool {
        let now = Now::read();
        let mut state = self.state.lock();
        // There before it can be needed.
        state.duplicates.insert(token, duplicate);
        let goes_on =
            self.transact_under(state, |core, fx| core.shield_attempt(token, phase, now, fx));
        if !goes_on {
            self.unshield(token);
        }
        goes_on
    }

    /// The call has returned: its duplicate is closed, if it is still there.
    pub(crate) fn unshield(&self, token: Token) {
        let duplicate = self.state.lock().duplicates.remove(&token);
        drop(duplicate);
    }

    /// True as long as a thread is to do something about it, or does.
    pub(crate) fn is_under_way(&self, token: Token) -> bool {
        self.state.lock().core.is_under_way(token)
    }

    /// True as long as an attempt is of use to anybody.
    pub(crate) fn is_wanted(&self, token: Token) -> bool {
        self.state.lock().core.is_wanted(token)
    }

    /// An attempt has ended; false if that says nothing about the peer.
    pub(crate) fn finish_connect(
        &self,
        home: &Home<C>,
        token: Token,
        result: Result<Boxed<C>, Arc<ConnectFailure>>,
    ) -> bool {
        let now = Now::read();
        let failure = result.as_ref().err().map(Arc::clone);
        let (is_news, is_out) = self.transact(|core, fx| {
            let is_news = core.finish_connect(home.place, token, result, now, fx);
            (is_news, core.is_out(home.place))
        });
        self.forget_course(token);
        if let Some(failure) = failure {
            self.forget_failure(failure);
        } else if is_news && !is_out {
            home.note_reached(now.mono);
        }
        is_news
    }

    /// A connection is about to be delivered.
    pub(crate) fn note_connected(&self, home: &Home<C>, token: Token, took: std::time::Duration) {
        note!(Debug, home, took_ms = millis(took); "connected in {took:.1?}");
        self.tell_connected(home, token);
    }

    pub(crate) fn finish_upkeep(
        &self,
        home: &Home<C>,
        token: Token,
        conn: Option<Boxed<C>>,
        verdict: Result<(), CloseReason>,
    ) {
        let now = Now::read();
        self.transact(|core, fx| {
            core.finish_upkeep(home.place, token, conn, verdict, now, fx);
        });
    }

    /// The reaper's look; returns when it must look again.
    pub(crate) fn reap(&self) -> Stamp {
        let keeps_some = self.state.lock().core.keeps_some();
        let held = if keeps_some { self.held_endpoints() } else { HashSet::default() };
        let now = Now::read();
        let next = self.transact(|core, fx| core.reap(now, |place| held.contains(&place), fx));
        self.forget_unused().map_or(next, |sweep_at| next.min(sweep_at))
    }
}
