//! Several users of one machine: a service that runs as root, and people on the desktop.

use std::path::Path;
use std::time::{Duration, Instant};

use mmf::{Access, ErrorKind, Mapping, MappingOptions, Name, Permissions};
use testkit::{Peer, TempDir, peer, unique_name};

use crate::support::actor::{Actor, actor};
use crate::support::stories::{story, tells};
use crate::support::system::{NOBODY, become_user, own_dev_shm};

testkit::peers! {
    actor, service, service_alone, local_names_apart, foreign_object, foreign_dead, root_and_the_dead, dropped_privileges,
    mode_of_the_living, reader_of_the_living, maker_of_the_living
}

const SIZE: usize = 8192;

/// Somebody else who owns nothing.
const STRANGER: u32 = 65533;

fn as_user(uid: u32) -> Actor {
    Actor::who(&format!("become {uid}"))
}

fn global() -> Name {
    Name::global(unique_name("users")).unwrap()
}

fn foreign() -> ErrorKind {
    ErrorKind::ForeignOwner { owner: String::new() }
}

fn path(name: &Name) -> String {
    format!("/dev/shm/mmf.{}", name.as_str())
}

#[test]
#[ignore = "needs root: becomes another user"]
fn what_a_service_makes_for_everyone_a_desktop_program_opens_and_writes() {
    story("service");
}

fn service(_: &[&str]) {
    tells(|| {
        let name = global();
        let mut service = Actor::who(&format!("create {name} size={SIZE} everyone"));
        let mut desktop = as_user(NOBODY);
        desktop.does(&format!("open {name}"));
        desktop.does("write 10 hello");
        assert_eq!(service.does("read 10 5"), "hello");
        assert_eq!(desktop.does(&format!("listed {name}")), "true");
        // The service may end first: the name stays with the desktop, and the service finds it again.
        service.does("drop");
        service.does(&format!("open {name} foreign"));
        assert_eq!(service.does("read 10 5"), "hello");
        // A reader on the desktop that may not remove what is root's leaves it to be swept.
        service.does("drop");
        desktop.leaves();
        service.is_refused(&format!("open {name}"), &ErrorKind::NotFound);
        assert!(!Path::new(&path(&name)).exists());
        service.leaves();
    });
}

#[test]
#[ignore = "needs root: becomes another user"]
fn what_a_service_made_for_itself_is_denied_with_its_owner_and_its_mode() {
    story("service_alone");
}

fn service_alone(_: &[&str]) {
    tells(|| {
        let mut desktop = as_user(NOBODY);
        for (permissions, mode) in [("", "0600"), (" mode=640", "0640")] {
            let name = global();
            let mut service = Actor::who(&format!("create {name} size={SIZE}{permissions}"));
            for ask in ["open", "make"] {
                let text = desktop.is_refused(&format!("{ask} {name} size={SIZE}"), &ErrorKind::PermissionDenied);
                assert!(text.contains("user 0") && text.contains(mode), "{text}");
            }
            let text = desktop.is_refused(&format!("create {name} size={SIZE}"), &ErrorKind::AlreadyExists);
            assert!(text.contains("user 0"), "{text}");
            // It is there all the same, and cannot be swept by who may not look.
            assert_eq!(desktop.does(&format!("listed {name}")), "true");
            assert_eq!(desktop.does(&format!("sweep {name}")), "unmet");
            service.does("drop");
            service.leaves();
        }
        // Reading alone can be allowed.
        let name = global();
        let mut service = Actor::who(&format!("create {name} size={SIZE} mode=644"));
        service.does("write 0 read");
        desktop.does(&format!("open {name} ro"));
        assert_eq!(desktop.does("read 0 4"), "read");
        desktop.is_refused(&format!("open {name}"), &ErrorKind::PermissionDenied);
        desktop.does("drop");
        service.leaves();
        desktop.leaves();
    });
}

#[test]
#[ignore = "needs root: becomes another user"]
fn a_local_name_is_another_object_for_each_user() {
    story("local_names_apart");
}

fn local_names_apart(_: &[&str]) {
    tells(|| {
        let name = Name::local(unique_name("apart")).unwrap();
        let mut one = Actor::who(&format!("create {name} size={SIZE}"));
        let mut other = as_user(NOBODY);
        other.is_refused(&format!("open {name}"), &ErrorKind::NotFound);
        other.does(&format!("create {name} size={SIZE}"));
        other.does("write 0 other");
        assert_eq!(one.does("zeros"), "true");
        other.leaves();
        one.does(&format!("open {name}"));
        one.leaves();
        // An empty directory of that user stays; this test made it on a machine where nobody has one.
        let _ = std::fs::remove_dir(format!("/dev/shm/mmf-{NOBODY}"));
    });
}

#[test]
#[ignore = "needs root: becomes another user"]
fn a_strangers_object_is_refused_by_its_owner_unless_that_is_allowed() {
    story("foreign_object");
}

fn foreign_object(_: &[&str]) {
    tells(|| {
        let name = global();
        let mut maker = as_user(NOBODY);
        maker.does(&format!("create {name} size={SIZE} everyone"));
        let stranger = as_user(STRANGER);
        // Root is as careful as everybody.
        for mut who in [stranger, Actor::start()] {
            for ask in ["open", "make"] {
                let text = who.is_refused(&format!("{ask} {name} size={SIZE}"), &foreign());
                assert!(text.contains("user 65534"), "{text}");
                who.does(&format!("{ask} {name} size={SIZE} foreign"));
                who.does("write 0 allowed");
                who.does("drop");
            }
            who.leaves();
        }
        assert_eq!(maker.does("read 0 7"), "allowed");
        maker.leaves();
    });
}

