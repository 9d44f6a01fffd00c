//! The naive pool gets other limits.

use super::super::world::millis;
use super::{Model, Pair};
use crate::config::{Limits, Reuse};
use crate::observe::CloseReason;

impl Model {
    fn total(&self, endpoint: u32) -> usize {
        let conns = self.conns.iter().filter(|conn| conn.endpoint == endpoint).count();
        conns + self.connects.values().filter(|theirs| theirs.endpoint == endpoint).count()
    }

    /// What comes there is one too many.
    pub(super) fn is_over(&self, endpoint: u32) -> bool {
        self.total(endpoint) > self.limits.max_per_endpoint
    }

    /// What is idle and may be no longer ends: of each endpoint, then of all.
    fn reconfigured(&mut self, limits: Limits) {
        self.limits = limits;
        for endpoint in 0..2 {
            while self.is_over(endpoint)
                || self.idle(endpoint).count() > self.limits.max_idle_per_endpoint
            {
                let oldest = self.idle(endpoint).min_by_key(|conn| conn.idle_since);
                let Some(id) = oldest.map(|conn| conn.id) else { break };
                self.end(id, CloseReason::Surplus);
            }
        }
        loop {
            let idle = self.conns.iter().filter(|conn| conn.idle_since.is_some());
            if idle.clone().count() <= self.limits.max_idle {
                return;
            }
            let is_awaited = |endpoint| self.waiters.iter().any(|it| it.endpoint == endpoint);
            let oldest = idle.min_by_key(|conn| (is_awaited(conn.endpoint), conn.idle_since));
            let id = oldest.expect("there is one too many").id;
            self.end(id, CloseReason::Surplus);
        }
    }
}

impl Pair<'_> {
    pub(super) fn reconfigure(&mut self) {
        let random = &mut *self.random;
        let max_per_endpoint = random.pick(&[1, 2, 5]);
        let limits = Limits {
            max_per_endpoint,
            max_idle: random.pick(&[0, 1, 2, 20]),
            max_idle_per_endpoint: random.pick(&[0, 1, 2, 5]).min(max_per_endpoint),
            max_connecting: random.pick(&[1, 2, 20]),
            max_waiting: random.pick(&[2, 1_000]),
            fair_after: millis(random.pick(&[0, 2, 5])),
            reuse: random.pick(&[Reuse::Newest, Reuse::Oldest]),
            ..self.model.limits.clone()
        };
        self.model.reconfigured(limits.clone());
        self.world.reconfigure(&limits).expect("no endpoint has limits of its own");
    }
}
