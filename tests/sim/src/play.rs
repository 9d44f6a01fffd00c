//! Plays a script, and sees to it that all is well at its end.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use warmline::sim::net::{Manners, set_host};
use warmline::sim::{self, JoinHandle, now, trace, violation};
use warmline::{
    BoxError, Builder, CloseReason, Closed, Connected, Connector, Deadline, Driver, Endpoint,
    Observer, Pool, PooledConn, Resolved, Resolver, Reuse,
};

use crate::callers::Caller;
use crate::expect::silent;
use crate::kit::{Foreign, Kit, Plain, address, empty, frame, place};
use crate::script::{Happening, Kind, Naming, Reach, Script};
use crate::stopwatch::Stopwatch;
use crate::watch::Watch;

/// Once nothing is wrong any more, each endpoint serves again within this.
const HEALS_WITHIN: Duration = Duration::from_secs(20);
pub(crate) const CALM: Manners = Manners::calm();
/// Whoever is elsewhere has a number that is so much higher.
pub(crate) const ELSEWHERE: usize = 50;

/// What the parts of a played script share.
pub struct Stage<K: Kit> {
    pub script: Script,
    pub kit: K,
    /// One pool, or two on the same driver.
    pub(crate) sites: Vec<Site<K>>,
    pub(crate) naming: Arc<Mutex<Naming>>,
}

/// A pool, and the books of those who use it.
pub struct Site<K: Kit> {
    pub pool: Pool<K::Connector>,
    pub watch: Watch,
}

/// What a script came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Played {
    pub checkouts: u64,
    pub errors: u64,
}

/// Plays a script; what went wrong is reported to the simulation.
pub fn play(script: &Script) -> Played {
    for (host, of) in script.hosts.iter().enumerate() {
        set_host(place(host, of.reach), of.manners.clone());
    }
    if script.settings.silent_empties {
        (0..3).for_each(|at| set_host(empty(at), silent()));
    }
    match script.kind {
        Kind::Plain => play_with(script, Plain),
        Kind::Foreign(temper) => play_with(script, Foreign::new(temper)),
    }
}

fn play_with<K: Kit>(script: &Script, kit: K) -> Played {
    let naming = Arc::new(Mutex::new(Naming::Well));
    let sites = build(script, &kit, &naming);
    let stage = Arc::new(Stage { script: script.clone(), kit: kit.clone(), sites, naming });
    let callers: Vec<_> = (0..script.callers.len())
        .map(|number| {
            let stage = Arc::clone(&stage);
            sim::spawn(format!("caller-{number}"), move || Caller::new(stage, number).play())
        })
        .collect();
    let fate = sim::spawn("fate", {
        let stage = Arc::clone(&stage);
        move || stage.befall()
    });
    callers.into_iter().for_each(sim::join);
    stage.expect_nobody();
    sim::join(fate);
    let mut played = Played::default();
    let mut late = Vec::new();
    for site in &stage.sites {
        stage.heal(site);
        late.extend(stage.end(site));
        site.watch.close();
        let (checkouts, errors) = site.watch.totals();
        played.checkouts += checkouts;
        played.errors += errors;
    }
    let Some(stage) = Arc::into_inner(stage) else {
        violation("somebody still holds the stage");
        return played;
    };
    drop(stage);
    late.into_iter().for_each(sim::join);
    expect_nothing_left();
    if kit.alive() != 0 {
        violation(format!("at the end {} connections are alive", kit.alive()));
    }
    if !kit.is_alone() {
        violation("somebody still has the connector");
    }
    played
}

/// No thread of a pool is left, and no descriptor.
pub fn expect_nothing_left() {
    // Threads that hang in somebody's code let go of what they have when they return.
    let until = now() + 200_000_000_000;
    while sim::survey().threads > 0 && now() < until {
        sim::sleep(Duration::from_millis(20));
    }
    let open = sim::survey().descriptors;
    if open != 0 {
        violation(format!("at the end {open} descriptors are open"));
    }
}

