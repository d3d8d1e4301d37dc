//! Death at every instruction.
//!
//! A process is led through an operation instruction by instruction (`ptrace(2)`). Whenever the shared bytes have changed,
//! or the locks that are held on the file, the bytes are copied. On each copy, to which no lock belongs, so that
//! everybody in it is dead, two fresh processes must be able to go on: they see the old contents or the new or a report of
//! poison, lock, write, and leave nothing behind. Then, at each system call and at instructions chosen at random, a
//! process is killed for real, and the same two go on with what it left, one of them often waiting already.

mod creation;
mod dict;
mod dict_operation;
mod dict_survivor;
mod operation;
mod stores;
mod survivor;
mod traced;

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mmf::{Access, Mapping};

use creation::CREATIONS;
use operation::{OPERATIONS, Operation};
use survivor::Manner;
use traced::{Child, Helper, Stop};

/// Where in a segment things are, as the format says; what is looked at after each instruction, the rest after system
/// calls and at the end.
mod at {
    use std::ops::Range;

    pub(super) const LOCK: usize = 2048;
    /// The holder of the lock, STARVED and POISON. The other bits may be left: each is looked
    /// behind, and then taken away.
    pub(super) const LOCKED: u32 = 0x3_ffff;
    pub(super) const VERSION: usize = 2056;
    pub(super) const SLOTS: usize = 4096;
    pub(super) const PAYLOAD: usize = SLOTS + 256 * 64;
    pub(super) const OFTEN: [Range<usize>; 2] = [1024..SLOTS + 8 * 64, PAYLOAD..PAYLOAD + 256];
    /// The locks of participants.
    pub(super) const TOKENS: i64 = (1 << 62) + 64;
}

/// More instructions than any operation has.
const ENDLESS: u64 = 3_000_000;

/// How much of it is done. All operations are led through, and all that they leave is recovered.
#[derive(Clone, Copy, Debug)]
pub struct Deaths {
    /// Real kills at instructions chosen at random, all operations together.
    pub samples: usize,
    /// How many system calls of an operation are died at, before them and after.
    pub calls: usize,
    /// Instructions after which an operation is left alone. One that has more is not died in for real, since each time it is
    /// led there anew.
    pub longest: u64,
    /// Of a dict's changes, only those that take few instructions.
    pub short: bool,
}

impl Deaths {
    /// Each system call, and so many other instructions.
    #[must_use]
    pub fn all(samples: usize) -> Deaths {
        Deaths { samples, calls: usize::MAX, longest: ENDLESS, short: false }
    }

    /// Does it and prints what came of it; whether all went well. The files go into this directory,
    /// which should be in memory, and which the caller removes.
    ///
    /// # Panics
    ///
    /// If the system refuses what is needed: memory, processes, `ptrace`.
    #[must_use]
    pub fn run(&self, dir: &Path) -> bool {
        let mut run = Run::start(dir);
        let operations = OPERATIONS.len() + CREATIONS.len();
        let samples = |number: usize| self.samples / operations + usize::from(number < self.samples % operations);
        for (number, operation) in OPERATIONS.iter().enumerate() {
            run.run_operation(*operation, samples(number), self);
        }
        for (number, creation) in CREATIONS.iter().enumerate() {
            run.test_creation(*creation, samples(OPERATIONS.len() + number), self);
        }
        run.report();
        run.failures == 0
    }
}

struct Run {
    survivors: [Helper; 2],
    dir: PathBuf,
    files: usize,
    began: Instant,
    random: u64,
    steps: u64,
    changes: usize,
    states: usize,
    kills: usize,
    failures: usize,
    found: BTreeMap<String, usize>,
    /// The longest wait for a lock on a copy, and after a real kill.
    longest: [Duration; 2],
}

/// One operation, led to its end.
struct Walk {
    steps: u64,
    /// Steps that were system calls.
    calls: Vec<u64>,
    states: Vec<Vec<u8>>,
}

/// What is told of one operation.
struct Row {
    steps: u64,
    calls: usize,
    changes: usize,
    states: usize,
    /// Kills and failures before its own.
    before: (usize, usize),
    began: Instant,
}

