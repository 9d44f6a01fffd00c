//! Which address of several to try when: happy eyeballs (RFC 8305), decided without a socket.

use std::collections::{HashSet, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use crate::clock::Stamp;
use crate::sys;

/// How long an address is tried before the next one is tried beside it.
const HEAD_START: Duration = Duration::from_millis(250);
/// However many addresses there are, the system is not flooded with attempts.
const LEAST_HEAD_START: Duration = Duration::from_millis(10);

/// One attempt to connect to whichever of several addresses answers first.
///
/// Families alternate, beginning with that of the first address. Each address gets a head start
/// before the next; one that fails makes way for the next at once. With many addresses and little
/// time the head starts are shorter, so that every address is tried before the deadline.
#[derive(Debug)]
pub(crate) struct Race {
    waiting: VecDeque<SocketAddr>,
    head_start: Duration,
    /// When the next address is due. Nothing if it waits for nobody.
    next_at: Option<Stamp>,
    running: usize,
    failed: usize,
    /// Of those that failed, the error that tells most; of several the last.
    error: Option<io::Error>,
}

impl Race {
    pub(crate) fn new(addresses: &[SocketAddr], now: Stamp, deadline: Stamp) -> Self {
        let waiting = interleave(addresses);
        let most = u32::try_from(waiting.len()).unwrap_or(u32::MAX).max(1);
        // The last one keeps a quarter of the time for itself.
        let share = deadline.since(now) / 4 * 3 / most;
        let head_start = share.clamp(LEAST_HEAD_START, HEAD_START);
        Self { waiting, head_start, next_at: None, running: 0, failed: 0, error: None }
    }

    /// The next address to try, if one is due. Whoever takes it reports how it went.
    pub(crate) fn start(&mut self, now: Stamp) -> Option<SocketAddr> {
        if self.next_at.is_some_and(|at| at > now) {
            return None;
        }
        let address = self.waiting.pop_front()?;
        self.running += 1;
        self.next_at = (!self.waiting.is_empty()).then(|| now.plus(self.head_start));
        Some(address)
    }

    /// One that runs has failed: the next is due at once.
    pub(crate) fn failed(&mut self, error: io::Error) {
        self.running -= 1;
        self.failed += 1;
        let told = self.error.as_ref().map_or(0, tells);
        if tells(&error) >= told {
            self.error = Some(error);
        }
        self.next_at = None;
    }

    /// One that runs has failed for want of something on this side. Others would, too.
    pub(crate) fn failed_here(&mut self, error: io::Error) {
        self.waiting.clear();
        self.failed(error);
    }

    /// This side lacked something, and further addresses were not tried.
    pub(crate) fn ran_short(&self) -> bool {
        self.error.as_ref().is_some_and(sys::is_shortage)
    }

    /// None is running, and none is left.
    pub(crate) fn is_lost(&self) -> bool {
        self.running == 0 && self.waiting.is_empty()
    }

    /// Whether [`start`](Race::start) would name one now.
    pub(crate) fn is_due(&self, now: Stamp) -> bool {
        !self.waiting.is_empty() && self.next_at.is_none_or(|at| at <= now)
    }

    /// When the next address is due, if it waits for its time.
    pub(crate) fn next_at(&self) -> Option<Stamp> {
        self.next_at
    }

    /// Why all failed; `None` if none has.
    pub(crate) fn into_error(self) -> Option<io::Error> {
        let error = self.error?;
        if self.failed == 1 {
            return Some(error);
        }
        let (kind, failed) = (error.kind(), self.failed);
        Some(io::Error::new(kind, Failures { failed, worst: error }))
    }

    /// How far it came by its deadline, in words.
    pub(crate) fn describe(&self) -> String {
        let mut words = match self.running {
            0 if self.failed > 0 => "no further address was tried by the deadline".to_owned(),
            0 => "no address was tried by the deadline".to_owned(),
            1 => "no answer by the deadline".to_owned(),
            many => format!("no answer from any of {many} addresses by the deadline"),
        };
        if let Some(error) = &self.error {
            words += &format!("; {} failed before: {error}", self.failed);
        }
        words
    }
}

/// How much an error says about why a peer cannot be reached by any of its addresses.
fn tells(error: &io::Error) -> u8 {
    match error.kind() {
        // Why others were not tried is more than why one failed.
        _ if sys::is_shortage(error) => 4,
        // A peer has answered.
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => 3,
        io::ErrorKind::TimedOut => 2,
        // A family that this machine does not have, say.
        io::ErrorKind::AddrNotAvailable
        | io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::HostUnreachable => 0,
        _ => 1,
    }
}

/// Several addresses failed, each in its own way.
#[derive(Debug)]
struct Failures {
    failed: usize,
    worst: io::Error,
}

impl std::fmt::Display for Failures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "all {} addresses failed: {}", self.failed, self.worst)
    }
}

