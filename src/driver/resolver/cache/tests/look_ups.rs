//! Who waits for a look-up, whether a thread need take it, and what becomes of one that hangs.

use super::*;

// ---- those who wait

#[test]
fn all_who_wait_are_told_once() {
    let mut world = World::new();
    (1..=3).for_each(|key| world.wait(key, START));
    assert_eq!(world.answered(answer(1), at(1)), [1, 2, 3]);
    world.find(at(61));
    assert!(world.answered(answer(1), at(61)).is_empty());
}

#[test]
fn with_nothing_under_way_there_is_nothing_to_wait_for() {
    let mut world = World::knowing(1);
    assert_eq!(world.cache.wait("db", 1, "waits"), Err("waits"));
    assert_eq!(world.cache.wait("other", 1, "waits"), Err("waits"));
}

/// Who withdrew, and the look-up that is not needed any more.
fn withdrawn(world: &mut World, key: u32) -> Option<(&'static str, Option<u64>)> {
    let (waiter, look_up) = world.cache.withdraw(&key, START)?;
    Some((waiter, look_up.map(|look_up| look_up.number)))
}

#[test]
fn who_withdraws_is_given_back_and_told_nothing() {
    let mut world = World::new();
    world.find(START);
    world.cache.wait("db", 1, "one").unwrap();
    world.cache.wait("db", 2, "two").unwrap();
    assert_eq!(withdrawn(&mut world, 1), Some(("one", None)));
    assert_eq!(withdrawn(&mut world, 1), None);
    assert_eq!(world.answered(answer(1), START), [2]);
    assert_eq!(withdrawn(&mut world, 2), None);
}

#[test]
fn with_the_last_who_withdraws_the_look_up_is_and_the_name_is_forgotten() {
    let mut world = World::new();
    (1..=2).for_each(|key| world.wait(key, START));
    assert_eq!(withdrawn(&mut world, 1), Some(("waits", None)));
    assert_eq!(withdrawn(&mut world, 2), Some(("waits", world.flight)));
    assert_eq!(world.cache.len(), 0);
    comes_to_nothing(world);
}

/// The look-up under way was called off: whoever asks next begins another, and hears nothing of
/// the end of the first.
fn comes_to_nothing(mut world: World) {
    let first = world.flight.unwrap();
    assert!(world.begins(START));
    world.cache.wait("db", 3, "waits").unwrap();
    assert!(!world.cache.take_up("db", first, START));
    let end = Err(Arc::new(Cause::local("nobody waited for it any more")));
    assert!(world.cache.finish(("db", first), end, TIMES, START).is_none());
    assert_eq!(world.answered(answer(1), at(1)), [3]);
}

#[test]
fn the_mark_that_comes_back_is_that_of_the_job() {
    let mut cache = Cache::<u32, &str>::new();
    let begun = cache.find("db", START).look_up.unwrap();
    cache.wait("db", 1, "waits").unwrap();
    let (_, withdrawn) = cache.withdraw(&1, START).unwrap();
    assert!(Arc::ptr_eq(&begun.mark, &withdrawn.unwrap().mark));
}

#[test]
fn a_look_up_that_a_thread_has_goes_on_when_the_last_withdraws_and_is_remembered() {
    let mut world = World::new();
    world.wait(1, START);
    assert!(world.takes_up(START));
    assert_eq!(withdrawn(&mut world, 1), Some(("waits", None)));
    assert!(world.answered(answer(1), at(1)).is_empty());
    assert_eq!(world.find(at(1)), Some(Ok(1)));
}

// ---- those that a thread need not take

#[test]
fn a_look_up_that_nobody_waits_for_is_not_taken_up() {
    let mut world = World::new();
    world.find(START);
    assert!(!world.takes_up(START));
    assert_eq!(world.cache.len(), 0);
    comes_to_nothing(world);
}

#[test]
fn one_that_renews_an_answer_is_taken_up_though_nobody_waits() {
    let mut world = World::knowing(1);
    assert!(world.begins(at(60)) && world.takes_up(at(60)));
}

#[test]
fn one_whose_answer_has_been_forgotten_meanwhile_is_not() {
    let mut world = World::knowing(1);
    assert!(world.begins(at(60)));
    world.cache.clear();
    assert!(!world.takes_up(at(60)));
}

#[test]
fn one_that_another_has_followed_or_whose_name_is_unknown_is_not() {
    let mut world = World::new();
    world.wait(1, START);
    assert!(world.takes_up(START));
    let first = world.flight.unwrap();
    assert!(world.begins(at(5)));
    assert!(!world.cache.take_up("db", first, at(5)) && world.takes_up(at(5)));
    assert!(!world.cache.take_up("other", first, at(5)));
}

// ---- those that hang

