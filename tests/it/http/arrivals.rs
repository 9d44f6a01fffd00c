//! What has come to the client's side of a connection, though nobody there has read it.

use super::support::Server;
use crate::support::eventually;

/// Returns once the client's system knows that the server has hung up.
pub(super) fn await_farewell(server: &Server) {
    const CLOSE_WAIT: &str = "08";
    eventually("the farewell arrives", || {
        any_to(server, |fields| fields.get(3).is_some_and(|state| *state == CLOSE_WAIT))
    });
}

/// Returns once bytes are there that nobody has read.
pub(super) fn await_bytes(server: &Server) {
    let is_some = |queues: &&str| !queues.ends_with(":00000000");
    eventually("bytes come", || any_to(server, |fields| fields.get(4).is_some_and(is_some)));
}

/// Where the system does not tell, it has to be believed.
fn any_to(server: &Server, is_fit: impl Fn(&[&str]) -> bool) -> bool {
    let port = format!(":{:04X}", server.port());
    let Ok(table) = std::fs::read_to_string("/proc/net/tcp") else { return true };
    table.lines().any(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        fields.get(2).is_some_and(|remote| remote.ends_with(&port)) && is_fit(&fields)
    })
}
