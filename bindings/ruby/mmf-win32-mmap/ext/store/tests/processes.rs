//! Maps that two processes have open, and what is left of them when one is killed. Runs on Windows as elsewhere.

#![allow(clippy::panic, clippy::expect_used, clippy::unwrap_used, reason = "a failed check is a failed test")]

use std::path::Path;
use std::time::Duration;

use mmf::{Access, LargePages, Mapping, Name, Region};
use testkit::{DEADLINE, Peer, TempDir, Watchdog, unique_name};
use win32_mmap_store::marshal::Node;
use win32_mmap_store::{Error, Place, Plan, Store, Wait};

testkit::peers! { setter, holder, half_writer }

/// Longer than any test; only a failing one waits it out.
const PATIENT: Duration = DEADLINE;

fn plan(place: Place, size: u64) -> Plan {
    Plan {
        place,
        size,
        existing: false,
        access: Access::ReadWrite,
        or_read_only: false,
        large_pages: LargePages::Never,
        inheritable: false,
        base_address: None,
    }
}

/// A place as an argument of a peer.
fn place(text: &str) -> Place {
    match text.strip_prefix("file:") {
        Some(path) => Place::File(path.into()),
        None => Place::Named(text.to_owned()),
    }
}

fn open(text: &str, size: u64) -> Store {
    Store::open(&plan(place(text), size)).unwrap().with_lock().unwrap()
}

fn wait() -> Option<Wait<'static>> {
    Some(Wait::during(PATIENT))
}

/// A small integer as Marshal has it.
fn number(number: u8) -> [u8; 4] {
    [4, 8, b'i', number + 5]
}

fn get(store: &Store, key: &str) -> Option<i64> {
    let tree = store.attributes(wait()).unwrap()?;
    match tree.node(tree.get(key.as_bytes())?) {
        Node::Int(number) => Some(number),
        other => panic!("{other:?}"),
    }
}

/// Sets one attribute many times, to 1, 2, 3, …
fn setter(args: &[&str]) {
    let store = open(args[0], 4096);
    for turn in 0..args[2].parse().unwrap() {
        store.assign(args[1], &number(turn % 100), wait()).unwrap();
    }
    testkit::peer::say("done");
    testkit::peer::hear();
}

/// Holds the lock until it is killed.
fn holder(args: &[&str]) {
    let store = open(args[0], 4096);
    let _held = store.hold(wait()).unwrap();
    testkit::peer::say("inside");
    testkit::peer::hear();
}

/// Leaves what a process leaves that is killed while it copies the hash into the map: the lock, an undo copy in the ledger
/// beside the map, and half of the new bytes.
fn half_writer(args: &[&str]) {
    let store = open(args[0], 4096);
    let old = store.read_string(64, wait()).unwrap();
    let region = match place(args[0]) {
        Place::File(path) => Region::open(Path::new(&format!("{}.ruby_lock", path.display()))),
        Place::Named(name) => Region::open(Name::local(format!("{name}.ruby_lock")).unwrap()),
        Place::Nameless => panic!("it has a place"),
    };
    let region = region.unwrap();
    let mut guard = region.write().unwrap();
    guard.write_at(8, &[&64_u64.to_le_bytes()[..], &old].concat()).unwrap();
    guard.write_at(0, &[1]).unwrap();
    Store::open(&plan(place(args[0]), 4096)).unwrap().write_string(&[4, 8, b'{', 77, 77, 77], None).unwrap();
    testkit::peer::say("half");
    testkit::peer::hear();
}

/// Each place that maps can be in, and what has to outlive them.
fn places() -> (TempDir, [String; 2]) {
    let directory = TempDir::new();
    let file = format!("file:{}", directory.join("a.map").display());
    (directory, [file, unique_name("store")])
}

#[test]
fn two_processes_set_attributes_and_none_is_lost() {
    let _watchdog = Watchdog::start(DEADLINE * 6);
    let (_directory, places) = places();
    for place in places {
        let store = open(&place, 4096);
        let mut peers: Vec<Peer> = ["a", "b"].map(|key| Peer::spawn("setter", &[&place, key, "200"])).into();
        peers.iter_mut().for_each(|peer| peer.expect("done"));
        assert_eq!((get(&store, "a"), get(&store, "b"), get(&store, "c")), (Some(99), Some(99), None), "{place}");
        peers.into_iter().for_each(Peer::finish);
    }
}