#[test]
#[ignore = "needs root: becomes another user"]
fn what_a_dead_stranger_left_is_refused_with_the_owner_where_it_cannot_be_removed() {
    story("foreign_dead");
}

fn foreign_dead(_: &[&str]) {
    // Here no process of root sweeps before we look.
    own_dev_shm("mode=1777");
    tells(|| {
        let mut stranger = as_user(STRANGER);
        for permissions in ["everyone", "mode=644"] {
            let name = global();
            let mut maker = as_user(NOBODY);
            maker.does(&format!("create {name} size={SIZE} {permissions}"));
            maker.dies();
            stranger.is_refused(&format!("open {name} ro foreign"), &ErrorKind::NotFound);
            let text = stranger.is_refused(&format!("create {name} size={SIZE}"), &foreign());
            assert!(text.contains("user 65534") && text.contains("died"), "{text}");
            assert_eq!(stranger.does(&format!("listed {name}")), "false");
            assert!(stranger.does(&format!("sweep {name}")).contains("it belongs to user 65534"));
            // That other owners are allowed makes no object of theirs this user's.
            let since = Instant::now();
            let text = stranger.is_refused(&format!("create {name} size={SIZE} foreign"), &foreign());
            assert!(text.contains("user 65534"), "{text}");
            assert!(since.elapsed() < Duration::from_secs(1), "it was waited for");
            // Its owner removes it on the way.
            let mut owner = as_user(NOBODY);
            assert_eq!(owner.does(&format!("sweep {name}")), format!("met {SIZE} removed"));
            owner.leaves();
        }
        stranger.leaves();
    });
}

#[test]
#[ignore = "needs root: becomes another user"]
fn root_makes_anew_what_a_dead_user_left() {
    story("root_and_the_dead");
}

fn root_and_the_dead(_: &[&str]) {
    // Here no process of root sweeps before ours.
    own_dev_shm("mode=1777");
    tells(|| {
        for ask in ["create", "make"] {
            let name = global();
            let mut maker = as_user(NOBODY);
            maker.does(&format!("create {name} size={SIZE} everyone"));
            maker.does("write 0 old");
            maker.dies();
            assert!(Path::new(&path(&name)).exists());
            let mut root = Actor::who(&format!("{ask} {name} size={SIZE}"));
            assert_eq!(root.does("zeros"), "true");
            root.leaves();
        }
    });
}

/// What a service does that needs root only to begin with.
fn dropped_privileges(_: &[&str]) {
    become_user(NOBODY);
    let name = global();
    let options = || Mapping::options().size(SIZE as u64).permissions(Permissions::Everyone);
    let map = options().create_new(&name).unwrap();
    map.write_at(0, b"service").unwrap();
    assert_eq!(MappingOptions::new().open(&name).unwrap().read_to_vec(0, 7).unwrap(), b"service");
    assert_eq!(map.info().unwrap().owner, "user 65534");
    drop(map);
    assert!(!Path::new(&path(&name)).exists());
    peer::say("told");
}

#[test]
#[ignore = "needs root: becomes another user"]
fn a_process_that_has_given_up_its_privileges_creates_opens_and_removes() {
    story("dropped_privileges");
}

/// Opens and drops over and over; what it holds keeps the mode it was made with.
fn reader_of_the_living(args: &[&str]) {
    become_user(NOBODY);
    let name = Name::global(args[0]).unwrap();
    peer::say("ready");
    let (mut opened, mut changed) = (0, 0);
    while !Path::new(args[1]).exists() {
        if let Ok(map) = Mapping::options().access(Access::ReadOnly).open(&name) {
            opened += 1;
            // Who was judging it as dead when it was opened has the other mode for a moment, and puts this one back.
            let stays = |_| {
                std::thread::sleep(Duration::from_millis(1));
                map.info().unwrap().permissions != "0444"
            };
            changed += u32::from(map.info().unwrap().permissions != "0444" && (0..1000).all(stays));
        }
    }
    assert_eq!(changed, 0, "of {opened}");
    peer::say(opened > 0);
}

/// Creates and drops over and over.
fn maker_of_the_living(args: &[&str]) {
    become_user(NOBODY);
    let name = Name::global(args[0]).unwrap();
    let options = || Mapping::options().size(SIZE as u64).permissions(Permissions::Mode(0o444));
    for _ in 0..5000 {
        // A reader may hold the one before.
        drop(options().create_new(&name));
    }
    peer::say("done");
}

#[test]
#[ignore = "needs root: becomes another user"]
fn who_removes_a_read_only_object_does_not_change_the_mode_of_one_that_lives() {
    story("mode_of_the_living");
}

fn mode_of_the_living(_: &[&str]) {
    tells(|| {
        let name = global();
        let end = TempDir::new();
        let end_file = end.join("end");
        let args = [name.as_str(), end_file.to_str().unwrap()];
        let mut readers = [(); 2].map(|()| Peer::spawn("reader_of_the_living", &args));
        readers.iter_mut().for_each(|reader| reader.expect("ready"));
        let mut maker = Peer::spawn("maker_of_the_living", &args);
        maker.expect_line_within(Duration::from_secs(100));
        maker.finish();
        std::fs::write(&end_file, "").unwrap();
        for mut reader in readers {
            reader.expect("true");
            reader.finish();
        }
        mmf::sweep().unwrap();
    });
}
