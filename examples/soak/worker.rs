//! The users of connections: threads that do all there is to do with a pool, in a mix.

use std::collections::BTreeMap;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use warmline::crossbeam_channel::select;
use warmline::{Address, Connector, Error, ErrorKind, Failure, PooledConn, Repeat};

use crate::board::{Board, SLACK};
use crate::figures::Histogram;
use crate::greeted::Line;
use crate::protocol::{ASK, Mishap, ask, question};
use crate::random::Random;
use crate::site::{CHECKOUT_TIMEOUT, InHand, Loan, Service, Site, World};

/// What a worker is in the middle of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Between,
    Get,
    TryGet,
    Run,
    Request,
    Select,
    Exchange,
    GiveBack,
    Detach,
    Warm,
    Evict,
    SetLimits,
}

impl Call {
    const ALL: &'static [Self] = &[
        Self::Between,
        Self::Get,
        Self::TryGet,
        Self::Run,
        Self::Request,
        Self::Select,
        Self::Exchange,
        Self::GiveBack,
        Self::Detach,
        Self::Warm,
        Self::Evict,
        Self::SetLimits,
    ];
}

/// Where a worker is, for those who watch.
#[derive(Default)]
pub(crate) struct Post {
    call: AtomicUsize,
    /// When it is to have ended, in milliseconds since the run began.
    due: AtomicU64,
}

impl Post {
    fn set(&self, call: Call, due: Duration) {
        self.call.store(call as usize, Ordering::Relaxed);
        self.due.store(due.as_millis() as u64, Ordering::Release);
    }

    /// The call, and when it was to have ended, if that is too long ago.
    pub(crate) fn overdue(&self, board: &Board) -> Option<(Call, Duration)> {
        let due = Duration::from_millis(self.due.load(Ordering::Acquire));
        let call = Call::ALL.get(self.call.load(Ordering::Relaxed))?;
        (board.began.elapsed() > due + SLACK).then_some((*call, due))
    }
}

/// What became of the turns of one worker, or of all.
#[derive(Default)]
pub(crate) struct Tally {
    /// Those that got a connection.
    pub(crate) checkouts: Histogram,
    /// Those that were answered.
    pub(crate) exchanges: Histogram,
    pub(crate) errors: BTreeMap<String, u64>,
    pub(crate) detached: u64,
    /// Requests that were given up, or answered with a connection in the last moment.
    pub(crate) cancelled: u64,
    pub(crate) panics: u64,
    pub(crate) warmed: u64,
    pub(crate) evictions: u64,
    pub(crate) limits_set: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, other: &Self) {
        self.checkouts.add(&other.checkouts);
        self.exchanges.add(&other.exchanges);
        for (kind, count) in &other.errors {
            *self.errors.entry(kind.clone()).or_default() += count;
        }
        self.detached += other.detached;
        self.cancelled += other.cancelled;
        self.panics += other.panics;
        self.warmed += other.warmed;
        self.evictions += other.evictions;
        self.limits_set += other.limits_set;
    }
}

pub(crate) struct Worker {
    world: Arc<World>,
    board: Arc<Board>,
    post: Arc<Post>,
    number: usize,
    random: Random,
    asked: u64,
    tally: Tally,
}

impl Worker {
    pub(crate) fn new(number: usize, world: Arc<World>, post: Arc<Post>) -> Self {
        let board = Arc::clone(&world.board);
        let random = Random::of(board.seed, number as u64);
        let asked = (number as u64 + 1) << 40;
        post.set(Call::Between, board.began.elapsed());
        Self { world, board, post, number, random, asked, tally: Tally::default() }
    }

    /// Works until the run is over.
    pub(crate) fn work(mut self) -> Tally {
        let world = Arc::clone(&self.world);
        while !self.board.is_over() {
            match self.random.below(24) {
                0 => self.select(&world),
                1..12 => self.turn(&world.plain),
                _ => self.turn(&world.greeted),
            }
            self.post.set(Call::Between, self.board.began.elapsed());
        }
        // It is not waited for any more.
        self.post.set(Call::Between, Duration::from_millis(u64::MAX) - 2 * SLACK);
        self.tally
    }