fn build<K: Kit>(script: &Script, kit: &K, naming: &Arc<Mutex<Naming>>) -> Vec<Site<K>> {
    let naming = Arc::clone(naming);
    let look_up = move |name: &str| {
        let naming = *naming.lock(); // not held while it hangs
        resolve(name, naming)
    };
    let resolver = Resolver::new(look_up).ttl(script.settings.ttl);
    let driver = Driver::new();
    let pools = (0..1 + usize::from(script.settings.has_twin)).filter_map(|_| {
        let builder = configure(Pool::builder(kit.connector()), script).resolver(&resolver);
        let pool = if script.settings.has_twin { builder.driver(&driver) } else { builder }.build();
        pool.map_err(|error| violation(format!("{error}"))).ok()
    });
    pools.map(|pool| Site { pool, watch: Watch::new(script) }).collect()
}

fn configure<C: Connector>(builder: Builder<C>, script: &Script) -> Builder<C> {
    let settings = &script.settings;
    let builder = builder
        .max_total(settings.max_total)
        .max_per_endpoint(settings.max_per_endpoint)
        .min_idle(settings.min_idle)
        .max_connecting(settings.max_connecting)
        .max_waiting(settings.max_waiting)
        .max_uses(settings.max_uses)
        .checkout_timeout(settings.checkout_timeout)
        .connect_timeout(settings.connect_timeout)
        .idle_timeout(settings.idle_timeout)
        .max_lifetime(settings.max_lifetime)
        .fair_after(settings.fair_after)
        .probe_after(settings.probe_after)
        .check_after(settings.check_after)
        .check_interval(settings.check_interval)
        .check_timeout(Duration::from_millis(50))
        .settle_timeout(Duration::from_millis(40))
        .reuse(if settings.takes_oldest { Reuse::Oldest } else { Reuse::Newest })
        .portable_watch(settings.portable_watch)
        .fail_fast(settings.fail_fast);
    if settings.has_observer { builder.observer(Curious) } else { builder }
}

struct Curious;

impl Observer for Curious {
    fn connected(&self, _: &Connected) {
        sim::sleep(Duration::from_micros(50));
    }

    fn closed(&self, event: &Closed) {
        if event.reason() == CloseReason::StrayBytes {
            sim::panic_in_call();
        }
    }
}

fn resolve(name: &str, naming: Naming) -> Result<Resolved, BoxError> {
    let number = name.trim_start_matches("host-").trim_end_matches(".sim").parse::<usize>()?;
    match naming {
        Naming::Well => {}
        Naming::Fails => return Err("no such name".into()),
        Naming::Slow(time) => sim::sleep(time),
        Naming::Elsewhere => return Ok(Resolved::new([address(ELSEWHERE + number)])),
        Naming::Nowhere => return Ok(Resolved::new([address(200 + number)])),
        Naming::Panics => sim::panic_in_call(),
    }
    Ok(Resolved::new([address(number)]))
}

impl<K: Kit> Stage<K> {
    /// Where caller number `number` is at home.
    pub fn site(&self, number: usize) -> &Site<K> {
        &self.sites[number % self.sites.len()]
    }

    pub fn key(&self, host: usize) -> <K::Connector as Connector>::Key {
        self.kit.key(host, self.script.hosts[host].reach)
    }

    fn befall(&self) {
        for (after, happening) in &self.script.happenings {
            sim::sleep(*after);
            trace(|| format!("fate: {happening:?}"));
            match happening {
                Happening::Manners { host, manners } => {
                    set_host(self.place(*host), manners.clone());
                }
                Happening::EndConnections { host, by_reset } => {
                    sim::net::end_connections(&self.place(*host), *by_reset);
                }
                Happening::CutConnections { host } => {
                    sim::net::cut_connections(&self.place(*host));
                }
                Happening::Descriptors(most) => sim::net::set_descriptor_limit(*most),
                Happening::Threads(most) => sim::set_thread_limit(*most),
                Happening::Names(naming) => *self.naming.lock() = *naming,
                Happening::SetClock(by) => sim::set_clock_by(*by),
                Happening::Pause(time) => {
                    self.sites.iter().for_each(|site| site.pool.pause());
                    sim::sleep(*time);
                    for site in &self.sites {
                        site.watch.resumes();
                        site.pool.resume();
                    }
                }
                Happening::EvictAll => self.site(0).pool.evict_all(),
                Happening::Close => self.sites.iter().for_each(|site| site.pool.close()),
            }
        }
    }

    pub(crate) fn place(&self, host: usize) -> sim::net::Place {
        place(host, self.script.hosts[host].reach)
    }

