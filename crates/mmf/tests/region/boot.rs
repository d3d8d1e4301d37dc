//! Files that outlived the boot in which they were used: the first process that opens one clears
//! what its participants left, once.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::failed;
use mmf::{Access, ErrorKind, LockError, Mapping, Region};
use testkit::{TempDir, Watchdog};

/// Where things are in a segment, as `docs/format.md` tells.
const BOOT: usize = 1040;
const LOCK: usize = 2048;
const VERSION: usize = 2056;
const LOCK_QUEUE: usize = 2112;
const OCCUPIED: usize = 2176;
const SLOTS: usize = 4096;

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// A region in a file with these contents, then changed as `leave` tells, as of another boot.
fn left(dir: &TempDir, leave: impl FnOnce(&mut [u8])) -> PathBuf {
    let path = dir.join("region");
    let region = Region::create_new(&*path, 1 << 12).unwrap();
    region.write().unwrap().set(b"contents").unwrap();
    drop(region);
    let mut bytes = fs::read(&path).unwrap();
    assert_ne!(bytes[BOOT..BOOT + 16], [0; 16], "the system tells its boot");
    bytes[BOOT] ^= 1;
    leave(&mut bytes);
    fs::write(&path, bytes).unwrap();
    path
}

/// Slot `k` in use, with so many read locks.
fn occupy(bytes: &mut [u8], k: usize, readers: u8) {
    bytes[OCCUPIED + k / 8] |= 1 << (k % 8);
    bytes[SLOTS + 64 * k + 4] = readers;
    bytes[SLOTS + 64 * k + 8] = 99;
}

fn reader(path: &Path) -> Region {
    Region::options().access(Access::ReadOnly).timeout(Some(Duration::from_millis(50))).open(path).unwrap()
}

#[test]
fn participants_of_another_boot_are_not_there_and_hold_nothing() {
    let _watchdog = Watchdog::start(testkit::DEADLINE * 3);
    let dir = TempDir::new();
    // A full table: readers, one who waits, and a writer that had not begun.
    let path = left(&dir, |bytes| {
        (0..256).for_each(|k| occupy(bytes, k, u8::from(k % 3 == 0)));
        // With all its flags: STARVED, sleepers, watchers, and readers in each group.
        bytes[LOCK..LOCK + 3].copy_from_slice(&[200, 0, 0xfd]);
        bytes[LOCK_QUEUE + 8] = 0xff;
    });
    let read_only = reader(&path);
    assert_eq!(read_only.to_vec().unwrap(), b"contents");
    assert!(read_only.status().unwrap().participants.is_empty());
    let region = Region::open(&*path).unwrap();
    assert!(region.status().unwrap().participants.is_empty(), "to open takes no part");
    let since = Instant::now();
    region.write().unwrap().set(b"new").unwrap();
    assert!(since.elapsed() < Duration::from_secs(1), "{:?}", since.elapsed());
    let processes = |region: &Region| -> Vec<u32> {
        region.status().unwrap().participants.iter().map(|participant| participant.process).collect()
    };
    assert_eq!(processes(&region), [std::process::id()]);
    assert_eq!(processes(&read_only), [std::process::id()]);
    assert_eq!(read_only.to_vec().unwrap(), b"new");
}

#[test]
fn a_change_that_another_boot_left_half_made_is_poison_also_for_readers_without_a_lock() {
    let _watchdog = Watchdog::start(testkit::DEADLINE * 3);
    let writer_inside = |bytes: &mut [u8]| {
        occupy(bytes, 7, 0);
        bytes[LOCK] = 8;
    };
    let half_on_disk = |_: &mut [u8]| {};
    for leave in [&writer_inside as &dyn Fn(&mut [u8]), &half_on_disk] {
        let dir = TempDir::new();
        let path = left(&dir, |bytes| {
            bytes[VERSION] |= 1;
            leave(bytes);
        });
        let read_only = reader(&path);
        assert_eq!(*read_only.to_vec().unwrap_err().kind(), ErrorKind::Poisoned);
        assert!(read_only.is_poisoned().unwrap());
        let region = Region::open(&*path).unwrap();
        let Err(LockError::Poisoned(mut guard)) = region.write() else { panic!("no poison") };
        guard.set(b"mended").unwrap();
        region.clear_poison().unwrap();
        drop(guard);
        assert_eq!(read_only.to_vec().unwrap(), b"mended");
        drop((region, read_only));
        let bytes = fs::read(&path).unwrap();
        assert_eq!((u64_at(&bytes, LOCK) & 0x2ffff, bytes[VERSION] % 2), (0, 0));
    }
}

