//! What must hold once all is well again, and as the pool ends.

use std::time::Duration;

use warmline::sim::net::{Accepts, Manners, cut_connections, end_connections, set_host};
use warmline::sim::{self, JoinHandle, violation};
use warmline::{CloseReason, Endpoint, ErrorKind, PooledConn, Request, Stats};

use crate::kit::{Kit, address, frame, place};
use crate::play::{CALM, ELSEWHERE, Site, Stage};
use crate::script::{Happening, Kind, Naming, Reach};
use crate::stopwatch::Stopwatch;

/// Nobody answers there.
pub fn silent() -> Manners {
    let mut silent = CALM;
    silent.accepts = Accepts::Silent;
    silent
}

/// An endpoint of a pool, and which host it is.
type Named<K> = (usize, Endpoint<<K as Kit>::Connector>);

/// Waits for something that must come about.
fn expect_soon(within: Duration, what: &str, is_so: impl Fn() -> bool) {
    let stopwatch = Stopwatch::start();
    while !is_so() {
        if stopwatch.took() > within {
            violation(format!("not so after {within:?}: {what}"));
            return;
        }
        sim::sleep(Duration::from_millis(2));
    }
}

impl<K: Kit> Stage<K> {
    /// All callers are gone: nobody waits, and what they had is back.
    pub(crate) fn expect_nobody(&self) {
        expect_soon(Duration::from_millis(20), "nobody waits, or has a connection", || {
            self.sites.iter().all(|site| {
                let stats = site.pool.stats();
                stats.waiting() + stats.in_use() == 0
            })
        });
    }

    pub(crate) fn expect_more(&self, site: &Site<K>, endpoints: &[Named<K>]) {
        self.expect_reuse(endpoints);
        self.expect_hearing(site, endpoints);
        self.expect_beats(site, endpoints);
        self.expect_renewal(site, endpoints);
        self.expect_quick_refusal(&endpoints[0]);
        self.expect_quick_refusal_without_threads(&endpoints[0]);
        self.expect_all_refused(site, endpoints);
        self.expect_rest(site);
    }

    /// What was given back is used again.
    fn expect_reuse(&self, endpoints: &[Named<K>]) {
        let settings = &self.script.settings;
        // Others could want their room.
        let is_alone = settings.min_idle == 0 && !self.script.changes_limits();
        if self.script.kind != Kind::Plain || settings.max_uses == Some(1) || !is_alone {
            return;
        }
        for (host, endpoint) in endpoints {
            // Some end between two uses: of age, say.
            let is_reused = (0..8).any(|_| {
                let Ok(mut conn) = endpoint.get_timeout(Duration::from_secs(1)) else {
                    sim::sleep(Duration::from_millis(300)); // its name is about to be looked up
                    return false;
                };
                let _answer = K::exchange(&mut conn, frame(79));
                PooledConn::is_reused(&conn)
            });
            if !is_reused {
                violation(format!("host {host}: what is given back is never used again"));
            }
        }
    }

    /// Connections that their peer closes are closed on this side, though nobody looks.
    fn expect_hearing(&self, site: &Site<K>, endpoints: &[Named<K>]) {
        let has_sockets = self.script.hosts.iter().all(|host| host.reach != Reach::Blocking);
        if !has_sockets || !self.script.hears_while_idle() || !self.script.returns() {
            return;
        }
        site.pool.evict_all(); // some were lost without a word
        for (host, endpoint) in endpoints {
            self.expect_service(*host, endpoint);
            // One that nobody received is watched again as well.
            let unreceived = site.pool.request(&self.key(*host));
            sim::sleep(Duration::from_millis(10));
            drop(unreceived);
        }
        // Some are looked at again on their way back.
        sim::sleep(Duration::from_millis(200));
        let opened = site.pool.stats().opened();
        for (host, _) in endpoints {
            end_connections(&self.place(*host), false);
        }
        expect_soon(Duration::from_millis(300), "closed by their peers, and here", || {
            let stats = site.pool.stats();
            stats.closed() + stats.detached() >= opened
        });
    }

