//! The rules for a socket that comes back.

use super::*;

/// A socket whose other end the test holds.
fn pair() -> (Socket, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (Socket::new(Stream::Unix(ours)), theirs)
}

fn judge(socket: &mut Socket) -> Judgement {
    let judgement = socket.judge(&SocketOptions::new());
    if judgement == Judgement::Clean {
        socket.forget(); // as the pool does before the next user
    }
    judgement
}

#[test]
fn an_untouched_socket_is_clean_and_a_finished_exchange_too() {
    let (mut socket, mut peer) = pair();
    assert_eq!(judge(&mut socket), Judgement::Clean);
    socket.write_all(b"ping").unwrap();
    peer.write_all(b"pong").unwrap();
    socket.read_exact(&mut [0; 4]).unwrap();
    assert_eq!((socket.bytes_written(), socket.bytes_read()), (4, 4));
    assert_eq!(judge(&mut socket), Judgement::Clean);
    assert_eq!((socket.bytes_written(), socket.bytes_read()), (0, 0), "counted per checkout");
}

#[test]
fn a_request_without_an_answer_is_unfinished_unless_the_protocol_is_one_way() {
    let (mut socket, _peer) = pair();
    socket.write_all(b"log line").unwrap();
    assert_eq!(judge(&mut socket), Judgement::Close(CloseReason::Unfinished));
    assert_eq!(socket.judge(&SocketOptions::new().one_way(true)), Judgement::Clean);
}

#[test]
fn a_short_read_that_left_bytes_behind_is_found_out() {
    let (mut socket, mut peer) = pair();
    socket.write_all(b"ping").unwrap();
    peer.write_all(b"half and half").unwrap();
    socket.read_exact(&mut [0; 4]).unwrap();
    assert_eq!(judge(&mut socket), Judgement::Close(CloseReason::StrayBytes));
}

#[test]
fn a_completed_exchange_needs_no_look_until_the_next_write() {
    let (mut socket, mut peer) = pair();
    socket.write_all(b"ping").unwrap();
    socket.set_complete();
    peer.write_all(b"not looked at").unwrap();
    assert_eq!(judge(&mut socket), Judgement::Clean);
    socket.set_complete();
    socket.write_all(b"ping").unwrap();
    assert_eq!(judge(&mut socket), Judgement::Close(CloseReason::Unfinished));
}

#[test]
fn an_end_or_an_error_closes_even_if_the_exchange_was_complete() {
    let (mut socket, peer) = pair();
    drop(peer);
    assert_eq!(socket.read(&mut [0; 1]).unwrap(), 0);
    socket.set_complete();
    assert_eq!(socket.ended(), Some(Ended::Eof));
    assert_eq!(judge(&mut socket), Judgement::Close(CloseReason::PeerClosed));

    let (mut socket, _peer) = pair();
    socket.set_read_timeout(Duration::from_millis(1)).unwrap();
    socket.read(&mut [0; 1]).unwrap_err();
    assert_eq!(judge(&mut socket), Judgement::Close(CloseReason::Failed));

    let (mut socket, _peer) = pair();
    socket.shutdown(Shutdown::Write).unwrap();
    assert_eq!(judge(&mut socket), Judgement::Close(CloseReason::Discarded));
}

#[test]
fn a_lent_descriptor_is_looked_at_even_if_nothing_was_read_through_the_socket() {
    let (mut socket, mut peer) = pair();
    peer.write_all(b"stray").unwrap();
    assert_eq!(judge(&mut socket), Judgement::Clean, "not touched, so not looked at");
    let _fd = socket.as_fd();
    assert_eq!(judge(&mut socket), Judgement::Close(CloseReason::StrayBytes));
}

#[test]
fn changed_time_outs_are_put_back() {
    let (mut socket, _peer) = pair();
    socket.set_read_timeout(Duration::from_secs(1)).unwrap();
    socket.set_write_timeout(None).unwrap();
    assert_eq!(judge(&mut socket), Judgement::Clean);
    let expected = Some(Duration::from_secs(30));
    assert_eq!(socket.sock_ref().read_timeout().unwrap(), expected);
    assert_eq!(socket.sock_ref().write_timeout().unwrap(), expected);
    assert!(socket.set_read_timeout(Duration::ZERO).is_err());
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a peer that is late needs a thread, and time")]
fn a_read_by_a_deadline_outlasts_the_sockets_own_time_out_and_ends_at_the_deadline() {
    for own in [Some(Duration::from_millis(1)), Some(Duration::from_secs(60)), None] {
        let (mut socket, mut peer) = pair();
        socket.set_read_timeout(own).unwrap();
        let speaks = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            peer.write_all(b"late").unwrap();
            peer
        });
        let by = Deadline::after(Duration::from_secs(20));
        assert_eq!(socket.read_by(&mut [0; 8], by).unwrap(), 4, "{own:?}");
        assert_eq!(socket.ended(), None, "that its own time-out was over is no event");
        let peer = speaks.join().unwrap();
        let by = Deadline::after(Duration::from_millis(20));
        let error = socket.read_by(&mut [0; 8], by).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{own:?}");
        assert_eq!(socket.ended(), Some(Ended::Error(io::ErrorKind::TimedOut)));
        drop(peer);
    }
}

#[test]
fn a_write_by_a_deadline_ends_there_when_the_peer_reads_nothing() {
    let (mut socket, _peer) = pair();
    let by = Deadline::after(Duration::from_millis(20));
    let (bytes, mut written) = (vec![0; 64 * 1024], 0);
    let error = loop {
        match socket.write_by(&bytes, by) {
            Ok(count) => written += count as u64,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert_eq!((socket.bytes_written(), written > 0), (written, true));
}

#[test]
fn a_long_write_stops_when_the_peer_says_something() {
    let (mut socket, mut peer) = pair();
    let by = Deadline::after(Duration::from_secs(20));
    assert_eq!(socket.write_unless_answered(b"begin", by).unwrap(), Some(5));
    peer.write_all(b"enough").unwrap();
    assert_eq!(socket.write_unless_answered(b"more", by).unwrap(), None);
    assert_eq!(socket.bytes_written(), 5);
    drop(peer);
    socket.read_exact(&mut [0; 6]).unwrap();
    assert_eq!(socket.write_unless_answered(b"more", by).unwrap(), None, "a hang-up is heard, too");
}

#[test]
fn to_wait_for_bytes_in_vain_does_a_connection_no_harm() {
    let (mut socket, mut peer) = pair();
    assert!(!socket.wait_readable(Deadline::after(Duration::from_millis(5))).unwrap());
    assert_eq!(judge(&mut socket), Judgement::Clean);
    peer.write_all(b"x").unwrap();
    assert!(socket.wait_readable(Deadline::after(Duration::from_secs(20))).unwrap());
}
