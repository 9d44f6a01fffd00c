//! A pool's tie to its driver, and how long the threads live.

use super::*;
use crate::connector::TcpConnector;
use crate::driver::connects::tests::rig::{News, Orders, silent, to};
use crate::pool::Pool;
use crate::sync::bounded;

const SOON: std::time::Duration = std::time::Duration::from_secs(20);

/// Of a pool that only hears of its connections.
struct Nobody;

impl Ward for Nobody {
    fn noticed(self: Arc<Self>, _: Cut, _: Notice, _: &Crew) {}
    fn look(self: Arc<Self>, _: &Crew) -> Stamp {
        Stamp::MAX
    }
}

fn tie(driver: &Driver, pool: u64) -> Tie {
    tie_of(driver, pool, Weak::new())
}

fn tie_of(driver: &Driver, pool: u64, ward: Weak<Nobody>) -> Tie {
    let threads = driver.threads().unwrap();
    Tie {
        pool,
        portable_watch: false,
        tag: threads.event_loop.watches.admit(Weak::clone(&ward) as Weak<dyn Ward>),
        event_loop: Arc::clone(&threads.event_loop),
        crew: threads.crew.clone(),
        bell: threads.reaper.admit(ward),
        events: None,
        look_ups: LookUps::new("test"),
        resolver: Some(Resolver::system()),
        jobs: Arc::default(),
    }
}

fn abandon(tie: &Tie, token: Token) {
    <Tie as Hands<TcpConnector>>::abandon(tie, token);
}

#[test]
fn threads_start_with_the_first_connect_and_once_for_all_handles() {
    let driver = Driver::named("shared").unwrap();
    let other = driver.clone();
    let says = |driver: &Driver| format!("{driver:?}");
    assert_eq!(says(&driver), "Driver { name: \"shared\", has_started: false }");
    let pool = Pool::builder(TcpConnector::new()).driver(&driver).build().unwrap();
    assert_eq!(says(&driver), "Driver { name: \"shared\", has_started: false }");
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    drop(pool.get(&server.local_addr().unwrap()).unwrap());
    assert_eq!(says(&other), "Driver { name: \"shared\", has_started: true }");
    let threads: Vec<_> =
        [&driver, &other].map(|one| std::ptr::from_ref(one.threads().unwrap())).into();
    assert_eq!(threads[0], threads[1]);
}

#[test]
fn a_pool_that_lets_go_of_its_driver_is_watched_and_looked_after_no_more() {
    let driver = Driver::new();
    let threads = driver.threads().unwrap();
    let (one, other) = (Arc::new(Nobody), Arc::new(Nobody));
    let ties =
        [tie_of(&driver, 1, Arc::downgrade(&one)), tie_of(&driver, 2, Arc::downgrade(&other))];
    let tags = ties.each_ref().map(|tie| tie.tag.unwrap());
    let is_known = |tag| threads.event_loop.watches.ward(tag).is_some();
    assert_eq!(tags.map(is_known), [true, true]);
    let [first, second] = ties;
    drop(second);
    assert_eq!(tags.map(is_known), [true, false]);
    drop(first);
    assert_eq!(tags.map(is_known), [false, false]);
}

#[test]
fn an_attempt_whose_next_stage_has_begun_is_abandoned_with_the_thread_that_has_it_now() {
    let driver = Driver::new();
    let tie = Arc::new(tie(&driver, 7));
    let (kind, token) = (Kind::Open(0), Token::default());
    let (hangs, is_hanging) = bounded(1);
    let (gate, gated) = bounded::<()>(0);
    let (ends, has_ended) = bounded(1);
    tie.submit_attempt(token, kind, {
        let tie = Arc::clone(&tie);
        move |_| {
            tie.submit_attempt(token, kind, move |_| {
                hangs.send(()).unwrap();
                let _closed = gated.recv();
            });
            // The first stage ends while another thread has the second.
            is_hanging.recv_timeout(SOON).unwrap();
            ends.send(()).unwrap();
        }
    });
    has_ended.recv_timeout(SOON).unwrap();
    // Until the crew has written off the first: the second alone is left.
    let crew = &driver.threads().unwrap().crew;
    assert!(!tie.await_crew(Deadline::after(std::time::Duration::from_millis(20))));
    abandon(&tie, token);
    assert!(tie.await_crew(Deadline::after(SOON)), "a thread that hangs counts no more");
    assert!(tie.jobs.lock().is_empty());
    drop(gate);
    assert!(crew.await_pool(7, Deadline::after(SOON)));
}

#[test]
fn an_attempt_that_has_ended_cannot_be_abandoned() {
    let driver = Driver::new();
    let tie = tie(&driver, 7);
    tie.submit_attempt(Token::default(), Kind::Open(0), |_| {});
    assert!(tie.await_crew(Deadline::after(SOON)));
    assert!(tie.jobs.lock().is_empty());
    abandon(&tie, Token::default());
    tie.submit_attempt(Token::default(), Kind::Open(0), |_| {});
    assert!(tie.await_crew(Deadline::after(SOON)), "the count of threads is right");
}

#[test]
fn an_attempt_is_called_off_for_its_own_pool_and_for_no_other() {
    let driver = Driver::new();
    let ties = [tie(&driver, 1), tie(&driver, 2)];
    let mut orders = Orders::new();
    let (_full, hole) = silent();
    // Both pools have an attempt under the same token.
    let order = orders.make(to(&[hole]));
    let token = order.key.1;
    assert_eq!(order.key.0, 1);
    ties[0].order(order);
    assert!(matches!(orders.next_of((1, token)), News::Begun));
    <Tie as Hands<TcpConnector>>::cancel(&ties[1], token);
    <Tie as Hands<TcpConnector>>::cancel(&ties[0], Token::default());
    let fence = orders.make(to(&[hole]));
    let key = fence.key;
    ties[0].order(fence);
    assert!(matches!(orders.next_of(key), News::Begun), "the first goes on");
    <Tie as Hands<TcpConnector>>::cancel(&ties[0], token);
    assert!(matches!(orders.next_of((1, token)), News::Delivered(_)));
}

#[test]
fn when_the_last_handle_goes_orders_under_way_fail_and_the_threads_end() {
    let driver = Driver::new();
    let other = driver.clone();
    let tie = tie(&driver, 1);
    let mut orders = Orders::new();
    let (_full, hole) = silent();
    let order = orders.make(to(&[hole]));
    let key = order.key;
    tie.order(order);
    assert!(matches!(orders.next_of(key), News::Begun));
    drop(driver);
    assert!(orders.news.is_empty(), "there is another handle");
    drop(other);
    assert!(matches!(orders.news.try_recv(), Ok((of, News::Dropped)) if of == key));
    // What comes after the end is refused, on the thread that asks.
    let (refused, fates) = bounded(1);
    tie.submit_attempt(Token::default(), Kind::Upkeep, move |fate| refused.send(fate).unwrap());
    assert_eq!(fates.try_recv(), Ok(Fate::Refused));
    assert!(tie.jobs.lock().is_empty());
}
