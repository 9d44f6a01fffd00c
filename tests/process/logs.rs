//! What is logged: in a process of its own, since a process has one logger.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use log::kv::{Error, Key, Value, VisitSource};
use log::{Level, LevelFilter, Log, Metadata, Record};
use parking_lot::Mutex;
use warmline::{BoxError, CloseReason, Connector, Endpoint, One, Opening, Pool, PooledConn};

use crate::alone;
use crate::support::faults::Refusing;
use crate::support::lab::{Act, Lab, Method};
use crate::support::quoting::{Quoting, SECRET, go_through_everything, keys};
use crate::support::server::Server;
use crate::support::{Diary, SOON, ask, eventually, tcp, watchdog};

/// A record as it was logged.
#[derive(Clone, Debug)]
struct Line {
    level: Level,
    text: String,
    values: BTreeMap<String, String>,
}

impl Line {
    fn has(&self, key: &str) -> bool {
        self.values.contains_key(key)
    }

    fn number(&self, key: &str) -> u64 {
        self.values.get(key).unwrap_or_else(|| panic!("no {key}: {self:?}")).parse().unwrap()
    }
}

/// Remembers what the library logs.
#[derive(Clone, Default)]
struct Journal(Arc<Mutex<Vec<Line>>>);

impl Journal {
    fn keep(level: LevelFilter) -> Self {
        let journal = Self::default();
        log::set_boxed_logger(Box::new(journal.clone())).unwrap();
        log::set_max_level(level);
        journal
    }

    fn lines(&self, is_meant: impl Fn(&Line) -> bool) -> Vec<Line> {
        self.0.lock().iter().filter(|line| is_meant(line)).cloned().collect()
    }

    fn loud(&self) -> Vec<Line> {
        self.lines(|line| line.level <= Level::Warn)
    }
}

impl Log for Journal {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("warmline")
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let mut values = Values(BTreeMap::new());
        record.key_values().visit(&mut values).unwrap();
        let (level, text) = (record.level(), record.args().to_string());
        self.0.lock().push(Line { level, text, values: values.0 });
    }

    fn flush(&self) {}
}

struct Values(BTreeMap<String, String>);

impl<'kvs> VisitSource<'kvs> for Values {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        self.0.insert(key.to_string(), value.to_string());
        Ok(())
    }
}

#[test]
fn a_record_is_a_sentence_that_says_all_that_its_key_values_do() {
    alone("logs::a_record_is_a_sentence_that_says_all_that_its_key_values_do", || {
        let _watchdog = watchdog();
        let journal = Journal::keep(LevelFilter::Trace);
        let (server, refusing) = (Server::echo(), Refusing::new());
        let pool = tcp().name("fish").build().unwrap();
        ask(&mut pool.get(&server.name()).unwrap()).unwrap();
        PooledConn::discard(pool.get(&server.name()).unwrap());
        pool.get(&refusing.name()).unwrap_err();
        eventually("all three", || journal.0.lock().len() == 3);
        let lines = journal.lines(|_| true);
        let texts: Vec<_> = lines.iter().map(|line| &*line.text).collect();
        let names = [server.name(), server.name(), refusing.name()];
        let says = ["connected in", "closed a connection after", "none can be opened: connect"];
        let keys: [&[&str]; 3] = [
            &["took_ms"],
            &["age_ms", "reason"],
            &["cause", "failure", "held_back", "phase", "took_ms"],
        ];
        let levels = [Level::Debug, Level::Debug, Level::Warn];
        for (at, line) in lines.iter().enumerate() {
            let begins = format!("fish {}: ", names[at]);
            assert!(line.text.starts_with(&begins) && line.text.contains(says[at]), "{texts:?}");
            assert_eq!((line.level, &*line.values["pool"]), (levels[at], "fish"));
            assert_eq!(line.values["endpoint"], names[at]);
            assert!(keys[at].iter().all(|key| line.has(key)), "{line:?}");
            assert_eq!(line.values.len(), 2 + keys[at].len(), "{line:?}");
            for key in ["reason", "cause", "phase"].into_iter().filter(|key| line.has(key)) {
                assert!(line.text.contains(&line.values[key]), "{line:?}");
            }
        }
        assert_eq!(lines[1].values["reason"], CloseReason::Discarded.to_string());
        assert_eq!((&*lines[2].values["failure"], lines[2].number("held_back")), ("refused", 0));
    });
}