impl Run {
    fn start(dir: &Path) -> Run {
        Run {
            survivors: [survivor::start("a"), survivor::start("b")],
            dir: dir.to_owned(),
            files: 0,
            began: Instant::now(),
            random: u64::from(std::process::id()) << 20 | 1,
            steps: 0,
            changes: 0,
            states: 0,
            kills: 0,
            failures: 0,
            found: BTreeMap::new(),
            longest: [Duration::ZERO; 2],
        }
    }

    fn path(&mut self) -> PathBuf {
        self.files += 1;
        self.dir.join(self.files.to_string())
    }

    fn run_operation(&mut self, operation: Operation, samples: usize, plan: &Deaths) {
        let began = Instant::now();
        let walk = self.walk(operation, plan.longest);
        let mut seen = HashSet::new();
        for (number, state) in walk.states.iter().enumerate() {
            if seen.insert(state) {
                for at_once in [false, true] {
                    let path = self.path();
                    fs::write(&path, state).expect("room for a copy");
                    let place = format!("{operation:?}, state {number} of {}", walk.states.len());
                    self.check_recovery(operation, &path, at_once, 0, &place);
                }
            }
        }
        let (kills, failures) = (self.kills, self.failures);
        if walk.steps <= plan.longest {
            for step in walk.calls.iter().take(plan.calls) {
                self.kill_at(operation, step - 1);
                self.kill_at(operation, *step);
            }
            for _ in 0..samples {
                let step = self.random() % walk.steps.max(1);
                self.kill_at(operation, step);
            }
        }
        let row = Row {
            steps: walk.steps,
            calls: walk.calls.len(),
            changes: walk.states.len(),
            states: seen.len(),
            before: (kills, failures),
            began,
        };
        self.tell(&format!("{operation:?}"), &row);
    }