/// Processes of one boot may be told different ones: containers hide
/// `/proc/sys/kernel/random/boot_id`, or have their own.
#[test]
fn who_lives_wins_over_another_boot() {
    let _watchdog = Watchdog::start(testkit::DEADLINE * 3);
    let dir = TempDir::new();
    let path = dir.join("region");
    let region = Region::create_new(&*path, 1 << 12).unwrap();
    region.write().unwrap().set(b"contents").unwrap();
    let mut guard = region.write().unwrap();
    guard.write_at(0, b"new").unwrap();
    let raw = Mapping::open(&*path).unwrap();
    raw.store(BOOT, 1_u64, Ordering::SeqCst).unwrap();
    let read_only = reader(&path);
    assert_eq!(*read_only.to_vec().unwrap_err().kind(), ErrorKind::Contended);
    assert!(!read_only.is_poisoned().unwrap() && !region.is_poisoned().unwrap());
    let status = read_only.status().unwrap();
    assert!(!status.poisoned && status.participants.len() == 1 && status.participants[0].writing, "{status:?}");
    // A handle with another boot id waits for as long as it wants to, and is told for whom.
    thread::scope(|scope| {
        let late = || {
            let late = Region::options().timeout(Some(Duration::from_millis(60))).open(&*path).unwrap();
            let since = Instant::now();
            let is_timeout = |kind: &ErrorKind| match kind {
                ErrorKind::Timeout { holder: Some(holder) } => holder.process == std::process::id(),
                _ => false,
            };
            assert_eq!(failed(late.try_write()), ErrorKind::WouldBlock);
            assert!(is_timeout(&failed(late.write_for(Duration::from_millis(30)))));
            assert!(is_timeout(&failed(late.read())));
            // A checked participant lives, so this one attaches without waiting for the lock.
            assert_ne!(late.wait_changed(0, Instant::now() + Duration::from_secs(5)).unwrap(), 0);
            late.clear_poison().unwrap();
            assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
            late
        };
        let late = scope.spawn(late).join().unwrap();
        guard.write_at(0, b"newer").unwrap();
        drop(guard);
        assert_eq!(late.read().unwrap().to_vec().unwrap(), b"newernts");
        assert_eq!(read_only.to_vec().unwrap(), b"newernts");
        assert_eq!(read_only.status().unwrap().participants.len(), 2);
    });
    assert_eq!(raw.load::<u64>(BOOT, Ordering::SeqCst).unwrap(), 1, "containers do not take it from each other");
}

#[test]
fn a_copy_of_a_file_is_another_region_with_a_lock_of_its_own() {
    let _watchdog = Watchdog::start(testkit::DEADLINE * 3);
    let dir = TempDir::new();
    let (path, copied) = (dir.join("region"), dir.join("copy"));
    let region = Region::create_new(&*path, 1 << 12).unwrap();
    let mut guard = region.write().unwrap();
    guard.set(b"half").unwrap();
    fs::copy(&path, &copied).unwrap();
    guard.set(b"whole").unwrap();
    // In the copy, the writer of the original is dead.
    let copy = Region::options().timeout(Some(Duration::from_secs(2))).open(&*copied).unwrap();
    let own = match copy.write() {
        // On Windows tokens go by the segment's id, which is the original's.
        Err(LockError::Failed(error)) if cfg!(windows) => {
            assert!(matches!(error.kind(), ErrorKind::Timeout { .. }), "{error}");
            None
        }
        result => Some(result.err().unwrap().into_guard().unwrap()),
    };
    drop((own, guard));
    assert_eq!(region.to_vec().unwrap(), b"whole");
}

#[test]
fn of_many_who_come_first_one_clears_and_nobody_clears_what_another_did_since() {
    let _watchdog = Watchdog::start(testkit::DEADLINE * 3);
    for _ in 0..20 {
        let dir = TempDir::new();
        let path = left(&dir, |bytes| {
            (0..40).for_each(|k| occupy(bytes, k, u8::from(k % 2 == 0)));
            bytes[LOCK] = 3;
            bytes[VERSION] |= 1;
        });
        let all = Barrier::new(6);
        let poisons: usize = thread::scope(|scope| {
            let mends = || {
                let region = Region::open(&*path).unwrap();
                all.wait();
                let result = region.write();
                let poisoned = matches!(result, Err(LockError::Poisoned(_)));
                let mut guard = result.or_else(LockError::into_guard).unwrap();
                if poisoned {
                    guard.set(b"mended").unwrap();
                    region.clear_poison().unwrap();
                }
                assert_eq!(guard.to_vec().unwrap(), b"mended");
                usize::from(poisoned)
            };
            let threads: Vec<_> = (0..6).map(|_| scope.spawn(mends)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(poisons, 1);
        let bytes = fs::read(&path).unwrap();
        assert_eq!((u64_at(&bytes, LOCK) & 0x2ffff, u64_at(&bytes, OCCUPIED)), (0, 0));
    }
}
