//! What happens in a simulation, as data: made from a seed, and made smaller when it fails.

mod fate;

pub use self::fate::{Happening, Naming};

use std::ops::Range;
use std::time::Duration;

use warmline::sim::Random;
use warmline::sim::net::{Accepts, Manners};

const MILLI: u64 = 1_000_000;
const MILLIS_80: Duration = Duration::from_millis(80);
const HOUR: Duration = Duration::from_secs(3_600);

/// One simulation.
#[derive(Clone, Debug)]
pub struct Script {
    /// Decides the schedule, and what the network makes of its manners.
    pub seed: u64,
    pub pace: Pace,
    pub kind: Kind,
    pub settings: Settings,
    pub hosts: Vec<Host>,
    /// What each caller does, one after the other.
    pub callers: Vec<Vec<Act>>,
    /// What befalls hosts and pool meanwhile, and how long after the last.
    pub happenings: Vec<(Duration, Happening)>,
    /// Nothing goes wrong but by limits: nobody may see an error.
    pub is_calm: bool,
}

/// How threads take turns, in thousandths: see [`warmline::sim::Config`].
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    pub stays: u64,
    pub rushes: u64,
    pub lags: u64,
    pub changes: Option<u32>,
}

/// Which connector the pool has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Our own plain sockets.
    Plain,
    /// One that does much, and not always well.
    Foreign(Temper),
}

/// How a connector behaves, in thousandths of its calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Temper {
    pub fails: u64,
    pub panics: u64,
    pub hangs: u64,
    pub settles: u64,
    /// It takes the limits off a socket while it opens a connection.
    pub unlimits: bool,
    pub has_check: bool,
    pub shows_socket: bool,
    pub watches: bool,
}

#[derive(Clone, Debug)]
pub struct Settings {
    pub max_total: usize,
    pub max_per_endpoint: usize,
    pub min_idle: usize,
    pub max_connecting: usize,
    pub max_waiting: usize,
    pub max_uses: Option<u32>,
    pub checkout_timeout: Duration,
    pub connect_timeout: Duration,
    pub idle_timeout: Duration,
    pub max_lifetime: Option<Duration>,
    pub fair_after: Duration,
    pub probe_after: Duration,
    pub check_after: Duration,
    /// For how long names are remembered.
    pub ttl: Duration,
    pub takes_oldest: bool,
    pub portable_watch: bool,
    pub fail_fast: bool,
    pub check_interval: Option<Duration>,
    pub has_observer: bool,
    /// Addresses where nobody is do not even refuse.
    pub silent_empties: bool,
    /// There is a second pool with the same settings, on the same driver and resolver.
    pub has_twin: bool,
    pub drains: bool,
}

#[derive(Clone, Debug)]
pub struct Host {
    pub reach: Reach,
    pub manners: Manners,
}

/// How connections to a host begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    Address,
    /// Several addresses, of which only the last leads anywhere.
    Addresses(u8),
    Name,
    Path,
    /// Without a socket of the pool's.
    Blocking,
}

#[derive(Clone, Debug)]
pub enum Act {
    Exchange {
        host: usize,
        timeout: Option<Duration>,
        frames: u64,
        hold: Duration,
        end: End,
    },
    TryGet {
        host: usize,
    },
    Run {
        host: usize,
        always: bool,
    },
    Request {
        host: usize,
        wait: Duration,
        end: End,
    },
    /// Two connections at once: the second while the first is held.
    Two {
        host: usize,
        other: usize,
        timeout: Duration,
    },
    Warm {
        host: usize,
        count: usize,
        timeout: Duration,
    },
    Evict {
        host: usize,
    },
    EvictAll,
    SetLimits {
        host: usize,
        most: usize,
        min_idle: usize,
    },
    /// Names so many endpoints where nobody is, so that the pool forgets some.
    Stray {
        many: usize,
    },
    Rest(Duration),
}

/// What becomes of a connection after its use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Return,
    Discard,
    Detach,
    /// Dropped with a request written and no answer read.
    Abandon,
    Panic,
}

struct Maker {
    random: Random,
    hosts: usize,
    is_calm: bool,
}

