//! The names: a look-up that fails, hangs, or answers something else than a moment ago.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::sleep;
use std::time::Duration;

use parking_lot::Mutex;
use warmline::{BoxError, Resolve, Resolved, Resolver};

use crate::board::Board;
use crate::faults::Fault;
use crate::random::Random;

const TTL: Duration = Duration::from_millis(300);

/// Which servers have a name: the others are known by address.
pub(crate) const fn has_name(server: usize) -> bool {
    server % 5 < 2
}

pub(crate) fn name(server: usize) -> String {
    format!("server-{server}.soak")
}

pub(crate) struct Names {
    /// For each name, a server that it leads to for a while: not its own.
    others: HashMap<String, SocketAddr>,
    /// Nobody listens there.
    dead: SocketAddr,
    random: Mutex<Random>,
    board: Arc<Board>,
}

impl Names {
    pub(crate) fn new(servers: &[SocketAddr], dead: SocketAddr, board: &Arc<Board>) -> Self {
        let other = |server: usize| servers.iter().cycle().nth(server + 1);
        let named = (0..servers.len()).filter(|&server| has_name(server));
        let others = named.filter_map(|server| Some((name(server), *other(server)?))).collect();
        let random = Mutex::new(Random::of(board.seed, 0xDAD));
        Self { others, dead, random, board: Arc::clone(board) }
    }

    pub(crate) fn resolver(self) -> Resolver {
        Resolver::new(self).ttl(TTL).negative_ttl(TTL).stale_for(Duration::from_secs(1))
    }
}

impl Resolve for Names {
    fn resolve(&self, name: &str) -> Result<Resolved, BoxError> {
        let own = SocketAddr::from((Ipv4Addr::LOCALHOST, 0)); // with the endpoint's own port
        let other = *self.others.get(name).ok_or("no such name")?;
        let is_calm = self.board.is_over.load(Ordering::SeqCst);
        let (choice, time) = {
            let mut random = self.random.lock();
            (if is_calm { 0 } else { random.below(16) }, random.millis(100, 2_500))
        };
        let (fault, addresses) = match choice {
            10 => (Fault::NameFailed, vec![]),
            11 => (Fault::NameSlow, vec![own]),
            12 | 13 => (Fault::NameMoved, vec![other]),
            14 => (Fault::NameAstray, vec![self.dead, own]),
            15 => (Fault::NameLost, vec![self.dead]),
            _ => return Ok(Resolved::new([own])),
        };
        self.board.faults.note(fault);
        match fault {
            Fault::NameFailed => return Err("the name server is out of order".into()),
            Fault::NameSlow => sleep(time),
            _ => {}
        }
        Ok(Resolved::new(addresses))
    }
}
