//! A pool so simple that it is plainly right, and random scripts in which the core must do what it
//! does: which connection is handed out, who is answered with what, what ends and why.
//!
//! The model knows nothing of telling, permits or the queue of starved endpoints; the pools here
//! are large enough that nobody starves. When attempts begin is the core's to decide: the model
//! only watches that there are never more of them than waiters, nor any too soon after a failure.
//! Nor does it know where an attempt is: in the event loop, or waiting for a thread, it is one. At
//! one endpoint either all callers block or all make requests: which of both is next is a question
//! of telling.

mod reconfiguring;

use std::collections::BTreeMap;
use std::time::Duration;

use super::scripts::{Random, for_each_seed};
use super::world::{Got, Held, Look, Mail, Reply, World, limits, millis};
use crate::clock::Stamp;
use crate::config::{Limits, Reuse};
use crate::core::{Manner, Notice, Refusal, Token};
use crate::observe::CloseReason;

/// What a step is expected to do to others than whoever takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Granted(Mail, u32),
    Failed(Mail),
    Closed(u32, CloseReason),
}

#[derive(Clone, Copy, Debug)]
struct ModelConn {
    id: u32,
    endpoint: u32,
    /// When it came back, counted in returns; none while it is in use.
    idle_since: Option<u64>,
    doomed: Option<CloseReason>,
}

#[derive(Clone, Copy, Debug)]
struct ModelWaiter {
    mail: Mail,
    endpoint: u32,
    arrived: Stamp,
    deadline: Stamp,
    /// It is handed what comes, and never looks.
    is_request: bool,
}

#[derive(Clone, Copy, Debug)]
struct ModelAttempt {
    endpoint: u32,
    /// An eviction has overtaken it.
    is_evicted: bool,
    is_hung_up: bool,
}

/// The last failure at an endpoint since the last success.
#[derive(Clone, Copy, Debug)]
struct ModelFailure {
    at: Stamp,
    /// No attempt begins sooner.
    retry_at: Stamp,
}

struct Model {
    limits: Limits,
    conns: Vec<ModelConn>,
    waiters: Vec<ModelWaiter>,
    /// Attempts under way.
    connects: BTreeMap<Token, ModelAttempt>,
    failures: BTreeMap<u32, ModelFailure>,
    /// Until when the hand-overs of an endpoint are paid for.
    paid_until: BTreeMap<u32, Stamp>,
    returns: u64,
    events: Vec<Event>,
}

impl Model {
    fn idle(&self, endpoint: u32) -> impl Iterator<Item = &ModelConn> {
        self.conns.iter().filter(move |conn| conn.endpoint == endpoint && conn.idle_since.is_some())
    }

    /// Which one a checkout takes.
    fn next_out(&self, endpoint: u32) -> Option<u32> {
        let found = match self.limits.reuse {
            Reuse::Newest => self.idle(endpoint).max_by_key(|conn| conn.idle_since),
            Reuse::Oldest => self.idle(endpoint).min_by_key(|conn| conn.idle_since),
        };
        found.map(|conn| conn.id)
    }

    fn lend(&mut self, id: u32) {
        let conn = self.conns.iter_mut().find(|conn| conn.id == id).expect("it is idle");
        conn.idle_since = None;
    }

    fn end(&mut self, id: u32, reason: CloseReason) {
        self.conns.retain(|conn| conn.id != id);
        self.events.push(Event::Closed(id, reason));
    }

    fn has_room(&self, endpoint: u32) -> bool {
        let idle = self.conns.iter().filter(|conn| conn.idle_since.is_some()).count();
        idle < self.limits.max_idle
            && self.idle(endpoint).count() < self.limits.max_idle_per_endpoint
    }

    /// The oldest waiter that is still there to be served.
    fn oldest(&self, endpoint: u32, now: Stamp) -> Option<ModelWaiter> {
        let mut waiters = self.waiters.iter();
        waiters.find(|waiter| waiter.endpoint == endpoint && waiter.deadline > now).copied()
    }

