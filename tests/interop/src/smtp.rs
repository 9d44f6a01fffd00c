//! SMTP: lettre's connections.

use std::time::Duration;

use ::lettre::address::Envelope;
use ::lettre::transport::smtp::Error;
use ::lettre::transport::smtp::authentication::{Credentials, DEFAULT_MECHANISMS};
use ::lettre::transport::smtp::client::SmtpConnection;
use ::lettre::transport::smtp::commands::{Noop, Quit, Rset};
use ::lettre::transport::smtp::extension::ClientId;
use ::lettre::transport::smtp::response::Response;
use warmline::crossbeam_channel::bounded;
use warmline::{Address, BoxError, CloseReason, Connector, Deadline, Look, Opening, Reset};

/// Connects to mail servers, and logs in if it was told how.
///
/// All that is sent and received, the password as well, can be read on the way: this is for
/// networks that you trust. Elsewhere hand `TlsParameters` to lettre where this connects; it has
/// features for that.
///
/// lettre connects by itself and shows neither its socket nor its number: nothing can be watched.
/// That a server has said farewell is found by the check, so let it be made early: a
/// [`check_after`](warmline::Builder::check_after) of less than half a second costs little where
/// mail is sent, and a server hangs up on what is idle for minutes.
pub struct Smtp {
    login: Option<Credentials>,
    timeout: Duration,
}

impl Smtp {
    pub fn new() -> Self {
        Self { login: None, timeout: Duration::from_secs(60) }
    }

    pub fn login(mut self, user: &str, password: &str) -> Self {
        self.login = Some(Credentials::new(user.to_owned(), password.to_owned()));
        self
    }

    /// How long one read or write of a user may block.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }
}

impl Default for Smtp {
    fn default() -> Self {
        Self::new()
    }
}

impl Connector for Smtp {
    type Key = Address;
    type Conn = Mailer;

    fn open(&self, key: &Address, opening: &mut Opening) -> Result<Mailer, BoxError> {
        let (hello, left) = (ClientId::default(), Some(left(opening.deadline())));
        let mut conn = match (key.ip(), key.host()) {
            (Some(ip), _) => SmtpConnection::connect(ip, left, &hello, None, None)?,
            (None, host) => {
                let server = (host.unwrap_or_default(), key.port());
                SmtpConnection::connect(server, left, &hello, None, None)?
            }
        };
        if let Some(login) = &self.login {
            conn.set_timeout(Some(self::left(opening.deadline())))?;
            conn.auth(DEFAULT_MECHANISMS, login)?;
        }
        conn.set_timeout(Some(self.timeout))?;
        Ok(Mailer { conn, is_midway: false })
    }

    fn is_open(&self, mailer: &mut Mailer, _: Look) -> bool {
        !mailer.conn.has_broken()
    }

    fn reset(&self, mailer: &mut Mailer) -> Reset {
        if mailer.is_midway { Reset::Later } else { Reset::Ready }
    }

    /// In the middle of a message's text the server takes RSET for more of it, and does not answer:
    /// the connection is closed, and the message is not sent.
    fn settle(&self, mailer: &mut Mailer, deadline: Deadline) -> Result<(), BoxError> {
        mailer.conn.set_timeout(Some(left(deadline)))?;
        mailer.conn.command(Rset)?;
        mailer.conn.set_timeout(Some(self.timeout))?;
        mailer.is_midway = false;
        Ok(())
    }

    fn has_check(&self) -> bool {
        true
    }

    fn check(&self, mailer: &mut Mailer, deadline: Deadline) -> Result<(), BoxError> {
        mailer.conn.set_timeout(Some(left(deadline)))?;
        // As `test_connected` does; but this says why not.
        mailer.conn.command(Noop)?;
        Ok(mailer.conn.set_timeout(Some(self.timeout))?)
    }

    /// lettre bounds each read, but not how many of them there are: a server that says a byte now
    /// and then would hold up whoever waits for its farewell. So that is awaited by a thread of its
    /// own, and here no longer than it should take.
    fn close(&self, mut mailer: Mailer, reason: CloseReason) {
        use CloseReason::{CheckFailed, NotOpen, Panicked, ResetRefused};
        if matches!(reason, CheckFailed | NotOpen | Panicked | ResetRefused) {
            return;
        }
        let longest = Duration::from_millis(200);
        let (done, ended) = bounded::<()>(0);
        std::thread::spawn(move || {
            let _bounded = mailer.conn.set_timeout(Some(longest));
            // Not by `quit`, which says it again if that is not answered.
            let _farewell = mailer.conn.command(Quit);
            drop((mailer, done));
        });
        let _over = ended.recv_timeout(longest);
    }
}

/// Zero would be refused, or stand for "for ever".
fn left(deadline: Deadline) -> Duration {
    deadline.remaining().max(Duration::from_millis(1))
}

/// A connection between two messages.
pub struct Mailer {
    conn: SmtpConnection,
    is_midway: bool,
}

impl Mailer {
    /// Sends one message. If that fails, lettre ends the connection.
    pub fn send(&mut self, envelope: &Envelope, message: &[u8]) -> Result<Response, Error> {
        self.conn.send(envelope, message)
    }

    /// For commands one by one. How far they have come is not known: when it comes back, the
    /// connection is reset.
    pub fn commands(&mut self) -> &mut SmtpConnection {
        self.is_midway = true;
        &mut self.conn
    }
}
