//! A checkout begun now and awaited later.

use std::fmt;

use crate::clock::{self, Stamp};
use crate::connector::Connector;
use crate::core::{Answer, Token};
use crate::error::Error;
use crate::guard::PooledConn;
use crate::shared::{Asked, Boxed, Desk, Home, Unfit};
use crate::sync::{Arc, Caller, Mutex, Receiver, Sender, bounded};

/// A checkout that was begun and can be awaited beside other things.
///
/// Its [`receiver`](Request::receiver) is a channel on which one answer arrives: a connection, or
/// why there is none. With [`crossbeam_channel::select!`](crate::crossbeam_channel::select) a
/// thread waits for several at once, from one pool or many, beside time-outs and work of its own.
///
/// A request waits in the same queue as blocked callers and is served in turn; what it gets is
/// handed to it directly. It has no deadline: it ends with its answer, or when it is dropped. Then
/// it leaves the queue, and a connection that had arrived and was not received goes back to the
/// pool. A connection that was asked for on its account is opened all the same, and kept for the
/// next.
///
/// Receive the answer soon. A connection that lies in the channel is in use: it counts against the
/// limits, [`drain`](crate::Pool::drain) waits for it, and it is not looked at again before it is
/// received, though its peer may have closed it meanwhile. A request that is forgotten
/// ([`std::mem::forget`]) keeps it for good.
///
/// It does not keep the pool open: when the last handle goes, the answer is
/// [`Closed`](crate::ErrorKind::Closed). In a child process after `fork` no answer arrives for a
/// request of the parent's.
///
/// # Examples
///
/// ```
/// # let server = std::net::TcpListener::bind("127.0.0.1:0")?;
/// # let address = server.local_addr()?;
/// use std::time::Duration;
/// use warmline::crossbeam_channel::{after, never, select};
/// use warmline::{Pool, PooledConn};
///
/// let pool = Pool::tcp();
/// let request = pool.request(&address)?;
/// # let shutdown = never::<()>();
/// select! {
///     recv(request.receiver()) -> answer => {
///         let conn = answer.expect("one answer arrives")?;
///         println!("connected to {}", PooledConn::endpoint(&conn));
///     }
///     recv(after(Duration::from_secs(5))) -> _ => println!("still none"),
///     recv(shutdown) -> _ => {} // dropping the request cancels it
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
#[must_use = "it is cancelled when it is dropped"]
pub struct Request<C: Connector> {
    tray: Arc<Tray<C>>,
    answers: Receiver<Result<PooledConn<C>, Error>>,
}

/// Where its answer is put.
struct Tray<C: Connector> {
    home: Arc<Home<C>>,
    caller: Caller,
    asked_at: Stamp,
    pending: Mutex<Pending<C>>,
}

struct Pending<C: Connector> {
    /// Until the answer is sent, or nobody wants it any more: whoever takes it out decides which.
    sender: Option<Sender<Result<PooledConn<C>, Error>>>,
    /// Its place in the queue, if it has one.
    token: Option<Token>,
    /// How often it has asked: its place is that of the last time.
    asked: u32,
}

impl<C: Connector> Request<C> {
    /// Begins a checkout that found nothing on the fast path.
    pub(crate) fn ask(home: Arc<Home<C>>, caller: Caller) -> Result<Self, Error> {
        let request = Self::new(home, caller);
        match request.tray.ask(None, None) {
            Ok(()) => Ok(request),
            Err(error) => {
                let home = &request.tray.home;
                Err(home.tell_refused(error.at(&home.label)))
            }
        }
    }

    /// A request that need not wait.
    pub(crate) fn answered(home: Arc<Home<C>>, held: Boxed<C>, caller: Caller) -> Self {
        let request = Self::new(home, caller);
        request.tray.send(Ok(held)); // told already
        request
    }

    fn new(home: Arc<Home<C>>, caller: Caller) -> Self {
        let (sender, answers) = bounded(1);
        let pending = Mutex::new(Pending { sender: Some(sender), token: None, asked: 0 });
        Self { tray: Arc::new(Tray { home, caller, asked_at: clock::mono(), pending }), answers }
    }

