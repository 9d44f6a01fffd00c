//! The other half of the harness: the crew, the reaper, whoever sets limits and ends things.

use super::cause::{failure, shortage};
use super::world::{Conn, Connecting, Held, Look, Mail, Out, Reply, Waiting, World, millis};
use crate::clock::Stamp;
use crate::config::{Caps, EndpointLimits, Limits};
use crate::core::{Cut, Manner, Notice, Stats, Token};
use crate::error::{ConnectFailure, Counts, Phase};
use crate::observe::CloseReason;
use crate::sync::Arc;

impl World {
    /// Moves both clocks.
    pub(super) fn pass(&mut self, time: u64) {
        self.now.mono = self.now.mono.plus(millis(time));
        self.now.wall = self.now.wall.plus(millis(time));
    }

    /// Time passes until another attempt may begin after a failure: within 50 to 100 ms of it.
    pub(super) fn pass_pause(&mut self, endpoint: u32) {
        let until = self.core.endpoints.at(endpoint).retry_at.expect("an attempt has failed");
        let left = until.since(self.now.mono);
        assert!(left < millis(100), "{left:?}");
        self.now.mono = self.now.mono.plus(left);
        self.now.wall = self.now.wall.plus(left);
    }

    /// The oldest attempt to connect to an endpoint, which thereby ends.
    pub(super) fn connect_of(&mut self, endpoint: u32) -> Connecting {
        let at = self.connects.iter().position(|connect| connect.endpoint == endpoint);
        self.connects.remove(at.expect("an attempt is under way"))
    }

    pub(super) fn connect_ok(&mut self, endpoint: u32) -> u32 {
        let connect = self.connect_of(endpoint);
        self.connected(connect)
    }

    /// An attempt succeeds; returns the number of the connection.
    pub(super) fn connected(&mut self, connect: Connecting) -> u32 {
        let conn = self.new_conn();
        let id = conn.id;
        let (now, mut conn) = (self.now, Some(conn));
        self.run(&mut |core, fx| {
            if let Some(conn) = conn.take() {
                core.finish_connect(connect.endpoint, connect.token, Ok(conn), now, fx);
            }
        });
        id
    }

    pub(super) fn connect_fails(&mut self, endpoint: u32) {
        let connect = self.connect_of(endpoint);
        self.fails(connect, 1);
    }

    /// An attempt fails for a numbered cause.
    pub(super) fn fails(&mut self, connect: Connecting, cause: u32) {
        self.fails_with(connect, failure(cause));
    }

    /// An attempt fails because this process has run out of something, for a numbered cause.
    pub(super) fn runs_short(&mut self, connect: Connecting, cause: u32) {
        self.fails_with(connect, shortage(cause));
    }

    pub(super) fn fails_with(&mut self, connect: Connecting, why: Arc<ConnectFailure>) {
        let (now, mut why) = (self.now, Some(why));
        self.run(&mut |core, fx| {
            if let Some(why) = why.take() {
                core.finish_connect(connect.endpoint, connect.token, Err(why), now, fx);
            }
        });
    }

    /// A thread takes the attempt up; false if it came too late.
    pub(super) fn start(&mut self, token: Token, interruptible: bool) -> bool {
        let now = self.now;
        let started = self.run(&mut |core, _| core.start_attempt(token, Phase::Open));
        if started && interruptible {
            self.run(&mut |core, fx| core.shield_attempt(token, Phase::Open, now, fx));
        }
        started
    }

    /// The event loop takes the attempt up; false if it came too late.
    pub(super) fn start_in_loop(&mut self, token: Token) -> bool {
        self.run(&mut |core, _| core.start_attempt(token, Phase::Connect))
    }

    /// Whoever is first to do so takes the attempt up: the event loop where it keeps the deadlines,
    /// a thread else.
    pub(super) fn take_up(&mut self, connect: Connecting, interruptible: bool) -> bool {
        let begins_in_loop = self.core.endpoints.at(connect.endpoint).begins_in_loop;
        let entry = self.core.entries.get(connect.token);
        if begins_in_loop && entry.is_some_and(|entry| entry.timer.at().is_none()) {
            self.start_in_loop(connect.token)
        } else {
            self.start(connect.token, interruptible)
        }
    }

    /// The event loop has connected the socket: the attempt waits for a thread to open it. False if
    /// it need not go on.
    pub(super) fn requeue(&mut self, token: Token) -> bool {
        let now = self.now;
        self.run(&mut |core, fx| core.requeue_attempt(token, now, fx))
    }

    /// An attempt goes one stage further: into the event loop, and from there to the crew's queue.
    /// One that need not go on ends as whoever had it ends it; otherwise it is returned. (See
    /// [`awaits_name`](World::awaits_name) for what comes before.)
    pub(super) fn goes_on(&mut self, mut connect: Connecting) -> Option<Connecting> {
        if !connect.is_started {
            connect.is_started = self.start_in_loop(connect.token);
            return connect.is_started.then_some(connect);
        }
        if self.requeue(connect.token) {
            connect.is_started = false;
            return Some(connect);
        }
        let called_off = ConnectFailure::timed_out(Phase::Connect, millis(1));
        self.fails_with(connect, Arc::new(called_off));
        None
    }

