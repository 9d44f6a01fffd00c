//! `Endpoint::run`: an exchange is done again only where that can neither harm nor be in vain.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::time::Duration;

use warmline::{Endpoint, Pool, PooledConn, Repeat};

use crate::support::foreign::Unwatched;
use crate::support::lab::{Act, Lab, Method};
use crate::support::server::Server;
use crate::support::{SOON, ask, assert_balanced, eventually, tcp, watchdog};

/// An endpoint whose idle connections are neither watched nor looked at before they go out, as if
/// each had been used a moment ago: what the server closes meanwhile comes as a surprise.
fn endpoint(server: &Server) -> Endpoint<Unwatched> {
    let builder = Pool::builder(Unwatched).probe_after(Duration::from_secs(3600));
    builder.build().unwrap().endpoint(&server.name()).unwrap()
}

/// Leaves `count` connections idle whose server has closed them.
fn make_stale(endpoint: &Endpoint<Unwatched>, server: &Server, count: usize) {
    let mut held: Vec<_> = (0..count).map(|_| endpoint.get().unwrap()).collect();
    held.iter_mut().for_each(|conn| ask(conn).unwrap());
    drop(held);
    server.hang_up();
    eventually("the server has closed them", || server.open() == 0);
    assert_eq!(endpoint.stats().idle(), count, "the pool does not know");
}

fn request(conn: &mut PooledConn<Unwatched>) -> io::Result<()> {
    ask(conn)
}

#[test]
fn a_repeatable_exchange_survives_any_number_of_stale_connections() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let endpoint = endpoint(&server);
    make_stale(&endpoint, &server, 5);
    let mut tries = 0;
    let result = endpoint.run(Repeat::Always, |conn| {
        tries += 1;
        request(conn)
    });
    result.expect("a server that closes idle connections does no harm");
    assert_eq!((tries, server.accepted()), (6, 6));
    assert_eq!((endpoint.stats().closed(), endpoint.stats().idle()), (5, 1));
    assert_balanced(&endpoint.stats());
}

#[test]
fn a_connection_opened_ahead_of_need_can_be_stale_too() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let endpoint = endpoint(&server);
    assert_eq!(endpoint.warm(1, SOON).unwrap(), 1);
    eventually("the server has it", || server.open() == 1);
    server.hang_up();
    eventually("the server has closed it", || server.open() == 0);
    endpoint.run(Repeat::Always, request).expect("it had died while it was idle");
    assert_eq!((server.accepted(), endpoint.stats().checkouts()), (2, 2));
}

#[test]
fn a_server_that_hangs_up_on_a_request_instead_of_answering_it_is_asked_again() {
    let _watchdog = watchdog();
    // No watch can see this coming: it closes idle connections at the moment they are used.
    let server = Server::scripted(|peer| {
        peer.take(4)?;
        peer.write_all(b"ping")?;
        peer.take(4).map(drop)
    });
    let endpoint = tcp().build().unwrap().endpoint(&server.name()).unwrap();
    for _ in 0..5 {
        endpoint.run(Repeat::Always, ask).unwrap();
    }
    assert_eq!((server.accepted(), endpoint.stats().checkouts()), (5, 9));
}

#[test]
fn what_was_written_is_not_sent_twice_unless_that_is_allowed() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let endpoint = endpoint(&server);
    make_stale(&endpoint, &server, 1);
    let mut tries = 0;
    let error = endpoint.run(Repeat::IfUnwritten, |conn| {
        tries += 1;
        request(conn)
    });
    error.expect_err("the server may have acted on it");
    assert_eq!(tries, 1);
    assert_eq!(endpoint.stats().total(), 0, "the dead connection is gone");
}

#[test]
fn what_was_not_written_may_be_sent_elsewhere() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let endpoint = endpoint(&server);
    make_stale(&endpoint, &server, 2);
    let mut tries = 0;
    let result = endpoint.run(Repeat::IfUnwritten, |conn| {
        tries += 1;
        if PooledConn::is_reused(conn) {
            // A protocol whose server speaks first.
            conn.read_exact(&mut [0])?;
        }
        request(conn)
    });
    result.unwrap();
    assert_eq!(tries, 3);
}