#[test]
fn nothing_that_is_logged_shows_the_password_of_a_key() {
    alone("logs::nothing_that_is_logged_shows_the_password_of_a_key", || {
        let _watchdog = watchdog();
        let journal = Journal::keep(LevelFilter::Trace);
        for key in keys() {
            let quoting = Quoting::default();
            let builder = Pool::builder(quoting.clone()).observer(Diary::default());
            let builder = builder.name(&*key).check_after(Duration::ZERO);
            let pool = builder.build().unwrap();
            go_through_everything(&key, &pool, &quoting);
        }
        let lines = journal.lines(|_| true);
        for said in ["Open of", "Settle of", "cannot talk to", "was told to panic", "connected in"]
        {
            assert!(lines.iter().any(|line| line.text.contains(said)), "{said}");
        }
        for line in lines {
            let shown = format!("{line:?}");
            assert!(!shown.contains(SECRET) && !shown.contains("ub4dor"), "{shown}");
        }
    });
}

#[test]
fn an_outage_makes_a_warning_when_it_begins_and_one_when_it_ends() {
    alone("logs::an_outage_makes_a_warning_when_it_begins_and_one_when_it_ends", || {
        let _watchdog = watchdog();
        let journal = Journal::keep(LevelFilter::Debug);
        let refusing = Refusing::new();
        let endpoint = tcp().build().unwrap().endpoint(&refusing.name()).unwrap();
        let (is_over, calls) = (AtomicBool::new(false), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    while !is_over.load(Ordering::SeqCst) {
                        calls.fetch_add(1, Ordering::SeqCst);
                        endpoint.get_timeout(SOON).map(drop).unwrap_err();
                    }
                });
            }
            // At 50 ms each at the least, so that a second has passed since the first warning.
            eventually("many attempts", || endpoint.stats().connects_failed() >= 30);
            is_over.store(true, Ordering::SeqCst);
        });
        let failed = || endpoint.stats().connects_failed();
        let told = || journal.lines(|line| line.has("failure")).len() as u64;
        eventually("each attempt is logged once", || told() == failed());
        assert!(calls.load(Ordering::SeqCst) > journal.0.lock().len(), "callers are not logged");
        assert_eq!(journal.0.lock().len() as u64, failed());
        assert_eq!(journal.loud().len(), 1, "{:?}", journal.loud());
        refusing.listen();
        eventually("a connection", || endpoint.get().is_ok());
        eventually("it is told", || journal.loud().len() == 2);
        let [begun, ended] = <[Line; 2]>::try_from(journal.loud()).unwrap();
        assert!(begun.text.contains("none can be opened"), "{begun:?}");
        assert!(ended.text.contains("was opened again"), "{ended:?}");
        assert!(ended.number("attempts") == failed() && ended.number("outage_ms") > 1000);
    });
}

#[test]
fn of_many_outages_one_is_a_warning_each_second_and_says_how_many_there_were() {
    alone(
        "logs::of_many_outages_one_is_a_warning_each_second_and_says_how_many_there_were",
        || {
            let _watchdog = watchdog();
            let (journal, began) = (Journal::keep(LevelFilter::Debug), Instant::now());
            let (pool, mut refusing) = (Pool::tcp(), Vec::new());
            let mut fail = || {
                refusing.push(Refusing::new());
                pool.get(&refusing.last().unwrap().name()).unwrap_err();
                let told = || journal.lines(|line| line.has("failure")).len();
                eventually("it is logged", || told() == refusing.len());
                refusing.len()
            };
            while fail() < 20 {}
            let before = journal.loud().len();
            // The one that gets through knows of all the others.
            eventually("the next warning", || {
                std::thread::sleep(Duration::from_millis(50));
                fail();
                journal.loud().len() > before
            });
            let loud = journal.loud();
            let held: u64 = loud.iter().map(|line| line.number("held_back")).sum();
            assert_eq!(loud.len() as u64 + held, refusing.len() as u64);
            assert!(loud.len() as u64 <= began.elapsed().as_secs() + 1, "{loud:?}");
            let last = loud.last().unwrap();
            let held = last.number("held_back");
            assert!(last.text.contains(&format!("({held} other")), "{last:?}");
        },
    );
}