    fn returned(&mut self, id: u32, now: Stamp) {
        let conn = *self.conns.iter().find(|conn| conn.id == id).expect("it is in use");
        if let Some(reason) = conn.doomed {
            return self.end(id, reason);
        }
        let waiter = self.oldest(conn.endpoint, now);
        let has_room = self.has_room(conn.endpoint);
        match waiter {
            _ if self.is_over(conn.endpoint) => self.end(id, CloseReason::Surplus),
            Some(w) if self.is_turn(w, now) => {
                let paid_until = self.paid_until.entry(conn.endpoint).or_default();
                *paid_until = (*paid_until).max(now).plus(Duration::from_micros(150));
                self.granted(w.mail, id);
            }
            Some(w) if w.is_request || !has_room => self.granted(w.mail, id),
            None if self.limits.max_idle_per_endpoint == 0 => self.end(id, CloseReason::Surplus),
            _ => self.rest(id, conn.endpoint),
        }
    }

    fn is_turn(&self, waiter: ModelWaiter, now: Stamp) -> bool {
        let is_strict = self.limits.fair_after == millis(0);
        let paid_until = self.paid_until.get(&waiter.endpoint).copied().unwrap_or_default();
        let is_affordable = is_strict || paid_until < now.plus(Duration::from_micros(2_400));
        now.since(waiter.arrived) >= self.limits.fair_after && is_affordable
    }

    fn granted(&mut self, mail: Mail, id: u32) {
        self.waiters.retain(|waiter| waiter.mail != mail);
        self.events.push(Event::Granted(mail, id));
    }

    /// It becomes idle; if that is one too many, the one used longest ago ends.
    fn rest(&mut self, id: u32, endpoint: u32) {
        self.returns += 1;
        let since = Some(self.returns);
        self.conns.iter_mut().filter(|c| c.id == id).for_each(|c| c.idle_since = since);
        if self.idle(endpoint).count() > self.limits.max_idle_per_endpoint {
            let oldest = self.idle(endpoint).min_by_key(|conn| conn.idle_since).map(|c| c.id);
            self.end(oldest.expect("there is one too many"), CloseReason::Surplus);
        }
        let idle = self.conns.iter().filter(|conn| conn.idle_since.is_some());
        if idle.clone().count() > self.limits.max_idle {
            // Waiters come before caps: first one that nobody waits for.
            let is_awaited = |conn: &ModelConn| {
                self.waiters.iter().any(|waiter| waiter.endpoint == conn.endpoint)
            };
            let oldest = idle.min_by_key(|conn| (is_awaited(conn), conn.idle_since)).map(|c| c.id);
            self.end(oldest.expect("there is one too many"), CloseReason::Surplus);
        }
    }

    fn connected(&mut self, token: Token, id: u32, now: Stamp) {
        let attempt = self.connects[&token];
        let endpoint = attempt.endpoint;
        if attempt.is_hung_up {
            self.events.push(Event::Closed(id, CloseReason::PeerClosed));
            return self.connect_failed(token, false, now);
        }
        self.connects.remove(&token);
        self.failures.remove(&endpoint);
        if attempt.is_evicted {
            return self.events.push(Event::Closed(id, CloseReason::Evicted));
        }
        self.conns.push(ModelConn { id, endpoint, idle_since: None, doomed: None });
        match self.oldest(endpoint, now) {
            _ if self.is_over(endpoint) => self.end(id, CloseReason::Surplus),
            Some(waiter) => self.granted(waiter.mail, id),
            None if !self.has_room(endpoint) => self.end(id, CloseReason::Surplus),
            None => self.rest(id, endpoint),
        }
    }

    fn connect_failed(&mut self, token: Token, is_shortage: bool, now: Stamp) {
        let endpoint = self.connects.remove(&token).expect("it was begun").endpoint;
        let made_room = is_shortage && self.make_room(endpoint);
        let before = self.failures.get(&endpoint);
        let is_first = before.is_none_or(|failure| now.since(failure.at) >= millis(50));
        let pause = millis(if made_room && is_first { 0 } else { 50 });
        self.failures.insert(endpoint, ModelFailure { at: now, retry_at: now.plus(pause) });
        if made_room || self.is_anything_left(endpoint) {
            return;
        }
        let told = self.waiters.iter().filter(|waiter| waiter.endpoint == endpoint);
        self.events.extend(told.map(|waiter| Event::Failed(waiter.mail)));
        self.waiters.retain(|waiter| waiter.endpoint != endpoint);
    }

