//! What befalls the hosts, the process and the pools while a script is played.

use std::time::Duration;

use warmline::sim::net::Manners;

use super::Maker;

#[derive(Clone, Debug)]
pub enum Happening {
    Manners {
        host: usize,
        manners: Manners,
    },
    EndConnections {
        host: usize,
        by_reset: bool,
    },
    CutConnections {
        host: usize,
    },
    Descriptors(Option<usize>),
    Threads(Option<usize>),
    /// A name has no answer, a slow one, or one that leads nowhere; or is well again.
    Names(Naming),
    SetClock(i64),
    EvictAll,
    /// Nothing goes out for so long.
    Pause(Duration),
    Close,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Naming {
    Well,
    Fails,
    Slow(Duration),
    Nowhere,
    /// Another address, where somebody else is.
    Elsewhere,
    Panics,
}

impl Maker {
    pub(super) fn happenings(&mut self) -> Vec<(Duration, Happening)> {
        if self.is_calm {
            return Vec::new();
        }
        let many = *self.random.one_of(&[0, 1, 3, 8]);
        (0..many).map(|_| (self.millis(0..120), self.happening())).collect()
    }

    fn happening(&mut self) -> Happening {
        let host = self.a_host();
        match self.random.below(20) {
            0..=6 => Happening::Manners { host, manners: self.manners(true) },
            7..=9 => Happening::EndConnections { host, by_reset: self.chance(500) },
            10 => Happening::CutConnections { host },
            11..=12 => {
                let limit = self.chance(600).then(|| self.random.below(6) as usize);
                Happening::Descriptors(limit)
            }
            13 => Happening::Threads(self.chance(600).then(|| self.random.below(6) as usize)),
            14..=16 => {
                let most = *self.random.one_of(&[7_000, 7_000, 60_000]);
                let slow = Naming::Slow(self.millis(1..most));
                let naming = [Naming::Well, Naming::Fails, slow, Naming::Nowhere, Naming::Panics];
                Happening::Names(*self.random.one_of(&naming))
            }
            17 => {
                let seconds = self.random.below(7_200) as i64 - 3_600;
                Happening::SetClock(seconds * 1_000_000_000)
            }
            18 if self.chance(500) => Happening::Close,
            18 => Happening::Pause(self.millis(1..400)),
            _ => Happening::EvictAll,
        }
    }
}
