//! Answers of any kind, as a fuzzer plays them: no panic, no end that never comes, and no
//! connection used again unless a second, stricter reader knows where the answer ended. See
//! tests/fuzz.
#![cfg(unix)]

mod play;
mod strict;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;

use warmline::crossbeam_channel::{Receiver, Sender, unbounded};
use warmline::http::Client;

use self::play::{Outcome, Player};
use self::strict::{Reading, read};
use crate::support::{SOON, watchdog};

/// Names and bytes, in order.
fn corpus() -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/http_answers/corpus");
    let entries = fs::read_dir(folder).unwrap().map(Result::unwrap);
    let name = |entry: &fs::DirEntry| entry.file_name().into_string().unwrap();
    let mut found: Vec<_> =
        entries.map(|entry| (name(&entry), fs::read(entry.path()).unwrap())).collect();
    found.sort();
    found
}

/// The same numbers each time (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) >> 32).unwrap() % end.max(1)
    }
}

/// Changes a few things of an answer, with parts of another; or nothing but how it comes.
fn mutate(answer: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    const BYTES: &[u8] = b"\r\n :;,0159afAF\0\t\x0b\x7f\xffxk-";
    for _ in 0..random.below(4) {
        let at = random.below(answer.len() + 1);
        let end = (at + random.below(12)).min(answer.len());
        let byte = *BYTES.get(random.below(BYTES.len())).unwrap();
        match random.below(7) {
            0 => answer.drain(at..end).for_each(drop),
            1 => answer.insert(at, byte),
            2 => answer.truncate(at.max(2)),
            3 => {
                let from = random.below(other.len());
                let to = (from + random.below(60)).min(other.len());
                let part = other.get(from..to).unwrap().iter().copied();
                answer.splice(at..end, part).for_each(drop);
            }
            4 => answer.extend_from_within(at..end),
            _ => {
                if let Some(place) = answer.get_mut(at) {
                    *place = byte;
                }
            }
        }
    }
}

#[test]
fn a_connection_is_kept_after_every_answer_with_an_end_and_after_no_other() {
    let _watchdog = watchdog();
    let mut player = Player::new();
    for (name, input) in corpus() {
        let expected = if name.starts_with("kept-") { Outcome::Kept } else { Outcome::Closed };
        assert_eq!(player.play(&input), Some(expected), "{name}");
    }
}

#[test]
fn every_answer_of_the_corpus_can_come_in_any_pieces_and_be_read_in_any_way() {
    let _watchdog = watchdog();
    let mut player = Player::new();
    for (name, mut input) in corpus() {
        for shape in 0..32 {
            // What answers a HEAD has another end than what answers the others.
            if (shape ^ input[0]) & 3 != 1 && (shape & 3 != 1) {
                (input[0], input[1]) = (b'@' | shape, b'@' | shape.wrapping_mul(11));
                assert!(player.play(&input).is_some(), "{name}");
            }
        }
    }
}

#[test]
fn thousands_of_broken_answers_do_no_harm() {
    let _watchdog = watchdog();
    let (corpus, mut random, mut player) = (corpus(), Random(9), Player::new());
    let mut kept = 0;
    for number in 0..3000 {
        let (name, input) = &corpus[random.below(corpus.len())];
        let other = &corpus[random.below(corpus.len())].1;
        let mut input = input.clone();
        if random.below(2) == 0 {
            let shape = [random.below(32), random.below(256)].map(|it| it as u8);
            input.splice(..2, shape).for_each(drop);
        }
        mutate(&mut input, other, &mut random);
        let played = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| player.play(&input)));
        let Ok(outcome) = played else {
            panic!("number {number}, made from {name}: {:?}", String::from_utf8_lossy(&input));
        };
        kept += usize::from(outcome == Some(Outcome::Kept));
    }
    assert!((300..2700).contains(&kept), "{kept} of 3000 kept: that tries only one side");
}

#[test]
fn the_second_reader_doubts_whatever_has_two_readings() {
    let ends = |head: &str, rest: &str| {
        let answer = format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{rest}");
        read(answer.as_bytes(), false) != Reading::InDoubt
    };
    assert!(ends("Content-Length: 2", "ok") && ends("Content-Length: 2", "ok and more"));
    assert!(ends("transfer-encoding: Chunked", "2;a=b\r\nok\r\n0\r\nA: b\r\n\r\n"));
    for (head, rest) in [
        ("Content-Length: 3", "ok"),
        ("Content-Length: +2", "ok"),
        ("Content-Length: 2, 2", "ok"),
        ("Content-Length: 2\r\nContent-Length: 1", "ok"),
        ("Content-Length : 2", "ok"),
        ("Content-Length: 2\r\nConnection: x, close", "ok"),
        ("Content-Length: 2\r\nTransfer-Encoding: chunked", "2\r\nok\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked, chunked", "2\r\nok\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked", "2\r\nok0\r\n\r\n"),
        ("Transfer-Encoding: chunked", "2\nok\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked", "0x2\r\nok\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked", "2\r\nok\r\n0\r\n"),
        ("A: b", "until the end"),
    ] {
        assert!(!ends(head, rest), "{head}: {rest}");
    }
}

/// Answers "good", but to `/first` with a body whose last bytes come when told to, and another answer
/// together with them.
fn says_too_much(stream: &TcpStream, told: &Receiver<()>, wrote: &Sender<()>) {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    while let Some(line) = lines.next() {
        lines.by_ref().find(String::is_empty);
        let say = |text: &str| (&mut &*stream).write_all(text.as_bytes()).unwrap();
        if line.starts_with("GET /first ") {
            say("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nh");
            told.recv().unwrap();
            say("elloHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil");
            wrote.send(()).unwrap();
        } else {
            say("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood");
        }
    }
}

#[test]
fn what_comes_together_with_the_end_of_an_answer_is_given_to_nobody() {
    let _watchdog = watchdog();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let ((tell, told), (wrote, is_written)) = (unbounded(), unbounded());
    std::thread::spawn(move || {
        for stream in listener.incoming().map(Result::unwrap) {
            let (told, wrote) = (told.clone(), wrote.clone());
            std::thread::spawn(move || says_too_much(&stream, &told, &wrote));
        }
    });
    let client = Client::new();
    let url = |path: &str| format!("http://{address}/{path}");
    for way in 0..3 {
        let mut body = client.get(&url("first")).send().unwrap().into_body();
        tell.send(()).unwrap();
        is_written.recv_timeout(SOON).unwrap();
        match way {
            0 => assert_eq!(body.text().unwrap(), "hello"),
            1 => {
                let mut exactly = [0; 5];
                body.read_exact(&mut exactly).unwrap();
                assert_eq!(&exactly, b"hello");
            }
            _ => drop(body),
        }
        let next = client.get(&url("next")).send().unwrap();
        assert_eq!(next.into_body().text().unwrap(), "good", "way {way}");
    }
}