#[test]
fn a_connector_that_panics_again_and_again_is_an_error_once_a_second() {
    alone("logs::a_connector_that_panics_again_and_again_is_an_error_once_a_second", || {
        let _watchdog = watchdog();
        let (journal, began) = (Journal::keep(LevelFilter::Debug), Instant::now());
        let panics = |method, _| if method == Method::Reset { Act::Panic } else { Act::Go };
        let pool = Pool::builder(Lab::new(panics)).build().unwrap();
        for _ in 0..50 {
            drop(pool.get("a").unwrap());
        }
        let told = journal.lines(|line| line.has("panic"));
        assert_eq!(told.len(), 50, "each is logged");
        let says = "a connector panicked on checkin: Reset was told to panic";
        assert!(told.iter().all(|line| line.text.contains(says)), "{:?}", told[0]);
        let loud = journal.loud();
        assert!(!loud.is_empty() && loud.len() as u64 <= began.elapsed().as_secs() + 1, "{loud:?}");
        assert_eq!((loud[0].level, &*loud[0].values["endpoint"]), (Level::Error, "a"));
    });
}

#[test]
fn a_failed_attempt_is_no_warning_while_a_connection_is_open() {
    alone("logs::a_failed_attempt_is_no_warning_while_a_connection_is_open", || {
        let _watchdog = watchdog();
        let journal = Journal::keep(LevelFilter::Debug);
        let lab = Lab::new(|method, before| match (method, before) {
            (Method::Open, 1..) => Act::Fail,
            _ => Act::Go,
        });
        let pool = Pool::builder(lab).build().unwrap();
        let held = pool.get("a").unwrap();
        pool.get_timeout("a", Duration::from_millis(1)).unwrap_err();
        let failures = || journal.lines(|line| line.has("failure")).len();
        eventually("an attempt fails", || failures() > 0);
        assert!(journal.loud().is_empty(), "{:?}", journal.loud());
        PooledConn::discard(held);
        eventually("the next is a warning", || {
            pool.get("a").unwrap_err();
            !journal.loud().is_empty()
        });
    });
}

/// An error that counts how often its text is asked for.
#[derive(Debug)]
struct Counted(Arc<AtomicUsize>);

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fetch_add(1, Ordering::SeqCst);
        f.write_str("no luck")
    }
}

impl std::error::Error for Counted {}

struct Unlucky(Arc<AtomicUsize>);

impl Connector for Unlucky {
    type Key = One;
    type Conn = ();

    fn open(&self, _: &One, _: &mut Opening) -> Result<(), BoxError> {
        Err(Counted(Arc::clone(&self.0)).into())
    }
}

#[test]
fn an_error_that_is_not_logged_is_not_asked_for_its_text() {
    alone("logs::an_error_that_is_not_logged_is_not_asked_for_its_text", || {
        let _watchdog = watchdog();
        let journal = Journal::keep(LevelFilter::Warn);
        let asked = Arc::new(AtomicUsize::new(0));
        let endpoint = Endpoint::of(Unlucky(Arc::clone(&asked))).unwrap();
        endpoint.get().unwrap_err();
        eventually("a warning", || journal.0.lock().len() == 1);
        let before = asked.load(Ordering::SeqCst);
        eventually("more attempts", || {
            endpoint.get().unwrap_err();
            endpoint.stats().connects_failed() > 3
        });
        assert_eq!((asked.load(Ordering::SeqCst), journal.0.lock().len()), (before, 1));
    });
}
