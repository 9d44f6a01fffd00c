//! WebSockets: tungstenite on the pool's own socket.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, Read, Write};
use std::str::FromStr;
use std::time::Duration;

use ::tungstenite::client::IntoClientRequest;
use ::tungstenite::http::Uri;
use ::tungstenite::http::header::{AUTHORIZATION, HeaderValue};
use ::tungstenite::{Error, HandshakeError, Message, WebSocket};
use warmline::{
    Address, Beat, BoxError, CloseReason, Connector, Deadline, Heartbeat, Look, Name, Opening,
    Plan, Reset, Socket, SocketOptions, TcpConnector, Watch,
};

/// Opens WebSockets, for questions and their answers.
///
/// Its users read what belongs to what they sent before they give one back. Where nothing is ever
/// answered, say so: [`one_way`](SocketOptions::one_way).
///
/// All that is sent and received, the token as well, can be read on the way: this is for networks
/// that you trust. Elsewhere let a TLS client of your own wrap the socket in [`Stream`].
#[derive(Default)]
pub struct WebSockets {
    options: SocketOptions,
    token: Option<HeaderValue>,
}

impl WebSockets {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn options(mut self, options: SocketOptions) -> Self {
        self.options = options;
        self
    }

    /// What every handshake authorizes itself with.
    pub fn bearer(mut self, token: &str) -> Result<Self, BoxError> {
        let mut value = HeaderValue::from_str(&format!("Bearer {token}"))?;
        value.set_sensitive(true);
        self.token = Some(value);
        Ok(self)
    }
}

impl Connector for WebSockets {
    type Key = Site;
    type Conn = WebSocket<Stream>;

    fn plan(&self, site: &Site) -> Plan {
        TcpConnector::new().plan(&site.address).options(self.options.clone())
    }

    fn open(&self, site: &Site, opening: &mut Opening) -> Result<Self::Conn, BoxError> {
        let mut request = site.to_string().into_client_request()?;
        if let Some(token) = &self.token {
            request.headers_mut().insert(AUTHORIZATION, token.clone());
        }
        let stream = Stream { socket: opening.take_socket()?, is_dry: false };
        match ::tungstenite::client(request, stream) {
            Ok((conn, _response)) => Ok(conn),
            Err(HandshakeError::Failure(error)) => Err(error.into()),
            // What tungstenite takes for a socket that does not block is one whose time is up.
            Err(HandshakeError::Interrupted(_)) => {
                let why = "no answer to the WebSocket handshake";
                Err(io::Error::new(io::ErrorKind::TimedOut, why).into())
            }
        }
    }

    fn socket<'c>(&self, conn: &'c mut Self::Conn) -> Option<&'c mut Socket> {
        Some(&mut conn.get_mut().socket)
    }

    fn watch<'c>(&self, conn: &'c Self::Conn) -> Watch<'c> {
        conn.get_ref().socket.watch()
    }

    fn is_open(&self, conn: &mut Self::Conn, _: Look) -> bool {
        conn.can_read() && conn.can_write()
    }

    /// The pool knows what has passed through the socket. What is on this side of it, only
    /// tungstenite knows: a message in its buffers would be the next user's.
    fn reset(&self, conn: &mut Self::Conn) -> Reset {
        conn.get_mut().is_dry = true;
        let reset = if is_drained(conn) { Reset::Ready } else { Reset::Close };
        conn.get_mut().is_dry = false;
        reset
    }

    fn has_check(&self) -> bool {
        true
    }

    fn check(&self, conn: &mut Self::Conn, _: Deadline) -> Result<(), BoxError> {
        // The pool has bounded all reads by the deadline, as it knows the socket.
        conn.send(Message::Ping("warm".into()))?;
        loop {
            match conn.read()? {
                Message::Pong(answer) if answer == "warm" => return Ok(()),
                Message::Ping(_) | Message::Pong(_) => {} // answered by the next read
                other => return Err(format!("{} bytes that nobody asked for", other.len()).into()),
            }
        }
    }

    /// A ping and a pong without content are always the same bytes. A client must mask what it
    /// sends: here with zeros, as there is nothing to hide.
    fn heartbeat(&self, _: &Site) -> Option<Box<dyn Heartbeat>> {
        Some(Box::new(Beat::new([0x89, 0x80, 0, 0, 0, 0], [0x8a, 0])))
    }

    fn close(&self, mut conn: Self::Conn, reason: CloseReason) {
        use CloseReason::{CheckFailed, Failed, Panicked, PeerClosed};
        if matches!(reason, CheckFailed | Failed | Panicked | PeerClosed) || !conn.can_write() {
            return; // nobody would hear it, or in the middle of something else
        }
        let _bounded = conn.get_mut().socket.set_write_timeout(Duration::from_millis(200));
        let _farewell = conn.close(None).and_then(|()| conn.flush());
    }
}

/// Nothing is left in the buffers, to be sent or to be read, but what tungstenite does by itself.
/// The beginning of a message it does not show: the rest is still to come, as with any late answer.
fn is_drained(conn: &mut WebSocket<Stream>) -> bool {
    if conn.flush().is_err() {
        return false;
    }
    loop {
        match conn.read() {
            Ok(Message::Ping(_) | Message::Pong(_)) => {} // answered by the next user's first read
            Err(Error::Io(error)) => return error.kind() == io::ErrorKind::WouldBlock,
            Ok(_) | Err(_) => return false,
        }
    }
}

/// The pool's socket, which can be made to look as if nothing came and nothing went.
pub struct Stream {
    socket: Socket,
    is_dry: bool,
}

impl Stream {
    pub fn socket(&mut self) -> &mut Socket {
        &mut self.socket
    }

    fn wet(&mut self) -> io::Result<&mut Socket> {
        if self.is_dry { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(&mut self.socket) }
    }
}

impl Read for Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.wet()?.read(buf)
    }
}

impl Write for Stream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.wet()?.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush()
    }
}

/// Where a WebSocket leads: "ws://host:port/path". WebSockets of one path are interchangeable.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Site {
    address: Address,
    path: Box<str>,
}

impl FromStr for Site {
    type Err = warmline::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refuse = || warmline::Error::config(format!("\"{text}\" is no ws:// address"));
        let uri: Uri = text.parse().map_err(|_| refuse())?;
        let host = uri.host().filter(|_| uri.scheme_str() == Some("ws")).ok_or_else(refuse)?;
        let address = Address::new(host, uri.port_u16().unwrap_or(80))?;
        Ok(Self { address, path: uri.path_and_query().map_or("/", |path| path.as_str()).into() })
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ws://{}{}", self.address, self.path)
    }
}

/// So that a pool takes the text itself, and parses it once.
impl Name<Site> for str {
    fn as_text(&self) -> Option<&str> {
        Some(self)
    }

    fn to_key(&self) -> Result<Cow<'_, Site>, warmline::Error> {
        self.parse().map(Cow::Owned)
    }
}
