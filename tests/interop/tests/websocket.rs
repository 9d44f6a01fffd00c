//! WebSockets through the pool: tungstenite's client, and its server at the other end.

use std::io;
use std::net::TcpStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use interop::scripted::{Scripted, strangers};
use interop::support::{SOON, assert_at_rest, assert_empty, eventually, under_load, watchdog};
use interop::websocket::{Stream, WebSockets};
use tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tungstenite::http::StatusCode;
use tungstenite::{Bytes, Message, WebSocket};
use warmline::{CloseReason, Endpoint, ErrorKind, Failure, Phase, Pool, PooledConn, SocketOptions};

/// Serves WebSockets, and counts pings, pongs and farewells.
struct Server {
    scripted: Scripted,
    pings: Arc<AtomicUsize>,
    pongs: Arc<AtomicUsize>,
    farewells: Arc<AtomicUsize>,
}

impl Server {
    /// One that echoes, but for what it is asked to do.
    fn new() -> Self {
        let [pings, pongs, farewells] = [(); 3].map(|()| Arc::<AtomicUsize>::default());
        let counts = [&pings, &pongs, &farewells].map(Arc::clone);
        let scripted = Scripted::new(move |stream| {
            let mut conn = tungstenite::accept_hdr(stream, authorize).map_err(io::Error::other)?;
            loop {
                match conn.read().map_err(io::Error::other)? {
                    Message::Ping(_) => drop(counts[0].fetch_add(1, Ordering::SeqCst)),
                    Message::Pong(_) => drop(counts[1].fetch_add(1, Ordering::SeqCst)),
                    Message::Close(_) => drop(counts[2].fetch_add(1, Ordering::SeqCst)),
                    Message::Text(text) => answer(&mut conn, &text).map_err(io::Error::other)?,
                    _ => {}
                }
            }
        });
        Self { scripted, pings, pongs, farewells }
    }

    fn endpoint(&self, pool: &Pool<WebSockets>) -> Endpoint<WebSockets> {
        pool.endpoint(&*format!("ws://{}/talk", self.scripted.address())).unwrap()
    }
}

/// A token has to be the right one, where there is one.
#[expect(clippy::result_large_err, reason = "as tungstenite has it")]
fn authorize(request: &Request, response: Response) -> Result<Response, ErrorResponse> {
    let token = request.headers().get("authorization");
    if token.is_none_or(|token| token == "Bearer open sesame") {
        return Ok(response);
    }
    let mut refusal = ErrorResponse::new(Some("who are you?".to_owned()));
    *refusal.status_mut() = StatusCode::UNAUTHORIZED;
    Err(refusal)
}

fn answer(conn: &mut WebSocket<TcpStream>, text: &str) -> tungstenite::Result<()> {
    match text {
        // Both in one segment, as good as always.
        "twice" => {
            conn.write(Message::text("first"))?;
            conn.write(Message::text("second"))?;
            conn.flush()
        }
        "pinged" => {
            conn.write(Message::text(text))?;
            conn.write(Message::Ping(Bytes::from_static(b"there?")))?;
            conn.flush()
        }
        "silence" => Ok(()),
        _ => conn.send(Message::text(text)),
    }
}

fn ask(conn: &mut WebSocket<Stream>, text: &str) -> tungstenite::Result<String> {
    conn.send(Message::text(text))?;
    loop {
        if let Message::Text(answer) = conn.read()? {
            return Ok(answer.to_string());
        }
    }
}

#[test]
fn many_threads_share_four_websockets_and_get_their_own_answers() {
    let _watchdog = watchdog();
    let server = Server::new();
    let pool = Pool::builder(WebSockets::new()).max_per_endpoint(4).build().unwrap();
    let endpoint = server.endpoint(&pool);
    let exchange = |number: usize| {
        let mut conn = endpoint.get_timeout(SOON).unwrap();
        assert_eq!(ask(&mut conn, &number.to_string()).unwrap(), number.to_string());
    };
    under_load(exchange, |load| load.await_more(2000));
    let stats = pool.stats();
    assert!(stats.opened() <= 4, "{stats}");
    assert_eq!(stats.closed(), 0, "{stats}");
    assert_at_rest(&stats);
}

#[test]
fn a_peer_that_hangs_up_on_idle_websockets_is_noticed_at_once() {
    let _watchdog = watchdog();
    let server = Server::new();
    let pool = Pool::builder(WebSockets::new()).build().unwrap();
    let endpoint = server.endpoint(&pool);
    assert_eq!(endpoint.warm(3, SOON).unwrap(), 3);
    server.scripted.hang_up();
    eventually("they are closed", || pool.stats().total() == 0);
    assert_eq!(pool.stats().closed_for(CloseReason::PeerClosed), 3);
    assert_eq!(ask(&mut endpoint.get().unwrap(), "again").unwrap(), "again");
}

