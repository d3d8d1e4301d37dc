//! A process opens regions and dicts, gives up the rights that opening needed, and then uses the
//! handles for the first time: a daemon that starts as root, or a program in a sandbox.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mmf::{Dict, ErrorKind, LockError, Mapping, Name, Region, Source};
use testkit::{TempDir, unique_name};

use crate::support::sandbox;
use crate::support::stories::{story, tells};
use crate::support::system::{self, NOBODY, become_user, checked, fork};

testkit::peers! {
    another_user, another_effective_user, another_root, no_open
}

/// What a process uses after it has given something up.
struct Handles {
    regions: Vec<Region>,
    dicts: Vec<Dict>,
}

const LARGE: usize = 3 << 20;

fn sources(dir: &TempDir) -> Vec<Source> {
    let name = unique_name("dropped");
    vec![Name::local(&name).unwrap().into(), Name::global(&name).unwrap().into(), dir.join(&name).into()]
}

impl Handles {
    fn create(regions: &[Source], dicts: &[Source]) -> Handles {
        Handles {
            regions: regions.iter().map(|source| Region::create_new(source.clone(), 16 << 20).unwrap()).collect(),
            dicts: dicts.iter().map(|source| Dict::create_new(source.clone(), 32 << 20).unwrap()).collect(),
        }
    }

    fn open(regions: &[Source], dicts: &[Source]) -> Handles {
        Handles {
            regions: regions.iter().map(|source| Region::open(source.clone()).unwrap()).collect(),
            dicts: dicts.iter().map(|source| Dict::open(source.clone()).unwrap()).collect(),
        }
    }

    /// All that a handle for writing can do, by one that was not used before.
    fn use_all(&self) {
        for region in &self.regions {
            let before = region.version().unwrap();
            let mut guard = region.write().unwrap();
            guard.set(b"begun").unwrap();
            guard.resize(LARGE).unwrap();
            guard.write_at(LARGE - 4, b"done").unwrap();
            drop(guard);
            let bytes = region.read().unwrap().to_vec().unwrap();
            assert_eq!((bytes.len(), &bytes[LARGE - 4..]), (LARGE, &b"done"[..]));
            assert!(region.wait_changed(before, Instant::now() + testkit::DEADLINE).unwrap() > before);
            assert_eq!((region.is_poisoned().unwrap(), region.status().unwrap().participants.len()), (false, 1));
            region.sync().unwrap();
        }
        for dict in &self.dicts {
            dict.set_bytes("small", b"value").unwrap();
            // It grows.
            dict.set_bytes("large", &vec![7; LARGE]).unwrap();
            dict.transaction(|tx| tx.set_bytes("other", b"value")).unwrap();
            dict.remove("small").unwrap();
            assert_eq!(dict.get_bytes("large").unwrap().unwrap().len(), LARGE);
            assert_eq!(dict.len().unwrap(), 2);
            dict.flush().unwrap();
            dict.set_bytes("small", b"after").unwrap();
            dict.flush().unwrap();
            assert!(dict.check().unwrap().is_whole());
        }
    }
}

/// Uses handles that were created and opened before `give_up`.
#[track_caller]
fn works_after(give_up: impl Fn()) {
    tells(|| {
        let dir = TempDir::new();
        let (regions, dicts) = (sources(&dir), sources(&dir));
        fork(|| {
            let created = Handles::create(&regions, &dicts);
            give_up();
            created.use_all();
            drop(created);
            0
        })
        .ends_with(0);
        // What the child could not remove any more.
        mmf::sweep().unwrap();
        let (regions, dicts) = (sources(&dir), sources(&dir));
        let created = Handles::create(&regions, &dicts);
        fork(|| {
            let opened = Handles::open(&regions, &dicts);
            give_up();
            opened.use_all();
            drop(opened);
            0
        })
        .ends_with(0);
        for dict in &created.dicts {
            assert_eq!(dict.get_bytes("small").unwrap().unwrap(), b"after");
        }
        recovers_after(&regions[0], &give_up);
    });
}

/// A handle whose process has given up its rights gets the lock of a dead writer.
fn recovers_after(source: &Source, give_up: impl Fn()) {
    let turn = Mapping::anonymous(4096).unwrap();
    let wait_for = |number: u32| {
        let since = Instant::now();
        while turn.load::<u32>(0, Ordering::SeqCst).unwrap() != number {
            assert!(since.elapsed() < testkit::DEADLINE, "the other process never comes to turn {number}");
            std::thread::sleep(Duration::from_micros(100));
        }
    };
    let holder = fork(|| {
        let region = Region::open(source.clone()).unwrap();
        let mut guard = region.write().unwrap();
        guard.write_at(0, b"half").unwrap();
        turn.store(0, 1_u32, Ordering::SeqCst).unwrap();
        system::sleep_for_ever()
    });
    wait_for(1);
    let heir = fork(|| {
        let region = Region::open(source.clone()).unwrap();
        give_up();
        let refused = match region.try_write() {
            Err(LockError::Failed(error)) => *error.kind() == ErrorKind::WouldBlock,
            _ => false,
        };
        turn.store(0, 2_u32, Ordering::SeqCst).unwrap();
        let poisoned = matches!(region.write_for(testkit::DEADLINE), Err(LockError::Poisoned(_)));
        i32::from(!refused || !poisoned)
    });
    wait_for(2);
    holder.dies();
    heir.ends_with(0);
}

#[test]
#[ignore = "needs root: becomes another user"]
fn a_handle_works_after_its_process_has_become_another_user() {
    story("another_user");
}

fn another_user(_: &[&str]) {
    works_after(|| become_user(NOBODY));
}

#[test]
#[ignore = "needs root: becomes another user"]
fn a_handle_works_after_its_process_has_become_another_user_for_a_while() {
    story("another_effective_user");
}

fn another_effective_user(_: &[&str]) {
    works_after(|| {
        // SAFETY: takes a number only.
        checked(unsafe { libc::setegid(NOBODY) });
        // SAFETY: takes a number only.
        checked(unsafe { libc::seteuid(NOBODY) });
    });
}

#[test]
#[ignore = "needs root: changes its root directory"]
fn a_handle_works_after_its_process_has_changed_its_root_directory() {
    story("another_root");
}

fn another_root(_: &[&str]) {
    let empty = TempDir::new();
    let path = CString::new(empty.path().as_os_str().as_bytes()).unwrap();
    works_after(|| {
        // SAFETY: a string that ends with a zero.
        checked(unsafe { libc::chroot(path.as_ptr()) });
        // SAFETY: a string that ends with a zero.
        checked(unsafe { libc::chdir(c"/".as_ptr()) });
    });
}

#[test]
fn a_handle_works_after_its_process_has_gone_into_a_sandbox_without_open() {
    story("no_open");
}

fn no_open(_: &[&str]) {
    works_after(|| sandbox::enter(&sandbox::OPENS, sandbox::Answer::Error(libc::EPERM)));
}