#[test]
fn a_killed_holder_keeps_nobody_waiting() {
    let _watchdog = Watchdog::start(DEADLINE * 6);
    let (_directory, places) = places();
    for place in places {
        let store = open(&place, 4096);
        store.assign("kept", &number(7), wait()).unwrap();
        let mut peer = Peer::spawn("holder", &[&place]);
        peer.expect("inside");
        // Alive, it is waited for; in vain, and the store works on.
        let short = Some(Wait::during(Duration::from_millis(30)));
        assert!(matches!(store.assign("kept", &number(8), short), Err(Error::Timeout { .. })));
        assert!(matches!(store.attributes(short), Err(Error::Timeout { .. })));
        peer.kill();
        store.assign("new", &number(9), wait()).unwrap();
        assert_eq!((get(&store, "kept"), get(&store, "new")), (Some(7), Some(9)), "{place}");
    }
}

#[test]
fn a_half_written_hash_is_undone() {
    let _watchdog = Watchdog::start(DEADLINE * 6);
    let (_directory, places) = places();
    for place in places {
        let store = open(&place, 4096);
        for how in ["read", "written", "opened"] {
            store.assign("kept", &number(7), wait()).unwrap();
            let mut peer = Peer::spawn("half_writer", &[&place]);
            peer.expect("half");
            peer.kill();
            match how {
                "read" => {}
                "written" => store.assign("new", &number(9), wait()).unwrap(),
                // By one that was not there when it happened.
                _ => assert_eq!(get(&open(&place, 4096), "kept"), Some(7)),
            }
            assert_eq!(get(&store, "kept"), Some(7), "{place} {how}");
        }
    }
}

#[test]
fn what_was_left_half_written_in_a_file_is_undone_after_all_have_gone() {
    let _watchdog = Watchdog::start(DEADLINE * 3);
    let (_directory, [place, _]) = places();
    open(&place, 4096).assign("kept", &number(7), wait()).unwrap();
    let mut peer = Peer::spawn("half_writer", &[&place]);
    peer.expect("half");
    peer.kill();
    assert_eq!(get(&open(&place, 0), "kept"), Some(7));
}

#[test]
fn a_ledger_that_holds_nonsense_harms_nobody() {
    let name = unique_name("nonsense");
    let store = open(&name, 4096);
    store.assign("kept", &number(7), wait()).unwrap();
    let region = Region::open(Name::local(format!("{name}.ruby_lock")).unwrap()).unwrap();
    for length in [0, 4097, u64::MAX] {
        region.write().unwrap().write_at(0, &[&[1, 0, 0, 0, 0, 0, 0, 0][..], &length.to_le_bytes()].concat()).unwrap();
        region.write().unwrap().resize(16).unwrap();
        assert_eq!(get(&store, "kept"), Some(7));
    }
}

#[test]
fn more_than_four_gibibytes_are_mapped_and_undone() {
    let directory = TempDir::new();
    let path = directory.join("large.map");
    let size = 5 << 30;
    std::fs::File::create(&path).unwrap().set_len(size).unwrap();
    let store = Store::open(&plan(Place::File(path.clone()), 0)).unwrap().with_lock().unwrap();
    assert_eq!(store.size(), size);
    store.assign("large", &number(5), wait()).unwrap();
    assert_eq!(get(&store, "large"), Some(5));
    let past = Error::TooLong { end: size + 1, size };
    assert_eq!(store.read_string(size + 1, wait()).unwrap_err().to_string(), past.to_string());
    // The last byte is there.
    assert_eq!(Mapping::open(path).unwrap().read_to_vec((5 << 30) - 1, 1).unwrap(), [0]);
}

#[test]
fn a_smaller_map_that_exists_is_seen_and_one_that_is_needed_is_missed() {
    let name = unique_name("smaller");
    let first = open(&name, 4096);
    let second = open(&name, 1 << 20);
    assert_eq!((first.size(), second.size()), (4096, 4096));
    assert!(matches!(second.write_string(&[1; 4097], wait()), Err(Error::TooLong { end: 4097, size: 4096 })));
    assert_eq!(second.read_string(8, wait()).unwrap(), [0; 8]);
    let missing = Plan { existing: true, ..plan(Place::Named(unique_name("missing")), 0) };
    match Store::open(&missing) {
        Err(Error::Mmf(error)) => assert_eq!(*error.kind(), mmf::ErrorKind::NotFound),
        _ => panic!("there is none"),
    }
}