    /// Does one thing with one endpoint: half the time with its own.
    fn turn<C>(&mut self, service: &Service<C>)
    where
        C: Connector<Key = Address>,
        C::Conn: Line,
    {
        let home = service.sites.get(self.number % service.sites.len().max(1));
        let any = self.random.pick(&service.sites);
        let Some(site) = (if self.random.is_one_in(2) { home } else { any }) else { return };
        let got = match self.random.below(1_000) {
            0..200 => self.call(Call::Get, CHECKOUT_TIMEOUT, || site.endpoint.get().map(Some)),
            200..400 => {
                self.call(Call::Get, CHECKOUT_TIMEOUT, || service.pool.get(&*site.text).map(Some))
            }
            400..520 => return self.run(service, site, Repeat::IfUnwritten),
            520..640 => return self.run(service, site, Repeat::Always),
            640..780 => {
                let timeout = self.random.millis(0, 4);
                self.call(Call::Get, timeout, || site.endpoint.get_timeout(timeout).map(Some))
            }
            780..880 => self.call(Call::TryGet, Duration::ZERO, || Ok(site.endpoint.try_get())),
            880..940 => self.request(site, CHECKOUT_TIMEOUT),
            940..997 => {
                let patience = self.random.millis(0, 2);
                self.request(site, patience)
            }
            _ => return self.manage(site),
        };
        self.received(got, service, site);
    }

    /// Makes a call that is to end in time, and notes how long it took if it brought a connection.
    fn call<T>(
        &mut self,
        call: Call,
        time: Duration,
        run: impl FnOnce() -> Result<Option<T>, Error>,
    ) -> Result<Option<T>, Error> {
        let began = self.begin(call, time);
        let got = run();
        let took = self.end(call, time, began);
        if matches!(&got, Ok(Some(_))) {
            self.tally.checkouts.record(took);
        }
        got
    }

    fn begin(&self, call: Call, time: Duration) -> Instant {
        self.post.set(call, self.board.began.elapsed() + time);
        Instant::now()
    }

    fn end(&self, call: Call, time: Duration, began: Instant) -> Duration {
        let took = began.elapsed();
        self.post.set(Call::Between, self.board.began.elapsed() + Duration::from_secs(1));
        self.board.check(took <= time + SLACK, || {
            format!("{call:?} took {took:.1?}, and {time:.1?} at the most was allowed")
        });
        took
    }

    fn request<C: Connector>(
        &mut self,
        site: &Site<C>,
        patience: Duration,
    ) -> Result<Option<PooledConn<C>>, Error> {
        let answer = self.call(Call::Request, patience, || {
            let request = site.endpoint.request()?;
            request.receiver().recv_timeout(patience).ok().transpose()
        });
        self.tally.cancelled += u64::from(matches!(answer, Ok(None)));
        answer
    }

    /// Asks both pools, and takes what comes first.
    fn select(&mut self, world: &World) {
        let (plain, greeted) =
            (self.random.pick(&world.plain.sites), self.random.pick(&world.greeted.sites));
        let (Some(plain), Some(greeted)) = (plain, greeted) else { return };
        let patience = self.random.millis(0, 20);
        let began = self.begin(Call::Select, patience);
        let (first, second) = match (plain.endpoint.request(), greeted.endpoint.request()) {
            (Ok(first), Ok(second)) => (first, second),
            (Err(error), _) | (_, Err(error)) => return self.note_without(&error),
        };
        let (mut left, mut right) = (None, None);
        select! {
            recv(first.receiver()) -> answer => left = answer.ok(),
            recv(second.receiver()) -> answer => right = answer.ok(),
            default(patience) => {}
        }
        let took = self.end(Call::Select, patience, began);
        self.tally.cancelled += 2 - u64::from(left.is_some() || right.is_some());
        drop((first, second));
        let is_served = matches!(&left, Some(Ok(_))) || matches!(&right, Some(Ok(_)));
        if is_served {
            self.tally.checkouts.record(took);
        }
        self.received(left.transpose(), &world.plain, plain);
        self.received(right.transpose(), &world.greeted, greeted);
    }

