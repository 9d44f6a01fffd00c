//! Attempts with real sockets on loopback and a real poll. Turns are taken by hand, and the time is
//! what the test says.

pub(in crate::driver) mod rig;

use std::io::Read;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;

use socket2::{Domain, SockAddr, Type};

use self::rig::{News, Orders, SOON, Turning, listener, refusing, silent, to};
use super::*;
use crate::sync::bounded;

/// Whoever has connected has closed again, without a word.
fn assert_closed(listener: &TcpListener) {
    let (mut peer, _) = listener.accept().unwrap();
    peer.set_read_timeout(Some(SOON)).unwrap();
    match peer.read(&mut [0]) {
        Ok(read) => assert_eq!(read, 0),
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
    }
}

fn assert_nobody_came(listener: &TcpListener) {
    listener.set_nonblocking(true).unwrap();
    assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
}

#[test]
fn it_connects_and_delivers_a_socket_that_blocks_and_reads() {
    let mut turning = Turning::new();
    let (listener, address) = listener();
    let key = turning.add(to(&[address]));
    turning.at(0);
    turning.until_news();
    let mut socket = turning.orders.connected(key);
    let (mut peer, _) = listener.accept().unwrap();
    assert_eq!(socket.peer_addr(), Some(address));
    let writes = std::thread::scope(|scope| {
        let reads = scope.spawn(|| {
            let mut text = [0; 2];
            socket.read_exact(&mut text).map(|()| text)
        });
        io::Write::write_all(&mut peer, b"hi").unwrap();
        reads.join().unwrap()
    });
    assert_eq!(&writes.unwrap(), b"hi");
    turning.assert_at_rest();
    assert_eq!(turning.connects.pause(turning.now), None, "nothing is left to wait for");
}

#[test]
fn the_next_address_is_tried_beside_a_silent_one_whose_socket_ends_when_it_connects() {
    let mut turning = Turning::new();
    let (_full, hole) = silent();
    let (listener, address) = listener();
    let key = turning.add(to(&[hole, address]));
    turning.at(0);
    assert_eq!(turning.connects.pause(turning.now), Some(Duration::from_millis(250)));
    turning.at(249);
    assert_eq!(turning.connects.flights.len(), 1);
    assert_nobody_came(&listener);
    turning.at(250);
    assert_eq!(turning.connects.flights.len(), 2);
    turning.until_news();
    assert_eq!(turning.orders.connected(key).peer_addr(), Some(address));
    turning.assert_at_rest();
}