impl Script {
    /// The script of this seed.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        let mut random = Random::new(seed ^ 0x5EED);
        let is_calm = random.permille(150);
        let is_crowd = random.permille(20);
        let hosts = if is_crowd { 12 } else { random.between(1, 4) as usize };
        let mut maker = Maker { random, hosts, is_calm };
        let kind = maker.kind();
        let is_blocking = is_crowd && kind != Kind::Plain && maker.chance(500);
        let settings = maker.settings();
        let callers = if is_crowd { 14 } else { maker.random.between(1, 7) };
        let length = if is_crowd { 6 } else { *maker.random.one_of(&[3, 6, 12, 30]) };
        Self {
            seed,
            pace: maker.pace(),
            kind,
            settings,
            hosts: (0..hosts)
                .map(|_| if is_blocking { Host::blocking() } else { maker.host(kind) })
                .collect(),
            callers: (0..callers).map(|_| (0..length).map(|_| maker.act()).collect()).collect(),
            happenings: maker.happenings(),
            is_calm,
        }
    }
}

impl Host {
    fn blocking() -> Self {
        Self { reach: Reach::Blocking, manners: Manners::default() }
    }
}

impl Script {
    /// The pool is closed before its time.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        let is_close = |(_, happening): &(_, Happening)| matches!(happening, Happening::Close);
        self.happenings.iter().any(is_close)
    }

    /// Calls of the connector return when they should.
    #[must_use]
    pub fn returns(&self) -> bool {
        !matches!(self.kind, Kind::Foreign(temper) if temper.hangs > 0)
    }

    /// The pool hears of an idle connection that the peer has closed it.
    #[must_use]
    pub fn hears_while_idle(&self) -> bool {
        !matches!(self.kind, Kind::Foreign(temper) if !temper.watches)
    }

    /// The connector does what it should, unless the network keeps it from that.
    #[must_use]
    pub fn is_tempered(&self) -> bool {
        match self.kind {
            Kind::Plain => true,
            Kind::Foreign(temper) => temper.fails + temper.panics + temper.hangs == 0,
        }
    }

    /// Some endpoint is given limits of its own.
    #[must_use]
    pub fn changes_limits(&self) -> bool {
        let mut acts = self.callers.iter().flatten();
        acts.any(|act| matches!(act, Act::SetLimits { .. }))
    }

    /// The pool hears at any time that the peer has closed a connection.
    #[must_use]
    pub fn hears(&self) -> bool {
        match self.kind {
            Kind::Plain => !self.settings.portable_watch,
            Kind::Foreign(temper) => temper.watches && !self.settings.portable_watch,
        }
    }
}

impl Maker {
    fn chance(&mut self, permille: u64) -> bool {
        self.random.permille(permille)
    }

    fn millis(&mut self, range: Range<u64>) -> Duration {
        let micros = self.random.between(range.start * 1_000, range.end * 1_000);
        Duration::from_micros(micros)
    }

    fn pace(&mut self) -> Pace {
        let stays = *self.random.one_of(&[0, 300, 700, 900, 970]);
        let rushes = if self.chance(250) { *self.random.one_of(&[1, 5, 30]) } else { 0 };
        let lags = if self.chance(300) { *self.random.one_of(&[2, 10]) } else { 0 };
        let changes = self.chance(250).then(|| self.random.between(1, 6) as u32);
        Pace { stays, rushes, lags, changes }
    }

    fn kind(&mut self) -> Kind {
        if self.chance(400) {
            return Kind::Plain;
        }
        let ill = if self.is_calm { 0 } else { 1 };
        Kind::Foreign(Temper {
            fails: ill * *self.random.one_of(&[0, 10, 100, 400]),
            panics: ill * *self.random.one_of(&[0, 0, 10, 100]),
            hangs: ill * *self.random.one_of(&[0, 0, 10, 60]),
            settles: *self.random.one_of(&[0, 50, 300]),
            unlimits: self.chance(200),
            has_check: self.chance(500),
            shows_socket: self.chance(800),
            watches: self.chance(700),
        })
    }