    /// Ends the connection idle for longest where nobody waits, if somebody here waits in vain.
    fn make_room(&mut self, endpoint: u32) -> bool {
        let waiters = self.waiters.iter().filter(|waiter| waiter.endpoint == endpoint).count();
        let connects = self.connects.values().filter(|theirs| theirs.endpoint == endpoint).count();
        if waiters <= connects + self.idle(endpoint).count() {
            return false;
        }
        let is_awaited =
            |conn: &&ModelConn| self.waiters.iter().any(|waiter| waiter.endpoint == conn.endpoint);
        let idle = self.conns.iter().filter(|conn| conn.idle_since.is_some());
        let spare = idle.filter(|conn| !is_awaited(conn)).min_by_key(|conn| conn.idle_since);
        let Some(id) = spare.map(|conn| conn.id) else { return false };
        self.end(id, CloseReason::MadeRoom);
        true
    }

    fn noticed(&mut self, token: Token, id: Option<u32>, notice: Notice) {
        if let Some(attempt) = self.connects.get_mut(&token) {
            attempt.is_hung_up |= notice == Notice::HungUp;
            return;
        }
        let conn = self.conns.iter_mut().find(|conn| Some(conn.id) == id);
        let Some(conn) = conn else { return }; // it is gone
        match (notice, conn.idle_since) {
            (Notice::HungUp, Some(_)) => self.end(id.unwrap_or(0), CloseReason::PeerClosed),
            (Notice::HungUp, None) => conn.doomed = Some(CloseReason::PeerClosed),
            (Notice::Stray, Some(_)) => self.end(id.unwrap_or(0), CloseReason::StrayBytes),
            (Notice::Stray, None) => {
                let is_hung_up = conn.doomed == Some(CloseReason::PeerClosed);
                conn.doomed = conn.doomed.filter(|_| is_hung_up).or(Some(CloseReason::StrayBytes));
            }
        }
    }

    fn is_anything_left(&self, endpoint: u32) -> bool {
        self.conns.iter().any(|conn| conn.endpoint == endpoint)
            || self.connects.values().any(|theirs| theirs.endpoint == endpoint)
    }

    fn evict(&mut self, endpoint: u32) {
        let idle: Vec<u32> = self.idle(endpoint).map(|conn| conn.id).collect();
        idle.into_iter().for_each(|id| self.end(id, CloseReason::Evicted));
        for conn in self.conns.iter_mut().filter(|conn| conn.endpoint == endpoint) {
            conn.doomed.get_or_insert(CloseReason::Evicted);
        }
        let mine = self.connects.values_mut().filter(|theirs| theirs.endpoint == endpoint);
        mine.for_each(|attempt| attempt.is_evicted = true);
    }
}

/// The core and the model, side by side.
struct Pair<'r> {
    world: World,
    model: Model,
    random: &'r mut Random,
    held: Vec<Held>,
    closed: usize,
    /// Every token there ever was: those of attempts and connections that are gone, too.
    tokens: Vec<Token>,
    /// Where requests are made, if anywhere.
    of_requests: Option<u32>,
}

