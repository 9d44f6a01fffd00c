//! How settings are given.

use std::time::Duration;

use crate::config::{Config, Reuse};
use crate::redact::Redacted;

impl Config {
    /// Nothing set: all at its default.
    pub fn new() -> Self {
        Self::default()
    }

    /// The name of the pool. See [`Builder::name`](crate::Builder::name). A pool that is there
    /// keeps the one it has.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(Redacted(name.into()));
        self
    }

    /// Connections to all endpoints together. See
    /// [`Builder::max_total`](crate::Builder::max_total).
    pub fn max_total(mut self, most: usize) -> Self {
        self.max_total = Some(most);
        self
    }

    /// Connections to one endpoint. See
    /// [`Builder::max_per_endpoint`](crate::Builder::max_per_endpoint).
    pub fn max_per_endpoint(mut self, most: usize) -> Self {
        self.max_per_endpoint = Some(most);
        self
    }

    /// Idle connections to all endpoints together. See
    /// [`Builder::max_idle`](crate::Builder::max_idle).
    pub fn max_idle(mut self, most: usize) -> Self {
        self.max_idle = Some(most);
        self
    }

    /// Idle connections to one endpoint. See
    /// [`Builder::max_idle_per_endpoint`](crate::Builder::max_idle_per_endpoint).
    pub fn max_idle_per_endpoint(mut self, most: usize) -> Self {
        self.max_idle_per_endpoint = Some(most);
        self
    }

    /// Idle connections to keep ready. See [`Builder::min_idle`](crate::Builder::min_idle).
    pub fn min_idle(mut self, least: usize) -> Self {
        self.min_idle = Some(least);
        self
    }

    /// Connections to one endpoint being opened at the same time. See
    /// [`Builder::max_connecting`](crate::Builder::max_connecting).
    pub fn max_connecting(mut self, most: usize) -> Self {
        self.max_connecting = Some(most);
        self
    }

    /// Callers that may wait for one endpoint. See
    /// [`Builder::max_waiting`](crate::Builder::max_waiting).
    pub fn max_waiting(mut self, most: usize) -> Self {
        self.max_waiting = Some(most);
        self
    }

    /// How often a connection is checked out. See [`Builder::max_uses`](crate::Builder::max_uses).
    pub fn max_uses(mut self, most: impl Into<Option<u32>>) -> Self {
        self.max_uses = Some(most.into());
        self
    }

    /// How long a connection may be idle. See
    /// [`Builder::idle_timeout`](crate::Builder::idle_timeout).
    pub fn idle_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.idle_timeout = Some(timeout.into());
        self
    }

    /// How old a connection may become. See
    /// [`Builder::max_lifetime`](crate::Builder::max_lifetime).
    pub fn max_lifetime(mut self, lifetime: impl Into<Option<Duration>>) -> Self {
        self.max_lifetime = Some(lifetime.into());
        self
    }

    /// How long a checkout may take. See
    /// [`Builder::checkout_timeout`](crate::Builder::checkout_timeout).
    pub fn checkout_timeout(mut self, timeout: Duration) -> Self {
        self.checkout_timeout = Some(timeout);
        self
    }

    /// How long opening a connection may take. See
    /// [`Builder::connect_timeout`](crate::Builder::connect_timeout).
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = Some(timeout);
        self
    }

    /// Whether callers learn at once of a failed attempt. See
    /// [`Builder::fail_fast`](crate::Builder::fail_fast).
    pub fn fail_fast(mut self, yes: bool) -> Self {
        self.fail_fast = Some(yes);
        self
    }

    /// How long a caller may be overtaken. See [`Builder::fair_after`](crate::Builder::fair_after).
    pub fn fair_after(mut self, wait: Duration) -> Self {
        self.fair_after = Some(wait);
        self
    }

    /// When an idle socket is looked at before it goes out. See
    /// [`Builder::probe_after`](crate::Builder::probe_after).
    pub fn probe_after(mut self, idle: Duration) -> Self {
        self.probe_after = Some(idle);
        self
    }

    /// When an idle connection is checked before it goes out. See
    /// [`Builder::check_after`](crate::Builder::check_after).
    pub fn check_after(mut self, idle: Duration) -> Self {
        self.check_after = Some(idle);
        self
    }

    /// How long an idle connection goes without proof that it works. See
    /// [`Builder::check_interval`](crate::Builder::check_interval).
    pub fn check_interval(mut self, interval: impl Into<Option<Duration>>) -> Self {
        self.check_interval = Some(interval.into());
        self
    }

    /// How long a check may take. See [`Builder::check_timeout`](crate::Builder::check_timeout).
    pub fn check_timeout(mut self, timeout: Duration) -> Self {
        self.check_timeout = Some(timeout);
        self
    }

    /// How long settling may take. See
    /// [`Builder::settle_timeout`](crate::Builder::settle_timeout).
    pub fn settle_timeout(mut self, timeout: Duration) -> Self {
        self.settle_timeout = Some(timeout);
        self
    }

    /// Which idle connection is taken first. See [`Builder::reuse`](crate::Builder::reuse).
    pub fn reuse(mut self, reuse: Reuse) -> Self {
        self.reuse = Some(reuse);
        self
    }

    /// When a connection that is out is suspected to have leaked. See
    /// [`Builder::leak_warning`](crate::Builder::leak_warning).
    pub fn leak_warning(mut self, after: impl Into<Option<Duration>>) -> Self {
        self.leak_warning = Some(after.into());
        self
    }

    /// Watches idle connections by the means that every Unix has. See
    /// [`Builder::portable_watch`](crate::Builder::portable_watch). A pool that is there goes on as
    /// it began.
    pub fn portable_watch(mut self, on: bool) -> Self {
        self.portable_watch = Some(on);
        self
    }
}
