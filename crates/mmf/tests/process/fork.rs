//! A forked child shares its parent's mappings and its hold on a name, without a call of its own.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mmf::{Dict, ErrorKind, Mapping, Name, Region};
use testkit::{TempDir, unique_name};

use crate::support::actor::{Actor, actor};
use crate::support::stories::{story, tells};
use crate::support::system::{self, Child, fork};

testkit::peers! {
    actor, ends_of_children, parent_first, child_uses, child_faults, child_opens_anew, child_creates, inherited_handles,
    forked_handles, forked_transaction
}

const SIZE: usize = 8192;
/// Where parent and child tell each other things.
const TURN: usize = 0;

struct Shared {
    name: Name,
    map: Mapping,
    location: String,
}

/// An object, which this process alone holds.
fn shared() -> Shared {
    let name = Name::local(unique_name("fork")).unwrap();
    let map = Mapping::create_new(&name, SIZE as u64).unwrap();
    map.write_at(100, b"hello").unwrap();
    let location = map.info().unwrap().location.unwrap();
    Shared { name, map, location }
}

impl Shared {
    /// That another process finds it, and that it is the same.
    #[track_caller]
    fn assert_stands(&self, looker: &mut Actor) {
        assert!(Path::new(&self.location).exists(), "{} was removed", self.location);
        assert_eq!(looker.does(&format!("open {}", self.name)), SIZE.to_string());
        assert_eq!(looker.does("read 100 5"), "hello");
        looker.does("drop");
        assert_eq!(looker.does(&format!("listed {}", self.name)), "true");
        self.map.write_at(100, b"hello").unwrap();
    }
}

/// Waits until the word that both share has this value.
fn wait_for(map: &Mapping, turn: u32) {
    let since = Instant::now();
    while map.load::<u32>(TURN, Ordering::Acquire).unwrap() != turn {
        assert!(since.elapsed() < testkit::DEADLINE, "the other process never comes to turn {turn}");
        std::thread::sleep(Duration::from_micros(100));
    }
}

#[test]
fn however_a_forked_child_ends_its_parents_object_stays() {
    story("ends_of_children");
}

fn ends_of_children(_: &[&str]) {
    tells(|| {
        let mut looker = Actor::start();
        let shared = shared();

        // It ends without a word.
        fork(|| 0).ends_with(0);
        shared.assert_stands(&mut looker);

        // It runs its program's ordinary end.
        fork(|| std::process::exit(7)).ends_with(7);
        shared.assert_stands(&mut looker);

        // It drops what it inherited, as a program does that cleans up after a fork.
        fork(|| {
            // SAFETY: a second owner of what the child alone has a copy of; its first is never dropped there.
            drop(unsafe { std::ptr::read(&raw const shared.map) });
            0
        })
        .ends_with(0);
        shared.assert_stands(&mut looker);

        // It becomes another program.
        fork(|| system::exec(c"/bin/true")).ends_with(0);
        shared.assert_stands(&mut looker);

        // It is killed.
        let child = fork(system::sleep_for_ever);
        shared.assert_stands(&mut looker);
        child.dies();
        shared.assert_stands(&mut looker);

        let Shared { name, map, location } = shared;
        drop(map);
        assert!(!Path::new(&location).exists(), "{location} is left");
        looker.is_refused(&format!("open {name}"), &ErrorKind::NotFound);
        looker.leaves();
    });
}

#[test]
fn a_name_that_its_parent_dropped_lives_until_the_forked_child_ends_and_is_then_swept() {
    story("parent_first");
}

fn parent_first(_: &[&str]) {
    tells(|| {
        for killed in [true, false] {
            let mut looker = Actor::start();
            let Shared { name, map, location } = shared();
            let child = fork(|| {
                wait_for(&map, 1);
                if killed { system::sleep_for_ever() } else { 0 }
            });
            let other = Mapping::open(&name).unwrap();
            drop(map);
            drop(other);
            looker.does(&format!("open {name}"));
            assert_eq!(looker.does("read 100 5"), "hello");
            looker.is_refused(&format!("create {name} size={SIZE}"), &ErrorKind::AlreadyExists);
            looker.does("write 0 \u{1}");
            looker.does("drop");
            if killed {
                child.dies();
            } else {
                child.ends_with(0);
            }
            looker.is_refused(&format!("open {name}"), &ErrorKind::NotFound);
            assert_eq!(looker.does(&format!("listed {name}")), "false");
            assert!(!Path::new(&location).exists(), "{location} is left");
            looker.leaves();
        }
    });
}

