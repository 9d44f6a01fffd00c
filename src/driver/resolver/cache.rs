//! What is known of names, and who waits to know: decided without a thread or a clock.

use std::net::SocketAddr;
use std::time::Duration;

use crate::clock::Stamp;
use crate::connector::Resolved;
use crate::driver::crew::Mark;
use crate::driver::resolver::Cause;
use crate::shared::drop_guarded;
use crate::sync::Arc;
use crate::sys::HashMap;

/// Names that are remembered at the most, beside those that somebody waits for; beyond that, those
/// go first whose time is nearest.
const MOST_NAMES: usize = 1_024;
/// A look-up that a thread has had for so long is taken for hung: whoever asks next begins another.
pub(crate) const HUNG_AFTER: Duration = Duration::from_secs(5);

/// For how long answers are used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    pub(crate) ttl: Duration,
    pub(crate) negative_ttl: Duration,
    pub(crate) stale_for: Duration,
}

/// What is known of names. `W` is who waits for an answer, named by a key `K`.
#[derive(Debug)]
pub(crate) struct Cache<K, W> {
    names: HashMap<Box<str>, Name<K, W>>,
    /// Of look-ups begun so far.
    count: u64,
    /// Look-ups up to this one were begun before all answers were forgotten: what they bring is not
    /// remembered.
    cleared: u64,
    /// Somebody else's errors: whoever has the lock takes them along, to drop them after it.
    forgotten: Vec<Arc<Cause>>,
}

#[derive(Debug)]
struct Name<K, W> {
    answer: Option<Positive>,
    failure: Option<Negative>,
    flight: Option<Flight>,
    waiting: Vec<(K, W)>,
}

#[derive(Debug)]
struct Positive {
    addrs: Arc<[SocketAddr]>,
    learned_at: Stamp,
    fresh_until: Stamp,
    stale_until: Stamp,
    /// The look-up that brought it.
    number: u64,
}

/// Until then, nobody asks again.
#[derive(Debug)]
struct Negative {
    cause: Arc<Cause>,
    until: Stamp,
}

/// A look-up under way.
#[derive(Debug)]
struct Flight {
    look_up: LookUp,
    /// When a thread took it.
    began: Option<Stamp>,
}

/// A look-up to begin: its number, and the mark of its job.
#[derive(Clone, Debug)]
pub(crate) struct LookUp {
    pub(crate) number: u64,
    pub(crate) mark: Arc<Mark>,
}

pub(crate) type Outcome = Result<Arc<[SocketAddr]>, Arc<Cause>>;

/// What a caller is to do.
#[derive(Debug)]
pub(crate) struct Found {
    /// What is known; nothing if it is to wait.
    pub(crate) outcome: Option<Outcome>,
    pub(crate) look_up: Option<LookUp>,
}

/// Who has waited for an answer that came, and what it is; nobody if it was of no use.
pub(crate) type Told<K, W> = (Vec<(K, W)>, Outcome);

impl<K: PartialEq, W> Cache<K, W> {
    pub(crate) fn new() -> Self {
        Self { names: HashMap::default(), count: 0, cleared: 0, forgotten: Vec::new() }
    }

    /// What is known of a name. What has grown stale is used, and looked up again beside that.
    pub(crate) fn find(&mut self, name: &str, now: Stamp) -> Found {
        if !self.names.contains_key(name) {
            self.make_room(now);
            let unknown = Name { answer: None, failure: None, flight: None, waiting: Vec::new() };
            self.names.insert(name.into(), unknown);
        }
        let Some(known) = self.names.get_mut(name) else {
            return Found { outcome: None, look_up: None };
        };
        known.find(&mut self.count, now, &mut self.forgotten)
    }

    /// A thread takes a look-up; false if nobody needs it any more: then it is under way no longer,
    /// and whoever asks next begins another.
    pub(crate) fn take_up(&mut self, name: &str, number: u64, now: Stamp) -> bool {
        let Some(known) = self.names.get_mut(name) else { return false };
        let is_needed = known.is_needed(now);
        match &mut known.flight {
            Some(flight) if flight.look_up.number == number => flight.began = Some(now),
            _ => return false,
        }
        if !is_needed {
            known.flight = None;
            self.forget_useless(name, now);
        }
        is_needed
    }

