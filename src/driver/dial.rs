//! The stages of an attempt to connect: which runs where.
//!
//! ```text
//! look-ups: the name ──▶ event loop: connect ──▶ plain: deliver
//!                                           └───▶ crew: open, then deliver
//! ```
//! Each stage is passed over when the plan does not ask for it.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use crate::clock::{self, Deadline, Stamp};
use crate::connector::{Connector, Opening, Socket, Start};
use crate::core::Token;
use crate::driver::Tie;
use crate::driver::connects::{Delivery, Order, Outcome, Target};
use crate::driver::crew::{Fate, Kind};
use crate::driver::resolver;
use crate::error::{BoxError, ConnectFailure, Failure, Phase};
use crate::observe::CloseReason;
use crate::shared::{Boxed, Held, Home, guarded};
use crate::sync::Arc;

/// An attempt to connect, wherever it is on its way. It ends in exactly one place: dropped before
/// that, it has failed.
pub(crate) struct Attempt<C: Connector> {
    /// Present until it ends.
    home: Option<Arc<Home<C>>>,
    token: Token,
    deadline: Stamp,
    /// Held, so that what its end brings about finds the crew.
    tie: Arc<Tie>,
    /// When a thread first took it up.
    began: Option<Stamp>,
    /// How long it took to find the addresses, and to connect.
    stages: (Duration, Duration),
    /// It waits for a thread: at its deadline the core takes it for lost, and need not be told.
    is_queued: bool,
}

/// Begins an attempt with its first stage.
pub(crate) fn begin<C: Connector>(
    tie: Arc<Tie>,
    home: Arc<Home<C>>,
    token: Token,
    deadline: Deadline,
) {
    let start = home.plan.start().clone();
    let attempt = Attempt {
        home: Some(home),
        token,
        deadline: deadline.stamp(),
        tie,
        began: None,
        stages: (Duration::ZERO, Duration::ZERO),
        is_queued: true,
    };
    match start {
        Start::Blocking => attempt.open_on_crew(None),
        Start::Host(name, port) => attempt.resolve(&name, port),
        Start::Addrs(addresses) => attempt.connect(Target::Addresses(addresses)),
        Start::Path(path) => attempt.connect(Target::Path(path)),
    }
}

impl<C: Connector> Attempt<C> {
    /// Goes on with the addresses of the name, at once if they are known.
    fn resolve(mut self, name: &str, port: u16) {
        let Some(home) = &self.home else { return };
        let (tie, home, token) = (Arc::clone(&self.tie), Arc::clone(home), self.token);
        if let Some(outcome) = tie.names().find(name, &tie.look_ups) {
            self.resolved(outcome, port);
        } else if home.shared.await_name(token) {
            self.began = Some(clock::mono());
            let (key, waiting) = ((tie.pool, token), move |outcome| self.resolved(outcome, port));
            tie.names().ask(name, key, Box::new(waiting), &tie.look_ups);
            // Its deadline, or the pool's end, may have come before it was there to be withdrawn.
            if !home.shared.is_under_way(token) {
                tie.names().withdraw(key, &tie.look_ups);
            }
        } else {
            self.forget(); // the pool was closed
        }
        tie.crew.let_go(home, tie.pool);
    }

    fn resolved(mut self, outcome: resolver::Outcome, port: u16) {
        if let Some(home) = &self.home {
            home.shared.note_phase(self.token, Phase::Queue); // until the loop takes it up
        }
        self.stages.0 = self.took();
        match outcome {
            Ok(addresses) => {
                let with_port = |address: &SocketAddr| match address.port() {
                    0 => SocketAddr::new(address.ip(), port),
                    _ => *address,
                };
                self.connect(Target::Addresses(addresses.iter().map(with_port).collect()));
            }
            Err(cause) => {
                if self.take_up(Phase::Resolve) {
                    let (error, of) = (Arc::clone(&cause.error), cause.is_local_or_shortage());
                    let failure = ConnectFailure::unresolved(error, of, self.took());
                    self.end(Err(Arc::new(failure)));
                }
                self.tie.crew.let_go(cause, self.tie.pool);
            }
        }
    }

