//! A full or read-only `/dev/shm`: errors at creation and growth, nothing left behind, and space
//! that dead objects give up.
//!
//! Each test has a `/dev/shm` of its own, of a few megabytes. Linux only, where the tests know the
//! paths of objects.

use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;
use std::time::Duration;

use mmf::{Access, Dict, ErrorKind, Mapping, Name};
use testkit::{Peer, peer};

use crate::support::actor::{Actor, actor};
use crate::support::stories::{story, tells};
use crate::support::system::{self, NOBODY, mount, own_dev_shm};

testkit::peers! {
    actor, large_creator, too_large, full_growth, dead_make_room, dead_make_room_to_grow, dead_make_room_for_exact_names,
    squatted_and_full, crowded, creators_killed_in_vain, read_only, full_dict
}

const MIB: u64 = 1 << 20;
const DEV_SHM: &str = "/dev/shm";

/// Bytes in use in `/dev/shm`.
fn used() -> u64 {
    let stat = rustix::fs::statvfs(DEV_SHM).unwrap();
    (stat.f_blocks - stat.f_bfree) * stat.f_frsize
}

/// Everything in `/dev/shm`, the user's own directory included.
fn files() -> Vec<String> {
    let mut files = Vec::new();
    for dir in [DEV_SHM, "/dev/shm/mmf-0"] {
        let Ok(entries) = fs::read_dir(dir) else { continue };
        files.extend(entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()));
    }
    files.retain(|name| name != "mmf-0");
    files
}

fn local(text: &str) -> Name {
    Name::local(text).unwrap()
}

#[track_caller]
fn assert_no_space(outcome: mmf::Result<Mapping>) {
    let error = outcome.expect_err("there is no room for it");
    assert_eq!(*error.kind(), ErrorKind::NoSpace, "{error}");
    assert!(error.to_string().contains("/dev/shm"), "what to do about it is missing: {error}");
}

#[test]
#[ignore = "needs root: mounts a /dev/shm of its own"]
fn what_does_not_fit_is_refused_when_it_is_created_and_leaves_nothing() {
    story("too_large");
}

fn too_large(_: &[&str]) {
    own_dev_shm("size=16m,mode=1777");
    tells(|| {
        for scope in [Name::local, Name::global, Name::exact] {
            let name = scope("large".to_owned()).unwrap();
            // More than there is, and more than any machine has.
            for size in [16 * MIB + 1, 1 << 50] {
                assert_no_space(Mapping::create_new(&name, size));
                assert_no_space(Mapping::open_or_create(&name, size));
                assert_eq!(*Mapping::open(&name).unwrap_err().kind(), ErrorKind::NotFound);
            }
            assert_eq!((files(), used()), (vec![], 0));
        }
        let first = Mapping::create_new(local("first"), 12 * MIB).unwrap();
        first.fill(.., 7).unwrap();
        assert_no_space(Mapping::create_new(local("second"), 8 * MIB));
        assert_eq!(files(), ["mmf.first"]);
        assert!(first.read_to_vec(0, first.len()).unwrap().iter().all(|byte| *byte == 7));
        let fits = Mapping::create_new(local("fits"), 4 * MIB).unwrap();
        fits.fill(.., 8).unwrap();
        drop((first, fits));
        assert_eq!((files(), used()), (vec![], 0));
    });
}

#[test]
#[ignore = "needs root: mounts a /dev/shm of its own"]
fn growth_that_does_not_fit_leaves_the_length_and_the_memory_as_before() {
    story("full_growth");
}

fn full_growth(_: &[&str]) {
    own_dev_shm("size=16m,mode=1777");
    tells(|| {
        let map = Mapping::options().size(MIB).reserve(64 * MIB).create_new(local("grows")).unwrap();
        map.fill(.., 7).unwrap();
        let before = used();
        let error = map.grow(32 << 20).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::NoSpace, "{error}");
        assert_eq!(map.refresh().unwrap() as u64, MIB);
        assert_eq!(Mapping::open(local("grows")).unwrap().len() as u64, MIB);
        assert_eq!(used(), before, "the growth that failed keeps memory");
        map.grow(8 << 20).unwrap();
        assert_eq!(map.read_to_vec(0, 1).unwrap(), [7]);
        map.write_at((8 << 20) - 1, &[9]).unwrap();
    });
}

