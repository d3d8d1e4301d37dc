//! One trial: an object, two victims that use it, a fresh process that comes afterwards, and the
//! attacker.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use super::attacker::{self, Object};
use super::coordinator::Coordinator;
use super::judge::Outcome;
use super::random::Random;
use super::script::{Kind, Script};
use super::victim::path_of;
use crate::unique_name;

/// The number of the fresh process.
const FRESH: usize = 2;
/// A step of the attack that takes its time is not waited for longer before the trial goes on.
const WORK: Duration = Duration::from_millis(150);

/// Removes the object, however the trial ends.
struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        // The last handle has removed it by name, mostly.
        let _ = fs::remove_file(&self.0);
    }
}

/// Makes a trial.
pub(super) fn run(script: &Script) -> Outcome {
    let mut random = Random::new(u64::from(script.seed));
    let name = unique_name("attack");
    let source = match script.kind {
        // On a file system in memory: the time that a disk takes to sync is not the library's.
        Kind::DictFile => format!("/dev/shm/{name}"),
        _ => name,
    };
    let path = path_of(script.kind, &source);
    let _removed = Removed(path.clone());
    let args = |seed: u64| {
        let (kind, timeout) = (script.kind.text().to_owned(), script.timeout.as_millis().to_string());
        vec![kind, source.clone(), script.capacity.to_string(), timeout, seed.to_string()]
    };
    let mut coordinator = Coordinator::new();
    let victims = [coordinator.start(&args(random.next())), coordinator.start(&args(random.next()))];
    let fresh_args = args(random.next());
    coordinator.answers(&victims);
    coordinator.ask(victims[0], "create");
    let Ok(mut object) = Object::open(&path, script) else {
        coordinator.end(&victims);
        return std::mem::take(&mut coordinator.outcome);
    };
    // Both victims may drop all handles in the middle; the object stays.
    let kept = File::open(&path).ok().filter(hold);
    attack(&mut coordinator, &victims, script, &mut object, &mut random);
    take_locks(&mut coordinator, &victims, &fresh_args);
    coordinator.end(&victims);
    drop(kept);
    if script.kind == Kind::DictFile {
        let repaired = coordinator.ask(FRESH, "repair");
        coordinator.outcome.repaired = repaired.and_then(|line| line.strip_prefix("repaired ").map(ToOwned::to_owned));
    }
    coordinator.end(&[FRESH]);
    std::mem::take(&mut coordinator.outcome)
}

fn attack(coordinator: &mut Coordinator, victims: &[usize], script: &Script, object: &mut Object, random: &mut Random) {
    let (stop, made) = (AtomicBool::new(false), AtomicU64::new(0));
    let work = WORK + script.timeout;
    let begin = Duration::from_micros(random.below(u64::try_from(work.as_micros()).unwrap_or(0) / 3));
    thread::scope(|scope| {
        let attacker = scope.spawn(|| attacker::attack(object, script, begin, &stop, &made));
        for victim in victims {
            coordinator.order(*victim, &format!("work {}", work.as_millis()));
        }
        coordinator.answers(victims);
        stop.store(true, Ordering::Relaxed);
        attacker.join().expect("the attacker panics nowhere");
    });
    coordinator.outcome.mutations = made.load(Ordering::Relaxed);
    object.restore();
}

/// Lets the victims take the lock, twice where that fails, and then a fresh process.
fn take_locks(coordinator: &mut Coordinator, victims: &[usize], fresh_args: &[String]) {
    let mut last = Vec::new();
    for _ in 0..2 {
        last.clear();
        for victim in victims {
            last.push((*victim, locked(coordinator, *victim)));
        }
        if last.iter().all(|(_, text)| text == "ok") {
            break;
        }
    }
    let fresh = coordinator.start(fresh_args);
    coordinator.answers(&[fresh]);
    last.push((fresh, locked(coordinator, fresh)));
    coordinator.ask(fresh, "close");
    // A victim that died has a violation of its own.
    coordinator.outcome.locks = last.into_iter().filter(|(_, text)| text != "dead").collect();
}

fn locked(coordinator: &mut Coordinator, victim: usize) -> String {
    let Some(line) = coordinator.ask(victim, "lock") else { return "dead".to_owned() };
    let text = line.strip_prefix("locked ").unwrap_or(&line);
    if text != "unopened" {
        return text.to_owned();
    }
    // What the opening failed with tells whether it was the lock.
    let last = coordinator.outcome.calls.iter().rev().find(|call| call.victim == victim);
    last.map_or_else(String::new, |call| call.outcome.clone())
}

/// Takes a share of the live byte, as `docs/format.md` says, so that the object keeps its name.
fn hold(file: &File) -> bool {
    // SAFETY: plain integers, for which zeros are valid.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    assert_eq!((libc::F_RDLCK, libc::SEEK_SET), (0, 0));
    (lock.l_start, lock.l_len) = (1 << 62, 1);
    // SAFETY: the descriptor is open, and the command reads one `flock`.
    let outcome = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) };
    outcome == 0
}

/// Whether this system has what a trial needs.
pub(super) fn is_possible() -> bool {
    Path::new("/dev/shm").is_dir()
}
