//! r2d2's settings.

use std::fmt;
use std::time::Duration;

use ::r2d2::{CustomizeConnection, HandleError, ManageConnection, NopConnectionCustomizer};

use crate::config::{Config, check_count, check_order};
use crate::connector::Watch;
use crate::driver::Driver;
use crate::error::Error;
use crate::pool;
use crate::r2d2::event::HandleEvent;
use crate::r2d2::hooked::{Hooked, Hooks};
use crate::r2d2::manager::{Manager, WatchOf};
use crate::r2d2::pool::Pool;
use crate::sync::Arc;

/// As long as r2d2 waits for a connection, and for one to be opened at least.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);

/// Makes a [`Pool`] with r2d2's settings and r2d2's defaults; whatever else this crate can be told,
/// by [`configure`](Builder::configure).
///
/// Nothing is checked before [`build`](Builder::build), which refuses what makes no sense.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use warmline::r2d2;
/// # struct Manager;
/// # impl r2d2::ManageConnection for Manager {
/// #     type Connection = Vec<u8>;
/// #     type Error = std::io::Error;
/// #     fn connect(&self) -> Result<Vec<u8>, Self::Error> { Ok(Vec::new()) }
/// #     fn is_valid(&self, _: &mut Vec<u8>) -> Result<(), Self::Error> { Ok(()) }
/// #     fn has_broken(&self, _: &mut Vec<u8>) -> bool { false }
/// # }
///
/// let pool = r2d2::Pool::builder()
///     .max_size(15)
///     .min_idle(Some(2))
///     .connection_timeout(Duration::from_secs(2))
///     .configure(|config| config.name("orders").leak_warning(Duration::from_secs(60)))
///     .build(Manager)?;
/// assert_eq!((pool.max_size(), pool.min_idle()), (15, Some(2)));
/// # Ok::<(), r2d2::Error>(())
/// ```
#[must_use = "settings do nothing before build()"]
pub struct Builder<M: ManageConnection> {
    config: Config,
    max_size: u32,
    min_idle: Option<u32>,
    connection_timeout: Duration,
    test_on_check_out: bool,
    customizer: Box<dyn CustomizeConnection<M::Connection, M::Error>>,
    error_handler: Option<Box<dyn HandleError<M::Error>>>,
    event_handler: Option<Arc<dyn HandleEvent>>,
    watch: Option<Box<WatchOf<M::Connection>>>,
    driver: Option<Driver>,
}

impl<M: ManageConnection> Builder<M> {
    /// The defaults.
    pub fn new() -> Self {
        Self {
            config: Config::new().fail_fast(false).idle_timeout(Duration::from_secs(10 * 60)),
            max_size: 10,
            min_idle: None,
            connection_timeout: CONNECTION_TIMEOUT,
            test_on_check_out: true,
            customizer: Box::new(NopConnectionCustomizer),
            error_handler: None,
            event_handler: None,
            watch: None,
            driver: None,
        }
    }

    /// The most connections there may be. Default: 10.
    pub fn max_size(mut self, max_size: u32) -> Self {
        self.max_size = max_size;
        self
    }

    /// How many idle connections are kept ready. Default: `None`, as many as there may be.
    pub fn min_idle(mut self, min_idle: Option<u32>) -> Self {
        self.min_idle = min_idle;
        self
    }

    /// Whether the manager's `is_valid` is asked: before a connection goes out that was idle for
    /// longer than [`check_after`](crate::Builder::check_after) (500 ms), and every
    /// [`check_interval`](crate::Builder::check_interval) (30 s) while it is idle. Default: true.
    /// With false, never.
    ///
    /// r2d2 asks at every checkout. `check_after` of zero does the same:
    /// `.configure(|config| config.check_after(Duration::ZERO))`.
    pub fn test_on_check_out(mut self, test_on_check_out: bool) -> Self {
        self.test_on_check_out = test_on_check_out;
        self
    }

    /// How old a connection may become. Default: 30 min. See
    /// [`max_lifetime`](crate::Builder::max_lifetime).
    pub fn max_lifetime(mut self, max_lifetime: Option<Duration>) -> Self {
        self.config = self.config.max_lifetime(max_lifetime);
        self
    }

    /// How long a connection may be idle, if it is not one of those kept ready. Default: 10 min.
    /// See [`idle_timeout`](crate::Builder::idle_timeout).
    pub fn idle_timeout(mut self, idle_timeout: Option<Duration>) -> Self {
        self.config = self.config.idle_timeout(idle_timeout);
        self
    }

    /// How long [`Pool::get`] may take, whatever happens; also [`build`](Builder::build).
    /// Default: 30 s.
    ///
    /// The opening of one connection may take as long, or 30 s if that is more:
    /// `.configure(|config| config.connect_timeout(…))` sets less.
    pub fn connection_timeout(mut self, connection_timeout: Duration) -> Self {
        self.connection_timeout = connection_timeout;
        self
    }

    /// Who is handed the manager's errors. Default: nobody, since the pool's own
    /// [log](crate#log-levels) tells of them, and callers get them as the source of theirs.
    ///
    /// Called on threads of the pool.
    pub fn error_handler(mut self, error_handler: Box<dyn HandleError<M::Error>>) -> Self {
        self.error_handler = Some(error_handler);
        self
    }

    /// Who is told what happens to connections. Default: nobody.
    pub fn event_handler(mut self, event_handler: Box<dyn HandleEvent>) -> Self {
        self.event_handler = Some(Arc::from(event_handler));
        self
    }