    /// Has somebody wait for what [`find`](Cache::find) did not know. Given back if there is
    /// nothing to wait for: the answer came in the meantime.
    pub(crate) fn wait(&mut self, name: &str, key: K, waiter: W) -> Result<(), W> {
        match self.names.get_mut(name) {
            Some(known) if known.flight.is_some() => {
                known.waiting.push((key, waiter));
                Ok(())
            }
            _ => Err(waiter),
        }
    }

    /// Takes out somebody who need not wait any more; with the look-up, if nobody is left who does
    /// and no thread has it yet: whoever asks next begins another.
    pub(crate) fn withdraw(&mut self, key: &K, now: Stamp) -> Option<(W, Option<LookUp>)> {
        let (name, waiter, look_up) = self.names.iter_mut().find_map(|(name, known)| {
            let at = known.waiting.iter().position(|(waiting, _)| waiting == key)?;
            let (_, waiter) = known.waiting.swap_remove(at);
            let is_needed = known.is_needed(now);
            let flight = known.flight.take_if(|flight| !is_needed && flight.began.is_none());
            let look_up = flight.map(|flight| flight.look_up);
            Some((look_up.is_some().then(|| name.clone()), waiter, look_up))
        })?;
        if let Some(name) = name {
            self.forget_useless(&name, now);
        }
        Some((waiter, look_up))
    }

    /// A look-up has ended. One that was taken for hung counts if it brings an answer after all,
    /// and none was brought by a younger one.
    pub(crate) fn finish(
        &mut self,
        (name, number): (&str, u64),
        result: Result<Resolved, Arc<Cause>>,
        times: Times,
        now: Stamp,
    ) -> Option<Told<K, W>> {
        let Some(known) = self.names.get_mut(name) else {
            self.forgotten.extend(result.err());
            return None;
        };
        let is_current =
            known.flight.as_ref().is_some_and(|flight| flight.look_up.number == number);
        let is_newest = known.answer.as_ref().is_none_or(|answer| answer.number < number);
        let is_outdated = number <= self.cleared;
        match result {
            Err(cause) if !is_current => {
                self.forgotten.push(cause);
                None
            }
            Ok(_) if !is_current && (is_outdated || !is_newest) => None,
            result => {
                if is_current {
                    known.flight = None;
                }
                let outcome = if is_outdated {
                    result.map(|resolved| resolved.addrs().into())
                } else {
                    known.learn(number, result, times, now, &mut self.forgotten)
                };
                let waiting = std::mem::take(&mut known.waiting);
                self.forget_useless(name, now);
                Some((waiting, outcome))
            }
        }
    }

    /// Nothing answers at the addresses of this name: they may have changed. Says which look-up to
    /// begin; until it ends they are used on.
    pub(crate) fn doubt(&mut self, name: &str, times: Times, now: Stamp) -> Option<LookUp> {
        let known = self.names.get_mut(name)?;
        let answer = known.answer.as_ref()?;
        // What was learned a moment ago would be learned again.
        let is_new = now.since(answer.learned_at) < times.negative_ttl;
        let is_paused = known.failure.as_ref().is_some_and(|failure| failure.until > now);
        if is_new || is_paused || known.is_looked_up(now) {
            return None;
        }
        Some(known.begin(&mut self.count))
    }

    /// Forgets all answers. Who waits, waits on.
    pub(crate) fn clear(&mut self) {
        self.cleared = self.count;
        self.retain(|known| {
            known.answer = None;
            known.flight.is_some()
        });
        for known in self.names.values_mut() {
            self.forgotten.extend(known.forget_failure());
        }
    }

    /// What was forgotten since this was asked last.
    pub(crate) fn take_forgotten(&mut self) -> Vec<Arc<Cause>> {
        std::mem::take(&mut self.forgotten)
    }

    fn retain(&mut self, mut is_kept: impl FnMut(&mut Name<K, W>) -> bool) {
        let forgotten = &mut self.forgotten;
        self.names.retain(|_, known| {
            let is_kept = is_kept(known);
            if !is_kept {
                forgotten.extend(known.forget_failure());
            }
            is_kept
        });
    }

    /// Forgets a name of which nothing is known that could be used, and nothing is to come.
    fn forget_useless(&mut self, name: &str, now: Stamp) {
        if self.names.get(name).is_some_and(|known| known.useful_until() <= now) {
            let useless = self.names.remove(name);
            self.forgotten.extend(useless.and_then(|mut known| known.forget_failure()));
        }
    }

