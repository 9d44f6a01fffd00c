//! What the public types can do: cross threads, be printed, be cheap to pass on.

use std::cell::Cell;
use std::fmt::Debug;

use warmline::{
    Address, BoxConnector, BoxError, Builder, CloseReason, Closed, Config, Connected, Deadline,
    Ended, Endpoint, EndpointLimits, Error, ErrorKind, Exchange, Failure, Look, One, Opening,
    Phase, Plan, Pool, PooledConn, Pulse, Repeat, Request, Reset, Resolved, Resolver, Reuse,
    Socket, SocketOptions, SocketPath, Stamp, Stats, TcpConnector, TcpKeepalive, UnixConnector,
    Watch,
};

use crate::support::lab::Lab;
use crate::support::{tcp, watchdog};

const fn send<T: Send>() {}
const fn sync<T: Send + Sync>() {}
const fn handle<T: Send + Sync + Clone + Debug + 'static>() {}

#[test]
fn handles_can_be_shared_and_cloned_and_guards_can_be_moved_to_other_threads() {
    handle::<Pool<TcpConnector>>();
    handle::<Endpoint<TcpConnector>>();
    handle::<Pool<UnixConnector>>();
    handle::<Endpoint<UnixConnector>>();
    handle::<Endpoint<BoxConnector<One, Vec<u8>>>>();
    sync::<PooledConn<TcpConnector>>();
    sync::<PooledConn<UnixConnector>>();
    sync::<PooledConn<BoxConnector<One, Vec<u8>>>>();
    handle::<Resolver>();
    sync::<Request<TcpConnector>>();
    sync::<Request<BoxConnector<One, Vec<u8>>>>();
    sync::<Socket>();
    send::<Opening>();
    send::<Builder<TcpConnector>>();
    sync::<Error>();
    sync::<BoxError>();
}

#[test]
fn plain_values_can_be_shared_between_threads() {
    handle::<Address>();
    handle::<SocketPath>();
    handle::<One>();
    handle::<CloseReason>();
    handle::<Closed>();
    handle::<Config>();
    handle::<Connected>();
    handle::<Deadline>();
    handle::<Stamp>();
    handle::<Ended>();
    handle::<EndpointLimits>();
    handle::<ErrorKind>();
    handle::<Exchange>();
    handle::<Failure>();
    handle::<Look>();
    handle::<Phase>();
    handle::<Plan>();
    handle::<Pulse>();
    handle::<Repeat>();
    handle::<Reset>();
    handle::<Resolved>();
    handle::<Reuse>();
    handle::<SocketOptions>();
    handle::<Stats>();
    handle::<TcpConnector>();
    handle::<TcpKeepalive>();
    handle::<UnixConnector>();
    sync::<Watch<'static>>();
}

/// Opens what must stay with one thread at a time, as many drivers' connections must.
struct Unshared;

impl warmline::Connector for Unshared {
    type Key = One;
    type Conn = Cell<u8>;

    fn open(&self, _: &One, _: &mut Opening) -> Result<Cell<u8>, BoxError> {
        Ok(Cell::new(0))
    }
}

#[test]
fn a_pool_of_connections_that_cannot_be_shared_can_itself() {
    let _watchdog = watchdog();
    handle::<Pool<Unshared>>();
    handle::<Endpoint<Unshared>>();
    // And no more than that: see the cases of `tests/compile`.
    send::<PooledConn<Unshared>>();
    sync::<Request<Unshared>>();
    let endpoint = Endpoint::of(Unshared).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let conn = endpoint.get().unwrap();
                conn.set(conn.get() + 1);
            });
        }
    });
    let open: Vec<_> = std::iter::from_fn(|| endpoint.try_get()).collect();
    assert_eq!(open.iter().map(|conn| conn.get()).sum::<u8>(), 4);
}

#[test]
fn everything_can_be_printed_even_while_it_is_in_use() {
    let _watchdog = watchdog();
    let builder = tcp().name("orders").max_total(7);
    assert!(format!("{builder:?}").contains("7"));
    let pool = Pool::builder(Lab::sound()).name("orders").max_per_endpoint(1).build().unwrap();
    let endpoint = pool.endpoint("eu-west").unwrap();
    let conn = endpoint.get().unwrap();
    assert!(format!("{pool:?}").contains("orders"));
    assert!(format!("{endpoint:?}").contains("eu-west"));
    let text = format!("{conn:?}");
    assert!(text.contains("eu-west") && text.contains("is_reused: false"), "{text}");
    let request = endpoint.request().unwrap();
    let text = format!("{request:?}");
    assert!(text.contains("eu-west") && text.contains("has_arrived"), "{text}");
    drop(request);
    assert!(!format!("{:?}", Resolver::system()).is_empty());
    let text = pool.stats().to_string();
    assert!(
        text.contains("1 in use") && text.contains("1 opened") && !text.contains('\n'),
        "{text}"
    );
    drop(conn);
    pool.close();
    assert!(pool.stats().to_string().contains("1 the pool was closed"));
}

#[test]
fn every_reason_has_words_of_its_own() {
    let words: std::collections::BTreeSet<_> =
        CloseReason::ALL.iter().map(|reason| reason.to_string()).collect();
    assert_eq!(words.len(), CloseReason::ALL.len());
    assert!(words.iter().all(|words| !words.is_empty() && !words.ends_with('.')));
}

#[cfg(feature = "http")]
#[test]
fn clients_are_shared_and_answers_can_be_read_by_other_threads() {
    use warmline::http::{
        Body, Client, Conn, Error, ErrorKind, Event, Origin, OriginConnector, Stage, Unfit,
        Upgraded,
    };

    handle::<Client>();
    handle::<ErrorKind>();
    handle::<Event>();
    handle::<Origin>();
    handle::<OriginConnector>();
    handle::<Stage>();
    handle::<Unfit>();
    sync::<Error>();
    send::<Body>();
    send::<Conn>();
    send::<Upgraded>();
    assert_eq!(size_of::<Error>(), size_of::<usize>());
}
