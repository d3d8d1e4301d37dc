//! The victim: a process that makes every public call in random order and tells the coordinator of
//! each.
//!
//! Lines to the coordinator:
//!
//! - `b NAME BOUND`: a call begins. BOUND is `d` (a deadline) or `w` (work without one), and
//!   microseconds.
//! - `n NAME...`: calls that the one under way makes in turn, such as those of a transaction's
//!   body.
//! - `e WALL CPU DELAY HEAP SPACE OUTCOME`: it is over. Times are in microseconds: of the clock, of
//!   the processor, and in which the thread was ready but had no processor. HEAP is the peak of
//!   allocated bytes, SPACE the growth of the process's address space since the start, in KiB.
//! - `ready THREAD`: calls may begin, in this thread.
//! - `done`, `locked OUTCOME`, `repaired OUTCOME`: an order of the coordinator was carried out.
//!
//! Calls run in a thread with the stack that the library promises to be content with.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use mmf::{ErrorKind, LockError, Name, Source};
use rustix::process::{Resource, Rlimit, setrlimit};

use super::dict_calls::DictVictim;
use super::judge::Limits;
use super::meter;
use super::random::Random;
use super::region_calls::RegionVictim;
use super::script::Kind;
use crate::peer;

/// The stack of the thread that makes the calls.
const STACK: usize = if cfg!(debug_assertions) { 2 << 20 } else { 64 << 10 };
/// Once the attack is over, a lock is had within this time.
pub(super) const LOCK_WAIT: Duration = Duration::from_secs(1);

/// How long a call may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bound {
    /// It was given this deadline.
    Deadline(Duration),
    /// It has none, and its work is proportional to the capacity.
    Work(Duration),
}

/// What calls are given, and how they are measured.
pub(super) struct Calls {
    pub(super) random: Random,
    pub(super) timeout: Duration,
    pub(super) capacity: u64,
    work: Duration,
    schedule: Option<File>,
    status: Option<File>,
    text: Vec<u8>,
    baseline: u64,
}

/// What a victim does, by the kind of object.
pub(super) trait Victim {
    /// Creates the object and fills it.
    fn create(&mut self, calls: &mut Calls);
    /// Makes a call, or a few.
    fn step(&mut self, calls: &mut Calls);
    /// Takes the lock for writing, within [`LOCK_WAIT`], and changes something.
    fn lock(&mut self, calls: &mut Calls) -> Option<Result<(), ErrorKind>>;
    /// Makes whole what is damaged, where the object can be repaired.
    fn repair(&mut self, calls: &mut Calls) -> String;
    /// Drops all handles.
    fn close(&mut self, calls: &mut Calls);
}

/// The role. Arguments: kind, source, capacity, deadline in ms, seed.
pub fn victim(args: &[&str]) {
    let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
    let worker = thread::Builder::new().name("victim".to_owned()).stack_size(STACK).spawn(move || run(&args));
    worker.expect("a thread can be started").join().expect("calls are caught where they panic");
}

fn run(args: &[String]) {
    let [kind, source, capacity, timeout, seed] = args else { panic!("five arguments") };
    let kind = Kind::of(kind).expect("a kind");
    let source: Source = match kind {
        Kind::DictFile => PathBuf::from(source).into(),
        _ => Name::local(source).expect("a name").into(),
    };
    let capacity = capacity.parse().expect("a capacity");
    let timeout = Duration::from_millis(timeout.parse().expect("a deadline"));
    let limits = Limits::of(kind, capacity);
    let mut calls = Calls {
        random: Random::new(seed.parse().expect("a seed")),
        timeout,
        capacity,
        work: limits.work,
        schedule: File::open("/proc/thread-self/schedstat").ok(),
        status: File::open("/proc/self/status").ok(),
        text: vec![0; 4096],
        baseline: 0,
    };
    calls.baseline = calls.space();
    limit_space(calls.baseline * 1024 + limits.space + limits.space_beyond);
    meter::start();
    let mut victim: Box<dyn Victim> = match kind {
        Kind::RegionName => Box::new(RegionVictim::new(source, timeout, capacity)),
        _ => Box::new(DictVictim::new(source, timeout, capacity, kind == Kind::DictFile)),
    };
    // `PID/task/TID`.
    let thread = fs::read_link("/proc/thread-self").expect("a thread of Linux");
    peer::say(format!("ready {}", thread.display()));
    while let Some(order) = peer::hear() {
        match order.split(' ').collect::<Vec<_>>()[..] {
            ["create"] => {
                victim.create(&mut calls);
                peer::say("done");
            }
            ["work", milliseconds] => {
                let until = Instant::now() + Duration::from_millis(milliseconds.parse().expect("a number"));
                while Instant::now() < until {
                    victim.step(&mut calls);
                }
                peer::say("done");
            }
            ["lock"] => {
                let text = match victim.lock(&mut calls) {
                    Some(Ok(())) => "ok".to_owned(),
                    Some(Err(kind)) => name_of(&kind),
                    None => "unopened".to_owned(),
                };
                peer::say(format!("locked {text}"));
            }
            ["repair"] => peer::say(format!("repaired {}", victim.repair(&mut calls))),
            ["close"] => {
                victim.close(&mut calls);
                peer::say("done");
            }
            _ => panic!("an order that no victim knows: {order}"),
        }
    }
    victim.close(&mut calls);
}