impl std::error::Error for Failures {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.worst)
    }
}

/// Each address once; families alternate, as far as there are addresses of both.
fn interleave(addresses: &[SocketAddr]) -> VecDeque<SocketAddr> {
    let mut seen = HashSet::new();
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let once = addresses.iter().copied().filter(|address| seen.insert(*address));
    let (favoured, others): (Vec<_>, Vec<_>) =
        once.partition(|address| address.is_ipv6() == first_is_v6);
    let (mut favoured, mut others) = (favoured.into_iter(), others.into_iter());
    let mut mixed = VecDeque::new();
    loop {
        let pair = (favoured.next(), others.next());
        mixed.extend(pair.0.into_iter().chain(pair.1));
        if pair == (None, None) {
            return mixed;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Stamp = Stamp::from_millis(3_000);

    fn v4(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 80))
    }

    fn v6(last: u16) -> SocketAddr {
        SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, last], 80))
    }

    fn at(millis: u64) -> Stamp {
        Stamp::from_millis(millis)
    }

    fn refused() -> io::Error {
        io::ErrorKind::ConnectionRefused.into()
    }

    #[test]
    fn families_alternate_and_each_address_is_tried_once() {
        let order = interleave(&[v6(1), v6(2), v6(1), v4(1), v6(3), v4(1)]);
        assert_eq!(order, [v6(1), v4(1), v6(2), v6(3)]);
        assert_eq!(interleave(&[v4(1), v4(2), v6(1)]), [v4(1), v6(1), v4(2)]);
        assert!(interleave(&[]).is_empty());
    }

    #[test]
    fn the_next_address_is_tried_beside_a_silent_one_after_a_quarter_of_a_second() {
        let mut race = Race::new(&[v6(1), v4(1)], at(0), SOON);
        assert_eq!(race.start(at(0)), Some(v6(1)));
        assert_eq!((race.start(at(249)), race.next_at()), (None, Some(at(250))));
        assert_eq!(race.start(at(250)), Some(v4(1)));
        assert_eq!((race.start(at(2_000)), race.next_at()), (None, None));
        assert!(!race.is_lost(), "both may still answer");
    }

    #[test]
    fn an_address_that_fails_makes_way_at_once() {
        let mut race = Race::new(&[v4(1), v4(2)], at(0), SOON);
        assert_eq!(race.start(at(0)), Some(v4(1)));
        race.failed(refused());
        assert!(race.is_due(at(1)));
        assert_eq!(race.start(at(1)), Some(v4(2)));
        race.failed(refused());
        assert!(race.is_lost());
        let error = race.into_error().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(error.to_string(), "all 2 addresses failed: connection refused");
    }

    #[test]
    fn all_of_sixty_silent_addresses_are_tried_before_the_deadline() {
        let addresses: Vec<_> = (0..30).flat_map(|n| [v6(n), v4(n as u8)]).collect();
        let mut race = Race::new(&addresses, at(0), SOON);
        let tried = (0..3_000).filter(|millis| race.start(at(*millis)).is_some()).count();
        assert_eq!(tried, 60);
        assert_eq!(race.describe(), "no answer from any of 60 addresses by the deadline");
    }

    #[test]
    fn the_only_address_fails_with_its_own_error_and_none_with_none() {
        let mut race = Race::new(&[v4(1)], at(0), SOON);
        assert_eq!(race.start(at(0)), Some(v4(1)));
        race.failed(refused());
        assert_eq!(race.into_error().unwrap().to_string(), "connection refused");
        let none = Race::new(&[], at(0), SOON);
        assert!(none.is_lost() && none.into_error().is_none());
    }

    #[test]
    fn running_out_of_descriptors_does_not_run_through_the_other_addresses() {
        let mut race = Race::new(&[v4(1), v4(2), v4(3)], at(0), SOON);
        assert_eq!(race.start(at(0)), Some(v4(1)));
        assert_eq!(race.start(at(250)), Some(v4(2)));
        race.failed_here(rustix::io::Errno::MFILE.into());
        assert_eq!((race.start(at(500)), race.is_lost()), (None, false), "the first may answer");
        race.failed(refused());
        assert!(race.is_lost());
    }

    #[test]
    fn with_little_time_the_head_starts_are_shorter_and_the_last_address_keeps_a_quarter() {
        let mut race = Race::new(&[v4(1), v4(2), v4(3)], at(0), at(400));
        assert_eq!(race.start(at(0)), Some(v4(1)));
        for (millis, address) in [(100, v4(2)), (200, v4(3))] {
            assert_eq!(race.start(at(millis - 1)), None);
            assert_eq!(race.start(at(millis)), Some(address));
        }
        let mut hurried = Race::new(&[v4(1), v4(2)], at(500), at(400));
        assert_eq!(hurried.start(at(500)), Some(v4(1)));
        assert_eq!(hurried.next_at(), Some(at(510)), "the system is not flooded, at any rate");
    }

    #[test]
    fn how_far_it_came_is_said_with_what_failed_before() {
        let mut race = Race::new(&[v4(1), v4(2), v4(3)], at(0), SOON);
        assert_eq!(race.describe(), "no address was tried by the deadline");
        assert_eq!(race.start(at(0)), Some(v4(1)));
        assert_eq!(race.describe(), "no answer by the deadline");
        race.failed(refused());
        assert_eq!(race.start(at(0)), Some(v4(2)));
        let text = "no answer by the deadline; 1 failed before: connection refused";
        assert_eq!(race.describe(), text);
    }

    #[test]
    fn an_address_that_fails_late_makes_way_for_the_next_beside_those_that_run() {
        let mut race = Race::new(&[v4(1), v4(2), v4(3)], at(0), SOON);
        assert_eq!(race.start(at(0)), Some(v4(1)));
        assert_eq!(race.start(at(250)), Some(v4(2)));
        race.failed(refused());
        // Whichever of the two it was: somebody's place is free.
        assert_eq!((race.start(at(260)), race.next_at()), (Some(v4(3)), None));
        assert!(!race.is_due(at(9_000)) && !race.is_lost());
    }

    #[test]
    fn with_nothing_left_on_this_side_only_those_that_run_are_waited_for() {
        let mut race = Race::new(&[v4(1), v4(2), v4(3)], at(0), SOON);
        assert_eq!(race.start(at(0)), Some(v4(1)));
        race.failed_here(rustix::io::Errno::MFILE.into());
        assert!(race.is_lost() && !race.is_due(at(9_000)));
        let error = race.into_error().unwrap();
        assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::MFILE.raw_os_error()));
    }

    #[test]
    fn running_out_of_descriptors_after_another_address_failed_is_a_shortage_all_the_same() {
        use crate::error::{ConnectFailure, Failure, Phase};

        let mut race = Race::new(&[v4(1), v4(2)], at(0), SOON);
        assert_eq!(race.start(at(0)), Some(v4(1)));
        race.failed(refused());
        assert_eq!(race.start(at(0)), Some(v4(2)));
        race.failed_here(rustix::io::Errno::MFILE.into());
        let error = race.into_error().unwrap();
        assert_eq!(Failure::of(&error), Failure::Local);
        let (failure, phase, took) = (Failure::Local, Phase::Connect, Duration::ZERO);
        let failure = ConnectFailure::new(failure, phase, took, error.into());
        assert!(failure.is_shortage, "idle connections of others could make room");
    }

    #[test]
    fn of_several_errors_the_one_that_tells_most_is_passed_on_in_whatever_order_they_come() {
        use io::ErrorKind::{
            AddrNotAvailable, ConnectionRefused, HostUnreachable, InvalidInput, NetworkUnreachable,
            TimedOut,
        };

        let table: &[(&[io::ErrorKind], io::ErrorKind)] = &[
            (&[ConnectionRefused, AddrNotAvailable, NetworkUnreachable], ConnectionRefused),
            (&[TimedOut, HostUnreachable, AddrNotAvailable], TimedOut),
            (&[ConnectionRefused, TimedOut, InvalidInput], ConnectionRefused),
            (&[InvalidInput, NetworkUnreachable, AddrNotAvailable], InvalidInput),
        ];
        for &(kinds, expected) in table {
            for turned in 0..kinds.len() * 2 {
                let mut order = kinds.to_vec();
                order.rotate_left(turned / 2);
                if turned % 2 == 1 {
                    order.reverse();
                }
                let mut race = Race::new(&[v4(1), v4(2), v4(3)], at(0), SOON);
                for &kind in &order {
                    assert!(race.start(at(0)).is_some());
                    race.failed(kind.into());
                }
                assert!(race.is_lost());
                let error = race.into_error().unwrap();
                assert_eq!(error.kind(), expected, "{order:?}");
                assert_eq!(error.to_string(), format!("all 3 addresses failed: {expected}"));
            }
        }
    }

    #[test]
    fn a_shortage_beside_a_silent_address_is_known_until_the_deadline() {
        let mut race = Race::new(&[v4(1), v4(2), v4(3)], at(0), SOON);
        assert_eq!(race.start(at(0)), Some(v4(1)));
        assert_eq!(race.start(at(250)), Some(v4(2)));
        assert!(!race.ran_short());
        race.failed_here(rustix::io::Errno::MFILE.into());
        assert!(race.ran_short() && !race.is_lost());
        race.failed(refused());
        assert!(race.ran_short(), "what else failed does not hide it");
    }
}