impl Pair<'_> {
    fn step(&mut self) {
        let endpoint = u32::try_from(self.random.below(2)).unwrap_or(0);
        match self.random.below(25) {
            0..=6 => self.ask(endpoint),
            7..=12 => self.give_back(),
            13..=16 => self.connect(),
            17 | 18 => self.look(),
            19 | 20 => {
                let time = self.random.pick(&[1, 1, 2, 50]);
                self.world.pass(time);
                self.world.reap();
            }
            21 => self.notice(),
            22 if self.random.one_in(4) => {
                self.model.evict(endpoint);
                self.world.evict(endpoint);
            }
            22 => self.cancel(),
            23 => self.discard(),
            _ => self.reconfigure(),
        }
        self.compare();
    }

    fn ask(&mut self, endpoint: u32) {
        let expected = self.model.next_out(endpoint);
        let timeout = millis(self.random.pick(&[3, 60, 1_000_000]));
        let now = self.world.now.mono;
        let theirs = self.model.waiters.iter().filter(|waiter| waiter.endpoint == endpoint).count();
        let is_request = self.of_requests == Some(endpoint);
        let (timeout, manner) = if is_request {
            (std::time::Duration::MAX, Manner::Request)
        } else {
            (timeout, Manner::Eager)
        };
        match self.world.ask_for(endpoint, timeout, manner) {
            Got::Conn(held) => {
                assert_eq!(Some(held.conn.id), expected, "another connection was handed out");
                self.model.lend(held.conn.id);
                self.held.push(held);
            }
            Got::Waits(mail) => {
                assert_eq!(expected, None, "it need not wait");
                let deadline = now.plus(timeout);
                let arrived = now;
                let waiter = ModelWaiter { mail, endpoint, arrived, deadline, is_request };
                self.model.waiters.push(waiter);
            }
            Got::Refused(Refusal::Saturated(_)) => {
                let is_full = theirs >= self.model.limits.max_waiting; // which may have fallen
                assert!(expected.is_none() && is_full, "{expected:?}, {theirs} wait");
            }
            Got::Refused(Refusal::Failed(_, age, _)) => {
                assert_eq!((expected, self.model.is_anything_left(endpoint)), (None, false));
                let failure = self.model.failures[&endpoint];
                assert!(age == now.since(failure.at) && now < failure.retry_at, "{age:?}");
            }
            Got::Refused(Refusal::Closed) => panic!("nobody closed it"),
        }
    }

    fn waiting(&self, requests: bool) -> Vec<Mail> {
        let waiters = self.model.waiters.iter();
        waiters.filter(|waiter| waiter.is_request == requests).map(|waiter| waiter.mail).collect()
    }

    /// A request is dropped that was not answered.
    fn cancel(&mut self) {
        let requests = self.waiting(true);
        if !requests.is_empty() {
            let mail = self.random.pick(&requests);
            self.model.waiters.retain(|waiter| waiter.mail != mail);
            self.world.cancel(mail);
        }
    }

    fn give_back(&mut self) {
        let Some(held) = self.random.take(&mut self.held) else { return };
        self.model.returned(held.conn.id, self.world.now.mono);
        self.world.give_back(held);
    }

    fn discard(&mut self) {
        let Some(held) = self.random.take(&mut self.held) else { return };
        let id = held.conn.id;
        if self.random.one_in(2) {
            self.model.end(id, CloseReason::Discarded);
            self.world.discard(held);
        } else {
            self.model.conns.retain(|conn| conn.id != id);
            self.world.detach(held).keep();
        }
    }

    fn connect(&mut self) {
        let Some(connect) = self.random.take(&mut self.world.connects) else { return };
        let now = self.world.now.mono;
        match self.random.below(8) {
            0 => {
                self.model.connect_failed(connect.token, false, now);
                self.world.fails(connect, 1);
            }
            1 => {
                self.model.connect_failed(connect.token, true, now);
                self.world.runs_short(connect, 2);
            }
            2..=4 => {
                let connect = self.world.goes_on(connect).expect("its deadline is far away");
                self.world.connects.push(connect);
            }
            _ => {
                let id = self.world.connected(connect);
                self.model.connected(connect.token, id, now);
            }
        }
    }

    /// A waiter wakes: it takes what is idle, leaves past its deadline, or waits on.
    fn look(&mut self) {
        let mails = self.waiting(false);
        if mails.is_empty() {
            return;
        }
        let mail = self.random.pick(&mails);
        let is_here = |waiter: &&ModelWaiter| waiter.mail == mail;
        let waiter = *self.model.waiters.iter().find(is_here).expect("it waits in the model, too");
        let expected = self.model.next_out(waiter.endpoint);
        let is_over = waiter.deadline <= self.world.now.mono;
        match self.world.look(mail) {
            Look::Granted(held) => {
                assert_eq!(Some(held.conn.id), expected, "another connection was found");
                self.model.lend(held.conn.id);
                self.held.push(held);
            }
            Look::Expired(..) => assert_eq!((expected, is_over), (None, true), "it left early"),
            Look::Waits => {
                assert_eq!((expected, is_over), (None, false), "it should have taken it, or left");
                return;
            }
            Look::Answered(reply) => panic!("it was in the queue, yet answered: {reply:?}"),
        }
        self.model.waiters.retain(|waiter| waiter.mail != mail);
    }

    /// The event loop sees something, in time or long after.
    fn notice(&mut self) {
        let entries = &self.world.core.entries;
        let all: Vec<Token> = entries.indexes().map(|index| entries.token(index)).collect();
        let chosen = if self.random.one_in(4) { &self.tokens } else { &all };
        if chosen.is_empty() {
            return;
        }
        let token = self.random.pick(chosen);
        let held = self.held.iter().find(|held| held.lease.token == token);
        let idle = entries.get(token).and_then(|entry| entry.conn.as_ref());
        let id = held.map(|held| held.conn.id).or_else(|| idle.map(|conn| conn.id));
        let notice = self.random.pick(&[Notice::HungUp, Notice::Stray]);
        self.model.noticed(token, id, notice);
        self.world.notice(token, notice);
    }

    /// What happened is what the model said would, and both count the same.
    fn compare(&mut self) {
        let mut seen: Vec<Event> = Vec::new();
        for (mail, reply) in std::mem::take(&mut self.world.replies) {
            match reply {
                Reply::Granted(held) => {
                    seen.push(Event::Granted(mail, held.conn.id));
                    self.held.push(held);
                }
                Reply::Failed(_) => seen.push(Event::Failed(mail)),
                Reply::Closed => panic!("nobody closed it"),
            }
        }
        let closed = self.world.closed.iter().skip(self.closed);
        seen.extend(closed.map(|&(id, reason)| Event::Closed(id, reason)));
        self.closed = self.world.closed.len();
        seen.sort_unstable();
        self.model.events.sort_unstable();
        assert_eq!(seen, self.model.events, "what happened, and what was to happen");
        self.model.events.clear();
        let now = self.world.now.mono;
        for connect in &self.world.connects {
            if self.model.connects.contains_key(&connect.token) {
                continue;
            }
            let endpoint = connect.endpoint;
            let attempt = ModelAttempt { endpoint, is_evicted: false, is_hung_up: false };
            self.model.connects.insert(connect.token, attempt);
            self.tokens.push(connect.token);
            let failure = self.model.failures.get(&endpoint);
            let is_paused = failure.is_some_and(|failure| now < failure.retry_at);
            assert!(!is_paused, "an attempt too soon after a failure");
        }
        for endpoint in 0..2 {
            let counts = self.world.counts(endpoint);
            let idle = self.model.idle(endpoint).count();
            let all = self.model.conns.iter().filter(|conn| conn.endpoint == endpoint).count();
            let waiters = self.model.waiters.iter().filter(|w| w.endpoint == endpoint).count();
            let counted = (counts.idle, counts.in_use, counts.waiting);
            assert_eq!(counted, (idle, all - idle, waiters), "counts at {endpoint}");
            let connects = self.model.connects.values();
            let connects = connects.filter(|theirs| theirs.endpoint == endpoint).count();
            assert_eq!(counts.connecting, connects, "attempts at {endpoint}");
        }
    }
}

