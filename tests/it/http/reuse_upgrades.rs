//! Connections that leave HTTP behind leave the pool as well.

use std::io::{Read, Write};

use warmline::http::types::Method;
use warmline::http::{Client, ErrorKind, RequestBuilder, Upgraded};

use super::support::{Answer, Line, Server, client_of, get, idle};
use crate::support::watchdog;

/// Answers what asks for another protocol by this, and then echoes; everything else by "hello".
fn switching(answer: &'static str) -> Server {
    Server::by_hand(move |line| {
        loop {
            let request = line.request()?;
            if request.method() == "CONNECT" || !request.fields("upgrade").is_empty() {
                line.play(&Answer::raw(answer))?;
                return echo(line);
            }
            line.play(&Answer::ok("hello"))?;
        }
    })
}

fn echo(line: &mut Line<'_>) -> std::io::Result<()> {
    loop {
        let byte = line.take(1)?;
        line.peer.write_all(&byte)?;
    }
}

fn upgrade<'c>(client: &'c Client, server: &Server) -> RequestBuilder<'c, 'static> {
    let request = client.get(&server.url(""));
    request.header("connection", "keep-alive, Upgrade").header("upgrade", "echo")
}

#[track_caller]
fn assert_echoes(stream: &mut Upgraded) {
    for word in ["over", "and", "over"] {
        stream.write_all(word.as_bytes()).unwrap();
        let mut back = vec![0; word.len()];
        stream.read_exact(&mut back).unwrap();
        assert_eq!(back, word.as_bytes());
    }
}

const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\
    \r\nfirst";

#[test]
fn an_upgraded_connection_begins_with_what_came_behind_the_answer_and_leaves_its_room() {
    let _watchdog = watchdog();
    let server = switching(SWITCH);
    let client = client_of(1);
    assert_eq!(get(&client, &server.url("")), "hello");
    let response = upgrade(&client, &server).send().unwrap();
    assert_eq!(response.status(), 101);
    assert_eq!(response.headers()["upgrade"], "echo");
    let mut stream = response.into_body().into_upgraded().unwrap();
    let mut first = [0; 5];
    stream.read_exact(&mut first[..2]).unwrap();
    stream.read_exact(&mut first[2..]).unwrap();
    assert_eq!(&first, b"first");
    assert_echoes(&mut stream);
    let stats = client.pool().stats();
    assert_eq!((stats.total(), stats.detached()), (0, 1), "{stats}");
    assert_eq!(get(&client, &server.url("")), "hello");
    assert_echoes(&mut stream);
    assert_eq!((server.conns(), idle(&client)), (vec![0, 0, 1], 1));
    drop(stream);
    assert_eq!(get(&client, &server.url("")), "hello");
    assert_eq!(server.conns(), [0, 0, 1, 1]);
}

#[test]
fn an_upgraded_connection_that_nobody_takes_is_closed() {
    let _watchdog = watchdog();
    let server = switching(SWITCH);
    let client = client_of(1);
    for count in 1..=3 {
        drop(upgrade(&client, &server).send().unwrap());
        server.await_none_open();
        assert_eq!((server.connections(), client.pool().stats().total()), (count, 0));
    }
}

#[test]
fn an_upgrade_that_is_refused_is_an_answer_like_any() {
    let _watchdog = watchdog();
    let server = Server::script([Answer::ok("hello")]);
    let client = client_of(1);
    for _ in 0..3 {
        let response = upgrade(&client, &server).send().unwrap();
        assert_eq!((response.status().as_u16(), client.pool().stats().total()), (200, 1));
        assert_eq!(response.into_body().text().unwrap(), "hello");
        let response = upgrade(&client, &server).send().unwrap();
        assert!(response.into_body().into_upgraded().is_none());
    }
    assert_eq!(server.connections(), 1);
}

#[test]
fn a_server_that_switches_without_being_asked_is_not_followed() {
    let _watchdog = watchdog();
    let server = Server::script([Answer::raw(SWITCH), Answer::ok("hello")]);
    let client = client_of(1);
    assert_eq!(client.get(&server.url("")).send().unwrap_err().kind(), ErrorKind::Protocol);
    assert_eq!(get(&client, &server.url("")), "hello");
    assert_eq!(server.conns(), [0, 1]);
}

#[test]
fn a_tunnel_goes_both_ways_and_leaves_its_room() {
    let _watchdog = watchdog();
    // Lengths mean nothing here.
    let server = switching("HTTP/1.1 200 Connected\r\nContent-Length: 5\r\n\r\n");
    let client = client_of(1);
    let response = client.request(Method::CONNECT, &server.name()).send().unwrap();
    let mut stream = response.into_body().into_upgraded().unwrap();
    assert_echoes(&mut stream);
    assert_eq!(get(&client, &server.url("")), "hello");
    assert_echoes(&mut stream);
    assert_eq!(server.conns(), [0, 1]);
    assert_eq!(server.requests()[0].path(), server.name());
}

#[test]
fn a_tunnel_by_way_of_a_proxy_leaves_the_proxys_room() {
    let _watchdog = watchdog();
    let server = switching("HTTP/1.1 200 Connected\r\n\r\n");
    let client = client_of(1);
    let mut streams: Vec<_> = ["db.test:5432", "mail.test:25"]
        .map(|target| {
            let request = client.request(Method::CONNECT, target);
            let request = request.via(server.url("").parse().unwrap());
            request.send().unwrap().into_body().into_upgraded().unwrap()
        })
        .into();
    streams.iter_mut().for_each(assert_echoes);
    let paths: Vec<_> = server.requests().iter().map(|it| it.path().to_owned()).collect();
    assert_eq!(
        (paths, server.conns()),
        (vec!["db.test:5432".into(), "mail.test:25".into()], vec![0, 1])
    );
    assert_eq!(client.pool().stats().total(), 0);
}

#[test]
fn a_connection_on_which_a_tunnel_was_refused_is_closed() {
    let _watchdog = watchdog();
    for refusal in [
        "HTTP/1.1 407 Who Are You\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 403 No\r\nContent-Length: 3\r\n\r\nno!",
        "HTTP/1.1 302 There\r\nContent-Length: 0\r\n\r\n",
    ] {
        let server = Server::script([Answer::raw(refusal), Answer::ok("hello")]);
        let client = client_of(1);
        let response = client.request(Method::CONNECT, &server.name()).send().unwrap();
        assert!(!response.status().is_success());
        assert!(response.into_body().into_upgraded().is_none());
        assert_eq!(client.pool().stats().total(), 0);
        assert_eq!(get(&client, &server.url("")), "hello");
        assert_eq!(server.conns(), [0, 1], "{refusal}");
    }
}