    /// An attempt waits for the addresses of its name.
    pub(super) fn awaits_name(&mut self, token: Token) -> bool {
        let now = self.now;
        self.run(&mut |core, fx| core.await_name(token, now, fx))
    }

    /// The oldest check or settling ends.
    pub(super) fn upkeep_ends(&mut self, verdict: Result<(), CloseReason>) {
        let out = self.upkeeps.remove(0);
        self.kept_up(out, verdict);
    }

    pub(super) fn kept_up(&mut self, out: Out, verdict: Result<(), CloseReason>) {
        let Out { endpoint, token, conn, .. } = out;
        let (now, mut conn) = (self.now, Some(conn));
        self.run(&mut |core, fx| {
            core.finish_upkeep(endpoint, token, conn.take(), verdict, now, fx);
        });
    }

    /// The reaper looks; nobody has a handle.
    pub(super) fn reap(&mut self) -> Stamp {
        self.reap_with(&|_| false)
    }

    pub(super) fn reap_with(&mut self, is_held: &dyn Fn(u32) -> bool) -> Stamp {
        let now = self.now;
        self.run(&mut |core, fx| core.reap(now, is_held, fx))
    }

    pub(super) fn hang_up(&mut self, token: Token) {
        self.notice(token, Notice::HungUp);
    }

    /// The event loop sees something, under what an event can carry of a token.
    pub(super) fn notice(&mut self, token: Token, notice: Notice) {
        let word = token.pack(1).expect("there are few places");
        let ((_, of), now) = (Cut::unpack(word), self.now);
        self.run(&mut |core, fx| core.notice(of, notice, now, fx));
    }

    pub(super) fn evict(&mut self, endpoint: u32) {
        let now = self.now;
        self.run(&mut |core, fx| core.evict(endpoint, now, fx));
    }

    pub(super) fn close(&mut self) {
        let now = self.now;
        self.run(&mut |core, fx| core.close(now, fx));
    }

    pub(super) fn warm(&mut self, endpoint: u32, wanted: usize, mail: Mail) -> usize {
        let now = self.now;
        self.run(&mut |core, fx| core.warm(endpoint, wanted, &mail, now, fx))
    }

    pub(super) fn cool(&mut self, endpoint: u32, mail: Mail) {
        let now = self.now;
        self.run(&mut |core, fx| core.cool(endpoint, &mail, now, fx));
    }

    /// A request is dropped: it leaves the queue, or what had arrived goes back.
    pub(super) fn cancel(&mut self, mail: Mail) {
        let Some(waiting) = self.waiting.remove(&mail) else {
            if let Some(Reply::Granted(held)) = self.replies.remove(&mail) {
                self.give_back(held);
            }
            return;
        };
        let now = self.now;
        let desk = self.run(&mut |core, fx| core.cancel_request(waiting.token, now, fx));
        assert_eq!(desk, Some(mail), "it was in the queue");
    }

    /// Gives an endpoint all these limits for its own; none if they are the pool's.
    pub(super) fn set_caps(&mut self, endpoint: u32, caps: Caps) {
        let own = EndpointLimits::new()
            .max_per_endpoint(caps.max_per_endpoint)
            .max_idle_per_endpoint(caps.max_idle_per_endpoint)
            .min_idle(caps.min_idle)
            .max_connecting(caps.max_connecting)
            .max_waiting(caps.max_waiting);
        let is_own = caps != self.limits.caps();
        self.limit(endpoint, if is_own { own } else { EndpointLimits::new() }, caps);
    }

    /// Gives an endpoint limits of its own, for whatever they come to.
    pub(super) fn set_limits(&mut self, endpoint: u32, own: EndpointLimits) {
        let caps = own.settle(&self.limits).expect("they can be met");
        self.limit(endpoint, own, caps);
    }

    fn limit(&mut self, endpoint: u32, own: EndpointLimits, caps: Caps) {
        let now = self.now;
        self.run(&mut |core, fx| core.set_limits(endpoint, own, caps, now, fx));
    }

    /// The pool gets other limits, unless some endpoint's own conflict with them: then that one,
    /// and the text of the error.
    pub(super) fn reconfigure(&mut self, limits: &Limits) -> Result<(), (u32, String)> {
        let caps = self.core.caps_under(limits);
        let caps = caps.map_err(|(endpoint, error)| (endpoint, error.to_string()))?;
        self.limits = limits.clone();
        let now = self.now;
        self.run(&mut |core, fx| core.reconfigure(limits.clone(), &caps, now, fx));
        Ok(())
    }

    // ---- shortcuts

