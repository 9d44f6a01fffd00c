//! What this process runs out of: nothing is lost for it, and all goes on once there is some again.

#![cfg(warmline_sim)]

use std::time::Duration;

use simulation::kit::{Foreign, Kit};
use simulation::run::simulate_well;
use simulation::script::{Reach, Temper};
use warmline::sim::{self, survey};
use warmline::{CloseReason, Deadline, Pool};

/// Lets the threads of the crew end that have nothing to do.
fn rest() {
    sim::sleep(Duration::from_secs(12));
}

#[test]
fn what_no_thread_could_be_started_to_close_is_closed_once_one_can() {
    simulate_well(|| {
        let kit = Foreign::new(Temper::default());
        let builder = Pool::builder(kit.connector()).idle_timeout(Duration::from_secs(20));
        let pool = builder.build().expect("the settings make sense");
        drop(pool.get(&kit.key(0, Reach::Address)).expect("a calm host"));
        rest();
        sim::set_thread_limit(Some(survey().threads));
        // The reaper may not close it itself: that may block.
        sim::sleep(Duration::from_secs(30));
        assert!(survey().refused_threads > 0 && kit.alive() == 1);
        sim::set_thread_limit(None);
        pool.drain(Deadline::after(Duration::from_secs(1))).expect("it is closed by then");
        assert_eq!(pool.stats().closed_for(CloseReason::IdleTimeout), 1);
        assert_eq!(kit.alive(), 0);
    });
}
