//! The operations in which a process dies, and what must be there before.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::time::{Duration, Instant};

use mmf::{LockError, Region};

use super::traced::{Helper, Line, mark};

pub(super) const OLD: &[u8] = b"what was there before";
const NEW: &[u8] = b"the new contents, which are longer than those before";
const HALF: &[u8] = b"half";
const CAPACITY: u64 = 1 << 17;
/// Past the first room that a region is given.
const FAR: usize = 24 << 10;
/// Where a segment tells its last boot.
const BOOT: u64 = 1040;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Open,
    Attach,
    Read,
    Write,
    Patch,
    Panic,
    Grow,
    WaitForChange,
    WakeAfterChange,
    WaitForLock,
    HandOver,
    ReapWriter,
    ReapReader,
    OtherBoot,
    Detach,
}

pub(super) const OPERATIONS: [Operation; 15] = [
    Operation::Open,
    Operation::Attach,
    Operation::Read,
    Operation::Write,
    Operation::Patch,
    Operation::Panic,
    Operation::Grow,
    Operation::WaitForChange,
    Operation::WakeAfterChange,
    Operation::WaitForLock,
    Operation::HandOver,
    Operation::ReapWriter,
    Operation::ReapReader,
    Operation::OtherBoot,
    Operation::Detach,
];

fn open(path: &Path) -> Region {
    Region::options().timeout(Some(Duration::from_secs(2))).open(path).expect("the region")
}

/// The lock, with whatever report.
fn any<G>(result: Result<G, LockError<G>>) -> G {
    result.or_else(LockError::into_guard).expect("the lock")
}

impl Operation {
    /// Contents that may be seen without a report of poison.
    pub(super) fn whole(self) -> Vec<Vec<u8>> {
        let old = OLD.to_vec();
        match self {
            Operation::Open | Operation::Attach | Operation::Read | Operation::WaitForChange | Operation::Detach => {
                vec![old]
            }
            Operation::Write | Operation::WakeAfterChange | Operation::HandOver | Operation::ReapReader => {
                vec![old, NEW.to_vec()]
            }
            Operation::Patch => vec![old, b"what WAS".to_vec()],
            // Without a panic there is nothing new, and with one there is poison.
            Operation::Panic => vec![old],
            Operation::Grow => {
                let mut grown = old.clone();
                grown.resize(FAR, 0);
                vec![old, grown]
            }
            // Their holder has half written, and is dead in the copy.
            Operation::WaitForLock => vec![],
            Operation::ReapWriter | Operation::OtherBoot => vec![NEW.to_vec()],
        }
    }

    /// Makes the region, and processes that live or died in it.
    pub(super) fn prepare(self, path: &Path) -> Vec<Helper> {
        let region = Region::create_new(path, CAPACITY).expect("a new region");
        region.write().expect("the lock").set(OLD).expect("room for the first contents");
        drop(region);
        let (work, dies): (fn(&mut Line, &Path), bool) = match self {
            Operation::WakeAfterChange => (sleeps_for_changes, false),
            Operation::WaitForLock => (holds_for_writing, false),
            Operation::HandOver => (waits_for_the_lock, false),
            Operation::ReapWriter | Operation::OtherBoot => (holds_for_writing, true),
            Operation::ReapReader => (holds_for_reading, true),
            _ => return Vec::new(),
        };
        let mut helper = Helper::start(|line| work(line, path));
        assert_eq!(helper.hear().as_deref(), Some("there"), "a helper");
        if dies {
            helper.kill();
        }
        if self == Operation::OtherBoot {
            let file = OpenOptions::new().write(true).open(path).expect("the region's file");
            file.write_all_at(b"another boot's..", BOOT).expect("room in the header");
        }
        vec![helper]
    }

    /// What the traced process does, between two marks.
    pub(super) fn act(self, path: &Path) {
        if self == Operation::Open {
            mark();
            std::mem::forget(open(path));
            return mark();
        }
        let region = open(path);
        if !matches!(
            self,
            Operation::Attach
                | Operation::ReapWriter
                | Operation::ReapReader
                | Operation::OtherBoot
                | Operation::WaitForLock
                | Operation::HandOver
        ) {
            drop(any(region.read()));
        }
        match self {
            Operation::Open => {}
            Operation::Attach | Operation::Read => {
                mark();
                assert!(any(region.read()).to_vec().is_ok());
                mark();
            }
            Operation::Write | Operation::WakeAfterChange | Operation::ReapReader => {
                mark();
                any(region.write()).set(NEW).expect("room");
                mark();
            }
            Operation::Patch => {
                mark();
                let mut guard = any(region.write());
                guard.resize(8).expect("room");
                guard.write_at(5, b"WAS").expect("room");
                drop(guard);
                mark();
            }
            Operation::Panic => {
                mark();
                let _ = panic::catch_unwind(AssertUnwindSafe(|| {
                    let mut guard = any(region.write());
                    guard.write_at(0, HALF).expect("room");
                    panic::resume_unwind(Box::new(()));
                }));
                mark();
            }
            Operation::Grow => {
                mark();
                any(region.write()).resize(FAR).expect("room");
                mark();
            }
            Operation::WaitForChange => {
                let since = region.version().expect("a version");
                mark();
                let _ = region.wait_changed(since, Instant::now() + Duration::from_millis(60));
                mark();
            }
            Operation::WaitForLock => {
                mark();
                assert!(region.write_for(Duration::from_millis(30)).is_err());
                mark();
            }
            Operation::HandOver => {
                let mut guard = any(region.write());
                // The helper asks all the time, and is asleep by then.
                std::thread::sleep(Duration::from_millis(10));
                mark();
                guard.set(NEW).expect("room");
                drop(guard);
                mark();
            }
            Operation::ReapWriter | Operation::OtherBoot => {
                mark();
                let mut guard = any(region.write());
                guard.set(NEW).expect("room");
                region.clear_poison().expect("room");
                drop(guard);
                mark();
            }
            Operation::Detach => {
                mark();
                drop(region);
                return mark();
            }
        }
        std::mem::forget(region);
    }
}

fn holds_for_writing(line: &mut Line, path: &Path) {
    let region = open(path);
    let mut guard = any(region.write());
    guard.write_at(0, HALF).expect("room");
    line.say("there");
    line.hear();
}

fn holds_for_reading(line: &mut Line, path: &Path) {
    let region = open(path);
    let _guard = any(region.read());
    line.say("there");
    line.hear();
}

fn sleeps_for_changes(line: &mut Line, path: &Path) {
    let region = open(path);
    let since = region.version().expect("a version");
    // Once without a sleep, to take part.
    let _ = region.wait_changed(since, Instant::now());
    line.say("there");
    loop {
        let _ = region.wait_changed(since, Instant::now() + Duration::from_secs(1));
    }
}

fn waits_for_the_lock(line: &mut Line, path: &Path) {
    let region = open(path);
    drop(any(region.read()));
    line.say("there");
    loop {
        drop(any(region.read()));
        std::thread::sleep(Duration::from_millis(1));
    }
}
