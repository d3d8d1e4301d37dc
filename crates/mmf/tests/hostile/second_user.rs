//! A second user of the machine attacks the first: with hard links, and with files and links in the
//! place of the first user's.
//!
//! Each story has a `/dev/shm` of its own.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use mmf::{ErrorKind, Mapping, Name};
use testkit::{Peer, peer};

use crate::support::actor::{Actor, actor};
use crate::support::intruder::{Intruder, LIVE, intruder};
use crate::support::second_user::{INTRUDER, SIZE, foreign, linked_error, owner};
use crate::support::stories::{story, tells};
use crate::support::system::{self, NOBODY, become_user, own_dev_shm};

testkit::peers! {
    actor, intruder, linked, owners_way_out, linked_and_dropped, linked_and_killed, linked_exact, linked_at_each_moment,
    left_by_a_creator, created_in_two_steps, creator_in_two_steps, dead_and_foreign, masked, not_sticky
}

const BOARD: &str = "/dev/shm/mmf.board";
const SECRETS: &str = "/dev/shm/mmf.secrets";

/// An owner who has made `global:board` for everyone, and an intruder with a directory of its own.
fn board() -> (Actor, Intruder) {
    own_dev_shm("mode=1777");
    let mut owner = owner();
    owner.does(&format!("create global:board size={SIZE} everyone"));
    owner.does("write 0 board");
    let mut intruder = Intruder::of(INTRUDER);
    intruder.does("mkdir /dev/shm/lair");
    (owner, intruder)
}

#[test]
#[ignore = "needs root: becomes other users"]
fn an_object_that_another_user_linked_to_a_second_name_is_refused_under_both() {
    story("linked");
}

fn linked(_: &[&str]) {
    tells(|| {
        let (mut owner, mut intruder) = board();
        // Out of the owner's reach, and then under another name.
        for link in ["/dev/shm/lair/link", SECRETS] {
            intruder.does(&format!("link {BOARD} {link}"));
            intruder.does("write /dev/shm/mmf.board 0 FORGED");
            let names = if link == SECRETS { vec!["global:board", "global:secrets"] } else { vec!["global:board"] };
            for name in names {
                let asks = [format!("open {name}"), format!("open {name} ro"), format!("make {name} size={SIZE}")];
                for ask in asks {
                    for foreign in ["", " foreign"] {
                        let text = owner.is_refused(&format!("{ask}{foreign}"), &linked_error());
                        assert!(text.contains(name) && text.contains("2 hard links"), "{text}");
                        assert!(text.contains("mmf rm"), "{text}");
                    }
                }
                owner.is_refused(&format!("create {name} size={SIZE}"), &ErrorKind::AlreadyExists);
            }
            if link == SECRETS {
                // The sticky directory lets the owner remove what the intruder cannot.
                assert_ne!(intruder.ask(&format!("remove {link}")), "ok");
                fs::remove_file(link).unwrap();
            } else {
                intruder.does(&format!("remove {link}"));
            }
            assert_eq!(owner.does("open global:board"), SIZE.to_string());
            owner.does("drop");
        }
        owner.leaves();
        intruder.leaves();
        assert!(!Path::new(BOARD).exists());
    });
}

/// Has the intruder open the object, not hold it, and link it to a second name.
#[track_caller]
fn open_and_link(intruder: &mut Intruder) {
    intruder.does(&format!("hold {BOARD}"));
    intruder.does("let-go");
    intruder.does(&format!("link {BOARD} /dev/shm/lair/link"));
}

/// Gives the intruder's link, held by the intruder, the name of another object of the owner's.
/// Asserts that it does not pass for that object and does not block the name.
#[track_caller]
fn assert_link_is_no_object(intruder: &mut Intruder, owner: &mut Actor) {
    intruder.does(&format!("rename /dev/shm/lair/link {SECRETS}"));
    intruder.does("hold-again");
    assert_eq!(fs::metadata(SECRETS).unwrap().uid(), NOBODY, "nothing is tested");
    assert_eq!(fs::metadata(SECRETS).unwrap().nlink(), 1, "nothing is tested");
    owner.is_refused("open global:secrets ro", &ErrorKind::NotFound);
    owner.does(&format!("make global:secrets size={SIZE}"));
    assert_eq!(owner.does("zeros"), "true");
    owner.does("drop");
    assert!(!Path::new(SECRETS).exists());
}