#[test]
fn of_two_that_connect_at_once_one_is_delivered_and_the_other_closed() {
    let mut turning = Turning::new();
    let (one, other) = (listener(), listener());
    let key = turning.add(to(&[one.1, other.1]));
    turning.at(0);
    turning.at(250);
    // Both are connected before the loop looks.
    assert_eq!(turning.connects.flights.len(), 2);
    turning.until_news();
    let socket = turning.orders.connected(key);
    let (winner, loser) =
        if socket.peer_addr() == Some(one.1) { (one, other) } else { (other, one) };
    assert_closed(&loser.0);
    let (peer, _) = winner.0.accept().unwrap();
    peer.set_nonblocking(true).unwrap();
    assert_eq!((&peer).read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    assert_nobody_came(&winner.0);
    assert_nobody_came(&loser.0);
    turning.assert_at_rest();
}

#[test]
fn an_attempt_that_is_called_off_closes_its_sockets() {
    let mut turning = Turning::new();
    let (one, other) = (listener(), listener());
    let key = turning.add(to(&[one.1, other.1]));
    turning.at(0);
    turning.at(250);
    turning.connects.cancel(key);
    turning.orders.too_late(key);
    turning.assert_at_rest();
    assert_closed(&one.0);
    assert_closed(&other.0);
    turning.connects.cancel(key); // the second time there is nothing to end
    turning.assert_at_rest();
}

#[test]
fn an_attempt_that_is_called_off_says_how_far_it_was() {
    let (_refuses, refused) = refusing();
    let holes = [silent(), silent(), silent()];
    let [hole, second, third] = [holes[0].1, holes[1].1, holes[2].1];
    let table: &[(&[SocketAddr], &[u64], &str)] = &[
        (&[hole], &[], "no address was tried by the deadline"),
        (&[hole], &[0], "no answer by the deadline"),
        (&[hole, second], &[0, 250], "no answer from any of 2 addresses by the deadline"),
        (&[hole, second, third], &[0, 250, 500], "no answer from any of 3 addresses by"),
        (&[refused, hole], &[0, 0], "no answer by the deadline; 1 failed before: "),
    ];
    for (addresses, times, words) in table {
        let mut turning = Turning::new();
        let key = turning.add(to(addresses));
        times.iter().for_each(|&millis| turning.at(millis));
        while addresses.contains(&refused) && !turning.has_failed(key) {
            turning.turn(); // where the refusal is news, and not the answer of connect itself
        }
        turning.connects.cancel(key);
        let said = turning.orders.too_late(key);
        assert!(said.starts_with(words), "{said}, and not {words}");
        turning.assert_at_rest();
    }
}

#[test]
fn at_its_deadline_an_attempt_ends_by_itself_and_closes_its_sockets() {
    let mut turning = Turning::new();
    let (listener, address) = listener();
    let key = turning.add(to(&[address]));
    turning.at(0);
    turning.at(2_999);
    assert!(turning.orders.news.is_empty());
    assert_eq!(turning.connects.pause(turning.now), Some(Duration::from_millis(1)));
    turning.at(3_000);
    assert_eq!(turning.orders.too_late(key), "no answer by the deadline");
    turning.assert_at_rest();
    assert_closed(&listener);
    turning.connects.cancel(key); // the core has noticed, too
    turning.assert_at_rest();
}

#[test]
fn a_listener_whose_backlog_stays_full_is_asked_until_the_deadline_and_not_after() {
    let mut turning = Turning::new();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("listener");
    let (_full, _filled) = full_backlog(&path);
    let key = turning.add(Target::Path(path));
    for millis in 0..3_000 {
        turning.at(millis);
        assert!(turning.orders.news.is_empty());
    }
    turning.at(3_000);
    let words = "the listener's backlog was full until the deadline";
    assert_eq!(turning.orders.too_late(key), words);
    turning.assert_at_rest();
    assert_eq!(turning.connects.pause(turning.now), None);
}

#[test]
fn nobody_is_woken_for_the_deadline_or_the_next_address_of_what_has_ended() {
    let mut turning = Turning::new();
    let (one, other) = (listener(), listener());
    let key = turning.add(to(&[one.1, other.1]));
    turning.at(0);
    assert_eq!(turning.connects.pause(turning.now), Some(Duration::from_millis(250)));
    turning.until_news();
    turning.orders.connected(key);
    assert_eq!(turning.connects.pause(turning.now), None);
    turning.at(250);
    turning.at(3_000);
    turning.assert_at_rest();
}

#[test]
fn what_has_ended_long_before_its_deadline_leaves_nothing_behind() {
    let mut turning = Turning::new();
    let (_refuses, refused) = refusing();
    let (_full, hole) = silent();
    let hangs = turning.add(to(&[hole]));
    for _ in 0..1_000 {
        let key = turning.add(to(&[refused]));
        turning.at(0);
        turning.until_news();
        turning.orders.failed(key);
    }
    let Connects { attempts, flights, due, timers, .. } = &turning.connects;
    assert_eq!((attempts.len(), flights.len(), due.len()), (1, 1, 0));
    assert!(timers.len() < 100, "{} timers for one attempt", timers.len());
    turning.at(3_000);
    turning.orders.too_late(hangs);
    turning.assert_at_rest();
}

#[test]
fn an_order_that_came_too_late_is_dropped_and_nothing_is_connected() {
    let mut turning = Turning::new();
    let (listener, address) = listener();
    let (gate, closed) = bounded(0);
    drop(gate);
    let order = Order { target: to(&[address]), ..turning.orders.make_gated(&closed) };
    let key = order.key;
    turning.connects.add(order, turning.now);
    turning.orders.assert_begun(key);
    assert!(matches!(turning.orders.next_of(key), News::Dropped));
    turning.at(0);
    turning.assert_at_rest();
    assert_eq!(turning.connects.pause(turning.now), None);
    assert_nobody_came(&listener);
}

#[test]
fn one_turn_begins_at_most_32_and_the_rest_have_theirs() {
    let mut turning = Turning::new();
    let (_full, hole) = silent();
    for _ in 0..100 {
        turning.add(to(&[hole]));
    }
    assert_eq!(turning.connects.flights.len(), 0, "taking up is no beginning");
    for begun in [32, 64, 96, 100] {
        assert_eq!(turning.connects.pause(turning.now), Some(Duration::ZERO));
        turning.at(0);
        assert_eq!(turning.connects.flights.len(), begun);
    }
    let left = Some(Duration::from_secs(3));
    assert_eq!(turning.connects.pause(turning.now), left, "now it listens, until a deadline");
}

#[test]
fn hundreds_that_connect_together_all_come_through() {
    let mut turning = Turning::new();
    let (listener, address) = listener();
    let mut sockets = Vec::new();
    for _ in 0..5 {
        let keys: Vec<Key> = (0..100).map(|_| turning.add(to(&[address]))).collect();
        while !turning.connects.attempts.is_empty() {
            turning.at(0);
            if turning.connects.flights.len() > 0 {
                turning.turn();
            }
            while let Ok((key, News::Delivered(Outcome::Connected(socket)))) =
                turning.orders.news.try_recv()
            {
                assert!(keys.contains(&key));
                sockets.push(socket);
                drop(listener.accept().unwrap());
            }
        }
    }
    assert_eq!(sockets.len(), 500);
    turning.assert_at_rest();
}

/// A Unix listener whose backlog is full, and those who wait in it.
fn full_backlog(path: &std::path::Path) -> (socket2::Socket, Vec<socket2::Socket>) {
    let socket = || socket2::Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    let address = SockAddr::unix(path).unwrap();
    let listener = socket();
    listener.bind(&address).unwrap();
    listener.listen(0).unwrap();
    let fills = std::iter::repeat_with(socket).map_while(|socket| {
        socket.set_nonblocking(true).unwrap();
        socket.connect(&address).is_ok().then_some(socket)
    });
    let filled = fills.collect();
    (listener, filled)
}

#[test]
fn a_unix_listener_whose_backlog_is_full_is_asked_again_ever_later_and_connected_to_in_the_end() {
    let mut turning = Turning::new();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("listener");
    let (full, filled) = full_backlog(&path);
    let key = turning.add(Target::Path(path.clone()));
    let called_off = turning.add(Target::Path(path));
    turning.at(0);
    turning.connects.cancel(called_off);
    assert_eq!(
        turning.orders.too_late(called_off),
        "the listener's backlog was full until the deadline"
    );
    let mut millis = 0;
    for pause in [1, 2, 4, 8, 16, 32, 50, 50] {
        let left = turning.connects.pause(turning.now);
        assert_eq!(left, Some(Duration::from_millis(pause)), "after {millis} ms");
        millis += pause;
        turning.at(millis);
    }
    assert!(turning.orders.news.is_empty());
    let listener = UnixListener::from(std::os::fd::OwnedFd::from(full));
    filled.iter().for_each(|_| drop(listener.accept().unwrap()));
    turning.at(millis + 49);
    assert!(turning.orders.news.is_empty(), "it is not asked before its time");
    turning.at(millis + 50);
    let socket = turning.orders.connected(key);
    assert!(listener.accept().is_ok() && socket.peer_addr().is_none());
    turning.assert_at_rest();
}

#[test]
fn a_unix_path_where_nobody_listens_fails_with_the_cause() {
    let mut turning = Turning::new();
    let folder = tempfile::tempdir().unwrap();
    let key = turning.add(Target::Path(folder.path().join("nothing")));
    turning.at(0);
    assert_eq!(turning.orders.failed(key).kind(), io::ErrorKind::NotFound);
    turning.assert_at_rest();
}

#[test]
fn an_address_that_refuses_makes_way_at_once_and_the_last_fails_the_attempt_with_the_cause() {
    let mut turning = Turning::new();
    let (one, other) = (refusing(), refusing());
    let (listener, address) = listener();
    let key = turning.add(to(&[one.1, other.1, address]));
    turning.at(0);
    turning.until_news(); // without a head start for anybody
    assert_eq!(turning.orders.connected(key).peer_addr(), Some(address));
    drop(listener);
    for (addresses, text) in [
        (vec![one.1], "Connection refused"),
        (vec![one.1, other.1], "all 2 addresses failed: Connection refused"),
    ] {
        let key = turning.add(to(&addresses));
        (0..2).for_each(|_| turning.at(0));
        turning.until_news();
        let error = turning.orders.failed(key);
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert!(error.to_string().starts_with(text), "{error}");
    }
    turning.assert_at_rest();
}

/// Accepts, and resets at once.
fn reset(listener: &TcpListener) {
    let (peer, _) = listener.accept().unwrap();
    socket2::SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
}

#[test]
fn a_server_that_resets_during_the_connect_fails_it_with_the_cause() {
    let mut turning = Turning::new();
    let (listener, address) = listener();
    let key = turning.add(to(&[address]));
    turning.at(0);
    reset(&listener);
    turning.until_news();
    assert_eq!(turning.orders.failed(key).kind(), io::ErrorKind::ConnectionReset);
    turning.assert_at_rest();
}

#[test]
fn after_a_reset_during_the_connect_the_next_address_is_tried_at_once() {
    let mut turning = Turning::new();
    let (resets, other) = (listener(), listener());
    let key = turning.add(to(&[resets.1, other.1]));
    turning.at(0);
    reset(&resets.0);
    turning.until_news();
    assert_eq!(turning.orders.connected(key).peer_addr(), Some(other.1));
    turning.assert_at_rest();
}

#[test]
fn a_name_without_addresses_fails_at_once() {
    let mut turning = Turning::new();
    let key = turning.add(to(&[]));
    turning.at(0);
    assert!(!turning.orders.news.is_empty(), "nothing would ever end it but its deadline");
    let error = turning.orders.failed(key);
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    assert_eq!(error.to_string(), "there was no address to try");
    turning.assert_at_rest();
}

#[test]
fn an_option_that_the_system_refuses_fails_the_attempt() {
    let mut turning = Turning::new();
    let (listener, address) = listener();
    // Kept for documentation: no machine has it.
    let nowhere: std::net::IpAddr = "192.0.2.1".parse().unwrap();
    let order = turning.orders.make(to(&[address, address]));
    let order = Order { options: SocketOptions::new().local_address(nowhere), ..order };
    let key = order.key;
    turning.connects.add(order, turning.now);
    turning.orders.assert_begun(key);
    turning.at(0);
    assert_eq!(turning.orders.failed(key).kind(), io::ErrorKind::AddrNotAvailable);
    turning.assert_at_rest();
    assert_nobody_came(&listener);
}

/// One attempt with its socket on the way, one that waits for its turn.
fn under_way() -> (Turning, TcpListener, [Key; 2]) {
    let mut turning = Turning::new();
    let (listener, address) = listener();
    let flying = turning.add(to(&[address]));
    turning.at(0);
    let waiting = turning.add(to(&[address]));
    (turning, listener, [flying, waiting])
}

fn assert_all_dropped(orders: &Orders, keys: [Key; 2]) {
    let mut seen: Vec<Key> = Vec::new();
    for (key, news) in orders.news.try_iter() {
        assert!(matches!(news, News::Dropped), "{news:?}");
        seen.push(key);
    }
    seen.sort_unstable();
    assert_eq!(seen, keys);
}

#[test]
fn dropping_all_fails_every_order_and_closes_every_socket() {
    let (Turning { connects, orders, .. }, listener, keys) = under_way();
    drop(connects);
    assert_all_dropped(&orders, keys);
    assert_closed(&listener);
    assert_nobody_came(&listener);
}

#[test]
fn after_all_was_given_up_new_orders_connect_and_late_events_say_nothing() {
    let (mut turning, listener, keys) = under_way();
    let word = Token::default().pack(TAG).unwrap();
    drop(turning.connects.take_all());
    assert_all_dropped(&turning.orders, keys);
    assert_closed(&listener);
    turning.connects.ready(Cut::unpack(word).1);
    turning.assert_at_rest();
    let key = turning.add(to(&[listener.local_addr().unwrap()]));
    turning.at(0);
    turning.until_news();
    turning.orders.connected(key);
    turning.assert_at_rest();
}