    fn received<C>(
        &mut self,
        got: Result<Option<PooledConn<C>>, Error>,
        service: &Service<C>,
        site: &Site<C>,
    ) where
        C: Connector<Key = Address>,
        C::Conn: Line,
    {
        match got {
            Ok(Some(conn)) => self.use_up(Loan::new(conn, service, site, &self.board.clone())),
            Ok(None) => {}
            Err(error) => self.note_without(&error),
        }
    }

    fn run<C>(&mut self, service: &Service<C>, site: &Site<C>, repeat: Repeat)
    where
        C: Connector<Key = Address>,
        C::Conn: Line,
    {
        let began = self.begin(Call::Run, CHECKOUT_TIMEOUT);
        let (mut waited_since, mut waited) = (began, Duration::ZERO);
        let board = Arc::clone(&self.board);
        let done: Result<(), Mishap> = site.endpoint.run(repeat, |conn| {
            let _in_hand = InHand::new(service, site, &board);
            waited += waited_since.elapsed();
            let done = self.exchange(&mut **conn);
            if matches!(&done, Err(Mishap::Stray | Mishap::CrossTalk { .. })) {
                // What follows is not the next one's either.
                conn.socket().shutdown(std::net::Shutdown::Both)?;
            }
            waited_since = self.begin(Call::Run, CHECKOUT_TIMEOUT);
            done
        });
        waited += waited_since.elapsed();
        self.post.set(Call::Between, self.board.began.elapsed() + Duration::from_secs(1));
        self.board.check(waited <= CHECKOUT_TIMEOUT + SLACK, || {
            format!("Run waited for {waited:.1?}, and {CHECKOUT_TIMEOUT:?} was allowed")
        });
        match done {
            Err(Mishap::Without(error)) => self.note_without(&error),
            _ => self.tally.checkouts.record(waited),
        }
    }

    /// What has to do with no connection of one's own.
    fn manage<C: Connector>(&mut self, site: &Site<C>) {
        match self.random.below(4) {
            0 | 1 => {
                let (count, time) = (self.random.below(4) as usize, self.random.millis(0, 50));
                let began = self.begin(Call::Warm, time);
                let warmed = site.endpoint.warm(count, time);
                self.end(Call::Warm, time, began);
                match warmed {
                    Ok(_) => self.tally.warmed += 1,
                    Err(error) => self.note_without(&error),
                }
            }
            2 => {
                let began = self.begin(Call::Evict, Duration::ZERO);
                site.endpoint.evict();
                self.end(Call::Evict, Duration::ZERO, began);
                self.tally.evictions += 1;
            }
            _ => {
                let began = self.begin(Call::SetLimits, Duration::ZERO);
                let set = site.change_limits(&mut self.random);
                self.end(Call::SetLimits, Duration::ZERO, began);
                match set {
                    Ok(()) => self.tally.limits_set += 1,
                    Err(error) => self.note_without(&error),
                }
            }
        }
    }