    fn tell(&mut self, what: &str, row: &Row) {
        println!(
            "{what:<16} {:>7} steps, {:>3} system calls, {:>3} changes, {:>3} states, {:>4} kills, {} failures, {:.1?}",
            row.steps,
            row.calls,
            row.changes,
            row.states,
            self.kills - row.before.0,
            self.failures - row.before.1,
            row.began.elapsed()
        );
        self.steps += row.steps;
        self.changes += row.changes;
        self.states += row.states;
    }

    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.random >> 33
    }

    /// Leads a process through it, and copies each state that it leaves.
    fn walk(&mut self, operation: Operation, longest: u64) -> Walk {
        let path = self.path();
        let helpers = operation.prepare(&path);
        let child = Child::traced(|| operation.act(&path));
        let view = Mapping::options().access(Access::ReadOnly).open(&path).expect("the file");
        let file = File::open(&path).expect("the file");
        let all = |view: &Mapping| view.refresh().and_then(|len| view.read_to_vec(0, len)).expect("the file's bytes");
        let often = |view: &Mapping| at::OFTEN.map(|range| view.read_to_vec(range.start, range.len()).expect("bytes"));
        let mut walk = Walk { steps: 0, calls: Vec::new(), states: vec![all(&view)] };
        let (mut parts, mut locks) = (often(&view), held(&file));
        loop {
            let call = child.is_at_system_call();
            match child.step() {
                Stop::Stepped => walk.steps += 1,
                Stop::Marked => break,
                Stop::Other(status) => {
                    self.fail(&format!("{operation:?} ended at step {} with {status:#x}", walk.steps));
                    break;
                }
            }
            if walk.steps > longest {
                if longest == ENDLESS {
                    self.fail(&format!("{operation:?} does not end"));
                }
                break;
            }
            let parts_now = often(&view);
            let mut changed = parts_now != parts;
            parts = parts_now;
            if call {
                walk.calls.push(walk.steps);
                let locks_now = held(&file);
                changed |= locks_now != locks || walk.states.last().is_none_or(|last| *last != all(&view));
                locks = locks_now;
            }
            if changed {
                walk.states.push(all(&view));
            }
        }
        drop(helpers);
        child.kill();
        let _ = fs::remove_file(path);
        walk
    }

    /// Leads a process that far, and kills it.
    fn kill_at(&mut self, operation: Operation, step: u64) {
        let path = self.path();
        let mut helpers = operation.prepare(&path);
        let child = Child::traced(|| operation.act(&path));
        for _ in 0..step {
            if child.step() != Stop::Stepped {
                break;
            }
        }
        self.kills += 1;
        for helper in &mut helpers {
            helper.kill();
        }
        let place = format!("{operation:?}, killed after {step} steps");
        // Every other time somebody waits already.
        if self.kills % 2 == 0 {
            let [first, second] = &mut self.survivors;
            survivor::send(second, operation, Manner::Mends, &path);
            std::thread::sleep(Duration::from_millis(4));
            child.kill();
            survivor::send(first, operation, Manner::Mends, &path);
            self.hear_both(1, &path, &place);
        } else {
            child.kill();
            self.check_recovery(operation, &path, self.kills % 4 == 1, 1, &place);
        }
    }

    fn check_recovery(&mut self, operation: Operation, path: &Path, at_once: bool, which: usize, place: &str) {
        let [first, second] = &mut self.survivors;
        if at_once {
            survivor::send(first, operation, Manner::Mends, path);
            survivor::send(second, operation, Manner::Mends, path);
            self.hear_both(which, path, place);
        } else {
            survivor::send(first, operation, Manner::Looks, path);
            let answer = first.hear();
            self.hear(answer, which, place);
            survivor::send(&mut self.survivors[1], operation, Manner::Mends, path);
            let answer = self.survivors[1].hear();
            self.hear(answer, which, place);
            self.check_rest(path, place);
        }
    }

    fn hear_both(&mut self, which: usize, path: &Path, place: &str) {
        for number in 0..2 {
            let answer = self.survivors[number].hear();
            self.hear(answer, which, place);
        }
        self.check_rest(path, place);
    }

    fn hear(&mut self, answer: Option<String>, which: usize, place: &str) {
        let Some(answer) = answer else { panic!("{place}: a judge is silent for five seconds") };
        let words: Vec<&str> = answer.split(' ').collect();
        match words[..] {
            ["found", what, microseconds] => {
                *self.found.entry(what.to_owned()).or_default() += 1;
                let waited = Duration::from_micros(microseconds.parse().unwrap_or(u64::MAX));
                self.longest[which] = self.longest[which].max(waited);
            }
            _ => self.fail(&format!("{place}: {answer}")),
        }
    }

    /// Nothing of the dead is left where the living look.
    fn check_rest(&mut self, path: &Path, place: &str) {
        let bytes = fs::read(path).expect("the file");
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        let readers: u32 = (0..256).map(|slot| word(at::SLOTS + slot * 64 + 4)).sum();
        let (lock, version) = (word(at::LOCK), word(at::VERSION));
        if lock & at::LOCKED != 0 || version % 2 != 0 || readers != 0 {
            self.fail(&format!("{place}: left are lock {lock:#x}, version {version}, {readers} readers"));
        }
        let _ = fs::remove_file(path);
    }

    fn fail(&mut self, what: &str) {
        self.failures += 1;
        if self.failures <= 40 {
            eprintln!("death: {what}");
        }
    }

    fn report(&self) {
        let build = if cfg!(debug_assertions) { "debug" } else { "release" };
        println!(
            "{} steps, {} changes of bytes or locks, {} distinct states, each recovered twice; {} real kills; \
             {} failures; {build} build, {:.1?}",
            self.steps,
            self.changes,
            self.states,
            self.kills,
            self.failures,
            self.began.elapsed()
        );
        println!("found by those who went on: {:?}", self.found);
        let [copies, kills] = self.longest;
        println!("longest wait for a lock: {copies:.1?} in copies, {kills:.1?} after real kills");
    }
}

/// The locks of participants that are held on a file.
fn held(file: &File) -> Vec<i64> {
    let mut found = Vec::new();
    let mut from = at::TOKENS;
    loop {
        // SAFETY: plain integers, for which zeros are valid.
        let mut lock: libc::flock = unsafe { std::mem::zeroed() };
        (lock.l_type, lock.l_whence) = (0, 0);
        assert_eq!((libc::F_RDLCK, libc::SEEK_SET), (0, 0));
        (lock.l_start, lock.l_len) = (from, at::TOKENS + 256 - from);
        // SAFETY: the descriptor is open, and the command reads and writes one `flock`.
        let done = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &raw mut lock) };
        assert_eq!(done, 0, "fcntl: {}", std::io::Error::last_os_error());
        if i32::from(lock.l_type) == libc::F_UNLCK {
            return found;
        }
        // Of a run of locked bytes the system tells the first one or all of it.
        found.push(lock.l_start);
        from = lock.l_start + 1;
        if from >= at::TOKENS + 256 {
            return found;
        }
    }
}
