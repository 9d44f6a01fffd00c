//! A process with some servers, each of which is at peace for a while, then misbehaves in one way
//! for a while, and so on. It ends when its input does.

use std::io::{self, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::thread::{Builder, sleep};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, Socket, Type};

use crate::faults::{Fault, Faults};
use crate::protocol::{ANSWER, HEADER, HELLO, Header, REFUSAL, STRAY, message};
use crate::random::Random;
use crate::{Failure, READ_TIMEOUT};

const BACKLOG: i32 = 128;
/// How many answers are given for each that is spoilt, while a server misbehaves.
const ONE_IN: u64 = 6;
/// Its parent says so when there is to be peace for good.
pub(crate) const CALM: &str = "calm";
/// Begins a line about what was done so far.
pub(crate) const REPORT: &str = "report";

/// What all servers of the process share.
#[derive(Default)]
struct House {
    faults: Faults,
    /// Connections at this moment.
    open: AtomicUsize,
    is_calm: AtomicBool,
}

impl House {
    /// How many connections are open, and how often each fault was done, in one line.
    fn report(&self) -> io::Result<()> {
        let counts = self.faults.counts().0.map(|count| count.to_string()).join(" ");
        let mut out = io::stdout().lock();
        writeln!(out, "{REPORT} {} {counts}", self.open.load(Ordering::SeqCst))?;
        out.flush()
    }
}

/// Serves at these ports until the input ends.
pub(crate) fn serve(ports: &[u16], seed: u64) -> Result<(), Failure> {
    end_with_parent();
    let house = Arc::new(House::default());
    for &port in ports {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let random = Random::of(seed, u64::from(port));
        let desk = Desk::open(address, random, Arc::clone(&house))?;
        Builder::new().name(format!("desk {port}")).spawn(|| desk.work())?;
    }
    house.report()?;
    Builder::new().name("reports".into()).spawn({
        let house = Arc::clone(&house);
        move || {
            while house.report().is_ok() {
                sleep(Duration::from_millis(500));
            }
        }
    })?;
    for line in io::stdin().lines() {
        if line? == CALM {
            house.is_calm.store(true, Ordering::SeqCst);
        }
    }
    let _nobody_listens = house.report(); // if the parent was killed
    Ok(())
}

/// One that is stopped does not see its input end.
fn end_with_parent() {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        use rustix::process::{Signal, set_parent_process_death_signal};
        if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
            log::warn!("if the parent is killed while this is stopped, it stays: {error}");
        }
    }
}

/// One server: accepts connections, and decides what is to go wrong.
struct Desk {
    house: Arc<House>,
    address: SocketAddr,
    listener: Socket,
    lines: Vec<Weak<Line>>,
    mood: Arc<Mutex<Option<Fault>>>,
    random: Random,
}

/// In what ways it misbehaves: all that servers do.
const MOODS: &[Fault] = &[
    Fault::ClosedIdle,
    Fault::ResetIdle,
    Fault::HalfClosedIdle,
    Fault::StrayIdle,
    Fault::ClosedUnanswered,
    Fault::ResetUnanswered,
    Fault::Late,
    Fault::HalfAnswer,
    Fault::StrayAfter,
    Fault::HalfClosedAfter,
    Fault::LateGreeting,
    Fault::NoWelcome,
    Fault::NotAccepting,
    Fault::NotListening,
];

impl Desk {
    fn open(address: SocketAddr, random: Random, house: Arc<House>) -> io::Result<Self> {
        let listener = listen(address)?;
        Ok(Self { house, address, listener, lines: Vec::new(), mood: Arc::default(), random })
    }

    fn work(mut self) {
        loop {
            if let Err(error) = self.turn() {
                log::error!("{}: {error}", self.address);
                sleep(Duration::from_millis(50));
            }
        }
    }

    fn turn(&mut self) -> io::Result<()> {
        let peace = self.random.millis(500, 3_000);
        self.accept_for(peace)?;
        match self.random.pick(MOODS) {
            Some(&fault) if !self.house.is_calm.load(Ordering::SeqCst) => self.misbehave(fault),
            _ => Ok(()),
        }
    }

    fn misbehave(&mut self, fault: Fault) -> io::Result<()> {
        match fault {
            Fault::ClosedIdle | Fault::ResetIdle | Fault::HalfClosedIdle | Fault::StrayIdle => {
                self.spoil_idle(fault);
            }
            Fault::NotAccepting => {
                self.house.faults.note(fault);
                self.listener.listen(0)?;
                sleep(self.random.millis(200, 1_500));
                self.listener.listen(BACKLOG)?;
            }
            Fault::NotListening => {
                self.house.faults.note(fault);
                // In place of the listener, which ends: connecting is refused.
                self.listener = Socket::new(Domain::IPV4, Type::STREAM, None)?;
                sleep(self.random.millis(100, 1_000));
                self.listener = listen(self.address)?;
            }
            // The others are for the connections to do.
            _ => {
                *self.mood.lock() = Some(fault);
                let time = self.random.millis(200, 1_500);
                let accepted = self.accept_for(time);
                *self.mood.lock() = None;
                accepted?;
            }
        }
        Ok(())
    }