#[test]
fn a_forked_child_reads_writes_and_grows_what_it_inherited() {
    story("child_uses");
}

fn child_uses(_: &[&str]) {
    tells(|| {
        let Shared { map, .. } = shared();
        let grows = Mapping::options().size(4096).reserve(1 << 20).anonymous().unwrap();
        let child = fork(|| {
            assert_eq!(map.read_to_vec(100, 5).unwrap(), b"hello");
            map.write_at(200, b"from the child").unwrap();
            grows.grow(100_000).unwrap();
            grows.write_at(99_999, b"!").unwrap();
            map.store(TURN, 1_u32, Ordering::Release).unwrap();
            wait_for(&map, 2);
            assert_eq!(map.read_to_vec(300, 6).unwrap(), b"parent");
            0
        });
        wait_for(&map, 1);
        assert_eq!(map.read_to_vec(200, 14).unwrap(), b"from the child");
        assert_eq!(grows.read_to_vec(99_999, 1).unwrap(), b"!");
        map.write_at(300, b"parent").unwrap();
        map.store(TURN, 2_u32, Ordering::Release).unwrap();
        child.ends_with(0);
    });
}

#[test]
fn a_page_that_is_gone_is_an_error_in_a_forked_child_too() {
    story("child_faults");
}

fn child_faults(_: &[&str]) {
    tells(|| {
        let dir = TempDir::new();
        let path = dir.join("file");
        let page = mmf::page_size();
        let map = Mapping::create_new(&path, 3 * page as u64).unwrap();
        std::fs::File::options().write(true).open(&path).unwrap().set_len(page as u64).unwrap();
        fork(|| {
            let error = map.read_to_vec(0, 3 * page).unwrap_err();
            assert_eq!(*error.kind(), ErrorKind::Fault { offset: page, done: page }, "{error}");
            0
        })
        .ends_with(0);
        assert!(map.read_to_vec(0, 3 * page).is_err());
    });
}

#[test]
fn what_a_forked_child_opens_by_itself_it_holds_by_itself() {
    story("child_opens_anew");
}

fn child_opens_anew(_: &[&str]) {
    tells(|| {
        let mut looker = Actor::start();
        let Shared { name, map, location } = shared();
        let signals = Mapping::anonymous(4096).unwrap();
        let child = fork(|| {
            let own = Mapping::open(&name).unwrap();
            // SAFETY: a second owner of what the child alone has a copy of; its first is never dropped there.
            drop(unsafe { std::ptr::read(&raw const map) });
            signals.store(TURN, 1_u32, Ordering::Release).unwrap();
            wait_for(&signals, 2);
            assert_eq!(own.read_to_vec(100, 5).unwrap(), b"hello");
            // The last holder, and it does clean up.
            drop(own);
            0
        });
        wait_for(&signals, 1);
        drop(map);
        looker.does(&format!("open {name}"));
        looker.does("drop");
        signals.store(TURN, 2_u32, Ordering::Release).unwrap();
        child.ends_with(0);
        assert!(!Path::new(&location).exists(), "{location} is left");
        looker.leaves();
    });
}

#[test]
fn what_a_forked_child_creates_goes_with_it() {
    story("child_creates");
}

fn child_creates(_: &[&str]) {
    tells(|| {
        let name = Name::local(unique_name("fork")).unwrap();
        let signals = Mapping::anonymous(4096).unwrap();
        let child = fork(|| {
            let map = Mapping::create_new(&name, SIZE as u64).unwrap();
            map.write_at(0, b"made by the child").unwrap();
            signals.store(TURN, 1_u32, Ordering::Release).unwrap();
            system::sleep_for_ever()
        });
        wait_for(&signals, 1);
        let map = Mapping::open(&name).unwrap();
        child.dies();
        assert_eq!(map.read_to_vec(0, 17).unwrap(), b"made by the child");
        drop(Mapping::open(&name).expect("the parent holds it now"));
        drop(map);
        assert_eq!(*Mapping::open(&name).unwrap_err().kind(), ErrorKind::NotFound);
    });
}