    /// Has the event loop connect a socket.
    fn connect(self, target: Target) {
        let Some(home) = &self.home else { return };
        let options = home.plan.socket_options().clone();
        let (key, deadline) = ((self.tie.pool, self.token), self.deadline);
        let tie = Arc::clone(&self.tie);
        let delivery = Box::new(self);
        tie.order(Order { key, target, options, deadline, delivery });
    }

    fn open_on_crew(self, socket: Option<Socket>) {
        self.on_crew(move |mut attempt| {
            if attempt.take_up(Phase::Open) {
                attempt.open(socket);
            }
        });
    }

    fn on_crew(self, stage: impl FnOnce(Self) + Send + 'static) {
        let Some(home) = &self.home else { return };
        let (kind, token) = (Kind::Open(home.place), self.token);
        let (tie, home) = (Arc::clone(&self.tie), Arc::clone(home));
        let mark = tie.submit_attempt(token, kind, move |fate| match fate {
            Fate::Run => stage(self),
            Fate::Refused => drop(self),
        });
        tie.withdraw_if_late(home, token, kind, &mark);
    }

    /// A thread has the attempt now, for this phase; false if it need not go on.
    fn take_up(&mut self, phase: Phase) -> bool {
        let Some(home) = &self.home else { return false };
        let goes_on = if self.is_queued {
            home.shared.start_attempt(self.token, phase)
        } else {
            home.shared.advance_attempt(self.token, phase)
        };
        if goes_on {
            self.is_queued = false;
            self.began.get_or_insert_with(clock::mono);
            return true;
        }
        if self.is_queued {
            self.forget(); // its deadline passed in the queue, or the pool was closed
        } else {
            self.came_too_late(phase);
        }
        false
    }

    /// None of its addresses has led anywhere: if that is so of a name, perhaps it has others by
    /// now.
    fn fail_to_connect(&mut self, failure: Failure, phase: Phase, cause: BoxError) {
        let Some(home) = self.home.as_ref().map(Arc::clone) else { return };
        let says_something = self.fail(failure, phase, cause) && failure != Failure::Local;
        if let (Start::Host(name, _), true) = (home.plan.start(), says_something) {
            self.tie.names().doubt(name, &self.tie.look_ups);
        }
        self.tie.crew.let_go(home, self.tie.pool);
    }

    /// The crew's last stage, on its thread.
    fn open(mut self, socket: Option<Socket>) {
        let Some(home) = &self.home else { return };
        let result = guarded(|| self.run_open(home, socket));
        home.shared.unshield(self.token);
        match result {
            Ok(Ok(conn)) => self.succeed(conn),
            Ok(Err(failure)) => _ = self.end(Err(failure)),
            Err(panic) => self.panicked(&panic),
        }
    }

    fn run_open(
        &self,
        home: &Arc<Home<C>>,
        mut socket: Option<Socket>,
    ) -> Result<C::Conn, Arc<ConnectFailure>> {
        let shared = &home.shared;
        let deadline = Deadline::at(self.deadline);
        if let Some(socket) = &mut socket {
            let duplicate = socket.limit_to(deadline).and_then(|()| socket.duplicate());
            let duplicate = duplicate.map_err(|error| self.failure(Phase::Open, error.into()))?;
            if !shared.shield(self.token, Phase::Open, duplicate) {
                return Err(Arc::new(ConnectFailure::timed_out(Phase::Open, self.took())));
            }
        }
        let is_wanted = Box::new({
            let (home, token) = (Arc::clone(home), self.token);
            move || home.shared.is_wanted(token)
        });
        let mut opening = Opening::new(socket, deadline, self.stages, is_wanted);
        let opened = shared.connector.open(&home.key, &mut opening);
        let mut conn = opened.map_err(|error| self.failure(Phase::Open, error))?;
        let options = home.plan.socket_options();
        let socket = shared.connector.socket(&mut conn);
        if let Some(Err(error)) = socket.map(|socket| socket.unlimit(options)) {
            shared.connector.close(conn, CloseReason::Failed);
            return Err(self.failure(Phase::Open, error.into()));
        }
        Ok(conn)
    }

