//! What settings look like to those who debug.

use std::fmt;

use crate::config::Config;
use crate::redact::Redacted;

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // All are named, so that none can be forgotten.
        let Self {
            name,
            max_total,
            max_per_endpoint,
            max_idle,
            max_idle_per_endpoint,
            min_idle,
            max_connecting,
            max_waiting,
            max_uses,
            idle_timeout,
            max_lifetime,
            checkout_timeout,
            connect_timeout,
            fair_after,
            probe_after,
            check_after,
            check_interval,
            check_timeout,
            settle_timeout,
            fail_fast,
            reuse,
            leak_warning,
            portable_watch,
        } = self;
        f.debug_struct("Config")
            .field("name", &name.as_ref().map(Redacted))
            .field("max_total", max_total)
            .field("max_per_endpoint", max_per_endpoint)
            .field("max_idle", max_idle)
            .field("max_idle_per_endpoint", max_idle_per_endpoint)
            .field("min_idle", min_idle)
            .field("max_connecting", max_connecting)
            .field("max_waiting", max_waiting)
            .field("max_uses", max_uses)
            .field("idle_timeout", idle_timeout)
            .field("max_lifetime", max_lifetime)
            .field("checkout_timeout", checkout_timeout)
            .field("connect_timeout", connect_timeout)
            .field("fair_after", fair_after)
            .field("probe_after", probe_after)
            .field("check_after", check_after)
            .field("check_interval", check_interval)
            .field("check_timeout", check_timeout)
            .field("settle_timeout", settle_timeout)
            .field("fail_fast", fail_fast)
            .field("reuse", reuse)
            .field("leak_warning", leak_warning)
            .field("portable_watch", portable_watch)
            .finish()
    }
}
