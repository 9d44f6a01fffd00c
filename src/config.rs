//! Settings: their defaults, how unset ones follow from set ones, and what is refused.

mod endpoint;
mod setters;

pub use self::endpoint::EndpointLimits;

pub(crate) use self::endpoint::Caps;

use std::time::Duration;

use crate::error::Error;
use crate::redact::Redacted;

/// Which idle connection a checkout takes first.
///
/// ```
/// use warmline::{Pool, Reuse, TcpConnector};
///
/// let pool = Pool::builder(TcpConnector::new()).reuse(Reuse::Oldest).build()?;
/// # Ok::<(), warmline::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reuse {
    /// The one used last: what is not needed grows old and is closed, so the pool shrinks.
    #[default]
    Newest,
    /// The one used longest ago: spreads use over all, for servers behind a TCP balancer.
    Oldest,
}

/// The settings of a pool, as a value: to build pools with, to change them while they run, to be
/// kept and compared.
///
/// What is not set is at its default, which the [`Builder`](crate::Builder) tells for each. Nothing
/// is checked before [`build`](crate::Builder::build) or
/// [`reconfigure`](crate::Pool::reconfigure).
///
/// With the feature `serde` it can be read from a file and written to one, in any format that names
/// its fields. They have the names of the methods here. Times are texts, with the units `ns`, `us`,
/// `ms`, `s`, `m`, `h` and `d`; where a method takes `None` it is `"off"`; and
/// [`reuse`](Self::reuse) is `"newest"` or `"oldest"`. Whatever else is there is refused, with the
/// name of the setting, and with the line by formats that know it.
///
/// ```toml
/// max_total = 200
/// max_uses = "off"
/// idle_timeout = "1m 30s"
/// checkout_timeout = "500ms"
/// ```
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use warmline::{Config, Pool, TcpConnector};
///
/// let config = Config::new().max_total(200).idle_timeout(Duration::from_secs(30));
/// let pool = Pool::builder(TcpConnector::new()).config(config).build()?;
/// pool.reconfigure(pool.config().max_total(20))?; // and all else as it was
/// # Ok::<(), warmline::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "settings do nothing before Builder::config or Pool::reconfigure"]
pub struct Config {
    pub(crate) name: Option<Redacted<String>>,
    pub(crate) max_total: Option<usize>,
    pub(crate) max_per_endpoint: Option<usize>,
    pub(crate) max_idle: Option<usize>,
    pub(crate) max_idle_per_endpoint: Option<usize>,
    pub(crate) min_idle: Option<usize>,
    pub(crate) max_connecting: Option<usize>,
    pub(crate) max_waiting: Option<usize>,
    pub(crate) max_uses: Option<Option<u32>>,
    pub(crate) idle_timeout: Option<Option<Duration>>,
    pub(crate) max_lifetime: Option<Option<Duration>>,
    pub(crate) checkout_timeout: Option<Duration>,
    pub(crate) connect_timeout: Option<Duration>,
    pub(crate) fair_after: Option<Duration>,
    pub(crate) probe_after: Option<Duration>,
    pub(crate) check_after: Option<Duration>,
    pub(crate) check_interval: Option<Option<Duration>>,
    pub(crate) check_timeout: Option<Duration>,
    pub(crate) settle_timeout: Option<Duration>,
    pub(crate) fail_fast: Option<bool>,
    pub(crate) reuse: Option<Reuse>,
    pub(crate) leak_warning: Option<Option<Duration>>,
    pub(crate) portable_watch: Option<bool>,
}

/// Settings in force: every one has a value, and they fit each other.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) fixed: Fixed,
    pub(crate) checkout_timeout: Duration,
    pub(crate) probe_after: Duration,
    pub(crate) limits: Limits,
}

/// The settings that a pool keeps for as long as it lives.
#[derive(Clone, Debug)]
pub(crate) struct Fixed {
    /// As it is shown: without secrets, and on one line.
    pub(crate) name: String,
    pub(crate) portable_watch: bool,
}

