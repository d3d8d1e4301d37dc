//! Death at random: processes that use one region in every way, and one that kills them, a kill a
//! millisecond.
//!
//! Some of them, the witnesses, are never killed: who dies young cannot tell of a long wait.

mod content;
mod counters;
mod dict;
mod lock_handover;
mod worker;

pub use dict::dict_worker;
pub use lock_handover::{HandoverTimes, Victim, holder, measure_handover};
pub use worker::worker;

use std::env;
use std::io::Write;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use mmf::{LockError, Name, Region};

use crate::{DEADLINE, LIFETIME, PROGRAM, program, unique_name, wire};
use counters::{Counters, State, Waits};
use worker::{Random, STALL};

const CAPACITY: u64 = 1 << 18;
/// Kills between one region and the next: each begins small, so that it grows again.
const GENERATION: u64 = 512;

/// How long and with how many.
#[derive(Clone, Copy, Debug)]
pub struct Torture {
    /// Kills.
    pub kills: u64,
    /// Processes that are killed; two more are not.
    pub processes: usize,
    /// Time between two kills, at the least.
    pub pace: Duration,
    /// When to stop before the last kill.
    pub limit: Duration,
}

/// Processes that are never killed.
const WITNESSES: usize = 2;

impl Torture {
    /// Does it and prints what came of it; whether nothing was violated.
    ///
    /// The binary must play the role [`worker()`] by that name.
    ///
    /// # Panics
    ///
    /// If the system refuses to start processes.
    #[must_use]
    pub fn run(&self) -> bool {
        let mut run = Run::start(self);
        let began = Instant::now();
        while run.kills < self.kills && began.elapsed() < self.limit && run.counters.get(counters::VIOLATIONS) < 100 {
            let tick = Instant::now();
            run.kill_one();
            thread::sleep(self.pace.saturating_sub(tick.elapsed()));
        }
        let time = began.elapsed();
        run.end();
        run.report(time);
        run.counters.get(counters::VIOLATIONS) == 0
    }
}

struct Worker {
    child: Child,
    /// Closed by this process's death, which ends the worker.
    stdin: ChildStdin,
}

struct Run {
    counters: Counters,
    base: String,
    region: Region,
    generation: u64,
    workers: Vec<Worker>,
    victims: usize,
    spares: Receiver<Worker>,
    /// No more spares are needed.
    ended: Arc<AtomicBool>,
    random: Random,
    kills: u64,
    in_lock: [u64; 4],
    watch: Watch,
}

/// Whether anything is done at all.
struct Watch {
    done: u64,
    since: Instant,
    longest: Duration,
}