#[test]
#[ignore = "needs root: becomes other users"]
fn the_owner_gives_up_a_linked_object_and_its_other_names_are_refused_for_ever() {
    story("owners_way_out");
}

fn owners_way_out(_: &[&str]) {
    tells(|| {
        let (mut owner, mut intruder) = board();
        let mut other = Actor::who(&format!("become {INTRUDER}"));
        // An object without a link goes with its last holder alone.
        owner.is_refused("unlink global:board", &ErrorKind::InvalidInput { reason: String::new() });
        intruder.does(&format!("hold {BOARD}"));
        intruder.does(&format!("link {BOARD} /dev/shm/lair/link"));
        other.is_refused("unlink global:board", &ErrorKind::PermissionDenied);
        owner.does("unlink global:board");
        assert_eq!(owner.does("read 0 5"), "board", "its holders keep it");
        assert_link_is_no_object(&mut intruder, &mut owner);
        owner.does(&format!("create global:board size={SIZE} everyone"));
        owner.leaves();
        other.leaves();
        intruder.leaves();
    });
}

#[test]
#[ignore = "needs root: becomes other users"]
fn what_was_linked_before_its_last_holder_dropped_it_does_not_pass_for_another_object() {
    story("linked_and_dropped");
}

fn linked_and_dropped(_: &[&str]) {
    tells(|| {
        let (mut owner, mut intruder) = board();
        open_and_link(&mut intruder);
        owner.does("drop");
        assert!(!Path::new(BOARD).exists());
        assert_link_is_no_object(&mut intruder, &mut owner);
        owner.leaves();
        intruder.leaves();
    });
}

#[test]
#[ignore = "needs root: becomes other users"]
fn what_was_linked_and_died_is_kept_with_the_reason_until_its_owner_gives_it_up() {
    story("linked_and_killed");
}

fn linked_and_killed(_: &[&str]) {
    tells(|| {
        let (dies, mut intruder) = board();
        let mut owner = owner();
        open_and_link(&mut intruder);
        dies.dies();
        owner.is_refused("open global:board", &ErrorKind::NotFound);
        owner.is_refused(&format!("create global:board size={SIZE}"), &linked_error());
        assert!(owner.does("sweep global:board").contains("links"));
        assert_eq!(owner.does("listed global:board"), "false");
        owner.does("unlink global:board");
        assert_link_is_no_object(&mut intruder, &mut owner);
        owner.leaves();
        intruder.leaves();
    });
}

#[test]
#[ignore = "needs root: becomes other users"]
fn an_exact_object_that_another_user_linked_is_refused() {
    story("linked_exact");
}

fn linked_exact(_: &[&str]) {
    own_dev_shm("mode=1777");
    tells(|| {
        let mut owner = owner();
        owner.does(&format!("create exact:/board size={SIZE} everyone"));
        let mut intruder = Intruder::of(INTRUDER);
        intruder.does("link /dev/shm/board /dev/shm/secrets");
        for name in ["exact:/board", "exact:/secrets"] {
            let text = owner.is_refused(&format!("open {name}"), &linked_error());
            assert!(text.contains(name), "{text}");
        }
        owner.does("unlink exact:/secrets");
        owner.does("open exact:/board");
        owner.does("unlink exact:/board");
        owner.leaves();
        intruder.leaves();
    });
}

#[test]
#[ignore = "needs root: becomes other users"]
fn a_link_made_at_any_moment_of_the_last_drop_does_not_pass_for_another_object() {
    story("linked_at_each_moment");
}

