//! What idle connections are asked, and must answer.

use std::borrow::Cow;
use std::fmt;

use crate::sync::Arc;

/// A protocol's own PING and PONG, as bytes, without I/O.
///
/// Sent where connections can be [watched](crate#systems): not on Windows. One that was never used
/// and whose server has said something already, a greeting, is not asked.
///
/// One is made for each question. [`Beat`] is ready-made for protocols whose question and answer
/// are always the same; others take a few lines:
///
/// ```
/// use warmline::{Heartbeat, Pool, Pulse, TcpConnector};
///
/// /// Asks for the time; any complete line will do for an answer.
/// #[derive(Clone)]
/// struct Clock;
///
/// impl Heartbeat for Clock {
///     fn ping(&mut self, out: &mut Vec<u8>) {
///         out.extend_from_slice(b"TIME\r\n");
///     }
///     fn pong(&mut self, received: &[u8]) -> Pulse {
///         match received {
///             [line @ .., b'\n'] if !line.contains(&b'\n') => Pulse::Alive,
///             part if part.contains(&b'\n') => Pulse::Dead,
///             _ => Pulse::More,
///         }
///     }
/// }
/// # assert_eq!(Clock.pong(b"12:"), Pulse::More);
/// # assert_eq!(Clock.pong(b"12:30\n"), Pulse::Alive);
/// let pool = Pool::builder(TcpConnector::new().heartbeat(Clock)).build()?;
/// # Ok::<(), warmline::Error>(())
/// ```
pub trait Heartbeat: Send {
    /// Appends the bytes to send. None: this time there is nothing to ask.
    fn ping(&mut self, out: &mut Vec<u8>);
    /// Judges all bytes received since the ping; called again with more until it decides.
    fn pong(&mut self, received: &[u8]) -> Pulse;
}

/// What [`Heartbeat::pong`] makes of the bytes so far.
///
/// ```
/// # use warmline::Pulse;
/// assert_ne!(Pulse::More, Pulse::Dead);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Pulse {
    /// The answer is not complete.
    More,
    /// That was the answer.
    Alive,
    /// That was no answer.
    Dead,
}

/// A heartbeat of a protocol that is always asked and always answers the same.
///
/// ```
/// use std::time::Duration;
/// use warmline::{Beat, Pool, TcpConnector};
///
/// let pool = Pool::builder(TcpConnector::new().heartbeat(Beat::redis()))
///     .check_interval(Duration::from_secs(15))
///     .build()?;
/// let memcached = TcpConnector::new().heartbeat(Beat::new("mn\r\n", "MN\r\n"));
/// # let _unused = memcached;
/// # Ok::<(), warmline::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beat {
    ping: Cow<'static, [u8]>,
    pong: Cow<'static, [u8]>,
}

impl Beat {
    /// Sends `ping`, and takes exactly `pong` for the answer.
    #[must_use]
    pub fn new(ping: impl Into<Vec<u8>>, pong: impl Into<Vec<u8>>) -> Self {
        Self { ping: Cow::Owned(ping.into()), pong: Cow::Owned(pong.into()) }
    }

    /// `PING` and `PONG` of Redis, Valkey, and others that speak its protocol. Not for connections
    /// that are subscribed to something: their answer is another.
    #[must_use]
    pub const fn redis() -> Self {
        Self { ping: Cow::Borrowed(b"PING\r\n"), pong: Cow::Borrowed(b"+PONG\r\n") }
    }
}

impl Heartbeat for Beat {
    fn ping(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.ping);
    }

    fn pong(&mut self, received: &[u8]) -> Pulse {
        if *received == *self.pong {
            Pulse::Alive
        } else if self.pong.starts_with(received) {
            Pulse::More
        } else {
            Pulse::Dead
        }
    }
}

/// Makes heartbeats, for a connector that was given one.
#[derive(Clone, Default)]
pub(crate) struct Beats(Option<Arc<dyn Fn() -> Box<dyn Heartbeat> + Send + Sync>>);

impl Beats {
    pub(crate) const NONE: Self = Self(None);

    pub(crate) fn of<H: Heartbeat + Clone + Sync + 'static>(heartbeat: H) -> Self {
        Self(Some(Arc::new(move || Box::new(heartbeat.clone()))))
    }

    pub(crate) fn make(&self) -> Option<Box<dyn Heartbeat>> {
        self.0.as_ref().map(|make| make())
    }
}

impl fmt::Debug for Beats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Some(..)" } else { "None" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_taken_whole_and_nothing_else_is() {
        let mut beat = Beat::redis();
        let mut asked = Vec::new();
        beat.ping(&mut asked);
        assert_eq!(asked, b"PING\r\n");
        let verdicts = [
            (&b""[..], Pulse::More),
            (b"+PO", Pulse::More),
            (b"+PONG\r\n", Pulse::Alive),
            (b"+PONG\r\n+", Pulse::Dead),
            (b"-LOADING\r\n", Pulse::Dead),
            (b"+pong\r\n", Pulse::Dead),
        ];
        for (received, verdict) in verdicts {
            assert_eq!(beat.pong(received), verdict, "{received:?}");
        }
    }
}
