//! What is remembered and for how long, who is told, and that it stays bounded. No thread looks
//! anything up: an answer is whatever the test says has come.

mod look_ups;

use super::*;
use crate::error::BoxError;

const TIMES: Times = Times {
    ttl: Duration::from_secs(60),
    negative_ttl: Duration::from_secs(1),
    stale_for: Duration::from_secs(600),
};

const START: Stamp = Stamp::from_millis(1_000_000);

fn at(seconds: u64) -> Stamp {
    START.plus(Duration::from_secs(seconds))
}

fn just_before(seconds: u64) -> Stamp {
    Stamp::from_millis(1_000_000 + seconds * 1_000 - 1)
}

fn addr(last: u8) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, last], 0))
}

fn answer(last: u8) -> Resolved {
    Resolved::new([addr(last)])
}

fn failure(text: &str) -> Arc<Cause> {
    Arc::new(Cause::of(BoxError::from(text)))
}

/// What became known: the last part of the only address, or what the failure says.
fn read(outcome: &Outcome) -> Result<u8, String> {
    match outcome {
        Ok(addrs) => match addrs[0].ip() {
            std::net::IpAddr::V4(ip) => Ok(ip.octets()[3]),
            std::net::IpAddr::V6(_) => panic!("no test answers that"),
        },
        Err(cause) => Err(cause.error.to_string()),
    }
}

/// A cache, and the number of the look-up that is under way, if one is.
struct World {
    cache: Cache<u32, &'static str>,
    flight: Option<u64>,
}

impl World {
    fn new() -> Self {
        Self { cache: Cache::new(), flight: None }
    }

    /// One that has learned an answer at the start.
    fn knowing(last: u8) -> Self {
        let mut world = Self::new();
        assert_eq!(world.find(START), None);
        world.answered(answer(last), START);
        world
    }

    /// Asks for the name; a look-up that is to begin, does.
    fn find(&mut self, now: Stamp) -> Option<Result<u8, String>> {
        let found = self.cache.find("db", now);
        self.begin(found.look_up);
        found.outcome.as_ref().map(read)
    }

    fn begin(&mut self, look_up: Option<LookUp>) -> bool {
        let number = look_up.map(|look_up| look_up.number);
        self.flight = number.or(self.flight);
        number.is_some()
    }

    /// Asks for it; true if that begins a look-up.
    fn begins(&mut self, now: Stamp) -> bool {
        let before = self.flight;
        self.find(now);
        self.flight != before
    }

    /// Asks for it and waits.
    fn wait(&mut self, key: u32, now: Stamp) {
        assert_eq!(self.find(now), None);
        self.cache.wait("db", key, "waits").unwrap();
    }

    /// Nothing has answered there; true if that begins a look-up.
    fn doubts(&mut self, now: Stamp) -> bool {
        let look_up = self.cache.doubt("db", TIMES, now);
        self.begin(look_up)
    }

    /// A thread takes the look-up that is under way; false if it is not needed.
    fn takes_up(&mut self, now: Stamp) -> bool {
        let number = self.flight.expect("a look-up is under way");
        self.cache.take_up("db", number, now)
    }

    fn ends(&mut self, result: Result<Resolved, Arc<Cause>>, now: Stamp) -> Vec<u32> {
        let number = self.flight.take().expect("a look-up is under way");
        let (told, _) = self.cache.finish(("db", number), result, TIMES, now).unwrap();
        told.into_iter().map(|(key, _)| key).collect()
    }

    fn answered(&mut self, answer: Resolved, now: Stamp) -> Vec<u32> {
        self.ends(Ok(answer), now)
    }

    fn fails(&mut self, text: &str, now: Stamp) -> Vec<u32> {
        self.ends(Err(failure(text)), now)
    }
}

// ---- answers

#[test]
fn an_answer_is_used_for_its_time_and_nothing_is_looked_up_meanwhile() {
    let mut world = World::knowing(1);
    for now in [START, at(30), just_before(60)] {
        assert_eq!(world.find(now), Some(Ok(1)));
    }
    assert_eq!(world.flight, None);
}

