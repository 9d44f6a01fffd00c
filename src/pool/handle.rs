//! What the handles have in common.

use std::time::Duration;

use crate::clock;
use crate::connector::Connector;
use crate::core::Manner;
use crate::driver::{Driver, Resolver, Tie};
use crate::error::Error;
use crate::guard::PooledConn;
use crate::request::Request;
use crate::shared::{Home, Shared};
use crate::sync::{self, Arc, Caller, Gate, OnceLock};

/// What [`Pool`](super::Pool)s and [`Endpoint`](super::Endpoint)s hold. Its drop, with the last of
/// them, closes the pool.
pub(super) struct Handle<C: Connector> {
    pub(super) tie: OnceLock<Arc<Tie>>,
    /// Dropped before `shared`: its threads must not end up with the last of that.
    driver: Driver,
    resolver: Resolver,
    pub(super) shared: Arc<Shared<C>>,
    /// Held while the driver is tied to the pool, so that it is once.
    starting: Gate,
}

impl<C: Connector> Handle<C> {
    pub(super) fn new(shared: Shared<C>, driver: Option<Driver>, resolver: Resolver) -> Self {
        let driver = driver.unwrap_or_else(|| Driver::with_name(shared.settings.name.clone()));
        let (tie, starting) = (OnceLock::new(), Gate::default());
        Self { tie, driver, resolver, shared: Arc::new(shared), starting }
    }

    /// Starts the driver, unless it runs. Every path that could wait begins here.
    pub(super) fn start(&self) -> Result<(), Error> {
        match self.tie.get() {
            Some(_) if self.is_orphaned() => Err(Error::closed()),
            Some(_) => Ok(()),
            None => self.start_driver(),
        }
    }

    #[cold]
    fn start_driver(&self) -> Result<(), Error> {
        if self.shared.is_closed() {
            return Err(Error::closed());
        }
        let starting = self.starting.enter();
        if self.tie.get().is_none() {
            let tie = self.driver.tie(&self.shared, self.resolver.clone())?;
            let first = self.tie.set(tie);
            debug_assert!(first.is_ok(), "bug: a pool was tied to its driver twice");
        }
        drop(starting);
        Ok(())
    }

    pub(super) fn is_orphaned(&self) -> bool {
        self.shared.is_orphaned()
    }
}

impl<C: Connector> Drop for Handle<C> {
    fn drop(&mut self) {
        match self.tie.get() {
            // What could be closed or locked here is the parent's as well: it is left as it is.
            Some(tie) if self.is_orphaned() => {
                std::mem::forget(Arc::clone(tie));
                std::mem::forget(Arc::clone(&self.shared));
            }
            _ => self.shared.close(),
        }
    }
}

#[inline(always)]
pub(super) fn checkout<C: Connector>(
    handle: &Handle<C>,
    home: Arc<Home<C>>,
    timeout: Option<Duration>,
    caller: Caller,
) -> Result<PooledConn<C>, Error> {
    match home.checkout_fast(caller) {
        Some(held) => Ok(PooledConn::new(held, home)),
        None => {
            let timeout = timeout.unwrap_or_else(|| home.shared.checkout_timeout());
            checkout_slow(handle, home, timeout, Manner::Eager, caller)
        }
    }
}

#[cold]
#[inline(never)]
fn checkout_slow<C: Connector>(
    handle: &Handle<C>,
    home: Arc<Home<C>>,
    timeout: Duration,
    manner: Manner,
    caller: Caller,
) -> Result<PooledConn<C>, Error> {
    let began = clock::mono();
    let mut result = handle.start().and_then(|()| home.checkout_slow(timeout, manner, caller));
    home.tell_checkout(began, &mut result);
    Ok(PooledConn::new(result?, home))
}

/// A checkout that no outage ends before its deadline.
pub(super) fn checkout_patiently<C: Connector>(
    handle: &Handle<C>,
    home: Arc<Home<C>>,
    timeout: Duration,
    caller: Caller,
) -> Result<PooledConn<C>, Error> {
    match home.checkout_fast(caller) {
        Some(held) => Ok(PooledConn::new(held, home)),
        None => checkout_slow(handle, home, timeout, Manner::Patient, caller),
    }
}

pub(super) fn request<C: Connector>(
    handle: &Handle<C>,
    home: Arc<Home<C>>,
    caller: Caller,
) -> Result<Request<C>, Error> {
    if sync::must_not_wait_for(home.shared.id) {
        return Err(home.tell_refused(Error::rejected().at(&home.label)));
    }
    if let Some(held) = home.checkout_fast(caller) {
        return Ok(Request::answered(home, held, caller));
    }
    handle.start().map_err(|error| home.tell_refused(error))?;
    Request::ask(home, caller)
}

pub(super) fn try_checkout<C: Connector>(
    handle: &Handle<C>,
    home: Arc<Home<C>>,
    caller: Caller,
) -> Option<PooledConn<C>> {
    let slowly = || if handle.is_orphaned() { None } else { home.try_checkout(caller) };
    let held = home.checkout_fast(caller).or_else(slowly)?;
    Some(PooledConn::new(held, home))
}
