//! The threads of a driver: what they are called, and that nothing done on them can hang them.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded, unbounded};
use parking_lot::Mutex;
use warmline::{
    BoxError, Builder, CloseReason, Closed, Connected, Connector, Driver, ErrorKind, Observer,
    Opening, Pool, PooledConn, TcpConnector, Watch,
};

use crate::support::foreign::{Foreign, Show};
use crate::support::server::Server;
use crate::support::{SOON, ask, await_loop, eventually, say, tcp, watchdog};

const LONG: Duration = Duration::from_secs(3600);

#[test]
fn a_name_that_no_thread_can_have_is_refused() {
    for name in ["", "a\0b"] {
        let error = Driver::named(name).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains("name"), "{error}");
    }
}

/// Names of this process's threads that begin so, as far as the system tells.
fn threads(prefix: &str) -> Option<Vec<String>> {
    let tasks = std::fs::read_dir("/proc/self/task").ok()?;
    let names =
        tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    let names = names.map(|name| name.trim_end().to_owned());
    Some(names.filter(|name| name.starts_with(prefix)).collect())
}

#[test]
fn its_threads_carry_its_name_and_end_with_the_last_pool() {
    let _watchdog = watchdog();
    if threads("").is_none() {
        return say("skipped: the system does not tell which threads there are");
    }
    let driver = Driver::named("zebra").unwrap();
    assert_eq!(format!("{driver:?}"), r#"Driver { name: "zebra", has_started: false }"#);
    let server = Server::echo();
    let plain = tcp().name("other").driver(&driver).build().unwrap();
    let foreign = Pool::builder(Foreign::always(Show::Socket)).driver(&driver).build().unwrap();
    assert_eq!(threads("zebra"), Some(Vec::new()), "they start with the first connect");
    drop(plain.get(&server.name()).unwrap());
    drop(foreign.get(&server.name()).unwrap());
    // A thread takes its name when it begins to run.
    eventually("all have begun", || {
        let mut names = threads("zebra").unwrap();
        names.sort();
        names == ["zebra-crew-1", "zebra-loop", "zebra-reaper"]
    });
    assert_eq!(threads("other"), Some(Vec::new()));
    drop((driver, plain));
    ask(&mut foreign.get(&server.name()).unwrap()).unwrap();
    drop(foreign);
    eventually("they end", || threads("zebra").is_some_and(|names| names.is_empty()));
}

type Deed = Box<dyn FnMut(&'static str) + Send>;

/// Does what a test says, on whatever thread a pool calls it: as connector and as observer.
#[derive(Clone)]
struct Agent(Arc<Mutex<Option<Deed>>>);

impl Agent {
    fn new() -> Self {
        Self(Arc::default())
    }

    /// From now on does this wherever it is called, which it is told. Calls within are no calls.
    fn does(&self, deed: impl FnMut(&'static str) + Send + 'static) {
        *self.0.lock() = Some(Box::new(deed));
    }

    /// From now on does nothing. What it did is dropped here.
    fn rests(&self) {
        let deed = self.0.lock().replace(Box::new(|_| {}));
        drop(deed);
    }

    fn act(&self, place: &'static str) {
        let deed = self.0.lock().take();
        let Some(mut deed) = deed else { return };
        deed(place);
        let mut next = self.0.lock();
        let unused = if next.is_none() { next.replace(deed) } else { Some(deed) };
        drop(next);
        drop(unused);
    }
}

impl Connector for Agent {
    type Key = String;
    type Conn = ();

    fn open(&self, _: &String, _: &mut Opening) -> Result<(), BoxError> {
        self.act("open");
        Ok(())
    }

    fn watch<'c>(&self, (): &'c ()) -> Watch<'c> {
        self.act("watch");
        Watch::Nothing
    }

    fn close(&self, (): (), _: CloseReason) {
        self.act("close");
    }
}

impl Observer for Agent {
    fn connected(&self, _: &Connected) {
        self.act("connected");
    }

    fn closed(&self, _: &Closed) {
        self.act("closed");
    }
}

fn pool(agent: &Agent, driver: &Driver) -> Pool<Agent> {
    Pool::builder(agent.clone()).observer(agent.clone()).driver(driver).build().unwrap()
}

/// Uses the pool until a deed was done on every thread of its driver that calls user code; what
/// came of each.
fn everywhere<R>(pool: &Pool<Agent>, done: &Receiver<(&'static str, R)>) -> Vec<R> {
    let mut left = vec!["open", "watch", "connected", "close", "closed"];
    let mut came_of_it = Vec::new();
    while !left.is_empty() {
        PooledConn::discard(pool.get_timeout("a", SOON).unwrap());
        while let Ok((place, result)) = done.recv_timeout(Duration::from_millis(20)) {
            left.retain(|it| *it != place);
            came_of_it.push(result);
        }
    }
    came_of_it
}

#[test]
fn waiting_for_the_own_pool_on_a_thread_that_works_for_it_is_refused_at_once() {
    let _watchdog = watchdog();
    let (agent, driver) = (Agent::new(), Driver::new());
    let pool = pool(&agent, &driver);
    let (done, all_done) = unbounded();
    agent.does({
        let pool = pool.clone();
        move |place| {
            let error = pool.get_timeout("b", LONG).unwrap_err();
            done.send((place, error.kind())).unwrap();
        }
    });
    let kinds = everywhere(&pool, &all_done);
    assert!(kinds.iter().all(|kind| *kind == ErrorKind::Rejected), "{kinds:?}");
    agent.rests();
}

#[test]
fn another_pool_of_the_same_driver_may_be_waited_for_on_any_of_them() {
    let _watchdog = watchdog();
    let (agent, driver, server) = (Agent::new(), Driver::new(), Server::echo());
    let pool = pool(&agent, &driver);
    let (done, all_done) = unbounded();
    let builders: [Box<dyn Fn() -> Pool<TcpConnector> + Send>; 2] = [
        Box::new({
            let driver = driver.clone();
            move || tcp().driver(&driver).build().unwrap()
        }),
        Box::new(Pool::tcp),
    ];
    let name = server.name();
    agent.does(move |place| {
        // One that shares the driver, and one that does not.
        for build in &builders {
            let result = build().get_timeout(&name, SOON);
            let result = result.map_err(|error| error.to_string());
            done.send((place, result.map(|mut conn| ask(&mut conn).is_ok()))).unwrap();
        }
    });
    let results = everywhere(&pool, &all_done);
    assert!(results.iter().all(|result| *result == Ok(true)), "{results:?}");
    agent.rests();
}

/// Has the last handle of a pool dropped where it is told; returns once it was.
fn drop_the_last_handle(place: &'static str, builder: Builder<Agent>, agent: &Agent) {
    let slot = Arc::new(Mutex::new(None::<Pool<Agent>>));
    let (gate, gated) = bounded::<()>(0);
    let (done, all_done) = bounded(1);
    agent.does({
        let slot = Arc::clone(&slot);
        move |at| {
            if at == place {
                let _opened = gated.recv();
                let pool = slot.lock().take();
                let is_last = pool.is_some();
                drop(pool);
                let _nobody_waits = done.try_send(is_last);
            }
        }
    });
    let pool = builder.observer(agent.clone()).build().unwrap();
    // What hangs before there is a connection is left to hang.
    let timeout = if matches!(place, "open" | "watch") { Duration::from_millis(20) } else { SOON };
    if let Ok(conn) = pool.get_timeout("a", timeout) {
        PooledConn::discard(conn);
    }
    *slot.lock() = Some(pool);
    drop(gate);
    assert!(all_done.recv_timeout(SOON).unwrap(), "{place}: the handle was there to be dropped");
    agent.rests();
}

const PLACES: [&str; 5] = ["open", "watch", "connected", "close", "closed"];

#[test]
fn the_last_handle_may_be_dropped_on_any_thread_that_calls_user_code() {
    let _watchdog = watchdog();
    for place in PLACES {
        let agent = Agent::new();
        let builder = Pool::builder(agent.clone()).name(format!("q-{place}"));
        drop_the_last_handle(place, builder, &agent);
        let prefix = format!("q-{place}-");
        eventually("its threads end", || threads(&prefix).is_none_or(|names| names.is_empty()));
    }
}

#[test]
fn the_last_handle_dropped_there_leaves_other_pools_of_the_driver_alone() {
    let _watchdog = watchdog();
    let (driver, server) = (Driver::new(), Server::echo());
    let lasting = tcp().driver(&driver).build().unwrap();
    for place in PLACES {
        ask(&mut lasting.get(&server.name()).unwrap()).unwrap();
        let agent = Agent::new();
        drop_the_last_handle(place, Pool::builder(agent.clone()).driver(&driver), &agent);
        await_loop(&driver);
    }
    ask(&mut lasting.get(&server.name()).unwrap()).unwrap();
    server.hang_up();
    eventually("deaths are noticed", || lasting.stats().idle() == 0);
}