#[test]
fn a_stale_answer_is_used_at_once_and_looked_up_again_by_the_first_who_does() {
    let mut world = World::knowing(1);
    assert_eq!(world.find(at(60)), Some(Ok(1)));
    assert!(world.flight.is_some());
    for _ in 0..3 {
        assert!(!world.begins(at(61)), "one is under way");
        assert_eq!(world.find(at(61)), Some(Ok(1)));
    }
    world.answered(answer(2), at(62));
    assert_eq!(world.find(at(62)), Some(Ok(2)));
    assert!(!world.begins(just_before(122)) && world.begins(at(122)));
}

#[test]
fn what_is_too_old_even_for_that_is_waited_for() {
    let mut world = World::knowing(1);
    assert_eq!(world.find(just_before(660)), Some(Ok(1)));
    let mut world = World::knowing(1);
    assert_eq!(world.find(at(660)), None);
    assert!(world.flight.is_some());
}

#[test]
fn an_answer_that_says_how_long_it_holds_is_used_for_so_long() {
    let mut world = World::new();
    world.find(START);
    world.answered(answer(1).ttl(Duration::from_secs(5)), START);
    assert!(!world.begins(just_before(5)) && world.begins(at(5)));
}

#[test]
fn an_answer_that_does_not_hold_at_all_is_looked_up_again_by_each_who_asks_and_used() {
    let mut world = World::new();
    world.find(START);
    world.answered(answer(1).ttl(Duration::ZERO), START);
    assert_eq!(world.find(START), Some(Ok(1)));
    assert!(world.flight.is_some());
}

#[test]
fn names_are_apart() {
    let mut world = World::knowing(1);
    let other = world.cache.find("other", START);
    assert!(other.outcome.is_none() && other.look_up.is_some());
    assert_eq!(world.cache.len(), 2);
}

// ---- failures

#[test]
fn a_failure_is_remembered_for_its_time_and_nothing_is_looked_up_meanwhile() {
    let mut world = World::new();
    world.find(START);
    world.fails("no such name", START);
    for now in [START, just_before(1)] {
        assert_eq!(world.find(now), Some(Err("no such name".into())));
    }
    assert_eq!(world.flight, None);
    assert_eq!(world.find(at(1)), None, "it is asked again");
    assert!(world.flight.is_some());
}

#[test]
fn who_has_an_old_answer_goes_on_with_it_when_the_name_servers_fail() {
    let mut world = World::knowing(1);
    world.find(at(60));
    let number = world.flight.take().unwrap();
    let told = world.cache.finish(("db", number), Err(failure("down")), TIMES, at(61)).unwrap();
    assert_eq!(read(&told.1), Ok(1));
    assert_eq!(world.find(at(61)), Some(Ok(1)));
    assert!(!world.begins(just_before(62)), "not asked again at once");
    assert!(world.begins(at(62)));
    world.fails("down", at(659));
    assert_eq!(world.find(at(659)), Some(Ok(1)));
    world.find(at(660));
    world.fails("down", at(660));
    assert_eq!(world.find(at(660)), Some(Err("down".into())), "it has become too old");
}

#[test]
fn what_this_side_ran_out_of_is_told_to_those_who_wait_and_not_remembered() {
    let mut world = World::new();
    assert_eq!(world.find(START), None);
    world.cache.wait("db", 1, "waits").unwrap();
    let local = Arc::new(Cause::local("no thread came free"));
    assert_eq!(world.ends(Err(local), START), [1]);
    assert_eq!(world.find(START), None);
    assert!(world.flight.is_some(), "it is asked again at once");
}

#[test]
fn an_answer_ends_the_memory_of_a_failure() {
    let mut world = World::new();
    world.find(START);
    world.fails("no such name", START);
    world.find(at(1));
    world.answered(answer(1), at(1));
    assert_eq!(world.find(at(1)), Some(Ok(1)));
    assert_eq!(world.cache.take_forgotten().len(), 1, "to be dropped by whoever asked");
}

