//! Memory: nothing is kept of names that are not used any more, nor of connections that have ended.

use std::collections::VecDeque;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use socket2::SockRef;
use warmline::{
    BoxError, Builder, Connector, Endpoint, Opening, Pool, PooledConn, TcpConnector, UnixConnector,
};

use crate::alone;
use crate::support::{SOON, eventually, watchdog};

/// Opens nothing, under any name.
struct Nothing;

impl Connector for Nothing {
    type Key = String;
    type Conn = ();

    fn open(&self, _: &String, _: &mut Opening) -> Result<(), BoxError> {
        Ok(())
    }
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn many_names_used_once_do_not_add_up() {
    alone("memory::many_names_used_once_do_not_add_up", || {
        let _watchdog = watchdog();
        let pool = Pool::builder(Nothing).build().unwrap();
        let visit = |numbers: std::ops::Range<u32>| {
            for number in numbers {
                let name = format!("one-of-many-tenants-{number:0>200}");
                PooledConn::discard(pool.get(&*name).unwrap());
            }
        };
        visit(0..3_000);
        let before = resident_kib();
        visit(3_000..40_000);
        let grown = resident_kib().saturating_sub(before);
        // Each name is remembered twice, with an endpoint: 40 MiB, if none were forgotten.
        assert!(grown < 8 * 1024, "grown by {grown} KiB");
        assert_eq!(pool.stats().checkouts(), 40_000);
    });
}

fn large<C: Connector>(builder: Builder<C>) -> Builder<C> {
    builder.max_per_endpoint(64).max_connecting(64)
}

/// Opens connections and closes them, on this side.
fn open_and_discard(endpoint: &Endpoint<UnixConnector>, count: usize) {
    for _ in 0..count / 8 {
        let held: Vec<_> = (0..8).map(|_| endpoint.get_timeout(SOON).unwrap()).collect();
        held.into_iter().for_each(PooledConn::discard);
    }
}

#[test]
fn connections_that_were_discarded_leave_nothing_behind() {
    alone("memory::connections_that_were_discarded_leave_nothing_behind", || {
        let _watchdog = watchdog();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("listener");
        let listener = UnixListener::bind(&path).unwrap();
        std::thread::spawn(move || {
            let mut accepted = VecDeque::new();
            while let Ok((socket, _)) = listener.accept() {
                accepted.push_back(socket);
                accepted.drain(..accepted.len().saturating_sub(16));
            }
        });
        for is_portable in [false, true] {
            let builder = large(Pool::builder(UnixConnector::new())).portable_watch(is_portable);
            let endpoint = builder.build().unwrap().endpoint(path.as_path()).unwrap();
            open_and_discard(&endpoint, 2_000);
            let before = resident_kib();
            open_and_discard(&endpoint, 20_000);
            let grown = resident_kib().saturating_sub(before);
            assert!(grown < 512, "grown by {grown} KiB, 26 bytes for each");
            assert!(endpoint.stats().opened() >= 22_000);
        }
    });
}

#[test]
fn connections_that_died_leave_nothing_behind() {
    alone("memory::connections_that_died_leave_nothing_behind", || {
        let _watchdog = watchdog();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let name = listener.local_addr().unwrap().to_string();
        let die = |endpoint: &Endpoint<TcpConnector>, count: usize| {
            for _ in 0..count / 50 {
                assert_eq!(endpoint.warm(50, SOON).unwrap(), 50);
                for _ in 0..50 {
                    let (socket, _) = listener.accept().unwrap();
                    // By a reset, which leaves no port behind that is not free for a minute.
                    SockRef::from(&socket).set_linger(Some(Duration::ZERO)).unwrap();
                }
                eventually("all have died", || endpoint.stats().total() == 0);
            }
        };
        for is_portable in [false, true] {
            let builder = large(Pool::builder(TcpConnector::new())).portable_watch(is_portable);
            let endpoint = builder.build().unwrap().endpoint(&name).unwrap();
            die(&endpoint, 2_000);
            let before = resident_kib();
            die(&endpoint, 20_000);
            let grown = resident_kib().saturating_sub(before);
            assert!(grown < 512, "grown by {grown} KiB, 26 bytes for each");
            assert_eq!(endpoint.stats().opened(), 22_000);
        }
    });
}
