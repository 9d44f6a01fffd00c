//! Makes a script that fails smaller, as long as it fails.

use crate::run::{Failed, play_one};
use crate::script::{Happening, Host, Pace, Script};

/// How many smaller scripts are tried at the most.
const MOST_TRIES: usize = 3_000;
/// Schedules that a smaller script is tried with: with a step less, the old one means another.
const SCHEDULES: u64 = 4;

/// Drops steps, callers and happenings that the failure can do without. Returns what is left, and
/// how many scripts were tried.
#[must_use]
pub fn shrink(script: &Script, fails: impl Fn(&Script) -> bool) -> (Script, usize) {
    let mut smallest = script.clone();
    let mut tries = 0;
    loop {
        let smaller = candidates(&smallest).into_iter().find_map(|candidate| {
            (0..SCHEDULES).find_map(|turn| {
                tries += 1;
                let mut candidate = candidate.clone();
                candidate.seed = candidate.seed.wrapping_add(turn * 1_000_003);
                (tries <= MOST_TRIES && fails(&candidate)).then_some(candidate)
            })
        });
        match smaller {
            Some(smaller) => smallest = smaller,
            None => return (smallest, tries),
        }
    }
}

/// [`shrink`], for a script that fails when it is played: as long as it fails in the same way.
#[must_use]
pub fn shrink_failing(script: &Script) -> (Script, usize) {
    let way = play_one(script, false).map(|failed| way_of(&failed));
    shrink(script, |script| play_one(script, false).map(|failed| way_of(&failed)) == way)
}

/// What went wrong first, but for its numbers.
fn way_of(failed: &Failed) -> String {
    let first = failed.failure.why.first();
    let words = first.map_or("", |why| why.as_str()).chars();
    words.filter(|c| !c.is_ascii_digit()).take(40).collect()
}

/// The same script with something less, the largest parts first.
fn candidates(script: &Script) -> Vec<Script> {
    let mut all = Vec::new();
    let mut offer = |change: &dyn Fn(&mut Script)| {
        let mut smaller = script.clone();
        change(&mut smaller);
        all.push(smaller);
    };
    for at in 0..script.callers.len() {
        if script.callers.len() > 1 {
            offer(&|script| drop(script.callers.remove(at)));
        }
    }
    if script.happenings.len() > 1 {
        offer(&|script| script.happenings.truncate(script.happenings.len() / 2));
    }
    for at in 0..script.happenings.len() {
        offer(&|script| _ = script.happenings.remove(at));
    }
    for (caller, acts) in script.callers.iter().enumerate() {
        if acts.len() > 2 {
            offer(&|script| script.callers[caller].truncate(acts.len() / 2));
        }
        for at in 0..acts.len() {
            offer(&|script| _ = script.callers[caller].remove(at));
        }
    }
    if script.pace.changes.is_some() {
        offer(&|script| script.pace.changes = None);
    }
    if script.pace.rushes + script.pace.lags > 0 {
        offer(&|script| script.pace = Pace { rushes: 0, lags: 0, ..script.pace });
    }
    if script.settings.has_twin {
        offer(&|script| script.settings.has_twin = false);
    }
    if script.settings.has_observer {
        offer(&|script| script.settings.has_observer = false);
    }
    for at in 0..script.hosts.len() {
        let calm = Host { manners: Default::default(), ..script.hosts[at].clone() };
        if script.hosts[at].manners != calm.manners {
            offer(&|script| script.hosts[at] = calm.clone());
        }
    }
    for at in 0..script.happenings.len() {
        if let Happening::Manners { host, .. } = script.happenings[at].1 {
            let calm = Happening::Manners { host, manners: Default::default() };
            let is_calm = format!("{calm:?}") == format!("{:?}", script.happenings[at].1);
            if !is_calm {
                offer(&|script| script.happenings[at].1 = calm.clone());
            }
        }
    }
    all
}