#[test]
#[ignore = "needs root: mounts a /dev/shm of its own"]
fn what_the_dead_left_in_either_scope_makes_room_for_what_is_created() {
    story("dead_make_room");
}

fn dead_make_room(_: &[&str]) {
    own_dev_shm("size=16m,mode=1777");
    tells(|| {
        for (dead, next) in [("name", "name"), ("global", "global"), ("name", "global"), ("global", "name")] {
            Actor::who(&format!("create {dead}:dead size={}", 12 * MIB)).dies();
            assert!(used() >= 12 * MIB, "the dead left nothing: nothing is tested");
            let mut living = Actor::who(&format!("create {next}:living size={}", 12 * MIB));
            assert_eq!(living.does("zeros"), "true");
            living.leaves();
        }
    });
}

#[test]
#[ignore = "needs root: mounts a /dev/shm of its own"]
fn what_the_dead_left_makes_room_for_what_grows() {
    story("dead_make_room_to_grow");
}

fn dead_make_room_to_grow(_: &[&str]) {
    own_dev_shm("size=16m,mode=1777");
    tells(|| {
        let map = Mapping::options().size(MIB).reserve(64 * MIB).create_new(local("grows")).unwrap();
        Actor::who(&format!("create name:dead size={}", 12 * MIB)).dies();
        map.grow(8 << 20).expect("the dead take up the room");
    });
}

#[test]
#[ignore = "needs root: mounts a /dev/shm of its own"]
fn what_the_dead_left_makes_room_for_exact_names() {
    story("dead_make_room_for_exact_names");
}

fn dead_make_room_for_exact_names(_: &[&str]) {
    own_dev_shm("size=16m,mode=1777");
    tells(|| {
        Actor::who(&format!("create name:dead size={}", 12 * MIB)).dies();
        let name = Name::exact("living").unwrap();
        Mapping::create_new(&name, 12 * MIB).expect("the dead take up the room");
        name.unlink().unwrap();
    });
}

#[test]
#[ignore = "needs root: mounts a /dev/shm of its own"]
fn a_squatted_directory_does_not_hide_that_there_is_no_room() {
    story("squatted_and_full");
}

fn squatted_and_full(_: &[&str]) {
    own_dev_shm("size=16m,mode=1777");
    tells(|| {
        fs::create_dir("/dev/shm/mmf-0").unwrap();
        chown("/dev/shm/mmf-0", Some(NOBODY), None).unwrap();
        assert_no_space(Mapping::create_new(Name::global("large").unwrap(), 20 * MIB));
    });
}

#[test]
#[ignore = "needs root: mounts a /dev/shm of its own"]
fn an_object_that_fits_once_can_be_opened_or_created_by_many_at_once() {
    story("crowded");
}

fn crowded(_: &[&str]) {
    own_dev_shm("size=300m,mode=1777");
    tells(|| {
        let mut crowd: Vec<Actor> = (0..8).map(|_| Actor::start()).collect();
        for round in 0..5 {
            crowd.iter_mut().for_each(|actor| actor.0.send(format!("make name:crowded{round} size={}", 200 * MIB)));
            for actor in &mut crowd {
                assert_eq!(actor.0.expect_line(), format!("ok {}", 200 * MIB), "in round {round}");
            }
            crowd.iter_mut().for_each(|actor| drop(actor.does("drop")));
        }
        crowd.into_iter().for_each(Actor::leaves);
    });
}

/// Creates and drops until it is killed.
fn large_creator(_: &[&str]) {
    peer::say("ready");
    loop {
        drop(Mapping::create_new(local("half"), 64 * MIB).unwrap());
    }
}

#[test]
#[ignore = "needs root: mounts a /dev/shm of its own"]
fn creators_killed_half_way_leave_no_memory_taken() {
    story("creators_killed_in_vain");
}

