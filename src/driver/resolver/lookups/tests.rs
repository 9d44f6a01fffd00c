//! How many look-ups run at a time, and that those that hang do not stop the others for ever.

use std::time::Duration;

use super::*;
use crate::sync::{Receiver, Sender, bounded};

const SOON: Duration = Duration::from_secs(20);

impl LookUps {
    /// As if each that has a thread had had it since the clock's own zero.
    pub(in crate::driver::resolver) fn pretend_all_hang(&self) {
        self.watch.running.lock().counted.iter_mut().for_each(|(_, began)| *began = Stamp::ZERO);
    }
}

/// Look-ups that say that they run, then hang until the gate is dropped.
struct Hanging {
    look_ups: LookUps,
    running: Sender<usize>,
    runs: Receiver<usize>,
    gate: Option<Sender<()>>,
    gated: Receiver<()>,
}

impl Hanging {
    fn new() -> Self {
        let (running, runs) = bounded(100);
        let (gate, gated) = bounded(0);
        Self { look_ups: LookUps::new("test"), running, runs, gate: Some(gate), gated }
    }

    fn submit(&self, number: usize) {
        let (running, gated) = (self.running.clone(), self.gated.clone());
        self.look_ups.submit(Arc::default(), move |fate| {
            assert_eq!(fate, Fate::Run);
            running.send(number).unwrap();
            let _closed = gated.recv();
        });
    }

    /// So many begin to run now.
    fn begin(&self, count: usize) {
        (0..count).for_each(|_| _ = self.runs.recv_timeout(SOON).unwrap());
        assert!(self.runs.is_empty());
    }

    /// As if so much time had passed since they began.
    fn replace_hung(&self, after: Duration) {
        self.look_ups.replace_hung(clock::mono().plus(after));
    }

    fn hung(&self) -> usize {
        self.look_ups.watch.running.lock().hung
    }
}

#[test]
fn no_more_than_four_run_at_a_time_and_the_others_follow_in_order() {
    let mut hanging = Hanging::new();
    (0..10).for_each(|number| hanging.submit(number));
    hanging.begin(4);
    assert_eq!(hanging.look_ups.watch.running.lock().counted.len(), 4);
    hanging.gate = None;
    hanging.look_ups.stop();
    let mut rest: Vec<usize> = (0..6).map(|_| hanging.runs.recv_timeout(SOON).unwrap()).collect();
    rest.sort_unstable();
    assert_eq!(rest, [4, 5, 6, 7, 8, 9], "those that had come before the end are done");
}

#[test]
fn when_all_have_hung_for_five_seconds_others_run_in_their_place() {
    let hanging = Hanging::new();
    (0..6).for_each(|number| hanging.submit(number));
    hanging.begin(4);
    hanging.replace_hung(Duration::ZERO);
    assert_eq!(hanging.hung(), 0, "they have only begun");
    hanging.replace_hung(HUNG_AFTER);
    hanging.begin(2);
    assert_eq!(hanging.hung(), 4);
}

#[test]
fn one_that_hangs_is_left_where_it_is_as_long_as_there_are_threads_for_others() {
    let hanging = Hanging::new();
    (0..3).for_each(|number| hanging.submit(number));
    hanging.begin(3);
    hanging.replace_hung(HUNG_AFTER);
    assert_eq!(hanging.hung(), 0);
    hanging.submit(3);
    hanging.begin(1);
}

#[test]
fn no_more_than_sixteen_are_given_up() {
    let hanging = Hanging::new();
    (0..30).for_each(|number| hanging.submit(number));
    for _ in 0..4 {
        hanging.begin(4);
        hanging.replace_hung(HUNG_AFTER);
    }
    hanging.begin(4);
    hanging.replace_hung(HUNG_AFTER);
    assert_eq!(hanging.hung(), 16);
    assert_eq!(hanging.look_ups.watch.running.lock().counted.len(), 4, "these keep their threads");
    assert!(hanging.runs.is_empty());
}

#[test]
fn those_that_return_after_all_are_out_of_the_books() {
    let mut hanging = Hanging::new();
    (0..8).for_each(|number| hanging.submit(number));
    hanging.begin(4);
    hanging.replace_hung(HUNG_AFTER);
    hanging.begin(4);
    hanging.gate = None;
    // Each leaves the books just after what it has to say: there is no event for that.
    while hanging.hung() > 0 || !hanging.look_ups.watch.running.lock().counted.is_empty() {
        std::thread::yield_now();
    }
}

#[test]
fn one_that_is_withdrawn_before_a_thread_has_it_comes_back_refused_and_one_that_has_goes_on() {
    let mut hanging = Hanging::new();
    (0..4).for_each(|number| hanging.submit(number));
    hanging.begin(4);
    let (told, fates) = bounded(1);
    let mark = Arc::<Mark>::default();
    hanging.look_ups.submit(Arc::clone(&mark), move |fate| told.send(fate).unwrap());
    let running: Vec<_> = hanging
        .look_ups
        .watch
        .running
        .lock()
        .counted
        .iter()
        .map(|(mark, _)| Arc::clone(mark))
        .collect();
    running.iter().for_each(|mark| hanging.look_ups.withdraw(mark));
    assert_eq!(hanging.look_ups.watch.running.lock().counted.len(), 4);
    assert!(fates.is_empty());
    hanging.look_ups.withdraw(&mark);
    assert_eq!(fates.try_recv(), Ok(Fate::Refused));
    hanging.look_ups.withdraw(&mark); // the second time does nothing
    hanging.submit(4);
    hanging.gate = None;
    hanging.begin(1);
}

#[test]
fn after_the_end_look_ups_are_refused_at_once() {
    let look_ups = LookUps::new("test");
    look_ups.stop();
    let (told, fate) = bounded(1);
    look_ups.submit(Arc::default(), move |fate| told.send(fate).unwrap());
    assert_eq!(fate.try_recv(), Ok(Fate::Refused));
    assert!(look_ups.watch.running.lock().counted.is_empty());
}
