//! Foreign files in the place of an object: links, fifos, other users' directories, stopped
//! processes. The library follows none, waits for none without a bound, and harms none.
//!
//! Linux only, where the tests know the paths of objects.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use mmf::{Access, Error, ErrorKind, Mapping, Name};
use testkit::{Peer, TempDir, Watchdog, peer, unique_name};

use crate::support::actor::{Actor, actor};
use crate::support::stories::{story, tells};
use crate::support::system::{self, NOBODY, interrupt_every, make_fifo, own_dev_shm, own_mounts, take_exclusively};

testkit::peers! {
    actor, links, strangers, byte_holder, interrupted, spawning, squatted, no_shared_directory
}

const SIZE: u64 = 8192;

/// A name in each scope that mmf judges, with the file that would hold it.
fn places() -> [(Name, PathBuf); 2] {
    let local = Name::local(unique_name("hostile")).unwrap();
    // Makes the directory.
    let location = Mapping::create_new(&local, SIZE).unwrap().info().unwrap().location.unwrap();
    let global = Name::global(unique_name("hostile")).unwrap();
    let path = Path::new("/dev/shm").join(format!("mmf.{}", global.as_str()));
    [(local, PathBuf::from(location)), (global, path)]
}

/// Every way to get at an object, each of which must fail, and not by waiting.
#[track_caller]
fn refusals(name: &Name) -> [Error; 4] {
    let since = Instant::now();
    let errors = [
        Mapping::open(name).expect_err("open"),
        Mapping::options().access(Access::ReadOnly).open(name).expect_err("open read-only"),
        Mapping::create_new(name, SIZE).expect_err("create"),
        Mapping::open_or_create(name, SIZE).expect_err("open or create"),
    ];
    assert!(since.elapsed() < Duration::from_secs(1), "{:?} went by: {errors:?}", since.elapsed());
    errors
}

#[test]
fn a_symbolic_link_in_an_objects_place_is_refused_and_its_target_is_untouched() {
    story("links");
}

fn links(_: &[&str]) {
    tells(|| {
        let dir = TempDir::new();
        let (target, missing) = (dir.join("target"), dir.join("missing"));
        fs::write(&target, "precious").unwrap();
        for (name, path) in places() {
            for points_to in [&target, &missing] {
                symlink(points_to, &path).unwrap();
                for error in refusals(&name) {
                    let text = error.to_string();
                    assert!(text.contains("symbolic link") && text.contains(name.as_str()), "{text}");
                }
                assert!(mmf::list().unwrap().iter().all(|listed| listed.name != name), "{name} is listed");
                assert!(mmf::sweep().unwrap().iter().all(|swept| swept.name != name), "{name} is swept");
                assert!(path.symlink_metadata().is_ok(), "the link is somebody's, and was removed");
                fs::remove_file(&path).unwrap();
            }
        }
        assert_eq!(fs::read(&target).unwrap(), b"precious");
        assert!(!missing.exists(), "it was created through the link");
    });
}

#[test]
fn a_fifo_a_socket_and_a_directory_in_an_objects_place_are_refused_at_once_for_what_they_are() {
    story("strangers");
}

fn strangers(_: &[&str]) {
    tells(|| {
        for (name, path) in places() {
            let makers: [fn(&Path); 3] =
                [make_fifo, |path| drop(UnixListener::bind(path).unwrap()), |path| fs::create_dir(path).unwrap()];
            for make in makers {
                make(&path);
                let before = path.symlink_metadata().unwrap();
                for error in refusals(&name) {
                    let misleading = [ErrorKind::Busy, ErrorKind::NotFound].contains(error.kind());
                    assert!(!misleading && error.to_string().contains(name.as_str()), "{error}");
                }
                assert!(mmf::list().unwrap().iter().all(|listed| listed.name != name), "{name} is listed");
                let after = path.symlink_metadata().expect("it is somebody's, and was removed");
                assert_eq!(after.file_type(), before.file_type());
                if after.is_dir() { fs::remove_dir(&path) } else { fs::remove_file(&path) }.unwrap();
            }
        }
    });
}