#[test]
fn a_message_that_was_not_read_is_not_the_next_users() {
    let _watchdog = watchdog();
    let server = Server::new();
    let pool = Pool::builder(WebSockets::new()).build().unwrap();
    let endpoint = server.endpoint(&pool);
    for _ in 0..20 {
        assert_eq!(ask(&mut endpoint.get().unwrap(), "twice").unwrap(), "first");
        assert_eq!(ask(&mut endpoint.get().unwrap(), "mine").unwrap(), "mine");
    }
    let stats = pool.stats();
    let unread = stats.closed_for(CloseReason::ResetRefused);
    // The second may still have been in the socket.
    assert_eq!(unread + stats.closed_for(CloseReason::StrayBytes), 20, "{stats}");
    assert!(unread > 0, "{stats}");
}

#[test]
fn a_message_that_was_not_sent_is_not_sent_by_the_next_user() {
    let _watchdog = watchdog();
    let server = Server::new();
    let pool = Pool::builder(WebSockets::new()).build().unwrap();
    let endpoint = server.endpoint(&pool);
    endpoint.get().unwrap().write(Message::text("never mind")).unwrap();
    assert_eq!(pool.stats().closed_for(CloseReason::ResetRefused), 1);
    assert_eq!(ask(&mut endpoint.get().unwrap(), "mine").unwrap(), "mine");
}

#[test]
fn a_question_without_its_answer_ends_the_websocket_unless_none_is_due() {
    let _watchdog = watchdog();
    let server = Server::new();
    for one_way in [false, true] {
        let connector = WebSockets::new().options(SocketOptions::new().one_way(one_way));
        let pool = Pool::builder(connector).build().unwrap();
        server.endpoint(&pool).get().unwrap().send(Message::text("silence")).unwrap();
        assert_eq!(pool.stats().closed_for(CloseReason::Unfinished), u64::from(!one_way));
        assert_eq!(pool.stats().idle(), usize::from(one_way));
    }
}

#[test]
fn a_ping_of_the_server_does_no_harm_and_is_answered_by_the_next_user() {
    let _watchdog = watchdog();
    let server = Server::new();
    let pool = Pool::builder(WebSockets::new()).build().unwrap();
    let endpoint = server.endpoint(&pool);
    assert_eq!(ask(&mut endpoint.get().unwrap(), "pinged").unwrap(), "pinged");
    assert_eq!(server.pongs.load(Ordering::SeqCst), 0);
    let mut conn = endpoint.get().unwrap();
    assert!(PooledConn::is_reused(&conn));
    assert_eq!(ask(&mut conn, "mine").unwrap(), "mine");
    eventually("the pong", || server.pongs.load(Ordering::SeqCst) == 1);
}

#[test]
fn idle_websockets_are_pinged_by_the_event_loop() {
    let _watchdog = watchdog();
    let server = Server::new();
    let interval = Duration::from_millis(50);
    let pool = Pool::builder(WebSockets::new())
        .check_interval(interval)
        .check_timeout(SOON)
        .build()
        .unwrap();
    let endpoint = server.endpoint(&pool);
    assert_eq!(endpoint.warm(2, SOON).unwrap(), 2);
    eventually("pings", || server.pings.load(Ordering::SeqCst) >= 6);
    assert_eq!(ask(&mut endpoint.get().unwrap(), "mine").unwrap(), "mine");
    assert_eq!(pool.stats().closed(), 0, "every pong was one: {}", pool.stats());
}

#[test]
fn a_websocket_that_has_rested_is_pinged_before_it_goes_out() {
    let _watchdog = watchdog();
    let server = Server::new();
    let pool = Pool::builder(WebSockets::new())
        .check_after(Duration::ZERO)
        .check_timeout(SOON)
        .build()
        .unwrap();
    let endpoint = server.endpoint(&pool);
    assert_eq!(endpoint.warm(1, SOON).unwrap(), 1);
    eventually("a checkout that follows a check", || {
        let mut conn = endpoint.get().unwrap();
        assert_eq!(ask(&mut conn, "mine").unwrap(), "mine");
        server.pings.load(Ordering::SeqCst) > 0
    });
    assert_eq!(pool.stats().closed(), 0);
}