    fn settings(&mut self) -> Settings {
        let max_total = self.random.between(1, 8) as usize;
        let max_per_endpoint = self.random.between(1, max_total.min(5) as u64) as usize;
        let min_idle = if self.chance(300) {
            self.random.between(1, max_per_endpoint as u64) as usize
        } else {
            0
        };
        let is_short = self.chance(300);
        let calm = self.is_calm;
        let checkout = match (calm, is_short) {
            (true, _) => Duration::from_secs(60),
            (_, true) => self.millis(2..40),
            _ => self.millis(40..800),
        };
        let tight = self.chance(200) && !calm;
        let connect = if calm { Duration::from_secs(5) } else { self.millis(3..600) };
        let is_patient = connect >= Duration::from_millis(100);
        Settings {
            max_total,
            max_per_endpoint,
            min_idle,
            max_connecting: self.random.between(1, 6) as usize,
            max_waiting: if tight { self.random.between(1, 3) as usize } else { 64 },
            max_uses: self.chance(200).then(|| self.random.between(1, 6) as u32),
            checkout_timeout: checkout,
            connect_timeout: connect,
            idle_timeout: self.millis(20..4_000),
            max_lifetime: if self.chance(300) { Some(self.millis(20..3_000)) } else { None },
            fair_after: if self.chance(300) { Duration::ZERO } else { self.millis(0..5) },
            probe_after: if self.chance(300) { Duration::ZERO } else { self.millis(0..60) },
            check_after: if self.chance(500) { Duration::ZERO } else { self.millis(0..500) },
            ttl: *self.random.one_of(&[MILLIS_80, MILLIS_80, Duration::ZERO, HOUR]),
            takes_oldest: self.chance(200),
            portable_watch: self.chance(200),
            fail_fast: !self.chance(250),
            check_interval: self.chance(500).then(|| self.millis(5..1_500)),
            has_observer: self.chance(300),
            silent_empties: is_patient && self.chance(300),
            has_twin: self.chance(200),
            drains: self.chance(600),
        }
    }

    fn host(&mut self, kind: Kind) -> Host {
        let reach = match (kind, self.random.below(10)) {
            (_, 0..=3) => Reach::Address,
            (Kind::Plain, _) | (_, 4..=5) => Reach::Name,
            (_, 6) => Reach::Addresses(self.random.between(1, 3) as u8),
            (_, 7) => Reach::Path,
            _ => Reach::Blocking,
        };
        Host { reach, manners: self.manners(false) }
    }

    fn manners(&mut self, may_refuse: bool) -> Manners {
        let mut manners = Manners::default();
        let slow = *self.random.one_of(&[0, 0, 1, 5, 40]) * MILLI;
        manners.connect = (MILLI / 20, MILLI / 2 + slow);
        let slow = *self.random.one_of(&[0, 0, 1, 10]) * MILLI;
        manners.answer = (MILLI / 50, MILLI / 5 + slow);
        if self.is_calm {
            return manners;
        }
        if may_refuse {
            manners.accepts =
                *self.random.one_of(&[Accepts::All, Accepts::All, Accepts::None, Accepts::Silent]);
        }
        if self.chance(600) {
            let chance = *self.random.one_of(&[5, 30, 200]);
            for fault in [
                &mut manners.resets,
                &mut manners.halves,
                &mut manners.silences,
                &mut manners.delays,
                &mut manners.strays,
                &mut manners.late_strays,
                &mut manners.closes,
                &mut manners.half_closes,
                &mut manners.vanishes,
            ] {
                if self.random.permille(300) {
                    *fault = chance;
                }
            }
        }
        if self.chance(150) {
            manners.idle_limit = Some(self.random.between(2, 400) * MILLI);
        }
        if self.chance(100) {
            manners.most = self.random.between(1, 4) as usize;
        }
        manners
    }

    fn a_host(&mut self) -> usize {
        // Some are busier than others.
        let any = self.random.below(self.hosts as u64) as usize;
        if self.chance(400) { 0 } else { any }
    }

    fn end(&mut self) -> End {
        if self.is_calm {
            return End::Return;
        }
        match self.random.below(20) {
            0 => End::Discard,
            1 => End::Detach,
            2 => End::Abandon,
            3 => End::Panic,
            _ => End::Return,
        }
    }

    fn act(&mut self) -> Act {
        let host = self.a_host();
        match self.random.below(30) {
            0..=13 => Act::Exchange {
                host,
                timeout: (self.chance(200) && !self.is_calm).then(|| self.millis(0..30)),
                frames: self.random.between(0, 3),
                hold: if self.chance(300) { self.millis(0..25) } else { Duration::ZERO },
                end: self.end(),
            },
            14 => Act::TryGet { host },
            15..=17 => Act::Run { host, always: self.chance(600) },
            18..=20 => Act::Request { host, wait: self.millis(0..60), end: self.end() },
            21 => Act::Two { host, other: self.a_host(), timeout: self.millis(1..50) },
            22 => Act::Warm {
                host,
                count: self.random.between(1, 6) as usize,
                timeout: self.millis(1..80),
            },
            23 => Act::Evict { host },
            24 if self.chance(300) => Act::EvictAll,
            25 if self.chance(500) => Act::SetLimits {
                host,
                most: self.random.between(1, 5) as usize,
                min_idle: self.random.below(2) as usize,
            },
            26 if self.chance(100) && !self.is_calm => Act::Stray { many: 70 },
            _ => Act::Rest(self.millis(0..120)),
        }
    }
}
