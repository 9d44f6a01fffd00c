//! What falls due when.

use crate::clock::Stamp;
use crate::core::timers::{Timer, Timers};

#[test]
fn a_timer_is_set_for_its_time_and_its_owner_until_it_is_cancelled_or_due() {
    let (early, late) = (Stamp::from_millis(1), Stamp::from_millis(2));
    let mut timers = Timers::new();
    timers.set(late, Timer::Entry(7));
    timers.set(early, Timer::Endpoint(7));
    assert!(timers.contains(late, Timer::Entry(7)) && timers.contains(early, Timer::Endpoint(7)));
    assert!(!timers.contains(early, Timer::Entry(7)) && !timers.contains(late, Timer::Entry(8)));
    assert_eq!(timers.pop(early), Some(Timer::Endpoint(7)));
    assert_eq!(timers.pop(early), None, "the other is not due");
    timers.cancel(late, Timer::Entry(7));
    assert!(!timers.contains(late, Timer::Entry(7)));
    assert_eq!((timers.len(), timers.next()), (0, None));
}