    /// Opens `count` connections and hands them out.
    pub(super) fn open(&mut self, endpoint: u32, count: usize) -> Vec<Held> {
        let waiters: Vec<Mail> = (0..count).map(|_| self.wait(endpoint)).collect();
        for _ in 0..count {
            self.connect_ok(endpoint);
        }
        waiters.into_iter().map(|mail| self.granted(mail)).collect()
    }

    /// Opens `count` connections and lets them idle, oldest first; returns their tokens.
    pub(super) fn idle(&mut self, endpoint: u32, count: usize) -> Vec<Token> {
        let held = self.open(endpoint, count);
        let tokens = held.iter().map(|held| held.lease.token).collect();
        held.into_iter().for_each(|held| self.give_back(held));
        tokens
    }

    /// From now on so many are kept ready at every endpoint.
    pub(super) fn set_min_idle(&mut self, count: usize) {
        self.limits.min_idle = count;
        self.core.limits.min_idle = count;
        self.core.budget.keeps_some = true;
        let endpoints: Vec<u32> = self.core.endpoints.indexes().collect();
        for endpoint in endpoints {
            self.core.endpoints.at_mut(endpoint).caps.min_idle = count;
        }
    }

    pub(super) fn counts(&self, endpoint: u32) -> Counts {
        self.core.counts(endpoint)
    }

    pub(super) fn stats(&self) -> Stats {
        self.core.stats_of_all()
    }

    /// How many connections were closed for this reason, as an observer sees it.
    pub(super) fn closed_for(&self, reason: CloseReason) -> usize {
        self.closed.iter().filter(|(_, why)| *why == reason).count()
    }

    /// Lets everything come to its end, in next to no time: who was told looks, attempts succeed,
    /// connections come back. Whoever still waits then was forgotten.
    pub(super) fn let_all_end(&mut self, mut held: Vec<Held>) {
        let mut patience = 100;
        loop {
            let is_over = |waiting: &Waiting| waiting.deadline <= self.now.mono;
            let over = self.waiting.iter().find(|(_, waiting)| is_over(waiting));
            let next = self.hints.first().copied().or_else(|| over.map(|(&mail, _)| mail));
            if let Some(mail) = next.or_else(|| self.replies.keys().next().copied()) {
                held.extend(self.wakes_up(mail));
            } else if let Some(connect) = self.connects.pop() {
                self.ends_well(connect);
            } else if let Some(out) = self.upkeeps.pop() {
                self.ends_upkeep(out, Ok(()));
            } else if let Some(back) = held.pop() {
                self.give_back(back);
            } else if self.waiting.is_empty() {
                return;
            } else {
                // A pause after a failure must pass.
                assert!(patience > 0, "forgotten: {:?}, {}", self.waiting, self.stats());
                patience -= 1;
                self.pass(1);
                if self.core.timers.look_at <= self.now.mono {
                    self.reap();
                }
            }
        }
    }

    /// A waiter wakes, for whatever reason: takes its answer, or looks again. A request only has
    /// its answer.
    pub(super) fn wakes_up(&mut self, mail: Mail) -> Option<Held> {
        let manner = self.waiting.get(&mail).map(|waiting| waiting.manner);
        if manner == Some(Manner::Request) {
            return None;
        }
        if !self.waiting.contains_key(&mail) && !self.replies.contains_key(&mail) {
            self.hints.retain(|&hinted| hinted != mail); // a late hint: it has long gone
            return None;
        }
        match self.look(mail) {
            Look::Granted(held) | Look::Answered(Reply::Granted(held)) => Some(held),
            _ => None,
        }
    }

    pub(super) fn ends_well(&mut self, mut connect: Connecting) {
        if connect.is_started || self.take_up(connect, false) {
            connect.is_started = true;
            self.connected(connect);
        }
    }

    pub(super) fn ends_badly(&mut self, connect: Connecting, cause: u32) {
        if connect.is_started || self.take_up(connect, false) {
            self.fails(connect, cause);
        }
    }

    pub(super) fn ends_short(&mut self, connect: Connecting, cause: u32) {
        if connect.is_started || self.start_in_loop(connect.token) {
            self.runs_short(connect, cause);
        }
    }

    /// A check or settling ends as the crew ends it: one that came too late is not begun.
    pub(super) fn ends_upkeep(&mut self, out: Out, verdict: Result<(), CloseReason>) {
        let is_begun = out.is_started || self.start(out.token, false);
        self.kept_up(out, if is_begun { verdict } else { Err(CloseReason::TooLate) });
    }

    /// Nothing is left: no connection, no permit, no waiter.
    pub(super) fn assert_empty(&self) {
        let counts = self.stats().counts;
        assert_eq!((counts.total(), counts.waiting, counts.pool.0), (0, 0, 0), "{counts}");
        assert_eq!(self.live(), 0, "connections that nobody has");
        assert!(self.waiting.is_empty() && self.replies.is_empty(), "somebody was forgotten");
    }
}

impl Conn {
    /// Kept by its user for good.
    pub(super) fn keep(self) {
        drop(self);
    }
}
