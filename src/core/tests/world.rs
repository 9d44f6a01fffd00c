//! A pool's core with everything around it made visible: who asks, who waits, what is being
//! opened and checked, what was closed and why. Time is moved by hand, and the core is recounted
//! after every transition.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use crate::clock::{Now, Stamp};
use crate::config::{Limits, Reuse};
use crate::core::entry::{Entry, State};
use crate::core::{
    Action, Answer, Core, Effects, Fate, Grant, Lease, LookAgain, Manner, Outcome, Refusal, Terms,
    Token, Upkeep,
};
use crate::error::Situation;
use crate::observe::CloseReason;
use crate::sync::Caller;

pub(super) const A: u32 = 0;
pub(super) const B: u32 = 1;
pub(super) const C: u32 = 2;

thread_local! {
    /// A transition runs: it stands for the pool's lock, and nothing may be dropped.
    static IN_TRANSITION: Cell<bool> = const { Cell::new(false) };
}

pub(super) fn assert_droppable(what: impl fmt::Debug) {
    let is_locked = IN_TRANSITION.with(Cell::get) && !std::thread::panicking();
    assert!(!is_locked, "{what:?} was dropped by a transition, under the lock");
}

/// A connection that knows how many of its kind live.
#[derive(Debug)]
pub(super) struct Conn {
    pub(super) id: u32,
    live: Rc<Cell<usize>>,
}

impl Drop for Conn {
    fn drop(&mut self) {
        self.live.set(self.live.get() - 1);
        assert_droppable(self.id);
    }
}

/// Where a waiter's answer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Mail(pub(super) u32);

/// A connection out with a user.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) endpoint: u32,
    pub(super) conn: Conn,
    pub(super) lease: Lease,
}

#[derive(Debug)]
pub(super) enum Got {
    Conn(Held),
    Waits(Mail),
    Refused(Refusal),
}

/// What a waiter finds that looks again.
#[derive(Debug)]
pub(super) enum Look {
    Granted(Held),
    Waits,
    /// With the text and the age of the last failure, if there was one.
    Expired(Box<Situation>, Option<(String, Duration)>),
    Answered(Reply),
}

/// An answer as its waiter sees it.
#[derive(Debug)]
pub(super) enum Reply {
    Granted(Held),
    Failed(String),
    Closed,
}

impl Reply {
    pub(super) fn connection(self) -> Option<Held> {
        if let Self::Granted(held) = self { Some(held) } else { None }
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    pub(super) token: Token,
    pub(super) endpoint: u32,
    pub(super) deadline: Stamp,
    pub(super) manner: Manner,
}

/// An attempt to connect that the core has asked for and that has not ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Connecting {
    pub(super) endpoint: u32,
    pub(super) token: Token,
    pub(super) deadline: Stamp,
    /// The event loop, or a thread, has taken it up.
    pub(super) is_started: bool,
}

/// A connection that is out for a check, or to be settled.
#[derive(Debug)]
pub(super) struct Out {
    pub(super) endpoint: u32,
    pub(super) token: Token,
    pub(super) conn: Conn,
    pub(super) upkeep: Upkeep,
    pub(super) is_started: bool,
}

type Transition<'a, R> = &'a mut dyn FnMut(&mut Core<Conn, Mail>, &mut Effects<Conn, Mail>) -> R;

pub(super) struct World {
    pub(super) core: Core<Conn, Mail>,
    pub(super) limits: Limits,
    pub(super) now: Now,
    pub(super) waiting: BTreeMap<Mail, Waiting>,
    pub(super) replies: BTreeMap<Mail, Reply>,
    /// Who was told to look again, in this order, and has not looked.
    pub(super) hints: Vec<Mail>,
    pub(super) connects: Vec<Connecting>,
    pub(super) upkeeps: Vec<Out>,
    /// Connections closed: number, reason. They are closed at once, so none lives.
    pub(super) closed: Vec<(u32, CloseReason)>,
    pub(super) interrupted: Vec<Token>,
    pub(super) abandoned: Vec<Token>,
    /// Of what waited for a thread.
    pub(super) withdrawn: Vec<Token>,
    /// Whom the reaper suspected: at which endpoint, and for how long they had been out.
    pub(super) suspects: Vec<(u32, Vec<Duration>)>,
    /// Who asks from now on.
    pub(super) caller: Caller,
    pub(super) wakes: usize,
    /// False while a long script repeats what was checked before.
    pub(super) is_checked: bool,
    live: Rc<Cell<usize>>,
    next: u32,
}