    /// Nothing is wrong any more: each endpoint must serve again, and be kept ready.
    fn heal(&self, site: &Site<K>) {
        trace(|| "all is well again".into());
        for host in 0..self.script.hosts.len() {
            set_host(self.place(host), CALM);
        }
        sim::be_punctual();
        sim::net::set_descriptor_limit(None);
        sim::set_thread_limit(None);
        *self.naming.lock() = Naming::Well;
        if self.script.is_closed() {
            return;
        }
        let endpoints: Vec<_> = (0..self.script.hosts.len())
            .filter_map(|host| Some((host, site.pool.endpoint(&self.key(host)).ok()?)))
            .collect();
        if endpoints.len() != self.script.hosts.len() {
            violation("an endpoint could not be named");
        }
        self.expect_ready(&endpoints);
        for (host, endpoint) in &endpoints {
            self.expect_service(*host, endpoint);
        }
        self.expect_more(site, &endpoints);
    }

    pub(crate) fn expect_service(&self, host: usize, endpoint: &Endpoint<K::Connector>) {
        let until = now() + HEALS_WITHIN.as_nanos() as u64;
        let hello = frame(77);
        loop {
            let outcome = match endpoint.get_timeout(Duration::from_secs(2)) {
                Ok(mut conn) => match K::exchange(&mut conn, hello) {
                    Ok(answer) if answer == hello => return,
                    Ok(_) => "a wrong answer".to_owned(),
                    Err(error) => format!("exchange: {error}"),
                },
                Err(error) => error.to_string(),
            };
            if now() > until {
                let stats = endpoint.pool().stats();
                violation(format!("host {host} does not serve again: {outcome}; {stats:?}"));
                return;
            }
            sim::sleep(Duration::from_millis(20));
        }
    }

    /// What `min_idle` asks for is there, though nobody asks for a connection.
    fn expect_ready(&self, endpoints: &[(usize, Endpoint<K::Connector>)]) {
        let settings = &self.script.settings;
        // An ill-tempered connector may refuse for ever.
        let is_well = self.script.is_tempered();
        let fits = settings.min_idle * endpoints.len() <= settings.max_total;
        if settings.min_idle == 0 || self.script.changes_limits() || !fits || !is_well {
            return;
        }
        let until = now() + HEALS_WITHIN.as_nanos() as u64;
        // Where each attempt waits for addresses that are silent, others end before all are there.
        let is_quick = |reach| !(settings.silent_empties && matches!(reach, Reach::Addresses(_)));
        if !self.script.hosts.iter().all(|host| is_quick(host.reach)) {
            return;
        }
        for (host, endpoint) in endpoints {
            while endpoint.stats().idle() < settings.min_idle {
                if now() > until {
                    let stats = endpoint.stats();
                    violation(format!("host {host} is not kept ready: {stats:?}"));
                    return;
                }
                sim::sleep(Duration::from_millis(3));
            }
        }
    }

    /// The pool ends: what was opened is closed, and all room is free again. Or it is only let go
    /// of, while connections are out that come back later.
    fn end(&self, site: &Site<K>) -> Vec<JoinHandle<()>> {
        if !self.script.settings.drains {
            let hosts = 0..self.script.hosts.len();
            let held = hosts.filter_map(|host| site.pool.try_get(&self.key(host)).ok().flatten());
            let late = |conn| sim::spawn("late", move || drop::<PooledConn<K::Connector>>(conn));
            return held.map(late).collect();
        }
        self.expect_patience(site, 0);
        // The one or the other: nobody is a guest of a pool that is closed.
        let guest = if self.script.seed % 2 == 0 { self.guest(site) } else { None };
        if guest.is_none() {
            self.expect_quick_end(site);
        }
        let stopwatch = Stopwatch::start();
        let drained = site.pool.drain(Deadline::after(Duration::from_secs(120)));
        let (took, descriptors) = (stopwatch.took(), sim::survey().descriptors);
        self.expect_drained(took, descriptors);
        let stats = site.pool.stats();
        if let Err(error) = drained {
            violation(format!("not drained: {error}; {stats:?}"));
        }
        let gone = stats.closed() + stats.detached();
        if stats.opened() != gone || stats.total() != 0 || stats.waiting() != 0 {
            violation(format!("something is left of the pool: {stats:?}"));
        }
        self.expect_calm_reasons(&stats);
        guest.into_iter().collect()
    }
}
