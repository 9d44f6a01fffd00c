//! Servers that refuse, and servers that do not answer.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use warmline::{
    Connecting, Connector, Endpoint, Error, ErrorKind, Failure, Observer, Phase, PooledConn,
};

use super::Ask;
use crate::scripted::Scripted;
use crate::servers::Server;
use crate::support::{SOON, assert_at_rest, assert_empty, eventually, under_load};

/// Nobody is served, in these words of the server, and nothing is left of the attempt.
///
/// # Panics
///
/// If it is not so.
#[track_caller]
pub fn assert_refused<C: Connector>(endpoint: &Endpoint<C>, words: &str) -> Error {
    let Err(error) = endpoint.get_timeout(SOON) else { panic!("it was let in") };
    // At the end of SOON it would be a time-out.
    assert_eq!((error.kind(), error.phase()), (ErrorKind::Connect, Some(Phase::Open)), "{error}");
    assert!(error.to_string().contains(words), "{error}");
    assert_empty(&endpoint.stats());
    error
}

/// A server that is down is said to be, and is found once it is back.
///
/// # Panics
///
/// If it is not so.
pub fn is_said_to_be_down<C: Connector>(
    server: &mut Server,
    endpoint: &Endpoint<C>,
    ask: impl Ask<C>,
) {
    server.kill();
    let error = assert_refused(endpoint, "");
    assert_eq!(error.failure(), Some(Failure::Refused), "{error}");
    server.start_again();
    eventually("it is found", || endpoint.get().is_ok_and(|mut conn| ask(&mut conn, 1).is_ok()));
}

/// What is held is all that the server allows: it says so in these words to those who come from
/// elsewhere, and callers here are told. What is there is used on.
///
/// # Panics
///
/// If it is not so.
pub fn is_quoted_when_full<C: Connector>(
    endpoint: &Endpoint<C>,
    held: Vec<PooledConn<C>>,
    elsewhere: &Endpoint<C>,
    words: &str,
    ask: impl Ask<C>,
) {
    assert_refused(elsewhere, words);
    eventually("a time-out that quotes the server", || {
        let Err(error) = endpoint.get_timeout(Duration::from_millis(100)) else {
            panic!("there is room for more than {}", held.len());
        };
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
        error.to_string().contains(words)
    });
    let count = held.len() as u64;
    drop(held);
    let exchange = |number: usize| {
        let mut conn = endpoint.get_timeout(SOON).expect("nobody keeps them for long");
        ask(&mut conn, number as i64).expect("it is up");
    };
    under_load(exchange, |load| load.await_more(1000));
    let stats = endpoint.stats();
    assert_eq!((stats.opened(), stats.closed()), (count, 0), "{stats}");
    assert_at_rest(&stats);
}

/// A wrong password fails fast, in these words of the server, and is shown to nobody.
///
/// # Panics
///
/// If it is not so.
pub fn refuses_a_password<C: Connector>(endpoint: &Endpoint<C>, password: &str, words: &str) {
    let error = assert_refused(endpoint, words);
    let shown = [error.to_string(), format!("{error:#}"), format!("{error:?}")];
    assert!(shown.iter().all(|text| text.contains(words)), "{shown:?}");
    let of_pool = [endpoint.pool().report().to_string(), format!("{endpoint:?}")];
    for text in shown.iter().chain(&of_pool) {
        assert!(!text.contains(password), "{text}");
    }
}

/// Where a password is needed and there is none, the server's words say so; with the right one all
/// is well.
///
/// # Panics
///
/// If it is not so.
pub fn is_told_what_is_missing<C: Connector>(
    without: &Endpoint<C>,
    words: &str,
    with: &Endpoint<C>,
    ask: impl Ask<C>,
) {
    assert_refused(without, words);
    ask(&mut with.get_timeout(SOON).expect("it is the right one"), 1).expect("it is up");
}

/// Callers who insist, though they are refused, cost the server one attempt per pause.
///
/// # Panics
///
/// If it is not so.
pub fn pauses_between_attempts<C: Connector>(endpoint: &Endpoint<C>, attempts: impl Fn() -> usize) {
    let began = Instant::now();
    let before = attempts();
    let insists = |_: usize| {
        let Err(error) = endpoint.get_timeout(SOON) else { panic!("it was let in") };
        let (kind, phase) = (error.kind(), error.phase());
        assert_eq!((kind, phase), (ErrorKind::Connect, Some(Phase::Open)), "{error}");
    };
    under_load(insists, |load| {
        eventually("it was tried again and again", || attempts() >= before + 12);
        load.await_more(100);
    });
    // No two of them within 50 ms; how many there may be at first is the callers' number.
    let most = 8 + began.elapsed().as_millis() as usize / 50;
    let made = attempts() - before;
    assert!(made <= most, "{made} attempts, where {most} would do");
    assert_eq!(endpoint.stats().opened(), 0, "one was let in");
    assert_empty(&endpoint.stats());
}

/// Counts attempts. Cloning makes a second handle to the same count.
#[derive(Clone, Default)]
pub struct Attempts(Arc<AtomicUsize>);

impl Attempts {
    pub fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Observer for Attempts {
    fn connecting(&self, _: &Connecting) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// A server that says nothing, or this byte now and then for ever, costs no more than the deadline,
/// which is to be a short one; and the client is done with it.
///
/// # Panics
///
/// If it is not so.
pub fn keeps_deadlines<C: Connector>(byte: u8, endpoint_at: impl Fn(SocketAddr) -> Endpoint<C>) {
    let silent = Scripted::new(|mut peer| peer.read_to_end(&mut Vec::new()).map(drop));
    // No single read takes long.
    let endless = Scripted::new(move |mut peer| {
        loop {
            peer.write_all(&[byte])?;
            thread::sleep(Duration::from_millis(5));
        }
    });
    for server in [silent, endless] {
        let endpoint = endpoint_at(server.address());
        let Err(error) = endpoint.get_timeout(SOON) else { panic!("it was let in") };
        assert_eq!(error.kind(), ErrorKind::Connect, "{error}");
        assert_eq!(error.failure(), Some(Failure::Timeout), "{error}");
        assert_empty(&endpoint.stats());
    }
}

/// A server that does not answer costs no more than the deadline, which is to be a short one. The
/// client cannot be interrupted: it is left behind, until its server goes.
///
/// # Panics
///
/// If it is not so.
pub fn leaves_clients_behind<C: Connector, S>(endpoint: &Endpoint<C>, server: S) {
    let error = assert_refused(endpoint, "");
    assert_eq!(error.failure(), Some(Failure::Timeout), "{error}");
    eventually("left behind", || endpoint.stats().abandoned() == 1);
    drop(server);
    eventually("over", || endpoint.stats().abandoned() == 0);
}