    /// Uses a connection, and parts with it in one way or another.
    fn use_up<C>(&mut self, mut loan: Loan<'_, C>)
    where
        C: Connector<Key = Address>,
        C::Conn: Line,
    {
        for _ in 0..=self.random.below(3) {
            match self.exchange(&mut *loan.conn) {
                Ok(()) => {}
                // More may be on its way.
                Err(Mishap::Stray | Mishap::CrossTalk { .. }) => return loan.discard(),
                Err(_) => return self.give_back(loan),
            }
        }
        match self.random.below(200) {
            0 => loan.discard(),
            1 | 2 => self.detach(loan),
            3 | 4 => {
                self.tally.panics += 1;
                let holds = AssertUnwindSafe(|| {
                    let _loan = loan;
                    // A panic, but that nothing is printed.
                    resume_unwind(Box::new("a holder stumbles"))
                });
                let _stumbled: Result<(), _> = catch_unwind(holds);
            }
            5..8 => {
                // The answer is on its way to nobody.
                self.asked += 1;
                let question = question(ASK, self.asked, 16);
                let _broken = loan.conn.socket().write_all(&question);
                self.give_back(loan);
            }
            8..13 => {
                sleep(self.random.millis(1, 20));
                self.give_back(loan);
            }
            13..20 => {
                loan.conn.leave_open();
                self.give_back(loan);
            }
            at => {
                if at % 2 == 0 {
                    loan.conn.socket().set_complete();
                }
                self.give_back(loan);
            }
        }
    }

    fn give_back<C: Connector>(&self, loan: Loan<'_, C>) {
        let began = self.begin(Call::GiveBack, Duration::ZERO);
        drop(loan);
        self.end(Call::GiveBack, Duration::ZERO, began);
    }

    fn detach<C: Connector>(&mut self, loan: Loan<'_, C>)
    where
        C::Conn: Line,
    {
        let began = self.begin(Call::Detach, Duration::ZERO);
        let mut conn = loan.detach();
        self.end(Call::Detach, Duration::ZERO, began);
        self.tally.detached += 1;
        let _broken = self.exchange(&mut conn);
    }

    /// A question that nobody else asks, and its answer.
    fn exchange(&mut self, line: &mut impl Line) -> Result<(), Mishap> {
        self.asked += 1;
        let length = if self.random.is_one_in(100) { 16 * 1024 } else { 32 };
        // Reads and writes have time-outs of their own; a few of each are needed.
        let time = Duration::from_secs(10);
        let began = self.begin(Call::Exchange, time);
        let done = ask(line.socket(), ASK, self.asked, length);
        let took = self.end(Call::Exchange, time, began);
        match &done {
            Ok(()) => {
                self.tally.exchanges.record(took);
                self.board.exchanges.fetch_add(1, Ordering::Relaxed);
            }
            Err(Mishap::Broken(error)) => self.note(format!("exchange: {}", error.kind())),
            Err(mishap @ Mishap::CrossTalk { .. }) => {
                self.board.note_cross_talk(mishap);
                self.note("exchange: somebody else's answer".into());
            }
            Err(mishap) => self.note(format!("exchange: {mishap}")),
        }
        done
    }

    fn note_without(&mut self, error: &Error) {
        let may_be = match error.kind() {
            ErrorKind::Timeout | ErrorKind::Saturated => true,
            // The connector does not panic.
            ErrorKind::Connect => error.failure() != Some(Failure::Panic),
            _ => false,
        };
        self.board.check(may_be, || format!("a checkout failed as it should not: {error}"));
        if error.failure() == Some(Failure::Local) {
            self.board.note_odd(&format!("this process lacked something: {error}"));
        }
        let kind = error.kind();
        let why = error.failure().map(|failure| format!(", an attempt: {failure}"));
        // It may have been told of one at the last moment; that must stay rare.
        let is_long = kind == ErrorKind::Timeout && error.waited() > Some(CHECKOUT_TIMEOUT / 2);
        let is_beside = is_long && !error.to_string().contains(", 0 idle");
        let beside = if is_beside { ", beside idle ones" } else { "" };
        self.note(format!("checkout: {kind:?}{}{beside}", why.unwrap_or_default()));
    }

    fn note(&mut self, kind: String) {
        self.board.errors.fetch_add(1, Ordering::Relaxed);
        *self.tally.errors.entry(kind).or_default() += 1;
    }
}
