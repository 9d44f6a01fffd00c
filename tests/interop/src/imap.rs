//! IMAP: the `imap` crate's sessions, logged in and with no mailbox selected.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ::imap::types::Mailbox;
use ::imap::{Client, Session};
use warmline::{
    Address, BoxError, CloseReason, Connector, Deadline, Heartbeat, Look, Opening, Plan, Pulse,
    Reset, TcpConnector, Watch,
};

/// Logs in to IMAP servers, everywhere as the same user.
///
/// All that is sent and received, the password as well, can be read on the way: this is for
/// networks that you trust. Elsewhere let a TLS client of your own wrap the [`Stream`], in `open`.
pub struct Imap {
    user: String,
    password: String,
    timeout: Duration,
}

impl Imap {
    pub fn new(user: impl Into<String>, password: impl Into<String>) -> Self {
        let timeout = Duration::from_secs(30);
        Self { user: user.into(), password: password.into(), timeout }
    }

    /// How long one read or write of a user may block.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }
}

impl Connector for Imap {
    type Key = Address;
    type Conn = Mail;

    fn plan(&self, key: &Address) -> Plan {
        TcpConnector::new().plan(key)
    }

    fn open(&self, _: &Address, opening: &mut Opening) -> Result<Mail, BoxError> {
        let wire = Arc::new(Wire {
            stream: OwnedFd::from(opening.take_socket()?).into(),
            has_failed: AtomicBool::new(false),
            is_unanswered: AtomicBool::new(false),
        });
        let mut client = Client::new(Stream(Arc::clone(&wire)));
        let greeting = client.read_greeting().map_err(|error| wire.explain(error))?;
        if !greeting.starts_with(b"* OK") {
            let said = String::from_utf8_lossy(&greeting);
            return Err(format!("no IMAP greeting, but {:?}", said.trim_end()).into());
        }
        let login = client.login(&self.user, &self.password);
        let session = login.map_err(|(error, _client)| wire.explain(error))?;
        wire.limit_to(self.timeout)?;
        Ok(Mail { session, wire, is_selected: false })
    }

    fn watch<'c>(&self, conn: &'c Mail) -> Watch<'c> {
        Watch::Socket(conn.wire.stream.as_fd())
    }

    fn is_open(&self, conn: &mut Mail, _: Look) -> bool {
        let wire = &conn.wire;
        !wire.has_failed.load(Ordering::Relaxed) && !wire.is_unanswered.load(Ordering::Relaxed)
    }

    fn reset(&self, conn: &mut Mail) -> Reset {
        conn.forget();
        if conn.is_selected { Reset::Later } else { Reset::Ready }
    }

    /// Leaves the mailbox by UNSELECT (RFC 3691), and closes the connection where the server does
    /// not know that. CLOSE, which all know, would delete for good what its user marked.
    fn settle(&self, conn: &mut Mail, deadline: Deadline) -> Result<(), BoxError> {
        self.within(conn, deadline, |session| session.run_command_and_check_ok("UNSELECT"))?;
        conn.is_selected = false;
        Ok(())
    }

    fn has_check(&self) -> bool {
        true
    }

    fn check(&self, conn: &mut Mail, deadline: Deadline) -> Result<(), BoxError> {
        self.within(conn, deadline, Session::noop)
    }

    fn heartbeat(&self, _: &Address) -> Option<Box<dyn Heartbeat>> {
        Some(Box::new(Noop))
    }

    fn close(&self, conn: Mail, reason: CloseReason) {
        use CloseReason::{CheckFailed, Failed, NotOpen, Panicked, PeerClosed};
        if !matches!(reason, CheckFailed | Failed | NotOpen | Panicked | PeerClosed) {
            let _farewell = conn.wire.say_farewell(Deadline::after(Duration::from_millis(200)));
        }
    }
}

impl Imap {
    /// The pool does not see this socket: reads and writes are bounded here.
    fn within<T>(
        &self,
        conn: &mut Mail,
        deadline: Deadline,
        exchange: impl FnOnce(&mut Session<Stream>) -> ::imap::error::Result<T>,
    ) -> Result<(), BoxError> {
        conn.wire.limit_to(deadline.remaining())?;
        exchange(&mut conn.session).map_err(|error| conn.wire.explain(error))?;
        conn.forget();
        Ok(conn.wire.limit_to(self.timeout)?)
    }
}