impl Run {
    fn start(plan: &Torture) -> Run {
        let base = unique_name("torture");
        let board_name = format!("{base}-board");
        let count = plan.processes + WITNESSES;
        let counters = Counters::create(&Name::local(&board_name).expect("a name"), count);
        let region = create(&base, 0);
        let (send, spares) = mpsc::sync_channel(4);
        let args = [board_name, base.clone()];
        let ended = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&ended);
        thread::spawn(move || {
            (0..)
                .take_while(|_| !until.load(Ordering::SeqCst))
                .all(|number| send.send(spawn("worker", &args, number)).is_ok())
        });
        let watch = Watch { done: 0, since: Instant::now(), longest: Duration::ZERO };
        let mut run = Run {
            counters,
            base,
            region,
            generation: 0,
            workers: Vec::new(),
            victims: plan.processes,
            spares,
            ended,
            random: Random::new(),
            kills: 0,
            in_lock: [0; 4],
            watch,
        };
        for number in 0..count {
            let worker = run.spare(number);
            run.workers.push(worker);
        }
        run
    }

    /// One that has begun to work as this number.
    fn spare(&self, number: usize) -> Worker {
        let mut worker = match self.spares.recv_timeout(DEADLINE) {
            Ok(worker) => worker,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => panic!("no process can be started"),
        };
        worker
            .stdin
            .write_all(format!("{}{number}\n", char::from(wire::LINE)).as_bytes())
            .expect("a worker that waits for its number");
        worker
    }

    fn kill_one(&mut self) {
        let number = self.random.below(self.victims);
        let worker = &mut self.workers[number];
        if let Ok(Some(status)) = worker.child.try_wait() {
            self.counters.complain(&format!("a worker ended by itself with {status}"));
        }
        worker.child.kill().expect("a child can be killed");
        worker.child.wait().expect("a killed child ends");
        // Now the system has released all that it had.
        let state = self.counters.state(number);
        self.in_lock[state as usize] += 1;
        if state != State::Out {
            self.counters.set(counters::RELEASED, counters::nanoseconds());
            self.counters.count(counters::DEATHS);
        }
        self.counters.say(number, State::Out);
        self.kills += 1;
        self.workers[number] = self.spare(number);
        if self.kills % GENERATION == 0 {
            self.next_generation();
        }
        self.look();
    }

    fn next_generation(&mut self) {
        self.check_region();
        let next = self.generation + 1;
        self.counters.reset_floor(next);
        // The old one goes when the last worker has left it.
        self.region = create(&self.base, next);
        self.generation = next;
        self.counters.set(counters::GENERATION, next);
    }

    /// Whether anything was done since the last look.
    fn look(&mut self) {
        let done = self.counters.get(counters::READS) + self.counters.get(counters::WRITES);
        let still = self.watch.since.elapsed();
        self.watch.longest = self.watch.longest.max(still);
        if done != self.watch.done {
            (self.watch.done, self.watch.since) = (done, Instant::now());
        } else if still > STALL {
            self.watch.since = Instant::now();
            let status = self.region.status();
            self.counters.complain(&format!("no process got a lock for {still:?}: {status:?}"));
        }
    }

    /// That no places are lost.
    fn check_region(&self) {
        match self.region.status() {
            Ok(status) if status.participants.len() <= self.workers.len() * 2 => {}
            Ok(status) => self.counters.complain(&format!("{} participants are left", status.participants.len())),
            Err(error) => self.counters.complain(&format!("no status: {error}")),
        }
    }

    fn end(&mut self) {
        self.counters.set(counters::STOP, 1);
        for worker in &mut self.workers {
            let since = Instant::now();
            let status = loop {
                match worker.child.try_wait() {
                    Ok(Some(status)) => break Some(status),
                    Ok(None) if since.elapsed() < DEADLINE => thread::sleep(Duration::from_millis(1)),
                    _ => break None,
                }
            };
            if !status.is_some_and(|status| status.success()) {
                self.counters.complain(&format!("a worker did not end well: {status:?}"));
                let _ = worker.child.kill();
                let _ = worker.child.wait();
            }
        }
        self.check_region();
        match self.region.write_for(STALL) {
            Ok(_) | Err(LockError::Poisoned(_)) => {}
            Err(LockError::Failed(error)) => self.counters.complain(&format!("the lock is not to be had: {error}")),
        }
        let writers = self.in_lock[State::Writes as usize];
        let recoveries = self.counters.get(counters::RECOVERIES);
        if recoveries > writers {
            self.counters.complain(&format!("{recoveries} recoveries after the deaths of {writers} writers"));
        }
        // With the last handle the last region goes too.
        self.region = create(&self.base, self.generation + 1);
        self.region = create(&self.base, self.generation + 2);
        let left = left_behind(&format!("{}-", self.base));
        let own = [format!("{}-board", self.base), format!("{}-{}", self.base, self.generation + 2)];
        for name in left.iter().filter(|name| !own.iter().any(|own| name.ends_with(own))) {
            self.counters.complain(&format!("{name} is left behind"));
        }
    }

    fn report(&self, time: Duration) {
        let count = |word| self.counters.get(word);
        let build = if cfg!(debug_assertions) { "debug" } else { "release" };
        println!(
            "{} kills of {} processes in {time:.1?} ({:.0} a second), {build} build",
            self.kills,
            self.victims,
            self.kills as f64 / time.as_secs_f64()
        );
        if env::var_os(PROGRAM).is_some() {
            println!("half of them run {}", program().display());
        }
        let [out, wanting, reading, writing] = self.in_lock;
        println!("killed: {writing} writing, {reading} reading, {wanting} taking the lock, {out} elsewhere");
        println!(
            "{} reads, {} writes, {} reads without a lock ({} gave up), {} changes waited for",
            count(counters::READS),
            count(counters::WRITES),
            count(counters::UNLOCKED_READS),
            count(counters::CONTENDED),
            count(counters::CHANGES)
        );
        println!(
            "{} poisons seen, {} mended, {} grown far, {} opened anew, {} tries refused, {} regions",
            count(counters::POISONS),
            count(counters::RECOVERIES),
            count(counters::GROWN),
            count(counters::REOPENED),
            count(counters::REFUSED),
            self.generation + 1
        );
        for (which, text) in [(Waits::All, "all waits"), (Waits::AfterDeath, "after a holder's death")] {
            let (all, bounds) = self.counters.shares(which, &[0.5, 0.99, 0.999, 0.9999]);
            let text_of = |nanoseconds: u64| format!("{:.3?}", Duration::from_nanos(nanoseconds));
            let bounds: Vec<String> = bounds.into_iter().map(text_of).collect();
            println!(
                "{text}: {all}; below {} (half), {} (99 %), {} (99.9 %), {} (99.99 %); worst {}",
                bounds[0],
                bounds[1],
                bounds[2],
                bounds[3],
                text_of(self.counters.worst(which))
            );
        }
        println!("longest time in which no process got a lock: {:.3?}", self.watch.longest);
        println!("{} violations", count(counters::VIOLATIONS));
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        let end = |worker: &mut Worker| {
            let _ = worker.child.kill();
            let _ = worker.child.wait();
        };
        self.workers.iter_mut().for_each(end);
        // Until the thread that starts them is done: this process must not end while it starts one.
        while let Ok(mut spare) = self.spares.recv() {
            end(&mut spare);
        }
    }
}

