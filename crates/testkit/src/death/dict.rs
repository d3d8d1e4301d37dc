//! Death at every instruction of a dict's changes.
//!
//! As in a region, but for what must be there afterwards: all of the change or nothing of it, for a reader without a lock, for
//! one with it, and after the next writer has finished what was begun.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::hash::{DefaultHasher, Hasher};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mmf::{Access, Mapping};

use super::dict_operation::{OPERATIONS, Operation, at};
use super::dict_survivor::{self, Manner};
use super::stores::{StoreTarget, Stores};
use super::traced::{Child, Helper, Stop};
use super::{Deaths, ENDLESS};

/// After so many instructions everything is compared, whatever they seemed to do.
const OFTEN: u64 = 10_000;

impl Deaths {
    /// As [`run`](Deaths::run), with the changes of a dict.
    ///
    /// # Panics
    ///
    /// If the system refuses what is needed: memory, processes, `ptrace`.
    #[must_use]
    pub fn run_dict(&self, dir: &Path) -> bool {
        let mut run = Run {
            survivors: [dict_survivor::start("a"), dict_survivor::start("b")],
            dir: dir.to_owned(),
            files: 0,
            half: Vec::new(),
            began: Instant::now(),
            random: u64::from(std::process::id()) << 20 | 1,
            steps: 0,
            states: 0,
            kills: 0,
            failures: 0,
            found: BTreeMap::new(),
            longest: Duration::ZERO,
        };
        let operations: Vec<Operation> =
            OPERATIONS.into_iter().filter(|operation| !self.short || operation.is_short()).collect();
        for (number, operation) in operations.iter().enumerate() {
            let samples = self.samples / operations.len() + usize::from(number < self.samples % operations.len());
            run.run_operation(*operation, samples, self);
        }
        println!(
            "{} steps, {} distinct states, each recovered twice; {} real kills; {} failures; {:.1?}",
            run.steps,
            run.states,
            run.kills,
            run.failures,
            run.began.elapsed()
        );
        println!("found by those who went on: {:?}; longest wait for a lock: {:.1?}", run.found, run.longest);
        run.failures == 0
    }
}

struct Run {
    survivors: [Helper; 2],
    dir: PathBuf,
    files: usize,
    /// What a transaction's process leaves that dies with half of its redo log carried out.
    half: Vec<u8>,
    began: Instant,
    random: u64,
    steps: u64,
    states: usize,
    kills: usize,
    failures: usize,
    found: BTreeMap<String, usize>,
    longest: Duration,
}

/// One change, led to its end.
struct Walk {
    steps: u64,
    /// Steps that were system calls.
    calls: Vec<u64>,
    /// Distinct states that it left.
    states: usize,
}

/// Where in a change a process is killed: behind so many system calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct KillPoint {
    calls: usize,
    then: Then,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// Before the next system call.
    ToCall,
    /// So many instructions on.
    Steps(u64),
}

/// Stands for a state: two hashes, so that no two are taken for one.
fn hash(state: &[u8]) -> [u64; 2] {
    [1_u8, 2].map(|salt| {
        let mut hasher = DefaultHasher::new();
        hasher.write_u8(salt);
        hasher.write(state);
        hasher.finish()
    })
}

impl Run {
    fn path(&mut self) -> PathBuf {
        self.files += 1;
        self.dir.join(self.files.to_string())
    }

    fn run_operation(&mut self, operation: Operation, samples: usize, plan: &Deaths) {
        let began = Instant::now();
        let (kills, failures) = (self.kills, self.failures);
        let walk = self.walk(operation, plan.longest);
        if walk.steps <= plan.longest {
            for nth in 0..walk.calls.len().min(plan.calls) {
                self.kill_at(operation, KillPoint { calls: nth, then: Then::ToCall });
                self.kill_at(operation, KillPoint { calls: nth + 1, then: Then::Steps(0) });
            }
            for _ in 0..samples {
                self.random =
                    self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let step = (self.random >> 33) % walk.steps.max(1);
                // From the call before: to stop at each instruction takes long.
                let calls = walk.calls.partition_point(|call| *call <= step);
                let from = calls.checked_sub(1).map_or(0, |last| walk.calls[last]);
                self.kill_at(operation, KillPoint { calls, then: Then::Steps(step - from) });
            }
        }
        println!(
            "{:<16} {:>7} steps, {:>3} system calls, {:>4} states, {:>4} kills, {} failures, {:.1?}",
            format!("{operation:?}"),
            walk.steps,
            walk.calls.len(),
            walk.states,
            self.kills - kills,
            self.failures - failures,
            began.elapsed()
        );
        self.steps += walk.steps;
        self.states += walk.states;
    }