    /// Connections that were lost without a word are noticed by their heartbeats.
    fn expect_beats(&self, site: &Site<K>, endpoints: &[Named<K>]) {
        let settings = &self.script.settings;
        let Some(interval) = settings.check_interval.filter(|_| self.script.kind == Kind::Plain)
        else {
            return;
        };
        // The first of them, its time-out, and a moment.
        let within = interval * 3 / 2 + Duration::from_millis(300);
        if settings.max_lifetime.is_some() || settings.idle_timeout < within * 2 {
            return;
        }
        site.pool.evict_all();
        for (host, endpoint) in endpoints {
            self.expect_service(*host, endpoint);
        }
        for (host, _) in endpoints {
            cut_connections(&self.place(*host));
        }
        let opened = site.pool.stats().opened();
        expect_soon(within, "asked, silent, and closed", || {
            let stats = site.pool.stats();
            stats.closed() + stats.detached() >= opened
        });
    }

    /// A name that leads elsewhere from now on is followed there, though all is well where it led.
    fn expect_renewal(&self, site: &Site<K>, endpoints: &[Named<K>]) {
        let hangs = |happening: &(_, Happening)| {
            matches!(happening.1, Happening::Names(Naming::Slow(_) | Naming::Panics))
        };
        let is_named = |(host, _): &&Named<K>| self.script.hosts[*host].reach == Reach::Name;
        let Some((host, endpoint)) = endpoints.iter().find(is_named) else { return };
        let ttl = self.script.settings.ttl;
        let is_long = ttl > Duration::from_secs(1);
        let is_busy = self.script.settings.min_idle > 0 || self.script.changes_limits();
        if is_long
            || is_busy
            || !self.script.is_tempered()
            || self.script.happenings.iter().any(hangs)
        {
            return;
        }
        set_host(place(ELSEWHERE + *host, Reach::Name), CALM);
        *self.naming.lock() = Naming::Elsewhere;
        // The first to ask has it looked up again, and each takes what is known. A look-up that
        // failed is not repeated for a second.
        for _ in 0..3 {
            sim::sleep(ttl + Duration::from_millis(1_100));
            site.pool.evict_all();
            self.expect_service(*host, endpoint);
        }
        site.pool.evict_all();
        match endpoint.get_timeout(Duration::from_secs(1)).map(|conn| K::peer(&conn)) {
            Ok(Some(peer)) if peer == address(ELSEWHERE + *host) => {}
            other => violation(format!("host {host} has moved, and connections lead to {other:?}")),
        }
        *self.naming.lock() = Naming::Well;
    }

    /// Where nobody listens, callers learn of it at once.
    fn expect_quick_refusal(&self, (host, endpoint): &Named<K>) {
        let reach = self.script.hosts[*host].reach;
        let settings = &self.script.settings;
        let has_socket = matches!(reach, Reach::Address | Reach::Addresses(_) | Reach::Path);
        let is_silent = matches!(reach, Reach::Addresses(_)) && settings.silent_empties;
        // Or the room is taken by what is opened elsewhere only to be kept ready.
        let has_room = settings.min_idle * self.script.hosts.len() < settings.max_total;
        let is_told = settings.fail_fast && self.script.is_tempered();
        if !has_socket || !is_told || is_silent || !has_room {
            return;
        }
        let mut deaf = CALM;
        deaf.accepts = Accepts::None;
        set_host(self.place(*host), deaf);
        endpoint.evict();
        // Until what was begun before, when it may have been silent, has ended.
        sim::sleep(settings.connect_timeout + Duration::from_millis(100));
        let stopwatch = Stopwatch::start();
        let outcome = endpoint.get_timeout(Duration::from_secs(10));
        let took = stopwatch.took();
        match outcome {
            Err(error)
                if error.kind() == ErrorKind::Connect && took < Duration::from_millis(100) => {}
            Err(error) => violation(format!("refused, and told after {took:?}: {error}")),
            Ok(_) => violation("connected to nobody"),
        }
        let stopwatch = Stopwatch::start();
        if endpoint.warm(1, Duration::from_secs(10)).is_ok() {
            violation("opened ahead of need, where nobody listens");
        }
        let took = stopwatch.took();
        if took > Duration::from_millis(500) {
            violation(format!("nobody listens, and to warm up takes {took:?}"));
        }
        set_host(self.place(*host), CALM);
        self.expect_service(*host, endpoint);
    }