    fn accept_for(&mut self, time: Duration) -> io::Result<()> {
        let until = Instant::now() + time;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            let left = Timespec::try_from(left).map_err(io::Error::other)?;
            poll(&mut [PollFd::new(&self.listener, PollFlags::IN)], Some(&left))?;
            match self.listener.accept() {
                Ok((socket, _)) => self.admit(socket)?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn admit(&mut self, socket: Socket) -> io::Result<()> {
        socket.set_nonblocking(false)?;
        socket.set_tcp_nodelay(true)?;
        let line = Arc::new(Line { socket, is_idle: Mutex::new(true) });
        self.lines.retain(|line| line.strong_count() > 0);
        self.lines.push(Arc::downgrade(&line));
        let (house, mood) = (Arc::clone(&self.house), Arc::clone(&self.mood));
        let random = Random::new(self.random.any());
        house.open.fetch_add(1, Ordering::SeqCst);
        let talk = Talk { house, mood, random };
        // A few hundred of them at the most.
        Builder::new().name("line".into()).stack_size(128 * 1024).spawn(move || talk.hold(line))?;
        Ok(())
    }

    /// Half of those that are idle.
    fn spoil_idle(&mut self, fault: Fault) {
        for line in self.lines.iter().filter_map(Weak::upgrade) {
            if self.random.is_one_in(2) && line.spoil(fault) {
                self.house.faults.note(fault);
            }
        }
    }
}

/// Tries for a while: the last owner of the port may just be ending.
fn listen(address: SocketAddr) -> io::Result<Socket> {
    let try_it = || {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    };
    let until = Instant::now() + Duration::from_secs(5);
    loop {
        match try_it() {
            Err(_) if Instant::now() < until => sleep(Duration::from_millis(20)),
            result => return result,
        }
    }
}

/// One connection.
struct Line {
    socket: Socket,
    /// Locked while something is written.
    is_idle: Mutex<bool>,
}

impl Line {
    /// False if it is not idle: its own thread has it then.
    fn spoil(&self, fault: Fault) -> bool {
        let Some(is_idle) = self.is_idle.try_lock() else { return false };
        if !*is_idle {
            return false;
        }
        let done = match fault {
            Fault::ClosedIdle => self.socket.shutdown(Shutdown::Both),
            // Its thread wakes and drops it, which resets it.
            Fault::ResetIdle => {
                self.reset_on_drop().and_then(|()| self.socket.shutdown(Shutdown::Read))
            }
            Fault::HalfClosedIdle => self.socket.shutdown(Shutdown::Write),
            _ => (&self.socket).write_all(&[STRAY; HEADER]),
        };
        done.is_ok()
    }

    fn reset_on_drop(&self) -> io::Result<()> {
        self.socket.set_linger(Some(Duration::ZERO))
    }
}

/// Who answers on a connection.
struct Talk {
    house: Arc<House>,
    mood: Arc<Mutex<Option<Fault>>>,
    random: Random,
}

impl Talk {
    fn hold(mut self, line: Arc<Line>) {
        let mut rest = Vec::new();
        while self.answer(&line, &mut rest).is_ok_and(|goes_on| goes_on) {}
        drop(line);
        self.house.open.fetch_sub(1, Ordering::SeqCst);
    }

    /// Answers one message; false if that was the last.
    fn answer(&mut self, line: &Line, rest: &mut Vec<u8>) -> io::Result<bool> {
        let mut socket = &line.socket;
        let asked = Header::read(&mut socket)?;
        *line.is_idle.lock() = false;
        asked.read_rest(&mut socket, rest)?;
        let answer = message(asked.kind | ANSWER, asked.tag, rest);
        let fault = self.fault(asked.kind);
        if let Some(fault) = fault {
            self.house.faults.note(fault);
        }
        match fault {
            Some(Fault::ClosedUnanswered) => return Ok(false),
            Some(Fault::ResetUnanswered) => {
                line.reset_on_drop()?;
                return Ok(false);
            }
            Some(Fault::Late) => {
                sleep(READ_TIMEOUT + self.random.millis(50, 500));
                socket.write_all(&answer)?;
            }
            Some(Fault::HalfAnswer) => {
                socket.write_all(answer.get(..answer.len() / 2).unwrap_or_default())?;
                let _ended = io::copy(&mut socket, &mut io::sink());
                return Ok(false);
            }
            Some(Fault::StrayAfter) => {
                socket.write_all(&[&answer[..], &[STRAY; HEADER]].concat())?;
            }
            Some(Fault::HalfClosedAfter) => {
                socket.write_all(&answer)?;
                socket.shutdown(Shutdown::Write)?;
            }
            Some(Fault::LateGreeting) => {
                sleep(self.random.millis(50, 1_000));
                socket.write_all(&answer)?;
            }
            Some(Fault::NoWelcome) => {
                socket.write_all(&message(REFUSAL, asked.tag, &[]))?;
                return Ok(false);
            }
            _ => socket.write_all(&answer)?,
        }
        *line.is_idle.lock() = true;
        Ok(true)
    }

    fn fault(&mut self, asked: u8) -> Option<Fault> {
        let fault = (*self.mood.lock())?;
        let is_greeting = matches!(fault, Fault::LateGreeting | Fault::NoWelcome);
        // Greetings are rare: every other one is spoilt.
        let chance = if is_greeting { 2 } else { ONE_IN };
        let fits = !is_greeting || asked == HELLO;
        (fits && self.random.is_one_in(chance)).then_some(fault)
    }
}