    /// Leads a process through it, and has each state of the shared bytes recovered, all of them, from a copy.
    fn walk(&mut self, operation: Operation, longest: u64) -> Walk {
        let path = self.path();
        operation.prepare(&path, &self.half);
        let child = Child::traced(|| operation.act(&path));
        let view = Mapping::options().access(Access::ReadOnly).open(&path).expect("the file");
        let read = |bytes: &mut Vec<u8>| {
            let len = view.refresh().expect("the file's length");
            bytes.resize(len, 0);
            view.read_at(0, bytes).expect("the file's bytes");
        };
        let mut walk = Walk { steps: 0, calls: Vec::new(), states: 0 };
        let mut bytes = Vec::new();
        read(&mut bytes);
        let (first, mut last) = (bytes.clone(), Vec::new());
        let (mut seen, mut open) = (HashSet::new(), Vec::new());
        let mut stores = Stores::new(&child, &path);
        let mut look = true;
        let ended = loop {
            if look && bytes != last {
                last.clone_from(&bytes);
                if seen.insert(hash(&bytes)) {
                    self.recover(operation, &bytes, walk.steps);
                    if operation == Operation::Transaction && bytes[at::REDO_LEN..at::REDO_LEN + 8] != [0; 8] {
                        open.push(bytes.clone());
                    }
                }
            }
            let reach = stores.next();
            match child.step() {
                Stop::Stepped => walk.steps += 1,
                Stop::Marked => break true,
                Stop::Other(status) => {
                    self.fail(&format!("{operation:?} ended at step {} with {status:#x}", walk.steps));
                    break false;
                }
            }
            if walk.steps > longest {
                if longest == ENDLESS {
                    self.fail(&format!("{operation:?} does not end"));
                }
                break false;
            }
            if matches!(reach, StoreTarget::Call) {
                walk.calls.push(walk.steps);
                stores.find_views();
            }
            look = match &reach {
                StoreTarget::Nothing => walk.steps % OFTEN == 0,
                StoreTarget::Bytes(range) => {
                    let range = range.start..range.end.min(last.len());
                    view.read_to_vec(range.start, range.len()).expect("the file's bytes") != last[range]
                }
                StoreTarget::Anything | StoreTarget::Call => true,
            };
            if look {
                read(&mut bytes);
                if !reach.covers(&last, &bytes) {
                    self.fail(&format!("{operation:?}: nobody saw a store before step {}", walk.steps));
                }
            }
        };
        read(&mut bytes);
        if ended && bytes != last {
            self.fail(&format!("{operation:?}: nobody saw its last store"));
        }
        // A bucket that is long may be so after it was split.
        if ended && operation != Operation::Shorten && !operation.has_happened(&first, &bytes) {
            self.fail(&format!("{operation:?} is not what it says"));
        }
        if !open.is_empty() {
            self.half = open.swap_remove(open.len() / 2);
        }
        walk.states = seen.len();
        child.kill();
        let _ = fs::remove_file(path);
        walk
    }

    /// Has two go on with a copy, once one after the other and once both at once.
    fn recover(&mut self, operation: Operation, state: &[u8], step: u64) {
        let place = format!("{operation:?} after {step} steps");
        for at_once in [false, true] {
            let path = self.path();
            fs::write(&path, state).expect("room for a copy");
            self.check_recovery(operation, &path, at_once, &place);
        }
    }

    /// Leads a process there, and kills it.
    fn kill_at(&mut self, operation: Operation, at: KillPoint) {
        let path = self.path();
        operation.prepare(&path, &self.half);
        let child = Child::traced(|| operation.act(&path));
        // Each call is stopped at twice.
        let calls = 2 * at.calls + usize::from(at.then == Then::ToCall);
        let steps = if let Then::Steps(steps) = at.then { steps } else { 0 };
        // The seed of the hashes is another each time, so the way may be shorter.
        let _ = (0..calls).all(|_| child.to_system_call() == Stop::Stepped)
            && (0..steps).all(|_| child.step() == Stop::Stepped);
        self.kills += 1;
        let place = format!("{operation:?}, killed at {at:?}");
        // Every other time somebody waits already.
        if self.kills % 2 == 0 {
            dict_survivor::send(&mut self.survivors[1], operation, Manner::Beside, &path);
            std::thread::sleep(Duration::from_millis(4));
            child.kill();
            dict_survivor::send(&mut self.survivors[0], operation, Manner::Beside, &path);
            self.hear(0, &place);
            self.hear(1, &place);
            self.check_rest(&path, &place);
        } else {
            child.kill();
            self.check_recovery(operation, &path, self.kills % 4 == 1, &place);
        }
    }

    fn check_recovery(&mut self, operation: Operation, path: &Path, at_once: bool, place: &str) {
        let manners = if at_once { [Manner::Beside; 2] } else { [Manner::Alone, Manner::Last] };
        for (number, manner) in manners.into_iter().enumerate() {
            dict_survivor::send(&mut self.survivors[number], operation, manner, path);
            if !at_once {
                self.hear(number, place);
            }
        }
        if at_once {
            self.hear(0, place);
            self.hear(1, place);
        }
        self.check_rest(path, place);
    }

    fn hear(&mut self, survivor: usize, place: &str) {
        let Some(answer) = self.survivors[survivor].hear() else {
            panic!("{place}: a judge is silent for five seconds")
        };
        let words: Vec<&str> = answer.split(' ').collect();
        match words[..] {
            ["found", what, microseconds] => {
                *self.found.entry(what.to_owned()).or_default() += 1;
                let waited = Duration::from_micros(microseconds.parse().unwrap_or(u64::MAX));
                self.longest = self.longest.max(waited);
            }
            _ => self.fail(&format!("{place}: {answer}")),
        }
    }

    /// Nothing of the dead is left where the living look.
    fn check_rest(&mut self, path: &Path, place: &str) {
        let bytes = fs::read(path).expect("the file");
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        let readers: u32 = (0..256).map(|slot| word(super::at::SLOTS + slot * 64 + 4)).sum();
        let (lock, redo_log) = (word(super::at::LOCK), word(at::REDO_LEN));
        if lock & super::at::LOCKED != 0 || redo_log != 0 || readers != 0 {
            self.fail(&format!("{place}: left are lock {lock:#x}, journal {redo_log}, {readers} readers"));
        }
        let _ = fs::remove_file(path);
    }

    fn fail(&mut self, what: &str) {
        self.failures += 1;
        if self.failures <= 40 {
            eprintln!("death: {what}");
        }
    }
}