/// What processes of the old gem do, done by hand.
#[cfg(windows)]
mod old_gem {
    use std::os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle};
    use std::ptr;

    use windows_sys::Win32::Foundation::WAIT_OBJECT_0;
    use windows_sys::Win32::System::Threading::{CreateSemaphoreW, ReleaseSemaphore, WaitForSingleObject};

    use super::*;

    testkit::peers! { taker }

    struct Semaphore(OwnedHandle);

    impl Semaphore {
        fn of(name: &str) -> Semaphore {
            let wide: Vec<u16> = format!("{name}.ruby_lock").encode_utf16().chain([0]).collect();
            // SAFETY: no attributes, and a name that ends with a zero.
            let handle = unsafe { CreateSemaphoreW(ptr::null(), 1, 1, wide.as_ptr()) };
            assert!(!handle.is_null());
            // SAFETY: the handle is new, and nobody else's.
            Semaphore(unsafe { OwnedHandle::from_raw_handle(handle.cast()) })
        }

        fn take(&self) -> bool {
            // SAFETY: an open handle of a semaphore.
            unsafe { WaitForSingleObject(self.0.as_raw_handle().cast(), 0) == WAIT_OBJECT_0 }
        }

        fn give(&self) -> bool {
            // SAFETY: an open handle of a semaphore.
            unsafe { ReleaseSemaphore(self.0.as_raw_handle().cast(), 1, ptr::null_mut()) != 0 }
        }
    }

    /// One that dies with the semaphore.
    fn taker(args: &[&str]) {
        assert!(Semaphore::of(args[0]).take());
        testkit::peer::say("taken");
        testkit::peer::hear();
    }

    const SHORT: Duration = Duration::from_millis(50);

    #[test]
    fn the_semaphore_keeps_both_gems_apart() {
        let name = unique_name("semaphore");
        let store = open(&name, 4096);
        let semaphore = Semaphore::of(&name);
        assert!(semaphore.take());
        assert!(matches!(store.assign("a", &number(1), Some(Wait::during(SHORT))), Err(Error::Timeout { .. })));
        assert!(matches!(store.attributes(Some(Wait::during(SHORT))), Err(Error::Timeout { .. })));
        assert!(semaphore.give());
        store.assign("a", &number(1), wait()).unwrap();
        assert_eq!(get(&store, "a"), Some(1));
        let held = store.hold(wait()).unwrap();
        assert!(!semaphore.take());
        drop(held);
        assert!(semaphore.take() && semaphore.give());
        // Never given more often than taken.
        assert!(!semaphore.give());
    }

    #[test]
    fn a_process_of_the_old_gem_that_died_with_it_ends_in_the_timeout() {
        let _watchdog = Watchdog::start(DEADLINE * 3);
        let name = unique_name("dead-old");
        let store = open(&name, 4096);
        let mut peer = Peer::spawn("taker", &[&name]);
        peer.expect("taken");
        peer.kill();
        for _ in 0..2 {
            assert!(matches!(store.assign("a", &number(1), Some(Wait::during(SHORT))), Err(Error::Timeout { .. })));
        }
        // And works on as soon as somebody gives it.
        assert!(Semaphore::of(&name).give());
        store.assign("a", &number(1), wait()).unwrap();
    }

    #[test]
    fn a_process_of_ours_that_died_with_it_is_noticed() {
        let _watchdog = Watchdog::start(DEADLINE * 3);
        let name = unique_name("dead-ours");
        let store = open(&name, 4096);
        let semaphore = Semaphore::of(&name);
        let mut peer = Peer::spawn("holder", &[&name]);
        peer.expect("inside");
        assert!(!semaphore.take());
        peer.kill();
        store.assign("a", &number(1), wait()).unwrap();
        assert!(semaphore.take() && semaphore.give());
    }

    #[test]
    fn one_that_died_while_taking_it_is_told_from_the_old_gem_by_waiting() {
        let name = unique_name("dead-taking");
        let store = open(&name, 4096);
        let semaphore = Semaphore::of(&name);
        let region = Region::open(Name::local(format!("{name}.ruby_lock")).unwrap()).unwrap();
        for got_it in [true, false] {
            // What it leaves: it was about to take it, and did or did not.
            region.write().unwrap().write_at(0, &[0, 1]).unwrap();
            assert!(!got_it || semaphore.take());
            store.assign("a", &number(1), wait_shortly()).unwrap();
            assert!(semaphore.take() && semaphore.give());
        }
    }

    fn wait_shortly() -> Option<Wait<'static>> {
        Some(Wait::during(SHORT))
    }

    #[test]
    fn a_section_of_another_program_is_a_map_as_large_as_it_is() {
        let name = unique_name("section");
        let section = Mapping::create_new(Name::exact(&*name).unwrap(), 100).unwrap();
        let store = Store::open(&Plan { existing: true, ..plan(Place::Named(name), 0) }).unwrap();
        assert_eq!(store.size(), section.len() as u64);
        store.write_string(b"hello", None).unwrap();
        assert_eq!(section.read_to_vec(0, 5).unwrap(), b"hello");
    }

    #[test]
    fn a_section_of_more_than_four_gibibytes_is_mapped() {
        let name = unique_name("large");
        let options = Mapping::options().size(4096).reserve(5 << 30);
        let _section = options.create_new(Name::exact(&*name).unwrap()).unwrap();
        let store = open(&name, 0);
        store.assign("a", &number(1), wait()).unwrap();
        assert_eq!(get(&store, "a"), Some(1));
    }
}
