//! SSH: ssh2's sessions, for commands on a far machine.

use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use ::ssh2::{CheckResult, Error, KnownHostFileKind, Session};
use warmline::{
    Address, BoxError, CloseReason, Connector, Deadline, Opening, Plan, Reset, TcpConnector, Watch,
};

/// Opens sessions as one user, with one key.
///
/// Of a session, ssh2 shows the number of its descriptor: it is watched while it is idle
/// ([`Watch::Raw`]). A server that is gone is noticed at once. So is one that says anything to
/// whoever is idle: `ClientAliveInterval` of OpenSSH does, and then the session ends, as nobody is
/// there to answer. Keep [`idle_timeout`](warmline::Builder::idle_timeout) below that.
///
/// A session can be cloned, and a channel keeps one: neither is to outlive the guard.
pub struct Ssh {
    user: String,
    key: PathBuf,
    known_hosts: PathBuf,
    timeout: Duration,
}

impl Ssh {
    /// With the private key in one file, and the keys of those who may be connected to in another.
    pub fn new(
        user: impl Into<String>,
        key: impl Into<PathBuf>,
        known_hosts: impl Into<PathBuf>,
    ) -> Self {
        let timeout = Duration::from_secs(30);
        Self { user: user.into(), key: key.into(), known_hosts: known_hosts.into(), timeout }
    }

    /// How long one call of a user may block.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    fn verify(&self, session: &Session, key: &Address) -> Result<(), BoxError> {
        let mut known = session.known_hosts()?;
        known.read_file(&self.known_hosts, KnownHostFileKind::OpenSSH)?;
        let (host_key, _) = session.host_key().ok_or("the server has shown no key")?;
        let ip = key.ip().map(|address| address.ip().to_string());
        let host = ip.as_deref().or(key.host()).unwrap_or_default();
        match known.check_port(host, key.port(), host_key) {
            CheckResult::Match => Ok(()),
            CheckResult::Mismatch => Err("the server's key is another than the known one".into()),
            CheckResult::NotFound => Err("the server's key is not known".into()),
            CheckResult::Failure => Err("the server's key could not be looked up".into()),
        }
    }
}

impl Connector for Ssh {
    type Key = Address;
    type Conn = Session;

    fn plan(&self, key: &Address) -> Plan {
        TcpConnector::new().plan(key)
    }

    fn open(&self, key: &Address, opening: &mut Opening) -> Result<Session, BoxError> {
        let mut session = Session::new()?;
        session.set_tcp_stream(OwnedFd::from(opening.take_socket()?));
        limit(&session, opening.deadline().remaining());
        session.handshake().map_err(explain)?;
        self.verify(&session, key)?;
        limit(&session, opening.deadline().remaining());
        session.userauth_pubkey_file(&self.user, None, &self.key, None).map_err(explain)?;
        limit(&session, self.timeout);
        Ok(session)
    }

    fn watch<'c>(&self, session: &'c Session) -> Watch<'c> {
        Watch::Raw(session.as_raw_fd())
    }

    fn reset(&self, session: &mut Session) -> Reset {
        // Its user may have changed both.
        session.set_blocking(true);
        limit(session, self.timeout);
        Reset::Ready
    }

    fn has_check(&self) -> bool {
        true
    }

    /// Opens a channel and closes it. A keepalive is no proof: ssh2 does not wait for its answer,
    /// which would end the session when it came, as bytes that nobody has asked for.
    fn check(&self, session: &mut Session, deadline: Deadline) -> Result<(), BoxError> {
        limit(session, deadline.remaining());
        let mut channel = session.channel_session().map_err(explain)?;
        channel.close().map_err(explain)?;
        channel.wait_close().map_err(explain)?;
        limit(session, self.timeout);
        Ok(())
    }

    fn close(&self, session: Session, reason: CloseReason) {
        use CloseReason::{CheckFailed, Failed, Panicked, PeerClosed};
        let soon = Deadline::after(Duration::from_millis(200));
        limit(&session, soon.remaining());
        if !matches!(reason, CheckFailed | Failed | Panicked | PeerClosed) {
            let _farewell = session.disconnect(None, "idle", None);
        }
        // To drop it may block as well, where a channel is left: it tells the server.
        limit(&session, soon.remaining());
    }
}

/// Runs a command to its end and returns what it has written. The channel is closed on both sides
/// by then: what it would still say on an idle session ends that.
pub fn run(session: &Session, command: &str) -> io::Result<String> {
    let mut channel = session.channel_session()?;
    channel.exec(command)?;
    let mut output = String::new();
    channel.read_to_string(&mut output)?;
    channel.close()?;
    channel.wait_close()?;
    match channel.exit_status()? {
        0 => Ok(output),
        status => Err(io::Error::other(format!("it ended with status {status}"))),
    }
}

/// Bounds every call that blocks. Zero would stand for "for ever".
fn limit(session: &Session, timeout: Duration) {
    session.set_timeout(u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX).max(1));
}

/// Time-outs have a kind as an [`io::Error`].
fn explain(error: Error) -> BoxError {
    io::Error::from(error).into()
}