/// A session that knows whether a mailbox is selected: as long as it is done by [`select`] and
/// [`examine`], and not by a command written out by hand.
///
/// [`select`]: Mail::select
/// [`examine`]: Mail::examine
pub struct Mail {
    session: Session<Stream>,
    wire: Arc<Wire>,
    is_selected: bool,
}

impl Mail {
    /// What the server has told of its own accord is not for whoever comes next.
    fn forget(&self) {
        while self.session.unsolicited_responses.try_recv().is_ok() {}
    }

    pub fn select(&mut self, mailbox: &str) -> ::imap::error::Result<Mailbox> {
        self.is_selected = true;
        self.session.select(mailbox)
    }

    /// Selects it for reading only.
    pub fn examine(&mut self, mailbox: &str) -> ::imap::error::Result<Mailbox> {
        self.is_selected = true;
        self.session.examine(mailbox)
    }
}

impl Deref for Mail {
    type Target = Session<Stream>;

    fn deref(&self) -> &Self::Target {
        &self.session
    }
}

impl DerefMut for Mail {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.session
    }
}

/// What a session reads and writes.
///
/// A session never shows the stream it was given. So it is given half a share of it: the other half
/// shows the pool what to watch, and tells whether an answer may still come. That costs no lock and
/// no second descriptor, as a `&TcpStream` reads and writes. With the pool's own `Socket`, which
/// wants to be borrowed mutably, it would take both; but that does by itself what `Wire` does.
pub struct Stream(Arc<Wire>);

struct Wire {
    stream: TcpStream,
    /// A read or write has failed, or met the end: whose answer comes next is not known any more.
    has_failed: AtomicBool,
    /// Something was written after the last read.
    is_unanswered: AtomicBool,
}

impl Wire {
    fn limit_to(&self, timeout: Duration) -> io::Result<()> {
        let timeout = timeout.max(Duration::from_millis(1)); // zero is refused
        self.stream.set_read_timeout(Some(timeout))?;
        self.stream.set_write_timeout(Some(timeout))
    }

    /// Says LOGOUT and hears the server out, which hangs up then. Not as the session does: that
    /// would wait for a server that says a byte now and then.
    fn say_farewell(&self, deadline: Deadline) -> io::Result<()> {
        self.limit_to(deadline.remaining())?;
        (&self.stream).write_all(b"warm LOGOUT\r\n")?;
        while !deadline.has_passed() && (&self.stream).read(&mut [0; 512])? > 0 {
            self.limit_to(deadline.remaining())?;
        }
        Ok(())
    }

    fn note(&self, result: io::Result<usize>, is_write: bool) -> io::Result<usize> {
        self.is_unanswered.store(is_write, Ordering::Relaxed);
        if !matches!(result, Ok(1..)) {
            self.has_failed.store(true, Ordering::Relaxed);
        }
        result
    }

    /// A time-out reads "Resource temporarily unavailable" otherwise.
    fn explain(&self, error: ::imap::Error) -> BoxError {
        match error {
            ::imap::Error::Io(error) if error.kind() == io::ErrorKind::WouldBlock => {
                io::Error::new(io::ErrorKind::TimedOut, "the IMAP server does not answer").into()
            }
            error => error.into(),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.note((&self.0.stream).read(buf), false)
    }
}

impl Write for Stream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.note((&self.0.stream).write(buf), true)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// NOOP, under a tag that the session never uses. What the server has to say of its own accord
/// comes before the answer.
struct Noop;

impl Heartbeat for Noop {
    fn ping(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"warm NOOP\r\n");
    }

    fn pong(&mut self, received: &[u8]) -> Pulse {
        let mut rest = received;
        while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
            let (line, after) = rest.split_at(end + 1);
            rest = after;
            if line.starts_with(b"warm OK") && rest.is_empty() {
                return Pulse::Alive;
            }
            if !line.starts_with(b"* ") || line.starts_with(b"* BYE") {
                return Pulse::Dead;
            }
        }
        Pulse::More
    }
}
