//! Doing an exchange again, where that can neither harm nor be in vain.

use crate::clock::Deadline;
use crate::connector::Connector;
use crate::error::Error;
use crate::guard::PooledConn;
use crate::pool::Endpoint;

/// When [`Endpoint::run`] may repeat an exchange on another connection.
///
/// ```
/// use warmline::Repeat;
///
/// let repeat = if "GET" == "GET" { Repeat::Always } else { Repeat::IfUnwritten };
/// # assert_eq!(repeat, Repeat::Always);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Repeat {
    /// If no byte of it was written: the peer cannot have seen it.
    IfUnwritten,
    /// Whenever the connection was stale or broke in the middle, also while the server restarts:
    /// for exchanges that do no harm when done twice.
    Always,
}

/// Connections that may break in the middle of one exchange, before it is taken for the cause.
const MOST_BROKEN: u32 = 3;

impl<C: Connector> Endpoint<C> {
    /// Runs one exchange, and repeats it on another connection iff the first turned out to be
    /// [stale](crate::Exchange::is_stale) and `repeat` allows it.
    ///
    /// The pool drops idle connections when their peer closes them; this is for those that it
    /// closes at the moment of the request. Each repeat uses up a connection that had died while it
    /// was idle. All checkouts together wait for
    /// [`checkout_timeout`](crate::Builder::checkout_timeout) at the most.
    ///
    /// With [`Repeat::Always`] it also outlasts a server that restarts. An exchange in the middle
    /// of which the peer closed or reset the connection is repeated, three times at the most; and a
    /// failed attempt to connect does not end a checkout before its time: others follow, every 50
    /// ms. Where the pool cannot see what happened ([`Connector::socket`] shows none), it repeats
    /// once after any error on a connection that had been idle.
    ///
    /// # Blocking
    ///
    /// As [`get`](Endpoint::get), and as `exchange` does.
    ///
    /// # Errors
    ///
    /// Those of [`get`](Endpoint::get) if the first checkout fails; else the last one of
    /// `exchange`.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::{self, Read, Write};
    /// use warmline::{Endpoint, Repeat, TcpConnector};
    ///
    /// fn ping(redis: &Endpoint<TcpConnector>) -> io::Result<[u8; 7]> {
    ///     // A PING may be sent twice, whatever became of the first.
    ///     redis.run(Repeat::Always, |conn| {
    ///         conn.write_all(b"PING\r\n")?;
    ///         let mut pong = [0; 7];
    ///         conn.read_exact(&mut pong)?;
    ///         Ok(pong)
    ///     })
    /// }
    /// ```
    #[track_caller]
    pub fn run<T, E: From<Error>>(
        &self,
        repeat: Repeat,
        mut exchange: impl FnMut(&mut PooledConn<C>) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut left = self.checkout_timeout();
        let mut failed: Option<E> = None;
        let mut broken = 0;
        loop {
            let before = Deadline::after(left);
            let checkout = match repeat {
                Repeat::IfUnwritten => self.get_timeout(left),
                Repeat::Always => self.get_patiently(left),
            };
            let mut conn = match checkout {
                Ok(conn) => conn,
                // What the exchange said is nearer to the cause.
                Err(error) => return Err(failed.unwrap_or_else(|| error.into())),
            };
            left = before.remaining();
            let error = match exchange(&mut conn) {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            let happened = PooledConn::exchange(&mut conn);
            let is_stale = happened.is_stale();
            match repeat {
                // The socket knows that it has ended, and why: it is closed when it is dropped.
                Repeat::Always if is_stale => {}
                Repeat::Always if happened.has_broken() && broken < MOST_BROKEN => broken += 1,
                Repeat::IfUnwritten if is_stale && happened.written() == Some(0) => {}
                // What happened cannot be seen; once, a connection that was idle is suspected.
                Repeat::Always
                    if !happened.is_visible() && happened.was_idle() && failed.is_none() =>
                {
                    PooledConn::discard(conn);
                }
                _ => return Err(error),
            }
            failed = Some(error);
        }
    }
}
