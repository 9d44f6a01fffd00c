//! What callers do with the pool.

use std::sync::Arc;
use std::time::Duration;

use warmline::sim::net::FRAME;
use warmline::sim::{self, trace, violation};
use warmline::{Endpoint, EndpointLimits, Error, ErrorKind, Pool, PooledConn, Repeat};

use crate::kit::{Kit, READ_TIMEOUT, frame};
use crate::play::Stage;
use crate::runs::Told;
use crate::script::{Act, End, Kind, Reach};
use crate::stopwatch::Stopwatch;
use crate::watch::{Begun, Watch};

/// Somebody who uses the pool.
pub struct Caller<K: Kit> {
    stage: Arc<Stage<K>>,
    number: usize,
    frames: u64,
}

type Conn<K> = PooledConn<<K as Kit>::Connector>;

/// Why an exchange of a [`run`](warmline::Endpoint::run) failed.
enum Trouble {
    Io,
    Pool(Error),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Pool(error)
    }
}

impl<K: Kit> Caller<K> {
    pub fn new(stage: Arc<Stage<K>>, number: usize) -> Self {
        Self { stage, number, frames: 0 }
    }

    fn pool(&self) -> &Pool<K::Connector> {
        &self.stage.site(self.number).pool
    }

    fn watch(&self) -> &Watch {
        &self.stage.site(self.number).watch
    }

    fn endpoint(&self, host: usize) -> Option<Endpoint<K::Connector>> {
        self.pool().endpoint(&self.stage.key(host)).ok()
    }

    pub fn play(mut self) {
        let acts = self.stage.script.callers[self.number].clone();
        for act in acts {
            trace(|| format!("caller {}: {act:?}", self.number));
            self.act(&act);
        }
    }

    fn act(&mut self, act: &Act) {
        match *act {
            Act::Exchange { host, timeout, frames, hold, end } => {
                if let Some(conn) = self.get(host, timeout) {
                    self.use_up(host, conn, frames, hold, end);
                }
            }
            Act::TryGet { host } => {
                let key = self.stage.key(host);
                if let Ok(Some(conn)) = self.pool().try_get(&key) {
                    self.watch().takes(host, K::identity(&conn));
                    self.use_up(host, conn, 1, Duration::ZERO, End::Return);
                }
            }
            Act::Run { host, always } => self.run(host, always),
            Act::Request { host, wait, end } => self.request(host, wait, end),
            Act::Two { host, other, timeout } => {
                let Some(first) = self.get(host, None) else { return };
                let timeout = if self.stage.script.is_calm { None } else { Some(timeout) };
                // In calm weather nobody may wait for what he holds himself.
                if timeout.is_some() {
                    if let Some(second) = self.get(other, timeout) {
                        self.use_up(other, second, 1, Duration::ZERO, End::Return);
                    }
                }
                self.use_up(host, first, 1, Duration::ZERO, End::Return);
            }
            Act::Warm { host, count, timeout } => {
                if let Some(endpoint) = self.endpoint(host) {
                    let _open = endpoint.warm(count, timeout);
                }
            }
            Act::Evict { host } => {
                if let Some(endpoint) = self.endpoint(host) {
                    endpoint.evict();
                }
            }
            Act::EvictAll => self.pool().evict_all(),
            Act::SetLimits { host, most, min_idle } => {
                let Some(endpoint) = self.endpoint(host) else { return };
                self.watch().limits_change(host, most);
                let limits =
                    EndpointLimits::new().max_per_endpoint(most).min_idle(min_idle.min(most));
                let _refused = endpoint.set_limits(limits);
            }
            Act::Stray { many } => {
                for nobody in 0..many {
                    let key = self.stage.kit.key(1_000 + nobody, Reach::Address);
                    let found = match nobody % 16 {
                        0 => self.pool().get_timeout(&key, Duration::from_millis(1)).is_ok(),
                        _ => self.pool().try_get(&key).is_ok_and(|found| found.is_some()),
                    };
                    if found {
                        violation("nobody is there, and yet there was a connection");
                    }
                }
            }
            Act::Rest(time) => sim::sleep(time),
        }
    }