#[test]
fn memory_without_a_name_reaches_another_program_through_a_handle_that_it_inherits() {
    story("inherited_handles");
}

fn inherited_handles(_: &[&str]) {
    use std::os::fd::AsRawFd;
    tells(|| {
        for inheritable in [true, false] {
            let map = Mapping::options().size(SIZE as u64).inheritable(inheritable).anonymous().unwrap();
            map.write_at(0, b"inherited").unwrap();
            let path = format!("/dev/fd/{}", map.handle().as_raw_fd());
            let output = std::process::Command::new("head").args(["-c", "9", &path]).output().unwrap();
            assert_eq!(output.status.success(), inheritable, "{output:?}");
            assert_eq!(output.stdout, if inheritable { &b"inherited"[..] } else { b"" });
        }
    });
}

#[test]
fn a_forked_child_can_tell_its_parents_handles_from_its_own() {
    story("forked_handles");
}

/// Nothing was locked or written before the first fork, since that is what a program does which opens and then forks.
fn forked_handles(_: &[&str]) {
    tells(|| {
        let names =
            [Name::local(unique_name("forked-dict")).unwrap(), Name::local(unique_name("forked-region")).unwrap()];
        let dict = Dict::create_new(&names[0], 1 << 20).unwrap();
        let region = Region::create_new(&names[1], 1 << 12).unwrap();
        fork(|| {
            let inherited = dict.is_forked() && region.is_forked();
            // What it says can be done, and what cannot.
            let reads = dict.get_bytes("key").unwrap().is_none();
            let writes = dict.set_bytes("key", b"value").is_ok() || region.write().is_ok();
            let own = Dict::open(&names[0]).unwrap();
            own.set_bytes("key", b"child's").unwrap();
            i32::from(!inherited || !reads || writes || own.is_forked() || Region::open(&names[1]).unwrap().is_forked())
        })
        .ends_with(0);
        assert_eq!((dict.is_forked(), region.is_forked()), (false, false));
        assert_eq!(dict.get_bytes("key").unwrap().unwrap(), b"child's");
    });
}

#[test]
fn a_child_that_was_forked_in_a_transaction_does_not_end_it() {
    story("forked_transaction");
}

fn forked_transaction(_: &[&str]) {
    tells(|| {
        let dict = Dict::create_new(Name::local(unique_name("forked-tx")).unwrap(), 1 << 20).unwrap();
        dict.set_bytes("key", b"before").unwrap();
        let mut child = None;
        let outcome = dict.transaction(|tx| {
            // SAFETY: the child has this thread alone, takes no other's lock, and ends below.
            let id = system::checked(unsafe { libc::fork() });
            child = Some(id);
            tx.set_bytes("key", if id == 0 { b"child's" } else { b"parent's" })
        });
        let id = child.unwrap();
        if id == 0 {
            let refused = matches!(outcome, Err(error) if matches!(error.kind(), ErrorKind::InvalidInput { .. }));
            // SAFETY: ends the process at once.
            unsafe { libc::_exit(i32::from(!refused)) }
        }
        outcome.unwrap();
        let mut status = 0;
        // SAFETY: writes one number.
        system::checked(unsafe { libc::waitpid(id, &raw mut status, 0) });
        assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0, "{status:#x}");
        assert_eq!(dict.get_bytes("key").unwrap().unwrap(), b"parent's");
    });
}

/// `ends_with` and `dies` tell when a story's child failed; this tells that they can.
#[test]
#[should_panic(expected = "the child ended otherwise")]
fn a_child_that_fails_is_noticed() {
    let child: Child = fork(|| system::exec(c"/bin/false"));
    child.ends_with(0);
}
