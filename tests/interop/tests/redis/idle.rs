//! Idle connections: what a server closes for its own reasons, and how it is found out.

use std::time::Duration;

use interop::redis::Redis;
use interop::resp::Resp;
use interop::servers;
use interop::support::{SOON, assert_balanced, eventually, watchdog};
use warmline::{CloseReason, Endpoint, Stats};

use crate::clients::{Client, ask, endpoint};

crate::with_both_clients! {
    the_time_out_of_a_server_is_learned_and_no_user_meets_it,
    connections_killed_while_idle_are_gone_before_anybody_has_them,
}

/// Waits for the middle of a second of the server's clock, which its time-outs are counted by.
fn await_next_second<C: Client>(clock: &Endpoint<C>, last: &mut u64) {
    eventually("the server's time goes on", || {
        let time = ask::<C>(&mut clock.get().unwrap(), "TIME").unwrap();
        let (second, micros) = time.split_once(' ').unwrap();
        let second = second.parse().unwrap();
        let is_next = second > *last && micros.parse::<u64>().unwrap() >= 400_000;
        *last = if is_next { second } else { *last };
        is_next
    });
}

fn the_time_out_of_a_server_is_learned_and_no_user_meets_it<C: Client>() {
    let _watchdog = watchdog();
    // It counts whole seconds, and looks at a few connections a hundred times in each.
    let Some(redis) = servers::redis(&["--timeout", "2", "--hz", "100"]) else { return };
    let clock = endpoint::<C>(redis.address(), |it| it);
    let endpoint = endpoint::<C>(redis.address(), |it| it.max_idle_per_endpoint(32));
    assert_eq!(endpoint.stats().idle_limit(), None);
    let mut second = 0;
    // Once will do, unless the machine is so busy that they end some sooner, some later.
    for _ in 0..9 {
        endpoint.warm(24, SOON).unwrap();
        // Fewer in every second: four of them grow old at a time.
        for count in [24, 20, 16, 12, 8] {
            await_next_second(&clock, &mut second);
            let mut held: Vec<_> = (0..count).map(|_| endpoint.get().unwrap()).collect();
            for conn in &mut held {
                assert_eq!(ask::<C>(conn, "PING").unwrap(), "PONG");
            }
        }
        eventually("all have ended", || endpoint.stats().idle() == 0);
        // One more, for who can be connected to has not gone down.
        assert_eq!(ask::<C>(&mut endpoint.get().unwrap(), "PING").unwrap(), "PONG");
        if endpoint.stats().idle_limit().is_some() {
            break;
        }
    }
    let learned = endpoint.stats().idle_limit().expect("it has seen enough");
    assert!(learned <= Duration::from_secs(3), "{learned:?}");
    // From now on the pool closes them before the server does.
    await_next_second(&clock, &mut second);
    let before = endpoint.stats();
    assert_eq!(endpoint.warm(6, SOON).unwrap(), 6);
    eventually("they have ended", || endpoint.stats().idle() == 0);
    let after = endpoint.stats();
    let by_us = |stats: &Stats| stats.closed_for(CloseReason::IdleTimeout);
    assert!(by_us(&after) > by_us(&before), "{after}");
    assert_balanced(&after);
}

fn connections_killed_while_idle_are_gone_before_anybody_has_them<C: Client>() {
    let _watchdog = watchdog();
    let Some(redis) = servers::redis(&[]) else { return };
    let endpoint = endpoint::<C>(redis.address(), |it| it);
    assert_eq!(endpoint.warm(6, SOON).unwrap(), 6);
    let killed = ask::<C>(&mut endpoint.get().unwrap(), "CLIENT KILL TYPE normal SKIPME yes");
    assert_eq!(killed.unwrap(), "5");
    // The one that asked may be handed out again, and is.
    eventually("the others are gone", || endpoint.stats().total() == 1);
    assert_eq!(endpoint.stats().closed_for(CloseReason::PeerClosed), 5);
    for _ in 0..20 {
        assert_eq!(ask::<C>(&mut endpoint.get().unwrap(), "PING").unwrap(), "PONG");
    }
    assert_eq!(endpoint.stats().opened(), 6);
}

#[test]
fn heartbeats_find_a_server_that_hangs_and_no_user_has_its_connections() {
    let _watchdog = watchdog();
    let Some(redis) = servers::redis(&[]) else { return };
    let brief = Duration::from_millis(100);
    let endpoint =
        endpoint::<Resp>(redis.address(), |it| it.check_interval(brief).check_timeout(brief));
    let admin = self::endpoint::<Resp>(redis.address(), |it| it.check_interval(None));
    assert_eq!(endpoint.warm(3, SOON).unwrap(), 3);
    eventually("they are asked, and answer", || endpoint.stats().checks() >= 6);
    assert_eq!(endpoint.stats().closed(), 0);
    // It goes on to accept, and answers nobody for a while.
    ask::<Resp>(&mut admin.get().unwrap(), "CLIENT PAUSE 2000").unwrap();
    let failed = || endpoint.stats().closed_for(CloseReason::TooLate);
    eventually("all three are found out", || failed() == 3);
    let ping = || ask::<Resp>(&mut *endpoint.get()?, "PING");
    eventually("it answers again", || ping().is_ok_and(|answer| answer == "PONG"));
}

#[test]
fn checks_of_the_crates_connections_leave_them_as_they_were() {
    let _watchdog = watchdog();
    let Some(redis) = servers::redis(&[]) else { return };
    let interval = Duration::from_millis(20);
    let endpoint = endpoint::<Redis>(redis.address(), |it| {
        it.check_interval(interval).check_after(Duration::ZERO)
    });
    let id = ask::<Redis>(&mut endpoint.get().unwrap(), "CLIENT ID").unwrap();
    eventually("it is asked, and answers", || endpoint.stats().checks() >= 5);
    assert_eq!(ask::<Redis>(&mut endpoint.get().unwrap(), "CLIENT ID").unwrap(), id);
    assert_eq!(endpoint.stats().closed(), 0);
}