fn creators_killed_in_vain(_: &[&str]) {
    own_dev_shm("size=200m,mode=1777");
    tells(|| {
        for kill in 0..100_u64 {
            let mut creator = Peer::spawn("large_creator", &[]);
            creator.expect("ready");
            std::thread::sleep(Duration::from_micros(kill * 7919 % 30_000));
            creator.kill();
            assert!(!creator.wait().success());
            // A complete object that nobody holds at the most.
            assert!(used() <= 64 * MIB, "{} bytes are taken after kill {kill}", used());
        }
        mmf::sweep().unwrap();
        assert_eq!((files(), used()), (vec![], 0));
    });
}

#[test]
#[ignore = "needs root: mounts a /dev/shm of its own"]
fn where_nobody_can_write_nothing_is_created_and_what_exists_can_be_read() {
    story("read_only");
}

fn read_only(_: &[&str]) {
    own_dev_shm("size=16m,mode=1777");
    tells(|| {
        let holder = Mapping::create_new(local("held"), MIB).unwrap();
        holder.write_at(0, b"still here").unwrap();
        Actor::who(&format!("create name:dead size={MIB}")).dies();
        // Files that are open for writing keep a file system from becoming read-only; a second view of it is
        // another thing.
        mount(Some(c"/dev/shm"), c"/dev/shm", None, libc::MS_BIND, "");
        mount(None, c"/dev/shm", None, libc::MS_REMOUNT | libc::MS_BIND | libc::MS_RDONLY, "");

        for name in [local("new"), Name::global("new").unwrap(), Name::exact("new").unwrap(), local("dead")] {
            let error = Mapping::create_new(&name, MIB).unwrap_err();
            assert_eq!(*error.kind(), ErrorKind::ReadOnly, "{error}");
        }
        let error = Mapping::open(local("held")).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::ReadOnly, "{error}");
        let reader = Mapping::options().access(Access::ReadOnly).open(local("held")).unwrap();
        assert_eq!(reader.read_to_vec(0, 10).unwrap(), b"still here");
        let error = Mapping::options().access(Access::ReadOnly).open(local("dead")).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::NotFound, "{error}");
        assert!(mmf::list().unwrap().iter().any(|listed| listed.name == local("held")));
        let swept = mmf::sweep().unwrap();
        assert!(swept.iter().any(|swept| swept.name == local("dead") && swept.kept.is_some()), "{swept:?}");
        drop(reader);

        // Whoever can write again finds the one alive and the other dead, and removes each in its time.
        system::unmount(c"/dev/shm");
        drop(holder);
        mmf::sweep().unwrap();
        assert!(files().is_empty() && Path::new(DEV_SHM).exists());
    });
}

#[test]
#[ignore = "needs root: mounts a /dev/shm of its own"]
fn a_dict_whose_disk_is_full_can_be_changed_and_emptied() {
    story("full_dict");
}

fn full_dict(_: &[&str]) {
    own_dev_shm("size=4m,mode=1777");
    tells(|| {
        let path = Path::new(DEV_SHM).join("dict");
        let dict = Dict::create_new(path.as_path(), 64 * MIB).unwrap();
        dict.set_bytes("first", &[1; 100]).unwrap();
        // From here on a removal takes a record.
        dict.flush().unwrap();
        let mut keys = vec!["first".to_owned()];
        loop {
            let key = format!("filler {}", keys.len());
            match dict.set_bytes(&key, &[2; 40_000]) {
                Ok(_) => keys.push(key),
                Err(error) => break assert_eq!(*error.kind(), ErrorKind::NoSpace, "{error}"),
            }
        }
        // What was removed or replaced makes room once it is flushed, which who needs it does.
        assert!(dict.remove(&keys.pop().unwrap()).unwrap());
        for round in 3..20 {
            dict.set_bytes(&keys[5], &[round; 40_000]).unwrap();
        }
        for key in &keys {
            assert!(dict.remove(key).unwrap(), "{key}");
        }
        assert!(dict.is_empty().unwrap() && dict.check().unwrap().is_whole());
        for key in &keys {
            dict.set_bytes(key, &[4; 40_000]).unwrap();
        }
        drop(dict);
        fs::remove_file(&path).unwrap();
    });
}
