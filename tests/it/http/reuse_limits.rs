//! The pool's limits and times, with HTTP on its connections.

use std::io::Read;
use std::sync::Barrier;
use std::time::Duration;

use crossbeam_channel::unbounded;
use warmline::CloseReason;
use warmline::http::{Client, ErrorKind};

use super::support::{Answer, Server, client_of, get, idle, limited};
use crate::support::{assert_balanced, eventually, watchdog};

#[test]
fn requests_in_a_row_share_a_connection_and_those_at_a_time_do_not() {
    let _watchdog = watchdog();
    let server = Server::script([Answer::ok("hello")]);
    let client = Client::new();
    (0..5).for_each(|_| assert_eq!(get(&client, &server.url("")), "hello"));
    assert_eq!(server.conns(), [0; 5]);
    let held: Vec<_> = (0..3).map(|_| client.get(&server.url("")).send().unwrap()).collect();
    assert_eq!(server.conns()[5..], [0, 1, 2]);
    drop(held);
    assert_eq!(idle(&client), 3);
}

#[test]
fn one_connection_serves_all_who_ask_at_once_where_there_may_be_only_one() {
    let _watchdog = watchdog();
    let server = Server::answering(|request| Answer::ok(request.path()));
    let client = client_of(1);
    let all_at_once = || {
        let ready = Barrier::new(10);
        std::thread::scope(|scope| {
            for number in 0..10 {
                let (client, server, ready) = (&client, &server, &ready);
                scope.spawn(move || {
                    ready.wait();
                    let path = format!("/{number}");
                    assert_eq!(get(client, &server.url(&path[1..])), path);
                });
            }
        });
    };
    all_at_once();
    assert_eq!((server.connections(), client.pool().stats().opened()), (1, 1));
    server.hang_up();
    client.pool().evict_all();
    eventually("it ends", || client.pool().stats().total() == 0);
    all_at_once();
    assert_eq!((server.connections(), client.pool().stats().opened()), (2, 2));
    assert_balanced(&client.pool().stats());
}

#[test]
fn who_waits_for_a_connection_gets_it_with_the_last_byte_of_the_answer_before() {
    let _watchdog = watchdog();
    let (tell, told) = unbounded();
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
    let server =
        Server::script([Answer::raw(head).wait(&told).then("first"), Answer::ok("second")]);
    let client = client_of(1);
    let mut first = client.get(&server.url("")).send().unwrap().into_body();
    std::thread::scope(|scope| {
        let second = scope.spawn(|| get(&client, &server.url("")));
        eventually("it waits", || client.pool().stats().waiting() == 1);
        tell.send(()).unwrap();
        let mut bytes = [0; 5];
        first.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"first");
        assert_eq!(second.join().unwrap(), "second"); // the first body is not even dropped
    });
    assert_eq!(server.conns(), [0, 0]);
}

#[test]
fn no_more_stay_idle_than_may_for_one_server() {
    let _watchdog = watchdog();
    let server = Server::script([Answer::ok("hello")]);
    let builder = Client::builder().pool(|pool| pool.max_idle_per_endpoint(2));
    let client = builder.build().unwrap();
    let held: Vec<_> = (0..3).map(|_| client.get(&server.url("")).send().unwrap()).collect();
    let counts = held.into_iter().map(|response| {
        assert_eq!(response.into_body().text().unwrap(), "hello");
        client.pool().stats().idle()
    });
    assert_eq!(counts.collect::<Vec<_>>(), [1, 2, 2]);
    eventually("the third is closed", || server.open() == 2);
}

