//! Limits of one endpoint.

use crate::config::{Limits, check_count, check_order, waiting_for};
use crate::error::Error;

/// Limits of one endpoint that differ from its pool's.
///
/// What is not set is as the [`Builder`](crate::Builder) says for all endpoints, or follows from
/// what is set: [`max_idle_per_endpoint`](Self::max_idle_per_endpoint) from
/// [`max_per_endpoint`](Self::max_per_endpoint), and [`min_idle`](Self::min_idle) is never more
/// than that. Given to [`Endpoint::set_limits`](crate::Endpoint::set_limits).
///
/// ```
/// use warmline::{EndpointLimits, Pool};
///
/// let pool = Pool::tcp();
/// let small = pool.endpoint("127.0.0.1:6379")?;
/// small.set_limits(EndpointLimits::new().max_per_endpoint(4).max_waiting(100))?;
/// # Ok::<(), warmline::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use = "limits do nothing before Endpoint::set_limits"]
pub struct EndpointLimits {
    max_per_endpoint: Option<usize>,
    max_idle_per_endpoint: Option<usize>,
    min_idle: Option<usize>,
    max_connecting: Option<usize>,
    max_waiting: Option<usize>,
}

impl EndpointLimits {
    /// Nothing set: all as the pool's.
    pub const fn new() -> Self {
        Self {
            max_per_endpoint: None,
            max_idle_per_endpoint: None,
            min_idle: None,
            max_connecting: None,
            max_waiting: None,
        }
    }

    /// Connections it may have. At most the pool's [`max_total`](crate::Builder::max_total).
    pub const fn max_per_endpoint(mut self, most: usize) -> Self {
        self.max_per_endpoint = Some(most);
        self
    }

    /// Connections that may be idle. 0 closes each one that comes back and that nobody waits for.
    pub const fn max_idle_per_endpoint(mut self, most: usize) -> Self {
        self.max_idle_per_endpoint = Some(most);
        self
    }

    /// Idle connections that are kept ready.
    pub const fn min_idle(mut self, least: usize) -> Self {
        self.min_idle = Some(least);
        self
    }

    /// Connections that may be opened at a time.
    pub const fn max_connecting(mut self, most: usize) -> Self {
        self.max_connecting = Some(most);
        self
    }

    /// Callers that may wait; one more gets [`Saturated`](crate::ErrorKind::Saturated) at once.
    pub const fn max_waiting(mut self, most: usize) -> Self {
        self.max_waiting = Some(most);
        self
    }

    /// What they come to in a pool with these limits.
    pub(crate) fn settle(self, pool: &Limits) -> Result<Caps, Error> {
        let counts = [
            ("max_per_endpoint", self.max_per_endpoint, 1),
            ("max_idle_per_endpoint", self.max_idle_per_endpoint, 0),
            ("min_idle", self.min_idle, 0),
            ("max_connecting", self.max_connecting, 1),
            ("max_waiting", self.max_waiting, 1),
        ];
        for (name, value, least) in counts {
            check_count(name, value, least)?;
        }
        let max_per_endpoint = self.max_per_endpoint.unwrap_or(pool.max_per_endpoint);
        let pool_idle =
            if pool.idle_follows { max_per_endpoint } else { pool.max_idle_per_endpoint };
        let max_idle_per_endpoint =
            self.max_idle_per_endpoint.unwrap_or_else(|| pool_idle.min(max_per_endpoint));
        let caps = Caps {
            max_per_endpoint,
            max_idle_per_endpoint,
            min_idle: self.min_idle.unwrap_or_else(|| pool.min_idle.min(max_idle_per_endpoint)),
            max_connecting: self.max_connecting.unwrap_or(pool.max_connecting),
            max_waiting: self.max_waiting.unwrap_or_else(|| {
                let follows = pool.waiting_follows;
                if follows { waiting_for(max_per_endpoint) } else { pool.max_waiting }
            }),
        };
        let (most, most_idle) = (caps.max_per_endpoint, caps.max_idle_per_endpoint);
        let pairs = [
            ("max_per_endpoint", most, "max_total", pool.max_total),
            ("max_idle_per_endpoint", most_idle, "max_per_endpoint", most),
            ("min_idle", caps.min_idle, "max_idle_per_endpoint", most_idle),
            ("min_idle", caps.min_idle, "max_idle", pool.max_idle),
        ];
        for (small_name, small, large_name, large) in pairs {
            check_order(small_name, Some(small), large_name, Some(large))?;
        }
        Ok(caps)
    }
}

/// What one endpoint may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Caps {
    pub(crate) max_per_endpoint: usize,
    pub(crate) max_idle_per_endpoint: usize,
    pub(crate) min_idle: usize,
    pub(crate) max_connecting: usize,
    pub(crate) max_waiting: usize,
}

impl Limits {
    /// What an endpoint may have that has no limits of its own.
    pub(crate) const fn caps(&self) -> Caps {
        Caps {
            max_per_endpoint: self.max_per_endpoint,
            max_idle_per_endpoint: self.max_idle_per_endpoint,
            min_idle: self.min_idle,
            max_connecting: self.max_connecting,
            max_waiting: self.max_waiting,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn pool() -> Limits {
        Config { max_total: Some(50), ..Config::default() }.settle().unwrap().limits
    }

    #[test]
    fn what_is_not_set_is_as_the_pools_or_follows() {
        assert_eq!(EndpointLimits::new().settle(&pool()).unwrap(), pool().caps());
        let caps = EndpointLimits::new().max_per_endpoint(40).settle(&pool()).unwrap();
        assert_eq!((caps.max_per_endpoint, caps.max_idle_per_endpoint), (40, 40));
        let caps = EndpointLimits::new().max_per_endpoint(4).settle(&pool()).unwrap();
        assert_eq!((caps.max_idle_per_endpoint, caps.max_waiting), (4, 1024));
        let keeping = Config { min_idle: Some(2), ..Config::default() }.settle().unwrap().limits;
        let caps = EndpointLimits::new().max_per_endpoint(1).settle(&keeping).unwrap();
        assert_eq!(caps.min_idle, 1);
        let explicit = Config { max_idle_per_endpoint: Some(8), ..Config::default() };
        let explicit = explicit.settle().unwrap().limits;
        let caps = EndpointLimits::new().max_per_endpoint(40).settle(&explicit).unwrap();
        assert_eq!(caps.max_idle_per_endpoint, 8, "what the pool was told for all");
    }

    #[test]
    fn what_cannot_be_met_is_refused_with_both_names() {
        let refused = |limits: EndpointLimits, text: &str| {
            assert_eq!(limits.settle(&pool()).unwrap_err().to_string(), text);
        };
        let new = EndpointLimits::new;
        refused(new().max_per_endpoint(51), "max_per_endpoint(51) is more than max_total(50)");
        refused(
            new().max_per_endpoint(4).min_idle(5),
            "min_idle(5) is more than max_idle_per_endpoint(4)",
        );
        refused(
            new().max_idle_per_endpoint(33),
            "max_idle_per_endpoint(33) is more than max_per_endpoint(32)",
        );
        refused(new().max_per_endpoint(0), "max_per_endpoint(0): must be from 1 to 1000000");
        refused(new().max_waiting(0), "max_waiting(0): must be from 1 to 1000000");
    }
}