#[test]
fn a_look_up_that_hangs_is_begun_again_by_the_next_who_asks_after_five_seconds() {
    let mut world = World::new();
    world.wait(1, START);
    assert!(world.takes_up(START));
    assert!(!world.begins(just_before(5)));
    assert!(world.begins(at(5)) && world.takes_up(at(5)));
    world.wait(2, at(5));
    assert!(!world.begins(just_before(10)), "counted from when the second began");
    assert_eq!(world.answered(answer(1), at(6)), [1, 2], "the first did not wait in vain");
}

#[test]
fn one_that_waits_for_a_thread_does_not_hang_however_long_that_takes() {
    let mut world = World::new();
    world.wait(1, START);
    assert!(!world.begins(at(100)));
    assert!(world.takes_up(at(100)));
    assert!(!world.begins(just_before(105)), "counted from when a thread took it");
    assert!(world.begins(at(105)));
}

#[test]
fn the_late_answer_of_one_that_hung_is_used_and_its_late_failure_is_not() {
    for brings_one in [true, false] {
        let mut world = World::new();
        world.wait(1, START);
        assert!(world.takes_up(START));
        let hung = world.flight.unwrap();
        assert!(world.begins(at(5)));
        let result = if brings_one { Ok(answer(1)) } else { Err(failure("late")) };
        let told = world.cache.finish(("db", hung), result, TIMES, at(6));
        assert_eq!(told.is_some(), brings_one);
        if brings_one {
            assert_eq!(told.unwrap().0, [(1, "waits")]);
            assert_eq!(world.find(at(6)), Some(Ok(1)));
            assert!(world.answered(answer(2), at(7)).is_empty());
            assert_eq!(world.find(at(7)), Some(Ok(2)), "the newer one counts in the end");
        } else {
            assert_eq!(world.cache.take_forgotten().len(), 1);
            assert_eq!(world.find(at(6)), None, "the second goes on");
            assert_eq!(world.answered(answer(2), at(7)), [1]);
        }
    }
}

#[test]
fn the_late_answer_of_one_that_hung_does_not_replace_what_a_younger_one_has_brought() {
    let mut world = World::new();
    world.wait(1, START);
    assert!(world.takes_up(START));
    let hung = world.flight.unwrap();
    assert!(world.begins(at(5)));
    assert_eq!(world.answered(answer(2), at(6)), [1]);
    assert!(world.cache.finish(("db", hung), Ok(answer(1)), TIMES, at(7)).is_none());
    assert_eq!(world.find(at(7)), Some(Ok(2)));
    assert!(!world.begins(just_before(66)) && world.begins(at(66)), "nor its time");
    assert!(world.cache.finish(("db", hung), Ok(answer(1)), TIMES, at(67)).is_none());
    assert_eq!(world.find(at(67)), Some(Ok(2)), "nor while that is renewed");
}

#[test]
fn but_it_does_if_the_younger_one_has_failed() {
    let mut world = World::new();
    world.wait(1, START);
    assert!(world.takes_up(START));
    let hung = world.flight.unwrap();
    assert!(world.begins(at(5)));
    assert_eq!(world.fails("down", at(6)), [1]);
    let (told, _) = world.cache.finish(("db", hung), Ok(answer(1)), TIMES, at(6)).unwrap();
    assert!(told.is_empty());
    assert_eq!(world.find(at(6)), Some(Ok(1)));
    assert_eq!(world.cache.take_forgotten().len(), 1);
}

#[test]
fn what_comes_for_a_name_that_is_forgotten_is_of_no_use() {
    let mut cache = Cache::<u32, &str>::new();
    assert!(cache.finish(("db", 1), Ok(answer(1)), TIMES, START).is_none());
    assert_eq!(cache.len(), 0);
}

#[test]
fn an_answer_past_its_time_is_no_reason_to_look_up_what_nobody_waits_for() {
    let mut cache = Cache::<u32, &str>::new();
    let first = cache.find("db", START).look_up.unwrap().number;
    cache.wait("db", 1, "waits").unwrap();
    assert!(cache.take_up("db", first, START));
    assert!(cache.finish(("db", first), Ok(answer(1)), TIMES, START).is_some());
    let late = START.plus(TIMES.ttl + TIMES.stale_for);
    let again = cache.find("db", late);
    assert!(again.outcome.is_none());
    cache.wait("db", 7, "waits").unwrap();
    let (_, withdrawn) = cache.withdraw(&7, late).unwrap();
    let number = again.look_up.unwrap().number;
    assert_eq!(withdrawn.map(|look_up| look_up.number), Some(number));
    assert!(!cache.take_up("db", number, late));
    assert_eq!(cache.len(), 0, "and nothing is left to remember");
}