fn linked_at_each_moment(_: &[&str]) {
    tells(|| {
        let (mut owner, mut intruder) = board();
        let mut caught = 0;
        for round in 0..3000 {
            intruder.does(&format!("hold {BOARD}"));
            intruder.does("let-go");
            intruder.does(&format!("toggle {BOARD} /dev/shm/lair/link"));
            std::thread::sleep(Duration::from_micros(round * 7 % 200));
            owner.does("drop");
            if intruder.ask(&format!("rename /dev/shm/lair/link {SECRETS}")) == "ok" && Path::new(SECRETS).exists() {
                intruder.does("hold-again");
                caught += u32::from(fs::metadata(SECRETS).unwrap().nlink() == 1);
                owner.is_refused("open global:secrets ro", &ErrorKind::NotFound);
            }
            // A link that was removed too early, or the name that stayed with the link.
            let _ = fs::remove_file(SECRETS);
            let _ = fs::remove_file("/dev/shm/lair/link");
            if owner.ask(&format!("create global:board size={SIZE} everyone")).starts_with("HardLinked") {
                owner.does("unlink global:board");
                owner.does(&format!("create global:board size={SIZE} everyone"));
            }
        }
        assert!(caught > 0, "no link outlived the name: nothing was tested");
        owner.leaves();
        intruder.leaves();
    });
}

#[test]
#[ignore = "needs root: mounts a /dev/shm of its own"]
fn what_a_killed_creator_left_without_a_name_is_removed() {
    story("left_by_a_creator");
}

/// What a creator leaves where the file system has neither files without names nor a rename that
/// refuses to replace.
fn left_by_a_creator(_: &[&str]) {
    own_dev_shm("mode=1777");
    tells(|| {
        for dir in ["/dev/shm", "/dev/shm/mmf-0"] {
            let scope = if dir == "/dev/shm" { "global" } else { "name" };
            drop(Mapping::create_new(Name::local("x").unwrap(), 4096).unwrap());
            let (temporary, file) = (format!("{dir}/.mmf-1-2-3"), format!("{dir}/mmf.x"));
            // Killed before and after the link to the name.
            for linked in [false, true] {
                for way in ["create", "make", "open", "sweep"] {
                    fs::write(&temporary, [1; 100]).unwrap();
                    if linked {
                        fs::hard_link(&temporary, &file).unwrap();
                    }
                    let mut actor = Actor::start();
                    match way {
                        "open" => {
                            actor.is_refused(&format!("open {scope}:x"), &ErrorKind::NotFound);
                            actor.does(&format!("sweep {scope}:x"));
                        }
                        "sweep" => drop(actor.does(&format!("sweep {scope}:x"))),
                        _ => {
                            actor.does(&format!("{way} {scope}:x size={SIZE}"));
                            assert_eq!(actor.does("zeros"), "true");
                        }
                    }
                    actor.leaves();
                    assert!(!Path::new(&temporary).exists(), "{scope} {way} {linked}");
                    assert!(!Path::new(&file).exists(), "{scope} {way} {linked}");
                }
            }
            // One that lives is waited for, and its file stays.
            fs::write(&temporary, [1; 100]).unwrap();
            let held = system::take_exclusively(Path::new(&temporary));
            mmf::sweep().unwrap();
            assert!(Path::new(&temporary).exists());
            drop(held);
            mmf::sweep().unwrap();
            assert!(!Path::new(&temporary).exists());
        }
    });
}

#[test]
#[ignore = "needs root: becomes other users"]
fn an_object_whose_creator_links_it_before_it_removes_the_temporary_name_is_not_refused() {
    story("created_in_two_steps");
}

/// Creates and removes `global:board` again and again, as on a file system that has neither files
/// without names nor a rename that refuses to replace.
fn creator_in_two_steps(_: &[&str]) {
    become_user(NOBODY);
    peer::say("creates");
    for nth in 0_u64.. {
        let temporary = format!("/dev/shm/.mmf-{}-{nth}", std::process::id());
        fs::write(&temporary, [0; SIZE]).unwrap();
        fs::set_permissions(&temporary, fs::Permissions::from_mode(0o666)).unwrap();
        let file = fs::File::options().read(true).write(true).open(&temporary).unwrap();
        assert!(system::lock_byte(&file, libc::F_RDLCK, LIVE));
        fs::hard_link(&temporary, BOARD).unwrap();
        // Longer than a creator that the system does not stop in between.
        std::thread::sleep(Duration::from_micros(nth % 4 * 100));
        fs::remove_file(&temporary).unwrap();
        std::thread::sleep(Duration::from_micros(nth % 4 * 50));
        fs::remove_file(BOARD).unwrap();
    }
}

