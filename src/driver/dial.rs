//! Opening, checking and settling connections, on a thread of the crew.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use crate::clock::{self, Deadline, Stamp};
use crate::connector::{Connector, Judgement, Opening, Socket, SocketOptions, Start, Watch};
use crate::core::{Token, Upkeep};
use crate::error::{BoxError, ConnectFailure, Failure, Phase};
use crate::observe::CloseReason;
use crate::shared::{Boxed, Held, Home, guarded};
use crate::sync::Arc;

/// One attempt to connect, from the name to the finished connection.
struct Attempt<'a, C: Connector> {
    home: &'a Arc<Home<C>>,
    token: Token,
    deadline: Deadline,
    began: Stamp,
}

/// Opens a connection and delivers it, or why it could not be opened.
pub(crate) fn open<C: Connector>(home: &Arc<Home<C>>, token: Token, deadline: Deadline) {
    let phase = match home.plan.start() {
        Start::Blocking => Phase::Open,
        Start::Host(..) => Phase::Resolve,
        Start::Addrs(_) | Start::Path(_) => Phase::Connect,
    };
    if !home.shared.start_attempt(token, phase) {
        return; // its deadline passed in the queue, or the pool was closed
    }
    let attempt = Attempt { home, token, deadline, began: clock::mono() };
    let result = guarded(|| attempt.run(phase)).unwrap_or_else(|panic| {
        let cause = format!("the connector panicked: {panic}");
        Err(attempt.failure(Failure::Panic, Phase::Open, cause.into()))
    });
    let result = result.map(Held::new);
    home.shared.unshield(token);
    if result.is_ok() {
        home.shared.note_connected(home, clock::mono().since(attempt.began));
    }
    home.shared.finish_connect(home, token, result);
}

impl<C: Connector> Attempt<'_, C> {
    fn run(&self, first: Phase) -> Result<C::Conn, Arc<ConnectFailure>> {
        let socket = self.connect(first)?;
        let shared = &self.home.shared;
        if !shared.is_plain {
            if let Some(socket) = &socket {
                let duplicate = socket.limit_to(self.deadline).and_then(|()| socket.duplicate());
                let duplicate = duplicate.map_err(|error| self.failed(Phase::Open, error))?;
                if !shared.shield(self.token, Phase::Open, duplicate) {
                    return Err(self.called_off(Phase::Open));
                }
            }
        }
        let is_wanted = Box::new({
            let (home, token) = (Arc::clone(self.home), self.token);
            move || home.shared.is_wanted(home.place, token)
        });
        let mut opening = Opening::new(socket, self.deadline, is_wanted);
        let opened = shared.connector.open(&self.home.key, &mut opening);
        let mut conn = opened.map_err(|error| self.failed(Phase::Open, error))?;
        if !shared.is_plain {
            let options = self.home.plan.socket_options();
            let socket = shared.connector.socket(&mut conn);
            if let Some(Err(error)) = socket.map(|socket| socket.unlimit(options)) {
                shared.connector.close(conn, CloseReason::Failed);
                return Err(self.failed(Phase::Open, error));
            }
        }
        Ok(conn)
    }

    /// The deadline has passed, or the pool was closed: it need not go on.
    fn called_off(&self, phase: Phase) -> Arc<ConnectFailure> {
        let took = clock::mono().since(self.began);
        Arc::new(ConnectFailure::timed_out(phase, took))
    }

    /// The socket that the plan asks for.
    fn connect(&self, first: Phase) -> Result<Option<Socket>, Arc<ConnectFailure>> {
        let options = self.home.plan.socket_options();
        match self.home.plan.start() {
            Start::Blocking => Ok(None),
            Start::Addrs(addrs) => self.connect_to(addrs, options).map(Some),
            Start::Path(path) => {
                let left = self.deadline.remaining().max(Duration::from_millis(1));
                let socket = Socket::connect_unix(path, options, left);
                socket.map(Some).map_err(|error| match error.kind() {
                    io::ErrorKind::NotFound => {
                        self.failure(Failure::Unreachable, first, error.into())
                    }
                    _ => self.failed(first, error),
                })
            }
            Start::Host(name, port) => {
                let addrs = (&**name, *port).to_socket_addrs();
                let addrs: Vec<SocketAddr> = addrs
                    .map_err(|error| self.failure(Failure::Dns, first, error.into()))?
                    .collect();
                if !self.home.shared.advance_attempt(self.token, Phase::Connect) {
                    return Err(self.called_off(Phase::Resolve));
                }
                self.connect_to(&addrs, options).map(Some)
            }
        }
    }

    /// Tries addresses in order; each gets its share of the time that is left.
    fn connect_to(
        &self,
        addrs: &[SocketAddr],
        options: &SocketOptions,
    ) -> Result<Socket, Arc<ConnectFailure>> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for (tried, &addr) in addrs.iter().enumerate() {
            let shares = u32::try_from(addrs.len() - tried).unwrap_or(u32::MAX);
            let share = self.deadline.remaining() / shares;
            match Socket::connect_tcp(addr, options, share.max(Duration::from_millis(1))) {
                Ok(socket) => return Ok(socket),
                Err(error) => last = error,
            }
        }
        let phase = if addrs.is_empty() { Phase::Resolve } else { Phase::Connect };
        Err(self.failed(phase, last))
    }

    fn failed(&self, phase: Phase, error: impl Into<BoxError>) -> Arc<ConnectFailure> {
        let cause = error.into();
        let failure = match Failure::of(&*cause) {
            Failure::Other if phase == Phase::Resolve => Failure::Dns,
            failure => failure,
        };
        self.failure(failure, phase, cause)
    }

    fn failure(&self, failure: Failure, phase: Phase, cause: BoxError) -> Arc<ConnectFailure> {
        let took = clock::mono().since(self.began);
        Arc::new(ConnectFailure { failure, phase, took, cause })
    }
}

