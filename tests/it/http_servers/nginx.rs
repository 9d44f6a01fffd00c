//! nginx, if it is installed.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;

use warmline::http::{Client, Origin, Unfit, Upload, types};

use super::example::Service;
use super::{bytes, client, client_and_ends, text_of};
use crate::support::programs::{Program, under_load};
use crate::support::{SOON, assert_balanced, eventually, watchdog};

const MIB: usize = 1024 * 1024;
/// No file is written for a body: what nginx works as may not be allowed to.
const IN_MEMORY: &str = "client_body_buffer_size 12m; proxy_max_temp_file_size 0;";

fn url(nginx: &Program, path: &str) -> String {
    format!("http://{}{path}", nginx.address())
}

/// What hands everything to the server at `upstream`.
fn proxy_to(upstream: SocketAddr) -> String {
    format!("location / {{ proxy_http_version 1.1; proxy_pass http://{upstream}; }}")
}

/// A server that answers the first request of every connection with these bytes, and hangs up.
fn scripted(answer: String) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut lines = BufReader::new(&stream).lines();
            while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
            let _gone = stream.write_all(answer.as_bytes());
        }
    });
    address
}

/// Eight threads, each of which asks again and again just as nginx closes what was idle for 1 s.
fn ask_as_it_closes(client: &Client, nginx: &Program) {
    const ROUNDS: u64 = 4;
    let url = url(nginx, "/a");
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (client, url) = (client.clone(), &url);
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    let answer = text_of(client.get(url).send());
                    assert_eq!(answer, (200, "/a".to_owned()));
                    let apart = 990 + (8 * round + thread) % 21;
                    std::thread::sleep(Duration::from_millis(apart));
                }
                text_of(client.get(url).send());
            });
        }
    });
    let stats = client.pool().stats();
    assert_eq!((stats.in_use(), stats.waiting()), (0, 0), "{stats}");
    assert_balanced(&stats);
}

#[test]
fn a_get_just_as_the_server_closes_its_idle_connection_is_answered() {
    let _watchdog = watchdog();
    let Some(nginx) = Program::nginx("keepalive_timeout 1s;") else { return };
    ask_as_it_closes(&client(), &nginx);
}

#[test]
fn a_server_that_says_how_long_it_keeps_connections_is_believed() {
    let _watchdog = watchdog();
    let Some(nginx) = Program::nginx("keepalive_timeout 1s 1s;") else { return };
    let client = client();
    ask_as_it_closes(&client, &nginx);
    let origin: Origin = url(&nginx, "").parse().unwrap();
    let limit = client.pool().endpoint(&origin).unwrap().stats().idle_limit();
    assert!(limit.is_some_and(|limit| limit <= Duration::from_secs(1)), "{limit:?}");
}

#[test]
fn a_server_that_reads_its_settings_again_under_load_fails_no_get() {
    let _watchdog = watchdog();
    let Some(nginx) = Program::nginx("") else { return };
    let client = client();
    under_load(
        |number| {
            let path = format!("/{number}");
            assert_eq!(text_of(client.get(&url(&nginx, &path)).send()), (200, path));
        },
        |load| {
            for _ in 0..5 {
                load.await_more(100);
                let opened = client.pool().stats().opened();
                nginx.reload();
                eventually("its old worker is gone", || client.pool().stats().opened() > opened);
            }
            load.await_more(100);
        },
    );
    let stats = client.pool().stats();
    assert_eq!((stats.in_use(), stats.waiting()), (0, 0), "{stats}");
    assert_balanced(&stats);
}

#[test]
fn a_mebibyte_comes_back_as_it_went_by_length_and_in_chunks() {
    let _watchdog = watchdog();
    let service = Service::start("127.0.0.1:0").unwrap();
    let settings = format!("{IN_MEMORY} client_max_body_size 2m;");
    let Some(nginx) = Program::nginx_with(&settings, &proxy_to(service.address())) else { return };
    let (client, body) = (client(), bytes(MIB));
    for _ in 0..3 {
        for upload in [Upload::from(&body[..]), Upload::reader(&body[..])] {
            let answer = client.post(&url(&nginx, "/echo")).body(upload).send().unwrap();
            assert_eq!(answer.status(), 200);
            assert!(answer.into_body().bytes().unwrap() == body, "not the body that was sent");
        }
    }
    let answer = client.get(&url(&nginx, &format!("/bytes/{MIB}"))).send().unwrap();
    assert_eq!(answer.into_body().bytes().unwrap(), vec![b'x'; MIB]);
    assert_eq!(client.pool().stats().opened(), 1, "each answer was read to its end");
}

#[test]
fn chunks_from_behind_a_proxy_arrive_and_the_connection_is_used_again() {
    let _watchdog = watchdog();
    for trailers in ["", "X-Sum: 12\r\n"] {
        let upstream = scripted(format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n\
             5\r\nhello\r\n7;ext=1\r\n, world\r\n0\r\n{trailers}\r\n"
        ));
        let Some(nginx) = Program::nginx_with("", &proxy_to(upstream)) else { return };
        let client = client();
        for _ in 0..3 {
            let answer = client.get(&url(&nginx, "/")).send().unwrap();
            assert_eq!(answer.headers()["transfer-encoding"], "chunked");
            assert_eq!(answer.into_body().text().unwrap(), "hello, world");
        }
        assert_eq!(client.pool().stats().opened(), 1);
    }
}