// ---- doubt

#[test]
fn an_answer_where_nothing_answers_is_looked_up_at_once_and_used_until_that_has_ended() {
    let mut world = World::knowing(1);
    assert!(world.doubts(at(1)) && world.takes_up(at(1)), "though nobody waits for it");
    assert_eq!(world.find(at(2)), Some(Ok(1)));
    assert!(world.answered(answer(2), at(3)).is_empty());
    assert_eq!(world.find(at(3)), Some(Ok(2)));
}

#[test]
fn but_not_if_it_was_learned_a_moment_ago() {
    let mut world = World::knowing(1);
    assert!(!world.doubts(START) && !world.doubts(just_before(1)));
    assert_eq!(world.find(just_before(1)), Some(Ok(1)));
    assert_eq!(world.flight, None);
    assert!(world.doubts(at(1)));
}

#[test]
fn nor_while_it_is_looked_up_already() {
    let mut world = World::knowing(1);
    assert!(world.doubts(at(1)) && !world.doubts(at(2)), "in the queue");
    assert!(world.takes_up(at(20)) && !world.doubts(just_before(25)), "with a thread");
    world.answered(answer(1), at(25));
    world.find(at(85));
    assert!(!world.doubts(at(86)), "it had grown stale");
}

#[test]
fn nor_while_a_failure_is_remembered_and_the_doubted_answer_is_better_than_none() {
    let mut world = World::knowing(1);
    assert!(world.doubts(at(1)));
    world.fails("down", at(2));
    assert_eq!(world.find(at(2)), Some(Ok(1)));
    assert!(!world.doubts(just_before(3)));
    assert_eq!((world.find(just_before(3)), world.flight), (Some(Ok(1)), None));
    assert!(world.doubts(at(3)));
}

#[test]
fn a_doubted_answer_is_used_on_while_the_name_servers_hang() {
    let mut world = World::knowing(1);
    assert!(world.doubts(at(1)) && world.takes_up(at(1)));
    for now in [at(2), at(59), at(60), just_before(660)] {
        assert_eq!(world.find(now), Some(Ok(1)));
    }
    assert_eq!(world.find(at(660)), None, "it has become too old");
}

#[test]
fn doubt_replaces_a_look_up_that_hangs() {
    let mut world = World::knowing(1);
    assert!(world.doubts(at(1)) && world.takes_up(at(1)));
    assert!(!world.doubts(just_before(6)) && world.doubts(at(6)));
    assert!(!world.doubts(at(100)), "that one has not even begun");
}

#[test]
fn doubt_about_a_name_that_is_not_known_does_no_harm() {
    let mut world = World::new();
    assert!(!world.doubts(START));
    assert_eq!(world.cache.len(), 0);
    world.find(START);
    assert!(!world.doubts(START), "its first answer is to come");
    world.answered(answer(1), START);
    assert_eq!(world.find(START), Some(Ok(1)));
}

// ---- forgetting

#[test]
fn all_can_be_forgotten_and_who_waits_waits_on() {
    let mut world = World::knowing(1);
    world.cache.find("other", START);
    world.cache.wait("other", 1, "waits").unwrap();
    world.cache.find("failed", START);
    let failed = Err(failure("no such name"));
    assert!(world.cache.finish(("failed", 3), failed, TIMES, START).is_some());
    world.cache.clear();
    assert_eq!(world.cache.take_forgotten().len(), 1);
    assert_eq!(world.cache.len(), 1, "the one that is being looked up");
    assert_eq!(world.find(START), None);
    let (told, _) = world.cache.finish(("other", 2), Ok(answer(2)), TIMES, START).unwrap();
    assert_eq!(told, [(1, "waits")]);
}