/// Small, with nothing that happens by itself.
pub(super) fn limits() -> Limits {
    Limits {
        max_total: 8,
        max_per_endpoint: 8,
        max_idle: 8,
        max_idle_per_endpoint: 8,
        idle_follows: true,
        min_idle: 0,
        max_connecting: 8,
        max_connecting_total: 16,
        max_waiting: 1_000,
        waiting_follows: false,
        max_uses: u32::MAX,
        idle_timeout: None,
        leak_warning: None,
        max_lifetime: None,
        connect_timeout: millis(3_000),
        check_interval: None,
        check_timeout: millis(2_000),
        settle_timeout: millis(1_000),
        fair_after: millis(2),
        check_after: None,
        fail_fast: true,
        reuse: Reuse::Newest,
    }
}

/// Limits that so many connections fit under, all of one endpoint, idle or not.
pub(super) fn room_for(many: usize) -> Limits {
    Limits {
        max_total: many,
        max_per_endpoint: many,
        max_idle: many,
        max_idle_per_endpoint: many,
        max_connecting: many,
        max_connecting_total: many,
        ..limits()
    }
}

pub(super) const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

impl World {
    /// A pool with the endpoints `A`, `B` and `C`.
    pub(super) fn new(limits: Limits) -> Self {
        Self::with_endpoints(limits, 3)
    }

    pub(super) fn with_endpoints(limits: Limits, endpoints: u32) -> Self {
        IN_TRANSITION.with(|flag| flag.set(false));
        let now = Now { wall: Stamp::from_millis(5_000_000), mono: Stamp::from_millis(1_000_000) };
        let mut core = Core::new(limits.clone(), 7);
        core.begin();
        for endpoint in 0..endpoints {
            assert_eq!(core.add_endpoint(now.wall), endpoint);
        }
        Self {
            core,
            limits,
            now,
            waiting: BTreeMap::new(),
            replies: BTreeMap::new(),
            hints: Vec::new(),
            connects: Vec::new(),
            upkeeps: Vec::new(),
            closed: Vec::new(),
            interrupted: Vec::new(),
            abandoned: Vec::new(),
            withdrawn: Vec::new(),
            suspects: Vec::new(),
            caller: Caller::here(),
            wakes: 0,
            is_checked: true,
            live: Rc::default(),
            next: 0,
        }
    }

    pub(super) fn new_conn(&mut self) -> Conn {
        self.next += 1;
        self.live.set(self.live.get() + 1);
        Conn { id: self.next, live: Rc::clone(&self.live) }
    }

    /// Connections that exist, wherever they are.
    pub(super) fn live(&self) -> usize {
        self.live.get()
    }

    /// One transition, as whoever holds the lock runs it.
    pub(super) fn run<R>(&mut self, transition: Transition<'_, R>) -> R {
        let mut fx = Effects::new();
        IN_TRANSITION.with(|flag| flag.set(true));
        let result = transition(&mut self.core, &mut fx);
        for (mail, answer) in fx.answers.drain(..) {
            let reply = self.reply(mail, answer);
            let before = self.replies.insert(mail, reply);
            assert!(before.is_none(), "{mail:?} was answered twice");
        }
        IN_TRANSITION.with(|flag| flag.set(false));
        for mail in fx.hints.drain(..) {
            let asker = self.waiting.get(&mail).map(|waiting| waiting.manner);
            assert!(asker != Some(Manner::Request), "{mail:?} cannot look by itself");
            if !self.hints.contains(&mail) {
                self.hints.push(mail);
            }
        }
        let mut begun = Vec::new();
        for action in fx.actions.drain(..) {
            self.act(action, &mut begun);
        }
        // Under Miri a recount takes a thousand times as long, and finds what it finds without.
        if self.is_checked && !cfg!(miri) {
            begun.iter().for_each(|&endpoint| self.assert_demand(endpoint));
            self.core.assert_sound(self.now);
        }
        result
    }

    fn reply(&mut self, mail: Mail, answer: Answer<Conn>) -> Reply {
        let waiting = self.waiting.remove(&mail).expect("the answer is for one who waits");
        match answer {
            Answer::Granted(Grant { conn, lease }) => {
                Reply::Granted(Held { endpoint: waiting.endpoint, conn, lease })
            }
            Answer::Failed(failure, _) => Reply::Failed(failure.cause.to_string()),
            Answer::Closed => Reply::Closed,
        }
    }