fn create(base: &str, generation: u64) -> Region {
    let region = Region::create_new(worker::name(base, generation), CAPACITY).expect("a new region");
    let bytes = content::make(0, 1, 100);
    region.write().expect("a lock of this process alone").set(&bytes).expect("room for the first contents");
    region
}

/// Of two programs, in turn: this one, and the one that `PROGRAM` names.
/// How often a process's start is tried in vain before the last time.
const STARTS: usize = 3;

fn spawn(role: &str, args: &[String], number: u64) -> Worker {
    let own = || env::current_exe().expect("the path of this binary");
    let mut command = Command::new(if number % 2 == 0 { own() } else { program() });
    let joined: String = args.iter().map(|arg| format!("{arg}{}", wire::ARG_END)).collect();
    command
        .args([wire::ENTRY, "--nocapture", "--test-threads=1"])
        .env(wire::ROLE, role)
        .env(wire::ARGS, joined)
        .env(LIFETIME, "36000")
        .stdin(Stdio::piped())
        .stdout(Stdio::null());
    // Under Wine a start can fail with "internal error", which is Wine's own; nothing of ours has
    // run by then.
    let started = (0..STARTS).map(|_| command.spawn()).find_map(Result::ok);
    let mut child = started.unwrap_or_else(|| command.spawn().expect("a process can be started"));
    let stdin = child.stdin.take().expect("stdin is piped");
    Worker { child, stdin }
}

/// Named memory whose name holds this text.
fn left_behind(text: &str) -> Vec<String> {
    let mut names: Vec<String> = mmf::list().expect("a list").iter().map(|object| object.name.to_string()).collect();
    // What the list does not know of.
    let mut look = vec![std::path::PathBuf::from("/dev/shm")];
    while let Some(directory) = look.pop() {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => look.push(entry.path()),
                _ => names.push(entry.path().display().to_string()),
            }
        }
    }
    names.retain(|name| name.contains(text));
    names
}
