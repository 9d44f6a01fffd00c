//! Heads: how requests are written, and which answers are believed.

use ::http::{Request, StatusCode, Version};

use super::answer::MOST_INTERIM;
use super::*;

fn get() -> Request<()> {
    Request::get("http://Example.com:8080/path?q=1").body(()).unwrap()
}

fn written(request: &Request<()>, size: Size) -> Result<String, Fault> {
    let mut out = b"what was there before".to_vec();
    write_head(request, size, &mut out).map(|_| String::from_utf8(out).unwrap())
}

fn awaiting(request: &Request<()>) -> Awaiting {
    write_head(request, Size::None, &mut Vec::new()).unwrap()
}

fn head_of(request: &Request<()>, answer: &[u8]) -> Result<Head, Fault> {
    match awaiting(request).head(answer)? {
        Step::Head(head) => Ok(head),
        step => panic!("no head: {step:?}"),
    }
}

#[test]
fn a_request_names_its_host_and_asks_for_its_path() {
    let text = written(&get(), Size::None).unwrap();
    assert_eq!(text, "GET /path?q=1 HTTP/1.1\r\nhost: Example.com:8080\r\n\r\n");
    for (url, line) in
        [("http://a", "GET / "), ("http://a?q", "GET /?q "), ("http://a/?q", "GET /?q ")]
    {
        let text = written(&Request::get(url).body(()).unwrap(), Size::None).unwrap();
        assert_eq!(text, format!("{line}HTTP/1.1\r\nhost: a\r\n\r\n"));
    }
    let odd = Request::get("http://a/\u{e4}?\u{a0}").body(()).unwrap();
    assert!(written(&odd, Size::None).unwrap().starts_with("GET /%C3%A4?%C2%A0 HTTP"));
    let asks = Request::get("http://a").header("expect", "100-continue").body(()).unwrap();
    assert!(!written(&asks, Size::None).unwrap().contains("expect"), "there is nothing to send");
    assert!(written(&asks, Size::Known(1)).unwrap().contains("expect"));
}

#[test]
fn a_body_is_announced_with_its_length_or_as_chunked() {
    let post = || Request::post("http://a/").body(()).unwrap();
    assert!(written(&post(), Size::Known(3)).unwrap().contains("content-length: 3\r\n"));
    assert!(written(&post(), Size::None).unwrap().contains("content-length: 0\r\n"));
    assert!(written(&post(), Size::Unknown).unwrap().contains("transfer-encoding: chunked\r\n"));
    assert!(!written(&get(), Size::None).unwrap().contains("content-length"));
    for method in ["GET", "DELETE", "PURGE"] {
        let request = Request::builder().method(method).uri("http://a/").body(()).unwrap();
        assert!(written(&request, Size::Known(3)).unwrap().contains("content-length: 3\r\n"));
    }
}

#[test]
fn a_request_that_contradicts_itself_is_refused() {
    let with =
        |name: &str, value: &str| Request::post("http://a/").header(name, value).body(()).unwrap();
    assert!(written(&with("content-length", "3"), Size::Known(3)).is_ok());
    for (request, size) in [
        (with("content-length", "4"), Size::Known(3)),
        (with("content-length", "4"), Size::None),
        (with("content-length", "4"), Size::Unknown),
        (with("transfer-encoding", "chunked"), Size::Unknown),
        (with("transfer-encoding", "gzip"), Size::Known(3)),
    ] {
        assert!(written(&request, size).is_err());
    }
    let request = Request::get("http://a/").version(Version::HTTP_2).body(()).unwrap();
    assert!(written(&request, Size::None).is_err());
}

#[test]
fn a_tunnel_is_asked_for_by_host_and_port_and_with_nothing_behind_it() {
    let connect = |to: &str| Request::connect(to).body(()).unwrap();
    let text = written(&connect("db:5432"), Size::None).unwrap();
    assert_eq!(text, "CONNECT db:5432 HTTP/1.1\r\nhost: db:5432\r\n\r\n");
    assert!(written(&connect("db"), Size::None).is_err());
    assert!(written(&connect("user:secret@db:5432"), Size::None).is_err());
    assert!(written(&connect("db:5432"), Size::Known(1)).is_err());
    let star = |method: &str| Request::builder().method(method).uri("*").body(()).unwrap();
    assert!(written(&star("OPTIONS"), Size::None).unwrap().starts_with("OPTIONS * HTTP"));
    assert!(written(&star("GET"), Size::None).is_err());
}