/// The settings that decisions of the core depend on.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    pub(crate) max_total: usize,
    pub(crate) max_per_endpoint: usize,
    pub(crate) max_idle: usize,
    pub(crate) max_idle_per_endpoint: usize,
    /// That was not set: it is what `max_per_endpoint` is.
    pub(crate) idle_follows: bool,
    pub(crate) min_idle: usize,
    pub(crate) max_connecting: usize,
    pub(crate) max_connecting_total: usize,
    pub(crate) max_waiting: usize,
    /// That was not set: it follows from `max_per_endpoint`.
    pub(crate) waiting_follows: bool,
    pub(crate) max_uses: u32,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) max_lifetime: Option<Duration>,
    /// In use for so long, a connection is suspected to be leaked.
    pub(crate) leak_warning: Option<Duration>,
    pub(crate) connect_timeout: Duration,
    /// How often idle connections are proved, where they can be.
    pub(crate) check_interval: Option<Duration>,
    pub(crate) check_timeout: Duration,
    pub(crate) settle_timeout: Duration,
    pub(crate) fair_after: Duration,
    /// `Some` for connectors that have a check.
    pub(crate) check_after: Option<Duration>,
    /// With nothing open, a failed attempt fails all who wait.
    pub(crate) fail_fast: bool,
    pub(crate) reuse: Reuse,
}

/// More connections than a process can have descriptors for; a larger limit is a slip.
const MOST: usize = 1_000_000;

pub(crate) const DEFAULT_NAME: &str = "warmline";
pub(crate) const DEFAULT_MAX_TOTAL: usize = 512;
pub(crate) const DEFAULT_MAX_PER_ENDPOINT: usize = 32;
pub(crate) const DEFAULT_MAX_IDLE: usize = 100;
pub(crate) const DEFAULT_MAX_CONNECTING: usize = 16;
pub(crate) const DEFAULT_MAX_CONNECTING_TOTAL: usize = 64;
pub(crate) const DEFAULT_MAX_WAITING: usize = 1024;
pub(crate) const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_secs(90);
pub(crate) const DEFAULT_MAX_LIFETIME: Duration = Duration::from_secs(30 * 60);
pub(crate) const DEFAULT_CHECKOUT_TIMEOUT: Duration = Duration::from_secs(5);
pub(crate) const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
pub(crate) const DEFAULT_FAIR_AFTER: Duration = Duration::from_millis(2);
pub(crate) const DEFAULT_PROBE_AFTER: Duration = Duration::from_millis(50);
pub(crate) const DEFAULT_CHECK_AFTER: Duration = Duration::from_millis(500);
pub(crate) const DEFAULT_CHECK_INTERVAL: Duration = Duration::from_secs(30);
pub(crate) const DEFAULT_CHECK_TIMEOUT: Duration = Duration::from_secs(2);
pub(crate) const DEFAULT_SETTLE_TIMEOUT: Duration = Duration::from_secs(1);

/// Refuses what cannot be the name of a thread.
pub(crate) fn check_name(name: &str) -> Result<(), Error> {
    if name.is_empty() || name.contains('\0') {
        return Err(Error::config("name: must not be empty, nor hold a NUL"));
    }
    Ok(())
}

/// How many may wait where so many can be in use.
fn waiting_for(max_per_endpoint: usize) -> usize {
    DEFAULT_MAX_WAITING.max(4 * max_per_endpoint)
}

pub(crate) fn check_count(name: &str, value: Option<usize>, least: usize) -> Result<(), Error> {
    match value {
        Some(value) if value < least || value > MOST => {
            Err(Error::config(format!("{name}({value}): must be from {least} to {MOST}")))
        }
        _ => Ok(()),
    }
}

/// Of two settings that are both there, the small one must not be more than the large one.
pub(crate) fn check_order(
    small_name: &str,
    small: Option<usize>,
    large_name: &str,
    large: Option<usize>,
) -> Result<(), Error> {
    match (small, large) {
        (Some(small), Some(large)) if small > large => {
            Err(Error::config(format!("{small_name}({small}) is more than {large_name}({large})")))
        }
        _ => Ok(()),
    }
}