#[test]
fn an_object_whose_size_was_tampered_with_opens_as_it_is_or_is_refused() {
    let _watchdog = Watchdog::start(testkit::DEADLINE * 3);
    let name = Name::local(unique_name("size")).unwrap();
    let mut holder = Actor::who(&format!("create {name} size={SIZE}"));
    let file = fs::File::options().write(true).open(holder.does("where")).unwrap();
    let mut opener = Actor::start();
    for size in [0, 1, 4095, 5000, 1 << 33] {
        file.set_len(size).unwrap();
        if isize::try_from(size).is_err() {
            opener.is_refused(&format!("open {name}"), &ErrorKind::InvalidInput { reason: String::new() });
            continue;
        }
        for access in ["", " ro"] {
            assert_eq!(opener.does(&format!("open {name}{access}")), size.to_string());
            opener.is_refused(&format!("read {size} 1"), &ErrorKind::OutOfBounds { offset: 0, len: 0, size: 0 });
            if size > 0 {
                opener.does(&format!("read {} 1", size - 1));
            }
            opener.does("drop");
        }
        let demand = format!("open {name} size={}", size + 1);
        opener.is_refused(&demand, &ErrorKind::Mismatch { what: "", wanted: String::new(), found: String::new() });
    }
    // As large as a file can be: more than any process can address, behind the live byte too.
    for size in [1 << 50, (1 << 62) + 4096, i64::MAX as u64] {
        if file.set_len(size).is_ok() {
            let reply = opener.ask(&format!("open {name}"));
            assert!(["NoSpace: ", "InvalidInput: ", "Other: "].iter().any(|kind| reply.starts_with(kind)), "{reply}");
        }
    }
    file.set_len(SIZE).unwrap();
    assert_eq!(opener.does(&format!("open {name}")), SIZE.to_string());
    opener.leaves();
    holder.leaves();
}

/// Makes an object's file, holds its live byte exclusively and then gives it its name.
fn byte_holder(args: &[&str]) {
    let path = Path::new(args[0]);
    let unnamed = path.with_file_name(unique_name("unnamed"));
    fs::write(&unnamed, [1; 100]).unwrap();
    let held = take_exclusively(&unnamed);
    fs::rename(&unnamed, path).unwrap();
    peer::say("held");
    peer::hear();
    drop(held);
}

#[test]
fn a_stopped_process_that_makes_or_removes_an_object_is_waited_for_a_second_and_no_longer() {
    let _watchdog = Watchdog::start(testkit::DEADLINE * 3);
    for (name, path) in places() {
        let mut stopped = Peer::spawn("byte_holder", &[path.to_str().unwrap()]);
        stopped.expect("held");
        stopped.stop();
        let ways: [fn(&Name) -> mmf::Result<Mapping>; 3] =
            [|name| Mapping::open(name), |name| Mapping::create_new(name, SIZE), |n| Mapping::open_or_create(n, SIZE)];
        for way in ways {
            let since = Instant::now();
            let error = way(&name).expect_err("somebody has it");
            assert_eq!(*error.kind(), ErrorKind::Busy, "{error}");
            let waited = since.elapsed();
            assert!((900..4000).contains(&waited.as_millis()), "{waited:?} went by");
        }
        assert!(path.exists(), "it was taken from under a process that has it");
        stopped.cont();
        stopped.finish();
        assert_eq!(*Mapping::open(&name).expect_err("nobody has it now").kind(), ErrorKind::NotFound);
        Mapping::create_new(&name, SIZE).expect("nobody has it now");
    }
}

/// Creates and grows large memory while signals come faster than the system can allocate it.
fn interrupted(_: &[&str]) {
    const LARGE: usize = 768 << 20;
    interrupt_every(Duration::from_millis(2));
    let name = Name::local(unique_name("large")).unwrap();
    drop(Mapping::create_new(&name, LARGE as u64).unwrap());
    peer::say("created");
    let growing = Mapping::options().size(4096).reserve(LARGE as u64).anonymous().unwrap();
    growing.grow(LARGE).unwrap();
    peer::say("grown");
}

#[test]
fn signals_that_come_all_the_time_do_not_keep_a_large_object_from_being_made() {
    let _watchdog = Watchdog::start(testkit::DEADLINE * 4);
    let mut peer = Peer::spawn("interrupted", &[]);
    peer.expect("created");
    peer.expect("grown");
    peer.finish();
}