    /// Where the answer arrives: once; after that the channel is disconnected.
    ///
    /// A clone of it may be kept. It is disconnected when the request is dropped, unless an answer
    /// is received before. In a loop over several, a receiver whose answer has been received is
    /// always ready, with [`RecvError`](crate::crossbeam_channel::RecvError): leave it out, or put
    /// [`never`](crate::crossbeam_channel::never) in its place.
    #[must_use]
    pub fn receiver(&self) -> &Receiver<Result<PooledConn<C>, Error>> {
        &self.answers
    }

    /// The endpoint it asks for a connection to.
    #[must_use]
    pub fn endpoint(&self) -> &C::Key {
        &self.tray.home.key
    }
}

impl<C: Connector> Tray<C> {
    /// Asks for a connection, or again for one, after one that turned out to be of no use.
    fn ask(
        self: &Arc<Self>,
        asked_at: Option<Stamp>,
        unfit: Option<Unfit<C>>,
    ) -> Result<(), Error> {
        let mut pending = self.pending.lock();
        pending.asked += 1;
        let asked = pending.asked;
        drop(pending);
        let desk: Arc<dyn Desk<Boxed<C>>> = Arc::<Self>::clone(self);
        match self.home.request(desk, self.caller, asked_at, unfit)? {
            Asked::Granted(held) => self.deliver(Ok(held)),
            Asked::Queued(token) => {
                let mut pending = self.pending.lock();
                // By now it may have been answered, and have asked again.
                if pending.asked == asked {
                    pending.token = Some(token);
                }
                let is_wanted = pending.sender.is_some();
                drop(pending);
                if !is_wanted {
                    self.home.cancel_request(token); // or it was answered in the meantime
                }
            }
        }
        Ok(())
    }

    fn deliver(&self, mut answer: Result<Boxed<C>, Error>) {
        self.home.tell_checkout(self.asked_at, &mut answer);
        self.send(answer);
    }

    /// Sends the answer. If nobody wants it any more, it goes back.
    fn send(&self, answer: Result<Boxed<C>, Error>) {
        let (began, at) = (self.asked_at, clock::mono());
        let answer = answer.map_err(|error| error.at(&self.home.label).after(at.since(began)));
        self.home.note_wait((began, at), None, self.caller, answer.as_ref());
        let answer = answer.map(|held| PooledConn::new(held, Arc::clone(&self.home)));
        let mut pending = self.pending.lock();
        // Under the lock: whoever gives the request up finds it here or in the channel.
        let unsent = match pending.sender.take() {
            Some(sender) => sender.try_send(answer).err().map(|error| error.into_inner()),
            None => Some(answer),
        };
        drop(pending);
        match unsent {
            Some(Ok(conn)) => PooledConn::unreceived(conn),
            Some(Err(error)) => self.home.shared.forget_error(error),
            None => {}
        }
    }
}

impl<C: Connector> Desk<Boxed<C>> for Tray<C> {
    fn answer(self: Arc<Self>, answer: Answer<Boxed<C>>) {
        match self.home.received(answer) {
            Ok(Ok(held)) => self.deliver(Ok(held)),
            Ok(Err(unfit)) => {
                if let Err(error) = self.ask(Some(self.asked_at), Some(unfit)) {
                    self.deliver(Err(error));
                }
            }
            Err(error) => self.deliver(Err(error)),
        }
    }
}

impl<C: Connector> Drop for Request<C> {
    fn drop(&mut self) {
        let tray = &self.tray;
        let mut pending = match tray.pending.try_lock() {
            Some(pending) => pending,
            // In a child process, whoever had the lock was not forked: it is left to the parent.
            None if tray.home.shared.is_orphaned() => return,
            None => tray.pending.lock(),
        };
        let sender = pending.sender.take();
        let token = pending.token.take();
        drop(pending);
        if sender.is_none() {
            if let Ok(Ok(conn)) = self.answers.try_recv() {
                PooledConn::unreceived(conn);
            }
        } else if let Some(token) = token {
            tray.home.cancel_request(token);
        }
    }
}

impl<C: Connector> fmt::Debug for Request<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("endpoint", &self.tray.home.label)
            .field("has_arrived", &!self.answers.is_empty())
            .finish_non_exhaustive()
    }
}