    fn get(&self, host: usize, timeout: Option<Duration>) -> Option<Conn<K>> {
        let watch = self.watch();
        let begun = watch.begin(host);
        let key = self.stage.key(host);
        let result = match timeout {
            Some(timeout) => self.pool().get_timeout(&key, timeout),
            None => self.pool().get(&key),
        };
        let limit = timeout.unwrap_or(self.stage.script.settings.checkout_timeout);
        match result {
            Ok(mut conn) => {
                watch.served(&begun, Some(limit), K::identity(&conn));
                self.expect_fresh(&begun, &mut conn);
                Some(conn)
            }
            Err(error) => {
                self.expect_cause(&error);
                watch.failed(&begun, Some(limit), &error);
                None
            }
        }
    }

    /// What could be known of a connection before it was asked for was looked at.
    fn expect_fresh(&self, begun: &Begun, conn: &mut Conn<K>) {
        let Some(spoilt) = K::spoilt(conn) else { return };
        let exchange = PooledConn::exchange(conn);
        let settings = &self.stage.script.settings;
        // A moment for those that were about to look, however slow they were to get there.
        let until = begun.at().saturating_sub(2_000_000 + sim::starved());
        let is_watched = self.stage.script.hears();
        if is_watched && spoilt.ended.is_some_and(|at| at < until) {
            violation(format!("given out, and ended: {spoilt:?}, {exchange:?}"));
        }
        // Where it is watched only while idle, it must have been so for longer than a tick.
        let is_idle = exchange.was_idle() && exchange.idle_for() >= Duration::from_millis(9);
        let hears = settings.portable_watch && self.stage.script.hears_while_idle();
        let is_heard = hears && is_idle && exchange.is_reused();
        let first = [spoilt.ended, spoilt.unread].into_iter().flatten().min();
        if is_heard && first.is_some_and(|at| at < until) {
            violation(format!("given out, though spoilt while idle: {spoilt:?}, {exchange:?}"));
        }
        if exchange.written().unwrap_or(0) + exchange.read().unwrap_or(0) > 0 {
            violation(format!("given out with another's traffic: {exchange:?}"));
        }
        let has_rested = exchange.was_idle() && exchange.idle_for() >= settings.probe_after;
        let is_probed = has_rested && exchange.is_reused();
        if is_probed && first.is_some_and(|at| at < begun.at()) {
            violation(format!("given out after a rest, and spoilt: {spoilt:?}, {exchange:?}"));
        }
    }

    fn expect_cause(&self, error: &Error) {
        if error.kind() == ErrorKind::Connect && std::error::Error::source(error).is_none() {
            violation(format!("a failed connect that names no cause: {error}"));
        }
    }

    /// Uses a connection and gives it up in one of the ways there are.
    fn use_up(&mut self, host: usize, mut conn: Conn<K>, frames: u64, hold: Duration, end: End) {
        let identity = K::identity(&conn);
        let is_well = (0..frames).all(|_| self.exchange(&mut conn));
        if !hold.is_zero() {
            sim::sleep(hold);
        }
        let frame = self.next_frame();
        let watch = self.watch();
        match end {
            // What the pool cannot see, its user must say.
            _ if !is_well && self.hides_socket() => {
                watch.gives_up(host, identity);
                PooledConn::discard(conn);
            }
            End::Abandon if !self.hides_socket() => {
                let is_asked = K::ask(&mut conn, frame).is_ok();
                if is_asked && self.stage.script.hosts[host].reach != Reach::Blocking {
                    watch.gives_up(host, identity);
                } else {
                    watch.gives(host, identity);
                }
                drop(conn);
            }
            End::Return | End::Abandon => {
                watch.gives(host, identity);
                drop(conn);
            }
            End::Discard => {
                watch.gives_up(host, identity);
                PooledConn::discard(conn);
            }
            End::Detach => {
                watch.gives_up(host, identity);
                let mut conn = PooledConn::detach(conn);
                K::keep(&mut conn);
                drop(conn);
            }
            End::Panic => {
                watch.gives_up(host, identity);
                let survived = sim::survive(|| {
                    let _in_hand = conn;
                    sim::unwind();
                });
                debug_assert!(survived.is_none());
            }
        }
    }