#[test]
fn what_was_begun_before_that_serves_who_waits_and_is_not_remembered() {
    for brings_one in [true, false] {
        let mut world = World::new();
        world.wait(1, START);
        assert!(world.takes_up(START));
        world.cache.clear();
        assert!(!world.begins(at(1)), "one is under way");
        world.cache.wait("db", 2, "waits").unwrap();
        let result = if brings_one { Ok(answer(1)) } else { Err(failure("down")) };
        assert_eq!(world.ends(result, at(2)), [1, 2]);
        assert_eq!(world.cache.len(), 0);
        assert!(world.begins(at(2)), "it is asked again at once");
    }
}

#[test]
fn nor_is_what_hung_before_that_remembered_when_it_comes() {
    let mut world = World::new();
    world.wait(1, START);
    assert!(world.takes_up(START));
    let hung = world.flight.unwrap();
    world.cache.clear();
    assert!(world.begins(at(5)));
    assert!(world.cache.finish(("db", hung), Ok(answer(1)), TIMES, at(6)).is_none());
    assert_eq!(world.find(at(6)), None, "the younger one goes on");
    assert_eq!(world.answered(answer(2), at(7)), [1]);
    assert_eq!(world.find(at(7)), Some(Ok(2)));
}

/// Asks for so many names, none of which was asked for before; each is answered if `is_answered`.
fn ask_many(cache: &mut Cache<u32, &str>, names: u32, is_answered: bool, now: Stamp) {
    for at in 0..names {
        let name = format!("name-{at}-of-{}", now.as_nanos());
        let number = cache.find(&name, now).look_up.expect("it is not known").number;
        let result = if is_answered { Ok(answer(1)) } else { Err(failure("no such name")) };
        assert!(cache.finish((&name, number), result, TIMES, now).is_some());
    }
}

#[test]
fn no_more_names_are_remembered_than_that_whatever_is_asked_for() {
    for is_answered in [true, false] {
        let mut cache = Cache::new();
        for second in 0..5 {
            ask_many(&mut cache, 3_000, is_answered, at(second));
            assert!(cache.len() <= MOST_NAMES, "{}", cache.len());
            cache.take_forgotten();
        }
    }
}

#[test]
fn those_go_first_whose_time_is_nearest() {
    let mut cache = Cache::new();
    ask_many(&mut cache, 600, true, START);
    ask_many(&mut cache, 400, true, at(10));
    ask_many(&mut cache, 30, true, at(20));
    let young = |at: u32, second: u64| format!("name-{at}-of-{}", self::at(second).as_nanos());
    for at in 0..400 {
        let found = cache.find(&young(at, 10), self::at(20));
        assert!(found.outcome.is_some(), "{at} was forgotten, and older ones were there");
    }
    assert!(cache.len() < 600);
}

#[test]
fn what_is_of_no_use_any_more_makes_room_before_what_is() {
    let mut cache = Cache::new();
    ask_many(&mut cache, 300, false, START);
    ask_many(&mut cache, 724, true, just_before(1));
    ask_many(&mut cache, 1, true, at(1));
    assert_eq!(cache.len(), 725);
}

#[test]
fn names_that_are_being_looked_up_are_kept_whatever_else_is_asked_for() {
    let mut cache = Cache::new();
    let number = cache.find("db", START).look_up.unwrap().number;
    cache.wait("db", 1, "waits").unwrap();
    ask_many(&mut cache, 5_000, true, START);
    let (told, _) = cache.finish(("db", number), Ok(answer(1)), TIMES, START).unwrap();
    assert_eq!(told, [(1, "waits")]);
}

#[test]
fn so_are_all_if_all_are_being_looked_up() {
    let mut cache = Cache::new();
    let many = 2 * MOST_NAMES as u32;
    for key in 0..many {
        assert!(cache.find(&key.to_string(), START).look_up.is_some());
        cache.wait(&key.to_string(), key, "waits").unwrap();
    }
    for key in 0..many {
        let number = u64::from(key) + 1;
        let told = cache.finish((&key.to_string(), number), Ok(answer(1)), TIMES, START);
        assert_eq!(told.unwrap().0, [(key, "waits")]);
    }
    ask_many(&mut cache, 1, true, START);
    assert!(cache.len() <= MOST_NAMES, "once they have ended, no more than that");
}
