//! What the tests have in common.

pub(crate) mod causes;
pub(crate) mod chronicle;
pub(crate) mod faults;
pub(crate) mod foreign;
pub(crate) mod lab;
pub(crate) mod programs;
pub(crate) mod quoting;
pub(crate) mod resolver;
pub(crate) mod server;
#[expect(dead_code, unreachable_pub, reason = "shared with tests/interop, which has use for more")]
#[path = "../../support/mod.rs"]
mod shared;

pub(crate) use self::shared::{
    SOON, assert_balanced, assert_empty, await_loop, eventually, say, watchdog,
};

use std::io::{self, Read, Write};
use std::sync::Arc;

use parking_lot::Mutex;
use warmline::{
    Builder, CloseReason, Closed, Connected, Connector, Endpoint, Observer, Pool, PooledConn,
    TcpConnector,
};

/// Tests that are run twice: with idle connections watched as this system does it best, and by the
/// means that every Unix has. Each takes a `bool`: whether the latter.
macro_rules! both_ways {
    ($($name:ident,)+) => {
        mod natively {
            $(#[test] fn $name() { super::$name(false); })+
        }
        mod portably {
            $(#[test] fn $name() { super::$name(true); })+
        }
    };
}
pub(crate) use both_ways;

pub(crate) fn tcp() -> Builder<TcpConnector> {
    Pool::builder(TcpConnector::new())
}

/// One request and its answer, from an echo server.
pub(crate) fn ask<C: Connector>(conn: &mut PooledConn<C>) -> io::Result<()>
where
    PooledConn<C>: Read + Write,
{
    conn.write_all(b"ping")?;
    let mut answer = [0; 4];
    conn.read_exact(&mut answer)?;
    assert_eq!(&answer, b"ping", "somebody else's answer");
    Ok(())
}

/// Remembers what it is told. Cloning makes a second handle to the same memory.
#[derive(Clone, Default)]
pub(crate) struct Diary(Arc<Mutex<Pages>>);

#[derive(Default)]
struct Pages {
    connected: Vec<Connected>,
    closed: Vec<Closed>,
    threads: Vec<String>,
}

impl Diary {
    pub(crate) fn connected(&self) -> Vec<Connected> {
        self.0.lock().connected.clone()
    }

    pub(crate) fn closed(&self) -> Vec<Closed> {
        self.0.lock().closed.clone()
    }

    pub(crate) fn reasons(&self) -> Vec<CloseReason> {
        self.0.lock().closed.iter().map(Closed::reason).collect()
    }

    /// The names of the threads that told it, one for each event.
    pub(crate) fn threads(&self) -> Vec<String> {
        self.0.lock().threads.clone()
    }

    /// Waits until so many connections have ended, and says why they did.
    pub(crate) fn reasons_of(&self, count: usize) -> Vec<CloseReason> {
        eventually("closed events", || self.reasons().len() >= count);
        self.reasons()
    }

    fn note_thread(&self) {
        let name = std::thread::current().name().unwrap_or_default().to_owned();
        self.0.lock().threads.push(name);
    }
}

impl Observer for Diary {
    fn connected(&self, event: &Connected) {
        self.note_thread();
        self.0.lock().connected.push(event.clone());
    }

    fn closed(&self, event: &Closed) {
        self.note_thread();
        self.0.lock().closed.push(event.clone());
    }
}

/// So many connections to one endpoint, and no more.
#[track_caller]
pub(crate) fn assert_room(endpoint: &Endpoint<TcpConnector>, count: usize) {
    let held: Vec<_> = (0..count).map(|_| endpoint.get_timeout(SOON).unwrap()).collect();
    let one_more = endpoint.request().unwrap();
    assert_eq!((endpoint.stats().total(), endpoint.stats().waiting()), (count, 1));
    drop((one_more, held));
}
