//! From names to endpoints.

use std::time::Duration;

use crate::clock::{self, Now, Stamp};
use crate::connector::Connector;
use crate::core::{Effects, Fate};
use crate::error::Error;
use crate::key::Name;
use crate::redact::Redacted;
use crate::shared::record::Remembered;
use crate::shared::{Home, Shared, drop_guarded, guarded};
use crate::sync::{Arc, AtomicU32};
use crate::sys::{HashMap, HashSet};

/// Texts remembered for one endpoint; more are parsed each time.
const MOST_ALIASES: usize = 8;
/// Fewer endpoints than this are not worth a sweep.
const SWEEP_AT_LEAST: usize = 64;
/// Between two sweeps of many endpoints that nobody uses any more.
const SWEEP_PAUSE: Duration = Duration::from_secs(1);

/// Two tables: of texts as they stand, and of keys.
///
/// Their lock is taken before the pool's, never after, and only off the fast path of an
/// [`Endpoint`](crate::Endpoint). Under it run the key's own `Hash`, `Eq` and `Clone`.
pub(crate) struct Names<C: Connector> {
    by_text: HashMap<Box<str>, Arc<Home<C>>>,
    by_key: HashMap<C::Key, Known<C>>,
    /// With so many endpoints, those that nobody uses are looked for.
    sweep_at: usize,
    /// When they last were.
    swept_at: Stamp,
    is_closed: bool,
}

struct Known<C: Connector> {
    home: Arc<Home<C>>,
    /// The texts it is known by.
    aliases: Vec<Box<str>>,
}

impl<C: Connector> Known<C> {
    /// How many hold it but the tables: they do once by key, and once for each text.
    fn holders(&self) -> usize {
        Arc::strong_count(&self.home) - 1 - self.aliases.len()
    }
}

impl<C: Connector> Names<C> {
    pub(crate) fn new() -> Self {
        Self {
            by_text: HashMap::default(),
            by_key: HashMap::default(),
            sweep_at: SWEEP_AT_LEAST,
            swept_at: Stamp::ZERO,
            is_closed: false,
        }
    }

    /// Takes an endpoint out of both tables; what is returned is to be dropped after the lock.
    fn take_out(&mut self, home: &Home<C>) -> Option<Taken<C>> {
        let (key, known) = self.by_key.remove_entry(&home.key)?;
        for text in &known.aliases {
            self.by_text.remove(text);
        }
        Some((key, known))
    }
}

/// An endpoint that is in neither table any more.
type Taken<C> = (<C as Connector>::Key, Known<C>);

impl<C: Connector> Shared<C> {
    /// The endpoint of that name. Made, if it was not known.
    #[inline(always)]
    pub(crate) fn find<N: Name<C::Key> + ?Sized>(
        self: &Arc<Self>,
        name: &N,
    ) -> Result<Arc<Home<C>>, Error> {
        if let Some(text) = name.as_text() {
            if let Some(home) = self.read_names()?.by_text.get(text) {
                return Ok(Arc::clone(home));
            }
        }
        self.find_by_key(name)
    }

    #[cold]
    fn find_by_key<N: Name<C::Key> + ?Sized>(
        self: &Arc<Self>,
        name: &N,
    ) -> Result<Arc<Home<C>>, Error> {
        let key = name.to_key()?;
        let known = self.read_names()?.by_key.get(&*key).map(|known| {
            let is_full = known.aliases.len() >= MOST_ALIASES;
            (Arc::clone(&known.home), is_full)
        });
        let (home, is_full) = match known {
            Some(known) => known,
            None => (self.make(key.into_owned())?, false),
        };
        match name.as_text() {
            Some(text) if !is_full => self.remember(text, &home),
            _ => {}
        }
        Ok(home)
    }

    /// The endpoint of that name, if it is known.
    pub(crate) fn find_known<N: Name<C::Key> + ?Sized>(
        &self,
        name: &N,
    ) -> Result<Option<Arc<Home<C>>>, Error> {
        if let Some(text) = name.as_text() {
            if let Some(home) = self.read_names()?.by_text.get(text) {
                return Ok(Some(Arc::clone(home)));
            }
        }
        let key = name.to_key()?;
        Ok(self.read_names()?.by_key.get(&*key).map(|known| Arc::clone(&known.home)))
    }

    fn make(self: &Arc<Self>, key: C::Key) -> Result<Arc<Home<C>>, Error> {
        if self.is_orphaned() {
            return Err(Error::closed());
        }
        // The connector's code runs before any lock.
        let plan = guarded(|| self.connector.plan(&key)).map_err(|panic| {
            Error::config(format!("the connector's plan for \"{key}\" panicked: {panic}"))
        })?;
        plan.check()?;
        let has_beats = guarded(|| self.connector.heartbeat(&key).is_some()).map_err(|panic| {
            Error::config(format!("the connector's heartbeat for \"{key}\" panicked: {panic}"))
        })?;
        let label: Arc<str> = Redacted(&key).to_string().into();
        let own = key.clone();
        let mut names = self.names.write();
        if names.is_closed {
            return Err(Error::closed());
        }
        if let Some(known) = names.by_key.get(&key) {
            return Ok(Arc::clone(&known.home)); // somebody else was faster
        }
        let mut state = self.state.lock();
        let place = state.core.add_endpoint(clock::wall());
        if plan.begins_in_loop() {
            state.core.leave_deadlines_to_loop(place);
        }
        if has_beats {
            state.core.expect_beats(place);
        }
        let home = Arc::new(Home {
            shared: Arc::clone(self),
            key: own,
            label,
            plan: Box::new(plan),
            place,
            epoch: AtomicU32::new(0),
            outage: Remembered::default(),
        });
        state.homes.insert(place, Arc::downgrade(&home));
        drop(state);
        names.by_key.insert(key, Known { home: Arc::clone(&home), aliases: Vec::new() });
        let is_crowded = names.by_key.len() >= names.sweep_at;
        drop(names);
        if is_crowded {
            if let Some(at) = self.forget_unused() {
                self.transact(|core, fx| core.look_by(at, fx));
            }
        }
        Ok(home)
    }