impl Config {
    /// Fills in what is not set and refuses what makes no sense.
    pub(crate) fn settle(&self) -> Result<Settings, Error> {
        self.check_values()?;
        self.check_pairs()?;
        let max_total = self.max_total.unwrap_or_else(|| {
            // A larger share that was asked for needs a larger whole.
            let parts =
                [self.max_per_endpoint, self.max_idle, self.max_idle_per_endpoint, self.min_idle];
            parts.into_iter().flatten().fold(DEFAULT_MAX_TOTAL, usize::max)
        });
        let max_per_endpoint = self.max_per_endpoint.unwrap_or_else(|| {
            let needed = self.max_idle_per_endpoint.max(self.min_idle).unwrap_or(0);
            DEFAULT_MAX_PER_ENDPOINT.max(needed).min(max_total)
        });
        let max_idle = self.max_idle.unwrap_or_else(|| {
            let needed = self.max_idle_per_endpoint.max(self.min_idle).unwrap_or(0);
            DEFAULT_MAX_IDLE.max(needed).min(max_total)
        });
        let max_connecting = self.max_connecting.unwrap_or(DEFAULT_MAX_CONNECTING);
        let limits = Limits {
            max_total,
            max_per_endpoint,
            max_idle,
            max_idle_per_endpoint: self.max_idle_per_endpoint.unwrap_or(max_per_endpoint),
            idle_follows: self.max_idle_per_endpoint.is_none(),
            min_idle: self.min_idle.unwrap_or(0),
            max_connecting,
            // One endpoint alone, however much it may have, leaves room for others.
            max_connecting_total: DEFAULT_MAX_CONNECTING_TOTAL.max(4 * max_connecting),
            max_waiting: self.max_waiting.unwrap_or_else(|| waiting_for(max_per_endpoint)),
            waiting_follows: self.max_waiting.is_none(),
            max_uses: self.max_uses.flatten().unwrap_or(u32::MAX),
            idle_timeout: self.idle_timeout.unwrap_or(Some(DEFAULT_IDLE_TIMEOUT)),
            max_lifetime: self.max_lifetime.unwrap_or(Some(DEFAULT_MAX_LIFETIME)),
            leak_warning: self.leak_warning.flatten(),
            connect_timeout: self.connect_timeout.unwrap_or(DEFAULT_CONNECT_TIMEOUT),
            check_interval: self.check_interval.unwrap_or(Some(DEFAULT_CHECK_INTERVAL)),
            check_timeout: self.check_timeout.unwrap_or(DEFAULT_CHECK_TIMEOUT),
            settle_timeout: self.settle_timeout.unwrap_or(DEFAULT_SETTLE_TIMEOUT),
            fair_after: self.fair_after.unwrap_or(DEFAULT_FAIR_AFTER),
            check_after: Some(self.check_after.unwrap_or(DEFAULT_CHECK_AFTER)),
            fail_fast: self.fail_fast.unwrap_or(true),
            reuse: self.reuse.unwrap_or_default(),
        };
        let fixed = Fixed {
            name: self.name.as_ref().map_or_else(|| DEFAULT_NAME.to_owned(), Redacted::to_string),
            portable_watch: self.portable_watch.unwrap_or(false),
        };
        Ok(Settings {
            fixed,
            checkout_timeout: self.checkout_timeout.unwrap_or(DEFAULT_CHECKOUT_TIMEOUT),
            probe_after: self.probe_after.unwrap_or(DEFAULT_PROBE_AFTER),
            limits,
        })
    }

    /// Settings in force for a pool that runs.
    ///
    /// # Errors
    ///
    /// As [`settle`](Config::settle), and if it would change what cannot be changed.
    pub(crate) fn settle_for(&self, fixed: &Fixed) -> Result<Settings, Error> {
        if let Some(name) = self.name.as_ref().map(Redacted::to_string) {
            if name != fixed.name {
                let text = format!("name({name:?}): a pool keeps its name, {:?}", fixed.name);
                return Err(Error::config(text));
            }
        }
        if let Some(on) = self.portable_watch.filter(|on| *on != fixed.portable_watch) {
            let text = format!("portable_watch({on}): is chosen when a pool is built, for good");
            return Err(Error::config(text));
        }
        self.settle()
    }

    /// Each value on its own.
    fn check_values(&self) -> Result<(), Error> {
        let counts = [
            ("max_total", self.max_total, 1),
            ("max_per_endpoint", self.max_per_endpoint, 1),
            ("max_connecting", self.max_connecting, 1),
            ("max_waiting", self.max_waiting, 1),
            ("max_idle", self.max_idle, 0),
            ("max_idle_per_endpoint", self.max_idle_per_endpoint, 0),
            ("min_idle", self.min_idle, 0),
        ];
        for (name, value, least) in counts {
            check_count(name, value, least)?;
        }
        if self.max_uses == Some(Some(0)) {
            return Err(Error::config("max_uses(0): must be at least 1"));
        }
        let times = [
            ("idle_timeout", self.idle_timeout.flatten()),
            ("max_lifetime", self.max_lifetime.flatten()),
            ("leak_warning", self.leak_warning.flatten()),
            ("checkout_timeout", self.checkout_timeout),
            ("connect_timeout", self.connect_timeout),
            ("check_interval", self.check_interval.flatten()),
            ("check_timeout", self.check_timeout),
            ("settle_timeout", self.settle_timeout),
        ];
        for (name, value) in times {
            if value.is_some_and(|value| value < Duration::from_millis(1)) {
                let value = value.unwrap_or_default();
                return Err(Error::config(format!("{name}({value:?}): must be at least 1ms")));
            }
        }
        self.name.as_ref().map_or(Ok(()), |name| check_name(&name.0))
    }

