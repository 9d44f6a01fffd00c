//! A resolver that answers what a test tells it to: addresses, errors, panics, nothing for long.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;
use warmline::{BoxError, Resolve, Resolved, Resolver};

/// What one look-up comes to.
#[derive(Clone)]
pub(crate) enum Answer {
    At(Vec<SocketAddr>),
    /// The same, with a time of its own.
    AtFor(Vec<SocketAddr>, Duration),
    Fail(&'static str),
    /// Fails with an error that this makes.
    FailWith(fn() -> BoxError),
    Panic,
    /// Does not return before [`Script::release`]; then it comes to this.
    Hang(Box<Self>),
}

impl Answer {
    /// This machine, at whichever port is asked for.
    pub(crate) fn here() -> Self {
        Self::At(vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))])
    }

    pub(crate) fn ip(ip: impl Into<IpAddr>) -> Self {
        Self::At(vec![SocketAddr::new(ip.into(), 0)])
    }

    pub(crate) fn at(address: SocketAddr) -> Self {
        Self::At(vec![address])
    }

    pub(crate) fn late(self) -> Self {
        Self::Hang(Box::new(self))
    }
}

/// The resolver, and the test's view of it. Cloning makes a second one.
#[derive(Clone)]
pub(crate) struct Script(Arc<Mutex<Inner>>);

struct Inner {
    answers: HashMap<String, VecDeque<Answer>>,
    /// For names that are not scripted.
    otherwise: Answer,
    /// Look-ups that began, in order: the name, and the name of the thread.
    calls: Vec<(String, String)>,
    hanging: usize,
    gate: Sender<()>,
    gated: Receiver<()>,
}

impl Script {
    /// Answers this to all names that nothing else is said about.
    pub(crate) fn always(otherwise: Answer) -> Self {
        let (gate, gated) = bounded(0);
        let (answers, calls) = (HashMap::new(), Vec::new());
        Self(Arc::new(Mutex::new(Inner { answers, otherwise, calls, hanging: 0, gate, gated })))
    }

    /// Knows no name.
    pub(crate) fn new() -> Self {
        Self::always(Answer::Fail("no such name"))
    }

    /// One name, and what each look-up comes to; the last of them from then on.
    pub(crate) fn of<const N: usize>(name: &str, answers: [Answer; N]) -> Self {
        let script = Self::new();
        script.say(name, answers);
        script
    }

    /// From now on this is what look-ups of the name come to, one after the other.
    pub(crate) fn say<const N: usize>(&self, name: &str, answers: [Answer; N]) {
        self.0.lock().answers.insert(name.to_owned(), answers.into());
    }

    /// One that remembers nothing longer than it must.
    pub(crate) fn forgetful(&self) -> Resolver {
        let zero = Duration::ZERO;
        self.resolver().ttl(zero).negative_ttl(zero).stale_for(zero)
    }

    pub(crate) fn resolver(&self) -> Resolver {
        Resolver::new(self.clone())
    }

    /// The names that were looked up.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.0.lock().calls.iter().map(|(name, _)| name.clone()).collect()
    }

    /// The names of the threads that did, one for each look-up.
    pub(crate) fn threads(&self) -> Vec<String> {
        self.0.lock().calls.iter().map(|(_, thread)| thread.clone()).collect()
    }

    /// How many look-ups began.
    pub(crate) fn count(&self) -> usize {
        self.0.lock().calls.len()
    }

    /// How many hang at this moment.
    pub(crate) fn hanging(&self) -> usize {
        self.0.lock().hanging
    }

    /// Whatever hangs at this moment returns.
    pub(crate) fn release(&self) {
        let mut inner = self.0.lock();
        (inner.gate, inner.gated) = bounded(0);
    }

    fn next(&self, name: &str) -> (Answer, Receiver<()>) {
        let mut inner = self.0.lock();
        let thread = std::thread::current().name().unwrap_or_default().to_owned();
        inner.calls.push((name.to_owned(), thread));
        let answer = match inner.answers.get_mut(name) {
            Some(answers) if answers.len() > 1 => answers.pop_front(),
            Some(answers) => answers.front().cloned(),
            None => None,
        };
        let answer = answer.unwrap_or_else(|| inner.otherwise.clone());
        inner.hanging += usize::from(matches!(answer, Answer::Hang(_)));
        (answer, inner.gated.clone())
    }
}

impl Resolve for Script {
    fn resolve(&self, name: &str) -> Result<Resolved, BoxError> {
        let (mut answer, gated) = self.next(name);
        if let Answer::Hang(then) = answer {
            let _released = gated.recv();
            self.0.lock().hanging -= 1;
            answer = *then;
        }
        match answer {
            Answer::At(addresses) => Ok(Resolved::new(addresses)),
            Answer::AtFor(addresses, ttl) => Ok(Resolved::new(addresses).ttl(ttl)),
            Answer::Fail(text) => Err(text.into()),
            Answer::FailWith(make) => Err(make()),
            Answer::Panic => std::panic::panic_any("the resolver was told to panic"),
            Answer::Hang(_) => Err("the script says to hang twice".into()),
        }
    }
}