/// Makes the system refuse more address space than this. Above the judge's limit, so that the judge
/// sees what was asked for.
fn limit_space(bytes: u64) {
    let limit = Rlimit { current: Some(bytes), maximum: Some(bytes) };
    setrlimit(Resource::As, limit).expect("a lower limit is allowed");
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }).expect("a lower limit is allowed");
}

/// The first word of an error's kind.
pub(super) fn name_of(kind: &ErrorKind) -> String {
    let text = format!("{kind:?}");
    text.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_owned()
}

/// How an error is told to the coordinator: its kind, and the system's number.
pub(super) trait Told {
    fn told(&self) -> String;
}

impl Told for mmf::Error {
    fn told(&self) -> String {
        let number = self.raw_os_error().map_or(String::new(), |number| format!(" os={number}"));
        format!("{}{number}", name_of(self.kind()))
    }
}

impl Told for io::Error {
    fn told(&self) -> String {
        match self.get_ref().and_then(|inner| inner.downcast_ref::<mmf::Error>()) {
            Some(error) => error.told(),
            None => format!("io::{:?} os={}", self.kind(), self.raw_os_error().unwrap_or(0)),
        }
    }
}

/// Takes a poisoned lock too, as a program does that mends.
pub(super) fn had<G>(result: Result<G, LockError<G>>) -> mmf::Result<G> {
    result.or_else(LockError::into_guard)
}

impl Calls {
    /// The bound of a call that keeps the handle's timeout.
    pub(super) fn usual(&self) -> Bound {
        Bound::Deadline(self.timeout)
    }

    /// The bound of a call without a deadline.
    pub(super) fn work(&self) -> Bound {
        Bound::Work(self.work)
    }

    /// Makes a call and tells of it; `None` where it failed.
    pub(super) fn call<T, E: Told>(
        &mut self,
        name: &str,
        bound: Bound,
        work: impl FnOnce() -> Result<T, E>,
    ) -> Option<T> {
        self.outcome(name, bound, work).and_then(Result::ok)
    }

    /// Ends a handle or a guard.
    pub(super) fn end<T>(&mut self, name: &str, value: T) {
        self.call(name, self.usual(), || {
            drop(value);
            Ok::<(), mmf::Error>(())
        });
    }

    /// As [`call`](Calls::call), with the error; `None` where it panicked.
    pub(super) fn outcome<T, E: Told>(
        &mut self,
        name: &str,
        bound: Bound,
        work: impl FnOnce() -> Result<T, E>,
    ) -> Option<Result<T, E>> {
        let (letter, time) = match bound {
            Bound::Deadline(time) => ('d', time),
            Bound::Work(time) => ('w', time),
        };
        peer::say(format!("b {name} {letter} {}", time.as_micros()));
        meter::reset();
        let (cpu, delay) = self.schedule();
        let began = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(work));
        let wall = began.elapsed().as_micros();
        let heap = meter::peak();
        let (cpu_after, delay_after) = self.schedule();
        let text = match &outcome {
            Ok(Ok(_)) => "ok".to_owned(),
            Ok(Err(error)) => error.told(),
            Err(payload) => {
                let text = payload.downcast_ref::<String>().map(String::as_str);
                let text = text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("?");
                format!("panic {}", text.replace('\n', " "))
            }
        };
        let space = self.space().saturating_sub(self.baseline);
        peer::say(format!(
            "e {wall} {} {} {heap} {space} {text}",
            (cpu_after - cpu) / 1000,
            (delay_after - delay) / 1000
        ));
        outcome.ok()
    }

    /// Tells of calls that the one under way has made in turn.
    pub(super) fn also(names: &[&str]) {
        peer::say(format!("n {}", names.join(" ")));
    }

    /// Nanoseconds that this thread had a processor, and that it waited for one
    /// (`/proc/[pid]/schedstat`).
    fn schedule(&self) -> (u64, u64) {
        let mut bytes = [0; 96];
        let Some(Ok(read)) = self.schedule.as_ref().map(|file| file.read_at(&mut bytes, 0)) else { return (0, 0) };
        schedule_in(&bytes[..read])
    }

    /// The largest that the process's address space has been, in KiB.
    fn space(&mut self) -> u64 {
        let Some(Ok(read)) = self.status.as_ref().map(|file| file.read_at(&mut self.text, 0)) else { return 0 };
        let text = std::str::from_utf8(&self.text[..read]).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmPeak:"));
        line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
    }
}

/// Reads the first two numbers of a `schedstat`.
pub(super) fn schedule_in(bytes: &[u8]) -> (u64, u64) {
    let text = std::str::from_utf8(bytes).unwrap_or_default();
    let mut numbers = text.split_whitespace().map(|word| word.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// Returns the path of the object, for the attacker.
pub(super) fn path_of(kind: Kind, source: &str) -> PathBuf {
    match kind {
        Kind::DictFile => source.into(),
        // `docs/format.md`, "Named memory".
        _ => {
            let user = fs::metadata("/proc/self").map_or(0, |metadata| std::os::unix::fs::MetadataExt::uid(&metadata));
            format!("/dev/shm/mmf-{user}/mmf.{source}").into()
        }
    }
}