#[test]
fn a_server_that_hangs_up_under_load_fails_one_user_of_each_connection_at_most() {
    let _watchdog = watchdog();
    let server = Server::new();
    let pool = Pool::builder(WebSockets::new()).max_per_endpoint(4).build().unwrap();
    let endpoint = server.endpoint(&pool);
    let failed = AtomicUsize::new(0);
    let exchange = |number: usize| {
        // While it is being opened, one may be hung up on as well.
        let Ok(mut conn) = endpoint.get_timeout(SOON) else { return };
        match ask(&mut conn, &number.to_string()) {
            Ok(answer) => assert_eq!(answer, number.to_string(), "somebody else's answer"),
            Err(_) => drop(failed.fetch_add(1, Ordering::SeqCst)),
        }
    };
    under_load(exchange, |load| {
        for _ in 0..10 {
            load.await_more(100);
            server.scripted.hang_up();
        }
        load.await_more(100);
    });
    assert_at_rest(&pool.stats());
    let (failed, closed) = (failed.into_inner() as u64, pool.stats().closed());
    assert!(failed <= closed, "{failed} users met {closed} dead connections");
    assert_eq!(ask(&mut endpoint.get().unwrap(), "again").unwrap(), "again");
}

#[test]
fn a_user_who_panics_takes_nothing_but_his_own_websocket_along() {
    let _watchdog = watchdog();
    let server = Server::new();
    let pool = Pool::builder(WebSockets::new()).build().unwrap();
    let endpoint = server.endpoint(&pool);
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let mut conn = endpoint.get().unwrap();
        conn.send(Message::text("what nobody will read")).unwrap();
        panic!("a user's mistake");
    }));
    panicked.unwrap_err();
    assert_eq!(pool.stats().closed_for(CloseReason::Panicked), 1);
    assert_eq!(ask(&mut endpoint.get().unwrap(), "mine").unwrap(), "mine");
    assert_at_rest(&pool.stats());
}

#[test]
fn idle_websockets_say_farewell_when_the_pool_ends() {
    let _watchdog = watchdog();
    let server = Server::new();
    let pool = Pool::builder(WebSockets::new()).build().unwrap();
    assert_eq!(server.endpoint(&pool).warm(3, SOON).unwrap(), 3);
    pool.close();
    eventually("farewells", || server.farewells.load(Ordering::SeqCst) == 3);
}

#[test]
fn a_wrong_token_is_refused_in_the_servers_words_and_not_shown() {
    let _watchdog = watchdog();
    let server = Server::new();
    let connector = WebSockets::new().bearer("hunter2 hunter2").unwrap();
    let pool = Pool::builder(connector).build().unwrap();
    let error = server.endpoint(&pool).get_timeout(SOON).unwrap_err();
    assert_eq!((error.kind(), error.phase()), (ErrorKind::Connect, Some(Phase::Open)));
    let text = format!("{error} {error:?}");
    assert!(text.contains("401 Unauthorized") && !text.contains("hunter2"), "{text}");
    assert_empty(&pool.stats());
    let connector = WebSockets::new().bearer("open sesame").unwrap();
    let pool = Pool::builder(connector).build().unwrap();
    assert_eq!(ask(&mut server.endpoint(&pool).get().unwrap(), "mine").unwrap(), "mine");
}

#[test]
fn a_server_of_another_protocol_is_an_error_by_the_deadline_and_leaves_nothing_behind() {
    let _watchdog = watchdog();
    for (what, server) in strangers() {
        let longest = if what == "silent" { Duration::from_millis(300) } else { SOON };
        let pool = Pool::builder(WebSockets::new()).connect_timeout(longest).build().unwrap();
        let url = format!("ws://{}/", server.address());
        let error = pool.get_timeout(&*url, SOON).map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Connect, "{what}: {error}");
        let is_late = error.failure() == Some(Failure::Timeout);
        assert_eq!(is_late, what == "silent", "{what}: {error}");
        assert_empty(&pool.stats());
        eventually("the server is left", || server.open() == 0);
    }
}

#[test]
fn what_is_no_address_of_a_websocket_is_refused_by_name() {
    let pool = Pool::builder(WebSockets::new()).build().unwrap();
    for bad in ["http://localhost/", "localhost:80", "ws://", "ws://local host/", ""] {
        let error = pool.get(bad).map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{bad:?}: {error}");
    }
    let key = |text: &str| text.parse::<interop::websocket::Site>().unwrap();
    assert_eq!(key("ws://LOCALHOST/a?b"), key("ws://localhost:80/a?b"));
    assert_ne!(key("ws://localhost/a"), key("ws://localhost/b"), "not interchangeable");
}