#[test]
fn a_request_that_breaks_every_connection_is_sent_four_times_and_no_more() {
    let _watchdog = watchdog();
    let server = Server::scripted(|peer| peer.take(4).map(drop));
    let endpoint = endpoint(&server);
    let mut tries = 0;
    let error = endpoint.run(Repeat::Always, |conn| {
        tries += 1;
        request(conn)
    });
    assert_eq!(error.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    assert_eq!((tries, server.accepted()), (4, 4));
}

#[test]
fn what_may_not_be_sent_twice_is_not_when_a_fresh_connection_fails() {
    let _watchdog = watchdog();
    let server = Server::scripted(|peer| peer.take(4).map(drop));
    let endpoint = endpoint(&server);
    let mut tries = 0;
    let error = endpoint.run(Repeat::IfUnwritten, |conn| {
        tries += 1;
        request(conn)
    });
    assert_eq!(error.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    assert_eq!((tries, server.accepted()), (1, 1));
}

#[test]
fn an_answer_that_broke_off_is_asked_for_again_only_where_that_does_no_harm() {
    let _watchdog = watchdog();
    let server = Server::scripted(|peer| {
        peer.take(4)?;
        peer.write_all(b"ping")?;
        peer.take(4)?;
        peer.write_all(b"pi")
    });
    let endpoint = endpoint(&server);
    let run = |repeat| {
        endpoint.run(Repeat::Always, request).unwrap();
        let mut tries = 0;
        let result = endpoint.run(repeat, |conn| {
            tries += 1;
            request(conn)
        });
        (result.is_ok(), tries)
    };
    assert_eq!(run(Repeat::IfUnwritten), (false, 1), "half an answer is an answer");
    assert_eq!(run(Repeat::Always), (true, 2));
}

#[test]
fn an_error_of_the_application_is_no_reason_to_ask_again() {
    let _watchdog = watchdog();
    let server = Server::echo();
    let endpoint = endpoint(&server);
    endpoint.run(Repeat::Always, request).unwrap();
    let mut tries = 0;
    let result: Result<(), io::Error> = endpoint.run(Repeat::Always, |conn| {
        tries += 1;
        request(conn)?;
        Err(io::Error::other("the answer says no"))
    });
    assert_eq!(result.unwrap_err().to_string(), "the answer says no");
    assert_eq!((tries, endpoint.stats().idle()), (1, 1));
}

#[test]
fn a_reset_by_the_peer_is_stale_as_well() {
    let _watchdog = watchdog();
    let (tell, told) = crossbeam_channel::bounded::<()>(0);
    let server = Server::scripted(move |peer| {
        if peer.number() > 0 {
            return peer.echo();
        }
        peer.take(4)?;
        peer.write_all(b"ping")?;
        peer.wait(&told)?;
        peer.reset()
    });
    let endpoint = endpoint(&server);
    endpoint.run(Repeat::Always, request).unwrap();
    tell.send(()).unwrap();
    eventually("it is reset", || server.open() == 0);
    endpoint.run(Repeat::Always, request).unwrap();
    assert_eq!((server.accepted(), endpoint.stats().checkouts()), (2, 3));
}

#[test]
fn without_a_socket_to_look_at_only_reused_connections_are_repeated_on() {
    let _watchdog = watchdog();
    let pool = warmline::Pool::builder(Lab::sound()).build().unwrap();
    let endpoint = pool.endpoint("a").unwrap();
    drop(endpoint.get().unwrap());
    let mut seen = Vec::new();
    let result: Result<(), io::Error> = endpoint.run(Repeat::Always, |item| {
        seen.push(item.number);
        assert_eq!(PooledConn::exchange(item).written(), None);
        Err(io::ErrorKind::BrokenPipe.into())
    });
    result.expect_err("the second was opened for this");
    assert_eq!(seen, [0, 1]);
    let unwritten: Result<(), io::Error> =
        endpoint.run(Repeat::IfUnwritten, |_| Err(io::ErrorKind::BrokenPipe.into()));
    unwritten.expect_err("what was written cannot be known");
}

#[test]
fn a_repeat_that_gets_no_connection_in_time_leaves_the_first_error() {
    let _watchdog = watchdog();
    let lab = Lab::new(|method, before| match (method, before) {
        (Method::Open, 1..) => Act::Hang,
        _ => Act::Go,
    });
    let bench = lab.bench();
    let builder = warmline::Pool::builder(lab);
    let pool = builder.checkout_timeout(Duration::from_millis(60)).build().unwrap();
    let endpoint = pool.endpoint("a").unwrap();
    drop(endpoint.get_timeout(SOON).unwrap());
    let result: Result<(), warmline::Error> =
        endpoint.run(Repeat::Always, |_| Err(warmline::Error::config("not this one")));
    let error = result.unwrap_err().to_string();
    assert_eq!(error, "not this one", "no second connection came; what the first said is known");
    bench.release();
}

#[test]
fn what_was_written_through_a_lent_descriptor_is_not_sent_again() {
    let _watchdog = watchdog();
    // The first exchange is answered; after the next request the server closes without a word.
    let server = Server::scripted(|peer| {
        peer.take(4)?;
        peer.write_all(b"ping")?;
        peer.take(4)?;
        Ok(())
    });
    let endpoint = endpoint(&server);
    endpoint.run(Repeat::Always, request).unwrap();
    let mut tries = 0;
    let result: io::Result<()> = endpoint.run(Repeat::IfUnwritten, |conn| {
        tries += 1;
        let mut lent = std::fs::File::from(conn.as_fd().try_clone_to_owned()?);
        lent.write_all(b"ping")?;
        conn.read_exact(&mut [0; 4])
    });
    result.unwrap_err();
    assert_eq!(tries, 1, "nobody knows that the peer has not seen it");
}
