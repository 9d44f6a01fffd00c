//! The processes that the servers run in: started, killed, stopped, and heard of.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::thread::{Builder, JoinHandle, sleep};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use socket2::{Domain, Socket, Type};

use crate::Failure;
use crate::board::Board;
use crate::faults::{Counts, Fault};
use crate::random::Random;
use crate::server::{CALM, REPORT};

/// Servers in one process.
const SHARED_BY: usize = 5;

/// A port that nobody else gets, though nobody may be listening there: bound here, for as long as
/// this lives. Else a client could get it for its own end, and even connect to itself.
pub(crate) struct Port {
    _bound: Socket,
    pub(crate) address: SocketAddr,
}

impl Port {
    pub(crate) fn reserve() -> io::Result<Self> {
        let bound = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        bound.set_reuse_address(true)?;
        bound.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
        let address = bound.local_addr()?.as_socket().ok_or("no port").map_err(io::Error::other)?;
        Ok(Self { _bound: bound, address })
    }
}

/// All of them. Started and ended by one thread, which outlives them: they end with it.
pub(crate) struct Servers {
    ports: Vec<Port>,
    processes: Vec<Process>,
    random: Random,
}

struct Process {
    ports: String,
    number: u64,
    /// How often it was started.
    starts: u64,
    heard: Arc<Heard>,
    running: Option<Running>,
}

struct Running {
    child: Child,
    reader: JoinHandle<()>,
}

/// What it said.
#[derive(Default)]
struct Heard {
    /// Of those that were killed.
    before: Mutex<Counts>,
    /// Of the one that runs: open connections, faults; nothing before its first report.
    now: Mutex<Option<(u64, Counts)>>,
}

impl Servers {
    pub(crate) fn start(count: usize, seed: u64) -> Result<Self, Failure> {
        let ports = (0..count).map(|_| Port::reserve()).collect::<io::Result<Vec<_>>>()?;
        let mut servers = Self { processes: Vec::new(), random: Random::of(seed, u64::MAX), ports };
        for (number, ports) in servers.ports.chunks(SHARED_BY).enumerate() {
            let ports: Vec<_> = ports.iter().map(|port| port.address.port().to_string()).collect();
            let (ports, heard) = (ports.join(","), Arc::default());
            let number = number as u64;
            let mut process = Process { ports, number, starts: 0, heard, running: None };
            process.start(servers.random.any())?;
            servers.processes.push(process);
        }
        let until = Instant::now() + Duration::from_secs(10);
        while servers.processes.iter().any(|process| process.heard.now.lock().is_none()) {
            if Instant::now() > until {
                return Err("the servers do not start".into());
            }
            sleep(Duration::from_millis(10));
        }
        Ok(servers)
    }

    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.ports.iter().map(|port| port.address).collect()
    }

    pub(crate) fn count(&self) -> usize {
        self.processes.len()
    }

    /// What tells how often each fault was done.
    pub(crate) fn ledger(&self) -> Ledger {
        Ledger(self.processes.iter().map(|process| Arc::clone(&process.heard)).collect())
    }

    /// Kills one after the other, or stops it for a while.
    pub(crate) fn trouble_until(&mut self, until: Instant, board: &Board) -> Result<(), Failure> {
        loop {
            let next = Instant::now() + self.random.millis(1_000, 4_000);
            // The last one has time to come to an end.
            if next + Duration::from_secs(2) > until {
                sleep(until.saturating_duration_since(Instant::now()));
                return Ok(());
            }
            sleep(next.saturating_duration_since(Instant::now()));
            let victim = self.random.below(self.processes.len() as u64) as usize;
            let (is_pause, seed) = (self.random.is_one_in(2), self.random.any());
            let (pause, absence) = (self.random.millis(200, 1_500), self.random.millis(0, 1_000));
            let Some(process) = self.processes.get_mut(victim) else { continue };
            if is_pause && process.pause(pause)? {
                board.faults.note(Fault::Paused);
            } else {
                process.kill()?;
                board.faults.note(Fault::Killed);
                sleep(absence);
                process.start(seed)?;
            }
        }
    }

    /// No more faults from now on.
    pub(crate) fn calm(&mut self) -> io::Result<()> {
        for running in self.processes.iter_mut().filter_map(|process| process.running.as_mut()) {
            if let Some(input) = &mut running.child.stdin {
                writeln!(input, "{CALM}")?;
            }
        }
        Ok(())
    }

    /// Ends them; false if one had ended before its time.
    pub(crate) fn end(mut self) -> io::Result<bool> {
        let mut are_well = true;
        for process in &mut self.processes {
            let Some(mut running) = process.running.take() else { continue };
            drop(running.child.stdin.take());
            are_well &= running.child.wait()?.success();
            are_well &= running.reader.join().is_ok();
        }
        Ok(are_well)
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ended_already = process.kill();
        }
    }
}

impl Process {
    fn start(&mut self, seed: u64) -> Result<(), Failure> {
        self.starts += 1;
        let mut child = Command::new(std::env::current_exe()?)
            .args(["--server", &self.ports, "--seed", &seed.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = child.stdout.take().ok_or("the server has no output")?;
        let heard = Arc::clone(&self.heard);
        let name = format!("reports {}.{}", self.number, self.starts);
        let reader = Builder::new().name(name).spawn(move || heard.listen(output))?;
        self.running = Some(Running { child, reader });
        Ok(())
    }

    fn kill(&mut self) -> io::Result<()> {
        let Some(mut running) = self.running.take() else { return Ok(()) };
        running.child.kill()?;
        running.child.wait()?;
        let _panicked = running.reader.join();
        let last = self.heard.now.lock().take();
        if let Some((_, counts)) = last {
            self.heard.before.lock().add(&counts);
        }
        Ok(())
    }

    /// Stops it, as if the machine were gone: the system still accepts what connects, and nobody
    /// answers. False where there are no signals.
    #[cfg(unix)]
    fn pause(&self, time: Duration) -> io::Result<bool> {
        use rustix::process::{Pid, Signal, kill_process};
        let Some(running) = &self.running else { return Ok(false) };
        let pid = Pid::from_child(&running.child);
        kill_process(pid, Signal::STOP)?;
        sleep(time);
        kill_process(pid, Signal::CONT)?;
        Ok(true)
    }

    #[cfg(not(unix))]
    fn pause(&self, _: Duration) -> io::Result<bool> {
        Ok(false)
    }
}

impl Heard {
    fn listen(&self, output: ChildStdout) {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if let Some(report) = parse(&line) {
                *self.now.lock() = Some(report);
            }
        }
    }
}

/// "report", the connections that are open, and a count for each fault.
fn parse(line: &str) -> Option<(u64, Counts)> {
    let mut numbers = line.strip_prefix(REPORT)?.split_whitespace().map(str::parse);
    let open = numbers.next()?.ok()?;
    let mut counts = Counts::default();
    for count in &mut counts.0 {
        *count = numbers.next()?.ok()?;
    }
    Some((open, counts))
}

/// What was heard from all of them. Of one that is killed the last half second is not known.
pub(crate) struct Ledger(Vec<Arc<Heard>>);

impl Ledger {
    pub(crate) fn faults(&self) -> Counts {
        let mut all = Counts::default();
        for heard in &self.0 {
            all.add(&heard.before.lock());
            let now = *heard.now.lock();
            if let Some((_, counts)) = now {
                all.add(&counts);
            }
        }
        all
    }

    /// Connections that they have.
    pub(crate) fn open(&self) -> u64 {
        self.0.iter().filter_map(|heard| heard.now.lock().map(|(open, _)| open)).sum()
    }
}
