//! Settings, as users give them.

use std::fmt;
use std::time::Duration;

use crate::config::{Config, Reuse};
use crate::connector::Connector;
use crate::driver::{Driver, Resolver};
use crate::error::Error;
use crate::observe::Observer;
use crate::pool::Pool;
use crate::shared::Shared;
use crate::sync::Arc;

/// Makes a [`Pool`] with other settings than the defaults.
///
/// Every limit is finite. What is not set follows from what is: `max_per_endpoint` is never more
/// than `max_total`, and so on. Only two explicit values can contradict each other; nothing is
/// checked before [`build`](Builder::build). All can be changed later, but for what is no part of
/// [`Config`], the name, and how connections are watched: [`Pool::reconfigure`].
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use warmline::{ErrorKind, Pool, TcpConnector};
///
/// let pool = Pool::builder(TcpConnector::new())
///     .name("orders")
///     .max_total(200)
///     .max_per_endpoint(50)
///     .min_idle(2)
///     .checkout_timeout(Duration::from_secs(3))
///     .build()?;
///
/// let conflict = Pool::builder(TcpConnector::new()).max_total(5).max_per_endpoint(6).build();
/// assert_eq!(conflict.unwrap_err().kind(), ErrorKind::Config);
/// # Ok::<(), warmline::Error>(())
/// ```
#[must_use = "settings do nothing before build()"]
pub struct Builder<C: Connector> {
    connector: C,
    config: Config,
    observer: Option<Arc<dyn Observer>>,
    driver: Option<Driver>,
    resolver: Resolver,
}

impl<C: Connector> Pool<C> {
    /// A pool of what this connector opens; with the default settings but for what is set.
    pub fn builder(connector: C) -> Builder<C> {
        let (config, resolver) = (Config::default(), Resolver::system());
        Builder { connector, config, observer: None, driver: None, resolver }
    }
}