    fn remember(&self, text: &str, home: &Arc<Home<C>>) {
        if self.is_orphaned() {
            return;
        }
        let mut names = self.names.write();
        let Names { by_text, by_key, .. } = &mut *names;
        let Some(known) = by_key.get_mut(&home.key) else { return };
        let is_same = Arc::ptr_eq(&known.home, home);
        if is_same && known.aliases.len() < MOST_ALIASES && !by_text.contains_key(text) {
            by_text.insert(text.into(), Arc::clone(home));
            known.aliases.push(text.into());
        }
    }

    /// Forgets endpoints that nobody holds and where nothing happens. Returns when to look again,
    /// if there are many that must be remembered for a moment only.
    pub(crate) fn forget_unused(&self) -> Option<Stamp> {
        let now = Now::read();
        let mono = now.mono;
        let mut names = self.names.write();
        let (last, vacant) = (names.swept_at, self.state.lock().core.vacant_count());
        // Many that are held would otherwise be looked at again and again.
        let is_too_soon = vacant > SWEEP_AT_LEAST && mono.since(last) < SWEEP_PAUSE;
        let is_crowded = names.by_key.len() >= names.sweep_at;
        if is_too_soon && !is_crowded {
            return Some(last.plus(SWEEP_PAUSE));
        }
        names.swept_at = mono;
        drop(names);
        let (mut looked_at, mut remembered) = (0, 0);
        while looked_at < vacant {
            let swept = self.sweep(now);
            if swept.0 == 0 {
                break;
            }
            looked_at += swept.0;
            remembered += swept.1;
        }
        (remembered > SWEEP_AT_LEAST).then(|| mono.plus(SWEEP_PAUSE))
    }

    /// Looks at some endpoints. Returns at how many, and how many of them nobody holds but must be
    /// remembered for a moment.
    fn sweep(&self, now: Now) -> (usize, usize) {
        let mut fx = Effects::new();
        let mut names = self.names.write();
        let mut state = self.state.lock();
        let vacant = state.core.vacant();
        let homes = vacant.iter().filter_map(|place| state.homes.get(place)?.upgrade());
        let homes: Vec<_> = homes.collect();
        drop(state);
        // Nobody can come to hold one as long as the tables are locked; here it is held once.
        let is_held = |home: &Arc<Home<C>>| {
            names.by_key.get(&home.key).is_none_or(|known| known.holders() > 1)
        };
        let (held, free): (Vec<_>, Vec<_>) = homes.into_iter().partition(is_held);
        let mut state = self.state.lock();
        let mut kept_for_now = 0;
        let forget = |home: &Arc<Home<C>>| {
            let fate = state.core.forget_endpoint(home.place, now, &mut fx);
            kept_for_now += usize::from(fate == Fate::StaysForNow);
            fate == Fate::Forgotten
        };
        let (gone, kept): (Vec<_>, Vec<_>) = free.into_iter().partition(forget);
        for home in &gone {
            state.homes.remove(&home.place);
        }
        drop(state);
        let taken: Vec<_> = gone.iter().map(|home| names.take_out(home)).collect();
        let known = names.by_key.len();
        names.sweep_at = SWEEP_AT_LEAST.max(2 * known);
        if names.by_key.capacity() > 8 * names.sweep_at {
            names.by_key.shrink_to(known);
            names.by_text.shrink_to(known);
        }
        drop(names);
        let swept = (vacant.len(), kept_for_now);
        // Keys and errors are dropped after both locks. Of those that stay this may be the last
        // hold by now.
        let last: Vec<_> = held.into_iter().chain(kept).filter_map(Arc::into_inner).collect();
        if !gone.is_empty() || !last.is_empty() {
            self.let_go_of((last, gone, taken, fx));
        }
        swept
    }

    /// Refuses new endpoints and lets go of all: homes hold the pool, and the pool held them.
    pub(crate) fn forget_all(&self) {
        let mut names = self.names.write();
        names.is_closed = true;
        let by_text = std::mem::take(&mut names.by_text);
        let by_key = std::mem::take(&mut names.by_key);
        drop(names);
        drop_guarded((by_text, by_key));
    }

    /// Whether anybody but the tables holds the endpoint at `place`.
    pub(crate) fn held_endpoints(&self) -> HashSet<u32> {
        let names = self.names.read();
        let held = names.by_key.values().filter(|known| known.holders() > 0);
        held.map(|known| known.home.place).collect()
    }

    pub(crate) fn all_homes(&self) -> Vec<Arc<Home<C>>> {
        self.names.read().by_key.values().map(|known| Arc::clone(&known.home)).collect()
    }
}
