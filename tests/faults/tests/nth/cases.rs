//! The cases: one call that fails so often, on one sort of connections. Each in a process of its
//! own.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use warmline::{
    BoxError, Builder, Connector, Name, Pool, PooledConn, Resolved, Resolver, TcpConnector,
    UnixConnector,
};

use crate::connectors::{Blocking, Greeting};
use crate::faults::{Call, Extent, exempt, meets_or_panics};
use crate::guard;
use crate::support::eventually;
use crate::support::server::Server;
use crate::work::Play;

/// Calls of one kind that one run may make: more, and something goes round in circles.
const MOST_CALLS: usize = 400;

/// Runs in a row that met no failure, after which no more are tried. How many calls a run makes
/// depends on who is faster.
const ENOUGH_MISSED: usize = 3;

/// How connections are opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sort {
    Tcp,
    Unix,
    Named,
    Greeting,
    Blocking,
}

impl Sort {
    const ALL: [Self; 5] = [Self::Tcp, Self::Unix, Self::Named, Self::Greeting, Self::Blocking];

    fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Unix => "unix",
            Self::Named => "named",
            Self::Greeting => "greeting",
            Self::Blocking => "blocking",
        }
    }

    /// The pool sees what happens on a connection.
    pub(crate) fn is_visible(self) -> bool {
        self != Self::Blocking
    }

    fn makes(self, call: Call) -> bool {
        match call {
            Call::Open | Call::OpenPanics | Call::Check | Call::CheckPanics => {
                matches!(self, Self::Greeting | Self::Blocking)
            }
            Call::Resolve | Call::ResolvePanics => self == Self::Named,
            // A Unix socket is connected at once, and the standard library asks only if it must.
            Call::ConnectLater => !matches!(self, Self::Unix | Self::Blocking),
            _ => true,
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) sort: Sort,
    pub(crate) call: Call,
    pub(crate) extent: Extent,
}

impl Case {
    /// All that there are; those that take longest come first.
    pub(crate) fn all() -> Vec<Self> {
        let of = |extent: Extent| {
            let every = Call::ALL.into_iter().flat_map(|call| Sort::ALL.map(|sort| (sort, call)));
            let made = every.filter(|(sort, call)| sort.makes(*call));
            made.map(move |(sort, call)| Self { sort, call, extent })
        };
        Extent::ALL.into_iter().flat_map(of).collect()
    }

    pub(crate) fn name(self) -> String {
        format!("{}/{}/{}", self.sort.name(), self.call.name(), self.extent.name())
    }

    /// Fails the first such call, the second, and so on, until runs make no more of them. Returns
    /// how many runs met a failure.
    pub(crate) fn play(self, seed: u64) -> usize {
        guard::stand(self.call);
        match self.sort {
            Sort::Tcp => self.on_tcp(seed, || Pool::builder(TcpConnector::new())),
            Sort::Unix => self.on_unix(seed),
            Sort::Named => self.on_names(seed),
            Sort::Greeting => self.on_tcp(seed, || Pool::builder(Greeting)),
            Sort::Blocking => self.on_tcp(seed, || Pool::builder(Blocking)),
        }
    }

    fn on_tcp<C: Connector>(self, seed: u64, builder: impl Fn() -> Builder<C> + Sync) -> usize
    where
        PooledConn<C>: Read + Write,
        str: Name<C::Key>,
    {
        let servers = exempt(|| [self.server(), self.server()]);
        let names = servers.each_ref().map(Server::name);
        self.on(seed, &builder, &names)
    }

    fn on_unix(self, seed: u64) -> usize {
        let folder = tempfile::tempdir().expect("there is room for a folder");
        let paths = ["one", "other"].map(|name| folder.path().join(name));
        let server = |path: &Path| Server::unix(path, |peer| peer.echo());
        let servers = exempt(|| paths.each_ref().map(|path| server(path)));
        let names = paths.each_ref().map(|path| path.to_string_lossy().into_owned());
        // The other way to watch, which registers through the C library.
        let builder = || Pool::builder(UnixConnector::new()).portable_watch(true);
        let points = self.on(seed, &builder, &names);
        drop(servers);
        points
    }

    fn on_names(self, seed: u64) -> usize {
        let servers = exempt(|| [self.server(), self.server()]);
        let names = servers.each_ref().map(|server| format!("db.test:{}", server.address().port()));
        let builder = || {
            let nothing = std::time::Duration::ZERO;
            let resolver = Resolver::new(look_up).ttl(nothing).negative_ttl(nothing);
            Pool::builder(TcpConnector::new()).resolver(&resolver.stale_for(nothing))
        };
        self.on(seed, &builder, &names)
    }

    /// Greets who expects it, and sends back whatever it receives.
    fn server(self) -> Server {
        let greets = matches!(self.sort, Sort::Greeting | Sort::Blocking);
        Server::scripted(move |peer| {
            if greets {
                peer.write_all(b"!")?;
            }
            peer.echo()
        })
    }

    fn on<C: Connector>(
        self,
        seed: u64,
        builder: &(dyn Fn() -> Builder<C> + Sync),
        names: &[String; 2],
    ) -> usize
    where
        PooledConn<C>: Read + Write,
        str: Name<C::Key>,
    {
        let play = Play { builder, names, case: self, seed };
        let before = held();
        let (mut met, mut missed) = (0, 0);
        for nth in 1..=MOST_CALLS {
            guard::begin(format!("{}, from call {nth}, seed {seed}", self.name()));
            let has_met_it = play.run(nth);
            eventually("descriptors and threads are as before", || held() == before);
            if has_met_it {
                met += 1;
                missed = 0;
            } else {
                missed += 1;
            }
            if missed == ENOUGH_MISSED {
                return met;
            }
        }
        panic!("{MOST_CALLS} calls and more");
    }
}

fn look_up(_: &str) -> Result<Resolved, BoxError> {
    meets_or_panics(Call::Resolve, Call::ResolvePanics)?;
    Ok(Resolved::new([SocketAddr::from((Ipv4Addr::LOCALHOST, 0))]))
}

/// Descriptors and threads of this process.
fn held() -> (usize, usize) {
    let count = |folder| fs::read_dir(folder).expect("Linux has it").count();
    (count("/proc/self/fd"), count("/proc/self/task"))
}