    /// Before another name is added.
    fn make_room(&mut self, now: Stamp) {
        if self.names.len() < MOST_NAMES {
            return;
        }
        self.retain(|known| known.useful_until() > now);
        if self.names.len() < MOST_NAMES {
            return;
        }
        let mut ends: Vec<Stamp> = self.names.values().map(Name::useful_until).collect();
        let half = ends.len() / 2;
        let (_, median, _) = ends.select_nth_unstable(half);
        let median = *median;
        self.retain(|known| known.flight.is_some() || known.useful_until() > median);
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.names.len()
    }
}

impl<K, W> Drop for Cache<K, W> {
    /// Somebody else's errors go with it.
    fn drop(&mut self) {
        drop_guarded((std::mem::take(&mut self.names), std::mem::take(&mut self.forgotten)));
    }
}

impl<K, W> Name<K, W> {
    fn find(&mut self, count: &mut u64, now: Stamp, forgotten: &mut Vec<Arc<Cause>>) -> Found {
        let is_paused = self.failure.as_ref().is_some_and(|failure| failure.until > now);
        if !is_paused {
            forgotten.extend(self.forget_failure());
        }
        let usable = self.answer.as_ref().filter(|answer| answer.stale_until > now);
        let outcome = match (usable, &self.failure) {
            (Some(answer), _) => Some(Ok(Arc::clone(&answer.addrs))),
            (None, Some(failure)) => Some(Err(Arc::clone(&failure.cause))),
            (None, None) => None,
        };
        let is_fresh = usable.is_some_and(|answer| answer.fresh_until > now);
        let is_needed = !is_fresh && !is_paused && !self.is_looked_up(now);
        Found { outcome, look_up: is_needed.then(|| self.begin(count)) }
    }

    /// Somebody waits for a look-up, or it renews an answer.
    fn is_needed(&self, now: Stamp) -> bool {
        let is_renewal = self.answer.as_ref().is_some_and(|answer| answer.stale_until > now);
        is_renewal || !self.waiting.is_empty()
    }

    /// A look-up is under way and has not hung.
    fn is_looked_up(&self, now: Stamp) -> bool {
        let flight = self.flight.as_ref();
        flight.is_some_and(|it| it.began.is_none_or(|began| now.since(began) < HUNG_AFTER))
    }

    fn begin(&mut self, count: &mut u64) -> LookUp {
        *count += 1;
        let look_up = LookUp { number: *count, mark: Arc::default() };
        self.flight = Some(Flight { look_up: look_up.clone(), began: None });
        look_up
    }

    fn learn(
        &mut self,
        number: u64,
        result: Result<Resolved, Arc<Cause>>,
        times: Times,
        now: Stamp,
        forgotten: &mut Vec<Arc<Cause>>,
    ) -> Outcome {
        forgotten.extend(self.forget_failure());
        match result {
            Ok(resolved) => {
                let fresh_until = now.plus(resolved.own_ttl().unwrap_or(times.ttl));
                let addrs: Arc<[SocketAddr]> = resolved.addrs().into();
                self.answer = Some(Positive {
                    addrs: Arc::clone(&addrs),
                    learned_at: now,
                    fresh_until,
                    stale_until: fresh_until.plus(times.stale_for),
                    number,
                });
                Ok(addrs)
            }
            Err(cause) => {
                // What this side has run out of says nothing about the name.
                if !cause.is_local {
                    let until = now.plus(times.negative_ttl);
                    self.failure = Some(Negative { cause: Arc::clone(&cause), until });
                }
                match self.answer.as_ref().filter(|answer| answer.stale_until > now) {
                    Some(answer) => {
                        forgotten.push(cause);
                        Ok(Arc::clone(&answer.addrs))
                    }
                    None => Err(cause),
                }
            }
        }
    }

    fn forget_failure(&mut self) -> Option<Arc<Cause>> {
        self.failure.take().map(|failure| failure.cause)
    }

    /// Until when there is a reason to remember it.
    fn useful_until(&self) -> Stamp {
        if self.flight.is_some() {
            return Stamp::MAX;
        }
        let answer = self.answer.as_ref().map_or(Stamp::ZERO, |answer| answer.stale_until);
        self.failure.as_ref().map_or(answer, |failure| failure.until.max(answer))
    }
}

#[cfg(test)]
mod tests;