#[test]
fn a_head_is_found_wherever_its_bytes_are_cut() {
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX: y\r\n\r\nhello";
    let end = answer.len() - 5;
    let mut call = awaiting(&get());
    for at in 0..end {
        assert!(matches!(call.head(&answer[..at]), Ok(Step::More)), "{at}");
    }
    let Ok(Step::Head(head)) = call.head(answer) else { panic!("no head") };
    assert_eq!((head.used, head.framing, head.unfit), (end, Framing::Length(5), None));
}

#[test]
fn what_announces_an_answer_is_passed_over_headers_and_all() {
    let mut call = awaiting(&get());
    let interim = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\n";
    let Ok(Step::Interim(used, status)) = call.head(interim) else { panic!("no interim") };
    assert_eq!((used, status.as_u16()), (40, 103));
    let Ok(Step::Interim(_, status)) = call.head(b"HTTP/1.1 100 Go on\r\nX: y\r\n\r\n") else {
        panic!("no interim");
    };
    assert_eq!(status, StatusCode::CONTINUE);
    assert!(matches!(call.head(b"HTTP/1.1 204 No Content\r\n\r\n"), Ok(Step::Head(_))));
}

#[test]
fn a_server_that_announces_for_ever_is_not_listened_to() {
    let mut call = awaiting(&get());
    let step = |call: &mut Awaiting| call.head(b"HTTP/1.1 103 Early Hints\r\n\r\n").map(drop);
    (0..MOST_INTERIM).for_each(|_| step(&mut call).unwrap());
    step(&mut call).unwrap_err();
}

#[test]
fn what_is_no_answer_is_refused_as_soon_as_that_is_clear() {
    for bytes in [
        &b"SSH-2.0-OpenSSH_9.2"[..],
        b"\r\nHTTP/1.1 200 OK\r\n\r\n",
        b"\x15\x03\x01",
        b"+PONG",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/1.1 099 Low\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nNo colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nName : x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: b\0c\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: ch\xffunked\r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    ] {
        let step = awaiting(&get()).head(bytes);
        assert!(step.is_err(), "{}: {step:?}", String::from_utf8_lossy(bytes));
    }
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(129));
    assert!(awaiting(&get()).head(many.as_bytes()).is_err());
}

#[test]
fn where_a_body_ends_follows_from_status_method_and_headers() {
    let framed = |request: &Request<()>, answer: &str| {
        let head = head_of(request, answer.as_bytes()).unwrap();
        (head.framing, head.unfit)
    };
    let head = || Request::head("http://a/").body(()).unwrap();
    let ok = "HTTP/1.1 200 OK\r\n";
    assert_eq!(
        framed(&get(), &format!("{ok}\r\n")),
        (Framing::UntilClose, Some(Unfit::UntilClose))
    );
    assert_eq!(framed(&head(), &format!("{ok}Content-Length: 5\r\n\r\n")), (Framing::Empty, None));
    let chunked = "Transfer-Encoding: chunked\r\n\r\n";
    assert_eq!(framed(&head(), &format!("{ok}{chunked}")), (Framing::Empty, None));
    assert_eq!(framed(&get(), &format!("{ok}{chunked}")), (Framing::Chunked, None));
    for status in ["204 No Content", "304 Not Modified"] {
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 5\r\n\r\n");
        assert_eq!(framed(&get(), &answer), (Framing::Empty, None));
    }
    assert_eq!(framed(&get(), &format!("{ok}Content-Length: 0\r\n\r\n")), (Framing::Empty, None));
    let same = format!("{ok}Content-Length: 5\r\nContent-Length: 5\r\n\r\n");
    assert_eq!(framed(&get(), &same), (Framing::Length(5), None));
    let old = "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n";
    assert_eq!(framed(&get(), &format!("{old}\r\n")), (Framing::Length(5), Some(Unfit::Http10)));
    let kept = format!("{old}Connection: Keep-Alive\r\n\r\n");
    assert_eq!(framed(&get(), &kept), (Framing::Length(5), None));
}

#[test]
fn a_switch_of_protocols_must_have_been_asked_for() {
    let ask = Request::get("http://a/").header("connection", "Upgrade").header("upgrade", "x");
    let switch = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n";
    let head = head_of(&ask.body(()).unwrap(), switch).unwrap();
    assert_eq!((head.framing, head.unfit), (Framing::Tunnel, Some(Unfit::Upgraded)));
    let connect = || Request::connect("a:443").body(()).unwrap();
    let head = head_of(&connect(), b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
    assert_eq!(head.framing, Framing::Tunnel);
    let head = head_of(&connect(), b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\n").unwrap();
    assert_eq!((head.framing, head.unfit), (Framing::Length(2), Some(Unfit::Failed)));
}