    /// Threads of the crew that are idle end, and no others can be started.
    fn be_short_of_threads(&self, rest: impl FnOnce()) {
        sim::sleep(Duration::from_secs(11));
        sim::set_thread_limit(Some(0));
        rest();
        sim::set_thread_limit(None);
    }

    fn can_be_short_of_threads(&self) -> bool {
        let settings = &self.script.settings;
        // Looked up on a thread, or begun late.
        let is_slow = self.script.hosts.iter().any(|host| {
            let is_late = matches!(host.reach, Reach::Addresses(_)) && settings.silent_empties;
            host.reach == Reach::Name || is_late
        });
        let is_quiet = settings.min_idle == 0 && !self.script.changes_limits();
        let is_foreign = self.script.kind != Kind::Plain && settings.fail_fast;
        is_foreign && self.script.is_tempered() && is_quiet && !is_slow
    }

    /// Where no thread can be started, callers learn of it at once.
    fn expect_quick_refusal_without_threads(&self, (host, endpoint): &Named<K>) {
        if !self.can_be_short_of_threads() {
            return;
        }
        endpoint.evict();
        self.be_short_of_threads(|| {
            endpoint.evict();
            let stopwatch = Stopwatch::start();
            let outcome = endpoint.get_timeout(Duration::from_secs(10));
            let took = stopwatch.took();
            let is_quick = took < Duration::from_millis(100);
            match outcome {
                Err(error) if error.kind() == ErrorKind::Connect && is_quick => {}
                Err(error) => violation(format!("no thread, and told after {took:?}: {error}")),
                Ok(conn) => drop(conn), // some thread was there after all
            }
        });
        self.expect_service(*host, endpoint);
    }

    /// Where many endpoints wait for the room of one connection and no thread can be started, each
    /// attempt that fails makes way for the next, until all are answered.
    fn expect_all_refused(&self, site: &Site<K>, endpoints: &[Named<K>]) {
        let is_crowd = endpoints.len() > 8;
        if !is_crowd || !self.can_be_short_of_threads() {
            return;
        }
        let mut held = Vec::new();
        let mut rest = endpoints.iter();
        while site.pool.stats().total() < self.script.settings.max_total {
            let Some((_, endpoint)) = rest.next() else { return };
            held.extend(endpoint.get_timeout(Duration::from_secs(1)).ok());
        }
        self.be_short_of_threads(|| {
            let ask = |(host, _): &Named<K>| self.asked(site, *host);
            let requests: Vec<Request<K::Connector>> = rest.filter_map(ask).collect();
            held.into_iter().for_each(PooledConn::discard);
            for request in requests {
                if request.receiver().recv_timeout(Duration::from_secs(1)).is_err() {
                    violation("no thread can be started, and a request has no answer");
                }
            }
        });
        for (host, endpoint) in endpoints {
            self.expect_service(*host, endpoint);
        }
    }

    /// Nobody asks for anything: what is idle ends, and nothing is opened.
    fn expect_rest(&self, site: &Site<K>) {
        let settings = &self.script.settings;
        if !self.script.returns() {
            return;
        }
        expect_soon(Duration::from_secs(2), "what was given up has come back", || {
            site.pool.stats().abandoned() == 0
        });
        if settings.min_idle > 0 || self.script.changes_limits() {
            return;
        }
        // One that has just been used may have a successor.
        sim::sleep(settings.idle_timeout * 3 / 2 + Duration::from_secs(1));
        let opened = site.pool.stats().opened();
        expect_soon(Duration::from_secs(1), "nothing is open that nobody needs", || {
            site.pool.stats().total() == 0
        });
        sim::sleep(Duration::from_secs(2));
        if site.pool.stats().opened() != opened {
            violation(format!("opened for nobody: {:?}", site.pool.stats()));
        }
    }

