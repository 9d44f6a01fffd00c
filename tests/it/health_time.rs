//! Time: what is kept ready is not what is idle for too long, lifetimes end one after the other,
//! and the time after which a server closes idle connections is learned, or told.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use warmline::{
    CloseReason, Closed, Connected, Endpoint, Observer, Pool, PooledConn, TcpConnector,
};

use crate::support::lab::Lab;
use crate::support::server::{Crowd, Server};
use crate::support::{Diary, SOON, ask, assert_balanced, eventually, tcp, watchdog};

const BRIEF: Duration = Duration::from_millis(50);
const LONG: Duration = Duration::from_secs(3600);

#[test]
fn what_is_idle_beyond_what_is_kept_ready_ends_and_no_more() {
    let _watchdog = watchdog();
    let diary = Diary::default();
    let builder = Pool::builder(Lab::sound()).observer(diary.clone());
    let too_long = Duration::from_secs(1); // so long that the reaper is never late by as much
    let pool = builder.min_idle(5).idle_timeout(too_long).build().unwrap();
    let endpoint = pool.endpoint("a").unwrap();
    let held: Vec<_> = (0..10).map(|_| endpoint.get().unwrap()).collect();
    eventually("five are ready beside them", || {
        let stats = endpoint.stats();
        (stats.idle(), stats.connecting()) == (5, 0)
    });
    held.into_iter().for_each(drop);
    eventually("five are left", || endpoint.stats().idle() == 5);
    assert_eq!(diary.reasons_of(10), [CloseReason::IdleTimeout; 10]);
    // As long again, in which those that are left are idle for too long if they had to go.
    let other = tcp().idle_timeout(too_long * 3 / 2).build().unwrap();
    let server = Server::echo();
    drop(other.get(&server.name()).unwrap());
    eventually("another is closed for that", || other.stats().closed() == 1);
    assert_eq!((endpoint.stats().idle(), endpoint.stats().closed()), (5, 10));
}

/// How many are open, as the observer hears it, event by event.
#[derive(Clone, Default)]
struct Tide(Arc<Mutex<Vec<usize>>>);

impl Tide {
    fn note(&self, change: impl FnOnce(usize) -> usize) {
        let mut heights = self.0.lock();
        let height = change(heights.last().copied().unwrap_or_default());
        heights.push(height);
    }

    /// The least after `count` were open for the first time; `None` if they never were.
    fn least_after(&self, count: usize) -> Option<usize> {
        let heights = self.0.lock();
        heights.iter().skip_while(|&&height| height < count).min().copied()
    }
}

impl Observer for Tide {
    fn connected(&self, _: &Connected) {
        self.note(|height| height + 1);
    }

    fn closed(&self, _: &Closed) {
        self.note(|height| height - 1);
    }
}

#[test]
fn after_a_peak_no_fewer_are_left_than_are_to_be_kept_ready() {
    let _watchdog = watchdog();
    let tide = Tide::default();
    let builder = Pool::builder(Lab::sound()).observer(tide.clone()).min_idle(5);
    let builder = builder.max_per_endpoint(60).max_connecting(60);
    let pool = builder.idle_timeout(Duration::from_secs(1)).build().unwrap();
    let endpoint = pool.endpoint("a").unwrap();
    let held: Vec<_> = (0..60).map(|_| endpoint.get().unwrap()).collect();
    drop(held);
    eventually("five are left", || endpoint.stats().total() == 5);
    assert_eq!(endpoint.stats().closed_for(CloseReason::IdleTimeout), 55);
    eventually("it is heard", || tide.0.lock().len() == 60 + 55);
    assert_eq!(tide.least_after(60), Some(5));
    assert_balanced(&endpoint.stats());
}

#[test]
fn at_its_limit_an_endpoint_is_refilled_after_each_that_retires() {
    let _watchdog = watchdog();
    let builder = Pool::builder(Lab::sound()).max_per_endpoint(3).min_idle(3);
    let pool = builder.max_lifetime(Duration::from_millis(200)).build().unwrap();
    let endpoint = pool.endpoint("a").unwrap();
    eventually("generations go by", || {
        assert!(endpoint.stats().total() <= 3, "{}", endpoint.stats());
        endpoint.stats().closed_for(CloseReason::MaxLifetime) >= 12
    });
    eventually("three are ready", || endpoint.stats().idle() == 3);
}