/// Checks or settles a connection and gives it back with the verdict.
pub(crate) fn upkeep<C: Connector>(
    home: &Arc<Home<C>>,
    token: Token,
    conn: Boxed<C>,
    upkeep: Upkeep,
    deadline: Deadline,
) {
    let shared = &home.shared;
    if !shared.start_attempt(token, Phase::Check) {
        shared.finish_upkeep(home, token, Some(conn), Err(CloseReason::TooLate));
        return;
    }
    let refused = match upkeep {
        Upkeep::Check => CloseReason::CheckFailed,
        Upkeep::Settle => CloseReason::ResetRefused,
    };
    let mut conn = conn;
    let result = guarded(|| {
        limit(home, token, &mut conn.conn, deadline)?;
        match upkeep {
            Upkeep::Check => shared.connector.check(&mut conn.conn, deadline)?,
            Upkeep::Settle => shared.connector.settle(&mut conn.conn, deadline)?,
        }
        let options = home.plan.socket_options();
        let socket = shared.connector.socket(&mut conn.conn);
        Ok::<_, BoxError>(socket.map(|socket| socket.judge_limited(options)))
    });
    shared.unshield(token);
    let verdict = match result {
        Ok(Ok(Some(Judgement::Close(reason)))) => Err(reason),
        Ok(Ok(Some(Judgement::Clean) | None)) => Ok(()),
        Ok(Err(error)) => {
            let told = guarded(move || {
                log::debug!("{home}: {refused}: {error}");
                drop(error);
            });
            told.map_or(Err(CloseReason::ConnectorPanicked), |()| Err(refused))
        }
        Err(panic) => {
            log::error!("{home}: a connector panicked: {panic}");
            Err(CloseReason::ConnectorPanicked)
        }
    };
    shared.finish_upkeep(home, token, Some(conn), verdict);
}

/// Bounds what a check or a settling may block, through the socket if there is one to see.
fn limit<C: Connector>(
    home: &Home<C>,
    token: Token,
    conn: &mut C::Conn,
    deadline: Deadline,
) -> io::Result<()> {
    let shared = &home.shared;
    let duplicate = if let Some(socket) = shared.connector.socket(conn) {
        socket.limit_to(deadline)?;
        Some(socket.duplicate()?)
    } else if let Watch::Socket(fd) = shared.connector.watch(conn) {
        Some(fd.try_clone_to_owned()?)
    } else {
        None
    };
    let Some(duplicate) = duplicate else { return Ok(()) };
    if shared.shield(token, Phase::Check, duplicate) {
        return Ok(());
    }
    Err(io::ErrorKind::TimedOut.into())
}
