//! What segments need of the system: first bytes, tokens, parkers, and the identity of the process.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use windows_sys::Win32::Foundation::STATUS_ACCESS_DENIED;
use windows_sys::Win32::System::Threading::EVENT_MODIFY_STATE;

use super::super::event::{self, EventUse};
use super::super::{LivenessTokens, Parker, boot, is_any_checked_token_held, is_token_held, page_size, random_id};
use super::files::Dir;
use super::{await_order, local, read, request, sized, tell, view};
use crate::sys::{Object, View};
use crate::types::{Access, LargePages, Permissions, Spec};

/// Longer than any sleep that ends as it should.
const LONG: Duration = Duration::from_secs(30);

fn memory() -> Object {
    Object::create(&local("segment"), &sized(4096)).unwrap()
}

#[test]
fn what_is_created_begins_with_the_bytes_given() {
    let bytes: Vec<u8> = (0..=250).cycle().take(page_size() + 100).collect();
    let size = 3 * page_size() as u64;
    let dir = Dir::new();
    for (source, reserve, large_pages) in [
        (local("first"), None, LargePages::Never),
        (local("first"), Some(1 << 30), LargePages::Never),
        (local("first"), None, LargePages::Prefer),
        (dir.file("first"), None, LargePages::Never),
    ] {
        let spec = Spec { reserve, large_pages, first_bytes: bytes.clone(), ..sized(size) };
        let object = Object::create(&source, &spec).unwrap();
        let opened = Object::open(&source, &Spec::default()).unwrap();
        assert!(opened.len().unwrap() >= size);
        let view = View::map(&opened, &request(0, 3 * page_size(), Access::ReadOnly)).unwrap();
        assert_eq!(read(&view, 0, bytes.len()), bytes);
        assert!(read(&view, bytes.len(), view.address_len() - bytes.len()).iter().all(|byte| *byte == 0));
        assert_eq!(object.info().unwrap().permissions, opened.info().unwrap().permissions);
    }
    let spec = Spec { first_bytes: b"hidden".to_vec(), ..sized(4096) };
    assert_eq!(read(&view(&Object::anonymous(&spec).unwrap(), 0, 6), 0, 6), b"hidden");
}

#[test]
fn the_first_bytes_are_read_before_anything_else_is_mapped() {
    let dir = Dir::new();
    for (source, reserve) in [(local("start"), None), (local("start"), Some(1 << 34)), (dir.file("start"), None)] {
        if reserve.is_some() && usize::BITS == 32 {
            continue;
        }
        let spec = Spec { reserve, first_bytes: b"the start".to_vec(), ..sized(4096) };
        let _object = Object::create(&source, &spec).unwrap();
        for access in [Access::ReadOnly, Access::ReadWrite, Access::CopyOnWrite] {
            let opened = Object::open(&source, &Spec { access, ..Spec::default() }).unwrap();
            let mut bytes = [1; 20];
            assert_eq!(opened.read_start(&mut bytes), Some(20), "{source:?} {access:?}");
            assert_eq!(&bytes, b"the start\0\0\0\0\0\0\0\0\0\0\0");
        }
    }
    // A file that is shorter. (Wine lets memory be read that is not committed.)
    let source = dir.file("short");
    let _object = Object::create(&source, &Spec { first_bytes: b"abc".to_vec(), ..sized(3) }).unwrap();
    let opened = Object::open(&source, &Spec::default()).unwrap();
    assert_eq!(opened.read_start(&mut [0; 20]), Some(3));
}

#[test]
fn a_second_token_is_of_one_slot_and_of_one_file() {
    let (dir, id) = (Dir::new(), random_id().unwrap());
    let [object, copy] = ["original", "copy"].map(|name| Object::create(&dir.file(name), &sized(4096)).unwrap());
    let [one, two] = [(), ()].map(|()| LivenessTokens::new(&object, &id).unwrap());
    let is_held = |object| is_any_checked_token_held(object, &id).unwrap();
    assert!(one.take(3).unwrap() && !is_held(&object));
    assert!(one.take_checked(&object, 3).unwrap() && is_held(&object) && !is_held(&copy));
    assert!(!two.take_checked(&object, 3).unwrap());
    assert!(two.take_checked(&object, 4).unwrap() && two.take_checked(&copy, 3).unwrap());
    // The first token does not go with it, and none of the other handle's.
    one.give_checked(3);
    assert!(one.is_alive(3).unwrap() && is_held(&object) && is_held(&copy));
    drop(two);
    assert!(!is_held(&object) && !is_held(&copy));
    assert!(one.take_checked(&object, 3).unwrap());
    drop(one);
    assert!(!is_held(&object) && !is_token_held(&object, &id, 3).unwrap());
}