    /// A plain socket is a connection as it stands.
    fn open_plain(mut self, socket: Socket) {
        let Some(home) = &self.home else { return };
        let is_wanted = Box::new(|| true);
        let deadline = Deadline::at(self.deadline);
        let mut opening = Opening::new(Some(socket), deadline, self.stages, is_wanted);
        match home.shared.connector.open(&home.key, &mut opening) {
            Ok(conn) => self.succeed(conn),
            Err(error) => {
                let failure = self.failure(Phase::Open, error);
                self.end(Err(failure));
            }
        }
    }

    fn succeed(mut self, conn: C::Conn) {
        let Some(home) = &self.home else { return };
        let mut held = Held::new(conn);
        // Before anybody can reach it.
        if let Err(panic) = home.shared.watch(self.token, &mut held) {
            let closed =
                guarded(|| home.shared.connector.close(held.conn, CloseReason::ConnectorPanicked));
            if let Err(panic) = closed {
                home.note_panic("a connector panicked while it closed a connection", &panic);
            }
            self.panicked(&panic);
            return;
        }
        home.shared.note_connected(home, self.token, self.took());
        self.end(Ok(held));
    }

    fn panicked(mut self, panic: &str) {
        let cause = format!("the connector panicked: {panic}");
        self.fail(Failure::Panic, Phase::Open, cause.into());
    }

    /// Its deadline has passed, it was called off or the pool was closed: it need not go on.
    fn came_too_late(&mut self, phase: Phase) {
        let failure = ConnectFailure::timed_out(phase, self.took());
        self.end(Err(Arc::new(failure)));
    }

    /// False if that says nothing about the peer.
    fn fail(&mut self, failure: Failure, phase: Phase, cause: BoxError) -> bool {
        let took = self.took();
        self.end(Err(Arc::new(ConnectFailure::new(failure, phase, took, cause))))
    }

    fn failure(&self, phase: Phase, cause: BoxError) -> Arc<ConnectFailure> {
        let failure = Failure::of(&*cause);
        Arc::new(ConnectFailure::new(failure, phase, self.took(), cause))
    }

    fn took(&self) -> Duration {
        self.began.map_or(Duration::ZERO, |began| clock::mono().since(began))
    }

    /// The end of it; false if that says nothing about the peer.
    fn end(&mut self, result: Result<Boxed<C>, Arc<ConnectFailure>>) -> bool {
        let Some(home) = self.home.take() else { return false };
        let says_something = home.shared.finish_connect(&home, self.token, result);
        self.tie.crew.let_go(home, self.tie.pool);
        says_something
    }

    /// The core does not know it any more.
    fn forget(&mut self) {
        if let Some(home) = self.home.take() {
            self.tie.crew.let_go(home, self.tie.pool);
        }
    }
}

impl<C: Connector> Delivery for Attempt<C> {
    fn begin(&mut self) -> bool {
        self.take_up(Phase::Connect)
    }

    fn deliver(mut self: Box<Self>, outcome: Outcome) {
        let Some(home) = &self.home else { return };
        self.stages.1 = self.took().saturating_sub(self.stages.0);
        match outcome {
            Outcome::Connected(socket) if home.shared.is_plain => self.open_plain(socket),
            Outcome::Connected(socket) => {
                if home.shared.requeue_attempt(self.token) {
                    self.is_queued = true;
                    self.open_on_crew(Some(socket));
                } else {
                    drop(socket); // before the pool may be taken for drained
                    self.came_too_late(Phase::Connect);
                }
            }
            Outcome::Failed(error) => {
                let is_absent = error.kind() == io::ErrorKind::NotFound;
                let (failure, phase) = match home.plan.start() {
                    Start::Path(_) if is_absent => (Failure::Unreachable, Phase::Connect),
                    // A name without addresses.
                    Start::Host(..) if is_absent => (Failure::Dns, Phase::Resolve),
                    _ => (Failure::of(&error), Phase::Connect),
                };
                self.fail_to_connect(failure, phase, error.into());
            }
            Outcome::TooLate(words) => {
                self.fail_to_connect(Failure::Timeout, Phase::Connect, words.into());
            }
        }
    }
}

impl<C: Connector> Drop for Attempt<C> {
    fn drop(&mut self) {
        let Some(home) = &self.home else { return };
        if self.is_queued {
            home.shared.refuse_connect(home, self.token);
            self.forget();
        } else {
            self.end(Err(Arc::new(ConnectFailure::dropped(self.took()))));
        }
    }
}