fn created_in_two_steps(_: &[&str]) {
    own_dev_shm("mode=1777");
    tells(|| {
        let mut creator = Peer::spawn("creator_in_two_steps", &[]);
        creator.expect("creates");
        let mut opener = Actor::who(&format!("become {INTRUDER}"));
        let mut opened = 0;
        for _ in 0..5000 {
            let answer = opener.ask("open global:board ro foreign");
            if answer.starts_with("ok") {
                opener.does("drop");
                opened += 1;
            } else {
                assert!(answer.starts_with("NotFound"), "{answer}");
            }
        }
        assert!(opened > 100, "{opened} of 5000 openings");
        opener.leaves();
        creator.kill();
        creator.wait();
    });
}

#[test]
#[ignore = "needs root: becomes other users"]
fn what_another_user_left_is_never_made_anew_in_place() {
    story("dead_and_foreign");
}

fn dead_and_foreign(_: &[&str]) {
    own_dev_shm("mode=1777");
    tells(|| {
        let mut dies = Actor::who(&format!("become {INTRUDER}"));
        dies.does(&format!("create global:board size={SIZE} everyone"));
        dies.dies();
        let mut owner = owner();
        for ask in ["create", "make"] {
            for mode in ["", " mode=600"] {
                for foreign_allowed in ["", " foreign"] {
                    let ask = format!("{ask} global:board size={SIZE}{mode}{foreign_allowed}");
                    let text = owner.is_refused(&ask, &foreign());
                    assert!(text.contains("user 65533") && text.contains("mmf rm --stale"), "{text}");
                }
            }
        }
        owner.leaves();
        mmf::sweep().unwrap();
        assert!(!Path::new(BOARD).exists());
    });
}

#[test]
#[ignore = "needs root: mounts a /dev/shm of its own"]
fn the_users_directory_is_made_whatever_the_umask_and_mended_where_it_was_not() {
    story("masked");
}

fn masked(_: &[&str]) {
    own_dev_shm("mode=1777");
    tells(|| {
        become_user(NOBODY);
        let dir = Path::new("/dev/shm/mmf-65534");
        let name = Name::local("x").unwrap();
        for mask in [0o177, 0o777, 0o277, 0o077] {
            // SAFETY: it changes a number of the process and cannot fail.
            unsafe { libc::umask(mask) };
            drop(Mapping::create_new(&name, 4096).unwrap_or_else(|error| panic!("{mask:o}: {error}")));
            assert_eq!(fs::metadata(dir).unwrap().mode() & 0o7777, 0o700);
            // As an earlier release left it.
            fs::set_permissions(dir, fs::Permissions::from_mode(0o700 & !mask)).unwrap();
            mmf::list().unwrap();
            drop(Mapping::create_new(&name, 4096).unwrap_or_else(|error| panic!("{mask:o}: {error}")));
            fs::remove_dir(dir).unwrap();
        }
    });
}

#[test]
#[ignore = "needs root: becomes other users"]
fn a_shared_directory_where_others_can_move_names_is_refused_for_global_names() {
    story("not_sticky");
}

fn not_sticky(_: &[&str]) {
    own_dev_shm("mode=777");
    tells(|| {
        let mut owner = owner();
        for ask in ["create global:x size=8192", "make global:x size=8192", "open global:x"] {
            let text = owner.ask(ask);
            assert!(text.starts_with("Unsupported") && text.contains("chmod +t /dev/shm"), "{ask}: {text}");
        }
        owner.does("create name:x size=8192");
        owner.does("create global:x size=8192 foreign");
        let mut other = Actor::who(&format!("become {NOBODY}"));
        other.does("open global:x foreign");
        assert_eq!(other.does("listed global:x"), "true");
        other.leaves();
        owner.leaves();
    });
}
