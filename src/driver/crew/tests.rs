use super::*;
use crate::sync::{Receiver, Sender, bounded};

const SOON: Duration = Duration::from_secs(20);

fn job(kind: Kind, pool: u64, run: impl FnOnce() + Send + 'static) -> Job {
    Job { kind, pool, mark: Arc::default(), run: Box::new(|_| run()) }
}

/// Closes of one pool that run at a time.
const CLOSING: usize = 8;

/// What becomes of a job.
fn fate_of(crew: &Crew, kind: Kind) -> Fate {
    let (told, fate) = bounded(1);
    let run = Box::new(move |fate| told.send(fate).unwrap());
    crew.submit(Job { kind, pool: 1, mark: Arc::default(), run });
    fate.recv_timeout(SOON).unwrap()
}

/// A job that says it runs, then blocks until its gate is dropped.
fn gated(kind: Kind, pool: u64, running: &Sender<()>, gate: &Receiver<()>) -> Job {
    let (running, gate) = (running.clone(), gate.clone());
    job(kind, pool, move || {
        running.send(()).unwrap();
        let _closed = gate.recv();
    })
}

#[test]
fn endpoints_that_hang_in_open_leave_threads_for_others_and_for_upkeep() {
    let crew = Crew::new("test".to_owned());
    let (running, runs) = bounded(200);
    let (gate, gated_by) = bounded(0);
    let run = |kind| crew.submit(gated(kind, 1, &running, &gated_by));
    // Five endpoints ask for more than there is; each leaves as much as it takes.
    for endpoint in 0..5 {
        for _ in 0..20 {
            run(Kind::Open(endpoint));
        }
    }
    run(Kind::Open(5));
    run(Kind::Upkeep);
    for _ in 0..16 + 8 + 4 + 2 + 1 + 1 + 1 {
        runs.recv_timeout(SOON).unwrap();
    }
    assert_eq!(crew.0.state.lock().roster.ready(), 0);
    drop(gate);
    crew.stop();
    // Well before threads without work would end by themselves.
    assert!(crew.join(Deadline::after(IDLE_FOR / 2)));
    assert_eq!(runs.len(), 102 - 33, "what was queued was done before the end");
}

#[test]
fn closes_that_hang_leave_threads_for_everything_else() {
    let crew = Crew::new("test".to_owned());
    let (running, runs) = bounded(200);
    let (gate, gated_by) = bounded(0);
    for _ in 0..70 {
        crew.submit(gated(Kind::Close, 1, &running, &gated_by));
    }
    crew.submit(gated(Kind::Open(1), 1, &running, &gated_by));
    crew.submit(gated(Kind::Upkeep, 1, &running, &gated_by));
    for _ in 0..CLOSING + 2 {
        runs.recv_timeout(SOON).unwrap();
    }
    drop(gate);
    crew.stop();
    assert!(crew.join(Deadline::after(IDLE_FOR / 2)));
    assert_eq!(runs.len(), 70 - CLOSING, "all were closed in the end");
    assert_eq!(crew.0.state.lock().roster.jobs_of(1), 0);
}

#[test]
fn an_abandoned_job_frees_its_place_at_once() {
    let crew = Crew::new("test".to_owned());
    let (running, runs) = bounded(100);
    let (gate, gated_by) = bounded::<()>(0);
    let hung = gated(Kind::Open(1), 1, &running, &gated_by);
    let mark = Arc::clone(&hung.mark);
    crew.submit(hung);
    runs.recv_timeout(SOON).unwrap();
    crew.abandon(&mark, 1, Kind::Open(1));
    crew.abandon(&mark, 1, Kind::Open(1)); // the second time does nothing
    {
        let state = crew.0.state.lock();
        assert_eq!((state.threads, state.roster.jobs_of(1)), (0, 0));
    }
    crew.stop();
    assert!(crew.join(Deadline::after(SOON)), "an abandoned thread is not waited for");
    drop(gate);
}

#[test]
fn a_job_that_ended_just_before_it_was_abandoned_is_counted_once() {
    let crew = Crew::new("test".to_owned());
    let (running, runs) = bounded(100);
    let (gate, gated_by) = bounded::<()>(0);
    let job = gated(Kind::Open(1), 1, &running, &gated_by);
    let mark = Arc::clone(&job.mark);
    crew.submit(job);
    runs.recv_timeout(SOON).unwrap();
    drop(gate);
    crew.stop();
    assert!(crew.join(Deadline::after(SOON)));
    crew.abandon(&mark, 1, Kind::Open(1));
    let state = crew.0.state.lock();
    assert_eq!((state.threads, state.roster.jobs_of(1)), (0, 0));
}

