//! A second user of the machine tries to delay the creations of the first: with locks on what both
//! can open, and with thousands of files.
//!
//! Each story has a `/dev/shm` of its own.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use mmf::ErrorKind;

use crate::support::actor::{Actor, actor};
use crate::support::intruder::{Intruder, intruder};
use crate::support::second_user::{INTRUDER, SIZE, owner};
use crate::support::stories::{story, tells};
use crate::support::system::{NOBODY, own_dev_shm};

testkit::peers! { actor, intruder, locked_directory, crowded_directory, crowded_own_directory }

#[test]
#[ignore = "needs root: becomes other users"]
fn another_users_lock_on_the_shared_directory_delays_no_creation() {
    story("locked_directory");
}

fn locked_directory(_: &[&str]) {
    own_dev_shm("mode=1777,size=64m");
    tells(|| {
        let mut intruder = Intruder::of(INTRUDER);
        intruder.does("flock /dev/shm");
        let mut owner = owner();
        for name in ["global:large", "name:large"] {
            let since = Instant::now();
            owner.does(&format!("create {name} size={}", 4 << 20));
            let waited = since.elapsed();
            owner.does("drop");
            assert!(waited < Duration::from_millis(500), "{name}: {waited:?}");
            let since = Instant::now();
            owner.is_refused(&format!("create {name} size={}", 100 << 20), &ErrorKind::NoSpace);
            let waited = since.elapsed();
            assert!(waited < Duration::from_secs(1), "{name}: {waited:?}");
        }
        owner.leaves();
        intruder.leaves();
    });
}

/// The longest time of some creations.
fn slowest_creation(owner: &mut Actor, name: &str) -> Duration {
    let times = (0..9).map(|_| {
        let since = Instant::now();
        owner.does(&format!("create {name} size={SIZE}"));
        let took = since.elapsed();
        owner.does("drop");
        took
    });
    times.max().unwrap()
}

const CROWD: u32 = 100_000;

#[test]
#[ignore = "needs root: becomes other users"]
fn another_users_files_by_the_thousand_do_not_delay_creations() {
    story("crowded_directory");
}

fn crowded_directory(_: &[&str]) {
    own_dev_shm("mode=1777,size=256m");
    tells(|| {
        let mut owner = owner();
        let before = slowest_creation(&mut owner, "global:x");
        let mut intruder = Intruder::of(INTRUDER);
        intruder.does(&format!("fill /dev/shm mmf.stray- {CROWD}"));
        let after = slowest_creation(&mut owner, "global:x");
        eprintln!("creation: {before:?}, with {CROWD} files of another user {after:?}");
        assert!(after < Duration::from_millis(50), "{after:?}");
        // Memory that the dead left is still found where it is needed.
        let mut dies = Actor::who(&format!("become {NOBODY}"));
        dies.does(&format!("create global:dead size={}", 200 << 20));
        dies.dies();
        owner.does(&format!("create global:x size={}", 200 << 20));
        assert!(!Path::new("/dev/shm/mmf.dead").exists());
        owner.leaves();
        intruder.leaves();
    });
}

#[test]
#[ignore = "needs root: becomes other users"]
fn what_the_dead_left_by_the_thousand_is_removed_bit_by_bit() {
    story("crowded_own_directory");
}

fn crowded_own_directory(_: &[&str]) {
    own_dev_shm("mode=1777,size=256m");
    tells(|| {
        for (name, dir) in [("global:x", "/dev/shm"), ("name:x", "/dev/shm/mmf-65534")] {
            let mut owner = owner();
            let before = slowest_creation(&mut owner, name);
            let mut filler = Intruder::of(NOBODY);
            filler.does(&format!("fill {dir} mmf.stray- {CROWD}"));
            filler.leaves();
            let after = slowest_creation(&mut owner, name);
            let left = fs::read_dir(dir).unwrap().count();
            eprintln!("creation of {name}: {before:?}, with {CROWD} files of the same user {after:?}, {left} are left");
            assert!(after < Duration::from_millis(50), "{after:?}");
            assert!(left < CROWD as usize, "none was removed");
            // A few are removed by a few creations, wherever they lie.
            owner.does("sweep name:none");
            assert!(fs::read_dir(dir).unwrap().count() < 3);
            owner.leaves();
        }
    });
}