    fn act(&mut self, action: Action<Conn>, begun: &mut Vec<u32>) {
        match action {
            Action::Close(closing) => self.closed.push((closing.conn.id, closing.end.reason)),
            Action::Connect { endpoint, token, deadline } => {
                begun.push(endpoint);
                let connect = Connecting { endpoint, token, deadline, is_started: false };
                self.connects.push(connect);
            }
            Action::Upkeep { endpoint, token, conn, upkeep, .. } => {
                self.upkeeps.push(Out { endpoint, token, conn, upkeep, is_started: false });
            }
            Action::Interrupt(token) => self.interrupted.push(token),
            Action::Abandon(token) => self.abandoned.push(token),
            Action::Withdraw(token) => self.withdrawn.push(token),
            Action::Suspect { endpoint, new, at, .. } => {
                let ages: Vec<_> = new.iter().map(|holding| at.since(holding.since)).collect();
                if !ages.is_empty() {
                    self.suspects.push((endpoint, ages));
                }
            }
            Action::WakeReaper => self.wakes += 1,
            Action::ConnectFailed { failure, .. } | Action::Forget(failure) => drop(failure),
            Action::Checked { .. } | Action::Lost { .. } => {} // for observers alone
        }
    }

    /// No attempt begins that nobody asked for.
    fn assert_demand(&self, endpoint: u32) {
        let place = self.core.endpoints.at(endpoint);
        let wanted = (place.waiters.len() + place.kept_idle()).max(place.warm_target);
        let wanted = wanted + place.succeeding + place.heirs;
        let is_running = |entry: &&Entry<Conn>| {
            entry.endpoint == endpoint
                && matches!(entry.state, State::Connecting(attempt) if !attempt.is_lost())
        };
        let running = self.core.entries.iter().filter(is_running).count();
        assert!(running <= wanted, "{running} attempts at {endpoint}, {wanted} are wanted");
        let (all, most) = (self.core.budget.attempts.len(), self.core.limits.max_connecting_total);
        assert!(all <= most, "max_connecting_total");
    }

    /// The entry still belongs to whoever was given this token.
    pub(super) fn knows(&self, token: Token) -> bool {
        self.core.entries.get(token).is_some()
    }

    // ---- callers

    pub(super) fn forget(&mut self, endpoint: u32) -> bool {
        let now = self.now;
        self.run(&mut |core, fx| core.forget_endpoint(endpoint, now, fx)) == Fate::Forgotten
    }

    pub(super) fn get(&mut self, endpoint: u32) -> Got {
        self.get_within(endpoint, millis(5_000))
    }

    pub(super) fn get_within(&mut self, endpoint: u32, timeout: Duration) -> Got {
        self.ask_for(endpoint, timeout, Manner::Eager)
    }

    /// A checkout that is awaited elsewhere, without a deadline.
    pub(super) fn request(&mut self, endpoint: u32) -> Got {
        self.ask_for(endpoint, Duration::MAX, Manner::Request)
    }

    pub(super) fn ask_for(&mut self, endpoint: u32, timeout: Duration, manner: Manner) -> Got {
        let (now, caller) = (self.now, self.caller);
        if let Some(grant) = self.run(&mut |core, _| core.checkout(endpoint, now.wall, caller)) {
            return Got::Conn(held(endpoint, grant));
        }
        let (mail, deadline) = (Mail(self.next), now.mono.plus(timeout));
        self.next += 1;
        let terms = Terms { asked_at: None, deadline, manner, caller };
        let outcome =
            self.run(&mut |core, fx| core.checkout_or_wait(endpoint, now, terms, &mail, fx));
        match outcome {
            Outcome::Granted(grant) => Got::Conn(held(endpoint, grant)),
            Outcome::Queued(token, _) => {
                self.waiting.insert(mail, Waiting { token, endpoint, deadline, manner });
                Got::Waits(mail)
            }
            Outcome::Refused(refusal) => Got::Refused(refusal),
        }
    }

    /// A checkout that finds a connection.
    pub(super) fn take(&mut self, endpoint: u32) -> Held {
        match self.get(endpoint) {
            Got::Conn(held) => held,
            other => panic!("nothing was idle: {other:?}"),
        }
    }