#[test]
fn no_more_stay_idle_than_may_in_all_and_the_oldest_goes() {
    let _watchdog = watchdog();
    let servers: Vec<_> = (0..5).map(|_| Server::script([Answer::ok("hello")])).collect();
    let client = Client::builder().pool(|pool| pool.max_idle(4)).build().unwrap();
    for server in &servers {
        assert_eq!(get(&client, &server.url("")), "hello");
    }
    assert_eq!(client.pool().stats().idle(), 4);
    eventually("one is closed", || servers[0].open() == 0);
    for server in &servers[1..] {
        assert_eq!(get(&client, &server.url("")), "hello");
        assert_eq!(server.conns(), [0, 0]);
    }
    assert_eq!(get(&client, &servers[0].url("")), "hello");
    assert_eq!(servers[0].conns(), [0, 1]);
}

#[test]
fn a_connection_that_was_idle_for_too_long_is_closed_and_its_room_is_free() {
    let _watchdog = watchdog();
    let server = Server::script([Answer::ok("hello")]);
    let brief = Duration::from_millis(100);
    let client = limited(1).pool(move |pool| pool.idle_timeout(brief)).build().unwrap();
    for count in 1..=2 {
        assert_eq!(get(&client, &server.url("")), "hello");
        eventually("it is closed", || client.pool().stats().total() == 0);
        assert_eq!(client.pool().stats().closed_for(CloseReason::IdleTimeout), count);
        server.await_none_open();
    }
    assert_eq!(server.conns(), [0, 1]);
}

#[test]
fn a_connection_that_ended_while_it_was_idle_frees_its_room() {
    let _watchdog = watchdog();
    let server = Server::script([Answer::ok("hello")]);
    let client = client_of(1);
    for _ in 0..3 {
        let response = client.post(&server.url("")).body("hello").send().unwrap();
        assert_eq!(response.into_body().text().unwrap(), "hello");
        assert_eq!(client.pool().stats().idle(), 1);
        server.hang_up();
        eventually("its end is seen", || client.pool().stats().total() == 0);
    }
    assert_eq!(server.conns(), [0, 1, 2]);
    assert_eq!(client.pool().stats().closed_for(CloseReason::PeerClosed), 3);
}

#[test]
fn many_requests_of_many_threads_keep_within_the_limit_and_leave_all_idle() {
    let _watchdog = watchdog();
    let server = Server::answering(|request| Answer::ok(request.path()));
    let client = client_of(4);
    std::thread::scope(|scope| {
        for thread in 0..10 {
            let (client, server) = (&client, &server);
            scope.spawn(move || {
                for number in 0..50 {
                    let path = format!("{thread}/{number}");
                    assert_eq!(get(client, &server.url(&path)), format!("/{path}"));
                }
            });
        }
    });
    assert_eq!(server.requests().len(), 500);
    let stats = client.pool().stats();
    assert!(stats.opened() <= 4, "{stats}");
    assert_eq!((stats.idle() as u64, stats.waiting()), (stats.opened(), 0), "{stats}");
    assert_eq!(server.connections() as u64, stats.opened());
}

#[test]
fn a_request_that_gets_no_connection_in_time_leaves_nothing_behind() {
    let _watchdog = watchdog();
    let server = Server::script([Answer::ok("hello")]);
    let client = client_of(1);
    let held = client.get(&server.url("")).send().unwrap();
    for _ in 0..3 {
        let brief = client.get(&server.url("")).timeout(Duration::from_millis(20));
        assert_eq!(brief.send().unwrap_err().kind(), ErrorKind::Timeout);
    }
    assert_eq!(held.into_body().text().unwrap(), "hello");
    assert_eq!(get(&client, &server.url("")), "hello");
    assert_eq!(server.conns(), [0, 0]);
    let stats = client.pool().stats();
    assert_eq!((stats.idle(), stats.waiting(), stats.opened()), (1, 0, 1), "{stats}");
}

#[test]
fn a_connection_is_not_used_more_often_than_it_may_be() {
    let _watchdog = watchdog();
    let server = Server::script([Answer::ok("hello")]);
    let client = limited(1).pool(|pool| pool.max_uses(2)).build().unwrap();
    (0..5).for_each(|_| assert_eq!(get(&client, &server.url("")), "hello"));
    assert_eq!(server.conns(), [0, 0, 1, 1, 2]);
}