    /// Attempts that wait for their peer go on as soon as it has room again.
    pub(crate) fn expect_patience(&self, site: &Site<K>, host: usize) {
        let is_path = self.script.hosts[host].reach == Reach::Path;
        let is_long = self.script.settings.connect_timeout > Duration::from_millis(300);
        if !is_path || !is_long || !self.script.is_calm {
            return;
        }
        set_host(self.place(host), silent());
        site.pool.evict_all();
        let Some(request) = self.asked(site, host) else { return };
        sim::sleep(Duration::from_millis(20));
        set_host(self.place(host), CALM);
        if request.receiver().recv_timeout(Duration::from_secs(1)).is_err() {
            violation("a listener has room again, and nobody has noticed");
        }
    }

    /// Asks for a connection: there is none only where an attempt has just failed.
    fn asked(&self, site: &Site<K>, host: usize) -> Option<Request<K::Connector>> {
        let asked = site.pool.request(&self.key(host));
        let refused = asked.as_ref().err().filter(|error| error.kind() != ErrorKind::Connect);
        if let Some(error) = refused {
            violation(format!("host {host} cannot be asked for: {error}"));
        }
        asked.ok()
    }

    /// The pool ends while it connects, and somebody waits for that.
    pub(crate) fn expect_quick_end(&self, site: &Site<K>) {
        let reach = self.script.hosts[0].reach;
        if self.script.is_closed() || !matches!(reach, Reach::Address | Reach::Name) {
            return;
        }
        set_host(self.place(0), silent());
        site.pool.evict_all();
        let Some(request) = self.asked(site, 0) else { return };
        sim::sleep(Duration::from_millis(2));
        site.pool.close();
        let answer = request.receiver().recv_timeout(Duration::from_secs(1));
        if answer.is_err() {
            violation("the pool is closed, and a request has no answer");
        }
        drop((answer, request));
        set_host(self.place(0), CALM);
        if self.script.kind != Kind::Plain {
            return; // its last end on threads that have other things to do
        }
        let is_over = || site.pool.stats().total() == 0;
        expect_soon(
            Duration::from_millis(50),
            "closed while it connected, and at its end",
            is_over,
        );
    }

    /// Somebody who still has a connection when the pool is drained.
    pub(crate) fn guest(&self, site: &Site<K>) -> Option<JoinHandle<()>> {
        let conn = site.pool.get_timeout(&self.key(0), Duration::from_secs(1)).ok()?;
        Some(sim::spawn("guest", move || {
            sim::sleep(Duration::from_millis(3));
            drop::<PooledConn<K::Connector>>(conn);
        }))
    }

    /// The pool is drained: nothing of it is left, and it did not take long.
    pub(crate) fn expect_drained(&self, took: Duration, descriptors: usize) {
        if !self.script.returns() || self.sites.len() > 1 {
            return; // it waits for those that return, and not for ever; or there is more
        }
        if took > Duration::from_secs(10) {
            violation(format!("draining took {took:?}"));
        }
        let (alive, busy) = (self.kit.alive(), self.kit.busy());
        if alive + busy > 0 {
            violation(format!("drained, and {alive} connections alive, {busy} calls under way"));
        }
        if self.script.kind == Kind::Plain && descriptors > 0 {
            violation(format!("drained, and {descriptors} descriptors open"));
        }
        expect_soon(Duration::from_secs(1), "drained, and no descriptor open", || {
            sim::survey().descriptors == 0
        });
    }

    /// Where nothing goes wrong, nothing ends for a wrong reason.
    pub(crate) fn expect_calm_reasons(&self, stats: &Stats) {
        if !self.script.is_calm {
            return;
        }
        for reason in [CloseReason::StrayBytes, CloseReason::NotOpen, CloseReason::Unfinished] {
            if stats.closed_for(reason) > 0 {
                violation(format!("nothing was wrong, and yet {reason}: {stats:?}"));
            }
        }
    }
}