    /// Explicit values that contradict each other.
    fn check_pairs(&self) -> Result<(), Error> {
        let pairs = [
            ("max_per_endpoint", self.max_per_endpoint, "max_total", self.max_total),
            ("max_idle", self.max_idle, "max_total", self.max_total),
            (
                "max_idle_per_endpoint",
                self.max_idle_per_endpoint,
                "max_per_endpoint",
                self.max_per_endpoint,
            ),
            ("max_idle_per_endpoint", self.max_idle_per_endpoint, "max_total", self.max_total),
            ("min_idle", self.min_idle, "max_idle_per_endpoint", self.max_idle_per_endpoint),
            ("min_idle", self.min_idle, "max_per_endpoint", self.max_per_endpoint),
            ("min_idle", self.min_idle, "max_idle", self.max_idle),
            ("min_idle", self.min_idle, "max_total", self.max_total),
        ];
        for (small_name, small, large_name, large) in pairs {
            check_order(small_name, small, large_name, large)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unset_limits_follow_the_set_ones() {
        let small = Config { max_total: Some(8), ..Config::default() }.settle().unwrap().limits;
        assert_eq!(
            (small.max_per_endpoint, small.max_idle, small.max_idle_per_endpoint),
            (8, 8, 8)
        );
        let large = Config { max_per_endpoint: Some(2000), ..Config::default() };
        let large = large.settle().unwrap().limits;
        assert_eq!((large.max_total, large.max_waiting), (2000, 8000));
        let kept = Config { min_idle: Some(200), ..Config::default() }.settle().unwrap().limits;
        assert_eq!((kept.max_per_endpoint, kept.max_idle), (200, 200));
        let many = Config { min_idle: Some(600), ..Config::default() }.settle().unwrap().limits;
        assert_eq!((many.max_total, many.max_idle), (600, 600), "it can be met");
        let wide = Config { max_idle_per_endpoint: Some(200), ..Config::default() };
        assert_eq!(wide.settle().unwrap().limits.max_idle, 200);
    }

    #[test]
    fn two_explicit_settings_that_conflict_are_both_named() {
        let config =
            Config { max_total: Some(10), max_per_endpoint: Some(20), ..Config::default() };
        let text = config.settle().unwrap_err().to_string();
        assert_eq!(text, "max_per_endpoint(20) is more than max_total(10)");
        let config = Config { min_idle: Some(5), max_idle: Some(0), ..Config::default() };
        assert_eq!(
            config.settle().unwrap_err().to_string(),
            "min_idle(5) is more than max_idle(0)"
        );
    }

    #[test]
    fn defaults_are_finite() {
        let limits = Config::default().settle().unwrap().limits;
        assert_eq!((limits.max_total, limits.max_per_endpoint, limits.max_idle), (512, 32, 100));
        assert_eq!((limits.max_waiting, limits.min_idle), (1024, 0));
        assert_eq!(limits.idle_timeout, Some(Duration::from_secs(90)));
    }

    #[test]
    fn zero_and_absurd_values_are_refused_by_name() {
        let refused = |config: Config, name: &str| {
            let text = config.settle().unwrap_err().to_string();
            assert!(text.starts_with(name), "{text}");
        };
        refused(Config { max_total: Some(0), ..Config::default() }, "max_total(0)");
        refused(Config { max_total: Some(usize::MAX), ..Config::default() }, "max_total(");
        refused(Config { max_per_endpoint: Some(0), ..Config::default() }, "max_per_endpoint(0)");
        refused(Config { max_connecting: Some(0), ..Config::default() }, "max_connecting(0)");
        refused(Config { max_uses: Some(Some(0)), ..Config::default() }, "max_uses(0)");
        let zero = Duration::ZERO;
        refused(Config { connect_timeout: Some(zero), ..Config::default() }, "connect_timeout");
        refused(Config { idle_timeout: Some(Some(zero)), ..Config::default() }, "idle_timeout");
        refused(Config { name: Some(Redacted(String::new())), ..Config::default() }, "name");
        let forever = Config { idle_timeout: Some(None), ..Config::default() };
        assert_eq!(forever.settle().unwrap().limits.idle_timeout, None);
        let long = Config { checkout_timeout: Some(Duration::MAX), ..Config::default() };
        assert!(long.settle().is_ok(), "a deadline saturates");
    }
}