/// A process that another thread starts has all descriptors of this one for an instant, close-on-exec or not.
fn spawning(_: &[&str]) {
    let name = Name::local(unique_name("spawn")).unwrap();
    let ended = AtomicBool::new(false);
    let outcome = thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                assert!(Command::new("/bin/true").status().unwrap().success());
            }
        });
        // Seconds, mostly; on a machine with much other work fewer rounds, since each takes its time.
        let since = Instant::now();
        let mut rounds = (0..20_000).take_while(|_| since.elapsed() < testkit::DEADLINE / 2);
        let outcome = rounds.try_for_each(|round| {
            drop(Mapping::create_new(&name, SIZE).map_err(|error| format!("round {round}: {error}"))?);
            match Mapping::open(&name) {
                Ok(_) => Err(format!("round {round}: it lives on after its last holder")),
                Err(error) if *error.kind() == ErrorKind::NotFound => Ok(()),
                Err(error) => Err(format!("round {round}: {error}")),
            }
        });
        ended.store(true, Ordering::Relaxed);
        outcome
    });
    peer::say(format!("{outcome:?}"));
}

#[test]
fn a_name_dropped_while_another_thread_starts_a_process_is_free_at_once() {
    let _watchdog = Watchdog::start(testkit::DEADLINE * 4);
    let mut peer = Peer::spawn("spawning", &[]);
    assert_eq!(peer.expect_line_within(testkit::DEADLINE * 2), "Ok(())");
    peer.finish();
}

/// Each thing that can stand where the user's own directory belongs, in a `/dev/shm` where nobody else is disturbed.
fn squatted(_: &[&str]) {
    own_dev_shm("mode=1777");
    let own = Path::new("/dev/shm/mmf-0");
    let (elsewhere, target) = (Path::new("/dev/shm/elsewhere"), Path::new("/dev/shm/elsewhere/mmf.x"));
    let global = Name::global("x").unwrap();
    let local = Name::local("x").unwrap();
    let with_mode = |mode| fs::set_permissions(own, fs::Permissions::from_mode(mode)).unwrap();
    for squat in ["nobody's", "0755", "0770", "link", "file", "fifo"] {
        fs::create_dir(elsewhere).unwrap();
        match squat {
            "link" => symlink(elsewhere, own).unwrap(),
            "file" => fs::write(own, "squat").unwrap(),
            "fifo" => make_fifo(own),
            mode => {
                fs::create_dir(own).unwrap();
                with_mode(u32::from_str_radix(mode, 8).unwrap_or(0o700));
                if mode == "nobody's" {
                    chown(own, Some(NOBODY), None).unwrap();
                }
            }
        }
        for error in refusals(&local) {
            let text = error.to_string();
            assert!(text.contains("/dev/shm/mmf-0"), "{squat}: {text}");
            match squat {
                "nobody's" => assert!(text.contains("user 65534"), "{text}"),
                "0755" | "0770" => assert!(text.contains(squat), "{text}"),
                _ => assert!(text.contains("another user made what stands there"), "{text}"),
            }
        }
        assert!(!target.exists(), "made through the squatter's link");
        assert!(mmf::sweep().is_err(), "a sweep must tell that it cannot look");
        let free = Mapping::create_new(&global, SIZE).expect("the other scope is not squatted");
        drop(free);
        if own.symlink_metadata().unwrap().is_dir() { fs::remove_dir(own) } else { fs::remove_file(own) }.unwrap();
        fs::remove_dir(elsewhere).unwrap();
    }
    drop(Mapping::create_new(&local, SIZE).expect("nothing is in the way any more"));
    assert_eq!(own.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    peer::say("told");
}

#[test]
#[ignore = "needs root: mounts a /dev/shm of its own"]
fn whatever_squats_the_users_directory_is_refused_and_named() {
    story("squatted");
}

/// A machine without `/dev/shm`.
fn no_shared_directory(_: &[&str]) {
    own_mounts();
    system::mount(Some(c"tmpfs"), c"/dev", Some(c"tmpfs"), 0, "");
    for scope in [Name::local, Name::global, Name::exact] {
        let name = scope("x".to_owned()).unwrap();
        let error = Mapping::create_new(&name, SIZE).expect_err("there is no place for it");
        assert!(error.to_string().contains("/dev/shm"), "{error}");
        let error = Mapping::open(&name).expect_err("there is no place for it");
        assert_eq!(*error.kind(), ErrorKind::NotFound, "{error}");
    }
    assert!(mmf::list().unwrap().is_empty());
    assert!(mmf::sweep().unwrap().is_empty());
    Mapping::anonymous(SIZE).expect("memory without a name needs no directory");
    peer::say("told");
}

#[test]
#[ignore = "needs root: mounts a /dev of its own"]
fn without_a_shared_directory_names_are_refused_with_the_reason_and_other_memory_works() {
    story("no_shared_directory");
}
