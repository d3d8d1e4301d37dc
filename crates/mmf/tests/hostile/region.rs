//! Regions beside hostile peers: they lock bytes of the file, truncate it, write nonsense into it,
//! or hold a lock for long.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use mmf::{Access, ErrorKind, LockError, Mapping, Region};
use testkit::{Peer, TempDir, Watchdog, peer};

use crate::support::failed;
use crate::support::system::{self, lock_byte};

testkit::peers! { holder }

/// Where things are, as `docs/format.md` tells: the lock's word, the first slot, the payload, and
/// the first slot's token.
const LOCK: usize = 2048;
const SLOTS: usize = 4096;
const PAYLOAD: usize = 20480;
const TOKENS: i64 = (1 << 62) + 64;

/// Is inside to `read`, or with a change `half` made.
fn holder(args: &[&str]) {
    let region = Region::open(Path::new(args[0])).unwrap();
    let (mut write, mut read) = (None, None);
    if args[1] == "read" {
        read = Some(region.read().unwrap());
    } else {
        write.insert(region.write().unwrap()).write_at(0, b"half").unwrap();
    }
    peer::say("inside");
    peer::hear();
    drop((read, write));
}

fn inside(path: &Path, how: &str) -> Peer {
    let mut peer = Peer::spawn("holder", &[path.to_str().unwrap(), how]);
    peer.expect("inside");
    peer
}

/// Takes a shared lock, for which the right to read is enough, on the token of every slot without a
/// living participant.
fn block_the_dead(path: &Path) -> File {
    let file = File::open(path).unwrap();
    let blocked = (0..256).filter(|slot| lock_byte(&file, libc::F_RDLCK, TOKENS + slot)).count();
    assert!(blocked > 200, "{blocked} slots");
    file
}

#[test]
fn who_may_only_read_cannot_keep_the_lock_of_the_dead() {
    let _watchdog = Watchdog::start(testkit::DEADLINE * 3);
    for how in ["read", "half"] {
        let dir = TempDir::new();
        let path = dir.join("region");
        let region = Region::create_new(&*path, 4096).unwrap();
        region.write().unwrap().set(b"whole").unwrap();
        let mut dead = inside(&path, how);
        dead.kill();
        dead.wait();
        let _blocks = block_the_dead(&path);
        let result = region.write_for(testkit::DEADLINE);
        assert_eq!(matches!(result, Err(LockError::Poisoned(_))), how == "half", "{how}: {:?}", result.err());
    }
}

/// Where they cannot have the dead one's token each for himself.
#[test]
fn of_many_who_clear_up_at_once_one_is_told_of_poison() {
    let _watchdog = Watchdog::start(testkit::DEADLINE * 6);
    for _ in 0..20 {
        let dir = TempDir::new();
        let path = dir.join("region");
        let handles: Vec<Region> = (0..4).map(|_| Region::open_or_create(&*path, 4096).unwrap()).collect();
        for handle in &handles {
            handle.write().unwrap().set(b"whole").unwrap();
        }
        let mut dead = inside(&path, "half");
        dead.kill();
        dead.wait();
        let _blocks = block_the_dead(&path);
        let all = Barrier::new(handles.len());
        let poisons: usize = thread::scope(|scope| {
            let mends = |region: &Region| {
                all.wait();
                let mut poisons = 0;
                for _ in 0..50 {
                    let result = region.write_for(testkit::DEADLINE);
                    let poisoned = matches!(result, Err(LockError::Poisoned(_)));
                    let mut guard = result.or_else(LockError::into_guard).unwrap();
                    if poisoned {
                        region.clear_poison().unwrap();
                        poisons += 1;
                    }
                    guard.set(b"mended").unwrap();
                }
                poisons
            };
            let threads: Vec<_> = handles.iter().map(|region| scope.spawn(move || mends(region))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(poisons, 1);
        assert_eq!(handles[0].version().unwrap() % 2, 0);
    }
}

/// A peer may write the lock's word, and the bytes behind the slots.
#[test]
fn a_writer_that_no_segment_has_is_not_named() {
    let _watchdog = Watchdog::start(testkit::DEADLINE * 3);
    let dir = TempDir::new();
    let path = dir.join("region");
    let region = Region::create_new(&*path, 1 << 16).unwrap();
    region.write().unwrap().set(&[0x41; 1 << 16]).unwrap();
    let (nobody, raw) = (299, Mapping::open(&*path).unwrap());
    assert!((PAYLOAD..PAYLOAD + (1 << 16)).contains(&(SLOTS + 64 * nobody)));
    let file = File::options().read(true).write(true).open(&path).unwrap();
    assert!(lock_byte(&file, libc::F_WRLCK, TOKENS + i64::try_from(nobody).unwrap()));
    raw.store(LOCK, nobody as u64 + 1, Ordering::SeqCst).unwrap();
    assert_eq!(failed(region.write_for(Duration::from_millis(30))), ErrorKind::Timeout { holder: None });
    assert!(region.status().unwrap().participants.iter().all(|participant| !participant.writing));
    drop(file);
    assert!(region.write_for(testkit::DEADLINE).is_ok());
}

fn set_len(path: &PathBuf, len: usize) {
    File::options().write(true).open(path).unwrap().set_len(len as u64).unwrap();
}

#[test]
fn a_change_that_fails_halfway_is_poison_unless_all_is_replaced() {
    for (replaced, expected) in [(false, true), (true, false)] {
        let dir = TempDir::new();
        let path = dir.join("region");
        let region = Region::create_new(&*path, 1 << 17).unwrap();
        region.write().unwrap().set(&[1; 1 << 17]).unwrap();
        let mut guard = region.write().unwrap();
        set_len(&path, PAYLOAD + (1 << 16));
        let error = guard.write_at(0, &[2; 1 << 17]).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Fault { .. }), "{error}");
        if replaced {
            guard.set(b"short").unwrap();
        }
        drop(guard);
        set_len(&path, PAYLOAD + (1 << 17));
        assert_eq!(matches!(region.read(), Err(LockError::Poisoned(_))), expected);
        // The next change is another.
        region.clear_poison().unwrap();
        region.write().unwrap().set(b"whole").unwrap();
        assert!(region.read().is_ok());
    }
}

/// Of this thread.
fn processor_time() -> Duration {
    // SAFETY: plain integers, for which zeros are valid.
    let mut used: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: writes one `rusage`.
    system::checked(unsafe { libc::getrusage(libc::RUSAGE_THREAD, &raw mut used) });
    let time = |of: libc::timeval| {
        Duration::from_secs(of.tv_sec.try_into().unwrap()) + Duration::from_micros(of.tv_usec.try_into().unwrap())
    };
    time(used.ru_utime) + time(used.ru_stime)
}

#[test]
fn who_reads_without_a_lock_sleeps_while_a_change_takes_long() {
    let _watchdog = Watchdog::start(testkit::DEADLINE * 3);
    let dir = TempDir::new();
    let path = dir.join("region");
    let region = Region::create_new(&*path, 4096).unwrap();
    let mut guard = region.write().unwrap();
    guard.set(b"half").unwrap();
    let timeout = Duration::from_millis(1500);
    let reader = Region::options().access(Access::ReadOnly).timeout(Some(timeout)).open(&*path).unwrap();
    let before = processor_time();
    assert_eq!(*reader.to_vec().unwrap_err().kind(), ErrorKind::Contended);
    let used = processor_time() - before;
    assert!(used < timeout / 10, "{used:?}");
}
