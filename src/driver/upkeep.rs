//! Checking and settling connections, on a thread of the crew.

use std::io;

use crate::clock::Deadline;
use crate::connector::{Connector, Judgement, Watch};
use crate::core::{Token, Upkeep};
use crate::error::{BoxError, Causes, Phase};
use crate::observe::CloseReason;
use crate::redact::Redacted;
use crate::shared::{Boxed, Home, guarded, note};
use crate::sync::Arc;

/// Checks or settles a connection and gives it back with the verdict.
pub(crate) fn run<C: Connector>(
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
    let settles = upkeep == Upkeep::Settle;
    let refused = if settles { CloseReason::ResetRefused } else { CloseReason::CheckFailed };
    let mut conn = conn;
    let result = guarded(|| {
        shared.look_away(&mut conn, false)?;
        limit(home, token, &mut conn.conn, deadline)?;
        if settles {
            shared.connector.settle(&mut conn.conn, deadline)?;
        } else {
            shared.connector.check(&mut conn.conn, deadline)?;
        }
        let options = home.plan.socket_options();
        let socket = shared.connector.socket(&mut conn.conn);
        let judgement = socket.map(|socket| socket.judge_limited(options));
        shared.look_back(token, &mut conn)?;
        Ok::<_, BoxError>(judgement)
    });
    shared.unshield(token);
    let verdict = match result {
        Ok(Ok(Some(Judgement::Close(reason)))) => Err(reason),
        Ok(Ok(Some(Judgement::Clean) | None)) => Ok(()),
        Ok(Err(error)) => {
            let told = guarded(move || {
                let why = Redacted(Causes(&*error));
                note!(
                    Debug, &**home, reason:% = refused, error:% = why;
                    "{refused}: {why}"
                );
                drop(error);
            });
            told.map_or(Err(CloseReason::ConnectorPanicked), |()| Err(refused))
        }
        Err(panic) => {
            home.note_panic("a connector panicked", &panic);
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