#[test]
fn a_token_has_one_owner_and_cannot_be_opened() {
    let (object, id) = (memory(), random_id().unwrap());
    let [one, two] = [(), ()].map(|()| LivenessTokens::new(&object, &id).unwrap());
    assert!(!two.is_alive(3).unwrap());
    assert!(one.take(3).unwrap());
    assert!(two.is_alive(3).unwrap());
    assert!(!two.is_alive(4).unwrap());
    assert!(!two.take(3).unwrap());
    assert!(two.seize(3).unwrap().is_none());
    let refused = event::open(&event::path(&id, EventUse::Token, 3), EVENT_MODIFY_STATE).err();
    assert_eq!(refused, Some(STATUS_ACCESS_DENIED));
    one.give(3);
    assert!(!two.is_alive(3).unwrap());
    let seized = two.seize(3).unwrap();
    assert!(seized.is_some());
    assert!(!one.take(3).unwrap());
    drop(seized);
    assert!(one.take(3).unwrap());
    assert!(!LivenessTokens::new(&object, &random_id().unwrap()).unwrap().is_alive(3).unwrap());
}

#[test]
fn an_unpark_before_the_park_ends_it() {
    let (object, id) = (memory(), random_id().unwrap());
    let [sleeper, waker] = [(), ()].map(|()| Parker::new(&id));
    sleeper.register(&object, 70);
    for _ in 0..3 {
        let since = Instant::now();
        let token = sleeper.prepare();
        waker.unpark(std::ptr::null(), [0, 1 << 6, 0, 1 << 63]);
        sleeper.park(std::ptr::null(), 0, token, LONG);
        // Also by this participant's other threads.
        let token = sleeper.prepare();
        sleeper.unpark(std::ptr::null(), [0, 1 << 6, 0, 0]);
        sleeper.park(std::ptr::null(), 0, token, LONG);
        assert!(since.elapsed() < LONG);
    }
}

#[test]
fn a_sleep_is_no_longer_than_told() {
    let parker = Parker::new(&random_id().unwrap());
    for hung in [false, true] {
        if hung {
            parker.register(&memory(), 0);
        }
        let since = Instant::now();
        parker.park(std::ptr::null(), 0, parker.prepare(), Duration::from_millis(20));
        assert!(since.elapsed() > Duration::from_millis(10), "{:?}", since.elapsed());
        assert!(since.elapsed() < LONG);
    }
}

#[test]
fn one_unpark_wakes_every_thread_of_a_participant() {
    let (object, id) = (memory(), random_id().unwrap());
    let [sleeper, waker] = [(), ()].map(|()| Parker::new(&id));
    sleeper.register(&object, 0);
    let since = Instant::now();
    for _ in 0..20 {
        let listening = Barrier::new(5);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let token = sleeper.prepare();
                    listening.wait();
                    sleeper.park(std::ptr::null(), 0, token, LONG);
                });
            }
            listening.wait();
            waker.unpark(std::ptr::null(), [1, 0, 0, 0]);
        });
    }
    assert!(since.elapsed() < LONG);
}

#[test]
fn a_bell_lets_in_who_may_write() {
    let user = super::super::security::User::current().unwrap().sid;
    // SYSTEM reads and writes, this user writes, all others read.
    let permissions = Permissions::Sddl(format!("D:P(A;;GRGW;;;SY)(A;;GRGW;;;{user})(A;;GR;;;WD)"));
    let dir = Dir::new();
    for source in [local("bell"), dir.file("bell")] {
        let spec = Spec { permissions: Some(permissions.clone()), ..sized(4096) };
        let object = Object::create(&source, &spec).unwrap();
        let dacl = object.unpark_rights().unwrap().dacl().unwrap();
        assert!(dacl.contains("0x100002;;;SY)"), "{dacl}");
        assert!(dacl.contains(&format!("0x100002;;;{user})")), "{dacl}");
        assert!(!dacl.contains("0x100002;;;WD)"), "{dacl}");
    }
}

#[test]
fn this_boot_of_this_machine_is_always_the_same() {
    let here = boot().unwrap();
    let mut peer = super::Peer::new("segments::peer", "tell");
    let there = peer.hear();
    peer.kill();
    assert_eq!(format!("{here:?}"), there);
    assert_ne!(here.boot, [0; 16]);
    assert_ne!(random_id().unwrap(), random_id().unwrap());
}

#[test]
fn peer() {
    if super::Peer::argument().is_none() {
        return;
    }
    tell(format!("{:?}", boot().unwrap()));
    await_order();
}
