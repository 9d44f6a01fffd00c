use super::*;

struct Nobody;

impl Ward for Nobody {
    fn noticed(self: Arc<Self>, _: Cut, _: Notice, _: &Crew) {}
    fn look(self: Arc<Self>, _: &Crew) -> Stamp {
        Stamp::MAX
    }
}

fn watches() -> Watches {
    let poll = mio::Poll::new().unwrap();
    Watches::new(Arc::new(poll.registry().try_clone().unwrap()), Arc::default())
}

fn weak(ward: &Arc<Nobody>) -> Weak<dyn Ward> {
    let weak: Weak<Nobody> = Arc::downgrade(ward);
    weak
}

#[test]
fn a_tag_that_came_free_is_the_last_to_be_given_again() {
    let (watches, ward) = (watches(), Arc::new(Nobody));
    let admit = || watches.admit(weak(&ward));
    assert_eq!([admit(), admit()], [Some(1), Some(2)]);
    watches.dismiss(1);
    // A late event for the pool that is gone finds nobody, and not the next pool.
    assert!(watches.ward(1).is_none() && watches.ward(2).is_some());
    assert_eq!(admit(), Some(3));
    for tag in 4..=LAST_TAG {
        watches.dismiss(tag - 1);
        assert_eq!(admit(), Some(tag));
    }
    assert_eq!(admit(), Some(1), "round and round");
    assert_eq!(admit(), Some(3), "past one that has its pool still");
}

#[test]
fn no_two_pools_have_one_tag_and_none_has_a_tag_of_the_loop() {
    let (watches, ward) = (watches(), Arc::new(Nobody));
    let admit = || watches.admit(weak(&ward));
    let tags: Vec<u16> = std::iter::from_fn(admit).collect();
    let once: std::collections::BTreeSet<u16> = tags.iter().copied().collect();
    assert_eq!((once.len(), tags.len()), (usize::from(LAST_TAG), usize::from(LAST_TAG)));
    for own in [crate::driver::connects::TAG, Token::MOST_TAG] {
        assert!(!once.contains(&own), "{own}");
    }
    assert_eq!(admit(), None, "there are too many pools");
    watches.dismiss(77);
    assert_eq!((admit(), admit()), (Some(77), None));
}

#[test]
fn a_tag_leads_to_its_own_pool_as_long_as_that_lives() {
    let watches = watches();
    let (one, other) = (Arc::new(Nobody), Arc::new(Nobody));
    let tags = [watches.admit(weak(&one)).unwrap(), watches.admit(weak(&other)).unwrap()];
    let is_pool = |tag, pool: &Arc<Nobody>| {
        watches
            .ward(tag)
            .is_some_and(|ward| std::ptr::addr_eq(Arc::as_ptr(&ward), Arc::as_ptr(pool)))
    };
    assert!(is_pool(tags[0], &one) && is_pool(tags[1], &other));
    drop(one);
    assert!(watches.ward(tags[0]).is_none());
    assert!(is_pool(tags[1], &other));
}

#[test]
fn what_cannot_be_watched_is_looked_at_before_reuse_only() {
    let watches = watches();
    let token = Token::default();
    assert_eq!(
        watches.watch(1, (1, token), Watch::Nothing, How { portably: false, since: Since::Opened }),
        Watched::No
    );
    // No poll takes the descriptor of a file.
    let file = std::fs::File::open(file!()).or_else(|_| std::fs::File::open("/proc/self/exe"));
    let file = file.unwrap();
    for portably in [false, true] {
        let fd = Watch::Socket(std::os::fd::AsFd::as_fd(&file));
        assert_eq!(
            watches.watch(1, (1, token), fd, How { portably, since: Since::Opened }),
            Watched::No
        );
        watches.unwatch((1, token), fd); // harmless
    }
}
