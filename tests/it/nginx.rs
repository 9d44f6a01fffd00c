//! A real server: nginx, if it is installed.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::time::Duration;

use warmline::{CloseReason, Endpoint, Pool, PooledConn, Repeat, TcpConnector};

use crate::support::programs::{Program, under_load};
use crate::support::{SOON, assert_balanced, eventually, tcp, watchdog};

/// Asks for a path, and returns the body of the answer. Does not heed that the server may announce
/// that it closes the connection next.
fn get(conn: &mut (impl Read + Write), path: &str) -> io::Result<String> {
    conn.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes())?;
    // There is one answer on its way: nothing is read ahead.
    let mut reader = BufReader::new(conn);
    let mut size = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(length) = line.strip_prefix("Content-Length: ") {
            size = length.trim().parse().map_err(io::Error::other)?;
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; size];
    reader.read_exact(&mut body)?;
    String::from_utf8(body).map_err(io::Error::other)
}

fn get_by_number(endpoint: &Endpoint<TcpConnector>, number: usize) {
    let path = format!("/{number}");
    let body = endpoint.run(Repeat::Always, |conn| get(conn, &path));
    assert_eq!(body.unwrap(), path, "somebody else's answer");
}

/// Four threads, 200 requests each, to a server that closes after every tenth answer.
fn ask_four_times_two_hundred(pool: &Pool<TcpConnector>) {
    let settings = "keepalive_timeout 1s; keepalive_requests 10;";
    let Some(nginx) = Program::nginx(settings) else { return };
    let endpoint = pool.endpoint(&nginx.address()).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let endpoint = &endpoint;
            scope.spawn(move || {
                (0..200).for_each(|number| get_by_number(endpoint, 200 * thread + number));
            });
        }
    });
    let stats = pool.stats();
    assert!((80..=400).contains(&stats.opened()), "{stats}");
    assert_balanced(&stats);
}

#[test]
fn a_server_that_closes_after_every_tenth_answer_costs_a_tenth_of_the_connections_and_no_error() {
    let _watchdog = watchdog();
    ask_four_times_two_hundred(&Pool::tcp());
}

#[test]
fn a_connection_that_is_handed_over_as_the_server_closes_it_costs_no_error_either() {
    let _watchdog = watchdog();
    let builder = tcp().max_per_endpoint(2).fair_after(Duration::ZERO);
    ask_four_times_two_hundred(&builder.build().unwrap());
}

#[test]
fn connections_that_a_server_closes_after_a_second_are_gone_before_the_next_checkout() {
    let _watchdog = watchdog();
    let Some(nginx) = Program::nginx("keepalive_timeout 1s;") else { return };
    let pool = Pool::tcp();
    let endpoint = pool.endpoint(&nginx.address()).unwrap();
    let mut held: Vec<_> = (0..6).map(|_| endpoint.get().unwrap()).collect();
    held.iter_mut().for_each(|conn| assert_eq!(get(conn, "/a").unwrap(), "/a"));
    drop(held);
    assert_eq!(endpoint.stats().idle(), 6);
    eventually("the server closes them", || endpoint.stats().idle() == 0);
    assert_eq!(endpoint.stats().closed_for(CloseReason::PeerClosed), 6);
    let mut conn = endpoint.get().unwrap();
    assert!(!PooledConn::is_reused(&conn));
    assert_eq!(get(&mut conn, "/b").unwrap(), "/b");
}

#[test]
fn a_server_that_reads_its_settings_again_under_load_fails_no_exchange_that_may_be_repeated() {
    let _watchdog = watchdog();
    let Some(nginx) = Program::nginx("") else { return };
    let pool = tcp().checkout_timeout(SOON).build().unwrap();
    let endpoint = pool.endpoint(&nginx.address()).unwrap();
    under_load(
        |number| get_by_number(&endpoint, number),
        |load| {
            for _ in 0..5 {
                load.await_more(100);
                let opened = pool.stats().opened();
                nginx.reload();
                // Its old worker closes what it has.
                eventually("connections to the new one", || pool.stats().opened() > opened);
            }
            load.await_more(100);
        },
    );
    let stats = pool.stats();
    assert_eq!((stats.in_use(), stats.waiting()), (0, 0), "{stats}");
    assert_balanced(&stats);
}