    /// What is done with a new connection before anybody gets it, and with one that has left the
    /// pool. Default: nothing.
    ///
    /// Called on threads of the pool. What [`on_acquire`](CustomizeConnection::on_acquire) does
    /// counts as part of opening the connection; who refuses it has it dropped, as in r2d2.
    pub fn connection_customizer(
        mut self,
        connection_customizer: Box<dyn CustomizeConnection<M::Connection, M::Error>>,
    ) -> Self {
        self.customizer = connection_customizer;
        self
    }

    /// Changes settings that r2d2 has no name for. See [`Config`]. Not in r2d2.
    ///
    /// Of those that it has names for, what is set here holds unless r2d2's own setter is called:
    /// sizes, `min_idle` and the time-out for a checkout are always the setters' own.
    pub fn configure(mut self, change: impl FnOnce(Config) -> Config) -> Self {
        self.config = change(self.config);
        self
    }

    /// Has idle connections watched: see [`Manager::watch`]. Not in r2d2.
    pub fn watch(
        mut self,
        watch: impl for<'c> Fn(&'c M::Connection) -> Watch<'c> + Send + Sync + 'static,
    ) -> Self {
        self.watch = Some(Box::new(watch));
        self
    }

    /// Whose threads work for the pool, in the place of r2d2's `thread_pool`. Default: those of a
    /// driver of its own. See [`Builder::driver`](crate::Builder::driver). Not in r2d2.
    pub fn driver(mut self, driver: &Driver) -> Self {
        self.driver = Some(driver.clone());
        self
    }

    /// Makes the pool, and has its connections opened.
    ///
    /// # Blocking
    ///
    /// Until [`min_idle`](Builder::min_idle) connections are open, for
    /// [`connection_timeout`](Builder::connection_timeout) at the most. They are opened side by side,
    /// [sixteen](crate::Builder::max_connecting) at a time; what fails is tried again.
    ///
    /// # Errors
    ///
    /// [`Config`](crate::ErrorKind::Config) if settings make no sense. Else that of the attempts to
    /// connect: [`Timeout`](crate::ErrorKind::Timeout) if fewer were open in time, or
    /// [`Connect`](crate::ErrorKind::Connect), at once, if none could be opened and
    /// [`fail_fast`](crate::Builder::fail_fast) was set to true.
    pub fn build(self, manager: M) -> Result<Pool<M>, Error> {
        let (count, timeout) = (self.min_idle.unwrap_or(self.max_size), self.connection_timeout);
        let pool = self.make(manager)?;
        pool.endpoint.warm_all(count as usize, timeout)?;
        Ok(pool)
    }

    /// Makes the pool, and waits for nothing: connections begin to be opened.
    ///
    /// # Panics
    ///
    /// If settings make no sense, or no thread could be started.
    pub fn build_unchecked(self, manager: M) -> Pool<M> {
        match self.make(manager) {
            Ok(pool) => pool,
            #[expect(clippy::panic, reason = "so does r2d2, whose signature has no error")]
            Err(error) => panic!("{error}"),
        }
    }

    /// Refuses what makes no sense by the names that the program used.
    fn check(&self) -> Result<(), Error> {
        let (most, least) =
            (Some(self.max_size as usize), self.min_idle.map(|least| least as usize));
        check_count("max_size", most, 1)?;
        check_order("min_idle", least, "max_size", most)?;
        let time = self.connection_timeout;
        if time < Duration::from_millis(1) {
            let text = format!("connection_timeout({time:?}): must be at least 1ms");
            return Err(Error::config(text));
        }
        Ok(())
    }

    fn make(self, manager: M) -> Result<Pool<M>, Error> {
        self.check()?;
        let max_size = self.max_size as usize;
        let connect_timeout = self.connection_timeout.max(CONNECTION_TIMEOUT);
        let connect_timeout = self.config.connect_timeout.unwrap_or(connect_timeout);
        let config = self
            .config
            .max_per_endpoint(max_size)
            .max_idle(max_size)
            .min_idle(self.min_idle.map_or(max_size, |least| least as usize))
            .checkout_timeout(self.connection_timeout)
            .connect_timeout(connect_timeout);
        let hooks = Hooks {
            customizer: self.customizer,
            error_handler: self.error_handler,
            event_handler: self.event_handler.clone(),
            test_on_check_out: self.test_on_check_out,
        };
        let manager = Manager { manager, watch: self.watch };
        let builder = pool::Pool::builder(Hooked { manager, hooks }).config(config);
        let builder = match &self.driver {
            Some(driver) => builder.driver(driver),
            None => builder,
        };
        Ok(Pool {
            endpoint: builder.build()?.only()?,
            event_handler: self.event_handler,
            min_idle: self.min_idle,
            test_on_check_out: self.test_on_check_out,
        })
    }
}

impl<M: ManageConnection> Default for Builder<M> {
    fn default() -> Self {
        Self::new()
    }
}

impl<M: ManageConnection> fmt::Debug for Builder<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("max_size", &self.max_size)
            .field("min_idle", &self.min_idle)
            .field("connection_timeout", &self.connection_timeout)
            .field("test_on_check_out", &self.test_on_check_out)
            .field("connection_customizer", &self.customizer)
            .field("error_handler", &self.error_handler)
            .field("event_handler", &self.event_handler)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}
