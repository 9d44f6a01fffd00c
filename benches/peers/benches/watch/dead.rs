//! How many dead connections are handed out, after the server has closed all that were idle.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use peers::{result, version};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use warmline::{Pool, TcpConnector};

use crate::remote::{End, Remote};

const PATIENCE: Duration = Duration::from_secs(10);
const IDLE: usize = 100;
/// From the last close of the server to the first checkout.
const PAUSE: Duration = Duration::from_millis(20);

struct Manager(SocketAddr);

impl r2d2::ManageConnection for Manager {
    type Connection = TcpStream;
    type Error = io::Error;

    fn connect(&self) -> io::Result<TcpStream> {
        TcpStream::connect(self.0)
    }

    fn is_valid(&self, _: &mut TcpStream) -> io::Result<()> {
        Ok(())
    }

    fn has_broken(&self, _: &mut TcpStream) -> bool {
        false
    }
}

fn is_dead(socket: impl rustix::fd::AsFd) -> bool {
    let mut byte = [0_u8; 1];
    let looked = recv(socket, &mut byte[..], RecvFlags::PEEK | RecvFlags::DONTWAIT);
    !matches!(looked, Err(Errno::AGAIN))
}

pub(crate) fn run() {
    let mut remote = Remote::start();
    let warmline = of_warmline(&mut remote);
    report("dead_handed_out", warmline, &format!("{}: defaults", version("warmline", "")));
    let r2d2 = of_r2d2(&mut remote);
    let settings = format!(
        "{}: test_on_check_out=false; with the test, every checkout pays a round trip",
        version("r2d2", "")
    );
    report("r2d2_dead_handed_out", r2d2, &settings);
}

fn of_warmline(remote: &mut Remote) -> usize {
    let address = remote.listen();
    let builder = Pool::builder(TcpConnector::new()).max_per_endpoint(IDLE);
    let endpoint = builder.build().and_then(|pool| pool.endpoint(&address)).expect("an address");
    let open = || endpoint.warm(IDLE, PATIENCE).expect("the server accepts");
    assert_eq!(remote.accept(address, IDLE, open), IDLE);
    remote.end_all(End::Farewell, || {});
    thread::sleep(PAUSE);
    let get = || Vec::from_iter((0..IDLE).map(|_| endpoint.get().expect("a connection")));
    let conns = remote.accept(address, IDLE, get);
    conns.iter().filter(|conn| is_dead(&***conn)).count()
}

fn of_r2d2(remote: &mut Remote) -> usize {
    let address = remote.listen();
    let builder = r2d2::Pool::builder().max_size(IDLE as u32).test_on_check_out(false);
    let open = || builder.build(Manager(address)).expect("the server accepts");
    let pool = remote.accept(address, IDLE, open);
    remote.end_all(End::Farewell, || {});
    thread::sleep(PAUSE);
    let conns = Vec::from_iter((0..IDLE).map(|_| pool.get().expect("a connection")));
    conns.iter().filter(|conn| is_dead(&***conn)).count()
}

fn report(name: &str, dead: usize, settings: &str) {
    let config = format!(
        "{settings}, {IDLE} idle connections; the server closes all, {PAUSE:?} later {IDLE} are \
         checked out; those whose end a peek then finds"
    );
    result(name, dead, &format!("of {IDLE}"), config);
}