#[test]
fn a_job_that_panics_costs_neither_its_thread_nor_its_place() {
    let crew = Crew::new("test".to_owned());
    let (running, runs) = bounded(100);
    let previous = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    crew.submit(job(Kind::Open(1), 1, || std::panic::panic_any("no")));
    crew.submit(job(Kind::Open(1), 1, move || running.send(()).unwrap()));
    runs.recv_timeout(SOON).unwrap();
    std::panic::set_hook(previous);
    crew.stop();
    assert!(crew.join(Deadline::after(SOON)));
    assert_eq!(crew.0.state.lock().roster.jobs_of(1), 0);
    assert_eq!(fate_of(&crew, Kind::Upkeep), Fate::Refused, "it takes no more work");
}

#[test]
fn waiting_for_a_pool_is_waiting_for_its_own_jobs_only() {
    let crew = Crew::new("test".to_owned());
    let (running, runs) = bounded(100);
    let (gate, gated_by) = bounded::<()>(0);
    let (other_gate, gated_elsewhere) = bounded::<()>(0);
    for kind in [Kind::Open(1), Kind::Upkeep, Kind::Close] {
        crew.submit(gated(kind, 1, &running, &gated_by));
    }
    crew.submit(gated(Kind::Upkeep, 2, &running, &gated_elsewhere));
    (0..4).for_each(|_| runs.recv_timeout(SOON).unwrap());
    let at_once = || Deadline::after(Duration::ZERO);
    assert!(crew.await_pool(3, at_once()), "it has no jobs");
    assert!(!crew.await_pool(1, at_once()) && !crew.await_pool(2, at_once()));
    drop(other_gate);
    assert!(crew.await_pool(2, Deadline::after(SOON)));
    assert!(!crew.await_pool(1, at_once()));
    drop(gate);
    assert!(crew.await_pool(1, Deadline::after(SOON)));
}

#[test]
fn waiting_for_a_pool_covers_what_is_queued_and_nothing_that_was_abandoned() {
    let crew = Crew::new("test".to_owned());
    let (running, runs) = bounded(100);
    let (gate, gated_by) = bounded::<()>(0);
    // More closes than may run: the last waits in the queue.
    for _ in 0..=CLOSING {
        crew.submit(gated(Kind::Close, 1, &running, &gated_by));
    }
    (0..CLOSING).for_each(|_| runs.recv_timeout(SOON).unwrap());
    let (never, hangs) = bounded::<()>(0);
    let hung = gated(Kind::Open(1), 1, &running, &hangs);
    let mark = Arc::clone(&hung.mark);
    crew.submit(hung);
    runs.recv_timeout(SOON).unwrap();
    drop(gate);
    runs.recv_timeout(SOON).unwrap(); // the queued one runs
    crew.abandon(&mark, 1, Kind::Open(1));
    assert!(crew.await_pool(1, Deadline::after(SOON)));
    crew.stop();
    assert_eq!(fate_of(&crew, Kind::Upkeep), Fate::Refused);
    assert!(crew.await_pool(1, Deadline::after(Duration::ZERO)), "a refused job is no job");
    drop(never);
}

#[test]
fn a_job_that_is_withdrawn_before_it_has_a_thread_comes_back_refused_and_one_that_has_goes_on() {
    let crew = Crew::new("test".to_owned());
    let (running, runs) = bounded(100);
    let (gate, gated_by) = bounded::<()>(0);
    let hung: Vec<_> = (0..CLOSING).map(|_| gated(Kind::Close, 1, &running, &gated_by)).collect();
    let runs_already = Arc::clone(&hung[0].mark);
    hung.into_iter().for_each(|job| crew.submit(job));
    (0..CLOSING).for_each(|_| runs.recv_timeout(SOON).unwrap());
    let (told, fate) = bounded(1);
    let mark = Arc::<Mark>::default();
    let run = Box::new(move |fate| told.send(fate).unwrap());
    crew.submit(Job { kind: Kind::Close, pool: 1, mark: Arc::clone(&mark), run });
    crew.withdraw(&runs_already, 1, Kind::Close);
    assert!(fate.is_empty() && !crew.await_pool(1, Deadline::after(Duration::ZERO)));
    crew.withdraw(&mark, 1, Kind::Close);
    assert_eq!(fate.try_recv(), Ok(Fate::Refused));
    drop(gate);
    assert!(crew.await_pool(1, Deadline::after(SOON)));
}