    /// A checkout that must wait.
    pub(super) fn wait(&mut self, endpoint: u32) -> Mail {
        self.wait_within(endpoint, millis(5_000))
    }

    pub(super) fn wait_within(&mut self, endpoint: u32, timeout: Duration) -> Mail {
        match self.get_within(endpoint, timeout) {
            Got::Waits(mail) => mail,
            other => panic!("it need not wait: {other:?}"),
        }
    }

    pub(super) fn refused(&mut self, endpoint: u32) -> Refusal {
        match self.get(endpoint) {
            Got::Refused(refusal) => refusal,
            other => panic!("it was not refused: {other:?}"),
        }
    }

    pub(super) fn try_get(&mut self, endpoint: u32) -> Option<Held> {
        let (now, caller) = (self.now, self.caller);
        let grant = self.run(&mut |core, fx| core.try_checkout(endpoint, caller, now, fx));
        grant.map(|grant| held(endpoint, grant))
    }

    pub(super) fn look(&mut self, mail: Mail) -> Look {
        self.hints.retain(|&hinted| hinted != mail);
        let Some(&waiting) = self.waiting.get(&mail) else {
            let reply = self.replies.remove(&mail).expect("who left the queue was answered");
            return Look::Answered(reply);
        };
        let now = self.now;
        match self.run(&mut |core, fx| core.look_again(waiting.token, now, fx)) {
            LookAgain::Answered => panic!("{mail:?} left the queue without an answer"),
            LookAgain::Granted(grant) => {
                self.waiting.remove(&mail);
                Look::Granted(held(waiting.endpoint, grant))
            }
            LookAgain::Waiting => Look::Waits,
            LookAgain::Expired(situation, failure) => {
                self.waiting.remove(&mail);
                Look::Expired(situation, failure.map(|(why, age)| (why.cause.to_string(), age)))
            }
        }
    }

    /// The connection that a waiter was answered with.
    pub(super) fn granted(&mut self, mail: Mail) -> Held {
        match self.replies.remove(&mail) {
            Some(Reply::Granted(held)) => held,
            other => panic!("{mail:?} was not granted a connection: {other:?}"),
        }
    }

    pub(super) fn failed(&mut self, mail: Mail) -> String {
        match self.replies.remove(&mail) {
            Some(Reply::Failed(text)) => text,
            other => panic!("{mail:?} was not told of a failure: {other:?}"),
        }
    }

    /// Returns a connection as a guard does: the fast path, then the other.
    pub(super) fn give_back(&mut self, held: Held) {
        self.parks(held);
    }

    /// The same; true if the fast path would do.
    pub(super) fn parks(&mut self, held: Held) -> bool {
        let Held { endpoint, conn, lease } = held;
        let (token, wall, mut conn) = (lease.token, self.now.wall, Some(conn));
        let parked = self.run(&mut |core, _| {
            core.park(endpoint, token, conn.take().expect("the transition runs once"), wall)
        });
        let Err(conn) = parked else { return true };
        self.check_in(token, conn);
        false
    }

    /// Returns a connection the slow way.
    pub(super) fn check_in(&mut self, token: Token, conn: Conn) {
        let (now, mut conn) = (self.now, Some(conn));
        self.run(&mut |core, fx| {
            if let Some(conn) = conn.take() {
                core.checkin(token, conn, now, fx);
            }
        });
    }

    pub(super) fn discard(&mut self, held: Held) {
        let (now, mut conn) = (self.now, Some(held.conn));
        self.run(&mut |core, fx| {
            if let Some(conn) = conn.take() {
                core.discard(held.lease.token, conn, CloseReason::Discarded, now, fx);
            }
        });
    }

    pub(super) fn settle(&mut self, held: Held) {
        let (now, mut conn) = (self.now, Some(held.conn));
        self.run(&mut |core, fx| {
            if let Some(conn) = conn.take() {
                core.settle(held.lease.token, conn, now, fx);
            }
        });
    }

    pub(super) fn detach(&mut self, held: Held) -> Conn {
        let now = self.now;
        self.run(&mut |core, fx| core.detach(held.lease.token, now, fx));
        held.conn
    }
}

fn held(endpoint: u32, grant: Grant<Conn>) -> Held {
    Held { endpoint, conn: grant.conn, lease: grant.lease }
}