#[test]
fn trailers_of_a_real_server_are_there_after_the_body() {
    let _watchdog = watchdog();
    let service = Service::start("127.0.0.1:0").unwrap();
    let server = format!("add_trailer X-Sum $status; {}", proxy_to(service.address()));
    let Some(nginx) = Program::nginx_with("", &server) else { return };
    let client = client();
    for _ in 0..2 {
        let mut body = client.get(&url(&nginx, "/chunked")).send().unwrap().into_body();
        let mut text = String::new();
        std::io::Read::read_to_string(&mut body, &mut text).unwrap();
        assert_eq!(text, "a few chunks, and a trailer\n");
        assert_eq!(body.trailers().unwrap()["x-sum"], "200");
    }
    assert_eq!(client.pool().stats().opened(), 1);
}

#[test]
fn a_server_that_closes_after_every_third_answer_gets_three_requests_on_each_connection() {
    let _watchdog = watchdog();
    let server = "location / { return 200 $connection; }";
    let Some(nginx) = Program::nginx_with("keepalive_requests 3;", server) else { return };
    let (client, ends) = client_and_ends();
    let ask = |_| text_of(client.post(&url(&nginx, "/")).send()).1;
    let connections: HashSet<_> = (0..9).map(ask).collect();
    assert_eq!(connections.len(), 3, "as the server counts them");
    assert_eq!(client.pool().stats().opened(), 3);
    assert_eq!(*ends.lock(), [Unfit::ServerCloses; 3]);
}

#[test]
fn an_upload_that_is_too_long_for_the_server_is_answered_and_does_not_fail() {
    let _watchdog = watchdog();
    let Some(nginx) = Program::nginx("client_max_body_size 1m;") else { return };
    let (client, body) = (client(), bytes(10 * MIB));
    for _ in 0..5 {
        let length = body.len() as u64;
        let uploads = [Upload::from(&body[..]), Upload::sized(&body[..], length)];
        for upload in uploads {
            let (status, text) = text_of(client.post(&url(&nginx, "/")).body(upload).send());
            assert!(status == 413 && text.contains("413"), "{status}: {text}");
        }
    }
    assert_eq!(client.pool().stats().idle(), 0, "the rest of the body was still on its way");
}

#[test]
fn an_upload_that_waits_for_the_servers_word_is_refused_before_it_is_sent() {
    let _watchdog = watchdog();
    let Some(nginx) = Program::nginx("client_max_body_size 1m;") else { return };
    let client = client();
    let unread = Upload::sized(std::io::repeat(b'x'), 10 * MIB as u64);
    let answer = client.post(&url(&nginx, "/")).body(unread).expect_continue().send();
    assert_eq!(text_of(answer).0, 413);
}

#[test]
fn an_answer_that_ends_with_its_connection_is_whole_and_the_last_one() {
    let _watchdog = watchdog();
    let service = Service::start("127.0.0.1:0").unwrap();
    let server = format!("chunked_transfer_encoding off; {}", proxy_to(service.address()));
    let Some(nginx) = Program::nginx_with("", &server) else { return };
    let (client, ends) = client_and_ends();
    for _ in 0..3 {
        let answer = client.get(&url(&nginx, "/chunked")).send();
        assert_eq!(text_of(answer), (200, "a few chunks, and a trailer\n".to_owned()));
    }
    assert_eq!(*ends.lock(), [Unfit::ServerCloses; 3]);
}

#[test]
fn a_request_of_http_1_0_has_a_connection_of_its_own() {
    let _watchdog = watchdog();
    let Some(nginx) = Program::nginx("") else { return };
    let client = client();
    for _ in 0..3 {
        let request = types::Request::get(url(&nginx, "/old")).version(types::Version::HTTP_10);
        let answer = client.send(request.body(()).unwrap());
        assert_eq!(text_of(answer), (200, "/old".to_owned()));
    }
    assert_eq!((client.pool().stats().opened(), client.pool().stats().idle()), (3, 0));
}

#[cfg(unix)]
#[test]
fn requests_to_a_unix_socket_share_its_connections() {
    let _watchdog = watchdog();
    let settings = format!("{IN_MEMORY} client_max_body_size 2m;");
    let Some(nginx) = Program::nginx(&settings) else { return };
    let (client, socket) = (client(), nginx.folder().join("nginx.sock"));
    for host in ["a", "b", "a"] {
        let request = client.get(&format!("http://{host}/path")).unix_socket(&socket);
        assert_eq!(text_of(request.send()), (200, "/path".to_owned()));
    }
    let upload = client.post("http://a/up").unix_socket(&socket).body(bytes(MIB));
    assert_eq!(text_of(upload.timeout(SOON).send()), (200, "/up".to_owned()));
    assert_eq!(client.pool().stats().opened(), 1);
}