#[test]
fn the_core_does_what_a_naive_pool_does() {
    for_each_seed(1_500, |random| {
        let max_per_endpoint = random.pick(&[1, 2, 5]);
        let limits = Limits {
            max_total: 20,
            max_per_endpoint,
            max_idle: random.pick(&[0, 1, 2, 20]),
            max_idle_per_endpoint: random.pick(&[0, 1, 2, 5]).min(max_per_endpoint),
            max_connecting: random.pick(&[1, 2, 20]),
            max_waiting: random.pick(&[2, 1_000]),
            connect_timeout: millis(1_000_000),
            fair_after: millis(random.pick(&[0, 2, 5])),
            reuse: random.pick(&[Reuse::Newest, Reuse::Oldest]),
            ..limits()
        };
        let model = Model {
            limits: limits.clone(),
            conns: Vec::new(),
            waiters: Vec::new(),
            connects: BTreeMap::new(),
            failures: BTreeMap::new(),
            paid_until: BTreeMap::new(),
            returns: 0,
            events: Vec::new(),
        };
        let mut world = World::with_endpoints(limits, 2);
        if random.one_in(2) {
            world.core.leave_deadlines_to_loop(0);
        }
        let (held, tokens) = (Vec::new(), Vec::new());
        let of_requests = random.pick(&[None, Some(0), Some(1)]);
        let mut pair = Pair { world, model, random, held, closed: 0, tokens, of_requests };
        for _ in 0..150 {
            pair.step();
        }
        let held = std::mem::take(&mut pair.held);
        pair.world.let_all_end(held);
    });
}