    fn hides_socket(&self) -> bool {
        match self.stage.script.kind {
            Kind::Plain => false,
            Kind::Foreign(temper) => !temper.shows_socket,
        }
    }

    fn next_frame(&mut self) -> [u8; FRAME] {
        self.frames += 1;
        frame(((self.number as u64 + 1) << 32) | self.frames)
    }

    /// One request; its answer is its own, or there is none.
    fn exchange(&mut self, conn: &mut Conn<K>) -> bool {
        let frame = self.next_frame();
        let stopwatch = Stopwatch::start();
        let answered = K::exchange(conn, frame);
        let took = stopwatch.took();
        if took > 4 * READ_TIMEOUT {
            violation(format!("a read with a time-out of {READ_TIMEOUT:?} took {took:?}"));
        }
        match answered {
            Ok(answer) if answer == frame => true,
            // What nobody asked for, and no pool could see in time.
            Ok(answer) if answer[0] == b'!' => false,
            Ok(answer) => {
                violation(format!("asked {frame:x?}, and got another's answer {answer:x?}"));
                false
            }
            Err(error) => {
                if self.stage.script.is_calm {
                    violation(format!("nothing was wrong, and yet: {error}"));
                }
                false
            }
        }
    }

    fn run(&mut self, host: usize, always: bool) {
        let Some(endpoint) = self.endpoint(host) else { return };
        let repeat = if always { Repeat::Always } else { Repeat::IfUnwritten };
        let (stage, number) = (Arc::clone(&self.stage), self.number);
        let mut told = Told::begin();
        let result = endpoint.run(repeat, |conn| {
            told.exchange_begins(always);
            let (watch, identity) = (&stage.site(number).watch, K::identity(conn));
            watch.takes(host, identity);
            let is_well = self.exchange(conn);
            watch.gives(host, identity);
            told.exchange_ends(PooledConn::exchange(conn), is_well);
            if is_well { Ok(()) } else { Err(Trouble::Io) }
        });
        let refusal = match &result {
            // Without its own threads a pool can do nothing.
            Err(Trouble::Pool(error)) if always && !error.to_string().contains("start") => {
                Some(error)
            }
            _ => None,
        };
        told.ends(stage.script.settings.checkout_timeout, refusal);
        match result {
            Err(Trouble::Pool(error)) if self.stage.script.is_calm => {
                violation(format!("nothing was wrong, and yet: {error}"));
            }
            Err(Trouble::Pool(error)) => self.expect_cause(&error),
            Ok(()) | Err(Trouble::Io) => {}
        }
    }

    fn request(&mut self, host: usize, wait: Duration, end: End) {
        let (stage, number) = (Arc::clone(&self.stage), self.number);
        let (key, site) = (stage.key(host), stage.site(number));
        let begun = site.watch.begin(host);
        let request = match site.pool.request(&key) {
            Ok(request) => request,
            Err(error) => return site.watch.failed(&begun, None, &error),
        };
        let wait = if stage.script.is_calm { Duration::from_secs(60) } else { wait };
        match request.receiver().recv_timeout(wait) {
            Ok(Ok(conn)) => {
                site.watch.served(&begun, None, K::identity(&conn));
                drop(request);
                self.use_up(host, conn, 1, Duration::ZERO, end);
            }
            Ok(Err(error)) => site.watch.failed(&begun, None, &error),
            Err(_) => {
                site.watch.gave_up(&begun);
                drop(request);
                if stage.script.is_calm {
                    violation("nothing was wrong, and yet a request was not answered");
                }
            }
        }
    }
}
