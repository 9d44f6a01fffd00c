//! Settings that change while the pool is in use.

use std::time::Duration;

use crate::clock::{Now, nanos};
use crate::config::{Caps, Config, EndpointLimits, Limits, Settings};
use crate::connector::Connector;
use crate::error::Error;
use crate::shared::{Home, Shared, drop_guarded};
use crate::sync::{AtomicU32, AtomicU64, Ordering, Weak};

/// Settings that are read without the lock. Whoever reads two of them while they change may find
/// one of before and one of after.
pub(super) struct InForce {
    checkout_timeout: AtomicU64,
    probe_after: AtomicU64,
    max_uses: AtomicU32,
}

impl InForce {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            checkout_timeout: AtomicU64::new(nanos(settings.checkout_timeout)),
            probe_after: AtomicU64::new(nanos(settings.probe_after)),
            max_uses: AtomicU32::new(settings.limits.max_uses),
        }
    }

    fn set(&self, settings: &Settings) {
        self.checkout_timeout.store(nanos(settings.checkout_timeout), Ordering::Relaxed);
        self.probe_after.store(nanos(settings.probe_after), Ordering::Relaxed);
        self.max_uses.store(settings.limits.max_uses, Ordering::Relaxed);
    }

    /// Idle for so long, in nanoseconds, a socket is looked at before it goes out.
    #[inline(always)]
    pub(super) fn probe_after(&self) -> u64 {
        self.probe_after.load(Ordering::Relaxed)
    }

    #[inline(always)]
    pub(super) fn max_uses(&self) -> u32 {
        self.max_uses.load(Ordering::Relaxed)
    }
}

impl<C: Connector> Shared<C> {
    pub(crate) fn checkout_timeout(&self) -> Duration {
        Duration::from_nanos(self.in_force.checkout_timeout.load(Ordering::Relaxed))
    }

    /// The settings as they were given last.
    pub(crate) fn config(&self) -> Config {
        self.enter().map_or_else(Config::new, |state| state.config.clone())
    }

    /// The limits in force; none in a child process that cannot have the lock.
    pub(crate) fn limits(&self) -> Option<Limits> {
        self.enter().map(|state| state.core.limits().clone())
    }

    /// Puts settings in force: `config`, as it was settled. Of calls that race, the last one's are
    /// in force, all of them.
    pub(crate) fn reconfigure(
        &self,
        mut config: Config,
        mut settings: Settings,
    ) -> Result<(), Error> {
        if !self.has_check {
            settings.limits.check_after = None;
        }
        let Some(mut state) = self.enter() else { return Err(Error::closed()) };
        if state.core.is_closed() {
            return Err(Error::closed());
        }
        let caps = match state.core.caps_under(&settings.limits) {
            Ok(caps) => caps,
            Err((endpoint, error)) => {
                let home = state.homes.get(&endpoint).and_then(Weak::upgrade);
                drop(state);
                let Some(home) = home else { return Err(error) };
                let error = error.at(&home.label);
                drop_guarded(home); // by now this may be the last hold
                return Err(error);
            }
        };
        config.name = config.name.or_else(|| state.config.name.take());
        config.portable_watch = config.portable_watch.or(state.config.portable_watch);
        state.config = config;
        self.in_force.set(&settings);
        let (limits, now) = (settings.limits, Now::read());
        self.transact_under(state, |core, fx| core.reconfigure(limits, &caps, now, fx));
        Ok(())
    }

    /// What an endpoint with such limits of its own may have at this moment.
    pub(crate) fn settle_limits(&self, limits: EndpointLimits) -> Result<Caps, Error> {
        let Some(state) = self.enter() else { return Err(Error::closed()) };
        limits.settle(state.core.limits())
    }

    /// Gives an endpoint limits of its own.
    pub(crate) fn set_limits(&self, home: &Home<C>, limits: EndpointLimits) -> Result<(), Error> {
        let Some(state) = self.enter() else { return Err(Error::closed()) };
        let (caps, now) = (limits.settle(state.core.limits())?, Now::read());
        self.transact_under(state, |core, fx| {
            core.set_limits(home.place, limits, caps, now, fx);
        });
        Ok(())
    }
}