#[test]
fn connections_that_were_born_together_do_not_die_together() {
    const COUNT: usize = 50;
    let _watchdog = watchdog();
    let crowd = Crowd::new();
    let diary = Diary::default();
    let lifetime = Duration::from_secs(6);
    let builder = tcp().max_per_endpoint(COUNT).max_connecting(COUNT).observer(diary.clone());
    let pool = builder.max_lifetime(lifetime).build().unwrap();
    let endpoint = pool.endpoint(&crowd.name()).unwrap();
    assert_eq!(endpoint.warm(COUNT, SOON).unwrap(), COUNT);
    assert_eq!(diary.reasons_of(COUNT), [CloseReason::MaxLifetime; COUNT]);
    let mut ages: Vec<_> = diary.closed().iter().map(Closed::age).collect();
    ages.sort_unstable();
    let quarter = lifetime / 4;
    // Ages are counted in ticks of some milliseconds.
    let slack = Duration::from_millis(20);
    assert!(ages[0] + slack >= lifetime - quarter, "none before the last quarter: {ages:?}");
    // Spread evenly, a tenth of that time sees five of fifty. A busy machine closes late, many at
    // once; but not as many as would go together.
    for (at, &age) in ages.iter().enumerate() {
        let together = ages[at..].iter().take_while(|&&it| it < age + quarter / 10).count();
        assert!(together <= COUNT / 2, "{together} at once: {ages:?}");
    }
}

/// Where an echo closes what is idle for so long. It listens as long as there are tests.
fn impatient(limit: Duration) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for peer in listener.incoming().map(Result::unwrap) {
            peer.set_read_timeout(Some(limit)).unwrap();
            std::thread::spawn(move || io::copy(&mut &peer, &mut &peer));
        }
    });
    address
}

/// Leaves six connections idle, one after the other, and waits until all have ended.
fn idle_in_turn(endpoint: &Endpoint<TcpConnector>) {
    let held: Vec<_> = (0..6).map(|_| endpoint.get_timeout(SOON).unwrap()).collect();
    for mut conn in held {
        ask(&mut conn).unwrap(); // from here on its server counts, too
        drop(conn);
        // More than what would be a restart of the server, if half of them ended within it.
        std::thread::sleep(Duration::from_millis(300));
    }
    eventually("all have ended", || endpoint.stats().idle() == 0);
}

#[test]
fn the_time_after_which_a_server_closes_idle_connections_is_learned() {
    let _watchdog = watchdog();
    let limit = Duration::from_millis(2_500);
    let endpoint = Pool::tcp().endpoint(&impatient(limit)).unwrap();
    assert_eq!(endpoint.stats().idle_limit(), None);
    for _ in 0..6 {
        idle_in_turn(&endpoint);
        if endpoint.stats().idle_limit().is_some() {
            break;
        }
    }
    let learned = endpoint.stats().idle_limit().expect("it has seen enough");
    assert!(learned < limit && learned >= limit / 2, "{learned:?}");
    let before = endpoint.stats().closed_for(CloseReason::IdleTimeout);
    idle_in_turn(&endpoint);
    let by_the_pool = endpoint.stats().closed_for(CloseReason::IdleTimeout) - before;
    assert!(by_the_pool > 0, "the pool closes them first: {}", endpoint.stats());
    assert_balanced(&endpoint.stats());
}

#[test]
fn a_server_that_restarts_over_and_over_teaches_nothing() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let pool = Pool::tcp();
    let endpoint = pool.endpoint(&server.name()).unwrap();
    for restart in 1..=12 {
        let mut held: Vec<_> = (0..4).map(|_| endpoint.get_timeout(SOON).unwrap()).collect();
        held.iter_mut().for_each(|conn| ask(conn).unwrap());
        drop(held);
        server.hang_up();
        eventually("all have ended", || endpoint.stats().idle() == 0);
        assert_eq!(endpoint.stats().closed_for(CloseReason::PeerClosed), 4 * restart);
        assert_eq!(endpoint.stats().idle_limit(), None);
    }
}

#[test]
fn what_a_server_has_told_is_kept_to() {
    let _watchdog = watchdog();
    let (server, other) = (Server::echo(), Server::echo());
    let diary = Diary::default();
    let pool = tcp().observer(diary.clone()).build().unwrap();
    let [endpoint, other] = [&server, &other].map(|it| pool.endpoint(&it.name()).unwrap());
    ask(&mut endpoint.get().unwrap()).unwrap();
    ask(&mut other.get().unwrap()).unwrap();
    endpoint.note_idle_limit(Duration::from_secs(1));
    let limit = endpoint.stats().idle_limit().expect("it was told");
    assert!(limit <= Duration::from_secs(1), "{limit:?}");
    assert_eq!(diary.reasons_of(1), [CloseReason::IdleTimeout]);
    assert_eq!((endpoint.stats().idle(), other.stats().idle()), (0, 1), "and by nobody else");
    let conn = endpoint.get().unwrap();
    assert!(!PooledConn::is_reused(&conn));
    assert_eq!(other.stats().idle_limit(), None);
}

#[test]
fn what_a_server_has_told_makes_no_time_out_longer() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let diary = Diary::default();
    let pool = tcp().idle_timeout(BRIEF).observer(diary.clone()).build().unwrap();
    let endpoint = pool.endpoint(&server.name()).unwrap();
    for told in [LONG, Duration::MAX, Duration::ZERO] {
        endpoint.note_idle_limit(told);
        ask(&mut endpoint.get_timeout(SOON).unwrap()).unwrap();
        eventually("it has ended", || endpoint.stats().idle() == 0);
    }
    assert_eq!(diary.reasons_of(3), [CloseReason::IdleTimeout; 3]);
}