impl<C: Connector> Builder<C> {
    /// All settings at once, in place of whatever was set before: observer, driver and resolver are
    /// none of them.
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// The name of the pool in logs, and of its threads if it has a driver of its own. Default:
    /// "warmline".
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.config = self.config.name(name);
        self
    }

    /// Connections to all endpoints together: idle, in use, connecting and checking.
    /// Default: 512.
    ///
    /// When it is reached, the least recently used idle connection of another endpoint is closed
    /// to make room; with none idle, callers wait.
    pub fn max_total(mut self, most: usize) -> Self {
        self.config = self.config.max_total(most);
        self
    }

    /// Connections to one endpoint. Default: 32, or `max_total` if that is less.
    pub fn max_per_endpoint(mut self, most: usize) -> Self {
        self.config = self.config.max_per_endpoint(most);
        self
    }

    /// Idle connections to all endpoints together; beyond that the least recently used one of any
    /// endpoint is closed. Default: 100, or `max_total` if that is less.
    pub fn max_idle(mut self, most: usize) -> Self {
        self.config = self.config.max_idle(most);
        self
    }

    /// Idle connections to one endpoint. Default: as many as it may have.
    pub fn max_idle_per_endpoint(mut self, most: usize) -> Self {
        self.config = self.config.max_idle_per_endpoint(most);
        self
    }

    /// Idle connections to keep ready for each endpoint that there is a handle to, or that was
    /// used within `idle_timeout`. Default: 0.
    ///
    /// They are not closed for being idle, but end with `max_lifetime`, before the server would close
    /// them if that is [known](crate::Endpoint::note_idle_limit), or because the peer closes them;
    /// others take their place. If one dies before its first use, the next is opened 50 ms later, then
    /// ever later, up to 800 ms.
    pub fn min_idle(mut self, least: usize) -> Self {
        self.config = self.config.min_idle(least);
        self
    }

    /// Connections to one endpoint being opened at the same time. Default: 16. All endpoints
    /// together: 64, or four times this if that is more.
    ///
    /// While an endpoint has connections that come back, attempts begin one after the other, each
    /// when the last has ended or has taken half the usual time (5 ms at the least).
    ///
    /// Sockets are connected by one thread, however many. Only [`Connector::open`] of other
    /// connectors than [`TcpConnector`](crate::TcpConnector) and `UnixConnector` takes a thread
    /// each, of which an endpoint gets 16 and a pool 32; more wait for one, while their
    /// `connect_timeout` runs.
    pub fn max_connecting(mut self, most: usize) -> Self {
        self.config = self.config.max_connecting(most);
        self
    }

    /// Callers that may wait for one endpoint; any more get
    /// [`Saturated`](crate::ErrorKind::Saturated) at once. Default: 1024, or four times
    /// `max_per_endpoint` if that is more.
    pub fn max_waiting(mut self, most: usize) -> Self {
        self.config = self.config.max_waiting(most);
        self
    }

    /// How often a connection is checked out before it is closed. Default: `None`, any number.
    pub fn max_uses(mut self, most: impl Into<Option<u32>>) -> Self {
        self.config = self.config.max_uses(most);
        self
    }

    /// How long a connection may be idle. Default: 90 s; `None`: for ever.
    ///
    /// Closed by the reaper within some milliseconds after; time that the machine sleeps counts. Those
    /// that [`min_idle`](Builder::min_idle) keeps stay, unless the machine has slept; and where a
    /// server closes idle connections sooner, they are closed before that, once it is
    /// [known](crate::Endpoint::note_idle_limit).
    pub fn idle_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.config = self.config.idle_timeout(timeout);
        self
    }

    /// How old a connection may become. Default: 30 min; `None`: any age.
    ///
    /// Each retires up to a quarter of it earlier: those that were opened together one
    /// after the other, evenly. One that would be missed (it is in use, or was in the last five
    /// seconds, or half of [`idle_timeout`](Builder::idle_timeout) if that is less, or is needed for
    /// [`min_idle`](Builder::min_idle)) has a successor opened first, if there is room for both. Idle ones are closed when that is there, and in any case when their
    /// lifetime is over; those in use when they come back.
    pub fn max_lifetime(mut self, lifetime: impl Into<Option<Duration>>) -> Self {
        self.config = self.config.max_lifetime(lifetime);
        self
    }

    /// How long [`get`](Pool::get) may take. Default: 5 s.
    pub fn checkout_timeout(mut self, timeout: Duration) -> Self {
        self.config = self.config.checkout_timeout(timeout);
        self
    }

    /// How long opening a connection may take: name, socket and [`Connector::open`] together,
    /// waiting for a thread included. Default: 3 s.
    ///
    /// Of a name with several addresses each is tried in that time: three quarters of it are
    /// divided among them, with 250 ms at the most, and 10 ms at the least, before the next is
    /// tried beside it.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.config = self.config.connect_timeout(timeout);
        self
    }

    /// Whether callers learn at once of a failed attempt where nothing is open that could serve
    /// them. Default: true. Otherwise they wait on until their deadline, which names the failure.
    ///
    /// While its last attempt has failed and nothing is open, an endpoint is probed: by one attempt
    /// at a time, at random 50 to 100 ms after the last while anybody waits or came within the last
    /// second, and else (for [`min_idle`](Builder::min_idle)) after pauses that grow to 400 to
    /// 800 ms. The first success has the others follow. An error is handed to nobody who came
    /// later than 50 ms after it.
    pub fn fail_fast(mut self, yes: bool) -> Self {
        self.config = self.config.fail_fast(yes);
        self
    }

    /// A caller that has waited so long is handed the next connection that comes back; before, a
    /// newcomer may be faster. Default: 2 ms. Zero: strictly first come, first served.
    ///
    /// Of an endpoint whose connections come back every few microseconds, one is handed over every
    /// 0.15 ms, in the long run: each time threads have to be switched, and with more of that all would
    /// be served later. (Not so with zero.) More means more throughput where connections are held for
    /// microseconds, and longer waits for some.
    pub fn fair_after(mut self, wait: Duration) -> Self {
        self.config = self.config.fair_after(wait);
        self
    }

    /// A socket that was idle for longer is looked at before it goes out, for half a microsecond:
    /// bytes nobody asked for, or the peer's farewell, end it. Default: 50 ms.
    ///
    /// The farewell is noticed earlier where the connection is watched; bytes only with
    /// [`portable_watch`](Builder::portable_watch), or elsewhere than on Linux.
    pub fn probe_after(mut self, idle: Duration) -> Self {
        self.config = self.config.probe_after(idle);
        self
    }

    /// A connection that was idle for longer gets a [`check`](Connector::check) before it goes
    /// out, if its connector has one. Default: 500 ms.
    pub fn check_after(mut self, idle: Duration) -> Self {
        self.config = self.config.check_after(idle);
        self
    }

    /// How long an idle connection goes without proof that it works, if its connector has a
    /// [`heartbeat`](Connector::heartbeat) or a [`check`](Connector::check). Default: 30 s; `None`:
    /// for as long as it is idle.
    ///
    /// Those that are due are spread over the interval, and put off while anybody waits for a
    /// connection. Use is proof as well; proof is no use: it does not keep a connection from being
    /// idle for too long. A connection that has missed its heartbeat, because the machine slept or
    /// the process stood still, is sent one before it goes out.
    pub fn check_interval(mut self, interval: impl Into<Option<Duration>>) -> Self {
        self.config = self.config.check_interval(interval);
        self
    }

    /// How long a [`check`](Connector::check), or the answer to a
    /// [`heartbeat`](Connector::heartbeat), may take. Default: 2 s.
    pub fn check_timeout(mut self, timeout: Duration) -> Self {
        self.config = self.config.check_timeout(timeout);
        self
    }

    /// How long [`settle`](Connector::settle) may take. Default: 1 s.
    pub fn settle_timeout(mut self, timeout: Duration) -> Self {
        self.config = self.config.settle_timeout(timeout);
        self
    }

    /// Which idle connection is taken first. Default: the newest.
    pub fn reuse(mut self, reuse: Reuse) -> Self {
        self.config = self.config.reuse(reuse);
        self
    }

    /// Connections that are out for longer are reported as suspected leaks: logged with the call
    /// site that checked them out, counted, and told to the observer. Default: `None`, off. At
    /// least 1 ms.
    pub fn leak_warning(mut self, after: impl Into<Option<Duration>>) -> Self {
        self.config = self.config.leak_warning(after);
        self
    }

    /// Watches idle connections by the means that every Unix has, instead of Linux's own.
    /// Default: off.
    ///
    /// A connection is then watched while it is idle only, which costs two system calls each time
    /// it is used, and bytes that arrive on it meanwhile end it at once. Elsewhere than on Linux it
    /// is done so in any case: this is there to test and to compare with.
    pub fn portable_watch(mut self, on: bool) -> Self {
        self.config = self.config.portable_watch(on);
        self
    }

    /// Who is told what happens to connections. Default: nobody. With one, checkouts and checkins
    /// cost two reads of the precise clock and two calls more.
    pub fn observer(mut self, observer: impl Observer) -> Self {
        self.observer = Some(Arc::new(observer));
        self
    }

    /// Whose threads work for the pool. Default: those of a driver of its own.
    ///
    /// Pools of different connectors may share one. They share its limits on blocking threads then,
    /// and one slow observer delays the events of all. Connections of 65,534 pools are watched (254
    /// where a word has 32 bits); those of further ones are looked at before reuse only.
    pub fn driver(mut self, driver: &Driver) -> Self {
        self.driver = Some(driver.clone());
        self
    }

    /// Who looks up names. Default: a [`Resolver::system`] of its own.
    pub fn resolver(mut self, resolver: &Resolver) -> Self {
        self.resolver = resolver.clone();
        self
    }

    /// Makes the pool. No thread starts and no connection is opened yet.
    ///
    /// # Errors
    ///
    /// [`Config`](crate::ErrorKind::Config), naming the setting and its value, or both settings if
    /// two contradict each other.
    pub fn build(self) -> Result<Pool<C>, Error> {
        let settings = self.config.settle()?;
        let shared = Shared::new(self.connector, self.config, settings, self.observer);
        Ok(Pool::new(shared, self.driver, self.resolver))
    }
}

impl<C: Connector> fmt::Debug for Builder<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("config", &self.config).finish_non_exhaustive()
    }
}
